//! What the tests of registries share: a store, small archives, a real registry on loopback.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses a part; a test fails by panicking"
)]

use std::fs;
use std::io::{self, Cursor, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdocker::image::create::ImportOptions;
use rdocker::image::tar::{Entry, Kind, Writer};
use rdocker::image::{Image, Images, Reference};
use rdocker::store::Store;

/// A store of its own.
pub struct Host {
    pub dir: tempfile::TempDir,
    pub store: Store,
}

impl Host {
    pub fn new() -> Host {
        let dir = tempfile::Builder::new()
            .prefix("rimages-")
            .tempdir()
            .unwrap();
        let store = Store::open(&dir.path().join("data")).unwrap();
        Host { dir, store }
    }

    pub fn images(&self) -> Images<'_> {
        Images::new(&self.store)
    }

    /// Imports an image with these files.
    pub fn import(&self, name: &str, files: &[(&str, &[u8])]) -> Image {
        let options = ImportOptions {
            name: Some(name_of(name)),
            source: "-".into(),
            ..ImportOptions::default()
        };
        let id = self
            .images()
            .import(Cursor::new(root_tar(files)), &options)
            .unwrap();
        self.images().get(&id).unwrap()
    }

    pub fn count(&self, dir: &str) -> usize {
        fs::read_dir(self.store.root().join(dir)).unwrap().count()
    }
}

pub fn name_of(name: &str) -> Reference {
    Reference::parse(name).unwrap().or_latest()
}

pub fn root_tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    writer
        .add(&Entry::new("bin/", Kind::Directory), io::empty())
        .unwrap();
    for (path, bytes) in files {
        writer.add_bytes(path, bytes).unwrap();
    }
    writer.finish().unwrap()
}

/// Bytes that no compression makes smaller.
pub fn noise(size: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    seed |= 1;
    while bytes.len() < size {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

pub fn skopeo(args: &[&str]) {
    let out = Command::new("skopeo")
        .arg("--insecure-policy")
        .args(args)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// How a registry protects itself.
#[derive(Default)]
pub struct Protection {
    /// `joe` with the password `secret`.
    pub auth: bool,
    /// TLS with a certificate of its own authority.
    pub tls: bool,
}

/// Debian's docker-registry with a store of its own; it dies with this value.
pub struct Registry {
    child: Child,
    pub dir: tempfile::TempDir,
    pub host: String,
}

/// bcrypt of `secret`.
const HTPASSWD: &str = "joe:$2b$04$T1SfJbeMRVp929XiUXJ1Wegs60cxJaKWgMpsrVfnkraLmyFTMBAdy\n";

impl Registry {
    pub fn start(protection: &Protection) -> Registry {
        let dir = tempfile::Builder::new()
            .prefix("rimages-registry-")
            .tempdir()
            .unwrap();
        let port = free_port();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n",
            at("data")
        );
        config.push_str(&format!("http:\n  addr: 127.0.0.1:{port}\n"));
        if protection.tls {
            make_certificates(dir.path());
            config.push_str(&format!(
                "  tls: {{certificate: {}, key: {}}}\n",
                at("server.crt"),
                at("server.key")
            ));
        }
        if protection.auth {
            fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
            config.push_str(&format!(
                "auth: {{htpasswd: {{realm: r, path: {}}}}}\n",
                at("htpasswd")
            ));
        }
        fs::write(dir.path().join("config.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Registry {
            child,
            dir,
            host: format!("127.0.0.1:{port}"),
        };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.host).is_err() {
            assert!(Instant::now() < until, "the registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// A directory like certs.d that trusts this registry's authority.
    pub fn certs_dir(&self) -> PathBuf {
        let dir = self.dir.path().join("certs.d");
        fs::create_dir_all(dir.join(&self.host)).unwrap();
        fs::copy(
            self.dir.path().join("ca.crt"),
            dir.join(&self.host).join("ca.crt"),
        )
        .unwrap();
        dir
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority and a server certificate for 127.0.0.1 signed by it.
pub fn make_certificates(dir: &Path) {
    let openssl = |args: &[&str]| {
        let out = Command::new("openssl")
            .current_dir(dir)
            .args(args)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    };
    let new = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ];
    let mut ca = vec!["req", "-x509", "-days", "2", "-subj", "/CN=test authority"];
    ca.extend(new);
    ca.extend(["-keyout", "ca.key", "-out", "ca.crt"]);
    openssl(&ca);
    let mut request = vec!["req", "-subj", "/CN=server"];
    request.extend(new);
    request.extend(["-keyout", "server.key", "-out", "server.csr"]);
    openssl(&request);
    let mut san = fs::File::create(dir.join("san")).unwrap();
    san.write_all(b"subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "server.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-extfile",
        "san",
        "-out",
        "server.crt",
    ]);
}
