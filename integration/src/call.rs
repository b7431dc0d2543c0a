//! One command line of the runtime: built, running, over.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::sys::{self, Session};
use crate::{Runtime, patience};

/// The PATH of the runtime, and of every config.json made here.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command line that is still being put together.
#[derive(Debug)]
#[must_use]
pub struct Call<'r> {
    runtime: &'r Runtime,
    root: Option<PathBuf>,
    launcher: Vec<OsString>,
    globals: Vec<OsString>,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    cwd: Option<PathBuf>,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    fds: Vec<OwnedFd>,
    session: Session,
    log: Option<PathBuf>,
}

impl<'r> Call<'r> {
    pub(crate) fn new<S: AsRef<OsStr>>(runtime: &'r Runtime, args: &[S]) -> Self {
        Self {
            runtime,
            root: Some(runtime.root()),
            launcher: Vec::new(),
            globals: Vec::new(),
            args: args.iter().map(|arg| arg.as_ref().to_owned()).collect(),
            env: Vec::new(),
            cwd: None,
            stdin: None,
            stdout: None,
            stderr: None,
            fds: Vec::new(),
            session: Session::Inherited,
            log: None,
        }
    }

    /// Adds flags before the command.
    pub fn global<S: AsRef<OsStr>>(mut self, flags: &[S]) -> Self {
        self.globals
            .extend(flags.iter().map(|flag| flag.as_ref().to_owned()));
        self
    }

    /// Inserts a flag right after the command.
    pub fn flag(mut self, flag: impl AsRef<OsStr>) -> Self {
        self.args.insert(1, flag.as_ref().to_owned());
        self
    }

    /// A command that executes the rest of its own command line, the runtime's.
    pub fn through<S: AsRef<OsStr>>(mut self, launcher: &[S]) -> Self {
        let words = launcher.iter().map(|word| word.as_ref().to_owned());
        self.launcher.extend(words);
        self
    }

    /// Leaves `--root` out.
    pub fn without_root(mut self) -> Self {
        self.root = None;
        self
    }

    /// `--log FILE --log-format json`, read back into [`Run::log`].
    pub fn log_json(mut self) -> Self {
        let file = self
            .runtime
            .dir()
            .join(format!("log-{}.json", fresh_number()));
        let flags = [
            OsStr::new("--log"),
            file.as_os_str(),
            OsStr::new("--log-format"),
            OsStr::new("json"),
        ];
        self = self.global(&flags);
        self.log = Some(file);
        self
    }

    /// Adds a variable to the runtime's environment, which else has PATH only.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_string(), value.into()));
        self
    }

    /// Runs the runtime in this directory.
    pub fn cwd(mut self, dir: &Path) -> Self {
        self.cwd = Some(dir.to_owned());
        self
    }

    /// Standard input; else an empty pipe (runc gives away even `/dev/null`, the machine's own).
    pub fn stdin(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.stdin = Some(fd.into());
        self
    }

    /// Standard output; else a file, read back into [`Run::stdout`].
    pub fn stdout(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.stdout = Some(fd.into());
        self
    }

    /// Standard error; else a file, read back into [`Run::stderr`].
    pub fn stderr(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.stderr = Some(fd.into());
        self
    }

    /// Adds a descriptor: the first becomes 3, and so on.
    pub fn fd(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.fds.push(fd.into());
        self
    }

    /// The three standard descriptors are `terminal`, the controlling terminal of a new session.
    ///
    /// # Panics
    /// If descriptors run out.
    pub fn on_terminal(mut self, terminal: &OwnedFd) -> Self {
        let copy = || terminal.try_clone().expect("descriptors are plenty");
        self.session = Session::OnStdin;
        self.stdin(copy()).stdout(copy()).stderr(copy())
    }

    /// Starts it and waits for its end (not for the end of its output: a container may hold that).
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run(self) -> Run {
        self.spawn().wait()
    }

    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(self) -> Running {
        let launcher = self.launcher.iter().map(OsString::as_os_str);
        let mut words = launcher.chain(self.runtime.program());
        let mut command = Command::new(words.next().expect("there is a program"));
        command.args(words);
        if let Some(root) = &self.root {
            command.arg("--root").arg(root);
        }
        command.args(&self.globals).args(&self.args);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("KEEL_TEST", self.runtime.token());
        command.envs(self.env);
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        command.stdin(Stdio::from(self.stdin.unwrap_or_else(empty_pipe)));
        let stdout = output(&mut command, Command::stdout, self.stdout);
        let stderr = output(&mut command, Command::stderr, self.stderr);
        let line = self
            .args
            .iter()
            .map(|arg| clip(&arg.to_string_lossy()))
            .collect::<Vec<_>>()
            .join(" ");
        let child =
            crate::host::awaited_child(|| sys::spawn(&mut command, &self.fds, self.session));
        let child = child.unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
        Running {
            child,
            stdout,
            stderr,
            log: self.log,
            line,
        }
    }
}

fn empty_pipe() -> OwnedFd {
    let (reader, _) = std::io::pipe().expect("descriptors are plenty");
    reader.into()
}

/// Keeps huge arguments out of failure messages.
fn clip(text: &str) -> String {
    text.chars().take(200).collect()
}

