//! keel's modules, one sentence each. A module uses only modules listed below it.

pub mod cli;

pub mod checkpoint;
pub mod events;
pub mod exec;
pub mod mounts;
pub mod pause;
pub mod ps;
pub mod spec_cmd;
pub mod update;

pub mod features;

pub mod bundle;
pub mod cgroups;
pub mod host;
pub mod log;
pub mod units;

pub mod error;
pub mod plan;
pub mod sys;
