//! A: descriptors, and the runtime's own binary.

use std::fs::{self, File};

use integration::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Case, Control, Outcome, Victim, ended, long_mode, unless};

pub const CASES: &[Case] = &[
    Case {
        id: "A1",
        seen: "CVE-2016-9962",
        what: "a container with CAP_SYS_PTRACE looks into processes that exec puts beside it",
        attack: spy,
        control: Control::Runc,
    },
    Case {
        id: "A2",
        seen: "CVE-2019-5736",
        what: "a container executes /proc/self/exe and writes to it",
        attack: overwrite,
        control: Control::Naive,
    },
    Case {
        id: "A3",
        seen: "CVE-2024-21626",
        what: "cwd and program lead through a descriptor that the caller has leaked",
        attack: leaked_directory,
        control: Control::Naive,
    },
    Case {
        id: "A4",
        seen: "CVE-2015-3627",
        what: "the container counts the descriptors that it was left",
        attack: left_over,
        control: Control::Naive,
    },
    Case {
        id: "A5",
        seen: "CVE-2015-1334, CVE-2016-8649",
        what: "a container covers its /proc, so that exec writes to its files or waits for its FIFOs",
        attack: covered_procfs,
        control: Control::Naive,
    },
    Case {
        id: "A6",
        seen: "CVE-2022-1227",
        what: "the image has tools of its own by the names that a runtime may want to execute",
        attack: tools_of_the_image,
        control: Control::Naive,
    },
];

/// What a peer may see: what every process of the container has.
fn is_harmless(line: &str) -> bool {
    let own = [
        "watching",
        "descriptor socket:",
        "descriptor pipe:",
        "descriptor /dev/null",
    ];
    own.iter().any(|start| line.starts_with(start)) || line.contains("kt-output-")
}

fn spy(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let canary = arena.canary.join("secret");
    let mut bundle = arena.bundle();
    bundle
        .probe()
        .capabilities(&["CAP_SYS_PTRACE", "CAP_KILL", "CAP_DAC_OVERRIDE"])
        .args(&["/bin/probe", "spy", &canary.to_string_lossy()]);
    let container = arena.runtime.start(&bundle);
    container.wait_for_stdout("watching");
    let own = integration::proc::status(container.pid())["CapPrm"].clone();
    let mut last = None;
    for _ in 0..if long_mode() { 10_000 } else { 40 } {
        last = Some(
            arena
                .runtime
                .call(&["exec", bundle.id(), "/bin/true"])
                .run(),
        );
    }
    let seen = container.stdout();
    let given_away = seen
        .lines()
        .find(|line| !is_harmless(line) && !line.ends_with(&own));
    match (given_away, last) {
        (Some(line), _) => Outcome::Bitten(line.replace(&*arena.canary.to_string_lossy(), "…")),
        (None, Some(run)) => ended(&run),
        (None, None) => Outcome::Contained("nothing was tried".into()),
    }
}

fn overwrite(victim: &Victim) -> Outcome {
    let dir = tempfile::tempdir().expect("the temporary directory is writable");
    let (arena, binary) = victim.sacrifice(dir.path());
    let before = fs::read(&binary).expect("it was copied just now");
    let mut bundle = arena.bundle();
    bundle.probe().args(&["/bin/probe", "overwrite"]);
    let attacker = arena.runtime.start(&bundle);
    attacker.wait_for_stdout("watching");
    let script = bundle.rootfs();
    let mut last = None;
    for round in 0..if long_mode() { 1000 } else { 30 } {
        fs::remove_file(script.join("bin/sh")).expect("it is a link");
        match round % 2 {
            0 => fs::write(script.join("bin/sh"), "#!/proc/self/exe\n").map(drop),
            _ => std::os::unix::fs::symlink("/proc/self/exe", script.join("bin/sh")),
        }
        .expect("the bundle is writable");
        let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        if round % 2 == 0 {
            fs::set_permissions(script.join("bin/sh"), mode).expect("we own it");
        }
        last = Some(arena.runtime.call(&["exec", bundle.id(), "/bin/sh"]).run());
    }
    // The attacker waits for the moment in which nobody executes the binary.
    wait_for("the attacker", || {
        let out = attacker.stdout();
        out.contains("overwritten") || out.contains("gives up")
    });
    // And as the program of a container of its own.
    let mut second = arena.bundle();
    second.args(&["/proc/self/exe"]);
    let _ = arena.run(&second);
    let changed = fs::read(&binary).is_ok_and(|now| now != before);
    let run = last.expect("there are rounds");
    let _ = kill(Pid::from_raw(attacker.pid()), Signal::SIGKILL);
    unless(changed, "the runtime's binary is another", &run)
}

