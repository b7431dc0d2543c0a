//! `start`: facts are gathered, the bundle is written, a monitor begins.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, mount};
use serde_json::Value;

use super::api::HostConfig;
use super::identity::Accounts;
use super::record::{Places, Record, Status};
use super::session::Session;
use super::spec::{self, Facts, HostDevice};
use super::{Container, Containers, cgroup, network};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::image::overlay;
use crate::network::sandbox::Sandbox;
use crate::seccomp;
use crate::store::lock::FileLock;
use crate::volume::device;

/// Whether the root is mounted already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// `create` left it mounted, or the container is restarted.
    Mounted,
    /// Mount it.
    Unmounted,
}

/// Prepares the container and begins its monitor; `start` is still to be said to it.
///
/// The caller holds the container's lock until the monitor has answered, so that two starts at
/// once cannot both win.
///
/// # Errors
/// It runs already; a fact cannot be gathered; everything is taken down again then.
pub fn launch(host: &Host, container: &Container, root: Root) -> Result<Session> {
    let id = &container.record.id;
    match container.state.status {
        Status::Running | Status::Paused | Status::Restarting => {
            return Err(Error::Conflict(format!(
                "container {id} is already running"
            )));
        }
        Status::Removing | Status::Dead => {
            return Err(Error::Conflict(format!(
                "container {id} is marked for removal and cannot be started"
            )));
        }
        Status::Created | Status::Exited => {}
    }
    // A monitor that has just answered `stop` may still be taking the last run down.
    drop(FileLock::exclusive(&container.places.monitor_lock())?);
    super::remove::forget_run(host, &container.record);
    let begun = prepare(host, &container.record, &container.places, root)
        .and_then(|()| spawn_monitor(host, container));
    if begun.is_err() {
        super::remove::take_down(host, &container.record, &container.places);
    }
    begun
}

/// Mounts what has to be mounted and writes the bundle.
///
/// # Errors
/// The user, a namespace to join, a device or a profile cannot be found.
pub fn prepare(host: &Host, record: &Record, places: &Places, root: Root) -> Result<()> {
    let bundle = places.bundle();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(&bundle)
        .map_err(|errno| Error::host("create directory", &bundle, errno))?;
    if root == Root::Unmounted {
        overlay::unmount_rootfs(&places.dir)?;
        overlay::remount_rootfs(&places.dir)?;
    }
    for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
        device::hold(host, &mount.name, &record.id)?;
    }
    let facts = gather(host, record, places)?;
    let spec = spec::build(&record.config, &record.host_config, &facts)?;
    let path = bundle.join("config.json");
    fs::write(&path, spec.to_string()).map_err(|errno| Error::host("write", &path, errno))
}

fn gather(host: &Host, record: &Record, places: &Places) -> Result<Facts> {
    let (config, host_config) = (&record.config, &record.host_config);
    let rootfs = places.rootfs();
    let groups = host_config.group_add.as_deref().unwrap_or_default();
    let identity = Accounts::read(&rootfs)?.resolve(&config.user, groups)?;
    let containers = Containers::new(host);
    Ok(Facts {
        id: record.id.clone(),
        identity,
        mounts: record.mounts.clone(),
        files: network_files(host, &containers, record, places)?,
        shm: shared_memory(&containers, host_config, places)?,
        host_ipc: ["/dev/mqueue", "/dev/shm"]
            .into_iter()
            .filter(|path| Path::new(path).is_dir())
            .collect(),
        env: network::link_environment(host, record)?,
        join: joined(&containers, host_config, places)?,
        devices: devices(host_config)?,
        block_devices: block_devices(host_config)?,
        init: init_program(host_config)?,
        rootfs,
        ..machine(host, host_config, &record.id)?
    })
}

/// What a container depends on that has nothing to do with its files: the machine and the profile.
///
/// # Errors
/// A seccomp profile of the user's that is none.
pub fn machine(host: &Host, host_config: &HostConfig, id: &str) -> Result<Facts> {
    Ok(Facts {
        thermal: thermal(Path::new("/sys/devices/system/cpu")),
        seccomp: seccomp_profile(host_config)?,
        cgroup: cgroup::place(host, &host_config.resources, id),
        in_user_namespace: host.in_user_namespace,
        lacks_tty_group: host.in_user_namespace && !maps_group(5),
        ..Facts::default()
    })
}

/// Whether this user namespace has a group: user_namespaces(7), `/proc/PID/gid_map`.
fn maps_group(gid: u64) -> bool {
    let map = fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    map.lines().any(|line| {
        let numbers: Vec<u64> = line
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        matches!(numbers[..], [inside, _, count] if (inside..inside + count).contains(&gid))
    })
}

