//! The binary under test, and what belongs to one test: directories, ids, namespaces.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::mount::{MsFlags, mount};
use nix::sys::prctl::set_child_subreaper;
use tempfile::TempDir;

use crate::host::{Scope, isolate};
use crate::{Bundle, Call, Container, HostSnapshot};

/// Whose program the runtime under test is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Ours: every expectation holds.
    Keel,
    /// runc, the reference: see [`Runtime::differs`].
    Runc,
    /// Any other, which only the attack suite knows.
    Other,
}

/// The runtime under test, private to one test.
///
/// When it is dropped, containers are deleted by force, and the test fails if the host then differs
/// from before.
#[derive(Debug)]
pub struct Runtime {
    binary: PathBuf,
    launcher: Vec<String>,
    kind: Kind,
    dir: TempDir,
    token: String,
    /// Who executes it, if not root.
    user: Option<u32>,
    /// The process that keeps [`Runtime::become_root_of_a_user_namespace`]'s.
    holder: Option<Child>,
    before: HostSnapshot,
    may_leave_traces: bool,
}

/// The user of [`Runtime::rootless`].
pub const USER: u32 = 61_000;

/// The first of the user's subordinate ids, and how many there are.
pub const SUBORDINATE: u32 = 700_000;
/// See [`SUBORDINATE`].
pub const SUBORDINATES: u32 = 65_536;

static RUNTIMES: AtomicUsize = AtomicUsize::new(0);
static SKIPPED: AtomicUsize = AtomicUsize::new(0);

impl Default for Runtime {
    fn default() -> Self {
        Self::new()
    }
}

impl Runtime {
    /// The runtime under test in namespaces of the calling thread's own, with an empty root
    /// directory. The test process becomes a subreaper, as containerd's shim and conmon are.
    ///
    /// # Panics
    /// Without root rights, or if there is no binary to test.
    pub fn new() -> Self {
        isolate();
        Self::of(binary_under_test().clone())
    }

    /// A runtime that is to be attacked, and may be the worse for it: what it leaves on the host is
    /// nobody's failure.
    pub fn victim(binary: &Path) -> Self {
        isolate();
        let mut this = Self::of(binary.into());
        this.may_leave_traces = true;
        this
    }

    /// Another runtime in the namespaces that the thread has already, to be compared with.
    ///
    /// # Panics
    /// As [`Runtime::new`].
    pub fn peer(&self, binary: &str) -> Self {
        Self::of(binary.into())
    }

    fn of(binary: PathBuf) -> Self {
        set_child_subreaper(true).expect("a process may become a subreaper");
        let number = RUNTIMES.fetch_add(1, Ordering::Relaxed);
        // All of one length, so that none begins with another.
        let token = format!("kt{:x}-{number:03}", std::process::id());
        let dir = tempfile::Builder::new()
            .prefix(&format!("{token}-"))
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .expect("the temporary directory is writable");
        let root = dir.path().join("root");
        fs::create_dir(&root).expect("the scratch directory is writable");
        let scope = Scope {
            token: &token,
            root: &root,
        };
        let before = HostSnapshot::take(scope);
        let kind = kind_of(&binary);
        let without = std::env::var("KEEL_WITHOUT").unwrap_or_default();
        let mut this = Self {
            binary,
            launcher: Vec::new(),
            kind,
            dir,
            token,
            user: None,
            holder: None,
            before,
            may_leave_traces: false,
        };
        if !without.is_empty() {
            this.take_away(&without);
        }
        this
    }

    /// The runtime as the user [`USER`] runs it, without any right: every command line is executed by
    /// that user, who owns the root directory and the bundles' directories. Ids from
    /// [`SUBORDINATE`] on belong to the user in `/etc/subuid` and `/etc/subgid`.
    ///
    /// # Panics
    /// As [`Runtime::new`], and without setpriv of util-linux.
    pub fn rootless() -> Self {
        let mut this = Self::new();
        this.add_user();
        // The build directory may lie where the user cannot go.
        let binary = this
            .dir()
            .join(this.binary.file_name().expect("a file's name"));
        fs::hard_link(&this.binary, &binary)
            .or_else(|_| fs::copy(&this.binary, &binary).map(drop))
            .expect("the scratch directory is writable");
        this.binary = binary;
        chown(this.root(), Some(USER), Some(USER)).expect("tests run as root");
        let user = USER.to_string();
        let words = [
            "setpriv",
            "--reuid",
            &user,
            "--regid",
            &user,
            "--clear-groups",
        ];
        this.launcher = words.map(String::from).into();
        this.user = Some(USER);
        this.before = HostSnapshot::take(Scope {
            token: &this.token,
            root: &this.root(),
        });
        this
    }

