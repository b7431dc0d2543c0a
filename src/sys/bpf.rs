//! The few commands of bpf(2) that a device program of a cgroup needs.
//!
//! Kernels before 5.11 count programs against `RLIMIT_MEMLOCK` and say `EPERM` when it is used up.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use libc::c_int;

use super::{Result, check, check_fd};

/// One instruction, as linux/bpf.h lays it out.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    /// Operation and its class.
    pub code: u8,
    /// The destination register in the low four bits, the source register in the high ones.
    pub regs: u8,
    /// A jump's distance, or a load's offset.
    pub off: i16,
    /// The constant.
    pub imm: i32,
}

/// Which of a cgroup's programs a new one takes the place of.
#[derive(Debug, Clone, Copy)]
pub enum Attach<'a> {
    /// None: it is one more.
    Beside,
    /// This one, in one step (Linux 5.6).
    Replacing(BorrowedFd<'a>),
}

const PROG_LOAD: c_int = 5;
const PROG_ATTACH: c_int = 8;
const PROG_DETACH: c_int = 9;
const PROG_GET_FD_BY_ID: c_int = 13;
const PROG_QUERY: c_int = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 2;
const F_REPLACE: u32 = 4;

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE` (Linux 4.15). `EINVAL` and `EACCES` come
/// from the verifier, `EPERM` from a lack of `CAP_BPF` or `CAP_SYS_ADMIN`.
pub fn load_device_program(program: &[Insn]) -> Result<OwnedFd> {
    let mut name = [0; 16];
    name[..12].copy_from_slice(b"keel_devices");
    let attr = LoadAttr {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).unwrap_or(u32::MAX),
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        prog_name: name,
        ..LoadAttr::default()
    };
    // SAFETY: `Insn` has the kernel's layout, and program, licence and attr outlive the call.
    check_fd(unsafe { bpf(PROG_LOAD, &raw const attr) })
}

/// Attaches a device program to the cgroup v2 directory `cgroup`.
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    how: Attach<'_>,
) -> Result<()> {
    let (flags, replaced) = match how {
        Attach::Beside => (F_ALLOW_MULTI, 0),
        Attach::Replacing(old) => (F_ALLOW_MULTI | F_REPLACE, number(old)),
    };
    let attr = AttachAttr {
        attach_flags: flags,
        replace_bpf_fd: replaced,
        ..AttachAttr::of(cgroup, program)
    };
    // SAFETY: attr outlives the call; the descriptors are borrowed for it.
    check(unsafe { bpf(PROG_ATTACH, &raw const attr) }).map(drop)
}

/// Detaches a device program from the cgroup `cgroup`.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let attr = AttachAttr::of(cgroup, program);
    // SAFETY: attr outlives the call; the descriptors are borrowed for it.
    check(unsafe { bpf(PROG_DETACH, &raw const attr) }).map(drop)
}

/// The ids of the device programs attached to `cgroup` itself, into `ids`; the answer is how many.
/// `ENOSPC` means that there are more than `ids` takes.
pub fn query_device_programs(cgroup: BorrowedFd<'_>, ids: &mut [u32]) -> Result<usize> {
    let mut attr = QueryAttr {
        target_fd: number(cgroup),
        attach_type: CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: u32::try_from(ids.len()).unwrap_or(u32::MAX),
        ..QueryAttr::default()
    };
    // SAFETY: the kernel writes at most `prog_cnt` ids and the fields of attr; both outlive the call.
    check(unsafe { bpf(PROG_QUERY, &raw mut attr) })?;
    Ok(attr.prog_cnt as usize)
}

/// Opens a loaded program by its id.
pub fn program_by_id(id: u32) -> Result<OwnedFd> {
    let attr = IdAttr {
        prog_id: id,
        ..IdAttr::default()
    };
    // SAFETY: attr outlives the call.
    check_fd(unsafe { bpf(PROG_GET_FD_BY_ID, &raw const attr) })
}

impl AttachAttr {
    fn of(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Self {
        Self {
            target_fd: number(cgroup),
            attach_bpf_fd: number(program),
            attach_type: CGROUP_DEVICE,
            ..Self::default()
        }
    }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// # Safety
/// `attr` must be the attribute structure of `command`, and everything it points to must outlive
/// the call.
unsafe fn bpf<T>(command: c_int, attr: *const T) -> libc::c_long {
    let size = std::mem::size_of::<T>();
    // SAFETY: the caller's promise; the kernel reads `size` bytes at most.
    unsafe { libc::syscall(libc::SYS_bpf, command, attr, size) }
}
