//! Making images here: `import` of a root file system, `commit` of a container.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::store::digest::{Algorithm, Digest, Hashed};
use crate::store::lease::Lease;

use super::catalog::NewImage;
use super::config::{History, ImageConfig, RootFs, RunConfig, chain_id, chain_ids};
use super::intake::{FromBlob, Incoming, adopt, from_blob, layer_form, layer_media_type};
use super::layer::compress::{Compression, decompress};
use super::layer::graft::open_root;
use super::layer::pack::{names, pack};
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

/// A layer that was made of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Id of the layer on top of all below it.
    pub chain: Digest,
    /// Digest of its plain tar.
    pub diff_id: Digest,
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

    /// Makes a layer of a directory that was the upper one of an overlay, and moves it into the
    /// store on top of the layers `below`; `None` if it is empty.
    ///
    /// The directory is taken as it is: nothing is unpacked, and its bytes are hashed while the
    /// archive is written.
    pub fn seal(
        &self,
        lease: &Lease<'_>,
        upper: &Path,
        below: Option<&Digest>,
    ) -> Result<Option<Sealed>> {
        let root = open_root(upper)?;
        let is_empty = names(&root).map(|names| names.is_empty());
        if is_empty.map_err(|errno| Error::io("list", &upper.display())(errno.into()))? {
            return Ok(None);
        }
        let mut size = 0;
        let made = spool(lease, |to| {
            let mut writer = Writer::new(to);
            size = pack(root.as_fd(), layer_form(), &mut writer)?;
            writer
                .finish()
                .map(drop)
                .map_err(|error| tar::Error::Stream(error).into())
        })?;
        let store = self.store();
        store.adopt_blob(lease, &made.path, &made.diff_id, made.size)?;
        let kind = layer_media_type(Compression::None);
        self.note_layer_blobs(&[(made.diff_id.clone(), made.diff_id.clone(), kind)])?;
        let chain = chain_id(below, &made.diff_id);
        let scratch = lease.scratch();
        let at = |doing| Error::io(doing, &scratch.display());
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&scratch)
            .map_err(at("create directory"))?;
        fs::rename(upper, scratch.join("diff")).map_err(at("rename"))?;
        store.adopt_layer(lease, &scratch, &chain, &made.diff_id, size)?;
        Ok(Some(Sealed {
            chain,
            diff_id: made.diff_id,
        }))
    }

    /// Puts the layer of a blob that the store has on top of the layers `below`.
    pub fn stack(
        &self,
        lease: &Lease<'_>,
        diff_id: &Digest,
        below: Option<&Digest>,
        paths: &[PathBuf],
    ) -> Result<Digest> {
        let chain = chain_id(below, diff_id);
        let layer = FromBlob {
            blob: diff_id,
            diff_id,
            chain: &chain,
        };
        if let Incoming::Fresh(fresh) = from_blob(lease, &layer)? {
            fresh.adopt(lease, &chain, paths)?;
        }
        Ok(chain)
    }

    /// Enters images that were built, each one the parent of the next, and names the last.
    pub fn enter_built(
        &self,
        lease: &Lease<'_>,
        base: Option<&Digest>,
        configs: &[ImageConfig],
        tags: &[Reference],
    ) -> Result<Option<Digest>> {
        let store = self.store();
        let mut parent = base.cloned();
        for (at, config) in configs.iter().enumerate() {
            let raw =
                serde_json::to_vec(config).map_err(|error| Error::document("image", error))?;
            let id = store.put_blob(lease, &raw)?;
            let mut blobs = vec![id.clone()];
            blobs.extend(self.blobs_of_layers(&config.rootfs.diff_ids)?);
            let tags = if at + 1 == configs.len() { tags } else { &[] };
            let new = NewImage {
                id: &id,
                config,
                manifest: None,
                parent: parent.as_ref().filter(|parent| **parent != id),
                blobs: &blobs,
            };
            self.insert(lease, &new, tags, &[])?;
            parent = Some(id);
        }
        Ok(parent)
    }

    fn blobs_of_layers(&self, diff_ids: &[Digest]) -> Result<Vec<Digest>> {
        let mut blobs = Vec::new();
        self.read(|t| {
            for diff_id in diff_ids {
                blobs.extend(super::catalog::digests(
                    t,
                    "SELECT digest FROM layer_blobs WHERE diff = ?1
                     AND digest IN (SELECT digest FROM blobs)",
                    [diff_id.to_string()],
                )?);
            }
            Ok(())
        })?;
        Ok(blobs)
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
