use crate::host::TestHost;

#[test]
fn exec_runs_beside_the_first_process_with_its_own_settings() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web", "-e", "A=1"], &["sleep", "100"])
        .ok();
    let cases: &[(&[&str], &str, &str)] = &[
        (&[], "echo $A", "1"),
        (&["-e", "A=2"], "echo $A", "2"),
        (&["-u", "web"], "id -u", "33"),
        (&["-w", "/tmp"], "pwd", "/tmp"),
        (
            &["--privileged"],
            "grep -q CapEff.*a80425fb /proc/self/status || echo more",
            "more",
        ),
    ];
    for (flags, script, want) in cases {
        let mut args = vec!["exec"];
        args.extend(*flags);
        args.extend(["web", "sh", "-c", script]);
        assert_eq!(host.run(&args).ok(), *want, "{flags:?}");
    }
    assert_eq!(
        host.run_with(&["exec", "-i", "web", "cat"], b"in").ok(),
        "in"
    );
}

#[test]
fn exec_passes_exit_codes_and_tells_missing_programs() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    let _ = host.run(&["exec", "web", "sh", "-c", "exit 9"]).fails(9);
    let why = host.run(&["exec", "web", "nosuch"]).fails(127);
    assert!(why.contains("executable file not found"), "{why}");
}

#[test]
fn exec_in_a_container_that_does_not_run_is_refused() {
    let host = TestHost::new();
    host.busybox(&["--name", "gone"], &["true"]).ok();
    assert!(
        host.run(&["exec", "gone", "true"])
            .fails(1)
            .contains("is not running")
    );
    assert!(
        host.run(&["exec", "absent", "true"])
            .fails(1)
            .contains("No such container: absent")
    );
    host.busybox(&["-d", "--name", "cold"], &["sleep", "100"])
        .ok();
    host.run(&["pause", "cold"]).ok();
    assert!(
        host.run(&["exec", "cold", "true"])
            .fails(1)
            .contains("is paused")
    );
    host.run(&["unpause", "cold"]).ok();
    host.run(&["exec", "cold", "true"]).ok();
}
