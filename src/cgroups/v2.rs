//! Pure cgroup v2: one tree, one directory descriptor, one write for each file.
//!
//! cgroups-rs works on paths and joins by `cgroup.procs`; here the process is born inside the
//! cgroup (`CLONE_INTO_CGROUP`), which spares the migration's wait for every CPU.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};

use super::dir::Dir;
use super::tree::{Made, Tree, is_denied, kill_everyone, place, remove_by, unseen, verify_placed};
use super::{
    Below, Driver, Files, OomWatch, Placement, Saved, Stats, Version, devices, limits, limits_v2,
    oom, program, stats_v2, writes,
};
use crate::error::{Error, Result};

/// How long to wait for the kernel to report `frozen 1`: a task in uninterruptible sleep delays it.
const FREEZE_WAIT: Duration = Duration::from_secs(10);

/// See the module text.
pub struct V2 {
    saved: Saved,
    /// `None` if there is no cgroup: disabled, or rootless without permission.
    tree: Option<Tree>,
    /// Where `place` puts processes, if not in the container's cgroup itself.
    target: Option<Dir>,
    /// Whether `prepare` has made the cgroup and nobody can have given it a device program yet.
    is_untouched: Cell<bool>,
}

impl V2 {
    pub fn new(saved: &Saved) -> Self {
        let tree = saved.hierarchies.first().map(Tree::new);
        Self {
            saved: saved.clone(),
            tree,
            target: None,
            is_untouched: Cell::new(false),
        }
    }

    fn find(&self) -> Result<Option<&Dir>> {
        self.tree.as_ref().map_or(Ok(None), Tree::find)
    }

    fn find_seen(&self) -> Result<Option<&Dir>> {
        self.tree.as_ref().map_or(Ok(None), Tree::find_seen)
    }

    fn existing(&self) -> Result<&Dir> {
        self.find()?.ok_or_else(super::no_cgroup)
    }

    /// What a new cgroup needs before anybody is in it.
    fn furnish(&self, tree: &Tree, resources: Option<&LinuxResources>) -> Result<()> {
        let (mount, leaf) = (tree.mount()?, tree.leaf()?);
        let needed = resources.map(limits_v2::controllers).unwrap_or_default();
        enable_controllers(mount, leaf, &tree.hierarchy.path, &needed)?;
        match self
            .saved
            .owner
            .map_or(Ok(()), |owner| delegate(leaf, owner))
        {
            // An unprivileged runtime owns it already, and can give it to nobody else.
            Err(error) if self.saved.rootless && is_denied(&error) => Ok(()),
            other => other,
        }
    }

    /// A rootless container that asked for nothing goes without a cgroup if it may not have one.
    fn without_cgroup(
        &mut self,
        denied: Error,
        resources: Option<&LinuxResources>,
    ) -> Result<Placement> {
        if !self.saved.rootless || self.saved.asked {
            return Err(denied);
        }
        if resources.is_some_and(|resources| !limits_v2::controllers(resources).is_empty()) {
            return Err(Error::Failed(format!(
                "rootless needs no limits + no cgrouppath when no permission is granted for \
                 cgroups: {}",
                denied.line()
            )));
        }
        self.tree = None;
        Ok(Placement::Nowhere)
    }
}

impl Driver for V2 {
    fn prepare(&mut self, resources: Option<&LinuxResources>) -> Result<Placement> {
        let Some(tree) = &self.tree else {
            return Ok(Placement::Nowhere);
        };
        match tree.make() {
            Ok(Made::New) => self.is_untouched.set(true),
            Ok(Made::Existed) => {
                tree.refuse_used()?;
                if tree.leaf()?.get("cgroup.freeze")?.trim() == "1" {
                    return Err(super::unexpectedly_frozen());
                }
            }
            Err(error) if is_denied(&error) => return self.without_cgroup(error, resources),
            Err(error) => return Err(error),
        }
        let placement = self
            .furnish(tree, resources)
            .and_then(|()| tree.leaf()?.fd().map(Placement::AtBirth));
        if placement.is_err() && tree.was_made() {
            let _ = tree.remove(Instant::now());
        }
        placement
    }

