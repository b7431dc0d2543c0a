//! Which namespaces are made at birth, made later, or joined.

use std::path::{Path, PathBuf};

use libc::{CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID};
use libc::{CLONE_NEWTIME, CLONE_NEWUSER, CLONE_NEWUTS};
use oci_spec::runtime as oci;
use oci_spec::runtime::LinuxNamespaceType as Type;

use super::idmap::{self, Owners};
use crate::error::{Error, Result};

/// `CLONE_NEW*` bits as clone3 takes them.
pub type Flags = u64;

/// The user namespace's flag.
pub const USER: Flags = CLONE_NEWUSER as Flags;
/// The pid namespace's flag.
pub const PID: Flags = CLONE_NEWPID as Flags;
/// The mount namespace's flag.
pub const MOUNT: Flags = CLONE_NEWNS as Flags;
/// The network namespace's flag.
pub const NET: Flags = CLONE_NEWNET as Flags;
/// The cgroup namespace's flag.
pub const CGROUP: Flags = CLONE_NEWCGROUP as Flags;
/// The UTS namespace's flag.
pub const UTS: Flags = CLONE_NEWUTS as Flags;
/// The IPC namespace's flag.
pub const IPC: Flags = CLONE_NEWIPC as Flags;
/// The time namespace's flag.
pub const TIME: Flags = CLONE_NEWTIME as Flags;

/// A namespace that exists already.
#[derive(Debug, PartialEq, Eq)]
pub struct Join {
    /// Its kind.
    pub kind: Flags,
    /// The file that stands for it.
    pub path: PathBuf,
    /// Where config.json names it.
    pub at: String,
}

/// What happens to each of the eight kinds of namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Made by clone3 itself.
    pub birth: Flags,
    /// Made by the child once its ids are mapped and it is in its cgroup.
    pub later: Flags,
    /// Joined, in the order of config.json.
    pub joins: Vec<Join>,
    /// Text for `uid_map` and `gid_map` of a new user namespace.
    pub id_maps: Option<(String, String)>,
    /// What config.json says that those of a joined user namespace are.
    pub joined_id_maps: Option<(String, String)>,
    /// Text for `timens_offsets` of a new time namespace.
    pub time_offsets: Option<String>,
    /// Interfaces of the host that move into the network namespace, in the order of their names.
    pub net_devices: Vec<NetDevice>,
}

/// A network interface that the container gets.
#[derive(Debug, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name on the host.
    pub name: String,
    /// Its name in the container; `%d` stands for the first free number.
    pub inside: String,
    /// Where config.json names it.
    pub at: String,
}

impl Namespaces {
    /// Decides for `linux.namespaces` and what belongs to it.
    ///
    /// # Errors
    /// [`Error::Spec`] for a kind that is listed twice, and for mappings or offsets without their
    /// namespace; runtime-spec, config-linux.md "Namespaces", "User namespace mappings", "Offset
    /// for Time Namespace".
    pub fn read(linux: &oci::Linux) -> Result<Self> {
        let mut read = Self::default();
        let (mut new, mut seen) = (0, 0);
        for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
            let kind = flag(namespace.typ());
            let at = format!(".linux.namespaces[{index}]");
            if seen & kind != 0 {
                let why = format!("a second {} namespace", name(kind));
                return Err(Error::spec(format!("{at}.type"), why));
            }
            seen |= kind;
            match namespace.path().as_deref().filter(|path| !is_empty(path)) {
                None => new |= kind,
                Some(path) => {
                    let at = format!("{at}.path");
                    read.joins.push(Join {
                        kind,
                        path: path.to_owned(),
                        at,
                    });
                }
            }
        }
        // In a mapped user namespace an IPC namespace made at birth gives its files to nobody, and
        // a cgroup namespace made before the child is in its cgroup shows the wrong root.
        read.later = new & CGROUP | if new & USER != 0 { new & IPC } else { 0 };
        read.birth = new & !read.later;
        let maps = id_maps(linux, seen, new)?;
        match new & USER {
            0 => read.joined_id_maps = maps,
            _ => read.id_maps = maps,
        }
        read.time_offsets = time_offsets(linux, new)?;
        read.net_devices = net_devices(linux);
        Ok(read)
    }

    /// All namespaces that are made for the container.
    pub const fn new_ones(&self) -> Flags {
        self.birth | self.later
    }

    /// Whether a namespace of this kind belongs to the container: made or joined.
    pub fn has(&self, kind: Flags) -> bool {
        self.new_ones() & kind != 0 || self.join(kind).is_some()
    }

    /// The namespace of this kind that is joined.
    pub fn join(&self, kind: Flags) -> Option<&Join> {
        self.joins.iter().find(|join| join.kind == kind)
    }

    /// Whose ids the container's processes have; `None` if it has no user namespace of its own.
    pub fn owners(&self) -> Option<Owners> {
        match &self.id_maps {
            Some((uids, gids)) => Some(Owners::Mapped {
                uids: uids.clone(),
                gids: gids.clone(),
            }),
            None => self.join(USER).map(|_| Owners::Joined),
        }
    }

    /// The user namespace to be joined is the one that the runtime is in, which setns(2) refuses:
    /// podman's `--userns=container:ID` names it if that container has none of its own.
    pub fn stay_in_the_user_namespace(&mut self) {
        self.joins.retain(|join| join.kind != USER);
        self.joined_id_maps = None;
    }

    /// Whether a user namespace is joined while others are made, which must belong to it.
    pub fn makes_inside_a_joined_user_namespace(&self) -> bool {
        self.join(USER).is_some() && self.new_ones() != 0
    }
}

