//! The end of a container: what it had while it ran, and what it was.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::mount::{UnmountFlags, unmount};

use super::network::is_bridged;
use super::record::{self, Places, Record, Status};
use super::{Container, Containers, is_id};
use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::image::{Images, overlay};
use crate::network::attach;
use crate::network::registry::Networks;
use crate::network::sandbox::unpublish;
use crate::runtime::Runtime;
use crate::store::Store;
use crate::store::gc::remove_tree;
use crate::volume::{ANONYMOUS, Volumes, device};

/// The end of the name of a directory that is being removed.
const TRASH: &str = ".removing";

/// Whether volumes that nobody named go with the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anonymous {
    /// `rm`.
    Keep,
    /// `rm -v` and `--rm`.
    Remove,
}

/// Takes down what a container had while it ran: its root, its shared memory, its run directory.
///
/// Every step is tried even if one fails, and can be repeated.
pub fn take_down(host: &Host, record: &Record, places: &Places) {
    forget_run(host, record);
    if is_bridged(&record.host_config.network_mode) {
        // What is left is found again by `attach::sweep`.
        let _ = attach::down(host, &record.id);
    }
    let shm = places.run.join("shm");
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    while unmount(&shm, flags).is_ok() {}
    unpublish(&places.run);
    let _ = overlay::unmount_rootfs(&places.dir);
    for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
        let _ = device::release(host, &mount.name, &record.id);
    }
    // Removing below a mount that would not go would empty what is mounted there.
    if !is_mounted_below(&places.run) {
        let _ = fs::remove_dir_all(&places.run);
    }
}

/// Takes away what the runtime still keeps of a run that nobody saw the end of.
pub fn forget_run(host: &Host, record: &Record) {
    if host.runtime_root().join(&record.id).exists()
        && let Ok(runtime) = Runtime::find(host, &record.host_config.runtime)
    {
        let _ = runtime.delete(&host.exec_root, &record.id);
    }
}

fn is_mounted_below(dir: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(Path::new).any(|point| point.starts_with(dir))
}

/// Removes a container that does not run.
///
/// The name is free first and the directory vanishes by one rename, so a removal that is cut
/// short leaves nothing that looks like a container.
///
/// # Errors
/// A failed system call, with everything that could be removed gone.
pub fn purge(host: &Host, container: &Container, anonymous: Anonymous) -> Result<()> {
    let record = &container.record;
    Containers::new(host).release_name(&record.name);
    take_down(host, record, &container.places);
    let dir = &container.places.dir;
    let trash = dir.with_file_name(format!(".{}{TRASH}", record.id));
    // Held until it is empty: who finds it free finishes it.
    let _lock = File::open(dir).and_then(|dir| dir.lock().map(|()| dir));
    match fs::rename(dir, &trash) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::host("rename", dir, error));
        }
        _ => {}
    }
    let removed = discard(host, &record.id, &trash);
    if anonymous == Anonymous::Remove {
        remove_anonymous(host, record)?;
    }
    events::container(host, record, "destroy", &[])?;
    removed
}

fn discard(host: &Host, id: &str, trash: &Path) -> Result<()> {
    let store = Store::open(&host.data_root)?;
    Images::new(&store).release(id)?;
    Networks { store: &store }.forget_links(id)?;
    Ok(remove_tree(trash)?)
}

/// Makes a new container's directory, locked: one without a record is abandoned when nobody holds
/// that lock.
///
/// # Errors
/// The directory cannot be made.
pub fn new_directory(dir: &Path) -> Result<File> {
    let fail = |errno| Error::host("create directory", dir, errno);
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o710);
    loop {
        builder.create(dir).map_err(fail)?;
        let Ok(lock) = File::open(dir) else { continue };
        lock.lock().map_err(fail)?;
        // Before the lock it looked abandoned, and may be gone.
        if lock.metadata().map_err(fail)?.nlink() > 0 {
            return Ok(lock);
        }
    }
}

/// Removes what a `create` that was cut short left; whether there was such a thing.
///
/// # Errors
/// It cannot be removed.
pub fn clear_abandoned(host: &Host, id: &str) -> Result<bool> {
    let dir = Containers::new(host).places(id).dir;
    let Ok(lock) = File::open(&dir) else {
        return Ok(false);
    };
    if lock.try_lock().is_err() || record::read_record(&dir)?.is_some() {
        return Ok(false);
    }
    let _ = overlay::unmount_rootfs(&dir);
    discard(host, id, &dir)?;
    Ok(true)
}

/// Finishes removals, and takes back creations, that were cut short.
///
/// # Errors
/// What is left cannot be removed.
pub fn finish_removals(host: &Host) -> Result<()> {
    for entry in fs::read_dir(host.containers())
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let id = name
            .strip_prefix('.')
            .and_then(|name| name.strip_suffix(TRASH));
        if is_id(&name) {
            clear_abandoned(host, &name)?;
        }
        if let Some(id) = id
            && let Ok(dir) = File::open(entry.path())
            && dir.try_lock().is_ok()
        {
            discard(host, id, &entry.path())?;
        }
    }
    Ok(())
}

/// Removes the container's anonymous volumes that no other container uses.
fn remove_anonymous(host: &Host, record: &Record) -> Result<()> {
    let volumes = Volumes::new(host);
    let others = Containers::new(host).list()?;
    for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
        let nobody_named = volumes
            .find(&mount.name)?
            .and_then(|volume| volume.labels)
            .is_some_and(|labels| labels.contains_key(ANONYMOUS));
        let used = others.iter().any(|other| {
            other.record.id != record.id && other.record.mounts.iter().any(|m| m.name == mount.name)
        });
        if nobody_named && !used {
            volumes.remove(&mount.name)?;
            events::other(host, "volume", "destroy", &mount.name, &[])?;
        }
    }
    Ok(())
}

/// Refuses what `docker rm` without `-f` refuses.
///
/// # Errors
/// `cannot remove container "/web": container is running: …`.
pub fn require_removable(container: &Container) -> Result<()> {
    let is = match container.state.status {
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Restarting => "restarting",
        _ => return Ok(()),
    };
    let way_out = match is {
        "paused" => "unpause and then stop the container before removal or force remove",
        _ => "stop the container before removal or force remove",
    };
    Err(Error::Conflict(format!(
        "cannot remove container {:?}: container is {is}: {way_out}",
        format!("/{}", container.record.name)
    )))
}
