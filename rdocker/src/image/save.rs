//! `save`: images into an archive that is an OCI layout and a docker-archive at once.
//!
//! Blobs go out as they came in, so an image that was pulled keeps its manifest and every digest.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde::Serialize;

use crate::store::digest::{Digest, Hashed};
use crate::store::lease::Lease;

use super::catalog::{find, find_name, strings};
use super::manifest::{self, Descriptor, Document, MANIFEST_MAX, Manifest, media};
use super::reference::Reference;
use super::tar::{Entry, Kind, Writer};
use super::{Error, Image, Images, Result};

/// One image of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An image, the names to save it under, and its manifest.
struct Chosen {
    image: Image,
    names: BTreeSet<Reference>,
    manifest: Vec<u8>,
    descriptor: Descriptor,
    layers: Vec<Descriptor>,
}

impl Images<'_> {
    /// Writes images to an archive. A repository without a tag stands for all its tags.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`] before anything is written; [`Error::Damaged`] if a blob is gone.
    pub fn save(&self, names: &[impl AsRef<str>], to: impl Write) -> Result<()> {
        // Without a lease a removal could take blobs away under the writer.
        let lease = self.store().lease()?;
        let chosen = self.choose(&lease, names)?;
        let blobs: BTreeSet<&Digest> = chosen
            .iter()
            .flat_map(|one| {
                one.layers
                    .iter()
                    .map(|layer| &layer.digest)
                    .chain([&one.image.id])
            })
            .collect();
        for digest in &blobs {
            if self.store().keep_blob(&lease, digest)?.is_none() {
                let why = format!("blob {digest} is missing");
                return Err(Error::Damaged {
                    id: chosen[0].image.id.clone(),
                    why,
                });
            }
        }
        let mut writer = Writer::new(io::BufWriter::with_capacity(256 << 10, to));
        self.write_archive(&chosen, &blobs, &mut writer)?;
        writer.finish().map_err(stream)?;
        Ok(())
    }

    fn choose(&self, lease: &Lease<'_>, names: &[impl AsRef<str>]) -> Result<Vec<Chosen>> {
        let mut order: Vec<Digest> = Vec::new();
        let mut wanted: BTreeMap<Digest, BTreeSet<Reference>> = BTreeMap::new();
        for name in names {
            for (id, tag) in self.expand(name.as_ref())? {
                if !order.contains(&id) {
                    order.push(id.clone());
                }
                wanted.entry(id).or_default().extend(tag);
            }
        }
        let choose = |id: Digest| {
            let image = self.get(&id)?;
            let (manifest, parsed) = self.manifest_of(lease, &image)?;
            let descriptor = Descriptor {
                media_type: parsed.media_type.clone(),
                digest: Digest::of(&manifest),
                size: manifest.len() as u64,
                urls: Vec::new(),
                annotations: None,
                platform: None,
            };
            let names = wanted.remove(&id).unwrap_or_default();
            Ok(Chosen {
                image,
                names,
                manifest,
                descriptor,
                layers: parsed.layers,
            })
        };
        order.into_iter().map(choose).collect()
    }

    /// What a name on the command line stands for: ids, each with the tag to keep.
    fn expand(&self, text: &str) -> Result<Vec<(Digest, Option<Reference>)>> {
        self.read(|t| {
            let name = Reference::parse(text).ok();
            if let Some(name) = name.filter(|name| name.digest().is_none()) {
                if name.tag().is_some() {
                    if let Some(id) = find_name(t, &name)? {
                        return Ok(vec![(id, Some(name))]);
                    }
                } else {
                    let prefix = format!("{}:", name.name());
                    let query = "SELECT name FROM tags WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name";
                    let mut all = Vec::new();
                    for tag in strings(t, query, [&prefix])? {
                        let Ok(tag) = Reference::parse(&tag) else { continue };
                        all.extend(find_name(t, &tag)?.map(|id| (id, Some(tag))));
                    }
                    if !all.is_empty() {
                        return Ok(all);
                    }
                }
            }
            Ok(vec![(find(t, text)?, None)])
        })
    }

    /// The manifest of an image: the one it came with, or one made of the blobs that are here.
    fn manifest_of(&self, lease: &Lease<'_>, image: &Image) -> Result<(Vec<u8>, Manifest)> {
        if let Some(kept) = self.kept_manifest(lease, image)? {
            return Ok(kept);
        }
        let layers = image
            .layers
            .iter()
            .map(|layer| self.layer_blob(image, &layer.diff_id));
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::OCI_MANIFEST.to_owned(),
            config: descriptor(media::OCI_CONFIG, image.id.clone(), image.raw.len() as u64),
            layers: layers.collect::<Result<_>>()?,
        };
        let bytes =
            serde_json::to_vec(&manifest).map_err(|error| Error::document("manifest", error))?;
        Ok((bytes, manifest))
    }

    /// The manifest that the image came with, if it and every layer that it names are here.
    pub(super) fn kept_manifest(
        &self,
        lease: &Lease<'_>,
        image: &Image,
    ) -> Result<Option<(Vec<u8>, Manifest)>> {
        let Some(digest) = &image.manifest else {
            return Ok(None);
        };
        if self.store().keep_blob(lease, digest)?.is_none() {
            return Ok(None);
        }
        let bytes = self.store().read_blob(digest, MANIFEST_MAX)?;
        let Document::Manifest(mut manifest) = manifest::parse(&bytes, None)? else {
            return Ok(None);
        };
        for layer in &manifest.layers {
            if self.store().keep_blob(lease, &layer.digest)?.is_none() {
                return Ok(None);
            }
        }
        if manifest.media_type.is_empty() {
            media::OCI_MANIFEST.clone_into(&mut manifest.media_type);
        }
        Ok(Some((bytes, *manifest)))
    }

    /// The blob of a layer; a compressed one if there are several.
    pub(super) fn layer_blob(&self, image: &Image, diff_id: &Digest) -> Result<Descriptor> {
        let found: Option<(String, String, i64)> = self.read(|t| {
            let mut query = t.prepare_cached(
                "SELECT l.digest, l.media_type, b.size FROM layer_blobs l JOIN blobs b ON b.digest = l.digest
                 WHERE l.diff = ?1 ORDER BY l.digest = l.diff, l.digest LIMIT 1",
            )?;
            let mut rows = query.query([diff_id.to_string()])?;
            Ok(match rows.next()? {
                Some(row) => Some((row.get(0)?, row.get(1)?, row.get(2)?)),
                None => None,
            })
        })?;
        let (digest, kind, size) = found.ok_or_else(|| Error::Damaged {
            id: image.id.clone(),
            why: format!("the blob of layer {diff_id} is missing"),
        })?;
        let digest = crate::store::gc::stored_digest(&digest)?;
        Ok(descriptor(&kind, digest, size.cast_unsigned()))
    }

    fn write_archive<W: Write>(
        &self,
        chosen: &[Chosen],
        blobs: &BTreeSet<&Digest>,
        writer: &mut Writer<W>,
    ) -> Result<()> {
        let add = |writer: &mut Writer<W>, path: &str, bytes: &[u8]| {
            writer.add_bytes(path, bytes).map_err(stream)
        };
        add(writer, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        for dir in ["blobs/", "blobs/sha256/"] {
            writer
                .add(&Entry::new(dir, Kind::Directory), io::empty())
                .map_err(stream)?;
        }
        let mut documents = BTreeSet::new();
        for one in chosen {
            if documents.insert(&one.descriptor.digest) {
                add(writer, &blob_name(&one.descriptor.digest), &one.manifest)?;
            }
        }
        for digest in blobs {
            self.write_blob(digest, writer)?;
        }
        add(writer, "index.json", &index_json(chosen)?)?;
        add(writer, "manifest.json", &manifest_json(chosen)?)?;
        add(writer, "repositories", &repositories_json(chosen)?)
    }

    fn write_blob<W: Write>(&self, digest: &Digest, writer: &mut Writer<W>) -> Result<()> {
        let file = self.store().open_blob(digest)?;
        let at = Error::io("read", &digest);
        let mut entry = Entry::new(blob_name(digest), Kind::File);
        entry.size = file.metadata().map_err(at)?.len();
        let mut hashed = Hashed::new(file, digest.algorithm());
        writer.add(&entry, &mut hashed).map_err(stream)?;
        let (_, got, _) = hashed.finish();
        if got != *digest {
            return Err(Error::document(
                "blob",
                format!("want digest {digest}, got {got}"),
            ));
        }
        Ok(())
    }
}

