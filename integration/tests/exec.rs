//! `exec`: every flag beside Debian's runc in the same run, what it refuses, and many at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use integration::{
    Adopted, ConsoleSocket, Container, PidfdSocket, Run, Runtime, by_version, proc, sys, wait_for,
};
use nix::sys::stat::Mode;
use serde_json::{Value, json};

const RUNC: &str = "/usr/sbin/runc";

/// One command line of exec, given to keel and to runc.
struct Row {
    name: &'static str,
    flags: &'static [&'static str],
    script: &'static str,
    /// Where runc 1.1.5 does otherwise, and why keel does so.
    differs: &'static str,
}

const fn same(name: &'static str, flags: &'static [&'static str], script: &'static str) -> Row {
    Row {
        name,
        flags,
        script,
        differs: "",
    }
}

/// The label of the process, and whether there are any.
const LABEL: &str = "cat /proc/self/attr/current || true";
/// A profile that is loaded where the kernel has AppArmor.
const PROFILE: &str = "kt-exec";
const STATUS: &str = "grep -E '^(Cap|NoNewPrivs|Groups|Uid|Gid|Umask)' /proc/self/status";

/// `%PROCESS%` and so on stand for files that `prepare` makes.
const ROWS: &[Row] = &[
    same("nothing", &[], "id -u; id -g; pwd; env | sort"),
    same("status", &[], STATUS),
    same("cwd", &["--cwd", "/tmp"], "pwd"),
    same("cwd that is missing", &["--cwd", "/mnt/none"], "pwd"),
    same("cwd that is a file", &["--cwd", "/etc/passwd"], "pwd"),
    same(
        "env",
        &["--env", "A=1", "--env", "B=", "--env=C=x y"],
        "env | sort",
    ),
    same(
        "env twice, the last wins",
        &["-e", "A=1", "-e", "A=2"],
        "echo $A",
    ),
    same("env PATH", &["-e", "PATH=/bin"], "echo $PATH"),
    same("env HOME", &["-e", "HOME=/x"], "echo $HOME"),
    same("user", &["--user", "65534"], STATUS),
    same("user and group", &["-u", "7:9"], STATUS),
    same(
        "home of a user",
        &["-u", "65534", "-e", "HOME="],
        "echo $HOME",
    ),
    Row {
        differs: "keel looks names up in the container's files; runc takes numbers only",
        ..same("user by name", &["--user", "nobody"], "id -u")
    },
    same("additional groups", &["-g", "5", "-g", "6"], STATUS),
    same("capability", &["--cap", "CAP_NET_ADMIN"], STATUS),
    same(
        "a capability of another kernel",
        &["--cap", "CAP_NEW", "--cap", "CAP_KILL"],
        STATUS,
    ),
    same("no new privileges", &["--no-new-privs"], STATUS),
    same("exit code", &[], "exit 7"),
    same("killed", &[], "kill -9 $$"),
    same("terminated", &[], "kill -TERM $$"),
    Row {
        differs: "runc 1.1.5 gives every process the umask of the container's first",
        ..same("process.json", &["--process", "%PROCESS%"], "")
    },
    same("process.json, little", &["-p", "%LITTLE%"], ""),
    same(
        "process.json and flags",
        &["-p", "%LITTLE%", "--cwd", "/tmp"],
        "",
    ),
    same("apparmor, unconfined", &["--apparmor", "unconfined"], LABEL),
    same("apparmor", &["--apparmor", PROFILE], LABEL),
    same("apparmor, unknown", &["--apparmor", "nosuch"], LABEL),
    same("selinux label", &["--process-label", "a:b:c:s0"], LABEL),
    same(
        "cgroup of an unknown controller",
        &["--cgroup", "nosuch:sub"],
        "true",
    ),
    same("ignore-paused when it runs", &["--ignore-paused"], "true"),
    same("descriptor", &["--preserve-fds", "1"], "cat <&3"),
    same(
        "descriptor that is closed",
        &["--preserve-fds", "9"],
        "true",
    ),
    same("no descriptor", &[], "ls /proc/self/fd | wc -l"),
    same("terminal, detached, no socket", &["-t", "-d"], "true"),
    same(
        "socket without terminal",
        &["--console-socket", "/nowhere"],
        "true",
    ),
    same("unknown flag", &["--nosuch"], "true"),
    same("user that is no number", &["--user", "1:x"], "true"),
    same("no such process.json", &["-p", "/nowhere.json"], ""),
    same("process.json that is no JSON", &["-p", "%BROKEN%"], ""),
    same("process.json without cwd", &["-p", "%NOCWD%"], ""),
    same("process.json without args", &["-p", "%NOARGS%"], ""),
];

/// Rows that only v1 has.
const V1_ROWS: &[Row] = &[
    same(
        "sub-cgroup",
        &["--cgroup", "pids:sub"],
        "grep :pids: /proc/self/cgroup | grep -o /sub",
    ),
    same(
        "sub-cgroup that is missing",
        &["--cgroup", "pids:nowhere"],
        "true",
    ),
    same("sub-cgroup outside", &["--cgroup", "pids:../.."], "true"),
];

/// Rows that only v2 has.
const V2_ROWS: &[Row] = &[
    same(
        "sub-cgroup",
        &["--cgroup", "sub"],
        "grep -o '/sub$' /proc/self/cgroup",
    ),
    same(
        "sub-cgroup from the root",
        &["--cgroup", "/sub"],
        "grep -o '/sub$' /proc/self/cgroup",
    ),
    same(
        "sub-cgroup that is missing",
        &["--cgroup", "nowhere"],
        "true",
    ),
    same("sub-cgroup outside", &["--cgroup", "../.."], "true"),
    same(
        "sub-cgroup of a controller",
        &["--cgroup", "pids:sub"],
        "true",
    ),
];

/// Writes the files that rows name; returns the flags with their paths.
fn prepare(runtime: &Runtime, flags: &[&str]) -> Vec<String> {
    let whole = json!({
        "terminal": false, "user": { "uid": 3, "gid": 4, "umask": 63, "additionalGids": [5] },
        "args": ["/bin/sh", "-c", format!("{STATUS}; env | sort; pwd; ulimit -n; exit 9")],
        "env": ["PATH=/bin", "X=y"], "cwd": "/tmp", "noNewPrivileges": false,
        "capabilities": { "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"],
            "effective": ["CAP_KILL"], "inheritable": [], "ambient": [] },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }],
    });
    let little = json!({ "user": {}, "cwd": "/", "env": ["PATH=/bin"],
        "args": ["/bin/sh", "-c", format!("{STATUS}; env | sort; pwd")] });
    let without = |key: &str| {
        let mut process = little.clone();
        process.as_object_mut().expect("it is one").remove(key);
        process.to_string()
    };
    let files = [
        ("%PROCESS%", whole.to_string()),
        ("%LITTLE%", little.to_string()),
        ("%BROKEN%", "{".into()),
        ("%NOCWD%", without("cwd")),
        ("%NOARGS%", without("args")),
    ];
    let replaced = flags.iter().map(|flag| {
        let mut flag = flag.to_string();
        for (name, text) in &files {
            if flag.contains(name) {
                let path = runtime
                    .dir()
                    .join(format!("{}.json", name.trim_matches('%')));
                fs::write(&path, text).expect("the scratch directory is writable");
                flag = flag.replace(name, &path.to_string_lossy());
            }
        }
        flag
    });
    replaced.collect()
}

