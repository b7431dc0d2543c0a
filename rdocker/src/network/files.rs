//! /etc/hosts, /etc/hostname and /etc/resolv.conf of a container.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;

/// What the three files say.
#[derive(Debug, Clone, Default)]
pub struct Names<'a> {
    /// Host name of the container.
    pub hostname: &'a str,
    /// Its domain.
    pub domainname: &'a str,
    /// Its addresses; none without a network of its own.
    pub addresses: &'a [IpAddr],
    /// Other containers that it has links to: address and names.
    pub links: &'a [(IpAddr, String)],
    /// `NAME:ADDRESS` lines of `--add-host`.
    pub extra: &'a [String],
    /// What `host-gateway` stands for.
    pub gateway: &'a str,
}

/// /etc/hosts as Docker writes it.
pub fn hosts(names: &Names<'_>) -> String {
    let mut text = "127.0.0.1\tlocalhost\n\
                    ::1\tlocalhost ip6-localhost ip6-loopback\n\
                    fe00::\tip6-localnet\n\
                    ff00::\tip6-mcastprefix\n\
                    ff02::1\tip6-allnodes\n\
                    ff02::2\tip6-allrouters\n"
        .to_owned();
    for pair in names.extra {
        let (name, address) = pair.split_once(':').unwrap_or((pair, ""));
        let address = if address == "host-gateway" {
            names.gateway
        } else {
            address
        };
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "{address}\t{name}");
    }
    for (address, words) in names.links {
        let _ = writeln!(text, "{address}\t{words}");
    }
    for address in names.addresses {
        let full = match names.domainname {
            "" => String::new(),
            domain => format!("{}.{domain} ", names.hostname),
        };
        let _ = writeln!(text, "{address}\t{full}{}", names.hostname);
    }
    text
}

/// /etc/hosts with another address for the line that has exactly these names; `None` if no line
/// has, or it says so already.
pub fn replace_link(text: &str, address: IpAddr, words: &str) -> Option<String> {
    let is_it = |line: &str| {
        line.split_once('\t')
            .is_some_and(|(_, names)| names == words)
    };
    let new = format!("{address}\t{words}");
    let mut changed = false;
    let mut result = String::with_capacity(text.len());
    for line in text.lines() {
        let line = if is_it(line) && line != new {
            changed = true;
            &new
        } else {
            line
        };
        result.push_str(line);
        result.push('\n');
    }
    changed.then_some(result)
}

/// Settings of `--dns`, `--dns-search` and `--dns-option`, or daemon.json's.
#[derive(Debug, Clone, Default)]
pub struct Resolver<'a> {
    /// Name servers; empty takes the host's.
    pub servers: &'a [String],
    /// Search domains; empty takes the host's, a single `.` means none.
    pub search: &'a [String],
    /// Options; empty takes the host's.
    pub options: &'a [String],
    /// The container cannot reach the host's loopback addresses.
    pub own_namespace: bool,
    /// The container has a name server of ours, which asks the others.
    pub embedded: bool,
}

/// Where our name server is in every container that has one.
const EMBEDDED: &str = "127.0.0.11";

/// The values of one keyword in the text of a resolv.conf(5).
fn values(text: &str, keyword: &str) -> Vec<String> {
    let lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix(keyword));
    lines
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect()
}

/// The name servers that this host uses.
pub fn host_servers() -> Vec<IpAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = values(&text, "nameserver");
    servers
        .iter()
        .filter_map(|server| server.parse().ok())
        .collect()
}

/// Name servers when the host has none that a container can reach (Docker's choice).
const PUBLIC_SERVERS: &[&str] = &["8.8.8.8", "8.8.4.4"];

/// /etc/resolv.conf from the host's `text` and the container's settings.
pub fn resolv_conf(text: &str, resolver: &Resolver<'_>) -> String {
    let or_host = |given: &[String], keyword: &str| {
        if given.is_empty() {
            values(text, keyword)
        } else {
            given.to_vec()
        }
    };
    let mut servers = or_host(resolver.servers, "nameserver");
    if resolver.own_namespace && resolver.servers.is_empty() {
        let loopback = |server: &String| server.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        servers.retain(|server| !loopback(server));
        if servers.is_empty() {
            servers = PUBLIC_SERVERS
                .iter()
                .map(|server| (*server).to_owned())
                .collect();
        }
    }
    let search = or_host(resolver.search, "search");
    let mut options = or_host(resolver.options, "options");
    if resolver.embedded {
        servers = vec![EMBEDDED.to_owned()];
        // Names of one word are asked for as they are.
        if !options.iter().any(|option| option.starts_with("ndots:")) {
            options.push("ndots:0".to_owned());
        }
    }
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !search.is_empty() && search != ["."] {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_ends_with_the_containers_own_line() {
        let names = Names {
            hostname: "box",
            domainname: "lan",
            addresses: &["172.17.0.2".parse().unwrap()],
            links: &[("172.17.0.3".parse().unwrap(), "alias id src".to_owned())],
            extra: &["db:1.2.3.4".to_owned(), "up:host-gateway".to_owned()],
            gateway: "172.17.0.1",
        };
        let text = hosts(&names);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
        let end = "1.2.3.4\tdb\n172.17.0.1\tup\n172.17.0.3\talias id src\n\
                   172.17.0.2\tbox.lan box\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn a_link_gets_its_new_address_and_other_lines_stay() {
        let text = "127.0.0.1\tlocalhost\n10.0.0.2\tdb 47fe src\n10.0.0.2\tmine db\n";
        let address = "10.0.0.9".parse().unwrap();
        let want = "127.0.0.1\tlocalhost\n10.0.0.9\tdb 47fe src\n10.0.0.2\tmine db\n";
        let got = replace_link(text, address, "db 47fe src").unwrap();
        assert_eq!(got, want);
        assert_eq!(replace_link(&got, address, "db 47fe src"), None);
    }

    #[test]
    fn a_namespace_of_its_own_never_gets_the_hosts_loopback_server() {
        let host = "nameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch lan\noptions edns0\n";
        let own = Resolver {
            own_namespace: true,
            ..Resolver::default()
        };
        let want = "nameserver 10.0.0.1\nsearch lan\noptions edns0\n";
        assert_eq!(resolv_conf(host, &own), want);
        let embedded = Resolver {
            embedded: true,
            ..own.clone()
        };
        let want = "nameserver 127.0.0.11\nsearch lan\noptions edns0 ndots:0\n";
        assert_eq!(resolv_conf(host, &embedded), want);
        let alone = resolv_conf("nameserver ::1\n", &own);
        assert_eq!(alone, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        let servers = ["9.9.9.9".to_owned()];
        let search = [".".to_owned()];
        let given = Resolver {
            servers: &servers,
            search: &search,
            ..own
        };
        assert_eq!(
            resolv_conf(host, &given),
            "nameserver 9.9.9.9\noptions edns0\n"
        );
    }
}
