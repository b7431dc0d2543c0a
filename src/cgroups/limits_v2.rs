//! `linux.resources` for cgroup v2: which controllers it needs and what is written where; pure.
//!
//! The specification's values are those of v1; what they become here is in [`weight_of_shares`],
//! [`swap_max`] and [`io_weight`]. Sources: runtime-spec, config-linux.md "Control groups"; kernel,
//! cgroup-v2.rst.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::limits_v1::{THROTTLES, cpuset_writes, pids_max, rdma_writes};
use super::writes::{Source, Write};
use crate::error::{Error, Result};

/// The kernel's `cpu.cfs_period_us` of a new cgroup, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// The v2 controllers without which `resources` cannot be applied.
pub fn controllers(resources: &LinuxResources) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut need = |name, needed: bool| needed.then(|| names.insert(name));
    let cpu = resources.cpu().as_ref();
    need(
        "cpu",
        cpu.is_some_and(|cpu| {
            cpu.shares().is_some_and(|shares| shares > 0)
                || cpu.quota().is_some_and(|quota| quota != 0)
                || cpu.period().is_some_and(|period| period > 0)
                || cpu.burst().is_some()
                || cpu.idle().is_some()
        }),
    );
    let is_given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    need(
        "cpuset",
        cpu.is_some_and(|cpu| is_given(cpu.cpus()) || is_given(cpu.mems())),
    );
    need(
        "memory",
        resources.memory().as_ref().is_some_and(|memory| {
            [memory.limit(), memory.reservation(), memory.swap()]
                .iter()
                .any(|bytes| bytes.is_some_and(|bytes| bytes != 0))
        }),
    );
    need("pids", resources.pids().is_some());
    need(
        "io",
        resources.block_io().as_ref().is_some_and(|io| {
            let rates = [
                io.throttle_read_bps_device(),
                io.throttle_write_bps_device(),
                io.throttle_read_iops_device(),
                io.throttle_write_iops_device(),
            ];
            io.weight().is_some_and(|weight| weight > 0)
                || io
                    .weight_device()
                    .as_ref()
                    .is_some_and(|devices| !devices.is_empty())
                || rates
                    .iter()
                    .any(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
        }),
    );
    need(
        "hugetlb",
        resources
            .hugepage_limits()
            .as_ref()
            .is_some_and(|list| !list.is_empty()),
    );
    need(
        "rdma",
        resources.rdma().as_ref().is_some_and(|map| !map.is_empty()),
    );
    if let Some(unified) = resources.unified() {
        let named = unified
            .keys()
            .filter_map(|file| file.split_once('.'))
            .map(|(name, _)| name);
        names.extend(named.filter(|name| *name != "cgroup"));
    }
    names
}

/// The writes for all limits but the device rules.
///
/// # Errors
/// If a swap limit comes without the memory limit that it includes.
pub fn writes(resources: &LinuxResources) -> Result<Vec<Write<'_>>> {
    let mut list = Vec::new();
    if let Some(pids) = resources.pids() {
        let limit = pids_max(pids.limit());
        list.push(Write::new(".pids.limit", "pids", "pids.max", limit));
    }
    if let Some(memory) = resources.memory() {
        memory_writes(memory, &mut list)?;
    }
    if let Some(io) = resources.block_io() {
        io_writes(io, &mut list);
    }
    if let Some(cpu) = resources.cpu() {
        cpu_writes(cpu, &mut list);
    }
    for (nth, page) in resources.hugepage_limits().iter().flatten().enumerate() {
        let source = Source::Entry(".hugepageLimits", nth, ".limit");
        let write = |file: &str| {
            let file = format!("hugetlb.{}.{file}", page.page_size());
            Write::new(source, "hugetlb", file, page.limit())
        };
        list.push(write("max"));
        // Reservations are limited since Linux 5.7.
        list.push(write("rsvd.max").or_not());
    }
    list.extend(rdma_writes(resources));
    // Sorted, so that the same config.json always does the same; a file takes one line at a time.
    for (file, lines) in resources
        .unified()
        .iter()
        .flatten()
        .collect::<BTreeMap<_, _>>()
    {
        let controller = file.split_once('.').map_or(file.as_str(), |(name, _)| name);
        let source = Source::Key(".unified", file);
        let lines = lines.lines();
        list.extend(lines.map(|line| Write::new(source, controller, file, line)));
    }
    Ok(list)
}

