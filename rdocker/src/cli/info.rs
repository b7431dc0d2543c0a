//! `rdocker info`

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::container::api::Resources;
use crate::container::cgroup;
use crate::container::record::Status;
use crate::container::{Containers, create};
use crate::error::Result;
use crate::host::Host;
use crate::image::Images;
use crate::runtime::Runtime;
use crate::store::Store;
use crate::ui::Ui;
use crate::ui::format::binary_size;
use crate::ui::template::Template;

use super::context::DEFAULT;
use super::version;

/// Display system-wide information
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker info [OPTIONS]")]
pub struct Info {
    /// Format output: 'json' or a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl Info {
    /// Counts and facts of this host.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let facts = facts(host)?;
        if let Some(format) = self.format {
            let format = if format == "json" {
                "{{json .}}"
            } else {
                &format
            };
            return ui.line(Template::parse(format)?.render(&facts)?);
        }
        ui.line("Client: rdocker")?;
        ui.line(format_args!(" Version:    {}", env!("CARGO_PKG_VERSION")))?;
        ui.line(" Context:    default\n\nServer:")?;
        let text = |key: &str| match &facts[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let counts = [
            (" Containers", "Containers"),
            ("  Running", "ContainersRunning"),
            ("  Paused", "ContainersPaused"),
            ("  Stopped", "ContainersStopped"),
            (" Images", "Images"),
            (" Server Version", "ServerVersion"),
            (" Storage Driver", "Driver"),
        ];
        for (label, key) in counts {
            ui.line(format_args!("{label}: {}", text(key)))?;
        }
        for pair in facts["DriverStatus"].as_array().into_iter().flatten() {
            let word = |at: usize| pair[at].as_str().unwrap_or_default();
            ui.line(format_args!("  {}: {}", word(0), word(1)))?;
        }
        let drivers = [
            (" Logging Driver", "LoggingDriver"),
            (" Cgroup Driver", "CgroupDriver"),
            (" Cgroup Version", "CgroupVersion"),
        ];
        for (label, key) in drivers {
            ui.line(format_args!("{label}: {}", text(key)))?;
        }
        ui.line(" Log rotation: max-size=20m max-file=3 unless configured otherwise")?;
        ui.line(" Plugins:\n  Volume: local\n  Network: bridge host none\n  Log: json-file none")?;
        ui.line(" Swarm: inactive")?;
        let names = facts["Runtimes"]
            .as_object()
            .into_iter()
            .flat_map(Map::keys);
        let names: Vec<&str> = names.map(String::as_str).collect();
        ui.line(format_args!(" Runtimes: {}", names.join(" ")))?;
        let more = [
            (" Default Runtime", "DefaultRuntime"),
            (" Kernel Version", "KernelVersion"),
            (" Operating System", "OperatingSystem"),
            (" OSType", "OSType"),
            (" Architecture", "Architecture"),
            (" CPUs", "NCPU"),
        ];
        for (label, key) in more {
            ui.line(format_args!("{label}: {}", text(key)))?;
        }
        ui.line(" Security Options:")?;
        for option in security_options(host) {
            let words = option.trim_start_matches("name=");
            ui.line(format_args!(
                "  {}",
                words.replace(",profile=", "\n   Profile: ")
            ))?;
        }
        machine(host, &facts, ui)
    }
}

/// The lines about the machine and the configuration, which end the list.
fn machine(host: &Host, facts: &Value, ui: &mut Ui) -> Result<()> {
    let text = |key: &str| facts[key].as_str().unwrap_or_default();
    let memory = facts["MemTotal"].as_u64().unwrap_or(0);
    ui.line(format_args!(" Total Memory: {}", binary_size(memory)))?;
    ui.line(format_args!(" Name: {}", text("Name")))?;
    ui.line(format_args!(" ID: {}", text("ID")))?;
    ui.line(format_args!(" Docker Root Dir: {}", text("DockerRootDir")))?;
    ui.line(" Debug Mode: false\n Experimental: false")?;
    let list = |ui: &mut Ui, title: &str, values: &[String]| -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        ui.line(format_args!(" {title}:"))?;
        values
            .iter()
            .try_for_each(|value| ui.line(format_args!("  {value}")))
    };
    list(ui, "Labels", &host.settings.labels)?;
    list(
        ui,
        "Insecure Registries",
        &host.settings.insecure_registries,
    )?;
    list(ui, "Registry Mirrors", &host.settings.registry_mirrors)?;
    ui.line(" Live Restore Enabled: true")
}

