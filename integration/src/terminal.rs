//! The receiving ends of `--console-socket` and `--pidfd-socket`, and terminals.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;

use crate::{patience, sys};

/// A unix socket on which one descriptor is awaited.
#[derive(Debug)]
struct DescriptorSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl DescriptorSocket {
    fn listen(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("the socket's path is free and short");
        Self {
            path: path.to_owned(),
            listener,
        }
    }

    /// Accepts one connection and one message: its payload and its only descriptor.
    fn receive(&self) -> (String, OwnedFd) {
        assert!(
            is_readable(&self.listener),
            "nobody connects to {}",
            self.path.display()
        );
        let (stream, _) = self.listener.accept().expect("a connection is waiting");
        assert!(
            is_readable(&stream),
            "nothing is sent to {}",
            self.path.display()
        );
        receive_descriptor(&stream)
    }
}

fn receive_descriptor(stream: &UnixStream) -> (String, OwnedFd) {
    let (payload, mut fds) = sys::receive(stream.as_fd()).expect("the message is waiting");
    assert_eq!(fds.len(), 1, "exactly one descriptor is sent");
    (
        String::from_utf8_lossy(&payload).into_owned(),
        fds.remove(0),
    )
}

fn is_readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(patience()).expect("minutes fit");
    poll(&mut fds, timeout).expect("poll on a socket") == 1
}

/// The peer of `--console-socket`.
#[derive(Debug)]
pub struct ConsoleSocket(DescriptorSocket);

impl ConsoleSocket {
    /// Listens at `path`.
    ///
    /// # Panics
    /// If the path is taken or too long for a socket (107 bytes).
    pub fn listen(path: &Path) -> Self {
        Self(DescriptorSocket::listen(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The message's payload and the terminal.
    ///
    /// # Panics
    /// If no message with one descriptor arrives.
    pub fn receive(&self) -> (String, Terminal) {
        let (payload, master) = self.0.receive();
        (payload, Terminal::new(master))
    }
}

/// The peer of `--pidfd-socket`.
#[derive(Debug)]
pub struct PidfdSocket(DescriptorSocket);

impl PidfdSocket {
    /// Listens at `path`.
    ///
    /// # Panics
    /// If the path is taken or too long for a socket (107 bytes).
    pub fn listen(path: &Path) -> Self {
        Self(DescriptorSocket::listen(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The message's payload and the descriptor.
    ///
    /// # Panics
    /// If no message with one descriptor arrives.
    pub fn receive(&self) -> (String, OwnedFd) {
        self.0.receive()
    }
}

/// The master end of a pseudo terminal, as a terminal emulator holds it.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    seen: String,
}

impl Terminal {
    fn new(master: OwnedFd) -> Self {
        Self {
            master: File::from(master),
            seen: String::new(),
        }
    }

    /// A new pseudo terminal on the host: this end, and the end for the runtime.
    ///
    /// # Panics
    /// If there are no more.
    pub fn open() -> (Self, OwnedFd) {
        let pty = openpty(None, None).expect("pseudo terminals are plenty");
        (Self::new(pty.master), pty.slave)
    }

    /// Types `text`.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn type_in(&mut self, text: &str) {
        self.master
            .write_all(text.as_bytes())
            .expect("the terminal is open");
    }

    /// Reads until `text` appears; returns all up to and with it, and forgets that.
    ///
    /// # Panics
    /// If the terminal ends or [`patience`] does.
    pub fn expect(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                return self.seen.drain(..at + text.len()).collect();
            }
            assert!(
                start.elapsed() < patience(),
                "no {text:?} on the terminal but {:?}",
                self.seen
            );
            assert!(
                self.read_more(),
                "the terminal ends without {text:?} after {:?}",
                self.seen
            );
        }
    }

    /// Reads until the last process that holds the other end is gone.
    pub fn read_to_end(&mut self) -> String {
        while self.read_more() {}
        std::mem::take(&mut self.seen)
    }

    /// False at the end, which Linux reports as EIO.
    fn read_more(&mut self) -> bool {
        assert!(
            is_readable(&self.master),
            "the terminal is silent after {:?}",
            self.seen
        );
        let mut buffer = [0; 4096];
        match self.master.read(&mut buffer) {
            Ok(0) | Err(_) => false,
            Ok(length) => {
                self.seen
                    .push_str(&String::from_utf8_lossy(&buffer[..length]));
                true
            }
        }
    }

    /// Rows and columns.
    ///
    /// # Panics
    /// If it is no terminal.
    pub fn size(&self) -> (u16, u16) {
        sys::window_size(self.master.as_fd()).expect("it is a terminal")
    }

    /// Resizes it.
    ///
    /// # Panics
    /// If it is no terminal.
    pub fn resize(&self, rows: u16, columns: u16) {
        sys::set_window_size(self.master.as_fd(), rows, columns).expect("it is a terminal");
    }
}