fn exec(runtime: &Runtime, container: &Container, row: &Row) -> Run {
    let mut words = vec!["exec".to_string()];
    words.extend(prepare(runtime, row.flags));
    words.push(container.id().to_string());
    if !row.script.is_empty() {
        words.extend(["sh", "-c", row.script].map(String::from));
    }
    let file = runtime.dir().join("third");
    fs::write(&file, "three\n").expect("the scratch directory is writable");
    let open = fs::File::open(&file).expect("it is there");
    let call = runtime.call(&words);
    if row.flags.contains(&"--preserve-fds") {
        call.fd(open).run()
    } else {
        call.run()
    }
}

/// The container's cgroup, on v1 that of the pids controller.
fn pids_cgroup(container: &Container) -> std::path::PathBuf {
    let text = proc::read(container.pid(), "cgroup");
    let line = text
        .lines()
        .find(|line| line.contains(by_version(":pids:", "0::")));
    let path = line.and_then(|line| line.split(':').nth(2));
    let path = path.expect("the controller is mounted");
    Path::new(by_version("/sys/fs/cgroup/pids", "/sys/fs/cgroup"))
        .join(path.trim_start_matches('/'))
}

/// Loads [`PROFILE`], if the kernel has AppArmor.
fn load_profile() {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if enabled.is_ok_and(|text| text.trim() == "Y") {
        let text = format!("profile {PROFILE} flags=(attach_disconnected) {{ file, capability, }}");
        let load = format!("echo '{text}' | apparmor_parser --replace");
        let status = Command::new("sh").args(["-c", &load]).status();
        assert!(status.expect("sh is there").success(), "{text}");
    }
}

