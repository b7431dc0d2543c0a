//! `--verify`: looks from outside at what the kernel has made of a process, before its program runs
//! and once it does, and names what is not as config.json wants it.
//!
//! The process itself has asked for all of this and heard no error. A kernel that only says so, a
//! seccomp filter around the runtime that answers in its place, or a mistake of keel's shows here.
//! Sources: proc_pid_status(5), proc_pid_ns(5), statfs(2).

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::error::code::Code;
use crate::error::{Error, Result};
use crate::plan::{Plan, namespaces};
use crate::sys::{Errno, fd, path};

mod labels;

/// Whether to look.
#[derive(Clone, Copy, Debug)]
pub struct Verify(pub bool);

impl Verify {
    /// Looks at process `pid`, which waits before its program, for what `plan` wants.
    ///
    /// # Errors
    /// [`Code::NOT_AS_ASKED`] with the first difference.
    pub fn waiting(self, plan: &Plan, pid: i32) -> Result<()> {
        if !self.0 {
            return Ok(());
        }
        let status = Status::of(pid)?.ok_or(Error::NotRunning)?;
        status.check(plan)?;
        check_namespaces(plan, pid)?;
        check_paths(plan, pid)
    }

    /// Looks at process `pid`, which has executed its program, for the filter that it has loaded just
    /// before, and for the labels that execve has given it. A program that has ended is past harm.
    ///
    /// # Errors
    /// As [`Verify::waiting`].
    pub fn running(self, plan: &Plan, pid: i32) -> Result<()> {
        if !self.0 {
            return Ok(());
        }
        labels::check(&plan.process, pid)?;
        if plan.seccomp.is_none() {
            return Ok(());
        }
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        match (Status::of(pid)?, Status::of(own)?) {
            (Some(status), Some(own)) => status.check_filter(own.filters),
            _ => Ok(()),
        }
    }
}

fn differs(what: impl Display) -> Error {
    Error::Known(Code::NOT_AS_ASKED, format!("verify: {what}"))
}

/// What a process is, out of `/proc/PID/status`.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    /// Real, effective, saved and file system id.
    uids: Vec<u32>,
    gids: Vec<u32>,
    /// In the order of [`SETS`].
    capabilities: [u64; 5],
    no_new_privs: bool,
    /// How many seccomp filters it has; 0 before Linux 5.9, which does not say.
    filters: u32,
    is_filtered: bool,
    has_ended: bool,
}

/// The names in the file, and what capabilities(7) calls them.
const SETS: [(&str, &str); 5] = [
    ("CapBnd", "bounding"),
    ("CapEff", "effective"),
    ("CapPrm", "permitted"),
    ("CapInh", "inheritable"),
    ("CapAmb", "ambient"),
];

impl Status {
    /// `None` if the process has ended.
    fn of(pid: i32) -> Result<Option<Self>> {
        let name = format!("/proc/{pid}/status");
        match File::open(&name).and_then(fd::read_kernel_text) {
            Ok(text) => Ok(Some(Self::parse(&text)).filter(|status| !status.has_ended)),
            Err(error) if has_ended(&error) => Ok(None),
            Err(error) => Err(Error::host("read", name, error)),
        }
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once(":\t"));
        let lines: BTreeMap<&str, &str> = lines.collect();
        let field = |name: &str| lines.get(name).copied().unwrap_or_default();
        let ids = |name: &str| field(name).split('\t').flat_map(str::parse).collect();
        // A set that is not there counts as full.
        let mask = |name: &str| u64::from_str_radix(field(name), 16).unwrap_or(u64::MAX);
        Self {
            uids: ids("Uid"),
            gids: ids("Gid"),
            capabilities: SETS.map(|(name, _)| mask(name)),
            no_new_privs: field("NoNewPrivs") == "1",
            filters: field("Seccomp_filters").parse().unwrap_or(0),
            is_filtered: field("Seccomp") == "2",
            has_ended: field("State").starts_with(['Z', 'X']),
        }
    }

    /// Compares with what `plan` says of the process before its program.
    fn check(&self, plan: &Plan) -> Result<()> {
        let process = &plan.process;
        if process.no_new_privs && !self.no_new_privs {
            return Err(differs("no_new_privs is not set"));
        }
        // In a user namespace the host has other numbers for them.
        if !plan.namespaces.has(namespaces::USER) && !plan.joins_others {
            let ids = [
                ("user", &self.uids, process.uid),
                ("group", &self.gids, process.gid),
            ];
            for (name, real, wanted) in ids {
                if let Some(other) = real.iter().find(|id| **id != wanted) {
                    return Err(differs(format!("its {name} id is {other}, not {wanted}")));
                }
            }
        }
        let Some(sets) = process.caps else {
            return Ok(());
        };
        let permitted = sets.permitted | plan.borrowed();
        let wanted = [
            sets.bounding,
            sets.effective,
            permitted,
            sets.inheritable,
            sets.ambient,
        ];
        for (((_, name), real), wanted) in SETS.iter().zip(self.capabilities).zip(wanted) {
            let surplus = real & !wanted;
            if surplus != 0 {
                let what = format!("capabilities {surplus:#x} are left in its {name} set");
                return Err(differs(what));
            }
        }
        Ok(())
    }

    /// Compares with what is to be expected of a program under a filter, if the runtime itself has
    /// `inherited` filters.
    fn check_filter(&self, inherited: u32) -> Result<()> {
        let counted = self.filters == 0 || self.filters > inherited;
        match self.is_filtered && counted {
            true => Ok(()),
            false => Err(differs("its seccomp filter is not loaded")),
        }
    }
}

