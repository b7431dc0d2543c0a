//! A container on disk: what it is (`config.json`) and how it is (`state.json`).
//!
//! `config.json` changes under the container's lock only. `state.json` belongs to the monitor
//! while it lives, and to whoever holds the container's lock otherwise. Both are replaced whole,
//! so readers need no lock.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::api::{Config, HostConfig};
use crate::error::Result;
use crate::network::Wish;
use crate::store::record;
use crate::volume::MountPoint;

/// What a container is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Name, without Docker's leading slash.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// Image id, `sha256:…`.
    pub image: String,
    /// What runs.
    pub config: Config,
    /// What it gets from the machine.
    pub host_config: HostConfig,
    /// Its mounts, settled.
    #[serde(default)]
    pub mounts: Vec<MountPoint>,
    /// Its bridge networks, the one it started with first.
    #[serde(default)]
    pub networks: Vec<Wish>,
    /// `linux`.
    #[serde(default)]
    pub platform: String,
}

/// Where a container is in its life, in Docker's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Never started.
    #[default]
    Created,
    /// Its first process runs.
    Running,
    /// Frozen.
    Paused,
    /// Ended; the monitor will start it again.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended.
    Exited,
    /// Could not be removed.
    Dead,
}

impl Status {
    /// The word `ps --filter status=` takes.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }

    /// Whether a monitor looks after it.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }
}

/// How a container is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Where it is in its life.
    pub status: Status,
    /// Its first process on the host; 0 if there is none.
    pub pid: i32,
    /// Start time of that process in clock ticks after boot: field 22 of proc_pid_stat(5).
    pub start_ticks: u64,
    /// Exit code of the last run; 128+n for signal n.
    pub exit_code: i32,
    /// Why the last start failed.
    pub error: String,
    /// The kernel killed one of its processes for lack of memory.
    pub oom_killed: bool,
    /// When it last started.
    pub started_at: Option<Timestamp>,
    /// When it last ended.
    pub finished_at: Option<Timestamp>,
    /// Restarts by policy since the last start by a user.
    pub restart_count: u32,
    /// The user stopped it: `unless-stopped` does not start it at boot.
    pub manually_stopped: bool,
    /// What its health checks say.
    pub health: Option<Health>,
}

/// What health checks say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last five results.
    pub log: Vec<HealthResult>,
}

/// One health check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthResult {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// 0 is healthy.
    pub exit_code: i32,
    /// What it printed, at most 4096 bytes.
    pub output: String,
}

/// A container's directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// `DATA_ROOT/containers/ID`.
    pub dir: PathBuf,
    /// `EXEC_ROOT/ID`.
    pub run: PathBuf,
}

impl Places {
    /// `config.json`.
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    /// `state.json`.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// Held by the monitor as long as it lives.
    pub fn monitor_lock(&self) -> PathBuf {
        self.dir.join("monitor.lock")
    }

    /// The json-file log.
    pub fn log(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}-json.log"))
    }

    /// The root, while it is mounted.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("merged")
    }

    /// The OCI bundle.
    pub fn bundle(&self) -> PathBuf {
        self.run.join("bundle")
    }

    /// Where the monitor listens.
    pub fn socket_name() -> &'static str {
        "ctl.sock"
    }
}

/// Reads what a container is; `None` if there is no such container (any more).
pub fn read_record(dir: &Path) -> Result<Option<Record>> {
    Ok(record::read(&dir.join("config.json"))?)
}

/// Reads how a container is.
pub fn read_state(dir: &Path) -> Result<State> {
    Ok(record::read(&dir.join("state.json"))?.unwrap_or_default())
}

/// Replaces how a container is.
pub fn write_state(dir: &Path, state: &State) -> Result<()> {
    Ok(record::write(&dir.join("state.json"), state)?)
}
