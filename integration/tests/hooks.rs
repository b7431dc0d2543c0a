//! The six kinds of hooks: namespaces, order, state on stdin, time limit, what failure does.
//!
//! Source: runtime-spec config.md "POSIX-platform Hooks" and runtime.md "Lifecycle".

use std::fs;
use std::path::{Path, PathBuf};

use integration::{Bundle, Runtime, proc, wait_for};
use serde_json::{Value, json};

/// Adds a hook that runs a shell script of the host (or, for startContainer, of the container).
fn hook(bundle: &mut Bundle, kind: &str, script: &str) {
    let hook =
        json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] });
    bundle.push(&format!("/hooks/{kind}"), hook);
}

/// A host file that hooks of the host write to.
fn record(runtime: &Runtime) -> PathBuf {
    runtime.dir().join("record")
}

/// Makes the scratch directory visible in the container, so that every hook can write there.
fn share_scratch(runtime: &Runtime, bundle: &mut Bundle) {
    let dir = runtime.dir().to_string_lossy().into_owned();
    bundle.bind(Path::new(&dir), &dir, "bind");
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

#[test]
fn hooks_run_in_the_order_of_the_life_and_of_the_list() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let file = record(&runtime);
    share_scratch(&runtime, &mut bundle);
    for kind in KINDS {
        for number in [1, 2] {
            hook(
                &mut bundle,
                kind,
                &format!("echo {kind}{number} >> {}", file.display()),
            );
        }
    }
    bundle.sh(&format!(
        "echo program >> {}; sleep 1000000",
        file.display()
    ));
    let container = runtime.create(&bundle);
    let created = read(&file);
    let want =
        "prestart1 prestart2 createRuntime1 createRuntime2 createContainer1 createContainer2";
    let early = created
        .split_whitespace()
        .take(6)
        .collect::<Vec<_>>()
        .join(" ");
    assert_eq!(early, want);
    if !runtime.differs("up to 1.5.1 it runs poststart in create") {
        assert_eq!(created.split_whitespace().count(), 6, "{created}");
    }
    container.start();
    wait_for("the program", || read(&file).contains("program"));
    let order: Vec<String> = read(&file).split_whitespace().map(String::from).collect();
    let at = |name: &str| {
        order
            .iter()
            .position(|it| it == name)
            .unwrap_or_else(|| panic!("{name}: {order:?}"))
    };
    assert!(at("createContainer2") < at("startContainer1"));
    assert!(at("startContainer1") < at("startContainer2"));
    assert!(at("startContainer2") < at("program"));
    assert!(at("poststart1") < at("poststart2"));
    assert!(!order.contains(&"poststop1".to_string()));
    container.finish();
    assert!(
        read(&file).ends_with("poststop1\npoststop2\n"),
        "{}",
        read(&file)
    );
}

#[test]
fn the_state_is_on_stdin_with_the_right_status() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    share_scratch(&runtime, &mut bundle);
    let dir = runtime.dir().display().to_string();
    for kind in KINDS {
        hook(&mut bundle, kind, &format!("cat > {dir}/{kind}"));
    }
    bundle.sleeper().set("/annotations", json!({ "a": "b" }));
    let container = runtime.start(&bundle);
    let pid = container.pid();
    let state = |kind: &str| -> Value {
        let text = read(&runtime.dir().join(kind));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{kind}: {error}: {text:?}"))
    };
    wait_for("poststart", || {
        serde_json::from_str::<Value>(&read(&runtime.dir().join("poststart"))).is_ok()
    });
    container.finish();
    let mut table = vec![
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("startContainer", "created"),
        ("poststop", "stopped"),
    ];
    if !runtime.differs("1.1.5 runs poststart in create, with the status created") {
        table.push(("poststart", "running"));
    }
    for (kind, status) in table {
        let state = state(kind);
        assert_eq!(state["status"], status, "{kind}: {state}");
        assert_eq!(state["id"], bundle.id(), "{kind}");
        assert_eq!(
            state["bundle"],
            bundle.path().to_str().expect("UTF-8"),
            "{kind}"
        );
        assert_eq!(state["annotations"], json!({ "a": "b" }), "{kind}");
        assert!(state["ociVersion"].is_string(), "{kind}: {state}");
    }
    for kind in ["prestart", "createRuntime", "poststart"] {
        assert_eq!(state(kind)["pid"], pid, "{kind}");
    }
    let stopped = &state("poststop")["pid"];
    assert!(
        stopped.is_null() || *stopped == 0,
        "poststop: pid {stopped}"
    );
}

