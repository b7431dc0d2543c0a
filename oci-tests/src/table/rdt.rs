//! config-linux.md: Intel RDT.

use std::fs;

use serde_json::json;

use crate::lab::Lab;
use crate::requirement::Level::{Must, MustNot, Should, ShouldNot};
use crate::requirement::{Requirement, Verdict, skip};

const AT: &str = "config-linux.md#intelrdt";
/// Why most of this section is without a test.
const HARDWARE: &str = "needs a processor with RDT: runtimes look for a mounted resctrl file \
    system, which the kernel gives only on such a processor, and a stand-in cannot be mounted";

#[rustfmt::skip]
pub const TABLE: &[Requirement] = &[
    Requirement::must("linux.intelRdt-1", AT, "without a mounted resctrl it is an error", no_resctrl),
    Requirement::must_not("linux.intelRdt-2", AT,
        "without intelRdt no resctrl is touched", untouched),
    Requirement::untestable("linux.intelRdt-3", Must, AT,
        "the process is written to tasks of the directory closID", HARDWARE),
    Requirement::untestable("linux.intelRdt-4", Must, AT, "closID `/` is the root of resctrl", HARDWARE),
    Requirement::untestable("linux.intelRdt-5", Should, AT,
        "l3CacheSchema begins with `L3:`", "asks the author of config.json"),
    Requirement::untestable("linux.intelRdt-6", ShouldNot, AT,
        "l3CacheSchema has no newlines", "asks the author of config.json"),
    Requirement::must("linux.intelRdt-7", AT,
        "memBwSchema begins with `MB:`", wrong_bandwidth),
    Requirement::must_not("linux.intelRdt-8", AT, "memBwSchema has no newlines", two_lines),
    Requirement::untestable("linux.intelRdt-9", MustNot, AT, "schemata have no newlines", HARDWARE),
    Requirement::untestable("linux.intelRdt-10", Must, AT,
        "l3CacheSchema is written first, then memBwSchema", HARDWARE),
    Requirement::untestable("linux.intelRdt-11", Must, AT,
        "one of the two alone is written", HARDWARE),
    Requirement::untestable("linux.intelRdt-12", Must, AT, "schemata are written, last", HARDWARE),
    Requirement::untestable("linux.intelRdt-13", MustNot, AT,
        "without any of the three nothing is written to schemata", HARDWARE),
    Requirement::untestable("linux.intelRdt-14", Must, AT,
        "without closID the directory has the container's id", HARDWARE),
    Requirement::untestable("linux.intelRdt-15", Must, AT,
        "with closID and schemata the directory is made", HARDWARE),
    Requirement::untestable("linux.intelRdt-16", Must, AT,
        "an existing directory with other schemata is an error", HARDWARE),
    Requirement::untestable("linux.intelRdt-17", Must, AT,
        "closID alone names a directory that exists, else it is an error", HARDWARE),
    Requirement::untestable("linux.intelRdt-18", Must, AT,
        "a directory made without closID goes with the container", HARDWARE),
    Requirement::untestable("linux.intelRdt-19", MustNot, AT,
        "a directory of closID, or not made by the runtime, stays", HARDWARE),
    Requirement::untestable("linux.intelRdt-20", Must, AT,
        "enableMonitoring makes a monitoring group of the container's id", HARDWARE),
    Requirement::untestable("linux.intelRdt-21", Must, AT,
        "the monitoring group goes with the container", HARDWARE),
    Requirement::untestable("linux.intelRdt-22", Must, AT,
        "a monitoring group that cannot be made is an error", HARDWARE),
];

fn mounted() -> bool {
    fs::read_to_string("/proc/self/mounts")
        .unwrap_or_default()
        .contains(" resctrl ")
}

fn no_resctrl(lab: &Lab) -> Verdict {
    if mounted() {
        skip!("resctrl is mounted here");
    }
    lab.refuses("intelRdt without resctrl", |c| {
        c.set(
            "/linux/intelRdt",
            json!({"closID": "x", "l3CacheSchema": "L3:0=ff"}),
        );
    })
}

fn untouched(lab: &Lab) -> Verdict {
    let list = || -> Vec<_> {
        fs::read_dir("/sys/fs/resctrl")
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path())
            .collect()
    };
    let before = list();
    lab.see(&[], |_| ())?;
    crate::requirement::ensure!(list() == before, "resctrl has changed");
    Ok(())
}

fn wrong_bandwidth(lab: &Lab) -> Verdict {
    lab.refuses("a memBwSchema that is none", |c| {
        c.set("/linux/intelRdt", json!({"memBwSchema": "L3:0=ff"}));
    })
}

fn two_lines(lab: &Lab) -> Verdict {
    lab.refuses("a memBwSchema of two lines", |c| {
        c.set(
            "/linux/intelRdt",
            json!({"memBwSchema": "MB:0=20\nL3:0=ff"}),
        );
    })
}
