//! Rules on `process`, for `create` and `exec` alike.

use oci_spec::runtime::{
    Capabilities, LinuxCapabilities, LinuxSchedulerPolicy as Policy, Process, Scheduler,
};

use crate::error::{Error, Result};
use crate::host::Host;

/// Where a process object comes from.
pub struct Place<'a> {
    /// The file, as the user knows it.
    pub file: &'a str,
    /// JSON path of the object in it.
    pub at: &'a str,
}

impl Place<'_> {
    fn error(&self, field: &str, why: impl Into<String>) -> Error {
        Error::Spec {
            file: self.file.to_owned(),
            at: format!("{}{field}", self.at),
            why: why.into(),
        }
    }
}

/// An id that means "none" to the kernel: `(uid_t) -1`.
const NO_ID: u32 = u32::MAX;

/// Checks everything about the process that does not depend on the rest of config.json.
pub fn check(process: &Process, place: &Place<'_>, host: &Host) -> Result<()> {
    command(process, place)?;
    environment(process, place)?;
    user(process, place)?;
    labels(process, place, host)?;
    if let Some(capabilities) = process.capabilities() {
        effective_within_permitted(capabilities, place)?;
    }
    if let Some(scheduler) = process.scheduler() {
        schedule(scheduler, place)?;
    }
    oom_score(process, place)?;
    affinity(process, place)
}

/// In runc's words, `validateProcessSpec`.
fn command(process: &Process, place: &Place<'_>) -> Result<()> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        let why = "args must not be empty: the first is the program to run";
        return Err(place.error(".args", why));
    }
    if process.cwd().as_os_str().is_empty() {
        return Err(place.error(".cwd", "Cwd must not be empty: / always exists"));
    }
    if !process.cwd().is_absolute() {
        return Err(place.error(".cwd", "Cwd must be an absolute path"));
    }
    Ok(())
}

/// In runc's words, `prepareEnv`.
fn environment(process: &Process, place: &Place<'_>) -> Result<()> {
    for (index, entry) in process.env().iter().flatten().enumerate() {
        let why = match entry.find('=') {
            None => "invalid environment variable: missing '='",
            Some(0) => "invalid environment variable: name cannot be empty",
            Some(_) => continue,
        };
        return Err(place.error(&format!(".env[{index}]"), why));
    }
    Ok(())
}

fn user(process: &Process, place: &Place<'_>) -> Result<()> {
    let user = process.user();
    let none = |field: &str| {
        let why = format!("{NO_ID} stands for no id; the ids are 0 to {}", NO_ID - 1);
        Err(place.error(field, why))
    };
    if user.uid() == NO_ID {
        return none(".user.uid");
    }
    if user.gid() == NO_ID {
        return none(".user.gid");
    }
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    if let Some(index) = groups.iter().position(|gid| *gid == NO_ID) {
        return none(&format!(".user.additionalGids[{index}]"));
    }
    match user.umask() {
        Some(umask) if umask > 0o777 => {
            let why = format!("{umask} is more than 511 (octal 0777); JSON numbers are decimal");
            Err(place.error(".user.umask", why))
        }
        _ => Ok(()),
    }
}

/// A label that the kernel would not enforce must not look as if it did.
fn labels(process: &Process, place: &Place<'_>, host: &Host) -> Result<()> {
    let given = |label: &Option<String>| label.as_ref().is_some_and(|label| !label.is_empty());
    if given(process.apparmor_profile()) && !host.apparmor() {
        return Err(place.error(
            ".apparmorProfile",
            "apparmor: config provided but apparmor not supported on this host; leave it out",
        ));
    }
    if given(process.selinux_label()) && !host.selinux() {
        return Err(place.error(
            ".selinuxLabel",
            "selinux label is specified in config, but selinux is disabled or not supported",
        ));
    }
    Ok(())
}

/// capset(2): the new effective set must be a subset of the new permitted set.
fn effective_within_permitted(sets: &LinuxCapabilities, place: &Place<'_>) -> Result<()> {
    let none = Capabilities::new();
    let permitted = sets.permitted().as_ref().unwrap_or(&none);
    let effective = sets.effective().as_ref().unwrap_or(&none);
    let mut beyond: Vec<String> = effective
        .difference(permitted)
        .map(|capability| format!("CAP_{capability}"))
        .collect();
    beyond.sort();
    if beyond.is_empty() {
        return Ok(());
    }
    let why = format!("{} must also be in permitted", beyond.join(", "));
    Err(place.error(".capabilities.effective", why))
}

