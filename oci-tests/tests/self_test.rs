//! Runs the suite's quickest part against Debian's runc, where there is one and root to run it.

use std::path::Path;
use std::process::Command;

const RUNC: &str = "/usr/sbin/runc";

#[test]
fn the_verdicts_on_runc_are_the_expected_ones() {
    let root = Path::new("/proc/1/root/proc").exists() && nix::unistd::geteuid().is_root();
    if !root || !Path::new(RUNC).exists() {
        eprintln!("skipped: needs root, and Debian's runc at {RUNC}");
        return;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_oci-tests"))
        .args([
            "--tap",
            "--filter",
            "config.root",
            "--filter",
            "config.process.rlimits",
        ])
        .args([
            "--filter",
            "runtime.kill",
            "--filter",
            "linux.maskedPaths",
            RUNC,
        ])
        .output()
        .expect("the suite runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for line in [
        "TAP version 13",
        "ok 4 - config.root-4 MUST: with readonly the root file system cannot be written",
        "# TODO does not check it",
        "# SKIP not testable: asks the author of config.json",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn without_a_runtime_the_suite_says_what_it_needs() {
    let output = Command::new(env!("CARGO_BIN_EXE_oci-tests"))
        .env_remove("RUNTIME")
        .output()
        .expect("the suite runs");
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr, "oci-tests: name a runtime, or set RUNTIME\n");
}
