//! Every verb on containers through the built binary, on a host of its own per test.
//!
//! Needs root, a static busybox, and an OCI runtime (keel beside the binary, or one on PATH).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod host;
#[path = "../common/moments.rs"]
mod moments;

mod commit;
mod cp;
mod crashes;
mod create;
mod events;
mod exec;
mod hostile;
mod images;
mod inspect;
mod kill;
mod login;
mod logs;
mod monitor;
mod ps;
mod rename;
mod restart;
mod rm;
mod rootless;
mod run;
mod stop;
mod terminal;
mod tutorials;
mod volume;
mod words;
