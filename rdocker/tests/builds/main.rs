//! `build` through the built binary, on a host of its own per test.
//!
//! Needs root, a static busybox, an OCI runtime, and podman to compare with.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacks;
mod cache;
#[path = "../common/mod.rs"]
mod common;
mod contexts;
mod features;
#[path = "../verbs/host.rs"]
#[allow(dead_code, reason = "each test binary uses a part")]
mod host;
mod podman;
mod project;
mod push;
mod tutorials;