/// sched_setattr(2), and the fields that the specification ties to a policy.
fn schedule(scheduler: &Scheduler, place: &Place<'_>) -> Result<()> {
    let wrong = |field: &str, why: &str| Err(place.error(&format!(".scheduler.{field}"), why));
    let policy = scheduler.policy();
    let nice = scheduler.nice().unwrap_or(0);
    let priority = scheduler.priority().unwrap_or(0);
    let realtime = matches!(policy, Policy::SchedFifo | Policy::SchedRr);
    if *policy == Policy::SchedIso {
        return wrong("policy", "Linux has no SCHED_ISO");
    }
    if matches!(policy, Policy::SchedOther | Policy::SchedBatch) && !(-20..=19).contains(&nice) {
        return wrong("nice", "must be from -20 to 19");
    }
    if priority != 0 && !realtime {
        return wrong(
            "priority",
            "scheduler.priority can only be specified for SchedFIFO or SchedRR policy",
        );
    }
    if realtime && !(1..=99).contains(&priority) {
        return wrong("priority", "SCHED_FIFO and SCHED_RR need one from 1 to 99");
    }
    let times = [
        ("runtime", scheduler.runtime().unwrap_or(0)),
        ("deadline", scheduler.deadline().unwrap_or(0)),
        ("period", scheduler.period().unwrap_or(0)),
    ];
    if *policy != Policy::SchedDeadline {
        return match times.iter().find(|(_, value)| *value != 0) {
            Some((field, _)) => wrong(
                field,
                "scheduler runtime/deadline/period can only be specified for SchedDeadline policy",
            ),
            None => Ok(()),
        };
    }
    let [(_, runtime), (_, deadline), (_, period)] = times;
    let period = if period == 0 { deadline } else { period };
    if runtime == 0 || runtime > deadline || deadline > period {
        return wrong(
            "runtime",
            "SCHED_DEADLINE needs 0 < runtime <= deadline <= period, in nanoseconds",
        );
    }
    Ok(())
}

/// proc_pid_oom_score_adj(5).
fn oom_score(process: &Process, place: &Place<'_>) -> Result<()> {
    match process.oom_score_adj() {
        Some(score) if !(-1000..=1000).contains(&score) => {
            let why = format!("{score} is not from -1000 (never killed) to 1000 (killed first)");
            Err(place.error(".oomScoreAdj", why))
        }
        _ => Ok(()),
    }
}

/// `execCPUAffinity`: each a list like `0-3,7`. The decoder has checked the form, not the numbers.
fn affinity(process: &Process, place: &Place<'_>) -> Result<()> {
    /// The most that any kernel is built for (`NR_CPUS`).
    const CPUS: u32 = 8192;
    let Some(affinity) = process.exec_cpu_affinity() else {
        return Ok(());
    };
    let lists = [
        ("initial", affinity.initial()),
        ("final", affinity.cpu_affinity_final()),
    ];
    for (field, list) in lists {
        for part in list.iter().flat_map(|list| list.split(',')) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let cpu = |text: &str| text.parse::<u32>().ok().filter(|cpu| *cpu < CPUS);
            let ascending = cpu(first).zip(cpu(last)).is_some_and(|(a, b)| a <= b);
            if !ascending {
                let why = format!("{part:?} is not a CPU or an ascending range below {CPUS}");
                return Err(place.error(&format!(".execCPUAffinity.{field}"), why));
            }
        }
    }
    Ok(())
}