fn facts(host: &Host) -> Result<Value> {
    let containers = Containers::new(host).list()?;
    let count = |wanted: &dyn Fn(Status) -> bool| {
        containers
            .iter()
            .filter(|container| wanted(container.state.status))
            .count()
    };
    let store = Store::open(&host.data_root)?;
    let images = Images::new(&store).list()?.len();
    let system = rustix::system::uname();
    let runtime = Runtime::find(host, "")
        .map(|runtime| runtime.name())
        .unwrap_or_default();
    let makes_cgroups = cgroup::place(host, &Resources::default(), "id").is_some();
    let controllers = match makes_cgroups {
        true => cgroup::controllers(),
        false => Vec::new(),
    };
    let mut facts = object(json!({
        "Containers": containers.len(),
        "ContainersRunning": count(&|status| matches!(status, Status::Running | Status::Restarting)),
        "ContainersPaused": count(&|status| status == Status::Paused),
        "ContainersStopped": count(&|status| !status.is_alive()),
        "Images": images,
        "Driver": "overlay2",
        "LoggingDriver": "json-file",
        "CgroupDriver": if makes_cgroups { "cgroupfs" } else { "none" },
        "CgroupVersion": if cgroup::is_unified() { "2" } else { "1" },
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive",
            "ControlAvailable": false, "Error": "", "RemoteManagers": null,
        },
        "DefaultRuntime": runtime,
        "KernelVersion": system.release().to_string_lossy(),
        "OperatingSystem": os_release("PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned()),
        "OSType": "linux",
        "Architecture": system.machine().to_string_lossy(),
        "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "MemTotal": memory_total(),
        "Name": create::host_name(),
        "DockerRootDir": host.data_root,
        "Labels": host.settings.labels,
        "RegistryConfig": registry_config(host),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "ApiVersion": version::API_VERSION,
        "LiveRestoreEnabled": true,
        "SecurityOptions": security_options(host),
        "Warnings": null,
    }));
    facts.extend(constants(host));
    facts.extend(limits(&controllers));
    Ok(Value::Object(facts))
}

/// What is told of every engine, and is the same here at all times.
fn constants(host: &Host) -> Map<String, Value> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let constants = json!({
        "ID": engine_id(host),
        "DriverStatus": driver_status(host),
        "Plugins": {
            "Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": null,
            "Log": ["json-file", "none"],
        },
        "Debug": false,
        "NFd": std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        "NGoroutines": 0,
        "NEventsListener": 0,
        "SystemTime": jiff::Timestamp::now().to_string(),
        "OSVersion": os_release("VERSION_ID").unwrap_or_default(),
        "GenericResources": null,
        "HttpProxy": variable("HTTP_PROXY"),
        "HttpsProxy": variable("HTTPS_PROXY"),
        "NoProxy": variable("NO_PROXY"),
        "ExperimentalBuild": false,
        "Runtimes": runtimes(host),
        "Isolation": "",
        "InitBinary": "docker-init",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "CDISpecDirs": [],
        "DefaultAddressPools": null,
        "ClientInfo": {
            "Debug": false, "Context": DEFAULT, "Plugins": [], "Warnings": null,
            "Version": env!("CARGO_PKG_VERSION"), "Platform": {"Name": "rdocker"},
            "ApiVersion": version::API_VERSION, "DefaultAPIVersion": version::API_VERSION,
            "GitCommit": version::COMMIT, "GoVersion": "", "BuildTime": "", "Os": "linux",
            "Arch": version::architecture(),
        },
    });
    object(constants)
}

