//! Where a container's cgroups are, and what the kernel counted there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::api::Resources;
use crate::host::Host;

/// Where cgroups are mounted on every machine.
const ROOT: &str = "/sys/fs/cgroup";

/// The cgroup directories of a process, by controller; the unified hierarchy is the empty name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroups {
    dirs: BTreeMap<String, PathBuf>,
}

impl Cgroups {
    /// The cgroups of `pid` now; empty if it is gone.
    pub fn of(pid: i32) -> Self {
        let membership = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self {
            dirs: directories(&membership, &mounts),
        }
    }

    /// Those cgroups of its first process `pid` that are container `id`'s own. One that has none
    /// is counted together with others, and their numbers are not its.
    pub fn of_container(pid: i32, id: &str) -> Self {
        let mut all = Self::of(pid);
        let own = |dir: &Path| dir.to_string_lossy().contains(id);
        all.dirs.retain(|_, dir| own(dir));
        all
    }

    /// The directory of a v1 controller, else the unified one.
    pub fn dir(&self, controller: &str) -> Option<&Path> {
        self.dirs
            .get(controller)
            .or_else(|| self.dirs.get(""))
            .map(PathBuf::as_path)
    }

    /// Whether `controller` is on the unified hierarchy.
    pub fn is_v2(&self, controller: &str) -> bool {
        !self.dirs.contains_key(controller)
    }

    /// A file of a controller, as text without the last newline.
    pub fn read(&self, controller: &str, file: &str) -> Option<String> {
        let text = fs::read_to_string(self.dir(controller)?.join(file)).ok()?;
        Some(text.trim_end().to_owned())
    }

    /// A value from a file of `key value` lines.
    pub fn read_key(&self, controller: &str, file: &str, key: &str) -> Option<u64> {
        let text = self.read(controller, file)?;
        text.lines().find_map(|line| {
            let (name, value) = line.split_once(' ')?;
            (name == key).then(|| value.trim().parse().ok())?
        })
    }
}

/// Whether this machine has the unified hierarchy alone.
pub fn is_unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The controllers that the kernel has: cgroups(7), /proc/cgroups.
pub fn controllers() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        (words.next_back() == Some("1")).then(|| name.to_owned())
    })
    .collect()
}

/// Whether swap is counted: always in the unified hierarchy, by a boot parameter in the old one.
pub fn counts_swap() -> bool {
    let old = Path::new(ROOT).join("memory/memory.memsw.limit_in_bytes");
    is_unified() || old.exists()
}

/// Where the runtime makes a container's cgroup: `/PARENT/ID`, and `rdocker` is the parent that
/// nobody named. `None` where this user may make none.
///
/// In a user namespace the top of a hierarchy is rarely ours. What is left is a cgroup beside our
/// own, where that was delegated (cgroups(7), "Cgroup delegation"); the runtime takes a relative
/// path that way.
pub fn place(host: &Host, resources: &Resources, id: &str) -> Option<String> {
    let parent = match resources.cgroup_parent.trim_matches('/') {
        "" => "rdocker",
        parent => parent,
    };
    let absolute = format!("/{parent}/{id}");
    if !host.in_user_namespace {
        return Some(absolute);
    }
    let may_write = |dir: &Path| rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok();
    if may_write(Path::new(ROOT)) {
        return Some(absolute);
    }
    let own = Cgroups::of(std::process::id().cast_signed());
    let beside = own.dir("").and_then(Path::parent);
    (is_unified() && beside.is_some_and(may_write)).then(|| format!("{parent}-{id}"))
}

/// Joins `/proc/PID/cgroup` (cgroups(7)) with the cgroup mounts of `/proc/self/mountinfo`.
fn directories(membership: &str, mounts: &str) -> BTreeMap<String, PathBuf> {
    let mut dirs = BTreeMap::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        for controller in controllers.split(',') {
            if let Some((point, root)) = mount_of(controller, mounts) {
                let below = path
                    .strip_prefix(root.trim_end_matches('/'))
                    .unwrap_or(path);
                let dir = point.join(below.trim_start_matches('/'));
                dirs.insert(controller.to_owned(), dir);
            }
        }
    }
    dirs
}

/// Mount point and root of the hierarchy that has `controller`; empty is the unified one.
fn mount_of<'a>(controller: &str, mounts: &'a str) -> Option<(PathBuf, &'a str)> {
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut after = filesystem.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        let fits = match kind {
            "cgroup2" => controller.is_empty(),
            "cgroup" => !controller.is_empty() && options.split(',').any(|o| o == controller),
            _ => false,
        };
        let fields: Vec<&str> = mount.split(' ').collect();
        fits.then(|| Some((PathBuf::from(*fields.get(4)?), *fields.get(3)?)))?
    })
}

/// Tells at the end of a run whether the kernel killed for lack of memory during it.
#[derive(Debug)]
pub struct OomCounter {
    cgroups: Cgroups,
}

impl OomCounter {
    /// Remembers where the counter is while the process still lives.
    pub fn of(pid: i32, id: &str) -> Self {
        Self {
            cgroups: Cgroups::of_container(pid, id),
        }
    }

    /// `oom_kill` of memory.oom_control (v1, Linux 4.13) or memory.events (v2).
    pub fn has_killed(&self) -> bool {
        let file = if self.cgroups.is_v2("memory") {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        self.cgroups
            .read_key("memory", file, "oom_kill")
            .unwrap_or(0)
            > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_below_its_parent_or_rdocker() {
        let host = Host {
            data_root: PathBuf::new(),
            exec_root: PathBuf::new(),
            settings: crate::host::Settings::default(),
            in_user_namespace: false,
        };
        for (parent, want) in [("", "/rdocker/abc"), ("/p/q/", "/p/q/abc"), ("p", "/p/abc")] {
            let resources = Resources {
                cgroup_parent: parent.to_owned(),
                ..Resources::default()
            };
            assert_eq!(place(&host, &resources, "abc").as_deref(), Some(want));
        }
    }

    #[test]
    fn membership_and_mounts_give_directories() {
        let mounts = "\
            30 29 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
            31 29 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            32 29 0:28 /outer /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
        let membership = "5:memory:/rdocker/a\n4:cpu,cpuacct:/outer/rdocker/a\n0::/x\n";
        let cgroups = Cgroups {
            dirs: directories(membership, mounts),
        };
        let dir = |name| cgroups.dir(name).map(|dir| dir.display().to_string());
        assert_eq!(
            dir("memory").as_deref(),
            Some("/sys/fs/cgroup/memory/rdocker/a")
        );
        assert_eq!(
            dir("cpuacct").as_deref(),
            Some("/sys/fs/cgroup/cpu/rdocker/a")
        );
        assert_eq!(dir("pids").as_deref(), Some("/sys/fs/cgroup/unified/x"));
        assert!(cgroups.is_v2("pids") && !cgroups.is_v2("memory"));
    }
}
