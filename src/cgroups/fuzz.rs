//! What fuzz targets reach of this module's own parsers, and the tests that do the same with seeds.

use std::collections::HashMap;

use super::{dbus, devices, limits, mountinfo, stats, unit};
use crate::error::Result;

/// Reads `text` as each file of the kernel that is read to find cgroups and what they count.
pub fn kernel_files(text: &str) {
    let mounts = mountinfo::v1_mounts(text);
    for mount in &mounts {
        mountinfo::root_of(&mount.point, text);
    }
    mountinfo::root_of("/sys/fs/cgroup", text);
    stats::parse_psi(text);
    stats::table(text);
    stats::parse_number(text);
    let _ = limits::parse_list(text);
    let list = devices::V1List::parse(text);
    let nothing = devices::V1List::parse("");
    list.writes_from(&nothing);
    nothing.writes_from(&list);
}

/// Reads `bytes` as an answer of systemd.
pub fn dbus_message(bytes: &[u8]) {
    dbus::parse(bytes);
}

/// The properties of a unit that `annotations` ask for.
///
/// # Errors
/// If one of them is not for a container to set.
pub fn annotated(annotations: &HashMap<String, String>) -> Result<Vec<(String, super::Value)>> {
    unit::annotated(annotations)
}
