//! `rdocker info`

use serde_json::{Value, json};

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
            (" Logging Driver", "LoggingDriver"),
            (" Cgroup Driver", "CgroupDriver"),
            (" Cgroup Version", "CgroupVersion"),
        ];
        for (label, key) in counts {
            ui.line(format_args!("{label}: {}", text(key)))?;
        }
        ui.line(" Log rotation: max-size=20m max-file=3 unless configured otherwise")?;
        ui.line(" Plugins:\n  Volume: local\n  Network: bridge host none\n  Log: json-file none")?;
        ui.line(" Swarm: inactive")?;
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
        let memory = facts["MemTotal"].as_u64().unwrap_or(0);
        ui.line(format_args!(" Total Memory: {}", binary_size(memory)))?;
        ui.line(format_args!(" Name: {}", text("Name")))?;
        ui.line(format_args!(" Docker Root Dir: {}", text("DockerRootDir")))?;
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
    Ok(json!({
        "Containers": containers.len(),
        "ContainersRunning": count(&|status| matches!(status, Status::Running | Status::Restarting)),
        "ContainersPaused": count(&|status| status == Status::Paused),
        "ContainersStopped": count(&|status| !status.is_alive()),
        "Images": images,
        "Driver": "overlay2",
        "LoggingDriver": "json-file",
        "CgroupDriver": if makes_cgroups { "cgroupfs" } else { "none" },
        "CgroupVersion": if cgroup::is_unified() { "2" } else { "1" },
        "Swarm": {"LocalNodeState": "inactive"},
        "DefaultRuntime": runtime,
        "KernelVersion": system.release().to_string_lossy(),
        "OperatingSystem": operating_system(),
        "OSType": "linux",
        "Architecture": system.machine().to_string_lossy(),
        "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "MemTotal": memory_total(),
        "Name": create::host_name(),
        "DockerRootDir": host.data_root,
        "Labels": host.settings.labels,
        "RegistryConfig": {
            "InsecureRegistryCIDRs": host.settings.insecure_registries,
            "Mirrors": host.settings.registry_mirrors,
        },
        "IndexServerAddress": "https://index.docker.io/v1/",
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "ApiVersion": version::API_VERSION,
        "LiveRestoreEnabled": true,
        "SecurityOptions": security_options(host),
        "Warnings": null,
    }))
}

fn security_options(host: &Host) -> Vec<&'static str> {
    let mut options = vec!["name=seccomp,profile=builtin", "name=cgroupns"];
    if host.in_user_namespace {
        options.push("name=rootless");
    }
    options
}

/// `PRETTY_NAME` of os-release(5).
fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(
        || "Linux".to_owned(),
        |name| name.trim_matches('"').to_owned(),
    )
}

/// Bytes of memory.
pub fn memory_total() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}
