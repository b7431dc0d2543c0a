//! What a container uses, in the words of runc's `events --stats`, which callers parse.
//!
//! Times are nanoseconds, sizes bytes. A zero or an empty list that runc leaves out is left out here,
//! an object is not. Values that the kernel has no file for are zero or absent. Source: runc,
//! types/events.go.
#![expect(
    missing_docs,
    reason = "the fields are the schema's; their types say what they count"
)]

use std::collections::BTreeMap;

use nix::errno::Errno;
use serde::Serialize;

use super::dir::Dir;
use crate::error::{Error, Result};

/// The `data` of an event of type `stats`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Processors and memory nodes.
    pub cpuset: CpuSet,
    /// Memory and swap.
    pub memory: Memory,
    /// Number of processes.
    pub pids: Pids,
    /// Block devices.
    pub blkio: Blkio,
    /// Huge pages by their size (`2MB`).
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// Cache and memory bandwidth.
    pub intel_rdt: IntelRdt,
    /// runc fills this for interfaces that it made itself, which it never does for a bundle.
    pub network_interfaces: Option<Vec<()>>,
}

/// See [`Stats::cpu`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    pub usage: CpuUsage,
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// Processor time in nanoseconds; the lists have one entry for each processor, and are v1's alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    #[serde(skip_serializing_if = "is_default")]
    pub total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    pub kernel: u64,
    pub user: u64,
}

/// How often and how long the quota held the container back.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    #[serde(skip_serializing_if = "is_default")]
    pub periods: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub throttled_periods: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub throttled_time: u64,
}

/// Pressure: the share of time in which some or all processes waited. Source: psi.rst.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Psi {
    pub some: PsiData,
    pub full: PsiData,
}

/// Percentages over 10, 60 and 300 seconds, and microseconds in all.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PsiData {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

/// See [`Stats::cpuset`]; v1's alone, as in runc.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CpuSet {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// See [`Stats::memory`]. `swap` is memory and swap together, on v2 too.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Memory {
    #[serde(skip_serializing_if = "is_default")]
    pub cache: u64,
    pub usage: MemoryEntry,
    pub swap: MemoryEntry,
    pub kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// `memory.stat` as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// Bytes, and how often the limit was hit.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MemoryEntry {
    /// `u64::MAX` on v2 is no limit.
    pub limit: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
    pub failcnt: u64,
}

/// See [`Stats::pids`]; limit 0 is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Pids {
    #[serde(skip_serializing_if = "is_default")]
    pub current: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub limit: u64,
}

/// See [`Stats::blkio`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// One number about one block device; `op` is `Read`, `Write` and so on, or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlkioEntry {
    #[serde(skip_serializing_if = "is_default")]
    pub major: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    #[serde(skip_serializing_if = "is_default")]
    pub value: u64,
}

/// Bytes in huge pages of one size; reservations where the kernel counts them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Hugetlb {
    #[serde(skip_serializing_if = "is_default")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
    pub failcnt: u64,
}

/// See [`Stats::intel_rdt`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct IntelRdt {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_info: Option<L3CacheInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_info: Option<MemBwInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mbm_stats: Option<Vec<MbmStats>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmt_stats: Option<Vec<CmtStats>>,
}

/// `info/L3` of resctrl.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct L3CacheInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cbm_mask: String,
    #[serde(skip_serializing_if = "is_default")]
    pub min_cbm_bits: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub num_closids: u64,
}

/// `info/MB` of resctrl.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MemBwInfo {
    #[serde(skip_serializing_if = "is_default")]
    pub bandwidth_gran: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub delay_linear: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub min_bandwidth: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub num_closids: u64,
}

/// Memory traffic of one cache domain, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MbmStats {
    #[serde(skip_serializing_if = "is_default")]
    pub mbm_total_bytes: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub mbm_local_bytes: u64,
}

/// Cache occupancy of one cache domain, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CmtStats {
    #[serde(skip_serializing_if = "is_default")]
    pub llc_occupancy: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The text of a file, `None` where the kernel has none or (pressure switched off) does not tell.
