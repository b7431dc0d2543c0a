//! The properties of a container's systemd unit: limits and annotations in systemd's words; pure.
//!
//! Limits go to the unit and to the cgroup's files both: systemd writes its own idea of them again
//! at a `daemon-reload`. Device rules go to the files alone on v2. systemd without rules of its own
//! (`DevicePolicy=auto`) attaches no program there and removes none, so that keel's stays the only
//! one; rules told to systemd are what made GPUs vanish at a reload (runc#3708). On v1 the same
//! policy allows every device at a reload, so there systemd is told the rules, too: `unit_devices`.
//! Sources: systemd.resource-control(5), systemd.scope(5), org.freedesktop.systemd1(5).

use std::collections::HashMap;

use cgroups_rs::systemd::{
    ALLOWED_CPUS, ALLOWED_MEMORY_NODES, BLOCK_IO_ACCOUNTING, CPU_ACCOUNTING, CPU_QUOTA_PER_SEC_US,
    CPU_QUOTA_PERIOD_US, CPU_SHARES, CPU_WEIGHT, DEFAULT_DEPENDENCIES, DELEGATE, DESCRIPTION,
    IO_ACCOUNTING, MEMORY_ACCOUNTING, MEMORY_LIMIT, MEMORY_LOW, MEMORY_MAX, MEMORY_SWAP_MAX, PIDS,
    SLICE, TASKS_ACCOUNTING, TASKS_MAX, WANTS,
};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::dbus::Value;
use super::limits::parse_list;
use super::limits_v2::{swap_max, weight_of_shares};
use super::{Unit, Version};
use crate::error::{Error, Result};

/// systemd keeps a quota as whole percents of a processor: microseconds in each second.
const PERCENT: u64 = 10_000;
const SECOND: u64 = 1_000_000;
/// The kernel's period where none is given, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;
const INFINITY: u64 = u64::MAX;
/// What an annotation's name begins with to become a property.
pub const ANNOTATION: &str = "org.systemd.property.";

/// One property of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    pub name: String,
    pub value: Value,
    /// An older systemd may not know it: the limit is written to the cgroup's files anyway.
    pub may_be_unknown: bool,
}

impl Property {
    pub fn new(name: &str, value: Value) -> Self {
        Self {
            name: name.into(),
            value,
            may_be_unknown: false,
        }
    }

    fn newer(name: &str, value: Value) -> Self {
        Self {
            may_be_unknown: true,
            ..Self::new(name, value)
        }
    }
}

/// The properties with which the unit is started around process `pid`.
pub fn start_properties(
    unit: &Unit,
    version: Version,
    pid: u32,
    resources: Option<&LinuxResources>,
) -> Result<Vec<Property>> {
    let text = |text: &str| Value::Text(text.to_owned());
    let mut list = vec![Property::new(
        DESCRIPTION,
        text(&format!("container {}", unit.name)),
    )];
    if unit.name.ends_with(".slice") {
        // A slice lies where its name says, and only wants its parent.
        list.push(Property::new(WANTS, Value::Texts(vec![unit.slice.clone()])));
    } else {
        list.push(Property::new(SLICE, text(&unit.slice)));
        list.push(Property::new(DELEGATE, Value::Bool(true)));
        list.push(Property::new(PIDS, Value::Numbers(vec![pid])));
    }
    let io = match version {
        Version::V1 => BLOCK_IO_ACCOUNTING,
        Version::V2 => IO_ACCOUNTING,
    };
    for name in [MEMORY_ACCOUNTING, CPU_ACCOUNTING, io, TASKS_ACCOUNTING] {
        list.push(Property::new(name, Value::Bool(true)));
    }
    list.push(Property::new(DEFAULT_DEPENDENCIES, Value::Bool(false)));
    if let Some(resources) = resources {
        list.extend(limit_properties(resources, version)?);
        list.extend(oom_policy(resources));
    }
    // Later ones win: an annotation may replace the description.
    for (name, value) in &unit.properties {
        list.retain(|property| property.name != *name);
        list.push(Property::new(name, value.clone()));
    }
    Ok(list)
}

