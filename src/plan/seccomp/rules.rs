//! Reads a profile's rules: actions become `SECCOMP_RET_*` values, arguments become tests.

use std::ops::Range;

use libc::{
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD,
    SECCOMP_RET_LOG, SECCOMP_RET_TRACE, SECCOMP_RET_TRAP, SECCOMP_RET_USER_NOTIF,
};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Operator,
    LinuxSyscall,
};

use super::abi::{Abi, numbers};
use super::bpf::Jump;
use super::tables::SYSCALLS;
use super::{MAX_INSNS, too_long};
use crate::error::{Error, Result};

/// The largest errno that the kernel hands through (`MAX_ERRNO`).
const MAX_ERRNO: u32 = 4095;

/// A profile with its values checked; what a rule is worth is decided per ABI.
#[derive(Debug)]
pub struct Profile {
    /// The default action as `SECCOMP_RET_*`.
    pub default: u32,
    /// Whether the default keeps a call from happening.
    pub default_refuses: bool,
    /// All rules that can make a difference, in the profile's order.
    pub rules: Vec<Rule>,
    /// Every known name with the rules that it stands in; the range is empty if they were left out.
    names: Vec<(&'static [u32; 9], Range<usize>)>,
}

/// An action and all that must hold for it; no tests: always.
#[derive(Debug)]
pub struct Rule {
    /// A `SECCOMP_RET_*` with its data.
    pub action: u32,
    /// One test for each entry of `args`.
    pub tests: Vec<Test>,
}

/// One entry of a rule's `args`.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// Which argument: 0 to 5.
    pub index: u32,
    /// What it is compared with.
    pub compare: Compare,
    /// What must come out of it.
    pub holds: bool,
}

/// A comparison of an argument, unsigned.
#[derive(Clone, Copy, Debug)]
pub enum Compare {
    /// The argument's bits in `mask` are exactly `value`.
    Masked { mask: u64, value: u64 },
    /// The argument is above `value` (or equal, with [`Jump::Ge`]).
    Ordered { jump: Jump, value: u64 },
}

impl Profile {
    /// The calls of `abi` that the rules name: number and rule, sorted by both.
    pub fn calls(&self, abi: Abi) -> Vec<(u32, usize)> {
        let mut calls = Vec::with_capacity(self.names.len());
        for (row, rules) in &self.names {
            if let Some(number) = abi.number(row) {
                calls.extend(rules.clone().map(|rule| (number, rule)));
            }
        }
        calls.sort_unstable();
        calls
    }

    /// The highest number that the profile names in `abi`, in any rule, except numbers that stand
    /// apart: they would hide every call that is newer than the profile.
    pub fn highest(&self, abi: Abi) -> Option<u32> {
        let numbers = self.names.iter().filter_map(|(row, _)| abi.number(row));
        let apart = abi.apart().unwrap_or_default();
        numbers.filter(|number| !apart.contains(number)).max()
    }
}

/// Checks `profile` and reads its rules.
///
/// # Errors
/// [`Error::Spec`] with the JSON path: `SCMP_ACT_NOTIFY` as default or for `write`, an errno for an
/// action that has none or above the kernel's limit, an argument beyond the sixth, a rule without
/// names.
pub fn read(profile: &LinuxSeccomp) -> Result<Profile> {
    let at = ".linux.seccomp";
    if profile.default_action() == Action::ScmpActNotify {
        return Err(Error::spec(
            format!("{at}.defaultAction"),
            "must not be SCMP_ACT_NOTIFY: the container could not even start",
        ));
    }
    let errno = profile.default_errno_ret();
    let default = value(profile.default_action(), errno, || {
        format!("{at}.defaultErrnoRet")
    })?;
    let mut read = Profile {
        default,
        default_refuses: !matches!(
            profile.default_action(),
            Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
        ),
        rules: Vec::new(),
        names: Vec::new(),
    };
    for (i, entry) in profile.syscalls().iter().flatten().enumerate() {
        read_entry(&mut read, entry, &format!("{at}.syscalls[{i}]"))?;
    }
    Ok(read)
}

