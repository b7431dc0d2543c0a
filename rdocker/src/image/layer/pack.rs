//! Making an archive of a directory: the same directory gives the same bytes.
//!
//! Members come in the order of their names' bytes, a directory before what is in it; times are
//! whole seconds, as in Docker's layers. Sockets are left out.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, major, minor, openat, readlinkat};
use rustix::io::Errno;

use super::super::tar::{Entry, Error, Kind, Result, Writer};
use super::files::{file_type, is_opaque, is_whiteout, open_subdir, stat, xattrs};
use super::unpack::Form;
use super::{OPAQUE, WHITEOUT};

/// Adds everything below `root` to an archive, without the root itself; answers the bytes of all
/// regular files.
///
/// With [`Form::Overlay`] overlay's marks become `.wh.` names: the archive of a layer.
pub fn pack<W: Write>(root: BorrowedFd<'_>, form: Form, to: &mut Writer<W>) -> Result<u64> {
    let mut packer = Packer {
        form,
        to,
        links: HashMap::new(),
        size: 0,
    };
    let root = open_subdir(root, b".").map_err(failed("open", b"."))?;
    packer.directory(&root, b"")?;
    Ok(packer.size)
}

/// Adds one file or directory tree to an archive under a path of the caller's choice.
pub fn pack_one<W: Write>(
    dir: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    to: &mut Writer<W>,
) -> Result<()> {
    let mut packer = Packer {
        form: Form::Plain,
        to,
        links: HashMap::new(),
        size: 0,
    };
    packer.member(dir, name, path)
}

struct Packer<'a, W> {
    form: Form,
    to: &'a mut Writer<W>,
    /// The first path of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    size: u64,
}

impl<W: Write> Packer<'_, W> {
    fn directory(&mut self, dir: &OwnedFd, path: &[u8]) -> Result<()> {
        if let Form::Overlay { userxattr } = self.form
            && is_opaque(dir, userxattr).map_err(failed("read an attribute of", path))?
        {
            self.add(&Entry::new(join(path, OPAQUE), Kind::File), path)?;
        }
        for name in names(dir).map_err(failed("list", path))? {
            self.member(dir.as_fd(), &name, &join(path, &name))?;
        }
        Ok(())
    }

    fn member(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<()> {
        // A file that vanished while the tree was read is not there.
        let Some(found) = stat(dir, name).map_err(failed("stat", path))? else {
            return Ok(());
        };
        if matches!(self.form, Form::Overlay { .. }) && is_whiteout(&found) {
            let (parent, _) = path.split_at(path.len() - name.len());
            let mark = [parent, WHITEOUT, name].concat();
            return self.add(&Entry::new(mark, Kind::File), path);
        }
        let mut entry = entry(path, &found);
        match file_type(&found) {
            FileType::Directory => {
                let sub = open_subdir(dir, name).map_err(failed("open", path))?;
                entry.kind = Kind::Directory;
                entry.path.push(b'/');
                entry.xattrs = xattrs(&sub).map_err(failed("read the attributes of", path))?;
                self.add(&entry, path)?;
                return self.directory(&sub, path);
            }
            FileType::Socket | FileType::Unknown => return Ok(()),
            _ => {}
        }
        if found.st_nlink > 1 {
            let first = self.links.entry((found.st_dev, found.st_ino));
            match first {
                std::collections::hash_map::Entry::Occupied(first) => {
                    entry.kind = Kind::Hardlink;
                    entry.link = first.get().clone();
                    return self.add(&entry, path);
                }
                std::collections::hash_map::Entry::Vacant(first) => first.insert(path.to_vec()),
            };
        }
        match file_type(&found) {
            FileType::RegularFile => return self.file(dir, name, entry),
            FileType::Symlink => {
                entry.kind = Kind::Symlink;
                let link = readlinkat(dir, name, Vec::new()).map_err(failed("read", path))?;
                entry.link = link.into_bytes();
                entry.mode = 0o777;
            }
            FileType::CharacterDevice => entry.kind = Kind::Char,
            FileType::BlockDevice => entry.kind = Kind::Block,
            _ => entry.kind = Kind::Fifo,
        }
        if matches!(entry.kind, Kind::Char | Kind::Block) {
            entry.device = (major(found.st_rdev), minor(found.st_rdev));
        }
        self.add(&entry, path)
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], mut entry: Entry) -> Result<()> {
        let path = entry.path.clone();
        // O_NONBLOCK: whoever puts a pipe in the file's place must not make us wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = openat(dir, name, flags, Mode::empty()).map_err(failed("open", &path))?;
        let found = fstat(&fd).map_err(failed("stat", &path))?;
        if file_type(&found) != FileType::RegularFile {
            return Err(Error::member(&entry, "it changed while it was read"));
        }
        entry.size = found.st_size.cast_unsigned();
        self.size += entry.size;
        entry.xattrs = xattrs(&fd).map_err(failed("read the attributes of", &path))?;
        self.to
            .add(&entry, File::from(fd))
            .map_err(|source| Error::Io {
                doing: "archive",
                path: entry.display(),
                source,
            })
    }

    fn add(&mut self, entry: &Entry, path: &[u8]) -> Result<()> {
        self.to.add(entry, io::empty()).map_err(|source| Error::Io {
            doing: "archive",
            path: String::from_utf8_lossy(path).into_owned(),
            source,
        })
    }
}

fn failed<'p>(doing: &'static str, path: &'p [u8]) -> impl Fn(Errno) -> Error + 'p {
    move |errno| Error::Io {
        doing,
        path: String::from_utf8_lossy(path).into_owned(),
        source: errno.into(),
    }
}

/// The names in a directory, sorted by their bytes.
pub fn names(dir: impl AsFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort();
    Ok(names)
}

/// Two parts of a path.
pub fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        name.to_vec()
    } else {
        [path, b"/", name].concat()
    }
}

fn entry(path: &[u8], found: &Stat) -> Entry {
    let mut entry = Entry::new(path, Kind::File);
    entry.mode = found.st_mode & 0o7777;
    (entry.uid, entry.gid) = (found.st_uid, found.st_gid);
    entry.mtime = (found.st_mtime, 0);
    entry
}
