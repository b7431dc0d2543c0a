//! The eight namespaces: new, inherited, joined by path; time offsets; users with mappings.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;

use integration::{Bundle, Container, Runtime, proc};
use serde_json::json;

/// config.json's name and the name in /proc/PID/ns.
const KINDS: &[(&str, &str)] = &[
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

#[test]
fn each_listed_namespace_is_new() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper().new_namespace("cgroup");
    let container = runtime.create(&bundle);
    for (kind, file) in KINDS {
        assert_ne!(
            proc::namespace(container.pid(), file),
            proc::own_namespace(file),
            "{kind}"
        );
    }
    for (kind, file) in [("user", "user"), ("time", "time")] {
        assert_eq!(
            proc::namespace(container.pid(), file),
            proc::own_namespace(file),
            "{kind}"
        );
    }
}

#[test]
fn an_absent_namespace_is_inherited() {
    let runtime = Runtime::new();
    for (kind, file) in KINDS
        .iter()
        .filter(|(kind, _)| !["mount", "cgroup"].contains(kind))
    {
        let mut bundle = runtime.bundle();
        bundle.sleeper().share(kind).unset("/hostname");
        let container = runtime.create(&bundle);
        assert_eq!(
            proc::namespace(container.pid(), file),
            proc::own_namespace(file),
            "{kind}"
        );
    }
}

#[test]
fn a_namespace_is_joined_by_path() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let first = runtime.start(&bundle);
    for (kind, file) in KINDS
        .iter()
        .filter(|(kind, _)| !["mount", "cgroup"].contains(kind))
    {
        let mut bundle = runtime.bundle();
        bundle.sleeper().unset("/hostname");
        bundle.join(kind, &format!("/proc/{}/ns/{file}", first.pid()));
        let second = runtime.create(&bundle);
        let (have, want) = (
            proc::namespace(second.pid(), file),
            proc::namespace(first.pid(), file),
        );
        assert_eq!(have, want, "{kind}");
        second.start();
        second.finish();
    }
}

#[test]
fn several_namespaces_are_joined_at_once_as_a_pod_does() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let pause = runtime.start(&bundle);
    let mut bundle = runtime.bundle();
    bundle
        .sh("hostname; for n in net ipc uts; do readlink /proc/self/ns/$n; done")
        .unset("/hostname");
    for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        bundle.join(kind, &format!("/proc/{}/ns/{file}", pause.pid()));
    }
    let out = runtime.run(&bundle).succeeds().stdout;
    let lines: Vec<&str> = out.lines().collect();
    let want = |file| proc::namespace(pause.pid(), file);
    assert_eq!(lines, ["bundle", &want("net"), &want("ipc"), &want("uts")]);
}

#[test]
fn a_path_of_another_type_is_refused() {
    let runtime = Runtime::new();
    for (kind, file) in [
        ("network", "uts"),
        ("pid", "net"),
        ("ipc", "mnt"),
        ("uts", "ipc"),
    ] {
        let mut bundle = runtime.bundle();
        bundle
            .unset("/hostname")
            .join(kind, &format!("/proc/thread-self/ns/{file}"));
        let run = runtime.run(&bundle);
        assert_eq!(run.code, 1, "{kind}: {run:?}");
    }
}

#[test]
fn init_is_process_one_of_a_new_pid_namespace() {
    let runtime = Runtime::new();
    let out = runtime.sh(
        &mut runtime.bundle(),
        "echo $$; ls /proc | grep -c '^[0-9]*$'",
    );
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "1");
    assert!(
        lines[1].parse::<u32>().is_ok_and(|count| count <= 4),
        "it sees host processes: {out}"
    );
}

#[test]
fn orphans_of_a_pid_namespace_are_reparented_to_init_and_die_with_it() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh(
        "(sleep 1000003 &) ; sleep 0.1; cat /proc/[0-9]*/status | grep -c 'PPid:.1$'; sleep 1000",
    );
    let container = runtime.start(&bundle);
    container.wait_for_stdout("\n");
    container.finish();
    runtime.assert_clean("the end of init");
}

#[test]
fn a_new_network_namespace_has_only_a_loopback_interface_and_it_is_up() {
    let runtime = Runtime::new();
    let out = runtime.sh(
        &mut runtime.bundle(),
        "ls /sys/class/net; ip -o link show lo",
    );
    let (names, link) = out.split_once('\n').expect("two lines");
    assert_eq!(names, "lo");
    assert!(link.contains("UP"), "{link}");
}

