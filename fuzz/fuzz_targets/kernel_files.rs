//! mountinfo, the files of cgroups, and systemd's answers: a container may have had a hand in them.

#![no_main]

use keel::cgroups::fuzz::{dbus_message, kernel_files};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    dbus_message(bytes);
    kernel_files(&String::from_utf8_lossy(bytes));
});
