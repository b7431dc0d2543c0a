use crate::host::{TestHost, eventually};

#[test]
fn kill_sends_any_signal_and_refuses_what_does_not_run() {
    let host = TestHost::new();
    let script = "trap 'echo hup' HUP; while true; do sleep 0.1; done";
    host.busybox(&["-d", "--name", "web"], &["sh", "-c", script])
        .ok();
    std::thread::sleep(std::time::Duration::from_millis(300));
    host.run(&["kill", "-s", "HUP", "web"]).ok();
    eventually("the trap", || {
        host.run(&["logs", "web"]).out.contains("hup")
    });
    host.run(&["kill", "web"]).ok();
    eventually("the end", || {
        host.inspect("web", "{{.State.Status}}") == "exited"
    });
    assert_eq!(host.inspect("web", "{{.State.ExitCode}}"), "137");
    assert!(
        host.run(&["kill", "web"])
            .fails(1)
            .contains("is not running")
    );
    assert!(
        host.run(&["kill", "-s", "NOPE", "web"])
            .fails(1)
            .contains("invalid signal: NOPE")
    );
}
