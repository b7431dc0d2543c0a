//! Isolation of a test from the machine, and the comparison of the host before and after.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::proc;

/// Gives the calling thread mount, network, uts and ipc namespaces of its own.
///
/// To a runtime started from this thread they are the host's: whatever it leaves behind is seen by
/// [`HostSnapshot`], other tests are not, and a bug in it cannot harm the machine.
///
/// # Panics
/// If the test does not run as root.
pub fn isolate() {
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    unshare(flags).expect("these tests need root");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .expect("the mounts of a new mount namespace can be made private");
}

/// All that a container may leave behind on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSnapshot {
    cgroups: BTreeSet<String>,
    mounts: BTreeSet<String>,
    processes: BTreeSet<String>,
    interfaces: BTreeSet<String>,
    files: BTreeSet<String>,
    keyrings: BTreeSet<String>,
    settings: BTreeSet<String>,
}

/// Where a test leaves its traces.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// A word that is part of every id, cgroup path and directory of the test.
    pub token: &'a str,
    /// The runtime's root directory.
    pub root: &'a Path,
}

/// The mounts that name the token: on a busy machine others come and go.
fn mounts(token: &str) -> BTreeSet<String> {
    let all = lines("/proc/thread-self/mountinfo");
    all.into_iter()
        .filter(|line| line.contains(token))
        .collect()
}

impl HostSnapshot {
    /// Looks at everything in `scope`, and at all of the calling thread's namespaces.
    pub fn take(scope: Scope<'_>) -> Self {
        let mut cgroups = BTreeSet::new();
        find_cgroups(Path::new("/sys/fs/cgroup"), scope.token, &mut cgroups);
        let mut files = BTreeSet::new();
        find_files(scope.root, &mut files);
        Self {
            cgroups,
            mounts: mounts(scope.token),
            processes: processes(scope.token),
            interfaces: interfaces(),
            files,
            keyrings: keyrings(scope.token),
            settings: settings(),
        }
    }

    /// What is there now but was not before (`+`), and the reverse (`-`).
    pub fn changes(&self, after: &Self) -> Vec<String> {
        let pairs = [
            ("cgroup", &self.cgroups, &after.cgroups),
            ("mount", &self.mounts, &after.mounts),
            ("process", &self.processes, &after.processes),
            ("interface", &self.interfaces, &after.interfaces),
            ("file", &self.files, &after.files),
            ("keyring", &self.keyrings, &after.keyrings),
            ("setting", &self.settings, &after.settings),
        ];
        let mut changes = Vec::new();
        for (kind, before, now) in pairs {
            changes.extend(now.difference(before).map(|it| format!("+{kind} {it}")));
            let gone = before
                .difference(now)
                .filter(|it| kind != "mount" || has_target(it));
            changes.extend(gone.map(|it| format!("-{kind} {it}")));
        }
        changes
    }

    /// Like [`Self::changes`] against the host of now, but gives the kernel time to finish: keys and
    /// network namespaces die later than their last process.
    pub fn changes_after_settling(&self, scope: Scope<'_>) -> Vec<String> {
        let start = Instant::now();
        loop {
            let changes = self.changes(&Self::take(scope));
            if changes.is_empty() || start.elapsed() > Duration::from_secs(3) {
                return changes;
            }
            if start.elapsed() > Duration::from_millis(300) {
                reap_orphans();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether the mount point in a line of mountinfo is there. The kernel detaches a mount in every
/// namespace when anybody removes the directory below it: that is not the runtime's doing.
fn has_target(line: &str) -> bool {
    line.split(' ')
        .nth(4)
        .is_some_and(|target| Path::new(target).exists())
}

/// Children that some test waits for. What else ends up as a child of this subreaper is an orphan.
static CHILDREN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Somebody is going to wait for this child.
pub(crate) fn remember_child(pid: i32) {
    CHILDREN.lock().expect("nobody panics with it").insert(pid);
}

/// Starts a child that somebody is going to wait for. Meanwhile nothing is reaped: it may end at once.
pub(crate) fn awaited_child(
    start: impl FnOnce() -> io::Result<std::process::Child>,
) -> io::Result<std::process::Child> {
    let mut children = CHILDREN.lock().expect("nobody panics with it");
    let child = start()?;
    children.insert(i32::try_from(child.id()).expect("a pid fits an int"));
    Ok(child)
}

/// Somebody has waited for this child.
pub(crate) fn forget_child(pid: i32) {
    CHILDREN.lock().expect("nobody panics with it").remove(&pid);
}

/// A detached process that runs on as a child of this subreaper: killed and waited for when dropped.
#[derive(Debug)]
pub struct Adopted(i32);

impl Adopted {
    /// The process whose pid is in `file`, and nothing else.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn of(file: &Path) -> Self {
        let text = fs::read_to_string(file).expect("the runtime writes the pid file");
        let pid = text.parse();
        let pid = pid.unwrap_or_else(|_| panic!("the pid file holds {text:?}"));
        remember_child(pid);
        Self(pid)
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.0
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.0);
        let _ = kill(pid, Signal::SIGKILL);
        let _ = waitpid(pid, None);
        forget_child(self.0);
    }
}

/// Reaps orphans that have ended: the init of a container that was never made, say. While they are
/// zombies they hold their session keyring.
pub fn reap_orphans() {
    for pid in pids() {
        let children = CHILDREN.lock().expect("nobody panics with it");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1));
        let ours = parent.is_some_and(|parent| parent == std::process::id().to_string());
        let awaited = children.contains(&pid);
        if ours && !awaited && proc::state_letter(&stat) == 'Z' {
            let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
        }
    }
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("proc is mounted").flatten();
    entries
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .collect()
}

fn lines(path: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(path).expect("proc is readable");
    text.lines().map(String::from).collect()
}

fn find_cgroups(dir: &Path, token: &str, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        if path.to_string_lossy().contains(token) {
            found.insert(path.display().to_string());
        }
        find_cgroups(&path, token, found);
    }
}

fn find_files(dir: &Path, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        found.insert(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find_files(&entry.path(), found);
        }
    }
}

/// Processes with the token in a command line, environment, cgroup, root or working directory.
/// The runtime is started with the token in its environment, so its children have it until exec.
fn processes(token: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for pid in pids() {
        let dir = Path::new("/proc").join(pid.to_string());
        if pid.unsigned_abs() != std::process::id() && proc::is_alive(pid) && mentions(&dir, token)
        {
            let command = fs::read(dir.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            found.insert(format!("{pid} {command}"));
        }
    }
    found
}

fn mentions(process: &Path, token: &str) -> bool {
    let in_file = |name: &str| {
        let bytes = fs::read(process.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(token)
    };
    let in_link = |name: &str| {
        fs::read_link(process.join(name)).is_ok_and(|to| to.to_string_lossy().contains(token))
    };
    ["cmdline", "cgroup", "environ"].into_iter().any(in_file)
        || ["root", "cwd"].into_iter().any(in_link)
}

fn interfaces() -> BTreeSet<String> {
    lines("/proc/thread-self/net/dev")
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().to_string())
        .collect()
}

fn keyrings(token: &str) -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/keys").unwrap_or_default();
    text.lines()
        .filter(|line| line.contains(token))
        .map(String::from)
        .collect()
}

/// Settings of the host that a container's config.json also has.
fn settings() -> BTreeSet<String> {
    [
        "kernel/hostname",
        "kernel/domainname",
        "kernel/core_pattern",
        "kernel/shmmni",
    ]
    .into_iter()
    .map(|name| {
        let value = fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default();
        format!("{name} = {}", value.trim_end())
    })
    .collect()
}
