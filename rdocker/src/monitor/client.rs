//! One connection to the monitor.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use super::wire::{self, Kind, Reply};

/// Bytes a client may be behind before the container has to wait for it.
pub const BEHIND_MAX: usize = 256 << 10;

/// What a client gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attached {
    /// Its stdin frames go to the container.
    pub stdin: bool,
    /// It gets stdout.
    pub stdout: bool,
    /// It gets stderr.
    pub stderr: bool,
}

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaits {
    /// The end of the container.
    Exit,
    /// Its removal.
    Removal,
    /// The end, as the answer to a stop request.
    Stop,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// What it gets, if it is attached.
    pub attached: Option<Attached>,
    /// What it waits for.
    pub awaits: Option<Awaits>,
    /// The exec whose streams it has instead of the container's.
    pub exec: Option<String>,
    /// The other end is gone, or sent nonsense.
    pub closed: bool,
}

impl Client {
    /// Takes a connected stream over.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            inbox: Vec::new(),
            outbox: Vec::new(),
            attached: None,
            awaits: None,
            exec: None,
            closed: false,
        })
    }

    /// For poll(2).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether there is something to write.
    pub fn has_output(&self) -> bool {
        !self.outbox.is_empty() && !self.closed
    }

    /// Whether it has the streams of this exec.
    pub fn has_exec(&self, id: &str) -> bool {
        self.exec.as_deref() == Some(id)
    }

    /// Whether the container has to wait for this client.
    pub fn is_behind(&self) -> bool {
        self.outbox.len() > BEHIND_MAX && !self.closed
    }

    /// Reads what is there; gives the whole frames.
    pub fn receive(&mut self) -> Vec<(Kind, Vec<u8>)> {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.closed = true,
            Ok(length) => self.inbox.extend_from_slice(&chunk[..length]),
            Err(error) if is_transient(&error) => {}
            Err(_) => self.closed = true,
        }
        let mut frames = Vec::new();
        loop {
            match wire::take_frame(&mut self.inbox) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return frames,
                Err(_) => {
                    self.closed = true;
                    return frames;
                }
            }
        }
    }

    /// Queues an answer and writes what fits.
    pub fn reply(&mut self, reply: &Reply) {
        self.outbox.extend(wire::message(reply));
        self.flush();
    }

    /// Queues output and writes what fits.
    pub fn output(&mut self, kind: Kind, bytes: &[u8]) {
        self.outbox.extend(wire::frame(kind, bytes));
        self.flush();
    }

    /// Writes what fits.
    pub fn flush(&mut self) {
        while self.has_output() {
            match self.stream.write(&self.outbox) {
                Ok(0) => self.closed = true,
                Ok(length) => drop(self.outbox.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.closed = true,
            }
        }
        if self.outbox.capacity() > BEHIND_MAX / 4 {
            self.outbox = Vec::new();
        }
    }
}

/// Whether a read should simply be tried again later.
pub fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
