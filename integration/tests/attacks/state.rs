//! G: state, hooks, signals.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Case, Control, Outcome, Victim, ended, unless};

pub const CASES: &[Case] = &[
    Case {
        id: "G1",
        seen: "CVE-2020-15257",
        what: "a container in the host's network looks for abstract sockets of the runtime",
        attack: abstract_sockets,
        control: Control::Undefended(abstract_socket_of_a_shim),
    },
    Case {
        id: "G2",
        seen: "CVE-2021-41103",
        what: "a user of the host reads what the runtime keeps of a container",
        attack: readable_state,
        control: Control::Naive,
    },
    Case {
        id: "G4",
        seen: "CVE-2014-9358",
        what: "a container's id is a path",
        attack: id_as_path,
        control: Control::Naive,
    },
    Case {
        id: "G6",
        seen: "CVE-2025-23266",
        what: "a hook is run with LD_PRELOAD of the image's environment",
        attack: hook_environment,
        control: Control::Naive,
    },
    Case {
        id: "G7",
        seen: "CVE-2017-5985, CVE-2022-47952",
        what: "a user of the host gets rights by executing the runtime's file",
        attack: setuid_file,
        control: Control::Undefended(setuid_copy),
    },
    Case {
        id: "G8",
        seen: "pid reuse",
        what: "a stopped container's pid belongs to a bystander when it is killed",
        attack: recycled_pid,
        control: Control::Naive,
    },
    Case {
        id: "G9",
        seen: "decoders that panic",
        what: "update, run and exec read JSON that nobody would write",
        attack: hostile_json,
        control: Control::Runc,
    },
];

fn abstract_sockets(victim: &Victim) -> Outcome {
    look_for_sockets(victim, || ())
}

/// What containerd's shim once listened on.
fn abstract_socket_of_a_shim(victim: &Victim) -> Outcome {
    look_for_sockets(victim, || {
        let address = SocketAddr::from_abstract_name("containerd-shim").expect("it is short");
        UnixListener::bind_addr(&address).expect("the network namespace is the test's own")
    })
}

/// The arena has a network namespace of its own, which stands for the host's: nobody else is in it.
fn look_for_sockets<T>(victim: &Victim, open: impl FnOnce() -> T) -> Outcome {
    let arena = victim.arena();
    let shim = open();
    let mut bundle = arena.bundle();
    bundle.share("network").sleeper();
    let _container = arena.runtime.start(&bundle);
    let exec = arena
        .runtime
        .call(&["exec", bundle.id(), "/bin/cat", "/proc/net/unix"])
        .run();
    drop(shim);
    let lines = exec.stdout.lines();
    let mut names = lines.filter_map(|line| line.split_whitespace().nth(7));
    match names.find(|name| name.starts_with('@')) {
        Some(name) => Outcome::Bitten(format!("{name} is open to it")),
        None => ended(&exec),
    }
}

fn readable_state(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    bundle.sleeper();
    let container = arena.runtime.start(&bundle);
    let root = arena.runtime.root();
    let look = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "find"])
        .arg(&root)
        .args(["-type", "f", "-readable"])
        .output()
        .expect("setpriv and find are installed");
    let found = String::from_utf8_lossy(&look.stdout).into_owned();
    let run = container.kill("KILL");
    match found.lines().next() {
        Some(file) => {
            let name = file.rsplit('/').next().unwrap_or(file);
            Outcome::Bitten(format!("{name} can be read"))
        }
        None => ended(&run),
    }
}

fn id_as_path(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let bundle = arena.bundle();
    let path = bundle.save();
    let outside = arena.runtime.dir().join("outside");
    let mut last = None;
    for id in [
        "../outside",
        "a/../../outside",
        "/outside",
        "..",
        ".",
        "a/b",
        "a\n",
        "%2e%2e/outside",
    ] {
        let run = arena
            .runtime
            .call(&["run", "--bundle", &path.to_string_lossy(), id])
            .run();
        if outside.exists() || run.code == 0 {
            return Outcome::Bitten(format!("{id:?} is taken for a name"));
        }
        last = Some(ended(&run));
    }
    last.expect("there are ids")
}

fn hook_environment(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    let out = arena.runtime.dir().join("environment");
    let hook = arena.runtime.dir().join("hook");
    let script = format!("#!/bin/sh\nenv >{}\n", out.display());
    fs::write(&hook, script).expect("the scratch directory is writable");
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(&hook, mode).expect("we own it");
    bundle.env("LD_PRELOAD=/nowhere/x.so").set(
        "/hooks/createRuntime",
        json!([{ "path": hook.to_string_lossy() }]),
    );
    let run = arena.run(&bundle);
    let text = fs::read_to_string(&out).unwrap_or_default();
    unless(
        text.contains("x.so"),
        "the hook has the container's LD_PRELOAD",
        &run,
    )
}

