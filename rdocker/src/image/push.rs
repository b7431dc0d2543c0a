//! `push`: an image to a registry, without sending what the registry has.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

use crate::store::digest::{Algorithm, Digest, Hashed};
use crate::store::gc::stored_digest;
use crate::store::lease::Lease;

use super::catalog::{find_name, strings};
use super::download::is_transient;
use super::intake::parallel;
use super::layer::compress::gzip;
use super::manifest::{Descriptor, Manifest, media};
use super::progress::{Event, Progress, Quiet, Status};
use super::reference::Reference;
use super::registry::http::{Answer, Payload};
use super::registry::session::{query, scope};
use super::registry::{self, Access, RegistryOptions, Session};
use super::save::descriptor;
use super::{Error, Image, Images, Result};

/// Blobs that go at once.
const UPLOADS: usize = 5;
/// Tries for one blob.
const TRIES: u32 = 5;
/// The wait before the second try; it doubles.
const PAUSE: Duration = Duration::from_millis(500);
/// What gzip is asked for: as Docker, but layers are compressed once and then kept.
const GZIP_LEVEL: u32 = 6;
/// Bytes between two reports of progress.
const REPORT: u64 = 512 << 10;

/// What a push left in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The tag.
    pub tag: String,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
}

/// What all blobs of one push share.
struct Push<'a> {
    session: &'a Session,
    name: &'a Reference,
    progress: &'a dyn Progress,
}

