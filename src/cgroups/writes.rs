//! What v1 and v2 limits come down to: a list of writes, applied in its order and read back.

use std::fmt::{self, Display, Formatter};

use nix::errno::Errno;

use super::dir::Dir;
use super::limits::parse_list;
use crate::error::{Error, Result};

/// One value for one file of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write<'a> {
    /// Where the value stands in config.json, for error texts.
    pub source: Source<'a>,
    /// The controller, for the choice of the directory and for error texts.
    pub controller: &'a str,
    /// The file's name.
    pub file: String,
    /// What is written, in one `write`.
    pub value: String,
    /// What `EINVAL` means.
    pub invalid: Invalid,
    /// What `ENOENT` means.
    pub absent: Absent,
}

/// A place in `linux.resources`, spelt out only for an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// `.cpu.quota`
    Field(&'static str),
    /// `.hugepageLimits`, 2, `.limit`: an entry of a list, and the field in it.
    Entry(&'static str, usize, &'static str),
    /// `.unified`, `memory.high`: an entry of a map.
    Key(&'static str, &'a str),
}

impl From<&'static str> for Source<'_> {
    fn from(field: &'static str) -> Self {
        Self::Field(field)
    }
}

impl Display for Source<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(".linux.resources")?;
        match self {
            Self::Field(field) => f.write_str(field),
            Self::Entry(list, nth, field) => write!(f, "{list}[{nth}]{field}"),
            Self::Key(map, key) => write!(f, "{map}[{key:?}]"),
        }
    }
}

/// What to do when the kernel finds a value invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// It is wrong.
    Fails,
    /// It contradicts another value that is about to change: write it again after the others.
    Waits,
}

/// What to do when the kernel has no such file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// The limit cannot be applied.
    Fails,
    /// The write would have changed nothing.
    IsFine,
    /// Another file, with its own value, does the same.
    Instead(String, String),
}

impl<'a> Write<'a> {
    /// A write that has to succeed.
    pub fn new(
        source: impl Into<Source<'a>>,
        controller: &'a str,
        file: impl Into<String>,
        value: impl ToString,
    ) -> Self {
        Self {
            source: source.into(),
            controller,
            file: file.into(),
            value: value.to_string(),
            invalid: Invalid::Fails,
            absent: Absent::Fails,
        }
    }

    /// The error of a value that cannot hold.
    pub fn refused(&self, why: String) -> Error {
        Error::spec(self.source.to_string(), why)
    }

    /// The same, but an invalid value is written again after the others.
    pub fn waits(self) -> Self {
        Self {
            invalid: Invalid::Waits,
            ..self
        }
    }

    /// The same, but nothing is lost if the kernel has no such file.
    pub fn or_not(self) -> Self {
        Self {
            absent: Absent::IsFine,
            ..self
        }
    }

    /// The same, but `file` gets `value` if the kernel has no such file.
    pub fn or(self, file: &str, value: impl ToString) -> Self {
        Self {
            absent: Absent::Instead(file.into(), value.to_string()),
            ..self
        }
    }
}

