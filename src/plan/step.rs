//! The steps of the child, in order, and the frame in which it reports on them.

use std::io;

use super::Plan;
use super::hooks::Hook;
use super::mounts::What;
use super::namespaces;
use super::text::shown;
use crate::error::Error;
use crate::error::code::Code;

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Parent to child: go on.
    Go = 1,
    /// Child to parent: this step is reached, and the child waits for [`Kind::Go`].
    Reached = 2,
    /// Child to parent: this step failed, and the child is gone.
    Fault = 3,
}

/// An enum of the names listed, numbered from 1, and all of them in that order as `ALL`.
macro_rules! numbered {
    ($(#[$meta:meta])* pub enum $name:ident { $first:ident, $($rest:ident,)* }) => {
        $(#[$meta])*
        pub enum $name {
            $first = 1,
            $($rest,)*
        }

        impl $name {
            /// All of them, for turning a byte of a frame back.
            const ALL: &[Self] = &[Self::$first, $(Self::$rest,)*];
        }
    };
}

numbered! {
    /// Everything the child does that can fail, in the order in which it does it.
    ///
    /// Order and reasons: security reference, "Order of container init".
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[repr(u8)]
    #[allow(
        missing_docs,
        reason = "the names are the kernel's, and `describe` has a text for each"
    )]
    pub enum Step {
        Born,
        EnterCgroup,
        Join,
        BecomeRoot,
        Unshare,
        Session,
        Keyring,
        Loopback,
        Propagation,
        Rootfs,
        MountSource,
        MountIdMap,
        MountOption,
        MountCreate,
        MountTarget,
        MountUnsafe,
        MountAttach,
        MountAttr,
        MountPropagation,
        CopyUp,
        DevDirectory,
        Device,
        DevLink,
        Mounted,
        CreateContainerHook,
        Console,
        ReadonlyPath,
        MaskedPath,
        WorkingDirectory,
        ReadonlyMount,
        Sysctl,
        Pivot,
        RootPropagation,
        Hostname,
        Domainname,
        AppArmor,
        NoNewPrivs,
        CpuAffinity,
        Scheduler,
        IoPriority,
        Personality,
        MemoryPolicy,
        Selinux,
        Bounding,
        Stdio,
        Groups,
        Gid,
        Uid,
        ChangeDirectory,
        OutsideRoot,
        Capabilities,
        Home,
        LookUp,
        Appear,
        SeccompListener,
        Created,
        Gate,
        StartContainerHook,
        Rlimit,
        Seccomp,
        CloseFds,
        Exec,
        Unmount,
    }
}

/// One message between parent and child: eight bytes, whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What it says.
    pub kind: Kind,
    /// The step it is about.
    pub step: Step,
    /// Which item of the step's list.
    pub item: u16,
    /// For a fault: the errno, or for a hook [`HOOK_EXITED`] or [`HOOK_TIMEOUT`]; else a value of
    /// the step's own.
    pub errno: i32,
}

/// Added to a hook's exit code (0 to 255) to tell it from an errno.
pub const HOOK_EXITED: i32 = 10_000;
/// A hook that ran past its timeout.
pub const HOOK_TIMEOUT: i32 = 20_000;

impl Frame {
    /// The frame's size on the wire.
    pub const SIZE: usize = 8;

    /// The frame as it is sent.
    pub const fn to_bytes(self) -> [u8; Self::SIZE] {
        let (item, errno) = (self.item.to_ne_bytes(), self.errno.to_ne_bytes());
        [
            self.kind as u8,
            self.step as u8,
            item[0],
            item[1],
            errno[0],
            errno[1],
            errno[2],
            errno[3],
        ]
    }

