//! Capability sets of the calling thread, as bit masks: bit n is capability number n.

use super::{Errno, Result, check};

/// The five sets of a process. Man page: capabilities(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    /// What a program with file capabilities can gain at most.
    pub bounding: u64,
    /// What is in force.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What survives execve of a file that has it as inheritable too.
    pub inheritable: u64,
    /// What survives execve of an ordinary file.
    pub ambient: u64,
}

/// `CAP_SETGID` as a mask.
pub const SETGID: u64 = 1 << 6;
/// `CAP_SETUID` as a mask.
pub const SETUID: u64 = 1 << 7;
/// `CAP_SYS_ADMIN` as a mask.
pub const SYS_ADMIN: u64 = 1 << 21;

/// `_LINUX_CAPABILITY_VERSION_3`: two 32-bit words for each set.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Sets effective, permitted and inheritable at once. Man page: capset(2).
pub fn set(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let word = |shift: u32| Word {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [word(0), word(32)];
    // SAFETY: version 3 reads one header and two words, which is what is passed.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// The effective and permitted sets of the calling thread. Man page: capget(2).
pub fn get() -> Result<(u64, u64)> {
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut data = [Word::default(); 2];
    // SAFETY: version 3 writes two words, for which `data` has room.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok((
        join(data[0].effective, data[1].effective),
        join(data[0].permitted, data[1].permitted),
    ))
}

/// Whether the kernel knows capability `number`. Man page: prctl(2), `PR_CAPBSET_READ`.
pub fn is_known(number: u32) -> bool {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) }.into()).is_ok()
}

/// Drops from the bounding set every capability the kernel knows that is not in `keep`.
///
/// By number up to the kernel's last one (`EINVAL` ends the loop), so that capabilities newer than
/// any list are dropped too. Man page: prctl(2), `PR_CAPBSET_DROP`.
pub fn limit_bounding(keep: u64) -> Result<()> {
    for number in 0..64 {
        if keep & (1 << number) != 0 {
            continue;
        }
        // SAFETY: integers only.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) }.into()) {
            Err(Errno::EINVAL) => break,
            other => drop(other?),
        }
    }
    Ok(())
}

/// Replaces the ambient set. Man page: prctl(2), `PR_CAP_AMBIENT`, Linux 4.3.
///
/// # Errors
/// `EPERM` if a capability of `wanted` is not both permitted and inheritable.
pub fn set_ambient(wanted: u64) -> Result<()> {
    let (clear, raise) = (libc::PR_CAP_AMBIENT_CLEAR_ALL, libc::PR_CAP_AMBIENT_RAISE);
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0) }.into())?;
    for number in (0..64).filter(|number| wanted & (1 << number) != 0) {
        // SAFETY: integers only.
        check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, number, 0, 0) }.into())?;
    }
    Ok(())
}
