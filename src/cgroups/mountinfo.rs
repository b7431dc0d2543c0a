//! Where cgroup hierarchies are mounted, out of the text of mountinfo: proc_pid_mountinfo(5).

use procfs::process::MountInfo;

use super::Hierarchy;
use super::paths::Mount;

/// The controllers of v1 that a container joins: cgroups(7), "Cgroups version 1 controllers".
const CONTROLLERS: &[&str] = &[
    "cpuset",
    "cpu",
    "cpuacct",
    "blkio",
    "memory",
    "devices",
    "freezer",
    "net_cls",
    "perf_event",
    "net_prio",
    "hugetlb",
    "pids",
    "rdma",
    "misc",
];
/// The hierarchy of v1 by which systemd keeps track of its units.
const NAMED: &str = "name=systemd";

/// A place where the hierarchy of `lost` can be reached that is not mounted where it was.
///
/// Only a mount of the whole hierarchy will do: there the recorded path names the same cgroup, below
/// any other mount it could be a stranger's.
pub fn elsewhere(lost: &Hierarchy, mountinfo: &str) -> Option<String> {
    let mounts = match lost.controllers.is_empty() {
        true => v2_mounts(mountinfo),
        false => v1_mounts(mountinfo),
    };
    let mut whole = mounts.into_iter().filter(|mount| mount.root == "/");
    whole
        .find(|mount| mount.controllers == lost.controllers)
        .map(|mount| mount.point)
}

fn v2_mounts(mountinfo: &str) -> Vec<Mount> {
    let all = places(mountinfo);
    let lines = mountinfo
        .lines()
        .filter(|line| line.contains(" - cgroup2 "));
    lines
        .filter_map(|line| {
            let place = place(line).filter(|place| is_visible(*place, &all))?;
            let root = line.split(' ').nth(3)?.to_owned();
            Some(Mount {
                root,
                ..Mount::unified(place.point)
            })
        })
        .collect()
}

/// One mount for each v1 hierarchy, out of the text of mountinfo: proc_pid_mountinfo(5).
pub fn v1_mounts(mountinfo: &str) -> Vec<Mount> {
    let all = places(mountinfo);
    let mut mounts: Vec<Mount> = Vec::new();
    for line in mountinfo.lines().filter(|line| line.contains(" - cgroup ")) {
        let Ok(info) = MountInfo::from_line(line) else {
            continue;
        };
        let options = &info.super_options;
        let mut controllers: Vec<String> = CONTROLLERS
            .iter()
            .filter(|name| options.contains_key(**name))
            .map(|name| (*name).to_owned())
            .collect();
        if options.get("name").and_then(Option::as_deref) == Some("systemd") {
            controllers.push(NAMED.into());
        }
        let is_known = mounts.iter().any(|mount| mount.controllers == controllers);
        let is_ours = info.fs_type == "cgroup" && !controllers.is_empty() && !is_known;
        if is_ours && place(line).is_some_and(|place| is_visible(place, &all)) {
            let point = info.mount_point.to_string_lossy().into_owned();
            mounts.push(Mount {
                point,
                root: info.root,
                controllers,
            });
        }
    }
    mounts
}

/// Which directory of the v2 hierarchy is mounted at `point`.
pub fn root_of(point: &str, mountinfo: &str) -> String {
    let mut mounts = v2_mounts(mountinfo).into_iter();
    let found = mounts.find(|mount| mount.point == point);
    found.map_or_else(|| "/".to_owned(), |mount| mount.root)
}

/// Where a mount is: proc_pid_mountinfo(5), fields 1, 2 and 5.
#[derive(Clone, Copy)]
struct Place<'a> {
    id: &'a str,
    parent: &'a str,
    point: &'a str,
}

fn place(line: &str) -> Option<Place<'_>> {
    let mut fields = line.split(' ');
    Some(Place {
        id: fields.next()?,
        parent: fields.next()?,
        point: fields.nth(2)?,
    })
}

fn places(mountinfo: &str) -> Vec<Place<'_>> {
    mountinfo.lines().filter_map(place).collect()
}

