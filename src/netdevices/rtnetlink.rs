//! What keel asks the kernel about network interfaces. Man pages: netlink(7), rtnetlink(7).

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use libc::{IFA_ADDRESS, IFA_F_PERMANENT, IFA_FLAGS, RT_SCOPE_UNIVERSE};
use libc::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST};
use libc::{NLMSG_DONE, NLMSG_ERROR};
use libc::{RTM_GETADDR, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{recv, send, socket};

use crate::sys::{Errno, Result};

/// Attributes of a link, from linux/if_link.h.
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
/// Attributes of an address that say what it is, from linux/if_addr.h: the address and its peer, the
/// broadcast address, the flags, the metric of its route. Others are counters, or the old name.
const KEPT: [u16; 5] = [IFA_ADDRESS, 2, 4, IFA_FLAGS, 9];

/// A message starts with length, type, flags, sequence number and port: 16 bytes.
const HEADER: usize = 16;
/// `struct ifinfomsg`: family, type, index, flags, which flags change.
const LINK: usize = 16;
/// `struct ifaddrmsg`: family, prefix length, flags, scope, index.
const ADDRESS: usize = 8;

/// A socket of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket(OwnedFd);

/// An address of an interface, ready to be added to another.
#[derive(Debug, PartialEq, Eq)]
pub struct Address {
    /// Family, prefix length, flags, scope.
    head: [u8; 4],
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Socket {
    /// Opens a socket in the network namespace that the caller is in.
    pub fn open() -> Result<Self> {
        let protocol = SockProtocol::NetlinkRoute;
        let flags = SockFlag::SOCK_CLOEXEC;
        socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).map(Self)
    }

    /// The index of the interface `name`, if there is one.
    pub fn index(&self, name: &str) -> Result<Option<i32>> {
        let request = Request::new(RTM_GETLINK, NLM_F_ACK, &[0; LINK]).name(name);
        let replies = match self.call(request) {
            Err(Errno::ENODEV) => return Ok(None),
            other => other?,
        };
        let index = replies.first().and_then(|link| number(link, 4));
        index.map(Some).ok_or(Errno::EPROTO)
    }

    /// The interface's permanent addresses of global scope.
    pub fn addresses(&self, index: i32) -> Result<Vec<Address>> {
        let replies = self.call(Request::new(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS]))?;
        let own = replies
            .iter()
            .filter(|reply| number(reply, 4) == Some(index));
        Ok(own.filter_map(|reply| Address::read(reply)).collect())
    }

    /// Moves the interface to another network namespace, where it is down, has no addresses, and is
    /// called `name`.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken there; `EINVAL` if an interface of its kind cannot move.
    pub fn give_away(&self, index: i32, namespace: BorrowedFd<'_>, name: &str) -> Result<()> {
        let request = Request::new(RTM_NEWLINK, NLM_F_ACK, &link(index, 0)).name(name);
        let fd = namespace.as_raw_fd().to_ne_bytes();
        self.call(request.attribute(IFLA_NET_NS_FD, &fd)).map(drop)
    }

    /// Adds an address to the interface.
    pub fn add_address(&self, index: i32, address: &Address) -> Result<()> {
        let mut body = [0; ADDRESS];
        body[..4].copy_from_slice(&address.head);
        body[4..].copy_from_slice(&index.to_ne_bytes());
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let mut request = Request::new(RTM_NEWADDR, flags, &body);
        for (kind, value) in &address.attributes {
            request = request.attribute(*kind, value);
        }
        self.call(request).map(drop)
    }

    /// Brings the interface up.
    pub fn bring_up(&self, index: i32) -> Result<()> {
        let up = libc::IFF_UP.unsigned_abs();
        self.call(Request::new(RTM_NEWLINK, NLM_F_ACK, &link(index, up)))
            .map(drop)
    }

    /// Sends the request and reads the answer: the bodies of all messages up to the last, which says
    /// whether it has succeeded.
    fn call(&self, request: Request) -> Result<Vec<Vec<u8>>> {
        send(
            self.0.as_raw_fd(),
            &request.finished(),
            MsgFlags::MSG_NOSIGNAL,
        )?;
        let mut replies = Vec::new();
        // The kernel's longest message of a dump.
        let mut buffer = vec![0; 32 << 10];
        loop {
            let count = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            for (kind, body) in pieces(&buffer[..count], HEADER, |head| {
                let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]);
                (length as usize, u16::from_ne_bytes([head[4], head[5]]))
            }) {
                match i32::from(kind) {
                    NLMSG_DONE => return Ok(replies),
                    NLMSG_ERROR => match number(body, 0) {
                        Some(0) => return Ok(replies),
                        error => return Err(Errno::from_raw(-error.unwrap_or(-libc::EPROTO))),
                    },
                    _ => replies.push(body.to_vec()),
                }
            }
        }
    }
}

