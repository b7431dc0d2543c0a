//! `delete`: removes what a container has left, with `--force` after killing it.

use std::os::fd::{AsFd, BorrowedFd};

use crate::cgroups::{self, resctrl::Group};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::hooks;
use crate::state::{Container, Status};
use crate::sys::{Errno, fd};

/// `delete`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Kill the container first; succeed also if it does not exist
    #[arg(long, short)]
    pub force: bool,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// How long a killed process may take to end: as long as runc waits.
const DEATH_PATIENCE_MS: i32 = 10_000;
/// How long `delete` waits for a container that nobody has told it to kill.
const ENDING_PATIENCE_MS: i32 = 50;

/// Runs the verb.
///
/// # Errors
/// [`Error::WrongStatus`] if the container runs and `--force` is missing; an error that names what
/// is left if something cannot be removed.
pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let container = match context.store.load_locked(&args.id) {
        // A create that was killed before its first record, or nothing at all.
        Err(Error::NotFound) if args.force => {
            return match context.store.remove_leftover(&args.id) {
                Err(Error::NotFound) => Ok(()),
                other => other,
            };
        }
        other => other?,
    };
    match container.status()? {
        Status::Stopped | Status::Creating => {}
        Status::Created => kill(&container)?,
        _ if args.force => kill(&container)?,
        Status::Running if is_ending(&container)? => {}
        status => {
            let id = &args.id;
            let why = format!("cannot delete container {id} that is not stopped: {status}");
            return Err(Error::WrongStatus(why));
        }
    }
    context
        .log
        .debug(|| format!("deleting container {}", args.id));
    remove(container, context)
}

/// Removes a container whose process has ended: cgroup, poststop hooks, directory.
///
/// # Errors
/// [`Error::Host`] with what could not be removed; the record then stays, for another try.
pub fn remove(container: Container, context: &mut Context) -> Result<()> {
    let cgroup = cgroups::open(&container.record.cgroup);
    if !container.record.own_pid_namespace {
        cgroup.kill(libc::SIGKILL)?;
    }
    cgroup.remove()?;
    let unseen = cgroup.unseen()?;
    if !unseen.is_empty() {
        let (id, paths) = (&container.record.id, unseen.join(", "));
        let why = "not removed, because they are another's now, or no longer mounted";
        context
            .log
            .warn(&format!("container {id}: cgroups {why}: {paths}"));
    }
    let rdt = container.record.intel_rdt.as_ref();
    rdt.map_or(Ok(()), Group::remove)?;
    if container.record.has_later_hooks
        && let Some(spec) = container.spec_of_whole()?
    {
        let environment = hooks::environment();
        for error in hooks::after_stop(&spec, &container.record, &environment) {
            context.log.warn(&error.line());
        }
    }
    container.remove()
}

/// Whether the container ends by itself within a moment: whoever has just sent it a signal has not waited
/// for what that does, and keel is soon here.
fn is_ending(container: &Container) -> Result<bool> {
    let Some(init) = container.record.init else {
        return Ok(false);
    };
    match init.open() {
        Err(Error::NotRunning) => Ok(true),
        Err(error) => Err(error),
        Ok(pidfd) => fd::poll_in(pidfd.as_fd(), ENDING_PATIENCE_MS)
            .map_err(|errno| Error::host("wait for", "container init", errno)),
    }
}

/// Kills the container and waits until it is dead.
fn kill(container: &Container) -> Result<()> {
    let cgroup = cgroups::open(&container.record.cgroup);
    let Some(init) = container.record.init else {
        return Ok(());
    };
    let pidfd = match init.open() {
        Err(Error::NotRunning) => return Ok(()),
        other => other?,
    };
    if container.record.own_pid_namespace {
        kill_one(pidfd.as_fd())?;
        if cgroup.is_frozen()? {
            cgroup.thaw()?;
        }
    } else {
        container.signal_all(libc::SIGKILL)?;
        kill_one(pidfd.as_fd())?;
    }
    let ended = fd::poll_in(pidfd.as_fd(), DEATH_PATIENCE_MS)
        .map_err(|errno| Error::host("wait for", "container init", errno))?;
    if ended {
        return Ok(());
    }
    let pid = init.pid;
    let remedy = match cgroup.unseen()?.as_slice() {
        [] => String::new(),
        unseen => format!(
            "; is it frozen? {} cannot be seen from here",
            unseen.join(", ")
        ),
    };
    Err(Error::Failed(format!(
        "container init still running: process {pid} does not die{remedy}"
    )))
}

fn kill_one(pidfd: BorrowedFd<'_>) -> Result<()> {
    match fd::pidfd_send_signal(pidfd, libc::SIGKILL) {
        // It has ended meanwhile.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(Error::host("kill", "container init", errno)),
    }
}
