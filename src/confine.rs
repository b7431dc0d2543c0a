//! Takes from keel what it does not need while it waits for a container in the foreground, and to
//! remove it.
//!
//! Not before the container's process is there: it would inherit all of it. What this kernel does not
//! have is done without, as it guards against bugs of keel that nobody knows. Not for containers whose
//! hooks are still to be run: those are other programs.
//!
//! Sources: landlock(7), seccomp(2).

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::state::Record;
use crate::sys::{landlock, proc};

/// What waiting, relaying a terminal and removing a container take.
const CALLS: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_futex,
    libc::SYS_getdents64,
    libc::SYS_geteuid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_ioctl,
    libc::SYS_kill,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_renameat2,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_unlinkat,
    libc::SYS_waitid,
    libc::SYS_write,
    libc::SYS_writev,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

/// To ask systemd for the end of a unit.
const FOR_SYSTEMD: &[c_long] = &[
    libc::SYS_connect,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socket,
];

/// New memory, and what memory may be used for: not for code.
const WITHOUT_CODE: &[c_long] = &[libc::SYS_mmap, libc::SYS_mprotect];

/// Confines keel to what waiting for the container of `record`, and removing it, takes.
/// `directory` is the container's, below the root directory.
pub fn to_waiting(record: &Record, directory: &Path) {
    if record.has_later_hooks {
        return;
    }
    let Some(filter) = filter(record.cgroup.unit.is_some()) else {
        return;
    };
    if proc::set_no_new_privs().is_err() {
        return;
    }
    let places = [directory.parent().unwrap_or(directory)]
        .into_iter()
        .chain(
            record
                .cgroup
                .hierarchies
                .iter()
                .map(|it| Path::new(&it.mount)),
        )
        .chain(record.intel_rdt.iter().map(|it| it.root.as_path()));
    let places: Vec<OwnedFd> = places
        .filter_map(|path| File::open(path).ok())
        .map(OwnedFd::from)
        .collect();
    let _ = landlock::write_only_below(places.iter().map(AsFd::as_fd));
    let _ = seccompiler::apply_filter(&filter);
}

/// The filter: what is not listed is not permitted.
fn filter(with_systemd: bool) -> Option<BpfProgram> {
    const PROT: u8 = 2;
    let code = libc::PROT_EXEC.unsigned_abs().into();
    let no_code = SeccompCondition::new(PROT, Length::Dword, Compare::MaskedEq(code), 0).ok()?;
    let no_code = SeccompRule::new(vec![no_code]).ok()?;
    let always = CALLS
        .iter()
        .chain(if with_systemd { FOR_SYSTEMD } else { &[] });
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        always.map(|number| (*number, Vec::new())).collect();
    rules.extend(
        WITHOUT_CODE
            .iter()
            .map(|number| (*number, vec![no_code.clone()])),
    );
    let not_permitted = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    let filter = SeccompFilter::new(rules, not_permitted, SeccompAction::Allow, arch).ok()?;
    filter.try_into().ok()
}

#[cfg(test)]
mod tests {
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
                to_waiting(record, container);
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
