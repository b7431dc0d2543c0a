//! B6 and E: terminal, session, keys.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};

use integration::{Terminal, sys};
use serde_json::json;

use super::{Case, Control, Outcome, Victim, ended, unless};

pub const CASES: &[Case] = &[
    Case {
        id: "B6",
        seen: "CVE-2025-52565",
        what: "/dev/console is a link to a file that the container's user may not write",
        attack: linked_console,
        control: Control::Runc,
    },
    Case {
        id: "E1",
        seen: "CVE-2016-10124, CVE-2017-5226",
        what: "a container types into the terminal that the caller has on its standard streams",
        attack: typed_in,
        control: Control::Naive,
    },
    Case {
        id: "E2",
        seen: "session keyring sharing",
        what: "a container uses the session keyring of its caller",
        attack: shared_keyring,
        control: Control::Naive,
    },
    Case {
        id: "E3",
        seen: "stdio chown",
        what: "a file of the host is standard input of a container of another user",
        attack: given_away,
        control: Control::Runc,
    },
];

fn linked_console(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    let dev = arena.runtime.dir().join("dev");
    for dir in ["pts", "shm", "mqueue"] {
        fs::create_dir_all(dev.join(dir)).expect("the scratch directory is writable");
    }
    for (name, target) in [("ptmx", "pts/ptmx"), ("console", "/treasure/secret")] {
        symlink(target, dev.join(name)).expect("the scratch directory is writable");
    }
    if let Some(mounts) = bundle.spec["mounts"].as_array_mut() {
        mounts.retain(|entry| entry["destination"] != "/dev");
    }
    let mounts = &mut bundle.spec["mounts"];
    let bound =
        json!({ "destination": "/dev", "source": dev, "type": "bind", "options": ["rbind"] });
    mounts.as_array_mut().expect("a list").insert(1, bound);
    bundle
        .bind(&arena.canary, "/treasure", "rbind")
        .set("/process/terminal", true)
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let (_terminal, slave) = Terminal::open();
    let run = arena.runtime.call_run(&bundle).on_terminal(&slave).run();
    arena.canary_lives(&run)
}

fn typed_in(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    bundle.probe().args(&["/bin/probe", "type", "x"]);
    let (_terminal, slave) = Terminal::open();
    let run = arena.runtime.call_run(&bundle).on_terminal(&slave).run();
    unless(run.code == 0, "it typed into the caller's terminal", &run)
}

fn shared_keyring(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    bundle.probe().args(&["/bin/probe", "keyring"]);
    let own = sys::session_keyring().expect("the kernel has keyrings");
    let run = arena.run(&bundle);
    let shared = run.code == 0 && run.stdout.trim() == own;
    unless(shared, "it has the session keyring of its caller", &run)
}

fn given_away(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let file = arena.canary.join("secret");
    let mut bundle = arena.bundle();
    bundle
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .args(&["/bin/true"]);
    let input = File::open(&file).expect("it is there");
    let path = bundle.save();
    let run = arena
        .runtime
        .call(&["create", "--bundle", &path.to_string_lossy(), bundle.id()])
        .stdin(input)
        .run();
    let owner = fs::metadata(&file).expect("it is there").uid();
    match owner {
        0 => ended(&run),
        _ => Outcome::Bitten("the file of the host belongs to the container's user".into()),
    }
}
