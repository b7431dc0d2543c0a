//! Where things live on this machine and what its configuration file says.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::network::ipam::Cut;

/// Files that may configure the engine, first found wins. The second is dockerd's own, so that a
/// machine that moves from Docker keeps its mirrors and log limits.
const SETTINGS_FILES: &[&str] = &["/etc/rdocker/daemon.json", "/etc/docker/daemon.json"];
/// The same below a plain user's own configuration directory, looked at before the machine's.
const USER_SETTINGS_FILES: &[&str] = &["rdocker/daemon.json", "docker/daemon.json"];

/// Directories, settings and identity of the machine rdocker works on.
#[derive(Debug, Clone)]
pub struct Host {
    /// Images, containers and volumes; survives a reboot. Docker's `Docker Root Dir`.
    pub data_root: PathBuf,
    /// Sockets, mounts and bundles of running containers; a tmpfs on most machines.
    pub exec_root: PathBuf,
    /// The configuration file, or its defaults.
    pub settings: Settings,
    /// Root here is not the machine's root: a plain user's engine, or one inside a container.
    pub in_user_namespace: bool,
}

/// The keys of `daemon.json` that have a meaning without a daemon; others are ignored.
///
/// Source: docs.docker.com, "dockerd", section "Daemon configuration file".
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Settings {
    /// Replaces the default of [`Host::data_root`].
    pub data_root: Option<PathBuf>,
    /// Replaces the default of [`Host::exec_root`].
    pub exec_root: Option<PathBuf>,
    /// Tried before docker.io, in this order.
    pub registry_mirrors: Vec<String>,
    /// Hosts or CIDR ranges that may be spoken to over plain HTTP.
    pub insecure_registries: Vec<String>,
    /// Options of the json-file log driver for containers that name none.
    pub log_opts: BTreeMap<String, String>,
    /// Which of [`Settings::runtimes`] runs containers that name none.
    pub default_runtime: Option<String>,
    /// OCI runtimes by name.
    pub runtimes: BTreeMap<String, RuntimeSetting>,
    /// Name servers for containers that name none.
    pub dns: Vec<String>,
    /// `options` lines of resolv.conf for containers that name none.
    pub dns_opts: Vec<String>,
    /// `search` domains of resolv.conf for containers that name none.
    pub dns_search: Vec<String>,
    /// Labels of this engine, shown by `info`.
    pub labels: Vec<String>,
    /// Address and range of the default bridge, `172.17.0.1/16`.
    pub bip: Option<IpNet>,
    /// The part of that range that containers get.
    pub fixed_cidr: Option<IpNet>,
    /// The IPv6 range of the default bridge.
    pub fixed_cidr_v6: Option<IpNet>,
    /// The default bridge has IPv6.
    pub ipv6: bool,
    /// Ranges that networks are cut from.
    pub default_address_pools: Option<Vec<Cut>>,
    /// Whether containers on the default bridge may talk to each other; `None` is yes.
    pub icc: Option<bool>,
    /// Largest packet on the default bridge; 0 is the kernel's choice.
    pub mtu: u32,
    /// Host address of ports that are published without one.
    pub ip: Option<IpAddr>,
    /// Whether the host may be made a router; `None` is yes.
    pub ip_forward: Option<bool>,
}

/// One entry of `runtimes` in daemon.json.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeSetting {
    /// The runtime's binary, a path or a name to be found on PATH.
    pub path: PathBuf,
    /// Global flags put before the runtime's verb.
    pub runtime_args: Vec<String>,
}

