use crate::host::TestHost;
use crate::terminal::Terminal;

#[test]
fn run_keeps_stdout_stderr_and_exit_code_apart() {
    let host = TestHost::new();
    let done = host.busybox(&["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(
        (done.out.as_str(), done.err.as_str(), done.code),
        ("out\n", "err\n", 7)
    );
    assert_eq!(
        host.run(&["ps", "-aq"]).ok(),
        "",
        "--rm removes the container"
    );
}

#[test]
fn run_passes_stdin_and_its_end() {
    let host = TestHost::new();
    let big = "line\n".repeat(100_000);
    let done = host.run_with(
        &[
            "run",
            "--rm",
            "-i",
            "--network",
            "none",
            "busybox",
            "wc",
            "-l",
        ],
        big.as_bytes(),
    );
    assert_eq!(done.ok().trim(), "100000");
}

#[test]
fn a_missing_program_is_127_and_one_that_cannot_run_is_126() {
    let host = TestHost::new();
    let cases: &[(&[&str], i32)] = &[
        (&["nosuch"], 127),
        (&["/etc"], 126),
        (&["/etc/passwd"], 126),
    ];
    for (command, code) in cases {
        let why = host.busybox(&["--rm"], command).fails(*code);
        assert_eq!(why.lines().count(), 1, "{command:?}: {why}");
    }
    assert_eq!(host.run(&["ps", "-aq"]).ok(), "");
}

#[test]
fn the_version_flag_answers_without_a_verb() {
    let host = TestHost::new();
    for flag in ["-v", "--version"] {
        let line = host.run(&[flag]).ok();
        let wanted = concat!("rdocker version ", env!("CARGO_PKG_VERSION"));
        assert_eq!(line.trim_end(), wanted);
    }
}

#[test]
fn engine_errors_are_125() {
    let host = TestHost::new();
    let cases: &[&[&str]] = &[
        &["run", "--no-such-flag", "busybox"],
        &["run", "-m", "1m", "busybox"],
        &["run", "--pull", "never", "absent"],
        &["run", "--network", "nosuch", "busybox", "true"],
        &[
            "run",
            "--network",
            "none",
            "-u",
            "nobody",
            "busybox",
            "true",
        ],
    ];
    for args in cases {
        let done = host.run(args);
        assert_eq!(done.code, 125, "{args:?}: {}", done.err);
    }
}

#[test]
fn flags_reach_the_program() {
    let host = TestHost::new();
    let cases: &[(&[&str], &str, &str)] = &[
        (&["-e", "A=b c"], "echo $A", "b c"),
        (&["-w", "/made/dir"], "pwd", "/made/dir"),
        (&["-u", "web"], "id -u; id -g; id -G", "33\n34\n34 50"),
        (&["-u", "1000:50"], "id -u; id -g", "1000\n50"),
        (&["-h", "box"], "hostname; cat /etc/hostname", "box\nbox"),
        (
            &["--tmpfs", "/t:size=1m"],
            "grep -c ' /t tmpfs' /proc/mounts",
            "1",
        ),
        (
            &["--add-host", "db:1.2.3.4"],
            "grep db /etc/hosts",
            "1.2.3.4\tdb",
        ),
        (
            &["--dns", "9.9.9.9"],
            "grep -c 9.9.9.9 /etc/resolv.conf",
            "1",
        ),
        (
            &["--read-only"],
            "touch /x 2>/dev/null || echo refused",
            "refused",
        ),
        (
            &["--cap-drop", "ALL"],
            "grep CapEff /proc/self/status",
            "CapEff:\t0000000000000000",
        ),
        (&["--ulimit", "nofile=64:64"], "ulimit -n", "64"),
        (
            &["--security-opt", "no-new-privileges"],
            "grep NoNewPrivs /proc/self/status",
            "NoNewPrivs:\t1",
        ),
        (&["--entrypoint", "/bin/echo"], "x", "-c x"),
        (
            &["--shm-size", "1m"],
            "grep -c 'shm.*size=1024k' /proc/mounts",
            "1",
        ),
    ];
    for (flags, script, want) in cases {
        let mut all = vec!["--rm"];
        all.extend(*flags);
        let command: &[&str] = if flags[0] == "--entrypoint" {
            &["-c", script]
        } else {
            &["sh", "-c", script]
        };
        assert_eq!(host.busybox(&all, command).ok(), *want, "{flags:?}");
    }
}

#[test]
fn a_container_is_confined_by_default() {
    let host = TestHost::new();
    let script = "grep -E 'CapEff|Seccomp:' /proc/self/status; ls /proc/1/fd >/dev/null && echo own; \
                  test -s /proc/kcore || echo masked; touch /proc/sys/x 2>/dev/null || echo ro";
    let out = host.busybox(&["--rm"], &["sh", "-c", script]).ok();
    assert_eq!(
        out,
        "CapEff:\t00000000a80425fb\nSeccomp:\t2\nown\nmasked\nro"
    );
}

#[test]
fn a_terminal_has_its_size_and_passes_the_exit_code() {
    let host = TestHost::new();
    let mut command = host.command(&[]);
    let rdocker = command.get_program().to_str().unwrap().to_owned();
    command = {
        let mut script = std::process::Command::new("script");
        script.envs(
            command
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        );
        script
    };
    let line = format!(
        "stty rows 33 cols 99; {rdocker} run --rm -it --network none busybox sh -c 'stty size; exit 5'"
    );
    let output = command
        .args(["-qec", &line, "/dev/null"])
        .stdin(std::process::Stdio::null())
        .output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("33 99"), "{text}");
    assert_eq!(output.status.code(), Some(5), "{text}");
}

