//! A container's cgroups: where they are, what they limit, who is in them.
//!
//! [`plan`] decides without touching anything; [`open`] gives the [`Driver`] of a decision, for the
//! create that follows as for every later command. The caller writes the [`Saved`] first, so that
//! `delete` finds everything after a crash at any point.
//!
//! `create` goes: `prepare`, `confine`, then `clone3` as the [`Placement`] says, and where that wants
//! it `place` before the new process may go on.

mod dbus;
mod devices;
mod dir;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod limits;
mod limits_v1;
mod limits_v2;
mod mountinfo;
mod oom;
#[cfg(test)]
mod live;
mod paths;
mod program;
pub mod resctrl;
pub mod stats;
mod stats_v1;
mod stats_v2;
mod systemd;
mod tree;
mod unit;
mod unit_devices;
pub mod update;
mod v1;
mod v2;
mod writes;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{
    LinuxDeviceCgroup, LinuxNamespace, LinuxNamespaceType, LinuxResources, Spec,
};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use dbus::Value;
pub use oom::OomWatch;
pub use paths::{Host, Mount, own, plan_on};
pub use stats::Stats;
pub use unit::ANNOTATION;

/// What `create` asks for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The container's id.
    pub id: &'a str,
    /// `linux.cgroupsPath`; for systemd of the form `slice:prefix:name`.
    pub cgroups_path: Option<&'a str>,
    /// Who makes the cgroups.
    pub manager: Manager,
    /// Whether the runtime lacks the rights of the host's root.
    pub rootless: bool,
    /// `annotations`; systemd's driver reads `org.systemd.property.*`.
    pub annotations: Option<&'a HashMap<String, String>>,
    /// `linux.resources`.
    pub resources: Option<&'a LinuxResources>,
    /// The user who gets the cgroup as his own (v2), see [`owner`].
    pub owner: Option<u32>,
}

/// Who makes the cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// keel, in the file system.
    Cgroupfs,
    /// systemd, asked for a scope.
    Systemd,
    /// Nobody: the container stays in the runtime's cgroup and has no limits.
    Disabled,
}

/// The cgroup version to which the host's controllers belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// One tree for each controller, perhaps with a v2 tree beside them ("hybrid").
    V1,
    /// One tree with all controllers.
    V2,
}

/// What state.json keeps, and all that a later command needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// Who made the cgroups.
    pub manager: Manager,
    /// The version of the controllers.
    pub version: Version,
    /// The container's cgroup in each hierarchy; one on v2.
    pub hierarchies: Vec<Hierarchy>,
    /// The unit, if systemd made the cgroups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// Whether the runtime lacked the rights of the host's root.
    #[serde(default)]
    pub rootless: bool,
    /// Whether config.json names a path. If not, a rootless container may do without a cgroup.
    #[serde(default)]
    pub asked: bool,
    /// See [`Request::owner`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
}

impl Saved {
    /// The hierarchy of a v1 controller; `""` is the v2 hierarchy.
    pub fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.has(controller))
    }
}

/// The container's cgroup in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hierarchy {
    /// The mount point.
    pub mount: String,
    /// The path below it, without a slash at either end.
    pub path: String,
    /// The v1 controllers, or `name=systemd`; empty for the v2 hierarchy.
    pub controllers: Vec<String>,
    /// The inode of the cgroup, once it is made: another has another, also at the same path. A
    /// command in another container, or a later one, may see such a one there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
}

impl Hierarchy {
    /// Whether this is the hierarchy of `controller`; `""` is the v2 hierarchy.
    pub fn has(&self, controller: &str) -> bool {
        match controller {
            "" => self.controllers.is_empty(),
            _ => self.controllers.iter().any(|name| name == controller),
        }
    }

    /// The absolute path, for people.
    pub fn full_path(&self) -> String {
        format!("{}/{}", self.mount, self.path)
    }
}

/// A systemd unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// The slice it lies in.
    pub slice: String,
    /// Its whole name, with `.scope` or `.slice`.
    pub name: String,
    /// Whether the user's systemd runs it, not the system's.
    pub user: bool,
    /// Properties that annotations set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<(String, Value)>,
}

/// How the container's first process, or one that joins later, gets into the cgroup.
#[derive(Debug)]
pub enum Placement {
    /// `clone3` with `CLONE_INTO_CGROUP` and this directory (Linux 5.7): nothing left to do.
    AtBirth(OwnedFd),
    /// `clone3` into `cgroup`, if there is one, and the new process writes `0` to each of `doors`
    /// first of all. Or [`Driver::place`], as with `ByParent`.
    ///
    /// A process that moves itself needs no lock that waits for every CPU, which a parent's write
    /// of its pid does (5 ms and more on a busy host).
    ByChild {
        /// The v2 tree of a hybrid host.
        cgroup: Option<OwnedFd>,
        /// The `tasks` files of v1.
        doors: Vec<OwnedFd>,
    },
    /// The parent calls [`Driver::place`] while the new process waits.
    ByParent,
    /// There is no cgroup to be placed in: disabled, or rootless without permission.
    Nowhere,
}

