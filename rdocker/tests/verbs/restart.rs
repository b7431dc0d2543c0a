use crate::host::{TestHost, eventually};

#[test]
fn on_failure_restarts_as_often_as_it_says() {
    let host = TestHost::new();
    host.busybox(
        &["-d", "--name", "web", "--restart", "on-failure:2"],
        &["sh", "-c", "echo x; exit 3"],
    )
    .ok();
    eventually("the last run", || {
        host.inspect("web", "{{.State.Status}}") == "exited"
    });
    assert_eq!(
        host.inspect("web", "{{.RestartCount}} {{.State.ExitCode}}"),
        "2 3"
    );
    assert_eq!(host.run(&["logs", "web"]).ok(), "x\nx\nx");
}

#[test]
fn always_restarts_until_it_is_stopped_by_hand() {
    let host = TestHost::new();
    host.busybox(
        &["-d", "--name", "web", "--restart", "always"],
        &["sh", "-c", "sleep 0.1"],
    )
    .ok();
    let count = || {
        host.inspect("web", "{{.RestartCount}}")
            .parse::<u32>()
            .unwrap()
    };
    eventually("two restarts", || count() >= 2);
    host.run(&["stop", "-t", "0", "web"]).ok();
    let after = count();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(host.inspect("web", "{{.State.Status}}"), "exited");
    assert_eq!(count(), after);
}

#[test]
fn restart_gives_a_new_process() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    let before = host.inspect("web", "{{.State.Pid}}");
    host.run(&["restart", "-t", "0", "web"]).ok();
    assert_ne!(host.inspect("web", "{{.State.Pid}}"), before);
    assert_eq!(host.inspect("web", "{{.State.Status}}"), "running");
}
