//! The bundles that are measured: the one `runc spec` writes, and variants of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::filter;
use crate::host::Host;

/// What differs from the default bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Nothing.
    Plain,
    /// The rule `runc spec` writes that denies every device, so that a cgroup device filter is
    /// loaded. Not in the others: Debian's crun cannot load one without `CAP_SYS_RESOURCE`.
    Devices,
    /// A seccomp profile of the size and form of Docker's default one.
    Seccomp,
    /// This many bind mounts of one directory.
    Binds(usize),
    /// Both: what `docker run` with volumes asks for.
    Docker { binds: usize },
    /// A new user namespace with one range of ids.
    UserNamespace,
    /// A memory limit, KiB.
    Memory(u64),
}

/// Writes a bundle that runs `args`, and returns its directory.
///
/// All bundles share one root file system: a static busybox and empty mount points.
///
/// # Errors
/// If busybox is not found, or the work directory cannot be written.
pub fn write(host: &Host, variant: Variant, args: &[&str]) -> Result<String, String> {
    let rootfs = rootfs(host)?;
    let config = config(&rootfs, variant, args)?;
    let name: String = format!("{variant:?}-{}", args.join("-"))
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let dir = host.path(&name);
    let fail = |e: std::io::Error| format!("cannot write the bundle {}: {e}", dir.display());
    fs::create_dir_all(&dir).map_err(fail)?;
    fs::write(dir.join("config.json"), config.to_string()).map_err(fail)?;
    Ok(dir.to_string_lossy().into_owned())
}

/// The root file system that all bundles share; made at the first call.
pub fn rootfs(host: &Host) -> Result<PathBuf, String> {
    let root = host.path("rootfs");
    if root.exists() {
        return Ok(root);
    }
    let fail = |e: std::io::Error| format!("cannot make the root file system: {e}");
    for dir in ["bin", "proc", "dev", "sys", "data", "mnt"] {
        fs::create_dir_all(root.join(dir)).map_err(fail)?;
    }
    for n in 0..64 {
        fs::create_dir(root.join("mnt").join(n.to_string())).map_err(fail)?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .ok_or("busybox is not found: install busybox-static")?;
    fs::copy(busybox, root.join("bin/busybox")).map_err(fail)?;
    for applet in ["true", "sh", "sleep"] {
        fs::hard_link(root.join("bin/busybox"), root.join("bin").join(applet)).map_err(fail)?;
    }
    // The mapped root of a user namespace must be able to walk down to it.
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(host.path(""), open).map_err(fail)?;
    Ok(root)
}

fn config(rootfs: &Path, variant: Variant, args: &[&str]) -> Result<Value, String> {
    let mut config = default(rootfs, args);
    let seccomp = match variant {
        Variant::Seccomp | Variant::Docker { .. } => Some(filter::profile()?),
        _ => None,
    };
    if let Some(profile) = seccomp {
        config["linux"]["seccomp"] = profile;
    }
    if variant == Variant::Devices {
        config["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    }
    if let Variant::Binds(count) | Variant::Docker { binds: count } = variant {
        let data = rootfs.join("data").to_string_lossy().into_owned();
        let mounts = config["mounts"]
            .as_array_mut()
            .expect("default() made it an array");
        mounts.extend((0..count).map(|n| {
            json!({"destination": format!("/mnt/{n}"), "type": "bind", "source": data,
                   "options": ["rbind"]})
        }));
    }
    if let Variant::Memory(kib) = variant {
        config["linux"]["resources"] = json!({"memory": {"limit": kib * 1024}});
        // Of a v2 cgroup only: the list of mounts is the same otherwise.
        if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            let namespaces = config["linux"]["namespaces"].as_array_mut();
            namespaces
                .expect("default() made it an array")
                .retain(|ns| ns["type"] != "cgroup");
        }
    }
    if variant == Variant::UserNamespace {
        let range = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        config["linux"]["uidMappings"] = range.clone();
        config["linux"]["gidMappings"] = range;
        let namespaces = config["linux"]["namespaces"].as_array_mut();
        namespaces
            .expect("default() made it an array")
            .push(json!({"type": "user"}));
    }
    Ok(config)
}

/// What `runc spec` writes on cgroup v2, without a terminal and without its device rule.
fn default(rootfs: &Path, args: &[&str]) -> Value {
    let caps = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": rootfs, "readonly": true},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {

            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                           {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys",
                            "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                            "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                              "/proc/sysrq-trigger"]
        }
    })
}