    fn join(&mut self, init: i32, below: &Below) -> Result<Placement> {
        let Some(tree) = &self.tree else {
            return Ok(Placement::Nowhere);
        };
        let Some(leaf) = tree.find()? else {
            return Ok(Placement::Nowhere);
        };
        if let Some(controller) = below.keys().find(|name| !name.is_empty()) {
            return Err(Error::Usage(format!(
                "--cgroup {controller}:...: cgroup v2 has one tree for all controllers; give the path alone"
            )));
        }
        let path = below.get("").map_or("", |path| path.trim_matches('/'));
        let target = match path {
            "" => init_cgroup(leaf, &tree.hierarchy.path, init)?,
            _ => Some(super::open_below(leaf, path)?),
        };
        let fd = target.as_ref().unwrap_or(leaf).fd()?;
        self.target = target;
        Ok(Placement::AtBirth(fd))
    }

    fn place(&self, pid: i32) -> Result<()> {
        match (&self.target, &self.tree) {
            (Some(target), _) => place(target, pid),
            (None, Some(tree)) => place(tree.leaf()?, pid),
            (None, None) => Ok(()),
        }
    }

    fn limit(&self, resources: &LinuxResources) -> Result<()> {
        limits::check(resources, Version::V2)?;
        let writes = limits_v2::writes(resources)?;
        if writes.is_empty() {
            return Ok(());
        }
        let leaf = self.existing()?;
        refuse_limit_below_use(leaf, resources)?;
        writes::apply(leaf, &writes)
    }

    fn allow_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()> {
        let rules = devices::rules(rules)?;
        let Some(leaf) = self.find()? else {
            return Ok(());
        };
        let installed = match self.is_untouched.replace(false) {
            true => program::install_first(leaf, &rules),
            false => program::install(leaf, &rules),
        };
        match installed {
            // Only the host's root may attach programs.
            Err(error) if self.saved.rootless && is_denied(&error) => Ok(()),
            other => other,
        }
    }

    fn verify_placed(&self, pid: i32) -> Result<()> {
        verify_placed(self.tree.iter(), pid)
    }

    fn verify_limits(&self, resources: &LinuxResources) -> Result<()> {
        match self.find()? {
            Some(leaf) => writes::verify(leaf, &limits_v2::writes(resources)?),
            None => Ok(()),
        }
    }

    fn verify_devices(&self, _: &[LinuxDeviceCgroup]) -> Result<()> {
        let Some(leaf) = self.find()? else {
            return Ok(());
        };
        match program::count(leaf) {
            Ok(1) => Ok(()),
            Ok(_) | Err(_) if self.saved.rootless => Ok(()),
            Ok(count) => Err(Error::Failed(format!(
                "cgroup {} has {count} device programs, not one",
                leaf.path()
            ))),
            Err(error) => Err(error),
        }
    }

    fn freeze(&self) -> Result<()> {
        freeze(self.existing()?)
    }

    fn thaw(&self) -> Result<()> {
        self.existing()?.set("cgroup.freeze", "0")
    }

    fn is_frozen(&self) -> Result<bool> {
        self.find_seen()?.map_or(Ok(false), is_frozen)
    }

    fn processes(&self) -> Result<Vec<i32>> {
        self.tree.as_ref().map_or(Ok(Vec::new()), Tree::processes)
    }

    fn kill(&self, signal: i32) -> Result<()> {
        let Some(leaf) = self.find_seen()? else {
            return Ok(());
        };
        if signal == libc::SIGKILL && kill_at_once(leaf)? {
            return Ok(());
        }
        kill_everyone(self, signal)
    }

    fn stats(&self) -> Result<Stats> {
        let leaf = self.existing()?;
        Ok(Stats {
            cpu: stats_v2::cpu(leaf)?,
            memory: stats_v2::memory(leaf)?,
            pids: stats_v2::processes(leaf)?,
            blkio: stats_v2::blkio(leaf)?,
            hugetlb: stats_v2::hugetlb(leaf)?.into_iter().collect(),
            ..Stats::default()
        })
    }

    fn oom_kills(&self) -> Result<u64> {
        let kills = self.find()?.map_or(Ok(None), oom::kills_v2)?;
        Ok(kills.unwrap_or(0))
    }

    fn watch_oom(&self) -> Result<Option<OomWatch>> {
        match self.find()? {
            Some(leaf) if oom::kills_v2(leaf)?.is_some() => OomWatch::v2(leaf).map(Some),
            _ => Ok(None),
        }
    }

