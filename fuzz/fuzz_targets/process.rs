//! process.json, from its text to the plan of one more process.

#![no_main]

use std::path::Path;

use keel::bundle::parse_process;
use keel::host::Host;
use keel::plan::{Facts, Plan};
use keel::validate::validate_process;
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::Spec;

fuzz_target!(|bytes: &[u8]| {
    let Ok((process, _)) = parse_process(bytes, "process.json") else {
        return;
    };
    let _ = validate_process(&process, "process.json", "", &Host::new());
    let facts = Facts::of(Path::new("/bundle"));
    let _ = Plan::for_exec("fuzzed", &process, &Spec::default(), &facts);
});
