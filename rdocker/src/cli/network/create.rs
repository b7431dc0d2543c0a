//! `rdocker network create`

use std::net::IpAddr;

use ipnet::IpNet;

use crate::container::parse::value::pairs;
use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::network::manage::{self, Request};
use crate::network::registry::Networks;
use crate::store::Store;
use crate::ui::Ui;

/// Create a network
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker network create [OPTIONS] NETWORK")]
pub struct Create {
    /// Enable manual container attachment
    #[arg(long)]
    attachable: bool,
    /// Auxiliary IPv4 or IPv6 addresses used by Network driver
    #[arg(long, value_name = "NAME=ADDRESS")]
    aux_address: Vec<String>,
    /// Driver to manage the Network
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// IPv4 or IPv6 Gateway for the master subnet
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    gateway: Vec<IpAddr>,
    #[arg(long, hide = true, value_name = "NETWORK")]
    config_from: Option<String>,
    #[arg(long, hide = true)]
    config_only: bool,
    #[arg(long, hide = true)]
    ingress: bool,
    /// Restrict external access to the network
    #[arg(long)]
    internal: bool,
    /// Allocate container ip from a sub-range
    #[arg(long, value_name = "SUBNET", value_delimiter = ',')]
    ip_range: Vec<IpNet>,
    /// IP Address Management Driver
    #[arg(long, default_value = "default")]
    ipam_driver: String,
    /// Set IPAM driver specific options
    #[arg(long, value_name = "KEY=VALUE")]
    ipam_opt: Vec<String>,
    /// Enable IPv4 address assignment; it cannot be disabled
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    ipv4: bool,
    /// Enable IPv6 address assignment
    #[arg(long)]
    ipv6: bool,
    /// Set metadata on a network
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Control the network's scope
    #[arg(long, hide = true)]
    scope: Option<String>,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long, value_name = "SUBNET", value_delimiter = ',')]
    subnet: Vec<IpNet>,
    #[arg(hide = true, value_name = "NETWORK")]
    name: String,
}

impl Create {
    /// Creates and prints the id.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        if self.ipam_driver != "default" {
            return Err(Error::Invalid(format!(
                "could not find IPAM driver {:?}: the only one is 'default'",
                self.ipam_driver
            )));
        }
        if self.ingress || self.scope.as_deref() == Some("swarm") {
            return Err(Error::Hinted {
                message: "This node is not a swarm manager.".to_owned(),
                hint: "networks here are of this machine alone".to_owned(),
            });
        }
        if self.config_only || self.config_from.is_some() {
            return Err(Error::Hinted {
                message: "a network cannot be the configuration of another one here".to_owned(),
                hint: "give each network its options itself".to_owned(),
            });
        }
        if !self.ipv4 {
            return Err(Error::Invalid("a network needs IPv4 here".to_owned()));
        }
        let address = |text: &String| {
            let (name, address) = text.split_once('=').unwrap_or((text, ""));
            let bad = |_| Error::Invalid(format!("invalid aux-address {text:?}"));
            Ok((name.to_owned(), address.parse().map_err(bad)?))
        };
        let request = Request {
            name: self.name,
            driver: self.driver,
            internal: self.internal,
            ipv6: self.ipv6,
            attachable: self.attachable,
            labels: pairs(&self.label),
            options: pairs(&self.opt),
            subnets: self.subnet,
            gateways: self.gateway,
            ranges: self.ip_range,
            reserved: self
                .aux_address
                .iter()
                .map(address)
                .collect::<Result<_>>()?,
        };
        let store = Store::open(&host.data_root)?;
        let network = manage::create(host, &Networks { store: &store }, request)?;
        let more = [("name", network.name), ("type", network.driver)];
        events::other(host, "network", "create", &network.id, &more)?;
        ui.line(network.id)
    }
}
