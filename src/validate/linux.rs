//! Rules on `linux`, and on `hostname` and `domainname`, which need one of its namespaces.

use oci_spec::runtime::{LinuxDeviceType, LinuxNamespaceType as Kind};

use super::mounts::is_mapped;
use super::{View, joined};
use crate::bundle::json_key;
use crate::error::{Error, Result};

/// uname(2): the longest host or domain name, `__NEW_UTS_LEN`.
const UTS_LEN: usize = 64;

/// Without a UTS namespace the host would be renamed.
pub fn host_name(view: &View<'_>) -> Result<()> {
    for (field, name) in [
        ("hostname", view.spec.hostname()),
        ("domainname", view.spec.domainname()),
    ] {
        let Some(name) = name.as_ref().filter(|name| !name.is_empty()) else {
            continue;
        };
        if !view.has(Kind::Uts) {
            let why = format!(
                "unable to set {field} without a private UTS namespace: \
                 add {{\"type\":\"uts\"}} to .linux.namespaces"
            );
            return Err(Error::spec(format!(".{field}"), why));
        }
        if name.len() > UTS_LEN {
            let why = format!("has {} bytes; the kernel takes {UTS_LEN}", name.len());
            return Err(Error::spec(format!(".{field}"), why));
        }
    }
    Ok(())
}

/// config-linux.md, "Namespaces": the path "MUST be an absolute path", and the kernel must have the
/// kind.
pub fn namespaces(view: &View<'_>) -> Result<()> {
    let all = view.linux.and_then(|linux| linux.namespaces().as_ref());
    for (index, namespace) in all.into_iter().flatten().enumerate() {
        let at = format!(".linux.namespaces[{index}]");
        if let Some(path) = joined(namespace).filter(|path| !path.is_absolute()) {
            let why = format!("{} is not an absolute path", path.display());
            return Err(Error::spec(format!("{at}.path"), why));
        }
        // Others are as old as keel's oldest kernel: only one that was configured without them lacks
        // them, and then says so when the process is made. Each look costs what a mount does.
        if !matches!(namespace.typ(), Kind::Cgroup | Kind::Time | Kind::User) {
            continue;
        }
        // The name of the kind in /proc/PID/ns.
        let name = namespace.typ().to_string();
        if !view.host.has_namespaces(&name) {
            let why = format!("{name} namespaces aren't enabled in the kernel");
            return Err(Error::spec(format!("{at}.type"), why));
        }
    }
    Ok(())
}

/// Everything that makes a container needs rights, which a user has only in a user namespace.
pub fn rootless(view: &View<'_>) -> Result<()> {
    if view.host.euid() != 0 && !view.has(Kind::User) {
        return Err(Error::spec(
            ".linux.namespaces",
            "rootless container requires user namespaces: add {\"type\":\"user\"} and mappings, \
             as keel spec --rootless does",
        ));
    }
    Ok(())
}

/// setuid(2) fails with `EINVAL` for an id that the user namespace does not map.
pub fn mapped_user(view: &View<'_>) -> Result<()> {
    let (Some((uids, gids)), Some(process)) = (view.maps(), view.spec.process()) else {
        return Ok(());
    };
    let user = process.user();
    let unmapped = |field: &str, id: u32, list: &str| {
        let why = format!("{id} is not in .linux.{list}, so no process can have it");
        Err(Error::spec(format!(".process.user.{field}"), why))
    };
    // No map at all has its own complaint.
    if !uids.is_empty() && !is_mapped(uids, user.uid()) {
        return unmapped("uid", user.uid(), "uidMappings");
    }
    if !gids.is_empty() && !is_mapped(gids, user.gid()) {
        return unmapped("gid", user.gid(), "gidMappings");
    }
    let groups = user.additional_gids().iter().flatten().enumerate();
    for (index, gid) in groups.filter(|_| !gids.is_empty()) {
        if !is_mapped(gids, *gid) {
            return unmapped(&format!("additionalGids[{index}]"), *gid, "gidMappings");
        }
    }
    Ok(())
}

/// The devices that the cgroup allows: config-linux.md, "Allowed Device list".
pub fn device_rules(view: &View<'_>) -> Result<()> {
    let resources = view.linux.and_then(|linux| linux.resources().as_ref());
    let rules = resources.and_then(|resources| resources.devices().as_ref());
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let at = format!(".linux.resources.devices[{index}]");
        if matches!(rule.typ(), Some(LinuxDeviceType::U | LinuxDeviceType::P)) {
            let why = "invalid cgroup device type: a (all), b (block) and c (character) exist";
            return Err(Error::spec(format!("{at}.type"), why));
        }
        let access = rule.access().as_deref().unwrap_or_default();
        if let Some(odd) = access.chars().find(|letter| !"rwma".contains(*letter)) {
            let why = format!("{odd:?} is not one of r (read), w (write) and m (mknod)");
            return Err(Error::spec(format!("{at}.access"), why));
        }
        for (field, number) in [("major", rule.major()), ("minor", rule.minor())] {
            // -1 is any number, as in runc; absent is too.
            let number = number.unwrap_or(-1);
            if number < -1 || number > i64::from(u32::MAX) {
                let why = format!("{number} is no device number; leave it out for any");
                return Err(Error::spec(format!("{at}.{field}"), why));
            }
        }
    }
    Ok(())
}

