//! Builds the container's root file system and enters it. Every target is a descriptor.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY};
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{Mode, SFlag};

use super::identity::{is_char_device, is_on};
use super::kernel::PROC_MAGIC;
use super::report::{At, Fault, Report};
use crate::plan::fds::Fds;
use crate::plan::mounts::{Mount, What};
use crate::plan::namespaces::MOUNT;
use crate::plan::rootfs::{CORE_LINK, Device, LINKS};
use crate::plan::{Plan, Step};
use crate::sys::mount::{Attr, Reach};
use crate::sys::path::{Make, Text};
use crate::sys::{Errno, mount, path};

/// Takes the host's mounts out of propagation and attaches the root file system's copy.
///
/// Returns the root of the container-to-be, on which everything else is resolved.
pub fn enter_mount_namespace(plan: &Plan, fds: &Fds) -> Result<OwnedFd, Fault> {
    let at = |result: Result<OwnedFd, Errno>| result.at(Step::Rootfs, 0);
    let dir = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    if !plan.namespaces.has(MOUNT) {
        let place = at(nix::fcntl::open(plan.rootfs.as_c_str(), dir, Mode::empty()))?;
        if plan.mounts.is_empty() && !plan.readonly_root {
            return Ok(place);
        }
        // As in runc, on a mount of its own, by which all of them can be unmounted.
        let tree = at(mount::clone_tree(place.as_fd(), c"", Reach::Tree))?;
        mount::move_mount(tree.as_fd(), place.as_fd()).at(Step::Rootfs, 0)?;
        let private = propagation(libc::MS_PRIVATE);
        set_attr(tree.as_fd(), private, Reach::Tree).at(Step::Rootfs, 0)?;
        return Ok(tree);
    }
    let host = libc::MS_REC | plan.host_propagation;
    mount::set_propagation(c"/", host).at(Step::Propagation, 0)?;
    if plan.host_propagation == libc::MS_SHARED {
        // pivot_root(2) refuses a shared parent; what lies below stays shared.
        mount::set_propagation(c"/", libc::MS_PRIVATE).at(Step::Propagation, 0)?;
    }
    // Where a mapped root may not reach the directory, the root of all will do as mount point.
    let place = match nix::fcntl::open(plan.rootfs.as_c_str(), dir, Mode::empty()) {
        Err(Errno::EACCES) => at(nix::fcntl::open(c"/", dir, Mode::empty()))?,
        other => at(other)?,
    };
    let own;
    let tree = match &fds.rootfs {
        Some(tree) => tree.as_fd(),
        None => {
            own = at(mount::clone_tree(place.as_fd(), c"", Reach::Tree))?;
            own.as_fd()
        }
    };
    let below = match plan.host_propagation {
        libc::MS_SLAVE => libc::MS_SLAVE,
        _ => libc::MS_PRIVATE,
    };
    // With a shared host the mount that holds the directory may not be the parent of the new root,
    // which pivot_root(2) wants private; `/` is.
    let parent = match plan.host_propagation {
        libc::MS_SHARED => at(nix::fcntl::open(c"/", dir, Mode::empty()))?,
        _ => place,
    };
    mount::move_mount(tree, parent.as_fd()).at(Step::Rootfs, 0)?;
    set_attr(tree, propagation(below), Reach::Tree).at(Step::Rootfs, 0)?;
    if plan.root_propagation.is_none() {
        // As in runc since 1.2: what is mounted below the root follows the host, the root does not.
        set_attr(tree, propagation(libc::MS_PRIVATE), Reach::One).at(Step::Rootfs, 0)?;
    }
    at(tree.try_clone_to_owned().map_err(|_| Errno::EMFILE))
}

/// A change of propagation (`MS_*`) alone.
fn propagation(flag: u64) -> Attr {
    Attr {
        propagation: flag,
        ..Attr::default()
    }
}

/// Makes the mounts of the plan, in order.
pub fn mounts(
    plan: &Plan,
    fds: &mut Fds,
    root: BorrowedFd<'_>,
    report: &Report,
) -> Result<(), Fault> {
    for (index, entry) in plan.mounts.iter().enumerate() {
        let made = mount(plan, fds, root, Some(report), index)?;
        if entry.readonly_last
            && let Some(place) = fds.late.get_mut(index)
        {
            *place = made;
        }
    }
    Ok(())
}

