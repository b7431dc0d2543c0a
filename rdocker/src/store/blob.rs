//! Blobs: immutable files named by the digest of their bytes.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::PathBuf;

use rusqlite::{OptionalExtension, Transaction};

use super::digest::{Digest, Hasher};
use super::lease::Lease;
use super::lock::FileLock;
use super::{Error, Result, Store, io_at};

const COPY_BUFFER: usize = 128 << 10;

impl Store {
    /// Where the bytes of a blob are, if the store has it.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root
            .join("blobs")
            .join(digest.algorithm().name())
            .join(digest.hex())
    }

    /// The size in bytes of a blob that the store has.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.read(|t| blob_size(t, digest))
    }

    /// The size of a blob that the store has; the lease keeps it from now on.
    pub fn keep_blob(&self, lease: &Lease<'_>, digest: &Digest) -> Result<Option<u64>> {
        self.write(|t| {
            let size = blob_size(t, digest)?;
            if size.is_some() {
                lease.keep(t, digest)?;
            }
            Ok(size)
        })
    }

    /// Opens a blob for reading.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(io_at("open", &path))
    }

    /// Reads a small blob and checks that it still has its digest.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the file is longer than `max` bytes or was changed.
    pub fn read_blob(&self, digest: &Digest, max: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let mut bytes = Vec::new();
        self.open_blob(digest)?
            .take(max + 1)
            .read_to_end(&mut bytes)
            .map_err(io_at("read", &path))?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        check("blob", digest, &hasher.finish())?;
        Ok(bytes)
    }

    /// Stores bytes; the lease keeps them.
    pub fn put_blob(&self, lease: &Lease<'_>, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.keep_blob(lease, &digest)?.is_some() {
            return Ok(digest);
        }
        let path = lease.scratch();
        fs::write(&path, bytes).map_err(io_at("write", &path))?;
        self.adopt_blob(lease, &path, &digest, bytes.len() as u64)?;
        Ok(digest)
    }

    /// Moves a file whose bytes were hashed into the store; the lease keeps it.
    pub fn adopt_blob(
        &self,
        lease: &Lease<'_>,
        path: &std::path::Path,
        digest: &Digest,
        size: u64,
    ) -> Result<()> {
        let target = self.blob_path(digest);
        self.write(|t| {
            // A file without a row is left over from a crash, and the new one is as good.
            fs::rename(path, &target).map_err(io_at("rename", path))?;
            t.execute(
                "INSERT OR IGNORE INTO blobs VALUES (?1, ?2)",
                (digest.to_string(), size.cast_signed()),
            )?;
            lease.keep(t, digest)
        })
    }

    /// Starts, or goes on with, the download of a blob of known digest and size.
    ///
    /// One process at a time downloads a blob; others wait here and then find it finished.
    pub fn ingest(&self, lease: &Lease<'_>, digest: &Digest, size: u64) -> Result<Ingest> {
        let name = format!("{}-{}", digest.algorithm().name(), digest.hex());
        let path = self.root.join("ingest").join(name);
        loop {
            if self.keep_blob(lease, digest)?.is_some() {
                return Ok(Ingest::Present);
            }
            let lock = FileLock::exclusive(&path)?;
            // Whoever had the lock may have finished or discarded the file under this name.
            if path.exists() && self.blob_size(digest)?.is_none() {
                let part = Part {
                    hasher: Hasher::new(digest.algorithm()),
                    digest: digest.clone(),
                    have: 0,
                    size,
                    path,
                    lock,
                };
                return Ok(Ingest::Download(part));
            }
        }
    }
}

fn blob_size(t: &Transaction<'_>, digest: &Digest) -> Result<Option<u64>> {
    let size: Option<i64> = t
        .prepare_cached("SELECT size FROM blobs WHERE digest = ?1")?
        .query_row([digest.to_string()], |row| row.get(0))
        .optional()?;
    Ok(size.map(i64::cast_unsigned))
}

fn check(what: &str, want: &Digest, got: &Digest) -> Result<()> {
    if want == got {
        return Ok(());
    }
    Err(Error::Mismatch {
        what: format!("{what} digest"),
        want: want.to_string(),
        got: got.to_string(),
    })
}

/// What [`Store::ingest`] found.
pub enum Ingest {
    /// The store has the blob, and the lease keeps it.
    Present,
    /// The blob, or the rest of it, is to be fetched.
    Download(Part),
}

/// A partly downloaded blob. Dropping it keeps the part for the next try.
pub struct Part {
    lock: FileLock,
    path: PathBuf,
    digest: Digest,
    size: u64,
    hasher: Hasher,
    have: u64,
}

