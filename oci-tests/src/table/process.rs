//! config.md, `process`: command line, environment, limits, capabilities, scheduling.

use serde_json::json;

use crate::inside::View;
use crate::lab::Lab;
use crate::requirement::Level::Must;
use crate::requirement::{Requirement, Verdict, Why, ensure, skip};

const PROCESS: &str = "config.md#process";
const POSIX: &str = "config.md#posix-process";
const LINUX: &str = "config.md#linux-process";

pub const TABLE: &[Requirement] = &[
    Requirement::must(
        "config.process-1",
        PROCESS,
        "process is required when the container is started",
        start_needs_a_process,
    ),
    Requirement::must(
        "config.process.consoleSize-1",
        PROCESS,
        "consoleSize is ignored without a terminal",
        console_size_without_terminal,
    ),
    Requirement::must(
        "config.process.cwd-1",
        PROCESS,
        "cwd is an absolute path",
        relative_cwd_is_refused,
    ),
    Requirement::must(
        "config.process.cwd-2",
        PROCESS,
        "cwd is the working directory of the process",
        cwd_is_set,
    ),
    Requirement::must(
        "config.process.cwd-3",
        PROCESS,
        "cwd is required",
        cwd_is_required,
    ),
    Requirement::must(
        "config.process.env-1",
        PROCESS,
        "env is the environment of the process",
        env_is_set,
    ),
    Requirement::must(
        "config.process.args-1",
        PROCESS,
        "args are the command line, looked up as execvp(3) does",
        args_are_set,
    ),
    Requirement::must(
        "config.process.args-2",
        PROCESS,
        "args has at least one entry",
        empty_args_are_refused,
    ),
    Requirement::must(
        "config.process.rlimits-1",
        POSIX,
        "a type that the kernel does not have is an error",
        unknown_rlimit,
    ),
    Requirement::must(
        "config.process.rlimits-2",
        POSIX,
        "getrlimit(3) works on every type that is set",
        rlimits_are_set,
    ),
    Requirement::must(
        "config.process.rlimits-3",
        POSIX,
        "soft is rlim_cur",
        rlimits_are_set,
    ),
    Requirement::must(
        "config.process.rlimits-4",
        POSIX,
        "hard is rlim_max",
        rlimits_are_set,
    ),
    Requirement::must(
        "config.process.rlimits-5",
        POSIX,
        "a type listed twice is an error",
        duplicate_rlimit,
    ),
    Requirement::with(
        "config.process.capabilities.effective-1",
        Must,
        LINUX,
        "the effective capabilities are those listed",
        "effective=CapEff",
        capability_set,
    ),
    Requirement::with(
        "config.process.capabilities.bounding-1",
        Must,
        LINUX,
        "the bounding capabilities are those listed",
        "bounding=CapBnd",
        capability_set,
    ),
    Requirement::with(
        "config.process.capabilities.inheritable-1",
        Must,
        LINUX,
        "the inheritable capabilities are those listed",
        "inheritable=CapInh",
        capability_set,
    ),
    Requirement::with(
        "config.process.capabilities.permitted-1",
        Must,
        LINUX,
        "the permitted capabilities are those listed",
        "permitted=CapPrm",
        capability_set,
    ),
    Requirement::with(
        "config.process.capabilities.ambient-1",
        Must,
        LINUX,
        "the ambient capabilities are those listed",
        "ambient=CapAmb",
        capability_set,
    ),
    Requirement::must(
        "config.process.capabilities-1",
        LINUX,
        "a capability that cannot be granted gives a warning",
        unknown_capability_warns,
    ),
    Requirement::should_not(
        "config.process.capabilities-2",
        LINUX,
        "a capability that cannot be granted does not fail the container",
        unknown_capability_runs,
    ),
    Requirement::should_not(
        "config.process.capabilities-3",
        LINUX,
        "a capability that the runtime itself lacks does not fail the container",
        missing_capability_runs,
    ),
    Requirement::must(
        "config.process.noNewPrivileges-1",
        LINUX,
        "noNewPrivileges true sets no_new_privs",
        no_new_privileges,
    ),
    Requirement::must(
        "config.process.noNewPrivileges-2",
        LINUX,
        "noNewPrivileges false leaves no_new_privs clear",
        new_privileges,
    ),
    Requirement::must(
        "config.process.oomScoreAdj-1",
        LINUX,
        "oomScoreAdj is written to oom_score_adj",
        oom_score_adj_is_set,
    ),
    Requirement::must_not(
        "config.process.oomScoreAdj-2",
        LINUX,
        "without oomScoreAdj the value stays",
        oom_score_adj_stays,
    ),
    Requirement::must(
        "config.process.scheduler-1",
        LINUX,
        "policy is the scheduling policy of the process",
        scheduler_policy,
    ),
    Requirement::must(
        "config.process.scheduler-2",
        LINUX,
        "nice is the nice value, zero if it is absent",
        scheduler_nice,
    ),
    Requirement::must(
        "config.process.scheduler-3",
        LINUX,
        "a policy that is not listed is an error",
        unknown_policy,
    ),
    Requirement::must(
        "config.process.ioPriority-1",
        LINUX,
        "class and priority are the I/O priority of the process",
        io_priority,
    ),
    Requirement::must(
        "config.process.ioPriority-2",
        LINUX,
        "a class that is not listed is an error",
        unknown_io_class,
    ),
    Requirement::must(
        "config.process.execCPUAffinity-1",
        LINUX,
        "final is the CPU affinity of an exec'd process",
        final_affinity,
    ),
    Requirement::should_not(
        "config.process.execCPUAffinity-2",
        LINUX,
        "without final, affinity is what the cgroup gives",
        affinity_stays,
    ),
    Requirement::must(
        "config.process.execCPUAffinity-3",
        LINUX,
        "the container's first process is not affected",
        affinity_of_init,
    ),
    Requirement::must(
        "config.process.apparmorProfile-1",
        LINUX,
        "a profile that is not loaded is an error",
        unknown_apparmor_profile,
    ),
    Requirement::untestable(
        "config.process.selinuxLabel-1",
        Must,
        LINUX,
        "selinuxLabel is the label of the process",
        "needs a machine with SELinux, which Debian's kernels do not switch on",
    ),
];

