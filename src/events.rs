//! The `events` verb: statistics and out-of-memory notices of a container.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cgroups::{self, OomWatch, Stats};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::state::Status;
use crate::sys::Errno;
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
    let rdt = container.record.intel_rdt.as_ref();
    let stats = |out: &mut dyn Write| {
        let mut data = cgroup.stats()?;
        if let Some(group) = rdt {
            data.intel_rdt = group.stats()?;
        }
        print(out, "stats", &args.id, Some(data))
    };
    if args.stats {
        return stats(out);
    }
    let mut oom = cgroup.watch_oom()?;
    let init = container.record.init.ok_or(Error::NotRunning)?.open()?;
    let mut next = Instant::now() + args.interval;
    loop {
        let woken = wait(init.as_fd(), oom.as_ref(), next)?;
        if woken.oom {
            match oom.as_mut().map_or(Ok(None), OomWatch::new_events)? {
                Some(0) => {}
                Some(_) => print(out, "oom", &args.id, None)?,
                None => oom = None,
            }
        }
        if woken.ended {
            return Ok(());
        }
        if Instant::now() >= next {
            next += args.interval;
            stats(out)?;
        }
    }
}

/// What [`wait`] has seen; neither means that the time is over.
struct Woken {
    ended: bool,
    oom: bool,
}

/// Waits for the container's end, a notice of the OOM killer, or `until`.
fn wait(init: BorrowedFd<'_>, oom: Option<&OomWatch>, until: Instant) -> Result<Woken> {
    let mut fds = vec![PollFd::new(init, PollFlags::POLLIN)];
    fds.extend(oom.map(OomWatch::poll_fd));
    let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    match poll(
        &mut fds,
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
    ) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(Error::host("wait for", "the container", errno)),
    }
    let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
    Ok(Woken {
        ended: is_ready(&fds[0]),
        oom: fds.get(1).is_some_and(is_ready),
    })
}

fn print(out: &mut dyn Write, kind: &'static str, id: &str, data: Option<Stats>) -> Result<()> {
    let line = serde_json::to_string(&Event { kind, id, data })
        .map_err(|error| Error::Failed(format!("print JSON: {error}")))?;
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| Error::host("write to", "stdout", error))
}
