//! Bridges: which range and name a network gets, and its link on this machine.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use ipnet::IpNet;

use super::ipam::{self, Cut};
use super::netlink::Socket;
use super::netlink::link::{Link, Mac};
use super::registry::{self, Networks};
use super::{Network, Pool, firewall, mac_of};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::store;

/// How many names are tried for the default bridge when others have taken Docker's.
const NAMES: u32 = 64;

/// A failed wish to the kernel about a link.
pub fn failed(doing: &'static str, name: &str, error: impl Into<io::Error>) -> Error {
    Error::host(doing, Path::new(name), error)
}

fn alias(network: &Network) -> String {
    format!("rdocker {}", network.id)
}

/// Ranges that a new network is cut from; the default one keeps its own free.
fn cuts(host: &Host, network: &Network) -> Vec<Cut> {
    let given = host.settings.default_address_pools.clone();
    given.unwrap_or_else(|| match network.is_default() {
        true => [vec![ipam::DEFAULT_CUT], ipam::default_cuts()].concat(),
        false => ipam::default_cuts(),
    })
}

/// Ranges that other networks have or that the host routes somewhere.
fn taken(networks: &Networks<'_>, socket: &mut Socket) -> Result<Vec<IpNet>> {
    let mut taken = socket
        .routes()
        .map_err(|error| failed("list the routes of", "this host", error))?;
    let others = networks.list()?;
    taken.extend(
        others
            .iter()
            .flat_map(|network| &network.pools)
            .map(|pool| pool.subnet),
    );
    Ok(taken)
}

/// The pool of a whole range, its first address the gateway's.
pub fn pool(subnet: IpNet) -> Pool {
    Pool {
        gateway: ipam::gateway_of(subnet),
        subnet,
        range: None,
        reserved: Default::default(),
    }
}

/// Gives a network the ranges that nobody chose for it.
///
/// # Errors
/// Every range is taken.
pub fn choose_ranges(host: &Host, networks: &Networks<'_>, network: &mut Network) -> Result<()> {
    let mut socket = Socket::route().map_err(|error| failed("open", "netlink", error))?;
    if network.pool(false).is_none() {
        let free = ipam::free_subnet(&cuts(host, network), &taken(networks, &mut socket)?, false);
        let subnet = free.ok_or_else(|| Error::Hinted {
            message: "could not find an available, non-overlapping IPv4 address pool among the \
                      defaults to assign to the network"
                .to_owned(),
            hint: "give --subnet, remove unused networks (rdocker network prune), or set \
                   default-address-pools in daemon.json"
                .to_owned(),
        })?;
        network.pools.insert(0, pool(subnet));
    }
    if network.ipv6 && network.pool(true).is_none() {
        network
            .pools
            .push(pool(ipam::local_ipv6(&network.id).into()));
    }
    Ok(())
}

/// The default network with its range and options, which it gets when it is first used.
///
/// # Errors
/// Every range is taken; the database failed.
pub fn settle_default(
    host: &Host,
    networks: &Networks<'_>,
    mut network: Network,
) -> Result<Network> {
    if !network.is_default() || !network.pools.is_empty() {
        return Ok(network);
    }
    let settings = &host.settings;
    if let Some(bip) = settings.bip {
        network.pools.push(Pool {
            subnet: bip.trunc(),
            range: settings.fixed_cidr,
            gateway: bip.addr(),
            reserved: Default::default(),
        });
    }
    if let Some(subnet) = settings.fixed_cidr_v6 {
        network.pools.push(pool(subnet.trunc()));
    }
    network.ipv6 = settings.ipv6;
    choose_ranges(host, networks, &mut network)?;
    let icc = settings.icc.unwrap_or(true).to_string();
    let bridge_option = |name: &str| format!("com.docker.network.bridge.{name}");
    let options = [
        (bridge_option("default_bridge"), "true".to_owned()),
        (bridge_option("enable_icc"), icc),
        (bridge_option("enable_ip_masquerade"), "true".to_owned()),
        (bridge_option("host_binding_ipv4"), "0.0.0.0".to_owned()),
    ];
    network.options.extend(options);
    if settings.mtu > 0 {
        let mtu = settings.mtu.to_string();
        let name = "com.docker.network.driver.mtu".to_owned();
        network.options.insert(name, mtu);
    }
    save(networks, &network)?;
    Ok(network)
}

fn save(networks: &Networks<'_>, network: &Network) -> Result<()> {
    let write = |change: &rusqlite::Transaction<'_>| -> store::Result<()> {
        registry::update(change, network)
    };
    Ok(networks.store.write(write)?)
}

/// The bridge's own Ethernet address.
fn mac(network: &Network) -> Mac {
    match network.pool(false).map(|pool| pool.gateway) {
        Some(IpAddr::V4(gateway)) => mac_of(gateway),
        _ => {
            let digits = network.id.get(..8).unwrap_or_default();
            mac_of(Ipv4Addr::from(u32::from_str_radix(digits, 16).unwrap_or(1)))
        }
    }
}

