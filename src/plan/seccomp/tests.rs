//! The compiler against a plain reading of the profile, call by call.

use oci_spec::runtime::{Arch, LinuxSeccompArg, LinuxSeccompOperator as Operator, LinuxSyscall};
use serde_json::{Value, json};

use super::abi::numbers;
use super::tables::{NONE, SYSCALLS};
use super::*;

const ABIS: [Abi; 9] = [
    Abi::X86_64,
    Abi::X86,
    Abi::X32,
    Abi::Aarch64,
    Abi::Arm,
    Abi::Riscv64,
    Abi::Ppc64le,
    Abi::S390x,
    Abi::S390,
];

/// What the kernel shows a filter of one call.
#[derive(Clone, Copy, Debug)]
struct Call {
    arch: u32,
    nr: u32,
    args: [u64; 6],
}

/// Runs `program` as the kernel does; the answer is its verdict and how many instructions it took.
///
/// # Panics
/// On any instruction that the kernel's checker would refuse.
fn run(program: &[Insn], call: &Call, big_endian: bool) -> (u32, usize) {
    let word = |offset: u32| match offset {
        NR => call.nr,
        ARCH => call.arch,
        16..64 if offset.is_multiple_of(4) => {
            let value = call.args[(offset as usize - 16) / 8];
            let high = offset.is_multiple_of(8) == big_endian;
            (value >> if high { 32 } else { 0 }) as u32
        }
        _ => panic!("load from {offset}"),
    };
    let (mut at, mut steps, mut a) = (0, 0, 0u32);
    loop {
        let Insn { code, jt, jf, k } = program[at];
        at += 1;
        steps += 1;
        let holds = match code {
            0x20 => {
                a = word(k);
                continue;
            }
            0x54 => {
                a &= k;
                continue;
            }
            0x05 => {
                at += k as usize;
                continue;
            }
            0x06 => return (k, steps),
            0x15 => a == k,
            0x25 => a > k,
            0x35 => a >= k,
            _ => panic!("instruction {code:#x}"),
        };
        at += usize::from(if holds { jt } else { jf });
    }
}

/// What the kernel's checker wants: no jump leaves the program, and its end is a return.
fn check(program: &[Insn]) {
    assert!(!program.is_empty() && program.len() <= MAX_INSNS);
    assert_eq!(program.last().unwrap().code, 0x06, "the end returns");
    for (at, insn) in program.iter().enumerate() {
        let farthest = match insn.code {
            0x05 => insn.k as usize,
            0x15 | 0x25 | 0x35 => usize::from(insn.jt.max(insn.jf)),
            _ => 0,
        };
        assert!(at + 1 + farthest < program.len() || insn.code == 0x06);
    }
}

/// A profile, read as its documentation says and nothing more.
struct Plain<'a> {
    profile: &'a LinuxSeccomp,
    native: Abi,
    /// The entries that name a call, by ABI and number, in the profile's order.
    named: BTreeMap<(Abi, u32), Vec<&'a LinuxSyscall>>,
    highest: BTreeMap<Abi, u32>,
}

impl<'a> Plain<'a> {
    fn new(profile: &'a LinuxSeccomp, native: Abi) -> Self {
        let mut named: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut highest: BTreeMap<_, u32> = BTreeMap::new();
        for entry in profile.syscalls().iter().flatten() {
            for row in entry.names().iter().filter_map(|name| numbers(name)) {
                for abi in ABIS {
                    let nr = row[abi as usize];
                    if nr == NONE {
                        continue;
                    }
                    named.entry((abi, nr)).or_default().push(entry);
                    if nr < ARM_PRIVATE {
                        let top = highest.entry(abi).or_default();
                        *top = nr.max(*top);
                    }
                }
            }
        }
        Self {
            profile,
            native,
            named,
            highest,
        }
    }

    fn listed(&self, abi: Abi) -> bool {
        let mut arches = self.profile.architectures().iter().flatten();
        abi == self.native
            || abi.same_kernel(self.native)
                && arches.any(|arch| Abi::of(*arch, self.native) == Some(abi))
    }

    fn verdict(&self, call: &Call) -> u32 {
        let x86_64 = call.arch == Abi::X86_64.audit_arch();
        let (abi, nr) = if x86_64 && call.nr >= X32_BIT {
            if self.listed(Abi::X32) {
                (Some(Abi::X32), call.nr & !X32_BIT)
            } else if call.nr == u32::MAX {
                (Some(Abi::X86_64), call.nr)
            } else {
                (None, 0)
            }
        } else {
            let mut abis = ABIS.into_iter().filter(|abi| *abi != Abi::X32);
            (abis.find(|abi| abi.audit_arch() == call.arch), call.nr)
        };
        match abi.filter(|abi| self.listed(*abi)) {
            Some(abi) => self.in_abi(abi, nr, &call.args),
            None => SECCOMP_RET_KILL_PROCESS,
        }
    }

