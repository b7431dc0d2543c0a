//! Fetching a blob: in one piece if all goes well, else on from where it stopped.

use std::io::{self, Read};
use std::time::Duration;

use crate::store;
use crate::store::blob::Part;
use crate::store::lease::Lease;

use super::manifest::Descriptor;
use super::progress::Status;
use super::pull::Pull;
use super::registry;
use super::registry::http::Answer;
use super::{Error, Result};

/// Tries in a row that may bring nothing.
const TRIES: u32 = 5;
/// The wait before the second try; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes that are read at once.
const READ: usize = 128 << 10;
/// Bytes between two reports of progress.
const REPORT: u64 = 512 << 10;

impl Pull<'_> {
    /// Fetches the rest of a blob, again and again as long as something comes.
    pub(super) fn download(
        &self,
        blob: &Descriptor,
        part: &mut Part,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<()> {
        let mut tries = 0;
        while part.have() < part.size() {
            let before = part.have();
            match self.fetch(blob, part, &mut sink) {
                Ok(()) => {}
                Err(error) if !is_transient(&error) => return Err(error),
                Err(error) => {
                    tries = if part.have() > before { 0 } else { tries + 1 };
                    if tries >= TRIES {
                        return Err(error);
                    }
                    std::thread::sleep(PAUSE * 2u32.pow(tries));
                }
            }
        }
        Ok(())
    }

    /// One request for the rest of a blob.
    fn fetch(
        &self,
        blob: &Descriptor,
        part: &mut Part,
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<()> {
        let url = self
            .session
            .url(&format!("/v2/{}/blobs/{}", self.name.path(), blob.digest));
        let range = format!("bytes={}-", part.have());
        let ranged = [("Range", range.as_str())];
        let headers: &[(&str, &str)] = if part.have() > 0 { &ranged } else { &[] };
        let answer = self.session.get("GET", &url, headers, &self.scope)?;
        let skip = match answer.status {
            206 if starts_at(&answer, part.have()) => 0,
            // No ranges here: the beginning comes again.
            200 => part.have(),
            206 => return Err(self.bad_range(&answer)),
            _ => return Err(answer.error("Get").into()),
        };
        let mut stream = answer.into_reader();
        let unreachable = |error: io::Error| {
            let url = registry::http::shown(&url);
            Error::from(registry::Error::Unreachable {
                method: "Get",
                url,
                why: error.to_string(),
            })
        };
        let skipped =
            io::copy(&mut (&mut stream).take(skip), &mut io::sink()).map_err(unreachable)?;
        if skipped < skip {
            return Err(unreachable(io::ErrorKind::UnexpectedEof.into()));
        }
        self.receive(blob, part, &mut stream, sink, unreachable)
    }

    fn receive(
        &self,
        blob: &Descriptor,
        part: &mut Part,
        stream: &mut impl Read,
        sink: &mut impl FnMut(&[u8]),
        unreachable: impl Fn(io::Error) -> Error,
    ) -> Result<()> {
        let mut buffer = vec![0; READ];
        let mut reported = part.have();
        loop {
            let n = match stream.read(&mut buffer) {
                Ok(0) if part.have() < part.size() => {
                    return Err(unreachable(io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreachable(error)),
            };
            part.append(&buffer[..n])
                .map_err(|error| verification(error, blob))?;
            sink(&buffer[..n]);
            if part.have() - reported >= REPORT || part.have() == part.size() {
                reported = part.have();
                self.layer(blob, Status::Downloading, reported);
            }
        }
    }

    fn bad_range(&self, answer: &Answer) -> Error {
        let range = answer.header("content-range").unwrap_or_default();
        let why = format!("it answered another range of a blob than asked for: {range:?}");
        registry::Error::Protocol {
            registry: self.session.host().to_owned(),
            why,
        }
        .into()
    }
}

/// Whether an answer's `Content-Range` begins at this byte.
fn starts_at(answer: &Answer, at: u64) -> bool {
    let range = answer
        .header("content-range")
        .and_then(|range| range.strip_prefix("bytes "));
    range
        .and_then(|range| range.split('-').next())
        .and_then(|start| start.parse().ok())
        == Some(at)
}

/// Whether the same request may succeed later.
pub(super) fn is_transient(error: &Error) -> bool {
    match error {
        Error::Registry(registry::Error::Unreachable { .. }) => true,
        Error::Registry(registry::Error::Refused { status, .. }) => {
            matches!(status, 408 | 429 | 500..=599)
        }
        _ => false,
    }
}

/// Checks a whole blob and moves it into the store.
pub(super) fn finish(part: Part, lease: &Lease<'_>, blob: &Descriptor) -> Result<()> {
    part.finish(lease)
        .map_err(|error| verification(error, blob))
}

/// Docker's sentence for bytes that are not the blob.
fn verification(error: store::Error, blob: &Descriptor) -> Error {
    match error {
        store::Error::Mismatch { want, got, .. } => {
            let why = format!("want {want}, got {got}");
            registry::Error::Verification {
                digest: blob.digest.to_string(),
                why,
            }
            .into()
        }
        other => other.into(),
    }
}
