//! The `linux` section: namespaces, devices, resources, paths, seccomp.

use serde_json::{Value, json};

use super::{Facts, HostDevice};
use crate::container::api::{HostConfig, Resources, ThrottleDevice};
use crate::error::{Error, Result};

/// Hidden from containers (moby daemon/pkg/oci/defaults.go, 2026-08).
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Read-only for containers (same source).
const READONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Character devices every container may use: null, zero, full, tty, urandom, random, console,
/// ptmx, and its own terminals. Major, minor; no minor is all of them.
const DEVICE_RULES: &[(char, u32, Option<u32>)] = &[
    ('c', 1, Some(3)),
    ('c', 1, Some(5)),
    ('c', 1, Some(7)),
    ('c', 1, Some(8)),
    ('c', 1, Some(9)),
    ('c', 5, Some(0)),
    ('c', 5, Some(1)),
    ('c', 5, Some(2)),
    ('c', 136, None),
];

/// What `--security-opt` and `--privileged` mean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// execve may not gain privileges.
    pub no_new_privileges: bool,
    /// Name of the AppArmor profile.
    pub apparmor: Option<String>,
    /// Nothing masked, nothing read-only below /proc and /sys.
    pub unconfined_paths: bool,
}

impl Security {
    /// Reads the options.
    ///
    /// # Errors
    /// `invalid --security-opt 2: "x"` for what docker does not know either.
    pub fn parse(host: &HostConfig) -> Result<Self> {
        let mut security = Self {
            unconfined_paths: host.privileged,
            ..Self::default()
        };
        for option in host.security_opt.iter().flatten() {
            let (key, value) = option
                .split_once('=')
                .or_else(|| option.split_once(':'))
                .unwrap_or((option, ""));
            match (key, value) {
                ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
                ("no-new-privileges", "false") => security.no_new_privileges = false,
                ("apparmor", "unconfined") => security.apparmor = None,
                ("apparmor", profile) if !profile.is_empty() => {
                    security.apparmor = Some(profile.to_owned());
                }
                ("systempaths", "unconfined") => security.unconfined_paths = true,
                // Read by `start`, which compiles the profile.
                ("seccomp", profile) if !profile.is_empty() => {}
                // Labels have a meaning on SELinux machines only.
                ("label", label) if !label.is_empty() => {}
                _ => {
                    return Err(Error::Invalid(format!(
                        "invalid --security-opt: {option:?}"
                    )));
                }
            }
        }
        Ok(security)
    }
}

/// The paths that are hidden and those that are read-only where nothing else is asked for.
pub fn default_paths(security: &Security) -> [&'static [&'static str]; 2] {
    match security.unconfined_paths {
        true => [&[], &[]],
        false => [MASKED, READONLY],
    }
}

/// The whole section.
pub fn section(host: &HostConfig, facts: &Facts, security: &Security) -> Value {
    let mut section = json!({
        "namespaces": namespaces(host, facts),
        "devices": device_nodes(facts),
        "sysctl": host.sysctls,
    });
    if let Some(cgroup) = &facts.cgroup {
        section["cgroupsPath"] = cgroup.as_str().into();
        section["resources"] = resources(host, facts);
    }
    if !security.unconfined_paths {
        let [masked, readonly] = default_paths(security);
        let mut masked: Vec<String> = masked.iter().map(|path| (*path).to_owned()).collect();
        masked.extend(facts.thermal.iter().cloned());
        section["maskedPaths"] = masked.into();
        section["readonlyPaths"] = readonly.into();
    }
    if let Some(profile) = &facts.seccomp {
        section["seccomp"] = profile.clone();
    }
    let shared = |mount: &&crate::volume::MountPoint| mount.propagation.ends_with("shared");
    let slave = |mount: &&crate::volume::MountPoint| mount.propagation.ends_with("slave");
    if facts.mounts.iter().any(|mount| shared(&mount)) {
        section["rootfsPropagation"] = "shared".into();
    } else if facts.mounts.iter().any(|mount| slave(&mount)) {
        section["rootfsPropagation"] = "rslave".into();
    }
    section
}

fn namespaces(host: &HostConfig, facts: &Facts) -> Vec<Value> {
    let own = [
        ("mount", true),
        ("network", host.network_mode != "host"),
        ("uts", host.uts_mode != "host"),
        ("pid", host.pid_mode != "host"),
        ("ipc", host.ipc_mode != "host"),
        ("cgroup", host.cgroupns_mode != "host"),
    ];
    let present = own.iter().filter(|(_, wanted)| *wanted);
    present
        .map(|(kind, _)| match facts.join.get(kind) {
            Some(path) => json!({"type": kind, "path": path}),
            None => json!({"type": kind}),
        })
        .collect()
}

/// In a user namespace none can be made: the host's are mounted instead.
fn device_nodes(facts: &Facts) -> Vec<Value> {
    if facts.in_user_namespace {
        return Vec::new();
    }
    facts.devices.iter().map(device_node).collect()
}

fn device_node(device: &HostDevice) -> Value {
    json!({
        "type": device.kind.to_string(), "path": device.path,
        "major": device.major, "minor": device.minor,
        "fileMode": device.mode, "uid": device.uid, "gid": device.gid,
    })
}

