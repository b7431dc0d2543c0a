//! `linux.resources` as a list of writes for cgroup v1; pure.
//!
//! Sources: runtime-spec, config-linux.md "Control groups"; kernel, Documentation/admin-guide/
//! cgroup-v1 and Documentation/scheduler. The order is part of the answer, see [`Write::waits`].

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources};

use super::writes::{Source, Write};

/// The writes for all limits but the device rules.
pub fn writes(resources: &LinuxResources) -> Vec<Write<'_>> {
    let mut list = Vec::new();
    if let Some(cpu) = resources.cpu() {
        cpu_writes(cpu, &mut list);
    }
    if let Some(memory) = resources.memory() {
        memory_writes(memory, &mut list);
    }
    if let Some(pids) = resources.pids() {
        let limit = pids_max(pids.limit());
        list.push(Write::new(".pids.limit", "pids", "pids.max", limit));
    }
    if let Some(io) = resources.block_io() {
        block_io_writes(io, &mut list);
    }
    for (nth, page) in resources.hugepage_limits().iter().flatten().enumerate() {
        let source = Source::Entry(".hugepageLimits", nth, ".limit");
        let write = |file: &str| {
            let file = format!("hugetlb.{}.{file}", page.page_size());
            Write::new(source, "hugetlb", file, page.limit())
        };
        list.push(write("limit_in_bytes"));
        // Reservations are limited since Linux 5.7.
        list.push(write("rsvd.limit_in_bytes").or_not());
    }
    if let Some(network) = resources.network() {
        network_writes(network, &mut list);
    }
    list.extend(rdma_writes(resources));
    list
}

fn cpu_writes<'a>(cpu: &'a LinuxCpu, list: &mut Vec<Write<'a>>) {
    if let Some(idle) = cpu.idle() {
        let write = Write::new(".cpu.idle", "cpu", "cpu.idle", idle);
        list.push(if idle == 0 { write.or_not() } else { write });
    }
    // An idle group has no shares: the kernel refuses them.
    let shares = cpu
        .shares()
        .filter(|shares| *shares != 0 && cpu.idle() != Some(1));
    if let Some(shares) = shares {
        list.push(Write::new(".cpu.shares", "cpu", "cpu.shares", shares));
    }
    // The quotient of quota and period has to fit the parent's at every moment.
    if let Some(period) = cpu.period().filter(|period| *period != 0) {
        list.push(Write::new(".cpu.period", "cpu", "cpu.cfs_period_us", period).waits());
    }
    if let Some(burst) = cpu.burst() {
        let write = Write::new(".cpu.burst", "cpu", "cpu.cfs_burst_us", burst).waits();
        // Since Linux 5.14; without the file there is no burst, which is what 0 asks for.
        list.push(if burst == 0 { write.or_not() } else { write });
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        list.push(Write::new(".cpu.quota", "cpu", "cpu.cfs_quota_us", quota));
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        let source = ".cpu.realtimePeriod";
        list.push(Write::new(source, "cpu", "cpu.rt_period_us", period).waits());
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        let source = ".cpu.realtimeRuntime";
        list.push(Write::new(source, "cpu", "cpu.rt_runtime_us", runtime));
    }
    list.extend(cpuset_writes(cpu));
}

/// Both versions name these files alike.
pub fn cpuset_writes(cpu: &LinuxCpu) -> impl Iterator<Item = Write<'_>> {
    let files = [
        (".cpu.cpus", "cpuset.cpus", cpu.cpus()),
        (".cpu.mems", "cpuset.mems", cpu.mems()),
    ];
    files.into_iter().filter_map(|(source, file, value)| {
        let value = value.as_deref().filter(|value| !value.trim().is_empty())?;
        Some(Write::new(source, "cpuset", file, value))
    })
}

fn memory_writes<'a>(memory: &LinuxMemory, list: &mut Vec<Write<'a>>) {
    let given = |bytes: Option<i64>| bytes.filter(|bytes| *bytes != 0);
    let write = |source: &'static str, file, value: i64| Write::new(source, "memory", file, value);
    let limit = given(memory.limit());
    if let Some(limit) = limit {
        // The limit may not exceed memory and swap together, which may be raised just below.
        list.push(write(".memory.limit", "memory.limit_in_bytes", limit).waits());
    }
    const SUM: &str = "memory.memsw.limit_in_bytes";
    match (limit, given(memory.swap())) {
        (_, Some(swap)) => list.push(write(".memory.swap", SUM, swap)),
        // No limit on memory makes one on the sum pointless; the file is absent without swap.
        (Some(-1), None) => list.push(write(".memory.limit", SUM, -1).or_not()),
        _ => {}
    }
    if let Some(reservation) = given(memory.reservation()) {
        let file = "memory.soft_limit_in_bytes";
        list.push(write(".memory.reservation", file, reservation));
    }
    // `kernel` is not written: Linux since 5.16 refuses it, older ones leak cgroups that have it.
    if let Some(tcp) = given(memory.kernel_tcp()) {
        let file = "memory.kmem.tcp.limit_in_bytes";
        list.push(write(".memory.kernelTCP", file, tcp).or_not());
    }
    if memory.disable_oom_killer() == Some(true) {
        list.push(write(".memory.disableOOMKiller", "memory.oom_control", 1));
    }
    if let Some(swappiness) = memory.swappiness() {
        let (source, file) = (".memory.swappiness", "memory.swappiness");
        list.push(Write::new(source, "memory", file, swappiness));
    }
}