    /// From now on every command line is executed by root of a user namespace that belongs to the
    /// user, with the subordinate ids mapped after its own: as podman and buildah do it.
    ///
    /// # Panics
    /// Without unshare and nsenter of util-linux, and newuidmap.
    pub fn become_root_of_a_user_namespace(&mut self) {
        let mut holder = Command::new(&self.launcher[0]);
        holder
            .args(&self.launcher[1..])
            .args(["unshare", "--user", "--mount"]);
        holder.args(["--map-root-user", "--map-auto", "cat"]);
        let mut holder = holder
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux is installed");
        // It answers once it is cat, in the namespaces.
        let (input, output) = (holder.stdin.as_mut(), holder.stdout.as_mut());
        input.expect("a pipe").write_all(b"!").expect("cat reads");
        output
            .expect("a pipe")
            .read_exact(&mut [0])
            .expect("cat writes");
        let pid = holder.id().to_string();
        let words = ["nsenter", "-t", &pid, "-U", "-m", "-S", "0", "-G", "0"];
        self.launcher = words.map(String::from).into();
        self.holder = Some(holder);
    }

    /// From now on the user of [`Runtime::rootless`] is in these groups, too.
    ///
    /// # Panics
    /// If the runtime is root's.
    pub fn give_groups(&mut self, groups: &str) {
        let last = self
            .launcher
            .last_mut()
            .expect("the launcher of `rootless`");
        *last = format!("--groups={groups}");
    }

    /// From now on every command line is executed by another one, which the user's executes.
    pub fn start_by(&mut self, words: &[&str]) {
        self.launcher
            .extend(words.iter().map(|word| (*word).to_owned()));
    }

    /// Names the user in the files that newuidmap(1) reads, for this test's mount namespace only.
    fn add_user(&self) {
        let passwd = format!("kt-user:x:{USER}:{USER}::/:/bin/sh\n");
        let ids = format!("kt-user:{SUBORDINATE}:{SUBORDINATES}\n");
        for (name, line) in [("passwd", &passwd), ("subuid", &ids), ("subgid", &ids)] {
            let (real, own) = (Path::new("/etc").join(name), self.dir().join(name));
            let text = fs::read_to_string(&real).expect("Debian has the file");
            fs::write(&own, format!("{text}{line}")).expect("the scratch directory is writable");
            let none: Option<&str> = None;
            mount(Some(&own), &real, none, MsFlags::MS_BIND, none).expect("tests run as root");
        }
    }

    /// A runtime on a kernel that lacks these system calls (comma-separated).
    pub fn without(calls: &str) -> Self {
        let mut this = Self::new();
        this.take_away(calls);
        this
    }

    fn take_away(&mut self, calls: &str) {
        let launcher = beside_the_tests("fake-enosys");
        self.launcher.push(launcher.to_string_lossy().into_owned());
        self.launcher.push(calls.to_string());
    }

    /// Whose program is under test.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// True, printed and counted, if runc is under test: it rightly does not meet what follows, and
    /// `why` says why.
    pub fn differs(&self, why: &str) -> bool {
        self.kind == Kind::Runc && skip(&format!("runc differs: {why}"))
    }

    /// True, printed and counted, if `missing`: this machine cannot show what follows.
    ///
    /// # Panics
    /// Instead, with `KEEL_MUST_RUN` set, as in the test guest: that has what tests need.
    pub fn host_lacks(&self, what: &str, missing: bool) -> bool {
        let must_run = std::env::var_os("KEEL_MUST_RUN").is_some();
        assert!(!(missing && must_run), "this host lacks {what}");
        missing && skip(&format!("this host lacks {what}"))
    }

