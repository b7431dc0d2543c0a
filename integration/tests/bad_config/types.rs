//! Values of the wrong JSON type.

use super::Row;
use serde_json::{Value, json};

/// pointer to set, value, path that is named
const AT: &[(&str, &str, &str)] = &[
    ("/ociVersion", "1", ".ociVersion"),
    ("/process", "\"sh\"", ".process"),
    ("/process", "[1]", ".process"),
    ("/process/args", "\"sh\"", ".process.args"),
    ("/process/args", "[\"sh\", 1]", ".process.args[1]"),
    ("/process/args", "{}", ".process.args"),
    ("/process/env", "{}", ".process.env"),
    ("/process/env", "[null, 7]", ".process.env["),
    ("/process/cwd", "5", ".process.cwd"),
    ("/process/terminal", "\"yes\"", ".process.terminal"),
    (
        "/process/consoleSize",
        "{\"height\": -1, \"width\": 80}",
        ".process.consoleSize.height",
    ),
    ("/process/user", "0", ".process.user"),
    ("/process/user/uid", "\"0\"", ".process.user.uid"),
    ("/process/user/uid", "-1", ".process.user.uid"),
    ("/process/user/uid", "4294967296", ".process.user.uid"),
    ("/process/user/uid", "1.5", ".process.user.uid"),
    ("/process/user/gid", "true", ".process.user.gid"),
    (
        "/process/user/additionalGids",
        "5",
        ".process.user.additionalGids",
    ),
    (
        "/process/user/additionalGids",
        "[5, \"6\"]",
        ".process.user.additionalGids[1]",
    ),
    ("/process/user/umask", "\"022\"", ".process.user.umask"),
    (
        "/process/capabilities",
        "[\"CAP_KILL\"]",
        ".process.capabilities",
    ),
    (
        "/process/capabilities/bounding",
        "\"CAP_KILL\"",
        ".process.capabilities.bounding",
    ),
    (
        "/process/noNewPrivileges",
        "\"true\"",
        ".process.noNewPrivileges",
    ),
    ("/process/oomScoreAdj", "\"100\"", ".process.oomScoreAdj"),
    ("/process/rlimits", "{}", ".process.rlimits"),
    (
        "/process/rlimits",
        "[{\"type\": \"RLIMIT_CORE\", \"soft\": \"0\", \"hard\": 0}]",
        ".process.rlimits[0].soft",
    ),
    (
        "/process/rlimits",
        "[{\"type\": \"RLIMIT_CORE\", \"soft\": 0, \"hard\": -1}]",
        ".process.rlimits[0].hard",
    ),
    (
        "/process/rlimits",
        "[{\"type\": 4, \"soft\": 0, \"hard\": 0}]",
        ".process.rlimits[0].type",
    ),
    ("/root", "\"rootfs\"", ".root"),
    ("/root/path", "5", ".root.path"),
    ("/root/readonly", "\"true\"", ".root.readonly"),
    ("/hostname", "5", ".hostname"),
    ("/mounts", "{}", ".mounts"),
    ("/mounts/2", "\"/tmp\"", ".mounts[2]"),
    ("/mounts/0/options", "\"ro\"", ".mounts[0].options"),
    ("/mounts/1/destination", "[]", ".mounts[1].destination"),
    ("/hooks", "[]", ".hooks"),
    ("/hooks/createRuntime", "{}", ".hooks.createRuntime"),
    (
        "/hooks/createRuntime",
        "[\"/bin/true\"]",
        ".hooks.createRuntime[0]",
    ),
    (
        "/hooks/poststop",
        "[{\"path\": \"/bin/true\", \"timeout\": \"1\"}]",
        ".hooks.poststop[0].timeout",
    ),
    ("/annotations", "[]", ".annotations"),
    ("/annotations", "{\"a\": 1}", ".annotations.a"),
    ("/linux", "[]", ".linux"),
    ("/linux/namespaces", "{}", ".linux.namespaces"),
    ("/linux/namespaces/1", "\"pid\"", ".linux.namespaces[1]"),
    ("/linux/namespaces/1/type", "7", ".linux.namespaces[1].type"),
    ("/linux/uidMappings", "{}", ".linux.uidMappings"),
    (
        "/linux/uidMappings",
        "[{\"containerID\": \"0\", \"hostID\": 0, \"size\": 1}]",
        ".linux.uidMappings[0].containerID",
    ),
    (
        "/linux/gidMappings",
        "[{\"containerID\": 0, \"hostID\": 4294967296, \"size\": 1}]",
        ".linux.gidMappings[0].hostID",
    ),
    ("/linux/devices", "{}", ".linux.devices"),
    (
        "/linux/devices",
        "[{\"path\": \"/dev/x\", \"type\": \"c\", \"major\": \"1\", \"minor\": 3}]",
        ".linux.devices[0].major",
    ),
    (
        "/linux/devices",
        "[{\"path\": \"/dev/x\", \"type\": \"c\", \"major\": 1, \"minor\": 3, \"fileMode\": \"666\"}]",
        ".linux.devices[0].fileMode",
    ),
    ("/linux/sysctl", "[]", ".linux.sysctl"),
    ("/linux/sysctl", "{\"kernel.shmmni\": 5}", ".linux.sysctl"),
    ("/linux/cgroupsPath", "5", ".linux.cgroupsPath"),
    (
        "/linux/maskedPaths",
        "\"/proc/kcore\"",
        ".linux.maskedPaths",
    ),
    ("/linux/readonlyPaths", "[5]", ".linux.readonlyPaths[0]"),
    ("/linux/rootfsPropagation", "1", ".linux.rootfsPropagation"),
    ("/linux/resources", "[]", ".linux.resources"),
    (
        "/linux/resources",
        "{\"memory\": {\"limit\": \"1G\"}}",
        ".linux.resources.memory.limit",
    ),
    (
        "/linux/resources",
        "{\"pids\": {\"limit\": \"max\"}}",
        ".linux.resources.pids.limit",
    ),
    (
        "/linux/resources",
        "{\"cpu\": {\"shares\": -5}}",
        ".linux.resources.cpu.shares",
    ),
    (
        "/linux/resources",
        "{\"devices\": [{\"allow\": \"no\"}]}",
        ".linux.resources.devices[0].allow",
    ),
    ("/linux/seccomp", "\"default\"", ".linux.seccomp"),
    (
        "/linux/seccomp",
        "{\"defaultAction\": 1}",
        ".linux.seccomp.defaultAction",
    ),
    (
        "/linux/seccomp",
        "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": {}}",
        ".linux.seccomp.syscalls",
    ),
];

/// Paths of fields that 1.1.5 does not know.
const NEWER: &[&str] = &[
    "/process/scheduler",
    "/process/ioPriority",
    "/linux/timeOffsets",
    "/linux/memoryPolicy",
    "/linux/personality",
    "/linux/netDevices",
    "/linux/intelRdt/schemata",
    "/domainname",
];

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (pointer, value, says) in AT {
        let value: Value = serde_json::from_str(value).expect("rows are JSON");
        let name = format!("{pointer} = {value}").leak();
        let says: &'static [&'static str] = vec![*says].leak();
        rows.push(Row::set(name, pointer, value, says));
    }
    for pointer in NEWER {
        let path: &'static str = pointer.replace('/', ".").leak();
        let name = format!("{pointer} = 17").leak();
        rows.push(Row::set(name, pointer, json!(17), vec![path].leak()).runc_accepts());
    }
    rows
}
