//! The rules on the values of limits, v1's and v2's.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::Version;
use crate::error::{Error, Result};

/// Refuses values that no kernel takes and that contradict each other, with their JSON path, before
/// anything is made. Values that are absent or 0 where 0 means "not set" pass.
///
/// Sources: runtime-spec, config-linux.md "Control groups"; kernel, cgroup-v2.rst,
/// sched-bwc.rst (quota and period), cgroup-v1/blkio-controller.rst.
pub fn check(resources: &LinuxResources, version: Version) -> Result<()> {
    resources
        .cpu()
        .as_ref()
        .map_or(Ok(()), |cpu| check_cpu(cpu, version))?;
    resources.memory().as_ref().map_or(Ok(()), check_memory)?;
    resources
        .block_io()
        .as_ref()
        .map_or(Ok(()), check_block_io)?;
    if let Some(limit) = resources.pids().map(|pids| pids.limit()) {
        let range = "-1 for no limit, or at least 0";
        within(".pids.limit", limit, -1, i64::MAX, range)?;
    }
    for (at, page) in resources.hugepage_limits().iter().flatten().enumerate() {
        let at = format!(".hugepageLimits[{at}]");
        if !is_page_size(page.page_size()) {
            let why = format!("{:?} is no page size like 2MB or 1GB", page.page_size());
            return Err(spec(&format!("{at}.pageSize"), why));
        }
        within(
            &format!("{at}.limit"),
            page.limit(),
            0,
            i64::MAX,
            "bytes, at least 0",
        )?;
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(spec(".rdma", format!("{device:?} is no device name")));
        }
        if limits.hca_handles().is_none() && limits.hca_objects().is_none() {
            return Err(spec(
                &format!(".rdma.{device}"),
                "neither hcaHandles nor hcaObjects is set",
            ));
        }
    }
    if let (Version::V2, Some(network)) = (version, resources.network()) {
        let has_class = network.class_id().is_some_and(|id| id != 0);
        if has_class
            || network
                .priorities()
                .as_ref()
                .is_some_and(|list| !list.is_empty())
        {
            return Err(spec(
                ".network",
                "cgroup v2 has no network controllers; remove it",
            ));
        }
    }
    resources
        .unified()
        .iter()
        .flatten()
        .try_for_each(|(file, _)| check_unified(file))
}

fn check_cpu(cpu: &LinuxCpu, version: Version) -> Result<()> {
    let shares = cpu.shares().unwrap_or(0);
    if version == Version::V1 && shares == 1 {
        return Err(spec(".cpu.shares", "the minimum allowed cpu-shares is 2"));
    }
    if version == Version::V1 && shares > 262_144 {
        return Err(spec(
            ".cpu.shares",
            "the maximum allowed cpu-shares is 262144",
        ));
    }
    let quota = cpu.quota().unwrap_or(0);
    if quota != 0 && quota != -1 {
        within(
            ".cpu.quota",
            quota,
            1000,
            i64::MAX,
            "-1 for none, or at least 1000 microseconds",
        )?;
    }
    if let Some(period) = cpu.period().filter(|period| *period != 0) {
        within(
            ".cpu.period",
            period,
            1000,
            1_000_000,
            "1000 to 1000000 microseconds",
        )?;
    }
    if let (Some(burst), Ok(quota @ 1..)) = (cpu.burst(), u64::try_from(quota)) {
        within(".cpu.burst", burst, 0, quota, "at most the quota")?;
    }
    if let Some(idle) = cpu.idle() {
        within(".cpu.idle", idle, 0, 1, "0 or 1")?;
    }
    let real_time =
        cpu.realtime_period().unwrap_or(0) != 0 || cpu.realtime_runtime().unwrap_or(0) != 0;
    if version == Version::V2 && real_time {
        let why = "cgroup v2 has no real-time limits; remove realtimePeriod and realtimeRuntime";
        return Err(spec(".cpu", why));
    }
    for (at, list) in [(".cpu.cpus", cpu.cpus()), (".cpu.mems", cpu.mems())] {
        if let Some(list) = list.as_deref().filter(|list| !list.trim().is_empty()) {
            parse_list(list).map_err(|why| spec(at, why))?;
        }
    }
    Ok(())
}

