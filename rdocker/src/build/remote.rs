//! Files from URLs, and which texts are URLs.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::store::digest::{Digest, Hasher};

/// Time for a connection, and from a request to the header of its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest file that is fetched, in bytes.
const FILE_MAX: u64 = 16 << 30;
const BUFFER: usize = 128 << 10;

/// Whether a text is an http or https URL.
pub fn is_http(text: &str) -> bool {
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    lower.starts_with("http://") || lower.starts_with("https://")
}

/// A text without the user part of the URLs in it: names and passwords are kept nowhere
/// (CVE-2023-26054).
pub fn without_secrets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let ends = |c: char| c.is_whitespace() || "/?#\"'<>|;)".contains(c);
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        rest = match authority.rfind('@') {
            Some(at) => &after[at + 1..],
            None => after,
        };
    }
    out.push_str(rest);
    out
}

/// The last component of the URL's path, which names the file; nothing the server says does.
///
/// # Errors
/// A URL without one.
pub fn file_name(url: &str) -> Result<String> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let after = path.split_once("://").map_or(path, |(_, rest)| rest);
    let name = match after.split_once('/') {
        Some((_, path)) => path.rsplit('/').next().unwrap_or_default(),
        None => "",
    };
    if matches!(name, "" | "." | "..") || name.contains('\0') {
        let url = without_secrets(url);
        return Err(Error::Invalid(format!(
            "cannot determine filename for source {url}"
        )));
    }
    Ok(name.to_owned())
}

/// What was fetched.
pub struct Fetched {
    /// Digest of its bytes.
    pub digest: Digest,
    /// `Last-Modified`, Unix seconds; 0 if the server did not say.
    pub modified: i64,
}

/// A file that is still coming.
pub struct Coming {
    /// `Last-Modified`, Unix seconds; 0 if the server did not say.
    pub modified: i64,
    /// Its bytes, one more than 16 GiB at most.
    pub body: std::io::Take<ureq::BodyReader<'static>>,
}

fn failed(url: &str, why: &str) -> Error {
    Error::Invalid(format!(
        "fetch {}: {}",
        without_secrets(url),
        without_secrets(why)
    ))
}

/// Asks for a file.
///
/// # Errors
/// The server cannot be reached or answers with an error.
pub fn open(url: &str) -> Result<Coming> {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .build(),
    );
    let answer = agent
        .get(url)
        .call()
        .map_err(|error| failed(url, &error.to_string()))?;
    let header = |name: &str| {
        answer
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let modified = header("last-modified")
        .and_then(|text| jiff::fmt::rfc2822::parse(text).ok())
        .map_or(0, |at| at.timestamp().as_second());
    Ok(Coming {
        modified,
        body: answer.into_body().into_reader().take(FILE_MAX + 1),
    })
}

/// Fetches a file to `path`.
///
/// # Errors
/// As [`open`]; the file is larger than 16 GiB; its digest is not `checksum`.
pub fn fetch(url: &str, path: &Path, checksum: Option<&Digest>) -> Result<Fetched> {
    let Coming { modified, mut body } = open(url)?;
    let mut file = File::create_new(path).map_err(|errno| Error::host("create", path, errno))?;
    let algorithm = checksum.map_or(crate::store::digest::Algorithm::Sha256, Digest::algorithm);
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; BUFFER];
    let mut size = 0;
    loop {
        let n = body
            .read(&mut buffer)
            .map_err(|error| failed(url, &error.to_string()))?;
        if n == 0 {
            break;
        }
        size += n as u64;
        if size > FILE_MAX {
            return Err(failed(url, "it is larger than 16 GiB"));
        }
        hasher.update(&buffer[..n]);
        file.write_all(&buffer[..n])
            .map_err(|errno| Error::host("write", path, errno))?;
    }
    let digest = hasher.finish();
    match checksum {
        Some(want) if *want != digest => Err(failed(
            url,
            &format!("digest mismatch {digest}: want {want}"),
        )),
        _ => Ok(Fetched { digest, modified }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_its_url_alone() {
        for (url, want) in [
            ("http://h/a/b.txt", Some("b.txt")),
            ("http://h/b?x=/y#z", Some("b")),
            ("http://h", None),
            ("http://h/", None),
            ("http://h/a/", None),
            ("http://h/..", None),
            ("http://h/?../x", None),
        ] {
            assert_eq!(file_name(url).ok().as_deref(), want, "{url}");
        }
    }

    #[test]
    fn passwords_in_urls_are_left_out() {
        for (text, want) in [
            ("ADD https://u:p@h/x /", "ADD https://h/x /"),
            ("https://u@h", "https://h"),
            ("https://u:p@ss@h/x", "https://h/x"),
            ("a http://x/@y b://c@d e", "a http://x/@y b://d e"),
            ("no url", "no url"),
        ] {
            assert_eq!(without_secrets(text), want);
        }
    }
}
