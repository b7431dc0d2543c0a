//! What only the test guest has to play with: systemd, delegation, swap, huge pages, disks.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use integration::{Bundle, Container, Runtime, by_version};
use serde_json::Value;

mod disks;
mod limits;
mod memory;
mod rdma;
mod systemd;
mod users;

/// True, said and counted, outside the guest: these tests change users and units of the machine.
fn outside_the_guest(runtime: &Runtime) -> bool {
    let is_there =
        std::env::var_os("KEEL_MUST_RUN").is_some() && Path::new("/run/systemd/private").exists();
    runtime.host_lacks(
        "systemd and cgroup v2 to play with (the test guest)",
        !is_there,
    )
}

/// The scheduler that knows weights of disks, or not: which of two files has a weight depends on it.
fn weights() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a command of the host; its output.
fn host(words: &[&str]) -> String {
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .expect("it is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {error}");
    text
}

/// A bundle for a scope `kt-ID.scope` in `system.slice`.
fn scoped(runtime: &Runtime, resources: Value) -> Bundle {
    let mut bundle = runtime.bundle();
    let path = format!("system.slice:kt:{}", bundle.id());
    bundle
        .set("/linux/cgroupsPath", path)
        .set("/linux/resources", resources)
        .sleeper();
    bundle
}

fn start<'r>(runtime: &'r Runtime, bundle: &Bundle) -> Container<'r> {
    let container =
        Container::create_with(runtime, bundle, |call| call.global(&["--systemd-cgroup"]));
    container.start();
    container
}

fn scope(container: &Container<'_>) -> String {
    format!("kt-{}.scope", container.id())
}

fn read(container: &Container<'_>, file: &str) -> String {
    let controller = file.split('.').next().expect("CONTROLLER.FILE");
    let path = Path::new("/sys/fs/cgroup")
        .join(by_version(controller, ""))
        .join("system.slice")
        .join(scope(container))
        .join(file);
    let text = fs::read_to_string(&path);
    text.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .trim()
        .to_owned()
}

fn shown(container: &Container<'_>, property: &str) -> String {
    host(&["systemctl", "show", "-P", property, &scope(container)])
        .trim()
        .to_owned()
}
