//! An assembler for classic BPF that writes a program from its end to its beginning.
//!
//! Jumps of classic BPF lead forward only, so whoever writes backwards knows every target before
//! the jump to it. A conditional jump reaches 255 instructions; where that is too short,
//! [`Assembler::near`] puts a copy of the target (if it returns) or a long jump within reach.
//!
//! Only instructions that the kernel can follow without a call's arguments stand before the first
//! argument test: so it proves "always allowed" for most numbers and skips the filter for them
//! (`seccomp_is_const_allow`, Linux 5.11).

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET,
    BPF_W,
};

use crate::sys::seccomp::Insn;

/// A place in the program, counted from its end: the last instruction is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(usize);

/// The tests of a conditional jump: the accumulator against the operand, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    /// Equal.
    Eq,
    /// Greater or equal.
    Ge,
    /// Greater.
    Gt,
}

const REACH: usize = 255;
const RET: u16 = (BPF_RET | BPF_K) as u16;

/// See the module text.
#[derive(Debug, Default)]
pub struct Assembler {
    /// The program so far, last instruction first.
    reversed: Vec<Insn>,
    /// The latest `ret` of each value.
    returns: Vec<(u32, Place)>,
}

impl Assembler {
    /// The length so far, in instructions.
    pub fn len(&self) -> usize {
        self.reversed.len()
    }

    /// The finished program, first instruction first.
    pub fn finish(mut self) -> Vec<Insn> {
        self.reversed.reverse();
        self.reversed
    }

    /// Ends the filter with `value`, a `SECCOMP_RET_*` with its data.
    pub fn ret(&mut self, value: u32) -> Place {
        let known = self.returns.iter().position(|(v, _)| *v == value);
        match known {
            Some(at) if self.distance(self.returns[at].1) < REACH => self.returns[at].1,
            Some(at) => {
                let place = self.push(RET, value);
                self.returns[at].1 = place;
                place
            }
            None => {
                let place = self.push(RET, value);
                self.returns.push((value, place));
                place
            }
        }
    }

    /// Loads the 32-bit word at `offset` of `seccomp_data`, then goes on at `next`.
    pub fn load(&mut self, offset: u32, next: Place) -> Place {
        self.then((BPF_LD | BPF_W | BPF_ABS) as u16, offset, next)
    }

    /// Clears the accumulator's bits that `mask` lacks, then goes on at `next`.
    pub fn and(&mut self, mask: u32, next: Place) -> Place {
        self.then((BPF_ALU | BPF_AND | BPF_K) as u16, mask, next)
    }

    /// Goes on at `yes` if the accumulator compares so to `k`, else at `no`.
    pub fn jump(&mut self, test: Jump, k: u32, yes: Place, no: Place) -> Place {
        if yes == no {
            return yes;
        }
        // Bringing `no` near may take one instruction, which moves `yes` one further away.
        let yes = self.near(yes, REACH - 1);
        let no = self.near(no, REACH);
        let test = match test {
            Jump::Eq => BPF_JEQ,
            Jump::Ge => BPF_JGE,
            Jump::Gt => BPF_JGT,
        };
        let skip = |place| u8::try_from(self.distance(place)).expect("near brought it in reach");
        let (jt, jf) = (skip(yes), skip(no));
        let place = self.push((BPF_JMP | test | BPF_K) as u16, k);
        let insn = &mut self.reversed[place.0];
        (insn.jt, insn.jf) = (jt, jf);
        place
    }

    /// How many instructions a jump written now would skip to get to `place`.
    fn distance(&self, place: Place) -> usize {
        self.reversed.len() - 1 - place.0
    }

    /// A place that does what `place` does, at most `reach` from an instruction written now.
    fn near(&mut self, place: Place, reach: usize) -> Place {
        if self.distance(place) <= reach {
            return place;
        }
        let target = self.reversed[place.0];
        if target.code == RET {
            return self.ret_here(target.k);
        }
        let skip = self.distance(place) as u32;
        self.push((BPF_JMP | BPF_JA) as u16, skip)
    }

    fn ret_here(&mut self, value: u32) -> Place {
        let place = self.push(RET, value);
        if let Some(known) = self.returns.iter_mut().find(|(v, _)| *v == value) {
            known.1 = place;
        }
        place
    }

    /// Writes an instruction that falls through to `next`.
    fn then(&mut self, code: u16, k: u32, next: Place) -> Place {
        self.near(next, 0);
        self.push(code, k)
    }

    fn push(&mut self, code: u16, k: u32) -> Place {
        let (jt, jf) = (0, 0);
        self.reversed.push(Insn { code, jt, jf, k });
        Place(self.reversed.len() - 1)
    }
}