/// The `CLONE_NEW*` flag of a type in config.json.
const fn flag(kind: Type) -> Flags {
    match kind {
        Type::Mount => MOUNT,
        Type::Cgroup => CGROUP,
        Type::Uts => UTS,
        Type::Ipc => IPC,
        Type::User => USER,
        Type::Pid => PID,
        Type::Network => NET,
        Type::Time => TIME,
    }
}

/// The kind's name in config.json.
pub const fn name(kind: Flags) -> &'static str {
    match kind {
        MOUNT => "mount",
        CGROUP => "cgroup",
        UTS => "uts",
        IPC => "ipc",
        USER => "user",
        PID => "pid",
        NET => "network",
        _ => "time",
    }
}

/// The kind's file below `/proc/PID/ns`.
pub const fn proc_name(kind: Flags) -> &'static str {
    match kind {
        MOUNT => "mnt",
        NET => "net",
        other => name(other),
    }
}

/// Every kind, in the order of the names in `/proc/PID/ns`.
pub const ALL: [Flags; 8] = [CGROUP, IPC, MOUNT, NET, PID, TIME, USER, UTS];

/// The kinds that a container has made for itself.
pub fn made(linux: &oci::Linux) -> Flags {
    let namespaces = linux.namespaces().iter().flatten();
    namespaces
        .filter(|namespace| namespace.path().as_deref().is_none_or(is_empty))
        .fold(0, |made, namespace| made | flag(namespace.typ()))
}

/// An empty path is none, as in runc.
fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn id_maps(linux: &oci::Linux, seen: Flags, new: Flags) -> Result<Option<(String, String)>> {
    let read = |maps: &Option<Vec<oci::LinuxIdMapping>>, at: &str| match maps.as_deref() {
        None | Some([]) => Ok(None),
        Some(maps) => idmap::text(maps, at).map(Some),
    };
    let uids = read(linux.uid_mappings(), ".linux.uidMappings")?;
    let gids = read(linux.gid_mappings(), ".linux.gidMappings")?;
    let needs = |at: &str, why: &str| Err(Error::spec(at, why));
    match (uids, gids) {
        (None, None) if new & USER == 0 => Ok(None),
        (Some(_) | None, Some(_)) | (Some(_), None) if seen & USER == 0 => needs(
            ".linux.uidMappings",
            "id mappings need a user namespace in .linux.namespaces",
        ),
        (None, _) => needs(
            ".linux.uidMappings",
            "a new user namespace needs uidMappings",
        ),
        (_, None) => needs(
            ".linux.gidMappings",
            "a new user namespace needs gidMappings",
        ),
        // containerd and CRI-O name the maps of a joined namespace, too.
        (Some(uids), Some(gids)) => Ok(Some((uids, gids))),
    }
}

