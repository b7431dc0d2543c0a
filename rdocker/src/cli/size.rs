//! How much a directory holds.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::volume::Volume;

/// Bytes of all regular files below `dir`; a file with several links counts once.
pub fn tree(dir: &Path) -> u64 {
    let mut seen = BTreeSet::new();
    walk(dir, &mut seen)
}

/// Bytes of a volume; none if its files are another file system's.
pub fn volume(volume: &Volume) -> u64 {
    match volume.is_file_system() {
        true => 0,
        false => tree(&volume.mountpoint),
    }
}

fn walk(dir: &Path, seen: &mut BTreeSet<(u64, u64)>) -> u64 {
    let mut total = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.path().symlink_metadata() else {
            continue;
        };
        if meta.is_dir() {
            total += walk(&entry.path(), seen);
        } else if meta.is_file() && (meta.nlink() == 1 || seen.insert((meta.dev(), meta.ino()))) {
            total += meta.len();
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hard_link_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/f"), "12345").unwrap();
        fs::hard_link(dir.path().join("sub/f"), dir.path().join("g")).unwrap();
        assert_eq!(tree(dir.path()), 5);
    }
}
