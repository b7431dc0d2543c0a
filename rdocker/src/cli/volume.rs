//! `rdocker volume`

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::container::parse::value::pairs;
use crate::container::{Containers, id};
use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::ui::Ui;
use crate::ui::format::size;
use crate::ui::list::Columns;
use crate::volume::{ANONYMOUS, Volume, Volumes};

use super::each::each;
use super::filter::Filters;
use super::inspect::Inspect;

const COLUMNS: Columns = Columns {
    template: "{{.Driver}}\t{{.Name}}",
    headers: &[("Name", "VOLUME NAME")],
};

/// Manage volumes
#[derive(Debug, clap::Subcommand)]
pub enum VolumeVerb {
    /// Create a volume
    Create(Create),
    /// Display detailed information on one or more volumes
    Inspect(Inspect),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Remove unused local volumes
    Prune(Prune),
    /// Remove one or more volumes
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

impl VolumeVerb {
    /// Dispatches.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        match self {
            Self::Create(verb) => verb.run(host, ui),
            Self::Inspect(verb) => verb.of_kind("volume").run(host, ui),
            Self::Ls(verb) => verb.run(host, ui),
            Self::Prune(verb) => verb.run(host, ui),
            Self::Rm(verb) => verb.run(host, ui),
        }
    }
}

/// Create a volume
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker volume create [OPTIONS] [VOLUME]")]
pub struct Create {
    /// Specify volume driver name
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// Set metadata for a volume
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    #[arg(hide = true)]
    name: Option<String>,
}

impl Create {
    fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        if self.driver != "local" {
            return Err(Error::NotFound {
                kind: "plugin",
                name: self.driver,
            });
        }
        let mut labels = pairs(&self.label);
        let name = self.name.unwrap_or_else(|| {
            labels.insert(ANONYMOUS.to_owned(), String::new());
            id::random()
        });
        let (volume, new) = Volumes::new(host).create(&name, labels, pairs(&self.opt))?;
        if new {
            events::other(
                host,
                "volume",
                "create",
                &name,
                &[("driver", "local".to_owned())],
            )?;
        }
        ui.line(volume.name)
    }
}

/// List volumes
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker volume ls [OPTIONS]")]
pub struct Ls {
    /// Provide filter values (e.g. "dangling=true")
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Only display volume names
    #[arg(short, long)]
    quiet: bool,
}

impl Ls {
    fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let filters = Filters::parse(&self.filter, &["dangling", "driver", "label", "name"])?;
        let used = used(host)?;
        let empty = BTreeMap::new();
        let volumes: Vec<Volume> = Volumes::new(host)
            .list()?
            .into_iter()
            .filter(|volume| {
                filters.finds("name", &volume.name)
                    && filters.any("driver", |driver| driver == "local")
                    && filters.any("dangling", |wanted| {
                        matches!(wanted, "true" | "1") != used.contains(&volume.name)
                    })
                    && filters.labels(volume.labels.as_ref().unwrap_or(&empty))
            })
            .collect();
        if self.quiet {
            return volumes.iter().try_for_each(|volume| ui.line(&volume.name));
        }
        let rows: Vec<Value> = volumes.iter().map(row).collect();
        COLUMNS.show(ui, self.format.as_deref(), &rows)
    }
}

fn row(volume: &Volume) -> Value {
    let labels = volume.labels.iter().flatten();
    let labels: Vec<String> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    json!({
        "Availability": "N/A", "Driver": "local", "Group": "N/A", "Labels": labels.join(","),
        "Links": "N/A", "Mountpoint": volume.mountpoint, "Name": volume.name,
        "Scope": "local", "Size": "N/A", "Status": "N/A",
    })
}

/// Names of the volumes that containers use.
pub fn used(host: &Host) -> Result<BTreeSet<String>> {
    let containers = Containers::new(host).list()?;
    let mounts = containers
        .into_iter()
        .flat_map(|container| container.record.mounts);
    Ok(mounts
        .map(|mount| mount.name)
        .filter(|name| !name.is_empty())
        .collect())
}

/// Remove one or more volumes
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker volume rm [OPTIONS] VOLUME [VOLUME...]")]
pub struct Rm {
    /// Force the removal of one or more volumes
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "VOLUME", hide = true)]
    names: Vec<String>,
}

impl Rm {
    fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let containers = Containers::new(host).list()?;
        each(&self.names, ui, |name, _| {
            let users: Vec<&str> = containers
                .iter()
                .filter(|container| container.record.mounts.iter().any(|m| m.name == *name))
                .map(|container| container.record.id.as_str())
                .collect();
            if !users.is_empty() {
                return Err(Error::Conflict(format!(
                    "remove {name}: volume is in use - [{}]",
                    users.join(", ")
                )));
            }
            match remove(host, name) {
                Err(Error::NotFound { .. }) if self.force => Ok(()),
                other => other,
            }
        })
    }
}

fn remove(host: &Host, name: &str) -> Result<()> {
    Volumes::new(host).remove(name)?;
    events::other(
        host,
        "volume",
        "destroy",
        name,
        &[("driver", "local".to_owned())],
    )
}

/// Remove unused local volumes
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker volume prune [OPTIONS]")]
pub struct Prune {
    /// Remove all unused volumes, not just anonymous ones
    #[arg(short, long)]
    all: bool,
    /// Provide filter values (e.g. "label=<label>")
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let which = if self.all {
            "all local volumes"
        } else {
            "anonymous local volumes"
        };
        let question = format!(
            "WARNING! This will remove {which} not used by at least one container.\n\
             Are you sure you want to continue?"
        );
        if !self.force && !ui.confirm(&question)? {
            return Ok(());
        }
        let filters = Filters::parse(&self.filter, &["label", "label!", "all"])?;
        let all = self.all
            || filters
                .first("all")
                .is_some_and(|v| matches!(v, "1" | "true"));
        let freed = prune(host, &filters, all, ui)?;
        ui.line(format_args!("Total reclaimed space: {}", size(freed, 4)))
    }
}

/// Removes unused volumes and names them; gives the bytes they held.
pub fn prune(host: &Host, filters: &Filters, all: bool, ui: &mut Ui) -> Result<u64> {
    let used = used(host)?;
    let empty = BTreeMap::new();
    let (mut freed, mut removed) = (0, Vec::new());
    for volume in Volumes::new(host).list()? {
        let labels = volume.labels.as_ref().unwrap_or(&empty);
        if used.contains(&volume.name) || !(all || volume.is_anonymous()) || !filters.labels(labels)
        {
            continue;
        }
        freed += super::size::volume(&volume);
        remove(host, &volume.name)?;
        removed.push(volume.name);
    }
    if !removed.is_empty() {
        ui.line("Deleted Volumes:")?;
        removed.iter().try_for_each(|name| ui.line(name))?;
        ui.line("")?;
    }
    Ok(freed)
}