/// Which limits a container may have.
fn limits(controllers: &[String]) -> Map<String, Value> {
    let has = |name: &str| controllers.iter().any(|known| known == name);
    object(json!({
        "MemoryLimit": has("memory"),
        "SwapLimit": has("memory") && cgroup::counts_swap(),
        "CpuCfsPeriod": has("cpu"),
        "CpuCfsQuota": has("cpu"),
        "CPUShares": has("cpu"),
        "CPUSet": has("cpuset"),
        "PidsLimit": has("pids"),
        "OomKillDisable": has("memory") && !cgroup::is_unified(),
        "IPv4Forwarding": std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
            .is_ok_and(|text| text.trim() == "1"),
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn security_options(host: &Host) -> Vec<&'static str> {
    let mut options = vec!["name=seccomp,profile=builtin", "name=cgroupns"];
    if host.in_user_namespace {
        options.push("name=rootless");
    }
    options
}

/// A value of os-release(5).
fn os_release(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let values = text.lines().filter_map(|line| line.split_once('='));
    let (_, value) = values.into_iter().find(|(name, _)| *name == key)?;
    Some(value.trim_matches('"').to_owned())
}

/// A UUID that stays the same: of the machine and the data root, so nothing has to be kept for it.
fn engine_id(host: &Host) -> String {
    let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
    let mut hasher = Sha256::new();
    hasher.update(machine);
    hasher.update(host.data_root.as_os_str().as_encoded_bytes());
    let hex: String = hasher
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..32],
    ];
    parts.join("-")
}

/// What the layers lie on, and how overlayfs is used (dockerd's driver `overlay2`).
fn driver_status(host: &Host) -> Value {
    /// linux/magic.h, and dockerd's names.
    const NAMES: &[(u32, &str)] = &[
        (0x0000_ef53, "extfs"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
        (0x794c_7630, "overlayfs"),
        (0x0102_1994, "tmpfs"),
        (0x2fc1_2fc1, "zfs"),
        (0xf2f5_2010, "f2fs"),
    ];
    let magic = rustix::fs::statfs(&host.data_root).map(|found| found.f_type);
    let name = NAMES
        .iter()
        .find(|(known, _)| magic == Ok(rustix::fs::FsWord::from(*known)))
        .map_or("<unknown>", |(_, name)| name);
    let userxattr = host.in_user_namespace.to_string();
    json!([
        ["Backing Filesystem", name],
        ["Supports d_type", "true"],
        ["Using metacopy", "false"],
        ["Native Overlay Diff", "true"],
        ["userxattr", userxattr],
    ])
}

fn runtimes(host: &Host) -> Value {
    let configured = host.settings.runtimes.iter();
    let mut list: Map<String, Value> = configured
        .map(|(name, runtime)| (name.clone(), json!({"path": runtime.path})))
        .collect();
    if let Ok(runtime) = Runtime::find(host, "") {
        list.entry(runtime.name())
            .or_insert_with(|| json!({"path": runtime.program()}));
    }
    Value::Object(list)
}

fn registry_config(host: &Host) -> Value {
    let (mirrors, insecure) = (
        &host.settings.registry_mirrors,
        &host.settings.insecure_registries,
    );
    let (ranges, hosts): (Vec<&String>, Vec<&String>) =
        insecure.iter().partition(|entry| entry.contains('/'));
    let mut cidrs = vec!["::1/128", "127.0.0.0/8"];
    cidrs.extend(ranges.iter().map(|range| range.as_str()));
    let mut indexes = json!({
        "docker.io": {"Name": "docker.io", "Mirrors": mirrors, "Secure": true, "Official": true},
    });
    for host in hosts {
        indexes[host] = json!({"Name": host, "Mirrors": [], "Secure": false, "Official": false});
    }
    json!({"InsecureRegistryCIDRs": cidrs, "IndexConfigs": indexes, "Mirrors": mirrors})
}

/// Bytes of memory.
pub fn memory_total() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}
