//! `-v`, `--mount` and `--tmpfs`.

use crate::container::api::{BindOptions, DriverConfig, MountRequest, TmpfsOptions, VolumeOptions};
use crate::container::parse::value;
use crate::error::{Error, Result};

/// A `-v` value taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeFlag {
    /// Host path or volume name; `None` for an anonymous volume.
    pub source: Option<String>,
    /// Path in the container.
    pub target: String,
    /// The container may only read.
    pub read_only: bool,
    /// Mount propagation, empty for the default.
    pub propagation: String,
    /// Do not copy the image's files into an empty volume.
    pub no_copy: bool,
}

const PROPAGATION: &[&str] = &[
    "shared", "rshared", "slave", "rslave", "private", "rprivate",
];

/// `[SOURCE:]TARGET[:OPTION[,OPTION…]]`.
///
/// # Errors
/// Docker's `invalid volume specification` with the reason.
pub fn volume_flag(text: &str) -> Result<VolumeFlag> {
    let wrong = |why: &str| Error::Invalid(format!("invalid volume specification: '{text}'{why}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(wrong("")),
    };
    if source == Some("") {
        return Err(wrong(": source must not be empty"));
    }
    let target = clean_target(target).map_err(|why| wrong(&format!(": {why}")))?;
    let mut flag = VolumeFlag {
        source: source.map(str::to_owned),
        target,
        ..VolumeFlag::default()
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => flag.read_only = true,
            "nocopy" => flag.no_copy = true,
            option if PROPAGATION.contains(&option) => option.clone_into(&mut flag.propagation),
            // Relabelling for SELinux, which has nothing to do where SELinux is off, and
            // consistency hints that only Docker Desktop knew.
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" | "copy" => {}
            _ => return Err(Error::Invalid(format!("invalid mode: {options}"))),
        }
    }
    if let Some(source) = &flag.source {
        let is_path = source.starts_with('/');
        if !is_path && !is_volume_name(source) {
            return Err(Error::Invalid(format!(
                "create {source}: {source:?} includes invalid characters for a local volume \
                 name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a \
                 host directory, use absolute path"
            )));
        }
        if is_path && flag.no_copy {
            return Err(wrong(": invalid mode: nocopy"));
        }
    }
    Ok(flag)
}

/// Whether `name` may name a volume: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub fn is_volume_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && name.len() > 1
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// The target without `.`, `..`, doubled and trailing slashes; it may not be the root.
fn clean_target(target: &str) -> Result<String, String> {
    if !target.starts_with('/') {
        return Err(format!(
            "invalid mount path: '{target}' mount path must be absolute"
        ));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err("destination can't be '/'".to_owned());
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Fields of `--mount` that may stand without a value.
const SWITCHES: &[&str] = &[
    "readonly",
    "ro",
    "bind-nonrecursive",
    "bind-create-src",
    "volume-nocopy",
];

/// `type=bind,source=/a,target=/b,readonly`: comma separated pairs.
///
/// # Errors
/// An unknown key, a missing target, an option of another type.
pub fn mount_flag(text: &str) -> Result<MountRequest> {
    let wrong = |why: String| {
        Error::Invalid(format!(
            "invalid argument {text:?} for \"--mount\" flag: {why}"
        ))
    };
    let mut mount = MountRequest {
        kind: "volume".to_owned(),
        ..MountRequest::default()
    };
    let (mut bind, mut volume, mut tmpfs) = (
        BindOptions::default(),
        VolumeOptions::default(),
        TmpfsOptions::default(),
    );
    let fields = csv(text).map_err(wrong)?;
    for field in fields.iter().map(String::as_str) {
        let (key, value) = field.trim().split_once('=').unwrap_or((field.trim(), ""));
        if !field.contains('=') && !SWITCHES.contains(&key.to_lowercase().as_str()) {
            return Err(wrong(format!(
                "invalid field '{field}' must be a key=value pair"
            )));
        }
        let switch = || match value {
            "" | "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(wrong(format!("invalid value for {key}: {value}"))),
        };
        match key.to_lowercase().as_str() {
            "type" => value.to_lowercase().clone_into(&mut mount.kind),
            "source" | "src" => value.clone_into(&mut mount.source),
            "target" | "dst" | "destination" => {
                mount.target = clean_target(value).map_err(wrong)?;
            }
            "readonly" | "ro" => mount.read_only = switch()?,
            "bind-propagation" if PROPAGATION.contains(&value) => {
                value.clone_into(&mut bind.propagation);
            }
            "bind-nonrecursive" => bind.non_recursive = switch()?,
            "bind-recursive" => bind.non_recursive = value == "disabled",
            "bind-create-src" => bind.create_mountpoint = switch()?,
            "volume-nocopy" => volume.no_copy = switch()?,
            "volume-subpath" => value.clone_into(&mut volume.subpath),
            "volume-label" => {
                let (key, value) = value.split_once('=').unwrap_or((value, ""));
                volume.labels.insert(key.to_owned(), value.to_owned());
            }
            "volume-driver" => driver(&mut volume).name = value.to_owned(),
            "volume-opt" => {
                let (key, value) = value.split_once('=').unwrap_or((value, ""));
                let options = &mut driver(&mut volume).options;
                options.insert(key.to_owned(), value.to_owned());
            }
            "consistency" => {}
            "tmpfs-size" => tmpfs.size_bytes = Some(value::bytes(value).map_err(wrong)?),
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8);
                tmpfs.mode = Some(mode.map_err(|_| wrong(format!("invalid mode: {value}")))?);
            }
            _ => return Err(wrong(format!("unexpected key '{key}' in '{field}'"))),
        }
    }
    check_mount(mount, bind, volume, tmpfs).map_err(wrong)
}

