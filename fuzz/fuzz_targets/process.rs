//! process.json: see `keel::fuzz::process`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keel::fuzz::process(bytes));
