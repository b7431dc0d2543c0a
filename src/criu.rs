//! CRIU's RPC: `criu swrk` is started, asked one thing, answers, and is gone.
//!
//! Each message is one packet: <https://criu.org/RPC>, and `rpc.proto` of CRIU for the numbers here.
//! Descriptors in a request are numbers of this process, which CRIU opens through `/proc`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::sys::socket::{MsgFlags, send};

use crate::error::code::Code;
use crate::error::{Error, Result};
use crate::plan::fds::socket_pair;
use crate::sys::fd;

pub mod wire;

use wire::{Message, Value, fields};

/// `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Save the processes and end them, or let them run on.
    Dump = 1,
    /// Bring them back.
    Restore = 2,
    /// Save memory alone.
    PreDump = 4,
    /// Answer to a notification.
    Notify = 6,
    /// What kernel and CRIU can do.
    FeatureCheck = 9,
    /// Which CRIU it is.
    Version = 10,
}

/// Fields of `criu_opts`.
#[allow(missing_docs, reason = "the names are CRIU's: see criu(8)")]
pub mod option {
    pub const IMAGES_DIR_FD: u32 = 1;
    pub const PID: u32 = 2;
    pub const LEAVE_RUNNING: u32 = 3;
    pub const EXT_UNIX_SK: u32 = 4;
    pub const TCP_ESTABLISHED: u32 = 5;
    pub const EVASIVE_DEVICES: u32 = 6;
    pub const SHELL_JOB: u32 = 7;
    pub const FILE_LOCKS: u32 = 8;
    pub const LOG_LEVEL: u32 = 9;
    pub const LOG_FILE: u32 = 10;
    pub const PAGE_SERVER: u32 = 11;
    pub const NOTIFY_SCRIPTS: u32 = 12;
    pub const ROOT: u32 = 13;
    pub const PARENT_IMG: u32 = 14;
    pub const TRACK_MEM: u32 = 15;
    pub const AUTO_DEDUP: u32 = 16;
    pub const WORK_DIR_FD: u32 = 17;
    pub const LINK_REMAP: u32 = 18;
    pub const EXT_MNT: u32 = 23;
    pub const MANAGE_CGROUPS: u32 = 24;
    pub const CG_ROOT: u32 = 25;
    pub const RST_SIBLING: u32 = 26;
    pub const INHERIT_FD: u32 = 27;
    pub const MANAGE_CGROUPS_MODE: u32 = 34;
    pub const EXTERNAL: u32 = 37;
    pub const EMPTY_NS: u32 = 38;
    pub const JOIN_NS: u32 = 39;
    pub const FREEZE_CGROUP: u32 = 44;
    pub const TCP_SKIP_IN_FLIGHT: u32 = 46;
    pub const LAZY_PAGES: u32 = 48;
    pub const ORPHAN_PTS_MASTER: u32 = 50;
    pub const CONFIG_FILE: u32 = 51;
    pub const TCP_CLOSE: u32 = 52;
    pub const LSM_PROFILE: u32 = 53;
    pub const LSM_MOUNT_CONTEXT: u32 = 63;
}

/// CRIU's log in its work directory: everything, for the line that says what failed.
const LOG_LEVEL: i64 = 4;

/// The longest packet that CRIU sends: an error with its message.
const LONGEST_ANSWER: usize = 64 << 10;

/// A CRIU that waits to be asked. Dropping it waits for its end.
#[derive(Debug)]
pub struct Criu {
    child: Child,
    socket: Option<OwnedFd>,
}

/// What CRIU reports while it works, and waits for an answer to.
#[derive(Debug)]
pub struct Notification {
    /// Its name: criu.org/Action_scripts.
    pub script: String,
    /// A process it is about.
    pub pid: i32,
    /// A descriptor that comes with it.
    pub fd: Option<OwnedFd>,
}

