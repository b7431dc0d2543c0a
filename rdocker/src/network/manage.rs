//! Networks come and go.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;

use super::attach::sweep;
use super::registry::{self, Networks, lock};
use super::{Endpoint, Network, Pool, bridge, firewall, ipam};
use crate::container::id;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::store;

/// What a user says of a new network.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Its name.
    pub name: String,
    /// Only `bridge` can be made.
    pub driver: String,
    /// No way out and none in.
    pub internal: bool,
    /// IPv6 too.
    pub ipv6: bool,
    /// Shown.
    pub attachable: bool,
    /// Free metadata.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Ranges; those that are missing are chosen.
    pub subnets: Vec<IpNet>,
    /// Gateways, each in one of the ranges.
    pub gateways: Vec<IpAddr>,
    /// Parts of the ranges that containers get.
    pub ranges: Vec<IpNet>,
    /// Addresses that are in use by others.
    pub reserved: BTreeMap<String, IpAddr>,
}

fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::Invalid(message.into()))
}

/// Makes a network; its bridge appears with its first container.
///
/// # Errors
/// The name is taken; a range overlaps another network's; an address is in none of the ranges.
pub fn create(host: &Host, networks: &Networks<'_>, request: Request) -> Result<Network> {
    check_name(&request.name)?;
    registry::require_own(&request.name)?;
    if request.driver != "bridge" {
        return Err(Error::Hinted {
            message: format!(
                "could not find plugin {} in v1 plugin registry: plugin not found",
                request.driver
            ),
            hint: "the only driver for new networks is bridge".to_owned(),
        });
    }
    let pools = pools(&request)?;
    let mut network = Network {
        id: id::random(),
        name: request.name,
        driver: request.driver,
        created: Timestamp::now(),
        internal: request.internal,
        ipv6: request.ipv6 || pools.iter().any(|pool| matches!(pool.subnet, IpNet::V6(_))),
        attachable: request.attachable,
        labels: request.labels,
        options: request.options,
        pools,
        bridge: String::new(),
    };
    let _lock = lock(host)?;
    let others = networks.list()?;
    if others.iter().any(|other| other.name == network.name) {
        return Err(Error::Conflict(format!(
            "network with name {} already exists",
            network.name
        )));
    }
    for pool in &network.pools {
        let overlaps = |other: &&Network| {
            let mut pools = other.pools.iter().map(|pool| pool.subnet);
            pools.any(|subnet| subnet.contains(&pool.subnet) || pool.subnet.contains(&subnet))
        };
        if let Some(other) = others.iter().find(overlaps) {
            return Err(Error::Hinted {
                message: "invalid pool request: Pool overlaps with other one on this address space"
                    .to_owned(),
                hint: format!("network {} has {}", other.name, pool.subnet),
            });
        }
    }
    bridge::choose_ranges(host, networks, &mut network)?;
    let insert = |change: &rusqlite::Transaction<'_>| -> store::Result<()> {
        registry::insert(change, &network)
    };
    networks.store.write(insert)?;
    Ok(network)
}

fn check_name(name: &str) -> Result<()> {
    let mut characters = name.chars();
    let begins = characters.next().is_some_and(|c| c.is_ascii_alphanumeric());
    if !begins || !characters.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
        return invalid(format!(
            "{name:?} includes invalid characters for a network name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" \
             are allowed"
        ));
    }
    Ok(())
}