fn start_needs_a_process(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.remove("", "process");
    let (container, call) = lab.try_create(&bundle)?;
    if !call.ok() {
        // Without a process a created container is of little use: refusing it early is allowed.
        return Ok(());
    }
    let start = container.call(&["start", &container.id])?;
    ensure!(!start.ok(), "start works without a process");
    Ok(())
}

fn console_size_without_terminal(lab: &Lab) -> Verdict {
    lab.see(&[], |c| {
        c.set("/process/consoleSize", json!({"height": 10, "width": 20}));
    })
    .map(drop)
}

fn relative_cwd_is_refused(lab: &Lab) -> Verdict {
    lab.refuses("a relative cwd", |c| {
        c.set("/process/cwd", json!("tmp"));
    })
}

fn cwd_is_set(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.set("/process/cwd", json!("/tmp"));
    })?;
    ensure!(view.cwd == "/tmp", "cwd is {}", view.cwd);
    Ok(())
}

fn cwd_is_required(lab: &Lab) -> Verdict {
    lab.refuses("a process without cwd", |c| {
        c.remove("/process", "cwd");
    })
}

fn env_is_set(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.set(
            "/process/env",
            json!(["PATH=/bin", "ONE=1", "EMPTY=", "EQUALS=a=b"]),
        );
    })?;
    for want in ["PATH=/bin", "ONE=1", "EMPTY=", "EQUALS=a=b"] {
        ensure!(
            view.env.iter().any(|e| e == want),
            "{want} is not in {:?}",
            view.env
        );
    }
    let inherited = std::env::vars().map(|(key, _)| key).find(|key| {
        !["PATH", "HOME"].contains(&key.as_str())
            && view.env.iter().any(|e| e.starts_with(&format!("{key}=")))
    });
    ensure!(
        inherited.is_none(),
        "{inherited:?} is inherited from the caller"
    );
    Ok(())
}

fn args_are_set(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    let script = "echo \"$0\" \"$1\"";
    bundle
        .config
        .args(&["busybox", "sh", "-c", script, "zero", "two words"]);
    let output = lab.run(&bundle)?;
    ensure!(
        output.trim() == "zero two words",
        "the command prints {output:?}"
    );
    Ok(())
}

fn empty_args_are_refused(lab: &Lab) -> Verdict {
    lab.refuses("empty args", |c| {
        c.set("/process/args", json!([]));
    })
}