fn net_devices(linux: &oci::Linux) -> Vec<NetDevice> {
    let devices = linux.net_devices().iter().flatten();
    let mut devices: Vec<NetDevice> = devices
        .map(|(name, device)| {
            let new = device.name().as_deref().filter(|new| !new.is_empty());
            NetDevice {
                name: name.clone(),
                inside: new.unwrap_or(name).to_owned(),
                at: format!(".linux.netDevices.{name}"),
            }
        })
        .collect();
    devices.sort_by(|one, other| one.name.cmp(&other.name));
    devices
}

fn time_offsets(linux: &oci::Linux, new: Flags) -> Result<Option<String>> {
    let Some(offsets) = linux
        .time_offsets()
        .as_ref()
        .filter(|offsets| !offsets.is_empty())
    else {
        return Ok(None);
    };
    let at = ".linux.timeOffsets";
    if new & TIME == 0 {
        return Err(Error::spec(
            at,
            "time offsets need a new time namespace in .linux.namespaces",
        ));
    }
    let mut lines: Vec<String> = Vec::new();
    for (clock, offset) in offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            let why = "the clock is neither \"monotonic\" nor \"boottime\"";
            return Err(Error::spec(format!("{at}.{clock}"), why));
        }
        let (secs, nanosecs) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if nanosecs >= 1_000_000_000 {
            let why = "a second has 1000000000 nanoseconds";
            return Err(Error::spec(format!("{at}.{clock}.nanosecs"), why));
        }
        lines.push(format!("{clock} {secs} {nanosecs}\n"));
    }
    lines.sort();
    Ok(Some(lines.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Namespaces> {
        Namespaces::read(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn ipc_waits_for_the_id_maps_and_cgroup_for_the_cgroup() {
        let plain = read(r#"{"namespaces":[{"type":"pid"},{"type":"ipc"},{"type":"cgroup"}]}"#);
        let plain = plain.unwrap();
        assert_eq!((plain.birth, plain.later), (PID | IPC, CGROUP));
        let mapped = read(
            r#"{"namespaces":[{"type":"user"},{"type":"ipc"},{"type":"mount"}],
            "uidMappings":[{"containerID":0,"hostID":1000,"size":1}],
            "gidMappings":[{"containerID":0,"hostID":1000,"size":1}]}"#,
        )
        .unwrap();
        assert_eq!((mapped.birth, mapped.later), (USER | MOUNT, IPC));
        assert_eq!(mapped.id_maps.unwrap().0, "0 1000 1\n");
    }

    #[test]
    fn contradictions_are_refused_with_their_place() {
        let map = r#"[{"containerID":0,"hostID":1000,"size":1}]"#;
        let cases = [
            (
                r#"{"namespaces":[{"type":"pid"},{"type":"pid"}]}"#.into(),
                ".linux.namespaces[1].type",
            ),
            (
                r#"{"namespaces":[{"type":"user"}]}"#.into(),
                ".linux.uidMappings",
            ),
            (
                format!(r#"{{"namespaces":[{{"type":"user"}}],"uidMappings":{map}}}"#),
                ".linux.gidMappings",
            ),
            (
                format!(r#"{{"uidMappings":{map},"gidMappings":{map}}}"#),
                ".linux.uidMappings",
            ),
            (
                r#"{"timeOffsets":{"monotonic":{"secs":1}}}"#.into(),
                ".linux.timeOffsets",
            ),
            (
                r#"{"namespaces":[{"type":"time"}],"timeOffsets":{"realtime":{"secs":1}}}"#.into(),
                ".linux.timeOffsets.realtime",
            ),
        ];
        for (json, wanted) in cases {
            match read(&json) {
                Err(Error::Spec { at, .. }) => assert_eq!(at, wanted, "{json}"),
                other => panic!("{json}: {other:?}"),
            }
        }
    }

    #[test]
    fn offsets_are_written_as_the_kernel_reads_them() {
        let json = r#"{"namespaces":[{"type":"time"}],
            "timeOffsets":{"monotonic":{"secs":-5,"nanosecs":7},"boottime":{"secs":9}}}"#;
        assert_eq!(
            read(json).unwrap().time_offsets.unwrap(),
            "boottime 9 0\nmonotonic -5 7\n"
        );
    }
}
