//! As much of D-Bus as it takes to ask systemd for a unit: a blocking client without threads.
//!
//! cgroups-rs brings a systemd client on zbus. It is not used: zbus starts threads, and keel must
//! have one when it clones for the next process; it opens a connection for every call, knows the
//! system's instance alone, and returns before the job is done, when the process may not be in its
//! cgroup yet. Here authentication, greeting and request leave in one write.
//! Source: D-Bus specification, "Authentication Protocol", "Message Protocol", "Marshaling".

use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Longer messages than systemd ever sends to us.
const LONGEST_MESSAGE: usize = 1 << 20;
const METHOD_CALL: u8 = 1;
/// The kinds of [`Message`].
pub const METHOD_RETURN: u8 = 2;
/// See [`METHOD_RETURN`].
pub const ERROR: u8 = 3;
/// See [`METHOD_RETURN`].
pub const SIGNAL: u8 = 4;
/// Byte order of our messages; the peer is on the same machine.
const ORDER: u8 = if cfg!(target_endian = "little") {
    b'l'
} else {
    b'B'
};

/// A value of a unit's property.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// `s`
    Text(String),
    /// `b`
    Bool(bool),
    /// `i`
    Int(i32),
    /// `t`
    Number(u64),
    /// `as`
    Texts(Vec<String>),
    /// `au`
    Numbers(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
}

/// The body of a message: values one after the other, each aligned to its size.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Body {
    signature: String,
    bytes: Vec<u8>,
}

impl Body {
    fn align(&mut self, to: usize) {
        let length = self.bytes.len().next_multiple_of(to);
        self.bytes.resize(length, 0);
    }

    fn put_u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend(value.to_ne_bytes());
    }

    fn put_text(&mut self, text: &str) {
        self.put_u32(length(text.len()));
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn put_signature(&mut self, signature: &str) {
        self.bytes
            .push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    /// An array whose elements are aligned to `align`; the length counts from the first element.
    fn put_array(&mut self, align: usize, elements: impl FnOnce(&mut Self)) {
        self.put_u32(0);
        let at = self.bytes.len() - 4;
        self.align(align);
        let start = self.bytes.len();
        elements(self);
        let written = length(self.bytes.len() - start);
        self.bytes[at..at + 4].copy_from_slice(&written.to_ne_bytes());
    }

    fn put_variant(&mut self, value: &Value) {
        self.put_signature(match value {
            Value::Text(_) => "s",
            Value::Bool(_) => "b",
            Value::Int(_) => "i",
            Value::Number(_) => "t",
            Value::Texts(_) => "as",
            Value::Numbers(_) => "au",
            Value::Bytes(_) => "ay",
            Value::Pairs(_) => "a(ss)",
        });
        match value {
            Value::Text(text) => self.put_text(text),
            Value::Bool(is_so) => self.put_u32((*is_so).into()),
            Value::Int(number) => self.put_u32(number.cast_unsigned()),
            Value::Number(number) => {
                self.align(8);
                self.bytes.extend(number.to_ne_bytes());
            }
            Value::Texts(list) => {
                self.put_array(4, |body| list.iter().for_each(|text| body.put_text(text)))
            }
            Value::Numbers(list) => {
                self.put_array(4, |body| list.iter().for_each(|n| body.put_u32(*n)))
            }
            Value::Bytes(list) => self.put_array(1, |body| body.bytes.extend(list)),
            Value::Pairs(list) => self.put_array(8, |body| {
                for (one, other) in list {
                    body.align(8);
                    body.put_text(one);
                    body.put_text(other);
                }
            }),
        }
    }

    /// Appends `s`.
    pub fn text(mut self, text: &str) -> Self {
        self.signature.push('s');
        self.put_text(text);
        self
    }

    /// Appends `b`.
    pub fn bool(mut self, is_so: bool) -> Self {
        self.signature.push('b');
        self.put_u32(is_so.into());
        self
    }

    /// Appends `au`.
    pub fn numbers(mut self, list: &[u32]) -> Self {
        self.signature.push_str("au");
        self.put_array(4, |body| {
            list.iter().for_each(|number| body.put_u32(*number))
        });
        self
    }

    /// Appends `a(sv)`.
    pub fn properties<'a>(mut self, list: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Self {
        self.signature.push_str("a(sv)");
        self.put_array(8, |body| {
            for (name, value) in list {
                body.align(8);
                body.put_text(name);
                body.put_variant(value);
            }
        });
        self
    }

    /// Appends an empty `a(sa(sv))`, the auxiliary units that nobody uses.
    pub fn no_units(mut self) -> Self {
        self.signature.push_str("a(sa(sv))");
        self.put_array(8, |_| {});
        self
    }
}

/// No message that keel sends comes near the limit.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// A method of an object.
#[derive(Debug, Clone, Copy)]
pub struct Method<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub name: &'a str,
}

