//! create, start, state, kill, delete, run, list: status, schemas, exit codes, error words.
//!
//! Source: runtime-spec runtime.md "Lifecycle"; runc 1.5's observed behaviour.

use std::fs;
use std::path::Path;

use integration::{Bundle, Container, Runtime, proc, wait_for};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

#[test]
fn a_container_is_deleted_right_after_a_kill() {
    let runtime = Runtime::new();
    for _ in 0..20 {
        let mut bundle = runtime.bundle();
        bundle.sleeper();
        let container = runtime.start(&bundle);
        let _ = container.kill("KILL").succeeds();
        let _ = container.delete().succeeds();
    }
}

#[test]
fn a_container_goes_from_created_to_running_to_stopped_to_gone() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.create(&bundle);
    assert_eq!(container.status(), "created");
    container.start();
    assert_eq!(container.status(), "running");
    let _ = container.kill("KILL").succeeds();
    assert_eq!(container.wait(), 128 + 9);
    assert_eq!(container.status(), "stopped");
    let _ = container.delete().succeeds();
    let _ = container
        .call(&["state"])
        .run()
        .fails_with("container does not exist");
}

#[test]
fn create_does_not_run_the_program_and_start_does() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("echo started");
    let container = runtime.create(&bundle);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(container.stdout(), "");
    container.start();
    assert_eq!(container.wait(), 0);
    assert_eq!(container.stdout(), "started\n");
}

#[test]
fn the_first_process_is_a_child_of_the_nearest_subreaper() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("exit 42");
    let container = runtime.create(&bundle);
    let parent = proc::status(container.pid())["PPid"].clone();
    assert_eq!(parent, std::process::id().to_string());
    container.start();
    assert_eq!(container.wait(), 42);
}

#[test]
fn state_has_the_fields_of_the_spec_and_of_runc() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle
        .sleeper()
        .set("/annotations", json!({ "org.example.key": "value" }));
    let container = runtime.start(&bundle);
    let state = container.state();
    assert_eq!(state["id"], bundle.id());
    assert_eq!(state["status"], "running");
    assert_eq!(state["pid"], container.pid());
    assert_eq!(state["bundle"], bundle.path().to_str().expect("UTF-8"));
    assert_eq!(state["rootfs"], bundle.rootfs().to_str().expect("UTF-8"));
    assert_eq!(state["annotations"], json!({ "org.example.key": "value" }));
    assert_eq!(state["owner"], "");
    assert!(
        state["ociVersion"]
            .as_str()
            .is_some_and(|version| version.starts_with("1.")),
        "{state}"
    );
    let created = state["created"].as_str().expect("created is a string");
    assert!(is_rfc3339_in_utc(created), "{created}");
    let _ = container.kill("KILL").succeeds();
    container.wait();
    assert_eq!(container.state()["pid"], 0, "pid of a stopped container");
}

fn is_rfc3339_in_utc(time: &str) -> bool {
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '9' } else { c })
        .collect();
    shape.starts_with("9999-99-99T99:99:99") && shape.ends_with('Z')
}

#[test]
fn state_prints_two_space_json_and_leaves_stderr_empty() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.create(&bundle);
    let run = container.call(&["state"]).run().succeeds();
    assert_eq!(run.stderr, "");
    assert!(
        run.stdout.starts_with("{\n  \"ociVersion\""),
        "{}",
        run.stdout
    );
    assert!(run.stdout.trim_end().ends_with("\n}"), "{}", run.stdout);
}

#[test]
fn state_without_annotations_omits_them() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.create(&bundle);
    assert_eq!(container.state().get("annotations"), None);
}

#[test]
fn the_pid_file_holds_a_decimal_without_a_newline() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.create(&bundle);
    let text = fs::read_to_string(bundle.path().join("pid")).expect("the pid file is there");
    assert_eq!(text, container.state()["pid"].to_string());
    let others = fs::read_dir(bundle.path())
        .expect("the bundle is there")
        .flatten();
    let mut names: Vec<_> = others
        .map(|it| it.file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["config.json", "pid", "rootfs"],
        "temporary files stay behind"
    );
}

