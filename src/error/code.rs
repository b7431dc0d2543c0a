//! The codes that a failure has in the JSON log, for programs that act on it.
//!
//! A code never changes its meaning. `docs/errors.md` is [`table`], which a test compares.

use std::fmt::Write as _;

/// One of [`Code::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Its name in the log.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

macro_rules! codes {
    ($($constant:ident $name:literal $meaning:literal $remedy:literal)*) => {
        #[allow(missing_docs, reason = "each has its meaning")]
        impl Code {
            $(pub const $constant: Self = Self {
                name: $name,
                meaning: $meaning,
                remedy: $remedy,
            };)*

            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$constant,)*];
        }
    };
}

codes! {
    CONTAINER_NOT_FOUND "container-not-found"
        "There is no container of this name under the root directory."
        "Look at `keel list`, and at `--root`."
    CONTAINER_EXISTS "container-exists"
        "The name is taken."
        "Delete the other container, or choose another name."
    CONTAINER_NOT_RUNNING "container-not-running"
        "The container's first process has ended."
        "Delete the container."
    WRONG_STATUS "wrong-status"
        "The container's status does not allow the command."
        "Bring it into the status that the message names first."
    USAGE "usage"
        "The command line asks for something that cannot be."
        "Correct the flag that the message names; `keel VERB --help` has an example."
    CONFIG_INVALID "config-invalid"
        "A file breaks a rule; `file` and `at` (a JSON path) say where."
        "Correct the value at that path."
    PROGRAM_NOT_FOUND "program-not-found"
        "The program is not in the container."
        "Correct `process.args`, or `PATH` in `process.env`."
    PROGRAM_NOT_EXECUTABLE "program-not-executable"
        "The program is there but cannot be executed."
        "Look at its permissions, its format and its interpreter."
    WORKING_DIRECTORY "working-directory"
        "The working directory cannot be entered."
        "Correct `process.cwd`, or the permissions on the way to it."
    MOUNT_FAILED "mount-failed"
        "A mount cannot be made or removed; `item` is its index in `mounts`."
        "Look at its source, type and options, and whether its mount point can be made."
    DEVICE_FAILED "device-failed"
        "A device cannot be made; `item` is its index among the devices."
        "Look whether the host has it, and what the image has in its place."
    NAMESPACE_FAILED "namespace-failed"
        "A namespace cannot be made or joined, or ids cannot be mapped."
        "Look at the limits in `/proc/sys/user`, at `/etc/subuid` and `/etc/subgid`."
    IDENTITY_FAILED "identity-failed"
        "User, groups, capabilities or limits cannot be set."
        "Give ids that the container's user namespace maps, and rights that the caller has."
    SECURITY_FAILED "security-failed"
        "A seccomp filter, AppArmor profile or SELinux label cannot be applied."
        "Look whether the host has it loaded and enabled."
    NOT_AS_ASKED "not-as-asked"
        "With `--verify`: the kernel has not done what it was asked for; the container is stopped."
        "Look what is between keel and the kernel: a seccomp filter, an emulation; or report it."
    HOOK_FAILED "hook-failed"
        "A hook could not be run, failed, or took too long."
        "Look at what it printed, at the end of the message."
    OOM_KILLED "oom-killed"
        "The container's process was killed before it executed its program."
        "Raise the memory limit."
    BREAKOUT "breakout"
        "The working directory lies outside the container."
        "Do not run this image: it tries to break out."
    CRIU_FAILED "criu-failed"
        "CRIU cannot save or restore the container."
        "Read CRIU's log, which the message names."
    STATE_DAMAGED "state-damaged"
        "What keel keeps of the container cannot be read."
        "Delete the container by force."
    PERMISSION_DENIED "permission-denied"
        "The caller may not do this on the host; `call` and `on` say what."
        "Run keel with the rights for it, or rootless with a user namespace."
    HOST_CALL_FAILED "host-call-failed"
        "A system call of the runtime failed; `call`, `on` and `errno` say which and why."
        "Look at the file or object that `on` names."
    SETUP_FAILED "setup-failed"
        "The container's process stopped at a step; `step`, `item` and `errno` say where and why."
        "Look at the value of config.json that the step carries out."
    FAILED "failed"
        "Anything else."
        "Read the message."
}

impl Code {
    /// The code of a process that stopped at `step`, a name in kebab case of `plan::Step`.
    pub fn of_step(step: &str, errno: Option<i32>) -> Self {
        match (step, errno) {
            ("look-up" | "exec", Some(libc::ENOENT)) => Self::PROGRAM_NOT_FOUND,
            ("look-up" | "exec", _) => Self::PROGRAM_NOT_EXECUTABLE,
            ("change-directory" | "working-directory", _) => Self::WORKING_DIRECTORY,
            (step, _) if step.ends_with("-hook") => Self::HOOK_FAILED,
            ("device" | "dev-directory" | "dev-link", _) => Self::DEVICE_FAILED,
            ("born" | "join" | "become-root" | "unshare", _) => Self::NAMESPACE_FAILED,
            ("seccomp" | "seccomp-listener" | "app-armor" | "selinux", _) => Self::SECURITY_FAILED,
            ("bounding" | "groups" | "gid" | "uid" | "capabilities" | "rlimit", _) => {
                Self::IDENTITY_FAILED
            }
            ("copy-up" | "unmount" | "readonly-mount", _) => Self::MOUNT_FAILED,
            (step, _) if step.starts_with("mount-") => Self::MOUNT_FAILED,
            _ => Self::SETUP_FAILED,
        }
    }
}

/// `docs/errors.md`.
pub fn table() -> String {
    let mut text = String::from(
        "# Error codes\n\n\
        With `--log-format json` the record of a failure has, besides `level`, `msg` and `time`:\n\n\
        - `code`, one of those below, which never change their meaning;\n\
        - `remedy`, what to do about it;\n\
        - `errno`, the kernel's name of its reason (`EACCES`), where a system call failed;\n\
        - `step` and `item`, where the container's process stopped, and at which entry of the list\n  \
          that the step carries out;\n\
        - `call` and `on`, the runtime's own call, and to what it was applied;\n\
        - `file` and `at`, the file that breaks a rule, and the JSON path in it;\n\
        - `warnings`, what was noted before.\n\n\
        | code | meaning | remedy |\n|---|---|---|\n",
    );
    for Code {
        name,
        meaning,
        remedy,
    } in Code::ALL
    {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{name}` | {meaning} | {remedy} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_table_is_complete() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md");
        let written = std::fs::read_to_string(file).unwrap_or_default();
        assert_eq!(
            written,
            table(),
            "make docs, then copy target/docs/errors.md to docs/"
        );
    }

    #[test]
    fn names_are_kebab_case_and_different() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name).collect();
        assert!(names.iter().all(|name| {
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        }));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
