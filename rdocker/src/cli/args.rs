//! Parsing as the docker command line does it, and its wording for mistakes.

use std::ffi::OsString;
use std::num::IntErrorKind;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Command, CommandFactory, FromArgMatches};

use super::EXIT_ENGINE;
use crate::ui::Ui;

/// How help begins: as Docker's, which scripts and eyes know.
const HELP: &str = "Usage:  {usage}\n\n{about-with-newline}\n{all-args}{after-help}";

/// Parses `arguments`; help is rendered from the plain definition.
pub fn parse<T: CommandFactory + FromArgMatches>(arguments: &[OsString]) -> clap::error::Result<T> {
    let parsed = accept_bool_values(T::command())
        .try_get_matches_from(arguments)
        .and_then(|mut matches| T::from_arg_matches_mut(&mut matches));
    match parsed {
        Err(error) if is_answer(&error) => {
            let mut plain = with_help(T::command()).try_get_matches_from(arguments)?;
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
            .value_parser(boolean),
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

/// A switch's value, in the spellings of Go's strconv.ParseBool.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {text:?}: invalid syntax"
        )),
    }
}

fn with_help(command: Command) -> Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect();
    names
        .iter()
        .fold(command.help_template(HELP), |command, name| {
            command.mut_subcommand(name, with_help)
        })
}

/// Whether the "error" is the help or the version that was asked for.
fn is_answer(error: &clap::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::DisplayVersion
            | ErrorKind::MissingSubcommand
    )
}

/// Prints the help or the version. A group of verbs that was typed without one is explained too,
/// but on stderr: nobody asked.
fn answer<T: CommandFactory>(error: &clap::Error, arguments: &[OsString], ui: &mut Ui) {
    let text = match error.kind() {
        ErrorKind::MissingSubcommand => {
            let mut program = with_help(T::command());
            program.build();
            let (group, _) = verb(&program, arguments);
            group.clone().render_help().to_string()
        }
        _ => error.render().to_string(),
    };
    let program = ui.program.clone();
    let text = text
        .replace(" <COMMAND>", " COMMAND")
        .replace("Usage:  rdocker", &format!("Usage:  {program}"))
        .replace("'rdocker COMMAND", &format!("'{program} COMMAND"));
    let _ = match error.kind() {
        ErrorKind::DisplayHelp => ui.bytes(text.as_bytes()),
        // Docker writes its own name with a capital here, and scripts cut words out of this line.
        ErrorKind::DisplayVersion if program == "docker" => {
            ui.bytes(text.replacen("rdocker", "Docker", 1).as_bytes())
        }
        ErrorKind::DisplayVersion => ui.bytes(text.as_bytes()),
        _ => ui.error_bytes(text.as_bytes()),
    };
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
        answer::<T>(error, arguments, ui);
        return ExitCode::SUCCESS;
    }
    let usage = usage(T::command(), arguments);
    let command = command_words(&usage, &ui.program);
    let (line, code) = match error.kind() {
        ErrorKind::UnknownArgument if !context(ContextKind::InvalidArg).starts_with('-') => {
            (format!("'{command}' {}", wants(&usage)), 1)
        }
        ErrorKind::UnknownArgument => {
            let flag = context(ContextKind::InvalidArg);
            (unknown_flag(&flag, arguments), EXIT_ENGINE)
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
                .map(|cause| format!(": {}", in_go_words(cause, &value)))
                .unwrap_or_default();
            (
                format!("invalid argument {value:?} for {flag:?} flag{why}"),
                EXIT_ENGINE,
            )
        }
        ErrorKind::MissingRequiredArgument | ErrorKind::TooFewValues => {
            (format!("'{command}' {}", wants(&usage)), 1)
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
    let open_ended = line.contains(" requires at least ") && !line.contains(" at most ");
    let read = if open_ended { "See" } else { "Run" };
    text + &format!("\n\n{read} '{command} --help' for more information")
}

/// How the verb that was meant is used: `rdocker run [OPTIONS] IMAGE [COMMAND] [ARG...]`.
fn usage(mut program: Command, arguments: &[OsString]) -> String {
    // Subcommands learn then what they are called with the words before them.
    program.build();
    let (verb, path) = verb(&program, arguments);
    let text = verb.clone().render_usage().to_string();
    let lines = text.trim_start_matches("Usage:").lines();
    let line = lines.map(str::trim).next().unwrap_or_default();
    // A verb that has two homes writes its usage for one of them.
    let operands = line.split(' ').skip_while(|word| is_verb(word));
    let words = path.into_iter().chain(operands);
    words
        .collect::<Vec<_>>()
        .join(" ")
        .replace("<COMMAND>", "COMMAND")
}

/// The verb that the arguments mean, and the words that led to it.
fn verb<'c>(program: &'c Command, arguments: &'c [OsString]) -> (&'c Command, Vec<&'c str>) {
    let (mut at, mut path) = (program, vec![program.get_name()]);
    let mut before = "";
    for word in arguments.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(next) = at.find_subcommand(word) {
            at = next;
            path.push(word);
        } else if !word.starts_with('-') && !before.starts_with('-') {
            // Neither an option nor what may be the value of one.
            break;
        }
        before = word;
    }
    (at, path)
}

