//! Device rules for cgroup v2: a BPF program that the kernel asks at every open and mknod.
//!
//! cgroups-rs has no such thing, so the program is put together here, rule by rule from the last
//! to the first, and exactly one is attached at any moment: a new one takes the old one's place in
//! a single step. Source: bpf(2); linux/bpf.h, `struct bpf_cgroup_dev_ctx`; cgroup-v2.rst "Device
//! controller".

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::devices::{Device, Rule};
use super::dir::Dir;
use crate::error::{Error, Result};
use crate::sys::bpf::{self, Attach, Insn};

/// More programs than anybody attaches to one cgroup.
const MOST_PROGRAMS: usize = 64;

// Registers. The kernel hands over the context in `CTX` and takes the answer from `ANSWER`.
const ANSWER: u8 = 0;
const CTX: u8 = 1;
const KIND: u8 = 2;
/// The accesses that no rule has decided yet.
const LEFT: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Operations with their class: linux/bpf_common.h, linux/bpf.h.
const LOAD_32: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP: u8 = 0x05;
const JUMP_IF_NOT: u8 = 0x55;
const JUMP_IF_ANY: u8 = 0x45;
const EXIT: u8 = 0x95;

const fn insn(code: u8, to: u8, from: u8, off: i16, imm: i32) -> Insn {
    Insn {
        code,
        regs: from << 4 | to,
        off,
        imm,
    }
}

/// The program that allows exactly what `rules` allow.
pub fn assemble(rules: &[Rule]) -> Vec<Insn> {
    // The first word of the context has the kind in its low half, the access in its high half.
    let mut program = vec![
        insn(LOAD_32, KIND, CTX, 0, 0),
        insn(MOVE_REGISTER, LEFT, KIND, 0, 0),
        insn(AND, KIND, 0, 0, 0xffff),
        insn(SHIFT_RIGHT, LEFT, 0, 0, 16),
        insn(LOAD_32, MAJOR, CTX, 4, 0),
        insn(LOAD_32, MINOR, CTX, 8, 0),
    ];
    for rule in deciding(rules) {
        program.extend(one_rule(rule));
    }
    program.extend(answer(0));
    program
}

fn answer(allowed: i32) -> [Insn; 2] {
    [insn(MOVE, ANSWER, 0, 0, allowed), insn(EXIT, 0, 0, 0, 0)]
}

/// If the rule speaks of the device: a denial answers when it has one of the accesses, a permission
/// when none is left to decide.
fn one_rule(rule: &Rule) -> Vec<Insn> {
    let access = i32::from(rule.access);
    let mut body = match rule.allow {
        true => vec![
            insn(AND, LEFT, 0, 0, !access),
            insn(JUMP_IF_NOT, LEFT, 0, 2, 0),
        ],
        false => vec![
            insn(JUMP_IF_ANY, LEFT, 0, 1, access),
            insn(JUMP, 0, 0, 2, 0),
        ],
    };
    body.extend(answer(i32::from(rule.allow)));
    let Device { kind, major, minor } = rule.device;
    let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let mut checks = vec![(KIND, kind as i32)];
    checks.extend(major.map(|major| (MAJOR, number(major))));
    checks.extend(minor.map(|minor| (MINOR, number(minor))));
    let mut code = Vec::new();
    for (at, (register, wanted)) in checks.iter().enumerate() {
        let distance = i16::try_from(checks.len() - at - 1 + body.len()).unwrap_or(i16::MAX);
        code.push(insn(JUMP_IF_NOT, *register, 0, distance, *wanted));
    }
    code.extend(body);
    code
}

/// The rules that can decide anything, last first: without those that a later one outdoes, and
/// without denials at the end, since what is left is denied anyway.
fn deciding(rules: &[Rule]) -> Vec<&Rule> {
    let mut kept: Vec<&Rule> = Vec::new();
    for rule in rules.iter().rev() {
        let outdone = |later: &&Rule| {
            later.device.covers(rule.device) && later.access & rule.access == rule.access
        };
        if !kept.iter().any(outdone) {
            kept.push(rule);
        }
    }
    while kept.last().is_some_and(|rule| !rule.allow) {
        kept.pop();
    }
    kept
}

/// Makes `rules` the only device program of the cgroup.
///
/// Between two programs the kernel allows what both allow, so that there is no moment in which more
/// is allowed than either says.
pub fn install(cgroup: &Dir, rules: &[Rule]) -> Result<()> {
    let failed = |call, errno| {
        Error::host(
            call,
            format!("the device rules of {}", cgroup.path()),
            errno,
        )
    };
    let program = bpf::load_device_program(&assemble(rules))
        .map_err(|errno| failed("bpf(PROG_LOAD) of", errno))?;
    let old = attached(cgroup).map_err(|errno| failed("bpf(PROG_QUERY) of", errno))?;
    let attach = |how| bpf::attach_device_program(cgroup.as_fd(), program.as_fd(), how);
    let mut superfluous = old.as_slice();
    let result = match old.as_slice() {
        [] => attach(Attach::Beside),
        [first, rest @ ..] => match attach(Attach::Replacing(first.as_fd())) {
            Ok(()) => {
                superfluous = rest;
                Ok(())
            }
            // Linux before 5.6 cannot replace.
            Err(Errno::EINVAL) => attach(Attach::Beside),
            Err(errno) => Err(errno),
        },
    };
    result.map_err(|errno| failed("bpf(PROG_ATTACH) of", errno))?;
    for program in superfluous {
        bpf::detach_device_program(cgroup.as_fd(), program.as_fd())
            .map_err(|errno| failed("bpf(PROG_DETACH) of", errno))?;
    }
    Ok(())
}

