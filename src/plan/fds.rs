//! The descriptors that the plan names, opened by the parent before the clone.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::Plan;
use super::idmap::{IdMap, Owners};
use super::mounts::What;
use super::namespaces::{self, MOUNT, USER};
use super::nodes;
use super::text::{is_within, shown};
use crate::error::{Error, Result};
use crate::sys::clone::{Side, Successor};
use crate::sys::mount::{Reach, clone_tree, set_idmap};
use crate::sys::{Errno, clone, fd};

/// See the module text. The child holds copies of all of these, and closes them on entering its root.
#[derive(Debug, Default)]
pub struct Fds {
    /// The mount that keel is executed from: see `seal`.
    pub seal: Option<OwnedFd>,
    /// The files by which the child puts itself into its cgroups of v1.
    pub doors: Vec<OwnedFd>,
    /// A detached copy of the root file system's mounts; none if the caller may not copy them.
    pub rootfs: Option<OwnedFd>,
    /// The namespaces to join, in the plan's order.
    pub joins: Vec<OwnedFd>,
    /// For `exec`: the container's first process, and which of its namespaces are entered.
    pub init: Option<(OwnedFd, u64)>,
    /// For `exec`: where the process that enters leaves the pid of the one that has entered.
    pub successor: Option<Successor>,
    /// For each bind mount a detached copy of its source; none if the child makes it, or the caller may
    /// not copy it.
    pub sources: Vec<Option<OwnedFd>>,
    /// For each device a detached copy of the host's node, where mknod(2) is not allowed.
    pub nodes: Vec<Option<OwnedFd>>,
    /// Where the child keeps the mounts that become read-only at the end.
    pub late: Vec<Option<OwnedFd>>,
    /// The socket over which the terminal's master is sent.
    pub console: Option<OwnedFd>,
    /// Keel itself relays the terminal, and wants its lines to end in a bare newline.
    pub relayed: bool,
    /// The listening socket at which a created container waits for `start`.
    pub gate: Option<OwnedFd>,
    /// For `--no-pivot`: where procfs and sysfs are mounted on the host, the last mount first.
    pub host_views: Vec<CString>,
    /// Where the output of createContainer hooks goes, for the error message.
    pub hook_output: Option<OwnedFd>,
}

impl Plan {
    /// Opens what the plan names.
    ///
    /// # Errors
    /// [`Error::Spec`] or [`Error::Host`] for a path that is missing or of the wrong kind.
    pub fn open(&self) -> Result<Fds> {
        let joins = self.open_joins()?;
        let new = self.namespaces.new_ones();
        let user = self.joined_user(&joins);
        let mut fds = if self.namespaces.has(USER) && new & MOUNT != 0 {
            self.open_locked(user)?
        } else {
            self.open_mounts(user, false)?
        };
        fds.joins = joins;
        if self.no_pivot {
            fds.host_views = self.host_views()?;
        }
        Ok(fds)
    }

    /// [`Plan::open`] for mounts that a container in a user namespace gets.
    ///
    /// What is copied may not be undone there: its root cannot take `ro` back from a mount of the
    /// host, nor unmount what covers a directory of the host. In a mount namespace of less privilege
    /// the kernel has locked both. Man page: mount_namespaces(7), "Restrictions".
    ///
    /// # Errors
    /// As [`Plan::open`].
    pub fn open_locked(&self, user: Option<BorrowedFd<'_>>) -> Result<Fds> {
        among_locked_mounts(|are_locked| self.open_mounts(user, are_locked))
    }

