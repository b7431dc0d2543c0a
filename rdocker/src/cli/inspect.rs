//! `rdocker inspect`

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::container::api::HostConfig;
use crate::container::record::Status;
use crate::container::{Container, Containers, exec, merge, spec};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::image::{self, Images};
use crate::network::Endpoint;
use crate::network::registry::Networks;
use crate::store::Store;
use crate::ui::Ui;
use crate::ui::template::Template;
use crate::volume::Volumes;

use super::transfer::platform;

/// Exit code for a template that cannot be parsed: docker/cli `cli/command/inspect`.
const BAD_TEMPLATE: u8 = 64;
/// Docker's "never".
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Return low-level information on Docker objects
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker inspect [OPTIONS] NAME|ID [NAME|ID...]")]
pub struct Inspect {
    /// Format output: 'json' or a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Find images of this platform only (os[/arch[/variant]])
    #[arg(long)]
    platform: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(short, long)]
    size: bool,
    /// Only inspect objects of the given type (container, image, volume)
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    #[arg(required = true, hide = true)]
    names: Vec<String>,
}

impl Inspect {
    /// For `container inspect`, `image inspect` and `volume inspect`.
    pub fn of_kind(mut self, kind: &str) -> Self {
        self.kind = Some(kind.to_owned());
        self
    }

