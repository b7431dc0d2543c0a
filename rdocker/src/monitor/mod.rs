//! The small process beside every running container.
//!
//! It holds the container's stdio, writes its log, serves attached clients, reaps it, records its
//! exit code, restarts it by policy and checks its health. One thread, one poll(2) loop; it
//! outlives whoever started it, and is the only writer of `state.json` while it lives.
//!
//! Order at the end of a run (`wait`, `attach` and scripts rely on it): state and event are on
//! disk → attached clients get the last output and the exit code → waiters are answered → the
//! container is removed if it was started with `--rm` → those who wait for that are answered.

pub mod client;
mod exec;
mod health;
pub mod log;
mod policy;
pub use policy::{STOP_SECONDS, stop_signal};
mod run;
mod serve;
mod streams;
pub mod wire;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::container::record::{self, Places, Record, State, Status};
use crate::container::{Containers, remove};
use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::network::attach::Attached;
use crate::runtime::Runtime;
use crate::store::lock::FileLock;
use crate::sys;

use client::{Awaits, Client};
use run::Run;
use wire::Reply;

/// How long a monitor waits for its first client to say `start`.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a monitor that is done waits for clients to take the rest.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long after something happened a monitor gives back the memory that it took.
const REST: Duration = Duration::from_secs(2);

/// The monitor's whole state.
struct Monitor<'a> {
    host: &'a Host,
    places: Places,
    record: Record,
    state: State,
    runtime: Runtime,
    log: Option<log::LogFile>,
    clients: Vec<Client>,
    run: Option<Run>,
    execs: Vec<exec::Exec>,
    network: Option<Attached>,
    health: Option<health::Checker>,
    delay: policy::Delay,
    restart_at: Option<Instant>,
    kill_at: Option<Instant>,
    rest_at: Option<Instant>,
    /// Nothing more will run: answer and leave.
    done: Option<Instant>,
}

/// What a descriptor in the poll set is.
#[derive(Clone, Copy)]
enum Token {
    Signals,
    Listener,
    Client(usize),
    Output(usize),
    Stdin,
    /// The exec, and which of its streams.
    ExecOutput(usize, usize),
    ExecStdin(usize),
    Health,
    Rules,
    WayOut,
}

/// Runs the monitor of container `id` to its end. Its stdin is its first client.
///
/// # Errors
/// The container is gone, or another monitor has it.
pub fn main(host: &Host, id: &str) -> Result<()> {
    let first = detach().map_err(|errno| Error::host("detach from", Path::new("stdin"), errno))?;
    let container = Containers::new(host).load(id)?;
    let places = container.places.clone();
    let Some(_lock) = FileLock::try_exclusive(&places.monitor_lock())? else {
        return Err(Error::Conflict(format!(
            "container {id} has a monitor already"
        )));
    };
    let listener =
        listen(&places.run).map_err(|errno| Error::host("listen in", &places.run, errno))?;
    let signals = signals().map_err(|errno| Error::host("watch", Path::new("signals"), errno))?;
    let mut monitor = Monitor {
        host,
        runtime: Runtime::find(host, &container.record.host_config.runtime)?,
        log: None,
        clients: Vec::new(),
        run: None,
        execs: Vec::new(),
        network: None,
        health: None,
        delay: policy::Delay::default(),
        restart_at: None,
        kill_at: None,
        rest_at: None,
        done: None,
        state: container.state,
        record: container.record,
        places,
    };
    monitor.open_log()?;
    monitor.clients.extend(Client::new(first));
    monitor.serve(&listener, &signals)
}

/// Leaves the caller's session and terminal; gives the connection that stdin is.
fn detach() -> io::Result<UnixStream> {
    // EPERM: already a session leader.
    let _ = nix::unistd::setsid();
    nix::sys::prctl::set_child_subreaper(true)?;
    let first: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let null = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    std::env::set_current_dir("/")?;
    Ok(UnixStream::from(first))
}

