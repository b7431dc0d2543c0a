//! Docker's words for a container: the `Config` and `HostConfig` objects of the Engine API.
//!
//! `docker inspect` shows them, the daemon reads them from a create request, and the record on
//! disk stores them, so one shape serves all three. Field names are the API's (1.51).
//! Source: moby, api/swagger.yaml, definitions `ContainerConfig`, `HostConfig`, `Resources`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::image::config::{Empty, Healthcheck};

/// What runs in the container, independent of the machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Host name in the UTS namespace.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: String,
    /// `USER[:GROUP]`, names or numbers.
    pub user: String,
    /// Whether `start` connects the caller's stdin.
    pub attach_stdin: bool,
    /// Whether `start` connects the caller's stdout.
    pub attach_stdout: bool,
    /// Whether `start` connects the caller's stderr.
    pub attach_stderr: bool,
    /// `PORT/PROTOCOL` the image or the user exposes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// A terminal instead of three pipes.
    pub tty: bool,
    /// Keep stdin open although nobody is attached.
    pub open_stdin: bool,
    /// Close stdin when the first attached client leaves.
    pub stdin_once: bool,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// Arguments; `None` is Docker's null.
    pub cmd: Option<Vec<String>>,
    /// How to tell whether the container works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// The image as the user named it.
    pub image: String,
    /// Paths that get an anonymous volume.
    pub volumes: Option<BTreeMap<String, Empty>>,
    /// Where the process starts.
    pub working_dir: String,
    /// What the arguments are given to.
    pub entrypoint: Option<Vec<String>>,
    /// Build triggers of the image.
    pub on_build: Option<Vec<String>>,
    /// Free metadata.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the process to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Seconds between the stop signal and SIGKILL; -1 waits for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Shell of `CMD-SHELL` health checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// What the container gets from this machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// `-v` values: `SOURCE:TARGET[:OPTIONS]`.
    pub binds: Option<Vec<String>>,
    /// File that got the id.
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    /// Where output goes.
    pub log_config: LogConfig,
    /// `host`, `none`, `bridge`, `container:ID` or a network's name.
    pub network_mode: String,
    /// Container port to host addresses.
    pub port_bindings: BTreeMap<String, Vec<PortBinding>>,
    /// When the monitor starts the container again.
    pub restart_policy: RestartPolicy,
    /// Remove the container when it exits.
    pub auto_remove: bool,
    /// Driver of named volumes.
    pub volume_driver: String,
    /// `CONTAINER[:ro]` whose mounts are taken over.
    pub volumes_from: Option<Vec<String>>,
    /// Rows and columns of the terminal.
    pub console_size: [u16; 2],
    /// Passed to the OCI runtime.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Capabilities on top of the defaults.
    pub cap_add: Option<Vec<String>>,
    /// Capabilities taken from the defaults.
    pub cap_drop: Option<Vec<String>>,
    /// `private` or `host`.
    pub cgroupns_mode: String,
    /// Name servers.
    pub dns: Vec<String>,
    /// `options` of resolv.conf.
    pub dns_options: Vec<String>,
    /// `search` of resolv.conf.
    pub dns_search: Vec<String>,
    /// `NAME:ADDRESS` lines for /etc/hosts.
    pub extra_hosts: Option<Vec<String>>,
    /// Supplementary groups, names or numbers.
    pub group_add: Option<Vec<String>>,
    /// `private`, `shareable`, `none`, `host` or `container:ID`.
    pub ipc_mode: String,
    /// `CONTAINER:ALIAS`.
    pub links: Option<Vec<String>>,
    /// Preference of the OOM killer, -1000 to 1000.
    pub oom_score_adj: i64,
    /// Empty, `host` or `container:ID`.
    pub pid_mode: String,
    /// All capabilities, all devices, nothing masked.
    pub privileged: bool,
    /// Publish every exposed port.
    pub publish_all_ports: bool,
    /// The root filesystem is mounted read-only.
    pub readonly_rootfs: bool,
    /// `seccomp=…`, `apparmor=…`, `label=…`, `no-new-privileges`, `systempaths=unconfined`.
    pub security_opt: Option<Vec<String>>,
    /// Options of the storage driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opt: BTreeMap<String, String>,
    /// Target to options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, String>,
    /// Empty or `host`.
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    /// Empty or `host`.
    pub userns_mode: String,
    /// Bytes of /dev/shm.
    pub shm_size: i64,
    /// Kernel parameters of the container's namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Name or path of the OCI runtime.
    pub runtime: String,
    /// An init process inside reaps and forwards signals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// `--mount` values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountRequest>,
    /// Limits.
    #[serde(flatten)]
    pub resources: Resources,
    /// Paths hidden in the container; `None` are the defaults.
    pub masked_paths: Option<Vec<String>>,
    /// Paths that are read-only in the container; `None` are the defaults.
    pub readonly_paths: Option<Vec<String>>,
}

