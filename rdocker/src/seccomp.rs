//! Which system calls a container may make: Docker's default profile, and profiles of the user.
//!
//! The default refuses with EPERM what is not listed here. What a capability unlocks is allowed only
//! to containers that hold it, so the profile is made for each container when it starts.
//! Facts: moby/profiles, seccomp v0.2.3; the file format: Docker's "Seccomp security profiles".

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompFilterFlag, LinuxSeccompOperator as Operator, LinuxSyscall,
};
use serde::Deserialize;

use crate::error::{Error, Result};

/// What a profile's conditions ask about the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The architecture as Rust names it: `x86_64`, `aarch64`.
    pub arch: &'static str,
    /// The kernel's version and major revision: `(6, 12)`.
    pub kernel: (u32, u32),
}

impl Machine {
    /// The machine that this runs on.
    pub fn this() -> Self {
        let name = rustix::system::uname();
        Self {
            arch: std::env::consts::ARCH,
            kernel: version(&name.release().to_string_lossy()).unwrap_or_default(),
        }
    }

    /// The name that profiles use: Go's, in most cases.
    fn name(self) -> &'static str {
        match self.arch {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            other => other,
        }
    }

    /// The architecture with those whose programs its kernel runs too.
    fn with_sub_architectures(self) -> Option<Vec<Arch>> {
        Some(match self.arch {
            "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
            "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
            "s390x" => vec![Arch::ScmpArchS390x, Arch::ScmpArchS390],
            "riscv64" => vec![Arch::ScmpArchRiscv64],
            _ => return None,
        })
    }
}

/// `4.8` of `4.8.12-gentoo`, as moby compares kernels.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Calls that every container may make.
const ALWAYS: &str = "\
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset \
    chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 \
    clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range \
    connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl \
    epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve \
    execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark \
    fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr \
    flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync \
    ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake \
    futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid \
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername \
    getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid \
    getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid \
    getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch \
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit \
    ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset \
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr \
    listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack \
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 \
    mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive \
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget \
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open \
    openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free \
    pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 \
    process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink \
    readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr \
    removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq \
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend \
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max \
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr \
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop \
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list \
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 \
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid \
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid \
    setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd \
    signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 \
    statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time \
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat \
    uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write \
    writev";

/// Calls that came with a kernel whose ptrace(2) cannot be used to get around a filter.
const SINCE_4_8: &str = "process_vm_readv process_vm_writev ptrace";