#[test]
fn every_flag_does_what_debians_runc_does() {
    let runtime = Runtime::new();
    let lacks = runtime.host_lacks("Debian's runc", !Path::new(RUNC).exists());
    if lacks || runtime.differs("it is the other side") {
        return;
    }
    load_profile();
    let runc = runtime.peer(RUNC);
    let mut bundle = runtime.bundle();
    let ours = runtime.start(bundle.sleeper());
    let mut bundle = runc.bundle();
    let theirs = runc.start(bundle.sleeper());
    for container in [&ours, &theirs] {
        fs::create_dir(pids_cgroup(container).join("sub")).expect("tests run as root");
    }
    let (mut wrong, mut different) = (Vec::new(), 0);
    for row in ROWS.iter().chain(by_version(V1_ROWS, V2_ROWS)) {
        let one = exec(&runtime, &ours, row);
        let other = exec(&runc, &theirs, row);
        let said = |run: &Run| match run.stdout.starts_with("Incorrect Usage") {
            true => "Incorrect Usage".into(),
            false => run.stdout.clone(),
        };
        let equal = (one.code, said(&one)) == (other.code, said(&other));
        different += u32::from(!row.differs.is_empty());
        if equal != row.differs.is_empty() {
            wrong.push(format!("{}:\nkeel {one:?}\nrunc {other:?}", row.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} rows:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(different < 5, "{different} differences are too many");
    for container in [&ours, &theirs] {
        fs::remove_dir(pids_cgroup(container).join("sub")).expect("nobody is in it");
    }
}

#[test]
fn a_detached_terminal_and_its_pid_file_are_those_of_runc() {
    let runtime = Runtime::new();
    let lacks = runtime.host_lacks("Debian's runc", !Path::new(RUNC).exists());
    if lacks || runtime.differs("it is the other side") {
        return;
    }
    let runc = runtime.peer(RUNC);
    let seen = [&runtime, &runc].map(|runtime| {
        let mut bundle = runtime.bundle();
        let container = runtime.start(bundle.sleeper());
        let socket = ConsoleSocket::listen(&runtime.dir().join("console"));
        let (console, file) = (socket.path().to_string_lossy(), runtime.dir().join("pid"));
        let pid_file = file.to_string_lossy();
        let words = [
            "exec",
            "-d",
            "-t",
            "--console-socket",
            &console,
            "--pid-file",
            &pid_file,
        ];
        let script = "tty; read line; echo got $line";
        let words = [&words[..], &[container.id(), "sh", "-c", script]].concat();
        let run = runtime.call(&words).run().succeeds();
        let process = Adopted::of(&file);
        assert_eq!(
            proc::status(process.pid())["PPid"],
            std::process::id().to_string()
        );
        let (_, mut terminal) = socket.receive();
        let name = terminal.expect("\r\n");
        terminal.type_in("it\n");
        let shown = name + &terminal.expect("got it");
        (run.code, run.stdout, run.stderr, shown)
    });
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].3.starts_with("/dev/pts/0"), "{seen:?}");
}

#[test]
fn a_pidfd_of_the_new_process_is_sent() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 has no --pidfd-socket") {
        return;
    }
    let mut bundle = runtime.bundle();
    let container = runtime.start(bundle.sleeper());
    let socket = PidfdSocket::listen(&runtime.dir().join("pidfd"));
    let (path, file) = (socket.path().to_string_lossy(), runtime.dir().join("pid"));
    let pid_file = file.to_string_lossy();
    let words = [
        "exec",
        "-d",
        "--pidfd-socket",
        &path,
        "--pid-file",
        &pid_file,
    ];
    let words = [&words[..], &[container.id(), "sleep", "1000000"]].concat();
    let _ = runtime.call(&words).run().succeeds();
    let (payload, pidfd) = socket.receive();
    assert_eq!(payload, "setns");
    let process = Adopted::of(&file);
    assert_eq!(sys::pid_of(&pidfd), process.pid());
    drop(process);
}

