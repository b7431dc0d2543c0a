//! Conformance of OCI runtimes with runtime-spec 1.3, requirement by requirement.
//!
//! [`table`] has the requirements and the tests; [`lab`] is what a test works with. The same
//! static program is put into the container's root file system, where it reports what it sees
//! ([`inside`]), and serves as hook. [`report`] presents the verdicts.
//! [`upstream`] runs the suites of other projects instead.

mod config;
mod console;
mod inside;
mod lab;
mod report;
mod requirement;
mod sys;
mod table;
mod upstream;

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::lab::Lab;
use crate::report::{Column, Expected, Outcome, name_of, write_table, write_tap};
use crate::requirement::Requirement;

/// Test OCI runtimes against runtime-spec 1.3
#[derive(Parser)]
struct Args {
    /// Runtimes to test; $RUNTIME if none is named
    runtimes: Vec<PathBuf>,
    /// Write TAP instead of a table
    #[arg(long)]
    tap: bool,
    /// Only requirements whose id contains this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// List the requirements and stop
    #[arg(long)]
    list: bool,
    /// Known failures, with reasons; the file built in if not given
    #[arg(long, value_name = "FILE")]
    expected: Option<PathBuf>,
    /// Hand this global option to the runtime, as --global=--systemd-cgroup
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    global: Vec<String>,
    /// Mount cgroup v2 over /sys/fs/cgroup, in the tests' own mount namespace
    #[arg(long)]
    cgroup2: bool,
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("inside") => {
            inside::report(&args[2..]).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
        }
        Some("hook") => inside::hook::main(&args[2..]),
        Some("upstream") => {
            let args = upstream::Args::parse_from(&args[1..]);
            exit(upstream::run(&args, &mut io::stdout().lock()))
        }
        _ => exit(run(&Args::parse())),
    }
}

fn exit(outcome: Result<ExitCode, String>) -> ExitCode {
    outcome.unwrap_or_else(|why| {
        // Nothing is left to report a failing standard error to.
        let _ = writeln!(io::stderr(), "oci-tests: {why}");
        ExitCode::from(2)
    })
}

/// Succeeds if every failure was expected, and every expected failure happened.
fn run(args: &Args) -> Result<ExitCode, String> {
    let fail = |e: io::Error| format!("cannot write to standard output: {e}");
    let out = &mut io::stdout().lock();
    let wanted =
        |id: &str| args.filter.is_empty() || args.filter.iter().any(|text| id.contains(text));
    let requirements: Vec<&Requirement> = table::all().filter(|r| wanted(r.id)).collect();
    if args.list {
        for r in &requirements {
            writeln!(
                out,
                "{}\t{}\t{}\t{}",
                r.id,
                r.level.as_str(),
                r.section,
                r.text
            )
            .map_err(fail)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let expected = match &args.expected {
        None => Expected::parse(include_str!("../expected.toml"))?,
        Some(path) => Expected::parse(
            &fs::read_to_string(path)
                .map_err(|e| format!("cannot read {}: {e}", path.display()))?,
        )?,
    };
    let mut runtimes = args.runtimes.clone();
    if runtimes.is_empty() {
        runtimes.extend(env::var_os("RUNTIME").map(PathBuf::from));
    }
    if runtimes.is_empty() {
        return Err("name a runtime, or set RUNTIME".to_owned());
    }
    prepare(args.cgroup2)?;
    let mut columns = Vec::new();
    let mut surprised = false;
    for path in &runtimes {
        let lab = Lab::new(path, &args.global)?;
        let runtime = name_of(path);
        if args.tap {
            writeln!(
                out,
                "TAP version 13\n# {runtime}\n1..{}",
                requirements.len()
            )
            .map_err(fail)?;
        }
        let mut outcomes = Vec::new();
        for (n, requirement) in requirements.iter().enumerate() {
            let outcome = Outcome::of(requirement, &lab);
            if args.tap {
                let known = expected.reason(&runtime, requirement.id);
                write_tap(out, n + 1, requirement, &outcome, known).map_err(fail)?;
            }
            outcomes.push(outcome);
        }
        columns.push(Column { runtime, outcomes });
    }
    if !args.tap {
        write_table(out, &requirements, &columns).map_err(fail)?;
    }
    for column in &columns {
        for line in column.surprises(&requirements, &expected) {
            surprised = true;
            writeln!(out, "# unexpected: {} {line}", column.runtime).map_err(fail)?;
        }
    }
    Ok(if surprised {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Leaves the machine's names, queues and network alone: the tests get their own.
fn prepare(cgroup2: bool) -> Result<(), String> {
    let own = CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET;
    unshare(own).map_err(|e| format!("cannot unshare namespaces (root is needed): {e}"))?;
    private_mounts(cgroup2)
}

/// Enters a mount namespace of its own, on demand with cgroup v2 over /sys/fs/cgroup.
fn private_mounts(cgroup2: bool) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|e| format!("cannot unshare the mount namespace (root is needed): {e}"))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|e| format!("cannot make the mounts private: {e}"))?;
    if cgroup2 {
        mount(
            Some("cgroup2"),
            "/sys/fs/cgroup",
            Some("cgroup2"),
            MsFlags::empty(),
            none,
        )
        .map_err(|e| format!("cannot mount cgroup2 at /sys/fs/cgroup: {e}"))?;
    }
    Ok(())
}
