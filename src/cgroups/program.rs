//! Device rules for cgroup v2: a BPF program that the kernel asks at every open and mknod.
//!
//! cgroups-rs has no such thing, so the program is put together here, rule by rule from the last
//! to the first, and exactly one is attached at any moment: a new one takes the old one's place in
//! a single step. Source: bpf(2); linux/bpf.h, `struct bpf_cgroup_dev_ctx`; cgroup-v2.rst "Device
//! controller".

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::devices::{ALL, Device, Kind, Rule};
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
/// Both numbers in one.
const NUMBER: u8 = 6;

// Operations with their class: linux/bpf_common.h, linux/bpf.h.
const LOAD_32: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const OR_REGISTER: u8 = 0x4f;
const SHIFT_LEFT: u8 = 0x67;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP: u8 = 0x05;
const JUMP_IF_NOT: u8 = 0x55;
const JUMP_IF_ANY: u8 = 0x45;
/// Compares the low halves of the registers (Linux 5.1).
const JUMP_IF_32: u8 = 0x16;
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
///
/// The kernel follows every path through it before it takes it, which is most of what a program
/// costs: so a device is compared in one step, and its kind once for all rules.
pub fn assemble(rules: &[Rule]) -> Vec<Insn> {
    // The first word of the context has the kind in its low half, the access in its high half.
    let mut program = vec![
        insn(LOAD_32, KIND, CTX, 0, 0),
        insn(MOVE_REGISTER, LEFT, KIND, 0, 0),
        insn(AND, KIND, 0, 0, 0xffff),
        insn(SHIFT_RIGHT, LEFT, 0, 0, 16),
        insn(LOAD_32, MAJOR, CTX, 4, 0),
        insn(LOAD_32, MINOR, CTX, 8, 0),
        insn(MOVE_REGISTER, NUMBER, MAJOR, 0, 0),
        insn(SHIFT_LEFT, NUMBER, 0, 0, MINOR_BITS),
        insn(OR_REGISTER, NUMBER, MINOR, 0, 0),
    ];
    for kind in [Kind::Char, Kind::Block] {
        let part = one_kind(&deciding(rules, kind));
        program.push(insn(
            JUMP_IF_NOT,
            KIND,
            0,
            distance(part.len()),
            kind as i32,
        ));
        program.extend(part);
    }
    program.extend(answer(false));
    program
}

fn answer(allowed: bool) -> [Insn; 2] {
    [
        insn(MOVE, ANSWER, 0, 0, allowed.into()),
        insn(EXIT, 0, 0, 0, 0),
    ]
}

/// Jumps are short: at the limit the verifier refuses the program.
fn distance(count: usize) -> i16 {
    i16::try_from(count).unwrap_or(i16::MAX)
}

/// What the rules say to a device of their kind; it answers at its end at the latest.
fn one_kind(rules: &[&Rule]) -> Vec<Insn> {
    let mut code = Vec::new();
    for same in rules.chunk_by(|one, next| (one.allow, one.access) == (next.allow, next.access)) {
        let body = decision(same[0].allow, same[0].access);
        let (any, all_of_it): (Vec<_>, Vec<_>) = same
            .iter()
            .map(|rule| comparison(rule.device))
            .partition(Option::is_some);
        let comparisons: Vec<_> = any.into_iter().flatten().collect();
        let always = !all_of_it.is_empty();
        // Past the comparisons that are left, and the jump around the body.
        let mut left = comparisons.len() + usize::from(!always);
        for (register, value) in comparisons.iter().filter(|_| !always) {
            left -= 1;
            code.push(insn(JUMP_IF_32, *register, 0, distance(left), *value));
        }
        if !always {
            code.push(insn(JUMP, 0, 0, distance(body.len()), 0));
        }
        code.extend(&body);
        // The verifier refuses what cannot be reached.
        if always && same[0].access == ALL {
            return code;
        }
    }
    code.extend(answer(false));
    code
}

/// How a device is told from others of its kind: a register and its value; `None` for all of them.
fn comparison(device: Device) -> Option<(u8, i32)> {
    match (device.major, device.minor) {
        (Some(major), Some(minor)) => Some((NUMBER, major << MINOR_BITS | minor)),
        (Some(major), None) => Some((MAJOR, major)),
        (None, Some(minor)) => Some((MINOR, minor)),
        (None, None) => None,
    }
    .map(|(register, value)| (register, value.cast_signed()))
}