    fn remove(&self) -> Result<()> {
        self.tree
            .as_ref()
            .map_or(Ok(()), |tree| tree.remove(remove_by()))
    }

    fn unseen(&self) -> Result<Vec<String>> {
        unseen(self.tree.iter())
    }

    fn saved(&self) -> Saved {
        let hierarchies = self.tree.iter().map(Tree::saved).collect();
        let saved = self.saved.clone();
        Saved {
            hierarchies,
            ..saved
        }
    }
}

impl Files for V2 {
    fn refuse_used(&self) -> Result<()> {
        match (&self.tree, self.find()?) {
            (Some(tree), Some(_)) => tree.refuse_used(),
            _ => Ok(()),
        }
    }

    fn adopt(&self, _: i32, resources: Option<&LinuxResources>) -> Result<()> {
        self.tree
            .as_ref()
            .map_or(Ok(()), |tree| self.furnish(tree, resources))
    }
}

/// Makes sure that the cgroup has all controllers that the root has, as callers' statistics expect.
///
/// A controller that no ancestor will give is not an error here unless it is `needed`: the write
/// of its limit would fail with a text that names a file instead of the cause.
pub fn enable_controllers(
    mount: &Dir,
    leaf: &Dir,
    path: &str,
    needed: &BTreeSet<&str>,
) -> Result<()> {
    let offered = mount.get("cgroup.controllers")?;
    let offered: BTreeSet<&str> = offered.split_whitespace().collect();
    if let Some(name) = needed.iter().find(|name| !offered.contains(*name)) {
        let why = format!(
            "controller {name} is not available in {}: its limits cannot be applied",
            mount.join("cgroup.controllers")
        );
        return Err(Error::spec(".linux.resources", why));
    }
    let has = leaf.get("cgroup.controllers")?;
    let has: BTreeSet<&str> = has.split_whitespace().collect();
    let wanted: Vec<String> = offered
        .difference(&has)
        .map(|name| format!("+{name}"))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut refused = enable_in(mount, &wanted);
    for (end, _) in path.match_indices('/') {
        let parent = mount
            .open(&path[..end])
            .map_err(|errno| Error::host("open", mount.join(&path[..end]), errno))?;
        refused = enable_in(&parent, &wanted).or(refused);
    }
    let has = leaf.get("cgroup.controllers")?;
    let has: BTreeSet<&str> = has.split_whitespace().collect();
    match needed.iter().find(|name| !has.contains(*name)) {
        None => keep_threaded(leaf, needed),
        Some(name) => Err(refused.unwrap_or_else(|| {
            let path = leaf.path();
            Error::Failed(format!("controller {name} cannot be enabled for {path}"))
        })),
    }
}

/// Enables all at once, or as many as possible one by one; the last refusal is returned.
fn enable_in(dir: &Dir, wanted: &[String]) -> Option<Error> {
    const FILE: &str = "cgroup.subtree_control";
    dir.write(FILE, &wanted.join(" ")).err()?;
    let set = |refused, one: &String| dir.set(FILE, one).err().or(refused);
    wanted.iter().fold(None, set)
}

/// Below a threaded cgroup a new one is `domain invalid` and takes no process until it is made
/// threaded itself, which leaves it without the domain controllers: cgroup-v2.rst "Threads".
fn keep_threaded(leaf: &Dir, needed: &BTreeSet<&str>) -> Result<()> {
    let kind = leaf.get("cgroup.type")?;
    match kind.trim() {
        "domain invalid" => leaf.set("cgroup.type", "threaded"),
        "threaded" | "domain threaded"
            if ["memory", "io", "hugetlb"]
                .iter()
                .any(|c| needed.contains(c)) =>
        {
            Err(Error::Failed(format!(
                "cgroup {} is {}: it cannot have memory, io or hugetlb limits",
                leaf.path(),
                kind.trim()
            )))
        }
        _ => Ok(()),
    }
}

