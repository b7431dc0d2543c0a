//! Volumes that are file systems of their own: `volume create -o type=nfs -o device=:/export …`.
//!
//! What the options describe is mounted on `_data` while a container uses it. The users are files in
//! `EXEC_ROOT/volumes/NAME`, one for each container and named after it: like mounts, they do not
//! outlive the machine. A file whose container has neither a monitor nor somebody who starts it is
//! left over from a crash and does not count.
//!
//! Source: moby, volume/local/local_unix.go; docs.docker.com, "docker volume create", "Driver-specific options".

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};

use super::{Volume, Volumes};
use crate::container::Containers;
use crate::container::parse::value;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::store::lock::FileLock;
use crate::store::record;

const OPTIONS: [&str; 4] = ["type", "device", "o", "size"];
/// An option, and those that it cannot do without.
const NEEDS: [(&str, &[&str]); 3] = [
    ("device", &["type"]),
    ("type", &["device"]),
    ("o", &["device", "type"]),
];

/// Checks the options of a new volume, in dockerd's words.
///
/// # Errors
/// An option that the local driver does not know, or one without its companion.
pub fn check(options: &BTreeMap<String, String>) -> Result<(), String> {
    if let Some(unknown) = options.keys().find(|key| !OPTIONS.contains(&key.as_str())) {
        return Err(format!("invalid option: {unknown:?}"));
    }
    if let Some(size) = options.get("size")
        && value::bytes(size)? > 0
    {
        return Err("quota size requested but no quota support".to_owned());
    }
    let given = |key: &str| options.contains_key(key);
    let missing = NEEDS
        .iter()
        .filter(|(key, _)| given(key))
        .flat_map(|(_, needs)| needs.iter())
        .find(|need| !given(need));
    missing.map_or(Ok(()), |need| {
        Err(format!("missing required option: {need:?}"))
    })
}

/// Words of mount(8) that are flags of mount(2), and whether they set or clear them.
const FLAGS: &[(&str, Set, MountFlags)] = &[
    ("async", Set::No, MountFlags::SYNCHRONOUS),
    ("atime", Set::No, MountFlags::NOATIME),
    ("bind", Set::Yes, MountFlags::BIND),
    ("defaults", Set::Yes, MountFlags::empty()),
    ("dev", Set::No, MountFlags::NODEV),
    ("diratime", Set::No, MountFlags::NODIRATIME),
    ("dirsync", Set::Yes, MountFlags::DIRSYNC),
    ("exec", Set::No, MountFlags::NOEXEC),
    ("mand", Set::Yes, MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
    ("noatime", Set::Yes, MountFlags::NOATIME),
    ("nodev", Set::Yes, MountFlags::NODEV),
    ("nodiratime", Set::Yes, MountFlags::NODIRATIME),
    ("noexec", Set::Yes, MountFlags::NOEXEC),
    ("nomand", Set::No, MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
    ("norelatime", Set::No, MountFlags::RELATIME),
    ("nostrictatime", Set::No, MountFlags::STRICTATIME),
    ("nosuid", Set::Yes, MountFlags::NOSUID),
    ("rbind", Set::Yes, MountFlags::BIND.union(MountFlags::REC)),
    ("relatime", Set::Yes, MountFlags::RELATIME),
    ("ro", Set::Yes, MountFlags::RDONLY),
    ("rw", Set::No, MountFlags::RDONLY),
    ("strictatime", Set::Yes, MountFlags::STRICTATIME),
    ("suid", Set::No, MountFlags::NOSUID),
    ("sync", Set::Yes, MountFlags::SYNCHRONOUS),
];

const PROPAGATION: &[(&str, MountPropagationFlags)] = &[
    ("private", MountPropagationFlags::PRIVATE),
    ("shared", MountPropagationFlags::SHARED),
    ("slave", MountPropagationFlags::DOWNSTREAM),
    ("unbindable", MountPropagationFlags::UNBINDABLE),
];

/// Whether a word of mount(8) sets or clears its flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    Yes,
    No,
}

/// What mount(2) is called with.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    device: String,
    kind: String,
    flags: MountFlags,
    propagation: Option<MountPropagationFlags>,
    /// What is left of the options, for the file system itself.
    data: String,
}

impl Plan {
    /// `None` for a volume that is a plain directory.
    fn of(volume: &Volume) -> Option<Self> {
        let options = volume.options.as_ref()?;
        let get = |key: &str| options.get(key).cloned().unwrap_or_default();
        let (device, kind) = (get("device"), get("type"));
        if device.is_empty() && kind.is_empty() {
            return None;
        }
        let mut plan = Self {
            device,
            kind,
            flags: MountFlags::empty(),
            propagation: None,
            data: String::new(),
        };
        let options = get("o");
        let data: Vec<&str> = options
            .split(',')
            .filter(|word| !plan.takes(word))
            .collect();
        plan.data = data.join(",");
        Some(plan)
    }