/// Cgroups below the container's own for a process that joins: `exec --cgroup [CONTROLLERS:]PATH`.
///
/// The key is a v1 controller, or `""` for all that are not named; the value a relative path.
pub type Below = BTreeMap<String, String>;

/// The cgroups of one container.
pub trait Driver {
    /// Makes the cgroups. What must be set before any process is inside is set: cpusets on v1,
    /// controllers along the path on v2. `resources` are those that [`Driver::confine`] will get.
    ///
    /// # Errors
    /// Also if the cgroup exists and has processes, or is frozen. What was made is removed again.
    fn prepare(&mut self, resources: Option<&LinuxResources>) -> Result<Placement>;

    /// How a process joins the running container: `below` its cgroups, or in them. `init` is the
    /// container's first process.
    fn join(&mut self, init: i32, below: &Below) -> Result<Placement>;

    /// Puts a process into the cgroups that `prepare` or `join` decided.
    fn place(&self, pid: i32) -> Result<()>;

    /// Applies all limits of `resources` but the device rules; what is not set stays as it is.
    ///
    /// # Errors
    /// For values that no kernel takes, and for limits without a controller.
    fn limit(&self, resources: &LinuxResources) -> Result<()>;

    /// Replaces the device rules by `rules`, and the runtime's own after them.
    fn allow_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()>;

    /// Everything that `linux.resources` asks for, the device rules last. Without a list of them a
    /// container still has the rules of the runtime: nothing but the harmless devices.
    fn confine(&self, resources: Option<&LinuxResources>) -> Result<()> {
        resources.map_or(Ok(()), |resources| self.limit(resources))?;
        let rules = resources.and_then(|resources| resources.devices().as_deref());
        self.allow_devices(rules.unwrap_or_default())
    }

    /// Reads back whether the kernel took all limits of `resources`.
    ///
    /// # Errors
    /// Names the file that differs.
    fn verify_limits(&self, resources: &LinuxResources) -> Result<()>;

    /// Looks whether the kernel took the device `rules`: v1's list is read back, on v2 exactly one
    /// program must be attached.
    ///
    /// # Errors
    /// Names what differs.
    fn verify_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()>;

    /// Looks whether the kernel took what [`Driver::confine`] gave it.
    ///
    /// # Errors
    /// Names what differs.
    fn verify(&self, resources: Option<&LinuxResources>) -> Result<()> {
        resources.map_or(Ok(()), |resources| self.verify_limits(resources))?;
        let rules = resources.and_then(|resources| resources.devices().as_deref());
        self.verify_devices(rules.unwrap_or_default())
    }

    /// Looks from outside whether `pid` is in the cgroups, or below them.
    ///
    /// # Errors
    /// Names the cgroup that it is not in.
    fn verify_placed(&self, pid: i32) -> Result<()>;

    /// Stops every process; an error leaves the container running.
    fn freeze(&self) -> Result<()>;

    /// Lets the processes run again.
    fn thaw(&self) -> Result<()>;

    /// Whether the processes are stopped; `false` if there is no cgroup.
    fn is_frozen(&self) -> Result<bool>;

    /// The host's ids of all processes, those in cgroups below too; empty if there is no cgroup.
    fn processes(&self) -> Result<Vec<i32>>;

    /// Sends `signal` to every process. `SIGKILL` reaches frozen processes, too.
    fn kill(&self, signal: i32) -> Result<()>;

    /// What the container uses; what the kernel does not count is left at zero.
    fn stats(&self) -> Result<Stats>;

    /// How many of the container's processes the OOM killer has killed so far.
    fn oom_kills(&self) -> Result<u64>;

    /// A watch for more of that; `None` without the memory controller.
    fn watch_oom(&self) -> Result<Option<OomWatch>>;

    /// Removes the cgroups and all below them, in bounded time. That they are gone is a success.
    ///
    /// # Errors
    /// Names the processes that keep a cgroup busy.
    fn remove(&self) -> Result<()>;

    /// The container's cgroups that this process cannot see: their hierarchies are not mounted, or
    /// somebody else's cgroups are at their paths.
    ///
    /// # Errors
    /// If a mount point cannot be looked at.
    fn unseen(&self) -> Result<Vec<String>>;

    /// What state.json keeps. After `prepare` it says what was really made.
    fn saved(&self) -> Saved;
}

