//! The user's configuration on top of the image's.

use std::collections::BTreeMap;

use super::api::Config;
use crate::error::{Error, Result};
use crate::image::config::{Healthcheck, RunConfig};
use crate::image::instruction::is_variable;

/// PATH of a container whose image and user set none (moby `oci.DefaultPathEnv`).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Fills what the user left open from the image.
///
/// # Errors
/// `no command specified` when neither names a program.
pub fn with_image(mut config: Config, image: &RunConfig) -> Result<Config> {
    let or = |mine: &mut String, theirs: &str| {
        if mine.is_empty() {
            theirs.clone_into(mine);
        }
    };
    or(&mut config.user, &image.user);
    or(&mut config.working_dir, &image.working_dir);
    for variable in image.env.iter().filter(|word| is_variable(word)) {
        let key = key_of(variable);
        if !config.env.iter().any(|mine| key_of(mine) == key) {
            config.env.push(variable.clone());
        }
    }
    for (key, value) in &image.labels {
        config
            .labels
            .entry(key.clone())
            .or_insert_with(|| value.clone());
    }
    for (port, value) in &image.exposed_ports {
        config.exposed_ports.entry(port.clone()).or_insert(*value);
    }
    if !image.volumes.is_empty() {
        let volumes = config.volumes.get_or_insert_with(BTreeMap::new);
        volumes.extend(
            image
                .volumes
                .iter()
                .map(|(path, value)| (path.clone(), *value)),
        );
    }
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd.clone_from(&image.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&image.entrypoint);
        }
    }
    if config.entrypoint.as_deref() == Some(&[String::new()]) {
        config.entrypoint = None;
    }
    if config.stop_signal.is_none() && !image.stop_signal.is_empty() {
        config.stop_signal = Some(image.stop_signal.clone());
    }
    config.stop_timeout = config.stop_timeout.or(image.stop_timeout);
    config.shell = config.shell.or_else(|| image.shell.clone());
    if !image.on_build.is_empty() {
        config.on_build = Some(image.on_build.clone());
    }
    config.healthcheck = healthcheck(config.healthcheck, image.healthcheck.as_ref());
    if command_line(&config).is_empty() {
        return Err(Error::Invalid("no command specified".to_owned()));
    }
    Ok(config)
}

/// Entrypoint and arguments, as they are executed.
pub fn command_line(config: &Config) -> Vec<String> {
    let entrypoint = config.entrypoint.iter().flatten();
    entrypoint
        .chain(config.cmd.iter().flatten())
        .cloned()
        .collect()
}

/// The same on one line, as lists show it: arguments with spaces are in quotes.
pub fn shown_command(config: &Config) -> String {
    let quoted = |word: &String| match word.contains(' ') {
        true => format!("'{word}'"),
        false => word.clone(),
    };
    let words: Vec<String> = command_line(config).iter().map(quoted).collect();
    words.join(" ")
}

/// The environment of the first process: engine defaults below the configuration's own.
pub fn environment(config: &Config) -> Vec<String> {
    let mut defaults = vec![
        format!("PATH={DEFAULT_PATH}"),
        format!("HOSTNAME={}", config.hostname),
    ];
    if config.tty {
        defaults.push("TERM=xterm".to_owned());
    }
    defaults.retain(|default| {
        !config
            .env
            .iter()
            .any(|mine| key_of(mine) == key_of(default))
    });
    defaults.extend(
        config
            .env
            .iter()
            .filter(|variable| variable.contains('='))
            .cloned(),
    );
    defaults
}

/// `base` with the variables of `over` put in their place, new ones at the end.
pub fn overlay(mut base: Vec<String>, over: &[String]) -> Vec<String> {
    for variable in over {
        match base
            .iter_mut()
            .find(|mine| key_of(mine) == key_of(variable))
        {
            Some(mine) => mine.clone_from(variable),
            None => base.push(variable.clone()),
        }
    }
    base
}

fn key_of(variable: &str) -> &str {
    variable.split('=').next().unwrap_or(variable)
}

/// A user's check inherits from the image every value it leaves open.
fn healthcheck(mine: Option<Healthcheck>, image: Option<&Healthcheck>) -> Option<Healthcheck> {
    let (Some(mut mine), Some(image)) = (mine.clone(), image) else {
        return mine
            .or_else(|| image.cloned())
            .filter(|check| !check.test.is_empty());
    };
    if mine.test.is_empty() {
        mine.test.clone_from(&image.test);
    }
    let or = |mine: &mut i64, theirs: i64| {
        if *mine == 0 {
            *mine = theirs;
        }
    };
    or(&mut mine.interval, image.interval);
    or(&mut mine.timeout, image.timeout);
    or(&mut mine.start_period, image.start_period);
    or(&mut mine.start_interval, image.start_interval);
    or(&mut mine.retries, image.retries);
    Some(mine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn entrypoint_and_command_combine_as_docker_combines_them() {
        type Words<'a> = Option<&'a [&'a str]>;
        let image = RunConfig {
            entrypoint: words(&["/entry"]),
            cmd: words(&["default"]),
            ..RunConfig::default()
        };
        let cases: &[(Words<'_>, Words<'_>, &[&str])] = &[
            (None, None, &["/entry", "default"]),
            (None, Some(&["x"]), &["/entry", "x"]),
            (Some(&["/mine"]), None, &["/mine"]),
            (Some(&["/mine"]), Some(&["x"]), &["/mine", "x"]),
            (Some(&[""]), Some(&["x"]), &["x"]),
        ];
        for (entrypoint, cmd, want) in cases {
            let config = Config {
                entrypoint: entrypoint.and_then(words),
                cmd: cmd.and_then(words),
                ..Config::default()
            };
            let merged = with_image(config, &image).unwrap();
            assert_eq!(command_line(&merged), *want, "{entrypoint:?} {cmd:?}");
        }
    }

    #[test]
    fn an_image_without_a_command_needs_one() {
        let error = with_image(Config::default(), &RunConfig::default()).unwrap_err();
        assert_eq!(error.to_string(), "no command specified");
    }

    #[test]
    fn the_user_environment_beats_the_image_and_both_beat_the_defaults() {
        let image = RunConfig {
            env: vec!["PATH=/image".into(), "A=image".into()],
            cmd: words(&["x"]),
            ..RunConfig::default()
        };
        let config = Config {
            env: vec!["A=mine".into()],
            hostname: "h".into(),
            tty: true,
            ..Config::default()
        };
        let merged = with_image(config, &image).unwrap();
        assert_eq!(merged.env, ["A=mine", "PATH=/image"]);
        assert_eq!(
            environment(&merged),
            ["HOSTNAME=h", "TERM=xterm", "A=mine", "PATH=/image"]
        );
    }

    #[test]
    fn a_healthcheck_inherits_what_it_leaves_open() {
        let image = Healthcheck {
            test: vec!["CMD".into()],
            retries: 5,
            ..Healthcheck::default()
        };
        let mine = Healthcheck {
            interval: 7,
            ..Healthcheck::default()
        };
        let both = healthcheck(Some(mine), Some(&image)).unwrap();
        assert_eq!(
            (both.test[0].as_str(), both.interval, both.retries),
            ("CMD", 7, 5)
        );
    }
}
