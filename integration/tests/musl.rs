//! On Debian keel is linked with musl by a Rust that is made for glibc (build.rs): right as long as both
//! lay out alike what keel hands to the functions of `src/musl.functions`. Both follow the kernel and the
//! processor's ABI, and neither may change; here musl's headers are held against Rust's declarations.
#![cfg(target_arch = "x86_64")]

use std::fmt::Write;
use std::mem::offset_of;
use std::process::Command;

/// Debian's musl-dev.
const HEADERS: &str = "/usr/include/x86_64-linux-musl";

const INCLUDED: &[&str] = &[
    "dirent",
    "errno",
    "fcntl",
    "link",
    "poll",
    "pthread",
    "sched",
    "signal",
    "spawn",
    "stddef",
    "sys/auxv",
    "sys/eventfd",
    "sys/file",
    "sys/mman",
    "sys/mount",
    "sys/prctl",
    "sys/resource",
    "sys/signalfd",
    "sys/socket",
    "sys/stat",
    "sys/statfs",
    "sys/statvfs",
    "sys/uio",
    "sys/un",
    "sys/utsname",
    "sys/wait",
    "termios",
    "time",
    "unistd",
];

/// Expressions of C with the values that Rust has for them.
type Expected = Vec<(String, usize)>;

macro_rules! layouts {
    ($($rust:ident $c:literal { $($field:ident),* })*) => {{
        let mut expected = Expected::new();
        $(
            expected.push((format!("sizeof({})", $c), size_of::<libc::$rust>()));
            $(expected.push((
                format!("offsetof({}, {})", $c, stringify!($field)),
                offset_of!(libc::$rust, $field),
            ));)*
        )*
        expected
    }};
}

macro_rules! constants {
    ($($name:ident)*) => {
        vec![$((stringify!($name).to_owned(), libc::$name as usize)),*]
    };
}

/// What is wrong with the layouts, by the compiler's words; nothing if all is right.
fn differences(expected: &Expected) -> String {
    let mut source = String::from("#define _GNU_SOURCE\n");
    for header in INCLUDED {
        writeln!(source, "#include <{header}.h>").expect("a string grows");
    }
    for (expression, value) in expected {
        let assertion = format!("(unsigned)({expression}) == {}u", *value as u32);
        writeln!(source, "_Static_assert({assertion}, \"differs\");").expect("a string grows");
    }
    let dir = tempfile::tempdir().expect("the temporary directory is writable");
    let file = dir.path().join("layouts.c");
    std::fs::write(&file, source).expect("it is ours");
    let run = Command::new("cc")
        .args([
            "-fsyntax-only",
            "-fmax-errors=0",
            "-nostdinc",
            "-isystem",
            HEADERS,
        ])
        .arg(&file)
        .output()
        .expect("cc is installed");
    let words = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.success(), words.is_empty(), "{words}");
    words
}

#[test]
fn what_keel_hands_to_musl_is_laid_out_as_for_glibc() {
    let mut expected = layouts! {
        cmsghdr "struct cmsghdr" { cmsg_len, cmsg_level, cmsg_type }
        dirent64 "struct dirent" { d_ino, d_off, d_reclen, d_type, d_name }
        dl_phdr_info "struct dl_phdr_info" { dlpi_addr, dlpi_name, dlpi_phdr, dlpi_phnum, dlpi_adds }
        flock "struct flock" { l_type, l_whence, l_start, l_len, l_pid }
        iovec "struct iovec" { iov_base, iov_len }
        // The lengths have 32 bits in musl, which takes the rest as padding and clears it.
        msghdr "struct msghdr" {
            msg_name, msg_namelen, msg_iov, msg_iovlen, msg_control, msg_controllen, msg_flags
        }
        off64_t "off_t" {}
        pollfd "struct pollfd" { fd, events, revents }
        // Nobody but the C library looks into these.
        posix_spawn_file_actions_t "posix_spawn_file_actions_t" {}
        posix_spawnattr_t "posix_spawnattr_t" {}
        pthread_mutex_t "pthread_mutex_t" {}
        rlimit "struct rlimit" { rlim_cur, rlim_max }
        siginfo_t "siginfo_t" { si_signo, si_errno, si_code }
        signalfd_siginfo "struct signalfd_siginfo" { ssi_signo, ssi_pid, ssi_status }
        sigset_t "sigset_t" {}
        sockaddr_storage "struct sockaddr_storage" { ss_family }
        sockaddr_un "struct sockaddr_un" { sun_family, sun_path }
        socklen_t "socklen_t" {}
        stat64 "struct stat" {
            st_dev, st_ino, st_nlink, st_mode, st_uid, st_gid, st_rdev, st_size, st_blksize, st_blocks
        }
        statfs64 "struct statfs" {
            f_type, f_bsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, f_fsid, f_namelen, f_frsize,
            f_flags
        }
        statvfs64 "struct statvfs" {
            f_bsize, f_frsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, f_favail, f_fsid, f_flag,
            f_namemax
        }
        termios "struct termios" { c_iflag, c_oflag, c_cflag, c_lflag, c_line, c_cc }
        timespec "struct timespec" { tv_sec, tv_nsec }
        utsname "struct utsname" { sysname, nodename, release, version, machine, domainname }
    };
    let nanoseconds = size_of::<libc::time_t>();
    for (timespec, second, nanosecond) in [
        (
            "st_atim",
            offset_of!(libc::stat64, st_atime),
            offset_of!(libc::stat64, st_atime_nsec),
        ),
        (
            "st_mtim",
            offset_of!(libc::stat64, st_mtime),
            offset_of!(libc::stat64, st_mtime_nsec),
        ),
        (
            "st_ctim",
            offset_of!(libc::stat64, st_ctime),
            offset_of!(libc::stat64, st_ctime_nsec),
        ),
    ] {
        expected.push((format!("offsetof(struct stat, {timespec})"), second));
        assert_eq!(nanosecond, second + nanoseconds, "{timespec}");
    }
    // Rust has functions for these, which read what the kernel wrote. Man page: sigaction(2).
    for (field, offset) in [("si_pid", 16), ("si_uid", 20), ("si_status", 24)] {
        expected.push((format!("offsetof(siginfo_t, {field})"), offset));
    }
    assert_eq!(differences(&expected), "");
}