fn leaked_directory(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut result = None;
    let last = if long_mode() { 60 } else { 9 };
    for number in [3, 4, 5, 6, 7, 8, last] {
        for name in [
            format!("/proc/self/fd/{number}"),
            format!("/proc/self/fd/{number}/deep/.."),
        ] {
            let mut bundle = arena.bundle();
            bundle.set("/process/cwd", name).sh("cat secret");
            let mut call = arena.runtime.call_run(&bundle);
            for _ in 0..50 {
                call = call.fd(File::open(&arena.canary).expect("it is there"));
            }
            let run = call.run();
            match arena.secret_is_kept(&run) {
                bitten @ Outcome::Bitten(_) => return bitten,
                contained => result = Some(contained),
            }
        }
    }
    result.expect("there are numbers")
}

fn left_over(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    bundle.args(&["/bin/ls", "/proc/self/fd"]);
    let mut call = arena.runtime.call_run(&bundle);
    for _ in 0..20 {
        call = call.fd(File::open(&arena.canary).expect("it is there"));
    }
    let run = call.run();
    // The fourth is that of the listing.
    let more = run
        .stdout
        .lines()
        .any(|line| !matches!(line, "0" | "1" | "2" | "3"));
    unless(more, "it was left descriptors of the caller", &run)
}

/// What a runtime writes to in the procfs that it finds.
const WRITTEN: [&str; 4] = ["oom_score_adj", "attr/exec", "attr/current", "setgroups"];

fn covered_procfs(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut result = None;
    for (way, make) in [("a file", "echo mine >"), ("a FIFO", "mkfifo ")] {
        let mut bundle = arena.bundle();
        bundle
            .capabilities(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"])
            .set("/process/oomScoreAdj", 100)
            .sh(&format!(
                "mount -t tmpfs decoy /proc
                for dir in self thread-self 1; do
                    mkdir -p /proc/$dir/attr /proc/$dir/fd /proc/$dir/ns
                    for name in {}; do {make}/proc/$dir/$name; done
                done
                echo ready; exec sleep 1000000",
                WRITTEN.join(" ")
            ));
        let container = arena.runtime.start(&bundle);
        container.wait_for_stdout("ready");
        let run = arena
            .runtime
            .call(&["exec", bundle.id(), "/bin/true"])
            .through(&["timeout", "--signal=KILL", "5"])
            .run();
        if matches!(run.code, 124 | 137 | -9) {
            return Outcome::Bitten(format!("{way} of the container holds it up"));
        }
        let covered = format!("/proc/{}/root/proc", container.pid());
        for (dir, name) in ["self", "thread-self", "1"]
            .into_iter()
            .flat_map(|dir| WRITTEN.map(|name| (dir, name)))
            .filter(|_| way == "a file")
        {
            let text = fs::read_to_string(format!("{covered}/{dir}/{name}")).unwrap_or_default();
            if text != "mine\n" {
                return Outcome::Bitten(format!("it wrote to the container's {dir}/{name}"));
            }
        }
        result = Some(ended(&run));
    }
    result.expect("there are ways")
}

fn tools_of_the_image(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    for name in [
        "ps", "top", "cat", "tar", "ls", "id", "nsenter", "ldconfig", "mount",
    ] {
        let place = format!("/bin/{name}");
        let _ = fs::remove_file(bundle.rootfs().join(&place[1..]));
        bundle.file(&place, "#!/bin/busybox sh\necho $0 >>/marker\n", 0o755);
    }
    bundle.args(&["/bin/busybox", "sleep", "1000000"]);
    let container = arena.runtime.start(&bundle);
    let mut last = container.call(&["state"]).run();
    for verb in [
        &["ps"][..],
        &["events", "--stats"],
        &["pause"],
        &["resume"],
        &["kill", "KILL"],
    ] {
        last = match verb {
            ["kill", signal] => container.kill(signal),
            _ => container.call(verb).run(),
        };
    }
    let marker = fs::read_to_string(bundle.rootfs().join("marker")).unwrap_or_default();
    match marker.lines().next() {
        Some(name) => Outcome::Bitten(format!("{name} of the image was executed")),
        None => ended(&last),
    }
}
