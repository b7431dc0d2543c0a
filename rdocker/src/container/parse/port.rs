//! `-p` and `--expose`.

use std::net::IpAddr;

use crate::container::api::PortBinding;
use crate::error::{Error, Result};

/// `[[IP:]HOST:]CONTAINER[/PROTOCOL]`, host and container a port or a range of equal length.
///
/// Gives one pair per container port: `80/tcp` and where it is published.
///
/// # Errors
/// Docker's wording for a bad address, port, range or protocol.
pub fn publish(text: &str) -> Result<Vec<(String, PortBinding)>> {
    let (rest, protocol) = split_protocol(text)?;
    let (host_ip, rest) = split_address(rest)?;
    let (host, container) = match rest.rsplit_once(':') {
        Some((host, container)) => (host, container),
        None => ("", rest),
    };
    let container = range(container)?;
    let bound = match host {
        "" => None,
        host => Some(range(host).map_err(|_| Error::Invalid(format!("invalid hostPort: {host}")))?),
    };
    if let Some(bound) = &bound
        && bound.len() != container.len()
        && container.len() != 1
    {
        return Err(Error::Invalid(format!(
            "invalid ranges specified for container and host Ports: {rest}"
        )));
    }
    let mut bindings = Vec::new();
    for (index, port) in container.clone().enumerate() {
        let host_port = match &bound {
            None => String::new(),
            // One container port on a range of host ports: any free one of the range.
            Some(bound) if container.len() == 1 && bound.len() > 1 => {
                format!("{}-{}", bound.start, bound.end - 1)
            }
            Some(bound) => bound
                .clone()
                .nth(index)
                .map(|port| port.to_string())
                .unwrap_or_default(),
        };
        let binding = PortBinding {
            host_ip: host_ip.clone(),
            host_port,
        };
        bindings.push((format!("{port}/{protocol}"), binding));
    }
    Ok(bindings)
}

/// `PORT[-PORT][/PROTOCOL]` of `--expose`.
pub fn expose(text: &str) -> Result<Vec<String>> {
    let (ports, protocol) = split_protocol(text)?;
    Ok(range(ports)?
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

fn split_protocol(text: &str) -> Result<(&str, String)> {
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::Invalid(format!("invalid proto: {protocol}")));
    }
    Ok((rest, protocol))
}

/// Cuts `IP:` or `[IPv6]:` off the front.
fn split_address(text: &str) -> Result<(String, &str)> {
    let bad = |address: &str| Error::Invalid(format!("invalid IP address: {address}"));
    let (address, rest) = if let Some(inner) = text.strip_prefix('[') {
        inner.split_once("]:").ok_or_else(|| bad(text))?
    } else if text.matches(':').count() >= 2 {
        let (front, _) = text.rsplit_once(':').unwrap_or((text, ""));
        let (address, _) = front.rsplit_once(':').unwrap_or((front, ""));
        (address, &text[address.len() + 1..])
    } else {
        ("", text)
    };
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(bad(address));
    }
    Ok((address.to_owned(), rest))
}

/// The ports of `N` or `N-M`, as a half-open range.
fn range(text: &str) -> Result<std::ops::Range<u32>> {
    let wrong = || Error::Invalid(format!("invalid containerPort: {text}"));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .map(u32::from)
    };
    let (first, last) = (
        port(first).ok_or_else(wrong)?,
        port(last).ok_or_else(wrong)?,
    );
    if last < first {
        return Err(wrong());
    }
    Ok(first..last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// text, wanted port, address and host port
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str, &'a str)]);

    #[test]
    fn every_publish_form_is_read() {
        let cases: &[Case<'_>] = &[
            ("80", &[("80/tcp", "", "")]),
            ("8080:80", &[("80/tcp", "", "8080")]),
            ("8080:80/udp", &[("80/udp", "", "8080")]),
            ("127.0.0.1:8080:80", &[("80/tcp", "127.0.0.1", "8080")]),
            ("127.0.0.1::80", &[("80/tcp", "127.0.0.1", "")]),
            ("[::1]:8080:80", &[("80/tcp", "::1", "8080")]),
            (
                "8000-8001:80-81",
                &[("80/tcp", "", "8000"), ("81/tcp", "", "8001")],
            ),
            ("8000-8009:80", &[("80/tcp", "", "8000-8009")]),
            ("80-81", &[("80/tcp", "", ""), ("81/tcp", "", "")]),
        ];
        for (text, want) in cases {
            let got = publish(text).unwrap();
            let got: Vec<(&str, &str, &str)> = got
                .iter()
                .map(|(port, to)| (port.as_str(), to.host_ip.as_str(), to.host_port.as_str()))
                .collect();
            assert_eq!(got, *want, "{text}");
        }
        for text in [
            "",
            "x",
            "0",
            "70000",
            "80/xyz",
            "1.2.3:80:80",
            "8000-8002:80-81",
            "9-8",
        ] {
            assert!(publish(text).is_err(), "{text}");
        }
        assert_eq!(expose("5000-5001/udp").unwrap(), ["5000/udp", "5001/udp"]);
    }
}