impl Images<'_> {
    /// Pushes the image that `name` is a tag of; a bare name means `latest`.
    ///
    /// # Errors
    /// [`registry::Error::NotLocal`] if no image has the name; [`registry::Error::PushDenied`].
    pub fn push(
        &self,
        name: &Reference,
        options: &RegistryOptions,
        progress: &dyn Progress,
    ) -> Result<Pushed> {
        let name = name.clone().or_latest();
        let text = format!("The push refers to repository [{}]", name.name());
        progress.event(Event::Message(&text));
        let id = self.read(|t| find_name(t, &name))?;
        let not_local = || registry::Error::NotLocal {
            name: name.familiar_name(),
        };
        let image = self.get(&id.ok_or_else(not_local)?)?;
        let tag = name
            .tag()
            .ok_or_else(|| Error::InvalidArgument("cannot push a digest reference".to_owned()))?;
        let lease = self.store().lease()?;
        let sessions = Session::open_all(name.domain(), options, Access::Push)?;
        let session = sessions.first().ok_or_else(|| registry::Error::Protocol {
            registry: name.domain().to_owned(),
            why: "it does not answer".to_owned(),
        })?;
        let push = Push {
            session,
            name: &name,
            progress,
        };
        let (bytes, manifest) = self.manifest_to_push(&lease, &image, &push)?;
        parallel(&manifest.layers, UPLOADS, |_, layer| {
            self.push_blob(&push, layer).map_err(denied)
        })?;
        // Docker's lines are about layers alone.
        let untold = Push {
            progress: &Quiet,
            ..push
        };
        self.push_blob(&untold, &manifest.config).map_err(denied)?;
        let digest = push
            .manifest(&bytes, &manifest.media_type, tag)
            .map_err(denied)?;
        self.note_pushed(&lease, &image, &push, &bytes, &manifest)?;
        let size = bytes.len() as u64;
        let text = format!("{tag}: digest: {digest} size: {size}");
        progress.event(Event::Message(&text));
        Ok(Pushed {
            tag: tag.to_owned(),
            digest,
            size,
        })
    }

    /// The manifest that the image came with, or Docker's form of one over compressed layers.
    fn manifest_to_push(
        &self,
        lease: &Lease<'_>,
        image: &Image,
        push: &Push<'_>,
    ) -> Result<(Vec<u8>, Manifest)> {
        if let Some(kept) = self.kept_manifest(lease, image)? {
            return Ok(kept);
        }
        let layers = parallel(&image.layers, UPLOADS, |_, layer| {
            let (id, status) = (layer.diff_id.short(), Status::Preparing);
            push.progress.event(Event::Layer {
                id,
                status,
                current: 0,
                total: layer.size,
            });
            self.compressed(lease, image, &layer.diff_id)
        })?;
        let zstd = layers
            .iter()
            .any(|layer| layer.media_type == media::OCI_LAYER_ZSTD);
        // Docker's types have no zstd; without it they are what every registry knows.
        let (kind, config_kind) = match zstd {
            true => (media::OCI_MANIFEST, media::OCI_CONFIG),
            false => (media::DOCKER_MANIFEST, media::DOCKER_CONFIG),
        };
        let docker = |mut layer: Descriptor| {
            if !zstd {
                media::DOCKER_LAYER_GZIP.clone_into(&mut layer.media_type);
            }
            layer
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: kind.to_owned(),
            config: descriptor(config_kind, image.id.clone(), image.raw.len() as u64),
            layers: layers.into_iter().map(docker).collect(),
        };
        let bytes =
            serde_json::to_vec(&manifest).map_err(|error| Error::document("manifest", error))?;
        Ok((bytes, manifest))
    }

    /// A compressed blob of a layer: one that is here, or made now and kept for the next push.
    fn compressed(&self, lease: &Lease<'_>, image: &Image, diff_id: &Digest) -> Result<Descriptor> {
        let blob = self.layer_blob(image, diff_id)?;
        self.store().keep_blob(lease, &blob.digest)?;
        if blob.media_type != media::OCI_LAYER {
            return Ok(blob);
        }
        let path = lease.scratch();
        let at = Error::io("compress a layer to", &path.display());
        let file = File::create_new(&path).map_err(&at)?;
        let to = Hashed::new(BufWriter::with_capacity(256 << 10, file), Algorithm::Sha256);
        let mut encoder = gzip(to, GZIP_LEVEL);
        let mut plain = Hashed::new(self.store().open_blob(&blob.digest)?, diff_id.algorithm());
        io::copy(&mut plain, &mut encoder).map_err(&at)?;
        let (_, got, _) = plain.finish();
        if got != *diff_id {
            return Err(Error::Damaged {
                id: image.id.clone(),
                why: format!("layer {diff_id} was changed"),
            });
        }
        let (mut file, digest, size) = encoder.finish().map_err(&at)?.finish();
        file.flush().map_err(at)?;
        self.store().adopt_blob(lease, &path, &digest, size)?;
        self.note_layer_blobs(&[(diff_id.clone(), digest.clone(), media::OCI_LAYER_GZIP)])?;
        self.write(|t| {
            t.execute(
                "INSERT OR IGNORE INTO image_blobs VALUES (?1, ?2)",
                (image.id.to_string(), digest.to_string()),
            )?;
            Ok(())
        })?;
        Ok(descriptor(media::OCI_LAYER_GZIP, digest, size))
    }

    /// Puts one blob into the repository: it is there, or it is elsewhere, or it is sent.
    fn push_blob(&self, push: &Push<'_>, blob: &Descriptor) -> Result<()> {
        if push.has(blob)? {
            push.tell(blob, Status::LayerAlreadyExists, blob.size);
            return Ok(());
        }
        let sources = self.sources(push.name, &blob.digest)?;
        let mut tries = 0;
        loop {
            tries += 1;
            let started = push.start(blob, sources.first().map(String::as_str));
            let sent = started.and_then(|upload| match upload {
                Upload::Mounted => Ok(Status::Mounted),
                Upload::At(url) => self.upload(push, blob, &url).map(|()| Status::Pushed),
            });
            match sent {
                Ok(status) => {
                    push.tell(blob, status, blob.size);
                    self.note_blob_sources(push.name, std::slice::from_ref(&blob.digest))?;
                    return Ok(());
                }
                Err(error) if tries < TRIES && is_transient(&error) => {
                    std::thread::sleep(PAUSE * 2u32.pow(tries - 1));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn upload(&self, push: &Push<'_>, blob: &Descriptor, url: &str) -> Result<()> {
        let file = self.store().open_blob(&blob.digest)?;
        let mut stream = Told {
            file,
            push,
            blob,
            sent: 0,
            told: 0,
        };
        let kind = [("Content-Type", "application/octet-stream")];
        let answer =
            push.session
                .stream("PATCH", url, &kind, &push.scope(), &mut stream, blob.size)?;
        if answer.status != 202 {
            return Err(answer.error("Patch").into());
        }
        let next = push.session.location(&answer)?;
        let join = if next.contains('?') { '&' } else { '?' };
        let url = format!(
            "{next}{join}{}",
            query(&[("digest", &blob.digest.to_string())])
        );
        let answer = push
            .session
            .send("PUT", &url, &kind, &push.scope(), || Ok(Payload::Nothing))?;
        if answer.status != 201 {
            return Err(answer.error("Put").into());
        }
        Ok(())
    }

    /// Other repositories of the same registry that have a blob.
    fn sources(&self, name: &Reference, blob: &Digest) -> Result<Vec<String>> {
        self.read(|t| {
            strings(
                t,
                "SELECT repository FROM blob_sources
                 WHERE digest = ?1 AND registry = ?2 AND repository <> ?3 ORDER BY repository LIMIT 4",
                (blob.to_string(), name.domain(), name.path()),
            )
        })
    }

    /// Remembers the manifest and its name in the registry: `inspect` shows it as a repo digest.
    fn note_pushed(
        &self,
        lease: &Lease<'_>,
        image: &Image,
        push: &Push<'_>,
        bytes: &[u8],
        manifest: &Manifest,
    ) -> Result<()> {
        let digest = self.store().put_blob(lease, bytes)?;
        let blobs = manifest
            .layers
            .iter()
            .map(|layer| &layer.digest)
            .chain([&digest]);
        let blobs: Vec<String> = blobs.map(Digest::to_string).collect();
        self.write(|t| {
            // The image may have been removed meanwhile; then there is nothing to remember.
            let found = strings(
                t,
                "SELECT id FROM images WHERE id = ?1",
                [image.id.to_string()],
            )?;
            let Some(id) = found.first().map(|id| stored_digest(id)).transpose()? else {
                return Ok(());
            };
            for blob in &blobs {
                t.execute(
                    "INSERT OR IGNORE INTO image_blobs VALUES (?1, ?2)",
                    (id.to_string(), blob),
                )?;
            }
            t.execute(
                "UPDATE images SET manifest = coalesce(manifest, ?2) WHERE id = ?1",
                (id.to_string(), digest.to_string()),
            )?;
            t.execute(
                "INSERT OR REPLACE INTO repo_digests VALUES (?1, ?2, ?3)",
                (push.name.name(), digest.to_string(), id.to_string()),
            )?;
            Ok(())
        })
    }
}

/// What a registry answered to the start of an upload.
enum Upload {
    /// It took the blob from another repository.
    Mounted,
    /// The blob goes to this URL.
    At(String),
}

impl Push<'_> {
    fn scope(&self) -> String {
        scope(self.name.path(), Access::Push)
    }

    fn tell(&self, blob: &Descriptor, status: Status, current: u64) {
        let id = blob.digest.short();
        self.progress.event(Event::Layer {
            id,
            status,
            current,
            total: blob.size,
        });
    }

    fn has(&self, blob: &Descriptor) -> Result<bool> {
        let url = self
            .session
            .url(&format!("/v2/{}/blobs/{}", self.name.path(), blob.digest));
        let answer = self.session.get("HEAD", &url, &[], &self.scope())?;
        match answer.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(answer.error("Head").into()),
        }
    }

    fn start(&self, blob: &Descriptor, source: Option<&str>) -> Result<Upload> {
        let digest = blob.digest.to_string();
        let path = format!("/v2/{}/blobs/uploads/", self.name.path());
        let (path, scopes) = match source {
            Some(from) => (
                format!("{path}?{}", query(&[("mount", &digest), ("from", from)])),
                format!("{} {}", self.scope(), scope(from, Access::Pull)),
            ),
            None => (path, self.scope()),
        };
        let url = self.session.url(&path);
        let answer = self
            .session
            .send("POST", &url, &[], &scopes, || Ok(Payload::Nothing))?;
        match answer.status {
            201 => Ok(Upload::Mounted),
            202 => Ok(Upload::At(self.session.location(&answer)?)),
            _ => Err(answer.error("Post").into()),
        }
    }

    fn manifest(&self, bytes: &[u8], kind: &str, tag: &str) -> Result<Digest> {
        let url = self
            .session
            .url(&format!("/v2/{}/manifests/{tag}", self.name.path()));
        let headers = [("Content-Type", kind)];
        let answer = self
            .session
            .send("PUT", &url, &headers, &self.scope(), || {
                Ok(Payload::Bytes(bytes))
            })?;
        let digest = Digest::of(bytes);
        if !matches!(answer.status, 200 | 201) {
            return Err(answer.error("Put").into());
        }
        match announced(&answer) {
            Some(other) if other != digest => {
                let why = format!("it stored the manifest as {other}, not {digest}");
                Err(registry::Error::Protocol {
                    registry: self.session.host().to_owned(),
                    why,
                }
                .into())
            }
            _ => Ok(digest),
        }
    }
}

fn announced(answer: &Answer) -> Option<Digest> {
    answer.header("docker-content-digest")?.parse().ok()
}

/// A file that tells how much of it was read.
struct Told<'a, 'p> {
    file: File,
    push: &'a Push<'p>,
    blob: &'a Descriptor,
    sent: u64,
    told: u64,
}

impl io::Read for Told<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buf)?;
        self.sent += n as u64;
        if self.sent - self.told >= REPORT {
            self.told = self.sent;
            self.push.tell(self.blob, Status::Pushing, self.sent);
        }
        Ok(n)
    }
}

/// Docker's sentence for a push that is not allowed.
fn denied(error: Error) -> Error {
    match error {
        Error::Registry(registry::Error::Refused {
            status: 401 | 403,
            why,
            ..
        }) => registry::Error::PushDenied { why }.into(),
        other => other,
    }
}