    /// The user namespace to join, among the descriptors of those to join.
    pub fn joined_user<'f>(&self, joins: &'f [OwnedFd]) -> Option<BorrowedFd<'f>> {
        let mut joins = self.namespaces.joins.iter().zip(joins);
        let user = joins.find(|(join, _)| join.kind == USER);
        user.map(|(_, fd)| fd.as_fd())
    }

    /// The root file system, the sources of bind mounts, and the nodes that cannot be made. `user` is
    /// the user namespace that is joined; `are_locked` says that the mounts are the runtime's for this
    /// moment only.
    fn open_mounts(&self, user: Option<BorrowedFd<'_>>, are_locked: bool) -> Result<Fds> {
        let has_mounts = self.namespaces.has(MOUNT);
        let mut fds = Fds {
            rootfs: if has_mounts {
                self.open_rootfs()?
            } else {
                None
            },
            ..Fds::default()
        };
        for (index, mount) in self.mounts.iter().enumerate() {
            fds.sources.push(match &mount.what {
                What::New { .. }
                | What::Bind {
                    inside: Some(_), ..
                } => None,
                What::Bind {
                    source,
                    idmap: None,
                    ..
                } if self.is_copied_in_turn(source) => None,
                What::Bind {
                    source,
                    reach,
                    idmap,
                    ..
                } => {
                    let at = || format!("mount source {} (.mounts, entry {index})", shown(source));
                    let copy = match copy_of(source, *reach) {
                        // An earlier mount may bring it: the child looks when its turn has come.
                        Err(Errno::ENOENT) if self.is_in_rootfs(source) => None,
                        other => other.map_err(|errno| Error::host("open", at(), errno))?,
                    };
                    if let Some(idmap) = idmap {
                        // Without the host's rights there is no copy, and no file system would let
                        // its ids be mapped.
                        let copy = copy.as_ref().ok_or(Errno::EPERM);
                        apply_idmap(copy.map(AsFd::as_fd), idmap, user, &at())?;
                    }
                    copy
                }
            });
            fds.late.push(None);
        }
        if self.namespaces.has(USER) {
            let maps = || self.id_maps(user);
            fds.nodes = nodes::open(&self.devices, are_locked, maps)?;
        }
        Ok(fds)
    }

    /// The maps of the container's user namespace, whether it is made or joined.
    fn id_maps(&self, joined: Option<BorrowedFd<'_>>) -> Result<nodes::Maps> {
        match (&self.namespaces.id_maps, joined) {
            (Some(maps), _) => Ok(maps.clone()),
            (None, Some(joined)) => id_maps_of(joined),
            // The runtime's own.
            (None, None) => Ok(("0 0 4294967295".into(), "0 0 4294967295".into())),
        }
    }

    /// Whether the child copies the source of a bind mount just before it attaches it. The kernel lists
    /// mounts by their age since Linux 6.8, so that gives mountinfo the order of config.json.
    ///
    /// In a user namespace the child may not copy what is the host's; a tree around the root file system
    /// is copied before it has the container's mounts in it; and `/proc/self/fd/3` is what the caller
    /// opened, which the child has no longer.
    fn is_copied_in_turn(&self, source: &CStr) -> bool {
        let is_the_childs = self.namespaces.new_ones() & MOUNT != 0 && !self.namespaces.has(USER);
        let apart = [self.rootfs.as_c_str(), c"/proc", c"/dev/fd"];
        is_the_childs
            && !apart.iter().any(|top| is_within(source, top))
            && !is_within(&self.rootfs, source)
    }

    fn is_in_rootfs(&self, path: &CStr) -> bool {
        // A plan without a root file system is for a container that has its own already.
        !self.rootfs.is_empty() && is_within(path, &self.rootfs)
    }

    /// The mounts of procfs and sysfs outside the root file system.
    fn host_views(&self) -> Result<Vec<CString>> {
        let path = "/proc/self/mountinfo";
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| Error::host("read", path, error))?;
        let mounts = text.lines().rev();
        let mounts = mounts.filter_map(|line| procfs::process::MountInfo::from_line(line).ok());
        Ok(mounts
            .filter(|mount| matches!(mount.fs_type.as_str(), "proc" | "sysfs"))
            .filter_map(|mount| CString::new(mount.mount_point.into_os_string().into_vec()).ok())
            .filter(|point| !self.is_in_rootfs(point))
            .collect())
    }

    fn open_rootfs(&self) -> Result<Option<OwnedFd>> {
        copy_of(&self.rootfs, Reach::Tree).map_err(|errno| {
            let path = format!("root file system {} (.root.path)", shown(&self.rootfs));
            Error::host("open", path, errno)
        })
    }

    /// Opens the namespaces to join and checks that each is of its kind.
    fn open_joins(&self) -> Result<Vec<OwnedFd>> {
        let open = |join: &namespaces::Join| {
            let at = || format!("{} ({})", join.path.display(), join.at);
            // A FIFO in the place of a namespace must not block.
            let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
            let fd = nix::fcntl::open(&join.path, flags, Mode::empty())
                .map_err(|errno| Error::host("open namespace", at(), errno))?;
            match clone::namespace_kind(fd.as_fd()) {
                Ok(kind) if kind == join.kind => Ok(fd),
                Ok(kind) => {
                    let (is, wanted) = (namespaces::name(kind), namespaces::name(join.kind));
                    let why = format!("{} is a {is} namespace, not {wanted}", join.path.display());
                    Err(Error::spec(join.at.clone(), why))
                }
                Err(_) => {
                    let why = format!("{} is not a namespace", join.path.display());
                    Err(Error::spec(join.at.clone(), why))
                }
            }
        };
        let fds = self
            .namespaces
            .joins
            .iter()
            .map(open)
            .collect::<Result<Vec<_>>>()?;
        let user = self.namespaces.join(USER).zip(self.joined_user(&fds));
        if let (Some((uids, gids)), Some((join, fd))) = (&self.namespaces.joined_id_maps, user) {
            check_id_maps(join, fd, uids, gids)?;
        }
        Ok(fds)
    }
}

