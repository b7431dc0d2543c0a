//! The names on one network: a file in the form of hosts(5) that every name server on it reads.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::network::Endpoint;

/// A network's file, read again when it has changed.
#[derive(Debug)]
pub struct Names {
    path: PathBuf,
    network: String,
    /// Inode and change time of what was read.
    stamp: Option<(u64, i64, i64)>,
    lines: Vec<(IpAddr, Vec<String>)>,
    /// Where the next answer with several addresses begins.
    turn: usize,
}

impl Names {
    /// The names in the file of the network called `network`.
    pub fn new(path: PathBuf, network: &str) -> Self {
        Self {
            path,
            network: network.to_lowercase(),
            stamp: None,
            lines: Vec::new(),
            turn: 0,
        }
    }

    /// The file it reads.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn refresh(&mut self) {
        let meta = fs::metadata(&self.path).ok();
        let stamp = meta.map(|meta| (meta.ino(), meta.ctime(), meta.ctime_nsec()));
        if stamp == self.stamp && stamp.is_some() {
            return;
        }
        self.stamp = stamp;
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        self.lines = text.lines().filter_map(line).collect();
    }

    /// The addresses of a name, or of `NAME.NETWORK`; in turns, so that each comes first once.
    pub fn addresses(&mut self, name: &str) -> Vec<IpAddr> {
        self.refresh();
        let short = name
            .strip_suffix(&self.network)
            .and_then(|name| name.strip_suffix('.'));
        let is = |known: &String| known == name || Some(known.as_str()) == short;
        let mut found: Vec<IpAddr> = self
            .lines
            .iter()
            .filter(|(_, names)| names.iter().any(is))
            .map(|(address, _)| *address)
            .collect();
        if found.len() > 1 {
            self.turn = self.turn.wrapping_add(1);
            let by = self.turn % found.len();
            found.rotate_left(by);
        }
        found
    }

    /// The full name of an address.
    pub fn name_of(&mut self, address: IpAddr) -> Option<String> {
        self.refresh();
        let (_, names) = self.lines.iter().find(|(known, _)| *known == address)?;
        Some(format!("{}.{}", names.first()?, self.network))
    }
}

fn line(text: &str) -> Option<(IpAddr, Vec<String>)> {
    let mut words = text.split_whitespace();
    let address = words.next()?.parse().ok()?;
    Some((address, words.map(str::to_lowercase).collect()))
}

/// Writes the file of a network anew from who is on it.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, endpoints: &[Endpoint]) -> Result<()> {
    let mut text = String::new();
    for endpoint in endpoints {
        for address in endpoint.addresses() {
            let names = endpoint.names.join(" ");
            text.push_str(&format!("{} {names}\n", address.net.addr()));
        }
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(|error| Error::host("create directory", dir, error))?;
    }
    Ok(crate::store::record::write_bytes(path, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_addresses_take_turns_and_changes_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names");
        let endpoint = |address: &str| Endpoint {
            ipv4: Some(crate::network::Address {
                net: address.parse().unwrap(),
                gateway: None,
            }),
            names: vec!["one".to_owned(), "Pool".to_owned()],
            ..Endpoint::default()
        };
        write(&path, &[endpoint("10.0.0.2/24"), endpoint("10.0.0.3/24")]).unwrap();
        let mut names = Names::new(path.clone(), "Front");
        let first = names.addresses("pool.front");
        let second = names.addresses("pool");
        assert_eq!(first.len(), 2);
        assert_ne!(first[0], second[0]);
        write(&path, &[endpoint("10.0.0.9/24")]).unwrap();
        assert_eq!(
            names.addresses("pool"),
            ["10.0.0.9".parse::<IpAddr>().unwrap()]
        );
        fs::remove_file(&path).unwrap();
        assert!(names.addresses("pool").is_empty());
    }
}
