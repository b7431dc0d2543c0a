//! `rdocker cp`

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::container::{Container, Containers};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::image::layer::pack::{pack, pack_one};
use crate::image::layer::{Form, unpack};
use crate::image::tar::{self, Reader, Writer};
use crate::image::{self, overlay};
use crate::ui::Ui;
use crate::ui::format::size;

/// Copy files/folders between a container and the local filesystem
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "rdocker cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n       \
                      rdocker cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    after_help = "'-' as the source reads a tar archive from stdin and extracts it to a directory \
                  of the container;\n'-' as the destination writes a tar archive to stdout."
)]
pub struct Cp {
    /// Archive mode (copy all uid/gid information)
    #[arg(short, long)]
    archive: bool,
    /// Always follow symbol link in SRC_PATH
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Suppress progress output during copy
    #[arg(short, long)]
    quiet: bool,
    #[arg(hide = true)]
    source: String,
    #[arg(hide = true)]
    destination: String,
}

/// One side of a copy: a directory tree with a root that paths cannot leave.
struct Side {
    root: OwnedFd,
    path: String,
    /// The container as the user named it; `None` is this machine.
    container: Option<String>,
}

impl Cp {
    /// Copies by an archive from one side to the other.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        match (split(&self.source), split(&self.destination)) {
            (Some(_), Some(_)) => Err(Error::Usage(
                "copying between containers is not supported".to_owned(),
            )),
            (None, None) => Err(Error::Usage(
                "must specify at least one container source".to_owned(),
            )),
            (Some((name, path)), None) => {
                let container = Containers::new(host).find(name)?;
                let opened = Opened::new(&container)?;
                let from = Side {
                    root: opened.root()?,
                    path: path.to_owned(),
                    container: Some(name.to_owned()),
                };
                if self.destination == "-" {
                    return self.to_stdout(&from);
                }
                let to = local(&self.destination)?;
                let copied = self.copy(&from, &to)?;
                self.tell(ui, copied, &format!("to {}", self.destination))
            }
            (None, Some((name, path))) => {
                let container = Containers::new(host).find(name)?;
                let opened = Opened::new(&container)?;
                let to = Side {
                    root: opened.root()?,
                    path: path.to_owned(),
                    container: Some(name.to_owned()),
                };
                if self.source == "-" {
                    return from_stdin(&to);
                }
                let copied = self.copy(&local(&self.source)?, &to)?;
                self.tell(ui, copied, &format!("to {}", self.destination))
            }
        }
    }

    fn tell(&self, ui: &mut Ui, bytes: u64, whither: &str) -> Result<()> {
        if self.quiet || !crate::ui::stdout_is_terminal() {
            return Ok(());
        }
        ui.error_line(format_args!(
            "Successfully copied {} {whither}",
            size(bytes, 3)
        ))
    }

    fn to_stdout(&self, from: &Side) -> Result<()> {
        let (dir, name) = from.parent(self.follow_link)?;
        let mut writer = Writer::new(io::BufWriter::new(io::stdout().lock()));
        pack_one(dir.as_fd(), name.as_bytes(), name.as_bytes(), &mut writer).map_err(archive)?;
        let mut out = writer.finish().map_err(Error::Terminal)?;
        out.flush().map_err(Error::Terminal)
    }

    /// The rules of `docker cp`: into an existing directory, or as the name that is given.
    fn copy(&self, from: &Side, to: &Side) -> Result<u64> {
        let contents = from.path.ends_with("/.") || from.path == ".";
        let source_is_dir = from.is_dir()?.ok_or_else(|| from.missing())?;
        let (dir, name) = match to.is_dir()? {
            Some(true) if source_is_dir && contents => (to.open(&to.path)?, None),
            Some(true) => (to.open(&to.path)?, Some(from.leaf()?)),
            Some(false) if source_is_dir => {
                return Err(Error::Usage("cannot copy directory".to_owned()));
            }
            None if !source_is_dir && to.path.ends_with('/') => {
                return Err(Error::Invalid(format!(
                    "destination directory {} must be a directory that exists",
                    to.path
                )));
            }
            Some(false) | None => {
                let (dir, name) = to.parent(false)?;
                (dir, Some(name))
            }
        };
        let (source, leaf) = from.parent(self.follow_link)?;
        let owner =
            (!self.archive).then(|| (rustix::process::geteuid(), rustix::process::getegid()));
        let owner = owner.map(|(uid, gid)| (uid.as_raw(), gid.as_raw()));
        transfer(dir, owner, move |to| {
            let mut writer = Writer::new(to);
            match &name {
                Some(name) => {
                    pack_one(
                        source.as_fd(),
                        leaf.as_bytes(),
                        name.as_bytes(),
                        &mut writer,
                    )?;
                }
                None => {
                    let inside = rustix::fs::openat(
                        &source,
                        leaf.as_str(),
                        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
                        Mode::empty(),
                    );
                    let inside = inside.map_err(|errno| tar::Error::Stream(errno.into()))?;
                    pack(inside.as_fd(), Form::Plain, &mut writer)?;
                }
            }
            writer.finish().map(drop).map_err(tar::Error::Stream)
        })
    }
}