#[test]
fn the_processors_and_oom_score_of_a_new_process_are_those_of_its_process_json() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 does not know execCPUAffinity") {
        return;
    }
    let online = fs::read_to_string("/sys/devices/system/cpu/online").expect("sysfs is mounted");
    if runtime.host_lacks("two processors", online.trim() == "0") {
        return;
    }
    let mut bundle = runtime.bundle();
    let container = runtime.start(bundle.sleeper());
    let file = runtime.dir().join("process.json");
    let script = "grep Cpus_allowed_list /proc/self/status; cat /proc/self/oom_score_adj";
    let exec = |affinity: Value| {
        let process = json!({ "user": {}, "cwd": "/", "env": ["PATH=/bin"],
            "args": ["sh", "-c", script], "oomScoreAdj": 321, "execCPUAffinity": affinity });
        fs::write(&file, process.to_string()).expect("the scratch directory is writable");
        let path = file.to_string_lossy();
        let call = runtime.call(&["exec", "-p", &path, container.id()]);
        // keel itself may use the first alone, which is not to be inherited.
        call.through(&["taskset", "-c", "0"]).run()
    };
    let all = &proc::status(container.pid())["Cpus_allowed_list"];
    for (affinity, want) in [
        (json!({ "initial": "0", "final": "1" }), "1"),
        (json!({ "final": "0-1" }), "0-1"),
        (Value::Null, all.as_str()),
    ] {
        let run = exec(affinity.clone()).succeeds();
        assert_eq!(
            run.stdout,
            format!("Cpus_allowed_list:\t{want}\n321\n"),
            "{affinity}"
        );
    }
    for text in ["x", "9-1", "0,"] {
        let run = exec(json!({ "final": text }));
        assert_eq!((run.code, run.stderr.lines().count()), (255, 1), "{run:?}");
        assert!(run.stderr.contains(".execCPUAffinity"), "{run:?}");
    }
}

/// What is wrong with a command line of exec: a name, the flags, the command, and what is said.
type Bad = (
    &'static str,
    Vec<String>,
    &'static [&'static str],
    &'static str,
);

