//! Namespaces and the values that the kernel keeps for each process.

use std::ffi::CStr;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::report::{At, Fault, Report};
use crate::plan::fds::Fds;
use crate::plan::namespaces::{NET, PID, TIME, USER, proc_name};
use crate::plan::{Plan, Step};
use crate::sys::fd::Close;
use crate::sys::{self, Errno, clone, fd, mount, net, path, proc};

/// Ties this process to its parent until the container is created, enters the cgroups that it was
/// not born in, and waits to be released.
pub fn leave_the_parent(plan: &Plan, fds: &mut Fds, report: &Report) -> Result<(), Fault> {
    // Early, so that it is the runtime that closes the last one: see `seal`.
    drop(fds.seal.take());
    proc::set_parent_death_signal(libc::SIGKILL).at(Step::Born, 0)?;
    for (index, door) in fds.doors.iter().enumerate() {
        // "0" is the writer itself: cgroup-v1/cgroups.rst, "Attaching processes".
        nix::unistd::write(door, b"0").at(Step::EnterCgroup, index)?;
    }
    proc::reset_signals().at(Step::Born, 0)?;
    if plan.waits_at_birth {
        report.wait_for_go(Step::Born)?;
    }
    if plan.joins_others {
        // Processes that live in a joined namespace must not look into this one (CVE-2016-9962).
        proc::set_dumpable(false).at(Step::Born, 0)?;
    }
    // It is in its cgroup now. The runtime may have been started with fewer processors.
    match &plan.process.affinity {
        Some(mask) => proc::set_cpu_affinity(0, mask).at(Step::CpuAffinity, 0)?,
        None => _ = proc::set_cpu_affinity(0, &[u64::MAX; 128]),
    }
    Ok(())
}

/// Joins what is joined, becomes root of its user namespace, makes what is made late.
///
/// Namespaces owned by the host are joined while this process still has the host's rights, those
/// owned by a user namespace only after joining that: whatever is refused is tried again.
pub fn enter_namespaces(plan: &Plan, fds: &Fds) -> Result<(), Fault> {
    let spaces = &plan.namespaces;
    let inside_user = spaces.makes_inside_a_joined_user_namespace();
    let mut refused = 0u16;
    for (index, (join, fd)) in spaces.joins.iter().zip(&fds.joins).enumerate() {
        // A pid or time namespace was joined by the parent, for this child.
        if matches!(join.kind, USER | PID | TIME) {
            continue;
        }
        match clone::setns(fd.as_fd(), join.kind) {
            Err(Errno::EPERM) if spaces.has(USER) => refused |= 1 << index,
            other => other.at(Step::Join, index)?,
        }
    }
    for (index, (join, fd)) in spaces.joins.iter().zip(&fds.joins).enumerate() {
        if join.kind == USER && !inside_user {
            clone::setns(fd.as_fd(), USER).at(Step::Join, index)?;
        }
    }
    if spaces.has(USER) {
        proc::set_gid(0).at(Step::BecomeRoot, 0)?;
        proc::set_uid(0).at(Step::BecomeRoot, 0)?;
        // The change of ids has cleared the signal.
        proc::set_parent_death_signal(libc::SIGKILL).at(Step::BecomeRoot, 0)?;
    }
    for (index, (join, fd)) in spaces.joins.iter().zip(&fds.joins).enumerate() {
        if refused & (1 << index) != 0 {
            match clone::setns(fd.as_fd(), join.kind) {
                // One of the host's, which this process was born in.
                Err(Errno::EPERM) if is_own(join.kind, fd.as_fd()) => {}
                other => other.at(Step::Join, index)?,
            }
        }
    }
    if spaces.later != 0 {
        clone::unshare(spaces.later).at(Step::Unshare, 0)?;
    }
    Ok(())
}

/// Whether this process is in the namespace of this kind that `fd` stands for.
fn is_own(kind: u64, fd: BorrowedFd<'_>) -> bool {
    let mut text = path::Text::new();
    let name = proc_name(kind).as_bytes();
    let Ok(own) = text.set(&[b"/proc/thread-self/ns/", name]) else {
        return false;
    };
    match (nix::sys::stat::stat(own), nix::sys::stat::fstat(fd)) {
        (Ok(own), Ok(fd)) => (own.st_dev, own.st_ino) == (fd.st_dev, fd.st_ino),
        _ => false,
    }
}