#[test]
fn hooks_run_in_the_namespaces_that_the_spec_names() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    share_scratch(&runtime, &mut bundle);
    let dir = runtime.dir().display().to_string();
    for kind in KINDS {
        hook(
            &mut bundle,
            kind,
            &format!("for n in mnt uts net; do readlink /proc/self/ns/$n; done > {dir}/{kind}"),
        );
    }
    bundle.sleeper();
    let container = runtime.start(&bundle);
    let file = |kind: &str| read(&runtime.dir().join(kind));
    wait_for("poststart", || file("poststart").lines().count() == 3);
    let names = ["mnt", "uts", "net"];
    let inside = names
        .map(|name| proc::namespace(container.pid(), name))
        .join("\n")
        + "\n";
    let outside = names.map(proc::own_namespace).join("\n") + "\n";
    container.finish();
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        assert_eq!(file(kind), outside, "{kind}");
    }
    for kind in ["createContainer", "startContainer"] {
        assert_eq!(file(kind), inside, "{kind}");
    }
}

#[test]
fn create_container_hooks_see_the_hosts_files_and_start_container_hooks_the_containers() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    share_scratch(&runtime, &mut bundle);
    bundle.file("inside-only", "", 0o644);
    let file = record(&runtime);
    let see = format!(
        "test -e /inside-only && echo inside >> {0} || echo outside >> {0}",
        file.display()
    );
    hook(&mut bundle, "createContainer", &see);
    hook(&mut bundle, "startContainer", &see);
    let _ = runtime.run(&bundle).succeeds();
    assert_eq!(read(&file), "outside\ninside\n");
}

#[test]
fn arguments_and_environment_of_a_hook_are_as_given() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let file = record(&runtime);
    let script = format!("echo $0 $1 $A > {}", file.display());
    bundle.push(
        "/hooks/createRuntime",
        json!({
            "path": "/bin/sh", "args": ["sh", "-c", script, "zero", "one"], "env": ["A=value"],
        }),
    );
    let _ = runtime
        .call_run(&bundle)
        .env("A", "of-the-runtime")
        .run()
        .succeeds();
    assert_eq!(read(&file), "zero one value\n");
}

#[test]
fn a_failing_hook_before_start_fails_create_and_leaves_nothing() {
    let runtime = Runtime::new();
    let named = !runtime.differs("1.1.5 does not say of which kind the hook was");
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = runtime.bundle();
        hook(&mut bundle, kind, "echo reason >&2; exit 3");
        let marker = runtime.dir().join("poststop-ran");
        hook(
            &mut bundle,
            "poststop",
            &format!("touch {}", marker.display()),
        );
        let path = bundle.save().to_str().expect("UTF-8");
        let run = runtime
            .call(&["create", "--bundle", path, bundle.id()])
            .run()
            .exits(1);
        assert!(
            run.stderr.contains(&if named {
                format!("{kind} hook #0")
            } else {
                "hook #0".into()
            }),
            "{kind}: {}",
            run.stderr
        );
        assert!(
            run.stderr.contains("exit status 3"),
            "{kind}: {}",
            run.stderr
        );
        assert!(
            run.stderr.contains("reason"),
            "{kind} hides what the hook says: {}",
            run.stderr
        );
        let _ = runtime
            .call(&["state", bundle.id()])
            .run()
            .fails_with("does not exist");
        runtime.assert_clean(kind);
        let _ = fs::remove_file(marker);
    }
}

