//! Limits that are proven by what a container then can and cannot do; those of which no kernel here
//! shows an effect are read back, and it is said why.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use integration::{Call, Container, Runtime, is_v2, proc, wait_for};
use serde_json::{Value, json};

use super::{count, cpu_time, exec, limited, read};

/// A container that takes all it gets of the first processor.
fn burner<'r>(runtime: &'r Runtime, mut cpu: Value) -> Container<'r> {
    cpu["cpus"] = "0".into();
    let mut bundle = limited(runtime, json!({ "cpu": cpu }));
    bundle.sh("while :; do :; done");
    runtime.start(&bundle)
}

/// How much more of a processor one container gets than another, in each of four spans of time.
fn ratios(one: &Container<'_>, other: &Container<'_>) -> Vec<f64> {
    let ratio = |_| {
        let before = [cpu_time(one), cpu_time(other)];
        std::thread::sleep(Duration::from_secs(2));
        let used = [cpu_time(one) - before[0], cpu_time(other) - before[1]];
        used[0].as_secs_f64() / used[1].as_secs_f64().max(1e-6)
    };
    (0..4).map(ratio).collect()
}

#[test]
fn shares_divide_a_processor() {
    let runtime = Runtime::new();
    let (heavy, light) = (
        burner(&runtime, json!({ "shares": 8192 })),
        burner(&runtime, json!({ "shares": 512 })),
    );
    assert_eq!(proc::status(heavy.pid())["Cpus_allowed_list"], "0");
    // v1 16, v2 by the formula about 10; whoever else runs on the processor takes from both.
    let ratios = ratios(&heavy, &light);
    let is_divided = ratios.iter().any(|ratio| (4.0..40.0).contains(ratio));
    assert!(is_divided, "{ratios:?}");
}

#[test]
fn an_idle_container_gets_what_others_leave() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 does not know cpu.idle") {
        return;
    }
    // The idle one first: beside the other it would hardly come to be.
    let idle = burner(&runtime, json!({ "idle": 1 }));
    let other = burner(&runtime, json!({}));
    // The kernel gives an idle group a weight of 3 beside 1024, far below the least shares.
    let ratios = ratios(&other, &idle);
    assert!(ratios.iter().any(|ratio| *ratio > 60.0), "{ratios:?}");
}

#[test]
fn burst_lets_a_container_use_what_it_saved() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 does not know the burst") {
        return;
    }
    let cpu = |burst: u64| {
        let cpu = json!({ "quota": 20_000, "period": 100_000, "burst": burst });
        let mut bundle = limited(&runtime, json!({ "cpu": cpu }));
        bundle.sh("while :; do n=0; while [ $n -lt 60000 ]; do n=$((n+1)); done; sleep 0.5; done");
        runtime.start(&bundle)
    };
    let (with, without) = (cpu(20_000), cpu(0));
    wait_for("a period with more than its quota", || {
        count(&with, "cpu.stat", "nr_bursts") > 0
    });
    wait_for("a held back container", || {
        count(&without, "cpu.stat", "nr_throttled") > 2
    });
    assert_eq!(count(&without, "cpu.stat", "nr_bursts"), 0);
}

#[test]
fn events_tell_how_long_a_container_waited() {
    let runtime = Runtime::new();
    if !is_v2() || runtime.differs("1.1.5 does not report pressure") {
        return;
    }
    let (waits, rests) = (
        burner(&runtime, json!({ "quota": 10_000, "period": 100_000 })),
        runtime.start(&limited(&runtime, json!({}))),
    );
    let pressure = |container: &Container<'_>| {
        let run = container.call(&["events", "--stats"]).run().succeeds();
        let event: Value = serde_json::from_str(&run.stdout).expect("JSON");
        let cpu = &event["data"]["cpu"]["psi"]["some"];
        let share = cpu["avg10"].as_f64();
        share.unwrap_or_else(|| panic!("no pressure in {event}"))
    };
    wait_for("a container held at a tenth of a processor to wait", || {
        pressure(&waits) > 40.0
    });
    assert!(pressure(&rests) < 10.0, "{}", pressure(&rests));
}

#[test]
fn a_process_becomes_real_time_only_where_the_container_has_time_for_it() {
    let runtime = Runtime::new();
    // v2 has no such limits: bad_input.rs shows that they are refused.
    if is_v2() {
        return;
    }
    let bundle = |resources: Value| {
        let mut bundle = limited(&runtime, resources);
        bundle.probe().capabilities(&["CAP_SYS_NICE"]);
        bundle.args(&["/bin/probe", "real-time"]);
        runtime.run(&bundle)
    };
    let limit = json!({ "cpu": { "realtimeRuntime": 50_000, "realtimePeriod": 1_000_000 } });
    let with = bundle(limit);
    if !fs::exists("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").expect("cgroups are mounted") {
        // Debian's kernel has no real-time groups.
        assert_eq!(with.stderr.lines().count(), 1, "{with:?}");
        let _ = with.fails_with("cpu.rt_period_us");
        return;
    }
    let _ = with.succeeds();
    let _ = bundle(json!({})).fails_with("Operation not permitted");
}

