//! `system df`: what images take on disk, by the sizes that the store recorded.

use std::collections::BTreeMap;

use crate::store::digest::Digest;

use super::catalog::strings;
use super::{Image, Images, Result};

/// What all images take.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Each image.
    pub images: Vec<ImageUsage>,
    /// Bytes of all unpacked layers, each counted once; those that only the build cache has are its.
    pub layers: u64,
    /// Bytes of all blobs: what `save` and `push` send.
    pub blobs: u64,
    /// Bytes of downloads that a pull can resume.
    pub parts: u64,
}

/// What one image takes.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageUsage {
    /// The image.
    pub image: Image,
    /// Bytes of its layers that other images have too.
    pub shared: u64,
    /// Bytes of its layers that go with it.
    pub unique: u64,
    /// Bytes of its blobs.
    pub content: u64,
}

impl Usage {
    /// All bytes on disk.
    pub fn total(&self) -> u64 {
        self.layers + self.blobs + self.parts
    }

    /// Bytes that `image prune -a` would free, if containers use the images that `used` names.
    ///
    /// Only layers and unfinished downloads are counted: blobs that used images share stay.
    pub fn reclaimable(&self, mut used: impl FnMut(&Image) -> bool) -> u64 {
        let mut kept: BTreeMap<&Digest, u64> = BTreeMap::new();
        for one in self.images.iter().filter(|one| used(&one.image)) {
            kept.extend(
                one.image
                    .layers
                    .iter()
                    .map(|layer| (&layer.chain, layer.size)),
            );
        }
        self.layers.saturating_sub(kept.values().sum()) + self.parts
    }
}

impl Images<'_> {
    /// Measures all images, without reading a single layer.
    pub fn usage(&self) -> Result<Usage> {
        let images = self.list()?;
        let mut users: BTreeMap<Digest, u32> = BTreeMap::new();
        for layer in images.iter().flat_map(|image| &image.layers) {
            *users.entry(layer.chain.clone()).or_default() += 1;
        }
        let contents: BTreeMap<String, u64> = self.read(|t| {
            let mut query = t.prepare(
                "SELECT i.image, sum(b.size) FROM image_blobs i JOIN blobs b ON b.digest = i.digest
                 GROUP BY i.image",
            )?;
            let rows = query.query_map([], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })?;
        let measure = |image: Image| {
            let is_shared = |chain: &Digest| users.get(chain).is_some_and(|users| *users > 1);
            let shared = image.layers.iter().filter(|layer| is_shared(&layer.chain));
            let shared: u64 = shared.map(|layer| layer.size).sum();
            let unique = image.size() - shared;
            let content = contents.get(&image.id.to_string()).copied().unwrap_or(0);
            ImageUsage {
                image,
                shared,
                unique,
                content,
            }
        };
        let sum = |query: &str| -> Result<u64> {
            let text = self.read(|t| strings(t, query, []))?;
            Ok(text.first().and_then(|text| text.parse().ok()).unwrap_or(0))
        };
        Ok(Usage {
            images: images.into_iter().map(measure).collect(),
            layers: sum("SELECT CAST(coalesce(sum(size), 0) AS TEXT) FROM layers
                 WHERE chain NOT IN (SELECT chain FROM build_cache WHERE chain IS NOT NULL)
                 OR chain IN (SELECT chain FROM image_layers)")?,
            blobs: sum("SELECT CAST(coalesce(sum(size), 0) AS TEXT) FROM blobs
                 WHERE digest NOT IN (SELECT diff FROM build_cache WHERE diff IS NOT NULL)
                 OR digest IN (SELECT digest FROM image_blobs)")?,
            parts: self.store().parts_size()?,
        })
    }
}
