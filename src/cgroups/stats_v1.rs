//! Statistics of cgroup v1.
//!
//! cgroups-rs reads cpuacct and the memory counters. Its `memory_stat` unwraps what it parses, so
//! that an unknown line of `memory.numa_stat` would end keel, and its blkio parser takes device
//! numbers as `i16`, which the minors of LVM and NVMe exceed: those files are read here.

use std::path::PathBuf;

use cgroups_rs::fs::cpuacct::CpuAcctController;
use cgroups_rs::fs::memory::MemController;
use nix::unistd::{SysconfVar, sysconf};

use super::dir::Dir;
use super::limits::parse_list;
use super::stats::{
    Blkio, BlkioEntry, CpuSet, CpuUsage, Hugetlb, Memory, MemoryEntry, Throttling, number,
    page_sizes, table, text,
};
use crate::error::Result;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// `cpuacct.*`; `cpuacct.stat` counts clock ticks, the rest nanoseconds.
pub fn cpu_usage(dir: &Dir) -> CpuUsage {
    let path = PathBuf::from(dir.path());
    let cpuacct = CpuAcctController::new(path.clone(), path).cpuacct();
    let ticks = table(&cpuacct.stat);
    let ticks_per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    let ticks_per_second = ticks_per_second
        .and_then(|n| u64::try_from(n).ok())
        .unwrap_or(100);
    let nanoseconds = |key: &str| {
        let ticks = ticks.get(key).copied().unwrap_or(0);
        ticks.saturating_mul(SECOND) / ticks_per_second
    };
    // A header, then `CPU USER SYSTEM` in each line.
    let column = |at: usize| {
        let lines = cpuacct.usage_all.lines().skip(1);
        lines
            .filter_map(|line| line.split(' ').nth(at)?.trim().parse().ok())
            .collect()
    };
    CpuUsage {
        total: cpuacct.usage,
        percpu: cpuacct
            .usage_percpu
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect(),
        percpu_kernel: column(2),
        percpu_user: column(1),
        kernel: nanoseconds("system"),
        user: nanoseconds("user"),
    }
}

/// `cpu.stat`.
pub fn throttling(dir: &Dir) -> Result<Throttling> {
    let table = text(dir, "cpu.stat")?
        .map(|text| table(&text))
        .unwrap_or_default();
    let value = |key: &str| table.get(key).copied().unwrap_or(0);
    Ok(Throttling {
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled_time: value("throttled_time"),
    })
}

/// `cpuset.*`.
pub fn cpuset(dir: &Dir) -> Result<CpuSet> {
    let list = |file: &str| {
        text(dir, file).map(|text| {
            text.and_then(|text| parse_list(&text).ok())
                .unwrap_or_default()
        })
    };
    let flag = |file: &str| number(dir, file).map(Option::unwrap_or_default);
    let level = text(dir, "cpuset.sched_relax_domain_level")?;
    Ok(CpuSet {
        cpus: list("cpuset.cpus")?,
        cpu_exclusive: flag("cpuset.cpu_exclusive")?,
        mems: list("cpuset.mems")?,
        mem_hardwall: flag("cpuset.mem_hardwall")?,
        mem_exclusive: flag("cpuset.mem_exclusive")?,
        memory_migrate: flag("cpuset.memory_migrate")?,
        memory_spread_page: flag("cpuset.memory_spread_page")?,
        memory_spread_slab: flag("cpuset.memory_spread_slab")?,
        memory_pressure: flag("cpuset.memory_pressure")?,
        sched_load_balance: flag("cpuset.sched_load_balance")?,
        sched_relax_domain_level: level.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
    })
}

