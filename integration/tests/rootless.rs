//! A plain user's containers: user namespaces without any right on the host, and keel inside them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use integration::{Bundle, Runtime, SUBORDINATE, USER, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// Maps root of the container to the user, and the ids from 1 on to subordinate ones.
fn map_subordinate_ids(bundle: &mut Bundle) {
    let map = json!([
        { "containerID": 0, "hostID": USER, "size": 1 },
        { "containerID": 1, "hostID": SUBORDINATE, "size": 10_000 },
    ]);
    bundle.new_namespace("user");
    bundle.set("/linux/uidMappings", map.clone());
    bundle.set("/linux/gidMappings", map);
}

#[test]
fn a_user_without_subordinate_ids_has_a_container_of_one_id() {
    let runtime = Runtime::rootless();
    let mut bundle = runtime.bundle();
    bundle
        .user_namespace(USER, 1)
        .sh("touch /root/mine; id -u; id -g; exec sleep 1000000");
    let container = runtime.start(&bundle);
    container.wait_for_stdout("0\n0\n");
    let file = fs::metadata(bundle.rootfs().join("root/mine")).expect("the container made it");
    assert_eq!((file.uid(), file.gid()), (USER, USER));
    let status = fs::read_to_string(format!("/proc/{}/setgroups", container.pid()));
    assert_eq!(status.expect("the process runs").trim(), "deny");
    assert_eq!(container.status(), "running");
    let list = runtime.call(&["list"]).run().succeeds();
    assert!(list.stdout.contains(container.id()), "{list:?}");
    container.finish();
}

#[test]
fn subordinate_ids_are_mapped_and_groups_can_be_set() {
    let runtime = Runtime::rootless();
    if runtime.differs("runc refuses additional groups of a container made by a user") {
        return;
    }
    let mut bundle = runtime.bundle();
    map_subordinate_ids(&mut bundle);
    bundle.set(
        "/process/user",
        json!({ "uid": 5, "gid": 7, "additionalGids": [9, 11] }),
    );
    bundle.sh("id -u; id -G; exec sleep 1000000");
    let container = runtime.start(&bundle);
    container.wait_for_stdout("5\n7 9 11\n");
    let owner = fs::metadata(format!("/proc/{}", container.pid())).expect("the process runs");
    assert_eq!(owner.uid(), SUBORDINATE + 4);
    container.finish();
}

#[test]
fn ids_that_do_not_belong_to_the_user_are_refused_by_name() {
    let runtime = Runtime::rootless();
    let mut bundle = runtime.bundle();
    bundle.user_namespace(200_000, 1000);
    if runtime.differs("1.1 fails at a descriptor's owner instead of the maps") {
        return;
    }
    let run = runtime.run(&bundle).fails_with("newuidmap");
    assert!(run.stderr.contains("/etc/subuid"), "{run:?}");
    let mut bundle = runtime.bundle();
    bundle
        .user_namespace(USER, 1)
        .set("/process/user/additionalGids", json!([0, 4]));
    let why = ".process.user.additionalGids[1]: 4 is not in";
    let _ = runtime.run(&bundle).fails_with(why);
}

#[test]
fn exec_enters_a_users_container_as_any_of_its_ids() {
    let runtime = Runtime::rootless();
    let mut bundle = runtime.bundle();
    map_subordinate_ids(&mut bundle);
    let container = runtime.start(bundle.sleeper());
    let exec = |flags: &[&str], script: &str| {
        let mut words = vec!["exec"];
        words.extend_from_slice(flags);
        words.extend_from_slice(&[container.id(), "sh", "-c", script]);
        runtime.call(&words).run()
    };
    assert_eq!(exec(&[], "id -u").succeeds().stdout, "0\n");
    let as_user = exec(
        &["--user", "5:7"],
        "id -u; id -g; readlink /proc/self/ns/pid",
    );
    let wanted = format!(
        "5\n7\n{}\n",
        integration::proc::namespace(container.pid(), "pid")
    );
    assert_eq!(as_user.succeeds().stdout, wanted);
    assert_eq!(exec(&[], "exit 9").code, 9);
    if !runtime.differs("runc's message names no map") {
        let run = exec(&["--user", "20000"], "true").exits(255);
        assert!(run.stderr.contains("20000"), "{run:?}");
    }
    container.finish();
}