fn driver(volume: &mut VolumeOptions) -> &mut DriverConfig {
    volume.driver_config.get_or_insert_default()
}

/// The fields of one line of CSV: `"a=b,c"` is one field, and `""` in it a quote.
///
/// # Errors
/// A quote where Go's encoding/csv has none, in its words (docker/cli reads `--mount` by it).
fn csv(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let at = line.len() - rest.len() + 1;
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, more) = match rest.split_once(',') {
                Some((field, more)) => (field, Some(more)),
                None => (rest, None),
            };
            if let Some(quote) = field.find('"') {
                return Err(format!(
                    "parse error on line 1, column {}: bare \" in non-quoted-field",
                    at + quote
                ));
            }
            fields.push(field.to_owned());
            match more {
                Some(more) => rest = more,
                None => return Ok(fields),
            }
            continue;
        };
        let end = closing_quote(quoted).ok_or_else(|| {
            let column = line.len() + 1;
            format!(
                "parse error on line 1, column {column}: extraneous or missing \" in quoted-field"
            )
        })?;
        fields.push(quoted[..end].replace("\"\"", "\""));
        match quoted[end + 1..].strip_prefix(',') {
            Some(more) => rest = more,
            None if quoted.len() == end + 1 => return Ok(fields),
            None => {
                let column = at + end + 1;
                return Err(format!(
                    "parse error on line 1, column {column}: extraneous or missing \" in \
                     quoted-field"
                ));
            }
        }
    }
}

/// Where a quoted field ends: at the first quote that no other one follows.
fn closing_quote(text: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let quote = from + text[from..].find('"')?;
        if !text[quote + 1..].starts_with('"') {
            return Some(quote);
        }
        from = quote + 2;
    }
}

/// Puts the options where their mount type has them; options of another type are an error.
fn check_mount(
    mut mount: MountRequest,
    bind: BindOptions,
    volume: VolumeOptions,
    tmpfs: TmpfsOptions,
) -> Result<MountRequest, String> {
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    let kind = mount.kind.clone();
    let refuse = |given: bool, option: &str| match given {
        true => Err(format!(
            "cannot mix '{option}' options with mount type '{kind}'"
        )),
        false => Ok(()),
    };
    refuse(kind != "bind" && bind != BindOptions::default(), "bind-*")?;
    refuse(
        kind != "volume" && volume != VolumeOptions::default(),
        "volume-*",
    )?;
    refuse(
        kind != "tmpfs" && tmpfs != TmpfsOptions::default(),
        "tmpfs-*",
    )?;
    match kind.as_str() {
        "bind" if mount.source.is_empty() => {
            return Err(
                "invalid mount config for type \"bind\": field Source must not be empty".into(),
            );
        }
        "bind" if !mount.source.starts_with('/') => {
            return Err("bind source path must be absolute".to_owned());
        }
        "bind" => mount.bind_options = (bind != BindOptions::default()).then_some(bind),
        "volume" if !mount.source.is_empty() && !is_volume_name(&mount.source) => {
            return Err(format!("{:?} is not a valid volume name", mount.source));
        }
        "volume" => mount.volume_options = (volume != VolumeOptions::default()).then_some(volume),
        "tmpfs" if !mount.source.is_empty() => {
            return Err(
                "invalid mount config for type \"tmpfs\": field Source must not be specified"
                    .into(),
            );
        }
        "tmpfs" => mount.tmpfs_options = (tmpfs != TmpfsOptions::default()).then_some(tmpfs),
        other => {
            return Err(format!(
                "invalid mount config for type {other:?}: mount type unknown"
            ));
        }
    }
    Ok(mount)
}

