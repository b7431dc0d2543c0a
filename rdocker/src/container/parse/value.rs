//! Sizes, durations, environment, devices, ulimits, restart policies, hosts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use crate::container::api::{DeviceMapping, RestartPolicy, ThrottleDevice, Ulimit, WeightDevice};
use crate::error::{Error, Result};

fn invalid(message: impl Into<String>) -> Error {
    Error::Invalid(message.into())
}

/// Bytes from `512m`, `1.5g`, `64MiB`; suffixes are powers of 1024 as in go-units `RAMInBytes`.
pub fn bytes(text: &str) -> Result<i64, String> {
    let wrong = || format!("invalid size: '{text}'");
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let suffix = suffix.trim().to_lowercase();
    let power = match suffix.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(wrong()),
    };
    let value = number * f64::from(2u32).powi(power);
    // 2⁶³ is exact as a float; everything below it fits.
    if !(0.0..9_223_372_036_854_775_808.0).contains(&value) {
        return Err(wrong());
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range is checked above"
    )]
    Ok(value as i64)
}

/// [`bytes`], or -1 for unlimited.
pub fn bytes_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { bytes(text) }
}

/// A Go duration: `1h2m3.5s`, `100ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let length = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let seconds = match &rest[..length] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        rest = &rest[length..];
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    }
    if text.is_empty() {
        Err(wrong())
    } else {
        Ok(total)
    }
}

/// CPUs times 10⁹ from a decimal such as `1.5`.
pub fn nano_cpus(text: &str) -> Result<i64, String> {
    let wrong = || format!("failed to parse {text} as a rational number");
    let value: f64 = text.parse().map_err(|_| wrong())?;
    if !(0.0..=1e6).contains(&value) {
        return Err(wrong());
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range is checked above"
    )]
    Ok((value * 1e9).round() as i64)
}

/// `KEY=value`, or `KEY` with the value from `lookup`; an unset `KEY` is left out.
pub fn env(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>> {
    match text.split_once('=') {
        Some(("", _)) | None if text.is_empty() || text.starts_with('=') => {
            Err(invalid(format!("invalid environment variable: {text}")))
        }
        Some(_) => Ok(Some(text.to_owned())),
        None => Ok(lookup(text).map(|value| format!("{text}={value}"))),
    }
}

/// The lines of an `--env-file`: a name alone has the value from `lookup`.
pub fn env_file(path: &Path, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    key_value_file(path, &|line| {
        lookup(line).map(|value| format!("{line}={value}"))
    })
}

/// The lines of a `--label-file`: a key alone has an empty value.
pub fn label_file(path: &Path) -> Result<Vec<String>> {
    key_value_file(path, &|line| Some(line.trim_end().to_owned()))
}

/// Comments and blank lines are skipped, values are taken verbatim; `alone` says what a key without
/// a value stands for. Docker calls both kinds of file an env file.
fn key_value_file(path: &Path, alone: &dyn Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    let wrong = |why: &str| invalid(format!("invalid env file ({}): {why}", path.display()));
    let mut bytes = Vec::new();
    let mut file = std::fs::File::open(path).map_err(|errno| Error::local("open", path, errno))?;
    match std::io::Read::read_to_end(&mut file, &mut bytes) {
        Err(errno) if errno.kind() == std::io::ErrorKind::IsADirectory => {
            return Err(wrong(&format!("read {}: is a directory", path.display())));
        }
        Err(errno) => return Err(Error::local("read", path, errno)),
        Ok(_) => {}
    }
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    let mut list = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        let Ok(line) = std::str::from_utf8(line) else {
            return Err(wrong(&format!("invalid utf8 bytes at line {number}")));
        };
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, has_value) = line
            .split_once('=')
            .map_or((line, false), |(key, _)| (key, true));
        if key.is_empty() {
            return Err(wrong(&format!("no variable name on line '{line}'")));
        }
        if key.contains(char::is_whitespace) {
            return Err(wrong(&format!("variable '{key}' contains whitespaces")));
        }
        if has_value {
            list.push(line.to_owned());
        } else {
            list.extend(alone(line));
        }
    }
    Ok(list)
}