    /// The file of the binary under test.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// What to execute: the binary, or its launcher first.
    pub(crate) fn program(&self) -> Vec<&OsStr> {
        let mut words: Vec<&OsStr> = self.launcher.iter().map(OsStr::new).collect();
        words.push(self.binary.as_os_str());
        if self.binary.ends_with("crun") {
            // It cannot make cgroups on a hybrid host.
            words.push(OsStr::new("--cgroup-manager=disabled"));
        }
        words
    }

    /// The word in every name of this test.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A container id of this test's own.
    pub fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.token)
    }

    /// The directory given with `--root`.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A scratch directory, world-accessible, gone after the test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A new busybox bundle in the scratch directory.
    pub fn bundle(&self) -> Bundle {
        let bundle = Bundle::new(self.dir.path(), &self.token);
        if let Some(user) = self.user {
            bundle.give_to(user);
        }
        bundle
    }

    /// A command line after `--root`.
    pub fn call<S: AsRef<OsStr>>(&self, args: &[S]) -> Call<'_> {
        Call::new(self, args)
    }

    /// `create`, which must succeed; the container's output goes to a file.
    pub fn create(&self, bundle: &Bundle) -> Container<'_> {
        Container::create(self, bundle)
    }

    /// `create` and `start`.
    pub fn start(&self, bundle: &Bundle) -> Container<'_> {
        let container = self.create(bundle);
        container.start();
        container
    }

    /// `run` in the foreground.
    pub fn run(&self, bundle: &Bundle) -> crate::Run {
        self.call_run(bundle).run()
    }

    /// The `run` command line of a bundle, to be amended.
    pub fn call_run(&self, bundle: &Bundle) -> Call<'_> {
        let path = bundle.save();
        self.call(&[
            OsStr::new("run"),
            OsStr::new("--bundle"),
            path.as_os_str(),
            OsStr::new(bundle.id()),
        ])
    }

    /// Runs a shell script in the bundle's container and returns what it printed.
    ///
    /// # Panics
    /// If the script does not exit with 0.
    pub fn sh(&self, bundle: &mut Bundle, script: &str) -> String {
        bundle.sh(script);
        self.run(bundle).succeeds().stdout
    }

    /// What this host has gained or lost since [`Runtime::new`].
    pub fn changes(&self) -> Vec<String> {
        self.before.changes_after_settling(Scope {
            token: &self.token,
            root: &self.root(),
        })
    }

    /// # Panics
    /// If anything is left over.
    pub fn assert_clean(&self, after: &str) {
        let changes = self.changes();
        assert!(
            changes.is_empty(),
            "the host differs after {after}:\n{}",
            changes.join("\n")
        );
    }

    fn delete_everything(&self) {
        for entry in fs::read_dir(self.root()).into_iter().flatten().flatten() {
            let id = entry.file_name();
            let _ = self
                .call(&[OsStr::new("delete"), OsStr::new("--force"), &id])
                .run();
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.delete_everything();
        if let Some(mut holder) = self.holder.take() {
            let _ = holder.kill();
            let _ = holder.wait();
        }
        if !std::thread::panicking() && !self.may_leave_traces {
            self.assert_clean("the test");
        }
    }
}

fn skip(why: &str) -> bool {
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let thread = std::thread::current();
    let line = format!(
        "SKIPPED ({count}) {}: {why}\n",
        thread.name().unwrap_or("?")
    );
    // Written directly, not by print!, so that the test framework does not swallow it.
    let _ = std::io::stderr().write_all(line.as_bytes());
    true
}

/// `KEEL_UNDER_TEST`, or the keel that was built with these tests.
///
/// # Panics
/// If there is no such file.
pub fn binary_under_test() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let path = match std::env::var_os("KEEL_UNDER_TEST") {
            Some(path) => PathBuf::from(path),
            None => beside_the_tests("keel"),
        };
        let advice = "build keel first (cargo build), or set KEEL_UNDER_TEST to a runtime's path";
        fs::canonicalize(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; {advice}", path.display()))
    })
}

/// A program in the directory above the one of the running test binary (`target/…/debug/deps`).
pub(crate) fn beside_the_tests(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test binary has a path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("target/…/debug/deps/TEST");
    profile.join(name)
}

fn kind_of(binary: &Path) -> Kind {
    match binary.file_name().and_then(OsStr::to_str) {
        Some("runc") => Kind::Runc,
        Some("crun" | "naive-runtime") => Kind::Other,
        _ => Kind::Keel,
    }
}