#[test]
fn time_offsets_shift_the_clocks() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 knows no time namespace") {
        return;
    }
    let mut bundle = runtime.bundle();
    bundle
        .new_namespace("time")
        .sh("cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets");
    let offsets = json!({
        "monotonic": { "secs": 172_800, "nanosecs": 5 }, "boottime": { "secs": 604_800, "nanosecs": 0 },
    });
    bundle.set("/linux/timeOffsets", offsets);
    let out = runtime.run(&bundle).succeeds().stdout;
    let mut lines = out.lines();
    let inside: f64 = lines
        .next()
        .and_then(|line| line.parse().ok())
        .expect("uptime");
    let outside = fs::read_to_string("/proc/uptime").expect("proc is mounted");
    let outside: f64 = outside
        .split_whitespace()
        .next()
        .and_then(|it| it.parse().ok())
        .expect("uptime");
    assert!(
        (inside - outside - 604_800.0).abs() < 60.0,
        "{inside} inside, {outside} outside"
    );
    let fields: Vec<Vec<&str>> = lines
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        fields,
        [["monotonic", "172800", "5"], ["boottime", "604800", "0"]]
    );
}

#[test]
fn a_time_namespace_is_joined_by_path() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 knows no time namespace") {
        return;
    }
    let mut bundle = runtime.bundle();
    bundle.new_namespace("time").sleeper();
    bundle.set("/linux/timeOffsets/boottime/secs", 1000);
    let first = runtime.start(&bundle);
    let mut bundle = runtime.bundle();
    bundle
        .join("time", &format!("/proc/{}/ns/time", first.pid()))
        .sleeper();
    let second = runtime.start(&bundle);
    assert_eq!(
        proc::namespace(second.pid(), "time"),
        proc::namespace(first.pid(), "time")
    );
}

#[test]
fn a_user_namespace_has_the_mappings() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.user_namespace(100_000, 65_536).sleeper();
    chown(bundle.rootfs(), Some(100_000), Some(100_000)).expect("root may");
    let container = runtime.start(&bundle);
    let pid = container.pid();
    let map = |file: &str| {
        proc::read(pid, file)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(map("uid_map"), "0 100000 65536");
    assert_eq!(map("gid_map"), "0 100000 65536");
    let meta = fs::metadata(format!("/proc/{pid}")).expect("it is alive");
    assert_eq!((meta.uid(), meta.gid()), (100_000, 100_000));
    assert_ne!(proc::namespace(pid, "user"), proc::own_namespace("user"));
}

#[test]
fn a_container_in_a_user_namespace_is_root_inside_with_working_mounts() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.user_namespace(200_000, 65_536);
    chown(bundle.rootfs(), Some(200_000), Some(200_000)).expect("root may");
    let script = "id -u; touch /new && stat -c %u /new; echo x > /dev/null && test -c /dev/null && \
                  echo null; test -w /dev/shm && echo shm; cat /proc/self/setgroups";
    let out = runtime.sh(&mut bundle, script);
    assert_eq!(out, "0\n0\nnull\nshm\nallow\n");
    let meta = fs::metadata(bundle.rootfs().join("new")).expect("the container made it");
    assert_eq!(meta.uid(), 200_000);
}

#[test]
fn several_mappings_are_written_in_order() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle
        .user_namespace(300_000, 1000)
        .sh("cat /proc/self/uid_map");
    chown(bundle.rootfs(), Some(300_000), Some(300_000)).expect("root may");
    bundle.push(
        "/linux/uidMappings",
        json!({ "containerID": 1000, "hostID": 500_000, "size": 10 }),
    );
    let out = runtime.run(&bundle).succeeds().stdout;
    let rows: Vec<Vec<&str>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows, [["0", "300000", "1000"], ["1000", "500000", "10"]]);
}

/// A container in a user namespace with 65,536 ids from `ids` on, and a bundle for one more whose root file
/// system has the same owner.
fn beside_a_user_namespace(runtime: &Runtime, ids: u32) -> (Container<'_>, Bundle) {
    let owned = || {
        let bundle = runtime.bundle();
        chown(bundle.rootfs(), Some(ids), Some(ids)).expect("root may");
        bundle
    };
    let mut first = owned();
    first.user_namespace(ids, 65_536).sleeper();
    (runtime.start(&first), owned())
}

#[test]
fn a_user_namespace_is_joined_by_path() {
    let runtime = Runtime::new();
    let (first, mut bundle) = beside_a_user_namespace(&runtime, 400_000);
    bundle
        .join("user", &format!("/proc/{}/ns/user", first.pid()))
        .sh("id -u; cat /proc/self/uid_map");
    if runtime.kind() == integration::Kind::Runc {
        // 1.1.5 wants the mappings in config.json as well; keel reads them from the namespace.
        let map = json!([{ "containerID": 0, "hostID": 400_000, "size": 65_536 }]);
        bundle
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map);
    }
    let run = runtime.run(&bundle);
    if run.code != 0 && runtime.differs("1.1.5 refuses a path together with mappings") {
        return;
    }
    let out = run.succeeds().stdout;
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "400000", "65536"]);
}

