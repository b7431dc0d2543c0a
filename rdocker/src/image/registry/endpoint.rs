//! Where a registry is: its URLs in the order to try them, and whom to trust there.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::super::reference::DEFAULT_DOMAIN;
use super::http::{Origin, agent};
use super::{Error, RegistryOptions, Result};

/// The host that serves docker.io.
const DOCKER_IO_HOST: &str = "registry-1.docker.io";
/// Where distributions keep the certificates that they trust.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// One way to a registry.
pub struct Endpoint {
    /// `https://host[:port]`, without a slash at the end.
    pub base: String,
    /// Plain HTTP, or a certificate that nobody checks, is allowed here.
    pub insecure: bool,
    /// It stands in for docker.io, and is told no secret of docker.io.
    pub mirror: bool,
    /// What speaks to it.
    pub agent: Agent,
}

/// The ways to a registry, best first.
///
/// Plain HTTP is among them only for hosts that the user named, and for loopback: a refused
/// https port must not turn a secret into clear text (CVE-2014-5277).
///
/// # Errors
/// [`Error::Certificates`] for an unreadable certs.d; [`Error::Protocol`] for a mirror that is
/// no URL.
pub fn endpoints(domain: &str, options: &RegistryOptions) -> Result<Vec<Endpoint>> {
    let mut found = Vec::new();
    if domain == DEFAULT_DOMAIN {
        for mirror in &options.mirrors {
            found.extend(mirror_endpoints(mirror, options)?);
        }
        found.extend(of_host(DOCKER_IO_HOST, options, false)?);
        return Ok(found);
    }
    of_host(domain, options, false)
}

fn mirror_endpoints(mirror: &str, options: &RegistryOptions) -> Result<Vec<Endpoint>> {
    let wrong = |why: &str| Error::Protocol {
        registry: mirror.to_owned(),
        why: why.to_owned(),
    };
    let Some((scheme, rest)) = mirror.split_once("://") else {
        return of_host(mirror.trim_end_matches('/'), options, true);
    };
    let host = rest.trim_end_matches('/');
    if host.contains(['/', '?', '#', '@']) {
        return Err(wrong("a mirror is a URL of scheme, host and port only"));
    }
    let (insecure, loopback) = (is_insecure(host, &options.insecure), is_loopback(host));
    // Whoever writes http:// for a mirror means it; a mirror is told no secret.
    if scheme == "http" {
        let agent = agent(tls(host, options, true)?, loopback);
        return Ok(vec![Endpoint {
            base: format!("http://{host}"),
            insecure: true,
            mirror: true,
            agent,
        }]);
    }
    if scheme != "https" {
        return Err(wrong("a mirror's scheme is http or https"));
    }
    let agent = agent(tls(host, options, insecure)?, loopback);
    Ok(vec![Endpoint {
        base: format!("https://{host}"),
        insecure,
        mirror: true,
        agent,
    }])
}

fn of_host(host: &str, options: &RegistryOptions, mirror: bool) -> Result<Vec<Endpoint>> {
    let insecure = is_insecure(host, &options.insecure);
    let mut agents = vec![(
        "https",
        agent(tls(host, options, insecure)?, is_loopback(host)),
    )];
    if insecure {
        agents.push(("http", agents[0].1.clone()));
    }
    let endpoint = |(scheme, agent)| Endpoint {
        base: format!("{scheme}://{host}"),
        insecure,
        mirror,
        agent,
    };
    Ok(agents.into_iter().map(endpoint).collect())
}

fn host_of(authority: &str) -> String {
    Origin::of(&format!("https://{authority}/"))
        .map_or_else(String::new, |origin| origin.host().to_owned())
}

fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority);
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Whether the user, or its being this machine, allows a registry without proof of who it is.
pub fn is_insecure(authority: &str, insecure: &[String]) -> bool {
    if is_loopback(authority) {
        return true;
    }
    let address = host_of(authority).parse::<IpAddr>().ok();
    insecure.iter().any(|entry| {
        entry == authority || address.is_some_and(|address| in_network(address, entry))
    })
}

fn in_network(address: IpAddr, network: &str) -> bool {
    let Some((base, length)) = network.split_once('/') else {
        return false;
    };
    let (Ok(base), Ok(length)) = (base.parse::<IpAddr>(), length.parse::<u32>()) else {
        return false;
    };
    let same = |a: u128, b: u128, bits: u32| {
        length <= bits && (length == 0 || (a ^ b) >> (bits - length) == 0)
    };
    match (address, base) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
        _ => false,
    }
}

