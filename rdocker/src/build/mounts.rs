//! The mounts of one `RUN`, from what the Dockerfile says to what the runtime is told.
//!
//! A source is opened inside its own root and never by a path of the Dockerfile's; the name of a
//! cache is hashed before it becomes one of a directory (CVE-2024-23651, CVE-2024-9675).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::key::Key;
use super::mount::{Cache, Kind, Mount, Secret, Sharing};
use super::points::Point;
use super::sandbox::Cell;
use super::source::Source;
use super::stage::Work;
use super::tree::{self, Node, Owner};
use super::{Build, Given};
use crate::error::{Error, Result};
use crate::store;
use crate::store::digest::Digest;
use crate::store::lock::FileLock;
use crate::volume::MountPoint;

/// The largest secret, in bytes, as in BuildKit.
const SECRET_MAX: u64 = 500 << 10;
/// Bytes of the memory that holds a step's secrets.
const SECRETS_SIZE: &str = "mode=0700,size=16m";

/// Mounts, from gathered to settled.
#[derive(Default)]
pub struct Prepared<'b> {
    list: Vec<One<'b>>,
    binds: Vec<MountPoint>,
    tmpfs: BTreeMap<String, String>,
    env: Vec<String>,
    points: Vec<(String, Point)>,
    locks: Vec<FileLock>,
    secrets: Option<Secrets>,
    agents: Vec<Agent>,
}

/// One mount, and what it shows.
struct One<'b> {
    mount: Mount,
    source: Option<(Source<'b>, super::source::Found, Vec<Node>)>,
}

impl<'b> Prepared<'b> {
    /// Opens and lists what the mounts show; waits for the stages they name.
    pub(super) fn gather(work: &Work<'b, '_>, mounts: Vec<Mount>) -> Result<Self> {
        let mut prepared = Self::default();
        for mount in mounts {
            let source = match &mount.kind {
                Kind::Bind(source) => Some(source),
                Kind::Cache(cache) => cache.seed.as_ref(),
                _ => None,
            };
            let source = match source {
                None => None,
                Some(wanted) => {
                    let source = work.build.source(work.index, wanted.from.as_deref())?;
                    let found = source.literal(&wanted.path)?;
                    // What an image holds is named by its layers; a context has to be read.
                    let nodes = match (&source, &mount.kind) {
                        (Source::Image(..), Kind::Bind(_)) => Vec::new(),
                        _ => source.list(&found, &super::ignore::Ignore::default())?,
                    };
                    Some((source, found, nodes))
                }
            };
            prepared.list.push(One { mount, source });
        }
        Ok(prepared)
    }

    /// Adds to a step's key what its mounts show. Caches, secrets and agents do not count: a step
    /// that depends on what is in them would never be cached.
    pub(super) fn describe(&self, key: &mut Key) {
        key.number(self.list.len() as u64);
        for One { mount, source } in &self.list {
            key.text(mount.kind.word());
            key.text(mount.target.as_deref().unwrap_or_default());
            key.number(u64::from(mount.read_only));
            match &mount.kind {
                Kind::Cache(cache) => key.text(&cache.id),
                Kind::Secret(secret) | Kind::Ssh(secret) => {
                    key.list(&[&secret.id, secret.env.as_ref().unwrap_or(&String::new())]);
                }
                Kind::Tmpfs(size) => key.text(&format!("{size:?}")),
                Kind::Bind(_) => {}
            }
            if let (Kind::Bind(_), Some((source, found, nodes))) = (&mount.kind, source) {
                if let Source::Image(_, layer) = source {
                    key.text(&layer.as_ref().map(Digest::to_string).unwrap_or_default());
                    key.field(&found.path);
                }
                tree::describe(nodes, Owner::Set(0, 0), key);
            }
        }
    }