fn cpu_writes<'a>(cpu: &'a LinuxCpu, list: &mut Vec<Write<'a>>) {
    if let Some(idle) = cpu.idle() {
        let write = Write::new(".cpu.idle", "cpu", "cpu.idle", idle);
        // Since Linux 5.15; without the file nobody is idle.
        list.push(if idle == 0 { write.or_not() } else { write });
    }
    // An idle group has no weight: the kernel refuses it.
    let weight = cpu
        .shares()
        .and_then(weight_of_shares)
        .filter(|_| cpu.idle() != Some(1));
    if let Some(weight) = weight {
        list.push(Write::new(".cpu.shares", "cpu", "cpu.weight", weight));
    }
    if let Some(burst) = cpu.burst() {
        // Since Linux 5.14. It may not exceed the quota, which may be raised just below.
        let write = Write::new(".cpu.burst", "cpu", "cpu.max.burst", burst).waits();
        list.push(if burst == 0 { write.or_not() } else { write });
    }
    let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
    if quota != 0 || period != 0 {
        let source = if quota != 0 {
            ".cpu.quota"
        } else {
            ".cpu.period"
        };
        list.push(Write::new(source, "cpu", "cpu.max", cpu_max(quota, period)));
    }
    list.extend(cpuset_writes(cpu));
}

/// `cpu.max` of a quota and a period in microseconds, where 0 is "not set" and -1 is no quota.
pub fn cpu_max(quota: i64, period: u64) -> String {
    let period = if period == 0 { DEFAULT_PERIOD } else { period };
    match quota {
        ..=0 => format!("max {period}"),
        1.. => format!("{quota} {period}"),
    }
}

/// `cpu.weight` (1 to 10000, default 100) of v1's `cpu.shares` (2 to 262144, default 1024); `None`
/// for 0, which is "not set".
///
/// A curve through the two ends and the defaults: 10^((l² + 125 l) / 612 - 7 / 34), l = log2 shares,
/// rounded up. Source: runc 1.3.2 and crun 1.23 changed to it together; a straight line had put
/// the default at 39.
pub fn weight_of_shares(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1 | 2 => Some(1),
        262_144.. => Some(10_000),
        _ => {
            // Exact: fewer than 2^18 shares.
            let log = f64::from(u32::try_from(shares).ok()?).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            Some(10_f64.powf(exponent).ceil() as u64)
        }
    }
}

fn memory_writes<'a>(memory: &LinuxMemory, list: &mut Vec<Write<'a>>) -> Result<()> {
    let (limit, sum) = (memory.limit().unwrap_or(0), memory.swap().unwrap_or(0));
    if let Some(swap) = swap_max(limit, sum)? {
        let source = if sum == 0 {
            ".memory.limit"
        } else {
            ".memory.swap"
        };
        let write = Write::new(source, "memory", "memory.swap.max", &swap);
        // Without swap in the kernel there is nothing to forbid and nothing to allow.
        let is_moot = swap == "0" || swap == "max";
        list.push(if is_moot { write.or_not() } else { write });
    }
    let given = |bytes: i64| (bytes != 0).then(|| bytes_or_max(bytes));
    if let Some(limit) = given(limit) {
        list.push(Write::new(".memory.limit", "memory", "memory.max", limit));
    }
    if let Some(reservation) = given(memory.reservation().unwrap_or(0)) {
        let source = ".memory.reservation";
        list.push(Write::new(source, "memory", "memory.low", reservation));
    }
    // kernel, kernelTCP, swappiness, disableOOMKiller and useHierarchy have no file on v2; the
    // specification lets a runtime pass over them.
    Ok(())
}

/// `memory.swap.max` of the specification's memory limit and its sum of memory and swap, in bytes;
/// -1 is no limit, 0 is "not set". `None` means: write nothing.
///
/// v1 counts memory and swap together, v2 counts swap alone, so the answer is the difference.
///
/// # Errors
/// If the sum is smaller than what it includes, or there is nothing to subtract.
pub fn swap_max(limit: i64, sum: i64) -> Result<Option<String>> {
    let refused = |why: &str| Err(Error::spec(".linux.resources.memory.swap", why));
    match (limit, sum) {
        // No limit on memory means none on swap, as on v1.
        (-1, 0) => Ok(Some("max".into())),
        (_, 0) => Ok(None),
        (_, -1) | (-1, _) => Ok(Some(bytes_or_max(sum))),
        (0, _) => refused("unable to set swap limit without memory limit"),
        _ if sum < limit => refused("memory+swap limit should be >= memory limit"),
        _ => Ok(Some((sum - limit).to_string())),
    }
}