/// The properties that hold `resources`; for a new unit and for an update.
pub fn limit_properties(resources: &LinuxResources, version: Version) -> Result<Vec<Property>> {
    let mut list = Vec::new();
    if let Some(memory) = resources.memory() {
        memory_properties(memory, version, &mut list)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu_properties(cpu, version, &mut list)?;
    }
    if let (Version::V1, Some(io)) = (version, resources.block_io())
        && let Some(weight) = io.weight().filter(|weight| *weight != 0)
    {
        list.push(Property::new("BlockIOWeight", Value::Number(weight.into())));
    }
    if let Some(pids) = resources.pids() {
        // 0 is refused by systemd; 1 is the same limit, see `limits_v1::pids_max`.
        let limit = u64::try_from(pids.limit()).map_or(INFINITY, |limit| limit.max(1));
        list.push(Property::new(TASKS_MAX, Value::Number(limit)));
    }
    for (file, value) in resources.unified().iter().flatten() {
        if let Some(property) = unified_property(file, value.trim()) {
            list.retain(|other: &Property| other.name != property.name);
            list.push(property);
        }
    }
    Ok(list)
}

fn memory_properties(
    memory: &LinuxMemory,
    version: Version,
    list: &mut Vec<Property>,
) -> Result<()> {
    let bytes = |bytes: i64| Value::Number(u64::try_from(bytes).unwrap_or(INFINITY));
    let given = |bytes: Option<i64>| bytes.filter(|bytes| *bytes != 0);
    let limit_name = match version {
        Version::V1 => MEMORY_LIMIT,
        Version::V2 => MEMORY_MAX,
    };
    if let Some(limit) = given(memory.limit()) {
        list.push(Property::new(limit_name, bytes(limit)));
    }
    if version == Version::V1 {
        return Ok(());
    }
    if let Some(reservation) = given(memory.reservation()) {
        list.push(Property::new(MEMORY_LOW, bytes(reservation)));
    }
    if let Some(swap) = swap_max(memory.limit().unwrap_or(0), memory.swap().unwrap_or(0))? {
        list.push(Property::new(
            MEMORY_SWAP_MAX,
            Value::Number(swap.parse().unwrap_or(INFINITY)),
        ));
    }
    Ok(())
}

fn cpu_properties(cpu: &LinuxCpu, version: Version, list: &mut Vec<Property>) -> Result<()> {
    let shares = cpu.shares().filter(|shares| *shares != 0);
    match (version, cpu.idle(), shares) {
        (Version::V1, _, Some(shares)) => {
            list.push(Property::new(CPU_SHARES, Value::Number(shares)))
        }
        // Weight 0 is `idle`, since systemd 252; it takes the place of any other weight.
        (Version::V2, Some(1), _) => list.push(Property::newer(CPU_WEIGHT, Value::Number(0))),
        (Version::V2, _, Some(shares)) => {
            let weight = weight_of_shares(shares).map(Value::Number);
            list.extend(weight.map(|weight| Property::new(CPU_WEIGHT, weight)));
        }
        _ => {}
    }
    let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
    if period != 0 {
        list.push(Property::newer(CPU_QUOTA_PERIOD_US, Value::Number(period)));
    }
    if quota != 0 || period != 0 {
        let per_second = quota_per_second(quota, period).unwrap_or(INFINITY);
        list.push(Property::new(
            CPU_QUOTA_PER_SEC_US,
            Value::Number(per_second),
        ));
    }
    if version == Version::V2 {
        for (name, text) in [
            (ALLOWED_CPUS, cpu.cpus()),
            (ALLOWED_MEMORY_NODES, cpu.mems()),
        ] {
            if let Some(text) = text.as_deref().filter(|text| !text.trim().is_empty()) {
                let numbers =
                    parse_list(text).map_err(|why| Error::spec(".linux.resources.cpu", why))?;
                list.push(Property::newer(name, Value::Bytes(mask(&numbers))));
            }
        }
    }
    Ok(())
}

