//! Why work on images fails, in Docker's words where scripts match them.

use crate::store;
use crate::store::digest::Digest;

use super::reference::InvalidReference;

/// One variant for each thing a caller can do about it. `Display` never repeats its source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A name that is not one.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// Nothing local has this name or id.
    #[error("No such image: {name}")]
    NoSuchImage {
        /// What the user typed, with the default tag.
        name: String,
    },
    /// The local image was made for another platform than the one asked for.
    #[error(
        "image with reference {name} was found but its platform ({have}) does not match the \
         specified platform ({want})"
    )]
    OtherPlatform {
        /// What the user typed.
        name: String,
        /// The image's.
        have: String,
        /// What the user asked for.
        want: String,
    },
    /// Several local images have ids that begin so.
    #[error("multiple IDs found with provided prefix: {prefix}")]
    Ambiguous {
        /// What the user typed.
        prefix: String,
    },
    /// Removing the image would take something away from someone.
    #[error("conflict: {why}")]
    Conflict {
        /// What is in the way and whether force would help, in Docker's words.
        why: String,
    },
    /// The thing asked for cannot be named so.
    #[error("{0}")]
    InvalidArgument(String),
    /// A local image lacks content, because something outside rdocker removed or changed it.
    #[error("image {id} is damaged: {why}")]
    Damaged {
        /// The image.
        id: Digest,
        /// What is missing or wrong.
        why: String,
    },
    /// A manifest, index or configuration breaks a rule.
    #[error("{what}: {why}")]
    Document {
        /// Which document.
        what: String,
        /// The rule.
        why: String,
    },
    /// A layer's archive breaks a rule, or cannot be unpacked.
    #[error(transparent)]
    Archive(#[from] super::tar::Error),
    /// A registry could not be used.
    #[error(transparent)]
    Registry(#[from] super::registry::Error),
    /// A container's root cannot be mounted, because an overlay cannot write to an overlay.
    #[error("{dir} is on overlayfs, which cannot hold the root of a container")]
    OnOverlay {
        /// Where the root's directories are.
        dir: String,
    },
    /// A system call outside the store failed.
    #[error("{doing} {target}")]
    Io {
        /// The call, as a verb.
        doing: &'static str,
        /// What it was done to.
        target: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// The step that fails where a container's root cannot be an overlay.
pub const MOUNT_ROOT: &str = "mount the root on";

/// Results of work on images.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// What the user can do about it, if there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::Ambiguous { .. } => Some("give more characters of the id"),
            Error::Registry(error) => error.hint(),
            Error::Damaged { .. } => Some("pull or load the image again"),
            Error::OnOverlay { .. } => {
                Some("choose a data root on ext4, xfs or btrfs: --data-root DIR")
            }
            // overlayfs.rst: the upper layer's file system needs extended attributes and d_type.
            Error::Io { doing, source, .. }
                if *doing == MOUNT_ROOT && source.raw_os_error() == Some(libc::EINVAL) =>
            {
                Some(
                    "the data root's file system cannot hold overlays: choose one on ext4, xfs or \
                     btrfs, --data-root DIR",
                )
            }
            _ => None,
        }
    }

    pub(crate) fn io(
        doing: &'static str,
        target: &dyn std::fmt::Display,
    ) -> impl Fn(std::io::Error) -> Error + use<> {
        let target = target.to_string();
        move |source| Error::Io {
            doing,
            target: target.clone(),
            source,
        }
    }

    /// A document that breaks a rule.
    pub fn document(what: impl Into<String>, why: impl std::fmt::Display) -> Error {
        Error::Document {
            what: what.into(),
            why: why.to_string(),
        }
    }
}

/// SQL errors in this module's own transactions are the store's.
impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        Error::Store(error.into())
    }
}
