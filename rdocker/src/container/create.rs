//! `create`: an image and a request become a record, a root and settled mounts.

use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::network::{is_bridged, note_links};
use super::record::{self, Places, Record, State};
use super::request::Request;
use super::{Container, Containers, cgroup, id, merge, remove, spec};
use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::image::{Image, Images, overlay};
use crate::monitor::log::Rotation;
use crate::network::registry::{Networks, named};
use crate::network::{DEFAULT, Wish, pasta};
use crate::rootless;
use crate::runtime::Runtime;
use crate::store::Store;
use crate::volume::{MountPoint, Volumes, copy_up, device, settle};

/// What happens to the root after `create`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing: it is unmounted.
    Stop,
    /// `start` follows at once and takes the mount over.
    Start,
}

/// Makes a container of `image`; what was made is taken back if something fails.
///
/// # Errors
/// A taken name, no command, a mount that cannot be settled, a failed system call.
pub fn create(
    host: &Host,
    images: &Images<'_>,
    image: &Image,
    request: Request,
    then: Then,
) -> Result<Container> {
    let id = id::random();
    let containers = Containers::new(host);
    let (config, host_config) = complete(host, &containers, &id, &request, image)?;
    let name = claim(&containers, request.name.as_deref(), &id)?;
    let places = containers.places(&id);
    let record = Record {
        id,
        name,
        created: Timestamp::now(),
        image: image.id.to_string(),
        config,
        host_config,
        networks: match is_bridged(&request.host_config.network_mode) {
            true => request.networks,
            false => Vec::new(),
        },
        mounts: Vec::new(),
        platform: "linux".to_owned(),
    };
    let mut container = Container {
        places,
        record,
        state: State::default(),
    };
    match furnish(host, images, image, &mut container, then) {
        Ok(()) => Ok(container),
        Err(error) => {
            undo(images, &containers, &container);
            Err(error)
        }
    }
}

/// Fills in what depends on the image, the machine and other containers; checks the rest.
fn complete(
    host: &Host,
    containers: &Containers<'_>,
    id: &str,
    request: &Request,
    image: &Image,
) -> Result<(super::api::Config, super::api::HostConfig)> {
    let mut config = merge::with_image(request.config.clone(), &image.config.config)?;
    let mut host_config = request.host_config.clone();
    if host_config.cgroupns_mode.is_empty() {
        // Docker's default: private where the unified hierarchy makes it whole, else the host's.
        let mode = if cgroup::is_unified() {
            "private"
        } else {
            "host"
        };
        mode.clone_into(&mut host_config.cgroupns_mode);
    }
    for mode in [
        &mut host_config.network_mode,
        &mut host_config.pid_mode,
        &mut host_config.ipc_mode,
    ] {
        // Names may change later, ids do not.
        if let Some(name) = mode.strip_prefix("container:") {
            *mode = format!("container:{}", containers.find(name)?.record.id);
        }
    }
    let joins = host_config.network_mode.starts_with("container:");
    for (shares, what) in [(host_config.uts_mode == "host", "UTS"), (joins, "network")] {
        if shares && !config.hostname.is_empty() {
            return Err(Error::Invalid(format!(
                "conflicting options: hostname and the {what} mode"
            )));
        }
    }
    if config.hostname.is_empty() {
        config.hostname = match host_config.network_mode.as_str() {
            mode if mode == "host" || host_config.uts_mode == "host" => host_name(),
            mode => match mode.strip_prefix("container:") {
                Some(other) => containers.load(other)?.record.config.hostname,
                None => id[..12].to_owned(),
            },
        };
    }
    check_networks(host, &host_config.network_mode, &request.networks)?;
    Runtime::find(host, &host_config.runtime)?;
    Rotation::from_options(&host_config.log_config)?;
    spec::check(&host_config)?;
    Ok((config, host_config))
}

/// Refuses networks that do not exist, instead of making a container that cannot start.
fn check_networks(host: &Host, mode: &str, wishes: &[Wish]) -> Result<()> {
    if !is_bridged(mode) {
        return Ok(());
    }
    if rootless::is_entered(host) {
        return match wishes {
            [only] if named(&only.network) == DEFAULT => pasta::check().map(drop),
            _ => Err(super::network::needs_root(named(mode))),
        };
    }
    let store = Store::open(&host.data_root)?;
    let networks = Networks { store: &store };
    for wish in wishes {
        let network = networks
            .find(named(&wish.network))
            .map_err(|error| Error::Hinted {
                message: error.chain(),
                hint: format!("rdocker network create {} makes it", wish.network),
            })?;
        if network.is_default() && (wish.ipv4.is_some() || wish.ipv6.is_some()) {
            return Err(Error::Invalid(format!(
                "invalid config for network {}: invalid endpoint settings: user specified IP \
                 address is supported on user defined networks only",
                network.name
            )));
        }
        if network.is_default() && !wish.aliases.is_empty() {
            return Err(Error::Invalid(format!(
                "invalid config for network {}: invalid endpoint settings: network-scoped \
                 aliases are only supported for user-defined networks",
                network.name
            )));
        }
    }
    Ok(())
}

