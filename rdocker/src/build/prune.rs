//! What builds keep on disk: steps of the cache, and the directories of `RUN --mount=type=cache`.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{self, Row};
use super::mounts::caches_dir;
use crate::error::Result;
use crate::host::Host;
use crate::store::Store;
use crate::store::gc::{Parts, remove_tree};
use crate::store::lock::FileLock;

/// What builds keep.
#[derive(Debug, Default)]
pub struct Caches {
    /// Steps.
    pub steps: Vec<Row>,
    /// Directories: where, name, bytes.
    pub mounts: Vec<(PathBuf, String, u64)>,
}

impl Caches {
    /// Bytes that would be free without them: each layer once, and none that an image has too.
    pub fn reclaimable(&self) -> u64 {
        self.sum(|row| !row.shared)
    }

    /// Bytes that they take, those that images have too counted.
    pub fn total(&self) -> u64 {
        self.sum(|_| true)
    }

    fn sum(&self, counts: impl Fn(&Row) -> bool) -> u64 {
        let mut layers: Vec<(&str, u64)> = self
            .steps
            .iter()
            .filter(|row| counts(row))
            .filter_map(|row| Some((row.chain.as_deref()?, row.size)))
            .collect();
        layers.sort_unstable();
        layers.dedup();
        let steps: u64 = layers.iter().map(|(_, size)| size).sum();
        steps + self.mounts.iter().map(|(_, _, size)| size).sum::<u64>()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.steps.len() + self.mounts.len()
    }
}

/// Measures what builds keep.
///
/// # Errors
/// The store cannot be read.
pub fn usage(host: &Host, store: &Store, tree_size: impl Fn(&Path) -> u64) -> Result<Caches> {
    let mut mounts = Vec::new();
    for entry in fs::read_dir(caches_dir(host))
        .into_iter()
        .flatten()
        .flatten()
    {
        let dir = entry.path();
        let name = fs::read_to_string(dir.join("id")).unwrap_or_default();
        let size = tree_size(&dir.join("data"));
        mounts.push((dir, name, size));
    }
    mounts.sort();
    Ok(Caches {
        steps: cache::rows(store).map_err(crate::error::Error::from)?,
        mounts,
    })
}

/// Forgets the chosen steps and, with `mounts`, every cache directory that no step uses now;
/// gives the bytes that are free.
///
/// # Errors
/// The store cannot be changed.
pub fn prune(store: &Store, keys: &[String], mounts: &[(PathBuf, String, u64)]) -> Result<u64> {
    cache::forget(store, keys).map_err(crate::error::Error::from)?;
    let mut freed = store.collect(Parts::Old)?.bytes;
    for (dir, _, size) in mounts {
        let Some(_idle) = FileLock::try_exclusive(&dir.join("lock"))? else {
            continue;
        };
        remove_tree(dir)?;
        freed += size;
    }
    Ok(freed)
}
