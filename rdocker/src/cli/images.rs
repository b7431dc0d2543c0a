//! Verbs on images: `images rmi tag`, and `image inspect`'s view.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::container::Containers;
use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::image::config::RunConfig;
use crate::image::remove::{ImageUser, RemoveOptions, Removed};
use crate::image::{self, Image, Images};
use crate::store::Store;
use crate::ui::Ui;
use crate::ui::format::{age, local_time, short_id, since, size};
use crate::ui::list::Columns;
use crate::ui::table::layout_lines;

use super::each::each_quietly;
use super::filter::{Filters, path_match};
use super::transfer::require_platforms;

const COLUMNS: Columns = Columns {
    template: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    headers: HEADERS,
};
const WITH_DIGESTS: Columns = Columns {
    template: "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    headers: HEADERS,
};
/// Headers of columns that are not their field in capitals.
pub const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// List images
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker images [OPTIONS] [REPOSITORY[:TAG]]")]
pub struct ListImages {
    /// Show all images (default hides intermediate images)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// List images as a tree of their names and platforms
    #[arg(long)]
    tree: bool,
    #[arg(hide = true)]
    repository: Option<String>,
}

impl ListImages {
    /// One row for each tag.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let known = ["dangling", "label", "reference", "before", "since", "until"];
        let filters = Filters::parse(&self.filter, &known)?;
        let store = Store::open(&host.data_root)?;
        let list = Images::new(&store);
        let now = Timestamp::now();
        let age = Ages::of(&list, &filters)?;
        let (mut rows, mut trees) = (Vec::new(), Vec::new());
        let images = list.list()?;
        let parents: BTreeSet<_> = images
            .iter()
            .filter_map(|image| image.parent.clone())
            .collect();
        for image in &images {
            // A step on the way to another image.
            if !self.all && image.tags.is_empty() && parents.contains(&image.id) {
                continue;
            }
            let dangling = image.tags.is_empty();
            let labels = &image.config.config.labels;
            if !filters.any("dangling", |value| (value == "true") == dangling)
                || !filters.labels(labels)
                || !filters.until(created(image), now)?
                || !age.accepts(image)
            {
                continue;
            }
            let mut names = Vec::new();
            for tag in tags(image) {
                if self.wants(&filters, &tag)? {
                    rows.push(self.row(image, &tag, now));
                    names.push(tag);
                }
            }
            if !names.is_empty() {
                trees.push((image, names));
            }
        }
        if self.tree {
            return self.show_trees(host, ui, &list, &trees);
        }
        if self.quiet {
            // An image is listed once for each of its names, as Docker does.
            let ids = rows.iter().filter_map(|row| row["ID"].as_str());
            return ids.into_iter().try_for_each(|id| ui.line(id));
        }
        let columns = if self.digests { WITH_DIGESTS } else { COLUMNS };
        columns.show(ui, self.format.as_deref(), &rows)
    }

    /// Each image with its names, and below them what it is for, as Docker's newer list.
    fn show_trees(
        &self,
        host: &Host,
        ui: &mut Ui,
        list: &Images<'_>,
        trees: &[(&Image, Vec<(String, String)>)],
    ) -> Result<()> {
        let flags = [
            ("--quiet", self.quiet),
            ("--no-trunc", self.no_trunc),
            ("--digests", self.digests),
            ("--format", self.format.is_some()),
        ];
        if let Some((flag, _)) = flags.iter().find(|(_, given)| *given) {
            return Err(Error::Invalid(format!(
                "{flag} is not yet supported with --tree"
            )));
        }
        let (users, usage) = (users(host)?, list.usage()?);
        let mut lines = vec!["IMAGE\tID\tDISK USAGE\tCONTENT SIZE\tEXTRA".to_owned()];
        for (image, names) in trees {
            let one = usage.images.iter().find(|one| one.image.id == image.id);
            let content = one.map_or(0, |one| one.content);
            let in_use = users.iter().any(|user| user.image == image.id);
            let sizes = format!(
                "{}\t{}\t{}\t{}",
                short_id(&image.id.to_string()),
                size(image.size() + content, 3),
                size(content, 3),
                if in_use { "U" } else { "" }
            );
            for (repository, tag) in names {
                let shown = match repository.as_str() {
                    "<none>" => "<untagged>".to_owned(),
                    _ => format!("{repository}:{tag}"),
                };
                lines.push(format!("{shown}\t{sizes}"));
            }
            lines.push(format!("└─ {}\t{sizes}", image.platform()));
        }
        ui.bytes(layout_lines(&lines).as_bytes())
    }

    /// Whether the name fits the argument and a `reference` filter: moby, `FamiliarMatch`.
    fn wants(&self, filters: &Filters, (repository, tag): &(String, String)) -> Result<bool> {
        let whole = format!("{repository}:{tag}");
        let fits = |pattern: &str| -> Result<bool> {
            Ok(path_match(pattern, repository)? || path_match(pattern, &whole)?)
        };
        if let Some(pattern) = &self.repository
            && !fits(pattern)?
        {
            return Ok(false);
        }
        let mut patterns = filters.values("reference").peekable();
        if patterns.peek().is_none() {
            return Ok(true);
        }
        for pattern in patterns {
            if fits(pattern)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn row(&self, image: &Image, (repository, tag): &(String, String), now: Timestamp) -> Value {
        let id = image.id.to_string();
        let created = created(image);
        let digest = image.repo_digests.iter().find_map(|name| {
            let (name, digest) = name.split_once('@')?;
            (name == repository).then_some(digest)
        });
        json!({
            "Containers": "N/A",
            "CreatedAt": local_time(created),
            "CreatedSince": format!("{} ago", age(since(created, now))),
            "Digest": digest.unwrap_or("<none>"),
            "ID": if self.no_trunc { &id } else { short_id(&id) },
            "Repository": repository,
            "SharedSize": "N/A",
            "Size": size(image.size(), 3),
            "Tag": tag,
            "UniqueSize": "N/A",
        })
    }
}

/// When the image was made; the epoch if it does not say.
pub fn created(image: &Image) -> Timestamp {
    let seconds = image.config.created_at();
    let time = seconds.and_then(|at| Timestamp::from_second(at).ok());
    time.unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The images of `before` and `since`, by when they were made.
struct Ages {
    before: Option<Timestamp>,
    since: Option<Timestamp>,
}

impl Ages {
    fn of(images: &Images<'_>, filters: &Filters) -> Result<Self> {
        let time = |key| -> Result<Option<Timestamp>> {
            let image = filters.first(key).map(|name| images.resolve(name));
            Ok(image.transpose()?.map(|image| created(&image)))
        };
        Ok(Self {
            before: time("before")?,
            since: time("since")?,
        })
    }

    fn accepts(&self, image: &Image) -> bool {
        let created = created(image);
        self.before.is_none_or(|before| created < before)
            && self.since.is_none_or(|since| created > since)
    }
}

/// Repository and tag of each name; `<none>` twice if there is none.
pub fn tags(image: &Image) -> impl Iterator<Item = (String, String)> {
    let none = image
        .tags
        .is_empty()
        .then(|| ("<none>".to_owned(), "<none>".to_owned()));
    let named = image.tags.iter().map(|name| {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
        (repository.to_owned(), tag.to_owned())
    });
    none.into_iter().chain(named)
}

/// Remove one or more images
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker rmi [OPTIONS] IMAGE [IMAGE...]")]
pub struct Rmi {
    /// Force removal of the image
    #[arg(short, long)]
    force: bool,
    /// Do not delete untagged parents
    #[arg(long)]
    no_prune: bool,
    /// Remove only what is for this platform (os[/arch[/variant]])
    #[arg(long)]
    platform: Vec<String>,
    #[arg(required = true, value_name = "IMAGE", hide = true)]
    names: Vec<String>,
}

impl Rmi {
    /// Untags, and deletes what has no name left.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let options = RemoveOptions {
            force: self.force,
            keep_parents: self.no_prune,
            users: users(host)?,
        };
        let store = Store::open(&host.data_root)?;
        each_quietly(&self.names, ui, |name, ui| {
            let images = Images::new(&store);
            require_platforms(&images, &[name.to_owned()], &self.platform)?;
            let removed = match images.remove(name, &options) {
                // What is not there need not be removed.
                Err(error @ image::Error::NoSuchImage { .. }) if self.force => {
                    return ui.tell(&error.into());
                }
                other => other?,
            };
            removed
                .iter()
                .try_for_each(|one| tell_removed(host, one, ui))
        })
    }
}