    /// Makes everything that the container is going to see.
    pub(super) fn settle(&mut self, build: &Build<'_>, cell: &Cell) -> Result<()> {
        let list = std::mem::take(&mut self.list);
        for (at, one) in list.iter().enumerate() {
            let target = one.mount.target.clone().unwrap_or_default();
            match &one.mount.kind {
                Kind::Bind(_) => {
                    let Some((source, found, nodes)) = &one.source else {
                        continue;
                    };
                    let path = build.show(source, found, nodes, one.mount.read_only)?;
                    self.bind(path, target, !one.mount.read_only);
                }
                Kind::Cache(cache) => {
                    let dir = self.cache(build, cache, one)?;
                    self.bind(dir, target, !one.mount.read_only);
                }
                Kind::Tmpfs(size) => {
                    let size = size.map(|size| format!(",size={size}")).unwrap_or_default();
                    self.points.push((target.clone(), Point::Directory));
                    self.tmpfs.insert(target, format!("exec,mode=1777{size}"));
                }
                Kind::Secret(secret) => self.secret(build, secret, &one.mount, at)?,
                Kind::Ssh(secret) => self.agent(build, secret, &one.mount, cell)?,
            }
        }
        self.list = list;
        Ok(())
    }

    fn bind(&mut self, source: PathBuf, target: String, rw: bool) {
        let point = if source.is_dir() {
            Point::Directory
        } else {
            Point::File
        };
        // What is mounted itself has its mount points made by the runtime.
        if !["/dev/", "/proc/", "/sys/"]
            .iter()
            .any(|own| target.starts_with(own))
        {
            self.points.push((target.clone(), point));
        }
        self.binds.push(MountPoint {
            kind: "bind".to_owned(),
            source: source.display().to_string(),
            destination: target,
            rw,
            propagation: "rprivate".to_owned(),
            ..MountPoint::default()
        });
    }

    /// A script that the step executes.
    pub(super) fn script(&mut self, cell: &Cell, name: &str, text: &str) -> Result<()> {
        let path = cell.dir.join("script");
        write_new(&path, text.as_bytes(), 0o755)?;
        self.bind(path, format!("/dev/pipes/{name}"), false);
        Ok(())
    }

    /// The directory of a cache, locked as it says for as long as the step runs.
    fn cache(&mut self, build: &Build<'_>, cache: &Cache, one: &One<'_>) -> Result<PathBuf> {
        let all = caches_dir(build.host);
        let name = Digest::of(cache.id.as_bytes());
        for number in 0_u32.. {
            let dir = all.join(format!("{}-{number}", name.hex()));
            let Some(lock) = enter(&dir, cache.sharing)? else {
                continue;
            };
            self.locks.push(lock);
            let data = dir.join("data");
            // Steps that share a cache enter together; the first of them fills it.
            let _filling = FileLock::exclusive(&dir.join("filling"))?;
            if !data.is_dir() {
                fill(cache, one, &dir, &data)?;
            }
            return Ok(data);
        }
        Err(Error::Invalid("every cache is in use".to_owned()))
    }

    fn secret(
        &mut self,
        build: &Build<'_>,
        secret: &Secret,
        mount: &Mount,
        at: usize,
    ) -> Result<()> {
        let Some(given) = build.options.secrets.get(&secret.id) else {
            return match secret.required {
                true => Err(Error::Invalid(format!("secret {}: not found", secret.id))),
                false => Ok(()),
            };
        };
        let bytes = match given {
            Given::Env(name) => std::env::var_os(name)
                .map(std::os::unix::ffi::OsStringExt::into_vec)
                .ok_or_else(|| {
                    Error::Invalid(format!("secret {}: ${name} is not set", secret.id))
                })?,
            Given::File(path) => {
                let fail = |errno| Error::host("read the secret", path, errno);
                let mut bytes = Vec::new();
                File::open(path)
                    .map_err(fail)?
                    .take(SECRET_MAX + 1)
                    .read_to_end(&mut bytes)
                    .map_err(fail)?;
                bytes
            }
        };
        if bytes.len() as u64 > SECRET_MAX {
            return Err(Error::Invalid(format!(
                "secret {} is larger than 500 KiB",
                secret.id
            )));
        }
        if let Some(name) = &secret.env {
            let text = String::from_utf8(bytes.clone())
                .map_err(|_| Error::Invalid(format!("secret {} is no text", secret.id)))?;
            self.env.push(format!("{name}={text}"));
        }
        let Some(target) = &mount.target else {
            return Ok(());
        };
        if self.secrets.is_none() {
            self.secrets = Some(Secrets::new(build)?);
        }
        let dir = self
            .secrets
            .as_ref()
            .map(|secrets| secrets.dir.clone())
            .unwrap_or_default();
        let path = dir.join(at.to_string());
        write_new(&path, &bytes, secret.mode)?;
        own(&path, secret.owner)?;
        self.bind(path, target.clone(), false);
        Ok(())
    }

