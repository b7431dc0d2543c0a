//! Pseudo-terminals of a devpts that belongs to the container.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{Errno, Result, check, check_fd};

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// Makes `master`'s peer usable: unlocks it. Man page: unlockpt(3), `TIOCSPTLCK`.
pub fn unlock(master: BorrowedFd<'_>) -> Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: the ioctl reads one int, which outlives the call.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) }.into())
        .map(drop)
}

/// Opens the slave of `master` by descriptor, never by a path that the container can change.
///
/// Man page: `ioctl_tty(2)`, `TIOCGPTPEER`, Linux 4.13.
pub fn open_peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the ioctl takes flags by value and returns a new descriptor.
    check_fd(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())
}

/// The slave's number N in `/dev/pts/N`.
pub fn peer_number(master: BorrowedFd<'_>) -> Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: the ioctl writes one unsigned int, which outlives the call.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) }.into())?;
    Ok(number)
}

/// Makes `tty` the controlling terminal of the caller's session, which must have none.
pub fn make_controlling(tty: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the ioctl takes an integer by value: 0, do not steal.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Leaves newlines as they are, without a carriage return before them. Man page: termios(3), `ONLCR`.
pub fn keep_newlines(tty: BorrowedFd<'_>) -> Result<()> {
    use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};
    let mut settings = tcgetattr(tty)?;
    settings.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(tty, SetArg::TCSANOW, &settings)
}

/// Sets the window size.
pub fn set_size(tty: BorrowedFd<'_>, size: Size) -> Result<()> {
    let size = libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the ioctl reads one winsize, which outlives the call.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into())
        .map(drop)
}

/// The window size.
pub fn size(tty: BorrowedFd<'_>) -> Result<Size> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the ioctl writes one winsize, which outlives the call.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) }.into())?;
    Ok(Size {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// Makes `fd` the standard stream number `stream` (0, 1 or 2). Man page: dup3(2).
pub fn make_stdio(fd: BorrowedFd<'_>, stream: i32) -> Result<()> {
    if fd.as_raw_fd() == stream {
        return super::fd::keep_on_exec(stream);
    }
    // SAFETY: standard streams have no owner in keel that would close them.
    let ret = unsafe { libc::dup3(fd.as_raw_fd(), stream, 0) };
    match check(ret.into()) {
        Err(Errno::EBUSY) => make_stdio(fd, stream),
        other => other.map(drop),
    }
}
