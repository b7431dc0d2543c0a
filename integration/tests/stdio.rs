//! Standard streams and other descriptors: who holds them, and who is given which.

use std::fs::{self, File};
use std::io::{PipeReader, Read, Write, pipe};
use std::os::unix::net::UnixDatagram;

use integration::{Call, Container, PidfdSocket, Runtime, sys, wait_for};

/// Reads to the end in a thread, so that a test can say whether the end has come.
fn drain(mut reader: PipeReader) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("a pipe");
        text
    })
}

#[test]
fn output_ends_when_the_container_does() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("echo out; echo err >&2");
    let (out, out_writer) = pipe().expect("descriptors");
    let (err, err_writer) = pipe().expect("descriptors");
    let container = Container::create_with(&runtime, &bundle, |call| {
        call.stdout(out_writer).stderr(err_writer)
    });
    let (out, err) = (drain(out), drain(err));
    container.start();
    assert_eq!(container.wait(), 0);
    wait_for("end of file on both pipes", || {
        out.is_finished() && err.is_finished()
    });
    assert_eq!(out.join().expect("read"), "out\n");
    assert_eq!(err.join().expect("read"), "err\n");
}

#[test]
fn a_failed_create_leaves_nobody_with_its_output() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.args(&["/nosuch"]);
    let (out, writer) = pipe().expect("descriptors");
    let path = bundle.save().to_str().expect("UTF-8");
    let _ = runtime
        .call(&["create", "--bundle", path, bundle.id()])
        .stdout(writer)
        .run()
        .exits(1);
    let out = drain(out);
    wait_for("end of file", || out.is_finished());
}

#[test]
fn create_with_a_console_leaves_nobody_with_its_output() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.set("/process/terminal", true).sleeper();
    let socket = integration::ConsoleSocket::listen(&runtime.dir().join("s"));
    let (out, writer) = pipe().expect("descriptors");
    let error = writer.try_clone().expect("descriptors");
    let flag = format!("--console-socket={}", socket.path().display());
    let container = Container::create_with(&runtime, &bundle, |call| {
        call.flag(&flag).stdout(writer).stderr(error)
    });
    let out = drain(out);
    wait_for("end of file though the container lives", || {
        out.is_finished()
    });
    assert_eq!(container.status(), "created");
}

#[test]
fn input_reaches_the_program() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("read line; echo got $line");
    let (reader, mut writer) = pipe().expect("descriptors");
    let container = Container::create_with(&runtime, &bundle, |call| call.stdin(reader));
    container.start();
    writer.write_all(b"text\n").expect("the container reads");
    assert_eq!(container.wait(), 0);
    assert_eq!(container.stdout(), "got text\n");
}

#[test]
fn foreground_run_passes_its_three_streams() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("cat; echo err >&2");
    let (reader, mut writer) = pipe().expect("descriptors");
    let running = runtime.call_run(&bundle).stdin(reader).spawn();
    writer.write_all(b"through").expect("cat reads");
    drop(writer);
    let run = running.wait().succeeds();
    assert_eq!(
        (run.stdout.as_str(), run.stderr.as_str()),
        ("through", "err\n")
    );
}

/// What the descriptors above stderr are, one per line; ls itself opens one more.
const DESCRIPTORS: &str =
    "cd /proc/self/fd; for fd in *; do [ -e $fd ] && [ $fd -gt 2 ] && readlink $fd; done; true";

#[test]
fn nothing_but_the_standard_streams_is_inherited() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh(&format!("exec 10</dev/null; {DESCRIPTORS}"));
    let stray = File::open("/etc/passwd").expect("it is there");
    let run = runtime.call_run(&bundle).fd(stray).run().succeeds();
    // ls and sh see the one that sh opened itself, and the directory.
    let leaked: Vec<&str> = run
        .stdout
        .lines()
        .filter(|it| !it.contains("/dev/null"))
        .collect();
    assert!(leaked.iter().all(|it| it.contains("/proc/")), "{leaked:?}");
}

fn file_with(runtime: &Runtime, name: &str) -> File {
    let path = runtime.dir().join(name);
    fs::write(&path, name).expect("the scratch directory is writable");
    File::open(path).expect("just written")
}

#[test]
fn preserve_fds_passes_exactly_as_many() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("cat <&3; cat <&4; (cat <&5) 2>/dev/null; true");
    let call = runtime.call_run(&bundle).flag("--preserve-fds=2");
    let call = call
        .fd(file_with(&runtime, "three"))
        .fd(file_with(&runtime, "four"));
    let run = call.fd(file_with(&runtime, "five")).run().succeeds();
    assert_eq!(run.stdout, "threefour");
}

#[test]
fn preserve_fds_beyond_the_open_ones_is_refused() {
    let runtime = Runtime::new();
    let bundle = runtime.bundle();
    let call = runtime.call_run(&bundle).flag("--preserve-fds=100");
    let run = call.fd(file_with(&runtime, "three")).run();
    let _ = run.fails_with("unable to stat preserved-fd");
}

#[test]
fn listen_fds_come_before_preserved_ones_and_are_announced() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("echo $LISTEN_FDS $LISTEN_PID $$; cat <&3; cat <&4");
    let call = runtime
        .call_run(&bundle)
        .flag("--preserve-fds=1")
        .env("LISTEN_FDS", "1");
    // As with systemd: the variables are for one process only.
    let call = call.through(&["/bin/sh", "-c", "LISTEN_PID=$$ exec \"$@\"", "sh"]);
    let call = call
        .fd(file_with(&runtime, "listen"))
        .fd(file_with(&runtime, "kept"));
    let run = call.run().succeeds();
    assert_eq!(run.stdout, "1 1 1\nlistenkept");
}