#[test]
fn rdma_needs_the_device_that_it_names() {
    let runtime = Runtime::new();
    // With a device: guest/rdma.rs.
    let rdma = json!({ "keel0": { "hcaHandles": 1 } });
    let run = runtime.run(&limited(&runtime, json!({ "rdma": rdma })));
    if runtime.differs("1.1.5 passes over a controller that is missing") {
        return;
    }
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    let _ = run.fails_with(".linux.resources.rdma[\"keel0\"]: ");
}

#[test]
fn unified_values_hold_like_those_with_names_of_their_own() {
    let runtime = Runtime::new();
    // bad_input.rs shows that v1 refuses them.
    if !is_v2() {
        return;
    }
    let unified = json!({ "pids.max": "3", "memory.high": "8388608", "memory.swap.max": "0" });
    let container = runtime.start(&limited(&runtime, json!({ "unified": unified })));
    assert_eq!(count(&container, "memory.events", "high"), 0);
    let hog = "dd if=/dev/zero of=/dev/null bs=12M count=1 2>/dev/null";
    assert_eq!(
        exec(&runtime, &container, hog),
        0,
        "it is slowed down, not killed"
    );
    assert!(count(&container, "memory.events", "high") > 0);
    assert_eq!(count(&container, "memory.events", "oom_kill"), 0);
    assert_ne!(
        exec(&runtime, &container, "(sleep 9 & sleep 9 & sleep 9 & wait)"),
        0
    );
    assert!(count(&container, "pids.events", "max") > 0);
}

/// A cgroup above a test's containers.
struct Parent(PathBuf);

impl Drop for Parent {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_memory_reservation_is_kept_when_a_neighbour_takes_all() {
    let runtime = Runtime::new();
    // v1 has a soft limit instead, which matters only once the whole machine is short of memory:
    // update.rs reads it back.
    if !is_v2() {
        return;
    }
    let name = format!("{}-parent", runtime.token());
    let parent = Parent(PathBuf::from("/sys/fs/cgroup").join(&name));
    let kept = [0_i64, 48 << 20].map(|reservation| {
        let within = |memory: Value| {
            let mut bundle = limited(&runtime, json!({ "memory": memory }));
            bundle.set("/linux/cgroupsPath", format!("/{name}/{}", bundle.id()));
            for (file, mib) in [("small", 40), ("large", 300)] {
                let file = fs::File::create(bundle.rootfs().join(file));
                let file = file.expect("the scratch directory is writable");
                file.set_len(mib << 20).expect("a sparse file");
            }
            runtime.start(&bundle)
        };
        let quiet = within(json!({ "reservation": reservation }));
        let greedy = within(json!({}));
        fs::write(parent.0.join("memory.max"), "100663296").expect("root may");
        // Pages of files count for whoever reads them first.
        assert_eq!(exec(&runtime, &quiet, "cat /small >/dev/null"), 0);
        let before: u64 = read(&quiet, "memory.current").parse().expect("bytes");
        assert!(before >= 40 << 20, "{before}");
        assert_eq!(exec(&runtime, &greedy, "cat /large >/dev/null"), 0);
        let after: u64 = read(&quiet, "memory.current").parse().expect("bytes");
        greedy.finish();
        quiet.finish();
        after
    });
    let [without, with] = kept;
    assert!(with >= 38 << 20, "{with} bytes are left of 40 MiB");
    assert!(
        without < 30 << 20,
        "{without} bytes are left without a reservation"
    );
}

#[test]
fn buffers_of_tcp_are_limited() {
    let runtime = Runtime::new();
    // v2 counts them as memory.
    if is_v2() {
        return;
    }
    // Who listens does not read, so that what is sent waits in the kernel.
    let script = "nc -l -p 4001 -e sleep 1000 & sleep 0.3; \
                  dd if=/dev/zero bs=64k count=64 2>/dev/null | nc 127.0.0.1 4001";
    let [little, much] = [1 << 16, 1 << 30].map(|limit: i64| {
        let mut bundle = limited(&runtime, json!({ "memory": { "kernelTCP": limit } }));
        bundle.new_namespace("network").sh(script);
        let container = runtime.start(&bundle);
        let waiting = || read(&container, "memory.kmem.tcp.usage_in_bytes");
        let mut before = waiting();
        wait_for("the buffers to be full", || {
            std::thread::sleep(Duration::from_millis(500));
            let now = waiting();
            std::mem::replace(&mut before, now.clone()) == now && now != "0"
        });
        before.parse::<u64>().expect("a number")
    });
    assert!(
        little * 2 < much,
        "{little} bytes wait, {much} without a limit"
    );
}

#[test]
fn a_device_that_the_cgroups_above_forbid_is_refused() {
    let runtime = Runtime::new();
    // On v2 the programs of all cgroups on the way are asked, and each may say no.
    if is_v2() || runtime.differs("it names no path") {
        return;
    }
    let name = format!("{}-parent", runtime.token());
    let parent = Parent(PathBuf::from("/sys/fs/cgroup/devices").join(&name));
    fs::create_dir(&parent.0).expect("root may");
    fs::write(parent.0.join("devices.deny"), "c 1:11 w").expect("root may");
    let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "w" });
    let mut bundle = limited(&runtime, json!({ "devices": [{ "allow": false }, rule] }));
    bundle.set("/linux/cgroupsPath", format!("/{name}/{}", bundle.id()));
    let run = runtime.run(&bundle);
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    let why = ".linux.resources.devices: the cgroups above do not allow it: write \"c 1:11 w";
    let _ = run.fails_with(why);
}

