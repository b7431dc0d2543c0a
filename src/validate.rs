//! The rules between the values of config.json, and between them and the host.
//!
//! Whether one value can be what it must become (a device number, an id map, a C string) is checked
//! where it is converted, in `plan`. Here is what no conversion sees: a host name without a UTS
//! namespace, a sysctl that would change the host, an AppArmor profile on a host without AppArmor.
//! One function per rule; each names the JSON path, the reason, and what to do about it.
//!
//! Source: runtime-spec 1.3, config.md and config-linux.md; runc, `libcontainer/configs/validate`,
//! whose words are kept where it has some.

mod linux;
mod mounts;
mod process;
mod sysctl;

use std::fmt;

use oci_spec::runtime::{
    Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType as Kind, Process, Spec,
};

use crate::bundle::json_key;
use crate::error::{Error, Result};
use crate::host::Host;

/// Something that is allowed and probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// JSON path of the value, in config.json.
    pub at: String,
    /// What will happen instead.
    pub why: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "config.json: {}: {}", self.at, self.why)
    }
}

/// What the command line asks for that decides whether a config.json can be carried out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// Nobody will stay to hold the terminal: `create`, and `run --detach`.
    pub detach: bool,
    /// `--console-socket` is given.
    pub console_socket: bool,
}

/// What a rule looks at.
struct View<'a> {
    spec: &'a Spec,
    linux: Option<&'a Linux>,
    host: &'a Host,
    asked: Asked,
}

type Rule = fn(&View<'_>) -> Result<()>;

/// In the order of config.json, which is the order in which people read it.
const RULES: &[Rule] = &[
    version,
    root,
    process,
    terminal,
    linux::host_name,
    mounts::inside_proc,
    mounts::id_mapped,
    mounts::owned_by_mapped_ids,
    hooks,
    annotations,
    linux::namespaces,
    linux::rootless,
    linux::mapped_user,
    linux::device_rules,
    linux::net_devices,
    linux::propagation,
    linux::hidden_paths,
    linux::mount_label,
    linux::intel_rdt,
    sysctl::allowed,
];

/// Checks a config.json that decodes; the answer is what to warn of.
///
/// # Errors
/// [`Error::Spec`] for the first rule that is broken, [`Error::Usage`] if the command line does not
/// fit `process.terminal`.
pub fn validate(spec: &Spec, host: &Host, asked: Asked) -> Result<Vec<Warning>> {
    let view = View {
        spec,
        linux: spec.linux().as_ref(),
        host,
        asked,
    };
    for rule in RULES {
        rule(&view)?;
    }
    Ok(warnings(&view))
}

/// Checks a process object on its own, as `exec` has it.
///
/// `file` and `at` are where it comes from: `process.json` and an empty path, or `config.json` and
/// `.process`.
///
/// # Errors
/// [`Error::Spec`] for the first rule that is broken.
pub fn validate_process(process: &Process, file: &str, at: &str, host: &Host) -> Result<()> {
    process::check(process, &process::Place { file, at }, host)
}

/// Checks the mounts of `spec` alone, as they are added to a container that runs.
///
/// # Errors
/// [`Error::Spec`] for the first rule that is broken.
pub fn validate_mounts(spec: &Spec, host: &Host) -> Result<()> {
    let view = View {
        spec,
        linux: spec.linux().as_ref(),
        host,
        asked: Asked::default(),
    };
    let rules = [
        mounts::inside_proc,
        mounts::id_mapped,
        mounts::owned_by_mapped_ids,
    ];
    rules.iter().try_for_each(|rule| rule(&view))
}

impl<'a> View<'a> {
    fn namespace(&self, kind: Kind) -> Option<&'a LinuxNamespace> {
        let all = self.linux?.namespaces().as_deref().unwrap_or_default();
        all.iter().find(|namespace| namespace.typ() == kind)
    }

    /// Whether the container is in another namespace of this kind than the runtime, made or joined.
    fn has(&self, kind: Kind) -> bool {
        self.namespace(kind).is_some()
    }

    /// The id maps of a user namespace that is made, not joined.
    fn maps(&self) -> Option<(&'a [LinuxIdMapping], &'a [LinuxIdMapping])> {
        let user = self.namespace(Kind::User)?;
        let linux = self.linux.filter(|_| joined(user).is_none())?;
        Some((
            linux.uid_mappings().as_deref().unwrap_or_default(),
            linux.gid_mappings().as_deref().unwrap_or_default(),
        ))
    }
}

