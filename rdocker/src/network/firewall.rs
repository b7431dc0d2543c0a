//! Puts the rules in place, and notices when somebody took them away.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::netlink::{Message, Socket, attributes};
use super::registry::{self, Networks};
use super::rules::{self, Facts};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::rootless;

/// nfnetlink message types: subsystem in the high byte (linux/netfilter/nfnetlink.h).
const NFT_MSG_GETTABLE: u16 = (10 << 8) | 1;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_USERDATA: u16 = 6;
const NFPROTO_INET: u8 = 1;
/// Bit of NFNLGRP_NFTABLES, whose members hear of every change of rules.
const NFTABLES_EVENTS: u32 = 1 << (7 - 1);

/// The name of our table: each data root has its own, so that two never undo each other.
pub fn table(host: &Host) -> String {
    if host.data_root == Path::new("/var/lib/rdocker") {
        return "rdocker".to_owned();
    }
    let root = host.data_root.as_os_str().as_encoded_bytes();
    format!("rdocker-{}", short_hash(root))
}

fn short_hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest[..4]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Hears of every change of packet filter rules in this namespace.
///
/// # Errors
/// The kernel has no nf_tables.
pub fn listen() -> io::Result<Socket> {
    Socket::netfilter(NFTABLES_EVENTS)
}

/// Makes the kernel's rules what the state asks for, if they are not yet.
///
/// The caller holds the network lock, so that an older state never replaces a newer one.
///
/// # Errors
/// There is no nft, or it refuses the rules.
pub fn sync(host: &Host, networks: &Networks<'_>) -> Result<()> {
    // A plain user has no bridges, and may change no rules.
    if rootless::is_entered(host) {
        return Ok(());
    }
    let (all, endpoints) = networks
        .store
        .read(|view| Ok((registry::networks(view)?, registry::endpoints(view)?)))?;
    let facts = Facts {
        networks: all,
        endpoints,
        guard: guard_file(host).exists(),
    };
    let (name, body) = (table(host), rules::body(&facts));
    let hash = short_hash(body.as_bytes());
    if is_in_place(&name, &hash) {
        return Ok(());
    }
    // `add` first, for `delete` of a table that is not there fails.
    apply(&format!(
        "add table inet {name}\ndelete table inet {name}\n\
         table inet {name} {{\n\tcomment \"{hash}\"\n{body}}}\n"
    ))
}

/// Takes our table away.
///
/// # Errors
/// There is no nft, or it refuses.
pub fn clear(host: &Host) -> Result<()> {
    let name = table(host);
    apply(&format!(
        "add table inet {name}\ndelete table inet {name}\n"
    ))
}

/// Whether the kernel has the table with the rules of this hash, which its comment says.
///
/// The comment comes and goes with the rules, in one transaction.
fn is_in_place(name: &str, hash: &str) -> bool {
    comment(name).is_ok_and(|comment| comment.as_deref() == Some(hash))
}

/// Whether somebody took our table away.
pub fn is_missing(host: &Host) -> bool {
    comment(&table(host)).is_ok_and(|comment| comment.is_none())
}

fn comment(name: &str) -> io::Result<Option<String>> {
    let mut socket = Socket::netfilter(0)?;
    let message =
        Message::new(NFT_MSG_GETTABLE, 0, &[NFPROTO_INET, 0, 0, 0]).string(NFTA_TABLE_NAME, name);
    let mut found = None;
    let asked = socket.get(message, |_, body| {
        let data = attributes(body.get(4..).unwrap_or_default())
            .find(|(kind, _)| *kind == NFTA_TABLE_USERDATA);
        found = Some(data.map_or_else(String::new, |(_, value)| user_comment(value)));
    });
    match asked {
        Ok(()) => Ok(found),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// nft keeps a comment as type 0, length, text and NUL.
fn user_comment(data: &[u8]) -> String {
    let text = match data {
        [0, length, text @ ..] => text.get(..usize::from(*length)).unwrap_or_default(),
        _ => &[],
    };
    String::from_utf8_lossy(text)
        .trim_end_matches('\0')
        .to_owned()
}

fn apply(script: &str) -> Result<()> {
    nft(script).map_err(|error| match error {
        Failure::Missing => Error::Hinted {
            message: "cannot set up the network: there is no nft program".to_owned(),
            hint: "install nftables, or give --network host or --network none".to_owned(),
        },
        Failure::Refused(why) => Error::Hinted {
            message: format!("cannot set up the network: nft: {why}"),
            hint: "is nf_tables with NAT in this kernel?".to_owned(),
        },
    })
}

/// Why a script was not applied.
enum Failure {
    Missing,
    Refused(String),
}

/// Gives nft one script, which it applies whole or not at all.
fn nft(script: &str) -> std::result::Result<(), Failure> {
    const PLACES: &[&str] = &["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];
    let program = PLACES.iter().find(|path| Path::new(path).exists());
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Failure::Missing,
        _ => Failure::Refused(error.to_string()),
    };
    let mut child = Command::new(program.unwrap_or(&"nft"))
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(refused)?;
    if let Some(mut stdin) = child.stdin.take() {
        // If it fails nft says why.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(refused)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let line = words.lines().next().unwrap_or("it failed without a word");
    Err(Failure::Refused(line.to_owned()))
}

/// Redirects the name server address of a container to the ports its server listens on, in the
/// namespace of the calling thread.
///
/// The well-known port stays free for a name server of the container's own.
///
/// # Errors
/// There is no nft, or it refuses.
pub fn redirect_names(udp: u16, tcp: u16) -> Result<()> {
    apply(&format!(
        "table ip rdocker-dns {{\n\tchain output {{\n\
         \t\ttype nat hook output priority -100; policy accept\n\
         \t\tip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:{udp}\n\
         \t\tip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:{tcp}\n\t}}\n}}\n"
    ))
}

/// There if it was us who made the host a router, since it was booted.
fn guard_file(host: &Host) -> std::path::PathBuf {
    host.exec_root.join("forwarding")
}

/// Lets the host forward packets.
///
/// A host that was no router must not become one for its neighbours, so that the rules then drop
/// what is not from or for a container.
///
/// # Errors
/// The kernel's parameter cannot be written.
pub fn allow_forwarding(host: &Host, ipv6: bool) -> Result<()> {
    let path = Path::new(if ipv6 {
        "/proc/sys/net/ipv6/conf/all/forwarding"
    } else {
        "/proc/sys/net/ipv4/ip_forward"
    });
    let is_on = fs::read_to_string(path).is_ok_and(|text| text.trim() != "0");
    if is_on || host.settings.ip_forward == Some(false) {
        return Ok(());
    }
    let guard = guard_file(host);
    fs::write(&guard, "").map_err(|errno| Error::host("write", &guard, errno))?;
    if ipv6 {
        keep_router_advertisements();
    }
    fs::write(path, "1").map_err(|errno| Error::host("write", path, errno))
}

/// A host that forwards hears no router advertisements any more unless it is told to (kernel,
/// ip-sysctl.rst, `accept_ra`); without this it would lose its own IPv6 routes.
fn keep_router_advertisements() {
    for link in fs::read_dir("/proc/sys/net/ipv6/conf")
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = link.path().join("accept_ra");
        if fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1") {
            // A link may vanish meanwhile.
            let _ = fs::write(&path, "2");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_read_from_the_tables_user_data() {
        assert_eq!(user_comment(b"\0\x05abcd\0"), "abcd");
        assert_eq!(user_comment(b"\0\xffab"), "");
        assert_eq!(user_comment(b""), "");
    }
}
