//! config-linux.md: devices and default devices; runtime-linux.md: descriptors and links.

use std::os::unix::fs::symlink;

use serde_json::json;

use crate::inside::Node;
use crate::lab::Lab;
use crate::requirement::Level::{Must, ShouldNot};
use crate::requirement::{Requirement, Verdict, Why, ensure, skip};

const DEV: &str = "config-linux.md#devices";
const DEFAULT: &str = "config-linux.md#default-devices";
const LINK: &str = "runtime-linux.md#dev-symbolic-links";
const LIST: &str = "config-linux.md#allowed-device-list";

#[rustfmt::skip]
pub const TABLE: &[Requirement] = &[
    Requirement::must("linux.devices-1", DEV, "listed devices are in the container", listed),
    Requirement::must("linux.devices-2", DEV,
        "a file at path that is not the device is an error", mismatch),
    Requirement::must("linux.devices-3", DEV, "fileMode, uid and gid are the device's", owned),
    Requirement::must("linux.devices-4", DEV, "a device may be a fifo (p) and may be u", kinds),
    Requirement::must("linux.devices-5", DEV, "an unknown type is an error", unknown_type),
    Requirement::untestable("linux.devices-6", ShouldNot, DEV,
        "the same type, major and minor are not used twice", "asks the author of config.json"),
    Requirement::with("linux.default-devices.null", Must, DEFAULT, "/dev/null is supplied", "null 1 3", default),
    Requirement::with("linux.default-devices.zero", Must, DEFAULT, "/dev/zero is supplied", "zero 1 5", default),
    Requirement::with("linux.default-devices.full", Must, DEFAULT, "/dev/full is supplied", "full 1 7", default),
    Requirement::with("linux.default-devices.random", Must, DEFAULT, "/dev/random is supplied", "random 1 8", default),
    Requirement::with("linux.default-devices.urandom", Must, DEFAULT, "/dev/urandom is supplied", "urandom 1 9", default),
    Requirement::with("linux.default-devices.tty", Must, DEFAULT, "/dev/tty is supplied", "tty 5 0", default),
    Requirement::must("linux.default-devices.ptmx", DEFAULT,
        "/dev/ptmx is the container's own /dev/pts/ptmx", ptmx),
    Requirement::with("runtime-linux.links-1", Must, LINK, "/dev/fd links to /proc/self/fd", "/dev/fd=/proc/self/fd", link),
    Requirement::with("runtime-linux.links-2", Must, LINK, "/dev/stdin links to fd 0", "/dev/stdin=/proc/self/fd/0", link),
    Requirement::with("runtime-linux.links-3", Must, LINK, "/dev/stdout links to fd 1", "/dev/stdout=/proc/self/fd/1", link),
    Requirement::with("runtime-linux.links-4", Must, LINK, "/dev/stderr links to fd 2", "/dev/stderr=/proc/self/fd/2", link),
    Requirement::must("runtime-linux.links-5", LINK,
        "the links are made after the mounts, with files in /dev by a mount", links_in_a_bind),
    Requirement::must("runtime-linux.descriptors-1", "runtime-linux.md#file-descriptors",
        "only the standard streams are open", only_standard_streams),
    Requirement::must("linux.resources.devices-1", LIST,
        "a denied device cannot be opened, an allowed one can", allow_and_deny),
    Requirement::must("linux.resources.devices-2", LIST, "entries apply in the listed order", list_order),
    Requirement::must("linux.resources.devices-3", LIST,
        "access is a composition of letters", access_letters),
    Requirement::must("linux.resources.devices-4", LIST,
        "unset type and numbers mean all", unset_means_all),
];

