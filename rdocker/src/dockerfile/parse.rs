//! From logical lines to instructions and stages.

use serde_json::Value;

use super::flags::{Flags, Known, pairs};
use super::lines::{Line, heredoc_word, raw_words, split};
use super::suggest::nearest;
use super::{Check, Command, Dockerfile, Error, Instruction, Run, Stage, Step, Transfer};
use crate::image::config::Healthcheck;

/// The instructions of the language.
const NAMES: &[&str] = &[
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

const NONE: Known = Known {
    single: &[],
    many: &[],
    switches: &[],
};
const FROM: Known = Known {
    single: &["platform"],
    ..NONE
};
const RUN: Known = Known {
    single: &["network", "security"],
    many: &["mount"],
    ..NONE
};
const ADD: Known = Known {
    single: &["chown", "chmod", "checksum"],
    many: &["exclude"],
    switches: &["link", "keep-git-dir", "unpack"],
};
const COPY: Known = Known {
    single: &["from", "chown", "chmod"],
    many: &["exclude"],
    switches: &["link", "parents"],
};
const HEALTHCHECK: Known = Known {
    single: &[
        "interval",
        "timeout",
        "start-period",
        "start-interval",
        "retries",
    ],
    ..NONE
};

/// Reads a Dockerfile.
///
/// # Errors
/// The first line that is wrong, and why.
pub fn parse(bytes: &[u8]) -> Result<Dockerfile, Error> {
    let (directives, lines) = split(bytes)?;
    let mut file = Dockerfile {
        escape: directives.escape.unwrap_or('\\'),
        arguments: Vec::new(),
        stages: Vec::new(),
    };
    for line in &lines {
        let at = Error::at(line.number);
        let (name, rest) = split_name(&line.text);
        if name == "FROM" {
            file.stages
                .push(stage(line, rest, file.escape).map_err(at)?);
            continue;
        }
        let instruction = named(&name, line, rest, file.escape).map_err(&at)?;
        let step = Step {
            line: line.number,
            text: line.text.clone(),
            instruction,
        };
        match (file.stages.last_mut(), &step.instruction) {
            (Some(stage), _) => stage.steps.push(step),
            (None, Instruction::Arg(_)) => file.arguments.push(step),
            (None, _) => return Err(at("no build stage in current context".to_owned())),
        }
    }
    if file.stages.is_empty() {
        let line = lines.last().map_or(1, |line| line.number);
        let why = match lines.is_empty() {
            true => "file with no instructions",
            false => "no build stage in current context",
        };
        return Err(Error::at(line)(why.to_owned()));
    }
    Ok(file)
}

/// Reads a single instruction that is not `FROM`: a trigger, or a change of `commit`.
///
/// # Errors
/// What is wrong with it.
pub fn instruction(text: &str, escape: char) -> Result<Instruction, String> {
    let (_, lines) = split(text.as_bytes()).map_err(|error| error.message)?;
    match &lines[..] {
        [line] => {
            let (name, rest) = split_name(&line.text);
            if name == "FROM" {
                return Err("FROM is not allowed here".to_owned());
            }
            named(&name, line, rest, escape)
        }
        [] => Err("it is empty".to_owned()),
        _ => Err("it is more than one instruction".to_owned()),
    }
}

/// Whether there is an instruction of this name.
pub fn is_instruction(name: &str) -> bool {
    NAMES.contains(&name.to_ascii_uppercase().as_str())
}

fn split_name(text: &str) -> (String, &str) {
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (name.to_ascii_uppercase(), rest.trim())
}

fn named(name: &str, line: &Line, rest: &str, escape: char) -> Result<Instruction, String> {
    if !NAMES.contains(&name) {
        let hint = nearest(name, NAMES).map(|hint| format!(" (did you mean {hint}?)"));
        let written = line.text.split_whitespace().next().unwrap_or_default();
        return Err(format!(
            "unknown instruction: {written}{}",
            hint.unwrap_or_default()
        ));
    }
    if rest.is_empty() && !matches!(name, "CMD" | "ENTRYPOINT") {
        return Err(missing(name));
    }
    let plain = || -> Result<String, String> {
        let (_, rest) = Flags::take(rest, escape, &NONE)?;
        Ok(rest.to_owned())
    };
    Ok(match name {
        "ADD" => Instruction::Add(transfer(name, line, rest, escape, &ADD)?),
        "COPY" => Instruction::Copy(transfer(name, line, rest, escape, &COPY)?),
        "ARG" => Instruction::Arg(arguments(&plain()?, escape)?),
        "CMD" => Instruction::Cmd(command(&plain()?)),
        "ENTRYPOINT" => Instruction::Entrypoint(command(&plain()?)),
        "ENV" => Instruction::Env(pairs(name, &plain()?, escape)?),
        "LABEL" => Instruction::Label(pairs(name, &plain()?, escape)?),
        "EXPOSE" => Instruction::Expose(plain()?.split_whitespace().map(str::to_owned).collect()),
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(rest, escape)?),
        "MAINTAINER" => Instruction::Maintainer(plain()?),
        "ONBUILD" => onbuild(&plain()?, line, escape)?,
        "RUN" => Instruction::Run(run(line, rest, escape)?),
        "SHELL" => match json_list(&plain()?) {
            Some(list) if !list.is_empty() => Instruction::Shell(list),
            Some(_) => return Err("SHELL requires at least one argument".to_owned()),
            None => return Err("SHELL requires the arguments to be in JSON form".to_owned()),
        },
        "STOPSIGNAL" => Instruction::Stopsignal(one(name, &plain()?)?),
        "USER" => Instruction::User(one(name, &plain()?)?),
        "VOLUME" => {
            let text = plain()?;
            let list = json_list(&text)
                .unwrap_or_else(|| text.split_whitespace().map(str::to_owned).collect());
            if list.is_empty() || list.iter().any(|path| path.trim().is_empty()) {
                return Err("VOLUME specified can not be an empty string".to_owned());
            }
            Instruction::Volume(list)
        }
        _ => Instruction::Workdir(plain()?),
    })
}

