//! Content digests: the exact parser, a running hash, and a reader that hashes as it goes.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

/// The digest algorithms a registry may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, 64 hexadecimal digits.
    Sha256,
    /// SHA-512, 128 hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// A digest such as `sha256:…`: algorithm and lower-case hexadecimal, nothing else.
///
/// The hexadecimal part becomes a file name in the store, so the parser is exact: no other
/// algorithm, no upper case, no separator, no other length (CVE-2014-9358, CVE-2024-3727).
///
/// Source: image-spec, descriptor.md "Digests".
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

/// Text that is not a digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "invalid digest {text:?}: want sha256: and 64, or sha512: and 128, lower-case hexadecimal digits"
)]
pub struct InvalidDigest {
    text: String,
}

impl Digest {
    /// The digest of `bytes` by SHA-256.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm before the colon.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hexadecimal digits after the colon.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first twelve hexadecimal digits, as Docker shows ids.
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Digest, InvalidDigest> {
        let invalid = || InvalidDigest {
            text: text.chars().take(160).collect(),
        };
        let (name, hex) = text.split_once(':').ok_or_else(invalid)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(invalid()),
        };
        let is_hex = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != algorithm.hex_len() || !is_hex {
            return Err(invalid());
        }
        Ok(Digest {
            algorithm,
            hex: hex.into(),
        })
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A hash in progress.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// Starts an empty hash.
    pub fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Box::default()),
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hash) => hash.update(bytes),
            Hasher::Sha512(hash) => hash.update(bytes),
        }
    }

    /// Ends the hash.
    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hash) => Digest {
                algorithm: Algorithm::Sha256,
                hex: hex(&hash.finalize()).into(),
            },
            Hasher::Sha512(hash) => Digest {
                algorithm: Algorithm::Sha512,
                hex: hex(&hash.finalize()).into(),
            },
        }
    }
}

/// Bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Hashes and counts what passes through a reader or a writer.
pub struct Hashed<T> {
    inner: T,
    hasher: Hasher,
    bytes: u64,
}

impl<T> Hashed<T> {
    /// Wraps `inner` with an empty hash.
    pub fn new(inner: T, algorithm: Algorithm) -> Hashed<T> {
        Hashed {
            inner,
            hasher: Hasher::new(algorithm),
            bytes: 0,
        }
    }

    /// How many bytes passed so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest and the number of all bytes that passed, and what was wrapped.
    pub fn finish(self) -> (T, Digest, u64) {
        (self.inner, self.hasher.finish(), self.bytes)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_digests_are_accepted() {
        let hex64 = "a".repeat(64);
        let cases = [
            ("sha256", format!("sha256:{hex64}"), true),
            ("sha512", format!("sha512:{}", "0".repeat(128)), true),
            (
                "one digit short",
                format!("sha256:{}", "a".repeat(63)),
                false,
            ),
            (
                "one digit long",
                format!("sha256:{}", "a".repeat(65)),
                false,
            ),
            ("upper case", format!("sha256:{}", "A".repeat(64)), false),
            ("path", "sha256:../../../../etc/passwd".to_owned(), false),
            (
                "path of the right length",
                format!("sha256:../{}", "a".repeat(61)),
                false,
            ),
            ("unknown algorithm", format!("md5:{hex64}"), false),
            ("sha512 with 64", format!("sha512:{hex64}"), false),
            ("no colon", hex64.clone(), false),
            ("two colons", format!("sha256:sha256:{hex64}"), false),
            ("trailing newline", format!("sha256:{hex64}\n"), false),
            ("multi-byte", format!("sha256:{}é", "a".repeat(62)), false),
            ("empty", String::new(), false),
        ];
        for (name, text, valid) in cases {
            assert_eq!(text.parse::<Digest>().is_ok(), valid, "{name}");
        }
    }

    #[test]
    fn a_digest_is_the_hash_of_the_bytes_that_passed() {
        let mut reader = Hashed::new(&b"abc"[..], Algorithm::Sha256);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        let (_, digest, bytes) = reader.finish();
        assert_eq!(
            digest.to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(bytes, 3);
        assert_eq!(digest, Digest::of(b"abc"));
    }
}
