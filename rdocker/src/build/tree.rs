//! Trees of files as a build sees them: listed with a digest of every file, and copied as listed.
//!
//! A copy checks that each file still has the digest it was listed with, because the digest is
//! the key under which the result is remembered: a file that changes meanwhile must not be
//! remembered as what it was.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat,
    fchmod, fchown, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat, openat, readlinkat,
    symlinkat, utimensat,
};
use rustix::io::Errno;

use super::ignore::Ignore;
use super::key::Key;
use crate::image::layer::files::{file_type, open_in_root, open_subdir, remove_all, stat, xattrs};
use crate::image::layer::pack::{join, names};
use crate::store::digest::{Algorithm, Digest, Hasher};

const BUFFER: usize = 128 << 10;
/// The deepest directory that is followed.
const DEPTH_MAX: usize = 512;

/// One file, directory, link or node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Below the tree's root; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: FileType,
    /// 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    mtime: (i64, i64),
    device: u64,
    /// Target of a symbolic link.
    link: Vec<u8>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Of a regular file's bytes.
    digest: Option<Digest>,
    /// The path that the same file was listed under first.
    same_as: Option<Vec<u8>>,
}

/// Why a tree could not be listed or copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{doing} {path}")]
    Io {
        /// The call, as a verb.
        doing: &'static str,
        /// The file.
        path: String,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// A file changed between being listed and being copied.
    #[error("{path} changed while it was read")]
    Changed {
        /// The file.
        path: String,
    },
    /// Directories nest too deep.
    #[error("{path} is more than {DEPTH_MAX} directories deep")]
    Deep {
        /// The directory.
        path: String,
    },
}

fn failed<'p, E: Into<std::io::Error>>(
    doing: &'static str,
    path: &'p [u8],
) -> impl Fn(E) -> Error + 'p {
    move |error| Error::Io {
        doing,
        path: format!("/{}", String::from_utf8_lossy(path)),
        source: error.into(),
    }
}

/// Which files of a tree are left out.
#[derive(Clone, Copy)]
pub struct Filter<'a> {
    /// Patterns for paths below the context's root, and where in it the tree begins.
    pub context: Option<(&'a Ignore, &'a [u8])>,
    /// Patterns for paths below the tree's root.
    pub exclude: &'a Ignore,
}

impl Filter<'_> {
    fn ignores(&self, path: &[u8]) -> bool {
        let text = String::from_utf8_lossy(path);
        let in_context = |(ignore, prefix): (&Ignore, &[u8])| {
            ignore.matches(&String::from_utf8_lossy(&join_tree(prefix, path)))
        };
        self.exclude.matches(&text) || self.context.is_some_and(in_context)
    }

    fn takes_back(&self) -> bool {
        self.exclude.takes_back() || self.context.is_some_and(|(ignore, _)| ignore.takes_back())
    }
}

fn join_tree(prefix: &[u8], path: &[u8]) -> Vec<u8> {
    match path {
        b"" => prefix.to_vec(),
        path => join(prefix, path),
    }
}

/// Lists the file or directory `name` of `dir` and everything below it, sorted.
pub fn list(dir: BorrowedFd<'_>, name: &[u8], filter: Filter<'_>) -> Result<Vec<Node>, Error> {
    let mut lister = Lister {
        filter,
        nodes: Vec::new(),
        seen: HashMap::new(),
        buffer: vec![0; BUFFER],
    };
    lister.member(dir, name, b"", 0)?;
    Ok(lister.nodes)
}

