//! runtime.md: lifecycle and operations.

use std::fs;

use serde_json::json;

use crate::lab::Lab;
use crate::requirement::Level::Must;
use crate::requirement::{Requirement, Verdict, ensure};

const LIFE: &str = "runtime.md#lifecycle";
const CREATE: &str = "runtime.md#create";
const START: &str = "runtime.md#start";
const KILL: &str = "runtime.md#kill";
const DELETE: &str = "runtime.md#delete";

#[rustfmt::skip]
pub const TABLE: &[Requirement] = &[
    Requirement::must("runtime.lifecycle-1", LIFE,
        "the environment is made according to config.json", environment_at_create),
    Requirement::must("runtime.lifecycle-2", LIFE,
        "an environment that cannot be made is an error", impossible_environment),
    Requirement::must("runtime.lifecycle-3", LIFE, "resources are made by create", environment_at_create),
    Requirement::must("runtime.lifecycle-4", LIFE,
        "the program does not run before start", not_before_start),
    Requirement::must("runtime.lifecycle-5", LIFE,
        "changes to config.json after create have no effect", config_is_read_once),
    Requirement::must("runtime.lifecycle-6", LIFE, "start runs the program", start_runs),
    Requirement::must("runtime.lifecycle-7", LIFE,
        "delete undoes what create has made", delete_undoes),
    Requirement::must("runtime.create-1", CREATE,
        "create without an id or without a bundle is an error", create_without),
    Requirement::must("runtime.create-2", CREATE,
        "an id in use is an error and makes no container", id_in_use),
    Requirement::must("runtime.create-3", CREATE,
        "an invalid id is an error and makes no container", invalid_id),
    Requirement::must("runtime.create-4", CREATE, "create makes a container", start_runs),
    Requirement::must("runtime.create-5", CREATE,
        "all properties but process are applied by create", environment_at_create),
    Requirement::must("runtime.create-6", CREATE,
        "args are not applied before start", not_before_start),
    Requirement::must("runtime.create-7", CREATE,
        "a property that cannot be applied is an error and makes no container", impossible_environment),
    Requirement::must("runtime.create-8", CREATE,
        "an id is free again after delete", id_after_delete),
    Requirement::must("runtime.start-1", START, "start without an id is an error", start_without),
    Requirement::must("runtime.start-2", START,
        "start of a running container is an error without effect", start_running),
    Requirement::must("runtime.start-3", START,
        "start of a stopped container is an error without effect", start_stopped),
    Requirement::must("runtime.start-4", START, "start runs the program of process", start_runs),
    Requirement::untestable("runtime.start-5", Must, START,
        "start without process in the configuration is an error", "config.process-1 is the same"),
    Requirement::must("runtime.start-6", START,
        "start of a container that does not exist is an error", start_unknown),
    Requirement::must("runtime.kill-1", KILL, "kill without an id is an error", kill_without),
    Requirement::must("runtime.kill-2", KILL,
        "kill of a stopped container is an error without effect", kill_stopped),
    Requirement::must("runtime.kill-3", KILL, "the signal reaches the process", kill_reaches),
    Requirement::must("runtime.kill-4", KILL, "a created container can be killed", kill_created),
    Requirement::must("runtime.kill-5", KILL,
        "kill of a container that does not exist is an error", kill_unknown),
    Requirement::must("runtime.delete-1", DELETE, "delete without an id is an error", delete_without),
    Requirement::must("runtime.delete-2", DELETE,
        "delete of a running container is an error without effect", delete_running),
    Requirement::must("runtime.delete-3", DELETE,
        "delete of a created container is an error without effect", delete_created),
    Requirement::must("runtime.delete-4", DELETE,
        "delete removes what create has made", delete_undoes),
    Requirement::must("runtime.delete-5", DELETE,
        "delete leaves what create has not made", delete_leaves),
    Requirement::must("runtime.delete-6", DELETE,
        "delete of a container that does not exist is an error", delete_unknown),
];

