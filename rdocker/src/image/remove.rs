//! `rmi` and `image prune`: taking names and images away.

use rusqlite::Transaction;

use crate::store::digest::Digest;
use crate::store::gc::Parts;

use super::catalog::{digests, familiar, find, find_name, strings};
use super::reference::Reference;
use super::{Error, Images, Result};

/// A container that was made from an image.
#[derive(Debug, Clone)]
pub struct ImageUser {
    /// The container's id.
    pub container: String,
    /// Its image.
    pub image: Digest,
    /// Whether it runs now (or is paused or restarting).
    pub running: bool,
}

/// What `rmi` was asked to do beside the name.
#[derive(Debug, Clone, Default)]
pub struct RemoveOptions {
    /// Remove several names at once, and images of stopped containers.
    pub force: bool,
    /// Keep untagged parents.
    pub keep_parents: bool,
    /// The containers of this host.
    pub users: Vec<ImageUser>,
}

/// What was removed, in the order it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name: `busybox:latest` or `busybox@sha256:…`.
    Untagged(String),
    /// An image or a layer, by its id.
    Deleted(Digest),
}

/// What a prune removed.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Names, images and layers.
    pub removed: Vec<Removed>,
    /// Bytes that are free now.
    pub bytes: u64,
}

impl Images<'_> {
    /// Removes a name, and the image itself if that was its last name.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; [`Error::Conflict`] if a container uses the image, or if an id
    /// was given and the image has names in several repositories.
    pub fn remove(&self, text: &str, options: &RemoveOptions) -> Result<Vec<Removed>> {
        let mut removed = Vec::new();
        self.write(|t| remove_one(t, text, options, &mut removed))?;
        let collected = self.store().collect(Parts::Old)?;
        if removed.iter().any(|one| matches!(one, Removed::Deleted(_))) {
            removed.extend(collected.layers.into_iter().map(Removed::Deleted));
        }
        Ok(removed)
    }

    /// Removes every image that `chosen` names and no container uses.
    pub fn prune(
        &self,
        users: &[ImageUser],
        mut chosen: impl FnMut(&super::Image) -> bool,
    ) -> Result<Pruned> {
        let images = self.list()?;
        let mut pruned = Pruned::default();
        let mut left: Vec<_> = images
            .iter()
            .filter(|image| chosen(image))
            .filter(|image| !users.iter().any(|user| user.image == image.id))
            .collect();
        // An image goes after its children: as many rounds as they are deep.
        loop {
            let mut stay = Vec::new();
            for image in &left {
                let gone = self.write(|t| {
                    // A child or a name may have appeared since the list was made.
                    let still = image.tags.len() == tag_names(t, &image.id)?.len();
                    let goes = still && children(t, &image.id)?.is_empty();
                    if goes {
                        untag_all(t, &image.id, &mut pruned.removed)?;
                        delete(t, &image.id, &mut pruned.removed)?;
                    }
                    Ok(goes)
                })?;
                if !gone {
                    stay.push(*image);
                }
            }
            if stay.len() == left.len() {
                break;
            }
            left = stay;
        }
        let collected = self.store().collect(Parts::All)?;
        pruned
            .removed
            .extend(collected.layers.into_iter().map(Removed::Deleted));
        pruned.bytes = collected.bytes;
        Ok(pruned)
    }
}

fn remove_one(
    t: &Transaction<'_>,
    text: &str,
    options: &RemoveOptions,
    removed: &mut Vec<Removed>,
) -> Result<()> {
    let id = find(t, text)?;
    let name = match Reference::parse(text) {
        Ok(name) => Some(name.or_latest()),
        Err(_) => None,
    };
    let by_name = match name {
        Some(name) if find_name(t, &name)?.is_some() => Some(name),
        _ => None,
    };
    let tags = tag_names(t, &id)?;
    if let Some(name) = &by_name {
        // The last name of an image takes the image with it, so a container's claim counts.
        let last = tags.len() <= 1 || name.digest().is_some() && tags.is_empty();
        if last && let Some(user) = used_by(&id, options, |_| !options.force) {
            return Err(name_conflict(name, user));
        }
        untag(t, name, &id, removed)?;
        if !tag_names(t, &id)?.is_empty() {
            return Ok(());
        }
        // Docker untags the image of a running container when forced, and stops there.
        if used_by(&id, options, |user| user.running || !options.force).is_some() {
            return Ok(());
        }
        untag_all(t, &id, removed)?;
        return delete_with_parents(t, &id, options, removed);
    }
    check_by_id(t, &id, &tags, options)?;
    untag_all(t, &id, removed)?;
    delete_with_parents(t, &id, options, removed)
}

fn used_by<'o>(
    id: &Digest,
    options: &'o RemoveOptions,
    mut counts: impl FnMut(&ImageUser) -> bool,
) -> Option<&'o ImageUser> {
    options
        .users
        .iter()
        .find(|user| user.image == *id && counts(user))
}

fn name_conflict(name: &Reference, user: &ImageUser) -> Error {
    let why = format!(
        "unable to remove repository reference {:?} (must force) - container {} is using its referenced image {}",
        name.familiar(),
        short(&user.container),
        user.image.short(),
    );
    Error::Conflict { why }
}

