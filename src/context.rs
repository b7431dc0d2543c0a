//! What every verb is given: the store, the log, the global flags, facts about the host.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use clap::Args;
use oci_spec::runtime::Spec;

use crate::cgroups::{self, Manager};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::log::{Format, Level, Log};
use crate::state::Store;
use crate::verify::Verify;

pub mod root;

use root::{Root, Surroundings};

/// The flags in front of the verb.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Directory of the containers' state [default: /run/keel, or $XDG_RUNTIME_DIR/keel]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Append the log to this file [default: stderr]
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = log_format)]
    pub log_format: Format,
    /// Log also what is being done
    #[arg(long)]
    pub debug: bool,
    /// Make cgroups through systemd: linux.cgroupsPath is then slice:prefix:name
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Who makes cgroups: cgroupfs, systemd (as --systemd-cgroup) or disabled
    #[arg(long, value_name = "WHO", value_parser = manager)]
    pub cgroup_manager: Option<Manager>,
    /// Look from outside whether each container is confined as asked for, and stop it if not
    #[arg(long)]
    pub verify: bool,
    /// Run without a cgroup if there is no permission for one: true, false or auto
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = rootless)]
    pub rootless: Rootless,
}

impl Global {
    /// How much is logged.
    pub fn level(&self) -> Level {
        if self.debug {
            Level::Debug
        } else {
            Level::Warning
        }
    }
}

/// `--rootless`: whether a missing permission for cgroups is forgiven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rootless {
    /// Decide by the user id and the user namespace.
    #[default]
    Auto,
    /// Forgive.
    Yes,
    /// Fail.
    No,
}

/// In crun's words.
fn manager(text: &str) -> Result<Manager, &'static str> {
    match text {
        "cgroupfs" => Ok(Manager::Cgroupfs),
        "systemd" => Ok(Manager::Systemd),
        "disabled" => Ok(Manager::Disabled),
        _ => Err("cgroupfs, systemd and disabled exist"),
    }
}

fn log_format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(format!("invalid log-format: {text}")),
    }
}

fn rootless(text: &str) -> Result<Rootless, &'static str> {
    match text {
        "auto" | "AUTO" | "Auto" => Ok(Rootless::Auto),
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Rootless::Yes),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Rootless::No),
        _ => Err("true, false and auto exist"),
    }
}

/// See the module text.
pub struct Context {
    /// The containers.
    pub store: Store,
    /// The directory they are in, and who chose it.
    pub root: Root,
    /// Where warnings go.
    pub log: Log,
    /// The flags in front of the verb.
    pub global: Global,
    /// Facts about the host, read when they are asked for.
    pub host: Host,
    /// The mount that keel is executed from: see `seal`.
    pub seal: Option<OwnedFd>,
}

impl Context {
    /// What `--verify` asks for.
    pub fn verify(&self) -> Verify {
        Verify(self.global.verify)
    }

    /// Finds the root directory and opens the log.
    ///
    /// # Errors
    /// If the log file cannot be opened, or `--root` makes no sense.
    pub fn new(global: Global) -> Result<Self> {
        let log = open_log(&global)?;
        let host = Host::new();
        let root = root::find(
            global.root.as_deref(),
            &Surroundings {
                euid: host.euid(),
                in_userns: host.euid() == 0 && host.in_userns(),
                xdg_runtime_dir: std::env::var_os("XDG_RUNTIME_DIR"),
                user: std::env::var_os("USER"),
                cwd: std::env::current_dir().unwrap_or_default(),
            },
        )?;
        let store = Store::new(root.path.clone(), root.mode());
        Ok(Self {
            store,
            root,
            log,
            global,
            host,
            seal: None,
        })
    }

    /// Decides where the cgroups of container `id` will be.
    ///
    /// # Errors
    /// [`Error::Spec`] for a path that cannot be one.
    pub fn plan_cgroup(&self, id: &str, spec: &Spec) -> Result<cgroups::Saved> {
        let linux = spec.linux().as_ref();
        let path = linux.and_then(|linux| linux.cgroups_path().as_ref());
        let path = match path.map(|path| path.to_str()) {
            Some(None) => return Err(Error::spec(".linux.cgroupsPath", "the path is not UTF-8")),
            Some(Some(path)) => Some(path),
            None => None,
        };
        let rootless = match self.global.rootless {
            Rootless::Yes => true,
            Rootless::No => false,
            Rootless::Auto => !self.host.is_root(),
        };
        let manager = self
            .global
            .cgroup_manager
            .unwrap_or(match self.global.systemd_cgroup {
                true => Manager::Systemd,
                false => Manager::Cgroupfs,
            });
        cgroups::plan(&cgroups::Request {
            id,
            cgroups_path: path.filter(|path| !path.is_empty()),
            manager,
            rootless,
            annotations: spec.annotations().as_ref(),
            resources: linux.and_then(|linux| linux.resources().as_ref()),
            owner: cgroups::owner(spec),
        })
    }
}

/// The log as the global flags want it.
///
/// # Errors
/// If the file cannot be opened.
pub fn open_log(global: &Global) -> Result<Log> {
    Log::open(global.log.as_deref(), global.log_format, global.level())
}
