//! `rdocker ps`

use std::fmt::Write;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::container::record::{State, Status};
use crate::container::{Container, Containers, merge};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::network::Endpoint;
use crate::network::registry::Networks;
use crate::store::Store;
use crate::ui::Ui;
use crate::ui::format::{age, ellipsis, local_time, printable, short_id, since, size};
use crate::ui::list::Columns;

use super::filter::Filters;

const COLUMNS: Columns = Columns {
    template: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    headers: HEADERS,
};

const WITH_SIZE: Columns = Columns {
    template: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}",
    headers: HEADERS,
};

/// Headers of columns that are not their field in capitals.
pub const HEADERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("RunningFor", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("LocalVolumes", "LOCAL VOLUMES"),
];

const FILTERS: &[&str] = &[
    "ancestor", "before", "exited", "health", "id", "is-task", "label", "name", "network", "since",
    "status", "volume", "expose", "publish",
];

/// Values of the filter `status`.
const STATUSES: &[&str] = &[
    "created",
    "dead",
    "exited",
    "paused",
    "removing",
    "restarting",
    "running",
    "stopped",
];

/// List containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker ps [OPTIONS]")]
pub struct Ps {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long, value_name = "N", allow_hyphen_values = true)]
    last: Option<i64>,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    latest: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display container IDs
    #[arg(short, long)]
    quiet: bool,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
}

impl Ps {
    /// Lists.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let filters = Filters::parse(&self.filter, FILTERS)?;
        if let Some(word) = filters
            .values("status")
            .find(|word| !STATUSES.contains(word))
        {
            return Err(Error::Invalid(format!("invalid filter 'status={word}'")));
        }
        let containers = Containers::new(host).list()?;
        let last = if self.latest { Some(1) } else { self.last };
        let last = last
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n > 0);
        let all = self.all
            || last.is_some()
            || filters.has("status")
            || filters.has("exited")
            || filters.has("health");
        let borders = Borders::of(&filters, &containers)?;
        let mut shown: Vec<&Container> = containers
            .iter()
            .filter(|container| all || container.state.status.is_alive())
            .filter(|container| borders.between(container) && matches(container, &filters))
            .collect();
        shown.truncate(last.unwrap_or(usize::MAX));
        if self.quiet && self.format.is_none() {
            for container in shown {
                let id = &container.record.id;
                ui.line(if self.no_trunc { id } else { short_id(id) })?;
            }
            return Ok(());
        }
        let now = Timestamp::now();
        let store = Store::open(&host.data_root)?;
        let places = Networks { store: &store }.endpoints()?;
        let rows: Vec<Value> = shown
            .iter()
            .map(|container| self.row(container, &places, now))
            .collect();
        let columns = if self.size { WITH_SIZE } else { COLUMNS };
        columns.show(ui, self.format.as_deref(), &rows)
    }

    fn row(&self, container: &Container, places: &[Endpoint], now: Timestamp) -> Value {
        let record = &container.record;
        let cut = |text: &str, width: usize| {
            if self.no_trunc {
                text.to_owned()
            } else {
                ellipsis(text, width)
            }
        };
        let id = if self.no_trunc {
            record.id.as_str()
        } else {
            short_id(&record.id)
        };
        let command = printable(&merge::shown_command(&record.config));
        let labels: Vec<String> = record
            .config
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let mounts: Vec<String> = record
            .mounts
            .iter()
            .map(|mount| {
                if mount.name.is_empty() {
                    &mount.source
                } else {
                    &mount.name
                }
            })
            .map(|name| match self.no_trunc {
                true => name.clone(),
                false => ellipsis(name, 15),
            })
            .collect();
        let own: Vec<Endpoint> = places
            .iter()
            .filter(|place| place.container == record.id)
            .cloned()
            .collect();
        let mut row = json!({
            "Command": format!("\"{}\"", cut(&command, 20)),
            "CreatedAt": local_time(record.created),
            "ID": id,
            "Image": printable(&record.config.image),
            "Labels": printable(&labels.join(",")),
            "LocalVolumes": record.mounts.iter().filter(|m| m.kind == "volume").count().to_string(),
            "Mounts": mounts.join(","),
            "Names": record.name,
            "Networks": networks(container).join(","),
            "Platform": null,
            "Ports": super::port::summary(container, &own),
            "RunningFor": format!("{} ago", age(since(record.created, now))),
            "Size": "0B",
            "State": container.state.status.word(),
            "Status": status(&container.state, now),
        });
        let wants_size = self.size || self.format.as_deref().is_some_and(|f| f.contains("Size"));
        if wants_size {
            row["Size"] = sizes(container).into();
        }
        if self
            .format
            .as_deref()
            .is_some_and(|f| f.contains(".Label "))
        {
            row["Label"] = json!(record.config.labels);
        }
        row
    }
}

/// Names of the networks that a container is on.
fn networks(container: &Container) -> Vec<String> {
    let record = &container.record;
    if record.networks.is_empty() {
        return vec![record.host_config.network_mode.clone()];
    }
    let mut names: Vec<String> = record
        .networks
        .iter()
        .map(|wish| wish.network.clone())
        .collect();
    names.sort();
    names
}

