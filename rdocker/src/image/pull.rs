//! `pull`: an image from a registry, each layer unpacked while it is still coming.
//!
//! Several layers come at once. A download that stops, in this process or in one that was killed,
//! goes on where it stopped. Nothing has a name in the store before its digest was checked.

use std::io::{self, Read};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use crate::store;
use crate::store::blob::{Ingest, Part};
use crate::store::digest::{Digest, Hasher};
use crate::store::gc::Parts;
use crate::store::lease::Lease;

use super::catalog::{CONFIG_MAX, NewImage, digests};
use super::config::{ImageConfig, chain_ids};
use super::intake::{FromBlob, Incoming, Pieces, adopt, from_blob, parallel, unpack_layer};
use super::load::check_config;
use super::manifest::{self, Descriptor, Document, MANIFEST_MAX, Manifest, media};
use super::platform::Platform;
use super::progress::{Event, Progress, Status};
use super::reference::Reference;
use super::registry::http::Answer;
use super::registry::session::scope;
use super::registry::{self, Access, RegistryOptions, Session};
use super::{Error, Images, Result};

/// Layers that come at once.
const DOWNLOADS: usize = 6;
/// Tries in a row that may bring nothing.
const TRIES: u32 = 5;
/// The wait before the second try; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes that are read at once.
const READ: usize = 128 << 10;
/// Reads under way from the network to the unpacker.
const READS: usize = 16;
/// Bytes between two reports of progress.
const REPORT: u64 = 512 << 10;

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
struct Fetched {
    bytes: Vec<u8>,
    digest: Digest,
    document: Document,
}

