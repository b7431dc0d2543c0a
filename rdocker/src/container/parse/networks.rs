//! `--network` and the flags that belong to it.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::container::args::NetArgs;
use crate::container::network::is_bridged;
use crate::error::{Error, Result};
use crate::network::registry::named;
use crate::network::{Wish, parse_mac};

fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::Invalid(message.into()))
}

/// The network mode: the first network's name, or one of the words that mean none of ours.
///
/// # Errors
/// A bad value; networks that exclude each other.
pub fn mode(net: &NetArgs) -> Result<String> {
    let Some(first) = net.network.first() else {
        return Ok("default".to_owned());
    };
    let mode = parse(first)?.network;
    if mode.is_empty() {
        return Ok("default".to_owned());
    }
    if net.network.len() > 1 && !is_bridged(&mode) {
        return invalid(
            "conflicting options: cannot attach both user-defined and non-user-defined \
             network-modes",
        );
    }
    Ok(mode)
}

/// The bridge networks that the container is to be on, the first with what the plain flags say.
///
/// # Errors
/// A bad value; a flag that the network cannot honour.
pub fn wishes(net: &NetArgs) -> Result<Vec<Wish>> {
    let mode = mode(net)?;
    if mode.starts_with("container:") && (net.publish_all || !net.publish.is_empty()) {
        return invalid("conflicting options: port publishing and the container type network mode");
    }
    if mode.starts_with("container:") && !net.expose.is_empty() {
        return invalid("conflicting options: port exposing and the container type network mode");
    }
    if !is_bridged(&mode) {
        let refused = [
            (net.ip.is_some() || net.ip6.is_some(), "--ip"),
            (!net.link_local_ip.is_empty(), "--link-local-ip"),
            (!net.network_alias.is_empty(), "--network-alias"),
            (net.mac_address.is_some(), "--mac-address"),
        ];
        return match refused.iter().find(|(given, _)| *given) {
            Some((_, flag)) => invalid(format!("conflicting options: {flag} and the network mode")),
            None => Ok(Vec::new()),
        };
    }
    let mut wishes: Vec<Wish> = net
        .network
        .iter()
        .map(|text| parse(text))
        .collect::<Result<_>>()?;
    if wishes.is_empty() {
        wishes.push(Wish::default());
    }
    for wish in &mut wishes {
        wish.network = named(&wish.network).to_owned();
        if !is_bridged(&wish.network) {
            return invalid(
                "conflicting options: cannot attach both user-defined and non-user-defined \
                 network-modes",
            );
        }
    }
    let first = &mut wishes[0];
    first.ipv4 = first.ipv4.or(net.ip);
    first.ipv6 = first.ipv6.or(net.ip6);
    first.link_local.extend(&net.link_local_ip);
    first.aliases.extend(net.network_alias.iter().cloned());
    if let Some(mac) = &net.mac_address {
        first.mac = ethernet(mac)?;
    }
    Ok(wishes)
}

fn ethernet(text: &str) -> Result<String> {
    match parse_mac(text) {
        Some(mac) => Ok(crate::network::show_mac(mac)),
        None => invalid(format!("{text} is not a valid mac address")),
    }
}

/// One value: a name, or `name=NAME,alias=A,ip=…,ip6=…,mac-address=…,gw-priority=N,driver-opt=K=V`.
fn parse(text: &str) -> Result<Wish> {
    let mut wish = Wish::default();
    if !text.contains('=') {
        text.clone_into(&mut wish.network);
        return Ok(wish);
    }
    for field in text.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        let bad = || {
            Error::Invalid(format!(
                "invalid value for '{key}': {value:?} is no address"
            ))
        };
        match key.trim().to_lowercase().as_str() {
            "name" => value.clone_into(&mut wish.network),
            "alias" => wish.aliases.push(value.to_owned()),
            "ip" => wish.ipv4 = Some(value.parse::<Ipv4Addr>().map_err(|_| bad())?),
            "ip6" => wish.ipv6 = Some(value.parse::<Ipv6Addr>().map_err(|_| bad())?),
            "link-local-ip" => wish.link_local.push(value.parse().map_err(|_| bad())?),
            "mac-address" => wish.mac = ethernet(value)?,
            "gw-priority" => {
                wish.gw_priority = value
                    .parse()
                    .map_err(|_| Error::Invalid(format!("invalid gw-priority ({value})")))?;
            }
            "driver-opt" => {
                let (key, value) = value.split_once('=').ok_or_else(|| {
                    Error::Invalid("invalid key value pair format in driver options".to_owned())
                })?;
                wish.driver_opts.insert(key.to_owned(), value.to_owned());
            }
            _ => return invalid(format!("invalid field key {key}")),
        }
    }
    if wish.network.is_empty() {
        return invalid(format!(
            "invalid argument {text:?} for \"--network\" flag: network name is not specified"
        ));
    }
    Ok(wish)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(networks: &[&str]) -> NetArgs {
        NetArgs {
            network: networks.iter().map(|text| (*text).to_owned()).collect(),
            ..NetArgs::default()
        }
    }

    #[test]
    fn plain_flags_belong_to_the_first_network() {
        let net = NetArgs {
            network_alias: vec!["www".to_owned()],
            ip: Some(Ipv4Addr::new(10, 0, 0, 9)),
            mac_address: Some("02-42-ac-11-00-09".to_owned()),
            ..args(&["front", "name=back,alias=db,ip6=fd00::9"])
        };
        let wishes = wishes(&net).unwrap();
        assert_eq!(mode(&net).unwrap(), "front");
        assert_eq!(wishes[0].aliases, ["www"]);
        assert_eq!(wishes[0].ipv4, net.ip);
        assert_eq!(wishes[0].mac, "02:42:ac:11:00:09");
        assert_eq!(
            (wishes[1].network.as_str(), wishes[1].aliases[0].as_str()),
            ("back", "db")
        );
    }

    #[test]
    fn without_a_network_it_is_the_default_one() {
        let wishes = wishes(&args(&[])).unwrap();
        assert_eq!(
            (
                mode(&args(&[])).unwrap().as_str(),
                wishes[0].network.as_str()
            ),
            ("default", "bridge")
        );
    }

    #[test]
    fn combinations_that_exclude_each_other_are_refused() {
        assert!(wishes(&args(&["host", "front"])).is_err());
        assert!(wishes(&args(&["front", "none"])).is_err());
        assert!(wishes(&args(&["name=front,what=1"])).is_err());
        assert!(wishes(&args(&["alias=x"])).is_err());
        assert!(wishes(&args(&["name=front,gw-priority=high"])).is_err());
        assert!(wishes(&args(&["name=front,driver-opt=x"])).is_err());
        let net = NetArgs {
            network_alias: vec!["www".to_owned()],
            ..args(&["host"])
        };
        assert!(wishes(&net).is_err());
        assert_eq!(wishes(&args(&["container:web"])).unwrap(), []);
    }
}
