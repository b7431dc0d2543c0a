//! Takes from keel what it does not need while it waits for a process in the foreground, and to remove
//! the container after it.
//!
//! Not before the container's process is there: it would inherit all of it. What this kernel does not
//! have is done without, as it guards against bugs of keel that nobody knows. Not for containers whose
//! hooks are still to be run: those are other programs.
//!
//! Sources: landlock(7), seccomp(2).

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use libc::{EPERM, PROT_EXEC};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};
use seccompiler::sock_filter;

use crate::plan::seccomp::{self, Insn};
use crate::state::Record;
use crate::sys::{landlock, proc};

/// What waiting and relaying a terminal take. A machine has not all of them; where it has an older and
/// a newer form of one, glibc makes the newer, musl the older.
const WAITING: &[&str] = &[
    "brk",
    "clock_gettime",
    "clock_nanosleep",
    "close",
    "exit",
    "exit_group",
    "fcntl",
    "fstat",
    "futex",
    "getpid",
    "getrandom",
    "gettid",
    "ioctl",
    "kill",
    "madvise",
    "mremap",
    "munmap",
    "newfstatat",
    "pidfd_send_signal",
    "poll",
    "ppoll",
    "read",
    "recvfrom",
    "recvmsg",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_yield",
    "sendmsg",
    "sendto",
    "tgkill",
    "tkill",
    "waitid",
    "write",
    "writev",
];

/// What removing a container takes besides.
const REMOVING: &[&str] = &[
    "flock",
    "fstatfs",
    "getdents64",
    "geteuid",
    "lseek",
    "lstat",
    "nanosleep",
    "open",
    "openat",
    "openat2",
    "pidfd_open",
    "pipe2",
    "readlink",
    "readlinkat",
    "rename",
    "renameat2",
    "rmdir",
    "stat",
    "statfs",
    "statx",
    "unlink",
    "unlinkat",
];

/// To ask systemd for the end of a unit.
const FOR_SYSTEMD: &[&str] = &["connect", "getsockopt", "setsockopt", "shutdown", "socket"];

/// New memory, and what memory may be used for: not for code.
const WITHOUT_CODE: &[&str] = &["mmap", "mprotect"];

/// Confines keel to what waiting for a process takes. Nothing is to be removed after it.
pub fn to_waiting() {
    confine(&[WAITING], &[]);
}

/// Confines keel to what waiting for the container of `record`, and removing it, takes.
/// `directory` is the container's, below the root directory.
pub fn to_removing(record: &Record, directory: &Path) {
    if record.has_later_hooks {
        return;
    }
    let cgroup = &record.cgroup;
    let places = [directory.parent().unwrap_or(directory)]
        .into_iter()
        .chain(cgroup.hierarchies.iter().map(|it| Path::new(&it.mount)))
        .chain(record.intel_rdt.iter().map(|it| it.root.as_path()));
    let places: Vec<OwnedFd> = places
        .filter_map(|path| File::open(path).ok())
        .map(OwnedFd::from)
        .collect();
    match cgroup.unit {
        None => confine(&[WAITING, REMOVING], &places),
        Some(_) => confine(&[WAITING, REMOVING, FOR_SYSTEMD], &places),
    }
}

/// Permits `calls`, and to change files below `places`.
fn confine(calls: &[&[&str]], places: &[OwnedFd]) {
    let Some(filter) = program(calls) else {
        return;
    };
    if proc::set_no_new_privs().is_err() {
        return;
    }
    let _ = landlock::write_only_below(places.iter().map(AsFd::as_fd));
    let _ = seccompiler::apply_filter(&filter);
}

/// The filter, compiled as a container's is: seccompiler's own form of it, one comparison after the
/// other, has five times as many instructions for the kernel to translate at each start.
fn program(calls: &[&[&str]]) -> Option<Vec<sock_filter>> {
    let filter = seccomp::compile(&filter(calls).ok()?).ok()?;
    let instruction = |insn: &Insn| sock_filter {
        code: insn.code,
        jt: insn.jt,
        jf: insn.jf,
        k: insn.k,
    };
    Some(filter.program.iter().map(instruction).collect())
}

