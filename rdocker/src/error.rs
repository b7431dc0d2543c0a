//! What can go wrong, in Docker's words where scripts match them.

use std::io;
use std::path::{Path, PathBuf};

/// Result with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Exit code of a command that failed before the container's own program ran.
pub const EXIT_ENGINE: u8 = 125;
/// Exit code when the program was found but could not be executed.
pub const EXIT_NOT_EXECUTABLE: u8 = 126;
/// Exit code when the program was not found in the container.
pub const EXIT_NOT_FOUND: u8 = 127;

/// Why a command failed: one variant for each thing a caller can do about it.
///
/// `Display` never repeats its source; [`Error::chain`] joins the two for the one line a user reads.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing has this name or id prefix. `kind` is `container`, `volume`, `object`.
    #[error("{}", not_found(kind, name))]
    NotFound {
        /// What was looked for.
        kind: &'static str,
        /// The word the user typed.
        name: String,
    },
    /// The id prefix fits several containers.
    #[error("multiple IDs found with provided prefix: {prefix}")]
    Ambiguous {
        /// The prefix the user typed.
        prefix: String,
    },
    /// The thing exists but is in the wrong state, or its name is taken.
    #[error("{0}")]
    Conflict(String),
    /// A flag or value that cannot be honoured.
    #[error("{0}")]
    Invalid(String),
    /// What Docker's client refuses by itself, before it asks the engine.
    #[error("{0}")]
    Usage(String),
    /// A daemon was asked for by name.
    #[error("Cannot connect to the Docker daemon at {host}. Is the docker daemon running?")]
    NoDaemon {
        /// What `-H` or `DOCKER_HOST` says.
        host: String,
    },
    /// Something that cannot be honoured, with the way out.
    #[error("{message}")]
    Hinted {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// The OCI runtime refused or failed; `message` ends with its own line.
    #[error("{message}")]
    Runtime {
        /// The runtime's last error.
        message: String,
    },
    /// A Dockerfile is wrong.
    #[error(transparent)]
    Dockerfile(#[from] crate::dockerfile::Error),
    /// A step of a build failed.
    #[error("{file}:{line}: {instruction}")]
    Step {
        /// The Dockerfile.
        file: String,
        /// Where in it.
        line: usize,
        /// The instruction, as it was written.
        instruction: String,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// The command of a `RUN` failed.
    #[error("The command '{line}' returned a non-zero code: {code}")]
    Command {
        /// Its arguments.
        line: String,
        /// What it ended with.
        code: u8,
    },
    /// Files of a build could not be listed or copied.
    #[error(transparent)]
    Tree(#[from] crate::build::tree::Error),
    /// The container's program ended with this code; nothing to print.
    #[error("exit status {0}")]
    Exit(u8),
    /// Several arguments were worked through and some failed; their lines are already printed.
    #[error("some arguments failed")]
    Reported,
    /// A system call on a path failed.
    #[error("{call} {}", path.display())]
    Host {
        /// What was being done.
        call: &'static str,
        /// To which file.
        path: PathBuf,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// A terminal is wanted for a stdin that is none.
    #[error("the input device is not a TTY")]
    NoTerminal,
    /// The process beside a container ended in the middle of a talk.
    #[error("the monitor of container {id} is gone")]
    MonitorGone {
        /// The container.
        id: String,
    },
    /// A file on disk does not parse.
    #[error("{} is not valid", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// An image could not be found, read or made.
    #[error(transparent)]
    Image(#[from] crate::image::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// Writing to the terminal failed.
    #[error("write to the terminal")]
    Terminal(#[source] io::Error),
}

fn not_found(kind: &str, name: &str) -> String {
    match kind {
        "volume" => format!("get {name}: no such volume"),
        _ => format!("No such {kind}: {name}"),
    }
}

impl Error {
    /// A failed system call on `path`.
    pub fn host(call: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Host {
            call,
            path: path.to_owned(),
            source: source.into(),
        }
    }

    /// A failed system call on a file that the user named and Docker's client would open itself.
    pub fn local(call: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Usage(Self::host(call, path, source).chain())
    }

    /// `No such container: NAME`.
    pub fn no_container(name: &str) -> Self {
        Self::NotFound {
            kind: "container",
            name: name.to_owned(),
        }
    }

    /// Whether Docker's client says this by itself, without `Error response from daemon`.
    fn is_the_clients(&self) -> bool {
        use crate::image::Error as Image;
        matches!(
            self,
            Self::Usage(_)
                | Self::NoDaemon { .. }
                | Self::NoTerminal
                | Self::Terminal(_)
                | Self::Image(Image::Reference(_) | Image::InvalidArgument(_))
        )
    }

    /// What stands before the error: what Docker writes there for whoever typed `docker`, as
    /// scripts look for it; else plainly `Error`.
    pub fn prefix(&self, program: &str) -> &'static str {
        match program {
            "docker" if self.is_the_clients() => "",
            "docker" => "Error response from daemon: ",
            _ if matches!(self, Self::NoTerminal | Self::NoDaemon { .. }) => "",
            // Some of Docker's own sentences begin with it.
            _ if matches!(self, Self::Usage(text) if text.starts_with("Error: ")) => "",
            _ => "Error: ",
        }
    }

    /// The message and its causes on one line, errno text last.
    pub fn chain(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&text(error));
            cause = error.source();
        }
        line
    }

    /// What the user can do about it, if anything is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Hinted { hint, .. } => Some(hint),
            Self::NoDaemon { .. } => {
                Some("rdocker works without a daemon: unset DOCKER_HOST and leave out -H")
            }
            Self::Step { source, .. } => source.hint(),
            Self::Image(error) => error.hint(),
            _ => None,
        }
    }

    /// The code of a build's command that failed: what `build` ends with, as Docker's does.
    pub fn build_exit_code(&self) -> Option<u8> {
        match self {
            Self::Step { source, .. } => source.build_exit_code(),
            Self::Command { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the other end of our stdout went away, which is nobody's error.
    pub fn is_broken_pipe(&self) -> bool {
        use crate::image::{Error as Image, tar::Error as Archive};
        let error = match self {
            Self::Terminal(error) => error,
            Self::Image(Image::Archive(Archive::Io { source, .. } | Archive::Stream(source))) => {
                source
            }
            _ => return false,
        };
        error.kind() == io::ErrorKind::BrokenPipe
    }

    /// The exit code of `run`, `create` and `start -a`: 126 and 127 when the program is at fault.
    ///
    /// The words are those every OCI runtime uses; dockerd and its client look for the same ones
    /// (moby `daemon/errors.go`, docker/cli `cli/command/container/run.go`).
    pub fn run_exit_code(&self) -> u8 {
        match self {
            Self::Runtime { message } => program_exit_code(message).unwrap_or(EXIT_ENGINE),
            Self::Exit(code) => *code,
            Self::NoTerminal => 1,
            _ => EXIT_ENGINE,
        }
    }
}

/// 126 or 127 if `message` says that the program could not be executed or found.
pub fn program_exit_code(message: &str) -> Option<u8> {
    const CASES: &[(&str, u8)] = &[
        ("permission denied", EXIT_NOT_EXECUTABLE),
        ("is a directory", EXIT_NOT_EXECUTABLE),
        ("exec format error", EXIT_NOT_EXECUTABLE),
        ("not a directory", EXIT_NOT_FOUND),
        ("executable file not found", EXIT_NOT_FOUND),
        ("no such file or directory", EXIT_NOT_FOUND),
    ];
    let lower = message.to_lowercase();
    CASES
        .iter()
        .find(|(words, _)| lower.contains(words))
        .map(|(_, code)| *code)
}

/// A cause in words; an errno as every tool around containers writes it, `no such file or directory`.
fn text(error: &(dyn std::error::Error + 'static)) -> String {
    let errno = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error);
    errno.map_or_else(
        || error.to_string(),
        |errno| nix::errno::Errno::from_raw(errno).desc().to_lowercase(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtime_messages_choose_docker_exit_codes() {
        let cases = [
            ("exec: \"nosuch\": executable file not found in $PATH", 127),
            (
                "exec: \"/nosuch\": stat /nosuch: no such file or directory",
                127,
            ),
            ("exec: \"/etc\": is a directory", 126),
            ("exec: \"/etc/passwd\": permission denied", 126),
            ("fork: resource temporarily unavailable", 125),
        ];
        for (message, want) in cases {
            let error = Error::Runtime {
                message: message.to_owned(),
            };
            assert_eq!(error.run_exit_code(), want, "{message}");
        }
    }

    #[test]
    fn whoever_types_docker_reads_what_docker_writes() {
        let missing = Error::no_container("x");
        let usage = Error::Usage("cannot copy directory".to_owned());
        let cases = [
            (&missing, "docker", "Error response from daemon: "),
            (&missing, "rdocker", "Error: "),
            (&usage, "docker", ""),
            (&usage, "rdocker", "Error: "),
            (&Error::NoTerminal, "rdocker", ""),
        ];
        for (error, program, want) in cases {
            assert_eq!(error.prefix(program), want, "{error} {program}");
        }
    }

    #[test]
    fn the_errno_text_comes_last_and_once() {
        let cause = io::Error::from_raw_os_error(2);
        let error = Error::host("open", Path::new("/x"), cause);
        assert_eq!(error.chain(), "open /x: no such file or directory");
    }
}
