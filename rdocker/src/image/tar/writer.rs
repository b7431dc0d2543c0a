//! Writing archives: ustar headers, with PAX records where a field is too small.
//!
//! The same members give the same bytes, on every machine and at every time.

use std::io::{self, Read, Write};

use super::pax::{push_record, xattr_key};
use super::{BLOCK, Entry, Kind};

/// The largest number of an eight-byte octal field: seven digits and a NUL.
const OCTAL_7: u64 = 0o7_777_777;
/// The largest number of a twelve-byte octal field: eleven digits and a NUL.
const OCTAL_11: u64 = 0o77_777_777_777;

/// Writes an archive to a stream.
pub struct Writer<W> {
    stream: W,
}

impl<W: Write> Writer<W> {
    /// Writes from the start of an archive.
    pub fn new(stream: W) -> Writer<W> {
        Writer { stream }
    }

    /// Adds a member, whose `size` bytes come from `data`.
    ///
    /// # Errors
    /// `UnexpectedEof` if `data` has fewer bytes than announced: a file shrank while it was read.
    pub fn add(&mut self, entry: &Entry, data: impl Read) -> io::Result<()> {
        let records = pax_records(entry);
        if !records.is_empty() {
            let mut extension = Entry::new(&b"PaxHeaders/0"[..], Kind::File);
            extension.size = records.len() as u64;
            self.stream.write_all(&header(&extension, b'x'))?;
            self.stream.write_all(&records)?;
            self.pad(extension.size)?;
        }
        self.stream.write_all(&header(entry, flag(entry.kind)))?;
        if entry.kind != Kind::File {
            return Ok(());
        }
        let written = io::copy(&mut data.take(entry.size), &mut self.stream)?;
        if written != entry.size {
            let why = format!("{:?} became shorter while it was read", entry.display());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        self.pad(entry.size)
    }

    /// Adds a regular file with these bytes.
    pub fn add_bytes(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let mut entry = Entry::new(path, Kind::File);
        entry.size = bytes.len() as u64;
        self.add(&entry, bytes)
    }

    /// Ends the archive with two empty blocks.
    pub fn finish(mut self) -> io::Result<W> {
        self.stream.write_all(&[0; 2 * BLOCK])?;
        self.stream.flush()?;
        Ok(self.stream)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = usize::try_from(size % BLOCK as u64).expect("less than a block");
        if rest == 0 {
            return Ok(());
        }
        self.stream.write_all(&[0; BLOCK][rest..])
    }
}

fn flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::Hardlink => b'1',
        Kind::Symlink => b'2',
        Kind::Char => b'3',
        Kind::Block => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

/// The records for whatever a ustar header cannot hold.
fn pax_records(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    if entry.path.len() > 100 {
        push_record(&mut records, b"path", &entry.path);
    }
    if entry.link.len() > 100 {
        push_record(&mut records, b"linkpath", &entry.link);
    }
    let mut push_number = |key: &[u8], number: u64, max: u64| {
        if number > max {
            push_record(&mut records, key, number.to_string().as_bytes());
        }
    };
    push_number(b"size", entry.size, OCTAL_11);
    push_number(b"uid", entry.uid.into(), OCTAL_7);
    push_number(b"gid", entry.gid.into(), OCTAL_7);
    let (seconds, _) = entry.mtime;
    if u64::try_from(seconds).is_ok_and(|seconds| seconds <= OCTAL_11) {
        // Whole seconds, as Docker writes layers.
    } else {
        push_record(&mut records, b"mtime", seconds.to_string().as_bytes());
    }
    for (name, value) in &entry.xattrs {
        push_record(&mut records, &xattr_key(name), value);
    }
    records
}

fn header(entry: &Entry, flag: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut text = |at: usize, room: usize, bytes: &[u8]| {
        let n = bytes.len().min(room);
        block[at..at + n].copy_from_slice(&bytes[..n]);
    };
    let seven = |number: u64| format!("{:07o}", if number > OCTAL_7 { 0 } else { number });
    let eleven = |number: u64| format!("{:011o}", if number > OCTAL_11 { 0 } else { number });
    text(0, 100, &entry.path);
    text(100, 8, seven(entry.mode.into()).as_bytes());
    text(108, 8, seven(entry.uid.into()).as_bytes());
    text(116, 8, seven(entry.gid.into()).as_bytes());
    text(124, 12, eleven(entry.size).as_bytes());
    text(
        136,
        12,
        eleven(u64::try_from(entry.mtime.0).unwrap_or(0)).as_bytes(),
    );
    text(148, 8, b"        ");
    text(156, 1, &[flag]);
    text(157, 100, &entry.link);
    text(257, 8, b"ustar\x0000");
    text(329, 8, seven(entry.device.0.into()).as_bytes());
    text(337, 8, seven(entry.device.1.into()).as_bytes());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    block[148..156].copy_from_slice(sum.as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::super::Reader;
    use super::*;

    fn read_back(bytes: &[u8]) -> Vec<(Entry, Vec<u8>)> {
        let mut reader = Reader::new(bytes);
        let mut all = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            let mut data = Vec::new();
            reader.read_to_end(&mut data).unwrap();
            all.push((entry, data));
        }
        all
    }

    #[test]
    fn every_member_is_read_back_as_it_was_written() {
        let mut long = Entry::new("d/".repeat(100) + "file", Kind::File);
        (long.size, long.mode, long.mtime) = (3, 0o4755, (-5, 0));
        (long.uid, long.gid) = (3_000_000, 4_294_967_294);
        long.xattrs = vec![(b"user.a".to_vec(), b"\0=\n".to_vec())];
        let mut link = Entry::new("l", Kind::Symlink);
        link.link = "t".repeat(200).into_bytes();
        let mut device = Entry::new("null", Kind::Char);
        device.device = (1, 3);
        let mut raw = Entry::new(&b"\xff\xfe"[..], Kind::Directory);
        raw.mode = 0o1777;
        let mut writer = Writer::new(Vec::new());
        for entry in [&long, &link, &device, &raw] {
            writer.add(entry, &b"abcdef"[..]).unwrap();
        }
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let back = read_back(&bytes);
        assert_eq!(back[0], (long, b"abc".to_vec()));
        assert_eq!(back[1], (link, Vec::new()));
        assert_eq!(back[2].0, device);
        assert_eq!(back[3].0, raw);
    }

    #[test]
    fn a_file_that_shrank_is_an_error() {
        let mut entry = Entry::new("f", Kind::File);
        entry.size = 4;
        let error = Writer::new(Vec::new())
            .add(&entry, &b"abc"[..])
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_cut_or_damaged_archive_is_refused() {
        let mut writer = Writer::new(Vec::new());
        writer.add_bytes("f", &[7; 1000]).unwrap();
        let whole = writer.finish().unwrap();
        let fails = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            loop {
                match reader.next_entry() {
                    Ok(None) => return false,
                    Ok(Some(_)) => {}
                    Err(_) => return true,
                }
            }
        };
        assert!(!fails(&whole), "control");
        assert!(!fails(&whole[..1536]), "the end mark may be missing");
        for cut in [1, 511, 513, 1000, 1535] {
            assert!(fails(&whole[..cut]), "cut at {cut}");
        }
        let mut damaged = whole.clone();
        damaged[0] ^= 1;
        assert!(fails(&damaged), "checksum");
    }

    #[test]
    fn names_in_two_dialects_are_refused() {
        let mut bytes = Vec::new();
        let mut gnu = Entry::new("././@LongLink", Kind::File);
        gnu.size = 2;
        bytes.extend_from_slice(&header(&gnu, b'L'));
        bytes.extend_from_slice(b"a\0");
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let mut member = Writer::new(Vec::new());
        member
            .add(&Entry::new("b".repeat(101), Kind::Directory), io::empty())
            .unwrap();
        bytes.extend_from_slice(&member.finish().unwrap());
        let error = Reader::new(&bytes[..])
            .next_entry()
            .unwrap_err()
            .to_string();
        assert!(error.contains("GNU and PAX"), "{error}");
    }
}
