//! `rdocker network connect` and `disconnect`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::container::parse::value::pairs;
use crate::container::{Containers, network};
use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::network::registry::Networks;
use crate::network::{Network, Wish};
use crate::store::Store;

/// Connect a container to a network
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker network connect [OPTIONS] NETWORK CONTAINER")]
pub struct Connect {
    /// Add network-scoped alias for the container
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Driver options for the network
    #[arg(long, value_name = "KEY=VALUE")]
    driver_opt: Vec<String>,
    /// The network with the highest number is the way out
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        allow_hyphen_values = true
    )]
    gw_priority: i32,
    /// IPv4 address (e.g., "172.30.100.104")
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address (e.g., "2001:db8::33")
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// Add link to another container
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    link: Vec<String>,
    /// Add a link-local address for the container
    #[arg(long, value_name = "ADDRESS")]
    link_local_ip: Vec<IpAddr>,
    #[arg(hide = true)]
    network: String,
    #[arg(hide = true)]
    container: String,
}

fn find(host: &Host, name: &str) -> Result<Network> {
    let store = Store::open(&host.data_root)?;
    Networks { store: &store }.find(name)
}

fn tell(host: &Host, action: &str, network: &Network, container: &str) -> Result<()> {
    let more = [
        ("container", container.to_owned()),
        ("name", network.name.clone()),
        ("type", network.driver.clone()),
    ];
    events::other(host, "network", action, &network.id, &more)
}

impl Connect {
    /// Connects.
    pub fn run(self, host: &Host) -> Result<()> {
        let network = find(host, &self.network)?;
        let container = Containers::new(host).find(&self.container)?;
        if !network.is_bridge() {
            return Err(Error::Conflict(format!(
                "container cannot be connected to {} network",
                network.name
            )));
        }
        if network.is_default() && (self.ip.is_some() || self.ip6.is_some()) {
            return Err(Error::Invalid(
                "invalid endpoint settings: user specified IP address is supported on user \
                 defined networks only"
                    .to_owned(),
            ));
        }
        let wish = Wish {
            network: network.name.clone(),
            ipv4: self.ip,
            ipv6: self.ip6,
            link_local: self.link_local_ip,
            mac: String::new(),
            aliases: self.alias,
            links: self.link,
            gw_priority: self.gw_priority,
            driver_opts: pairs(&self.driver_opt),
        };
        network::connect(host, &container, wish)?;
        tell(host, "connect", &network, &container.record.id)
    }
}

/// Disconnect a container from a network
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker network disconnect [OPTIONS] NETWORK CONTAINER")]
pub struct Disconnect {
    /// Force the container to disconnect from a network
    #[arg(short, long)]
    force: bool,
    #[arg(hide = true)]
    network: String,
    #[arg(hide = true)]
    container: String,
}

impl Disconnect {
    /// Disconnects.
    pub fn run(self, host: &Host) -> Result<()> {
        let network = find(host, &self.network)?;
        let container = match Containers::new(host).find(&self.container) {
            // What is gone is on no network.
            Err(Error::NotFound { .. }) if self.force => return Ok(()),
            other => other?,
        };
        network::disconnect(host, &container, &network.name)?;
        tell(host, "disconnect", &network, &container.record.id)
    }
}
