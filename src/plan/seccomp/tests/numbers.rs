//! The table of system calls against other sources.

use std::collections::BTreeMap;

use super::super::abi::{Abi, numbers};
use super::super::tables::{NONE, SYSCALLS};
use super::ABIS;

#[test]
fn the_table_is_sorted_and_gives_every_number_one_name() {
    assert!(SYSCALLS.is_sorted_by(|a, b| a.0 < b.0));
    for abi in ABIS {
        let mut names = BTreeMap::new();
        for (name, row) in SYSCALLS {
            let number = row[abi as usize];
            if number != NONE {
                assert_eq!(names.insert(number, name), None, "{abi:?} {number}: {name}");
            }
        }
    }
    assert_eq!(
        numbers("read").map(|row| row[Abi::X86_64 as usize]),
        Some(0)
    );
    assert_eq!(numbers("reed"), None);
}

/// What the `syscalls` crate says of one ABI.
macro_rules! crate_says {
    ($module:ident) => {
        // Its iterator leaves out the last one.
        syscalls::$module::Sysno::iter()
            .chain([syscalls::$module::Sysno::last()])
            .map(|call| (call.name().trim_start_matches("r#"), call.id() as u32))
            .collect::<BTreeMap<_, _>>()
    };
}

/// The crate follows Linux 6.18, this table 7.1.
const NEWER: [&str; 2] = ["listns", "rseq_slice_yield"];

#[test]
fn the_table_agrees_with_the_syscalls_crate() {
    let crates = [
        (Abi::X86_64, crate_says!(x86_64)),
        (Abi::X86, crate_says!(x86)),
        (Abi::Aarch64, crate_says!(aarch64)),
        (Abi::Arm, crate_says!(arm)),
        (Abi::Riscv64, crate_says!(riscv64)),
        (Abi::Ppc64le, crate_says!(powerpc64)),
        (Abi::S390x, crate_says!(s390x)),
    ];
    for (abi, theirs) in crates {
        let mut differences = Vec::new();
        for (name, row) in SYSCALLS {
            let ours = Some(row[abi as usize]).filter(|n| *n != NONE && *n < 0xf_0000);
            if ours != theirs.get(name).copied() && !NEWER.contains(name) {
                differences.push(*name);
            }
        }
        let unknown = theirs.keys().filter(|name| numbers(name).is_none());
        differences.extend(unknown);
        if abi == Abi::Aarch64 {
            // There the crate lists the 32-bit calls with 64-bit times, which aarch64's table does
            // not have, and gives number 79 the name of an alias.
            differences.retain(|name| !name.ends_with("64") && !name.ends_with("fstatat"));
        }
        assert_eq!(differences, [""; 0], "{abi:?}");
    }
}

#[test]
fn x32_differs_from_x86_64_in_512_to_547_only() {
    for (name, row) in SYSCALLS {
        let (wide, x32) = (row[Abi::X86_64 as usize], row[Abi::X32 as usize]);
        if wide != x32 && x32 != NONE {
            assert!((512..548).contains(&x32), "{name} {x32}");
        }
    }
    assert_eq!(
        numbers("ioctl").map(|row| row[Abi::X32 as usize]),
        Some(514)
    );
}
