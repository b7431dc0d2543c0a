//! A user at a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Rows and columns of the terminal.
pub const SIZE: (u16, u16) = (31, 97);

/// A program whose stdin, stdout and stderr are a terminal, and what it has shown there.
pub struct Terminal {
    master: File,
    child: Child,
    shown: String,
}

impl Terminal {
    pub fn of(mut command: Command) -> Self {
        let size = Winsize {
            ws_row: SIZE.0,
            ws_col: SIZE.1,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).unwrap();
        let end = || -> OwnedFd { pty.slave.try_clone().unwrap() };
        command.stdin(end()).stdout(end()).stderr(end());
        Self {
            child: command.spawn().unwrap(),
            master: pty.master.into(),
            shown: String::new(),
        }
    }

    pub fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is shown, ten seconds at most.
    pub fn shows(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.shown.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap();
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut fds, timeout).unwrap();
            assert!(ready > 0, "{text:?} is not in {:?}", self.shown);
            let mut chunk = [0; 4096];
            let length = self.master.read(&mut chunk).unwrap_or(0);
            assert!(length > 0, "{text:?} is not in {:?}", self.shown);
            self.shown
                .push_str(&String::from_utf8_lossy(&chunk[..length]));
        }
    }

    /// Whether this was shown until now.
    pub fn has_shown(&self, text: &str) -> bool {
        self.shown.contains(text)
    }

    /// Gives the window another size, as a user who drags its corner.
    pub fn resizes(&mut self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&self.master, size).unwrap();
        // The kernel tells the terminal's foreground group alone, which the test has not made.
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, Signal::SIGWINCH).unwrap();
    }

    /// The program's exit code.
    pub fn code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Kills the program, as no user can.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
