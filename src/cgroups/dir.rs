//! One cgroup directory held by descriptor: everything inside it is named relative to that.
//!
//! The path is kept for error texts alone. It is resolved once, beneath its mount and without
//! symbolic links, so a tree that somebody rearranges meanwhile cannot redirect a write
//! (CVE-2025-47291 and its kin).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Error, Result};
use crate::sys::fd::read_kernel_text;

/// Directories are opened for reading so that their children can be listed through the same fd.
const DIRECTORY: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_RDONLY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// `rwxr-xr-x`, as every cgroup tool makes them.
const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o755);

/// See the module text.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: String,
}

impl Dir {
    /// Opens the mount point `mount`; `None` if no cgroup file system of the type `magic` is mounted
    /// there.
    pub fn mount(mount: &str, magic: FsType) -> Result<Option<Self>> {
        let flags = DIRECTORY.difference(OFlag::O_NOFOLLOW);
        let fd = match openat(AT_FDCWD, mount, flags, Mode::empty()) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            other => other.map_err(|errno| Error::host("open", mount, errno))?,
        };
        let found = fstatfs(&fd)
            .map_err(|errno| Error::host("statfs", mount, errno))?
            .filesystem_type();
        Ok((found == magic).then(|| Self {
            fd,
            path: mount.trim_end_matches('/').to_owned(),
        }))
    }

    /// Opens `below`, a path without `..`, without leaving this directory.
    pub fn open(&self, below: &str) -> Result<Self, Errno> {
        let how = OpenHow::new().flags(DIRECTORY).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
        let fd = match openat2(&self.fd, below, how) {
            // Before Linux 5.6, or hidden by an older seccomp profile around keel itself.
            Err(Errno::ENOSYS | Errno::EPERM) => self.walk(below)?,
            other => other?,
        };
        Ok(Self {
            fd,
            path: self.join(below),
        })
    }

    /// [`Dir::open`] for kernels without `openat2`: one component at a time, no symbolic links.
    fn walk(&self, below: &str) -> Result<OwnedFd, Errno> {
        let mut fd = self.fd.try_clone().map_err(|_| Errno::EMFILE)?;
        for name in below.split('/') {
            fd = openat(&fd, name, DIRECTORY, Mode::empty())?;
        }
        Ok(fd)
    }

    /// Makes the cgroup `below`, whose parent must exist.
    pub fn mkdir(&self, below: &str) -> Result<(), Errno> {
        mkdirat(&self.fd, below, DIRECTORY_MODE)
    }

    /// Removes the empty cgroup `below`.
    pub fn rmdir(&self, below: &str) -> Result<(), Errno> {
        unlinkat(&self.fd, below, UnlinkatFlags::RemoveDir)
    }

    /// Writes `value` to `file` in one `write`: the kernel takes each write as one command.
    pub fn write(&self, file: &str, value: &str) -> Result<(), Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, file, flags, Mode::empty())?;
        loop {
            match nix::unistd::write(&fd, value.as_bytes()) {
                Err(Errno::EINTR) => {}
                other => return other.map(drop),
            }
        }
    }

    /// Writes several values to `file`, each in a `write` of its own.
    ///
    /// # Errors
    /// The value that is refused, and why; an empty one if the file cannot be opened.
    pub fn write_each<'v>(
        &self,
        file: &str,
        values: impl Iterator<Item = &'v str>,
    ) -> Result<(), (&'v str, Errno)> {
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, file, flags, Mode::empty()).map_err(|errno| ("", errno))?;
        for value in values {
            nix::unistd::write(&fd, value.as_bytes()).map_err(|errno| (value, errno))?;
        }
        Ok(())
    }

    /// [`Dir::write`], with the whole path and the value in the error.
    pub fn set(&self, file: &str, value: &str) -> Result<()> {
        self.write(file, value)
            .map_err(|errno| self.failed_write(file, value, errno))
    }

    /// The error of a refused write.
    pub fn failed_write(&self, file: &str, value: &str, errno: Errno) -> Error {
        Error::host(
            "write",
            format!("\"{}\" to {}", value.trim_end(), self.join(file)),
            errno,
        )
    }

    /// The whole of `file`.
    pub fn read(&self, file: &str) -> Result<String, Errno> {
        read_kernel_text(self.file(file)?)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    }

    /// [`Dir::read`], with the whole path in the error.
    pub fn get(&self, file: &str) -> Result<String> {
        self.read(file)
            .map_err(|errno| Error::host("read", self.join(file), errno))
    }

    /// Opens `file` for reading.
    pub fn file(&self, file: &str) -> Result<File, Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.fd, file, flags, Mode::empty()).map(File::from)
    }

    /// Opens `file` for writing.
    pub fn door(&self, file: &str) -> Result<OwnedFd> {
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.fd, file, flags, Mode::empty())
            .map_err(|errno| Error::host("open", self.join(file), errno))
    }

    /// The names of the cgroups directly below.
    pub fn children(&self) -> Result<Vec<String>, Errno> {
        let mut names = Vec::new();
        let mut dir = nix::dir::Dir::openat(&self.fd, ".", DIRECTORY, Mode::empty())?;
        for entry in dir.iter() {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type() == Some(nix::dir::Type::Directory) && name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The processes of this cgroup and of all below it; those that vanish meanwhile are skipped.
    pub fn processes(&self) -> Result<Vec<i32>, Errno> {
        let mut pids = self.own_processes()?;
        for name in self.children()? {
            match self.open(&name).and_then(|child| child.processes()) {
                Ok(more) => pids.extend(more),
                Err(Errno::ENOENT | Errno::ENODEV) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(pids)
    }

    fn own_processes(&self) -> Result<Vec<i32>, Errno> {
        let text = match self.read("cgroup.procs") {
            // A threaded cgroup lists threads only: cgroup-v2.rst "Threads".
            Err(Errno::EOPNOTSUPP) => self.read("cgroup.threads")?,
            other => other?,
        };
        Ok(text.lines().filter_map(|pid| pid.parse().ok()).collect())
    }

    /// Waits until `key` of `cgroup.events` (v2) has the value `wanted`, at most until `deadline`.
    ///
    /// The kernel wakes pollers of that file with `POLLPRI` at every change: cgroup-v2.rst
    /// "cgroup.events". `Ok(false)` means that the time ran out.
    pub fn wait_event(&self, key: &str, wanted: &str, deadline: Instant) -> Result<bool, Errno> {
        let file = self.file("cgroup.events")?;
        loop {
            let mut text = [0; 256];
            let length = nix::sys::uio::pread(&file, &mut text, 0)?;
            let text = std::str::from_utf8(&text[..length]).unwrap_or_default();
            if value_of(text, key) == Some(wanted) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
            match poll(&mut fds, poll_timeout(left)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Its inode, which the kernel gives to no other cgroup of the hierarchy until it is rebooted.
    pub fn inode(&self) -> Result<u64, Errno> {
        fstat(&self.fd).map(|stat| stat.st_ino)
    }

    /// The path for error texts, with `below` appended.
    pub fn join(&self, below: &str) -> String {
        format!("{}/{below}", self.path)
    }

    /// The path for error texts.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same directory, held a second time.
    pub fn again(&self) -> Result<Self> {
        Ok(Self {
            fd: self.fd()?,
            path: self.path.clone(),
        })
    }

    /// A second descriptor of the same directory.
    pub fn fd(&self) -> Result<OwnedFd> {
        self.fd
            .try_clone()
            .map_err(|errno| Error::host("dup", &self.path, errno))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The value behind `key` in lines of the form `key value`.
pub fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find_map(|(name, value)| (name == key).then_some(value))
}

/// Rounded up to a whole millisecond, so that the last wait does not become a busy loop.
fn poll_timeout(left: Duration) -> PollTimeout {
    PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_whole_key() {
        let text = "populated 0\nfrozen 1\n";
        assert_eq!(value_of(text, "frozen"), Some("1"));
        assert_eq!(value_of(text, "froze"), None);
    }

    #[test]
    fn a_directory_that_is_no_cgroup_mount_is_none() {
        for path in ["/proc", "/proc/none", "/proc/version/none"] {
            let found = Dir::mount(path, nix::sys::statfs::CGROUP2_SUPER_MAGIC);
            assert!(found.unwrap().is_none(), "{path}");
        }
    }
}
