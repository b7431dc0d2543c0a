//! Files that steps take: from the context, a stage, an image, a named context.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{FileType, OFlags};

use super::context::{Context, open_directory, scratch_dir};
use super::glob::{Glob, is_pattern};
use super::ignore::Ignore;
use super::key::Key;
use super::points::real_path;
use super::stage::State;
use super::tree::{self, Filter, Node, Owner, Place, Shape};
use super::{Build, stage_of};
use crate::error::{Error, Result};
use crate::image::instruction::workdir;
use crate::image::layer::files::{file_type, open_in_root, open_subdir, stat};
use crate::image::layer::pack::{join, names};
use crate::image::overlay;
use crate::store::digest::Digest;

/// Copies of context paths that `RUN --mount=type=bind` shows read-only, by what was listed.
pub type Snapshots = Mutex<HashMap<Digest, PathBuf>>;

/// A mounted root; taken off when it is dropped.
pub struct Root {
    dir: PathBuf,
    /// Its directory.
    pub fd: OwnedFd,
}

impl Root {
    /// Mounts layers, lowest first, with a fresh writable directory on top.
    pub fn mount(build: &Build<'_>, layers: &[PathBuf]) -> Result<Self> {
        let dir = build.lease.scratch();
        let merged = overlay::mount_layers(layers, &dir)?;
        Ok(Self {
            fd: open_directory(&merged)?,
            dir,
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.join("merged")
    }

    /// Takes the mount off and gives the writable directory: what was changed.
    pub fn finish(self) -> Result<PathBuf> {
        overlay::unmount_rootfs(&self.dir)?;
        Ok(self.dir.join("diff"))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // The mount namespace takes it off at the latest.
        let _ = overlay::unmount_rootfs(&self.dir);
    }
}

/// Files to take from.
pub enum Source<'b> {
    /// A context, and what of it is not seen.
    Context(&'b Context, &'b Ignore),
    /// The root of a stage or an image, and its topmost layer.
    Image(Root, Option<Digest>),
}

/// One path of a source that an instruction names.
pub struct Found {
    /// Where it is, links resolved; without slashes at the ends.
    pub path: Vec<u8>,
    /// Its name, as the instruction says it.
    pub name: Vec<u8>,
    /// Where it was found, as the instruction says it.
    pub given: Vec<u8>,
    /// It is a directory.
    pub is_dir: bool,
}

static NOTHING: std::sync::LazyLock<Ignore> = std::sync::LazyLock::new(Ignore::default);

impl Build<'_> {
    /// The files that `--from` or `from=` names; the context without one.
    pub(super) fn source(&self, stage: usize, from: Option<&str>) -> Result<Source<'_>> {
        let Some(name) = from.filter(|name| !name.is_empty()) else {
            return Ok(Source::Context(self.context, self.ignore));
        };
        if let Some(context) = self.named.get(&name.to_ascii_lowercase()) {
            return Ok(Source::Context(context, &NOTHING));
        }
        let state = match stage_of(self.file, stage, name) {
            Some(at) => self.result_of(at)?,
            None if name.parse::<usize>().is_ok() => {
                let why = format!("invalid from flag value {name}: no such stage before this one");
                return Err(Error::Invalid(why));
            }
            None => self.base_state(name, &self.platform)?,
        };
        self.source_of(&state)
    }

    fn source_of(&self, state: &State) -> Result<Source<'static>> {
        let root = Root::mount(self, &self.paths(&state.chains))?;
        Ok(Source::Image(root, state.chains.last().cloned()))
    }

    /// Shows a path of a source for a `RUN`: a copy of context files, or the mounted files
    /// themselves. What is written there is thrown away.
    ///
    /// Steps that only read share one copy.
    pub(super) fn show(
        &self,
        source: &Source<'_>,
        found: &Found,
        listed: &[Node],
        read_only: bool,
    ) -> Result<PathBuf> {
        match source {
            Source::Image(root, _) => {
                use std::os::unix::ffi::OsStrExt;
                Ok(root.path().join(std::ffi::OsStr::from_bytes(&found.path)))
            }
            Source::Context(context, _) => {
                let mut key = Key::new("snapshot");
                tree::describe(listed, Owner::Set(0, 0), &mut key);
                let key = key.finish();
                let mut snapshots = self.snapshots.lock().expect("no holder panics");
                if let Some(path) = snapshots.get(&key).filter(|_| read_only) {
                    return Ok(path.clone());
                }
                let dir = scratch_dir(self.lease)?;
                let root = open_directory(&dir)?;
                let place = Place {
                    root: root.as_fd(),
                    path: b"it",
                    keep_root: false,
                };
                let shape = Shape {
                    owner: Owner::Set(0, 0),
                    mode: &|node| node.mode,
                };
                let (parent, leaf) = open_parent(context.root.as_fd(), &found.path)?;
                tree::copy(listed, parent.as_fd(), &leaf, &place, &shape)?;
                let path = dir.join("it");
                if read_only {
                    snapshots.insert(key, path.clone());
                }
                Ok(path)
            }
        }
    }
}