/// Puts each address and part into the range that holds it.
fn pools(request: &Request) -> Result<Vec<Pool>> {
    let mut pools: Vec<Pool> = Vec::new();
    for subnet in &request.subnets {
        if *subnet != subnet.trunc() {
            return invalid(format!(
                "invalid network config: invalid subnet {subnet}: it should be {}",
                subnet.trunc()
            ));
        }
        let same = |pool: &Pool| {
            matches!(
                (&pool.subnet, subnet),
                (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_))
            )
        };
        if pools.iter().any(same) {
            return invalid("a network has one IPv4 subnet and one IPv6 subnet at most");
        }
        pools.push(bridge::pool(*subnet));
    }
    let holder = |pools: &mut Vec<Pool>, address: IpAddr| {
        pools.iter().position(|pool| pool.subnet.contains(&address))
    };
    for gateway in &request.gateways {
        match holder(&mut pools, *gateway) {
            Some(index) => pools[index].gateway = *gateway,
            None => return invalid(format!("no matching subnet for gateway {gateway}")),
        }
    }
    for range in &request.ranges {
        match holder(&mut pools, range.addr()) {
            Some(index) if pools[index].subnet.contains(range) => {
                pools[index].range = Some(range.trunc());
            }
            _ => return invalid(format!("no matching subnet for range {range}")),
        }
    }
    for (name, address) in &request.reserved {
        match holder(&mut pools, *address) {
            Some(index) => drop(pools[index].reserved.insert(name.clone(), *address)),
            None => return invalid(format!("no matching subnet for aux-address {address}")),
        }
    }
    for pool in &pools {
        let plain = Pool {
            gateway: pool.subnet.addr(),
            ..pool.clone()
        };
        if !ipam::is_usable(&plain, pool.gateway) && pool.subnet.prefix_len() < 31 {
            return invalid(format!(
                "{} is no address that a gateway of {} can have",
                pool.gateway, pool.subnet
            ));
        }
    }
    Ok(pools)
}

/// Removes a network that nobody is on.
///
/// # Errors
/// It is predefined; containers are on it.
pub fn remove(host: &Host, networks: &Networks<'_>, network: &Network) -> Result<()> {
    if super::PREDEFINED.contains(&network.name.as_str()) {
        return Err(Error::Conflict(format!(
            "{} is a pre-defined network and cannot be removed",
            network.name
        )));
    }
    let _lock = lock(host)?;
    let places = sweep(host, networks)?;
    let users: Vec<&Endpoint> = places
        .iter()
        .filter(|place| place.network == network.id)
        .collect();
    if !users.is_empty() {
        let names: Vec<String> = users
            .iter()
            .map(|place| {
                let name = place.names.first().map_or("", String::as_str);
                let id = place.container.get(..12).unwrap_or_default();
                format!("name:{name:?} id:{id:?}")
            })
            .collect();
        return Err(Error::Conflict(format!(
            "error while removing network: network {} has active endpoints ({})",
            network.name,
            names.join(", ")
        )));
    }
    bridge::remove(network)?;
    networks.remove(&network.id)?;
    let _ = std::fs::remove_file(host.exec_root.join("networks").join(&network.id));
    if network.bridge.is_empty() {
        // It was never used, so there are no rules for it.
        return Ok(());
    }
    firewall::sync(host, networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(subnets: &[&str], gateways: &[&str], ranges: &[&str]) -> Request {
        Request {
            subnets: subnets.iter().map(|text| text.parse().unwrap()).collect(),
            gateways: gateways.iter().map(|text| text.parse().unwrap()).collect(),
            ranges: ranges.iter().map(|text| text.parse().unwrap()).collect(),
            ..Request::default()
        }
    }

    #[test]
    fn addresses_go_to_the_range_that_holds_them() {
        let both = request(
            &["10.0.0.0/24", "fd00::/64"],
            &["fd00::1:1", "10.0.0.254"],
            &["10.0.0.128/25"],
        );
        let pools = pools(&both).unwrap();
        assert_eq!(pools[0].gateway.to_string(), "10.0.0.254");
        assert_eq!(pools[0].range.unwrap().to_string(), "10.0.0.128/25");
        assert_eq!(pools[1].gateway.to_string(), "fd00::1:1");
    }

    #[test]
    fn addresses_outside_the_ranges_are_refused() {
        let bad = [
            request(&["10.0.0.0/24"], &["10.0.1.1"], &[]),
            request(&["10.0.0.0/24"], &["10.0.0.255"], &[]),
            request(&["10.0.0.0/24"], &[], &["10.0.1.0/25"]),
            request(&["10.0.0.1/24"], &[], &[]),
            request(&["10.0.0.0/24", "10.0.1.0/24"], &[], &[]),
            request(&[], &["10.0.0.1"], &[]),
        ];
        for request in bad {
            assert!(pools(&request).is_err(), "{request:?}");
        }
    }

    #[test]
    fn names_are_dockers() {
        for name in ["a", "my_net.1", "0-x"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "-a", "a b", "ä"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