/// Whether nothing is mounted over the mount, or over one that it lies in. In a container that was
/// given all of the host's `/sys` there can be two at the same place.
fn is_visible(place: Place<'_>, all: &[Place<'_>]) -> bool {
    let covers = |other: &Place<'_>, place: &Place<'_>| {
        let on_it = other.parent == place.id && other.point == place.point;
        let above = other.parent == place.parent && is_below(place.point, other.point);
        on_it || above
    };
    // What covers a mount is itself mounted on it: on the way up, that is the way.
    let (mut place, mut came_from) = (place, "");
    for _ in all {
        let mut others = all.iter().filter(|other| other.id != came_from);
        if others.any(|other| covers(other, &place)) {
            return false;
        }
        came_from = place.id;
        match all.iter().find(|other| other.id == place.parent) {
            Some(parent) => place = *parent,
            None => return true,
        }
    }
    true
}

/// Whether a path that the kernel prints lies below another.
fn is_below(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above);
    rest.is_some_and(|rest| rest.starts_with('/') || above == "/" && !rest.is_empty())
}

#[cfg(test)]
pub mod tests {
    use super::super::paths::HYBRID;
    use super::*;

    pub const MOUNTINFO: &str = "\
30 24 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
32 30 0:28 /docker/abc /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
33 30 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
34 30 0:30 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
35 24 0:30 / /mnt/devices rw - cgroup cgroup rw,devices\n\
36 30 0:31 / /sys/fs/cgroup/foo rw - cgroup cgroup rw,name=foo\n";

    #[test]
    fn each_v1_hierarchy_is_found_once_with_all_its_controllers() {
        let found: Vec<_> = v1_mounts(MOUNTINFO)
            .into_iter()
            .map(|mount| (mount.point, mount.controllers.join(",")))
            .collect();
        let wanted = [
            ("/sys/fs/cgroup/systemd", "name=systemd"),
            ("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct"),
            ("/sys/fs/cgroup/devices", "devices"),
        ];
        assert_eq!(
            found,
            wanted.map(|(point, list)| (point.to_owned(), list.to_owned()))
        );
    }

    #[test]
    fn covered_mounts_do_not_count() {
        let covered = format!(
            "41 50 0:30 /own /sys/fs/cgroup/devices ro - cgroup cgroup rw,devices\n\
             42 50 0:27 /own /sys/fs/cgroup/unified ro - cgroup2 cgroup2 rw\n\
             {MOUNTINFO}50 30 0:40 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n"
        );
        let found = v1_mounts(&covered);
        let found: Vec<_> = found
            .iter()
            .map(|mount| (mount.point.as_str(), mount.root.as_str()))
            .collect();
        assert!(
            found.contains(&("/sys/fs/cgroup/devices", "/own")),
            "{found:?}"
        );
        assert!(
            !found.iter().any(|(point, _)| point.contains("cpu")),
            "{found:?}"
        );
        assert_eq!(root_of(HYBRID, &covered), "/own");
        assert_eq!(root_of(HYBRID, MOUNTINFO), "/");
    }

    #[test]
    fn a_lost_hierarchy_is_looked_for_where_all_of_it_is_mounted() {
        let at = |controllers: &[&str], mountinfo: &str| {
            let lost = Hierarchy {
                mount: "/gone".into(),
                path: "c".into(),
                controllers: controllers.iter().map(|name| (*name).into()).collect(),
                inode: None,
            };
            elsewhere(&lost, mountinfo)
        };
        assert_eq!(at(&[], MOUNTINFO).as_deref(), Some(HYBRID));
        let devices = at(&["devices"], MOUNTINFO);
        assert_eq!(devices.as_deref(), Some("/sys/fs/cgroup/devices"));
        assert_eq!(at(&["cpu", "cpuacct"], MOUNTINFO), None, "a part of it");
        assert_eq!(at(&["pids"], MOUNTINFO), None, "nowhere");
        let covered = format!("{MOUNTINFO}50 31 0:40 / {HYBRID} ro - tmpfs tmpfs ro\n");
        assert_eq!(at(&[], &covered), None, "covered");
    }
}
