//! `pull`: an image from a registry, each layer unpacked while it is still coming.
//!
//! Several layers come at once. A download that stops, in this process or in one that was killed,
//! goes on where it stopped. Nothing has a name in the store before its digest was checked.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::store::blob::{Ingest, Part};
use crate::store::digest::{Digest, Hasher};
use crate::store::gc::Parts;
use crate::store::lease::Lease;

use super::catalog::{CONFIG_MAX, NewImage, digests};
use super::config::{ImageConfig, chain_ids};
use super::download::finish;
use super::intake::{FromBlob, Incoming, Pieces, adopt, from_blob, parallel, unpack_layer};
use super::load::check_config;
use super::manifest::{self, Descriptor, Document, MANIFEST_MAX, Manifest, media};
use super::platform::Platform;
use super::progress::{Event, Progress, Quiet, Status};
use super::reference::Reference;
use super::registry::session::scope;
use super::registry::{self, Access, RegistryOptions, Session};
use super::{Error, Images, Result};

/// Layers that come at once.
const DOWNLOADS: usize = 6;
/// Reads under way from the network to the unpacker.
const READS: usize = 16;

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// What it must run on; this machine by default.
    pub platform: Option<Platform>,
    /// Mirrors, trust and credentials.
    pub registry: RegistryOptions,
}

/// What a pull brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub id: Digest,
    /// The digest of the manifest or index behind the name.
    pub digest: Digest,
    /// Whether the name meant another image before, or none.
    pub updated: bool,
}

/// A document as it came.
pub struct Fetched {
    /// As the registry has it.
    pub bytes: Vec<u8>,
    /// Of the bytes.
    pub digest: Digest,
    /// What they say.
    pub document: Document,
}

/// What a name means on one platform.
struct Described {
    /// Of the manifest.
    digest: Digest,
    manifest: Manifest,
    config: ImageConfig,
    /// Documents on the way, and the configuration.
    blobs: Vec<Digest>,
}

/// What all layers of one pull share.
pub(super) struct Pull<'a> {
    pub(super) session: &'a Session,
    lease: &'a Lease<'a>,
    pub(super) name: &'a Reference,
    pub(super) scope: String,
    progress: &'a dyn Progress,
}

