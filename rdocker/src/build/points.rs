//! Mount points that an image lacks, made in a layer of their own below the step's.
//!
//! The runtime would make them in the writable layer, and they would end up in the image. Below
//! it they are there for the time of one `RUN`, and there is nothing to clean up afterwards: no
//! path that the step may have replaced by a link is ever removed again
//! (CVE-2024-23652).

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown};

use crate::error::{Error, Result};
use crate::image::layer::files::open_in_root;
use crate::image::layer::pack::join;

/// What a mount point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// For a directory.
    Directory,
    /// For a file.
    File,
}

/// Makes in `layer` every point that `root` lacks; whether there was one.
///
/// Directories above a point look as they do in `root`, because the layer hides those.
pub fn make(root: BorrowedFd<'_>, layer: &Path, points: &[(String, Point)]) -> Result<bool> {
    let mut made = false;
    for (path, point) in points {
        let path = path.trim_matches('/').as_bytes();
        if !open_in_root(root, path, OFlags::PATH).is_ok_and(|_| !path.is_empty())
            && !path.is_empty()
        {
            one(root, layer, path, *point)?;
            made = true;
        }
    }
    if made {
        look_alike(root, b"", layer)?;
    }
    Ok(made)
}

fn one(root: BorrowedFd<'_>, layer: &Path, path: &[u8], point: Point) -> Result<()> {
    let mut parts: Vec<&[u8]> = path
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty())
        .collect();
    let leaf = parts.pop().unwrap_or_default();
    let mut reached: Vec<u8> = Vec::new();
    for part in parts {
        let next = join(&reached, part);
        // A link leads to another directory of the image, and the point belongs there.
        reached = match open_in_root(root, &next, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(fd) => real_path(root, fd.as_fd())?,
            Err(_) => next,
        };
        let here = in_layer(layer, &reached);
        std::fs::create_dir_all(&here)
            .map_err(|errno| Error::host("create directory", &here, errno))?;
    }
    let mut above = Vec::new();
    for part in reached
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty())
    {
        above = join(&above, part);
        look_alike(root, &above, &in_layer(layer, &above))?;
    }
    let here = in_layer(layer, &join(&reached, leaf));
    let result = match point {
        Point::Directory => std::fs::create_dir_all(&here),
        Point::File => File::options()
            .create(true)
            .append(true)
            .open(&here)
            .map(drop),
    };
    result.map_err(|errno| Error::host("create the mount point", &here, errno))
}

fn in_layer(layer: &Path, path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    layer.join(std::ffi::OsStr::from_bytes(path))
}

/// Where an open directory is below `root`: nobody else changes it meanwhile.
pub fn real_path(root: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    let read = |fd: BorrowedFd<'_>| {
        let link = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        std::fs::read_link(&link).map_err(|errno| Error::host("read", &link, errno))
    };
    let (root, path) = (read(root)?, read(fd)?);
    let below = path.strip_prefix(&root).map_err(|_| {
        Error::Invalid(format!(
            "{} is outside of {}",
            path.display(),
            root.display()
        ))
    })?;
    Ok(below.as_os_str().as_bytes().to_vec())
}

/// Gives a directory of the layer the owner and mode of the one in the root, if there is one.
fn look_alike(root: BorrowedFd<'_>, path: &[u8], here: &Path) -> Result<()> {
    let fail = |errno: rustix::io::Errno| Error::host("set the owner and mode of", here, errno);
    let Ok(fd) = open_in_root(root, path, OFlags::RDONLY | OFlags::DIRECTORY) else {
        return Ok(());
    };
    let meta = File::from(fd)
        .metadata()
        .map_err(|errno| Error::host("stat", here, errno))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = rustix::fs::open(here, flags, Mode::empty()).map_err(fail)?;
    fchown(
        &target,
        Some(Uid::from_raw(meta.uid())),
        Some(Gid::from_raw(meta.gid())),
    )
    .map_err(fail)?;
    fchmod(&target, Mode::from(meta.mode() & 0o7777)).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn missing_points_are_made_where_the_image_would_have_them() {
        let (root, layer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let outside = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        std::fs::create_dir_all(at("var/real")).unwrap();
        std::fs::create_dir(at("proc")).unwrap();
        std::fs::set_permissions(at("var"), std::fs::Permissions::from_mode(0o711)).unwrap();
        symlink("/var/real", at("link")).unwrap();
        symlink(outside.path(), at("escape")).unwrap();
        symlink("nowhere", at("var/dangling")).unwrap();
        let fd = rustix::fs::open(root.path(), OFlags::RDONLY, Mode::empty()).unwrap();
        let points = [
            ("/proc", Point::Directory),
            ("/link/a/b", Point::Directory),
            ("/escape/c", Point::File),
            ("/var/dangling", Point::File),
        ];
        let points = points.map(|(path, point)| (path.to_owned(), point));
        assert!(make(fd.as_fd(), layer.path(), &points).unwrap());
        let made = |path: &str| layer.path().join(path);
        assert!(made("var/real/a/b").is_dir() && made("var/dangling").is_file());
        assert!(!made("proc").exists() && made("escape/c").is_file());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        assert_eq!(
            std::fs::metadata(made("var")).unwrap().mode() & 0o777,
            0o711
        );
        assert!(!make(fd.as_fd(), layer.path(), &points[..1]).unwrap());
    }
}
