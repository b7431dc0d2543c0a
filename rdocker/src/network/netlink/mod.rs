//! Netlink, as far as a container's network needs it: a socket that asks and waits, and messages
//! built attribute by attribute.
//!
//! A socket belongs to the network namespace in which it was opened, whatever its user enters
//! later. Source: netlink(7), rtnetlink(7); kernel, Documentation/userspace-api/netlink.

pub mod link;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Answers are read into a buffer of this size; the kernel makes dumps fit into 32 KiB.
const BUFFER: usize = 32 << 10;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
/// The attribute's content is attributes.
const NLA_F_NESTED: u16 = 0x8000;

/// One request: a header, a fixed part, attributes.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of this kind with `flags` beside `NLM_F_REQUEST`, and its fixed part.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        let mut message = Self { bytes };
        message.raw(fixed);
        message
    }

    /// Bytes as they are, padded to the alignment of four that netlink wants.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// One attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).expect("attributes here are short");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.raw(value);
        self
    }

    /// One attribute that is a string, with the NUL that the kernel expects.
    pub fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// One attribute that holds what `fill` adds.
    pub fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes
            .extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        let mut message = fill(self);
        let length = message.bytes.len() - start;
        let length = u16::try_from(length).expect("attributes here are short");
        message.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        message
    }

    /// What follows the header.
    #[cfg(test)]
    pub fn body(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }

    fn finish(mut self, flags: u16, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("messages here are short");
        let given = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&(given | flags).to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// The attributes in `bytes`: kind and value.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & !NLA_F_NESTED;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A netlink socket of the namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Links, addresses and routes.
    ///
    /// # Errors
    /// The errno of socket(2).
    pub fn route() -> io::Result<Self> {
        // NETLINK_ROUTE is protocol 0, which is what naming none means.
        Self::open(None, 0)
    }

    /// Packet filters; `groups` is a mask of the multicast groups to hear.
    ///
    /// # Errors
    /// The errno of socket(2) or bind(2).
    pub fn netfilter(groups: u32) -> io::Result<Self> {
        Self::open(Some(netlink::NETFILTER), groups)
    }

    fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let fd = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Asks for a change and waits for the kernel's verdict.
    ///
    /// # Errors
    /// The errno in the answer, or of the calls.
    pub fn request(&mut self, message: Message) -> io::Result<()> {
        self.exchange(message, NLM_F_ACK, |_, _| {})
    }

    /// Asks for one object; `read` gets the answer's fixed part and attributes.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn get(&mut self, message: Message, read: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.exchange(message, NLM_F_ACK, read)
    }

    /// Asks for all objects; `read` gets each one's kind and content.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn dump(&mut self, message: Message, read: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.exchange(message, NLM_F_DUMP, read)
    }

    fn exchange(
        &mut self,
        message: Message,
        flags: u16,
        mut read: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.sequence += 1;
        let bytes = message.finish(flags, self.sequence);
        rustix::net::send(&self.fd, &bytes, SendFlags::empty())?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let (length, _) = rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty())?;
            for (kind, sequence, body) in messages(&buffer[..length]) {
                if sequence != self.sequence {
                    continue;
                }
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return verdict(body),
                    kind => read(kind, body),
                }
            }
        }
    }

    /// Throws away what has arrived; whether something had.
    pub fn drain(&self) -> bool {
        let mut buffer = [0; 1];
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        let mut any = false;
        loop {
            match rustix::net::recv(&self.fd, &mut buffer[..], flags) {
                Ok(_) => any = true,
                // More happened than the buffer holds: something did.
                Err(rustix::io::Errno::NOBUFS) => any = true,
                Err(_) => return any,
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The messages in one datagram: kind, sequence number, content after the header.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let length = usize::try_from(word(0)?).ok()?;
        let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
        let sequence = word(8)?;
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, body))
    })
}

/// `struct nlmsgerr`: a negative errno, or 0 for done.
fn verdict(body: &[u8]) -> io::Result<()> {
    let code = body.get(..4).and_then(|bytes| bytes.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_nest_and_read_back() {
        let message = Message::new(16, 0, &[1, 2, 3])
            .string(3, "eth0")
            .nested(18, |m| m.string(1, "veth").attribute(2, &[9]));
        let bytes = message.finish(NLM_F_ACK, 7);
        let (kind, sequence, body) = messages(&bytes).next().unwrap();
        assert_eq!((kind, sequence, bytes.len() % 4), (16, 7, 0));
        let all: Vec<_> = attributes(&body[4..]).collect();
        assert_eq!(all[0], (3, b"eth0\0".as_slice()));
        let inner: Vec<_> = attributes(all[1].1).collect();
        assert_eq!(
            inner,
            [(1, b"veth\0".as_slice()), (2, [9].as_slice())],
            "the nested flag is no part of the kind"
        );
    }

    #[test]
    fn cut_off_answers_end_the_list_and_do_not_panic() {
        let bytes = Message::new(16, 0, &[0; 4])
            .string(3, "abcdef")
            .finish(0, 1);
        for length in 0..bytes.len() {
            assert_eq!(messages(&bytes[..length]).count(), 0);
            attributes(&bytes[..length]).for_each(drop);
        }
        assert!(verdict(&[1, 2]).is_err());
    }
}