/// Whom to trust for a host: the system's roots and certs.d's, and who we are there.
fn tls(host: &str, options: &RegistryOptions, insecure: bool) -> Result<TlsConfig> {
    let dir = options
        .certs_dirs
        .iter()
        .map(|dir| dir.join(host))
        .find(|dir| dir.is_dir());
    let mut roots = system_roots();
    let mut client = None;
    let mut pinned = false;
    if let Some(dir) = &dir {
        let own = own_roots(dir)?;
        pinned = !own.is_empty();
        roots.extend(own);
        client = client_cert(dir)?;
    }
    let config = TlsConfig::builder()
        // With a CA of its own a host is checked against it, insecure or not.
        .disable_verification(insecure && !pinned)
        .client_cert(client);
    Ok(match roots.is_empty() {
        true => config.build(),
        false => config.root_certs(RootCerts::new_with_certs(&roots)).build(),
    })
}

fn system_roots() -> Vec<Certificate<'static>> {
    let file = SYSTEM_ROOTS.iter().find_map(|path| fs::read(path).ok());
    file.map(|pem| certificates(&pem)).unwrap_or_default()
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    parse_pem(pem).filter_map(certificate).collect()
}

fn wrong(path: &Path, why: impl Into<String>) -> Error {
    Error::Certificates {
        path: path.to_owned(),
        why: why.into(),
    }
}

/// `*.crt` in a host's directory: roots that are trusted for this host.
fn own_roots(dir: &Path) -> Result<Vec<Certificate<'static>>> {
    let mut roots = Vec::new();
    for path in with_extension(dir, "crt")? {
        let found =
            certificates(&fs::read(&path).map_err(|error| wrong(&path, error.to_string()))?);
        if found.is_empty() {
            return Err(wrong(&path, "it has no certificate in PEM form"));
        }
        roots.extend(found);
    }
    Ok(roots)
}

/// `NAME.cert` and `NAME.key`: who we are to this host.
fn client_cert(dir: &Path) -> Result<Option<ClientCert>> {
    let Some(path) = with_extension(dir, "cert")?.into_iter().next() else {
        return Ok(None);
    };
    let read = |path: &Path| fs::read(path).map_err(|error| wrong(path, error.to_string()));
    let chain = certificates(&read(&path)?);
    let key_path = path.with_extension("key");
    if chain.is_empty() {
        return Err(wrong(&path, "it has no certificate in PEM form"));
    }
    let key = PrivateKey::from_pem(&read(&key_path)?)
        .map_err(|_| wrong(&key_path, "it has no private key in PEM form"))?;
    Ok(Some(ClientCert::new_with_certs(&chain, key)))
}

fn with_extension(dir: &Path, extension: &str) -> Result<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(dir).map_err(|error| wrong(dir, error.to_string()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_named_hosts_are_insecure() {
        let listed = [
            "r.io:5000".to_owned(),
            "10.1.0.0/16".to_owned(),
            "fd00::/8".to_owned(),
        ];
        for (host, insecure) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("r.io:5000", true),
            ("r.io", false),
            ("10.1.2.3:80", true),
            ("10.2.2.3", false),
            ("[fd12::1]", true),
            ("127.0.0.1.evil.io", false),
            ("localhost.evil.io", false),
        ] {
            assert_eq!(is_insecure(host, &listed), insecure, "{host}");
        }
    }

    #[test]
    fn plain_http_is_tried_only_where_it_is_allowed() {
        let options = RegistryOptions {
            mirrors: vec!["http://m.io".into(), "https://n.io/".into()],
            ..RegistryOptions::default()
        };
        let bases = |domain: &str| -> Vec<String> {
            endpoints(domain, &options)
                .unwrap()
                .into_iter()
                .map(|e| e.base)
                .collect()
        };
        assert_eq!(bases("quay.io"), ["https://quay.io"]);
        assert_eq!(
            bases("localhost:5000"),
            ["https://localhost:5000", "http://localhost:5000"]
        );
        assert_eq!(
            bases("docker.io"),
            [
                "http://m.io",
                "https://n.io",
                "https://registry-1.docker.io"
            ]
        );
    }
}
