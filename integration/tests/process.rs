//! The `process` object: user, groups, umask, capabilities, limits, scheduling and the rest.

use std::collections::BTreeMap;
use std::fs;

use integration::{Bundle, Runtime, proc, sys};
use serde_json::json;

fn status(runtime: &Runtime, bundle: &mut Bundle) -> BTreeMap<String, String> {
    proc::parse_status(&runtime.sh(bundle, "cat /proc/self/status"))
}

#[test]
fn user_group_and_additional_groups_are_exactly_as_given() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.set(
        "/process/user",
        json!({ "uid": 1234, "gid": 2345, "additionalGids": [5, 7, 2345] }),
    );
    let status = status(&runtime, &mut bundle);
    let fields = |name: &str| {
        status[name]
            .split_whitespace()
            .map(String::from)
            .collect::<Vec<_>>()
    };
    assert_eq!(fields("Uid"), ["1234"; 4]);
    assert_eq!(fields("Gid"), ["2345"; 4]);
    let mut groups = fields("Groups");
    groups.sort();
    assert_eq!(groups, ["2345", "5", "7"]);
}

#[test]
fn without_additional_groups_there_are_none() {
    let runtime = Runtime::new();
    assert_eq!(status(&runtime, &mut runtime.bundle())["Groups"], "");
}

#[test]
fn umask_is_022_unless_given() {
    let runtime = Runtime::new();
    assert_eq!(status(&runtime, &mut runtime.bundle())["Umask"], "0022");
    for (umask, want) in [(0o077, "0077"), (0, "0000"), (0o777, "0777")] {
        let mut bundle = runtime.bundle();
        bundle.set("/process/user/umask", umask);
        assert_eq!(status(&runtime, &mut bundle)["Umask"], want);
    }
}

#[test]
fn the_five_capability_sets_are_exactly_as_given() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.set(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_RAW"],
            "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
            "inheritable": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN"],
            "ambient": ["CAP_KILL"],
        }),
    );
    // A program that gains nothing by exec: a user, whose permitted set is the ambient one.
    bundle.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let user = status(&runtime, &mut bundle);
    let mask = |bits: &[u32]| format!("{:016x}", bits.iter().map(|bit| 1_u64 << bit).sum::<u64>());
    assert_eq!(user["CapBnd"], mask(&[0, 5, 7, 13]));
    assert_eq!(user["CapInh"], mask(&[0, 5]));
    assert_eq!(user["CapAmb"], mask(&[5]));
    assert_eq!(user["CapPrm"], mask(&[5]));
    assert_eq!(user["CapEff"], mask(&[5]));
    // And root, who gets bounding and inheritable by exec, as capabilities(7) says.
    bundle
        .set("/process/user", json!({ "uid": 0, "gid": 0 }))
        .set("/process/noNewPrivileges", false);
    let root = status(&runtime, &mut bundle);
    assert_eq!(root["CapPrm"], mask(&[0, 5, 7, 13]));
    assert_eq!(root["CapBnd"], mask(&[0, 5, 7, 13]));
}

#[test]
fn the_sets_before_start_are_those_of_config_json() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    bundle.set("/process/capabilities", json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_KILL"],
    }));
    let container = runtime.create(&bundle);
    let status = proc::status(container.pid());
    assert_eq!(status["CapBnd"], format!("{:016x}", 0x21));
    assert_eq!(status["CapPrm"], format!("{:016x}", 0x21));
    assert_eq!(status["CapEff"], format!("{:016x}", 0x20));
    assert_eq!(status["CapInh"], format!("{:016x}", 0));
}

#[test]
fn empty_capability_sets_leave_root_without_any() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.set("/process/capabilities", json!({}));
    let status = status(&runtime, &mut bundle);
    for set in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
}

#[test]
fn without_the_capabilities_object_they_are_left_alone() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 drops them all, 1.2 and later do not") {
        return;
    }
    let mut bundle = runtime.bundle();
    bundle.unset("/process/capabilities");
    let own = fs::read_to_string("/proc/thread-self/status").expect("proc is mounted");
    let own = proc::parse_status(&own);
    assert_eq!(status(&runtime, &mut bundle)["CapBnd"], own["CapBnd"]);
}

