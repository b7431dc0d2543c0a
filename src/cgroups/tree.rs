//! One cgroup in one hierarchy, from its making to its removal: what v1 and v2 have in common.

use std::cell::{Cell, OnceCell, RefCell};
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC};

use super::dir::Dir;
use super::mountinfo::elsewhere;
use super::{Driver, Hierarchy};
use crate::error::{Error, Result};
use crate::sys;

/// How long [`Tree::remove`] waits for processes that are on their way out.
const REMOVE_WAIT: Duration = Duration::from_millis(if cfg!(test) { 1500 } else { 5000 });
/// A task that was just forked may be refused for a moment with `EINVAL`.
const PLACE_TRIES: u32 = 5;
const PLACE_PAUSE: Duration = Duration::from_millis(30);
/// Rounds of [`kill_everyone`] where nothing can be frozen and processes may keep forking.
const KILL_ROUNDS: u32 = 100;

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Whether [`Tree::make`] found the cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    New,
    Existed,
}

/// See the module text. Directories are opened at their first use.
#[derive(Debug)]
pub struct Tree {
    pub hierarchy: Hierarchy,
    mount: OnceCell<Dir>,
    leaf: OnceCell<Dir>,
    /// Parents that did not exist, nearest the mount first: a failed create removes them again.
    parents: RefCell<Vec<String>>,
    is_new: Cell<bool>,
}

impl Tree {
    pub fn new(hierarchy: &Hierarchy) -> Self {
        Self {
            hierarchy: hierarchy.clone(),
            mount: OnceCell::new(),
            leaf: OnceCell::new(),
            parents: RefCell::new(Vec::new()),
            is_new: Cell::new(false),
        }
    }

    /// Whether the tree belongs to v2.
    pub fn is_v2(&self) -> bool {
        self.hierarchy.controllers.is_empty()
    }

    /// The mount point; `None` if the hierarchy is mounted nowhere that this process can see.
    ///
    /// A later command may run in another mount namespace than `create` did.
    fn seen_mount(&self) -> Result<Option<&Dir>> {
        if let Some(mount) = self.mount.get() {
            return Ok(Some(mount));
        }
        let magic = if self.is_v2() {
            CGROUP2_SUPER_MAGIC
        } else {
            CGROUP_SUPER_MAGIC
        };
        let mut found = Dir::mount(&self.hierarchy.mount, magic)?;
        if found.is_none() {
            let mountinfo = sys::fd::read_kernel_file(MOUNTINFO)
                .map_err(|error| Error::host("read", MOUNTINFO, error))?;
            found = match elsewhere(&self.hierarchy, &mountinfo) {
                Some(point) => Dir::mount(&point, magic)?,
                None => None,
            };
        }
        Ok(found.map(|mount| self.mount.get_or_init(|| mount)))
    }

    /// The mount point.
    pub fn mount(&self) -> Result<&Dir> {
        self.seen_mount()?.ok_or_else(|| {
            let point = &self.hierarchy.mount;
            Error::Failed(format!("{point}: not a cgroup file system"))
        })
    }

    /// Whether the hierarchy is mounted somewhere, and nobody else's cgroup is at the path.
    pub fn is_seen(&self) -> Result<bool> {
        let Some(mount) = self.seen_mount()? else {
            return Ok(false);
        };
        Ok(self.find_on(mount)?.is_some() || mount.open(&self.hierarchy.path).is_err())
    }

    /// What state.json keeps: with the cgroup's inode, if it has been opened.
    pub fn saved(&self) -> Hierarchy {
        let inode = self.leaf.get().and_then(|leaf| leaf.inode().ok());
        let hierarchy = self.hierarchy.clone();
        Hierarchy { inode, ..hierarchy }
    }

    /// The container's cgroup; `None` if it does not exist, or another does in its place.
    pub fn find(&self) -> Result<Option<&Dir>> {
        self.find_on(self.mount()?)
    }

    /// [`Tree::find`]; `None` also if the hierarchy is not to be seen.
    pub fn find_seen(&self) -> Result<Option<&Dir>> {
        let mount = self.seen_mount()?;
        mount.map_or(Ok(None), |mount| self.find_on(mount))
    }

    fn find_on(&self, mount: &Dir) -> Result<Option<&Dir>> {
        if let Some(leaf) = self.leaf.get() {
            return Ok(Some(leaf));
        }
        let failed = |call, errno| Error::host(call, self.hierarchy.full_path(), errno);
        let leaf = match mount.open(&self.hierarchy.path) {
            Ok(leaf) => leaf,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(failed("open", errno)),
        };
        if let Some(known) = self.hierarchy.inode
            && leaf.inode().map_err(|errno| failed("stat", errno))? != known
        {
            return Ok(None);
        }
        Ok(Some(self.leaf.get_or_init(|| leaf)))
    }

