//! The compiler against libseccomp and seccompiler, on what they can express.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use oci_spec::runtime::{LinuxSeccomp, LinuxSyscall};
use serde_json::{Value, json};

use super::super::abi::{Abi, X32_BIT, numbers};
use super::super::tables::{NONE, SYSCALLS};
use super::super::{ENOSYS, Insn, compile_for};
use super::{Call, Random, profile, run};

/// How many profiles each comparison draws; each is asked 100 calls.
fn profiles(default: u64) -> u64 {
    std::env::var("KEEL_SECCOMP_ORACLE_PROFILES").map_or(default, |n| n.parse().unwrap())
}

/// A process that compiles profiles with the machine's libseccomp.
struct Libseccomp {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Libseccomp {
    /// Builds and starts it; why not, if there is no C compiler or no libseccomp to build with.
    fn start() -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let (source, binary) = (dir.path().join("a.c"), dir.path().join("a"));
        std::fs::write(&source, include_str!("libseccomp.c")).unwrap();
        let built = Command::new("cc")
            .args(["-O1", "-o"])
            .args([&binary, &source])
            .arg("-lseccomp")
            .output()
            .map_err(|error| format!("no C compiler: {error}"))?;
        if !built.status.success() {
            let error = String::from_utf8_lossy(&built.stderr).into_owned();
            return Err(format!("no libseccomp to build with: {error}"));
        }
        let mut process = Command::new(binary)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            to: process.stdin.take().unwrap(),
            from: BufReader::new(process.stdout.take().unwrap()),
            process,
        })
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.to, "{question}").unwrap();
        self.to.flush().unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn knows(&mut self, name: &str) -> bool {
        self.ask(&format!("name {name}")) == "1"
    }

    fn compile(&mut self, profile: &LinuxSeccomp) -> Vec<Insn> {
        let mut text = format!(
            "begin {}\n",
            action(profile.default_action().to_string().as_str())
        );
        for arch in profile.architectures().iter().flatten() {
            text += &format!("arch {}\n", *arch as u32);
        }
        for rule in profile.syscalls().iter().flatten() {
            let args = rule.args().as_deref().unwrap_or_default();
            for name in rule.names() {
                let ret = action(rule.action().to_string().as_str());
                text += &format!("rule {ret} {name} {}", args.len());
                for arg in args {
                    let (op, two) = (arg.op() as u32, arg.value_two().unwrap_or(0));
                    text += &format!(" {} {op} {} {two}", arg.index(), arg.value());
                }
                text += "\n";
            }
        }
        let answer = self.ask(&(text.clone() + "end"));
        assert!(!answer.starts_with("error"), "{answer}\n{text}");
        let mut words = answer.split(' ').map(|word| word.parse::<u32>().unwrap());
        let count = words.next().unwrap() as usize;
        let words: Vec<u32> = words.collect();
        assert_eq!(words.len(), 4 * count);
        let insn = |insn: &[u32]| Insn {
            code: insn[0] as u16,
            jt: insn[1] as u8,
            jf: insn[2] as u8,
            k: insn[3],
        };
        words.chunks_exact(4).map(insn).collect()
    }
}