/// Sees to it that the network's bridge is there, up, with its addresses; gives its link.
///
/// The caller holds the network lock.
///
/// # Errors
/// The kernel's; a user network's name on this machine is taken by a link that is not ours.
pub fn ensure(
    host: &Host,
    networks: &Networks<'_>,
    socket: &mut Socket,
    network: &mut Network,
) -> Result<Link> {
    let find = |socket: &mut Socket, name: &str| {
        socket
            .link(name)
            .map_err(|error| failed("look for the link", name, error))
    };
    if !network.bridge.is_empty()
        && let Some(link) = find(socket, &network.bridge)?
        && link.alias == alias(network)
    {
        return Ok(link);
    }
    network.bridge = free_name(network, |name| Ok(find(socket, name)?.is_none()))?;
    save(networks, network)?;
    let name = &network.bridge;
    let make = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => Error::Hinted {
            message: format!("make the bridge {name}: {error}"),
            hint: "a plain user's containers have no bridges: give --network host or \
                   --network none"
                .to_owned(),
        },
        _ => failed("make the bridge", name, error),
    };
    socket
        .add_bridge(name, &alias(network), mac(network), network.mtu())
        .map_err(make)?;
    let link = find(socket, name)?.ok_or_else(|| make(io::ErrorKind::NotFound.into()))?;
    set_parameters(network);
    for pool in &network.pools {
        let address = IpNet::new(pool.gateway, pool.subnet.prefix_len());
        if let Ok(address) = address {
            socket
                .add_address(link.index, address)
                .map_err(|error| failed("give its address to", name, error))?;
        }
    }
    if !network.internal {
        firewall::allow_forwarding(host, false)?;
        if network.ipv6 {
            firewall::allow_forwarding(host, true)?;
        }
    }
    Ok(link)
}

/// Docker's names where they are free: docker0, br-ID, or what the user asked for.
fn free_name(network: &Network, is_free: impl FnMut(&str) -> Result<bool>) -> Result<String> {
    let wanted = network.options.get("com.docker.network.bridge.name");
    let names = match (wanted, network.is_default()) {
        (Some(name), _) => vec![name.clone()],
        (None, false) => vec![format!("br-{}", network.id.get(..12).unwrap_or_default())],
        (None, true) => std::iter::once("docker0".to_owned())
            .chain((0..NAMES).map(|n| format!("rdocker{n}")))
            .collect(),
    };
    let mut is_free = is_free;
    for name in &names {
        if is_free(name)? {
            return Ok(name.clone());
        }
    }
    Err(Error::Conflict(format!(
        "network {}: the link {} is there already and is not ours",
        network.name,
        names.first().map_or("", String::as_str)
    )))
}

/// Nothing that containers send changes the host's own routes (CVE-2020-13401), and a network
/// without IPv6 has no IPv6 address at all. Nobody else can have the bridge's addresses, and
/// looking for one would keep the host from asking for its neighbours meanwhile.
fn set_parameters(network: &Network) {
    let dir = Path::new("/proc/sys/net/ipv6/conf").join(&network.bridge);
    let off = if network.ipv6 { "0" } else { "1" };
    for (name, value) in [
        ("accept_ra", "0"),
        ("accept_dad", "0"),
        ("disable_ipv6", off),
    ] {
        // A kernel without IPv6 has none of them.
        let _ = fs::write(dir.join(name), value);
    }
}

/// Whether packets within a bridge pass the rules for IP (module br_netfilter).
pub fn is_filtered() -> bool {
    let switch = fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
    switch.is_ok_and(|text| text.trim() == "1")
}

/// Removes the network's bridge.
///
/// # Errors
/// The kernel's.
pub fn remove(network: &Network) -> Result<()> {
    let fail = |error| failed("remove the bridge", &network.bridge, error);
    if network.bridge.is_empty() {
        return Ok(());
    }
    let mut socket = Socket::route().map_err(fail)?;
    match socket.link(&network.bridge).map_err(fail)? {
        Some(link) if link.alias == alias(network) => socket.delete_link(link.index).map_err(fail),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_bridge_leaves_other_engines_theirs() {
        let network = Network {
            name: "bridge".to_owned(),
            ..Network::default()
        };
        let name = |taken: &[&str]| free_name(&network, |name| Ok(!taken.contains(&name)));
        assert_eq!(name(&[]).unwrap(), "docker0");
        assert_eq!(name(&["docker0", "rdocker0"]).unwrap(), "rdocker1");
        let own = Network {
            name: "front".to_owned(),
            id: "0123456789abcdef".to_owned(),
            ..Network::default()
        };
        assert_eq!(free_name(&own, |_| Ok(true)).unwrap(), "br-0123456789ab");
        assert!(free_name(&own, |_| Ok(false)).is_err());
    }
}