/// Refuses to join a user namespace whose maps are not those of config.json, which files have been
/// given their owners by.
fn check_id_maps(
    join: &namespaces::Join,
    user: BorrowedFd<'_>,
    uids: &str,
    gids: &str,
) -> Result<()> {
    let is = id_maps_of(user)?;
    for (is, wanted, field) in [(&is.0, uids, "uidMappings"), (&is.1, gids, "gidMappings")] {
        if !super::idmap::are_equal(is, wanted) {
            let is = is.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
            let why = format!(
                "the namespace maps {is} (inside, outside, count), .linux.{field} says otherwise: \
                 leave the mappings out, or make them equal"
            );
            return Err(Error::spec(join.at.clone(), why));
        }
    }
    Ok(())
}

/// `uid_map` and `gid_map` of a user namespace, seen from the runtime's own: those of a process that
/// joins it for the moment.
fn id_maps_of(user: BorrowedFd<'_>) -> Result<(String, String)> {
    let failed = |errno| Error::host("join", "the user namespace of .linux.namespaces", errno);
    let (ours, theirs) = socket_pair()?;
    match clone::clone3(0, None).map_err(failed)? {
        Side::Child => {
            drop(ours);
            if clone::setns(user, USER).is_ok() {
                let _ = nix::unistd::write(&theirs, b"!");
                // Until the parent has read, and gone with it in any case.
                let _ = fd::poll_in(theirs.as_fd(), -1);
            }
            clone::exit_now(0)
        }
        Side::Parent { pid, pidfd } => {
            drop(theirs);
            let read = |file: &str| {
                let path = format!("/proc/{pid}/{file}");
                std::fs::read_to_string(&path).map_err(|error| Error::host("read", path, error))
            };
            let maps = match nix::unistd::read(&ours, &mut [0]) {
                Ok(1) => read("uid_map").and_then(|uids| Ok((uids, read("gid_map")?))),
                _ => Err(failed(Errno::EPERM)),
            };
            drop(ours);
            fd::wait(pidfd.as_fd()).map_err(failed)?;
            maps
        }
    }
}