/// Each namespace that is made for the container is another than the runtime's.
fn check_namespaces(plan: &Plan, pid: i32) -> Result<()> {
    let number = |of: &str, name: &str| {
        let path = format!("/proc/{of}/ns/{name}");
        let found = fs::metadata(&path).map(|namespace| namespace.ino());
        found.map_err(|error| Error::host("look at", path, error))
    };
    let made = plan.namespaces.new_ones();
    for kind in namespaces::ALL.into_iter().filter(|kind| made & kind != 0) {
        let name = namespaces::proc_name(kind);
        if number(&pid.to_string(), name)? == number("self", name)? {
            return Err(differs(format!("its {name} namespace is the runtime's")));
        }
    }
    Ok(())
}

/// Nothing can be written below read-only paths, and masked ones show nothing.
fn check_paths(plan: &Plan, pid: i32) -> Result<()> {
    if plan.readonly_paths.is_empty() && plan.masked_paths.is_empty() && !plan.readonly_root {
        return Ok(());
    }
    let name = format!("/proc/{pid}/root");
    let root = File::open(&name).map_err(|error| Error::host("open", name, error))?;
    let root = root.as_fd();
    if plan.readonly_root && !is_readonly(root) {
        return Err(differs("its root file system is writable"));
    }
    for path in &plan.readonly_paths {
        if find(root, path)?.is_some_and(|found| !is_readonly(found.as_fd())) {
            return Err(differs(format!("{} is writable", path.to_string_lossy())));
        }
    }
    for path in &plan.masked_paths {
        if find(root, path)?.is_some_and(|found| !is_masked(found.as_fd())) {
            return Err(differs(format!("{} is not masked", path.to_string_lossy())));
        }
    }
    Ok(())
}

/// A path in the container; `None` where there is nothing, and so nothing to protect.
fn find(root: BorrowedFd<'_>, path: &CStr) -> Result<Option<impl AsFd>> {
    match path::open_in_root(root, path, OFlag::O_PATH) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(Error::host("look at", path.to_string_lossy(), errno)),
    }
}

fn is_readonly(file: BorrowedFd<'_>) -> bool {
    fstatvfs(file).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_RDONLY))
}

/// Whether it is the null device, or a directory on a read-only file system without a free inode.
fn is_masked(file: BorrowedFd<'_>) -> bool {
    let Ok(stat) = fstat(file) else {
        return false;
    };
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFCHR => stat.st_rdev == libc::makedev(1, 3),
        SFlag::S_IFDIR => is_readonly(file) && fstatvfs(file).is_ok_and(|fs| fs.files_free() == 0),
        _ => false,
    }
}

/// What procfs says of a process that ends while it is looked at.
fn has_ended(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Name:\tsh\nState:\tS (sleeping)\nUid:\t5\t5\t5\t5\nGid:\t7\t7\t7\t7\n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000000020\nCapEff:\t0000000000000020\n\
        CapBnd:\t00000000000004a0\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n\
        Seccomp_filters:\t3\n";

    #[test]
    fn a_status_is_read_by_name() {
        let status = Status::parse(TEXT);
        assert_eq!((&*status.uids, &*status.gids), (&[5; 4][..], &[7; 4][..]));
        assert_eq!(status.capabilities, [0x4a0, 0x20, 0x20, 0, 0]);
        assert!(status.no_new_privs && status.is_filtered && !status.has_ended);
        assert_eq!(status.filters, 3);
        assert_eq!(Status::parse("").capabilities, [u64::MAX; 5]);
    }

    #[test]
    fn a_filter_of_the_runtime_itself_does_not_count() {
        let status = Status::parse(TEXT);
        status.check_filter(2).unwrap();
        let line = status.check_filter(3).unwrap_err().line();
        assert_eq!(line, "verify: its seccomp filter is not loaded");
        let old = Status::parse("Seccomp:\t2\n");
        old.check_filter(0).unwrap();
        Status::parse("Seccomp:\t0\n").check_filter(0).unwrap_err();
    }

    #[test]
    fn this_process_is_not_masked_and_has_not_ended() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(Status::of(pid).unwrap().is_some());
        assert_eq!(Status::of(i32::MAX).unwrap(), None);
        assert!(!is_masked(File::open("/").unwrap().as_fd()));
        assert!(is_masked(File::open("/dev/null").unwrap().as_fd()));
    }
}
