//! What the child tells the runtime: one frame of eight bytes at a time.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv, send};

use crate::plan::fds::Fds;
use crate::plan::{Frame, Kind, Step};
use crate::sys::{Errno, clone};

/// The step that failed, for which item of its list, and why.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub step: Step,
    pub item: u16,
    pub errno: i32,
}

/// Says at which step a system call failed.
pub trait At<T> {
    fn at(self, step: Step, item: usize) -> Result<T, Fault>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: Step, item: usize) -> Result<T, Fault> {
        self.map_err(|errno| Fault {
            step,
            item: item as u16,
            errno: errno as i32,
        })
    }
}

/// The child's end of the conversation.
pub struct Report {
    /// The creating runtime, and after the gate the starting one.
    peer: OwnedFd,
}

impl Report {
    pub fn new(peer: OwnedFd) -> Self {
        Self { peer }
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.peer.as_fd()
    }

    /// Says that `step` is reached and waits for the parent's answer.
    pub fn reached(&self, step: Step, item: u16) -> Result<(), Fault> {
        let sent = self.send(Frame {
            kind: Kind::Reached,
            step,
            item,
            errno: 0,
        });
        sent.at(step, 0)?;
        self.wait_for_go(step)
    }

    /// Says that `step` is reached with a value of its own, and goes on.
    pub fn tell(&self, step: Step, item: usize, value: i32) -> Result<(), Fault> {
        let frame = Frame {
            kind: Kind::Reached,
            step,
            item: item as u16,
            errno: value,
        };
        // By write(2), see `identity::hand_over_listener`.
        say(|| nix::unistd::write(&self.peer, &frame.to_bytes())).at(step, item)
    }

    /// Waits for [`Kind::Go`]. If the parent is gone, so is the child.
    pub fn wait_for_go(&self, step: Step) -> Result<(), Fault> {
        let mut bytes = [0; Frame::SIZE];
        loop {
            match recv(self.peer.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                Ok(0) => clone::exit_now(1),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).at(step, 0),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Tells why this process ends. Nobody may be listening any more.
    pub fn fault(&self, fault: Fault) {
        let Fault { step, item, errno } = fault;
        let _ = self.send(Frame {
            kind: Kind::Fault,
            step,
            item,
            errno,
        });
    }

    fn send(&self, frame: Frame) -> Result<(), Errno> {
        let (peer, bytes) = (self.peer.as_raw_fd(), frame.to_bytes());
        say(|| send(peer, &bytes, MsgFlags::MSG_NOSIGNAL))
    }

    /// A created container waits here until `start` connects; that connection gets the next reports.
    ///
    /// Without a gate (`run`) the runtime that created the container is also the one that starts it.
    pub fn wait_at_gate(&mut self, fds: &mut Fds) -> Result<(), Fault> {
        use nix::sys::socket::{SockFlag, accept4};
        let Some(gate) = fds.gate.take() else {
            return Ok(());
        };
        loop {
            match accept4(gate.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Ok(peer) => {
                    self.peer = crate::sys::fd::take(peer);
                    return Ok(());
                }
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(errno) => return Err(errno).at(Step::Gate, 0),
            }
        }
    }
}

/// Says something. A parent that is not told waits, so failure is to be the end of this process.
fn say(once: impl Fn() -> Result<usize, Errno>) -> Result<(), Errno> {
    loop {
        match once() {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}
