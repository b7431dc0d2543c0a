//! A Docker-like front end that runs containers with keel.
fn main() {}
