//! Parsing as the docker command line does it, and its wording for mistakes.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::builder::BoolishValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Command, CommandFactory, FromArgMatches};

use super::EXIT_ENGINE;
use crate::ui::Ui;

/// Parses `arguments`; help is rendered from the plain definition.
pub fn parse<T: CommandFactory + FromArgMatches>(arguments: &[OsString]) -> clap::error::Result<T> {
    let parsed = accept_bool_values(T::command())
        .try_get_matches_from(arguments)
        .and_then(|mut matches| T::from_arg_matches_mut(&mut matches));
    match parsed {
        Err(error) if is_answer(&error) => {
            let mut plain = T::command().try_get_matches_from(arguments)?;
            T::from_arg_matches_mut(&mut plain)
        }
        other => other,
    }
}

/// Lets every switch take a value, as Go's flag package does: `--rm=false`, `-d=true`.
///
/// clap's switches take none; a value that must be joined by `=` leaves `-it` and `-d IMAGE` alone.
fn accept_bool_values(command: Command) -> Command {
    let command = command.mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_parser(BoolishValueParser::new()),
        _ => arg,
    });
    let names: Vec<String> = command
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect();
    names.iter().fold(command, |command, name| {
        command.mut_subcommand(name, accept_bool_values)
    })
}

/// Whether the "error" is the help or the version that was asked for.
fn is_answer(error: &clap::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::DisplayVersion
    )
}

/// Tells what is wrong with the command line, in docker's words, and gives the exit code: 125 for
/// a bad flag, 1 for an unknown command or a wrong number of arguments.
pub fn explain<T: CommandFactory>(
    error: &clap::Error,
    arguments: &[OsString],
    ui: &mut Ui,
) -> ExitCode {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    if is_answer(error) {
        let _ = ui.bytes(error.render().to_string().as_bytes());
        return ExitCode::SUCCESS;
    }
    let usage = usage(T::command(), arguments);
    let command = command_words(&usage, &ui.program);
    let (line, code) = match error.kind() {
        ErrorKind::UnknownArgument if !context(ContextKind::InvalidArg).starts_with('-') => {
            (format!("'{command}' {}", takes(&usage)), 1)
        }
        ErrorKind::UnknownArgument => {
            (unknown_flag(&context(ContextKind::InvalidArg)), EXIT_ENGINE)
        }
        ErrorKind::InvalidSubcommand => {
            let word = context(ContextKind::InvalidSubcommand);
            (format!("unknown command: {command} {word}"), 1)
        }
        ErrorKind::InvalidValue if context(ContextKind::InvalidValue).is_empty() => {
            let flag = long_flag(&context(ContextKind::InvalidArg));
            let last = arguments.last().and_then(|last| last.to_str());
            let flag = match last.filter(|last| !last.starts_with("--")) {
                Some(short) => format!("'{}' in {short}", short.trim_start_matches('-')),
                None => flag,
            };
            (format!("flag needs an argument: {flag}"), EXIT_ENGINE)
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let flag = long_flag(&context(ContextKind::InvalidArg));
            let flag = match short_of(&T::command(), arguments, &flag) {
                Some(short) => format!("-{short}, {flag}"),
                None => flag,
            };
            let value = context(ContextKind::InvalidValue);
            let why = std::error::Error::source(error)
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            (
                format!("invalid argument {value:?} for {flag:?} flag{why}"),
                EXIT_ENGINE,
            )
        }
        ErrorKind::MissingRequiredArgument | ErrorKind::TooFewValues => {
            (format!("'{command}' requires {}", needs(&usage)), 1)
        }
        _ => {
            let text = error.render().to_string();
            let line = text.lines().next().unwrap_or_default();
            (line.trim_start_matches("error: ").to_owned(), EXIT_ENGINE)
        }
    };
    let _ = ui.error_line(told(&line, code, &usage, &ui.program.clone()));
    ExitCode::from(code)
}

/// The line with what Docker writes around it: the program's name, but for flags, and below it the
/// usage of the verb, if there is one, and where to read on.
fn told(line: &str, code: u8, usage: &str, program: &str) -> String {
    let command = command_words(usage, program);
    let mut text = match code {
        EXIT_ENGINE => line.to_owned(),
        _ => format!("{program}: {line}"),
    };
    if command != program {
        let words = usage.split_once(' ').map_or("", |(_, words)| words);
        text.push_str(&format!("\n\nUsage:  {program} {words}"));
    }
    let read = match line.contains(" requires at least ") {
        true => "See",
        false => "Run",
    };
    text + &format!("\n\n{read} '{command} --help' for more information")
}

/// How the verb that was meant is used: `rdocker run [OPTIONS] IMAGE [COMMAND] [ARG...]`.
fn usage(mut program: Command, arguments: &[OsString]) -> String {
    // Subcommands learn then what they are called with the words before them.
    program.build();
    let text = verb(&program, arguments).clone().render_usage().to_string();
    let lines = text.trim_start_matches("Usage:").lines();
    lines.map(str::trim).next().unwrap_or_default().to_owned()
}

/// The verb that the arguments mean.
fn verb<'c>(program: &'c Command, arguments: &[OsString]) -> &'c Command {
    let words = arguments.iter().skip(1);
    words.fold(program, |at, word| at.find_subcommand(word).unwrap_or(at))
}

/// `--memory` of `--memory <BYTES>`.
fn long_flag(shown: &str) -> String {
    shown.split(' ').next().unwrap_or_default().to_owned()
}

