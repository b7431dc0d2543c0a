//! Layers: unpacking archives into overlay's form, and making archives of directories.

pub mod changes;
pub mod compress;
pub mod files;
pub mod graft;
pub mod pack;
pub mod unpack;

pub use changes::{Change, ChangeKind};
pub use compress::Compression;
pub use unpack::{Form, Unpacked, unpack};

/// Docker's name for "the file of this name in the layers below is gone".
const WHITEOUT: &[u8] = b".wh.";
/// Docker's name for "nothing of this directory in the layers below is seen".
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names that begin so are aufs's own and mean nothing here.
const AUFS: &[u8] = b".wh..wh.";