/// Applies `writes` in their order in `dir`.
pub fn apply(dir: &Dir, writes: &[Write<'_>]) -> Result<()> {
    let mut waiting = Vec::new();
    for write in writes {
        match dir.write(&write.file, &write.value) {
            Ok(()) => {}
            Err(Errno::EINVAL) if write.invalid == Invalid::Waits => waiting.push(write),
            Err(Errno::ENOENT) => match &write.absent {
                Absent::Fails => return Err(refused(dir, write, Errno::ENOENT)),
                Absent::IsFine => {}
                Absent::Instead(file, value) => {
                    let other = Write::new(write.source, write.controller, file, value);
                    dir.write(file, value)
                        .map_err(|errno| refused(dir, &other, errno))?;
                }
            },
            Err(errno) => return Err(refused(dir, write, errno)),
        }
    }
    for write in waiting {
        dir.write(&write.file, &write.value)
            .map_err(|errno| refused(dir, write, errno))?;
    }
    Ok(())
}

/// Reads back what the kernel took of `writes`, and refuses what it did not take.
///
/// # Errors
/// Names the file, its text and what was asked for.
pub fn verify(dir: &Dir, writes: &[Write<'_>]) -> Result<()> {
    for write in writes {
        let (file, value, text) = match (dir.read(&write.file), &write.absent) {
            (Ok(text), _) => (&write.file, &write.value, text),
            (Err(Errno::ENOENT), Absent::IsFine) => continue,
            (Err(Errno::ENOENT), Absent::Instead(file, value)) => (file, value, dir.get(file)?),
            // Commands such as memory.reclaim, which `unified` may give, are not to be read.
            (Err(Errno::EACCES | Errno::EINVAL | Errno::EOPNOTSUPP), _) => continue,
            (Err(errno), _) => return Err(Error::host("read", dir.join(&write.file), errno)),
        };
        if !agrees(file, value, &text) {
            let (text, path) = (text.trim().replace('\n', ", "), dir.join(file));
            let why = format!("{path} is \"{text}\", not \"{value}\": the kernel did not take it");
            return Err(write.refused(why));
        }
    }
    Ok(())
}

/// Whether `text`, read from `file`, is what `value` asked for: the same words on one line (behind
/// a device number or key), the same list, or the same amount as the kernel rounds and spells it.
fn agrees(file: &str, value: &str, text: &str) -> bool {
    let words: Vec<&str> = value.split_whitespace().collect();
    let has_words = |line: &str| {
        words
            .iter()
            .all(|word| line.split_whitespace().any(|w| w == *word))
    };
    if text.lines().any(has_words) {
        // A partition says `root invalid` when it is none: cgroup-v2.rst "cpuset.cpus.partition".
        return !text.contains("invalid");
    }
    if file.starts_with("cpuset.") {
        return parse_list(value)
            .is_ok_and(|value| parse_list(text).is_ok_and(|text| text == value));
    }
    match words[..] {
        // A device without a limit has no line.
        [device, rate] if rate == "0" || rate.ends_with("=max") => !text
            .lines()
            .any(|line| line.split(' ').next() == Some(device)),
        [value] => amounts_agree(file, value, text.trim()),
        _ => false,
    }
}

/// Whether two amounts are the same to the kernel, which rounds bytes down to whole pages and has
/// its own words for no limit.
fn amounts_agree(file: &str, value: &str, text: &str) -> bool {
    /// v1 spells "no limit" as the largest multiple of the page size.
    const NO_LIMIT: u64 = 1 << 62;
    /// The largest base page of Linux, in bytes.
    const PAGE: u64 = 64 << 10;
    let (Some(value), Some(text)) = (amount(value), amount(text)) else {
        return false;
    };
    let rounded_down = match file.starts_with("hugetlb.") {
        // To whole huge pages.
        true => text <= value,
        false => text <= value && value - text < PAGE && text % 4096 == 0,
    };
    value == text || rounded_down || value.min(text) >= NO_LIMIT
}

/// An amount such as `4096`, `64M` or `0x1000`, as the kernel's memparse() reads it; no limit is the
/// largest number.
fn amount(text: &str) -> Option<u64> {
    if matches!(text, "max" | "-1") {
        return Some(u64::MAX);
    }
    let (digits, shift) = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        b'T' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let number: u64 = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    number.checked_mul(1 << shift)
}

fn refused(dir: &Dir, write: &Write<'_>, errno: Errno) -> Error {
    let Write {
        file, controller, ..
    } = write;
    let value = write.value.trim_end();
    match errno {
        // Callers take the words of ENOENT for a missing program.
        Errno::ENOENT => write.refused(format!(
            "the kernel, or the cgroup {}, has no {controller} controller or no file {file}; remove \
             the value",
            dir.path(),
        )),
        // Lowering a limit of v1 below what cannot be reclaimed. *Matched* in its first words.
        Errno::EBUSY if file == "memory.limit_in_bytes" => {
            let now = |file| {
                dir.read(file)
                    .map_or("unknown".into(), |text| text.trim().to_owned())
            };
            write.refused(format!(
                "unable to set memory limit to {value} (current usage: {}, peak usage: {})",
                now("memory.usage_in_bytes"),
                now("memory.max_usage_in_bytes")
            ))
        }
        _ => Error::Refused {
            at: write.source.to_string(),
            why: remedy(controller, errno),
            value: value.to_owned(),
            on: dir.join(file),
            errno: errno.into(),
        },
    }
}

/// What to do about a value that the kernel refuses with `errno`.
///
/// Sources: cgroup-v2.rst, cgroup-v1/cpusets.rst, scheduler/sched-bwc.rst and sched-rt-group.rst;
/// `blkg_conf_prep` for block devices.
fn remedy(controller: &str, errno: Errno) -> &'static str {
    match (errno, controller) {
        (_, "cpuset") => "give only what the machine has and the cgroups above allow",
        (Errno::EACCES | Errno::EPERM | Errno::EROFS, _) => {
            "the caller may not set limits there: have the cgroup delegated to him"
        }
        (Errno::ENODEV | Errno::ENXIO, _) => "there is no such device",
        (Errno::EOPNOTSUPP, "io" | "blkio") => "the disk's scheduler knows no weights: give it bfq",
        (Errno::EINVAL | Errno::EBUSY, "cpu") => {
            "it contradicts another value, or what the cgroups above have"
        }
        (Errno::EBUSY, _) => "more is in use",
        _ => "give a value that the kernel takes, or remove it",
    }
}

/// A write as the tables of the tests spell it: `file=value`, `~` if it may wait, `?` if the file
/// may be absent, `|file=value` for the alternative.
#[cfg(test)]
pub fn shown(write: &Write<'_>) -> String {
    let waits = if write.invalid == Invalid::Waits {
        "~"
    } else {
        ""
    };
    let absent = match &write.absent {
        Absent::Fails => String::new(),
        Absent::IsFine => "?".into(),
        Absent::Instead(file, value) => format!("|{file}={value}"),
    };
    format!("{}={}{waits}{absent}", write.file, write.value)
}

/// Fails unless each of `writes` names a value that is in `resources`.
#[cfg(test)]
pub fn assert_sources(resources: &str, writes: &[Write<'_>]) {
    let resources: serde_json::Value = serde_json::from_str(resources).unwrap();
    for write in writes {
        let way = match write.source {
            Source::Field(field) => field.replace('.', "/"),
            Source::Entry(list, nth, field) => format!("{list}/{nth}{field}").replace('.', "/"),
            Source::Key(map, key) => format!("{}/{key}", map.replace('.', "/")),
        };
        assert!(resources.pointer(&way).is_some(), "{way} in {resources}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_json_path() {
        for (source, want) in [
            (Source::from(".cpu.quota"), ".cpu.quota"),
            (Source::Entry(".l", 2, ".limit"), ".l[2].limit"),
            (Source::Key(".unified", "a.b"), ".unified[\"a.b\"]"),
        ] {
            assert_eq!(source.to_string(), format!(".linux.resources{want}"));
        }
    }

    #[test]
    fn what_the_kernel_took_is_told_from_what_it_did_not_take() {
        let cases: &[(&str, &str, &str, bool)] = &[
            ("pids.max", "7", "7\n", true),
            ("pids.max", "7", "70\n", false),
            ("pids.max", "max", "max\n", true),
            ("cpu.max", "max 20000", "max 20000\n", true),
            ("cpu.max", "5000 20000", "max 20000\n", false),
            ("cpu.cfs_quota_us", "-1", "-1\n", true),
            ("memory.limit_in_bytes", "-1", "9223372036854771712\n", true),
            ("memory.limit_in_bytes", "-1", "4096\n", false),
            ("memory.max", "10000", "8192\n", true),
            ("memory.max", "8192", "10000\n", false),
            ("cpu.shares", "1025", "1024\n", false),
            ("cpuset.cpus", "1,0", "0-1\n", true),
            ("cpuset.cpus", "0", "0-1\n", false),
            (
                "memory.oom_control",
                "1",
                "oom_kill_disable 1\nunder_oom 0\n",
                true,
            ),
            ("io.weight", "4950", "default 4950\n", true),
            (
                "io.max",
                "8:0 rbps=1",
                "8:0 rbps=1 wbps=max riops=max wiops=max\n",
                true,
            ),
            (
                "io.max",
                "8:0 rbps=1",
                "8:0 rbps=max wbps=1 riops=max wiops=max\n",
                false,
            ),
            ("io.max", "8:0 rbps=1", "", false),
            ("net_prio.ifpriomap", "lo 5", "eth0 0\nlo 5\n", true),
            ("io.max", "8:0 rbps=max", "", true),
            (
                "io.max",
                "8:0 rbps=max",
                "8:0 rbps=1 wbps=max riops=max wiops=max\n",
                false,
            ),
            ("blkio.throttle.read_bps_device", "8:0 0", "8:16 5\n", true),
            ("blkio.throttle.read_bps_device", "8:0 5", "8:16 5\n", false),
            ("memory.max", "9223372036854775807", "max\n", true),
            ("memory.max", "4096", "max\n", false),
            ("memory.high", "1M", "1048576\n", true),
            ("memory.high", "0x100000", "1048576\n", true),
            ("memory.high", "2M", "1048576\n", false),
            ("hugetlb.2MB.max", "3145728", "2097152\n", true),
            ("hugetlb.2MB.max", "2097152", "4194304\n", false),
            ("cpuset.cpus.partition", "root", "root\n", true),
            ("cpuset.cpus.partition", "root", "member\n", false),
            (
                "cpuset.cpus.partition",
                "root",
                "root invalid (Cpu list)\n",
                false,
            ),
        ];
        for (file, value, text, want) in cases {
            assert_eq!(agrees(file, value, text), *want, "{file} {value} {text:?}");
        }
    }
}
