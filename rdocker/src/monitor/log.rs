//! The json-file log: one JSON object per line, rotated by size.
//!
//! Container bytes are escaped, so no output can forge an entry; lines are cut at 16 KiB, and a
//! piece that does not end its line has no newline in `log`. Format and cut are Docker's
//! (moby daemon/logger/jsonfilelog and daemon/logger/copier.go).

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::container::api::LogConfig;
use crate::container::parse::value;
use crate::error::{Error, Result};

/// The longest piece of a line, in bytes.
pub const PIECE: usize = 16 << 10;
/// Size at which a log is rotated unless options say otherwise. Docker's default is no bound;
/// full disks taught otherwise (moby#27957).
const MAX_SIZE: u64 = 20 << 20;
/// Files kept, the one being written included.
const MAX_FILE: u32 = 3;

/// When a log is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes of one file.
    pub max_size: u64,
    /// Number of files.
    pub max_file: u32,
}

impl Rotation {
    /// Reads `max-size` and `max-file`; `max-size=-1` means no rotation.
    ///
    /// # Errors
    /// An option that json-file does not have, or a value that does not parse.
    pub fn from_options(config: &LogConfig) -> Result<Self> {
        let mut rotation = Self {
            max_size: MAX_SIZE,
            max_file: MAX_FILE,
        };
        for (key, text) in &config.options {
            let wrong = || Error::Invalid(format!("invalid value for log opt '{key}': {text}"));
            match key.as_str() {
                "max-size" if text == "-1" => rotation.max_size = u64::MAX,
                "max-size" => {
                    let bytes = value::bytes(text).map_err(|_| wrong())?;
                    rotation.max_size = u64::try_from(bytes).map_err(|_| wrong())?.max(1);
                }
                "max-file" => {
                    rotation.max_file = text
                        .parse()
                        .ok()
                        .filter(|count| *count > 0)
                        .ok_or_else(wrong)?;
                }
                "compress" | "labels" | "labels-regex" | "env" | "env-regex" | "tag" | "mode"
                | "max-buffer-size" => {}
                _ => {
                    return Err(Error::Invalid(format!(
                        "unknown log opt '{key}' for json-file log driver"
                    )));
                }
            }
        }
        Ok(rotation)
    }
}

/// An open log.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    rotation: Rotation,
    line: String,
}

impl LogFile {
    /// Opens the log for appending.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let file = append(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            rotation,
            line: String::new(),
        })
    }

    /// Writes one entry; `stream` is `stdout` or `stderr`.
    pub fn write(&mut self, stream: &str, bytes: &[u8], now: Timestamp) -> io::Result<()> {
        self.line.clear();
        self.line.push_str("{\"log\":\"");
        escape(bytes, &mut self.line);
        // Writing to a String cannot fail.
        let _ = writeln!(
            self.line,
            "\",\"stream\":\"{stream}\",\"time\":\"{now:.9}\"}}"
        );
        if self.size > 0 && self.size + self.line.len() as u64 > self.rotation.max_size {
            self.rotate()?;
        }
        self.file.write_all(self.line.as_bytes())?;
        self.size += self.line.len() as u64;
        Ok(())
    }

    /// `log` becomes `log.1`, `log.1` becomes `log.2`, and the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |n: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        let kept = self.rotation.max_file - 1;
        if kept == 0 {
            self.file.set_len(0)?;
        } else {
            for n in (1..kept).rev() {
                ignore_missing(fs::rename(numbered(n), numbered(n + 1)))?;
            }
            fs::rename(&self.path, numbered(1))?;
            self.file = append(&self.path)?;
        }
        self.size = 0;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// JSON's escapes; bytes that are not UTF-8 become U+FFFD, as in Go's encoder.
fn escape(bytes: &[u8], out: &mut String) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c < ' ' || matches!(c, '\u{2028}' | '\u{2029}' | '\u{7f}') => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        if !chunk.invalid().is_empty() {
            out.push('\u{fffd}');
        }
    }
}

/// Cuts a stream into log entries: whole lines, or pieces of [`PIECE`] bytes.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Takes more bytes and hands every entry that is complete now to `emit`.
    pub fn feed(&mut self, mut bytes: &[u8], emit: &mut impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = PIECE - self.pending.len();
            let window = &bytes[..bytes.len().min(room)];
            let (length, complete) = match window.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (window.len(), window.len() == room),
            };
            let (piece, rest) = bytes.split_at(length);
            bytes = rest;
            if complete && self.pending.is_empty() {
                emit(piece);
                continue;
            }
            self.pending.extend_from_slice(piece);
            if complete {
                emit(&self.pending);
                self.pending.clear();
            }
        }
    }

    /// The stream has ended: hands out what is left.
    pub fn finish(&mut self, emit: &mut impl FnMut(&[u8])) {
        if !self.pending.is_empty() {
            emit(&self.pending);
            self.pending = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(max_size: u64, max_file: u32) -> Rotation {
        Rotation { max_size, max_file }
    }

    #[test]
    fn hostile_output_stays_one_entry_per_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogFile::open(&path, rotation(1 << 20, 2)).unwrap();
        let hostile: &[&[u8]] = &[
            b"a\r\n{\"log\":\"x\"}\n",
            b"\xff\xfe \"q\" \\ \x1b[31m\x00\n",
            "é\u{2028}\n".as_bytes(),
        ];
        for bytes in hostile {
            log.write("stdout", bytes, Timestamp::now()).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), hostile.len());
        for (line, bytes) in text.lines().zip(hostile) {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let want = String::from_utf8_lossy(bytes);
            assert_eq!(value["log"].as_str().unwrap(), want);
            assert!(value["time"].as_str().unwrap().ends_with('Z'));
        }
    }

    #[test]
    fn a_log_is_rotated_and_the_oldest_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogFile::open(&path, rotation(200, 3)).unwrap();
        for n in 0..20 {
            log.write("stdout", format!("{n}\n").as_bytes(), Timestamp::now())
                .unwrap();
        }
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        for name in names {
            assert!(
                fs::metadata(dir.path().join(&name)).unwrap().len() <= 200,
                "{name}"
            );
        }
    }

    #[test]
    fn lines_are_cut_at_16_kib_wherever_the_reads_end() {
        let long = vec![b'x'; PIECE + 10];
        let mut input = b"one\n".to_vec();
        input.extend_from_slice(&long);
        input.extend_from_slice(b"\ntail");
        for step in [1, 7, 4096, input.len()] {
            let (mut lines, mut sizes) = (Lines::default(), Vec::new());
            for chunk in input.chunks(step) {
                lines.feed(chunk, &mut |piece: &[u8]| sizes.push(piece.len()));
            }
            lines.finish(&mut |piece: &[u8]| sizes.push(piece.len()));
            assert_eq!(sizes, [4, PIECE, 11, 4], "step {step}");
        }
    }

    #[test]
    fn rotation_options_are_checked() {
        let config = |key: &str, value: &str| LogConfig {
            kind: "json-file".to_owned(),
            options: [(key.to_owned(), value.to_owned())].into(),
        };
        assert_eq!(
            Rotation::from_options(&LogConfig::default()).unwrap(),
            rotation(20 << 20, 3)
        );
        let small = Rotation::from_options(&config("max-size", "10k")).unwrap();
        assert_eq!(small.max_size, 10 << 10);
        for (key, value) in [("max-size", "x"), ("max-file", "0"), ("what", "1")] {
            assert!(
                Rotation::from_options(&config(key, value)).is_err(),
                "{key}={value}"
            );
        }
    }
}
