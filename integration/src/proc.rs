//! What `/proc` says about a process.

use std::collections::BTreeMap;
use std::fs;

/// The `Name: value` lines of `/proc/PID/status`.
///
/// # Panics
/// If there is no such process.
pub fn status(pid: i32) -> BTreeMap<String, String> {
    parse_status(&read(pid, "status"))
}

/// Splits the text of a `status` file, for one that a container has printed.
pub fn parse_status(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_string(), value.trim().to_string()))
        .collect()
}

/// A file of `/proc/PID`, as text.
///
/// # Panics
/// If there is no such process or file.
pub fn read(pid: i32, file: &str) -> String {
    let path = format!("/proc/{pid}/{file}");
    match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => panic!("{path}: {error}"),
    }
}

/// The identity of a process's namespace, such as `mnt:[4026531841]`.
///
/// # Panics
/// If there is no such process.
pub fn namespace(pid: i32, name: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("the process is alive");
    link.to_string_lossy().into_owned()
}

/// The identity of this thread's own namespace; the runtime is started from it.
///
/// # Panics
/// If the kernel has no such namespace.
pub fn own_namespace(name: &str) -> String {
    let link = fs::read_link(format!("/proc/thread-self/ns/{name}")).expect("own namespaces");
    link.to_string_lossy().into_owned()
}

/// Whether the process exists and is not a zombie.
pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| state_letter(&stat) != 'Z')
}

/// The third field of `/proc/PID/stat`; the second may contain anything, so count from its end.
pub fn state_letter(stat: &str) -> char {
    let after = stat.rfind(')').map_or("", |end| &stat[end + 1..]);
    after.trim_start().chars().next().unwrap_or('?')
}

/// One line of `mountinfo`. Man page: proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Path of the mount's root inside its file system.
    pub root: String,
    /// Where it is mounted, as the reader's root sees it.
    pub target: String,
    /// Flags of the mount: `ro`, `nosuid`, …
    pub options: Vec<String>,
    /// Propagation: `shared:N`, `master:N`, `unbindable`.
    pub optional: Vec<String>,
    /// File system type.
    pub fstype: String,
    /// Source, such as a device or `tmpfs`.
    pub source: String,
    /// Options of the file system: `size=64k`, `mode=755`, …
    pub data: Vec<String>,
}

impl Mount {
    /// Whether the mount has this flag.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|have| have == option)
    }
}

/// Reads the text of a `mountinfo` file.
///
/// # Panics
/// If a line is not of the documented shape.
pub fn parse_mountinfo(text: &str) -> Vec<Mount> {
    text.lines().map(parse_mount).collect()
}

/// The mounts that a process sees.
///
/// # Panics
/// If there is no such process.
pub fn mounts(pid: i32) -> Vec<Mount> {
    parse_mountinfo(&read(pid, "mountinfo"))
}

/// The last (topmost) mount at `target`.
pub fn mount_at<'m>(mounts: &'m [Mount], target: &str) -> Option<&'m Mount> {
    mounts.iter().rev().find(|mount| mount.target == target)
}

fn parse_mount(line: &str) -> Mount {
    let list = |text: &str| text.split(',').map(String::from).collect::<Vec<_>>();
    let (mount, file_system) = line.split_once(" - ").expect("mountinfo has a separator");
    let mount: Vec<&str> = mount.split(' ').collect();
    let file_system: Vec<&str> = file_system.split(' ').collect();
    Mount {
        root: mount[3].to_string(),
        target: mount[4].to_string(),
        options: list(mount[5]),
        optional: mount[6..]
            .iter()
            .map(|field| (*field).to_string())
            .collect(),
        fstype: file_system[0].to_string(),
        source: file_system[1].to_string(),
        data: list(file_system[2]),
    }
}