/// The path of a namespace that is joined; an empty one means a new namespace.
fn joined(namespace: &LinuxNamespace) -> Option<&std::path::Path> {
    namespace
        .path()
        .as_deref()
        .filter(|path| !path.as_os_str().is_empty())
}

/// `ociVersion`: every 1.x is accepted, since a minor version only adds (config.md,
/// "Specification version").
fn version(view: &View<'_>) -> Result<()> {
    let version = view.spec.version();
    // runc does not look at it, so bundles without one exist.
    let numbers = version
        .split(['-', '+'])
        .next()
        .unwrap_or_default()
        .split('.');
    let is_version = numbers.clone().count() == 3
        && numbers
            .clone()
            .all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if version.is_empty() || (is_version && version.starts_with("1.")) {
        return Ok(());
    }
    let why = format!("version {version:?} is not supported: 1.0.0 to 1.3.0 are");
    Err(Error::spec(".ociVersion", why))
}

fn root(view: &View<'_>) -> Result<()> {
    match view.spec.root() {
        None => Err(Error::spec(
            ".root",
            "root must be specified: the directory that holds the container's files",
        )),
        Some(root) if root.path().as_os_str().is_empty() => Err(Error::spec(
            ".root.path",
            "must not be empty: name a directory, relative to the bundle or absolute",
        )),
        Some(_) => Ok(()),
    }
}

fn process(view: &View<'_>) -> Result<()> {
    match view.spec.process() {
        None => Err(Error::spec(
            ".process",
            "process property must not be empty: it says what to run",
        )),
        Some(process) => validate_process(process, "config.json", ".process", view.host),
    }
}

/// `process.terminal` against the command line, in runc's words, which callers show.
fn terminal(view: &View<'_>) -> Result<()> {
    let process = view.spec.process().as_ref();
    let wanted = process.and_then(Process::terminal).unwrap_or(false);
    let Asked {
        detach,
        console_socket,
        ..
    } = view.asked;
    if wanted && detach && !console_socket {
        return Err(Error::Usage(
            "cannot allocate tty if runc will detach without setting console socket: \
             give --console-socket, or set .process.terminal to false"
                .into(),
        ));
    }
    if console_socket && !(wanted && detach) {
        return Err(Error::Usage(
            "cannot use console socket if runc will not detach or allocate tty: \
             set .process.terminal to true, or leave out --console-socket"
                .into(),
        ));
    }
    Ok(())
}

/// A hook's path is executed by the runtime, so it must not depend on where that happens to be.
fn hooks(view: &View<'_>) -> Result<()> {
    let Some(hooks) = view.spec.hooks() else {
        return Ok(());
    };
    let all = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (kind, list) in all {
        for (index, hook) in list.iter().flatten().enumerate() {
            let at = format!(".hooks.{kind}[{index}]");
            if !hook.path().is_absolute() {
                return Err(Error::spec(
                    format!("{at}.path"),
                    format!("{} is not an absolute path", hook.path().display()),
                ));
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return Err(Error::spec(
                    format!("{at}.timeout"),
                    "must be more than 0 seconds; leave it out for no limit",
                ));
            }
        }
    }
    Ok(())
}

fn annotations(view: &View<'_>) -> Result<()> {
    let mut keys = view.spec.annotations().iter().flat_map(|all| all.keys());
    if keys.any(String::is_empty) {
        let at = format!(".annotations{}", json_key(""));
        return Err(Error::spec(at, "a key must not be empty"));
    }
    Ok(())
}

