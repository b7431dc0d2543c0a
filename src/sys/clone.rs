//! Making a process: clone3(2), and the namespaces that it enters or makes.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, Result, check};

/// From linux/sched.h; libc's constant is an int, which is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Which side of the clone the caller is on.
#[derive(Debug)]
pub enum Side {
    /// The new process. Only system calls from here on: see `crate::child`.
    Child,
    /// The caller, which holds the child by pidfd.
    Parent {
        /// The child's pid in the caller's pid namespace.
        pid: i32,
        /// The child's pidfd.
        pidfd: OwnedFd,
    },
}

/// Clones the calling process with `flags` (`CLONE_NEW*`, `CLONE_PARENT`), into `cgroup` if given.
///
/// The child runs on a copy of the caller's memory, as after fork(2), but libc's fork handlers are
/// not called: in a process with other threads the child could find libc's locks held for ever.
/// keel never starts a thread before this call, and this call refuses if there is one.
///
/// Man page: clone(2), Linux 5.3; `CLONE_INTO_CGROUP` is Linux 5.7.
///
/// # Errors
/// `EDEADLK` if the process has other threads; else those of clone3(2).
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Side> {
    if !super::proc::is_single_threaded() {
        return Err(Errno::EDEADLK);
    }
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain old data for which all zeroes is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    if flags & libc::CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` and `pidfd` outlive the call; without CLONE_VM the child gets its own copy of
    // this memory and stack, and there is no other thread whose locks it could inherit.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    if ret == -1 && Errno::last() == Errno::ENOSYS && cgroup.is_none() {
        return clone2(args.flags, args.exit_signal);
    }
    match check(ret)? {
        0 => {
            super::guard::forbid_allocation();
            Ok(Side::Child)
        }
        pid => Ok(parent(pid, pidfd)),
    }
}

fn parent(pid: libc::c_long, pidfd: libc::c_int) -> Side {
    // SAFETY: CLONE_PIDFD succeeded, so the kernel stored a new descriptor that is ours alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Side::Parent {
        pid: pid as i32,
        pidfd,
    }
}

/// clone(2) with a pidfd, for kernels (or filters) without clone3: the same flags, no cgroup.
fn clone2(flags: u64, exit_signal: u64) -> Result<Side> {
    if flags & libc::CLONE_NEWTIME as u64 != 0 {
        // In clone(2) this bit belongs to the exit signal's byte.
        return Err(Errno::ENOSYS);
    }
    let mut pidfd: libc::c_int = -1;
    // SAFETY: as in clone3; a null stack means "a copy of the caller's", and the pidfd is stored
    // through the parent_tid pointer, which outlives the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_clone,
            flags | exit_signal,
            0usize,
            &raw mut pidfd,
            0usize,
            0usize,
        )
    };
    match check(ret)? {
        0 => {
            super::guard::forbid_allocation();
            Ok(Side::Child)
        }
        pid => Ok(parent(pid, pidfd)),
    }
}

/// Moves the caller into the namespace(s) behind `fd`; `flags` names the expected kinds.
///
/// A pid or time namespace takes effect for children only. Man page: setns(2).
///
/// # Errors
/// `EINVAL` if `fd` is not a namespace of that kind; else those of setns(2).
pub fn setns(fd: BorrowedFd<'_>, flags: u64) -> Result<()> {
    // SAFETY: a descriptor that is open for the whole call, and flags; no memory is passed.
    let ret = unsafe { libc::setns(fd.as_raw_fd(), flags as libc::c_int) };
    check(ret.into()).map(drop)
}

/// Moves the caller (for pid and time: its children) into new namespaces. Man page: unshare(2).
pub fn unshare(flags: u64) -> Result<()> {
    // SAFETY: flags only; CLONE_FILES and CLONE_VM are never among them.
    let ret = unsafe { libc::unshare(flags as libc::c_int) };
    check(ret.into()).map(drop)
}

/// The kind of the namespace behind `fd`, as its `CLONE_NEW*` flag.
///
/// # Errors
/// `ENOTTY` if `fd` is not a namespace file. Man page: ioctl_nsfs(2), Linux 4.11.
pub fn namespace_kind(fd: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: NS_GET_NSTYPE takes no argument and returns an integer.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) };
    check(ret.into()).map(|kind| kind as u64)
}

/// Ends the process at once: no exit handlers, no flushing, no unwinding. Man page: _exit(2).
pub fn exit_now(code: i32) -> ! {
    // SAFETY: the call takes an integer and does not return.
    unsafe { libc::_exit(code) }
}
