//! What the module's text promises, row by row.

use serde_json::{Value, json};

use super::super::abi::{Abi, X32_BIT};
use super::super::tables::SYSCALLS;
use super::super::*;
use super::{Call, check, profile, run};

const EPERM: u32 = SECCOMP_RET_ERRNO | 1;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = SECCOMP_RET_KILL_PROCESS;

fn verdict(value: Value, native: Abi, arch: Abi, nr: u32, args: [u64; 6]) -> u32 {
    let filter = compile_for(&profile(value), native).unwrap();
    let arch = arch.audit_arch();
    run(
        &filter.program,
        &Call { arch, nr, args },
        native.is_big_endian(),
    )
    .0
}

#[test]
fn what_the_truth_table_says_is_what_a_call_gets() {
    let allow = json!({"names": ["getppid"], "action": "SCMP_ACT_ALLOW"});
    let only_getppid = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [allow]});
    let with_x32 = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [allow],
                          "architectures": ["SCMP_ARCH_X32"]});
    let family = |n: u64, action: &str, op: &str| {
        json!({"names": ["socket"], "action": action,
               "args": [{"index": 0, "value": n, "op": op}]})
    };
    let deny_before_allow = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        family(38, "SCMP_ACT_ERRNO", "SCMP_CMP_EQ"),
        family(40, "SCMP_ACT_ALLOW", "SCMP_CMP_LT")]});
    let unconditional = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        family(38, "SCMP_ACT_LOG", "SCMP_CMP_EQ"),
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["socket"], "action": "SCMP_ACT_TRAP"}]});
    let same_index = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
            {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"},
            {"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}]}]});
    let newest = json!({"defaultAction": "SCMP_ACT_LOG", "syscalls": [
        {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]});
    let x = Abi::X86_64;
    let cases = [
        ("named", &only_getppid, x, 110, 0, ALLOW),
        ("not named", &only_getppid, x, 109, 0, EPERM),
        ("newer than the profile", &only_getppid, x, 111, 0, ENOSYS),
        ("far newer", &only_getppid, x, 600, 0, ENOSYS),
        ("syscall(-1)", &only_getppid, x, u32::MAX, 0, ENOSYS),
        ("x32 not listed", &only_getppid, x, 110 | X32_BIT, 0, KILL),
        ("x86 not listed", &only_getppid, Abi::X86, 64, 0, KILL),
        (
            "another machine's",
            &only_getppid,
            Abi::Aarch64,
            173,
            0,
            KILL,
        ),
        ("x32 listed", &with_x32, x, 110 | X32_BIT, 0, ALLOW),
        ("x32 not named", &with_x32, x, 109 | X32_BIT, 0, EPERM),
        ("native without being listed", &with_x32, x, 110, 0, ALLOW),
        (
            "a refusal like the default",
            &deny_before_allow,
            x,
            41,
            38,
            EPERM,
        ),
        ("its neighbour", &deny_before_allow, x, 41, 39, ALLOW),
        (
            "upper half counts",
            &deny_before_allow,
            x,
            41,
            1 << 32 | 2,
            EPERM,
        ),
        ("first without arguments", &unconditional, x, 41, 38, ALLOW),
        ("same index: first", &same_index, x, 41, 1, ALLOW),
        ("same index: second", &same_index, x, 41, 2, ALLOW),
        ("same index: neither", &same_index, x, 41, 3, EPERM),
        (
            "a default that lets pass is no ENOSYS",
            &newest,
            x,
            600,
            0,
            libc::SECCOMP_RET_LOG,
        ),
        ("errnoRet", &newest, x, 110, 0, SECCOMP_RET_ERRNO | 5),
    ];
    for (name, profile, arch, nr, arg, want) in cases {
        let got = verdict(profile.clone(), x, arch, nr, [arg, 0, 0, 0, 0, 0]);
        assert_eq!(format!("{got:#x}"), format!("{want:#x}"), "{name}");
    }
}

#[test]
fn number_zero_of_s390_answers_enosys_and_private_calls_of_arm_hide_nothing() {
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["getppid", "set_tls"], "action": "SCMP_ACT_ALLOW"}]});
    let cases = [
        (Abi::S390x, 0, ENOSYS),
        (Abi::S390x, 1, EPERM),
        (Abi::S390x, 64, ALLOW),
        (Abi::S390x, 65, ENOSYS),
        (Abi::Arm, 64, ALLOW),
        (Abi::Arm, 63, EPERM),
        (Abi::Arm, 500, ENOSYS),
        (Abi::Arm, 0xf_0004, EPERM),
        (Abi::Arm, 0xf_0005, ALLOW),
    ];
    for (abi, nr, want) in cases {
        let got = verdict(profile.clone(), abi, abi, nr, [0; 6]);
        assert_eq!(format!("{got:#x}"), format!("{want:#x}"), "{abi:?} {nr:#x}");
    }
}

