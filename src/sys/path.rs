//! Path lookup inside a root that somebody else may be changing.
//!
//! Each function resolves once and answers with a descriptor; `..` and absolute symbolic links stay
//! inside the root, magic links of procfs are not followed (CVE-2019-16884, CVE-2021-30465).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag};

use super::{Errno, Result, check, check_fd};

/// What is made where nothing is yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// A directory.
    Dir,
    /// An empty regular file.
    File,
}

/// The longest path that the kernel takes, with its final zero byte.
const PATH_MAX: usize = libc::PATH_MAX as usize;

/// How often a lookup is tried again when a rename or mount elsewhere disturbed it (`EAGAIN`).
const TRIES: u32 = 128;

/// Opens `path` inside `root` with `flags` (`O_CLOEXEC` is added). Man page: openat2(2), Linux 5.6.
///
/// Without openat2 the path is walked component by component with `O_NOFOLLOW`.
pub fn open_in_root(root: BorrowedFd<'_>, path: &CStr, flags: OFlag) -> Result<OwnedFd> {
    let resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    match openat2(root, path, flags, resolve) {
        Err(Errno::ENOSYS) => walk(root, path.to_bytes(), flags, None),
        other => other,
    }
}

/// Opens `path` below `dir` without following any symbolic link or crossing into another mount.
///
/// For procfs and cgroup files that must not be anything else. Without openat2 each component is
/// opened with `O_NOFOLLOW`, and the caller's check of the file system's magic number covers mounts.
pub fn open_beneath(dir: BorrowedFd<'_>, path: &CStr, flags: OFlag) -> Result<OwnedFd> {
    let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV;
    match openat2(dir, path, flags, resolve) {
        Err(Errno::ENOSYS) => step_down(dir, path.to_bytes(), flags),
        other => other,
    }
}

/// Opens `path` inside `root` without following any symbolic link; mounts may be crossed.
pub fn open_plain(root: BorrowedFd<'_>, path: &CStr, flags: OFlag) -> Result<OwnedFd> {
    let resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_SYMLINKS;
    match openat2(root, path, flags, resolve) {
        Err(Errno::ENOSYS) => step_down(root, path.to_bytes(), flags),
        other => other,
    }
}

fn openat2(dir: BorrowedFd<'_>, path: &CStr, flags: OFlag, resolve: u64) -> Result<OwnedFd> {
    // SAFETY: open_how is plain old data for which all zeroes is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | OFlag::O_CLOEXEC).bits() as u64;
    how.resolve = resolve;
    let (fd, size) = (dir.as_raw_fd(), size_of_val(&how));
    let mut tries = 0;
    loop {
        // SAFETY: `path` is a C string and `how` a struct of the size passed; both outlive the call.
        let ret =
            unsafe { libc::syscall(libc::SYS_openat2, fd, path.as_ptr(), &raw const how, size) };
        match check_fd(ret) {
            Err(Errno::EAGAIN) if tries < TRIES => tries += 1,
            other => return other,
        }
    }
}

/// Opens `path` inside `root` as `O_PATH`, first making what is missing of it.
///
/// Missing parents become directories of mode 0755, the last component what `make` says; where a
/// symbolic link dangles, what it points to is made inside the root. Each component is made by its
/// own name in a directory that is held open, so a race can only make it fail.
///
/// # Errors
/// `ENOTDIR` if a component is a file; `EEXIST` if one became a symbolic link meanwhile.
pub fn make_in_root(root: BorrowedFd<'_>, path: &CStr, make: Make) -> Result<OwnedFd> {
    match open_in_root(root, path, OFlag::O_PATH) {
        Err(Errno::ENOENT) => make_last(root, path, make)
            .or_else(|_| walk(root, path.to_bytes(), OFlag::O_PATH, Some(make))),
        other => other,
    }
}

