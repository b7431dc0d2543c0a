//! HTTP as registries need it: no redirect and no status is handled behind our back.

use std::io::Read;
use std::time::Duration;

use ureq::http::{HeaderMap, Request, Uri};
use ureq::{Agent, Body, SendBody};

use super::{Error, Result};

/// Time for a connection, and for TLS on it.
const CONNECT: Duration = Duration::from_secs(10);
/// Time from a request to the header of its answer.
const HEADER: Duration = Duration::from_secs(30);
/// Time in which a body must bring or take at least something.
const STALL: Duration = Duration::from_secs(60);
/// The largest text of an error answer that is read, in bytes.
const ERROR_MAX: u64 = 64 << 10;

/// Where a secret may go: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `http` or `https`.
    pub scheme: String,
    /// Lower-case host and explicit port.
    pub authority: String,
}

impl Origin {
    /// The origin of a URL; `None` if it is not http(s) or has a user part.
    pub fn of(url: &str) -> Option<Origin> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().to_ascii_lowercase();
        let port = authority.port_u16().unwrap_or(default);
        Some(Origin {
            scheme,
            authority: format!("{host}:{port}"),
        })
    }

    /// The host without port and brackets.
    pub fn host(&self) -> &str {
        let host = self
            .authority
            .rsplit_once(':')
            .map_or(&*self.authority, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// An answer whose header was read.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its header.
    pub headers: HeaderMap,
    /// Where it came from, after redirects.
    pub url: String,
    body: Body,
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as it comes.
    pub fn into_reader(self) -> impl Read + Send {
        self.body.into_reader()
    }

    /// The whole body.
    ///
    /// # Errors
    /// [`Error::Protocol`] if it is longer than `max` bytes.
    pub fn bytes(self, max: u64) -> Result<Vec<u8>> {
        let url = self.url;
        let mut bytes = Vec::new();
        self.body
            .into_reader()
            .take(max + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::Unreachable {
                method: "GET",
                url: shown(&url),
                why: error.to_string(),
            })?;
        if bytes.len() as u64 > max {
            let registry = Origin::of(&url).map_or(String::new(), |origin| origin.authority);
            return Err(Error::Protocol {
                registry,
                why: format!("its answer is larger than {max} bytes"),
            });
        }
        Ok(bytes)
    }

    /// The error that this answer tells.
    pub fn error(self, method: &'static str) -> Error {
        let (url, status) = (shown(&self.url), self.status);
        let mut body = Vec::new();
        // The text only explains the status; without it the status stands alone.
        let _ = self
            .body
            .into_reader()
            .take(ERROR_MAX)
            .read_to_end(&mut body);
        let why = explain(&body).unwrap_or_else(|| {
            let reason = ureq::http::StatusCode::from_u16(status).ok();
            let reason = reason
                .and_then(|code| code.canonical_reason())
                .unwrap_or_default();
            match status {
                401 => "unauthorized: authentication required".to_owned(),
                403 => "denied: requested access to the resource is denied".to_owned(),
                _ => format!("received unexpected HTTP status: {status} {reason}")
                    .trim_end()
                    .to_owned(),
            }
        });
        Error::Refused {
            method,
            url,
            status,
            why,
        }
    }
}

/// The first entry of a registry's `errors` list: `code: message`, in Docker's lower-case words.
fn explain(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let plain =
        |text: &str| -> String { text.chars().filter(|c| !c.is_control()).take(500).collect() };
    if let Some(details) = value.get("details").and_then(|details| details.as_str()) {
        return Some(plain(details));
    }
    let first = value.get("errors")?.get(0)?;
    let text = |name: &str| {
        first
            .get(name)
            .and_then(|text| text.as_str())
            .unwrap_or_default()
    };
    let code = text("code").to_ascii_lowercase().replace('_', " ");
    let message = text("message");
    Some(match (code.is_empty(), message.is_empty()) {
        (_, true) => plain(&code),
        (true, false) => plain(message),
        (false, false) => plain(&format!("{code}: {message}")),
    })
    .filter(|text| !text.is_empty())
}

/// A URL for messages: a query may hold a signature, a user part a password.
pub fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or(url);
    match plain.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or(authority);
            format!("{scheme}://{host}{path}")
        }
        None => plain.to_owned(),
    }
}

