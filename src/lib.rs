//! keel's modules, one sentence each. A module uses only modules listed below it.

pub mod bundle;
pub mod cgroups;
pub mod error;
pub mod sys;
