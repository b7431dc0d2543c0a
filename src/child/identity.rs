//! Who the program runs as, where, and which file it is.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};

use super::report::{At, Fault, Report};
use crate::plan::process::Process;
use crate::plan::seccomp::Filter;
use crate::plan::{Plan, Step};
use crate::sys::{Errno, caps, fd, mount, path, proc, seccomp, tty};

/// Takes on the program's ids, capabilities and working directory.
///
/// The bounding set needs `CAP_SETPCAP` and the groups `CAP_SETGID`, so the user id comes after
/// both; `PR_SET_KEEPCAPS` carries the permitted set over it.
pub fn assume(plan: &Plan) -> Result<(), Fault> {
    let process = &plan.process;
    if let Some(sets) = &process.caps {
        caps::limit_bounding(sets.bounding).at(Step::Bounding, 0)?;
    }
    hand_over_stdio(process.uid).at(Step::Stdio, 0)?;
    if !plan.keeps_groups {
        match proc::set_groups(&process.groups) {
            Err(Errno::EPERM) if plan.may_lack_groups => {}
            other => other.at(Step::Groups, 0)?,
        }
    }
    // Root may enter where the user may not, and the reverse on a network file system.
    let early = nix::unistd::chdir(process.cwd.as_c_str());
    // Who stays root loses none by it.
    let keeps = process.caps.is_some() && process.uid != 0;
    if keeps {
        proc::set_keep_capabilities(true).at(Step::Uid, 0)?;
    }
    proc::set_gid(process.gid).at(Step::Gid, 0)?;
    proc::set_uid(process.uid).at(Step::Uid, 0)?;
    match early {
        Err(Errno::EACCES | Errno::EPERM) => {
            nix::unistd::chdir(process.cwd.as_c_str()).at(Step::ChangeDirectory, 0)?;
        }
        other => other.at(Step::ChangeDirectory, 0)?,
    }
    check_working_directory()?;
    nix::sys::stat::umask(Mode::from_bits_truncate(process.umask));
    if let Some(sets) = &process.caps {
        let permitted = sets.permitted | plan.borrowed();
        caps::set(sets.effective, permitted, sets.inheritable).at(Step::Capabilities, 0)?;
        if keeps {
            proc::set_keep_capabilities(false).at(Step::Capabilities, 0)?;
        }
        // What cannot be raised is left out with a warning, see `validate`; and kernels can be told
        // (PR_SET_SECUREBITS) to raise nothing.
        let _ = caps::set_ambient(sets.ambient & permitted & sets.inheritable);
    }
    Ok(())
}

/// Loads the seccomp filter, as the last thing before execve: the later, the fewer system calls a
/// profile must allow for keel's own sake. Without no_new_privs only capset(2) follows.
///
/// A profile with a listener is loaded already: see [`hand_over_listener`].
pub fn confine(plan: &Plan) -> Result<(), Fault> {
    match &plan.seccomp {
        Some(filter) if filter.listener.is_none() && !filter.first => load(plan, filter).map(drop),
        _ => Ok(()),
    }
}

/// Loads the filter at once, if this process may not keep the capability for it any longer.
pub fn confine_first(plan: &Plan) -> Result<Option<OwnedFd>, Fault> {
    match &plan.seccomp {
        Some(filter) if filter.first => load(plan, filter),
        _ => Ok(None),
    }
}

/// Loads a filter whose notifications somebody answers, and tells the runtime the descriptor's
/// number. The agent has it before this process can need an answer: what tells is write(2), the one
/// call that a profile may not send to the agent. `early` is the one of a filter that is loaded.
pub fn hand_over_listener(
    plan: &Plan,
    early: Option<OwnedFd>,
    report: &Report,
) -> Result<(), Fault> {
    let Some(filter) = plan
        .seccomp
        .as_ref()
        .filter(|filter| filter.listener.is_some())
    else {
        return Ok(());
    };
    let listener = match early {
        Some(listener) => Some(listener),
        None => load(plan, filter)?,
    };
    let Some(listener) = listener else {
        return Err(Errno::EBADF).at(Step::SeccompListener, 0);
    };
    report.tell(Step::SeccompListener, 0, listener.as_raw_fd())?;
    // The runtime copies it while this process waits; execve closes it.
    std::mem::forget(listener);
    Ok(())
}

/// Loads `filter`, where it takes `CAP_SYS_ADMIN` with that for the moment.
fn load(plan: &Plan, filter: &Filter) -> Result<Option<OwnedFd>, Fault> {
    let load = || seccomp::load(&filter.program, filter.flags).at(Step::Seccomp, 0);
    match &plan.process.caps {
        Some(sets) if plan.borrowed() & !sets.effective != 0 => {
            let (more, permitted) = (
                sets.effective | caps::SYS_ADMIN,
                sets.permitted | caps::SYS_ADMIN,
            );
            caps::set(more, permitted, sets.inheritable).at(Step::Seccomp, 0)?;
            let listener = load()?;
            caps::set(sets.effective, sets.permitted, sets.inheritable).at(Step::Seccomp, 0)?;
            Ok(listener)
        }
        _ => load(),
    }
}

/// A working directory that the kernel cannot name from the root lies outside it (CVE-2024-21626).
fn check_working_directory() -> Result<(), Fault> {
    let mut buffer = [0; libc::PATH_MAX as usize];
    match path::working_directory(&mut buffer) {
        Ok(name) if name.first() == Some(&b'/') => Ok(()),
        Ok(_) | Err(Errno::ENOENT) => Err(Errno::EPERM).at(Step::OutsideRoot, 0),
        // A directory nested deeper than PATH_MAX is inside all the same.
        Err(Errno::ERANGE | Errno::ENAMETOOLONG) => Ok(()),
        Err(errno) => Err(errno).at(Step::OutsideRoot, 0),
    }
}