    /// Prints what is known of each name, of whatever kind it is.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for name in &self.names {
            match self.find(host, name)? {
                Some(value) => found.push(value),
                None => missing.push(name),
            }
        }
        print(ui, self.format.as_deref(), &found)?;
        for name in &missing {
            match self.missing(name) {
                Some(error) => ui.tell(&error)?,
                // Docker's client looked everywhere, so it says this itself.
                None => ui.error_line(format_args!("Error: No such object: {name}"))?,
            }
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Error::Reported)
        }
    }

    /// What the engine says of a name that is not there, if one kind of things was asked for.
    fn missing(&self, name: &str) -> Option<Error> {
        let (kind, name) = match self.kind.as_deref()? {
            "container" => ("container", name.to_owned()),
            "image" if name.contains([':', '@']) => ("image", name.to_owned()),
            "image" => ("image", format!("{name}:latest")),
            "volume" => ("volume", name.to_owned()),
            _ => return Some(Error::Conflict(format!("network {name} not found"))),
        };
        Some(Error::NotFound { kind, name })
    }

    fn find(&self, host: &Host, name: &str) -> Result<Option<Value>> {
        let wanted = |kind: &str| self.kind.as_deref().is_none_or(|only| only == kind);
        if let Some(kind) = &self.kind
            && !["container", "image", "volume", "network"].contains(&kind.as_str())
        {
            return Err(Error::Usage(format!(
                "unknown type: {kind:?}: must be one of \"container\", \"image\", \"network\", \
                 \"volume\""
            )));
        }
        if wanted("container") {
            match Containers::new(host).find(name) {
                Ok(container) => return Ok(Some(describe(host, &container, self.size))),
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if wanted("image") {
            let store = Store::open(&host.data_root)?;
            match Images::new(&store).resolve(name) {
                Ok(image) => {
                    if let Some(platform) = platform(self.platform.as_deref())? {
                        image.require_platform(name, &platform)?;
                    }
                    return Ok(Some(super::images::describe(&image)));
                }
                Err(image::Error::NoSuchImage { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if wanted("volume")
            && let Some(volume) = Volumes::new(host).find(name)?
        {
            return Ok(Some(json!(volume)));
        }
        if wanted("network")
            && let Some(network) = super::network::describe(host, name)?
        {
            return Ok(Some(network));
        }
        Ok(None)
    }
}

/// Objects as one JSON list, indented or (`json`) on one line, or each through a template.
pub fn print(ui: &mut Ui, format: Option<&str>, values: &[Value]) -> Result<()> {
    match format {
        None | Some("") => {
            // Docker indents by four; serde_json's own pretty printer by two.
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut bytes = Vec::new();
            let mut to = serde_json::Serializer::with_formatter(&mut bytes, formatter);
            serde::Serialize::serialize(values, &mut to).expect("values are JSON already");
            bytes.push(b'\n');
            ui.bytes(&bytes)
        }
        Some("json") => ui.line(json!(values)),
        Some(format) => {
            let template = match Template::parse(format) {
                Ok(template) => template,
                Err(why) => {
                    ui.tell(&Error::Usage(why.to_string()))?;
                    return Err(Error::Exit(BAD_TEMPLATE));
                }
            };
            for value in values {
                let text = template.render(value);
                let text =
                    text.map_err(|why| Error::Usage(format!("template parsing error: {why}")))?;
                ui.line(text)?;
            }
            Ok(())
        }
    }
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| ZERO_TIME.to_owned(), |at| at.to_string())
}

/// A container as `docker inspect` shows it.
pub fn describe(host: &Host, container: &Container, with_size: bool) -> Value {
    let (record, state, places) = (&container.record, &container.state, &container.places);
    let line = merge::command_line(&record.config);
    let (path, args) = line
        .split_first()
        .map_or(("", [].as_slice()), |(p, a)| (p.as_str(), a));
    let log_path = match record.host_config.log_config.kind.as_str() {
        "none" => String::new(),
        _ => places.log(&record.id).display().to_string(),
    };
    let file = |name: &str| places.dir.join(name).display().to_string();
    let mut host_config = json!(record.host_config);
    if host_config["Runtime"] == "" {
        let runtime = crate::runtime::Runtime::find(host, "");
        host_config["Runtime"] = runtime
            .map(|runtime| runtime.name())
            .unwrap_or_default()
            .into();
    }
    complete(&mut host_config, &record.host_config);
    if let Some(links) = &record.host_config.links {
        let shown = links.iter().map(|link| {
            let (child, alias) = link.split_once(':').unwrap_or((link, link));
            format!("/{child}:/{}/{alias}", record.name)
        });
        host_config["Links"] = shown.collect();
    }
    let mut value = json!({
        "Id": record.id,
        "Created": record.created.to_string(),
        "Path": path,
        "Args": args,
        "State": state_of(container),
        "Image": record.image,
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": log_path,
        "Name": format!("/{}", record.name),
        "RestartCount": state.restart_count,
        "Driver": "overlay2",
        "Platform": record.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": exec_ids(container),
        "HostConfig": host_config,
        "GraphDriver": graph_driver(container),
        "Mounts": record.mounts,
        "Config": record.config,
        "NetworkSettings": super::network::settings(container, &places_of(host, container)),
    });
    if with_size {
        let own = super::size::tree(&places.dir.join("diff"));
        let below: u64 = image::overlay::lower(&places.dir)
            .map(|lower| {
                lower
                    .layers
                    .iter()
                    .map(|layer| super::size::tree(layer))
                    .sum()
            })
            .unwrap_or(0);
        value["SizeRw"] = own.into();
        value["SizeRootFs"] = (own + below).into();
    }
    value
}

/// Adds the keys that Docker has and this machine has no use for, and what was left to the defaults.
fn complete(shown: &mut Value, host: &HostConfig) {
    shown["Cgroup"] = "".into();
    shown["Isolation"] = "".into();
    shown["DeviceRequests"] = Value::Null;
    // Of Windows.
    for key in [
        "CpuCount",
        "CpuPercent",
        "IOMaximumIOps",
        "IOMaximumBandwidth",
    ] {
        shown[key] = 0.into();
    }
    if let Ok([masked, readonly]) = spec::default_paths(host) {
        shown["MaskedPaths"] = json!(masked);
        shown["ReadonlyPaths"] = json!(readonly);
    }
}

/// Docker's list of the execs under way, `null` if there are none.
fn exec_ids(container: &Container) -> Option<Vec<String>> {
    let alive = container.state.status.is_alive();
    let ids = alive.then(|| exec::ids(&container.places));
    ids.filter(|ids| !ids.is_empty())
}

fn places_of(host: &Host, container: &Container) -> Vec<Endpoint> {
    if !container.state.status.is_alive() {
        return Vec::new();
    }
    // What cannot be read is shown as nothing, like everything else that is gone.
    let store = Store::open(&host.data_root).ok();
    let places = store.and_then(|store| {
        Networks { store: &store }
            .of_container(&container.record.id)
            .ok()
    });
    places.unwrap_or_default()
}

fn state_of(container: &Container) -> Value {
    let state = &container.state;
    let is = |status: Status| state.status == status;
    let mut value = json!({
        "Status": state.status.word(),
        "Running": is(Status::Running) || is(Status::Paused) || is(Status::Restarting),
        "Paused": is(Status::Paused),
        "Restarting": is(Status::Restarting),
        "OOMKilled": state.oom_killed,
        "Dead": is(Status::Dead),
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time(state.started_at),
        "FinishedAt": time(state.finished_at),
    });
    if let Some(health) = &state.health {
        value["Health"] = json!(health);
    }
    value
}

fn graph_driver(container: &Container) -> Value {
    let dir = &container.places.dir;
    let lower = image::overlay::lower(dir)
        .map(|lower| lower.layers)
        .unwrap_or_default();
    let init = dir.join("init");
    let lower: Vec<String> = std::iter::once(&init)
        .chain(lower.iter().rev())
        .map(|layer| layer.display().to_string())
        .collect();
    json!({
        "Data": {
            "ID": container.record.id,
            "LowerDir": lower.join(":"),
            "MergedDir": dir.join("merged"),
            "UpperDir": dir.join("diff"),
            "WorkDir": dir.join("work"),
        },
        "Name": "overlay2",
    })
}
