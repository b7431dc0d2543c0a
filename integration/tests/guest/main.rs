//! What only the test guest has to play with: systemd, delegation, swap, huge pages, disks.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use integration::{Bundle, Call, Container, Runtime, by_version};
use serde_json::Value;

mod apparmor;
mod disks;
mod limits;
mod memory;
mod rdma;
mod selinux;
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

/// Each write(2) of the process to be is in turn said to be made and is not: whatever it was to be,
/// `--verify` lets no program run with the label `unlabelled` that it has without one. The control is the
/// same without the flag.
fn find_the_lie(runtime: &Runtime, bundle: &mut Bundle, name: &str, unlabelled: &str) {
    let injector = runtime.binary().with_file_name("fault-injector");
    let injector = injector.to_str().expect("UTF-8");
    // Long enough for the look, which comes after execve.
    bundle.sh("sleep 3; cat /proc/self/attr/current");
    let list = runtime.dir().join("list");
    let words = [injector, "list", list.to_str().expect("UTF-8")];
    let _ = runtime.call_run(bundle).through(&words).run().succeeds();
    let text = fs::read_to_string(&list).expect("the injector has written it");
    let (mut found, mut unprotected) = (0, 0);
    for line in text.lines() {
        let [process, "write", call] = line.split(' ').collect::<Vec<_>>()[..] else {
            continue;
        };
        if process == "0" {
            continue;
        }
        let at = format!("{process}.write.{call}=LIE");
        let through = |call: Call<'_>| call.through(&[injector, &*at]).run();
        let run = through(runtime.call_run(bundle).global(&["--verify"]));
        assert!(!run.stdout.starts_with(unlabelled), "{at}: {run:?}");
        let named = format!("its {name} is {unlabelled}, not ");
        found += i32::from(run.stderr.contains(&named));
        let control = through(runtime.call_run(bundle));
        unprotected += i32::from(control.stdout.starts_with(unlabelled));
    }
    assert_eq!((found, unprotected), (1, 1));
}
