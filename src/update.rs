//! The `update` verb: change the limits of a container that exists.

use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Linux, LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxPids,
    LinuxResources,
};

use crate::bundle::read_json_file;
use crate::cgroups::{self, Driver, update};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::state::Status;
use crate::units::bytes;

/// Change the limits of a container
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Read linux.resources from this JSON file (- is stdin) and ignore the other flags
    #[arg(long, short, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// Period of the CPU bandwidth limit, in microseconds; 0 is the system's default
    #[arg(long, value_name = "USEC")]
    pub cpu_period: Option<u64>,
    /// CPU time within a period, in microseconds; -1 is unlimited
    #[arg(long, value_name = "USEC")]
    pub cpu_quota: Option<i64>,
    /// CPU time that may be saved up and used later, in microseconds
    #[arg(long, value_name = "USEC")]
    pub cpu_burst: Option<u64>,
    /// Relative weight of CPU time, in v1 shares; 1024 is the default
    #[arg(long, value_name = "SHARES")]
    pub cpu_share: Option<u64>,
    /// Period of the realtime CPU limit, in microseconds (cgroup v1)
    #[arg(long, value_name = "USEC")]
    pub cpu_rt_period: Option<u64>,
    /// Realtime CPU time within a period, in microseconds (cgroup v1)
    #[arg(long, value_name = "USEC")]
    pub cpu_rt_runtime: Option<i64>,
    /// The CPUs to run on: 0-3,7
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// The memory nodes to use: 0,1
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// 1: SCHED_IDLE for the whole cgroup; 0: as usual
    #[arg(long, value_name = "0|1")]
    pub cpu_idle: Option<i64>,
    /// Memory limit in bytes, or 64M, 1g; -1 is unlimited
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub memory: Option<i64>,
    /// Memory that is reclaimed last
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub memory_reservation: Option<i64>,
    /// Limit of memory and swap together; -1 is unlimited
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub memory_swap: Option<i64>,
    /// Ignored: the kernel has no such limit any more
    #[arg(long, value_name = "SIZE", hide = true)]
    pub kernel_memory: Option<String>,
    /// Ignored: the kernel has no such limit any more
    #[arg(long, value_name = "SIZE", hide = true)]
    pub kernel_memory_tcp: Option<String>,
    /// The most processes and threads; -1 is unlimited
    #[arg(long, value_name = "N")]
    pub pids_limit: Option<i64>,
    /// Intel RDT: schema of the L3 cache
    #[arg(long, value_name = "SCHEMA")]
    pub l3_cache_schema: Option<String>,
    /// Intel RDT: schema of the memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    pub mem_bw_schema: Option<String>,
    /// Replace the device rules by the list in this JSON file (- is stdin)
    #[arg(long, value_name = "FILE")]
    pub devices: Option<PathBuf>,
    /// Deny a device from now on: "c 10:229 rwm", * for all numbers
    #[arg(long, value_name = "RULE", value_parser = denied)]
    pub device_deny: Vec<LinuxDeviceCgroup>,
    /// Allow a device from now on, after what is denied
    #[arg(long, value_name = "RULE", value_parser = allowed)]
    pub device_allow: Vec<LinuxDeviceCgroup>,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Runs the verb: applies the limits and keeps them for the next update.
///
/// # Errors
/// [`Error::NotRunning`] if the container has stopped; what the kernel does not take.
pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let container = context.store.load_locked(&args.id)?;
    if matches!(container.status()?, Status::Stopped | Status::Creating) {
        return Err(Error::NotRunning);
    }
    for (given, flag) in [
        (&args.kernel_memory, "kernel-memory"),
        (&args.kernel_memory_tcp, "kernel-memory-tcp"),
    ] {
        if given.is_some() {
            context.log.warn(&format!(
                "--{flag} is ignored: the kernel has no such limit any more"
            ));
        }
    }
    let (l3_cache, mem_bw) = (
        args.l3_cache_schema.as_deref(),
        args.mem_bw_schema.as_deref(),
    );
    let has_rdt = l3_cache.is_some() || mem_bw.is_some();
    if has_rdt && container.record.intel_rdt.is_none() {
        let why = "Intel RDT: the container was created without .linux.intelRdt";
        return Err(Error::Usage(why.into()));
    }
    let wanted = match &args.resources {
        Some(file) => from_json(file)?,
        None => from_flags(args),
    };
    let mut spec = container.spec()?;
    let mut linux = spec.linux().clone().unwrap_or_else(empty_linux);
    let stored = linux.resources().clone().unwrap_or_default();
    let rules = device_rules(args, &stored)?;
    let only_rules = rules.is_some() && args.resources.is_none() && asks_nothing(&wanted);
    let mut merged = match only_rules {
        true => stored.clone(),
        false => update::merge(&stored, &wanted),
    };
    let changes_rules = rules.is_some();
    if changes_rules {
        merged.set_devices(rules);
    }
    let cgroup = cgroups::open(&container.record.cgroup);
    if let Err(error) = apply(cgroup.as_ref(), &merged, changes_rules) {
        if changes_rules {
            cgroup.allow_devices(stored.devices().as_deref().unwrap_or_default())?;
        }
        return Err(error);
    }
    if let Some(group) = container.record.intel_rdt.as_ref().filter(|_| has_rdt) {
        group.update(l3_cache, mem_bw)?;
    }
    linux.set_resources(Some(merged));
    spec.set_linux(Some(linux));
    container.save_spec(&spec)
}

