//! What keel does when the kernel says no: at each system call of run, exec and delete an error
//! is injected, or keel is killed. It succeeds, or says why in one line; and what is left of
//! it can be deleted, so that the host is as before.
//!
//! strace(1) injects. `KEEL_FAULTS=full` takes every system call and every fault, the default a
//! sample of both that is another with each day.

use std::collections::BTreeMap;
use std::fs;

use integration::{Bundle, Run, Runtime};
use serde_json::json;

/// What is injected. `EINTR` stands for a signal that came first.
const FAULTS: &[&str] = &[
    "error=EINTR",
    "error=EAGAIN",
    "error=ENOMEM",
    "error=EIO",
    "signal=KILL",
];

/// Injecting errors here says nothing of keel: the first is strace's own, an exit cannot fail.
const LEFT_OUT: &[&str] = &["exit", "exit_group", "rt_sigreturn"];

/// The occurrence of a system call, counted from 1 in each process.
type Point = (String, usize);

fn bundle(runtime: &Runtime, program: &str) -> Bundle {
    let mut bundle = runtime.bundle();
    let words: Vec<&str> = program.split(' ').collect();
    bundle
        .args(&words)
        .mount("tmpfs", "tmpfs", "/srv", "size=64k")
        .set("/linux/maskedPaths", json!(["/proc/kcore", "/etc"]))
        .set("/linux/readonlyPaths", json!(["/proc/sys"]))
        .set(
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [] }),
        );
    bundle
}

/// Every point of a command line that works.
fn points(runtime: &Runtime, line: &[&str]) -> Vec<Point> {
    let trace = runtime.dir().join("trace");
    let strace = ["strace", "-ff", "-qq", "-o", &trace.to_string_lossy()];
    let _ = runtime.call(line).through(&strace).run().succeeds();
    let mut most: BTreeMap<String, usize> = BTreeMap::new();
    for entry in fs::read_dir(runtime.dir()).expect("it is there").flatten() {
        if !entry.file_name().to_string_lossy().starts_with("trace.") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        fs::remove_file(entry.path()).expect("it is ours");
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for line in text.lines() {
            let name: String = line
                .chars()
                .take_while(|it| it.is_ascii_alphanumeric() || *it == '_')
                .collect();
            if line[name.len()..].starts_with('(') && !LEFT_OUT.contains(&name.as_str()) {
                *count.entry(name).or_default() += 1;
            }
        }
        for (name, count) in count {
            let most = most.entry(name).or_default();
            *most = count.max(*most);
        }
    }
    let all = most.into_iter().flat_map(|(name, count)| {
        // The first execve is that of strace itself.
        let first = if name == "execve" { 2 } else { 1 };
        (first..=count).map(move |number| (name.clone(), number))
    });
    all.collect()
}

/// The points and faults of this run, about `few` of them unless all are wanted.
fn chosen(points: &[Point], few: usize) -> Vec<(&Point, &'static str)> {
    let all: Vec<_> = points
        .iter()
        .flat_map(|point| FAULTS.iter().map(move |fault| (point, *fault)))
        .collect();
    if std::env::var("KEEL_FAULTS").is_ok_and(|size| size == "full") {
        return all;
    }
    let day = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs() / 86_400);
    let step = (all.len() / few).max(1);
    let first = usize::try_from(day).unwrap_or(0) % step;
    all.into_iter().skip(first).step_by(step).collect()
}

/// Runs a command line with one fault.
fn with_fault(runtime: &Runtime, line: &[&str], point: &Point, fault: &str) -> Run {
    let (name, number) = point;
    let inject = format!("inject={name}:{fault}:when={number}");
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
    runtime.call(line).through(&strace).run()
}

/// What is wrong with how it ended, if anything: more than one line, or a panic.
fn complaint(run: &Run) -> Option<String> {
    let lines = run.stderr.lines().count();
    // A shell would say more of a process that was killed; strace dies of the same signal.
    let fine = run.code <= 0 || run.code > 128 || lines == 1;
    let panicked = run.stderr.contains("panicked") || run.stderr.contains("bug:");
    (!fine || panicked).then(|| format!("exit code {}, {:?}", run.code, run.stderr))
}

/// Sweeps over one command line; `before` makes what it needs.
fn sweep(
    verb: &str,
    few: usize,
    program: &str,
    line: impl Fn(&Bundle) -> Vec<String>,
    before: &[&str],
) {
    let runtime = Runtime::new();
    let bundle = bundle(&runtime, program);
    bundle.save();
    let prepare = || {
        for verb in before {
            let path = bundle.path().to_string_lossy();
            let words: Vec<&str> = match *verb {
                "create" => vec!["create", "--bundle", &path, bundle.id()],
                verb => vec![verb, bundle.id()],
            };
            let _ = runtime.call(&words).run().succeeds();
        }
    };
    let clean = || {
        let run = runtime.call(&["delete", "--force", bundle.id()]).run();
        let changes = runtime.changes();
        let failed = run.code != 0 && !run.stderr.contains("does not exist");
        match failed || !changes.is_empty() {
            true => Some(format!("{:?}\n{}", run.stderr, changes.join("\n"))),
            false => None,
        }
    };
    let words = line(&bundle);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    prepare();
    let points = points(&runtime, &words);
    assert_eq!(clean(), None, "without a fault");
    let chosen = chosen(&points, few);
    let mut wrong = Vec::new();
    for (point, fault) in &chosen {
        prepare();
        let run = with_fault(&runtime, &words, point, fault);
        let at = format!("{verb}: {} #{} {fault}", point.0, point.1);
        wrong.extend(complaint(&run).map(|why| format!("{at}: {why}")));
        wrong.extend(clean().map(|left| format!("{at}: left {left}")));
    }
    let (tried, of) = (chosen.len(), points.len() * FAULTS.len());
    assert!(
        wrong.is_empty(),
        "{} of {tried} ({of}):\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let line = format!("fault sweep: {verb}: {tried} of {of} points\n");
    // Written directly, so that the test framework does not swallow it.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// `run` is create, start and delete in one process that strace sees the end of.
#[test]
fn run_fails_cleanly_at_every_system_call() {
    let line = |bundle: &Bundle| {
        let path = bundle.path().to_string_lossy();
        owned(&["run", "--bundle", &path, bundle.id()])
    };
    sweep("run", 20, "/bin/true", line, &[]);
}

#[test]
fn exec_fails_cleanly_at_every_system_call() {
    let line = |bundle: &Bundle| owned(&["exec", bundle.id(), "/bin/true"]);
    sweep("exec", 10, "/bin/sleep 1000000", line, &["create", "start"]);
}

#[test]
fn delete_fails_cleanly_at_every_system_call() {
    let line = |bundle: &Bundle| owned(&["delete", "--force", bundle.id()]);
    sweep(
        "delete",
        10,
        "/bin/sleep 1000000",
        line,
        &["create", "start"],
    );
}
