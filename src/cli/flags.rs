//! Rewrites a command line in Go's flag syntax, which runc's callers use, into clap's.
//!
//! Go: `-name` and `--name` are the same; a value follows after `=` or as the next word, whatever
//! that looks like (`--cpu-quota -1`); a switch takes a value only after `=`; the last of several
//! wins. After this, clap sees `--name=value` words, then `--`, then the positional words.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::{Arg, ArgAction, Command};

/// Where the flags of a command line end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// At the first positional word: what follows belongs to someone else.
    FirstWord,
    /// At the end: flags may stand before and after positional words.
    End,
}

/// A command line taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Split {
    /// The flags, as `--name` or `--name=value`.
    pub flags: Vec<OsString>,
    /// The other words, in order.
    pub words: Vec<OsString>,
}

/// Why a command line cannot be taken apart.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// `-h` or `--help` was among the flags.
    Help,
    /// In Go's words, which podman looks for.
    Wrong(String),
}

/// Takes the words `argv` (without the program's name) apart by the flags that `command` defines.
///
/// # Errors
/// [`Stop::Help`] if help is asked for, [`Stop::Wrong`] for an unknown flag or a missing value.
///
/// Source: Go, package flag, `FlagSet.parseOne`; urfave/cli v1, `reorderArgs`.
pub fn split(command: &Command, argv: Vec<OsString>, until: Until) -> Result<Split, Stop> {
    let mut out = Split {
        flags: Vec::new(),
        words: Vec::new(),
    };
    let mut argv = argv.into_iter();
    while let Some(word) = argv.next() {
        let Some(flag) = flag_of(&word) else {
            out.words.push(word);
            if until == Until::FirstWord {
                break;
            }
            continue;
        };
        if flag == b"-" {
            break;
        }
        let flag = flag.strip_prefix(b"-").unwrap_or(flag);
        let (name, value) = match flag.iter().position(|byte| *byte == b'=') {
            Some(at) => (&flag[..at], Some(OsStr::from_bytes(&flag[at + 1..]))),
            None => (flag, None),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        if name.is_empty() || name.starts_with('-') {
            return Err(Stop::Wrong(format!(
                "bad flag syntax: {}",
                word.to_string_lossy()
            )));
        }
        match find(command, &name) {
            Some(arg) => out.flags.extend(one(arg, &name, value, &mut argv)?),
            None if name == "help" || name == "h" => return Err(Stop::Help),
            None => match cluster(command, &name).filter(|_| value.is_none()) {
                Some(switches) => out.flags.extend(switches),
                None => {
                    return Err(Stop::Wrong(format!(
                        "flag provided but not defined: -{name}"
                    )));
                }
            },
        }
    }
    out.words.extend(argv);
    Ok(out)
}

/// The word without its first dash; `None` if it is no flag. A lone dash is a word (stdin).
fn flag_of(word: &OsStr) -> Option<&[u8]> {
    word.as_bytes()
        .strip_prefix(b"-")
        .filter(|rest| !rest.is_empty())
}

fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let mut letters = name.chars();
    let letter = letters.next().filter(|_| letters.next().is_none());
    command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(name) || (letter.is_some() && arg.get_short() == letter))
}

/// One flag in clap's form, or nothing if it is a switch turned off or a value left empty.
fn one(
    arg: &Arg,
    name: &str,
    value: Option<&OsStr>,
    rest: &mut impl Iterator<Item = OsString>,
) -> Result<Option<OsString>, Stop> {
    let mut word = OsString::from("--");
    word.push(arg.get_long().expect("every flag has a long name"));
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        let on = value.map_or(Ok(true), |text| truth(name, text))?;
        return Ok(on.then_some(word));
    }
    // A switch whose "off" differs from its absence, such as --no-new-privs=false.
    if arg.get_num_args().is_some_and(|n| n.min_values() == 0) {
        let on = value.map_or(Ok(true), |text| truth(name, text))?;
        word.push(if on { "=true" } else { "=false" });
        return Ok(Some(word));
    }
    let value = match value {
        Some(value) => value.to_owned(),
        None => rest
            .next()
            .ok_or_else(|| Stop::Wrong(format!("flag needs an argument: -{name}")))?,
    };
    if value.is_empty() {
        return Ok(None);
    }
    word.push("=");
    word.push(value);
    Ok(Some(word))
}

