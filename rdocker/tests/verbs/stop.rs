use std::time::{Duration, Instant};

use crate::host::TestHost;

#[test]
fn stop_sends_the_stop_signal_and_kills_after_the_grace() {
    let host = TestHost::new();
    let polite = "trap 'exit 4' TERM; while true; do sleep 0.1; done";
    host.busybox(&["-d", "--name", "polite"], &["sh", "-c", polite])
        .ok();
    host.busybox(&["-d", "--name", "deaf"], &["sleep", "100"])
        .ok();
    let began = Instant::now();
    assert_eq!(
        host.run(&["stop", "-t", "1", "polite", "deaf"]).ok(),
        "polite\ndeaf"
    );
    assert!(began.elapsed() < Duration::from_secs(9));
    assert_eq!(host.inspect("polite", "{{.State.ExitCode}}"), "4");
    assert_eq!(host.inspect("deaf", "{{.State.ExitCode}}"), "137");
    assert_eq!(
        host.run(&["stop", "deaf"]).ok(),
        "deaf",
        "stopping twice is fine"
    );
}

#[test]
fn a_stopped_container_starts_again_and_wait_prints_its_code() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sh", "-c", "sleep 1; exit 6"])
        .ok();
    assert_eq!(host.run(&["wait", "web"]).ok(), "6");
    host.run(&["start", "web"]).ok();
    assert_eq!(host.inspect("web", "{{.State.Status}}"), "running");
    assert_eq!(host.run(&["wait", "web"]).ok(), "6");
    assert_eq!(
        host.run(&["wait", "web"]).ok(),
        "6",
        "a wait after the end answers at once"
    );
}
