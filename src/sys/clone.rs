//! Making a process: clone3(2), and the namespaces that it enters or makes.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

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

/// Clones the calling process with `flags` (`CLONE_NEW*`), into `cgroup` if given.
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
    let pidfd = AtomicI32::new(-1);
    let flags = flags | libc::CLONE_PIDFD as u64;
    match clone_raw(flags, libc::SIGCHLD, cgroup, &pidfd)? {
        0 => {
            super::guard::forbid_allocation();
            Ok(Side::Child)
        }
        pid => Ok(parent(pid, pidfd.into_inner())),
    }
}

/// clone3(2), or clone(2) on kernels (or behind filters) without that; the kernel stores a pidfd or a pid at
/// `out`, as the flags say. `CLONE_VM` is never among them.
fn clone_raw(
    flags: u64,
    exit_signal: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
    out: &AtomicI32,
) -> Result<libc::c_long> {
    // SAFETY: clone_args is plain old data for which all zeroes is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.exit_signal = exit_signal as u64;
    args.pidfd = out.as_ptr() as u64;
    args.parent_tid = out.as_ptr() as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` and `out` outlive the call; without CLONE_VM the child gets its own copy of this memory
    // and stack, and there is no other thread whose locks it could inherit.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match check(ret) {
        // In clone(2) the bit of a time namespace belongs to the exit signal's byte.
        Err(Errno::ENOSYS) if cgroup.is_none() && flags & libc::CLONE_NEWTIME as u64 == 0 => {}
        other => return other,
    }
    let (flags, none) = (flags | exit_signal as u64, 0usize);
    // SAFETY: as above; a null stack means "a copy of the caller's", and a pidfd is stored through the
    // parent_tid pointer.
    check(unsafe { libc::syscall(libc::SYS_clone, flags, none, out.as_ptr(), none, none) })
}

fn parent(pid: libc::c_long, pidfd: libc::c_int) -> Side {
    // SAFETY: CLONE_PIDFD succeeded, so the kernel stored a new descriptor that is ours alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Side::Parent {
        pid: pid as i32,
        pidfd,
    }
}

/// Where a process leaves the pid of the one that takes its place, for the parent of both: in memory that
/// all of them share. The kernel writes it before that process runs, so the parent cannot miss it, however
/// the two end.
#[derive(Debug, Clone, Copy)]
pub struct Successor(&'static AtomicI32);

impl Successor {
    /// A page of it, which is kept as long as the caller lives.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn new() -> Result<Self> {
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new mapping at an address that the kernel chooses; no memory of ours is touched.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, kind, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        // SAFETY: the mapping is aligned, large enough, zeroed, and never unmapped; others change it by
        // atomic stores and in the kernel only.
        Ok(Self(unsafe { &*page.cast() }))
    }

    /// Its pid in the pid namespace of the process that it takes the place of, once that has ended.
    pub fn pid(self) -> Option<i32> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            pid => Some(pid),
        }
    }

    /// Clones the calling process with `flags` (`CLONE_NEW*`), as another child of its parent. Whether the
    /// caller is the new one.
    ///
    /// Man page: clone(2), `CLONE_PARENT`, `CLONE_PARENT_SETTID`.
    ///
    /// # Errors
    /// Those of clone3(2).
    pub fn succeed(self, flags: u64) -> Result<bool> {
        // The page is there from now on: what the kernel cannot write at once it gives up.
        self.0.store(0, Ordering::Release);
        let flags = flags | (libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID) as u64;
        clone_raw(flags, 0, None, self.0).map(|pid| pid == 0)
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
