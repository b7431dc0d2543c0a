//! A terminal from the container's own devpts.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::identity::{is_char_device, is_on};
use super::report::{At, Fault};
use crate::plan::fds::Fds;
use crate::plan::{Plan, Step};
use crate::sys::mount::Reach;
use crate::sys::path::{Make, Text};
use crate::sys::{Errno, fd, mount, path, tty};

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Makes a terminal, binds it on `/dev/console`, sends its master away and takes its slave as
/// standard streams.
pub fn attach(plan: &Plan, fds: &Fds, root: BorrowedFd<'_>) -> Result<(), Fault> {
    let Some(size) = plan.process.terminal else {
        return Ok(());
    };
    let (master, slave) = open(root, size)?;
    bind_console(slave.as_fd(), root).at(Step::Console, 0)?;
    hand_out(fds, master, slave)
}

/// [`attach`] for a process that joins a container: `/dev/console` is the first process's.
pub fn attach_inside(plan: &Plan, fds: &Fds) -> Result<(), Fault> {
    let Some(size) = plan.process.terminal else {
        return Ok(());
    };
    let dir = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(c"/", dir, Mode::empty()).at(Step::Console, 0)?;
    let (master, slave) = open(root.as_fd(), size)?;
    hand_out(fds, master, slave)
}

/// A new terminal of the devpts below `root`: master and slave.
fn open(root: BorrowedFd<'_>, size: tty::Size) -> Result<(OwnedFd, OwnedFd), Fault> {
    let at = |result: Result<(), Errno>| result.at(Step::Console, 0);
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    let master = path::open_plain(root, c"/dev/pts/ptmx", flags).at(Step::Console, 0)?;
    if !is_char_device(master.as_fd(), 5, 2) || !is_on(master.as_fd(), DEVPTS_MAGIC) {
        at(Err(Errno::ENXIO))?;
    }
    at(tty::unlock(master.as_fd()))?;
    // By ioctl, never by the path that the container could have replaced (CVE-2025-52565).
    let slave = tty::open_peer(master.as_fd()).at(Step::Console, 0)?;
    if size != tty::Size::default() {
        at(tty::set_size(master.as_fd(), size))?;
    }
    Ok((master, slave))
}

/// Makes the terminal that [`attach`] has put on the standard streams the controlling one of this
/// process, a session leader.
pub fn control(plan: &Plan) -> Result<(), Fault> {
    match plan.process.terminal {
        Some(_) => tty::make_controlling(fd::borrow(0)).at(Step::Console, 0),
        None => Ok(()),
    }
}

/// Sends the master away and makes the slave the standard streams.
fn hand_out(fds: &Fds, master: OwnedFd, slave: OwnedFd) -> Result<(), Fault> {
    let at = |result: Result<(), Errno>| result.at(Step::Console, 0);
    let mut digits = [0; 20];
    let number = tty::peer_number(master.as_fd()).at(Step::Console, 0)?;
    let mut name = Text::new();
    let name = name.set(&[b"/dev/pts/", path::decimal(&mut digits, number.into())]);
    let name = name.at(Step::Console, 0)?;
    if fds.relayed {
        // As runc: programs that read the output of `run` are used to it.
        at(tty::keep_newlines(slave.as_fd()))?;
    }
    if let Some(socket) = &fds.console {
        at(fd::send_fd(socket.as_fd(), name.to_bytes(), master.as_fd()))?;
    }
    for stream in 0..=2 {
        at(tty::make_stdio(slave.as_fd(), stream))?;
    }
    if slave.as_raw_fd() <= 2 {
        std::mem::forget(slave);
    }
    Ok(())
}

fn bind_console(slave: BorrowedFd<'_>, root: BorrowedFd<'_>) -> Result<(), Errno> {
    let dev = path::open_in_root(root, c"/dev", OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let target = path::make_child(dev.as_fd(), c"console", Make::File)?;
    let copy = mount::clone_tree(slave, c"", Reach::One)?;
    mount::move_mount(copy.as_fd(), target.as_fd())
}