/// `KEY=value` pairs; a key alone has an empty value.
pub fn pairs(list: &[String]) -> BTreeMap<String, String> {
    list.iter()
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

/// `KEY=VALUE` of a kernel setting that a namespace has for itself (docker/cli `opts.ValidateSysctl`).
pub fn sysctl(text: &str) -> Result<String, String> {
    const KEYS: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let key = text.split_once('=').map(|(key, _)| key);
    match key {
        Some(key)
            if KEYS.contains(&key) || key.starts_with("net.") || key.starts_with("fs.mqueue.") =>
        {
            Ok(text.to_owned())
        }
        _ => Err(format!("sysctl '{text}' is not allowed")),
    }
}

/// `NAME=SOFT[:HARD]`.
pub fn ulimit(text: &str) -> Result<Ulimit, String> {
    const NAMES: &[&str] = &[
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let (name, limits) = text
        .split_once('=')
        .ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| {
        text.parse::<i64>()
            .map_err(|_| format!("invalid ulimit value in {name}={limits}"))
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(Ulimit {
        name: name.to_owned(),
        hard,
        soft,
    })
}

/// `HOST[:CONTAINER][:PERMISSIONS]`.
pub fn device(text: &str) -> Result<DeviceMapping> {
    let valid = |mode: &str| !mode.is_empty() && mode.chars().all(|c| "rwm".contains(c));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, mode) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, mode] if valid(mode) => (*host, *host, *mode),
        [host, inside] => (*host, *inside, "rwm"),
        [host, inside, mode] => (*host, *inside, *mode),
        _ => return Err(invalid(format!("invalid device specification: {text}"))),
    };
    if !valid(mode) {
        return Err(invalid(format!("invalid device mode: {mode}")));
    }
    if !host.starts_with('/') || !inside.starts_with('/') {
        return Err(invalid(format!(
            "bad format for path: {text} is not an absolute path"
        )));
    }
    Ok(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: inside.to_owned(),
        cgroup_permissions: mode.to_owned(),
    })
}

/// `PATH:WEIGHT`.
pub fn weight_device(text: &str) -> Result<WeightDevice, String> {
    let wrong = || format!("invalid value: {text}");
    let (path, weight) = text.split_once(':').ok_or_else(wrong)?;
    let weight = weight.parse().map_err(|_| wrong())?;
    if !path.starts_with("/dev/") || !(weight == 0 || (10..=1000).contains(&weight)) {
        return Err(wrong());
    }
    Ok(WeightDevice {
        path: path.to_owned(),
        weight,
    })
}

/// `PATH:RATE` where the rate is in bytes, with a unit.
pub fn throttle_bps(text: &str) -> Result<ThrottleDevice, String> {
    throttle(text, |rate| {
        bytes(rate).ok().and_then(|rate| u64::try_from(rate).ok())
    })
}

/// `PATH:RATE` where the rate is in operations.
pub fn throttle_iops(text: &str) -> Result<ThrottleDevice, String> {
    throttle(text, |rate| rate.parse().ok())
}

fn throttle(text: &str, rate: fn(&str) -> Option<u64>) -> Result<ThrottleDevice, String> {
    let wrong =
        || format!("invalid rate for device: {text}. The correct format is <device-path>:<number>");
    let (path, number) = text.split_once(':').ok_or_else(wrong)?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    Ok(ThrottleDevice {
        path: path.to_owned(),
        rate: rate(number).ok_or_else(wrong)?,
    })
}

