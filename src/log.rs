//! What keel writes about itself: `--log`, `--log-format`, `--debug`, and the one line of a failure.
//!
//! The format is logrus's, which runc's callers parse: containerd takes the last object with level
//! `error` and loses the message if `time` is not RFC 3339; podman decodes the *whole* JSON file as
//! one object. So a failure writes one object, and warnings that came before it go into that object.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use nix::errno::Errno;
use serde_json::{Map, Value};

use crate::error::{Error, Result, printable};
use crate::units::{Precision, rfc3339};

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `time="…" level=error msg="…"`
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Failures and warnings.
    #[default]
    Warning,
    /// Also what is being done (`--debug`).
    Debug,
}

/// The log of one invocation.
pub struct Log {
    /// The log file, or stderr.
    out: Box<dyn Write>,
    /// Where a failure is repeated for people when `out` is a file.
    repeat: Option<Box<dyn Write>>,
    style: Style,
    level: Level,
    /// JSON only: what `finish` writes, or `fail` takes into its object.
    warnings: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// [`Style::Plain`] if stderr is a terminal, else [`Style::Text`]: asked when there is something to write.
    ByTerminal,
    /// The message alone: someone is reading it on a terminal.
    Plain,
    Text,
    Json,
}

impl Log {
    /// Opens the log: the file at `path`, made with mode 0644 and appended to, or stderr.
    ///
    /// The file is made even if nothing will be logged: containerd takes a missing one for a runtime
    /// that could not be run.
    ///
    /// # Errors
    /// [`Error::Host`] if the file cannot be opened.
    pub fn open(path: Option<&Path>, format: Format, level: Level) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self::stderr(format, level));
        };
        let file = File::options()
            .append(true)
            .create(true)
            .mode(0o644)
            .open(path)
            .map_err(|errno| Error::host("open log", path.display(), errno))?;
        let style = match format {
            Format::Text => Style::Text,
            Format::Json => Style::Json,
        };
        Ok(Self {
            out: Box::new(file),
            repeat: Some(Box::new(std::io::stderr())),
            style,
            level,
            warnings: Vec::new(),
        })
    }

    /// A log on stderr: on a terminal, text is the message alone.
    pub fn stderr(format: Format, level: Level) -> Self {
        let style = match format {
            Format::Json => Style::Json,
            Format::Text => Style::ByTerminal,
        };
        Self {
            out: Box::new(std::io::stderr()),
            repeat: None,
            style,
            level,
            warnings: Vec::new(),
        }
    }

    /// Notes something that is ignored or doubtful, and goes on.
    pub fn warn(&mut self, message: &str) {
        let message = printable(message);
        if self.style == Style::Json {
            self.warnings.push(message);
        } else {
            self.write("warning", &message, Map::new());
        }
    }

    /// Notes what is being done, with `--debug`. `message` is not called without it.
    pub fn debug(&mut self, message: impl FnOnce() -> String) {
        if self.level == Level::Debug {
            let message = printable(&message());
            self.write("debug", &message, Map::new());
        }
    }

    /// Writes the failure's one line: `message` is [`Error::line`], perhaps with a verb's prefix.
    pub fn fail(&mut self, message: &str, error: &Error) {
        let mut fields = details(error);
        if !self.warnings.is_empty() {
            let warnings = std::mem::take(&mut self.warnings);
            fields.insert("warnings".into(), warnings.into());
        }
        self.write("error", message, fields);
        if let Some(stderr) = &mut self.repeat {
            // Nobody is left to tell if stderr is closed; the exit code remains.
            let _ = stderr.write_all(format!("{message}\n").as_bytes());
        }
    }

    /// Writes an error of which the process tells on its stderr to the log file only, if there is one.
    ///
    /// # Errors
    /// The error, if it is another one.
    pub fn unless_started(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_of_exec() {
            return Err(error);
        }
        if self.repeat.take().is_some() {
            self.fail(&error.line(), &error);
        }
        Ok(())
    }

    /// Writes the warnings of an invocation that has succeeded.
    pub fn finish(mut self) {
        for warning in std::mem::take(&mut self.warnings) {
            self.write("warning", &warning, Map::new());
        }
    }

    /// One line by one write, so that lines of runtimes that share a file do not mix.
    fn write(&mut self, level: &'static str, message: &str, fields: Map<String, Value>) {
        let time = rfc3339(SystemTime::now(), Precision::Seconds);
        if self.style == Style::ByTerminal {
            self.style = match std::io::stderr().is_terminal() {
                true => Style::Plain,
                false => Style::Text,
            };
        }
        let line = match self.style {
            Style::Plain if level == "error" => format!("keel: {message}\n"),
            Style::Plain => format!("keel: {level}: {message}\n"),
            Style::Text | Style::ByTerminal => {
                format!("time=\"{time}\" level={level} msg={}\n", quoted(message))
            }
            Style::Json => {
                let mut object = fields;
                object.insert("level".into(), level.into());
                object.insert("msg".into(), message.into());
                object.insert("time".into(), time.into());
                format!("{}\n", Value::Object(object))
            }
        };
        // A full disk must not turn a container's success into a failure.
        let _ = self.out.write_all(line.as_bytes());
    }
}

