//! What the flags of a seccomp profile do, and what the agent of its notifications is told.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;

use integration::{Bundle, Runtime, sys, wait_for};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A process that answers the notifications of a container.
struct Agent(UnixListener);

impl Agent {
    fn new(runtime: &Runtime, bundle: &mut Bundle, flags: Value, calls: &[&str]) -> Self {
        let path = runtime.dir().join(format!("agent-{}", bundle.id()));
        let socket = UnixListener::bind(&path).expect("the scratch directory is writable");
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "flags": flags,
            "listenerPath": path,
            "syscalls": [{ "names": calls, "action": "SCMP_ACT_NOTIFY" }],
        });
        bundle.set("/linux/seccomp", profile);
        Self(socket)
    }

    /// What the runtime has sent, and the descriptor that came with it.
    fn receive(&self) -> (Value, OwnedFd) {
        let (stream, _) = self.0.accept().expect("a runtime connects");
        let (message, mut fds) = sys::receive(stream.as_fd()).expect("a message comes");
        let message = serde_json::from_slice(&message).expect("it is JSON");
        (message, fds.pop().expect("with a descriptor"))
    }
}

/// With the flag a process that waits for its agent's answer is not interrupted by a signal that it
/// handles: the agent does nothing twice. Without it is, which is the control.
#[test]
fn a_call_is_answered_once_if_the_profile_wants_it() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 knows no SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV") {
        return;
    }
    for flag in [true, false] {
        let flags = match flag {
            true => json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]),
            false => json!([]),
        };
        let mut bundle = runtime.bundle();
        let agent = Agent::new(&runtime, &mut bundle, flags, &["chdir"]);
        bundle.sh("trap 'echo told' USR1; cd /tmp; echo arrived");
        let container = runtime.create(&bundle);
        let (_, listener) = agent.receive();
        container.start();
        let listener = listener.as_fd();
        let id = sys::receive_notification(listener).expect("the shell calls chdir");
        let pid = nix::unistd::Pid::from_raw(container.pid());
        nix::sys::signal::kill(pid, Signal::SIGUSR1).expect("it waits");
        if flag {
            // No event says that nothing happens.
            std::thread::sleep(std::time::Duration::from_millis(300));
            assert!(sys::waits_for_answer(listener, id));
            sys::let_it_call(listener, id).expect("it waits");
        } else {
            wait_for("the call to be interrupted", || {
                !sys::waits_for_answer(listener, id)
            });
            // The shell may or may not try again.
            let _ = container.call(&["kill"]).run();
        }
        let _ = container.wait();
        if flag {
            assert_eq!(container.stdout(), "told\narrived\n");
        }
    }
}

/// What the kernel has logged since [`kernel_log`] was called.
fn rest_of(log: &mut File) -> String {
    let mut text = String::new();
    let mut line = [0; 8192];
    loop {
        match log.read(&mut line) {
            Ok(length) => text.push_str(&String::from_utf8_lossy(&line[..length])),
            // Lines that were overwritten before they were read.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(_) => return text,
        }
    }
}

/// The end of the kernel's log.
fn kernel_log() -> File {
    let mut options = File::options();
    let log = options
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open("/dev/kmsg");
    let mut log = log.expect("tests run as root");
    let _ = rest_of(&mut log);
    log
}

