//! A plain user's way to the network: pasta(1) speaks for the container, as that user.
//!
//! It takes what comes out of the container's namespace and makes ordinary connections of it, and
//! listens on the ports that are published. It needs no rights but the user's own and those of
//! /dev/net/tun. The container has the host's addresses, and cannot reach the host's loopback.

use std::fs;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::sandbox::{Sandbox, unpublish};
use super::{Protocol, Published};
use crate::error::{Error, Result};
use crate::runtime::locate;
use crate::sys;

const PROGRAM: &str = "pasta";
const TUN: &str = "/dev/net/tun";
/// Name of the container's link, as on a bridge.
pub const INTERFACE: &str = "eth0";
/// How long it may take to end.
const PATIENCE: Duration = Duration::from_secs(2);
/// One that ends sooner has a reason that is still there.
const SETTLED: Duration = Duration::from_millis(500);

/// A pasta that serves one container; it ends with this value.
#[derive(Debug)]
pub struct Pasta {
    process: OwnedFd,
    run: PathBuf,
    begun: Instant,
}

/// Whether there is a pasta, and what it needs.
///
/// # Errors
/// What is missing, with the way out.
pub fn check() -> Result<PathBuf> {
    let program = locate(Path::new(PROGRAM)).ok_or_else(|| Error::Hinted {
        message: "network bridge needs pasta where there is no root, and it is not installed"
            .to_owned(),
        hint: "install the package passt, or give --network host or --network none".to_owned(),
    })?;
    let tun = fs::File::options().read(true).write(true).open(TUN);
    match tun {
        Ok(_) => Ok(program),
        Err(errno) => Err(Error::Hinted {
            message: format!("pasta cannot open {TUN}: {errno}"),
            hint: format!(
                "as root: modprobe tun; chmod 666 {TUN}. Or give --network host or --network none"
            ),
        }),
    }
}

impl Pasta {
    /// Connects the namespace, which it also puts at its path in `run`, and publishes the ports.
    ///
    /// # Errors
    /// As [`check`]; a port cannot be forwarded; pasta's own words.
    pub fn start(sandbox: &Sandbox, run: &Path, published: &[Published]) -> Result<Self> {
        let program = check()?;
        let ports = forwards(published)?;
        sandbox.mount(run)?;
        let pid_file = run.join("pasta.pid");
        let mut command = Command::new(&program);
        command
            // It would become nobody, who may not enter the namespace.
            .args(["--quiet", "--runas", "0:0"])
            .args(["--config-net", "--no-map-gw", "--ns-ifname", INTERFACE])
            .args(["--tcp-ns", "none", "--udp-ns", "none"])
            .args(ports)
            .arg("--pid")
            .arg(&pid_file)
            .arg("--netns")
            .arg(Sandbox::path(run))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        // Locks of the user's engine are not for a process that outlives a monitor.
        sys::close_in_child(&mut command);
        // It comes back when the container is connected, and goes on in the background.
        let output = command.output();
        let output = output.map_err(|errno| Error::host("execute", &program, errno))?;
        if !output.status.success() {
            unpublish(run);
            return Err(refusal(&output.stderr));
        }
        let text = fs::read_to_string(&pid_file).unwrap_or_default();
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let process = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let Some(process) = process else {
            unpublish(run);
            return Err(refusal(b"it ended at once"));
        };
        Ok(Self {
            process,
            run: run.to_owned(),
            begun: Instant::now(),
        })
    }

    /// Readable when it has ended.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Whether it has served long enough that another one may do better than fail at once.
    pub fn has_lasted(&self) -> bool {
        self.begun.elapsed() > SETTLED
    }
}

impl Drop for Pasta {
    fn drop(&mut self) {
        // It is the first process of a process namespace of its own and handles no other signal:
        // pid_namespaces(7). It has nothing to take down.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        // Whoever hears of the end may count on the ports being free.
        let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        let mut ended = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ended, patience);
        unpublish(&self.run);
    }
}

fn refusal(stderr: &[u8]) -> Error {
    let text = String::from_utf8_lossy(stderr);
    // It complains about a syslog that is not there first.
    let line = text.lines().rfind(|line| !line.trim().is_empty());
    Error::Conflict(format!(
        "pasta: {}",
        line.unwrap_or("it failed without a word").trim()
    ))
}

/// The flags that publish ports: passt(1), `-t` and `-u`.
fn forwards(published: &[Published]) -> Result<Vec<String>> {
    let mut flags = Vec::new();
    for (protocol, flag) in [
        (Protocol::Tcp, "--tcp-ports"),
        (Protocol::Udp, "--udp-ports"),
    ] {
        let own = published.iter().filter(|one| one.protocol == protocol);
        let mut specs: Vec<String> = own.map(spec).collect();
        // A port of all addresses is bound in both families, and asked for once.
        specs.dedup();
        if specs.is_empty() {
            specs.push("none".to_owned());
        }
        flags.extend(specs.into_iter().flat_map(|spec| [flag.to_owned(), spec]));
    }
    if published.iter().any(|one| one.protocol == Protocol::Sctp) {
        return Err(Error::Hinted {
            message: "pasta does not forward SCTP".to_owned(),
            hint: "publish it as root, or give --network host".to_owned(),
        });
    }
    Ok(flags)
}

fn spec(one: &Published) -> String {
    let ports = format!("{}:{}", one.host_port, one.container_port);
    match one.host_ip {
        IpAddr::V4(address) if !address.is_unspecified() => format!("{address}/{ports}"),
        IpAddr::V6(address) if !address.is_unspecified() => format!("{address}/{ports}"),
        _ => ports,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(host_ip: &str, host_port: u16, protocol: Protocol) -> Published {
        Published {
            container_port: 80,
            protocol,
            host_ip: host_ip.parse().unwrap(),
            host_port,
        }
    }

    #[test]
    fn ports_become_flags_of_pasta() {
        use Protocol::{Sctp, Tcp, Udp};
        let all = [
            published("0.0.0.0", 8080, Tcp),
            published("::", 8080, Tcp),
            published("127.0.0.1", 81, Tcp),
            published("::1", 53, Udp),
        ];
        let want = "--tcp-ports 8080:80 --tcp-ports 127.0.0.1/81:80 --udp-ports ::1/53:80";
        assert_eq!(forwards(&all).unwrap().join(" "), want);
        let none = "--tcp-ports none --udp-ports none";
        assert_eq!(forwards(&[]).unwrap().join(" "), none);
        assert!(forwards(&[published("0.0.0.0", 1, Sctp)]).is_err());
    }

    #[test]
    fn its_last_words_are_the_ones_told() {
        let error = refusal(b"Failed to send 55 bytes to syslog\nNo such device\n\n");
        assert_eq!(error.to_string(), "pasta: No such device");
    }
}
