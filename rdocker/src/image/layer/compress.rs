//! Compressed streams: found by their first bytes, decompressed in this process, within limits.

use std::io::{self, BufRead, BufReader, Read, Write};

const READ_BUFFER: usize = 128 << 10;
/// The largest zstd window, as a power of two: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;
/// The most memory that xz may take, in KiB: enough for `xz -9`.
const XZ_MEMORY_KIB: u32 = 256 << 10;
/// What a stream may grow to before its ratio counts, in bytes.
const FREE_OUTPUT: u64 = 64 << 20;
/// The largest ratio of output to input after that.
const RATIO_MAX: u64 = 1000;
/// The most bytes that one archive may have.
const OUTPUT_MAX: u64 = 64 << 30;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, one or more members (RFC 1952).
    Gzip,
    /// Zstandard, one or more frames (RFC 8878).
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

impl Compression {
    /// Tells a compression by the first bytes of a stream.
    pub fn of(start: &[u8]) -> Compression {
        // A skippable frame may come first in a zstd stream (RFC 8878, section 3.1.2).
        let skippable =
            start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18];
        match start {
            [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            _ if skippable => Compression::Zstd,
            [b'B', b'Z', b'h', ..] => Compression::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            _ => Compression::None,
        }
    }
}

/// Counts the bytes that go into the decompressor.
struct Counted<R> {
    inner: R,
    bytes: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.bytes
            .fetch_add(n as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(n)
    }
}

/// A decompressed stream that ends with an error when it grows beyond reason.
pub struct Decompressed<'a> {
    inner: Box<dyn Read + Send + 'a>,
    compression: Compression,
    input: std::sync::Arc<std::sync::atomic::AtomicU64>,
    output: u64,
}

impl Decompressed<'_> {
    /// What was found.
    pub fn compression(&self) -> Compression {
        self.compression
    }
}

impl Read for Decompressed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.output += n as u64;
        let input = self.input.load(std::sync::atomic::Ordering::Relaxed);
        let bomb = self.compression != Compression::None
            && self.output > FREE_OUTPUT
            && self.output / RATIO_MAX > input;
        if bomb {
            let why = format!("it expands more than {RATIO_MAX} times: refused as a bomb");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        if self.output > OUTPUT_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is larger than 64 GiB",
            ));
        }
        Ok(n)
    }
}

/// Decompresses a stream of any kind.
///
/// All of it happens in this process: no program is started, least of all one that an image
/// brought along (CVE-2026-41567).
pub fn decompress<'a>(stream: impl Read + Send + 'a) -> io::Result<Decompressed<'a>> {
    let input = std::sync::Arc::default();
    let counted = Counted {
        inner: stream,
        bytes: std::sync::Arc::clone(&input),
    };
    let mut stream = BufReader::with_capacity(READ_BUFFER, counted);
    // A stream of a few bytes may arrive byte by byte; an empty one stays empty.
    let compression = Compression::of(stream.fill_buf()?);
    let inner: Box<dyn Read + Send + 'a> = match compression {
        Compression::None => Box::new(stream),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(stream)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(stream)),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
            stream,
            true,
            XZ_MEMORY_KIB,
        )),
    };
    Ok(Decompressed {
        inner,
        compression,
        input,
        output: 0,
    })
}

/// Compresses a stream with gzip at the given level, without name or time: the same bytes always.
pub fn gzip<W: Write>(stream: W, level: u32) -> flate2::write::GzEncoder<W> {
    flate2::write::GzEncoder::new(stream, flate2::Compression::new(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(bytes: &[u8]) -> io::Result<(Compression, Vec<u8>)> {
        let mut stream = decompress(bytes)?;
        let mut out = Vec::new();
        stream.read_to_end(&mut out)?;
        Ok((stream.compression(), out))
    }

    #[test]
    fn every_compression_is_found_by_its_first_bytes() {
        let text = b"hello hello hello".to_vec();
        let mut gz = gzip(Vec::new(), 6);
        gz.write_all(&text).unwrap();
        let gz = gz.finish().unwrap();
        let zst = zstd::encode_all(&text[..], 3).unwrap();
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz.write_all(&text).unwrap();
        let bz = bz.finish().unwrap();
        for (name, bytes, want) in [
            ("none", text.clone(), Compression::None),
            ("gzip", gz.clone(), Compression::Gzip),
            ("zstd", zst, Compression::Zstd),
            ("bzip2", bz, Compression::Bzip2),
        ] {
            assert_eq!(round(&bytes).unwrap(), (want, text.clone()), "{name}");
        }
        let twice = [gz.clone(), gz].concat();
        assert_eq!(
            round(&twice).unwrap().1,
            [text.clone(), text].concat(),
            "two members"
        );
        assert_eq!(round(b"").unwrap(), (Compression::None, Vec::new()));
    }

    #[test]
    fn a_bomb_ends_within_its_budget() {
        let bomb = zstd::encode_all(io::repeat(0).take(200 << 20), 3).unwrap();
        let mut stream = decompress(&bomb[..]).unwrap();
        let mut sink = Vec::with_capacity(1 << 16);
        let mut out = 0u64;
        let error = loop {
            sink.clear();
            match (&mut stream).take(1 << 16).read_to_end(&mut sink) {
                Ok(0) => panic!("the bomb went off"),
                Ok(n) => out += n as u64,
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("bomb"), "{error}");
        assert!(out <= FREE_OUTPUT + (1 << 20));
    }

    #[test]
    fn a_zstd_window_beyond_the_limit_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(&[1; 1 << 16]).unwrap();
        let bytes = encoder.finish().unwrap();
        let large = round(&bytes);
        assert!(large.is_err(), "a window of 256 MiB");
    }
}