/// The letter that a verb's flag has beside its long name.
fn short_of(program: &Command, arguments: &[OsString], flag: &str) -> Option<char> {
    let named = |arg: &&clap::Arg| arg.get_long() == Some(flag.trim_start_matches('-'));
    let verb = verb(program, arguments);
    verb.get_arguments().find(named)?.get_short()
}

/// What a usage line says to one argument too many: `accepts no arguments`.
fn takes(usage: &str) -> String {
    let operands = operands(usage);
    let (count, plural) = (operands.len(), if operands.len() == 1 { "" } else { "s" });
    match operands.iter().any(|word| word.starts_with('[')) {
        _ if count == 0 => "accepts no arguments".to_owned(),
        true => format!("requires at most {count} argument{plural}"),
        false => format!("requires {count} argument{plural}"),
    }
}

fn operands(usage: &str) -> Vec<&str> {
    let words = usage.split_whitespace();
    words
        .skip_while(|word| word.chars().any(|c| c.is_ascii_lowercase()))
        .filter(|word| *word != "[OPTIONS]")
        .collect()
}

/// What a usage line asks for: `at least 2 arguments`, `1 argument`.
fn needs(usage: &str) -> String {
    let operands = operands(usage);
    let required = operands
        .iter()
        .filter(|word| !word.starts_with('['))
        .count();
    let plural = if required == 1 { "" } else { "s" };
    let least = if required < operands.len() {
        "at least "
    } else {
        ""
    };
    format!("{least}{required} argument{plural}")
}

/// `docker run` from a usage line.
fn command_words(usage: &str, program: &str) -> String {
    let is_verb = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let verbs = usage.split_whitespace().skip(1).take_while(is_verb);
    verbs.fold(program.to_owned(), |line, verb| format!("{line} {verb}"))
}

fn unknown_flag(flag: &str) -> String {
    match flag.strip_prefix("--") {
        Some(_) => format!("unknown flag: {flag}"),
        None => {
            let letter = flag.trim_start_matches('-').chars().next().unwrap_or('-');
            format!("unknown shorthand flag: '{letter}' in {flag}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    #[command(name = "t")]
    struct Sample {
        #[arg(short, long)]
        interactive: bool,
        #[arg(short, long)]
        tty: bool,
        #[arg(trailing_var_arg = true)]
        words: Vec<String>,
    }

    fn sample(line: &str) -> clap::error::Result<Sample> {
        parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn switches_take_a_joined_value_and_still_combine() {
        let cases: &[(&str, bool, bool, &[&str])] = &[
            ("t -it image", true, true, &["image"]),
            ("t -i=false --tty=true image", false, true, &["image"]),
            (
                "t -i image -t --tty",
                true,
                false,
                &["image", "-t", "--tty"],
            ),
            ("t --interactive=1 x", true, false, &["x"]),
        ];
        for (line, interactive, tty, words) in cases {
            let got = sample(line).unwrap();
            assert_eq!((got.interactive, got.tty), (*interactive, *tty), "{line}");
            assert_eq!(got.words, *words, "{line}");
        }
    }

    #[test]
    fn a_usage_line_says_how_many_arguments_are_needed() {
        let cases = [
            (
                "rdocker exec [OPTIONS] CONTAINER COMMAND [ARG...]",
                "at least 2 arguments",
            ),
            (
                "rdocker run [OPTIONS] IMAGE [COMMAND] [ARG...]",
                "at least 1 argument",
            ),
            ("rdocker rename CONTAINER NEW_NAME", "2 arguments"),
            ("rdocker port CONTAINER", "1 argument"),
        ];
        for (usage, want) in cases {
            assert_eq!(needs(usage), want, "{usage}");
        }
        let cases = [
            ("rdocker ps [OPTIONS]", "accepts no arguments"),
            ("rdocker rename CONTAINER NEW_NAME", "requires 2 arguments"),
            (
                "rdocker images [OPTIONS] [REPOSITORY[:TAG]]",
                "requires at most 1 argument",
            ),
        ];
        for (usage, want) in cases {
            assert_eq!(takes(usage), want, "{usage}");
        }
    }

    #[test]
    fn a_mistake_is_told_as_docker_tells_it() {
        let usage = "rdocker rm [OPTIONS] CONTAINER [CONTAINER...]";
        let line = format!("'docker rm' requires {}", needs(usage));
        assert_eq!(
            told(&line, 1, usage, "docker"),
            "docker: 'docker rm' requires at least 1 argument\n\n\
             Usage:  docker rm [OPTIONS] CONTAINER [CONTAINER...]\n\n\
             See 'docker rm --help' for more information"
        );
        assert_eq!(
            told("unknown flag: --nope", EXIT_ENGINE, usage, "docker"),
            "unknown flag: --nope\n\nUsage:  docker rm [OPTIONS] CONTAINER [CONTAINER...]\n\n\
             Run 'docker rm --help' for more information"
        );
        let usage = "rdocker [OPTIONS] <COMMAND>";
        assert_eq!(
            told("unknown command: docker nope", 1, usage, "docker"),
            "docker: unknown command: docker nope\n\nRun 'docker --help' for more information"
        );
    }

    #[test]
    fn an_unknown_flag_is_named_as_docker_names_it() {
        assert_eq!(unknown_flag("--nope"), "unknown flag: --nope");
        assert_eq!(unknown_flag("-e"), "unknown shorthand flag: 'e' in -e");
    }
}
