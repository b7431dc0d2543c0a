//! rdocker: images and containers without a daemon.
//!
//! A map. Imports point downward only: `cli` → `build` → `container`, `volume` → `image`, `store`,
//! `runtime`, `host`, `error`; `image` uses `store`, never the other way round;
//! `cli` alone talks to [`ui`], and nothing imports `cli`.
//!
//! - [`cli`]: one file per verb: its help, its arguments, and the few lines that call the library.
//! - [`ui`]: the only writer to a terminal: lines, tables, `--format` templates.
//! - [`container`]: what a container is: request, OCI spec, record on disk, life cycle.
//! - [`image`]: references, registries, layers, and every verb that works on images.
//! - [`store`]: records on disk, locks, content by digest; knows no containers and no images.
//! - [`dockerfile`]: the Dockerfile language, read and nothing more.
//! - [`build`]: from a Dockerfile and a context to an image.
//! - [`volume`]: named and anonymous volumes.
//! - [`seccomp`]: which system calls a container may make: the default profile and the user's.
//! - [`network`]: networks, a container's places in them, what the world sees of those.
//! - [`rootless`]: a plain user's engine, inside one user namespace.
//! - [`monitor`]: the small process beside every running container.
//! - [`runtime`]: the only place that runs the OCI runtime's binary.
//! - [`events`]: the log of what happened.
//! - [`sys`]: what has no safe wrapper elsewhere; the only unsafe code.
//! - [`host`]: where things live on this machine and what its configuration file says.
//! - [`error`]: what can go wrong, with the exit code and the hint that belong to it.

pub mod build;
pub mod cli;
pub mod container;
pub mod dockerfile;
pub mod error;
pub mod events;
pub mod host;
pub mod image;
pub mod monitor;
pub mod network;
pub mod rootless;
pub mod runtime;
pub mod seccomp;
pub mod store;
pub mod sys;
pub mod ui;
pub mod volume;
