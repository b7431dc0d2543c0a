//! Another machine: a network namespace joined to the host's by a pair of links.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command};
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

/// The host's addresses towards it.
pub const HOST4: &str = "192.0.2.1";
pub const HOST6: &str = "2001:db8::1";
/// Its own.
pub const LAN4: &str = "192.0.2.2";
pub const LAN6: &str = "2001:db8::2";

pub struct Lan {
    /// Keeps the namespace.
    sleeper: Child,
}

/// Runs a program in the calling thread's namespace.
pub fn sh(script: &str) -> String {
    let out = Command::new("sh").args(["-ec", script]).output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{script}: {err}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

impl Lan {
    fn alone() -> Self {
        let sleeper = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            sh("ip link set lo up");
            Command::new("sleep").arg("1000").spawn().unwrap()
        });
        Self {
            sleeper: sleeper.join().unwrap(),
        }
    }

    /// A machine beside the host whose namespace the calling thread is in.
    pub fn new() -> Self {
        let lan = Self::alone();
        lan.join("lan0", (HOST4, HOST6), (LAN4, LAN6));
        lan
    }

    /// A machine on another network, to which the host has a link.
    pub fn beyond(host: &str, own: &str) -> Self {
        let lan = Self::alone();
        lan.join("far0", (host, "2001:db8:1::1"), (own, "2001:db8:1::2"));
        lan
    }

    fn join(&self, link: &str, host: (&str, &str), own: (&str, &str)) {
        let pid = self.sleeper.id();
        sh(&format!(
            "ip link add {link} type veth peer name eth0 netns {pid}
             ip addr add {}/24 dev {link}; ip addr add {}/64 dev {link} nodad
             ip link set {link} up",
            host.0, host.1
        ));
        self.within(|| {
            sh(&format!(
                "ip addr add {}/24 dev eth0; ip addr add {}/64 dev eth0 nodad
                 ip link set eth0 up",
                own.0, own.1
            ));
        });
    }

    /// Does something on that machine.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let netns = File::open(format!("/proc/{}/ns/net", self.sleeper.id())).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// Whom the server at this address sees; empty if it does not answer.
    pub fn fetch(&self, address: &str) -> String {
        self.within(|| fetch(address))
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _ = self.sleeper.kill();
        let _ = self.sleeper.wait();
    }
}

/// Whom the server at this address sees, from the calling thread's namespace; empty if it does
/// not answer.
pub fn fetch(address: &str) -> String {
    let address: SocketAddr = address.parse().unwrap();
    let patience = Duration::from_millis(700);
    let Ok(mut stream) = TcpStream::connect_timeout(&address, patience) else {
        return String::new();
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    if stream
        .write_all(b"GET /cgi-bin/who HTTP/1.0\r\n\r\n")
        .is_err()
    {
        return String::new();
    }
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    seen(&text)
}

/// The last line, with an IPv4 address as such.
pub fn seen(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default().trim();
    match line.strip_prefix("from [::ffff:") {
        Some(address) => format!("from {}", address.trim_end_matches(']')),
        None => line.to_owned(),
    }
}

/// What comes back for a datagram; empty if nothing does.
pub fn echo(address: &str) -> String {
    echo_from(0, address)
}

/// The same from a port of our own, 0 being any.
pub fn echo_from(port: u16, address: &str) -> String {
    let any = if address.starts_with('[') {
        "[::]"
    } else {
        "0.0.0.0"
    };
    let socket = UdpSocket::bind(format!("{any}:{port}")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(700)))
        .unwrap();
    let mut bytes = [0; 64];
    let _ = socket.send_to(b"ping", address);
    match socket.recv(&mut bytes) {
        Ok(length) => String::from_utf8_lossy(&bytes[..length]).into_owned(),
        Err(_) => String::new(),
    }
}
