//! One run of the container: from the runtime's `run` to its exit code.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::client::Awaits;
use super::streams::Streams;
use super::wire::{Kind, Reply};
use super::{Monitor, health, policy};
use crate::container::cgroup::OomCounter;
use crate::container::record::Status;
use crate::container::{network, process, start};
use crate::error::{Error, Result, program_exit_code};
use crate::network::attach;

/// How long output may still come after the first process has ended, when something outside the
/// container keeps the pipe open.
const DRAIN: Duration = Duration::from_millis(200);

/// A container that runs.
pub struct Run {
    pid: i32,
    began: Instant,
    oom: OomCounter,
    /// Its stdio.
    pub streams: Streams,
}

impl Monitor<'_> {
    /// Starts the container whose bundle and root the starter prepared.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.state.error.clear();
        self.state.oom_killed = false;
        let run = match self.attach().and_then(|()| self.call_runtime()) {
            Ok(run) => run,
            Err(error) => {
                self.state.status = if self.state.started_at.is_some() {
                    Status::Exited
                } else {
                    Status::Created
                };
                self.state.error = error.chain();
                let code = program_exit_code(&self.state.error);
                self.state.exit_code = code.map_or(128, i32::from);
                self.save()?;
                return Err(error);
            }
        };
        self.state.pid = run.pid;
        self.state.start_ticks = process::start_ticks(run.pid).unwrap_or(0);
        self.state.status = Status::Running;
        self.state.started_at = Some(Timestamp::now());
        self.state.exit_code = 0;
        self.health = health::Checker::new(self.record.config.healthcheck.as_ref());
        self.state.health = self.health.as_ref().map(health::Checker::initial);
        self.run = Some(run);
        self.save()?;
        if let Some(attached) = &self.network {
            // A file that cannot be written is another container's trouble, not this one's.
            let _ = network::tell_parents(self.host, &self.record, &attached.endpoints);
        }
        self.event("start", &[])
    }

    /// Takes the container's places in its networks; a restart by policy finds them taken.
    fn attach(&mut self) -> Result<()> {
        if self.network.is_none() && network::is_bridged(&self.record.host_config.network_mode) {
            let attached = network::up(self.host, &self.record, &self.places)?;
            network::tell(self.host, "connect", &attached.endpoints)?;
            self.network = Some(attached);
        }
        Ok(())
    }

    /// Gives the container's places back.
    pub(super) fn detach(&mut self) {
        if let Some(attached) = self.network.take() {
            let _ = network::tell(self.host, "disconnect", &attached.endpoints);
            attached.close();
            // What is left is found again by `attach::sweep`.
            let _ = attach::down(self.host, &self.record.id);
        }
    }

    fn call_runtime(&self) -> Result<Run> {
        let bundle = self.places.bundle();
        let pid_file = self.places.run.join("pid");
        let id = &self.record.id;
        let start = |console: Option<&Path>, stdio| {
            self.runtime.run(id, &bundle, &pid_file, console, stdio)
        };
        let streams = if self.record.config.tty {
            Streams::with_terminal(&self.places.run, |console, stdio| {
                start(Some(console), stdio)
            })?
        } else {
            let pipes = Streams::pipes(self.record.config.open_stdin);
            let (streams, ends) =
                pipes.map_err(|errno| Error::host("make pipes for", &bundle, errno))?;
            start(None, ends)?;
            streams
        };
        let text =
            fs::read_to_string(&pid_file).map_err(|errno| Error::host("read", &pid_file, errno))?;
        let pid = text.trim().parse().map_err(|_| Error::Runtime {
            message: format!("{} holds no process id", pid_file.display()),
        })?;
        Ok(Run {
            pid,
            began: Instant::now(),
            oom: OomCounter::of(pid, &self.record.id),
            streams,
        })
    }

    /// Collects children that ended: the container, health checks, execs, strays.
    pub(super) fn reap(&mut self) -> Result<()> {
        loop {
            let (pid, code) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(_) => continue,
            };
            if self.run.as_ref().is_some_and(|run| run.pid == pid.as_raw()) {
                self.end(code)?;
            } else if let Some(health) = &mut self.health
                && health.ended(pid.as_raw(), code)
            {
                self.publish_health()?;
            } else {
                self.exec_ended(pid.as_raw(), code)?;
            }
        }
    }

    pub(super) fn publish_health(&mut self) -> Result<()> {
        let Some(health) = &mut self.health else {
            return Ok(());
        };
        let Some(now) = health.take_result() else {
            return Ok(());
        };
        let before = self
            .state
            .health
            .replace(now.clone())
            .map(|health| health.status);
        self.save()?;
        if before.as_ref() != Some(&now.status) {
            self.event(&format!("health_status: {}", now.status), &[])?;
        }
        Ok(())
    }

    /// Reads what one stream has, logs it and passes it on.
    pub(super) fn on_output(&mut self, index: usize) {
        let mut chunk = [0; 32 << 10];
        let Some(run) = &mut self.run else { return };
        let output = &mut run.streams.outputs[index];
        let length = output.read(&mut chunk);
        let (name, log) = (output.name(), &mut self.log);
        let mut write = |piece: &[u8]| {
            if let Some(log) = log {
                // A full disk must not stop the container; what cannot be kept is lost.
                let _ = log.write(name, piece, Timestamp::now());
            }
        };
        output.lines.feed(&chunk[..length], &mut write);
        if output.ended {
            output.lines.finish(&mut write);
        }
        let kind = output.kind;
        if length > 0 {
            for client in &mut self.clients {
                let wanted = client.attached.is_some_and(|attached| match kind {
                    Kind::Stderr => attached.stderr,
                    _ => attached.stdout,
                });
                if wanted {
                    client.output(kind, &chunk[..length]);
                }
            }
        }
    }

    fn drain(&mut self) {
        let deadline = Instant::now() + DRAIN;
        loop {
            let Some(run) = &self.run else { return };
            let open: Vec<usize> = run
                .streams
                .outputs
                .iter()
                .enumerate()
                .filter(|(_, output)| !output.ended)
                .map(|(index, _)| index)
                .collect();
            if open.is_empty() || Instant::now() > deadline {
                break;
            }
            for index in open {
                self.on_output(index);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        // Whatever has not ended is cut here, so that its last words reach the log.
        let Some(run) = &mut self.run else { return };
        for output in &mut run.streams.outputs {
            let (name, log) = (output.name(), &mut self.log);
            output.lines.finish(&mut |piece: &[u8]| {
                if let Some(log) = log {
                    let _ = log.write(name, piece, Timestamp::now());
                }
            });
        }
    }

    /// The first process has ended with `code`.
    fn end(&mut self, code: i32) -> Result<()> {
        self.drain();
        let Some(run) = self.run.take() else {
            return Ok(());
        };
        self.kill_at = None;
        self.state.oom_killed = run.oom.has_killed();
        // The runtime may have nothing left to delete; what matters is that nothing stays.
        let _ = self.runtime.delete(&self.places.run, &self.record.id);
        self.end_execs()?;
        self.state.pid = 0;
        self.state.start_ticks = 0;
        self.state.exit_code = code;
        self.state.finished_at = Some(Timestamp::now());
        self.health = None;
        let policy = &self.record.host_config.restart_policy;
        let again = !self.state.manually_stopped
            && policy::wants_restart(policy, code, self.state.restart_count);
        self.state.status = if again {
            Status::Restarting
        } else {
            Status::Exited
        };
        self.save()?;
        if self.state.oom_killed {
            self.event("oom", &[])?;
        }
        let lasted = run.began.elapsed();
        let more = [
            ("exitCode", code.to_string()),
            ("execDuration", lasted.as_secs().to_string()),
        ];
        self.event("die", &more)?;
        if self.state.manually_stopped {
            self.event("stop", &[])?;
        }
        if !again {
            // Whoever hears of the end may count on the ports and addresses being free.
            self.detach();
        }
        for client in &mut self.clients {
            let waits = matches!(client.awaits, Some(Awaits::Exit | Awaits::Stop));
            if client.attached.take().is_some() || waits {
                client.awaits = client.awaits.filter(|awaits| *awaits == Awaits::Removal);
                client.reply(&Reply::Exited { code });
            }
        }
        if again {
            self.restart_at = Some(Instant::now() + self.delay.after(lasted));
            return Ok(());
        }
        self.leave()
    }

    /// Starts the container again by policy.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.state.restart_count += 1;
        let prepared = start::prepare(self.host, &self.record, &self.places, start::Root::Mounted);
        if let Err(error) = prepared.and_then(|()| self.begin()) {
            self.state.error = error.chain();
            self.state.status = Status::Exited;
            self.save()?;
            return self.leave();
        }
        Ok(())
    }

    /// Sends a signal to the first process.
    ///
    /// It is our child and not yet reaped, so its pid cannot be another's.
    pub(super) fn signal(&mut self, signal: i32) -> Result<()> {
        let Some(run) = &self.run else { return Ok(()) };
        match nix::sys::signal::Signal::try_from(signal) {
            Ok(named) => match nix::sys::signal::kill(Pid::from_raw(run.pid), named) {
                Ok(()) | Err(Errno::ESRCH) => Ok(()),
                Err(errno) => Err(Error::Runtime {
                    message: format!("kill: {}", errno.desc()),
                }),
            },
            // Real-time signals have no name here; the runtime takes any number.
            Err(_) => self.runtime.kill(&self.places.run, &self.record.id, signal),
        }
    }

    /// Asks the container to stop; SIGKILL follows after `timeout` seconds, never if negative.
    pub(super) fn stop(&mut self, signal: i32, timeout: i64) -> Result<()> {
        self.state.manually_stopped = true;
        if self.restart_at.take().is_some() {
            self.state.status = Status::Exited;
            self.save()?;
            return self.leave();
        }
        self.save()?;
        self.signal(signal)?;
        if self.state.status == Status::Paused {
            self.runtime.resume(&self.places.run, &self.record.id)?;
            self.state.status = Status::Running;
        }
        self.event("kill", &[("signal", signal.to_string())])?;
        if let Ok(seconds) = u64::try_from(timeout) {
            self.kill_at = Some(Instant::now() + Duration::from_secs(seconds));
        }
        Ok(())
    }
}