    /// The frame in `bytes`, or nothing if they are not one.
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Option<Self> {
        let [kind, step, i0, i1, e0, e1, e2, e3] = bytes;
        let kind = [Kind::Go, Kind::Reached, Kind::Fault]
            .into_iter()
            .find(|k| *k as u8 == kind)?;
        let step = Step::ALL
            .iter()
            .copied()
            .find(|other| *other as u8 == step)?;
        let (item, errno) = (
            u16::from_ne_bytes([i0, i1]),
            i32::from_ne_bytes([e0, e1, e2, e3]),
        );
        Some(Self {
            kind,
            step,
            item,
            errno,
        })
    }
}

impl Plan {
    /// The error that a [`Kind::Fault`] frame stands for, in words that callers match.
    pub fn explain(&self, fault: Frame) -> Error {
        let program = self
            .process
            .args
            .strings()
            .first()
            .map(|name| name.to_string_lossy());
        let program = program.unwrap_or_default();
        let step = match fault.step {
            Step::LookUp => return self.explain_lookup(&program, fault),
            Step::Exec => format!("exec {program}"),
            Step::CreateContainerHook => return hook(fault, &self.create_container),
            Step::StartContainerHook => return hook(fault, &self.start_container),
            Step::Unmount if matches!(fault.errno, libc::EINVAL | libc::ELOOP) => {
                let target = self.mounts.get(usize::from(fault.item));
                let target = target.map(|mount| shown(&mount.target)).unwrap_or_default();
                let why = match fault.errno {
                    libc::ELOOP => "is reached through a symbolic link: name the mount itself",
                    _ => "is no mount point of the container",
                };
                return Error::Known(Code::MOUNT_FAILED, format!("{target} {why}"));
            }
            Step::Scheduler if fault.errno == libc::EPERM => format!(
                "{} (process scheduler can't be used together with AllowedCPUs; some policies need \
                 CAP_SYS_NICE, and on cgroup v1 .linux.resources.cpu.realtimeRuntime)",
                self.describe(fault.step, fault.item)
            ),
            Step::OutsideRoot => {
                return Error::Known(
                    Code::BREAKOUT,
                    "current working directory is outside of container mount namespace root \
                     -- possible container breakout detected"
                        .into(),
                );
            }
            Step::ChangeDirectory => {
                let cwd = self.process.cwd.to_string_lossy();
                format!("chdir to cwd ({cwd:?}) set in config.json failed")
            }
            _ => self.describe(fault.step, fault.item),
        };
        stopped(step, fault)
    }

    fn explain_lookup(&self, program: &str, fault: Frame) -> Error {
        match fault.errno {
            libc::ENOENT | libc::ENOTDIR if program.contains('/') => {
                stopped(format!("exec: {program:?}: stat {program}"), fault)
            }
            libc::ENOENT => Error::Known(
                Code::PROGRAM_NOT_FOUND,
                format!("exec: {program:?}: executable file not found in $PATH"),
            ),
            // execve would say `EACCES`, the words that podman 4 and Docker 20.10 make 126 of.
            libc::EISDIR => {
                let errno = libc::EACCES;
                let step = format!("exec: {program:?}: is a directory");
                stopped(step, Frame { errno, ..fault })
            }
            _ => stopped(format!("exec: {program:?}"), fault),
        }
    }