/// The bytes of a call.
fn call(serial: u32, method: Method<'_>, body: &Body) -> Vec<u8> {
    let mut message = Body::default();
    message.bytes.extend([ORDER, METHOD_CALL, 0, 1]);
    message.put_u32(length(body.bytes.len()));
    message.put_u32(serial);
    let fields = [
        (1, "o", method.path),
        (2, "s", method.interface),
        (3, "s", method.name),
        (6, "s", method.destination),
    ];
    message.put_array(8, |header| {
        for (code, signature, text) in fields {
            header.align(8);
            header.bytes.push(code);
            header.put_signature(signature);
            header.put_text(text);
        }
        if !body.signature.is_empty() {
            header.align(8);
            header.bytes.push(8);
            header.put_signature("g");
            header.put_signature(&body.signature);
        }
    });
    message.align(8);
    message.bytes.extend(&body.bytes);
    message.bytes
}

/// What came from the bus.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Message {
    /// [`METHOD_RETURN`], [`ERROR`] or [`SIGNAL`].
    pub kind: u8,
    /// The call that is answered.
    pub reply_to: u32,
    /// The signal's name, or the error's.
    pub name: String,
    /// The leading values of the body that are numbers or texts, as text.
    pub values: Vec<String>,
}

/// Reads aligned values; `None` at the end of what there is.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4)?.try_into().ok().map(u32::from_ne_bytes)
    }

    fn text_of(&mut self, length: usize) -> Option<String> {
        let text = self.take(length)?.to_vec();
        self.take(1)?;
        String::from_utf8(text).ok()
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        self.text_of(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?;
        self.text_of(length.into())
    }
}

/// The length of the whole message that begins with these 16 bytes.
fn whole_length(start: &[u8; 16]) -> Option<usize> {
    let mut reader = Reader {
        bytes: start,
        at: 4,
    };
    let body = reader.number()? as usize;
    reader.number()?;
    let fields = reader.number()? as usize;
    let whole = 16_usize
        .checked_add(fields)?
        .next_multiple_of(8)
        .checked_add(body)?;
    (start[0] == ORDER && whole <= LONGEST_MESSAGE).then_some(whole)
}

/// Reads a whole message; `None` if it breaks the specification.
pub(super) fn parse(bytes: &[u8]) -> Option<Message> {
    let mut message = Message {
        kind: *bytes.get(1)?,
        ..Message::default()
    };
    let mut reader = Reader { bytes, at: 12 };
    let fields = reader.number()? as usize;
    let end = 16_usize.checked_add(fields)?;
    let mut signature = String::new();
    while reader.at < end {
        reader.align(8);
        let code = reader.byte()?;
        let (number, text) = match reader.signature()?.as_str() {
            "u" => (reader.number()?, String::new()),
            "s" | "o" => (0, reader.text()?),
            "g" => (0, reader.signature()?),
            _ => return None,
        };
        match code {
            3 | 4 => message.name = text,
            5 => message.reply_to = number,
            8 => signature = text,
            _ => {}
        }
    }
    reader.align(8);
    for kind in signature.chars() {
        message.values.push(match kind {
            'u' => reader.number()?.to_string(),
            's' | 'o' => reader.text()?,
            _ => break,
        });
    }
    Some(message)
}

/// A connection to a bus, or to systemd itself.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    /// Where it leads, for error texts.
    address: String,
    /// What has not been sent yet.
    outgoing: Vec<u8>,
    serial: u32,
    is_authenticated: bool,
    deadline: Instant,
}