fn warnings(view: &View<'_>) -> Vec<Warning> {
    let mut all = Vec::new();
    let mut warn = |at: String, why: &str| {
        all.push(Warning {
            at,
            why: why.to_owned(),
        });
    };
    if view.spec.version().is_empty() {
        warn(".ociVersion".into(), "is missing; assuming 1.3.0");
    }
    let count = view.spec.mounts().as_ref().map_or(0, Vec::len);
    if count > 0 && !view.has(Kind::Mount) {
        let why = "without a mount namespace these stay on the host until somebody unmounts them, \
                   with `umount -R` of the root file system";
        warn(".mounts".into(), why);
    }
    for (at, why) in mounts::doubtful(view) {
        warn(at, &why);
    }
    if let Some(process) = view.spec.process() {
        for (at, why) in process::doubtful(process, view.host) {
            warn(at, &why);
        }
    }
    let personality = view.linux.and_then(|linux| linux.personality().as_ref());
    let flags = personality.and_then(|personality| personality.flags().as_ref());
    if flags.is_some_and(|flags| !flags.is_empty()) {
        warn(
            ".linux.personality.flags".into(),
            "ignored: no flag is defined",
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::parse_spec;
    use crate::host::Facts;

    /// Checks a config.json whose `process` and `root` are there unless `fields` replaces them.
    pub(super) fn check(fields: &str, facts: Facts, asked: Asked) -> Result<Vec<Warning>> {
        let mut tree = serde_json::json!({
            "ociVersion": "1.3.0",
            "root": {"path": "rootfs"},
            "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["sh"]},
        });
        let fields: serde_json::Value = serde_json::from_str(fields).expect(fields);
        for (key, value) in fields.as_object().expect("an object") {
            tree[key] = value.clone();
        }
        let spec: Spec = serde_json::from_value(tree).expect("a config.json");
        validate(&spec, &Host::fixed(facts), asked)
    }

    /// The broken rule's path and words, or `ok`, then the warnings.
    pub(super) fn verdict(fields: &str, facts: Facts) -> String {
        match check(fields, facts, Asked::default()) {
            Ok(warnings) if warnings.is_empty() => "ok".into(),
            Ok(warnings) => warnings
                .iter()
                .map(|warning| format!("ok, {}: {}", warning.at, warning.why))
                .collect::<Vec<_>>()
                .join("; "),
            Err(error) => error.line(),
        }
    }

    /// Checks each row's `fields` on a host that is root, without LSMs: the verdict starts with the
    /// wanted text.
    pub(super) fn check_all(rows: &[(&str, &str)]) {
        for (fields, want) in rows {
            let got = verdict(fields, Facts::default());
            let got = got.strip_prefix("config.json: ").unwrap_or(&got);
            assert!(
                got.starts_with(want),
                "{fields}\nwanted {want}\ngot    {got}"
            );
            assert_eq!(got == "ok", *want == "ok", "{fields}: {got}");
        }
    }

    #[test]
    fn the_document_needs_a_version_a_root_and_a_process() {
        check_all(&[
            ("{}", "ok"),
            (r#"{"ociVersion":"1.0.0"}"#, "ok"),
            (r#"{"ociVersion":"1.0.2-dev"}"#, "ok"),
            (r#"{"ociVersion":"1.9.0"}"#, "ok"),
            (
                r#"{"ociVersion":"2.0.0"}"#,
                ".ociVersion: version \"2.0.0\" is not supported",
            ),
            (r#"{"ociVersion":"0.9.0"}"#, ".ociVersion: version"),
            (r#"{"ociVersion":"11.0.0"}"#, ".ociVersion: version"),
            (r#"{"ociVersion":"one"}"#, ".ociVersion: version"),
            (r#"{"ociVersion":""}"#, "ok, .ociVersion: is missing"),
            (r#"{"root":null}"#, ".root: root must be specified"),
            (r#"{"root":{"path":""}}"#, ".root.path: must not be empty"),
            (
                r#"{"process":null}"#,
                ".process: process property must not be empty",
            ),
        ]);
    }

    #[test]
    fn a_terminal_needs_someone_to_hold_it() {
        /// terminal, detach, console socket, wanted
        type Case = (bool, bool, bool, &'static str);
        const NEEDS: &str =
            "cannot allocate tty if runc will detach without setting console socket";
        const USELESS: &str = "cannot use console socket if runc will not detach or allocate tty";
        let cases: &[Case] = &[
            (false, false, false, "ok"),
            (false, true, false, "ok"),
            (true, false, false, "ok"),
            (true, true, true, "ok"),
            (true, true, false, NEEDS),
            (false, true, true, USELESS),
            (true, false, true, USELESS),
        ];
        for (terminal, detach, console_socket, want) in cases {
            let fields = format!(
                r#"{{"process":{{"user":{{}},"cwd":"/","args":["sh"],"terminal":{terminal}}}}}"#
            );
            let asked = Asked {
                detach: *detach,
                console_socket: *console_socket,
                ..Asked::default()
            };
            let got = check(&fields, Facts::default(), asked);
            let got = got.map_or_else(|error| error.line(), |_| "ok".into());
            assert!(
                got.starts_with(want),
                "{terminal} {detach} {console_socket}: {got}"
            );
        }
    }

    #[test]
    fn hooks_have_absolute_paths_and_positive_timeouts() {
        for kind in [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ] {
            let row = |hook: &str| format!(r#"{{"hooks":{{"{kind}":[{{"path":"/a"}},{hook}]}}}}"#);
            check_all(&[
                (&row(r#"{"path":"/b","timeout":1}"#), "ok"),
                (
                    &row(r#"{"path":"b"}"#),
                    &format!(".hooks.{kind}[1].path: b is not"),
                ),
                (&row(r#"{"path":""}"#), &format!(".hooks.{kind}[1].path: ")),
                (
                    &row(r#"{"path":"/b","timeout":0}"#),
                    &format!(".hooks.{kind}[1].timeout: must be more than 0"),
                ),
                (
                    &row(r#"{"path":"/b","timeout":-1}"#),
                    &format!(".hooks.{kind}[1].timeout: "),
                ),
            ]);
        }
    }

    #[test]
    fn an_annotation_has_a_key() {
        check_all(&[
            (r#"{"annotations":{"a":""}}"#, "ok"),
            (
                r#"{"annotations":{"":"a"}}"#,
                ".annotations[\"\"]: a key must not be empty",
            ),
        ]);
    }

    /// Every kind of section, small.
    const DOCUMENT: &str = r#"{
        "ociVersion": "1.3.0", "root": {"path": "r", "readonly": true}, "hostname": "h",
        "process": {"terminal": false, "consoleSize": {"height": 1, "width": 1},
            "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [1]},
            "args": ["a"], "env": ["A=b"], "cwd": "/", "noNewPrivileges": true,
            "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}], "oomScoreAdj": 1,
            "scheduler": {"policy": "SCHED_OTHER", "nice": 1},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1},
            "execCPUAffinity": {"initial": "0", "final": "0-1"}},
        "mounts": [{"destination": "/m", "type": "tmpfs", "source": "t", "options": ["ro"]}],
        "hooks": {"poststop": [{"path": "/h", "args": ["h"], "env": ["A=b"], "timeout": 1}]},
        "annotations": {"a": "b"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/n"}],
            "devices": [{"path": "/dev/d", "type": "c", "major": 1, "minor": 3, "fileMode": 438}],
            "resources": {"devices": [{"allow": true, "type": "c", "access": "r", "major": 1}],
                "memory": {"limit": 1}, "cpu": {"shares": 2, "cpus": "0"}, "pids": {"limit": 3},
                "unified": {"a.b": "c"}, "hugepageLimits": [{"pageSize": "2MB", "limit": 1}]},
            "cgroupsPath": "/c", "rootfsPropagation": "slave", "maskedPaths": ["/x"],
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"],
                "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}]},
            "personality": {"domain": "LINUX"}, "intelRdt": {"closID": "c"},
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": []},
            "netDevices": {"e": {"name": "f"}}}
    }"#;

    /// Replaces the node at `place` (counted in reading order) by `odd`; says whether it is there.
    fn replace(tree: &mut serde_json::Value, place: &mut usize, odd: &serde_json::Value) -> bool {
        use serde_json::Value;
        if *place == 0 {
            *tree = odd.clone();
            return true;
        }
        *place -= 1;
        match tree {
            Value::Array(items) => items.iter_mut().any(|item| replace(item, place, odd)),
            Value::Object(members) => members.values_mut().any(|value| replace(value, place, odd)),
            _ => false,
        }
    }

    #[test]
    fn an_odd_value_anywhere_gives_one_line_with_its_place() {
        let odd = serde_json::json!([null, -1, 1.5, "", "\u{0}", [], {}]);
        let whole: serde_json::Value = serde_json::from_str(DOCUMENT).unwrap();
        let (mut accepted, mut refused) = (0, 0);
        for odd in odd.as_array().unwrap() {
            for place in 1.. {
                let mut tree = whole.clone();
                if !replace(&mut tree, &mut place.clone(), odd) {
                    break;
                }
                let spec = parse_spec(tree.to_string().as_bytes(), "config.json");
                let host = Host::fixed(Facts::default());
                let done = spec.and_then(|spec| validate(&spec, &host, Asked::default()));
                match done {
                    Ok(_) => accepted += 1,
                    Err(error) => {
                        refused += 1;
                        let line = error.line();
                        assert!(
                            line.starts_with("config.json: ."),
                            "{odd} at {place}: {line}"
                        );
                        assert!(!line.contains('\n') && line.len() < 600, "{line}");
                    }
                }
            }
        }
        assert!(accepted > 100 && refused > 500, "{accepted} {refused}");
    }
}