struct Lister<'a> {
    filter: Filter<'a>,
    nodes: Vec<Node>,
    seen: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl Lister<'_> {
    fn member(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<(), Error> {
        let ignored = self.filter.ignores(path);
        let Some(found) = stat(dir, name).map_err(failed("stat", path))? else {
            return Ok(());
        };
        let kind = file_type(&found);
        let is_dir = kind == FileType::Directory;
        if kind == FileType::Socket || ignored && !(is_dir && self.filter.takes_back()) {
            return Ok(());
        }
        let mut node = node(path, kind, &found);
        if is_dir {
            return self.directory(dir, name, node, ignored, depth);
        }
        if kind == FileType::Symlink {
            let link = readlinkat(dir, name, Vec::new()).map_err(failed("read", path))?;
            node.link = link.into_bytes();
        }
        if kind == FileType::RegularFile {
            self.file(dir, name, &mut node)?;
        }
        self.nodes.push(node);
        Ok(())
    }

    fn directory(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        mut node: Node,
        ignored: bool,
        depth: usize,
    ) -> Result<(), Error> {
        let path = node.path.clone();
        if depth > DEPTH_MAX {
            let path = String::from_utf8_lossy(&path).into_owned();
            return Err(Error::Deep { path });
        }
        let sub = open_subdir(dir, name).map_err(failed("open", &path))?;
        node.xattrs = xattrs(&sub).map_err(failed("read the attributes of", &path))?;
        let before = self.nodes.len();
        self.nodes.push(node);
        for name in names(&sub).map_err(failed("list", &path))? {
            self.member(sub.as_fd(), &name, &join(&path, &name), depth + 1)?;
        }
        // An ignored directory is only there for what is taken back below it.
        if ignored && self.nodes.len() == before + 1 {
            self.nodes.pop();
        }
        Ok(())
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], node: &mut Node) -> Result<(), Error> {
        let fd = open_file(dir, name, &node.path)?;
        let found = fstat(&fd).map_err(failed("stat", &node.path))?;
        if found.st_nlink > 1 {
            let first = self.seen.entry((found.st_dev, found.st_ino));
            let first = first.or_insert_with(|| node.path.clone());
            node.same_as = Some(first.clone()).filter(|first| *first != node.path);
        }
        node.xattrs = xattrs(&fd).map_err(failed("read the attributes of", &node.path))?;
        let digest = digest_of(File::from(fd), &mut self.buffer, |_| Ok(()));
        node.digest = Some(digest.map_err(failed("read", &node.path))?);
        Ok(())
    }
}

/// Opens a regular file and nothing else: no link is followed, no pipe waited for.
fn open_file(dir: impl AsFd, name: &[u8], path: &[u8]) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(dir, name, flags, Mode::empty()).map_err(failed("open", path))?;
    let found = fstat(&fd).map_err(failed("stat", path))?;
    if file_type(&found) != FileType::RegularFile {
        let path = String::from_utf8_lossy(path).into_owned();
        return Err(Error::Changed { path });
    }
    Ok(fd)
}

fn digest_of(
    mut file: File,
    buffer: &mut [u8],
    mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    loop {
        let n = file.read(buffer)?;
        if n == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..n]);
        sink(&buffer[..n])?;
    }
}

fn node(path: &[u8], kind: FileType, found: &Stat) -> Node {
    Node {
        path: path.to_vec(),
        kind,
        mode: found.st_mode & 0o7777,
        uid: found.st_uid,
        gid: found.st_gid,
        mtime: (found.st_mtime, found.st_mtime_nsec.cast_signed()),
        device: found.st_rdev,
        link: Vec::new(),
        xattrs: Vec::new(),
        digest: None,
        same_as: None,
    }
}

/// Who owns the copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Whoever owns the originals.
    Keep,
    /// User and group.
    Set(u32, u32),
}

impl Owner {
    /// User and group of a copy.
    pub fn of(self, node: &Node) -> (u32, u32) {
        match self {
            Self::Keep => (node.uid, node.gid),
            Self::Set(uid, gid) => (uid, gid),
        }
    }
}

/// Adds a tree to a key: everything but its times.
pub fn describe(nodes: &[Node], owner: Owner, key: &mut Key) {
    key.number(nodes.len() as u64);
    for node in nodes {
        key.field(&node.path);
        let (uid, gid) = owner.of(node);
        let kind = node.kind.as_raw_mode();
        for number in [kind, node.mode, uid, gid] {
            key.number(number.into());
        }
        key.number(node.device);
        key.field(&node.link);
        key.field(node.same_as.as_deref().unwrap_or_default());
        key.text(
            &node
                .digest
                .as_ref()
                .map(Digest::to_string)
                .unwrap_or_default(),
        );
        key.number(node.xattrs.len() as u64);
        for (name, value) in &node.xattrs {
            key.field(name);
            key.field(value);
        }
    }
}