fn device_rules(host: &HostConfig, facts: &Facts) -> Vec<Value> {
    if host.privileged {
        return vec![json!({"allow": true, "access": "rwm"})];
    }
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    // Making a node is harmless while using it is not allowed, and image builds need mknod.
    for kind in ["c", "b"] {
        rules.push(json!({"allow": true, "type": kind, "access": "m"}));
    }
    for (kind, major, minor) in DEVICE_RULES {
        let mut rule =
            json!({"allow": true, "type": kind.to_string(), "major": major, "access": "rwm"});
        if let Some(minor) = minor {
            rule["minor"] = (*minor).into();
        }
        rules.push(rule);
    }
    for device in &facts.devices {
        rules.push(json!({
            "allow": true, "type": device.kind.to_string(),
            "major": device.major, "minor": device.minor, "access": device.access,
        }));
    }
    rules.extend(
        host.resources
            .device_cgroup_rules
            .iter()
            .flatten()
            .filter_map(|r| rule(r)),
    );
    rules
}

/// `c 1:3 mr`, with `*` for every number; `None` if it is not of that form.
pub fn rule(text: &str) -> Option<Value> {
    let mut words = text.split_whitespace();
    let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
    let (major, minor) = numbers.split_once(':')?;
    if !matches!(kind, "a" | "b" | "c") || !access.chars().all(|c| "rwm".contains(c)) {
        return None;
    }
    let mut rule = json!({"allow": true, "type": kind, "access": access});
    for (key, number) in [("major", major), ("minor", minor)] {
        if number != "*" {
            rule[key] = number.parse::<u32>().ok()?.into();
        }
    }
    Some(rule)
}

fn resources(host: &HostConfig, facts: &Facts) -> Value {
    let mut section = limits(&host.resources, facts);
    section["devices"] = device_rules(host, facts).into();
    section
}

/// `Resources` as the OCI runtime's `update` takes them, without device rules.
pub fn limits(resources: &Resources, facts: &Facts) -> Value {
    let mut section = json!({});
    let set = |section: &mut Value, group: &str, key: &str, value: Value| {
        section[group][key] = value;
    };
    let nonzero = |value: i64| (value != 0).then(|| Value::from(value));
    let memory = [
        ("limit", nonzero(resources.memory)),
        ("reservation", nonzero(resources.memory_reservation)),
        ("swap", nonzero(resources.memory_swap)),
        ("swappiness", resources.memory_swappiness.map(Value::from)),
        (
            "disableOOMKiller",
            resources.oom_kill_disable.map(Value::from),
        ),
    ];
    // `--cpus` is a quota over the default period of 100 ms.
    let cpus = resources.nano_cpus != 0;
    let quota = if cpus {
        resources.nano_cpus / 10_000
    } else {
        resources.cpu_quota
    };
    let period = if cpus { 100_000 } else { resources.cpu_period };
    let text = |text: &str| (!text.is_empty()).then(|| Value::from(text));
    let cpu = [
        ("shares", nonzero(resources.cpu_shares)),
        ("quota", nonzero(quota)),
        ("period", nonzero(period)),
        ("realtimeRuntime", nonzero(resources.cpu_realtime_runtime)),
        ("realtimePeriod", nonzero(resources.cpu_realtime_period)),
        ("cpus", text(&resources.cpuset_cpus)),
        ("mems", text(&resources.cpuset_mems)),
    ];
    let pids = [("limit", resources.pids_limit.map(Value::from))];
    for (group, fields) in [
        ("memory", memory.as_slice()),
        ("cpu", cpu.as_slice()),
        ("pids", pids.as_slice()),
    ] {
        for (key, value) in fields {
            if let Some(value) = value {
                set(&mut section, group, key, value.clone());
            }
        }
    }
    if let Some(block) = block_io(resources, facts) {
        section["blockIO"] = block;
    }
    section
}

fn block_io(resources: &Resources, facts: &Facts) -> Option<Value> {
    let numbers = |path: &str| facts.block_devices.get(path).copied();
    let throttle = |list: &[ThrottleDevice]| -> Value {
        let entry = |device: &ThrottleDevice| {
            let (major, minor) = numbers(&device.path)?;
            Some(json!({"major": major, "minor": minor, "rate": device.rate}))
        };
        list.iter().filter_map(entry).collect()
    };
    let mut block = json!({});
    if resources.blkio_weight != 0 {
        block["weight"] = resources.blkio_weight.into();
    }
    if !resources.blkio_weight_device.is_empty() {
        block["weightDevice"] = resources
            .blkio_weight_device
            .iter()
            .filter_map(|device| {
                let (major, minor) = numbers(&device.path)?;
                Some(json!({"major": major, "minor": minor, "weight": device.weight}))
            })
            .collect();
    }
    let lists = [
        ("throttleReadBpsDevice", &resources.blkio_device_read_bps),
        ("throttleWriteBpsDevice", &resources.blkio_device_write_bps),
        ("throttleReadIOPSDevice", &resources.blkio_device_read_iops),
        (
            "throttleWriteIOPSDevice",
            &resources.blkio_device_write_iops,
        ),
    ];
    for (key, list) in lists {
        if !list.is_empty() {
            block[key] = throttle(list);
        }
    }
    block
        .as_object()
        .is_some_and(|fields| !fields.is_empty())
        .then_some(block)
}