/// Limits, as `docker update` can change them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Resources {
    /// Relative CPU weight; 0 is the kernel's 1024.
    pub cpu_shares: i64,
    /// Bytes; 0 is no limit.
    pub memory: i64,
    /// CPUs times 10⁹; 0 is no limit.
    pub nano_cpus: i64,
    /// Parent of the container's cgroup.
    pub cgroup_parent: String,
    /// 10 to 1000; 0 is the kernel's choice.
    pub blkio_weight: u16,
    /// Weight per device.
    pub blkio_weight_device: Vec<WeightDevice>,
    /// Bytes per second read.
    pub blkio_device_read_bps: Vec<ThrottleDevice>,
    /// Bytes per second written.
    pub blkio_device_write_bps: Vec<ThrottleDevice>,
    /// Reads per second.
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: Vec<ThrottleDevice>,
    /// Writes per second.
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: Vec<ThrottleDevice>,
    /// Length of a CFS period in microseconds.
    pub cpu_period: i64,
    /// Microseconds per period.
    pub cpu_quota: i64,
    /// Length of a real-time period in microseconds.
    pub cpu_realtime_period: i64,
    /// Real-time microseconds per period.
    pub cpu_realtime_runtime: i64,
    /// CPUs the container may run on: `0-3`, `0,1`.
    pub cpuset_cpus: String,
    /// NUMA nodes the container may use.
    pub cpuset_mems: String,
    /// Host devices.
    pub devices: Vec<DeviceMapping>,
    /// Rules such as `c 1:3 mr`.
    pub device_cgroup_rules: Option<Vec<String>>,
    /// Bytes; reclaim starts here.
    pub memory_reservation: i64,
    /// Bytes of memory and swap together; -1 is no limit.
    pub memory_swap: i64,
    /// 0 to 100; cgroup v1 only.
    pub memory_swappiness: Option<i64>,
    /// Stall instead of kill; cgroup v1 only.
    pub oom_kill_disable: Option<bool>,
    /// Processes and threads; `None`, 0 and -1 are no limit.
    pub pids_limit: Option<i64>,
    /// Resource limits of the first process.
    pub ulimits: Vec<Ulimit>,
}

/// Where a container's output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// `json-file` or `none`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `max-size`, `max-file` and the like.
    #[serde(rename = "Config")]
    pub options: BTreeMap<String, String>,
}

/// When the monitor starts the container again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// `no`, `always`, `unless-stopped` or `on-failure`.
    pub name: String,
    /// Attempts of `on-failure`; 0 is no bound.
    pub maximum_retry_count: u32,
}

/// One published port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    /// Address on the host; empty is all.
    pub host_ip: String,
    /// Port on the host; empty is any free one.
    pub host_port: String,
}

/// A host device in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceMapping {
    /// Path on the host.
    pub path_on_host: String,
    /// Path in the container.
    pub path_in_container: String,
    /// Some of `rwm`.
    pub cgroup_permissions: String,
}

/// A weight for one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WeightDevice {
    /// Device node on the host.
    pub path: String,
    /// 10 to 1000.
    pub weight: u16,
}

/// A rate for one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ThrottleDevice {
    /// Device node on the host.
    pub path: String,
    /// Bytes or operations per second.
    pub rate: u64,
}

/// A resource limit of setrlimit(2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// Name without `RLIMIT_`, lower case.
    pub name: String,
    /// Ceiling; -1 is unlimited.
    pub hard: i64,
    /// Limit in force; -1 is unlimited.
    pub soft: i64,
}

/// One `--mount`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountRequest {
    /// `bind`, `volume` or `tmpfs`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Host path or volume name; empty for tmpfs and anonymous volumes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Whether the container may only read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Options of a bind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// Options of a volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    /// Options of a tmpfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
}

/// Options of a bind mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindOptions {
    /// `rprivate`, `rslave`, `rshared`, `private`, `slave`, `shared`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub propagation: String,
    /// Bind the mount alone, not what is mounted below it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub non_recursive: bool,
    /// Make a missing source directory.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub create_mountpoint: bool,
}

/// Options of a volume mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeOptions {
    /// Do not copy the image's files into an empty volume.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_copy: bool,
    /// Labels of a volume that the mount creates.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What that volume is made with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<DriverConfig>,
    /// Path inside the volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subpath: String,
}

impl VolumeOptions {
    /// What the local driver makes a new volume of.
    pub fn driver_options(&self) -> BTreeMap<String, String> {
        let config = self.driver_config.as_ref();
        config
            .map(|config| config.options.clone())
            .unwrap_or_default()
    }
}

/// A volume driver, and what it is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DriverConfig {
    /// `local`; empty is the same.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `type`, `device` and `o`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// Options of a tmpfs mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TmpfsOptions {
    /// Bytes; 0 is half of the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
    /// Permission bits of the root directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}
