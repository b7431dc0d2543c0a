//! Health checks: a command in the container, at intervals.
//!
//! Times, count and cut are Docker's: 30 s between checks, 30 s for one, three failures in a row,
//! 5 s between checks while the container starts, five results kept, 4096 bytes of output each
//! (moby daemon/health.go).

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};

use crate::container::exec;
use crate::container::record::{Health, HealthResult, Places, Record};
use crate::image::config::Healthcheck;
use crate::runtime::Runtime;

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
const KEPT: usize = 5;
const OUTPUT_MAX: usize = 4096;

/// The checks of one run.
pub struct Checker {
    test: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
    born: Instant,
    next: Instant,
    probe: Option<Probe>,
    health: Health,
    changed: bool,
}

/// A check under way.
struct Probe {
    pid: i32,
    began: Timestamp,
    deadline: Instant,
    output: File,
    /// Nobody writes to the pipe any more.
    ended: bool,
    text: Vec<u8>,
    timed_out: bool,
}

impl Checker {
    /// `None` if the configuration has no check, or says NONE.
    pub fn new(config: Option<&Healthcheck>) -> Option<Self> {
        let config = config?;
        if config.test.len() < 2 {
            return None;
        }
        let or = |nanos: i64, default: Duration| match u64::try_from(nanos) {
            Ok(0) | Err(_) => default,
            Ok(nanos) => Duration::from_nanos(nanos),
        };
        let interval = or(config.interval, INTERVAL);
        let start_period = or(config.start_period, Duration::ZERO);
        let start_interval = or(config.start_interval, START_INTERVAL);
        let first = if start_period.is_zero() {
            interval
        } else {
            start_interval.min(interval)
        };
        let now = Instant::now();
        Some(Self {
            test: config.test.clone(),
            interval,
            timeout: or(config.timeout, TIMEOUT),
            start_period,
            start_interval,
            retries: u32::try_from(config.retries)
                .ok()
                .filter(|n| *n > 0)
                .unwrap_or(RETRIES),
            born: now,
            next: now + first,
            probe: None,
            health: Health {
                status: "starting".to_owned(),
                ..Health::default()
            },
            changed: false,
        })
    }

    /// The state before the first check.
    pub fn initial(&self) -> Health {
        self.health.clone()
    }

    /// When something is to be done.
    pub fn next(&self) -> Instant {
        self.probe
            .as_ref()
            .map_or(self.next, |probe| probe.deadline)
    }