    /// What the step does, to which item: `mount 4 of 11 (tmpfs on /run)`.
    #[expect(clippy::too_many_lines, reason = "a table with one line for each step")]
    pub fn describe(&self, step: Step, item: u16) -> String {
        let index = usize::from(item);
        let nth = |list: &[std::ffi::CString]| {
            list.get(index).map(|path| shown(path)).unwrap_or_default()
        };
        match step {
            Step::Born => "start the container's process".into(),
            Step::EnterCgroup => format!("enter the cgroup of hierarchy {index}"),
            Step::Join => {
                let join = self.namespaces.joins.get(index);
                let (kind, path) = join.map_or(("", String::new()), |join| {
                    (namespaces::name(join.kind), join.path.display().to_string())
                });
                format!("join the {kind} namespace {path}")
            }
            Step::BecomeRoot => "become root of the user namespace".into(),
            Step::Unshare => "make the ipc or cgroup namespace".into(),
            Step::Session => "start a session".into(),
            Step::Keyring => "join a new session keyring".into(),
            Step::Loopback => "bring up the loopback interface".into(),
            Step::Propagation => "take the host's mounts out of propagation".into(),
            Step::Rootfs => format!("mount the root file system {}", shown(&self.rootfs)),
            Step::MountSource => format!("{}: open the source", self.mount(index)),
            Step::MountIdMap => format!("{}: map the owners of its files", self.mount(index)),
            Step::MountOption => {
                let options = self.mount_options(index);
                format!("{}: set its options {options}", self.mount(index))
            }
            Step::MountCreate => self.mount(index),
            Step::MountTarget => format!("{}: make the mount point", self.mount(index)),
            Step::MountUnsafe => {
                format!(
                    "{}: must be mounted on ordinary directory",
                    self.mount(index)
                )
            }
            Step::MountAttach => format!("{}: attach it", self.mount(index)),
            Step::MountAttr => format!("{}: set its attributes (mount_setattr)", self.mount(index)),
            Step::MountPropagation => format!("{}: set its propagation", self.mount(index)),
            Step::CopyUp => format!("{}: copy what it covers", self.mount(index)),
            Step::DevDirectory => "open /dev of the container".into(),
            Step::Device => {
                let path = self.devices.get(index).map(|device| shown(&device.path));
                format!("make the device {}", path.unwrap_or_default())
            }
            Step::DevLink => "make the links in /dev".into(),
            Step::Mounted => "wait for the runtime's hooks".into(),
            Step::CreateContainerHook => format!("run createContainer hook #{item}"),
            Step::Console => "set up the console".into(),
            Step::ReadonlyPath => format!("make {} read-only", nth(&self.readonly_paths)),
            Step::MaskedPath => format!("mask {}", nth(&self.masked_paths)),
            Step::WorkingDirectory => {
                format!("mkdir {} (the process's cwd)", shown(&self.process.cwd))
            }
            Step::ReadonlyMount if index < self.mounts.len() => {
                format!("{}: make it read-only", self.mount(index))
            }
            Step::ReadonlyMount => "make the root file system read-only".into(),
            Step::Sysctl => {
                let key = self.settings.sysctl.get(index).map(|(key, _)| shown(key));
                format!("write sysctl {}", key.unwrap_or_default())
            }
            Step::Pivot => "enter the root file system".into(),
            Step::RootPropagation => "set the propagation of the root file system".into(),
            Step::Hostname => "set the hostname".into(),
            Step::Domainname => "set the domainname".into(),
            Step::AppArmor => "apply the AppArmor profile".into(),
            Step::NoNewPrivs => "set no_new_privs".into(),
            Step::CpuAffinity => "set the CPU affinity .process.execCPUAffinity".into(),
            Step::Scheduler => "set the scheduling policy".into(),
            Step::IoPriority => "set the I/O priority".into(),
            Step::Personality => "set the execution domain".into(),
            Step::MemoryPolicy => "set the memory policy".into(),
            Step::Selinux => "apply the SELinux label".into(),
            Step::Bounding => "limit the bounding capabilities".into(),
            Step::Stdio => "hand over the standard streams".into(),
            Step::Groups => "set the supplementary groups".into(),
            Step::Gid => format!("set the group id to {}", self.process.gid),
            Step::Uid => format!("set the user id to {}", self.process.uid),
            Step::ChangeDirectory => format!("change to {}", shown(&self.process.cwd)),
            Step::OutsideRoot => "check the working directory".into(),
            Step::Capabilities => "set the capabilities".into(),
            Step::Home => "read the container's /etc/passwd".into(),
            Step::LookUp => "look up the program".into(),
            Step::Appear => "clone into the container's pid namespace".into(),
            Step::SeccompListener => "hand over the seccomp listener".into(),
            Step::Created => "report that the container is created".into(),
            Step::Gate => "wait for start".into(),
            Step::StartContainerHook => format!("run startContainer hook #{item}"),
            Step::Rlimit => format!("set the limit .process.rlimits[{item}]"),
            Step::Seccomp => "load the seccomp filter".into(),
            Step::CloseFds => "close the runtime's descriptors".into(),
            Step::Exec => "execute the program".into(),
            Step::Unmount => format!("remove {}", self.mount(index)),
        }
    }

