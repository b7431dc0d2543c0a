//! Limits shown by their effect, on the cgroup version that the host has; the test guest shows them
//! on v2 and through systemd.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use integration::{Adopted, Bundle, Container, Runtime, by_version, is_v2, proc, wait_for};
use serde_json::{Value, json};

mod beside_runc;
mod effects;
mod fields;
mod lost;
mod update;

/// Debian's, which is in the guest, too.
const RUNC: &str = "/usr/sbin/runc";

/// The directory of a process's cgroup in the hierarchy of a controller; on v2 there is one.
fn cgroup_of(pid: i32, controller: &str) -> PathBuf {
    let text = proc::read(pid, "cgroup");
    let wanted = by_version(controller, "");
    let mut lines = text.lines().map(|line| line.splitn(3, ':').skip(1));
    let path = lines.find_map(|mut line| {
        let names = line.next()?;
        let is_it = names.split(',').any(|name| name == wanted);
        is_it.then(|| line.next().expect("a path").trim_start_matches('/'))
    });
    let mount = match is_v2() {
        true => PathBuf::from("/sys/fs/cgroup"),
        false => PathBuf::from("/sys/fs/cgroup").join(controller),
    };
    mount.join(path.unwrap_or_else(|| panic!("no {controller} in {text}")))
}

fn read(container: &Container<'_>, file: &str) -> String {
    let controller = file.split('.').next().expect("CONTROLLER.FILE");
    let controller = if file.starts_with("cpuacct") {
        "cpuacct"
    } else {
        controller
    };
    let path = cgroup_of(container.pid(), controller).join(file);
    let text = fs::read_to_string(&path);
    text.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .trim()
        .to_owned()
}

/// The number behind `key` in one of the container's files.
fn count(container: &Container<'_>, file: &str, key: &str) -> u64 {
    let text = read(container, file);
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let value = lines
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.parse());
    value
        .unwrap_or_else(|| panic!("{key} in {text}"))
        .expect("a number")
}

/// The container's processor time.
fn cpu_time(container: &Container<'_>) -> Duration {
    match is_v2() {
        true => Duration::from_micros(count(container, "cpu.stat", "usage_usec")),
        false => Duration::from_nanos(read(container, "cpuacct.usage").parse().expect("a number")),
    }
}

fn limited(runtime: &Runtime, resources: Value) -> Bundle {
    let mut bundle = runtime.bundle();
    bundle.set("/linux/resources", resources).sleeper();
    bundle
}

/// Runs a shell script in the container; its exit code.
fn exec(runtime: &Runtime, container: &Container<'_>, script: &str) -> i32 {
    runtime
        .call(&["exec", container.id(), "sh", "-c", script])
        .run()
        .code
}

/// `update` with these flags, which must succeed.
fn change(container: &Container<'_>, flags: &[&str]) {
    let words = [&["update"], flags].concat();
    let _ = container.call(&words).run().succeeds();
}

#[test]
fn a_memory_hog_is_killed_at_the_limit_and_events_tell() {
    let runtime = Runtime::new();
    let memory = json!({ "limit": 32 << 20, "swap": 32 << 20 });
    let container = runtime.start(&limited(&runtime, json!({ "memory": memory })));
    let events = container.call(&["events", "--interval", "300ms"]).spawn();
    events.wait_for_stdout("\"type\":\"stats\"");
    let hog = |mib: u32| format!("dd if=/dev/zero of=/dev/null bs={mib}M count=1 2>/dev/null");
    assert_eq!(exec(&runtime, &container, &hog(8)), 0);
    assert_eq!(exec(&runtime, &container, &hog(100)), 128 + 9);
    events.wait_for_stdout("\"type\":\"oom\"");
    let peak = by_version("memory.max_usage_in_bytes", "memory.peak");
    assert!(read(&container, peak).parse::<u64>().expect("bytes") <= 32 << 20);
    container.finish();
    let output = events.wait().succeeds().stdout;
    let told = output.lines().filter(|line| line.contains("oom"));
    let id = &output[output.find("\"id\"").expect("an id")..];
    let id = id.split(',').next().expect("an id");
    for line in told {
        assert_eq!(line, format!("{{\"type\":\"oom\",{id}}}"));
    }
}

