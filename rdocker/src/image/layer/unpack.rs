//! Unpacking an archive into a directory, whatever the archive says.
//!
//! Every member is made by system calls on descriptors: its directory is opened with openat2(2)
//! `RESOLVE_IN_ROOT`, so a link leads where it would lead inside the container and never out of
//! the directory, and the last component is created without following anything. Metadata goes on
//! what was just made, in the order owner, mode, attributes, times (each may undo the one before).
//!
//! The directory must be fresh and private: nobody else may change it meanwhile.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use super::super::tar::{Entry, Error, Kind, Reader, Result};
use super::files::{
    file_type, is_whiteout, make_whiteout, open_dir, open_in_root, open_subdir, remove_all,
    set_opaque, split, stat, xattr_allowed,
};
use super::{AUFS, OPAQUE, WHITEOUT};

/// The deepest directory of an archive.
const DEPTH_MAX: usize = 256;
const COPY_BUFFER: usize = 128 << 10;

/// What `.wh.` names become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A layer: overlay's whiteouts and opaque marks, as `trusted.*` or (`userxattr`) `user.*`.
    Overlay {
        /// This is not the first user namespace, which alone may set `trusted.*`.
        userxattr: bool,
    },
    /// Plain files: `.wh.` means nothing (`cp`, `ADD`, a flat import's root).
    Plain,
}

/// What an archive was unpacked to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of all regular files.
    pub size: u64,
    /// Directories that no member made: their metadata is that of the layer below.
    pub implied: Vec<Vec<u8>>,
    /// Hard links (path, target) whose target this archive does not have.
    pub links_below: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Unpacks all members of an archive into `root`, and reads the stream to its end.
///
/// # Errors
/// The first member that breaks a rule or cannot be made; what was made before stays, so the
/// caller unpacks into scratch space.
pub fn unpack(archive: impl Read, root: BorrowedFd<'_>, form: Form) -> Result<Unpacked> {
    let mut reader = Reader::new(archive);
    let mut unpacker = Unpacker::new(root, form);
    while let Some(entry) = reader.next_entry()? {
        unpacker.member(&entry, &mut reader)?;
    }
    reader.drain()?;
    unpacker.finish()
}

struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    form: Form,
    devices: bool,
    /// The directory of the last member, which is often that of the next one too.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// Times of directories, set last: making a file in a directory changes them.
    times: Vec<(Vec<u8>, Timestamps)>,
    implied: HashSet<Vec<u8>>,
    links_below: Vec<(Vec<u8>, Vec<u8>)>,
    size: u64,
    buffer: Vec<u8>,
}

impl<'a> Unpacker<'a> {
    fn new(root: BorrowedFd<'a>, form: Form) -> Unpacker<'a> {
        Unpacker {
            root,
            form,
            // Without CAP_MKNOD in the first user namespace there is no way to make one.
            devices: crate::host::in_first_user_namespace(),
            last: None,
            times: Vec::new(),
            implied: HashSet::new(),
            links_below: Vec::new(),
            size: 0,
            buffer: vec![0; COPY_BUFFER],
        }
    }

    fn member(&mut self, entry: &Entry, data: &mut impl Read) -> Result<()> {
        let why = "its path has a '..' component";
        let (dir, leaf) = split(&entry.path).ok_or_else(|| Error::member(entry, why))?;
        if dir.split(|b| *b == b'/').count() > DEPTH_MAX {
            return Err(Error::member(entry, "it is more than 256 directories deep"));
        }
        if leaf.is_empty() {
            return self.root_member(entry);
        }
        let parent = self.parent(entry, &dir)?;
        let result = match self.form {
            Form::Overlay { userxattr } if leaf.starts_with(WHITEOUT) => {
                self.whiteout(entry, parent.as_fd(), &leaf, userxattr)
            }
            _ => self.make(entry, parent.as_fd(), &dir, &leaf, data),
        };
        self.last = Some((dir, parent));
        result
    }

    /// The directory itself: its members say only owner, mode, attributes and times.
    fn root_member(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(Error::member(entry, "the root can only be a directory"));
        }
        let root = self.root;
        self.directory_metadata(entry, root, Vec::new())
    }

