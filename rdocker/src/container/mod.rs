//! What a container is: a request, an OCI spec, a record on disk, a life.
//!
//! `args` (typed flags) → [`request`] (values, defaults) → [`create`] (image merged in, mounts
//! settled, record written) → [`start`] (facts gathered, [`spec`] built, monitor begun) →
//! [`session`] (talking to the monitor) → [`remove`].

pub mod api;
pub mod args;
pub mod cgroup;
pub mod create;
pub mod exec;
pub mod id;
pub mod identity;
pub mod merge;
pub mod network;
pub mod parse;
pub mod process;
pub mod record;
pub mod remove;
pub mod request;
pub mod session;
pub mod signal;
pub mod spec;
pub mod start;

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::runtime::Runtime;
use crate::store::lock::FileLock;
use crate::store::record as store_record;

use record::{Places, Record, State, Status};

/// A container as it was when it was read.
#[derive(Debug, Clone)]
pub struct Container {
    /// Where it is kept.
    pub places: Places,
    /// What it is.
    pub record: Record,
    /// How it is.
    pub state: State,
}

impl Container {
    /// The image's name as the user typed it, or the short id if it has lost it.
    pub fn short_id(&self) -> &str {
        self.record.id.get(..12).unwrap_or(&self.record.id)
    }

    /// Takes the container's lock: no one else starts, renames, updates or removes it meanwhile.
    pub fn lock(&self) -> Result<FileLock> {
        Ok(store_record::lock(&self.places.dir)?)
    }

    /// Replaces `config.json`.
    pub fn save(&self) -> Result<()> {
        Ok(store_record::write(&self.places.config(), &self.record)?)
    }

    /// `Container X is not running`, unless it runs.
    ///
    /// # Errors
    /// [`Error::Conflict`].
    pub fn require_running(&self) -> Result<()> {
        if self.state.status == Status::Running || self.state.status == Status::Paused {
            return Ok(());
        }
        Err(Error::Conflict(format!(
            "container {} is not running",
            self.record.id
        )))
    }
}

/// The containers of one host.
#[derive(Debug, Clone, Copy)]
pub struct Containers<'a> {
    host: &'a Host,
}

impl<'a> Containers<'a> {
    /// The containers of `host`.
    pub fn new(host: &'a Host) -> Self {
        Self { host }
    }

    /// Where a container is kept.
    pub fn places(&self, id: &str) -> Places {
        Places {
            dir: self.host.containers().join(id),
            run: self.host.exec_root.join(id),
        }
    }

    /// The container with this full id.
    ///
    /// # Errors
    /// `No such container: ID`.
    pub fn load(&self, id: &str) -> Result<Container> {
        self.read(id)?.ok_or_else(|| Error::no_container(id))
    }

    fn read(&self, id: &str) -> Result<Option<Container>> {
        let places = self.places(id);
        let Some(record) = record::read_record(&places.dir)? else {
            return Ok(None);
        };
        let state = record::read_state(&places.dir)?;
        let mut container = Container {
            places,
            record,
            state,
        };
        if container.state.status.is_alive() {
            self.settle(&mut container)?;
        }
        Ok(Some(container))
    }

    /// Notices that a container's monitor was killed, ends what is left of it and says so.
    ///
    /// The monitor holds a lock as long as it lives, so a free lock beside a living state means
    /// that it died without a word: by SIGKILL, or with the machine.
    fn settle(&self, container: &mut Container) -> Result<()> {
        let lock_path = container.places.monitor_lock();
        let Some(_lock) = FileLock::try_exclusive(&lock_path)? else {
            return Ok(());
        };
        // It may have ended in order between our reading and our locking.
        container.state = record::read_state(&container.places.dir)?;
        if !container.state.status.is_alive() {
            return Ok(());
        }
        let id = &container.record.id;
        if let Ok(runtime) = Runtime::find(self.host, &container.record.host_config.runtime) {
            // Nothing may be left, after a reboot for example.
            let _ = runtime.delete(&self.host.exec_root, id);
        }
        remove::take_down(self.host, &container.record, &container.places);
        container.state = State {
            status: Status::Exited,
            pid: 0,
            start_ticks: 0,
            exit_code: 255,
            error: "the monitor of this container was killed: its exit code is unknown".to_owned(),
            finished_at: Some(Timestamp::now()),
            ..container.state.clone()
        };
        record::write_state(&container.places.dir, &container.state)?;
        events::container(
            self.host,
            &container.record,
            "die",
            &[("exitCode", "255".to_owned())],
        )
    }

