//! Reading and writing tar archives, strictly.
//!
//! Archives are hostile input, and two parsers that disagree about one member's size see
//! different archives (RUSTSEC-2026-0068, CVE-2025-62518). So this reader takes what Docker's
//! reader takes, and refuses what would be ambiguous: repeated or malformed extended records, GNU
//! and PAX records for one member, negative or overflowing numbers.
//!
//! Source: POSIX.1-2017 pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar
//! manual, "Basic Tar Format".

mod number;
mod pax;
mod reader;
mod writer;

use std::io;

pub use reader::Reader;
pub use writer::Writer;

/// Bytes of a header, and what every member is padded to.
pub(crate) const BLOCK: usize = 512;
/// The longest path of a member, in bytes (PATH_MAX).
pub const PATH_MAX: usize = 4096;

/// What kind of file a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its bytes follow.
    File,
    /// Another name of an earlier member.
    Hardlink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One member of an archive: everything but its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path as written, any bytes but NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, setuid, setgid and sticky: 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes that follow; 0 for all but regular files.
    pub size: u64,
    /// Last change: seconds since 1970, which may be negative, and nanoseconds.
    pub mtime: (i64, u32),
    /// Target of a link, any bytes but NUL.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes, in the archive's order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// A member with this path and kind, mode 0644 or (directory) 0755, owned by root, of 1970.
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: if kind == Kind::Directory {
                0o755
            } else {
                0o644
            },
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            link: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }

    /// The path for messages.
    pub fn display(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

/// Why an archive cannot be read, or one of its members cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive breaks a rule.
    #[error("invalid archive: {0}")]
    Invalid(String),
    /// A member breaks a rule.
    #[error("invalid archive member {path:?}: {why}")]
    Member {
        /// The member's path.
        path: String,
        /// The rule.
        why: String,
    },
    /// A system call on a member failed.
    #[error("{doing} {path:?} from the archive")]
    Io {
        /// The call, as a verb.
        doing: &'static str,
        /// The member's path.
        path: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The bytes of the archive cannot be read or written.
    #[error("archive stream")]
    Stream(#[source] io::Error),
}

/// Results of work on archives.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn member(entry: &Entry, why: impl Into<String>) -> Error {
        Error::Member {
            path: entry.display(),
            why: why.into(),
        }
    }

    pub(crate) fn invalid(why: impl Into<String>) -> Error {
        Error::Invalid(why.into())
    }
}
