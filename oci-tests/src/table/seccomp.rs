//! config-linux.md: seccomp filters.

use serde_json::{Value, json};

use crate::inside::View;
use crate::lab::Lab;
use crate::requirement::Level::Must;
use crate::requirement::{Requirement, Verdict, Why, ensure};

const AT: &str = "config-linux.md#seccomp";

#[rustfmt::skip]
pub const TABLE: &[Requirement] = &[
    Requirement::must("linux.seccomp.defaultAction-1", AT,
        "defaultAction is the action for what no rule matches", default_action),
    Requirement::must("linux.seccomp.defaultAction-2", AT,
        "an unknown action is an error", unknown_action),
    Requirement::must("linux.seccomp.defaultErrnoRet-1", AT,
        "defaultErrnoRet is the errno; EPERM without it", default_errno),
    Requirement::must("linux.seccomp.defaultErrnoRet-2", AT,
        "an errno for a default action that takes none is an error", errno_of_default_allow),
    Requirement::must("linux.seccomp.errnoRet-1", AT,
        "errnoRet is the errno; EPERM without it", errno_ret),
    Requirement::must("linux.seccomp.errnoRet-2", AT,
        "an errno for an action that takes none is an error", errno_of_allow),
    Requirement::must("linux.seccomp.names-1", AT, "names has at least one entry", no_names),
    Requirement::must("linux.seccomp.names-2", AT,
        "each of the names has the action", several_names),
    Requirement::must("linux.seccomp.architectures-1", AT,
        "an unknown architecture is an error", unknown_architecture),
    Requirement::must("linux.seccomp.architectures-2", AT,
        "listed architectures are accepted", architectures),
    Requirement::must("linux.seccomp.flags-1", AT, "listed flags are accepted", flags),
    Requirement::must("linux.seccomp.flags-2", AT, "an unknown flag is an error", unknown_flag),
    Requirement::with("linux.seccomp.action.errno", Must, AT, "SCMP_ACT_ERRNO", "ERRNO", action),
    Requirement::with("linux.seccomp.action.kill", Must, AT, "SCMP_ACT_KILL kills", "KILL", action),
    Requirement::with("linux.seccomp.action.kill-process", Must, AT, "SCMP_ACT_KILL_PROCESS kills", "KILL_PROCESS", action),
    Requirement::with("linux.seccomp.action.kill-thread", Must, AT, "SCMP_ACT_KILL_THREAD kills", "KILL_THREAD", action),
    Requirement::with("linux.seccomp.action.trap", Must, AT, "SCMP_ACT_TRAP raises SIGSYS", "TRAP", action),
    Requirement::with("linux.seccomp.action.trace", Must, AT, "SCMP_ACT_TRACE without a tracer gives ENOSYS", "TRACE", action),
    Requirement::with("linux.seccomp.action.log", Must, AT, "SCMP_ACT_LOG lets the call through", "LOG", action),
    Requirement::with("linux.seccomp.action.allow", Must, AT, "SCMP_ACT_ALLOW lets the call through", "ALLOW", action),
    Requirement::with("linux.seccomp.op.ne", Must, AT, "SCMP_CMP_NE", "NE", operator),
    Requirement::with("linux.seccomp.op.lt", Must, AT, "SCMP_CMP_LT", "LT", operator),
    Requirement::with("linux.seccomp.op.le", Must, AT, "SCMP_CMP_LE", "LE", operator),
    Requirement::with("linux.seccomp.op.eq", Must, AT, "SCMP_CMP_EQ", "EQ", operator),
    Requirement::with("linux.seccomp.op.ge", Must, AT, "SCMP_CMP_GE", "GE", operator),
    Requirement::with("linux.seccomp.op.gt", Must, AT, "SCMP_CMP_GT", "GT", operator),
    Requirement::with("linux.seccomp.op.masked-eq", Must, AT, "SCMP_CMP_MASKED_EQ", "MASKED_EQ", operator),
    Requirement::must("linux.seccomp.op-1", AT, "an unknown operator is an error", unknown_operator),
    Requirement::must("linux.seccomp.args-1", AT,
        "the arguments of one rule must all match", all_arguments),
];

fn with(lab: &Lab, profile: Value, tries: &[&str]) -> Result<View, Why> {
    lab.see(tries, |c| {
        c.set("/linux/seccomp", profile);
    })
}

/// Everything is allowed but for these rules.
fn allow_but(rules: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
}

/// A rule that fails mkdir with this errno.
fn mkdir_fails(errno: Option<i32>) -> Value {
    let mut rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"});
    if let Some(errno) = errno {
        rule["errnoRet"] = json!(errno);
    }
    rule
}

/// The shell's mkdir; its errno is in its words.
const MKDIR: &str = "sh:busybox mkdir /tmp/x 2>&1; true";

