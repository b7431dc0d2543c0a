//! The event log: one JSON object per line, appended by whoever does something.
//!
//! One write(2) to a file opened with `O_APPEND` per event, so lines of several processes never
//! mix and their order is the file's. The keys are the Engine API's (1.51, with the old `status`,
//! `id` and `from`), so the file can be handed out as it is.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::container::record::Record;
use crate::error::{Error, Result};
use crate::host::Host;

/// Size at which the log becomes `events.jsonl.1` and a new one is begun, in bytes.
const ROTATE_AT: u64 = 8 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The action, for containers and images only (API before 1.22).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The id, likewise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The image, likewise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// `container`, `image`, `volume`, `network`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What happened: `create`, `die`, `exec_create: ls`.
    #[serde(rename = "Action")]
    pub action: String,
    /// To whom.
    #[serde(rename = "Actor")]
    pub actor: Actor,
    /// Always `local`.
    pub scope: String,
    /// Unix seconds.
    pub time: i64,
    /// Unix nanoseconds.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// Whom an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Its id or name.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name, image, labels, and what belongs to the action.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

/// The log's path.
pub fn path(host: &Host) -> PathBuf {
    host.data_root.join("events.jsonl")
}

/// Tells what happened to a container.
pub fn container(
    host: &Host,
    record: &Record,
    action: &str,
    more: &[(&str, String)],
) -> Result<()> {
    let mut attributes = record.config.labels.clone();
    attributes.insert("image".to_owned(), record.config.image.clone());
    attributes.insert("name".to_owned(), record.name.clone());
    attributes.extend(
        more.iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone())),
    );
    let actor = Actor {
        id: record.id.clone(),
        attributes,
    };
    let mut event = new("container", action, actor);
    event.status.clone_from(&event.action);
    event.id.clone_from(&record.id);
    event.from.clone_from(&record.config.image);
    append(host, &event)
}

/// Tells what happened to a volume, network or image.
pub fn other(
    host: &Host,
    kind: &str,
    action: &str,
    id: &str,
    more: &[(&str, String)],
) -> Result<()> {
    let attributes = more
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    append(
        host,
        &new(
            kind,
            action,
            Actor {
                id: id.to_owned(),
                attributes,
            },
        ),
    )
}

fn new(kind: &str, action: &str, actor: Actor) -> Event {
    let now = Timestamp::now();
    Event {
        status: String::new(),
        id: String::new(),
        from: String::new(),
        kind: kind.to_owned(),
        action: action.to_owned(),
        actor,
        scope: "local".to_owned(),
        time: now.as_second(),
        time_nano: i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX),
    }
}

fn append(host: &Host, event: &Event) -> Result<()> {
    let path = path(host);
    let fail = |errno| Error::host("append to", &path, errno);
    let mut line = serde_json::to_vec(event).map_err(|source| Error::Corrupt {
        path: path.clone(),
        source,
    })?;
    line.push(b'\n');
    let open = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path);
    let mut file = open.map_err(fail)?;
    file.write_all(&line).map_err(fail)?;
    if file.metadata().map_err(fail)?.len() > ROTATE_AT {
        let mut old = path.clone().into_os_string();
        old.push(".1");
        // Two processes may both see the size; the second rename moves a short new file, which
        // only shortens what is kept.
        fs::rename(&path, PathBuf::from(old)).map_err(fail)?;
    }
    Ok(())
}

/// Parses the lines that are events; damaged ones are skipped.
pub fn parse(text: &str) -> impl Iterator<Item = Event> {
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_that_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        let host = Host::new(Some(root.clone()), Some(root)).unwrap();
        let more = [("driver", "lo\ncal".to_owned())];
        other(&host, "volume", "create", "data", &more).unwrap();
        other(&host, "volume", "destroy", "data", &[]).unwrap();
        let text = fs::read_to_string(path(&host)).unwrap();
        assert_eq!(text.lines().count(), 2);
        let events: Vec<Event> = parse(&text).collect();
        assert_eq!(events[0].actor.attributes["driver"], "lo\ncal");
        assert_eq!(
            (events[1].action.as_str(), events[1].kind.as_str()),
            ("destroy", "volume")
        );
    }
}