/// `no`, `always`, `unless-stopped`, `on-failure[:N]`.
pub fn restart_policy(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => (name, Some(count)),
        None => (text, None),
    };
    let name = match name {
        "" | "no" => "no",
        "always" | "unless-stopped" | "on-failure" => name,
        _ => {
            return Err(format!(
                "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', \
                 'on-failure', or 'unless-stopped'"
            ));
        }
    };
    let maximum_retry_count = match count {
        None => 0,
        Some(_) if name != "on-failure" => {
            return Err(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'"
                    .to_owned(),
            );
        }
        Some(count) => count.parse().map_err(|_| {
            "invalid restart policy format: maximum retry count must be an integer".to_owned()
        })?,
    };
    Ok(RestartPolicy {
        name: name.to_owned(),
        maximum_retry_count,
    })
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`; the address may be in brackets or `host-gateway`.
pub fn extra_host(text: &str) -> Result<String, String> {
    let separator = text
        .find(['=', ':'])
        .ok_or_else(|| format!("bad format for add-host: {text:?}"))?;
    let (name, address) = (&text[..separator], &text[separator + 1..]);
    let plain = address.trim_start_matches('[').trim_end_matches(']');
    if name.is_empty() {
        return Err(format!("bad format for add-host: {text:?}"));
    }
    if plain != "host-gateway" && plain.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {plain:?}"));
    }
    Ok(format!("{name}:{plain}"))
}

/// Checks a container's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub fn container_name(name: &str) -> Result<String> {
    let name = name.strip_prefix('/').unwrap_or(name);
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if !first || !rest || name.len() < 2 {
        return Err(invalid(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        let cases: &[(&str, Result<i64, ()>)] = &[
            ("64m", Ok(64 << 20)),
            ("1.5g", Ok(3 << 29)),
            ("10", Ok(10)),
            ("4KiB", Ok(4096)),
            ("2kb", Ok(2048)),
            ("x", Err(())),
            ("1y", Err(())),
            ("-5", Err(())),
            ("99999999999g", Err(())),
        ];
        for (text, want) in cases {
            assert_eq!(bytes(text).map_err(drop), *want, "{text}");
        }
        assert_eq!(bytes_or_unlimited("-1"), Ok(-1));
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let cases: &[(&str, Option<u64>)] = &[
            ("1m30s", Some(90_000)),
            ("100ms", Some(100)),
            ("1.5h", Some(5_400_000)),
            ("0", Some(0)),
            ("5", None),
            ("", None),
            ("1d", None),
        ];
        for (text, want) in cases {
            assert_eq!(
                duration(text).ok(),
                want.map(Duration::from_millis),
                "{text}"
            );
        }
    }

    #[test]
    fn an_environment_variable_without_value_is_taken_from_the_caller() {
        let lookup = |name: &str| (name == "SET").then(|| "here".to_owned());
        let cases: &[(&str, Option<&str>)] = &[
            ("A=b=c", Some("A=b=c")),
            ("SET", Some("SET=here")),
            ("UNSET", None),
            ("A=", Some("A=")),
        ];
        for (text, want) in cases {
            assert_eq!(env(text, &lookup).unwrap().as_deref(), *want, "{text}");
        }
        assert!(env("=x", &lookup).is_err());
    }

    #[test]
    fn flag_values_that_docker_refuses_are_refused() {
        assert!(
            ulimit("nofile=10:5")
                .unwrap_err()
                .contains("soft limit must be less")
        );
        assert!(
            ulimit("what=1")
                .unwrap_err()
                .contains("invalid ulimit type")
        );
        assert!(device("/dev/null:/dev/x:q").is_err());
        assert!(device("null").is_err());
        assert!(
            restart_policy("always:3")
                .unwrap_err()
                .contains("only be used with")
        );
        assert!(
            restart_policy("sometimes")
                .unwrap_err()
                .contains("unknown policy")
        );
        assert!(
            extra_host("a:b")
                .unwrap_err()
                .contains("invalid IP address")
        );
        assert!(container_name("a").is_err());
        assert!(container_name("-ab").is_err());
        assert_eq!(container_name("/web_1").unwrap(), "web_1");
    }

    #[test]
    fn structured_values_are_taken_apart() {
        let want = Ulimit {
            name: "nofile".into(),
            soft: 5,
            hard: 10,
        };
        assert_eq!(ulimit("nofile=5:10"), Ok(want));
        let null = device("/dev/null:/dev/zero:r").unwrap();
        assert_eq!(
            (
                null.path_in_container.as_str(),
                null.cgroup_permissions.as_str()
            ),
            ("/dev/zero", "r")
        );
        let policy = restart_policy("on-failure:3").unwrap();
        assert_eq!(
            (policy.name.as_str(), policy.maximum_retry_count),
            ("on-failure", 3)
        );
        assert_eq!(extra_host("db=[::1]"), Ok("db:::1".to_owned()));
        assert_eq!(nano_cpus("1.5"), Ok(1_500_000_000));
    }
}
