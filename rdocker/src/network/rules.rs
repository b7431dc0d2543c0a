//! Packet filter rules: the state of all networks becomes one table, as text for `nft -f`.
//!
//! The table is ours alone and is replaced whole, so what it says follows from the state and
//! nothing of an earlier state stays. No other table is touched: a packet has to pass the rules of
//! every table at its hook, so a host's own deny rules for forwarded packets keep their force.
//!
//! What comes to a published port is redirected before routing, with its sender's address kept;
//! only what a container sends to its own network's published ports gets the bridge's address,
//! for the answer would otherwise not come back this way. Nothing else reaches a container from
//! outside its bridge (security.md K6). Source: nft(8).

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Endpoint, Network, Pool, Published};

/// The whole state that the rules follow from.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Every network.
    pub networks: Vec<Network>,
    /// Every running container's places.
    pub endpoints: Vec<Endpoint>,
    /// We made the host a router: packets that are not for us stay unforwarded, as before.
    pub guard: bool,
}

/// One family's words.
struct Family {
    ip: &'static str,
    nfproto: &'static str,
    kind: &'static str,
    tag: &'static str,
    ipv6: bool,
}

const FAMILIES: [Family; 2] = [
    Family {
        ip: "ip",
        nfproto: "ipv4",
        kind: "ipv4_addr",
        tag: "4",
        ipv6: false,
    },
    Family {
        ip: "ip6",
        nfproto: "ipv6",
        kind: "ipv6_addr",
        tag: "6",
        ipv6: true,
    },
];

/// A published port and where it leads.
struct Redirect<'a> {
    port: &'a Published,
    to: IpAddr,
}

impl Facts {
    /// The networks that have a bridge: those that were used.
    fn bridges(&self) -> impl Iterator<Item = &Network> {
        let networks = self.networks.iter();
        networks.filter(|network| network.is_bridge() && !network.bridge.is_empty())
    }

    fn ranges(&self) -> impl Iterator<Item = (&Network, &Pool)> {
        let bridges = self.bridges();
        bridges.flat_map(|network| network.pools.iter().map(move |pool| (network, pool)))
    }

    /// What the kernel redirects in one family: loopback is served by the monitors.
    fn redirects(&self, ipv6: bool) -> Vec<Redirect<'_>> {
        let mut list = Vec::new();
        for endpoint in &self.endpoints {
            let address = if ipv6 { &endpoint.ipv6 } else { &endpoint.ipv4 };
            let Some(address) = address else { continue };
            for port in &endpoint.ports {
                if port.host_ip.is_ipv6() == ipv6 && !port.host_ip.is_loopback() {
                    list.push(Redirect {
                        port,
                        to: address.net.addr(),
                    });
                }
            }
        }
        list
    }

    /// Ports that are published on loopback addresses only.
    fn loopback(&self, ipv6: bool) -> BTreeSet<String> {
        let ports = self.endpoints.iter().flat_map(|endpoint| &endpoint.ports);
        ports
            .filter(|port| port.host_ip.is_loopback() && port.host_ip.is_ipv6() == ipv6)
            .map(|port| format!("{} . {}", port.protocol.word(), port.host_port))
            .collect()
    }
}

/// The table's content, between its braces.
pub fn body(facts: &Facts) -> String {
    let mut text = String::new();
    for family in &FAMILIES {
        maps(&mut text, facts, family);
    }
    text.push_str(&raw(facts));
    text.push_str(&nat(facts));
    text.push_str(&forward(facts));
    text
}

/// Verdict maps from host address and port to container address and port.
fn maps(text: &mut String, facts: &Facts, family: &Family) {
    let redirects = facts.redirects(family.ipv6);
    let (mut any, mut one) = (Vec::new(), Vec::new());
    for Redirect { port, to } in &redirects {
        let (protocol, from) = (port.protocol.word(), port.host_port);
        let target = format!("{to} . {}", port.container_port);
        if port.host_ip.is_unspecified() {
            any.push(format!("{protocol} . {from} : {target}"));
        } else {
            one.push(format!("{} . {protocol} . {from} : {target}", port.host_ip));
        }
    }
    let (tag, kind) = (family.tag, family.kind);
    let port = "inet_proto . inet_service";
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        text,
        "\tmap any{tag} {{\n\t\ttype {port} : {kind} . inet_service\n{}\t}}\n\
         \tmap one{tag} {{\n\t\ttype {kind} . {port} : {kind} . inet_service\n{}\t}}\n\
         \tset loopback{tag} {{\n\t\ttype {port}\n{}\t}}\n",
        elements(any),
        elements(one),
        elements(facts.loopback(family.ipv6)),
    );
}

fn elements(list: impl IntoIterator<Item = String>) -> String {
    let list: Vec<String> = list.into_iter().collect();
    if list.is_empty() {
        return String::new();
    }
    format!("\t\telements = {{ {} }}\n", list.join(", "))
}

fn family_of(pool: &Pool) -> &'static Family {
    &FAMILIES[usize::from(matches!(pool.subnet, IpNet::V6(_)))]
}

/// What is dropped before anything else looks at it.
fn raw(facts: &Facts) -> String {
    let mut text = String::from(
        "\tchain raw {\n\t\ttype filter hook prerouting priority raw; policy accept\n\
         \t\tiifname != \"lo\" ip daddr 127.0.0.0/8 meta l4proto . th dport @loopback4 drop\n\
         \t\tiifname != \"lo\" ip6 daddr ::1 meta l4proto . th dport @loopback6 drop\n",
    );
    for (network, pool) in facts.ranges() {
        let (ip, bridge) = (family_of(pool).ip, &network.bridge);
        let Pool {
            subnet, gateway, ..
        } = pool;
        // A container is reached through its own bridge or through a published port.
        let _ = writeln!(
            text,
            "\t\tiifname != {{ \"lo\", {bridge:?} }} {ip} daddr {subnet} {ip} daddr != {gateway} drop"
        );
        // And nobody on a bridge can pretend to be elsewhere on another.
        if network.internal {
            let _ = writeln!(text, "\t\tiifname {bridge:?} {ip} daddr != {subnet} drop");
        }
    }
    text.push_str("\t}\n");
    text
}