/// A network interface's name can be this long, its final zero byte included (if.h, `IFNAMSIZ`).
const IFNAMSIZ: usize = 16;

/// Interfaces that move into the container's network namespace.
pub fn net_devices(view: &View<'_>) -> Result<()> {
    let devices = view.linux.and_then(|linux| linux.net_devices().as_ref());
    let Some(devices) = devices.filter(|devices| !devices.is_empty()) else {
        return Ok(());
    };
    let at = ".linux.netDevices";
    if !view.has(Kind::Network) {
        let why = "unable to move network devices without a NET namespace";
        return Err(Error::spec(at, why));
    }
    if view.host.euid() != 0 {
        let why = "network devices are not supported for rootless containers";
        return Err(Error::spec(at, why));
    }
    let mut devices: Vec<_> = devices.iter().collect();
    devices.sort_by_key(|(name, _)| *name);
    let mut seen: Vec<&str> = Vec::new();
    for (name, device) in devices {
        let at = format!("{at}{}", json_key(name));
        let wrong = |name: &str| {
            let why = format!(
                "invalid network device name {name:?}: 1 to 15 bytes, no slash, colon or space"
            );
            Err(Error::spec(at.clone(), why))
        };
        if !is_interface(name) {
            return wrong(name);
        }
        let new = device.name().as_deref().filter(|new| !new.is_empty());
        let new = new.unwrap_or(name);
        if !is_interface(new) {
            return wrong(new);
        }
        // The kernel chooses the number for eth%d.
        if seen.contains(&new) && !new.ends_with("%d") {
            let why = format!("a second device would be called {new:?}");
            return Err(Error::spec(at, why));
        }
        seen.push(new);
    }
    Ok(())
}

/// The kernel's `dev_valid_name` (net/core/dev.c).
fn is_interface(name: &str) -> bool {
    let bad = |c: char| c == '/' || c == ':' || c.is_ascii_whitespace() || c == '\0';
    !name.is_empty() && name.len() < IFNAMSIZ && name != "." && name != ".." && !name.contains(bad)
}

/// Without pivot_root the host's mounts stay below the container's root; only pivot_root in a
/// private tree gets rid of them.
pub fn propagation(view: &View<'_>) -> Result<()> {
    let word = view
        .linux
        .and_then(|linux| linux.rootfs_propagation().as_deref());
    if view.asked.no_pivot && matches!(word, Some("private" | "rprivate")) {
        return Err(Error::spec(
            ".linux.rootfsPropagation",
            "rootfsPropagation of [r]private is not safe without pivot_root: leave out --no-pivot",
        ));
    }
    Ok(())
}

/// Masking is mounting: without a mount namespace the host's own files would disappear.
pub fn hidden_paths(view: &View<'_>) -> Result<()> {
    let Some(linux) = view.linux.filter(|_| !view.has(Kind::Mount)) else {
        return Ok(());
    };
    for (field, paths) in [
        ("maskedPaths", linux.masked_paths()),
        ("readonlyPaths", linux.readonly_paths()),
    ] {
        if paths.as_ref().is_some_and(|paths| !paths.is_empty()) {
            let why = "unable to restrict sys entries without a private MNT namespace: \
                       add {\"type\":\"mount\"} to .linux.namespaces";
            return Err(Error::spec(format!(".linux.{field}"), why));
        }
    }
    Ok(())
}

/// See [`super::process`]: a label must not look enforced when it is not.
pub fn mount_label(view: &View<'_>) -> Result<()> {
    let label = view.linux.and_then(|linux| linux.mount_label().as_deref());
    if label.is_some_and(|label| !label.is_empty()) && !view.host.selinux() {
        let why = "mount label is specified, but selinux is disabled or not supported";
        return Err(Error::spec(".linux.mountLabel", why));
    }
    Ok(())
}

