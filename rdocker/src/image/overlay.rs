//! A container's root: an overlay of an image's layers, an init layer and a writable directory.
//!
//! In the container's directory:
//!
//! ```text
//! lower.json  the layers below, lowest first, and whether overlay keeps its marks in user xattrs
//! init/       /.dockerenv and the files that rdocker mounts over: neither diff nor commit sees them
//! diff/       what the container changed (upperdir)
//! work/       overlay's own
//! merged/     where the root is mounted
//! ```
//!
//! Source: kernel, filesystems/overlayfs.rst; mount_setattr(2), fsconfig(2).

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
};
use serde::{Deserialize, Serialize};

use crate::host::in_first_user_namespace;
use crate::store::record;

use super::{Error, Image, Images, Result};

/// The most layers that one overlay takes (OVL_MAX_STACK).
pub const LAYERS_MAX: usize = 500;
/// fsconfig(2) refuses longer strings.
const FSCONFIG_STRING_MAX: usize = 255;
/// A page holds all options of mount(2).
const MOUNT_OPTIONS_MAX: usize = 4095;
/// What statfs(2) says of a file on overlayfs (linux/magic.h).
const OVERLAYFS_SUPER_MAGIC: rustix::fs::FsWord = 0x794c_7630;
const RECORD: &str = "lower.json";

/// What a container's root is stacked on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lower {
    /// The layers' directories, lowest first; the init layer is not among them.
    pub layers: Vec<PathBuf>,
    /// Overlay's marks are `user.overlay.*`, because this is not the first user namespace.
    pub userxattr: bool,
}

/// Which way a root is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// fsopen(2) and one `lowerdir+` for each layer, Linux 6.8.
    New,
    /// mount(2), whose options must fit in a page.
    Old,
}

impl Images<'_> {
    /// Makes the directories of a container's root and mounts it; answers where.
    ///
    /// The caller holds the image for the container ([`Images::hold`]) before. A second call
    /// after [`unmount_rootfs`] is the same as [`remount_rootfs`].
    pub fn mount_rootfs(&self, image: &Image, container_dir: &Path) -> Result<PathBuf> {
        let lower = Lower {
            layers: image
                .layers
                .iter()
                .map(|layer| layer.path.clone())
                .collect(),
            userxattr: !in_first_user_namespace(),
        };
        prepare(&lower, container_dir)?;
        remount_rootfs(container_dir)
    }
}

/// Mounts layers, lowest first, in a directory of its own; answers where.
///
/// The directory gets `diff`, `work` and `merged` and nothing else: there is no init layer, so
/// what is written is exactly what the next layer has.
pub fn mount_layers(layers: &[PathBuf], dir: &Path) -> Result<PathBuf> {
    let lower = Lower {
        layers: layers.to_vec(),
        userxattr: !in_first_user_namespace(),
    };
    for (name, mode) in [
        ("", 0o700),
        ("work", 0o700),
        ("merged", 0o700),
        ("diff", 0o755),
    ] {
        let path = dir.join(name);
        make_dir(&path, mode)?;
    }
    copy_root_metadata(&lower, &dir.join("diff"))?;
    let mut lowers: Vec<PathBuf> = lower.layers.iter().rev().cloned().collect();
    if lowers.is_empty() {
        // Overlay wants something below, also for an image that starts from nothing.
        let nothing = dir.join("nothing");
        make_dir(&nothing, 0o755)?;
        lowers.push(nothing);
    }
    let merged = dir.join("merged");
    mount_stack(lowers, lower.userxattr, dir, &merged)?;
    Ok(merged)
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::io("create directory", &path.display())(error))
        }
        _ => Ok(()),
    }
}

/// Mounts the root of a container again, from what its directory says.
pub fn remount_rootfs(container_dir: &Path) -> Result<PathBuf> {
    let lower = lower(container_dir)?;
    let merged = container_dir.join("merged");
    mount_overlay(&lower, container_dir, &merged)?;
    Ok(merged)
}

/// Takes the root of a container off; one that is not mounted is fine.
///
/// The mount disappears from the tree at once, and for good when its last user is gone.
pub fn unmount_rootfs(container_dir: &Path) -> Result<()> {
    let merged = container_dir.join("merged");
    loop {
        // EINVAL: not a mount point. A second mount may lie on the first, so once is not enough.
        match unmount(&merged, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(Error::io("unmount", &merged.display())(errno.into())),
        }
    }
}

/// What a container's root is stacked on.
pub fn lower(container_dir: &Path) -> Result<Lower> {
    let path = container_dir.join(RECORD);
    record::read(&path)?
        .ok_or_else(|| Error::io("open", &path.display())(io::ErrorKind::NotFound.into()))
}

