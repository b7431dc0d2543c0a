//! Verbs that free space: `container prune`, `image prune`, `system prune`.

use jiff::Timestamp;

use crate::container::Containers;
use crate::container::remove::{self, Anonymous};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::image::Images;
use crate::store::Store;
use crate::ui::Ui;
use crate::ui::format::size;

use super::filter::Filters;
use super::{build, images, network, size as tree_size, volume};

/// Options of every prune.
#[derive(Debug, clap::Args)]
pub struct Prune {
    /// Remove all unused images, not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Provide filter values (e.g. "label=<key>=<value>")
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Prune anonymous volumes
    #[arg(long)]
    volumes: bool,
}

impl Prune {
    /// `what` is one kind of things, or a list below a colon.
    fn agreed(&self, what: &str, ui: &mut Ui) -> Result<bool> {
        let what = match what.starts_with('\n') {
            true => format!(":{what}"),
            false => format!(" {what}."),
        };
        let question =
            format!("WARNING! This will remove{what}\nAre you sure you want to continue?");
        Ok(self.force || ui.confirm(&question)?)
    }

    fn filters(&self) -> Result<Filters> {
        Filters::parse(&self.filter, &["label", "label!", "until"])
    }

    /// `container prune`
    pub fn containers(self, host: &Host, ui: &mut Ui) -> Result<()> {
        if !self.agreed("all stopped containers", ui)? {
            return Ok(());
        }
        let freed = stopped_containers(host, &self.filters()?, ui)?;
        ui.line(format_args!("Total reclaimed space: {}", size(freed, 4)))
    }

    /// `image prune`
    pub fn images(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let what = match self.all {
            true => "all images without at least one container associated to them",
            false => "all dangling images",
        };
        if !self.agreed(what, ui)? {
            return Ok(());
        }
        let freed = unused_images(host, &self.filters()?, self.all, ui)?;
        ui.line(format_args!("Total reclaimed space: {}", size(freed, 4)))
    }

    /// `system prune`
    pub fn system(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let which = if self.all {
            "all unused images"
        } else {
            "all dangling images"
        };
        let volumes = if self.volumes {
            "\n  - all anonymous volumes not in use"
        } else {
            ""
        };
        let filters = self.filters()?;
        if self.volumes && filters.has("until") {
            return Err(Error::Invalid(
                "The \"until\" filter is not supported with \"--volumes\"".to_owned(),
            ));
        }
        let cache = if self.all {
            "all build cache"
        } else {
            "unused build cache"
        };
        let what = format!(
            "\n  - all stopped containers\n  - all networks not used by at least one \
             container{volumes}\n  - {which}\n  - {cache}\n"
        );
        if !self.agreed(&what, ui)? {
            return Ok(());
        }
        let mut freed = stopped_containers(host, &filters, ui)?;
        network::prune(host, &filters, ui)?;
        if self.volumes {
            freed += volume::prune(host, &filters, false, ui)?;
        }
        freed += unused_images(host, &filters, self.all, ui)?;
        let store = Store::open(&host.data_root)?;
        freed += build::prune_cache(host, &store, self.all, &filters, None, ui)?;
        ui.line(format_args!("Total reclaimed space: {}", size(freed, 4)))
    }
}

fn stopped_containers(host: &Host, filters: &Filters, ui: &mut Ui) -> Result<u64> {
    let (mut freed, mut removed) = (0, Vec::new());
    remove::finish_removals(host)?;
    for container in Containers::new(host).list()? {
        if container.state.status.is_alive()
            || !filters.labels(&container.record.config.labels)
            || !filters.until(container.record.created, Timestamp::now())?
        {
            continue;
        }
        let Ok(_lock) = container.lock() else {
            continue;
        };
        freed += tree_size::tree(&container.places.dir.join("diff"));
        remove::purge(host, &container, Anonymous::Keep)?;
        removed.push(container.record.id);
    }
    if !removed.is_empty() {
        ui.line("Deleted Containers:")?;
        removed.iter().try_for_each(|id| ui.line(id))?;
        ui.line("")?;
    }
    Ok(freed)
}

fn unused_images(host: &Host, filters: &Filters, all: bool, ui: &mut Ui) -> Result<u64> {
    let store = Store::open(&host.data_root)?;
    let list = Images::new(&store);
    release_lost_holds(host, &list)?;
    let now = Timestamp::now();
    // A value that is no time is told before anything is removed.
    filters.until(now, now)?;
    let pruned = list.prune(&images::users(host)?, |image| {
        let old = filters.until(images::created(image), now).unwrap_or(false);
        (all || image.tags.is_empty()) && old && filters.labels(&image.config.config.labels)
    })?;
    if !pruned.removed.is_empty() {
        ui.line("Deleted Images:")?;
        for removed in &pruned.removed {
            images::tell_removed(host, removed, ui)?;
        }
        ui.line("")?;
    }
    Ok(pruned.bytes)
}

/// Layers held by containers that are gone, because a removal was cut short, are free again.
fn release_lost_holds(host: &Host, images: &Images<'_>) -> Result<()> {
    let containers = Containers::new(host);
    for owner in images.holders()? {
        if !containers.places(&owner).dir.exists() {
            images.release(&owner)?;
        }
    }
    Ok(())
}
