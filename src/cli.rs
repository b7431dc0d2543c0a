//! The command line: global flags, the verbs, and what a wrong one is answered.
//!
//! runc's callers decide the syntax (see [`flags`]) and the words of an error; clap holds the
//! definitions, converts values and prints the help. Only the verb in use is built: nineteen
//! definitions would cost `keel state` more than its work.

mod flags;
mod verbs;

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, Command, FromArgMatches};

use self::flags::{Split, Stop, Until, split};
pub use self::verbs::Verb;
use self::verbs::{Row, VERBS, base, definition, grammar, laid_out};
use crate::bundle::SPEC_VERSION;
use crate::context::Global;
use crate::error::Error;

/// A command line, understood or not.
#[derive(Debug)]
pub struct Invocation {
    /// The global flags; the defaults if they are what was not understood. They come apart from
    /// the verb because a wrong verb is also reported by `--log`.
    pub global: Global,
    /// The verb, or what to answer instead.
    pub verb: Result<Verb, Exit>,
}

/// Why there is nothing to do.
#[derive(Debug)]
pub enum Exit {
    /// Help or the version was asked for: print it on stdout, exit 0.
    Asked(String),
    /// The command line is wrong.
    Wrong {
        /// For stdout: how it is used. Empty if the verb is known and the flags are right.
        usage: String,
        /// For the log.
        error: Error,
        /// The exit code.
        code: u8,
    },
}

/// Understands `argv`, whose first word is the program's name.
pub fn parse(argv: impl IntoIterator<Item = OsString>) -> Invocation {
    let mut argv = argv.into_iter();
    let program = argv.next().unwrap_or_else(|| "keel".into());
    let program = program.to_string_lossy().into_owned();
    let command = globals();
    let mut broken = Invocation {
        global: Global::default(),
        verb: Err(Exit::Asked(String::new())),
    };
    let Split { flags, mut words } = match split(&command, argv.collect(), Until::FirstWord) {
        Ok(split) => split,
        Err(stop) => {
            broken.verb = Err(stopped(stop, overview()));
            return broken;
        }
    };
    let found = match command.try_get_matches_from(&flags) {
        Ok(found) => found,
        Err(error) => {
            broken.verb = Err(wrong(overview(), Error::Usage(value_error(&error)), 1));
            return broken;
        }
    };
    let global = Global::from_arg_matches(&found).expect("the flags that globals() defines");
    let verb = if found.get_flag("version") {
        Err(Exit::Asked(version()))
    } else if words.is_empty() {
        Err(Exit::Asked(overview()))
    } else {
        let name = words.remove(0).to_string_lossy().into_owned();
        parse_verb(&program, &name, words)
    };
    Invocation { global, verb }
}

fn parse_verb(program: &str, name: &str, words: Vec<OsString>) -> Result<Verb, Exit> {
    if name == "help" || name == "h" {
        return Err(help(words));
    }
    let row = row(name)?;
    let command = grammar(row);
    let split = split(&command, words, row.until)
        .map_err(|stop| stopped(stop, definition(row).render_help().to_string()))?;
    let misuse = |why: String, code| {
        wrong(
            definition(row).render_help().to_string(),
            Error::Usage(why),
            code,
        )
    };
    if let Some(why) = row.words.refuse(split.words.len()) {
        return Err(misuse(
            format!("{program}: {name:?} requires {why} argument(s)"),
            1,
        ));
    }
    let Split { flags, mut words } = split;
    // Nothing is called "--": the habit of marking the command with it is harmless.
    if row.until == Until::FirstWord && words.get(1).is_some_and(|word| word == "--") {
        words.remove(1);
    }
    if let Some(id) = row.words.id(&words) {
        // The code that `exec` fails with: see Verb::failure_code.
        let code = if row.name == "exec" { 255 } else { 1 };
        check_id(&id.to_string_lossy()).map_err(|error| wrong(String::new(), error, code))?;
    }
    let line = flags.into_iter().chain(["--".into()]).chain(words);
    command
        .try_get_matches_from(line)
        .and_then(|found| (row.read)(&found))
        .map_err(|error| misuse(value_error(&error), 1))
}

