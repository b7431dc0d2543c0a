//! Attributes of the calling process: ids, signals, scheduling, memory policy, execve.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_long, c_ulong};
use nix::sys::signal::SigSet;

use super::{Result, check};

/// Whether this process has one thread. Man page: unshare(2), `CLONE_THREAD`: nothing happens to a
/// process with one, and one with more gets `EINVAL`.
pub fn is_single_threaded() -> bool {
    // SAFETY: a flag only.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}

/// Bytes of a page of memory. Man page: getauxval(3).
pub fn page_size() -> usize {
    // SAFETY: takes an integer.
    unsafe { libc::getauxval(libc::AT_PAGESZ) as usize }
}

/// Asks for `signal` when the parent dies; 0 asks for none. Man page: `PR_SET_PDEATHSIG`(2const).
pub fn set_parent_death_signal(signal: c_int) -> Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as c_ulong, 0, 0, 0) }.into())
        .map(drop)
}

/// Makes orphans of this process's descendants its children. Man page: `PR_SET_CHILD_SUBREAPER`(2const).
pub fn set_subreaper() -> Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

/// Kills a child that has not been waited for, and waits for its end.
pub fn kill_child(pid: i32) {
    let child = nix::unistd::Pid::from_raw(pid);
    // It may have ended already; either way nothing of it is left.
    let _ = nix::sys::signal::kill(child, nix::sys::signal::SIGKILL);
    while nix::sys::wait::waitpid(child, None) == Err(super::Errno::EINTR) {}
}

/// Makes the process unreadable to others of its user (CVE-2016-9962), or readable again.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, c_ulong::from(dumpable), 0, 0, 0) }.into())
        .map(drop)
}

/// Keeps the permitted capabilities over the next change of all user ids away from 0.
pub fn set_keep_capabilities(keep: bool) -> Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, c_ulong::from(keep), 0, 0, 0) }.into())
        .map(drop)
}

/// No execve grants privileges any more. Man page: `PR_SET_NO_NEW_PRIVS`(2const), Linux 3.5.
pub fn set_no_new_privs() -> Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).map(drop)
}

/// Sets real, effective and saved group id of this thread, without libc's signal to other threads.
pub fn set_gid(gid: u32) -> Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets real, effective and saved user id of this thread, without libc's signal to other threads.
pub fn set_uid(uid: u32) -> Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Replaces the supplementary groups of this thread.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the pointer and the length describe the same slice, which is only read.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Gives this process the signal mask `empty` and SIGPIPE its default action (Rust ignores it).
pub fn reset_signals() -> Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: the default action runs no code of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    SigSet::empty().thread_set_mask()
}

/// Every signal. Those that a C library keeps for itself are missing in what sigfillset(3) gives; keel has
/// no threads that would need them.
pub fn all_signals() -> SigSet {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: a set of signals is an array of bits, and all of it is written.
    unsafe {
        all.as_mut_ptr().write_bytes(0xff, 1);
        SigSet::from_sigset_t_unchecked(all.assume_init())
    }
}

/// Lets the signals that people stop programs with end this process, until it executes another.
///
/// The first process of a pid namespace is spared all signals that it has no handler for. Man page:
/// pid_namespaces(7), "The namespace init process". What the caller ignores stays ignored.
pub fn end_when_told() -> Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    extern "C" fn end(signal: c_int) {
        // SAFETY: _exit(2) may be called from a signal handler.
        unsafe { libc::_exit(128 + signal) }
    }
    for told in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ] {
        // SAFETY: the handler only makes a system call, whatever it interrupts.
        let before = unsafe { signal(told, SigHandler::Handler(end)) }?;
        if matches!(before, SigHandler::SigIgn) {
            // SAFETY: to ignore a signal runs no code of ours.
            unsafe { signal(told, before) }?;
        }
    }
    Ok(())
}

/// Joins a new session keyring called `name`. Man page: keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`.
///
/// # Errors
/// `ENOSYS` if the kernel has no keyrings; `EDQUOT` if the user's quota is used up.
pub fn join_session_keyring(name: &CStr) -> Result<i32> {
    // SAFETY: `name` is a C string that outlives the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            name.as_ptr(),
        )
    };
    check(ret).map(|serial| serial as i32)
}

/// Sets the permissions of keyring `serial`, a mask of `KEY_*` bits. Man page: keyctl(2),
/// `KEYCTL_SETPERM`.
pub fn set_keyring_permissions(serial: i32, permissions: u32) -> Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, serial, permissions) })
        .map(drop)
}

/// Sets the hostname of the caller's UTS namespace. Man page: sethostname(2).
pub fn set_hostname(name: &CStr) -> Result<()> {
    // SAFETY: the pointer and the length describe the same string, which is only read.
    check(unsafe { libc::sethostname(name.as_ptr(), name.count_bytes()) }.into()).map(drop)
}

/// Sets the NIS domain name of the caller's UTS namespace. Man page: setdomainname(2).
pub fn set_domainname(name: &CStr) -> Result<()> {
    // SAFETY: the pointer and the length describe the same string, which is only read.
    check(unsafe { libc::setdomainname(name.as_ptr(), name.count_bytes()) }.into()).map(drop)
}

