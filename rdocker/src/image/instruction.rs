//! What instructions without files do to a configuration: in a build, and by `commit -c` and
//! `import -c`.

use super::config::{Empty, RunConfig};
use super::{Error, Result};
use crate::container::signal;
use crate::dockerfile::word::Expand;
use crate::dockerfile::{Command, Instruction, instruction, is_instruction};

/// What the shell form is given to unless `SHELL` says otherwise.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies one instruction such as `CMD ["sh"]` or `ENV A=b C=d`.
///
/// # Errors
/// [`Error::InvalidArgument`] naming the instruction, for one that is unknown, that makes layers
/// (`RUN`, `COPY`…), or whose argument is malformed.
///
/// Source: docs.docker.com, "docker container commit", option `--change`.
pub fn apply(config: &mut RunConfig, line: &str) -> Result<()> {
    let wrong = |why: String| Error::InvalidArgument(format!("--change {line:?}: {why}"));
    let name = line.split_whitespace().next().unwrap_or_default();
    let refused = || {
        let name = name.to_lowercase();
        Error::InvalidArgument(format!("{name} is not a valid change command"))
    };
    if !is_instruction(name) {
        return Err(refused());
    }
    let instruction = instruction(line.trim(), '\\').map_err(wrong)?;
    if let Instruction::Run(_)
    | Instruction::Copy(_)
    | Instruction::Add(_)
    | Instruction::Arg(_)
    | Instruction::Maintainer(_) = instruction
    {
        return Err(refused());
    }
    if let Instruction::Cmd(Command::Shell(text)) | Instruction::Entrypoint(Command::Shell(text)) =
        &instruction
        && text.is_empty()
    {
        return Err(wrong("it has no argument".to_owned()));
    }
    let env = config.env.clone();
    let lookup = |name: &str| env_value(&env, name).map(str::to_owned);
    let expand = Expand {
        escape: '\\',
        lookup: &lookup,
    };
    change(config, &instruction, &expand).map_err(wrong)
}

/// Changes a configuration as an instruction says; those that need files change nothing.
///
/// # Errors
/// What is wrong with an argument after its variables were expanded.
pub fn change(
    config: &mut RunConfig,
    instruction: &Instruction,
    expand: &Expand<'_>,
) -> std::result::Result<(), String> {
    let pairs = |pairs: &[(String, String)]| -> std::result::Result<Vec<_>, String> {
        let pair = |(key, value): &(String, String)| Ok((expand.word(key)?, expand.word(value)?));
        pairs.iter().map(pair).collect()
    };
    match instruction {
        Instruction::Cmd(command) => config.cmd = Some(command_line(command, config)),
        Instruction::Entrypoint(command) => {
            config.entrypoint = Some(command_line(command, config));
            // An entry point of the new image does not get the old one's arguments.
            config.cmd = None;
        }
        Instruction::Env(list) => {
            // All values see the environment as it was before the instruction.
            for (key, value) in pairs(list)? {
                set_env(&mut config.env, &key, &value);
            }
        }
        Instruction::Label(list) => config.labels.extend(pairs(list)?),
        Instruction::Expose(ports) => {
            for text in ports {
                for port in expand.words(text)? {
                    expose(&mut config.exposed_ports, &port)?;
                }
            }
        }
        Instruction::Healthcheck(check) => config.healthcheck = Some(check.0.clone()),
        Instruction::Onbuild(trigger) => config.on_build.push(trigger.clone()),
        Instruction::Shell(list) => config.shell = Some(list.clone()),
        Instruction::Stopsignal(text) => config.stop_signal = signal(expand.word(text)?)?,
        Instruction::User(text) => config.user = expand.word(text)?,
        Instruction::Volume(paths) => {
            for path in paths {
                let path = expand.word(path)?;
                if path.is_empty() {
                    return Err("VOLUME specified can not be an empty string".to_owned());
                }
                config.volumes.insert(path, Empty {});
            }
        }
        Instruction::Workdir(path) => {
            config.working_dir = workdir(&config.working_dir, &expand.word(path)?);
        }
        Instruction::Add(_)
        | Instruction::Arg(_)
        | Instruction::Copy(_)
        | Instruction::Maintainer(_)
        | Instruction::Run(_) => {}
    }
    Ok(())
}

/// What is executed: the exec form as it is, the shell form by the image's shell.
pub fn command_line(command: &Command, config: &RunConfig) -> Vec<String> {
    match command {
        Command::Exec(list) => list.clone(),
        Command::Shell(text) if text.is_empty() => Vec::new(),
        Command::Shell(text) => {
            let mut line = match &config.shell {
                Some(shell) => shell.clone(),
                None => SHELL.map(str::to_owned).to_vec(),
            };
            line.push(text.clone());
            line
        }
    }
}

