//! What was typed after `docker run` and `docker create`.
//!
//! Only shapes are checked here; [`super::request`] gives the values their meaning.

use std::path::PathBuf;
use std::time::Duration;

use super::api::{ThrottleDevice, Ulimit, WeightDevice};
use super::parse::value;

/// The flags that `run` and `create` share, under their docker names.
#[derive(Debug, Default, Clone, clap::Args)]
#[command(disable_help_flag = true)]
pub struct RunArgs {
    /// Print help (-h is the host name, as in docker)
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Assign a name to the container
    #[arg(long)]
    pub name: Option<String>,
    /// What runs.
    #[command(flatten)]
    pub process: ProcessArgs,
    /// How much it may use.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// What it may do and see.
    #[command(flatten)]
    pub confine: ConfineArgs,
    /// Its files.
    #[command(flatten)]
    pub files: FileArgs,
    /// Its network.
    #[command(flatten)]
    pub net: NetArgs,
    /// Its life.
    #[command(flatten)]
    pub life: LifeArgs,
    /// Image, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    pub image_and_command: Vec<String>,
}

/// What runs.
#[derive(Debug, Default, Clone, clap::Args)]
#[command(next_help_heading = "Process")]
pub struct ProcessArgs {
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(short, long, value_name = "STREAM")]
    pub attach: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    pub interactive: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub tty: bool,
    /// Set environment variables (NAME=VALUE, or NAME to take it from here)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short, long)]
    pub user: Option<String>,
    /// Add additional groups to join
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Container host name
    #[arg(short = 'h', long)]
    pub hostname: Option<String>,
    /// Container NIS domain name
    #[arg(long)]
    pub domainname: Option<String>,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long)]
    pub init: bool,
    /// Set meta data on a container
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Read in a line delimited file of labels
    #[arg(long, value_name = "FILE")]
    pub label_file: Vec<PathBuf>,
    /// Add an annotation to the container (passed through to the OCI runtime)
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
}

/// How much it may use.
#[derive(Debug, Default, Clone, clap::Args)]
#[command(next_help_heading = "Resources")]
pub struct LimitArgs {
    /// Memory limit
    #[arg(short, long, value_name = "BYTES", value_parser = value::bytes)]
    pub memory: Option<i64>,
    /// Memory soft limit
    #[arg(long, value_name = "BYTES", value_parser = value::bytes)]
    pub memory_reservation: Option<i64>,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long, value_name = "BYTES", value_parser = value::bytes_or_unlimited, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Tune container memory swappiness (0 to 100)
    #[arg(long, value_name = "PERCENT", allow_hyphen_values = true)]
    pub memory_swappiness: Option<i64>,
    /// Kernel memory limit (ignored: the kernel no longer has it)
    #[arg(long, value_name = "BYTES", value_parser = value::bytes, hide = true)]
    pub kernel_memory: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_name = "DECIMAL", value_parser = value::nano_cpus)]
    pub cpus: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short, long)]
    pub cpu_shares: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) period
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) quota
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Limit CPU real-time period in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_rt_period: Option<i64>,
    /// Limit CPU real-time runtime in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// Block IO weight (relative device weight)
    #[arg(long, value_name = "DEVICE:WEIGHT", value_parser = value::weight_device)]
    pub blkio_weight_device: Vec<WeightDevice>,
    /// Limit read rate (bytes per second) from a device
    #[arg(long, value_name = "DEVICE:BYTES", value_parser = value::throttle_bps)]
    pub device_read_bps: Vec<ThrottleDevice>,
    /// Limit write rate (bytes per second) to a device
    #[arg(long, value_name = "DEVICE:BYTES", value_parser = value::throttle_bps)]
    pub device_write_bps: Vec<ThrottleDevice>,
    /// Limit read rate (IO per second) from a device
    #[arg(long, value_name = "DEVICE:N", value_parser = value::throttle_iops)]
    pub device_read_iops: Vec<ThrottleDevice>,
    /// Limit write rate (IO per second) to a device
    #[arg(long, value_name = "DEVICE:N", value_parser = value::throttle_iops)]
    pub device_write_iops: Vec<ThrottleDevice>,
    /// Ulimit options
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = value::ulimit)]
    pub ulimit: Vec<Ulimit>,
    /// Disable OOM Killer
    #[arg(long)]
    pub oom_kill_disable: bool,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long, value_name = "N", allow_hyphen_values = true,
          value_parser = clap::value_parser!(i64).range(-1000..=1000))]
    pub oom_score_adj: Option<i64>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = value::bytes)]
    pub shm_size: Option<i64>,
    /// Optional parent cgroup for the container
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
}

