//! `start`: opens the gate, waits until execve has been tried, runs poststart hooks.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::hooks;
use crate::notify::Notify;
use crate::plan::{Facts, Frame, Plan};
use crate::spawn;
use crate::state::{Container, Init, Status, gate};
use crate::sys::fd;
use crate::verify::Verify;

/// `start`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Runs the verb.
///
/// # Errors
/// [`Error::WrongStatus`] unless the container is created; what the process reports if it does not come
/// as far as execve; a poststart hook's failure, which also kills the container.
pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let container = context.store.load_locked(&args.id)?;
    match container.status()? {
        Status::Created => {}
        // A created container that was frozen is started, and runs once it is thawed.
        Status::Paused if gate::is_closed(container.path()) => {
            return Err(Error::WrongStatus("cannot start a paused container".into()));
        }
        Status::Running | Status::Paused => {
            return Err(Error::WrongStatus(
                "cannot start an already running container".into(),
            ));
        }
        Status::Stopped => {
            return Err(Error::WrongStatus(
                "cannot start a container that has stopped".into(),
            ));
        }
        Status::Creating => {
            return Err(Error::WrongStatus(
                "cannot start a container that is being created".into(),
            ));
        }
    }
    let init = container.record.init.ok_or(Error::NotRunning)?;
    let notify = Notify::open(container.path(), init.pid)?;
    let report = gate::open(container.dir())?;
    let fault = spawn::wait_past_gate(report.as_fd())?;
    gate::remove(container.path())?;
    if let Some(fault) = fault {
        let error = explain(&container, fault);
        return context.log.unless_started(error);
    }
    if context.global.verify {
        look(&container, init, context.verify())?;
    }
    context
        .log
        .debug(|| format!("started container {}", args.id));
    poststart(&container)?;
    match (notify, init.open()) {
        (Some(notify), Ok(pidfd)) => notify.wait(pidfd.as_fd()),
        _ => Ok(()),
    }
}

/// Looks whether the program that runs is confined; kills it if not.
fn look(container: &Container, init: Init, verify: Verify) -> Result<()> {
    let plan = plan(container)?;
    verify.running(&plan, init.pid).inspect_err(|_| {
        // It may have ended meanwhile.
        if let Ok(pidfd) = init.open() {
            let _ = fd::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        }
    })
}

/// Runs the poststart hooks; if one fails the container is stopped.
///
/// # Errors
/// The hook's failure.
pub fn poststart(container: &Container) -> Result<()> {
    if !container.record.has_later_hooks {
        return Ok(());
    }
    let environment = hooks::environment();
    let result = hooks::after_start(&container.spec()?, &container.record, &environment);
    if result.is_err()
        && let Some(Ok(pidfd)) = container.record.init.map(|init| init.open())
    {
        kill(pidfd.as_fd());
    }
    result
}

fn kill(pidfd: BorrowedFd<'_>) {
    // It may have ended by itself, which is just as well.
    let _ = fd::pidfd_send_signal(pidfd, libc::SIGKILL);
}

/// The plan that the container was made by, out of the saved config.json.
fn plan(container: &Container) -> Result<Plan> {
    let facts = Facts {
        id: &container.record.id,
        ..Facts::of(Path::new(&container.record.bundle))
    };
    Plan::for_create(&container.spec()?, &facts)
}

/// What a fault past the gate means.
fn explain(container: &Container, fault: Frame) -> Error {
    match plan(container) {
        Ok(plan) => plan.explain(fault),
        Err(error) => error,
    }
}