#[test]
fn create_uses_the_current_directory_as_the_default_bundle() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("echo here");
    let run = runtime
        .call(&["run", bundle.id()])
        .cwd(bundle.save())
        .run()
        .succeeds();
    assert_eq!(run.stdout, "here\n");
}

#[test]
fn flags_may_follow_the_id_and_be_joined_with_an_equals_sign() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("echo ok");
    let path = bundle.save().to_str().expect("UTF-8").to_string();
    let joined = format!("--bundle={path}");
    let short = format!("-b={path}");
    let single = format!("-bundle={path}");
    let lines: &[&[&str]] = &[
        &["run", bundle.id(), "--bundle", &path],
        &["run", bundle.id(), &joined],
        &["run", &short, bundle.id()],
        &["run", "-b", &path, bundle.id()],
        &["run", &single, bundle.id()],
        &["run", "-bundle", &path, bundle.id()],
    ];
    for line in lines {
        let run = runtime.call(line).run();
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (0, "ok\n"),
            "{line:?}: {}",
            run.stderr
        );
    }
}

#[test]
fn a_busy_id_is_refused_and_the_container_survives() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.start(&bundle);
    for verb in ["create", "run"] {
        let path = bundle.save().to_str().expect("UTF-8");
        let run = runtime.call(&[verb, "--bundle", path, bundle.id()]).run();
        let _ = run.fails_with("container with given ID already exists");
    }
    assert_eq!(container.status(), "running");
    container.finish();
}

#[test]
fn bad_ids_are_refused_before_anything_is_made() {
    let runtime = Runtime::new();
    let bundle = runtime.bundle();
    let path = bundle.save().to_str().expect("UTF-8");
    for id in [
        ".", "..", "a/b", "../x", "a b", "a\nb", "ä", "a*b", "~", "a:b", "a@b",
    ] {
        let run = runtime.call(&["create", "--bundle", path, id]).run();
        let _ = run.fails_with("invalid container ID format");
    }
    let run = runtime.call(&["create", "--bundle", path, ""]).run();
    let _ = run.fails_with("container id cannot be empty");
}

#[test]
fn every_character_that_runc_allows_in_an_id_is_allowed() {
    let runtime = Runtime::new();
    let bundle = runtime.bundle();
    let path = bundle.save().to_str().expect("UTF-8");
    let id = runtime.id("Az09_+.-");
    let _ = runtime
        .call(&["run", "--bundle", path, &id])
        .run()
        .succeeds();
}

#[test]
fn commands_on_an_unknown_id_say_that_it_does_not_exist() {
    let runtime = Runtime::new();
    let id = runtime.id("nobody");
    let lines: &[&[&str]] = &[
        &["state"],
        &["start"],
        &["kill"],
        &["delete"],
        &["pause"],
        &["resume"],
        &["ps"],
        &["events"],
    ];
    for line in lines {
        let mut words = line.to_vec();
        words.push(&id);
        let run = runtime.call(&words).run();
        assert!(
            run.stderr.contains("does not exist"),
            "{line:?}: {}",
            run.stderr
        );
        assert_eq!(run.code, 1, "{line:?}");
    }
}

#[test]
fn start_is_refused_unless_the_container_is_created() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.start(&bundle);
    let _ = container
        .call(&["start"])
        .run()
        .fails_with("cannot start an already running container");
    let _ = container.kill("KILL").succeeds();
    container.wait();
    let run = container.call(&["start"]).run();
    let _ = run.fails_with("cannot start a container that has stopped");
}

