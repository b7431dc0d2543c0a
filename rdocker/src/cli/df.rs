//! `system df`: what images, containers, volumes and builds take on disk.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::build;
use crate::container::{Container, Containers};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::image::usage::{ImageUsage, Usage};
use crate::image::{Image, Images};
use crate::store::Store;
use crate::ui::Ui;
use crate::ui::format::{age, ellipsis, local_time, printable, short_id, since, size};
use crate::ui::list::Columns;
use crate::volume::{Volume, Volumes};

use super::{images, ps, size as tree_size, volume};

const DF: Columns = Columns {
    template: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    headers: &[("TotalCount", "TOTAL")],
};

/// Show docker disk usage
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker system df [OPTIONS]")]
pub struct Df {
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Show detailed information on space usage
    #[arg(short, long)]
    verbose: bool,
}

impl Df {
    /// Sums; a layer that several images share counts once.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        if self.verbose {
            return Details::of(host)?.show(ui, self.format.as_deref());
        }
        let rows = [
            images_row(host)?,
            containers_row(host)?,
            volumes_row(host)?,
            build_row(host)?,
        ];
        DF.show(ui, self.format.as_deref(), &rows)
    }
}

fn row(kind: &str, total: usize, active: usize, bytes: u64, reclaimable: u64) -> Value {
    let percent = (reclaimable * 100).checked_div(bytes);
    let share = percent
        .map(|percent| format!(" ({percent}%)"))
        .unwrap_or_default();
    json!({
        "Type": kind,
        "TotalCount": total.to_string(),
        "Active": active.to_string(),
        "Size": size(bytes, 4),
        "Reclaimable": format!("{}{share}", size(reclaimable, 4)),
    })
}

fn images_row(host: &Host) -> Result<Value> {
    let store = Store::open(&host.data_root)?;
    let usage = Images::new(&store).usage()?;
    let users = images::users(host)?;
    let used = |image: &Image| users.iter().any(|user| user.image == image.id);
    let active = usage.images.iter().filter(|one| used(&one.image)).count();
    let count = usage.images.len();
    Ok(row(
        "Images",
        count,
        active,
        usage.total(),
        usage.reclaimable(used),
    ))
}

/// What only builds keep: layers that an image has too are counted there.
fn build_row(host: &Host) -> Result<Value> {
    let store = Store::open(&host.data_root)?;
    let caches = build::usage(host, &store, tree_size::tree)?;
    let bytes = caches.reclaimable();
    Ok(row("Build Cache", caches.count(), 0, bytes, bytes))
}

fn containers_row(host: &Host) -> Result<Value> {
    let (mut total, mut free, mut active) = (0, 0, 0);
    let list = Containers::new(host).list()?;
    for container in &list {
        let bytes = tree_size::tree(&container.places.dir.join("diff"));
        total += bytes;
        if container.state.status.is_alive() {
            active += 1;
        } else {
            free += bytes;
        }
    }
    Ok(row("Containers", list.len(), active, total, free))
}

fn volumes_row(host: &Host) -> Result<Value> {
    let used = volume::used(host)?;
    let (mut total, mut free, mut active) = (0, 0, 0);
    let list = Volumes::new(host).list()?;
    for volume in &list {
        let bytes = tree_size::volume(volume);
        total += bytes;
        if used.contains(&volume.name) {
            active += 1;
        } else {
            free += bytes;
        }
    }
    Ok(row("Local Volumes", list.len(), active, total, free))
}

const IMAGES: Columns = Columns {
    template: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    headers: images::HEADERS,
};
const CONTAINERS: Columns = Columns {
    template: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    headers: ps::HEADERS,
};
const VOLUMES: Columns = Columns {
    template: "{{.Name}}\t{{.Links}}\t{{.Size}}",
    headers: &[("Name", "VOLUME NAME")],
};
const BUILD: Columns = Columns {
    template: "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
    headers: &[
        ("ID", "CACHE ID"),
        ("CacheType", "CACHE TYPE"),
        ("LastUsedSince", "LAST USED"),
        ("UsageCount", "USAGE"),
    ],
};

/// The rows of `system df -v`.
struct Details {
    images: Vec<Value>,
    containers: Vec<Value>,
    volumes: Vec<Value>,
    build: Vec<Value>,
    build_bytes: u64,
}

impl Details {
    fn of(host: &Host) -> Result<Self> {
        let now = Timestamp::now();
        let store = Store::open(&host.data_root)?;
        let containers = Containers::new(host).list()?;
        let Usage { images, .. } = Images::new(&store).usage()?;
        let caches = build::usage(host, &store, tree_size::tree)?;
        let build = build_rows(&caches, now);
        let users = |image: &Image| {
            let id = image.id.to_string();
            containers.iter().filter(|c| c.record.image == id).count()
        };
        let links = |volume: &Volume| {
            let mounts = |c: &&Container| c.record.mounts.iter().any(|m| m.name == volume.name);
            containers.iter().filter(mounts).count()
        };
        Ok(Self {
            images: images
                .iter()
                .flat_map(|one| image_rows(one, users(&one.image), now))
                .collect(),
            volumes: Volumes::new(host)
                .list()?
                .iter()
                .map(|volume| {
                    json!({
                        "Name": volume.name,
                        "Links": links(volume).to_string(),
                        "Size": size(tree_size::volume(volume), 3),
                    })
                })
                .collect(),
            containers: containers.iter().map(|c| container_row(c, now)).collect(),
            build_bytes: caches.reclaimable(),
            build,
        })
    }