    /// The member's directory, made if no member made it.
    fn parent(&mut self, entry: &Entry, dir: &[u8]) -> Result<OwnedFd> {
        if let Some((_, fd)) = self.last.take().filter(|(last, _)| last == dir) {
            return Ok(fd);
        }
        match open_dir(self.root, dir) {
            Ok(fd) => Ok(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_dirs(entry, dir),
            Err(errno) => Err(failed("open the directory of", entry)(errno)),
        }
    }

    /// Makes every missing component of a path; links among them are resolved in the root.
    fn make_dirs(&mut self, entry: &Entry, dir: &[u8]) -> Result<OwnedFd> {
        let at = failed("create the directory of", entry);
        let mut path = Vec::new();
        let mut fd = open_dir(self.root, b"").map_err(&at)?;
        for part in dir.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            let above = fd;
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(part);
            fd = match open_dir(self.root, &path) {
                Ok(fd) => fd,
                Err(errno @ (Errno::NOENT | Errno::NOTDIR)) => {
                    self.imply(&above, part, errno).map_err(&at)?;
                    self.implied.insert(path.clone());
                    open_dir(self.root, &path).map_err(&at)?
                }
                Err(errno) => return Err(at(errno)),
            };
        }
        Ok(fd)
    }

    /// Makes a directory that a later member needs, also over a whiteout of the same name.
    fn imply(&self, above: &OwnedFd, name: &[u8], errno: Errno) -> rustix::io::Result<()> {
        let Some(found) = stat(above, name)? else {
            return mkdirat(above, name, Mode::from(0o755));
        };
        match self.form {
            Form::Overlay { userxattr } if is_whiteout(&found) => {
                unlinkat(above, name, AtFlags::empty())?;
                mkdirat(above, name, Mode::from(0o755))?;
                set_opaque(open_subdir(above, name)?, userxattr)
            }
            // A file, or a link that leads nowhere: the kernel's answer stands.
            _ => Err(errno),
        }
    }