#[test]
fn a_broken_rule_is_refused_with_its_json_path() {
    let arg = |index: u64| json!([{"index": index, "value": 0, "op": "SCMP_CMP_EQ"}]);
    let rule = |name: &str, action: &str| json!({"names": [name], "action": action});
    let with = |rule: Value| json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]});
    let cases = [
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            ".linux.seccomp.defaultAction: must not be SCMP_ACT_NOTIFY: \
             the container could not even start",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1}),
            ".linux.seccomp.defaultErrnoRet: SCMP_ACT_KILL has no errno: \
             remove it, or use SCMP_ACT_ERRNO",
        ),
        (
            with(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096})),
            ".linux.seccomp.syscalls[0].errnoRet: 4096 is above 4095, \
             the largest that SCMP_ACT_ERRNO can return",
        ),
        (
            with(json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": arg(6)})),
            ".linux.seccomp.syscalls[0].args[0].index: 6: \
             a system call has the arguments 0 to 5",
        ),
        (
            with(json!({"names": [], "action": "SCMP_ACT_ALLOW"})),
            ".linux.seccomp.syscalls[0].names: must name a system call at least",
        ),
        (
            with(rule("mount", "SCMP_ACT_NOTIFY")),
            ".linux.seccomp.listenerPath: must be set: a rule has the action SCMP_ACT_NOTIFY",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "listenerMetadata": "x"}),
            ".linux.seccomp.listenerMetadata: must not be set without listenerPath",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/a", "syscalls": [
                rule("read", "SCMP_ACT_ALLOW"), rule("write", "SCMP_ACT_NOTIFY")]}),
            ".linux.seccomp.syscalls[1].names[0]: SCMP_ACT_NOTIFY cannot be used for the write syscall: \
             the container needs it before its listener hears",
        ),
    ];
    for (value, want) in cases {
        let error = compile_for(&profile(value), Abi::X86_64).unwrap_err();
        assert_eq!(error.line(), format!("config.json: {want}"));
    }
}

#[test]
fn a_profile_beyond_the_kernels_limit_is_refused_and_says_so() {
    let args = |value: usize| {
        json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"},
               {"index": 1, "value": value, "op": "SCMP_CMP_EQ"}])
    };
    let rules = |count: usize| {
        let rule = |value| {
            json!({"names": ["ioctl"], "action": "SCMP_ACT_ALLOW",
                                  "args": args(value)})
        };
        let rules: Vec<Value> = (0..count).map(rule).collect();
        profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}))
    };
    let fits = compile_for(&rules(500), Abi::X86_64).unwrap();
    check(&fits.program);
    for count in [520, 5000] {
        let error = compile_for(&rules(count), Abi::X86_64).unwrap_err().line();
        assert_eq!(
            error,
            "config.json: .linux.seccomp.syscalls: compiles to more than 4096 instructions, \
             the most that the kernel takes: use fewer rules with args"
        );
    }
}

#[test]
fn a_hostile_profile_is_refused_without_compiling_all_of_it() {
    let started = std::time::Instant::now();
    let names: Vec<&str> = SYSCALLS.iter().map(|row| row.0).collect();
    let own = names.iter().map(|name| {
        json!({"names": [name], "action": "SCMP_ACT_TRAP",
               "args": [{"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}]})
    });
    let mut entries: Vec<Value> = own.collect();
    let alternatives: Vec<Value> = (0..1000)
        .map(|value| json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"}))
        .collect();
    let names = [names.clone(), names].concat();
    entries.push(json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": alternatives}));
    let hostile = profile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": entries}));
    compile_for(&hostile, Abi::X86_64).unwrap_err();
    // 500 chains of 1000 rules would be two million instructions.
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

#[test]
fn flags_and_listener_are_those_that_the_profile_asks_for() {
    const NOTIFY: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
    const WAIT: u32 = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32;
    let cases = [
        (json!(null), false, 4),
        (json!([]), false, 0),
        (
            json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]),
            false,
            2,
        ),
        (json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]), false, 0),
        (
            json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]),
            true,
            NOTIFY | WAIT,
        ),
        (json!(null), true, NOTIFY | 4),
    ];
    for (flags, notify, want) in cases {
        let action = if notify {
            "SCMP_ACT_NOTIFY"
        } else {
            "SCMP_ACT_ALLOW"
        };
        let filter = compile(&profile(json!({
            "defaultAction": "SCMP_ACT_ERRNO", "flags": flags, "listenerPath": "/run/agent",
            "listenerMetadata": "m", "syscalls": [{"names": ["mount"], "action": action}]})))
        .unwrap();
        assert_eq!(filter.flags, want, "{flags} {notify}");
        let listener = Listener {
            path: "/run/agent".into(),
            metadata: "m".into(),
        };
        assert_eq!(filter.listener, notify.then_some(listener));
    }
}