    /// Whether `word` is a flag, and not a matter of the file system's.
    fn takes(&mut self, word: &str) -> bool {
        if let Some((_, set, flag)) = FLAGS.iter().find(|(name, ..)| *name == word) {
            self.flags.set(*flag, *set == Set::Yes);
            return true;
        }
        let recursive = word.strip_prefix('r').unwrap_or(word);
        let Some((name, kind)) = PROPAGATION.iter().find(|(name, _)| *name == recursive) else {
            return word.is_empty();
        };
        let below = match word == *name {
            true => MountPropagationFlags::empty(),
            false => MountPropagationFlags::REC,
        };
        self.propagation = Some(*kind | below);
        true
    }

    /// NFS and CIFS take the server's address, not its name.
    fn resolve(&mut self) -> Result<(), String> {
        if !matches!(self.kind.as_str(), "nfs" | "nfs4" | "cifs") {
            return Ok(());
        }
        let words = self.data.split(',');
        let Some(name) = words
            .filter_map(|word| word.strip_prefix("addr="))
            .next_back()
        else {
            return Ok(());
        };
        if name.parse::<IpAddr>().is_ok() {
            return Ok(());
        }
        let found = (name, 0).to_socket_addrs().map(|mut list| list.next());
        let Ok(Some(address)) = found else {
            return Err(format!(
                "error resolving passed in network volume address: lookup {name}: no such host"
            ));
        };
        let (old, new) = (format!("addr={name}"), format!("addr={}", address.ip()));
        self.data = self.data.replace(&old, &new);
        Ok(())
    }

    /// # Errors
    /// dockerd's line, in which no password is shown.
    fn mount(mut self, target: &Path) -> Result<(), String> {
        if self.device.is_empty() {
            return Err("missing device in volume options".to_owned());
        }
        self.resolve()?;
        self.call(target).map_err(|errno| {
            let what = match (self.flags.bits(), hide_password(&self.data)) {
                (0, data) if data.is_empty() => String::new(),
                (flags, data) if data.is_empty() => format!(", flags: {flags:#x}"),
                (0, data) => format!(", data: {data}"),
                (flags, data) => format!(", flags: {flags:#x}, data: {data}"),
            };
            format!(
                "failed to mount local volume: mount {}:{}{what}: {}",
                self.device,
                target.display(),
                nix::errno::Errno::from_raw(errno.raw_os_error())
                    .desc()
                    .to_lowercase()
            )
        })
    }

    fn call(&self, target: &Path) -> rustix::io::Result<()> {
        let data = CString::new(self.data.as_str()).map_err(|_| rustix::io::Errno::INVAL)?;
        let (device, kind) = (self.device.as_str(), self.kind.as_str());
        mount(device, target, kind, self.flags, Some(data.as_c_str()))?;
        // mount(2): the first call of a bind mount takes no other flags.
        let others = self.flags.difference(MountFlags::BIND | MountFlags::REC);
        if self.flags.contains(MountFlags::BIND) && !others.is_empty() {
            mount_remount(target, MountFlags::BIND | others, c"")
                .inspect_err(|_| detach(target))?;
        }
        match self.propagation {
            Some(kind) => mount_change(target, kind).inspect_err(|_| detach(target)),
            None => Ok(()),
        }
    }
}

fn hide_password(data: &str) -> String {
    let words = data.split(',').map(|word| match word.split_once('=') {
        Some(("password" | "pass", _)) => "password=********",
        _ => word,
    });
    words.collect::<Vec<_>>().join(",")
}

/// Takes off all that lies on `target`.
fn detach(target: &Path) {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    while unmount(target, flags).is_ok() {}
}

fn is_mounted(path: &Path) -> Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = statx(CWD, path, flags, StatxFlags::empty())
        .map_err(|errno| Error::host("stat", path, errno))?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

impl Volume {
    /// Whether its options describe a file system, and its directory is only where that is mounted.
    pub fn is_file_system(&self) -> bool {
        Plan::of(self).is_some()
    }
}

fn users(host: &Host, name: &str) -> PathBuf {
    host.exec_root.join("volumes").join(name)
}

/// Makes a volume's files be there for the container `user`, until [`release`].
///
/// # Errors
/// What the options describe cannot be mounted.
pub fn hold(host: &Host, name: &str, user: &str) -> Result<()> {
    let Some(volume) = Volumes::new(host).find(name)? else {
        return Ok(());
    };
    let Some(plan) = Plan::of(&volume) else {
        return Ok(());
    };
    let _lock = record::lock(&host.volumes().join(name))?;
    let users = users(host, name);
    fs::create_dir_all(&users).map_err(|errno| Error::host("create directory", &users, errno))?;
    let mark = users.join(user);
    fs::write(&mark, "").map_err(|errno| Error::host("write", &mark, errno))?;
    if is_mounted(&volume.mountpoint)? {
        return Ok(());
    }
    plan.mount(&volume.mountpoint).map_err(|why| {
        let _ = fs::remove_file(&mark);
        let _ = fs::remove_dir(&users);
        let path = volume.mountpoint.display();
        Error::Runtime {
            message: format!("error while mounting volume '{path}': {why}"),
        }
    })
}

