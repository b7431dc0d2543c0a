//! Descriptors: pidfds, passing over sockets, closing for real.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use libc::{c_int, c_uint};
use nix::fcntl::{FcntlArg, SealFlag};

use super::{Errno, Result, check, check_fd};

/// All of a file of procfs, sysfs or a cgroup, which has no size to ask for: nearly always in one
/// read, and one more that finds its end.
///
/// # Errors
/// Those of open(2) and read(2), and `InvalidData` for what is not UTF-8.
pub fn read_kernel_file(path: impl AsRef<Path>) -> io::Result<String> {
    read_kernel_text(File::open(path)?)
}

/// [`read_kernel_file`] of one that is open already.
///
/// # Errors
/// The same.
pub fn read_kernel_text(file: File) -> io::Result<String> {
    let bytes = read_kernel_bytes(file)?;
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// [`read_kernel_text`] where a process may have put any bytes, such as its name.
///
/// # Errors
/// Those of read(2).
pub fn read_kernel_bytes(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(PAGE);
    // Behind `take`, which asks for no size.
    file.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All of a file of procfs that is one record, such as `/proc/PID/stat`: the kernel gives out as much of
/// a record as there is room for, so less than that is the end.
///
/// # Errors
/// Those of read(2), and `InvalidData` for a record that is longer than a page.
pub fn read_record(mut file: File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PAGE];
    let len = loop {
        match file.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if len == PAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// What the kernel gives out at once of most such files.
const PAGE: usize = 4096;

/// Opens a process by its pid. Man page: pidfd_open(2), Linux 5.3.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: integers only.
    check_fd(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends `signal` to the process behind `pidfd`; 0 only checks. Man page: pidfd_send_signal(2), Linux 5.1.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> Result<()> {
    let (fd, info) = (pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: a null siginfo asks the kernel to fill in its own.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) }).map(drop)
}

/// Copies descriptor number `target` of the process behind `pidfd`. Man page: pidfd_getfd(2), Linux 5.6.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, target: RawFd) -> Result<OwnedFd> {
    // SAFETY: integers only.
    check_fd(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), target, 0) })
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Ended {
    /// The shell's convention: the code, or 128 plus the signal.
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Waits for the child behind `pidfd` to end, and reaps it. Man page: waitid(2), `P_PIDFD`, Linux 5.4.
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<Ended> {
    // SAFETY: siginfo_t is plain old data for which all zeroes is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        let id = pidfd.as_raw_fd() as libc::id_t;
        // SAFETY: `info` is ours and outlives the call.
        let ret = unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED) };
        match check(ret.into()) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => break,
        };
    }
    // SAFETY: waitid succeeded, so the kernel filled in the SIGCHLD member of the union.
    let status = unsafe { info.si_status() };
    Ok(if info.si_code == libc::CLD_EXITED {
        Ended::Code(status)
    } else {
        Ended::Signal(status)
    })
}

/// Waits until `fd` is readable (a pidfd: until its process has ended) or `timeout_ms` has passed.
///
/// A negative timeout waits for ever. `Ok(false)` means the time is over.
pub fn poll_in(fd: BorrowedFd<'_>, timeout_ms: i32) -> Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut set = [PollFd::new(fd, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(timeout_ms).unwrap_or(PollTimeout::NONE);
    loop {
        match poll(&mut set, timeout) {
            Err(Errno::EINTR) => {}
            other => return other.map(|ready| ready > 0),
        }
    }
}

