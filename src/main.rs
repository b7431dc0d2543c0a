//! keel, an OCI container runtime: parse, dispatch, print one error, exit.
fn main() {}
