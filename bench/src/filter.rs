//! A seccomp profile of the size and form of Docker's default one, and the least filter for it.
//!
//! The profile is for the runtimes, the filter for the floor: the kernel's part of the work is to
//! check and compile a filter, and the runtime's part is to have made a short one.

use std::fs;

use serde_json::{Value, json};

/// Where linux-libc-dev keeps the numbers.
const NUMBERS: &str = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";

/// What Docker's documentation says its default profile refuses to an unprivileged container.
const REFUSED: &[&str] = &[
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_settime",
    "create_module",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "get_mempolicy",
    "init_module",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mbind",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "set_mempolicy",
    "setns",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "_sysctl",
    "sysfs",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
    "ustat",
    "vhangup",
];

/// Allowed for some arguments only, or refused with an errno of its own.
const CONDITIONAL: &[&str] = &["clone", "clone3", "personality", "socket"];

/// Every namespace flag of clone(2); the last `CLONE_NEW*` bit set is refused.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;

/// The `linux.seccomp` object.
///
/// # Errors
/// Without the kernel's header of system call numbers (x86-64 only).
pub fn profile() -> Result<Value, String> {
    let names: Vec<String> = allowed()?.into_iter().map(|(name, _)| name).collect();
    let personalities = [0x0_u32, 0x8, 0x20000, 0x20008, u32::MAX];
    let mut rules = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    rules.extend(personalities.map(|value| {
        json!({"names": ["personality"], "action": "SCMP_ACT_ALLOW",
               "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
    }));
    rules.push(json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]}));
    rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": CLONE_NAMESPACES, "valueTwo": 0,
                  "op": "SCMP_CMP_MASKED_EQ"}]}));
    rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
    Ok(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules
    }))
}

/// A cBPF program (an array of `struct sock_filter`) that allows [`allowed`] on x86-64.
///
/// One comparison for each unbroken range of numbers, in a chain. The other architectures and the
/// conditional calls are left out: it is a lower bound.
///
/// # Errors
/// As [`profile`].
pub fn floor() -> Result<Vec<u8>, String> {
    const LOAD: u16 = 0x20;
    const AT_LEAST: u16 = 0x35;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;

    let numbers: Vec<u32> = allowed()?.into_iter().map(|(_, number)| number).collect();
    let mut program = vec![
        (LOAD, 0, 0, 4),
        (EQUAL, 1, 0, AUDIT_ARCH_X86_64),
        (RETURN, 0, 0, EPERM),
        (LOAD, 0, 0, 0),
    ];
    for (first, end) in ranges(&numbers) {
        program.push((AT_LEAST, 0, 2, first));
        program.push((AT_LEAST, 1, 0, end));
        program.push((RETURN, 0, 0, ALLOW));
    }
    program.push((RETURN, 0, 0, EPERM));
    let bytes = |(code, jt, jf, k): (u16, u8, u8, u32)| {
        let mut insn = code.to_ne_bytes().to_vec();
        insn.extend([jt, jf]);
        insn.extend(k.to_ne_bytes());
        insn
    };
    Ok(program.into_iter().flat_map(bytes).collect())
}

/// Half-open ranges that cover exactly `numbers`, which must be sorted.
fn ranges(numbers: &[u32]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, end)) if *end == number => *end += 1,
            _ => ranges.push((number, number + 1)),
        }
    }
    ranges
}

/// Names and numbers of what is allowed whatever its arguments, by number.
fn allowed() -> Result<Vec<(String, u32)>, String> {
    let header = fs::read_to_string(NUMBERS)
        .map_err(|e| format!("cannot read {NUMBERS}, of linux-libc-dev on x86-64: {e}"))?;
    let mut calls = numbers(&header);
    calls.retain(|(name, _)| {
        !REFUSED.contains(&name.as_str()) && !CONDITIONAL.contains(&name.as_str())
    });
    Ok(calls)
}

/// Reads the lines `#define __NR_name number`.
fn numbers(header: &str) -> Vec<(String, u32)> {
    let define = |line: &str| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    };
    let mut calls: Vec<(String, u32)> = header.lines().filter_map(define).collect();
    calls.sort_by_key(|&(_, number)| number);
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    /// numbers, ranges
    type Case = (&'static [u32], &'static [(u32, u32)]);

    #[test]
    fn ranges_cover_exactly_the_numbers() {
        let cases: &[Case] = &[
            (&[], &[]),
            (&[7], &[(7, 8)]),
            (&[0, 1, 2, 5, 6, 9], &[(0, 3), (5, 7), (9, 10)]),
        ];
        for (numbers, want) in cases {
            assert_eq!(ranges(numbers), *want, "{numbers:?}");
        }
    }

    #[test]
    fn the_header_gives_names_and_numbers_in_order() {
        let header = "#ifndef X\n#define __NR_write 1\n#define __NR_read 0\n#define OTHER 3\n";
        assert_eq!(
            numbers(header),
            [("read".to_owned(), 0), ("write".to_owned(), 1)]
        );
    }
}