/// As containers of a pod with a user namespace and a shared pid namespace do.
#[test]
fn a_user_and_a_pid_namespace_are_joined_together() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 refuses a path together with mappings") {
        return;
    }
    let (first, mut bundle) = beside_a_user_namespace(&runtime, 400_000);
    let names = ["user", "pid", "net", "ipc", "uts"];
    for (kind, file) in ["user", "pid", "network", "ipc", "uts"]
        .into_iter()
        .zip(names)
    {
        bundle.join(kind, &format!("/proc/{}/ns/{file}", first.pid()));
    }
    bundle.unset("/hostname").sleeper();
    let second = runtime.start(&bundle);
    for name in names {
        assert_eq!(
            proc::namespace(second.pid(), name),
            proc::namespace(first.pid(), name),
            "{name}"
        );
    }
    let exec = runtime.call(&["exec", second.id(), "cat", "/proc/self/uid_map"]);
    let out = exec.run().succeeds().stdout;
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!(words, ["0", "400000", "65536"]);
    second.finish();
    first.finish();
}

#[test]
fn a_mount_has_the_ids_of_a_joined_user_namespace() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 has no id-mapped mounts") {
        return;
    }
    let source = runtime.dir().join("owned");
    fs::create_dir(&source).expect("writable");
    chown(&source, Some(1000), Some(2000)).expect("root may");
    let mut bundle = runtime.bundle();
    bundle.user_namespace(400_000, 65_536).sleeper();
    chown(bundle.rootfs(), Some(400_000), Some(400_000)).expect("root may");
    let first = runtime.start(&bundle);
    for (option, ids) in [("idmap", "1000 2000\n"), ("ro", "65534 65534\n")] {
        let mut bundle = runtime.bundle();
        chown(bundle.rootfs(), Some(400_000), Some(400_000)).expect("root may");
        bundle.join("user", &format!("/proc/{}/ns/user", first.pid()));
        bundle.bind(&source, "/mnt", &format!("rbind,{option}"));
        assert_eq!(
            runtime.sh(&mut bundle, "stat -c '%u %g' /mnt"),
            ids,
            "{option}"
        );
    }
}

#[test]
fn a_joined_user_namespace_may_come_with_its_own_mappings() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 refuses a path together with mappings") {
        return;
    }
    let (first, mut bundle) = beside_a_user_namespace(&runtime, 410_000);
    bundle.user_namespace(410_000, 65_536);
    bundle
        .join("user", &format!("/proc/{}/ns/user", first.pid()))
        .sh("id -u");
    assert_eq!(runtime.run(&bundle).succeeds().stdout, "0\n");
}

#[test]
fn the_cgroup_namespace_hides_the_path() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.new_namespace("cgroup");
    let out = runtime.sh(&mut bundle, "cat /proc/self/cgroup");
    for line in out.lines() {
        let path = line.rsplit(':').next().unwrap_or("");
        assert_eq!(path, "/", "{line}");
    }
}

#[test]
fn without_a_cgroup_namespace_the_process_is_in_a_cgroup_of_its_id() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.create(&bundle);
    let text = proc::read(container.pid(), "cgroup");
    for line in text.lines() {
        assert!(line.contains(bundle.id()), "{line}");
    }
}

#[test]
fn an_absolute_cgroups_path_is_below_the_hierarchys_mount_and_removed_by_delete() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let name = format!("/{}-parent/leaf", runtime.token());
    bundle.sleeper().set("/linux/cgroupsPath", name.as_str());
    let container = runtime.create(&bundle);
    let text = proc::read(container.pid(), "cgroup");
    let pids = text
        .lines()
        .find(|line| line.contains(":pids:") || line.starts_with("0::"));
    assert!(pids.is_some_and(|line| line.ends_with(&name)), "{text}");
    let _ = container.delete().succeeds();
    for controller in fs::read_dir("/sys/fs/cgroup").expect("mounted").flatten() {
        let parent = controller
            .path()
            .join(format!("{}-parent", runtime.token()));
        assert!(!parent.join("leaf").exists(), "{}", parent.display());
        // runc leaves the parents, as others may use them; so does keel, or it removes its own.
        let _ = fs::remove_dir(parent);
    }
}

