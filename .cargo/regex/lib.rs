//! `regex-lite` for those who ask for `regex`: the same interface in a tenth of the code.
//!
//! `oci-spec` matches one field of config.json with it (`execCPUAffinity`).

pub use regex_lite::*;
