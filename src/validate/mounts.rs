//! Rules on `mounts`.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, Mount};

use super::View;
use crate::error::{Error, Result};
use crate::plan::mounts::is_left_out_of_a_bind;

/// What may be mounted over below `/proc`: files that show the host where a container expects its
/// own numbers (lxcfs), and two settings.
///
/// Source: runc, `checkProcMount`.
const OVER_PROC: &[&str] = &[
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

fn all<'a>(view: &View<'a>) -> impl Iterator<Item = (usize, &'a Mount)> {
    let mounts = view.spec.mounts().as_deref().unwrap_or_default();
    mounts.iter().enumerate()
}

fn options(mount: &Mount) -> &[String] {
    mount.options().as_deref().unwrap_or_default()
}

/// What is allowed and probably not meant: the JSON path and why.
pub fn doubtful(view: &View<'_>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (index, mount) in all(view) {
        let relative = !mount.destination().is_absolute();
        // An empty one is an error of the plan.
        if relative && !mount.destination().as_os_str().is_empty() {
            let why = "a relative path is deprecated; taking it as relative to /";
            found.push((format!(".mounts[{index}].destination"), why.to_owned()));
        }
        if !is_bind(mount) {
            continue;
        }
        for (place, option) in options(mount).iter().enumerate() {
            let key = option.split_once('=').map(|(key, _)| key.as_bytes());
            if key.is_some_and(is_left_out_of_a_bind) {
                let why = format!("{option:?} is for a tmpfs; ignored, as this is a bind mount");
                found.push((format!(".mounts[{index}].options[{place}]"), why));
            }
        }
    }
    found
}

fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind")
        || options(mount)
            .iter()
            .any(|option| option == "bind" || option == "rbind")
}

fn is_id_mapped(mount: &Mount) -> bool {
    mount.uid_mappings().is_some()
        || mount.gid_mappings().is_some()
        || options(mount)
            .iter()
            .any(|option| option == "idmap" || option == "ridmap")
}

/// The destination below `/proc`, empty for `/proc` itself, `None` if it is elsewhere. This is the
/// text of the path; whether a symbolic link leads there is seen when it is opened.
fn below_proc(mount: &Mount) -> Option<PathBuf> {
    let mut path = PathBuf::from("/");
    for part in mount.destination().components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            _ => {}
        }
    }
    path.strip_prefix("/proc").ok().map(Path::to_path_buf)
}

/// A mount in `/proc` can hide from the runtime and from the program what the kernel says.
pub fn inside_proc(view: &View<'_>) -> Result<()> {
    for (index, mount) in all(view) {
        let Some(below) = below_proc(mount) else {
            continue;
        };
        let at = format!(".mounts[{index}].destination");
        let shown = mount.destination().display();
        if below.as_os_str().is_empty() {
            if mount.typ().as_deref() != Some("proc") && !is_bind(mount) {
                let why = format!("{shown:?} cannot be mounted because it is not of type proc");
                return Err(Error::spec(at, why));
            }
        } else if !OVER_PROC.iter().any(|known| below == Path::new(known)) {
            let why = format!("{shown:?} cannot be mounted because it is inside /proc");
            return Err(Error::spec(at, why));
        }
    }
    Ok(())
}

/// mount_setattr(2), "ID-mapped mounts": the caller needs rights over the whole file system.
pub fn id_mapped(view: &View<'_>) -> Result<()> {
    for (index, mount) in all(view).filter(|(_, mount)| is_id_mapped(mount)) {
        let at = format!(".mounts[{index}]");
        if !is_bind(mount) {
            let why = "id-mapped mounts are only supported for bind-mounts";
            return Err(Error::spec(at, why));
        }
        if view.host.euid() != 0 {
            let why = "id-mapped mounts are not supported for rootless containers";
            return Err(Error::spec(at, why));
        }
        let both = mount.uid_mappings().is_some() == mount.gid_mappings().is_some();
        if !both {
            let why = "id-mapped mounts must have both uid and gid mappings specified";
            return Err(Error::spec(at, why));
        }
    }
    Ok(())
}

/// `uid=` and `gid=` name ids inside the container, which a caller without rights must have mapped.
pub fn owned_by_mapped_ids(view: &View<'_>) -> Result<()> {
    let Some((uids, gids)) = view.maps().filter(|_| view.host.euid() != 0) else {
        return Ok(());
    };
    for (index, mount) in all(view) {
        for option in options(mount) {
            let (maps, id) = match option.split_once('=') {
                Some(("uid", id)) => (uids, id),
                Some(("gid", id)) => (gids, id),
                _ => continue,
            };
            if id.parse().is_ok_and(|id| !is_mapped(maps, id)) {
                let why = format!(
                    "cannot specify {option} mount option for rootless container: \
                     the id is not in the mappings of .linux"
                );
                return Err(Error::spec(format!(".mounts[{index}].options"), why));
            }
        }
    }
    Ok(())
}