/// `Up 7 seconds (healthy)`, `Exited (0) 3 minutes ago`: Docker's STATUS column.
pub fn status(state: &State, now: Timestamp) -> String {
    let ago = |at: Option<Timestamp>| age(since(at.unwrap_or(now), now));
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Exited => format!(
            "Exited ({}) {} ago",
            state.exit_code,
            ago(state.finished_at)
        ),
        Status::Restarting => {
            format!(
                "Restarting ({}) {} ago",
                state.exit_code,
                ago(state.finished_at)
            )
        }
        Status::Running | Status::Paused => {
            let mut text = format!("Up {}", ago(state.started_at));
            if state.status == Status::Paused {
                text.push_str(" (Paused)");
            } else if let Some(health) = &state.health {
                let word = match health.status.as_str() {
                    "starting" => "health: starting",
                    other => other,
                };
                // Writing to a String cannot fail.
                let _ = write!(text, " ({word})");
            }
            text
        }
    }
}

/// `5B (virtual 4.2MB)`: the container's own files, and those with the image's.
fn sizes(container: &Container) -> String {
    let own = super::size::tree(&container.places.dir.join("diff"));
    let below: u64 = crate::image::overlay::lower(&container.places.dir)
        .map(|lower| {
            lower
                .layers
                .iter()
                .map(|layer| super::size::tree(layer))
                .sum()
        })
        .unwrap_or(0);
    format!("{} (virtual {})", size(own, 3), size(own + below, 3))
}

/// `--filter since=X` and `before=X`.
struct Borders {
    after: Option<Timestamp>,
    before: Option<Timestamp>,
}

impl Borders {
    fn of(filters: &Filters, containers: &[Container]) -> Result<Self> {
        let created = |name: Option<&str>| -> Result<Option<Timestamp>> {
            let Some(name) = name else { return Ok(None) };
            let found = containers.iter().find(|container| {
                container.record.name == name || container.record.id.starts_with(name)
            });
            found
                .map(|c| Some(c.record.created))
                .ok_or_else(|| Error::no_container(name))
        };
        Ok(Self {
            after: created(filters.first("since"))?,
            before: created(filters.first("before"))?,
        })
    }

    fn between(&self, container: &Container) -> bool {
        let created = container.record.created;
        self.after.is_none_or(|after| created > after)
            && self.before.is_none_or(|before| created < before)
    }
}

fn matches(container: &Container, filters: &Filters) -> bool {
    let (record, state) = (&container.record, &container.state);
    let image = record.config.image.as_str();
    filters.any("id", |id| record.id.starts_with(id))
        && (filters.finds("name", &record.name)
            || filters.finds("name", &format!("/{}", record.name)))
        && filters.any("status", |status| {
            state.status.word() == status || (status == "stopped" && state.status == Status::Exited)
        })
        && filters.any("exited", |code| {
            state.status == Status::Exited && code.parse() == Ok(state.exit_code)
        })
        && filters.any("health", |wanted| {
            let health = state
                .health
                .as_ref()
                .map_or("none", |health| health.status.as_str());
            health == wanted
        })
        && filters.any("ancestor", |wanted| {
            let with_tag = format!("{wanted}:latest");
            let image_with_tag = format!("{image}:latest");
            image == wanted
                || image == with_tag
                || image_with_tag == wanted
                || record.image == wanted
                || short_id(&record.image) == short_id(wanted)
        })
        && filters.any("network", |wanted| {
            networks(container).iter().any(|name| name == wanted)
        })
        && filters.any("volume", |wanted| {
            record.mounts.iter().any(|mount| {
                [&mount.name, &mount.source, &mount.destination]
                    .into_iter()
                    .any(|v| v == wanted)
            })
        })
        && filters.any("is-task", |wanted| wanted == "false")
        && filters.any("expose", |wanted| {
            record
                .config
                .exposed_ports
                .keys()
                .any(|port| port.split('/').next() == Some(wanted))
        })
        && filters.any("publish", |wanted| {
            record
                .host_config
                .port_bindings
                .iter()
                .flat_map(|(port, bindings)| bindings.iter().map(move |b| (port, b)))
                .any(|(port, b)| match wanted.split_once('/') {
                    Some((wanted, protocol)) => {
                        b.host_port == wanted && port.split('/').next_back() == Some(protocol)
                    }
                    None => b.host_port == wanted,
                })
        })
        && filters.labels(&record.config.labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::Health;

    #[test]
    fn status_reads_as_docker_prints_it() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let before = |seconds: i64| Some(Timestamp::from_second(1_000_000 - seconds).unwrap());
        let running = State {
            status: Status::Running,
            started_at: before(7),
            ..State::default()
        };
        let health = |status: &str| {
            Some(Health {
                status: status.to_owned(),
                ..Health::default()
            })
        };
        let cases = [
            (State::default(), "Created"),
            (running.clone(), "Up 7 seconds"),
            (
                State {
                    health: health("starting"),
                    ..running.clone()
                },
                "Up 7 seconds (health: starting)",
            ),
            (
                State {
                    health: health("unhealthy"),
                    ..running.clone()
                },
                "Up 7 seconds (unhealthy)",
            ),
            (
                State {
                    status: Status::Paused,
                    ..running.clone()
                },
                "Up 7 seconds (Paused)",
            ),
            (
                State {
                    status: Status::Exited,
                    exit_code: 3,
                    finished_at: before(180),
                    ..State::default()
                },
                "Exited (3) 3 minutes ago",
            ),
            (
                State {
                    status: Status::Restarting,
                    exit_code: 1,
                    finished_at: before(1),
                    ..State::default()
                },
                "Restarting (1) 1 second ago",
            ),
        ];
        for (state, want) in cases {
            assert_eq!(status(&state, now), want);
        }
    }
}
