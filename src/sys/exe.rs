//! Gives the running process another executable of the same bytes: what `/proc/PID/exe` opens.
//!
//! The kernel lets a process change that once nothing of the old file is mapped. So each segment is
//! mapped again from the new file, over itself: the program goes on in code that it has just replaced
//! by its equal. That is a tenth of the price of executing the new file.
//! Man page: `PR_SET_MM`(2const), `PR_SET_MM_MAP`, Linux 3.18.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::slice;

use libc::{c_char, c_int, c_ulong, c_void, off_t};

use super::{Errno, Result, check, entry, proc};

unsafe extern "C" {
    /// The header of this program where it is loaded. The linker makes the name.
    #[link_name = "__ehdr_start"]
    static HEADER: libc::Elf64_Ehdr;
}

/// Where the kernel put the strings of the command line and of the first environment, one after the
/// other, and above the first stack: a start and an end each. See execve(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Strings {
    stack: u64,
    arguments: [u64; 2],
    environment: [u64; 2],
}

impl Strings {
    /// Those that begin with the pointers at `first`.
    ///
    /// # Safety
    /// `first` is what `main` got: pointers to strings, a null pointer, pointers to the strings of the
    /// environment, a null pointer.
    unsafe fn behind(first: *const *const c_char) -> Self {
        // SAFETY: nothing beyond the null pointer is looked at.
        let list = |first: *const *const c_char| unsafe {
            let count = (0..).take_while(|&n| !(*first.add(n)).is_null()).count();
            slice::from_raw_parts(first, count)
        };
        // SAFETY: a string's end is a part of it.
        let end = |string: &*const c_char| unsafe { string.add(libc::strlen(*string) + 1) };
        let arguments = list(first);
        // SAFETY: the second list comes after the null pointer of the first.
        let environment = list(unsafe { first.add(arguments.len() + 1) });
        let start = arguments.first().or(environment.first());
        let start = start.map_or(0, |string| string.addr() as u64);
        let middle = arguments.last().map_or(start, |s| end(s).addr() as u64);
        let last = environment.last().map_or(middle, |s| end(s).addr() as u64);
        Self {
            stack: first.addr() as u64 - size_of::<usize>() as u64,
            arguments: [start, middle],
            environment: [middle, last],
        }
    }
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
            page: proc::page_size(),
        }
    }

    fn of(&self, kind: u32) -> impl Iterator<Item = &'static libc::Elf64_Phdr> {
        self.segments.iter().filter(move |s| s.p_type == kind)
    }

    /// Where the last loaded segment of these begins and ends, by which the kernel counts text and data.
    fn spans(&self, is_one: impl Fn(&libc::Elf64_Phdr) -> bool) -> [u64; 2] {
        let last = self.of(libc::PT_LOAD).filter(|s| is_one(s)).last();
        let start = last.map_or(0, |s| s.p_vaddr) + self.base as u64;
        [start, start + last.map_or(0, |s| s.p_filesz)]
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
pub fn replace(file: BorrowedFd<'_>) -> Result<()> {
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
    let command_line = entry::command_line();
    if command_line.is_null() {
        return Err(Errno::EINVAL);
    }
    let program = Program::this();
    let mut written: Vec<*mut [u8]> = Vec::new();
    for segment in program.of(libc::PT_LOAD).filter(|s| s.p_filesz > 0) {
        let end = segment.p_vaddr + segment.p_filesz + program.page as u64 - 1;
        let pages = program.pages(segment.p_vaddr, end);
        if segment.p_flags & libc::PF_W != 0 {
            match written.last_mut() {
                // Side by side, as nearly always, they are replaced in one step.
                Some(last) if last.addr() + last.len() == pages.addr() => {
                    *last = ptr::slice_from_raw_parts_mut(last.cast(), last.len() + pages.len());
                }
                _ => written.push(pages),
            }
            continue;
        }
        let offset = segment.p_offset as usize & !(program.page - 1);
        // SAFETY: these are the segment's pages, the file has their bytes at the same offset.
        unsafe { map_again(pages, segment, file, offset)? };
    }
    for pages in written {
        // SAFETY: pages of this program, and no other thread runs.
        unsafe { detach(pages)? };
    }
    protect_constants()?;
    // SAFETY: it is what `main` got, and keel changes no variable of its own environment.
    let strings = unsafe { Strings::behind(command_line) };
    // SAFETY: reads where libc's heap ends.
    let heap = unsafe { libc::sbrk(0) }.addr() as u64;
    let map = Map {
        code: program.spans(|s| s.p_flags & libc::PF_X != 0),
        data: program.spans(|_| true),
        // Nobody uses it but a libc in its start-up.
        heap: [heap, heap],
        stack: strings.stack,
        arguments: strings.arguments,
        environment: strings.environment,
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