impl Images<'_> {
    /// Pulls what `name` means in its registry; a bare name means `latest`.
    ///
    /// # Errors
    /// [`Error::Registry`] with Docker's words; then nothing is entered, and what was downloaded
    /// waits for the next try.
    pub fn pull(
        &self,
        name: &Reference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<Pulled> {
        let name = name.clone().or_latest();
        let lease = self.store().lease()?;
        let pulled = self.in_registry(&lease, &name, options, progress, |pull| {
            self.pull_from(pull, options)
        })?;
        drop(lease);
        self.store().collect(Parts::Old)?;
        Ok(pulled)
    }

    /// The configuration of what `name` means in its registry, without the layers.
    ///
    /// # Errors
    /// As [`Images::pull`].
    pub fn remote_config(
        &self,
        lease: &Lease<'_>,
        name: &Reference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<ImageConfig> {
        self.in_registry(lease, name, options, progress, |pull| {
            Ok(self.describe(pull, pull.top()?, options)?.config)
        })
    }

    /// Brings the layers of what `name` means in its registry; the lease keeps them, no image does.
    ///
    /// # Errors
    /// As [`Images::pull`].
    pub fn remote_layers(
        &self,
        lease: &Lease<'_>,
        name: &Reference,
        options: &PullOptions,
        progress: &dyn Progress,
    ) -> Result<()> {
        self.in_registry(lease, name, options, progress, |pull| {
            let described = self.describe(pull, pull.top()?, options)?;
            self.pull_blobs(pull, &described).map(drop)
        })
    }

    /// The document that `name` means in its registry, which is not kept.
    ///
    /// # Errors
    /// As [`Images::pull`].
    pub fn remote_document(&self, name: &Reference, registry: &RegistryOptions) -> Result<Fetched> {
        let options = PullOptions {
            platform: None,
            registry: registry.clone(),
        };
        let lease = self.store().lease()?;
        self.in_registry(&lease, name, &options, &Quiet, |pull| pull.top())
    }

    /// Asks the mirrors of the name's registry, then the registry itself.
    fn in_registry<T>(
        &self,
        lease: &Lease<'_>,
        name: &Reference,
        options: &PullOptions,
        progress: &dyn Progress,
        ask: impl Fn(&Pull<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut first_error = None;
        for session in Session::open_all(name.domain(), &options.registry, Access::Pull)? {
            let pull = Pull {
                session: &session,
                lease,
                name,
                scope: scope(name.path(), Access::Pull),
                progress,
            };
            match ask(&pull) {
                // A mirror that fails is passed over; what was asked for is behind it.
                Err(error) if session.mirror => drop(first_error.replace(error)),
                result => return result,
            }
        }
        Err(first_error.unwrap_or_else(|| {
            let why = "it does not answer".to_owned();
            registry::Error::Protocol {
                registry: name.domain().to_owned(),
                why,
            }
            .into()
        }))
    }

    /// From the document that the name means to the configuration for the platform.
    fn describe(&self, pull: &Pull<'_>, top: Fetched, options: &PullOptions) -> Result<Described> {
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let mut blobs = vec![self.store().put_blob(pull.lease, &top.bytes)?];
        let (digest, manifest) = pull.descend(self, top, &platform, &mut blobs)?;
        let raw = pull.config(self, &manifest)?;
        blobs.push(manifest.config.digest.clone());
        let config: ImageConfig = serde_json::from_slice(&raw)
            .map_err(|error| Error::document("image configuration", error))?;
        check_config(&config, manifest.layers.len())?;
        Ok(Described {
            digest,
            manifest,
            config,
            blobs,
        })
    }

    /// Brings the layers; gives all blobs of the image.
    fn pull_blobs(&self, pull: &Pull<'_>, described: &Described) -> Result<Vec<Digest>> {
        let (manifest, config) = (&described.manifest, &described.config);
        self.pull_layers(pull, manifest, config)?;
        let mut blobs = described.blobs.clone();
        for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            blobs.extend(self.blob_for(pull.lease, &layer.digest, diff_id)?);
        }
        self.note_sources(pull, &blobs)?;
        Ok(blobs)
    }

    fn pull_from(&self, pull: &Pull<'_>, options: &PullOptions) -> Result<Pulled> {
        let top = pull.top()?;
        let tell = pull
            .name
            .tag()
            .map_or_else(|| top.digest.to_string(), str::to_owned);
        let text = format!("Pulling from {}", pull.name.path());
        pull.progress.event(Event::Of {
            id: &tell,
            text: &text,
        });
        let digest = top.digest.clone();
        let described = self.describe(pull, top, options)?;
        let blobs = self.pull_blobs(pull, &described)?;
        let before = self.resolve_id(&pull.name.familiar()).ok();
        let id = described.manifest.config.digest.clone();
        let new = NewImage {
            id: &id,
            config: &described.config,
            manifest: Some(&described.digest),
            parent: None,
            blobs: &blobs,
        };
        let tag = (pull.name.digest().is_none()).then(|| pull.name.clone());
        let by_digest = pull.name.at_digest(&digest);
        self.insert(pull.lease, &new, tag.as_slice(), &[by_digest])?;
        Ok(Pulled {
            updated: before.as_ref() != Some(&id),
            id,
            digest,
        })
    }

    fn pull_layers(
        &self,
        pull: &Pull<'_>,
        manifest: &Manifest,
        config: &ImageConfig,
    ) -> Result<()> {
        let diff_ids = &config.rootfs.diff_ids;
        let chain = chain_ids(diff_ids);
        for layer in &manifest.layers {
            pull.layer(layer, Status::PullingFsLayer, 0);
        }
        for layer in manifest.layers.iter().skip(DOWNLOADS) {
            pull.layer(layer, Status::Waiting, 0);
        }
        let layers = parallel(&manifest.layers, DOWNLOADS, |at, layer| {
            let want = FromBlob {
                blob: &layer.digest,
                diff_id: &diff_ids[at],
                chain: &chain[at],
            };
            pull.take_layer(self, layer, &want)
        })?;
        let pairs = diff_ids.iter().zip(&manifest.layers);
        let noted: Vec<(Digest, Digest, &str)> = pairs
            .map(|(diff_id, layer)| {
                (
                    diff_id.clone(),
                    layer.digest.clone(),
                    oci_type(&layer.media_type),
                )
            })
            .collect();
        self.note_layer_blobs(&noted)?;
        adopt(pull.lease, diff_ids, layers)
    }

    /// The blob that a save or push of a layer will read: the one that the manifest names, or one
    /// that another image brought.
    fn blob_for(
        &self,
        lease: &Lease<'_>,
        named: &Digest,
        diff_id: &Digest,
    ) -> Result<Option<Digest>> {
        self.write(|t| {
            let query = "SELECT b.digest FROM blobs b WHERE b.digest = ?1 UNION ALL
                SELECT l.digest FROM layer_blobs l JOIN blobs b ON b.digest = l.digest WHERE l.diff = ?2";
            let found = digests(t, query, (named.to_string(), diff_id.to_string()))?.into_iter().next();
            if let Some(digest) = &found {
                lease.keep(t, digest)?;
            }
            Ok(found)
        })
    }

    /// Remembers that the registry has these blobs in this repository.
    fn note_sources(&self, pull: &Pull<'_>, blobs: &[Digest]) -> Result<()> {
        if pull.session.mirror {
            return Ok(());
        }
        self.note_blob_sources(pull.name, blobs)
    }

    pub(super) fn note_blob_sources(&self, name: &Reference, blobs: &[Digest]) -> Result<()> {
        self.write(|t| {
            for blob in blobs {
                t.execute(
                    "INSERT OR IGNORE INTO blob_sources VALUES (?1, ?2, ?3)",
                    (blob.to_string(), name.domain(), name.path()),
                )?;
            }
            Ok(())
        })
    }
}

/// A layer's media type without Docker's spelling.
fn oci_type(media_type: &str) -> &'static str {
    if media_type.ends_with("zstd") {
        media::OCI_LAYER_ZSTD
    } else if media_type.ends_with("gzip") {
        media::OCI_LAYER_GZIP
    } else {
        media::OCI_LAYER
    }
}

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

