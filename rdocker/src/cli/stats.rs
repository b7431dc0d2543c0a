//! `rdocker stats`

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::container::cgroup::Cgroups;
use crate::container::{Container, Containers};
use crate::error::Result;
use crate::host::Host;
use crate::ui::format::{binary_size, short_id, size};
use crate::ui::list::Columns;
use crate::ui::{Ui, stdout_is_terminal};

const COLUMNS: Columns = Columns {
    template: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
};
/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// Display a live stream of container(s) resource usage statistics
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker stats [OPTIONS] [CONTAINER...]")]
pub struct Stats {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    #[arg(hide = true)]
    names: Vec<String>,
}

/// What the kernel counted for one container at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sample {
    cpu_nanoseconds: u64,
    memory: u64,
    limit: u64,
    received: u64,
    sent: u64,
    read: u64,
    written: u64,
    pids: u64,
}

impl Stats {
    /// Two samples make a row: processor time is a difference.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let containers = Containers::new(host);
        // A missing name is told before anything is shown.
        for name in &self.names {
            containers.find(name)?;
        }
        let mut before: BTreeMap<String, (Instant, Sample)> = BTreeMap::new();
        for (_, container) in self.chosen(&containers)? {
            before.insert(
                container.record.id.clone(),
                (Instant::now(), sample(&container)),
            );
        }
        loop {
            std::thread::sleep(INTERVAL);
            let mut rows = Vec::new();
            for (word, container) in self.chosen(&containers)? {
                let (now, new) = (Instant::now(), sample(&container));
                let (then, old) = before
                    .insert(container.record.id.clone(), (now, new))
                    .unwrap_or((now, new));
                let mut row = self.row(&container, &old, &new, now - then);
                row["Container"] = word.into();
                rows.push(row);
            }
            if !self.no_stream && stdout_is_terminal() {
                ui.bytes(b"\x1b[2J\x1b[H")?;
            }
            COLUMNS.show(ui, self.format.as_deref(), &rows)?;
            ui.flush()?;
            if self.no_stream {
                return Ok(());
            }
        }
    }

    /// The containers, each under the word that it was asked for by, or under its id.
    fn chosen(&self, containers: &Containers<'_>) -> Result<Vec<(String, Container)>> {
        if !self.names.is_empty() {
            return Ok(self
                .names
                .iter()
                .filter_map(|name| Some((name.clone(), containers.find(name).ok()?)))
                .collect());
        }
        let mut list = containers.list()?;
        list.retain(|container| self.all || container.state.pid > 0);
        let named = |container: Container| (short_id(&container.record.id).to_owned(), container);
        Ok(list.into_iter().map(named).collect())
    }

    fn row(&self, container: &Container, old: &Sample, new: &Sample, apart: Duration) -> Value {
        let id = &container.record.id;
        let ratio = |part: u64, whole: u64| match whole {
            0 => 0.0,
            whole => as_float(part) / as_float(whole) * 100.0,
        };
        let spent = new.cpu_nanoseconds.saturating_sub(old.cpu_nanoseconds);
        let elapsed = u64::try_from(apart.as_nanos()).unwrap_or(u64::MAX);
        json!({
            "ID": if self.no_trunc { id } else { short_id(id) },
            "Name": container.record.name,
            "CPUPerc": format!("{:.2}%", ratio(spent, elapsed)),
            "MemUsage": format!("{} / {}", binary_size(new.memory), binary_size(new.limit)),
            "MemPerc": format!("{:.2}%", ratio(new.memory, new.limit)),
            "NetIO": format!("{} / {}", size(new.received, 3), size(new.sent, 3)),
            "BlockIO": format!("{} / {}", size(new.read, 3), size(new.written, 3)),
            "PIDs": new.pids.to_string(),
        })
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "two decimals of a percentage are shown"
)]
fn as_float(number: u64) -> f64 {
    number as f64
}

fn sample(container: &Container) -> Sample {
    let pid = container.state.pid;
    if pid == 0 {
        return Sample::default();
    }
    let cgroups = Cgroups::of_container(pid, &container.record.id);
    let number = |controller: &str, file: &str| -> Option<u64> {
        cgroups.read(controller, file)?.parse().ok()
    };
    let v2 = cgroups.is_v2("memory");
    let (usage, cache, limit) = if v2 {
        ("memory.current", "inactive_file", "memory.max")
    } else {
        (
            "memory.usage_in_bytes",
            "total_inactive_file",
            "memory.limit_in_bytes",
        )
    };
    let total = super::info::memory_total();
    // What the kernel can drop at once is not "used" (docker/cli, calculateMemUsageUnixNoCache).
    let cached = cgroups
        .read_key("memory", "memory.stat", cache)
        .unwrap_or(0);
    let cpu = number("cpuacct", "cpuacct.usage").or_else(|| {
        let usec = cgroups.read_key("cpuacct", "cpu.stat", "usage_usec")?;
        Some(usec * 1000)
    });
    let (received, sent) = network(pid);
    let (read, written) = block(&cgroups);
    Sample {
        cpu_nanoseconds: cpu.unwrap_or(0),
        memory: number("memory", usage).unwrap_or(0).saturating_sub(cached),
        limit: number("memory", limit).unwrap_or(total).min(total),
        received,
        sent,
        read,
        written,
        pids: number("pids", "pids.current").unwrap_or(0),
    }
}

/// Bytes received and sent by all interfaces but loopback: proc_pid_net(5), `dev`.
fn network(pid: i32) -> (u64, u64) {
    parse_network(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
}

fn parse_network(text: &str) -> (u64, u64) {
    let (mut received, mut sent) = (0, 0);
    for line in text.lines() {
        let Some((name, counters)) = line.split_once(':') else {
            continue;
        };
        let counters: Vec<u64> = counters
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        if name.trim() != "lo" && counters.len() > 8 {
            received += counters[0];
            sent += counters[8];
        }
    }
    (received, sent)
}

/// Bytes read and written: `blkio.throttle.io_service_bytes` (v1), `io.stat` (v2).
fn block(cgroups: &Cgroups) -> (u64, u64) {
    if cgroups.is_v2("blkio") {
        return parse_io_stat(&cgroups.read("blkio", "io.stat").unwrap_or_default());
    }
    let text = cgroups
        .read("blkio", "blkio.throttle.io_service_bytes")
        .unwrap_or_default();
    let sum = |operation: &str| {
        let lines = text.lines().filter(|line| line.contains(operation));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    };
    (sum(" Read "), sum(" Write "))
}

fn parse_io_stat(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        let words = text
            .split_whitespace()
            .filter_map(|word| word.strip_prefix(key));
        words.filter_map(|number| number.parse::<u64>().ok()).sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_without_loopback() {
        let text = "Inter-| Receive\n face |bytes\n    lo: 9 0 0 0 0 0 0 0 9 0\n  eth0: 5 0 0 0 0 0 0 0 7 0\n";
        assert_eq!(parse_network(text), (5, 7));
        let io = "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n";
        assert_eq!(parse_io_stat(io), (11, 22));
    }
}
