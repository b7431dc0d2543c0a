//! Container to OCI spec: one pure function, [`build`].
//!
//! Whatever the answer depends on beside the two Docker objects is in [`Facts`], which
//! [`super::start`] gathers, so that every flag is a row of a table test.
//! Sources: runtime-spec config.md and config-linux.md; moby daemon/oci_linux.go and
//! daemon/pkg/oci/defaults.go for the defaults.

mod caps;
mod linux;
mod mounts;

pub use caps::{available as available_capabilities, names as capabilities};
pub use linux::limits;

/// The paths that a container of this request does not see, and those that it only reads.
///
/// # Errors
/// A security option that nobody knows.
pub fn default_paths(host: &HostConfig) -> Result<[&'static [&'static str]; 2]> {
    linux::Security::parse(host).map(|security| linux::default_paths(&security))
}

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::api::{Config, HostConfig};
use super::identity::Identity;
use super::merge;
use crate::error::{Error, Result};
use crate::volume::MountPoint;

/// What the spec depends on beside `Config` and `HostConfig`.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The container's id.
    pub id: String,
    /// The mounted root.
    pub rootfs: PathBuf,
    /// Who the first process is.
    pub identity: Identity,
    /// Volumes, binds and tmpfs, sources settled.
    pub mounts: Vec<MountPoint>,
    /// Generated files bound over the image's: target, source.
    pub files: Vec<(&'static str, PathBuf)>,
    /// Directory that is the shareable /dev/shm, else a private one is mounted.
    pub shm: Option<PathBuf>,
    /// Those of /dev/mqueue and /dev/shm that this machine has, for `--ipc host`.
    pub host_ipc: Vec<&'static str>,
    /// Variables of the container's links, below its own.
    pub env: Vec<String>,
    /// Namespaces to join: runtime-spec type to path.
    pub join: BTreeMap<&'static str, PathBuf>,
    /// Host devices of `--device` and of privileged containers.
    pub devices: Vec<HostDevice>,
    /// Device numbers of block devices that have limits: path to major, minor.
    pub block_devices: BTreeMap<String, (u32, u32)>,
    /// Directories of thermal throttle counters, one per CPU that has them.
    pub thermal: Vec<String>,
    /// The seccomp profile of the container.
    pub seccomp: Option<Value>,
    /// The host's path of the static init that `--init` puts in.
    pub init: Option<PathBuf>,
    /// The container's cgroup as the runtime takes it; `None` where none can be made.
    pub cgroup: Option<String>,
    /// Root here is not the machine's root.
    pub in_user_namespace: bool,
    /// Group 5, which owns terminals, is not mapped here.
    pub lacks_tty_group: bool,
}

/// A device node on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostDevice {
    /// Path in the container.
    pub path: String,
    /// Path on the host.
    pub source: PathBuf,
    /// `c` or `b`.
    pub kind: char,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Some of `rwm`.
    pub access: String,
}

/// Finds at `create` what would fail at `start`.
///
/// # Errors
/// As [`build`].
pub fn check(host: &HostConfig) -> Result<()> {
    linux::Security::parse(host)?;
    caps::names(host)?;
    for rule in host.resources.device_cgroup_rules.iter().flatten() {
        if linux::rule(rule).is_none() {
            return Err(Error::Invalid(format!(
                "invalid device cgroup format: '{rule}'"
            )));
        }
    }
    Ok(())
}

/// The whole config.json.
///
/// # Errors
/// An unknown capability or security option.
pub fn build(config: &Config, host: &HostConfig, facts: &Facts) -> Result<Value> {
    let security = linux::Security::parse(host)?;
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": process(config, host, facts, &security)?,
        "root": {"path": facts.rootfs, "readonly": host.readonly_rootfs},
        "hostname": hostname(config, host),
        "mounts": mounts::list(host, facts, &security),
        "annotations": host.annotations,
        "linux": linux::section(host, facts, &security),
    }))
}

fn hostname(config: &Config, host: &HostConfig) -> Option<String> {
    // In the host's UTS namespace setting a name would rename the machine.
    (host.uts_mode != "host").then(|| config.hostname.clone())
}

fn process(
    config: &Config,
    host: &HostConfig,
    facts: &Facts,
    security: &linux::Security,
) -> Result<Value> {
    let mut args = merge::command_line(config);
    if facts.init.is_some() {
        args.splice(0..0, [mounts::INIT_PATH.to_owned(), "--".to_owned()]);
    }
    let cwd = if config.working_dir.is_empty() {
        "/"
    } else {
        &config.working_dir
    };
    let id = &facts.identity;
    let mut process = json!({
        "terminal": config.tty,
        "user": {"uid": id.uid, "gid": id.gid, "additionalGids": groups(id)},
        "args": args,
        "env": merge::overlay(facts.env.clone(), &merge::environment(config)),
        "cwd": cwd,
        "capabilities": capability_sets(host, id.uid)?,
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
        "rlimits": rlimits(host),
    });
    if let Some(profile) = &security.apparmor {
        process["apparmorProfile"] = profile.as_str().into();
    }
    if let [rows, columns] = host.console_size
        && config.tty
        && rows > 0
    {
        process["consoleSize"] = json!({"height": rows, "width": columns});
    }
    Ok(process)
}

/// The kernel's supplementary list holds the primary group too, as login(1) leaves it.
fn groups(id: &Identity) -> Vec<u32> {
    let mut groups = vec![id.gid];
    groups.extend(id.groups.iter().filter(|gid| **gid != id.gid));
    groups
}

/// Bounding always; permitted and effective for root only, as the kernel would leave them after
/// execve by another user; inheritable and ambient stay empty (CVE-2022-24769).
fn capability_sets(host: &HostConfig, uid: u32) -> Result<Value> {
    let bounding = caps::names(host)?;
    let held = if uid == 0 {
        bounding.clone()
    } else {
        Vec::new()
    };
    Ok(json!({"bounding": bounding, "permitted": held, "effective": held}))
}

fn rlimits(host: &HostConfig) -> Vec<Value> {
    let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    let entry = |ulimit: &super::api::Ulimit| {
        json!({
            "type": format!("RLIMIT_{}", ulimit.name.to_uppercase()),
            "soft": limit(ulimit.soft),
            "hard": limit(ulimit.hard),
        })
    };
    host.resources.ulimits.iter().map(entry).collect()
}

#[cfg(test)]
mod tests;
