//! The list of images: names, ids, and what each one consists of.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{OptionalExtension, Transaction};

use crate::store::Store;
use crate::store::digest::Digest;
use crate::store::gc::stored_digest;
use crate::store::lease::Lease;

use super::config::{ImageConfig, chain_ids};
use super::reference::{Reference, is_full_id, is_hex};
use super::{Error, Image, Images, LayerPath, Result};

/// The largest configuration that is read, in bytes.
pub const CONFIG_MAX: u64 = 8 << 20;

/// A complete image that is about to be entered in the catalog.
pub struct NewImage<'a> {
    /// Digest of the configuration.
    pub id: &'a Digest,
    /// The parsed configuration.
    pub config: &'a ImageConfig,
    /// The manifest it came with.
    pub manifest: Option<&'a Digest>,
    /// The local image it was made from.
    pub parent: Option<&'a Digest>,
    /// All blobs that belong to it: configuration, manifest, index, layers.
    pub blobs: &'a [Digest],
}

impl<'a> Images<'a> {
    /// The images of `store`.
    pub fn new(store: &'a Store) -> Images<'a> {
        Images { store }
    }

    /// The store these images are in.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// Finds an image by name, id, or the beginning of an id; a name beats an id.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; [`Error::Ambiguous`] for the beginning of several ids.
    pub fn resolve(&self, text: &str) -> Result<Image> {
        self.read(|t| {
            let id = find(t, text)?;
            self.image_of(t, &id)
        })
    }

    /// Like [`Images::resolve`], for the id alone.
    pub fn resolve_id(&self, text: &str) -> Result<Digest> {
        self.read(|t| find(t, text))
    }

    /// The image with this id.
    pub fn get(&self, id: &Digest) -> Result<Image> {
        self.read(|t| self.image_of(t, id))
    }

    /// All images, the newest first.
    pub fn list(&self) -> Result<Vec<Image>> {
        let mut images = self.read(|t| {
            let ids = digests(t, "SELECT id FROM images", [])?;
            ids.iter()
                .map(|id| self.image_of(t, id))
                .collect::<Result<Vec<_>>>()
        })?;
        images.sort_by(|a, b| {
            let newest = |image: &Image| image.config.created_at().unwrap_or(0);
            newest(b).cmp(&newest(a)).then_with(|| a.id.cmp(&b.id))
        });
        Ok(images)
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; a reference error if `target` is no name for a tag.
    pub fn tag(&self, source: &str, target: &str) -> Result<()> {
        let target = tag_name(target)?;
        self.write(|t| {
            let id = find(t, source)?;
            set_tag(t, &target, &id)
        })
    }

    /// Keeps the layers of an image as long as `owner` exists, even if the image is removed.
    pub fn hold(&self, owner: &str, image: &Image) -> Result<()> {
        self.write(|t| {
            for layer in &image.layers {
                // The image may have been removed since it was resolved.
                let there = t.query_row(
                    "SELECT count(*) FROM layers WHERE chain = ?1",
                    [layer.chain.to_string()],
                    |row| row.get::<_, i64>(0),
                )?;
                if there == 0 {
                    return Err(Error::NoSuchImage {
                        name: image.id.to_string(),
                    });
                }
                t.execute(
                    "INSERT OR IGNORE INTO holds VALUES (?1, ?2)",
                    (owner, layer.chain.to_string()),
                )?;
            }
            Ok(())
        })
    }

    /// Ends what [`Images::hold`] began.
    pub fn release(&self, owner: &str) -> Result<()> {
        self.write(|t| {
            t.execute("DELETE FROM holds WHERE owner = ?1", [owner])?;
            Ok(())
        })
    }

    /// The owners of holds; whoever keeps owners releases those that are gone.
    pub fn holders(&self) -> Result<Vec<String>> {
        self.read(|t| {
            let mut query = t.prepare("SELECT DISTINCT owner FROM holds")?;
            let owners = query.query_map([], |row| row.get(0))?;
            Ok(owners.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Enters a complete image, with its names, in one transaction.
    pub fn insert(
        &self,
        lease: &Lease<'_>,
        new: &NewImage<'_>,
        tags: &[Reference],
        repo_digests: &[Reference],
    ) -> Result<()> {
        self.write(|t| {
            insert_rows(t, new)?;
            for tag in tags {
                set_tag(t, tag, new.id)?;
            }
            for name in repo_digests {
                let Some(digest) = name.digest() else {
                    continue;
                };
                t.execute(
                    "INSERT OR REPLACE INTO repo_digests VALUES (?1, ?2, ?3)",
                    (name.name(), digest.to_string(), new.id.to_string()),
                )?;
            }
            lease.keep(t, new.id)?;
            Ok(())
        })
    }

    pub(super) fn read<T>(&self, query: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        // The outer result is the store's, the inner one the query's.
        self.store.read(|t| Ok(query(t)))?
    }

    pub(super) fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.store.write(change)
    }

    pub(super) fn image_of(&self, t: &Transaction<'_>, id: &Digest) -> Result<Image> {
        let row = t
            .prepare_cached("SELECT manifest, parent, added FROM images WHERE id = ?1")?
            .query_row([id.to_string()], |row| {
                let manifest: Option<String> = row.get(0)?;
                let parent: Option<String> = row.get(1)?;
                Ok((manifest, parent, row.get(2)?))
            })
            .optional()?;
        let (manifest, parent, added) = row.ok_or_else(|| Error::NoSuchImage {
            name: id.to_string(),
        })?;
        let raw = self.store.read_blob(id, CONFIG_MAX)?;
        let config: ImageConfig = serde_json::from_slice(&raw).map_err(|error| Error::Damaged {
            id: id.clone(),
            why: error.to_string(),
        })?;
        let layers = self.layers(t, id, &config)?;
        let digest = |text: Option<String>| text.as_deref().map(stored_digest).transpose();
        Ok(Image {
            layers,
            tags: tags_of(t, id)?,
            repo_digests: repo_digests_of(t, id)?,
            manifest: digest(manifest)?,
            parent: digest(parent)?,
            added,
            id: id.clone(),
            config,
            raw,
        })
    }

    fn layers(
        &self,
        t: &Transaction<'_>,
        id: &Digest,
        config: &ImageConfig,
    ) -> Result<Vec<LayerPath>> {
        let diff_ids = &config.rootfs.diff_ids;
        let mut query = t.prepare_cached("SELECT size FROM layers WHERE chain = ?1")?;
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (chain, diff_id) in chain_ids(diff_ids).into_iter().zip(diff_ids) {
            let size: Option<i64> = query
                .query_row([chain.to_string()], |row| row.get(0))
                .optional()?;
            let size = size.ok_or_else(|| Error::Damaged {
                id: id.clone(),
                why: format!("layer {chain} is missing"),
            })?;
            let path = self.store.layer_path(&chain);
            layers.push(LayerPath {
                diff_id: diff_id.clone(),
                size: size.cast_unsigned(),
                path,
                chain,
            });
        }
        Ok(layers)
    }
}

fn insert_rows(t: &Transaction<'_>, new: &NewImage<'_>) -> Result<()> {
    let id = new.id.to_string();
    let added = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    t.execute(
        "INSERT INTO images VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO UPDATE
         SET manifest = coalesce(excluded.manifest, manifest), parent = coalesce(parent, excluded.parent)",
        (
            &id,
            new.manifest.map(Digest::to_string),
            new.parent.map(Digest::to_string),
            added.cast_signed(),
        ),
    )?;
    for (position, chain) in chain_ids(&new.config.rootfs.diff_ids).iter().enumerate() {
        t.execute(
            "INSERT OR IGNORE INTO image_layers VALUES (?1, ?2, ?3)",
            (&id, position.cast_signed() as i64, chain.to_string()),
        )?;
    }
    for blob in new.blobs {
        t.execute(
            "INSERT OR IGNORE INTO image_blobs VALUES (?1, ?2)",
            (&id, blob.to_string()),
        )?;
    }
    Ok(())
}

/// Parses the target of a tag: a name without a digest, `latest` by default.
///
/// # Errors
/// Docker's sentences for a bad name, and for a digest where a tag belongs.
pub fn tag_name(text: &str) -> Result<Reference> {
    let invalid = |why: String| {
        Error::InvalidArgument(format!(
            "Error parsing reference: {text:?} is not a valid repository/tag: {why}"
        ))
    };
    let name = Reference::parse(text).map_err(|error| invalid(error.to_string()))?;
    if name.digest().is_some() {
        return Err(Error::InvalidArgument(
            "refusing to create a tag with a digest reference".into(),
        ));
    }
    Ok(name.or_latest())
}

pub(super) fn set_tag(t: &Transaction<'_>, name: &Reference, id: &Digest) -> Result<()> {
    t.execute(
        "INSERT OR REPLACE INTO tags VALUES (?1, ?2)",
        (name.to_string(), id.to_string()),
    )?;
    Ok(())
}

/// The id behind a name, an id or the beginning of an id.
pub(super) fn find(t: &Transaction<'_>, text: &str) -> Result<Digest> {
    if let Some(id) = find_exact(t, text)? {
        return Ok(id);
    }
    if let Ok(name) = Reference::parse(text)
        && let Some(id) = find_name(t, &name.or_latest())?
    {
        return Ok(id);
    }
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    let shown = || match Reference::parse(text) {
        Ok(name) => name.or_latest().familiar(),
        Err(_) => text.to_owned(),
    };
    if !is_hex(prefix) || prefix.len() > 64 {
        return Err(Error::NoSuchImage { name: shown() });
    }
    let like = format!("sha256:{prefix}%");
    let mut ids = digests(t, "SELECT id FROM images WHERE id LIKE ?1 LIMIT 2", [like])?;
    match (ids.pop(), ids.pop()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(Error::NoSuchImage { name: shown() }),
        (Some(_), Some(_)) => Err(Error::Ambiguous {
            prefix: text.to_owned(),
        }),
    }
}

/// A whole id, with or without its algorithm.
fn find_exact(t: &Transaction<'_>, text: &str) -> Result<Option<Digest>> {
    let id = match text.parse::<Digest>() {
        Ok(id) => id,
        Err(_) if is_full_id(text) => format!("sha256:{text}").parse().expect("64 digits"),
        Err(_) => return Ok(None),
    };
    Ok(digests(t, "SELECT id FROM images WHERE id = ?1", [id.to_string()])?.pop())
}

pub(super) fn find_name(t: &Transaction<'_>, name: &Reference) -> Result<Option<Digest>> {
    let found = match name.digest() {
        // A tag beside a digest says nothing more.
        Some(digest) => digests(
            t,
            "SELECT image FROM repo_digests WHERE name = ?1 AND digest = ?2",
            (name.name(), digest.to_string()),
        )?,
        None => digests(
            t,
            "SELECT image FROM tags WHERE name = ?1",
            [name.to_string()],
        )?,
    };
    Ok(found.into_iter().next())
}

pub(super) fn digests(
    t: &Transaction<'_>,
    query: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<Digest>> {
    strings(t, query, params)?
        .iter()
        .map(|text| Ok(stored_digest(text)?))
        .collect()
}

pub(super) fn strings(
    t: &Transaction<'_>,
    query: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<String>> {
    let mut statement = t.prepare_cached(query)?;
    let rows = statement.query_map(params, |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn tags_of(t: &Transaction<'_>, id: &Digest) -> Result<Vec<String>> {
    let names = strings(
        t,
        "SELECT name FROM tags WHERE image = ?1 ORDER BY name",
        [id.to_string()],
    )?;
    Ok(names.iter().map(|name| familiar(name)).collect())
}

fn repo_digests_of(t: &Transaction<'_>, id: &Digest) -> Result<Vec<String>> {
    let names = strings(
        t,
        "SELECT name || '@' || digest FROM repo_digests WHERE image = ?1 ORDER BY name, digest",
        [id.to_string()],
    )?;
    Ok(names.iter().map(|name| familiar(name)).collect())
}

/// A stored name in Docker's short form.
pub(super) fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.familiar())
}