/// Refuses what is no container id: letters, digits and `_ + - .`, but not `.` and `..`.
///
/// The id becomes a directory's name, so this is also what keeps a caller inside the root.
///
/// # Errors
/// In runc's words.
pub fn check_id(id: &str) -> Result<(), Error> {
    /// The longest name a directory can have (`NAME_MAX`, limits.h).
    const LONGEST: usize = 255;
    if id.is_empty() {
        return Err(Error::Usage("container id cannot be empty".into()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if !id.chars().all(allowed) || id == "." || id == ".." {
        let shown: String = id.chars().take(64).collect();
        return Err(Error::Usage(format!(
            "invalid container ID format: {shown:?}: letters, digits, _ + - . make an id"
        )));
    }
    if id.len() > LONGEST {
        return Err(Error::Usage(format!(
            "invalid container ID format: {} characters, and {LONGEST} are the most",
            id.len()
        )));
    }
    Ok(())
}

fn row(name: &str) -> Result<&'static Row, Exit> {
    VERBS.iter().find(|row| row.name == name).ok_or_else(|| {
        // The exit code and the words are urfave/cli's, and those of every runc.
        let why = format!("No help topic for '{name}'");
        wrong(String::new(), Error::Usage(why), 3)
    })
}

fn help(words: Vec<OsString>) -> Exit {
    let Some(name) = words.first() else {
        return Exit::Asked(overview());
    };
    match row(&name.to_string_lossy()) {
        Ok(row) => Exit::Asked(definition(row).render_help().to_string()),
        Err(exit) => exit,
    }
}

fn stopped(stop: Stop, help: String) -> Exit {
    match stop {
        Stop::Help => Exit::Asked(help),
        Stop::Wrong(why) => wrong(help, Error::Usage(why), 1),
    }
}

fn wrong(help: String, error: Error, code: u8) -> Exit {
    let usage = if help.is_empty() {
        help
    } else {
        format!("Incorrect Usage. {}\n\n{help}", error.line())
    };
    Exit::Wrong { usage, error, code }
}

/// A value that clap could not convert, in the words of Go's flag package.
fn value_error(error: &clap::Error) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let shown = text(ContextKind::InvalidArg);
    let name = shown.split(' ').next().unwrap_or_default();
    let why = std::error::Error::source(error)
        .map_or_else(|| error.kind().to_string(), |e| e.to_string());
    if why.starts_with("invalid log-format") {
        return why;
    }
    let value = text(ContextKind::InvalidValue);
    match name.strip_prefix("--") {
        Some(flag) => format!("invalid value {value:?} for flag -{flag}: {why}"),
        None => format!("invalid value {value:?} for {name}: {why}"),
    }
}

fn globals() -> Command {
    let version = clap::Arg::new("version")
        .long("version")
        .short('v')
        .action(clap::ArgAction::SetTrue)
        .help("Print the version");
    Global::augment_args(base("keel")).arg(version)
}

/// The whole command line as clap sees it, for shell completions and manual pages.
pub fn command() -> Command {
    let verbs = VERBS
        .iter()
        .map(|row| definition(row).no_binary_name(false));
    globals()
        .no_binary_name(false)
        .about("Run containers by the Open Container Initiative's runtime specification")
        .subcommand_required(true)
        .subcommands(verbs)
}

/// The help of keel itself.
fn overview() -> String {
    let mut text = String::from(
        "NAME:\n   keel - Open Container Initiative runtime\n\n\
         USAGE:\n   keel [OPTIONS] <COMMAND> [ARGUMENTS]\n\nCOMMANDS:\n",
    );
    for row in VERBS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:<11} {}", row.name, row.about);
    }
    let globals = laid_out(globals()).render_help().to_string();
    let options = globals.find("OPTIONS:").unwrap_or_default();
    let _ = write!(
        text,
        "\n{}\nEXAMPLE:\n   keel run --bundle /srv/web web   run the bundle in /srv/web as web\n\n\
         keel help COMMAND says more about one command.\n",
        &globals[options..]
    );
    text
}

