//! Published ports: which host port each gets, and the sockets that keep it.
//!
//! The socket is bound to the whole address that was asked for, so a port that anything on this
//! host uses is found taken, and nothing can take it while the container runs. The kernel's rules
//! redirect what comes from elsewhere before it reaches the socket; what is left for
//! [`super::proxy`] is what comes over loopback.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::{Protocol, Published};
use crate::error::{Error, Result};

/// Host ports given when nobody names one, if the kernel does not say (ip(7)).
const EPHEMERAL: (u16, u16) = (32768, 60999);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A port that the user wants published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Port in the container.
    pub container_port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Address on the host; `None` is all, of both families.
    pub host_ip: Option<IpAddr>,
    /// First and last host port that will do; `None` is any free one.
    pub host_ports: Option<(u16, u16)>,
}

/// The socket that keeps a port.
#[derive(Debug)]
pub enum Held {
    /// It listens.
    Tcp(TcpListener),
    /// It is bound.
    Udp(UdpSocket),
    /// It is bound and nothing more.
    Sctp(OwnedFd),
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
            Self::Sctp(socket) => socket.as_fd(),
        }
    }
}

/// A port that is ours.
#[derive(Debug)]
pub struct Bound {
    /// What is published.
    pub published: Published,
    /// What keeps it.
    pub held: Held,
}

/// Takes every wanted port.
///
/// # Errors
/// One is taken: the line names it, and `owner` the container that has it.
pub fn bind(
    name: &str,
    wants: &[Want],
    owner: impl Fn(Protocol, u16) -> Option<String>,
) -> Result<Vec<Bound>> {
    let mut bound = Vec::new();
    // Ranges first come, first served; a range that is asked for port by port stays in order.
    let mut next: BTreeMap<(Protocol, u16), u16> = BTreeMap::new();
    for want in wants {
        let (first, last) = want.host_ports.unwrap_or_else(ephemeral);
        let start = next
            .get(&(want.protocol, first))
            .copied()
            .filter(|start| *start <= last)
            .unwrap_or(first);
        let mut failure = None;
        for port in start..=last {
            match bind_port(want, port) {
                Ok(list) => {
                    bound.extend(list);
                    next.insert((want.protocol, first), port.saturating_add(1));
                    failure = None;
                    break;
                }
                Err(refused) => failure = Some(refused),
            }
        }
        if let Some((address, error)) = failure {
            let port = address.port();
            let user = owner(want.protocol, port);
            return Err(refusal(name, want, address, &error, user));
        }
    }
    Ok(bound)
}

fn refusal(
    name: &str,
    want: &Want,
    address: SocketAddr,
    error: &io::Error,
    owner: Option<String>,
) -> Error {
    let on = format!("driver failed programming external connectivity on endpoint {name}");
    let protocol = want.protocol.word();
    if want.host_ports.is_none_or(|(first, last)| first < last)
        && error.raw_os_error() == Some(libc::EADDRINUSE)
    {
        return Error::Hinted {
            message: format!("{on}: all ports are allocated"),
            hint: "remove a container that publishes ports, or name a larger range".to_owned(),
        };
    }
    match (error.raw_os_error(), owner) {
        (Some(libc::EADDRINUSE), Some(owner)) => Error::Hinted {
            message: format!("{on}: Bind for {address} failed: port is already allocated"),
            hint: format!("container {owner} publishes it: remove it or choose another port"),
        },
        (Some(libc::EADDRINUSE), None) => Error::Hinted {
            message: format!(
                "{on}: failed to bind host port {address}/{protocol}: address already in use"
            ),
            hint: format!(
                "another program has it (ss -lnp 'sport = :{}' shows which): choose another port",
                address.port()
            ),
        },
        (Some(libc::EACCES), _) => Error::Hinted {
            message: format!("{on}: failed to bind host port {address}/{protocol}: {error}"),
            hint: "choose a port from 1024 on, or let users have the lower ones: \
                   sysctl net.ipv4.ip_unprivileged_port_start"
                .to_owned(),
        },
        _ => Error::Conflict(format!(
            "{on}: failed to bind host port {address}/{protocol}: {error}"
        )),
    }
}

fn ephemeral() -> (u16, u16) {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => (first, last),
        _ => EPHEMERAL,
    }
}

/// Takes one host port on every address that is asked for.
fn bind_port(want: &Want, port: u16) -> std::result::Result<Vec<Bound>, (SocketAddr, io::Error)> {
    let both = [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    ];
    let addresses = want
        .host_ip
        .as_ref()
        .map_or(both.as_slice(), std::slice::from_ref);
    let mut list = Vec::new();
    for host_ip in addresses {
        let address = SocketAddr::new(*host_ip, port);
        match hold(want.protocol, address) {
            Ok(held) => list.push(Bound {
                published: Published {
                    container_port: want.container_port,
                    protocol: want.protocol,
                    host_ip: *host_ip,
                    host_port: port,
                },
                held,
            }),
            // A host without IPv6 has no IPv6 ports; nobody asked for them by name.
            Err(error) if is_without_ipv6(want, &error) => {}
            Err(error) => return Err((address, error)),
        }
    }
    Ok(list)
}

fn is_without_ipv6(want: &Want, error: &io::Error) -> bool {
    let absent = [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL];
    want.host_ip.is_none() && error.raw_os_error().is_some_and(|n| absent.contains(&n))
}

fn hold(protocol: Protocol, address: SocketAddr) -> io::Result<Held> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let fd = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(number))?;
    if protocol == Protocol::Tcp {
        // Connections of an earlier container that are still dying do not keep the port.
        sockopt::set_socket_reuseaddr(&fd, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    rustix::net::bind(&fd, &address)?;
    match protocol {
        Protocol::Tcp => {
            rustix::net::listen(&fd, BACKLOG)?;
            Ok(Held::Tcp(fd.into()))
        }
        Protocol::Udp => Ok(Held::Udp(fd.into())),
        Protocol::Sctp => Ok(Held::Sctp(fd)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(host_ip: &str, ports: Option<(u16, u16)>) -> Want {
        Want {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: host_ip.parse().ok(),
            host_ports: ports,
        }
    }

    #[test]
    fn a_range_gives_its_first_free_port_and_ends_with_a_clear_line() {
        let blocker = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = blocker.local_addr().unwrap().port();
        let range = Some((port, port.saturating_add(20)));
        let bound = bind("web", &[want("127.0.0.1", range)], |_, _| None).unwrap();
        assert!(bound[0].published.host_port > port);
        let one = Some((port, port));
        let why = bind("web", &[want("127.0.0.1", one)], |_, _| None).unwrap_err();
        assert!(why.to_string().ends_with("address already in use"), "{why}");
        let owned = bind("web", &[want("127.0.0.1", one)], |_, _| Some("db".into()));
        let why = owned.unwrap_err();
        assert!(
            why.to_string().ends_with(&format!(
                "Bind for 127.0.0.1:{port} failed: port is already allocated"
            )),
            "{why}"
        );
        assert!(why.hint().unwrap().contains("container db"));
    }

    #[test]
    fn any_port_is_the_same_one_in_both_families() {
        let bound = bind("web", &[want("", None), want("", None)], |_, _| None).unwrap();
        let ports: Vec<u16> = bound
            .iter()
            .map(|bound| bound.published.host_port)
            .collect();
        assert_eq!(ports.len() % 2, 0);
        let half = ports.len() / 2;
        assert!(
            ports[..half].iter().all(|port| *port == ports[0]),
            "{ports:?}"
        );
        assert_ne!(ports[0], ports[half]);
    }
}
