//! The directory of all containers: one directory each, locked, its record replaced atomically.
//!
//! `<root>/<id>/` holds `state.json` (see [`Record`]), `config.json` (as it was at create), and
//! while the container is created but not started `gate` (see `gate`). Making the directory
//! reserves the id; a lock on it keeps commands on one container apart.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Record, Status, gate};
use crate::cgroups::{self, Driver};
use crate::error::code::Code;
use crate::error::{Error, Result};
use crate::sys::fd;

const RECORD: &str = "state.json";
const CONFIG: &str = "config.json";
/// Where a file is written before it takes the place of its older self.
const NEW: &str = "new";

/// How long a command waits for another one that is working on the same container.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// All containers below one root directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    /// Permissions of the root directory, if it has to be made.
    mode: u32,
}

/// One container's directory, and its record.
#[derive(Debug)]
pub struct Container {
    dir: File,
    path: PathBuf,
    /// What keel remembers of it.
    pub record: Record,
}

impl Store {
    /// The containers below `root`, which need not exist yet and then is made with `mode`.
    pub fn new(root: PathBuf, mode: u32) -> Self {
        Self { root, mode }
    }

    /// Makes the directory of a new container and locks it.
    ///
    /// # Errors
    /// [`Error::Exists`] if the id is taken; [`Error::Host`] if the directory cannot be made.
    pub fn reserve(&self, id: &str) -> Result<Directory> {
        let path = self.root.join(id);
        let make = || fs::DirBuilder::new().mode(0o711).create(&path);
        let made = make().or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(self.mode)
                    .create(&self.root)?;
                make()
            }
            _ => Err(error),
        });
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists),
            Err(error) => Err(Error::host("mkdir", path.display(), error)),
            Ok(()) => {
                let dir = open_dir(&path)?;
                lock(&dir, LOCK_PATIENCE, &path)?;
                Ok(Directory { dir, path })
            }
        }
    }

    /// Refuses an id that is taken, before anything else is judged; [`Store::reserve`] decides.
    ///
    /// # Errors
    /// [`Error::Exists`].
    pub fn check_free(&self, id: &str) -> Result<()> {
        match fs::symlink_metadata(self.root.join(id)) {
            Ok(_) => Err(Error::Exists),
            Err(_) => Ok(()),
        }
    }

    /// Reads the record of container `id`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such container.
    pub fn load(&self, id: &str) -> Result<Container> {
        let path = self.root.join(id);
        let dir = find_dir(&path)?;
        Self::read(dir, path)
    }

    fn read(dir: File, path: PathBuf) -> Result<Container> {
        let file = path.join(RECORD);
        let text = match read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NotFound),
            other => other.map_err(|error| Error::host("read", file.display(), error))?,
        };
        let record = serde_json::from_slice(&text).map_err(|error| {
            let why = format!("{} is damaged: {error}", file.display());
            Error::Known(Code::STATE_DAMAGED, why)
        })?;
        Ok(Container { dir, path, record })
    }

    /// Reads the record of container `id` once no other command is working on it.
    ///
    /// # Errors
    /// As [`Store::load`], and if the other command does not end within 30 seconds.
    pub fn load_locked(&self, id: &str) -> Result<Container> {
        let path = self.root.join(id);
        let dir = find_dir(&path)?;
        lock(&dir, LOCK_PATIENCE, &path)?;
        // Only now: the other command may have changed or removed it.
        Self::read(dir, path)
    }

    /// The ids of all containers, sorted.
    ///
    /// # Errors
    /// [`Error::Host`] if the root directory cannot be read; that it is missing is one.
    pub fn ids(&self) -> Result<Vec<String>> {
        let read = || -> io::Result<Vec<String>> {
            let mut ids = Vec::new();
            for entry in fs::read_dir(&self.root)? {
                let entry = entry?;
                if entry.file_type()?.is_dir()
                    && let Ok(id) = entry.file_name().into_string()
                {
                    ids.push(id);
                }
            }
            ids.sort();
            Ok(ids)
        };
        read().map_err(|error| Error::host("read", self.root.display(), error))
    }

    /// Removes what a `create` that was killed very early has left of container `id`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is nothing.
    pub fn remove_leftover(&self, id: &str) -> Result<()> {
        let path = self.root.join(id);
        let dir = find_dir(&path)?;
        lock(&dir, LOCK_PATIENCE, &path)?;
        Directory { dir, path }.remove()
    }
}

/// A reserved directory without a record.
#[derive(Debug)]
pub struct Directory {
    dir: File,
    path: PathBuf,
}

impl Directory {
    /// Writes the first record and the configuration that the container is made from.
    ///
    /// # Errors
    /// [`Error::Host`] if a file cannot be written.
    pub fn fill(self, record: Record, config: &[u8]) -> Result<Container> {
        let container = Container {
            dir: self.dir,
            path: self.path,
            record,
        };
        let file = container.path.join(CONFIG);
        file_options()
            .create_new(true)
            .open(&file)
            .and_then(|mut out| out.write_all(config))
            .map_err(|error| Error::host("write", file.display(), error))?;
        container.save()?;
        Ok(container)
    }

    /// Removes the directory and everything keel puts into one.
    ///
    /// # Errors
    /// [`Error::Host`] if something is left.
    pub fn remove(self) -> Result<()> {
        remove_dir(&self.path)
    }
}

