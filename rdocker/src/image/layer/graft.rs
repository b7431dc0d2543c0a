//! Fitting an unpacked layer to the layers below it.
//!
//! Layers are unpacked all at once, each alone. What depends on the layers below waits until the
//! chain is linked: the metadata of directories that no member made (overlay shows the highest
//! directory's own), and hard links to files of lower layers.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown,
    fsetxattr, fstat, futimens, openat,
};
use rustix::io::Errno;

use super::super::tar::{Error, Result};
use super::files::{
    file_type, is_opaque, is_whiteout, open_dir, open_in_root, open_subdir, split, stat, xattrs,
};
use super::unpack::Unpacked;

/// The directories of the layers below, the highest first.
pub struct Below {
    layers: Vec<OwnedFd>,
    userxattr: bool,
}

impl Below {
    /// Opens the layers, which come lowest first.
    pub fn open(layers: &[PathBuf], userxattr: bool) -> Result<Below> {
        let open = |path: &PathBuf| open_root(path);
        let layers = layers.iter().rev().map(open).collect::<Result<_>>()?;
        Ok(Below { layers, userxattr })
    }

    /// The directory that holds the visible file of this path, and its stat; `None` if the merged
    /// layers show nothing there. Links are not followed: the path is one as overlay sees it.
    pub fn find(&self, path: &[u8]) -> rustix::io::Result<Option<(OwnedFd, Stat)>> {
        for layer in &self.layers {
            match self.find_in(layer, path)? {
                Found::Here(dir, stat) => return Ok(Some((dir, stat))),
                Found::Hidden => return Ok(None),
                Found::Deeper => {}
            }
        }
        Ok(None)
    }

    fn find_in(&self, layer: &OwnedFd, path: &[u8]) -> rustix::io::Result<Found> {
        let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
        let Some((leaf, dirs)) = parts.split_last() else {
            return Ok(Found::Hidden);
        };
        let mut opaque = false;
        let mut dir = layer.try_clone().map_err(|_| Errno::MFILE)?;
        for part in dirs {
            match stat(&dir, part)? {
                None => return Ok(if opaque { Found::Hidden } else { Found::Deeper }),
                Some(found) if file_type(&found) != FileType::Directory => {
                    return Ok(Found::Hidden);
                }
                Some(_) => dir = open_subdir(&dir, part)?,
            }
            opaque |= is_opaque(&dir, self.userxattr)?;
        }
        Ok(match stat(&dir, leaf)? {
            None if opaque => Found::Hidden,
            None => Found::Deeper,
            Some(found) if is_whiteout(&found) => Found::Hidden,
            Some(found) => Found::Here(dir, found),
        })
    }

    /// Every name that the merged layers show in a directory.
    pub fn names(&self, path: &[u8]) -> rustix::io::Result<Vec<Vec<u8>>> {
        let mut names = std::collections::BTreeMap::new();
        for layer in &self.layers {
            let dir = match open_dir(layer.as_fd(), path) {
                Ok(dir) => dir,
                Err(Errno::NOENT) => continue,
                Err(_) => break,
            };
            for entry in rustix::fs::Dir::read_from(&dir)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." && !names.contains_key(name) {
                    let shown = stat(&dir, name)?.is_some_and(|found| !is_whiteout(&found));
                    names.insert(name.to_vec(), shown);
                }
            }
            if is_opaque(&dir, self.userxattr)? {
                break;
            }
        }
        Ok(names
            .into_iter()
            .filter_map(|(name, shown)| shown.then_some(name))
            .collect())
    }
}

enum Found {
    Here(OwnedFd, Stat),
    Hidden,
    Deeper,
}

/// Opens a layer's directory.
pub fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Error::Io {
        doing: "open the layer",
        path: path.display().to_string(),
        source: errno.into(),
    })
}

/// Finishes a layer on top of those below; answers the bytes of files that it copied.
///
/// # Errors
/// [`Error::Member`] if a hard link's target is in no layer.
pub fn graft(root: BorrowedFd<'_>, unpacked: &Unpacked, below: &Below) -> Result<u64> {
    for path in &unpacked.implied {
        imply(root, path, below).map_err(failed("complete the directory", path))?;
    }
    let mut copied = 0;
    for (path, target) in &unpacked.links_below {
        copied += link(root, path, target, below)?;
    }
    Ok(copied)
}

fn failed<'p>(doing: &'static str, path: &'p [u8]) -> impl Fn(Errno) -> Error + 'p {
    move |errno| Error::Io {
        doing,
        path: String::from_utf8_lossy(path).into_owned(),
        source: errno.into(),
    }
}

fn imply(root: BorrowedFd<'_>, path: &[u8], below: &Below) -> rustix::io::Result<()> {
    let Some((dir, found)) = below.find(path)? else {
        return Ok(());
    };
    if file_type(&found) != FileType::Directory {
        return Ok(());
    }
    let leaf = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
    let source = open_subdir(&dir, leaf)?;
    // A later member may have put something else in its place.
    match open_in_root(
        root,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
    ) {
        Ok(target) => copy_metadata(&source, &target),
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn link(root: BorrowedFd<'_>, path: &[u8], target: &[u8], below: &Below) -> Result<u64> {
    let at = failed("copy the link target for", path);
    let wrong = |why: &str| Error::Member {
        path: String::from_utf8_lossy(path).into_owned(),
        why: format!("its target {:?} {why}", String::from_utf8_lossy(target)),
    };
    let (target_dir, leaf) = split(target).ok_or_else(|| wrong("has a '..' component"))?;
    let whole = if target_dir.is_empty() {
        leaf.clone()
    } else {
        [&target_dir[..], b"/", &leaf].concat()
    };
    let found = below.find(&whole).map_err(&at)?;
    let (dir, found) = found.ok_or_else(|| wrong("is in no layer"))?;
    if file_type(&found) != FileType::RegularFile {
        return Err(wrong("is no regular file of the layers below"));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let source = openat(&dir, &leaf[..], flags, Mode::empty()).map_err(&at)?;
    let (parent, name) = split(path).ok_or_else(|| wrong("has a '..' component"))?;
    let parent = open_dir(root, &parent).map_err(&at)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let copy = openat(&parent, &name[..], flags, Mode::from(0o600)).map_err(&at)?;
    let (mut from, mut to) = (File::from(source), File::from(copy));
    let bytes = io::copy(&mut from, &mut to).map_err(Error::Stream)?;
    copy_metadata(&from.into(), &to.into()).map_err(at)?;
    Ok(bytes)
}

/// Owner, mode, attributes and times, in this order.
fn copy_metadata(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    let stat = fstat(from)?;
    fchown(
        to,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    fchmod(to, Mode::from(stat.st_mode & 0o7777))?;
    for (name, value) in xattrs(from)? {
        fsetxattr(to, &name[..], &value, XattrFlags::empty())?;
    }
    let time = |tv_sec, nanos: u64| Timespec {
        tv_sec,
        tv_nsec: nanos.cast_signed(),
    };
    futimens(
        to,
        &Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        },
    )
}