/// Makes one mount of the plan. Returns it, unless it could only be made where it is.
pub fn mount(
    plan: &Plan,
    fds: &mut Fds,
    root: BorrowedFd<'_>,
    report: Option<&Report>,
    index: usize,
) -> Result<Option<OwnedFd>, Fault> {
    let Some(entry) = plan.mounts.get(index) else {
        return Ok(None);
    };
    let (made, target) = match &entry.what {
        What::New {
            joined: Some(data), ..
        } => {
            mount_classic(entry, data, root, index)?;
            return Ok(None);
        }
        What::New { fs, params, .. } => {
            let covered = inherits_mode(fs, params)
                .then(|| path::open_in_root(root, &entry.target, OFlag::O_PATH).ok())
                .flatten();
            let target = mount_point(entry, root, Make::Dir, index)?;
            let made = new_instance(entry, covered.as_ref().map(AsFd::as_fd), index)?;
            (made, target)
        }
        What::Bind { .. } => {
            let made = match fds.sources.get_mut(index).and_then(Option::take) {
                Some(made) => made,
                None => own_source(entry, root, report, index)?,
            };
            let kind = path::kind_of(made.as_fd()).at(Step::MountSource, index)?;
            let make = if kind == SFlag::S_IFDIR {
                Make::Dir
            } else {
                Make::File
            };
            (made, mount_point(entry, root, make, index)?)
        }
    };
    check_place(entry, made.as_fd(), target.as_fd(), index)?;
    if entry.copy_up {
        super::copy_up::copy(target.as_fd(), made.as_fd()).at(Step::CopyUp, index)?;
    }
    if let (What::New { fs, .. }, Some(label)) = (&entry.what, &plan.mount_label)
        && fs.as_c_str() == c"mqueue"
    {
        path::set_selinux_label(made.as_fd(), label).at(Step::MountOption, index)?;
    }
    attach(plan, entry, made.as_fd(), target.as_fd(), index)?;
    Ok(Some(made))
}

/// A detached copy of a source that the parent could not open.
fn own_source(
    entry: &Mount,
    root: BorrowedFd<'_>,
    report: Option<&Report>,
    index: usize,
) -> Result<OwnedFd, Fault> {
    let What::Bind {
        source,
        inside,
        reach,
        idmap,
    } = &entry.what
    else {
        return Err(Errno::EINVAL).at(Step::MountSource, index);
    };
    let Some(inside) = inside else {
        return mount::clone_tree(AT_FDCWD, source, *reach).at(Step::MountSource, index);
    };
    let found = path::open_in_root(root, inside, OFlag::O_PATH).at(Step::MountSource, index)?;
    let made = mount::clone_tree(found.as_fd(), c"", *reach).at(Step::MountSource, index)?;
    if idmap.is_some() {
        // Only the parent has rights over the file system.
        let report = report.ok_or(Errno::EPERM).at(Step::MountIdMap, index)?;
        report.tell(Step::MountIdMap, index, made.as_raw_fd())?;
        report.wait_for_go(Step::MountIdMap)?;
    }
    Ok(made)
}

/// Whether the file system gets the mode of the directory that it covers: a tmpfs without one.
fn inherits_mode(fs: &CStr, params: &[(CString, Option<CString>)]) -> bool {
    fs.to_bytes() == b"tmpfs" && !params.iter().any(|(key, _)| key.as_c_str() == c"mode")
}

