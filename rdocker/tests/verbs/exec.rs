use crate::host::{TestHost, eventually};

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

/// The parent of the process with this command line.
fn parent_of(words: &str) -> Option<i32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let found = processes.map(|entry| entry.path()).find(|process| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim() == words
    });
    let stat = std::fs::read_to_string(found?.join("stat")).ok()?;
    let fields = stat.rsplit_once(')')?.1;
    fields.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn a_detached_exec_is_the_monitors_and_its_end_is_told() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    assert_eq!(host.inspect("web", "{{json .ExecIDs}}"), "null");
    host.run(&["exec", "-d", "web", "sleep", "86397"]).ok();
    assert_eq!(parent_of("sleep 86397"), Some(host.monitor("web")));
    assert_eq!(host.inspect("web", "{{len .ExecIDs}}"), "1");
    let script = "read x < /tmp/go; exit 7";
    host.run(&["exec", "web", "mkfifo", "/tmp/go"]).ok();
    host.run(&["exec", "-d", "web", "sh", "-c", script]).ok();
    assert_eq!(host.inspect("web", "{{len .ExecIDs}}"), "2");
    host.run(&["exec", "web", "sh", "-c", "echo > /tmp/go"])
        .ok();
    let filters = ["-f", "event=exec_die", "--format", "{{json .Actor}}"];
    let mut args = vec!["events", "--since", "1h", "--until", "0s"];
    args.extend(filters);
    eventually("the exit code", || {
        let told = host.run(&args).ok();
        told.contains(r#""exitCode":"7""#) && told.contains(r#""execID":"#)
    });
    assert_eq!(host.inspect("web", "{{len .ExecIDs}}"), "1");
    let why = host.run(&["exec", "-d", "web", "nosuch"]).fails(127);
    assert!(why.contains("executable file not found"), "{why}");
    assert_eq!(host.inspect("web", "{{len .ExecIDs}}"), "1");
    host.run(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(parent_of("sleep 86397"), None);
}

#[test]
fn an_exec_whose_client_was_killed_is_listed_as_long_as_its_program_runs() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    let mut client = host
        .command(&["exec", "web", "sleep", "86393"])
        .spawn()
        .unwrap();
    eventually("the program", || parent_of("sleep 86393").is_some());
    client.kill().unwrap();
    client.wait().unwrap();
    assert_eq!(host.inspect("web", "{{len .ExecIDs}}"), "1");
    let killed = std::process::Command::new("pkill")
        .args(["-9", "-f", "^sleep 86393$"])
        .status();
    assert!(killed.unwrap().success());
    eventually("the end", || {
        host.inspect("web", "{{json .ExecIDs}}") == "null"
    });
}
