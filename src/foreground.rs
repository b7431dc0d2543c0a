//! Keel in the foreground: passes signals on, relays the terminal, waits for the program's end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::error::{Error, Result};
use crate::notify::Notify;
use crate::sys::{Errno, fd, path, proc, tty};

/// Prepares for the foreground: signals are read from a descriptor, orphans come to keel.
///
/// # Errors
/// [`Error::Host`] if the kernel refuses; it does not on Linux 3.4 and later.
pub fn prepare(subreaper: bool) -> Result<SignalFd> {
    if subreaper {
        proc::set_subreaper().map_err(|errno| Error::host("become", "a subreaper", errno))?;
    }
    let mut signals = proc::all_signals();
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

/// Attends to a process until it has ended; returns its exit code. The relay of its terminal is what came
/// of making one, which is not possible any more after `confine`.
///
/// # Errors
/// [`Error::Host`] if that cannot be done; the process is killed then, as nobody attends to it any more.
pub fn attend(
    pidfd: BorrowedFd<'_>,
    signals: &SignalFd,
    relay: Result<Option<Relay<'_>>>,
    notify: Option<Notify>,
) -> Result<i32> {
    let ended = relay.and_then(|relay| attend_to_end(pidfd, signals, relay, notify));
    ended.inspect_err(|_| {
        // It may have ended; either way it is not left to whoever comes after keel.
        let _ = fd::pidfd_send_signal(pidfd, libc::SIGKILL);
        let _ = fd::wait(pidfd);
    })
}

fn attend_to_end(
    pidfd: BorrowedFd<'_>,
    signals: &SignalFd,
    mut relay: Option<Relay<'_>>,
    mut notify: Option<Notify>,
) -> Result<i32> {
    loop {
        let mut set = vec![
            PollFd::new(pidfd, PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(notify) = &notify {
            set.push(PollFd::new(notify.as_fd(), PollFlags::POLLIN));
        }
        let others = set.len();
        let (streams, awaited): (Vec<Stream>, Vec<PollFd<'_>>) =
            relay.iter().flat_map(Relay::awaited).unzip();
        set.extend(awaited);
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
        if others == 3 && ready[2] && notify.as_ref().is_some_and(told) {
            notify = None;
        }
        if let Some(relay) = &mut relay {
            let ready = streams.iter().zip(&ready[others..]);
            ready
                .filter(|(_, ready)| **ready)
                .for_each(|(stream, _)| relay.serve(*stream));
        }
        if ready[0] {
            if let Some(relay) = &mut relay {
                relay.drain(Some(signals));
            }
            let ended =
                fd::wait(pidfd).map_err(|errno| Error::host("wait for", "the container", errno))?;
            return Ok(ended.exit_code());
        }
    }
}

/// Prints what is left in the terminal of a container that has not started.
pub fn print_rest(terminal: &OwnedFd, signals: Option<&SignalFd>) {
    // There is another error to tell already.
    if let Ok(mut relay) = Relay::new(terminal) {
        relay.drain(signals);
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

/// What a relay waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Master,
    Stdin,
    Stdout,
}

/// Copies between the caller's terminal (or pipes) and the container's.
///
/// A block each way is all that it keeps: who does not read holds up the other side, but not keel.
pub struct Relay<'a> {
    master: &'a OwnedFd,
    /// What the container has not read yet.
    pending: Vec<u8>,
    /// What the caller has not read yet.
    unread: Vec<u8>,
    stdin_open: bool,
    master_open: bool,
    /// The caller's stdout, if keel could open it anew.
    stdout: Option<OwnedFd>,
    /// The caller's terminal settings, put back at the end.
    saved: Option<Termios>,
}

impl<'a> Relay<'a> {
    /// Begins to relay the container's terminal. To be called before keel is confined.
    ///
    /// # Errors
    /// [`Error::Host`] if one of the terminals cannot be set up.
    pub fn new(master: &'a OwnedFd) -> Result<Self> {
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
            unread: Vec::new(),
            stdin_open: true,
            master_open: true,
            stdout: open_stdout(),
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

    /// What there is to wait for. A stream of which nothing is wanted is not in it: poll(2) tells of a
    /// hangup again and again.
    fn awaited(&self) -> Vec<(Stream, PollFd<'_>)> {
        let mut events = PollFlags::empty();
        if self.master_open && self.unread.is_empty() {
            events |= PollFlags::POLLIN;
        }
        if !self.pending.is_empty() {
            events |= PollFlags::POLLOUT;
        }
        let mut set = Vec::new();
        if !events.is_empty() {
            set.push((Stream::Master, PollFd::new(self.master.as_fd(), events)));
        }
        if self.stdin_open && self.pending.is_empty() {
            let stdin = PollFd::new(fd::borrow(0), PollFlags::POLLIN);
            set.push((Stream::Stdin, stdin));
        }
        if !self.unread.is_empty() {
            set.push((
                Stream::Stdout,
                PollFd::new(self.stdout(), PollFlags::POLLOUT),
            ));
        }
        set
    }

    /// Does what there is to do at a stream that is ready.
    fn serve(&mut self, stream: Stream) {
        match stream {
            Stream::Master => {
                self.write_master();
                self.read_master();
            }
            Stream::Stdin => self.read_stdin(),
            Stream::Stdout => self.write_stdout(),
        }
    }

    fn stdout(&self) -> BorrowedFd<'_> {
        self.stdout.as_ref().map_or(fd::borrow(1), AsFd::as_fd)
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

    /// Takes one block, unless the caller has not read the last one.
    fn read_master(&mut self) {
        if !self.unread.is_empty() {
            return;
        }
        let mut block = [0; 8192];
        match nix::unistd::read(self.master, &mut block) {
            Ok(count) if count > 0 => {
                self.unread.extend_from_slice(&block[..count]);
                self.write_stdout();
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // EIO: nobody in the container has the terminal open any more.
            _ => self.master_open = false,
        }
    }

    /// Passes on what the caller takes.
    fn write_stdout(&mut self) {
        while !self.unread.is_empty() {
            // A pipe that poll(2) calls writable takes as much at once.
            let most = match self.stdout {
                Some(_) => self.unread.len(),
                None if !is_writable(self.stdout()) => return,
                None => self.unread.len().min(libc::PIPE_BUF),
            };
            match nix::unistd::write(self.stdout(), &self.unread[..most]) {
                Ok(count) => drop(self.unread.drain(..count)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // A caller that is gone does not read; the container goes on.
                Err(_) => self.unread.clear(),
            }
        }
    }

    /// Copies what the container has written before it ended, unless a signal wants keel to end.
    fn drain(&mut self, signals: Option<&SignalFd>) {
        loop {
            while self.unread.is_empty() {
                if !self.master_open || !is_ready(self.master.as_fd(), PollFlags::POLLIN) {
                    return;
                }
                self.read_master();
            }
            let mut set = vec![PollFd::new(self.stdout(), PollFlags::POLLOUT)];
            set.extend(signals.map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)));
            let waited = poll(&mut set, PollTimeout::NONE);
            if signals.is_some_and(ends) || waited.is_err_and(|errno| errno != Errno::EINTR) {
                return;
            }
            self.write_stdout();
        }
    }
}

/// Whether one of the signals that were sent to keel is to end it.
fn ends(signals: &SignalFd) -> bool {
    let mut end = false;
    while let Ok(Some(info)) = signals.read_signal() {
        let signal = info.ssi_signo.cast_signed();
        end |= matches!(
            signal,
            libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT
        );
    }
    end
}

fn is_writable(fd: BorrowedFd<'_>) -> bool {
    is_ready(fd, PollFlags::POLLOUT)
}

fn is_ready(fd: BorrowedFd<'_>, events: PollFlags) -> bool {
    poll(&mut [PollFd::new(fd, events)], PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

/// Opens stdout anew if it is a terminal or a pipe, to write to it without waiting: `O_NONBLOCK` of the
/// one that keel was given would be the caller's, too. `None` if that is not permitted.
fn open_stdout() -> Option<OwnedFd> {
    use nix::fcntl::{AT_FDCWD, OFlag, openat};
    use nix::sys::stat::{Mode, SFlag};
    let kind = path::kind_of(fd::borrow(1)).ok()?;
    if !matches!(kind, SFlag::S_IFCHR | SFlag::S_IFIFO) {
        return None;
    }
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    openat(AT_FDCWD, "/proc/self/fd/1", flags, Mode::empty()).ok()
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
