//! `load`: images out of an archive that `save`, skopeo, podman or an old docker wrote.
//!
//! An OCI layout inside the archive is used first, because it keeps manifests and so digests;
//! then `manifest.json`; then the `repositories` file of the oldest form.
//!
//! Source: image-spec, image-layout.md; moby, image/tarexport.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde::Deserialize;

use crate::store::digest::Digest;
use crate::store::gc::Parts;
use crate::store::lease::Lease;

use super::archive::{Archive, Member};
use super::catalog::{CONFIG_MAX, NewImage};
use super::config::{ImageConfig, chain_ids};
use super::intake::{FromBlob, adopt, from_blob, layer_media_type, parallel};
use super::layer::compress::Compression;
use super::manifest::{self, Descriptor, Document, Index, MANIFEST_MAX, Manifest, media};
use super::platform::Platform;
use super::progress::{Event, Progress, Status};
use super::reference::Reference;
use super::{Error, Images, Result};

/// The deepest index within an index.
const INDEX_DEPTH_MAX: usize = 4;
/// Layers that are unpacked at once.
pub(super) const UNPACKERS: usize = 4;

/// An image that came out of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: Digest,
    /// The names it has now, in Docker's short form; none for an image saved by id.
    pub names: Vec<String>,
}

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// An image of the archive whose parts are all found.
struct Found<'a> {
    config: &'a Member,
    layers: Vec<&'a Member>,
    /// The manifest, and the indexes above it.
    manifest: Option<Digest>,
    documents: Vec<&'a Member>,
    names: BTreeSet<Reference>,
}

impl Images<'_> {
    /// Takes every image of an archive; answers what came, in the archive's order.
    ///
    /// Of an index it takes what serves `platform`; without one, what serves this machine best.
    ///
    /// # Errors
    /// [`Error::Archive`] or [`Error::Document`] for an archive that is damaged or is none.
    /// Images that were complete before the error stay.
    pub fn load(
        &self,
        stream: impl Read + Send,
        platform: Option<&Platform>,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>> {
        let lease = self.store().lease()?;
        let archive = Archive::read(&lease, stream)?;
        let images = find_images(&archive, platform)?;
        let mut loaded = Vec::with_capacity(images.len());
        for image in &images {
            loaded.push(self.load_one(&lease, image, progress)?);
        }
        drop(lease);
        // An image whose name moved to a loaded one stays, untagged; scratch goes.
        self.store().collect(Parts::Old)?;
        Ok(loaded)
    }

    fn load_one(
        &self,
        lease: &Lease<'_>,
        image: &Found<'_>,
        progress: &dyn Progress,
    ) -> Result<Loaded> {
        let raw = std::fs::read(&image.config.file)
            .map_err(Error::io("read", &image.config.file.display()))?;
        let config: ImageConfig = serde_json::from_slice(&raw)
            .map_err(|error| Error::document("image configuration", error))?;
        check_config(&config, image.layers.len())?;
        let mut blobs: Vec<Digest> = Vec::new();
        for member in image
            .documents
            .iter()
            .chain([&image.config])
            .chain(&image.layers)
        {
            self.take_blob(lease, member)?;
            blobs.push(member.digest.clone());
        }
        let chain = chain_ids(&config.rootfs.diff_ids);
        let layers = parallel(&image.layers, UNPACKERS, |at, member| {
            let diff_id = &config.rootfs.diff_ids[at];
            let tell = |status| {
                let total = member.size;
                let current = if status == Status::Loading { 0 } else { total };
                progress.event(Event::Layer {
                    id: diff_id.short(),
                    status,
                    current,
                    total,
                });
            };
            tell(Status::Loading);
            let layer = FromBlob {
                blob: &member.digest,
                diff_id,
                chain: &chain[at],
            };
            let incoming = from_blob(lease, &layer)?;
            tell(Status::PullComplete);
            Ok(incoming)
        })?;
        self.note_layers(&config, &image.layers)?;
        adopt(lease, &config.rootfs.diff_ids, layers)?;
        let new = NewImage {
            id: &image.config.digest,
            config: &config,
            manifest: image.manifest.as_ref(),
            parent: None,
            blobs: &blobs,
        };
        let names: Vec<Reference> = image.names.iter().cloned().collect();
        self.insert(lease, &new, &names, &[])?;
        let id = image.config.digest.clone();
        Ok(Loaded {
            id,
            names: names.iter().map(Reference::familiar).collect(),
        })
    }

    fn take_blob(&self, lease: &Lease<'_>, member: &Member) -> Result<()> {
        if self.store().keep_blob(lease, &member.digest)?.is_some() || !member.file.exists() {
            return Ok(());
        }
        // A hard link, because one member may be wanted by several images.
        let copy = lease.scratch();
        std::fs::hard_link(&member.file, &copy)
            .map_err(Error::io("link", &member.file.display()))?;
        Ok(self
            .store()
            .adopt_blob(lease, &copy, &member.digest, member.size)?)
    }

    /// Remembers which blob holds which layer, and how it is compressed.
    fn note_layers(&self, config: &ImageConfig, layers: &[&Member]) -> Result<()> {
        let mut noted = Vec::with_capacity(layers.len());
        for (diff_id, member) in config.rootfs.diff_ids.iter().zip(layers) {
            let mut start = [0; 6];
            let mut file = self.store().open_blob(&member.digest)?;
            let at = Error::io("read", &member.digest);
            let n = file.read(&mut start).map_err(at)?;
            let kind = layer_media_type(Compression::of(&start[..n]));
            noted.push((diff_id.clone(), member.digest.clone(), kind));
        }
        self.note_layer_blobs(&noted)
    }

    /// Remembers blobs of layers: digest of the plain tar, digest of the blob, media type.
    pub(super) fn note_layer_blobs(&self, noted: &[(Digest, Digest, &str)]) -> Result<()> {
        self.write(|t| {
            for (diff_id, blob, kind) in noted {
                t.execute(
                    "INSERT OR REPLACE INTO layer_blobs VALUES (?1, ?2, ?3)",
                    (diff_id.to_string(), blob.to_string(), kind),
                )?;
            }
            Ok(())
        })
    }
}

