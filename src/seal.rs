//! Keeps containers from writing to keel's own binary (CVE-2019-5736).
//!
//! What enters a container is a copy of keel until execve, and `/proc/PID/exe` leads from it to the
//! binary on the host: a container whose program is `/proc/self/exe`, or a script for that, executes
//! it and can then open it for writing. So keel makes a mount of its binary that is read-only and
//! attached nowhere, and goes on as if it had been executed from there ([`exe`]). `/proc/PID/exe`
//! keeps that mount, and opening it for writing fails, whoever asks.
//!
//! It is not done if the binary is out of reach as it is: on a read-only mount, or of somebody whose
//! files keel's caller cannot write. Kernels without mount_setattr(2) (before 5.12), and callers who
//! may not mount, execute a sealed copy in memory instead. See memfd_create(2), "File sealing".

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use libc::MOUNT_ATTR_RDONLY;
use nix::fcntl::AT_FDCWD;

use crate::error::{Error, Result};
use crate::sys::exe;
use crate::sys::mount::{Attr, Reach};
use crate::sys::proc::CStrings;
use crate::sys::{Errno, fd, mount, path, proc};

/// The verbs that put a copy of keel into a container.
const VERBS: &[&str] = &["create", "exec", "restore", "run"];

const SELF: &std::ffi::CStr = c"/proc/self/exe";

/// Whether this command line may put a copy of keel into a container. A flag's value that looks like
/// a verb costs nothing but time.
pub fn is_needed(args: impl Iterator<Item = OsString>) -> bool {
    args.into_iter()
        .skip(1)
        .any(|arg| VERBS.iter().any(|verb| arg == *verb))
}

/// Seals this process, or executes keel again with the same arguments from a sealed copy. Gives the
/// mount that the binary is now on, if it made one.
///
/// The last descriptor of that mount takes a while to close (the kernel waits until no processor is
/// looking at it), which is best done while there is something else to wait for.
///
/// # Errors
/// [`Error::Host`] if the binary cannot be sealed: nothing has been done then.
pub fn seal(args: impl Iterator<Item = OsString>) -> Result<Option<OwnedFd>> {
    let failed = |errno: Errno| {
        Error::host(
            "seal",
            "keel's own binary (CVE-2019-5736); it can be on a read-only mount instead",
            errno,
        )
    };
    match path::may_write(SELF) {
        Err(Errno::EACCES | Errno::EROFS) => return Ok(None),
        Ok(()) | Err(Errno::EPERM) => {}
        Err(Errno::ENOENT) => {
            let on = "/proc (mount it first: mount -t proc proc /proc)";
            return Err(Error::host("find", on, Errno::ENOENT));
        }
        Err(errno) => return Err(failed(errno)),
    }
    if proc::is_executed_from_descriptor() {
        let itself =
            File::open("/proc/self/exe").map_err(|error| Error::host("open", "keel", error))?;
        if fd::is_sealed(itself.as_fd()) {
            // It was named by the descriptor's number.
            nix::sys::prctl::set_name(c"keel").map_err(failed)?;
            return Ok(None);
        }
    }
    // Older kernels; callers without rights over their mount namespace; a keel that was executed from
    // another mount namespace, or is being traced in its own memory.
    if let Ok(mount) = read_only_mount() {
        return Ok(Some(mount));
    }
    let args = args.map(|arg| CString::new(arg.into_vec()).unwrap_or_default());
    Err(failed(proc::execve_fd(
        sealed_memory()?.as_fd(),
        &CStrings::new(args.collect(), 0),
    )))
}

/// Goes over to a read-only mount of the binary.
fn read_only_mount() -> io::Result<OwnedFd> {
    let mount = mount::clone_tree(AT_FDCWD, SELF, Reach::One)?;
    let readonly = Attr {
        set: MOUNT_ATTR_RDONLY,
        ..Attr::default()
    };
    mount::set_attr(mount.as_fd(), readonly, Reach::One)?;
    let binary = File::open(format!("/proc/self/fd/{}", mount.as_raw_fd()))?;
    exe::replace(binary.as_fd())?;
    Ok(mount)
}

/// A copy of the binary in memory that nobody can change any more.
fn sealed_memory() -> Result<OwnedFd> {
    let failed = |error: io::Error| Error::host("copy", "keel's own binary to memory", error);
    let memory = fd::memfd(c"keel").map_err(|errno| failed(errno.into()))?;
    let mut copy = File::from(memory);
    let mut binary = File::open("/proc/self/exe").map_err(failed)?;
    io::copy(&mut binary, &mut copy).map_err(failed)?;
    let memory = OwnedFd::from(copy);
    fd::seal(memory.as_fd()).map_err(|errno| failed(errno.into()))?;
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_that_enter_a_container_are_recognised_after_flags() {
        let needed = |line: &str| is_needed(line.split(' ').map(OsString::from));
        assert!(needed("keel --root /x run c"));
        assert!(needed("keel exec c sh"));
        assert!(!needed("keel state c"));
        assert!(!needed("create --version"));
    }

    #[test]
    fn a_sealed_copy_is_told_from_any_other_file() {
        let memory = sealed_memory().unwrap();
        assert!(fd::is_sealed(memory.as_fd()));
        assert_eq!(nix::unistd::write(&memory, b"x"), Err(Errno::EPERM));
        assert!(!fd::is_sealed(
            File::open("/proc/self/exe").unwrap().as_fd()
        ));
        assert!(!fd::is_sealed(fd::memfd(c"open").unwrap().as_fd()));
    }
}
