//! Member by member through an archive.

use std::io::{self, Read};

use super::pax::{PAX_MAX, Records, check_global};
use super::{BLOCK, Entry, Error, Kind, PATH_MAX, Result, number};

/// The most members of one archive.
const ENTRIES_MAX: u64 = 5_000_000;

/// Reads an archive from a stream.
pub struct Reader<R> {
    stream: R,
    /// Bytes of the current member that were not read yet, and its padding.
    left: u64,
    padding: u64,
    entries: u64,
    ended: bool,
}

/// Names from GNU's `L` and `K` members, and records from an `x` header, for the next member.
#[derive(Default)]
struct Pending {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    records: Option<Records>,
}

impl<R: Read> Reader<R> {
    /// Reads from the start of `stream`.
    pub fn new(stream: R) -> Reader<R> {
        Reader {
            stream,
            left: 0,
            padding: 0,
            entries: 0,
            ended: false,
        }
    }

    /// The next member; what was not read of the last one's bytes is skipped.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::Member`] if a rule is broken; [`Error::Stream`] if the
    /// stream fails or ends within a member.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip()?;
        let mut pending = Pending::default();
        while !self.ended {
            let Some(header) = self.header()? else {
                self.ended = true;
                break;
            };
            let size = number::unsigned(&header[124..136], "size")?;
            match header[156] {
                b'x' => {
                    let records = Records::parse(&self.extension(size)?)?;
                    if pending.records.replace(records).is_some() {
                        return Err(Error::invalid("two extended headers for one member"));
                    }
                }
                b'g' => check_global(&self.extension(size)?)?,
                b'L' => once(&mut pending.long_path, self.long_name(size)?)?,
                b'K' => once(&mut pending.long_link, self.long_name(size)?)?,
                flag => return self.member(&header, flag, size, pending).map(Some),
            }
        }
        if pending.records.is_some() || pending.long_path.is_some() || pending.long_link.is_some() {
            return Err(Error::invalid("it ends after an extended header"));
        }
        Ok(None)
    }

    /// Reads to the very end, so that a hash around the stream covers every byte.
    pub fn drain(mut self) -> Result<R> {
        io::copy(&mut self.stream, &mut io::sink()).map_err(Error::Stream)?;
        Ok(self.stream)
    }

    fn skip(&mut self) -> Result<()> {
        let rest = self.left + self.padding;
        let skipped =
            io::copy(&mut (&mut self.stream).take(rest), &mut io::sink()).map_err(Error::Stream)?;
        if skipped != rest {
            return Err(truncated());
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// The next header that is not empty; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        if !self.fill(&mut block)? || block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(Error::invalid(format!(
                "it has more than {ENTRIES_MAX} members"
            )));
        }
        check_sum(&block)?;
        Ok(Some(block))
    }

    /// Fills a block; `false` if the stream ended before its first byte.
    fn fill(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut have = 0;
        while have < BLOCK {
            match self.stream.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(false),
                Ok(0) => return Err(truncated()),
                Ok(n) => have += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Stream(error)),
            }
        }
        Ok(true)
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > PAX_MAX {
            return Err(Error::invalid("an extended header is larger than 1 MiB"));
        }
        (self.left, self.padding) = (size, padding(size));
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(Error::Stream)?;
        self.skip()?;
        Ok(bytes)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>> {
        let bytes = self.extension(size)?;
        let name = until_nul(&bytes);
        if name.len() > PATH_MAX {
            return Err(Error::invalid("a long name has more than 4096 bytes"));
        }
        Ok(name.to_owned())
    }

    fn member(
        &mut self,
        header: &[u8; BLOCK],
        flag: u8,
        size: u64,
        pending: Pending,
    ) -> Result<Entry> {
        let mut entry = parse_header(header)?;
        let gnu_names = pending.long_path.is_some() || pending.long_link.is_some();
        if let Some(path) = pending.long_path {
            entry.path = path;
        }
        if let Some(link) = pending.long_link {
            entry.link = link;
        }
        entry.size = size;
        if let Some(records) = pending.records {
            if gnu_names && records.names() {
                return Err(Error::member(&entry, "it has both GNU and PAX long names"));
            }
            // POSIX: the record beats the field, which cannot hold more than 8 GiB.
            entry.size = records.size.unwrap_or(size);
            records.apply(&mut entry);
        }
        entry.kind = kind(flag, &entry)?;
        if entry.kind != Kind::File {
            // As Docker's reader has it: only regular files have bytes, whatever the field says.
            entry.size = 0;
        }
        (self.left, self.padding) = (entry.size, padding(entry.size));
        Ok(entry)
    }
}

/// The bytes of the current member.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.stream.read(&mut buf[..most])?;
        if n == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive is cut off",
            ));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

fn truncated() -> Error {
    Error::Stream(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the archive is cut off",
    ))
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Error::invalid("two long names for one member")),
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())]
}

/// The sum of all bytes with the sum's own field as spaces, by unsigned or (old) signed bytes.
fn check_sum(header: &[u8; BLOCK]) -> Result<()> {
    let want = number::signed(&header[148..156], "checksum")?;
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (at, byte) in header.iter().enumerate() {
        let byte = if (148..156).contains(&at) {
            b' '
        } else {
            *byte
        };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    if want == unsigned || want == signed {
        return Ok(());
    }
    Err(Error::invalid(
        "a header's checksum is wrong: it is no tar archive, or a damaged one",
    ))
}

/// An id that is no wildcard: chown(2) takes -1 for "leave it".
pub fn id(number: u64, what: &'static str) -> Result<u32> {
    match u32::try_from(number) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(Error::invalid(format!("{what} {number} is out of range"))),
    }
}

fn parse_header(header: &[u8; BLOCK]) -> Result<Entry> {
    let mut path = until_nul(&header[..100]).to_owned();
    let posix = &header[257..263] == b"ustar\0";
    let prefix = until_nul(&header[345..500]);
    if posix && !prefix.is_empty() {
        path = [prefix, b"/", &path].concat();
    }
    let device = |field: &[u8], what| -> Result<u32> {
        // Old archives leave the field unset, with any bytes in it; only devices have one.
        if !matches!(header[156], b'3' | b'4') {
            return Ok(0);
        }
        u32::try_from(number::unsigned(field, what)?)
            .map_err(|_| Error::invalid(format!("{what} is out of range")))
    };
    let mut entry = Entry::new(path, Kind::File);
    entry.mode = (number::unsigned(&header[100..108], "mode")? & 0o7777) as u32;
    entry.uid = id(number::unsigned(&header[108..116], "uid")?, "uid")?;
    entry.gid = id(number::unsigned(&header[116..124], "gid")?, "gid")?;
    entry.mtime = (number::signed(&header[136..148], "mtime")?, 0);
    entry.link = until_nul(&header[157..257]).to_owned();
    entry.device = (
        device(&header[329..337], "major")?,
        device(&header[337..345], "minor")?,
    );
    Ok(entry)
}

fn kind(flag: u8, entry: &Entry) -> Result<Kind> {
    let kind = match flag {
        b'0' | 0 | b'7' if entry.path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' => Kind::File,
        b'1' => Kind::Hardlink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Char,
        b'4' => Kind::Block,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        b'S' => {
            return Err(Error::member(
                entry,
                "it is sparse; make the archive without --sparse",
            ));
        }
        other => {
            let flag = char::from(other).escape_default();
            return Err(Error::member(entry, format!("unknown type '{flag}'")));
        }
    };
    if entry.path.len() > PATH_MAX {
        return Err(Error::member(entry, "its path has more than 4096 bytes"));
    }
    Ok(kind)
}