    /// The container's cgroup, which must exist.
    pub fn leaf(&self) -> Result<&Dir> {
        self.find()?
            .ok_or_else(|| Error::host("open", self.hierarchy.full_path(), Errno::ENOENT))
    }

    /// Whether [`Tree::make`] made the cgroup.
    pub fn was_made(&self) -> bool {
        self.is_new.get()
    }

    /// Makes the cgroup and its missing parents. One system call if the parents exist.
    pub fn make(&self) -> Result<Made> {
        let made = self.make_with_parents()?;
        self.is_new.set(made == Made::New);
        Ok(made)
    }

    fn make_with_parents(&self) -> Result<Made> {
        let path = self.hierarchy.path.clone();
        let failed =
            |at: &str, errno| Error::host("mkdir", format!("{}/{at}", self.hierarchy.mount), errno);
        let mount = self.mount()?;
        match mount.mkdir(&path) {
            Ok(()) => return Ok(Made::New),
            Err(Errno::EEXIST) => return Ok(Made::Existed),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(failed(&path, errno)),
        }
        let mut parents = Vec::new();
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            match mount.mkdir(parent) {
                Ok(()) => parents.push(parent.to_owned()),
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(failed(parent, errno)),
            }
        }
        let made = match mount.mkdir(&path) {
            Ok(()) => Made::New,
            Err(Errno::EEXIST) => Made::Existed,
            Err(errno) => return Err(failed(&path, errno)),
        };
        self.parents.replace(parents);
        Ok(made)
    }

    /// Refuses a cgroup that somebody else is using.
    pub fn refuse_used(&self) -> Result<()> {
        let leaf = self.leaf()?;
        let count = leaf
            .processes()
            .map_err(|errno| Error::host("read processes of", leaf.path(), errno))?
            .len();
        if count > 0 {
            // *Matched* up to the colon.
            let text = format!("container's cgroup is not empty: {count} process(es) found");
            return Err(Error::Failed(format!("{text} in {}", leaf.path())));
        }
        Ok(())
    }

    /// The processes in and below the cgroup; none if it does not exist or is not to be seen.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let Some(leaf) = self.find_seen()? else {
            return Ok(Vec::new());
        };
        match leaf.processes() {
            Err(Errno::ENODEV | Errno::ENOENT) => Ok(Vec::new()),
            other => other.map_err(|errno| Error::host("read processes of", leaf.path(), errno)),
        }
    }

    /// Removes the cgroup, all below it, and the parents that this `Tree` made; processes get time
    /// until `deadline`, which [`remove_by`] sets once for all trees. What is not to be seen stays.
    pub fn remove(&self, deadline: Instant) -> Result<()> {
        if !self.is_seen()? {
            return Ok(());
        }
        let mount = self.mount()?;
        remove_below(mount, &self.hierarchy.path, self.is_v2(), deadline)?;
        for parent in self.parents.borrow().iter().rev() {
            // Somebody else may have come to use it: then it stays.
            let _ = mount.rmdir(parent);
        }
        Ok(())
    }
}

/// The cgroups of those trees that are not to be seen.
pub fn unseen<'a>(trees: impl Iterator<Item = &'a Tree>) -> Result<Vec<String>> {
    let path = |tree: &Tree| Ok((!tree.is_seen()?).then(|| tree.hierarchy.full_path()));
    trees.filter_map(|tree| path(tree).transpose()).collect()
}

/// When [`Tree::remove`] gives up.
pub fn remove_by() -> Instant {
    Instant::now() + REMOVE_WAIT
}

/// Removes `name` in `dir`, and first what is below it. Processes get time until `deadline`.
fn remove_below(dir: &Dir, name: &str, is_v2: bool, deadline: Instant) -> Result<()> {
    let mut pause = Duration::ZERO;
    loop {
        match dir.rmdir(name) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
            Err(Errno::EBUSY | Errno::ENOTEMPTY) => {}
            Err(errno) => return Err(Error::host("rmdir", dir.join(name), errno)),
        }
        let child = match dir.open(name) {
            Err(Errno::ENOENT) => return Ok(()),
            other => other.map_err(|errno| Error::host("open", dir.join(name), errno))?,
        };
        for below in child.children().unwrap_or_default() {
            remove_below(&child, &below, is_v2, deadline)?;
        }
        if is_v2 {
            let _ = child.wait_event("populated", "0", deadline);
        }
        if Instant::now() >= deadline {
            return Err(busy(&child));
        }
        // On v2 the first round never sleeps: the event has said that everybody is gone.
        sleep(pause);
        pause = (pause * 2).clamp(Duration::from_millis(1), Duration::from_millis(50));
    }
}

