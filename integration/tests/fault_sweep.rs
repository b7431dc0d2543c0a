//! What keel does when the kernel says no: at each system call of run, create, exec and delete an
//! error is injected, or the process that makes it is killed. Either the container is as it is without
//! a fault, or keel says why not in one line; and what is left can be deleted, so that the host is as
//! before.
//!
//! `KEEL_FAULTS=full` takes every system call and every fault, the default a sample of both that is
//! another with each day.
#![cfg(target_arch = "x86_64")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use integration::{Bundle, Run, Runtime};
use serde_json::json;

/// What is injected. `EINTR` stands for a signal that came first.
const FAULTS: &[&str] = &["EINTR", "EAGAIN", "ENOMEM", "EIO", "KILL"];

/// They cannot fail, or not in these ways: `brk` gives the old end of the heap instead of an errno, and
/// Rust's library ends a program whose `getrandom` fails. Man pages: brk(2), getrandom(2), umask(2).
const LEFT_OUT: &[&str] = &[
    "brk",
    "exit",
    "exit_group",
    "getrandom",
    "rt_sigreturn",
    "umask",
];

/// What the program of a container sees of its confinement.
const LOOK: &str = "{ cd /proc/self; grep -E '^(Uid|Gid|Groups|Cap|NoNew|Seccomp)' status
    while read -r _ _ _ root target flags rest; do echo $root $target $flags; done < mountinfo
    cat cgroup oom_score_adj limits /proc/sys/net/ipv4/ip_unprivileged_port_start
    hostname; ls /dev /proc/kcore /etc; umask; env
    } > /out/look 2>&1; mv /out/look /out/seen";

/// A system call of a process: which of its calls by that name. All is counted from 0.
struct Point {
    process: usize,
    name: String,
    call: usize,
}

/// A command line, and a bundle for it whose program writes what it sees.
struct Subject {
    verb: &'static str,
    runtime: Runtime,
    bundle: Bundle,
    before: &'static [&'static str],
}

/// How long a command may take: all that is slow is done in less.
const SLOW: Duration = Duration::from_secs(10);