#[test]
fn a_failing_start_container_hook_fails_start_and_stops_the_container() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    hook(&mut bundle, "startContainer", "exit 4");
    bundle.sh("echo ran");
    let container = runtime.create(&bundle);
    let run = container.call(&["start"]).run();
    if !runtime.differs("its start does not learn of it") {
        let run = run.exits(1);
        assert!(
            run.stderr.contains("startContainer hook #0"),
            "{}",
            run.stderr
        );
    }
    assert_ne!(container.wait(), 0);
    assert_eq!(container.stdout(), "", "the program ran");
}

#[test]
fn a_failing_poststart_hook_stops_the_container() {
    let runtime = Runtime::new();
    if runtime.differs("up to 1.5.1 it runs poststart in create") {
        return;
    }
    let mut bundle = runtime.bundle();
    hook(&mut bundle, "poststart", "exit 5");
    let marker = record(&runtime);
    hook(
        &mut bundle,
        "poststop",
        &format!("touch {}", marker.display()),
    );
    bundle.sleeper();
    let container = runtime.create(&bundle);
    let run = container.call(&["start"]).run().exits(1);
    assert!(run.stderr.contains("poststart hook #0"), "{}", run.stderr);
    container.wait();
    let _ = container.call(&["delete", "--force"]).run().succeeds();
    assert!(marker.exists(), "poststop did not run");
}

#[test]
fn a_failing_poststop_hook_does_not_keep_the_container() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let marker = record(&runtime);
    hook(&mut bundle, "poststop", "exit 6");
    hook(
        &mut bundle,
        "poststop",
        &format!("touch {}", marker.display()),
    );
    let container = runtime.start(&bundle);
    container.wait();
    let run = container.delete();
    if !runtime
        .differs("it fails delete, where the spec asks for a warning, and leaves the second out")
    {
        let _ = run.succeeds();
        assert!(marker.exists(), "the second poststop hook did not run");
    }
    let _ = container
        .call(&["state"])
        .run()
        .fails_with("does not exist");
}

#[test]
fn a_hook_beyond_its_timeout_is_killed_and_create_fails() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.push(
        "/hooks/createRuntime",
        json!({
            "path": "/bin/sh", "args": ["sh", "-c", "exec sleep 1000004"], "timeout": 1,
        }),
    );
    let path = bundle.save().to_str().expect("UTF-8");
    let run = runtime
        .call(&["create", "--bundle", path, bundle.id()])
        .run();
    let _ = run.fails_with("hook ran past specified timeout of 1");
    let left = fs::read_dir("/proc")
        .expect("mounted")
        .flatten()
        .any(|entry| {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            command == b"sleep\x001000004\x00"
        });
    assert!(!left, "the hook lives on");
}

#[test]
fn a_hook_that_is_missing_fails_create() {
    let runtime = Runtime::new();
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = runtime.bundle();
        bundle.push(
            &format!("/hooks/{kind}"),
            json!({ "path": "/no/such/hook" }),
        );
        let path = bundle.save().to_str().expect("UTF-8");
        let run = runtime
            .call(&["create", "--bundle", path, bundle.id()])
            .run()
            .exits(1);
        assert!(
            run.stderr.contains("/no/such/hook"),
            "{kind}: {}",
            run.stderr
        );
        runtime.assert_clean(kind);
    }
}

#[test]
fn a_hook_that_reads_no_stdin_does_not_hurt() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    // More state than a pipe holds.
    bundle.set("/annotations/big", "x".repeat(200_000));
    bundle.push("/hooks/createRuntime", json!({ "path": "/bin/true" }));
    let run = runtime.run(&bundle);
    if run.code != 0 && runtime.differs("it fails with a broken pipe") {
        return;
    }
    let _ = run.succeeds();
}

