//! Mounts of a running container, made and removed by a process that enters it for that alone.
//!
//! Whatever the container does meanwhile to its directories and links, each target is resolved once,
//! inside its root, and from then on is a descriptor.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::report::{At, Fault};
use super::{kernel, rootfs};
use crate::plan::fds::Fds;
use crate::plan::{Plan, Step};
use crate::sys::{Errno, mount, path};

/// [`mount`] or [`unmount`].
pub type Change = fn(&Plan, &mut Fds, &Place) -> Result<(), Fault>;

/// Where this process is, once it has entered the container.
pub struct Place {
    /// The container's root.
    root: OwnedFd,
    /// This process's descriptors in the host's procfs, by which umount(2) is given one.
    descriptors: OwnedFd,
}

/// Enters the container's namespaces. The root is that of its mount namespace: its first process may
/// have another by now.
pub fn enter(fds: &mut Fds) -> Result<Place, Fault> {
    let descriptors = kernel::host_proc(c"/proc/thread-self/fd").at(Step::Join, 0)?;
    kernel::enter_container(fds)?;
    nix::sys::stat::umask(Mode::empty());
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(c"/", flags, Mode::empty()).at(Step::Join, 0)?;
    Ok(Place { root, descriptors })
}

/// Makes the plan's mounts, in order. If one fails, those before it are removed again.
pub fn mount(plan: &Plan, fds: &mut Fds, place: &Place) -> Result<(), Fault> {
    for index in 0..plan.mounts.len() {
        let made = rootfs::mount(plan, fds, place.root.as_fd(), None, index).and_then(|made| {
            if let Some(late) = fds.late.get_mut(index) {
                *late = made;
            }
            rootfs::finish_mount(plan, fds, index)
        });
        if let Err(fault) = made {
            for made in fds.late.iter().rev().flatten() {
                // What cannot be removed is left to `mounts remove`; the fault is what is told.
                let _ = detach(place, made.as_fd());
            }
            return Err(fault);
        }
    }
    Ok(())
}

/// Detaches what is mounted at the targets of the plan's mounts, in order.
///
/// Symbolic links are not followed: the container could lead from here to the mounts that keep it
/// from writing to its procfs.
pub fn unmount(plan: &Plan, _: &mut Fds, place: &Place) -> Result<(), Fault> {
    for (index, entry) in plan.mounts.iter().enumerate() {
        path::open_plain(place.root.as_fd(), &entry.target, OFlag::O_PATH)
            .and_then(|target| detach(place, target.as_fd()))
            .at(Step::Unmount, index)?;
    }
    Ok(())
}

/// Detaches the mount whose root is `target`; `EINVAL` if it is none.
fn detach(place: &Place, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut digits = [0; 20];
    let mut text = path::Text::new();
    let number = u64::from(target.as_raw_fd().unsigned_abs());
    let name = text.set(&[path::decimal(&mut digits, number)])?;
    nix::unistd::fchdir(&place.descriptors)?;
    mount::detach(name)
}
