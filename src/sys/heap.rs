//! keel's heap: dlmalloc, and a reserve for the time when the kernel gives no more memory.
//!
//! dlmalloc asks the kernel for 64 KiB at once, where musl's own allocator asks for each of its groups:
//! sixty system calls of an `exec`. Rust ends a program that gets no memory; what a command still has to
//! do, undo and say fits into the reserve.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use dlmalloc::Dlmalloc;

use super::proc::page_size;

/// Bytes of the reserve. They are zeroes that no file has, and take memory when they are first written.
const SIZE: usize = 512 << 10;

static RESERVE: [AtomicU8; SIZE] = [const { AtomicU8::new(0) }; SIZE];

/// How much of the reserve is taken. Nothing is given back to it.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// The program's allocator, for the first thread that asks: keel has no other.
#[derive(Debug)]
pub struct Heap;

/// dlmalloc without its lock, which took a seventh of the instructions of `run`.
struct Unlocked(UnsafeCell<Dlmalloc>);

static DLMALLOC: Unlocked = Unlocked(UnsafeCell::new(Dlmalloc::new()));

/// Where the thread that has the heap has its [`THREAD`]; 0 before it asks.
static OWNER: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Tells threads apart by its address, which takes one instruction.
    static THREAD: u8 = const { 0 };
}

// SAFETY: `dlmalloc` lets only one thread at it.
unsafe impl Sync for Unlocked {}

/// Ends the process if another thread asks.
fn dlmalloc() -> *mut Dlmalloc {
    let this = THREAD.with(|here| ptr::from_ref(here).addr());
    if OWNER.load(Ordering::Relaxed) != this {
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        if OWNER.compare_exchange(0, this, set, fetch).is_err() {
            // SAFETY: abort takes nothing and does not return.
            unsafe { libc::abort() }
        }
    }
    DLMALLOC.0.get()
}

/// Has the kernel map in one call (`MADV_POPULATE_WRITE`, Linux 5.14) what the way of a container takes of
/// the heap, and not page by page when it is first written.
pub fn map_ahead() {
    const SIZE: usize = 32 << 10;
    let ahead: Vec<u8> = Vec::with_capacity(SIZE);
    let start = ahead.as_ptr().cast_mut();
    let start = start.map_addr(|start| start & !(page_size() - 1));
    // SAFETY: pages of the heap, whose bytes stay what they are. Without it they come as they always do.
    let _ = unsafe { libc::madvise(start.cast(), SIZE, libc::MADV_POPULATE_WRITE) };
}

/// Memory of the reserve, all zeroes; null if it is used up.
fn reserved(layout: Layout) -> *mut u8 {
    let start = RESERVE.as_ptr().addr();
    let offset = |taken: usize| (start + taken).next_multiple_of(layout.align()) - start;
    let end = |taken: usize| offset(taken).checked_add(layout.size());
    let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
    match TAKEN.fetch_update(set, fetch, |taken| end(taken).filter(|end| *end <= SIZE)) {
        Ok(taken) => RESERVE[offset(taken)..].as_ptr().cast_mut().cast(),
        Err(_) => ptr::null_mut(),
    }
}

fn is_reserved(memory: *mut u8) -> bool {
    memory.addr().wrapping_sub(RESERVE.as_ptr().addr()) < SIZE
}

// SAFETY: every call is answered by dlmalloc, or served from a part of the reserve that is handed out
// once, large enough and aligned.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: no other thread has it, and the caller's promise about `layout` is passed on.
        let memory = unsafe { (*dlmalloc()).malloc(layout.size(), layout.align()) };
        match memory.is_null() {
            false => memory,
            true => reserved(layout),
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let memory = unsafe { (*dlmalloc()).calloc(layout.size(), layout.align()) };
        match memory.is_null() {
            false => memory,
            true => reserved(layout),
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if !is_reserved(memory) {
            // SAFETY: then `memory` came from dlmalloc, which no other thread has.
            unsafe { (*dlmalloc()).free(memory, layout.size(), layout.align()) }
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !is_reserved(memory) {
            // SAFETY: as in `dealloc`.
            let larger = unsafe {
                let (old, align) = (layout.size(), layout.align());
                (*dlmalloc()).realloc(memory, old, align, size)
            };
            if !larger.is_null() {
                return larger;
            }
        }
        // SAFETY: the caller promises that `size` is one for this alignment; both are of the length
        // that is copied, and the old one is not used any more.
        unsafe {
            let other = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !other.is_null() {
                ptr::copy_nonoverlapping(memory, other, layout.size().min(size));
                self.dealloc(memory, layout);
            }
            other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_handed_out_once_and_ends() {
        let layout = |size, align| Layout::from_size_align(size, align).unwrap();
        let (first, second) = (reserved(layout(3, 1)), reserved(layout(64, 64)));
        assert!(is_reserved(first) && is_reserved(second));
        assert!(second.addr() >= first.addr() + 3 && second.addr().is_multiple_of(64));
        assert!(reserved(layout(SIZE, 1)).is_null());
        let end = RESERVE.as_ptr_range().end.cast_mut();
        assert!(!is_reserved(end.cast()));
    }
}
