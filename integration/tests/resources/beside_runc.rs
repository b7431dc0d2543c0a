//! `update` and `events` beside Debian's runc in the same run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use integration::{Container, Runtime, by_version, is_v2};
use serde_json::{Value, json};

use super::{RUNC, cgroup_of, limited};

/// The runtime under test and Debian's runc; nothing (said and counted) if there is but one.
fn both() -> Option<(Runtime, Runtime)> {
    let ours = Runtime::new();
    let lacks = ours.host_lacks("Debian's runc", !Path::new(RUNC).exists());
    if lacks || ours.differs("it is the other side") {
        return None;
    }
    let theirs = ours.peer(RUNC);
    Some((ours, theirs))
}

/// Flags of `update`, one after the other, and where runc 1.1.5 differs on v2, with the reason.
#[rustfmt::skip]
const STEPS: &[(&[&str], &str)] = &[
    (&["--memory", "64M"], ""),
    (&["--memory", "64M", "--memory-swap", "96M"], ""),
    (&["--memory", "80M", "--memory-swap", "80M"], ""),
    (&["--memory-reservation", "32M"], ""),
    (&["--memory", "48M", "--memory-reservation", "16M"], "it forgets the sum of memory and swap"),
    (&["--memory", "48M", "--memory-swap", "64M"], ""),
    (&["--cpu-quota", "30000"], ""),
    (&["--cpu-period", "50000"], ""),
    (&["--cpu-quota", "60000", "--cpu-period", "200000"], ""),
    (&["--cpu-quota", "-1"], ""),
    (&["--cpuset-cpus", "0"], ""),
    (&["--cpuset-cpus", "0-1"], ""),
    (&["--cpuset-mems", "0"], ""),
    (&["--pids-limit", "77"], ""),
    (&["--pids-limit", "-1"], ""),
    (&["--blkio-weight", "500"], ""),
    (&["--memory", "1T", "--memory-swap", "-1"], ""),
    (&["--memory", "-1"], ""),
];

/// The files that `update` writes.
const FILES: [&[&str]; 2] = [
    &[
        "cpu.cfs_quota_us",
        "cpu.cfs_period_us",
        "cpu.shares",
        "cpuset.cpus",
        "cpuset.mems",
        "memory.limit_in_bytes",
        "memory.soft_limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "pids.max",
        "blkio.bfq.weight",
        "blkio.weight",
    ],
    &[
        "cpu.max",
        "cpu.weight",
        "cpuset.cpus",
        "cpuset.mems",
        "memory.max",
        "memory.low",
        "memory.high",
        "memory.swap.max",
        "pids.max",
        "io.weight",
        "io.bfq.weight",
    ],
];

/// What the files of [`FILES`] hold, those that there are.
fn held(container: &Container<'_>) -> BTreeMap<&'static str, String> {
    let files = FILES[usize::from(is_v2())].iter().copied();
    let texts = files.filter_map(|file| {
        let controller = file.split('.').next().expect("CONTROLLER.FILE");
        let text = fs::read_to_string(cgroup_of(container.pid(), controller).join(file));
        text.ok().map(|text| (file, text))
    });
    texts.collect()
}

#[test]
fn updates_leave_the_same_values_as_those_of_debians_runc() {
    let Some((ours, theirs)) = both() else { return };
    let [one, other] = [&ours, &theirs].map(|it| it.start(&limited(it, json!({}))));
    assert!(held(&one).len() >= by_version(8, 9), "{:?}", held(&one));
    assert_eq!(held(&one), held(&other), "at the start");
    let mut wrong = Vec::new();
    for (flags, differs) in STEPS {
        // A kernel without the file for a weight makes both fail.
        let codes = [&one, &other].map(|it| it.call(&[&["update"], *flags].concat()).run().code);
        let (mine, its) = (held(&one), held(&other));
        if (mine == its && codes[0] == codes[1]) != (differs.is_empty() || !is_v2()) {
            let unequal = mine
                .iter()
                .filter(|(file, text)| its.get(*file) != Some(text));
            let unequal =
                unequal.map(|(file, text)| format!("{file}: {text:?}, {:?}", its.get(file)));
            wrong.push(format!(
                "{flags:?} {codes:?} {}",
                unequal.collect::<Vec<_>>().join("; ")
            ));
        }
    }
    assert!(wrong.is_empty(), "keel, runc:\n{}", wrong.join("\n"));
}

/// Every way through the keys of an object, and the kind of the value at its end.
fn ways(value: &Value, way: &str, into: &mut BTreeMap<String, &'static str>) {
    let kind = match value {
        Value::Object(members) => {
            for (key, member) in members {
                ways(member, &format!("{way}.{key}"), into);
            }
            "object"
        }
        Value::Array(items) => {
            for item in items {
                ways(item, &format!("{way}[]"), into);
            }
            "array"
        }
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        Value::Null => "null",
    };
    into.insert(way.to_owned(), kind);
}

#[test]
fn events_have_the_keys_of_debians_runc() {
    let Some((ours, theirs)) = both() else { return };
    let keys = [&ours, &theirs].map(|runtime| {
        let limits = json!({ "pids": { "limit": 50 }, "memory": { "limit": 256 << 20 } });
        let mut bundle = limited(runtime, limits);
        // So that no count is zero, which both leave out.
        bundle.sh("dd if=/dev/zero of=/data bs=64k count=64 conv=fsync; echo written; sleep 1000");
        let container = runtime.start(&bundle);
        container.wait_for_stdout("written");
        let stats = container
            .call(&["events", "--stats"])
            .run()
            .succeeds()
            .json();
        let mut keys = BTreeMap::new();
        ways(&stats, "", &mut keys);
        container.finish();
        keys
    });
    let [ours, theirs] = keys;
    assert!(theirs.len() > 60, "{theirs:?}");
    let lacking = theirs
        .iter()
        .filter(|(way, kind)| ours.get(*way) != Some(kind));
    let lacking: Vec<_> = lacking.collect();
    // runc has the pressure since 1.2 and the peak on v2 since 1.3; on a hybrid host it does not look
    // for huge pages on v2.
    let newer = [".psi", ".hugetlb.", ".memory.usage.max"];
    let more = ours
        .keys()
        .filter(|way| !theirs.contains_key(*way) && !newer.iter().any(|part| way.contains(part)));
    let more: Vec<_> = more.collect();
    assert!(
        lacking.is_empty() && more.is_empty(),
        "lacking {lacking:?}, more {more:?}"
    );
}