#[test]
fn an_unknown_capability_is_a_warning() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.push("/process/capabilities/bounding", json!("CAP_NO_SUCH"));
    let run = runtime.call_run(&bundle).log_json().run().succeeds();
    let warned = run.log.iter().any(|entry| {
        entry["level"] == "warning"
            && entry["msg"]
                .as_str()
                .is_some_and(|it| it.contains("CAP_NO_SUCH"))
    });
    assert!(warned, "{:?}", run.log);
}

#[test]
fn no_new_privileges_is_set_only_if_asked_for() {
    let runtime = Runtime::new();
    for (value, want) in [(json!(true), "1"), (json!(false), "0"), (json!(null), "0")] {
        let mut bundle = runtime.bundle();
        bundle.set("/process/noNewPrivileges", value.clone());
        assert_eq!(status(&runtime, &mut bundle)["NoNewPrivs"], want, "{value}");
    }
}

#[test]
fn rlimits_are_set_to_both_values() {
    let runtime = Runtime::new();
    // Lowering needs no rights; this host may not raise them.
    let table: [(&str, &str, u64, u64); 16] = [
        ("RLIMIT_NOFILE", "Max open files", 100, 200),
        ("RLIMIT_CORE", "Max core file size", 0, 4096),
        ("RLIMIT_NPROC", "Max processes", 500, 600),
        ("RLIMIT_STACK", "Max stack size", 1 << 20, 1 << 22),
        ("RLIMIT_FSIZE", "Max file size", 1 << 30, 1 << 31),
        ("RLIMIT_CPU", "Max cpu time", 1000, 2000),
        ("RLIMIT_MSGQUEUE", "Max msgqueue size", 1000, 2000),
        ("RLIMIT_RTTIME", "Max realtime timeout", 1000, 2000),
        ("RLIMIT_SIGPENDING", "Max pending signals", 100, 200),
        ("RLIMIT_LOCKS", "Max file locks", 100, 200),
        ("RLIMIT_DATA", "Max data size", 1 << 28, 1 << 29),
        ("RLIMIT_AS", "Max address space", 1 << 30, 1 << 31),
        ("RLIMIT_RSS", "Max resident set", 1 << 28, 1 << 29),
        ("RLIMIT_MEMLOCK", "Max locked memory", 4096, 8192),
        ("RLIMIT_NICE", "Max nice priority", 0, 0),
        ("RLIMIT_RTPRIO", "Max realtime priority", 0, 0),
    ];
    let mut bundle = runtime.bundle();
    for (kind, _, soft, hard) in table {
        bundle.push(
            "/process/rlimits",
            json!({ "type": kind, "soft": soft, "hard": hard }),
        );
    }
    let out = runtime.sh(&mut bundle, "cat /proc/self/limits");
    for (kind, label, soft, hard) in table {
        let line = out
            .lines()
            .find(|line| line.starts_with(label))
            .expect(label);
        let words: Vec<&str> = line[label.len()..].split_whitespace().collect();
        assert_eq!(&words[..2], [soft.to_string(), hard.to_string()], "{kind}");
    }
}

#[test]
fn oom_score_is_set_and_inherited_when_absent() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.set("/process/oomScoreAdj", 321);
    assert_eq!(
        runtime.sh(&mut bundle, "cat /proc/self/oom_score_adj"),
        "321\n"
    );
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("proc is mounted");
    let mut bundle = runtime.bundle();
    assert_eq!(runtime.sh(&mut bundle, "cat /proc/self/oom_score_adj"), own);
}

