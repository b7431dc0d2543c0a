//! Small deeds a process in the container tries, each written `verb:argument…`.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde::{Deserialize, Serialize};

use crate::sys;

/// What came of a try.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Zero for success; -1 for a failure without a number.
    pub errno: i32,
    /// What a successful try found.
    pub found: String,
}

/// Makes one try:
///
/// - `read:PATH` opens and reads the beginning, `list:DIR` lists the names, `stat:PATH` gives
///   type, mode, uid and gid
/// - `peek:PATH` opens for reading only, `write:PATH` opens an existing file for writing, `make:PATH` creates a file and removes it
/// - `mknod:c:MAJOR:MINOR:PATH` makes a device and removes it, `open:PATH` opens for read and write
/// - `sh:COMMAND` gives the output of a shell command
/// - `socket:FAMILY` opens a socket of that number, `lseek:OFFSET` seeks nothing: for seccomp
/// - `append:PATH` adds the line `process`, and `exec:PATH` executes a file
pub fn make(what: &str) -> Tried {
    let (verb, rest) = what.split_once(':').unwrap_or((what, ""));
    let outcome = match verb {
        "read" => read(rest),
        "list" => list(rest),
        "stat" => stat(rest),
        "peek" => fs::File::open(rest).map(|_| String::new()),
        "write" => OpenOptions::new()
            .write(true)
            .open(rest)
            .map(|_| String::new()),
        "open" => open(rest),
        "make" => OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(rest)
            .and_then(|_| fs::remove_file(rest))
            .map(|()| String::new()),
        "mknod" => device(rest),
        "sh" => shell(rest),
        "exec" => execute(rest),
        "append" => super::hook::append(Path::new(rest), "process").map(|()| String::new()),
        "socket" => open_socket(rest),
        "lseek" => Err(sys::lseek_of_nothing(rest.parse().unwrap_or_default())),
        _ => Err(io::Error::other(format!("no such try: {what}"))),
    };
    match outcome {
        Ok(found) => Tried { errno: 0, found },
        Err(e) => Tried {
            errno: e.raw_os_error().unwrap_or(-1),
            found: String::new(),
        },
    }
}

fn read(path: &str) -> io::Result<String> {
    let mut text = vec![0; 512];
    let length = fs::File::open(path)?.read(&mut text)?;
    Ok(String::from_utf8_lossy(&text[..length]).into_owned())
}

fn list(path: &str) -> io::Result<String> {
    let mut names: Vec<String> = fs::read_dir(path)?
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into())
        .collect();
    names.sort();
    Ok(names.join(" "))
}

fn stat(path: &str) -> io::Result<String> {
    fs::symlink_metadata(path)?;
    let node = super::node(Path::new(path)).unwrap_or_default();
    Ok(format!(
        "{} {:o} {} {} {}:{}",
        node.kind, node.mode, node.uid, node.gid, node.major, node.minor
    ))
}

/// Without blocking, and without making a terminal ours.
fn open(path: &str) -> io::Result<String> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)?;
    Ok(String::new())
}

fn device(rest: &str) -> io::Result<String> {
    let parts: Vec<&str> = rest.splitn(4, ':').collect();
    let &[kind, major, minor, path] = parts.as_slice() else {
        return Err(io::Error::other("mknod:KIND:MAJOR:MINOR:PATH"));
    };
    let kind = if kind == "b" {
        SFlag::S_IFBLK
    } else {
        SFlag::S_IFCHR
    };
    let number = |text: &str| text.parse().unwrap_or_default();
    mknod(
        path,
        kind,
        Mode::from_bits_truncate(0o600),
        makedev(number(major), number(minor)),
    )?;
    fs::remove_file(path)?;
    Ok(String::new())
}

fn shell(command: &str) -> io::Result<String> {
    let output = Command::new("/bin/busybox")
        .args(["sh", "-c", command])
        .output()?;
    if !output.status.success() {
        return Err(io::Error::from_raw_os_error(
            output.status.code().unwrap_or(255),
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

fn execute(path: &str) -> io::Result<String> {
    let begin = Instant::now();
    let status = Command::new(path).arg("true").status()?;
    Ok(format!("{status} after {} ms", begin.elapsed().as_millis()))
}

fn open_socket(family: &str) -> io::Result<String> {
    let families = [
        AddressFamily::Unix,
        AddressFamily::Inet,
        AddressFamily::Inet6,
    ];
    let number: i32 = family.parse().unwrap_or_default();
    let family = families
        .into_iter()
        .find(|f| *f as i32 == number)
        .ok_or_else(|| io::Error::other("unknown family"))?;
    socket(family, SockType::Stream, SockFlag::empty(), None)?;
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_gives_the_errno_of_what_failed() {
        assert_eq!(make("read:/nonexistent").errno, libc::ENOENT);
        assert_eq!(make("list:/proc/self/status").errno, libc::ENOTDIR);
        assert_eq!(make("lseek:7").errno, libc::EBADF);
        assert_eq!(make("nonsense").errno, -1);
        assert_eq!(make("socket:1"), Tried::default());
    }
}
