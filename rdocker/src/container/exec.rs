//! `exec`: another process in a running container.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;

use super::merge;
use super::record::Places;
use super::spec::available_capabilities;
use crate::error::{Error, Result};

/// What `docker exec` was asked for.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `KEY=value` on top of the container's.
    pub env: Vec<String>,
    /// `USER[:GROUP]`; `None` is the container's own.
    pub user: Option<String>,
    /// Where it starts; `None` is the container's own.
    pub workdir: Option<String>,
    /// A terminal of its own.
    pub tty: bool,
    /// All capabilities.
    pub privileged: bool,
}

/// The files of one `exec` in the container's run directory, as long as it lasts.
#[derive(Debug)]
pub struct Files {
    /// The OCI process object.
    pub process: PathBuf,
    /// The runtime's log.
    pub log: PathBuf,
    /// The process's id.
    pub pid: PathBuf,
}

/// What says that somebody sees to an exec: a lock on its first file. The kernel drops it with the
/// last process that has it.
#[derive(Debug)]
pub struct Hold {
    _lock: File,
}

impl Files {
    /// Those of the exec `id`.
    pub fn of(places: &Places, id: &str) -> Self {
        let file = |kind: &str| places.run.join(format!("exec-{id}.{kind}"));
        Self {
            process: file("json"),
            log: file("log"),
            pid: file("pid"),
        }
    }

    /// Writes the process object; it is there for others only once it is held.
    ///
    /// # Errors
    /// The run directory is gone, or the disk full.
    pub fn write(&self, process: &Value) -> Result<Hold> {
        let fail = |errno| Error::host("write", &self.process, errno);
        let new = self.process.with_extension("new");
        let mut file = File::create(&new).map_err(fail)?;
        file.lock_shared().map_err(fail)?;
        write!(file, "{process}").map_err(fail)?;
        fs::rename(&new, &self.process).map_err(fail)?;
        Ok(Hold { _lock: file })
    }

    /// Holds what another process has written, and still holds.
    ///
    /// # Errors
    /// It is not there.
    pub fn hold(&self) -> Result<Hold> {
        let file = File::open(&self.process);
        let held = file.and_then(|file| file.lock_shared().map(|()| file));
        held.map(|file| Hold { _lock: file })
            .map_err(|errno| Error::host("lock", &self.process, errno))
    }

    /// Whether anybody sees to it; of what nobody does the files are removed.
    fn are_held(&self) -> bool {
        let alone = File::open(&self.process).is_ok_and(|file| file.try_lock().is_ok());
        if alone {
            self.remove();
        }
        !alone
    }

    /// Removes those that are there.
    pub fn remove(&self) {
        for file in [&self.process, &self.log, &self.pid] {
            let _ = fs::remove_file(file);
        }
    }
}

/// The ids of a container's execs that have not ended, whether their clients still wait or not.
pub fn ids(places: &Places) -> Vec<String> {
    let entries = fs::read_dir(&places.run).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut ids: Vec<String> = names
        .filter_map(|name| {
            let id = name.strip_prefix("exec-")?.strip_suffix(".json")?;
            Some(id.to_owned())
        })
        .filter(|id| Files::of(places, id).are_held())
        .collect();
    ids.sort();
    ids
}

/// The OCI process object of a container's bundle with other arguments and no terminal.
///
/// # Errors
/// The bundle is gone: the container does not run.
pub fn process_of(places: &Places, args: Vec<String>) -> Result<Value> {
    let path = places.bundle().join("config.json");
    let text = std::fs::read(&path).map_err(|errno| Error::host("read", &path, errno))?;
    let mut spec: Value =
        serde_json::from_slice(&text).map_err(|source| Error::Corrupt { path, source })?;
    let mut process = spec["process"].take();
    process["args"] = args.into();
    process["terminal"] = false.into();
    if let Some(fields) = process.as_object_mut() {
        fields.remove("consoleSize");
    }
    Ok(process)
}

/// The OCI process object for `request`; `base` is the container's own.
///
/// # Errors
/// A user that the container does not know; a working directory that is not absolute.
pub fn process(
    mut base: Value,
    request: &ExecRequest,
    accounts: impl FnOnce() -> Result<super::identity::Accounts>,
    size: Option<(u16, u16)>,
) -> Result<Value> {
    base["terminal"] = request.tty.into();
    if let Some((rows, columns)) = size.filter(|_| request.tty) {
        base["consoleSize"] = serde_json::json!({"height": rows, "width": columns});
    }
    if let Some(workdir) = &request.workdir {
        if !workdir.starts_with('/') {
            return Err(Error::Invalid(format!(
                "Cwd must be an absolute path, but {workdir:?} is not"
            )));
        }
        base["cwd"] = workdir.as_str().into();
    }
    if let Some(user) = &request.user {
        let id = accounts()?.resolve(user, &[])?;
        let mut groups = vec![id.gid];
        groups.extend(id.groups.iter().filter(|gid| **gid != id.gid));
        base["user"] = serde_json::json!({"uid": id.uid, "gid": id.gid, "additionalGids": groups});
        let bounding = base["capabilities"]["bounding"].clone();
        let held = if id.uid == 0 {
            bounding
        } else {
            Value::Array(Vec::new())
        };
        base["capabilities"]["permitted"] = held.clone();
        base["capabilities"]["effective"] = held;
    }
    if request.privileged {
        for set in ["bounding", "permitted", "effective"] {
            base["capabilities"][set] = available_capabilities().into();
        }
    }
    let mut env: Vec<String> = match base["env"].as_array() {
        Some(list) => list
            .iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect(),
        None => Vec::new(),
    };
    if request.tty && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    base["env"] = merge::overlay(env, &request.env).into();
    Ok(base)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base() -> Value {
        json!({
            "args": ["x"], "cwd": "/", "env": ["A=1", "B=2"],
            "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"],
                             "effective": ["CAP_KILL"]},
        })
    }

    #[test]
    fn flags_change_the_containers_own_process() {
        let request = ExecRequest {
            env: vec!["B=3".into(), "C=4".into()],
            user: Some("7:8".into()),
            workdir: Some("/w".into()),
            tty: true,
            ..ExecRequest::default()
        };
        let accounts = || Ok(super::super::identity::Accounts::default());
        let process = process(base(), &request, accounts, Some((24, 80))).unwrap();
        assert_eq!(process["env"], json!(["A=1", "B=3", "TERM=xterm", "C=4"]));
        assert_eq!(process["user"]["uid"], 7);
        assert_eq!(process["capabilities"]["effective"], json!([]));
        assert_eq!(
            (&process["cwd"], &process["consoleSize"]["width"]),
            (&json!("/w"), &json!(80))
        );
    }

    #[test]
    fn a_relative_working_directory_is_refused() {
        let request = ExecRequest {
            workdir: Some("w".into()),
            ..ExecRequest::default()
        };
        let accounts = || Ok(super::super::identity::Accounts::default());
        let why = process(base(), &request, accounts, None)
            .unwrap_err()
            .to_string();
        assert!(why.contains("Cwd must be an absolute path"), "{why}");
    }
}