#[test]
fn kill_takes_names_and_numbers() {
    let runtime = Runtime::new();
    for (name, number) in [
        ("TERM", 15),
        ("SIGUSR1", 10),
        ("12", 12),
        ("HUP", 1),
        ("sigint", 2),
    ] {
        let mut bundle = runtime.bundle();
        let traps = "for s in TERM USR1 USR2 HUP INT; do trap \"echo got-$s; exit 3\" $s; done";
        bundle.sh(&format!(
            "{traps}; echo ready; while :; do sleep 0.01; done"
        ));
        let container = runtime.start(&bundle);
        container.wait_for_stdout("ready");
        let run = container.kill(name);
        assert_eq!(run.code, 0, "{name}: {}", run.stderr);
        assert_eq!(container.wait(), 3, "{name}");
        let signal = Signal::try_from(number).expect("a signal").as_str();
        let want = signal.replace("SIG", "got-");
        assert!(
            container.stdout().contains(&want),
            "{name}: {}",
            container.stdout()
        );
    }
}

#[test]
fn kill_sends_term_by_default() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done");
    let container = runtime.start(&bundle);
    container.wait_for_stdout("ready");
    let _ = container.call(&["kill"]).run().succeeds();
    assert_eq!(container.wait(), 7);
}

#[test]
fn kill_with_signal_zero_only_asks() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.start(&bundle);
    let _ = container.kill("0").succeeds();
    assert_eq!(container.status(), "running");
}

#[test]
fn kill_refuses_an_unknown_signal() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.start(&bundle);
    for signal in ["NOSUCH", "SIG", "1x"] {
        let run = container.kill(signal);
        let _ = run.fails_with(&format!("unknown signal \"{signal}\""));
    }
    let numbers: &[&str] = if runtime.differs("1.1.5 asks the kernel") {
        &[]
    } else {
        &["65", "4096", "-1"]
    };
    for signal in numbers {
        let run = container.kill(signal);
        assert_eq!(run.code, 1, "{signal}: {}", run.stderr);
    }
    assert_eq!(container.status(), "running");
}

#[test]
fn kill_of_a_stopped_container_fails_in_the_callers_words() {
    let runtime = Runtime::new();
    let bundle = runtime.bundle();
    let container = runtime.start(&bundle);
    container.wait();
    let _ = container.kill("KILL").fails_with("container not running");
    let run = runtime
        .call(&["kill", "--all", container.id(), "KILL"])
        .run();
    let _ = run.succeeds();
}

#[test]
fn kill_of_a_created_container_stops_it() {
    let runtime = Runtime::new();
    // The first process of a pid namespace is spared what it has no handler for: keel has one.
    for signal in ["KILL", "TERM", "INT"] {
        let bundle = runtime.bundle();
        let container = runtime.create(&bundle);
        let _ = container.kill(signal).succeeds();
        let code = container.wait();
        assert!(signal != "KILL" || code == 128 + 9, "{code}");
        assert_eq!(container.status(), "stopped", "{signal}");
    }
}

#[test]
fn kill_all_reaches_every_process_of_a_container_without_a_pid_namespace() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.share("pid").sh("sleep 1000001 & echo $!; wait");
    let container = runtime.start(&bundle);
    container.wait_for_stdout("\n");
    let child: i32 = container
        .stdout()
        .trim()
        .parse()
        .expect("the shell prints a host pid");
    assert!(proc::is_alive(child));
    let run = runtime
        .call(&["kill", "--all", container.id(), "KILL"])
        .run();
    let _ = run.succeeds();
    container.wait();
    wait_for("the child's end", || !proc::is_alive(child));
    reap(child);
}

/// Orphans of a container without a pid namespace come to the test, the subreaper.
fn reap(pid: i32) {
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
}

#[test]
fn killing_init_of_a_container_without_a_pid_namespace_kills_its_processes() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 leaves the others to `kill --all`, 1.2 and later kill the cgroup") {
        return;
    }
    let mut bundle = runtime.bundle();
    bundle.share("pid").sh("sleep 1000002 & echo $!; wait");
    let container = runtime.start(&bundle);
    container.wait_for_stdout("\n");
    let child: i32 = container
        .stdout()
        .trim()
        .parse()
        .expect("the shell prints a host pid");
    let _ = container.kill("KILL").succeeds();
    container.wait();
    wait_for("the child's end", || !proc::is_alive(child));
    reap(child);
}