fn setuid_file(victim: &Victim) -> Outcome {
    rights_of(victim, 0o755)
}

fn setuid_copy(victim: &Victim) -> Outcome {
    rights_of(victim, 0o4755)
}

/// What a user's process that executes the file may do, if it is installed with `mode`.
fn rights_of(victim: &Victim, mode: u32) -> Outcome {
    let dir = tempfile::tempdir().expect("the temporary directory is writable");
    let (arena, file) = victim.sacrifice(dir.path());
    for (path, mode) in [(dir.path(), 0o755), (&file, mode)] {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("we own it");
    }
    let bundle = arena.bundle();
    let user = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let run = arena.runtime.call_run(&bundle).through(&user).run();
    unless(run.code == 0, "a user starts a container as root", &run)
}

fn recycled_pid(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    bundle.sleeper();
    let container = arena.runtime.start(&bundle);
    // Start times are in ticks of 10 ms: a number is not given again within one.
    std::thread::sleep(Duration::from_millis(20));
    let mut bystander = Command::new("/bin/sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .expect("sleep is installed");
    // What a pid that was given again looks like: the record's number, another start time.
    let dir = arena.runtime.root().join(bundle.id());
    let (old, new) = (container.pid(), bystander.id());
    let mut saved = Vec::new();
    for entry in fs::read_dir(&dir)
        .expect("the container has a directory")
        .flatten()
    {
        let path = entry.path();
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let changed = match serde_json::from_str::<Value>(&text) {
            Ok(mut json) if json["init"]["pid"] == old => {
                json["init"]["pid"] = new.into();
                json.to_string()
            }
            Ok(_) if text.trim() == old.to_string() => new.to_string(),
            Ok(mut json) if json["init_process_pid"] == old => {
                json["init_process_pid"] = new.into();
                json.to_string()
            }
            _ => continue,
        };
        fs::write(&path, changed).expect("it is a file of ours");
        saved.push((path, text));
    }
    assert!(
        !saved.is_empty(),
        "no record of pid {old} in {}",
        dir.display()
    );
    let run = container.kill("KILL");
    std::thread::sleep(Duration::from_millis(100));
    let hit = bystander.try_wait().expect("it is our child").is_some();
    let _ = bystander.kill();
    let _ = bystander.wait();
    for (path, text) in saved {
        fs::write(&path, text).expect("it is a file of ours");
    }
    unless(hit, "the bystander is dead", &run)
}

/// Values of a type that nobody expects, in a place where there is usually an object.
const ODD: [&str; 6] = [
    "null",
    "[null]",
    "{\"\":null}",
    "1e400",
    "18446744073709551616",
    "\"\\ud800\"",
];

fn hostile_json(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    bundle.sleeper();
    let _container = arena.runtime.start(&bundle);
    let file = arena.runtime.dir().join("hostile.json");
    let name = file.to_string_lossy().into_owned();
    let second = arena.bundle();
    let config = second.save().join("config.json");
    let valid = fs::read_to_string(&config).expect("it was written just now");
    let deep = "[".repeat(200_000);
    let mut texts: Vec<String> = vec![deep, "{".into(), "\0".into(), valid[..900].into()];
    for odd in ODD {
        texts.push(odd.into());
        for field in [
            "memory", "cpu", "blockIO", "pids", "linux", "process", "root", "mounts",
        ] {
            texts.push(format!("{{\"ociVersion\":\"1.0.2\",\"{field}\":{odd}}}"));
        }
    }
    let mut last = None;
    for text in &texts {
        fs::write(&file, text).expect("the scratch directory is writable");
        fs::write(&config, text).expect("the scratch directory is writable");
        let path = second.path().to_string_lossy().into_owned();
        for words in [
            &["update", "--resources", &name, bundle.id()][..],
            &["run", "--bundle", &path, second.id()],
            &["exec", "--process", &name, bundle.id()],
        ] {
            let run = arena.runtime.call(words).run();
            if run.code < 0 || run.stderr.contains("panic") {
                let text: String = text.chars().take(60).collect();
                return Outcome::Bitten(format!("{} of {text} crashes", words[0]));
            }
            last = Some(ended(&run));
        }
    }
    last.expect("there are texts")
}
