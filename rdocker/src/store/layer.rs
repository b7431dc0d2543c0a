//! Unpacked layers: directories in overlay's form, named by chain id.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension, Transaction};

use super::digest::Digest;
use super::lease::{Lease, random_name};
use super::{Result, Store, io_at};

impl Store {
    /// The directory of a layer's files, `layers/HEX/diff`.
    pub fn layer_path(&self, chain: &Digest) -> PathBuf {
        self.layer_dir(chain).join("diff")
    }

    fn layer_dir(&self, chain: &Digest) -> PathBuf {
        self.root.join("layers").join(chain.hex())
    }

    /// The bytes of all files of a layer that the store has.
    pub fn layer_size(&self, chain: &Digest) -> Result<Option<u64>> {
        self.read(|t| layer_size(t, chain))
    }

    /// Like [`Store::layer_size`]; the lease keeps the layer from now on.
    pub fn keep_layer(&self, lease: &Lease<'_>, chain: &Digest) -> Result<Option<u64>> {
        self.write(|t| {
            let size = layer_size(t, chain)?;
            if size.is_some() {
                lease.keep(t, chain)?;
            }
            Ok(size)
        })
    }

    /// Moves a scratch directory, which holds `diff`, into the store; the lease keeps it.
    ///
    /// If another process was faster its layer stays and `scratch` is left to the lease.
    pub fn adopt_layer(
        &self,
        lease: &Lease<'_>,
        scratch: &Path,
        chain: &Digest,
        diff: &Digest,
        size: u64,
    ) -> Result<()> {
        let target = self.layer_dir(chain);
        self.write(|t| {
            lease.keep(t, chain)?;
            if layer_size(t, chain)?.is_some() {
                return Ok(());
            }
            // A directory without a row is left over from a crash.
            self.to_trash(&target)?;
            fs::rename(scratch, &target).map_err(io_at("rename", scratch))?;
            t.execute(
                "INSERT INTO layers VALUES (?1, ?2, ?3)",
                (chain.to_string(), diff.to_string(), size.cast_signed()),
            )?;
            Ok(())
        })
    }

    /// Renames something out of the way, to be deleted later. Missing is fine.
    pub(super) fn to_trash(&self, path: &Path) -> Result<()> {
        match fs::rename(path, self.root.join("trash").join(random_name())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_at("rename", path)(error))
            }
            _ => Ok(()),
        }
    }
}

fn layer_size(t: &Transaction<'_>, chain: &Digest) -> Result<Option<u64>> {
    let size: Option<i64> = t
        .prepare_cached("SELECT size FROM layers WHERE chain = ?1")?
        .query_row([chain.to_string()], |row| row.get(0))
        .optional()?;
    Ok(size.map(i64::cast_unsigned))
}