#[test]
fn the_scheduler_is_set() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 has no scheduler") {
        return;
    }
    let grouped = fs::exists("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").expect("readable");
    // The numbers are those of sched(7).
    let table = [
        (json!({ "policy": "SCHED_OTHER", "nice": 7 }), 0, 7, 0),
        (json!({ "policy": "SCHED_BATCH", "nice": 5 }), 3, 5, 0),
        (json!({ "policy": "SCHED_IDLE" }), 5, 0, 0),
        (json!({ "policy": "SCHED_FIFO", "priority": 3 }), 1, 0, 3),
        (json!({ "policy": "SCHED_RR", "priority": 4 }), 2, 0, 4),
        (
            json!({ "policy": "SCHED_FIFO", "priority": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"] }),
            1,
            0,
            1,
        ),
    ];
    for (scheduler, policy, nice, priority) in table {
        let mut bundle = runtime.bundle();
        bundle
            .sleeper()
            .set("/process/scheduler", scheduler.clone());
        if grouped && priority > 0 {
            // A cgroup has no real time of its own unless it is given some.
            let cpu = json!({ "realtimeRuntime": 1000, "realtimePeriod": 1_000_000 });
            bundle.set("/linux/resources/cpu", cpu);
        }
        let container = runtime.start(&bundle);
        let have = sys::scheduler(container.pid()).expect("it is alive");
        assert_eq!(have.sched_policy, policy, "{scheduler}");
        // Without one the caller's is kept.
        if scheduler.get("nice").is_some() {
            assert_eq!(have.sched_nice, nice, "{scheduler}");
        }
        assert_eq!(have.sched_priority, priority, "{scheduler}");
        let reset = scheduler.get("flags").is_some();
        assert_eq!(
            have.sched_flags & 1 == 1,
            reset,
            "{scheduler}: reset on fork"
        );
    }
}

#[test]
fn the_io_priority_is_set() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 has no ioPriority") {
        return;
    }
    let table = [
        ("IOPRIO_CLASS_RT", 1, 2),
        ("IOPRIO_CLASS_BE", 2, 6),
        ("IOPRIO_CLASS_IDLE", 3, 0),
    ];
    for (class, number, priority) in table {
        let mut bundle = runtime.bundle();
        bundle.sleeper().set(
            "/process/ioPriority",
            json!({ "class": class, "priority": priority }),
        );
        let container = runtime.start(&bundle);
        let have = sys::io_priority(container.pid()).expect("it is alive");
        assert_eq!(have, (number, priority), "{class}");
    }
}

#[test]
fn the_personality_is_set() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 has no personality") {
        return;
    }
    for (domain, want, machine) in [
        ("LINUX", "00000000", "x86_64"),
        ("LINUX32", "00000008", "i686"),
    ] {
        let mut bundle = runtime.bundle();
        bundle.set("/linux/personality", json!({ "domain": domain }));
        let out = runtime.sh(&mut bundle, "cat /proc/self/personality; uname -m");
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[0], want, "{domain}");
        assert!(
            lines[1] == machine || !cfg!(target_arch = "x86_64"),
            "{domain}: {}",
            lines[1]
        );
    }
}

#[test]
fn the_memory_policy_is_set() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 has no memoryPolicy") {
        return;
    }
    let numa = fs::exists("/proc/self/numa_maps").expect("proc is mounted");
    if runtime.host_lacks("NUMA policies", !numa) {
        return;
    }
    // The numbers are those of set_mempolicy(2): mode with flags, nodes.
    let table = [
        (json!({ "mode": "MPOL_DEFAULT" }), (0, 0)),
        (json!({ "mode": "MPOL_BIND", "nodes": "0" }), (2, 1)),
        (json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" }), (3, 1)),
        (json!({ "mode": "MPOL_PREFERRED", "nodes": "0" }), (1, 1)),
        (json!({ "mode": "MPOL_LOCAL" }), (4, 0)),
        (
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }),
            (2 | 1 << 15, 1),
        ),
    ];
    for (policy, (mode, nodes)) in table {
        let mut bundle = runtime.bundle();
        bundle.probe().args(&["/bin/probe", "memory-policy"]);
        bundle.set("/linux/memoryPolicy", policy.clone());
        let run = runtime.run(&bundle);
        assert_eq!(
            run.stdout,
            format!("({mode}, {nodes})\n"),
            "{policy}: {}",
            run.stderr
        );
    }
}