#[test]
fn a_container_lives_in_a_private_cgroup_v2_hierarchy() {
    let runtime = Runtime::new();
    // This thread has a mount namespace of its own, so the machine keeps its mounts.
    let flags = nix::mount::MsFlags::empty();
    let (kind, none): (_, Option<&str>) = (Some("cgroup2"), None);
    nix::mount::mount(kind, "/sys/fs/cgroup", kind, flags, none).expect("root may");
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = Container::create_with(&runtime, &bundle, |call| call);
    let text = proc::read(container.pid(), "cgroup");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .expect("the v2 line");
    assert!(line.contains(bundle.id()), "{line}");
    assert!(fs::exists(format!("/sys/fs/cgroup{line}/cgroup.procs")).expect("readable"));
    container.start();
    container.finish();
    assert!(!fs::exists(format!("/sys/fs/cgroup{line}")).expect("readable"));

    // What is no option of its own goes to the file system, as with any other mount.
    bundle
        .args(&["/bin/true"])
        .mount("cgroup", "cgroup", "/sys/fs/cgroup", "nosuid,nosuch");
    let _ = runtime.run(&bundle).fails_with("nosuch");
    nix::mount::umount("/sys/fs/cgroup").expect("we mounted it");
}

/// Runs ip(8) in the test's own network namespace.
fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split(' ')).output();
    let output = output.expect("ip(8) of iproute2 is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {args}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A device with two addresses; its peer stays.
fn make_a_device() {
    ip("link add kt0 type veth peer name kt1");
    ip("link set kt0 mtu 1300 up");
    ip("addr add 192.0.2.7/24 dev kt0");
    ip("addr add 2001:db8::7/64 dev kt0 nodad");
}

#[test]
fn a_network_device_moves_into_the_container_with_its_addresses() {
    let runtime = Runtime::new();
    if runtime.differs("Debian's runc is older than netDevices") {
        return;
    }
    make_a_device();
    let mut bundle = runtime.bundle();
    bundle
        .sh("ip addr show")
        .set("/linux/netDevices", json!({"kt0": {"name": "net%d"}}));
    let shown = runtime.run(&bundle).succeeds().stdout;
    for want in ["net0", ",UP", "mtu 1300", "192.0.2.7/24", "2001:db8::7/64"] {
        assert!(shown.contains(want), "{want}: {shown}");
    }
    assert!(!shown.contains("kt0"), "{shown}");
}

#[test]
fn a_network_device_comes_back_if_the_container_is_not_created() {
    let runtime = Runtime::new();
    if runtime.differs("Debian's runc is older than netDevices") {
        return;
    }
    make_a_device();
    let mut bundle = runtime.bundle();
    bundle
        .args(&["/no/such/program"])
        .set("/linux/netDevices", json!({"kt0": {"name": "eth7"}}));
    let _ = runtime.run(&bundle).fails_with("/no/such/program");
    let shown = ip("addr show dev kt0");
    for want in [",UP", "mtu 1300", "192.0.2.7/24", "2001:db8::7/64"] {
        assert!(shown.contains(want), "{want}: {shown}");
    }
    ip("link del kt0");
}

#[test]
fn a_network_device_cannot_take_a_name_that_a_joined_namespace_has() {
    let runtime = Runtime::new();
    if runtime.differs("Debian's runc is older than netDevices") {
        return;
    }
    make_a_device();
    ip("link add kt2 type veth peer name kt3");
    let mut bundle = runtime.bundle();
    bundle
        .sleeper()
        .set("/linux/netDevices", json!({"kt0": {"name": "eth0"}}));
    let first = runtime.start(&bundle);
    let mut bundle = runtime.bundle();
    bundle
        .sleeper()
        .join("network", &format!("/proc/{}/ns/net", first.pid()))
        .set("/linux/netDevices", json!({"kt2": {"name": "eth0"}}));
    let words = r#"netDevices.kt2: the container has a network device "eth0""#;
    let _ = runtime.run(&bundle).fails_with(words);
    ip("link del kt2");
    first.finish();
}

#[test]
fn a_network_of_the_host_is_joined_with_ids_of_the_containers_own() {
    let runtime = Runtime::new();
    let own = proc::own_namespace("net");
    // The test's own network namespace, held by a process that has it.
    let mut holder = runtime.bundle();
    holder.share("network").sleeper();
    let holder = runtime.start(&holder);
    let mut bundle = runtime.bundle();
    bundle
        .user_namespace(800_000, 65_536)
        .join("network", &format!("/proc/{}/ns/net", holder.pid()))
        .sleeper();
    // sysfs shows a network's devices only to who owns it.
    let dev = json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" });
    let proc = json!({ "destination": "/proc", "type": "proc", "source": "proc" });
    bundle.set("/mounts", json!([proc, dev]));
    chown(bundle.rootfs(), Some(800_000), Some(800_000)).expect("root may");
    let container = runtime.create(&bundle);
    assert_eq!(proc::namespace(container.pid(), "net"), own);
    assert_ne!(
        proc::namespace(container.pid(), "user"),
        proc::own_namespace("user")
    );
    drop(container);
    holder.finish();
}
