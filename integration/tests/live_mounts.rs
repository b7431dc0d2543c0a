//! `mounts add` and `mounts remove`: mounts of a container that runs.

use std::fs;
use std::path::Path;

use integration::{Container, Run, Runtime, proc};
use serde_json::{Value, json};

/// `mounts ACTION ID FILE` with these mounts in the file.
fn change(runtime: &Runtime, container: &Container, action: &str, mounts: &Value) -> Run {
    let file = runtime.dir().join(format!("{}.json", container.id()));
    fs::write(&file, mounts.to_string()).expect("the scratch directory is writable");
    let file = file.to_string_lossy();
    runtime
        .call(&["mounts", action, container.id(), &file])
        .run()
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": options })
}

fn tmpfs(destination: &str) -> Value {
    json!({ "destination": destination, "type": "tmpfs", "source": "live" })
}

fn exec(runtime: &Runtime, container: &Container, script: &str) -> Run {
    runtime
        .call(&["exec", container.id(), "sh", "-c", script])
        .run()
}

/// The targets of the container's mounts.
fn targets(container: &Container) -> Vec<String> {
    let mounts = proc::mounts(container.pid());
    mounts.into_iter().map(|mount| mount.target).collect()
}

/// Only keel has the command.
fn runtime() -> Option<Runtime> {
    let runtime = Runtime::new();
    (!runtime.differs("it has no mounts command; crun has")).then_some(runtime)
}

#[test]
fn mounts_come_and_go_while_the_container_runs() {
    let Some(runtime) = runtime() else { return };
    let bundle_source = runtime.dir().join("data");
    fs::create_dir(&bundle_source).expect("the scratch directory is writable");
    fs::write(bundle_source.join("file"), "hello\n").expect("it is writable");
    let mut bundle = runtime.bundle();
    let container = runtime.start(bundle.sleeper());
    let before = targets(&container);
    let list = json!([
        bind(&bundle_source, "/mnt/new/data", &["rbind", "ro"]),
        bind(&bundle_source.join("file"), "/tmp/one", &["bind"]),
        tmpfs("/mnt/tmp"),
    ]);
    let run = change(&runtime, &container, "add", &list).succeeds();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    let script = "cat /mnt/new/data/file /tmp/one; echo x > /mnt/tmp/x && cat /mnt/tmp/x
        echo y > /mnt/new/data/y";
    let run = exec(&runtime, &container, script);
    assert_eq!(run.stdout, "hello\nhello\nx\n");
    assert!(run.stderr.contains("Read-only file system"), "{run:?}");
    // An object with the array is taken, too, and a busy mount goes all the same.
    let busy = exec(
        &runtime,
        &container,
        "cd /mnt/tmp; sleep 9 >/dev/null 2>&1 &",
    );
    let _ = busy.succeeds();
    let _ = change(&runtime, &container, "remove", &json!({ "mounts": list })).succeeds();
    assert_eq!(targets(&container), before);
    assert_eq!(fs::read_dir(&bundle_source).expect("it stays").count(), 1);
}

#[test]
fn a_mount_that_fails_takes_those_before_it_with_it() {
    let Some(runtime) = runtime() else { return };
    let mut bundle = runtime.bundle();
    let container = runtime.start(bundle.sleeper());
    let before = targets(&container);
    let bad = json!({ "destination": "/mnt/b", "type": "tmpfs", "options": ["size=many"] });
    let list = json!([
        tmpfs("/mnt/a"),
        bind(Path::new("/etc/hostname"), "/mnt/h", &[]),
        bad
    ]);
    let _ = change(&runtime, &container, "add", &list).fails_with("mount 3 of 3 (tmpfs on /mnt/b)");
    assert_eq!(targets(&container), before);
    let list = json!([tmpfs("/mnt/a"), bind(Path::new("/nowhere"), "/mnt/h", &[])]);
    let _ = change(&runtime, &container, "add", &list).fails_with("no such file or directory");
    assert_eq!(targets(&container), before);
}