#[test]
fn delete_kills_a_created_container() {
    let runtime = Runtime::new();
    let bundle = runtime.bundle();
    let container = runtime.create(&bundle);
    let _ = container.delete().succeeds();
    container.wait();
    let _ = container
        .call(&["state"])
        .run()
        .fails_with("does not exist");
}

#[test]
fn delete_of_a_running_container_is_refused_and_forced_delete_kills_it() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.start(&bundle);
    let words = format!(
        "cannot delete container {} that is not stopped: running",
        container.id()
    );
    let _ = container.delete().fails_with(&words);
    assert_eq!(container.status(), "running");
    let _ = container.call(&["delete", "--force"]).run().succeeds();
    assert_eq!(container.wait(), 128 + 9);
    let _ = container
        .call(&["state"])
        .run()
        .fails_with("does not exist");
}

#[test]
fn forced_delete_of_an_unknown_id_succeeds() {
    let runtime = Runtime::new();
    let id = runtime.id("unknown");
    for flag in ["--force", "-f"] {
        let run = runtime.call(&["delete", flag, &id]).run().succeeds();
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn edits_of_config_json_after_create_have_no_effect() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("echo before");
    let container = runtime.create(&bundle);
    bundle.sh("echo after").save();
    container.start();
    container.wait();
    assert_eq!(container.stdout(), "before\n");
}

#[test]
fn a_deleted_config_json_does_not_hinder_start_and_delete() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("echo ok");
    let container = runtime.create(&bundle);
    fs::remove_file(bundle.path().join("config.json")).expect("it is there");
    container.start();
    container.wait();
    assert_eq!(container.stdout(), "ok\n");
    let _ = container.delete().succeeds();
}

#[test]
fn state_of_a_container_whose_init_was_killed_behind_the_runtimes_back_is_stopped() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.start(&bundle);
    let pid = nix::unistd::Pid::from_raw(container.pid());
    nix::sys::signal::kill(pid, Signal::SIGKILL).expect("it is alive");
    container.wait_for_status("stopped");
    assert_eq!(container.wait(), 128 + 9);
    let _ = container.delete().succeeds();
}

#[test]
fn run_reports_the_programs_exit_code_and_deletes_the_container() {
    let runtime = Runtime::new();
    let table = [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 42", 42),
        ("exit 255", 255),
        ("kill -9 $$", 128 + 9),
        ("kill -TERM $$", 128 + 15),
    ];
    for (script, code) in table {
        let mut bundle = runtime.bundle();
        // Signals do not reach the init of a pid namespace from inside; a grandchild's would not count.
        bundle.share("pid").sh(script);
        let run = runtime.run(&bundle);
        assert_eq!(run.code, code, "{script}: {}", run.stderr);
        let _ = runtime
            .call(&["state", bundle.id()])
            .run()
            .fails_with("does not exist");
    }
}

#[test]
fn run_keep_leaves_the_stopped_container() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("exit 5");
    let _ = runtime.call_run(&bundle).flag("--keep").run().exits(5);
    let state = runtime
        .call(&["state", bundle.id()])
        .run()
        .succeeds()
        .json();
    assert_eq!(state["status"], "stopped");
    let _ = runtime.call(&["delete", bundle.id()]).run().succeeds();
}

#[test]
fn run_detach_returns_while_the_program_runs() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let pid_file = bundle.path().join("detached.pid");
    let flag = format!("--pid-file={}", pid_file.display());
    let _ = runtime
        .call_run(&bundle)
        .flag("--detach")
        .flag(flag)
        .run()
        .succeeds();
    let state = runtime.call(&["state", bundle.id()]).run().json();
    assert_eq!(state["status"], "running");
    let pid = fs::read_to_string(pid_file).expect("run writes the pid file");
    assert_eq!(state["pid"].to_string(), pid);
    let _ = runtime
        .call(&["kill", bundle.id(), "KILL"])
        .run()
        .succeeds();
    reap(pid.parse().expect("a number"));
    let _ = runtime.call(&["delete", bundle.id()]).run().succeeds();
}

