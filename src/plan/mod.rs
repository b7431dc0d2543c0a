//! What will be done, decided completely before anything is done.
//!
//! [`Plan::for_create`] is a pure function of config.json and a few facts about the host. The parent
//! opens what the plan names (`Fds`), the child executes it in the order of [`Step`], and because
//! both hold the same plan, one small frame is enough to say what went wrong.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;

use crate::cgroups;
use crate::error::{Error, Result};
use crate::sys::caps;
use crate::sys::mount::{Attr, Reach};

pub mod cgroup_mount;
pub mod fds;
pub mod hooks;
pub mod idmap;
pub mod mounts;
pub mod namespaces;
mod nodes;
pub mod process;
pub mod rootfs;
pub mod seccomp;
pub mod settings;
mod step;
mod text;

use hooks::{Hook, StateText};
use mounts::Mount;
use namespaces::Namespaces;
use process::Process;
use rootfs::Device;
use settings::Settings;
pub use step::{Frame, HOOK_EXITED, HOOK_TIMEOUT, Kind, Step};

/// Everything that `create` will do inside the new process, in plain data.
#[derive(Debug)]
pub struct Plan {
    /// The container's id.
    pub id: String,
    /// Namespaces made and joined.
    pub namespaces: Namespaces,
    /// The root file system's directory on the host.
    pub rootfs: CString,
    /// Propagation of the host's mounts in the new mount namespace: `MS_*`.
    pub host_propagation: u64,
    /// `linux.rootfsPropagation`, applied to `/` at the end.
    pub root_propagation: Option<(u64, Reach)>,
    /// `root.readonly`.
    pub readonly_root: bool,
    /// `--no-pivot`: move the root file system's mount over `/` instead.
    pub no_pivot: bool,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// `linux.mountLabel`, for those that `mounts` does not say it for.
    pub mount_label: Option<CString>,
    /// Device nodes; empty if `/dev` is a bind mount.
    pub devices: Vec<Device>,
    /// Whether the links of [`rootfs::LINKS`] are made.
    pub dev_links: bool,
    /// Paths that become read-only.
    pub readonly_paths: Vec<CString>,
    /// Paths that are hidden.
    pub masked_paths: Vec<CString>,
    /// Names, sysctls, execution domain, memory policy.
    pub settings: Settings,
    /// What is executed; without it the container can be created but not started.
    pub process: Process,
    /// The compiled seccomp profile.
    pub seccomp: Option<seccomp::Filter>,
    /// The session keyring's name.
    pub keyring: Option<CString>,
    /// Hooks that run in the container's namespaces before its root is entered.
    pub create_container: Vec<Hook>,
    /// Hooks that run in the container after start.
    pub start_container: Vec<Hook>,
    /// What `create_container` hooks read.
    pub creating_state: StateText,
    /// What `start_container` hooks read.
    pub created_state: StateText,
    /// Whether the parent runs hooks between the mounts and the pivot.
    pub parent_hooks: bool,
    /// Whether the process keeps the supplementary groups of the runtime: see [`KEEP_GROUPS`].
    pub keeps_groups: bool,
    /// Whether the process does without its groups where its user namespace denies setgroups(2).
    pub may_lack_groups: bool,
    /// Whether the child must wait for the parent before it does anything.
    pub waits_at_birth: bool,
    /// Whether processes of somebody else may live in the namespaces that are entered.
    pub joins_others: bool,
    /// The first descriptor that is not kept over execve: 3 and those preserved.
    pub first_closed_fd: i32,
}

/// What the plan depends on besides config.json.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The caller is not the host's root, so its user namespace may deny setgroups(2) for good.
    pub setgroups_may_be_denied: bool,
    /// The bundle's absolute path.
    pub bundle: &'a Path,
    /// `--no-pivot`.
    pub no_pivot: bool,
    /// `--no-new-keyring`.
    pub no_new_keyring: bool,
    /// Descriptors 3 and up that stay open: `LISTEN_FDS`, and after them `--preserve-fds`.
    pub listen_fds: u32,
    /// See `listen_fds`.
    pub preserve_fds: u32,
    /// Where the container's cgroups will be.
    pub cgroup: Option<&'a cgroups::Saved>,
    /// The host's directory for the notify socket, and where the container sees it.
    pub notify: Option<(&'a Path, &'a str)>,
    /// The runtime's own environment, for hooks that name none.
    pub environment: &'a [String],
}

