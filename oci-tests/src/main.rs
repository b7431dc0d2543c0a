//! Conformance of an OCI runtime with runtime-spec.
fn main() {}