/// Names those who keep a cgroup busy, with their command and state as proc_pid_stat(5) has them.
fn busy(dir: &Dir) -> Error {
    let pids = dir.processes().unwrap_or_default();
    let names: Vec<String> = pids.iter().map(|pid| described(*pid)).collect();
    let who = match names.is_empty() {
        true => "though it has no processes".into(),
        false => format!(
            "by process {}; kill what is listed and delete again",
            names.join(", ")
        ),
    };
    let path = dir.path();
    let wait = REMOVE_WAIT.as_secs();
    Error::Failed(format!(
        "cgroup {path} is still in use after {wait} s {who}"
    ))
}

fn described(pid: i32) -> String {
    match procfs::process::Process::new(pid).and_then(|process| process.stat()) {
        Ok(stat) => format!("{pid} ({}, state {})", stat.comm, stat.state),
        Err(_) => pid.to_string(),
    }
}

/// Moves a process, with all its threads, into `dir`.
pub fn place(dir: &Dir, pid: i32) -> Result<()> {
    let value = pid.to_string();
    let mut tries = PLACE_TRIES;
    loop {
        match dir.write("cgroup.procs", &value) {
            Err(Errno::EINVAL) if tries > 1 => {
                tries -= 1;
                sleep(PLACE_PAUSE);
            }
            other => return other.map_err(|errno| dir.failed_write("cgroup.procs", &value, errno)),
        }
    }
}

/// Whether `pid` is in the container's cgroup of every tree, or below it (CVE-2025-47291).
pub fn verify_placed<'a>(trees: impl Iterator<Item = &'a Tree>, pid: i32) -> Result<()> {
    let file = format!("/proc/{pid}/cgroup");
    let text =
        sys::fd::read_kernel_file(&file).map_err(|error| Error::host("read", &file, error))?;
    for Hierarchy {
        path, controllers, ..
    } in trees.map(|tree| &tree.hierarchy)
    {
        let name = controllers.first().map_or("", String::as_str);
        let lines = text
            .lines()
            .map(|line| line.splitn(3, ':').skip(1).collect::<Vec<_>>());
        let is_inside = |line: Vec<&str>| match line[..] {
            // A runtime without a cgroup namespace in a container sees the host's longer path.
            [names, at] if names.split(',').any(|listed| listed == name) => {
                format!("{at}/").contains(&format!("/{path}/"))
            }
            _ => false,
        };
        if !lines.into_iter().any(is_inside) {
            let name = if name.is_empty() { "v2" } else { name };
            let text = format!("process {pid} is not in the {name} cgroup /{path}: see {file}");
            return Err(Error::Failed(text));
        }
    }
    Ok(())
}

/// Sends `signal` to everybody, one by one: frozen first so that nobody forks away.
///
/// A container that was frozen stays so, unless the signal is `SIGKILL`, which has to be acted on.
pub fn kill_everyone(driver: &dyn Driver, signal: i32) -> Result<()> {
    let was_frozen = driver.is_frozen()?;
    if was_frozen || driver.freeze().is_ok() {
        let sent = driver
            .processes()
            .and_then(|pids| signal_each(driver, &pids, signal));
        if !was_frozen || signal == libc::SIGKILL {
            driver.thaw()?;
        }
        return sent;
    }
    let mut seen = Vec::new();
    for _ in 0..KILL_ROUNDS {
        let mut new = driver.processes()?;
        new.retain(|pid| !seen.contains(pid));
        if new.is_empty() {
            break;
        }
        signal_each(driver, &new, signal)?;
        seen.extend(new);
    }
    Ok(())
}

/// Everybody gets the signal before the first failure is reported; who is gone is no failure.
///
/// A pid that is still in the cgroup after its pidfd was opened cannot have passed to a stranger.
fn signal_each(driver: &dyn Driver, pids: &[i32], signal: i32) -> Result<()> {
    let mut held = Vec::new();
    for pid in pids {
        match sys::fd::pidfd_open(*pid) {
            Ok(pidfd) => held.push((*pid, pidfd)),
            Err(Errno::ESRCH) => {}
            Err(errno) => return Err(Error::host("pidfd_open", pid, errno)),
        }
    }
    let inside = driver.processes()?;
    let mut result = Ok(());
    for (pid, pidfd) in held.iter().filter(|(pid, _)| inside.contains(pid)) {
        match sys::fd::pidfd_send_signal(pidfd.as_fd(), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => result = result.and(Err(Error::host("kill", pid, errno))),
        }
    }
    result
}

/// Whether the failure is a lack of permission, which a rootless container may live with.
pub fn is_denied(error: &Error) -> bool {
    let Error::Host { errno, .. } = error else {
        return false;
    };
    matches!(
        errno.raw_os_error(),
        Some(libc::EACCES | libc::EPERM | libc::EROFS)
    )
}
