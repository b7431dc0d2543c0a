//! `exec`: processes that join the container. The monitor is their parent and has their streams.
//!
//! The runtime leaves such a process to the nearest reaper, and that is the monitor when the
//! monitor called it. A process namespace ends only when all its processes are reaped, so one left
//! to a host's init that does not reap would hold up the container's own end. And the program must
//! outlive its client, who may type the detach keys or be killed: its terminal and its exit code
//! are not the client's to keep.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::streams::Streams;
use super::wire::{ExecStreams, Reply};
use super::{Monitor, Token};
use crate::container::exec::{Files, Hold};
use crate::error::{Error, Result};
use crate::runtime::Stdio3;

/// Bytes that a pipe holds at most for whom `/proc/sys/fs/pipe-max-size` binds, by default.
const PIPE_MAX: usize = 1 << 20;

/// A process of an exec that runs.
pub struct Exec {
    id: String,
    pid: i32,
    streams: Streams,
    _hold: Hold,
}

impl Monitor<'_> {
    /// Starts the process whose files the client wrote, and answers when its program runs.
    pub(super) fn on_exec(&mut self, index: usize, id: String, kind: ExecStreams) -> Result<()> {
        let files = Files::of(&self.places, &id);
        let hold = files.hold()?;
        match self.start_exec(&files, kind) {
            Ok((pid, streams)) => {
                if kind != ExecStreams::Detached {
                    self.clients[index].exec = Some(id.clone());
                }
                self.execs.push(Exec {
                    id,
                    pid,
                    streams,
                    _hold: hold,
                });
                Ok(())
            }
            Err(error) => {
                files.remove();
                Err(error)
            }
        }
    }

    fn start_exec(&self, files: &Files, kind: ExecStreams) -> Result<(i32, Streams)> {
        let start = |console: Option<&Path>, stdio| {
            let id = &self.record.id;
            self.runtime.exec_detached(id, files, console, stdio)
        };
        let fail = |errno| Error::host("make pipes for", &files.process, errno);
        let streams = match kind {
            ExecStreams::Detached => {
                start(None, Stdio3::null()?)?;
                Streams::default()
            }
            ExecStreams::Output | ExecStreams::Pipes => {
                let (streams, ends) = Streams::pipes(kind == ExecStreams::Pipes).map_err(fail)?;
                start(None, ends)?;
                streams
            }
            ExecStreams::Terminal => Streams::with_terminal(&self.places.run, |console, stdio| {
                start(Some(console), stdio)
            })?,
        };
        let text = fs::read_to_string(&files.pid)
            .map_err(|errno| Error::host("read", &files.pid, errno))?;
        let pid = text.trim().parse().map_err(|_| Error::Runtime {
            message: format!("{} holds no process id", files.pid.display()),
        })?;
        Ok((pid, streams))
    }

    /// The exec that a client asked for, while it runs.
    fn exec_of(&mut self, client: usize) -> Option<&mut Exec> {
        let id = self.clients[client].exec.as_ref()?;
        self.execs.iter_mut().find(|exec| exec.id == *id)
    }

    /// Bytes that a client typed for its exec; none are their end.
    pub(super) fn on_exec_stdin(&mut self, client: usize, bytes: &[u8]) {
        match self.exec_of(client) {
            Some(exec) if bytes.is_empty() => exec.streams.end_stdin(),
            Some(exec) => exec.streams.feed(bytes),
            None => {}
        }
    }

    /// Sets the size of the terminal of a client's exec.
    pub(super) fn resize_exec(&mut self, client: usize, rows: u16, columns: u16) {
        if let Some(exec) = self.exec_of(client) {
            exec.streams.resize(rows, columns);
        }
    }

    /// Sends a signal to a client's exec. It is our child and not yet reaped, so its pid cannot be
    /// another's; one that has ended needs no signal any more.
    pub(super) fn signal_exec(&mut self, client: usize, signal: i32) -> Result<()> {
        let Some(exec) = self.exec_of(client) else {
            return Ok(());
        };
        let sent = Signal::try_from(signal).and_then(|named| kill(Pid::from_raw(exec.pid), named));
        match sent {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::Runtime {
                message: format!("kill: {}", errno.desc()),
            }),
        }
    }

    /// Whether a client may send more, if what it sends is for its exec.
    pub(super) fn exec_takes_stdin(&self, id: &str) -> bool {
        let exec = self.execs.iter().find(|exec| exec.id == id);
        exec.is_none_or(|exec| exec.streams.takes_stdin())
    }

    /// Adds the streams of the execs to a poll set; one whose client is behind has to wait for it.
    pub(super) fn watch_execs<'a>(&'a self, set: &mut Vec<(Token, PollFd<'a>)>) {
        for (at, exec) in self.execs.iter().enumerate() {
            let client = self.clients.iter().find(|client| client.has_exec(&exec.id));
            let behind = client.is_some_and(|client| client.is_behind());
            let outputs = exec.streams.outputs.iter().enumerate();
            for (index, output) in outputs.filter(|(_, output)| !output.ended && !behind) {
                let token = Token::ExecOutput(at, index);
                set.push((token, PollFd::new(output.fd(), PollFlags::POLLIN)));
            }
            if let Some(fd) = exec.streams.stdin_fd() {
                set.push((Token::ExecStdin(at), PollFd::new(fd, PollFlags::POLLOUT)));
            }
        }
    }

    /// Passes on what one stream of an exec has; gives how many bytes that was. Without a client it
    /// is lost: an exec has no log.
    ///
    /// The exec may have ended since the poll, and another have its place: that one then reads
    /// early, which does no harm.
    pub(super) fn on_exec_output(&mut self, at: usize, index: usize) -> usize {
        let Some(exec) = self.execs.get_mut(at) else {
            return 0;
        };
        let Some(output) = exec.streams.outputs.get_mut(index) else {
            return 0;
        };
        let mut chunk = [0; 32 << 10];
        let length = output.read(&mut chunk);
        let client = self.clients.iter_mut().find(|c| c.has_exec(&exec.id));
        if let Some(client) = client.filter(|_| length > 0) {
            client.output(output.kind, &chunk[..length]);
        }
        length
    }

    /// Writes to an exec's stdin what fits.
    pub(super) fn write_exec_stdin(&mut self, at: usize) {
        if let Some(exec) = self.execs.get_mut(at) {
            exec.streams.write_stdin();
        }
    }

    /// Forgets clients that are gone. What they sent has ended then, as far as their execs are
    /// concerned; a terminal has no end and waits for nobody.
    pub(super) fn forget_closed(&mut self) {
        let gone = self.clients.iter().filter(|client| client.closed);
        for id in gone.filter_map(|client| client.exec.as_ref()) {
            if let Some(exec) = self.execs.iter_mut().find(|exec| exec.id == *id) {
                exec.streams.end_stdin();
            }
        }
        self.clients.retain(|client| !client.closed);
    }

    /// A child has ended; if it was an exec, its end is told, to its client after its last output.
    pub(super) fn exec_ended(&mut self, pid: i32, code: i32) -> Result<()> {
        let Some(at) = self.execs.iter().position(|exec| exec.pid == pid) else {
            return Ok(());
        };
        for index in 0..self.execs[at].streams.outputs.len() {
            // What it wrote is there to be read; others that it left behind may write for ever.
            let mut left = PIPE_MAX;
            while let length @ 1.. = self.on_exec_output(at, index)
                && left > length
            {
                left -= length;
            }
        }
        let exec = self.execs.swap_remove(at);
        Files::of(&self.places, &exec.id).remove();
        let more = [("execID", exec.id.clone()), ("exitCode", code.to_string())];
        self.event("exec_die", &more)?;
        if let Some(client) = self.clients.iter_mut().find(|c| c.has_exec(&exec.id)) {
            client.reply(&Reply::Exited { code });
        }
        Ok(())
    }

    /// The container has ended, and the runtime killed all that was left in it.
    pub(super) fn end_execs(&mut self) -> Result<()> {
        while let Some(exec) = self.execs.first() {
            self.exec_ended(exec.pid, 128 + libc::SIGKILL)?;
        }
        Ok(())
    }
}