/// `pids.max`: negative is no limit. 0 means that nobody may fork; a process that joins would be
/// refused with it, and the one there counts itself, so 1 is the same limit (systemd's, too).
pub fn pids_max(limit: i64) -> String {
    match limit {
        ..0 => "max".into(),
        0 => "1".into(),
        1.. => limit.to_string(),
    }
}

fn block_io_writes<'a>(io: &'a LinuxBlockIo, list: &mut Vec<Write<'a>>) {
    const DEVICES: &str = ".blockIO.weightDevice";
    // BFQ has files of its own since the kernel lost CFQ (Linux 5.0).
    let mut weigh = |source, name: &str, value: String| {
        let write = Write::new(source, "blkio", format!("blkio.{name}"), &value);
        list.push(write.or(&format!("blkio.bfq.{name}"), value));
    };
    let given = |weight: Option<u16>| weight.filter(|weight| *weight != 0);
    if let Some(weight) = given(io.weight()) {
        weigh(".blockIO.weight".into(), "weight", weight.to_string());
    }
    for (nth, device) in io.weight_device().iter().flatten().enumerate() {
        if let Some(weight) = given(device.weight()) {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            let source = Source::Entry(DEVICES, nth, ".weight");
            weigh(source, "weight_device", value);
        }
    }
    if let Some(weight) = given(io.leaf_weight()) {
        let (source, file) = (".blockIO.leafWeight", "blkio.leaf_weight");
        list.push(Write::new(source, "blkio", file, weight));
    }
    for (nth, device) in io.weight_device().iter().flatten().enumerate() {
        if let Some(weight) = given(device.leaf_weight()) {
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            let source = Source::Entry(DEVICES, nth, ".leafWeight");
            let file = "blkio.leaf_weight_device";
            list.push(Write::new(source, "blkio", file, value));
        }
    }
    let throttles = [
        ("read_bps", THROTTLES[0], io.throttle_read_bps_device()),
        ("write_bps", THROTTLES[1], io.throttle_write_bps_device()),
        ("read_iops", THROTTLES[2], io.throttle_read_iops_device()),
        ("write_iops", THROTTLES[3], io.throttle_write_iops_device()),
    ];
    for (name, source, devices) in throttles {
        for (nth, device) in devices.iter().flatten().enumerate() {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            let source = Source::Entry(source, nth, ".rate");
            let file = format!("blkio.throttle.{name}_device");
            list.push(Write::new(source, "blkio", file, value));
        }
    }
}

/// Where the specification has reads and writes, each in bytes and then in operations.
pub const THROTTLES: [&str; 4] = [
    ".blockIO.throttleReadBpsDevice",
    ".blockIO.throttleWriteBpsDevice",
    ".blockIO.throttleReadIOPSDevice",
    ".blockIO.throttleWriteIOPSDevice",
];

fn network_writes<'a>(network: &'a LinuxNetwork, list: &mut Vec<Write<'a>>) {
    if let Some(class) = network.class_id().filter(|class| *class != 0) {
        let (source, file) = (".network.classID", "net_cls.classid");
        list.push(Write::new(source, "net_cls", file, class));
    }
    for (nth, interface) in network.priorities().iter().flatten().enumerate() {
        let source = Source::Entry(".network.priorities", nth, "");
        let value = format!("{} {}", interface.name(), interface.priority());
        list.push(Write::new(source, "net_prio", "net_prio.ifpriomap", value));
    }
}

