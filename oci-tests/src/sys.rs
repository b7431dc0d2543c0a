//! The system calls that neither the standard library nor nix wraps safely.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// Takes ownership of a descriptor that recvmsg(2) has just made for us.
pub fn own(received: RawFd) -> OwnedFd {
    // SAFETY: SCM_RIGHTS installed this number for the caller alone; it is passed in once, right
    // after the message, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(received) }
}

/// The I/O priority of this process: class in bits 13 to 15, level below.
///
/// Man page: ioprio_get(2).
pub fn ioprio() -> io::Result<i64> {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: the call takes two integers and touches no memory of ours.
    let value = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) };
    if value < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(value)
    }
}

/// Calls lseek(2) on an unopened descriptor: only its arguments matter, for seccomp filters.
///
/// Without a filter the answer is `EBADF`.
pub fn lseek_of_nothing(offset: i64) -> io::Error {
    // SAFETY: the call takes three integers and touches no memory of ours.
    unsafe { libc::lseek(-1, offset, libc::SEEK_SET) };
    io::Error::last_os_error()
}
