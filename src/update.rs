//! The `update` verb: change the limits of a container that exists.

use std::path::PathBuf;

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