/// An agent with our time limits; `tls` says whom to trust.
pub fn agent(tls: ureq::tls::TlsConfig, loopback: bool) -> Agent {
    let mut config = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("rdocker/", env!("CARGO_PKG_VERSION")))
        // Blobs are hashed as they are stored: no coding may come between.
        .accept_encoding("identity")
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(HEADER))
        .timeout_per_read(Some(STALL))
        .timeout_per_write(Some(STALL));
    if loopback {
        config = config.proxy(None);
    }
    config.build().new_agent()
}

/// A body that is sent.
pub enum Payload<'a> {
    /// None.
    Nothing,
    /// These bytes.
    Bytes(&'a [u8]),
    /// A stream of so many bytes.
    Stream(&'a mut dyn Read, u64),
}

/// One request, without any redirect.
pub fn call(
    agent: &Agent,
    method: &'static str,
    url: &str,
    headers: &[(&str, &str)],
    body: Payload<'_>,
) -> Result<Answer> {
    let unreachable = |why: String| Error::Unreachable {
        method: match method {
            "GET" => "Get",
            "HEAD" => "Head",
            other => other,
        },
        url: shown(url),
        why,
    };
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let invalid = |error: ureq::http::Error| unreachable(error.to_string());
    let result = match body {
        Payload::Nothing if matches!(method, "GET" | "HEAD") => {
            agent.run(request.body(()).map_err(invalid)?)
        }
        Payload::Nothing => agent.run(
            request
                .header("content-length", "0")
                .body(SendBody::none())
                .map_err(invalid)?,
        ),
        Payload::Bytes(bytes) => agent.run(request.body(bytes).map_err(invalid)?),
        Payload::Stream(stream, length) => {
            let request = request.header("content-length", length.to_string());
            agent.run(
                request
                    .body(SendBody::from_reader(stream))
                    .map_err(invalid)?,
            )
        }
    };
    let response = result.map_err(|error| unreachable(reason(&error)))?;
    let (parts, body) = response.into_parts();
    let status = parts.status.as_u16();
    Ok(Answer {
        status,
        headers: parts.headers,
        url: url.to_owned(),
        body,
    })
}

/// An agent's error in Docker's words, where it has some.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "no such host".to_owned(),
        ureq::Error::Timeout(what) => format!("timeout: no answer in time ({what})"),
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "connect: connection refused".to_owned()
        }
        other => other
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
    }
}

/// Where a redirect leads.
pub fn resolve(base: &str, location: &str) -> Option<String> {
    if location.contains("://") {
        return Origin::of(location).map(|_| location.to_owned());
    }
    let (scheme, rest) = base.split_once("://")?;
    if let Some(authority) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{authority}"));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    let path = path.split('?').next().unwrap_or(path);
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    Some(format!("{scheme}://{authority}{dir}/{location}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (a, b, same) in [
            ("https://r.io/v2/", "https://R.io:443/x?y", true),
            ("https://r.io/", "http://r.io/", false),
            ("https://r.io/", "https://r.io:5000/", false),
            ("http://[::1]:80/", "http://[::1]/", true),
            ("https://r.io/", "https://r.io.evil/", false),
        ] {
            assert_eq!(Origin::of(a) == Origin::of(b), same, "{a} {b}");
        }
        for bad in ["ftp://r.io/", "r.io", "https://u:p@r.io/", ""] {
            assert_eq!(Origin::of(bad), None, "{bad}");
        }
        assert_eq!(Origin::of("http://[::1]:5000/").unwrap().host(), "::1");
    }

    #[test]
    fn redirects_are_resolved_against_the_request() {
        let base = "https://r.io/v2/a/blobs/x?y=/z";
        for (location, want) in [
            ("https://cdn/x", Some("https://cdn/x")),
            ("/x", Some("https://r.io/x")),
            ("x", Some("https://r.io/v2/a/blobs/x")),
            ("//cdn/x", Some("https://cdn/x")),
            ("file:///etc/passwd", None),
        ] {
            assert_eq!(resolve(base, location).as_deref(), want, "{location}");
        }
    }

    #[test]
    fn messages_show_no_query_and_no_user() {
        assert_eq!(shown("https://u:p@cdn/x?sig=secret#f"), "https://cdn/x");
    }

    #[test]
    fn a_registrys_own_words_are_told() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        assert_eq!(
            explain(body).as_deref(),
            Some("manifest unknown: manifest unknown")
        );
        assert_eq!(explain(br#"{"errors":[]}"#), None);
        assert_eq!(explain(b"<html>"), None);
        let evil = br#"{"errors":[{"code":"X","message":"a\u001b[31m\nb"}]}"#;
        assert_eq!(explain(evil).as_deref(), Some("x: a[31mb"));
    }
}
