//! Copy-up: an empty volume gets what the image has at its place.
//!
//! The source path is the image's and may be hostile: it is resolved inside the root
//! (openat2 `RESOLVE_IN_ROOT`), and below it no symlink is followed (CVE-2022-23648).

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};

use crate::error::{Error, Result};

/// Copies `target` of the mounted `root` into the volume directory `data`, with owners, modes and
/// file capabilities, unless the volume has files already or the image has none there.
///
/// # Errors
/// A failed system call on either side.
pub fn copy_up(root: &Path, target: &str, data: &Path) -> Result<()> {
    let mut entries = fs::read_dir(data).map_err(|errno| Error::host("read", data, errno))?;
    if entries.next().is_some() {
        return Ok(());
    }
    let Some(source) = open_in_root(root, target)? else {
        return Ok(());
    };
    let path = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    let meta = fs::metadata(&path).map_err(|errno| Error::host("stat", &path, errno))?;
    let inside = Path::new(target);
    copy_children(&path, data).map_err(|errno| Error::host("copy up", inside, errno))?;
    copy_ownership(&meta, data).map_err(|errno| Error::host("copy up", inside, errno))
}

fn open_in_root(root: &Path, target: &str) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(root, flags, Mode::empty())
        .map_err(|errno| Error::host("open", root, errno))?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = target.trim_start_matches('/');
    match rustix::fs::openat2(&dir, inside, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(Error::host("open", Path::new(target), errno)),
    }
}

fn copy_children(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        let meta = fs::symlink_metadata(&source)?;
        let kind = meta.file_type();
        if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &copy)?;
            lchown(&copy, Some(meta.uid()), Some(meta.gid()))?;
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&copy)?;
            copy_children(&source, &copy)?;
        } else if kind.is_file() {
            io::copy(&mut File::open(&source)?, &mut File::create_new(&copy)?)?;
        } else if let Some(special) = special_type(kind) {
            let device = meta.rdev();
            rustix::fs::mknodat(CWD, &copy, special, Mode::from_raw_mode(0o600), device)?;
        } else {
            // A socket means nothing without the process that made it.
            continue;
        }
        copy_ownership(&meta, &copy)?;
        copy_capability(&source, &copy)?;
    }
    Ok(())
}

fn special_type(kind: fs::FileType) -> Option<FileType> {
    if kind.is_fifo() {
        Some(FileType::Fifo)
    } else if kind.is_char_device() {
        Some(FileType::CharacterDevice)
    } else if kind.is_block_device() {
        Some(FileType::BlockDevice)
    } else {
        None
    }
}

/// Owner first: chown(2) clears the set-user-ID bit that the mode then sets.
fn copy_ownership(meta: &fs::Metadata, to: &Path) -> io::Result<()> {
    chown(to, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))
}

fn copy_capability(from: &Path, to: &Path) -> io::Result<()> {
    const NAME: &str = "security.capability";
    // The largest vfs_cap_data, revision 3, has 24 bytes: linux/capability.h.
    let mut value = [0_u8; 24];
    match rustix::fs::lgetxattr(from, NAME, &mut value) {
        Ok(length) => {
            let flags = rustix::fs::XattrFlags::empty();
            Ok(rustix::fs::lsetxattr(to, NAME, &value[..length], flags)?)
        }
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_volume_gets_the_images_files_and_a_full_one_keeps_its_own() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("var/data/sub")).unwrap();
        fs::write(root.path().join("var/data/sub/f"), "x").unwrap();
        symlink("/etc/passwd", root.path().join("var/data/link")).unwrap();
        fs::set_permissions(
            root.path().join("var/data"),
            fs::Permissions::from_mode(0o1777),
        )
        .unwrap();
        let volume = tempfile::tempdir().unwrap();
        copy_up(root.path(), "/var/data", volume.path()).unwrap();
        assert_eq!(
            fs::read_to_string(volume.path().join("sub/f")).unwrap(),
            "x"
        );
        let link = fs::read_link(volume.path().join("link")).unwrap();
        assert_eq!(link, Path::new("/etc/passwd"), "a link is copied as a link");
        assert_eq!(fs::metadata(volume.path()).unwrap().mode() & 0o7777, 0o1777);
        fs::write(root.path().join("var/data/new"), "y").unwrap();
        copy_up(root.path(), "/var/data", volume.path()).unwrap();
        assert!(!volume.path().join("new").exists());
    }

    #[test]
    fn a_target_that_is_a_link_to_the_host_is_looked_up_inside_the_root() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "s").unwrap();
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("data")).unwrap();
        let volume = tempfile::tempdir().unwrap();
        copy_up(root.path(), "/data", volume.path()).unwrap();
        assert_eq!(fs::read_dir(volume.path()).unwrap().count(), 0);
    }
}
