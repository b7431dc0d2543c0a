//! Takes one reading: wall time, CPU time and peak memory of a command, or its system calls.

use std::fs;
use std::io::{self, Read as _, Seek as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tempfile::NamedTempFile;

use crate::host::Host;
use crate::runtime::last_line;

/// What one command cost, children it waited for included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub wall_usec: u64,
    /// User and system time together.
    pub cpu_usec: u64,
    /// Peak resident set; the `rusage` helper's own size (about 1.3 MiB) is the least it can see.
    pub rss_kib: u64,
    /// Zero unless taken with [`Gauge::Syscalls`].
    pub syscalls: u64,
}

/// Median and minimum of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    pub median: f64,
    pub min: f64,
}

impl Summary {
    /// Of an empty series: zeros.
    pub fn of(values: impl Iterator<Item = u64>) -> Self {
        let mut sorted: Vec<u64> = values.collect();
        sorted.sort_unstable();
        let middle = sorted.len() / 2;
        let at = |i: usize| sorted.get(i).copied().unwrap_or(0) as f64;
        let median = if sorted.is_empty() || sorted.len() % 2 == 1 {
            at(middle)
        } else {
            f64::midpoint(at(middle - 1), at(middle))
        };
        Self { median, min: at(0) }
    }
}

/// How a scenario's commands are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// Wall time, CPU time, peak memory.
    Usage,
    /// The number of system calls, with `strace -f -c`.
    Syscalls,
}

impl Gauge {
    /// Runs `argv` once and reads it.
    ///
    /// # Errors
    /// If the command exits non-zero, with the last line of its standard error.
    pub fn take(self, host: &Host, argv: &[String]) -> Result<Reading, String> {
        self.begin(host, argv, || true)?.finish()
    }

    /// Runs an `argv` that leaves a process behind; its reading is complete at
    /// [`Pending::finish`], to be called when that process has ended.
    ///
    /// strace follows the process that stays and returns only with it, so it is left running as
    /// soon as `ready` says that the command has done its work.
    ///
    /// # Errors
    /// If the command exits non-zero, or is not `ready` within ten seconds.
    pub fn begin(
        self,
        host: &Host,
        argv: &[String],
        ready: impl Fn() -> bool,
    ) -> Result<Pending, String> {
        match self {
            Self::Usage => usage(host, argv).map(Pending::Done),
            Self::Syscalls => {
                let table = NamedTempFile::new().map_err(|e| format!("cannot make a file: {e}"))?;
                let strace = Command::new("strace")
                    .args(["-f", "-c", "-o"])
                    .arg(table.path())
                    .args(argv)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .map_err(|e| format!("cannot run strace: {e}"))?;
                let deadline = Instant::now() + Duration::from_secs(10);
                while !ready() {
                    if Instant::now() > deadline {
                        return Err("not ready under strace within 10 s".to_owned());
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                Ok(Pending::Strace(strace, table))
            }
        }
    }
}

/// A reading that may still be waiting for its last process.
pub enum Pending {
    Done(Reading),
    Strace(Child, NamedTempFile),
}

impl Pending {
    /// Waits for what is left and gives the reading.
    ///
    /// # Errors
    /// If the command failed under strace, or strace wrote no table.
    pub fn finish(self) -> Result<Reading, String> {
        match self {
            Self::Done(reading) => Ok(reading),
            Self::Strace(mut strace, table) => {
                let status = strace
                    .wait()
                    .map_err(|e| format!("cannot wait for strace: {e}"))?;
                if !status.success() {
                    return Err(format!("under strace: {status}"));
                }
                let text = fs::read_to_string(table.path())
                    .map_err(|e| format!("cannot read what strace wrote: {e}"))?;
                let calls = total(&text).ok_or("strace wrote no total")?;
                Ok(Reading {
                    syscalls: calls,
                    ..Reading::default()
                })
            }
        }
    }
}

/// Runs `argv` once under the `rusage` helper.
fn usage(host: &Host, argv: &[String]) -> Result<Reading, String> {
    // A file, not a pipe: a container that is left behind would hold a pipe open.
    let failed = |e: io::Error| format!("cannot make a temporary file: {e}");
    let mut log = tempfile::tempfile().map_err(failed)?;
    let output = Command::new(host.path("rusage"))
        .args(argv)
        .stdin(Stdio::null())
        .stderr(log.try_clone().map_err(failed)?)
        .output()
        .map_err(|e| format!("cannot run rusage: {e}"))?;
    let (reading, status) = parse(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| format!("rusage gave no figures for {}", argv.join(" ")))?;
    if status == 0 {
        return Ok(reading);
    }
    let mut text = String::new();
    log.rewind()
        .and_then(|()| log.read_to_string(&mut text))
        .map_err(failed)?;
    Err(format!("exit status {status}: {}", last_line(&text)))
}

/// Reads the helper's line: wall ns, user µs, system µs, peak KiB, exit status.
fn parse(line: &str) -> Option<(Reading, u64)> {
    let fields: Vec<u64> = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let &[wall_nsec, user, system, rss_kib, status] = fields.as_slice() else {
        return None;
    };
    let wall_usec = wall_nsec / 1000;
    Some((
        Reading {
            wall_usec,
            cpu_usec: user + system,
            rss_kib,
            syscalls: 0,
        },
        status,
    ))
}

/// The `calls` column of the line `total`: it is the fourth field, as `% time seconds usecs/call
/// calls errors syscall` has it; the errors column may be empty.
fn total(table: &str) -> Option<u64> {
    let line = table
        .lines()
        .find(|line| line.trim_end().ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_figures_is_read_in_its_units() {
        let want = Reading {
            wall_usec: 12915,
            cpu_usec: 3378,
            rss_kib: 1348,
            syscalls: 0,
        };
        assert_eq!(parse("12915806 3000 378 1348 7\n"), Some((want, 7)));
        assert_eq!(parse("12915806 3000 378 1348\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn the_median_of_an_even_series_lies_between_the_middle_two() {
        let cases: &[(&[u64], f64, f64)] = &[
            (&[], 0.0, 0.0),
            (&[3], 3.0, 3.0),
            (&[9, 1, 4], 4.0, 1.0),
            (&[4, 1, 2, 9], 3.0, 1.0),
        ];
        for (values, median, min) in cases {
            let summary = Summary::of(values.iter().copied());
            assert_eq!(
                summary,
                Summary {
                    median: *median,
                    min: *min
                },
                "{values:?}"
            );
        }
    }

    #[test]
    fn the_total_of_strace_is_found_with_and_without_errors() {
        let with = "% time ...\n 10.0 0.1 9 127 5 mount\n100.00    0.004200          33       127         5 total\n";
        let without = "100.00    0.004200          33       127           total\n";
        assert_eq!(total(with), Some(127));
        assert_eq!(total(without), Some(127));
        assert_eq!(total("strace: nothing\n"), None);
    }
}
