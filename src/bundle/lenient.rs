//! Where `oci_spec` refuses what the specification or runc accepts, and what is done about it.
//!
//! - an unknown capability "MUST be logged as a warning" (config.md, "Linux Process");
//! - a member that is `null` is a member that is absent (Go's rule; engines in Go print such);
//! - `process.user` may be absent and `process.cwd` gets its own words in `validate`;
//! - the scheduler flags have other names in the specification than in `oci_spec` 0.10;
//! - seccomp without a default action and without system calls is no filter (runc);
//! - the sections of other platforms are not keel's to judge.

use oci_spec::runtime::Capability;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// What a tree is, and so what may need repair in it.
pub enum Lenient {
    /// The document is a config.json.
    Spec,
    /// The document is its `process` object.
    Process,
}

/// The specification's name (config.md, "Linux Process", `scheduler.flags`), and `oci_spec`'s.
const SCHEDULER_FLAGS: &[(&str, &str)] = &[
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// Objects whose member names are data: a `null` in them is no absent field.
const MAPS: &[&str] = &[
    "annotations",
    "sysctl",
    "netDevices",
    "timeOffsets",
    "rdma",
    "unified",
];

impl Lenient {
    /// Repairs `tree`, which was read from `file`; what is left out goes to `warnings`.
    pub fn repair(&self, tree: &mut Value, file: &str, warnings: &mut Vec<String>) {
        drop_nulls(tree);
        match self {
            Self::Process => repair_process(tree, &format!("{file}: "), warnings),
            Self::Spec => {
                let Value::Object(spec) = tree else { return };
                for platform in ["solaris", "windows", "vm", "zos"] {
                    spec.remove(platform);
                }
                if let Some(process) = spec.get_mut("process") {
                    repair_process(process, &format!("{file}: .process"), warnings);
                }
                if let Some(Value::Object(linux)) = spec.get_mut("linux") {
                    drop_empty_seccomp(linux);
                }
            }
        }
    }
}

fn drop_nulls(tree: &mut Value) {
    match tree {
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            for (key, value) in members {
                if !MAPS.contains(&key.as_str()) {
                    drop_nulls(value);
                }
            }
        }
        _ => {}
    }
}

fn repair_process(process: &mut Value, at: &str, warnings: &mut Vec<String>) {
    let Value::Object(process) = process else {
        return;
    };
    process
        .entry("user")
        .or_insert_with(|| Value::Object(Map::new()));
    process
        .entry("cwd")
        .or_insert_with(|| Value::String(String::new()));
    if let Some(Value::Object(sets)) = process.get_mut("capabilities") {
        let mut unknown = BTreeSet::new();
        for names in sets.values_mut() {
            let Value::Array(names) = names else { continue };
            names.retain(|name| is_capability(name, &mut unknown));
        }
        if !unknown.is_empty() {
            // runc's words, once for all sets.
            let names = Vec::from_iter(unknown).join(" ");
            warnings.push(format!(
                "{at}.capabilities: ignoring unknown or unavailable capabilities: [{names}]"
            ));
        }
    }
    if let Some(Value::Object(affinity)) = process.get_mut("execCPUAffinity") {
        affinity.retain(|_, cpus| cpus != "");
    }
    let flags = process
        .get_mut("scheduler")
        .and_then(|s| s.get_mut("flags"));
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some((_, theirs)) = SCHEDULER_FLAGS.iter().find(|(ours, _)| flag == ours) {
            *flag = Value::from(*theirs);
        }
    }
}

/// A value that is no string is kept: the decoder has the better words for it.
fn is_capability(name: &Value, unknown: &mut BTreeSet<String>) -> bool {
    let Value::String(text) = name else {
        return true;
    };
    let known = serde_json::from_value::<Capability>(name.clone()).is_ok();
    if !known {
        unknown.insert(text.escape_debug().to_string());
    }
    known
}

fn drop_empty_seccomp(linux: &mut Map<String, Value>) {
    let Some(Value::Object(seccomp)) = linux.get("seccomp") else {
        return;
    };
    // A value of another type is kept, for the decoder to refuse.
    let absent = |key: &str| match seccomp.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    };
    if absent("defaultAction") && absent("syscalls") {
        linux.remove("seccomp");
    }
}