    fn agent(
        &mut self,
        build: &Build<'_>,
        secret: &Secret,
        mount: &Mount,
        cell: &Cell,
    ) -> Result<()> {
        let Some(paths) = build.options.ssh.get(&secret.id) else {
            return match secret.required {
                true => Err(Error::Invalid(format!(
                    "ssh {}: not given with --ssh",
                    secret.id
                ))),
                false => Ok(()),
            };
        };
        let number = self.agents.len();
        let socket = cell.dir.join(format!("ssh{number}"));
        let agent = Agent::new(paths, &socket, cell)?;
        let mode = fs::Permissions::from_mode(secret.mode);
        fs::set_permissions(&socket, mode)
            .map_err(|errno| Error::host("set the mode of", &socket, errno))?;
        own(&socket, secret.owner)?;
        self.agents.push(agent);
        let default = || format!("/run/buildkit/ssh_agent.{number}");
        let target = mount.target.clone().unwrap_or_else(default);
        self.env.push(format!("SSH_AUTH_SOCK={target}"));
        self.bind(socket, target, true);
        Ok(())
    }

    /// Runs `f` while agents are answered.
    pub(super) fn serve<T>(&self, f: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for agent in &self.agents {
                scope.spawn(|| agent.serve(scope, &done));
            }
            let value = f();
            done.store(true, Ordering::SeqCst);
            for agent in &self.agents {
                // Wakes the one that waits for a client.
                drop(UnixStream::connect(&agent.socket));
            }
            value
        })
    }

    pub(super) fn binds(&self) -> Vec<MountPoint> {
        self.binds.clone()
    }

    pub(super) fn tmpfs(&self) -> BTreeMap<String, String> {
        self.tmpfs.clone()
    }

    pub(super) fn env(&self) -> &[String] {
        &self.env
    }

    pub(super) fn points(&self) -> Vec<(String, Point)> {
        self.points.clone()
    }
}

/// Where caches are.
pub fn caches_dir(host: &crate::host::Host) -> PathBuf {
    host.data_root.join("build/caches")
}

/// Locks a cache directory, which is made if it is missing; `None` if it is another's own.
fn enter(dir: &Path, sharing: Sharing) -> Result<Option<FileLock>> {
    let path = dir.join("lock");
    loop {
        make_dir(dir, 0o700)?;
        let lock = match sharing {
            Sharing::Shared => FileLock::shared(&path).map(Some),
            Sharing::Locked => FileLock::exclusive(&path).map(Some),
            Sharing::Private => FileLock::try_exclusive(&path),
        };
        match lock {
            Ok(Some(lock)) if !lock.is_at(&path) => {}
            Err(store::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            lock => return Ok(lock?),
        }
        // A prune has removed the directory since it was made.
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path);
    made.map_err(|errno| Error::host("create directory", path, errno))
}

/// Makes the directory of a new cache, with what it begins with; it appears whole.
fn fill(cache: &Cache, one: &One<'_>, dir: &Path, data: &Path) -> Result<()> {
    let part = dir.join("part");
    crate::store::gc::remove_tree(&part)?;
    make_dir(&part, cache.mode)?;
    if let Some((source, found, nodes)) = &one.source {
        let root = super::context::open_directory(&part)?;
        let place = tree::Place {
            root: std::os::fd::AsFd::as_fd(&root),
            path: b"",
            keep_root: true,
        };
        let shape = tree::Shape {
            owner: source.owner(),
            mode: &|node| node.mode,
        };
        source.copy(found, nodes, &place, &shape)?;
    }
    own(&part, cache.owner)?;
    let mode = fs::Permissions::from_mode(cache.mode);
    fs::set_permissions(&part, mode)
        .map_err(|errno| Error::host("set the mode of", &part, errno))?;
    let name = dir.join("id");
    fs::write(&name, &cache.id).map_err(|errno| Error::host("write", &name, errno))?;
    fs::rename(&part, data).map_err(|errno| Error::host("rename", &part, errno))
}

fn own(path: &Path, (uid, gid): (u32, u32)) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))
        .map_err(|errno| Error::host("set the owner of", path, errno))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let at = |errno| Error::host("write", path, errno);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(at)?;
    file.write_all(bytes).map_err(at)?;
    file.set_permissions(fs::Permissions::from_mode(mode))
        .map_err(at)
}

