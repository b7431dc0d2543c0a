//! Manifests and indexes: the documents between a name and its blobs.
//!
//! A document is taken only if it cannot be read in two ways: its `mediaType` agrees with what it
//! was announced as, and it is a manifest or an index, not both (CVE-2021-41190).
//!
//! Source: image-spec, manifest.md, image-index.md, descriptor.md; distribution, "Image Manifest
//! Version 2, Schema 2".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::store::digest::Digest;

use super::overlay::LAYERS_MAX;
use super::platform::Platform;
use super::{Error, Result};

/// The largest manifest or index, in bytes.
pub const MANIFEST_MAX: u64 = 4 << 20;
/// The largest layer, in bytes.
const LAYER_MAX: u64 = 64 << 30;
/// The deepest nesting of JSON.
const DEPTH_MAX: usize = 64;

/// The media types of documents and layers.
pub mod media {
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's index.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's gzip layer.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// OCI's manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI's index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI's image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI's plain layer.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI's gzip layer.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI's zstd layer.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// The old, unsigned and signed manifests that are refused.
    pub const DOCKER_SCHEMA1: [&str; 2] = [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ];
}

/// A pointer to a blob or a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Number of its bytes.
    pub size: u64,
    /// Where else it may be fetched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// What an index entry runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// One image for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Empty in some OCI documents.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// A list of images, one for each platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Empty in some OCI documents.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The images.
    pub manifests: Vec<Descriptor>,
}

/// What a document turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// A single image.
    Manifest(Box<Manifest>),
    /// A list of images.
    Index(Index),
}