/// Enters the namespaces of a running container, all at once. Says whether a pid namespace is among
/// them: that takes effect for children only.
///
/// Man page: setns(2), "pidfd", Linux 5.8. Nothing is looked up in the container's procfs.
pub fn enter_container(fds: &mut Fds) -> Result<bool, Fault> {
    let Some((init, kinds)) = fds.init.take() else {
        return Ok(false);
    };
    clone::setns(init.as_fd(), kinds).at(Step::Join, 0)?;
    std::mem::forget(init);
    if kinds & USER != 0 {
        proc::set_gid(0).at(Step::BecomeRoot, 0)?;
        proc::set_uid(0).at(Step::BecomeRoot, 0)?;
        proc::set_parent_death_signal(libc::SIGKILL).at(Step::BecomeRoot, 0)?;
    }
    Ok(kinds & PID != 0)
}

/// Goes on as a child of the runtime in the pid namespace that was entered; the process so far ends.
pub fn appear(fds: &Fds) -> Result<(), Fault> {
    let Some(successor) = fds.successor else {
        return Err(Errno::EINVAL).at(Step::Appear, 0);
    };
    if !successor.succeed(0).at(Step::Appear, 0)? {
        clone::exit_now(0)
    }
    proc::set_parent_death_signal(libc::SIGKILL).at(Step::Appear, 0)?;
    nix::unistd::setsid().map(drop).at(Step::Session, 0)
}

/// A session, a keyring, and a working loopback interface of its own.
pub fn start_session(plan: &Plan) -> Result<(), Fault> {
    nix::unistd::setsid().map(drop).at(Step::Session, 0)?;
    if let Some(name) = &plan.keyring {
        match proc::join_session_keyring(name) {
            // Kernels can be built without keyrings.
            Err(Errno::ENOSYS) => {}
            other => {
                let keyring = other.at(Step::Keyring, 0)?;
                // So that exec finds it by its name. One that was found is open already, and need
                // not be ours to change.
                let _ = proc::set_keyring_permissions(keyring, KEYRING_PERMISSIONS);
            }
        }
    }
    if plan.namespaces.new_ones() & NET != 0 {
        net::bring_up_loopback().at(Step::Loopback, 0)?;
    }
    nix::sys::stat::umask(Mode::empty());
    Ok(())
}

/// Writes the sysctls through the host's procfs, which the container cannot have touched.
///
/// Which namespace a value belongs to is decided by the writer, not by the mount.
pub fn sysctl(plan: &Plan) -> Result<(), Fault> {
    let mut private = None;
    for (index, (key, value)) in plan.settings.sysctl.iter().enumerate() {
        let handle = match &private {
            Some(handle) => handle,
            None => private.insert(host_proc(c"/proc/sys").at(Step::Sysctl, index)?),
        };
        let file =
            path::open_beneath(handle.as_fd(), key, OFlag::O_WRONLY).at(Step::Sysctl, index)?;
        nix::unistd::write(&file, value.to_bytes())
            .map(drop)
            .at(Step::Sysctl, index)?;
    }
    Ok(())
}

/// Opens a directory of the host's procfs and makes sure that it is one.
pub fn host_proc(path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let handle = nix::fcntl::open(path, flags, Mode::empty())?;
    match mount::fs_magic(handle.as_fd())? {
        PROC_MAGIC => Ok(handle),
        _ => Err(Errno::EXDEV),
    }
}

/// `PROC_SUPER_MAGIC` of linux/magic.h.
pub const PROC_MAGIC: i64 = 0x9fa0;

/// What a new session keyring allows, from linux/key.h: its possessor everything, its user to view,
/// read and link it; and as in runc, to search for it.
const KEYRING_PERMISSIONS: u32 = 0x3f13_0000 | 0x0008_0000;

/// Asks for the label of the keys that this process makes: the program's, so that the program may use
/// its session keyring. It is taken back by execve. To be called while the host's procfs is there.
///
/// Man page: proc_pid_attr(5), "keycreate".
pub fn label_keys(plan: &Plan) -> Result<(), Fault> {
    match (&plan.process.selinux, &plan.keyring) {
        (Some(label), Some(_)) => {
            let written = write_label(c"thread-self/attr/keycreate", &[label.to_bytes()]);
            written.at(Step::Selinux, 0)
        }
        _ => Ok(()),
    }
}

/// Asks for the labels that the program gets on execve, through the host's procfs (CVE-2019-16884).
pub fn labels(plan: &Plan) -> Result<(), Fault> {
    if let Some(profile) = &plan.process.apparmor {
        let own = write_label(
            c"thread-self/attr/apparmor/exec",
            &[b"exec ", profile.to_bytes()],
        );
        match own {
            Err(Errno::ENOENT) => {
                write_label(c"thread-self/attr/exec", &[b"exec ", profile.to_bytes()])
            }
            other => other,
        }
        .at(Step::AppArmor, 0)?;
    }
    if let Some(label) = &plan.process.selinux {
        write_label(c"thread-self/attr/exec", &[label.to_bytes()]).at(Step::Selinux, 0)?;
    }
    Ok(())
}