impl Subject {
    /// `before` are the verbs that make what the command line needs.
    fn new(verb: &'static str, program: &str, before: &'static [&'static str]) -> Self {
        let runtime = Runtime::new();
        let out = runtime.dir().join("out");
        fs::create_dir(&out).expect("the scratch directory is writable");
        let mut bundle = runtime.bundle();
        bundle
            .sh(program)
            .bind(&out, "/out", "rw")
            .mount("tmpfs", "tmpfs", "/srv", "size=64k")
            .set("/linux/maskedPaths", json!(["/proc/kcore", "/etc"]))
            .set("/linux/readonlyPaths", json!(["/proc/sys"]))
            .set("/linux/sysctl/net.ipv4.ip_unprivileged_port_start", "80")
            .set("/process/oomScoreAdj", 100)
            .push("/hooks/poststop", json!({ "path": "/bin/true" }))
            .set(
                "/linux/seccomp",
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [] }),
            );
        bundle.save();
        Self {
            verb,
            runtime,
            bundle,
            before,
        }
    }

    fn words(&self, verb: &str) -> Vec<String> {
        let (id, path) = (self.bundle.id(), self.bundle.path().to_string_lossy());
        let words = match verb {
            "run" | "create" => vec![verb, "--bundle", &path, id],
            "exec" => vec![verb, id, "/bin/sh", "-c", LOOK],
            "delete" => vec![verb, "--force", id],
            verb => vec![verb, id],
        };
        words.into_iter().map(String::from).collect()
    }

    fn call(&self, verb: &str) -> Run {
        self.runtime.call(&self.words(verb)).run()
    }

    fn prepare(&self) {
        for verb in self.before {
            let _ = self.call(verb).succeeds();
        }
    }

    fn through(&self, words: &[&str]) -> Run {
        let injector = injector();
        let injector = injector.to_string_lossy();
        let launcher: Vec<&str> = std::iter::once(&*injector)
            .chain(words.iter().copied())
            .collect();
        let call = self.runtime.call(&self.words(self.verb));
        call.through(&launcher).run()
    }

    /// Every point of the command line.
    fn points(&self) -> Vec<Point> {
        let list = self.runtime.dir().join("list");
        let _ = self.through(&["list", &list.to_string_lossy()]).succeeds();
        let text = fs::read_to_string(&list).expect("the injector has written it");
        let point = |line: &str| {
            let mut words = line.split(' ');
            Some(Point {
                process: words.next()?.parse().ok()?,
                name: words.next()?.to_owned(),
                call: words.next()?.parse().ok()?,
            })
        };
        text.lines()
            .map(|line| point(line).expect("the injector writes such lines"))
            .filter(|point| !LEFT_OUT.contains(&point.name.as_str()))
            .collect()
    }

    /// What the program has seen, if it ran. After `create` it is started for that; it may have ended
    /// before, and `start` then says so.
    fn seen(&self) -> Result<Option<String>, Run> {
        let file = self.runtime.dir().join("out/seen");
        if self.verb == "create" {
            let run = self.call("start");
            if run.code != 0 {
                return Err(run);
            }
            let start = Instant::now();
            while !file.exists() && start.elapsed() < SLOW {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let Ok(text) = fs::read_to_string(&file) else {
            return Ok(None);
        };
        fs::remove_file(&file).expect("it is ours");
        Ok(Some(text))
    }

    /// Runs the command line with one fault; what is wrong with that, if anything.
    fn inject(&self, point: &Point, fault: &str, wanted: Option<&str>) -> Vec<String> {
        self.prepare();
        let Point {
            process,
            name,
            call,
        } = point;
        let at = format!("{process}.{name}.{call}={fault}");
        let start = Instant::now();
        let run = self.through(&[&at]);
        let mut wrong = Vec::new();
        if start.elapsed() > SLOW {
            wrong.push(format!("took {:?}", start.elapsed()));
        }
        let killed = *process == 0 && fault == "KILL";
        let lines = run.stderr.lines().count();
        let fine = match run.code {
            // A poststop hook that fails is warned about: runtime.md, "Lifecycle" 13.
            0 => lines == 0 || lines == 1 && run.stderr.contains("error running poststop hook"),
            -9 => killed,
            // That of a program that was killed: from outside nobody sees that it was about to be one.
            137 if fault == "KILL" && *process > 0 => lines <= 1,
            code => code > 0 && lines == 1,
        };
        if !fine || run.stderr.contains("panicked") || run.stderr.contains("bug:") {
            wrong.push(format!("exit code {}, {:?}", run.code, run.stderr));
        }
        if run.code == 0 && self.verb == "delete" && self.call("state").code == 0 {
            wrong.push("it is still there".into());
        }
        match self.seen() {
            Err(start) if start.stderr.lines().count() != 1 => {
                wrong.push(format!("start says {:?}", start.stderr));
            }
            Err(start) if run.code == 0 && *process == 0 => {
                wrong.push(format!("created, but start says {:?}", start.stderr));
            }
            Err(_) => {}
            // A program that was killed may have been about to look.
            Ok(None) if run.code != 0 => {}
            Ok(seen) if seen.as_deref() == wanted => {}
            Ok(seen) => {
                let (wanted, seen) = (wanted.unwrap_or_default(), seen.unwrap_or_default());
                let why = difference(wanted, &seen);
                wrong.push(format!("exit code {}, the program saw {why:?}", run.code));
            }
        }
        wrong.extend(self.clean());
        wrong
    }

    /// Deletes what there is; what is left after that.
    fn clean(&self) -> Option<String> {
        let run = self.call("delete");
        let changes = self.runtime.changes();
        let _ = fs::remove_file(self.runtime.dir().join("out/seen"));
        let failed = run.code != 0 && !run.stderr.contains("does not exist");
        let fine = !failed && changes.is_empty();
        (!fine).then(|| format!("left {:?}\n{}", run.stderr, changes.join("\n")))
    }

    /// The points and faults of this run, about `few` of them unless all are wanted; and every point at which
    /// `delete` itself can be killed: it is what must put right all that was.
    fn chosen<'a>(&self, points: &'a [Point], few: usize) -> Vec<(&'a Point, &'static str)> {
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
        let always = |point: &Point, fault: &str| {
            self.verb == "delete" && point.process == 0 && fault == "KILL"
        };
        let chosen = all.into_iter().enumerate();
        chosen
            .filter(|(index, (point, fault))| index % step == first || always(point, fault))
            .map(|(_, it)| it)
            .collect()
    }

    /// Tries those of the chosen faults that are this worker's; what is wrong, and how many there are.
    fn sweep(&self, few: usize, worker: usize) -> (Vec<String>, usize, usize) {
        self.prepare();
        let points = self.points();
        let wanted = self.seen().expect("it starts");
        assert_eq!(self.clean(), None, "without a fault");
        let chosen = self.chosen(&points, few);
        let (mut wrong, mut tried) = (Vec::new(), 0);
        let start = Instant::now();
        for (point, fault) in chosen.into_iter().skip(worker).step_by(WORKERS) {
            let Point {
                process,
                name,
                call,
            } = point;
            for why in self.inject(point, fault, wanted.as_deref()) {
                let line = format!("process {process}, {name} {call}, {fault}: {why}");
                say(&format!("{}: {line}", self.verb));
                wrong.push(line);
            }
            tried += 1;
            if tried % 100 == 0 {
                let (verb, time) = (self.verb, start.elapsed());
                say(&format!("{verb}: worker {worker}: {tried} in {time:?}"));
            }
        }
        (wrong, tried, points.len() * FAULTS.len())
    }
}