/// Microseconds of processor time in each second, rounded up to systemd's percents; `None` for no
/// quota.
fn quota_per_second(quota: i64, period: u64) -> Option<u64> {
    let quota = u64::try_from(quota).ok().filter(|quota| *quota != 0)?;
    let period = if period == 0 { DEFAULT_PERIOD } else { period };
    let per_second = u128::from(quota) * u128::from(SECOND) / u128::from(period);
    Some(
        u64::try_from(per_second)
            .unwrap_or(INFINITY - PERCENT)
            .next_multiple_of(PERCENT),
    )
}

/// `resources` with the quota that systemd makes of it, for the cgroup's files: else the two would
/// take turns.
pub fn as_systemd_has_it(resources: &LinuxResources) -> LinuxResources {
    let mut rounded = resources.clone();
    let Some(cpu) = resources.cpu() else {
        return rounded;
    };
    let period = cpu
        .period()
        .filter(|period| *period != 0)
        .unwrap_or(DEFAULT_PERIOD);
    if let Some(per_second) = quota_per_second(cpu.quota().unwrap_or(0), period) {
        let quota = u128::from(per_second) * u128::from(period) / u128::from(SECOND);
        let mut cpu = cpu.clone();
        cpu.set_quota(i64::try_from(quota).ok());
        rounded.set_cpu(Some(cpu));
    }
    rounded
}

/// A bit for each number, lowest first, as systemd takes processors and memory nodes.
fn mask(numbers: &[u16]) -> Vec<u8> {
    let mut bits = Vec::new();
    for number in numbers {
        let byte = usize::from(number / 8);
        if bits.len() <= byte {
            bits.resize(byte + 1, 0);
        }
        bits[byte] |= 1 << (number % 8);
    }
    bits
}

/// The property of a v2 file, if systemd has one for it.
fn unified_property(file: &str, value: &str) -> Option<Property> {
    let number = || {
        Some(Value::Number(if value == "max" {
            INFINITY
        } else {
            value.parse().ok()?
        }))
    };
    let list = || Some(Value::Bytes(mask(&parse_list(value).ok()?)));
    match file {
        "cpu.idle" if value == "1" => Some(Property::newer(CPU_WEIGHT, Value::Number(0))),
        "cpu.weight" => Some(Property::new(CPU_WEIGHT, number()?)),
        "cpuset.cpus" => Some(Property::newer(ALLOWED_CPUS, list()?)),
        "cpuset.mems" => Some(Property::newer(ALLOWED_MEMORY_NODES, list()?)),
        "memory.high" => Some(Property::new("MemoryHigh", number()?)),
        "memory.low" => Some(Property::new(MEMORY_LOW, number()?)),
        "memory.max" => Some(Property::new(MEMORY_MAX, number()?)),
        "memory.min" => Some(Property::new("MemoryMin", number()?)),
        "memory.swap.max" => Some(Property::new(MEMORY_SWAP_MAX, number()?)),
        "pids.max" => Some(Property::new(TASKS_MAX, number()?)),
        "cpu.max" => {
            let (quota, period) = value.split_once(' ').unwrap_or((value, "0"));
            let quota = quota.parse().unwrap_or(-1);
            let per_second = quota_per_second(quota, period.trim().parse().ok()?);
            Some(Property::new(
                CPU_QUOTA_PER_SEC_US,
                Value::Number(per_second.unwrap_or(INFINITY)),
            ))
        }
        _ => None,
    }
}

/// `memory.oom.group` as the unit's policy, which can only be set at its start (systemd 253).
fn oom_policy(resources: &LinuxResources) -> Option<Property> {
    let policy = match resources
        .unified()
        .as_ref()?
        .get("memory.oom.group")?
        .trim()
    {
        "0" => "continue",
        "1" => "kill",
        _ => return None,
    };
    Some(Property::newer("OOMPolicy", Value::Text(policy.into())))
}

/// The type of a property that an annotation may set.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Bool,
    Int,
    Microseconds,
    Units,
}

