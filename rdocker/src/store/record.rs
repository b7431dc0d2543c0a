//! Small JSON records: read whole, replaced whole, guarded by a lock where two may write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lock::FileLock;
use super::{Error, Result, io_at};

/// The largest record that is read, in bytes: more is damage, not data.
const RECORD_MAX: u64 = 64 << 20;

/// Takes the lock of a record directory; it is the file `lock` inside it.
pub fn lock(dir: &Path) -> Result<FileLock> {
    FileLock::exclusive(&dir.join("lock"))
}

/// Reads a record; `None` if there is none.
///
/// # Errors
/// [`Error::Damaged`] if the file is not JSON of the shape `T`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_at("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(RECORD_MAX)
        .read_to_end(&mut bytes)
        .map_err(io_at("read", path))?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::Damaged {
            path: path.to_owned(),
            why: error.to_string(),
        })
}

/// Writes a record so that a reader sees the old one or the new one, never a part.
///
/// The new file is written beside the old one and renamed over it (rename(2) is atomic); a crash
/// in between leaves the old record. The caller holds the directory's lock if others may write.
pub fn write<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    let bytes = serde_json::to_vec(record).map_err(|error| Error::Damaged {
        path: path.to_owned(),
        why: error.to_string(),
    })?;
    write_bytes(path, &bytes)
}

/// [`write`] for bytes that are made already.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = Path::new(&name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(new)
        .map_err(io_at("create", new))?;
    file.write_all(bytes).map_err(io_at("write", new))?;
    fs::rename(new, path).map_err(io_at("rename", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), None);
        write(&path, &vec![1, 2, 3]).unwrap();
        write(&path, &vec![4]).unwrap();
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), Some(vec![4]));
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no scratch file stays"
        );
    }

    #[test]
    fn a_damaged_record_is_told_by_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        fs::write(&path, "[1,").unwrap();
        let error = read::<Vec<u32>>(&path).unwrap_err().to_string();
        assert!(error.contains("r.json is damaged"), "{error}");
    }
}
