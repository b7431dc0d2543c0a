//! `update`: what its flags do, and what it refuses.

use std::fs;

use integration::{Kind, Runtime, by_version};
use serde_json::json;

use super::{cgroup_of, change, limited, read};

/// A file and what it then holds.
type Held = (&'static str, &'static str);

/// Flags of `update`, and what they do on v1 and on v2.
#[rustfmt::skip]
const FLAGS: &[(&[&str], Held, Held)] = &[
    (&["--cpu-share", "512"], ("cpu.shares", "512"), ("cpu.weight", "59")),
    (&["--cpu-quota", "30000"], ("cpu.cfs_quota_us", "30000"), ("cpu.max", "30000 100000")),
    (&["--cpu-period", "50000"], ("cpu.cfs_period_us", "50000"), ("cpu.max", "30000 50000")),
    (&["--cpu-quota", "60000", "--cpu-period", "200000"], ("cpu.cfs_period_us", "200000"), ("cpu.max", "60000 200000")),
    (&["--cpu-quota", "-1"], ("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 200000")),
    (&["--cpuset-cpus", "0"], ("cpuset.cpus", "0"), ("cpuset.cpus", "0")),
    (&["--cpuset-mems", "0"], ("cpuset.mems", "0"), ("cpuset.mems", "0")),
    (&["--memory", "100M"], ("memory.limit_in_bytes", "104857600"), ("memory.max", "104857600")),
    (&["--memory-reservation", "50M"], ("memory.soft_limit_in_bytes", "52428800"), ("memory.low", "52428800")),
    (&["--memory", "209715200"], ("memory.limit_in_bytes", "209715200"), ("memory.max", "209715200")),
    (&["--pids-limit", "77"], ("pids.max", "77"), ("pids.max", "77")),
    (&["--pids-limit", "-1"], ("pids.max", "max"), ("pids.max", "max")),
    (&["--cpu-burst", "1000", "--cpu-quota", "20000"], ("cpu.cfs_burst_us", "1000"), ("cpu.max.burst", "1000")),
    (&["--cpu-idle", "1"], ("cpu.idle", "1"), ("cpu.idle", "1")),
    (&["--memory-swap", "300M"], ("memory.memsw.limit_in_bytes", "314572800"), ("memory.swap.max", "104857600")),
    (&["--memory", "-1"], ("memory.limit_in_bytes", "9223372036854771712"), ("memory.max", "max")),
    (&["--blkio-weight", "200"], ("blkio.bfq.weight", "200"), ("io.weight", "default 1920")),
];

#[test]
fn every_flag_of_update_arrives_where_runc_puts_it() {
    let runtime = Runtime::new();
    let container = runtime.start(&limited(&runtime, json!({})));
    let mut shown = Vec::new();
    for (flags, v1, v2) in FLAGS {
        let (file, want) = by_version(v1, v2);
        let controller = file.split('.').next().expect("CONTROLLER.FILE");
        let path = cgroup_of(container.pid(), controller).join(file);
        let is_newer = ["burst", "idle"].iter().any(|word| file.contains(word));
        let is_absent = !path.exists();
        if is_newer && runtime.differs(&format!("{file} is newer"))
            || is_absent && runtime.kind() == Kind::Keel
        {
            continue;
        }
        // Debian's runc has the formulas of its time: https://github.com/opencontainers/runc/pull/4785
        if *file == "cpu.weight" && runtime.differs("the formula for shares is newer") {
            continue;
        }
        change(&container, flags);
        let got = read(&container, file);
        if got != *want {
            shown.push(format!("{flags:?}: {file} is {got:?}, not {want:?}"));
        }
    }
    assert!(shown.is_empty(), "{}", shown.join("\n"));
}

#[test]
fn resources_come_from_a_file_or_from_stdin() {
    let runtime = Runtime::new();
    let container = runtime.start(&limited(&runtime, json!({})));
    let file = runtime.dir().join("resources.json");
    for limit in [5, 6] {
        let text = json!({ "pids": { "limit": limit } }).to_string();
        fs::write(&file, text).expect("the scratch directory is writable");
        let call = match limit {
            5 => container.call(&["update", "--resources", file.to_str().expect("UTF-8")]),
            _ => container
                .call(&["update", "--resources", "-"])
                .stdin(fs::File::open(&file).expect("just written")),
        };
        let _ = call.run().succeeds();
        assert_eq!(read(&container, "pids.max"), limit.to_string());
    }
}

#[test]
fn bad_updates_get_one_line_and_change_nothing() {
    let runtime = Runtime::new();
    let container = runtime.start(&limited(&runtime, json!({ "pids": { "limit": 50 } })));
    let rows: &[(&[&str], &str)] = &[
        (
            &["--memory", "20M", "--memory-swap", "10M"],
            "memory+swap limit should be >= memory limit",
        ),
        (&["--memory", "lots"], "lots"),
        (&["--cpu-quota", "999"], "999"),
        (&["--cpu-period", "10"], "10"),
        (&["--cpu-quota", "5000", "--cpu-burst", "6000"], "burst"),
        (&["--cpuset-cpus", "900"], "900"),
        (&["--cpuset-cpus", "a"], "a"),
        (&["--cpuset-mems", "900"], "900"),
        (&["--blkio-weight", "9"], "9"),
        (&["--blkio-weight", "1001"], "1001"),
        (&["--cpu-idle", "2"], "2"),
        (&["--pids-limit", "-2"], "-2"),
        (&["--l3-cache-schema", "L3:0=f"], "Intel RDT"),
        (&["--resources", "/dev/null"], "/dev/null"),
    ];
    for (flags, words) in rows {
        if runtime.differs("some are accepted, others said in other words") {
            return;
        }
        let run = container.call(&[&["update"], *flags].concat()).run();
        assert_ne!(run.code, 0, "{flags:?} is accepted");
        assert_eq!(run.stderr.lines().count(), 1, "{flags:?}: {}", run.stderr);
        assert!(run.stderr.contains(words), "{flags:?}: {}", run.stderr);
    }
    assert_eq!(read(&container, "pids.max"), "50");
}
