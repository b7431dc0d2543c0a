//! Decides where a container's cgroups are: the host's facts and the request in, a [`Saved`] out.
//!
//! Nothing is created here, so the caller can write the intent to state.json before the effect.
//! Sources: runtime-spec, config-linux.md "Cgroups Path"; cgroups(7); systemd.slice(5).

use super::{Hierarchy, Manager, Request, Saved, Unit, Version, devices, limits, mountinfo, unit};
use crate::error::{Error, Result};
use crate::sys::Errno;
use crate::sys::fd::read_kernel_file;

/// Where pure v2 is mounted, and the tmpfs with the v1 hierarchies otherwise: file-hierarchy(7).
pub const ROOT: &str = "/sys/fs/cgroup";
/// systemd's place for the v2 hierarchy beside v1 controllers ("hybrid").
pub const HYBRID: &str = "/sys/fs/cgroup/unified";
/// Longest path of a cgroup, in bytes: the kernel's `PATH_MAX`.
const LONGEST_PATH: usize = 4096;
/// Longest name of a cgroup or unit, in bytes: `NAME_MAX`, and systemd's `UNIT_NAME_MAX`.
const LONGEST_NAME: usize = 255;
const AT: &str = ".linux.cgroupsPath";

/// What the host offers, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Which version the controllers belong to.
    pub version: Version,
    /// One for each hierarchy.
    pub mounts: Vec<Mount>,
    /// The text of `/proc/self/cgroup`; may be empty if no relative path is asked for.
    pub own: String,
    /// The effective user id of the runtime.
    pub uid: u32,
}

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The mount point.
    pub point: String,
    /// Which directory of the hierarchy is mounted there; not `/` in containers without a cgroup
    /// namespace.
    pub root: String,
    /// The v1 controllers (or `name=systemd`) of the hierarchy; empty for the v2 hierarchy.
    pub controllers: Vec<String>,
}

impl Host {
    /// Reads the facts: one `statfs` on v2, `mountinfo` on v1; the runtime's own cgroups only if they
    /// are asked for.
    pub fn read(with_own: bool) -> Result<Self> {
        let own = if with_own {
            read("/proc/self/cgroup")?
        } else {
            String::new()
        };
        let uid = nix::unistd::geteuid().as_raw();
        if is_cgroup2(ROOT)? {
            let mut mount = Mount::unified(ROOT);
            // Only a runtime that sees its own cgroup below the root can see a part of the tree.
            if with_own && !own.lines().any(|line| line == "0::/") {
                mount.root = mountinfo::root_of(ROOT, &read("/proc/self/mountinfo")?);
            }
            return Ok(Self {
                version: Version::V2,
                mounts: vec![mount],
                own,
                uid,
            });
        }
        let mountinfo = read("/proc/self/mountinfo")?;
        let mut mounts = mountinfo::v1_mounts(&mountinfo);
        if is_cgroup2(HYBRID)? {
            mounts.push(Mount {
                root: mountinfo::root_of(HYBRID, &mountinfo),
                ..Mount::unified(HYBRID)
            });
        }
        Ok(Self {
            version: Version::V1,
            mounts,
            own,
            uid,
        })
    }

    /// The runtime's own cgroup in a hierarchy, as a path below its mount point.
    fn own_cgroup(&self, mount: &Mount) -> String {
        let wanted = mount.controllers.first().map_or("", String::as_str);
        let path = self
            .own
            .lines()
            .filter_map(|line| {
                line.splitn(3, ':')
                    .skip(1)
                    .collect::<Vec<_>>()
                    .try_into()
                    .ok()
            })
            .find_map(|[names, path]: [&str; 2]| {
                names.split(',').any(|n| n == wanted).then_some(path)
            })
            .unwrap_or("/");
        let below = match mount.root.as_str() {
            "/" => path,
            root => path.strip_prefix(root).unwrap_or("/"),
        };
        below.trim_matches('/').to_owned()
    }
}

impl Mount {
    /// The v2 hierarchy, all of it.
    pub fn unified(point: &str) -> Self {
        Self {
            point: point.into(),
            root: "/".into(),
            controllers: Vec::new(),
        }
    }
}

