//! Forgets what the kernel knows of datagrams to a published port.
//!
//! Packet filter rules redirect a flow by its first packet, and what has no end, as UDP, stays
//! redirected while packets come: to a container that is gone, or to nobody. So the flows of a
//! port are forgotten when it is published and when it no longer is, after the rules have changed.
//! Source: linux/netfilter/nfnetlink_conntrack.h.

use std::io;
use std::net::IpAddr;

use super::netlink::{Message, Socket, attributes};
use super::{Endpoint, Protocol, Published};

/// nfnetlink message types: subsystem in the high byte (linux/netfilter/nfnetlink.h).
const IPCTNL_MSG_CT_GET: u16 = (1 << 8) | 1;
const IPCTNL_MSG_CT_DELETE: u16 = (1 << 8) | 2;
/// `struct nfgenmsg`: family, version, resource.
const FIXED: usize = 4;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
/// Source and destination address, by family.
const CTA_IP_V4: (u16, u16) = (1, 2);
const CTA_IP_V6: (u16, u16) = (3, 4);
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    port: u16,
}

/// Forgets the flows to the UDP ports that `endpoint` publishes.
///
/// A kernel without connection tracking over netlink keeps them, and they time out.
pub fn forget(endpoint: &Endpoint) {
    for ipv6 in [false, true] {
        let of_family = |port: &&Published| {
            port.protocol == Protocol::Udp
                && port.host_ip.is_ipv6() == ipv6
                && !port.host_ip.is_loopback()
        };
        let ports: Vec<&Published> = endpoint.ports.iter().filter(of_family).collect();
        if !ports.is_empty() {
            let _ = forget_flows(&ports, ipv6);
        }
    }
}

fn forget_flows(ports: &[&Published], ipv6: bool) -> io::Result<()> {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    let fixed = [u8::try_from(family).expect("families are small"), 0, 0, 0];
    let mut socket = Socket::netfilter(0)?;
    let mut stale = Vec::new();
    socket.dump(Message::new(IPCTNL_MSG_CT_GET, 0, &fixed), |_, body| {
        let flow = body.get(FIXED..).unwrap_or_default();
        if is_of(flow, ports) {
            stale.push(key(flow, &fixed));
        }
    })?;
    for message in stale {
        // ENOENT: it has timed out since.
        let _ = socket.request(message);
    }
    Ok(())
}

/// Whether a flow goes to one of the ports, and is not one that leaves through us.
fn is_of(flow: &[u8], ports: &[&Published]) -> bool {
    let (Some(sent), Some(answered)) = (way(flow, CTA_TUPLE_ORIG), way(flow, CTA_TUPLE_REPLY))
    else {
        return false;
    };
    // A container's own question to a server elsewhere: its source alone is translated.
    let is_masqueraded = sent.to == answered.from && sent.from != answered.to;
    let is_to = |port: &&Published| {
        port.host_port == sent.port && (port.host_ip.is_unspecified() || port.host_ip == sent.to)
    };
    i32::from(sent.protocol) == libc::IPPROTO_UDP && !is_masqueraded && ports.iter().any(is_to)
}

/// The message that deletes a flow; without its first tuple it would delete all.
fn key(flow: &[u8], fixed: &[u8]) -> Message {
    let mut message = Message::new(IPCTNL_MSG_CT_DELETE, 0, fixed);
    for (kind, value) in attributes(flow) {
        message = match kind {
            CTA_TUPLE_ORIG => message.nested(kind, |mut tuple| {
                tuple.raw(value);
                tuple
            }),
            CTA_ZONE => message.attribute(kind, value),
            _ => message,
        };
    }
    message
}

fn way(flow: &[u8], direction: u16) -> Option<Way> {
    let tuple = attribute(flow, direction)?;
    let (ip, proto) = (
        attribute(tuple, CTA_TUPLE_IP)?,
        attribute(tuple, CTA_TUPLE_PROTO)?,
    );
    let (from, to) = if attribute(ip, CTA_IP_V4.0).is_some() {
        CTA_IP_V4
    } else {
        CTA_IP_V6
    };
    let port = attribute(proto, CTA_PROTO_DST_PORT)?.try_into().ok()?;
    Some(Way {
        from: address(attribute(ip, from)?)?,
        to: address(attribute(ip, to)?)?,
        protocol: *attribute(proto, CTA_PROTO_NUM)?.first()?,
        port: u16::from_be_bytes(port),
    })
}

fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The attributes of a flow of datagrams: source and destination of both directions.
    fn flow(sent: [&str; 2], answered: [&str; 2], port: u16) -> Vec<u8> {
        let ip = |text: &str| match text.parse().unwrap() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let kinds = if sent[0].contains(':') {
            CTA_IP_V6
        } else {
            CTA_IP_V4
        };
        let tuple = |message: Message, kind: u16, [from, to]: [&str; 2]| {
            message.nested(kind, |m| {
                m.nested(CTA_TUPLE_IP, |m| {
                    m.attribute(kinds.0, &ip(from)).attribute(kinds.1, &ip(to))
                })
                .nested(CTA_TUPLE_PROTO, |m| {
                    m.attribute(CTA_PROTO_NUM, &[17])
                        .attribute(CTA_PROTO_DST_PORT, &port.to_be_bytes())
                })
            })
        };
        let message = tuple(Message::new(0, 0, &[]), CTA_TUPLE_ORIG, sent);
        tuple(message, CTA_TUPLE_REPLY, answered).body().to_vec()
    }

    #[test]
    fn flows_to_the_port_are_told_from_those_that_pass_by() {
        let published = |ip: &str| Published {
            container_port: 53,
            protocol: Protocol::Udp,
            host_ip: ip.parse().unwrap(),
            host_port: 5300,
        };
        let any = published("0.0.0.0");
        let redirected = flow(["9.9.9.9", "1.1.1.1"], ["172.17.0.2", "9.9.9.9"], 5300);
        let plain = flow(["9.9.9.9", "1.1.1.1"], ["1.1.1.1", "9.9.9.9"], 5300);
        let outward = flow(["172.17.0.3", "8.8.8.8"], ["8.8.8.8", "1.1.1.1"], 5300);
        let other = flow(["9.9.9.9", "1.1.1.1"], ["172.17.0.2", "9.9.9.9"], 5301);
        let six = flow(["fd::9", "fd::1"], ["fd:2::2", "fd::9"], 5300);
        assert!(is_of(&redirected, &[&any]) && is_of(&plain, &[&any]));
        assert!(!is_of(&outward, &[&any]) && !is_of(&other, &[&any]));
        assert!(is_of(&redirected, &[&published("1.1.1.1")]));
        assert!(!is_of(&redirected, &[&published("1.1.1.2")]));
        assert!(is_of(&six, &[&published("::")]));
        for length in 0..redirected.len() {
            assert!(!is_of(&redirected[..length], &[&any]), "cut at {length}");
        }
    }
}
