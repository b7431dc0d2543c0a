//! Landlock: what this process may do to files. Man page: landlock(7), Linux 5.13.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::{Result, check, check_fd};

/// The kernel's `struct landlock_ruleset_attr` of its first version. Source: linux/landlock.h.
#[repr(C)]
struct Ruleset {
    handled: u64,
}

/// The kernel's `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: i32,
}

const RULE_PATH_BENEATH: u32 = 1;
/// Execute files: `LANDLOCK_ACCESS_FS_EXECUTE`.
const EXECUTE: u64 = 1 << 0;
/// Write to files.
const WRITE_FILE: u64 = 1 << 1;
/// From `REMOVE_DIR` to `MAKE_SYM`: all that changes a directory.
const CHANGE_DIR: u64 = 0b1_1111_1111 << 4;

/// From now on the calling thread executes nothing, and makes, removes and writes files only below
/// `directories`, as far as descriptors are not open already. Its children inherit that.
///
/// The thread must have no_new_privs or CAP_SYS_ADMIN in its user namespace.
///
/// # Errors
/// `ENOSYS` and `EOPNOTSUPP` on kernels without Landlock.
pub fn write_only_below<'f>(directories: impl Iterator<Item = BorrowedFd<'f>>) -> Result<()> {
    let attr = Ruleset {
        handled: EXECUTE | WRITE_FILE | CHANGE_DIR,
    };
    // SAFETY: the kernel reads `size_of` bytes of `attr`, which lives for the call.
    let ruleset = check_fd(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attr,
            size_of::<Ruleset>(),
            0,
        )
    })?;
    for directory in directories {
        let rule = Beneath {
            allowed: WRITE_FILE | CHANGE_DIR,
            parent: directory.as_raw_fd(),
        };
        let set = ruleset.as_fd().as_raw_fd();
        // SAFETY: the kernel reads one rule, which lives for the call; both descriptors are open.
        check(unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                set,
                RULE_PATH_BENEATH,
                &raw const rule,
                0,
            )
        })?;
    }
    // SAFETY: an open descriptor and a number.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
        .map(drop)
}
