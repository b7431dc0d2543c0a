//! Terminals: through the console socket, and in the foreground on the caller's own.

use std::os::fd::OwnedFd;

use integration::{Bundle, ConsoleSocket, Container, Runtime, Terminal, wait_for};
use nix::sys::signal::Signal;
use serde_json::json;

fn with_terminal(runtime: &Runtime, script: &str) -> Bundle {
    let mut bundle = runtime.bundle();
    bundle.set("/process/terminal", true).sh(script);
    bundle
}

/// A created container and its terminal, received after create as containerd's shim does.
fn create<'r>(runtime: &'r Runtime, bundle: &Bundle) -> (Container<'r>, String, Terminal) {
    let socket = ConsoleSocket::listen(&runtime.dir().join("console"));
    let flag = format!("--console-socket={}", socket.path().display());
    let container = Container::create_with(runtime, bundle, |call| call.flag(&flag));
    let (payload, terminal) = socket.receive();
    (container, payload, terminal)
}

#[test]
fn the_console_socket_receives_the_terminal_before_start() {
    let runtime = Runtime::new();
    let bundle = with_terminal(&runtime, "tty; readlink /proc/self/fd/0");
    let (container, payload, mut terminal) = create(&runtime, &bundle);
    assert!(
        payload.starts_with("/dev/pts/") || payload == "/dev/ptmx",
        "payload {payload:?}"
    );
    container.start();
    let text = terminal.read_to_end();
    assert_eq!(text, "/dev/pts/0\r\n/dev/pts/0\r\n");
    assert_eq!(container.wait(), 0);
}

#[test]
fn console_size_is_applied_and_ignored_without_a_terminal() {
    let runtime = Runtime::new();
    let mut bundle = with_terminal(&runtime, "stty size");
    bundle.set("/process/consoleSize", json!({ "height": 31, "width": 97 }));
    let (container, _, mut terminal) = create(&runtime, &bundle);
    assert_eq!(terminal.size(), (31, 97));
    container.start();
    terminal.expect("31 97\r\n");
    container.wait();
    let mut bundle = runtime.bundle();
    bundle.set("/process/consoleSize", json!({ "height": 31, "width": 97 }));
    let _ = runtime.run(&bundle).succeeds();
}

#[test]
fn dev_console_is_the_terminal() {
    let runtime = Runtime::new();
    let bundle = with_terminal(
        &runtime,
        "echo to-console > /dev/console; test -c /dev/console && echo char",
    );
    let (container, _, mut terminal) = create(&runtime, &bundle);
    container.start();
    terminal.expect("to-console");
    terminal.expect("char");
    assert_eq!(container.wait(), 0);
}

#[test]
fn the_terminal_belongs_to_the_containers_user() {
    let runtime = Runtime::new();
    let mut bundle = with_terminal(&runtime, "stat -c %u /dev/pts/0; echo ok > /dev/tty");
    bundle.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let (container, _, mut terminal) = create(&runtime, &bundle);
    container.start();
    terminal.expect("1000");
    terminal.expect("ok");
    assert_eq!(container.wait(), 0);
}

#[test]
fn resizing_the_terminal_signals_the_program() {
    let runtime = Runtime::new();
    let bundle = with_terminal(
        &runtime,
        "trap 'stty size; exit 6' WINCH; echo ready; while :; do sleep 0.05; done",
    );
    let (container, _, mut terminal) = create(&runtime, &bundle);
    container.start();
    terminal.expect("ready");
    terminal.resize(44, 144);
    terminal.expect("44 144");
    assert_eq!(container.wait(), 6);
}

#[test]
fn ctrl_c_interrupts_the_foreground_job_and_not_the_shell() {
    let runtime = Runtime::new();
    let mut bundle = with_terminal(&runtime, "");
    bundle.args(&["/bin/sh"]).env("PS1=prompt% ");
    let (container, _, mut terminal) = create(&runtime, &bundle);
    container.start();
    terminal.expect("prompt% ");
    terminal.type_in("sleep 1000; echo status $?\n");
    terminal.expect("\n");
    std::thread::sleep(std::time::Duration::from_millis(100));
    terminal.type_in("\x03");
    terminal.expect("prompt% ");
    terminal.type_in("echo alive $((40 + 2))\n");
    terminal.expect("alive 42");
    terminal.type_in("exit 3\n");
    assert_eq!(container.wait(), 3);
}

