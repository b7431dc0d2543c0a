//! `checkpoint` and `restore` through CRIU. They need a kernel that the installed CRIU works on; in
//! the test guest Debian's do.

use std::fs::{self, File};
use std::process::Command;
use std::sync::OnceLock;

use integration::{Bundle, Container, Run, Runtime, proc, wait_for};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde_json::json;

mod flags;

/// A runtime, if CRIU can be used here: it finds its way in the kernel, whatever it then lacks.
fn runtime() -> Option<Runtime> {
    static WORKS: OnceLock<bool> = OnceLock::new();
    // Before the test has a network namespace of its own, in which CRIU's first look at the kernel,
    // which it keeps, would find no loopback interface.
    let works = WORKS.get_or_init(|| {
        let check = Command::new("criu")
            .args(["check", "--feature", "mem_dirty_track"])
            .output();
        let said =
            |output: std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
        check.is_ok_and(|output| !said(output).contains("kerndat"))
    });
    let runtime = Runtime::new();
    (!runtime.host_lacks("a kernel that its CRIU works on", !works)).then_some(runtime)
}

/// A container that counts in a file, with a bind mount and a hidden path.
fn counter(runtime: &Runtime) -> Bundle {
    let mut bundle = runtime.bundle();
    let data = runtime.dir().join("data");
    fs::create_dir_all(&data).expect("the scratch directory is writable");
    bundle.bind(&data, "/mnt/data", "bind,rw");
    bundle.set("/linux/maskedPaths", json!(["/proc/kcore", "/proc/scsi"]));
    bundle.set("/linux/readonlyPaths", json!(["/proc/sys"]));
    bundle.set("/hostname", "counting");
    bundle.sh("i=0; while true; do i=$((i+1)); echo $i > /mnt/data/n; sleep 0.1; done");
    bundle
}

fn count(runtime: &Runtime) -> u64 {
    let text = fs::read_to_string(runtime.dir().join("data/n")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// A container whose streams are no files of the host, which CRIU could not find again.
fn start<'r>(runtime: &'r Runtime, bundle: &Bundle) -> Container<'r> {
    let null = || {
        let file = File::options().write(true).open("/dev/null");
        file.expect("it is there")
    };
    let container = Container::create_with(runtime, bundle, |call| {
        call.stdin(File::open("/dev/null").expect("it is there"))
            .stdout(null())
            .stderr(null())
    });
    container.start();
    container
}

/// Waits until the container has counted further.
fn wait_for_progress(runtime: &Runtime) -> u64 {
    let before = count(runtime);
    wait_for("the container to count", || count(runtime) > before);
    count(runtime)
}

fn images(runtime: &Runtime, name: &str) -> String {
    runtime.dir().join(name).to_string_lossy().into_owned()
}

fn checkpoint(runtime: &Runtime, container: &Container, flags: &[&str]) -> Run {
    let mut words = vec!["checkpoint"];
    words.extend_from_slice(flags);
    words.push(container.id());
    runtime.call(&words).run()
}

#[test]
fn a_container_goes_on_where_it_was_saved() {
    let Some(runtime) = runtime() else { return };
    let bundle = counter(&runtime);
    let container = start(&runtime, &bundle);
    wait_for_progress(&runtime);
    let path = images(&runtime, "images");
    let _ = checkpoint(&runtime, &container, &["--image-path", &path]).succeeds();
    assert_eq!(container.wait(), 128 + 9);
    let list = runtime.call(&["list", "--quiet"]).run().succeeds();
    assert_eq!(
        list.stdout, "",
        "a checkpoint ends and deletes the container"
    );
    let saved = count(&runtime);

    let pid_file = runtime.dir().join("pid");
    let (bundle_path, pid_path) = (bundle.path().to_string_lossy(), pid_file.to_string_lossy());
    let id = container.id();
    let line = [
        "restore",
        "--detach",
        "--image-path",
        &path,
        "--bundle",
        &bundle_path,
    ];
    let line = [&line[..], &["--pid-file", &pid_path, id]].concat();
    let run = runtime.call(&line).run().succeeds();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    let pid: i32 = fs::read_to_string(&pid_file)
        .expect("it is written")
        .parse()
        .expect("a pid");
    assert!(wait_for_progress(&runtime) > saved);
    assert_eq!(container.status(), "running");
    let exec = |script: &str| runtime.call(&["exec", id, "sh", "-c", script]).run();
    assert_eq!(exec("hostname").succeeds().stdout, "counting\n");
    let run = exec("echo 1 > /proc/sys/kernel/ns_last_pid; wc -c < /proc/kcore");
    assert!(run.stderr.contains("Read-only file system"), "{run:?}");
    assert_eq!(run.stdout, "0\n", "a masked path is empty");
    assert_eq!(
        exec("ip addr show lo | grep -c 127.0.0.1")
            .succeeds()
            .stdout,
        "1\n"
    );
    let run = runtime
        .call(&[
            "restore",
            "--image-path",
            &path,
            "--bundle",
            &bundle_path,
            id,
        ])
        .run();
    let _ = run.fails_with("container with given ID already exists");
    let _ = container.kill("KILL").succeeds();
    wait_for("its end", || !proc::is_alive(pid));
    // The test is the subreaper, whose child it has become.
    let _ = waitpid(Pid::from_raw(pid), None);
    let _ = container.delete().succeeds();
}

