//! `rdocker plugin`: programs that a daemon runs to serve volumes and networks. There are none here.

use crate::error::{Error, Result};
use crate::ui::Ui;
use crate::ui::list::Columns;

use super::context::Refused;
use super::each::each;
use super::inspect;

const COLUMNS: Columns = Columns {
    template: "{{.ID}}\t{{.Name}}\t{{.Description}}\t{{.Enabled}}",
    headers: &[],
};

/// Manage plugins
#[derive(Debug, clap::Subcommand)]
pub enum PluginVerb {
    /// Display detailed information on one or more plugins
    Inspect(Inspect),
    /// List plugins
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Remove one or more plugins
    #[command(visible_alias = "remove")]
    Rm(Rm),
    #[command(hide = true)]
    Create(Refused),
    #[command(hide = true)]
    Disable(Refused),
    #[command(hide = true)]
    Enable(Refused),
    #[command(hide = true)]
    Install(Refused),
    #[command(hide = true)]
    Push(Refused),
    #[command(hide = true)]
    Set(Refused),
    #[command(hide = true)]
    Upgrade(Refused),
}

impl PluginVerb {
    /// Dispatches.
    pub fn run(self, ui: &mut Ui) -> Result<()> {
        match self {
            Self::Inspect(verb) => verb.run(ui),
            Self::Ls(verb) => verb.run(ui),
            Self::Rm(verb) => each(&verb.names, ui, |name, _| Err(missing(name))),
            _ => Err(Error::Hinted {
                message: "plugins are served to a daemon, and rdocker has none".to_owned(),
                hint: "volumes: 'volume create -o type=nfs …' mounts what a plugin would"
                    .to_owned(),
            }),
        }
    }
}

fn missing(name: &str) -> Error {
    Error::Conflict(format!("plugin {name:?} not found"))
}

/// Display detailed information on one or more plugins
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker plugin inspect [OPTIONS] PLUGIN [PLUGIN...]")]
pub struct Inspect {
    /// Format output: 'json' or a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    #[arg(required = true, value_name = "PLUGIN", hide = true)]
    names: Vec<String>,
}

impl Inspect {
    fn run(self, ui: &mut Ui) -> Result<()> {
        inspect::print(ui, self.format.as_deref(), &[])?;
        each(&self.names, ui, |name, _| Err(missing(name)))
    }
}

/// List plugins
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker plugin ls [OPTIONS]")]
pub struct Ls {
    /// Provide filter values (e.g. "enabled=true")
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display plugin IDs
    #[arg(short, long)]
    quiet: bool,
}

impl Ls {
    fn run(self, ui: &mut Ui) -> Result<()> {
        super::filter::Filters::parse(&self.filter, &["enabled", "capability"])?;
        match self.quiet {
            true => Ok(()),
            false => COLUMNS.show(ui, self.format.as_deref(), &[]),
        }
    }
}

/// Remove one or more plugins
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker plugin rm [OPTIONS] PLUGIN [PLUGIN...]")]
pub struct Rm {
    /// Force the removal of an active plugin
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "PLUGIN", hide = true)]
    names: Vec<String>,
}
