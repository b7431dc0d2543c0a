//! Leases: what one process works on is not collected while it lives.
//!
//! A lease is a locked file `tmp/NAME.lock`, rows in `leases`, and a scratch directory
//! `tmp/NAME/`. When the process dies the kernel drops the lock, and the next collection removes
//! the rows and the directory.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Transaction;

use super::digest::{Digest, hex};
use super::lock::FileLock;
use super::{Result, Store, io_at, make_root};

const SUFFIX: &str = ".lock";

/// Keeps content alive, and scratch space private, until it is dropped.
pub struct Lease<'a> {
    store: &'a Store,
    name: String,
    next: AtomicU64,
    _lock: FileLock,
}

impl Store {
    /// Starts a lease without any content.
    pub fn lease(&self) -> Result<Lease<'_>> {
        loop {
            let name = random_name();
            let path = self.lease_lock(&name);
            let Some(lock) = FileLock::try_exclusive(&path)? else {
                continue;
            };
            // A collection may have taken the new file for a dead lease before it was locked.
            if !path.exists() {
                continue;
            }
            make_root(&self.lease_dir(&name))?;
            return Ok(Lease {
                store: self,
                name,
                next: AtomicU64::new(0),
                _lock: lock,
            });
        }
    }

    fn lease_lock(&self, name: &str) -> PathBuf {
        self.root.join("tmp").join(format!("{name}{SUFFIX}"))
    }

    fn lease_dir(&self, name: &str) -> PathBuf {
        self.root.join("tmp").join(name)
    }

    /// Ends the leases of dead processes: their rows and their scratch directories.
    pub(super) fn reap_leases(&self) -> Result<()> {
        let tmp = self.root.join("tmp");
        for entry in fs::read_dir(&tmp).map_err(io_at("list", &tmp))? {
            let entry = entry.map_err(io_at("list", &tmp))?;
            let Ok(file) = entry.file_name().into_string() else {
                continue;
            };
            let Some(name) = file.strip_suffix(SUFFIX) else {
                continue;
            };
            if let Some(_dead) = FileLock::try_exclusive(&entry.path())? {
                self.end_lease(name)?;
            }
        }
        Ok(())
    }

    /// The caller holds the lease's lock.
    fn end_lease(&self, name: &str) -> Result<()> {
        self.write(|t| -> Result<()> {
            t.execute("DELETE FROM leases WHERE owner = ?1", [name])?;
            Ok(())
        })?;
        super::gc::remove_tree(&self.lease_dir(name))?;
        let lock = self.lease_lock(name);
        match fs::remove_file(&lock) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_at("remove", &lock)(error))
            }
            _ => Ok(()),
        }
    }
}

impl Lease<'_> {
    /// Keeps a blob or a layer; part of the transaction that found or made it.
    pub fn keep(&self, t: &Transaction<'_>, content: &Digest) -> Result<()> {
        t.prepare_cached("INSERT OR IGNORE INTO leases VALUES (?1, ?2)")?
            .execute((&self.name, content.to_string()))?;
        Ok(())
    }

    /// A new path in the scratch directory, which is on the store's file system.
    pub fn scratch(&self) -> PathBuf {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.store.lease_dir(&self.name).join(n.to_string())
    }

    /// The store that this lease is in.
    pub fn store(&self) -> &Store {
        self.store
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // What cannot be undone now is undone by the next collection: the lock goes with us.
        let _ = self.store.end_lease(&self.name);
    }
}

/// 128 random bits in hexadecimal.
pub(super) fn random_name() -> String {
    let mut bytes = [0u8; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    // getrandom(2) gives up to 256 bytes in one piece and cannot fail once the pool is seeded.
    let n = rustix::rand::getrandom(&mut bytes, flags).expect("the kernel has random bytes");
    debug_assert_eq!(n, bytes.len());
    hex(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(store: &Store) -> i64 {
        store
            .read(|t| Ok(t.query_row("SELECT count(*) FROM leases", [], |r| r.get(0))?))
            .unwrap()
    }

    #[test]
    fn a_dropped_lease_leaves_neither_rows_nor_scratch() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let lease = store.lease().unwrap();
        fs::create_dir_all(lease.scratch().join("deep")).unwrap();
        store.write(|t| lease.keep(t, &Digest::of(b"x"))).unwrap();
        store.reap_leases().unwrap();
        assert_eq!(leases(&store), 1, "a live lease is not reaped");
        drop(lease);
        assert_eq!(leases(&store), 0);
        assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn the_lease_of_a_dead_process_is_reaped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let lease = store.lease().unwrap();
        store.write(|t| lease.keep(t, &Digest::of(b"x"))).unwrap();
        fs::write(lease.scratch(), "left over").unwrap();
        // A dead process runs no destructors; the kernel closes its files.
        let Lease {
            _lock: ref lock, ..
        } = lease;
        lock.file().unlock().unwrap();
        store.reap_leases().unwrap();
        assert_eq!(leases(&store), 0);
        assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
    }
}