/// `memory.*`.
pub fn memory(dir: &Dir) -> Result<Memory> {
    let entry = |limit: i64, usage: u64, max: u64, failcnt: u64| MemoryEntry {
        limit: u64::try_from(limit).unwrap_or(0),
        usage,
        max,
        failcnt,
    };
    let own = |file: &str| number(dir, file).map(Option::unwrap_or_default);
    let path = PathBuf::from(dir.path());
    let memory = MemController::new(path.clone(), path, false);
    let (sum, kernel, tcp) = (memory.memswap(), memory.kmem_stat(), memory.kmem_tcp_stat());
    let raw = text(dir, "memory.stat")?
        .map(|text| table(&text))
        .unwrap_or_default();
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: MemoryEntry {
            limit: own("memory.limit_in_bytes")?,
            usage: own("memory.usage_in_bytes")?,
            max: own("memory.max_usage_in_bytes")?,
            failcnt: own("memory.failcnt")?,
        },
        swap: entry(
            sum.limit_in_bytes,
            sum.usage_in_bytes,
            sum.max_usage_in_bytes,
            sum.fail_cnt,
        ),
        kernel: entry(
            kernel.limit_in_bytes,
            kernel.usage_in_bytes,
            kernel.max_usage_in_bytes,
            kernel.fail_cnt,
        ),
        kernel_tcp: entry(
            tcp.limit_in_bytes,
            tcp.usage_in_bytes,
            tcp.max_usage_in_bytes,
            tcp.fail_cnt,
        ),
        raw,
        psi: None,
    })
}

/// `hugetlb.*`.
pub fn hugetlb(dir: &Dir) -> Result<Vec<(String, Hugetlb)>> {
    let mut list = Vec::new();
    for size in page_sizes() {
        for prefix in [format!("hugetlb.{size}.rsvd"), format!("hugetlb.{size}")] {
            let Some(usage) = number(dir, &format!("{prefix}.usage_in_bytes"))? else {
                continue;
            };
            let max = number(dir, &format!("{prefix}.max_usage_in_bytes"))?.unwrap_or(0);
            let failcnt = number(dir, &format!("{prefix}.failcnt"))?.unwrap_or(0);
            list.push((
                size,
                Hugetlb {
                    usage,
                    max,
                    failcnt,
                },
            ));
            break;
        }
    }
    Ok(list)
}

/// `blkio.*`: BFQ's files, CFQ's on old kernels, and the throttler's where there is neither.
pub fn blkio(dir: &Dir) -> Result<Blkio> {
    let read = |name: &str, families: &[&str]| -> Result<Vec<BlkioEntry>> {
        for family in families {
            let entries = text(dir, &format!("blkio.{family}{name}"))?.map(|text| entries(&text));
            if let Some(entries) = entries.filter(|entries| !entries.is_empty()) {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    };
    let scheduled = |name: &str| read(name, &["bfq.", ""]);
    let all = |name: &str| {
        let found = read(&format!("{name}_recursive"), &["bfq.", "", "throttle."])?;
        if found.is_empty() {
            read(name, &["throttle."])
        } else {
            Ok(found)
        }
    };
    Ok(Blkio {
        io_service_bytes_recursive: all("io_service_bytes")?,
        io_serviced_recursive: all("io_serviced")?,
        io_queued_recursive: scheduled("io_queued_recursive")?,
        io_service_time_recursive: scheduled("io_service_time_recursive")?,
        io_wait_time_recursive: scheduled("io_wait_time_recursive")?,
        io_merged_recursive: scheduled("io_merged_recursive")?,
        io_time_recursive: scheduled("time_recursive")?,
        sectors_recursive: scheduled("sectors_recursive")?,
        psi: None,
    })
}

/// Lines `MAJOR:MINOR [OP] NUMBER`; the sum over all devices at the end is passed over.
fn entries(text: &str) -> Vec<BlkioEntry> {
    text.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<BlkioEntry> {
    let (device, rest) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let (op, value) = rest.rsplit_once(' ').unwrap_or(("", rest));
    Some(BlkioEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        op: op.to_owned(),
        value: value.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_device_lines_are_read_with_large_minors_and_without_the_sum() {
        let text = "8:0 Read 5\n253:40000 Total 7\n8:16 9\nTotal 12\n";
        let of = |major, minor, op: &str, value| BlkioEntry {
            major,
            minor,
            op: op.into(),
            value,
        };
        let want = vec![
            of(8, 0, "Read", 5),
            of(253, 40_000, "Total", 7),
            of(8, 16, "", 9),
        ];
        assert_eq!(entries(text), want);
    }
}
