//! Pull, push and login against a real docker-registry on loopback, with authentication and TLS.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::sync::Mutex;

use common::{Host, Protection, Registry, name_of, noise, skopeo};
use rdocker::image::pull::{PullOptions, Pulled};
use rdocker::image::registry::login::login;
use rdocker::image::registry::search::search;
use rdocker::image::registry::{Credential, Credentials, RegistryOptions};
use rdocker::image::{Event, Progress, Quiet, Status};

/// Remembers what was told.
#[derive(Default)]
struct Told {
    lines: Mutex<Vec<String>>,
}

impl Progress for Told {
    fn event(&self, event: Event<'_>) {
        let line = match event {
            Event::Message(text) => text.to_owned(),
            Event::Of { id, text } => format!("{id}: {text}"),
            Event::Layer { status, .. } => status.text().to_owned(),
        };
        self.lines.lock().unwrap().push(line);
    }
}

impl Told {
    fn count(&self, status: Status) -> usize {
        self.lines
            .lock()
            .unwrap()
            .iter()
            .filter(|line| *line == status.text())
            .count()
    }
}

fn joe() -> Credential {
    Credential::Password {
        user: "joe".into(),
        password: "secret".into(),
    }
}

fn pull(host: &Host, name: &str, registry: &RegistryOptions) -> Result<Pulled, String> {
    let options = PullOptions {
        platform: None,
        registry: registry.clone(),
    };
    host.images()
        .pull(&name_of(name), &options, &Quiet)
        .map_err(|error| error.to_string())
}

fn push(host: &Host, name: &str, registry: &RegistryOptions) -> Result<String, String> {
    let pushed = host.images().push(&name_of(name), registry, &Quiet);
    pushed
        .map(|pushed| pushed.digest.to_string())
        .map_err(|error| error.to_string())
}

#[test]
fn what_was_pushed_is_pulled_with_every_digest() {
    let registry = Registry::start(&Protection::default());
    let open = RegistryOptions::default();
    let first = Host::new();
    let name = format!("{}/hexo/node:1", registry.host);
    let image = first.import(&name, &[("bin/sh", b"#!"), ("bin/big", &noise(3 << 20, 1))]);
    let told = Told::default();
    let pushed = first.images().push(&name_of(&name), &open, &told).unwrap();
    assert_eq!(
        told.count(Status::Pushed),
        1,
        "of the configuration nothing is told"
    );
    let second = Host::new();
    let told = Told::default();
    let options = PullOptions {
        platform: None,
        registry: open.clone(),
    };
    let pulled = second
        .images()
        .pull(&name_of(&name), &options, &told)
        .unwrap();
    assert_eq!(
        (&pulled.id, &pulled.digest, pulled.updated),
        (&image.id, &pushed.digest, true)
    );
    assert_eq!(told.lines.lock().unwrap()[0], "1: Pulling from hexo/node");
    assert_eq!(told.count(Status::PullComplete), 1);
    let back = second.images().resolve(&name).unwrap();
    assert_eq!(back.raw, image.raw);
    assert_eq!(
        fs::read(back.layers[0].path.join("bin/big")).unwrap(),
        noise(3 << 20, 1)
    );
    assert_eq!(
        back.repo_digests,
        [format!("{}/hexo/node@{}", registry.host, pushed.digest)]
    );
    // Again: nothing is new, here or there.
    assert!(!pull(&second, &name, &open).unwrap().updated);
    let told = Told::default();
    let again = second.images().push(&name_of(&name), &open, &told).unwrap();
    assert_eq!(again, pushed);
    assert_eq!(told.count(Status::LayerAlreadyExists), 1);
    // By digest it has no tag, but the digest finds it.
    let third = Host::new();
    let by_digest = format!("{}/hexo/node@{}", registry.host, pushed.digest);
    pull(&third, &by_digest, &open).unwrap();
    assert_eq!(third.images().resolve(&by_digest).unwrap().tags, [""; 0]);
    assert_eq!((second.count("tmp"), second.count("ingest")), (0, 0));
}

#[test]
fn blobs_are_mounted_from_a_repository_that_has_them() {
    let registry = Registry::start(&Protection::default());
    let open = RegistryOptions::default();
    let host = Host::new();
    let (one, two) = (
        format!("{}/one", registry.host),
        format!("{}/two", registry.host),
    );
    host.import(&one, &[("bin/sh", b"#!")]);
    push(&host, &one, &open).unwrap();
    host.images().tag(&one, &two).unwrap();
    let told = Told::default();
    host.images().push(&name_of(&two), &open, &told).unwrap();
    assert_eq!(
        (told.count(Status::Mounted), told.count(Status::Pushed)),
        (1, 0)
    );
}