/// What it may do and see.
#[derive(Debug, Default, Clone, clap::Args)]
#[command(next_help_heading = "Security and namespaces")]
pub struct ConfineArgs {
    /// Add Linux capabilities
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// Give extended privileges to this container
    #[arg(long)]
    pub privileged: bool,
    /// Security options (seccomp=, apparmor=, label=, no-new-privileges, systempaths=unconfined)
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// Add a host device to the container
    #[arg(long, value_name = "HOST[:CONTAINER[:rwm]]")]
    pub device: Vec<String>,
    /// Add a rule to the cgroup allowed devices list
    #[arg(long, value_name = "RULE")]
    pub device_cgroup_rule: Vec<String>,
    /// GPU devices to add to the container ('all' to pass all GPUs)
    #[arg(long, value_name = "REQUEST")]
    pub gpus: Option<String>,
    /// PID namespace to use ('host', 'container:NAME')
    #[arg(long, value_name = "MODE")]
    pub pid: Option<String>,
    /// IPC mode to use ('private', 'shareable', 'none', 'host', 'container:NAME')
    #[arg(long, value_name = "MODE")]
    pub ipc: Option<String>,
    /// UTS namespace to use ('host')
    #[arg(long, value_name = "MODE")]
    pub uts: Option<String>,
    /// User namespace to use ('host')
    #[arg(long, value_name = "MODE")]
    pub userns: Option<String>,
    /// Cgroup namespace to use ('host', 'private')
    #[arg(long, value_name = "MODE")]
    pub cgroupns: Option<String>,
    /// Sysctl options
    #[arg(long, value_name = "KEY=VALUE", value_parser = value::sysctl)]
    pub sysctl: Vec<String>,
    /// Runtime to use for this container: a name from daemon.json or a path
    #[arg(long)]
    pub runtime: Option<String>,
    /// Container isolation technology
    #[arg(long, hide = true)]
    pub isolation: Option<String>,
}

/// Its files.
#[derive(Debug, Default, Clone, clap::Args)]
#[command(next_help_heading = "Files")]
pub struct FileArgs {
    /// Bind mount a volume
    #[arg(short, long, value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    pub volume: Vec<String>,
    /// Attach a filesystem mount to the container
    #[arg(long, value_name = "KEY=VALUE,...")]
    pub mount: Vec<String>,
    /// Mount a tmpfs directory
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    pub tmpfs: Vec<String>,
    /// Mount volumes from the specified container(s)
    #[arg(long, value_name = "CONTAINER[:ro]")]
    pub volumes_from: Vec<String>,
    /// Optional volume driver for the container
    #[arg(long, value_name = "DRIVER")]
    pub volume_driver: Option<String>,
    /// Mount the container's root filesystem as read only
    #[arg(long)]
    pub read_only: bool,
    /// Storage driver options for the container
    #[arg(long, value_name = "KEY=VALUE")]
    pub storage_opt: Vec<String>,
}

/// Its network.
#[derive(Debug, Default, Clone, clap::Args)]
#[command(next_help_heading = "Network")]
pub struct NetArgs {
    /// Connect a container to a network ('bridge', 'host', 'none', 'container:NAME')
    #[arg(long, alias = "net", value_name = "NETWORK")]
    pub network: Vec<String>,
    /// Add network-scoped alias for the container
    #[arg(long, alias = "net-alias", value_name = "NAME")]
    pub network_alias: Vec<String>,
    /// Publish a container's port(s) to the host
    #[arg(short, long, value_name = "[[IP:]HOST:]CONTAINER[/PROTO]")]
    pub publish: Vec<String>,
    /// Publish all exposed ports to random ports
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Expose a port or a range of ports
    #[arg(long, value_name = "PORT[-PORT][/PROTO]")]
    pub expose: Vec<String>,
    /// Add link to another container
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    pub link: Vec<String>,
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long, value_name = "HOST:IP", value_parser = value::extra_host)]
    pub add_host: Vec<String>,
    /// Set custom DNS servers
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<std::net::IpAddr>,
    /// Set custom DNS search domains
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Set DNS options
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// IPv4 address (e.g., 172.30.100.104)
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<std::net::Ipv4Addr>,
    /// IPv6 address (e.g., 2001:db8::33)
    #[arg(long, value_name = "ADDRESS")]
    pub ip6: Option<std::net::Ipv6Addr>,
    /// Container IPv4/IPv6 link-local addresses
    #[arg(long, value_name = "ADDRESS")]
    pub link_local_ip: Vec<std::net::IpAddr>,
    /// Container MAC address (e.g., 92:d0:c6:0a:29:33)
    #[arg(long, value_name = "ADDRESS")]
    pub mac_address: Option<String>,
}

/// Its life.
#[derive(Debug, Default, Clone, clap::Args)]
#[command(next_help_heading = "Life cycle")]
pub struct LifeArgs {
    /// Automatically remove the container and its associated anonymous volumes when it exits
    #[arg(long)]
    pub rm: bool,
    /// Restart policy to apply when a container exits (no, always, unless-stopped, on-failure[:N])
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,
    /// Signal to stop the container
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Timeout (in seconds) to stop a container
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub stop_timeout: Option<i64>,
    /// Command to run to check health
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub health_interval: Option<Duration>,
    /// Maximum time to allow one check to run (ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub health_timeout: Option<Duration>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long, value_name = "N")]
    pub health_retries: Option<u32>,
    /// Start period for the container to initialize before health-retries counts (ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub health_start_period: Option<Duration>,
    /// Time between running the check during the start period (ms|s|m|h)
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub health_start_interval: Option<Duration>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    pub no_healthcheck: bool,
    /// Logging driver for the container ('json-file', 'none')
    #[arg(long, value_name = "DRIVER")]
    pub log_driver: Option<String>,
    /// Log driver options (max-size, max-file, ...)
    #[arg(long, value_name = "KEY=VALUE")]
    pub log_opt: Vec<String>,
    /// Pull image before running (always, missing, never)
    #[arg(long, value_name = "WHEN", value_parser = ["always", "missing", "never"])]
    pub pull: Option<String>,
    /// Suppress the pull output
    #[arg(short, long)]
    pub quiet: bool,
    /// Set platform if the image has several (os[/arch[/variant]])
    #[arg(long)]
    pub platform: Option<String>,
    /// Write the container ID to the file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// Skip image verification
    #[arg(long, hide = true)]
    pub disable_content_trust: bool,
}
