//! Collection of what nothing needs any more.
//!
//! Reachable is what an image, a hold, the build cache or a live lease names. Rows go first, in one transaction;
//! files without a row go second, in another: they are renamed into `trash/` while no one else
//! can write, and deleted afterwards without any lock. A crash in between leaves only files
//! without rows, and the next collection finds them.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::Transaction;

use super::digest::Digest;
use super::lock::FileLock;
use super::{Error, Result, Store, io_at};

/// How long an abandoned download waits for its pull to be repeated.
const KEEP_PARTS: Duration = Duration::from_secs(7 * 24 * 3600);

/// Which unfinished downloads a collection removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// Those that nobody continued for a week.
    Old,
    /// All that nobody works on now.
    All,
}

/// What a collection removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Chain ids of the layers.
    pub layers: Vec<Digest>,
    /// Bytes of layers, blobs and parts.
    pub bytes: u64,
}

impl Store {
    /// Removes what is unreachable, and what crashed processes left.
    pub fn collect(&self, parts: Parts) -> Result<Collected> {
        self.reap_leases()?;
        let mut collected = self.write(delete_rows)?;
        self.write(|t| self.sweep(t))?;
        collected.bytes += self.remove_parts(parts)?;
        self.empty_trash()?;
        Ok(collected)
    }

    /// Moves every layer and blob without a row to the trash.
    fn sweep(&self, t: &Transaction<'_>) -> Result<()> {
        let layers = known(t, "SELECT substr(chain, instr(chain, ':') + 1) FROM layers")?;
        self.sweep_dir(&self.root.join("layers"), &layers)?;
        let blobs = known(
            t,
            "SELECT substr(digest, instr(digest, ':') + 1) FROM blobs",
        )?;
        self.sweep_dir(&self.root.join("blobs/sha256"), &blobs)?;
        self.sweep_dir(&self.root.join("blobs/sha512"), &blobs)
    }