/// Whether `id`, as the container sees it, is in one of the ranges.
pub fn is_mapped(maps: &[LinuxIdMapping], id: u32) -> bool {
    maps.iter()
        .any(|map| id >= map.container_id() && id - map.container_id() < map.size())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_all, verdict};
    use crate::host::Facts;

    fn with(mount: &str) -> String {
        format!(
            r#"{{"mounts":[{{"destination":"/a","type":"tmpfs"}},{mount}],"linux":{{"namespaces":[{{"type":"mount"}}]}}}}"#
        )
    }

    fn rows(cases: &[(&str, &str)]) {
        for (mount, want) in cases {
            check_all(&[(&with(mount), want)]);
        }
    }

    #[test]
    fn only_a_few_files_of_proc_are_covered() {
        rows(&[
            (r#"{"destination":"/proc","type":"proc"}"#, "ok"),
            (
                r#"{"destination":"/proc","type":"none","source":"/proc","options":["rbind"]}"#,
                "ok",
            ),
            (
                r#"{"destination":"/proc","type":"bind","source":"/proc"}"#,
                "ok",
            ),
            (
                r#"{"destination":"/proc","type":"tmpfs"}"#,
                ".mounts[1].destination: \"/proc\" cannot be mounted because it is not of type proc",
            ),
            (
                r#"{"destination":"/proc/meminfo","type":"bind","source":"/x"}"#,
                "ok",
            ),
            (
                r#"{"destination":"/proc/sys/kernel/ns_last_pid","type":"bind","source":"/x"}"#,
                "ok",
            ),
            (
                r#"{"destination":"/proc/self","type":"tmpfs"}"#,
                ".mounts[1].destination: \"/proc/self\" cannot be mounted because it is inside /proc",
            ),
            (
                r#"{"destination":"/x/../proc/./self/","type":"tmpfs"}"#,
                ".mounts[1].destination: ",
            ),
            (r#"{"destination":"/proc2","type":"tmpfs"}"#, "ok"),
            (r#"{"destination":"/a/proc/b","type":"tmpfs"}"#, "ok"),
            (
                r#"{"destination":"b","type":"tmpfs"}"#,
                "ok, .mounts[1].destination: a relative",
            ),
            (
                r#"{"destination":"proc/self","type":"tmpfs"}"#,
                ".mounts[1].destination: ",
            ),
        ]);
    }

    #[test]
    fn what_a_bind_mount_has_of_a_tmpfs_is_ignored_with_a_warning() {
        let options = |type_: &str| {
            format!(
                r#"{{"destination":"/b","type":"{type_}","source":"/x","options":["ro","size=1k"]}}"#
            )
        };
        rows(&[
            (
                &options("bind"),
                "ok, .mounts[1].options[1]: \"size=1k\" is for a tmpfs",
            ),
            (&options("tmpfs"), "ok"),
        ]);
    }

    #[test]
    fn mounts_on_the_host_are_made_with_a_warning() {
        check_all(&[
            (
                r#"{"mounts":[{"destination":"/a","type":"tmpfs"}],"linux":{"namespaces":[{"type":"pid"}]}}"#,
                "ok, .mounts: without a mount namespace",
            ),
            (r#"{"mounts":[]}"#, "ok"),
        ]);
    }

    #[test]
    fn id_mapping_needs_a_bind_both_maps_and_root() {
        const MAP: &str = r#"[{"containerID":0,"hostID":1,"size":1}]"#;
        let bind = r#""destination":"/b","type":"bind","source":"/x""#;
        let both = format!(r#"{{{bind},"uidMappings":{MAP},"gidMappings":{MAP}}}"#);
        rows(&[
            (&both, "ok"),
            (&format!(r#"{{{bind},"options":["ridmap"]}}"#), "ok"),
            (
                &format!(r#"{{{bind},"uidMappings":{MAP}}}"#),
                ".mounts[1]: id-mapped mounts must have both",
            ),
            (
                &format!(
                    r#"{{"destination":"/b","type":"tmpfs","uidMappings":{MAP},"gidMappings":{MAP}}}"#
                ),
                ".mounts[1]: id-mapped mounts are only supported for bind-mounts",
            ),
        ]);
        let facts = Facts {
            euid: 1000,
            ..Facts::default()
        };
        let got = verdict(&with(&both), facts);
        assert!(
            got.contains("not supported for rootless containers"),
            "{got}"
        );
    }

    #[test]
    fn a_rootless_mount_s_owner_is_mapped() {
        let document = |option: &str| {
            format!(
                r#"{{"mounts":[{{"destination":"/a","type":"tmpfs","options":["{option}"]}}],
                "linux":{{"namespaces":[{{"type":"mount"}},{{"type":"user"}}],
                "uidMappings":[{{"containerID":0,"hostID":1000,"size":2}}],
                "gidMappings":[{{"containerID":10,"hostID":1000,"size":1}},{{"containerID":0,"hostID":2000,"size":1}}]}}}}"#
            )
        };
        let rootless = Facts {
            euid: 1000,
            ..Facts::default()
        };
        for (option, want) in [
            ("uid=0", "ok"),
            ("uid=1", "ok"),
            (
                "uid=2",
                "cannot specify uid=2 mount option for rootless container",
            ),
            ("gid=10", "ok"),
            ("gid=9", "cannot specify gid=9 mount option"),
            ("gid=x", "ok"),
            ("size=5", "ok"),
        ] {
            let got = verdict(&document(option), rootless.clone());
            assert!(got.contains(want), "{option}: {got}");
            assert_eq!(verdict(&document(option), Facts::default()), "ok");
        }
    }
}
