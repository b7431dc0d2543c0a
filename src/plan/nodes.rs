//! Device nodes for a container in a user namespace, where mknod(2) is not allowed: the host's own, or
//! one that is made for it.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, mknodat};

use super::fds::copy_of;
use super::idmap;
use super::rootfs::Device;
use super::text::shown;
use crate::error::{Error, Result};
use crate::sys::mount::{Reach, clone_tree, fsmount, fsopen, move_mount};
use crate::sys::{Errno, path};

/// The maps of the container's user namespace: the text of its `uid_map` and of its `gid_map`.
pub type Maps = (String, String);

/// For each device a detached mount of its node; none for a FIFO, and where the caller may neither copy
/// nor make one.
///
/// The host's node serves if it is the same device for the same people. Otherwise, or if the host has
/// none at that path, one is made on a file system of its own, if `may_mount`: Linux before 6.15 copies
/// from attached mounts only, so that file system is attached above the root of the caller's mount
/// namespace, which must be one for this moment only.
///
/// # Errors
/// For a node that is neither there nor can be made.
pub fn open(
    devices: &[Device],
    may_mount: bool,
    maps: impl Fn() -> Result<Maps>,
) -> Result<Vec<Option<OwnedFd>>> {
    let mut workshop = None;
    let mut nodes = Vec::with_capacity(devices.len());
    for device in devices {
        let make = |device: &Device| match may_mount {
            true => make(device, &maps()?, &mut workshop),
            false => Err(not_made(device, Errno::EPERM)),
        };
        nodes.push(match device.kind {
            libc::S_IFIFO => None,
            _ => node(device, make)?,
        });
    }
    Ok(nodes)
}

fn node(device: &Device, make: impl FnOnce(&Device) -> Result<OwnedFd>) -> Result<Option<OwnedFd>> {
    let failed = |call, errno| {
        let at = format!("device {} of the host", shown(&device.path));
        Error::host(call, at, errno)
    };
    let found = match copy_of(&device.path, Reach::One) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return make(device).map(Some),
        Err(errno) => return Err(failed("open", errno)),
        Ok(None) => return Ok(None),
        Ok(Some(found)) => found,
    };
    let stat = nix::sys::stat::fstat(&found).map_err(|errno| failed("stat", errno))?;
    let is_same = (stat.st_mode & libc::S_IFMT, stat.st_rdev) == (device.kind, device.number);
    if is_same && stat.st_mode & 0o7777 == device.mode && is_for_everybody(device) {
        return Ok(Some(found));
    }
    match make(device) {
        // Without rights over devices, or for an owner outside the namespace: whom the host lets.
        Err(_) if is_same => Ok(Some(found)),
        made => made.map(Some),
    }
}

/// Whether the owner is of no consequence.
fn is_for_everybody(device: &Device) -> bool {
    let class = |shift: u32| device.mode >> shift & 7;
    class(6) == class(0) && class(3) == class(0)
}

/// Makes the node that config.json asks for, for the container's ids in `maps`.
fn make(device: &Device, maps: &Maps, workshop: &mut Option<Workshop>) -> Result<OwnedFd> {
    let outside = |map: &str, id: u32, what: &str| {
        idmap::outside(map, id).ok_or_else(|| {
            let path = shown(&device.path);
            let why = format!("the {what} {id} of {path} is not in the container's user namespace");
            Error::spec(".linux.devices", why)
        })
    };
    let uid = outside(&maps.0, device.uid, "user")?;
    let gid = outside(&maps.1, device.gid, "group")?;
    let made = match workshop {
        Some(workshop) => workshop.make(device, uid, gid),
        None => Workshop::open().and_then(|new| workshop.insert(new).make(device, uid, gid)),
    };
    made.map_err(|errno| not_made(device, errno))
}

fn not_made(device: &Device, errno: Errno) -> Error {
    let path = shown(&device.path);
    let at = format!("device {path}, for which the host has no such node");
    Error::host("make", at, errno)
}

/// A file system on which nodes are made, each with its own number as its name.
struct Workshop {
    dir: OwnedFd,
    made: u32,
}

impl Workshop {
    fn open() -> Result<Self, Errno> {
        let attrs = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
        let dir = fsmount(fsopen(c"tmpfs")?.as_fd(), attrs)?;
        let root = nix::fcntl::open(c"/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        move_mount(dir.as_fd(), root.as_fd())?;
        Ok(Self { dir, made: 0 })
    }

    fn make(&mut self, device: &Device, uid: u32, gid: u32) -> Result<OwnedFd, Errno> {
        let name = CString::new(self.made.to_string()).map_err(|_| Errno::EINVAL)?;
        self.made += 1;
        let kind = SFlag::from_bits_truncate(device.kind);
        mknodat(&self.dir, &*name, kind, Mode::empty(), device.number)?;
        let mode = Mode::from_bits_truncate(device.mode);
        // Not by mknod, which the umask would take from.
        fchmodat(&self.dir, &*name, mode, FchmodatFlags::FollowSymlink)?;
        let node = clone_tree(self.dir.as_fd(), &name, Reach::One)?;
        path::chown(node.as_fd(), uid, gid)?;
        Ok(node)
    }
}
