//! `fake-enosys NAME[,NAME…] PROGRAM [ARG…]`: runs a program as on a kernel without these calls.
//! `NAME=0` is a call that is answered with success and not made.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use integration::sys;

/// The system calls that keel may meet a kernel without, and the first kernel that has each; and those
/// by which it confines.
const CALLS: &[(&str, libc::c_long)] = &[
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal), // 5.1
    ("open_tree", libc::SYS_open_tree),                 // 5.2
    ("move_mount", libc::SYS_move_mount),               // 5.2
    ("fsopen", libc::SYS_fsopen),                       // 5.2
    ("fsmount", libc::SYS_fsmount),                     // 5.2
    ("fspick", libc::SYS_fspick),                       // 5.2
    ("pidfd_open", libc::SYS_pidfd_open),               // 5.3
    ("clone3", libc::SYS_clone3),                       // 5.3
    ("openat2", libc::SYS_openat2),                     // 5.6
    ("pidfd_getfd", libc::SYS_pidfd_getfd),             // 5.6
    ("faccessat2", libc::SYS_faccessat2),               // 5.8
    ("close_range", libc::SYS_close_range),             // 5.9
    ("mount_setattr", libc::SYS_mount_setattr),         // 5.12
    ("memfd_create", libc::SYS_memfd_create),           // 3.17
    ("seccomp", libc::SYS_seccomp),                     // 3.17
    ("prctl", libc::SYS_prctl),
    ("capset", libc::SYS_capset),
    ("setresuid", libc::SYS_setresuid),
    ("setresgid", libc::SYS_setresgid),
];

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(names), Some(program)) = (args.next(), args.next()) else {
        return complain("usage: fake-enosys NAME[,NAME...] PROGRAM [ARG...]");
    };
    let mut answers = Vec::new();
    for name in names
        .to_string_lossy()
        .split(',')
        .filter(|name| !name.is_empty())
    {
        let (call, errno) = match name.strip_suffix("=0") {
            Some(call) => (call, 0),
            None => (name, libc::ENOSYS),
        };
        match CALLS.iter().find(|(known, _)| *known == call) {
            Some((_, number)) => answers.push((*number, errno)),
            None => return complain(&format!("fake-enosys: unknown system call {name}")),
        }
    }
    if let Err(error) = sys::answer_system_calls(&answers) {
        return complain(&format!("fake-enosys: cannot install the filter: {error}"));
    }
    let error = Command::new(&program).args(args).exec();
    complain(&format!("fake-enosys: {}: {error}", program.display()))
}

fn complain(line: &str) -> ExitCode {
    use std::io::Write;
    // There is nobody left to tell if stderr is gone.
    let _ = writeln!(std::io::stderr(), "{line}");
    ExitCode::from(125)
}