/// A new, detached instance of a file system, with the mode of the directory `covered` if given.
fn new_instance(
    entry: &Mount,
    covered: Option<BorrowedFd<'_>>,
    index: usize,
) -> Result<OwnedFd, Fault> {
    let What::New {
        fs, source, params, ..
    } = &entry.what
    else {
        return Err(Errno::EINVAL).at(Step::MountCreate, index);
    };
    let context = mount::fsopen(fs).at(Step::MountCreate, index)?;
    mount::fsconfig_set(context.as_fd(), c"source", Some(source)).at(Step::MountOption, index)?;
    for (key, value) in params {
        let set = mount::fsconfig_set(context.as_fd(), key, value.as_deref());
        set.at(Step::MountOption, index)?;
    }
    if let Some(covered) = covered {
        inherit_mode(context.as_fd(), covered).at(Step::MountOption, index)?;
    }
    mount::fsmount(context.as_fd(), entry.attr.set).at(Step::MountCreate, index)
}

/// Sets the `mode` parameter to the permission bits of the directory `covered`.
fn inherit_mode(context: BorrowedFd<'_>, covered: BorrowedFd<'_>) -> Result<(), Errno> {
    let mode = nix::sys::stat::fstat(covered)?.st_mode;
    let digit = |shift: u32| b'0' + ((mode >> shift) & 7) as u8;
    let mut text = Text::new();
    let octal = text.set(&[&[digit(9), digit(6), digit(3), digit(0)]])?;
    mount::fsconfig_set(context, c"mode", Some(octal))
}

/// Sets what can be set while the mount is detached, attaches it, and then its propagation.
fn attach(
    plan: &Plan,
    entry: &Mount,
    made: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    index: usize,
) -> Result<(), Fault> {
    let is_bind = matches!(entry.what, What::Bind { .. });
    let mut tree = entry.attr_tree;
    if is_bind && plan.host_propagation != libc::MS_SHARED {
        tree.propagation = plan.host_propagation;
    }
    let early = set_detached(made, entry, tree).at(Step::MountAttr, index)?;
    let attached = mount::move_mount(made, target);
    attached
        .map_err(|errno| not_a_directory(errno, made, target))
        .at(Step::MountAttach, index)?;
    if !early {
        set_attr(made, tree, Reach::Tree).at(Step::MountAttr, index)?;
        set_own(entry, |attr| set_attr(made, attr, Reach::One)).at(Step::MountAttr, index)?;
    }
    for (flag, reach) in &entry.propagation {
        set_attr(made, propagation(*flag), *reach).at(Step::MountPropagation, index)?;
    }
    Ok(())
}

