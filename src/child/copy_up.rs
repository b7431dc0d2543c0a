//! `tmpcopyup`: fills a new tmpfs with what it is about to cover.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::sys::time::TimeSpec;

use crate::sys::{Errno, path};

/// How deep a tree may be; each level takes one block of the stack.
const MAX_DEPTH: u32 = 64;

/// Copies what is below the directory `from` into the directory `to`, which gets its mode and owner.
///
/// Both are descriptors, and nothing is followed: links are copied as links.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let dir = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let from = nix::fcntl::openat(from, c".", dir, Mode::empty())?;
    let to = nix::fcntl::openat(to, c".", dir, Mode::empty())?;
    directory(from.as_fd(), to.as_fd(), 0)
}

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> Result<(), Errno> {
    if depth == MAX_DEPTH {
        return Err(Errno::ENAMETOOLONG);
    }
    path::each_entry(from, &mut |name| entry(from, to, name, depth))?;
    attributes(to, &nix::sys::stat::fstat(from)?)
}

fn entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: u32) -> Result<(), Errno> {
    let stat = nix::sys::stat::fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    let mode = Mode::from_bits_truncate(stat.st_mode);
    let nofollow = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match kind {
        SFlag::S_IFDIR => {
            let dir = nofollow | OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            nix::sys::stat::mkdirat(to, name, mode)?;
            let from = nix::fcntl::openat(from, name, dir, Mode::empty())?;
            let to = nix::fcntl::openat(to, name, dir, Mode::empty())?;
            directory(from.as_fd(), to.as_fd(), depth + 1)
        }
        SFlag::S_IFREG => {
            let read = nofollow | OFlag::O_RDONLY | OFlag::O_NONBLOCK;
            let write = nofollow | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
            let from = nix::fcntl::openat(from, name, read, Mode::empty())?;
            let to = nix::fcntl::openat(to, name, write, mode)?;
            contents(&from, &to)?;
            attributes(to.as_fd(), &stat)
        }
        SFlag::S_IFLNK => {
            let look = nofollow | OFlag::O_PATH;
            let link = nix::fcntl::openat(from, name, look, Mode::empty())?;
            let mut buffer = [0; libc::PATH_MAX as usize];
            let mut text = path::Text::new();
            let target = text.set(&[path::readlink(link.as_fd(), &mut buffer)?])?;
            nix::unistd::symlinkat(target, to, name)?;
            let link = nix::fcntl::openat(to, name, look, Mode::empty())?;
            path::chown(link.as_fd(), stat.st_uid, stat.st_gid)
        }
        // Sockets belong to a running server; devices and FIFOs are made anew.
        SFlag::S_IFSOCK => Ok(()),
        kind => nix::sys::stat::mknodat(to, name, kind, mode, stat.st_rdev),
    }
}

fn contents(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let mut block = [0; 16 << 10];
    loop {
        let count = nix::unistd::read(from, &mut block)?;
        if count == 0 {
            return Ok(());
        }
        let mut rest = &block[..count];
        while !rest.is_empty() {
            let written = nix::unistd::write(to, rest)?;
            rest = &rest[written..];
        }
    }
}

/// Owner before mode, since a change of owner takes away setuid; times last.
fn attributes(to: BorrowedFd<'_>, stat: &FileStat) -> Result<(), Errno> {
    let owner = (
        nix::unistd::Uid::from_raw(stat.st_uid),
        nix::unistd::Gid::from_raw(stat.st_gid),
    );
    nix::unistd::fchown(to, Some(owner.0), Some(owner.1))?;
    nix::sys::stat::fchmod(to, Mode::from_bits_truncate(stat.st_mode))?;
    let times = (
        TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
        TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
    );
    nix::sys::stat::futimens(to, &times.0, &times.1)
}