fn unknown_rlimit(lab: &Lab) -> Verdict {
    lab.refuses("a limit of unknown type", |c| {
        c.set(
            "/process/rlimits",
            json!([{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]),
        );
    })
}

fn rlimits_are_set(lab: &Lab) -> Verdict {
    let want = [
        ("RLIMIT_NOFILE", 512, 1000),
        ("RLIMIT_CORE", 0, 4096),
        ("RLIMIT_STACK", 1 << 20, 2 << 20),
        ("RLIMIT_FSIZE", 1 << 30, 1 << 31),
        ("RLIMIT_CPU", 100, 200),
    ];
    let list: Vec<_> = want
        .iter()
        .map(|(t, soft, hard)| json!({"type": t, "soft": soft, "hard": hard}))
        .collect();
    let view = lab.see(&[], |c| {
        c.set("/process/rlimits", json!(list));
    })?;
    for (kind, soft, hard) in want {
        let found = view.limits.get(kind);
        ensure!(
            found == Some(&(soft, hard)),
            "{kind} is {found:?}, not {soft} {hard}"
        );
    }
    Ok(())
}

fn duplicate_rlimit(lab: &Lab) -> Verdict {
    let entry = json!({"type": "RLIMIT_NOFILE", "soft": 100, "hard": 100});
    lab.refuses("a limit listed twice", |c| {
        c.set("/process/rlimits", json!([entry, entry]));
    })
}

/// CAP_CHOWN and CAP_KILL in the tested set, and in those it needs to be legal.
fn capability_set(lab: &Lab, word: &str) -> Verdict {
    const MASK: u64 = 1 | 1 << 5;
    let Some((set, key)) = word.split_once('=') else {
        return Err(Why::Fail(word.to_owned()));
    };
    let needs: &[&str] = match set {
        "effective" => &["bounding", "permitted", "effective"],
        "ambient" => &[
            "bounding",
            "permitted",
            "inheritable",
            "effective",
            "ambient",
        ],
        "permitted" => &["bounding", "permitted", "effective"],
        "inheritable" => &["bounding", "permitted", "inheritable"],
        _ => &["bounding"],
    };
    let view = lab.see(&[], |c| {
        // Without ambient capabilities root's execve(2) refills permitted from the bounding set.
        c.set("/process/capabilities", json!({}));
        for name in needs {
            c.set(
                &format!("/process/capabilities/{name}"),
                json!(["CAP_CHOWN", "CAP_KILL"]),
            );
        }
    })?;
    ensure!(
        view.caps(key) == MASK,
        "{key} is {}, not {MASK:x}",
        view.status(key)
    );
    Ok(())
}

fn with_unknown_capability(lab: &Lab) -> Result<(String, String), Why> {
    let mut bundle = lab.bundle()?;
    bundle.report(&[]);
    for set in ["bounding", "effective", "permitted"] {
        bundle.config.set(
            &format!("/process/capabilities/{set}"),
            json!(["CAP_KILL", "CAP_NONSENSE"]),
        );
    }
    let container = lab.started(&bundle)?;
    container.wait_stopped()?;
    Ok((container.printed()?, container.complained()))
}

fn unknown_capability_warns(lab: &Lab) -> Verdict {
    let (_, complaint) = with_unknown_capability(lab)?;
    ensure!(complaint.contains("NONSENSE"), "no warning: {complaint:?}");
    Ok(())
}

fn unknown_capability_runs(lab: &Lab) -> Verdict {
    let (printed, _) = with_unknown_capability(lab)?;
    let view = View::parse(&printed)?;
    ensure!(
        view.caps("CapEff") == 1 << 5,
        "CapEff is {}",
        view.status("CapEff")
    );
    Ok(())
}

/// A known capability that this process itself may not have.
fn missing_capability_runs(lab: &Lab) -> Verdict {
    let own = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .map_or("", str::trim);
    let own = u64::from_str_radix(own, 16).unwrap_or(u64::MAX);
    let names = [
        (24, "CAP_SYS_RESOURCE"),
        (25, "CAP_SYS_TIME"),
        (22, "CAP_SYS_BOOT"),
    ];
    let Some((_, name)) = names.into_iter().find(|(number, _)| own & 1 << number == 0) else {
        skip!("this process has every capability");
    };
    let view = lab.see(&[], |c| {
        for set in ["bounding", "effective", "permitted"] {
            c.set(
                &format!("/process/capabilities/{set}"),
                json!(["CAP_KILL", name]),
            );
        }
    })?;
    ensure!(
        view.caps("CapEff") == 1 << 5,
        "CapEff is {}",
        view.status("CapEff")
    );
    Ok(())
}

fn no_new_privs_is(lab: &Lab, value: bool, want: &str) -> Verdict {
    let view = lab.see(&[], |c| {
        c.set("/process/noNewPrivileges", json!(value));
    })?;
    ensure!(
        view.status("NoNewPrivs") == want,
        "NoNewPrivs is {}",
        view.status("NoNewPrivs")
    );
    Ok(())
}

fn no_new_privileges(lab: &Lab) -> Verdict {
    no_new_privs_is(lab, true, "1")
}

fn new_privileges(lab: &Lab) -> Verdict {
    no_new_privs_is(lab, false, "0")
}

fn oom_score_adj_is_set(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.set("/process/oomScoreAdj", json!(347));
    })?;
    ensure!(
        view.oom_score_adj == 347,
        "oom_score_adj is {}",
        view.oom_score_adj
    );
    Ok(())
}

