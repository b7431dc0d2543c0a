//! The `events` verb: statistics and out-of-memory notices of a container.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::cgroups::{self, Stats};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::state::Status;
use crate::sys::fd;
use crate::units::duration;

/// Print what a container uses, as JSON, one object per line
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Time between two statistics
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub interval: Duration,
    /// Print the statistics once and end
    #[arg(long)]
    pub stats: bool,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// One line of output; runc's `types/events.go`.
#[derive(serde::Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

/// Runs the verb: once with `--stats`, else until the container ends.
///
/// # Errors
/// [`Error::WrongStatus`] if the container does not run.
pub fn run(args: &Args, context: &mut Context, out: &mut dyn Write) -> Result<()> {
    let container = context.store.load(&args.id)?;
    if !matches!(
        container.status()?,
        Status::Running | Status::Created | Status::Paused
    ) {
        let why = format!("container with id {} is not running", args.id);
        return Err(Error::WrongStatus(why));
    }
    let cgroup = cgroups::open(&container.record.cgroup);
    let stats = |out: &mut dyn Write| {
        let data = Some(cgroup.stats()?);
        print(
            out,
            &Event {
                kind: "stats",
                id: &args.id,
                data,
            },
        )
    };
    if args.stats {
        return stats(out);
    }
    let init = container.record.init.ok_or(Error::NotRunning)?.open()?;
    let millis = i32::try_from(args.interval.as_millis()).unwrap_or(i32::MAX);
    loop {
        let ended = fd::poll_in(init.as_fd(), millis)
            .map_err(|errno| Error::host("wait for", "the container", errno))?;
        if ended {
            return Ok(());
        }
        stats(out)?;
    }
}

fn print(out: &mut dyn Write, event: &Event<'_>) -> Result<()> {
    let line = serde_json::to_string(event)
        .map_err(|error| Error::Failed(format!("print JSON: {error}")))?;
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| Error::host("write to", "stdout", error))
}