impl Request<'_> {
    /// Whether the answer depends on the cgroup that the runtime itself is in.
    pub fn is_below_the_runtime(&self) -> bool {
        match self.manager {
            Manager::Cgroupfs => !self.cgroups_path.is_some_and(|path| path.starts_with('/')),
            Manager::Systemd => self.rootless,
            Manager::Disabled => false,
        }
    }
}

/// Decides the cgroups of a new container; pure.
///
/// # Errors
/// [`Error::Spec`] for a path that leaves its parent, names no cgroup or is too long, for a unit
/// name that systemd refuses, for `unified` on v1 and for limits that no kernel takes; [`Error::Failed`] if the devices controller
/// of v1 is missing.
pub fn plan_on(request: &Request<'_>, host: &Host) -> Result<Saved> {
    if host.version == Version::V1 && request.resources.is_some_and(has_unified) {
        return Err(Error::spec(
            ".linux.resources.unified",
            "invalid configuration: cannot use unified on cgroup v1; use the v1 fields",
        ));
    }
    if let Some(resources) = request.resources {
        limits::check(resources, host.version)?;
        devices::rules(resources.devices().as_deref().unwrap_or_default())?;
    }
    let mut saved = Saved {
        manager: request.manager,
        version: host.version,
        hierarchies: Vec::new(),
        unit: None,
        rootless: request.rootless,
        asked: request.cgroups_path.is_some_and(|path| !path.is_empty()),
        owner: request.owner,
    };
    match request.manager {
        Manager::Disabled => return Ok(saved),
        Manager::Cgroupfs => {
            let path = inner_path(request)?;
            saved.hierarchies = hierarchies(host, |mount| fs_path(host, mount, &path));
        }
        Manager::Systemd => {
            let unit = unit_of(request)?;
            let path = unit_path(&unit, host)?;
            saved.hierarchies = hierarchies(host, |_| path.clone());
            saved.unit = Some(unit);
        }
    }
    if host.version == Version::V1 && saved.unit.as_ref().is_some_and(|unit| unit.user) {
        return Err(Error::Failed(
            "a user's systemd has no cgroups of its own on cgroup v1; leave --systemd-cgroup out"
                .into(),
        ));
    }
    if let Some(long) = saved
        .hierarchies
        .iter()
        .find(|h| h.path.len() >= LONGEST_PATH)
    {
        return Err(Error::spec(
            AT,
            format!("longer than {LONGEST_PATH} bytes: {:.60}...", long.path),
        ));
    }
    if host.version == Version::V1 && !request.rootless && saved.hierarchy("devices").is_none() {
        return Err(Error::Failed(
            "the devices controller of cgroup v1 is not mounted, so device rules cannot be enforced; \
             mount it below /sys/fs/cgroup"
                .into(),
        ));
    }
    Ok(saved)
}

/// The cgroups that the runtime itself is in.
///
/// # Errors
/// [`Error::Host`] if the host's files about them cannot be read.
pub fn own() -> Result<Vec<Hierarchy>> {
    let host = Host::read(true)?;
    Ok(hierarchies(&host, |mount| host.own_cgroup(mount)))
}

fn hierarchies(host: &Host, path: impl Fn(&Mount) -> String) -> Vec<Hierarchy> {
    let to_hierarchy = |mount: &Mount| Hierarchy {
        mount: mount.point.clone(),
        path: path(mount),
        controllers: mount.controllers.clone(),
        inode: None,
    };
    host.mounts.iter().map(to_hierarchy).collect()
}

/// The cgroupfs path of one hierarchy: absolute paths start at the mount, relative ones at the
/// runtime's own cgroup (v1) or at its parent (v2, where a cgroup with processes cannot pass
/// controllers on to its children).
fn fs_path(host: &Host, mount: &Mount, path: &str) -> String {
    if let Some(absolute) = path.strip_prefix('/') {
        return absolute.to_owned();
    }
    let own = host.own_cgroup(mount);
    let base = match host.version {
        Version::V1 => own.as_str(),
        Version::V2 => own.rsplit_once('/').map_or("", |(parent, _)| parent),
    };
    if base.is_empty() {
        path.to_owned()
    } else {
        format!("{base}/{path}")
    }
}

