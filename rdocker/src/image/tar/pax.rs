//! PAX extended headers: records of `LENGTH KEY=VALUE\n` before a member.

use super::{Entry, Error, PATH_MAX, Result};

/// The largest extended header, in bytes.
pub const PAX_MAX: u64 = 1 << 20;
/// The largest value of one extended attribute, in bytes (XATTR_SIZE_MAX).
const XATTR_MAX: usize = 64 << 10;
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What the records say about the member that follows.
#[derive(Debug, Default)]
pub struct Records {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    /// Bytes of the member; beats the header's field.
    pub size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Records {
    /// Parses the bytes of an `x` header.
    ///
    /// # Errors
    /// A malformed record, a key that appears twice, a NUL in a path, a sparse file.
    pub fn parse(mut bytes: &[u8]) -> Result<Records> {
        let mut records = Records::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes)?;
            if seen.contains(&key) {
                let key = String::from_utf8_lossy(key);
                return Err(Error::invalid(format!(
                    "extended record {key:?} appears twice"
                )));
            }
            seen.push(key);
            records.set(key, value)?;
            bytes = rest;
        }
        Ok(records)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.starts_with(b"GNU.sparse.") {
            return Err(Error::invalid(
                "it has a sparse file; make the archive without --sparse",
            ));
        }
        if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
            if value.len() > XATTR_MAX || name.is_empty() || name.contains(&0) {
                return Err(Error::invalid(
                    "an extended attribute is too long or has no name",
                ));
            }
            self.xattrs.push((name.to_owned(), value.to_owned()));
            return Ok(());
        }
        // An empty value takes the record back, which says nothing here.
        if value.is_empty() {
            return Ok(());
        }
        match key {
            b"path" => self.path = Some(path(value)?),
            b"linkpath" => self.link = Some(path(value)?),
            b"size" => self.size = Some(decimal(value, "size")?),
            b"uid" => self.uid = Some(id(value, "uid")?),
            b"gid" => self.gid = Some(id(value, "gid")?),
            b"mtime" => self.mtime = Some(time(value)?),
            _ => {}
        }
        Ok(())
    }

    /// Whether a record names the member or its target, as GNU's long names also do.
    pub fn names(&self) -> bool {
        self.path.is_some() || self.link.is_some()
    }

    /// Puts what the records say over what the header said.
    pub fn apply(self, entry: &mut Entry) {
        if let Some(path) = self.path {
            entry.path = path;
        }
        if let Some(link) = self.link {
            entry.link = link;
        }
        entry.uid = self.uid.unwrap_or(entry.uid);
        entry.gid = self.gid.unwrap_or(entry.gid);
        entry.mtime = self.mtime.unwrap_or(entry.mtime);
        entry.xattrs = self.xattrs;
    }
}

/// Checks a global (`g`) header: one that would change members is refused, others say nothing.
///
/// Docker ignores global headers and GNU tar obeys them, so such an archive means two things.
pub fn check_global(mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let (key, _, rest) = record(bytes)?;
        if matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid")
            || key.starts_with(b"GNU.sparse.")
            || key.starts_with(XATTR_PREFIX)
        {
            let key = String::from_utf8_lossy(key);
            return Err(Error::invalid(format!(
                "a global header sets {key:?} of all members"
            )));
        }
        bytes = rest;
    }
    Ok(())
}

/// Splits the first record into key, value and what follows.
fn record(bytes: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let malformed = || Error::invalid("an extended record is malformed");
    let space = bytes
        .iter()
        .take(8)
        .position(|b| *b == b' ')
        .ok_or_else(malformed)?;
    let length =
        usize::try_from(decimal(&bytes[..space], "record length")?).map_err(|_| malformed())?;
    if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
        return Err(malformed());
    }
    let body = &bytes[space + 1..length - 1];
    let equals = body.iter().position(|b| *b == b'=').ok_or_else(malformed)?;
    if equals == 0 {
        return Err(malformed());
    }
    Ok((&body[..equals], &body[equals + 1..], &bytes[length..]))
}

fn path(value: &[u8]) -> Result<Vec<u8>> {
    if value.contains(&0) || value.len() > PATH_MAX {
        return Err(Error::invalid(
            "an extended path has a NUL or more than 4096 bytes",
        ));
    }
    Ok(value.to_owned())
}