#[test]
fn jobs_can_be_suspended_and_resumed() {
    let runtime = Runtime::new();
    let mut bundle = with_terminal(&runtime, "");
    bundle.args(&["/bin/sh", "-i"]).env("PS1=prompt% ");
    let (container, _, mut terminal) = create(&runtime, &bundle);
    container.start();
    let begin = terminal.expect("prompt% ");
    assert!(
        !begin.contains("job control"),
        "the shell cannot control jobs: {begin}"
    );
    terminal.type_in("cat\n");
    terminal.expect("cat");
    std::thread::sleep(std::time::Duration::from_millis(100));
    terminal.type_in("\x1a");
    terminal.expect("Stopped");
    terminal.expect("prompt% ");
    terminal.type_in("fg\n");
    terminal.expect("cat");
    terminal.type_in("echoed\n");
    terminal.expect("echoed");
    terminal.type_in("\x04");
    terminal.expect("prompt% ");
    terminal.type_in("exit\n");
    assert_eq!(container.wait(), 0);
}

#[test]
fn hanging_up_ends_the_session() {
    let runtime = Runtime::new();
    let mut bundle = with_terminal(&runtime, "");
    bundle.share("pid").args(&["/bin/cat"]);
    let (container, _, terminal) = create(&runtime, &bundle);
    container.start();
    drop(terminal);
    let code = container.wait();
    assert!(code == 128 + 1 || code == 0 || code == 1, "{code}");
}

#[test]
fn a_terminal_without_a_console_socket_cannot_be_detached() {
    let runtime = Runtime::new();
    let bundle = with_terminal(&runtime, "true");
    let path = bundle.save().to_str().expect("UTF-8");
    let run = runtime
        .call(&["create", "--bundle", path, bundle.id()])
        .run();
    let _ =
        run.fails_with("cannot allocate tty if runc will detach without setting console socket");
    let run = runtime
        .call(&["run", "--detach", "--bundle", path, bundle.id()])
        .run();
    let _ =
        run.fails_with("cannot allocate tty if runc will detach without setting console socket");
}

#[test]
fn a_console_socket_without_a_terminal_is_refused() {
    let runtime = Runtime::new();
    let bundle = runtime.bundle();
    let socket = ConsoleSocket::listen(&runtime.dir().join("console"));
    let path = bundle.save().to_str().expect("UTF-8");
    let console = socket.path().to_str().expect("UTF-8");
    let line = [
        "create",
        "--bundle",
        path,
        "--console-socket",
        console,
        bundle.id(),
    ];
    let run = runtime.call(&line).run();
    let _ = run.fails_with("cannot use console socket if runc will not detach or allocate tty");
}