#[test]
fn state_of_a_user_lies_in_the_runtime_directory() {
    let runtime = Runtime::rootless();
    let home = runtime.dir().join("xdg");
    fs::create_dir(&home).expect("the scratch directory is writable");
    chown(&home, Some(USER), Some(USER)).expect("tests run as root");
    let mut bundle = runtime.bundle();
    bundle.user_namespace(USER, 1).sleeper();
    let path = bundle.save().to_string_lossy().into_owned();
    let call = |words: &[&str]| {
        let call = runtime.call(words).without_root();
        call.env("XDG_RUNTIME_DIR", &home).run().succeeds()
    };
    let _ = call(&["run", "--detach", "--bundle", &path, bundle.id()]);
    let root = fs::read_dir(&home).expect("it is there").flatten().next();
    let root = root
        .expect("the runtime has made its root directory")
        .metadata();
    let mode = root.expect("it is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o1700, "private, and exempt from cleaning");
    assert!(call(&["list"]).stdout.contains(bundle.id()));
    let _ = call(&["delete", "--force", bundle.id()]);
    assert!(!call(&["list"]).stdout.contains(bundle.id()));
}

#[test]
fn spec_rootless_is_ready_to_run() {
    let runtime = Runtime::rootless();
    let bundle = runtime.bundle();
    let _ = runtime
        .call(&["spec", "--rootless"])
        .cwd(bundle.path())
        .run()
        .succeeds();
    let file = bundle.path().join("config.json");
    let text = fs::read_to_string(&file).expect("spec has written it");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", "id -u; ls /sys/fs/cgroup | wc -l"]);
    fs::write(&file, config.to_string()).expect("tests run as root");
    let path = bundle.path().to_string_lossy();
    let run = runtime
        .call(&["run", "--bundle", &path, bundle.id()])
        .run()
        .succeeds();
    let (uid, hierarchies) = run.stdout.trim().split_once('\n').expect("two lines");
    assert_eq!(uid, "0");
    assert_ne!(
        hierarchies, "0",
        "the cgroup in which the container stays is shown"
    );
}

#[test]
fn a_limit_that_cannot_be_set_is_refused() {
    let runtime = Runtime::rootless();
    let mut bundle = runtime.bundle();
    bundle
        .user_namespace(USER, 1)
        .set("/linux/resources/memory/limit", 1 << 30);
    let _ = runtime.run(&bundle).fails_with("cgroup");
    runtime.assert_clean("a refused limit");
}

#[test]
fn everybody_in_a_container_without_a_cgroup_is_found() {
    let runtime = Runtime::rootless();
    if runtime.differs("runc finds nobody without a cgroup") {
        return;
    }
    let mut bundle = runtime.bundle();
    bundle.user_namespace(USER, 1).share("pid");
    // Without a pid namespace there is no procfs to mount either.
    bundle.set(
        "/mounts/0",
        json!({ "destination": "/proc", "type": "bind", "source": "/proc",
        "options": ["rbind"] }),
    );
    bundle.sh("sleep 1000000 & (sleep 1000000 &) ; exec sleep 1000000");
    let container = runtime.start(&bundle);
    let pids = || {
        let run = container.call(&["ps", "--format", "json"]).run().succeeds();
        let pids: Vec<i32> = serde_json::from_str(&run.stdout).unwrap_or_default();
        pids
    };
    wait_for("three processes", || pids().len() == 3);
    let before = pids();
    assert!(before.contains(&container.pid()));
    let _ = container.kill("KILL").succeeds();
    for pid in before {
        wait_for("the end of all", || !integration::proc::is_alive(pid));
    }
    assert_eq!(container.wait(), 128 + 9);
    let _ = container.delete().succeeds();
}

#[test]
fn keep_groups_leaves_the_callers_groups() {
    let mut runtime = Runtime::rootless();
    runtime.give_groups("60777");
    if runtime.differs("the annotation is crun's") {
        return;
    }
    let mut bundle = runtime.bundle();
    map_subordinate_ids(&mut bundle);
    bundle.args(&["grep", "Groups", "/proc/self/status"]);
    let groups = |bundle: &Bundle| runtime.run(bundle).succeeds().stdout;
    assert_eq!(groups(&bundle).trim(), "Groups:", "dropped");
    bundle.set(
        "/annotations",
        json!({ "run.oci.keep_original_groups": "1" }),
    );
    assert_eq!(
        groups(&bundle).trim(),
        "Groups:\t65534",
        "kept, but without a name"
    );
}

#[test]
fn a_joined_user_namespace_must_have_the_maps_that_config_json_says() {
    let runtime = Runtime::new();
    if runtime.differs("1.1 wants maps of a user namespace that is joined, and then refuses them") {
        return;
    }
    let mut bundle = runtime.bundle();
    bundle.user_namespace(100_000, 1000);
    let first = runtime.create(bundle.sleeper());
    let path = format!("/proc/{}/ns/user", first.pid());
    let joining = |start: Option<u32>| {
        let mut bundle = runtime.bundle();
        bundle.args(&["cat", "/proc/self/uid_map"]);
        if let Some(start) = start {
            bundle.user_namespace(start, 1000);
        }
        bundle.join("user", &path);
        // Not all of its root file system belongs to the namespace's root.
        bundle.set("/root/readonly", true);
        runtime.run(&bundle)
    };
    let map = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(map(&joining(None).succeeds().stdout), "0 100000 1000");
    assert_eq!(
        map(&joining(Some(100_000)).succeeds().stdout),
        "0 100000 1000"
    );
    let _ = joining(Some(100_001)).fails_with(".linux.uidMappings says otherwise");
    first.finish();
}

#[test]
fn the_runtimes_own_user_namespace_is_joined_by_staying() {
    let runtime = Runtime::new();
    if runtime.differs("runc reports that it cannot join it") {
        return;
    }
    let mut bundle = runtime.bundle();
    bundle
        .join("user", "/proc/self/ns/user")
        .args(&["id", "-u"]);
    assert_eq!(runtime.run(&bundle).succeeds().stdout, "0\n");
}

#[test]
fn root_of_a_user_namespace_needs_no_helper_and_comes_back_from_no_pid_namespace() {
    let mut runtime = Runtime::rootless();
    runtime.become_root_of_a_user_namespace();
    let mut bundle = runtime.bundle();
    bundle.set("/process/user/additionalGids", json!([3]));
    let first = runtime.start(bundle.sleeper());
    // The way back into the host's pid namespace is closed: exec, and joining by path.
    let run = runtime
        .call(&["exec", first.id(), "sh", "-c", "id -G; exit 9"])
        .run();
    assert_eq!((run.code, run.stdout.as_str()), (9, "0 3\n"), "{run:?}");
    let mut second = runtime.bundle();
    second.join("pid", &format!("/proc/{}/ns/pid", first.pid()));
    second.args(&["readlink", "/proc/self/ns/pid"]);
    let pid_namespace = integration::proc::namespace(first.pid(), "pid");
    assert_eq!(runtime.run(&second).succeeds().stdout.trim(), pid_namespace);
    // Ids of its own namespace can be mapped without newuidmap, which knows only the host's.
    let mut third = runtime.bundle();
    third
        .user_namespace(1, 1000)
        .args(&["cat", "/proc/self/uid_map"]);
    let map = runtime.run(&third).succeeds().stdout;
    assert_eq!(
        map.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "1000"]
    );
    first.finish();
}

