//! Readiness: what the container says on its notify socket is passed on to keel's own.
//!
//! Man page: `sd_notify(3)`. The container gets a socket of its own at [`INSIDE`], in a directory of
//! the container's state that is bound there, because the caller's socket is not in its file system
//! and would not be told the pid that the caller knows.

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use crate::error::{Error, Result};
use crate::sys::fd;

/// Where the container finds the socket's directory.
pub const INSIDE: &str = "/run/notify";
/// The directory below the container's own, and the socket in it.
pub const DIRECTORY: &str = "notify";
const SOCKET: &str = "notify.sock";

/// How long the caller may take to read everything, in milliseconds: `BARRIER=1` of sd_notify(3).
const BARRIER_MS: i32 = 30_000;

/// The caller's socket, if it wants to be told.
pub fn wanted() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())
}

/// Makes the directory that is bound into the container.
///
/// # Errors
/// [`Error::Host`].
pub fn make_directory(container: &Path) -> Result<()> {
    let path = container.join(DIRECTORY);
    fs::create_dir(&path)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .map_err(|error| Error::host("mkdir", path.display(), error))
}

/// The container's notify socket, and the way to the caller's.
#[derive(Debug)]
pub struct Notify {
    own: UnixDatagram,
    caller: UnixDatagram,
    pid: i32,
}

impl Notify {
    /// Opens the container's socket, before its program runs. Nothing if nobody wants to be told.
    ///
    /// # Errors
    /// [`Error::Host`] if a socket cannot be made or the caller's is not there.
    pub fn open(container: &Path, pid: i32) -> Result<Option<Self>> {
        let directory = container.join(DIRECTORY);
        let Some(path) = wanted().filter(|_| directory.is_dir()) else {
            return Ok(None);
        };
        let socket = directory.join(SOCKET);
        let own = UnixDatagram::bind(&socket)
            .and_then(|own| {
                fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).map(|()| own)
            })
            .map_err(|error| Error::host("bind", socket.display(), error))?;
        let failed = |error| Error::host("connect to NOTIFY_SOCKET", path.display(), error);
        let caller = UnixDatagram::unbound().map_err(failed)?;
        let address = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&path),
        };
        address
            .and_then(|address| caller.connect_addr(&address))
            .map_err(failed)?;
        Ok(Some(Self { own, caller, pid }))
    }

    /// The container's socket, to wait for.
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.own.as_fd()
    }

    /// Reads one message and passes on what it says of readiness. `true`: the container is ready,
    /// and there is nothing left to do.
    ///
    /// # Errors
    /// [`Error::Host`] if a message cannot be read or passed on.
    pub fn pass_on(&self) -> Result<bool> {
        let mut buffer = [0; 4096];
        let length = self
            .own
            .recv(&mut buffer)
            .map_err(|error| Error::host("read", SOCKET, error))?;
        let ready = buffer[..length]
            .split(|byte| *byte == b'\n')
            .find(|line| line.starts_with(b"READY="));
        let Some(ready) = ready else {
            return Ok(false);
        };
        let failed = |error| Error::host("write to", "NOTIFY_SOCKET", error);
        self.caller.send(ready).map_err(failed)?;
        self.caller
            .send(format!("MAINPID={}", self.pid).as_bytes())
            .map_err(failed)?;
        self.barrier().map_err(|errno| failed(errno.into()))?;
        Ok(true)
    }

    /// Waits until the caller has read everything: it closes the descriptor that comes last.
    fn barrier(&self) -> Result<(), crate::sys::Errno> {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        fd::send_fd(self.caller.as_fd(), b"BARRIER=1", write.as_fd())?;
        drop(write);
        fd::poll_in(read.as_fd(), BARRIER_MS).map(drop)
    }

    /// Waits until the container is ready or its first process has ended.
    ///
    /// # Errors
    /// As [`Notify::pass_on`].
    pub fn wait(&self, init: std::os::fd::BorrowedFd<'_>) -> Result<()> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        loop {
            let mut set = [
                PollFd::new(self.as_fd(), PollFlags::POLLIN),
                PollFd::new(init, PollFlags::POLLIN),
            ];
            match poll(&mut set, PollTimeout::NONE) {
                Err(crate::sys::Errno::EINTR) => continue,
                other => other.map_err(|errno| Error::host("wait for", SOCKET, errno))?,
            };
            let [notified, ended] = set.map(|entry| entry.any().unwrap_or(false));
            if notified && self.pass_on()? {
                return Ok(());
            }
            if ended && !notified {
                return Ok(());
            }
        }
    }
}
