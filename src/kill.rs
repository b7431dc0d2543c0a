//! `kill`: sends a signal to a container.

use std::os::fd::AsFd;

use nix::sys::signal::Signal;

use crate::cgroups;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::state::Container;
use crate::sys::{Errno, fd};

/// `kill`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Signal every process of the container; succeed also if it has stopped
    #[arg(long, short)]
    pub all: bool,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
    /// Name or number, SIG optional: TERM, SIGTERM and 15 are the same
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM")]
    pub signal: String,
}

/// Runs the verb.
///
/// The process is held by pidfd and its start time checked, so a recycled pid is never hit.
///
/// # Errors
/// [`Error::NotRunning`] if the container has stopped, unless all of it is meant.
pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let signal = signal(&args.signal)?;
    let container = context.store.load(&args.id)?;
    context
        .log
        .debug(|| format!("sending signal {signal} to container {}", args.id));
    let sent = send(&container, signal, args.all);
    match sent {
        Err(Error::NotRunning) if args.all => Ok(()),
        other => other,
    }
}

/// Sends `signal` to the container's first process, or with `all` to every one.
///
/// Without a pid namespace of its own, killing the first process would leave the others: then
/// SIGKILL always means all.
fn send(container: &Container, signal: i32, all: bool) -> Result<()> {
    let record = &container.record;
    if all || (signal == libc::SIGKILL && !record.own_pid_namespace) {
        return container.signal_all(signal);
    }
    let cgroup = cgroups::open(&record.cgroup);
    let init = record.init.ok_or(Error::NotRunning)?.open()?;
    match fd::pidfd_send_signal(init.as_fd(), signal) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Err(Error::NotRunning),
        Err(errno) => return Err(Error::host("kill", &record.id, errno)),
    }
    // A process frozen by the v1 freezer dies only when it is thawed.
    if signal == libc::SIGKILL && cgroup.is_frozen()? {
        cgroup.thaw()?;
    }
    Ok(())
}

/// A signal by name, with or without `SIG`, or by number; 0 only checks.
///
/// # Errors
/// [`Error::Usage`] in runc's words.
pub fn signal(text: &str) -> Result<i32> {
    let unknown = || Error::Usage(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        let known = (0..=*REAL_TIME.end()).contains(&number);
        return if known { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(signal) = format!("SIG{name}").parse::<Signal>() {
        return Ok(signal as i32);
    }
    real_time(name).ok_or_else(unknown)
}

/// The first and the last real-time signal as programs know them that use glibc, which keeps two for
/// itself. musl keeps one more.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// `RTMIN+n` and `RTMAX-n`. Man page: signal(7), "Real-time signals".
fn real_time(name: &str) -> Option<i32> {
    let number = match name {
        "RTMIN" => *REAL_TIME.start(),
        "RTMAX" => *REAL_TIME.end(),
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(n), _) => REAL_TIME.start() + n.parse::<i32>().ok()?,
            (_, Some(n)) => REAL_TIME.end() - n.parse::<i32>().ok()?,
            _ => return None,
        },
    };
    REAL_TIME.contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_many_names() {
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(signal(text).unwrap(), libc::SIGTERM, "{text}");
        }
        assert_eq!(signal("0").unwrap(), 0);
        assert_eq!(signal("RTMIN+3").unwrap(), 37);
        assert_eq!(signal("SIGRTMAX-1").unwrap(), 63);
        for text in ["", "SIG", "FOO", "65", "-1", "RTMIN+99", "1.5"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }
}