/// What an annotation may set. An image can bring annotations along, so nothing is here that runs a
/// command, stops another unit or lifts a limit (CVE-2024-3154).
const ALLOWED: &[(&str, Kind)] = &[
    ("After", Kind::Units),
    ("Before", Kind::Units),
    ("CollectMode", Kind::Text),
    ("Description", Kind::Text),
    ("Documentation", Kind::Units),
    ("FinalKillSignal", Kind::Int),
    ("JobRunningTimeoutUSec", Kind::Microseconds),
    ("KillMode", Kind::Text),
    ("KillSignal", Kind::Int),
    ("ManagedOOMMemoryPressure", Kind::Text),
    ("ManagedOOMPreference", Kind::Text),
    ("ManagedOOMSwap", Kind::Text),
    ("OOMPolicy", Kind::Text),
    ("RuntimeMaxUSec", Kind::Microseconds),
    ("SendSIGHUP", Kind::Bool),
    ("SendSIGKILL", Kind::Bool),
    ("TimeoutStopUSec", Kind::Microseconds),
];

/// The properties that the annotations `org.systemd.property.NAME` set, in GVariant's text form;
/// names ending in `Sec` take seconds.
///
/// # Errors
/// [`Error::Spec`] for a property that is not in the list of the allowed, and for a value of
/// another type.
pub fn annotated(annotations: &HashMap<String, String>) -> Result<Vec<(String, Value)>> {
    let mut list = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(ANNOTATION) else {
            continue;
        };
        let refused = |why: String| Error::spec(format!(".annotations[{key:?}]"), why);
        let in_seconds = name.ends_with("Sec") && !name.ends_with("USec");
        let name = match name.strip_suffix("Sec") {
            Some(stem) if in_seconds => format!("{stem}USec"),
            _ => name.to_owned(),
        };
        let Some((_, kind)) = ALLOWED.iter().find(|(allowed, _)| *allowed == name) else {
            let names: Vec<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
            return Err(refused(format!(
                "not one of the allowed properties: {}",
                names.join(", ")
            )));
        };
        let value = match kind {
            Kind::Microseconds if in_seconds => seconds(text),
            _ => value(*kind, text.trim()),
        };
        let value = value.ok_or_else(|| {
            let wanted = match kind {
                Kind::Text => "a text in quotes, like 'text'",
                Kind::Bool => "true or false",
                Kind::Int => "a number, like 15",
                Kind::Microseconds => "a number, like uint64 5000000",
                Kind::Units => "a list of texts, like ['a.service']",
            };
            refused(format!("{text:.80?} is not {wanted}"))
        })?;
        list.push((name, value));
    }
    list.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(list)
}

fn value(kind: Kind, text: &str) -> Option<Value> {
    match kind {
        Kind::Text => quoted(text).map(Value::Text),
        Kind::Bool => text.parse().ok().map(Value::Bool),
        Kind::Int => text
            .trim_start_matches("int32 ")
            .trim()
            .parse()
            .ok()
            .map(Value::Int),
        Kind::Microseconds => text
            .trim_start_matches("uint64 ")
            .trim()
            .parse()
            .ok()
            .map(Value::Number),
        Kind::Units => {
            let inside = text.strip_prefix('[')?.strip_suffix(']')?.trim();
            if inside.is_empty() {
                return Some(Value::Texts(Vec::new()));
            }
            let texts: Option<Vec<String>> =
                inside.split(',').map(|text| quoted(text.trim())).collect();
            texts.map(Value::Texts)
        }
    }
}

/// Whole or broken seconds as microseconds, with or without a type in front.
fn seconds(text: &str) -> Option<Value> {
    let number = text.trim().rsplit(' ').next()?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits: String = part.chars().chain("000000".chars()).take(6).collect();
    let microseconds = whole.parse::<u64>().ok()?.checked_mul(SECOND)?;
    microseconds
        .checked_add(digits.parse().ok()?)
        .map(Value::Number)
}

