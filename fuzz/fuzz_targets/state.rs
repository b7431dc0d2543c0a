//! state.json: see `keel::fuzz::state`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keel::fuzz::state(bytes));
