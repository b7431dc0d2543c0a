//! Other settings of `linux`, and newer fields, that break a rule.
#![allow(
    clippy::too_many_lines,
    reason = "flat tables: one row after the other"
)]

use super::Row;
use serde_json::{Value, json};

pub fn rows() -> Vec<Row> {
    [linux(), newer()].into_iter().flatten().collect()
}

fn linux() -> Vec<Row> {
    let device = |extra: Value| {
        let mut device = json!({ "path": "/dev/x", "type": "c", "major": 1, "minor": 3 });
        for (key, value) in extra.as_object().into_iter().flatten() {
            device[key] = value.clone();
        }
        json!([device])
    };
    vec![
        Row::set(
            "device without a path",
            "/linux/devices",
            json!([{ "type": "c", "major": 1, "minor": 3 }]),
            &[".linux.devices[0]"],
        )
        .runc_accepts(),
        Row::set(
            "device path relative",
            "/linux/devices",
            device(json!({ "path": "x" })),
            &[".linux.devices[0].path"],
        )
        .runc_accepts(),
        Row::set(
            "device type unknown",
            "/linux/devices",
            device(json!({ "type": "q" })),
            &[".linux.devices[0].type"],
        ),
        Row::set(
            "device type empty",
            "/linux/devices",
            device(json!({ "type": "" })),
            &[".linux.devices[0].type"],
        ),
        Row::set(
            "cgroups path climbs",
            "/linux/cgroupsPath",
            json!("/../../x"),
            &[".linux.cgroupsPath"],
        )
        .runc_accepts(),
        Row::set(
            "seccomp action unknown",
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_NONE" }),
            &["SCMP_ACT_NONE"],
        ),
        Row::set(
            "seccomp architecture unknown",
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_VAX"] }),
            &["SCMP_ARCH_VAX"],
        ),
        Row::set(
            "seccomp operator unknown",
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_LIKE" }] }],
            }),
            &["SCMP_CMP_LIKE"],
        ),
        Row::set(
            "seccomp flag unknown",
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAT"],
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }],
            }),
            &["SECCOMP_FILTER_FLAG_WAT"],
        ),
        Row::set(
            "resctrl on a host without",
            "/linux/intelRdt",
            json!({ "closID": "a/b", "l3CacheSchema": "L3:0=f" }),
            &[".linux.intelRdt"],
        ),
        Row::set(
            "unified on cgroup v1",
            "/linux/resources",
            json!({ "unified": { "memory.high": "1" } }),
            &["unified"],
        ),
        Row::set(
            "swap below memory",
            "/linux/resources",
            json!({ "memory": { "limit": 10_000_000, "swap": 5_000_000 } }),
            &["memory+swap limit should be >= memory limit"],
        ),
        Row::set(
            "cpuset of nowhere",
            "/linux/resources",
            json!({ "cpu": { "cpus": "900-901" } }),
            &["cpu"],
        ),
        Row::set(
            "cpuset of letters",
            "/linux/resources",
            json!({ "cpu": { "cpus": "abc" } }),
            &["cpus"],
        ),
        Row::set(
            "device rule of an unknown type",
            "/linux/resources",
            json!({ "devices": [{ "allow": true, "type": "z" }] }),
            &[".linux.resources.devices[0].type"],
        ),
        Row::set(
            "device rule of an unknown access",
            "/linux/resources",
            json!({ "devices": [{ "allow": true, "access": "xyz" }] }),
            &[".linux.resources.devices[0].access"],
        )
        .runc_accepts(),
    ]
}