    fn in_abi(&self, abi: Abi, nr: u32, args: &[u64; 6]) -> u32 {
        use LinuxSeccompAction as Action;
        let default = ret(
            self.profile.default_action(),
            self.profile.default_errno_ret(),
        );
        let lets_pass = matches!(
            self.profile.default_action(),
            Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
        );
        let has_args = |entry: &LinuxSyscall| entry.args().iter().flatten().next().is_some();
        let entries = self.named.get(&(abi, nr)).map_or(&[][..], Vec::as_slice);
        let effective: Vec<_> = entries
            .iter()
            .filter(|entry| {
                ret(entry.action(), entry.errno_ret()) != default || has_args(entry) && !lets_pass
            })
            .collect();
        if let Some(entry) = effective.iter().find(|entry| !has_args(entry)) {
            return ret(entry.action(), entry.errno_ret());
        }
        for entry in &effective {
            if matches(entry.args().as_deref().unwrap_or_default(), abi, args) {
                return ret(entry.action(), entry.errno_ret());
            }
        }
        let Some(highest) = self.highest.get(&abi).filter(|_| !lets_pass) else {
            return default;
        };
        let newer = nr > *highest && (abi != Abi::Arm || nr < ARM_PRIVATE);
        let multiplexed = nr == 0 && matches!(abi, Abi::S390 | Abi::S390x);
        if entries.is_empty() && (newer || multiplexed) {
            SECCOMP_RET_ERRNO | 38
        } else {
            default
        }
    }
}

fn ret(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(1);
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => 0,
        LinuxSeccompAction::ScmpActKillProcess => 0x8000_0000,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActErrno => 0x0005_0000 | data,
        LinuxSeccompAction::ScmpActNotify => 0x7fc0_0000,
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | data,
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
    }
}

fn matches(tests: &[LinuxSeccompArg], abi: Abi, args: &[u64; 6]) -> bool {
    let width = if abi.is_wide() { u64::MAX } else { 0xffff_ffff };
    let holds = |test: &LinuxSeccompArg| {
        let arg = args[test.index()] & width;
        let value = test.value() & width;
        let two = test.value_two().unwrap_or(0) & width;
        match test.op() {
            Operator::ScmpCmpNe => arg != value,
            Operator::ScmpCmpLt => arg < value,
            Operator::ScmpCmpLe => arg <= value,
            Operator::ScmpCmpEq => arg == value,
            Operator::ScmpCmpGe => arg >= value,
            Operator::ScmpCmpGt => arg > value,
            Operator::ScmpCmpMaskedEq => arg & value == two,
        }
    };
    let repeats = (0..6).any(|i| tests.iter().filter(|test| test.index() == i).count() > 1);
    if repeats {
        tests.iter().any(holds)
    } else {
        tests.iter().all(holds)
    }
}

/// SplitMix64: enough randomness to draw cases, and the same cases from the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Mostly values that stand close to one another, so that comparisons come out both ways.
    fn value(&mut self) -> u64 {
        const ANCHORS: [u64; 9] = [
            0,
            8,
            40,
            0x2_0000,
            0x7E02_0000,
            0xffff_ffff,
            0x1_0000_0000,
            0x28_0000_0028,
            u64::MAX,
        ];
        match self.below(8) {
            0 => self.next(),
            1 => self.next() & 0xffff_ffff,
            _ => self
                .pick(&ANCHORS)
                .wrapping_add(self.below(5) as u64)
                .wrapping_sub(2),
        }
    }
}

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];
const ARCHES: [Arch; 12] = [
    Arch::ScmpArchNative,
    Arch::ScmpArchX86_64,
    Arch::ScmpArchX86,
    Arch::ScmpArchX32,
    Arch::ScmpArchAarch64,
    Arch::ScmpArchArm,
    Arch::ScmpArchRiscv64,
    Arch::ScmpArchPpc64le,
    Arch::ScmpArchS390x,
    Arch::ScmpArchS390,
    Arch::ScmpArchMips64,
    Arch::ScmpArchLoongarch64,
];

fn random_profile(random: &mut Random) -> LinuxSeccomp {
    let names: Vec<&str> = (0..1 + random.below(6))
        .map(|_| random.pick(SYSCALLS).0)
        .collect();
    // Now and then a profile whose jumps are longer than a conditional jump reaches.
    let entries = if random.below(12) == 0 {
        60
    } else {
        random.below(8)
    };
    let syscalls: Vec<Value> = (0..entries)
        .map(|_| {
            let name = match random.below(10) {
                0 => "a_call_of_tomorrow",
                1..4 => random.pick(SYSCALLS).0,
                _ => *random.pick(&names),
            };
            let mut action = *random.pick(&ACTIONS);
            if name == "write" && action == "SCMP_ACT_NOTIFY" {
                action = "SCMP_ACT_LOG";
            }
            let args: Vec<Value> = (0..random.below(4))
                .map(|_| {
                    json!({"index": random.below(6), "op": random.pick(&OPERATORS),
                           "value": random.value(), "valueTwo": random.value()})
                })
                .collect();
            let mut entry = json!({"names": [name, random.pick(SYSCALLS).0],
                                   "action": action, "args": args});
            if name == "write" || entry["names"][1] == "write" {
                entry["action"] = "SCMP_ACT_ALLOW".into();
                action = "SCMP_ACT_ALLOW";
            }
            if matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") && random.below(2) == 0 {
                entry["errnoRet"] = random.below(4096).into();
            }
            entry
        })
        .collect();
    let arches: Vec<Arch> = (0..random.below(5))
        .map(|_| *random.pick(&ARCHES))
        .collect();
    let profile = json!({
        "defaultAction": ACTIONS[random.below(8)], "architectures": arches,
        "syscalls": syscalls, "listenerPath": "/run/agent.sock",
    });
    serde_json::from_value(profile).unwrap()
}