/// Command lines that cannot be carried out; files of processes are written to `dir`.
fn bad_command_lines(dir: &Path) -> Vec<Bad> {
    let flags = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let process = |name: &str, value: &Value| {
        let path = dir.join(format!("process.json-{name}"));
        fs::write(&path, value.to_string()).expect("the scratch directory is writable");
        flags(&["-p", &path.to_string_lossy()])
    };
    let with = |key: &str, value: Value| {
        let mut changed = json!({ "user": {}, "cwd": "/", "env": [], "args": ["/bin/true"] });
        changed[key] = value;
        process(key, &changed)
    };
    let none = &[][..];
    vec![
        (
            "program",
            vec![],
            &["nosuch"],
            "executable file not found in $PATH",
        ),
        (
            "path",
            vec![],
            &["/bin/nosuch"],
            "no such file or directory",
        ),
        ("directory", vec![], &["/etc"], "permission denied"),
        (
            "no program file",
            vec![],
            &["/etc/passwd"],
            "permission denied",
        ),
        ("user", flags(&["--user=nosuch"]), &["true"], "nosuch"),
        ("group", flags(&["--user=0:nosuch"]), &["true"], "nosuch"),
        ("cwd", flags(&["--cwd=/nosuch"]), &["true"], "/nosuch"),
        ("relative cwd", flags(&["--cwd=tmp"]), &["true"], "absolute"),
        (
            "cwd outside",
            flags(&["--cwd=/proc/self/fd/7"]),
            &["true"],
            "cwd",
        ),
        (
            "descriptor",
            flags(&["--preserve-fds=3"]),
            &["true"],
            "preserve",
        ),
        ("type", with("cwd", json!(7)), none, "cwd"),
        (
            "types",
            with("user", json!({ "uid": "0" })),
            none,
            "user.uid",
        ),
        ("array", with("args", json!("true")), none, "args"),
        (
            "no object",
            process("none", &json!([])),
            none,
            "process.json",
        ),
    ]
}

#[test]
fn what_cannot_be_executed_ends_with_255_one_line_and_no_pid_file() {
    let runtime = Runtime::new();
    if runtime.differs("1.1 lets some of these pass, and answers others with 1 or several lines") {
        return;
    }
    let mut bundle = runtime.bundle();
    let container = runtime.start(bundle.sleeper());
    let file = runtime.dir().join("pid");
    for (name, flags, command, words) in bad_command_lines(runtime.dir()) {
        let pid_file = file.to_string_lossy().into_owned();
        let mut line = vec!["exec".to_string(), "--pid-file".into(), pid_file];
        line.extend(flags);
        line.push(container.id().to_string());
        line.extend(command.iter().map(ToString::to_string));
        let run = runtime.call(&line).run();
        assert_eq!(run.code, 255, "{name}: {run:?}");
        assert!(!file.exists(), "{name} leaves a pid file");
        assert_eq!(run.stderr.lines().count(), 1, "{name}: {run:?}");
        assert!(
            run.stderr.contains(words),
            "{name} does not say {words:?}: {run:?}"
        );
    }
    let left = container.call(&["ps", "-f", "json"]).run().stdout;
    assert_eq!(left.trim(), format!("[{}]", container.pid()));
}

#[test]
fn a_program_that_execve_refuses_has_been_executed_and_has_ended() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.file("/script", "no header of any format\n", 0o755);
    let container = runtime.start(bundle.sleeper());
    // Beyond what one string of execve may have: E2BIG.
    let huge = format!("A={}", "x".repeat(200_000));
    let table = [
        ("A=b", "exec /script: exec format error\n"),
        (huge.as_str(), "exec /script: argument list too long\n"),
    ];
    let (file, document) = (runtime.dir().join("pid"), runtime.dir().join("process"));
    let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    for (env, said) in table {
        let process = json!({ "cwd": "/", "args": ["/script"], "env": [env], "user": {} });
        fs::write(&document, process.to_string()).expect("it is the test's own");
        let mut words = vec!["exec".to_owned(), "--process".to_owned(), path(&document)];
        words.extend([
            "--pid-file".to_owned(),
            path(&file),
            container.id().to_owned(),
        ]);
        let run = runtime.call(&words).run();
        assert_ne!(run.code, 0, "{said}");
        assert!(run.stderr.ends_with(said), "{said}: {run:?}");
        words.insert(1, "--detach".to_owned());
        let _ = runtime.call(&words).run().exits(0);
        // An engine waits for the process of that number.
        drop(Adopted::of(&file));
    }
}