impl Container {
    /// Replaces the record on disk by the one in memory.
    ///
    /// # Errors
    /// [`Error::Host`] if it cannot be written; the old one is then still there.
    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.record)
            .map_err(|error| Error::Failed(format!("state.json: {error}")))?;
        self.replace(RECORD, &text)
    }

    fn replace(&self, name: &str, text: &[u8]) -> Result<()> {
        let (file, new) = (self.path.join(name), self.path.join(NEW));
        // Whoever was killed while writing has left it: only the holder of the lock gets here.
        file_options()
            .create(true)
            .truncate(true)
            .open(&new)
            .and_then(|mut out| out.write_all(text))
            .and_then(|()| fs::rename(&new, &file))
            .map_err(|error| Error::host("write", file.display(), error))
    }

    /// The container's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The container's directory, open.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// config.json as it was when the container was created.
    ///
    /// # Errors
    /// [`Error::Host`] or [`Error::Spec`] if it cannot be read any more.
    pub fn spec(&self) -> Result<oci_spec::runtime::Spec> {
        let file = self.path.join(CONFIG);
        let text = read(&file).map_err(|error| Error::host("read", file.display(), error))?;
        crate::bundle::parse_spec(&text, &file.display().to_string())
    }

    /// As [`Container::spec`], or nothing if a `delete` was killed while it removed the container's files:
    /// all that comes before them is done then.
    ///
    /// # Errors
    /// As [`Container::spec`].
    pub fn spec_of_whole(&self) -> Result<Option<oci_spec::runtime::Spec>> {
        match fs::symlink_metadata(self.path.join(CONFIG)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => self.spec().map(Some),
        }
    }

    /// Replaces the kept config.json, after an update of the limits.
    ///
    /// # Errors
    /// [`Error::Host`] if it cannot be written; the old one is then still there.
    pub fn save_spec(&self, spec: &oci_spec::runtime::Spec) -> Result<()> {
        let text = serde_json::to_vec(spec)
            .map_err(|error| Error::Failed(format!("config.json: {error}")))?;
        self.replace(CONFIG, &text)
    }

    /// The container's status at this moment.
    ///
    /// # Errors
    /// [`Error::Host`] if the cgroup's freezer cannot be read.
    pub fn status(&self) -> Result<Status> {
        // In this order one look at the process is enough: what was seen of it before was true then.
        let standing = (self.record.init)
            .map(|_| self.status_of_living(cgroups::open(&self.record.cgroup).as_ref()));
        match (standing, self.record.init) {
            (Some(standing), Some(init)) if init.is_alive() => standing,
            // Without a process it is being created only as long as somebody holds the lock.
            _ if !self.record.complete && !self.is_free() => Ok(Status::Creating),
            _ => Ok(Status::Stopped),
        }
    }

    /// Where a container stands whose first process has not ended.
    ///
    /// # Errors
    /// [`Error::Host`] if its cgroup cannot be asked.
    pub fn status_of_living(&self, cgroup: &dyn Driver) -> Result<Status> {
        if !self.record.complete {
            return Ok(Status::Creating);
        }
        // First: a gate opens once, but a container that is gone has none, either.
        let is_gated = gate::is_closed(&self.path);
        Ok(match cgroup.is_frozen()? {
            true => Status::Paused,
            false if is_gated => Status::Created,
            false => Status::Running,
        })
    }

    /// Whether no command is working on the container.
    fn is_free(&self) -> bool {
        File::open(&self.path).is_ok_and(|dir| dir.try_lock_shared().is_ok())
    }

    /// The id of the user who created the container.
    pub fn owner(&self) -> u32 {
        self.dir.metadata().map_or(0, |metadata| metadata.uid())
    }

    /// Removes the container's directory: the last act of `delete`.
    ///
    /// # Errors
    /// [`Error::Host`] if something is left.
    pub fn remove(self) -> Result<()> {
        remove_dir(&self.path)
    }
}

fn file_options() -> fs::OpenOptions {
    let mut options = File::options();
    options
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW);
    options
}

/// A file of a container, which mostly has less than a page: nothing is asked for its size.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    File::open(path).and_then(fd::read_kernel_bytes)
}

fn find_dir(path: &Path) -> Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotFound),
        other => other.map_err(|error| Error::host("open", path.display(), error)),
    }
}

fn open_dir(path: &Path) -> Result<File> {
    let dir = File::open(path).map_err(|error| Error::host("open", path.display(), error))?;
    // The caller's umask may have taken away what container users need to pass through.
    let complete = dir
        .metadata()
        .is_ok_and(|meta| meta.mode() & 0o777 == 0o711);
    if !complete {
        dir.set_permissions(fs::Permissions::from_mode(0o711))
            .map_err(|error| Error::host("chmod", path.display(), error))?;
    }
    Ok(dir)
}

fn lock(dir: &File, patience: Duration, path: &Path) -> Result<()> {
    let end = Instant::now() + patience;
    loop {
        match dir.try_lock() {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(fs::TryLockError::WouldBlock) => {
                let id = path.file_name().unwrap_or_default().to_string_lossy();
                let why = format!("container {id} is busy: another keel command works on it");
                return Err(Error::Failed(why));
            }
            Err(fs::TryLockError::Error(error)) => {
                return Err(Error::host("lock", path.display(), error));
            }
        }
    }
}

/// The files that keel puts into a container's directory; the record goes last.
const FILES: &[&str] = &[NEW, gate::NAME, CONFIG, RECORD];

fn remove_dir(path: &Path) -> Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let remove = || -> io::Result<()> {
        gone(fs::remove_dir_all(path.join("notify")))?;
        for name in FILES {
            gone(fs::remove_file(path.join(name)))?;
        }
        gone(fs::remove_dir(path))
    };
    remove().map_err(|error| Error::host("remove", path.display(), error))
}