/// Says that the container `user` needs the volume no more; the last one takes its file system off.
///
/// # Errors
/// The volume cannot be locked; the next release tries again.
pub fn release(host: &Host, name: &str, user: &str) -> Result<()> {
    let users = users(host, name);
    let mark = users.join(user);
    if !mark.exists() {
        return Ok(());
    }
    let dir = host.volumes().join(name);
    let _lock = record::lock(&dir)?;
    let containers = Containers::new(host);
    let others = fs::read_dir(&users).into_iter().flatten().flatten();
    let mut others = others.map(|entry| entry.file_name().to_string_lossy().into_owned());
    if !others.any(|other| other != user && is_used_by(&containers, &other)) {
        detach(&dir.join("_data"));
    }
    // Last, so that who is killed before can be followed by another.
    let _ = fs::remove_file(&mark);
    // It stays if there are others.
    let _ = fs::remove_dir(&users);
    Ok(())
}

/// Whether a container runs or is being started.
///
/// Its own lock is held while its monitor's is tried: a monitor that begins must find that one free.
fn is_used_by(containers: &Containers<'_>, id: &str) -> bool {
    let places = containers.places(id);
    match FileLock::try_exclusive(&places.dir.join("lock")) {
        Ok(Some(_starts)) => {
            matches!(FileLock::try_exclusive(&places.monitor_lock()), Ok(None))
        }
        Ok(None) => true,
        Err(_) => false,
    }
}

/// Takes a volume's file system off for good, before its directory is removed.
///
/// # Errors
/// It would not go: what is removed then would be its files, wherever they really are.
pub fn take_off(host: &Host, volume: &Volume) -> Result<()> {
    detach(&volume.mountpoint);
    if is_mounted(&volume.mountpoint).unwrap_or(true) && volume.mountpoint.exists() {
        return Err(Error::Conflict(format!(
            "remove {}: {} is still mounted",
            volume.name,
            volume.mountpoint.display()
        )));
    }
    let _ = fs::remove_dir_all(users(host, &volume.name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        pairs.collect()
    }

    #[test]
    fn options_are_refused_in_dockers_words() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[], ""),
            (&[("type", "tmpfs"), ("device", "tmpfs")], ""),
            (&[("foo", "1")], "invalid option: \"foo\""),
            (&[("type", "nfs")], "missing required option: \"device\""),
            (&[("device", "/x")], "missing required option: \"type\""),
            (&[("o", "ro")], "missing required option: \"device\""),
            (
                &[("size", "1m")],
                "quota size requested but no quota support",
            ),
            (&[("size", "x")], "invalid size: 'x'"),
        ];
        for (list, want) in cases {
            let why = check(&options(list)).err().unwrap_or_default();
            assert_eq!(why, *want, "{list:?}");
        }
    }

    #[test]
    fn words_of_mount_become_flags_and_the_rest_is_data() {
        let plan = |o: &str| {
            let list = options(&[("type", "nfs"), ("device", ":/x"), ("o", o)]);
            let volume = Volume {
                options: Some(list),
                ..Volume::default()
            };
            let plan = Plan::of(&volume).unwrap();
            (plan.flags, plan.propagation, plan.data)
        };
        let none = MountFlags::empty();
        let cases = [
            ("", (none, None, "")),
            (
                "rw,addr=10.0.0.1,vers=4",
                (none, None, "addr=10.0.0.1,vers=4"),
            ),
            ("ro,rw,ro,size=1m", (MountFlags::RDONLY, None, "size=1m")),
            (
                "rbind,rslave",
                (
                    MountFlags::BIND | MountFlags::REC,
                    Some(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC),
                    "",
                ),
            ),
        ];
        for (o, (flags, propagation, data)) in cases {
            assert_eq!(plan(o), (flags, propagation, data.to_owned()), "{o}");
        }
        assert!(!Volume::default().is_file_system());
    }

    #[test]
    fn a_password_is_not_told() {
        let plan = Plan {
            device: "//nowhere/x".to_owned(),
            kind: "no-such-file-system".to_owned(),
            flags: MountFlags::RDONLY,
            propagation: None,
            data: "user=joe,password=secret".to_owned(),
        };
        let dir = tempfile::tempdir().unwrap();
        let why = plan.mount(dir.path()).unwrap_err();
        assert!(
            why.contains("flags: 0x1, data: user=joe,password=********: ")
                && !why.contains("secret"),
            "{why}"
        );
    }
}
