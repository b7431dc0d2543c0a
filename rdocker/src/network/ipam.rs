//! Which range a new network gets, and which address a container gets in it. Pure functions.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Pool;

/// A range that networks are cut from (daemon.json `default-address-pools`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub struct Cut {
    /// The whole range.
    pub base: IpNet,
    /// Length of the network part of one network.
    pub size: u8,
}

const fn cut(b: u8, size: u8) -> Cut {
    let base = Ipv4Net::new_assert(Ipv4Addr::new(172, b, 0, 0), 16);
    Cut {
        base: IpNet::V4(base),
        size,
    }
}

/// The range of the default bridge, if it is free.
pub const DEFAULT_CUT: Cut = cut(17, 16);

/// Docker's ranges for other networks, in small pieces: thousands of networks instead of
/// thirty-one (moby#29239).
pub fn default_cuts() -> Vec<Cut> {
    let mut cuts: Vec<Cut> = (18..32).map(|b| cut(b, 24)).collect();
    let base = Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16);
    cuts.push(Cut {
        base: base.into(),
        size: 24,
    });
    cuts
}

fn overlaps(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// The first piece of `cuts` in the wanted family that touches nothing in `taken`.
pub fn free_subnet(cuts: &[Cut], taken: &[IpNet], ipv6: bool) -> Option<IpNet> {
    let of_family = |cut: &&Cut| matches!(cut.base, IpNet::V6(_)) == ipv6;
    cuts.iter()
        .filter(of_family)
        .filter_map(|cut| cut.base.subnets(cut.size).ok())
        .flatten()
        .find(|piece| !taken.iter().any(|other| overlaps(piece, other)))
}

/// A unique local range for a network (RFC 4193), fixed by sixteen hexadecimal digits of its id.
pub fn local_ipv6(id: &str) -> Ipv6Net {
    let bits = u64::from_str_radix(id.get(..14).unwrap_or_default(), 16).unwrap_or(0);
    let address = (0xfd_u128 << 120) | (u128::from(bits) << 64);
    Ipv6Net::new_assert(Ipv6Addr::from(address), 64)
}

/// The first address of a range that a link can have, which is the gateway's.
pub fn gateway_of(subnet: IpNet) -> IpAddr {
    match subnet {
        IpNet::V4(net) => Ipv4Addr::from(u32::from(net.network()).saturating_add(1)).into(),
        IpNet::V6(net) => Ipv6Addr::from(u128::from(net.network()).saturating_add(1)).into(),
    }
}

/// Whether a link on the network can have this address.
pub fn is_usable(pool: &Pool, address: IpAddr) -> bool {
    let ends = match pool.subnet {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            address == IpAddr::V4(net.network()) || address == IpAddr::V4(net.broadcast())
        }
        IpNet::V4(_) => false,
        IpNet::V6(net) => address == IpAddr::V6(net.network()),
    };
    pool.subnet.contains(&address)
        && !ends
        && address != pool.gateway
        && !pool.reserved.values().any(|other| *other == address)
}

/// The next free address after `last`, beginning anew at the end of the range.
///
/// Going on instead of taking the lowest leaves an address alone for a while after its container
/// has gone: the kernel takes the links of an ended container down in its own time, and until
/// then they would still answer for it.
pub fn next_address(pool: &Pool, taken: &BTreeSet<IpAddr>, last: Option<IpAddr>) -> Option<IpAddr> {
    let range = pool.range.unwrap_or(pool.subnet);
    let (first, end) = bounds(range);
    let start = last
        .map(number)
        .filter(|last| (first..end).contains(last))
        .map_or(first, |last| last + 1);
    let as_address = |number: u128| match range {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(
            u32::try_from(number).expect("within the range"),
        )),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    };
    (start..=end)
        .chain(first..start)
        .map(as_address)
        .find(|address| is_usable(pool, *address) && !taken.contains(address))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn bounds(range: IpNet) -> (u128, u128) {
    (number(range.network()), number(range.broadcast()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn pool(subnet: &str) -> Pool {
        let subnet = net(subnet);
        Pool {
            subnet,
            range: None,
            gateway: gateway_of(subnet),
            reserved: [("dns".to_owned(), "10.0.0.3".parse().unwrap())].into(),
        }
    }

    #[test]
    fn a_new_network_avoids_what_the_host_routes() {
        let cuts = [vec![DEFAULT_CUT], default_cuts()].concat();
        let free = |taken: &[&str]| {
            let taken: Vec<IpNet> = taken.iter().map(|text| net(text)).collect();
            free_subnet(&cuts, &taken, false).map(|net| net.to_string())
        };
        assert_eq!(free(&[]).unwrap(), "172.17.0.0/16");
        assert_eq!(free(&["172.17.5.0/24"]).unwrap(), "172.18.0.0/24");
        assert_eq!(free(&["172.16.0.0/12"]).unwrap(), "192.168.0.0/24");
        assert_eq!(free(&["172.16.0.0/12", "192.168.0.0/16"]), None);
        assert_eq!(free_subnet(&cuts, &[], true), None);
    }

    #[test]
    fn addresses_go_round_and_skip_what_is_taken() {
        let pool = pool("10.0.0.0/29");
        let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
        let mut last = None;
        let mut given = Vec::new();
        while let Some(address) = next_address(&pool, &taken, last) {
            given.push(address.to_string());
            taken.insert(address);
            last = Some(address);
        }
        // .0 and .7 are the ends, .1 is the gateway, .3 is reserved.
        assert_eq!(given, ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        taken.remove(&"10.0.0.4".parse().unwrap());
        let again = next_address(&pool, &taken, last).unwrap();
        assert_eq!(again.to_string(), "10.0.0.4");
        let last = Some("10.0.0.2".parse().unwrap());
        let next = next_address(&pool, &BTreeSet::new(), last).unwrap();
        assert_eq!(
            next.to_string(),
            "10.0.0.4",
            "not the one that was used last"
        );
    }

    #[test]
    fn a_range_limits_what_containers_get() {
        let mut pool = pool("fd00::/64");
        pool.range = Some(net("fd00::8/126"));
        let first = next_address(&pool, &BTreeSet::new(), None).unwrap();
        assert_eq!(first.to_string(), "fd00::8");
        let wrapped = next_address(&pool, &BTreeSet::new(), Some("fd00::b".parse().unwrap()));
        assert_eq!(wrapped.unwrap().to_string(), "fd00::8");
    }

    #[test]
    fn a_local_range_depends_on_the_network_alone() {
        let range = local_ipv6(&"ab".repeat(32));
        assert_eq!(range.to_string(), "fdab:abab:abab:abab::/64");
    }
}
