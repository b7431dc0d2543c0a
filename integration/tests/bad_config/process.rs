//! Programs, processes, roots and huge values that break a rule.
#![allow(
    clippy::too_many_lines,
    reason = "flat tables: one row after the other"
)]

use std::os::unix::fs::symlink;

use super::Row;
use serde_json::json;

pub fn rows() -> Vec<Row> {
    [program(), process(), root(), huge()]
        .into_iter()
        .flatten()
        .collect()
}

fn program() -> Vec<Row> {
    vec![
        Row::unset("args missing", "/process/args", &[".process.args"]),
        Row::set("args empty", "/process/args", json!([]), &[".process.args"]),
        Row::set(
            "args[0] empty",
            "/process/args",
            json!([""]),
            &["exec: \"\""],
        ),
        Row::set(
            "program missing",
            "/process/args",
            json!(["/missing"]),
            &["exec: \"/missing\": stat /missing: no such file or directory"],
        ),
        Row::set(
            "program not on PATH",
            "/process/args",
            json!(["missing"]),
            &["exec: \"missing\": executable file not found in $PATH"],
        ),
        Row::set(
            "program a directory",
            "/process/args",
            json!(["/etc"]),
            &["exec: \"/etc\"", "is a directory"],
        ),
        Row::set(
            "program not executable",
            "/process/args",
            json!(["/etc/passwd"]),
            &["exec: \"/etc/passwd\": permission denied"],
        ),
        Row::set(
            "program below a file",
            "/process/args",
            json!(["/etc/passwd/x"]),
            &["exec: \"/etc/passwd/x\"", "not a directory"],
        ),
        Row::with(
            "program a link to itself",
            |bundle| {
                symlink("loop", bundle.rootfs().join("bin/loop")).expect("writable");
                bundle.args(&["/bin/loop"]);
            },
            &["exec: \"/bin/loop\""],
        ),
        Row::with(
            "no PATH",
            |bundle| {
                bundle.args(&["true"]).set("/process/env", json!(["A=1"]));
            },
            &["exec: \"true\": executable file not found in $PATH"],
        ),
        Row::with(
            "program only on the host",
            |bundle| {
                bundle.args(&["/usr/bin/dpkg"]);
            },
            &["exec: \"/usr/bin/dpkg\""],
        ),
    ]
}

fn process() -> Vec<Row> {
    let rlimit =
        |kind: &str, soft: u64, hard: u64| json!({ "type": kind, "soft": soft, "hard": hard });
    vec![
        Row::unset("cwd missing", "/process/cwd", &[".process.cwd"]),
        Row::set("cwd empty", "/process/cwd", json!(""), &[".process.cwd"]),
        Row::set(
            "cwd relative",
            "/process/cwd",
            json!("tmp"),
            &[".process.cwd"],
        ),
        Row::set(
            "cwd a file",
            "/process/cwd",
            json!("/etc/passwd"),
            &["/etc/passwd", "chdir to cwd"],
        ),
        Row::set(
            "cwd a device",
            "/process/cwd",
            json!("/dev/null"),
            &["/dev/null"],
        ),
        Row::set(
            "rlimit unknown",
            "/process/rlimits",
            json!([rlimit("RLIMIT_NONE", 1, 1)]),
            &[".process.rlimits[0].type", "RLIMIT_NONE"],
        ),
        Row::set(
            "rlimit twice",
            "/process/rlimits",
            json!([rlimit("RLIMIT_CORE", 0, 0), rlimit("RLIMIT_CORE", 1, 1)]),
            &[".process.rlimits[1]", "RLIMIT_CORE"],
        ),
        Row::set(
            "rlimit soft above hard",
            "/process/rlimits",
            json!([rlimit("RLIMIT_CORE", 2, 1)]),
            &[".process.rlimits[0]"],
        ),
        Row::set(
            "oom score too high",
            "/process/oomScoreAdj",
            json!(1001),
            &[".process.oomScoreAdj"],
        ),
        Row::set(
            "oom score too low",
            "/process/oomScoreAdj",
            json!(-1001),
            &[".process.oomScoreAdj"],
        ),
        Row::set(
            "terminal without a console",
            "/process/terminal",
            json!(true),
            &["cannot allocate tty if runc will detach without setting console socket"],
        ),
        Row::set(
            "AppArmor on a host without",
            "/process/apparmorProfile",
            json!("profile"),
            &["apparmor"],
        ),
        Row::set(
            "SELinux on a host without",
            "/process/selinuxLabel",
            json!("system_u:system_r:container_t:s0"),
            &["selinux"],
        ),
        Row::set(
            "NUL in an argument",
            "/process/args",
            json!(["/bin/true", "a\u{0}b"]),
            &[".process.args[1]"],
        )
        .runc_accepts(),
        Row::set(
            "NUL in the environment",
            "/process/env",
            json!(["A=\u{0}"]),
            &[".process.env[0]"],
        )
        .runc_accepts(),
        Row::set(
            "NUL in cwd",
            "/process/cwd",
            json!("/tmp\u{0}x"),
            &[".process.cwd"],
        ),
    ]
}