/// [`make_in_root`] where only the last component is missing. Anything else is an error.
fn make_last(root: BorrowedFd<'_>, path: &CStr, make: Make) -> Result<OwnedFd> {
    let path = path.to_bytes();
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let (parent, name) = path.split_at(end);
    let mut text = Text::new();
    let parent = open_in_root(root, text.set(&[parent, b"/"])?, OFlag::O_PATH)?;
    match name.strip_prefix(b"/").unwrap_or(name) {
        b"" | b"." | b".." => Err(Errno::EINVAL),
        name => make_child(parent.as_fd(), text.set(&[name])?, make),
    }
}

/// Makes `name` in `dir` and opens it as `O_PATH`; a file or directory that is there already will do.
pub fn make_child(dir: BorrowedFd<'_>, name: &CStr, make: Make) -> Result<OwnedFd> {
    let mut flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = match make {
        Make::Dir => {
            flags |= OFlag::O_DIRECTORY;
            nix::sys::stat::mkdirat(dir, name, Mode::from_bits_retain(0o755))
        }
        Make::File => {
            let create = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            nix::fcntl::openat(dir, name, create, Mode::from_bits_retain(0o644)).map(drop)
        }
    };
    match made {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let child = nix::fcntl::openat(dir, name, flags, Mode::empty())?;
    // What O_DIRECTORY has opened is no link.
    match make == Make::File && kind_of(child.as_fd())? == SFlag::S_IFLNK {
        true => Err(Errno::EEXIST),
        false => Ok(child),
    }
}

/// The file type bits of what `fd` refers to.
pub fn kind_of(fd: BorrowedFd<'_>) -> Result<SFlag> {
    let mode = nix::sys::stat::fstat(fd)?.st_mode;
    Ok(SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()))
}

/// The inode number of what `fd` refers to.
pub fn inode(fd: BorrowedFd<'_>) -> Result<u64> {
    Ok(nix::sys::stat::fstat(fd)?.st_ino)
}

/// Calls `each` with the name of every entry of the directory `dir` but `.` and `..`.
///
/// Man page: getdents64(2). The directory must be open for reading, at its start.
pub fn each_entry(dir: BorrowedFd<'_>, each: &mut dyn FnMut(&CStr) -> Result<()>) -> Result<()> {
    /// Where the name begins in a `linux_dirent64`, and where its record's length is.
    const NAME: usize = 19;
    const LENGTH: usize = 16;
    let mut block = [0u8; 4096];
    loop {
        let (out, size) = (block.as_mut_ptr(), block.len());
        // SAFETY: the buffer is ours and its length is passed.
        let ret = unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), out, size) };
        let filled = check(ret)? as usize;
        if filled == 0 {
            return Ok(());
        }
        let mut rest = &block[..filled];
        while rest.len() > NAME {
            let length = usize::from(u16::from_ne_bytes([rest[LENGTH], rest[LENGTH + 1]]));
            let (record, next) = rest.split_at_checked(length).ok_or(Errno::EIO)?;
            let name = record.get(NAME..).ok_or(Errno::EIO)?;
            let name = CStr::from_bytes_until_nul(name).map_err(|_| Errno::EIO)?;
            if name != c"." && name != c".." {
                each(name)?;
            }
            rest = next;
        }
    }
}

/// The path `/proc/self/fd/N`, written into `buffer`.
pub fn proc_self_fd<'b>(buffer: &'b mut [u8; 32], fd: BorrowedFd<'_>) -> &'b CStr {
    let mut digits = [0u8; 20];
    let number = decimal(&mut digits, fd.as_raw_fd().unsigned_abs().into());
    const DIR: &[u8] = b"/proc/self/fd/";
    buffer[..DIR.len()].copy_from_slice(DIR);
    buffer[DIR.len()..DIR.len() + number.len()].copy_from_slice(number);
    buffer[DIR.len() + number.len()] = 0;
    CStr::from_bytes_until_nul(buffer).unwrap_or(c"")
}

