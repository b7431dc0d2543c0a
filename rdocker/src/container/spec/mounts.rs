//! The `mounts` section: the system's own, then the user's, parents before children.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Facts;
use super::linux::Security;
use crate::container::api::HostConfig;
use crate::volume::MountPoint;

/// Where `--init` puts its init.
pub const INIT_PATH: &str = "/sbin/docker-init";

/// All mounts in the order the runtime makes them.
pub fn list(host: &HostConfig, facts: &Facts, security: &Security) -> Vec<Value> {
    let mut own = user_mounts(host, facts);
    own.sort_by_key(|(target, _)| target.matches('/').count());
    let taken: BTreeSet<&str> = own.iter().map(|(target, _)| target.as_str()).collect();
    let mut list: Vec<Value> = system_mounts(host, facts, security)
        .into_iter()
        .filter(|mount| !taken.contains(mount["destination"].as_str().unwrap_or_default()))
        .collect();
    list.extend(own.into_iter().map(|(_, mount)| mount));
    list
}

/// Docker's default mounts, in its order (moby daemon/pkg/oci/defaults.go).
fn system_mounts(host: &HostConfig, facts: &Facts, security: &Security) -> Vec<Value> {
    let access = if security.unconfined_paths {
        "rw"
    } else {
        "ro"
    };
    let mount = |target: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": source, "options": options});
    // The machine's network belongs to another user namespace, whose sysfs only it can mount.
    let sys = if facts.in_user_namespace && host.network_mode == "host" {
        mount(
            "/sys",
            "bind",
            "/sys",
            &["rbind", "rslave", "nosuid", "noexec", "nodev", "rro"],
        )
    } else {
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", access],
        )
    };
    let terminals: &[&str] = &[
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
        "gid=5",
    ];
    let terminals = &terminals[..terminals.len() - usize::from(facts.lacks_tty_group)];
    let mut list = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount("/dev/pts", "devpts", "devpts", terminals),
        sys,
    ];
    if facts.cgroup.is_some() {
        let options = [access, "nosuid", "noexec", "nodev", "relatime"];
        list.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &options));
    }
    if host.ipc_mode == "host" {
        for path in &facts.host_ipc {
            list.push(mount(
                path,
                "bind",
                path,
                &["rbind", "nosuid", "noexec", "nodev"],
            ));
        }
        return list;
    }
    list.push(mount(
        "/dev/mqueue",
        "mqueue",
        "mqueue",
        &["nosuid", "noexec", "nodev"],
    ));
    let shm_options = ["nosuid", "noexec", "nodev", "mode=1777"];
    match &facts.shm {
        Some(dir) => list.push(json!({
            "destination": "/dev/shm", "type": "bind", "source": dir,
            "options": ["rbind", "nosuid", "noexec", "nodev"],
        })),
        None if host.ipc_mode == "none" => {}
        None => {
            let size = format!("size={}", host.shm_size);
            let mut options: Vec<&str> = shm_options.to_vec();
            options.push(&size);
            list.push(mount("/dev/shm", "tmpfs", "shm", &options));
        }
    }
    list
}

fn user_mounts(host: &HostConfig, facts: &Facts) -> Vec<(String, Value)> {
    let mut list: Vec<(String, Value)> = facts
        .mounts
        .iter()
        .map(|mount| (mount.destination.clone(), user_mount(mount)))
        .collect();
    for (target, options) in &host.tmpfs {
        let mut all = vec!["noexec".to_owned(), "nosuid".to_owned(), "nodev".to_owned()];
        // The user's `exec` takes the default's `noexec` away; the last word wins.
        all.extend(
            options
                .split(',')
                .filter(|word| !word.is_empty())
                .map(str::to_owned),
        );
        list.push((
            target.clone(),
            json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": all}),
        ));
    }
    let covered = |target: &str, list: &[(String, Value)]| list.iter().any(|(t, _)| t == target);
    for (target, source) in &facts.files {
        if !covered(target, &list) {
            let options = if host.readonly_rootfs {
                ["rbind", "rprivate", "ro"].as_slice()
            } else {
                ["rbind", "rprivate"].as_slice()
            };
            list.push((
                (*target).to_owned(),
                json!({"destination": target, "type": "bind", "source": source, "options": options}),
            ));
        }
    }
    if facts.in_user_namespace {
        for device in &facts.devices {
            list.push((
                device.path.clone(),
                json!({"destination": device.path, "type": "bind", "source": device.source, "options": ["bind", "nosuid", "noexec"]}),
            ));
        }
    }
    if let Some(init) = &facts.init {
        list.push((
            INIT_PATH.to_owned(),
            json!({
                "destination": INIT_PATH, "type": "bind", "source": init,
                "options": ["bind", "ro", "nosuid", "nodev"],
            }),
        ));
    }
    list
}

fn user_mount(mount: &MountPoint) -> Value {
    if mount.kind == "tmpfs" {
        let mut options = vec!["noexec".to_owned(), "nosuid".to_owned(), "nodev".to_owned()];
        options.extend(mount.tmpfs_size.map(|size| format!("size={size}")));
        options.extend(mount.tmpfs_mode.map(|mode| format!("mode={mode:o}")));
        if !mount.rw {
            options.push("ro".to_owned());
        }
        return json!({
            "destination": mount.destination, "type": "tmpfs", "source": "tmpfs",
            "options": options,
        });
    }
    let mut options = vec![if mount.non_recursive { "bind" } else { "rbind" }.to_owned()];
    if !mount.rw {
        options.push("ro".to_owned());
    }
    let propagation = if mount.propagation.is_empty() {
        "rprivate"
    } else {
        mount.propagation.as_str()
    };
    options.push(propagation.to_owned());
    json!({
        "destination": mount.destination, "type": "bind", "source": mount.bind_source(),
        "options": options,
    })
}
