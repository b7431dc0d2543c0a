//! `--filter KEY=VALUE`: values of one key are alternatives, different keys must all match.

use std::collections::BTreeMap;

use jiff::Timestamp;
use regex_lite::Regex;

use super::when;
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
                Error::Usage(format!(
                    "invalid argument {text:?} for \"-f, --filter\" flag: bad format of filter \
                     (expected name=value)"
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

    /// All values of a key.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Whether the key was not given, or one of its values is accepted.
    pub fn any(&self, key: &str, accept: impl Fn(&str) -> bool) -> bool {
        self.0
            .get(key)
            .is_none_or(|values| values.iter().any(|value| accept(value)))
    }

    /// Whether one of the key's values is `text`, or is a regular expression that finds something
    /// in it, as Docker's filters on names go.
    pub fn finds(&self, key: &str, text: &str) -> bool {
        self.any(key, |value| {
            value == text || Regex::new(value).is_ok_and(|pattern| pattern.is_match(text))
        })
    }

    /// Whether `time` is before the one of `until`, if that was given.
    ///
    /// # Errors
    /// The value is no time.
    pub fn until(&self, time: Timestamp, now: Timestamp) -> Result<bool> {
        match self.first("until") {
            Some(text) => Ok(time < when::parse(text, now)?),
            None => Ok(true),
        }
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

/// Whether `pattern` fits all of `text`, by the rules of Go's path.Match: `*` and `?` do not cross a
/// `/`, `[a-z]` and `[^a-z]` are sets, a backslash takes the meaning of what follows.
///
/// # Errors
/// Docker's `syntax error in pattern`.
pub fn path_match(pattern: &str, text: &str) -> Result<bool> {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    matches(&pattern, &text).ok_or_else(|| Error::Invalid("syntax error in pattern".to_owned()))
}

/// `None` if the pattern is broken.
fn matches(pattern: &[char], text: &[char]) -> Option<bool> {
    let Some((first, rest)) = pattern.split_first() else {
        return Some(text.is_empty());
    };
    let next = text.split_first();
    match first {
        '*' => {
            let segment = text.iter().take_while(|c| **c != '/').count();
            for taken in 0..=segment {
                if matches(rest, &text[taken..])? {
                    return Some(true);
                }
            }
            Some(false)
        }
        '?' => match next {
            Some((c, text)) if *c != '/' => matches(rest, text),
            _ => matches(rest, &[]).map(|_| false),
        },
        '[' => {
            let (set, rest) = parse_set(rest)?;
            match next {
                Some((c, text)) if *c != '/' && set.has(*c) => matches(rest, text),
                _ => matches(rest, &[]).map(|_| false),
            }
        }
        _ => {
            let (literal, rest) = match first {
                '\\' => rest.split_first()?,
                other => (other, rest),
            };
            match next {
                Some((c, text)) if c == literal => matches(rest, text),
                _ => matches(rest, &[]).map(|_| false),
            }
        }
    }
}

/// `[…]` in a pattern.
struct Set {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Set {
    fn has(&self, c: char) -> bool {
        self.ranges
            .iter()
            .any(|(low, high)| (*low..=*high).contains(&c))
            != self.negated
    }
}

fn parse_set(pattern: &[char]) -> Option<(Set, &[char])> {
    let (negated, mut rest) = match pattern.split_first()? {
        ('^', rest) => (true, rest),
        _ => (false, pattern),
    };
    let mut ranges = Vec::new();
    let bound = |rest: &mut &[char]| -> Option<char> {
        let (first, after) = rest.split_first()?;
        let (c, after) = match first {
            '\\' => after.split_first()?,
            '-' | ']' => return None,
            c => (c, after),
        };
        *rest = after;
        Some(*c)
    };
    loop {
        if rest.first() == Some(&']') && !ranges.is_empty() {
            return Some((Set { negated, ranges }, &rest[1..]));
        }
        let low = bound(&mut rest)?;
        let high = match rest.split_first() {
            Some(('-', after)) => {
                rest = after;
                bound(&mut rest)?
            }
            _ => low,
        };
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        let cases = [
            ("busy*", "busybox", Some(true)),
            ("*", "a/b", Some(false)),
            ("*/b", "a/b", Some(true)),
            ("b?sybox", "busybox", Some(true)),
            ("?", "/", Some(false)),
            ("busybox:[0-9]*", "busybox:1.36", Some(true)),
            ("[^a-c]x", "dx", Some(true)),
            ("[^a-c]x", "bx", Some(false)),
            ("\\*", "*", Some(true)),
            ("", "", Some(true)),
            ("[", "a", None),
            ("[]a]", "]", None),
            ("a\\", "a", None),
            ("[a-", "b", None),
        ];
        for (pattern, text, want) in cases {
            assert_eq!(path_match(pattern, text).ok(), want, "{pattern} {text}");
        }
    }

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
    fn names_are_found_by_regular_expressions() {
        let cases = [
            ("we", "web", true),
            ("^web$", "web", true),
            ("^web$", "web2", false),
            ("^(a|web)[0-9]+$", "web2", true),
            ("[", "web", false),
            ("[", "[", true),
        ];
        for (pattern, name, want) in cases {
            let filters = Filters::parse(&[format!("name={pattern}")], &["name"]).unwrap();
            assert_eq!(filters.finds("name", name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn an_unknown_filter_is_refused() {
        let why = Filters::parse(&["what=1".to_owned()], &["name"])
            .unwrap_err()
            .to_string();
        assert_eq!(why, "invalid filter 'what'");
    }
}
