//! Id mappings of config.json, and the tables that newuidmap(1) reads: see `keel::fuzz::id_maps`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../rdocker/src/rootless/table.rs"]
mod table;

fuzz_target!(|bytes: &[u8]| {
    keel::fuzz::id_maps(bytes);
    table::check(&String::from_utf8_lossy(bytes));
});
