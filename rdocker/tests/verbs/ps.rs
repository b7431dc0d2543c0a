use crate::host::TestHost;

#[test]
fn ps_has_docker_columns_and_widths() {
    let host = TestHost::new();
    host.busybox(&["--name", "done"], &["sh", "-c", "exit 3"])
        .fails(3);
    assert_eq!(
        host.run(&["ps"]).ok(),
        "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES"
    );
    let all = host.run(&["ps", "-a"]).ok();
    let row = all.lines().nth(1).unwrap();
    assert!(
        row.contains("busybox   \"sh -c 'exit 3'\"") || row.contains("\"sh -c exit 3\""),
        "{row}"
    );
    assert!(row.contains("Exited (3)") && row.ends_with("done"), "{row}");
}

#[test]
fn filters_formats_and_quiet_choose_rows_and_columns() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "up", "-l", "k=v"], &["sleep", "100"])
        .ok();
    host.busybox(&["--name", "down"], &["true"]).ok();
    let cases: &[(&[&str], &str)] = &[
        (&["--format", "{{.Names}}"], "up"),
        (
            &["-a", "--format", "{{.Names}} {{.State}}"],
            "down exited\nup running",
        ),
        (
            &["-a", "-f", "status=exited", "--format", "{{.Names}}"],
            "down",
        ),
        (&["-f", "label=k=v", "--format", "{{.Label \"k\"}}"], "v"),
        (&["-f", "name=nothing", "-q"], ""),
        (&["-f", "name=^u$", "-q"], ""),
        (&["-f", "name=^/?up$", "--format", "{{.Names}}"], "up"),
        (
            &[
                "-a",
                "-f",
                "ancestor=busybox",
                "-f",
                "exited=0",
                "--format",
                "{{.Names}}",
            ],
            "down",
        ),
        (&["-l", "--format", "{{.Names}}"], "down"),
        (&["-n", "1", "--format", "table {{.Names}}"], "NAMES\ndown"),
    ];
    for (args, want) in cases {
        let mut all = vec!["ps"];
        all.extend(*args);
        assert_eq!(host.run(&all).ok(), *want, "{args:?}");
    }
    assert!(
        host.run(&["ps", "-f", "what=1"])
            .fails(1)
            .contains("invalid filter 'what'")
    );
}