/// What works without doing all that it says.
pub fn doubtful(process: &Process, host: &Host) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let terminal = process.terminal().unwrap_or(false);
    if process.console_size().is_some() && !terminal {
        let why = "ignored: the process has no terminal";
        all.push((".process.consoleSize".into(), why.into()));
    }
    let Some(sets) = process.capabilities() else {
        return all;
    };
    let none = Capabilities::new();
    let set = |set: &'_ Option<Capabilities>| set.clone().unwrap_or_else(|| none.clone());
    let (permitted, inheritable) = (set(sets.permitted()), set(sets.inheritable()));
    let ambient = set(sets.ambient());
    // What buildah 1.28 writes for each RUN: one list for all sets but the inheritable one, empty since
    // CVE-2022-24769. Nobody asked for ambient capabilities there, and runc 1.1 prints nothing.
    let copied = inheritable.is_empty() && ambient.len() > 1 && ambient == permitted;
    for capability in ambient.into_iter().filter(|_| !copied) {
        if !permitted.contains(&capability) || !inheritable.contains(&capability) {
            let why = "it must be permitted and inheritable, too";
            let why = format!("can't raise ambient capability CAP_{capability}: {why}");
            all.push((".process.capabilities.ambient".into(), why));
        }
    }
    let newer = |capability: &oci_spec::runtime::Capability| {
        // The specification's names are the kernel's, so this parses.
        let known: Result<caps::Capability, _> = format!("CAP_{capability}").parse();
        known.is_ok_and(|known| u32::from(known.index()) > host.last_capability())
    };
    if set(sets.bounding()).iter().any(newer) {
        let why = "ignoring a capability that this kernel does not have";
        all.push((".process.capabilities.bounding".into(), why.into()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_all, verdict};
    use crate::host::Facts;

    fn rows(cases: &[(&str, &str)]) {
        for (fields, want) in cases {
            let base = r#""user":{"uid":0,"gid":0},"cwd":"/","args":["sh"]"#;
            // The last of two members of one name wins in a tree.
            let whole: serde_json::Value =
                serde_json::from_str(&format!("{{{base},{fields}}}")).expect(fields);
            let document = serde_json::json!({ "process": whole }).to_string();
            let want = match *want {
                "ok" => "ok".to_owned(),
                warned if warned.starts_with("ok, ") => warned.replace("ok, ", "ok, .process"),
                broken => format!(".process{broken}"),
            };
            check_all(&[(&document, &want)]);
        }
    }

    #[test]
    fn a_process_needs_a_program_and_an_absolute_directory() {
        rows(&[
            (r#""args":[]"#, ".args: args must not be empty"),
            (r#""args":null"#, ".args: args must not be empty"),
            (r#""cwd":"""#, ".cwd: Cwd must not be empty"),
            (r#""cwd":"tmp""#, ".cwd: Cwd must be an absolute path"),
            (r#""cwd":"/tmp""#, "ok"),
        ]);
    }

    #[test]
    fn an_environment_entry_has_a_name_and_a_value() {
        rows(&[
            (r#""env":["A=","B=c=d"]"#, "ok"),
            (
                r#""env":["A=1","B"]"#,
                ".env[1]: invalid environment variable: missing '='",
            ),
            (
                r#""env":["=1"]"#,
                ".env[0]: invalid environment variable: name cannot be empty",
            ),
            (
                r#""env":[""]"#,
                ".env[0]: invalid environment variable: missing '='",
            ),
        ]);
    }

    #[test]
    fn ids_are_ids_and_the_umask_is_one() {
        rows(&[
            (r#""user":{"uid":4294967294,"gid":1}"#, "ok"),
            (
                r#""user":{"uid":4294967295,"gid":1}"#,
                ".user.uid: 4294967295 stands for no id",
            ),
            (r#""user":{"uid":1,"gid":4294967295}"#, ".user.gid: "),
            (
                r#""user":{"uid":1,"gid":1,"additionalGids":[1,4294967295]}"#,
                ".user.additionalGids[1]: ",
            ),
            (r#""user":{"uid":1,"gid":1,"umask":511}"#, "ok"),
            (
                r#""user":{"uid":1,"gid":1,"umask":512}"#,
                ".user.umask: 512 is more",
            ),
        ]);
    }

    #[test]
    fn a_label_needs_its_security_module() {
        rows(&[
            (r#""apparmorProfile":"","selinuxLabel":"""#, "ok"),
            (
                r#""apparmorProfile":"p""#,
                ".apparmorProfile: apparmor: config provided but",
            ),
            (
                r#""selinuxLabel":"l""#,
                ".selinuxLabel: selinux label is specified in config, but",
            ),
        ]);
        let both = r#"{"process":{"user":{},"cwd":"/","args":["a"],"apparmorProfile":"p","selinuxLabel":"l"}}"#;
        let facts = Facts {
            apparmor: true,
            selinux: true,
            ..Facts::default()
        };
        assert_eq!(verdict(both, facts), "ok");
    }

    #[test]
    fn effective_capabilities_are_permitted() {
        rows(&[
            (
                r#""capabilities":{"effective":["CAP_KILL"],"permitted":["CAP_KILL"]}"#,
                "ok",
            ),
            (
                r#""capabilities":{"effective":["CAP_KILL","CAP_CHOWN"],"permitted":[]}"#,
                ".capabilities.effective: CAP_CHOWN, CAP_KILL must also be in permitted",
            ),
            (
                r#""capabilities":{"ambient":["CAP_KILL"],"permitted":["CAP_KILL"]}"#,
                "ok, .capabilities.ambient: can't raise ambient capability CAP_KILL: it must be",
            ),
            (
                r#""capabilities":{"ambient":["CAP_KILL"],"permitted":["CAP_KILL"],"inheritable":["CAP_KILL"]}"#,
                "ok",
            ),
            (
                r#""capabilities":{"ambient":["CAP_KILL","CAP_CHOWN"],"permitted":["CAP_CHOWN","CAP_KILL"]}"#,
                "ok",
            ),
            (
                r#""capabilities":{"ambient":["CAP_KILL","CAP_CHOWN"],"permitted":["CAP_CHOWN","CAP_KILL"],
                                   "inheritable":["CAP_KILL"]}"#,
                "ok, .capabilities.ambient: can't raise ambient capability CAP_CHOWN: it must be",
            ),
        ]);
        let facts = Facts {
            last_capability: 37,
            ..Facts::default()
        };
        let document = r#"{"process":{"user":{},"cwd":"/","args":["a"],"capabilities":{"bounding":["CAP_BPF"]}}}"#;
        assert_eq!(
            verdict(document, facts),
            "ok, .process.capabilities.bounding: ignoring a capability that this kernel does not have"
        );
    }

    #[test]
    fn each_scheduling_policy_has_its_own_fields() {
        let row = |fields: &str| format!(r#""scheduler":{{{fields}}}"#);
        let cases: &[(&str, &str)] = &[
            (r#""policy":"SCHED_OTHER","nice":19"#, "ok"),
            (r#""policy":"SCHED_OTHER","nice":20"#, ".scheduler.nice: "),
            (r#""policy":"SCHED_BATCH","nice":-21"#, ".scheduler.nice: "),
            (
                r#""policy":"SCHED_OTHER","priority":1"#,
                ".scheduler.priority: scheduler.priority can only",
            ),
            (r#""policy":"SCHED_FIFO","priority":99"#, "ok"),
            (
                r#""policy":"SCHED_FIFO""#,
                ".scheduler.priority: SCHED_FIFO and",
            ),
            (
                r#""policy":"SCHED_RR","priority":0"#,
                ".scheduler.priority: SCHED_FIFO and",
            ),
            (
                r#""policy":"SCHED_RR","priority":100"#,
                ".scheduler.priority: SCHED_FIFO and",
            ),
            (r#""policy":"SCHED_ISO""#, ".scheduler.policy: "),
            (r#""policy":"SCHED_IDLE""#, "ok"),
            (
                r#""policy":"SCHED_OTHER","deadline":1"#,
                ".scheduler.deadline: scheduler runtime/",
            ),
            (
                r#""policy":"SCHED_DEADLINE","runtime":1,"deadline":2,"period":3"#,
                "ok",
            ),
            (
                r#""policy":"SCHED_DEADLINE","runtime":1,"deadline":2"#,
                "ok",
            ),
            (r#""policy":"SCHED_DEADLINE""#, ".scheduler.runtime: "),
            (
                r#""policy":"SCHED_DEADLINE","runtime":3,"deadline":2,"period":3"#,
                ".scheduler.runtime: ",
            ),
            (
                r#""policy":"SCHED_DEADLINE","runtime":1,"deadline":4,"period":3"#,
                ".scheduler.runtime: ",
            ),
        ];
        for (fields, want) in cases {
            rows(&[(&row(fields), want)]);
        }
    }

    #[test]
    fn numbers_stay_in_the_kernel_s_ranges() {
        rows(&[
            (r#""oomScoreAdj":-1000"#, "ok"),
            (r#""oomScoreAdj":1000"#, "ok"),
            (r#""oomScoreAdj":-1001"#, ".oomScoreAdj: -1001 is not"),
            (r#""oomScoreAdj":1001"#, ".oomScoreAdj: 1001 is not"),
            (r#""execCPUAffinity":{"initial":"0-3,7"}"#, "ok"),
            (
                r#""execCPUAffinity":{"initial":"3-1"}"#,
                ".execCPUAffinity.initial: \"3-1\" is not",
            ),
            (
                r#""execCPUAffinity":{"final":"8192"}"#,
                ".execCPUAffinity.final: ",
            ),
            (
                r#""execCPUAffinity":{"final":"99999999999"}"#,
                ".execCPUAffinity.final: ",
            ),
            (
                r#""consoleSize":{"height":1,"width":2}"#,
                "ok, .consoleSize: ignored",
            ),
            (
                r#""terminal":true,"consoleSize":{"height":1,"width":2}"#,
                "ok",
            ),
        ]);
    }
}