/// Applies limits, and device rules only if they change: somebody else may have added to them.
fn apply(cgroup: &dyn Driver, resources: &LinuxResources, changes_rules: bool) -> Result<()> {
    cgroup.limit(resources)?;
    cgroup.verify_limits(resources)?;
    if !changes_rules {
        return Ok(());
    }
    let rules = resources.devices().as_deref().unwrap_or_default();
    cgroup.allow_devices(rules)?;
    cgroup.verify_devices(rules)
}

/// The device rules after the update; `None` leaves them as they are.
fn device_rules(args: &Args, stored: &LinuxResources) -> Result<Option<Vec<LinuxDeviceCgroup>>> {
    let single: Vec<_> = args.device_deny.iter().chain(&args.device_allow).collect();
    let mut rules = match &args.devices {
        Some(file) => from_json(file)?,
        None if single.is_empty() => return Ok(None),
        None => stored.devices().clone().unwrap_or_default(),
    };
    for rule in single {
        let same = |old: &LinuxDeviceCgroup| {
            (old.typ(), old.major(), old.minor(), old.access())
                == (rule.typ(), rule.major(), rule.minor(), rule.access())
        };
        rules.retain(|old| !same(old));
        rules.push(rule.clone());
    }
    Ok(Some(rules))
}

/// A device rule as `devices.allow` has it: `c 10:229 rwm`.
///
/// Source: cgroup-v1/devices.rst.
fn device_rule(text: &str, allow: bool) -> Result<LinuxDeviceCgroup, &'static str> {
    const FORM: &str = "a rule is TYPE MAJOR:MINOR [ACCESS], as in \"c 10:229 rwm\" or \"b 8:* r\"";
    let words: Vec<&str> = text.split_whitespace().collect();
    let (kind, numbers, access) = match words[..] {
        [kind, numbers, access] => (kind, numbers, access),
        [kind, numbers] => (kind, numbers, "rwm"),
        _ => return Err(FORM),
    };
    let (major, minor) = numbers.split_once(':').ok_or(FORM)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        number => number
            .parse::<u32>()
            .map(|number| Some(number.into()))
            .map_err(|_| FORM),
    };
    if access.contains(|letter| !"rwm".contains(letter)) {
        return Err(FORM);
    }
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow);
    rule.set_typ(Some(match kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(FORM),
    }));
    rule.set_major(number(major)?);
    rule.set_minor(number(minor)?);
    rule.set_access(Some(access.into()));
    Ok(rule)
}

fn denied(text: &str) -> Result<LinuxDeviceCgroup, &'static str> {
    device_rule(text, false)
}

fn allowed(text: &str) -> Result<LinuxDeviceCgroup, &'static str> {
    device_rule(text, true)
}

/// A `linux` section that asks for nothing; oci_spec's default asks for a lot.
fn empty_linux() -> Linux {
    serde_json::from_str("{}").unwrap_or_default()
}

/// The value in a JSON file, or in stdin for `-`.
fn from_json<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T> {
    let name = file.display().to_string();
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .map_err(|error| Error::host("read", "stdin", error))?;
        bytes
    } else {
        read_json_file(file, &name)?
    };
    serde_json::from_slice(&bytes).map_err(|error| Error::Spec {
        file: name,
        at: format!("line {} column {}", error.line(), error.column()),
        why: error.to_string(),
    })
}

/// Whether no flag has set a limit.
fn asks_nothing(resources: &LinuxResources) -> bool {
    resources.cpu().as_ref() == Some(&LinuxCpu::default())
        && resources.memory() == &Some(LinuxMemory::default())
        && resources.block_io().is_none()
        && resources.pids().is_none()
}

fn from_flags(args: &Args) -> LinuxResources {
    let mut resources = LinuxResources::default();
    let mut cpu = LinuxCpu::default();
    cpu.set_period(args.cpu_period);
    cpu.set_quota(args.cpu_quota);
    cpu.set_burst(args.cpu_burst);
    cpu.set_shares(args.cpu_share);
    cpu.set_realtime_period(args.cpu_rt_period);
    cpu.set_realtime_runtime(args.cpu_rt_runtime);
    cpu.set_cpus(args.cpuset_cpus.clone());
    cpu.set_mems(args.cpuset_mems.clone());
    cpu.set_idle(args.cpu_idle);
    resources.set_cpu(Some(cpu));
    let mut memory = LinuxMemory::default();
    memory.set_limit(args.memory);
    memory.set_reservation(args.memory_reservation);
    memory.set_swap(args.memory_swap);
    resources.set_memory(Some(memory));
    if let Some(weight) = args.blkio_weight {
        let mut block = LinuxBlockIo::default();
        block.set_weight(Some(weight));
        resources.set_block_io(Some(block));
    }
    if let Some(limit) = args.pids_limit {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_rule_is_read_as_the_kernel_writes_it() {
        let cases = [
            (
                "c 10:229 rwm",
                Some(r#"{"allow":true,"type":"c","major":10,"minor":229,"access":"rwm"}"#),
            ),
            (
                "b 8:* r",
                Some(r#"{"allow":true,"type":"b","major":8,"access":"r"}"#),
            ),
            ("a *:*", Some(r#"{"allow":true,"type":"a","access":"rwm"}"#)),
            ("c 10 rwm", None),
            ("c 10:x rwm", None),
            ("c -1:1 rwm", None),
            ("p 1:1 rwm", None),
            ("c 1:1 rx", None),
            ("", None),
        ];
        for (text, want) in cases {
            let want = want.map(|json| serde_json::from_str::<LinuxDeviceCgroup>(json).unwrap());
            assert_eq!(allowed(text).ok(), want, "{text}");
        }
        assert!(!denied("c 1:1").unwrap().allow());
    }
}
