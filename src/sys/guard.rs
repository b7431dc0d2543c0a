//! Enforces the rule "no allocation between clone and exec".
//!
//! keel's binary installs [`Guard`] as its global allocator in debug builds: the first allocation
//! after [`forbid_allocation`] ends the process with a message. Release builds use
//! [`Heap`] directly, and the switch costs one store.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, Ordering};

use super::heap::Heap;

static FORBIDDEN: AtomicBool = AtomicBool::new(false);

/// From here on this process must not allocate; called in the child right after the clone.
pub fn forbid_allocation() {
    FORBIDDEN.store(true, Ordering::Relaxed);
}

/// keel's allocator, which aborts once [`forbid_allocation`] was called.
#[derive(Debug)]
pub struct Guard;

fn check() {
    if FORBIDDEN.load(Ordering::Relaxed) {
        FORBIDDEN.store(false, Ordering::Relaxed);
        const MESSAGE: &[u8] = b"keel: bug: allocation between clone and exec\n";
        // SAFETY: a static buffer of that length, written to standard error.
        unsafe { libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
        // SAFETY: abort takes nothing and does not return.
        unsafe { libc::abort() };
    }
}

// SAFETY: every call is forwarded unchanged to an allocator that upholds the contract.
unsafe impl GlobalAlloc for Guard {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { Heap.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { Heap.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check();
        // SAFETY: `ptr` came from `alloc` above, that is from [`Heap`], and `size` is the caller's promise.
        unsafe { Heap.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `alloc` above, that is from [`Heap`].
        unsafe { Heap.dealloc(ptr, layout) }
    }
}