    fn whiteout(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        leaf: &[u8],
        userxattr: bool,
    ) -> Result<()> {
        let at = failed("mark a deletion for", entry);
        if leaf == OPAQUE {
            return set_opaque(parent, userxattr).map_err(at);
        }
        if leaf.starts_with(AUFS) {
            return Ok(());
        }
        let name = &leaf[WHITEOUT.len()..];
        if matches!(name, b"" | b"." | b"..") {
            return Err(Error::member(entry, "it deletes no name"));
        }
        match make_whiteout(parent, name) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(at),
        }
        // A deletion speaks of the layers below only: what this layer made stays, and a
        // directory that it made shows nothing from below.
        let found = stat(parent, name).map_err(&at)?;
        if found.is_some_and(|found| file_type(&found) == FileType::Directory) {
            let dir = open_subdir(parent, name).map_err(&at)?;
            return set_opaque(dir, userxattr).map_err(at);
        }
        Ok(())
    }

    fn make(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        dir: &[u8],
        leaf: &[u8],
        data: &mut impl Read,
    ) -> Result<()> {
        match entry.kind {
            Kind::Directory => return self.directory(entry, parent, dir, leaf),
            Kind::File => return self.file(entry, parent, leaf, data),
            Kind::Hardlink => return self.hardlink(entry, parent, dir, leaf),
            Kind::Symlink => {
                let make = || symlinkat(&entry.link[..], parent, leaf);
                self.fresh(parent, leaf, make)
                    .map_err(failed("create the link", entry))?;
                return node_metadata(entry, parent, leaf);
            }
            Kind::Char | Kind::Block if !self.devices => return Ok(()),
            Kind::Char if entry.device == (0, 0) => {
                return Err(Error::member(
                    entry,
                    "device 0:0 is overlay's mark for a deletion",
                ));
            }
            Kind::Char | Kind::Block | Kind::Fifo => {}
        }
        let (kind, device) = node(entry)?;
        let make = || mknodat(parent, leaf, kind, Mode::from(0o600), device);
        self.fresh(parent, leaf, make)
            .map_err(failed("create the node", entry))?;
        node_metadata(entry, parent, leaf)
    }

    /// Makes something under a name, and first removes what an earlier member made there.
    fn fresh<T>(
        &mut self,
        parent: BorrowedFd<'_>,
        leaf: &[u8],
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        match make() {
            Err(Errno::EXIST) => {}
            result => return result,
        }
        remove_all(parent, leaf)?;
        make()
    }

    fn file(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        leaf: &[u8],
        data: &mut impl Read,
    ) -> Result<()> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = || openat(parent, leaf, flags, Mode::from(0o600));
        let fd = self
            .fresh(parent, leaf, make)
            .map_err(failed("create", entry))?;
        let mut file = std::fs::File::from(fd);
        let mut left = entry.size;
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let n = match data.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(Error::invalid("the archive is cut off")),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Stream(error)),
            };
            file.write_all(&self.buffer[..n])
                .map_err(|source| Error::Io {
                    doing: "write",
                    path: entry.display(),
                    source,
                })?;
            left -= n as u64;
        }
        self.size += entry.size;
        metadata(entry, file.as_fd())?;
        futimens(&file, &times(entry)).map_err(failed("set the times of", entry))
    }

    fn directory(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        dir: &[u8],
        leaf: &[u8],
    ) -> Result<()> {
        let at = failed("create the directory", entry);
        let path = if dir.is_empty() {
            leaf.to_vec()
        } else {
            [dir, b"/", leaf].concat()
        };
        match mkdirat(parent, leaf, Mode::from(0o700)) {
            Err(Errno::EXIST) => {
                let found = stat(parent, leaf).map_err(&at)?;
                if found.is_some_and(|found| file_type(&found) != FileType::Directory) {
                    self.replace_by_directory(parent, leaf).map_err(&at)?;
                }
            }
            result => result.map_err(&at)?,
        }
        self.implied.remove(&path);
        let fd = open_subdir(parent, leaf).map_err(&at)?;
        self.directory_metadata(entry, fd.as_fd(), path)
    }

    fn replace_by_directory(&self, parent: BorrowedFd<'_>, leaf: &[u8]) -> rustix::io::Result<()> {
        let whiteout = stat(parent, leaf)?.is_some_and(|found| is_whiteout(&found));
        unlinkat(parent, leaf, AtFlags::empty())?;
        mkdirat(parent, leaf, Mode::from(0o700))?;
        match self.form {
            Form::Overlay { userxattr } if whiteout => {
                set_opaque(open_subdir(parent, leaf)?, userxattr)
            }
            _ => Ok(()),
        }
    }

    fn directory_metadata(
        &mut self,
        entry: &Entry,
        fd: BorrowedFd<'_>,
        path: Vec<u8>,
    ) -> Result<()> {
        metadata(entry, fd)?;
        self.times.push((path, times(entry)));
        Ok(())
    }

    /// A second name for what an earlier member made; for a layer, perhaps of a layer below.
    fn hardlink(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        dir: &[u8],
        leaf: &[u8],
    ) -> Result<()> {
        let at = failed("link", entry);
        let why = "its target has a '..' component";
        let (target_dir, target) = split(&entry.link).ok_or_else(|| Error::member(entry, why))?;
        if target.is_empty() {
            return Err(Error::member(entry, "its target is the root"));
        }
        let found = match open_dir(self.root, &target_dir) {
            Ok(fd) => stat(&fd, &target).map_err(&at)?.map(|found| (fd, found)),
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(errno) => return Err(at(errno)),
        };
        let Some((target_fd, found)) = found else {
            return self.link_below(entry, parent, dir, leaf);
        };
        if file_type(&found) == FileType::Directory || is_whiteout(&found) {
            return Err(Error::member(
                entry,
                "its target is a directory or a deletion",
            ));
        }
        let same = stat(parent, leaf).map_err(&at)?;
        if same.is_some_and(|same| (same.st_dev, same.st_ino) == (found.st_dev, found.st_ino)) {
            return Ok(());
        }
        // Without AT_SYMLINK_FOLLOW a link to a symbolic link is just that: linkat(2).
        let make = || linkat(&target_fd, &target[..], parent, leaf, AtFlags::empty());
        self.fresh(parent, leaf, make).map_err(at)
    }

    /// Leaves a hard link for [`super::graft`], which knows the layers below.
    fn link_below(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        dir: &[u8],
        leaf: &[u8],
    ) -> Result<()> {
        if self.form == Form::Plain {
            return Err(Error::member(entry, "its target is not in the archive"));
        }
        if stat(parent, leaf).map_err(failed("link", entry))?.is_some() {
            remove_all(parent, leaf).map_err(failed("replace", entry))?;
        }
        let path = if dir.is_empty() {
            leaf.to_vec()
        } else {
            [dir, b"/", leaf].concat()
        };
        self.links_below.push((path, entry.link.clone()));
        Ok(())
    }

    /// Sets the times of directories, the last said first, and tells what is open.
    fn finish(mut self) -> Result<Unpacked> {
        self.last = None;
        let mut done = HashSet::new();
        for (path, times) in self.times.iter().rev() {
            if !done.insert(path) {
                continue;
            }
            // A later member may have replaced it by something else, which has times of its own.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            if let Ok(fd) = open_in_root(self.root, path, flags) {
                futimens(&fd, times).map_err(|errno| Error::Io {
                    doing: "set the times of",
                    path: String::from_utf8_lossy(path).into_owned(),
                    source: errno.into(),
                })?;
            }
        }
        let mut implied: Vec<_> = self.implied.into_iter().collect();
        implied.sort();
        Ok(Unpacked {
            size: self.size,
            implied,
            links_below: self.links_below,
        })
    }
}

