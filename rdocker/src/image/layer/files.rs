//! File system calls under a directory descriptor, where nothing can lead out.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags, openat, openat2, statat,
    unlinkat,
};
use rustix::io::{Errno, Result};

/// A file system answer of `EAGAIN` to openat2(2) means that a rename raced it; so often it tries.
const TRIES: u32 = 64;

/// Splits a path into directory and last component, both without surrounding slashes.
///
/// The last component is empty for the root itself. `None` if a component is `..`: no honest
/// archive has one, and what it means depends on links.
pub fn split(path: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut parts: Vec<&[u8]> = path
        .split(|b| *b == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .collect();
    if parts.iter().any(|part| *part == b"..") {
        return None;
    }
    let leaf = parts.pop().unwrap_or_default().to_vec();
    Some((parts.join(&b'/'), leaf))
}

/// Opens a directory below `root`, with links resolved as if `root` were `/`.
///
/// Source: openat2(2), RESOLVE_IN_ROOT.
pub fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    open_in_root(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens anything below `root`, with links resolved as if `root` were `/`.
pub fn open_in_root(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if tries < TRIES => tries += 1,
            result => return result,
        }
    }
}

/// Opens the directory `name` in `dir`, and nothing else: no link is followed.
pub fn open_subdir(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// What is behind `name` in `dir`, following no link; `None` if there is nothing.
pub fn stat(dir: impl AsFd, name: &[u8]) -> Result<Option<Stat>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The type bits of a mode.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether this is overlay's mark for a deleted file: a character device 0:0.
pub fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Makes overlay's mark for a deleted file.
pub fn make_whiteout(dir: impl AsFd, name: &[u8]) -> Result<()> {
    rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)
}

/// Removes a file, or a directory with everything in it, following no link.
pub fn remove_all(dir: impl AsFd, name: &[u8]) -> Result<()> {
    match unlinkat(&dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        result => return result,
    }
    let sub = open_subdir(&dir, name)?;
    for entry in rustix::fs::Dir::read_from(&sub)? {
        let entry = entry?;
        let child = entry.file_name().to_bytes();
        if child != b"." && child != b".." {
            remove_all(&sub, child)?;
        }
    }
    unlinkat(&dir, name, AtFlags::REMOVEDIR)
}

/// The name of overlay's attribute for an opaque directory.
fn opaque_name(userxattr: bool) -> &'static str {
    if userxattr {
        "user.overlay.opaque"
    } else {
        "trusted.overlay.opaque"
    }
}

/// Marks an open directory as hiding what is below it.
pub fn set_opaque(dir: impl AsFd, userxattr: bool) -> Result<()> {
    rustix::fs::fsetxattr(dir, opaque_name(userxattr), b"y", XattrFlags::empty())
}

/// Whether an open directory hides what is below it.
pub fn is_opaque(dir: impl AsFd, userxattr: bool) -> Result<bool> {
    let mut value = [0; 4];
    match rustix::fs::fgetxattr(dir, opaque_name(userxattr), &mut value) {
        Ok(n) => Ok(value.get(..n) == Some(b"y")),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether a layer may carry this extended attribute.
///
/// `trusted.*` and `user.overlay.*` would steer overlay itself; other `security.*` are the
/// machine's, not the image's.
pub fn xattr_allowed(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// The extended attributes of an open file that a layer may carry, sorted by name.
pub fn xattrs(file: impl AsFd) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    // listxattr(2) takes no O_PATH descriptor, but a path through one.
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let mut names = vec![0u8; 64 << 10];
    let length = match rustix::fs::listxattr(&*path, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(errno) => return Err(errno),
    };
    let mut found = Vec::new();
    for name in names[..length]
        .split(|b| *b == 0)
        .filter(|name| xattr_allowed(name))
    {
        let mut value = vec![0u8; 64 << 10];
        match rustix::fs::getxattr(&*path, name, &mut value[..]) {
            Ok(n) => value.truncate(n),
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(errno),
        }
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_splits_into_plain_components() {
        let cases: &[(&str, Option<(&str, &str)>)] = &[
            ("a", Some(("", "a"))),
            ("./a/./b//c/", Some(("a/b", "c"))),
            ("/etc/passwd", Some(("etc", "passwd"))),
            ("./", Some(("", ""))),
            ("..", None),
            ("a/../b", None),
            ("a/..", None),
            ("..a/b..", Some(("..a", "b.."))),
        ];
        for (path, want) in cases {
            let got = split(path.as_bytes());
            let want = want.map(|(dir, leaf)| (dir.as_bytes().to_vec(), leaf.as_bytes().to_vec()));
            assert_eq!(got, want, "{path}");
        }
    }

    #[test]
    fn only_harmless_attributes_are_taken() {
        for (name, allowed) in [
            ("user.a", true),
            ("security.capability", true),
            ("user.overlay.opaque", false),
            ("trusted.overlay.redirect", false),
            ("security.selinux", false),
            ("system.posix_acl_access", false),
        ] {
            assert_eq!(xattr_allowed(name.as_bytes()), allowed, "{name}");
        }
    }
}
