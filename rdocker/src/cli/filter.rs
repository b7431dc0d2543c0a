//! `--filter KEY=VALUE`: values of one key are alternatives, different keys must all match.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Parsed filters.
#[derive(Debug, Default)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Parses, refusing keys that are not in `known`.
    ///
    /// # Errors
    /// Docker's `invalid filter 'x'`.
    pub fn parse(list: &[String], known: &[&str]) -> Result<Self> {
        let mut filters = Self::default();
        for text in list {
            let (key, value) = text.split_once('=').ok_or_else(|| {
                Error::Invalid(format!(
                    "invalid argument {text:?} for \"-f, --filter\" flag: invalid filter '{text}'"
                ))
            })?;
            let key = key.trim().to_lowercase();
            if !known.contains(&key.as_str()) {
                return Err(Error::Invalid(format!("invalid filter '{key}'")));
            }
            filters
                .0
                .entry(key)
                .or_default()
                .push(value.trim().to_owned());
        }
        Ok(filters)
    }

    /// Whether the key was given.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The first value of a key.
    pub fn first(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.first().map(String::as_str)
    }

    /// Whether the key was not given, or one of its values is accepted.
    pub fn any(&self, key: &str, accept: impl Fn(&str) -> bool) -> bool {
        self.0
            .get(key)
            .is_none_or(|values| values.iter().any(|value| accept(value)))
    }

    /// Whether every `label=K` and `label=K=V` is among `labels`, and no `label!=` is.
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        };
        self.0
            .get("label")
            .is_none_or(|values| values.iter().all(has))
            && self
                .0
                .get("label!")
                .is_none_or(|values| !values.iter().any(has))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_alternatives_and_labels_must_all_match() {
        let words: Vec<String> = ["name=a", "name=b", "label=k=v", "label=x"]
            .map(str::to_owned)
            .to_vec();
        let filters = Filters::parse(&words, &["name", "label"]).unwrap();
        assert!(filters.any("name", |value| value == "b") && !filters.any("name", |v| v == "c"));
        assert!(
            filters.any("id", |_| false),
            "a key that is not given accepts all"
        );
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        assert!(filters.labels(&labels(&[("k", "v"), ("x", "")])));
        assert!(!filters.labels(&labels(&[("k", "other"), ("x", "")])));
    }

    #[test]
    fn an_unknown_filter_is_refused() {
        let why = Filters::parse(&["what=1".to_owned()], &["name"])
            .unwrap_err()
            .to_string();
        assert_eq!(why, "invalid filter 'what'");
    }
}
