//! What the targets in fuzz/ do with their bytes. The tests do the same with the seeds.

use std::collections::HashMap;
use std::path::Path;

use oci_spec::runtime::{LinuxIdMapping, Spec};
use serde_json::{Value, json};

use crate::bundle::{parse_process, parse_spec};
use crate::cgroups::{self, Host as Cgroups, Manager, Mount, Request, Version};
use crate::host::{Facts as HostFacts, Host};
use crate::plan::idmap;
use crate::plan::seccomp::tests::plain::assert_agreement;
use crate::plan::{Facts, Plan};
use crate::state::{Record, Status};
use crate::validate::{Asked, validate, validate_process};

/// config.json, from its text to the plan of a container: its cgroups are in their hierarchies.
///
/// # Panics
/// If they are not.
pub fn config(bytes: &[u8]) {
    let Ok(spec) = parse_spec(bytes, "config.json") else {
        return;
    };
    let _ = validate(&spec, &host(), Asked::default());
    for (manager, version) in [
        (Manager::Cgroupfs, Version::V1),
        (Manager::Cgroupfs, Version::V2),
        (Manager::Systemd, Version::V2),
    ] {
        plan(&spec, manager, version);
    }
}

fn host() -> Host {
    Host::fixed(HostFacts::default())
}

fn plan(spec: &Spec, manager: Manager, version: Version) {
    let linux = spec.linux().as_ref();
    let path = linux.and_then(|linux| linux.cgroups_path().as_ref());
    let request = Request {
        id: "fuzzed",
        cgroups_path: path.and_then(|path| path.to_str()),
        manager,
        rootless: false,
        annotations: spec.annotations().as_ref(),
        resources: linux.and_then(|linux| linux.resources().as_ref()),
        owner: cgroups::owner(spec),
    };
    let controllers = match version {
        Version::V1 => vec!["devices".into()],
        Version::V2 => Vec::new(),
    };
    let mount = Mount {
        point: "/sys/fs/cgroup".into(),
        root: "/".into(),
        controllers,
    };
    let host = Cgroups {
        version,
        mounts: vec![mount],
        own: "0::/own\n".into(),
        uid: 0,
    };
    let Ok(saved) = cgroups::plan_on(&request, &host) else {
        return;
    };
    for hierarchy in &saved.hierarchies {
        let mut steps = Path::new(&hierarchy.path).components();
        let inside = steps.all(|step| matches!(step, std::path::Component::Normal(_)));
        assert!(inside, "{:?} leaves the hierarchy", hierarchy.path);
    }
    let facts = Facts {
        id: "fuzzed",
        cgroup: Some(&saved),
        ..Facts::of(Path::new("/bundle"))
    };
    let _ = Plan::for_create(spec, &facts);
}

/// process.json, from its text to the plan of one more process.
pub fn process(bytes: &[u8]) {
    let Ok((process, _)) = parse_process(bytes, "process.json") else {
        return;
    };
    let _ = validate_process(&process, "process.json", "", &host());
    let facts = Facts::of(Path::new("/bundle"));
    let _ = Plan::for_exec("fuzzed", &process, &Spec::default(), &facts);
}

/// state.json: what is read is written again as it was.
///
/// # Panics
/// If it is not.
pub fn state(bytes: &[u8]) {
    let Ok(record) = serde_json::from_slice::<Record>(bytes) else {
        return;
    };
    let text = serde_json::to_vec(&record).expect("a record is JSON");
    let again: Record = serde_json::from_slice(&text).expect("we have written it");
    assert_eq!(record, again);
    for status in [Status::Created, Status::Stopped] {
        serde_json::to_string(&record.view(status, "root")).expect("a view is JSON");
        record.for_hooks(status);
    }
}

/// mountinfo, the files of cgroups, and systemd's answers: a container may have had a hand in them.
pub fn kernel_files(bytes: &[u8]) {
    cgroups::fuzz::dbus_message(bytes);
    cgroups::fuzz::kernel_files(&String::from_utf8_lossy(bytes));
}

/// What no annotation may set: it makes systemd execute, own or reach something.
const FORBIDDEN: [&str; 7] = [
    "Exec",
    "User",
    "Group",
    "Root",
    "Device",
    "Environment",
    "Slice",
];

/// `org.systemd.property.*`, as lines of name and value: none but harmless properties, and texts that
/// are nothing else, pass.
///
/// # Panics
/// If another does.
pub fn annotations(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let annotations: HashMap<String, String> = pairs
        .map(|(key, value)| (format!("org.systemd.property.{key}"), value.to_owned()))
        .collect();
    let is_plain =
        |text: &str| !text.contains(|c: char| c.is_control() || matches!(c, '\'' | '"' | '\\'));
    for (name, value) in cgroups::fuzz::annotated(&annotations).unwrap_or_default() {
        assert!(!FORBIDDEN.iter().any(|it| name.starts_with(it)), "{name}");
        match value {
            cgroups::Value::Text(text) => assert!(is_plain(&text), "{name}={text:?}"),
            cgroups::Value::Texts(texts) => {
                assert!(texts.iter().all(|it| is_plain(it)), "{name}={texts:?}");
            }
            _ => {}
        }
    }
}