/// Packs in a thread, gives every member its new owner, unpacks into `dir`; the bytes of files.
fn transfer(
    dir: OwnedFd,
    owner: Option<(u32, u32)>,
    produce: impl FnOnce(io::PipeWriter) -> tar::Result<()> + Send,
) -> Result<u64> {
    let pipe = || io::pipe().map_err(|errno| Error::host("make", Path::new("a pipe"), errno));
    let ((packed, packer), (owned, relay)) = (pipe()?, pipe()?);
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || produce(packer));
        let relaying = scope.spawn(move || change_owner(packed, relay, owner));
        let unpacked = unpack(owned, dir.as_fd(), Form::Plain);
        // The first cause is the one to tell: a packer that failed cuts the archive short.
        let panicked = || tar::Error::Stream(io::Error::other("a copying thread ended early"));
        packing
            .join()
            .unwrap_or_else(|_| Err(panicked()))
            .map_err(archive)?;
        relaying
            .join()
            .unwrap_or_else(|_| Err(panicked()))
            .map_err(archive)?;
        unpacked.map(|unpacked| unpacked.size).map_err(archive)
    })
}

fn change_owner(from: impl Read, to: impl Write, owner: Option<(u32, u32)>) -> tar::Result<()> {
    let mut reader = Reader::new(from);
    let mut writer = Writer::new(to);
    while let Some(mut entry) = reader.next_entry()? {
        if let Some((uid, gid)) = owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        writer
            .add(&entry, &mut reader)
            .map_err(tar::Error::Stream)?;
    }
    reader.drain()?;
    writer.finish().map(drop).map_err(tar::Error::Stream)
}

fn from_stdin(to: &Side) -> Result<()> {
    if to.is_dir()? != Some(true) {
        return Err(Error::Invalid(format!(
            "destination \"{}\" must be a directory",
            to.path
        )));
    }
    let dir = to.open(&to.path)?;
    unpack(io::stdin().lock(), dir.as_fd(), Form::Plain)
        .map(drop)
        .map_err(archive)
}

fn archive(error: tar::Error) -> Error {
    Error::from(image::Error::from(error))
}

/// `CONTAINER:PATH`; a path that begins with `/` or `.` is local, colon or not.
fn split(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['/', '.']) || text == "-" {
        return None;
    }
    text.split_once(':').filter(|(name, _)| !name.is_empty())
}

fn local(path: &str) -> Result<Side> {
    let absolute = std::path::absolute(path)
        .map_err(|errno| Error::host("resolve", Path::new(path), errno))?;
    // `absolute` drops what says "the contents" and "a directory".
    let mut text = absolute.display().to_string();
    if path == "." || path.ends_with("/.") {
        text.push_str("/.");
    } else if path.ends_with('/') && text != "/" {
        text.push('/');
    }
    let root = open_dir(Path::new("/"))?;
    Ok(Side {
        root,
        path: text,
        container: None,
    })
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Error::host("open", path, errno))
}

