//! The system calls that no safe crate in use offers: the only unsafe code of the harness.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};

/// The controlling terminal of a new process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Session {
    /// The session of the test.
    Inherited,
    /// A new session whose controlling terminal is the process's stdin.
    OnStdin,
}

/// Descriptors below this number are where `fds` of [`spawn`] go; they must fit.
const FDS_END: RawFd = 64;

/// Starts `command` with `fds` as its descriptors 3, 4, … and nothing else above stderr.
///
/// # Errors
/// What the system says about fork, exec or the descriptors.
pub fn spawn(command: &mut Command, fds: &[OwnedFd], session: Session) -> io::Result<Child> {
    let mut high = Vec::new();
    for fd in fds {
        // SAFETY: `fd` is open for the whole call; the new descriptor is owned by nobody else.
        let copy = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, FDS_END) })?;
        // SAFETY: fcntl has just returned this descriptor, and it is wrapped once.
        high.push(unsafe { OwnedFd::from_raw_fd(copy) });
    }
    let sources: Vec<RawFd> = high.iter().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: the closure makes system calls on integers only: no allocation, no locks.
    unsafe { command.pre_exec(move || arrange_descriptors(&sources, session)) };
    command.spawn()
}

/// Runs in the forked child: puts `sources` at 3, 4, …, marks the rest close-on-exec.
fn arrange_descriptors(sources: &[RawFd], session: Session) -> io::Result<()> {
    let mut next = 3;
    for source in sources {
        // SAFETY: dup2 on descriptor numbers; whatever `next` was before belongs to this child.
        check(unsafe { libc::dup2(*source, next) })?;
        next += 1;
    }
    let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
    // SAFETY: only changes a flag of this child's descriptors.
    check(unsafe { libc::close_range(next as libc::c_uint, libc::c_uint::MAX, flags) })?;
    if session == Session::OnStdin {
        // SAFETY: no memory is involved.
        check(unsafe { libc::setsid() })?;
        // SAFETY: TIOCSCTTY takes an integer argument.
        check(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
    }
    Ok(())
}

/// Starts `command` as a process that the caller traces; it stops once it has executed its program.
/// It does not outlive the caller. Man page: ptrace(2), PTRACE_TRACEME.
///
/// # Errors
/// What the system says about fork, exec or ptrace.
pub fn spawn_traced(command: &mut Command) -> io::Result<Child> {
    let trace_me = || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        Ok(nix::sys::ptrace::traceme()?)
    };
    // SAFETY: the closure makes two system calls: no allocation, no locks.
    unsafe { command.pre_exec(trace_me) };
    command.spawn()
}

/// A pidfd: poll(2) says it is readable when the process is over. Man page: pidfd_open(2).
///
/// # Errors
/// `ESRCH` if there is no such process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: two integers go in, a descriptor comes out.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = check(i32::try_from(fd).expect("a descriptor fits an int"))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Rows and columns of a terminal. Man page: ioctl_tty(2), TIOCGWINSZ.
///
/// # Errors
/// `ENOTTY` if `terminal` is none.
pub fn window_size(terminal: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    // SAFETY: winsize is plain integers, for which zero is a value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one winsize to the pointer, which lives for the call.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

/// Sets rows and columns; the foreground process group gets SIGWINCH if they change.
///
/// # Errors
/// `ENOTTY` if `terminal` is none.
pub fn set_window_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel reads one winsize from the pointer, which lives for the call.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}

/// A process's I/O scheduling class and priority. Man page: ioprio_get(2).
///
/// # Errors
/// `ESRCH` if there is no such process.
pub fn io_priority(pid: i32) -> io::Result<(i64, i64)> {
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_SHIFT: i64 = 13;
    // SAFETY: integers only.
    let value = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, pid) };
    if value < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((value >> CLASS_SHIFT, value & ((1 << CLASS_SHIFT) - 1)))
}

/// A process's scheduling attributes, in the units of sched_setattr(2).
///
/// # Errors
/// `ESRCH` if there is no such process.
pub fn scheduler(pid: i32) -> io::Result<libc::sched_attr> {
    // SAFETY: sched_attr is plain integers, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>();
    // SAFETY: the kernel writes at most `size` bytes to the structure, which lives for the call.
    let ret = unsafe { libc::syscall(libc::SYS_sched_getattr, pid, &raw mut attributes, size, 0) };
    check(i32::try_from(ret).expect("sched_getattr returns zero or -1"))?;
    Ok(attributes)
}

/// Answers system calls in place of the kernel in this process and its children: each number with its
/// errno, 0 for success.
///
/// Needs CAP_SYS_ADMIN, and so leaves no_new_privs alone. Man page: seccomp(2).
///
/// # Errors
/// What prctl says.
pub fn answer_system_calls(answers: &[(libc::c_long, libc::c_int)]) -> io::Result<()> {
    let filter = answering_filter(answers);
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).expect("a handful of instructions"),
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which lives for the call, and writes nothing.
    let ret = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    check(ret).map(drop)
}