fn bytes_or_max(bytes: i64) -> String {
    if bytes == -1 {
        "max".into()
    } else {
        bytes.to_string()
    }
}

fn io_writes<'a>(io: &'a LinuxBlockIo, list: &mut Vec<Write<'a>>) {
    // BFQ keeps v1's scale; without it the iocost controller weighs, on v2's. Weights of leaves went
    // with CFQ (Linux 5.0); v2 never had them.
    let mut weigh = |source, device: &str, weight: Option<u16>| {
        if let Some(weight) = weight.filter(|weight| *weight != 0) {
            let value = format!("{device}{weight}");
            let write = Write::new(source, "io", "io.bfq.weight", value);
            list.push(write.or("io.weight", format!("{device}{}", io_weight(weight))));
        }
    };
    weigh(".blockIO.weight".into(), "", io.weight());
    for (nth, device) in io.weight_device().iter().flatten().enumerate() {
        let source = Source::Entry(".blockIO.weightDevice", nth, ".weight");
        let numbers = format!("{}:{} ", device.major(), device.minor());
        weigh(source, &numbers, device.weight());
    }
    let throttles = [
        ("rbps", THROTTLES[0], io.throttle_read_bps_device()),
        ("wbps", THROTTLES[1], io.throttle_write_bps_device()),
        ("riops", THROTTLES[2], io.throttle_read_iops_device()),
        ("wiops", THROTTLES[3], io.throttle_write_iops_device()),
    ];
    for (name, source, devices) in throttles {
        for (nth, device) in devices.iter().flatten().enumerate() {
            // v1 lifts a limit with 0, v2 with `max`.
            let rate = match device.rate() {
                0 => "max".into(),
                rate => rate.to_string(),
            };
            let value = format!("{}:{} {name}={rate}", device.major(), device.minor());
            let source = Source::Entry(source, nth, ".rate");
            list.push(Write::new(source, "io", "io.max", value));
        }
    }
}

