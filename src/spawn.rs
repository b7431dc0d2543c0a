//! The parent's half of making a process: how it is born, what it is given, what it reports.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv, send};

use crate::cgroups::{Driver, Placement, resctrl::Group};
use crate::child;
use crate::error::code::Code;
use crate::error::{Error, Result};
use crate::plan::fds::{Fds, apply_idmap, socket_pair};
use crate::plan::mounts::{Mount, What};
use crate::plan::namespaces::{self, CGROUP, IPC, NET, PID, TIME, USER, UTS};
use crate::plan::{Frame, Kind, Plan, Step};
use crate::sys::clone::{self, Side, Successor};
use crate::sys::{Errno, fd, proc};

/// A container's first process that has not executed its program yet. Dropping it kills it.
#[derive(Debug)]
pub struct Spawned {
    /// Its pid in the runtime's pid namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    report: OwnedFd,
    /// Where it leaves the pid of the process that takes its place, if one does.
    successor: Option<Successor>,
    /// Whether it still has to be put into its cgroup.
    must_be_placed: bool,
    settled: bool,
}

/// Which half of `child` the new process executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The container's first process.
    Init,
    /// One more process in a running container.
    Exec,
    /// A process that makes the plan's mounts in a running container, and is gone.
    Mount,
    /// A process that removes the mounts at the targets of the plan's, and is gone.
    Unmount,
}

/// Clones the process; if the plan says so, it waits for [`Spawned::go`] before it does anything.
///
/// # Errors
/// [`Error::Setup`] if it cannot be born: a limit is reached or a namespace is not allowed.
pub fn start(plan: &mut Plan, fds: &mut Fds, placement: &Placement, role: Role) -> Result<Spawned> {
    let (ours, theirs) = socket_pair()?;
    let Joined { restore, stage } = join_for_children(plan, fds)?;
    let bear = |plan: &Plan, cgroup: Option<BorrowedFd<'_>>| bear(plan, &stage, cgroup);
    let born = match placement {
        Placement::AtBirth(cgroup) => match bear(plan, Some(cgroup.as_fd())) {
            // Kernels before 5.7, and cgroups that take no processes this way.
            Err(Errno::ENOSYS | Errno::E2BIG | Errno::EINVAL | Errno::EOPNOTSUPP) => {
                wait_for_the_parent(plan);
                bear(plan, None).map(|side| (side, true))
            }
            other => other.map(|side| (side, false)),
        },
        // In a user namespace it may not move itself: older kernels look at its own rights.
        Placement::ByChild { cgroup, doors } if !plan.namespaces.has(USER) => {
            let doors = doors
                .iter()
                .map(OwnedFd::try_clone)
                .collect::<io::Result<_>>();
            fds.doors = doors.map_err(|error| Error::host("dup", "a cgroup's tasks", error))?;
            match bear(plan, cgroup.as_ref().map(AsFd::as_fd)) {
                Err(Errno::ENOSYS | Errno::E2BIG | Errno::EINVAL | Errno::EOPNOTSUPP) => {
                    fds.doors.clear();
                    wait_for_the_parent(plan);
                    bear(plan, None).map(|side| (side, true))
                }
                other => other.map(|side| (side, false)),
            }
        }
        Placement::ByParent | Placement::ByChild { .. } => {
            wait_for_the_parent(plan);
            bear(plan, None).map(|side| (side, true))
        }
        Placement::Nowhere => bear(plan, None).map(|side| (side, false)),
    };
    let (side, must_be_placed) = born.map_err(|errno| Error::Setup {
        step: born_text(plan, errno),
        at: (Step::Born.name(), 0),
        errno: errno.into(),
    })?;
    match side {
        Side::Child => {
            drop(ours);
            match role {
                Role::Init => child::init(plan, fds, theirs),
                Role::Exec => child::join(plan, fds, theirs),
                Role::Mount => child::change_mounts(plan, fds, theirs, child::mount),
                Role::Unmount => child::change_mounts(plan, fds, theirs, child::unmount),
            }
        }
        Side::Parent { pid, pidfd } => {
            drop(theirs);
            for (own, kind) in restore {
                clone::setns(own.as_fd(), kind)
                    .map_err(|errno| Error::host("return to", "the runtime's namespace", errno))?;
            }
            Ok(Spawned {
                pid,
                pidfd,
                report: ours,
                successor: fds.successor,
                must_be_placed,
                settled: false,
            })
        }
    }
}