#[test]
fn a_limit_below_what_is_in_use_is_refused_if_it_is_to_be_checked() {
    let runtime = Runtime::new();
    // The kernel of v1 refuses by itself what it cannot reclaim.
    if !is_v2() || runtime.differs("1.1.5 does not know checkBeforeUpdate") {
        return;
    }
    let container = runtime.start(&limited(
        &runtime,
        json!({ "memory": { "limit": 64 << 20 } }),
    ));
    assert_eq!(
        exec(
            &runtime,
            &container,
            "dd if=/dev/zero of=/dev/shm/held bs=1M count=16 2>/dev/null"
        ),
        0
    );
    let file = runtime.dir().join("resources.json");
    let limit = json!({ "memory": { "limit": 8 << 20, "checkBeforeUpdate": true } });
    fs::write(&file, limit.to_string()).expect("the scratch directory is writable");
    let words = ["update", "--resources", file.to_str().expect("UTF-8")];
    let run = container.call(&words).run();
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    let _ = run.fails_with(".linux.resources.memory.limit: rejecting memory limit 8388608 <= ");
    assert_eq!(read(&container, "memory.max"), (64 << 20).to_string());
    assert_eq!(exec(&runtime, &container, "true"), 0);
}

#[test]
fn a_hog_waits_for_memory_where_nobody_may_be_killed() {
    let runtime = Runtime::new();
    // v2 has no such switch.
    if is_v2() {
        return;
    }
    let memory = json!({
        "limit": 16 << 20, "swap": 16 << 20, "swappiness": 0, "disableOOMKiller": true,
    });
    let container = runtime.start(&limited(&runtime, json!({ "memory": memory })));
    assert_eq!(read(&container, "memory.swappiness"), "0");
    // In its own memory: where the kernel writes for it, a shortage is a short read.
    let hog = "awk 'BEGIN { s = \"x\"; while (1) s = s s }'";
    let running = runtime
        .call(&["exec", container.id(), "sh", "-c", hog])
        .spawn();
    wait_for("a shortage", || {
        count(&container, "memory.oom_control", "under_oom") == 1
    });
    assert_eq!(count(&container, "memory.oom_control", "oom_kill"), 0);
    let _ = container.call(&["delete", "--force"]).run().succeeds();
    assert_eq!(running.wait().code, 128 + 9);
}

/// The calls of `call` that make processes and write to cgroups, with the names of files.
fn traced(runtime: &Runtime, call: Call<'_>) -> String {
    let file = runtime.dir().join("trace");
    let name = file.to_str().expect("UTF-8");
    let words = [
        "strace",
        "-f",
        "-qq",
        "-y",
        "-e",
        "trace=clone3,write",
        "-o",
        name,
    ];
    let null = fs::File::open("/dev/null").expect("it is there");
    let _ = call.stdin(null).through(&words).run().succeeds();
    fs::read_to_string(&file).expect("strace writes it")
}

#[test]
fn processes_are_born_in_a_cgroup_whose_limits_hold_already() {
    let runtime = Runtime::new();
    // The kernel does this on v2 alone.
    if !is_v2() || runtime.differs("it moves them") {
        return;
    }
    let mut bundle = limited(&runtime, json!({ "pids": { "limit": 9 } }));
    let container = runtime.start(&bundle);
    let text = traced(&runtime, runtime.call(&["exec", container.id(), "true"]));
    assert!(text.contains("CLONE_INTO_CGROUP"), "{text}");
    assert!(!text.contains("cgroup.procs"), "{text}");
    container.finish();
    // strace stays as long as anybody that it follows.
    let text = traced(&runtime, runtime.call_run(bundle.args(&["/bin/true"])));
    let (limit, birth) = (text.find("/pids.max>"), text.find("CLONE_INTO_CGROUP"));
    assert!(limit.is_some() && limit < birth, "{text}");
    assert!(!text.contains("cgroup.procs"), "{text}");
}