impl Address {
    /// Reads the body of a `RTM_NEWADDR` message, unless the address is temporary or local.
    fn read(body: &[u8]) -> Option<Self> {
        let head: [u8; 4] = body.get(..4)?.try_into().ok()?;
        let attributes: Vec<(u16, Vec<u8>)> = attributes(body.get(ADDRESS..)?)
            .map(|(kind, value)| (kind, value.to_vec()))
            .collect();
        let flags = attributes.iter().find(|(kind, _)| *kind == IFA_FLAGS);
        // Before Linux 3.14 only the eight bits of the head.
        let flags = flags.map_or(i32::from(head[2]), |(_, value)| {
            number(value, 0).unwrap_or(0)
        });
        let wanted = flags & IFA_F_PERMANENT as i32 != 0 && head[3] == RT_SCOPE_UNIVERSE;
        wanted.then(|| Self {
            head,
            attributes: attributes
                .into_iter()
                .filter(|(kind, _)| KEPT.contains(kind))
                .collect(),
        })
    }
}

/// A request as it is put together.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: i32, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&((NLM_F_REQUEST | flags) as u16).to_ne_bytes());
        bytes.extend_from_slice(body);
        Self(bytes)
    }

    /// Adds one attribute, `struct rtattr`: length, type, value, up to a multiple of four bytes.
    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (4 + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// The interface's name, with a final zero byte.
    fn name(self, name: &str) -> Self {
        let mut value = name.as_bytes().to_vec();
        value.push(0);
        self.attribute(IFLA_IFNAME, &value)
    }

    /// The message, which now knows its length.
    fn finished(mut self) -> Vec<u8> {
        let length = (self.0.len() as u32).to_ne_bytes();
        self.0[..4].copy_from_slice(&length);
        self.0
    }
}

/// A `struct ifinfomsg` for the interface, which sets `flags`.
fn link(index: i32, flags: u32) -> [u8; LINK] {
    let mut body = [0; LINK];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..].copy_from_slice(&flags.to_ne_bytes());
    body
}

/// The four bytes at `offset`.
fn number(bytes: &[u8], offset: usize) -> Option<i32> {
    let four = bytes.get(offset..offset + 4)?;
    Some(i32::from_ne_bytes(four.try_into().ok()?))
}

/// The attributes in `bytes`.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    pieces(bytes, 4, |head| {
        let length = u16::from_ne_bytes([head[0], head[1]]);
        (length.into(), u16::from_ne_bytes([head[2], head[3]]))
    })
}

/// Splits what netlink packs one after the other: each piece has a head of `head` bytes with its
/// whole length and its type, and starts at a multiple of four bytes. Ends at what is no piece.
fn pieces(
    mut bytes: &[u8],
    head: usize,
    read: impl Fn(&[u8]) -> (usize, u16),
) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = read(bytes.get(..head)?);
        let body = bytes.get(head..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of RTM_GETADDR: IPv4, /24, with these flags and this scope.
    fn answer(flags: u32, scope: u8) -> Vec<u8> {
        let head = [2, 24, flags as u8, scope, 7, 0, 0, 0];
        let whole = Request::new(RTM_NEWADDR, 0, &head)
            .attribute(IFA_ADDRESS, &[192, 0, 2, 7])
            .attribute(3, b"eth0\0")
            .attribute(IFA_FLAGS, &flags.to_ne_bytes());
        whole.finished()[HEADER..].to_vec()
    }

    #[test]
    fn permanent_global_addresses_are_kept_without_their_label() {
        let kept = Address::read(&answer(IFA_F_PERMANENT, RT_SCOPE_UNIVERSE)).unwrap();
        let kinds: Vec<u16> = kept.attributes.iter().map(|(kind, _)| *kind).collect();
        assert_eq!((kept.head[1], kinds), (24, vec![IFA_ADDRESS, IFA_FLAGS]));
        assert_eq!(Address::read(&answer(0, RT_SCOPE_UNIVERSE)), None);
        assert_eq!(Address::read(&answer(IFA_F_PERMANENT, 254)), None);
        assert_eq!(Address::read(&[2, 24]), None);
    }

    #[test]
    fn what_is_cut_short_ends_the_list() {
        let bytes = Request::new(0, 0, &[])
            .attribute(1, b"abcde")
            .attribute(2, b"xy");
        let packed = &bytes.0[HEADER..];
        let all: Vec<_> = attributes(packed).collect();
        assert_eq!(all, [(1, &b"abcde"[..]), (2, &b"xy"[..])]);
        assert_eq!(attributes(&packed[..packed.len() - 3]).count(), 1);
        assert_eq!(attributes(&[0; 16]).count(), 0);
    }

    #[test]
    fn the_loopback_interface_has_an_index_and_no_global_address() {
        let socket = Socket::open().unwrap();
        let index = socket.index("lo").unwrap().unwrap();
        assert_eq!(socket.addresses(index).unwrap(), []);
        assert_eq!(socket.index("keel-no-such").unwrap(), None);
    }
}