#[test]
fn run_in_the_foreground_forwards_signals() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("trap 'echo usr1; exit 9' USR1; echo ready; while :; do sleep 0.01; done");
    let running = runtime.call_run(&bundle).spawn();
    running.wait_for_stdout("ready");
    running.signal(Signal::SIGUSR1);
    let run = running.wait().exits(9);
    assert_eq!(run.stdout, "ready\nusr1\n");
}

#[test]
fn a_program_that_execve_refuses_says_so_on_the_containers_stderr() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 has its time and level before the words") {
        return;
    }
    let said = "exec /script: no such file or directory\n";
    let mut bundle = runtime.bundle();
    // Only execve(2) finds out that the interpreter is not there.
    bundle.file("/script", "#!/no/such/shell\n", 0o755);
    bundle.args(&["/script"]);
    let run = runtime.run(&bundle).exits(255);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", said));

    let log = runtime.dir().join("log");
    let flags = ["--log", log.to_str().expect("UTF-8")];
    let run = runtime.call_run(&bundle).global(&flags).run().exits(255);
    assert_eq!(run.stderr, said);
    let logged = fs::read_to_string(&log).expect("a log");
    assert_eq!(logged.matches(said.trim_end()).count(), 1, "{logged}");

    let container = runtime.start(&bundle);
    assert_eq!(container.wait(), 255);
    assert_eq!(container.stderr(), said);
}

#[test]
fn a_program_that_execve_refuses_has_been_started_and_has_ended() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.file("/script", "no header of any format\n", 0o755);
    bundle.args(&["/script"]);
    let container = runtime.create(&bundle);
    let start = container.call(&["start"]).run().exits(0);
    assert_eq!((start.stdout.as_str(), start.stderr.as_str()), ("", ""));
    assert_ne!(container.wait(), 0);
    let _ = container.call(&["delete"]).run().exits(0);
    let path = bundle.save().to_str().expect("UTF-8");
    let words = ["run", "--detach", "--bundle", path, bundle.id()];
    let _ = runtime.call(&words).run().exits(0);
    wait_for("the end of the program", || {
        let state = runtime.call(&["state", bundle.id()]).run().exits(0).json();
        state["status"] == "stopped"
    });
    let _ = runtime.call(&["delete", bundle.id()]).run().exits(0);
}

#[test]
fn create_fails_for_a_program_that_is_not_there_or_cannot_be_executed() {
    let runtime = Runtime::new();
    let table = [
        (
            "nosuchprogram",
            "exec: \"nosuchprogram\": executable file not found in $PATH",
        ),
        (
            "/nosuch",
            "exec: \"/nosuch\": stat /nosuch: no such file or directory",
        ),
        // Clients look for these words, and for no other ones in the runc of 2023.
        ("/etc", "permission denied"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ];
    for verb in ["create", "run"] {
        for (program, words) in table {
            let mut bundle = runtime.bundle();
            bundle.args(&[program]);
            let path = bundle.save().to_str().expect("UTF-8");
            let run = runtime
                .call(&[verb, "--bundle", path, bundle.id()])
                .run()
                .exits(1);
            let said = run.stderr.replace("\\\"", "\"");
            assert!(said.contains(words), "{verb} {program}: {said}");
            assert!(
                !runtime.root().join(bundle.id()).exists(),
                "{verb} {program} leaves state"
            );
        }
    }
}

#[test]
fn a_failed_create_writes_no_pid_file() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.args(&["/nosuch"]);
    let pid_file = bundle.path().join("pid");
    let path = bundle.save().to_str().expect("UTF-8");
    let pid = pid_file.to_str().expect("UTF-8");
    let line = ["create", "--bundle", path, "--pid-file", pid, bundle.id()];
    let _ = runtime.call(&line).run().exits(1);
    if !runtime.differs("the pid file of a failed create stays") {
        assert!(!pid_file.exists());
    }
}