    /// All containers, newest first.
    pub fn list(&self) -> Result<Vec<Container>> {
        let root = self.host.containers();
        let entries = match fs::read_dir(&root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::host("read", &root, error)),
        };
        let mut list = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            if is_id(&name.to_string_lossy()) {
                list.extend(self.read(&name.to_string_lossy())?);
            }
        }
        list.sort_by_key(|container| std::cmp::Reverse(container.record.created));
        Ok(list)
    }

    /// Finds a container by full id, name, or unique id prefix, in this order.
    ///
    /// # Errors
    /// `No such container: X`; several ids begin with it.
    pub fn find(&self, text: &str) -> Result<Container> {
        if is_id(text)
            && let Some(container) = self.read(text)?
        {
            return Ok(container);
        }
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Some(id) = self.owner_of(name)?
            && let Some(container) = self.read(&id)?
        {
            return Ok(container);
        }
        let mut ids = self.ids_with_prefix(text)?;
        match (ids.pop(), ids.pop()) {
            (Some(id), None) => self.load(&id),
            (Some(_), Some(_)) => Err(Error::Ambiguous {
                prefix: text.to_owned(),
            }),
            (None, _) => Err(Error::no_container(text)),
        }
    }

    fn ids_with_prefix(&self, prefix: &str) -> Result<Vec<String>> {
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Vec::new());
        }
        let root = self.host.containers();
        let entries = match fs::read_dir(&root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::host("read", &root, error)),
        };
        let names = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names
            .filter(|name| is_id(name) && name.starts_with(prefix))
            .collect())
    }

    fn name_file(&self, name: &str) -> PathBuf {
        self.host.names().join(name)
    }

    /// The id of the container that has this name.
    fn owner_of(&self, name: &str) -> Result<Option<String>> {
        if parse::value::container_name(name).is_err() {
            return Ok(None);
        }
        let path = self.name_file(name);
        match fs::read_link(&path) {
            Ok(id) => Ok(Some(id.to_string_lossy().into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // Names were files once.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => fs::read_to_string(&path)
                .map(Some)
                .map_err(|errno| Error::host("read", &path, errno)),
            Err(error) => Err(Error::host("read", &path, error)),
        }
    }

    /// Gives `name` to container `id`; a name whose owner is gone is free.
    ///
    /// The name is a symbolic link to the id: symlink(2) makes both at once, so that nobody ever sees a
    /// name without its owner, and who is killed leaves no draft of one.
    ///
    /// # Errors
    /// Docker's conflict sentence.
    pub fn claim_name(&self, name: &str, id: &str) -> Result<()> {
        let root = self.host.names();
        fs::create_dir_all(&root).map_err(|errno| Error::host("create directory", &root, errno))?;
        let path = self.name_file(name);
        loop {
            match symlink(id, &path) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::host("create", &path, error));
                }
                Err(_) => {}
            }
            let Some(owner) = self.owner_of(name)? else {
                continue;
            };
            let lives = self.places(&owner).dir.exists();
            if lives && !remove::clear_abandoned(self.host, &owner)? {
                return Err(Error::Conflict(format!(
                    "Conflict. The container name \"/{name}\" is already in use by container \
                     \"{owner}\". You have to remove (or rename) that container to be able to \
                     reuse that name."
                )));
            }
            let _ = fs::remove_file(&path);
        }
    }

    /// Frees a name.
    pub fn release_name(&self, name: &str) {
        // A name that is gone is as free as one that was never there.
        let _ = fs::remove_file(self.name_file(name));
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(Some(dir.path().join("data")), Some(dir.path().join("run"))).unwrap();
        (dir, host)
    }

    fn add(host: &Host, id: &str, name: &str) {
        let containers = Containers::new(host);
        let places = containers.places(id);
        fs::create_dir_all(&places.dir).unwrap();
        containers.claim_name(name, id).unwrap();
        let record = Record {
            id: id.to_owned(),
            name: name.to_owned(),
            created: Timestamp::now(),
            ..Record::default()
        };
        Container {
            places,
            record,
            state: State::default(),
        }
        .save()
        .unwrap();
    }

    #[test]
    fn a_name_beats_an_id_prefix_and_a_shared_prefix_is_ambiguous() {
        let (_dir, host) = host();
        let (one, two) = (
            format!("ab{}", "1".repeat(62)),
            format!("ab{}", "2".repeat(62)),
        );
        add(&host, &one, "web");
        add(&host, &two, "ab1");
        let containers = Containers::new(&host);
        let id_of = |text: &str| containers.find(text).map(|c| c.record.id);
        assert_eq!(id_of("web").unwrap(), one);
        assert_eq!(id_of("/web").unwrap(), one);
        assert_eq!(id_of("ab1").unwrap(), two);
        assert_eq!(id_of("ab11").unwrap(), one);
        assert!(matches!(id_of("ab"), Err(Error::Ambiguous { .. })));
        let why = id_of("docker ps -a -q").unwrap_err().to_string();
        assert_eq!(why, "No such container: docker ps -a -q");
    }

    #[test]
    fn a_taken_name_is_a_conflict_until_its_owner_is_gone() {
        let (_dir, host) = host();
        let one = "1".repeat(64);
        add(&host, &one, "web");
        let containers = Containers::new(&host);
        let why = containers
            .claim_name("web", &"2".repeat(64))
            .unwrap_err()
            .to_string();
        assert!(
            why.starts_with("Conflict. The container name \"/web\" is already in use"),
            "{why}"
        );
        fs::remove_dir_all(containers.places(&one).dir).unwrap();
        containers.claim_name("web", &"2".repeat(64)).unwrap();
    }

    #[test]
    fn a_living_state_without_a_monitor_is_told() {
        let (_dir, host) = host();
        let id = "1".repeat(64);
        add(&host, &id, "web");
        let containers = Containers::new(&host);
        let dir = containers.places(&id).dir;
        let running = State {
            status: Status::Running,
            ..State::default()
        };
        record::write_state(&dir, &running).unwrap();
        let held = FileLock::exclusive(&containers.places(&id).monitor_lock()).unwrap();
        assert_eq!(containers.load(&id).unwrap().state.status, Status::Running);
        drop(held);
        let state = containers.load(&id).unwrap().state;
        assert_eq!((state.status, state.exit_code), (Status::Exited, 255));
        assert!(
            state.error.contains("monitor of this container was killed"),
            "{}",
            state.error
        );
    }
}
