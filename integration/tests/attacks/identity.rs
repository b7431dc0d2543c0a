//! D: ids, capabilities, seccomp.

use std::fs;
use std::path::Path;

use integration::proc::parse_status;
use nix::sys::stat::Mode;
use serde_json::json;

use super::{Arena, Case, Control, Outcome, Victim, ended, unless};

pub const CASES: &[Case] = &[
    Case {
        id: "D1",
        seen: "CVE-2022-24769, CVE-2022-29162",
        what: "the five capability sets are compared with the lists, on run and exec",
        attack: capability_sets,
        control: Control::Naive,
    },
    Case {
        id: "D2",
        seen: "CVE-2016-8867",
        what: "a user who is not root gets ambient capabilities that no list has",
        attack: no_ambient,
        control: Control::Undefended(listed_ambient),
    },
    Case {
        id: "D3",
        seen: "CVE-2016-3697, CVE-2024-40635",
        what: "the image's passwd has users named by numbers, all of them root",
        attack: users_of_digits,
        control: Control::Naive,
    },
    Case {
        id: "D4",
        seen: "CVE-2022-36109",
        what: "a container keeps the supplementary groups of the caller",
        attack: kept_groups,
        control: Control::Naive,
    },
    Case {
        id: "D5",
        seen: "CVE-2026-47262",
        what: "the image's passwd is a FIFO, an endless device, or enormous",
        attack: endless_passwd,
        control: Control::Naive,
    },
    Case {
        id: "D6",
        seen: "CVE-2017-18367",
        what: "a rule with two arguments denies calls in which one of them is right",
        attack: both_arguments,
        control: Control::Undefended(either_argument),
    },
    Case {
        id: "D7",
        seen: "control characters of an image",
        what: "names of config.json and the words of a hook are commands for the caller's terminal",
        attack: commands_in_errors,
        control: Control::Runc,
    },
    Case {
        id: "D8",
        seen: "x32 and i386 bypass",
        what: "a denied system call is made by the native ABI, x32 and i386",
        attack: other_abis,
        control: Control::Undefended(other_abis_without_filter),
    },
    Case {
        id: "D9",
        seen: "newer system calls",
        what: "a call that is newer than the profile seems to be there, and to be forbidden",
        attack: newer_call,
        control: Control::Undefended(older_call),
    },
];

fn capability_sets(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    let list = json!(["CAP_CHOWN", "CAP_KILL"]);
    bundle
        .set(
            "/process/capabilities",
            json!({ "bounding": list, "permitted": list, "effective": list }),
        )
        .sleeper();
    let wanted = "0000000000000021";
    let none = "0000000000000000";
    let container = arena.runtime.start(&bundle);
    let exec = arena
        .runtime
        .call(&["exec", bundle.id(), "/bin/cat", "/proc/self/status"])
        .run();
    let status = integration::proc::status(container.pid());
    for status in [status, parse_status(&exec.stdout)] {
        for (set, wanted) in [
            ("CapInh", none),
            ("CapPrm", wanted),
            ("CapEff", wanted),
            ("CapBnd", wanted),
            ("CapAmb", none),
        ] {
            match status.get(set) {
                Some(value) if value == wanted => {}
                value => return Outcome::Bitten(format!("{set} is {value:?}, not {wanted}")),
            }
        }
    }
    ended(&exec)
}

fn no_ambient(victim: &Victim) -> Outcome {
    ambient(victim, &[])
}

fn listed_ambient(victim: &Victim) -> Outcome {
    ambient(victim, &["CAP_CHOWN", "CAP_KILL"])
}

fn ambient(victim: &Victim, listed: &[&str]) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    let all = json!(["CAP_CHOWN", "CAP_KILL"]);
    let sets = json!({ "bounding": all, "permitted": all, "effective": all, "inheritable": all,
        "ambient": listed });
    bundle
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .set("/process/capabilities", sets)
        .args(&["/bin/cat", "/proc/self/status"]);
    let run = arena.run(&bundle);
    assert!(!run.stdout.is_empty(), "it does not run: {run:?}");
    let status = parse_status(&run.stdout);
    let none = Some("0000000000000000");
    let has = |set: &str| status.get(set).map(String::as_str) != none;
    unless(
        has("CapAmb") || has("CapEff"),
        "a user has capabilities",
        &run,
    )
}

