//! One container's place in one network, before it is connected: its addresses, names and link.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::attach::Plan;
use super::netlink::Socket;
use super::netlink::link::Link;
use super::registry::{self, Networks};
use super::{Address, Endpoint, Network, Pool, Wish, bridge, ipam, mac_of, show_mac};
use crate::container::id;
use crate::error::{Error, Result};
use crate::host::Host;

/// A place that is reserved and not connected yet.
pub struct Place {
    /// What is kept of it.
    pub endpoint: Endpoint,
    /// Where it is.
    pub network: Network,
    /// The bridge of that.
    pub bridge: Link,
    /// What its link is told when it is there.
    pub sysctls: Vec<Sysctl>,
}

/// A parameter of a link, as its path below `/proc/sys/net` with the link's name, and a value.
pub type Sysctl = (PathBuf, String);

/// What the kernel takes as a link's name (`dev_valid_name`), but for those that sysctls have too.
pub fn is_link_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
    !matches!(name, "" | "." | ".." | "all" | "default")
        && name.len() < 16
        && name.chars().all(is_plain)
}

/// `net.ipv4.conf.IFNAME.log_martians=1,…` of the driver options.
///
/// # Errors
/// Another parameter than one of the link.
pub fn sysctls(wish: &Wish, interface: &str) -> Result<Vec<Sysctl>> {
    let given = wish.driver_opts.get("com.docker.network.endpoint.sysctls");
    let one = |text: &str| {
        let (name, value) = text.split_once('=')?;
        let parts: Vec<&str> = name.split('.').collect();
        let &[
            "net",
            family @ ("ipv4" | "ipv6" | "mpls"),
            kind @ ("conf" | "neigh"),
            "IFNAME",
            leaf,
        ] = &parts[..]
        else {
            return None;
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let path: PathBuf = [family, kind, interface, leaf].iter().collect();
        leaf.chars().all(is_plain).then(|| (path, value.to_owned()))
    };
    let texts = given.into_iter().flat_map(|text| text.split(','));
    texts
        .map(|text| {
            one(text).ok_or_else(|| {
                Error::Invalid(format!(
                    "invalid sysctl {text:?}: want net.ipv4.conf.IFNAME.NAME=VALUE, or ipv6, mpls, \
                     neigh"
                ))
            })
        })
        .collect()
}

/// What is kept of the places.
pub fn endpoints(places: &[Place]) -> impl Iterator<Item = &Endpoint> {
    places.iter().map(|place| &place.endpoint)
}

/// # Errors
/// A container has one place in a network, and none in what is no bridge.
pub fn require_new<'a>(
    network: &Network,
    plan: &Plan<'_>,
    mut own: impl Iterator<Item = &'a Endpoint>,
) -> Result<()> {
    if own.any(|endpoint| endpoint.network == network.id) {
        return Err(Error::Conflict(format!(
            "endpoint with name {} already exists in network {}",
            plan.name, network.name
        )));
    }
    if !network.is_bridge() {
        return Err(Error::Conflict(format!(
            "container cannot be connected to network {}",
            network.name
        )));
    }
    Ok(())
}

/// Chooses the addresses of a new place.
///
/// # Errors
/// An address that is taken or not of the network, a network without a free one, no bridge.
pub fn reserve(
    host: &Host,
    networks: &Networks<'_>,
    socket: &mut Socket,
    (network, wish): (Network, &Wish),
    all: &[Endpoint],
    plan: &Plan<'_>,
) -> Result<Place> {
    let mut network = bridge::settle_default(host, networks, network)?;
    let bridge = bridge::ensure(host, networks, socket, &mut network)?;
    let others = all.iter().filter(|other| other.network == network.id);
    let taken: BTreeSet<IpAddr> = others
        .flat_map(Endpoint::addresses)
        .map(|address| address.net.addr())
        .collect();
    let choose = |ipv6: bool, wanted: Option<IpAddr>| -> Result<Option<Address>> {
        let Some(pool) = network.pool(ipv6) else {
            return match wanted {
                Some(address) => Err(outside(&network, address)),
                None => Ok(None),
            };
        };
        let address = match wanted {
            Some(address) => fixed(&network, pool, &taken, address)?,
            None => {
                let last = networks
                    .store
                    .read(|view| registry::last_address(view, &network.id, ipv6))?;
                ipam::next_address(pool, &taken, last).ok_or_else(|| exhausted(&network))?
            }
        };
        let net = IpNet::new(address, pool.subnet.prefix_len());
        let gateway = (!network.internal).then_some(pool.gateway);
        Ok(net.ok().map(|net| Address { net, gateway }))
    };
    let ipv4 = choose(false, wish.ipv4.map(IpAddr::V4))?;
    let ipv6 = choose(true, wish.ipv6.map(IpAddr::V6))?;
    let endpoint_id = id::random();
    let mac = match (
        wish.mac.as_str(),
        ipv4.as_ref().map(|address| address.net.addr()),
    ) {
        ("", Some(IpAddr::V4(address))) => show_mac(mac_of(address)),
        ("", _) => {
            let digits = endpoint_id.get(..8).unwrap_or_default();
            let number = u32::from_str_radix(digits, 16).unwrap_or(2);
            show_mac(mac_of(Ipv4Addr::from(number)))
        }
        (mac, _) => mac.to_owned(),
    };
    let endpoint = Endpoint {
        veth: format!("veth{}", endpoint_id.get(..7).unwrap_or_default()),
        id: endpoint_id,
        network: network.id.clone(),
        name: network.name.clone(),
        container: plan.id.to_owned(),
        ipv4,
        ipv6,
        link_local: link_local(&wish.link_local),
        mac,
        interface: String::new(),
        names: known_as(plan, wish),
        ports: Vec::new(),
        fixed: wish.ipv4.is_some() || wish.ipv6.is_some(),
        gw_priority: wish.gw_priority,
        keeper: plan.keeper,
    };
    Ok(Place {
        endpoint,
        network,
        bridge,
        sysctls: Vec::new(),
    })
}

/// Link-local addresses with the length of their range: RFC 3927, RFC 4291.
fn link_local(addresses: &[IpAddr]) -> Vec<IpNet> {
    let with_length = |address: &IpAddr| {
        let length = if address.is_ipv4() { 16 } else { 64 };
        IpNet::new(*address, length).expect("both lengths are in range")
    };
    addresses.iter().map(with_length).collect()
}

/// The names of a container on a network, its own first.
pub fn known_as(plan: &Plan<'_>, wish: &Wish) -> Vec<String> {
    let short = plan.id.get(..12).unwrap_or(plan.id);
    let mut names = vec![plan.name.to_owned()];
    for name in wish.aliases.iter().map(String::as_str).chain([short]) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn outside(network: &Network, address: IpAddr) -> Error {
    Error::Conflict(format!(
        "invalid config for network {}: invalid endpoint settings: no configured subnet or \
         ip-range contain the IP address {address}",
        network.name
    ))
}

fn exhausted(network: &Network) -> Error {
    Error::Conflict(format!(
        "no available addresses in network {}: remove containers from it or make one with a larger \
         --subnet",
        network.name
    ))
}

fn fixed(
    network: &Network,
    pool: &Pool,
    taken: &BTreeSet<IpAddr>,
    address: IpAddr,
) -> Result<IpAddr> {
    if !pool.subnet.contains(&address) {
        return Err(outside(network, address));
    }
    if taken.contains(&address) || !ipam::is_usable(pool, address) {
        return Err(Error::Conflict(format!(
            "failed to set up container networking: Address already in use: {address} in network {}",
            network.name
        )));
    }
    Ok(address)
}