fn read_entry(profile: &mut Profile, entry: &LinuxSyscall, at: &str) -> Result<()> {
    if entry.names().is_empty() {
        return Err(Error::spec(
            format!("{at}.names"),
            "must name a system call at least",
        ));
    }
    if entry.action() == Action::ScmpActNotify
        && let Some(i) = entry.names().iter().position(|name| name == "write")
    {
        return Err(Error::spec(
            format!("{at}.names[{i}]"),
            "SCMP_ACT_NOTIFY cannot be used for the write syscall: \
             the container needs it before its listener hears",
        ));
    }
    let action = value(entry.action(), entry.errno_ret(), || {
        format!("{at}.errnoRet")
    })?;
    let args = entry.args().as_deref().unwrap_or_default();
    let mut tests = Vec::with_capacity(args.len());
    for (i, arg) in args.iter().enumerate() {
        tests.push(test(arg, || format!("{at}.args[{i}]"))?);
    }
    let first = profile.rules.len();
    let without_effect =
        action == profile.default && (tests.is_empty() || !profile.default_refuses);
    if !without_effect {
        if repeats_an_index(&tests) {
            let each = tests.into_iter().map(|test| vec![test]);
            let rules = each.map(|tests| Rule { action, tests });
            profile.rules.extend(rules);
        } else {
            profile.rules.push(Rule { action, tests });
        }
    }
    if profile.rules.len() > MAX_INSNS {
        return Err(too_long());
    }
    let rules = first..profile.rules.len();
    let known = entry.names().iter().filter_map(|name| numbers(name));
    let mut known: Vec<_> = known.collect();
    if known.len() > SYSCALLS.len() {
        // Some stand there twice; a hostile rule's names shall not multiply with its args.
        known.sort_unstable();
        known.dedup();
    }
    let known = known.into_iter().map(|row| (row, rules.clone()));
    profile.names.extend(known);
    Ok(())
}

/// An action's `SECCOMP_RET_*` value; `at` is the JSON path of `errno`.
///
/// The errno is EPERM if none is given, for `SCMP_ACT_TRACE` too: there it is the number that the
/// tracer reads.
fn value(action: Action, errno: Option<u32>, at: impl Fn() -> String) -> Result<u32> {
    const EPERM: u32 = libc::EPERM as u32;
    let (value, limit) = match action {
        Action::ScmpActErrno => (SECCOMP_RET_ERRNO, MAX_ERRNO),
        Action::ScmpActTrace => (SECCOMP_RET_TRACE, libc::SECCOMP_RET_DATA),
        Action::ScmpActKill | Action::ScmpActKillThread => (SECCOMP_RET_KILL_THREAD, 0),
        Action::ScmpActKillProcess => (SECCOMP_RET_KILL_PROCESS, 0),
        Action::ScmpActTrap => (SECCOMP_RET_TRAP, 0),
        Action::ScmpActNotify => (SECCOMP_RET_USER_NOTIF, 0),
        Action::ScmpActLog => (SECCOMP_RET_LOG, 0),
        Action::ScmpActAllow => (SECCOMP_RET_ALLOW, 0),
    };
    match errno {
        None if limit > 0 => Ok(value | EPERM),
        None => Ok(value),
        Some(_) if limit == 0 => Err(Error::spec(
            at(),
            format!("{action} has no errno: remove it, or use SCMP_ACT_ERRNO"),
        )),
        Some(errno) if errno > limit => Err(Error::spec(
            at(),
            format!("{errno} is above {limit}, the largest that {action} can return"),
        )),
        Some(errno) => Ok(value | errno),
    }
}

fn test(arg: &LinuxSeccompArg, at: impl Fn() -> String) -> Result<Test> {
    let index = u32::try_from(arg.index())
        .ok()
        .filter(|index| *index < 6)
        .ok_or_else(|| {
            Error::spec(
                format!("{}.index", at()),
                format!("{}: a system call has the arguments 0 to 5", arg.index()),
            )
        })?;
    let value = arg.value();
    let equal = Compare::Masked {
        mask: u64::MAX,
        value,
    };
    let ordered = |jump| Compare::Ordered { jump, value };
    let (compare, holds) = match arg.op() {
        Operator::ScmpCmpEq => (equal, true),
        Operator::ScmpCmpNe => (equal, false),
        Operator::ScmpCmpGt => (ordered(Jump::Gt), true),
        Operator::ScmpCmpLe => (ordered(Jump::Gt), false),
        Operator::ScmpCmpGe => (ordered(Jump::Ge), true),
        Operator::ScmpCmpLt => (ordered(Jump::Ge), false),
        Operator::ScmpCmpMaskedEq => {
            // Both sides are masked, as libseccomp does.
            let mask = value;
            let value = arg.value_two().unwrap_or(0) & mask;
            (Compare::Masked { mask, value }, true)
        }
    };
    Ok(Test {
        index,
        compare,
        holds,
    })
}

/// Whether two tests are about one argument: then one of the tests is enough.
fn repeats_an_index(tests: &[Test]) -> bool {
    let index = |test: &Test| test.index;
    let mut indexes: Vec<u32> = tests.iter().map(index).collect();
    indexes.sort_unstable();
    indexes.windows(2).any(|pair| pair[0] == pair[1])
}
