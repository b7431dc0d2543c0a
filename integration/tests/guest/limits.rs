//! Limits whose effect takes a change of the machine, and all of them beside other runtimes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use integration::{Bundle, Runtime, is_v2, wait_for};
use serde_json::{Value, json};

use super::{host, outside_the_guest, weights};

#[test]
fn sockets_bear_the_network_class_and_packets_the_priority() {
    let runtime = Runtime::new();
    // v2 has neither: bad_input.rs shows the refusal.
    if outside_the_guest(&runtime) || is_v2() {
        return;
    }
    let network =
        json!({ "classID": 0x0010_0002, "priorities": [{ "name": "lo", "priority": 1 }] });
    let mut bundle = runtime.bundle();
    bundle
        .set("/linux/resources/network", network)
        .join("network", "/proc/1/ns/net")
        .sh("nc -l -p 4001 & while :; do nc 127.0.0.1 9; sleep 0.1; done");
    // The kernel knows priorities for the interfaces of the first network namespace only.
    let of_the_machine = |words: &[&str]| {
        let enter = ["nsenter", "--target", "1", "--net"];
        host(&[&enter[..], words].concat())
    };
    of_the_machine(&["ip", "link", "set", "lo", "up"]);
    of_the_machine(&[
        "tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "prio",
    ]);
    let container = runtime.start(&bundle);
    // ss shows the class of a socket beside its type of service.
    wait_for("the class", || {
        of_the_machine(&["ss", "-tln", "--tos"]).contains("class_id:0x100002")
    });
    // Priority 1 goes to the third band: tc-prio(8).
    wait_for("a packet", || {
        let third = ["tc", "-s", "class", "show", "dev", "lo", "classid", "1:3"];
        !of_the_machine(&third).contains("Sent 0 ")
    });
    of_the_machine(&["tc", "qdisc", "del", "dev", "lo", "root"]);
    container.finish();
}

/// Limits whose values change on their way to v2, and the files where they arrive. The formula of
/// shares is newer than Debian's runc and crun.
const CONVERTED: &[(&str, &str)] = &[
    ("cpu.max", r#"{"cpu":{"quota":50000,"period":100000}}"#),
    ("cpu.max", r#"{"cpu":{"quota":-1,"period":50000}}"#),
    ("cpu.max", r#"{"cpu":{"quota":20000}}"#),
    ("cpuset.cpus", r#"{"cpu":{"cpus":"0"}}"#),
    ("cpuset.mems", r#"{"cpu":{"mems":"0"}}"#),
    ("memory.max", r#"{"memory":{"limit":-1}}"#),
    ("memory.max", r#"{"memory":{"limit":33554432}}"#),
    (
        "memory.low",
        r#"{"memory":{"limit":33554432,"reservation":16777216}}"#,
    ),
    (
        "memory.swap.max",
        r#"{"memory":{"limit":33554432,"swap":50331648}}"#,
    ),
    (
        "memory.swap.max",
        r#"{"memory":{"limit":33554432,"swap":33554432}}"#,
    ),
    (
        "memory.swap.max",
        r#"{"memory":{"limit":33554432,"swap":-1}}"#,
    ),
    ("pids.max", r#"{"pids":{"limit":7}}"#),
    ("pids.max", r#"{"pids":{"limit":-1}}"#),
    ("io.weight", r#"{"blockIO":{"weight":10}}"#),
    ("io.weight", r#"{"blockIO":{"weight":500}}"#),
    ("io.weight", r#"{"blockIO":{"weight":1000}}"#),
    (
        "hugetlb.2MB.max",
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
    ),
    ("memory.high", r#"{"unified":{"memory.high":"8388608"}}"#),
];

/// What is in `file` of the container's cgroup after `program create`.
fn arrived(program: &Path, runtime: &Runtime, bundle: &Bundle, file: &str) -> String {
    let root = runtime.dir().join(program.file_name().expect("a program"));
    let call = |words: &[&str]| {
        let mut command = Command::new(program);
        command
            .arg("--root")
            .arg(&root)
            .args(words)
            .arg(bundle.id());
        // Not a pipe: the container would keep it open.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().expect("it is installed");
        assert!(status.success(), "{} {words:?}", program.display());
    };
    let path = bundle.save().to_str().expect("UTF-8");
    call(&["create", "--bundle", path]);
    let cgroup = bundle.spec["linux"]["cgroupsPath"]
        .as_str()
        .expect("a path");
    let text = fs::read_to_string(format!("/sys/fs/cgroup{cgroup}/{file}"));
    call(&["delete", "--force"]);
    let _ = fs::remove_dir_all(root);
    text.unwrap_or_else(|error| error.to_string())
}

#[test]
fn limits_arrive_as_those_of_debians_runc_and_crun() {
    let runtime = Runtime::new();
    // On v1 nothing is converted, and Debian's crun cannot set a quota there.
    if outside_the_guest(&runtime) || !is_v2() {
        return;
    }
    let _unchanged = weights();
    let mut differ = Vec::new();
    for (file, resources) in CONVERTED {
        let mut bundle = runtime.bundle();
        let resources: Value = serde_json::from_str(resources).expect("JSON");
        let path = format!("/{}", bundle.id());
        bundle
            .set("/linux/cgroupsPath", path)
            .set("/linux/resources", resources.clone());
        let programs = [
            runtime.binary(),
            Path::new("/usr/sbin/runc"),
            Path::new("/usr/bin/crun"),
        ];
        let [keel, runc, crun] = programs.map(|it| arrived(it, &runtime, &bundle, file));
        if keel != runc || keel != crun {
            differ.push(format!("{resources}: {file} {keel:?} {runc:?} {crun:?}"));
        }
    }
    assert!(
        differ.is_empty(),
        "keel, runc, crun:\n{}",
        differ.join("\n")
    );
}
