//! config.md, `hooks`, and the hooks of runtime.md's lifecycle.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::inside::hook::{Record, records};
use crate::inside::links;
use crate::lab::{Bundle, Lab};
use crate::requirement::Level::Must;
use crate::requirement::{Requirement, Verdict, Why, ensure};

const HOOKS: &str = "config.md#posix-platform-hooks";
const LIFE: &str = "runtime.md#lifecycle";

/// One row for each kind of hook.
macro_rules! each {
    ($suffix:literal, $at:expr, $text:literal, $test:ident: $($kind:literal),+) => {
        [$(Requirement::with(
            concat!("config.hooks.", $kind, $suffix), Must, $at, concat!($kind, $text), $kind, $test,
        )),+]
    };
}

const PATH: [Requirement; 6] = each!("-1", HOOKS, ": path is absolute", relative_path:
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop");
const TIMEOUT: [Requirement; 6] = each!("-2", HOOKS, ": timeout is greater than zero", zero_timeout:
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop");
const ABORT: [Requirement; 2] = each!("-3", HOOKS, ": a hook is aborted after timeout seconds", slow:
    "createRuntime", "prestart");
const WHERE: [Requirement; 6] = each!("-4", HOOKS, ": the path resolves where it should", resolves:
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop");
const SPACE: [Requirement; 6] = each!("-5", HOOKS, ": hooks run in their namespaces", namespaces:
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop");
const STATE: [Requirement; 6] = each!("-6", HOOKS, ": the state comes on standard input", state:
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop");
const CALLED: [Requirement; 6] = each!("-7", LIFE_IN_CONFIG, ": hooks are called", called:
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop");
const ENV: [Requirement; 6] = each!("-8", HOOKS, ": args and env are as listed", environment:
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop");

/// The calls of hooks are asked for by runtime.md too; the rows are kept with their other rows.
const LIFE_IN_CONFIG: &str = "config.md#posix-platform-hooks and runtime.md#lifecycle";

#[rustfmt::skip]
const ORDER: [Requirement; 16] = [
    Requirement::must("config.hooks.order-1", HOOKS, "hooks are called in the listed order", listed_order),
    Requirement::must("config.hooks.order-2", HOOKS,
        "prestart hooks come before createRuntime hooks", kinds_in_order),
    Requirement::must("config.hooks.order-3", HOOKS,
        "createContainer hooks come after createRuntime hooks", kinds_in_order),
    Requirement::must("config.hooks.order-4", HOOKS,
        "prestart, createRuntime and createContainer hooks are part of create", part_of_create),
    Requirement::must("config.hooks.order-5", HOOKS,
        "createContainer hooks come before pivot_root, when mounts are there", before_pivot),
    Requirement::must("config.hooks.order-6", HOOKS,
        "prestart and createRuntime hooks come when the namespaces are there", before_pivot),
    Requirement::must("config.hooks.order-7", HOOKS,
        "startContainer hooks are part of start, before the program", kinds_in_order),
    Requirement::must("config.hooks.order-8", HOOKS,
        "poststart hooks come after the program is executed and before start returns", poststart_late),
    Requirement::must("config.hooks.order-9", HOOKS,
        "poststop hooks come after the container is deleted and before delete returns", poststop_late),
    Requirement::with("runtime.lifecycle.prestart-1", Must, LIFE,
        "a failing prestart hook is an error and stops the container", "prestart", failing_create),
    Requirement::with("runtime.lifecycle.createRuntime-1", Must, LIFE,
        "a failing createRuntime hook is an error and stops the container", "createRuntime", failing_create),
    Requirement::with("runtime.lifecycle.createContainer-1", Must, LIFE,
        "a failing createContainer hook is an error and stops the container", "createContainer", failing_create),
    Requirement::must("runtime.lifecycle.startContainer-1", LIFE,
        "a failing startContainer hook is an error and stops the container", failing_start_container),
    Requirement::must("runtime.lifecycle.poststart-1", LIFE,
        "a failing poststart hook is an error and stops the container", failing_poststart),
    Requirement::must("runtime.lifecycle.poststop-1", LIFE,
        "a failing poststop hook gives a warning, and the others still run", failing_poststop),
    Requirement::must("runtime.lifecycle.poststop-2", LIFE,
        "poststop hooks run when a create hook has failed", poststop_after_failure),
];

pub const TABLE: &[Requirement] = &join();

/// The tables above in one, which a constant can only do by hand.
const fn join() -> [Requirement; 60] {
    let parts: [&[Requirement]; 9] = [
        &PATH, &TIMEOUT, &ABORT, &WHERE, &SPACE, &STATE, &CALLED, &ENV, &ORDER,
    ];
    let mut all = [PATH[0]; 60];
    let (mut part, mut at) = (0, 0);
    while part < parts.len() {
        let mut row = 0;
        while row < parts[part].len() {
            all[at] = parts[part][row];
            at += 1;
            row += 1;
        }
        part += 1;
    }
    assert!(at == 60);
    all
}

const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A bundle whose process marks the log, and the log's place on the host.
fn bundle(lab: &Lab) -> Result<(Bundle, PathBuf), Why> {
    let mut bundle = lab.bundle()?;
    bundle.report(&["append:/hooks.log"]);
    let log = bundle.rootfs().join("hooks.log");
    Ok((bundle, log))
}

/// The helper as a hook of this kind that exits with `status`; it calls itself `name`.
fn hook(lab: &Lab, bundle: &Bundle, kind: &str, name: &str, status: u8) -> Value {
    let inside = kind == "startContainer";
    let path = if inside {
        "/oci-tests".to_owned()
    } else {
        lab.helper()
    };
    let log = if inside {
        "/hooks.log".to_owned()
    } else {
        bundle.host("hooks.log")
    };
    json!({"path": path, "args": ["oci-tests", "hook", name, log, status.to_string()],
           "env": ["PATH=/bin", "HOOK=yes"]})
}

/// Whole lifecycle with one hook of every kind in `kinds`; the records in order.
fn whole(lab: &Lab, kinds: &[&str]) -> Result<(Vec<Record>, Value), Why> {
    let (mut bundle, log) = bundle(lab)?;
    for kind in kinds {
        let hook = hook(lab, &bundle, kind, kind, 0);
        bundle.config.push(&format!("/hooks/{kind}"), hook);
    }
    bundle
        .config
        .set("/annotations", json!({"com.example.a": "b"}));
    let container = lab.started(&bundle)?;
    container.wait_stopped()?;
    let inside = crate::inside::View::parse(&container.printed()?)?;
    container.delete()?;
    let expected =
        json!({"id": container.id, "bundle": bundle.dir, "namespaces": inside.namespaces});
    Ok((records(&log), expected))
}

fn names(records: &[Record]) -> Vec<&str> {
    records.iter().map(|r| r.name.as_str()).collect()
}

fn only(lab: &Lab, kind: &str) -> Result<(Record, Value), Why> {
    let (records, expected) = whole(lab, &[kind])?;
    let seen = names(&records).join(", ");
    match records.into_iter().find(|r| r.name == kind) {
        Some(record) => Ok((record, expected)),
        None => Err(Why::Fail(format!("the {kind} hook did not run: {seen}"))),
    }
}

/// Create fails, or whichever operation runs the hook: some runtimes look only then.
fn refuses_hook(lab: &Lab, kind: &str, what: &str, hook: Value) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.config.push(&format!("/hooks/{kind}"), hook);
    let (container, create) = lab.try_create(&bundle)?;
    if !create.ok() {
        return Ok(());
    }
    let start = container.call(&["start", &container.id])?;
    if !start.ok() {
        return Ok(());
    }
    container.wait_stopped()?;
    let delete = container.call(&["delete", &container.id])?;
    ensure!(!delete.ok(), "{what} is accepted");
    Ok(())
}

fn relative_path(lab: &Lab, kind: &str) -> Verdict {
    refuses_hook(lab, kind, "a relative path", json!({"path": "bin/true"}))
}

fn zero_timeout(lab: &Lab, kind: &str) -> Verdict {
    for timeout in [0, -1] {
        let hook = json!({"path": "/bin/true", "timeout": timeout});
        refuses_hook(lab, kind, &format!("a timeout of {timeout}"), hook)?;
    }
    Ok(())
}

fn slow(lab: &Lab, kind: &str) -> Verdict {
    let hook = json!({"path": "/bin/sleep", "args": ["sleep", "20"], "timeout": 1});
    let begin = std::time::Instant::now();
    let mut bundle = lab.bundle()?;
    bundle.config.push(&format!("/hooks/{kind}"), hook);
    let (_container, create) = lab.try_create(&bundle)?;
    let took = begin.elapsed();
    ensure!(!create.ok(), "create does not mind a hook that is aborted");
    ensure!(took.as_secs() < 10, "the hook of 1 s timeout ran {took:?}");
    Ok(())
}

/// The helper lies at /oci-tests only in the container's root.
fn resolves(lab: &Lab, kind: &str) -> Verdict {
    let (record, _) = only(lab, kind)?;
    let inside = kind == "startContainer";
    ensure!(
        record.in_root == inside,
        "it runs in the container's root: {}",
        record.in_root
    );
    Ok(())
}

fn namespaces(lab: &Lab, kind: &str) -> Verdict {
    let (record, expected) = only(lab, kind)?;
    let inside = matches!(kind, "createContainer" | "startContainer");
    let own = links("/proc/self/ns");
    for name in ["mnt", "uts", "ipc", "net"] {
        let found = record
            .namespaces
            .get(name)
            .map(String::as_str)
            .unwrap_or_default();
        let container = expected["namespaces"][name].as_str().unwrap_or_default();
        let want = if inside {
            container
        } else {
            own.get(name).map_or("", String::as_str)
        };
        ensure!(found == want, "its {name} namespace is {found}, not {want}");
    }
    Ok(())
}

fn state(lab: &Lab, kind: &str) -> Verdict {
    let (record, expected) = only(lab, kind)?;
    let state = &record.state;
    ensure!(state["id"] == expected["id"], "id is {}", state["id"]);
    ensure!(
        state["bundle"] == expected["bundle"],
        "bundle is {}",
        state["bundle"]
    );
    ensure!(
        state["ociVersion"].is_string(),
        "ociVersion is {}",
        state["ociVersion"]
    );
    ensure!(
        state["annotations"]["com.example.a"] == "b",
        "annotations are {}",
        state["annotations"]
    );
    let wanted: &[&str] = match kind {
        "startContainer" => &["created", "creating", "starting"],
        "poststart" => &["running"],
        "poststop" => &["stopped"],
        _ => &["creating", "created"],
    };
    let status = state["status"].as_str().unwrap_or_default();
    ensure!(
        wanted.contains(&status),
        "status is {status:?}, not one of {wanted:?}"
    );
    if matches!(kind, "prestart" | "createRuntime" | "poststart") {
        ensure!(
            state["pid"].as_i64() > Some(1),
            "pid is {}, not the runtime's",
            state["pid"]
        );
    }
    if kind == "startContainer" {
        ensure!(
            state["pid"] == 1,
            "pid is {}, not the container's",
            state["pid"]
        );
    }
    Ok(())
}

fn called(lab: &Lab, kind: &str) -> Verdict {
    only(lab, kind).map(drop)
}

fn environment(lab: &Lab, kind: &str) -> Verdict {
    let (record, _) = only(lab, kind)?;
    let mut env = record.env;
    env.sort();
    ensure!(env == ["HOOK=yes", "PATH=/bin"], "env is {env:?}");
    Ok(())
}

fn listed_order(lab: &Lab) -> Verdict {
    let (mut bundle, log) = bundle(lab)?;
    for name in ["first", "second", "third"] {
        let hook = hook(lab, &bundle, "createRuntime", name, 0);
        bundle.config.push("/hooks/createRuntime", hook);
    }
    let container = lab.create(&bundle)?;
    let records = records(&log);
    ensure!(
        names(&records) == ["first", "second", "third"],
        "order: {:?}",
        names(&records)
    );
    drop(container);
    Ok(())
}

fn kinds_in_order(lab: &Lab) -> Verdict {
    let (records, _) = whole(lab, &KINDS)?;
    let mut found = names(&records);
    let program = found.iter().position(|n| *n == "process");
    let poststart = found.iter().position(|n| *n == "poststart");
    ensure!(program.is_some() && poststart.is_some(), "order: {found:?}");
    // The program and the poststart hook run at the same time.
    found.retain(|n| *n != "poststart");
    let want = [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "process",
        "poststop",
    ];
    ensure!(found == want, "order: {found:?}");
    Ok(())
}

fn part_of_create(lab: &Lab) -> Verdict {
    let (mut bundle, log) = bundle(lab)?;
    for kind in KINDS {
        let hook = hook(lab, &bundle, kind, kind, 0);
        bundle.config.push(&format!("/hooks/{kind}"), hook);
    }
    let _container = lab.create(&bundle)?;
    let records = records(&log);
    let want = ["prestart", "createRuntime", "createContainer"];
    ensure!(
        names(&records) == want,
        "after create: {:?}",
        names(&records)
    );
    Ok(())
}

/// Before the pivot the old root is still there, and the new mounts lie below the bundle.
fn before_pivot(lab: &Lab) -> Verdict {
    let (record, expected) = only(lab, "createContainer")?;
    ensure!(!record.in_root, "the root is already the container's");
    let dev = format!(
        "{}/rootfs/dev",
        expected["bundle"].as_str().unwrap_or_default()
    );
    ensure!(
        record.mounts.contains(&dev),
        "nothing is mounted at {dev} yet"
    );
    let (record, _) = only(lab, "createRuntime")?;
    ensure!(
        record.state["pid"].as_i64() > Some(1),
        "no container process: {}",
        record.state
    );
    Ok(())
}

fn poststart_late(lab: &Lab) -> Verdict {
    let (mut bundle, log) = bundle(lab)?;
    let hook = hook(lab, &bundle, "poststart", "poststart", 0);
    bundle.config.push("/hooks/poststart", hook);
    let container = lab.create(&bundle)?;
    ensure!(records(&log).is_empty(), "it runs before start");
    container.start()?;
    let found = records(&log);
    let Some(record) = found.iter().find(|r| r.name == "poststart") else {
        return Err(Why::Fail("start returns before it has run".into()));
    };
    ensure!(
        record.state["status"] == "running",
        "the status is {}",
        record.state["status"]
    );
    Ok(())
}

fn poststop_late(lab: &Lab) -> Verdict {
    let (mut bundle, log) = bundle(lab)?;
    let hook = hook(lab, &bundle, "poststop", "poststop", 0);
    bundle.config.push("/hooks/poststop", hook);
    let container = lab.started(&bundle)?;
    container.wait_stopped()?;
    let before = records(&log);
    ensure!(
        names(&before) == ["process"],
        "before delete: {:?}",
        names(&before)
    );
    container.delete()?;
    let after = records(&log);
    ensure!(
        names(&after) == ["process", "poststop"],
        "after delete: {:?}",
        names(&after)
    );
    Ok(())
}

fn failing_create(lab: &Lab, kind: &str) -> Verdict {
    let (mut bundle, log) = bundle(lab)?;
    let hook = hook(lab, &bundle, kind, kind, 1);
    bundle.config.push(&format!("/hooks/{kind}"), hook);
    let (container, create) = lab.try_create(&bundle)?;
    ensure!(!create.ok(), "create succeeds");
    ensure!(
        names(&records(&log)) == [kind],
        "the log is {:?}",
        names(&records(&log))
    );
    ensure!(!container.exists()?, "the container is still there");
    Ok(())
}

fn failing_start_container(lab: &Lab) -> Verdict {
    let (mut bundle, log) = bundle(lab)?;
    let hook = hook(lab, &bundle, "startContainer", "startContainer", 1);
    bundle.config.push("/hooks/startContainer", hook);
    let container = lab.create(&bundle)?;
    let start = container.call(&["start", &container.id])?;
    let found = records(&log);
    ensure!(
        names(&found) == ["startContainer"],
        "the log is {:?}",
        names(&found)
    );
    ensure!(!start.ok(), "start succeeds");
    Ok(())
}

/// The program would run for long: if it is gone, it was stopped.
fn failing_poststart(lab: &Lab) -> Verdict {
    let (mut bundle, _) = bundle(lab)?;
    bundle.config.sleep();
    let hook = hook(lab, &bundle, "poststart", "poststart", 1);
    bundle.config.push("/hooks/poststart", hook);
    let container = lab.create(&bundle)?;
    let start = container.call(&["start", &container.id])?;
    ensure!(!start.ok(), "start succeeds");
    let alive = container.exists()? && container.status()? == "running";
    ensure!(!alive, "the container still runs");
    Ok(())
}

fn failing_poststop(lab: &Lab) -> Verdict {
    let (mut bundle, log) = bundle(lab)?;
    for (name, status) in [("first", 1), ("second", 0)] {
        let hook = hook(lab, &bundle, "poststop", name, status);
        bundle.config.push("/hooks/poststop", hook);
    }
    let container = lab.started(&bundle)?;
    container.wait_stopped()?;
    let delete = container.call(&["delete", &container.id])?;
    let found = records(&log);
    ensure!(
        names(&found) == ["process", "first", "second"],
        "the log is {:?}",
        names(&found)
    );
    ensure!(delete.ok(), "delete fails: {}", delete.cause());
    ensure!(!delete.stderr.is_empty(), "there is no warning");
    Ok(())
}

fn poststop_after_failure(lab: &Lab) -> Verdict {
    let (mut bundle, log) = bundle(lab)?;
    for (kind, status) in [("createRuntime", 1), ("poststop", 0)] {
        let hook = hook(lab, &bundle, kind, kind, status);
        bundle.config.push(&format!("/hooks/{kind}"), hook);
    }
    let (container, create) = lab.try_create(&bundle)?;
    ensure!(!create.ok(), "create succeeds");
    drop(container);
    let found = records(&log);
    ensure!(
        names(&found) == ["createRuntime", "poststop"],
        "the log is {:?}",
        names(&found)
    );
    Ok(())
}