/// An image in whose passwd numbers are names of root.
fn with_traps(arena: &Arena) -> integration::Bundle {
    let mut bundle = arena.bundle();
    let names = ["1000", "01000", "+1000", "4294967296", "0x3e8", "1e3"];
    let lines = names.map(|name| format!("{name}:x:0:0:trap:/root:/bin/sh\n"));
    bundle.file("/etc/passwd", &lines.concat(), 0o644);
    bundle
}

fn users_of_digits(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = with_traps(&arena);
    bundle
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .args(&["/bin/id", "-u"]);
    let run = arena.run(&bundle);
    assert!(!run.stdout.is_empty(), "it does not run: {run:?}");
    if run.stdout.trim() != "1000" {
        return Outcome::Bitten(format!("user 1000 became {:?}", run.stdout.trim()));
    }
    let mut bundle = with_traps(&arena);
    bundle.sleeper();
    let _container = arena.runtime.start(&bundle);
    for user in [
        "1000",
        "01000",
        "4294967296",
        "4294967295",
        "18446744073709551616",
    ] {
        let run = arena
            .runtime
            .call(&["exec", "--user", user, bundle.id(), "/bin/id", "-u"])
            .run();
        if run.code == 0 && run.stdout.trim() != "1000" {
            return Outcome::Bitten(format!("user {user} became {:?}", run.stdout.trim()));
        }
    }
    ended(&run)
}

fn kept_groups(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    bundle.args(&["/bin/grep", "Groups", "/proc/self/status"]);
    let call = arena
        .runtime
        .call_run(&bundle)
        .through(&["setpriv", "--groups", "4242,4243"]);
    let run = call.run();
    let kept = run.stdout.contains("4242");
    unless(kept, "it is in a group of the caller", &run)
}

fn endless_passwd(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut last = None;
    for way in ["fifo", "zero", "huge"] {
        let mut bundle = arena.bundle();
        let passwd = bundle.rootfs().join("etc/passwd");
        fs::remove_file(&passwd).expect("it is there");
        plant(way, &passwd);
        // Without HOME the runtime looks it up, by number, as that of no name in the host's passwd.
        bundle
            .set("/process/env", json!(["PATH=/bin"]))
            .set("/process/user", json!({ "uid": 123_456, "gid": 0 }))
            .args(&["/bin/true"]);
        let run = arena
            .runtime
            .call_run(&bundle)
            .through(&["timeout", "--signal=KILL", "5"])
            .run();
        if matches!(run.code, 124 | 137 | -9) {
            return Outcome::Bitten(format!("a passwd that is {way} holds it up"));
        }
        last = Some(ended(&run));
    }
    last.expect("there are ways")
}

fn plant(way: &str, passwd: &Path) {
    match way {
        "fifo" => nix::unistd::mkfifo(passwd, Mode::from_bits_truncate(0o644)).expect("root may"),
        "zero" => {
            let zero = nix::sys::stat::makedev(1, 5);
            let kind = nix::sys::stat::SFlag::S_IFCHR;
            nix::sys::stat::mknod(passwd, kind, Mode::from_bits_truncate(0o644), zero)
                .expect("root may");
        }
        _ => {
            let file = fs::File::create(passwd).expect("the bundle is writable");
            file.set_len(64 << 30).expect("a sparse file takes no room");
        }
    }
}

/// mkdir is denied; the program tries it by each ABI that the machine has.
fn other_abis(victim: &Victim) -> Outcome {
    abis(
        victim,
        &json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }],
        }),
    )
}

fn other_abis_without_filter(victim: &Victim) -> Outcome {
    abis(victim, &json!(null))
}

fn abis(victim: &Victim, profile: &serde_json::Value) -> Outcome {
    let arena = victim.arena();
    let mut last = None;
    for abi in ["native", "x32", "i386"] {
        let mut bundle = arena.bundle();
        bundle
            .probe()
            .args(&["/bin/probe", "mkdir", abi, "/tmp/made"]);
        if !profile.is_null() {
            bundle.set("/linux/seccomp", profile.clone());
        }
        let run = arena.run(&bundle);
        if bundle.rootfs().join("tmp/made").exists() {
            return Outcome::Bitten(format!("the {abi} call got through"));
        }
        last = Some(ended(&run));
    }
    last.expect("there are ABIs")
}

