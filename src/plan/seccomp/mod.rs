//! Compiles `linux.seccomp` of config.json into a BPF program for seccomp(2).
//!
//! The verdict on a call, in this order:
//!
//! | the call | the answer |
//! |---|---|
//! | its ABI is neither keel's own nor in `architectures` | kill the process |
//! | a rule without arguments names it | that rule's action; of several, the first's |
//! | rules with arguments name it | the action of the first that matches |
//! | its number is above all that the profile names in this ABI, and the default refuses | `ENOSYS` |
//! | any other | `defaultAction` |
//!
//! - A rule's `args` must all match; if two of them test the same argument, one is enough (runc).
//! - A rule without arguments wins over rules with arguments, wherever it stands (libseccomp).
//! - A rule that does what the default does is left out, as runc leaves it out, with one exception:
//!   if it has arguments and the default refuses, it keeps its place, for leaving it out would hand
//!   its calls to a more permissive rule below it (the class of CVE-2017-18367).
//! - `ENOSYS` lets C libraries fall back from calls that are newer than the profile (runc). It does
//!   not take the place of the default actions allow, log and trace. Numbers that stand apart
//!   ([`Abi::apart`]) are not looked at for it: there the default holds.
//! - Names that no ABI has are skipped: profiles name calls of kernels and machines to come.
//! - A name is that call alone. `socket` says nothing about 32-bit x86's `socketcall`, whose
//!   arguments no filter can see; libseccomp lets it pass along.
//!
//! Spec: runtime-spec, config-linux.md "Seccomp". Man page: seccomp(2).

mod abi;
mod bpf;
mod rules;
mod tables;
#[cfg(any(test, fuzzing))]
pub mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use libc::{SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS};
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};

use self::abi::{Abi, X32_BIT};
use self::bpf::{Assembler, Jump, Place};
use self::rules::{Compare, Profile, Rule, Test};
use crate::error::{Error, Result};
pub use crate::sys::seccomp::{Insn, MAX_INSNS};

/// A compiled profile: what the child gives to seccomp(2), and what the parent does after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The program, at most [`MAX_INSNS`] instructions.
    pub program: Vec<Insn>,
    /// `SECCOMP_FILTER_FLAG_*`; has `NEW_LISTENER` exactly if `listener` is there.
    pub flags: u32,
    /// Who answers the profile's `SCMP_ACT_NOTIFY`.
    pub listener: Option<Listener>,
    /// Whether it is loaded before the process can be seen in the container, and not as late as
    /// possible: see [`super::peers_may_trace`].
    pub first: bool,
}

/// The agent that gets the descriptor of the notifications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The unix socket to send the descriptor and the container's state to.
    pub path: PathBuf,
    /// `listenerMetadata`, passed on as it is.
    pub metadata: String,
}

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

const ENOSYS: u32 = SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// Compiles `profile` for the machine that keel was built for; see the module text.
///
/// # Errors
/// [`Error::Spec`] with the JSON path of what breaks a rule of the specification, or if the program
/// gets longer than the kernel takes; [`Error::Failed`] on a machine without a table of calls.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter> {
    let native = Abi::native().ok_or_else(|| {
        Error::Failed(format!(
            "seccomp: the system calls of {} are not known; remove .linux.seccomp",
            std::env::consts::ARCH
        ))
    })?;
    compile_for(profile, native)
}

/// Whether the numbers of this architecture's system calls are in the tables.
pub fn knows(arch: Arch) -> bool {
    Abi::native().is_some_and(|native| Abi::of(arch, native).is_some())
}

fn compile_for(profile: &LinuxSeccomp, native: Abi) -> Result<Filter> {
    let listener = listener(profile)?;
    let rules = rules::read(profile)?;
    let program = assemble(&rules, &abis(profile, native));
    if program.len() > MAX_INSNS {
        return Err(too_long());
    }
    Ok(Filter {
        program,
        flags: flags(profile, listener.is_some()),
        listener,
        first: false,
    })
}

fn too_long() -> Error {
    Error::spec(
        ".linux.seccomp.syscalls",
        format!(
            "compiles to more than {MAX_INSNS} instructions, the most that the kernel takes: \
             use fewer rules with args"
        ),
    )
}

/// The ABIs that get a section: keel's own first, then those of `architectures` that its kernel can
/// serve. The others can never call, so they need no code: the arch check kills what is not here.
fn abis(profile: &LinuxSeccomp, native: Abi) -> Vec<Abi> {
    let mut abis = vec![native];
    for arch in profile.architectures().iter().flatten() {
        if let Some(abi) = Abi::of(*arch, native)
            && abi.same_kernel(native)
            && !abis.contains(&abi)
        {
            abis.push(abi);
        }
    }
    abis
}