#[test]
fn hooks_find_the_containers_first_process_in_its_namespaces() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let file = record(&runtime);
    // What CNI plugins do: enter the network namespace of the pid on stdin.
    let pid = "$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/')";
    hook(
        &mut bundle,
        "createRuntime",
        &format!("readlink /proc/{pid}/ns/net > {}", file.display()),
    );
    bundle.sleeper();
    let container = runtime.create(&bundle);
    assert_eq!(
        read(&file).trim_end(),
        proc::namespace(container.pid(), "net")
    );
}

#[test]
fn a_hook_may_set_up_the_network_before_the_program_starts() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let pid = "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/')";
    let script = format!(
        "{pid}; nsenter -t $pid -n ip link set lo name renamed 2>&1 || nsenter -t $pid -n sysctl -w net.ipv4.ip_forward=1"
    );
    hook(&mut bundle, "createRuntime", &script);
    let out = runtime.sh(
        &mut bundle,
        "ls /sys/class/net; cat /proc/sys/net/ipv4/ip_forward",
    );
    assert!(out.contains("renamed") || out.ends_with("1\n"), "{out}");
}

#[test]
fn a_killed_create_with_hooks_in_flight_can_be_deleted() {
    let runtime = Runtime::new();
    if runtime.differs("it saves the state after the hooks") {
        return;
    }
    for kind in ["createRuntime", "createContainer"] {
        let mut bundle = runtime.bundle();
        let file = runtime.dir().join(format!("{kind}-began"));
        hook(
            &mut bundle,
            kind,
            &format!("touch {}; exec sleep 1000005", file.display()),
        );
        let path = bundle.save().to_str().expect("UTF-8");
        let running = runtime
            .call(&["create", "--bundle", path, bundle.id()])
            .spawn();
        wait_for("the hook to begin", || file.exists());
        running.signal(nix::sys::signal::Signal::SIGKILL);
        let _ = running.wait().exits(-9);
        kill_left_hooks();
        let _ = runtime
            .call(&["delete", "--force", bundle.id()])
            .run()
            .succeeds();
        reap_orphans();
        runtime.assert_clean(kind);
    }
}

/// Hooks of a killed runtime are the caller's to end: they come to the test, a subreaper.
fn kill_left_hooks() {
    for entry in fs::read_dir("/proc").expect("mounted").flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let pid = entry.file_name().to_string_lossy().parse::<i32>();
        // It may still be the shell that is to execute sleep.
        let is_hook = command.windows(7).any(|word| word == b"1000005");
        if let (Ok(pid), true) = (pid, is_hook) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Reaps children that have ended, except those that another test's thread waits for: the test
/// binary waits by pid, so only orphans of killed runtimes are left to be found by command name.
fn reap_orphans() {
    wait_for("the hook to be reaped", || {
        fs::read_dir("/proc")
            .expect("mounted")
            .flatten()
            .all(|entry| {
                let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                command != b"sleep\x001000005\x00"
            })
    });
}

#[test]
fn a_start_container_hook_has_the_programs_environment_and_seccomp_profile() {
    let runtime = Runtime::new();
    if runtime.differs("Debian's runc gives it the runtime's environment") {
        return;
    }
    let mut bundle = runtime.bundle();
    let script = r#"test "$ONE" = two && test -n "$HOME""#;
    let plain = json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
    bundle.env("ONE=two").push("/hooks/startContainer", plain);
    let _ = runtime.run(&bundle).succeeds();

    let mut bundle = runtime.bundle();
    let rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL" });
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
    bundle.set("/linux/seccomp", profile);
    hook(&mut bundle, "startContainer", "exec mkdir /tmp/made");
    let words = "error running startContainer hook #0: signal: bad system call";
    let _ = runtime.run(&bundle).fails_with(words);
    assert!(!bundle.rootfs().join("tmp/made").exists());
}