/// More than there are processors: much of the time the kernel is waited for, which ends namespaces and
/// keyrings late.
const WORKERS: usize = 4;

fn sweep(verb: &'static str, program: &str, before: &'static [&'static str], few: usize) {
    let start = Instant::now();
    let work = |worker| Subject::new(verb, program, before).sweep(few, worker);
    let done = AtomicBool::new(false);
    let results: Vec<_> = std::thread::scope(|scope| {
        // A container does not end before the processes that it has lost are reaped.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                integration::reap_orphans();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| scope.spawn(move || work(worker)))
            .collect();
        let results: Vec<_> = workers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::Relaxed);
        let sound = |it: std::thread::Result<_>| it.expect("a worker panicked");
        results.into_iter().map(sound).collect()
    });
    let tried: usize = results.iter().map(|(_, tried, _)| tried).sum();
    let of = results[0].2;
    let wrong: Vec<String> = results.into_iter().flat_map(|(wrong, ..)| wrong).collect();
    let (time, count) = (start.elapsed(), wrong.len());
    say(&format!(
        "{verb}: {tried} of about {of} faults in {time:?}, {count} wrong"
    ));
    assert!(wrong.is_empty(), "{count} wrong:\n{}", wrong.join("\n"));
}

/// The lines that only one of two texts has.
fn difference(wanted: &str, seen: &str) -> Vec<String> {
    let missing = wanted
        .lines()
        .filter(|it| !seen.lines().any(|line| line == *it));
    let other = seen
        .lines()
        .filter(|it| !wanted.lines().any(|line| line == *it));
    let missing = missing.map(|line| format!("-{line}"));
    missing
        .chain(other.map(|line| format!("+{line}")))
        .collect()
}

fn injector() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_fault-injector")).to_owned()
}

/// Written directly, so that the test framework does not swallow it.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "fault sweep: {line}");
}

/// `run` is create, start and delete in one process.
#[test]
fn run_fails_cleanly_at_every_system_call() {
    sweep("run", LOOK, &[], 20);
}

#[test]
fn create_fails_cleanly_at_every_system_call() {
    sweep("create", LOOK, &[], 10);
}

#[test]
fn exec_fails_cleanly_at_every_system_call() {
    sweep("exec", "sleep 1000000", &["create", "start"], 10);
}

#[test]
fn delete_fails_cleanly_at_every_system_call() {
    sweep("delete", "sleep 1000000", &["create", "start"], 10);
}