/// The host's id of the user who runs the container's program, if the cgroup is to be his own: if
/// the container has a new cgroup namespace and a writable `/sys/fs/cgroup`.
///
/// Source: runtime-spec, config-linux.md "Cgroup ownership".
pub fn owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let mut namespaces = linux.namespaces().iter().flatten();
    let is_new =
        |ns: &LinuxNamespace| ns.typ() == LinuxNamespaceType::Cgroup && ns.path().is_none();
    let mut mounts = spec.mounts().iter().flatten().rev();
    let mount = mounts.find(|mount| mount.destination() == Path::new("/sys/fs/cgroup"))?;
    let options = mount.options().iter().flatten().rev();
    let mode = options
        .map(String::as_str)
        .find(|word| matches!(*word, "ro" | "rw" | "rro"));
    if !namespaces.any(is_new) || !matches!(mode, None | Some("rw")) {
        return None;
    }
    let user = spec.process().as_ref()?.user().uid();
    match linux.uid_mappings().as_deref() {
        None | Some([]) => Some(user),
        Some(maps) => maps.iter().find_map(|map| {
            let at = user.checked_sub(map.container_id())?;
            (at < map.size()).then(|| map.host_id().checked_add(at))?
        }),
    }
}

/// Decides where a new container's cgroups are; creates nothing.
///
/// # Errors
/// See [`plan_on`]; and if the cgroup is in use, which must not come to be recorded as the new
/// container's: whoever deletes that would delete the other's.
pub fn plan(request: &Request<'_>) -> Result<Saved> {
    let saved = plan_on(request, &Host::read(request.is_below_the_runtime())?)?;
    files(&saved).refuse_used()?;
    Ok(saved)
}

/// The driver of a decision.
pub fn open(saved: &Saved) -> Box<dyn Driver> {
    match (&saved.unit, saved.version) {
        (Some(unit), _) => Box::new(systemd::Systemd::new(saved, unit, files(saved))),
        (None, Version::V1) => Box::new(v1::V1::new(saved)),
        (None, Version::V2) => Box::new(v2::V2::new(saved)),
    }
}

fn files(saved: &Saved) -> Box<dyn Files> {
    match saved.version {
        Version::V1 => Box::new(v1::V1::new(saved)),
        Version::V2 => Box::new(v2::V2::new(saved)),
    }
}

/// What systemd's driver needs of the files below a unit.
trait Files: Driver {
    /// Refuses cgroups that somebody else is using.
    fn refuse_used(&self) -> Result<()>;

    /// Makes what systemd did not make, and puts `pid`, which systemd has placed in its own tree,
    /// into the rest.
    fn adopt(&self, pid: i32, resources: Option<&LinuxResources>) -> Result<()>;
}

/// Opens a cgroup below the container's own, for a process that joins. The words are runc's.
fn open_below(leaf: &dir::Dir, path: &str) -> Result<dir::Dir> {
    if path.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return Err(Error::Failed(format!("bad sub cgroup path: {path}")));
    }
    leaf.open(path)
        .map_err(|errno| Error::host("adding pid of the command to", leaf.join(path), errno))
}

fn no_cgroup() -> Error {
    Error::Failed("cgroup not exist: the container has no cgroup of its own".into())
}

fn unexpectedly_frozen() -> Error {
    Error::Failed("container's cgroup unexpectedly frozen".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_the_program_owns_a_cgroup_that_he_can_see_alone_and_write() {
        const MAPS: &str = r#","uidMappings":[{"containerID":0,"hostID":7000,"size":10}]"#;
        let cases: &[(&str, &str, &str, u32, Option<u32>)] = &[
            ("cgroup", "", r#"["rw"]"#, 0, Some(0)),
            ("cgroup", "", r#"["nosuid"]"#, 5, Some(5)),
            ("cgroup", MAPS, "[]", 3, Some(7003)),
            ("cgroup", MAPS, "[]", 10, None),
            ("cgroup", "", r#"["rw","ro"]"#, 0, None),
            ("cgroup", "", r#"["ro","rw"]"#, 0, Some(0)),
            ("pid", "", r#"["rw"]"#, 0, None),
        ];
        for (namespace, maps, options, uid, want) in cases {
            let spec = serde_json::from_str(&format!(
                r#"{{"ociVersion":"1.0.2","root":{{"path":"r"}},
                "process":{{"user":{{"uid":{uid},"gid":0}},"cwd":"/","args":["a"]}},
                "mounts":[{{"destination":"/sys/fs/cgroup","type":"cgroup","options":{options}}}],
                "linux":{{"namespaces":[{{"type":"{namespace}"}}]{maps}}}}}"#
            ));
            let got = owner(&spec.unwrap());
            assert_eq!(got, *want, "{namespace} {maps} {options} {uid}");
        }
    }
}
