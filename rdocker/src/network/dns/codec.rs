//! DNS messages, as much of them as a server of a few names needs (RFC 1035).

use std::net::IpAddr;

/// Bytes of a message's header.
const HEADER: usize = 12;
/// Seconds that a client may keep an answer; Docker's.
const TTL: u32 = 600;

/// IPv4 address record.
pub const A: u16 = 1;
/// Name of an address.
pub const PTR: u16 = 12;
/// IPv6 address record (RFC 3596).
pub const AAAA: u16 = 28;
/// Class of the internet.
const IN: u16 = 1;

/// Response codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Answered, perhaps with nothing.
    NoError = 0,
    /// The servers above do not answer.
    ServerFailure = 2,
    /// There is no such name.
    NoName = 3,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Lower case, without the last dot.
    pub name: String,
    /// [`A`], [`AAAA`], [`PTR`] or another.
    pub kind: u16,
    /// Where the question ends in its message.
    end: usize,
}

impl Question {
    /// Reads a query with one question of the internet class.
    ///
    /// `None` for anything else, which the servers above may understand.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let flags = *message.get(2)?;
        let questions = u16::from_be_bytes([*message.get(4)?, *message.get(5)?]);
        // Neither an answer (the highest bit) nor another operation than a standard query.
        if flags & 0xf8 != 0 || questions != 1 {
            return None;
        }
        let mut name = String::new();
        let mut at = HEADER;
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            // No compression in a question: there is nothing before it to point to.
            if length > 63 || name.len() > 255 {
                return None;
            }
            if !name.is_empty() {
                name.push('.');
            }
            let label = std::str::from_utf8(message.get(at..at + length)?).ok()?;
            name.push_str(&label.to_ascii_lowercase());
            at += length;
        }
        let kind = u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]);
        let class = u16::from_be_bytes([*message.get(at + 2)?, *message.get(at + 3)?]);
        (class == IN).then_some(Self {
            name,
            kind,
            end: at + 4,
        })
    }
}

/// A record to answer with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An address of the asked name.
    Address(IpAddr),
    /// The name of the asked address.
    Name(String),
}

/// The answer to `query`, whose question was read from it.
pub fn answer(query: &[u8], question: &Question, code: Code, records: &[Record]) -> Vec<u8> {
    let mut message = query[..question.end].to_vec();
    let recursion_desired = message[2] & 1;
    // An answer, with recursion available.
    message[2] = 0x80 | recursion_desired;
    message[3] = 0x80 | code as u8;
    let count = u16::try_from(records.len()).expect("a name has few addresses");
    message[6..8].copy_from_slice(&count.to_be_bytes());
    message[8..12].fill(0);
    for record in records {
        let (kind, data) = match record {
            Record::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
            Record::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
            Record::Name(name) => (PTR, labels(name)),
        };
        // The name is that of the question, which begins after the header.
        message.extend_from_slice(&[0xc0, 12]);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&IN.to_be_bytes());
        message.extend_from_slice(&TTL.to_be_bytes());
        let length = u16::try_from(data.len()).expect("names are at most 255 bytes");
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(&data);
    }
    message
}

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        bytes.push(u8::try_from(label.len()).expect("cut to 63"));
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes
}

/// The address whose name a question of type [`PTR`] asks for.
pub fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut parts = digits.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = parts.next()?.parse().ok()?;
        }
        return parts.next().is_none().then(|| IpAddr::from(octets));
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let mut nibbles = digits.split('.').rev();
    let mut octets = [0; 16];
    for octet in &mut octets {
        let mut nibble = || u8::from_str_radix(nibbles.next()?, 16).ok();
        let (high, low) = (nibble()?, nibble()?);
        *octet = high.checked_mul(16)?.checked_add(low)?;
    }
    Some(IpAddr::from(octets))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A query for one name.
    pub fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(labels(name));
        message.extend(kind.to_be_bytes());
        message.extend(IN.to_be_bytes());
        message
    }

    #[test]
    fn an_answer_repeats_the_question_and_lists_the_addresses() {
        let query = query("Web.Front", A);
        let question = Question::parse(&query).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("web.front", A));
        let records = [Record::Address("10.0.0.2".parse().unwrap())];
        let got = answer(&query, &question, Code::NoError, &records);
        assert_eq!(&got[..8], [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(&got[12..query.len()], &query[12..]);
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 10, 0, 0, 2];
        assert_eq!(&got[query.len()..], record);
    }

    #[test]
    fn messages_that_are_no_plain_query_are_left_to_others() {
        let good = query("web", A);
        for length in 0..good.len() {
            assert_eq!(Question::parse(&good[..length]), None, "{length}");
        }
        let mut response = good.clone();
        response[2] |= 0x80;
        assert_eq!(Question::parse(&response), None);
        let mut pointer = good;
        pointer[12] = 0xc0;
        assert_eq!(Question::parse(&pointer), None);
    }

    #[test]
    fn reverse_names_give_their_address() {
        let address = |name: &str| reverse(name).map(|address| address.to_string());
        assert_eq!(address("2.0.17.172.in-addr.arpa").unwrap(), "172.17.0.2");
        let zeros = "0.".repeat(23);
        let name = format!("1.{zeros}0.0.0.0.0.0.d.f.ip6.arpa");
        assert_eq!(address(&name).unwrap(), "fd00::1");
        for name in [
            "in-addr.arpa",
            "1.2.3.in-addr.arpa",
            "web",
            "x.ip6.arpa",
            "ff.ip6.arpa",
        ] {
            assert_eq!(address(name), None, "{name}");
        }
    }
}