/// Gives pipes, sockets and terminals among the standard streams to the program's user, so that it
/// can open them again through `/dev/stdout`; files and devices of the host keep their owner. The
/// group stays, as in runc: that of a terminal is what its devpts says.
fn hand_over_stdio(uid: u32) -> Result<(), Errno> {
    for stream in 0..=2 {
        let stream = fd::borrow(stream);
        let Ok(stat) = nix::sys::stat::fstat(stream) else {
            continue;
        };
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        if kind == SFlag::S_IFCHR && stat.st_rdev == libc::makedev(1, 3) {
            replace_null(stream);
            continue;
        }
        let is_tty = kind == SFlag::S_IFCHR && libc::major(stat.st_rdev) == PTY_SLAVE_MAJOR;
        let ours = is_tty || kind == SFlag::S_IFIFO || kind == SFlag::S_IFSOCK;
        if !ours || stat.st_uid == uid {
            continue;
        }
        match nix::unistd::fchown(stream, Some(nix::unistd::Uid::from_raw(uid)), None) {
            // Not ours to give, or on a read-only mount: the stream works all the same.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Puts the container's own `/dev/null` in the place of the host's: a file of the host keeps CRIU from
/// saving the process. Where the container has none, the host's does no harm.
fn replace_null(stream: std::os::fd::BorrowedFd<'_>) {
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let Ok(null) = nix::fcntl::open(c"/dev/null", flags, Mode::empty()) else {
        return;
    };
    if is_char_device(null.as_fd(), 1, 3) {
        let _ = tty::make_stdio(null.as_fd(), stream.as_raw_fd());
    }
}

/// `/dev/pts/N`: `UNIX98_PTY_SLAVE_MAJOR` of linux/major.h.
const PTY_SLAVE_MAJOR: u32 = 136;

/// Which of the candidates is the program: the first that this user may execute.
///
/// Fails as execve would, but already on create: `ENOENT`, `EACCES`, or `EISDIR`.
pub fn look_up(plan: &Plan) -> Result<usize, Fault> {
    let candidates = &plan.process.candidates;
    let searching =
        candidates.len() != 1 || plan.process.args.strings().first() != candidates.first();
    for (index, candidate) in candidates.iter().enumerate() {
        match executable(candidate) {
            Ok(()) => return Ok(index),
            Err(_) if searching => {}
            Err(errno) => return Err(errno).at(Step::LookUp, 0),
        }
    }
    Err(Errno::ENOENT).at(Step::LookUp, 0)
}

fn executable(candidate: &CStr) -> Result<(), Errno> {
    let stat = nix::sys::stat::stat(candidate)?;
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => Err(Errno::EISDIR),
        _ if stat.st_mode & 0o111 == 0 => Err(Errno::EACCES),
        _ => path::may_execute(candidate),
    }
}

/// The `HOME=` entry of the environment, built on the stack.
pub struct Home {
    text: path::Text,
}

/// How much of a passwd file is read, and how long one of its lines may be (CVE-2026-47262).
const PASSWD_MAX: usize = 10 << 20;
const LINE_MAX: usize = 4096;

impl Home {
    pub const fn new() -> Self {
        Self {
            text: path::Text::new(),
        }
    }

    /// The entry, if the environment has none: the home of the user in the container's
    /// `/etc/passwd`, else `/`.
    pub fn entry(&mut self, process: &Process) -> Result<Option<&CStr>, Fault> {
        if !process.needs_home {
            return Ok(None);
        }
        let mut line = [0; LINE_MAX];
        let home = home_of(process.uid, &mut line).unwrap_or(b"/");
        self.text.set(&[b"HOME=", home]).map(Some).at(Step::Home, 0)
    }
}

/// The sixth field of the line whose third is `uid`. Man page: passwd(5).
fn home_of(uid: u32, line: &mut [u8; LINE_MAX]) -> Option<&[u8]> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = nix::fcntl::open(c"/etc/passwd", flags, Mode::empty()).ok()?;
    if path::kind_of(file.as_fd()).ok()? != SFlag::S_IFREG {
        return None;
    }
    let mut block = [0; 4096];
    let (mut len, mut total, mut too_long) = (0, 0, false);
    let found = 'file: loop {
        let count = nix::unistd::read(&file, &mut block).ok()?;
        total += count;
        if count == 0 || total > PASSWD_MAX {
            break 'file (!too_long && is_of(uid, &line[..len])).then_some(len);
        }
        for byte in &block[..count] {
            match *byte {
                b'\n' if !too_long && is_of(uid, &line[..len]) => break 'file Some(len),
                b'\n' => (len, too_long) = (0, false),
                _ if len == LINE_MAX => too_long = true,
                byte => {
                    line[len] = byte;
                    len += 1;
                }
            }
        }
    };
    let home = line[..found?].split(|byte| *byte == b':').nth(5)?;
    (!home.is_empty()).then_some(home)
}

fn is_of(uid: u32, line: &[u8]) -> bool {
    let mut digits = [0; 20];
    let wanted = path::decimal(&mut digits, uid.into());
    line.split(|byte| *byte == b':').nth(2) == Some(wanted)
}

/// Whether `fd` is a character device with this number, and not something else in its place.
pub fn is_char_device(fd: std::os::fd::BorrowedFd<'_>, major: u32, minor: u32) -> bool {
    let stat = nix::sys::stat::fstat(fd);
    stat.is_ok_and(|stat| {
        stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits()
            && stat.st_rdev == libc::makedev(major, minor)
    })
}

/// Whether `fd` lies on a file system with this magic number.
pub fn is_on(fd: std::os::fd::BorrowedFd<'_>, magic: i64) -> bool {
    mount::fs_magic(fd) == Ok(magic)
}