/// Signals arrive by descriptor; children get an empty mask back from std when they are spawned.
fn signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
    ] {
        set.add(signal);
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(
        &set,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

fn listen(run: &Path) -> io::Result<UnixListener> {
    let _ = fs::remove_file(run.join(Places::socket_name()));
    let dir = fs::File::open(run)?;
    let listener = UnixListener::bind(short_path(&dir, Places::socket_name()))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A path to `name` in the open directory that fits in a socket address.
///
/// `sun_path` holds 107 bytes (unix(7)), less than some data roots need. The path is good in
/// other processes too, as long as this one keeps `dir` open.
pub fn short_path(dir: &fs::File, name: &str) -> PathBuf {
    PathBuf::from(format!(
        "/proc/{}/fd/{}/{name}",
        std::process::id(),
        dir.as_raw_fd()
    ))
}

impl Monitor<'_> {
    /// The loop: wait for something to happen, deal with it, until nothing is left to do.
    fn serve(&mut self, listener: &UnixListener, signals: &SignalFd) -> Result<()> {
        let born = Instant::now();
        loop {
            let ready = self.wait_for_events(listener, signals)?;
            if !ready.is_empty() && self.run.is_some() {
                self.rest_at.get_or_insert(Instant::now() + REST);
            }
            for (token, flags) in ready {
                self.handle(token, flags, listener, signals)?;
            }
            self.forget_closed();
            self.on_time()?;
            let idle = self.run.is_none() && self.restart_at.is_none() && self.done.is_none();
            if idle && (self.clients.is_empty() || born.elapsed() > PATIENCE) {
                // Nobody said start: undo what the starter prepared.
                return self.leave();
            }
            if let Some(deadline) = self.done
                && (Instant::now() >= deadline || !self.clients.iter().any(Client::has_output))
            {
                return Ok(());
            }
        }
    }

    fn wait_for_events(
        &self,
        listener: &UnixListener,
        signals: &SignalFd,
    ) -> Result<Vec<(Token, PollFlags)>> {
        let watch = |token, fd, flags| (token, PollFd::new(fd, flags));
        let mut set = vec![
            watch(Token::Signals, signals.as_fd(), PollFlags::POLLIN),
            watch(Token::Listener, listener.as_fd(), PollFlags::POLLIN),
        ];
        for (index, client) in self.clients.iter().enumerate() {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::POLLIN, self.may_send(client));
            wanted.set(PollFlags::POLLOUT, client.has_output());
            set.push(watch(Token::Client(index), client.fd(), wanted));
        }
        if let Some(run) = &self.run {
            let behind = self
                .clients
                .iter()
                .any(|c| c.attached.is_some() && c.is_behind());
            for (index, output) in run.streams.outputs.iter().enumerate() {
                if !output.ended && !behind {
                    set.push(watch(Token::Output(index), output.fd(), PollFlags::POLLIN));
                }
            }
            if let Some(fd) = run.streams.stdin_fd() {
                set.push(watch(Token::Stdin, fd, PollFlags::POLLOUT));
            }
        }
        self.watch_execs(&mut set);
        if let Some(fd) = self.health.as_ref().and_then(health::Checker::fd) {
            set.push(watch(Token::Health, fd, PollFlags::POLLIN));
        }
        if let Some(network) = &self.network {
            if let Some(rules) = &network.rules {
                set.push(watch(Token::Rules, rules.as_fd(), PollFlags::POLLIN));
            }
            if let Some(fd) = network.way_out() {
                set.push(watch(Token::WayOut, fd, PollFlags::POLLIN));
            }
        }
        let (tokens, mut fds): (Vec<Token>, Vec<PollFd<'_>>) = set.into_iter().unzip();
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::host("poll", &self.places.run, errno)),
        }
        let ready = fds.iter().zip(tokens).filter_map(|(fd, token)| {
            let flags = fd.revents().unwrap_or(PollFlags::empty());
            (!flags.is_empty()).then_some((token, flags))
        });
        Ok(ready.collect())
    }

    /// Whether a client is read from: not while what it sends has nowhere to go.
    fn may_send(&self, client: &Client) -> bool {
        if let Some(exec) = &client.exec {
            return self.exec_takes_stdin(exec);
        }
        let sends_stdin = client.attached.is_some_and(|attached| attached.stdin);
        let run = self.run.as_ref().filter(|_| sends_stdin);
        run.is_none_or(|run| run.streams.takes_stdin())
    }

    /// Until the next thing that happens by the clock; a second at most while clients leave.
    fn timeout(&self) -> PollTimeout {
        let health = self.health.as_ref().map(health::Checker::next);
        let patience = (self.run.is_none() && self.restart_at.is_none())
            .then(|| Instant::now() + Duration::from_secs(1));
        let times = [
            self.restart_at,
            self.kill_at,
            self.rest_at,
            self.done,
            health,
            patience,
        ];
        let Some(next) = times.into_iter().flatten().min() else {
            return PollTimeout::NONE;
        };
        // A millisecond more, so that the time has come when poll returns.
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn handle(
        &mut self,
        token: Token,
        flags: PollFlags,
        listener: &UnixListener,
        signals: &SignalFd,
    ) -> Result<()> {
        match token {
            Token::Signals => self.on_signals(signals)?,
            Token::Listener => {
                if let Ok((stream, _)) = listener.accept() {
                    self.clients.extend(Client::new(stream));
                }
            }
            Token::Client(index) => {
                if flags.contains(PollFlags::POLLOUT) {
                    self.clients[index].flush();
                }
                if flags.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
                    self.on_client(index)?;
                }
            }
            Token::Output(index) => self.on_output(index),
            Token::Stdin => {
                if let Some(run) = &mut self.run {
                    run.streams.write_stdin();
                }
            }
            Token::ExecOutput(at, index) => {
                self.on_exec_output(at, index);
            }
            Token::ExecStdin(at) => self.write_exec_stdin(at),
            Token::Health => {
                if let Some(health) = &mut self.health {
                    health.read();
                }
            }
            Token::Rules => {
                if let Some(network) = &self.network {
                    network.on_rules(self.host);
                }
            }
            Token::WayOut => self.on_lost_way_out()?,
        }
        Ok(())
    }

    fn on_signals(&mut self, signals: &SignalFd) -> Result<()> {
        while let Ok(Some(info)) = signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo)
                .ok()
                .and_then(|n| Signal::try_from(n).ok());
            if signal == Some(Signal::SIGTERM) {
                // The machine goes down: stop the container as a user would.
                let timeout = self
                    .record
                    .config
                    .stop_timeout
                    .unwrap_or(policy::STOP_SECONDS);
                self.stop(policy::stop_signal(&self.record.config), timeout)?;
            }
        }
        self.reap()
    }

    /// What the clock brings: SIGKILL after a stop, memory to give back, a restart, a health check.
    fn on_time(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.signal(libc::SIGKILL)?;
        }
        if self.rest_at.is_some_and(|at| at <= now) {
            self.rest_at = None;
            sys::give_back();
        }
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart_at = None;
            self.restart()?;
        }
        if self.state.status == Status::Running
            && let Some(health) = &mut self.health
            && health.on_time(&self.runtime, &self.places, &self.record, now)
        {
            self.publish_health()?;
        }
        Ok(())
    }

    /// Puts `state.json` in place.
    fn save(&self) -> Result<()> {
        record::write_state(&self.places.dir, &self.state)
    }

    fn event(&self, action: &str, more: &[(&str, String)]) -> Result<()> {
        events::container(self.host, &self.record, action, more)
    }

    fn open_log(&mut self) -> Result<()> {
        let mut config = self.record.host_config.log_config.clone();
        if config.kind == "none" {
            return Ok(());
        }
        for (key, value) in &self.host.settings.log_opts {
            config
                .options
                .entry(key.clone())
                .or_insert_with(|| value.clone());
        }
        let path = self.places.log(&self.record.id);
        let rotation = log::Rotation::from_options(&config)?;
        let file = log::LogFile::open(&path, rotation);
        self.log = Some(file.map_err(|errno| Error::host("open", &path, errno))?);
        Ok(())
    }

    /// Takes everything down that the container had while it ran; removes it if it is `--rm`.
    fn leave(&mut self) -> Result<()> {
        self.detach();
        remove::take_down(self.host, &self.record, &self.places);
        self.done = Some(Instant::now() + FAREWELL);
        for client in &mut self.clients {
            if client.awaits == Some(Awaits::Exit) || client.awaits == Some(Awaits::Stop) {
                client.awaits = None;
                client.reply(&Reply::Exited {
                    code: self.state.exit_code,
                });
            }
        }
        if self.record.host_config.auto_remove {
            let container = Containers::new(self.host).load(&self.record.id)?;
            remove::purge(self.host, &container, remove::Anonymous::Remove)?;
        }
        for client in &mut self.clients {
            if client.awaits.take().is_some() {
                client.reply(&Reply::Exited {
                    code: self.state.exit_code,
                });
            }
        }
        Ok(())
    }
}