/// Calls that only some machines have.
const BY_MACHINE: &[(&[&str], &str)] = &[
    (&["powerpc64"], "swapcontext sync_file_range2"),
    (
        &["aarch64", "arm"],
        "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    ),
    (&["x86_64"], "arch_prctl"),
    (&["x86_64", "x86"], "modify_ldt"),
    (
        &["s390x"],
        "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
    ),
    (&["riscv64"], "riscv_flush_icache"),
];

/// Calls that a capability unlocks.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
         umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    (
        "CAP_SYS_PTRACE",
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    (
        "CAP_SYS_TIME",
        "clock_settime clock_settime64 settimeofday stime",
    ),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    (
        "CAP_SYS_NICE",
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// The socket families that are allowed: all but AF_ALG (38), the kernel's cryptography, and
/// AF_VSOCK (40), which leads out of the network namespace.
const SOCKET_FAMILIES: [(u64, Operator); 3] = [
    (38, Operator::ScmpCmpLt),
    (39, Operator::ScmpCmpEq),
    (40, Operator::ScmpCmpGt),
];

/// The execution domains that are allowed: Linux, Linux with 32-bit names (8), either with
/// uname's 2.6 (0x20000), and the question which one it is.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The flags of clone(2) that make a namespace: all but time, which has no place there.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Docker's default profile for a container with the bounding set `caps` (`CAP_SYS_ADMIN` and so
/// on) on `machine`.
pub fn default_profile<S: AsRef<str>>(caps: &[S], machine: Machine) -> LinuxSeccomp {
    let has = |cap: &str| caps.iter().any(|held| held.as_ref() == cap);
    let mut rules = vec![allow(ALWAYS)];
    if machine.kernel >= (4, 8) {
        rules.push(allow(SINCE_4_8));
    }
    for (family, op) in SOCKET_FAMILIES {
        rules.push(allow_if("socket", argument(0, family, op)));
    }
    for domain in PERSONALITIES {
        rules.push(allow_if(
            "personality",
            argument(0, domain, Operator::ScmpCmpEq),
        ));
    }
    let here = BY_MACHINE
        .iter()
        .filter(|(arches, _)| arches.contains(&machine.arch));
    rules.extend(here.map(|(_, names)| allow(names)));
    let held = BY_CAPABILITY.iter().filter(|(cap, _)| has(cap));
    rules.extend(held.map(|(_, names)| allow(names)));
    if !has("CAP_SYS_ADMIN") {
        // s390 has clone's first two arguments the other way round.
        let flags = if machine.arch == "s390x" { 1 } else { 0 };
        // No valueTwo: the masked flags must be zero.
        let none = argument(flags, CLONE_NAMESPACES, Operator::ScmpCmpMaskedEq);
        rules.push(allow_if("clone", none));
        // clone3's flags lie behind a pointer: ENOSYS makes C libraries take clone instead.
        let mut refused = rule("clone3", Action::ScmpActErrno);
        refused.set_errno_ret(Some(libc::ENOSYS as u32));
        rules.push(refused);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(Action::ScmpActErrno)
        .set_default_errno_ret(Some(libc::EPERM as u32))
        .set_architectures(machine.with_sub_architectures())
        .set_syscalls(Some(rules));
    profile
}

fn allow(names: &str) -> LinuxSyscall {
    rule(names, Action::ScmpActAllow)
}

fn allow_if(name: &str, arg: LinuxSeccompArg) -> LinuxSyscall {
    let mut rule = allow(name);
    rule.set_args(Some(vec![arg]));
    rule
}

fn rule(names: &str, action: Action) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.split_whitespace().map(str::to_owned).collect())
        .set_action(action);
    rule
}

fn argument(index: usize, value: u64, op: Operator) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(value)
        .op(op)
        .build()
        .expect("every field has a default")
}

/// A profile file of Docker: the runtime's profile with conditions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: Option<Action>,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<Arch>>,
    arch_map: Option<Vec<Architecture>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<std::path::PathBuf>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: Arch,
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    /// The form of old profiles: one name.
    name: Option<String>,
    names: Option<Vec<String>>,
    action: Action,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    includes: Option<Conditions>,
    excludes: Option<Conditions>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Reads a profile in Docker's format and keeps what applies to a container with the bounding set
/// `caps` on `machine`; `None` if it has neither a default action nor rules, which is no filter.
///
/// # Errors
/// [`Error::Invalid`] in Docker's words if the file does not decode or contradicts itself.
pub fn read_profile<S: AsRef<str>>(
    json: &[u8],
    caps: &[S],
    machine: Machine,
) -> Result<Option<LinuxSeccomp>> {
    let file: File = serde_json::from_slice(json)
        .map_err(|error| invalid(format!("decoding seccomp profile failed: {error}")))?;
    let entries = file.syscalls.unwrap_or_default();
    let Some(default_action) = file.default_action else {
        if entries.is_empty() {
            return Ok(None);
        }
        return Err(invalid("seccomp profile: defaultAction is missing"));
    };
    let listed = file.architectures.filter(|arches| !arches.is_empty());
    let mapped = file.arch_map.filter(|map| !map.is_empty());
    if listed.is_some() && mapped.is_some() {
        return Err(invalid(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, \
             use either 'architectures' or 'archMap'",
        ));
    }
    let mut rules = Vec::with_capacity(entries.len());
    for entry in entries {
        if applies(&entry, caps, machine)? {
            rules.push(runtime_rule(entry)?);
        }
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(default_action)
        .set_default_errno_ret(file.default_errno_ret)
        .set_architectures(listed.or_else(|| mapped.and_then(|map| of_machine(map, machine))))
        .set_flags(file.flags)
        .set_listener_path(file.listener_path)
        .set_listener_metadata(file.listener_metadata)
        .set_syscalls(Some(rules));
    Ok(Some(profile))
}

/// The entry of `archMap` for this machine.
fn of_machine(map: Vec<Architecture>, machine: Machine) -> Option<Vec<Arch>> {
    let native = match machine.arch {
        "x86" => Arch::ScmpArchX86,
        "arm" => Arch::ScmpArchArm,
        "powerpc64" => Arch::ScmpArchPpc64le,
        _ => *machine.with_sub_architectures()?.first()?,
    };
    let own = map.into_iter().find(|entry| entry.architecture == native)?;
    let mut arches = vec![native];
    arches.extend(own.sub_architectures.into_iter().flatten());
    Some(arches)
}

/// Whether an entry's conditions hold: all that it includes, none that it excludes.
fn applies<S: AsRef<str>>(entry: &Entry, caps: &[S], machine: Machine) -> Result<bool> {
    let has = |cap: &String| caps.iter().any(|held| held.as_ref() == cap);
    let here = |arch: &String| arch == machine.name();
    let since = |least: &String| {
        let least = version(least)
            .ok_or_else(|| invalid(format!("seccomp profile: invalid minKernel: {least}")))?;
        Ok::<_, Error>(machine.kernel >= least)
    };
    if let Some(conditions) = &entry.excludes {
        let kernel = conditions.min_kernel.as_ref().map(since).transpose()?;
        if conditions.arches.iter().flatten().any(here)
            || conditions.caps.iter().flatten().any(has)
            || kernel == Some(true)
        {
            return Ok(false);
        }
    }
    if let Some(conditions) = &entry.includes {
        let arches = conditions.arches.as_deref().unwrap_or_default();
        let kernel = conditions.min_kernel.as_ref().map(since).transpose()?;
        return Ok((arches.is_empty() || arches.iter().any(here))
            && conditions.caps.iter().flatten().all(has)
            && kernel != Some(false));
    }
    Ok(true)
}

fn runtime_rule(entry: Entry) -> Result<LinuxSyscall> {
    let names = entry.names.unwrap_or_default();
    let names = match entry.name.filter(|name| !name.is_empty()) {
        Some(_) if !names.is_empty() => {
            return Err(invalid(
                "both 'name' and 'names' are specified in the seccomp profile, \
                 use either 'name' or 'names'",
            ));
        }
        Some(name) => vec![name],
        None => names,
    };
    let mut rule = LinuxSyscall::default();
    rule.set_names(names)
        .set_action(entry.action)
        .set_errno_ret(entry.errno_ret)
        .set_args(entry.args);
    Ok(rule)
}

fn invalid(text: impl Into<String>) -> Error {
    Error::Invalid(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const THIS: Machine = Machine {
        arch: "x86_64",
        kernel: (6, 12),
    };

    /// The rules for `name` as text: action, errno and arguments.
    fn rules(profile: &LinuxSeccomp, name: &str) -> Vec<String> {
        let rules = profile.syscalls().iter().flatten();
        let named = rules.filter(|rule| rule.names().iter().any(|n| n == name));
        named
            .map(|rule| {
                let args = rule.args().iter().flatten();
                let args = args.map(|a| format!(" {}:{}:{:#x}", a.index(), a.op(), a.value()));
                let errno = rule.errno_ret().map(|e| format!(" {e}"));
                let args: String = args.collect();
                format!("{}{}{args}", rule.action(), errno.unwrap_or_default())
            })
            .collect()
    }

    #[test]
    fn a_capability_unlocks_its_calls_and_nothing_else() {
        let none = default_profile::<&str>(&[], THIS);
        let admin = default_profile(&["CAP_SYS_ADMIN"], THIS);
        let clone = "SCMP_ACT_ALLOW 0:SCMP_CMP_MASKED_EQ:0x7e020000";
        let cases: [(&str, &[&str], &[&str]); 9] = [
            ("read", &["SCMP_ACT_ALLOW"], &["SCMP_ACT_ALLOW"]),
            ("mount", &[], &["SCMP_ACT_ALLOW"]),
            ("clone", &[clone], &["SCMP_ACT_ALLOW"]),
            ("clone3", &["SCMP_ACT_ERRNO 38"], &["SCMP_ACT_ALLOW"]),
            ("reboot", &[], &[]),
            ("ptrace", &["SCMP_ACT_ALLOW"], &["SCMP_ACT_ALLOW"]),
            ("arch_prctl", &["SCMP_ACT_ALLOW"], &["SCMP_ACT_ALLOW"]),
            ("s390_runtime_instr", &[], &[]),
            ("keyctl", &[], &[]),
        ];
        for (name, without, with) in cases {
            assert_eq!(rules(&none, name), without, "{name} without CAP_SYS_ADMIN");
            assert_eq!(rules(&admin, name), with, "{name} with CAP_SYS_ADMIN");
        }
    }

    #[test]
    fn the_default_profile_has_every_documented_rule() {
        let profile = default_profile::<&str>(&[], THIS);
        assert_eq!(profile.default_action(), Action::ScmpActErrno);
        assert_eq!(profile.default_errno_ret(), Some(1));
        let names: Vec<_> = ALWAYS.split_whitespace().collect();
        assert_eq!(names.len(), 361);
        assert!(names.is_sorted_by(|a, b| a < b), "sorted, each once");
        assert_eq!(
            rules(&profile, "socket"),
            [
                "SCMP_ACT_ALLOW 0:SCMP_CMP_LT:0x26",
                "SCMP_ACT_ALLOW 0:SCMP_CMP_EQ:0x27",
                "SCMP_ACT_ALLOW 0:SCMP_CMP_GT:0x28"
            ]
        );
        assert_eq!(rules(&profile, "personality").len(), 5);
        for refused in [
            "io_uring_setup",
            "userfaultfd",
            "add_key",
            "kexec_load",
            "bpf",
        ] {
            assert_eq!(rules(&profile, refused), [""; 0], "{refused}");
        }
    }

    #[test]
    fn keels_tests_use_this_profile() {
        let json = include_str!("../../src/plan/seccomp/tests/docker_default.json");
        let theirs: LinuxSeccomp = serde_json::from_str(json).unwrap();
        assert_eq!(default_profile(&["CAP_SYS_CHROOT"], THIS), theirs);
    }

    #[test]
    fn machines_differ_where_their_kernels_do() {
        let on = |arch, kernel| default_profile::<&str>(&[], Machine { arch, kernel });
        let s390x = on("s390x", (6, 1));
        assert_eq!(
            rules(&s390x, "clone"),
            ["SCMP_ACT_ALLOW 1:SCMP_CMP_MASKED_EQ:0x7e020000"]
        );
        assert_eq!(rules(&s390x, "s390_runtime_instr").len(), 1);
        assert_eq!(rules(&on("x86_64", (4, 7)), "ptrace"), [""; 0]);
        assert_eq!(rules(&on("aarch64", (6, 1)), "set_tls").len(), 1);
        let arches = |arch| on(arch, (6, 1)).architectures().clone();
        assert_eq!(arches("aarch64").map(|a| a.len()), Some(2));
        assert_eq!(arches("x86_64").map(|a| a.len()), Some(3));
        assert_eq!(arches("powerpc64"), None);
    }

    #[test]
    fn a_docker_profile_keeps_the_entries_whose_conditions_hold() {
        let json = br#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "archMap": [
                {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
                {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                {"name": "a", "action": "SCMP_ACT_ALLOW", "args": null, "includes": {}},
                {"names": ["b"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.13"}},
                {"names": ["c"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"names": ["d"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
                {"names": ["e"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
                {"names": ["f"], "action": "SCMP_ACT_ALLOW",
                 "includes": {"caps": ["CAP_BPF", "CAP_SYSLOG"]}},
                {"names": ["g"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_BPF"]}},
                {"names": ["h"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
                {"names": ["i"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "6.12"}},
                {"names": ["j"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "comment": "x",
                 "args": [{"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#;
        let profile = read_profile(json, &["CAP_BPF"], THIS).unwrap().unwrap();
        let kept: Vec<_> = profile.syscalls().iter().flatten().collect();
        let kept: Vec<_> = kept.iter().map(|rule| rule.names()[0].as_str()).collect();
        assert_eq!(kept, ["a", "c", "e", "j"]);
        assert_eq!(
            profile.architectures().as_deref().unwrap_or_default(),
            [Arch::ScmpArchX86_64, Arch::ScmpArchX86]
        );
        assert_eq!(
            rules(&profile, "j"),
            ["SCMP_ACT_ERRNO 5 1:SCMP_CMP_MASKED_EQ:0x2"]
        );
        assert_eq!(profile.default_errno_ret(), Some(38));
    }

    #[test]
    fn a_profile_that_contradicts_itself_is_refused() {
        let cases: [(&[u8], &str); 5] = [
            (b"[", "decoding seccomp profile failed: EOF"),
            (
                br#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
                     "archMap": [{"architecture": "SCMP_ARCH_X86"}]}"#,
                "both 'architectures' and 'archMap' are specified",
            ),
            (
                br#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                     {"name": "a", "names": ["b"], "action": "SCMP_ACT_ALLOW"}]}"#,
                "both 'name' and 'names' are specified",
            ),
            (
                br#"{"syscalls": [{"names": ["b"], "action": "SCMP_ACT_ALLOW"}]}"#,
                "seccomp profile: defaultAction is missing",
            ),
            (
                br#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["b"],
                     "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}]}"#,
                "seccomp profile: invalid minKernel: new",
            ),
        ];
        for (json, want) in cases {
            let error = read_profile::<&str>(json, &[], THIS)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(want), "{error}");
        }
        assert_eq!(read_profile::<&str>(b"{}", &[], THIS).unwrap(), None);
    }

    #[test]
    fn a_kernel_release_is_read_as_far_as_it_matters() {
        let cases = [
            ("6.18.44-fc-v769", Some((6, 18))),
            ("4.8", Some((4, 8))),
            ("3.12-rc5", Some((3, 12))),
            ("6", None),
            ("", None),
        ];
        for (release, want) in cases {
            assert_eq!(version(release), want, "{release}");
        }
    }
}
