//! `kill -9` at random points of `run` and `rm`: the next command cleans up what is left.
//!
//! `KEEL_SOAK=full` kills 500 times; the default is a taste.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::host::{TestHost, eventually};
use crate::moments::Moments;

fn rounds() -> u32 {
    if std::env::var("KEEL_SOAK").is_ok_and(|size| size == "full") {
        250
    } else {
        4
    }
}

/// The processes of this host that are not in a container: clients, monitors, runtimes.
fn processes(host: &TestHost) -> Vec<String> {
    let path = host.path().display().to_string();
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|pid| {
        let of = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let has = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).contains(&path);
        pid.bytes().all(|b| b.is_ascii_digit()) && (has(of("cmdline")) || has(of("environ")))
    })
    .collect()
}

fn kill(pids: &[String]) {
    let mut command = Command::new("kill");
    // Some have ended meanwhile.
    let _ = command.arg("-9").args(pids).stderr(Stdio::null()).status();
}

/// What this host's containers left anywhere.
fn left(host: &TestHost, parent: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut list = |dir: PathBuf, known: &[&str]| {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if !known.contains(&name.as_str()) {
                found.push(entry.path().display().to_string());
            }
        }
    };
    let at = |dir: &str| host.path().join(dir);
    list(at("data/containers"), &[]);
    list(at("data/names"), &[]);
    list(at("run"), &["runtime", "networks"]);
    list(at("run/runtime"), &[]);
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        list_dirs(&hierarchy.path().join(parent), &mut found);
    }
    list_dirs(&Path::new("/sys/fs/cgroup").join(parent), &mut found);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = mounts
        .lines()
        .filter(|line| line.contains(host.path().to_str().unwrap()));
    found.extend(own.map(str::to_owned));
    found.extend(processes(host));
    found
}

fn list_dirs(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.push(entry.path().display().to_string());
        }
    }
}

fn start(host: &TestHost, args: &[&str]) -> Child {
    let mut command = host.command(args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Removes the cgroups that no container is in any more.
struct Parent(String);

impl Drop for Parent {
    fn drop(&mut self) {
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let _ = fs::remove_dir(hierarchy.path().join(&self.0));
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.0));
    }
}

#[test]
fn a_killed_run_leaves_nothing_that_the_next_commands_do_not_take() {
    let host = TestHost::new();
    let parent = Parent(format!("rdocker-crash-run-{}", std::process::id()));
    let run = |tail: &'static str| {
        let mut args = vec!["run", "--cgroup-parent", &parent.0, "--network", "none"];
        args.extend(["--name", "web", "busybox", "sleep", tail]);
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let args = run("0");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let begun = Instant::now();
    host.run(&args).ok();
    let mut moments = Moments::new(0x9e37_79b9_7f4a_7c15, begun.elapsed());
    host.run(&["rm", "web"]).ok();
    let args = run("60");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut made = 0;
    for round in 0..rounds() * 10 {
        if round >= rounds() && made > 0 {
            break;
        }
        let mut child = start(&host, &args);
        sleep(moments.next());
        child.kill().unwrap();
        child.wait().unwrap();
        if round % 2 == 0 {
            // Whoever is at work for it dies as well.
            kill(&processes(&host));
        }
        made += u32::from(host.run(&["rm", "-f", "web"]).out == "web\n");
        // The name is free again, and nothing else is in the way.
        host.run(&["container", "prune", "-f"]).ok();
        host.busybox(&["--rm", "--name", "web"], &["true"]).ok();
        eventually(
            &format!("an end, {round}: {:?}", left(&host, &parent.0)),
            || left(&host, &parent.0).is_empty(),
        );
    }
    assert!(made > 0, "every run was killed before it made anything");
}

#[test]
fn a_killed_rm_is_finished_by_the_next() {
    let host = TestHost::new();
    let parent = Parent(format!("rdocker-crash-rm-{}", std::process::id()));
    let mut moments = Moments::new(0xd1b5_4a32_d192_ed03, Duration::ZERO);
    let mut killed = 0;
    for round in 0..=rounds() * 10 {
        if round > rounds() && killed > 0 {
            break;
        }
        host.busybox(
            &[
                "-d",
                "--cgroup-parent",
                &parent.0,
                "--name",
                "web",
                "-v",
                "/data",
            ],
            &["sleep", "60"],
        )
        .ok();
        let begun = Instant::now();
        let mut child = start(&host, &["rm", "-f", "-v", "web"]);
        if round == 0 {
            child.wait().unwrap();
            moments = Moments::new(0xd1b5_4a32_d192_ed03, begun.elapsed());
            continue;
        }
        sleep(moments.next());
        child.kill().unwrap();
        let in_time = !child.wait().unwrap().success();
        moments.learn(in_time);
        killed += u32::from(in_time);
        // It is there as a whole, or it is gone.
        let again = host.run(&["rm", "-f", "-v", "web"]);
        assert!(
            again.code == 0 || again.err.contains("No such container: web"),
            "{round}: {}",
            again.err
        );
        host.run(&["system", "prune", "-f", "--volumes"]).ok();
        assert_eq!(host.run(&["volume", "ls", "-q"]).ok(), "", "{round}");
        eventually(
            &format!("an end, {round}: {:?}", left(&host, &parent.0)),
            || left(&host, &parent.0).is_empty(),
        );
    }
    assert!(killed > 0, "every rm was faster than the signal");
}