/// Prints `Untagged:` and `Deleted:` lines and logs the event.
pub fn tell_removed(host: &Host, removed: &Removed, ui: &mut Ui) -> Result<()> {
    let (word, action, what) = match removed {
        Removed::Untagged(name) => ("Untagged", "untag", name.clone()),
        Removed::Deleted(id) => ("Deleted", "delete", id.to_string()),
    };
    ui.line(format_args!("{word}: {what}"))?;
    events::other(host, "image", action, &what, &[])
}

/// Which containers keep which images.
pub fn users(host: &Host) -> Result<Vec<ImageUser>> {
    let containers = Containers::new(host).list()?;
    let users = containers.into_iter().filter_map(|container| {
        Some(ImageUser {
            image: container.record.image.parse().ok()?,
            running: container.state.status.is_alive(),
            container: container.record.id,
        })
    });
    Ok(users.collect())
}

/// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]")]
pub struct Tag {
    #[arg(hide = true)]
    source: String,
    #[arg(hide = true)]
    target: String,
}

impl Tag {
    /// Gives an image one more name.
    pub fn run(self, host: &Host, _ui: &mut Ui) -> Result<()> {
        let store = Store::open(&host.data_root)?;
        let images = Images::new(&store);
        images.tag(&self.source, &self.target)?;
        let id = images.resolve_id(&self.source)?;
        events::other(
            host,
            "image",
            "tag",
            &id.to_string(),
            &[("name", self.target)],
        )
    }
}