/// `io.weight` (1 to 10000) of a blkio weight (10 to 1000), on a straight line.
pub fn io_weight(weight: u16) -> u32 {
    1 + u32::from(weight.saturating_sub(10)) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_on_the_curve_of_runc_and_crun() {
        let cases: &[(u64, Option<u64>)] = &[
            (0, None),
            (1, Some(1)),
            (2, Some(1)),
            (3, Some(2)),
            (10, Some(4)),
            (100, Some(17)),
            (512, Some(59)),
            (1023, Some(100)),
            (1024, Some(100)),
            (1025, Some(101)),
            (4096, Some(303)),
            (100_000, Some(4340)),
            (262_143, Some(10_000)),
            (262_144, Some(10_000)),
            (u64::MAX, Some(10_000)),
        ];
        for (shares, want) in cases {
            assert_eq!(weight_of_shares(*shares), *want, "{shares}");
        }
    }

    /// name, limit, sum, wanted
    type SwapCase = (
        &'static str,
        i64,
        i64,
        Result<Option<&'static str>, &'static str>,
    );

    #[test]
    fn swap_max_is_the_sum_minus_memory() {
        const M: i64 = 1 << 20;
        let cases: &[SwapCase] = &[
            ("nothing", 0, 0, Ok(None)),
            ("absent", M, 0, Ok(None)),
            ("unlimited", M, -1, Ok(Some("max"))),
            ("equal", M, M, Ok(Some("0"))),
            ("more", M, M + 5, Ok(Some("5"))),
            ("memory unlimited", -1, 0, Ok(Some("max"))),
            ("only swap limited", -1, M, Ok(Some("1048576"))),
            (
                "less",
                M,
                M - 1,
                Err("memory+swap limit should be >= memory limit"),
            ),
            (
                "no memory limit",
                0,
                M,
                Err("unable to set swap limit without memory limit"),
            ),
        ];
        for (name, limit, sum, want) in cases {
            match (swap_max(*limit, *sum), want) {
                (Ok(got), Ok(want)) => assert_eq!(got.as_deref(), *want, "{name}"),
                (Err(got), Err(want)) => {
                    assert!(got.line().contains(want), "{name}: {}", got.line())
                }
                (got, want) => panic!("{name}: {got:?} instead of {want:?}"),
            }
        }
    }

    #[test]
    fn blkio_weights_become_io_weights_on_a_line() {
        for (weight, want) in [(10, 1), (11, 11), (100, 910), (500, 4950), (1000, 10_000)] {
            assert_eq!(io_weight(weight), want, "{weight}");
        }
    }

    /// Resources, the controllers they need, and the writes in the spelling of `writes::shown`.
    const CASES: &[(&str, &str, &[&str])] = &[
        ("{}", "", &[]),
        (
            r#"{"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","mems":""}}"#,
            "",
            &[],
        ),
        (r#"{"cpu":{"shares":512}}"#, "cpu", &["cpu.weight=59"]),
        (r#"{"cpu":{"shares":512,"idle":1}}"#, "cpu", &["cpu.idle=1"]),
        (
            r#"{"cpu":{"shares":512,"idle":0}}"#,
            "cpu",
            &["cpu.idle=0?", "cpu.weight=59"],
        ),
        (
            r#"{"cpu":{"quota":50000}}"#,
            "cpu",
            &["cpu.max=50000 100000"],
        ),
        (r#"{"cpu":{"period":20000}}"#, "cpu", &["cpu.max=max 20000"]),
        (
            r#"{"cpu":{"quota":-1,"period":20000}}"#,
            "cpu",
            &["cpu.max=max 20000"],
        ),
        (
            r#"{"cpu":{"quota":50000,"period":20000,"burst":9}}"#,
            "cpu",
            &["cpu.max.burst=9~", "cpu.max=50000 20000"],
        ),
        (r#"{"cpu":{"burst":0}}"#, "cpu", &["cpu.max.burst=0~?"]),
        (
            r#"{"cpu":{"cpus":"0-1","mems":"0"}}"#,
            "cpuset",
            &["cpuset.cpus=0-1", "cpuset.mems=0"],
        ),
        (
            r#"{"memory":{"limit":4096,"swap":4096,"reservation":2048}}"#,
            "memory",
            &["memory.swap.max=0?", "memory.max=4096", "memory.low=2048"],
        ),
        (
            r#"{"memory":{"limit":4096,"swap":4097}}"#,
            "memory",
            &["memory.swap.max=1", "memory.max=4096"],
        ),
        (
            r#"{"memory":{"limit":-1}}"#,
            "memory",
            &["memory.swap.max=max?", "memory.max=max"],
        ),
        (
            r#"{"memory":{"kernel":1,"kernelTCP":1,"swappiness":60,"disableOOMKiller":true}}"#,
            "",
            &[],
        ),
        (r#"{"pids":{"limit":0}}"#, "pids", &["pids.max=1"]),
        (r#"{"pids":{"limit":-1}}"#, "pids", &["pids.max=max"]),
        (
            r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}]}}"#,
            "io",
            &[
                "io.bfq.weight=500|io.weight=4950",
                "io.bfq.weight=8:0 10|io.weight=8:0 1",
            ],
        ),
        (
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}],
                "throttleWriteBpsDevice":[{"major":8,"minor":1,"rate":2}],
                "throttleReadIOPSDevice":[{"major":8,"minor":2,"rate":3}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":3,"rate":0}]}}"#,
            "io",
            &[
                "io.max=8:0 rbps=1",
                "io.max=8:1 wbps=2",
                "io.max=8:2 riops=3",
                "io.max=8:3 wiops=max",
            ],
        ),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":2097152}]}"#,
            "hugetlb",
            &["hugetlb.2MB.max=2097152", "hugetlb.2MB.rsvd.max=2097152?"],
        ),
        (
            r#"{"rdma":{"mlx5_1":{"hcaHandles":3}}}"#,
            "rdma",
            &["rdma.max=mlx5_1 hca_handle=3"],
        ),
        (
            r#"{"unified":{"memory.high":"9","cgroup.max.depth":"1","io.max":"8:0 rbps=1\n8:1 rbps=2"}}"#,
            "io memory",
            &[
                "cgroup.max.depth=1",
                "io.max=8:0 rbps=1",
                "io.max=8:1 rbps=2",
                "memory.high=9",
            ],
        ),
    ];

    #[test]
    fn every_v2_limit_becomes_its_files_in_their_order() {
        for (json, needed, want) in CASES {
            let resources: LinuxResources = serde_json::from_str(json).unwrap();
            let list = writes(&resources).unwrap();
            super::super::writes::assert_sources(json, &list);
            let got: Vec<_> = list.iter().map(super::super::writes::shown).collect();
            assert_eq!(got, *want, "{json}");
            let names: Vec<_> = controllers(&resources).into_iter().collect();
            assert_eq!(names.join(" "), *needed, "{json}");
        }
    }
}