/// Maps of ids, twelve bytes each: what passes is a table that the kernel and newuidmap(1) take, in
/// which no id is mapped twice.
///
/// # Panics
/// If one is.
pub fn id_maps(bytes: &[u8]) {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    let maps: Vec<[u32; 3]> = bytes
        .chunks_exact(12)
        .map(|map| [number(&map[..4]), number(&map[4..8]), number(&map[8..])])
        .collect();
    let json = maps.iter().map(
        |[inside, outside, size]| json!({"containerID": inside, "hostID": outside, "size": size}),
    );
    let mappings: Vec<LinuxIdMapping> =
        serde_json::from_value(json.collect()).expect("it has what a mapping needs");
    let Ok(text) = idmap::text(&mappings, ".m") else {
        return;
    };
    assert!(idmap::are_equal(&text, &text));
    let lines = text.lines().map(|line| {
        let numbers = line.split(' ').map(|word| word.parse::<u64>());
        let numbers: Vec<u64> = numbers.map(|it| it.expect("a number")).collect();
        <[u64; 3]>::try_from(numbers).expect("three numbers")
    });
    let lines: Vec<[u64; 3]> = lines.collect();
    assert!((1..=340).contains(&lines.len()));
    for side in [0, 1] {
        let mut extents: Vec<(u64, u64)> = lines
            .iter()
            .map(|it| (it[side], it[side] + it[2]))
            .collect();
        extents.sort_unstable();
        assert!(
            extents
                .iter()
                .all(|(start, end)| start < end && *end < 1 << 32)
        );
        assert!(extents.windows(2).all(|it| it[0].1 <= it[1].0), "{text}");
    }
}

/// Calls whose numbers differ between the tables, stand apart, or are at their ends.
const NAMES: [&str; 12] = [
    "read",
    "close",
    "kill",
    "mkdir",
    "clone3",
    "execve",
    "socketcall",
    "breakpoint",
    "rt_sigaction",
    "personality",
    "futex_waitv",
    "of_tomorrow",
];
const ACTIONS: [&str; 9] = [
    "ALLOW",
    "ERRNO",
    "KILL",
    "KILL_PROCESS",
    "KILL_THREAD",
    "TRAP",
    "TRACE",
    "LOG",
    "NOTIFY",
];
const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
const ARCHES: [&str; 10] = [
    "X86_64", "X86", "X32", "AARCH64", "ARM", "RISCV64", "PPC64LE", "S390X", "S390", "MIPS64",
];

/// Choices, made by bytes; zero when there are no more.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn below(&mut self, limit: u8) -> u8 {
        self.byte() % limit
    }

    fn name(&mut self, prefix: &str, list: &[&str]) -> String {
        format!("{prefix}{}", list[usize::from(self.byte()) % list.len()])
    }

    /// Small, at the ends of 32 and 64 bits, or anything.
    fn value(&mut self) -> u64 {
        let shift = self.below(64);
        let low = u64::from(self.byte());
        match self.below(3) {
            0 => low,
            1 => low << shift,
            _ => u64::MAX.wrapping_sub(low) >> shift,
        }
    }

    fn rule(&mut self) -> Value {
        let names: Vec<_> = (0..1 + self.below(3))
            .map(|_| self.name("", &NAMES))
            .collect();
        let args: Vec<Value> = (0..self.below(4))
            .map(|_| {
                let operator = self.name("SCMP_CMP_", &OPERATORS);
                json!({ "index": self.below(6), "op": operator, "value": self.value(), "valueTwo": self.value() })
            })
            .collect();
        let action = self.name("SCMP_ACT_", &ACTIONS);
        let mut rule = json!({ "names": names, "action": action, "args": args });
        if matches!(action.as_str(), "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") {
            rule["errnoRet"] = (self.value() % 4096).into();
        }
        rule
    }
}

/// The seccomp compiler: each profile's program answers each call as a plain reading of the profile.
///
/// # Panics
/// If one does not.
pub fn seccomp(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let native = choices.byte().into();
    let arches: Vec<_> = (0..choices.below(4))
        .map(|_| choices.name("SCMP_ARCH_", &ARCHES))
        .collect();
    let mut profile = json!({
        "defaultAction": choices.name("SCMP_ACT_", &ACTIONS),
        "architectures": arches,
        "listenerPath": "/run/agent.sock",
    });
    let rules: Vec<Value> = (0..choices.below(8)).map(|_| choices.rule()).collect();
    profile["syscalls"] = rules.into();
    let profile = serde_json::from_value(profile).expect("it has what a profile needs");
    let mut calls = Vec::new();
    while !choices.0.is_empty() {
        let (arch, nr) = (choices.value() as u32, choices.value() as u32);
        calls.push((arch, nr, [(); 6].map(|()| choices.value())));
    }
    assert_agreement(&profile, native, &calls);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_of_the_fuzz_targets_passes() {
        type Target = (&'static str, fn(&[u8]));
        let targets: &[Target] = &[
            ("annotations", annotations),
            ("config", config),
            ("id_maps", id_maps),
            ("kernel_files", kernel_files),
            ("process", process),
            ("seccomp", seccomp),
            ("state", state),
        ];
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        let named = std::fs::read_dir(&seeds).unwrap().flatten();
        let mut named: Vec<_> = named.map(|entry| entry.file_name()).collect();
        named.sort();
        let known: Vec<_> = targets.iter().map(|(name, _)| *name).collect();
        assert_eq!(named, known, "directories of fuzz/seeds");
        for (name, target) in targets {
            for seed in std::fs::read_dir(seeds.join(name)).unwrap().flatten() {
                let bytes = std::fs::read(seed.path()).unwrap();
                target(&bytes);
                // As it might come over a broken line.
                for end in 0..bytes.len().min(512) {
                    target(&bytes[..end]);
                }
            }
        }
    }
}