/// A text between equal quotes, without escapes or control characters.
fn quoted(text: &str) -> Option<String> {
    let inside = ['\'', '"']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))?;
    let is_plain = |c: char| c != '\\' && c != '\'' && c != '"' && !c.is_control();
    inside.chars().all(is_plain).then(|| inside.to_owned())
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxCpuBuilder;

    use super::*;

    fn shown(list: &[Property]) -> Vec<String> {
        list.iter()
            .map(
                |Property {
                     name,
                     value,
                     may_be_unknown,
                 }| {
                    let value = match value {
                        Value::Text(text) => text.clone(),
                        Value::Bool(is_so) => is_so.to_string(),
                        Value::Int(number) => number.to_string(),
                        Value::Number(INFINITY) => "infinity".into(),
                        Value::Number(number) => number.to_string(),
                        Value::Texts(texts) => texts.join(" "),
                        Value::Numbers(numbers) => format!("{numbers:?}"),
                        Value::Bytes(bytes) => format!("{bytes:?}"),
                        Value::Pairs(pairs) => format!("{pairs:?}"),
                    };
                    format!("{name}={value}{}", if *may_be_unknown { "?" } else { "" })
                },
            )
            .collect()
    }

    #[test]
    fn limits_become_properties() {
        use Version::{V1, V2};
        let cases: &[(Version, &str, &[&str])] = &[
            (V2, "{}", &[]),
            (
                V2,
                r#"{"memory":{"limit":-1}}"#,
                &["MemoryMax=infinity", "MemorySwapMax=infinity"],
            ),
            (
                V2,
                r#"{"memory":{"limit":5,"swap":5,"reservation":3}}"#,
                &["MemoryMax=5", "MemoryLow=3", "MemorySwapMax=0"],
            ),
            (
                V1,
                r#"{"memory":{"limit":5,"swap":6,"reservation":3}}"#,
                &["MemoryLimit=5"],
            ),
            (V2, r#"{"cpu":{"shares":512}}"#, &["CPUWeight=59"]),
            (V1, r#"{"cpu":{"shares":512}}"#, &["CPUShares=512"]),
            (V2, r#"{"cpu":{"shares":512,"idle":1}}"#, &["CPUWeight=0?"]),
            (
                V2,
                r#"{"cpu":{"quota":5000}}"#,
                &["CPUQuotaPerSecUSec=50000"],
            ),
            (
                V2,
                r#"{"cpu":{"quota":5001}}"#,
                &["CPUQuotaPerSecUSec=60000"],
            ),
            (
                V2,
                r#"{"cpu":{"quota":-1,"period":50000}}"#,
                &["CPUQuotaPeriodUSec=50000?", "CPUQuotaPerSecUSec=infinity"],
            ),
            (
                V2,
                r#"{"cpu":{"cpus":"0-1,9","mems":"0"}}"#,
                &["AllowedCPUs=[3, 2]?", "AllowedMemoryNodes=[1]?"],
            ),
            (
                V1,
                r#"{"cpu":{"cpus":"0"},"blockIO":{"weight":100}}"#,
                &["BlockIOWeight=100"],
            ),
            (V2, r#"{"pids":{"limit":0}}"#, &["TasksMax=1"]),
            (V2, r#"{"pids":{"limit":-1}}"#, &["TasksMax=infinity"]),
            (
                V2,
                r#"{"pids":{"limit":5},"unified":{"pids.max":"7"}}"#,
                &["TasksMax=7"],
            ),
            (
                V2,
                r#"{"unified":{"memory.high":"9","hugetlb.2MB.max":"0"}}"#,
                &["MemoryHigh=9"][..],
            ),
            (
                V2,
                r#"{"unified":{"cpu.max":"50000 100000"}}"#,
                &["CPUQuotaPerSecUSec=500000"],
            ),
            (
                V2,
                r#"{"unified":{"cpu.max":"max"}}"#,
                &["CPUQuotaPerSecUSec=infinity"],
            ),
        ];
        for (version, json, want) in cases {
            let resources: LinuxResources = serde_json::from_str(json).unwrap();
            assert_eq!(
                shown(&limit_properties(&resources, *version).unwrap()),
                *want,
                "{json}"
            );
        }
    }

    #[test]
    fn the_files_get_the_quota_that_systemd_rounds_to() {
        for (quota, want) in [(5001_i64, 6000_i64), (5000, 5000), (-1, -1)] {
            let cpu = LinuxCpuBuilder::default()
                .quota(quota)
                .period(100_000_u64)
                .build()
                .unwrap();
            let mut resources = LinuxResources::default();
            resources.set_cpu(Some(cpu));
            let rounded = as_systemd_has_it(&resources);
            assert_eq!(
                rounded.cpu().as_ref().unwrap().quota(),
                Some(want),
                "{quota}"
            );
        }
    }

    fn unit(name: &str) -> Unit {
        let properties = vec![("Description".to_owned(), Value::Text("mine".into()))];
        Unit {
            slice: "a.slice".into(),
            name: name.into(),
            user: false,
            properties,
        }
    }

    #[test]
    fn a_scope_holds_the_process_and_a_slice_wants_its_parent() {
        let json = r#"{"unified":{"memory.oom.group":"1"}}"#;
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let scope = start_properties(&unit("x.scope"), Version::V2, 7, Some(&resources)).unwrap();
        let want = [
            "Slice=a.slice",
            "Delegate=true",
            "PIDs=[7]",
            "MemoryAccounting=true",
            "CPUAccounting=true",
            "IOAccounting=true",
            "TasksAccounting=true",
            "DefaultDependencies=false",
            "OOMPolicy=kill?",
            "Description=mine",
        ];
        assert_eq!(shown(&scope), want);
        let slice = start_properties(&unit("a-x.slice"), Version::V1, 7, None).unwrap();
        assert_eq!(
            shown(&slice)[..2],
            ["Wants=a.slice", "MemoryAccounting=true"]
        );
    }

    const REFUSED: &str = "not one of the allowed properties";

    /// Name, value, and what becomes of it or a part of the refusal.
    const ANNOTATIONS: &[(&str, &str, &str)] = &[
        ("TimeoutStopUSec", "uint64 5", "TimeoutStopUSec=5"),
        ("TimeoutStopSec", "1.5", "TimeoutStopUSec=1500000"),
        ("TimeoutStopSec", "uint32 2", "TimeoutStopUSec=2000000"),
        (
            "CollectMode",
            "'inactive-or-failed'",
            "CollectMode=inactive-or-failed",
        ),
        ("SendSIGHUP", "true", "SendSIGHUP=true"),
        ("KillSignal", "int32 15", "KillSignal=15"),
        (
            "After",
            "['a.service', \"b.service\"]",
            "After=a.service b.service",
        ),
        ("After", "[]", "After="),
        ("ExecStart", "'/bin/sh'", REFUSED),
        ("ExecStopPost", "[]", REFUSED),
        ("Conflicts", "['sshd.service']", REFUSED),
        ("DeviceAllow", "[]", REFUSED),
        ("MemoryMax", "uint64 5", REFUSED),
        ("PIDs", "[1]", REFUSED),
        ("Sec", "1", REFUSED),
        ("KillMode", "mixed", "is not a text in quotes"),
        ("KillMode", "'mixed", "is not a text in quotes"),
        ("KillMode", "'a\\n'", "is not a text in quotes"),
        ("SendSIGHUP", "1", "is not true or false"),
        ("TimeoutStopUSec", "-1", "is not a number"),
        ("TimeoutStopSec", "18446744073709551615", "is not a number"),
        ("After", "'a'", "is not a list of texts"),
    ];

    #[test]
    fn only_harmless_properties_with_the_right_type_are_taken_from_annotations() {
        for (name, text, want) in ANNOTATIONS {
            let annotations = HashMap::from([(format!("{ANNOTATION}{name}"), (*text).to_owned())]);
            match annotated(&annotations) {
                Ok(list) => {
                    let list: Vec<_> = list
                        .into_iter()
                        .map(|(n, v)| Property::new(&n, v))
                        .collect();
                    assert_eq!(shown(&list), [*want], "{name} {text}");
                }
                Err(error) => assert!(error.line().contains(want), "{name}: {}", error.line()),
            }
        }
        let other = HashMap::from([("org.example".to_owned(), "x".to_owned())]);
        assert_eq!(annotated(&other).unwrap(), []);
    }
}
