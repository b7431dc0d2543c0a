//! Facts about the host, each read when first asked for and then kept.
//!
//! Verbs such as `state` need none of them and pay for none. A fact that cannot be read counts as
//! the weaker answer (no LSM), so the failure shows where the fact was needed.

use std::cell::OnceCell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::error::{Error, Result};
use crate::sys;
use crate::sys::fd::read_kernel_file;

/// How the host's cgroups are mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupMode {
    /// cgroup v1 controllers only.
    #[default]
    Legacy,
    /// v1 controllers, and an empty v2 hierarchy at /sys/fs/cgroup/unified.
    Hybrid,
    /// cgroup v2 alone.
    Unified,
}

/// Facts about the host; see the module text.
#[derive(Debug, Default)]
pub struct Host {
    euid: OnceCell<u32>,
    egid: OnceCell<u32>,
    in_userns: OnceCell<bool>,
    capabilities: OnceCell<u64>,
    cgroup_mode: OnceCell<CgroupMode>,
    apparmor: OnceCell<bool>,
    selinux: OnceCell<bool>,
    kernel: OnceCell<(u32, u32)>,
    last_capability: OnceCell<u32>,
    /// Fixed for tests; the kernel is asked otherwise.
    namespaces: OnceCell<Vec<String>>,
}

impl Host {
    /// A host of which nothing has been read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The effective user id.
    pub fn euid(&self) -> u32 {
        *self.euid.get_or_init(|| nix::unistd::geteuid().as_raw())
    }

    /// The effective group id.
    pub fn egid(&self) -> u32 {
        *self.egid.get_or_init(|| nix::unistd::getegid().as_raw())
    }

    /// Whether this process is in a user namespace other than the first.
    ///
    /// The first one has a fixed number: `PROC_USER_INIT_INO` of linux/proc_ns.h, since Linux 3.8.
    pub fn in_userns(&self) -> bool {
        const FIRST: u64 = 0xEFFF_FFFD;
        let number = || fs::metadata("/proc/self/ns/user").map(|own| own.ino());
        let init = || number().is_ok_and(|number| number != FIRST);
        *self.in_userns.get_or_init(init)
    }

    /// Whether the runtime has the host's root rights: uid 0, and not only in a user namespace.
    pub fn is_root(&self) -> bool {
        self.euid() == 0 && !self.in_userns()
    }

    /// The effective capabilities, bit n for capability n (capabilities(7)).
    ///
    /// # Errors
    /// [`Error::Host`] if the kernel does not say: a container would have none at all.
    pub fn capabilities(&self) -> Result<u64> {
        if let Some(known) = self.capabilities.get() {
            return Ok(*known);
        }
        let (effective, _) =
            sys::caps::get().map_err(|errno| Error::host("capget", "the runtime", errno))?;
        Ok(*self.capabilities.get_or_init(|| effective))
    }

    /// Whether the runtime may write any id map of a user namespace below its own.
    ///
    /// Man page: user_namespaces(7), "Defining user and group ID mappings".
    ///
    /// # Errors
    /// As [`Host::capabilities`].
    pub fn may_set_ids(&self) -> Result<bool> {
        let both = sys::caps::SETUID | sys::caps::SETGID;
        Ok(self.capabilities()? & both == both)
    }

    /// The highest capability that the kernel knows, of those that keel knows.
    pub fn last_capability(&self) -> u32 {
        /// `CAP_CHECKPOINT_RESTORE`, the newest for years.
        const KNOWN: u32 = 40;
        *self.last_capability.get_or_init(|| {
            if sys::caps::is_known(KNOWN) {
                return KNOWN;
            }
            let text = read_kernel_file("/proc/sys/kernel/cap_last_cap").ok();
            text.and_then(|text| text.trim().parse().ok())
                .unwrap_or(KNOWN)
        })
    }