/// logrus quotes what is more than one plain word, in Go's string syntax.
fn quoted(message: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !message.is_empty() && message.chars().all(plain) {
        return message.to_owned();
    }
    // JSON's escapes are a subset of Go's.
    Value::from(message).to_string()
}

/// The parts of a failure that a program can act on without reading the message.
///
/// They are documented in `docs/errors.md`. Callers that know none of them ignore them: podman and
/// containerd read `level`, `msg` and `time`.
fn details(error: &Error) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut add = |key: &str, value: &str| {
        fields.insert(key.into(), value.into());
    };
    let code = error.code();
    add("code", code.name);
    add("remedy", code.remedy);
    match error {
        Error::Spec { file, at, .. } => {
            add("file", file);
            add("at", at);
        }
        Error::Refused { at, on, errno, .. } => {
            add("file", "config.json");
            add("at", at);
            add("call", "write");
            add("on", on);
            add("errno", &errno_name(errno));
        }
        Error::Setup { at, errno, .. } => {
            add("step", &at.0);
            add("errno", &errno_name(errno));
            fields.insert("item".into(), at.1.into());
        }
        Error::Host { call, on, errno } => {
            add("call", call);
            add("on", on);
            add("errno", &errno_name(errno));
        }
        _ => {}
    }
    fields
}

fn errno_name(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    struct Sink(Rc<RefCell<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).unwrap()
        }
    }

    fn log(style: Style, level: Level) -> (Log, Sink, Sink) {
        let (out, stderr) = (Sink::default(), Sink::default());
        let log = Log {
            out: Box::new(out.clone()),
            repeat: Some(Box::new(stderr.clone())),
            style,
            level,
            warnings: Vec::new(),
        };
        (log, out, stderr)
    }

    /// The text with its time replaced, which is the only part that changes.
    fn without_time(text: &str) -> String {
        let start = text.find("20").unwrap();
        let end = start + "2026-11-22T05:45:00Z".len();
        assert!(text[start..end].ends_with('Z'), "{text}");
        format!("{}T{}", &text[..start], &text[end..])
    }

    #[test]
    fn text_is_what_logrus_writes() {
        let (mut log, out, stderr) = log(Style::Text, Level::Warning);
        log.fail("keel: \"state\" requires\t1", &Error::NotFound);
        assert_eq!(
            without_time(&out.text()),
            "time=\"T\" level=error msg=\"keel: \\\"state\\\" requires\\t1\"\n"
        );
        assert_eq!(stderr.text(), "keel: \"state\" requires\t1\n");
    }

    #[test]
    fn one_plain_word_is_not_quoted() {
        for (message, want) in [("a/b.c-d", "a/b.c-d"), ("a b", "\"a b\""), ("", "\"\"")] {
            assert_eq!(quoted(message), want);
        }
    }

    #[test]
    fn a_json_failure_is_one_object_with_its_warnings_inside() {
        let (mut log, out, _) = log(Style::Json, Level::Warning);
        log.warn("one");
        log.warn("two");
        let errno = std::io::Error::from_raw_os_error(libc::EACCES);
        let error = Error::host("open", "/x", errno);
        log.fail(&error.line(), &error);
        let object: Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(object["level"], "error");
        assert_eq!(object["msg"], "open /x: permission denied");
        assert_eq!(object["code"], "permission-denied");
        assert_eq!(object["errno"], "EACCES");
        assert_eq!(object["on"], "/x");
        assert_eq!(object["warnings"], serde_json::json!(["one", "two"]));
        assert!(object["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn the_json_path_of_a_broken_rule_is_a_field() {
        let (mut log, out, _) = log(Style::Json, Level::Warning);
        let error = Error::spec(".mounts[1].type", "no");
        log.fail(&error.line(), &error);
        let object: Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(object["code"], "config-invalid");
        assert_eq!(object["file"], "config.json");
        assert_eq!(object["at"], ".mounts[1].type");
    }

    #[test]
    fn warnings_of_a_success_are_written_at_the_end() {
        let (mut log, out, stderr) = log(Style::Json, Level::Warning);
        log.warn("one");
        assert_eq!(out.text(), "");
        log.finish();
        let object: Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(object["level"], "warning");
        assert_eq!(object["msg"], "one");
        assert_eq!(stderr.text(), "");
    }

    #[test]
    fn debug_is_silent_without_the_flag() {
        let (mut quiet, out, _) = log(Style::Plain, Level::Warning);
        quiet.debug(|| unreachable!("the message is not made"));
        assert_eq!(out.text(), "");
        let (mut loud, out, _) = log(Style::Plain, Level::Debug);
        loud.debug(|| "clone3".into());
        loud.warn("odd");
        loud.fail("bad", &Error::NotFound);
        assert_eq!(
            out.text(),
            "keel: debug: clone3\nkeel: warning: odd\nkeel: bad\n"
        );
    }

    #[test]
    fn the_file_is_made_and_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        Log::open(Some(&path), Format::Json, Level::Warning).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        for text in ["one", "two"] {
            let mut log = Log::open(Some(&path), Format::Json, Level::Warning).unwrap();
            log.repeat = None;
            log.fail(text, &Error::NotFound);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        let missing = dir.path().join("no/log");
        let error = Log::open(Some(&missing), Format::Text, Level::Warning).err();
        assert!(error.unwrap().line().starts_with("open log "));
    }
}
