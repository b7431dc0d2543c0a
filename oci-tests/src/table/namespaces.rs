//! config-linux.md: default file systems, namespaces, user mappings, time offsets.

use std::fs::{self, File};
use std::process::{Child, Command};

use nix::sched::{CloneFlags, setns, unshare};
use serde_json::json;

use super::mounts::owner;
use crate::inside::links;
use crate::lab::{Container, Lab};
use crate::requirement::Level::{Must, MustNot, Should};
use crate::requirement::{Requirement, Verdict, Why, ensure, skip};

const FS: &str = "config-linux.md#default-filesystems";
const NS: &str = "config-linux.md#namespaces";
const MAP: &str = "config-linux.md#user-namespace-mappings";

/// Spec name, name in /proc/PID/ns.
const KINDS: &[(&str, &str)] = &[
    ("pid", "pid"),
    ("network", "net"),
    ("mount", "mnt"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("user", "user"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

macro_rules! each {
    ($group:literal, $level:ident, $text:literal, $test:ident: $($kind:literal),+) => {
        [$(Requirement::with(
            concat!("linux.namespaces.", $group, ".", $kind), $level, NS, concat!($kind, $text), $kind,
            $test,
        )),+]
    };
}

const NEW: [Requirement; 8] = each!("new", Should, ": a new namespace can be had", new:
    "pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time");
const JOIN: [Requirement; 7] = each!("path", Must, ": the process is put into the one at path", join:
    "pid", "network", "mount", "ipc", "uts", "cgroup", "time");
const INHERIT: [Requirement; 5] = each!("inherit", Must, ": without an entry it is the runtime's", inherit:
    "network", "ipc", "uts", "cgroup", "user");
const TWICE: [Requirement; 8] = each!("twice", Must, ": two entries are an error", twice:
    "pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time");

#[rustfmt::skip]
const OTHER: [Requirement; 12] = [
    Requirement::with("linux.default-filesystems.proc", Should, FS, "/proc is a proc", "/proc=proc", mounted),
    Requirement::with("linux.default-filesystems.sys", Should, FS, "/sys is a sysfs", "/sys=sysfs", mounted),
    Requirement::with("linux.default-filesystems.pts", Should, FS, "/dev/pts is a devpts", "/dev/pts=devpts", mounted),
    Requirement::with("linux.default-filesystems.shm", Should, FS, "/dev/shm is a tmpfs", "/dev/shm=tmpfs", mounted),
    Requirement::must("linux.namespaces.path-1", NS, "path is absolute", relative_path),
    Requirement::must("linux.namespaces.path-2", NS,
        "a path of another type of namespace is an error", wrong_type),
    Requirement::must("linux.namespaces.path-3", NS,
        "a path that is no namespace is an error", no_namespace),
    Requirement::must("linux.mappings-1", MAP,
        "uidMappings and gidMappings map ids from the host", mappings),
    Requirement::should_not("linux.mappings-2", MAP,
        "the runtime does not change owners of files to map them", owners_stay),
    Requirement::must("linux.timeOffsets-1", "config-linux.md#offset-for-time-namespace",
        "timeOffsets are the offsets of the clocks", time_offsets),
    Requirement::must("linux.timeOffsets-2", "config-linux.md#offset-for-time-namespace",
        "an unknown clock is an error", unknown_clock),
    Requirement::untestable("linux.mappings-3", MustNot, MAP,
        "more entries than the kernel allows are not a fault of the runtime",
        "the number is the kernel's affair"),
];

pub const TABLE: &[Requirement] = &join_tables();

const fn join_tables() -> [Requirement; 40] {
    let parts: [&[Requirement]; 5] = [&NEW, &JOIN, &INHERIT, &TWICE, &OTHER];
    let mut all = [NEW[0]; 40];
    let (mut part, mut at) = (0, 0);
    while part < parts.len() {
        let mut row = 0;
        while row < parts[part].len() {
            all[at] = parts[part][row];
            at += 1;
            row += 1;
        }
        part += 1;
    }
    assert!(at == 40);
    all
}

fn mounted(lab: &Lab, word: &str) -> Verdict {
    let Some((point, kind)) = word.split_once('=') else {
        return Err(Why::Fail(word.to_owned()));
    };
    let view = lab.see(&[], |_| ())?;
    let found = view.mount(point).map(|m| m.kind.as_str());
    ensure!(found == Some(kind), "{point} is {found:?}");
    Ok(())
}

fn proc_name(kind: &str) -> &'static str {
    KINDS
        .iter()
        .find(|(name, _)| *name == kind)
        .map_or("", |(_, file)| file)
}

fn own(kind: &str) -> Result<String, Why> {
    match links("/proc/self/ns").remove(proc_name(kind)) {
        Some(link) => Ok(link),
        None => skip!("the kernel has no {kind} namespaces"),
    }
}

fn new(lab: &Lab, kind: &str) -> Verdict {
    let outside = own(kind)?;
    let view = lab.see(&[], |c| {
        if kind == "user" {
            c.user_namespace(300_000);
        } else {
            c.namespace(kind, Some(json!({"type": kind})));
        }
    })?;
    let inside = view
        .namespaces
        .get(proc_name(kind))
        .cloned()
        .unwrap_or_default();
    ensure!(inside != outside, "it is still the runtime's");
    Ok(())
}

/// Whoever lends a namespace, until the value is dropped.
enum Lender<'a> {
    Container(Container<'a>),
    /// For mounts: a container's own would lack the path of the bundle.
    Process(Child),
}

impl Lender<'_> {
    fn pid(&self) -> Result<i64, Why> {
        match self {
            Self::Container(container) => container.pid(),
            Self::Process(child) => Ok(child.id().into()),
        }
    }
}

impl Drop for Lender<'_> {
    fn drop(&mut self) {
        if let Self::Process(child) = self {
            // It sleeps a minute at most.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

fn lender<'a>(lab: &'a Lab, kind: &str) -> Result<Lender<'a>, Why> {
    if kind == "mount" {
        let child = Command::new("unshare")
            .args(["--mount", "sleep", "60"])
            .spawn()
            .map_err(|e| format!("cannot run unshare(1): {e}"))?;
        let (own, theirs) = ("/proc/self/ns/mnt", format!("/proc/{}/ns/mnt", child.id()));
        while fs::read_link(own).ok() == fs::read_link(&theirs).ok() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        return Ok(Lender::Process(child));
    }
    let mut bundle = lab.bundle()?;
    bundle
        .config
        .sleep()
        .namespace(kind, Some(json!({"type": kind})));
    Ok(Lender::Container(lab.started(&bundle)?))
}

fn join(lab: &Lab, kind: &str) -> Verdict {
    own(kind)?;
    let lender = lender(lab, kind)?;
    let path = format!("/proc/{}/ns/{}", lender.pid()?, proc_name(kind));
    let want = fs::read_link(&path).map_err(|e| format!("cannot read {path}: {e}"))?;
    let mut bundle = lab.bundle()?;
    bundle
        .config
        .sleep()
        .namespace(kind, Some(json!({"type": kind, "path": path})));
    if kind == "uts" {
        bundle.config.remove("", "hostname");
    }
    let guest = lab.started(&bundle)?;
    let path = format!("/proc/{}/ns/{}", guest.pid()?, proc_name(kind));
    let found = fs::read_link(&path).map_err(|e| format!("cannot read {path}: {e}"))?;
    guest.stop()?;
    ensure!(
        found == want,
        "it is in {}, not {}",
        found.display(),
        want.display()
    );
    Ok(())
}

fn inherit(lab: &Lab, kind: &str) -> Verdict {
    let outside = own(kind)?;
    let view = lab.see(&[], |c| {
        c.namespace(kind, None);
        if kind == "uts" {
            c.remove("", "hostname");
        }
    })?;
    let inside = view
        .namespaces
        .get(proc_name(kind))
        .cloned()
        .unwrap_or_default();
    ensure!(
        inside == outside,
        "it is {inside}, not the runtime's {outside}"
    );
    Ok(())
}

fn twice(lab: &Lab, kind: &str) -> Verdict {
    lab.refuses("the same namespace twice", |c| {
        if kind == "user" {
            c.user_namespace(300_000);
        } else {
            c.namespace(kind, Some(json!({"type": kind})));
        }
        c.push("/linux/namespaces", json!({"type": kind}));
    })
}

fn relative_path(lab: &Lab) -> Verdict {
    lab.refuses("a relative path", |c| {
        c.namespace(
            "ipc",
            Some(json!({"type": "ipc", "path": "proc/self/ns/ipc"})),
        );
    })
}

fn wrong_type(lab: &Lab) -> Verdict {
    lab.refuses("an ipc namespace as network", |c| {
        c.namespace(
            "network",
            Some(json!({"type": "network", "path": "/proc/1/ns/ipc"})),
        );
    })
}

fn no_namespace(lab: &Lab) -> Verdict {
    for path in ["/dev/null", "/nowhere"] {
        lab.refuses(path, |c| {
            c.namespace("ipc", Some(json!({"type": "ipc", "path": path})));
        })?;
    }
    Ok(())
}

fn mappings(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.user_namespace(300_000);
    })?;
    for map in [&view.uid_map, &view.gid_map] {
        let fields: Vec<&str> = map.split_whitespace().collect();
        ensure!(fields == ["0", "300000", "65536"], "a map is {map:?}");
    }
    ensure!(
        (view.uid, view.gid) == (0, 0),
        "uid {} gid {}",
        view.uid,
        view.gid
    );
    Ok(())
}

