//! Real callers of an OCI runtime, each on a small machine of its own.
//!
//! - [`Machine`]: namespaces in which a daemon finds its usual directories empty, and the runtime
//!   under test at `/usr/local/bin/keel`. When it is dropped all its processes end, and no cgroup
//!   of a container may be left.
//! - [`Row`]: a command line as people type it, and what must come of it; [`Machine::try_all`] runs
//!   a table of them and prints how many passed.
//! - [`docs`]: the files and commands of `docs/integrations/NAME.md`, taken as they are written.
//!
//! `KEEL_UNDER_TEST=/usr/sbin/runc` tries the same rows with runc.

pub mod docs;
mod machine;
mod row;

pub use machine::{Machine, Output};
pub use row::{Row, report};

use std::path::PathBuf;

/// `KEEL_UNDER_TEST`, or the keel that was built with these tests.
///
/// # Panics
/// If there is neither.
pub fn runtime() -> PathBuf {
    let built = || beside("keel");
    let path = std::env::var_os("KEEL_UNDER_TEST").map_or_else(built, PathBuf::from);
    std::fs::canonicalize(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; cargo build, or set KEEL_UNDER_TEST",
            path.display()
        )
    })
}

/// A program that was built with these tests.
///
/// # Panics
/// If the test is run from elsewhere.
pub fn beside(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test binary has a path");
    let profile = test.ancestors().nth(2).expect("target/…/debug/deps/TEST");
    profile.join(name)
}

/// Whether runc is under test, the reference.
pub fn is_runc() -> bool {
    runtime().ends_with("runc")
}