/// Maps the owners of the files of a detached copy, through a user namespace made for that alone or
/// through `joined`, the one that the container joins.
///
/// # Errors
/// [`Error::Host`] if the file system or the rights do not allow it.
pub fn apply_idmap(
    copy: Result<BorrowedFd<'_>, Errno>,
    map: &IdMap,
    joined: Option<BorrowedFd<'_>>,
    at: &str,
) -> Result<()> {
    let failed = |errno| Error::host("id-map (mount_setattr)", at, errno);
    let copy = copy.map_err(failed)?;
    let (made, user);
    match &map.owners {
        Owners::Mapped { uids, gids } => {
            made = user_namespace(uids, gids)?;
            user = made.as_fd();
        }
        // It has none if the one to be joined is the runtime's own, which maps nothing.
        Owners::Joined => user = joined.ok_or_else(|| failed(Errno::EINVAL))?,
    }
    set_idmap(copy, user, map.reach).map_err(failed)
}

/// A user namespace with these maps, held by its descriptor alone.
fn user_namespace(uids: &str, gids: &str) -> Result<OwnedFd> {
    let failed = |errno| Error::host("make", "a user namespace for an id-mapped mount", errno);
    beside_a_process_in(USER, |pid| {
        let write = |file: &str, text: &str| {
            let path = format!("/proc/{pid}/{file}");
            std::fs::write(&path, text).map_err(|error| Error::host("write", &path, error))
        };
        write("uid_map", uids)?;
        write("gid_map", gids)?;
        namespace_of(pid, "user").map_err(failed)
    })
    .map_err(failed)?
}

/// Does `work` in a copy of the runtime's mount namespace that belongs to another user namespace, and
/// tells it whether it is in one.
fn among_locked_mounts<T>(work: impl FnOnce(bool) -> Result<T>) -> Result<T> {
    let failed = |errno| Error::host("enter", "a mount namespace of less privilege", errno);
    let open = |path| {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(path, flags, Mode::empty()).map_err(failed)
    };
    let (root, here) = (open(c"/")?, open(c".")?);
    let own = namespace_of("self", "mnt").map_err(failed)?;
    let entered = beside_a_process_in(USER | MOUNT, |pid| {
        clone::setns(namespace_of(pid, "mnt")?.as_fd(), MOUNT)
    });
    match entered.and_then(|entered| entered) {
        // Without rights over another user namespace every copy is the child's to make, in its own
        // mount namespace, which is locked as well.
        Err(Errno::EPERM) => return work(false),
        other => other.map_err(failed)?,
    }
    let done = work(true);
    clone::setns(own.as_fd(), MOUNT)
        .and_then(|()| nix::unistd::fchdir(&root))
        .and_then(|()| nix::unistd::chroot(c"."))
        .and_then(|()| nix::unistd::fchdir(&here))
        .map_err(|errno| Error::host("return to", "the runtime's mount namespace", errno))?;
    done
}

/// A namespace of process `pid` by its name below `/proc/PID/ns`.
fn namespace_of(pid: impl std::fmt::Display, name: &str) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/{pid}/ns/{name}");
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path.as_str(), flags, Mode::empty())
}

/// Does `work` while a process with new namespaces `flags` lives.
fn beside_a_process_in<T>(flags: u64, work: impl FnOnce(i32) -> T) -> Result<T, Errno> {
    let (ours, theirs) = pair()?;
    match clone::clone3(flags, None)? {
        Side::Child => {
            drop(ours);
            // Until the parent has what it came for, and gone with it in any case.
            let _ = fd::poll_in(theirs.as_fd(), -1);
            clone::exit_now(0)
        }
        Side::Parent { pid, pidfd } => {
            drop(theirs);
            let done = work(pid);
            drop(ours);
            fd::wait(pidfd.as_fd())?;
            Ok(done)
        }
    }
}

/// A detached copy of what is mounted at `path`, or nothing if the caller may not make one: then the
/// child does, in its own user namespace.
pub fn copy_of(path: &CStr, reach: Reach) -> Result<Option<OwnedFd>, Errno> {
    match clone_tree(cwd(), path, reach) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::EPERM) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// `AT_FDCWD`, for paths that are absolute.
fn cwd() -> BorrowedFd<'static> {
    nix::fcntl::AT_FDCWD
}

/// [`pair`], for the child and its parent.
pub fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    pair().map_err(|errno| Error::host("make", "a socket pair", errno))
}

/// A pair of connected sockets that keep message boundaries.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
}
