//! state.json: what is read is written again as it was.

#![no_main]

use keel::state::{Record, Status};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = serde_json::from_slice::<Record>(bytes) else {
        return;
    };
    let text = serde_json::to_vec(&record).expect("a record is JSON");
    let again: Record = serde_json::from_slice(&text).expect("we have written it");
    assert_eq!(record, again);
    for status in [Status::Created, Status::Stopped] {
        serde_json::to_string(&record.view(status, "root")).expect("a view is JSON");
        record.for_hooks(status);
    }
});