impl Side {
    fn resolve(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        // In a container `/a` and `a` are the same; a root that is this machine's needs no other
        // treatment, for its `..` ends at the root too.
        let inside = format!("./{}", path.trim_start_matches('/'));
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, inside, flags, Mode::empty(), resolve)
    }

    fn open(&self, path: &str) -> Result<OwnedFd> {
        self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|errno| Error::host("open", Path::new(path), errno))
    }

    fn missing(&self) -> Error {
        Error::Invalid(match &self.container {
            Some(name) => format!("Could not find the file {} in container {name}", self.path),
            None => format!("lstat {}: no such file or directory", self.path),
        })
    }

    /// Whether the path leads to a directory; `None` if to nothing.
    fn is_dir(&self) -> Result<Option<bool>> {
        match self.resolve(&self.path, OFlags::PATH) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd)
                    .map_err(|errno| Error::host("stat", Path::new(&self.path), errno))?;
                let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
                Ok(Some(kind == rustix::fs::FileType::Directory))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(Error::host("open", Path::new(&self.path), errno)),
        }
    }

    /// The path without its last component, opened, and that component.
    ///
    /// With `follow` the last component is resolved first, if it is a link.
    fn parent(&self, follow: bool) -> Result<(OwnedFd, String)> {
        let mut path = self
            .path
            .trim_end_matches("/.")
            .trim_end_matches('/')
            .to_owned();
        for _ in 0..40 {
            let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let parent = self.resolve(dir, OFlags::RDONLY | OFlags::DIRECTORY);
            let parent = parent.map_err(|errno| match errno {
                Errno::NOENT | Errno::NOTDIR => self.missing(),
                errno => Error::host("open", Path::new(dir), errno),
            })?;
            let name = if name.is_empty() { "." } else { name };
            let link = rustix::fs::readlinkat(&parent, name, Vec::new());
            match link
                .ok()
                .filter(|_| follow)
                .and_then(|target| target.into_string().ok())
            {
                None => return Ok((parent, name.to_owned())),
                Some(target) if target.starts_with('/') => path = target,
                Some(target) => path = format!("{dir}/{target}"),
            }
        }
        Err(Error::host("open", Path::new(&self.path), Errno::LOOP))
    }

    fn leaf(&self) -> Result<String> {
        let path = self.path.trim_end_matches("/.").trim_end_matches('/');
        let name = path
            .rsplit('/')
            .next()
            .filter(|name| !name.is_empty() && *name != "..");
        name.map(str::to_owned)
            .ok_or_else(|| Error::Invalid(format!("{} has no name to copy it under", self.path)))
    }
}

/// A container whose root can be looked at; one that does not run is mounted for the time.
struct Opened {
    path: PathBuf,
    mounted: Option<PathBuf>,
    _lock: crate::store::lock::FileLock,
}

impl Opened {
    fn new(container: &Container) -> Result<Self> {
        let lock = container.lock()?;
        if container.state.pid > 0 {
            // Through its first process all its mounts are seen, volumes too.
            let path = PathBuf::from(format!("/proc/{}/root", container.state.pid));
            return Ok(Self {
                path,
                mounted: None,
                _lock: lock,
            });
        }
        let dir = container.places.dir.clone();
        overlay::unmount_rootfs(&dir)?;
        let path = overlay::remount_rootfs(&dir)?;
        Ok(Self {
            path,
            mounted: Some(dir),
            _lock: lock,
        })
    }

    fn root(&self) -> Result<OwnedFd> {
        // `/proc/PID/root` is a magic link, which only a trailing component follows.
        open_dir(&self.path.join("."))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(dir) = &self.mounted {
            // The next start or removal takes it off otherwise.
            let _ = overlay::unmount_rootfs(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_makes_a_container_only_where_docker_sees_one() {
        let cases = [
            ("web:/a", Some(("web", "/a"))),
            ("./a:b", None),
            ("/a:b", None),
            ("plain", None),
            ("-", None),
        ];
        for (text, want) in cases {
            assert_eq!(split(text), want, "{text}");
        }
    }
}