/// move_mount(2) says EINVAL of a file over a directory, and the reverse, where mount(2) and callers
/// that look for the words say ENOTDIR.
fn not_a_directory(errno: Errno, made: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Errno {
    let is_dir = |fd| path::kind_of(fd).map(|kind| kind == SFlag::S_IFDIR);
    match errno {
        Errno::EINVAL if is_dir(made) != is_dir(target) => Errno::ENOTDIR,
        other => other,
    }
}

/// `Ok(false)`: this kernel has no mount_setattr(2), so it must wait until the mount is attached.
fn set_detached(made: BorrowedFd<'_>, entry: &Mount, tree: Attr) -> Result<bool, Errno> {
    let set = |attr: Attr, reach| match attr.is_empty() {
        true => Ok(()),
        false => mount::set_attr(made, attr, reach),
    };
    match set(tree, Reach::Tree).and_then(|()| set_own(entry, |attr| set(attr, Reach::One))) {
        Err(Errno::ENOSYS) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Sets the attributes of a bind mount itself; a new file system has them already.
///
/// What config.json does not ask for is left out where it cannot be had: attributes of the host's
/// mounts are locked in a user namespace, and `nosymfollow` is Linux 5.10.
fn set_own(entry: &Mount, set: impl Fn(Attr) -> Result<(), Errno>) -> Result<(), Errno> {
    if !matches!(entry.what, What::Bind { .. }) {
        return Ok(());
    }
    let without = |bits: u64| Attr {
        clear: entry.attr.clear & !(entry.unasked & bits),
        ..entry.attr
    };
    match set(entry.attr) {
        Err(Errno::EPERM) => set(without(!MOUNT_ATTR_NOSYMFOLLOW)),
        Err(Errno::EINVAL) => set(without(MOUNT_ATTR_NOSYMFOLLOW)),
        other => other,
    }
}

/// Changes an attached mount, on kernels before 5.12 by remounting it.
///
/// Without mount_setattr(2) attributes can be changed for one mount only: a recursive change of
/// them is refused, since submounts would silently keep theirs.
fn set_attr(made: BorrowedFd<'_>, attr: Attr, reach: Reach) -> Result<(), Errno> {
    if attr.is_empty() {
        return Ok(());
    }
    match mount::set_attr(made, attr, reach) {
        Err(Errno::ENOSYS) => {}
        other => return other,
    }
    if attr.set | attr.clear != 0 {
        if reach == Reach::Tree {
            return Err(Errno::ENOSYS);
        }
        let flags = mount::mount_flags(made)?;
        mount::remount_bind(made, flags & !ms_flags(attr.clear) | ms_flags(attr.set))?;
    }
    if attr.propagation != 0 {
        let mut buffer = [0; 32];
        let rec = if reach == Reach::Tree {
            libc::MS_REC
        } else {
            0
        };
        mount::set_propagation(
            path::proc_self_fd(&mut buffer, made),
            attr.propagation | rec,
        )?;
    }
    Ok(())
}

/// `MOUNT_ATTR_*` as the `MS_*` flags of mount(2).
fn ms_flags(attr: u64) -> u64 {
    use libc::{MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC};
    use libc::{MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_STRICTATIME};
    /// From linux/mount.h, Linux 5.10.
    const MS_NOSYMFOLLOW: u64 = 256;
    let pairs = [
        (MOUNT_ATTR_RDONLY, libc::MS_RDONLY),
        (MOUNT_ATTR_NOSUID, libc::MS_NOSUID),
        (MOUNT_ATTR_NODEV, libc::MS_NODEV),
        (MOUNT_ATTR_NOEXEC, libc::MS_NOEXEC),
        (MOUNT_ATTR_NOATIME, libc::MS_NOATIME),
        (MOUNT_ATTR_STRICTATIME, libc::MS_STRICTATIME),
        (MOUNT_ATTR_NODIRATIME, libc::MS_NODIRATIME),
        (MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW),
    ];
    pairs
        .iter()
        .filter(|(bit, _)| attr & bit != 0)
        .fold(0, |flags, (_, flag)| flags | flag)
}

/// mount(2) for parameters that fsconfig(2) cannot carry: onto the directory we stand in.
fn mount_classic(
    entry: &Mount,
    data: &CStr,
    root: BorrowedFd<'_>,
    index: usize,
) -> Result<(), Fault> {
    let What::New { fs, source, .. } = &entry.what else {
        return Err(Errno::EINVAL).at(Step::MountCreate, index);
    };
    let target = mount_point(entry, root, Make::Dir, index)?;
    let here = path::open_in_root(target.as_fd(), c".", OFlag::O_DIRECTORY | OFlag::O_PATH);
    nix::unistd::fchdir(here.at(Step::MountTarget, index)?).at(Step::MountTarget, index)?;
    let flags = ms_flags(entry.attr.set);
    mount::mount_here(source, fs, flags, data).at(Step::MountCreate, index)?;
    nix::unistd::fchdir(root).at(Step::MountCreate, index)
}

/// The place of a mount, made if it is missing.
fn mount_point(
    entry: &Mount,
    root: BorrowedFd<'_>,
    make: Make,
    index: usize,
) -> Result<OwnedFd, Fault> {
    let made = || path::make_in_root(root, &entry.target, make).at(Step::MountTarget, index);
    if !is_kernel_fs(entry) {
        return made();
    }
    // A link in the image must not lead masks and sysctls to a decoy (CVE-2019-19921).
    let real = || path::open_plain(root, &entry.target, OFlag::O_PATH | OFlag::O_DIRECTORY);
    match real() {
        Err(Errno::ENOENT) => made().and_then(|_| real().at(Step::MountUnsafe, index)),
        real => real.at(Step::MountUnsafe, index),
    }
}

/// Whether this is a new proc or sysfs.
fn is_kernel_fs(entry: &Mount) -> bool {
    matches!(&entry.what, What::New { fs, .. } if matches!(fs.as_bytes(), b"proc" | b"sysfs"))
}

/// Files in procfs that lxcfs and the like may replace; nothing else may be mounted there.
const MAY_BE_REPLACED: &[&[u8]] = &[
    b"/proc/cpuinfo",
    b"/proc/diskstats",
    b"/proc/meminfo",
    b"/proc/stat",
    b"/proc/swaps",
    b"/proc/uptime",
    b"/proc/loadavg",
    b"/proc/slabinfo",
    b"/proc/sys/kernel/ns_last_pid",
    b"/proc/sys/crypto/fips_enabled",
];

/// Refuses mounts that would replace procfs, or parts of it, by something else (CVE-2023-27561).
fn check_place(
    entry: &Mount,
    made: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    index: usize,
) -> Result<(), Fault> {
    let is_proc_root = |fd| path::inode(fd) == Ok(PROC_ROOT_INODE);
    let over_proc = is_on(target, PROC_MAGIC);
    let at_proc = entry.target.as_bytes() == b"/proc";
    if at_proc || over_proc && is_proc_root(target) {
        return match is_on(made, PROC_MAGIC) && is_proc_root(made) {
            true => Ok(()),
            false => Err(Errno::EPERM).at(Step::MountUnsafe, index),
        };
    }
    if over_proc && !MAY_BE_REPLACED.contains(&entry.target.as_bytes()) {
        return Err(Errno::EPERM).at(Step::MountUnsafe, index);
    }
    Ok(())
}

/// `PROC_ROOT_INO` of linux/proc_fs.h.
const PROC_ROOT_INODE: u64 = 1;

/// Makes the device nodes, and the links in `/dev`.
pub fn devices(plan: &Plan, fds: &mut Fds, root: BorrowedFd<'_>) -> Result<(), Fault> {
    if plan.devices.is_empty() && !plan.dev_links {
        return Ok(());
    }
    let dev = path::make_in_root(root, c"/dev", Make::Dir).at(Step::DevDirectory, 0)?;
    for (index, device) in plan.devices.iter().enumerate() {
        let node = fds.nodes.get_mut(index).and_then(Option::take);
        make_device(device, node, root, dev.as_fd()).at(Step::Device, index)?;
    }
    if !plan.dev_links {
        return Ok(());
    }
    for (name, target) in LINKS {
        link(dev.as_fd(), name, target).at(Step::DevLink, 0)?;
    }
    let (name, target) = CORE_LINK;
    if nix::unistd::access(target, nix::unistd::AccessFlags::F_OK).is_ok() {
        link(dev.as_fd(), name, target).at(Step::DevLink, 0)?;
    }
    Ok(())
}

fn link(dev: BorrowedFd<'_>, name: &CStr, target: &CStr) -> Result<(), Errno> {
    match nix::unistd::symlinkat(target, dev, name) {
        // The container's ptmx must be that of its own devpts.
        Err(Errno::EEXIST) if name == c"ptmx" => {
            nix::unistd::unlinkat(dev, name, nix::unistd::UnlinkatFlags::NoRemoveDir)?;
            nix::unistd::symlinkat(target, dev, name)
        }
        Err(Errno::EEXIST) => Ok(()),
        other => other,
    }
}

/// Makes one node with mknod(2), or where that is not allowed binds the host's.
fn make_device(
    device: &Device,
    node: Option<OwnedFd>,
    root: BorrowedFd<'_>,
    dev: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let whole = device.path.as_bytes();
    let slash = whole.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let (parent, name) = (&whole[..slash], &whole[slash + 1..]);
    let mut text = Text::new();
    let other;
    let parent = match parent {
        b"/dev" => dev,
        parent => {
            other = path::make_in_root(root, text.set(&[parent, b"/"])?, Make::Dir)?;
            other.as_fd()
        }
    };
    let name = text.set(&[name])?;
    let flags = SFlag::from_bits_truncate(device.kind);
    let mode = Mode::from_bits_truncate(device.mode);
    let made = match node {
        Some(node) => return bind_node(node.as_fd(), parent, name),
        None => nix::sys::stat::mknodat(parent, name, flags, mode, device.number),
    };
    match made {
        Ok(()) => {}
        Err(Errno::EEXIST) => return check_node(device, parent, name),
        Err(Errno::EPERM) if device.kind != libc::S_IFIFO => {
            let node = mount::clone_tree(AT_FDCWD, &device.path, Reach::One)?;
            return bind_node(node.as_fd(), parent, name);
        }
        Err(errno) => return Err(errno),
    }
    if device.uid != 0 || device.gid != 0 {
        let node = open_node(parent, name)?;
        path::chown(node.as_fd(), device.uid, device.gid)?;
    }
    Ok(())
}

fn open_node(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::openat(parent, name, flags, Mode::empty())
}

fn bind_node(node: BorrowedFd<'_>, parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let target = path::make_child(parent, name, Make::File)?;
    mount::move_mount(node, target.as_fd())
}

/// What an image has in the place of a device must be that device (CVE-2026-41579).
fn check_node(device: &Device, parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let node = open_node(parent, name)?;
    let stat = nix::sys::stat::fstat(&node)?;
    let same_kind = stat.st_mode & SFlag::S_IFMT.bits() == device.kind;
    let same_number = device.kind == libc::S_IFIFO || stat.st_rdev == device.number;
    if same_kind && same_number {
        Ok(())
    } else {
        Err(Errno::EEXIST)
    }
}

/// Makes the plan's read-only paths so, with everything below them. What is missing is skipped.
pub fn readonly_paths(plan: &Plan, root: BorrowedFd<'_>) -> Result<(), Fault> {
    for (index, path) in plan.readonly_paths.iter().enumerate() {
        let at = |result: Result<(), Errno>| result.at(Step::ReadonlyPath, index);
        let Some(target) = open_if_there(root, path).at(Step::ReadonlyPath, index)? else {
            continue;
        };
        let copy =
            mount::clone_tree(target.as_fd(), c"", Reach::Tree).at(Step::ReadonlyPath, index)?;
        match mount::set_attr(copy.as_fd(), READONLY, Reach::Tree) {
            Err(Errno::ENOSYS) => {
                at(mount::move_mount(copy.as_fd(), target.as_fd()))?;
                at(set_attr(copy.as_fd(), READONLY, Reach::One))?;
            }
            other => {
                at(other)?;
                at(mount::move_mount(copy.as_fd(), target.as_fd()))?;
            }
        }
    }
    Ok(())
}

/// Hides the plan's masked paths: directories under one empty read-only tmpfs, the rest under the
/// host's `/dev/null`, which the container cannot have replaced (CVE-2025-31133).
pub fn masked_paths(plan: &Plan, root: BorrowedFd<'_>) -> Result<(), Fault> {
    let (mut null, mut empty) = (None::<OwnedFd>, None::<OwnedFd>);
    for (index, path) in plan.masked_paths.iter().enumerate() {
        let Some(target) = open_if_there(root, path).at(Step::MaskedPath, index)? else {
            continue;
        };
        let is_dir = path::kind_of(target.as_fd()) == Ok(SFlag::S_IFDIR);
        let result = if is_dir {
            cover(plan, &mut empty, target.as_fd())
        } else {
            hide(&mut null, target.as_fd())
        };
        result.at(Step::MaskedPath, index)?;
    }
    Ok(())
}

/// Covers a directory: the first time by a new tmpfs, from then on by copies of that mount.
fn cover(plan: &Plan, empty: &mut Option<OwnedFd>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    if let Some(empty) = empty {
        let copy = mount::clone_tree(empty.as_fd(), c"", Reach::One)?;
        return mount::move_mount(copy.as_fd(), target);
    }
    let context = mount::fsopen(c"tmpfs")?;
    mount::fsconfig_set(context.as_fd(), c"nr_blocks", Some(c"1"))?;
    mount::fsconfig_set(context.as_fd(), c"nr_inodes", Some(c"1"))?;
    mount::fsconfig_set(context.as_fd(), c"ro", None)?;
    if let Some(label) = &plan.mount_label {
        mount::fsconfig_set(context.as_fd(), c"context", Some(label))?;
    }
    let made = mount::fsmount(context.as_fd(), MOUNT_ATTR_RDONLY)?;
    mount::move_mount(made.as_fd(), target)?;
    *empty = Some(made);
    Ok(())
}

fn hide(null: &mut Option<OwnedFd>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let null = match null {
        Some(null) => null,
        None => {
            let opened = open_node(AT_FDCWD, c"/dev/null")?;
            if !is_char_device(opened.as_fd(), 1, 3) {
                return Err(Errno::ENXIO);
            }
            null.insert(opened)
        }
    };
    let copy = mount::clone_tree(null.as_fd(), c"", Reach::One)?;
    mount::move_mount(copy.as_fd(), target)
}

fn open_if_there(root: BorrowedFd<'_>, path: &CStr) -> Result<Option<OwnedFd>, Errno> {
    match path::open_in_root(root, path, OFlag::O_PATH) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Makes the process's working directory if it is missing.
pub fn working_directory(plan: &Plan, root: BorrowedFd<'_>) -> Result<(), Fault> {
    let cwd = plan.process.cwd.as_c_str();
    match path::make_in_root(root, cwd, Make::Dir) {
        // Whatever else is wrong with it, chdir will tell; links of procfs are judged there too.
        Ok(_) | Err(Errno::ELOOP | Errno::EACCES | Errno::ENOTDIR | Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno).at(Step::WorkingDirectory, 0),
    }
}

const READONLY: Attr = Attr {
    set: MOUNT_ATTR_RDONLY,
    clear: 0,
    propagation: 0,
};

/// Makes read-only what had to stay writable until now.
pub fn finish_readonly(plan: &Plan, fds: &mut Fds, root: BorrowedFd<'_>) -> Result<(), Fault> {
    for index in 0..fds.late.len() {
        finish_mount(plan, fds, index)?;
        if let Some(late) = fds.late.get_mut(index) {
            drop(late.take());
        }
    }
    if plan.readonly_root {
        set_attr(root, READONLY, Reach::One).at(Step::ReadonlyMount, plan.mounts.len())?;
    }
    Ok(())
}

/// Makes one mount read-only that had to stay writable until now.
pub fn finish_mount(plan: &Plan, fds: &Fds, index: usize) -> Result<(), Fault> {
    let entry = plan.mounts.get(index).filter(|entry| entry.readonly_last);
    match (entry, fds.late.get(index).and_then(Option::as_ref)) {
        (Some(_), Some(made)) => {
            set_attr(made.as_fd(), READONLY, Reach::One).at(Step::ReadonlyMount, index)
        }
        _ => Ok(()),
    }
}

/// Enters the root: nothing of the host's mounts is left in this namespace afterwards.
pub fn pivot(plan: &Plan, fds: &Fds, root: OwnedFd) -> Result<(), Fault> {
    let at = |result: Result<(), Errno>| result.at(Step::Pivot, 0);
    at(nix::unistd::fchdir(&root))?;
    if !plan.namespaces.has(MOUNT) {
        return at(nix::unistd::chroot(c"."));
    }
    if plan.no_pivot {
        // The host's mounts stay below the root; a full procfs or sysfs among them would let a
        // container in a user namespace mount another one. Where they are locked they stay.
        for view in &fds.host_views {
            let _ = mount::detach(view);
        }
        at(mount::move_over_root())?;
        at(nix::unistd::chroot(c"."))?;
    } else {
        let old = nix::fcntl::open(c"/", OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty());
        let old = old.at(Step::Pivot, 0)?;
        at(mount::pivot_here())?;
        // The old root lies on top; slave, so that unmounting it is not passed on to the host. By
        // descriptor: `.` is still the new root, whose mounts may well be meant to be shared.
        at(nix::unistd::fchdir(old))?;
        at(mount::set_propagation(c".", libc::MS_SLAVE | libc::MS_REC))?;
        at(mount::detach_here())?;
    }
    at(nix::unistd::chdir(c"/"))?;
    if let Some((flag, reach)) = plan.root_propagation {
        let rec = if reach == Reach::Tree {
            libc::MS_REC
        } else {
            0
        };
        mount::set_propagation(c"/", flag | rec).at(Step::RootPropagation, 0)?;
    }
    Ok(())
}
