//! The compiler against a plain reading of the profile, call by call.

use std::collections::BTreeMap;

use libc::{SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator as Operator,
    LinuxSyscall,
};
use serde_json::{Value, json};

use super::super::abi::{Abi, X32_BIT, numbers};
use super::super::compile_for;
use super::super::tables::{NONE, SYSCALLS};
use super::{ABIS, Call, Random, check, run};

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
                    if !stands_apart(abi, nr) {
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
        let newer = nr > *highest && !stands_apart(abi, nr);
        let multiplexed = nr == 0 && matches!(abi, Abi::S390 | Abi::S390x);
        if entries.is_empty() && (newer || multiplexed) {
            SECCOMP_RET_ERRNO | 38
        } else {
            default
        }
    }
}

/// Numbers out of order: ARM's private calls, and x32's own.
fn stands_apart(abi: Abi, nr: u32) -> bool {
    match abi {
        Abi::Arm => (0xf_0000..=0xf_ffff).contains(&nr),
        Abi::X32 => (512..=547).contains(&nr),
        _ => false,
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
            Operator::ScmpCmpMaskedEq => arg & value == two & value,
        }
    };
    let repeats = (0..6).any(|i| tests.iter().filter(|test| test.index() == i).count() > 1);
    if repeats {
        tests.iter().any(holds)
    } else {
        tests.iter().all(holds)
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
    serde_json::from_value(profile).expect("it has what a profile needs")
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
            511,
            547,
            0x10_0000,
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

/// That the compiled profile answers `calls` (arch, number, arguments) as a plain reading of it does;
/// a profile that is refused is not looked at. What the fuzz target asks.
///
/// # Panics
/// If it does not.
pub fn assert_agreement(profile: &LinuxSeccomp, native: usize, calls: &[(u32, u32, [u64; 6])]) {
    let natives: Vec<Abi> = ABIS.into_iter().filter(|abi| *abi != Abi::X32).collect();
    let native = natives[native % natives.len()];
    let Ok(filter) = compile_for(profile, native) else {
        return;
    };
    check(&filter.program);
    let plain = Plain::new(profile, native);
    let own = native.audit_arch();
    for (arch, nr, args) in calls {
        for arch in [own, *arch] {
            let call = Call {
                arch,
                nr: *nr,
                args: *args,
            };
            let (got, _) = run(&filter.program, &call, native.is_big_endian());
            assert_eq!(
                got,
                plain.verdict(&call),
                "{native:?}, {call:x?}: {profile:?}"
            );
        }
    }
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