/// A bundle whose container has the runtime at `/bin/inner`, may do everything with its cgroups, and
/// has the bundle of a second container at `/in`.
fn nested(runtime: &Runtime, script: &str) -> (Bundle, Bundle) {
    let (mut outer, mut inner) = (runtime.bundle(), runtime.bundle());
    inner.mount("cgroup", "cgroup", "/sys/fs/cgroup", "ro");
    outer.mount("cgroup", "cgroup", "/sys/fs/cgroup", "");
    let all = [
        "CAP_SYS_ADMIN",
        "CAP_NET_ADMIN",
        "CAP_SYS_PTRACE",
        "CAP_SYS_RESOURCE",
    ];
    for set in ["bounding", "effective", "permitted"] {
        for name in all {
            outer.push(&format!("/process/capabilities/{set}"), json!(name));
        }
    }
    outer.set("/process/noNewPrivileges", false);
    for (source, place) in [(runtime.binary(), "bin/inner"), (inner.path(), "in")] {
        let target = outer.rootfs().join(place);
        if source.is_dir() {
            fs::create_dir(&target).expect("the bundle is writable");
        } else {
            fs::write(&target, "").expect("the bundle is writable");
        }
        outer.bind(source, &format!("/{place}"), "bind");
    }
    outer.mount("tmpfs", "tmpfs", "/run", "mode=755");
    outer.sh(script);
    (outer, inner)
}