#[test]
fn exec_is_refused_in_a_container_that_is_stopped_paused_or_gone() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let container = runtime.start(bundle.sleeper());
    let exec = |flags: &[&str]| {
        let mut words = vec!["exec"];
        words.extend_from_slice(flags);
        words.extend_from_slice(&[container.id(), "true"]);
        runtime.call(&words).spawn()
    };
    let _ = container.call(&["pause"]).run().succeeds();
    let run = exec(&[]).wait();
    assert_eq!(run.code, 255);
    assert!(
        run.stderr.contains("cannot exec in a paused container"),
        "{run:?}"
    );
    let waiting = exec(&["--ignore-paused"]);
    std::thread::sleep(Duration::from_millis(200));
    let _ = container.call(&["resume"]).run().succeeds();
    assert_eq!(waiting.wait().code, 0, "it runs once the container does");
    let _ = container.kill("KILL").succeeds();
    assert_eq!(container.wait(), 128 + 9);
    let run = exec(&[]).wait();
    assert_eq!(run.code, 255);
    assert!(
        run.stderr.contains("cannot exec in a stopped container"),
        "{run:?}"
    );
    let run = runtime.call(&["exec", "nobody", "true"]).run();
    assert_eq!(run.code, 255);
    assert!(run.stderr.contains("container does not exist"), "{run:?}");
}

#[test]
fn exec_never_enters_another_process_that_has_the_pid() {
    let runtime = Runtime::new();
    if runtime.differs("its state has another form") {
        return;
    }
    let mut bundle = runtime.bundle();
    let container = runtime.start(bundle.sleeper());
    let mut bundle = runtime.bundle();
    bundle.set("/hostname", "other");
    let other = runtime.start(bundle.sleeper());
    let file = runtime.root().join(container.id()).join("state.json");
    let text = fs::read_to_string(&file).expect("the container has a record");
    // As if the container's process had ended and its pid were given to the other's.
    let mut record: Value = serde_json::from_str(&text).expect("it is JSON");
    record["init"]["pid"] = other.pid().into();
    fs::write(&file, record.to_string()).expect("tests run as root");
    let run = runtime.call(&["exec", container.id(), "hostname"]).run();
    fs::write(&file, text).expect("tests run as root");
    assert_eq!((run.code, run.stdout.as_str()), (255, ""), "{run:?}");
    assert!(
        run.stderr.contains("cannot exec in a stopped container"),
        "{run:?}"
    );
}

#[test]
fn exec_beside_a_dying_container_enters_it_or_fails() {
    let runtime = Runtime::new();
    if runtime.differs("1.1 may wait for ever for a process that is gone (runc#5208)") {
        return;
    }
    let rounds = if is_long() { 300 } else { 12 };
    for round in 0..rounds {
        let mut bundle = runtime.bundle();
        let name = format!("host{round}");
        bundle.set("/hostname", name.as_str());
        bundle.sh("exec sleep 0.03");
        let container = runtime.start(&bundle);
        loop {
            let run = runtime.call(&["exec", container.id(), "hostname"]).run();
            match (run.code, run.stdout.trim()) {
                (0, inside) => assert_eq!(inside, name),
                // The program was killed along with the container, or could not be executed.
                (137 | 255, "") => {}
                // It was killed after it had spoken.
                (137, inside) => assert_eq!(inside, name),
                _ => panic!("{run:?}"),
            }
            if run.stderr.contains("stopped container") {
                break;
            }
        }
        container.wait();
        let _ = container.delete().succeeds();
    }
}

fn is_long() -> bool {
    std::env::var("KEEL_SOAK").is_ok_and(|size| size == "full")
}