pub fn text(dir: &Dir, file: &str) -> Result<Option<String>> {
    match dir.read(file) {
        Ok(text) => Ok(Some(text)),
        Err(Errno::ENOENT | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(Error::host("read", dir.join(file), errno)),
    }
}

/// The number in a file: `max` is the largest, negative ones are 0, as in runc.
pub fn number(dir: &Dir, file: &str) -> Result<Option<u64>> {
    let Some(text) = text(dir, file)? else {
        return Ok(None);
    };
    parse_number(text.trim()).map(Some).ok_or_else(|| {
        Error::Failed(format!(
            "{}: {:?} is no number",
            dir.join(file),
            text.trim()
        ))
    })
}

/// See [`number`].
pub fn parse_number(text: &str) -> Option<u64> {
    match text {
        "max" => Some(u64::MAX),
        _ if text.starts_with('-') => text.parse::<i64>().ok().map(|_| 0),
        _ => text.parse().ok(),
    }
}

/// The lines `key number` of a file.
pub fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

/// Reads a pressure file; absent before Linux 4.20 and where pressure is not measured.
pub fn psi(dir: &Dir, file: &str) -> Result<Option<Psi>> {
    Ok(text(dir, file)?.map(|text| parse_psi(&text)))
}

pub(super) fn parse_psi(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let data = match words.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let share = || value.parse().unwrap_or_default();
            match key {
                "avg10" => data.avg10 = share(),
                "avg60" => data.avg60 = share(),
                "avg300" => data.avg300 = share(),
                "total" => data.total = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
    }
    psi
}

/// `pids.current` and `pids.max`, the same on both versions; no limit is 0 here, as in runc.
pub fn pids(dir: &Dir) -> Result<Option<Pids>> {
    let Some(current) = number(dir, "pids.current")? else {
        return Ok(None);
    };
    let limit = number(dir, "pids.max")?.filter(|limit| *limit != u64::MAX);
    Ok(Some(Pids {
        current,
        limit: limit.unwrap_or(0),
    }))
}

/// The sizes of huge pages that the kernel has, as it spells them in file names.
pub fn page_sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter_map(|name| page_size(&name)).collect()
}

/// `2MB` for `hugepages-2048kB`.
fn page_size(name: &str) -> Option<String> {
    let kilobytes: u64 = name
        .strip_prefix("hugepages-")?
        .strip_suffix("kB")?
        .parse()
        .ok()?;
    Some(match kilobytes {
        ..0x400 => format!("{kilobytes}KB"),
        0x400..0x10_0000 => format!("{}MB", kilobytes >> 10),
        _ => format!("{}GB", kilobytes >> 20),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_zero_is_left_out_as_runc_leaves_it_out() {
        let want = r#"{"cpu":{"usage":{"kernel":0,"user":0},"throttling":{}},"cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0},"memory":{"usage":{"limit":0,"failcnt":0},"swap":{"limit":0,"failcnt":0},"kernel":{"limit":0,"failcnt":0},"kernelTCP":{"limit":0,"failcnt":0}},"pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"network_interfaces":null}"#;
        assert_eq!(serde_json::to_string(&Stats::default()).unwrap(), want);
    }

    #[test]
    fn names_are_those_of_runc() {
        let entry = BlkioEntry {
            major: 8,
            minor: 0,
            op: "Read".into(),
            value: 5,
        };
        let stats = Stats {
            cpu: Cpu {
                usage: CpuUsage {
                    total: 1,
                    percpu_kernel: vec![1],
                    ..CpuUsage::default()
                },
                throttling: Throttling {
                    throttled_time: 2,
                    ..Throttling::default()
                },
                psi: Some(Psi {
                    some: PsiData {
                        total: 3,
                        ..PsiData::default()
                    },
                    full: PsiData::default(),
                }),
            },
            memory: Memory {
                kernel_tcp: MemoryEntry {
                    failcnt: 1,
                    ..MemoryEntry::default()
                },
                ..Memory::default()
            },
            blkio: Blkio {
                io_queued_recursive: vec![entry],
                ..Blkio::default()
            },
            ..Stats::default()
        };
        let json = serde_json::to_value(&stats).unwrap();
        assert_eq!(
            json["cpu"]["usage"],
            serde_json::json!({"total":1,"percpu_kernel":[1],"kernel":0,"user":0})
        );
        assert_eq!(
            json["cpu"]["throttling"],
            serde_json::json!({"throttledTime":2})
        );
        let pressure =
            |total| serde_json::json!({"avg10":0.0,"avg60":0.0,"avg300":0.0,"total":total});
        let psi = serde_json::json!({"some":pressure(3),"full":pressure(0)});
        assert_eq!(json["cpu"]["psi"], psi);
        assert_eq!(
            json["memory"]["kernelTCP"],
            serde_json::json!({"limit":0,"failcnt":1})
        );
        let entries = serde_json::json!([{"major":8,"op":"Read","value":5}]);
        assert_eq!(json["blkio"]["ioQueueRecursive"], entries);
    }

    #[test]
    fn numbers_pressure_and_page_sizes_are_read_as_the_kernel_writes_them() {
        for (text, want) in [
            ("7", Some(7)),
            ("max", Some(u64::MAX)),
            ("-1", Some(0)),
            ("x", None),
        ] {
            assert_eq!(parse_number(text), want, "{text}");
        }
        let psi = parse_psi(
            "some avg10=0.22 avg60=0.17 avg300=1.11 total=58761459\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
        );
        assert_eq!(
            psi.some,
            PsiData {
                avg10: 0.22,
                avg60: 0.17,
                avg300: 1.11,
                total: 58_761_459
            }
        );
        assert_eq!(psi.full.total, 7);
        let sizes = [
            ("hugepages-64kB", "64KB"),
            ("hugepages-2048kB", "2MB"),
            ("hugepages-1048576kB", "1GB"),
        ];
        for (name, want) in sizes {
            assert_eq!(page_size(name).as_deref(), Some(want));
        }
        assert_eq!(page_size("other"), None);
    }
}