/// `rdma.max` is the same file on both versions: cgroup-v2.rst "RDMA".
pub fn rdma_writes(resources: &LinuxResources) -> impl Iterator<Item = Write<'_>> {
    resources.rdma().iter().flatten().map(|(device, limits)| {
        let mut value = device.clone();
        for (name, limit) in [
            ("hca_handle", limits.hca_handles()),
            ("hca_object", limits.hca_objects()),
        ] {
            if let Some(limit) = limit {
                value.push_str(&format!(" {name}={limit}"));
            }
        }
        Write::new(Source::Key(".rdma", device), "rdma", "rdma.max", value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resources, and the writes as `file=value`, `?` marking those that may be absent, `~` those
    /// that may wait, `|` the alternative.
    const CASES: &[(&str, &[&str])] = &[
        ("{}", &[]),
        (
            r#"{"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","mems":""}}"#,
            &[],
        ),
        (r#"{"cpu":{"shares":512}}"#, &["cpu.shares=512"]),
        (
            r#"{"cpu":{"quota":50000,"period":100000,"burst":1000}}"#,
            &[
                "cpu.cfs_period_us=100000~",
                "cpu.cfs_burst_us=1000~",
                "cpu.cfs_quota_us=50000",
            ],
        ),
        (
            r#"{"cpu":{"quota":-1,"burst":0}}"#,
            &["cpu.cfs_burst_us=0~?", "cpu.cfs_quota_us=-1"],
        ),
        (r#"{"cpu":{"idle":1,"shares":5}}"#, &["cpu.idle=1"]),
        (
            r#"{"cpu":{"idle":0,"shares":5}}"#,
            &["cpu.idle=0?", "cpu.shares=5"],
        ),
        (
            r#"{"cpu":{"realtimeRuntime":5000,"realtimePeriod":10000}}"#,
            &["cpu.rt_period_us=10000~", "cpu.rt_runtime_us=5000"],
        ),
        (
            r#"{"cpu":{"cpus":"0-1","mems":"0"}}"#,
            &["cpuset.cpus=0-1", "cpuset.mems=0"],
        ),
        (r#"{"memory":{"limit":0,"swap":0}}"#, &[]),
        (
            r#"{"memory":{"limit":4096,"swap":8192}}"#,
            &[
                "memory.limit_in_bytes=4096~",
                "memory.memsw.limit_in_bytes=8192",
            ],
        ),
        (
            r#"{"memory":{"limit":-1}}"#,
            &[
                "memory.limit_in_bytes=-1~",
                "memory.memsw.limit_in_bytes=-1?",
            ],
        ),
        (
            r#"{"memory":{"reservation":1,"kernel":2,"kernelTCP":3,"swappiness":0,"disableOOMKiller":true}}"#,
            &[
                "memory.soft_limit_in_bytes=1",
                "memory.kmem.tcp.limit_in_bytes=3?",
                "memory.oom_control=1",
                "memory.swappiness=0",
            ],
        ),
        (r#"{"pids":{"limit":7}}"#, &["pids.max=7"]),
        (r#"{"pids":{"limit":0}}"#, &["pids.max=1"]),
        (r#"{"pids":{"limit":-1}}"#, &["pids.max=max"]),
        (
            r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10,"leafWeight":20}]}}"#,
            &[
                "blkio.weight=500|blkio.bfq.weight=500",
                "blkio.weight_device=8:0 10|blkio.bfq.weight_device=8:0 10",
                "blkio.leaf_weight_device=8:0 20",
            ],
        ),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}],
                "throttleWriteBpsDevice":[{"major":8,"minor":1,"rate":2}],
                "throttleReadIOPSDevice":[{"major":8,"minor":2,"rate":3}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":3,"rate":4}]}}"#,
            &[
                "blkio.throttle.read_bps_device=8:0 1",
                "blkio.throttle.write_bps_device=8:1 2",
                "blkio.throttle.read_iops_device=8:2 3",
                "blkio.throttle.write_iops_device=8:3 4",
            ],
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#,
            &[
                "hugetlb.2MB.limit_in_bytes=0",
                "hugetlb.2MB.rsvd.limit_in_bytes=0?",
            ],
        ),
        (
            r#"{"network":{"classID":1048577,"priorities":[{"name":"lo","priority":5}]}}"#,
            &["net_cls.classid=1048577", "net_prio.ifpriomap=lo 5"],
        ),
        (
            r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000}}}"#,
            &["rdma.max=mlx5_1 hca_handle=3 hca_object=10000"],
        ),
        (
            r#"{"rdma":{"mlx5_1":{"hcaObjects":1}}}"#,
            &["rdma.max=mlx5_1 hca_object=1"],
        ),
    ];

    #[test]
    fn every_v1_limit_becomes_its_files_in_their_order() {
        for (json, want) in CASES {
            let resources: LinuxResources = serde_json::from_str(json).unwrap();
            let got: Vec<_> = writes(&resources)
                .iter()
                .map(super::super::writes::shown)
                .collect();
            assert_eq!(got, *want, "{json}");
            super::super::writes::assert_sources(json, &writes(&resources));
        }
    }
}