impl<'a> Facts<'a> {
    /// The plainest case for a bundle: no flags, nothing handed over.
    pub const fn of(bundle: &'a Path) -> Self {
        Self {
            id: "",
            setgroups_may_be_denied: false,
            bundle,
            no_pivot: false,
            no_new_keyring: false,
            listen_fds: 0,
            preserve_fds: 0,
            cgroup: None,
            notify: None,
            environment: &[],
        }
    }
}

impl Plan {
    /// Decides everything for the container of `spec`.
    ///
    /// # Errors
    /// [`Error::Spec`] with the JSON path of the first value that cannot be carried out.
    pub fn for_create(spec: &oci::Spec, facts: &Facts<'_>) -> Result<Self> {
        let no_linux = oci::Linux::default();
        let linux = spec.linux().as_ref().unwrap_or(&no_linux);
        let mut namespaces = match spec.linux() {
            Some(linux) => Namespaces::read(linux)?,
            None => Namespaces::default(),
        };
        // On v1 no process is born in its cgroup.
        let placed_by_parent = facts
            .cgroup
            .is_some_and(|saved| saved.version == cgroups::Version::V1);
        if !placed_by_parent && namespaces.id_maps.is_none() {
            // Born in its cgroup with the host's ids: nothing has to wait.
            namespaces.birth |= std::mem::take(&mut namespaces.later);
        }
        let Some(process) = spec.process() else {
            return Err(Error::spec(".process", "the container has no process"));
        };
        let mut process = Process::read(process, facts.listen_fds)?;
        let rootfs = rootfs_path(spec, facts.bundle)?;
        let mut mounts = read_mounts(spec, linux, &namespaces, &rootfs, facts)?;
        if let Some((host, inside)) = facts.notify {
            mounts.push(notify_mount(host, inside)?);
            process.set_notify_socket(inside)?;
        }
        let dev_is_bound = mounts.iter().any(|mount| {
            mount.target.as_bytes() == b"/dev" && matches!(mount.what, mounts::What::Bind { .. })
        });
        let devices = if dev_is_bound {
            Vec::new()
        } else {
            rootfs::devices(linux)?
        };
        let root_propagation = root_propagation(linux)?;
        let hooks = spec.hooks().as_ref();
        let prestart = hooks.and_then(|hooks| hooks.prestart().as_ref());
        let create_runtime = hooks.and_then(|hooks| hooks.create_runtime().as_ref());
        let create_container = hooks.and_then(|hooks| hooks.create_container().as_ref());
        let start_container = hooks.and_then(|hooks| hooks.start_container().as_ref());
        let process_env: Vec<String> = spec
            .process()
            .as_ref()
            .and_then(|process| process.env().clone())
            .unwrap_or_default();
        let state = |hooks, status| state_text(hooks, spec, facts, status);
        Ok(Self {
            id: facts.id.to_owned(),
            rootfs,
            host_propagation: host_propagation(root_propagation),
            root_propagation,
            readonly_root: spec
                .root()
                .as_ref()
                .and_then(|root| root.readonly())
                .unwrap_or(false),
            no_pivot: facts.no_pivot,
            mounts,
            mount_label: mount_label_text(linux)?,
            dev_links: !dev_is_bound,
            devices,
            readonly_paths: rootfs::paths(linux.readonly_paths().as_ref(), ".linux.readonlyPaths")?,
            masked_paths: rootfs::paths(linux.masked_paths().as_ref(), ".linux.maskedPaths")?,
            settings: Settings::read(spec, linux)?,
            process,
            seccomp: linux.seccomp().as_ref().map(seccomp::compile).transpose()?,
            keyring: keyring(facts)?,
            create_container: hooks::read(create_container, "createContainer", facts.environment)?,
            start_container: hooks::read(start_container, "startContainer", &process_env)?,
            creating_state: state(create_container, "creating"),
            created_state: state(start_container, "created"),
            parent_hooks: [prestart, create_runtime]
                .iter()
                .flatten()
                .any(|list| !list.is_empty()),
            keeps_groups: keeps_groups(spec),
            may_lack_groups: facts.setgroups_may_be_denied,
            waits_at_birth: placed_by_parent
                || namespaces.id_maps.is_some()
                || !namespaces.net_devices.is_empty(),
            joins_others: !namespaces.joins.is_empty(),
            namespaces,
            first_closed_fd: first_closed(facts),
        })
    }
}