/// Scheduling attributes as the kernel takes them. Man page: `sched_setattr(2)`, Linux 3.14.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct SchedAttr {
    /// Size of this struct in bytes.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// −20 to 19, for OTHER and BATCH.
    pub nice: i32,
    /// 1 to 99, for FIFO and RR.
    pub priority: u32,
    /// Nanoseconds, for DEADLINE.
    pub runtime: u64,
    /// Nanoseconds, for DEADLINE.
    pub deadline: u64,
    /// Nanoseconds, for DEADLINE.
    pub period: u64,
}

/// Sets the scheduling policy of process `pid`, 0 for the calling thread.
pub fn set_scheduler(pid: i32, attr: &SchedAttr) -> Result<()> {
    // SAFETY: `attr` is a valid struct that names its own size and is only read.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, std::ptr::from_ref(attr), 0) })
        .map(drop)
}

/// Sets the I/O priority of this process group: `class << 13 | level`. Man page: `ioprio_set(2)`.
pub fn set_io_priority(value: u32) -> Result<()> {
    const WHO_PGRP: c_int = 2;
    // SAFETY: integers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PGRP, 0, value) }).map(drop)
}

/// Sets the execution domain. Man page: personality(2).
pub fn set_personality(domain: u32) -> Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::personality(c_ulong::from(domain)) }.into()).map(drop)
}

/// Sets the NUMA memory policy of this thread; `nodes` is a bit mask. Man page: `set_mempolicy(2)`.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<()> {
    // The kernel reads one bit fewer than it is told; told of 0, it wraps around and refuses.
    let bits = nodes.len() * 64 + 1;
    // SAFETY: `nodes` has as many bits as is said, and is only read.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits) }).map(drop)
}

/// Sets a resource limit of process `pid`, 0 being the caller. Man page: prlimit(2).
///
/// # Errors
/// `EPERM` if the hard limit rises and the caller lacks `CAP_SYS_RESOURCE`.
pub fn set_rlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    let old = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: `limit` outlives the call; a null pointer asks for no old value.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, old) })
        .map(drop)
}

/// The caller's own limits of `resource`: soft and hard.
pub fn rlimit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let new = std::ptr::null::<libc::rlimit64>();
    // SAFETY: `limit` is ours and outlives the call; a null pointer sets nothing.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// A null-terminated array of C strings, as execve wants it, together with what it points to.
#[derive(Debug, Default)]
pub struct CStrings {
    strings: Vec<std::ffi::CString>,
    pointers: Vec<*const c_char>,
}

impl CStrings {
    /// Takes `strings`; `spare` more can be put in later without allocating.
    pub fn new(strings: Vec<std::ffi::CString>, spare: usize) -> Self {
        let mut pointers = Vec::with_capacity(strings.len() + spare + 1);
        pointers.extend(strings.iter().map(|string| string.as_ptr()));
        pointers.push(std::ptr::null());
        Self { strings, pointers }
    }

    /// The strings, in order.
    pub fn strings(&self) -> &[std::ffi::CString] {
        &self.strings
    }
}

/// Replaces the program; returns only on failure. Man page: execve(2).
///
/// `extra` is one more environment entry that the caller has built on its stack.
pub fn execve(
    path: &CStr,
    args: &CStrings,
    env: &mut CStrings,
    extra: Option<&CStr>,
) -> super::Errno {
    if let Some(extra) = extra {
        let last = env.pointers.len() - 1;
        if env.pointers.capacity() > env.pointers.len() {
            env.pointers[last] = extra.as_ptr();
            env.pointers.push(std::ptr::null());
        }
    }
    // SAFETY: both arrays end with a null pointer and their strings live as long as the arrays;
    // `extra` is borrowed for the whole call.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    super::Errno::last()
}

/// Replaces the program by the file `fd`, with the environment of this process; returns only on
/// failure. Man page: execveat(2), Linux 3.19.
pub fn execve_fd(fd: BorrowedFd<'_>, args: &CStrings) -> super::Errno {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: `args` ends with a null pointer and its strings live as long as it; the environment is
    // libc's own, which nothing changes in a process without other threads.
    unsafe {
        let (args, flags) = (args.pointers.as_ptr(), libc::AT_EMPTY_PATH);
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            args,
            environ,
            flags,
        )
    };
    super::Errno::last()
}

/// Whether this process was executed from a descriptor, by execveat(2).
///
/// Man page: getauxval(3), `AT_EXECFN`, which then is `/dev/fd/N`.
pub fn is_executed_from_descriptor() -> bool {
    // SAFETY: takes an integer, reads what the kernel has put on the initial stack.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const c_char;
    if name.is_null() {
        return false;
    }
    // SAFETY: AT_EXECFN is the address of a C string on the initial stack, which is never freed.
    let name = unsafe { CStr::from_ptr(name) };
    name.to_bytes().starts_with(b"/dev/fd/")
}

/// Lets process `pid` run on the processors of `mask` alone.
///
/// Man page: `sched_setaffinity(2)`: the kernel cuts the mask to the cpuset, so all ones means every
/// processor of the cpuset.
pub fn set_cpu_affinity(pid: i32, mask: &[u64]) -> Result<()> {
    let ret: c_long =
        // SAFETY: the mask is borrowed for the call and its size in bytes is passed; it is only read.
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr()) };
    check(ret).map(drop)
}