impl Pull<'_> {
    pub(super) fn layer(&self, layer: &Descriptor, status: Status, current: u64) {
        let id = layer.digest.short();
        self.progress.event(Event::Layer {
            id,
            status,
            current,
            total: layer.size,
        });
    }

    /// The document that the name means.
    fn top(&self) -> Result<Fetched> {
        let fetched = match self.name.digest() {
            Some(digest) => self.document(&digest.to_string(), Some(digest)),
            None => self.document(self.name.tag().unwrap_or("latest"), None),
        };
        fetched.map_err(|error| self.explain(error))
    }

    /// Docker's words for what a first request is refused with.
    fn explain(&self, error: Error) -> Error {
        let Error::Registry(registry::Error::Refused { status, why, .. }) = &error else {
            return error;
        };
        let name = self.name.familiar_name();
        let unknown_name = why.starts_with("name unknown") || why.starts_with("name invalid");
        match status {
            401 | 403 => registry::Error::PullDenied {
                name,
                why: why.clone(),
            }
            .into(),
            404 if unknown_name => registry::Error::PullDenied {
                name,
                why: why.clone(),
            }
            .into(),
            404 => registry::Error::NotFound {
                name: self.name.familiar(),
            }
            .into(),
            _ => error,
        }
    }

    fn document(&self, what: &str, want: Option<&Digest>) -> Result<Fetched> {
        let url = self
            .session
            .url(&format!("/v2/{}/manifests/{what}", self.name.path()));
        let answer = self
            .session
            .get("GET", &url, &[("Accept", ACCEPT)], &self.scope)?;
        if answer.status != 200 {
            return Err(answer.error("Get").into());
        }
        let kind = answer
            .header("content-type")
            .map(|kind| kind.split(';').next().unwrap_or(kind).to_owned());
        if kind
            .as_deref()
            .is_some_and(|kind| media::DOCKER_SCHEMA1.contains(&kind))
        {
            let why = "schema 1 is no longer supported; push the image again with a newer tool";
            return Err(Error::document("manifest", why));
        }
        let bytes = answer.bytes(MANIFEST_MAX)?;
        let mut hasher =
            Hasher::new(want.map_or(crate::store::digest::Algorithm::Sha256, Digest::algorithm));
        hasher.update(&bytes);
        let digest = hasher.finish();
        if let Some(want) = want.filter(|want| **want != digest) {
            return Err(Error::document(
                "manifest",
                format!("want digest {want}, got {digest}"),
            ));
        }
        let document = manifest::parse(&bytes, kind.as_deref())?;
        Ok(Fetched {
            bytes,
            digest,
            document,
        })
    }

    /// From an index to the manifest for the platform.
    fn descend(
        &self,
        images: &Images<'_>,
        mut at: Fetched,
        platform: &Platform,
        blobs: &mut Vec<Digest>,
    ) -> Result<(Digest, Manifest)> {
        for _ in 0..4 {
            let index = match at.document {
                Document::Manifest(manifest) => return Ok((at.digest, *manifest)),
                Document::Index(index) => index,
            };
            let entry = manifest::select(&index, platform)?;
            at = self.document(&entry.digest.to_string(), Some(&entry.digest))?;
            if at.bytes.len() as u64 != entry.size {
                let why = format!("want {} bytes, got {}", entry.size, at.bytes.len());
                return Err(Error::document(format!("manifest {}", entry.digest), why));
            }
            blobs.push(images.store().put_blob(self.lease, &at.bytes)?);
        }
        Err(Error::document(
            "manifest",
            "its indexes are nested more than 4 deep",
        ))
    }

    fn config(&self, images: &Images<'_>, manifest: &Manifest) -> Result<Vec<u8>> {
        let config = &manifest.config;
        if config.size > CONFIG_MAX {
            return Err(Error::document(
                "image configuration",
                "it is larger than 8 MiB",
            ));
        }
        if let Ingest::Download(mut part) =
            images
                .store()
                .ingest(self.lease, &config.digest, config.size)?
        {
            part.replay(|_| {})?;
            // Docker's lines are about layers alone.
            let untold = Pull {
                progress: &Quiet,
                scope: self.scope.clone(),
                ..*self
            };
            untold.download(config, &mut part, |_| {})?;
            finish(part, self.lease, config)?;
        }
        Ok(images.store().read_blob(&config.digest, CONFIG_MAX)?)
    }

    fn take_layer(
        &self,
        images: &Images<'_>,
        layer: &Descriptor,
        want: &FromBlob<'_>,
    ) -> Result<Incoming> {
        let store = images.store();
        let known = store.keep_layer(self.lease, want.chain)?.is_some();
        if known
            && images
                .blob_for(self.lease, want.blob, want.diff_id)?
                .is_some()
        {
            self.layer(layer, Status::AlreadyExists, layer.size);
            return Ok(Incoming::Present);
        }
        let incoming = match store.ingest(self.lease, &layer.digest, layer.size)? {
            Ingest::Present => {
                self.layer(layer, Status::Extracting, 0);
                from_blob(self.lease, want)?
            }
            Ingest::Download(part) => self.stream_layer(layer, part, want)?,
        };
        self.layer(layer, Status::PullComplete, layer.size);
        Ok(incoming)
    }

    /// Downloads a layer and unpacks it at once.
    fn stream_layer(
        &self,
        layer: &Descriptor,
        mut part: Part,
        want: &FromBlob<'_>,
    ) -> Result<Incoming> {
        std::thread::scope(|scope| {
            let (send, receive) = sync_channel(READS);
            let lease = self.lease;
            let diff_id = want.diff_id;
            let unpacker =
                scope.spawn(move || unpack_layer(lease, Pieces::new(receive), Some(diff_id)));
            let downloaded = self.feed(layer, &mut part, send);
            let unpacked = unpacker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match (downloaded, unpacked) {
                (Ok(()), unpacked) => {
                    // First the digest: what it does not cover is not worth an error of its own.
                    finish(part, self.lease, layer)?;
                    unpacked.map(Incoming::Fresh)
                }
                (Err(error), _) => Err(error),
            }
        })
    }

    /// Sends what is there already and then what comes; an error ends the unpacker's stream too.
    fn feed(&self, layer: &Descriptor, part: &mut Part, send: Pipe) -> Result<()> {
        // An unpacker that gave up does not end the download: the digest tells whether the
        // registry's blob is bad or its bytes were damaged on the way.
        let mut heard = true;
        let mut pass = |bytes: &[u8]| heard = heard && send.send(Ok(bytes.to_vec())).is_ok();
        part.replay(&mut pass)?;
        let result = self.download(layer, part, &mut pass);
        match &result {
            Ok(()) => self.layer(layer, Status::DownloadComplete, layer.size),
            // Without this the unpacker would take the end for a cut archive.
            Err(error) => drop(send.send(Err(io::Error::other(error.to_string())))),
        }
        result
    }
}

type Pipe = SyncSender<io::Result<Vec<u8>>>;