fn default_action(lab: &Lab) -> Verdict {
    let view = with(lab, allow_but(json!([])), &[])?;
    ensure!(view.status("Seccomp") != "1", "strict mode");
    let view = with(lab, allow_but(json!([mkdir_fails(None)])), &["list:/"])?;
    ensure!(
        view.status("Seccomp") == "2",
        "Seccomp is {}",
        view.status("Seccomp")
    );
    ensure!(view.tried(0)?.errno == 0, "what no rule matches is refused");
    Ok(())
}

fn refuses(lab: &Lab, what: &str, profile: Value) -> Verdict {
    lab.refuses(what, |c| {
        c.set("/linux/seccomp", profile);
    })
}

fn unknown_action(lab: &Lab) -> Verdict {
    refuses(
        lab,
        "an unknown default action",
        json!({"defaultAction": "SCMP_ACT_NONSENSE"}),
    )?;
    let rule = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NONSENSE"}]);
    refuses(lab, "an unknown action", allow_but(rule))
}

/// Every call but lseek, which the helper tries, is allowed: the default action must not hit what
/// the process needs to live.
fn all_but_lseek(default: Option<i32>) -> Value {
    // A comparison that holds for each offset but one leaves that one to the default.
    let rules = json!([
        {"names": ["lseek"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 1, "value": 4711, "op": "SCMP_CMP_NE"}]},
        {"names": EVERYTHING.split_whitespace().collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW"}
    ]);
    let mut profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules});
    if let Some(errno) = default {
        profile["defaultErrnoRet"] = json!(errno);
    }
    profile
}

/// What a static program and the runtime's last steps need.
const EVERYTHING: &str = "access arch_prctl brk capget capset chdir chmod chown clone clone3 close \
    close_range connect dup dup2 dup3 epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 \
    execve execveat exit exit_group faccessat faccessat2 fadvise64 fchdir fchmod fchown fcntl \
    fstat fstatfs fsync ftruncate futex getcwd getdents getdents64 getegid geteuid getgid \
    getgroups getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit \
    get_robust_list getsid getsockname getsockopt gettid gettimeofday getuid ioctl ioprio_get kill \
    lstat madvise membarrier memfd_create mmap mount mprotect mremap munmap nanosleep newfstatat \
    open openat openat2 pause pipe pipe2 poll ppoll prctl pread64 preadv prlimit64 pselect6 \
    pwrite64 read readlink readlinkat readv recvfrom recvmsg restart_syscall rseq rt_sigaction \
    rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_getaffinity \
    sched_getparam sched_getscheduler sched_yield seccomp select sendmsg sendto set_robust_list \
    set_tid_address setgid setgroups setpgid setpriority setregid setresgid setresuid setreuid \
    setsid setsockopt setuid sigaltstack socket socketpair stat statfs statx sysinfo tgkill time \
    times umask uname unlink unlinkat utimensat vfork wait4 waitid write writev";

fn default_errno(lab: &Lab) -> Verdict {
    for (errno, want) in [(Some(77), 77), (None, libc::EPERM)] {
        let view = with(lab, all_but_lseek(errno), &["lseek:4711", "lseek:5"])?;
        let found = (view.tried(0)?.errno, view.tried(1)?.errno);
        ensure!(
            found == (want, libc::EBADF),
            "the errnos are {found:?}, not {want} and EBADF"
        );
    }
    Ok(())
}

fn errno_of_default_allow(lab: &Lab) -> Verdict {
    refuses(
        lab,
        "defaultErrnoRet with SCMP_ACT_ALLOW",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 5,
               "syscalls": [mkdir_fails(None)]}),
    )
}

fn errno_ret(lab: &Lab) -> Verdict {
    let cases = [
        (Some(libc::ENOTEMPTY), "Directory not empty"),
        (None, "Operation not permitted"),
    ];
    for (errno, words) in cases {
        let view = with(lab, allow_but(json!([mkdir_fails(errno)])), &[MKDIR])?;
        let found = &view.tried(0)?.found;
        ensure!(found.contains(words), "mkdir says {found:?}, not {words:?}");
    }
    Ok(())
}