/// With `checkBeforeUpdate` a memory limit below what is in use is refused; the kernel would reclaim,
/// and kill if that does not suffice.
fn refuse_limit_below_use(leaf: &Dir, resources: &LinuxResources) -> Result<()> {
    let Some(memory) = resources
        .memory()
        .filter(|m| m.check_before_update() == Some(true))
    else {
        return Ok(());
    };
    // Best effort, as in runc: a cgroup without the file has its limit refused anyway.
    let Some(usage) = leaf
        .read("memory.current")
        .ok()
        .and_then(|text| text.trim().parse().ok())
    else {
        return Ok(());
    };
    let limits = [
        (".memory.swap", "memory+swap limit", memory.swap()),
        (".memory.limit", "memory limit", memory.limit()),
    ];
    for (field, name, limit) in limits {
        match limit {
            Some(limit @ 1..) if limit <= usage => {
                let why = format!("rejecting {name} {limit} <= usage {usage}");
                return Err(Error::spec(format!(".linux.resources{field}"), why));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Gives the cgroup to `owner`: the directory and the files that the kernel lists for that.
///
/// Source: cgroup-v2.rst "Model of Delegation"; runtime-spec, config-linux.md "Cgroup ownership".
fn delegate(leaf: &Dir, owner: u32) -> Result<()> {
    const BEFORE_4_15: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads";
    let owner = Some(nix::unistd::Uid::from_raw(owner));
    let files = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
    let files = files.unwrap_or_else(|_| BEFORE_4_15.into());
    nix::unistd::fchown(leaf, owner, None)
        .map_err(|errno| Error::host("chown", leaf.path(), errno))?;
    for file in files.lines() {
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        match nix::unistd::fchownat(leaf, file, owner, None, flags) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(Error::host("chown", leaf.join(file), errno)),
        }
    }
    Ok(())
}

/// A cgroup that passes controllers on can hold no processes itself; who joins the container then
/// goes where its first process went. `None` means the container's own cgroup.
fn init_cgroup(leaf: &Dir, own: &str, init: i32) -> Result<Option<Dir>> {
    if leaf.get("cgroup.subtree_control")?.trim().is_empty() {
        return Ok(None);
    }
    let file = format!("/proc/{init}/cgroup");
    let text = crate::sys::fd::read_kernel_file(&file)
        .map_err(|error| Error::host("read", &file, error))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = path.unwrap_or_default();
    let below = match path.strip_prefix(own) {
        Some("") => return Ok(None),
        Some(below) => below.strip_prefix('/'),
        None => None,
    };
    match below {
        Some(below) => super::open_below(leaf, below).map(Some),
        None => Err(Error::Failed(format!(
            "the container's first process has left {}: it is in /{path}",
            leaf.path()
        ))),
    }
}

/// Freezes a v2 cgroup and waits until everybody in it has stopped.
pub fn freeze(leaf: &Dir) -> Result<()> {
    leaf.set("cgroup.freeze", "1")?;
    let deadline = Instant::now() + FREEZE_WAIT;
    match leaf.wait_event("frozen", "1", deadline) {
        Ok(true) => Ok(()),
        Ok(false) => {
            leaf.set("cgroup.freeze", "0")?;
            Err(Error::Failed(format!(
                "cgroup {} did not freeze within {} s; it runs on",
                leaf.path(),
                FREEZE_WAIT.as_secs()
            )))
        }
        Err(errno) => Err(Error::host("poll", leaf.join("cgroup.events"), errno)),
    }
}

/// Whether a v2 cgroup has been told to freeze; `false` where it is gone or the kernel (before
/// Linux 5.2) has no `cgroup.freeze`.
pub fn is_frozen(leaf: &Dir) -> Result<bool> {
    match leaf.read("cgroup.freeze") {
        Ok(text) => Ok(text.trim() == "1"),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
        Err(errno) => Err(Error::host("read", leaf.join("cgroup.freeze"), errno)),
    }
}

/// `cgroup.kill` reaches forks in flight and frozen processes; `Ok(false)` if the kernel (before
/// Linux 5.14) does not have it or the cgroup is threaded.
pub fn kill_at_once(leaf: &Dir) -> Result<bool> {
    match leaf.write("cgroup.kill", "1") {
        Ok(()) | Err(Errno::ENODEV) => Ok(true),
        Err(Errno::ENOENT | Errno::EOPNOTSUPP) => Ok(false),
        Err(errno) => Err(leaf.failed_write("cgroup.kill", "1", errno)),
    }
}
