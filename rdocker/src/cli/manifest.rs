//! `rdocker manifest`: what a registry says that a name means.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::image::manifest::{Descriptor, Document, media};
use crate::image::pull::Fetched;
use crate::image::{self, Images, Reference, registry};
use crate::store::Store;
use crate::ui::Ui;

use super::context::Refused;
use super::transfer::{reference, registry_options};

/// Manage Docker image manifests and manifest lists
#[derive(Debug, clap::Subcommand)]
pub enum ManifestVerb {
    /// Display an image manifest, or manifest list
    Inspect(Inspect),
    #[command(hide = true)]
    Annotate(Refused),
    #[command(hide = true)]
    Create(Refused),
    #[command(hide = true)]
    Push(Refused),
    #[command(hide = true)]
    Rm(Refused),
}

impl ManifestVerb {
    /// Dispatches.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        match self {
            Self::Inspect(verb) => verb.run(host, ui),
            _ => Err(Error::Usage(
                "manifest lists are shown and pulled, but not made here".to_owned(),
            )),
        }
    }
}

/// Display an image manifest, or manifest list
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker manifest inspect [OPTIONS] MANIFEST")]
pub struct Inspect {
    /// Allow communication with an insecure registry
    #[arg(long)]
    insecure: bool,
    /// Output additional info including layers and platform
    #[arg(short, long)]
    verbose: bool,
    #[arg(value_name = "MANIFEST", hide = true)]
    name: String,
}

impl Inspect {
    fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let name = reference(&self.name)?.or_latest();
        let mut options = registry_options(host);
        if self.insecure {
            options.insecure.push(name.domain().to_owned());
        }
        let store = Store::open(&host.data_root)?;
        let images = Images::new(&store);
        let top = images
            .remote_document(&name, &options)
            .map_err(|error| told(error, &name))?;
        if !self.verbose {
            let indent = match top.document {
                Document::Manifest(_) => "\t",
                Document::Index(_) => "   ",
            };
            return ui.line(indented(&top.bytes, indent));
        }
        let shown = match &top.document {
            Document::Manifest(_) => detail(&name, &top, None),
            Document::Index(index) => {
                let entries = index.manifests.iter().map(|entry| {
                    let name = name.at_digest(&entry.digest);
                    let found = images.remote_document(&name, &options)?;
                    Ok(detail(&name, &found, Some(entry)))
                });
                Value::Array(entries.collect::<Result<_>>()?)
            }
        };
        ui.line(indented(shown.to_string().as_bytes(), "\t"))
    }
}

/// docker/cli's words for what the registry does not have.
fn told(error: image::Error, name: &Reference) -> Error {
    match error {
        image::Error::Registry(registry::Error::NotFound { .. }) => {
            Error::Usage(format!("no such manifest: {}", name.familiar()))
        }
        other => other.into(),
    }
}

/// One manifest as docker/cli's `ImageManifest` is written.
fn detail(name: &Reference, found: &Fetched, entry: Option<&Descriptor>) -> Value {
    let kind = entry.map(|entry| entry.media_type.clone());
    let body: Value = serde_json::from_slice(&found.bytes).unwrap_or_default();
    let kind = kind.or_else(|| body["mediaType"].as_str().map(str::to_owned));
    let kind = kind.unwrap_or_else(|| media::OCI_MANIFEST.to_owned());
    let field = match kind.as_str() {
        media::DOCKER_MANIFEST => "SchemaV2Manifest",
        _ => "OCIManifest",
    };
    let mut shown = json!({
        "Ref": name.to_string(),
        "Descriptor": {"mediaType": kind, "digest": found.digest, "size": found.bytes.len()},
        "Raw": STANDARD.encode(&found.bytes),
    });
    if let Some(platform) = entry.and_then(|entry| entry.platform.as_ref()) {
        shown["Descriptor"]["platform"] = json!(platform);
    }
    shown[field] = body;
    shown
}

/// The same JSON with line breaks, every token and the order of keys kept: Go's `json.Indent`.
fn indented(json: &[u8], indent: &str) -> String {
    let text = String::from_utf8_lossy(json);
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut opened = false;
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&indent.repeat(depth));
    };
    for c in text.chars() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        if c.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(c, '}' | ']');
        if closes {
            depth = depth.saturating_sub(1);
        }
        // An empty object or list stays on its line.
        if closes != opened {
            line(&mut out, depth);
        }
        opened = matches!(c, '{' | '[');
        out.push(c);
        match c {
            '{' | '[' => depth += 1,
            ',' => line(&mut out, depth),
            ':' => out.push(' '),
            '"' => in_string = true,
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_as_go_does_it() {
        let cases = [
            (
                r#"{"b":1,"a":[1,{"c":"x,:{\"\\"}],"e":{},"l":[ ]}"#,
                "{\n  \"b\": 1,\n  \"a\": [\n    1,\n    {\n      \"c\": \"x,:{\\\"\\\\\"\n    }\n  ],\n  \"e\": {},\n  \"l\": []\n}",
            ),
            ("[\n]", "[]"),
        ];
        for (json, want) in cases {
            assert_eq!(indented(json.as_bytes(), "  "), want, "{json}");
        }
    }
}
