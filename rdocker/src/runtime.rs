//! The only place that runs the OCI runtime's binary.
//!
//! Every call gives the runtime a JSON log; the last error in it is the one that is told
//! (`--log-format json`: objects with `level` and `msg`).

use std::ffi::OsString;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use serde::Deserialize;

use crate::container::exec;
use crate::error::{Error, Result};
use crate::host::Host;

/// Runtimes that are tried when nobody names one, in this order.
const CANDIDATES: &[&str] = &["keel", "runc", "crun"];

/// An OCI runtime and where it keeps its state.
#[derive(Debug, Clone)]
pub struct Runtime {
    program: PathBuf,
    arguments: Vec<String>,
    root: PathBuf,
}

/// What a new container's first process gets as stdin, stdout and stderr.
#[derive(Debug)]
pub struct Stdio3 {
    /// Read end of the container's stdin.
    pub stdin: OwnedFd,
    /// Write end of its stdout.
    pub stdout: OwnedFd,
    /// Write end of its stderr.
    pub stderr: OwnedFd,
}

impl Stdio3 {
    /// `/dev/null`, three times.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn null() -> Result<Self> {
        let path = Path::new("/dev/null");
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true);
        let open = || {
            let file = options.open(path);
            file.map(OwnedFd::from)
                .map_err(|errno| Error::host("open", path, errno))
        };
        Ok(Self {
            stdin: open()?,
            stdout: open()?,
            stderr: open()?,
        })
    }
}

impl Runtime {
    /// Finds the runtime called `name`: an entry of daemon.json, a path, or a program beside
    /// rdocker or on PATH. Empty is the default one.
    ///
    /// # Errors
    /// `unknown or invalid runtime name: X` with what to do.
    pub fn find(host: &Host, name: &str) -> Result<Self> {
        let default = host.settings.default_runtime.as_deref().unwrap_or_default();
        let name = if name.is_empty() { default } else { name };
        let root = host.runtime_root();
        if let Some(setting) = host.settings.runtimes.get(name) {
            let program = locate(&setting.path);
            let program = program.ok_or_else(|| unknown(&setting.path.display().to_string()))?;
            return Ok(Self {
                program,
                arguments: setting.runtime_args.clone(),
                root,
            });
        }
        let names = if name.is_empty() { CANDIDATES } else { &[name] };
        let found = names.iter().find_map(|name| locate(Path::new(name)));
        let program = found.ok_or_else(|| unknown(names[0]))?;
        Ok(Self {
            program,
            arguments: Vec::new(),
            root,
        })
    }