    fn show(&self, ui: &mut Ui, format: Option<&str>) -> Result<()> {
        match format {
            None | Some("" | "table") => {}
            Some("json") => {
                return ui.line(json!({
                    "Images": self.images,
                    "Containers": self.containers,
                    "Volumes": self.volumes,
                    "BuildCache": self.build,
                }));
            }
            Some(_) => {
                return Err(Error::Invalid(
                    "the verbose and the format options conflict".to_owned(),
                ));
            }
        }
        ui.line("Images space usage:\n")?;
        IMAGES.show(ui, None, &self.images)?;
        ui.line("\nContainers space usage:\n")?;
        CONTAINERS.show(ui, None, &self.containers)?;
        ui.line("\nLocal Volumes space usage:\n")?;
        VOLUMES.show(ui, None, &self.volumes)?;
        ui.line(format_args!(
            "\nBuild cache usage: {}\n",
            size(self.build_bytes, 4)
        ))?;
        BUILD.show(ui, None, &self.build)
    }
}

/// Steps and directories that builds keep.
fn build_rows(caches: &build::Caches, now: Timestamp) -> Vec<Value> {
    let mut rows: Vec<Value> = Vec::new();
    for step in &caches.steps {
        let used = Timestamp::from_second(step.used).unwrap_or(now);
        rows.push(json!({
            "ID": short_id(&step.key),
            "CacheType": "regular",
            "Description": printable(&step.text),
            "Size": size(step.size, 3),
            "LastUsedSince": format!("{} ago", age(since(used, now))),
            "UsageCount": step.uses.to_string(),
            "Shared": step.shared.to_string(),
        }));
    }
    for (_, name, bytes) in &caches.mounts {
        rows.push(json!({
            "ID": printable(name),
            "CacheType": "exec.cachemount",
            "Description": "",
            "Size": size(*bytes, 3),
            "LastUsedSince": "",
            "UsageCount": "",
            "Shared": "false",
        }));
    }
    rows
}

const DU: Columns = Columns {
    template: "{{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsedSince}}",
    headers: &[("LastUsedSince", "LAST ACCESSED")],
};

/// Disk usage of builds
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker builder du [OPTIONS]")]
pub struct BuilderDu {
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Show each record whole
    #[arg(long)]
    verbose: bool,
}

impl BuilderDu {
    /// Lists what `builder prune --all` removes, and sums.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let store = Store::open(&host.data_root)?;
        let caches = build::usage(host, &store, tree_size::tree)?;
        let mut rows = build_rows(&caches, Timestamp::now());
        for row in &mut rows {
            row["Reclaimable"] = (row["Shared"] == "false").to_string().into();
        }
        if self.verbose {
            for row in &rows {
                for key in [
                    "ID",
                    "CacheType",
                    "Description",
                    "Size",
                    "Reclaimable",
                    "Shared",
                    "UsageCount",
                    "LastUsedSince",
                ] {
                    let label = format!("{key}:");
                    let value = row[key].as_str().unwrap_or_default();
                    ui.line(format_args!("{label:<15} {value}"))?;
                }
                ui.line("")?;
            }
        } else {
            DU.show(ui, self.format.as_deref(), &rows)?;
        }
        if self.format.is_some() {
            return Ok(());
        }
        ui.line(format_args!(
            "Reclaimable:\t{}",
            size(caches.reclaimable(), 4)
        ))?;
        ui.line(format_args!("Total:\t\t{}", size(caches.total(), 4)))
    }
}

fn image_rows(one: &ImageUsage, containers: usize, now: Timestamp) -> Vec<Value> {
    let created = images::created(&one.image);
    let id = one.image.id.to_string();
    let row = |(repository, tag): (String, String)| {
        json!({
            "Repository": repository,
            "Tag": tag,
            "ID": short_id(&id),
            "CreatedSince": format!("{} ago", age(since(created, now))),
            "CreatedAt": local_time(created),
            "Size": size(one.image.size(), 3),
            "SharedSize": size(one.shared, 3),
            "UniqueSize": size(one.unique, 3),
            "Containers": containers.to_string(),
        })
    };
    images::tags(&one.image).map(row).collect()
}

fn container_row(container: &Container, now: Timestamp) -> Value {
    let record = &container.record;
    let command = crate::container::merge::shown_command(&record.config);
    let volumes = record.mounts.iter().filter(|m| m.kind == "volume").count();
    json!({
        "ID": short_id(&record.id),
        "Image": printable(&record.config.image),
        "Command": format!("\"{}\"", ellipsis(&printable(&command), 20)),
        "LocalVolumes": volumes.to_string(),
        "Size": size(tree_size::tree(&container.places.dir.join("diff")), 3),
        "RunningFor": format!("{} ago", age(since(record.created, now))),
        "Status": ps::status(&container.state, now),
        "Names": record.name,
    })
}