/// `--memory` of `--memory <BYTES>`.
fn long_flag(shown: &str) -> String {
    shown
        .split([' ', '['])
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The letter that a verb's flag has beside its long name.
fn short_of(program: &Command, arguments: &[OsString], flag: &str) -> Option<char> {
    let named = |arg: &&clap::Arg| arg.get_long() == Some(flag.trim_start_matches('-'));
    let (verb, _) = verb(program, arguments);
    verb.get_arguments().find(named)?.get_short()
}

/// What a usage line asks for: `requires at least 2 arguments`, `accepts no arguments`.
fn wants(usage: &str) -> String {
    let operands = operands(usage);
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let optional = |operand: &&String| operand.starts_with('[');
    let most = operands.len();
    let least = most - operands.iter().filter(optional).count();
    let open_ended = |last: &String| last.ends_with("...]") || last.contains(' ');
    match operands.last() {
        None => "accepts no arguments".to_owned(),
        Some(last) if open_ended(last) => {
            format!("requires at least {least} argument{}", plural(least))
        }
        _ if least == most => format!("requires {least} argument{}", plural(least)),
        _ if least == 0 => format!("requires at most {most} argument{}", plural(most)),
        _ => format!("requires at least {least} and at most {most} arguments"),
    }
}

/// The operands of a usage line; `PATH | URL` is one, and so is `[ps OPTIONS]`.
fn operands(usage: &str) -> Vec<String> {
    let words = usage.split_whitespace().skip_while(|word| is_verb(word));
    let mut operands: Vec<String> = Vec::new();
    for word in words.filter(|word| *word != "[OPTIONS]") {
        match operands.last_mut() {
            Some(last) if word == "|" || last.ends_with('|') => last.push_str(word),
            Some(last) if last.starts_with('[') && !last.ends_with(']') => {
                *last = format!("{last} {word}");
            }
            _ => operands.push(word.to_owned()),
        }
    }
    operands
}

fn is_verb(word: &str) -> bool {
    word.chars()
        .all(|c| c.is_ascii_lowercase() || c == '-' || c == '.' || c == '_')
}

/// Why a value is wrong, as Docker's users know it from Go.
fn in_go_words(cause: &(dyn std::error::Error + 'static), value: &str) -> String {
    let Some(error) = cause.downcast_ref::<std::num::ParseIntError>() else {
        return cause.to_string();
    };
    let why = match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.ParseInt: parsing {value:?}: {why}")
}

/// `docker run` from a usage line.
fn command_words(usage: &str, program: &str) -> String {
    let verbs = usage
        .split_whitespace()
        .skip(1)
        .take_while(|word| is_verb(word));
    verbs.fold(program.to_owned(), |line, verb| format!("{line} {verb}"))
}

/// clap names the letter alone; Docker also says in which word it stands.
fn unknown_flag(flag: &str, arguments: &[OsString]) -> String {
    if flag.starts_with("--") {
        return format!("unknown flag: {flag}");
    }
    let letter = flag.trim_start_matches('-').chars().next().unwrap_or('-');
    let mut words = arguments.iter().filter_map(|word| word.to_str());
    let holds =
        |word: &&str| word.starts_with('-') && !word.starts_with("--") && word.contains(letter);
    let word = words.find(holds).unwrap_or(flag);
    format!("unknown shorthand flag: '{letter}' in {word}")
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
    fn a_usage_line_says_how_many_arguments_are_wanted() {
        let cases = [
            (
                "rdocker exec [OPTIONS] CONTAINER COMMAND [ARG...]",
                "requires at least 2 arguments",
            ),
            (
                "rdocker run [OPTIONS] IMAGE [COMMAND] [ARG...]",
                "requires at least 1 argument",
            ),
            (
                "rdocker top CONTAINER [ps OPTIONS]",
                "requires at least 1 argument",
            ),
            ("rdocker rename CONTAINER NEW_NAME", "requires 2 arguments"),
            (
                "rdocker build [OPTIONS] PATH | URL | -",
                "requires 1 argument",
            ),
            (
                "rdocker cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-",
                "requires 2 arguments",
            ),
            (
                "rdocker commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
                "requires at least 1 and at most 2 arguments",
            ),
            ("rdocker container ls [OPTIONS]", "accepts no arguments"),
            (
                "rdocker images [OPTIONS] [REPOSITORY[:TAG]]",
                "requires at most 1 argument",
            ),
        ];
        for (usage, want) in cases {
            assert_eq!(wants(usage), want, "{usage}");
        }
    }

    #[test]
    fn the_usage_is_that_of_the_words_that_were_typed() {
        let cases = [
            ("docker container ls x", "rdocker container ls [OPTIONS]"),
            ("docker ps -a x", "rdocker ps [OPTIONS]"),
            ("docker --config /c ps x", "rdocker ps [OPTIONS]"),
            ("docker nosuch inspect x", "rdocker [OPTIONS] COMMAND"),
            ("docker volume nosuch", "rdocker volume COMMAND"),
        ];
        for (line, want) in cases {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(usage(crate::cli::Cli::command(), &words), want, "{line}");
        }
    }

    #[test]
    fn a_bad_value_is_told_in_go_words() {
        let cause = "x".parse::<i64>().unwrap_err();
        assert_eq!(
            in_go_words(&cause, "x"),
            "strconv.ParseInt: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            boolean("maybe").unwrap_err(),
            "strconv.ParseBool: parsing \"maybe\": invalid syntax"
        );
        assert_eq!((boolean("T"), boolean("0")), (Ok(true), Ok(false)));
    }

    #[test]
    fn a_mistake_is_told_as_docker_tells_it() {
        let usage = "rdocker rm [OPTIONS] CONTAINER [CONTAINER...]";
        let line = format!("'docker rm' {}", wants(usage));
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
        let usage = "rdocker [OPTIONS] COMMAND";
        assert_eq!(
            told("unknown command: docker nope", 1, usage, "docker"),
            "docker: unknown command: docker nope\n\nRun 'docker --help' for more information"
        );
    }

    #[test]
    fn an_unknown_flag_is_named_as_docker_names_it() {
        let words = ["docker", "ps", "-ze"].map(OsString::from);
        assert_eq!(unknown_flag("--nope", &words), "unknown flag: --nope");
        assert_eq!(
            unknown_flag("-e", &words),
            "unknown shorthand flag: 'e' in -ze"
        );
    }
}
