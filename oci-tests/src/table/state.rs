//! runtime.md: scope, state, errors, warnings.

use serde_json::{Value, json};

use crate::lab::Lab;
use crate::requirement::Level::Must;
use crate::requirement::{Requirement, Verdict, Why, ensure};

const STATE: &str = "runtime.md#state";
const QUERY: &str = "runtime.md#query-state";

#[rustfmt::skip]
pub const TABLE: &[Requirement] = &[
    Requirement::must("runtime.scope-1", "runtime.md#scope-of-a-container",
        "who creates a container can use all operations on it", all_operations),
    Requirement::must("runtime.state.ociVersion-1", STATE, "ociVersion is a version", version),
    Requirement::must("runtime.state.id-1", STATE, "id is the container's", id),
    Requirement::must("runtime.state.id-2", STATE,
        "an id is of one container only", id_is_unique),
    Requirement::must("runtime.state.status-1", STATE,
        "status is created, running and stopped in turn", statuses),
    Requirement::must("runtime.state.status-2", STATE,
        "other statuses are of states that the specification does not name", other_status),
    Requirement::must("runtime.state.pid-1", STATE,
        "pid is that of the process while it is created or running", pid),
    Requirement::must("runtime.state.bundle-1", STATE,
        "bundle is the absolute path of the bundle", bundle),
    Requirement::must("runtime.state.annotations-1", STATE,
        "annotations are those of the configuration", annotations),
    Requirement::must("runtime.state.json-1", STATE,
        "the JSON fits the schema: types of the members", schema),
    Requirement::must("runtime.query-1", QUERY, "state without an id is an error", no_id),
    Requirement::must("runtime.query-2", QUERY,
        "state of a container that does not exist is an error", unknown_id),
    Requirement::must("runtime.query-3", QUERY, "state gives the state", schema),
    Requirement::must("runtime.errors-1", "runtime.md#errors",
        "an error leaves everything as it was", errors_leave_nothing),
    Requirement::must("runtime.warnings-1", "runtime.md#warnings",
        "a warning does not change the operation", warnings_change_nothing),
    Requirement::untestable("runtime.operations-1", Must, "runtime.md#operations",
        "all operations are supported", "the tests of each operation say so"),
];

/// The states of one container: created, running, stopped.
fn states(lab: &Lab) -> Result<([Value; 3], String, String), Why> {
    let mut made = lab.bundle()?;
    made.config.sleep().set(
        "/annotations",
        json!({"com.example.a": "b", "com.example.c": ""}),
    );
    let container = lab.create(&made)?;
    let created = container.state()?;
    container.start()?;
    let running = container.state()?;
    container.stop()?;
    let stopped = container.state()?;
    let dir = made.dir.to_string_lossy().into_owned();
    Ok(([created, running, stopped], container.id.clone(), dir))
}

fn all_operations(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep();
    let container = lab.create(&bundle)?;
    container.state()?;
    container.start()?;
    container.stop()?;
    container.delete()
}

fn version(lab: &Lab) -> Verdict {
    let (states, ..) = states(lab)?;
    for state in states {
        let version = state["ociVersion"].as_str().unwrap_or_default();
        let numbers: Vec<&str> = version.splitn(3, '.').collect();
        let whole = numbers.len() == 3 && numbers[..2].iter().all(|n| n.parse::<u32>().is_ok());
        ensure!(whole, "ociVersion is {version:?}");
    }
    Ok(())
}

fn id(lab: &Lab) -> Verdict {
    let (states, id, _) = states(lab)?;
    ensure!(
        states.iter().all(|s| s["id"] == id),
        "the id is {}",
        states[0]["id"]
    );
    Ok(())
}

fn id_is_unique(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep();
    let container = lab.create(&bundle)?;
    let dir = bundle.dir.to_string_lossy();
    let again = lab.call(&["create", "--bundle", &dir, &container.id])?;
    ensure!(!again.ok(), "a second container gets the same id");
    ensure!(
        container.status()? == "created",
        "the first one is {}",
        container.status()?
    );
    Ok(())
}

fn statuses(lab: &Lab) -> Verdict {
    let (states, ..) = states(lab)?;
    let found: Vec<&str> = states.iter().filter_map(|s| s["status"].as_str()).collect();
    ensure!(
        found == ["created", "running", "stopped"],
        "the statuses are {found:?}"
    );
    Ok(())
}