fn oom_score_adj_stays(lab: &Lab) -> Verdict {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj")
        .map_err(|e| format!("cannot read our own: {e}"))?;
    let view = lab.see(&[], |_| ())?;
    let (found, own) = (view.oom_score_adj.to_string(), own.trim());
    ensure!(found == own, "oom_score_adj is {found}, and {own} outside");
    Ok(())
}

/// SCHED_BATCH is 3 in the kernel's sched.h.
fn scheduler_policy(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.set(
            "/process/scheduler",
            json!({"policy": "SCHED_BATCH", "nice": 3}),
        );
    })?;
    ensure!(
        view.scheduler.2 == 3,
        "the policy is {}, not SCHED_BATCH (3)",
        view.scheduler.2
    );
    Ok(())
}

fn scheduler_nice(lab: &Lab) -> Verdict {
    for (value, want) in [
        (json!({"policy": "SCHED_OTHER", "nice": 7}), 7),
        (json!({"policy": "SCHED_BATCH"}), 0),
    ] {
        let view = lab.see(&[], |c| {
            c.set("/process/scheduler", value.clone());
        })?;
        ensure!(
            view.scheduler.0 == want,
            "nice is {}, not {want}",
            view.scheduler.0
        );
    }
    Ok(())
}

fn unknown_policy(lab: &Lab) -> Verdict {
    lab.refuses("an unknown scheduling policy", |c| {
        c.set("/process/scheduler", json!({"policy": "SCHED_NONSENSE"}));
    })
}

/// Best effort is class 2, in bits 13 to 15: ioprio_set(2).
fn io_priority(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.set(
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 6}),
        );
    })?;
    let want = (2 << 13) | 6;
    ensure!(
        view.ioprio == want,
        "the I/O priority is {:#x}, not {want:#x}",
        view.ioprio
    );
    Ok(())
}

fn unknown_io_class(lab: &Lab) -> Verdict {
    lab.refuses("an unknown I/O class", |c| {
        c.set(
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_X", "priority": 0}),
        );
    })
}

/// CPUs this process may use, as /proc/self/status writes them.
fn cpus() -> Result<Vec<usize>, Why> {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = text
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .map_or("", str::trim);
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let parse = |t: &str| {
            t.parse::<usize>()
                .map_err(|e| Why::Skip(format!("CPU list: {e}")))
        };
        cpus.extend(parse(first)?..=parse(last)?);
    }
    if cpus.len() < 2 {
        skip!("this machine gives us one CPU");
    }
    Ok(cpus)
}

/// Affinity of an exec'd process whose process.json asks for `affinity`.
fn exec_affinity(lab: &Lab, affinity: Option<serde_json::Value>) -> Result<String, Why> {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep();
    let container = lab.started(&bundle)?;
    let view = container.exec_view(|p| {
        if let Some(affinity) = affinity {
            p.set("/execCPUAffinity", affinity);
        }
    })?;
    container.stop()?;
    Ok(view.status("Cpus_allowed_list").to_owned())
}

fn final_affinity(lab: &Lab) -> Verdict {
    let last = cpus()?.pop().unwrap_or_default().to_string();
    let found = exec_affinity(lab, Some(json!({"final": last})))?;
    ensure!(
        found == last,
        "an exec'd process may use CPUs {found}, not {last}"
    );
    Ok(())
}

fn affinity_stays(lab: &Lab) -> Verdict {
    let first = cpus()?.first().copied().unwrap_or_default().to_string();
    let plain = exec_affinity(lab, None)?;
    let initial = exec_affinity(lab, Some(json!({"initial": first})))?;
    ensure!(
        plain == initial || initial == first,
        "without final an exec'd process may use CPUs {initial}, others {plain}"
    );
    Ok(())
}

fn affinity_of_init(lab: &Lab) -> Verdict {
    let last = cpus()?.pop().unwrap_or_default().to_string();
    let view = lab.see(&[], |c| {
        c.set(
            "/process/execCPUAffinity",
            json!({"initial": last, "final": last}),
        );
    })?;
    let found = view.status("Cpus_allowed_list");
    ensure!(found != last, "the first process may use CPU {last} only");
    Ok(())
}

fn unknown_apparmor_profile(lab: &Lab) -> Verdict {
    if !std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        skip!("AppArmor is not switched on here");
    }
    lab.refuses_by_start("an AppArmor profile that is not loaded", |c| {
        c.set(
            "/process/apparmorProfile",
            json!("oci-tests-no-such-profile"),
        );
    })
}