/// Fields that 1.1.5 does not know, and so does not check.
fn newer() -> Vec<Row> {
    let offsets = json!({ "boottime": { "secs": 5 } });
    let scheduler = |value: Value, name: &'static str, says: &'static [&'static str]| {
        Row::set(name, "/process/scheduler", value, says)
    };
    let policy = |value: Value, name: &'static str, says: &'static [&'static str]| {
        Row::set(name, "/linux/memoryPolicy", value, says)
    };
    let rows = vec![
        Row::set(
            "time offsets without a time namespace",
            "/linux/timeOffsets",
            offsets.clone(),
            &[".linux.timeOffsets"],
        ),
        Row::with(
            "time offsets for a joined namespace",
            move |bundle| {
                bundle
                    .join("time", "/proc/self/ns/time")
                    .set("/linux/timeOffsets", offsets.clone());
            },
            &[".linux.timeOffsets"],
        ),
        Row::with(
            "domainname without a uts namespace",
            |bundle| {
                bundle
                    .share("uts")
                    .unset("/hostname")
                    .set("/domainname", "example.org");
            },
            &[".domainname"],
        ),
        scheduler(
            json!({ "nice": 1 }),
            "scheduler without a policy",
            &[".process.scheduler"],
        ),
        scheduler(
            json!({ "policy": "SCHED_NONE" }),
            "scheduler unknown",
            &[".process.scheduler.policy"],
        ),
        scheduler(
            json!({ "policy": "SCHED_OTHER", "nice": 20 }),
            "nice too high",
            &[".process.scheduler.nice"],
        ),
        scheduler(
            json!({ "policy": "SCHED_OTHER", "nice": -21 }),
            "nice too low",
            &[".process.scheduler.nice"],
        ),
        scheduler(
            json!({ "policy": "SCHED_OTHER", "priority": 5 }),
            "priority without real time",
            &[".process.scheduler.priority"],
        ),
        scheduler(
            json!({ "policy": "SCHED_FIFO", "priority": 1, "runtime": 5 }),
            "runtime without deadline",
            &[".process.scheduler.runtime"],
        ),
        scheduler(
            json!({ "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NONE"] }),
            "scheduler flag unknown",
            &[".process.scheduler.flags"],
        ),
        Row::set(
            "io class unknown",
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_X", "priority": 1 }),
            &[".process.ioPriority.class"],
        ),
        Row::set(
            "io priority too high",
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
            &[".process.ioPriority.priority"],
        ),
        Row::set(
            "personality unknown",
            "/linux/personality",
            json!({ "domain": "SOLARIS" }),
            &[".linux.personality.domain"],
        ),
        policy(
            json!({ "mode": "MPOL_NONE" }),
            "memory policy unknown",
            &[".linux.memoryPolicy.mode"],
        ),
        policy(
            json!({ "mode": "MPOL_BIND" }),
            "memory policy without nodes",
            &[".linux.memoryPolicy.nodes"],
        ),
        policy(
            json!({ "mode": "MPOL_LOCAL", "nodes": "0" }),
            "memory policy with nodes too many",
            &[".linux.memoryPolicy.nodes"],
        ),
        policy(
            json!({ "mode": "MPOL_BIND", "nodes": "0-x" }),
            "memory policy of letters",
            &[".linux.memoryPolicy.nodes"],
        ),
        policy(
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_X"] }),
            "memory policy flag unknown",
            &[".linux.memoryPolicy.flags"],
        ),
        Row::with(
            "net device without a network namespace",
            |bundle| {
                bundle
                    .share("network")
                    .set("/linux/netDevices", json!({ "lo": {} }));
            },
            &[".linux.netDevices"],
        ),
        Row::set(
            "net device not there",
            "/linux/netDevices",
            json!({ "nosuch0": {} }),
            &[],
        ),
        Row::set(
            "net device name too long",
            "/linux/netDevices",
            json!({ "nosuch0": { "name": "a2345678901234567" } }),
            &[".linux.netDevices"],
        ),
        Row::with(
            "id map on a mount that is no bind",
            |bundle| {
                let map = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
                bundle.push("/mounts", json!({
                "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "uidMappings": map, "gidMappings": map,
            }));
            },
            &[".mounts[6]"],
        ),
        Row::with(
            "id map of users only",
            |bundle| {
                let map = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
                bundle.push("/mounts", json!({
                "destination": "/mnt", "type": "bind", "source": "/tmp", "options": ["bind"], "uidMappings": map,
            }));
            },
            &[".mounts[6]"],
        ),
        Row::with(
            "id map option without a user namespace",
            |bundle| {
                bundle.mount("bind", "/tmp", "/mnt", "bind,idmap");
            },
            &[".mounts[6]"],
        ),
        Row::set(
            "umask too large",
            "/process/user/umask",
            json!(0o10_000),
            &[".process.user.umask"],
        ),
    ];
    rows.into_iter().map(Row::runc_accepts).collect()
}
