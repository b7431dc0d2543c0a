//! Values of `docker run` flags: text to types, in Docker's grammar and with Docker's complaints.

pub mod mount;
pub mod networks;
pub mod port;
pub mod value;