#[test]
fn a_container_starts_with_512_kib_of_memory() {
    let runtime = Runtime::new();
    if runtime.differs("it needs megabytes") {
        return;
    }
    let memory = json!({ "limit": 512 << 10, "swap": 512 << 10 });
    let mut bundle = limited(&runtime, json!({ "memory": memory }));
    bundle.args(&["/bin/true"]);
    let _ = runtime.run(&bundle).succeeds();
    // One page does not do, and this is what is said of it.
    let memory = json!({ "limit": 4096, "swap": 4096 });
    bundle.set("/linux/resources/memory", memory);
    let run = runtime.run(&bundle);
    assert_ne!(run.code, 0);
    assert!(
        run.code == 128 + 9 || run.stderr.contains("memory limit too low?"),
        "{run:?}"
    );
}

#[test]
fn a_fork_bomb_stops_at_the_pids_limit_and_delete_ends_it() {
    let runtime = Runtime::new();
    for own_pids in [true, false] {
        let mut bundle = limited(&runtime, json!({ "pids": { "limit": 30 } }));
        bundle.probe().args(&["/bin/probe", "fork-bomb", "5"]);
        if !own_pids {
            bundle.share("pid");
        }
        let container = runtime.start(&bundle);
        wait_for("a refused fork", || {
            count(&container, "pids.events", "max") > 0
        });
        let now: u64 = read(&container, "pids.current").parse().expect("a number");
        assert!((1..=30).contains(&now), "{now} processes");
        let start = Instant::now();
        let _ = container.call(&["delete", "--force"]).run().succeeds();
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            start.elapsed()
        );
    }
}

#[test]
fn a_limit_of_no_processes_leaves_the_first_one_alone() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 takes 0 for no limit") {
        return;
    }
    let mut bundle = limited(&runtime, json!({ "pids": { "limit": 0 } }));
    bundle.sh("(true) && echo forked");
    let run = runtime.run(&bundle);
    assert_eq!(run.stdout, "");
    assert_ne!(run.code, 0, "{}", run.stderr);
}

#[test]
fn cpu_burners_get_their_quota() {
    let runtime = Runtime::new();
    // The most shares, so that other work on the machine takes none of the quota.
    let cpu = json!({ "quota": 40_000, "period": 100_000, "shares": 262_144 });
    let mut bundle = limited(&runtime, json!({ "cpu": cpu }));
    bundle.sh("while :; do :; done & while :; do :; done");
    let container = runtime.start(&bundle);
    // A busy machine may give less than the quota, never more: the best of some.
    let mut seen = Vec::new();
    let is_quota = (0..5).any(|_| {
        let (start, before) = (Instant::now(), cpu_time(&container));
        std::thread::sleep(Duration::from_secs(4));
        let used = cpu_time(&container).saturating_sub(before).as_secs_f64();
        seen.push(used / start.elapsed().as_secs_f64() / 0.4);
        seen.last().is_some_and(|share| (0.9..=1.1).contains(share))
    });
    assert!(is_quota, "shares of the quota: {seen:?}");
    assert!(seen.iter().all(|share| *share < 1.3), "{seen:?}");
    assert!(count(&container, "cpu.stat", "nr_throttled") > 0);
}

#[test]
fn writes_and_reads_are_throttled() {
    let runtime = Runtime::new();
    let device = fs::metadata(runtime.dir())
        .expect("the scratch directory")
        .dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let is_disk = fs::exists(format!("/sys/dev/block/{major}:{minor}/queue"));
    let lacks = !is_disk.expect("sysfs is mounted");
    if runtime.host_lacks("a whole disk below the temporary directory", lacks) {
        return;
    }
    let at = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let write = "dd if=/dev/zero of=/data bs=64k count=32 oflag=direct 2>/dev/null";
    let read = "dd if=/data of=/dev/null bs=4k count=64 iflag=direct 2>/dev/null";
    let time = |resources: Value| {
        let container = runtime.start(&limited(&runtime, resources));
        [write, read].map(|script| {
            let start = Instant::now();
            assert_eq!(exec(&runtime, &container, script), 0, "{script}");
            start.elapsed().as_secs_f64()
        })
    };
    let free = time(json!({ "blockIO": {} }));
    // 2 MiB at 1 MiB a second, 64 reads at 32 a second; 32 writes at 16 a second, 256 KiB at 128.
    for limits in [
        json!({ "throttleWriteBpsDevice": at(1 << 20), "throttleReadIOPSDevice": at(32) }),
        json!({ "throttleWriteIOPSDevice": at(16), "throttleReadBpsDevice": at(128 << 10) }),
    ] {
        let slow = time(json!({ "blockIO": limits }));
        assert!(
            slow.iter().all(|seconds| *seconds > 1.5),
            "{limits} {slow:?}, without a limit {free:?}"
        );
        assert!(
            slow.iter().zip(free).all(|(slow, free)| free < *slow),
            "{limits} {slow:?} {free:?}"
        );
    }
}

