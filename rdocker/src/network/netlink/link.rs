//! Links, addresses and routes: one function for each message that a container's network needs.
//!
//! Source: rtnetlink(7); kernel, include/uapi/linux/{rtnetlink,if_link,if_addr,if_bridge,veth}.h.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;

use super::{Message, Socket, attributes};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// No duplicate address detection: addresses are ours to give.
const IFA_F_NODAD: u8 = 0x02;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_BRIDGE: u8 = 7;
const AF_INET6: u8 = 10;
const IFF_UP: u32 = 1;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// A link as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Free text; ours say which network a bridge belongs to.
    pub alias: String,
}

/// One end on a bridge, the other in a container.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    /// Name of the end on the bridge.
    pub name: &'a str,
    /// Index of the bridge.
    pub bridge: u32,
    /// Name of the end in the container.
    pub peer: &'a str,
    /// Ethernet address of that end.
    pub mac: Mac,
    /// Network namespace of the container.
    pub netns: BorrowedFd<'a>,
    /// Largest packet; 0 is the kernel's choice.
    pub mtu: u32,
}

/// What a bridge does with one of its ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Port {
    /// Frames may go back where they came from.
    pub hairpin: bool,
    /// Kept from the other ports that are isolated too.
    pub isolated: bool,
}

/// `struct ifinfomsg`.
fn ifinfo(family: u8, index: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

impl Socket {
    /// The link of this name, if there is one.
    ///
    /// # Errors
    /// The kernel's, but for "no such device".
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let message =
            Message::new(RTM_GETLINK, 0, &ifinfo(AF_UNSPEC, 0, 0)).string(IFLA_IFNAME, name);
        let mut found = None;
        let asked = self.get(message, |kind, body| {
            if kind == RTM_NEWLINK {
                found = link(body);
            }
        });
        match asked {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    /// Makes a bridge that is up.
    ///
    /// Its address is fixed: a bridge without one takes over its ports' addresses, and neighbours
    /// lose it whenever the port goes.
    ///
    /// # Errors
    /// `EEXIST`: a link has this name already.
    pub fn add_bridge(&mut self, name: &str, alias: &str, mac: Mac, mtu: u32) -> io::Result<()> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let mut message = Message::new(RTM_NEWLINK, flags, &ifinfo(AF_UNSPEC, 0, IFF_UP))
            .string(IFLA_IFNAME, name)
            .attribute(IFLA_ADDRESS, &mac)
            .nested(IFLA_LINKINFO, |m| m.string(IFLA_INFO_KIND, "bridge"));
        if mtu != 0 {
            message = message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
        }
        self.request(message)?;
        // The kernel takes no alias in the message that makes a link.
        let link = self.link(name)?.ok_or(io::ErrorKind::NotFound)?;
        let message = Message::new(RTM_NEWLINK, 0, &ifinfo(AF_UNSPEC, link.index, 0))
            .attribute(IFLA_IFALIAS, alias.as_bytes());
        self.request(message)
    }

    /// Makes a pair whose one end is a port of a bridge, up, and whose other end is in the
    /// container's namespace, down.
    ///
    /// # Errors
    /// `EEXIST`: a link has one of the names already.
    pub fn add_veth(&mut self, veth: &Veth<'_>) -> io::Result<()> {
        let fixed = ifinfo(AF_UNSPEC, 0, IFF_UP);
        let with_mtu = |message: Message| match veth.mtu {
            0 => message,
            mtu => message.attribute(IFLA_MTU, &mtu.to_ne_bytes()),
        };
        let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &fixed)
            .string(IFLA_IFNAME, veth.name)
            .attribute(IFLA_MASTER, &veth.bridge.to_ne_bytes())
            .nested(IFLA_LINKINFO, |m| {
                m.string(IFLA_INFO_KIND, "veth")
                    .nested(IFLA_INFO_DATA, |m| {
                        m.nested(VETH_INFO_PEER, |mut m| {
                            m.raw(&ifinfo(AF_UNSPEC, 0, 0));
                            let netns = veth.netns.as_raw_fd().to_ne_bytes();
                            with_mtu(m)
                                .string(IFLA_IFNAME, veth.peer)
                                .attribute(IFLA_ADDRESS, &veth.mac)
                                .attribute(IFLA_NET_NS_FD, &netns)
                        })
                    })
            });
        self.request(with_mtu(message))
    }

    /// Changes what a bridge does with one of its ports.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_port(&mut self, index: u32, port: Port) -> io::Result<()> {
        let message =
            Message::new(RTM_SETLINK, 0, &ifinfo(AF_BRIDGE, index, 0)).nested(IFLA_PROTINFO, |m| {
                m.attribute(IFLA_BRPORT_MODE, &[u8::from(port.hairpin)])
                    .attribute(IFLA_BRPORT_ISOLATED, &[u8::from(port.isolated)])
            });
        self.request(message)
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.request(Message::new(
            RTM_NEWLINK,
            0,
            &ifinfo(AF_UNSPEC, index, IFF_UP),
        ))
    }

    /// Removes a link, and with a veth its other end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn delete_link(&mut self, index: u32) -> io::Result<()> {
        self.request(Message::new(RTM_DELLINK, 0, &ifinfo(AF_UNSPEC, index, 0)))
    }

    /// Gives a link an address; one that it has already is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> io::Result<()> {
        let mut fixed = [0; 8];
        fixed[0] = family(address.addr());
        fixed[1] = address.prefix_len();
        fixed[2] = if address.addr().is_ipv6() {
            IFA_F_NODAD
        } else {
            0
        };
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        let bytes = octets(address.addr());
        let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &fixed)
            .attribute(IFA_LOCAL, &bytes)
            .attribute(IFA_ADDRESS, &bytes);
        if let IpNet::V4(net) = address {
            message = message.attribute(IFA_BROADCAST, &net.broadcast().octets());
        }
        self.request(message)
    }

    /// Routes everything else through `gateway`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        let mut fixed = [0; 12];
        fixed[0] = family(gateway);
        fixed[4] = RT_TABLE_MAIN;
        fixed[5] = RTPROT_STATIC;
        fixed[7] = RTN_UNICAST;
        let message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &fixed)
            .attribute(RTA_GATEWAY, &octets(gateway))
            .attribute(RTA_OIF, &index.to_ne_bytes());
        self.request(message)
    }

    /// Destinations of the unicast routes, default routes left out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn routes(&mut self) -> io::Result<Vec<IpNet>> {
        let mut routes = Vec::new();
        self.dump(Message::new(RTM_GETROUTE, 0, &[0; 12]), |_, body| {
            routes.extend(route(body));
        })?;
        Ok(routes)
    }
}

/// `struct ifinfomsg` and its attributes.
fn link(body: &[u8]) -> Option<Link> {
    let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let alias = attributes(body.get(16..)?)
        .find(|(kind, _)| *kind == IFLA_IFALIAS)
        .map(|(_, value)| String::from_utf8_lossy(value).trim_end_matches('\0').into());
    Some(Link {
        index,
        alias: alias.unwrap_or_default(),
    })
}

/// `struct rtmsg` and its attributes.
fn route(body: &[u8]) -> Option<IpNet> {
    let (family, prefix, kind) = (*body.first()?, *body.get(1)?, *body.get(7)?);
    if kind != RTN_UNICAST || prefix == 0 {
        return None;
    }
    let (_, value) = attributes(body.get(12..)?).find(|(kind, _)| *kind == RTA_DST)?;
    let address = match family {
        AF_INET => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?)),
        AF_INET6 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?)),
        _ => return None,
    };
    IpNet::new(address, prefix).ok()
}
