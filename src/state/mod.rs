//! What keel remembers of a container between two commands, and what status follows from it.
//!
//! The status is never stored: `stopped` follows from the pid and its start time, `created` from
//! the gate that `start` removes, `paused` from the cgroup.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::cgroups::{self, resctrl::Group};
use crate::error::{Error, Result};
use crate::sys::fd;

pub mod gate;
mod members;
pub mod store;

pub use store::{Container, Store};

/// The record in `state.json`. Written before the container's process exists, and again after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The `ociVersion` of config.json.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// The bundle's absolute path.
    pub bundle: String,
    /// The root file system's absolute path.
    pub rootfs: String,
    /// When it was created: RFC 3339, UTC, nanoseconds.
    pub created: String,
    /// `annotations` of config.json.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The container's first process, as soon as there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    /// Whether `create` has done all its work.
    pub complete: bool,
    /// Where its cgroups are.
    pub cgroup: cgroups::Saved,
    /// Its share of the last cache and of memory bandwidth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<Group>,
    /// Whether it has a pid namespace of its own, which dies with its first process.
    pub own_pid_namespace: bool,
    /// Whether poststart or poststop hooks are to be run.
    #[serde(default)]
    pub has_later_hooks: bool,
}

/// A process that is still the same only together with its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// The pid in the pid namespace of the runtime.
    pub pid: i32,
    /// Clock ticks after boot. Man page: `proc_pid_stat(5)`, field 22.
    pub start_time: u64,
}

/// runtime-spec, runtime.md "State".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work.
    Creating,
    /// The process waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// It is frozen.
    Paused,
    /// The process has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

impl Init {
    /// The process `pid` as it is now.
    ///
    /// # Errors
    /// [`Error::Host`] if it is gone.
    pub fn of(pid: i32) -> Result<Self> {
        let stat = stat(pid).ok_or(Error::NotRunning)?;
        Ok(Self {
            pid,
            start_time: stat.starttime,
        })
    }

    /// Whether the process still exists and has not ended.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|stat| {
            stat.starttime == self.start_time && !matches!(stat.state, 'Z' | 'X' | 'x')
        })
    }

    /// Holds the process by a pidfd, so that its pid cannot be recycled any more.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if it has ended.
    pub fn open(&self) -> Result<OwnedFd> {
        let pidfd = fd::pidfd_open(self.pid).map_err(|_| Error::NotRunning)?;
        // Only now: between the two calls the pid could have been given to another process.
        if self.is_alive() {
            Ok(pidfd)
        } else {
            Err(Error::NotRunning)
        }
    }
}

fn stat(pid: i32) -> Option<procfs::process::Stat> {
    let file = std::fs::File::open(format!("/proc/{pid}/stat")).ok()?;
    let stat = fd::read_record(file).ok()?;
    procfs::FromRead::from_read(stat.as_slice()).ok()
}

/// What `state` prints; runtime-spec, runtime.md "State", and runc's additions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: Status,
    bundle: &'a str,
    rootfs: &'a str,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    owner: &'a str,
}

impl Record {
    /// The record as callers see it.
    pub fn view<'a>(&'a self, status: Status, owner: &'a str) -> View<'a> {
        let alive = status != Status::Stopped;
        View {
            oci_version: &self.oci_version,
            id: &self.id,
            pid: self.init.filter(|_| alive).map_or(0, |init| init.pid),
            status,
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            annotations: &self.annotations,
            owner,
        }
    }

    /// The state that hooks read on their standard input: `pid` only where there is a process.
    pub fn for_hooks(&self, status: Status) -> String {
        let mut state = serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
        });
        if let Some(init) = self.init.filter(|_| status != Status::Stopped) {
            state["pid"] = init.pid.into();
        }
        if !self.annotations.is_empty() {
            state["annotations"] = serde_json::json!(self.annotations);
        }
        state.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_the_same_only_with_its_start_time() {
        let own = Init::of(std::process::id().cast_signed()).unwrap();
        assert!(own.is_alive());
        assert!(
            !Init {
                start_time: own.start_time + 1,
                ..own
            }
            .is_alive()
        );
        assert!(
            Init {
                start_time: 0,
                ..own
            }
            .open()
            .is_err()
        );
    }
}