#[test]
fn list_needs_no_more_descriptors_for_more_containers() {
    const FEW: &[&str] = &["prlimit", "--nofile=16:16"];
    let runtime = Runtime::new();
    let bundles: Vec<_> = (0..12).map(|_| runtime.bundle()).collect();
    let containers: Vec<_> = bundles
        .iter()
        .map(|bundle| runtime.create(bundle))
        .collect();
    let list = runtime.call(&["list", "--quiet"]).run().succeeds();
    assert_eq!(list.stdout.lines().count(), containers.len());
    let table = runtime.call(&["list"]).through(FEW).run().succeeds();
    assert_eq!(
        (table.stdout.lines().count(), table.stderr.as_str()),
        (13, "")
    );
}

#[test]
fn list_shows_each_container_as_a_table_as_json_and_as_ids() {
    let runtime = Runtime::new();
    let empty = runtime.call(&["list", "--format", "json"]).run().succeeds();
    assert_eq!(empty.stdout.trim_end(), "null");
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.start(&bundle);
    let table = runtime.call(&["list"]).run().succeeds().stdout;
    let mut lines = table.lines();
    let header: Vec<&str> = lines.next().expect("a header").split_whitespace().collect();
    assert_eq!(
        header,
        ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    );
    let row: Vec<&str> = lines.next().expect("a row").split_whitespace().collect();
    assert_eq!(
        &row[..3],
        [container.id(), &container.pid().to_string(), "running"]
    );
    assert_eq!(row[3], bundle.path().to_str().expect("UTF-8"));
    assert_eq!(row[5], "root");
    let ids = runtime.call(&["list", "-q"]).run().succeeds().stdout;
    assert_eq!(ids, format!("{}\n", container.id()));
    let json = runtime
        .call(&["list", "-f", "json"])
        .run()
        .succeeds()
        .json();
    let mut want = container.state();
    want["owner"] = json!("root");
    assert_eq!(json, Value::Array(vec![want]));
}

#[test]
fn list_of_an_unknown_format_is_refused() {
    let runtime = Runtime::new();
    let run = runtime.call(&["list", "--format", "xml"]).run().exits(1);
    assert!(
        run.stderr.contains("xml") || runtime.kind() == integration::Kind::Runc,
        "{}",
        run.stderr
    );
}

#[test]
fn spec_writes_a_config_that_runs_and_refuses_to_overwrite_it() {
    let runtime = Runtime::new();
    let bundle = runtime.bundle();
    let _ = runtime.call(&["spec"]).cwd(bundle.path()).run().succeeds();
    let file = bundle.path().join("config.json");
    let text = fs::read_to_string(&file).expect("spec writes config.json");
    assert!(
        text.starts_with("{\n\t\"ociVersion\""),
        "not indented by tabs: {text}"
    );
    let run = runtime.call(&["spec"]).cwd(bundle.path()).run();
    let _ = run.fails_with("File config.json exists. Remove it first");
    let mut spec: Value = serde_json::from_str(&text).expect("it is JSON");
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["sh", "-c", "echo $0 ran"]);
    fs::write(&file, spec.to_string()).expect("the bundle is writable");
    let run = runtime
        .call(&["run", bundle.id()])
        .cwd(bundle.path())
        .run()
        .succeeds();
    assert_eq!(run.stdout, "sh ran\n");
}