/// The container that a mode `container:ID` means; it has to run.
fn other(containers: &Containers<'_>, mode: &str) -> Result<Option<Container>> {
    let Some(id) = mode.strip_prefix("container:") else {
        return Ok(None);
    };
    let container = containers.find(id)?;
    if container.state.pid == 0 {
        return Err(Error::Conflict(format!(
            "cannot join namespace of a non running container: container {} is {}",
            container.record.name,
            container.state.status.word()
        )));
    }
    Ok(Some(container))
}

fn joined(
    containers: &Containers<'_>,
    host: &HostConfig,
    places: &Places,
) -> Result<BTreeMap<&'static str, PathBuf>> {
    let modes = [
        ("network", "net", &host.network_mode),
        ("pid", "pid", &host.pid_mode),
        ("ipc", "ipc", &host.ipc_mode),
    ];
    let mut paths = BTreeMap::new();
    if network::is_bridged(&host.network_mode) {
        // The monitor makes it before it calls the runtime.
        paths.insert("network", Sandbox::path(&places.run));
    }
    for (kind, file, mode) in modes {
        if let Some(container) = other(containers, mode)? {
            let path = format!("/proc/{}/ns/{file}", container.state.pid);
            paths.insert(kind, PathBuf::from(path));
        }
    }
    Ok(paths)
}

/// /dev/shm of a shareable container, or of the container whose IPC namespace is joined.
fn shared_memory(
    containers: &Containers<'_>,
    host: &HostConfig,
    places: &Places,
) -> Result<Option<PathBuf>> {
    if let Some(container) = other(containers, &host.ipc_mode)? {
        if container.record.host_config.ipc_mode != "shareable" {
            return Err(Error::Hinted {
                message: format!(
                    "cannot join IPC of container {}: non-shareable IPC",
                    container.record.name
                ),
                hint: "start that container with --ipc shareable".to_owned(),
            });
        }
        return Ok(Some(container.places.run.join("shm")));
    }
    if host.ipc_mode != "shareable" {
        return Ok(None);
    }
    let dir = places.run.join("shm");
    if dir.exists() {
        return Ok(Some(dir));
    }
    fs::create_dir(&dir).map_err(|errno| Error::host("create directory", &dir, errno))?;
    let options = std::ffi::CString::new(format!("mode=1777,size={}", host.shm_size))
        .expect("digits hold no NUL");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("shm", &dir, "tmpfs", flags, Some(options.as_c_str()))
        .map_err(|errno| Error::host("mount shared memory on", &dir, errno))?;
    Ok(Some(dir))
}

/// Sees to /etc/hosts, /etc/hostname and /etc/resolv.conf; gives target and source of each.
fn network_files(
    host: &Host,
    containers: &Containers<'_>,
    record: &Record,
    places: &Places,
) -> Result<Vec<(&'static str, PathBuf)>> {
    const FILES: [(&str, &str); 3] = [
        ("/etc/hosts", "hosts"),
        ("/etc/hostname", "hostname"),
        ("/etc/resolv.conf", "resolv.conf"),
    ];
    let host_config = &record.host_config;
    let dir = match host_config.network_mode.strip_prefix("container:") {
        Some(id) => containers.load(id)?.places.dir,
        None => {
            // The monitor writes those that name addresses, when it has them.
            if !network::is_bridged(&host_config.network_mode) {
                network::write_files(host, record, &places.dir, &[])?;
            }
            places.dir.clone()
        }
    };
    Ok(FILES
        .iter()
        .map(|(target, name)| (*target, dir.join(name)))
        .collect())
}

fn devices(host: &HostConfig) -> Result<Vec<HostDevice>> {
    let mut list = Vec::new();
    if host.privileged {
        collect_devices(Path::new("/dev"), &mut list);
    }
    for mapping in &host.resources.devices {
        let source = Path::new(&mapping.path_on_host);
        let gather = |error: std::io::Error| {
            let errno = nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or_default());
            // As Docker's client reads it, a program that was not found: exit code 127.
            let message = format!(
                "error gathering device information while adding custom device {:?}: {}",
                mapping.path_on_host,
                errno.desc().to_lowercase()
            );
            Error::Runtime { message }
        };
        let meta = fs::metadata(source).map_err(gather)?;
        let device = device(
            &meta,
            source,
            &mapping.path_in_container,
            &mapping.cgroup_permissions,
        );
        match device {
            Some(device) => list.push(device),
            None if meta.is_dir() => collect_devices(source, &mut list),
            None => {
                return Err(Error::Invalid(format!(
                    "not a device node: {:?}",
                    mapping.path_on_host
                )));
            }
        }
    }
    Ok(list)
}