/// Opens /dev/kmsg, which no container may by default.
const OPEN_KMSG: &str = "mknod /tmp/kmsg c 1 11 2>/dev/null; exec 3</tmp/kmsg";

fn with_kmsg(runtime: &Runtime, rules: Value) -> Bundle {
    let mut bundle = limited(runtime, json!({ "devices": rules }));
    bundle.capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    bundle
}

#[test]
fn a_forbidden_device_cannot_be_opened_and_an_allowed_one_can() {
    let runtime = Runtime::new();
    let all = json!({ "allow": false, "access": "rwm" });
    let one = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" });
    for (rules, code) in [(json!([all]), false), (json!([all, one]), true)] {
        let mut bundle = with_kmsg(&runtime, rules);
        bundle.sh(OPEN_KMSG);
        let run = runtime.run(&bundle);
        assert_eq!(run.code == 0, code, "{}", run.stderr);
        bundle.sh("mknod /tmp/kmsg c 1 11 2>/dev/null; exec 3>/tmp/kmsg");
        assert_ne!(runtime.run(&bundle).code, 0, "nobody may write");
    }
}

#[test]
fn device_rules_of_a_running_container_change_at_once_and_stay() {
    let runtime = Runtime::new();
    if runtime.differs("it has no such flags") {
        return;
    }
    let container = runtime.start(&with_kmsg(&runtime, json!([{ "allow": false }])));
    let opens = || exec(&runtime, &container, OPEN_KMSG) == 0;
    assert!(!opens());
    change(&container, &["--device-allow", "c 1:11 r"]);
    assert!(opens());
    // What else is updated leaves the rules alone.
    change(&container, &["--pids-limit", "100"]);
    assert!(opens());
    change(&container, &["--device-deny", "c 1:11 r"]);
    assert!(!opens());
    assert_eq!(read(&container, "pids.max"), "100");
    let file = runtime.dir().join("rules.json");
    let rule = json!([{ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }]);
    fs::write(&file, rule.to_string()).expect("the scratch directory is writable");
    change(&container, &["--devices", file.to_str().expect("UTF-8")]);
    assert!(opens());
    for (flag, words) in [
        ("c 1 r", "a rule is TYPE"),
        ("c 1:99999999999 r", "a rule is TYPE"),
    ] {
        let call = container.call(&["update", "--device-deny", flag]);
        let _ = call.run().fails_with(words);
    }
    fs::write(&file, "[{\"allow\":true,\"access\":\"x\"}]").expect("it is writable");
    let call = container.call(&["update", "--devices", file.to_str().expect("UTF-8")]);
    let _ = call
        .run()
        .fails_with("\"x\" is no combination of r, w and m");
    assert!(opens(), "a refused update changes nothing");
}

#[test]
fn a_paused_container_uses_no_processor_time_and_goes_on_when_resumed() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("while :; do :; done");
    let container = runtime.start(&bundle);
    let _ = container.call(&["pause"]).run().succeeds();
    assert_eq!(container.status(), "paused");
    let before = cpu_time(&container);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(cpu_time(&container), before);
    let _ = container.call(&["resume"]).run().succeeds();
    wait_for("the burner", || cpu_time(&container) > before);
}

/// A script that makes a cgroup below the container's own and puts a process into it.
fn nest() -> String {
    let dir = by_version("/sys/fs/cgroup/pids", "/sys/fs/cgroup");
    format!(
        "mkdir -p {dir}/inner/most && {{ sleep 1000 & echo $! >{dir}/inner/most/cgroup.procs; }} && \
         echo nested; wait"
    )
}