#[test]
fn whoever_detaches_leaves_the_program_running_and_attach_says_so_by_its_code() {
    let host = TestHost::new();
    let run = [
        "run",
        "-it",
        "--network",
        "none",
        "--name",
        "web",
        "busybox",
    ];
    let mut client = Terminal::of(host.command(&[&run[..], &["cat"]].concat()));
    client.types("one\r");
    client.shows("one\r\none");
    client.types("\x10\x11");
    assert_eq!(client.code(), Some(0));
    let mut client = Terminal::of(host.command(&["attach", "web"]));
    client.types("two\r");
    client.shows("two\r\ntwo");
    client.types("\x10\x11");
    client.shows("read escape sequence");
    assert_eq!(client.code(), Some(1));
    assert_eq!(host.inspect("web", "{{.State.Status}}"), "running");
}

#[test]
fn detached_prints_the_id_and_leaves_nothing_open() {
    let host = TestHost::new();
    let id = host
        .busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    assert_eq!(id.len(), 64);
    assert_eq!(
        host.inspect("web", "{{.Id}} {{.State.Status}}"),
        format!("{id} running")
    );
}

#[test]
fn a_name_in_use_is_a_conflict() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    let why = host.busybox(&["--name", "web"], &["true"]).fails(125);
    assert!(
        why.contains("Conflict. The container name \"/web\" is already in use"),
        "{why}"
    );
}

#[test]
fn a_network_that_is_not_there_is_refused_with_the_way_out() {
    let host = TestHost::new();
    let why = host
        .run(&["run", "--network", "mine", "busybox", "true"])
        .fails(125);
    assert!(why.contains("network mine not found"), "{why}");
    assert!(why.contains("hint: rdocker network create mine"), "{why}");
    assert_eq!(host.run(&["ps", "-aq"]).ok(), "");
    let names = host.run(&[
        "run",
        "--rm",
        "--network",
        "host",
        "busybox",
        "ls",
        "/sys/class/net",
    ]);
    assert!(names.ok().lines().any(|name| name == "lo"));
}

#[test]
fn containers_share_a_network_namespace_on_request() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "one"], &["sleep", "100"])
        .ok();
    let pid = host.inspect("one", "{{.State.Pid}}");
    let own = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let join = [
        "run",
        "-d",
        "--name",
        "two",
        "--network",
        "container:one",
        "busybox",
        "sleep",
        "100",
    ];
    host.run(&join).ok();
    let pid = host.inspect("two", "{{.State.Pid}}");
    assert_eq!(
        std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap(),
        own
    );
}