fn prepare(lower: &Lower, dir: &Path) -> Result<()> {
    let make = |name: &str, mode| make_dir(&dir.join(name), mode);
    make("work", 0o700)?;
    make("merged", 0o700)?;
    make("init", 0o755)?;
    // The upper directory's mode is the mode of the container's `/`: take it from the image.
    make("diff", 0o755)?;
    copy_root_metadata(lower, &dir.join("diff"))?;
    copy_root_metadata(lower, &dir.join("init"))?;
    init_layer(&dir.join("init"))?;
    record::write(&dir.join(RECORD), lower)?;
    Ok(())
}

fn copy_root_metadata(lower: &Lower, to: &Path) -> Result<()> {
    let Some(top) = lower.layers.last() else {
        return Ok(());
    };
    let meta = fs::metadata(top).map_err(Error::io("stat", &top.display()))?;
    let at = Error::io("set the owner and mode of", &to.display());
    use std::os::unix::fs::MetadataExt;
    std::os::unix::fs::chown(to, Some(meta.uid()), Some(meta.gid())).map_err(&at)?;
    let mode = fs::Permissions::from_mode(meta.mode() & 0o7777);
    fs::set_permissions(to, mode).map_err(&at)
}

/// The files that every container has or gets mounted over, as Docker's init layer has them.
fn init_layer(init: &Path) -> Result<()> {
    let at = |path: &Path| Error::io("create", &path.display());
    for name in ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"] {
        let path = init.join(name);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&path)
            .map_err(at(&path))?;
    }
    let files = [
        ".dockerenv",
        "dev/console",
        "etc/hosts",
        "etc/hostname",
        "etc/resolv.conf",
    ];
    for name in files {
        let path = init.join(name);
        fs::write(&path, "").map_err(at(&path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(at(&path))?;
    }
    let mtab = init.join("etc/mtab");
    match symlink("/proc/mounts", &mtab) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at(&mtab)(error)),
        _ => Ok(()),
    }
}

fn mount_overlay(lower: &Lower, dir: &Path, merged: &Path) -> Result<()> {
    // Highest first, as overlay reads them; the init layer is the highest.
    let mut lowers = vec![dir.join("init")];
    lowers.extend(lower.layers.iter().rev().cloned());
    mount_stack(lowers, lower.userxattr, dir, merged)
}

fn mount_stack(lowers: Vec<PathBuf>, userxattr: bool, dir: &Path, merged: &Path) -> Result<()> {
    if lowers.len() > LAYERS_MAX {
        let layers = lowers.len() - 1;
        return Err(Error::InvalidArgument(format!(
            "the image has {layers} layers, and overlay takes {} at most",
            LAYERS_MAX - 1
        )));
    }
    let stack = Stack {
        lowers,
        dir,
        userxattr,
    };
    match stack.mount(merged, Way::New) {
        // ENOSYS: no fsopen. EINVAL: no `lowerdir+` before Linux 6.8.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => stack.mount(merged, Way::Old),
        result => result,
    }
    .map_err(|errno| {
        let magic = rustix::fs::statfs(dir).map(|fs| fs.f_type);
        if errno == rustix::io::Errno::INVAL && magic == Ok(OVERLAYFS_SUPER_MAGIC) {
            let dir = dir.display().to_string();
            return Error::OnOverlay { dir };
        }
        Error::io(super::error::MOUNT_ROOT, &merged.display())(errno.into())
    })
}

struct Stack<'a> {
    lowers: Vec<PathBuf>,
    dir: &'a Path,
    userxattr: bool,
}

/// `index`, `metacopy` and `redirect_dir` off: else the upper directory alone is not the change.
const PLAIN: [(&str, &str); 3] = [
    ("index", "off"),
    ("metacopy", "off"),
    ("redirect_dir", "off"),
];

