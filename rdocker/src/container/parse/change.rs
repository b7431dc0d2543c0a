//! `-c` of `import` and `commit`: one Dockerfile instruction that changes the configuration.

use crate::container::parse::port;
use crate::error::{Error, Result};
use crate::image::config::{Empty, RunConfig};

/// Applies one instruction.
///
/// # Errors
/// An instruction that does not change the configuration, or one that does not parse.
pub fn apply(config: &mut RunConfig, text: &str) -> Result<()> {
    let wrong = |why: &str| Error::Invalid(format!("invalid change {text:?}: {why}"));
    let (word, rest) = text
        .trim()
        .split_once(char::is_whitespace)
        .unwrap_or((text.trim(), ""));
    let rest = rest.trim();
    if rest.is_empty() {
        return Err(wrong("a value is required"));
    }
    match word.to_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
        "ENV" => {
            for (key, value) in pairs(rest).ok_or_else(|| wrong("NAME=VALUE is required"))? {
                config
                    .env
                    .retain(|have| have.split('=').next() != Some(key.as_str()));
                config.env.push(format!("{key}={value}"));
            }
        }
        "LABEL" => {
            let pairs = pairs(rest).ok_or_else(|| wrong("NAME=VALUE is required"))?;
            config.labels.extend(pairs);
        }
        "EXPOSE" => {
            for word in rest.split_whitespace() {
                let ports = port::expose(word)?.into_iter();
                config
                    .exposed_ports
                    .extend(ports.map(|port| (port, Empty {})));
            }
        }
        "USER" => rest.clone_into(&mut config.user),
        "WORKDIR" => rest.clone_into(&mut config.working_dir),
        "STOPSIGNAL" => {
            crate::container::signal::parse(rest)?;
            rest.clone_into(&mut config.stop_signal);
        }
        "VOLUME" => {
            let list = json_list(rest)
                .unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
            config
                .volumes
                .extend(list.into_iter().map(|path| (path, Empty {})));
        }
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        other => return Err(wrong(&format!("{other} is not a valid change command"))),
    }
    Ok(())
}

fn json_list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// The JSON form as it is, the shell form through `/bin/sh -c`.
fn command(text: &str) -> Vec<String> {
    json_list(text).unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into(), text.to_owned()])
}

/// `A=1 B="two words"`, or the old form `A rest of the line`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    if !text.split_whitespace().next()?.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let mut words: Vec<String> = vec![String::new()];
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let last = words.last_mut()?;
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None | Some('"'), '\\') => last.push(chars.next()?),
            (None, c) if c.is_whitespace() => {
                if !last.is_empty() {
                    words.push(String::new());
                }
            }
            (_, c) => last.push(c),
        }
    }
    let words = words.into_iter().filter(|word| !word.is_empty());
    words
        .map(|word| {
            word.split_once('=')
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_configuration() {
        let mut config = RunConfig::default();
        let changes = [
            "CMD [\"a\", \"b\"]",
            "entrypoint echo hi",
            "ENV A=1 B=\"two words\"",
            "ENV A 3",
            "LABEL k=v",
            "EXPOSE 80 9/udp",
            "WORKDIR /w",
            "VOLUME /a /b",
        ];
        for change in changes {
            apply(&mut config, change).unwrap_or_else(|error| panic!("{change}: {error}"));
        }
        assert_eq!(config.cmd.as_deref().unwrap(), ["a", "b"]);
        assert_eq!(
            config.entrypoint.as_deref().unwrap(),
            ["/bin/sh", "-c", "echo hi"]
        );
        assert_eq!(config.env, ["B=two words", "A=3"]);
        assert_eq!(config.labels["k"], "v");
        let ports: Vec<&String> = config.exposed_ports.keys().collect();
        assert_eq!(ports, ["80/tcp", "9/udp"]);
        assert_eq!(config.volumes.len(), 2);
        for bad in ["RUN x", "CMD", "EXPOSE nope"] {
            assert!(apply(&mut config, bad).is_err(), "{bad}");
        }
    }
}
