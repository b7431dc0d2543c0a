//! `kill -9` at random moments of `run`, of its monitor and of `rm`; the next command finds
//! everything that is left.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::host::{TestHost, eventually};
use crate::lan::sh;

fn rounds() -> u32 {
    if std::env::var("KEEL_SOAK").is_ok_and(|mode| mode == "full") {
        500
    } else {
        8
    }
}

/// The client, and what names this host on its command line: the monitor, once there is one.
fn kill_all(client: &mut Child, host: &TestHost) {
    client.kill().unwrap();
    let path = host.path().display().to_string();
    let out = Command::new("pgrep").args(["-f", &path]).output().unwrap();
    for pid in String::from_utf8_lossy(&out.stdout).lines() {
        let _ = Command::new("kill")
            .args(["-9", pid])
            .stderr(Stdio::null())
            .status();
    }
}

#[test]
fn a_killed_run_leaves_no_link_no_rule_and_no_address() {
    let host = TestHost::new();
    host.run(&["network", "create", "front"]).ok();
    let begun = Instant::now();
    host.run(&[
        "run",
        "--rm",
        "--network",
        "front",
        "-p",
        "8080:80",
        "busybox",
        "true",
    ])
    .ok();
    let whole = begun.elapsed();
    for round in 0..rounds() {
        let mut child = host
            .command(&[
                "run",
                "--rm",
                "--network",
                "front",
                "-p",
                "8080:80",
                "busybox",
                "sleep",
                "60",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole * (round * 7 % 13) / 10);
        kill_all(&mut child, &host);
        child.wait().unwrap();
    }
    let ids = host.run(&["ps", "-aq"]).ok();
    let mut args = vec!["rm", "-f"];
    args.extend(ids.lines());
    if args.len() > 2 {
        host.run(&args).ok();
    }
    assert!(
        host.run(&["system", "prune", "-f"]).ok().contains("front"),
        "nobody is on it"
    );
    let deadline = Duration::from_secs(60);
    let begun = Instant::now();
    while sh("ip -br link").contains("veth") {
        assert!(begun.elapsed() < deadline, "{}", sh("ip -br link"));
        std::thread::sleep(Duration::from_millis(50));
    }
    let rules = sh("nft list ruleset");
    assert!(!rules.contains("8080"), "{rules}");
    let template = "{{len .Containers}}";
    assert_eq!(
        host.run(&["network", "inspect", "-f", template, "bridge"])
            .ok(),
        "0"
    );
    eventually("the port", || {
        std::net::TcpListener::bind("0.0.0.0:8080").is_ok()
    });
}
