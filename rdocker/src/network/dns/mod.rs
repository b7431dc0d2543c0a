//! The name server of containers on user-defined networks, at 127.0.0.11 in each of them.
//!
//! One thread of the container's monitor. It answers for the containers on the networks that its
//! own is on, out of a file that each network has ([`names`]); everything else goes to the servers
//! that the host uses, from the host's own namespace, so that a server on the host's loopback
//! serves too. Containers on internal networks alone get no answers from outside (security.md K5).

pub mod codec;
pub mod names;

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::files::host_servers;
use codec::{Code, Question, Record};
use names::Names;

/// How long one of the servers above may take before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions that wait for the servers above at once.
const WAITING: usize = 512;
/// The largest datagram of DNS, with EDNS.
const DATAGRAM: usize = 64 << 10;
const STACK: usize = 128 << 10;

/// What the server answers from; it may change while it runs.
#[derive(Debug, Default)]
pub struct Zone {
    /// The files of the container's networks.
    pub networks: Vec<Names>,
    /// Names that this container alone uses: alias and the name it stands for.
    pub links: Vec<(String, String)>,
    /// Servers above that were asked for; empty asks the host's.
    pub servers: Vec<IpAddr>,
    /// Whether questions may go further at all.
    pub forwards: bool,
}

/// A running name server.
#[derive(Debug)]
pub struct NameServer {
    /// What it answers from.
    pub zone: Arc<Mutex<Zone>>,
    /// The thread has the other end, and ends when this one is closed.
    _alive: io::PipeWriter,
}

impl NameServer {
    /// Serves on these sockets of the container's namespace.
    ///
    /// # Errors
    /// A thread cannot be made.
    pub fn start(udp: UdpSocket, tcp: TcpListener, zone: Zone) -> io::Result<Self> {
        let zone = Arc::new(Mutex::new(zone));
        let (ended, alive) = io::pipe()?;
        tcp.set_nonblocking(true)?;
        let server = Server {
            udp,
            tcp,
            zone: Arc::clone(&zone),
            waiting: Vec::new(),
        };
        thread::Builder::new()
            .name("names".to_owned())
            .stack_size(STACK)
            .spawn(move || server.serve(&ended))?;
        Ok(Self {
            zone,
            _alive: alive,
        })
    }
}

/// A question that the servers above have not answered yet.
struct Waiting {
    socket: UdpSocket,
    client: SocketAddr,
    query: Vec<u8>,
    /// Servers that were not asked yet.
    left: Vec<SocketAddr>,
    deadline: Instant,
}

struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
    zone: Arc<Mutex<Zone>>,
    waiting: Vec<Waiting>,
}

/// What is known of a question here.
enum Verdict {
    Answer(Vec<u8>),
    /// Ask these, in this order.
    Forward(Vec<SocketAddr>),
}

fn decide(zone: &Mutex<Zone>, query: &[u8]) -> Option<Verdict> {
    let mut zone = zone.lock().unwrap_or_else(PoisonError::into_inner);
    let question = Question::parse(query);
    if let Some(question) = &question
        && let Some(records) = zone.records(question)
    {
        let answer = codec::answer(query, question, Code::NoError, &records);
        return Some(Verdict::Answer(answer));
    }
    if zone.forwards {
        let servers = if zone.servers.is_empty() {
            host_servers()
        } else {
            zone.servers.clone()
        };
        if !servers.is_empty() {
            let at = |address| SocketAddr::new(address, 53);
            return Some(Verdict::Forward(servers.into_iter().map(at).collect()));
        }
    }
    question.map(|question| Verdict::Answer(codec::answer(query, &question, Code::NoName, &[])))
}