fn write_label(file: &CStr, parts: &[&[u8]]) -> Result<(), Errno> {
    let host = host_proc(c"/proc")?;
    // `thread-self` is a symbolic link, so this lookup may follow links, but not leave procfs.
    let file = path::open_in_root(host.as_fd(), file, OFlag::O_WRONLY)?;
    if mount::fs_magic(file.as_fd())? != PROC_MAGIC {
        return Err(Errno::EXDEV);
    }
    let mut text = path::Text::new();
    nix::unistd::write(&file, text.set(parts)?.to_bytes()).map(drop)
}

/// Closes every descriptor but the standard streams, those handed to the program, the report and
/// the gate (CVE-2024-21626: the working directory is chosen after this).
pub fn close_host_descriptors(plan: &Plan, fds: &mut Fds, report: &Report) -> Result<(), Fault> {
    let mut keep = [report.as_fd().as_raw_fd(), -1];
    if let Some(gate) = &fds.gate {
        keep[1] = gate.as_raw_fd();
    }
    forget(fds);
    keep.sort_unstable();
    let mut first = plan.first_closed_fd;
    for kept in keep.into_iter().filter(|kept| *kept >= 0) {
        if kept > first {
            fd::close_range(first, kept - 1).at(Step::CloseFds, 0)?;
        }
        first = first.max(kept + 1);
    }
    fd::close_from(first, Close::Now).at(Step::CloseFds, 0)
}

/// Their owners must not close numbers that are closed, and perhaps used again, already.
fn forget(fds: &mut Fds) {
    let lists = [&mut fds.sources, &mut fds.nodes, &mut fds.late];
    for fd in lists.into_iter().flat_map(|list| list.iter_mut()) {
        std::mem::forget(fd.take());
    }
    for fd in [&mut fds.rootfs, &mut fds.console, &mut fds.hook_output] {
        std::mem::forget(fd.take());
    }
    std::mem::forget(std::mem::take(&mut fds.joins));
}

/// Hostname and domainname of the UTS namespace.
pub fn names(plan: &Plan) -> Result<(), Fault> {
    if let Some(name) = &plan.settings.hostname {
        proc::set_hostname(name).at(Step::Hostname, 0)?;
    }
    if let Some(name) = &plan.settings.domainname {
        proc::set_domainname(name).at(Step::Domainname, 0)?;
    }
    Ok(())
}

/// What needs privileges that the program may not have.
pub fn attributes(plan: &Plan) -> Result<(), Fault> {
    let process = &plan.process;
    if process.no_new_privs {
        proc::set_no_new_privs().at(Step::NoNewPrivs, 0)?;
    }
    if let Some(attr) = &process.scheduler {
        proc::set_scheduler(0, attr).at(Step::Scheduler, 0)?;
    }
    if let Some(value) = process.io_priority {
        proc::set_io_priority(value).at(Step::IoPriority, 0)?;
    }
    if let Some(domain) = plan.settings.personality {
        proc::set_personality(domain).at(Step::Personality, 0)?;
    }
    if let Some((mode, nodes)) = &plan.settings.memory_policy {
        proc::set_memory_policy(*mode, nodes).at(Step::MemoryPolicy, 0)?;
    }
    Ok(())
}

/// Drops the last privileges and executes the program at `candidate`.
pub fn execute(plan: &mut Plan, candidate: usize) -> Result<Fault, Fault> {
    let mut home = super::identity::Home::new();
    let extra = home.entry(&plan.process)?;
    for (index, (resource, soft, hard)) in plan.process.rlimits.iter().enumerate() {
        proc::set_rlimit(0, *resource, *soft, *hard).at(Step::Rlimit, index)?;
    }
    super::identity::confine(plan)?;
    let process = &mut plan.process;
    let Some(program) = process.candidates.get(candidate) else {
        return Err(Errno::ENOENT).at(Step::Exec, 0);
    };
    let errno = proc::execve(program, &process.args, &mut process.env, extra);
    Err(errno).at(Step::Exec, 0)
}

/// Says on the container's standard error why its program is not executed: whoever finds a container
/// that ended at once looks there. The words are runc's.
pub fn say_not_executed(plan: &Plan, errno: i32) {
    let program = plan.process.args.strings().first();
    let program = program.map_or(&b""[..], |name| name.to_bytes());
    let (first, rest) = sys::words_of(errno);
    let parts: [&[u8]; 6] = [b"exec ", program, b": ", &[first], rest.as_bytes(), b"\n"];
    // If nobody reads it there is nobody to tell.
    let _ = nix::sys::uio::writev(fd::borrow(2), &parts.map(IoSlice::new));
}