fn check_memory(memory: &LinuxMemory) -> Result<()> {
    let fields = [
        (".memory.limit", memory.limit()),
        (".memory.reservation", memory.reservation()),
        (".memory.swap", memory.swap()),
    ];
    for (at, bytes) in fields {
        within(
            at,
            bytes.unwrap_or(0),
            -1,
            i64::MAX,
            "bytes, or -1 for no limit",
        )?;
    }
    let (limit, swap) = (memory.limit().unwrap_or(0), memory.swap().unwrap_or(0));
    if limit > 0 && swap > 0 && swap < limit {
        return Err(spec(
            ".memory.swap",
            "memory+swap limit should be >= memory limit",
        ));
    }
    if let Some(swappiness) = memory.swappiness() {
        within(".memory.swappiness", swappiness, 0, 100, "0 to 100")?;
    }
    Ok(())
}

fn check_block_io(io: &LinuxBlockIo) -> Result<()> {
    const RANGE: &str = "10 to 1000";
    let check = |at: &str, weight: Option<u16>| match weight {
        // Docker sends 0 for "not set".
        None | Some(0) => Ok(()),
        Some(weight) => within(at, weight, 10, 1000, RANGE),
    };
    check(".blockIO.weight", io.weight())?;
    check(".blockIO.leafWeight", io.leaf_weight())?;
    for (at, device) in io.weight_device().iter().flatten().enumerate() {
        check(
            &format!(".blockIO.weightDevice[{at}].weight"),
            device.weight(),
        )?;
        check(
            &format!(".blockIO.weightDevice[{at}].leafWeight"),
            device.leaf_weight(),
        )?;
    }
    Ok(())
}

/// `unified` sets limits; the files of the cgroup core that move or stop processes are keel's own.
fn check_unified(file: &str) -> Result<()> {
    const CORE: &[&str] = &[
        "cgroup.max.depth",
        "cgroup.max.descendants",
        "cgroup.pressure",
    ];
    let at = ".unified";
    if file.contains('/') {
        let why = format!("unified resource \"{file}\" must be a file name (no slashes)");
        return Err(spec(at, why));
    }
    match file.split_once('.') {
        Some(("cgroup", _)) if !CORE.contains(&file) => {
            let why = format!(
                "unified resource \"{file}\" is not a limit; allowed are {}",
                CORE.join(", ")
            );
            Err(spec(at, why))
        }
        Some((controller, rest)) if !controller.is_empty() && !rest.is_empty() => Ok(()),
        _ => {
            let form = "must be in the form CONTROLLER.PARAMETER";
            Err(spec(at, format!("unified resource \"{file}\" {form}")))
        }
    }
}

