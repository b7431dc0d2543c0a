//! Statistics of cgroup v2, in the words of v1 where runc's schema has no others.

use super::dir::Dir;
use super::stats::{
    Blkio, BlkioEntry, Cpu, CpuUsage, Hugetlb, Memory, MemoryEntry, Pids, Throttling, number,
    page_sizes, pids, psi, table, text,
};
use crate::error::{Error, Result};

/// Nanoseconds in a microsecond.
const MICROSECOND: u64 = 1000;

/// `cpu.stat`, which is there without the controller, and `cpu.pressure`.
pub fn cpu(dir: &Dir) -> Result<Cpu> {
    let table = text(dir, "cpu.stat")?
        .map(|text| table(&text))
        .unwrap_or_default();
    let value = |key: &str| table.get(key).copied().unwrap_or(0);
    let nanoseconds = |key: &str| value(key).saturating_mul(MICROSECOND);
    Ok(Cpu {
        usage: CpuUsage {
            total: nanoseconds("usage_usec"),
            kernel: nanoseconds("system_usec"),
            user: nanoseconds("user_usec"),
            ..CpuUsage::default()
        },
        throttling: Throttling {
            periods: value("nr_periods"),
            throttled_periods: value("nr_throttled"),
            throttled_time: nanoseconds("throttled_usec"),
        },
        psi: psi(dir, "cpu.pressure")?,
    })
}

/// `memory.*`.
pub fn memory(dir: &Dir) -> Result<Memory> {
    let raw = text(dir, "memory.stat")?
        .map(|text| table(&text))
        .unwrap_or_default();
    let entry = |prefix: &str| -> Result<MemoryEntry> {
        let value =
            |name: &str| number(dir, &format!("{prefix}.{name}")).map(Option::unwrap_or_default);
        Ok(MemoryEntry {
            limit: value("max")?,
            usage: value("current")?,
            max: value("peak")?,
            failcnt: 0,
        })
    };
    let (memory, swap) = (entry("memory")?, entry("memory.swap")?);
    Ok(Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        // The peak of the sum is not the sum of the peaks: left out.
        swap: MemoryEntry {
            limit: swap.limit.saturating_add(memory.limit),
            usage: swap.usage.saturating_add(memory.usage),
            max: 0,
            failcnt: 0,
        },
        usage: memory,
        raw,
        psi: psi(dir, "memory.pressure")?,
        ..Memory::default()
    })
}

/// `pids.*`; without the controller the processes are counted.
pub fn processes(dir: &Dir) -> Result<Pids> {
    if let Some(pids) = pids(dir)? {
        return Ok(pids);
    }
    let found = dir
        .processes()
        .map_err(|errno| Error::host("read processes of", dir.path(), errno))?;
    Ok(Pids {
        current: found.len() as u64,
        limit: 0,
    })
}

/// `hugetlb.*`: reservations where the kernel counts them (Linux 5.7).
pub fn hugetlb(dir: &Dir) -> Result<Vec<(String, Hugetlb)>> {
    let mut list = Vec::new();
    for size in page_sizes() {
        let prefix = format!("hugetlb.{size}");
        let usage = match number(dir, &format!("{prefix}.rsvd.current"))? {
            None => number(dir, &format!("{prefix}.current"))?,
            usage => usage,
        };
        let Some(usage) = usage else { continue };
        let events = text(dir, &format!("{prefix}.events"))?.map(|text| table(&text));
        let failcnt = events
            .and_then(|events| events.get("max").copied())
            .unwrap_or(0);
        list.push((
            size,
            Hugetlb {
                usage,
                max: 0,
                failcnt,
            },
        ));
    }
    Ok(list)
}

/// `io.stat` and `io.pressure`.
pub fn blkio(dir: &Dir) -> Result<Blkio> {
    let mut blkio = Blkio {
        psi: psi(dir, "io.pressure")?,
        ..Blkio::default()
    };
    for line in text(dir, "io.stat")?.unwrap_or_default().lines() {
        add_device(line, &mut blkio);
    }
    Ok(blkio)
}

/// `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N ...`; keys without a place in the schema are passed
/// over.
fn add_device(line: &str, blkio: &mut Blkio) {
    let mut words = line.split_whitespace();
    let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else {
        return;
    };
    let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
        return;
    };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        let (list, op) = match key {
            "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
            "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
            "rios" => (&mut blkio.io_serviced_recursive, "Read"),
            "wios" => (&mut blkio.io_serviced_recursive, "Write"),
            _ => continue,
        };
        if let Ok(value) = value.parse() {
            list.push(BlkioEntry {
                major,
                minor,
                op: op.into(),
                value,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_stat_becomes_v1s_tables() {
        let mut blkio = Blkio::default();
        add_device(
            "253:40000 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6",
            &mut blkio,
        );
        add_device("8:0", &mut blkio);
        let values = |list: &[BlkioEntry]| -> Vec<(u64, String, u64)> {
            list.iter()
                .map(|entry| (entry.minor, entry.op.clone(), entry.value))
                .collect()
        };
        let want = |read, write| {
            vec![
                (40_000, "Read".into(), read),
                (40_000, "Write".into(), write),
            ]
        };
        assert_eq!(values(&blkio.io_service_bytes_recursive), want(1, 2));
        assert_eq!(values(&blkio.io_serviced_recursive), want(3, 4));
    }
}