/// Digits only: no sign, no space, no point.
fn decimal(value: &[u8], what: &'static str) -> Result<u64> {
    let malformed = || Error::invalid(format!("extended {what} is not a number of 63 bits"));
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    let text = std::str::from_utf8(value).expect("digits are UTF-8");
    let number: u64 = text.parse().map_err(|_| malformed())?;
    if number > i64::MAX.cast_unsigned() {
        Err(malformed())
    } else {
        Ok(number)
    }
}

fn id(value: &[u8], what: &'static str) -> Result<u32> {
    super::reader::id(decimal(value, what)?, what)
}

/// Seconds with an optional sign and fraction; digits after the ninth are dropped.
fn time(value: &[u8]) -> Result<(i64, u32)> {
    let malformed = || Error::invalid("extended mtime is not a time");
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = digits.splitn(2, |b| *b == b'.');
    let seconds = decimal(parts.next().unwrap_or_default(), "mtime")?.cast_signed();
    let mut nanos = 0u32;
    if let Some(fraction) = parts.next() {
        if !fraction.iter().all(u8::is_ascii_digit) {
            return Err(malformed());
        }
        let digit = |place: usize| {
            fraction
                .get(place)
                .map_or(0, |digit| u32::from(digit - b'0'))
        };
        nanos = (0..9).fold(0, |nanos, place| nanos * 10 + digit(place));
    }
    match (negative, nanos) {
        (false, _) => Ok((seconds, nanos)),
        (true, 0) => Ok((-seconds, 0)),
        (true, _) => Ok((-seconds - 1, 1_000_000_000 - nanos)),
    }
}

/// Appends one record; its length counts its own digits.
pub fn push_record(bytes: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    bytes.extend_from_slice(length.to_string().as_bytes());
    bytes.push(b' ');
    bytes.extend_from_slice(key);
    bytes.push(b'=');
    bytes.extend_from_slice(value);
    bytes.push(b'\n');
}

/// The key of an extended attribute's record.
pub fn xattr_key(name: &[u8]) -> Vec<u8> {
    [XATTR_PREFIX, name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_taken_only_when_exact() {
        let cases: &[(&str, &[u8], bool)] = &[
            ("size", b"11 size=12\n", true),
            ("empty", b"", true),
            ("unknown key", b"9 a.b=cd\n", true),
            ("value with = and newline", b"11 path=a=\n\n", false),
            ("length too short", b"10 size=12\n", false),
            ("length too long", b"12 size=12\n", false),
            ("no newline", b"11 size=12 ", false),
            ("no equals", b"10 size12\n", false),
            ("no key", b"6 =12\n", false),
            ("sign", b"12 size=+12\n", false),
            ("negative", b"12 size=-12\n", false),
            ("point", b"13 size=12.0\n", false),
            ("64 bits", b"28 size=18446744073709551615\n", false),
            ("twice", b"11 size=12\n11 size=12\n", false),
            ("huge id", b"18 uid=4294967295\n", false),
            ("sparse", b"22 GNU.sparse.major=1\n", false),
            ("NUL in path", b"12 path=a\0b\n", false),
        ];
        for (name, bytes, valid) in cases {
            assert_eq!(Records::parse(bytes).is_ok(), *valid, "{name}");
        }
    }

    #[test]
    fn times_have_signs_and_fractions() {
        type Case = (&'static [u8], Option<(i64, u32)>);
        let cases: &[Case] = &[
            (b"1", Some((1, 0))),
            (b"1.5", Some((1, 500_000_000))),
            (b"-1.25", Some((-2, 750_000_000))),
            (b"1.0000000019", Some((1, 1))),
            (b"1.x", None),
            (b"", None),
        ];
        for (text, want) in cases {
            assert_eq!(time(text).ok(), *want, "{text:?}");
        }
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for size in [1, 80, 90, 91, 92, 93, 94, 95, 96, 97, 980, 990, 9990] {
            let mut bytes = Vec::new();
            push_record(&mut bytes, b"path", "x".repeat(size).as_bytes());
            let (key, value, rest) = record(&bytes).unwrap();
            assert_eq!((key, value.len(), rest), (&b"path"[..], size, &b""[..]));
        }
    }

    #[test]
    fn a_global_header_that_changes_members_is_refused() {
        assert!(
            check_global(b"14 comment=abc\n").is_err(),
            "control: wrong length"
        );
        assert!(check_global(b"15 comment=abc\n").is_ok());
        assert!(check_global(b"10 path=/x\n").is_err());
    }
}