/// The numbers of a list like `0-3,7`: cpuset(7), "List format".
///
/// # Errors
/// What is wrong with the list, in words.
pub fn parse_list(list: &str) -> Result<Vec<u16>, String> {
    let mut numbers = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u16>();
        match (number(first), number(last)) {
            (Ok(first), Ok(last)) if first <= last => numbers.extend(first..=last),
            _ => return Err(format!("{list:?} is no list like 0-3,7: see {part:?}")),
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// The kernel's spelling of sizes in hugetlb file names.
fn is_page_size(size: &str) -> bool {
    let number = ["KB", "MB", "GB"]
        .iter()
        .find_map(|unit| size.strip_suffix(unit));
    number.is_some_and(|number| {
        !number.is_empty() && !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit())
    })
}

fn within<T>(at: &str, value: T, least: T, most: T, range: &str) -> Result<()>
where
    T: PartialOrd + std::fmt::Display,
{
    if value < least || value > most {
        return Err(spec(at, format!("{value} is out of range: {range}")));
    }
    Ok(())
}

fn spec(at: &str, why: impl Into<String>) -> Error {
    Error::spec(format!(".linux.resources{at}"), why)
}

#[cfg(test)]
mod tests {
    use super::*;

    use Version::{V1, V2};

    /// Version, resources, and a part of the refusal; none if they pass.
    const REFUSED: &[(Version, &str, &str)] = &[
        (V1, r#"{"cpu":{"shares":0}}"#, ""),
        (
            V1,
            r#"{"cpu":{"shares":1}}"#,
            ".cpu.shares: the minimum allowed cpu-shares is 2",
        ),
        (
            V1,
            r#"{"cpu":{"shares":262145}}"#,
            ".cpu.shares: the maximum allowed",
        ),
        (V2, r#"{"cpu":{"shares":1}}"#, ""),
        (
            V2,
            r#"{"cpu":{"quota":-1,"period":0,"burst":0,"idle":1}}"#,
            "",
        ),
        (
            V2,
            r#"{"cpu":{"quota":999}}"#,
            ".cpu.quota: 999 is out of range",
        ),
        (
            V2,
            r#"{"cpu":{"quota":-2}}"#,
            ".cpu.quota: -2 is out of range",
        ),
        (
            V2,
            r#"{"cpu":{"period":999}}"#,
            ".cpu.period: 999 is out of range",
        ),
        (
            V2,
            r#"{"cpu":{"period":1000001}}"#,
            ".cpu.period: 1000001 is out of range",
        ),
        (
            V2,
            r#"{"cpu":{"quota":2000,"burst":2001}}"#,
            ".cpu.burst: 2001 is out of range",
        ),
        (V2, r#"{"cpu":{"idle":2}}"#, ".cpu.idle: 2 is out of range"),
        (V1, r#"{"cpu":{"realtimePeriod":5}}"#, ""),
        (
            V2,
            r#"{"cpu":{"realtimePeriod":5}}"#,
            ".cpu: cgroup v2 has no real-time limits",
        ),
        (V2, r#"{"cpu":{"cpus":"0-1, 3","mems":""}}"#, ""),
        (
            V2,
            r#"{"cpu":{"cpus":"3-1"}}"#,
            ".cpu.cpus: \"3-1\" is no list like 0-3,7",
        ),
        (V2, r#"{"cpu":{"mems":"0,x"}}"#, ".cpu.mems: "),
        (V2, r#"{"memory":{"limit":-1,"swap":-1}}"#, ""),
        (
            V2,
            r#"{"memory":{"limit":-2}}"#,
            ".memory.limit: -2 is out of range",
        ),
        (
            V1,
            r#"{"memory":{"limit":9,"swap":8}}"#,
            "memory+swap limit should be >= memory limit",
        ),
        (
            V1,
            r#"{"memory":{"swappiness":101}}"#,
            ".memory.swappiness: 101 is out of range",
        ),
        (V1, r#"{"blockIO":{"weight":0,"leafWeight":0}}"#, ""),
        (
            V1,
            r#"{"blockIO":{"weight":9}}"#,
            ".blockIO.weight: 9 is out of range",
        ),
        (
            V1,
            r#"{"blockIO":{"weight":1001}}"#,
            ".blockIO.weight: 1001 is out of range",
        ),
        (
            V2,
            r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":10001}]}}"#,
            ".blockIO.weightDevice[0].weight: 10001 is out of range",
        ),
        (V2, r#"{"pids":{"limit":-1}}"#, ""),
        (
            V2,
            r#"{"pids":{"limit":-2}}"#,
            ".pids.limit: -2 is out of range",
        ),
        (
            V2,
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#,
            "",
        ),
        (
            V2,
            r#"{"hugepageLimits":[{"pageSize":"../x","limit":0}]}"#,
            "[0].pageSize: ",
        ),
        (
            V2,
            r#"{"hugepageLimits":[{"pageSize":"02MB","limit":0}]}"#,
            "[0].pageSize: ",
        ),
        (
            V2,
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":-1}]}"#,
            "[0].limit: -1 is out of range",
        ),
        (
            V2,
            r#"{"rdma":{"mlx 5":{"hcaHandles":1}}}"#,
            ".rdma: \"mlx 5\" is no device name",
        ),
        (V2, r#"{"rdma":{"mlx5":{}}}"#, ".rdma.mlx5: neither"),
        (V1, r#"{"network":{"classID":1}}"#, ""),
        (V2, r#"{"network":{"classID":0,"priorities":[]}}"#, ""),
        (
            V2,
            r#"{"network":{"classID":1}}"#,
            ".network: cgroup v2 has no network controllers",
        ),
        (
            V2,
            r#"{"unified":{"memory.high":"1","cgroup.max.depth":"1"}}"#,
            "",
        ),
        (
            V2,
            r#"{"unified":{"../x.y":"1"}}"#,
            "must be a file name (no slashes)",
        ),
        (
            V2,
            r#"{"unified":{"memory":"1"}}"#,
            "must be in the form CONTROLLER.PARAMETER",
        ),
        (
            V2,
            r#"{"unified":{"cgroup.procs":"1"}}"#,
            "\"cgroup.procs\" is not a limit",
        ),
    ];

    #[test]
    fn values_that_no_kernel_takes_are_refused_with_their_path() {
        for (version, json, want) in REFUSED {
            let resources: LinuxResources = serde_json::from_str(json).unwrap();
            let line =
                check(&resources, *version).map_or_else(|error| error.line(), |()| String::new());
            assert!(
                line.contains(want) && line.is_empty() == want.is_empty(),
                "{json}: {line}"
            );
        }
    }

    #[test]
    fn a_list_is_read_as_sorted_numbers() {
        assert_eq!(parse_list("7,0-2,2"), Ok(vec![0, 1, 2, 7]));
        for bad in ["", ",", "1-", "-1", "a", "1,,2", "70000"] {
            assert!(parse_list(bad).is_err(), "{bad}");
        }
    }
}
