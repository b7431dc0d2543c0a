use std::process::Command;

use crate::host::{TestHost, eventually};

fn kill9(pid: i32) {
    assert!(
        Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn a_killed_monitor_is_noticed_told_and_recovered_from() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    kill9(host.monitor("web"));
    eventually("the notice", || {
        host.inspect("web", "{{.State.Status}}") == "exited"
    });
    let error = host.inspect("web", "{{.State.ExitCode}} {{.State.Error}}");
    assert!(
        error.starts_with("255 the monitor of this container was killed"),
        "{error}"
    );
    host.run(&["start", "web"]).ok();
    assert_eq!(
        host.inspect("web", "{{.State.Status}} {{.State.Error}}"),
        "running "
    );
}

#[test]
fn a_container_survives_the_death_of_whoever_started_it() {
    let host = TestHost::new();
    let mut run = host
        .command(&[
            "run",
            "--name",
            "web",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "sleep 1; exit 8",
        ])
        .spawn()
        .unwrap();
    eventually("the start", || host.run(&["exec", "web", "true"]).code == 0);
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(host.run(&["wait", "web"]).ok(), "8");
}

#[test]
fn a_monitor_at_rest_is_small() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    let status = format!("/proc/{}/status", host.monitor("web"));
    // An unoptimised static binary relocates far more pages, which count as its own.
    let bound = if cfg!(debug_assertions) { 6144 } else { 2048 };
    eventually("a monitor of its size", || {
        let status = std::fs::read_to_string(&status).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS"));
        let kib: u64 = line
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        kib <= bound
    });
    // It still does all that it did.
    assert_eq!(host.run(&["exec", "web", "echo", "fine"]).ok(), "fine");
    assert_eq!(host.run(&["stop", "-t", "0", "web"]).ok(), "web");
    assert_eq!(host.inspect("web", "{{.State.ExitCode}}"), "137");
}

#[test]
fn health_checks_tell_healthy_and_unhealthy() {
    let host = TestHost::new();
    let checks = ["--health-interval", "100ms", "--health-retries", "2"];
    for (name, command, want) in [
        ("good", "echo fine", "healthy"),
        ("bad", "exit 1", "unhealthy"),
    ] {
        let mut flags = vec!["-d", "--name", name, "--health-cmd", command];
        flags.extend(checks);
        host.busybox(&flags, &["sleep", "100"]).ok();
        eventually(want, || {
            host.inspect(name, "{{.State.Health.Status}}") == want
        });
    }
    let log = host.inspect("good", "{{(index .State.Health.Log 0).Output}}");
    assert_eq!(log.trim(), "fine");
}

#[test]
fn two_attached_clients_see_the_same_output() {
    let host = TestHost::new();
    let script = "head -n1 >/dev/null; echo shared";
    host.busybox(&["-d", "-i", "--name", "web"], &["sh", "-c", script])
        .ok();
    let attach = |input: std::process::Stdio| {
        host.command(&["attach", "web"])
            .stdin(input)
            .stdout(std::process::Stdio::piped())
            .spawn()
    };
    let first = attach(std::process::Stdio::null()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let second = host.run_with(&["attach", "web"], b"go\n").ok();
    let first = first.wait_with_output().unwrap();
    assert_eq!(
        (
            String::from_utf8_lossy(&first.stdout).trim(),
            second.as_str()
        ),
        ("shared", "shared")
    );
}