/// A paused container is in none of the four named states.
fn other_status(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep();
    let container = lab.started(&bundle)?;
    let pause = container.call(&["pause", &container.id])?;
    if !pause.ok() {
        return Err(Why::Skip(format!("pause: {}", pause.cause())));
    }
    let status = container.status()?;
    let resume = container.call(&["resume", &container.id])?;
    ensure!(resume.ok(), "resume: {}", resume.cause());
    let taken = ["creating", "created", "running", "stopped"].contains(&status.as_str());
    ensure!(!taken, "a paused container is {status}");
    ensure!(
        container.status()? == "running",
        "a resumed one is {}",
        container.status()?
    );
    container.stop()
}

fn pid(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.sleep();
    let container = lab.create(&bundle)?;
    let created = container.pid()?;
    ensure!(created > 1, "pid is {created} when created");
    container.start()?;
    let running = container.pid()?;
    ensure!(
        running == created,
        "pid changes from {created} to {running}"
    );
    let line = std::fs::read(format!("/proc/{running}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    ensure!(line.contains("sleep"), "pid {running} is {line:?}");
    container.stop()
}

fn bundle(lab: &Lab) -> Verdict {
    let (states, _, dir) = states(lab)?;
    ensure!(
        states.iter().all(|s| s["bundle"] == dir),
        "bundle is {}",
        states[0]["bundle"]
    );
    Ok(())
}

fn annotations(lab: &Lab) -> Verdict {
    let (states, ..) = states(lab)?;
    for state in states {
        let found = &state["annotations"];
        let same = found["com.example.a"] == "b" && found["com.example.c"] == "";
        ensure!(same, "annotations are {found}");
    }
    Ok(())
}

fn schema(lab: &Lab) -> Verdict {
    let (states, ..) = states(lab)?;
    for state in states {
        for key in ["ociVersion", "id", "status", "bundle"] {
            ensure!(state[key].is_string(), "{key} is {}", state[key]);
        }
        let pid = &state["pid"];
        ensure!(
            pid.is_null() || pid.as_i64().is_some_and(|p| p >= 0),
            "pid is {pid}"
        );
        let notes = &state["annotations"];
        let strings = notes
            .as_object()
            .is_none_or(|map| map.values().all(Value::is_string));
        ensure!(
            notes.is_null() || notes.is_object() && strings,
            "annotations are {notes}"
        );
    }
    Ok(())
}

fn no_id(lab: &Lab) -> Verdict {
    ensure!(!lab.call(&["state"])?.ok(), "state without an id succeeds");
    Ok(())
}

fn unknown_id(lab: &Lab) -> Verdict {
    let call = lab.call(&["state", &lab.fresh()])?;
    ensure!(!call.ok(), "state of nothing succeeds");
    ensure!(!call.stderr.is_empty(), "nothing is said");
    Ok(())
}

/// The id can be used again, no process is left, and no mount.
fn errors_leave_nothing(lab: &Lab) -> Verdict {
    let mounts = || {
        std::fs::read_to_string("/proc/self/mounts")
            .unwrap_or_default()
            .lines()
            .count()
    };
    let before = mounts();
    let mut made = lab.bundle()?;
    made.config.sleep().push(
        "/mounts",
        json!({"destination": "/mnt", "type": "nosuchfs"}),
    );
    let (failed, create) = lab.try_create(&made)?;
    ensure!(!create.ok(), "create accepts an unknown file system");
    ensure!(mounts() == before, "mounts are left on the host");
    let list = lab.call(&["list", "--quiet"])?;
    ensure!(!list.stdout.contains(&failed.id), "list still has it");
    if let Some(mounts) = made.config.0["mounts"].as_array_mut() {
        mounts.pop();
    }
    made.write()?;
    let dir = made.dir.to_string_lossy();
    let again = lab.call(&["create", "--bundle", &dir, &failed.id])?;
    ensure!(again.ok(), "its id cannot be used again: {}", again.cause());
    Ok(())
}

fn warnings_change_nothing(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.push("/process/capabilities/bounding", json!("CAP_NONSENSE"));
        c.set("/process/env", json!(["PATH=/bin", "STILL=here"]));
    })?;
    ensure!(
        view.env.iter().any(|e| e == "STILL=here"),
        "env is {:?}",
        view.env
    );
    Ok(())
}
