//! Talking to a container's monitor.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::SendFlags;

use super::Container;
use super::record::Places;
use crate::error::{Error, Result};
use crate::monitor::short_path;
use crate::monitor::wire::{self, Kind, Reply, Request};

/// One connection to a monitor.
#[derive(Debug)]
pub struct Session {
    stream: UnixStream,
    id: String,
}

impl Session {
    /// Connects to the monitor of a running container.
    ///
    /// # Errors
    /// `container X is not running` if it has none.
    pub fn connect(container: &Container) -> Result<Self> {
        let id = container.record.id.clone();
        let run = &container.places.run;
        let connect = |dir: File| UnixStream::connect(short_path(&dir, Places::socket_name()));
        match File::open(run).and_then(connect) {
            Ok(stream) => Ok(Self { stream, id }),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Err(Error::Conflict(format!("container {id} is not running")))
            }
            Err(error) => Err(Error::host("connect to the monitor in", run, error)),
        }
    }

    /// Takes over a stream whose other end a new monitor has.
    pub fn over(stream: UnixStream, id: &str) -> Self {
        Self {
            stream,
            id: id.to_owned(),
        }
    }

    /// For poll(2).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    fn lost(&self) -> Error {
        Error::MonitorGone {
            id: self.id.clone(),
        }
    }

    /// Sends a request without waiting.
    ///
    /// # Errors
    /// The monitor is gone.
    pub fn send(&mut self, request: &Request) -> Result<()> {
        wire::send(&mut self.stream, request).map_err(|_| self.lost())
    }

    /// Takes off the front of `frames` what the monitor accepts now.
    ///
    /// # Errors
    /// The monitor is gone.
    pub fn send_some(&self, frames: &mut Vec<u8>) -> Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::send(&self.stream, frames, flags) {
            Ok(length) => drop(frames.drain(..length)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return Err(self.lost()),
        }
        Ok(())
    }

    /// The next frame; `None` when the monitor has closed the connection.
    ///
    /// # Errors
    /// What arrived is no frame.
    pub fn receive(&mut self) -> Result<Option<(Kind, Vec<u8>)>> {
        match wire::read_frame(&mut self.stream) {
            Ok(frame) => Ok(frame),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(_) => Err(self.lost()),
        }
    }

    /// Waits for the next reply, passing over output.
    ///
    /// # Errors
    /// The monitor is gone; what it said is no reply.
    pub fn reply(&mut self) -> Result<Reply> {
        loop {
            match self.receive()? {
                Some((Kind::Message, body)) => {
                    return wire::parse(&body).map_err(|_| self.lost());
                }
                Some(_) => {}
                None => return Err(self.lost()),
            }
        }
    }

    /// Sends a request and waits for its outcome.
    ///
    /// # Errors
    /// The monitor's own, or it is gone.
    pub fn request(&mut self, request: &Request) -> Result<()> {
        self.send(request)?;
        outcome(self.reply()?)
    }

    /// Waits until the container has ended, or has been removed; its exit code.
    ///
    /// # Errors
    /// The monitor is gone.
    pub fn wait(&mut self, removed: bool) -> Result<i32> {
        self.send(&Request::Wait { removed })?;
        match self.reply()? {
            Reply::Exited { code } => Ok(code),
            other => outcome(other).map(|()| 0),
        }
    }
}

/// A reply as a result.
///
/// # Errors
/// The failure it tells.
pub fn outcome(reply: Reply) -> Result<()> {
    match reply {
        Reply::Done | Reply::Exited { .. } => Ok(()),
        Reply::Failed {
            message,
            runtime: true,
            ..
        } => Err(Error::Runtime { message }),
        Reply::Failed { message, hint, .. } if hint.is_empty() => Err(Error::Conflict(message)),
        Reply::Failed { message, hint, .. } => Err(Error::Hinted { message, hint }),
    }
}