fn listed(lab: &Lab) -> Verdict {
    let view = lab.see(&["stat:/tmp/dev/mem"], |c| {
        c.set(
            "/linux/devices",
            json!([
                {"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229},
                {"type": "c", "path": "/tmp/dev/mem", "major": 1, "minor": 1},
                {"type": "b", "path": "/dev/loop-x", "major": 7, "minor": 9}
            ]),
        );
    })?;
    for (path, kind, major, minor) in [("/dev/fuse", 'c', 10, 229), ("/dev/loop-x", 'b', 7, 9)] {
        let found = view.dev.get(path).map(|n| (n.kind, n.major, n.minor));
        ensure!(found == Some((kind, major, minor)), "{path} is {found:?}");
    }
    ensure!(
        view.tried(0)?.found.ends_with("1:1"),
        "/tmp/dev/mem is {:?}",
        view.tried(0)?
    );
    Ok(())
}

fn mismatch(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.file("tmp/device", "not a device")?;
    bundle.config.sleep().push(
        "/linux/devices",
        json!({"type": "c", "path": "/tmp/device", "major": 1, "minor": 3}),
    );
    lab.refuses_bundle("a device where a file lies", &bundle)
}

fn owned(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.push(
            "/linux/devices",
            json!({"type": "c", "path": "/dev/x", "major": 1, "minor": 3,
                                       "fileMode": 0o624, "uid": 11, "gid": 22}),
        );
    })?;
    let found = view.dev.get("/dev/x").map(|n| (n.mode, n.uid, n.gid));
    ensure!(found == Some((0o624, 11, 22)), "/dev/x is {found:?}");
    Ok(())
}

fn kinds(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.push(
            "/linux/devices",
            json!({"type": "p", "path": "/dev/pipe", "fileMode": 0o600}),
        );
        c.push(
            "/linux/devices",
            json!({"type": "u", "path": "/dev/u", "major": 1, "minor": 5}),
        );
    })?;
    for (path, kind) in [("/dev/pipe", 'p'), ("/dev/u", 'c')] {
        let found = view.dev.get(path).map(|n| n.kind);
        ensure!(found == Some(kind), "{path} is {found:?}");
    }
    Ok(())
}

fn unknown_type(lab: &Lab) -> Verdict {
    lab.refuses("a device of type z", |c| {
        c.push(
            "/linux/devices",
            json!({"type": "z", "path": "/dev/x", "major": 1, "minor": 3}),
        );
    })
}

fn default(lab: &Lab, word: &str) -> Verdict {
    let parts: Vec<&str> = word.split(' ').collect();
    let path = format!("/dev/{}", parts[0]);
    let open = format!("open:{path}");
    let view = lab.see(&[&open], |_| ())?;
    let found = view
        .dev
        .get(&path)
        .map(|n| format!("{} {} {} {:o}", n.kind, n.major, n.minor, n.mode));
    let want = format!("c {} {} 666", parts[1], parts[2]);
    ensure!(
        found == Some(want.clone()),
        "{path} is {found:?}, not {want}"
    );
    // Without a controlling terminal /dev/tty answers ENXIO.
    let errno = view.tried(0)?.errno;
    ensure!(
        errno == 0 || (parts[0] == "tty" && errno == libc::ENXIO),
        "opening gives {errno}"
    );
    Ok(())
}

fn ptmx(lab: &Lab) -> Verdict {
    let view = lab.see(&["open:/dev/ptmx", "list:/dev/pts"], |_| ())?;
    ensure!(
        view.tried(0)?.errno == 0,
        "it cannot be opened: {:?}",
        view.tried(0)?
    );
    let node = view.dev.get("/dev/ptmx").cloned().unwrap_or_default();
    let ok = match node {
        Node {
            kind: 'l',
            ref target,
            ..
        } => ["pts/ptmx", "/dev/pts/ptmx"].contains(&target.as_str()),
        Node {
            kind: 'c',
            major: 5,
            minor: 2,
            ..
        } => true,
        _ => false,
    };
    ensure!(ok, "/dev/ptmx is {node:?}");
    Ok(())
}

fn link(lab: &Lab, word: &str) -> Verdict {
    let Some((path, target)) = word.split_once('=') else {
        return Err(Why::Fail(word.to_owned()));
    };
    let view = lab.see(&[], |_| ())?;
    let found = view.dev.get(path).map(|n| n.target.clone());
    ensure!(found.as_deref() == Some(target), "{path} is {found:?}");
    Ok(())
}

