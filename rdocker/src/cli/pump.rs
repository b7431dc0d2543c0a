//! The user's terminal on one side, a container's monitor on the other.

use std::io::{self, Read};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::container::session::Session;
use crate::error::{Error, Result};
use crate::monitor::wire::{self, Kind, Reply, Request};
use crate::ui::Ui;
use crate::ui::terminal::{self, DetachKeys, RawMode, Typed};

/// Signals that are passed on to the container, as `--sig-proxy` of docker does. Terminal stops
/// and SIGCHLD are the client's own.
const PROXIED: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTERM,
    Signal::SIGCONT,
];

/// How a session is conducted.
#[derive(Debug)]
pub struct Options {
    /// Pass our stdin on.
    pub stdin: bool,
    /// The program has a terminal.
    pub tty: bool,
    /// Pass our signals on.
    pub sig_proxy: bool,
    /// What ends the session.
    pub detach_keys: DetachKeys,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The program ended.
    Exited(i32),
    /// The user typed the detach keys.
    Detached,
}

/// Our ends, taken before the container starts so that no signal is lost.
pub struct Pump {
    options: Options,
    signals: SignalFd,
    raw: Option<RawMode>,
    stdin_open: bool,
    /// Frames that the monitor has not accepted yet. It may wait for us to take output first, so
    /// nothing here waits for it.
    outbox: Vec<u8>,
}

impl Pump {
    /// Blocks the signals that are to be passed on.
    ///
    /// # Errors
    /// `the input device is not a TTY`, if a terminal is wanted for stdin that is none.
    pub fn new(options: Options) -> Result<Self> {
        if options.tty && options.stdin && !crate::ui::stdin_is_terminal() {
            return Err(Error::NoTerminal);
        }
        let mut set = SigSet::empty();
        set.add(Signal::SIGWINCH);
        if options.sig_proxy {
            for signal in PROXIED {
                set.add(*signal);
            }
        }
        let terminal = |errno: nix::errno::Errno| Error::Terminal(errno.into());
        set.thread_block().map_err(terminal)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&set, flags).map_err(terminal)?;
        let stdin_open = options.stdin;
        Ok(Self {
            options,
            signals,
            raw: None,
            stdin_open,
            outbox: Vec::new(),
        })
    }

    /// Passes everything to and fro until the container ends or the user leaves.
    ///
    /// # Errors
    /// The monitor is gone; the terminal cannot be written to.
    pub fn run(mut self, session: &mut Session, ui: &mut Ui) -> Result<Outcome> {
        if self.options.tty && self.options.stdin {
            self.raw = RawMode::enter()?;
        }
        if self.options.tty {
            self.resize();
        }
        let mut leaves = false;
        loop {
            if !self.outbox.is_empty() {
                session.send_some(&mut self.outbox)?;
            }
            if leaves && self.outbox.is_empty() {
                return Ok(Outcome::Detached);
            }
            let (from_monitor, from_stdin, from_signals) = self.wait(session)?;
            if from_signals {
                self.on_signals();
            }
            if from_monitor && let Some(outcome) = on_frame(session, ui)? {
                return Ok(outcome);
            }
            if from_stdin {
                leaves = self.on_stdin() == Some(Outcome::Detached);
            }
        }
    }

    fn wait(&self, session: &Session) -> Result<(bool, bool, bool)> {
        let stdin = io::stdin();
        let mut wanted = PollFlags::POLLIN;
        wanted.set(PollFlags::POLLOUT, !self.outbox.is_empty());
        let mut fds = vec![
            PollFd::new(session.fd(), wanted),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        if self.stdin_open && self.outbox.is_empty() {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::Terminal(errno.into())),
        }
        let ready = |index: usize| {
            let fd: Option<&PollFd<'_>> = fds.get(index);
            fd.is_some_and(|fd| fd.revents().is_some_and(|flags| !flags.is_empty()))
        };
        let from_monitor = fds[0]
            .revents()
            .is_some_and(|flags| flags.intersects(!PollFlags::POLLOUT));
        Ok((from_monitor, ready(2), ready(1)))
    }

    fn on_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let Ok(signal) = i32::try_from(info.ssi_signo) else {
                continue;
            };
            if signal == libc::SIGWINCH {
                if self.options.tty {
                    self.resize();
                }
            } else {
                self.outbox.extend(wire::message(&Request::Kill { signal }));
            }
        }
    }

    fn on_stdin(&mut self) -> Option<Outcome> {
        let mut chunk = [0; 16 << 10];
        let length = io::stdin().read(&mut chunk).unwrap_or(0);
        if length == 0 {
            self.stdin_open = false;
            self.outbox.extend(wire::frame(Kind::Stdin, &[]));
            return None;
        }
        let (bytes, outcome) = if self.options.tty {
            match self.options.detach_keys.feed(&chunk[..length]) {
                Typed::Forward(bytes) => (bytes, None),
                Typed::Detach(bytes) => (bytes, Some(Outcome::Detached)),
            }
        } else {
            (chunk[..length].to_vec(), None)
        };
        // An empty frame would be the end of stdin.
        if !bytes.is_empty() {
            self.outbox.extend(wire::frame(Kind::Stdin, &bytes));
        }
        outcome
    }

    fn resize(&mut self) {
        if let Some((rows, columns)) = terminal::size() {
            let request = Request::Resize { rows, columns };
            self.outbox.extend(wire::message(&request));
        }
    }
}

fn on_frame(session: &mut Session, ui: &mut Ui) -> Result<Option<Outcome>> {
    match session.receive()? {
        Some((Kind::Stdout, bytes)) => ui.bytes(&bytes).map(|()| None),
        Some((Kind::Stderr, bytes)) => ui.error_bytes(&bytes).map(|()| None),
        Some((Kind::Message, body)) => match wire::parse(&body) {
            Ok(Reply::Exited { code }) => Ok(Some(Outcome::Exited(code))),
            // The answer to a signal passed on: the program may have ended before it.
            _ => Ok(None),
        },
        Some((Kind::Stdin, _)) => Ok(None),
        None => Err(Error::Conflict(
            "the container's monitor is gone".to_owned(),
        )),
    }
}

/// A container's exit code as this process's own.
pub fn exit(code: i32) -> Result<()> {
    match u8::try_from(code) {
        Ok(0) => Ok(()),
        Ok(code) => Err(Error::Exit(code)),
        Err(_) => Err(Error::Exit(crate::error::EXIT_ENGINE)),
    }
}
