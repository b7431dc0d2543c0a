//! Git repositories as contexts and as sources of `ADD`, by the `git` program.
//!
//! What a repository or its URL says must not run anything here: arguments are never a shell's,
//! references may not look like options, only https and ssh are spoken, hooks and the system's
//! configuration are off, and the subdirectory is opened without following any link
//! (CVE-2019-13139, CVE-2026-33748). Submodules are fetched, as Docker fetches them, under the
//! same rules: git hands its settings on to the processes that it starts for them.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::remote::without_secrets;
use crate::error::{Error, Result};

/// A repository, a reference in it, and a directory in that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Git {
    /// What `git fetch` is given.
    pub url: String,
    /// Branch, tag or commit; the default branch if empty.
    pub reference: String,
    /// Below the root of the work tree; empty is the root.
    pub subdir: String,
}

impl Git {
    /// Reads `URL[#REF[:DIR]]`; `None` if the text is no repository.
    ///
    /// # Errors
    /// A repository with a reference that looks like an option, or a transport that is not spoken.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let path = url.split_once("://").map_or(url, |(_, rest)| rest);
        let is_web = super::remote::is_http(url) && path.trim_end_matches('/').ends_with(".git");
        let is_ssh = url.starts_with("ssh://") || is_scp(url);
        let is_hub = url.starts_with("github.com/");
        let is_other = url.starts_with("git://") || url.contains("::");
        if !is_web && !is_ssh && !is_hub && !is_other {
            return Ok(None);
        }
        let shown = without_secrets(text);
        let refuse = |why: &str| Err(Error::Invalid(format!("git repository {shown:?}: {why}")));
        if is_other || url.starts_with("http://") {
            return refuse("only https and ssh are spoken");
        }
        if reference.starts_with('-') || url.starts_with('-') {
            return refuse("a reference may not begin with '-'");
        }
        let url = match is_hub {
            true => format!("https://{url}"),
            false => url.to_owned(),
        };
        Ok(Some(Self {
            url,
            reference: reference.to_owned(),
            subdir: subdir.trim_matches('/').to_owned(),
        }))
    }

    /// Fetches the work tree into the empty directory `dir`; gives the commit.
    ///
    /// # Errors
    /// git's own words.
    pub fn check_out(&self, dir: &Path) -> Result<String> {
        let reference = match self.reference.as_str() {
            "" => "HEAD",
            reference => reference,
        };
        self.git(dir, &["init", "--quiet", "."])?;
        let shallow = [
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-recurse-submodules",
            "--",
        ];
        let fetched = self.git(dir, &[&shallow[..], &[&self.url, reference]].concat());
        if let Err(error) = fetched {
            // A short commit id is no reference of the other side: all of them are needed.
            let is_commit =
                reference.len() >= 7 && reference.bytes().all(|b| b.is_ascii_hexdigit());
            if !is_commit {
                return Err(error);
            }
            let all = "+refs/*:refs/remotes/origin/*";
            self.git(
                dir,
                &[
                    "fetch",
                    "--quiet",
                    "--no-recurse-submodules",
                    "--",
                    &self.url,
                    all,
                ],
            )?;
            self.git(dir, &["checkout", "--quiet", "--detach", reference])?;
        } else {
            self.git(dir, &["checkout", "--quiet", "--detach", "FETCH_HEAD"])?;
        }
        if dir.join(".gitmodules").symlink_metadata().is_ok() {
            // What a relative URL in .gitmodules is relative to.
            self.git(dir, &["config", "remote.origin.url", &self.url])?;
            let update = ["submodule", "--quiet", "update", "--init", "--recursive"];
            self.git(dir, &[&update[..], &["--depth=1"]].concat())?;
        }
        let commit = self.git(dir, &["rev-parse", "HEAD"])?;
        Ok(commit.trim().to_owned())
    }

    fn git(&self, dir: &Path, arguments: &[&str]) -> Result<String> {
        const SETTINGS: [&str; 6] = [
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "protocol.allow=never",
            "protocol.https.allow=always",
            "protocol.ssh.allow=always",
            "submodule.recurse=false",
        ];
        let mut command = Command::new("git");
        command.current_dir(dir);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        let output = command
            .args(arguments)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CEILING_DIRECTORIES", dir.parent().unwrap_or(dir))
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .stdin(Stdio::null())
            .output()
            .map_err(|errno| Error::host("execute", Path::new("git"), errno))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let why = text
            .lines()
            .rfind(|line| !line.trim().is_empty())
            .unwrap_or("it failed");
        let url = without_secrets(&self.url);
        Err(Error::Invalid(format!(
            "git {} {url}: {}",
            arguments[0],
            without_secrets(why)
        )))
    }

    /// Opens the subdirectory of a work tree; a link on the way is refused.
    ///
    /// # Errors
    /// It is not there, or a link.
    pub fn open(&self, dir: &Path) -> Result<OwnedFd> {
        let fail = |errno| Error::host("open", &dir.join(&self.subdir), errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(dir, flags, Mode::empty()).map_err(fail)?;
        let path = if self.subdir.is_empty() {
            "."
        } else {
            &self.subdir
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).map_err(fail)
    }
}

/// `user@host:path`
fn is_scp(url: &str) -> bool {
    let Some((login, path)) = url.split_once(':') else {
        return false;
    };
    let Some((user, host)) = login.split_once('@') else {
        return false;
    };
    let plain = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    plain(user) && plain(host) && !path.is_empty() && !path.starts_with("//")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_other_texts() {
        let git = |url: &str, reference: &str, subdir: &str| Git {
            url: url.to_owned(),
            reference: reference.to_owned(),
            subdir: subdir.to_owned(),
        };
        let cases = [
            ("https://h/a.git", Some(git("https://h/a.git", "", ""))),
            (
                "https://h/a.git#v1:sub/dir",
                Some(git("https://h/a.git", "v1", "sub/dir")),
            ),
            ("git@h:a/b.git#:x", Some(git("git@h:a/b.git", "", "x"))),
            ("ssh://git@h/a", Some(git("ssh://git@h/a", "", ""))),
            (
                "github.com/a/b",
                Some(git("https://github.com/a/b", "", "")),
            ),
            ("https://h/a.tar.gz", None),
            (".", None),
            ("dir/x@y:z", None),
        ];
        for (text, want) in cases {
            assert_eq!(Git::parse(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn options_and_other_transports_are_refused() {
        for text in [
            "https://h/a.git#-upload-pack=touch /tmp/x",
            "https://h/a.git#--upload-pack=x:sub",
            "ext::sh -c x",
            "ext::sh -c touch% /tmp/x .git",
            "git://h/a",
            "http://h/a.git",
            "fd::17",
        ] {
            assert!(Git::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_subdirectory_that_is_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        let open = |subdir: &str| {
            let git = Git {
                url: String::new(),
                reference: String::new(),
                subdir: subdir.into(),
            };
            git.open(dir.path())
        };
        assert!(open("real").is_ok() && open("").is_ok());
        for bad in ["link", "link/ssl", "..", "real/../.."] {
            assert!(open(bad).is_err(), "{bad}");
        }
    }
}
