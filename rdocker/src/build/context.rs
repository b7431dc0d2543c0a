//! Where a build's files come from: a directory, an archive, stdin, a repository.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::git::Git;
use super::ignore::Ignore;
use super::remote;
use crate::error::{Error, Result};
use crate::image::layer::compress::{Compression, decompress};
use crate::image::layer::files::open_in_root;
use crate::image::layer::{Form, unpack};
use crate::image::tar::Reader;
use crate::store::lease::Lease;

/// The largest Dockerfile or `.dockerignore`, in bytes.
const TEXT_MAX: u64 = 16 << 20;
/// Names of a Dockerfile when nobody gives one.
const NAMES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];

/// What the user named as the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `-`: an archive, or a Dockerfile alone.
    Stdin,
    /// A directory.
    Directory(PathBuf),
    /// An archive, compressed or not.
    Archive(PathBuf),
    /// An archive, or a Dockerfile alone, on a server.
    Url(String),
    /// A repository.
    Git(Git),
}

impl Place {
    /// Tells what a text names.
    ///
    /// # Errors
    /// Nothing has this name.
    pub fn find(text: &str) -> Result<Self> {
        if text == "-" {
            return Ok(Self::Stdin);
        }
        let path = PathBuf::from(text);
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => return Ok(Self::Directory(path)),
            Ok(meta) if meta.is_file() => return Ok(Self::Archive(path)),
            _ => {}
        }
        if let Some(git) = Git::parse(text)? {
            return Ok(Self::Git(git));
        }
        if remote::is_http(text) {
            return Ok(Self::Url(text.to_owned()));
        }
        Err(Error::Invalid(format!(
            "unable to prepare context: path {text:?} not found"
        )))
    }
}

/// A context whose files can be read.
pub struct Context {
    /// Its root.
    pub root: OwnedFd,
    /// The Dockerfile, if it is all that there is.
    pub alone: Option<Vec<u8>>,
    /// Where the directory is that the user sees.
    pub directory: Option<PathBuf>,
}

