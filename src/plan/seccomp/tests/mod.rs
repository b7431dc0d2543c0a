//! What the tests of the compiler share: a machine for its programs, and a source of random cases.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod docker;
#[cfg(test)]
mod jumps;
#[cfg(test)]
mod kernel;
#[cfg(test)]
mod numbers;
#[cfg(test)]
mod oracles;
#[cfg_attr(fuzzing, allow(dead_code))]
pub mod plain;

#[cfg(test)]
use serde_json::Value;

use super::abi::Abi;
use super::{ARCH, ARGS, Insn, MAX_INSNS, NR};
#[cfg(test)]
use oci_spec::runtime::LinuxSeccomp;

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
        ARGS..64 if offset.is_multiple_of(4) => {
            let value = call.args[((offset - ARGS) / 8) as usize];
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
    let end = program.last().map(|insn| insn.code);
    assert_eq!(end, Some(0x06), "the end returns");
    for (at, insn) in program.iter().enumerate() {
        let farthest = match insn.code {
            0x05 => insn.k as usize,
            0x15 | 0x25 | 0x35 => usize::from(insn.jt.max(insn.jf)),
            _ => 0,
        };
        assert!(at + 1 + farthest < program.len() || insn.code == 0x06);
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

#[cfg(test)]
fn profile(value: Value) -> LinuxSeccomp {
    serde_json::from_value(value).unwrap()
}
