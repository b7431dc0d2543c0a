//! Which directory holds the containers' state.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};

/// The default for root.
pub const DEFAULT: &str = "/run/keel";

/// What decides, besides `--root`.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The effective user id.
    pub euid: u32,
    /// Whether this process is in a user namespace that is not the host's.
    pub in_userns: bool,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<OsString>,
    /// `$USER`.
    pub user: Option<OsString>,
    /// The current directory.
    pub cwd: PathBuf,
}

/// The directory, and who chose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Absolute, without `.` and `..`.
    pub path: PathBuf,
    /// How it was found, which decides what may be done about a missing one.
    pub from: From,
}

impl Root {
    /// Permissions of the directory, if it has to be made.
    pub fn mode(&self) -> u32 {
        match self.from {
            From::Xdg => 0o1700,
            From::Flag | From::Default => 0o711,
        }
    }
}

/// Who chose the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// `--root`: `list` fails if it is missing.
    Flag,
    /// `$XDG_RUNTIME_DIR`: made with mode 0700 and the sticky bit, which exempts it from the
    /// cleaning of that directory (XDG Base Directory Specification).
    Xdg,
    /// The default of root.
    Default,
}

/// Finds the directory by runc's rule.
///
/// `--root` wins. Otherwise it is [`DEFAULT`] for the host's root, and `$XDG_RUNTIME_DIR/keel` for
/// everyone else: also for uid 0 in a user namespace, unless `$USER` is `root`. Podman never passes
/// `--root`, so all of its calls must come to the same answer.
///
/// # Errors
/// `--root` must not be empty or `/`.
///
/// Source: runc, `shouldHonorXDGRuntimeDir` and `reviseRootDir`.
pub fn find(flag: Option<&Path>, around: &Surroundings) -> Result<Root> {
    if let Some(given) = flag {
        let path = absolute(given, &around.cwd);
        if path == Path::new("/") {
            return Err(Error::Usage(
                "Option --root argument should not be set to /".into(),
            ));
        }
        return Ok(Root {
            path,
            from: From::Flag,
        });
    }
    let hosts_root = around.euid == 0 && !around.in_userns;
    let plays_root = around.euid == 0 && around.user.as_deref() == Some("root".as_ref());
    // "If an implementation encounters a relative path it should consider it invalid and ignore it."
    let xdg = around.xdg_runtime_dir.as_ref().map(PathBuf::from);
    match xdg.filter(|dir| dir.is_absolute() && !hosts_root && !plays_root) {
        Some(dir) => Ok(Root {
            path: dir.join("keel"),
            from: From::Xdg,
        }),
        None => Ok(Root {
            path: DEFAULT.into(),
            from: From::Default,
        }),
    }
}

fn absolute(path: &Path, cwd: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in cwd.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_directory_follows_the_caller() {
        /// name, euid, in a user namespace, XDG_RUNTIME_DIR, USER, wanted
        type Case = (
            &'static str,
            u32,
            bool,
            Option<&'static str>,
            Option<&'static str>,
            &'static str,
        );
        let xdg = Some("/run/user/7");
        let cases: &[Case] = &[
            ("root", 0, false, None, None, "/run/keel"),
            ("root ignores XDG", 0, false, xdg, None, "/run/keel"),
            ("user", 7, false, xdg, None, "/run/user/7/keel"),
            (
                "user named root",
                7,
                false,
                xdg,
                Some("root"),
                "/run/user/7/keel",
            ),
            ("user without XDG", 7, false, None, None, "/run/keel"),
            (
                "user with relative XDG",
                7,
                false,
                Some("run"),
                None,
                "/run/keel",
            ),
            ("user with empty XDG", 7, false, Some(""), None, "/run/keel"),
            (
                "root of a userns",
                0,
                true,
                xdg,
                Some("me"),
                "/run/user/7/keel",
            ),
            (
                "root of a userns, no USER",
                0,
                true,
                xdg,
                None,
                "/run/user/7/keel",
            ),
            (
                "USER=root in a userns",
                0,
                true,
                xdg,
                Some("root"),
                "/run/keel",
            ),
        ];
        for (name, euid, in_userns, xdg, user, want) in cases {
            let around = Surroundings {
                euid: *euid,
                in_userns: *in_userns,
                xdg_runtime_dir: xdg.map(Into::into),
                user: user.map(Into::into),
                cwd: "/w".into(),
            };
            assert_eq!(find(None, &around).unwrap().path, Path::new(want), "{name}");
        }
    }

    #[test]
    fn a_given_root_is_made_absolute_and_never_the_host_s_root() {
        let around = Surroundings {
            cwd: "/w/x".into(),
            ..Surroundings::default()
        };
        let cases: &[(&str, Option<&str>)] = &[
            ("/a//b/./c/..", Some("/a/b")),
            ("r", Some("/w/x/r")),
            ("../r", Some("/w/r")),
            ("/", None),
            ("../../..", None),
            ("/a/..", None),
        ];
        for (given, want) in cases {
            let got = find(Some(Path::new(given)), &around).ok();
            assert_eq!(
                got.map(|root| root.path),
                want.map(PathBuf::from),
                "{given}"
            );
        }
    }
}
