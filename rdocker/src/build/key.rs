//! Keys of the build cache: a digest over fields that cannot run into each other.

use crate::store::digest::{Algorithm, Digest, Hasher};

/// A key in the making. Every field goes in with its length, so that no two lists of fields give
/// the same bytes.
pub struct Key(Hasher);

impl Key {
    /// A key for one kind of step. The first field is the version of this whole scheme.
    pub fn new(kind: &str) -> Self {
        let mut key = Self(Hasher::new(Algorithm::Sha256));
        key.text("rdocker build 1");
        key.text(kind);
        key
    }

    /// Adds bytes.
    pub fn field(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    /// Adds text.
    pub fn text(&mut self, text: &str) {
        self.field(text.as_bytes());
    }

    /// Adds a list, with its length.
    pub fn list<T: AsRef<str>>(&mut self, list: &[T]) {
        self.number(list.len() as u64);
        for text in list {
            self.text(text.as_ref());
        }
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    /// The key.
    pub fn finish(self) -> Digest {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_into_each_other() {
        let key = |lists: &[&[&str]]| {
            let mut key = Key::new("t");
            for list in lists {
                key.list(list);
            }
            key.finish()
        };
        let all = [
            key(&[&["ab", "c"]]),
            key(&[&["a", "bc"]]),
            key(&[&["a"], &["bc"]]),
            key(&[&["abc"]]),
            key(&[&["abc"], &[]]),
            key(&[&["abc", ""]]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one), "{at}");
        }
    }
}