    /// How cgroups are mounted, by the file system type of the usual places.
    ///
    /// Source: systemd, CGROUP_DELEGATION.md, "Three Different Tree Setups".
    pub fn cgroup_mode(&self) -> CgroupMode {
        let is_v2 =
            |path: &str| statfs(path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
        *self.cgroup_mode.get_or_init(|| {
            if is_v2("/sys/fs/cgroup") {
                CgroupMode::Unified
            } else if is_v2("/sys/fs/cgroup/unified") {
                CgroupMode::Hybrid
            } else {
                CgroupMode::Legacy
            }
        })
    }

    /// Whether AppArmor enforces profiles: compiled in and enabled. Its own files need not be to be seen:
    /// podman hides what is below `/sys/kernel` when it maps users.
    pub fn apparmor(&self) -> bool {
        *self.apparmor.get_or_init(|| {
            read_kernel_file("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|text| text.starts_with('Y'))
        })
    }

    /// Whether SELinux is on: its file system is mounted and a policy labels this process.
    ///
    /// Without a policy every process is `kernel` (selinux(8)).
    pub fn selinux(&self) -> bool {
        *self.selinux.get_or_init(|| {
            let mounted = ["/sys/fs/selinux", "/selinux"]
                .iter()
                .any(|path| statfs(*path).is_ok_and(|fs| fs.filesystem_type() == SELINUX_MAGIC));
            mounted
                && read_kernel_file("/proc/self/attr/current")
                    .is_ok_and(|label| label.trim_end_matches(['\0', '\n']) != "kernel")
        })
    }

    /// Whether the kernel has namespaces of this kind, named as in `/proc/PID/ns`: `mnt`, `net`.
    pub fn has_namespaces(&self, kind: &str) -> bool {
        match self.namespaces.get() {
            Some(all) => all.iter().any(|known| known == kind),
            None => fs::symlink_metadata(Path::new("/proc/self/ns").join(kind)).is_ok(),
        }
    }

    /// Whether `path` leads to the namespace of this kind that the runtime itself is in.
    ///
    /// # Errors
    /// [`Error::Host`] if one of the two cannot be looked at.
    pub fn is_own_namespace(&self, kind: &str, path: &Path) -> Result<bool> {
        let look = |path: &Path| {
            fs::metadata(path)
                .map(|meta| (meta.dev(), meta.ino()))
                .map_err(|errno| Error::host("stat", path.display(), errno))
        };
        Ok(look(Path::new("/proc/self/ns").join(kind).as_path())? == look(path)?)
    }

    /// Major and minor number of the running kernel.
    pub fn kernel(&self) -> (u32, u32) {
        *self.kernel.get_or_init(|| {
            nix::sys::utsname::uname()
                .ok()
                .and_then(|name| release(name.release().to_str()?))
                .unwrap_or_default()
        })
    }
}

/// `SELINUX_MAGIC` of linux/magic.h, which nix does not have, and whose type is another with each libc.
const SELINUX_MAGIC: nix::sys::statfs::FsType = nix::sys::statfs::FsType(0xf97c_ff8c);

/// Reads `6.18` out of `6.18.5-amd64`.
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A host for tests of what is decided from it; the fields are [`Host`]'s methods.
#[cfg(any(test, fuzzing))]
#[allow(missing_docs)]
#[derive(Clone, Debug)]
pub struct Facts {
    pub euid: u32,
    pub egid: u32,
    pub in_userns: bool,
    pub capabilities: u64,
    pub cgroup_mode: CgroupMode,
    pub apparmor: bool,
    pub selinux: bool,
    pub kernel: (u32, u32),
    pub last_capability: u32,
    pub namespaces: Vec<String>,
}

#[cfg(any(test, fuzzing))]
impl Default for Facts {
    /// The host's root with every capability, a new kernel, cgroup v1, no LSM.
    fn default() -> Self {
        Self {
            euid: 0,
            egid: 0,
            in_userns: false,
            capabilities: (1 << 41) - 1,
            cgroup_mode: CgroupMode::Legacy,
            apparmor: false,
            selinux: false,
            kernel: (6, 18),
            last_capability: 40,
            namespaces: ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]
                .map(String::from)
                .into(),
        }
    }
}

#[cfg(any(test, fuzzing))]
impl Host {
    /// A host with these facts, of which nothing is read.
    pub fn fixed(facts: Facts) -> Self {
        Self {
            euid: facts.euid.into(),
            egid: facts.egid.into(),
            in_userns: facts.in_userns.into(),
            capabilities: facts.capabilities.into(),
            cgroup_mode: facts.cgroup_mode.into(),
            apparmor: facts.apparmor.into(),
            selinux: facts.selinux.into(),
            kernel: facts.kernel.into(),
            last_capability: facts.last_capability.into(),
            namespaces: facts.namespaces.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_starts_with_two_numbers() {
        assert_eq!(release("6.18.5-amd64"), Some((6, 18)));
        assert_eq!(release("5.4"), Some((5, 4)));
        assert_eq!(release("6.1-rc3+"), Some((6, 1)));
        assert_eq!(release("linux"), None);
    }

    #[test]
    fn the_facts_of_this_host_agree_with_the_kernel() {
        let host = Host::new();
        assert_eq!(host.euid(), nix::unistd::geteuid().as_raw());
        assert!(host.kernel() >= (4, 0), "{:?}", host.kernel());
        assert!(host.last_capability() >= 37);
        assert!(host.has_namespaces("mnt") && !host.has_namespaces("mount"));
        let own = Path::new("/proc/thread-self/ns/net");
        assert!(host.is_own_namespace("net", own).unwrap());
        assert!(!host.is_own_namespace("uts", own).unwrap());
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("CapEff:")).unwrap();
        let effective = u64::from_str_radix(line[7..].trim(), 16).unwrap();
        assert_eq!(host.capabilities().unwrap(), effective);
    }
}
