//! `rdocker events`

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::error::{Error, Result};
use crate::events::{self, Event};
use crate::host::Host;
use crate::ui::Ui;
use crate::ui::format::printable;
use crate::ui::template::Template;

use super::filter::Filters;
use super::when;

const PAUSE: Duration = Duration::from_millis(50);
const FILTERS: &[&str] = &[
    "container",
    "event",
    "image",
    "label",
    "network",
    "scope",
    "type",
    "volume",
    "daemon",
];

/// Get real time events from the server
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker events [OPTIONS]")]
pub struct Events {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format output: 'json' or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Events {
    /// Replays from `--since` and goes on until `--until`, or for ever.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let now = Timestamp::now();
        let bound =
            |text: &Option<String>| text.as_deref().map(|t| when::parse(t, now)).transpose();
        let (since, until) = (bound(&self.since)?.unwrap_or(now), bound(&self.until)?);
        let filters = Filters::parse(&self.filter, FILTERS)?;
        let template = match self.format.as_deref() {
            None => None,
            Some("json") => None,
            Some(text) => Some(Template::parse(text)?),
        };
        let mut reader = Reader {
            path: events::path(host),
            file: None,
            partial: String::new(),
        };
        let mut old = reader.path.clone().into_os_string();
        old.push(".1");
        let old = std::fs::read_to_string(PathBuf::from(old)).unwrap_or_default();
        let mut batch: Vec<Event> = events::parse(&old).collect();
        loop {
            batch.extend(reader.read()?);
            let idle = batch.is_empty();
            for event in batch.drain(..) {
                let at = i128::from(event.time_nano);
                let early = at < since.as_nanosecond();
                let late = until.is_some_and(|until| at > until.as_nanosecond());
                if !early && !late && matches(&event, &filters) {
                    if self.format.as_deref() == Some("json") {
                        ui.line(json!(event))?;
                    } else {
                        ui.line(show(&event, template.as_ref())?)?;
                    }
                }
            }
            if idle {
                if until.is_some_and(|until| Timestamp::now() >= until) {
                    return Ok(());
                }
                ui.flush()?;
                std::thread::sleep(PAUSE);
            }
        }
    }
}

struct Reader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    partial: String,
}

impl Reader {
    fn read(&mut self) -> Result<Vec<Event>> {
        let mut list = Vec::new();
        self.read_file(&mut list)?;
        let named = std::fs::metadata(&self.path).ok().map(|meta| meta.ino());
        let open = self
            .file
            .as_ref()
            .and_then(|file| file.get_ref().metadata().ok());
        if named.is_some() && named != open.map(|meta| meta.ino()) {
            let file =
                File::open(&self.path).map_err(|errno| Error::host("open", &self.path, errno))?;
            self.file = Some(BufReader::new(file));
            self.read_file(&mut list)?;
        }
        Ok(list)
    }

    fn read_file(&mut self, list: &mut Vec<Event>) -> Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        loop {
            let read = file.read_line(&mut self.partial);
            read.map_err(|errno| Error::host("read", &self.path, errno))?;
            if !self.partial.ends_with('\n') {
                return Ok(());
            }
            list.extend(events::parse(&self.partial));
            self.partial.clear();
        }
    }
}

fn matches(event: &Event, filters: &Filters) -> bool {
    let is_a = |kind: &str, wanted: &str| {
        let actor = &event.actor;
        event.kind == kind
            && (actor.id.starts_with(wanted)
                || actor
                    .attributes
                    .get("name")
                    .is_some_and(|name| name == wanted))
    };
    filters.any("type", |kind| event.kind == kind)
        && filters.any("event", |wanted| {
            // `exec_create: ls` and `health_status: healthy` match by their beginning.
            event.action == wanted || event.action.starts_with(&format!("{wanted}:"))
        })
        && filters.any("container", |wanted| is_a("container", wanted))
        && filters.any("volume", |wanted| is_a("volume", wanted))
        && filters.any("network", |wanted| is_a("network", wanted))
        && filters.any("image", |wanted| {
            is_a("image", wanted)
                || event.from == wanted
                || event.from == format!("{wanted}:latest")
        })
        && filters.any("scope", |wanted| event.scope == wanted)
        && filters.any("daemon", |_| false)
        && filters.labels(&event.actor.attributes)
}

fn show(event: &Event, template: Option<&Template>) -> Result<String> {
    if let Some(template) = template {
        return Ok(template.render(&json!(event))?);
    }
    let at = Timestamp::from_nanosecond(i128::from(event.time_nano)).unwrap_or_default();
    let attributes: Vec<String> = event
        .actor
        .attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let list = if attributes.is_empty() {
        String::new()
    } else {
        format!(" ({})", attributes.join(", "))
    };
    let local = at.to_zoned(jiff::tz::TimeZone::system());
    let time = local.strftime("%Y-%m-%dT%H:%M:%S.%9f%:z");
    let line = format!(
        "{time} {} {} {}{list}",
        event.kind, event.action, event.actor.id
    );
    Ok(printable(&line))
}