#[test]
fn a_console_socket_that_nobody_listens_on_fails_create() {
    let runtime = Runtime::new();
    let bundle = with_terminal(&runtime, "true");
    let path = bundle.save().to_str().expect("UTF-8");
    let missing = runtime.dir().join("missing");
    let line = [
        "create",
        "--bundle",
        path,
        "--console-socket",
        missing.to_str().expect("UTF-8"),
        bundle.id(),
    ];
    let run = runtime.call(&line).run().exits(1);
    assert!(
        run.stderr.to_lowercase().contains("no such file"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_foreground_shell_works_on_the_callers_terminal() {
    let runtime = Runtime::new();
    let mut bundle = with_terminal(&runtime, "");
    bundle.args(&["/bin/sh"]).env("PS1=prompt% ");
    let (mut terminal, slave) = Terminal::open();
    terminal.resize(33, 111);
    let running = runtime.call_run(&bundle).on_terminal(&slave).spawn();
    drop(slave);
    terminal.expect("prompt% ");
    terminal.type_in("stty size\n");
    terminal.expect("33 111\r\n");
    terminal.expect("prompt% ");
    terminal.resize(20, 70);
    std::thread::sleep(std::time::Duration::from_millis(200));
    terminal.type_in("stty size\n");
    terminal.expect("20 70\r\n");
    terminal.expect("prompt% ");
    terminal.type_in("sleep 1000\n");
    terminal.expect("\n");
    std::thread::sleep(std::time::Duration::from_millis(200));
    terminal.type_in("\x03");
    terminal.expect("prompt% ");
    terminal.type_in("exit 17\n");
    let _ = running.wait().exits(17);
}

#[test]
fn a_foreground_program_gets_its_output_to_the_terminal_up_to_the_last_byte() {
    let runtime = Runtime::new();
    let bundle = with_terminal(&runtime, "seq 1 20000");
    let (mut terminal, slave) = Terminal::open();
    let running = runtime.call_run(&bundle).on_terminal(&slave).spawn();
    drop(slave);
    let text = terminal.read_to_end();
    let _ = running.wait().succeeds();
    let lines: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(lines.len(), 20000);
    assert_eq!(lines.last(), Some(&"20000"));
}

#[test]
fn the_callers_terminal_modes_are_restored() {
    let runtime = Runtime::new();
    let bundle = with_terminal(&runtime, "true");
    let (_terminal, slave) = Terminal::open();
    let before = nix::sys::termios::tcgetattr(&slave).expect("a terminal");
    let _ = runtime
        .call_run(&bundle)
        .on_terminal(&slave)
        .run()
        .succeeds();
    let after = nix::sys::termios::tcgetattr(&slave).expect("a terminal");
    assert_eq!(before.local_flags, after.local_flags);
    assert_eq!(before.output_flags, after.output_flags);
    assert_eq!(before.input_flags, after.input_flags);
}

/// Nobody reads what the container writes: signals still reach it, and keel itself ends by one. A runtime
/// that waits in a write does neither.
#[test]
fn unread_output_holds_up_no_signal() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 ends when all has been read") {
        return;
    }
    for kind in ["pipe", "terminal"] {
        let bundle = with_terminal(
            &runtime,
            "trap 'touch /told; exit 3' TERM; echo ready; yes & wait",
        );
        let (stdout, _kept): (OwnedFd, Box<dyn std::any::Any>) = match kind {
            "pipe" => {
                let (reader, writer) = std::io::pipe().expect("descriptors are plenty");
                (writer.into(), Box::new(reader))
            }
            _ => {
                let (terminal, slave) = Terminal::open();
                (slave, Box::new(terminal))
            }
        };
        let run = runtime.call_run(&bundle).stdout(stdout).spawn();
        // No event says that the output is full.
        std::thread::sleep(std::time::Duration::from_secs(1));
        run.signal(Signal::SIGTERM);
        let told = bundle.rootfs().join("told");
        wait_for("the signal to reach the container", || told.exists());
        let container = runtime.root().join(bundle.id());
        wait_for("the container to be removed, or keel to end", || {
            run.signal(Signal::SIGTERM);
            !container.exists()
        });
        let _ = run.wait().exits(3);
    }
}

/// keel waits, and does not ask again and again, for a container that has closed its terminal.
#[test]
fn a_closed_terminal_costs_no_processor_time() {
    let runtime = Runtime::new();
    let bundle = with_terminal(
        &runtime,
        "trap '' HUP; exec </dev/null >/dev/null 2>&1; touch /closed; exec sleep 2",
    );
    let run = runtime.call_run(&bundle).spawn();
    let closed = bundle.rootfs().join("closed");
    wait_for("the terminal to be closed", || closed.exists());
    let before = processor_time(run.pid());
    std::thread::sleep(std::time::Duration::from_secs(1));
    let used = processor_time(run.pid()) - before;
    let _ = run.wait().succeeds();
    assert!(used < 10, "{used} ticks in a second");
}

/// In clock ticks, of which a second has a hundred. Man page: proc_pid_stat(5).
fn processor_time(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name is in brackets");
    let fields = fields.split(' ').skip(11).take(2);
    fields.filter_map(|it| it.parse::<u64>().ok()).sum()
}
