//! `rdocker network`

mod connect;
mod create;
mod list;
mod show;

pub use list::prune;
pub use show::{describe, settings};

use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::network::manage;
use crate::network::registry::Networks;
use crate::store::Store;
use crate::ui::Ui;

use super::each::each;
use super::inspect::Inspect;

/// Manage networks
#[derive(Debug, clap::Subcommand)]
pub enum NetworkVerb {
    /// Connect a container to a network
    Connect(connect::Connect),
    /// Create a network
    Create(create::Create),
    /// Disconnect a container from a network
    Disconnect(connect::Disconnect),
    /// Display detailed information on one or more networks
    Inspect(InspectNetwork),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(list::Ls),
    /// Remove all unused networks
    Prune(list::Prune),
    /// Remove one or more networks
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

impl NetworkVerb {
    /// Dispatches.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        match self {
            Self::Connect(verb) => verb.run(host),
            Self::Create(verb) => verb.run(host, ui),
            Self::Disconnect(verb) => verb.run(host),
            Self::Inspect(verb) => verb.inspect.of_kind("network").run(host, ui),
            Self::Ls(verb) => verb.run(host, ui),
            Self::Prune(verb) => verb.run(host, ui),
            Self::Rm(verb) => verb.run(host, ui),
        }
    }
}

/// Display detailed information on one or more networks
#[derive(Debug, clap::Args)]
pub struct InspectNetwork {
    #[command(flatten)]
    inspect: Inspect,
    /// Verbose output for diagnostics: of services, which only a swarm has
    #[arg(short, long)]
    verbose: bool,
}

/// Remove one or more networks
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker network rm NETWORK [NETWORK...]")]
pub struct Rm {
    /// Do not error if the network does not exist
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "NETWORK", hide = true)]
    names: Vec<String>,
}

impl Rm {
    fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let store = Store::open(&host.data_root)?;
        let networks = Networks { store: &store };
        each(&self.names, ui, |name, _| match networks.find(name) {
            Ok(network) => {
                manage::remove(host, &networks, &network)?;
                let more = [("name", network.name), ("type", network.driver)];
                events::other(host, "network", "destroy", &network.id, &more)
            }
            Err(Error::Conflict(_)) if self.force => Ok(()),
            Err(error) => Err(error),
        })
    }
}