/// How copies differ from their originals.
pub struct Shape<'a> {
    /// Who owns them.
    pub owner: Owner,
    /// Which permissions they get, from their own.
    pub mode: &'a dyn Fn(&Node) -> u32,
}

/// A place below a root where a tree is copied to.
pub struct Place<'a> {
    /// The root; links are resolved as if it were `/`.
    pub root: BorrowedFd<'a>,
    /// Path of the copy of the tree's own root.
    pub path: &'a [u8],
    /// Whether a directory that is there already keeps its owner and mode.
    pub keep_root: bool,
}

/// Copies a listed tree: `dir`/`name` is where it was listed.
pub fn copy(
    nodes: &[Node],
    dir: BorrowedFd<'_>,
    name: &[u8],
    to: &Place<'_>,
    shape: &Shape<'_>,
) -> Result<(), Error> {
    let mut buffer = vec![0; BUFFER];
    let mut times = Vec::new();
    for node in nodes {
        let whole = join_tree(to.path, &node.path);
        let (above, leaf) = parent(&whole);
        let at = |doing| failed::<Errno>(doing, &whole);
        if node.kind == FileType::Directory {
            let fresh = directory(to.root, above, leaf, &whole)?;
            if fresh || !(node.path.is_empty() && to.keep_root) {
                let fd = open_in_root(to.root, &whole, OFlags::RDONLY | OFlags::DIRECTORY)
                    .map_err(at("open"))?;
                metadata(&fd, node, shape).map_err(at("set the attributes of"))?;
                times.push((fd, stamps(node)));
            }
            continue;
        }
        let parent = open_in_root(to.root, above, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(at("open the directory of"))?;
        make_room(&parent, leaf).map_err(at("replace"))?;
        if let Some(first) = &node.same_as {
            let first = join_tree(to.path, first);
            let (dir, first) = self::parent(&first);
            let dir = open_in_root(to.root, dir, OFlags::RDONLY | OFlags::DIRECTORY);
            let linked = dir.and_then(|dir| linkat(&dir, first, &parent, leaf, AtFlags::empty()));
            linked.map_err(at("link"))?;
            continue;
        }
        leaf_node(node, dir, name, &parent, leaf, shape, &mut buffer, &whole)?;
    }
    // The deepest first: setting one's times does not change those of the one above.
    for (fd, times) in times.iter().rev() {
        futimens(fd, times).map_err(failed("set the times of", to.path))?;
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the two ends of one copy")]
fn leaf_node(
    node: &Node,
    dir: BorrowedFd<'_>,
    name: &[u8],
    parent: &OwnedFd,
    leaf: &[u8],
    shape: &Shape<'_>,
    buffer: &mut [u8],
    whole: &[u8],
) -> Result<(), Error> {
    let at = |doing| failed::<Errno>(doing, whole);
    let (uid, gid) = shape.owner.of(node);
    if node.kind == FileType::RegularFile {
        let from = source_file(node, dir, name)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let to = openat(parent, leaf, flags, Mode::from(0o600)).map_err(at("create"))?;
        let mut file = File::from(to);
        let digest = digest_of(from, buffer, |bytes| file.write_all(bytes));
        if Some(digest.map_err(failed("copy", whole))?) != node.digest {
            let path = String::from_utf8_lossy(&node.path).into_owned();
            return Err(Error::Changed { path });
        }
        let fd = OwnedFd::from(file);
        metadata(&fd, node, shape).map_err(at("set the attributes of"))?;
        return futimens(&fd, &stamps(node)).map_err(at("set the times of"));
    }
    if node.kind == FileType::Symlink {
        symlinkat(&node.link[..], parent, leaf).map_err(at("create"))?;
    } else {
        let mode = Mode::from((shape.mode)(node));
        mknodat(parent, leaf, node.kind, mode, node.device).map_err(at("create"))?;
    }
    let no_follow = AtFlags::SYMLINK_NOFOLLOW;
    chownat(
        parent,
        leaf,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        no_follow,
    )
    .map_err(at("set the owner of"))?;
    utimensat(parent, leaf, &stamps(node), no_follow).map_err(at("set the times of"))
}

/// Opens the original again; a directory that became a link meanwhile is not followed.
fn source_file(node: &Node, dir: BorrowedFd<'_>, name: &[u8]) -> Result<File, Error> {
    if node.path.is_empty() {
        return Ok(File::from(open_file(dir, name, &node.path)?));
    }
    let root = open_subdir(dir, name).map_err(failed("open", &node.path))?;
    let (above, leaf) = parent(&node.path);
    let mut dir = root;
    for part in above.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
        dir = open_subdir(&dir, part).map_err(failed("open", &node.path))?;
    }
    Ok(File::from(open_file(&dir, leaf, &node.path)?))
}

/// A path without its last component, and that.
pub fn parent(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Makes a directory, or finds it; whether it was made.
fn directory(root: BorrowedFd<'_>, above: &[u8], leaf: &[u8], whole: &[u8]) -> Result<bool, Error> {
    let at = |doing| failed::<Errno>(doing, whole);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    if leaf.is_empty() || open_in_root(root, whole, flags).is_ok() {
        return Ok(false);
    }
    let parent = open_in_root(root, above, flags).map_err(at("open the directory of"))?;
    if stat(&parent, leaf).map_err(at("stat"))?.is_some() {
        remove_all(&parent, leaf).map_err(at("replace"))?;
    }
    mkdirat(&parent, leaf, Mode::from(0o755)).map_err(at("create the directory"))?;
    Ok(true)
}

/// Removes what a copy replaces; a directory is never replaced by a file.
fn make_room(parent: &OwnedFd, leaf: &[u8]) -> Result<(), Errno> {
    match stat(parent, leaf)? {
        Some(found) if file_type(&found) == FileType::Directory => Err(Errno::ISDIR),
        Some(_) => remove_all(parent, leaf),
        None => Ok(()),
    }
}

fn metadata(fd: &OwnedFd, node: &Node, shape: &Shape<'_>) -> Result<(), Errno> {
    let (uid, gid) = shape.owner.of(node);
    fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    fchmod(fd, Mode::from((shape.mode)(node)))?;
    for (name, value) in &node.xattrs {
        match fsetxattr(fd, &name[..], value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn stamps(node: &Node) -> Timestamps {
    let time = Timespec {
        tv_sec: node.mtime.0,
        tv_nsec: node.mtime.1,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Makes a directory and what is missing above it, links resolved in the root; new ones get the
/// owner. Opens it.
pub fn make_dirs(root: BorrowedFd<'_>, path: &[u8], owner: (u32, u32)) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut reached = Vec::new();
    for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
        let above = reached.clone();
        reached = join(&above, part);
        let at = |doing| failed::<Errno>(doing, &reached);
        if open_in_root(root, &reached, flags).is_ok() {
            continue;
        }
        let parent = open_in_root(root, &above, flags).map_err(at("open the directory of"))?;
        match mkdirat(&parent, part, Mode::from(0o755)) {
            Ok(()) => {
                let made = open_subdir(&parent, part).map_err(at("open"))?;
                let (uid, gid) = owner;
                fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                    .map_err(at("set the owner of"))?;
                fchmod(&made, Mode::from(0o755)).map_err(at("set the mode of"))?;
            }
            // A file, or a link to something that is not there.
            Err(Errno::EXIST) => return Err(at("create the directory")(Errno::NOTDIR)),
            Err(errno) => return Err(at("create the directory")(errno)),
        }
    }
    open_in_root(root, &reached, flags).map_err(failed("open", path))
}

/// Takes every time later than `epoch` back to it, so that a rebuild gives the same bytes.
pub fn clamp_times(dir: &OwnedFd, epoch: i64) -> Result<(), Errno> {
    for name in names(dir)? {
        let Some(found) = stat(dir, &name)? else {
            continue;
        };
        if file_type(&found) == FileType::Directory {
            clamp_times(&open_subdir(dir, &name)?, epoch)?;
        }
        if found.st_mtime >= epoch {
            let time = Timespec {
                tv_sec: epoch,
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            utimensat(dir, &name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}