#[test]
fn spec_takes_a_bundle_and_writes_a_rootless_config() {
    let runtime = Runtime::new();
    let bundle = runtime.bundle();
    let path = bundle.path().to_str().expect("UTF-8");
    let _ = runtime
        .call(&["spec", "--rootless", "--bundle", path])
        .run()
        .succeeds();
    let text = fs::read_to_string(bundle.path().join("config.json")).expect("it is written");
    let spec: Value = serde_json::from_str(&text).expect("it is JSON");
    let namespaces = spec["linux"]["namespaces"].as_array().expect("an array");
    assert!(namespaces.contains(&json!({ "type": "user" })), "{text}");
    assert_eq!(spec["linux"]["uidMappings"][0]["size"], 1);
    assert_eq!(spec["linux"].get("resources"), None);
}

#[test]
fn features_works_bare_and_is_pure_json() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 has no recursive options in mountOptions, no mountExtensions") {
        return;
    }
    let run = runtime.call(&["features"]).without_root().run().succeeds();
    assert_eq!(run.stderr, "");
    let features = run.json();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert!(
        features["ociVersionMax"]
            .as_str()
            .is_some_and(|max| max.starts_with("1.3."))
    );
    let hooks = json!([
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ]);
    assert_eq!(features["hooks"], hooks);
    let has = |pointer: &str, item: &str| {
        let list = features.pointer(pointer).and_then(Value::as_array);
        assert!(
            list.is_some_and(|list| list.contains(&json!(item))),
            "{pointer} has no {item}"
        );
    };
    for option in ["rro", "rbind", "tmpcopyup", "rnosymfollow", "unbindable"] {
        has("/mountOptions", option);
    }
    for kind in [
        "user", "pid", "network", "mount", "ipc", "uts", "cgroup", "time",
    ] {
        has("/linux/namespaces", kind);
    }
    has("/linux/capabilities", "CAP_SYS_ADMIN");
    has("/linux/seccomp/actions", "SCMP_ACT_ERRNO");
    assert_eq!(
        features.pointer("/linux/mountExtensions/idmap/enabled"),
        Some(&json!(true))
    );
    assert_eq!(features.pointer("/linux/cgroup/v2"), Some(&json!(true)));
}

#[test]
fn version_has_the_lines_that_docker_parses() {
    let runtime = Runtime::new();
    for flag in ["--version", "-v"] {
        let run = runtime.call(&[flag]).without_root().run().succeeds();
        assert_eq!(run.stderr, "");
        let has = |start: &str| run.stdout.lines().any(|line| line.starts_with(start));
        assert!(
            run.stdout
                .lines()
                .next()
                .is_some_and(|line| line.contains(" version ")),
            "{run:?}"
        );
        assert!(has("spec: 1."), "{run:?}");
        assert!(has("commit:"), "{run:?}");
    }
}

#[test]
fn an_unknown_command_exits_with_3() {
    let runtime = Runtime::new();
    let run = runtime.call(&["nosuchcommand"]).run().exits(3);
    assert!(
        run.stderr.contains("No help topic for 'nosuchcommand'"),
        "{run:?}"
    );
}

#[test]
fn state_is_valid_at_every_moment_of_create() {
    let runtime = Runtime::new();
    if runtime.differs("it saves the state after the hooks, so a killed create cannot be deleted") {
        return;
    }
    let mut bundle = runtime.bundle();
    let go = runtime.dir().join("go");
    let waiting = format!("while ! [ -e {} ]; do sleep 0.01; done", go.display());
    bundle.sleeper().push(
        "/hooks/createRuntime",
        json!({ "path": "/bin/sh", "args": ["sh", "-c", waiting] }),
    );
    let path = bundle.save().to_str().expect("UTF-8");
    let running = runtime
        .call(&["create", "--bundle", path, bundle.id()])
        .spawn();
    let state = || runtime.call(&["state", bundle.id()]).run();
    wait_for("the container to be known", || state().code == 0);
    let status = state().succeeds().json()["status"].clone();
    assert!(
        status == "creating" || status == "created" || status == "stopped",
        "{status}"
    );
    fs::write(&go, "").expect("the scratch directory is writable");
    let _ = running.wait().succeeds();
    assert_eq!(state().json()["status"], "created");
    let pid = state().json()["pid"].as_i64().expect("a number");
    let _ = runtime
        .call(&["delete", "--force", bundle.id()])
        .run()
        .succeeds();
    reap(i32::try_from(pid).expect("a pid"));
}