fn owners_stay(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.user_namespace(300_000);
    bundle.file("etc/file", "x")?;
    lab.run(&bundle)?;
    for name in ["etc/file", "etc", ""] {
        let ids = owner(&bundle.host(name))?;
        ensure!(ids == (0, 0), "rootfs/{name} now belongs to {ids:?}");
    }
    Ok(())
}

fn time_offsets(lab: &Lab) -> Verdict {
    own("time")?;
    let view = lab.see(&[], |c| {
        c.namespace("time", Some(json!({"type": "time"})));
        c.set(
            "/linux/timeOffsets",
            json!({"monotonic": {"secs": 172_800, "nanosecs": 500},
                                          "boottime": {"secs": 3600}}),
        );
    })?;
    let lines: Vec<Vec<&str>> = view
        .timens_offsets
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    for want in [["monotonic", "172800", "500"], ["boottime", "3600", "0"]] {
        ensure!(
            lines.iter().any(|l| *l == want),
            "{want:?} is not in {lines:?}"
        );
    }
    Ok(())
}

fn unknown_clock(lab: &Lab) -> Verdict {
    own("time")?;
    lab.refuses("an unknown clock", |c| {
        c.namespace("time", Some(json!({"type": "time"})));
        c.set("/linux/timeOffsets", json!({"nonsense": {"secs": 1}}));
    })
}

/// Runs `work` in a new network namespace and comes back.
pub fn in_new_network<T>(work: impl FnOnce() -> Result<T, Why>) -> Result<T, Why> {
    let fail = |e: &dyn std::fmt::Display| Why::Skip(format!("no network namespace: {e}"));
    let home = File::open("/proc/self/ns/net").map_err(|e| fail(&e))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| fail(&e))?;
    let outcome = work();
    setns(home, CloneFlags::CLONE_NEWNET).map_err(|e| fail(&e))?;
    outcome
}
