//! Who belongs to a container, also where no cgroup says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;

use super::{Container, stat};
use crate::cgroups::{self, Driver};
use crate::error::{Error, Result};
use crate::sys::fd;

impl Container {
    /// The host's ids of the container's processes.
    ///
    /// Those in its cgroup. A container without one (rootless, on a host that delegates none), or whose
    /// hierarchies are no longer mounted, has the processes that are in its mount namespace, and their
    /// descendants.
    ///
    /// # Errors
    /// [`Error::Host`] if the cgroup or the host's processes cannot be listed.
    pub fn processes(&self) -> Result<Vec<i32>> {
        match self.cgroup()? {
            Some(cgroup) => cgroup.processes(),
            None => self.members(),
        }
    }

    /// Sends `signal` to each of the container's processes; that one is gone is no failure.
    ///
    /// # Errors
    /// [`Error::Host`] with the first process that could not be signalled, after all have been tried.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        if let Some(cgroup) = self.cgroup()? {
            return cgroup.kill(signal);
        }
        let mut result = Ok(());
        for (pid, pidfd) in self.held_members()? {
            match fd::pidfd_send_signal(pidfd.as_fd(), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => result = result.and(Err(Error::host("kill", pid, errno))),
            }
        }
        result
    }

    /// The container's cgroups; none if it has none that can be seen.
    fn cgroup(&self) -> Result<Option<Box<dyn Driver>>> {
        let cgroup = cgroups::open(&self.record.cgroup);
        let is_blind = cgroup.unseen()?.len() == self.record.cgroup.hierarchies.len();
        Ok((!is_blind).then_some(cgroup))
    }

    /// The members, each held so that its pid cannot pass to a stranger.
    fn held_members(&self) -> Result<Vec<(i32, OwnedFd)>> {
        let before = self.members()?;
        let held = |pid: &i32| fd::pidfd_open(*pid).ok().map(|pidfd| (*pid, pidfd));
        let mut held: Vec<_> = before.iter().filter_map(held).collect();
        let after: BTreeSet<i32> = self.members()?.into_iter().collect();
        held.retain(|(pid, _)| after.contains(pid));
        Ok(held)
    }

    fn members(&self) -> Result<Vec<i32>> {
        let Some(init) = self.record.init.filter(super::Init::is_alive) else {
            return Ok(Vec::new());
        };
        let own = mount_namespace("self");
        let theirs = mount_namespace(init.pid).filter(|theirs| own.as_ref() != Some(theirs));
        let parents = parents()?;
        let is_inside =
            |pid: i32| pid == init.pid || (theirs.is_some() && mount_namespace(pid) == theirs);
        let inside = parents.keys().copied().filter(|pid| is_inside(*pid));
        Ok(with_descendants(inside.collect(), &parents))
    }
}

/// Which mount namespace a process is in; none if that is not to be known.
fn mount_namespace(pid: impl std::fmt::Display) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

/// Each process of the host, and its parent.
fn parents() -> Result<BTreeMap<i32, i32>> {
    let entries = fs::read_dir("/proc").map_err(|error| Error::host("read", "/proc", error))?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids
        .filter_map(|pid| Some((pid, stat(pid)?.ppid)))
        .collect())
}

/// `pids` and all whose parent, or parent's parent, and so on, is one of them; sorted.
fn with_descendants(mut pids: BTreeSet<i32>, parents: &BTreeMap<i32, i32>) -> Vec<i32> {
    loop {
        let children = parents
            .iter()
            .filter(|(pid, parent)| pids.contains(parent) && !pids.contains(pid));
        let children: Vec<i32> = children.map(|(pid, _)| *pid).collect();
        if children.is_empty() {
            return pids.into_iter().collect();
        }
        pids.extend(children);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_of_descendants_belong_too() {
        let parents = [(1, 0), (5, 1), (9, 5), (3, 9), (7, 1)].into();
        assert_eq!(with_descendants([5].into(), &parents), [3, 5, 9]);
        assert_eq!(with_descendants([7].into(), &parents), [7]);
    }

    #[test]
    fn the_host_s_processes_have_parents() {
        let own = std::process::id().cast_signed();
        assert_eq!(
            parents().unwrap().get(&own).copied(),
            Some(nix::unistd::getppid().as_raw())
        );
    }
}
