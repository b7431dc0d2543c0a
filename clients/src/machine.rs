//! A machine of the test's own: namespaces, directories, processes.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long one command may take.
const PATIENCE: &str = "600";
/// How long a daemon may take until it answers.
const STARTUP: Duration = Duration::from_secs(60);

/// Makes the machine, from inside it.
const SETUP: &str = include_str!("../machine.sh");

/// See the crate's text.
#[derive(Debug)]
pub struct Machine {
    unshare: Child,
    init: u32,
    kinds: &'static str,
    token: String,
    env: Vec<(String, String)>,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Output {
    /// The exit code; that of a shell, so 128 and more for signals.
    pub code: i32,
    /// Standard output and standard error, as a person sees them.
    pub text: String,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.text.lines().take(20) {
            writeln!(f, "    | {line}")?;
        }
        write!(f, "    exit code {}", self.code)
    }
}

impl Output {
    /// The text, without white space around it.
    ///
    /// # Panics
    /// If the command failed.
    pub fn succeeds(self) -> String {
        assert_eq!(self.code, 0, "\n{self}");
        self.text.trim().to_owned()
    }
}

impl Machine {
    /// A machine without daemons.
    ///
    /// # Panics
    /// Without root rights, or if `machine.sh` fails.
    pub fn start() -> Self {
        Self::in_namespaces("mount,net,uts,ipc,pid")
    }

    /// A machine whose daemons may ask the host's systemd, to which they name processes by its own
    /// numbers. Only for a host that is thrown away: they do not end with the machine.
    ///
    /// # Panics
    /// Without root rights, or if `machine.sh` fails.
    pub fn with_the_hosts_systemd() -> Self {
        Self::in_namespaces("mount,net,uts,ipc")
    }

    fn in_namespaces(kinds: &'static str) -> Self {
        static MACHINES: AtomicUsize = AtomicUsize::new(0);
        let number = MACHINES.fetch_add(1, Ordering::Relaxed);
        let token = format!("kc{:x}-{number}", std::process::id());
        let mut unshare = Command::new("unshare")
            .args(kinds.split(',').map(|kind| format!("--{kind}")))
            .args(["--fork", "--kill-child"])
            .args(kinds.ends_with("pid").then_some("--mount-proc"))
            .args(["bash", "-c", SETUP])
            .env("RUNTIME", crate::runtime())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is installed");
        let mut line = String::new();
        let stdout = unshare.stdout.take().expect("it is a pipe");
        let _ = BufReader::new(stdout).read_line(&mut line);
        assert_eq!(line, "ready\n", "machine.sh failed: see above");
        let init = first_child(unshare.id());
        let env = [
            ("PATH", PATH),
            ("HOME", "/root"),
            ("TERM", "xterm"),
            ("TOKEN", &token),
        ];
        Self {
            env: env.map(|(name, value)| (name.into(), value.into())).into(),
            unshare,
            init,
            kinds,
            token,
        }
    }

    /// A word of this machine's own, for cgroups.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A path on the machine as the test sees it.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// Adds a variable to the environment of all further commands.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.env.push((name.into(), value.into()));
    }

    /// Writes a file, and the directories above it.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, path: &str, text: &str) {
        let quoted = self.path(path);
        let dir = Path::new(path).parent().expect("an absolute path");
        let _ = self.sh(&format!("mkdir -p {}", dir.display())).succeeds();
        fs::write(&quoted, text).unwrap_or_else(|error| panic!("{}: {error}", quoted.display()));
    }

    /// Runs a script with bash; it ends after ten minutes at the latest.
    pub fn sh(&self, script: &str) -> Output {
        self.sh_as(&["timeout", PATIENCE], script)
    }

    /// Runs a script as the user `tester`.
    pub fn sh_as_user(&self, script: &str) -> Output {
        let user = "setpriv --reuid 4000 --regid 4000 --clear-groups \
                    env HOME=/home/tester USER=tester XDG_RUNTIME_DIR=/run/user/4000 timeout";
        let mut words: Vec<&str> = user.split_whitespace().collect();
        words.push(PATIENCE);
        self.sh_as(&words, &format!("cd; {script}"))
    }

    fn sh_as(&self, launcher: &[&str], script: &str) -> Output {
        // A file takes what daemons in the background would keep a pipe open for.
        let mut output = tempfile();
        let status = self
            .command(launcher)
            .args(["bash", "-c", &format!("exec 2>&1\n{script}")])
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file can be shared"))
            .status()
            .expect("nsenter is installed");
        Output {
            code: status.code().unwrap_or(-1),
            text: read_from_start(&mut output),
        }
    }

    /// Starts a daemon, its output into `/var/log/NAME.log`, and waits until `probe` succeeds.
    ///
    /// # Panics
    /// If that does not happen within a minute.
    pub fn daemon(&self, name: &str, command: &str, probe: &str) {
        let _ = self
            .sh(&format!(
                "setsid {command} </dev/null >>/var/log/{name}.log 2>&1 &"
            ))
            .succeeds();
        let start = Instant::now();
        while self.sh(probe).code != 0 {
            if start.elapsed() > STARTUP {
                panic!(
                    "{name} does not answer:\n{}",
                    self.sh(&format!("tail -20 /var/log/{name}.log"))
                );
            }
            sleep(Duration::from_millis(100));
        }
    }

    /// Does something in a thread that is on the machine's network.
    ///
    /// # Panics
    /// If `action` does.
    pub fn inside_its_network<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.init));
        let network = network.expect("the machine runs");
        let inside = move || {
            let kind = nix::sched::CloneFlags::CLONE_NEWNET;
            nix::sched::setns(network, kind).expect("root may join a network");
            action()
        };
        std::thread::scope(|scope| scope.spawn(inside).join()).expect("it does not panic")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string()])
            .args(self.kinds.split(',').map(|kind| format!("--{kind}")))
            .args(["--wd=/run", "--"])
            .args(words)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The cgroups that have the token in their path: what the callers made below it may be theirs.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .expect("cgroups are mounted")
            .flatten()
        {
            find(&hierarchy.path().join(&self.token), &mut found);
        }
        find(&Path::new("/sys/fs/cgroup").join(&self.token), &mut found);
        found
    }
}

/// The PATH of daemons and people.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All directories of a tree, the deepest first.
fn find(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(&entry.path(), found);
        }
    }
    found.push(dir.to_owned());
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let start = Instant::now();
        while !self.cgroups().is_empty() && start.elapsed() < Duration::from_secs(10) {
            self.cgroups()
                .iter()
                .for_each(|dir| drop(fs::remove_dir(dir)));
            sleep(Duration::from_millis(50));
        }
    }
}

fn first_child(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.expect("proc lists children");
    let first = children.split_whitespace().next();
    first
        .and_then(|pid| pid.parse().ok())
        .expect("unshare has forked")
}

fn tempfile() -> fs::File {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create_new(true);
    static FILES: AtomicUsize = AtomicUsize::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("kc-{}-{number}", std::process::id()));
    let file = options
        .open(&path)
        .expect("the temporary directory is writable");
    let _ = fs::remove_file(path);
    file
}

fn read_from_start(file: &mut fs::File) -> String {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    let _ = file.flush();
    file.rewind().expect("a file can be read again");
    file.read_to_end(&mut bytes).expect("a file can be read");
    String::from_utf8_lossy(&bytes).replace('\r', "")
}
