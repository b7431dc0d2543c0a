//! The build cache: what a step gave the last time, by its key, in the store's database.
//!
//! Images remember the keys of their steps too, in the comments of their history: one that
//! `--cache-from` names is a cache wherever it came from. Of one in a registry the configuration
//! is fetched, and its layers when the first of them is needed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::OptionalExtension;

use super::report::{Event, Report};
use crate::image::config::{History, ImageConfig};
use crate::image::pull::PullOptions;
use crate::image::{self, Images, Reference, Result};
use crate::store::Store;
use crate::store::digest::Digest;
use crate::store::gc::stored_digest;
use crate::store::lease::Lease;

/// What a step gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The layer's plain tar, if the step made one.
    pub diff_id: Option<Digest>,
    /// When the step ran, RFC 3339.
    pub created: String,
}

/// What comes before the key in a comment of an image's history.
const COMMENT: &str = "rdocker.step ";

/// What the history of an image says of the step with this key.
pub fn comment(key: &Digest) -> String {
    format!("{COMMENT}{key}")
}

/// What the images of `--cache-from` tell of their steps.
#[derive(Debug, Default)]
pub struct Known {
    steps: HashMap<Digest, (Outcome, Origin)>,
    /// Images of registries, and whether their layers were brought.
    remote: Vec<(Reference, Mutex<bool>)>,
}

/// Where a step's layer is: here, or with the remote image of this number.
type Origin = Option<usize>;

/// With what images are looked for.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    /// The images here.
    pub images: Images<'a>,
    /// Keeps what comes.
    pub lease: &'a Lease<'a>,
    /// How to ask registries.
    pub options: &'a PullOptions,
    /// Hears of what is not there.
    pub report: &'a dyn Report,
}

impl Known {
    /// Looks for the images here, then in their registries. One that is nowhere tells nothing, and
    /// the user is warned.
    ///
    /// # Errors
    /// A name is none; the store failed.
    pub fn of(names: &[String], search: Search<'_>) -> Result<Self> {
        let mut known = Self::default();
        for name in names {
            match search.images.resolve(name) {
                Ok(image) => known.learn(&image.config, None),
                Err(image::Error::NoSuchImage { .. }) => known.ask_registry(name, search)?,
                Err(error) => return Err(error),
            }
        }
        Ok(known)
    }

    fn ask_registry(&mut self, name: &str, search: Search<'_>) -> Result<()> {
        let (lease, options) = (search.lease, search.options);
        let reference = Reference::parse(name)?.or_latest();
        let asked = search
            .images
            .remote_config(lease, &reference, options, search.report);
        match asked {
            Ok(config) => {
                self.learn(&config, Some(self.remote.len()));
                self.remote.push((reference, Mutex::new(false)));
            }
            Err(error) => search.report.step(Event::Warning(&format!(
                "[Warning] --cache-from {name}: {}",
                crate::error::Error::from(error).chain()
            ))),
        }
        Ok(())
    }

    fn learn(&mut self, image: &ImageConfig, origin: Origin) {
        let mut layers = image.rootfs.diff_ids.iter();
        for step in &image.history {
            let diff_id = (!step.empty_layer)
                .then(|| layers.next().cloned())
                .flatten();
            // A step that made a layer without one to show is a history that is wrong.
            if diff_id.is_none() && !step.empty_layer {
                return;
            }
            if let Some(key) = key_of(step) {
                let created = step.created.clone().unwrap_or_default();
                let outcome = Outcome { diff_id, created };
                self.steps.entry(key).or_insert((outcome, origin));
            }
        }
    }

    /// What the step with this key gave, and where its layer comes from.
    pub fn find(&self, key: &Digest) -> Option<&(Outcome, Origin)> {
        self.steps.get(key)
    }