/// kill(1, SIGCONT) is denied. To ask whether process 1 is there (signal 0) is not.
fn both_arguments(victim: &Victim) -> Outcome {
    two_arguments(
        victim,
        &json!([{ "names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [
        { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" },
        { "index": 1, "value": 18, "op": "SCMP_CMP_EQ" },
    ] }]),
    )
}

/// The same as two rules, of which either denies.
fn either_argument(victim: &Victim) -> Outcome {
    let rule = |index, value| {
        let argument = json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" });
        json!({ "names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [argument] })
    };
    two_arguments(victim, &json!([rule(0, 1), rule(1, 18)]))
}

fn two_arguments(victim: &Victim, rules: &serde_json::Value) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
    bundle.set("/linux/seccomp", profile).sh(
        "kill -0 1 || echo one argument is enough; kill -CONT 1 2>/dev/null && echo both are not",
    );
    let run = arena.run(&bundle);
    unless(!run.stdout.is_empty(), run.stdout.trim(), &run)
}

/// A call of the future: a C library must see it missing, to fall back to an older one.
fn newer_call(victim: &Victim) -> Outcome {
    unnamed_call(victim, "600")
}

/// sethostname(2) is older than what the profile names: it is forbidden, and says so.
fn older_call(victim: &Victim) -> Outcome {
    unnamed_call(victim, "170")
}

/// What a program of Rust calls before its `main`.
const NEEDED: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "close",
    "execve",
    "exit_group",
    "faccessat2",
    "fcntl",
    "fstat",
    "futex",
    "getrandom",
    "gettid",
    "ioctl",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "openat",
    "poll",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "sched_getaffinity",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "write",
];

fn unnamed_call(victim: &Victim, number: &str) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    let rule = json!({ "names": NEEDED, "action": "SCMP_ACT_ALLOW" });
    let profile = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule] });
    bundle
        .probe()
        .set("/process/noNewPrivileges", true)
        .set("/linux/seccomp", profile)
        .args(&["/bin/probe", "call", number]);
    let run = arena.run(&bundle);
    assert!(!run.stdout.is_empty(), "it does not run: {run:?}");
    let missing = format!("errno {}", libc::ENOSYS);
    unless(
        run.stdout.trim() != missing,
        &format!("call {number} gives {}", run.stdout.trim()),
        &run,
    )
}

/// What keel says of a failure is read on a terminal, with `--log` as it is.
fn commands_in_errors(victim: &Victim) -> Outcome {
    const COMMAND: &str = "/\u{1b}]0;owned\u{7}\u{9b}2J";
    let arena = victim.arena();
    let mut result = None;
    for way in ["args", "cwd", "rlimit", "mount", "sysctl", "hook"] {
        let mut bundle = arena.bundle();
        match way {
            "args" => bundle.args(&[COMMAND]),
            "cwd" => bundle.set("/process/cwd", "/bin/sh/\u{1b}]0;owned\u{7}"),
            "rlimit" => bundle.push(
                "/process/rlimits",
                json!({ "type": COMMAND, "soft": 1, "hard": 1 }),
            ),
            "mount" => bundle.mount(COMMAND, COMMAND, COMMAND, COMMAND),
            "sysctl" => bundle.set("/linux/sysctl", json!({ COMMAND: COMMAND })),
            _ => bundle.push(
                "/hooks/createRuntime",
                json!({ "path": "/bin/sh", "args": ["sh", "-c", format!("echo '{COMMAND}' >&2; exit 1")] }),
            ),
        };
        let path = bundle.save().to_string_lossy().into_owned();
        let create = ["create", "--bundle", &path, bundle.id()];
        let run = arena.runtime.call(&create).log_json().run();
        if let Some(line) = run.stderr.lines().find(|it| it.contains(is_command)) {
            let line = line.replace(is_command, "?");
            return Outcome::Bitten(format!(
                "it writes them: {way}, {} characters",
                line.chars().count()
            ));
        }
        result = Some(ended(&run));
    }
    result.expect("there are ways")
}

fn is_command(c: char) -> bool {
    c.is_control() && c != '\t'
}
