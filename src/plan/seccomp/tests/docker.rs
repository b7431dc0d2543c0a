//! The compiler on the profile that most containers have: Docker's default, without capabilities
//! but CAP_SYS_CHROOT. rdocker's tests check that it is the one that rdocker makes.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action};

use super::super::abi::{Abi, numbers};
use super::super::{ENOSYS, compile_for};
use super::{ARCH, Call, NR, check, run};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;

pub fn docker() -> LinuxSeccomp {
    serde_json::from_str(include_str!("docker_default.json")).unwrap()
}

#[test]
fn dockers_profile_answers_as_documented() {
    let program = compile_for(&docker(), Abi::X86_64).unwrap().program;
    check(&program);
    const NEW_USER: u64 = 0x1000_0000;
    let cases = [
        ("read", 0, ALLOW),
        ("getppid", 0, ALLOW),
        ("chroot", 0, ALLOW),
        ("mount", 0, EPERM),
        ("io_uring_setup", 0, EPERM),
        ("keyctl", 0, EPERM),
        ("clone", 0x11, ALLOW),
        ("clone", NEW_USER | 0x11, EPERM),
        ("clone3", 0, ENOSYS),
        ("socket", 1, ALLOW),
        ("socket", 38, EPERM),
        ("socket", 39, ALLOW),
        ("socket", 40, EPERM),
        ("socket", 41, ALLOW),
        ("personality", 0xffff_ffff, ALLOW),
        ("personality", 0x4_0000, EPERM),
        ("file_getattr", 0, ENOSYS),
    ];
    for (name, arg, want) in cases {
        for abi in [Abi::X86_64, Abi::X86, Abi::X32] {
            let call = Call {
                arch: abi.audit_arch(),
                nr: abi.number(numbers(name).unwrap()).unwrap(),
                args: [arg, 0, 0, 0, 0, 0],
            };
            let (got, _) = run(&program, &call, false);
            assert_eq!(
                format!("{got:#x}"),
                format!("{want:#x}"),
                "{name} {arg:#x} {abi:?}"
            );
        }
    }
}

/// Both figures are those of the day when this was written, rounded up: worse is a step back.
#[test]
fn dockers_profile_stays_small_and_every_call_takes_few_instructions() {
    let profile = docker();
    let program = compile_for(&profile, Abi::X86_64).unwrap().program;
    let call = |nr| Call {
        arch: Abi::X86_64.audit_arch(),
        nr,
        args: [0; 6],
    };
    let steps: Vec<usize> = (0..470)
        .map(|nr| run(&program, &call(nr), false).1)
        .collect();
    let common = [
        "read",
        "write",
        "openat",
        "close",
        "futex",
        "epoll_wait",
        "mmap",
        "getppid",
    ];
    let common = common.map(|name| steps[numbers(name).unwrap()[0] as usize]);
    println!(
        "{} instructions; {} at most and {:.1} on average for a native call, {common:?} for {}",
        program.len(),
        steps.iter().max().unwrap(),
        steps.iter().sum::<usize>() as f64 / steps.len() as f64,
        "read, write, openat, close, futex, epoll_wait, mmap, getppid",
    );
    assert!(program.len() <= 400, "{} instructions", program.len());
    assert!(steps.iter().all(|steps| *steps <= 25), "{steps:?}");
    assert!(common.iter().all(|steps| *steps <= 13), "{common:?}");
}

/// `seccomp_is_const_allow` of the kernel (5.11): calls that are allowed without a look at their
/// arguments get a bit in a bitmap, and never run the filter again.
#[test]
fn the_kernel_can_prove_what_the_profile_always_allows() {
    let profile = docker();
    let program = compile_for(&profile, Abi::X86_64).unwrap().program;
    let rules = profile.syscalls().iter().flatten();
    let always =
        rules.filter(|rule| rule.action() == Action::ScmpActAllow && rule.args().is_none());
    let mut proved = 0;
    for name in always.flat_map(|rule| rule.names()) {
        for abi in [Abi::X86_64, Abi::X86] {
            let Some(nr) = numbers(name).and_then(|row| abi.number(row)) else {
                continue;
            };
            let (mut at, mut a) = (0, 0);
            let ret = loop {
                let insn = program[at];
                at += 1;
                let holds = match (insn.code, insn.k) {
                    (0x20, NR) => {
                        a = nr;
                        continue;
                    }
                    (0x20, ARCH) => {
                        a = abi.audit_arch();
                        continue;
                    }
                    (0x05, skip) => {
                        at += skip as usize;
                        continue;
                    }
                    (0x06, ret) => break ret,
                    (0x15, k) => a == k,
                    (0x25, k) => a > k,
                    (0x35, k) => a >= k,
                    (code, _) => panic!("{name} of {abi:?}: the kernel gives up at {code:#x}"),
                };
                at += usize::from(if holds { insn.jt } else { insn.jf });
            };
            assert_eq!(ret, ALLOW, "{name} of {abi:?}");
            proved += 1;
        }
    }
    assert!(proved > 600, "{proved}");
}
