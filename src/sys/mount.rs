//! Mounts as objects: made detached, given their flags, and only then attached by descriptor.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use libc::{c_int, c_uint};

use super::{Result, check, check_fd};

/// Changes to a mount's attributes: `MOUNT_ATTR_*` bits to set and to clear, `MS_*` propagation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attr {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear; a change of the atime mode must clear all of `MOUNT_ATTR__ATIME`.
    pub clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0 for no change.
    pub propagation: u64,
}

impl Attr {
    /// Whether there is nothing to change.
    pub const fn is_empty(self) -> bool {
        self.set == 0 && self.clear == 0 && self.propagation == 0
    }
}

/// Whether an operation takes in the mounts below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This mount alone.
    One,
    /// This mount and all below it.
    Tree,
}

/// Opens a context in which a new file system of type `fs` is configured. Man page: fsopen(2), Linux 5.2.
///
/// # Errors
/// `ENODEV` if the kernel does not have that file system.
pub fn fsopen(fs: &CStr) -> Result<OwnedFd> {
    // SAFETY: `fs` is a C string that outlives the call.
    check_fd(unsafe { libc::syscall(libc::SYS_fsopen, fs.as_ptr(), libc::FSOPEN_CLOEXEC) })
}

/// Sets a parameter of a file system being configured: a flag without, a string with a value.
///
/// # Errors
/// `EINVAL` if the file system does not know the parameter or the value is longer than 255 bytes.
pub fn fsconfig_set(context: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> Result<()> {
    let command = match value {
        Some(_) => libc::FSCONFIG_SET_STRING,
        None => libc::FSCONFIG_SET_FLAG,
    } as c_uint;
    let value = value.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: `key` and `value` are C strings (or null for a flag) that outlive the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            command,
            key.as_ptr(),
            value,
            0,
        )
    };
    check(ret).map(drop)
}

/// Makes the file system configured in `context` and a detached mount of it with `attrs`.
///
/// # Errors
/// Those of fsconfig(2) `FSCONFIG_CMD_CREATE` and fsmount(2), Linux 5.2.
pub fn fsmount(context: BorrowedFd<'_>, attrs: u64) -> Result<OwnedFd> {
    let (fd, null) = (context.as_raw_fd(), ptr::null::<libc::c_char>());
    let create = libc::FSCONFIG_CMD_CREATE as c_uint;
    // SAFETY: the create command takes no key and no value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fd, create, null, null, 0) })?;
    // SAFETY: a descriptor and flags; no memory is passed.
    check_fd(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            fd,
            libc::FSMOUNT_CLOEXEC,
            attrs as c_uint,
        )
    })
}

/// Makes a detached copy of the mount at `path` below `dir` (of `dir` itself if `path` is empty).
///
/// Man page: open_tree(2), Linux 5.2. `EINVAL` often means that the mount is not in the caller's
/// mount namespace, is unbindable, or (non-recursive, in a user namespace) covers locked mounts.
pub fn clone_tree(dir: BorrowedFd<'_>, path: &CStr, reach: Reach) -> Result<OwnedFd> {
    let recursive = if reach == Reach::Tree {
        libc::AT_RECURSIVE as c_uint
    } else {
        0
    };
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as c_uint | recursive;
    // SAFETY: `path` is a C string that outlives the call.
    check_fd(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })
}

/// Attaches the detached mount `mount` at `target`.
///
/// Both ends are descriptors, so nothing the container controls is resolved a second time.
/// Man page: move_mount(2), Linux 5.2. `EINVAL` here usually means one is a directory and the other is not.
pub fn move_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    const BOTH_ARE_FDS: c_uint = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    let (from, to) = (mount.as_raw_fd(), target.as_raw_fd());
    // SAFETY: both paths are static strings, both fds are borrowed for the whole call, and the
    // kernel writes none of our memory.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from,
            c"".as_ptr(),
            to,
            c"".as_ptr(),
            BOTH_ARE_FDS,
        )
    };
    check(ret).map(drop)
}

/// Changes the attributes of the mount `mount`, and with [`Reach::Tree`] of all mounts below it.
///
/// Man page: mount_setattr(2), Linux 5.12; `ENOSYS` before.
pub fn set_attr(mount: BorrowedFd<'_>, attr: Attr, reach: Reach) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: attr.set,
        attr_clr: attr.clear,
        propagation: attr.propagation,
        userns_fd: 0,
    };
    mount_setattr(mount, &attr, reach)
}