/// Parses a document; `announced` is the media type of its descriptor or HTTP header.
///
/// # Errors
/// [`Error::Document`] naming the rule that it breaks.
pub fn parse(bytes: &[u8], announced: Option<&str>) -> Result<Document> {
    let wrong = |why: &str| Error::document("manifest", why);
    if bytes.len() as u64 > MANIFEST_MAX {
        return Err(wrong("it is larger than 4 MiB"));
    }
    let value: serde_json::Value = serde_json::from_slice(bytes)
        .map_err(|error| Error::document("manifest", format!("it is not JSON: {error}")))?;
    if depth(&value) > DEPTH_MAX {
        return Err(wrong("its JSON is more than 64 levels deep"));
    }
    let has = |key: &str| value.get(key).is_some();
    if has("fsLayers") || value.get("schemaVersion").and_then(|v| v.as_u64()) == Some(1) {
        return Err(wrong(
            "schema 1 is no longer supported; push the image again with a newer tool",
        ));
    }
    let is_index = has("manifests");
    if is_index && (has("config") || has("layers")) {
        return Err(wrong("it is an index and a manifest at once"));
    }
    let body = value
        .get("mediaType")
        .and_then(|kind| kind.as_str())
        .unwrap_or_default();
    let announced = announced.map(str::trim).filter(|kind| is_document(kind));
    if let Some(announced) = announced.filter(|kind| !body.is_empty() && *kind != body) {
        return Err(wrong(&format!(
            "it says it is {body:?} but came as {announced:?}"
        )));
    }
    let kind = announced.unwrap_or(body);
    let says_index = matches!(kind, media::DOCKER_LIST | media::OCI_INDEX);
    if !kind.is_empty() && is_document(kind) && says_index != is_index {
        return Err(wrong(&format!(
            "it came as {kind:?}, which its content is not"
        )));
    }
    let malformed = |error: serde_json::Error| Error::document("manifest", error);
    if is_index {
        return serde_json::from_value(value)
            .map(Document::Index)
            .map_err(malformed);
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(malformed)?;
    check_layers(&manifest)?;
    Ok(Document::Manifest(Box::new(manifest)))
}

fn check_layers(manifest: &Manifest) -> Result<()> {
    let wrong = |why: String| Err(Error::document("manifest", why));
    // One layer of the stack is rdocker's own init layer, one the container's.
    if manifest.layers.len() + 2 > LAYERS_MAX {
        return wrong(format!(
            "it has {} layers, the most is {}",
            manifest.layers.len(),
            LAYERS_MAX - 2
        ));
    }
    if let Some(layer) = manifest.layers.iter().find(|layer| layer.size > LAYER_MAX) {
        return wrong(format!("layer {} is larger than 64 GiB", layer.digest));
    }
    let config = &manifest.config.media_type;
    let is_image = matches!(config.as_str(), "" | media::DOCKER_CONFIG | media::OCI_CONFIG)
        // What Docker's own older tools wrote.
        || config == "application/octet-stream" || config == "text/html";
    if !is_image {
        return wrong(format!("it is not an image but {config:?}"));
    }
    Ok(())
}

fn is_document(kind: &str) -> bool {
    use media::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
    matches!(
        kind,
        DOCKER_MANIFEST | DOCKER_LIST | OCI_MANIFEST | OCI_INDEX
    )
}

fn depth(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        serde_json::Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Attestations and the like: index entries that run nowhere.
fn is_image_entry(entry: &Descriptor) -> bool {
    entry
        .platform
        .as_ref()
        .is_none_or(|platform| platform.os != "unknown")
}

/// The entry of an index that runs on `want`.
///
/// # Errors
/// Docker's sentence if there is none.
pub fn select<'i>(index: &'i Index, want: &Platform) -> Result<&'i Descriptor> {
    let candidates = index.manifests.iter().filter(|entry| is_image_entry(entry));
    let ranked = candidates.filter_map(|entry| {
        let rank = match &entry.platform {
            Some(platform) => want.rank(platform)?,
            // An entry that says nothing may be anything: only if nothing else fits.
            None => u32::MAX,
        };
        Some((rank, entry))
    });
    let best = ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry);
    best.ok_or_else(|| {
        Error::InvalidArgument(format!(
            "no matching manifest for {want} in the manifest list entries"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(kind: &str) -> String {
        format!(
            r#"{{"mediaType":"{kind}","digest":"{}","size":2}}"#,
            Digest::of(b"{}")
        )
    }

    #[test]
    fn a_document_with_two_meanings_is_refused() {
        let config = descriptor(media::OCI_CONFIG);
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
        let typed =
            |kind: &str, body: &str| body.replacen('{', &format!(r#"{{"mediaType":"{kind}","#), 1);
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        let both = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#);
        let schema1 = r#"{"schemaVersion":1,"fsLayers":[]}"#;
        let deep = format!(
            r#"{{"schemaVersion":2,"manifests":[],"x":{}{}}}"#,
            "[".repeat(65),
            "]".repeat(65)
        );
        let cases: Vec<(&str, String, Option<&str>, Option<&str>)> = vec![
            ("plain manifest", manifest.clone(), None, None),
            (
                "typed manifest",
                typed(media::OCI_MANIFEST, &manifest),
                Some(media::OCI_MANIFEST),
                None,
            ),
            ("plain index", index.into(), Some(media::OCI_INDEX), None),
            ("unknown header", manifest.clone(), Some("text/plain"), None),
            ("both", both, None, Some("at once")),
            ("schema 1", schema1.into(), None, Some("schema 1")),
            (
                "header against body",
                typed(media::OCI_MANIFEST, &manifest),
                Some(media::DOCKER_MANIFEST),
                Some("but came as"),
            ),
            (
                "index as manifest",
                index.into(),
                Some(media::OCI_MANIFEST),
                Some("its content is not"),
            ),
            (
                "manifest as index",
                manifest.clone(),
                Some(media::DOCKER_LIST),
                Some("its content is not"),
            ),
            ("deep", deep, None, Some("64 levels")),
            ("cut", manifest[..20].into(), None, Some("not JSON")),
            (
                "artifact",
                manifest.replace(media::OCI_CONFIG, "application/x-chart"),
                None,
                Some("not an image"),
            ),
        ];
        for (name, body, announced, want) in cases {
            let got = parse(body.as_bytes(), announced);
            match want {
                None => assert!(got.is_ok(), "{name}: {got:?}"),
                Some(why) => {
                    let error = got.expect_err(name).to_string();
                    assert!(error.contains(why), "{name}: {error}");
                }
            }
        }
        let large = format!("{}{}", " ".repeat(MANIFEST_MAX as usize), index);
        assert!(parse(large.as_bytes(), None).is_err(), "4 MiB and a bit");
    }

    #[test]
    fn the_best_platform_of_an_index_is_chosen() {
        let entry = |os: &str, arch: &str, variant: Option<&str>, n: u8| Descriptor {
            media_type: media::OCI_MANIFEST.into(),
            digest: Digest::of(&[n]),
            size: 1,
            urls: Vec::new(),
            annotations: None,
            platform: Some(Platform {
                os: os.into(),
                architecture: arch.into(),
                variant: variant.map(str::to_owned),
                os_version: None,
            }),
        };
        let index = Index {
            schema_version: 2,
            media_type: String::new(),
            manifests: vec![
                entry("unknown", "unknown", None, 0),
                entry("linux", "arm", Some("v6"), 1),
                entry("linux", "arm", Some("v7"), 2),
                entry("linux", "amd64", None, 3),
                entry("windows", "amd64", None, 4),
            ],
        };
        for (want, got) in [
            ("linux/amd64", Some(3u8)),
            ("linux/arm/v7", Some(2)),
            ("linux/arm/v6", Some(1)),
            ("linux/arm64", Some(2)),
            ("linux/s390x", None),
        ] {
            let platform: Platform = want.parse().unwrap();
            let found = select(&index, &platform)
                .ok()
                .map(|entry| entry.digest.clone());
            assert_eq!(found, got.map(|n| Digest::of(&[n])), "{want}");
        }
        let error = select(&index, &"linux/s390x".parse().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no matching manifest for linux/s390x in the manifest list entries"
        );
    }
}