/// The device programs attached to the cgroup itself.
fn attached(cgroup: &Dir) -> Result<Vec<OwnedFd>, Errno> {
    let mut ids = [0; MOST_PROGRAMS];
    let count = bpf::query_device_programs(cgroup.as_fd(), &mut ids)?;
    ids.iter()
        .take(count)
        .map(|id| bpf::program_by_id(*id))
        .collect()
}

/// How many device programs are attached to the cgroup itself; after [`install`] that is one.
pub fn count(cgroup: &Dir) -> Result<usize> {
    let mut ids = [0; MOST_PROGRAMS];
    bpf::query_device_programs(cgroup.as_fd(), &mut ids)
        .map_err(|errno| Error::host("bpf(PROG_QUERY) of", cgroup.path(), errno))
}

#[cfg(test)]
mod tests {
    use super::super::devices::{Kind, MKNOD, READ, WRITE};
    use super::*;

    /// Runs a program as the kernel would; every jump goes forward, so it ends.
    fn run(program: &[Insn], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let context = [u32::from(access) << 16 | kind as u32, major, minor];
        let mut registers = [0_u64; 6];
        let mut at = 0;
        loop {
            let Insn {
                code,
                regs,
                off,
                imm,
            } = program[at];
            let (to, from) = (usize::from(regs & 15), usize::from(regs >> 4));
            let constant = i64::from(imm) as u64;
            let jump = match code {
                LOAD_32 => {
                    registers[to] = context[off as usize / 4].into();
                    false
                }
                MOVE => {
                    registers[to] = constant;
                    false
                }
                MOVE_REGISTER => {
                    registers[to] = registers[from];
                    false
                }
                AND => {
                    registers[to] &= constant;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= constant;
                    false
                }
                JUMP => true,
                JUMP_IF_NOT => registers[to] != constant,
                JUMP_IF_ANY => registers[to] & constant != 0,
                EXIT => return registers[usize::from(ANSWER)] != 0,
                _ => panic!("operation {code:#x}"),
            };
            at += 1 + if jump { off as usize } else { 0 };
        }
    }

    /// The meaning itself: for each access the last rule that speaks of it decides.
    fn meant(rules: &[Rule], device: Device, access: u8) -> bool {
        [MKNOD, READ, WRITE]
            .iter()
            .filter(|bit| access & **bit != 0)
            .all(|bit| {
                let speaks = |rule: &&Rule| rule.device.covers(device) && rule.access & bit != 0;
                rules
                    .iter()
                    .rev()
                    .find(speaks)
                    .is_some_and(|rule| rule.allow)
            })
    }

    /// Numbers that look random and are the same in every run.
    fn numbers() -> impl FnMut(u32) -> u32 {
        let mut state = 1_u64;
        move |below| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32 % below
        }
    }

    #[test]
    fn the_program_allows_exactly_what_the_rules_mean() {
        let mut next = numbers();
        for round in 0..500 {
            let rules: Vec<Rule> = (0..next(8))
                .map(|_| Rule {
                    allow: next(2) == 0,
                    device: Device {
                        kind: if next(2) == 0 {
                            Kind::Block
                        } else {
                            Kind::Char
                        },
                        major: (next(3) > 0).then(|| next(3)),
                        minor: (next(3) > 0).then(|| next(3)),
                    },
                    access: u8::try_from(next(7) + 1).unwrap(),
                })
                .collect();
            let program = assemble(&rules);
            for kind in [Kind::Block, Kind::Char] {
                for (major, minor) in
                    (0..3).flat_map(|major| (0..3).map(move |minor| (major, minor)))
                {
                    for access in 1..8 {
                        let device = Device {
                            kind,
                            major: Some(major),
                            minor: Some(minor),
                        };
                        let (want, got) = (
                            meant(&rules, device, access),
                            run(&program, kind, major, minor, access),
                        );
                        assert_eq!(got, want, "round {round}: {device} {access} of {rules:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn rules_that_decide_nothing_are_left_out() {
        let everything = |allow| {
            [Kind::Block, Kind::Char].map(|kind| Rule {
                allow,
                device: Device {
                    kind,
                    major: None,
                    minor: None,
                },
                access: MKNOD | READ | WRITE,
            })
        };
        assert_eq!(assemble(&everything(false)), assemble(&[]));
        let mut rules = everything(true).to_vec();
        let open = assemble(&rules);
        rules.splice(0..0, everything(false));
        assert_eq!(assemble(&rules), open);
    }
}
