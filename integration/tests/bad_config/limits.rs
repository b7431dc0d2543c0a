//! Limits and cgroup paths that no kernel takes, or that contradict each other.

use super::Row;
use serde_json::{Value, json};

/// `linux.resources`, and what is said of them.
fn limit(name: &'static str, resources: Value, says: &'static [&'static str]) -> Row {
    Row::set(name, "/linux/resources", resources, says)
}

fn path(name: &'static str, path: String, says: &'static [&'static str]) -> Row {
    Row::set(name, "/linux/cgroupsPath", path.into(), says)
}

/// The rows that hold on every version; `v2` adds those of v2, or of v1.
pub fn rows(v2: bool) -> Vec<Row> {
    let more = if v2 { of_v2() } else { of_v1() };
    [cpu(), memory(), block_io(), others(), paths(), more]
        .into_iter()
        .flatten()
        .collect()
}

fn cpu() -> Vec<Row> {
    vec![
        limit(
            "quota too small",
            json!({ "cpu": { "quota": 999 } }),
            &[".cpu.quota: 999"],
        ),
        limit(
            "quota negative",
            json!({ "cpu": { "quota": -2 } }),
            &[".cpu.quota: -2"],
        )
        .runc_accepts(),
        limit(
            "period too small",
            json!({ "cpu": { "period": 999 } }),
            &[".cpu.period: 999"],
        ),
        limit(
            "period too large",
            json!({ "cpu": { "period": 1_000_001 } }),
            &[".cpu.period: 1000001"],
        ),
        limit(
            "burst above the quota",
            json!({ "cpu": { "quota": 5000, "burst": 5001 } }),
            &[".cpu.burst: 5001"],
        )
        .runc_accepts(),
        limit(
            "idle of 2",
            json!({ "cpu": { "idle": 2 } }),
            &[".cpu.idle: 2"],
        )
        .runc_accepts(),
        limit(
            "cpus that are no list",
            json!({ "cpu": { "cpus": "1-" } }),
            &[".cpu.cpus", "1-"],
        ),
        limit(
            "mems that are no list",
            json!({ "cpu": { "mems": "0,,1" } }),
            &[".cpu.mems", "0,,1"],
        )
        .runc_accepts(),
        limit(
            "memory node of nowhere",
            json!({ "cpu": { "mems": "900" } }),
            &[
                ".cpu.mems: give only what the machine has",
                "900",
                "cpuset.mems",
            ],
        ),
        limit(
            "processor of nowhere",
            json!({ "cpu": { "cpus": "0,900" } }),
            &[
                ".cpu.cpus: give only what the machine has",
                "0,900",
                "cpuset.cpus",
            ],
        ),
    ]
}

fn memory() -> Vec<Row> {
    vec![
        limit(
            "memory negative",
            json!({ "memory": { "limit": -2 } }),
            &[".memory.limit: -2"],
        ),
        limit(
            "reservation negative",
            json!({ "memory": { "reservation": -2 } }),
            &[".memory.reservation: -2"],
        ),
        limit(
            "swap negative",
            json!({ "memory": { "limit": 9_000_000, "swap": -2 } }),
            &[".memory.swap: -2"],
        ),
        limit(
            "swap below memory",
            json!({ "memory": { "limit": 9_000_000, "swap": 8_000_000 } }),
            &[".memory.swap: memory+swap limit should be >= memory limit"],
        )
        .runc_accepts(),
        limit(
            "swappiness of 101",
            json!({ "memory": { "swappiness": 101 } }),
            &[".memory.swappiness: 101"],
        )
        .runc_accepts(),
    ]
}

fn block_io() -> Vec<Row> {
    let io = |limits: Value| json!({ "blockIO": limits });
    vec![
        limit(
            "weight of 9",
            io(json!({ "weight": 9 })),
            &[".blockIO.weight: 9", "10 to 1000"],
        )
        .runc_accepts(),
        limit(
            "weight of 1001",
            io(json!({ "weight": 1001 })),
            &[".blockIO.weight: 1001"],
        )
        .runc_accepts(),
        limit(
            "weight of a device of 1001",
            io(json!({ "weightDevice": [{ "major": 8, "minor": 0, "weight": 1001 }] })),
            &[".blockIO.weightDevice[0].weight: 1001"],
        )
        .runc_accepts(),
        limit(
            "throttle of a device that is none",
            io(json!({ "throttleReadBpsDevice": [{ "major": 4000, "minor": 7, "rate": 1 }] })),
            &[".blockIO.throttleReadBpsDevice[0].rate: there is no such device: write \"4000:7 "],
        ),
    ]
}

fn others() -> Vec<Row> {
    let huge = |size: &str, limit: i64| json!({ "hugepageLimits": [{ "pageSize": size, "limit": limit }] });
    let rule = |rule: Value| json!({ "devices": [rule] });
    vec![
        limit(
            "pids below -1",
            json!({ "pids": { "limit": -2 } }),
            &[".pids.limit: -2"],
        )
        .runc_accepts(),
        limit(
            "page size of no unit",
            huge("2", 0),
            &[".hugepageLimits[0].pageSize: \"2\""],
        ),
        limit(
            "page size that climbs",
            huge("../2MB", 0),
            &[".hugepageLimits[0].pageSize"],
        ),
        limit(
            "page size of nowhere",
            huge("3MB", 0),
            &[".hugepageLimits[0].limit", "3MB", "; remove the value"],
        ),
        limit(
            "huge pages negative",
            huge("2MB", -1),
            &[".hugepageLimits[0].limit"],
        )
        .runc_accepts(),
        limit(
            "RDMA device without limits",
            json!({ "rdma": { "mlx5": {} } }),
            &[".rdma.mlx5"],
        )
        .runc_accepts(),
        limit(
            "RDMA device with a space",
            json!({ "rdma": { "a b": { "hcaHandles": 1 } } }),
            &[".rdma", "a b"],
        ),
        limit(
            "device rule of a FIFO",
            rule(json!({ "allow": true, "type": "p" })),
            &[".devices[0].type"],
        )
        .runc_accepts(),
        limit(
            "device rule of -2",
            rule(json!({ "allow": true, "type": "c", "major": -2 })),
            &[".devices[0].major: -2"],
        )
        .runc_accepts(),
        limit(
            "device rule beyond all numbers",
            rule(json!({ "allow": true, "type": "c", "minor": 4_294_967_296_i64 })),
            &[".devices[0].minor: 4294967296"],
        )
        .runc_accepts(),
    ]
}

fn paths() -> Vec<Row> {
    vec![
        path(
            "path that climbs",
            "a/../../../b".into(),
            &[".linux.cgroupsPath"],
        )
        .runc_accepts(),
        path(
            "path of a name too long",
            format!("/{}", "n".repeat(300)),
            &[".linux.cgroupsPath: a name longer than 255 bytes"],
        )
        .runc_accepts(),
        path("path of 4 KiB", "/n".repeat(2100), &["cgroup"]),
        path("path with a NUL", "/a\0b".into(), &[".linux.cgroupsPath"]),
        path("path with a newline", "/a\nb".into(), &["cgroup"]),
    ]
}

fn of_v1() -> Vec<Row> {
    let rules = json!({ "devices": [
        { "allow": true, "type": "b", "major": 8, "access": "rwm" },
        { "allow": false, "type": "b", "major": 8, "minor": 1, "access": "rwm" },
    ] });
    vec![
        limit(
            "shares of 1",
            json!({ "cpu": { "shares": 1 } }),
            &["the minimum allowed cpu-shares is 2"],
        ),
        limit(
            "shares of 262145",
            json!({ "cpu": { "shares": 262_145 } }),
            &["the maximum allowed cpu-shares is 262144"],
        ),
        limit(
            "unified",
            json!({ "unified": { "pids.max": "1" } }),
            &[".linux.resources.unified", "use the v1 fields"],
        ),
        limit(
            "exception to a wildcard",
            rules,
            &["cgroup v1 cannot make an exception for b 8:1"],
        ),
        limit(
            "swap without memory",
            json!({ "memory": { "swap": 9_000_000 } }),
            &[
                ".memory.swap: give a value that the kernel takes",
                "memory.memsw.limit_in_bytes",
            ],
        )
        .runc_accepts(),
        limit(
            "leaf weight, which the kernel lost",
            json!({ "blockIO": { "leafWeight": 10 } }),
            &[
                ".blockIO.leafWeight",
                "no file blkio.leaf_weight; remove the value",
            ],
        )
        .runc_accepts(),
        limit(
            "priority of an interface that is none",
            json!({ "network": { "priorities": [{ "name": "keel-none", "priority": 1 }] } }),
            // Where the controller is mounted, as in the guest, there is no such device.
            &[".network.priorities[0]: ", "net_prio"],
        )
        .runc_accepts(),
    ]
}

fn of_v2() -> Vec<Row> {
    let unified = |file: &str, value: &str| json!({ "unified": { file: value } });
    vec![
        limit(
            "swap without memory",
            json!({ "memory": { "swap": 9_000_000 } }),
            &["unable to set swap limit without memory limit"],
        ),
        limit(
            "realtime",
            json!({ "cpu": { "realtimeRuntime": 5000 } }),
            &[".cpu", "real-time"],
        )
        .runc_accepts(),
        limit(
            "network class",
            json!({ "network": { "classID": 1 } }),
            &[".network"],
        )
        .runc_accepts(),
        limit(
            "unknown controller",
            unified("foo.max", "1"),
            &[".linux.resources: controller foo"],
        ),
        limit(
            "unknown file",
            unified("pids.foo", "1"),
            &[
                ".unified[\"pids.foo\"]",
                "no file pids.foo; remove the value",
            ],
        ),
        limit("no file", unified("pids", "1"), &["CONTROLLER.PARAMETER"]),
        limit(
            "file with a slash",
            unified("../pids.max", "1"),
            &["no slashes"],
        ),
        limit(
            "file of the core",
            unified("cgroup.procs", "1"),
            &["cgroup.procs"],
        )
        .runc_accepts(),
        limit(
            "cpu weight of 0",
            unified("cpu.weight", "0"),
            &[".unified[\"cpu.weight\"]", "write \"0\"", "/cpu.weight"],
        ),
        limit(
            "cpu weight of 10001",
            unified("cpu.weight", "10001"),
            &[".unified[\"cpu.weight\"]", "write \"10001\""],
        ),
        limit(
            "memory.max of letters",
            unified("memory.max", "lots"),
            &[
                ".unified[\"memory.max\"]: give a value that the kernel takes",
                "lots",
            ],
        ),
        limit(
            "io.max without a device",
            unified("io.max", "rbps=1"),
            &[".unified[\"io.max\"]", "write \"rbps=1\""],
        ),
    ]
}
