//! Filters in force: real system calls in a child, against the machine of these tests.

use serde_json::json;

use super::super::abi::Abi;
use super::super::compile;
use super::{Call, Random, profile, run};
use crate::sys::seccomp::child::{Ended, calls};

fn call(nr: libc::c_long, args: [u64; 6]) -> (i64, [u64; 6]) {
    (nr, args)
}

/// Everything that the child itself needs to tell its results.
const OWN: [&str; 2] = ["write", "exit_group"];

#[test]
fn a_loaded_filter_refuses_what_it_should_and_nothing_else() {
    let profile = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 3001},
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 3002, "args": [
            {"index": 0, "value": 38, "op": "SCMP_CMP_EQ"}]},
        {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 3003, "args": [
            {"index": 0, "value": 0xffff_ffff_u32, "op": "SCMP_CMP_NE"}]}]}));
    let filter = compile(&profile).unwrap();
    let made = [
        call(libc::SYS_getppid, [0; 6]),
        call(libc::SYS_socket, [38, 1, 0, 0, 0, 0]),
        call(libc::SYS_socket, [1, 1, 0, 0, 0, 0]),
        call(libc::SYS_personality, [8, 0, 0, 0, 0, 0]),
        call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]),
        call(libc::SYS_getpid, [0; 6]),
    ];
    let (results, ended) = calls(&filter.program, filter.flags, &made).unwrap();
    assert_eq!(ended, Ended::Exit(0));
    assert_eq!(results[..2], [-3001, -3002]);
    assert!(results[2] >= 0, "AF_UNIX: {}", results[2]);
    assert_eq!(results[3..5], [-3003, 0]);
    assert!(results[5] > 1, "getpid: {}", results[5]);
}

#[test]
fn calls_newer_than_the_profile_answer_enosys_and_older_ones_the_default() {
    let names = ["write", "exit_group", "faccessat2"];
    let profile = profile(
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 3001,
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}),
    );
    let filter = compile(&profile).unwrap();
    let made = [600, 440, libc::SYS_faccessat2 - 1, -1];
    let made = made.map(|nr| call(nr, [0; 6]));
    let (results, ended) = calls(&filter.program, filter.flags, &made).unwrap();
    assert_eq!(
        (results.as_slice(), ended),
        (&[-38, -38, -3001, -38][..], Ended::Exit(0))
    );
}

#[test]
fn killing_actions_end_the_process_with_sigsys() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let profile = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["getppid"], "action": action}]}));
        let filter = compile(&profile).unwrap();
        let made = [
            call(libc::SYS_getpid, [0; 6]),
            call(libc::SYS_getppid, [0; 6]),
        ];
        let (results, ended) = calls(&filter.program, filter.flags, &made).unwrap();
        assert_eq!(
            (results.len(), ended),
            (1, Ended::Signal(libc::SIGSYS)),
            "{action}"
        );
    }
}

#[test]
fn a_listener_comes_back_exactly_if_a_rule_notifies() {
    let profile = |action: &str| {
        profile(
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent",
            "syscalls": [{"names": ["getppid"], "action": action, "errnoRet": null}]}),
        )
    };
    for (action, listener) in [("SCMP_ACT_NOTIFY", true), ("SCMP_ACT_TRAP", false)] {
        let filter = compile(&profile(action)).unwrap();
        assert_eq!(filter.listener.is_some(), listener);
        // fcntl(3, F_GETFD): is there a descriptor where the listener would be?
        let probe = [call(-2, [0; 6])];
        let (results, _) = calls(&filter.program, filter.flags, &probe).unwrap();
        let close_on_exec = i64::from(libc::FD_CLOEXEC);
        assert_eq!(
            results[0],
            if listener { close_on_exec } else { -1 },
            "{action}"
        );
    }
}

#[test]
fn a_broken_program_is_refused_with_einval() {
    for program in [
        &[][..],
        &[crate::sys::seccomp::Insn {
            code: 0x20,
            jt: 0,
            jf: 0,
            k: 0,
        }],
    ] {
        let error = calls(program, 0, &[]).unwrap_err();
        assert_eq!(error, nix::errno::Errno::EINVAL);
    }
}

