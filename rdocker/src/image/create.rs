//! Making images here: `import` of a root file system, `commit` of a container.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::store::digest::{Algorithm, Digest, Hashed};
use crate::store::lease::Lease;

use super::catalog::NewImage;
use super::config::{History, ImageConfig, RootFs, RunConfig, chain_ids};
use super::intake::{FromBlob, Incoming, adopt, from_blob, layer_form, layer_media_type};
use super::layer::compress::{Compression, decompress};
use super::layer::graft::open_root;
use super::layer::pack::pack;
use super::platform::Platform;
use super::reference::Reference;
use super::tar::{self, Writer};
use super::{Error, Image, Images, Result};

/// What `import` was told.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The new image's name.
    pub name: Option<Reference>,
    /// The commit message.
    pub message: Option<String>,
    /// What containers of it run with.
    pub config: RunConfig,
    /// What it runs on; this machine by default.
    pub platform: Option<Platform>,
    /// Where it came from, for the default message: `-` or a file or URL.
    pub source: String,
}

/// What `commit` was told.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// The new image's name.
    pub name: Option<Reference>,
    /// Who.
    pub author: Option<String>,
    /// The message.
    pub comment: Option<String>,
    /// What containers of it run with.
    pub config: RunConfig,
    /// The container's command, for the history.
    pub created_by: String,
    /// The container's id.
    pub container: String,
}

/// A layer that was just made: its plain tar is a blob already.
struct Made {
    diff_id: Digest,
    path: PathBuf,
    size: u64,
}

impl Images<'_> {
    /// Makes an image with one layer from the archive of a root file system, of any compression.
    pub fn import(&self, stream: impl Read + Send, options: &ImportOptions) -> Result<Digest> {
        let lease = self.store().lease()?;
        let plain = decompress(stream).map_err(tar::Error::Stream)?;
        let made = spool(&lease, |to| {
            io::copy(&mut { plain }, to)
                .map(drop)
                .map_err(|error| tar::Error::Stream(error).into())
        })?;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let created = now();
        let message = options
            .message
            .clone()
            .filter(|message| !message.is_empty());
        let default = format!("Imported from {}", options.source);
        let config = ImageConfig {
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            created: Some(created.clone()),
            comment: Some(message.clone().unwrap_or_else(|| default.clone())),
            config: options.config.clone(),
            rootfs: RootFs {
                diff_ids: vec![made.diff_id.clone()],
                ..RootFs::default()
            },
            history: vec![History {
                created: Some(created),
                comment: Some(message.unwrap_or(default)),
                ..History::default()
            }],
            ..ImageConfig::default()
        };
        self.enter(&lease, &config, Some(made), None, options.name.as_ref())
    }

    /// Makes an image of a container: its image's layers and its own changes on top.
    ///
    /// The caller has paused the container if its processes may write.
    pub fn commit(
        &self,
        base: Option<&Image>,
        container_dir: &Path,
        options: &CommitOptions,
    ) -> Result<Digest> {
        let lease = self.store().lease()?;
        let upper = open_root(&container_dir.join("diff"))?;
        let made = spool(&lease, |to| {
            let mut writer = Writer::new(to);
            pack(upper.as_fd(), layer_form(), &mut writer)?;
            writer
                .finish()
                .map(drop)
                .map_err(|error| tar::Error::Stream(error).into())
        })?;
        // Two empty blocks: nothing changed, and an empty layer would only cost a mount.
        let made = Some(made).filter(|made| made.size > 1024);
        let mut config = match base {
            Some(image) => image.config.clone(),
            None => {
                let host = Platform::host();
                ImageConfig {
                    architecture: host.architecture,
                    os: host.os,
                    ..ImageConfig::default()
                }
            }
        };
        let created = now();
        config
            .rootfs
            .diff_ids
            .extend(made.iter().map(|made| made.diff_id.clone()));
        config.history.push(History {
            created: Some(created.clone()),
            author: options.author.clone(),
            created_by: Some(options.created_by.clone()),
            comment: options.comment.clone(),
            empty_layer: made.is_none(),
        });
        config.created = Some(created);
        config.author = options.author.clone().or(config.author);
        config.comment.clone_from(&options.comment);
        config.container = Some(options.container.clone()).filter(|id| !id.is_empty());
        config.config = options.config.clone();
        self.enter(&lease, &config, made, base, options.name.as_ref())
    }

    fn enter(
        &self,
        lease: &Lease<'_>,
        config: &ImageConfig,
        made: Option<Made>,
        base: Option<&Image>,
        name: Option<&Reference>,
    ) -> Result<Digest> {
        let store = self.store();
        let raw = serde_json::to_vec(config).map_err(|error| Error::document("image", error))?;
        let id = store.put_blob(lease, &raw)?;
        let diff_ids = &config.rootfs.diff_ids;
        let chain = chain_ids(diff_ids);
        let mut blobs = vec![id.clone()];
        let mut layers = Vec::new();
        for layer in base.iter().flat_map(|image| &image.layers) {
            if store.keep_layer(lease, &layer.chain)?.is_none() {
                return Err(Error::NoSuchImage {
                    name: layer.chain.to_string(),
                });
            }
            layers.push(Incoming::Present);
        }
        if let Some(base) = base {
            blobs.extend(self.blobs_of(&base.id)?);
        }
        if let (Some(made), Some(top)) = (&made, chain.last()) {
            store.adopt_blob(lease, &made.path, &made.diff_id, made.size)?;
            blobs.push(made.diff_id.clone());
            let kind = layer_media_type(Compression::None);
            self.note_layer_blobs(&[(made.diff_id.clone(), made.diff_id.clone(), kind)])?;
            let layer = FromBlob {
                blob: &made.diff_id,
                diff_id: &made.diff_id,
                chain: top,
            };
            layers.push(from_blob(lease, &layer)?);
        }
        adopt(lease, diff_ids, layers)?;
        let parent = base.map(|image| &image.id);
        let new = NewImage {
            id: &id,
            config,
            manifest: None,
            parent,
            blobs: &blobs,
        };
        self.insert(
            lease,
            &new,
            name.map(std::slice::from_ref).unwrap_or_default(),
            &[],
        )?;
        Ok(id)
    }

    /// The layer blobs that an image keeps, which its children keep too.
    fn blobs_of(&self, id: &Digest) -> Result<Vec<Digest>> {
        self.read(|t| {
            super::catalog::digests(
                t,
                "SELECT digest FROM image_blobs WHERE image = ?1
                 AND digest IN (SELECT digest FROM layer_blobs)",
                [id.to_string()],
            )
        })
    }
}

/// Writes a plain tar to scratch space and hashes it on the way.
fn spool(lease: &Lease<'_>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Made> {
    let path = lease.scratch();
    let at = Error::io("write", &path.display());
    let file = BufWriter::with_capacity(256 << 10, File::create_new(&path).map_err(&at)?);
    let mut hashed = Hashed::new(file, Algorithm::Sha256);
    write(&mut hashed)?;
    let (mut file, diff_id, size) = hashed.finish();
    file.flush().map_err(at)?;
    Ok(Made {
        diff_id,
        path,
        size,
    })
}

/// This moment in RFC 3339 with nanoseconds, as Docker writes it.
pub fn now() -> String {
    jiff::Timestamp::now().to_string()
}
