//! The Dockerfile language: text to stages of instructions, nothing executed and no file read.
//!
//! - [`lines`]: directives, comments, continuations and here-documents become logical lines.
//! - [`parse`]: a logical line becomes an [`Instruction`]; lines become [`Stage`]s.
//! - [`flags`]: the `--flag` words between an instruction's name and its arguments.
//! - [`word`]: quotes and `$variables`.
//! - [`suggest`]: the word that was meant.
//!
//! Source: docs.docker.com, "Dockerfile reference" (syntax docker/dockerfile:1).

pub mod flags;
pub mod lines;
pub mod parse;
pub mod suggest;
#[cfg(test)]
mod tests;
pub mod word;

use crate::image::config::Healthcheck;

pub use lines::Heredoc;
pub use parse::{instruction, is_instruction, parse};

/// A whole Dockerfile.
#[derive(Debug, Clone, PartialEq)]
pub struct Dockerfile {
    /// The character that escapes and continues lines: `\` or a backtick.
    pub escape: char,
    /// `ARG` instructions before the first `FROM`; only `FROM` lines see them.
    pub arguments: Vec<Step>,
    /// The stages in their order.
    pub stages: Vec<Stage>,
}

/// From one `FROM` to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// The name after `AS`, in lower case.
    pub name: Option<String>,
    /// Image, stage or `scratch`, before variables are expanded.
    pub base: String,
    /// `--platform`, before variables are expanded.
    pub platform: Option<String>,
    /// Line of its `FROM`, from 1.
    pub line: usize,
    /// Its `FROM` line as it was written.
    pub text: String,
    /// What follows.
    pub steps: Vec<Step>,
}

/// An instruction and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Line of its first word, from 1.
    pub line: usize,
    /// The instruction as it was written, continuation lines joined.
    pub text: String,
    /// What it says.
    pub instruction: Instruction,
}

/// What one instruction says; variables are not expanded yet.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are those of the language")]
pub enum Instruction {
    Add(Transfer),
    Arg(Vec<(String, Option<String>)>),
    Cmd(Command),
    Copy(Transfer),
    Entrypoint(Command),
    Env(Vec<(String, String)>),
    Expose(Vec<String>),
    Healthcheck(Check),
    Label(Vec<(String, String)>),
    Maintainer(String),
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    Stopsignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// `["a", "b"]` or a line for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The JSON form.
    Exec(Vec<String>),
    /// Anything else.
    Shell(String),
}

/// The arguments of `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What is executed. With here-documents the shell form's line alone.
    pub command: Command,
    /// Each `--mount` value, before variables are expanded.
    pub mounts: Vec<String>,
    /// `--network`.
    pub network: Option<String>,
    /// `--security`.
    pub security: Option<String>,
    /// Here-documents of the line.
    pub heredocs: Vec<Heredoc>,
}

/// The arguments of `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transfer {
    /// What is copied; empty if it is here-documents alone.
    pub sources: Vec<String>,
    /// Where to.
    pub target: String,
    /// Here-documents among the sources: their content under their name.
    pub heredocs: Vec<Heredoc>,
    /// `--from`: a stage, its number, an image, a named context.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, each.
    pub exclude: Vec<String>,
    /// `--checksum`.
    pub checksum: Option<String>,
    /// `--keep-git-dir`.
    pub keep_git_dir: bool,
    /// `--unpack`; `None` unpacks local archives only.
    pub unpack: Option<bool>,
}

/// `HEALTHCHECK`: its command is complete, because the shell of the image runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check(pub Healthcheck);

/// Why a Dockerfile is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dockerfile parse error on line {line}: {message}")]
pub struct Error {
    /// From 1.
    pub line: usize,
    /// What is wrong, in BuildKit's words where it has some.
    pub message: String,
}

impl Error {
    pub(crate) fn at(line: usize) -> impl Fn(String) -> Error {
        move |message| Error { line, message }
    }
}

impl Instruction {
    /// The instruction's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::Stopsignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }
}