fn missing(name: &str) -> String {
    match name {
        "ENV" | "LABEL" | "EXPOSE" | "VOLUME" | "ARG" | "ONBUILD" | "SHELL" => {
            format!("{name} requires at least one argument")
        }
        "COPY" | "ADD" => {
            format!("{name} requires at least two arguments, but none were provided")
        }
        "HEALTHCHECK" | "RUN" => format!("{name} requires at least one argument"),
        _ => format!("{name} requires exactly one argument"),
    }
}

/// `USER` and `STOPSIGNAL` take the whole line, and a second word is a mistake.
fn one(name: &str, text: &str) -> Result<String, String> {
    if text.is_empty() || raw_words(text, '\\').len() != 1 {
        return Err(format!("{name} requires exactly one argument"));
    }
    Ok(text.to_owned())
}

fn stage(line: &Line, rest: &str, escape: char) -> Result<Stage, String> {
    let (flags, rest) = Flags::take(rest, escape, &FROM)?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (base, name) = match words[..] {
        [base] => (base, None),
        [base, word, name] if word.eq_ignore_ascii_case("AS") => (base, Some(name)),
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    let name = name.map(str::to_ascii_lowercase);
    let is_name = |name: &str| {
        let mut chars = name.chars();
        chars.next().is_some_and(|c| c.is_ascii_lowercase())
            && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
    };
    if let Some(name) = name.as_deref().filter(|name| !is_name(name)) {
        return Err(format!(
            "invalid name for build stage: {name:?}, name can't start with a number or contain \
             symbols"
        ));
    }
    Ok(Stage {
        name,
        base: base.to_owned(),
        platform: flags.single("platform"),
        line: line.number,
        text: line.text.clone(),
        steps: Vec::new(),
    })
}

fn arguments(text: &str, escape: char) -> Result<Vec<(String, Option<String>)>, String> {
    let words = raw_words(text, escape);
    let argument = |word: &String| {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        if name.is_empty() {
            return Err("ARG names can not be blank".to_owned());
        }
        Ok((name.to_owned(), value))
    };
    words.iter().map(argument).collect()
}

/// The JSON form if it is valid JSON of strings; anything else is for the shell.
pub fn command(text: &str) -> Command {
    match json_list(text) {
        Some(list) => Command::Exec(list),
        None => Command::Shell(text.to_owned()),
    }
}

/// `["a", "b"]`, and nothing else.
pub fn json_list(text: &str) -> Option<Vec<String>> {
    if !text.trim_start().starts_with('[') {
        return None;
    }
    let Ok(Value::Array(items)) = serde_json::from_str(text) else {
        return None;
    };
    items
        .into_iter()
        .map(|item| match item {
            Value::String(text) => Some(text),
            _ => None,
        })
        .collect()
}

fn onbuild(text: &str, line: &Line, escape: char) -> Result<Instruction, String> {
    let (name, rest) = split_name(text);
    match name.as_str() {
        "ONBUILD" => {
            return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned());
        }
        "FROM" | "MAINTAINER" => return Err(format!("{name} isn't allowed as an ONBUILD trigger")),
        _ => {}
    }
    // The trigger is read when it fires; what is wrong with it is told now.
    let trigger = Line {
        text: text.to_owned(),
        ..line.clone()
    };
    named(&name, &trigger, rest, escape)?;
    let mut whole = text.to_owned();
    for heredoc in &line.heredocs {
        whole.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
    }
    Ok(Instruction::Onbuild(whole))
}