/// The most that the environment and the labels of an image may be together, in bytes.
const VALUES_MAX: usize = 1 << 20;

/// Checks what a configuration must say before its layers are worth unpacking.
pub(super) fn check_config(config: &ImageConfig, layers: usize) -> Result<()> {
    let wrong = |why: String| Err(Error::document("image configuration", why));
    if !matches!(config.os.as_str(), "" | "linux") {
        return wrong(format!(
            "image operating system {:?} cannot be used on this platform",
            config.os
        ));
    }
    let diff_ids = config.rootfs.diff_ids.len();
    if diff_ids != layers {
        return wrong(format!(
            "it names {diff_ids} layers, and the manifest {layers}"
        ));
    }
    let env = config.config.env.iter().map(String::len);
    let labels = config.config.labels.iter();
    let labels = labels.map(|(key, value)| key.len() + value.len());
    if env.chain(labels).sum::<usize>() > VALUES_MAX {
        return wrong("its environment and labels are larger than 1 MiB".to_owned());
    }
    Ok(())
}

fn find_images<'a>(archive: &'a Archive, want: Option<&Platform>) -> Result<Vec<Found<'a>>> {
    let mut images = Vec::new();
    if archive.find("index.json").is_some() {
        images = layout_images(archive, want)?;
    }
    if archive.find("manifest.json").is_some() {
        add_items(archive, &mut images)?;
    }
    if let Some(want) = want {
        images = only_for(want, images)?;
    }
    if images.is_empty() && archive.find("repositories").is_some() {
        let why = "it is of the form before Docker 1.10; load and save it with Docker 1.10 to 27";
        return Err(Error::document("archive", why));
    }
    if images.is_empty() {
        let why = "it has no complete image: neither index.json nor manifest.json leads to one";
        return Err(Error::document("archive", why));
    }
    Ok(images)
}

/// The images whose configuration serves a platform.
fn only_for<'a>(want: &Platform, images: Vec<Found<'a>>) -> Result<Vec<Found<'a>>> {
    let mut kept = Vec::new();
    for image in images {
        let path = &image.config.file;
        let raw = std::fs::read(path).map_err(Error::io("read", &path.display()))?;
        let have: Platform = serde_json::from_slice(&raw)
            .map_err(|error| Error::document("image configuration", error))?;
        if want.rank(&have).is_some() {
            kept.push(image);
        }
    }
    if kept.is_empty() {
        return Err(Error::InvalidArgument(format!(
            "no image in the archive is for the platform {want}"
        )));
    }
    Ok(kept)
}

/// The images of an OCI layout, with the names of its annotations.
fn layout_images<'a>(archive: &'a Archive, want: Option<&Platform>) -> Result<Vec<Found<'a>>> {
    let bytes = archive.bytes("index.json", MANIFEST_MAX)?;
    let Document::Index(index) = manifest::parse(&bytes, Some(media::OCI_INDEX))? else {
        return Err(Error::document("index.json", "it is not an index"));
    };
    let mut images: Vec<Found<'_>> = Vec::new();
    for entry in &index.manifests {
        let Some(mut image) = entry_image(archive, entry, want, 0)? else {
            continue;
        };
        image.names.extend(annotated_name(entry));
        match images
            .iter_mut()
            .find(|known| known.manifest == image.manifest)
        {
            Some(known) => known.names.append(&mut image.names),
            None => images.push(image),
        }
    }
    Ok(images)
}

fn annotated_name(entry: &Descriptor) -> Option<Reference> {
    let annotations = entry.annotations.as_ref()?;
    let full = annotations.get("io.containerd.image.name");
    // The OCI annotation may hold a bare tag, which names nothing.
    let short = annotations
        .get("org.opencontainers.image.ref.name")
        .filter(|name| name.contains([':', '/']));
    let name = Reference::parse(full.or(short)?).ok()?.or_latest();
    name.digest().is_none().then_some(name)
}