impl Stack<'_> {
    /// The options of every root. With `userxattr` the kernel never redirects, and refuses to be
    /// told so (overlayfs.rst, "Redirects").
    fn plain(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let userxattr = self.userxattr;
        PLAIN
            .into_iter()
            .filter(move |(key, _)| !(userxattr && *key == "redirect_dir"))
    }

    fn mount(&self, merged: &Path, way: Way) -> rustix::io::Result<()> {
        match way {
            Way::New => self.mount_new(merged),
            Way::Old => self.mount_old(merged),
        }
    }

    fn mount_new(&self, merged: &Path) -> rustix::io::Result<()> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let mut open = Vec::new();
        for lower in &self.lowers {
            let short = shorten(lower, &mut open)?;
            fsconfig_set_string(&fs, "lowerdir+", &short)?;
        }
        for (key, name) in [("upperdir", "diff"), ("workdir", "work")] {
            let short = shorten(&self.dir.join(name), &mut open)?;
            fsconfig_set_string(&fs, key, &short)?;
        }
        for (key, value) in self.plain() {
            fsconfig_set_string(&fs, key, value)?;
        }
        if self.userxattr {
            rustix::mount::fsconfig_set_flag(&fs, "userxattr")?;
        }
        fsconfig_create(&fs)?;
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        move_mount(
            &mount,
            "",
            CWD,
            merged,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
    }

    fn mount_old(&self, merged: &Path) -> rustix::io::Result<()> {
        let mut open = Vec::new();
        let join = |paths: &[PathBuf]| {
            let texts = paths
                .iter()
                .map(|path| path.display().to_string().replace(':', "\\:"));
            texts.collect::<Vec<_>>().join(":")
        };
        let mut lowers = join(&self.lowers);
        if lowers.len() > MOUNT_OPTIONS_MAX / 2 {
            // Descriptors make short names: about 200 layers fit in the page.
            let fds = self
                .lowers
                .iter()
                .map(|path| by_descriptor(path, &mut open));
            lowers = join(&fds.collect::<rustix::io::Result<Vec<_>>>()?);
        }
        let mut options = format!(
            "lowerdir={lowers},upperdir={},workdir={}",
            self.dir.join("diff").display(),
            self.dir.join("work").display()
        );
        for (key, value) in self.plain() {
            options.push_str(&format!(",{key}={value}"));
        }
        if self.userxattr {
            options.push_str(",userxattr");
        }
        if options.len() > MOUNT_OPTIONS_MAX {
            return Err(rustix::io::Errno::TOOBIG);
        }
        let options = std::ffi::CString::new(options).map_err(|_| rustix::io::Errno::INVAL)?;
        mount(
            "overlay",
            merged,
            "overlay",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
    }
}

/// A path that fsconfig(2) takes: itself, or by descriptor if it is too long.
fn shorten(path: &Path, open: &mut Vec<OwnedFd>) -> rustix::io::Result<PathBuf> {
    if path.as_os_str().len() <= FSCONFIG_STRING_MAX {
        return Ok(path.to_owned());
    }
    by_descriptor(path, open)
}

fn by_descriptor(path: &Path, open: &mut Vec<OwnedFd>) -> rustix::io::Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    open.push(fd);
    Ok(short)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stack of `count` lower directories, each with one file of its number.
    fn stack(dir: &Path, count: usize) -> Vec<PathBuf> {
        for name in ["diff", "work", "merged"] {
            fs::create_dir(dir.join(name)).expect("a fresh directory");
        }
        let layer = |n: usize| {
            let path = dir.join(format!("layer{}-{n}", "x".repeat(40)));
            fs::create_dir(&path).expect("a fresh directory");
            fs::write(path.join(format!("f{n}")), "").expect("a fresh file");
            path
        };
        (0..count).map(layer).collect()
    }

    #[test]
    fn both_ways_of_mounting_show_the_same_files() {
        // 150 layers need descriptors for names in the old way.
        for (way, count) in [
            (Way::New, 3),
            (Way::New, 150),
            (Way::Old, 3),
            (Way::Old, 150),
        ] {
            let dir = tempfile::tempdir().expect("a directory");
            let lowers = stack(dir.path(), count);
            let merged = dir.path().join("merged");
            let userxattr = !in_first_user_namespace();
            let stack = Stack {
                lowers,
                dir: dir.path(),
                userxattr,
            };
            let mounted = stack.mount(&merged, way);
            let shown = fs::read_dir(&merged).map(Iterator::count).unwrap_or(0);
            unmount_rootfs(dir.path()).expect("it is ours");
            assert_eq!((mounted, shown), (Ok(()), count), "{way:?} {count}");
        }
    }

    #[test]
    fn a_root_on_overlayfs_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let lowers = stack(dir.path(), 1);
        let userxattr = !in_first_user_namespace();
        let merged = dir.path().join("merged");
        mount_stack(lowers, userxattr, dir.path(), &merged).expect("a plain root");
        let lowers = stack(&merged, 1);
        let upper = merged.join("merged");
        let refused = mount_stack(lowers, userxattr, &merged, &upper);
        unmount_rootfs(dir.path()).expect("it is ours");
        let error = refused.expect_err("an overlay is no place for one's upper directory");
        assert!(error.to_string().contains("is on overlayfs"), "{error}");
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("--data-root"))
        );
    }

    #[test]
    fn more_layers_than_overlay_takes_are_refused_by_number() {
        let dir = tempfile::tempdir().expect("a directory");
        let lower = Lower {
            layers: vec![PathBuf::from("/"); LAYERS_MAX],
            userxattr: false,
        };
        let error = mount_overlay(&lower, dir.path(), dir.path()).expect_err("500 and one");
        assert!(error.to_string().contains("500 layers"), "{error}");
    }
}
