//! F: cgroups and devices.

use std::fs;

use serde_json::json;

use super::{Case, Control, Outcome, Victim, ended, unless};

pub const CASES: &[Case] = &[
    Case {
        id: "F1",
        seen: "CVE-2022-0492",
        what: "a cgroup v1 hierarchy is mounted for its release_agent",
        attack: release_agent,
        control: Control::Naive,
    },
    Case {
        id: "F3",
        seen: "CVE-2024-3154",
        what: "annotations ask systemd to execute, own or reach something",
        attack: super::systemd::properties,
        control: Control::Naive,
    },
    Case {
        id: "F4",
        seen: "CVE-2025-47291",
        what: "linux.cgroupsPath climbs out of the hierarchy",
        attack: climbing_path,
        control: Control::Naive,
    },
    Case {
        id: "F5",
        seen: "CVE-2021-43784",
        what: "id maps and paths are too long for a length of 16 bits",
        attack: long_messages,
        control: Control::Naive,
    },
    Case {
        id: "F6",
        seen: "device rules",
        what: "device nodes of the host are made and opened",
        attack: devices,
        control: Control::Naive,
    },
    Case {
        id: "F7",
        seen: "fork bomb before limits",
        what: "the program forks at once, with a limit of 12 processes",
        attack: fork_bomb,
        control: Control::Naive,
    },
];

fn release_agent(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    // Opened for writing, never written.
    bundle.sh("
        mkdir /tmp/v1
        for name in freezer devices pids memory; do
            mount -t cgroup -o $name cgroup /tmp/v1 2>/dev/null || continue
            (: >>/tmp/v1/release_agent) 2>/dev/null && echo open $name
            umount /tmp/v1
        done
        for file in /sys/fs/cgroup/*/release_agent; do
            (: >>$file) 2>/dev/null && echo open $file
        done
        true");
    let run = arena.run(&bundle);
    unless(
        run.stdout.contains("open"),
        "it may set the host's release_agent",
        &run,
    )
}

fn cgroup_of(victim: &Victim, path: &str) -> (String, Outcome) {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    let token = arena.runtime.token().to_owned();
    bundle
        .set("/linux/cgroupsPath", path.replace("TOKEN", &token))
        .sleeper();
    let path = bundle.save();
    let id = bundle.id();
    let create = arena
        .runtime
        .call(&["create", "--bundle", &path.to_string_lossy(), id])
        .run();
    let text = match create.code {
        0 => {
            let state = arena.runtime.call(&["state", id]).run().json();
            let pid = i32::try_from(state["pid"].as_i64().unwrap_or(0)).unwrap_or(0);
            integration::proc::read(pid, "cgroup")
        }
        _ => String::new(),
    };
    let outcome = ended(&create);
    let _ = arena.runtime.call(&["delete", "--force", id]).run();
    // What a path through it has left there.
    let _ = fs::remove_dir(format!("/sys/fs/cgroup/pids/{token}"));
    (text, outcome)
}

fn climbing_path(victim: &Victim) -> Outcome {
    let mut last = None;
    let long = format!("/TOKEN/{}", "long/".repeat(1000));
    for path in [
        "../../TOKEN",
        "/../../TOKEN",
        "/TOKEN/../../../TOKEN",
        "TOKEN/..",
        "/TOKEN/../..",
        "//..//TOKEN",
        &long,
    ] {
        let (text, outcome) = cgroup_of(victim, path);
        // A process that left the hierarchy is shown with "..", one that has no cgroup of its own
        // stays in that of the runtime.
        if text.lines().any(|line| line.contains("/..")) {
            return Outcome::Bitten(format!("with {path} it is outside"));
        }
        if !text.is_empty() && !text.contains("kt") {
            return Outcome::Bitten(format!("with {path} it has no cgroup of its own"));
        }
        last = Some(outcome);
    }
    last.expect("there are paths")
}

/// A length that wraps would leave the container with other ids than it was to have: of the last path
/// it counts one byte, so that the rest of the path is taken for what comes after it.
fn long_messages(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let ids = "0 0 4294967295";
    let forged = format!("u{:04x}{ids}g{:04x}{ids}", ids.len(), ids.len());
    let rest = 65_536 - forged.len() - 5;
    let forged = format!("/{forged}z{rest:04x}{}", "x".repeat(rest));
    let long = |length| format!("/{}", "x".repeat(length));
    let mut last = None;
    for (maps, path) in [
        (340, None),
        (6_000, None),
        (70_000, None),
        (1, Some(long(66_000))),
        (1, Some(long(1 << 20))),
        (1, Some(forged)),
    ] {
        let mut bundle = arena.bundle();
        let list: Vec<_> = (0..maps)
            .map(|id| json!({ "containerID": id, "hostID": 100_000 + id, "size": 1 }))
            .collect();
        bundle
            .user_namespace(100_000, 65_536)
            .set("/linux/uidMappings", list.clone())
            .set("/linux/gidMappings", list)
            .args(&["/bin/cat", "/proc/self/uid_map"]);
        if let Some(path) = &path {
            bundle.join("network", path);
        }
        let run = arena.run(&bundle);
        let first: Vec<&str> = run.stdout.split_whitespace().take(3).collect();
        if run.code == 0 && first != ["0", "100000", "1"] {
            return Outcome::Bitten(format!("it has the ids {}", first.join(" ")));
        }
        last = Some(ended(&run));
    }
    last.expect("there are lengths")
}

fn devices(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    bundle
        .set(
            "/linux/resources/devices",
            json!([{ "allow": false, "access": "rwm" }]),
        )
        .sh("
        cd /tmp
        i=0
        for node in 'c 1 1' 'c 1 2' 'c 1 4' 'c 1 11' 'c 10 229' 'b 8 0' 'b 254 0' 'b 7 0'; do
            i=$((i + 1))
            mknod node$i $node 2>/dev/null
            (: <node$i) 2>/dev/null && echo open $node
        done
        true");
    let run = arena.run(&bundle);
    match run.stdout.lines().next() {
        Some(line) => Outcome::Bitten(line.to_owned()),
        None => ended(&run),
    }
}

fn fork_bomb(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    bundle.set("/linux/resources/pids/limit", 12).sh("
        i=0
        while [ $i -lt 40 ]; do i=$((i + 1)); sleep 1 & done 2>/dev/null
        ls -d /proc/[0-9]* | wc -l");
    let run = arena.run(&bundle);
    let most: usize = run.stdout.trim().parse().unwrap_or(0);
    let run_ended = unless(most > 12, "it has more processes than its limit", &run);
    let _ = fs::metadata(arena.canary.join("secret")).expect("it is there");
    run_ended
}