/// What follows for a device of a rule: a denial answers when it has one of the accesses, a
/// permission when none is left to decide.
fn decision(allow: bool, access: u8) -> Vec<Insn> {
    let bits = i32::from(access);
    let mut body = match allow {
        _ if access == ALL => vec![],
        true => vec![
            insn(AND, LEFT, 0, 0, !bits),
            insn(JUMP_IF_NOT, LEFT, 0, 2, 0),
        ],
        false => vec![insn(JUMP_IF_ANY, LEFT, 0, 1, bits), insn(JUMP, 0, 0, 2, 0)],
    };
    body.extend(answer(allow));
    body
}

/// The rules that can decide anything for devices of `kind`, last first: without those that a later
/// one outdoes, and without denials at the end, since what is left is denied anyway.
fn deciding(rules: &[Rule], kind: Kind) -> Vec<&Rule> {
    let mut kept: Vec<&Rule> = Vec::new();
    for rule in rules.iter().rev() {
        let outdone = |later: &&Rule| {
            later.device.covers(rule.device) && later.access & rule.access == rule.access
        };
        if rule.device.kind == kind && exists(rule.device) && !kept.iter().any(outdone) {
            kept.push(rule);
        }
    }
    while kept.last().is_some_and(|rule| !rule.allow) {
        kept.pop();
    }
    kept
}

/// Whether the kernel can number a device so: `dev_t` has 12 bits for the major number, 20 for the
/// minor (linux/kdev_t.h).
fn exists(device: Device) -> bool {
    let fits = |number: Option<u32>, bits: i32| number.is_none_or(|number| number >> bits == 0);
    fits(device.major, 32 - MINOR_BITS) && fits(device.minor, MINOR_BITS)
}

const MINOR_BITS: i32 = 20;

/// Attaches `rules` to a cgroup that was just made, and so has no device program.
pub fn install_first(cgroup: &Dir, rules: &[Rule]) -> Result<()> {
    let program = load(cgroup, rules)?;
    bpf::attach_device_program(cgroup.as_fd(), program.as_fd(), Attach::Beside)
        .map_err(|errno| failed("bpf(PROG_ATTACH) of", cgroup, errno))
}

/// Makes `rules` the only device program of the cgroup.
///
/// Between two programs the kernel allows what both allow, so that there is no moment in which more
/// is allowed than either says.
pub fn install(cgroup: &Dir, rules: &[Rule]) -> Result<()> {
    let program = load(cgroup, rules)?;
    let old = attached(cgroup).map_err(|errno| failed("bpf(PROG_QUERY) of", cgroup, errno))?;
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
    result.map_err(|errno| failed("bpf(PROG_ATTACH) of", cgroup, errno))?;
    for program in superfluous {
        bpf::detach_device_program(cgroup.as_fd(), program.as_fd())
            .map_err(|errno| failed("bpf(PROG_DETACH) of", cgroup, errno))?;
    }
    Ok(())
}

fn load(cgroup: &Dir, rules: &[Rule]) -> Result<OwnedFd> {
    bpf::load_device_program(&assemble(rules))
        .map_err(|errno| failed("bpf(PROG_LOAD) of", cgroup, errno))
}

fn failed(call: &'static str, cgroup: &Dir, errno: Errno) -> Error {
    let what = format!("the device rules of {}", cgroup.path());
    Error::host(call, what, errno)
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
    use super::super::devices::{MKNOD, READ, WRITE};
    use super::*;

    /// Runs a program as the kernel would; every jump goes forward, so it ends.
    fn run(program: &[Insn], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let context = [u32::from(access) << 16 | kind as u32, major, minor];
        let mut registers = [0_u64; 7];
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
                OR_REGISTER => {
                    registers[to] |= registers[from];
                    false
                }
                SHIFT_LEFT => {
                    registers[to] <<= constant;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= constant;
                    false
                }
                JUMP => true,
                JUMP_IF_NOT => registers[to] != constant,
                JUMP_IF_32 => registers[to] as u32 == imm.cast_unsigned(),
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