/// An image as `docker image inspect` shows it.
pub fn describe(image: &Image) -> Value {
    let config = &image.config;
    let diff_ids: Vec<String> = config
        .rootfs
        .diff_ids
        .iter()
        .map(ToString::to_string)
        .collect();
    let dirs: Vec<String> = image
        .layers
        .iter()
        .rev()
        .map(|layer| layer.path.display().to_string())
        .collect();
    let data: BTreeMap<&str, String> = match dirs.split_first() {
        Some((upper, lower)) => [("UpperDir", upper.clone()), ("LowerDir", lower.join(":"))].into(),
        None => BTreeMap::new(),
    };
    json!({
        "Id": image.id.to_string(),
        "RepoTags": image.tags,
        "RepoDigests": image.repo_digests,
        "Parent": image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        "Comment": config.comment.clone().unwrap_or_default(),
        "Created": config.created.clone().unwrap_or_default(),
        "DockerVersion": config.docker_version.clone().unwrap_or_default(),
        "Author": config.author.clone().unwrap_or_default(),
        "Config": run_config(&config.config),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": image.size(),
        "GraphDriver": {"Data": data, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": diff_ids},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
    })
}

/// With the fields that an image leaves out and Docker shows, so that templates find them.
fn run_config(config: &RunConfig) -> Value {
    let mut shown = json!(config);
    for name in ["User", "WorkingDir"] {
        if shown[name].is_null() {
            shown[name] = "".into();
        }
    }
    let lists = [
        "Cmd",
        "Entrypoint",
        "Env",
        "ExposedPorts",
        "Labels",
        "OnBuild",
        "Volumes",
    ];
    for name in lists {
        // Looking for it makes it: null if it was not there.
        let _ = &mut shown[name];
    }
    shown
}
