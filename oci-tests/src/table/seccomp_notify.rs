//! config-linux.md: the seccomp listener and the container process state.

use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use serde_json::{Value, json};

use crate::console::{accept, receive};
use crate::lab::Lab;
use crate::requirement::Level::Must;
use crate::requirement::{Requirement, Verdict, Why, ensure};

const AT: &str = "config-linux.md#seccomp";
const STATE: &str = "config-linux.md#the-container-process-state";

#[rustfmt::skip]
pub const TABLE: &[Requirement] = &[
    Requirement::must("linux.seccomp.listener-1", AT,
        "the state comes over a unix stream socket at listenerPath", comes),
    Requirement::must("linux.seccomp.listener-2", AT, "a connection brings one state", once),
    Requirement::must_not("linux.seccomp.listener-3", AT, "a connection is not used again", once),
    Requirement::must("linux.seccomp.listener-4", AT,
        "a connection is closed after the state", once),
    Requirement::must("linux.seccomp.listener-5", AT,
        "a state that cannot be sent is an error", nobody_listens),
    Requirement::must("linux.seccomp.listener-6", AT,
        "without SCMP_ACT_NOTIFY listenerPath is ignored", ignored),
    Requirement::must_not("linux.seccomp.listenerMetadata-1", AT,
        "listenerMetadata is not set without listenerPath", metadata_alone),
    Requirement::must("linux.seccomp.state-1", STATE,
        "the state is JSON, and the descriptors come by SCM_RIGHTS", comes),
    Requirement::must("linux.seccomp.state-2", STATE,
        "descriptors come with the first message only", once),
    Requirement::must("linux.seccomp.state-3", STATE,
        "ociVersion, fds, pid, metadata and state are what they should be", members),
    Requirement::untestable("linux.seccomp.state-4", Must, STATE,
        "the socket is AF_UNIX and SOCK_STREAM", "no other socket could accept the tests' call"),
];

fn profile(path: &str) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "some metadata",
        // Nothing in a container's life calls it before the test is over.
        "syscalls": [{"names": ["swapoff"], "action": "SCMP_ACT_NOTIFY"}]
    })
}

/// The state that a container sends, the number of descriptors with it, and what comes after.
fn received(lab: &Lab) -> Result<(Value, usize, Vec<u8>, String, i64), Why> {
    let mut bundle = lab.bundle()?;
    let path = bundle.dir.join("agent").to_string_lossy().into_owned();
    let listener = UnixListener::bind(&path).map_err(|e| format!("cannot listen: {e}"))?;
    bundle.config.sleep().set("/linux/seccomp", profile(&path));
    let container = lab.create(&bundle)?;
    // Some runtimes install the filter only when the program is about to run.
    let start = container.call(&["start", &container.id])?;
    ensure!(start.ok(), "start failed: {}", start.cause());
    let mut stream = accept(&listener)?;
    let (bytes, fds) = receive(&stream)?;
    let mut rest = Vec::new();
    stream
        .set_read_timeout(Some(Duration::from_secs(2)))
        .map_err(|e| e.to_string())?;
    let more = stream.read_to_end(&mut rest);
    let pid = container.pid()?;
    drop(listener);
    ensure!(more.is_ok(), "the connection is not closed");
    let mut all = bytes;
    all.extend(&rest);
    let state = serde_json::from_slice(&all).map_err(|e| {
        format!(
            "the state is not JSON ({e}): {}",
            String::from_utf8_lossy(&all)
        )
    })?;
    Ok((state, fds.len(), rest, container.id.clone(), pid))
}

fn comes(lab: &Lab) -> Verdict {
    let (_, fds, ..) = received(lab)?;
    ensure!(fds == 1, "{fds} descriptors came");
    Ok(())
}

fn once(lab: &Lab) -> Verdict {
    let (_, _, rest, ..) = received(lab)?;
    let again = rest.windows(12).any(|w| w == b"\"ociVersion\"");
    ensure!(!again, "more came: {}", String::from_utf8_lossy(&rest));
    Ok(())
}

fn members(lab: &Lab) -> Verdict {
    let (state, _, _, id, pid) = received(lab)?;
    ensure!(
        state["fds"] == json!(["seccompFd"]),
        "fds are {}",
        state["fds"]
    );
    ensure!(
        state["metadata"] == "some metadata",
        "metadata is {}",
        state["metadata"]
    );
    ensure!(state["pid"] == pid, "pid is {}, not {pid}", state["pid"]);
    ensure!(
        state["ociVersion"].is_string(),
        "ociVersion is {}",
        state["ociVersion"]
    );
    ensure!(
        state["state"]["id"] == id,
        "the container's id is {}",
        state["state"]["id"]
    );
    ensure!(
        state["state"]["bundle"].is_string(),
        "its bundle is {}",
        state["state"]["bundle"]
    );
    let status = state["state"]["status"].as_str().unwrap_or_default();
    ensure!(
        ["creating", "created"].contains(&status),
        "its status is {status:?}"
    );
    Ok(())
}

fn nobody_listens(lab: &Lab) -> Verdict {
    lab.refuses_by_start("a listener that is not there", |c| {
        c.set("/linux/seccomp", profile("/nowhere/agent"));
    })
}

fn ignored(lab: &Lab) -> Verdict {
    lab.see(&[], |c| {
        c.set(
            "/linux/seccomp",
            json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere/agent",
            "syscalls": [{"names": ["swapoff"], "action": "SCMP_ACT_ERRNO"}]}),
        );
    })
    .map(drop)
}

fn metadata_alone(lab: &Lab) -> Verdict {
    lab.refuses("listenerMetadata without listenerPath", |c| {
        c.set(
            "/linux/seccomp",
            json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x",
            "syscalls": [{"names": ["swapoff"], "action": "SCMP_ACT_ERRNO"}]}),
        );
    })
}