#[test]
fn the_working_directory_is_made_and_entered() {
    let runtime = Runtime::new();
    for dir in ["/", "/tmp", "/new/deep/dir"] {
        let mut bundle = runtime.bundle();
        bundle.set("/process/cwd", dir);
        assert_eq!(runtime.sh(&mut bundle, "pwd"), format!("{dir}\n"));
    }
}

#[test]
fn a_working_directory_that_only_the_user_may_enter_is_entered() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let home = bundle.rootfs().join("home/own");
    fs::create_dir(&home).expect("the bundle is writable");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).expect("root may");
    chown(&home, Some(1000), Some(1000)).expect("root may");
    bundle
        .set("/process/cwd", "/home/own")
        .set("/process/capabilities", json!({}));
    bundle.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    assert_eq!(runtime.sh(&mut bundle, "pwd"), "/home/own\n");
}

#[test]
fn home_is_taken_from_the_containers_passwd_unless_given() {
    let runtime = Runtime::new();
    let table = [
        (0, json!([]), "/root"),
        (65534, json!([]), "/home"),
        (4242, json!([]), "/"),
        (0, json!(["HOME=/given"]), "/given"),
    ];
    for (uid, env, want) in table {
        let mut bundle = runtime.bundle();
        bundle
            .set("/process/user/uid", uid)
            .set("/process/env", env.clone());
        let out = runtime.sh(&mut bundle, "echo $HOME");
        assert_eq!(out, format!("{want}\n"), "{uid} {env}");
    }
}

#[test]
fn the_program_is_found_by_the_path_of_config_json() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.file("opt/own", "#!/bin/sh\necho own $0 $1\n", 0o755);
    bundle
        .args(&["own", "arg"])
        .set("/process/env", json!(["PATH=/nowhere:/opt:/bin"]));
    assert_eq!(runtime.run(&bundle).succeeds().stdout, "own /opt/own arg\n");
}

#[test]
fn a_program_is_looked_up_as_the_containers_user() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle
        .file("opt/secret", "#!/bin/sh\necho ran\n", 0o700)
        .args(&["/opt/secret"]);
    bundle.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    bundle.set("/process/capabilities", json!({}));
    let path = bundle.save().to_str().expect("UTF-8");
    let run = runtime
        .call(&["create", "--bundle", path, bundle.id()])
        .run();
    if run.code == 0 && runtime.differs("1.1.5 looks for the executable bits only") {
        let _ = runtime.call(&["delete", "--force", bundle.id()]).run();
        return;
    }
    let _ = run.fails_with("permission denied");
}

#[test]
fn arguments_and_environment_pass_unchanged() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let odd = "a  b\t'c' \"d\" $HOME \\ ä 🦀";
    bundle.args(&["/bin/printf", "%s|", odd, "", "--", "-x"]);
    assert_eq!(
        runtime.run(&bundle).succeeds().stdout,
        format!("{odd}||--|-x|")
    );
    let mut bundle = runtime.bundle();
    bundle.args(&["/bin/env"]).set(
        "/process/env",
        json!(["PATH=/bin", "HOME=/", "X=1=2", "EMPTY="]),
    );
    let out = runtime.run(&bundle).succeeds().stdout;
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["EMPTY=", "HOME=/", "PATH=/bin", "X=1=2"]);
}

#[test]
fn no_signal_is_blocked_and_sigpipe_is_not_ignored() {
    let runtime = Runtime::new();
    let status = status(&runtime, &mut runtime.bundle());
    assert_eq!(status["SigBlk"], "0000000000000000");
    // Others may be ignored by whoever started the tests, as nohup does.
    let ignored = u64::from_str_radix(&status["SigIgn"], 16).expect("a mask");
    assert_eq!(ignored >> (libc::SIGPIPE - 1) & 1, 0);
}

#[test]
fn the_program_leads_a_session_of_its_own() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.start(&bundle);
    let status = proc::status(container.pid());
    assert_eq!(
        status["NSsid"].split_whitespace().last(),
        Some("1"),
        "{}",
        status["NSsid"]
    );
}
