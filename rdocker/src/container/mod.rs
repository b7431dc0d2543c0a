//! What a container is: a request, an OCI spec, a record on disk, a life.

pub mod api;
pub mod args;
pub mod id;
pub mod identity;
pub mod merge;
pub mod parse;
pub mod request;
pub mod signal;
pub mod spec;