/// Classic BPF: load the number, compare with each, allow the rest.
fn answering_filter(answers: &[(libc::c_long, libc::c_int)]) -> Vec<libc::sock_filter> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    // `nr` is the first member of struct seccomp_data.
    let mut filter = vec![step(LOAD, 0, 0, 0)];
    for (number, errno) in answers {
        let number = u32::try_from(*number).expect("system call numbers are small");
        filter.push(step(EQUAL, number, 0, 1));
        let answer = libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
        filter.push(step(RETURN, answer, 0, 0));
    }
    filter.push(step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    filter
}

fn check(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ret)
}

/// Receives one message of at most 4096 bytes and the descriptors that came with it.
///
/// # Errors
/// What recvmsg(2) says.
pub fn receive(stream: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut payload = vec![0; 4096];
    let mut control = cmsg_space!([RawFd; 4]);
    let mut slices = [IoSliceMut::new(&mut payload)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            // SAFETY: SCM_RIGHTS makes new descriptors in the receiver that nobody else knows of.
            descriptors.extend(
                fds.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    let length = message.bytes;
    payload.truncate(length);
    Ok((payload, descriptors))
}

/// Waits for a system call that is to be answered through this listener of seccomp; its id.
///
/// # Errors
/// What seccomp_unotify(2) says.
pub fn receive_notification(listener: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: the structure is integers, and all zeros is what the kernel asks for.
    let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes a whole `seccomp_notif` to the pointer, which is valid for the call.
    check(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut notification,
        )
    })?;
    Ok(notification.id)
}

/// Whether the process still waits for an answer to this system call.
pub fn waits_for_answer(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads the eight bytes of `id`, which lives for the call.
    let ret = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
            &raw const id,
        )
    };
    ret == 0
}

/// Lets the kernel make the system call.
///
/// # Errors
/// What seccomp_unotify(2) says.
pub fn let_it_call(listener: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    let answer = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: 0,
        flags: u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).expect("one bit"),
    };
    // SAFETY: the kernel reads `answer`, which lives for the call.
    check(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw const answer,
        )
    })
    .map(drop)
}

/// The process that a pidfd stands for, from `/proc/thread-self/fdinfo`.
///
/// # Panics
/// If it is no pidfd.
pub fn pid_of(pidfd: &OwnedFd) -> i32 {
    let path = format!("/proc/thread-self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(path).expect("the descriptor is open");
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    let pid = pid.expect("only a pidfd has a Pid line");
    pid.trim().parse().expect("a number")
}

/// The calling thread's memory policy: its mode (with flags) and the first 64 nodes as a mask.
///
/// # Errors
/// What get_mempolicy(2) says.
pub fn memory_policy() -> io::Result<(i32, u64)> {
    let (mut mode, mut nodes) = (0_i32, [0_u64; 16]);
    let bits = nodes.len() * 64;
    // SAFETY: the kernel writes one int and at most `bits` bits to places that live for the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut mode,
            nodes.as_mut_ptr(),
            bits,
            0,
            0,
        )
    };
    check(i32::try_from(ret).expect("get_mempolicy returns zero or -1"))?;
    Ok((mode, nodes[0]))
}

/// Maps that many bytes of huge pages of 2 MiB, and writes to each.
///
/// # Errors
/// What mmap(2) says: `ENOMEM` if there are not as many, or a limit forbids it.
pub fn use_huge_pages(bytes: usize) -> io::Result<()> {
    let (access, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
    );
    // SAFETY: a new mapping, at a place that the kernel chooses; nobody else has it.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is `bytes` long and writable; it lasts as long as the process.
    unsafe { std::ptr::write_bytes(start.cast::<u8>(), 1, bytes) };
    Ok(())
}

/// Asks a `/dev/infiniband/uverbs` for a new object; its handle, or what the kernel answers instead.
///
/// # Errors
/// What the kernel says: `EAGAIN` at the limit of the cgroup.
pub fn make_verbs_object(device: &File, object: VerbsObject) -> io::Result<u32> {
    /// `struct ib_uverbs_cmd_hdr` and `struct ib_uverbs_get_context` or `ib_uverbs_alloc_pd`: ib_user_verbs.h.
    #[repr(C)]
    struct Request {
        command: u32,
        request_words: u16,
        answer_words: u16,
        answer: u64,
    }
    let mut answer = [0_u32; 2];
    let request = Request {
        command: object as u32,
        request_words: 4,
        answer_words: match object {
            VerbsObject::Context => 2,
            VerbsObject::Domain => 1,
        },
        answer: answer.as_mut_ptr() as u64,
    };
    let (start, size) = ((&raw const request).cast(), size_of::<Request>());
    // SAFETY: the request is `size` bytes without padding; the kernel writes at most the promised
    // words to `answer`, which is as long and lives for the call.
    let written = unsafe { libc::write(device.as_raw_fd(), start, size) };
    match written {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(answer[0]),
    }
}

/// What [`make_verbs_object`] makes: the commands of ib_user_verbs.h.
#[derive(Clone, Copy)]
pub enum VerbsObject {
    /// What every program needs first, once for each time that it opens the device: a "handle".
    Context = 0,
    /// A protection domain, one of the "objects".
    Domain = 3,
}

