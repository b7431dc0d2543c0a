//! config.json: see `keel::fuzz::config`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keel::fuzz::config(bytes));