#[test]
fn the_runtimes_environment_does_not_reach_the_program() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle
        .args(&["/bin/env"])
        .set("/process/env", serde_json::json!(["A=1", "PATH=/bin"]));
    let run = runtime
        .call_run(&bundle)
        .env("SECRET", "x")
        .run()
        .succeeds();
    let mut lines: Vec<&str> = run.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=1", "HOME=/root", "PATH=/bin"]);
}

/// keel tells the kernel anew where its command line and its environment are, as it seals itself.
#[test]
fn ps_shows_the_runtimes_command_line_and_environment() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("echo up; read _");
    let shown = |call: Call<'_>| {
        let (reader, writer) = pipe().expect("descriptors");
        let running = call.stdin(reader).spawn();
        running.wait_for_stdout("up");
        let of = |name: &str| {
            let text = std::fs::read_to_string(format!("/proc/{}/{name}", running.pid()));
            text.expect("it waits for the program")
        };
        let shown = (of("cmdline"), of("environ"));
        drop(writer);
        let _ = running.wait();
        shown
    };
    let call = runtime.call_run(&bundle).env("LAST", "x y");
    let (line, environment) = shown(call);
    let arguments: Vec<&str> = line.split('\0').collect();
    assert!(line.ends_with(&format!("\0{}\0", bundle.id())), "{line:?}");
    assert!(arguments.contains(&"--bundle"), "{line:?}");
    assert!(environment.ends_with("\0") && environment.contains("LAST=x y\0"));
    assert!(environment.contains(&format!("KEEL_TEST={}\0", runtime.token())));

    let call = runtime.call_run(&bundle).through(&["/usr/bin/env", "-i"]);
    assert_eq!(shown(call), (line, String::new()));
}

#[test]
fn readiness_is_forwarded_to_the_callers_notify_socket_with_the_host_pid() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let path = runtime.dir().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a free path");
    bundle
        .probe()
        .sh("probe notify READY=1; echo $NOTIFY_SOCKET; sleep 1000000");
    let container = Container::create_with(&runtime, &bundle, |call| {
        call.env("NOTIFY_SOCKET", path.as_os_str())
    });
    let want = [
        "READY=1".to_string(),
        format!("MAINPID={}", container.pid()),
    ];
    let seen = start_and_listen(&container, &path, &socket, &want);
    container.wait_for_stdout("/run/notify/notify.sock");
    assert!(want.iter().all(|line| seen.contains(line)), "{seen:?}");
}

/// Starts the container and meanwhile reads its caller's socket until all of `want` was said: a
/// runtime may wait until its messages are read (`BARRIER=1` of sd_notify(3)).
fn start_and_listen(
    container: &Container,
    path: &std::path::Path,
    socket: &UnixDatagram,
    want: &[String],
) -> Vec<String> {
    socket
        .set_read_timeout(Some(std::time::Duration::from_millis(100)))
        .expect("a timeout");
    let start = container
        .call(&["start"])
        .env("NOTIFY_SOCKET", path.as_os_str());
    let mut seen: Vec<String> = Vec::new();
    std::thread::scope(|scope| {
        let started = scope.spawn(|| start.run().succeeds());
        let end = std::time::Instant::now() + integration::patience();
        while std::time::Instant::now() < end
            && !(started.is_finished() && want.iter().all(|line| seen.contains(line)))
        {
            let mut buffer = [0; 512];
            if let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                seen.extend(text.lines().map(String::from));
            }
        }
        let _ = started.join().expect("start succeeds");
    });
    seen
}

#[test]
fn start_waits_for_readiness_when_there_is_a_notify_socket() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let path = runtime.dir().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a free path");
    bundle
        .probe()
        .sh("sleep 0.3; echo ready; probe notify READY=1; sleep 1000000");
    let container = Container::create_with(&runtime, &bundle, |call| {
        call.env("NOTIFY_SOCKET", path.as_os_str())
    });
    let _ = start_and_listen(&container, &path, &socket, &["READY=1".to_string()]);
    assert_eq!(
        container.stdout(),
        "ready\n",
        "start has returned too early"
    );
}

#[test]
fn the_session_keyring_is_new_unless_refused() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.probe().args(&["/bin/probe", "keyring"]);
    let run = runtime.run(&bundle).succeeds();
    let name = format!("_ses.{}", bundle.id());
    assert!(run.stdout.contains(&name), "{}", run.stdout);
    let run = runtime.call_run(&bundle).flag("--no-new-keyring").run();
    assert!(!run.stdout.contains(&name), "{}", run.stdout);
}

#[test]
fn the_pidfd_socket_receives_a_pidfd_of_init() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 has no --pidfd-socket") {
        return;
    }
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let socket = PidfdSocket::listen(&runtime.dir().join("pidfd"));
    let flag = format!("--pidfd-socket={}", socket.path().display());
    let container = Container::create_with(&runtime, &bundle, |call| call.flag(&flag));
    let (payload, pidfd) = socket.receive();
    assert_eq!(payload, "standard");
    assert_eq!(sys::pid_of(&pidfd), container.pid());
}
