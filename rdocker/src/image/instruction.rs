//! `commit -c` and `import -c`: single Dockerfile instructions that change a configuration.

use super::config::{Empty, Healthcheck, RunConfig};
use super::{Error, Result};

/// Applies one instruction such as `CMD ["sh"]` or `ENV A=b C=d`.
///
/// # Errors
/// [`Error::InvalidArgument`] naming the instruction, for one that is unknown, that makes layers
/// (`RUN`, `COPY`…), or whose argument is malformed.
///
/// Source: docs.docker.com, "docker container commit", option `--change`.
pub fn apply(config: &mut RunConfig, line: &str) -> Result<()> {
    let line = line.trim();
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let wrong = |why: &str| Error::InvalidArgument(format!("--change {line:?}: {why}"));
    let name = name.to_ascii_uppercase();
    if rest.is_empty() && !name.is_empty() {
        return Err(wrong("it has no argument"));
    }
    match name.as_str() {
        "CMD" => config.cmd = Some(command(rest, config.shell.as_deref())),
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(rest, config.shell.as_deref()));
            // An entry point of the new image does not get the old one's arguments.
            config.cmd = None;
        }
        "ENV" => {
            for (key, value) in pairs(rest).map_err(wrong)? {
                set_env(&mut config.env, &key, &value);
            }
        }
        "LABEL" => config.labels.extend(pairs(rest).map_err(wrong)?),
        "EXPOSE" => {
            for port in words(rest).map_err(wrong)? {
                config.exposed_ports.insert(
                    expose(&port).ok_or_else(|| wrong("want PORT[/tcp|udp|sctp]"))?,
                    Empty {},
                );
            }
        }
        "VOLUME" => {
            let paths = json_list(rest)
                .map_or_else(|| words(rest), Ok)
                .map_err(wrong)?;
            config
                .volumes
                .extend(paths.into_iter().map(|path| (path, Empty {})));
        }
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" => config.working_dir = workdir(&config.working_dir, rest),
        "STOPSIGNAL" => config.stop_signal = rest.to_owned(),
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "SHELL" => {
            config.shell =
                Some(json_list(rest).ok_or_else(|| wrong("want a JSON list of strings"))?)
        }
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest).map_err(wrong)?),
        "" => return Err(wrong("it is empty")),
        "RUN" | "COPY" | "ADD" | "FROM" | "ARG" | "MAINTAINER" => {
            return Err(wrong(&format!("{name} is not a valid change command")));
        }
        _ => return Err(wrong(&format!("unknown instruction: {name}"))),
    }
    Ok(())
}

/// A JSON list of strings is the exec form; anything else is a line for the shell.
fn command(text: &str, shell: Option<&[String]>) -> Vec<String> {
    json_list(text).unwrap_or_else(|| {
        let default = ["/bin/sh".to_owned(), "-c".to_owned()];
        let mut line = shell.unwrap_or(&default).to_vec();
        line.push(text.to_owned());
        line
    })
}

fn json_list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// Words separated by blanks, with quotes and backslashes as in a shell; nothing is expanded.
fn words(text: &str) -> std::result::Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                let escaped = chars.next().ok_or("it ends with a backslash")?;
                word.get_or_insert_default().push(escaped);
            }
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

/// `KEY=value KEY=value`, or the old `KEY value` for one.
fn pairs(text: &str) -> std::result::Result<Vec<(String, String)>, &'static str> {
    let all = words(text)?;
    let is_old = all.first().is_some_and(|first| !first.contains('='));
    if is_old {
        let (key, value) = text
            .split_once(char::is_whitespace)
            .ok_or("want KEY=value")?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("want KEY=value"),
    };
    all.into_iter().map(pair).collect()
}

fn set_env(env: &mut Vec<String>, key: &str, value: &str) {
    let line = format!("{key}={value}");
    let same = |known: &&mut String| known.split('=').next() == Some(key);
    match env.iter_mut().find(same) {
        Some(known) => *known = line,
        None => env.push(line),
    }
}

/// `80` or `80/udp` or a range, as `PORT/PROTOCOL`.
fn expose(text: &str) -> Option<String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_valid = match ports.split_once('-') {
        Some((from, to)) => is_port(from) && is_port(to),
        None => is_port(ports),
    };
    (is_valid && matches!(protocol.as_str(), "tcp" | "udp" | "sctp"))
        .then(|| format!("{ports}/{protocol}"))
}

fn workdir(before: &str, path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{}/{path}", before.trim_end_matches('/'))
    }
}

fn healthcheck(text: &str) -> std::result::Result<Healthcheck, &'static str> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Healthcheck {
            test: vec!["NONE".to_owned()],
            ..Healthcheck::default()
        });
    }
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option
            .split_once(char::is_whitespace)
            .ok_or("it has no CMD")?;
        let (name, value) = option.split_once('=').ok_or("want --OPTION=VALUE")?;
        match name {
            "interval" => check.interval = duration(value)?,
            "timeout" => check.timeout = duration(value)?,
            "start-period" => check.start_period = duration(value)?,
            "start-interval" => check.start_interval = duration(value)?,
            "retries" => check.retries = value.parse().map_err(|_| "retries is not a number")?,
            _ => return Err("unknown option of HEALTHCHECK"),
        }
        rest = after.trim_start();
    }
    let (word, command) = rest
        .split_once(char::is_whitespace)
        .ok_or("want CMD and a command")?;
    if !word.eq_ignore_ascii_case("cmd") {
        return Err("want CMD or NONE");
    }
    // The shell of CMD-SHELL is the image's, chosen when the check runs.
    check.test = match json_list(command.trim()) {
        Some(arguments) => std::iter::once("CMD".to_owned()).chain(arguments).collect(),
        None => vec!["CMD-SHELL".to_owned(), command.trim().to_owned()],
    };
    Ok(check)
}

/// A Go duration such as `1m30s` or `500ms`, in nanoseconds.
fn duration(text: &str) -> std::result::Result<i64, &'static str> {
    const WRONG: &str = "want a duration such as 30s or 1m30s";
    let units = [
        ("ns", 1),
        ("us", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000i64),
    ];
    let mut rest = text;
    let mut sum = 0i64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or(WRONG)?;
        let number: i64 = rest[..end].parse().map_err(|_| WRONG)?;
        let after = &rest[end..];
        let length = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let unit = units
            .iter()
            .find(|(name, _)| *name == &after[..length])
            .ok_or(WRONG)?
            .1;
        sum = number
            .checked_mul(unit)
            .and_then(|part| sum.checked_add(part))
            .ok_or(WRONG)?;
        rest = &after[length..];
    }
    if sum == 0 { Err(WRONG) } else { Ok(sum) }
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
            "EXPOSE 80 53/UDP 8000-8010",
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
        assert_eq!(ports, ["53/udp", "80/tcp", "8000-8010/tcp"]);
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
