//! Images: references, registries, archives, layers and the verbs that work on them.

pub mod archive;
pub mod catalog;
pub mod config;
pub mod create;
mod download;
pub mod error;
pub mod history;
pub mod instruction;
pub mod intake;
pub mod layer;
pub mod load;
pub mod manifest;
pub mod overlay;
pub mod platform;
pub mod progress;
pub mod pull;
pub mod push;
pub mod reference;
pub mod registry;
pub mod remove;
pub mod save;
pub mod tar;
pub mod usage;

use std::path::PathBuf;

use crate::store::Store;
use crate::store::digest::Digest;

pub use config::ImageConfig;
pub use error::{Error, Result};
pub use platform::Platform;
pub use progress::{Event, Progress, Quiet, Status};
pub use reference::Reference;

/// The images of one store.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    store: &'a Store,
}

/// A local image, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Digest of the configuration: the image id.
    pub id: Digest,
    /// The configuration, parsed.
    pub config: ImageConfig,
    /// The configuration as it came; its digest is the id.
    pub raw: Vec<u8>,
    /// The layers, lowest first.
    pub layers: Vec<LayerPath>,
    /// Its tags in Docker's short form, sorted: `busybox:latest`.
    pub tags: Vec<String>,
    /// Its registry names in Docker's short form, sorted: `busybox@sha256:…`.
    pub repo_digests: Vec<String>,
    /// The manifest it came with, if it came from a registry or an archive that has one.
    pub manifest: Option<Digest>,
    /// The local image it was committed from.
    pub parent: Option<Digest>,
    /// When it came here or was made here, Unix seconds.
    pub added: i64,
}

/// One unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPath {
    /// Id of this layer on top of all below it.
    pub chain: Digest,
    /// Digest of its plain tar.
    pub diff_id: Digest,
    /// The directory of its files, in overlay's form.
    pub path: PathBuf,
    /// Bytes of its files.
    pub size: u64,
}

impl Image {
    /// Bytes of all files of all layers: Docker's image size.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// What it was made for.
    pub fn platform(&self) -> Platform {
        let ImageConfig {
            os,
            architecture,
            variant,
            ..
        } = &self.config;
        Platform {
            os: os.clone(),
            architecture: architecture.clone(),
            variant: variant.clone(),
            os_version: None,
        }
    }

    /// Whether the image serves the platform that the user named; the name is for the message.
    ///
    /// # Errors
    /// Docker's sentence, which its command line reads as "not here".
    pub fn require_platform(&self, name: &str, want: &Platform) -> Result<()> {
        let have = self.platform();
        if want.rank(&have).is_some() {
            return Ok(());
        }
        Err(Error::OtherPlatform {
            name: name.to_owned(),
            have: have.to_string(),
            want: want.to_string(),
        })
    }
}
