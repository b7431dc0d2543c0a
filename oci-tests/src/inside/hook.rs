//! The helper as a hook: it records that it ran, with what, and where.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a hook saw, one line of the log file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Record {
    pub name: String,
    /// Standard input, if it was JSON.
    pub state: Value,
    pub namespaces: BTreeMap<String, String>,
    pub env: Vec<String>,
    /// Is this file system the container's own root? Only there does /oci-tests exist.
    pub in_root: bool,
    /// Mount points of the hook's mount namespace.
    pub mounts: Vec<String>,
}

/// `hook NAME LOG [STATUS]`: appends a [`Record`] to LOG and exits with STATUS.
pub fn main(args: &[String]) -> ExitCode {
    let [name, log, rest @ ..] = args else {
        return ExitCode::from(2);
    };
    let mut text = String::new();
    // A hook without standard input is what a test wants to see: its record has no state.
    let _ = io::stdin().read_to_string(&mut text);
    let record = Record {
        name: name.clone(),
        state: serde_json::from_str(&text).unwrap_or_default(),
        namespaces: super::links("/proc/self/ns"),
        env: env::vars().map(|(k, v)| format!("{k}={v}")).collect(),
        in_root: Path::new("/oci-tests").exists(),
        mounts: fs::read_to_string("/proc/self/mountinfo")
            .unwrap_or_default()
            .lines()
            .filter_map(super::mount)
            .map(|m| m.point)
            .collect(),
    };
    let line = serde_json::to_string(&record).unwrap_or_default();
    if append(Path::new(log), &line).is_err() {
        return ExitCode::from(3);
    }
    let status = rest.first().and_then(|s| s.parse().ok()).unwrap_or(0);
    ExitCode::from(status)
}

/// Appends a line to a log that hooks and the process share.
pub fn append(log: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(log)?;
    // One write: lines of two processes do not mix.
    file.write_all(format!("{line}\n").as_bytes())
}

/// Reads a log; the line `process` becomes a record of that name.
pub fn records(log: &Path) -> Vec<Record> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let parse = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|_| Record {
            name: line.to_owned(),
            ..Record::default()
        })
    };
    text.lines().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_in_order_with_the_process_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let hook = Record {
            name: "prestart".into(),
            in_root: true,
            ..Record::default()
        };
        append(&log, &serde_json::to_string(&hook).unwrap()).unwrap();
        append(&log, "process").unwrap();
        let names: Vec<_> = records(&log)
            .into_iter()
            .map(|r| (r.name, r.in_root))
            .collect();
        assert_eq!(
            names,
            [("prestart".into(), true), ("process".into(), false)]
        );
    }
}