#[test]
fn forced_deletion_ends_whatever_the_container_does() {
    let runtime = Runtime::new();
    for own_pids in [true, false] {
        for (script, paused) in [
            ("sleep 1000 & wait", true),
            (&nest(), false),
            (&nest(), true),
        ] {
            let mut bundle = runtime.bundle();
            bundle.sh(script).new_namespace("cgroup");
            bundle.mount(
                "cgroup",
                "cgroup",
                "/sys/fs/cgroup",
                "rw,nosuid,noexec,nodev",
            );
            if !own_pids {
                bundle.share("pid");
            }
            let container = runtime.start(&bundle);
            if script.contains("nested") {
                container.wait_for_stdout("nested");
            }
            if paused {
                let _ = container.call(&["pause"]).run().succeeds();
            }
            let start = Instant::now();
            let _ = container.call(&["delete", "--force"]).run().succeeds();
            let took = start.elapsed();
            assert!(
                took < Duration::from_secs(10),
                "{script}, paused {paused}: {took:?}"
            );
        }
    }
}

#[test]
fn a_process_that_does_not_die_is_named_in_bounded_time() {
    let runtime = Runtime::new();
    if runtime.differs("it does not name the process") {
        return;
    }
    let mut bundle = runtime.bundle();
    let container = runtime.start(bundle.sleeper());
    // The first process of a pid namespace ends after all others, and this one is not waited for.
    let file = runtime.dir().join("pid");
    let pid_file = file.to_string_lossy();
    let words = [
        "exec",
        "--detach",
        "--pid-file",
        &pid_file,
        container.id(),
        "sleep",
        "1000000",
    ];
    let _ = runtime.call(&words).run().succeeds();
    let other = Adopted::of(&file);
    let start = Instant::now();
    let run = container.call(&["delete", "--force"]).run();
    let took = start.elapsed();
    drop(other);
    let words = format!("process {} does not die", container.pid());
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    let _ = run.fails_with(&words);
    assert!(took < Duration::from_secs(20), "{took:?}");
    let _ = container.call(&["delete", "--force"]).run().succeeds();
}

#[test]
fn a_container_without_cgroups_stays_in_the_callers() {
    let runtime = Runtime::new();
    if runtime.differs("it has no such flag") {
        return;
    }
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let flags = ["--cgroup-manager", "disabled"];
    let container = Container::create_with(&runtime, &bundle, |call| call.global(&flags));
    container.start();
    let own = fs::read_to_string("/proc/self/cgroup").expect("proc is mounted");
    assert_eq!(proc::read(container.pid(), "cgroup"), own);
    assert_eq!(exec(&runtime, &container, "true"), 0);
    container.finish();
    bundle.set("/linux/resources/pids/limit", 5);
    let run = runtime.call_run(&bundle).global(&flags).run();
    let _ = run.fails_with(by_version("cannot set pids limit", "cgroup not exist"));
}

#[test]
fn a_limit_that_the_kernel_did_not_take_is_noticed() {
    let runtime = Runtime::new();
    if runtime.differs("it does not read back") {
        return;
    }
    let mut bundle = limited(&runtime, json!({ "pids": { "limit": 50 } }));
    let path = format!("/{}", bundle.id());
    bundle.set("/linux/cgroupsPath", path.as_str());
    let file = format!("/sys/fs/cgroup{}{path}/pids.max", by_version("/pids", ""));
    let lie = [
        "strace",
        "-qq",
        "-o",
        "/dev/null",
        "-P",
        &file,
        "-e",
        "inject=write:retval=2",
    ];
    let run = runtime
        .call_run(&bundle)
        .flag("--detach")
        .through(&lie)
        .run();
    let _ = run.fails_with("pids.max is \"max\", not \"50\": the kernel did not take it");
    runtime.assert_clean("a lie of the kernel");
}

