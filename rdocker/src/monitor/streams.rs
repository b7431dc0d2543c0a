//! The stdin, stdout and stderr of the container or of an exec: three pipes, or one terminal.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::termios::Winsize;

use super::client::is_transient;
use super::log::Lines;
use super::short_path;
use super::wire::Kind;
use crate::error::{Error, Result};
use crate::runtime::Stdio3;

/// Bytes of stdin kept for a container that does not read them yet.
const STDIN_MAX: usize = 256 << 10;

/// One stream out of the container.
#[derive(Debug)]
pub struct Output {
    file: File,
    /// Which stream clients see.
    pub kind: Kind,
    /// Cuts it into log entries.
    pub lines: Lines,
    /// It has ended.
    pub ended: bool,
}

/// The monitor's ends.
#[derive(Debug, Default)]
pub struct Streams {
    /// stdout and stderr, or the terminal alone.
    pub outputs: Vec<Output>,
    stdin: Option<File>,
    pending: Vec<u8>,
    /// Close stdin when nothing is pending any more.
    ending: bool,
    terminal: Option<OwnedFd>,
}

impl Streams {
    /// Makes three pipes; without `open_stdin` the container reads /dev/null.
    pub fn pipes(open_stdin: bool) -> io::Result<(Self, Stdio3)> {
        let (stdin_read, stdin_write) = if open_stdin {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            (read, Some(File::from(nonblocking(write)?)))
        } else {
            (File::open("/dev/null")?.into(), None)
        };
        let (stdout_read, stdout) = pipe2(OFlag::O_CLOEXEC)?;
        let (stderr_read, stderr) = pipe2(OFlag::O_CLOEXEC)?;
        let outputs = vec![
            output(stdout_read, Kind::Stdout)?,
            output(stderr_read, Kind::Stderr)?,
        ];
        let streams = Self {
            outputs,
            stdin: stdin_write,
            ..Self::default()
        };
        Ok((
            streams,
            Stdio3 {
                stdin: stdin_read,
                stdout,
                stderr,
            },
        ))
    }

    /// The streams of a terminal: of a program that `start` starts, given the path of the socket to
    /// which the runtime sends the master. The socket is in the run directory `run`.
    pub fn with_terminal(
        run: &Path,
        start: impl FnOnce(&Path, Stdio3) -> Result<()>,
    ) -> Result<Self> {
        let name = "console.sock";
        let socket = run.join(name);
        let fail = |what: &'static str| {
            let socket = socket.clone();
            move |errno| Error::host(what, &socket, errno)
        };
        let _ = fs::remove_file(&socket);
        let dir = File::open(run).map_err(fail("open the directory of"))?;
        let path = short_path(&dir, name);
        let listener = UnixListener::bind(&path).map_err(fail("make console socket"))?;
        let started = start(&path, Stdio3::null()?);
        let _ = fs::remove_file(&socket);
        started?;
        let master = receive_terminal(&listener);
        master
            .and_then(Self::terminal)
            .map_err(fail("get the terminal from"))
    }

    fn terminal(master: OwnedFd) -> io::Result<Self> {
        let input = master.try_clone()?;
        let terminal = master.try_clone()?;
        let outputs = vec![output(master, Kind::Stdout)?];
        Ok(Self {
            outputs,
            stdin: Some(File::from(nonblocking(input)?)),
            terminal: Some(terminal),
            ..Self::default()
        })
    }

    /// For poll(2), while there is stdin to write.
    pub fn stdin_fd(&self) -> Option<BorrowedFd<'_>> {
        self.stdin
            .as_ref()
            .filter(|_| !self.pending.is_empty())
            .map(AsFd::as_fd)
    }

    /// Whether more stdin may come.
    pub fn takes_stdin(&self) -> bool {
        self.pending.len() < STDIN_MAX
    }

    /// Passes bytes to the container; they are dropped if it has closed its stdin.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.stdin.is_some() {
            self.pending.extend_from_slice(bytes);
            self.write_stdin();
        }
    }

    /// Closes the container's stdin once it has everything. A terminal has no end.
    pub fn end_stdin(&mut self) {
        if self.terminal.is_none() {
            self.ending = true;
            self.write_stdin();
        }
    }

    /// Writes what fits.
    pub fn write_stdin(&mut self) {
        while let Some(file) = self.stdin.as_mut().filter(|_| !self.pending.is_empty()) {
            match file.write(&self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Nobody reads it any more.
                Err(_) => {
                    self.stdin = None;
                    self.pending = Vec::new();
                }
            }
        }
        if self.ending {
            self.stdin = None;
        }
    }

    /// Sets the size of the terminal.
    pub fn resize(&self, rows: u16, columns: u16) {
        if let Some(terminal) = &self.terminal {
            let size = Winsize {
                ws_row: rows,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            // The program may be gone already; there is nobody to tell.
            let _ = rustix::termios::tcsetwinsize(terminal, size);
        }
    }
}

impl Output {
    /// For poll(2).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Reads what is there into `chunk`; 0 at the end and when there is nothing now.
    pub fn read(&mut self, chunk: &mut [u8]) -> usize {
        match self.file.read(chunk) {
            Ok(0) => self.ended = true,
            Ok(length) => return length,
            Err(error) if is_transient(&error) => {}
            // EIO is how a terminal without processes ends.
            Err(_) => self.ended = true,
        }
        0
    }

    /// The log's name of this stream.
    pub fn name(&self) -> &'static str {
        if self.kind == Kind::Stderr {
            "stderr"
        } else {
            "stdout"
        }
    }
}

fn output(fd: OwnedFd, kind: Kind) -> io::Result<Output> {
    let file = File::from(nonblocking(fd)?);
    Ok(Output {
        file,
        kind,
        lines: Lines::default(),
        ended: false,
    })
}

fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(fd)
}

/// Takes the terminal that the runtime sent to the console socket (SCM_RIGHTS, one descriptor).
///
/// The runtime has ended by now, so the message is there or will never be.
fn receive_terminal(listener: &UnixListener) -> io::Result<OwnedFd> {
    listener.set_nonblocking(true)?;
    let (stream, _) = listener.accept()?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 4096];
    let mut parts = [io::IoSliceMut::new(&mut name)];
    rustix::net::recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fds = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.ok_or_else(|| io::Error::other("the OCI runtime sent no terminal"))
}