/// Waits until the other end of the socket `fd` is closed, however much is to be read before. Man
/// page: poll(2), `POLLHUP`.
pub fn wait_for_hangup(fd: BorrowedFd<'_>) -> Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut set = [PollFd::new(fd, PollFlags::empty())];
    loop {
        match poll(&mut set, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// What [`close_from`] does with the descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// Closes them at once.
    Now,
    /// Marks them close-on-exec.
    OnExec,
}

/// Closes, or marks close-on-exec, every descriptor from `first` on. Man page: close_range(2), Linux 5.9.
///
/// On older kernels each possible number up to the soft limit is closed in turn.
///
/// # Errors
/// `EINVAL` if the flag is not known (`OnExec` before Linux 5.11).
pub fn close_from(first: RawFd, how: Close) -> Result<()> {
    let flags = if how == Close::OnExec {
        libc::CLOSE_RANGE_CLOEXEC as c_uint
    } else {
        0
    };
    // SAFETY: no owner of such a descriptor runs again: the only caller that closes at once is
    // about to execve, and close-on-exec changes nothing for owners.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first as c_uint, c_uint::MAX, flags) };
    match check(ret) {
        Err(Errno::ENOSYS | Errno::EINVAL) => close_each(first, how),
        other => other.map(drop),
    }
}

/// Closes the descriptors from `first` to `last`.
pub fn close_range(first: RawFd, last: RawFd) -> Result<()> {
    // SAFETY: the caller has given up every owner of a descriptor in this range.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first as c_uint, last as c_uint, 0) };
    match check(ret) {
        Err(Errno::ENOSYS) => {
            for fd in first..=last {
                // SAFETY: as above; a number that is not open only gives EBADF.
                unsafe { libc::close(fd) };
            }
            Ok(())
        }
        other => other.map(drop),
    }
}

fn close_each(first: RawFd, how: Close) -> Result<()> {
    let (soft, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
    let last = c_int::try_from(soft.min(1 << 20)).unwrap_or(1 << 20);
    for fd in first..last {
        match how {
            // SAFETY: as in `close_from`; a number that is not open only gives EBADF.
            Close::Now => drop(unsafe { libc::close(fd) }),
            // SAFETY: sets a flag on a descriptor; a number that is not open only gives EBADF.
            Close::OnExec => drop(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }),
        }
    }
    Ok(())
}

/// Lets `fd` survive execve.
pub fn keep_on_exec(fd: RawFd) -> Result<()> {
    // SAFETY: clears a flag; no memory is passed and nobody's ownership changes.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }.into()).map(drop)
}

/// Whether descriptor number `fd` is the caller's: it has survived an execve, which none of keel's own
/// would.
pub fn is_inherited(fd: RawFd) -> bool {
    // SAFETY: reads a flag; a number that is not open only gives EBADF.
    (unsafe { libc::fcntl(fd, libc::F_GETFD) }) == 0
}

/// Borrows a descriptor by number, for numbers that come from outside (`--preserve-fds`, stdio).
pub fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: keel never closes the descriptors it was started with, so the number stays valid for
    // the life of the process; -1 is never passed (the callers' numbers are 0 or greater).
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Takes ownership of a descriptor that was inherited by number.
pub fn take(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller has found this number in its own command line or environment, where
    // whoever started keel handed it over; nothing else in keel refers to it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A zeroed in-memory file, close-on-exec. Man page: memfd_create(2), Linux 3.17.
pub fn memfd(name: &std::ffi::CStr) -> Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: `name` is a C string that outlives the call.
    check_fd(unsafe { libc::memfd_create(name.as_ptr(), flags) }.into())
}

const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// Freezes the contents of a [`memfd`] for good. Man page: F_ADD_SEALS(2const).
pub fn seal(memory: BorrowedFd<'_>) -> Result<()> {
    nix::fcntl::fcntl(memory, FcntlArg::F_ADD_SEALS(SEALS)).map(drop)
}

/// Whether `file` is a memfd whose contents nobody can change.
pub fn is_sealed(file: BorrowedFd<'_>) -> bool {
    let seals = nix::fcntl::fcntl(file, FcntlArg::F_GET_SEALS);
    seals.is_ok_and(|seals| SealFlag::from_bits_truncate(seals).contains(SEALS))
}

const ONE_FD_SPACE: usize =
    // SAFETY: CMSG_SPACE only computes a size.
    unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as c_uint) } as usize;

/// Room for the control message of one descriptor, aligned as the kernel wants it.
#[repr(C)]
union OneFd {
    bytes: [u8; ONE_FD_SPACE],
    _align: std::mem::ManuallyDrop<libc::cmsghdr>,
}

/// Sends `payload` and one descriptor in a single message. Man page: unix(7), `SCM_RIGHTS`.
pub fn send_fd(socket: BorrowedFd<'_>, payload: &[u8], fd: BorrowedFd<'_>) -> Result<()> {
    let part = IoSlice::new(payload);
    let mut control = OneFd {
        bytes: [0; ONE_FD_SPACE],
    };
    // SAFETY: msghdr is plain old data for which all zeroes is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = std::ptr::from_ref(&part).cast_mut().cast();
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = ONE_FD_SPACE as _;
    // SAFETY: the control buffer has room for one header and one descriptor, so the pointers that
    // the macros return lie inside it; `control` is aligned for cmsghdr by the union.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as c_uint) as _;
        libc::CMSG_DATA(header)
            .cast::<RawFd>()
            .write_unaligned(fd.as_raw_fd());
    }
    // SAFETY: the message points at `part` and `control`, which outlive the call.
    let ret = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    check(ret as libc::c_long).map(drop)
}

/// Receives a message of up to `payload.len()` bytes and, if one came with it, a descriptor.
pub fn recv_fd(socket: BorrowedFd<'_>, payload: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut part = IoSliceMut::new(payload);
    let mut control = OneFd {
        bytes: [0; ONE_FD_SPACE],
    };
    // SAFETY: msghdr is plain old data for which all zeroes is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = (&raw mut part).cast();
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = ONE_FD_SPACE as _;
    // SAFETY: the message points at `part` and `control`, which outlive the call.
    let ret =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let len = check(ret as libc::c_long)? as usize;
    // SAFETY: the kernel has filled in the control buffer and its length; the macros stay within
    // it, and a SCM_RIGHTS header of at least this length carries a descriptor that is now ours.
    let fd = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let wanted = libc::CMSG_LEN(size_of::<RawFd>() as c_uint) as usize;
        if header.is_null()
            || (*header).cmsg_type != libc::SCM_RIGHTS
            || ((*header).cmsg_len as usize) < wanted
        {
            None
        } else {
            Some(OwnedFd::from_raw_fd(
                libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned(),
            ))
        }
    };
    Ok((len, fd))
}