    fn mount(&self, index: usize) -> String {
        let Some(mount) = self.mounts.get(index) else {
            return "mount".into();
        };
        let what = match &mount.what {
            What::New { fs, .. } => shown(fs),
            What::Bind { source, .. } => shown(source),
        };
        let (number, count) = (index + 1, self.mounts.len());
        format!(
            "mount {number} of {count} ({what} on {})",
            shown(&mount.target)
        )
    }

    /// What the file system itself was asked for, in quotes.
    fn mount_options(&self, index: usize) -> String {
        let Some(What::New { params, .. }) = self.mounts.get(index).map(|mount| &mount.what) else {
            return String::new();
        };
        let word = |(key, value): &(std::ffi::CString, Option<std::ffi::CString>)| match value {
            Some(value) => format!("{}={}", shown(key), shown(value)),
            None => shown(key),
        };
        let words: Vec<String> = params.iter().map(word).collect();
        format!("{:?}", words.join(","))
    }
}

/// The error of a process that stopped at a step; `step` is what it was doing, in words.
fn stopped(step: String, fault: Frame) -> Error {
    Error::Setup {
        step,
        at: (fault.step.name(), fault.item),
        errno: io::Error::from_raw_os_error(fault.errno),
    }
}

impl Step {
    /// Its name in kebab case, for the JSON log.
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

/// The error of a hook that the child has run.
fn hook(fault: Frame, hooks: &[Hook]) -> Error {
    let kind = match fault.step {
        Step::CreateContainerHook => "createContainer",
        _ => "startContainer",
    };
    let at = format!("error running {kind} hook #{}", fault.item);
    match fault.errno {
        HOOK_TIMEOUT => {
            let why = format!("{at}: hook ran past its timeout");
            Error::Known(Code::HOOK_FAILED, why)
        }
        code if code >= HOOK_EXITED => {
            let why = match code - HOOK_EXITED {
                // 128 and the number of a signal; with this one the kernel enforces a seccomp filter.
                code if code == 128 + libc::SIGSYS => {
                    "signal: bad system call (see .linux.seccomp)".into()
                }
                code => format!("exit status {code}"),
            };
            Error::Known(Code::HOOK_FAILED, format!("{at}: {why}"))
        }
        _ => {
            let step = match hooks.get(usize::from(fault.item)) {
                Some(hook) => format!("{at}: fork/exec {}", shown(&hook.path)),
                None => at,
            };
            stopped(step, fault)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_survives_the_wire() {
        for step in Step::ALL {
            let frame = Frame {
                kind: Kind::Fault,
                step: *step,
                item: 7,
                errno: -5,
            };
            assert_eq!(Frame::from_bytes(frame.to_bytes()), Some(frame));
        }
        assert_eq!(Step::ALL.len(), Step::Unmount as usize);
    }

    #[test]
    fn a_step_has_a_name_of_small_letters() {
        assert_eq!(Step::MountAttach.name(), "mount-attach");
        assert_eq!(Step::Uid.name(), "uid");
    }

    #[test]
    fn what_is_not_a_frame_is_not_read_as_one() {
        assert_eq!(Frame::from_bytes([0; 8]), None);
        assert_eq!(Frame::from_bytes([3, 255, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Frame::from_bytes([9, 1, 0, 0, 0, 0, 0, 0]), None);
    }
}