fn failed<'e>(doing: &'static str, entry: &'e Entry) -> impl Fn(Errno) -> Error + 'e {
    move |errno| Error::Io {
        doing,
        path: entry.display(),
        source: errno.into(),
    }
}

fn node(entry: &Entry) -> Result<(FileType, u64)> {
    let (major, minor) = entry.device;
    // The kernel has 12 bits for a major and 20 for a minor number.
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(Error::member(entry, "its device number is out of range"));
    }
    Ok(match entry.kind {
        Kind::Char => (FileType::CharacterDevice, makedev(major, minor)),
        Kind::Block => (FileType::BlockDevice, makedev(major, minor)),
        _ => (FileType::Fifo, 0),
    })
}

fn times(entry: &Entry) -> Timestamps {
    let (tv_sec, nanos) = entry.mtime;
    let time = Timespec {
        tv_sec,
        tv_nsec: nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    )
}

/// Owner, mode and attributes of an open file or directory, in this order: chown(2) takes
/// setuid bits and capabilities away.
fn metadata(entry: &Entry, fd: BorrowedFd<'_>) -> Result<()> {
    let (uid, gid) = owner(entry);
    fchown(fd, uid, gid).map_err(failed("set the owner of", entry))?;
    fchmod(fd, Mode::from(entry.mode)).map_err(failed("set the mode of", entry))?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| xattr_allowed(name)) {
        match fsetxattr(fd, &name[..], value, XattrFlags::empty()) {
            // A file system without user attributes, or a capability outside the first user
            // namespace: Docker unpacks without them too.
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(Errno::PERM) if name == b"security.capability" => {}
            Err(errno) => return Err(failed("set an attribute of", entry)(errno)),
        }
    }
    Ok(())
}

/// Owner, mode and times of a link or a node that was just made, by name: opening a device would
/// be an act of its own, and nobody else can change the private directory.
fn node_metadata(entry: &Entry, parent: BorrowedFd<'_>, leaf: &[u8]) -> Result<()> {
    let (uid, gid) = owner(entry);
    chownat(parent, leaf, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set the owner of", entry))?;
    if entry.kind != Kind::Symlink {
        chmodat(parent, leaf, Mode::from(entry.mode), AtFlags::empty())
            .map_err(failed("set the mode of", entry))?;
    }
    utimensat(parent, leaf, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set the times of", entry))
}
