//! Many containers at once: what `list` costs, and the memory that each leaves in use.

use std::fs;

use super::{Scenario, Turn, fresh_id};
use crate::bundle::{self, Variant};
use crate::host::{Host, reap};
use crate::measure::{Gauge, Reading};
use crate::runtime::Runtime;

/// Many running containers of one runtime.
///
/// They are made and removed within one turn, so that the runtimes do not weigh on each other.
pub struct Crowd {
    size: usize,
    about: String,
    bundle: String,
}

/// `list` is read this many times in a turn.
const READS: usize = 5;

impl Crowd {
    pub fn new(size: usize) -> Self {
        let about = format!("list of {size} running containers; memory in use for each");
        Self {
            size,
            about,
            bundle: String::new(),
        }
    }

    /// Adds containers to `made` until there are enough; on an error those made so far are there.
    fn fill(&self, runtime: &Runtime, made: &mut Vec<(String, i32)>) -> Result<(), String> {
        for _ in 0..self.size {
            let id = fresh_id();
            runtime.launch(&["run", "--detach", "--bundle", &self.bundle, &id])?;
            let pid = runtime.pid(&id)?;
            made.push((id, pid));
        }
        Ok(())
    }
}

fn clear(runtime: &Runtime, made: Vec<(String, i32)>) {
    for (id, pid) in made {
        // Whatever fails here shows as a cgroup that `Host` cannot remove.
        if runtime.call(&["kill", &id, "KILL"]).is_ok() {
            reap(pid);
        }
        let _ = runtime.call(&["delete", "--force", &id]);
    }
}

impl Scenario for Crowd {
    fn name(&self) -> &str {
        "crowd"
    }

    fn about(&self) -> &str {
        &self.about
    }

    fn rounds(&self, _wanted: usize) -> usize {
        1
    }

    fn begin(&mut self, host: &Host, _runtime: &Runtime, donor: &Runtime) -> Result<(), String> {
        if !self.bundle.is_empty() {
            return Ok(());
        }
        self.bundle = bundle::write(host, Variant::Plain, &["/bin/sleep", "9999"])?;
        // The kernel keeps some of what a first crowd takes: it is nobody's.
        let mut made = Vec::new();
        let filled = self.fill(donor, &mut made);
        clear(donor, made);
        filled
    }

    fn once(&mut self, host: &Host, runtime: &Runtime, gauge: Gauge) -> Turn {
        if gauge == Gauge::Syscalls {
            // Taken in the one turn there is.
            return Ok(Vec::new());
        }
        let before = available_kib()?;
        let mut made = Vec::new();
        if let Err(why) = self.fill(runtime, &mut made) {
            clear(runtime, made);
            return Err(why);
        }
        let used = before.saturating_sub(available_kib()?);
        let list = runtime.argv(&["list"]);
        let row = format!("list-{}", self.size);
        let mut readings: Turn = (0..READS)
            .map(|_| Ok((row.clone(), gauge.take(host, &list)?)))
            .collect();
        if let (Ok(readings), Ok(counted)) = (&mut readings, Gauge::Syscalls.take(host, &list)) {
            readings
                .iter_mut()
                .for_each(|(_, r)| r.syscalls = counted.syscalls);
        }
        clear(runtime, made);
        let mut readings = readings?;
        let each = used / u64::try_from(self.size.max(1)).unwrap_or(1);
        let left = Reading {
            rss_kib: each,
            ..Reading::default()
        };
        readings.push(("memory-per-container".to_owned(), left));
        Ok(readings)
    }
}

/// `MemAvailable` of /proc/meminfo, KiB.
fn available_kib() -> Result<u64, String> {
    let text = fs::read_to_string("/proc/meminfo")
        .map_err(|e| format!("cannot read /proc/meminfo: {e}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| "/proc/meminfo has no MemAvailable".to_owned())
}
