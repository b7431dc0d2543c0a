//! User and group names of a container, read from its own files with the runtime's rights.
//!
//! The files are the container's: they may be huge, no files at all, or links. They are opened
//! inside its root without waiting, must be regular, and only a part of them is read
//! (CVE-2024-9676, CVE-2026-47262).

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};

use crate::error::{Error, Result};
use crate::sys::path;

/// How much of each file is read, in bytes.
const MAX_FILE: u64 = 10 << 20;

/// Reads `UID[:GID]` or `NAME[:GROUP]`. Digits alone are a number and never looked up
/// (CVE-2016-3697). Without a group, a name found in passwd brings its own.
///
/// # Errors
/// [`Error::Usage`] for a number out of range and for a name that is not there.
pub fn resolve(text: &str, init: BorrowedFd<'_>) -> Result<(u32, Option<u32>)> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, own_gid) = match number(user, "user")? {
        Some(uid) => (uid, None),
        None => look_up(init, c"/etc/passwd", user, "user").map(|fields| (fields.0, fields.1))?,
    };
    let gid = match group {
        None => own_gid,
        Some(group) => Some(match number(group, "group")? {
            Some(gid) => gid,
            None => look_up(init, c"/etc/group", group, "group")?.0,
        }),
    };
    Ok((uid, gid))
}

/// An id in digits; `Ok(None)` if the text is a name. −1 means "no change" to the kernel.
fn number(text: &str, what: &str) -> Result<Option<u32>> {
    if text.is_empty() {
        return Err(Error::Usage(format!("the {what} is empty")));
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id != u32::MAX => Ok(Some(id)),
        _ => Err(Error::Usage(format!(
            "the {what} id {text} is not below 4294967295"
        ))),
    }
}

/// The third field of the line whose first is `name`, and the fourth if it is a number.
fn look_up(
    init: BorrowedFd<'_>,
    file: &CStr,
    name: &str,
    what: &str,
) -> Result<(u32, Option<u32>)> {
    let text = read(init, file)?;
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let matches = fields.next()? == name;
        let id = fields.nth(1)?.parse().ok()?;
        matches.then(|| (id, fields.next().and_then(|gid| gid.parse().ok())))
    });
    found.ok_or_else(|| {
        let file = file.to_string_lossy();
        Error::Usage(format!("no {what} {name:?} in the container's {file}"))
    })
}

fn read(init: BorrowedFd<'_>, file: &CStr) -> Result<String> {
    let shown = file.to_string_lossy().into_owned();
    let failed = |errno| Error::host("read the container's", &shown, errno);
    let fdinfo = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", init.as_raw_fd()))
        .map_err(|error| Error::host("read", "fdinfo", error))?;
    let pid = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .map(str::trim);
    let root = format!("/proc/{}/root", pid.unwrap_or_default());
    let dir = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(root.as_str(), dir, Mode::empty()).map_err(failed)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = path::open_in_root(root.as_fd(), file, flags).map_err(failed)?;
    if path::kind_of(opened.as_fd()) != Ok(SFlag::S_IFREG) {
        return Err(Error::Failed(format!(
            "the container's {shown} is not a regular file"
        )));
    }
    let mut bytes = Vec::new();
    File::from(opened)
        .take(MAX_FILE)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::host("read the container's", &shown, error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd;

    #[test]
    fn digits_are_a_number_and_nothing_else() {
        let own = fd::pidfd_open(std::process::id().cast_signed()).unwrap();
        let cases = [
            ("0", Some((0, None))),
            ("01", Some((1, None))),
            ("1000:5", Some((1000, Some(5)))),
            ("4294967294", Some((4_294_967_294, None))),
            ("4294967295", None),
            ("4294967296", None),
            ("9223372036854775808", None),
            ("", None),
            ("1:", None),
            (":1", None),
            ("+1", None),
            (" 1", None),
            ("0x0", None),
            ("-1", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(resolve(text, own.as_fd()).ok(), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_name_is_found_with_its_group() {
        let own = fd::pidfd_open(std::process::id().cast_signed()).unwrap();
        assert_eq!(resolve("root", own.as_fd()).unwrap(), (0, Some(0)));
        assert_eq!(resolve("root:daemon", own.as_fd()).unwrap(), (0, Some(1)));
        assert!(resolve("nobody-of-this-name", own.as_fd()).is_err());
    }
}