/// /dev is no tmpfs of the configuration but part of the root file system.
fn links_in_a_bind(lab: &Lab) -> Verdict {
    let view = lab.view(&["read:/dev/stdin"], |bundle| {
        bundle.config.set(
            "/mounts",
            json!([
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]}
            ]),
        );
        // One that is there already must not be in the way.
        symlink("/proc/self/fd", bundle.rootfs().join("dev/fd")).map_err(|e| e.to_string())
    })?;
    let found = view.dev.get("/dev/stdin").map(|n| n.target.as_str());
    ensure!(found == Some("/proc/self/fd/0"), "/dev/stdin is {found:?}");
    Ok(())
}

fn only_standard_streams(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |_| ())?;
    let fds: Vec<u32> = view.fds.keys().copied().collect();
    ensure!(fds == [0, 1, 2], "open are {:?}", view.fds);
    Ok(())
}

/// The errors that the device cgroup gives: EPERM.
const DENIED: i32 = libc::EPERM;

fn rules(lab: &Lab, rules: serde_json::Value, tries: &[&str]) -> Result<Vec<i32>, Why> {
    let seen = lab.see(tries, |c| {
        c.set("/linux/resources/devices", rules);
        c.set(
            "/linux/devices",
            json!([
            {"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 0o666}]),
        );
    });
    match seen {
        // crun raises its limit of locked memory before it loads a filter.
        Err(Why::Fail(text)) if text.contains("RLIM_MEMLOCK") => {
            skip!("this runtime loads a device filter with CAP_SYS_RESOURCE only")
        }
        seen => Ok(seen?.tries.iter().map(|t| t.errno).collect()),
    }
}

fn allow_and_deny(lab: &Lab) -> Verdict {
    let fuse = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"});
    let none = json!({"allow": false, "access": "rwm"});
    let allowed = rules(
        lab,
        json!([none, fuse]),
        &["open:/dev/fuse", "open:/dev/null"],
    )?;
    let denied = rules(lab, json!([none]), &["open:/dev/fuse"])?;
    ensure!(
        denied == [DENIED],
        "denied, opening /dev/fuse gives {denied:?}"
    );
    ensure!(
        allowed[0] != DENIED,
        "allowed, opening /dev/fuse gives {allowed:?}"
    );
    ensure!(allowed[1] == 0, "a default device is denied: {allowed:?}");
    Ok(())
}

fn list_order(lab: &Lab) -> Verdict {
    let fuse = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"});
    let none = json!({"allow": false, "type": "c", "major": 10, "minor": 229, "access": "rw"});
    let last_denies = rules(lab, json!([fuse, none]), &["open:/dev/fuse"])?;
    let last_allows = rules(lab, json!([none, fuse]), &["open:/dev/fuse"])?;
    ensure!(
        last_denies == [DENIED],
        "allow then deny gives {last_denies:?}"
    );
    ensure!(
        last_allows != [DENIED],
        "deny then allow gives {last_allows:?}"
    );
    Ok(())
}

/// Making device nodes is left out: runtimes allow it for all, as a node alone opens nothing.
fn access_letters(lab: &Lab) -> Verdict {
    let none = json!({"allow": false, "access": "rwm"});
    for (access, read_denied, write_denied) in [("r", false, true), ("w", true, false)] {
        let rule = json!({"allow": true, "type": "c", "major": 10, "minor": 229,
                          "access": access});
        let found = rules(
            lab,
            json!([none, rule]),
            &["peek:/dev/fuse", "write:/dev/fuse"],
        )?;
        let denied: Vec<bool> = found.iter().map(|errno| *errno == DENIED).collect();
        let want = [read_denied, write_denied];
        ensure!(
            denied == want,
            "with {access}, opening to read and to write give {found:?}"
        );
    }
    Ok(())
}

fn unset_means_all(lab: &Lab) -> Verdict {
    let found = rules(
        lab,
        json!([{"allow": false, "access": "rwm"}]),
        &["open:/dev/fuse"],
    )?;
    ensure!(found == [DENIED], "all denied, opening gives {found:?}");
    let found = rules(
        lab,
        json!([{"allow": true, "access": "rwm"}]),
        &["open:/dev/fuse"],
    )?;
    ensure!(found != [DENIED], "all allowed, opening gives {found:?}");
    Ok(())
}