/// The rules for a removal by id, in Docker's order and words.
fn check_by_id(
    t: &Transaction<'_>,
    id: &Digest,
    tags: &[String],
    options: &RemoveOptions,
) -> Result<()> {
    let conflict = |force: &str, why: String| {
        Err(Error::Conflict {
            why: format!("unable to delete {} ({force}) - {why}", id.short()),
        })
    };
    if let Some(user) = used_by(id, options, |user| user.running) {
        let container = short(&user.container);
        return conflict(
            "cannot be forced",
            format!("image is being used by running container {container}"),
        );
    }
    if !children(t, id)?.is_empty() {
        return conflict(
            "cannot be forced",
            "image has dependent child images".into(),
        );
    }
    if options.force {
        return Ok(());
    }
    let repositories: std::collections::BTreeSet<_> = tags
        .iter()
        .filter_map(|tag| Reference::parse(tag).ok())
        .map(|tag| tag.name())
        .collect();
    if repositories.len() > 1 || tags.len() > 1 {
        return conflict(
            "must be forced",
            "image is referenced in multiple repositories".into(),
        );
    }
    if let Some(user) = used_by(id, options, |_| true) {
        let container = short(&user.container);
        return conflict(
            "must be forced",
            format!("image is being used by stopped container {container}"),
        );
    }
    Ok(())
}

fn short(container: &str) -> &str {
    container.get(..12).unwrap_or(container)
}

fn tag_names(t: &Transaction<'_>, id: &Digest) -> Result<Vec<String>> {
    strings(
        t,
        "SELECT name FROM tags WHERE image = ?1 ORDER BY name",
        [id.to_string()],
    )
}

fn children(t: &Transaction<'_>, id: &Digest) -> Result<Vec<Digest>> {
    digests(
        t,
        "SELECT id FROM images WHERE parent = ?1",
        [id.to_string()],
    )
}

/// Takes one name away; the registry names of the same repository go with its last tag.
fn untag(
    t: &Transaction<'_>,
    name: &Reference,
    id: &Digest,
    removed: &mut Vec<Removed>,
) -> Result<()> {
    if let Some(digest) = name.digest() {
        t.execute(
            "DELETE FROM repo_digests WHERE name = ?1 AND digest = ?2",
            (name.name(), digest.to_string()),
        )?;
        removed.push(Removed::Untagged(format!(
            "{}@{digest}",
            name.familiar_name()
        )));
        return Ok(());
    }
    t.execute("DELETE FROM tags WHERE name = ?1", [name.to_string()])?;
    removed.push(Removed::Untagged(name.familiar()));
    let repository = name.name();
    let same = |tag: &String| Reference::parse(tag).is_ok_and(|tag| tag.name() == repository);
    if tag_names(t, id)?.iter().any(same) {
        return Ok(());
    }
    let gone = strings(
        t,
        "DELETE FROM repo_digests WHERE image = ?1 AND name = ?2 RETURNING name || '@' || digest",
        (id.to_string(), repository),
    )?;
    removed.extend(gone.iter().map(|name| Removed::Untagged(familiar(name))));
    Ok(())
}

fn untag_all(t: &Transaction<'_>, id: &Digest, removed: &mut Vec<Removed>) -> Result<()> {
    for query in [
        "DELETE FROM tags WHERE image = ?1 RETURNING name",
        "DELETE FROM repo_digests WHERE image = ?1 RETURNING name || '@' || digest",
    ] {
        let gone = strings(t, query, [id.to_string()])?;
        removed.extend(gone.iter().map(|name| Removed::Untagged(familiar(name))));
    }
    Ok(())
}

fn delete(t: &Transaction<'_>, id: &Digest, removed: &mut Vec<Removed>) -> Result<()> {
    for table in [
        "image_layers WHERE image",
        "image_blobs WHERE image",
        "images WHERE id",
    ] {
        t.execute(&format!("DELETE FROM {table} = ?1"), [id.to_string()])?;
    }
    removed.push(Removed::Deleted(id.clone()));
    Ok(())
}

/// Deletes an image and then each parent that no name, child or container needs.
fn delete_with_parents(
    t: &Transaction<'_>,
    id: &Digest,
    options: &RemoveOptions,
    removed: &mut Vec<Removed>,
) -> Result<()> {
    let mut next = Some(id.clone());
    while let Some(id) = next.take() {
        let needed = !children(t, &id)?.is_empty();
        if needed {
            return Ok(());
        }
        let parent = digests(
            t,
            "SELECT parent FROM images WHERE id = ?1 AND parent IS NOT NULL",
            [id.to_string()],
        )?;
        delete(t, &id, removed)?;
        let unneeded = |parent: &Digest| -> Result<bool> {
            let exists = !digests(
                t,
                "SELECT id FROM images WHERE id = ?1",
                [parent.to_string()],
            )?
            .is_empty();
            let used = used_by(parent, options, |_| true).is_some();
            Ok(exists && !used && tag_names(t, parent)?.is_empty())
        };
        if let Some(parent) = parent.into_iter().next().filter(|_| !options.keep_parents)
            && unneeded(&parent)?
        {
            next = Some(parent);
        }
    }
    Ok(())
}