    /// Brings the layers of a remote image, once.
    ///
    /// # Errors
    /// The registry's.
    pub fn fetch(&self, origin: usize, search: Search<'_>) -> Result<()> {
        let (reference, brought) = &self.remote[origin];
        let mut brought = brought.lock().unwrap_or_else(PoisonError::into_inner);
        if !*brought {
            let (lease, options) = (search.lease, search.options);
            search
                .images
                .remote_layers(lease, reference, options, search.report)?;
            *brought = true;
        }
        Ok(())
    }
}

fn key_of(step: &History) -> Option<Digest> {
    step.comment.as_deref()?.strip_prefix(COMMENT)?.parse().ok()
}

/// One row of `builder prune` and `system df`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: String,
    /// The layer, if the step made one.
    pub chain: Option<String>,
    /// Bytes of the layer's files and of its archive.
    pub size: u64,
    /// Whether an image has the layer too.
    pub shared: bool,
    /// Unix seconds of the last use.
    pub used: i64,
    /// How often it was used.
    pub uses: i64,
    /// The instruction.
    pub text: String,
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().cast_signed())
}

/// Finds what a step gave; the lease keeps its layer's archive from now on.
///
/// A row whose archive is gone is none.
pub fn find(lease: &Lease<'_>, key: &Digest) -> Result<Option<Outcome>> {
    let key = key.to_string();
    lease.store().write(|t| {
        let row = t
            .prepare_cached("SELECT diff, created FROM build_cache WHERE key = ?1")?
            .query_row([&key], |row| {
                Ok((row.get::<_, Option<String>>(0)?, row.get(1)?))
            })
            .optional()?;
        let Some((diff, created)) = row else {
            return Ok(None);
        };
        let diff_id = diff.as_deref().map(stored_digest).transpose()?;
        if let Some(diff_id) = &diff_id {
            let there: i64 = t
                .prepare_cached("SELECT count(*) FROM blobs WHERE digest = ?1")?
                .query_row([diff_id.to_string()], |row| row.get(0))?;
            if there == 0 {
                return Ok(None);
            }
            lease.keep(t, diff_id)?;
        }
        t.prepare_cached("UPDATE build_cache SET used = ?2, uses = uses + 1 WHERE key = ?1")?
            .execute((&key, now()))?;
        Ok(Some(Outcome { diff_id, created }))
    })
}

/// Remembers what a step gave. The caller's lease keeps the layer.
pub fn remember(
    store: &Store,
    key: &Digest,
    outcome: &Outcome,
    chain: Option<&Digest>,
    text: &str,
) -> Result<()> {
    store.write(|t| {
        t.prepare_cached("INSERT OR REPLACE INTO build_cache VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6)")?
            .execute((
                key.to_string(),
                outcome.diff_id.as_ref().map(Digest::to_string),
                chain.map(Digest::to_string),
                &outcome.created,
                now(),
                text,
            ))?;
        Ok(())
    })
}

/// Everything that is remembered, the longest unused first.
pub fn rows(store: &Store) -> Result<Vec<Row>> {
    Ok(store.read(|t| {
        let mut query = t.prepare(
            "SELECT key, c.chain, coalesce(l.size, 0) + coalesce(b.size, 0), used, uses, text,
                    EXISTS (SELECT 1 FROM image_layers i WHERE i.chain = c.chain)
             FROM build_cache c LEFT JOIN layers l ON l.chain = c.chain
             LEFT JOIN blobs b ON b.digest = c.diff ORDER BY used, key",
        )?;
        let rows = query.query_map([], |row| {
            Ok(Row {
                key: row.get(0)?,
                chain: row.get(1)?,
                size: row.get::<_, i64>(2)?.cast_unsigned(),
                used: row.get(3)?,
                uses: row.get(4)?,
                text: row.get(5)?,
                shared: row.get(6)?,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    })?)
}

/// Forgets steps; the next collection frees their layers.
pub fn forget(store: &Store, keys: &[String]) -> Result<()> {
    store.write(|t| {
        let mut delete = t.prepare("DELETE FROM build_cache WHERE key = ?1")?;
        for key in keys {
            delete.execute([key])?;
        }
        Ok(())
    })
}
