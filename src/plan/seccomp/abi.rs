//! The system call ABIs that a filter can tell apart, and their numbers.

use std::ops::Range;

use oci_spec::runtime::Arch;

use super::tables::{NONE, SYSCALLS};

/// One way into the kernel: a value of `seccomp_data.arch` and a numbering of the calls.
///
/// The order is that of the columns of [`SYSCALLS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Abi {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86: `int 0x80` and 32-bit programs.
    X86,
    /// 32-bit pointers in 64-bit mode; shares X86_64's arch value, its numbers carry [`X32_BIT`].
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM (EABI).
    Arm,
    /// 64-bit RISC-V.
    Riscv64,
    /// 64-bit PowerPC, little-endian.
    Ppc64le,
    /// 64-bit s390.
    S390x,
    /// 31-bit s390.
    S390,
}

/// Marks a call of the x32 ABI (`__X32_SYSCALL_BIT`).
pub const X32_BIT: u32 = 0x4000_0000;

impl Abi {
    /// The ABI that keel itself was built for; `None` if the tables lack it.
    pub fn native() -> Option<Self> {
        Some(match std::env::consts::ARCH {
            "x86_64" if cfg!(target_pointer_width = "64") => Self::X86_64,
            "x86" => Self::X86,
            "aarch64" => Self::Aarch64,
            "arm" => Self::Arm,
            "riscv64" => Self::Riscv64,
            "powerpc64" if cfg!(target_endian = "little") => Self::Ppc64le,
            "s390x" => Self::S390x,
            _ => return None,
        })
    }

    /// The ABI of a profile's architecture; `None` if the tables lack it.
    pub fn of(arch: Arch, native: Self) -> Option<Self> {
        Some(match arch {
            Arch::ScmpArchNative => native,
            Arch::ScmpArchX86_64 => Self::X86_64,
            Arch::ScmpArchX86 => Self::X86,
            Arch::ScmpArchX32 => Self::X32,
            Arch::ScmpArchAarch64 => Self::Aarch64,
            Arch::ScmpArchArm => Self::Arm,
            Arch::ScmpArchRiscv64 => Self::Riscv64,
            Arch::ScmpArchPpc64le => Self::Ppc64le,
            Arch::ScmpArchS390x => Self::S390x,
            Arch::ScmpArchS390 => Self::S390,
            _ => return None,
        })
    }

    /// Whether one kernel can serve calls of both ABIs.
    pub fn same_kernel(self, other: Self) -> bool {
        let family = |abi| match abi {
            Self::X86_64 | Self::X86 | Self::X32 => 0,
            Self::Aarch64 | Self::Arm => 1,
            Self::Riscv64 => 2,
            Self::Ppc64le => 3,
            Self::S390x | Self::S390 => 4,
        };
        family(self) == family(other)
    }

    /// `seccomp_data.arch` of this ABI's calls (`AUDIT_ARCH_*` of linux/audit.h).
    pub fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
            Self::Ppc64le => 0xc000_0015,
            Self::S390x => 0x8000_0016,
            Self::S390 => 0x16,
        }
    }

    /// Whether arguments are compared in all their 64 bits.
    ///
    /// The other ABIs hand over 32 bits, so a profile's values are taken modulo 2^32 there, as
    /// libseccomp does; else -1 written as a 64-bit number would never match.
    pub fn is_wide(self) -> bool {
        matches!(
            self,
            Self::X86_64 | Self::Aarch64 | Self::Riscv64 | Self::Ppc64le | Self::S390x
        )
    }

    /// Whether the upper half of an argument comes first in `seccomp_data`.
    pub fn is_big_endian(self) -> bool {
        matches!(self, Self::S390x | Self::S390)
    }

    /// Numbers that stand apart from those that are given out one after the other.
    ///
    /// They say nothing about how new a call is: 32-bit ARM's private calls (`__ARM_NR_BASE`) and
    /// the calls that x32 does not share with x86_64 (syscall_64.tbl: "numbers 512-547").
    pub fn apart(self) -> Option<Range<u32>> {
        match self {
            Self::Arm => Some(0xf_0000..0x10_0000),
            Self::X32 => Some(X32_BIT | 512..X32_BIT | 548),
            _ => None,
        }
    }

    /// The number that `row` of [`SYSCALLS`] has in this ABI, as `seccomp_data.nr` holds it.
    pub fn number(self, row: &[u32; 9]) -> Option<u32> {
        match row[self as usize] {
            NONE => None,
            number if self == Self::X32 => Some(number | X32_BIT),
            number => Some(number),
        }
    }
}

/// The longest name in [`SYSCALLS`], in bytes.
const LONGEST: usize = 28;

/// A name, filled up with zeroes.
type Name = [u8; LONGEST];

/// [`SYSCALLS`] as the program has it, with the names themselves: pointers to them would have to be
/// relocated whenever keel starts, on eight pages more than it writes otherwise.
static TABLE: [(Name, [u32; 9]); SYSCALLS.len()] = {
    let mut table = [([0; LONGEST], [NONE; 9]); SYSCALLS.len()];
    let mut at = 0;
    while at < table.len() {
        let (name, numbers) = SYSCALLS[at];
        table[at] = (in_place(name), numbers);
        at += 1;
    }
    table
};

/// `name`, which must not be longer than the longest.
const fn in_place(name: &str) -> Name {
    let mut filled = [0; LONGEST];
    let (start, _) = filled.split_at_mut(name.len());
    start.copy_from_slice(name.as_bytes());
    filled
}

/// The numbers of the system call `name`, one for each [`Abi`]; `None` if no ABI has it.
pub fn numbers(name: &str) -> Option<&'static [u32; 9]> {
    if name.len() > LONGEST {
        return None;
    }
    let name = in_place(name);
    let at = TABLE.binary_search_by(|(known, _)| known.cmp(&name));
    at.ok().map(|at| &TABLE[at].1)
}