fn stream(error: io::Error) -> Error {
    super::tar::Error::Stream(error).into()
}

/// A descriptor without extras.
pub(super) fn descriptor(kind: &str, digest: Digest, size: u64) -> Descriptor {
    let media_type = kind.to_owned();
    Descriptor {
        media_type,
        digest,
        size,
        urls: Vec::new(),
        annotations: None,
        platform: None,
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn json(what: &str, value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::document(what, error))
}

fn index_json(chosen: &[Chosen]) -> Result<Vec<u8>> {
    let mut manifests = Vec::new();
    for one in chosen {
        for name in &one.names {
            let mut named = one.descriptor.clone();
            let mut annotations =
                BTreeMap::from([("io.containerd.image.name".to_owned(), name.to_string())]);
            if let Some(tag) = name.tag() {
                annotations.insert(
                    "org.opencontainers.image.ref.name".to_owned(),
                    tag.to_owned(),
                );
            }
            named.annotations = Some(annotations);
            manifests.push(named);
        }
        if one.names.is_empty() {
            manifests.push(one.descriptor.clone());
        }
    }
    let index = super::manifest::Index {
        schema_version: 2,
        media_type: media::OCI_INDEX.to_owned(),
        manifests,
    };
    json("index.json", &index)
}

fn manifest_json(chosen: &[Chosen]) -> Result<Vec<u8>> {
    let item = |one: &Chosen| Item {
        config: blob_name(&one.image.id),
        repo_tags: (!one.names.is_empty())
            .then(|| one.names.iter().map(Reference::familiar).collect()),
        layers: one
            .layers
            .iter()
            .map(|layer| blob_name(&layer.digest))
            .collect(),
    };
    json(
        "manifest.json",
        &chosen.iter().map(item).collect::<Vec<_>>(),
    )
}

/// The oldest readers find a tag's topmost layer here.
fn repositories_json(chosen: &[Chosen]) -> Result<Vec<u8>> {
    let mut repositories: BTreeMap<String, BTreeMap<&str, &str>> = BTreeMap::new();
    for one in chosen {
        let Some(top) = one.image.layers.last() else {
            continue;
        };
        for name in &one.names {
            let tag = name.tag().unwrap_or("latest");
            repositories
                .entry(name.familiar_name())
                .or_default()
                .insert(tag, top.chain.hex());
        }
    }
    json("repositories", &repositories)
}
