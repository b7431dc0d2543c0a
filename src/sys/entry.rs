//! The first steps of the process, in place of those of Rust's runtime.
//!
//! That also looks for the bounds of the stack in /proc/self/maps and gives the handler that tells of
//! its overflow a stack of its own: twenty system calls, as many as all of `state` needs besides.
//! What a program relies on is kept: open standard streams, and no death by SIGPIPE.

use std::ffi::{CStr, OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_char, c_int};

/// Makes `$main`, a function of the command line that gives the exit code, the program's `main`.
///
/// For a crate with `#![no_main]`. `std::env::args_os` is no way to that line: with musl, Rust has it
/// from the start-up that is left out here.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // SAFETY: no other `main` exists in a crate without one.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn main(
            _: std::ffi::c_int,
            argv: *const *const std::ffi::c_char,
        ) -> std::ffi::c_int {
            $crate::sys::entry::prepare();
            // SAFETY: it is what the C library calls `main` with.
            let code: u8 = $main(unsafe { $crate::sys::entry::arguments(argv) });
            $crate::sys::entry::leave(code)
        }

        // What Rust's library for glibc asks of glibc alone, or of musl by another name.
        #[cfg(all(keel_musl, target_env = "gnu"))]
        mod glibc {
            /// open(2) for keel: after `O_CLOEXEC` musl's own asks for close-on-exec again, by fcntl(2),
            /// for Linux before 2.6.23.
            // SAFETY: it has the prototype of fcntl.h but for the mode, which is passed as a fixed
            // argument is, and not looked at unless a file is made.
            #[allow(unsafe_code)]
            #[unsafe(no_mangle)]
            extern "C" fn open(
                path: *const std::ffi::c_char,
                flags: std::ffi::c_int,
                mode: std::ffi::c_uint,
            ) -> std::ffi::c_int {
                // SAFETY: the caller's promise about `path` is passed on.
                unsafe { $crate::sys::entry::open(path, flags, mode) }
            }

            /// open(2) for Rust's library.
            // SAFETY: as `open`.
            #[allow(unsafe_code)]
            #[unsafe(no_mangle)]
            extern "C" fn open64(
                path: *const std::ffi::c_char,
                flags: std::ffi::c_int,
                mode: std::ffi::c_uint,
            ) -> std::ffi::c_int {
                open(path, flags, mode)
            }

            /// Since 2.24 posix_spawn(3) tells of an execve that failed; musl's always has.
            // SAFETY: it has the prototype of gnu/libc-version.h, and musl has no such function.
            #[allow(unsafe_code)]
            #[unsafe(no_mangle)]
            extern "C" fn gnu_get_libc_version() -> *const std::ffi::c_char {
                c"2.24".as_ptr()
            }

            /// "Not found": libgcc's unwinder then looks itself, by dl_iterate_phdr(3).
            // SAFETY: it has the prototype of dlfcn.h, and musl has no such function.
            #[allow(unsafe_code)]
            #[unsafe(no_mangle)]
            extern "C" fn _dl_find_object(
                _: *mut std::ffi::c_void,
                _: *mut std::ffi::c_void,
            ) -> std::ffi::c_int {
                -1
            }
        }
    };
}

/// Before anything is opened or written.
pub fn prepare() {
    // glibc's start-up has done so; musl leaves it to a dynamic linker. keel works without, too.
    #[cfg(any(keel_musl, target_env = "musl"))]
    let _ = super::exe::protect_constants();
    // A descriptor that is opened as number 0 to 2 would be taken for a standard stream.
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    });
    // SAFETY: the array and its length; the kernel writes `revents` alone.
    let answer = unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) };
    if answer != 0 {
        for stream in streams.iter().filter(|s| s.revents & libc::POLLNVAL != 0) {
            // SAFETY: a static path and flags. The lowest free number is the one that is missing.
            let fd = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
            if fd != stream.fd {
                // SAFETY: abort takes nothing and does not return.
                unsafe { libc::abort() };
            }
        }
    }
    // SAFETY: to ignore a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// open(2) by openat(2), which is one system call in musl, too.
///
/// # Safety
/// `path` is a string of C.
#[cfg(all(keel_musl, target_env = "gnu"))]
pub unsafe fn open(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { libc::openat(libc::AT_FDCWD, path, flags, mode) }
}

static COMMAND_LINE: AtomicPtr<*const c_char> = AtomicPtr::new(ptr::null_mut());

/// What `main` got; null if [`entry!`](crate::entry) did not make it.
pub fn command_line() -> *const *const c_char {
    COMMAND_LINE.load(Ordering::Relaxed)
}

/// The command line, the program's name first.
///
/// # Safety
/// `argv` is the argument of `main`: strings that nobody changes, and a null pointer after the last.
pub unsafe fn arguments(argv: *const *const c_char) -> Vec<OsString> {
    COMMAND_LINE.store(argv.cast_mut(), Ordering::Relaxed);
    (0..)
        // SAFETY: nothing beyond the null pointer is looked at.
        .map(|index| unsafe { *argv.add(index) })
        .take_while(|argument| !argument.is_null())
        .map(|argument| {
            // SAFETY: it is a string of C, and is there as long as the process.
            let bytes = unsafe { CStr::from_ptr(argument) }.to_bytes();
            OsStr::from_bytes(bytes).to_owned()
        })
        .collect()
}

/// Ends the process. Nothing is freed or closed: the kernel does that faster.
pub fn leave(code: u8) -> ! {
    // Nothing is left to report a failure to.
    let _ = std::io::stdout().flush();
    // SAFETY: it takes a number and does not return; there are no other threads.
    unsafe { libc::_exit(c_int::from(code)) }
}
