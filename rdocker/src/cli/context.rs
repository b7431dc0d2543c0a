//! `rdocker context`: what a docker command line would talk to. Here that is this program alone.

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::image::registry::Credentials;
use crate::ui::Ui;
use crate::ui::list::Columns;

use super::each::{each, each_quietly};
use super::inspect;

/// The only context.
pub const DEFAULT: &str = "default";
const DESCRIPTION: &str = "This program, without a daemon";

const COLUMNS: Columns = Columns {
    template: "{{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
    headers: &[("DockerEndpoint", "DOCKER ENDPOINT")],
};

/// Manage contexts
#[derive(Debug, clap::Subcommand)]
pub enum ContextVerb {
    /// Display detailed information on one or more contexts
    Inspect(Inspect),
    /// List contexts
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Remove one or more contexts
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Print the name of the current context
    Show,
    /// Set the current docker context
    Use(Use),
    #[command(hide = true)]
    Create(Refused),
    #[command(hide = true)]
    Export(Refused),
    #[command(hide = true)]
    Import(Refused),
    #[command(hide = true)]
    Update(Refused),
}

impl ContextVerb {
    /// Dispatches.
    pub fn run(self, ui: &mut Ui) -> Result<()> {
        match self {
            Self::Inspect(verb) => verb.run(ui),
            Self::Ls(verb) => verb.run(ui),
            Self::Rm(verb) => verb.run(ui),
            Self::Show => ui.line(DEFAULT),
            Self::Use(verb) => verb.run(ui),
            Self::Create(_) | Self::Export(_) | Self::Import(_) | Self::Update(_) => {
                Err(Error::Usage(
                    "a context names a daemon, and rdocker talks to none: there is only \"default\""
                        .to_owned(),
                ))
            }
        }
    }
}

/// A verb that has no meaning here, whatever it is told.
#[derive(Debug, clap::Args)]
pub struct Refused {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    words: Vec<String>,
}

/// docker/cli's words, which name the file that it looked for.
fn not_found(name: &str) -> Error {
    let digest = Sha256::digest(name.as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let config = Credentials::default_file().unwrap_or_default();
    let dir = config.with_file_name("contexts").join("meta").join(digest);
    Error::Usage(format!(
        "context {name:?}: context not found: open {}: no such file or directory",
        dir.join("meta.json").display()
    ))
}

/// Display detailed information on one or more contexts
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker context inspect [OPTIONS] [CONTEXT] [CONTEXT...]")]
pub struct Inspect {
    /// Format output: 'json' or a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    #[arg(hide = true)]
    names: Vec<String>,
}

impl Inspect {
    fn run(self, ui: &mut Ui) -> Result<()> {
        let wanted = match self.names.is_empty() {
            true => vec![DEFAULT.to_owned()],
            false => self.names,
        };
        let mut found = Vec::new();
        let known = |name: &String| name == DEFAULT;
        for _ in wanted.iter().filter(|name| known(name)) {
            found.push(json!({
                "Name": DEFAULT,
                "Metadata": {"Description": DESCRIPTION},
                "Endpoints": {"docker": {"Host": "", "SkipTLSVerify": false}},
                "TLSMaterial": {},
                "Storage": {"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"},
            }));
        }
        inspect::print(ui, self.format.as_deref(), &found)?;
        each_quietly(&wanted, ui, |name, _| match name {
            DEFAULT => Ok(()),
            other => Err(not_found(other)),
        })
    }
}

/// List contexts
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker context ls [OPTIONS]")]
pub struct Ls {
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Only show context names
    #[arg(short, long)]
    quiet: bool,
}

impl Ls {
    fn run(self, ui: &mut Ui) -> Result<()> {
        if self.quiet {
            return ui.line(DEFAULT);
        }
        let row = json!({
            "Name": DEFAULT, "Description": DESCRIPTION, "DockerEndpoint": "", "Current": true,
            "Error": "",
        });
        COLUMNS.show(ui, self.format.as_deref(), &[row])
    }
}

/// Remove one or more contexts
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker context rm CONTEXT [CONTEXT...]")]
pub struct Rm {
    /// Force the removal of a context in use
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "CONTEXT", hide = true)]
    names: Vec<String>,
}

impl Rm {
    fn run(self, ui: &mut Ui) -> Result<()> {
        each(&self.names, ui, |name, _| match name {
            DEFAULT => Err(Error::Usage(
                "context \"default\" cannot be removed".to_owned(),
            )),
            _ if self.force => Ok(()),
            _ => Err(Error::Usage(format!("context {name:?} does not exist"))),
        })
    }
}

/// Set the current docker context
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker context use CONTEXT")]
pub struct Use {
    #[arg(value_name = "CONTEXT", hide = true)]
    name: String,
}

impl Use {
    fn run(self, ui: &mut Ui) -> Result<()> {
        if self.name != DEFAULT {
            return Err(not_found(&self.name));
        }
        ui.line(DEFAULT)?;
        ui.error_line("Current context is now \"default\"")
    }
}