impl Part {
    /// Hashes what an earlier try left, showing it to `sink`, and answers how many bytes it was.
    ///
    /// Called once, before the first [`Part::append`].
    pub fn replay(&mut self, mut sink: impl FnMut(&[u8])) -> Result<u64> {
        let at = io_at("read", &self.path);
        let mut file = self.lock.file();
        if file.metadata().map_err(&at)?.len() > self.size {
            file.set_len(0).map_err(&at)?;
        }
        file.rewind().map_err(&at)?;
        let mut buffer = vec![0; COPY_BUFFER];
        loop {
            let n = file.read(&mut buffer).map_err(&at)?;
            if n == 0 {
                return Ok(self.have);
            }
            self.hasher.update(&buffer[..n]);
            self.have += n as u64;
            sink(&buffer[..n]);
        }
    }

    /// How many bytes are there.
    pub fn have(&self) -> u64 {
        self.have
    }

    /// The announced size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// [`Error::Mismatch`] as soon as there are more bytes than announced.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.have += bytes.len() as u64;
        if self.have > self.size {
            return Err(self.wrong_size(format!("at least {} bytes", self.have)));
        }
        self.hasher.update(bytes);
        self.lock
            .file()
            .write_all(bytes)
            .map_err(io_at("write", &self.path))
    }

    /// Forgets all bytes, because what was there cannot be the blob.
    pub fn discard(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(io_at("remove", &self.path))
    }

    /// Checks size and digest and moves the blob into the store; the lease keeps it.
    ///
    /// # Errors
    /// [`Error::Mismatch`], and the part is gone: it can never become the blob.
    pub fn finish(self, lease: &Lease<'_>) -> Result<()> {
        if self.have != self.size {
            // A short part is kept: the rest may still come.
            return Err(self.wrong_size(format!("{} bytes", self.have)));
        }
        let got = self.hasher.clone().finish();
        if let Err(error) = check("blob", &self.digest, &got) {
            self.discard()?;
            return Err(error);
        }
        lease
            .store()
            .adopt_blob(lease, &self.path, &self.digest, self.size)
    }

    fn wrong_size(&self, got: String) -> Error {
        let what = format!("size of blob {}", self.digest);
        Error::Mismatch {
            what,
            want: format!("{} bytes", self.size),
            got,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    fn part(store: &Store, lease: &Lease<'_>, content: &[u8]) -> Part {
        let found = store
            .ingest(lease, &Digest::of(content), content.len() as u64)
            .unwrap();
        let Ingest::Download(mut part) = found else {
            panic!("the blob is there already")
        };
        part.replay(|_| {}).unwrap();
        part
    }

    #[test]
    fn a_download_goes_on_where_it_stopped() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let mut first = part(&store, &lease, b"hello world");
        first.append(b"hello ").unwrap();
        drop(first);
        let mut second = part(&store, &lease, b"hello world");
        assert_eq!(second.have(), 6);
        second.append(b"world").unwrap();
        second.finish(&lease).unwrap();
        let digest = Digest::of(b"hello world");
        assert_eq!(store.read_blob(&digest, 100).unwrap(), b"hello world");
        assert!(matches!(
            store.ingest(&lease, &digest, 11).unwrap(),
            Ingest::Present
        ));
    }

    #[test]
    fn wrong_bytes_never_become_a_blob() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let mut wrong = part(&store, &lease, b"right");
        wrong.append(b"wrong").unwrap();
        assert!(matches!(wrong.finish(&lease), Err(Error::Mismatch { .. })));
        let mut long = part(&store, &lease, b"right");
        assert_eq!(long.have(), 0, "the wrong part was thrown away");
        assert!(matches!(
            long.append(b"right!"),
            Err(Error::Mismatch { .. })
        ));
        drop(long);
        let mut short = part(&store, &lease, b"right");
        short.append(b"righ").unwrap();
        assert!(matches!(short.finish(&lease), Err(Error::Mismatch { .. })));
        assert_eq!(store.blob_size(&Digest::of(b"right")).unwrap(), None);
    }

    #[test]
    fn a_changed_blob_is_not_read() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let digest = store.put_blob(&lease, b"abc").unwrap();
        assert_eq!(store.blob_size(&digest).unwrap(), Some(3));
        fs::write(store.blob_path(&digest), b"abd").unwrap();
        assert!(matches!(
            store.read_blob(&digest, 100),
            Err(Error::Mismatch { .. })
        ));
    }
}
