//! Carries what arrives at a published port's own socket to the container.
//!
//! The kernel does not redirect what is sent to loopback addresses, so this does; and what comes
//! over IPv6 for a container that has none. Its threads have no capabilities (security.md K7).

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::ports::{Bound, Held};

/// Connections that one container's proxy carries at once; more wait to be accepted.
const CONNECTIONS: usize = 1024;
/// Threads here have little to remember.
const STACK: usize = 64 << 10;
/// Bytes carried at once.
const CHUNK: usize = 64 << 10;
/// How long a sender of datagrams is remembered (moby's docker-proxy).
const UDP_PATIENCE: Duration = Duration::from_secs(90);
/// How long the container may take to accept.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Keeps the ports of a container and serves them until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// The thread has the other end, and ends when this one is closed.
    _alive: io::PipeWriter,
}

/// A port and where it leads.
struct Port {
    held: Held,
    target: SocketAddr,
    senders: Senders,
}

impl Proxy {
    /// Serves every port, each from the container's address of its family if there is one.
    ///
    /// # Errors
    /// A thread cannot be made.
    pub fn start(
        bound: Vec<Bound>,
        ipv4: Option<IpAddr>,
        ipv6: Option<IpAddr>,
    ) -> io::Result<Self> {
        let mut ports = Vec::new();
        for Bound { published, held } in bound {
            let same_family = if published.host_ip.is_ipv6() {
                ipv6
            } else {
                ipv4
            };
            let Some(address) = same_family.or(ipv4).or(ipv6) else {
                continue;
            };
            if let Held::Tcp(listener) = &held {
                listener.set_nonblocking(true)?;
            }
            ports.push(Port {
                held,
                target: SocketAddr::new(address, published.container_port),
                senders: Senders::new(),
            });
        }
        let (ended, alive) = io::pipe()?;
        spawn(move || serve(&mut ports, &ended))?;
        Ok(Self { _alive: alive })
    }
}

fn serve(ports: &mut [Port], ended: &io::PipeReader) {
    // Without the right to give up rights there are none to give up.
    let _ = set_capabilities(None, nothing());
    let live = Arc::new(AtomicUsize::new(0));
    let mut chunk = vec![0; CHUNK];
    loop {
        let mut fds = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            ports
                .iter()
                .map(|port| PollFd::new(port.held.as_fd(), PollFlags::POLLIN)),
        );
        if !matches!(poll(&mut fds, PollTimeout::NONE), Ok(_) | Err(Errno::EINTR)) {
            return;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        if ready[0] {
            return;
        }
        for (port, _) in ports
            .iter_mut()
            .zip(&ready[1..])
            .filter(|(_, ready)| **ready)
        {
            match &port.held {
                Held::Tcp(listener) => accept(listener, port.target, &live),
                Held::Udp(socket) => pass_on(socket, port.target, &mut port.senders, &mut chunk),
                Held::Sctp(_) => {}
            }
        }
    }
}

fn nothing() -> CapabilitySets {
    CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name("proxy".to_owned())
        .stack_size(STACK)
        .spawn(work)
        .map(drop)
}

fn accept(listener: &TcpListener, target: SocketAddr, live: &Arc<AtomicUsize>) {
    if live.load(Ordering::Relaxed) >= CONNECTIONS {
        thread::sleep(Duration::from_millis(10));
        return;
    }
    match listener.accept() {
        Ok((client, _)) => {
            let count = Counted::new(live);
            // Without a thread the client is dropped, which it sees as a closed connection.
            let _ = spawn(move || {
                let _ = carry(&client, target);
                drop(count);
            });
        }
        // The client went away.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        // Out of descriptors, for example: the next round would be as quick to fail.
        Err(_) => thread::sleep(Duration::from_millis(10)),
    }
}

/// One of the connections that are counted.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(live))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Carries both directions until both have ended, each end told of the other's.
fn carry(client: &TcpStream, target: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&target, CONNECT_PATIENCE)?;
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (back, forth) = (server.try_clone()?, client.try_clone()?);
    thread::scope(|scope| {
        thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, move || pour(&back, &forth))?;
        pour(client, &server);
        Ok(())
    })
}

fn pour(mut from: &TcpStream, mut to: &TcpStream) {
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) if to.write_all(&chunk[..length]).is_ok() => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => {
                // Nobody reads any more: the sender has to hear of it.
                let _ = from.shutdown(Shutdown::Both);
                break;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Each sender of datagrams has a socket of its own, so that answers find their way back.
type Senders = HashMap<SocketAddr, (UdpSocket, Instant)>;

fn pass_on(socket: &UdpSocket, target: SocketAddr, senders: &mut Senders, chunk: &mut [u8]) {
    let Ok((length, from)) = socket.recv_from(chunk) else {
        return;
    };
    let now = Instant::now();
    senders.retain(|_, (_, last)| now.duration_since(*last) < UDP_PATIENCE);
    if !senders.contains_key(&from)
        && senders.len() < CONNECTIONS
        && let Ok(way) = way_back(socket, target, from)
    {
        senders.insert(from, (way, now));
    }
    if let Some((way, last)) = senders.get_mut(&from) {
        *last = now;
        // A datagram may be lost.
        let _ = way.send(&chunk[..length]);
    }
}

fn way_back(socket: &UdpSocket, target: SocketAddr, to: SocketAddr) -> io::Result<UdpSocket> {
    let any = if target.is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let way = UdpSocket::bind(any)?;
    way.connect(target)?;
    way.set_read_timeout(Some(UDP_PATIENCE))?;
    let (answers, socket) = (way.try_clone()?, socket.try_clone()?);
    spawn(move || {
        let mut chunk = vec![0; CHUNK];
        loop {
            match answers.recv(&mut chunk) {
                Ok(length) => drop(socket.send_to(&chunk[..length], to)),
                // The container's port is closed for now.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => return,
            }
        }
    })?;
    Ok(way)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Protocol, ports};

    fn publish(protocol: Protocol, target: SocketAddr) -> (Proxy, SocketAddr) {
        let want = ports::Want {
            container_port: target.port(),
            protocol,
            host_ip: Some("127.0.0.1".parse().unwrap()),
            host_ports: None,
        };
        let bound = ports::bind("web", &[want], |_, _| None).unwrap();
        let port = bound[0].published.host_port;
        let proxy = Proxy::start(bound, Some(target.ip()), None).unwrap();
        (proxy, SocketAddr::new("127.0.0.1".parse().unwrap(), port))
    }

    #[test]
    fn a_stream_is_carried_both_ways_and_ends_are_told_apart() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_proxy, published) = publish(Protocol::Tcp, server.local_addr().unwrap());
        let echo = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        });
        let mut client = TcpStream::connect(published).unwrap();
        let sent = vec![7; 1 << 20];
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got == sent);
        echo.join().unwrap();
    }

    #[test]
    fn datagrams_find_their_way_back() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (_proxy, published) = publish(Protocol::Udp, server.local_addr().unwrap());
        let clients = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        for (index, client) in clients.iter().enumerate() {
            client
                .send_to(&[u8::try_from(index).unwrap()], published)
                .unwrap();
        }
        for _ in &clients {
            let mut byte = [0];
            let (_, from) = server.recv_from(&mut byte).unwrap();
            server.send_to(&[byte[0] + 10], from).unwrap();
        }
        for (index, client) in clients.iter().enumerate() {
            let mut byte = [0];
            client
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            client.recv(&mut byte).unwrap();
            assert_eq!(usize::from(byte[0]), index + 10);
        }
    }
}