#[test]
fn skopeos_images_are_pulled_in_both_families_of_media_types() {
    let registry = Registry::start(&Protection::default());
    let open = RegistryOptions::default();
    let host = Host::new();
    let image = host.import(
        "base:1",
        &[("bin/sh", b"#!"), ("bin/x", &noise(1 << 20, 2))],
    );
    let archive = host.dir.path().join("a.tar");
    let mut bytes = Vec::new();
    host.images().save(&["base:1"], &mut bytes).unwrap();
    fs::write(&archive, bytes).unwrap();
    for (format, compression) in [("oci", "gzip"), ("oci", "zstd"), ("v2s2", "gzip")] {
        let name = format!("{}/from-skopeo/{format}-{compression}", registry.host);
        let source = format!("oci-archive:{}", archive.display());
        let target = format!("docker://{name}");
        skopeo(&[
            "copy",
            "--dest-tls-verify=false",
            "--format",
            format,
            "--dest-compress-format",
            compression,
            "--dest-compress",
            &source,
            &target,
        ]);
        let second = Host::new();
        let pulled = pull(&second, &name, &open).unwrap();
        let got = second.images().get(&pulled.id).unwrap();
        assert_eq!(
            got.layers[0].diff_id, image.layers[0].diff_id,
            "{format} {compression}"
        );
        // Pushed on under another name, the manifest is the same byte for byte.
        let copy = format!("{}/copy/{format}-{compression}", registry.host);
        second.images().tag(&name, &copy).unwrap();
        assert_eq!(
            push(&second, &copy, &open).unwrap(),
            pulled.digest.to_string()
        );
        let inspect = std::process::Command::new("skopeo")
            .args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"])
            .arg(format!("docker://{copy}"))
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&inspect.stdout).trim(),
            pulled.digest.to_string()
        );
    }
}

#[test]
fn a_missing_name_is_told_in_dockers_words() {
    let registry = Registry::start(&Protection::default());
    let open = RegistryOptions::default();
    let host = Host::new();
    let name = format!("{}/a", registry.host);
    host.import(&name, &[("bin/sh", b"#!")]);
    push(&host, &name, &open).unwrap();
    assert_eq!(
        pull(&host, &format!("{name}:nope"), &open).unwrap_err(),
        format!("manifest for {name}:nope not found: manifest unknown: manifest unknown")
    );
    assert_eq!(
        push(&host, "nosuch", &open).unwrap_err(),
        "An image does not exist locally with the tag: nosuch"
    );
    let port = common::free_port();
    let refused = pull(&host, &format!("127.0.0.1:{port}/x"), &open).unwrap_err();
    assert_eq!(
        refused,
        format!("Get \"https://127.0.0.1:{port}/v2/\": connect: connection refused")
    );
}

#[test]
fn only_who_may_pulls_and_pushes() {
    let registry = Registry::start(&Protection {
        auth: true,
        tls: false,
    });
    let host = Host::new();
    let name = format!("{}/private", registry.host);
    host.import(&name, &[("bin/sh", b"#!")]);
    let nobody = RegistryOptions::default();
    let wrong = Credential::Password {
        user: "joe".into(),
        password: "seeded-secret".into(),
    };
    let given = |credential: Credential| RegistryOptions {
        credentials: Credentials::Given(credential),
        ..RegistryOptions::default()
    };
    for options in [&nobody, &given(wrong.clone())] {
        let error = push(&host, &name, options).unwrap_err();
        assert!(error.contains("unauthorized"), "{error}");
        let error = pull(&host, &name, options).unwrap_err();
        assert!(
            error.starts_with(&format!("pull access denied for {name}, ")),
            "{error}"
        );
        assert!(!error.contains("seeded"));
    }
    let file = Credentials::File(host.dir.path().join("docker/config.json"));
    let stored = RegistryOptions {
        credentials: file.clone(),
        ..RegistryOptions::default()
    };
    let error = login(&registry.host, &wrong, &stored)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("unauthorized: incorrect username or password"),
        "{error}"
    );
    assert_eq!(
        file.get(&registry.host).unwrap(),
        None,
        "a wrong password is not kept"
    );
    login(&registry.host, &joe(), &stored).unwrap();
    push(&host, &name, &stored).unwrap();
    let second = Host::new();
    pull(&second, &name, &stored).unwrap();
    assert!(file.erase(&registry.host).unwrap());
    assert!(pull(&Host::new(), &name, &stored).is_err(), "logged out");
}

