//! `--verify`: a kernel that says yes and does nothing is found out.
//!
//! `fake-enosys NAME=0` answers a system call with success without making it. The control is the same
//! container without the flag: it runs, with rights that config.json denies it.

use integration::{Bundle, Kind, Runtime};
use serde_json::json;

/// A container that is confined in every way that is looked at.
fn confined(runtime: &Runtime) -> Bundle {
    let mut bundle = runtime.bundle();
    bundle.capabilities(&["CAP_KILL"]);
    bundle.set("/process/noNewPrivileges", true);
    bundle.set("/root/readonly", true);
    bundle.set("/linux/maskedPaths", json!(["/proc/keys", "/sys/firmware"]));
    bundle.set("/linux/readonlyPaths", json!(["/proc/sys", "/proc/absent"]));
    bundle
}

fn filter(bundle: &mut Bundle) {
    let rule = json!({ "names": ["reboot"], "action": "SCMP_ACT_ERRNO" });
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
    bundle.set("/linux/seccomp", filter);
}

#[test]
fn what_the_kernel_only_pretends_is_named_before_the_program_runs() {
    for (lie, found) in [
        ("prctl=0", "no_new_privs is not set"),
        ("capset=0", "effective set"),
        ("setresuid=0", "its user id is 0, not 1000"),
        ("setresgid=0", "its group id is 0, not 1000"),
        ("mount_setattr=0", "its root file system is writable"),
        ("seccomp=0", "its seccomp filter is not loaded"),
    ] {
        let runtime = Runtime::without(lie);
        if runtime.kind() != Kind::Keel {
            return;
        }
        let mut bundle = confined(&runtime);
        match lie {
            "setresuid=0" | "setresgid=0" => {
                bundle.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
            }
            "seccomp=0" => filter(&mut bundle),
            _ => {}
        }
        bundle.sh("sleep 0.3; echo ran");
        let run = runtime.call_run(&bundle).global(&["--verify"]).log_json();
        let run = run.run().exits(1);
        assert!(run.stderr.contains(found), "{lie}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{lie}");
        assert_eq!(run.log[0]["code"], "not-as-asked", "{lie}");
        runtime.assert_clean(lie);

        let control = runtime.run(&bundle);
        assert_eq!(
            (control.code, &*control.stdout),
            (0, "ran\n"),
            "{lie}: {control:?}"
        );
    }
}

#[test]
fn an_honest_kernel_passes_in_all_verbs() {
    let runtime = Runtime::new();
    if runtime.kind() != Kind::Keel {
        return;
    }
    let mut bundle = confined(&runtime);
    filter(&mut bundle);
    bundle.sh("echo ran");
    let run = runtime.call_run(&bundle).global(&["--verify"]).run();
    assert_eq!(run.succeeds().stdout, "ran\n");
    bundle.sleeper();
    let path = bundle.save().to_str().expect("UTF-8").to_owned();
    for line in [
        &["create", "--bundle", &path, bundle.id()][..],
        &["start", bundle.id()],
        &["exec", bundle.id(), "/bin/true"],
    ] {
        let call = runtime.call(line).global(&["--verify"]);
        let null = std::fs::File::open("/dev/null").expect("/dev/null is there");
        let _ = call.stdin(null).run().succeeds();
    }
    let _ = runtime
        .call(&["delete", "--force", bundle.id()])
        .run()
        .succeeds();
}

#[test]
fn start_and_exec_stop_what_has_no_filter() {
    let liar = Runtime::without("seccomp=0");
    if liar.kind() != Kind::Keel {
        return;
    }
    let mut bundle = confined(&liar);
    filter(&mut bundle);
    bundle.sleeper();
    let path = bundle.save().to_str().expect("UTF-8").to_owned();
    let null = || std::fs::File::open("/dev/null").expect("/dev/null is there");
    let call = |line: &[&str]| liar.call(line).global(&["--verify"]).stdin(null()).run();
    let _ = call(&["create", "--bundle", &path, bundle.id()]).succeeds();
    let run = call(&["start", bundle.id()]).exits(1);
    assert!(
        run.stderr.contains("filter is not loaded"),
        "{}",
        run.stderr
    );
    integration::wait_for("the container to be stopped", || {
        let state = liar.call(&["state", bundle.id()]).run();
        state.stdout.contains("\"stopped\"")
    });
    let _ = liar.call(&["delete", bundle.id()]).run().succeeds();
}

/// A line of `/proc/PID/status`.
fn status(pid: i32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn keel_confines_itself_while_it_waits_but_not_its_container_and_hooks() {
    let runtime = Runtime::new();
    if runtime.kind() != Kind::Keel {
        return;
    }
    for hook in [false, true] {
        let mut bundle = runtime.bundle();
        bundle.set("/process/noNewPrivileges", false);
        bundle.sh("grep -E 'NoNewPrivs|Seccomp:' /proc/self/status; echo read; read _");
        if hook {
            bundle.set("/hooks/poststop", json!([{ "path": "/bin/true" }]));
        }
        let (input, end) = std::io::pipe().expect("descriptors are plenty");
        let keel = runtime.call_run(&bundle).stdin(input).spawn();
        keel.wait_for_stdout("read");
        assert!(keel.stdout().contains("NoNewPrivs:\t0\nSeccomp:\t0\n"));
        integration::wait_for("keel to wait", || {
            hook || status(keel.pid(), "Seccomp:") == "2"
        });
        assert_eq!(status(keel.pid(), "NoNewPrivs:") == "1", !hook);
        let line = [
            "exec",
            bundle.id(),
            "/bin/sh",
            "-c",
            "grep Seccomp: /proc/self/status; read _",
        ];
        let (input, other_end) = std::io::pipe().expect("descriptors are plenty");
        let exec = runtime.call(&line).stdin(input).spawn();
        exec.wait_for_stdout("Seccomp:\t0\n");
        integration::wait_for("exec to wait", || status(exec.pid(), "Seccomp:") == "2");
        drop(other_end);
        let _ = exec.wait().exits(1);
        drop(end);
        let _ = keel.wait().exits(1);
    }
}