#[test]
fn what_keel_calls_by_number_is_the_same_number_in_musl() {
    let expected: Expected = constants! {
        AF_NETLINK AF_UNIX AT_EMPTY_PATH AT_FDCWD AT_PAGESZ AT_REMOVEDIR AT_SECURE AT_SYMLINK_FOLLOW
        AT_SYMLINK_NOFOLLOW CLOCK_MONOTONIC CLOCK_REALTIME CLONE_NEWNS CLONE_NEWUSER DT_DIR DT_LNK
        DT_UNKNOWN E2BIG EACCES EAGAIN EBADF EBUSY ECHILD ECONNREFUSED ECONNRESET EEXIST EINTR EINVAL EIO
        EISDIR ELOOP EMFILE ENAMETOOLONG ENODATA ENODEV ENOENT ENOEXEC ENOLCK ENOMEM ENOSPC ENOSYS ENOTDIR
        ENOTEMPTY ENOTSOCK ENOTSUP ENOTTY ENXIO EOPNOTSUPP EOVERFLOW EPERM EPIPE ERANGE EROFS ESRCH ETIMEDOUT
        ETXTBSY EUSERS EXDEV EFD_CLOEXEC EFD_NONBLOCK F_ADD_SEALS F_DUPFD_CLOEXEC F_GETFD F_GETFL F_GETPIPE_SZ
        F_SETFD F_SETFL F_SETPIPE_SZ FD_CLOEXEC F_SEAL_WRITE LOCK_EX LOCK_NB LOCK_SH LOCK_UN MAP_ANONYMOUS
        MAP_FIXED MAP_POPULATE MAP_PRIVATE MAP_SHARED MFD_ALLOW_SEALING MFD_CLOEXEC MNT_DETACH
        MREMAP_FIXED MREMAP_MAYMOVE MS_BIND MS_PRIVATE MS_RDONLY MS_REC MS_REMOUNT MS_SLAVE
        MSG_CMSG_CLOEXEC MSG_DONTWAIT MSG_NOSIGNAL MSG_PEEK MSG_TRUNC O_APPEND O_CLOEXEC O_CREAT O_DIRECTORY
        O_EXCL O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH O_RDONLY O_RDWR O_TMPFILE O_TRUNC O_WRONLY P_ALL P_PID
        P_PIDFD POLLERR POLLHUP POLLIN POLLNVAL POLLOUT POSIX_SPAWN_SETPGROUP POSIX_SPAWN_SETSIGDEF
        POSIX_SPAWN_SETSIGMASK PR_CAPBSET_READ PR_SET_CHILD_SUBREAPER PR_SET_MM PR_SET_PDEATHSIG PROT_EXEC
        PROT_READ PROT_WRITE RLIMIT_NOFILE RLIMIT_STACK SFD_CLOEXEC SFD_NONBLOCK SIG_BLOCK SIG_SETMASK
        SIG_UNBLOCK SIGABRT SIGBUS SIGCHLD SIGCONT SIGHUP SIGINT SIGKILL SIGPIPE SIGSTOP SIGTERM
        SIGTSTP SIGUSR1 SIGWINCH SO_PASSCRED SO_PEERCRED SOCK_CLOEXEC SOCK_DGRAM SOCK_NONBLOCK SOCK_RAW
        SOCK_SEQPACKET SOCK_STREAM SOL_SOCKET SCM_RIGHTS SEEK_CUR SEEK_END SEEK_SET ST_NODEV ST_NOEXEC ST_NOSUID
        ST_RDONLY TCSADRAIN TCSAFLUSH TCSANOW ONLCR OPOST UTIME_OMIT WEXITED WNOHANG WNOWAIT WUNTRACED W_OK
        X_OK _SC_NPROCESSORS_ONLN _SC_OPEN_MAX _SC_PAGESIZE
    };
    assert_eq!(differences(&expected), "");
    // The comparison can fail.
    let wrong = vec![("SIGKILL".to_owned(), 10)];
    assert!(differences(&wrong).contains("differs"));
}