impl Bus {
    /// Connects to the first address that answers: paths of sockets, or `@name` for abstract ones.
    /// The whole conversation has to end within `limit`.
    pub fn connect(addresses: &[String], limit: Duration) -> Result<Self> {
        let mut failure = None;
        for address in addresses {
            let stream = match address.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name)
                    .and_then(|name| UnixStream::connect_addr(&name)),
                None => UnixStream::connect(address),
            };
            match stream {
                Ok(stream) => {
                    return Ok(Self {
                        stream,
                        address: address.clone(),
                        // An empty identity: the peer takes the one the kernel vouches for, which is
                        // right in a user namespace, too.
                        outgoing: b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n".to_vec(),
                        serial: 0,
                        is_authenticated: false,
                        deadline: Instant::now() + limit,
                    });
                }
                Err(error) => failure = Some(Error::host("connect to systemd at", address, error)),
            }
        }
        Err(failure.unwrap_or_else(|| {
            Error::Failed("no address of systemd: XDG_RUNTIME_DIR is not set".into())
        }))
    }

    /// Queues a call; the answer's `reply_to` is the number that comes back.
    pub fn queue(&mut self, method: Method<'_>, body: &Body) -> u32 {
        self.serial += 1;
        self.outgoing.extend(call(self.serial, method, body));
        self.serial
    }

    /// Sends what is queued and returns the next message.
    pub fn next(&mut self) -> Result<Message> {
        let outgoing = std::mem::take(&mut self.outgoing);
        if !outgoing.is_empty() {
            let limit = self.time_left()?;
            self.stream
                .set_write_timeout(Some(limit))
                .and_then(|()| self.stream.write_all(&outgoing))
                .map_err(|error| self.failed("write to", error))?;
        }
        if !self.is_authenticated {
            self.read_greeting()?;
        }
        let mut start = [0; 16];
        self.read(&mut start)?;
        let length = whole_length(&start).ok_or_else(|| self.nonsense())?;
        let mut bytes = start.to_vec();
        bytes.resize(length, 0);
        self.read(&mut bytes[16..])?;
        parse(&bytes).ok_or_else(|| self.nonsense())
    }

    /// The lines before the first message, the last of which is `OK`.
    fn read_greeting(&mut self) -> Result<()> {
        let mut line = Vec::new();
        while !self.is_authenticated {
            let mut byte = [0];
            self.read(&mut byte)?;
            line.extend(byte);
            if line.ends_with(b"\r\n") {
                let text = String::from_utf8_lossy(&line).trim().to_owned();
                match text.split(' ').next() {
                    Some("OK") => self.is_authenticated = true,
                    Some("DATA") => line.clear(),
                    _ => {
                        let text = format!("{}: authentication failed: {text}", self.address);
                        return Err(Error::Failed(text));
                    }
                }
            }
            if line.len() > LONGEST_MESSAGE {
                return Err(self.nonsense());
            }
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        let mut at = 0;
        while at < buffer.len() {
            let limit = self.time_left()?;
            let read = self
                .stream
                .set_read_timeout(Some(limit))
                .and_then(|()| self.stream.read(&mut buffer[at..]));
            match read {
                Ok(0) => {
                    let error = std::io::Error::from_raw_os_error(libc::ECONNRESET);
                    return Err(self.failed("read from", error));
                }
                Ok(count) => at += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The time has run out, and `time_left` says so.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.failed("read from", error)),
            }
        }
        Ok(())
    }

    fn time_left(&self) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let error = std::io::Error::from_raw_os_error(libc::ETIMEDOUT);
            return Err(self.failed("wait for systemd at", error));
        }
        Ok(left)
    }

    fn failed(&self, call: &'static str, error: std::io::Error) -> Error {
        Error::host(call, &self.address, error)
    }

    fn nonsense(&self) -> Error {
        Error::Failed(format!(
            "{}: an answer that is no D-Bus message",
            self.address
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHOD: Method<'_> = Method {
        destination: "a.b",
        path: "/c",
        interface: "d.e",
        name: "F",
    };

    #[test]
    fn values_are_aligned_as_the_specification_wants() {
        let list = [("N", &Value::Number(1)), ("B", &Value::Bool(true))];
        let body = Body::default().text("x").properties(list);
        assert_eq!(body.signature, "sa(sv)");
        let mut want = vec![1, 0, 0, 0, b'x', 0, 0, 0];
        want.extend([44, 0, 0, 0, 0, 0, 0, 0]);
        want.extend([1, 0, 0, 0, b'N', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0]);
        want.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        want.extend([1, 0, 0, 0, b'B', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0]);
        want[8] = u8::try_from(want.len() - 16).unwrap();
        assert_eq!(body.bytes, want);
    }

    #[test]
    fn what_is_sent_is_read_back() {
        let body = Body::default()
            .text("unit")
            .bool(true)
            .numbers(&[7])
            .no_units();
        let bytes = call(9, METHOD, &body);
        let start: [u8; 16] = bytes[..16].try_into().unwrap();
        assert_eq!(whole_length(&start), Some(bytes.len()));
        let message = parse(&bytes).unwrap();
        assert_eq!((message.kind, message.name.as_str()), (METHOD_CALL, "F"));
        assert_eq!(message.values, ["unit"]);
    }

    #[test]
    fn a_message_that_is_cut_or_changed_never_panics() {
        let bytes = call(9, METHOD, &Body::default().text("unit").text("replace"));
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), None, "{cut}");
        }
        for (at, value) in (0..bytes.len()).flat_map(|at| [0, 1, 127, 255].map(|value| (at, value)))
        {
            let mut changed = bytes.clone();
            changed[at] = value;
            let _ = (
                parse(&changed),
                whole_length(&changed[..16].try_into().unwrap()),
            );
        }
    }

    #[test]
    fn a_peer_that_refuses_or_says_nothing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bus").to_string_lossy().into_owned();
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            peer.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
            listener.accept().unwrap()
        });
        let (soon, later) = (Duration::from_millis(100), Duration::from_secs(60));
        let addresses = ["/nonexistent".to_owned(), path];
        let line = Bus::connect(&addresses, later)
            .unwrap()
            .next()
            .unwrap_err()
            .line();
        assert!(
            line.ends_with("bus: authentication failed: REJECTED EXTERNAL"),
            "{line}"
        );
        let line = Bus::connect(&addresses, soon)
            .unwrap()
            .next()
            .unwrap_err()
            .line();
        assert!(
            line.contains("wait for systemd at") && line.contains("timed out"),
            "{line}"
        );
        let line = Bus::connect(&addresses[..1], soon).unwrap_err().line();
        assert_eq!(
            line,
            "connect to systemd at /nonexistent: no such file or directory"
        );
        drop(server.join().unwrap());
    }
}