/// The normalised `cgroupsPath`, still absolute or relative; the id if there is none.
fn inner_path(request: &Request<'_>) -> Result<String> {
    let path = request
        .cgroups_path
        .filter(|path| !path.is_empty())
        .unwrap_or(request.id);
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => return Err(Error::spec(AT, format!("{path:.200}: `..` is not allowed"))),
            _ if name.len() > LONGEST_NAME => {
                let why = format!("a name longer than {LONGEST_NAME} bytes: {name:.40}...");
                return Err(Error::spec(AT, why));
            }
            _ if name.contains(|c: char| c.is_control()) => {
                let why = format!("{name:?} contains a control character");
                return Err(Error::spec(AT, why));
            }
            _ => names.push(name),
        }
    }
    if names.is_empty() {
        return Err(Error::spec(
            AT,
            format!("{path:?} names no cgroup below the root"),
        ));
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    Ok(format!("{root}{}", names.join("/")))
}

/// The unit of `slice:prefix:name`; without a path, of the container's id.
fn unit_of(request: &Request<'_>) -> Result<Unit> {
    let default_slice = if request.rootless {
        "user.slice"
    } else {
        "system.slice"
    };
    let (slice, name) = match request.cgroups_path.filter(|path| !path.is_empty()) {
        None => ("", format!("keel-{}.scope", escaped(request.id))),
        Some(path) => match path.split(':').collect::<Vec<_>>()[..] {
            [slice, _, name] if name.ends_with(".slice") => (slice, name.to_owned()),
            [slice, "", name] => (slice, format!("{name}.scope")),
            [slice, prefix, name] => (slice, format!("{prefix}-{name}.scope")),
            _ => {
                let why = format!("{path:.200}: systemd wants the form \"slice:prefix:name\"");
                return Err(Error::spec(AT, why));
            }
        },
    };
    let slice = if slice.is_empty() {
        default_slice
    } else {
        slice
    };
    for unit in [slice, &name] {
        let stem = unit.rsplit_once('.').map_or("", |(stem, _)| stem);
        let is_valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\".contains(c);
        if stem.is_empty() || unit.len() > LONGEST_NAME || !unit.chars().all(is_valid) {
            let why = format!(
                "{unit:.200?} is no unit name: letters, digits and `:-_.\\`, at most {LONGEST_NAME} \
                 bytes; escape others with systemd-escape(1)"
            );
            return Err(Error::spec(AT, why));
        }
    }
    let properties = request
        .annotations
        .map_or(Ok(Vec::new()), unit::annotated)?;
    let slice = slice.to_owned();
    Ok(Unit {
        slice,
        name,
        user: request.rootless,
        properties,
    })
}

/// The unit's cgroup: every dash of a slice's name is a level, `a-b.slice` lies in `a.slice`.
fn unit_path(unit: &Unit, host: &Host) -> Result<String> {
    let mut levels = Vec::new();
    if unit.user {
        levels.push(user_manager(host));
    }
    let Some(stem) = unit.slice.strip_suffix(".slice") else {
        return Err(Error::spec(
            AT,
            format!("{}: a slice's name ends in `.slice`", unit.slice),
        ));
    };
    if stem != "-" {
        if stem.split('-').any(str::is_empty) {
            let why = format!(
                "{}: a slice's name has text on both sides of each dash",
                unit.slice
            );
            return Err(Error::spec(AT, why));
        }
        let dashes = stem.match_indices('-').map(|(at, _)| at);
        levels.extend(
            dashes
                .chain([stem.len()])
                .map(|end| format!("{}.slice", &stem[..end])),
        );
    }
    levels.push(unit.name.clone());
    Ok(levels.join("/"))
}

/// The cgroup of the user's own systemd, in which all its units lie.
fn user_manager(host: &Host) -> String {
    let unified = Mount::unified(ROOT);
    let own = host.own_cgroup(&unified);
    // The runtime's own cgroup knows better than its user id, which a user namespace changes.
    let is_manager = |name: &&str| name.starts_with("user@") && name.ends_with(".service");
    match own.split('/').find(is_manager) {
        Some(name) => format!(
            "{}{name}",
            own.split_once(name).map_or("", |(before, _)| before)
        ),
        None => format!("user.slice/user-{0}.slice/user@{0}.service", host.uid),
    }
}