/// The kernel logs a refused call if the profile has the flag. The control is the same with others.
#[test]
fn a_refused_call_is_logged_if_the_profile_wants_it() {
    let runtime = Runtime::new();
    let logged = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_logged");
    let logs = logged.is_ok_and(|list| list.contains("errno"));
    if runtime.host_lacks("a log of refused system calls", !logs) {
        return;
    }
    let mut log = kernel_log();
    let profile = |flags: &[&str], name: &str| {
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "flags": flags,
            "syscalls": [{ "names": [name], "action": "SCMP_ACT_ERRNO" }],
        })
    };
    let others = [
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    ];
    for (flags, program, name) in [
        (&[][..], "rmdir /tmp", "rmdir"),
        (&others, "ln -s x /tmp/x", "symlink"),
        (&["SECCOMP_FILTER_FLAG_LOG"], "mkdir /tmp/x", "mkdir"),
    ] {
        let mut bundle = runtime.bundle();
        bundle.set("/linux/seccomp", profile(flags, name));
        let words: Vec<&str> = program.split(' ').collect();
        let _ = runtime.run(bundle.args(&words)).exits(1);
    }
    let mut text = String::new();
    // AUDIT_SECCOMP of linux/audit.h.
    let has = |text: &str, program: &str, number: i64| {
        let (program, number) = (format!("comm=\"{program}\""), format!(" syscall={number} "));
        text.lines().any(|line| {
            line.contains("type=1326 ") && line.contains(&program) && line.contains(&number)
        })
    };
    wait_for("the kernel to log the call", || {
        text += &rest_of(&mut log);
        has(&text, "mkdir", nix::libc::SYS_mkdir)
    });
    assert!(!has(&text, "rmdir", nix::libc::SYS_rmdir), "{text}");
    assert!(!has(&text, "ln", nix::libc::SYS_symlink), "{text}");
}

/// A kernel that takes speculation from whoever loads a filter leaves it to those with the flag. Since
/// Linux 5.16 that takes a processor with the mitigation, and `spec_store_bypass_disable=seccomp`.
/// Source: Linux, admin-guide/kernel-parameters.
#[test]
fn speculation_is_left_if_the_profile_wants_it() {
    let runtime = Runtime::new();
    let file = "/sys/devices/system/cpu/vulnerabilities/spec_store_bypass";
    let mitigation = std::fs::read_to_string(file).unwrap_or_default();
    let is_seccomp_s = mitigation.contains("seccomp");
    if runtime.host_lacks("mitigations that seccomp filters turn on", !is_seccomp_s) {
        return;
    }
    for (flags, wanted) in [
        (json!([]), "thread force mitigated"),
        (
            json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]),
            "thread vulnerable",
        ),
    ] {
        let mut bundle = runtime.bundle();
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "flags": flags,
            "syscalls": [{ "names": ["swapoff"], "action": "SCMP_ACT_ERRNO" }],
        });
        bundle
            .set("/linux/seccomp", profile)
            .sh("grep Speculation_Store_Bypass /proc/self/status");
        let run = runtime.run(&bundle).succeeds();
        assert!(run.stdout.contains(wanted), "{}", run.stdout);
    }
}

/// What the agent of an exec is told: the process and the container, which is another.
#[test]
fn an_agent_is_told_which_process_of_which_container_it_is() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let agent = Agent::new(&runtime, &mut bundle, json!([]), &["swapoff"]);
    bundle.sleeper();
    let container = runtime.create(&bundle);
    let (created, _listener) = agent.receive();
    container.start();
    assert_eq!(created["pid"], container.pid());
    assert_eq!(created["state"]["status"], "creating");
    assert_eq!(created.get("metadata"), None, "there is none");

    let metadata = "what the caller wants";
    let pid_file = runtime.dir().join("pid");
    let file = pid_file.to_str().expect("UTF-8");
    let exec = ["exec", "--pid-file", file, container.id()];
    let words = [&exec[..], &["sleep", "1000000"]].concat();
    let exec = runtime.call(&words).spawn();
    let (added, _listener) = agent.receive();
    wait_for("the pid file", || pid_file.exists());
    let pid: i32 = std::fs::read_to_string(&pid_file)
        .expect("the runtime has written it")
        .parse()
        .expect("a number");
    assert_eq!(added["pid"], pid);
    assert_eq!(added["state"]["pid"], container.pid());
    assert_eq!(added["state"]["status"], "running");
    assert_eq!(added["state"]["id"], container.id());
    drop(container);
    let _ = exec.wait();

    let mut bundle = runtime.bundle();
    let agent = Agent::new(&runtime, &mut bundle, json!([]), &["swapoff"]);
    bundle
        .set("/linux/seccomp/listenerMetadata", metadata)
        .sleeper();
    let container = runtime.create(&bundle);
    assert_eq!(agent.receive().0["metadata"], metadata);
    drop(container);
}