    /// The output of the check under way, for poll(2).
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.probe
            .as_ref()
            .filter(|probe| !probe.ended)
            .map(|probe| probe.output.as_fd())
    }

    /// Reads some output; what is over the bound is read and dropped, so that the check can end.
    pub fn read(&mut self) {
        let Some(probe) = &mut self.probe else { return };
        let mut chunk = [0; 4096];
        match probe.output.read(&mut chunk) {
            Ok(0) => probe.ended = true,
            Ok(length) => {
                let room = OUTPUT_MAX.saturating_sub(probe.text.len());
                probe.text.extend_from_slice(&chunk[..length.min(room)]);
            }
            Err(_) => {}
        }
    }

    /// Begins a check, or ends one that takes too long. Whether there is a new result is told.
    pub fn on_time(
        &mut self,
        runtime: &Runtime,
        places: &Places,
        record: &Record,
        now: Instant,
    ) -> bool {
        if let Some(probe) = &mut self.probe {
            if probe.deadline <= now && !probe.timed_out {
                probe.timed_out = true;
                probe.deadline = now + Duration::from_secs(3600);
                kill_probe(places, probe.pid);
            }
            return false;
        }
        if self.next > now {
            return false;
        }
        let began = Timestamp::now();
        let Some((pid, output)) = self.spawn(runtime, places, record) else {
            self.record_result(
                began,
                -1,
                "the health check could not be started".to_owned(),
            );
            return true;
        };
        let deadline = now + self.timeout;
        let text = Vec::new();
        self.probe = Some(Probe {
            pid,
            began,
            deadline,
            output,
            ended: false,
            text,
            timed_out: false,
        });
        false
    }

    /// Runs the check; gives its process and the read end of its stdout and stderr.
    fn spawn(&self, runtime: &Runtime, places: &Places, record: &Record) -> Option<(i32, File)> {
        let shell = || match &record.config.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        };
        let (kind, rest) = self.test.split_first()?;
        let mut args = if kind == "CMD-SHELL" {
            shell()
        } else {
            Vec::new()
        };
        args.extend(rest.iter().cloned());
        let process = exec::process_of(places, args).ok()?;
        let file = places.run.join("health.json");
        fs::write(&file, process.to_string()).ok()?;
        let (log, pid_file) = (places.run.join("health.log"), places.run.join("health.pid"));
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
        let mut command = runtime.exec(&record.id, &file, &log, &pid_file);
        command
            .stdin(Stdio::null())
            .stdout(write.try_clone().ok()?)
            .stderr(write);
        let child = command.spawn().ok()?;
        Some((i32::try_from(child.id()).ok()?, File::from(read)))
    }

    /// A child has ended; whether it was the check is told.
    pub fn ended(&mut self, pid: i32, code: i32) -> bool {
        if self.probe.as_ref().is_none_or(|probe| probe.pid != pid) {
            return false;
        }
        while self.fd().is_some() {
            let before = self.probe.as_ref().map_or(0, |probe| probe.text.len());
            self.read();
            if self
                .probe
                .as_ref()
                .is_none_or(|probe| probe.text.len() == before)
            {
                break;
            }
        }
        let Some(probe) = self.probe.take() else {
            return false;
        };
        let (code, text) = if probe.timed_out {
            let limit = self.timeout.as_secs_f64();
            (-1, format!("Health check exceeded timeout ({limit}s)"))
        } else {
            (code, String::from_utf8_lossy(&probe.text).into_owned())
        };
        self.record_result(probe.began, code, text);
        true
    }

    fn record_result(&mut self, start: Timestamp, exit_code: i32, output: String) {
        let starting = self.health.status == "starting" && self.born.elapsed() < self.start_period;
        if exit_code == 0 {
            self.health.failing_streak = 0;
            "healthy".clone_into(&mut self.health.status);
        } else if !starting {
            self.health.failing_streak += 1;
            if self.health.failing_streak >= self.retries {
                "unhealthy".clone_into(&mut self.health.status);
            }
        }
        self.health.log.push(HealthResult {
            start,
            end: Timestamp::now(),
            exit_code,
            output,
        });
        if self.health.log.len() > KEPT {
            self.health.log.remove(0);
        }
        let still_starting =
            self.health.status == "starting" && self.born.elapsed() < self.start_period;
        let pause = if still_starting {
            self.start_interval
        } else {
            self.interval
        };
        self.next = Instant::now() + pause;
        self.changed = true;
    }

    /// The new state, once.
    pub fn take_result(&mut self) -> Option<Health> {
        std::mem::take(&mut self.changed).then(|| self.health.clone())
    }
}

/// Kills the program in the container and the runtime that waits for it.
fn kill_probe(places: &Places, runtime_pid: i32) {
    let inside = fs::read_to_string(places.run.join("health.pid")).ok();
    let inside = inside.and_then(|text| text.trim().parse::<i32>().ok());
    for pid in inside.into_iter().chain([runtime_pid]) {
        // Either may have ended by itself in this moment.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checker(retries: i64, start_period: i64) -> Checker {
        let test = vec!["CMD".to_owned(), "true".to_owned()];
        let config = Healthcheck {
            test,
            retries,
            start_period,
            ..Healthcheck::default()
        };
        Checker::new(Some(&config)).unwrap()
    }

    fn after(checker: &mut Checker, codes: &[i32]) -> (String, u32, usize) {
        for code in codes {
            checker.record_result(Timestamp::now(), *code, String::new());
        }
        let health = checker.take_result().unwrap();
        (health.status, health.failing_streak, health.log.len())
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_one_success_heals_it() {
        let cases: &[(&[i32], &str, u32)] = &[
            (&[0], "healthy", 0),
            (&[1], "starting", 1),
            (&[1, 1], "unhealthy", 2),
            (&[0, 1], "healthy", 1),
            (&[1, 1, 0], "healthy", 0),
        ];
        for (codes, status, streak) in cases {
            let got = after(&mut checker(2, 0), codes);
            assert_eq!((got.0.as_str(), got.1), (*status, *streak), "{codes:?}");
        }
    }

    #[test]
    fn failures_of_the_start_period_do_not_count_and_five_results_are_kept() {
        let got = after(&mut checker(2, i64::MAX), &[1; 9]);
        assert_eq!(got, ("starting".to_owned(), 0, 5));
    }

    #[test]
    fn none_and_an_empty_test_mean_no_checks() {
        for test in [vec![], vec!["NONE".to_owned()]] {
            let config = Healthcheck {
                test,
                ..Healthcheck::default()
            };
            assert!(Checker::new(Some(&config)).is_none());
        }
    }
}
