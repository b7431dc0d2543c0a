//! `docker diff`: what a container changed against its image.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::super::overlay::lower;
use super::super::{Error, Result};
use super::files::{file_type, is_opaque, is_whiteout, open_subdir, stat};
use super::graft::{Below, open_root};
use super::pack::{join, names};

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// `C`: it is another file, or something in it changed.
    Modified,
    /// `A`: the image does not have it.
    Added,
    /// `D`: the image has it, the container not.
    Deleted,
}

impl ChangeKind {
    /// Docker's letter.
    pub fn letter(self) -> char {
        match self {
            ChangeKind::Modified => 'C',
            ChangeKind::Added => 'A',
            ChangeKind::Deleted => 'D',
        }
    }

    /// The number in the engine's API.
    pub fn number(self) -> u8 {
        match self {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        }
    }
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The path in the container, absolute; bytes that are not UTF-8 are replaced.
    pub path: String,
}

/// The changes of a container, sorted by path, told by its writable directory.
pub fn changes(container_dir: &Path) -> Result<Vec<Change>> {
    let lower = lower(container_dir)?;
    // The init layer is not part of the image: what it covers is shown as the image's own.
    let below = Below::open(&lower.layers, lower.userxattr)?;
    let upper = open_root(&container_dir.join("diff"))?;
    let mut walk = Walk {
        below,
        userxattr: lower.userxattr,
        changes: Vec::new(),
    };
    walk.directory(&upper, b"")
        .map_err(|errno| Error::io("compare", &container_dir.display())(errno.into()))?;
    walk.changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(walk.changes)
}

struct Walk {
    below: Below,
    userxattr: bool,
    changes: Vec<Change>,
}

impl Walk {
    fn directory(&mut self, dir: &OwnedFd, path: &[u8]) -> std::result::Result<(), Errno> {
        let here = names(dir)?;
        if is_opaque(dir, self.userxattr)? {
            for name in self
                .below
                .names(path)?
                .iter()
                .filter(|name| !here.contains(name))
            {
                self.push(ChangeKind::Deleted, &join(path, name));
            }
        }
        for name in &here {
            let whole = join(path, name);
            let Some(found) = stat(dir, name)? else {
                continue;
            };
            if is_whiteout(&found) {
                self.push(ChangeKind::Deleted, &whole);
                continue;
            }
            let known = self.below.find(&whole)?.is_some();
            self.push(
                if known {
                    ChangeKind::Modified
                } else {
                    ChangeKind::Added
                },
                &whole,
            );
            if file_type(&found) == FileType::Directory {
                self.directory(&open_subdir(dir, name)?, &whole)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, kind: ChangeKind, path: &[u8]) {
        let path = format!("/{}", String::from_utf8_lossy(path));
        self.changes.push(Change { kind, path });
    }
}
