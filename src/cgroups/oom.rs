//! Notices of the kernel that a container has run out of memory.
//!
//! cgroups-rs has a watch for v1, but it starts a thread that panics when its receiver is gone, and
//! what it calls the one for v2 opens v1's file. Here a watch is a descriptor to poll.
//! Sources: cgroup-v1/memory.rst "OOM Control"; cgroup-v2.rst "memory.events".

use std::fs::File;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::dir::{Dir, value_of};
use crate::error::{Error, Result};

const CONTROL: &str = "memory.oom_control";
const EVENTS: &str = "memory.events";

/// See the module text.
#[derive(Debug)]
pub struct OomWatch {
    leaf: Dir,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// v1 counts into an eventfd, and once more when the cgroup is removed.
    Eventfd(EventFd),
    /// v2 wakes the pollers of the file; the kills that were told already.
    Events(File, u64),
}

impl OomWatch {
    /// Watches a cgroup of v1.
    pub fn v1(leaf: &Dir) -> Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let eventfd = EventFd::from_flags(flags)
            .map_err(|errno| Error::host("eventfd", leaf.path(), errno))?;
        let control = leaf
            .file(CONTROL)
            .map_err(|errno| Error::host("open", leaf.join(CONTROL), errno))?;
        let number = |fd: &dyn AsFd| std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd());
        let value = format!("{} {}", number(&eventfd), number(&control));
        leaf.set("cgroup.event_control", &value)?;
        Ok(Self {
            leaf: leaf.again()?,
            source: Source::Eventfd(eventfd),
        })
    }

    /// Watches a cgroup of v2.
    pub fn v2(leaf: &Dir) -> Result<Self> {
        let file = leaf
            .file(EVENTS)
            .map_err(|errno| Error::host("open", leaf.join(EVENTS), errno))?;
        let told = kills(leaf, EVENTS)?.unwrap_or(0);
        Ok(Self {
            leaf: leaf.again()?,
            source: Source::Events(file, told),
        })
    }

    /// What to poll for; when it is ready, ask [`OomWatch::new_events`].
    pub fn poll_fd(&self) -> PollFd<'_> {
        match &self.source {
            Source::Eventfd(eventfd) => PollFd::new(eventfd.as_fd(), PollFlags::POLLIN),
            Source::Events(file, _) => PollFd::new(file.as_fd(), PollFlags::POLLPRI),
        }
    }

    /// How often the container ran out of memory since the last call; `None` if its cgroup is gone.
    pub fn new_events(&mut self) -> Result<Option<u64>> {
        match &mut self.source {
            Source::Eventfd(eventfd) => {
                let count = match eventfd.read() {
                    Ok(count) => count,
                    Err(Errno::EAGAIN) => 0,
                    Err(errno) => return Err(Error::host("read", "eventfd", errno)),
                };
                Ok(kills(&self.leaf, CONTROL)?.map(|_| count))
            }
            Source::Events(file, told) => {
                // A read is what makes the next change wake the poller again.
                let mut text = [0; 512];
                match nix::sys::uio::pread(&*file, &mut text, 0) {
                    Ok(_) => {}
                    Err(Errno::ENODEV) => return Ok(None),
                    Err(errno) => return Err(Error::host("read", self.leaf.join(EVENTS), errno)),
                }
                Ok(kills(&self.leaf, EVENTS)?.map(|now| {
                    let new = now.saturating_sub(*told);
                    *told = now;
                    new
                }))
            }
        }
    }
}

/// How many processes of the cgroup the OOM killer has killed, from v1's file; `None` if there is
/// no such cgroup.
pub fn kills_v1(leaf: &Dir) -> Result<Option<u64>> {
    kills(leaf, CONTROL)
}

/// The same from v2's file.
pub fn kills_v2(leaf: &Dir) -> Result<Option<u64>> {
    kills(leaf, EVENTS)
}

fn kills(leaf: &Dir, file: &str) -> Result<Option<u64>> {
    match leaf.read(file) {
        // v1 counts since Linux 4.13.
        Ok(text) => Ok(Some(
            value_of(&text, "oom_kill")
                .and_then(|n| n.parse().ok())
                .unwrap_or(0),
        )),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
        Err(errno) => Err(Error::host("read", leaf.join(file), errno)),
    }
}
