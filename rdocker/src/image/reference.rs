//! Image references: what a user types, and the full name behind it.
//!
//! `busybox` means `docker.io/library/busybox`, and `:latest` where a tag is needed. The grammar
//! and the short ("familiar") spelling are those of the Docker command line.
//!
//! Source: distribution/reference grammar; distribution-spec, "Pulling manifests".

use std::fmt;

use crate::store::digest::{Digest, InvalidDigest};

/// The registry that a name without a host belongs to.
pub const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// The longest repository path that registries accept, in bytes.
const NAME_MAX: usize = 255;
/// The longest tag, in bytes.
const TAG_MAX: usize = 128;

/// A full image name: registry, repository, and a tag, a digest, both or neither.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference; the words are Docker's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidReference {
    /// The text does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// The repository has upper-case letters.
    #[error("invalid reference format: repository name ({name}) must be lowercase")]
    UpperCase {
        /// The repository as it was typed, without its tag.
        name: String,
    },
    /// 64 hexadecimal digits are an id, not a name.
    #[error("invalid repository name ({name}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId {
        /// What was typed.
        name: String,
    },
    /// The repository is too long.
    #[error("repository name must not be more than {NAME_MAX} characters")]
    TooLong,
    /// What follows the `@` is not a digest.
    #[error("invalid reference format")]
    Digest(#[from] InvalidDigest),
}

