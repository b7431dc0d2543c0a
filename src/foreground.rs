//! Keel in the foreground: passes signals on, relays the terminal, waits for the program's end.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::error::{Error, Result};
use crate::notify::Notify;
use crate::sys::{Errno, fd, proc, tty};

/// Prepares for the foreground: signals are read from a descriptor, orphans come to keel.
///
/// # Errors
/// [`Error::Host`] if the kernel refuses; it does not on Linux 3.4 and later.
pub fn prepare(subreaper: bool) -> Result<SignalFd> {
    if subreaper {
        proc::set_subreaper().map_err(|errno| Error::host("become", "a subreaper", errno))?;
    }
    let mut signals = SigSet::all();
    // Those that tell of a bug in keel itself must still end it.
    for own in [
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGFPE,
        Signal::SIGABRT,
    ] {
        signals.remove(own);
    }
    let failed = |errno| Error::host("read", "signals", errno);
    signals.thread_set_mask().map_err(failed)?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)
}

/// Attends to the container until its first process has ended; returns its exit code.
///
/// # Errors
/// [`Error::Host`] if the process cannot be waited for.
pub fn attend(
    pidfd: BorrowedFd<'_>,
    signals: &SignalFd,
    terminal: Option<&OwnedFd>,
    mut notify: Option<Notify>,
) -> Result<i32> {
    let mut relay = terminal.map(Relay::new).transpose()?;
    loop {
        let mut set = vec![
            PollFd::new(pidfd, PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(notify) = &notify {
            set.push(PollFd::new(notify.as_fd(), PollFlags::POLLIN));
        }
        let streams = set.len();
        if let Some(relay) = &relay {
            relay.add_to(&mut set);
        }
        match poll(&mut set, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.map_err(|errno| Error::host("wait for", "the container", errno))?,
        };
        let ready: Vec<bool> = set
            .iter()
            .map(|entry| entry.any().unwrap_or(false))
            .collect();
        if ready[1] {
            forward(signals, pidfd, relay.as_ref());
        }
        if streams == 3 && ready[2] && notify.as_ref().is_some_and(told) {
            notify = None;
        }
        if let Some(relay) = &mut relay {
            relay.serve(&ready[streams..]);
        }
        if ready[0] {
            if let Some(relay) = &mut relay {
                relay.drain();
            }
            let ended =
                fd::wait(pidfd).map_err(|errno| Error::host("wait for", "the container", errno))?;
            return Ok(ended.exit_code());
        }
    }
}

/// Prints what is left in the terminal of a container that has not started.
pub fn print_rest(terminal: &OwnedFd) {
    // There is another error to tell already.
    if let Ok(mut relay) = Relay::new(terminal) {
        relay.drain();
    }
}

/// Whether there is nothing more to tell; a caller that does not listen is told nothing.
fn told(notify: &Notify) -> bool {
    notify.pass_on().unwrap_or(true)
}

/// Passes on every signal that was sent to keel, except those that are for keel itself.
fn forward(signals: &SignalFd, pidfd: BorrowedFd<'_>, relay: Option<&Relay<'_>>) {
    while let Ok(Some(info)) = signals.read_signal() {
        let signal = info.ssi_signo.cast_signed();
        match signal {
            libc::SIGCHLD => reap(pidfd),
            libc::SIGURG => {}
            libc::SIGWINCH if relay.is_some() => {
                if let Some(relay) = relay {
                    relay.resize();
                }
            }
            // A process that has just ended needs no signal any more.
            signal => drop(fd::pidfd_send_signal(pidfd, signal)),
        }
    }
}

/// Reaps orphans that came to keel as subreaper, but leaves the container's first process.
fn reap(init: BorrowedFd<'_>) {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    let look = |id| waitid(id, ended | WaitPidFlag::WNOWAIT).ok()?.pid();
    while let Some(pid) = look(Id::All) {
        // Asked only now: as long as the first process has not ended, it is not the one just seen.
        if look(Id::PIDFd(init)).is_some() {
            return;
        }
        let _ = waitid(Id::Pid(pid), ended);
    }
}

/// Copies between the caller's terminal (or pipes) and the container's.
struct Relay<'a> {
    master: &'a OwnedFd,
    /// What the container has not read yet.
    pending: Vec<u8>,
    stdin_open: bool,
    master_open: bool,
    /// The caller's terminal settings, put back at the end.
    saved: Option<Termios>,
}

impl<'a> Relay<'a> {
    fn new(master: &'a OwnedFd) -> Result<Self> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        fcntl(master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_RDWR))
            .map_err(|errno| Error::host("set up", "the terminal", errno))?;
        let stdin = io::stdin();
        let saved = tcgetattr(&stdin).ok();
        if let Some(settings) = &saved {
            let mut raw = settings.clone();
            cfmakeraw(&mut raw);
            // The container's lines end in a bare newline; this terminal makes its own line end of it.
            raw.output_flags.insert(OutputFlags::OPOST);
            tcsetattr(&stdin, SetArg::TCSANOW, &raw)
                .map_err(|errno| Error::host("set up", "the caller's terminal", errno))?;
        }
        let relay = Self {
            master,
            pending: Vec::new(),
            stdin_open: true,
            master_open: true,
            saved,
        };
        relay.resize();
        Ok(relay)
    }

    /// Gives the container's terminal the size of the caller's.
    fn resize(&self) {
        for stream in 0..=2 {
            if let Ok(size) = tty::size(fd::borrow(stream)) {
                // A terminal without a size is no reason to end the container.
                let _ = tty::set_size(self.master.as_fd(), size);
                return;
            }
        }
    }

    fn add_to<'b>(&'b self, set: &mut Vec<PollFd<'b>>) {
        let mut events = PollFlags::empty();
        if self.master_open {
            events |= PollFlags::POLLIN;
        }
        if !self.pending.is_empty() {
            events |= PollFlags::POLLOUT;
        }
        set.push(PollFd::new(self.master.as_fd(), events));
        if self.stdin_open && self.pending.is_empty() {
            set.push(PollFd::new(fd::borrow(0), PollFlags::POLLIN));
        }
    }

    /// `ready` says which of the descriptors that `add_to` added have something to do.
    fn serve(&mut self, ready: &[bool]) {
        if ready.get(1) == Some(&true) {
            self.read_stdin();
        }
        if ready.first() == Some(&true) {
            self.write_master();
            self.read_master();
        }
    }

    fn read_stdin(&mut self) {
        let mut block = [0; 8192];
        match nix::unistd::read(fd::borrow(0), &mut block) {
            Ok(0) => {
                self.stdin_open = false;
                // What a terminal's user types for "no more".
                self.pending.push(END_OF_TRANSMISSION);
            }
            Ok(count) => self.pending.extend_from_slice(&block[..count]),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => self.stdin_open = false,
        }
        self.write_master();
    }

    fn write_master(&mut self) {
        while !self.pending.is_empty() {
            match nix::unistd::write(self.master, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(_) => self.pending.clear(),
            }
        }
    }

    /// Copies one block; `false` if there is none.
    fn read_master(&mut self) -> bool {
        let mut block = [0; 8192];
        match nix::unistd::read(self.master, &mut block) {
            Ok(count) if count > 0 => {
                let mut stdout = io::stdout().lock();
                // A caller that is gone does not read; the container goes on.
                let _ = stdout
                    .write_all(&block[..count])
                    .and_then(|()| stdout.flush());
                true
            }
            Err(Errno::EINTR) => true,
            Err(Errno::EAGAIN) => false,
            // EIO: nobody in the container has the terminal open any more.
            _ => {
                self.master_open = false;
                false
            }
        }
    }

    /// Copies what the container has written before it ended.
    fn drain(&mut self) {
        while self.read_master() {}
    }
}

/// Control-D.
const END_OF_TRANSMISSION: u8 = 4;

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            // Nothing can be done for a terminal that is gone.
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, saved);
        }
    }
}
