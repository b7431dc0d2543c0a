//! The only writer to a terminal: lines, tables and `--format` templates.

pub mod build;
pub mod format;
pub mod list;
pub mod progress;
pub mod table;
pub mod template;
pub mod terminal;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use crate::error::{Error, Result};

/// Standard output and standard error of one command.
pub struct Ui {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// What the user typed to start us, for usage lines: `rdocker` or `docker`.
    pub program: String,
}

impl Ui {
    /// Writes to the process's own stdout and stderr.
    pub fn terminal(program: String) -> Self {
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            program,
        }
    }

    /// Writes to the given streams; for tests.
    pub fn to(out: impl Write + 'static, err: impl Write + 'static) -> Self {
        Self {
            out: Box::new(out),
            err: Box::new(err),
            program: "rdocker".to_owned(),
        }
    }

    /// One line on stdout.
    pub fn line(&mut self, text: impl Display) -> Result<()> {
        writeln!(self.out, "{text}").map_err(Error::Terminal)
    }

    /// Bytes on stdout as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.out
            .write_all(bytes)
            .and_then(|()| self.out.flush())
            .map_err(Error::Terminal)
    }

    /// Bytes on stderr as they are.
    pub fn error_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.err
            .write_all(bytes)
            .and_then(|()| self.err.flush())
            .map_err(Error::Terminal)
    }

    /// One line on stderr.
    pub fn error_line(&mut self, text: impl Display) -> Result<()> {
        writeln!(self.err, "{text}").map_err(Error::Terminal)
    }

    /// The one line of `error` on stderr, and its hint.
    pub fn tell(&mut self, error: &Error) -> Result<()> {
        self.tell_after(error.prefix(&self.program), error)
    }

    /// The same with another beginning of the line.
    pub fn tell_after(&mut self, prefix: &str, error: &Error) -> Result<()> {
        self.error_line(format_args!(
            "{prefix}{}",
            format::printable(&error.chain())
        ))?;
        match error.hint() {
            Some(hint) => self.error_line(format_args!("hint: {hint}")),
            None => Ok(()),
        }
    }

    /// `WARNING: …` on stderr.
    pub fn warn(&mut self, text: impl Display) -> Result<()> {
        self.error_line(format_args!("WARNING: {text}"))
    }

    /// Asks and reads one line from stdin: only `y` or `yes` agrees.
    pub fn confirm(&mut self, question: &str) -> Result<bool> {
        let answer = self.ask(&format!("{question} [y/N] "))?;
        Ok(matches!(answer.to_lowercase().as_str(), "y" | "yes"))
    }

    /// Asks and reads one line from stdin, without the white space around it.
    pub fn ask(&mut self, question: &str) -> Result<String> {
        self.bytes(question.as_bytes())?;
        let mut answer = String::new();
        io::stdin()
            .read_line(&mut answer)
            .map_err(Error::Terminal)?;
        Ok(answer.trim().to_owned())
    }

    /// Asks and reads what is typed at the terminal, which does not show it; `None` if the user
    /// gives up.
    pub fn ask_secret(&mut self, question: &str) -> Result<Option<String>> {
        // Before the question, so that not even a fast typist's first key is shown.
        let raw = terminal::RawMode::enter()?;
        let answer = self
            .bytes(question.as_bytes())
            .and_then(|()| terminal::read_keys());
        drop(raw);
        self.line("")?;
        answer
    }

    /// Makes everything written so far visible.
    pub fn flush(&mut self) -> Result<()> {
        self.out
            .flush()
            .and_then(|()| self.err.flush())
            .map_err(Error::Terminal)
    }
}

/// Whether stdin is a terminal.
pub fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Whether stdout is a terminal.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}