#[test]
fn state_of_one_root_is_unknown_under_another() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.create(&bundle);
    let other = runtime.dir().join("other");
    let run = runtime.call(&["state", container.id()]).without_root();
    let run = run.global(&[Path::new("--root"), &other]).run();
    let _ = run.fails_with("does not exist");
}

#[test]
fn a_relative_root_is_that_of_the_current_directory() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = Container::create_with(&runtime, &bundle, |call| {
        call.without_root()
            .global(&["--root", "root"])
            .cwd(runtime.dir())
    });
    assert_eq!(container.status(), "created");
}

/// A command that executes the rest of its command line where `mount` has been done, for itself alone.
fn after(mount: &str) -> [String; 6] {
    let script = format!("{mount} && exec \"$@\"");
    ["unshare", "--mount", "sh", "-c", &script, "sh"].map(String::from)
}

fn sleeper(runtime: &Runtime, own_pids: bool) -> Bundle {
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    if !own_pids {
        bundle.share("pid");
    }
    bundle
}

#[test]
fn a_cgroup_that_was_reached_through_another_mount_is_removed() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 looks for it nowhere else") {
        return;
    }
    for own_pids in [true, false] {
        let bundle = sleeper(&runtime, own_pids);
        let elsewhere = after("mount -t cgroup2 none /sys/fs/cgroup");
        let container = Container::create_with(&runtime, &bundle, |call| call.through(&elsewhere));
        container.start();
        assert_eq!(container.status(), "running");
        let processes = container.call(&["ps", "--format=json"]).run().succeeds();
        assert_eq!(processes.json(), json!([container.pid()]));
        let run = container.call(&["delete", "--force"]).run().succeeds();
        assert_eq!(run.stderr, "");
        assert_eq!(container.wait(), 128 + 9);
        runtime.assert_clean("delete");
    }
}

#[test]
fn a_container_whose_cgroups_are_no_longer_mounted_is_deleted_with_a_warning() {
    let runtime = Runtime::new();
    if runtime.differs("it does not say which cgroups it leaves") {
        return;
    }
    for own_pids in [true, false] {
        let bundle = sleeper(&runtime, own_pids);
        let container = runtime.start(&bundle);
        let without = after("mount -t tmpfs none /sys/fs/cgroup");
        let blind = |verb: &[&str]| container.call(verb).through(&without).run();
        assert_eq!(blind(&["state"]).succeeds().json()["status"], "running");
        let list = runtime.call(&["list"]).through(&without).run().succeeds();
        assert_eq!(list.stderr, "");
        assert!(list.stdout.contains(container.id()), "{}", list.stdout);
        let kill = runtime.call(&["kill", "--all", container.id(), "CONT"]);
        let _ = kill.through(&without).run().succeeds();
        let run = blind(&["delete", "--force"]).succeeds();
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        assert_eq!(container.wait(), 128 + 9);
        let gone = container.call(&["state"]).run();
        let _ = gone.fails_with("does not exist");
        let (_, left) = run
            .stderr
            .split_once("no longer mounted: ")
            .expect("a reason");
        for cgroup in left.trim_end().trim_matches('"').split(", ") {
            fs::remove_dir(cgroup).expect("it is left, and empty");
        }
        runtime.assert_clean("delete");
    }
}

#[test]
fn without_procfs_it_is_asked_for() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 names /proc/self/mountinfo") {
        return;
    }
    let bundle = runtime.bundle();
    let path = bundle.path().to_str().expect("a path of ours");
    let run = runtime
        .call(&["run", "--bundle", path, bundle.id()])
        .through(&after("umount --lazy /proc"))
        .run();
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("/proc (mount it first"), "{run:?}");
    runtime.assert_clean("run");
}