#[test]
fn a_credential_helper_is_asked() {
    let registry = Registry::start(&Protection {
        auth: true,
        tls: false,
    });
    let host = Host::new();
    let name = format!("{}/private", registry.host);
    host.import(&name, &[("bin/sh", b"#!")]);
    let helper = "/usr/local/bin/docker-credential-rimages-test";
    let script = format!(
        "#!/bin/sh\nread host\n[ \"$1\" = get ] && [ \"$host\" = {} ] && \
         echo '{{\"Username\":\"joe\",\"Secret\":\"secret\"}}' && exit\n\
         echo 'credentials not found in native keychain'; exit 1\n",
        registry.host
    );
    fs::write(helper, script).unwrap();
    fs::set_permissions(helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = host.dir.path().join("config.json");
    fs::write(&path, r#"{"credsStore":"rimages-test"}"#).unwrap();
    let options = RegistryOptions {
        credentials: Credentials::File(path.clone()),
        ..RegistryOptions::default()
    };
    let pushed = push(&host, &name, &options);
    let unknown = Credentials::File(path).get("other.io");
    fs::remove_file(helper).unwrap();
    pushed.unwrap();
    assert_eq!(unknown.unwrap(), None);
}

#[test]
fn a_certificate_of_an_unknown_authority_needs_certs_d() {
    let registry = Registry::start(&Protection {
        auth: true,
        tls: true,
    });
    let host = Host::new();
    // Loopback is trusted without proof; with an authority in certs.d it must give proof.
    let name = format!("{}/x", registry.host);
    host.import(&name, &[("bin/sh", b"#!")]);
    let given = |certs_dirs| RegistryOptions {
        credentials: Credentials::Given(joe()),
        certs_dirs,
        ..RegistryOptions::default()
    };
    push(&host, &name, &given(vec![registry.certs_dir()])).unwrap();
    push(&host, &name, &given(vec![])).unwrap();
    let other = tempfile::tempdir().unwrap();
    common::make_certificates(other.path());
    let wrong = other.path().join("certs.d");
    fs::create_dir_all(wrong.join(&registry.host)).unwrap();
    fs::copy(
        other.path().join("ca.crt"),
        wrong.join(&registry.host).join("ca.crt"),
    )
    .unwrap();
    let error = push(&host, &name, &given(vec![wrong])).unwrap_err();
    assert!(error.contains("certificate"), "{error}");
}

#[test]
fn a_mirror_stands_in_for_docker_io_and_is_told_no_secret() {
    let registry = Registry::start(&Protection::default());
    let host = Host::new();
    let there = format!("{}/library/busybox:1", registry.host);
    let image = host.import(&there, &[("bin/sh", b"#!")]);
    push(&host, &there, &RegistryOptions::default()).unwrap();
    let options = RegistryOptions {
        mirrors: vec![format!("http://{}", registry.host)],
        credentials: Credentials::Given(joe()),
        ..RegistryOptions::default()
    };
    let second = Host::new();
    assert_eq!(pull(&second, "busybox:1", &options).unwrap().id, image.id);
    assert_eq!(
        second.images().resolve("busybox:1").unwrap().tags,
        ["busybox:1"]
    );
}

#[test]
fn a_registry_without_search_is_searched_by_its_catalogue() {
    let registry = Registry::start(&Protection::default());
    let open = RegistryOptions::default();
    let host = Host::new();
    for name in ["team/alpha", "team/beta"] {
        let name = format!("{}/{name}", registry.host);
        host.import(&name, &[("bin/sh", b"#!")]);
        push(&host, &name, &open).unwrap();
    }
    let found = search(&format!("{}/alp:latest", registry.host), 25, &open).unwrap();
    let names: Vec<_> = found.iter().map(|found| found.name.clone()).collect();
    assert_eq!(names, [format!("{}/team/alpha", registry.host)]);
}

#[test]
fn all_tags_go_and_come_with_one_command() {
    let registry = Registry::start(&Protection::default());
    let rdocker = |host: &Host, args: &[&str]| {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_rdocker"))
            .args(args)
            .env("RDOCKER_DATA_ROOT", host.dir.path().join("data"))
            .env("RDOCKER_EXEC_ROOT", host.dir.path().join("run"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        (out.status.code(), text)
    };
    let first = Host::new();
    let repository = format!("{}/team/app", registry.host);
    first.import(&format!("{repository}:1"), &[("bin/sh", b"#!")]);
    first
        .images()
        .tag(&format!("{repository}:1"), &format!("{repository}:2"))
        .unwrap();
    let (code, text) = rdocker(&first, &["push", "-a", &repository]);
    assert_eq!(code, Some(0), "{text}");

    let second = Host::new();
    let (code, text) = rdocker(&second, &["pull", "-a", &repository]);
    assert_eq!(code, Some(0), "{text}");
    for tag in ["1", "2"] {
        let name = format!("{repository}:{tag}");
        assert!(second.images().resolve(&name).is_ok(), "{name}: {text}");
    }
    let (code, text) = rdocker(&second, &["pull", "-a", &format!("{repository}:1")]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("tag can't be used with --all-tags/-a"),
        "{text}"
    );
    let (code, text) = rdocker(
        &second,
        &["pull", "-a", &format!("{}/no/such", registry.host)],
    );
    assert_eq!(code, Some(1));
    assert!(text.contains("pull access denied"), "{text}");
}