impl Reference {
    /// Parses what a user typed and fills in the default registry and namespace.
    ///
    /// The tag stays empty if none was typed; see [`Reference::or_latest`].
    ///
    /// # Errors
    /// [`InvalidReference`], in Docker's words.
    pub fn parse(text: &str) -> Result<Reference, InvalidReference> {
        if is_full_id(text) {
            return Err(InvalidReference::LooksLikeId {
                name: text.to_owned(),
            });
        }
        let (domain, remainder) = split_domain(text);
        let (rest, digest) = match remainder.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (remainder.as_str(), None),
        };
        // The path has no colon of its own, so the first colon ends it.
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            let name = path.to_owned();
            return Err(InvalidReference::UpperCase { name });
        }
        if !is_domain(&domain) || !is_path(path) || tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(InvalidReference::Format);
        }
        if path.len() > NAME_MAX {
            return Err(InvalidReference::TooLong);
        }
        Ok(Reference {
            domain,
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// The registry's host and, if typed, port; `docker.io` by default.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within its registry, such as `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest after `@`, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository, such as `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name as Docker shows it: without `docker.io/` and without `library/`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as Docker shows it.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        self.push_suffix(&mut text);
        text
    }

    /// Adds `:latest` if there is neither tag nor digest.
    #[must_use]
    pub fn or_latest(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same repository with this digest and no tag.
    pub fn at_digest(&self, digest: &Digest) -> Reference {
        Reference {
            tag: None,
            digest: Some(digest.clone()),
            ..self.clone()
        }
    }

    /// The same repository with this tag and no digest.
    ///
    /// # Errors
    /// [`InvalidReference::Format`] if `tag` is no tag.
    pub fn at_tag(&self, tag: &str) -> Result<Reference, InvalidReference> {
        if !is_tag(tag) {
            return Err(InvalidReference::Format);
        }
        Ok(Reference {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    fn push_suffix(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.push_suffix(&mut text);
        f.write_str(&text)
    }
}

impl std::str::FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Reference, InvalidReference> {
        Reference::parse(text)
    }
}

/// Whether `text` is 64 lower-case hexadecimal digits: an id without its algorithm.
pub fn is_full_id(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// Whether `text` is made of lower-case hexadecimal digits only.
pub fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn split_domain(text: &str) -> (String, String) {
    let host = text.split_once('/').filter(|(first, _)| {
        *first == "localhost"
            || first.contains(['.', ':'])
            || first.bytes().any(|b| b.is_ascii_uppercase())
    });
    let (domain, remainder) = match host {
        Some((LEGACY_DEFAULT_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((domain, rest)) => (domain, rest),
        None => (DEFAULT_DOMAIN, text),
    };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        return (domain.to_owned(), format!("{OFFICIAL}{remainder}"));
    }
    (domain.to_owned(), remainder.to_owned())
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else {
                return false;
            };
            let is_address =
                !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
            if !is_address {
                return false;
            }
            (
                None,
                port.strip_prefix(':').or((!port.is_empty()).then_some("")),
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    let is_port = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.is_none_or(|host| host.split('.').all(is_label)) && port.is_none_or(is_port)
}

fn is_path(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

/// Lower-case words joined by one dot, one or two underscores, or any number of dashes.
fn is_path_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !is_word(*first) || !is_word(*last) {
        return false;
    }
    bytes.split(|b| is_word(*b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

fn is_tag(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= TAG_MAX
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn a_short_name_becomes_a_full_one_and_back() {
        // typed, full, familiar
        let cases = [
            ("busybox", "docker.io/library/busybox", "busybox"),
            (
                "busybox:1.36",
                "docker.io/library/busybox:1.36",
                "busybox:1.36",
            ),
            ("ubuntu/vim", "docker.io/ubuntu/vim", "ubuntu/vim"),
            ("library/busybox", "docker.io/library/busybox", "busybox"),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            (
                "index.docker.io/busybox",
                "docker.io/library/busybox",
                "busybox",
            ),
            ("index.docker.io/a/b:c", "docker.io/a/b:c", "a/b:c"),
            ("localhost/x", "localhost/x", "localhost/x"),
            (
                "localhost:5000/x:y",
                "localhost:5000/x:y",
                "localhost:5000/x:y",
            ),
            (
                "127.0.0.1:5000/hexo/node",
                "127.0.0.1:5000/hexo/node",
                "127.0.0.1:5000/hexo/node",
            ),
            ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
            ("[fd00::1]/x", "[fd00::1]/x", "[fd00::1]/x"),
            ("Host/x", "Host/x", "Host/x"),
            (
                "quay.io/a/b/c:v1.0",
                "quay.io/a/b/c:v1.0",
                "quay.io/a/b/c:v1.0",
            ),
            (
                "a_b__c-d---e.f",
                "docker.io/library/a_b__c-d---e.f",
                "a_b__c-d---e.f",
            ),
            (
                "localhost:5000",
                "docker.io/library/localhost:5000",
                "localhost:5000",
            ),
        ];
        for (typed, full, familiar) in cases {
            let reference = Reference::parse(typed).unwrap_or_else(|e| panic!("{typed}: {e}"));
            assert_eq!(reference.to_string(), full, "{typed}");
            assert_eq!(reference.familiar(), familiar, "{typed}");
            assert_eq!(
                Reference::parse(familiar).unwrap(),
                reference,
                "{typed} round trip"
            );
        }
    }

    #[test]
    fn a_digest_may_follow_a_name_or_a_tag() {
        let both = Reference::parse(&format!("busybox:1@{DIGEST}")).unwrap();
        assert_eq!((both.tag(), both.digest().is_some()), (Some("1"), true));
        let digest = Reference::parse(&format!("q.io/b@{DIGEST}"))
            .unwrap()
            .or_latest();
        assert_eq!(digest.tag(), None, "a digest needs no default tag");
        assert_eq!(digest.familiar(), format!("q.io/b@{DIGEST}"));
    }

    #[test]
    fn only_a_bare_name_gets_the_latest_tag() {
        assert_eq!(
            Reference::parse("a").unwrap().or_latest().tag(),
            Some("latest")
        );
        assert_eq!(
            Reference::parse("a:b").unwrap().or_latest().tag(),
            Some("b")
        );
    }

    #[test]
    fn text_outside_the_grammar_is_refused_in_dockers_words() {
        let format = "invalid reference format";
        let lower = |n: &str| format!("{format}: repository name ({n}) must be lowercase");
        let cases = [
            ("", format.to_owned()),
            ("a:", format.to_owned()),
            (":tag", format.to_owned()),
            ("a//b", format.to_owned()),
            ("a/", format.to_owned()),
            ("/a", format.to_owned()),
            ("-a", format.to_owned()),
            ("a-", format.to_owned()),
            ("a..b", format.to_owned()),
            ("a___b", format.to_owned()),
            ("a._b", format.to_owned()),
            ("a b", format.to_owned()),
            ("a:b:c", format.to_owned()),
            ("a:.x", format.to_owned()),
            ("é", format.to_owned()),
            ("../x", format.to_owned()),
            ("-h.io/x", format.to_owned()),
            ("h.io:port/x", format.to_owned()),
            ("h.io:/x", format.to_owned()),
            ("[::1/x", format.to_owned()),
            ("https://h.io/x", format.to_owned()),
            ("Foo", lower("library/Foo")),
            ("h.io/Foo:Tag", lower("Foo")),
            ("a/B", lower("a/B")),
        ];
        for (typed, want) in cases {
            let error = Reference::parse(typed).expect_err(typed);
            assert_eq!(error.to_string(), want, "{typed}");
        }
        assert!(
            Reference::parse(&"a".repeat(64))
                .unwrap_err()
                .to_string()
                .contains("64-byte")
        );
        assert_eq!(
            Reference::parse(&"x".repeat(256)),
            Err(InvalidReference::TooLong)
        );
        assert!(Reference::parse("a@sha256:abc").is_err());
        let long_tag = format!("a:{}", "t".repeat(129));
        assert_eq!(Reference::parse(&long_tag), Err(InvalidReference::Format));
    }
}