/// The id becomes a directory's name in resctrl.
pub fn intel_rdt(view: &View<'_>) -> Result<()> {
    let rdt = view.linux.and_then(|linux| linux.intel_rdt().as_ref());
    let Some(id) = rdt.and_then(|rdt| rdt.clos_id().as_deref()) else {
        return Ok(());
    };
    // "/" alone is the root group.
    if id == "." || id == ".." || (id.len() > 1 && id.contains('/')) || id.contains('\0') {
        let why = format!("invalid intelRdt.ClosID {id:?}: it is the name of a directory");
        return Err(Error::spec(".linux.intelRdt.closID", why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Asked;
    use super::super::tests::{check, check_all, verdict};
    use crate::host::Facts;

    #[test]
    fn names_need_a_uts_namespace() {
        let long = "a".repeat(65);
        let uts = r#""linux":{"namespaces":[{"type":"uts"}]}"#;
        check_all(&[
            (
                &format!(r#"{{"hostname":"a","domainname":"b",{uts}}}"#),
                "ok",
            ),
            (r#"{"hostname":"","domainname":""}"#, "ok"),
            (
                r#"{"hostname":"a"}"#,
                ".hostname: unable to set hostname without a private UTS namespace",
            ),
            (
                r#"{"domainname":"a","linux":{"namespaces":[{"type":"pid"}]}}"#,
                ".domainname: unable to set domainname without a private UTS namespace",
            ),
            (
                &format!(r#"{{"hostname":"{long}",{uts}}}"#),
                ".hostname: has 65 bytes",
            ),
            (&format!(r#"{{"hostname":"{}",{uts}}}"#, &long[1..]), "ok"),
        ]);
    }

    #[test]
    fn namespaces_are_joined_by_absolute_paths_and_exist_in_the_kernel() {
        check_all(&[
            (
                r#"{"linux":{"namespaces":[{"type":"network","path":"/proc/1/ns/net"}]}}"#,
                "ok",
            ),
            (
                r#"{"linux":{"namespaces":[{"type":"network","path":""}]}}"#,
                "ok",
            ),
            (
                r#"{"linux":{"namespaces":[{"type":"ipc"},{"type":"network","path":"net"}]}}"#,
                ".linux.namespaces[1].path: net is not an absolute path",
            ),
        ]);
        let old = Facts {
            namespaces: vec!["pid".into(), "mnt".into()],
            ..Facts::default()
        };
        let got = verdict(
            r#"{"linux":{"namespaces":[{"type":"mount"},{"type":"time"}]}}"#,
            old,
        );
        assert_eq!(
            got,
            "config.json: .linux.namespaces[1].type: time namespaces aren't enabled in the kernel"
        );
    }

    #[test]
    fn a_user_without_rights_needs_a_user_namespace() {
        let rootless = Facts {
            euid: 1000,
            ..Facts::default()
        };
        let got = verdict("{}", rootless.clone());
        assert!(
            got.contains("rootless container requires user namespaces"),
            "{got}"
        );
        let mapped = r#"{"linux":{"namespaces":[{"type":"user"}],
            "uidMappings":[{"containerID":0,"hostID":1000,"size":1}],
            "gidMappings":[{"containerID":0,"hostID":1000,"size":1}]}}"#;
        assert_eq!(verdict(mapped, rootless), "ok");
    }

    #[test]
    fn the_user_is_one_that_the_container_has() {
        let row = |uid: u32, gid: u32, path: &str| {
            format!(
                r#"{{"process":{{"user":{{"uid":{uid},"gid":{gid}}},"cwd":"/","args":["a"]}},
                "linux":{{"namespaces":[{{"type":"user","path":"{path}"}}],
                "uidMappings":[{{"containerID":5,"hostID":1000,"size":10}}],
                "gidMappings":[{{"containerID":0,"hostID":1000,"size":1}}]}}}}"#
            )
        };
        check_all(&[
            (&row(5, 0, ""), "ok"),
            (&row(14, 0, ""), "ok"),
            (
                &row(15, 0, ""),
                ".process.user.uid: 15 is not in .linux.uidMappings",
            ),
            (&row(4, 0, ""), ".process.user.uid: 4 is not"),
            (
                &row(5, 1, ""),
                ".process.user.gid: 1 is not in .linux.gidMappings",
            ),
            (&row(4, 1, "/proc/1/ns/user"), "ok"),
        ]);
    }

    #[test]
    fn a_device_rule_is_one_that_cgroups_have() {
        let row = |rule: &str| format!(r#"{{"linux":{{"resources":{{"devices":[{rule}]}}}}}}"#);
        let at = ".linux.resources.devices[0]";
        let cases: &[(&str, &str)] = &[
            (r#"{"allow":false,"access":"rwm"}"#, "ok"),
            (
                r#"{"allow":true,"type":"c","major":1,"minor":-1,"access":"r"}"#,
                "ok",
            ),
            (
                r#"{"allow":true,"type":"u"}"#,
                ".type: invalid cgroup device type",
            ),
            (r#"{"allow":true,"type":"p"}"#, ".type: "),
            (r#"{"allow":true,"access":"rx"}"#, ".access: 'x' is not"),
            (r#"{"allow":true,"major":-2}"#, ".major: -2 is no"),
            (
                r#"{"allow":true,"minor":4294967296}"#,
                ".minor: 4294967296 is no",
            ),
        ];
        for (rule, want) in cases {
            let want = if *want == "ok" {
                "ok".into()
            } else {
                format!("{at}{want}")
            };
            check_all(&[(&row(rule), &want)]);
        }
    }

    #[test]
    fn moved_interfaces_have_names_of_their_own() {
        let row = |devices: &str, kind: &str| {
            format!(r#"{{"linux":{{"namespaces":[{{"type":"{kind}"}}],"netDevices":{devices}}}}}"#)
        };
        check_all(&[
            (&row(r#"{"eth0":{},"eth1":{"name":"x"}}"#, "network"), "ok"),
            (&row("{}", "pid"), "ok"),
            (
                &row(r#"{"eth0":{}}"#, "pid"),
                ".linux.netDevices: unable to move network devices without a NET namespace",
            ),
            (
                &row(r#"{"eth0/1":{}}"#, "network"),
                r#".linux.netDevices["eth0/1"]: invalid network device name "eth0/1""#,
            ),
            (
                &row(r#"{"eth0":{"name":"a b"}}"#, "network"),
                r#".linux.netDevices.eth0: invalid network device name "a b""#,
            ),
            (&row(r#"{"abcdefghijklmno":{}}"#, "network"), "ok"),
            (
                &row(r#"{"abcdefghijklmnop":{}}"#, "network"),
                ".linux.netDevices.abcdefghijklmnop: ",
            ),
            (
                &row(r#"{"..":{}}"#, "network"),
                ".linux.netDevices[\"..\"]: ",
            ),
            (
                &row(r#"{"eth0":{"name":"x"},"eth1":{"name":"x"}}"#, "network"),
                ".linux.netDevices.eth1: a second device would be called \"x\"",
            ),
            (
                &row(
                    r#"{"eth0":{"name":"x%d"},"eth1":{"name":"x%d"}}"#,
                    "network",
                ),
                "ok",
            ),
        ]);
        let rootless = Facts {
            euid: 1,
            ..Facts::default()
        };
        let got = verdict(
            r#"{"linux":{"namespaces":[{"type":"user"},{"type":"network"}],"netDevices":{"a":{}}}}"#,
            rootless,
        );
        assert!(got.contains("not supported for rootless"), "{got}");
    }

    #[test]
    fn a_private_root_needs_pivot_root() {
        for (word, no_pivot, refused) in [
            ("private", true, true),
            ("rprivate", true, true),
            ("private", false, false),
            ("rslave", true, false),
        ] {
            let fields = format!(r#"{{"linux":{{"rootfsPropagation":"{word}"}}}}"#);
            let asked = Asked {
                no_pivot,
                ..Asked::default()
            };
            let got = check(&fields, Facts::default(), asked);
            assert_eq!(got.is_err(), refused, "{word} {no_pivot}: {got:?}");
        }
    }

    #[test]
    fn paths_are_hidden_only_in_a_mount_namespace() {
        check_all(&[
            (
                r#"{"linux":{"maskedPaths":["/proc/kcore"]}}"#,
                ".linux.maskedPaths: unable to restrict sys entries",
            ),
            (
                r#"{"linux":{"readonlyPaths":["/proc/sys"]}}"#,
                ".linux.readonlyPaths: unable to restrict sys entries",
            ),
            (r#"{"linux":{"maskedPaths":[],"readonlyPaths":[]}}"#, "ok"),
            (
                r#"{"linux":{"namespaces":[{"type":"mount"}],"maskedPaths":["/a"],"readonlyPaths":["/b"]}}"#,
                "ok",
            ),
        ]);
    }

    #[test]
    fn labels_and_groups_are_names_that_mean_something_here() {
        check_all(&[
            (r#"{"linux":{"mountLabel":""}}"#, "ok"),
            (
                r#"{"linux":{"mountLabel":"l"}}"#,
                ".linux.mountLabel: mount label is specified",
            ),
            (r#"{"linux":{"intelRdt":{"closID":"a"}}}"#, "ok"),
            (r#"{"linux":{"intelRdt":{"closID":"/"}}}"#, "ok"),
            (
                r#"{"linux":{"intelRdt":{"closID":".."}}}"#,
                ".linux.intelRdt.closID: invalid",
            ),
            (
                r#"{"linux":{"intelRdt":{"closID":"a/b"}}}"#,
                ".linux.intelRdt.closID: invalid",
            ),
            (
                r#"{"linux":{"personality":{"domain":"LINUX32","flags":["x"]}}}"#,
                "ok, .linux.personality.flags: ignored",
            ),
        ]);
        let selinux = Facts {
            selinux: true,
            ..Facts::default()
        };
        assert_eq!(verdict(r#"{"linux":{"mountLabel":"l"}}"#, selinux), "ok");
    }
}
