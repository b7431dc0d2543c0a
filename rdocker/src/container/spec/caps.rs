//! Capability lists: Docker's fourteen, `--cap-add`, `--cap-drop`, `--privileged`.

use crate::container::api::HostConfig;
use crate::error::{Error, Result};

/// What a container gets unless told otherwise (moby `caps.DefaultCapabilities`).
const DEFAULT: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Every capability of Linux 6.18, in the kernel's order (capability.h).
const ALL: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// "All" capabilities: those that this process may give away itself (capabilities(7), bounding
/// set). An engine that is confined itself cannot start anyone with more.
pub fn available() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let mask = mask
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    let held = ALL
        .iter()
        .enumerate()
        .filter(|(bit, _)| mask & (1 << bit) != 0);
    held.map(|(_, name)| (*name).to_owned()).collect()
}

/// The container's capabilities by name, in a fixed order.
///
/// # Errors
/// `invalid CapAdd: unknown capability: "CAP_X"`.
pub fn names(host: &HostConfig) -> Result<Vec<String>> {
    let owned = |list: &[&str]| {
        list.iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let add = normalise(host.cap_add.as_deref().unwrap_or_default(), "CapAdd")?;
    let drop = normalise(host.cap_drop.as_deref().unwrap_or_default(), "CapDrop")?;
    if host.privileged {
        return Ok(available());
    }
    let mut list = if add.iter().any(|name| name == "ALL") {
        available()
    } else if drop.iter().any(|name| name == "ALL") {
        Vec::new()
    } else {
        owned(DEFAULT)
    };
    list.retain(|name| !drop.contains(name));
    for name in add {
        if name != "ALL" && !list.contains(&name) {
            list.push(name);
        }
    }
    Ok(list)
}

fn normalise(names: &[String], flag: &str) -> Result<Vec<String>> {
    let one = |name: &String| {
        let upper = name.to_uppercase();
        if upper == "ALL" {
            return Ok(upper);
        }
        let name = if upper.starts_with("CAP_") {
            upper
        } else {
            format!("CAP_{upper}")
        };
        if ALL.contains(&name.as_str()) {
            return Ok(name);
        }
        Err(Error::Invalid(format!(
            "invalid {flag}: unknown capability: {name:?}"
        )))
    };
    names.iter().map(one).collect()
}