    /// The binary's name, for `info` and inspect.
    pub fn name(&self) -> String {
        let name = self.program.file_name().unwrap_or(self.program.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// The binary.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A command with the global flags set; `log` is made anew.
    fn command(&self, log: &Path) -> Command {
        // The log is appended to: what an earlier call left would be told as this one's error.
        let _ = fs::remove_file(log);
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg("--root").arg(&self.root);
        command.arg("--log").arg(log).args(["--log-format", "json"]);
        command
    }

    /// Creates and starts the container of `bundle`, and comes back when its program runs.
    ///
    /// # Errors
    /// [`Error::Runtime`] with the runtime's own words.
    pub fn run(
        &self,
        id: &str,
        bundle: &Path,
        pid_file: &Path,
        console: Option<&Path>,
        stdio: Stdio3,
    ) -> Result<()> {
        let log = bundle.join("log.json");
        let mut command = self.command(&log);
        command
            .arg("run")
            .arg("--detach")
            .arg("--bundle")
            .arg(bundle);
        command.arg("--pid-file").arg(pid_file);
        if let Some(socket) = console {
            command.arg("--console-socket").arg(socket);
        }
        let child = command
            .arg(id)
            .stdin(stdio.stdin)
            .stdout(stdio.stdout)
            .stderr(stdio.stderr)
            .spawn()
            .and_then(|mut child| child.wait());
        let status = child.map_err(|errno| Error::host("execute", &self.program, errno))?;
        judge(status, &log, b"").map_err(|error| Error::Runtime {
            message: format!("failed to create task for container: {error}"),
        })
    }

    /// A run of `bundle` that lasts as long as its program, for the caller to set stdio and start;
    /// its exit code is the program's. Its log is `log.json` in the bundle.
    pub fn run_attached(&self, id: &str, bundle: &Path) -> Command {
        let mut command = self.command(&bundle.join("log.json"));
        command.arg("run").arg("--bundle").arg(bundle).arg(id);
        command
    }

    /// A verb without input; its stdout.
    fn call(&self, log_dir: &Path, arguments: &[OsString]) -> Result<Vec<u8>> {
        let log = log_dir.join(format!("log-{}.json", std::process::id()));
        let output = self
            .command(&log)
            .args(arguments)
            .stdin(Stdio::null())
            .output();
        let Output {
            status,
            stdout,
            stderr,
        } = output.map_err(|errno| Error::host("execute", &self.program, errno))?;
        let verdict = judge(status, &log, &stderr);
        let _ = fs::remove_file(&log);
        verdict.map(|()| stdout)
    }

    /// Sends a signal to the container's first process.
    pub fn kill(&self, run: &Path, id: &str, signal: i32) -> Result<()> {
        self.call(run, &["kill".into(), id.into(), signal.to_string().into()])
            .map(drop)
    }

    /// Freezes every process.
    pub fn pause(&self, run: &Path, id: &str) -> Result<()> {
        self.call(run, &["pause".into(), id.into()]).map(drop)
    }

    /// Thaws every process.
    pub fn resume(&self, run: &Path, id: &str) -> Result<()> {
        self.call(run, &["resume".into(), id.into()]).map(drop)
    }

    /// Removes what the runtime keeps of a container, killing what is left of it.
    pub fn delete(&self, run: &Path, id: &str) -> Result<()> {
        self.call(run, &["delete".into(), "--force".into(), id.into()])
            .map(drop)
    }

    /// Changes limits; `resources` is the `linux.resources` object of the OCI spec.
    pub fn update(&self, run: &Path, id: &str, resources: &serde_json::Value) -> Result<()> {
        let file = run.join(format!("update-{}.json", std::process::id()));
        fs::write(&file, resources.to_string())
            .map_err(|errno| Error::host("write", &file, errno))?;
        let arguments = [
            "update".into(),
            "--resources".into(),
            file.clone().into(),
            id.into(),
        ];
        let result = self.call(run, &arguments).map(drop);
        let _ = fs::remove_file(&file);
        result
    }

    /// The host pids of all processes of a container.
    pub fn pids(&self, run: &Path, id: &str) -> Result<Vec<i32>> {
        let arguments = ["ps".into(), "--format".into(), "json".into(), id.into()];
        let json = self.call(run, &arguments)?;
        let pids: Option<Vec<i32>> = serde_json::from_slice(&json).map_err(|_| Error::Runtime {
            message: format!("{} ps did not answer with a list of pids", self.name()),
        })?;
        Ok(pids.unwrap_or_default())
    }

    /// An `exec` of the OCI process object in the file `process`; the caller sets stdio and runs
    /// it. Its log is `log`.
    pub fn exec(&self, id: &str, process: &Path, log: &Path, pid_file: &Path) -> Command {
        let mut command = self.command(log);
        command.arg("exec").arg("--process").arg(process);
        command.arg("--pid-file").arg(pid_file).arg(id);
        command
    }

    /// The same with this stdio, or a terminal whose master is sent to `console`, coming back when
    /// the program runs.
    ///
    /// # Errors
    /// [`Error::Runtime`] with the runtime's own words.
    pub fn exec_detached(
        &self,
        id: &str,
        files: &exec::Files,
        console: Option<&Path>,
        stdio: Stdio3,
    ) -> Result<()> {
        let mut command = self.command(&files.log);
        command.args(["exec", "--detach", "--process"]);
        command.arg(&files.process);
        command.arg("--pid-file").arg(&files.pid);
        if let Some(socket) = console {
            command.arg("--console-socket").arg(socket);
        }
        let status = command
            .arg(id)
            .stdin(stdio.stdin)
            .stdout(stdio.stdout)
            .stderr(stdio.stderr)
            .status()
            .map_err(|errno| Error::host("execute", &self.program, errno))?;
        judge(status, &files.log, b"")
    }
}

fn unknown(name: &str) -> Error {
    Error::Hinted {
        message: format!("unknown or invalid runtime name: {name}"),
        hint: "put keel beside rdocker or on PATH, or name another runtime with --runtime PATH"
            .to_owned(),
    }
}

/// A path as it is; a bare name beside this executable, then on PATH.
pub fn locate(name: &Path) -> Option<PathBuf> {
    let executable = |path: &PathBuf| {
        fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if name.components().count() > 1 {
        return Some(name.to_owned()).filter(executable);
    }
    let own = std::env::current_exe().ok();
    let beside = own
        .as_deref()
        .and_then(Path::parent)
        .map(|dir| dir.join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join(name));
    beside.into_iter().chain(on_path).find(executable)
}

#[derive(Deserialize)]
struct LogLine {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// The message of the last error in a JSON log.
pub fn last_error(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<LogLine>(line).ok());
    lines
        .filter(|line| line.level == "error" || line.level == "fatal")
        .map(|line| line.msg)
        .next_back()
}

fn judge(status: ExitStatus, log: &Path, stderr: &[u8]) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let from_stderr = || {
        let text = String::from_utf8_lossy(stderr).into_owned();
        text.lines()
            .last()
            .map(str::to_owned)
            .filter(|line| !line.is_empty())
    };
    let message = last_error(log).or_else(from_stderr);
    let message = message.unwrap_or_else(|| format!("the OCI runtime ended with {status}"));
    Err(Error::Runtime { message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_the_log_is_the_one_told() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.json");
        let lines = [
            r#"{"level":"error","msg":"first","time":"t"}"#,
            r#"{"level":"warning","msg":"not this","time":"t"}"#,
            r#"{"level":"error","msg":"exec: \"x\": executable file not found in $PATH"}"#,
            r#"{"level":"info","msg":"nor this"}"#,
            "not json",
        ];
        fs::write(&log, lines.join("\n")).unwrap();
        assert_eq!(
            last_error(&log).as_deref(),
            Some("exec: \"x\": executable file not found in $PATH")
        );
        assert_eq!(last_error(&dir.path().join("none")), None);
    }

    #[test]
    fn a_runtime_that_is_not_there_is_told_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(Some(dir.path().to_owned()), Some(dir.path().to_owned())).unwrap();
        let error = Runtime::find(&host, "no-such-runtime").unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown or invalid runtime name: no-such-runtime"
        );
        assert!(error.hint().is_some());
    }
}
