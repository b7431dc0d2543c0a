//! What callers pass through keel and what they wait for: descriptors, the terminal, the pid.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::error::{Error, Result};
use crate::plan::{Plan, Step};
use crate::spawn::Spawned;
use crate::state::{Record, Status};
use crate::sys::fd;

/// Descriptors that the caller passes through keel to the container.
#[derive(Debug, Clone, Copy)]
pub struct Handed {
    /// `$LISTEN_FDS`: from 3 on. Man page: sd_listen_fds(3).
    pub listen: u32,
    /// `--preserve-fds`: after those.
    pub preserve: u32,
}

/// Counts them and checks that they are open.
///
/// # Errors
/// [`Error::Usage`] for one that is not.
pub fn descriptors(preserve: u32) -> Result<Handed> {
    let listen: u32 = std::env::var("LISTEN_FDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let first = 3 + i64::from(listen);
    for number in first..first + i64::from(preserve) {
        if !i32::try_from(number).is_ok_and(fd::is_inherited) {
            let why = format!(
                "unable to stat preserved-fd {number} (of {preserve} fds): it is not open in keel"
            );
            return Err(Error::Usage(why));
        }
    }
    Ok(Handed { listen, preserve })
}

/// Opens the socket over which the process sends its terminal's master: `(ours, the process's)`.
///
/// With a console socket the peer is connected, but need not accept yet, and there is no end for
/// us; without one keel itself is the peer.
///
/// # Errors
/// [`Error::Host`] if nobody listens at `path`.
pub fn console(path: Option<&Path>) -> Result<(Option<OwnedFd>, OwnedFd)> {
    if let Some(path) = path {
        let stream = UnixStream::connect(path)
            .map_err(|error| Error::host("connect to console socket", path.display(), error))?;
        return Ok((None, stream.into()));
    }
    let (ours, theirs) =
        UnixStream::pair().map_err(|error| Error::host("make", "a console socket", error))?;
    Ok((Some(ours.into()), theirs.into()))
}

/// Receives the terminal's master that the process has sent.
///
/// # Errors
/// [`Error::Host`] or [`Error::Failed`] if it has not.
pub fn receive_terminal(socket: &OwnedFd) -> Result<OwnedFd> {
    let failed = |errno| Error::host("receive", "the terminal's master", errno);
    let (_, master) = fd::recv_fd(socket.as_fd(), &mut [0; 64]).map_err(failed)?;
    master.ok_or_else(|| Error::Failed("the container's process sent no terminal".into()))
}

/// Sends a pidfd over the unix socket at `path`, with `kind` as the message.
///
/// # Errors
/// [`Error::Host`] if nobody listens there.
pub fn send_pidfd(path: &Path, kind: &[u8], pidfd: BorrowedFd<'_>) -> Result<()> {
    let stream = UnixStream::connect(path)
        .map_err(|error| Error::host("connect to pidfd socket", path.display(), error))?;
    fd::send_fd(stream.as_fd(), kind, pidfd)
        .map_err(|errno| Error::host("send the pidfd to", path.display(), errno))
}

/// Hands the listener of the process's seccomp filter to the agent that answers its notifications.
///
/// runtime-spec, config-linux.md "The Container Process State": one message with the state as JSON
/// and the descriptor.
///
/// # Errors
/// [`Error::Host`] if the agent does not listen or the descriptor cannot be copied (Linux 5.6).
pub fn seccomp_listener(
    plan: &Plan,
    process: &mut Spawned,
    record: &Record,
    status: Status,
) -> Result<()> {
    let Some(listener) = plan
        .seccomp
        .as_ref()
        .and_then(|filter| filter.listener.as_ref())
    else {
        return Ok(());
    };
    let number = process.wait_for(plan, Step::SeccompListener)?.errno;
    let failed = |errno| {
        Error::host(
            "hand the seccomp listener to",
            listener.path.display(),
            errno,
        )
    };
    let copy = fd::pidfd_getfd(process.pidfd.as_fd(), number).map_err(failed)?;
    let state: serde_json::Value =
        serde_json::from_str(&record.for_hooks(status)).unwrap_or_default();
    let mut message = serde_json::json!({
        "ociVersion": record.oci_version,
        "fds": ["seccompFd"],
        "pid": process.pid,
        "state": state,
    });
    if !listener.metadata.is_empty() {
        message["metadata"] = listener.metadata.as_str().into();
    }
    let agent = UnixStream::connect(&listener.path).map_err(|error| {
        Error::host(
            "failed to connect with seccomp agent",
            listener.path.display(),
            error,
        )
    })?;
    fd::send_fd(agent.as_fd(), message.to_string().as_bytes(), copy.as_fd()).map_err(failed)
}

/// Writes the pid, in decimal without a newline, so that a reader sees all of it or nothing.
///
/// # Errors
/// [`Error::Host`] if the file cannot be written.
pub fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&temporary)?;
        file.write_all(pid.to_string().as_bytes())?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| Error::host("write pid file", path.display(), error))
}