impl Criu {
    /// Starts CRIU with the standard streams of this process.
    ///
    /// # Errors
    /// [`Error::Host`] if it is not installed.
    pub fn start() -> Result<Self> {
        let (ours, theirs) = socket_pair()?;
        fd::keep_on_exec(theirs.as_raw_fd())
            .map_err(|errno| Error::host("keep", "the socket to criu", errno))?;
        let number = theirs.as_raw_fd().to_string();
        let child = Command::new("criu").args(["swrk", &number]).spawn();
        let child = child.map_err(|error| Error::host("run", "criu (package criu)", error))?;
        Ok(Self {
            child,
            socket: Some(ours),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Asks for `request`; `attend` is called for each notification.
    ///
    /// # Errors
    /// [`Error::Failed`] with CRIU's reason; what `attend` returns.
    pub fn ask(
        mut self,
        request: Request,
        options: Option<&Message>,
        attend: &mut dyn FnMut(Notification) -> Result<()>,
    ) -> Result<Vec<u8>> {
        let mut message = Message::default();
        message.number(1, request as i64);
        if let Some(options) = options {
            message.message(2, options);
        }
        if request == Request::FeatureCheck {
            let mut wanted = Message::default();
            wanted.flag(1, true).flag(2, true);
            message.message(5, &wanted);
        }
        self.send(&message)?;
        let answer = loop {
            let (answer, fd) = self.receive(request)?;
            if number(&answer, 1) != Some(Request::Notify as u64) {
                break answer;
            }
            attend(notification(&answer, fd))?;
            let mut message = Message::default();
            message.number(1, Request::Notify as i64).flag(3, true);
            self.send(&message)?;
        };
        drop(self.socket.take());
        let ended = self.child.wait();
        let ended = ended.map_err(|error| Error::host("wait for", "criu", error))?;
        // After a pre-dump it waits for the dump that belongs to it, and we go away instead.
        if !ended.success() && request != Request::PreDump {
            return Err(failed(format!("criu failed: {ended}")));
        }
        Ok(answer)
    }

    fn send(&self, message: &Message) -> Result<()> {
        let socket = self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        send(socket, message.as_bytes(), MsgFlags::MSG_NOSIGNAL)
            .map(drop)
            .map_err(|errno| Error::host("write to", "criu", errno))
    }

    fn receive(&self, request: Request) -> Result<(Vec<u8>, Option<OwnedFd>)> {
        let mut bytes = vec![0; LONGEST_ANSWER];
        let Some(socket) = &self.socket else {
            return Err(Error::Failed("criu has answered already".into()));
        };
        let (length, fd) = fd::recv_fd(socket.as_fd(), &mut bytes)
            .map_err(|errno| Error::host("read from", "criu", errno))?;
        if length == 0 {
            return Err(failed("criu failed: it ended without an answer".into()));
        }
        bytes.truncate(length);
        if number(&bytes, 2) == Some(1) {
            return Ok((bytes, fd));
        }
        let errno = number(&bytes, 7).map_or(0, |errno| errno as i32);
        let kind = format!("{request:?}").to_uppercase();
        let mut why = format!("criu failed: type {kind} errno {errno}");
        if let Some(text) = text(&bytes, 9) {
            why = format!("{why}: {text}");
        }
        Err(failed(why))
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        // It ends when its socket does.
        drop(self.socket.take());
        let _ = self.child.wait();
    }
}

fn failed(why: String) -> Error {
    Error::Known(Code::CRIU_FAILED, why)
}

fn notification(answer: &[u8], fd: Option<OwnedFd>) -> Notification {
    let inner = match find(answer, 5) {
        Some(Value::Bytes(inner)) => inner,
        _ => &[],
    };
    Notification {
        script: text(inner, 1).unwrap_or_default(),
        pid: number(inner, 2).map_or(0, |pid| pid as i32),
        fd,
    }
}

fn find(message: &[u8], field: u32) -> Option<Value<'_>> {
    let found = fields(message)
        .into_iter()
        .find(|(number, _)| *number == field);
    found.map(|(_, value)| value)
}

fn number(message: &[u8], field: u32) -> Option<u64> {
    match find(message, field)? {
        Value::Number(number) => Some(number),
        Value::Bytes(_) => None,
    }
}

fn text(message: &[u8], field: u32) -> Option<String> {
    match find(message, field)? {
        Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::Number(_) => None,
    }
}

/// Refuses a CRIU that is older than `wanted` (major and minor), which would ignore `flag`.
///
/// # Errors
/// [`Error::Usage`], or that CRIU cannot be asked.
pub fn need_version(wanted: (u64, u64), flag: &str) -> Result<()> {
    let answer = Criu::start()?.ask(Request::Version, None, &mut |_| Ok(()))?;
    let version = match find(&answer, 10) {
        Some(Value::Bytes(version)) => (number(version, 1), number(version, 2)),
        _ => (None, None),
    };
    if version >= (Some(wanted.0), Some(wanted.1)) {
        return Ok(());
    }
    let (major, minor) = wanted;
    let why = format!("{flag} requires at least CRIU {major}.{minor}");
    Err(Error::Usage(why))
}

/// Refuses a kernel that cannot track changes of memory, or fetch pages lazily.
///
/// # Errors
/// [`Error::Usage`] with the `flag` that needs it.
pub fn need_feature(field: u32, flag: &str) -> Result<()> {
    let answer = Criu::start()?.ask(Request::FeatureCheck, None, &mut |_| Ok(()))?;
    let has = match find(&answer, 8) {
        Some(Value::Bytes(features)) => number(features, field) == Some(1),
        _ => false,
    };
    if has {
        return Ok(());
    }
    let why = format!("{flag}: criu or the kernel lacks what it needs (criu check --all tells)");
    Err(Error::Usage(why))
}

/// Fields of `criu_features`.
pub const MEM_TRACK: u32 = 1;
/// See [`MEM_TRACK`].
pub const LAZY_PAGES: u32 = 2;

/// The directories that one run of CRIU works in.
#[derive(Debug)]
pub struct Directories {
    images: OwnedFd,
    work: Option<OwnedFd>,
    log: PathBuf,
}

impl Directories {
    /// Opens them; the work directory, if one is given, is made.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn open(images: &Path, work: Option<&Path>, log: &str) -> Result<Self> {
        let open = |path: &Path| {
            let dir = fs::File::open(path);
            dir.map_err(|error| Error::host("open", path.display(), error))
        };
        if let Some(work) = work {
            fs::create_dir_all(work)
                .map_err(|error| Error::host("mkdir", work.display(), error))?;
        }
        Ok(Self {
            images: open(images)?.into(),
            work: work.map(open).transpose()?.map(OwnedFd::from),
            log: work.unwrap_or(images).join(log),
        })
    }

    /// Adds them to the options of a request.
    pub fn add_to(&self, options: &mut Message) {
        options.number(option::IMAGES_DIR_FD, self.images.as_raw_fd().into());
        if let Some(work) = &self.work {
            options.number(option::WORK_DIR_FD, work.as_raw_fd().into());
        }
        options.number(option::LOG_LEVEL, LOG_LEVEL);
        let name = self.log.file_name().unwrap_or_default().to_string_lossy();
        options.text(option::LOG_FILE, &name);
    }

    /// Adds to CRIU's failure the line of its log that says why.
    pub fn explain(&self, error: Error) -> Error {
        let Error::Known(_, why) = error else {
            return error;
        };
        let log = self.log.display();
        let text = read_end(&self.log).unwrap_or_default();
        let errors = || text.lines().filter(|line| line.contains("Error "));
        // Programs that CRIU runs may fail without harm; it then says itself what follows from that.
        let own = errors().find(|line| !line.contains("Error (criu/util.c"));
        match own.or_else(|| errors().next()) {
            Some(line) => failed(format!("{why}: {} (all of it in {log})", line.trim())),
            None => failed(format!("{why} (see {log})")),
        }
    }
}

/// The last megabyte of a log.
fn read_end(path: &Path) -> io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    const MOST: u64 = 1 << 20;
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `--manage-cgroups-mode`, as `criu_cg_mode`.
///
/// # Errors
/// [`Error::Usage`] for a word that is none.
pub fn cgroups_mode(text: Option<&str>) -> Result<i64> {
    match text {
        None | Some("" | "soft") => Ok(3),
        Some("full") => Ok(4),
        Some("strict") => Ok(5),
        Some("ignore") => Ok(0),
        Some(_) => Err(Error::Usage(
            "Invalid manage-cgroups-mode value: soft, full, strict and ignore exist".into(),
        )),
    }
}

/// `--empty-ns`: always the network namespace, whose devices are its maker's to make again.
///
/// # Errors
/// [`Error::Usage`] for another.
pub fn empty_namespaces(list: &[String]) -> Result<i64> {
    match list.iter().find(|name| *name != "network") {
        None => Ok(i64::from(libc::CLONE_NEWNET)),
        Some(name) => Err(Error::Usage(format!("namespace {name:?} is not supported"))),
    }
}

/// The annotation by which a container names a file of CRIU's options.
pub const CONFIG_FILE: &str = "org.criu.config";

/// The options' file that a container names by annotation; runc's file if it names none.
pub fn config_file(spec: &oci_spec::runtime::Spec) -> Option<String> {
    let annotations = spec.annotations().as_ref();
    match annotations.and_then(|all| all.get(CONFIG_FILE)) {
        Some(file) if file.is_empty() => None,
        Some(file) => Some(file.clone()),
        None => Some("/etc/criu/runc.conf".into()),
    }
}

/// Adds an entry of two strings: `ext_mount_map`, `join_namespace`, `cgroup_root`.
pub fn add_pair(options: &mut Message, field: u32, first: &str, second: &str) {
    let mut pair = Message::default();
    pair.text(1, first).text(2, second);
    options.message(field, &pair);
}

/// Tells CRIU to take descriptor `fd` for what `key` stands for in the images.
pub fn inherit(options: &mut Message, key: &str, fd: i32) {
    let mut inherit = Message::default();
    inherit.text(1, key).number(2, fd.into());
    options.message(option::INHERIT_FD, &inherit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_is_read() {
        let (mut inner, mut answer) = (Message::default(), Message::default());
        inner.text(1, "post-restore").number(2, 77);
        answer.number(1, 6).flag(2, true).message(5, &inner);
        let note = notification(answer.as_bytes(), None);
        assert_eq!((note.script.as_str(), note.pid), ("post-restore", 77));
        assert_eq!(notification(&[], None).script, "");
    }

    #[test]
    fn only_known_words_are_taken() {
        assert_eq!(cgroups_mode(None).unwrap(), 3);
        assert_eq!(cgroups_mode(Some("ignore")).unwrap(), 0);
        assert!(cgroups_mode(Some("none")).is_err());
        assert!(empty_namespaces(&["pid".into()]).is_err());
        let network = empty_namespaces(&["network".into()]).unwrap();
        assert_eq!(network, i64::from(libc::CLONE_NEWNET));
    }
}
