//! Gives the running process another executable of the same bytes: what `/proc/PID/exe` opens.
//!
//! The kernel lets a process change that once nothing of the old file is mapped. So each segment is
//! mapped again from the new file, over itself: the program goes on in code that it has just replaced
//! by its equal. That is a tenth of the price of executing the new file.
//! Man page: `PR_SET_MM`(2const), `PR_SET_MM_MAP`, Linux 3.18.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::slice;

use libc::{c_int, c_ulong, c_void, off_t};

use super::{Errno, Result, check, proc};

unsafe extern "C" {
    /// The header of this program where it is loaded. The linker makes the name.
    #[link_name = "__ehdr_start"]
    static HEADER: libc::Elf64_Ehdr;
}

/// Where the parts of this process's memory are, as files of `/proc/PID` show it: addresses, each pair
/// a start and an end. See proc_pid_stat(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The program's text.
    pub code: [u64; 2],
    /// Its initialised data.
    pub data: [u64; 2],
    /// Where the heap starts.
    pub heap: u64,
    /// Where the first stack starts.
    pub stack: u64,
    /// The strings of the command line.
    pub arguments: [u64; 2],
    /// The strings of the first environment.
    pub environment: [u64; 2],
}

/// `struct prctl_mm_map` of linux/prctl.h: all that `PR_SET_MM_MAP` sets.
#[repr(C)]
struct Map {
    code: [u64; 2],
    data: [u64; 2],
    heap: [u64; 2],
    stack: u64,
    arguments: [u64; 2],
    environment: [u64; 2],
    /// Null keeps the one that the kernel has.
    auxv: u64,
    auxv_size: u32,
    exe: u32,
}

/// This program where it is loaded.
struct Program {
    segments: &'static [libc::Elf64_Phdr],
    /// What its addresses, which count from its first segment, are off by.
    base: usize,
    /// Bytes of a page.
    page: usize,
}

impl Program {
    fn this() -> Self {
        // SAFETY: the linker defines it, and the kernel maps it for reading, as a part of the program.
        let header = unsafe { &HEADER };
        let start = ptr::from_ref(header).cast::<u8>();
        // SAFETY: the program headers follow where the ELF header says, in the segment that it begins.
        let segments = unsafe {
            let first = start
                .add(header.e_phoff as usize)
                .cast::<libc::Elf64_Phdr>();
            slice::from_raw_parts(first, header.e_phnum.into())
        };
        let first = segments.iter().find(|s| s.p_type == libc::PT_LOAD);
        Self {
            segments,
            base: start.addr() - first.map_or(0, |s| s.p_vaddr as usize),
            // SAFETY: takes an integer.
            page: unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize,
        }
    }

    fn of(&self, kind: u32) -> impl Iterator<Item = &'static libc::Elf64_Phdr> {
        self.segments.iter().filter(move |s| s.p_type == kind)
    }

    /// From the page of the address `from` to that of `to`, which is not included.
    fn pages(&self, from: u64, to: u64) -> *mut [u8] {
        let down = |at: u64| (self.base + at as usize) & !(self.page - 1);
        let start = ptr::from_ref(self.segments).cast::<u8>().cast_mut();
        ptr::slice_from_raw_parts_mut(start.with_addr(down(from)), down(to) - down(from))
    }
}

/// Makes what the program never writes once it is relocated (`RELRO`) read-only.
///
/// # Errors
/// `ENOMEM` if the kernel has no memory for another mapping.
pub fn protect_constants() -> Result<()> {
    let program = Program::this();
    for constant in program.of(libc::PT_GNU_RELRO) {
        let pages = program.pages(constant.p_vaddr, constant.p_vaddr + constant.p_memsz);
        // SAFETY: whole pages of the program that nobody writes once it is relocated.
        check(unsafe { libc::mprotect(pages.cast(), pages.len(), libc::PROT_READ) }.into())?;
    }
    Ok(())
}

