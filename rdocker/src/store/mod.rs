//! What rdocker keeps on disk: records, locks and content by digest.
//!
//! The store knows no containers and no images. Under its root:
//!
//! ```text
//! meta.db            SQLite: tags, layers, blobs, leases (schema.sql), networks (networks.sql),
//!                    build steps (build-cache.sql)
//! blobs/sha256/HEX   manifests, configurations, layers as they came
//! layers/HEX/diff    one unpacked layer, named by chain id, in overlay's form
//! ingest/            downloads under way, kept so that they can resume
//! tmp/, trash/       scratch of live processes; what is being deleted
//! containers/        one directory for each container; theirs alone
//! ```
//!
//! Several processes use one store at once. SQLite's write lock is the only global lock: content
//! appears and disappears inside a write transaction, so a collection never races a pull.

pub mod blob;
pub mod digest;
pub mod gc;
pub mod layer;
pub mod lease;
pub mod lock;
pub mod record;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};

/// What made each version of the schema out of the one before.
const STEPS: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("networks.sql"),
    include_str!("build-cache.sql"),
];
const SCHEMA_VERSION: i64 = STEPS.len().cast_signed() as i64;
/// How long a write waits for another process's write.
const BUSY: Duration = Duration::from_secs(60);

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a file of the store failed.
    #[error("{doing} {}", path.display())]
    Io {
        /// The call, as a verb: "open", "rename".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The metadata database failed.
    #[error("metadata database")]
    Database(#[from] rusqlite::Error),
    /// The database is of a newer rdocker.
    #[error("{} has schema {found}, newer than this rdocker's {SCHEMA_VERSION}: upgrade rdocker", path.display())]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// Someone else could replace what is below the root.
    #[error("data root {} is not safe: {why}", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Content does not have the digest or size it was announced with.
    #[error("{what}: want {want}, got {got}")]
    Mismatch {
        /// What was checked.
        what: String,
        /// The announced value.
        want: String,
        /// The actual value.
        got: String,
    },
    /// A record is not what this program writes.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        why: String,
    },
}

/// The store's results.
pub type Result<T> = std::result::Result<T, Error>;

/// Names the call and the file of an [`io::Error`].
pub(crate) fn io_at<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |source| Error::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// One open data root.
pub struct Store {
    root: PathBuf,
    db: Mutex<Connection>,
}

impl Store {
    /// Opens the data root, and makes it if it is missing (mode 0700).
    ///
    /// # Errors
    /// [`Error::Unsafe`] if another user owns the root or could rename it away;
    /// [`Error::Newer`] if a newer rdocker wrote it.
    pub fn open(root: &Path) -> Result<Store> {
        make_root(root)?;
        let root = root.canonicalize().map_err(io_at("open", root))?;
        check_safe(&root)?;
        for name in [
            "blobs/sha256",
            "blobs/sha512",
            "layers",
            "ingest",
            "tmp",
            "trash",
            "containers",
        ] {
            make_root(&root.join(name))?;
        }
        let db = open_db(&root.join("meta.db"))?;
        Ok(Store {
            root,
            db: Mutex::new(db),
        })
    }

    /// The data root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory that holds one directory for each container.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Reads the database in one consistent view.
    pub fn read<T>(&self, query: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut db = self.db();
        let view = db.transaction_with_behavior(TransactionBehavior::Deferred)?;
        query(&view)
    }

    /// Changes the database, and the files it names, as the only writer of all processes.
    ///
    /// Nothing is kept if `change` fails.
    pub fn write<T, E: From<Error>>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let mut db = self.db();
        let transaction = db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(Error::from)?;
        let value = change(&transaction)?;
        transaction.commit().map_err(Error::from)?;
        Ok(value)
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        // A panic in another thread leaves no half-made change: its transaction was rolled back.
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make_root(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io_at("create directory", path))
}

