//! The AppArmor profile of a container's processes: which one they have in the end, and what that does.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Once;

use integration::{Bundle, Runtime};

use super::{find_the_lie, outside_the_guest};

/// A box denies a file, so that one sees whether it is on; the runtime's profile denies another one.
const PROFILES: &str = "
profile kt-runtime flags=(attach_disconnected) {
    file, capability, mount, umount, pivot_root, network, signal, ptrace, unix, dbus,
    change_profile,
    deny /of-runtime r,
}
profile kt-box flags=(attach_disconnected) {
    file, capability, mount, umount, network, signal, ptrace, unix,
    deny /of-box r,
}
profile kt-other flags=(attach_disconnected) {
    file, capability, mount, umount, network, signal, ptrace, unix,
}
";

/// What the program is confined by, and which files it may read.
const LOOK: &str = "cat /proc/self/attr/current; cat /of-box /of-runtime 2>/dev/null; true";

fn load_profiles() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mut parser = Command::new("apparmor_parser")
            .arg("--replace")
            .stdin(Stdio::piped())
            .spawn()
            .expect("apparmor is installed");
        let mut stdin = parser.stdin.take().expect("it is a pipe");
        stdin
            .write_all(PROFILES.as_bytes())
            .expect("the parser reads");
        drop(stdin);
        assert!(parser.wait().expect("it ends").success());
    });
}

fn boxed(runtime: &Runtime, profile: &str, no_new_privs: bool) -> Bundle {
    load_profiles();
    let mut bundle = runtime.bundle();
    bundle
        .file("/of-box", "of-box\n", 0o644)
        .file("/of-runtime", "of-runtime\n", 0o644)
        .set("/process/apparmorProfile", profile)
        .set("/process/noNewPrivileges", no_new_privs)
        .sh(LOOK);
    bundle
}

#[test]
fn a_profile_confines_the_container_and_what_exec_adds() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    for no_new_privs in [false, true] {
        let mut bundle = boxed(&runtime, "kt-box", no_new_privs);
        let run = runtime.call_run(&bundle).global(&["--verify"]).run();
        assert_eq!(run.succeeds().stdout, "kt-box (enforce)\nof-runtime\n");

        // As podman calls it for a container with a user namespace.
        let hide = "umount -l /sys/kernel/security && exec \"$@\"";
        let hidden = ["unshare", "--mount", "sh", "-c", hide, "hidden"];
        let run = runtime.call_run(&bundle).through(&hidden).run();
        assert_eq!(run.succeeds().stdout, "kt-box (enforce)\nof-runtime\n");

        bundle.sleeper();
        let container = runtime.start(&bundle);
        let exec = |flags: &[&str]| {
            let words = [&["exec"], flags, &[container.id(), "/bin/sh", "-c", LOOK]].concat();
            let run = runtime.call(&words).global(&["--verify"]).run();
            run.succeeds().stdout
        };
        assert_eq!(exec(&[]), "kt-box (enforce)\nof-runtime\n");
        assert_eq!(
            exec(&["--apparmor", "kt-other"]),
            "kt-other (enforce)\nof-box\nof-runtime\n"
        );
    }
}

#[test]
fn a_profile_is_stacked_where_the_runtime_has_one() {
    let mut runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    load_profiles();
    let confine = "echo exec kt-runtime >/proc/self/attr/exec && exec \"$@\"";
    runtime.start_by(&["sh", "-c", confine, "sh"]);
    let run = |profile: &str, no_new_privs: bool| {
        let bundle = boxed(&runtime, profile, no_new_privs);
        runtime.call_run(&bundle).global(&["--verify"]).run()
    };
    for no_new_privs in [false, true] {
        for profile in ["&kt-box", "kt-runtime//&kt-box"] {
            let stdout = run(profile, no_new_privs).succeeds().stdout;
            assert_eq!(stdout, "kt-box//&kt-runtime (enforce)\n", "{profile}");
        }
    }
    // A profile in the place of the runtime's gives rights, which no_new_privs forbids.
    let stdout = run("kt-box", false).succeeds().stdout;
    assert_eq!(stdout, "kt-box (enforce)\nof-runtime\n");
    let refused = run("kt-box", true);
    assert_eq!((refused.code, &*refused.stdout), (255, ""), "{refused:?}");
}

/// CVE-2019-16884, in the catalogue C1: the volume has the file in which a process asks for its label.
/// The control is the runtime that writes to what lies there.
#[test]
fn a_profile_is_not_written_to_a_decoy() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    let decoy = runtime.dir().join("decoy");
    fs::create_dir_all(decoy.join("self/attr")).expect("the scratch directory is writable");
    fs::write(decoy.join("self/attr/exec"), "").expect("the scratch directory is writable");
    let mut bundle = boxed(&runtime, "kt-box", false);
    bundle.unset("/mounts").bind(&decoy, "/proc", "rbind");
    bundle.sh("cat /of-box; true");
    let kept = runtime.run(&bundle);
    assert!(!kept.stdout.contains("of-box"), "{kept:?}");

    let naive = runtime.dir().join("naive-runtime");
    fs::write(&naive, include_str!("../attacks/naive-runtime")).expect("it is writable");
    fs::set_permissions(&naive, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let control = Runtime::victim(&naive).run(&bundle);
    assert!(control.stdout.contains("of-box"), "{control:?}");

    // A container that covers its procfs later does not keep exec from it either.
    let mut bundle = boxed(&runtime, "kt-box", false);
    bundle.bind(&decoy, "/decoy", "rbind");
    bundle.capabilities(&["CAP_SYS_ADMIN"]);
    bundle.sh("mount -o bind /decoy /proc && echo covered && sleep 1000000");
    let container = runtime.start(&bundle);
    container.wait_for_stdout("covered");
    let exec = ["exec", container.id(), "/bin/sh", "-c", "cat /of-box; true"];
    let run = runtime.call(&exec).global(&["--verify"]).run();
    assert!(!run.stdout.contains("of-box"), "{run:?}");
}

#[test]
fn a_profile_that_the_kernel_only_pretends_to_set_is_found_out() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    let mut bundle = boxed(&runtime, "kt-box", true);
    find_the_lie(&runtime, &mut bundle, "AppArmor profile", "unconfined");
}