impl Plan {
    /// A plan for one more process in a container: nothing is made, everything is joined.
    pub fn for_exec(
        id: &str,
        process: &oci::Process,
        spec: &oci::Spec,
        facts: &Facts<'_>,
    ) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let seccomp = linux.and_then(|linux| linux.seccomp().as_ref());
        let memory_policy = linux.and_then(|linux| linux.memory_policy().as_ref());
        let placed_by_parent = facts.cgroup.is_some();
        Ok(Self {
            id: id.to_owned(),
            namespaces: Namespaces::default(),
            rootfs: CString::default(),
            host_propagation: libc::MS_SLAVE,
            root_propagation: None,
            readonly_root: false,
            no_pivot: false,
            mounts: Vec::new(),
            mount_label: None,
            devices: Vec::new(),
            dev_links: false,
            readonly_paths: Vec::new(),
            masked_paths: Vec::new(),
            settings: Settings {
                personality: linux.and_then(settings::personality),
                memory_policy: memory_policy.map(settings::memory_policy).transpose()?,
                ..Settings::default()
            },
            process: Process::read(process, facts.listen_fds)?,
            seccomp: seccomp.map(seccomp::compile).transpose()?,
            keyring: keyring(facts)?,
            create_container: Vec::new(),
            start_container: Vec::new(),
            creating_state: StateText::default(),
            created_state: StateText::default(),
            parent_hooks: false,
            keeps_groups: keeps_groups(spec),
            may_lack_groups: facts.setgroups_may_be_denied,
            // What only the parent can set has to be there before the process is born a second time,
            // in the container's pid namespace.
            waits_at_birth: placed_by_parent
                || process.oom_score_adj().is_some()
                || process
                    .rlimits()
                    .as_ref()
                    .is_some_and(|list| !list.is_empty()),
            joins_others: true,
            first_closed_fd: first_closed(facts),
        })
    }
}

impl Plan {
    /// A plan for a process that changes the mounts of a running container: those of `spec`, which
    /// else is as the container was made from it.
    ///
    /// # Errors
    /// [`Error::Spec`] with the JSON path of the first mount that cannot be made.
    pub fn for_mounts(spec: &oci::Spec, facts: &Facts<'_>) -> Result<Self> {
        let no_linux = oci::Linux::default();
        let linux = spec.linux().as_ref().unwrap_or(&no_linux);
        let process = spec.process().clone().unwrap_or_default();
        Ok(Self {
            mounts: read_mounts(spec, linux, &Namespaces::read(linux)?, c"", facts)?,
            host_propagation: host_propagation(root_propagation(linux)?),
            waits_at_birth: false,
            ..Self::for_exec(facts.id, &process, spec, facts)?
        })
    }
}

impl Plan {
    /// The capability that loading a filter without no_new_privs takes, and that is given back after
    /// it.
    pub fn borrowed(&self) -> u64 {
        let needs = self.seccomp.is_some() && !self.process.no_new_privs;
        if needs { caps::SYS_ADMIN } else { 0 }
    }
}

/// The annotation with which crun's callers (podman's `--group-add keep-groups`) ask that a rootless
/// container keeps its user's groups. They cannot be mapped, but still give access to files.
pub const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

fn keeps_groups(spec: &oci::Spec) -> bool {
    let annotations = spec.annotations().as_ref();
    annotations.is_some_and(|all| all.get(KEEP_GROUPS).is_some_and(|value| value == "1"))
}

/// Whether processes of the container may look into one that `exec` puts beside them and that is
/// not dumpable: if they have `CAP_SYS_PTRACE`, which a list that is missing gives too.
pub fn peers_may_trace(spec: &oci::Spec) -> bool {
    let process = spec.process().as_ref();
    let sets = process.and_then(|process| process.capabilities().as_ref());
    sets.and_then(|sets| sets.bounding().as_ref())
        .is_none_or(|bounding| bounding.contains(&oci::Capability::SysPtrace))
}

/// The first descriptor that is not handed over.
fn first_closed(facts: &Facts<'_>) -> i32 {
    let kept = facts.listen_fds.saturating_add(facts.preserve_fds);
    i32::try_from(kept).unwrap_or(i32::MAX).saturating_add(3)
}

/// The directory of the notify socket, bound into the container.
fn notify_mount(host: &Path, inside: &str) -> Result<Mount> {
    let source = text::cstring(host, "NOTIFY_SOCKET")?;
    let what = mounts::What::Bind {
        source,
        inside: None,
        reach: Reach::One,
        idmap: None,
    };
    let attr = Attr {
        set: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
        ..Attr::default()
    };
    Ok(Mount::new(
        text::cstring(inside, "NOTIFY_SOCKET")?,
        what,
        attr,
    ))
}