impl Context {
    /// Opens a place; whatever is no directory yet is unpacked into scratch space.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(lease: &Lease<'_>, place: &Place) -> Result<Self> {
        match place {
            Place::Directory(path) => Ok(Self {
                root: open_directory(path)?,
                alone: None,
                directory: Some(path.clone()),
            }),
            Place::Stdin => Self::unpack(lease, io::stdin().lock()),
            Place::Archive(path) => {
                let file = File::open(path).map_err(|errno| Error::local("open", path, errno))?;
                Self::unpack(lease, file)
            }
            Place::Url(url) => {
                let path = lease.scratch();
                remote::fetch(url, &path, None)?;
                let file = File::open(&path).map_err(|errno| Error::local("open", &path, errno))?;
                Self::unpack(lease, file)
            }
            Place::Git(git) => {
                let dir = scratch_dir(lease)?;
                git.check_out(&dir)?;
                let _ = crate::store::gc::remove_tree(&dir.join(".git"));
                Ok(Self {
                    root: git.open(&dir)?,
                    alone: None,
                    directory: None,
                })
            }
        }
    }

    /// An archive becomes a directory; any other text is the Dockerfile of an empty context.
    fn unpack(lease: &Lease<'_>, mut stream: impl Read) -> Result<Self> {
        let fail = |error| Error::Invalid(format!("read the context: {error}"));
        let mut start = vec![0; 512];
        let mut have = 0;
        while have < start.len() {
            match stream.read(&mut start[have..]).map_err(fail)? {
                0 => break,
                n => have += n,
            }
        }
        start.truncate(have);
        let dir = scratch_dir(lease)?;
        let root = open_directory(&dir)?;
        let is_archive = Compression::of(&start) != Compression::None || is_tar(&start);
        let whole = io::Cursor::new(start).chain(stream);
        if !is_archive {
            let mut text = Vec::new();
            whole
                .take(TEXT_MAX + 1)
                .read_to_end(&mut text)
                .map_err(fail)?;
            return Ok(Self {
                root,
                alone: Some(text),
                directory: None,
            });
        }
        // The stream may be one that no other thread can take, so it is spooled first.
        let spool = lease.scratch();
        let at = |errno| Error::host("write", &spool, errno);
        io::copy(&mut { whole }, &mut File::create_new(&spool).map_err(at)?).map_err(at)?;
        let file = File::open(&spool).map_err(at)?;
        let plain = decompress(file).map_err(fail)?;
        unpack(plain, root.as_fd(), Form::Plain).map_err(crate::image::Error::from)?;
        let _ = fs::remove_file(&spool);
        Ok(Self {
            root,
            alone: None,
            directory: None,
        })
    }

    /// The text of the Dockerfile, and the name it was found under.
    ///
    /// # Errors
    /// There is none.
    pub fn dockerfile(&self, named: Option<&str>) -> Result<(String, Vec<u8>)> {
        if named == Some("-") {
            let mut text = Vec::new();
            let read = io::stdin().lock().take(TEXT_MAX + 1).read_to_end(&mut text);
            read.map_err(|errno| Error::local("read", Path::new("stdin"), errno))?;
            return Ok(("Dockerfile".to_owned(), text));
        }
        if let Some(text) = &self.alone {
            return Ok(("Dockerfile".to_owned(), text.clone()));
        }
        if let Some(name) = named {
            if self.directory.is_some() {
                // The user's own path, as a shell would take it.
                if let Ok(text) = fs::read(name) {
                    return Ok((name.to_owned(), text));
                }
            }
            let text = self.text(name)?;
            return text
                .map(|text| (name.to_owned(), text))
                .ok_or_else(|| missing(name));
        }
        for name in NAMES {
            if let Some(text) = self.text(name)? {
                return Ok((name.to_owned(), text));
            }
        }
        Err(missing(NAMES[0]))
    }

    /// What a build does not see: the file beside the Dockerfile, or the context's.
    ///
    /// # Errors
    /// A pattern that is none.
    pub fn ignore(&self, dockerfile: &str) -> Result<Ignore> {
        let own = format!("{dockerfile}.dockerignore");
        let beside = match self.directory.is_some() {
            true => fs::read(&own).ok(),
            false => None,
        };
        let text = match beside {
            Some(text) => Some(text),
            None => match self.text(&own)? {
                Some(text) => Some(text),
                None => self.text(".dockerignore")?,
            },
        };
        let text = text.unwrap_or_default();
        Ignore::parse(&String::from_utf8_lossy(&text)).map_err(Error::Invalid)
    }

    /// A regular file of the context, links resolved inside it.
    fn text(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let Ok(fd) = open_in_root(self.root.as_fd(), name.as_bytes(), flags) else {
            return Ok(None);
        };
        let file = File::from(fd);
        if !file.metadata().is_ok_and(|meta| meta.is_file()) {
            return Ok(None);
        }
        let mut text = Vec::new();
        file.take(TEXT_MAX + 1)
            .read_to_end(&mut text)
            .map_err(|errno| Error::local("read", Path::new(name), errno))?;
        Ok(Some(text))
    }
}

fn missing(name: &str) -> Error {
    Error::Invalid(format!(
        "failed to read dockerfile: open {name}: no such file or directory"
    ))
}

/// Whether the first block is the header of an archive: its checksum says so (POSIX pax,
/// "ustar Interchange Format").
pub fn is_tar(start: &[u8]) -> bool {
    start.len() == 512
        && Reader::new(start)
            .next_entry()
            .is_ok_and(|entry| entry.is_some())
}

/// A new directory in scratch space.
///
/// # Errors
/// It cannot be made.
pub fn scratch_dir(lease: &Lease<'_>) -> Result<PathBuf> {
    let dir = lease.scratch();
    let made = fs::DirBuilder::new().mode(0o755).create(&dir);
    made.map_err(|errno| Error::host("create directory", &dir, errno))?;
    Ok(dir)
}

/// Opens a directory.
///
/// # Errors
/// It cannot be opened.
pub fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Error::local("open", path, errno))
}
