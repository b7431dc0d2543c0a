//! Loads a seccomp filter: seccomp(2).

use std::os::fd::OwnedFd;

use libc::{c_ulong, c_ushort};

use super::{Errno, Result, check, check_fd};

/// One instruction of classic BPF: the kernel's `struct sock_filter`, in native byte order.
///
/// Source: linux/filter.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Operation, addressing mode and size: `BPF_LD | BPF_W | BPF_ABS` and the like.
    pub code: u16,
    /// How many instructions a jump skips if its test holds.
    pub jt: u8,
    /// How many instructions a jump skips if its test fails.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// The longest program that the kernel takes, in instructions (`BPF_MAXINSNS`).
pub const MAX_INSNS: usize = 4096;

/// The kernel's `struct sock_fprog`.
#[repr(C)]
struct Program {
    len: c_ushort,
    filter: *const Insn,
}

/// Filters the calling thread's system calls by `program` until it ends; children inherit it.
///
/// `flags` are `SECCOMP_FILTER_FLAG_*`. With `NEW_LISTENER` the answer is the descriptor that
/// notifications are read from, close-on-exec; without it there is none. The thread must have
/// no_new_privs or CAP_SYS_ADMIN in its user namespace. Allocates nothing.
///
/// # Errors
/// `EACCES`: neither no_new_privs nor CAP_SYS_ADMIN. `EINVAL`: the program is empty, too long or
/// not well formed, or this kernel lacks a flag or an action. `EBUSY`: a filter of this thread has
/// a listener already.
///
/// Man page: seccomp(2); `SPEC_ALLOW` Linux 4.17, `NEW_LISTENER` 5.0, `WAIT_KILLABLE_RECV` 5.19.
pub fn load(program: &[Insn], flags: u32) -> Result<Option<OwnedFd>> {
    let program = Program {
        len: c_ushort::try_from(program.len()).map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr(),
    };
    // SAFETY: the kernel copies `len` instructions from `filter`, which is borrowed for the whole
    // call, and writes none of our memory.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    if c_ulong::from(flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
        return check_fd(ret).map(Some);
    }
    check(ret).map(|_| None)
}

/// Real system calls under a filter, for the tests of whoever makes filters.
#[cfg(test)]
pub mod child {
    use std::io::Read;

    use super::{Errno, Insn, Result, load};
    use crate::sys::proc::set_no_new_privs;

    /// How the child ended.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Ended {
        /// With this code.
        Exit(i32),
        /// By this signal.
        Signal(i32),
    }

    /// In a call's number: enter the kernel through `int 0x80`.
    pub const INT80: i64 = 1 << 40;

    /// Makes `calls` (number and arguments) in a child under `program`; what they returned
    /// (negative errno) and how the child ended. The number -2 asks for the close-on-exec flag of
    /// the listener instead; it is -1 if there is none.
    ///
    /// The program must allow write(2) and exit_group(2).
    ///
    /// # Errors
    /// Why the filter was not loaded.
    pub fn calls(
        program: &[Insn],
        flags: u32,
        calls: &[(i64, [u64; 6])],
    ) -> Result<(Vec<i64>, Ended)> {
        let (mut read, write) = std::io::pipe().map_err(|_| Errno::EMFILE)?;
        // SAFETY: the child makes system calls only: no lock of another thread matters to it.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            run(program, flags, calls, &write);
        }
        drop(write);
        let mut told = Vec::new();
        read.read_to_end(&mut told).expect("a pipe can be read");
        let mut status = 0;
        // SAFETY: `status` is ours for the whole call.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!(waited, pid);
        let mut told = told
            .chunks_exact(8)
            .map(|bytes| i64::from_ne_bytes(bytes.try_into().expect("eight bytes")));
        match told.next() {
            Some(0) => {}
            loaded => return Err(Errno::from_raw(-loaded.unwrap_or_default() as i32)),
        }
        let ended = if libc::WIFSIGNALED(status) {
            Ended::Signal(libc::WTERMSIG(status))
        } else {
            Ended::Exit(libc::WEXITSTATUS(status))
        };
        Ok((told.collect(), ended))
    }

    fn run(program: &[Insn], flags: u32, calls: &[(i64, [u64; 6])], to: &std::io::PipeWriter) -> ! {
        use std::os::fd::AsRawFd;
        let tell = |value: i64| {
            let bytes = value.to_ne_bytes();
            // SAFETY: eight bytes of our stack.
            unsafe { libc::write(to.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        };
        let listener = match set_no_new_privs().and_then(|()| load(program, flags)) {
            Ok(listener) => listener,
            Err(errno) => {
                tell(-i64::from(errno as i32));
                exit()
            }
        };
        tell(0);
        for (nr, args) in calls {
            tell(match listener.as_ref().map(AsRawFd::as_raw_fd) {
                // SAFETY: fcntl with F_GETFD takes no pointer.
                Some(fd) if *nr == -2 => i64::from(unsafe { libc::fcntl(fd, libc::F_GETFD) }),
                None if *nr == -2 => -1,
                _ => raw(*nr, args),
            });
        }
        exit()
    }

    fn exit() -> ! {
        // SAFETY: ends this process without running destructors.
        unsafe { libc::_exit(0) }
    }

    #[cfg(target_arch = "x86_64")]
    fn raw(nr: i64, args: &[u64; 6]) -> i64 {
        if nr >= INT80 {
            let mut result = nr as u32 as u64;
            // SAFETY: the tests make calls that touch no memory; int 0x80 clobbers r8 to r11.
            unsafe {
                std::arch::asm!("int 0x80", inout("rax") result, in("rcx") args[1],
                    in("rdx") args[2], out("r8") _, out("r9") _, out("r10") _, out("r11") _);
            }
            return i64::from(result as i32);
        }
        libc_raw(nr, args)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn raw(nr: i64, args: &[u64; 6]) -> i64 {
        libc_raw(nr, args)
    }

    fn libc_raw(nr: i64, args: &[u64; 6]) -> i64 {
        let [a, b, c, d, e, f] = *args;
        // SAFETY: the tests make calls that touch no memory.
        let result = unsafe { libc::syscall(nr as libc::c_long, a, b, c, d, e, f) };
        if result == -1 {
            -i64::from(Errno::last_raw())
        } else {
            result as i64
        }
    }
}