fn device(meta: &fs::Metadata, source: &Path, path: &str, access: &str) -> Option<HostDevice> {
    let kind = if meta.file_type().is_char_device() {
        'c'
    } else if meta.file_type().is_block_device() {
        'b'
    } else {
        return None;
    };
    Some(HostDevice {
        path: path.to_owned(),
        source: source.to_owned(),
        kind,
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        access: access.to_owned(),
    })
}

/// All device nodes below `dir`, but not terminals and shared memory, which a container has of
/// its own (moby daemon/oci_linux.go, `HostDevices`).
fn collect_devices(dir: &Path, list: &mut Vec<HostDevice>) {
    const OWN: &[&str] = &[
        "pts",
        "shm",
        "fd",
        "mqueue",
        ".lxc",
        ".lxd-mounts",
        ".udev",
        "console",
        "ptmx",
    ];
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Ok(meta) = entry.path().symlink_metadata() else {
            continue;
        };
        if OWN.iter().any(|own| name == *own) {
            continue;
        }
        if meta.is_dir() {
            collect_devices(&entry.path(), list);
        } else {
            let path = entry.path();
            list.extend(device(&meta, &path, &path.display().to_string(), "rwm"));
        }
    }
}

fn block_devices(host: &HostConfig) -> Result<BTreeMap<String, (u32, u32)>> {
    let limits = &host.resources;
    let throttled = [
        &limits.blkio_device_read_bps,
        &limits.blkio_device_write_bps,
        &limits.blkio_device_read_iops,
        &limits.blkio_device_write_iops,
    ];
    let weighted = limits.blkio_weight_device.iter().map(|device| &device.path);
    let paths = throttled
        .into_iter()
        .flatten()
        .map(|device| &device.path)
        .chain(weighted);
    paths
        .map(|path| {
            let meta =
                fs::metadata(path).map_err(|errno| Error::host("stat", Path::new(path), errno))?;
            let rdev = meta.rdev();
            Ok((
                path.clone(),
                (rustix::fs::major(rdev), rustix::fs::minor(rdev)),
            ))
        })
        .collect()
}

/// Counters of thermal throttling tell one container what others do; they are masked.
fn thermal(cpus: &Path) -> Vec<String> {
    let mut list: Vec<String> = fs::read_dir(cpus)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.is_dir())
        .map(|path| path.display().to_string())
        .collect();
    list.sort();
    list
}

fn seccomp_profile(host: &HostConfig) -> Result<Option<Value>> {
    let given = host.security_opt.iter().flatten().find_map(|option| {
        option
            .strip_prefix("seccomp=")
            .or_else(|| option.strip_prefix("seccomp:"))
    });
    let caps = spec::capabilities(host)?;
    let machine = seccomp::Machine::this();
    let profile = match given {
        Some("unconfined") => None,
        None if host.privileged => None,
        None | Some("builtin") => Some(seccomp::default_profile(&caps, machine)),
        Some(text) => seccomp::read_profile(text.as_bytes(), &caps, machine)?,
    };
    let value = profile.map(serde_json::to_value).transpose();
    value.map_err(|source| Error::Corrupt {
        path: "the seccomp profile".into(),
        source,
    })
}

/// Places where distributions keep a static init.
const INITS: &[&str] = &[
    "/usr/libexec/docker/docker-init",
    "/usr/bin/docker-init",
    "/usr/local/bin/docker-init",
    "/usr/bin/tini-static",
    "/usr/bin/catatonit",
    "/usr/libexec/podman/catatonit",
];

fn init_program(host: &HostConfig) -> Result<Option<PathBuf>> {
    if host.init != Some(true) {
        return Ok(None);
    }
    let found = INITS.iter().map(PathBuf::from).find(|path| path.is_file());
    found.map(Some).ok_or_else(|| Error::Hinted {
        message: "--init needs a static init program, and there is none here".to_owned(),
        hint: "install tini or catatonit, for example as /usr/bin/docker-init".to_owned(),
    })
}

fn spawn_monitor(host: &Host, container: &Container) -> Result<Session> {
    let program = Path::new("/proc/self/exe");
    let fail = |errno| Error::host("execute the monitor", program, errno);
    let (ours, theirs) = UnixStream::pair().map_err(fail)?;
    Command::new(program)
        .arg("--data-root")
        .arg(&host.data_root)
        .arg("--exec-root")
        .arg(&host.exec_root)
        .args(["__monitor", &container.record.id])
        .env_remove("DOCKER_HOST")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(fail)?;
    Ok(Session::over(ours, &container.record.id))
}