impl Host {
    /// Settles the directories: the given ones, else the configuration file's, else the defaults.
    ///
    /// # Errors
    /// A configuration file that exists but cannot be read or parsed: guessing past it would start
    /// containers with other limits than the machine's owner wrote down.
    pub fn new(data_root: Option<PathBuf>, exec_root: Option<PathBuf>) -> Result<Self> {
        let user = rustix::process::geteuid();
        let own = (!user.is_root()).then(|| UserDirectories::of(user.as_raw()));
        let settings = match &own {
            Some(own) => Settings::of_user(own)?,
            None => Settings::load(SETTINGS_FILES.iter().map(PathBuf::from))?,
        };
        let (data, exec) = match &own {
            Some(own) => (own.data.join("rdocker"), own.exec.join("rdocker")),
            None => ("/var/lib/rdocker".into(), "/run/rdocker".into()),
        };
        let data_root = data_root
            .or_else(|| settings.data_root.clone())
            .unwrap_or(data);
        let exec_root = exec_root
            .or_else(|| settings.exec_root.clone())
            .unwrap_or(exec);
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).map_err(|errno| Error::host("resolve", &path, errno))
        };
        Ok(Self {
            data_root: absolute(data_root)?,
            exec_root: absolute(exec_root)?,
            settings,
            in_user_namespace: own.is_some() || !in_first_user_namespace(),
        })
    }

    /// `DATA_ROOT/containers`.
    pub fn containers(&self) -> PathBuf {
        self.data_root.join("containers")
    }

    /// `DATA_ROOT/names`: one symbolic link per name, to the container's id.
    pub fn names(&self) -> PathBuf {
        self.data_root.join("names")
    }

    /// `DATA_ROOT/volumes`.
    pub fn volumes(&self) -> PathBuf {
        self.data_root.join("volumes")
    }

    /// `EXEC_ROOT/runtime`: the OCI runtime's own `--root`.
    pub fn runtime_root(&self) -> PathBuf {
        self.exec_root.join("runtime")
    }
}

/// Whether user ids here are those of the machine: user_namespaces(7), `/proc/PID/uid_map`.
pub fn in_first_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Where a plain user's files belong: XDG Base Directory Specification.
#[derive(Debug)]
struct UserDirectories {
    data: PathBuf,
    exec: PathBuf,
    config: PathBuf,
}

impl UserDirectories {
    fn of(uid: u32) -> Self {
        let variable = |name: &str| {
            let path = std::env::var_os(name).map(PathBuf::from);
            path.filter(|path| path.is_absolute())
        };
        let home = variable("HOME").unwrap_or_else(|| "/".into());
        Self {
            data: variable("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share")),
            config: variable("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")),
            exec: variable("XDG_RUNTIME_DIR").unwrap_or_else(|| run_directory(uid)),
        }
    }
}

/// systemd's directory for a user if it is there, else one below the home of temporary files.
fn run_directory(uid: u32) -> PathBuf {
    let dir = PathBuf::from(format!("/run/user/{uid}"));
    if dir.is_dir() {
        return dir;
    }
    format!("/tmp/rdocker-{uid}").into()
}

impl Settings {
    /// A user's own file, else the machine's, whose directories are not the user's to write.
    fn of_user(own: &UserDirectories) -> Result<Self> {
        let files = USER_SETTINGS_FILES.iter().map(|file| own.config.join(file));
        if let Some(path) = files.into_iter().find(|path| path.exists()) {
            return Self::load([path]);
        }
        let machine = Self::load(SETTINGS_FILES.iter().map(PathBuf::from))?;
        Ok(Self {
            data_root: None,
            exec_root: None,
            ..machine
        })
    }

    fn load(candidates: impl IntoIterator<Item = PathBuf>) -> Result<Self> {
        for path in candidates {
            let text = match fs::read(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::host("read", &path, error)),
            };
            return serde_json::from_slice(&text).map_err(|source| Error::Corrupt { path, source });
        }
        Ok(Self::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_settings_file_that_exists_wins() {
        let dir = tempfile::tempdir().unwrap();
        let second = dir.path().join("second.json");
        fs::write(&second, r#"{"registry-mirrors":["http://m"],"unknown":1}"#).unwrap();
        let missing = dir.path().join("missing.json");
        let settings = Settings::load([missing, second]).unwrap();
        assert_eq!(settings.registry_mirrors, ["http://m"]);
    }

    #[test]
    fn a_broken_settings_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.json");
        fs::write(&path, "{").unwrap();
        let error = Settings::load([path]).unwrap_err();
        assert!(
            error.chain().contains("daemon.json is not valid"),
            "{}",
            error.chain()
        );
    }
}
