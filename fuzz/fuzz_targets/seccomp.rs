//! The seccomp compiler: each profile's program answers each call as a plain reading of the profile.

#![no_main]

use keel::plan::seccomp::tests::plain::assert_agreement;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

#[derive(Arbitrary, Debug)]
struct Input {
    native: u8,
    default: u8,
    arches: Vec<u8>,
    rules: Vec<Rule>,
    calls: Vec<(u32, u32, [u64; 6])>,
}

#[derive(Arbitrary, Debug)]
struct Rule {
    names: Vec<u8>,
    action: u8,
    errno: Option<u16>,
    args: Vec<(u8, u8, u64, u64)>,
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
const ACTIONS: [&str; 8] = [
    "ALLOW",
    "ERRNO",
    "KILL",
    "KILL_PROCESS",
    "KILL_THREAD",
    "TRAP",
    "TRACE",
    "LOG",
];
const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
const ARCHES: [&str; 10] = [
    "X86_64", "X86", "X32", "AARCH64", "ARM", "RISCV64", "PPC64LE", "S390X", "S390", "MIPS64",
];

fn pick(list: &[&str], at: u8, prefix: &str) -> String {
    format!("{prefix}{}", list[usize::from(at) % list.len()])
}

fn rule(rule: &Rule) -> Value {
    let names: Vec<String> = rule.names.iter().map(|at| pick(&NAMES, *at, "")).collect();
    let args: Vec<Value> = rule
        .args
        .iter()
        .map(|(index, operator, value, two)| {
            let operator = pick(&OPERATORS, *operator, "SCMP_CMP_");
            json!({ "index": index % 6, "op": operator, "value": value, "valueTwo": two })
        })
        .collect();
    let action = pick(&ACTIONS, rule.action, "SCMP_ACT_");
    let mut value = json!({ "names": names, "action": action, "args": args });
    if let (Some(errno), "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") = (rule.errno, action.as_str()) {
        value["errnoRet"] = (errno % 4096).into();
    }
    value
}

fuzz_target!(|input: Input| {
    let arches: Vec<String> = input
        .arches
        .iter()
        .map(|at| pick(&ARCHES, *at, "SCMP_ARCH_"))
        .collect();
    let rules: Vec<Value> = input.rules.iter().map(rule).collect();
    let profile = json!({
        "defaultAction": pick(&ACTIONS, input.default, "SCMP_ACT_"),
        "architectures": arches,
        "syscalls": rules,
    });
    // A rule without names does not decode.
    if let Ok(profile) = serde_json::from_value(profile) {
        assert_agreement(&profile, input.native.into(), &input.calls);
    }
});