fn root() -> Vec<Row> {
    vec![
        Row::unset("root missing", "/root", &[".root"]),
        Row::set("root.path empty", "/root/path", json!(""), &[".root.path"]).runc_accepts(),
        Row::set(
            "root.path not there",
            "/root/path",
            json!("nowhere"),
            &["nowhere"],
        ),
        Row::set(
            "root.path a file",
            "/root/path",
            json!("config.json"),
            &["config.json"],
        ),
        Row::with(
            "root.path a symlink",
            |bundle| {
                symlink("rootfs", bundle.path().join("link")).expect("writable");
                bundle.set("/root/path", "link");
            },
            &["invalid rootfs: not an absolute path, or a symlink"],
        ),
        Row::set(
            "NUL in root.path",
            "/root/path",
            json!("root\u{0}fs"),
            &["invalid rootfs"],
        ),
        Row::set(
            "ociVersion 2",
            "/ociVersion",
            json!("2.0.0"),
            &[".ociVersion", "2.0.0"],
        )
        .runc_accepts(),
        Row::set(
            "ociVersion no version",
            "/ociVersion",
            json!("latest"),
            &[".ociVersion", "latest"],
        )
        .runc_accepts(),
        Row::set(
            "annotation without a key",
            "/annotations",
            json!({ "": "x" }),
            &[".annotations"],
        )
        .runc_accepts(),
    ]
}

fn huge() -> Vec<Row> {
    let long = || json!(format!("/{}", "a".repeat(1_000_000)));
    let deep = || json!("/a".repeat(500_000));
    vec![
        Row::set(
            "root.path of 1 MB",
            "/root/path",
            long(),
            &["name too long"],
        ),
        Row::set("cwd of 1 MB", "/process/cwd", long(), &[".process.cwd"]),
        Row::set(
            "cwd of 500,000 parts",
            "/process/cwd",
            deep(),
            &[".process.cwd"],
        )
        .runc_accepts(),
        Row::set(
            "program of 1 MB",
            "/process/args",
            json!([long()]),
            &["name too long"],
        ),
        Row::set(
            "mount on 1 MB",
            "/mounts/5/destination",
            long(),
            &[".mounts[5].destination"],
        ),
        Row::set(
            "mount on 500,000 parts",
            "/mounts/5/destination",
            deep(),
            &[".mounts[5].destination"],
        ),
        Row::set(
            "hook of 1 MB",
            "/hooks/createRuntime",
            json!([{ "path": long() }]),
            &["name too long"],
        ),
        Row::set(
            "namespace path of 1 MB",
            "/linux/namespaces/1/path",
            long(),
            &["name too long"],
        ),
        Row::set("hostname of 1 MB", "/hostname", long(), &[".hostname"]),
        Row::set(
            "cgroups path of 1 MB",
            "/linux/cgroupsPath",
            long(),
            &[".linux.cgroupsPath"],
        ),
        Row::set(
            "device path of 1 MB",
            "/linux/devices",
            json!([{ "path": long(), "type": "c", "major": 1, "minor": 3 }]),
            &[".linux.devices[0].path"],
        ),
        Row::set(
            "masked path of 1 MB",
            "/linux/maskedPaths",
            json!([long()]),
            &[".linux.maskedPaths[0]"],
        ),
    ]
}
