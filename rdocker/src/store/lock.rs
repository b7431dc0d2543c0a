//! Advisory locks on files: flock(2), which the kernel drops when the holder dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::{Result, io_at};

/// A held lock; dropping it, or dying, releases it.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Waits until no one else holds the lock. The file is made if it is missing (mode 0600).
    pub fn exclusive(path: &Path) -> Result<FileLock> {
        let file = open(path)?;
        file.lock().map_err(io_at("lock", path))?;
        Ok(FileLock { file })
    }

    /// Waits until no one holds the lock exclusively.
    pub fn shared(path: &Path) -> Result<FileLock> {
        let file = open(path)?;
        file.lock_shared().map_err(io_at("lock", path))?;
        Ok(FileLock { file })
    }

    /// Takes the lock, or answers `None` at once if someone else has it.
    pub fn try_exclusive(path: &Path) -> Result<Option<FileLock>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(FileLock { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(io_at("lock", path)(error)),
        }
    }

    /// Whether the locked file is still the one at `path`: while the lock was waited for, its holder
    /// may have removed it.
    pub fn is_at(&self, path: &Path) -> bool {
        let held = self.file.metadata().map(|m| (m.dev(), m.ino())).ok();
        let there = path.symlink_metadata().map(|m| (m.dev(), m.ino())).ok();
        held.is_some() && held == there
    }

    /// The locked file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(io_at("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_not_given_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = FileLock::exclusive(&path).unwrap();
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        drop(held);
        assert!(FileLock::try_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn a_lock_on_a_removed_file_is_told_from_one_on_its_successor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let old = FileLock::exclusive(&path).unwrap();
        assert!(old.is_at(&path));
        std::fs::remove_file(&path).unwrap();
        assert!(!old.is_at(&path));
        let new = FileLock::exclusive(&path).unwrap();
        assert!(new.is_at(&path) && !old.is_at(&path));
    }

    #[test]
    fn readers_share_a_lock_and_keep_a_writer_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let one = FileLock::shared(&path).unwrap();
        let two = FileLock::shared(&path).unwrap();
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        drop((one, two));
        assert!(FileLock::try_exclusive(&path).unwrap().is_some());
    }
}