/// Refuses a root that another user owns, or whose parent lets another user rename it.
fn check_safe(root: &Path) -> Result<()> {
    let uid = rustix::process::geteuid().as_raw();
    let meta = fs::metadata(root).map_err(io_at("stat", root))?;
    let refuse = |why| {
        Err(Error::Unsafe {
            path: root.to_owned(),
            why,
        })
    };
    if meta.uid() != uid {
        return refuse("another user owns it");
    }
    if meta.mode() & 0o022 != 0 {
        return refuse("others may write to it; chmod 700 it");
    }
    let parent = root.parent().unwrap_or(root);
    let above = fs::metadata(parent).map_err(io_at("stat", parent))?;
    if above.mode() & 0o002 != 0 && above.mode() & 0o1000 == 0 {
        return refuse("everyone may write to its parent directory");
    }
    Ok(())
}

/// Pages of 4 KiB in the write-ahead log before it is written back.
const LOG_PAGES: u32 = 128;

fn open_db(path: &Path) -> Result<Connection> {
    let mut db = Connection::open(path)?;
    db.busy_timeout(BUSY)?;
    let version = |db: &Connection| db.pragma_query_value(None, "user_version", |r| r.get(0));
    db.pragma_update(None, "synchronous", "NORMAL")?;
    // A command that closes the last connection would write the log back and wait for the disk,
    // several times in each `run`. The log is written back when it has grown instead; until then
    // whoever opens it first reads it through, so it is kept small.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    db.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    let found: i64 = version(&db)?;
    if found == SCHEMA_VERSION {
        return Ok(db);
    }
    if found > SCHEMA_VERSION {
        return Err(Error::Newer {
            path: path.to_owned(),
            found,
        });
    }
    db.pragma_update(None, "journal_mode", "WAL")?;
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have made the tables while this one waited for the lock.
    let found = usize::try_from(version(&transaction)?).unwrap_or(STEPS.len());
    for step in STEPS.iter().skip(found) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    Ok(db)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_root_is_made_private_and_reopens() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b");
        drop(Store::open(&root).unwrap());
        let store = Store::open(&root).unwrap();
        assert_eq!(fs::metadata(store.root()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(
            fs::metadata(store.root().join("layers")).unwrap().mode() & 0o777,
            0o700
        );
    }

    #[test]
    fn a_root_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Store::open(&root), Err(Error::Unsafe { .. })));
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Store::open(&root), Err(Error::Unsafe { .. })));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(Store::open(&root).is_ok());
    }

    #[test]
    fn a_store_of_the_first_schema_is_brought_up_to_date() {
        let dir = tempfile::tempdir().unwrap();
        let db = Connection::open(dir.path().join("meta.db")).unwrap();
        db.execute_batch(STEPS[0]).unwrap();
        db.execute("INSERT INTO tags VALUES ('a', 'b')", [])
            .unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        drop(db);
        let store = Store::open(dir.path()).unwrap();
        let count = |table: &str| -> i64 {
            let query = format!("SELECT count(*) FROM {table}");
            store
                .read(|t| Ok(t.query_row(&query, [], |r| r.get(0))?))
                .unwrap()
        };
        assert_eq!((count("tags"), count("build_cache")), (1, 0));
    }

    #[test]
    fn a_store_of_a_newer_rdocker_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store
            .db()
            .pragma_update(None, "user_version", SCHEMA_VERSION + 1)
            .unwrap();
        drop(store);
        assert!(matches!(Store::open(dir.path()), Err(Error::Newer { .. })));
    }

    #[test]
    fn a_failed_change_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let failed: Result<()> = store.write(|t| {
            t.execute("INSERT INTO tags VALUES ('a', 'b')", [])?;
            Err(Error::Unsafe {
                path: PathBuf::new(),
                why: "test",
            })
        });
        assert!(failed.is_err());
        let count: i64 = store
            .read(|t| Ok(t.query_row("SELECT count(*) FROM tags", [], |r| r.get(0))?))
            .unwrap();
        assert_eq!(count, 0);
    }
}