/// Makes `file` the executable of this process.
///
/// # Errors
/// `EXDEV` if it is not the file that this process was executed from, `EBUSY` if the process has more
/// than one thread or has mapped its executable by other means than starting; `EPERM` without
/// `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE` in the user namespace; `EINVAL` on kernels without
/// `CONFIG_CHECKPOINT_RESTORE`. The process is what it was before then.
pub fn replace(file: BorrowedFd<'_>, memory: Memory) -> Result<()> {
    let (old, new) = (
        nix::sys::stat::stat(c"/proc/self/exe")?,
        nix::sys::stat::fstat(file)?,
    );
    if (old.st_dev, old.st_ino) != (new.st_dev, new.st_ino) {
        return Err(Errno::EXDEV);
    }
    if !proc::is_single_threaded() {
        return Err(Errno::EBUSY);
    }
    let program = Program::this();
    for segment in program.of(libc::PT_LOAD).filter(|s| s.p_filesz > 0) {
        let end = segment.p_vaddr + segment.p_filesz + program.page as u64 - 1;
        let pages = program.pages(segment.p_vaddr, end);
        // SAFETY: these are the segment's pages, the file has their bytes at the same offset, and no
        // other thread runs.
        unsafe {
            match segment.p_flags & libc::PF_W {
                0 => map_again(
                    pages,
                    segment,
                    file,
                    segment.p_offset as usize & !(program.page - 1),
                )?,
                _ => detach(pages)?,
            }
        }
    }
    protect_constants()?;
    // SAFETY: reads where libc's heap ends.
    let heap_end = unsafe { libc::sbrk(0) }.addr() as u64;
    let map = Map {
        code: memory.code,
        data: memory.data,
        heap: [memory.heap, heap_end],
        stack: memory.stack,
        arguments: memory.arguments,
        environment: memory.environment,
        auxv: 0,
        auxv_size: 0,
        exe: file.as_raw_fd() as u32,
    };
    // SAFETY: the structure and its size. The kernel checks the addresses and shows them, no more.
    let ret = unsafe {
        let set = libc::PR_SET_MM_MAP as c_ulong;
        libc::prctl(libc::PR_SET_MM, set, &raw const map, size_of::<Map>(), 0)
    };
    check(ret.into()).map(drop)
}

/// Maps `pages` of a segment that is only read or executed, from `offset` in `file`.
///
/// # Safety
/// They have the same bytes.
unsafe fn map_again(
    pages: *mut [u8],
    segment: &libc::Elf64_Phdr,
    file: BorrowedFd<'_>,
    offset: usize,
) -> Result<()> {
    let access = match segment.p_flags & libc::PF_X {
        0 => libc::PROT_READ,
        _ => libc::PROT_READ | libc::PROT_EXEC,
    };
    let (file, offset) = (file.as_raw_fd(), offset as off_t);
    const OVER: c_int = libc::MAP_PRIVATE | libc::MAP_FIXED;
    // SAFETY: as the function's.
    check_map(unsafe { libc::mmap(pages.cast(), pages.len(), access, OVER, file, offset) })
        .map(drop)
}

/// Replaces `pages` that were written by a copy which belongs to no file.
///
/// # Safety
/// Nothing else writes them meanwhile.
unsafe fn detach(pages: *mut [u8]) -> Result<()> {
    const NEW: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    const OVER: c_int = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let (length, write) = (pages.len(), libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: new memory.
    let copy = check_map(unsafe { libc::mmap(ptr::null_mut(), length, write, NEW, -1, 0) })?;
    // SAFETY: both are of this length and apart. From the copy on nothing of the program is written
    // until the kernel has put the copy in its place.
    check_map(unsafe {
        ptr::copy_nonoverlapping(pages.cast::<u8>(), copy.cast(), length);
        libc::mremap(copy, length, length, OVER, pages.cast::<c_void>())
    })
    .map(drop)
}

fn check_map(at: *mut c_void) -> Result<*mut c_void> {
    match at {
        libc::MAP_FAILED => Err(Errno::last()),
        at => Ok(at),
    }
}