/// The lines of `--version`. Docker reads the first and the one that begins with `commit:`.
pub fn version() -> String {
    let commit = option_env!("KEEL_COMMIT").unwrap_or("unknown");
    format!(
        "keel version {}\ncommit: {commit}\nspec: {}\n",
        env!("CARGO_PKG_VERSION"),
        SPEC_VERSION
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Invocation {
        parse(["keel"].iter().chain(line).map(OsString::from))
    }

    /// The verb's fields, or `code: error`, with `(usage)` in front if usage is shown.
    fn outcome(line: &[&str]) -> String {
        match parsed(line).verb {
            Ok(verb) => format!("{verb:?}"),
            Err(Exit::Asked(text)) => {
                let mut lines = text.lines();
                // Help has a heading first.
                let line = lines.find(|line| *line != "NAME:").unwrap_or("");
                format!("asked: {}", line.trim_start())
            }
            Err(Exit::Wrong { usage, error, code }) => {
                let shown = if usage.is_empty() { "" } else { "(usage) " };
                format!("{shown}{code}: {}", error.line())
            }
        }
    }

    /// line, what the verb's fields contain
    const UNDERSTOOD: &[(&[&str], &[&str])] = &[
        // containerd's shim through go-runc
        (
            &[
                "--root",
                "/r",
                "--log",
                "/l",
                "--log-format",
                "json",
                "create",
                "--bundle",
                "/b",
                "--pid-file",
                "/p",
                "--console-socket",
                "/s",
                "--no-pivot",
                "--no-new-keyring",
                "c",
            ],
            &[
                "Create(",
                "bundle: \"/b\"",
                "pid_file: Some(\"/p\")",
                "console_socket: Some(\"/s\")",
                "no_pivot: true",
                "no_new_keyring: true",
                "id: \"c\"",
            ],
        ),
        (
            &[
                "exec",
                "--process",
                "/x",
                "--detach",
                "--pid-file",
                "/p",
                "c",
            ],
            &[
                "Exec(",
                "process: Some(\"/x\")",
                "detach: true",
                "command: []",
            ],
        ),
        (
            &[
                "restore",
                "--image-path",
                "/i",
                "-no-subreaper",
                "--bundle",
                "/b",
                "c",
            ],
            &["Restore(", "no_subreaper: true"],
        ),
        (
            &["update", "--resources=-", "c"],
            &["Update(", "resources: Some(\"-\")"],
        ),
        (&["ps", "--format", "json", "c"], &["Ps(", "format: Json"]),
        (
            &["kill", "--all", "c", "9"],
            &["Kill(", "all: true", "signal: \"9\""],
        ),
        (&["delete", "--force", "c"], &["Delete(", "force: true"]),
        (
            &["events", "--interval=5s", "--stats", "c"],
            &["interval: 5s", "stats: true"],
        ),
        (
            &[
                "checkpoint",
                "--image-path",
                "/i",
                "--leave-running",
                "--empty-ns",
                "network",
                "c",
            ],
            &[
                "leave_running: true",
                "empty_ns: [\"network\"]",
                "status_fd: -1",
            ],
        ),
        // CRI-O, conmon, buildkit
        (&["kill", "c", "TERM"], &["signal: \"TERM\""]),
        (&["kill", "-a", "c", "15"], &["all: true"]),
        (
            &["update", "--resources", "-", "c"],
            &["resources: Some(\"-\")"],
        ),
        (
            &["run", "--bundle", "/b", "--keep", "c"],
            &["Run(", "keep: true", "detach: false"],
        ),
        (&["start", "c"], &["Start(", "id: \"c\""]),
        (&["features"], &["Features"]),
        // people
        (
            &["create", "c", "--bundle", "/b"],
            &["bundle: \"/b\"", "id: \"c\""],
        ),
        (
            &["create", "c"],
            &["bundle: \".\"", "preserve_fds: 0", "pid_file: None"],
        ),
        (&["create", "--pid-file", "", "c"], &["pid_file: None"]),
        (
            &["create", "-b", "/a", "-b", "/b", "c"],
            &["bundle: \"/b\""],
        ),
        (&["exec", "-it=false", "c"], &["defined: -it"]),
        (
            &["exec", "-td", "c", "ls", "-l", "--detach"],
            &[
                "tty: true",
                "detach: true",
                "command: [\"ls\", \"-l\", \"--detach\"]",
            ],
        ),
        (
            &["exec", "c", "--", "ls", "--"],
            &["command: [\"ls\", \"--\"]"],
        ),
        (
            &["exec", "-e", "A=1,B", "-e", "C=", "c", "x"],
            &["env: [\"A=1,B\", \"C=\"]"],
        ),
        (
            &["exec", "--no-new-privs", "c", "x"],
            &["no_new_privs: Some(true)"],
        ),
        (
            &["exec", "--no-new-privs=false", "c", "x"],
            &["no_new_privs: Some(false)"],
        ),
        (
            &["exec", "c", "x"],
            &["no_new_privs: None", "additional_gids: []"],
        ),
        (
            &["exec", "-g", "1", "-g", "2", "c", "x"],
            &["additional_gids: [1, 2]"],
        ),
        (
            &["ps", "c", "-o", "pid"],
            &["format: Table", "ps: [\"-o\", \"pid\"]"],
        ),
        (
            &[
                "update",
                "--cpu-quota",
                "-1",
                "--memory",
                "64M",
                "--memory-swap=-1",
                "c",
            ],
            &[
                "cpu_quota: Some(-1)",
                "memory: Some(67108864)",
                "memory_swap: Some(-1)",
            ],
        ),
        (
            &["list", "-f", "json", "-q"],
            &["format: Json", "quiet: true"],
        ),
        (&["plan"], &["bundle: \".\""]),
        (
            &["plan", "/b", "--format=json"],
            &["bundle: \"/b\"", "format: Json"],
        ),
        (
            &["mounts", "add", "c", "f"],
            &["action: Add", "id: \"c\"", "file: \"f\""],
        ),
        (&["spec", "--rootless"], &["rootless: true"]),
    ];

    #[test]
    fn what_runc_s_callers_send_is_understood() {
        for (line, wants) in UNDERSTOOD {
            let got = outcome(line);
            for want in *wants {
                assert!(got.contains(want), "{line:?}: {want:?} is not in {got}");
            }
        }
    }

    /// line, outcome
    const WRONG: &[(&[&str], &str)] = &[
        (&["bogus"], "3: No help topic for 'bogus'"),
        (&["help", "bogus"], "3: No help topic for 'bogus'"),
        (
            &["--bogus"],
            "(usage) 1: flag provided but not defined: -bogus",
        ),
        (&["--root"], "(usage) 1: flag needs an argument: -root"),
        (
            &["--log-format", "xml", "list"],
            "(usage) 1: invalid log-format: xml",
        ),
        (
            &["--debug=maybe", "list"],
            "(usage) 1: invalid boolean value \"maybe\" for -debug: parse error",
        ),
        (
            &["--rootless=perhaps", "list"],
            "(usage) 1: invalid value \"perhaps\" for flag -rootless: true, false and auto exist",
        ),
        (
            &["state"],
            "(usage) 1: keel: \"state\" requires exactly 1 argument(s)",
        ),
        (
            &["state", "a", "b"],
            "(usage) 1: keel: \"state\" requires exactly 1 argument(s)",
        ),
        (
            &["kill"],
            "(usage) 1: keel: \"kill\" requires a minimum of 1 argument(s)",
        ),
        (
            &["kill", "a", "b", "c"],
            "(usage) 1: keel: \"kill\" requires a maximum of 2 argument(s)",
        ),
        (
            &["exec"],
            "(usage) 1: keel: \"exec\" requires a minimum of 1 argument(s)",
        ),
        (
            &["list", "x"],
            "(usage) 1: keel: \"list\" requires exactly 0 argument(s)",
        ),
        (
            &["state", "--x", "c"],
            "(usage) 1: flag provided but not defined: -x",
        ),
        (
            &["restore", "--lsm-mount-context"],
            "(usage) 1: flag needs an argument: -lsm-mount-context",
        ),
        (
            &["create", "--preserve-fds", "x", "c"],
            "(usage) 1: invalid value \"x\" for flag -preserve-fds: invalid digit found in string",
        ),
        (
            &["create", "--preserve-fds=-1", "c"],
            "(usage) 1: invalid value \"-1\" for flag -preserve-fds: -1 is not in 0..=4294967295",
        ),
        (
            &["list", "-f", "xml"],
            "(usage) 1: invalid value \"xml\" for flag -format: invalid format option: table and json exist",
        ),
        (
            &["events", "--interval", "5", "c"],
            "(usage) 1: invalid value \"5\" for flag -interval: a duration is wanted, such as 5s, 300ms or 1m30s",
        ),
        (
            &["mounts", "move", "c", "f"],
            "(usage) 1: invalid value \"move\" for <ACTION>: add and remove exist",
        ),
        (&["state", ""], "1: container id cannot be empty"),
        (&["exec", "", "x"], "255: container id cannot be empty"),
        (
            &["state", ".."],
            "1: invalid container ID format: \"..\": letters, digits, _ + - . make an id",
        ),
        (
            &["create", "a/b"],
            "1: invalid container ID format: \"a/b\": letters, digits, _ + - . make an id",
        ),
        (
            &["create", "a\nb"],
            "1: invalid container ID format: \"a\\nb\": letters, digits, _ + - . make an id",
        ),
        (
            &["create", "é"],
            "1: invalid container ID format: \"é\": letters, digits, _ + - . make an id",
        ),
        (
            &["mounts", "add", "a/b", "f"],
            "1: invalid container ID format: \"a/b\": letters, digits, _ + - . make an id",
        ),
    ];

    #[test]
    fn a_wrong_line_is_answered_in_runc_s_words() {
        let long = "a".repeat(256);
        assert_eq!(
            outcome(&["create", &long]),
            "1: invalid container ID format: 256 characters, and 255 are the most"
        );
        for (line, want) in WRONG {
            assert_eq!(outcome(line), *want, "{line:?}");
        }
    }

    #[test]
    fn help_and_version_are_answers_not_errors() {
        let version = concat!("asked: keel version ", env!("CARGO_PKG_VERSION"));
        assert_eq!(outcome(&["--version"]), version);
        assert_eq!(outcome(&["-v"]), version);
        let about = "asked: keel - Open Container Initiative runtime";
        for line in [&[][..], &["help"], &["--help"], &["-h"]] {
            assert_eq!(outcome(line), about, "{line:?}");
        }
        for row in VERBS {
            let wanted = format!("asked: keel {} - {}", row.name, row.about);
            assert_eq!(outcome(&[row.name, "--help"]), wanted, "{}", row.name);
            assert_eq!(outcome(&["help", row.name]), wanted, "{}", row.name);
        }
    }

    #[test]
    fn docker_finds_version_and_commit() {
        let version = version();
        let lines: Vec<_> = version.lines().collect();
        assert!(lines[0].starts_with("keel version "));
        assert!(lines[1].starts_with("commit: "));
        assert_eq!(lines[2], "spec: 1.3.0");
    }

    #[test]
    fn the_log_of_a_wrong_verb_goes_where_the_global_flags_say() {
        let call = parsed(&["--log", "/l", "--log-format=json", "-debug", "bogus"]);
        assert_eq!(call.global.log, Some("/l".into()));
        assert_eq!(call.global.log_format, crate::log::Format::Json);
        assert!(call.global.debug);
        assert!(matches!(call.verb, Err(Exit::Wrong { code: 3, .. })));
    }

    #[test]
    fn every_definition_is_sound_and_every_help_has_an_example() {
        command().debug_assert();
        for row in VERBS {
            let help = definition(row).render_help().to_string();
            assert!(
                help.contains(&format!("USAGE:\n   keel {}", row.name)),
                "{help}"
            );
            assert!(help.contains("EXAMPLE:\n   keel"), "{help}");
        }
        assert!(VERBS.is_sorted_by_key(|row| row.name));
    }
}
