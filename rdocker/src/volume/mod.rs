//! Volumes: directories that outlive containers, and how a container's mounts are settled.
//!
//! A volume is `volumes/NAME/_data` with `volumes/NAME/volume.json` beside it, as Docker keeps it.

mod copy;
pub mod device;
mod settle;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::container::parse::mount::is_volume_name;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::store::gc::remove_tree;
use crate::store::record;

pub use copy::copy_up;
pub use settle::{Settled, settle};

/// Label of volumes that nobody named (moby `volume.AnonymousLabel`).
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// One mount of a container, as `docker inspect` lists it under `Mounts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountPoint {
    /// `bind`, `volume` or `tmpfs`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Name of the volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Path on the host.
    pub source: String,
    /// Path in the container.
    pub destination: String,
    /// `local` for volumes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options as typed.
    pub mode: String,
    /// The container may write.
    #[serde(rename = "RW")]
    pub rw: bool,
    /// Mount propagation; empty for volumes.
    pub propagation: String,
    /// Bind without the mounts below the source.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub non_recursive: bool,
    /// Bytes of a tmpfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_size: Option<i64>,
    /// Mode of a tmpfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_mode: Option<u32>,
    /// Path inside the volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subpath: String,
}

impl MountPoint {
    /// What is bound: the source, or a path below it.
    pub fn bind_source(&self) -> PathBuf {
        match self.subpath.trim_start_matches('/') {
            // Joining nothing would add a slash, which no file can have.
            "" => PathBuf::from(&self.source),
            below => Path::new(&self.source).join(below),
        }
    }
}

/// A volume's record, as `docker volume inspect` shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Volume {
    /// When it was made.
    pub created_at: Timestamp,
    /// Always `local`.
    pub driver: String,
    /// Free metadata.
    pub labels: Option<BTreeMap<String, String>>,
    /// Where its files are.
    pub mountpoint: PathBuf,
    /// Its name.
    pub name: String,
    /// Driver options.
    pub options: Option<BTreeMap<String, String>>,
    /// Always `local`.
    pub scope: String,
}

impl Volume {
    /// Whether nobody named it.
    pub fn is_anonymous(&self) -> bool {
        self.labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key(ANONYMOUS))
    }
}

/// The volumes of one host.
#[derive(Debug, Clone, Copy)]
pub struct Volumes<'a> {
    host: &'a Host,
}

impl<'a> Volumes<'a> {
    /// The volumes of `host`.
    pub fn new(host: &'a Host) -> Self {
        Self { host }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.host.volumes().join(name)
    }

    /// Makes a volume, or gives the one that has this name already. Whether it is new is told.
    ///
    /// # Errors
    /// A name that no volume can have; options that the local driver does not take; a failed system
    /// call.
    pub fn create(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<(Volume, bool)> {
        if !is_volume_name(name) {
            return Err(Error::Invalid(format!(
                "create {name}: {name:?} includes invalid characters for a local volume name, \
                 only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host \
                 directory, use absolute path"
            )));
        }
        device::check(&options).map_err(|why| Error::Invalid(format!("create {name}: {why}")))?;
        let root = self.host.volumes();
        fs::create_dir_all(&root).map_err(|errno| Error::host("create directory", &root, errno))?;
        let dir = self.dir(name);
        match fs::create_dir(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if let Some(volume) = self.find(name)? {
                    return Ok((volume, false));
                }
            }
            Err(error) => return Err(Error::host("create directory", &dir, error)),
        }
        let data = dir.join("_data");
        match fs::create_dir(&data) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::host("create directory", &data, error));
            }
            _ => {}
        }
        let volume = Volume {
            created_at: Timestamp::now(),
            driver: "local".to_owned(),
            labels: (!labels.is_empty()).then_some(labels),
            mountpoint: data,
            name: name.to_owned(),
            options: (!options.is_empty()).then_some(options),
            scope: "local".to_owned(),
        };
        record::write(&dir.join("volume.json"), &volume)?;
        Ok((volume, true))
    }

    /// A volume with a name nobody chose.
    pub fn create_anonymous(&self, options: BTreeMap<String, String>) -> Result<Volume> {
        let labels = BTreeMap::from([(ANONYMOUS.to_owned(), String::new())]);
        let name = crate::container::id::random();
        self.create(&name, labels, options)
            .map(|(volume, _)| volume)
    }

    /// The volume of this name, if there is one.
    pub fn find(&self, name: &str) -> Result<Option<Volume>> {
        if !is_volume_name(name) {
            return Ok(None);
        }
        Ok(record::read(&self.dir(name).join("volume.json"))?)
    }

    /// The volume of this name.
    ///
    /// # Errors
    /// `No such volume: NAME`.
    pub fn get(&self, name: &str) -> Result<Volume> {
        let none = || Error::NotFound {
            kind: "volume",
            name: name.to_owned(),
        };
        self.find(name)?.ok_or_else(none)
    }

    /// All volumes by name.
    pub fn list(&self) -> Result<Vec<Volume>> {
        let root = self.host.volumes();
        let entries = match fs::read_dir(&root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::host("read", &root, error)),
        };
        let mut list = Vec::new();
        for entry in entries.flatten() {
            list.extend(self.find(&entry.file_name().to_string_lossy())?);
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }

    /// Removes a volume and its files. Whether a container uses it is the caller's question.
    pub fn remove(&self, name: &str) -> Result<()> {
        let volume = self.get(name)?;
        let dir = self.dir(name);
        // Nobody mounts it again from here on.
        let _lock = record::lock(&dir)?;
        device::take_off(self.host, &volume)?;
        // The record goes last, so that a removal cut short can be repeated.
        remove_tree(&dir.join("_data"))?;
        Ok(remove_tree(&dir)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_made_once_and_removed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(Some(dir.path().join("data")), Some(dir.path().join("run"))).unwrap();
        let volumes = Volumes::new(&host);
        let create = |name| volumes.create(name, BTreeMap::new(), BTreeMap::new());
        assert!(create("data").unwrap().1);
        assert!(!create("data").unwrap().1);
        assert!(create("../x").is_err());
        let anonymous = volumes.create_anonymous(BTreeMap::new()).unwrap();
        assert!(anonymous.is_anonymous() && anonymous.name.len() == 64);
        fs::write(volumes.get("data").unwrap().mountpoint.join("f"), "x").unwrap();
        volumes.remove("data").unwrap();
        assert_eq!(
            volumes.get("data").unwrap_err().to_string(),
            "get data: no such volume"
        );
        assert_eq!(volumes.list().unwrap().len(), 1);
    }
}