/// What all layers of one pull share.
struct Pull<'a> {
    session: &'a Session,
    lease: &'a Lease<'a>,
    name: &'a Reference,
    scope: String,
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
        let mut first_error = None;
        for session in Session::open_all(name.domain(), &options.registry, Access::Pull)? {
            let pull = Pull {
                session: &session,
                lease: &lease,
                name: &name,
                scope: scope(name.path(), Access::Pull),
                progress,
            };
            match self.pull_from(&pull, options) {
                // A mirror that fails is passed over; what was asked for is behind it.
                Err(error) if session.mirror => drop(first_error.replace(error)),
                result => {
                    let pulled = result?;
                    drop(lease);
                    self.store().collect(Parts::Old)?;
                    return Ok(pulled);
                }
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

    fn pull_from(&self, pull: &Pull<'_>, options: &PullOptions) -> Result<Pulled> {
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
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
        let mut blobs = vec![self.store().put_blob(pull.lease, &top.bytes)?];
        let digest = top.digest.clone();
        let (manifest_digest, manifest) = pull.descend(self, top, &platform, &mut blobs)?;
        let raw = pull.config(self, &manifest)?;
        let config: ImageConfig = serde_json::from_slice(&raw)
            .map_err(|error| Error::document("image configuration", error))?;
        check_config(&config, manifest.layers.len())?;
        self.pull_layers(pull, &manifest, &config)?;
        blobs.push(manifest.config.digest.clone());
        for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            blobs.extend(self.blob_for(pull.lease, &layer.digest, diff_id)?);
        }
        self.note_sources(pull, &blobs)?;
        let before = self.resolve_id(&pull.name.familiar()).ok();
        let id = manifest.config.digest.clone();
        let new = NewImage {
            id: &id,
            config: &config,
            manifest: Some(&manifest_digest),
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
    fn layer(&self, layer: &Descriptor, status: Status, current: u64) {
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
            self.download(config, &mut part, |_| {})?;
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

    /// Fetches the rest of a blob, again and again as long as something comes.
    fn download(
        &self,
        blob: &Descriptor,
        part: &mut Part,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<()> {
        let mut tries = 0;
        while part.have() < part.size() {
            let before = part.have();
            match self.fetch(blob, part, &mut sink) {
                Ok(()) => {}
                Err(error) if !is_transient(&error) => return Err(error),
                Err(error) => {
                    tries = if part.have() > before { 0 } else { tries + 1 };
                    if tries >= TRIES {
                        return Err(error);
                    }
                    std::thread::sleep(PAUSE * 2u32.pow(tries));
                }
            }
        }
        Ok(())
    }

    /// One request for the rest of a blob.
    fn fetch(
        &self,
        blob: &Descriptor,
        part: &mut Part,
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<()> {
        let url = self
            .session
            .url(&format!("/v2/{}/blobs/{}", self.name.path(), blob.digest));
        let range = format!("bytes={}-", part.have());
        let ranged = [("Range", range.as_str())];
        let headers: &[(&str, &str)] = if part.have() > 0 { &ranged } else { &[] };
        let answer = self.session.get("GET", &url, headers, &self.scope)?;
        let skip = match answer.status {
            206 if starts_at(&answer, part.have()) => 0,
            // No ranges here: the beginning comes again.
            200 => part.have(),
            206 => return Err(self.bad_range(&answer)),
            _ => return Err(answer.error("Get").into()),
        };
        let mut stream = answer.into_reader();
        let unreachable = |error: io::Error| {
            let url = registry::http::shown(&url);
            Error::from(registry::Error::Unreachable {
                method: "Get",
                url,
                why: error.to_string(),
            })
        };
        let skipped =
            io::copy(&mut (&mut stream).take(skip), &mut io::sink()).map_err(unreachable)?;
        if skipped < skip {
            return Err(unreachable(io::ErrorKind::UnexpectedEof.into()));
        }
        self.receive(blob, part, &mut stream, sink, unreachable)
    }

    fn receive(
        &self,
        blob: &Descriptor,
        part: &mut Part,
        stream: &mut impl Read,
        sink: &mut impl FnMut(&[u8]),
        unreachable: impl Fn(io::Error) -> Error,
    ) -> Result<()> {
        let mut buffer = vec![0; READ];
        let mut reported = part.have();
        loop {
            let n = match stream.read(&mut buffer) {
                Ok(0) if part.have() < part.size() => {
                    return Err(unreachable(io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreachable(error)),
            };
            part.append(&buffer[..n])
                .map_err(|error| verification(error, blob))?;
            sink(&buffer[..n]);
            if part.have() - reported >= REPORT || part.have() == part.size() {
                reported = part.have();
                self.layer(blob, Status::Downloading, reported);
            }
        }
    }

    fn bad_range(&self, answer: &Answer) -> Error {
        let range = answer.header("content-range").unwrap_or_default();
        let why = format!("it answered another range of a blob than asked for: {range:?}");
        registry::Error::Protocol {
            registry: self.session.host().to_owned(),
            why,
        }
        .into()
    }
}

type Pipe = SyncSender<io::Result<Vec<u8>>>;

/// Whether an answer's `Content-Range` begins at this byte.
fn starts_at(answer: &Answer, at: u64) -> bool {
    let range = answer
        .header("content-range")
        .and_then(|range| range.strip_prefix("bytes "));
    range
        .and_then(|range| range.split('-').next())
        .and_then(|start| start.parse().ok())
        == Some(at)
}

/// Whether the same request may succeed later.
fn is_transient(error: &Error) -> bool {
    match error {
        Error::Registry(registry::Error::Unreachable { .. }) => true,
        Error::Registry(registry::Error::Refused { status, .. }) => {
            matches!(status, 408 | 429 | 500..=599)
        }
        _ => false,
    }
}

fn finish(part: Part, lease: &Lease<'_>, blob: &Descriptor) -> Result<()> {
    part.finish(lease)
        .map_err(|error| verification(error, blob))
}

/// Docker's sentence for bytes that are not the blob.
fn verification(error: store::Error, blob: &Descriptor) -> Error {
    match error {
        store::Error::Mismatch { want, got, .. } => {
            let why = format!("want {want}, got {got}");
            registry::Error::Verification {
                digest: blob.digest.to_string(),
                why,
            }
            .into()
        }
        other => other.into(),
    }
}
