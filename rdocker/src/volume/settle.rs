//! `-v`, `--mount`, `--volumes-from` and the image's volumes to one mount for each target.

use std::collections::BTreeMap;
use std::path::Path;

use super::{MountPoint, Volumes};
use crate::container::api::{BindOptions, Config, HostConfig, MountRequest, VolumeOptions};
use crate::container::parse::mount::{VolumeFlag, volume_flag};
use crate::error::{Error, Result};

/// The mounts of a new container.
#[derive(Debug, Default)]
pub struct Settled {
    /// One for each target, by target.
    pub mounts: Vec<MountPoint>,
    /// Targets whose empty volume gets the image's files.
    pub copy_up: Vec<String>,
}

/// Settles every mount; makes the volumes that are missing.
///
/// The user's own mounts win over `--volumes-from`, both win over the image's `VOLUME`s.
///
/// # Errors
/// A target named twice, a bind source that is missing (`--mount` only), a failed system call.
pub fn settle(
    volumes: Volumes<'_>,
    config: &Config,
    host: &HostConfig,
    from: &[MountPoint],
) -> Result<Settled> {
    let mut own: BTreeMap<String, MountPoint> = BTreeMap::new();
    let mut copy_up = Vec::new();
    let mut claim = |mount: MountPoint, copies: bool| {
        let target = mount.destination.clone();
        if own.insert(target.clone(), mount).is_some() {
            return Err(Error::Invalid(format!("Duplicate mount point: {target}")));
        }
        if copies {
            copy_up.push(target);
        }
        Ok(())
    };
    for text in host.binds.iter().flatten() {
        let flag = volume_flag(text)?;
        if !is_path(&flag) {
            require_local(&host.volume_driver)?;
        }
        let copies = !flag.no_copy && !is_path(&flag);
        let mode = text.splitn(3, ':').nth(2).unwrap_or_default();
        claim(from_flag(volumes, flag, mode)?, copies)?;
    }
    for request in &host.mounts {
        let options = request.volume_options.clone().unwrap_or_default();
        let copies = request.kind == "volume" && !options.no_copy;
        claim(from_request(volumes, request, &options)?, copies)?;
    }
    for mount in from {
        own.entry(mount.destination.clone())
            .or_insert_with(|| mount.clone());
    }
    for target in config.volumes.iter().flatten().map(|(target, _)| target) {
        let target = target.trim_end_matches('/').to_owned();
        if target.is_empty() || own.contains_key(&target) || host.tmpfs.contains_key(&target) {
            continue;
        }
        let volume = volumes.create_anonymous(BTreeMap::new())?;
        copy_up.push(target.clone());
        own.insert(target.clone(), volume_mount(&volume, &target, "", true));
    }
    Ok(Settled {
        mounts: own.into_values().collect(),
        copy_up,
    })
}

/// # Errors
/// dockerd's words for a volume driver that is not there: `local` is the only one.
fn require_local(driver: &str) -> Result<()> {
    match driver {
        "" | "local" => Ok(()),
        other => Err(Error::Hinted {
            message: format!("error looking up volume plugin {other}: plugin {other:?} not found"),
            hint: "the driver 'local' takes type, device and o: see volume create --help"
                .to_owned(),
        }),
    }
}

fn is_path(flag: &VolumeFlag) -> bool {
    flag.source
        .as_deref()
        .is_some_and(|source| source.starts_with('/'))
}

fn volume_mount(volume: &super::Volume, target: &str, mode: &str, rw: bool) -> MountPoint {
    MountPoint {
        kind: "volume".to_owned(),
        name: volume.name.clone(),
        source: volume.mountpoint.display().to_string(),
        destination: target.to_owned(),
        driver: "local".to_owned(),
        mode: mode.to_owned(),
        rw,
        ..MountPoint::default()
    }
}

fn from_flag(volumes: Volumes<'_>, flag: VolumeFlag, mode: &str) -> Result<MountPoint> {
    let path = is_path(&flag);
    let source = flag.source.unwrap_or_default();
    if !path {
        let (volume, _) = volumes.create(&source, BTreeMap::new(), BTreeMap::new())?;
        return Ok(volume_mount(&volume, &flag.target, mode, !flag.read_only));
    }
    // `-v` makes a missing source, as it always did; `--mount` does not.
    make_source(&source)?;
    let propagation = if flag.propagation.is_empty() {
        "rprivate".to_owned()
    } else {
        flag.propagation
    };
    Ok(MountPoint {
        kind: "bind".to_owned(),
        source,
        destination: flag.target,
        mode: mode.to_owned(),
        rw: !flag.read_only,
        propagation,
        ..MountPoint::default()
    })
}