/// Memory that holds a step's secrets; gone with the step, and with the mount namespace.
struct Secrets {
    dir: PathBuf,
}

impl Secrets {
    fn new(build: &Build<'_>) -> Result<Self> {
        let dir = super::context::scratch_dir(build.lease)?;
        let options = std::ffi::CString::new(SECRETS_SIZE).expect("it has no NUL");
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("tmpfs", &dir, "tmpfs", flags, Some(options.as_c_str()))
            .map_err(|errno| Error::host("mount memory on", &dir, errno))?;
        Ok(Self { dir })
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        // The mount namespace takes it off at the latest.
        let _ = unmount(&self.dir, UnmountFlags::DETACH);
    }
}

/// An SSH agent, and the socket that a step reaches it by.
struct Agent {
    socket: PathBuf,
    listener: UnixListener,
    upstream: PathBuf,
    own: Option<std::process::Child>,
}

impl Agent {
    /// One socket is an agent's; files are keys, and get an agent of their own.
    fn new(paths: &[PathBuf], socket: &Path, cell: &Cell) -> Result<Self> {
        use std::os::unix::fs::FileTypeExt;
        let fail = |errno| Error::host("listen on", socket, errno);
        let listener = UnixListener::bind(socket).map_err(fail)?;
        let mut agent = Self {
            socket: socket.to_owned(),
            listener,
            upstream: paths.first().cloned().unwrap_or_default(),
            own: None,
        };
        if let [path] = paths
            && fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
        {
            return Ok(agent);
        }
        agent.upstream = cell
            .dir
            .join(format!("{}.agent", socket.display().to_string().len()));
        let _ = fs::remove_file(&agent.upstream);
        let program = Path::new("ssh-agent");
        let run = |errno| Error::host("execute", program, errno);
        let child = Command::new(program)
            .arg("-D")
            .arg("-a")
            .arg(&agent.upstream)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(run)?;
        agent.own = Some(child);
        for _ in 0..500 {
            if agent.upstream.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let added = Command::new("ssh-add")
            .arg("-q")
            .args(paths)
            .env("SSH_AUTH_SOCK", &agent.upstream)
            .stdin(Stdio::null())
            .output()
            .map_err(|errno| Error::host("execute", Path::new("ssh-add"), errno))?;
        if !added.status.success() {
            let text = String::from_utf8_lossy(&added.stderr);
            return Err(Error::Invalid(format!("--ssh: {}", text.trim())));
        }
        Ok(agent)
    }

    /// Answers clients until `done`.
    fn serve<'s>(&'s self, scope: &'s std::thread::Scope<'s, '_>, done: &AtomicBool) {
        while let Ok((client, _)) = self.listener.accept() {
            if done.load(Ordering::SeqCst) {
                return;
            }
            let Ok(agent) = UnixStream::connect(&self.upstream) else {
                continue;
            };
            let both = (client.try_clone(), agent.try_clone());
            if let (Ok(mut client_out), Ok(mut agent_out)) = both {
                let (mut client_in, mut agent_in) = (client, agent);
                scope.spawn(move || {
                    let _ = io::copy(&mut client_in, &mut agent_in);
                    let _ = agent_in.shutdown(std::net::Shutdown::Write);
                });
                scope.spawn(move || {
                    let _ = io::copy(&mut agent_out, &mut client_out);
                    let _ = client_out.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(child) = &mut self.own {
            // One that has ended by itself is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
