//! A plain user's engine: all of rdocker inside one user namespace.
//!
//! The user becomes uid 0 of a user namespace in which the subordinate ids (subuid(5)) are the
//! other users, and has a mount namespace of their own there, in which roots are mounted. All
//! commands of a user share the two, else `exec` had no rights over what `run` has made: a small
//! process, the holder, keeps them while anything runs, and leaves when nothing does.
//!
//! Two locks in the exec root: everything inside the namespaces holds `namespaces.lock` shared,
//! monitors inherit it, and the holder leaves when it gets it alone; `namespaces.making` lets one
//! command at a time make a holder.
//!
//! Sources: user_namespaces(7), newuidmap(1), setns(2) with a pidfd (Linux 5.8), flock(2).

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Pid, PidfdFlags, getgid, getuid, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::container::identity::Accounts;
use crate::container::process;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::store::lock::FileLock;
use crate::store::record;

mod table;

/// The hidden verb that is the holder.
pub const VERB: &str = "__namespaces";

/// The record of the holder, in the exec root.
const HOLDER: &str = "namespaces.json";

const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWUSER.union(CloneFlags::CLONE_NEWNS);

/// Who holds the namespaces: `namespaces.json` in the exec root.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: i32,
    /// In clock ticks since boot: a pid alone may be somebody else's by now.
    start_ticks: u64,
}

/// Whether this process is a plain user's, who has to [`enter`] first.
pub fn is_needed() -> bool {
    !rustix::process::geteuid().is_root()
}

/// Whether this process is root in a plain user's namespaces.
pub fn is_entered(host: &Host) -> bool {
    host.in_user_namespace && host.exec_root.join(HOLDER).exists()
}

/// Makes this process root in the user's namespaces. It must have one thread.
///
/// # Errors
/// The kernel or newuidmap(1) refuses, in one line with the way out.
pub fn enter(host: &Host) -> Result<()> {
    let dir = &host.exec_root;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(dir)
        .map_err(|errno| Error::host("create directory", dir, errno))?;
    let meta = fs::metadata(dir).map_err(|errno| Error::host("look at", dir, errno))?;
    if meta.uid() != getuid().as_raw() {
        return Err(Error::Hinted {
            message: format!("{} belongs to somebody else", dir.display()),
            hint: "set XDG_RUNTIME_DIR, or name a directory with --exec-root".to_owned(),
        });
    }
    let lease = FileLock::shared(&dir.join("namespaces.lock"))?;
    let making = FileLock::exclusive(&dir.join("namespaces.making"))?;
    let holder = match living(dir)? {
        Some(holder) => holder,
        None => make(dir)?,
    };
    drop(making);
    join(&holder).map_err(|errno| Error::host("join the namespaces of", dir, errno))?;
    // Held to the end of this process and of all that it starts.
    fcntl_setfd(lease.file(), FdFlags::empty())
        .map_err(|errno| Error::host("keep the lock in", dir, errno))?;
    std::mem::forget(lease);
    Ok(())
}

fn living(dir: &Path) -> Result<Option<OwnedFd>> {
    let Some(holder) = record::read::<Holder>(&dir.join(HOLDER))? else {
        return Ok(None);
    };
    let pidfd = Pid::from_raw(holder.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    // The pidfd first: what it refers to cannot change after the check.
    Ok(pidfd.filter(|_| process::is_alive(holder.pid, holder.start_ticks)))
}

fn join(holder: &OwnedFd) -> nix::Result<()> {
    let here = std::env::current_dir();
    setns(holder, NAMESPACES)?;
    // A mount namespace is entered at its root.
    if let Ok(here) = here {
        let _ = std::env::set_current_dir(here);
    }
    Ok(())
}

/// Starts a holder, maps its ids, and writes down who it is.
fn make(dir: &Path) -> Result<OwnedFd> {
    let program = Path::new("/proc/self/exe");
    let fail = |errno| Error::host("execute the holder of namespaces", program, errno);
    let (mut ours, theirs) = UnixStream::pair().map_err(fail)?;
    let mut child = Command::new(program)
        .arg("--exec-root")
        .arg(dir)
        .arg(VERB)
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(fail)?;
    let pid = i32::try_from(child.id()).expect("Linux pids fit 22 bits");
    let pidfd = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
    let answer = expect(&mut ours, Step::Unshared)
        .and_then(|()| map_ids(pid))
        .and_then(|()| ours.write_all(&[Step::Mapped as u8]).map_err(fail))
        .and_then(|()| expect(&mut ours, Step::Ready));
    if let Err(error) = answer {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    let holder = Holder {
        pid,
        start_ticks: process::start_ticks(pid).unwrap_or_default(),
    };
    record::write(&dir.join(HOLDER), &holder)?;
    pidfd
        .and_then(Result::ok)
        .ok_or_else(|| fail(std::io::ErrorKind::NotFound.into()))
}

/// What the two sides tell each other while the namespaces are made, a byte each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    Unshared = b'u',
    Mapped = b'm',
    Ready = b'r',
}

fn expect(stream: &mut UnixStream, step: Step) -> Result<()> {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(1) if byte[0] == step as u8 => Ok(()),
        _ => Err(Error::Hinted {
            message: "cannot make a user namespace".to_owned(),
            hint: "let plain users make them: sysctl user.max_user_namespaces, \
                   kernel.unprivileged_userns_clone, or an AppArmor profile for rdocker"
                .to_owned(),
        }),
    }
}