fn make_source(source: &str) -> Result<()> {
    let path = Path::new(source);
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    std::fs::create_dir_all(path).map_err(|errno| Error::host("create directory", path, errno))
}

fn from_request(
    volumes: Volumes<'_>,
    request: &MountRequest,
    options: &VolumeOptions,
) -> Result<MountPoint> {
    let rw = !request.read_only;
    match request.kind.as_str() {
        "volume" => {
            require_local(
                options
                    .driver_config
                    .as_ref()
                    .map_or("", |config| &config.name),
            )?;
            let volume = if request.source.is_empty() {
                volumes.create_anonymous(options.driver_options())?
            } else {
                volumes
                    .create(
                        &request.source,
                        options.labels.clone(),
                        options.driver_options(),
                    )?
                    .0
            };
            if options.subpath.split('/').any(|part| part == "..") {
                return Err(Error::Invalid(format!(
                    "invalid volume subpath {:?}: it must stay inside the volume",
                    options.subpath
                )));
            }
            let mut mount = volume_mount(&volume, &request.target, "z", rw);
            mount.subpath.clone_from(&options.subpath);
            Ok(mount)
        }
        "tmpfs" => {
            let options = request.tmpfs_options.clone().unwrap_or_default();
            Ok(MountPoint {
                kind: "tmpfs".to_owned(),
                destination: request.target.clone(),
                rw,
                tmpfs_size: options.size_bytes,
                tmpfs_mode: options.mode,
                ..MountPoint::default()
            })
        }
        _ => bind_from_request(request, &request.bind_options.clone().unwrap_or_default()),
    }
}

fn bind_from_request(request: &MountRequest, options: &BindOptions) -> Result<MountPoint> {
    if options.create_mountpoint {
        make_source(&request.source)?;
    } else if !Path::new(&request.source).exists() {
        return Err(Error::Invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            request.source
        )));
    }
    let propagation = match options.propagation.as_str() {
        "" => "rprivate".to_owned(),
        other => other.to_owned(),
    };
    Ok(MountPoint {
        kind: "bind".to_owned(),
        source: request.source.clone(),
        destination: request.target.clone(),
        rw: !request.read_only,
        propagation,
        non_recursive: options.non_recursive,
        ..MountPoint::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;
    use crate::image::config::Empty;

    #[test]
    fn the_users_mount_wins_over_the_images_volume() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(Some(dir.path().join("data")), Some(dir.path().join("run"))).unwrap();
        let config = Config {
            volumes: Some(BTreeMap::from([
                ("/data/".to_owned(), Empty {}),
                ("/other".to_owned(), Empty {}),
            ])),
            ..Config::default()
        };
        let wanted = dir.path().join("made").display().to_string();
        let binds = Some(vec![format!("{wanted}:/data:ro"), "named:/n".to_owned()]);
        let host_config = HostConfig {
            binds,
            ..HostConfig::default()
        };
        let settled = settle(Volumes::new(&host), &config, &host_config, &[]).unwrap();
        let kinds: Vec<(&str, &str, bool)> = settled
            .mounts
            .iter()
            .map(|m| (m.destination.as_str(), m.kind.as_str(), m.rw))
            .collect();
        let want = [
            ("/data", "bind", false),
            ("/n", "volume", true),
            ("/other", "volume", true),
        ];
        assert_eq!(kinds, want);
        assert_eq!(settled.copy_up, ["/n", "/other"]);
        assert!(Path::new(&wanted).is_dir());
    }

    #[test]
    fn a_target_given_twice_and_a_missing_mount_source_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(Some(dir.path().join("data")), Some(dir.path().join("run"))).unwrap();
        let binds = Some(vec!["aa:/x".to_owned(), "bb:/x".to_owned()]);
        let twice = HostConfig {
            binds,
            ..HostConfig::default()
        };
        let why = settle(Volumes::new(&host), &Config::default(), &twice, &[]).unwrap_err();
        assert_eq!(why.to_string(), "Duplicate mount point: /x");
        let mount = MountRequest {
            kind: "bind".to_owned(),
            source: "/does/not/exist".to_owned(),
            target: "/x".to_owned(),
            ..MountRequest::default()
        };
        let missing = HostConfig {
            mounts: vec![mount],
            ..HostConfig::default()
        };
        let why = settle(Volumes::new(&host), &Config::default(), &missing, &[]).unwrap_err();
        assert!(
            why.to_string().contains("bind source path does not exist"),
            "{why}"
        );
    }
}