fn run(line: &Line, rest: &str, escape: char) -> Result<Run, String> {
    let (flags, rest) = Flags::take(rest, escape, &RUN)?;
    if rest.is_empty() {
        return Err(missing("RUN"));
    }
    let network = flags.single("network");
    if let Some(mode) = network.as_deref()
        && !matches!(mode, "default" | "none" | "host")
    {
        return Err(format!(
            "unsupported network mode {mode:?}: want default, none or host"
        ));
    }
    let security = flags.single("security");
    if let Some(mode) = security.as_deref()
        && !matches!(mode, "sandbox" | "insecure")
    {
        return Err(format!(
            "unsupported security mode {mode:?}: want sandbox or insecure"
        ));
    }
    Ok(Run {
        command: command(rest),
        mounts: flags.many("mount"),
        network,
        security,
        heredocs: line.heredocs.clone(),
    })
}

fn transfer(
    name: &str,
    line: &Line,
    rest: &str,
    escape: char,
    known: &Known,
) -> Result<Transfer, String> {
    let (flags, rest) = Flags::take(rest, escape, known)?;
    let mut words =
        json_list(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
    match words.len() {
        0 => return Err(missing(name)),
        1 => {
            return Err(format!(
                "{name} requires at least two arguments, but only one was provided. Destination \
                 could not be determined"
            ));
        }
        _ => {}
    }
    let target = words.pop().unwrap_or_default();
    words.retain(|word| heredoc_word(word).is_none());
    if words.iter().any(String::is_empty) || target.is_empty() {
        return Err(format!("{name} has an empty path"));
    }
    Ok(Transfer {
        sources: words,
        target,
        heredocs: line.heredocs.clone(),
        from: flags.single("from"),
        chown: flags.single("chown"),
        chmod: flags.single("chmod"),
        link: flags.switch("link")?.unwrap_or(false),
        parents: flags.switch("parents")?.unwrap_or(false),
        exclude: flags.many("exclude"),
        checksum: flags.single("checksum"),
        keep_git_dir: flags.switch("keep-git-dir")?.unwrap_or(false),
        unpack: flags.switch("unpack")?,
    })
}

fn healthcheck(rest: &str, escape: char) -> Result<Check, String> {
    let (flags, rest) = Flags::take(rest, escape, &HEALTHCHECK)?;
    let (kind, text) = split_name(rest);
    let mut check = Healthcheck::default();
    match kind.as_str() {
        "NONE" if text.is_empty() => {
            check.test = vec!["NONE".to_owned()];
            return Ok(Check(check));
        }
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        "CMD" if text.is_empty() => return Err("Missing command after HEALTHCHECK CMD".to_owned()),
        "CMD" => {}
        "" => return Err(missing("HEALTHCHECK")),
        other => return Err(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")),
    }
    // The shell of CMD-SHELL is the image's, chosen when the check runs.
    check.test = match command(text) {
        Command::Exec(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
        Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text],
    };
    for (name, field) in [
        ("interval", &mut check.interval),
        ("timeout", &mut check.timeout),
        ("start-period", &mut check.start_period),
        ("start-interval", &mut check.start_interval),
    ] {
        if let Some(value) = flags.single(name) {
            *field = duration(&value).map_err(|why| format!("{name} {value:?}: {why}"))?;
        }
    }
    if let Some(value) = flags.single("retries") {
        let number = value.parse::<u32>();
        check.retries = number
            .map_err(|_| format!("retries {value:?} is not a number"))?
            .into();
    }
    Ok(Check(check))
}

/// A Go duration such as `1m30s` or `0.5s`, in nanoseconds; at least a millisecond, or 0 for
/// the default.
fn duration(text: &str) -> Result<i64, String> {
    const WRONG: &str = "want a duration such as 30s or 1m30s";
    const UNITS: &[(&str, f64)] = &[
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 60e9),
        ("h", 3600e9),
    ];
    if text == "0" {
        return Ok(0);
    }
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c| !is_number(c)).ok_or(WRONG)?;
        let number: f64 = rest[..end].parse().map_err(|_| WRONG)?;
        let after = &rest[end..];
        let length = after.find(is_number).unwrap_or(after.len());
        let unit = UNITS
            .iter()
            .find(|(name, _)| *name == &after[..length])
            .ok_or(WRONG)?;
        sum += number * unit.1;
        rest = &after[length..];
    }
    if text.is_empty() || sum > i64::MAX as f64 / 2.0 {
        return Err(WRONG.to_owned());
    }
    if sum != 0.0 && sum < 1e6 {
        return Err("cannot be less than 1ms".to_owned());
    }
    // Far below 2^63, and whole nanoseconds are what Docker keeps.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range was checked above"
    )]
    Ok(sum as i64)
}