/// The value of a variable in a list of `KEY=value`.
pub fn env_value<'e>(env: &'e [String], name: &str) -> Option<&'e str> {
    env.iter()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// Whether a word of an image's environment is one: `NAME=value`. A bare name is none, so that it
/// can neither take a variable away nor stand for the host's (CVE-2026-57231).
pub fn is_variable(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && !word.contains('\0')
}

/// Sets a variable in its place, or adds it.
pub fn set_env(env: &mut Vec<String>, key: &str, value: &str) {
    let line = format!("{key}={value}");
    let same = |known: &&mut String| known.split('=').next() == Some(key);
    match env.iter_mut().find(same) {
        Some(known) => *known = line,
        None => env.push(line),
    }
}

/// `80`, `80/udp`, a range, or `HOST:CONTAINER`, of which the second part counts.
fn expose(
    ports: &mut std::collections::BTreeMap<String, Empty>,
    text: &str,
) -> std::result::Result<(), String> {
    let wrong = || format!("invalid port {text:?}: want PORT[-PORT][/tcp|udp|sctp]");
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let numbers = numbers.rsplit(':').next().unwrap_or(numbers);
    let (from, to) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (from, to) = port(from).zip(port(to)).ok_or_else(wrong)?;
    if from > to || !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    ports.extend((from..=to).map(|port| (format!("{port}/{protocol}"), Empty {})));
    Ok(())
}

/// The signal as it was written, if it is one.
fn signal(text: String) -> std::result::Result<String, String> {
    match signal::parse(&text) {
        Ok(_) => Ok(text),
        Err(why) => Err(why.to_string()),
    }
}

/// An absolute path without `.`, `..` and doubled slashes: `path` as seen from `before`.
pub fn workdir(before: &str, path: &str) -> String {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{before}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instruction_changes_its_field() {
        let mut config = RunConfig {
            env: vec!["PATH=/bin".into()],
            working_dir: "/a".into(),
            ..RunConfig::default()
        };
        for line in [
            r#"ENTRYPOINT ["/e", "x"]"#,
            "cmd echo $HOME",
            r#"ENV A=b "C=d e" PATH=/usr/bin"#,
            "ENV OLD some words",
            r#"LABEL a.b="c d" e=f"#,
            "EXPOSE 80 53/UDP 8000-8001",
            r#"VOLUME ["/data", "/x"]"#,
            "VOLUME /y",
            "USER 1000:1000",
            "WORKDIR b",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD curl -f x",
        ] {
            apply(&mut config, line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        assert_eq!(config.entrypoint.unwrap(), ["/e", "x"]);
        assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-c", "echo $HOME"]);
        assert_eq!(
            config.env,
            ["PATH=/usr/bin", "A=b", "C=d e", "OLD=some words"]
        );
        assert_eq!(config.labels["a.b"], "c d");
        let ports: Vec<_> = config.exposed_ports.keys().map(String::as_str).collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
        assert_eq!(config.volumes.len(), 3);
        assert_eq!(
            (config.user.as_str(), config.working_dir.as_str()),
            ("1000:1000", "/a/b")
        );
        let check = config.healthcheck.unwrap();
        assert_eq!(check.test, ["CMD-SHELL", "curl -f x"]);
        assert_eq!((check.interval, check.retries), (90_000_000_000, 2));
    }

    #[test]
    fn a_stop_signal_is_one_that_docker_knows() {
        for (text, known) in [
            ("SIGINT", true),
            ("int", true),
            ("9", true),
            ("SIGRTMIN+3", true),
            ("SIGCLD", true),
            ("NOPE", false),
            ("SIGNOPE", false),
            ("0", false),
            ("65", false),
        ] {
            let mut config = RunConfig::default();
            let applied = apply(&mut config, &format!("STOPSIGNAL {text}"));
            match applied {
                Ok(()) => assert!(known && config.stop_signal == text, "{text}"),
                Err(why) => {
                    let words = format!("invalid signal: {text}");
                    assert!(!known && why.to_string().ends_with(&words), "{why}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for line in [
            "",
            "RUN x",
            "COPY a b",
            "FOO x",
            "CMD",
            "ENV",
            "ENV A",
            "EXPOSE 0",
            "EXPOSE 80/foo",
            "EXPOSE 70000",
            "LABEL a=\"b",
            "SHELL sh",
            "HEALTHCHECK --interval=x CMD a",
            "HEALTHCHECK CMD",
        ] {
            assert!(apply(&mut RunConfig::default(), line).is_err(), "{line}");
        }
    }
}