/// What is not listed is not permitted.
fn filter(calls: &[&[&str]]) -> Result<LinuxSeccomp, OciSpecError> {
    const PROT: usize = 2;
    let no_code = LinuxSeccompArgBuilder::default()
        .index(PROT)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .value(u64::from(PROT_EXEC.unsigned_abs()))
        .value_two(0u64)
        .build()?;
    let allowed = |names: Vec<String>| {
        LinuxSyscallBuilder::default()
            .names(names)
            .action(Action::ScmpActAllow)
    };
    let names = |lists: &[&[&str]]| lists.concat().into_iter().map(str::to_owned).collect();
    let rules: Vec<LinuxSyscall> = vec![
        allowed(names(calls)).build()?,
        allowed(names(&[WITHOUT_CODE]))
            .args(vec![no_code])
            .build()?,
    ];
    LinuxSeccompBuilder::default()
        .default_action(Action::ScmpActErrno)
        .default_errno_ret(EPERM.unsigned_abs())
        .syscalls(rules)
        .build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cgroups::{Hierarchy, Manager, Saved, Version};

    fn record(mount: &Path) -> Record {
        let hierarchy = Hierarchy {
            mount: mount.to_str().unwrap().into(),
            path: "c".into(),
            controllers: Vec::new(),
            inode: None,
        };
        let cgroup = Saved {
            manager: Manager::Cgroupfs,
            version: Version::V2,
            hierarchies: vec![hierarchy],
            unit: None,
            rootless: false,
            asked: false,
            owner: None,
        };
        Record {
            oci_version: "1.3.0".into(),
            id: "c".into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-01-01T00:00:00Z".into(),
            annotations: BTreeMap::new(),
            init: None,
            complete: true,
            cgroup,
            intel_rdt: None,
            own_pid_namespace: true,
            has_later_hooks: false,
        }
    }

    /// In a thread of its own, as the confinement is the thread's.
    fn confined<T: Send>(record: &Record, container: &Path, act: impl Send + FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                to_removing(record, container);
                act()
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn a_keel_that_waits_can_remove_the_container_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let [root, cgroups, other] = ["root", "cgroups", "other"].map(|name| dir.path().join(name));
        for made in [root.join("c"), cgroups.join("c"), other.join("sub")] {
            std::fs::create_dir_all(made).unwrap();
        }
        std::fs::write(other.join("file"), "kept").unwrap();
        confined(&record(&cgroups), &root.join("c"), || {
            std::fs::write(root.join("c/state.json"), "{}").unwrap();
            std::fs::remove_file(root.join("c/state.json")).unwrap();
            std::fs::remove_dir(root.join("c")).unwrap();
            std::fs::remove_dir(cgroups.join("c")).unwrap();
            assert!(std::fs::read("/proc/self/status").is_ok());

            // Else the kernel has no Landlock.
            let has_landlock = std::fs::write(other.join("new"), "").is_err();
            let is_eperm = |error: std::io::Error| error.raw_os_error() == Some(libc::EPERM);
            assert!(is_eperm(std::fs::create_dir(other.join("d")).unwrap_err()));
            assert!(is_eperm(
                std::os::unix::net::UnixStream::pair().unwrap_err()
            ));
            assert!(std::process::Command::new("/bin/true").status().is_err());
            if has_landlock {
                assert!(std::fs::write(other.join("file"), "").is_err());
                assert!(std::fs::remove_file(other.join("file")).is_err());
                assert!(std::fs::remove_dir(other.join("sub")).is_err());
            }
        });
    }

    /// Every number that a call can have, by each door of the kernel: what is not listed is refused, and
    /// memory is never made executable.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn no_other_call_passes_by_any_door() {
        const X86_64: u32 = 0xc000_003e;
        const I386: u32 = 0x4000_0003;
        const X32: u32 = 0x4000_0000;
        let mut calls = Vec::new();
        for nr in 0..2048 {
            for protection in [0, 1, 4, 7, u64::MAX] {
                let args = [0, 0, protection, 0, 0, 0];
                calls.extend([
                    (X86_64, nr, args),
                    (X86_64, nr | X32, args),
                    (I386, nr, args),
                ]);
            }
        }
        for lists in [
            &[WAITING][..],
            &[WAITING, REMOVING],
            &[WAITING, REMOVING, FOR_SYSTEMD],
        ] {
            seccomp::tests::plain::assert_agreement(&filter(lists).unwrap(), 0, &calls);
        }
    }

    #[test]
    fn hooks_that_are_still_to_come_are_not_confined() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = record(dir.path());
        record.has_later_hooks = true;
        confined(&record, dir.path(), || {
            assert!(
                std::process::Command::new("/bin/true")
                    .status()
                    .unwrap()
                    .success()
            );
        });
    }
}