fn nat(facts: &Facts) -> String {
    let mut text = String::from("\tchain publish {\n");
    for Family {
        ip, nfproto, tag, ..
    } in &FAMILIES
    {
        let _ = write!(
            text,
            "\t\tmeta nfproto {nfproto} dnat {ip} to {ip} daddr . meta l4proto . th dport map @one{tag}\n\
             \t\tmeta nfproto {nfproto} dnat {ip} to meta l4proto . th dport map @any{tag}\n"
        );
    }
    text.push_str(
        "\t}\n\tchain prerouting {\n\
         \t\ttype nat hook prerouting priority dstnat; policy accept\n\
         \t\tfib daddr type local jump publish\n\t}\n\
         \tchain output {\n\
         \t\ttype nat hook output priority -100; policy accept\n\
         \t\tip daddr 127.0.0.0/8 return\n\t\tip6 daddr ::1 return\n\
         \t\tfib daddr type local jump publish\n\t}\n\
         \tchain postrouting {\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept\n",
    );
    for (network, pool) in facts.ranges() {
        let (ip, bridge, subnet) = (family_of(pool).ip, &network.bridge, pool.subnet);
        if !network.internal && network.option("enable_ip_masquerade", true) {
            let _ = writeln!(
                text,
                "\t\t{ip} saddr {subnet} oifname != {bridge:?} masquerade"
            );
        }
        let _ = writeln!(
            text,
            "\t\t{ip} saddr {subnet} oifname {bridge:?} ct status dnat masquerade"
        );
    }
    text.push_str("\t}\n");
    text
}

fn forward(facts: &Facts) -> String {
    let mut text = String::from(
        "\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept\n\
         \t\tct state established,related accept\n",
    );
    let mut names: Vec<String> = Vec::new();
    for network in facts.bridges() {
        let bridge = format!("{:?}", network.bridge);
        if network.internal {
            let _ = writeln!(text, "\t\tiifname {bridge} oifname != {bridge} drop");
        }
        if network.option("enable_icc", true) {
            let _ = writeln!(text, "\t\tiifname {bridge} oifname {bridge} accept");
        }
        if !network.internal {
            let _ = writeln!(text, "\t\toifname {bridge} ct status dnat accept");
        }
        let _ = writeln!(text, "\t\toifname {bridge} drop");
        names.push(bridge);
    }
    if facts.guard {
        // What comes from a container goes out; the host is no router for anybody else.
        let from = match names.is_empty() {
            true => String::new(),
            false => format!("iifname != {{ {} }} ", names.join(", ")),
        };
        let _ = writeln!(text, "\t\t{from}drop");
    }
    text.push_str("\t}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Address, Protocol};

    fn bridge(name: &str, subnet: &str, internal: bool) -> Network {
        let subnet: IpNet = subnet.parse().unwrap();
        Network {
            driver: "bridge".to_owned(),
            bridge: name.to_owned(),
            internal,
            pools: vec![Pool {
                subnet,
                range: None,
                gateway: crate::network::ipam::gateway_of(subnet),
                reserved: Default::default(),
            }],
            ..Network::default()
        }
    }

    fn endpoint(address: &str, ports: &[(&str, u16)]) -> Endpoint {
        let published = |(host_ip, host_port): &(&str, u16)| Published {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: host_ip.parse().unwrap(),
            host_port: *host_port,
        };
        Endpoint {
            ipv4: Some(Address {
                net: address.parse().unwrap(),
                gateway: None,
            }),
            ports: ports.iter().map(published).collect(),
            ..Endpoint::default()
        }
    }

    #[test]
    fn a_published_port_is_redirected_unless_it_is_for_loopback_alone() {
        let facts = Facts {
            networks: vec![bridge("br0", "10.0.0.0/24", false)],
            endpoints: vec![endpoint(
                "10.0.0.2/24",
                &[
                    ("0.0.0.0", 8080),
                    ("192.0.2.1", 81),
                    ("127.0.0.1", 82),
                    ("::", 8080),
                ],
            )],
            guard: false,
        };
        let text = body(&facts);
        for line in [
            "elements = { tcp . 8080 : 10.0.0.2 . 80 }\n",
            "elements = { 192.0.2.1 . tcp . 81 : 10.0.0.2 . 80 }\n",
            "elements = { tcp . 82 }\n",
            "oifname \"br0\" ct status dnat accept\n",
            "oifname \"br0\" drop\n",
        ] {
            assert_eq!(text.matches(line).count(), 1, "{line}{text}");
        }
    }

    #[test]
    fn an_internal_network_has_no_way_out_and_none_in() {
        let facts = Facts {
            // A network that was never used has no bridge and no rules.
            networks: vec![
                bridge("br1", "10.0.1.0/24", true),
                bridge("", "10.0.2.0/24", false),
            ],
            ..Facts::default()
        };
        let text = body(&facts);
        assert!(
            text.contains("iifname \"br1\" oifname != \"br1\" drop"),
            "{text}"
        );
        assert!(!text.contains("\"\"") && !text.contains("10.0.2"), "{text}");
        assert!(!text.contains("oifname != \"br1\" masquerade"), "{text}");
        assert!(
            !text.contains("oifname \"br1\" ct status dnat accept"),
            "{text}"
        );
    }
}