/// `value` in decimal digits, without allocating.
pub fn decimal(buffer: &mut [u8; 20], mut value: u64) -> &[u8] {
    let mut start = buffer.len();
    loop {
        start -= 1;
        buffer[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &buffer[start..];
        }
    }
}

/// A C string built on the stack.
pub struct Text {
    bytes: [u8; PATH_MAX],
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").finish_non_exhaustive()
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::new()
    }
}

impl Text {
    /// An empty string.
    pub const fn new() -> Self {
        Self {
            bytes: [0; PATH_MAX],
        }
    }

    /// Replaces the string by `parts`, joined.
    ///
    /// # Errors
    /// `ENAMETOOLONG` if they do not fit, `EINVAL` if they contain a zero byte.
    pub fn set(&mut self, parts: &[&[u8]]) -> Result<&CStr> {
        let mut len = 0;
        for part in parts {
            let end = len + part.len();
            if end >= PATH_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            self.bytes[len..end].copy_from_slice(part);
            len = end;
        }
        self.bytes[len] = 0;
        CStr::from_bytes_with_nul(&self.bytes[..=len]).map_err(|_| Errno::EINVAL)
    }
}

/// How many directories deep a walk may go, and how many symbolic links it may follow in all.
const MAX_DEPTH: usize = 128;
const MAX_LINKS: u32 = 40;

/// [`open_in_root`] for kernels without openat2, and [`make_in_root`].
///
/// `..` goes back to a descriptor that was opened on the way down, so a directory that is moved out
/// of the root meanwhile does not lead out of it.
fn walk(root: BorrowedFd<'_>, path: &[u8], flags: OFlag, make: Option<Make>) -> Result<OwnedFd> {
    let mut rest = Text::new();
    let mut spare = Text::new();
    let mut link = [0u8; PATH_MAX];
    let mut dirs = [const { None::<OwnedFd> }; MAX_DEPTH];
    let (mut depth, mut links) = (0, 0);
    rest.set(&[path])?;
    loop {
        let here = if depth == 0 {
            root
        } else {
            held(&dirs, depth)?
        };
        let bytes = rest.as_bytes();
        let skip = bytes.iter().take_while(|byte| **byte == b'/').count();
        let bytes = &bytes[skip..];
        let end = bytes
            .iter()
            .position(|byte| *byte == b'/')
            .unwrap_or(bytes.len());
        let (name, tail) = bytes.split_at(end);
        match name {
            b"" => return nix::fcntl::openat(here, c".", flags | OFlag::O_CLOEXEC, Mode::empty()),
            b"." => {}
            b".." => depth = depth.saturating_sub(1),
            name => {
                let name = spare.set(&[name])?;
                let look = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let last = tail.iter().all(|byte| *byte == b'/');
                let found = match (nix::fcntl::openat(here, name, look, Mode::empty()), make) {
                    (Err(Errno::ENOENT), Some(make)) => {
                        make_child(here, name, if last { make } else { Make::Dir })?
                    }
                    (other, _) => other?,
                };
                match kind_of(found.as_fd())? {
                    SFlag::S_IFLNK => {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(Errno::ELOOP);
                        }
                        let target = readlink(found.as_fd(), &mut link)?;
                        if target.first() == Some(&b'/') {
                            depth = 0;
                        }
                        spare.set(&[target, b"/", tail])?;
                        std::mem::swap(&mut rest, &mut spare);
                        continue;
                    }
                    _ if last => {
                        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                        return nix::fcntl::openat(here, name, flags, Mode::empty());
                    }
                    SFlag::S_IFDIR => {
                        *dirs.get_mut(depth).ok_or(Errno::ENAMETOOLONG)? = Some(found);
                        depth += 1;
                    }
                    _ => return Err(Errno::ENOTDIR),
                }
            }
        }
        spare.set(&[tail])?;
        std::mem::swap(&mut rest, &mut spare);
    }
}

