//! The gate between `create` and `start`: a socket in the container's directory.
//!
//! The container's first process holds it and blocks in accept(2). `start` connects, and that
//! connection then carries the process's last reports: a fault frame, or nothing but its end, which
//! is execve closing it. The socket's file exists exactly as long as the container is not started.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::Mode;

use crate::error::{Error, Result};

/// The file's name.
pub const NAME: &str = "gate";

/// Makes the gate in the container's directory. Only its owner may open it.
///
/// # Errors
/// [`Error::Host`] if the socket cannot be made.
pub fn build(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let failed = |errno| Error::host("make", NAME, errno);
    let gate = seqpacket().map_err(failed)?;
    // The mode of the socket becomes that of its file.
    nix::sys::stat::fchmod(&gate, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed)?;
    bind(gate.as_raw_fd(), &address(dir).map_err(failed)?).map_err(failed)?;
    listen(&gate, Backlog::new(1).map_err(failed)?).map_err(failed)?;
    Ok(gate)
}

/// Connects to the process that waits at the gate.
///
/// # Errors
/// [`Error::NotRunning`] if nobody waits there.
pub fn open(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    let failed = |errno| Error::host("connect to", NAME, errno);
    let socket = seqpacket().map_err(failed)?;
    match connect(socket.as_raw_fd(), &address(dir).map_err(failed)?) {
        Ok(()) => Ok(socket),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Err(Error::NotRunning),
        Err(errno) => Err(failed(errno)),
    }
}

/// Whether the container in this directory still waits for `start`.
pub fn is_closed(dir: &Path) -> bool {
    fs::symlink_metadata(dir.join(NAME)).is_ok()
}

/// Notes that the container is started.
///
/// # Errors
/// [`Error::Host`] if the file cannot be removed.
pub fn remove(dir: &Path) -> Result<()> {
    let path = dir.join(NAME);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::host("remove", path.display(), error))
        }
        _ => Ok(()),
    }
}

fn seqpacket() -> Result<OwnedFd, Errno> {
    socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
}

/// The gate's address through the open directory: `sun_path` has room for 107 bytes only.
fn address(dir: BorrowedFd<'_>) -> Result<UnixAddr, Errno> {
    let path = format!("/proc/self/fd/{}/{NAME}", dir.as_fd().as_raw_fd());
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    UnixAddr::new(path.as_c_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_nobody_waits_at_is_not_opened_nor_passed() {
        let dir = tempfile::tempdir().unwrap();
        let handle = fs::File::open(dir.path()).unwrap();
        assert!(matches!(open(handle.as_fd()), Err(Error::NotRunning)));
        let gate = build(handle.as_fd()).unwrap();
        assert!(is_closed(dir.path()));
        let connection = open(handle.as_fd()).unwrap();
        drop(gate);
        let ended = crate::spawn::wait_past_gate(connection.as_fd());
        assert!(matches!(ended, Err(Error::WrongStatus(_))), "{ended:?}");
        assert!(matches!(open(handle.as_fd()), Err(Error::NotRunning)));
        remove(dir.path()).unwrap();
        assert!(!is_closed(dir.path()));
    }
}