/// Namespaces, mounts and devices are there before start.
fn environment_at_create(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep().mount("/mnt", "tmpfs", "marker", &[]);
    let container = lab.create(&bundle)?;
    let pid = container.pid()?;
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    ensure!(
        read("mountinfo").contains(" marker "),
        "the mount is not there yet"
    );
    let root = fs::metadata(format!("/proc/{pid}/root/dev/null"));
    ensure!(root.is_ok(), "/dev/null is not there yet");
    let own = fs::read_link("/proc/self/ns/pid").ok();
    let theirs = fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    ensure!(own != theirs, "the pid namespace is not there yet");
    Ok(())
}

fn impossible_environment(lab: &Lab) -> Verdict {
    lab.refuses("a bind mount of nothing", |c| {
        c.mount("/mnt", "none", "/nowhere/at/all", &["bind"]);
    })
}

fn not_before_start(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.args(&["/bin/sh", "-c", "echo ran >/tmp/ran"]);
    let container = lab.create(&bundle)?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    let ran = bundle.rootfs().join("tmp/ran");
    ensure!(!ran.exists(), "the program has run");
    container.start()?;
    container.wait_stopped()?;
    ensure!(ran.exists(), "the program has not run after start");
    Ok(())
}

fn config_is_read_once(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.args(&["/bin/sh", "-c", "echo old"]);
    let container = lab.create(&bundle)?;
    bundle
        .config
        .args(&["/bin/sh", "-c", "echo new"])
        .set("/hostname", json!("new"));
    bundle.write()?;
    container.start()?;
    container.wait_stopped()?;
    let printed = container.printed()?;
    ensure!(printed.contains("old"), "it prints {printed:?}");
    Ok(())
}

fn start_runs(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.args(&["/bin/sh", "-c", "echo it runs"]);
    let printed = lab.run(&bundle)?;
    ensure!(printed.contains("it runs"), "it prints {printed:?}");
    Ok(())
}

/// Its state is gone, and its process, and its cgroup.
fn delete_undoes(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep();
    let container = lab.started(&bundle)?;
    let pid = container.pid()?;
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let cgroups: Vec<String> = text
        .lines()
        .filter_map(|line| line.rsplit_once(':'))
        .map(|(_, path)| path.to_owned())
        .filter(|path| path.contains(&container.id))
        .collect();
    container.stop()?;
    container.delete()?;
    ensure!(!container.exists()?, "its state is still there");
    for path in cgroups {
        for dir in ["", "memory", "pids", "cpu", "devices", "unified", "systemd"] {
            let full = format!("/sys/fs/cgroup/{dir}{path}");
            ensure!(fs::metadata(&full).is_err(), "{full} is left");
        }
    }
    Ok(())
}

fn create_without(lab: &Lab) -> Verdict {
    let id = lab.fresh();
    ensure!(
        !lab.call(&["create"])?.ok(),
        "create without arguments succeeds"
    );
    ensure!(
        !lab.call(&["create", "--bundle", "/nowhere", &id])?.ok(),
        "a bundle of nothing succeeds"
    );
    ensure!(!lab.call(&["state", &id])?.ok(), "there is a container");
    let bundle = lab.bundle()?;
    bundle.write()?;
    let dir = bundle.dir.to_string_lossy();
    ensure!(
        !lab.call(&["create", "--bundle", &dir])?.ok(),
        "create without an id succeeds"
    );
    Ok(())
}

fn id_in_use(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep();
    let container = lab.started(&bundle)?;
    let pid = container.pid()?;
    let dir = bundle.dir.to_string_lossy();
    let again = lab.call(&["create", "--bundle", &dir, &container.id])?;
    ensure!(!again.ok(), "the id is given twice");
    ensure!(container.pid()? == pid, "the first container has changed");
    container.stop()
}

fn invalid_id(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep();
    bundle.write()?;
    let dir = bundle.dir.to_string_lossy();
    for id in ["", ".", "..", "a/b", "../x", "a b"] {
        let call = lab.call(&["create", "--bundle", &dir, id])?;
        if call.ok() {
            lab.call(&["delete", "--force", id])?;
        }
        ensure!(!call.ok(), "{id:?} is accepted");
    }
    Ok(())
}

fn id_after_delete(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep();
    let container = lab.started(&bundle)?;
    container.stop()?;
    container.delete()?;
    let dir = bundle.dir.to_string_lossy();
    let again = lab.call(&["create", "--bundle", &dir, &container.id])?;
    ensure!(again.ok(), "the id is not free: {}", again.cause());
    Ok(())
}