impl Zone {
    /// What the networks say to a question; `None` if it is not theirs to answer.
    fn records(&mut self, question: &Question) -> Option<Vec<Record>> {
        if question.kind == codec::PTR {
            let address = codec::reverse(&question.name)?;
            let mut names = self.networks.iter_mut();
            let name = names.find_map(|names| names.name_of(address))?;
            return Some(vec![Record::Name(name)]);
        }
        let alias = self.links.iter().find(|(alias, _)| *alias == question.name);
        let name = alias.map_or(question.name.as_str(), |(_, name)| name.as_str());
        let mut known = false;
        let mut records = Vec::new();
        for names in &mut self.networks {
            for address in names.addresses(name) {
                known = true;
                let wanted = match question.kind {
                    codec::A => address.is_ipv4(),
                    codec::AAAA => address.is_ipv6(),
                    _ => false,
                };
                if wanted {
                    records.push(Record::Address(address));
                }
            }
        }
        known.then_some(records)
    }
}

impl Server {
    fn serve(mut self, ended: &io::PipeReader) {
        let mut chunk = vec![0; DATAGRAM];
        loop {
            let mut fds = vec![
                PollFd::new(ended.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.udp.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.tcp.as_fd(), PollFlags::POLLIN),
            ];
            let sockets = self.waiting.iter().map(|waiting| waiting.socket.as_fd());
            fds.extend(sockets.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            if !matches!(poll(&mut fds, self.timeout()), Ok(_) | Err(Errno::EINTR)) {
                return;
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            if ready[0] {
                return;
            }
            self.pass_answers(&ready[3..], &mut chunk);
            self.ask_others();
            if ready[1]
                && let Ok((length, client)) = self.udp.recv_from(&mut chunk)
            {
                self.on_query(&chunk[..length], client);
            }
            if ready[2]
                && let Ok((client, _)) = self.tcp.accept()
            {
                self.on_stream(client);
            }
        }
    }

    fn timeout(&self) -> PollTimeout {
        let Some(next) = self.waiting.iter().map(|waiting| waiting.deadline).min() else {
            return PollTimeout::NONE;
        };
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn on_query(&mut self, query: &[u8], client: SocketAddr) {
        match decide(&self.zone, query) {
            Some(Verdict::Answer(answer)) => {
                // A client that has gone needs no answer.
                let _ = self.udp.send_to(&answer, client);
            }
            Some(Verdict::Forward(left)) if self.waiting.len() < WAITING => {
                let waiting = ask(query.to_vec(), client, left);
                self.keep(waiting, client, query);
            }
            // The client asks again.
            Some(Verdict::Forward(_)) | None => {}
        }
    }

    fn keep(&mut self, waiting: Option<Waiting>, client: SocketAddr, query: &[u8]) {
        if let Some(waiting) = waiting {
            self.waiting.push(waiting);
        } else if let Some(question) = Question::parse(query) {
            let answer = codec::answer(query, &question, Code::ServerFailure, &[]);
            let _ = self.udp.send_to(&answer, client);
        }
    }

    /// Sends what the servers above have answered to those who asked.
    fn pass_answers(&mut self, ready: &[bool], chunk: &mut [u8]) {
        let mut index = 0;
        let udp = &self.udp;
        self.waiting.retain_mut(|waiting| {
            let is_ready = ready.get(index).copied().unwrap_or(false);
            index += 1;
            if !is_ready {
                return true;
            }
            match waiting.socket.recv(chunk) {
                // The socket is connected, so this is the server's; the number says it is for us.
                Ok(length) if chunk[..length].get(..2) == waiting.query.get(..2) => {
                    let _ = udp.send_to(&chunk[..length], waiting.client);
                    false
                }
                Ok(_) => true,
                Err(_) => {
                    waiting.deadline = Instant::now();
                    true
                }
            }
        });
    }

    /// Asks the next server where the last one has not answered in time.
    fn ask_others(&mut self) {
        let now = Instant::now();
        let late = self
            .waiting
            .extract_if(.., |waiting| waiting.deadline <= now);
        for waiting in late.collect::<Vec<_>>() {
            let next = ask(waiting.query.clone(), waiting.client, waiting.left);
            self.keep(next, waiting.client, &waiting.query);
        }
    }

    fn on_stream(&self, client: TcpStream) {
        let zone = Arc::clone(&self.zone);
        // Without a thread the client sees a closed connection.
        let _ = thread::Builder::new()
            .name("names".to_owned())
            .stack_size(STACK)
            .spawn(move || drop(serve_stream(&client, &zone)));
    }
}

/// Asks the first server that can be reached; `None` when there is none left.
fn ask(query: Vec<u8>, client: SocketAddr, left: Vec<SocketAddr>) -> Option<Waiting> {
    let mut left = left.into_iter();
    while let Some(server) = left.next() {
        // A socket for each question: its port is one more number that a forger has to guess.
        let any = if server.is_ipv6() {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        let sent = UdpSocket::bind(any).and_then(|socket| {
            socket.connect(server)?;
            socket.send(&query)?;
            Ok(socket)
        });
        if let Ok(socket) = sent {
            return Some(Waiting {
                socket,
                client,
                query,
                left: left.collect(),
                deadline: Instant::now() + PATIENCE,
            });
        }
    }
    None
}

/// Questions over TCP come one after the other, each with its length before it.
fn serve_stream(mut client: &TcpStream, zone: &Mutex<Zone>) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE * 5))?;
    client.set_write_timeout(Some(PATIENCE * 5))?;
    loop {
        let query = read_frame(client)?;
        let answer = match decide(zone, &query) {
            Some(Verdict::Answer(answer)) => answer,
            Some(Verdict::Forward(servers)) => ask_by_stream(&query, &servers)?,
            None => return Ok(()),
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        client.write_all(&length.to_be_bytes())?;
        client.write_all(&answer)?;
    }
}

fn read_frame(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn ask_by_stream(query: &[u8], servers: &[SocketAddr]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for server in servers {
        let asked = TcpStream::connect_timeout(server, PATIENCE).and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(&length.to_be_bytes())?;
            stream.write_all(query)?;
            read_frame(&stream)
        });
        match asked {
            Ok(answer) => return Ok(answer),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_answered_here_and_the_rest_goes_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("net");
        std::fs::write(&path, "10.0.0.2 web www\nfd00::2 web\n").unwrap();
        let mut zone = Zone {
            networks: vec![Names::new(path, "front")],
            links: vec![("db".to_owned(), "web".to_owned())],
            ..Zone::default()
        };
        let mut ask = |name: &str, kind| {
            let query = codec::tests::query(name, kind);
            zone.records(&Question::parse(&query).unwrap())
        };
        let v4 = Record::Address("10.0.0.2".parse().unwrap());
        let v6 = Record::Address("fd00::2".parse().unwrap());
        assert_eq!(ask("WEB", codec::A), Some(vec![v4.clone()]));
        assert_eq!(ask("db", codec::AAAA), Some(vec![v6]));
        assert_eq!(ask("www.front", codec::A), Some(vec![v4]));
        assert_eq!(ask("www", codec::AAAA), Some(vec![]));
        assert_eq!(
            ask("web", 15),
            Some(vec![]),
            "a known name without that record"
        );
        assert_eq!(ask("elsewhere", codec::A), None);
        let name = Record::Name("web.front".to_owned());
        assert_eq!(ask("2.0.0.10.in-addr.arpa", codec::PTR), Some(vec![name]));
    }

    #[test]
    fn a_server_that_is_silent_is_passed_over() {
        let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
        let query = codec::tests::query("example.org", codec::A);
        let client = "127.0.0.1:9".parse().unwrap();
        let servers = vec![upstream.local_addr().unwrap()];
        let waiting = ask(query.clone(), client, servers).unwrap();
        let mut got = [0; 512];
        let (length, _) = upstream.recv_from(&mut got).unwrap();
        assert_eq!(&got[..length], query);
        assert!(ask(waiting.query, client, waiting.left).is_none());
    }
}