/// Go's booleans (`strconv.ParseBool`).
fn truth(name: &str, text: &OsStr) -> Result<bool, Stop> {
    match text.to_str().unwrap_or_default() {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(Stop::Wrong(format!(
            "invalid boolean value {text:?} for -{name}: parse error"
        ))),
    }
}

/// `-it` for `-i -t`: runc refuses it, people's fingers know it from docker.
fn cluster(command: &Command, name: &str) -> Option<Vec<OsString>> {
    name.chars()
        .map(|letter| {
            let arg = find(command, &letter.to_string())?;
            let switch = matches!(arg.get_action(), ArgAction::SetTrue);
            let long = arg.get_long().filter(|_| switch)?;
            Some(format!("--{long}").into())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command::new("x")
            .arg(
                Arg::new("detach")
                    .long("detach")
                    .short('d')
                    .action(ArgAction::SetTrue),
            )
            .arg(
                Arg::new("tty")
                    .long("tty")
                    .short('t')
                    .action(ArgAction::SetTrue),
            )
            .arg(Arg::new("env").long("env").short('e'))
            .arg(Arg::new("privs").long("privs").num_args(0..=1))
            .arg(Arg::new("id"))
    }

    fn run(words: &[&str], until: Until) -> String {
        let command = command();
        let argv = words.iter().map(OsString::from).collect();
        match split(&command, argv, until) {
            Ok(split) => format!("{:?} {:?}", split.flags, split.words),
            Err(Stop::Help) => "help".into(),
            Err(Stop::Wrong(why)) => why,
        }
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        let cases: &[(&[&str], &str)] = &[
            (&["-detach", "c"], r#"["--detach"] ["c"]"#),
            (&["c", "--detach"], r#"["--detach"] ["c"]"#),
            (&["-d=false", "c"], r#"[] ["c"]"#),
            (&["-d=1", "c"], r#"["--detach"] ["c"]"#),
            (&["--env", "-1", "c"], r#"["--env=-1"] ["c"]"#),
            (&["--env=a=b", "c"], r#"["--env=a=b"] ["c"]"#),
            (&["-e", "--detach"], r#"["--env=--detach"] []"#),
            (&["--env=", "c"], r#"[] ["c"]"#),
            (&["--privs=false"], r#"["--privs=false"] []"#),
            (&["--privs", "c"], r#"["--privs=true"] ["c"]"#),
            (&["-dt", "c"], r#"["--detach", "--tty"] ["c"]"#),
            (&["-", "c"], r#"[] ["-", "c"]"#),
            (&["c", "--", "--detach"], r#"[] ["c", "--detach"]"#),
            (&["-e"], "flag needs an argument: -e"),
            (&["--env"], "flag needs an argument: -env"),
            (&["--nope", "c"], "flag provided but not defined: -nope"),
            (&["-de", "c"], "flag provided but not defined: -de"),
            (&["-dt=1", "c"], "flag provided but not defined: -dt"),
            (&["---d"], "bad flag syntax: ---d"),
            (&["--=x"], "bad flag syntax: --=x"),
            (
                &["--tty=maybe"],
                r#"invalid boolean value "maybe" for -tty: parse error"#,
            ),
            (&["c", "--help"], "help"),
            (&["-h"], "help"),
        ];
        for (words, want) in cases {
            assert_eq!(run(words, Until::End), *want, "{words:?}");
        }
    }

    #[test]
    fn what_follows_the_first_word_may_belong_to_the_command() {
        assert_eq!(
            run(
                &["-t", "c", "ls", "-d", "--help", "--", "x"],
                Until::FirstWord
            ),
            r#"["--tty"] ["c", "ls", "-d", "--help", "--", "x"]"#
        );
    }
}