fn without(lab: &Lab, verb: &str) -> Verdict {
    ensure!(!lab.call(&[verb])?.ok(), "{verb} without an id succeeds");
    Ok(())
}

fn unknown(lab: &Lab, verb: &str) -> Verdict {
    let call = lab.call(&[verb, &lab.fresh()])?;
    ensure!(!call.ok(), "{verb} of nothing succeeds");
    Ok(())
}

fn start_without(lab: &Lab) -> Verdict {
    without(lab, "start")
}

fn kill_without(lab: &Lab) -> Verdict {
    without(lab, "kill")
}

fn delete_without(lab: &Lab) -> Verdict {
    without(lab, "delete")
}

fn start_unknown(lab: &Lab) -> Verdict {
    unknown(lab, "start")
}

fn kill_unknown(lab: &Lab) -> Verdict {
    unknown(lab, "kill")
}

fn delete_unknown(lab: &Lab) -> Verdict {
    unknown(lab, "delete")
}

fn start_running(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep();
    let container = lab.started(&bundle)?;
    let pid = container.pid()?;
    let again = container.call(&["start", &container.id])?;
    ensure!(!again.ok(), "a second start succeeds");
    ensure!(
        container.pid()? == pid && container.status()? == "running",
        "it has changed"
    );
    container.stop()
}

fn start_stopped(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.args(&["/bin/sh", "-c", "echo x >>/tmp/runs"]);
    let container = lab.started(&bundle)?;
    container.wait_stopped()?;
    let again = container.call(&["start", &container.id])?;
    ensure!(!again.ok(), "start of a stopped container succeeds");
    ensure!(
        container.status()? == "stopped",
        "it is {}",
        container.status()?
    );
    let runs = fs::read_to_string(bundle.host("tmp/runs")).unwrap_or_default();
    ensure!(runs == "x\n", "the program ran again");
    Ok(())
}

fn kill_stopped(lab: &Lab) -> Verdict {
    let bundle = lab.bundle()?;
    let container = lab.started(&bundle)?;
    container.wait_stopped()?;
    let call = container.call(&["kill", &container.id, "TERM"])?;
    ensure!(!call.ok(), "kill of a stopped container succeeds");
    ensure!(
        container.status()? == "stopped",
        "it is {}",
        container.status()?
    );
    Ok(())
}

fn kill_reaches(lab: &Lab) -> Verdict {
    let script = "trap 'echo got it; exit 0' USR1; echo ready; while :; do busybox sleep 0.1; done";
    for name in ["USR1", "SIGUSR1", "10"] {
        let mut bundle = lab.bundle()?;
        bundle.config.args(&["/bin/sh", "-c", script]);
        let container = lab.started(&bundle)?;
        for _ in 0..500 {
            if container.printed()?.contains("ready") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        container.kill(name)?;
        container.wait_stopped()?;
        let printed = container.printed()?;
        ensure!(
            printed.contains("got it"),
            "{name} does not arrive: {printed:?}"
        );
    }
    Ok(())
}

fn kill_created(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep();
    let container = lab.create(&bundle)?;
    container.stop()
}

fn delete_running(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep();
    let container = lab.started(&bundle)?;
    let call = container.call(&["delete", &container.id])?;
    ensure!(!call.ok(), "delete of a running container succeeds");
    ensure!(
        container.status()? == "running",
        "it is {}",
        container.status()?
    );
    container.stop()
}

fn delete_created(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep();
    let container = lab.create(&bundle)?;
    let call = container.call(&["delete", &container.id])?;
    ensure!(!call.ok(), "delete of a created container succeeds");
    ensure!(
        container.status()? == "created",
        "it is {}",
        container.status()?
    );
    Ok(())
}

/// Files of the bundle and files that the program made.
fn delete_leaves(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.report(&["sh:echo x >/tmp/made"]);
    let container = lab.started(&bundle)?;
    container.wait_stopped()?;
    container.delete()?;
    for name in ["tmp/made", "bin/busybox"] {
        ensure!(bundle.rootfs().join(name).exists(), "{name} is gone");
    }
    ensure!(
        bundle.dir.join("config.json").exists(),
        "config.json is gone"
    );
    Ok(())
}
