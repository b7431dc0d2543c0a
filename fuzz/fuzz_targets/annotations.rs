//! `org.systemd.property.*`: see `keel::fuzz::annotations`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| keel::fuzz::annotations(bytes));
