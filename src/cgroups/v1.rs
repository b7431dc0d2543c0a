//! cgroup v1, and the hybrid of v1 controllers with a v2 tree beside them.
//!
//! Each hierarchy costs a `mkdir` and a write of `cgroup.procs`, and a cpuset must be filled before
//! anybody can enter. cgroups-rs would parse mountinfo and stat every controller anew for each
//! step, by path; here each directory is opened once.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};

use super::devices::{self, V1List};
use super::dir::Dir;
use super::limits;
use super::tree::{Made, Tree, is_denied, kill_everyone, place, remove_by, unseen, verify_placed};
use super::writes::{self, Absent, Write};
use super::{
    Below, Driver, Files, OomWatch, Placement, Saved, Stats, Version, limits_v1, limits_v2, oom,
    stats, stats_v1, stats_v2, v2,
};
use crate::error::{Error, Result};

/// How long to try to freeze: while processes keep appearing the freezer of v1 may stay `FREEZING`.
const FREEZE_WAIT: Duration = Duration::from_secs(10);
/// Let it thaw now and then, which lets a fork in flight finish.
const FREEZE_TRIES_BEFORE_THAW: u32 = 50;

/// See the module text.
pub struct V1 {
    saved: Saved,
    trees: Vec<Tree>,
    /// Where `place` puts processes, if not in the container's cgroups themselves.
    targets: Vec<Dir>,
}

impl V1 {
    pub fn new(saved: &Saved) -> Self {
        let trees = saved.hierarchies.iter().map(Tree::new).collect();
        Self {
            saved: saved.clone(),
            trees,
            targets: Vec::new(),
        }
    }

    /// The hierarchy of a controller; `""` is the v2 hierarchy of the hybrid.
    fn tree(&self, controller: &str) -> Option<&Tree> {
        self.trees
            .iter()
            .find(|tree| tree.hierarchy.has(controller))
    }

    /// The container's cgroup in the hierarchy of `controller`, if it exists.
    fn find(&self, controller: &str) -> Result<Option<&Dir>> {
        self.tree(controller).map_or(Ok(None), Tree::find)
    }

    /// [`V1::find`]; `None` also if the hierarchy is not to be seen.
    fn find_seen(&self, controller: &str) -> Result<Option<&Dir>> {
        self.tree(controller).map_or(Ok(None), Tree::find_seen)
    }

    /// The tree that says who is in the container: processes are in the same place in all trees.
    fn census(&self) -> Option<&Tree> {
        let usual = ["", "devices", "pids", "freezer"];
        let usual = usual.iter().filter_map(|name| self.tree(name));
        let mut seen = usual.chain(&self.trees);
        seen.find(|tree| tree.is_seen().unwrap_or(true))
    }

    fn make(&self) -> Result<()> {
        for (at, tree) in self.trees.iter().enumerate() {
            if let Err(error) = make_own(tree) {
                unmake(&self.trees[..at]);
                return Err(error);
            }
        }
        Ok(())
    }

    /// How a process gets into the cgroups that were made.
    fn way_in(&self) -> Result<Placement> {
        let leaf = |tree: &Tree| Ok((tree.leaf()?.again()?, tree.is_v2()));
        let leaves: Vec<(Dir, bool)> = self.trees.iter().map(leaf).collect::<Result<_>>()?;
        self.placement(&leaves)
    }
}

/// Removes what was made for a container that does not come to be.
fn unmake(trees: &[Tree]) {
    let made = trees.iter().filter(|tree| tree.was_made());
    made.for_each(|tree| drop(tree.remove(Instant::now())));
}

impl Driver for V1 {
    fn prepare(&mut self, _: Option<&LinuxResources>) -> Result<Placement> {
        if !self.saved.rootless || self.saved.asked {
            self.make()?;
        } else {
            self.make_what_is_allowed()?;
        }
        self.way_in().inspect_err(|_| unmake(&self.trees))
    }

    fn join(&mut self, _: i32, below: &Below) -> Result<Placement> {
        let known = |name: &&String| name.is_empty() || self.tree(name).is_some();
        if let Some(unknown) = below.keys().find(|name| !known(name)) {
            return Err(Error::Usage(format!(
                "unknown controller {unknown} in --cgroup: the container has none of that name"
            )));
        }
        let mut targets = Vec::new();
        for tree in &self.trees {
            let Some(leaf) = tree.find()? else { continue };
            let mut names = tree.hierarchy.controllers.iter();
            let path = names.find_map(|name| below.get(name)).or(below.get(""));
            let target = match path.map_or("", |path| path.trim_matches('/')) {
                "" => leaf.again()?,
                path => super::open_below(leaf, path)?,
            };
            targets.push((target, tree.is_v2()));
        }
        let placement = self.placement(&targets)?;
        self.targets = targets.into_iter().map(|(target, _)| target).collect();
        Ok(placement)
    }