/// The process is moved into its cgroup by its parent: it waits for that, and then only makes its cgroup
/// namespace, whose root is the cgroup that it is in.
fn wait_for_the_parent(plan: &mut Plan) {
    plan.namespaces.later |= plan.namespaces.birth & CGROUP;
    plan.namespaces.birth &= !CGROUP;
    plan.waits_at_birth = true;
}

fn born_text(plan: &Plan, errno: Errno) -> String {
    let hint = match errno {
        Errno::EINVAL => " (has the kernel all kinds of .linux.namespaces? see /proc/self/ns)",
        Errno::EPERM if plan.namespaces.birth & USER != 0 => {
            " (are user namespaces allowed? see /proc/sys/user/max_user_namespaces)"
        }
        Errno::ENOSPC | Errno::EUSERS => " (a limit in /proc/sys/user is reached)",
        Errno::EAGAIN => " (a limit on processes is reached)",
        _ => "",
    };
    format!("start the container's process{hint}")
}

/// The clone itself.
fn bear(
    plan: &Plan,
    stage: &[(OwnedFd, u64)],
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Side, Errno> {
    let mut flags = plan.namespaces.birth;
    if plan.namespaces.time_offsets.is_some() {
        flags &= !TIME;
    }
    match stage {
        [] => clone::clone3(flags, cgroup),
        stage => bear_on_a_stage(stage, flags, cgroup),
    }
}

/// A birth in namespaces from which keel could not come back: a process that joins them has the child
/// in keel's name, and is gone.
fn bear_on_a_stage(
    joins: &[(OwnedFd, u64)],
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Side, Errno> {
    let successor = Successor::new()?;
    let stage = match clone::clone3(0, cgroup)? {
        Side::Child => match enter_stage(joins).and_then(|()| successor.succeed(flags)) {
            Ok(true) => return Ok(Side::Child),
            Ok(false) => clone::exit_now(0),
            Err(errno) => clone::exit_now(errno as i32),
        },
        Side::Parent { pidfd, .. } => pidfd,
    };
    let ended = fd::wait(stage.as_fd())?;
    match (successor.pid(), ended) {
        (Some(pid), _) => match fd::pidfd_open(pid) {
            Ok(pidfd) => Ok(Side::Parent { pid, pidfd }),
            Err(errno) => {
                proc::kill_child(pid);
                Err(errno)
            }
        },
        (None, fd::Ended::Code(errno)) if errno > 0 => Err(Errno::from_raw(errno)),
        (None, _) => Err(Errno::ECHILD),
    }
}

/// Joins what the runtime may join as it is, then a user namespace, then what that gives the right to.
fn enter_stage(joins: &[(OwnedFd, u64)]) -> Result<(), Errno> {
    let mut refused = 0u8;
    for (index, (fd, kind)) in joins
        .iter()
        .enumerate()
        .filter(|(_, (_, kind))| *kind != USER)
    {
        match clone::setns(fd.as_fd(), *kind) {
            Err(Errno::EPERM) => refused |= 1 << index,
            other => other?,
        }
    }
    for (fd, _) in joins.iter().filter(|(_, kind)| *kind == USER) {
        clone::setns(fd.as_fd(), USER)?;
        proc::set_gid(0)?;
        proc::set_uid(0)?;
    }
    for (index, (fd, kind)) in joins.iter().enumerate() {
        if refused & (1 << index) != 0 {
            match clone::setns(fd.as_fd(), *kind) {
                // The child tries again in its new user namespace, and has the words for it.
                Err(Errno::EPERM) if !matches!(*kind, PID | TIME) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// What is to be joined before the child is born.
#[derive(Default)]
struct Joined {
    /// The runtime's own namespaces, to which it goes back.
    restore: Vec<(OwnedFd, u64)>,
    /// What only a process on the way may join: there is no way back.
    stage: Vec<(OwnedFd, u64)>,
}

/// Which of the namespaces of process `pid` are not the runtime's own. The kinds of `entered` are not
/// looked at: to enter a namespace again does no harm, except to a user namespace.
///
/// # Errors
/// [`Error::NotRunning`] if the process is gone.
pub fn namespaces_to_enter(pid: i32, entered: u64) -> Result<u64> {
    let entered = entered & !USER;
    let mut kinds = entered;
    for kind in namespaces::ALL
        .into_iter()
        .filter(|kind| entered & kind == 0)
    {
        let name = namespaces::proc_name(kind);
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{name}"));
        match (fs::read_link(format!("/proc/self/ns/{name}")), theirs) {
            (Ok(own), Ok(theirs)) if own != theirs => kinds |= kind,
            (Ok(_), Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotRunning);
            }
            // A kernel without this kind of namespace.
            _ => {}
        }
    }
    Ok(kinds)
}

/// A pid or time namespace takes effect for children only: the runtime joins or makes it, has the
/// child, and goes back.
fn join_for_children(plan: &Plan, fds: &Fds) -> Result<Joined> {
    let mut joined = Joined::default();
    let copy = |fd: &OwnedFd| {
        let copy = fd.try_clone();
        copy.map_err(|error| Error::host("dup", "a namespace's descriptor", error))
    };
    let inside_user = plan.namespaces.makes_inside_a_joined_user_namespace();
    let on_a_stage = |kind| match kind {
        USER => inside_user,
        // While it still has the host's rights: it may be the host's.
        NET | IPC | UTS | CGROUP => plan.namespaces.has(USER),
        _ => false,
    };
    let joins = &plan.namespaces.joins;
    let mut has_stage = false;
    for join in joins {
        match join.kind {
            kind @ (PID | TIME) => match way_back(kind)? {
                Some(own) => joined.restore.push((own, kind)),
                None => has_stage = true,
            },
            kind => has_stage |= on_a_stage(kind),
        }
    }
    if has_stage {
        // It joins them, and stays out itself: nobody inside sees it, and the pid that it knows its child by
        // is the runtime's.
        joined.restore.clear();
    }
    for (join, fd) in joins.iter().zip(&fds.joins) {
        match join.kind {
            kind if on_a_stage(kind) => joined.stage.push((copy(fd)?, kind)),
            kind @ (PID | TIME) if has_stage => joined.stage.push((copy(fd)?, kind)),
            kind @ (PID | TIME) => clone::setns(fd.as_fd(), kind)
                .map_err(|errno| Error::host("join namespace", join.path.display(), errno))?,
            _ => {}
        }
    }
    if let Some(offsets) = &plan.namespaces.time_offsets {
        joined
            .restore
            .extend(way_back(TIME)?.map(|own| (own, TIME)));
        clone::unshare(TIME).map_err(|errno| Error::host("make", "a time namespace", errno))?;
        let path = "/proc/self/timens_offsets";
        fs::write(path, offsets).map_err(|error| match error.raw_os_error() {
            Some(libc::ERANGE) => Error::spec(
                ".linux.timeOffsets",
                "the kernel does not take offsets this large",
            ),
            _ => Error::host("write", path, error),
        })?;
    }
    Ok(joined)
}

/// The runtime's own namespace for its children, if it has the right to come back to that.
fn way_back(kind: u64) -> Result<Option<OwnedFd>> {
    let path = format!("/proc/self/ns/{}", namespaces::proc_name(kind));
    let file = fs::File::open(&path).map_err(|error| Error::host("open", &path, error))?;
    match clone::setns(file.as_fd(), kind) {
        Ok(()) => Ok(Some(file.into())),
        Err(Errno::EPERM) => Ok(None),
        Err(errno) => Err(Error::host("join", &path, errno)),
    }
}

impl Spawned {
    /// Puts it into its cgroup, unless it was born there, and into its resctrl group.
    ///
    /// # Errors
    /// [`Error::Host`] with what the kernel or systemd says.
    pub fn place(&self, driver: &dyn Driver, group: Option<&Group>) -> Result<()> {
        if self.must_be_placed {
            driver.place(self.pid)?;
        }
        group.map_or(Ok(()), |group| group.place(self.pid))
    }

    /// Whether the kernel has put it into its cgroup (`CLONE_INTO_CGROUP`): else there is no process.
    pub const fn is_born_in_place(&self) -> bool {
        !self.must_be_placed
    }

    /// Goes over from a process that has entered the container to the one that it has cloned into the
    /// container's pid namespace: see `child::join`.
    ///
    /// # Errors
    /// The fault that the process reports instead, or how it ended.
    pub fn follow(&mut self, plan: &Plan) -> Result<()> {
        let failed = |errno| Error::host("follow", "the container's process", errno);
        let ended = fd::wait(self.pidfd.as_fd()).map_err(failed)?;
        let Some(pid) = self.successor.and_then(Successor::pid) else {
            // Nobody else has the other end of the socket.
            return Err(match receive(self.report.as_fd())? {
                Some(frame) => plan.explain(frame),
                None => death(ended),
            });
        };
        self.pidfd = fd::pidfd_open(pid).map_err(failed)?;
        self.pid = pid;
        Ok(())
    }

    /// Writes the id maps of the new user namespace.
    ///
    /// # Errors
    /// [`Error::Host`] with the kernel's reason, or what newuidmap(1) says.
    pub fn map_ids(&self, plan: &Plan, may_set_ids: bool) -> Result<()> {
        let Some((uids, gids)) = &plan.namespaces.id_maps else {
            return Ok(());
        };
        let write = |file: &str, text: &str| {
            let path = format!("/proc/{}/{file}", self.pid);
            fs::write(&path, text).map_err(|error| Error::host("write", &path, error))
        };
        if may_set_ids {
            write("uid_map", uids)?;
            return write("gid_map", gids);
        }
        self.map_unprivileged("newuidmap", "uid_map", uids)?;
        self.map_unprivileged("newgidmap", "gid_map", gids)
    }

    /// A map of more than the caller's own id needs the setuid helper and subordinate ids.
    fn map_unprivileged(&self, helper: &str, file: &str, map: &str) -> Result<()> {
        let path = format!("/proc/{}/{file}", self.pid);
        let numbers: Vec<&str> = map.split_whitespace().collect();
        if numbers.len() == 3 && numbers[2] == "1" {
            if file == "gid_map" {
                let setgroups = format!("/proc/{}/setgroups", self.pid);
                fs::write(&setgroups, "deny")
                    .map_err(|error| Error::host("write", &setgroups, error))?;
            }
            if fs::write(&path, map).is_ok() {
                return Ok(());
            }
        }
        let output = std::process::Command::new(helper)
            .arg(self.pid.to_string())
            .args(&numbers)
            .output()
            .map_err(|error| {
                let why = "package uidmap; without it a user can map one id, its own";
                Error::host("run", format!("{helper} ({why})"), error)
            })?;
        if output.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&output.stderr);
        let why = why
            .trim()
            .trim_start_matches(helper)
            .trim_start_matches(": ");
        let file = helper.replace("new", "/etc/sub").replace("map", "");
        let why = format!("{helper}: {why} (the ids that a user may map are in {file})");
        Err(Error::Known(Code::NAMESPACE_FAILED, why))
    }

    /// Maps the owners of the files of a mount whose source only the process can open.
    ///
    /// # Errors
    /// [`Error::Host`] if the file system does not take part.
    pub fn map_owners(&mut self, plan: &Plan, fds: &Fds, mount: &Mount) -> Result<()> {
        let What::Bind {
            source,
            inside: Some(_),
            idmap: Some(map),
            ..
        } = &mount.what
        else {
            return Ok(());
        };
        let frame = self.wait_for(plan, Step::MountIdMap)?;
        let at = format!("mount source {}", source.to_string_lossy());
        let copy = fd::pidfd_getfd(self.pidfd.as_fd(), frame.errno);
        let copy = copy.as_ref().map(AsFd::as_fd).map_err(|errno| *errno);
        apply_idmap(copy, map, plan.joined_user(&fds.joins), &at)?;
        self.go(plan)
    }

    /// Sets `/proc/PID/oom_score_adj`.
    ///
    /// # Errors
    /// [`Error::Host`] if the value is lower than the caller may set.
    pub fn set_oom_score(&self, plan: &Plan) -> Result<()> {
        let Some(score) = plan.process.oom_score_adj else {
            return Ok(());
        };
        let path = format!("/proc/{}/oom_score_adj", self.pid);
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(score.to_string().as_bytes()))
            .map_err(|error| Error::host("write", format!("{score} to {path}"), error))
    }

    /// Raises those hard limits that the process will set higher than the runtime's own, which it
    /// cannot do itself. It sets all of them just before execve, so that a low one hinders nothing.
    ///
    /// # Errors
    /// [`Error::Host`] if the runtime has no right to: `CAP_SYS_RESOURCE` in the first user
    /// namespace.
    pub fn raise_rlimits(&self, plan: &Plan) -> Result<()> {
        for (index, (resource, _, hard)) in plan.process.rlimits.iter().enumerate() {
            let at = || format!("the hard limit .process.rlimits[{index}] to {hard}");
            let failed = |errno| Error::host("raise", at(), errno);
            let (soft, own) = proc::rlimit(*resource).map_err(failed)?;
            if *hard > own {
                proc::set_rlimit(self.pid, *resource, soft, *hard).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Lets the process go on.
    ///
    /// # Errors
    /// Whatever the process has reported instead of waiting, or that it is gone.
    pub fn go(&mut self, plan: &Plan) -> Result<()> {
        let frame = Frame {
            kind: Kind::Go,
            step: Step::Born,
            item: 0,
            errno: 0,
        };
        let bytes = frame.to_bytes();
        loop {
            match send(self.report.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                // It is gone, and may have said why.
                Err(Errno::EPIPE | Errno::ECONNRESET) => {
                    return self.wait_for(plan, Step::Created).map(drop);
                }
                Err(errno) => {
                    return Err(Error::host("write to", "the container's process", errno));
                }
            }
        }
    }

    /// Waits until the process reports that it has reached `step`.
    ///
    /// # Errors
    /// The fault that it reports, or how it ended.
    pub fn wait_for(&mut self, plan: &Plan, step: Step) -> Result<Frame> {
        match receive(self.report.as_fd())? {
            Some(frame) if frame.kind == Kind::Reached && frame.step == step => Ok(frame),
            Some(frame) if frame.kind == Kind::Fault => Err(plan.explain(frame)),
            Some(frame) => {
                let is = plan.describe(frame.step, frame.item);
                Err(Error::Failed(format!(
                    "the container's process is at an unexpected step: {is}"
                )))
            }
            None => Err(match fd::wait(self.pidfd.as_fd()) {
                Ok(ended) => death(ended),
                Err(errno) => Error::host("wait for", "container init", errno),
            }),
        }
    }

    /// Waits until the process sends no more reports: it has executed its program, or it is gone.
    /// What it has reported until then is still to be read.
    ///
    /// # Errors
    /// [`Error::Host`] if it cannot be waited for.
    pub fn wait_for_hangup(&self) -> Result<()> {
        fd::wait_for_hangup(self.report.as_fd())
            .map_err(|errno| Error::host("wait for", "the container's process", errno))
    }

    /// Waits until the process has executed its program.
    ///
    /// # Errors
    /// The fault that it reports instead.
    pub fn wait_for_exec(&self, plan: &Plan) -> Result<()> {
        match wait_for_exec(self.report.as_fd())? {
            Some(fault) => Err(plan.explain(fault)),
            None => Ok(()),
        }
    }

    /// The process is the container's from now on: dropping this value does not kill it any more.
    pub const fn settle(&mut self) {
        self.settled = true;
    }
}

/// Why a process is gone that has reported nothing.
fn death(ended: fd::Ended) -> Error {
    match ended {
        fd::Ended::Signal(libc::SIGKILL) => Error::Known(
            Code::OOM_KILLED,
            "container init was killed by SIGKILL: \
             container init was OOM-killed (memory limit too low?)"
                .into(),
        ),
        fd::Ended::Signal(signal) => {
            Error::Failed(format!("container init was killed by signal {signal}"))
        }
        fd::Ended::Code(code) => Error::Failed(format!(
            "container init exited with code {code} without a report"
        )),
    }
}

/// Reads frames from a process past the gate until it has executed its program.
///
/// Returns the fault that it reports instead, if it does.
///
/// # Errors
/// [`Error::Host`] if nothing can be read.
pub fn wait_for_exec(report: BorrowedFd<'_>) -> Result<Option<Frame>> {
    while let Some(frame) = receive(report)? {
        if frame.kind == Kind::Fault {
            return Ok(Some(frame));
        }
    }
    Ok(None)
}

/// [`wait_for_exec`] on a connection through the gate, which its process may not have taken yet.
///
/// # Errors
/// [`Error::WrongStatus`] if it has ended before it did; [`Error::Host`] if nothing can be read.
pub fn wait_past_gate(connection: BorrowedFd<'_>) -> Result<Option<Frame>> {
    // Nothing is sent to it that it could leave unread: a reset is that of a connection never taken.
    match receive_once(connection) {
        Err(Errno::ECONNRESET) => Err(Error::WrongStatus(
            "cannot start a container that has stopped".into(),
        )),
        Err(errno) => Err(unreadable(errno)),
        Ok(None) => Ok(None),
        Ok(Some(frame)) if frame.kind == Kind::Fault => Ok(Some(frame)),
        Ok(Some(_)) => wait_for_exec(connection),
    }
}

/// The next frame, or nothing at the end.
fn receive(report: BorrowedFd<'_>) -> Result<Option<Frame>> {
    loop {
        match receive_once(report) {
            // Reset: the process has ended without reading all that it was sent. That is told once, and
            // before what it has sent itself.
            Err(Errno::ECONNRESET) => {}
            other => return other.map_err(unreadable),
        }
    }
}

fn receive_once(report: BorrowedFd<'_>) -> Result<Option<Frame>, Errno> {
    let mut bytes = [0; Frame::SIZE];
    loop {
        match recv(report.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(0) => return Ok(None),
            Ok(_) => return Frame::from_bytes(bytes).map(Some).ok_or(Errno::EPROTO),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn unreadable(errno: Errno) -> Error {
    Error::host("read from", "the container's process", errno)
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if !self.settled {
            // It may be gone and reaped already; either way nothing of it is left.
            let _ = fd::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
            let _ = fd::wait(self.pidfd.as_fd());
            // A child that nobody waits for would keep the container's first process from ending.
            let successor = self.successor.and_then(Successor::pid);
            if let Some(pid) = successor.filter(|pid| *pid != self.pid) {
                proc::kill_child(pid);
            }
        }
    }
}