/// The image that a descriptor leads to; `None` if a part of it is not in the archive.
fn entry_image<'a>(
    archive: &'a Archive,
    entry: &Descriptor,
    want: Option<&Platform>,
    depth: usize,
) -> Result<Option<Found<'a>>> {
    if depth > INDEX_DEPTH_MAX {
        return Err(Error::document(
            "index.json",
            "its indexes are nested more than 4 deep",
        ));
    }
    let Some(member) = archive.blob(&entry.digest)? else {
        return Ok(None);
    };
    let name = format!(
        "blobs/{}/{}",
        entry.digest.algorithm().name(),
        entry.digest.hex()
    );
    let bytes = archive.bytes(&name, MANIFEST_MAX)?;
    match manifest::parse(&bytes, Some(&entry.media_type))? {
        Document::Manifest(manifest) => manifest_image(archive, member, &manifest),
        Document::Index(index) => {
            let Some(mut image) = best_image(archive, &index, want, depth)? else {
                return Ok(None);
            };
            image.documents.push(member);
            Ok(Some(image))
        }
    }
}

/// Of the images of an index that are here, the one that fits the platform, or this machine, best.
fn best_image<'a>(
    archive: &'a Archive,
    index: &Index,
    want: Option<&Platform>,
    depth: usize,
) -> Result<Option<Found<'a>>> {
    let target = want.cloned().unwrap_or_else(Platform::host);
    let mut best: Option<(u32, Found<'a>)> = None;
    for entry in &index.manifests {
        if entry
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os == "unknown")
        {
            continue;
        }
        // A foreign platform is better than nothing: it can be inspected and pushed.
        let rank = entry
            .platform
            .as_ref()
            .and_then(|p| target.rank(p))
            .unwrap_or(u32::MAX);
        if best.as_ref().is_some_and(|(known, _)| *known <= rank) {
            continue;
        }
        if let Some(image) = entry_image(archive, entry, want, depth + 1)? {
            best = Some((rank, image));
        }
    }
    Ok(best.map(|(_, image)| image))
}

fn manifest_image<'a>(
    archive: &'a Archive,
    member: &'a Member,
    manifest: &Manifest,
) -> Result<Option<Found<'a>>> {
    let Some(config) = archive.blob(&manifest.config.digest)? else {
        return Ok(None);
    };
    if config.size > CONFIG_MAX {
        return Err(Error::document(
            "image configuration",
            "it is larger than 8 MiB",
        ));
    }
    let mut layers = Vec::with_capacity(manifest.layers.len());
    for layer in &manifest.layers {
        match archive.blob(&layer.digest)? {
            Some(found) if found.size == layer.size => layers.push(found),
            Some(found) => {
                let why = format!("want {} bytes, got {}", layer.size, found.size);
                return Err(Error::document(format!("layer {}", layer.digest), why));
            }
            None => return Ok(None),
        }
    }
    let documents = vec![member];
    let manifest = Some(member.digest.clone());
    Ok(Some(Found {
        config,
        layers,
        manifest,
        documents,
        names: BTreeSet::new(),
    }))
}

/// Adds the images of `manifest.json`, and its names to images that are known already.
fn add_items<'a>(archive: &'a Archive, images: &mut Vec<Found<'a>>) -> Result<()> {
    let bytes = archive.bytes("manifest.json", MANIFEST_MAX)?;
    let items: Vec<Item> =
        serde_json::from_slice(&bytes).map_err(|error| Error::document("manifest.json", error))?;
    let mut by_config: BTreeMap<Digest, usize> = images
        .iter()
        .enumerate()
        .map(|(at, image)| (image.config.digest.clone(), at))
        .collect();
    for item in items {
        let missing = |name: &str| Error::document("archive", format!("{name} is missing"));
        let config = archive
            .find(&item.config)
            .ok_or_else(|| missing(&item.config))?;
        if config.size > CONFIG_MAX {
            return Err(Error::document(
                "image configuration",
                "it is larger than 8 MiB",
            ));
        }
        let mut names = BTreeSet::new();
        for name in item.repo_tags.unwrap_or_default() {
            names.insert(super::catalog::tag_name(&name)?);
        }
        if let Some(at) = by_config.get(&config.digest) {
            images[*at].names.append(&mut names);
            continue;
        }
        let find = |name: &String| archive.find(name).ok_or_else(|| missing(name));
        let layers = item.layers.unwrap_or_default();
        let layers = layers.iter().map(find).collect::<Result<Vec<_>>>()?;
        by_config.insert(config.digest.clone(), images.len());
        images.push(Found {
            config,
            layers,
            manifest: None,
            documents: Vec::new(),
            names,
        });
    }
    Ok(())
}