/// The flags to load with: `SPEC_ALLOW` if the profile does not say, what it says if it does.
///
/// `TSYNC` asks for nothing here: the process that loads the filter has one thread.
/// `WAIT_KILLABLE_RECV` is valid with a listener only.
fn flags(profile: &LinuxSeccomp, listener: bool) -> u32 {
    use LinuxSeccompFilterFlag as Flag;
    let mut flags = match profile.flags() {
        None => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        Some(flags) => flags.iter().fold(0, |all, flag| {
            all | match flag {
                Flag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
                Flag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                Flag::SeccompFilterFlagWaitKillableRecv if listener => {
                    libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
                }
                Flag::SeccompFilterFlagWaitKillableRecv | Flag::SeccompFilterFlagTsync => 0,
            }
        }),
    };
    if listener {
        flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    }
    flags as u32
}

/// Who is to be told of `SCMP_ACT_NOTIFY`; nobody if no rule has that action.
fn listener(profile: &LinuxSeccomp) -> Result<Option<Listener>> {
    let path = profile.listener_path().clone().unwrap_or_default();
    let metadata = profile.listener_metadata().clone().unwrap_or_default();
    if path.as_os_str().is_empty() && !metadata.is_empty() {
        return Err(Error::spec(
            ".linux.seccomp.listenerMetadata",
            "must not be set without listenerPath",
        ));
    }
    let mut rules = profile.syscalls().iter().flatten();
    if !rules.any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify) {
        return Ok(None);
    }
    if path.as_os_str().is_empty() {
        return Err(Error::spec(
            ".linux.seccomp.listenerPath",
            "must be set: a rule has the action SCMP_ACT_NOTIFY",
        ));
    }
    Ok(Some(Listener { path, metadata }))
}

/// The whole program: the arch check, then one section for each value of `seccomp_data.arch`.
fn assemble(profile: &Profile, abis: &[Abi]) -> Vec<Insn> {
    let mut code = Assembler::default();
    let mut chains = BTreeMap::new();
    let mut others = code.ret(SECCOMP_RET_KILL_PROCESS);
    let native = abis[0].audit_arch();
    let mut arches: Vec<u32> = abis.iter().map(|abi| abi.audit_arch()).collect();
    arches.sort_unstable_by_key(|arch| (*arch == native, *arch));
    arches.dedup();
    for arch in arches {
        let ranges = ranges(profile, abis, arch);
        let section = search(&mut code, &mut chains, profile, &ranges);
        let section = code.load(NR, section);
        others = code.jump(Jump::Eq, arch, section, others);
    }
    code.load(ARCH, others);
    code.finish()
}

/// What happens to the calls of one range of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Leaf {
    /// The filter ends with this value.
    Ret(u32),
    /// These rules of the profile are tried one after the other in this ABI, then the default.
    Chain { abi: Abi, rules: Vec<usize> },
}

/// A range of system call numbers: from `first` to just below the next range's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    leaf: Leaf,
}

/// All 2^32 numbers of the calls with one `seccomp_data.arch`, in order.
fn ranges(profile: &Profile, abis: &[Abi], arch: u32) -> Vec<Range> {
    let mut ranges = Vec::new();
    let has = |abi| abis.contains(&abi);
    if arch == Abi::X86_64.audit_arch() {
        let mut beyond = SECCOMP_RET_KILL_PROCESS;
        if has(Abi::X86_64) {
            beyond = section(profile, Abi::X86_64, 0, &mut ranges);
        } else {
            push(&mut ranges, 0, Leaf::Ret(SECCOMP_RET_KILL_PROCESS));
        }
        if has(Abi::X32) {
            section(profile, Abi::X32, X32_BIT, &mut ranges);
        } else {
            push(&mut ranges, X32_BIT, Leaf::Ret(SECCOMP_RET_KILL_PROCESS));
            // syscall(-1) has the bit but is no x32 call: the kernel's own answer is ENOSYS.
            push(&mut ranges, u32::MAX, Leaf::Ret(beyond));
        }
    } else if let Some(abi) = abis.iter().find(|abi| abi.audit_arch() == arch) {
        section(profile, *abi, 0, &mut ranges);
    }
    ranges
}

/// Adds the ranges of one ABI, whose numbers start at `base`; the answer is what happens to numbers
/// beyond all that the profile names.
fn section(profile: &Profile, abi: Abi, base: u32, ranges: &mut Vec<Range>) -> u32 {
    let (unnamed, beyond) = unnamed(profile, abi, base);
    let at = |number| {
        let range = unnamed.iter().rfind(|(first, _)| *first <= number);
        Leaf::Ret(range.map_or(profile.default, |(_, value)| *value))
    };
    let mut starts = unnamed.iter().map(|(first, _)| *first).peekable();
    for group in profile.calls(abi).chunk_by(|a, b| a.0 == b.0) {
        let number = group[0].0;
        while let Some(first) = starts.next_if(|first| *first <= number) {
            push(ranges, first, at(first));
        }
        push(ranges, number, leaf(profile, abi, group));
        push(ranges, number + 1, at(number + 1));
    }
    for first in starts {
        push(ranges, first, at(first));
    }
    beyond
}

