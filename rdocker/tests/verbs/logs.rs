use crate::host::{TestHost, eventually};

#[test]
fn logs_keep_streams_apart_and_honour_tail_and_timestamps() {
    let host = TestHost::new();
    host.busybox(
        &["--name", "log"],
        &["sh", "-c", "echo one; echo two >&2; echo three"],
    )
    .ok();
    let done = host.run(&["logs", "log"]);
    assert_eq!(
        (done.out.as_str(), done.err.as_str()),
        ("one\nthree\n", "two\n")
    );
    // Two pipes have no common order, so the last line is asked of a log with one stream.
    host.busybox(&["--name", "seq"], &["seq", "3"]).ok();
    assert_eq!(host.run(&["logs", "-n", "1", "seq"]).ok(), "3");
    let stamped = host.run(&["logs", "-t", "-n", "1", "seq"]).ok();
    let (time, _) = stamped.split_once(' ').unwrap();
    assert!(time.len() == 30 && time.ends_with('Z'), "{time}");
    assert_eq!(host.run(&["logs", "--until", "1h", "log"]).ok(), "");
}

#[test]
fn following_ends_with_the_container_and_misses_nothing() {
    let host = TestHost::new();
    let script = "for i in $(seq 300); do echo line $i; done; sleep 0.5; echo last";
    host.busybox(&["-d", "--name", "log"], &["sh", "-c", script])
        .ok();
    let out = host.run(&["logs", "-f", "log"]).ok();
    assert_eq!(out.lines().count(), 301);
    assert!(out.ends_with("last"), "{out}");
}

#[test]
fn a_log_is_rotated_by_its_options_and_read_back_in_order() {
    let host = TestHost::new();
    let flags = [
        "--name",
        "log",
        "--log-opt",
        "max-size=20k",
        "--log-opt",
        "max-file=3",
    ];
    host.busybox(&flags, &["seq", "1", "400"]).ok();
    let path = host.inspect("log", "{{.LogPath}}");
    assert!(std::path::Path::new(&format!("{path}.1")).exists());
    let out = host.run(&["logs", "log"]).ok();
    let numbers: Vec<u32> = out.lines().map(|line| line.parse().unwrap()).collect();
    assert!(
        numbers.is_sorted() && *numbers.last().unwrap() == 400,
        "{numbers:?}"
    );
}

#[test]
fn a_daemon_that_writes_much_without_a_reader_goes_on() {
    let host = TestHost::new();
    host.busybox(
        &["-d", "--name", "much"],
        &["sh", "-c", "yes | head -c 1000000; sleep 100"],
    )
    .ok();
    let size = || std::fs::metadata(host.inspect("much", "{{.LogPath}}")).map_or(0, |m| m.len());
    eventually("a long log", || size() > 10_000_000);
}
