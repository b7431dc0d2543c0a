//! The view from inside a container: the helper reports it as JSON, the tests read it.

pub mod hook;
pub mod tries;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use crate::requirement::Why;
use crate::sys;

/// What a process sees of itself and of its container.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct View {
    pub pid: u32,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The lines of /proc/self/status.
    pub status: BTreeMap<String, String>,
    /// Soft and hard limit by RLIMIT_ name.
    pub limits: BTreeMap<String, (u64, u64)>,
    pub hostname: String,
    pub domainname: String,
    pub mounts: Vec<Mount>,
    /// The targets of /proc/self/ns/*.
    pub namespaces: BTreeMap<String, String>,
    /// Everything in /dev, by path.
    pub dev: BTreeMap<String, Node>,
    /// Open descriptors and their targets.
    pub fds: BTreeMap<u32, String>,
    pub oom_score_adj: i32,
    /// /proc/self/cgroup.
    pub cgroup: String,
    pub uid_map: String,
    pub gid_map: String,
    /// /proc/self/personality, hexadecimal.
    pub personality: String,
    /// nice, rt_priority and policy of /proc/self/stat.
    pub scheduler: (i64, i64, i64),
    pub ioprio: i64,
    /// Policies named in /proc/self/numa_maps.
    pub numa: Vec<String>,
    pub interfaces: Vec<String>,
    pub timens_offsets: String,
    pub tries: Vec<tries::Tried>,
}

/// One line of /proc/self/mountinfo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub root: String,
    pub point: String,
    pub options: Vec<String>,
    /// `shared:N`, `master:N`, `unbindable`.
    pub propagation: Vec<String>,
    pub kind: String,
    pub source: String,
    pub super_options: Vec<String>,
}

/// A file of /dev.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `c`, `b`, `p`, `l`, `d`, `-`, as ls(1) writes it.
    pub kind: char,
    pub major: u64,
    pub minor: u64,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of a symbolic link.
    pub target: String,
}

impl View {
    /// Reads the helper's report.
    pub fn parse(text: &str) -> Result<Self, Why> {
        let start = text.find('{').unwrap_or(0);
        serde_json::from_str(&text[start..])
            .map_err(|e| Why::Fail(format!("no report from inside ({e}): {}", text.trim())))
    }

    /// The last mount on `point`, which is the one that is seen.
    pub fn mount(&self, point: &str) -> Option<&Mount> {
        self.mounts.iter().rev().find(|m| m.point == point)
    }

    /// A line of /proc/self/status; empty if there is none.
    pub fn status(&self, key: &str) -> &str {
        self.status.get(key).map_or("", String::as_str)
    }

    /// A capability mask of /proc/self/status, by its name there, as `CapEff`.
    pub fn caps(&self, key: &str) -> u64 {
        u64::from_str_radix(self.status(key), 16).unwrap_or(u64::MAX)
    }

    /// The outcome of the n-th try.
    pub fn tried(&self, n: usize) -> Result<&tries::Tried, Why> {
        self.tries
            .get(n)
            .ok_or_else(|| Why::Fail(format!("try {n} has no outcome")))
    }
}

/// The helper's main: makes the tries, then prints the report.
pub fn report(tries: &[String]) -> io::Result<()> {
    let view = look(tries);
    let text = serde_json::to_string(&view)?;
    writeln!(io::stdout(), "{text}")
}