    fn sweep_dir(&self, dir: &Path, known: &HashSet<String>) -> Result<()> {
        for entry in fs::read_dir(dir).map_err(io_at("list", dir))? {
            let entry = entry.map_err(io_at("list", dir))?;
            if entry
                .file_name()
                .to_str()
                .is_none_or(|name| !known.contains(name))
            {
                self.to_trash(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes abandoned downloads and answers their bytes.
    fn remove_parts(&self, parts: Parts) -> Result<u64> {
        let dir = self.root.join("ingest");
        let mut bytes = 0;
        for entry in fs::read_dir(&dir).map_err(io_at("list", &dir))? {
            let path = entry.map_err(io_at("list", &dir))?.path();
            let Ok(meta) = fs::metadata(&path) else {
                continue;
            };
            let age = meta
                .modified()
                .ok()
                .and_then(|at| SystemTime::now().duration_since(at).ok());
            if parts == Parts::Old && age.is_none_or(|age| age < KEEP_PARTS) {
                continue;
            }
            if let Some(_idle) = FileLock::try_exclusive(&path)? {
                fs::remove_file(&path).map_err(io_at("remove", &path))?;
                bytes += meta.len();
            }
        }
        Ok(bytes)
    }

    fn empty_trash(&self) -> Result<()> {
        let trash = self.root.join("trash");
        for entry in fs::read_dir(&trash).map_err(io_at("list", &trash))? {
            remove_tree(&entry.map_err(io_at("list", &trash))?.path())?;
        }
        Ok(())
    }

    /// Bytes of unfinished downloads.
    pub fn parts_size(&self) -> Result<u64> {
        let dir = self.root.join("ingest");
        let entries = fs::read_dir(&dir).map_err(io_at("list", &dir))?;
        Ok(entries
            .flatten()
            .filter_map(|e| e.metadata().ok())
            .map(|m| m.len())
            .sum())
    }
}

fn delete_rows(t: &Transaction<'_>) -> Result<Collected> {
    let mut collected = Collected::default();
    let mut layers = t.prepare(
        "DELETE FROM layers WHERE chain NOT IN (SELECT chain FROM image_layers)
         AND chain NOT IN (SELECT chain FROM holds) AND chain NOT IN (SELECT content FROM leases)
         AND chain NOT IN (SELECT chain FROM build_cache WHERE chain IS NOT NULL)
         RETURNING chain, size",
    )?;
    for row in layers.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    })? {
        let (chain, size) = row?;
        collected.layers.push(stored_digest(&chain)?);
        collected.bytes += size.cast_unsigned();
    }
    let mut blobs = t.prepare(
        "DELETE FROM blobs WHERE digest NOT IN (SELECT digest FROM image_blobs)
         AND digest NOT IN (SELECT content FROM leases)
         AND digest NOT IN (SELECT diff FROM build_cache WHERE diff IS NOT NULL) RETURNING size",
    )?;
    for size in blobs.query_map([], |row| row.get::<_, i64>(0))? {
        collected.bytes += size?.cast_unsigned();
    }
    for stale in [
        "DELETE FROM layer_blobs WHERE digest NOT IN (SELECT digest FROM blobs)",
        "DELETE FROM blob_sources WHERE digest NOT IN (SELECT digest FROM blobs)",
    ] {
        t.execute(stale, [])?;
    }
    Ok(collected)
}

fn known(t: &Transaction<'_>, query: &str) -> Result<HashSet<String>> {
    let mut statement = t.prepare(query)?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

/// A digest that this program wrote to the database.
pub fn stored_digest(text: &str) -> Result<Digest> {
    text.parse()
        .map_err(|error: super::digest::InvalidDigest| Error::Damaged {
            path: "meta.db".into(),
            why: error.to_string(),
        })
}

/// Removes a file or a whole tree, following no link; missing is fine, and so is a second remover.
pub fn remove_tree(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_at("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(store: &Store, lease: &super::super::lease::Lease<'_>, name: &str) -> Digest {
        let scratch = lease.scratch();
        fs::create_dir_all(scratch.join("diff")).unwrap();
        fs::write(scratch.join("diff/file"), name).unwrap();
        let chain = Digest::of(name.as_bytes());
        store
            .adopt_layer(lease, &scratch, &chain, &chain, name.len() as u64)
            .unwrap();
        chain
    }

    #[test]
    fn leased_and_held_layers_stay_and_others_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let lease = store.lease().unwrap();
        let chain = layer(&store, &lease, "kept");
        store.collect(Parts::Old).unwrap();
        assert!(store.layer_path(&chain).join("file").exists(), "leased");
        store
            .write(|t| -> Result<()> {
                t.execute("INSERT INTO holds VALUES ('c', ?1)", [chain.to_string()])?;
                Ok(())
            })
            .unwrap();
        drop(lease);
        assert_eq!(store.collect(Parts::Old).unwrap(), Collected::default());
        assert!(store.layer_path(&chain).join("file").exists(), "held");
        store
            .write(|t| -> Result<()> {
                t.execute("DELETE FROM holds", [])?;
                Ok(())
            })
            .unwrap();
        let collected = store.collect(Parts::Old).unwrap();
        assert_eq!(
            collected,
            Collected {
                layers: vec![chain.clone()],
                bytes: 4
            }
        );
        assert!(!store.layer_path(&chain).exists());
        assert_eq!(fs::read_dir(store.root().join("trash")).unwrap().count(), 0);
    }

    #[test]
    fn files_without_a_row_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let orphan = Digest::of(b"orphan");
        fs::create_dir_all(store.layer_path(&orphan).join("usr")).unwrap();
        fs::write(store.blob_path(&orphan), "orphan").unwrap();
        store.collect(Parts::Old).unwrap();
        assert!(!store.layer_path(&orphan).exists());
        assert!(!store.blob_path(&orphan).exists());
    }

    #[test]
    fn only_idle_downloads_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let lease = store.lease().unwrap();
        let busy = store.ingest(&lease, &Digest::of(b"busy"), 4).unwrap();
        let super::super::blob::Ingest::Download(mut idle) =
            store.ingest(&lease, &Digest::of(b"idle"), 4).unwrap()
        else {
            panic!()
        };
        idle.append(b"id").unwrap();
        drop(idle);
        assert_eq!(store.collect(Parts::Old).unwrap().bytes, 0);
        assert_eq!(store.parts_size().unwrap(), 2);
        assert_eq!(store.collect(Parts::All).unwrap().bytes, 2);
        assert_eq!(
            fs::read_dir(store.root().join("ingest")).unwrap().count(),
            1
        );
        drop(busy);
    }
}