fn errno_of_allow(lab: &Lab) -> Verdict {
    let rule = json!([{"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 5}]);
    refuses(lab, "errnoRet with SCMP_ACT_KILL", allow_but(rule))
}

fn no_names(lab: &Lab) -> Verdict {
    refuses(
        lab,
        "a rule without names",
        allow_but(json!([{"names": [], "action": "SCMP_ACT_ERRNO"}])),
    )
}

fn several_names(lab: &Lab) -> Verdict {
    let rule = json!([{"names": ["mkdir", "mkdirat", "sethostname", "no_such_call"],
                       "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EXDEV}]);
    let tries = [MKDIR, "sh:busybox hostname x 2>&1; true"];
    let view = with(lab, allow_but(rule), &tries)?;
    for tried in &view.tries {
        ensure!(
            tried.found.contains("cross-device"),
            "a command says {:?}",
            tried.found
        );
    }
    Ok(())
}

fn unknown_architecture(lab: &Lab) -> Verdict {
    let mut profile = allow_but(json!([mkdir_fails(None)]));
    profile["architectures"] = json!(["SCMP_ARCH_NONSENSE"]);
    refuses(lab, "an unknown architecture", profile)
}

fn architectures(lab: &Lab) -> Verdict {
    let mut profile = allow_but(json!([mkdir_fails(None)]));
    profile["architectures"] = json!([
        "SCMP_ARCH_X86_64",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_AARCH64",
        "SCMP_ARCH_ARM"
    ]);
    let view = with(lab, profile, &[MKDIR])?;
    let found = &view.tried(0)?.found;
    ensure!(found.contains("not permitted"), "mkdir says {found:?}");
    Ok(())
}

fn flags(lab: &Lab) -> Verdict {
    for flag in [
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_TSYNC",
    ] {
        let mut profile = allow_but(json!([mkdir_fails(None)]));
        profile["flags"] = json!([flag]);
        let view = with(lab, profile, &[MKDIR])?;
        let found = &view.tried(0)?.found;
        ensure!(
            found.contains("not permitted"),
            "with {flag}, mkdir says {found:?}"
        );
    }
    Ok(())
}

fn unknown_flag(lab: &Lab) -> Verdict {
    let mut profile = allow_but(json!([mkdir_fails(None)]));
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_NONSENSE"]);
    refuses(lab, "an unknown flag", profile)
}

/// A shell runs mkdir under a rule with the action and tells how it ended.
fn action(lab: &Lab, name: &str) -> Verdict {
    let rule = json!([{"names": ["mkdir", "mkdirat"], "action": format!("SCMP_ACT_{name}")}]);
    let command = "sh:(busybox mkdir /tmp/x) 2>&1; echo status $?";
    let view = with(lab, allow_but(rule), &[command])?;
    let found = &view.tried(0)?.found;
    let wanted = match name {
        // 128 + SIGSYS
        "KILL" | "KILL_PROCESS" | "KILL_THREAD" | "TRAP" => "status 159",
        "ERRNO" => "not permitted",
        "TRACE" => "not implemented",
        _ => "status 0",
    };
    ensure!(
        found.contains(wanted),
        "it ends with {found:?}, not {wanted:?}"
    );
    Ok(())
}

/// The rule hits lseek with some of three offsets, which differ in both halves of 64 bits.
fn operator(lab: &Lab, name: &str) -> Verdict {
    const MIDDLE: i64 = 0x2_0000_0005;
    const OFFSETS: [i64; 3] = [0x1_0000_0009, MIDDLE, 0x3_0000_0001];
    let hit: fn(i64) -> bool = match name {
        "NE" => |o| o != MIDDLE,
        "LT" => |o| o < MIDDLE,
        "LE" => |o| o <= MIDDLE,
        "EQ" => |o| o == MIDDLE,
        "GE" => |o| o >= MIDDLE,
        "GT" => |o| o > MIDDLE,
        _ => |o| o & 0x1_0000_0001 == 0x1_0000_0001,
    };
    let arg = if name == "MASKED_EQ" {
        json!({"index": 1, "value": 0x1_0000_0001_i64, "valueTwo": 0x1_0000_0001_i64,
               "op": "SCMP_CMP_MASKED_EQ"})
    } else {
        json!({"index": 1, "value": MIDDLE, "op": format!("SCMP_CMP_{name}")})
    };
    let rule = json!([{"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
                       "args": [arg]}]);
    let tries = OFFSETS.map(|o| format!("lseek:{o}"));
    let tries: Vec<&str> = tries.iter().map(String::as_str).collect();
    let view = with(lab, allow_but(rule), &tries)?;
    for (n, offset) in OFFSETS.into_iter().enumerate() {
        let found = view.tried(n)?.errno == 77;
        ensure!(
            found == hit(offset),
            "offset {offset:#x}: the rule hits: {found}"
        );
    }
    Ok(())
}

fn unknown_operator(lab: &Lab) -> Verdict {
    let arg = json!({"index": 0, "value": 1, "op": "SCMP_CMP_NONSENSE"});
    let rule = json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [arg]}]);
    refuses(lab, "an unknown operator", allow_but(rule))
}

/// lseek(-1, 8, SEEK_SET): one rule asks for both, another contradicts the second.
fn all_arguments(lab: &Lab) -> Verdict {
    for (whence, want) in [(0, 77), (1, libc::EBADF)] {
        let args = json!([{"index": 1, "value": 8, "op": "SCMP_CMP_EQ"},
                          {"index": 2, "value": whence, "op": "SCMP_CMP_EQ"}]);
        let rule = json!([{"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
                           "args": args}]);
        let view = with(lab, allow_but(rule), &["lseek:8"])?;
        let found = view.tried(0)?.errno;
        ensure!(
            found == want,
            "with whence {whence}, lseek gives {found}, not {want}"
        );
    }
    Ok(())
}
