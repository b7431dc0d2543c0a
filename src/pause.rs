//! The `pause` and `resume` verbs: freeze a container's cgroup, and thaw it.

use crate::cgroups;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::state::Status;

/// Freeze or thaw a container
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Runs the verb `pause`. A container that is created but not started can be paused, too.
///
/// # Errors
/// [`Error::NotRunning`] if it has stopped; [`Error::WrongStatus`] if it is paused already.
pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let container = context.store.load_locked(&args.id)?;
    match container.status()? {
        Status::Running | Status::Created => cgroups::open(&container.record.cgroup).freeze(),
        Status::Paused => Err(Error::WrongStatus("container paused".into())),
        Status::Creating | Status::Stopped => Err(Error::NotRunning),
    }
}

/// Runs the verb `resume`.
///
/// # Errors
/// [`Error::WrongStatus`] unless the container is paused.
pub fn resume(args: &Args, context: &mut Context) -> Result<()> {
    let container = context.store.load_locked(&args.id)?;
    match container.status()? {
        Status::Paused => cgroups::open(&container.record.cgroup).thaw(),
        _ => Err(Error::WrongStatus("container not paused".into())),
    }
}
