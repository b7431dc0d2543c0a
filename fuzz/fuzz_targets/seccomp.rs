//! The seccomp compiler: see `keel::fuzz::seccomp`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keel::fuzz::seccomp(bytes));