/// `TARGET[:OPTIONS]` of `--tmpfs`.
pub fn tmpfs_flag(text: &str) -> Result<(String, String)> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let target = clean_target(target)
        .map_err(|why| Error::Invalid(format!("invalid tmpfs {text:?}: {why}")))?;
    Ok((target, options.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_flags_are_taken_apart() {
        let flag = |source: Option<&str>, target: &str| VolumeFlag {
            source: source.map(str::to_owned),
            target: target.to_owned(),
            ..VolumeFlag::default()
        };
        let cases = [
            ("/data", flag(None, "/data")),
            ("data:/d/", flag(Some("data"), "/d")),
            ("/a/b:/c/../d", flag(Some("/a/b"), "/d")),
            (
                "data:/d:ro",
                VolumeFlag {
                    read_only: true,
                    ..flag(Some("data"), "/d")
                },
            ),
            (
                "data:/d:nocopy,z",
                VolumeFlag {
                    no_copy: true,
                    ..flag(Some("data"), "/d")
                },
            ),
            (
                "/a:/d:rslave",
                VolumeFlag {
                    propagation: "rslave".into(),
                    ..flag(Some("/a"), "/d")
                },
            ),
        ];
        for (text, want) in cases {
            assert_eq!(volume_flag(text).unwrap(), want, "{text}");
        }
        for text in [
            "",
            ":/x",
            "/a:",
            "/a:b",
            "/a:/",
            "/a:/b:what",
            "/a:/b:ro:rw",
            "./x:/y",
        ] {
            assert!(volume_flag(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mount_flags_follow_docker_grammar() {
        let bind = mount_flag("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").unwrap();
        assert_eq!(
            (bind.kind.as_str(), bind.source.as_str(), bind.read_only),
            ("bind", "/a", true)
        );
        assert_eq!(bind.bind_options.unwrap().propagation, "rslave");
        let volume = mount_flag("source=data,target=/d,volume-nocopy").unwrap();
        assert!(volume.kind == "volume" && volume.volume_options.unwrap().no_copy);
        let nfs =
            "src=nn,dst=/n,volume-driver=local,volume-opt=type=nfs,\"volume-opt=o=a=\"\"1\"\",rw\"";
        let config = mount_flag(nfs)
            .unwrap()
            .volume_options
            .unwrap()
            .driver_config;
        let config = config.unwrap();
        assert_eq!(
            (config.name.as_str(), config.options["type"].as_str()),
            ("local", "nfs")
        );
        assert_eq!(config.options["o"], "a=\"1\",rw");
        let tmpfs = mount_flag("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        let want = TmpfsOptions {
            size_bytes: Some(1 << 20),
            mode: Some(0o1770),
        };
        assert_eq!(tmpfs.tmpfs_options, Some(want));
    }

    #[test]
    fn a_mount_flag_that_mixes_types_is_refused() {
        let cases = [
            ("type=bind,src=/a", "target is required"),
            ("type=bind,src=a,dst=/b", "must be absolute"),
            ("type=tmpfs,dst=/b,volume-nocopy", "cannot mix 'volume-*'"),
            ("type=volume,dst=/b,tmpfs-size=1", "cannot mix 'tmpfs-*'"),
            ("type=npipe,dst=/b", "mount type unknown"),
            ("type=bind,dst=/b", "field Source must not be empty"),
            ("dst=/b,what", "must be a key=value pair"),
            ("dst=/b,what=1", "unexpected key 'what'"),
            ("dst=/b,\"what", "extraneous or missing \" in quoted-field"),
            ("dst=/b\"", "column 7: bare \" in non-quoted-field"),
        ];
        for (text, want) in cases {
            let why = mount_flag(text).unwrap_err().to_string();
            assert!(why.contains(want), "{text}: {why}");
        }
    }
}
