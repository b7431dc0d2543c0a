//! Drives an OCI runtime binary as its callers do; see the tests beside this crate.
//!
//! - [`Runtime`]: the binary under test, with a root directory, scratch directory and namespaces of
//!   its own; when it is dropped, the host must look as it did before ([`HostSnapshot`]).
//! - [`Bundle`]: a busybox root file system and a `config.json` to be changed by the test.
//! - [`Call`]: one command line of the runtime; [`Running`] while it runs, [`Run`] when it is over.
//! - [`Container`]: a created container whose first process is a child of the test.
//! - [`ConsoleSocket`], [`PidfdSocket`], [`Terminal`]: the peers of `--console-socket` and friends.
//! - [`proc`]: what `/proc` says about a process. [`sys`]: the only unsafe code.
//!
//! `KEEL_UNDER_TEST=/usr/sbin/runc` runs the same tests against runc. Expectations that runc rightly
//! fails are marked with [`Runtime::differs`]. `KEEL_WITHOUT=openat2,clone3` makes these system calls
//! fail with `ENOSYS`, as on an older kernel. `KEEL_MUST_RUN=1` fails a test that this host cannot run,
//! instead of skipping it: the test guest (guest/README.md) sets it.

mod bundle;
mod call;
mod container;
mod host;
pub mod proc;
mod runtime;
pub mod sys;
mod terminal;

pub use bundle::Bundle;
pub use call::{Call, Run, Running};
pub use container::Container;
pub use host::{Adopted, HostSnapshot, isolate, reap_orphans};
pub use runtime::{Kind, Runtime, SUBORDINATE, SUBORDINATES, USER, binary_under_test};
pub use terminal::{ConsoleSocket, PidfdSocket, Terminal};

use std::time::{Duration, Instant};

/// How long anything may take before a test calls it stuck: longer where the processor is emulated.
pub fn patience() -> Duration {
    match std::env::var_os("KEEL_MUST_RUN") {
        Some(_) => Duration::from_secs(120),
        None => Duration::from_secs(30),
    }
}

/// Whether the host's controllers belong to cgroup v2.
///
/// # Panics
/// Where no cgroups are mounted.
pub fn is_v2() -> bool {
    std::fs::exists("/sys/fs/cgroup/cgroup.controllers").expect("cgroups are mounted")
}

/// One of two values, by the host's version of cgroups.
pub fn by_version<T>(v1: T, v2: T) -> T {
    if is_v2() { v2 } else { v1 }
}

/// Polls `condition` until it holds.
///
/// # Panics
/// If it does not hold within [`patience`]; `what` says what was waited for.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    while !condition() {
        assert!(start.elapsed() < patience(), "gave up waiting for {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