/// Makes the calling thread a real-time one of the lowest priority.
///
/// # Errors
/// What sched_setscheduler(2) says: `EPERM` also if the cgroup (v1) has no real-time share.
pub fn become_real_time() -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 1 };
    // SAFETY: `param` is initialised and lives for the call, which only reads it.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) }).map(drop)
}

/// The description of the session keyring: type;uid;gid;permissions;name.
///
/// # Errors
/// What keyctl(2) says.
pub fn session_keyring() -> io::Result<String> {
    ask_of_session_keyring(libc::KEYCTL_DESCRIBE)
}

/// The label that an LSM has given to the session keyring.
///
/// # Errors
/// What keyctl(2) says.
pub fn label_of_session_keyring() -> io::Result<String> {
    ask_of_session_keyring(libc::KEYCTL_GET_SECURITY)
}

fn ask_of_session_keyring(question: u32) -> io::Result<String> {
    const SESSION: i32 = -3;
    let mut text = [0_u8; 256];
    // SAFETY: the kernel writes at most `text.len()` bytes to `text`, which lives for the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            question,
            SESSION,
            text.as_mut_ptr(),
            text.len(),
        )
    };
    let length = check(i32::try_from(ret).expect("a short description"))?;
    let length = usize::try_from(length)
        .expect("not negative")
        .saturating_sub(1);
    Ok(String::from_utf8_lossy(&text[..length.min(text.len())]).into_owned())
}

/// What a program has cost. Man page: getrusage(2), by wait4.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Its exit code, or -1 if a signal killed it.
    pub code: i32,
    /// User and system time, in microseconds.
    pub cpu_usec: i64,
}

/// Runs a command with its streams at `/dev/null` and says what it has cost.
///
/// # Errors
/// If it cannot be started.
pub fn usage_of(command: &mut Command) -> io::Result<Usage> {
    use std::process::Stdio;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).expect("a pid fits an int");
    let mut status = 0;
    // SAFETY: rusage is plain integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one int and one rusage to places that live for the call.
    check(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) })?;
    let usec = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    Ok(Usage {
        code: if libc::WIFEXITED(status) {
            libc::WEXITSTATUS(status)
        } else {
            -1
        },
        cpu_usec: usec(usage.ru_utime) + usec(usage.ru_stime),
    })
}

/// Puts `text` into the input of the terminal on standard input. Man page: ioctl_tty(2), TIOCSTI.
///
/// # Errors
/// `EPERM` unless it is the controlling terminal, `ENOTTY` if it is none.
pub fn type_into_terminal(text: &[u8]) -> io::Result<()> {
    for byte in text {
        // SAFETY: the kernel reads one byte from the pointer, which lives for the call.
        check(unsafe { libc::ioctl(0, libc::TIOCSTI, std::ptr::from_ref(byte)) })?;
    }
    Ok(())
}

/// Makes a system call without arguments that mean anything; its errno, 0 if it succeeds.
pub fn errno_of(number: libc::c_long) -> i32 {
    // SAFETY: no number that the tests use reads or writes memory of these null arguments.
    let ret = unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
    match ret {
        -1 => io::Error::last_os_error().raw_os_error().unwrap_or(0),
        _ => 0,
    }
}

/// mkdir(2) by the ABI `native`, `x32` or `i386`, where the machine has it.
///
/// # Errors
/// The errno of the call; `ENOSYS` for an ABI that is not there.
#[cfg(target_arch = "x86_64")]
pub fn mkdir_by(abi: &str, path: &str) -> io::Result<()> {
    const X32_BIT: i64 = 0x4000_0000;
    const I386_MKDIR: i32 = 39;
    let path = std::ffi::CString::new(path)?;
    let bytes = path.as_bytes_with_nul();
    // SAFETY: a new mapping of our own, below 2 GiB so that 32-bit calls can name it.
    let low = unsafe {
        let (access, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
        );
        libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0)
    };
    if low == libc::MAP_FAILED || bytes.len() > 4096 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is writable and longer than the path.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), low.cast(), bytes.len()) };
    let ret = match abi {
        // SAFETY: a C string and a mode.
        "native" => unsafe { libc::syscall(libc::SYS_mkdir, low, 0o755) },
        // SAFETY: as above; a kernel without x32 knows no such number.
        "x32" => unsafe { libc::syscall(libc::SYS_mkdir | X32_BIT, low, 0o755) },
        _ => {
            let mut result = I386_MKDIR;
            // SAFETY: rbx is saved around the call, which reads a C string at a 32-bit address and
            // changes no other register than rax.
            unsafe {
                std::arch::asm!(
                    "xchg rbx, {path}",
                    "int 0x80",
                    "xchg rbx, {path}",
                    path = inout(reg) low as u64 => _,
                    inout("eax") result,
                    in("ecx") 0o755,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                );
            }
            if result < 0 {
                return Err(io::Error::from_raw_os_error(-result));
            }
            0
        }
    };
    match ret {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
