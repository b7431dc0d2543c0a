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
