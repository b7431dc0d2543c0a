//! Networks: bridges on this machine, the containers on them, and what the world sees of those.
//!
//! A start goes through the files in this order: [`registry`] finds the networks and gives
//! addresses ([`ipam`]), [`bridge`] sees to the bridge, [`sandbox`] makes the container's network
//! namespace, [`ports`] binds what is published, [`firewall`] puts the rules of [`rules`] in
//! place and [`conntrack`] forgets what went another way before, [`files`] writes /etc/hosts, [`dns`] and [`proxy`] serve while the container runs.
//! [`attach`] is that order. A plain user's container has [`pasta`] in place of a bridge.
//!
//! Nothing here survives its container by accident: a namespace lives as long as a descriptor of
//! its monitor or a process in it, and the kernel takes the pair of links with it. Rows of the
//! registry that a killed process left are found by [`attach::sweep`].

pub mod attach;
pub mod bridge;
mod conntrack;
pub mod dns;
pub mod files;
pub mod firewall;
pub mod ipam;
pub mod manage;
pub mod netlink;
pub mod pasta;
mod place;
pub mod ports;
pub mod proxy;
pub mod registry;
pub mod rules;
pub mod sandbox;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::container::process;

/// Names that mean no bridge of ours, in Docker's order of `network ls`.
pub const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];
/// The network of a container that names none.
pub const DEFAULT: &str = "bridge";

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    /// When it was made.
    pub created: Timestamp,
    /// No way out and none in.
    pub internal: bool,
    /// Containers get IPv6 addresses too.
    pub ipv6: bool,
    /// Accepted and shown; has a meaning for swarm only.
    pub attachable: bool,
    /// Free metadata.
    pub labels: BTreeMap<String, String>,
    /// Driver options, `com.docker.network.bridge.*`.
    pub options: BTreeMap<String, String>,
    /// Where addresses come from; one for IPv4, one for IPv6 if there is any.
    pub pools: Vec<Pool>,
    /// Name of the bridge link.
    pub bridge: String,
}

/// A range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The whole range.
    pub subnet: IpNet,
    /// The part of it that containers get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<IpNet>,
    /// The bridge's own address.
    pub gateway: IpAddr,
    /// Addresses that are in use by others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<String, IpAddr>,
}

impl Network {
    /// Whether it is the one that containers without a wish get.
    pub fn is_default(&self) -> bool {
        self.name == DEFAULT
    }

    /// Whether containers on it are on a bridge of ours.
    pub fn is_bridge(&self) -> bool {
        self.driver == "bridge"
    }

    /// The pool of one family.
    pub fn pool(&self, ipv6: bool) -> Option<&Pool> {
        let wanted = |pool: &&Pool| matches!(pool.subnet, IpNet::V6(_)) == ipv6;
        self.pools.iter().find(wanted)
    }

    /// A switch among the driver options.
    pub fn option(&self, name: &str, default: bool) -> bool {
        let value = self
            .options
            .get(&format!("com.docker.network.bridge.{name}"));
        value.map_or(default, |value| matches!(value.as_str(), "true" | "1"))
    }

    /// Largest packet; 0 is the kernel's choice.
    pub fn mtu(&self) -> u32 {
        let value = self.options.get("com.docker.network.driver.mtu");
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    }
}

/// What the user wants of a container's place in one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wish {
    /// Name or id of the network.
    pub network: String,
    /// This IPv4 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// This IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// These beside: link-local addresses that the network knows nothing of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub link_local: Vec<IpAddr>,
    /// This Ethernet address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Names that the container has in this network beside its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// `CONTAINER:ALIAS`: names that this container alone uses for others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// Of several networks that lead out, the one with the highest number does.
    #[serde(skip_serializing_if = "is_zero")]
    pub gw_priority: i32,
    /// `com.docker.network.endpoint.*`
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// An address on a link, and where it leads out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address with the length of its network part.
    pub net: IpNet,
    /// Where everything else goes; none in an internal network.
    pub gateway: Option<IpAddr>,
}

/// A running container's place in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Id of the network.
    pub network: String,
    /// Its name.
    pub name: String,
    /// Id of the container.
    pub container: String,
    /// IPv4.
    pub ipv4: Option<Address>,
    /// IPv6.
    pub ipv6: Option<Address>,
    /// Link-local addresses that the user chose.
    pub link_local: Vec<IpNet>,
    /// Ethernet address.
    pub mac: String,
    /// Name of the link in the container.
    pub interface: String,
    /// Name of the link on the bridge.
    pub veth: String,
    /// Names that the network's name server answers for it, most wanted first.
    pub names: Vec<String>,
    /// What is published on the host.
    pub ports: Vec<Published>,
    /// The user chose the address.
    pub fixed: bool,
    /// How much it is wanted as the way out.
    pub gw_priority: i32,
    /// The monitor that keeps the place: process id and start time in clock ticks.
    pub keeper: (i32, u64),
}

impl Endpoint {
    /// Whether the monitor that keeps the place still lives.
    pub fn is_kept(&self) -> bool {
        process::is_alive(self.keeper.0, self.keeper.1)
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.ipv4.iter().chain(&self.ipv6)
    }
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP: kernel rules only, nothing listens on loopback.
    Sctp,
}

impl Protocol {
    /// Docker's and nft's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Reads Docker's word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|protocol| protocol.word() == word)
    }
}

/// A port that is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Port in the container.
    pub container_port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Address on the host; unspecified is all of its family.
    pub host_ip: IpAddr,
    /// Port on the host.
    pub host_port: u16,
}

/// The Ethernet address that Docker gives the owner of an IPv4 address.
pub fn mac_of(address: Ipv4Addr) -> netlink::link::Mac {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// `02:42:ac:11:00:02`.
pub fn show_mac(mac: netlink::link::Mac) -> String {
    let pairs: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

/// Reads `02:42:ac:11:00:02`.
pub fn parse_mac(text: &str) -> Option<netlink::link::Mac> {
    let mut bytes = text
        .split([':', '-'])
        .map(|pair| u8::from_str_radix(pair, 16));
    let mut mac = [0; 6];
    for byte in &mut mac {
        *byte = bytes.next()?.ok()?;
    }
    // The lowest bit of the first byte is set in group addresses, which no link can have.
    (bytes.next().is_none() && mac[0] & 1 == 0).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ethernet_address_reads_as_it_shows() {
        let mac = mac_of(Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(show_mac(mac), "02:42:ac:11:00:02");
        assert_eq!(parse_mac("02:42:ac:11:00:02"), Some(mac));
        for text in [
            "",
            "02:42",
            "02:42:ac:11:00:02:03",
            "zz:42:ac:11:00:02",
            "01:00:00:00:00:00",
        ] {
            assert_eq!(parse_mac(text), None, "{text}");
        }
    }
}
