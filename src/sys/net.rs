//! The loopback interface of a new network namespace.

use super::{Result, check, check_fd};
use std::os::fd::AsRawFd;

/// Brings up `lo` in the caller's network namespace. Man page: netdevice(7), `SIOCSIFFLAGS`.
pub fn bring_up_loopback() -> Result<()> {
    // SAFETY: integers only.
    let socket = check_fd(
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into(),
    )?;
    // SAFETY: ifreq is plain old data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the ioctl reads one ifreq, which outlives the call.
    let ret = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    };
    check(ret.into()).map(drop)
}
