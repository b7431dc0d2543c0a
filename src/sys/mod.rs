//! System calls that neither std nor nix wrap safely: all of keel's `unsafe` is in this folder.
//!
//! Wrappers take borrowed descriptors and C strings, return the errno by value, and never allocate,
//! lock or log, so the parent and the freshly cloned child share them. Every descriptor is born
//! close-on-exec.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd};

use libc::c_long;
pub use nix::errno::Errno;

pub mod bpf;
pub mod caps;
pub mod clone;
pub mod entry;
pub mod exe;
pub mod fd;
pub mod guard;
pub mod heap;
pub mod landlock;
pub mod mount;
pub mod net;
pub mod path;
pub mod proc;
pub mod seccomp;
pub mod tty;

/// The result of one system call.
pub type Result<T> = std::result::Result<T, Errno>;

/// What the C library says of `errno`, its first letter in lower case (but for `I/O error`) and apart, so
/// that nothing is allocated.
pub fn words_of(errno: i32) -> (u8, &'static str) {
    let text = Errno::from_raw(errno).desc();
    let (first, rest) = text.split_at(1);
    match (first.as_bytes()[0], rest.as_bytes()) {
        (first, [b'a'..=b'z' | b' ', ..]) => (first.to_ascii_lowercase(), rest),
        (first, _) => (first, rest),
    }
}

/// Turns the `-1` of a system call into its errno.
fn check(ret: c_long) -> Result<c_long> {
    if ret == -1 {
        Err(Errno::last())
    } else {
        Ok(ret)
    }
}

/// Takes ownership of the descriptor that a system call has just returned.
fn check_fd(ret: c_long) -> Result<OwnedFd> {
    let fd = i32::try_from(check(ret)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