/// The root file system's absolute path.
fn rootfs_path(spec: &oci::Spec, bundle: &Path) -> Result<CString> {
    let Some(root) = spec.root() else {
        return Err(Error::spec(
            ".root",
            "the container has no root file system",
        ));
    };
    if root.path().as_os_str().is_empty() {
        return Err(Error::spec(".root.path", "the path is empty"));
    }
    let joined: PathBuf = bundle.join(root.path());
    text::absolute(&joined, ".root.path")
}

/// What is unbindable in the end is only private until then: keel itself binds some of it.
fn host_propagation(root: Option<(u64, Reach)>) -> u64 {
    match root {
        None => libc::MS_SLAVE,
        Some((libc::MS_UNBINDABLE, _)) => libc::MS_PRIVATE,
        Some((flag, _)) => flag,
    }
}

fn root_propagation(linux: &oci::Linux) -> Result<Option<(u64, Reach)>> {
    let word = linux
        .rootfs_propagation()
        .as_deref()
        .filter(|word| !word.is_empty());
    let Some(word) = word else {
        return Ok(None);
    };
    mounts::propagation(word).map(Some).ok_or_else(|| {
        let why =
            format!("{word:?} is not one of shared, slave, private, unbindable, or r and one");
        Error::spec(".linux.rootfsPropagation", why)
    })
}

fn mount_label(linux: &oci::Linux) -> Option<&str> {
    let label = linux.mount_label().as_deref();
    label.filter(|label| !label.is_empty())
}

fn mount_label_text(linux: &oci::Linux) -> Result<Option<CString>> {
    let label = mount_label(linux);
    label
        .map(|label| text::cstring(label, ".linux.mountLabel"))
        .transpose()
}

fn read_mounts(
    spec: &oci::Spec,
    linux: &oci::Linux,
    namespaces: &Namespaces,
    rootfs: &CStr,
    facts: &Facts<'_>,
) -> Result<Vec<Mount>> {
    let owners = namespaces.owners();
    let context = mounts::Context {
        bundle: facts.bundle,
        rootfs: Path::new(OsStr::from_bytes(rootfs.to_bytes())),
        label: mount_label(linux),
        owners: owners.as_ref(),
    };
    let mut list = Vec::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let read = mounts::read(mount, index, context)?;
        if matches!(&read.what, mounts::What::New { fs, .. } if fs.as_bytes() == b"cgroup") {
            let own_root = namespaces.new_ones() & namespaces::CGROUP != 0;
            let unprivileged = namespaces.has(namespaces::USER)
                || facts.cgroup.is_some_and(|saved| saved.rootless);
            let (cgroup, label) = (facts.cgroup, context.label);
            let expanded = cgroup_mount::expand(read, cgroup, own_root, unprivileged, label);
            list.extend(expanded?);
        } else {
            list.push(read);
        }
    }
    if !rootfs.is_empty() {
        mounts::find_sources_inside(&mut list, rootfs);
    }
    Ok(list)
}

fn keyring(facts: &Facts<'_>) -> Result<Option<CString>> {
    let wanted = !facts.no_new_keyring;
    wanted
        .then(|| text::cstring(format!("_ses.{}", facts.id), "id"))
        .transpose()
}

/// The state on a hook's standard input; runtime-spec, runtime.md "State".
fn state_text(
    readers: Option<&Vec<oci::Hook>>,
    spec: &oci::Spec,
    facts: &Facts<'_>,
    status: &str,
) -> StateText {
    if readers.is_none() {
        return StateText::default();
    }
    let mut state = serde_json::json!({
        "ociVersion": spec.version(),
        "id": facts.id,
        "status": status,
        "bundle": facts.bundle,
    });
    if let Some(annotations) = spec.annotations().as_ref().filter(|all| !all.is_empty()) {
        state["annotations"] = serde_json::json!(annotations);
    }
    let text = state.to_string();
    StateText {
        before_pid: b"{\"pid\":".to_vec(),
        after_pid: format!(",{}", &text[1..]).into_bytes(),
    }
}

impl Mount {
    /// A mount made from an expansion, with the attributes of the entry it comes from.
    fn new(target: CString, what: mounts::What, attr: Attr) -> Self {
        Self {
            target,
            what,
            attr,
            unasked: 0,
            attr_tree: Attr::default(),
            propagation: Vec::new(),
            readonly_last: false,
            copy_up: false,
        }
    }
}
