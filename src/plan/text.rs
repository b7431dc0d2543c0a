//! Strings of config.json as the C strings that system calls take.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use crate::error::{Error, Result};

/// `text` for a person.
pub fn shown(text: &CStr) -> String {
    text.to_string_lossy().into_owned()
}

/// `text` as a C string.
///
/// # Errors
/// [`Error::Spec`] at `at` if it contains a zero byte or is longer than one argument may be.
pub fn cstring(text: impl AsRef<OsStr>, at: &str) -> Result<CString> {
    let bytes = text.as_ref().as_bytes();
    CString::new(bytes).map_err(|_| Error::spec(at, "the string contains a zero byte"))
}

/// Whether `path` is `top` or below it, by their text alone.
pub fn is_within(path: &CStr, top: &CStr) -> bool {
    let top = top.to_bytes();
    let rest = path.to_bytes().strip_prefix(top);
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/')) || top == b"/")
}

/// A path inside the container: made absolute, without `.`, doubled slashes or inner `..`.
///
/// # Errors
/// [`Error::Spec`] if it is empty, names the root itself, or is longer than `PATH_MAX`.
pub fn absolute(path: &Path, at: &str) -> Result<CString> {
    let mut clean = Vec::with_capacity(path.as_os_str().len() + 1);
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                clean.push(b'/');
                clean.extend_from_slice(name.as_bytes());
            }
            Component::ParentDir => {
                let parent = clean.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                clean.truncate(parent);
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    if clean.is_empty() {
        let why = if path.as_os_str().is_empty() {
            "the path is empty"
        } else {
            "the path is the root"
        };
        return Err(Error::spec(at, why));
    }
    if clean.len() >= libc::PATH_MAX as usize {
        let why = format!(
            "the path has {} bytes; the kernel takes at most 4095",
            clean.len()
        );
        return Err(Error::spec(at, why));
    }
    cstring(OsStr::from_bytes(&clean), at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_a_directory_is_told_by_whole_names() {
        for (path, top, within) in [
            (c"/a", c"/a", true),
            (c"/a/b", c"/a", true),
            (c"/ab", c"/a", false),
            (c"/a", c"/a/b", false),
            (c"/a", c"/", true),
        ] {
            assert_eq!(is_within(path, top), within, "{path:?} {top:?}");
        }
    }

    #[test]
    fn paths_are_cleaned_lexically() {
        let cases = [
            ("/a/b", Some("/a/b")),
            ("a/b/", Some("/a/b")),
            ("/a/./b//c", Some("/a/b/c")),
            ("/a/../../b", Some("/b")),
            ("/..", None),
            ("", None),
            ("/a\0b", None),
        ];
        for (path, wanted) in cases {
            let clean = absolute(Path::new(path), ".x").ok();
            assert_eq!(
                clean.as_deref().map(|c| c.to_str().unwrap()),
                wanted,
                "{path:?}"
            );
        }
        assert!(absolute(Path::new(&"x/".repeat(4000)), ".x").is_err());
    }
}