fn fresh_number() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// Directs one stream to `given`, or to an unnamed file that is returned.
fn output<'c>(
    command: &'c mut Command,
    direct: fn(&'c mut Command, Stdio) -> &'c mut Command,
    given: Option<OwnedFd>,
) -> Option<File> {
    if let Some(fd) = given {
        direct(command, Stdio::from(fd));
        return None;
    }
    // In append mode, as two streams of a container may share it through /proc/self/fd.
    let path = std::env::temp_dir().join(format!(
        "kt-output-{}-{}",
        std::process::id(),
        fresh_number()
    ));
    let file = File::options()
        .read(true)
        .append(true)
        .create_new(true)
        .open(&path);
    let file = file.expect("the temporary directory is writable");
    fs::remove_file(&path).expect("it was made just now");
    direct(
        command,
        Stdio::from(file.try_clone().expect("descriptors are plenty")),
    );
    Some(file)
}

/// What a stream's file holds so far.
pub(crate) fn contents(file: Option<&File>) -> String {
    let Some(file) = file else {
        return String::new();
    };
    let length = file.metadata().expect("an open file has metadata").len();
    let mut bytes = vec![0; usize::try_from(length).expect("fits memory")];
    file.read_exact_at(&mut bytes, 0).expect("files only grow");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A runtime process that has not been waited for.
#[derive(Debug)]
#[must_use]
pub struct Running {
    child: Child,
    stdout: Option<File>,
    stderr: Option<File>,
    log: Option<PathBuf>,
    line: String,
}

impl Running {
    /// The runtime's process id.
    ///
    /// # Panics
    /// Never: pids fit.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits an int")
    }

    /// Sends the runtime a signal.
    ///
    /// # Panics
    /// If it is gone.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("the runtime has not been waited for");
    }

    /// What it, or its container, has printed so far.
    pub fn stdout(&self) -> String {
        contents(self.stdout.as_ref())
    }

    /// What it, or its container, has complained about so far.
    pub fn stderr(&self) -> String {
        contents(self.stderr.as_ref())
    }

    /// Waits until `text` is on its standard output.
    ///
    /// # Panics
    /// If that takes longer than [`patience`].
    pub fn wait_for_stdout(&self, text: &str) {
        crate::wait_for(&format!("{text:?} from {}", self.line), || {
            self.stdout().contains(text)
        });
    }

    /// Waits for its end.
    ///
    /// If that takes longer than [`patience`] it is killed, and says so on [`Run::stderr`].
    pub fn wait(self) -> Run {
        self.finish().0
    }

    /// Waits for its end; returns also the files of stdout and stderr, which a container may hold.
    pub(crate) fn finish(mut self) -> (Run, Option<File>, Option<File>) {
        let hangs = !ends_in_time(self.pid());
        if hangs {
            self.child.kill().expect("it is our child");
        }
        let status = self.child.wait().expect("it is our child");
        crate::host::forget_child(self.pid());
        let log = self.log.as_deref().map(read_log).unwrap_or_default();
        let run = Run {
            code: status
                .code()
                .unwrap_or_else(|| -status.signal().unwrap_or(0)),
            stdout: self.stdout(),
            stderr: self.stderr(),
            log,
            line: self.line,
        };
        (run, self.stdout, self.stderr)
    }
}

/// Whether the process, a child of this one, ends within [`patience`]. It is left to be reaped.
pub(crate) fn ends_in_time(pid: i32) -> bool {
    let pidfd = sys::pidfd_open(pid).expect("a child that is not reaped keeps its pid");
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(patience()).expect("minutes fit");
    poll(&mut fds, timeout).expect("poll on a pidfd") == 1
}

fn read_log(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("--log file: {error}"));
    let parse =
        |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
    text.lines().map(parse).collect()
}

/// A runtime process that has ended.
#[derive(Clone, Debug)]
#[must_use]
pub struct Run {
    /// Exit code, or minus the number of the signal that killed the runtime.
    pub code: i32,
    /// Standard output at that moment.
    pub stdout: String,
    /// Standard error at that moment.
    pub stderr: String,
    /// The lines of the JSON log, if [`Call::log_json`] asked for one.
    pub log: Vec<Value>,
    line: String,
}

impl Run {
    /// # Panics
    /// If the exit code is not 0.
    pub fn succeeds(self) -> Self {
        self.exits(0)
    }

    /// # Panics
    /// If the exit code is another.
    pub fn exits(self, code: i32) -> Self {
        let Self {
            line,
            stdout,
            stderr,
            ..
        } = &self;
        assert_eq!(
            self.code, code,
            "exit code of {line}\nstdout: {stdout}\nstderr: {stderr}"
        );
        self
    }

    /// The command failed with 1 and said `words`, in any letter case. The text log's escapes are
    /// undone first, so `words` may contain double quotes.
    ///
    /// # Panics
    /// If not.
    pub fn fails_with(self, words: &str) -> Self {
        let this = self.exits(1);
        let Self { line, stderr, .. } = &this;
        let said = stderr
            .replace("\\\"", "\"")
            .to_lowercase()
            .contains(&words.to_lowercase());
        assert!(said, "{line} does not say {words:?} but: {stderr}");
        this
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{}: {error} in {:?}", self.line, self.stdout))
    }
}
