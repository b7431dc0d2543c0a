//! `run`: create and start in one process; in the foreground until the program ends.

use std::os::fd::AsFd;

use crate::confine;
use crate::context::Context;
use crate::create::{self, Created, Mode};
use crate::delete;
use crate::error::{Error, Result};
use crate::foreground::{self, Relay};
use crate::notify::Notify;
use crate::plan::Plan;
use crate::spawn::Spawned;
use crate::start;
use crate::state::Container;
use crate::verify::Verify;

/// `run`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// What `create` takes.
    #[command(flatten)]
    pub create: create::Args,
    /// Return as soon as the container runs
    #[arg(long, short)]
    pub detach: bool,
    /// Do not delete the container when it ends
    #[arg(long)]
    pub keep: bool,
    /// Do not become the subreaper of the container's processes
    #[arg(long)]
    pub no_subreaper: bool,
}

/// Runs the verb. Returns the program's exit code: 0 if detached, 128 and the signal if killed.
///
/// # Errors
/// As `create` and `start`; the container is then removed again.
pub fn run(args: &Args, context: &mut Context) -> Result<u8> {
    let signals = if args.detach {
        None
    } else {
        Some(foreground::prepare(!args.no_subreaper)?)
    };
    let mode = if args.detach {
        Mode::Detached
    } else {
        Mode::Foreground
    };
    let created = create::create(&args.create, context, &mode)?;
    let Created {
        container,
        mut process,
        plan,
        terminal,
        released,
    } = created;
    let notify = Notify::open(container.path(), process.pid)?;
    let gone = match released {
        true => Ok(()),
        false => process.go(&plan),
    };
    let verify = context.verify();
    let begun = gone.and_then(|()| begin(&process, &plan, &container, verify));
    match begun.or_else(|error| context.log.unless_started(error)) {
        Ok(()) => process.settle(),
        Err(error) => {
            drop(process);
            // What a startContainer hook had to say.
            if let Some(terminal) = &terminal {
                foreground::print_rest(terminal, signals.as_ref());
            }
            delete::remove(container, context)?;
            return Err(error);
        }
    }
    let Some(signals) = signals else {
        if let Some(notify) = notify {
            notify.wait(process.pidfd.as_fd())?;
        }
        return Ok(0);
    };
    let relay = terminal.as_ref().map(Relay::new).transpose();
    confine::to_removing(&container.record, container.path());
    // Unlocked: other commands may work on the container while it runs.
    drop(container);
    let ended = foreground::attend(process.pidfd.as_fd(), &signals, relay, notify);
    if !args.keep {
        match context.store.load_locked(&args.create.id) {
            // Somebody has deleted it already.
            Err(Error::NotFound) => {}
            container => delete::remove(container?, context)?,
        }
    }
    u8::try_from(ended?).map_err(|_| Error::Failed("an exit code is at most 255".into()))
}

/// Waits until the process executes its program.
fn begin(process: &Spawned, plan: &Plan, container: &Container, verify: Verify) -> Result<()> {
    process.wait_for_exec(plan)?;
    verify.running(plan, process.pid)?;
    start::poststart(container)
}
