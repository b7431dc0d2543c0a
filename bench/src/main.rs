//! Measures OCI runtimes side by side, and against the kernel's own cost (`floor.c`).
//!
//! Every round runs each runtime once, in turn, so a noisy minute of the machine hits all of them
//! alike; only ratios within one run of this program mean anything. [`scenario`] says what is
//! measured, [`host`] prepares the machine, [`measure`] takes one reading, [`report`] and
//! [`plot`] present them.

mod bundle;
mod filter;
mod host;
mod measure;
mod memory_floor;
#[cfg(target_arch = "x86_64")]
mod order;
mod plot;
mod report;
mod runtime;
mod scenario;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::host::Host;
use crate::report::Report;
use crate::runtime::Runtime;

/// Measure OCI runtimes side by side
#[derive(Parser)]
struct Args {
    /// The keel binary; the one built beside this program if not given
    #[arg(long, value_name = "PATH")]
    keel: Option<PathBuf>,
    /// One more runtime to compare with, NAME=PATH; crun and runc are found in PATH
    #[arg(long, value_name = "NAME=PATH", value_parser = runtime::parse_peer)]
    peer: Vec<(String, PathBuf)>,
    /// Rounds of each measurement; the slow ones take a part of it
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// Containers alive for `list` and for the memory they leave behind
    #[arg(long, default_value_t = 1000)]
    crowd: usize,
    /// Measure only the scenarios whose name contains this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// List the scenarios and stop
    #[arg(long)]
    list: bool,
    /// Find the smallest memory limit each runtime can start a container with, and stop; in the
    /// machine's own cgroups, which need a memory controller
    #[arg(long)]
    memory_floor: bool,
    /// Write the functions of keel that its usual commands execute, for the linker, and stop; its
    /// binary must have symbols
    #[cfg(target_arch = "x86_64")]
    #[arg(long, value_name = "FILE")]
    order: Option<PathBuf>,
    /// Write the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the plot as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nothing is left to report a failing standard error to.
            let _ = writeln!(io::stderr(), "bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let out = &mut io::stdout().lock();
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|o| name.contains(o));
    let mut scenarios = scenario::all(args.crowd);
    scenarios.retain(|s| wanted(s.name()));
    if args.list {
        for scenario in &scenarios {
            writeln!(out, "{:12} {}", scenario.name(), scenario.about())
                .map_err(|e| format!("cannot write to standard output: {e}"))?;
        }
        return Ok(());
    }
    if args.memory_floor {
        return memory_floor::print(out, args.keel.as_deref(), &args.peer);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(file) = &args.order {
        return order::write(args.keel.as_deref(), file);
    }
    let host = Host::prepare()?;
    let runtimes = Runtime::find(&host, args.keel.as_deref(), &args.peer)?;
    let mut report = Report::new(&runtimes);
    for scenario in &mut scenarios {
        let say = |line: &str| {
            // Progress is a courtesy: a closed standard error must not stop the measurement.
            let _ = writeln!(io::stderr(), "{line}");
        };
        scenario::measure(
            scenario.as_mut(),
            &host,
            &runtimes,
            args.rounds,
            &mut report,
            &say,
        );
    }
    report
        .write_table(out)
        .map_err(|e| format!("cannot write to standard output: {e}"))?;
    if let Some(path) = &args.json {
        let text = report.to_json()?;
        std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    if let Some(path) = &args.svg {
        let text = plot::svg(&report);
        std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    Ok(())
}