/// Makes resctrl's directory and files where the kernel would, in this thread's mount namespace.
fn fake_resctrl(runtime: &Runtime) -> PathBuf {
    let script = "set -e; mkdir $0; mount --rbind /sys/fs/cgroup $0; mount -t tmpfs none /sys/fs; \
                  mkdir /sys/fs/cgroup /sys/fs/resctrl; mount --rbind $0 /sys/fs/cgroup; \
                  umount -R $0; rmdir $0";
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .arg(runtime.dir().join("cgroup"));
    assert!(command.status().expect("sh is there").success());
    let root = PathBuf::from("/sys/fs/resctrl");
    for (file, text) in [
        ("schemata", "MB:0=100\nL3:0=fffff\n"),
        ("info/L3/cbm_mask", "fffff\n"),
        ("info/L3/min_cbm_bits", "1\n"),
        ("info/L3/num_closids", "16\n"),
        ("info/last_cmd_status", "ok\n"),
    ] {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("it has one")).expect("it is writable");
        fs::write(path, text).expect("it is writable");
    }
    root
}

#[test]
fn intel_rdt_makes_fills_changes_and_removes_a_group() {
    let runtime = Runtime::new();
    if runtime.differs("it is fooled in another way") {
        return;
    }
    let root = fake_resctrl(&runtime);
    let mut bundle = runtime.bundle();
    let rdt = json!({ "l3CacheSchema": "L3:0=ff", "enableMonitoring": false });
    bundle.set("/linux/intelRdt", rdt).sleeper();
    let id = bundle.id().to_owned();
    let group = root.join(&id);
    // The kernel's own part: the magic number of its file system.
    let magic = "inject=statfs:poke_exit=@arg2=2158650700000000";
    let path = "/sys/fs/resctrl";
    let lie = ["strace", "-qq", "-o", "/dev/null", "-P", path, "-e", magic];
    let container = Container::create_with(&runtime, &bundle, |call| call.through(&lie));
    container.start();
    let text = |file: &str| fs::read_to_string(group.join(file)).expect("keel wrote it");
    assert_eq!(text("schemata"), "L3:0=ff\n");
    assert_eq!(text("tasks"), container.pid().to_string());
    change(&container, &["--l3-cache-schema", "L3:0=f"]);
    assert_eq!(text("schemata"), "L3:0=f\n");
    let stats = container
        .call(&["events", "--stats"])
        .run()
        .succeeds()
        .json();
    assert_eq!(stats["data"]["intel_rdt"]["l3_cache_schema"], "L3:0=f");
    assert_eq!(
        stats["data"]["intel_rdt"]["l3_cache_info"]["num_closids"],
        16
    );
    assert_eq!(exec(&runtime, &container, "true"), 0);
    assert_ne!(
        text("tasks"),
        container.pid().to_string(),
        "who joins is in the group too"
    );
    // To the kernel a group is empty; here its files go first.
    for file in ["schemata", "tasks"] {
        fs::remove_file(group.join(file)).expect("it is there");
    }
    let _ = container.call(&["delete", "--force"]).run().succeeds();
    assert!(!group.exists());
}

#[test]
fn a_container_rules_its_own_cgroup_where_it_may_write_to_it() {
    let runtime = Runtime::new();
    // v1 has no delegation that is safe.
    if !is_v2() {
        return;
    }
    let script = "cd /sys/fs/cgroup && mkdir inner && echo 1 >inner/cgroup.procs && \
                  echo +pids >cgroup.subtree_control && echo 5 >inner/pids.max && echo ruled; \
                  sleep 1000";
    for (options, rules) in [("rw", true), ("ro", false)] {
        let mut bundle = limited(&runtime, json!({ "pids": { "limit": 20 } }));
        bundle
            .user_namespace(100_000, 65_536)
            .new_namespace("cgroup")
            .sh(script);
        bundle.mount(
            "cgroup",
            "cgroup",
            "/sys/fs/cgroup",
            &format!("{options},nosuid,noexec,nodev"),
        );
        let container = runtime.create(&bundle);
        let own = cgroup_of(container.pid(), "");
        container.start();
        wait_for("an answer", || {
            container.stdout().contains("ruled") || container.stderr().contains("Read-only")
        });
        assert_eq!(
            container.stdout().contains("ruled"),
            rules,
            "{}",
            container.stderr()
        );
        let owner = |file: &str| fs::metadata(own.join(file)).expect("a cgroup").uid();
        let wanted = if rules { 100_000 } else { 0 };
        assert_eq!(owner("cgroup.procs"), wanted);
        assert_eq!(owner("cgroup.subtree_control"), wanted);
        assert_eq!(owner("pids.max"), 0, "its limits are not its own");
    }
}