fn random_call(random: &mut Random, profile: &LinuxSeccomp, native: Abi) -> Call {
    let arch = match random.below(16) {
        0 => random.next() as u32,
        1..4 => random.pick(&ABIS).audit_arch(),
        4..6 if native == Abi::X86_64 => Abi::X86.audit_arch(),
        4..6 if native == Abi::Aarch64 => Abi::Arm.audit_arch(),
        4..6 if native == Abi::S390x => Abi::S390.audit_arch(),
        _ => native.audit_arch(),
    };
    let entries = profile.syscalls().as_deref().unwrap_or_default();
    let mut nr = match random.below(8) {
        0 => random.below(600) as u32,
        1 => *random.pick(&[
            0,
            1,
            334,
            462,
            512,
            548,
            0xf_0000,
            0xf_0005,
            u32::MAX,
            1 << 31,
        ]),
        2 => random.next() as u32,
        _ if entries.is_empty() => 1,
        _ => {
            let names = random.pick(entries).names();
            let name = random.pick(names);
            let abis = ABIS.iter().filter(|abi| abi.audit_arch() == arch);
            let numbers = numbers(name).unwrap_or(&[7; 9]);
            abis.map(|abi| numbers[*abi as usize]).next().unwrap_or(3)
        }
    };
    match random.below(16) {
        0 => nr = nr.wrapping_add(1),
        1 => nr = nr.wrapping_sub(1),
        2..5 if native == Abi::X86_64 => nr |= X32_BIT,
        _ => {}
    }
    let mut args = [0; 6];
    args.fill_with(|| random.value());
    Call { arch, nr, args }
}

#[test]
fn the_program_answers_every_call_as_a_plain_reading_of_the_profile() {
    // KEEL_SECCOMP_PROFILES=100000 makes ten million calls; use a release build for it.
    let number = |name: &str, or: u64| std::env::var(name).map_or(or, |n| n.parse().unwrap());
    let profiles = number("KEEL_SECCOMP_PROFILES", 1500);
    let seed = number("KEEL_SECCOMP_SEED", 1);
    let mut random = Random(seed);
    let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
    let (mut steps, mut longest) = (0, 0);
    for i in 0..profiles {
        let profile = random_profile(&mut random);
        let native = *random.pick(&ABIS);
        let native = if native == Abi::X32 {
            Abi::X86_64
        } else {
            native
        };
        let filter = compile_for(&profile, native).unwrap();
        check(&filter.program);
        longest = longest.max(filter.program.len());
        let plain = Plain::new(&profile, native);
        for _ in 0..100 {
            let call = random_call(&mut random, &profile, native);
            let (got, took) = run(&filter.program, &call, native.is_big_endian());
            let want = plain.verdict(&call);
            assert_eq!(
                format!("{got:#x}"),
                format!("{want:#x}"),
                "seed {seed}, profile {i}, {native:?}, {call:x?}: {}",
                serde_json::to_string(&profile).unwrap()
            );
            *seen.entry(got & libc::SECCOMP_RET_ACTION_FULL).or_default() += 1;
            steps += took;
        }
    }
    println!(
        "{} calls agree; {} instructions a call, longest program {longest}; verdicts {seen:x?}",
        profiles * 100,
        steps as u64 / (profiles * 100),
    );
    assert_eq!(seen.len(), 8, "every action is drawn: {seen:x?}");
    assert!(longest > 300, "long jumps are drawn: {longest}");
}

fn profile(value: Value) -> LinuxSeccomp {
    serde_json::from_value(value).unwrap()
}

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

const EPERM: u32 = SECCOMP_RET_ERRNO | 1;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = SECCOMP_RET_KILL_PROCESS;

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
            ".linux.seccomp.syscalls[1].names[0]: write cannot have the action SCMP_ACT_NOTIFY: \
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
    let error = compile_for(&rules(520), Abi::X86_64).unwrap_err().line();
    assert!(
        error.starts_with("config.json: .linux.seccomp.syscalls: compiles to 4"),
        "{error}"
    );
    assert!(error.ends_with("the kernel takes 4096: use fewer rules with args"));
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
