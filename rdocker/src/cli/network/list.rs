//! `rdocker network ls` and `prune`

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::filter::Filters;
use crate::error::Result;
use crate::events;
use crate::host::Host;
use crate::network::registry::Networks;
use crate::network::{Network, PREDEFINED, attach, manage};
use crate::store::Store;
use crate::ui::Ui;
use crate::ui::format::{local_time, short_id};
use crate::ui::list::Columns;

const COLUMNS: Columns = Columns {
    template: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    headers: &[("ID", "NETWORK ID")],
};

/// List networks
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker network ls [OPTIONS]")]
pub struct Ls {
    /// Provide filter values (e.g. "driver=bridge")
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Do not truncate the output
    #[arg(long)]
    no_trunc: bool,
    /// Only display network IDs
    #[arg(short, long)]
    quiet: bool,
}

impl Ls {
    /// Lists, by name.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let known = ["dangling", "driver", "id", "label", "name", "scope", "type"];
        let filters = Filters::parse(&self.filter, &known)?;
        let store = Store::open(&host.data_root)?;
        let networks = Networks { store: &store };
        let places = networks.endpoints()?;
        let is_used = |network: &Network| places.iter().any(|place| place.network == network.id);
        let mut list = networks.list()?;
        list.retain(|network| matches(network, &filters, is_used(network)));
        list.sort_by(|a, b| a.name.cmp(&b.name));
        let id = |network: &Network| {
            let id = network.id.as_str();
            if self.no_trunc { id } else { short_id(id) }.to_owned()
        };
        if self.quiet {
            return list.iter().try_for_each(|network| ui.line(id(network)));
        }
        let rows: Vec<Value> = list
            .iter()
            .map(|network| row(network, id(network)))
            .collect();
        COLUMNS.show(ui, self.format.as_deref(), &rows)
    }
}

fn matches(network: &Network, filters: &Filters, is_used: bool) -> bool {
    let own = !PREDEFINED.contains(&network.name.as_str());
    filters.finds("name", &network.name)
        && filters.any("id", |id| network.id.starts_with(id))
        && filters.any("driver", |driver| network.driver == driver)
        && filters.any("scope", |scope| scope == "local")
        && filters.any("type", |kind| own == (kind == "custom"))
        && filters.any("dangling", |wanted| {
            matches!(wanted, "true" | "1") == (own && !is_used)
        })
        && filters.labels(&network.labels)
}

fn row(network: &Network, id: String) -> Value {
    let labels: Vec<String> = network
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    json!({
        "CreatedAt": local_time(network.created), "Driver": network.driver, "ID": id,
        "IPv4": "true", "IPv6": network.ipv6.to_string(),
        "Internal": network.internal.to_string(), "Labels": labels.join(","),
        "Name": network.name, "Scope": "local",
    })
}

/// Remove all unused networks
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker network prune [OPTIONS]")]
pub struct Prune {
    /// Provide filter values (e.g. "label=<key>=<value>")
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    /// Removes and names them.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let question = "WARNING! This will remove all custom networks not used by at least one \
                        container.\nAre you sure you want to continue?";
        if !self.force && !ui.confirm(question)? {
            return Ok(());
        }
        prune(
            host,
            &Filters::parse(&self.filter, &["label", "label!", "until"])?,
            ui,
        )
    }
}

/// Removes networks that no container is on and names them; forgets places that nobody keeps.
pub fn prune(host: &Host, filters: &Filters, ui: &mut Ui) -> Result<()> {
    let store = Store::open(&host.data_root)?;
    let networks = Networks { store: &store };
    attach::clean(host, &networks)?;
    let places = networks.endpoints()?;
    let mut removed = Vec::new();
    for network in networks.list()? {
        let is_used = places.iter().any(|place| place.network == network.id);
        let predefined = PREDEFINED.contains(&network.name.as_str());
        let is_old = filters.until(network.created, Timestamp::now())?;
        if is_used || predefined || !is_old || !filters.labels(&network.labels) {
            continue;
        }
        manage::remove(host, &networks, &network)?;
        let more = [("name", network.name.clone()), ("type", network.driver)];
        events::other(host, "network", "destroy", &network.id, &more)?;
        removed.push(network.name);
    }
    if !removed.is_empty() {
        ui.line("Deleted Networks:")?;
        removed.iter().try_for_each(|name| ui.line(name))?;
        ui.line("")?;
    }
    Ok(())
}