fn held(dirs: &[Option<OwnedFd>], depth: usize) -> Result<BorrowedFd<'_>> {
    dirs.get(depth - 1)
        .and_then(Option::as_ref)
        .map(AsFd::as_fd)
        .ok_or(Errno::EBADF)
}

impl Text {
    fn as_bytes(&self) -> &[u8] {
        let end = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
        &self.bytes[..end]
    }
}

/// [`open_beneath`] for kernels without openat2.
fn step_down(dir: BorrowedFd<'_>, path: &[u8], flags: OFlag) -> Result<OwnedFd> {
    let mut name = Text::new();
    let mut parts = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
        .peekable();
    let mut here: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        if part == b".." {
            return Err(Errno::EXDEV);
        }
        let last = parts.peek().is_none();
        let flags = if last {
            flags
        } else {
            OFlag::O_PATH | OFlag::O_DIRECTORY
        };
        let from = here.as_ref().map_or(dir, AsFd::as_fd);
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        here = Some(nix::fcntl::openat(
            from,
            name.set(&[part])?,
            flags,
            Mode::empty(),
        )?);
    }
    here.ok_or(Errno::ENOENT)
}

/// The target of the symbolic link that the `O_PATH` descriptor `link` refers to.
pub fn readlink<'b>(link: BorrowedFd<'_>, buffer: &'b mut [u8]) -> Result<&'b [u8]> {
    // SAFETY: the buffer is ours and its length is passed; the path is a static string.
    let ret = unsafe {
        let (out, len) = (buffer.as_mut_ptr().cast(), buffer.len());
        libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), out, len)
    };
    let len = check(ret as libc::c_long)? as usize;
    Ok(&buffer[..len])
}

/// Sets owner and group of what `fd` (also `O_PATH`) refers to.
pub fn chown(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (
        nix::unistd::Uid::from_raw(uid),
        nix::unistd::Gid::from_raw(gid),
    );
    nix::unistd::fchownat(fd, c"", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)
}

/// Gives the directory `dir` (also `O_PATH`) a label of SELinux. Man page: fsetxattr(2).
pub fn set_selinux_label(dir: BorrowedFd<'_>, label: &CStr) -> Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = nix::fcntl::openat(dir, c".", flags, Mode::empty())?;
    // SAFETY: both strings outlive the call, which reads as many bytes of the label as are passed.
    let ret = unsafe {
        libc::fsetxattr(
            dir.as_raw_fd(),
            c"security.selinux".as_ptr(),
            label.as_ptr().cast(),
            label.count_bytes(),
            0,
        )
    };
    check(ret.into()).map(drop)
}

/// The raw working directory. Man page: getcwd(2), "(unreachable)".
///
/// The kernel's own answer, not libc's: one that does not start with `/` lies outside the root
/// (CVE-2024-21626).
pub fn working_directory(buffer: &mut [u8]) -> Result<&[u8]> {
    // SAFETY: the buffer is ours and its length is passed.
    let ret = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    let len = check(ret)? as usize;
    Ok(&buffer[..len.saturating_sub(1)])
}

/// Whether the caller, with its effective ids and capabilities, may execute the file at `path`.
pub fn may_execute(path: &CStr) -> Result<()> {
    access(path, nix::unistd::AccessFlags::X_OK)
}

/// Whether the caller may write to the file at `path`: `EROFS` if its mount is read-only.
pub fn may_write(path: &CStr) -> Result<()> {
    access(path, nix::unistd::AccessFlags::W_OK)
}

