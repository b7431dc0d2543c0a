use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::host::{TestHost, eventually};
use crate::terminal::{SIZE, Terminal};

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

/// The events of this action, one JSON object a line.
fn told(host: &TestHost, action: &str) -> String {
    let filter = format!("event={action}");
    let window = ["events", "--since", "1h", "--until", "0s"];
    let rest = ["-f", &filter, "--format", "{{json .Actor}}"];
    host.run(&[&window[..], &rest].concat()).ok()
}

#[test]
fn an_exec_whose_client_was_killed_is_listed_and_its_end_is_told() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    host.run(&["exec", "web", "mkfifo", "/tmp/go"]).ok();
    for (flag, code) in [("-i", "7"), ("-it", "8")] {
        let script = format!("echo ready; read x < /tmp/go; echo $x; exit {code}");
        let command = host.command(&["exec", flag, "web", "sh", "-c", &script]);
        let mut client = Terminal::of(command);
        client.shows("ready");
        client.kill();
        assert_eq!(host.inspect("web", "{{len .ExecIDs}}"), "1", "{flag}");
        host.run(&["exec", "web", "sh", "-c", "echo > /tmp/go"])
            .ok();
        let end = format!(r#""exitCode":"{code}""#);
        eventually("the end", || told(&host, "exec_die").contains(&end));
        assert_eq!(host.inspect("web", "{{json .ExecIDs}}"), "null", "{flag}");
    }
}

#[test]
fn the_detach_keys_leave_the_program_running_with_its_terminal() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    host.run(&["exec", "web", "mkfifo", "/tmp/go"]).ok();
    let script = "echo ready; read x < /tmp/go; echo $x; test -t 1 && exit 7";
    let command = host.command(&["exec", "-it", "web", "sh", "-c", script]);
    let mut client = Terminal::of(command);
    client.shows("ready");
    client.types("\x10\x11");
    client.shows("read escape sequence");
    assert_eq!(client.code(), Some(1));
    assert_eq!(host.inspect("web", "{{len .ExecIDs}}"), "1");
    assert!(told(&host, "exec_detach").contains(r#""execID":"#));
    assert!(!told(&host, "exec_die").contains(r#""exitCode":"7""#));
    host.run(&["exec", "web", "sh", "-c", "echo > /tmp/go"])
        .ok();
    eventually("the end", || {
        told(&host, "exec_die").contains(r#""exitCode":"7""#)
    });
    assert_eq!(host.inspect("web", "{{json .ExecIDs}}"), "null");
}

#[test]
fn other_detach_keys_leave_the_default_ones_to_the_program() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    let script = "stty raw -echo; echo ready; echo got $(head -c 2 | wc -c); sleep 86391";
    let keys = ["exec", "--detach-keys", "ctrl-a,d", "-it"];
    let rest = ["web", "sh", "-c", script];
    let mut client = Terminal::of(host.command(&[&keys[..], &rest].concat()));
    client.shows("ready");
    client.types("\x10\x11");
    client.shows("got 2");
    client.types("\x01d");
    client.shows("read escape sequence");
    assert_eq!(client.code(), Some(1));
    // It is alone now, and goes on to its next command.
    eventually("the program", || parent_of("sleep 86391").is_some());
    let why = host.run(&["exec", "--detach-keys", "ctrl-", "-i", "web", "true"]);
    assert!(
        why.fails(1)
            .contains("Invalid detach keys (ctrl-) provided")
    );
}

#[test]
fn an_execs_terminal_has_the_clients_size_and_its_exit_code_is_the_clients() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    let script = "stty size; read x; echo got $x; exit 9";
    let command = host.command(&["exec", "-it", "web", "sh", "-c", script]);
    let mut client = Terminal::of(command);
    client.shows(&format!("{} {}", SIZE.0, SIZE.1));
    client.types("keys\r");
    client.shows("got keys");
    assert_eq!(client.code(), Some(9));
}

#[test]
fn a_window_that_changes_its_size_does_so_in_the_container() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    let script = "trap 'stty size; exit 0' WINCH; echo ready; while true; do sleep 0.05; done";
    for verb in [
        &["exec", "-it", "web"] as &[&str],
        &["run", "--rm", "-it", "--network", "none", "busybox"],
    ] {
        let mut client = Terminal::of(host.command(&[verb, &["sh", "-c", script]].concat()));
        client.shows("ready");
        client.resizes(41, 123);
        client.shows("41 123");
        assert_eq!(client.code(), Some(0), "{verb:?}");
    }
}

#[test]
fn streams_of_an_exec_are_whole_however_large_and_kept_apart() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    let both = host.run(&["exec", "web", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((both.out.as_str(), both.err.as_str()), ("out\n", "err\n"));
    let many = host.run(&["exec", "web", "head", "-c", "3000000", "/dev/zero"]);
    assert_eq!(many.out.len(), 3_000_000);
    // More comes out than goes in, so whoever waits to write before reading waits for ever.
    let input = vec![b'x'; 2_000_000];
    let grown = std::thread::scope(|scope| {
        let mut client = host
            .command(&["exec", "-i", "web", "busybox", "od", "-v", "-x"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = client.stdin.take().unwrap();
        scope.spawn(move || std::io::Write::write_all(&mut stdin, &input));
        client.wait_with_output().unwrap()
    });
    assert!(grown.status.success());
    assert_eq!(grown.stdout.len(), 2_000_000 / 16 * 48 + 8);
}

#[test]
fn a_signal_to_the_client_reaches_the_program_and_not_the_container() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    let script = "trap 'exit 5' TERM; echo ready; while true; do sleep 0.05; done";
    let mut client = host
        .command(&["exec", "web", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 5];
    std::io::Read::read_exact(client.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(client.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(5));
    assert_eq!(host.inspect("web", "{{.State.Status}}"), "running");
}

#[test]
fn the_end_of_the_container_is_the_end_of_its_execs() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    let mut client = host
        .command(&["exec", "web", "sleep", "86389"])
        .spawn()
        .unwrap();
    eventually("the program", || parent_of("sleep 86389").is_some());
    let began = Instant::now();
    host.run(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(client.wait().unwrap().code(), Some(137));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(told(&host, "exec_die").contains(r#""exitCode":"137""#));
}