#[test]
fn a_container_can_be_saved_and_run_on_and_its_memory_before() {
    let Some(runtime) = runtime() else { return };
    let container = start(&runtime, &counter(&runtime));
    wait_for_progress(&runtime);
    let (first, second) = (images(&runtime, "first"), images(&runtime, "second"));
    let flags = ["--pre-dump", "--image-path", &first];
    let run = checkpoint(&runtime, &container, &flags);
    // Not every kernel tracks which pages are written to.
    let tracks = !run.stderr.contains("--pre-dump: criu or the kernel lacks");
    if tracks {
        let _ = run.succeeds();
        wait_for_progress(&runtime);
    }
    let parent = ["--parent-path", "../first"];
    let parent = if tracks { &parent[..] } else { &[] };
    let flags = [&["--leave-running", "--image-path", &second], parent].concat();
    let work = images(&runtime, "work");
    let flags = [&flags[..], &["--work-path", &work, "--file-locks"]].concat();
    let _ = checkpoint(&runtime, &container, &flags).succeeds();
    wait_for_progress(&runtime);
    let log = fs::read_to_string(runtime.dir().join("work/dump.log"));
    assert!(
        log.expect("CRIU logs to the work directory")
            .contains("Dumping finished")
    );
    container.finish();
}

#[test]
fn a_restore_in_the_foreground_has_the_exit_code() {
    let Some(runtime) = runtime() else { return };
    let mut bundle = counter(&runtime);
    bundle.sh(
        "i=0; while ! test -e /mnt/data/end; do i=$((i+1)); echo $i > /mnt/data/n
        sleep 0.1; done; echo ended; exit 7",
    );
    let container = start(&runtime, &bundle);
    wait_for_progress(&runtime);
    let path = images(&runtime, "images");
    let _ = checkpoint(&runtime, &container, &["--image-path", &path]).succeeds();
    container.wait();
    let line = ["restore", "--image-path", &path, "--bundle"];
    let bundle_path = bundle.path().to_string_lossy();
    let running = runtime
        .call(&[&line[..], &[&bundle_path, container.id()]].concat())
        .spawn();
    wait_for_progress(&runtime);
    fs::write(runtime.dir().join("data/end"), "").expect("it is writable");
    assert_eq!(running.wait().code, 7);
    let list = runtime.call(&["list", "--quiet"]).run().succeeds();
    assert_eq!(list.stdout, "");
}

#[test]
fn a_failed_restore_leaves_nothing_and_the_root_file_system_alone() {
    let Some(runtime) = runtime() else { return };
    let bundle = counter(&runtime);
    let container = start(&runtime, &bundle);
    wait_for_progress(&runtime);
    let path = images(&runtime, "images");
    let _ = checkpoint(&runtime, &container, &["--image-path", &path]).succeeds();
    container.wait();
    for entry in fs::read_dir(&path).expect("it is there").flatten() {
        if entry.file_name().to_string_lossy().starts_with("pages") {
            fs::remove_file(entry.path()).expect("tests run as root");
        }
    }
    let bundle_path = bundle.path().to_string_lossy();
    let line = [
        "restore",
        "--detach",
        "--image-path",
        &path,
        "--bundle",
        &bundle_path,
    ];
    let run = runtime
        .call(&[&line[..], &[container.id()]].concat())
        .log_json()
        .run();
    let run = run.fails_with("criu failed");
    assert_eq!(run.log[0]["code"], "criu-failed");
    assert!(run.stderr.contains("restore.log"), "{run:?}");
    assert!(bundle.rootfs().join("bin/busybox").exists());
    assert!(
        fs::read_dir(runtime.root())
            .expect("it is there")
            .next()
            .is_none()
    );
}

/// These need no CRIU that works.
#[test]
fn a_checkpoint_that_cannot_be_is_refused_before_criu_is_asked() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let container = runtime.create(bundle.sleeper());
    let path = images(&runtime, "images");
    let run = |flags: &[&str]| {
        let flags = [&["--image-path", &path], flags].concat();
        checkpoint(&runtime, &container, &flags)
    };
    let _ = run(&[]).fails_with("Container cannot be checkpointed in created state");
    container.start();
    let _ = run(&["--parent-path", "/abs"]).fails_with("must be relative");
    let _ = run(&["--parent-path", "none"]).fails_with("invalid --parent-path");
    let _ = run(&["--manage-cgroups-mode", "odd"]).fails_with("manage-cgroups-mode");
    let _ = run(&["--page-server", "host"]).fails_with("ADDRESS:PORT");
    let _ = run(&["--empty-ns", "pid"]).fails_with("namespace \"pid\" is not supported");
    container.finish();
    let (none, path) = (images(&runtime, "nowhere"), bundle.save().to_string_lossy());
    let line = [
        "restore",
        "--image-path",
        &none,
        "--bundle",
        &path,
        bundle.id(),
    ];
    let _ = runtime.call(&line).run().fails_with("nowhere");
    let help = runtime.call(&["checkpoint", "--help"]).run().succeeds();
    assert!(help.stdout.contains("--image-path"), "{help:?}");
    let run = runtime.call(&["restore", "--lsm-mount-context"]).run();
    let said = format!("{}{}", run.stdout, run.stderr);
    assert!(said.contains("flag needs an argument") || said.contains("requires an argument"));
}