    fn place(&self, pid: i32) -> Result<()> {
        if !self.targets.is_empty() {
            return self
                .targets
                .iter()
                .try_for_each(|target| place(target, pid));
        }
        self.trees
            .iter()
            .try_for_each(|tree| place(tree.leaf()?, pid))
    }

    fn limit(&self, resources: &LinuxResources) -> Result<()> {
        limits::check(resources, Version::V1)?;
        let writes = limits_v1::writes(resources);
        for group in writes.chunk_by(|one, next| one.controller == next.controller) {
            match self.find(group[0].controller)? {
                Some(leaf) => writes::apply(leaf, group)?,
                None => self.limit_unified(resources, group)?,
            }
        }
        Ok(())
    }

    fn allow_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()> {
        let wanted = V1List::of(&devices::rules(rules)?)?;
        let Some(leaf) = self.find("devices")? else {
            return if self.saved.rootless || self.trees.is_empty() {
                Ok(())
            } else {
                Err(Error::spec(DEVICES, no_controller("devices")))
            };
        };
        let writes = wanted.writes_from(&V1List::parse(&leaf.get("devices.list")?));
        for group in writes.chunk_by(|one, next| one.0 == next.0) {
            let (file, values) = (group[0].0, group.iter().map(|(_, value)| value.as_str()));
            match leaf.write_each(file, values) {
                // Only the host's root may set device rules.
                Err((_, Errno::EACCES | Errno::EPERM | Errno::EROFS)) if self.saved.rootless => {
                    return Ok(());
                }
                Err((value, errno)) => {
                    return Err(Error::Refused {
                        at: DEVICES.into(),
                        why: "the cgroups above do not allow it",
                        value: value.into(),
                        on: leaf.join(file),
                        errno: errno.into(),
                    });
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn verify_placed(&self, pid: i32) -> Result<()> {
        verify_placed(self.trees.iter(), pid)
    }

    fn verify_limits(&self, resources: &LinuxResources) -> Result<()> {
        let writes = limits_v1::writes(resources);
        for group in writes.chunk_by(|one, next| one.controller == next.controller) {
            if let Some(leaf) = self.find(group[0].controller)? {
                writes::verify(leaf, group)?;
            }
        }
        Ok(())
    }

    fn verify_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()> {
        let wanted = V1List::of(&devices::rules(rules)?)?;
        match self.find("devices")? {
            Some(leaf) if !self.saved.rootless => {
                let list = leaf.get("devices.list")?;
                // The list of an open cgroup does not say what it denies.
                if V1List::parse(&list) == wanted || wanted.open && list.starts_with('a') {
                    return Ok(());
                }
                let (path, list) = (leaf.join("devices.list"), list.trim().replace('\n', ", "));
                let why = "is not what config.json asks for";
                Err(Error::Failed(format!("{path} {why}: {list}")))
            }
            _ => Ok(()),
        }
    }

    fn freeze(&self) -> Result<()> {
        match (self.find("freezer")?, self.find("")?) {
            (Some(leaf), _) => freeze(leaf),
            (None, Some(unified)) => v2::freeze(unified),
            (None, None) => Err(super::no_cgroup()),
        }
    }

    fn thaw(&self) -> Result<()> {
        match (self.find_seen("freezer")?, self.find_seen("")?) {
            (Some(leaf), _) => leaf.set(STATE, THAWED),
            (None, Some(unified)) => unified.set("cgroup.freeze", "0"),
            (None, None) => Err(super::no_cgroup()),
        }
    }

    fn is_frozen(&self) -> Result<bool> {
        match (self.find_seen("freezer")?, self.find_seen("")?) {
            (Some(leaf), _) => is_frozen(leaf),
            (None, Some(unified)) => v2::is_frozen(unified),
            (None, None) => Ok(false),
        }
    }

    fn processes(&self) -> Result<Vec<i32>> {
        self.census().map_or(Ok(Vec::new()), Tree::processes)
    }

    fn kill(&self, signal: i32) -> Result<()> {
        if let Some(unified) = self.find_seen("")?
            && signal == libc::SIGKILL
            && v2::kill_at_once(unified)?
        {
            // The freezer of v1 holds back even the killed.
            return match self.find_seen("freezer")? {
                Some(leaf) => leaf.set(STATE, THAWED),
                None => Ok(()),
            };
        }
        kill_everyone(self, signal)
    }

    fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        if let Some(leaf) = self.find("cpuacct")? {
            stats.cpu.usage = stats_v1::cpu_usage(leaf);
        }
        if let Some(leaf) = self.find("cpu")? {
            stats.cpu.throttling = stats_v1::throttling(leaf)?;
        }
        if let Some(leaf) = self.find("cpuset")? {
            stats.cpuset = stats_v1::cpuset(leaf)?;
        }
        if let Some(leaf) = self.find("memory")? {
            stats.memory = stats_v1::memory(leaf)?;
        }
        if let Some(leaf) = self.find("pids")? {
            stats.pids = stats::pids(leaf)?.unwrap_or_default();
        }
        if let Some(leaf) = self.find("blkio")? {
            stats.blkio = stats_v1::blkio(leaf)?;
        }
        if let Some(leaf) = self.find("hugetlb")? {
            stats.hugetlb.extend(stats_v1::hugetlb(leaf)?);
        }
        if let Some(unified) = self.find("")? {
            stats.cpu.psi = stats::psi(unified, "cpu.pressure")?;
            stats.memory.psi = stats::psi(unified, "memory.pressure")?;
            stats.blkio.psi = stats::psi(unified, "io.pressure")?;
            if self.tree("hugetlb").is_none() {
                stats.hugetlb.extend(stats_v2::hugetlb(unified)?);
            }
        }
        Ok(stats)
    }

    fn oom_kills(&self) -> Result<u64> {
        let kills = self.find("memory")?.map_or(Ok(None), oom::kills_v1)?;
        Ok(kills.unwrap_or(0))
    }

    fn watch_oom(&self) -> Result<Option<OomWatch>> {
        self.find("memory")?.map(OomWatch::v1).transpose()
    }

    fn remove(&self) -> Result<()> {
        // The v2 tree first: it alone can tell when the last process is gone.
        let (v2, v1): (Vec<_>, Vec<_>) = self.trees.iter().partition(|tree| tree.is_v2());
        let deadline = remove_by();
        let remove = |tree: &Tree| tree.remove(deadline);
        let removed: Vec<_> = v2.into_iter().chain(v1).map(remove).collect();
        removed.into_iter().collect()
    }

    fn unseen(&self) -> Result<Vec<String>> {
        unseen(self.trees.iter())
    }

    fn saved(&self) -> Saved {
        let hierarchies = self.trees.iter().map(Tree::saved).collect();
        let saved = self.saved.clone();
        Saved {
            hierarchies,
            ..saved
        }
    }
}

impl V1 {
    /// How a process gets into these cgroups, each with whether it is the v2 tree's.
    fn placement(&self, cgroups: &[(Dir, bool)]) -> Result<Placement> {
        if cgroups.is_empty() {
            return Ok(Placement::Nowhere);
        }
        if self.saved.rootless {
            return Ok(Placement::ByParent);
        }
        let (mut cgroup, mut doors) = (None, Vec::new());
        for (dir, is_v2) in cgroups {
            match is_v2 {
                true => cgroup = Some(dir.fd()?),
                false => doors.push(dir.door("tasks")?),
            }
        }
        Ok(Placement::ByChild { cgroup, doors })
    }

    /// Limits of a controller that is not mounted on v1: on a hybrid host the v2 tree may have it.
    fn limit_unified(&self, resources: &LinuxResources, group: &[Write<'_>]) -> Result<()> {
        let controller = group[0].controller;
        let unified = self.tree("").zip(self.find("")?);
        let offered = match unified {
            Some((tree, _)) => tree.mount()?.get("cgroup.controllers")?,
            None => String::new(),
        };
        let is_offered = offered.split_whitespace().any(|name| name == controller);
        let Some((tree, leaf)) = unified.filter(|_| is_offered) else {
            // To lift a limit that cannot exist is no failure.
            let is_moot = |write: &Write<'_>| {
                write.absent == Absent::IsFine || write.value == "max" || write.value == "-1"
            };
            return match group.iter().find(|write| !is_moot(write)) {
                None => Ok(()),
                Some(write) => Err(write.refused(no_controller(controller))),
            };
        };
        v2::enable_controllers(
            tree.mount()?,
            leaf,
            &tree.hierarchy.path,
            &[controller].into(),
        )?;
        let mut writes = limits_v2::writes(resources)?;
        writes.retain(|write| write.controller == controller);
        writes::apply(leaf, &writes)
    }

    /// A rootless container that asked for nothing goes without the cgroups it may not have.
    fn make_what_is_allowed(&mut self) -> Result<()> {
        for tree in std::mem::take(&mut self.trees) {
            match make(&tree) {
                Ok(_) => self.trees.push(tree),
                Err(error) if is_denied(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Files for V1 {
    fn refuse_used(&self) -> Result<()> {
        match self.census() {
            Some(tree) if tree.find()?.is_some() => tree.refuse_used(),
            _ => Ok(()),
        }
    }

    fn adopt(&self, pid: i32, _: Option<&LinuxResources>) -> Result<()> {
        for tree in &self.trees {
            make(tree)?;
            place(tree.leaf()?, pid)?;
        }
        Ok(())
    }
}

/// [`make`], for a container that must be alone in its cgroup.
fn make_own(tree: &Tree) -> Result<()> {
    if make(tree)? == Made::Existed {
        tree.refuse_used()?;
        refuse_frozen(tree)?;
    }
    Ok(())
}

/// Makes the cgroup of one hierarchy, ready to be entered; a half made one is removed.
fn make(tree: &Tree) -> Result<Made> {
    let made = tree.make()?;
    if tree.hierarchy.has("cpuset") {
        let fill = |file: &&str| inherit(tree.mount()?, &tree.hierarchy.path, file).map(drop);
        if let Err(error) = ["cpuset.cpus", "cpuset.mems"].iter().try_for_each(fill) {
            if made == Made::New {
                let _ = tree.remove(Instant::now());
            }
            return Err(error);
        }
    }
    Ok(made)
}

/// The value of a cpuset file at `path`, copied down from the nearest ancestor that has one: no
/// process can enter a v1 cpuset that is empty. Source: cpusets(7).
fn inherit(mount: &Dir, path: &str, file: &str) -> Result<String> {
    if path.is_empty() {
        return mount.get(file).map(|value| value.trim().to_owned());
    }
    let dir = mount
        .open(path)
        .map_err(|errno| Error::host("open", mount.join(path), errno))?;
    let own = dir.get(file)?;
    if !own.trim().is_empty() {
        return Ok(own.trim().to_owned());
    }
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let value = inherit(mount, parent, file)?;
    dir.set(file, &value)?;
    Ok(value)
}

fn no_controller(name: &str) -> String {
    // *Matched* in its first half by runc's callers.
    format!(
        "cannot set {name} limit: container could not join or create cgroup; the controller is not \
         mounted, or not writable"
    )
}

const DEVICES: &str = ".linux.resources.devices";
const STATE: &str = "freezer.state";
const FROZEN: &str = "FROZEN";
const THAWED: &str = "THAWED";

fn refuse_frozen(tree: &Tree) -> Result<()> {
    let frozen = match tree.hierarchy.has("freezer") {
        true => is_frozen(tree.leaf()?)?,
        false => tree.is_v2() && v2::is_frozen(tree.leaf()?)?,
    };
    if frozen {
        Err(super::unexpectedly_frozen())
    } else {
        Ok(())
    }
}

/// Writes `FROZEN` until the kernel agrees: freezer-subsystem.rst.
fn freeze(leaf: &Dir) -> Result<()> {
    let deadline = Instant::now() + FREEZE_WAIT;
    let mut tries = 0;
    let failed = loop {
        tries += 1;
        if tries % FREEZE_TRIES_BEFORE_THAW == 0 {
            leaf.set(STATE, THAWED)?;
            sleep(Duration::from_millis(10));
        }
        if let Err(error) = leaf.set(STATE, FROZEN) {
            break error;
        }
        match leaf.get(STATE) {
            Ok(state) if state.trim() == FROZEN => return Ok(()),
            Ok(_) if Instant::now() < deadline => sleep(Duration::from_micros(200)),
            Ok(_) => {
                let (path, wait) = (leaf.path(), FREEZE_WAIT.as_secs());
                let text = format!("cgroup {path} did not freeze within {wait} s; it runs on");
                break Error::Failed(text);
            }
            Err(error) => break error,
        }
    };
    leaf.set(STATE, THAWED)?;
    Err(failed)
}

/// `FREEZING` counts: who asked for it wants the container to be seen as paused.
fn is_frozen(leaf: &Dir) -> Result<bool> {
    match leaf.read(STATE) {
        Ok(state) => Ok(state.trim() != THAWED),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
        Err(errno) => Err(Error::host("read", leaf.join(STATE), errno)),
    }
}
