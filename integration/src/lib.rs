//! Drives an OCI runtime binary as its callers do; see the tests beside this crate.
