//! Collects the readings and presents them: a table with ratios for people, JSON for programs.

use std::io::{self, Write};

use serde::Serialize;

use crate::measure::{Reading, Summary};
use crate::runtime::{Kind, Runtime};

/// All readings of one run of this program.
pub struct Report {
    /// In the order of the table: the floor, keel, the peers.
    names: Vec<String>,
    rows: Vec<Row>,
    skipped: Vec<Skipped>,
}

/// One measured command, for all runtimes.
struct Row {
    name: String,
    /// One series for each of `Report::names`.
    series: Vec<Series>,
}

#[derive(Default)]
struct Series {
    readings: Vec<Reading>,
    syscalls: Option<u64>,
}

/// Why a runtime has no figures in a scenario.
#[derive(Serialize)]
struct Skipped {
    scenario: String,
    runtime: String,
    why: String,
}

/// The figures of one runtime in one row, as the JSON file has them.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub row: String,
    pub runtime: String,
    pub turns: usize,
    pub wall_usec: Summary,
    pub cpu_usec: Summary,
    /// The largest seen.
    pub rss_kib: u64,
    pub syscalls: Option<u64>,
    /// Median CPU and wall time divided by the same row's floor and peers: `[name, cpu, wall]`.
    pub ratios: Vec<(String, f64, f64)>,
}

#[derive(Serialize)]
struct Document<'a> {
    kernel: String,
    runtimes: &'a [String],
    figures: Vec<Figures>,
    skipped: &'a [Skipped],
}

impl Report {
    pub fn new(runtimes: &[Runtime]) -> Self {
        debug_assert!(runtimes.first().is_none_or(|r| r.kind == Kind::Floor));
        let names = runtimes.iter().map(|r| r.name.clone()).collect();
        Self {
            names,
            rows: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Adds one turn's readings.
    pub fn add(&mut self, runtime: &Runtime, readings: &[(String, Reading)]) {
        for (row, reading) in readings {
            let series = self.series(row, &runtime.name);
            series.readings.push(*reading);
            series.syscalls = Some(reading.syscalls)
                .filter(|&n| n > 0)
                .or(series.syscalls);
        }
    }

    /// Adds the system call counts of one turn; of several equal rows the last counts.
    pub fn add_syscalls(&mut self, runtime: &Runtime, readings: &[(String, Reading)]) {
        for (row, reading) in readings {
            self.series(row, &runtime.name).syscalls = Some(reading.syscalls);
        }
    }

    /// Notes that `runtime` has no (more) figures in `scenario`.
    pub fn skip(&mut self, scenario: &str, runtime: &Runtime, why: &str) {
        self.skipped.push(Skipped {
            scenario: scenario.to_owned(),
            runtime: runtime.name.clone(),
            why: why.to_owned(),
        });
    }

    fn series(&mut self, row: &str, runtime: &str) -> &mut Series {
        let at = self
            .rows
            .iter()
            .position(|r| r.name == row)
            .unwrap_or_else(|| {
                let series = self.names.iter().map(|_| Series::default()).collect();
                self.rows.push(Row {
                    name: row.to_owned(),
                    series,
                });
                self.rows.len() - 1
            });
        let column = self.names.iter().position(|n| n == runtime);
        &mut self.rows[at].series[column.expect("a runtime of this report")]
    }

    /// The summaries, row by row.
    pub fn figures(&self) -> Vec<Figures> {
        self.rows
            .iter()
            .flat_map(|row| self.row_figures(row))
            .collect()
    }

    fn row_figures(&self, row: &Row) -> Vec<Figures> {
        let mut figures: Vec<Figures> = self
            .names
            .iter()
            .zip(&row.series)
            .filter(|(_, series)| !series.readings.is_empty())
            .map(|(name, series)| series.figures(&row.name, name))
            .collect();
        let bases: Vec<_> = figures
            .iter()
            .map(|f| (f.runtime.clone(), f.cpu_usec, f.wall_usec))
            .collect();
        for own in &mut figures {
            own.ratios = bases
                .iter()
                .filter(|(name, ..)| *name != own.runtime)
                .filter(|(_, _, wall)| wall.median > 0.0)
                .map(|(name, cpu, wall)| {
                    let cpu = own.cpu_usec.median / cpu.median;
                    (
                        name.clone(),
                        round3(cpu),
                        round3(own.wall_usec.median / wall.median),
                    )
                })
                .collect();
        }
        figures
    }

    /// Writes the table: one line for each runtime in each row, then what was left out.
    pub fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{:22} {:8} {:>5} {:>17} {:>17} {:>8} {:>8}  ratio CPU/wall to",
            "", "", "turns", "wall ms med/min", "CPU ms med/min", "peak KiB", "syscalls"
        )?;
        let mut last = String::new();
        for f in self.figures() {
            let label = if f.row == last { "" } else { f.row.as_str() };
            let ratios: Vec<String> = f
                .ratios
                .iter()
                .map(|(name, cpu, wall)| format!("{name} {cpu:.2}/{wall:.2}"))
                .collect();
            let syscalls = f.syscalls.map_or_else(|| "-".to_owned(), |n| n.to_string());
            writeln!(
                out,
                "{label:22} {:8} {:>5} {:>17} {:>17} {:>8} {syscalls:>8}  {}",
                f.runtime,
                f.turns,
                millis(f.wall_usec),
                millis(f.cpu_usec),
                f.rss_kib,
                ratios.join("  ")
            )?;
            last.clone_from(&f.row);
        }
        for skipped in &self.skipped {
            writeln!(
                out,
                "skipped: {} {}: {}",
                skipped.scenario, skipped.runtime, skipped.why
            )?;
        }
        Ok(())
    }

    /// The whole report as JSON text.
    ///
    /// # Errors
    /// If a figure is not a number.
    pub fn to_json(&self) -> Result<String, String> {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let document = Document {
            kernel: kernel.trim().to_owned(),
            runtimes: &self.names,
            figures: self.figures(),
            skipped: &self.skipped,
        };
        serde_json::to_string_pretty(&document).map_err(|e| format!("cannot write JSON: {e}"))
    }
}

impl Series {
    fn figures(&self, row: &str, runtime: &str) -> Figures {
        Figures {
            row: row.to_owned(),
            runtime: runtime.to_owned(),
            turns: self.readings.len(),
            wall_usec: Summary::of(self.readings.iter().map(|r| r.wall_usec)),
            cpu_usec: Summary::of(self.readings.iter().map(|r| r.cpu_usec)),
            rss_kib: self.readings.iter().map(|r| r.rss_kib).max().unwrap_or(0),
            syscalls: self.syscalls,
            ratios: Vec::new(),
        }
    }
}

fn round3(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Median and minimum in milliseconds; a dash for what has no time of its own.
fn millis(summary: Summary) -> String {
    if summary.median == 0.0 {
        return "-".to_owned();
    }
    format!(
        "{:.2} / {:.2}",
        summary.median / 1000.0,
        summary.min / 1000.0
    )
}
