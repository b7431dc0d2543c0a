//! mountinfo, cgroup files, D-Bus: see `keel::fuzz::kernel_files`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keel::fuzz::kernel_files(bytes));
