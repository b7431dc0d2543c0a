//! `history`: the steps that made an image, the newest first.

use crate::store::digest::Digest;

use super::{Image, Images, Result};

/// One row of `docker history`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// The image as of this step, if it is known; Docker shows `<missing>` if not.
    pub id: Option<Digest>,
    /// When, RFC 3339, if the image says so.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// The message.
    pub comment: String,
    /// Bytes of the step's layer; 0 for a step without one.
    pub size: u64,
    /// The names of the image as of this step.
    pub tags: Vec<String>,
}

impl Images<'_> {
    /// The steps of an image, the newest first; layers that no step tells of get a row each.
    pub fn history(&self, image: &Image) -> Result<Vec<HistoryRow>> {
        let mut layers = image.layers.iter();
        let mut rows: Vec<HistoryRow> = Vec::new();
        for step in &image.config.history {
            let layer = if step.empty_layer {
                None
            } else {
                layers.next()
            };
            rows.push(HistoryRow {
                id: None,
                created: step.created.clone(),
                created_by: step.created_by.clone().unwrap_or_default(),
                comment: step.comment.clone().unwrap_or_default(),
                size: layer.map_or(0, |layer| layer.size),
                tags: Vec::new(),
            });
        }
        rows.extend(layers.map(|layer| HistoryRow {
            id: None,
            created: None,
            created_by: String::new(),
            comment: String::new(),
            size: layer.size,
            tags: Vec::new(),
        }));
        rows.reverse();
        self.fill_ids(image, &mut rows)?;
        Ok(rows)
    }

    /// The newest step is the image itself, and each one before it is that image's local parent.
    fn fill_ids(&self, image: &Image, rows: &mut [HistoryRow]) -> Result<()> {
        let mut at = Some(image.clone());
        for row in rows {
            let Some(image) = at.take() else {
                return Ok(());
            };
            row.id = Some(image.id.clone());
            row.tags = image.tags;
            at = match &image.parent {
                Some(parent) => self.get(parent).ok(),
                None => None,
            };
        }
        Ok(())
    }
}