/// Calls that change nothing, whatever their arguments.
const HARMLESS: [(&str, libc::c_long); 8] = [
    ("getppid", libc::SYS_getppid),
    ("getpid", libc::SYS_getpid),
    ("getuid", libc::SYS_getuid),
    ("geteuid", libc::SYS_geteuid),
    ("getgid", libc::SYS_getgid),
    ("getegid", libc::SYS_getegid),
    ("gettid", libc::SYS_gettid),
    ("sched_yield", libc::SYS_sched_yield),
];

#[test]
fn ten_thousand_real_calls_get_the_verdict_of_the_tests_machine() {
    const OPERATORS: [&str; 7] = [
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_MASKED_EQ",
    ];
    let mut random = Random(7);
    let native = Abi::native().unwrap();
    for round in 0..20 {
        let mut rules = vec![json!({"names": OWN, "action": "SCMP_ACT_ALLOW"})];
        for i in 0..12 {
            let args = (0..1 + random.below(2)).map(|_| {
                json!({"index": random.below(3), "op": random.pick(&OPERATORS),
                       "value": random.value(), "valueTwo": random.value()})
            });
            let args = args.collect::<Vec<_>>();
            let action = if random.below(2) == 0 {
                "SCMP_ACT_ALLOW"
            } else {
                "SCMP_ACT_ERRNO"
            };
            let errno = (action == "SCMP_ACT_ERRNO").then_some(3000 + i);
            rules.push(
                json!({"names": [random.pick(&HARMLESS).0], "action": action,
                              "errnoRet": errno, "args": args}),
            );
        }
        let profile = profile(
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 3999,
                                     "syscalls": rules}),
        );
        let filter = compile(&profile).unwrap();
        let made: Vec<_> = (0..500)
            .map(|_| {
                let mut args = [0; 6];
                args.fill_with(|| random.value());
                call(random.pick(&HARMLESS).1, args)
            })
            .collect();
        let (results, ended) = calls(&filter.program, filter.flags, &made).unwrap();
        assert_eq!(
            (results.len(), ended),
            (made.len(), Ended::Exit(0)),
            "round {round}"
        );
        for ((nr, args), result) in made.into_iter().zip(results) {
            let arch = native.audit_arch();
            let seen = Call {
                arch,
                nr: nr as u32,
                args,
            };
            let (verdict, _) = run(&filter.program, &seen, native.is_big_endian());
            if verdict == libc::SECCOMP_RET_ALLOW {
                assert!(result > -3000, "{seen:?} {result}");
            } else {
                assert_eq!(
                    result,
                    -i64::from(verdict & libc::SECCOMP_RET_DATA),
                    "{seen:?}"
                );
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_other_doors_of_x86_64_are_shut_unless_the_profile_lists_them() {
    use crate::sys::seccomp::child::INT80;
    const X32: i64 = 0x4000_0000;
    let filter = |arches: &[&str]| {
        compile(&profile(
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": arches,
            "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 3001}]}),
        ))
        .unwrap()
    };
    let getpid_int80 = call(INT80 | 20, [0; 6]);
    let getppid_int80 = call(INT80 | 64, [0; 6]);
    let getppid_x32 = call(X32 | libc::SYS_getppid, [0; 6]);
    let both = filter(&["SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    let (results, _) = calls(&both.program, both.flags, &[getpid_int80]).unwrap();
    if results.is_empty() {
        println!("skipped: this kernel has no 32-bit calls (CONFIG_IA32_EMULATION)");
        return;
    }
    for door in [getppid_int80, getppid_x32] {
        let native = filter(&["SCMP_ARCH_X86_64"]);
        let (results, ended) = calls(&native.program, native.flags, &[door]).unwrap();
        assert_eq!(
            (results.len(), ended),
            (0, Ended::Signal(libc::SIGSYS)),
            "{:#x}",
            door.0
        );
    }
    let made = [getppid_int80, getppid_x32];
    let (results, ended) = calls(&both.program, both.flags, &made).unwrap();
    assert_eq!(
        (results.as_slice(), ended),
        (&[-3001, -3001][..], Ended::Exit(0))
    );
}