/// Maps the owners of the files of a detached mount through the user namespace `userns`.
///
/// Man page: mount_setattr(2), "ID-mapped mounts", Linux 5.12.
///
/// # Errors
/// `EINVAL` if the file system does not support it or the mount is attached already.
pub fn set_idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>, reach: Reach) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: userns.as_raw_fd() as u64,
    };
    mount_setattr(mount, &attr, reach)
}

fn mount_setattr(mount: BorrowedFd<'_>, attr: &libc::mount_attr, reach: Reach) -> Result<()> {
    let recursive = if reach == Reach::Tree {
        libc::AT_RECURSIVE
    } else {
        0
    };
    let flags = (libc::AT_EMPTY_PATH | recursive) as c_uint;
    let (fd, size) = (mount.as_raw_fd(), size_of::<libc::mount_attr>());
    // SAFETY: `attr` is a valid struct of the size passed, read only; the path is a static string.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            flags,
            ptr::from_ref(attr),
            size,
        )
    };
    check(ret).map(drop)
}

/// Mounts a file system by mount(2) on the current directory, which the caller has pinned.
///
/// For what fsconfig(2) cannot carry: values over 255 bytes. The target is never a path.
pub fn mount_here(source: &CStr, fs: &CStr, flags: u64, data: &CStr) -> Result<()> {
    nix::mount::mount(
        Some(source),
        c".",
        Some(fs),
        nix::mount::MsFlags::from_bits_retain(flags as _),
        Some(data),
    )
}

/// Changes the per-mount flags of an attached mount through `/proc/self/fd`, where the kernel has no
/// mount_setattr(2). `proc` must be the host's procfs, which the container cannot touch.
pub fn remount_bind(mount: BorrowedFd<'_>, ms_flags: u64) -> Result<()> {
    let mut path = [0u8; 32];
    let path = super::path::proc_self_fd(&mut path, mount);
    let flags = libc::MS_REMOUNT | libc::MS_BIND | ms_flags as libc::c_ulong;
    nix::mount::mount(
        None::<&CStr>,
        path,
        None::<&CStr>,
        nix::mount::MsFlags::from_bits_retain(flags as _),
        None::<&CStr>,
    )
}

/// Changes the propagation of a mount (`MS_SHARED`…, plus `MS_REC`) given by path, by mount(2).
///
/// Used for `/` of a mount namespace that no container code has entered yet, and through
/// `/proc/self/fd` where the kernel has no mount_setattr(2).
pub fn set_propagation(path: &CStr, flags: u64) -> Result<()> {
    nix::mount::mount(
        None::<&CStr>,
        path,
        None::<&CStr>,
        nix::mount::MsFlags::from_bits_retain(flags as _),
        None::<&CStr>,
    )
}

/// Makes the current directory, a mount, the root; the old root is left on top of it.
///
/// Man page: pivot_root(2), "pivot_root(".", ".")".
pub fn pivot_here() -> Result<()> {
    nix::unistd::pivot_root(c".", c".")
}

/// Detaches the mount tree at `path` of the host at once. Man page: umount(2), `MNT_DETACH`.
pub fn detach(path: &CStr) -> Result<()> {
    nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH)
}

/// Detaches the mount tree on top of the current directory at once. Man page: umount(2), `MNT_DETACH`.
pub fn detach_here() -> Result<()> {
    nix::mount::umount2(c".", nix::mount::MntFlags::MNT_DETACH)
}

/// Moves the mount of the current directory over `/` (for a root that cannot be pivoted, as on an
/// initramfs). Man page: mount(2), `MS_MOVE`.
pub fn move_over_root() -> Result<()> {
    let none = None::<&CStr>;
    nix::mount::mount(Some(c"."), c"/", none, nix::mount::MsFlags::MS_MOVE, none)
}

/// The attributes of the mount behind `fd`, as `MS_*` flags of statfs(2).
pub fn mount_flags(fd: BorrowedFd<'_>) -> Result<u64> {
    Ok(nix::sys::statvfs::fstatvfs(fd.as_fd())?.flags().bits())
}

/// The magic number of the file system behind `fd`. Man page: statfs(2).
pub fn fs_magic(fd: BorrowedFd<'_>) -> Result<i64> {
    // SAFETY: statfs is plain old data for which all zeroes is valid.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is ours and large enough; the descriptor is open for the whole call.
    let ret: c_int = unsafe { libc::fstatfs(fd.as_raw_fd(), &raw mut stat) };
    check(ret.into())?;
    #[allow(
        clippy::unnecessary_cast,
        reason = "the field is c_uint on some architectures"
    )]
    Ok(stat.f_type as i64)
}