/// Maps uid 0 to the user, and the ids from 1 on to the subordinate ones.
fn map_ids(pid: i32) -> Result<()> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let name = Accounts::read(Path::new("/"))?.name_of(uid);
    let maps = [
        ("newuidmap", "uid_map", uid, "/etc/subuid"),
        ("newgidmap", "gid_map", gid, "/etc/subgid"),
    ];
    for (program, file, own, path) in maps {
        let text = fs::read_to_string(path).unwrap_or_default();
        let ranges = table::ranges(&text, uid, name.as_deref());
        if ranges.is_empty() {
            map_one(pid, file, own)?;
            continue;
        }
        let mut command = Command::new(program);
        command.arg(pid.to_string());
        let map = table::map(own, &ranges);
        command.args(map.as_flattened().iter().map(u64::to_string));
        let output = command.output().map_err(|errno| Error::Hinted {
            message: format!("execute {program}: {errno}"),
            hint: "install the package uidmap".to_owned(),
        })?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(Error::Hinted {
                message: format!("{program}: {}", why.trim()),
                hint: format!("look at {path} and at the owner and mode of {program}"),
            });
        }
    }
    Ok(())
}

/// Without subordinate ids there is one user: oneself, as root.
fn map_one(pid: i32, file: &str, own: u32) -> Result<()> {
    let write = |name: &str, text: &str| {
        let path = PathBuf::from(format!("/proc/{pid}/{name}"));
        fs::write(&path, text).map_err(|errno| Error::host("write", &path, errno))
    };
    if file == "gid_map" {
        // The kernel wants it gone first: user_namespaces(7), "setgroups".
        write("setgroups", "deny")?;
    }
    write(file, &format!("0 {own} 1"))
}

/// The holder's life: its stdin is the command that makes it.
///
/// # Errors
/// A namespace cannot be made; the other side sees its end close and tells the user.
pub fn hold(host: &Host) -> Result<()> {
    let fail =
        |errno: std::io::Error| Error::host("hold the namespaces of", &host.exec_root, errno);
    let stdin = std::os::fd::AsFd::as_fd(&std::io::stdin())
        .try_clone_to_owned()
        .map_err(fail)?;
    let mut maker = UnixStream::from(stdin);
    // EPERM: already the leader of a session.
    let _ = nix::unistd::setsid();
    unshare(NAMESPACES).map_err(|errno| fail(errno.into()))?;
    maker.write_all(&[Step::Unshared as u8]).map_err(fail)?;
    expect(&mut maker, Step::Mapped)?;
    // What the machine mounts later is seen here; what is mounted here stays here.
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(|errno| fail(errno.into()))?;
    maker.write_all(&[Step::Ready as u8]).map_err(fail)?;
    std::env::set_current_dir("/").map_err(fail)?;
    // Ends when the maker has joined, who holds the lock by then.
    let _ = maker.read(&mut [0]);
    drop(maker);
    let _alone = FileLock::exclusive(&host.exec_root.join("namespaces.lock"))?;
    let path = host.exec_root.join(HOLDER);
    fs::remove_file(&path).map_err(|errno| Error::host("remove", &path, errno))
}
