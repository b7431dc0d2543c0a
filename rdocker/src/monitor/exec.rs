//! `exec -d`: processes that join the container and that nobody waits for but its monitor.
//!
//! The runtime leaves such a process to the nearest reaper, and that is the monitor when the
//! monitor called it. A process namespace ends only when all its processes are reaped, so one left
//! to a host's init that does not reap would hold up the container's own end.

use std::fs;

use super::Monitor;
use crate::container::exec::{Files, Hold};
use crate::error::{Error, Result};

/// A process of `exec -d` that runs.
pub struct Exec {
    id: String,
    pid: i32,
    _hold: Hold,
}

impl Monitor<'_> {
    /// Starts the process whose files the client wrote, and answers when its program runs.
    pub(super) fn on_exec(&mut self, id: String) -> Result<()> {
        let files = Files::of(&self.places, &id);
        let hold = files.hold()?;
        let started = self.runtime.exec_detached(&self.record.id, &files);
        let pid = started.and_then(|()| {
            fs::read_to_string(&files.pid).map_err(|errno| Error::host("read", &files.pid, errno))
        });
        let pid = pid.and_then(|text| {
            text.trim().parse().map_err(|_| Error::Runtime {
                message: format!("{} holds no process id", files.pid.display()),
            })
        });
        match pid {
            Ok(pid) => self.execs.push(Exec {
                id,
                pid,
                _hold: hold,
            }),
            Err(error) => {
                files.remove();
                return Err(error);
            }
        }
        Ok(())
    }

    /// A child has ended; if it was of an `exec -d`, its end is told.
    pub(super) fn exec_ended(&mut self, pid: i32, code: i32) -> Result<()> {
        let Some(index) = self.execs.iter().position(|exec| exec.pid == pid) else {
            return Ok(());
        };
        let exec = self.execs.swap_remove(index);
        Files::of(&self.places, &exec.id).remove();
        let more = [("execID", exec.id), ("exitCode", code.to_string())];
        self.event("exec_die", &more)
    }
}