/// Looks at everything; what cannot be read stays empty, and the test that needs it says so.
fn look(wanted: &[String]) -> View {
    // First of all, as the others open files.
    let fds = open_fds();
    let meta = |path: &str| fs::metadata(path).ok();
    let status = read("/proc/self/status");
    View {
        pid: std::process::id(),
        args: env::args().collect(),
        env: env::vars().map(|(k, v)| format!("{k}={v}")).collect(),
        cwd: env::current_dir()
            .map(|p| p.to_string_lossy().into_owned())
            .unwrap_or_default(),
        uid: meta("/proc/self").map_or(u32::MAX, |_| nix::unistd::geteuid().as_raw()),
        gid: nix::unistd::getegid().as_raw(),
        groups: nix::unistd::getgroups()
            .map(|list| list.iter().map(|g| g.as_raw()).collect())
            .unwrap_or_default(),
        status: status
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect(),
        limits: limits(),
        hostname: read("/proc/sys/kernel/hostname"),
        domainname: read("/proc/sys/kernel/domainname"),
        mounts: read("/proc/self/mountinfo")
            .lines()
            .filter_map(mount)
            .collect(),
        namespaces: links("/proc/self/ns"),
        dev: nodes(Path::new("/dev")),
        fds,
        oom_score_adj: read("/proc/self/oom_score_adj").parse().unwrap_or(i32::MAX),
        cgroup: read("/proc/self/cgroup"),
        uid_map: read("/proc/self/uid_map"),
        gid_map: read("/proc/self/gid_map"),
        personality: read("/proc/self/personality"),
        scheduler: scheduler(&read("/proc/self/stat")),
        ioprio: sys::ioprio().unwrap_or(-1),
        numa: read("/proc/self/numa_maps")
            .lines()
            .filter_map(|line| Some(line.split(' ').nth(1)?.to_owned()))
            .collect(),
        interfaces: read("/proc/net/dev")
            .lines()
            .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
            .collect(),
        timens_offsets: read("/proc/self/timens_offsets"),
        tries: wanted.iter().map(|what| tries::make(what)).collect(),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim_end()
        .to_owned()
}

fn limits() -> BTreeMap<String, (u64, u64)> {
    let all = [
        Resource::RLIMIT_AS,
        Resource::RLIMIT_CORE,
        Resource::RLIMIT_CPU,
        Resource::RLIMIT_DATA,
        Resource::RLIMIT_FSIZE,
        Resource::RLIMIT_LOCKS,
        Resource::RLIMIT_MEMLOCK,
        Resource::RLIMIT_MSGQUEUE,
        Resource::RLIMIT_NICE,
        Resource::RLIMIT_NOFILE,
        Resource::RLIMIT_NPROC,
        Resource::RLIMIT_RSS,
        Resource::RLIMIT_RTPRIO,
        Resource::RLIMIT_RTTIME,
        Resource::RLIMIT_SIGPENDING,
        Resource::RLIMIT_STACK,
    ];
    all.into_iter()
        .filter_map(|r| Some((format!("{r:?}"), getrlimit(r).ok()?)))
        .collect()
}

/// Parses one line of mountinfo; man page: proc(5). Spaces in paths stay escaped as `\040`.
pub fn mount(line: &str) -> Option<Mount> {
    let (own, shared) = line.split_once(" - ")?;
    let own: Vec<&str> = own.split(' ').collect();
    let mut shared = shared.split(' ');
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    Some(Mount {
        root: (*own.get(3)?).to_owned(),
        point: (*own.get(4)?).to_owned(),
        options: list(own.get(5)?),
        propagation: own.get(6..)?.iter().map(|&s| s.to_owned()).collect(),
        kind: shared.next()?.to_owned(),
        source: shared.next()?.to_owned(),
        super_options: list(shared.next()?),
    })
}

/// The names in a directory of symbolic links, and their targets.
pub fn links(dir: &str) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return BTreeMap::new();
    };
    let link = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path())
            .ok()?
            .to_string_lossy()
            .into_owned();
        Some((entry.file_name().to_string_lossy().into_owned(), target))
    };
    entries.flatten().filter_map(link).collect()
}

/// Descriptors of this process, without the one that lists them.
fn open_fds() -> BTreeMap<u32, String> {
    let lister = format!("/proc/{}/fd", std::process::id());
    links("/proc/self/fd")
        .into_iter()
        .filter(|(_, target)| *target != lister)
        .filter_map(|(n, target)| Some((n.parse().ok()?, target)))
        .collect()
}

fn nodes(dir: &Path) -> BTreeMap<String, Node> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(dir) else {
        return found;
    };
    for entry in entries.flatten() {
        if let Some(node) = node(&entry.path()) {
            found.insert(entry.path().to_string_lossy().into_owned(), node);
        }
    }
    found
}

/// The file at `path`, not followed if it is a link.
pub fn node(path: &Path) -> Option<Node> {
    let meta = fs::symlink_metadata(path).ok()?;
    let kind = meta.file_type();
    let letter = match () {
        () if kind.is_char_device() => 'c',
        () if kind.is_block_device() => 'b',
        () if kind.is_fifo() => 'p',
        () if kind.is_symlink() => 'l',
        () if kind.is_dir() => 'd',
        () => '-',
    };
    let target = fs::read_link(path)
        .map(|t| t.to_string_lossy().into_owned())
        .unwrap_or_default();
    Some(Node {
        kind: letter,
        major: nix::sys::stat::major(meta.rdev()),
        minor: nix::sys::stat::minor(meta.rdev()),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        target,
    })
}

/// nice, rt_priority and policy: fields 19, 40 and 41 of /proc/PID/stat (proc(5)).
pub fn scheduler(stat: &str) -> (i64, i64, i64) {
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = after_name.split(' ').collect();
    let field = |n: usize| fields.get(n - 3).and_then(|f| f.parse().ok()).unwrap_or(-1);
    (field(19), field(40), field(41))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_split_at_the_dash() {
        let line =
            "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=x";
        let mount = mount(line).expect("it is a line");
        assert_eq!(
            (mount.root.as_str(), mount.point.as_str()),
            ("/mnt1", "/mnt2")
        );
        assert_eq!(mount.options, ["rw", "noatime"]);
        assert_eq!(mount.propagation, ["master:1", "shared:2"]);
        assert_eq!(
            (mount.kind.as_str(), mount.source.as_str()),
            ("ext3", "/dev/root")
        );
        assert_eq!(super::mount("no mount"), None);
    }

    #[test]
    fn a_process_name_with_a_bracket_does_not_shift_the_fields() {
        let rest: Vec<String> = (4..=52).map(|n| n.to_string()).collect();
        let stat = format!("7 (a) b) S {}", rest.join(" "));
        assert_eq!(scheduler(&stat), (19, 40, 41));
    }

    #[test]
    fn this_process_sees_itself() {
        let view = look(&["read:/proc/self/status".to_owned()]);
        assert_eq!(view.pid, std::process::id());
        assert!(view.mounts.iter().any(|m| m.point == "/"));
        assert!(view.tries[0].errno == 0);
        assert!(view.limits.contains_key("RLIMIT_NOFILE"));
    }
}
