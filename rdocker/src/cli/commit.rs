//! What a container changed: `commit diff export`, and an image's `history`.

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::container::record::Status;
use crate::container::session::Session;
use crate::container::{Container, Containers, cgroup, merge};
use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::image::catalog::tag_name;
use crate::image::config::RunConfig;
use crate::image::create::CommitOptions;
use crate::image::layer::Form;
use crate::image::layer::changes::changes;
use crate::image::layer::graft::open_root;
use crate::image::layer::pack::pack;
use crate::image::tar::Writer;
use crate::image::{self, Images, instruction, overlay};
use crate::monitor::wire::Request;
use crate::store::Store;
use crate::ui::Ui;
use crate::ui::format::{age, ellipsis, printable, short_id, since, size};
use crate::ui::list::Columns;

use super::transfer::{platform, reference, to_file_or_stdout};

/// Create a new image from a container's changes
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]")]
pub struct Commit {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(short, long)]
    author: Option<String>,
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Commit message
    #[arg(short, long)]
    message: Option<String>,
    /// Pause container during commit
    #[arg(short, long, default_value = "true", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    pause: bool,
    #[arg(hide = true)]
    container: String,
    #[arg(hide = true)]
    repository: Option<String>,
}

impl Commit {
    /// Freezes the container meanwhile, unless told otherwise, and prints the image's id.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let container = Containers::new(host).find(&self.container)?;
        let mut config = image_config(&container);
        for text in &self.change {
            instruction::apply(&mut config, text)?;
        }
        let name = self.repository.as_deref().map(|text| {
            // A name that is none is told in other words than a bad tag.
            reference(text)?;
            Ok::<_, Error>(tag_name(text)?)
        });
        let name = name.transpose()?;
        let options = CommitOptions {
            name,
            author: self.author.clone(),
            comment: self.message.clone(),
            config,
            created_by: merge::command_line(&container.record.config).join(" "),
            container: container.record.id.clone(),
        };
        let resources = &container.record.host_config.resources;
        let can_freeze = cgroup::place(host, resources, &container.record.id).is_some();
        let frozen = self.pause && can_freeze && container.state.status == Status::Running;
        if frozen {
            Session::connect(&container)?.request(&Request::Pause)?;
        }
        let store = Store::open(&host.data_root)?;
        let images = Images::new(&store);
        let base = container
            .record
            .image
            .parse()
            .ok()
            .and_then(|id| images.get(&id).ok());
        let committed = images.commit(base.as_ref(), &container.places.dir, &options);
        if frozen {
            // It may have ended while it was frozen by someone's kill.
            let _ = Session::connect(&container).and_then(|mut s| s.request(&Request::Unpause));
        }
        let id = committed?;
        let more = [("imageID", id.to_string())];
        events::container(host, &container.record, "commit", &more)?;
        ui.line(id)
    }
}

/// The part of a container's configuration that an image keeps.
fn image_config(container: &Container) -> RunConfig {
    let config = &container.record.config;
    RunConfig {
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.clone(),
        env: config.env.clone(),
        cmd: config.cmd.clone(),
        healthcheck: config.healthcheck.clone(),
        volumes: config.volumes.clone().unwrap_or_default(),
        working_dir: config.working_dir.clone(),
        entrypoint: config.entrypoint.clone(),
        on_build: config.on_build.clone().unwrap_or_default(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone().unwrap_or_default(),
        stop_timeout: config.stop_timeout,
        shell: config.shell.clone(),
        ..RunConfig::default()
    }
}

/// Inspect changes to files or directories on a container's filesystem
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker diff CONTAINER")]
pub struct Diff {
    #[arg(hide = true)]
    container: String,
}

impl Diff {
    /// `A`, `C` or `D` and the path.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let container = Containers::new(host).find(&self.container)?;
        for change in changes(&container.places.dir)? {
            ui.line(format_args!(
                "{} {}",
                change.kind.letter(),
                printable(&change.path)
            ))?;
        }
        Ok(())
    }
}

/// Export a container's filesystem as a tar archive
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker export [OPTIONS] CONTAINER")]
pub struct Export {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[arg(hide = true)]
    container: String,
}

impl Export {
    /// Writes the whole root, mounted for the time if the container does not run.
    pub fn run(self, host: &Host, _ui: &mut Ui) -> Result<()> {
        let container = Containers::new(host).find(&self.container)?;
        let dir = &container.places.dir;
        let _lock = container.lock()?;
        let stopped = !container.state.status.is_alive();
        if stopped {
            overlay::unmount_rootfs(dir)?;
            overlay::remount_rootfs(dir)?;
        }
        let written = to_file_or_stdout(self.output.as_deref(), |to| {
            use std::os::fd::AsFd;
            let root = open_root(&container.places.rootfs()).map_err(image::Error::from)?;
            let mut writer = Writer::new(to);
            pack(root.as_fd(), Form::Plain, &mut writer).map_err(image::Error::from)?;
            writer
                .finish()
                .map(drop)
                .map_err(crate::error::Error::Terminal)
        });
        if stopped {
            overlay::unmount_rootfs(dir)?;
        }
        written?;
        events::container(host, &container.record, "export", &[])
    }
}

const HISTORY: Columns = Columns {
    template: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    headers: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedBy", "CREATED BY"),
        ("CreatedAt", "CREATED AT"),
    ],
};

/// Show the history of an image
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker history [OPTIONS] IMAGE")]
pub struct History {
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Print sizes and dates in human readable format
    #[arg(short = 'H', long, default_value = "true", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    human: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Show only if the image is for this platform (os[/arch[/variant]])
    #[arg(long)]
    platform: Option<String>,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    #[arg(hide = true)]
    image: String,
}

/// In this machine's own zone, to the second.
fn rfc3339(at: Timestamp) -> String {
    let local = at.to_zoned(jiff::tz::TimeZone::system());
    local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

impl History {
    /// Newest step first; steps of other images have no id.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let store = Store::open(&host.data_root)?;
        let images = Images::new(&store);
        let image = images.resolve(&self.image)?;
        if let Some(platform) = platform(self.platform.as_deref())? {
            image.require_platform(&self.image, &platform)?;
        }
        let rows = images.history(&image)?;
        let id = |id: Option<&crate::store::digest::Digest>| match id {
            None => "<missing>".to_owned(),
            Some(id) if self.no_trunc => id.to_string(),
            Some(id) => short_id(&id.to_string()).to_owned(),
        };
        if self.quiet {
            return rows.iter().try_for_each(|row| ui.line(id(row.id.as_ref())));
        }
        let now = Timestamp::now();
        let values: Vec<Value> = rows
            .iter()
            .map(|row| {
                let created: Timestamp = row
                    .created
                    .as_deref()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or_default();
                let by = printable(&row.created_by.replace(['\t', '\n'], " "));
                json!({
                    "ID": id(row.id.as_ref()),
                    "CreatedSince": match self.human {
                        true => format!("{} ago", age(since(created, now))),
                        false => rfc3339(created),
                    },
                    "CreatedAt": rfc3339(created),
                    "CreatedBy": if self.no_trunc { by } else { ellipsis(&by, 45) },
                    "Size": if self.human { size(row.size, 3) } else { row.size.to_string() },
                    "Comment": printable(&row.comment),
                })
            })
            .collect();
        HISTORY.show(ui, self.format.as_deref(), &values)
    }
}
