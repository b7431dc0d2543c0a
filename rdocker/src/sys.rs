//! What neither std, nix nor rustix wrap safely: all of rdocker's `unsafe` is here.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lets a program have stdin, stdout and stderr, and no other descriptor of this process.
pub fn close_in_child(command: &mut Command) {
    let close = || {
        // SAFETY: the call takes three numbers and touches no memory. Close-on-exec is enough, for
        // execve(2) follows at once; std's own pipe to the parent is so marked already.
        match unsafe {
            libc::syscall(
                libc::SYS_close_range,
                3,
                u32::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and execve only that system call is made: signal-safety(7).
    unsafe { command.pre_exec(close) };
}

/// Gives back free pages of the heap, and program text that comes from its file again when it runs.
///
/// A monitor starts as the whole program does, and then waits in one loop for days. What it touched
/// on the way counts as its own until somebody says that it is not needed.
pub fn give_back() {
    let text = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for range in untouched(&text) {
        let (start, length) = (range.start as *mut libc::c_void, range.len());
        // SAFETY: the range is one private mapping of a file that cannot be written to and has no
        // page of its own, so every page is the file's; dropping them changes no byte of memory,
        // the next access maps the same page again: madvise(2), MADV_DONTNEED.
        unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) };
    }
    drop(text);
    // SAFETY: it takes the allocator's own locks and gives back pages that hold no allocation.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// The mappings in proc_pid_smaps(5) whose pages are all those of a file.
///
/// What the loader relocated is read-only as well, but has pages of its own: `Anonymous`.
fn untouched(smaps: &str) -> Vec<Range<usize>> {
    let mut list = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), candidate.clone()) {
            (Some("Anonymous:"), Some(range)) => {
                if words.next() == Some("0") {
                    list.push(range);
                }
                candidate = None;
            }
            (Some(key), _) if key.ends_with(':') => {}
            _ => candidate = private_file(line),
        }
    }
    list
}

/// The addresses of a mapping's first line, if it is a private one of a file, not writable.
fn private_file(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let mode = words.next()?;
    let path = words.nth(3)?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let is_file = path.starts_with('/');
    let range = address(start)?..address(end)?;
    (is_file && mode.starts_with('r') && !mode.contains('w') && mode.ends_with('p'))
        .then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_are_a_files_are_given_back() {
        let mapping = |head: &str, anonymous: u32| {
            format!("{head}\nRss: 8 kB\nAnonymous: {anonymous} kB\nVmFlags: rd mr\n")
        };
        let smaps = [
            mapping("1000-2000 r-xp 00001000 fe:00 12 /usr/bin/rdocker", 0),
            mapping("2000-3000 r--p 00002000 fe:00 12 /usr/bin/rdocker", 4),
            mapping("3000-4000 rw-p 00003000 fe:00 12 /usr/bin/rdocker", 0),
            mapping("4000-5000 r--s 00000000 fe:00 13 /shared", 0),
            mapping("5000-6000 r--p 00000000 fe:00 14 /usr/bin/a b", 0),
            mapping("6000-7000 r--p 00000000 00:00 0", 0),
            mapping("7000-8000 r-xp 00000000 00:00 0 [vdso]", 0),
        ];
        assert_eq!(untouched(&smaps.concat()), [0x1000..0x2000, 0x5000..0x6000]);
    }

    #[test]
    fn a_process_goes_on_after_it_gave_back_its_text() {
        let before: Vec<u64> = (0..1000).collect();
        give_back();
        assert_eq!(before.iter().sum::<u64>(), 499_500);
        assert_eq!(format!("{:?}", &before[..2]), "[0, 1]");
    }
}
