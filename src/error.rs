//! Why a command failed: one variant for each thing a caller can do about it.
//!
//! `Display` says what was being done and to what, and never repeats its `source`; [`Error::line`]
//! walks the chain and joins it with `": "`, so the errno text is always last. Several wordings are
//! matched by containerd, podman, CRI-O and Docker and must not change; they are marked *matched*.

use std::io;

pub mod code;

use code::Code;

use crate::sys;

/// The result of everything in keel that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// See the module text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// *Matched* by containerd, podman, CRI-O.
    #[error("container does not exist")]
    NotFound,
    /// *Matched* by containerd.
    #[error("container with given ID already exists")]
    Exists,
    /// *Matched* by containerd and CRI-O.
    #[error("container not running")]
    NotRunning,
    /// The container's status does not allow the command; the text is the whole line.
    #[error("{0}")]
    WrongStatus(String),
    /// The command line asks for something that cannot be: the text names flag and remedy.
    #[error("{0}")]
    Usage(String),
    /// config.json (or process.json) breaks a rule; `at` is a JSON path like `.mounts[3].type`.
    #[error("{file}: {at}: {why}")]
    Spec {
        /// The file as the user named it.
        file: String,
        /// JSON path of the offending value, starting with a dot.
        at: String,
        /// The rule that it breaks, and the remedy where there is one.
        why: String,
    },
    /// The kernel does not take a value of config.json.
    #[error("config.json: {at}: {why}: write \"{value}\" to {on}")]
    Refused {
        /// JSON path of the value, starting with a dot.
        at: String,
        /// What that means, or what to do about it.
        why: &'static str,
        /// The value in the kernel's spelling.
        value: String,
        /// The file that it was written to.
        on: String,
        /// Why the kernel refused.
        #[source]
        errno: io::Error,
    },
    /// The container's first process stopped at a step of the plan; `step` is the plan's wording.
    #[error("{step}")]
    Setup {
        /// What was being done, to which item of the plan.
        step: String,
        /// The step's name in kebab case, and the number of the item in its list.
        at: (String, u16),
        /// Why the kernel refused.
        #[source]
        errno: io::Error,
    },
    /// A system call of the runtime itself failed.
    #[error("{call} {on}")]
    Host {
        /// The call or the act, in a word or two: `mkdir`, `open`, `write to`.
        call: &'static str,
        /// The path or object it was applied to.
        on: String,
        /// Why the kernel refused.
        #[source]
        errno: io::Error,
    },
    /// A failure of a known kind whose text is one complete line.
    #[error("{1}")]
    Known(Code, String),
    /// A failure whose text is already one complete line.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// A failed call of the runtime on a path or object.
    pub fn host(
        call: &'static str,
        on: impl std::fmt::Display,
        errno: impl Into<io::Error>,
    ) -> Self {
        Self::Host {
            call,
            on: on.to_string(),
            errno: errno.into(),
        }
    }

    /// A rule of config.json that is broken at JSON path `at`.
    pub fn spec(at: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Spec {
            file: "config.json".into(),
            at: at.into(),
            why: why.into(),
        }
    }

    /// Whether the process has become the container's, and only its program could not be executed: it has
    /// been started then, as with runc and crun, says so on its stderr, and ends with 255.
    pub fn is_of_exec(&self) -> bool {
        matches!(self, Self::Setup { at, .. } if at.0 == "exec")
    }

    /// Its code in the JSON log.
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound => Code::CONTAINER_NOT_FOUND,
            Self::Exists => Code::CONTAINER_EXISTS,
            Self::NotRunning => Code::CONTAINER_NOT_RUNNING,
            Self::WrongStatus(_) => Code::WRONG_STATUS,
            Self::Usage(_) => Code::USAGE,
            Self::Spec { .. } | Self::Refused { .. } => Code::CONFIG_INVALID,
            Self::Setup { at, errno, .. } => Code::of_step(&at.0, errno.raw_os_error()),
            Self::Host { errno, .. } => match errno.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => Code::PERMISSION_DENIED,
                _ => Code::HOST_CALL_FAILED,
            },
            Self::Known(code, _) => *code,
            Self::Failed(_) => Code::FAILED,
        }
    }

    /// The one line a user reads: this error and its sources, joined by `": "`, as [`printable`] has it.
    ///
    /// A line of more than [`LONGEST`] bytes loses its middle: a path of a megabyte in config.json is
    /// quoted by many messages, and what matters stands at the ends.
    pub fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&errno_text(error));
            cause = error.source();
        }
        without_middle(printable(&line))
    }
}

/// `text` without what a terminal takes for a command: names come from images, lines from hooks. A line
/// break becomes a blank, another control character but the tab its escape: `\u{1b}`.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => safe.push(' '),
            '\t' => safe.push(c),
            c if c.is_control() => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe
}

/// The longest line of an error, in bytes. conmon reads at most 8 KiB of a runtime's stderr.
const LONGEST: usize = 3072;

fn without_middle(line: String) -> String {
    if line.len() <= LONGEST {
        return line;
    }
    let boundary = |at: usize| (at..line.len()).find(|at| line.is_char_boundary(*at));
    let head = boundary(LONGEST * 2 / 3).unwrap_or(0);
    let tail = boundary(line.len() - LONGEST / 3).unwrap_or(line.len());
    format!("{} [...] {}", &line[..head], &line[tail..])
}

/// The error's text; for an errno the C library's words alone, in lower case as callers match them
/// (`permission denied`, `no such file or directory`), without Rust's ` (os error 13)`.
fn errno_text(error: &(dyn std::error::Error + 'static)) -> String {
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error)
    {
        Some(errno) => {
            let (first, rest) = sys::words_of(errno);
            format!("{}{rest}", char::from(first))
        }
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errno_comes_last_in_the_words_callers_match() {
        let error = Error::host("open", "/x", io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(error.line(), "open /x: permission denied");
    }

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(Error::Failed("a\nb\rc".into()).line(), "a b c");
    }

    #[test]
    fn a_line_is_no_command_for_a_terminal() {
        let name = "/\u{1b}]0;title\u{7}\u{9b}2J\ttab";
        let line = Error::Failed(name.into()).line();
        assert_eq!(line, "/\\u{1b}]0;title\\u{7}\\u{9b}2J\ttab");
    }

    #[test]
    fn a_line_that_is_too_long_keeps_both_ends() {
        let name = format!("begin{}end", "ä".repeat(LONGEST));
        let line = Error::host("open", name, io::Error::from_raw_os_error(libc::EACCES)).line();
        assert!(line.len() < LONGEST + 20, "{} bytes", line.len());
        assert!(line.starts_with("open beginä"), "{line}");
        assert!(line.ends_with("äend: permission denied"), "{line}");
    }
}