/// The machine's own name.
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn claim(containers: &Containers<'_>, wanted: Option<&str>, id: &str) -> Result<String> {
    if let Some(name) = wanted {
        containers.claim_name(name, id)?;
        return Ok(name.to_owned());
    }
    // Two words make some thousand names; digits make enough for any machine.
    for attempt in 0..64 {
        let name = id::random_name(attempt);
        match containers.claim_name(&name, id) {
            Err(Error::Conflict(_)) => {}
            Ok(()) => return Ok(name),
            Err(error) => return Err(error),
        }
    }
    let name = id[..12].to_owned();
    containers.claim_name(&name, id)?;
    Ok(name)
}

fn furnish(
    host: &Host,
    images: &Images<'_>,
    image: &Image,
    container: &mut Container,
    then: Then,
) -> Result<()> {
    let Places { dir, .. } = &container.places;
    // Held until the record is there.
    let _lock = remove::new_directory(dir)?;
    images.hold(&container.record.id, image)?;
    let root = images.mount_rootfs(image, dir)?;
    let volumes = Volumes::new(host);
    let from = volumes_from(host, container.record.host_config.volumes_from.as_deref())?;
    let settled = settle(
        volumes,
        &container.record.config,
        &container.record.host_config,
        &from,
    )?;
    for target in &settled.copy_up {
        let volume = settled
            .mounts
            .iter()
            .find(|mount| mount.destination == *target);
        if let Some(mount) = volume {
            device::hold(host, &mount.name, &container.record.id)?;
            let copied = copy_up(&root, target, Path::new(&mount.source));
            device::release(host, &mount.name, &container.record.id)?;
            copied?;
        }
    }
    container.record.mounts = settled.mounts;
    make_directory(&root, &container.record.config.working_dir)?;
    if then == Then::Stop {
        overlay::unmount_rootfs(dir)?;
    }
    note_links(host, &mut container.record)?;
    record::write_state(dir, &container.state)?;
    container.save()?;
    events::container(host, &container.record, "create", &[])
}

/// The mounts of `--volumes-from CONTAINER[:ro|rw]`.
fn volumes_from(host: &Host, list: Option<&[String]>) -> Result<Vec<MountPoint>> {
    let mut mounts = Vec::new();
    for text in list.unwrap_or_default() {
        let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
        if !matches!(mode, "ro" | "rw" | "z" | "Z") {
            return Err(Error::Invalid(format!(
                "invalid mode for volumes-from: {mode}"
            )));
        }
        for mut mount in Containers::new(host).find(name)?.record.mounts {
            mount.rw &= mode != "ro";
            mounts.push(mount);
        }
    }
    Ok(mounts)
}

/// Makes a directory in the root, its missing parents too, without ever leaving the root.
///
/// Each step opens what is there inside the root (openat2 `RESOLVE_IN_ROOT`) and makes the next
/// component in it, so that no symlink of the image leads outside (the shape of CVE-2026-55686).
fn make_directory(root: &Path, path: &str) -> Result<()> {
    let fail = |errno: Errno| Error::host("create the working directory", Path::new(path), errno);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = rustix::fs::open(root, flags, Mode::empty()).map_err(fail)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = |path: &str| rustix::fs::openat2(&base, path, flags, Mode::empty(), resolve);
    let mut reached = String::from(".");
    for part in path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
    {
        let parent = open(&reached).map_err(fail)?;
        reached = format!("{reached}/{part}");
        match open(&reached) {
            Err(Errno::NOENT) if part != ".." => {
                match rustix::fs::mkdirat(&parent, part, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(fail(errno)),
                }
            }
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(fail(errno)),
        }
    }
    Ok(())
}

/// Takes back what a failed `create` made; each step is tried.
fn undo(images: &Images<'_>, containers: &Containers<'_>, container: &Container) {
    let _ = overlay::unmount_rootfs(&container.places.dir);
    let _ = crate::store::gc::remove_tree(&container.places.dir);
    let _ = images.release(&container.record.id);
    containers.release_name(&container.record.name);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_working_directory_is_made_inside_the_root_only() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("escape")).unwrap();
        symlink("/real", root.path().join("alias")).unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        make_directory(root.path(), "/a/b/../c").unwrap();
        assert!(root.path().join("a/c").is_dir());
        make_directory(root.path(), "/alias/deep").unwrap();
        assert!(root.path().join("real/deep").is_dir());
        let _ = make_directory(root.path(), "/escape/x");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