/// systemd-escape(1) for the characters that an id may have and a unit name may not.
fn escaped(id: &str) -> String {
    id.replace('+', "\\x2b")
}

fn has_unified(resources: &oci_spec::runtime::LinuxResources) -> bool {
    resources
        .unified()
        .as_ref()
        .is_some_and(|unified| !unified.is_empty())
}

/// A host that cannot be asked is no host without it: the container would be in fewer hierarchies.
fn is_cgroup2(path: &str) -> Result<bool> {
    match nix::sys::statfs::statfs(path) {
        Ok(fs) => Ok(fs.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => Ok(false),
        Err(errno) => Err(Error::host("statfs", path, errno)),
    }
}

fn read(path: &str) -> Result<String> {
    read_kernel_file(path).map_err(|error| Error::host("read", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::mountinfo::tests::MOUNTINFO;

    const OWN: &str = "\
9:name=systemd:/docker/abc/init\n\
5:devices:/own\n\
1:cpu,cpuacct:/docker/abc/init\n\
0::/user.slice/user-7.slice/user@7.service/app.slice/x.scope\n";

    fn v1() -> Host {
        let mounts = mountinfo::v1_mounts(MOUNTINFO);
        Host {
            version: Version::V1,
            mounts,
            own: OWN.into(),
            uid: 7,
        }
    }

    fn v2() -> Host {
        let mounts = vec![Mount::unified(ROOT)];
        Host {
            version: Version::V2,
            mounts,
            own: OWN.into(),
            uid: 7,
        }
    }

    fn request(path: Option<&str>, manager: Manager) -> Request<'_> {
        Request {
            id: "c+1",
            cgroups_path: path,
            manager,
            rootless: false,
            annotations: None,
            resources: None,
            owner: None,
        }
    }

    fn paths(request: &Request<'_>, host: &Host) -> Result<Vec<String>, String> {
        let saved = plan_on(request, host).map_err(|error| error.line())?;
        Ok(saved.hierarchies.iter().map(Hierarchy::full_path).collect())
    }

    #[test]
    fn a_relative_path_lies_below_the_own_cgroup_on_v1_and_beside_it_on_v2() {
        let relative = request(Some("a/b"), Manager::Cgroupfs);
        assert_eq!(
            paths(&relative, &v1()),
            Ok(vec![
                "/sys/fs/cgroup/systemd/init/a/b".into(),
                "/sys/fs/cgroup/cpu,cpuacct/init/a/b".into(),
                "/sys/fs/cgroup/devices/own/a/b".into(),
            ])
        );
        let beside = "/sys/fs/cgroup/user.slice/user-7.slice/user@7.service/app.slice/a/b";
        assert_eq!(paths(&relative, &v2()), Ok(vec![beside.into()]));
        let none = request(None, Manager::Cgroupfs);
        let beside = "/sys/fs/cgroup/user.slice/user-7.slice/user@7.service/app.slice/c+1";
        assert_eq!(paths(&none, &v2()), Ok(vec![beside.into()]));
    }

    #[test]
    fn cgroups_path_is_normalised_or_refused() {
        let long = format!("/{}", "x".repeat(256));
        let deep = format!("/{}", "x/".repeat(2500));
        let cases: &[(&str, Result<&str, &str>)] = &[
            ("/a/b", Ok("/a/b")),
            ("/a//b/./c/", Ok("/a/b/c")),
            ("/..a/b..", Ok("/..a/b..")),
            ("../x", Err("`..` is not allowed")),
            ("/a/../../x", Err("`..` is not allowed")),
            ("/", Err("names no cgroup below the root")),
            ("./.", Err("names no cgroup below the root")),
            ("/a\nb", Err("control character")),
            ("/a\0b", Err("control character")),
            (&long, Err("a name longer than 255 bytes")),
            (&deep, Err("longer than 4096 bytes")),
        ];
        for (path, want) in cases {
            let got = paths(&request(Some(path), Manager::Cgroupfs), &v2());
            match (got, want) {
                (Ok(got), Ok(want)) => {
                    assert_eq!(got, [format!("/sys/fs/cgroup{want}")], "{path:.80}")
                }
                (Err(got), Err(want)) => {
                    assert!(
                        got.starts_with("config.json: .linux.cgroupsPath: "),
                        "{got}"
                    );
                    assert!(got.contains(want), "{path:.80}: {got}");
                }
                (got, want) => panic!("{path:.80}: {got:?} instead of {want:?}"),
            }
        }
    }

    #[test]
    fn a_unit_lies_below_every_level_of_its_slice() {
        let cases: &[(&str, Result<&str, &str>)] = &[
            ("", Ok("system.slice/keel-c\\x2b1.scope")),
            ("a-b.slice:cri:x", Ok("a.slice/a-b.slice/cri-x.scope")),
            ("-.slice:cri:x", Ok("cri-x.scope")),
            (":cri:x", Ok("system.slice/cri-x.scope")),
            ("a.slice::x", Ok("a.slice/x.scope")),
            ("a.slice:cri:a-x.slice", Ok("a.slice/a-x.slice")),
            ("a--b.slice:cri:x", Err("text on both sides of each dash")),
            ("a.scope:cri:x", Err("a slice's name ends in `.slice`")),
            ("/a/b", Err("\"slice:prefix:name\"")),
            ("a.slice:b:c:d", Err("\"slice:prefix:name\"")),
            ("a.slice:cri:x/../y", Err("is no unit name")),
            ("a.slice:cri:x y", Err("is no unit name")),
            ("../a.slice:cri:x", Err("is no unit name")),
        ];
        for (path, want) in cases {
            let got = paths(&request(Some(path), Manager::Systemd), &v2());
            match (got, want) {
                (Ok(got), Ok(want)) => {
                    assert_eq!(got, [format!("/sys/fs/cgroup/{want}")], "{path}")
                }
                (Err(got), Err(want)) => assert!(got.contains(want), "{path}: {got}"),
                (got, want) => panic!("{path}: {got:?} instead of {want:?}"),
            }
        }
    }

    #[test]
    fn a_users_unit_lies_below_the_users_own_systemd() {
        let user = Request {
            rootless: true,
            ..request(Some(":p:x"), Manager::Systemd)
        };
        let path = "/sys/fs/cgroup/user.slice/user-7.slice/user@7.service/user.slice/p-x.scope";
        assert_eq!(paths(&user, &v2()), Ok(vec![path.into()]));
        let elsewhere = Host {
            own: "0::/init.scope\n".into(),
            ..v2()
        };
        assert_eq!(paths(&user, &elsewhere), Ok(vec![path.into()]));
    }

    #[test]
    fn unified_resources_on_v1_are_refused() {
        let resources: oci_spec::runtime::LinuxResources =
            serde_json::from_str(r#"{"unified":{"memory.high":"1"}}"#).unwrap();
        let asks = Request {
            resources: Some(&resources),
            ..request(Some("/x"), Manager::Cgroupfs)
        };
        let line = plan_on(&asks, &v1()).unwrap_err().line();
        assert!(line.contains("cannot use unified on cgroup v1"), "{line}");
        assert!(plan_on(&asks, &v2()).is_ok());
    }

    #[test]
    fn v1_without_the_devices_controller_is_refused_to_root() {
        let mut host = v1();
        host.mounts.retain(|mount| mount.controllers != ["devices"]);
        let asks = request(Some("/x"), Manager::Cgroupfs);
        let line = plan_on(&asks, &host).unwrap_err().line();
        assert!(line.contains("device rules cannot be enforced"), "{line}");
        assert!(
            plan_on(
                &Request {
                    rootless: true,
                    ..asks
                },
                &host
            )
            .is_ok()
        );
        assert!(
            plan_on(
                &Request {
                    manager: Manager::Disabled,
                    ..asks
                },
                &host
            )
            .is_ok()
        );
    }

    #[test]
    fn what_is_saved_is_read_back_and_strangers_are_refused() {
        let saved = plan_on(&request(Some("a.slice:p:x"), Manager::Systemd), &v1()).unwrap();
        let text = serde_json::to_string(&saved).unwrap();
        assert_eq!(serde_json::from_str::<Saved>(&text).unwrap(), saved);
        let strange = text.replacen('{', r#"{"stranger":1,"#, 1);
        assert!(serde_json::from_str::<Saved>(&strange).is_err());
    }
}