#[test]
fn links_of_the_container_lead_nowhere_outside_and_to_no_confinement() {
    let Some(runtime) = runtime() else { return };
    let outside = runtime.dir().join("outside");
    fs::create_dir(&outside).expect("the scratch directory is writable");
    let mut bundle = runtime.bundle();
    bundle.set("/linux/readonlyPaths", json!(["/proc/sys"]));
    let container = runtime.start(bundle.sleeper());
    let up = "../".repeat(20);
    let script = format!(
        "ln -s {up}{} /out; ln -s /proc/sys /sys-link; ln -s /proc /proc-link; mkdir /mnt/real
        ln -s /mnt/real /mnt/link",
        outside.display()
    );
    let _ = exec(&runtime, &container, &script).succeeds();
    // Followed, but inside the container's root.
    let _ = change(&runtime, &container, "add", &json!([tmpfs("/out")])).succeeds();
    let last = targets(&container).pop().expect("there are mounts");
    assert_eq!(Path::new(&last), outside);
    let _ = change(&runtime, &container, "add", &json!([tmpfs("/mnt/link")])).succeeds();
    let last = targets(&container).pop().expect("there are mounts");
    assert_eq!(last, "/mnt/real");
    let host = proc::parse_mountinfo(&fs::read_to_string("/proc/thread-self/mountinfo").unwrap());
    assert!(
        !host.iter().any(|mount| mount.source == "live"),
        "nothing on the host"
    );
    for place in ["/proc/sys", "/sys-link", "/proc-link/1"] {
        let run = change(&runtime, &container, "add", &json!([tmpfs(place)]));
        let _ = run.fails_with("");
    }
    // Removing does not follow links, and leaves alone what the runtime has put in the way.
    let gone = |place: &str| change(&runtime, &container, "remove", &json!([tmpfs(place)]));
    let _ = gone("/sys-link").fails_with("symbolic link");
    let _ = gone("/proc-link/sys").fails_with("symbolic link");
    let _ = gone("/proc/sys").fails_with("confines the container");
    let _ = gone("/mnt").fails_with("is no mount point");
    let _ = gone("/").fails_with("confines the container");
    let run = exec(
        &runtime,
        &container,
        "echo 1 > /proc/sys/kernel/ns_last_pid",
    );
    assert!(run.stderr.contains("Read-only file system"), "{run:?}");
    let _ = gone("/mnt/real").succeeds();
}

#[test]
fn a_container_with_ids_of_its_own_gets_mounts_with_its_ids() {
    let Some(runtime) = runtime() else { return };
    let source = runtime.dir().join("data");
    fs::create_dir(&source).expect("the scratch directory is writable");
    let mut bundle = runtime.bundle();
    bundle.user_namespace(100_000, 1000).sleeper();
    std::os::unix::fs::chown(bundle.rootfs().join("mnt"), Some(100_000), Some(100_000))
        .expect("tests run as root");
    let container = runtime.start(&bundle);
    let list = json!([
        bind(&source, "/mnt/plain", &["bind"]),
        bind(&source, "/mnt/mapped", &["bind", "idmap"]),
        tmpfs("/mnt/tmp"),
    ]);
    let _ = change(&runtime, &container, "add", &list).succeeds();
    let script = "stat -c %u /mnt/plain /mnt/mapped /mnt/tmp; echo x > /mnt/mapped/x";
    let run = exec(&runtime, &container, script).succeeds();
    assert_eq!(run.stdout, "65534\n0\n0\n");
    use std::os::unix::fs::MetadataExt;
    let made = fs::metadata(source.join("x")).expect("the container made it");
    assert_eq!(
        made.uid(),
        0,
        "root of the container owns it as root of the host"
    );
    let _ = change(&runtime, &container, "remove", &list).succeeds();
}

#[test]
fn a_container_has_mounts_changed_in_every_status_but_stopped() {
    let Some(runtime) = runtime() else { return };
    let mut bundle = runtime.bundle();
    let container = runtime.create(bundle.sleeper());
    let _ = change(&runtime, &container, "add", &json!([tmpfs("/mnt/a")])).succeeds();
    container.start();
    let _ = container.call(&["pause"]).run().succeeds();
    let _ = change(&runtime, &container, "add", &json!([tmpfs("/mnt/b")])).succeeds();
    let _ = container.call(&["resume"]).run().succeeds();
    assert!(targets(&container).contains(&"/mnt/b".to_string()));
    let _ = container.kill("KILL").succeeds();
    assert_eq!(container.wait(), 128 + 9);
    let run = change(&runtime, &container, "remove", &json!([tmpfs("/mnt/a")]));
    let _ = run.fails_with("container not running");
}

#[test]
fn bad_files_are_refused_in_one_line_that_names_them() {
    let Some(runtime) = runtime() else { return };
    let mut bundle = runtime.bundle();
    let container = runtime.start(bundle.sleeper());
    let cases = [
        (json!(7), "an array of mounts is needed"),
        (json!([]), "an array of mounts is needed"),
        (json!([{ "type": "tmpfs" }]), ".mounts[0]"),
        (
            json!([{ "destination": "a", "type": "nosuchfs" }]),
            "no such device",
        ),
        (
            json!([{ "destination": "/a", "type": "bind" }]),
            ".mounts[0].source",
        ),
        (
            json!([{ "destination": "/a", "type": "tmpfs", "options": ["idmap"] }]),
            ".mounts[0]",
        ),
        (
            json!([bind(Path::new("/etc"), "/proc/1", &[])]),
            ".mounts[0]",
        ),
    ];
    for (mounts, words) in cases {
        let run = change(&runtime, &container, "add", &mounts).fails_with(words);
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        assert!(
            !words.starts_with('.') || run.stderr.contains(container.id()),
            "{run:?}"
        );
    }
    let _ = runtime
        .call(&["mounts", "add", container.id(), "/nowhere"])
        .run()
        .fails_with("/nowhere");
    let _ = runtime
        .call(&["mounts", "add", "nobody", "/nowhere"])
        .run()
        .fails_with("does not exist");
}