const NESTED: &str = "set -e; r='/bin/inner --root /run/inner'
    $r run --bundle /in one
    $r run --detach --bundle /in two </dev/null >/dev/null 2>&1
    $r exec two sh -c 'echo exec $$' | tr -d 0-9
    $r delete --force two; $r list --quiet; echo end";

#[test]
fn a_container_can_have_containers() {
    let runtime = Runtime::new();
    if runtime.differs("1.1 fails where the machine lacks a capability that the outer one asks for")
    {
        return;
    }
    let (mut outer, mut inner) = nested(&runtime, NESTED);
    inner.sh("echo inner; exec sleep 1");
    inner.save();
    let wanted = "inner\nexec \nend\n";
    assert_eq!(runtime.run(&outer).succeeds().stdout, wanted);
    // Inside a user namespace, where nothing of the host's root is left.
    outer.user_namespace(100_000, 65_536);
    give_root_directories(&outer, 100_000);
    give_root_directories(&inner, 100_000);
    assert_eq!(runtime.run(&outer).succeeds().stdout, wanted);
}

#[test]
fn a_users_container_can_have_containers() {
    let runtime = Runtime::rootless();
    if runtime.differs("Debian's is linked dynamically: the container has not its libraries") {
        return;
    }
    let (mut outer, mut inner) = nested(&runtime, NESTED);
    map_subordinate_ids(&mut outer);
    inner.sh("echo inner; exec sleep 1");
    inner.save();
    assert_eq!(runtime.run(&outer).succeeds().stdout, "inner\nexec \nend\n");
}

fn give_root_directories(bundle: &Bundle, user: u32) {
    for path in [bundle.path(), &bundle.rootfs()] {
        chown(path, Some(user), Some(user)).expect("tests run as root");
    }
}

#[test]
fn rootless_podman_runs_and_enters_containers() {
    let runtime = Runtime::rootless();
    if runtime.host_lacks("podman", !Path::new("/usr/bin/podman").exists()) {
        return;
    }
    let bundle = runtime.bundle();
    let home = runtime.dir().join("home");
    fs::create_dir(&home).expect("the scratch directory is writable");
    chown(&home, Some(USER), Some(USER)).expect("tests run as root");
    let podman = |words: &[&str]| {
        let user = USER.to_string();
        let mut command = Command::new("timeout");
        command.args([
            "60",
            "setpriv",
            "--reuid",
            &user,
            "--regid",
            &user,
            "--clear-groups",
        ]);
        command.args([
            "podman",
            "--cgroup-manager=cgroupfs",
            "--storage-driver=vfs",
        ]);
        command.arg("--runtime").arg(runtime.binary()).args(words);
        command
            .env_clear()
            .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin");
        command
            .env("HOME", &home)
            .env("XDG_RUNTIME_DIR", &home)
            .current_dir(&home);
        let output = command.output().expect("podman runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let rootfs = bundle.rootfs();
    let rootfs = rootfs.to_string_lossy();
    let run = ["run", "--rm", "--network=none", "--log-driver=none"];
    let script = "id -u; exit 7";
    let ran = podman(&[&run[..], &["--rootfs", &rootfs, "sh", "-c", script]].concat());
    assert_eq!((ran.0, ran.1.as_str()), (Some(7), "0"), "{}", ran.2);
    let detach = [
        "run",
        "--detach",
        "--network=none",
        "--log-driver=none",
        "--name=one",
    ];
    let ran = podman(&[&detach[..], &["--rootfs", &rootfs, "sleep", "1000000"]].concat());
    assert_eq!(ran.0, Some(0), "{}", ran.2);
    let ran = podman(&["exec", "--user", "3:4", "one", "sh", "-c", "id -u; id -g"]);
    assert_eq!((ran.0, ran.1.as_str()), (Some(0), "3\n4"), "{}", ran.2);
    let shared = [
        "--pid=container:one",
        "--rootfs",
        &rootfs,
        "sh",
        "-c",
        "ps | grep -c sleep",
    ];
    let ran = podman(&[&run[..], &shared].concat());
    assert_eq!(ran.0, Some(0), "{}", ran.2);
    let ran = podman(&["rm", "--force", "--time=0", "one"]);
    assert_eq!(ran.0, Some(0), "{}", ran.2);
    // podman leaves a process that keeps its user namespace.
    let pause = fs::read_to_string(home.join("libpod/tmp/pause.pid")).expect("podman writes it");
    let pid = pause.trim().parse().expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
}