/// Opens the directory of a path whose links are resolved already.
fn open_parent(root: BorrowedFd<'_>, path: &[u8]) -> Result<(OwnedFd, Vec<u8>)> {
    let (above, leaf) = tree::parent(path);
    let fail = |errno| Error::host("open", Path::new(&*String::from_utf8_lossy(above)), errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let parent = open_in_root(root, above, flags).map_err(fail)?;
    let leaf = if leaf.is_empty() {
        b".".to_vec()
    } else {
        leaf.to_vec()
    };
    Ok((parent, leaf))
}

impl Source<'_> {
    fn root(&self) -> BorrowedFd<'_> {
        match self {
            Self::Context(context, _) => context.root.as_fd(),
            Self::Image(root, _) => root.fd.as_fd(),
        }
    }

    /// Whether a path is not seen. A directory may have something in it that is.
    fn ignores(&self, path: &[u8]) -> bool {
        match self {
            Self::Context(_, ignore) => {
                ignore.matches(&String::from_utf8_lossy(path))
                    && !(ignore.takes_back() && self.is_dir(path))
            }
            Self::Image(..) => false,
        }
    }

    fn is_dir(&self, path: &[u8]) -> bool {
        open_in_root(self.root(), path, OFlags::PATH | OFlags::DIRECTORY).is_ok()
    }

    /// Whose the copies are if the instruction does not say.
    pub fn owner(&self) -> Owner {
        match self {
            Self::Context(..) => Owner::Set(0, 0),
            Self::Image(..) => Owner::Keep,
        }
    }

    /// Where the message says that something is missing.
    fn missing(&self, path: &str) -> Error {
        Error::Invalid(match self {
            Self::Context(..) => format!(
                "COPY failed: file not found in build context or excluded by .dockerignore: stat \
                 {path}: file does not exist"
            ),
            Self::Image(..) => format!("COPY failed: stat {path}: file does not exist"),
        })
    }

    /// The path that a text without patterns names.
    ///
    /// # Errors
    /// It is not there, or not seen.
    pub fn literal(&self, text: &str) -> Result<Found> {
        self.at(workdir("/", text).trim_start_matches('/').as_bytes(), text)
    }

    fn at(&self, given: &[u8], text: &str) -> Result<Found> {
        let fd = open_in_root(self.root(), given, OFlags::PATH).map_err(|_| self.missing(text))?;
        let path = real_path(self.root(), fd.as_fd())?;
        if self.ignores(given) || self.ignores(&path) {
            return Err(self.missing(text));
        }
        let found =
            rustix::fs::fstat(&fd).map_err(|errno| Error::host("stat", Path::new(text), errno))?;
        Ok(Found {
            is_dir: file_type(&found) == FileType::Directory,
            name: tree::parent(given).1.to_vec(),
            path,
            given: given.to_vec(),
        })
    }

    /// The paths that a text names: itself, or everything that fits the pattern.
    pub fn find(&self, text: &str) -> Result<Vec<Found>> {
        if !is_pattern(text) {
            return Ok(vec![self.literal(text)?]);
        }
        let clean = workdir("/", text);
        let pattern = clean.trim_start_matches('/');
        let glob = Glob::new(pattern).map_err(Error::Invalid)?;
        let mut matches = Vec::new();
        let depth = match pattern.contains("**") {
            true => usize::MAX,
            false => pattern.matches('/').count(),
        };
        self.walk(b"", &glob, depth, &mut matches)?;
        matches.iter().map(|path| self.at(path, text)).collect()
    }

    fn walk(
        &self,
        path: &[u8],
        glob: &Glob,
        depth: usize,
        matches: &mut Vec<Vec<u8>>,
    ) -> Result<()> {
        let shown = String::from_utf8_lossy(path).into_owned();
        let fail = |errno| Error::host("list", Path::new(&shown), errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = open_in_root(self.root(), path, flags).map_err(fail)?;
        for name in names(&dir).map_err(fail)? {
            let whole = join(path, &name);
            if glob.matches(&String::from_utf8_lossy(&whole)) && !self.ignores(&whole) {
                matches.push(whole.clone());
            }
            let is_dir = stat(&dir, &name)
                .map_err(fail)?
                .is_some_and(|found| file_type(&found) == FileType::Directory);
            if is_dir && depth > 0 && open_subdir(&dir, &name).is_ok() {
                self.walk(&whole, glob, depth.saturating_sub(1), matches)?;
            }
        }
        Ok(())
    }

    /// Lists a path and everything below it that is seen.
    pub fn list(&self, found: &Found, exclude: &Ignore) -> Result<Vec<Node>> {
        let (parent, leaf) = open_parent(self.root(), &found.path)?;
        let context = match self {
            Self::Context(_, ignore) => Some((*ignore, &found.path[..])),
            Self::Image(..) => None,
        };
        let nodes = tree::list(parent.as_fd(), &leaf, Filter { context, exclude })?;
        // Links were resolved when it was found. One that somebody has put there since would be
        // copied as what it is, and then followed by whoever mounts the copy.
        let is_link = |node: &Node| node.path.is_empty() && node.kind == FileType::Symlink;
        if nodes.iter().any(is_link) {
            let shown = String::from_utf8_lossy(&found.path);
            return Err(Error::Conflict(format!(
                "{shown} was changed while it was read"
            )));
        }
        Ok(nodes)
    }

    /// Copies what was listed.
    pub fn copy(
        &self,
        found: &Found,
        nodes: &[Node],
        to: &Place<'_>,
        shape: &Shape<'_>,
    ) -> Result<()> {
        let (parent, leaf) = open_parent(self.root(), &found.path)?;
        Ok(tree::copy(nodes, parent.as_fd(), &leaf, to, shape)?)
    }

    /// Opens a regular file of the source for reading.
    pub fn open(&self, found: &Found) -> Result<std::fs::File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let fd = open_in_root(self.root(), &found.path, flags);
        let shown = String::from_utf8_lossy(&found.path).into_owned();
        fd.map(std::fs::File::from)
            .map_err(|errno| Error::host("open", Path::new(&shown), errno))
    }
}
