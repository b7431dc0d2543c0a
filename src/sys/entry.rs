//! The first steps of the process, in place of those of Rust's runtime.
//!
//! That also looks for the bounds of the stack in /proc/self/maps and gives the handler that tells of
//! its overflow a stack of its own: twenty system calls, as many as all of `state` needs besides.
//! What a program relies on is kept: open standard streams, and no death by SIGPIPE.

use std::io::Write;

use libc::c_int;

/// Makes `$main`, a function without arguments that gives the exit code, the program's `main`.
///
/// For a crate with `#![no_main]`. `std::env::args_os` works: glibc hands the arguments to Rust's
/// start-up function, which is not part of its `main`.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // SAFETY: no other `main` exists in a crate without one.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn main() -> std::ffi::c_int {
            $crate::sys::entry::prepare();
            let code: u8 = $main();
            $crate::sys::entry::leave(code)
        }
    };
}

/// Before anything is opened or written.
pub fn prepare() {
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

/// Ends the process. Nothing is freed or closed: the kernel does that faster.
pub fn leave(code: u8) -> ! {
    // Nothing is left to report a failure to.
    let _ = std::io::stdout().flush();
    // SAFETY: it takes a number and does not return; there are no other threads.
    unsafe { libc::_exit(c_int::from(code)) }
}