/// How many descriptors a process has open.
fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// `KEEL_SOAK=full`: ten thousand.
#[test]
fn eight_at_a_time_all_end_as_they_should_and_leave_nothing() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let container = runtime.start(bundle.sleeper());
    let (total, deadline) = match is_long() {
        true => (10_000, Instant::now() + Duration::from_secs(3600)),
        false => (240, Instant::now() + Duration::from_secs(15)),
    };
    let memory = || {
        let cgroup = pids_cgroup(&container)
            .to_string_lossy()
            .replace("/pids/", "/memory/");
        let text = fs::read_to_string(Path::new(&cgroup).join("memory.kmem.usage_in_bytes"));
        text.ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    let batch = |count: u32, next: &AtomicU32| {
        let calls = (0..count).map(|_| {
            let code = next.fetch_add(1, Ordering::Relaxed) % 200;
            let script = format!("exit {code}");
            let words = ["exec", container.id(), "sh", "-c", &script];
            (code, runtime.call(&words).spawn())
        });
        for (code, running) in calls.collect::<Vec<_>>() {
            let run = running.wait();
            assert_eq!(run.code, i32::try_from(code).expect("small"), "{run:?}");
            assert_eq!(run.stderr, "");
        }
    };
    let next = AtomicU32::new(0);
    batch(8, &next);
    let before = (descriptors(container.pid()), memory());
    while next.load(Ordering::Relaxed) < total && Instant::now() < deadline {
        batch(8, &next);
    }
    assert!(
        next.load(Ordering::Relaxed) >= 40,
        "too few in the time allowed"
    );
    wait_for("the last one's end", || {
        let run = container.call(&["ps", "-f", "json"]).run();
        run.stdout.trim() == format!("[{}]", container.pid())
    });
    assert_eq!(
        descriptors(container.pid()),
        before.0,
        "of the container's process"
    );
    let grown = memory().saturating_sub(before.1);
    assert!(
        grown < 4 << 20,
        "the kernel keeps {grown} bytes more for the container"
    );
    let in_cgroup: BTreeSet<String> = fs::read_dir(pids_cgroup(&container))
        .expect("it is there")
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(in_cgroup.is_empty(), "cgroups are left: {in_cgroup:?}");
    container.finish();
    runtime.assert_clean(&format!("{} execs", next.load(Ordering::Relaxed)));
}

#[test]
fn a_process_is_read_from_a_fifo_too() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let container = runtime.start(bundle.sleeper());
    let fifo = runtime.dir().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).expect("it is a directory");
    let process = json!({ "user": {}, "cwd": "/", "env": [], "args": ["/bin/echo", "read"] });
    let path = fifo.clone();
    let writer = std::thread::spawn(move || fs::write(path, process.to_string()));
    let fifo = fifo.to_string_lossy();
    let run = runtime
        .call(&["exec", "-p", &fifo, container.id()])
        .run()
        .succeeds();
    assert_eq!(run.stdout, "read\n");
    writer
        .join()
        .expect("it does not panic")
        .expect("it is read");
    assert!(proc::is_alive(container.pid()));
}

#[test]
fn a_deadline_and_a_policy_that_children_do_not_get_reach_the_program() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 has no scheduler") {
        return;
    }
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let _container = runtime.start(&bundle);
    let (file, pid) = (
        runtime.dir().join("process.json"),
        runtime.dir().join("pid"),
    );
    let reset = ["SCHED_FLAG_RESET_ON_FORK"];
    let deadline = json!({ "policy": "SCHED_DEADLINE", "flags": reset,
        "runtime": 42_000, "deadline": 100_000, "period": 1_000_000 });
    // The numbers are those of sched(7).
    for (scheduler, policy) in [
        (
            json!({ "policy": "SCHED_BATCH", "nice": 5, "flags": reset }),
            3,
        ),
        (deadline, 6),
    ] {
        let process = json!({ "args": ["/bin/sleep", "1000"], "cwd": "/", "scheduler": scheduler });
        fs::write(&file, process.to_string()).expect("writable");
        let (file, pid) = (file.to_str().expect("UTF-8"), pid.to_str().expect("UTF-8"));
        let line = [
            "exec",
            "--detach",
            "--pid-file",
            pid,
            "--process",
            file,
            bundle.id(),
        ];
        let null = fs::File::open("/dev/null").expect("/dev/null is there");
        let _ = runtime.call(&line).stdin(null).run().succeeds();
        let process = Adopted::of(Path::new(pid));
        let have = sys::scheduler(process.pid()).expect("it is alive");
        assert_eq!(
            (have.sched_policy, have.sched_flags & 1),
            (policy, 1),
            "{scheduler}"
        );
    }
}
