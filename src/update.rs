//! The `update` verb: change the limits of a container that exists.

use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use crate::bundle::read_json_file;
use crate::cgroups::{self, update};
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
    if args.l3_cache_schema.is_some() || args.mem_bw_schema.is_some() {
        let why = "Intel RDT: the container was created without .linux.intelRdt";
        return Err(Error::Usage(why.into()));
    }
    let wanted = match &args.resources {
        Some(file) => read(file)?,
        None => from_flags(args),
    };
    let mut spec = container.spec()?;
    let mut linux = spec.linux().clone().unwrap_or_else(empty_linux);
    let stored = linux.resources().clone().unwrap_or_default();
    let merged = update::merge(&stored, &wanted);
    cgroups::open(&container.record.cgroup).limit(&merged)?;
    linux.set_resources(Some(merged));
    spec.set_linux(Some(linux));
    container.save_spec(&spec)
}

/// A `linux` section that asks for nothing; oci_spec's default asks for a lot.
fn empty_linux() -> Linux {
    serde_json::from_str("{}").unwrap_or_default()
}

fn read(file: &Path) -> Result<LinuxResources> {
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
