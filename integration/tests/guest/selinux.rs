//! The SELinux labels of a container's processes, its session keyring and its mounts.
//!
//! `integration/guest/test --selinux --only 'integration guest selinux'`: a kernel has either SELinux or
//! AppArmor. Nothing is enforced; what is shown is that each object gets the label that it should.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Once;

use integration::{Bundle, Runtime};
use serde_json::json;

use super::{find_the_lie, host, outside_the_guest};

/// As a container engine writes it: the kernel gives the categories back in their order.
const BOX: &str = "system_u:system_r:box_t:s0:c2,c1";
const BOX_SORTED: &str = "system_u:system_r:box_t:s0:c1,c2";
const OTHER: &str = "system_u:system_r:other_t:s0:c3";
/// What everything has that was there before the policy.
const BASE: &str = "system_u:system_r:base_t:s0";

/// True, and not counted as skipped, where the kernel was not started with SELinux.
fn without_selinux(runtime: &Runtime) -> bool {
    if outside_the_guest(runtime) || !Path::new("/sys/fs/selinux").exists() {
        return true;
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let text = runtime.dir().join("policy.conf");
        let policy = runtime.dir().join("policy");
        fs::write(&text, include_str!("selinux.conf")).expect("the scratch directory is writable");
        let compiled = Command::new("checkpolicy")
            .args(["-M", "-c", "33", "-U", "allow", "-o"])
            .args([&policy, &text])
            .status();
        assert!(compiled.expect("checkpolicy is installed").success());
        let policy = fs::read(policy).expect("checkpolicy has written it");
        if !Path::new("/sys/fs/selinux/load").exists() {
            mount_selinuxfs();
        }
        fs::write("/sys/fs/selinux/load", policy).expect("the kernel takes the policy");
    });
    if !Path::new("/sys/fs/selinux/load").exists() {
        mount_selinuxfs();
    }
    false
}

/// Each test has a mount namespace of its own.
fn mount_selinuxfs() {
    host(&["mount", "-t", "selinuxfs", "none", "/sys/fs/selinux"]);
}

fn boxed(runtime: &Runtime) -> Bundle {
    let mut bundle = runtime.bundle();
    bundle.set("/process/selinuxLabel", BOX);
    bundle
}

#[test]
fn a_label_is_that_of_the_container_and_of_what_exec_adds() {
    let runtime = Runtime::new();
    if without_selinux(&runtime) {
        return;
    }
    let mut bundle = boxed(&runtime);
    bundle.sh("tr -d '\\000' </proc/self/attr/current");
    let run = runtime.call_run(&bundle).global(&["--verify"]).run();
    assert_eq!(run.succeeds().stdout, BOX_SORTED);

    bundle.sleeper();
    let container = runtime.start(&bundle);
    let exec = |flags: &[&str]| {
        let script = "tr -d '\\000' </proc/self/attr/current";
        let words = [&["exec"], flags, &[container.id(), "sh", "-c", script]].concat();
        let run = runtime.call(&words).global(&["--verify"]).run();
        run.succeeds().stdout
    };
    assert_eq!(exec(&[]), BOX_SORTED);
    assert_eq!(exec(&["--process-label", OTHER]), OTHER);
}

#[test]
fn the_session_keyring_has_the_label_of_the_program() {
    let runtime = Runtime::new();
    if without_selinux(&runtime) {
        return;
    }
    let mut bundle = boxed(&runtime);
    bundle.probe().args(&["/bin/probe", "keyring-label"]);
    assert_eq!(runtime.run(&bundle).succeeds().stdout.trim(), BOX_SORTED);
    // The control: without a label it has that of the runtime.
    bundle.unset("/process/selinuxLabel");
    assert_eq!(runtime.run(&bundle).succeeds().stdout.trim(), BASE);

    bundle.set("/process/selinuxLabel", BOX).sleeper();
    let container = runtime.create(&bundle);
    container.start();
    let exec = ["exec", container.id(), "/bin/probe", "keyring-label"];
    let run = runtime.call(&exec).run();
    assert_eq!(run.succeeds().stdout.trim(), BOX_SORTED);
}

#[test]
fn new_file_systems_have_the_label_of_mounts() {
    let runtime = Runtime::new();
    if without_selinux(&runtime) {
        return;
    }
    let mut bundle = boxed(&runtime);
    bundle
        .mount("tmpfs", "tmpfs", "/srv", "")
        .set("/linux/mountLabel", OTHER)
        .set("/linux/maskedPaths", json!(["/sys/firmware"]))
        .sleeper();
    let container = runtime.start(&bundle);
    for path in ["srv", "dev", "dev/pts", "dev/mqueue", "sys/firmware"] {
        let path = format!("/proc/{}/root/{path}", container.pid());
        assert_eq!(host(&["stat", "-c", "%C", &path]).trim(), OTHER, "{path}");
    }
}

#[test]
fn a_label_that_the_kernel_only_pretends_to_set_is_found_out() {
    let runtime = Runtime::new();
    if without_selinux(&runtime) {
        return;
    }
    let mut bundle = boxed(&runtime);
    find_the_lie(&runtime, &mut bundle, "SELinux label", BASE);
}
