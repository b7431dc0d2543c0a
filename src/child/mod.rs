//! Turns a freshly cloned process into the container, then executes it.
//!
//! Everything in this folder runs between `clone3` and `execve`: read the [`Plan`], make system
//! calls, report one number. No allocation, no locks, no formatting, no panics; the debug build
//! aborts on the first `malloc` (`sys::guard`). Order is the whole subject, and [`init`] is the order.
//! Spec: runtime.md "Lifecycle", steps 2 to 9.

use std::os::fd::{AsFd, OwnedFd};

use crate::plan::fds::Fds;
use crate::plan::{Plan, Step};
use crate::sys::{clone, proc};

mod console;
mod copy_up;
mod hooks;
mod identity;
mod kernel;
mod live;
mod report;
mod rootfs;

pub use live::{mount, unmount};
use report::{At, Fault, Report};

/// The exit code of a process whose program cannot be executed: runc's.
const NOT_EXECUTED: i32 = 255;

/// The life of the container's first process, up to execve. Never returns.
pub fn init(plan: &mut Plan, fds: &mut Fds, report: OwnedFd) -> ! {
    let mut report = Report::new(report);
    let fault = match become_container(plan, fds, &mut report) {
        Ok(never) => never,
        Err(fault) => fault,
    };
    fail(plan, &report, fault)
}

/// The life of one more process in a container, up to execve. Never returns.
pub fn join(plan: &mut Plan, fds: &mut Fds, report: OwnedFd) -> ! {
    let report = Report::new(report);
    let fault = match join_container(plan, fds, &report) {
        Ok(never) => never,
        Err(fault) => fault,
    };
    fail(plan, &report, fault)
}

/// Ends the process; the parent is told why.
fn fail(plan: &Plan, report: &Report, fault: Fault) -> ! {
    report.fault(fault);
    if fault.step == Step::Exec {
        kernel::say_not_executed(plan, fault.errno);
        clone::exit_now(NOT_EXECUTED);
    }
    clone::exit_now(1)
}

/// The life of a process that changes the mounts of a running container. Never returns.
pub fn change_mounts(plan: &Plan, fds: &mut Fds, report: OwnedFd, change: live::Change) -> ! {
    let report = Report::new(report);
    let changed = kernel::leave_the_parent(plan, fds, &report)
        .and_then(|()| live::enter(fds))
        .and_then(|place| change(plan, fds, &place))
        .and_then(|()| report.reached(Step::Created, 0));
    if let Err(fault) = changed {
        report.fault(fault);
    }
    clone::exit_now(0)
}

/// The order of exec. It succeeds by not coming back.
///
/// The container's processes see the new one when it is in their pid namespace. One of them with
/// `CAP_SYS_PTRACE` may then read and write it, dumpable or not (CVE-2016-9962), so all that takes
/// the host's rights is done by a process that they cannot see: it enters the other namespaces,
/// closes the host's descriptors, gives up what the program does not get, and only then clones.
fn join_container(plan: &mut Plan, fds: &mut Fds, report: &Report) -> Result<Fault, Fault> {
    kernel::leave_the_parent(plan, fds, report)?;
    // Before the container's procfs is the one that is visible.
    kernel::labels(plan)?;
    kernel::label_keys(plan)?;
    let enters_pid_namespace = kernel::enter_container(fds)?;
    kernel::start_session(plan)?;
    console::attach_inside(plan, fds)?;
    kernel::close_host_descriptors(plan, fds, report)?;
    kernel::attributes(plan)?;
    identity::assume(plan)?;
    let program = identity::look_up(plan)?;
    let early = identity::confine_first(plan)?;
    if enters_pid_namespace {
        kernel::appear(fds)?;
    }
    console::control(plan)?;
    identity::hand_over_listener(plan, early, report)?;
    // The parent may exit as soon as it has answered; until then its end is noticed by reading.
    proc::set_parent_death_signal(0).at(Step::Created, 0)?;
    report.reached(Step::Created, 0)?;
    kernel::execute(plan, program)
}

/// The order of container init. It succeeds by not coming back.
fn become_container(plan: &mut Plan, fds: &mut Fds, report: &mut Report) -> Result<Fault, Fault> {
    kernel::leave_the_parent(plan, fds, report)?;
    kernel::enter_namespaces(plan, fds)?;
    kernel::label_keys(plan)?;
    kernel::start_session(plan)?;

    let root = rootfs::enter_mount_namespace(plan, fds)?;
    rootfs::mounts(plan, fds, root.as_fd(), report)?;
    rootfs::devices(plan, fds, root.as_fd())?;
    if plan.parent_hooks {
        report.reached(Step::Mounted, 0)?;
    }
    hooks::create_container(plan, fds, root.as_fd())?;
    console::attach(plan, fds, root.as_fd())?;
    console::control(plan)?;
    kernel::sysctl(plan)?;
    rootfs::readonly_paths(plan, root.as_fd())?;
    rootfs::masked_paths(plan, root.as_fd())?;
    rootfs::working_directory(plan, root.as_fd())?;
    rootfs::finish_readonly(plan, fds, root.as_fd())?;
    kernel::labels(plan)?;
    rootfs::pivot(plan, fds, root)?;

    // From here on nothing of the host can be reached: not by path, not by descriptor.
    kernel::close_host_descriptors(plan, fds, report)?;
    kernel::names(plan)?;
    kernel::attributes(plan)?;
    identity::assume(plan)?;
    let program = identity::look_up(plan)?;
    identity::hand_over_listener(plan, None, report)?;
    if fds.gate.is_some() {
        // Before anybody hears of the container: a signal that comes earlier would be lost.
        proc::end_when_told().at(Step::Gate, 0)?;
    }
    // The parent may exit as soon as it has answered; until then its end is noticed by reading.
    proc::set_parent_death_signal(0).at(Step::Created, 0)?;
    report.reached(Step::Created, 0)?;

    report.wait_at_gate(fds)?;
    hooks::start_container(plan)?;
    kernel::execute(plan, program)
}