/// What happens to the calls of one ABI that no rule names: where ranges start and how the filter
/// ends for them; and how it ends beyond all that the profile names.
fn unnamed(profile: &Profile, abi: Abi, base: u32) -> (Vec<(u32, u32)>, u32) {
    let default = profile.default;
    let highest = profile.highest(abi).filter(|_| profile.default_refuses);
    let Some(highest) = highest else {
        return (vec![(base, default)], default);
    };
    let mut ranges = match abi {
        // The kernel leaves 0 in place of a number that it does not know.
        Abi::S390x | Abi::S390 => vec![(0, ENOSYS), (1, default)],
        _ => vec![(base, default)],
    };
    ranges.push((highest + 1, ENOSYS));
    if let Some(apart) = abi.apart().filter(|apart| apart.start > highest) {
        ranges.push((apart.start, default));
        ranges.push((apart.end, ENOSYS));
    }
    (ranges, ENOSYS)
}

/// Starts a range at `first`; what was from there on before it is replaced.
fn push(ranges: &mut Vec<Range>, first: u32, leaf: Leaf) {
    if ranges.last().is_some_and(|range| range.first == first) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|range| range.leaf != leaf) {
        ranges.push(Range { first, leaf });
    }
}

/// What the rules that name one call make of it.
fn leaf(profile: &Profile, abi: Abi, named: &[(u32, usize)]) -> Leaf {
    let action = |at: usize| profile.rules[at].action;
    let tests = |at: usize| &profile.rules[at].tests;
    if let Some((_, at)) = named.iter().find(|(_, at)| tests(*at).is_empty()) {
        return Leaf::Ret(action(*at));
    }
    let mut rules: Vec<usize> = named.iter().map(|(_, at)| *at).collect();
    while rules
        .last()
        .is_some_and(|at| action(*at) == profile.default)
    {
        rules.pop();
    }
    if rules.is_empty() {
        return Leaf::Ret(profile.default);
    }
    Leaf::Chain { abi, rules }
}

/// Chains that are written already: calls named by one rule share its code.
type Chains = BTreeMap<(bool, Vec<usize>), Place>;

/// A binary search over `ranges`: as many comparisons as the logarithm of their number.
fn search(code: &mut Assembler, chains: &mut Chains, profile: &Profile, ranges: &[Range]) -> Place {
    if let [Range { leaf, .. }] = ranges {
        return match leaf {
            Leaf::Ret(value) => code.ret(*value),
            Leaf::Chain { abi, rules } => {
                let key = (abi.is_wide(), rules.clone());
                if let Some(place) = chains.get(&key) {
                    return *place;
                }
                let place = chain(code, profile, *abi, rules);
                chains.insert(key, place);
                place
            }
        };
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let first = high[0].first;
    let high = search(code, chains, profile, high);
    let low = search(code, chains, profile, low);
    code.jump(Jump::Ge, first, high, low)
}

/// The rules of one call, tried in order; the default's action if none matches.
fn chain(code: &mut Assembler, profile: &Profile, abi: Abi, rules: &[usize]) -> Place {
    let mut next = code.ret(profile.default);
    for at in rules.iter().rev() {
        let Rule { action, tests } = &profile.rules[*at];
        let mut matched = code.ret(*action);
        for test in tests.iter().rev() {
            matched = argument(code, abi, *test, matched, next);
        }
        next = matched;
        if code.len() > MAX_INSNS {
            // Too long already: a hostile profile gets no memory for the rest of it.
            break;
        }
    }
    next
}

/// One test of an argument: goes on at `yes` or at `no`.
fn argument(code: &mut Assembler, abi: Abi, test: Test, yes: Place, no: Place) -> Place {
    let (yes, no) = if test.holds { (yes, no) } else { (no, yes) };
    let at = ARGS + 8 * test.index;
    let (low, high) = if abi.is_big_endian() {
        (at + 4, at)
    } else {
        (at, at + 4)
    };
    let halves = |value: u64| (value as u32, (value >> 32) as u32);
    match test.compare {
        Compare::Masked { mask, value } => {
            let ((mask, mask_high), (value, value_high)) = (halves(mask), halves(value));
            let yes = if abi.is_wide() {
                masked(code, high, (mask_high, value_high), yes, no)
            } else {
                yes
            };
            masked(code, low, (mask, value), yes, no)
        }
        Compare::Ordered { jump, value } => {
            let (value, value_high) = halves(value);
            let equal = code.jump(jump, value, yes, no);
            let equal = code.load(low, equal);
            if !abi.is_wide() {
                return equal;
            }
            let not_above = code.jump(Jump::Eq, value_high, equal, no);
            let either = code.jump(Jump::Gt, value_high, yes, not_above);
            code.load(high, either)
        }
    }
}

/// Tests whether the word at `offset`, masked, is a value.
fn masked(code: &mut Assembler, offset: u32, want: (u32, u32), yes: Place, no: Place) -> Place {
    let (mask, value) = want;
    if mask == 0 {
        return if value == 0 { yes } else { no };
    }
    let mut test = code.jump(Jump::Eq, value, yes, no);
    if mask != u32::MAX {
        test = code.and(mask, test);
    }
    code.load(offset, test)
}