impl Drop for Libseccomp {
    fn drop(&mut self) {
        // End of input ends it; the process is ours and has nothing else to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const ACTIONS: [&str; 6] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_LOG",
];

fn action(name: &str) -> u32 {
    match name {
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        "SCMP_ACT_ERRNO" => libc::SECCOMP_RET_ERRNO | 1,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        other => panic!("{other}"),
    }
}

/// A profile that libseccomp can express: for each call one rule with arguments, or several that
/// test the same argument for equality or ranges in its lower half. On others the tree that version 2.5.4
/// makes of all tests loses rules (an argument that fails is final, also if another rule does not
/// look at it) or does not come to an end, and SCMP_ACT_KILL_THREAD, which is 0, gets lost.
fn expressible_profile(random: &mut Random, names: &[&str]) -> LinuxSeccomp {
    let default = *random.pick(&ACTIONS);
    let others: Vec<&str> = ACTIONS.into_iter().filter(|a| *a != default).collect();
    let mut rules = Vec::new();
    let mut used = Vec::new();
    for _ in 0..1 + random.below(6) {
        let name = *random.pick(names);
        if used.contains(&name) {
            continue;
        }
        used.push(name);
        let first = rules.len();
        let action = *random.pick(&others);
        if action != "SCMP_ACT_KILL_THREAD" {
            let index = random.below(6);
            let value = random.value() % 0xffff_fff0;
            let one = |op: &str, value: u64| json!([{"index": index, "op": op, "value": value}]);
            let alternatives = match random.below(3) {
                0 => vec![distinct_args(random).into()],
                1 => (0..4)
                    .map(|_| one("SCMP_CMP_EQ", random.value() % 0xffff_fff0))
                    .collect(),
                // As Docker's profile does with socket's families.
                _ => vec![
                    one("SCMP_CMP_LT", value),
                    one("SCMP_CMP_EQ", value + 1),
                    one("SCMP_CMP_GT", value + 2),
                ],
            };
            let rule = |args: Value| json!({"names": [name], "action": action, "args": args});
            rules.extend(alternatives.into_iter().map(rule));
        }
        if random.below(3) == 0 {
            // Wins, wherever it stands.
            let at = first + random.below(rules.len() - first + 1);
            let rule = json!({"names": [name], "action": random.pick(&others)});
            rules.insert(at, rule);
        }
    }
    let mut arches = vec!["SCMP_ARCH_X86_64"];
    if random.below(2) == 0 {
        arches.push("SCMP_ARCH_X86");
    }
    if random.below(2) == 0 {
        arches.push("SCMP_ARCH_X32");
    }
    profile(json!({"defaultAction": default, "architectures": arches, "syscalls": rules}))
}

/// One to three tests of different arguments.
fn distinct_args(random: &mut Random) -> Vec<Value> {
    const OPERATORS: [&str; 7] = [
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_MASKED_EQ",
    ];
    let first = random.below(6);
    let count = 1 + random.below(3);
    let arg = |i: usize| {
        let op = *random.pick(&OPERATORS);
        let mut value = random.value();
        if op == "SCMP_CMP_MASKED_EQ" {
            // To libseccomp an empty mask is no argument at all.
            value |= 1;
        }
        json!({"index": (first + i) % 6, "op": op, "value": value, "valueTwo": random.value()})
    };
    (0..count).map(arg).collect()
}

/// Calls that 32-bit x86 also makes through socketcall(2) or ipc(2): libseccomp adds rules for those.
fn is_multiplexed(name: &str) -> bool {
    const CALLS: &str = "accept accept4 bind connect getpeername getsockname getsockopt ipc listen \
        msgctl msgget msgrcv msgsnd recv recvfrom recvmmsg recvmsg semctl semget semop semtimedop \
        send sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socket \
        socketcall socketpair";
    CALLS.split_whitespace().any(|call| call == name)
}

fn highest(profile: &LinuxSeccomp, abi: Abi) -> Option<u32> {
    let rules = profile.syscalls().iter().flatten();
    let names = rules.flat_map(LinuxSyscall::names);
    let numbers = names.filter_map(|name| abi.number(numbers(name)?));
    let apart = abi.apart().unwrap_or_default();
    numbers.filter(|number| !apart.contains(number)).max()
}

fn draw_call(random: &mut Random, profile: &LinuxSeccomp) -> (Abi, Call) {
    let abi = *random.pick(&[Abi::X86_64, Abi::X86_64, Abi::X86, Abi::X32]);
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let mut nr = random.below(470) as u32;
    if !rules.is_empty() && random.below(8) > 0 {
        let row = numbers(&random.pick(rules).names()[0]).unwrap();
        if row[abi as usize] != NONE {
            nr = row[abi as usize];
        }
    }
    if abi == Abi::X32 {
        nr |= X32_BIT;
    }
    let mut args = [0; 6];
    args.fill_with(|| random.value());
    let arch = abi.audit_arch();
    (abi, Call { arch, nr, args })
}

#[test]
fn libseccomp_gives_the_same_verdicts() {
    let mut libseccomp = match Libseccomp::start() {
        Ok(started) => started,
        Err(why) => return println!("skipped: {why}"),
    };
    // A call that one of the ABIs lacks makes libseccomp 2.5.4 forget to load the number.
    let mut names: Vec<&str> = SYSCALLS.iter().map(|row| row.0).collect();
    names.retain(|name| !is_multiplexed(name) && libseccomp.knows(name));
    assert!(names.len() > 250, "libseccomp knows {}", names.len());
    let mut random = Random(11);
    let profiles = profiles(400);
    for _ in 0..profiles {
        let profile = expressible_profile(&mut random, &names);
        let theirs = libseccomp.compile(&profile);
        let ours = compile_for(&profile, Abi::X86_64).unwrap().program;
        for _ in 0..100 {
            let (abi, call) = draw_call(&mut random, &profile);
            let (want, _) = run(&theirs, &call, false);
            let (mut got, _) = run(&ours, &call, false);
            let newer = highest(&profile, abi).is_some_and(|highest| call.nr > highest);
            if got == ENOSYS && newer {
                // runc puts this before libseccomp's program.
                got = action(profile.default_action().to_string().as_str());
            }
            assert_eq!(
                format!("{got:#x}"),
                format!("{want:#x}"),
                "{abi:?} {call:x?}: {}",
                serde_json::to_string(&profile).unwrap()
            );
        }
    }
    println!("{} calls agree with libseccomp", profiles * 100);
}

/// The same profile for seccompiler: one action for all rules, arguments of 64 bits.
fn with_seccompiler(profile: &LinuxSeccomp, abi: Abi) -> Vec<Insn> {
    use oci_spec::runtime::LinuxSeccompOperator as Op;
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch,
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in profile.syscalls().iter().flatten() {
        let Some(number) = numbers(&rule.names()[0]).and_then(|row| abi.number(row)) else {
            continue;
        };
        let conditions = rule.args().iter().flatten().map(|arg| {
            let (op, value) = match arg.op() {
                Op::ScmpCmpNe => (SeccompCmpOp::Ne, arg.value()),
                Op::ScmpCmpLt => (SeccompCmpOp::Lt, arg.value()),
                Op::ScmpCmpLe => (SeccompCmpOp::Le, arg.value()),
                Op::ScmpCmpEq => (SeccompCmpOp::Eq, arg.value()),
                Op::ScmpCmpGe => (SeccompCmpOp::Ge, arg.value()),
                Op::ScmpCmpGt => (SeccompCmpOp::Gt, arg.value()),
                Op::ScmpCmpMaskedEq => (
                    SeccompCmpOp::MaskedEq(arg.value()),
                    arg.value_two().unwrap_or(0),
                ),
            };
            SeccompCondition::new(arg.index() as u8, SeccompCmpArgLen::Qword, op, value).unwrap()
        });
        let conditions = conditions.collect();
        rules
            .entry(number.into())
            .or_default()
            .push(SeccompRule::new(conditions).unwrap());
    }
    let target = match abi {
        Abi::X86_64 => TargetArch::x86_64,
        Abi::Aarch64 => TargetArch::aarch64,
        _ => TargetArch::riscv64,
    };
    let (matched, default) = (SeccompAction::Errno(1), SeccompAction::Allow);
    let filter = SeccompFilter::new(rules, default, matched, target).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    let insn = |insn: seccompiler::sock_filter| Insn {
        code: insn.code,
        jt: insn.jt,
        jf: insn.jf,
        k: insn.k,
    };
    program.into_iter().map(insn).collect()
}

#[test]
fn seccompiler_gives_the_same_verdicts() {
    let mut random = Random(13);
    let profiles = profiles(400);
    for _ in 0..profiles {
        let abi = *random.pick(&[Abi::X86_64, Abi::Aarch64, Abi::Riscv64]);
        let rules: Vec<Value> = (0..1 + random.below(8))
            .map(|_| {
                json!({"names": [random.pick(SYSCALLS).0], "action": "SCMP_ACT_ERRNO",
                       "args": distinct_args(&mut random)})
            })
            .collect();
        let profile = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
        let theirs = with_seccompiler(&profile, abi);
        let ours = compile_for(&profile, abi).unwrap().program;
        for _ in 0..100 {
            let rule = random.pick(profile.syscalls().as_deref().unwrap());
            let number = numbers(&rule.names()[0]).and_then(|row| abi.number(row));
            let nr = number.unwrap_or(random.below(470) as u32);
            let mut args = [0; 6];
            args.fill_with(|| random.value());
            let arch = random.pick(&[abi, abi, abi, Abi::X86]).audit_arch();
            let call = Call { arch, nr, args };
            let (want, got) = (run(&theirs, &call, false).0, run(&ours, &call, false).0);
            assert_eq!(
                format!("{got:#x}"),
                format!("{want:#x}"),
                "{abi:?} {call:x?}: {}",
                serde_json::to_string(&profile).unwrap()
            );
        }
    }
    println!("{} calls agree with seccompiler", profiles * 100);
}
