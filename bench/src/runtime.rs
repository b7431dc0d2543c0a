//! The programs under comparison.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::host::Host;

/// Is it a runtime, or the kernel's own cost?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `floor.c`: no runtime, only the system calls.
    Floor,
    /// An OCI runtime with runc's command line.
    Oci,
}

/// One program under comparison.
pub struct Runtime {
    pub name: String,
    pub kind: Kind,
    pub path: PathBuf,
    /// `--root`: where it keeps its state.
    root: PathBuf,
}

impl Runtime {
    /// The floor, keel, and the peers: crun and runc from PATH and those in `more`.
    ///
    /// # Errors
    /// If a runtime that was named does not exist. One that is merely not found is left out.
    pub fn find(
        host: &Host,
        keel: Option<&Path>,
        more: &[(String, PathBuf)],
    ) -> Result<Vec<Self>, String> {
        let mut found = vec![Self::new(host, "floor", Kind::Floor, host.path("floor"))];
        found.extend(Self::find_oci(host, keel, more)?);
        Ok(found)
    }

    /// [`Runtime::find`] without the floor.
    ///
    /// # Errors
    /// The same.
    pub fn find_oci(
        host: &Host,
        keel: Option<&Path>,
        more: &[(String, PathBuf)],
    ) -> Result<Vec<Self>, String> {
        let mut found = Vec::new();
        let built = beside_this_program("keel").filter(|path| path.exists());
        if let Some(path) = keel.map(Path::to_path_buf).or(built) {
            found.push(Self::new(host, "keel", Kind::Oci, path));
        }
        for name in ["crun", "runc"] {
            if let Some(path) = in_path(name) {
                found.push(Self::new(host, name, Kind::Oci, path));
            }
        }
        for (name, path) in more {
            found.push(Self::new(host, name, Kind::Oci, path.clone()));
        }
        match found.iter().find(|runtime| !runtime.path.exists()) {
            Some(missing) => Err(format!("{}: no such file", missing.path.display())),
            None => Ok(found),
        }
    }

    fn new(host: &Host, name: &str, kind: Kind, path: PathBuf) -> Self {
        let root = host.path("run").join(name);
        Self {
            name: name.to_owned(),
            kind,
            path,
            root,
        }
    }

    /// The command line `RUNTIME --root ROOT args…`.
    pub fn argv(&self, args: &[&str]) -> Vec<String> {
        let mut argv = vec![
            self.path.to_string_lossy().into_owned(),
            "--root".to_owned(),
            self.root.to_string_lossy().into_owned(),
        ];
        argv.extend(args.iter().map(|&a| a.to_owned()));
        argv
    }

    /// Runs `RUNTIME args…` unmeasured and returns its standard output.
    ///
    /// # Errors
    /// If it exits non-zero, with the last line of its standard error.
    pub fn call(&self, args: &[&str]) -> Result<String, String> {
        let argv = self.argv(args);
        let output = Command::new(&argv[0])
            .args(&argv[1..])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("cannot run {}: {e}", argv[0]))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(format!("{} {}: {}", self.name, args[0], last_line(&stderr)))
    }

    /// Runs `RUNTIME args…` with the three standard streams at /dev/null.
    ///
    /// For what leaves a container behind: it would hold a pipe open and the reader would wait.
    ///
    /// # Errors
    /// If it exits non-zero.
    pub fn launch(&self, args: &[&str]) -> Result<(), String> {
        let argv = self.argv(args);
        let status = Command::new(&argv[0])
            .args(&argv[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|e| format!("cannot run {}: {e}", argv[0]))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{} {}: {status}", self.name, args.join(" ")))
        }
    }

    /// The pid of the container's first process, from `state`.
    pub fn pid(&self, id: &str) -> Result<i32, String> {
        let pid = self.state(id)?["pid"].as_i64();
        pid.and_then(|pid| i32::try_from(pid).ok())
            .ok_or_else(|| format!("{} state: no pid", self.name))
    }

    /// `created`, `running` or `stopped`, from `state`.
    pub fn status(&self, id: &str) -> Result<String, String> {
        let status = self.state(id)?["status"].as_str().map(str::to_owned);
        status.ok_or_else(|| format!("{} state: no status", self.name))
    }

    fn state(&self, id: &str) -> Result<serde_json::Value, String> {
        let text = self.call(&["state", id])?;
        serde_json::from_str(&text).map_err(|e| format!("{} state: {e}", self.name))
    }
}

/// The last line that says something; runtimes print the cause last.
pub fn last_line(stderr: &str) -> &str {
    stderr
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("no message")
}

fn beside_this_program(name: &str) -> Option<PathBuf> {
    Some(env::current_exe().ok()?.parent()?.join(name))
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Splits `NAME=PATH`.
pub fn parse_peer(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(path)))
        }
        _ => Err("expected NAME=PATH".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_without_name_or_path_is_refused() {
        assert_eq!(
            parse_peer("youki=/bin/youki"),
            Ok(("youki".into(), "/bin/youki".into()))
        );
        for bad in ["youki", "=/bin/youki", "youki=", ""] {
            assert!(parse_peer(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_last_line_that_says_something_is_the_message() {
        assert_eq!(last_line("warning\nthe cause\n\n"), "the cause");
        assert_eq!(last_line("\n"), "no message");
    }
}