/// Man page: faccessat2(2), Linux 5.8; before, access rights of the real ids are asked, which in
/// keel's child are the same.
fn access(path: &CStr, how: nix::unistd::AccessFlags) -> Result<()> {
    // SAFETY: `path` is a C string that outlives the call.
    let ret = unsafe {
        let (dir, mode, flags) = (libc::AT_FDCWD, how.bits(), libc::AT_EACCESS);
        libc::syscall(libc::SYS_faccessat2, dir, path.as_ptr(), mode, flags)
    };
    match check(ret) {
        Err(Errno::ENOSYS) => nix::unistd::access(path, how),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    type Opener = fn(BorrowedFd<'_>, &[u8]) -> Result<OwnedFd>;

    /// name in the root, wanted inode's path below the root (`None`: refused)
    const CASES: &[(&str, Option<&str>)] = &[
        ("a/b", Some("a/b")),
        ("/a/b", Some("a/b")),
        ("a//b/.", Some("a/b")),
        ("..", Some("")),
        ("../../a", Some("a")),
        ("up/b", Some("a/b")),
        ("abs", Some("a/b")),
        ("abs/file", Some("a/b/file")),
        ("escape", Some("")),
        ("escape/a/b", Some("a/b")),
        ("chain", Some("a/b")),
        ("loop", None),
        ("missing", None),
        ("a/b/file/x", None),
    ];

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "x").unwrap();
        symlink("a", root.join("up")).unwrap();
        symlink("/a/b", root.join("abs")).unwrap();
        symlink("../../../..", root.join("escape")).unwrap();
        symlink("up/../abs", root.join("chain")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        dir
    }

    #[test]
    fn a_lookup_never_leaves_the_root() {
        let dir = tree();
        let root = fs::File::open(dir.path()).unwrap();
        let ways: [(&str, Opener); 2] = [
            ("openat2", |root, path| {
                open_in_root(root, &CString::new(path).unwrap(), OFlag::O_PATH)
            }),
            ("walk", |root, path| walk(root, path, OFlag::O_PATH, None)),
        ];
        for (way, open) in ways {
            for (path, wanted) in CASES {
                let found = open(root.as_fd(), path.as_bytes());
                let found = found
                    .ok()
                    .map(|fd| nix::sys::stat::fstat(fd).unwrap().st_ino);
                let wanted = wanted.map(|path| fs::metadata(dir.path().join(path)).unwrap().ino());
                assert_eq!(found, wanted, "{way}: {path}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_made_below_the_root_only() {
        let dir = tree();
        let root = fs::File::open(dir.path()).unwrap();
        for path in [c"new/x/y", c"abs/deep/y", c"../n2", c"/escape/../n3/z"] {
            make_in_root(root.as_fd(), path, Make::Dir).unwrap();
        }
        make_in_root(root.as_fd(), c"a/f", Make::File).unwrap();
        for path in ["new/x/y", "a/b/deep/y", "n2", "n3/z", "a/f"] {
            assert!(dir.path().join(path).exists(), "{path}");
        }
        symlink("/no/where", dir.path().join("dangling")).unwrap();
        symlink("../../../dangling/../out", dir.path().join("a/last")).unwrap();
        make_in_root(root.as_fd(), c"dangling/x", Make::Dir).unwrap();
        make_in_root(root.as_fd(), c"a/last", Make::File).unwrap();
        assert!(dir.path().join("no/where/x").is_dir());
        assert!(dir.path().join("no/out").is_file());
        assert!(make_in_root(root.as_fd(), c"loop/x", Make::Dir).is_err());
        assert!(make_in_root(root.as_fd(), c"a/b/file/x", Make::Dir).is_err());
    }

    #[test]
    fn nothing_below_a_symbolic_link_is_opened_beneath() {
        let dir = tree();
        let root = fs::File::open(dir.path()).unwrap();
        for open in [open_beneath, |dir: BorrowedFd<'_>, path: &CStr, flags| {
            step_down(dir, path.to_bytes(), flags)
        }] {
            assert!(open(root.as_fd(), c"a/b/file", OFlag::O_RDONLY).is_ok());
            assert!(open(root.as_fd(), c"up/b/file", OFlag::O_RDONLY).is_err());
            assert!(open(root.as_fd(), c"../x", OFlag::O_RDONLY).is_err());
        }
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for value in [0, 7, 10, 4_294_967_295, u64::MAX] {
            assert_eq!(decimal(&mut [0; 20], value), value.to_string().as_bytes());
        }
    }
}
