//! Where a test works: the runtime's command line, bundles, containers, and their removal.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::config::Config;
use crate::inside::View;
use crate::requirement::{Verdict, Why, ensure};

/// A command of the runtime that takes longer has hung.
const LIMIT: Duration = Duration::from_secs(30);

/// One runtime, and a directory to work in.
pub struct Lab {
    pub runtime: PathBuf,
    /// Written before the other global options, as `--systemd-cgroup`.
    globals: Vec<String>,
    work: TempDir,
    next: Cell<u32>,
}

/// What a command of the runtime answered.
#[derive(Debug)]
pub struct Call {
    /// `None` if it was killed, by a signal or because it hung.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Call {
    pub fn ok(&self) -> bool {
        self.status == Some(0)
    }

    /// The last line on standard error that says something.
    pub fn cause(&self) -> &str {
        self.stderr
            .lines()
            .rev()
            .find(|l| !l.trim().is_empty())
            .unwrap_or("no message")
    }
}

/// A bundle directory; `config` is written by [`Lab::create`] and [`Lab::run`].
pub struct Bundle {
    pub dir: PathBuf,
    pub config: Config,
}

impl Bundle {
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// The absolute path of `name` in the root file system, seen from the host.
    pub fn host(&self, name: &str) -> String {
        self.rootfs()
            .join(name.trim_start_matches('/'))
            .to_string_lossy()
            .into_owned()
    }

    /// Writes the edited config.json.
    pub fn write(&self) -> Result<(), String> {
        let path = self.dir.join("config.json");
        fs::write(&path, self.config.0.to_string())
            .map_err(|e| format!("cannot write {}: {e}", path.display()))
    }

    /// Writes a file into the root file system.
    pub fn file(&self, name: &str, text: &str) -> Result<(), String> {
        fs::write(self.host(name), text).map_err(|e| format!("cannot write {name}: {e}"))
    }

    /// Makes a directory in the root file system.
    pub fn mkdir(&self, name: &str) -> Result<(), String> {
        fs::create_dir_all(self.host(name)).map_err(|e| format!("cannot make {name}: {e}"))
    }

    /// The process reports what it sees, and what each try (see [`crate::inside::tries`]) gives.
    pub fn report(&mut self, tries: &[&str]) {
        let args: Vec<&str> = ["/oci-tests", "inside"]
            .iter()
            .chain(tries)
            .copied()
            .collect();
        self.config.args(&args);
    }
}

impl Lab {
    /// # Errors
    /// If the runtime does not exist, or no work directory can be made.
    pub fn new(runtime: &Path, globals: &[String]) -> Result<Self, String> {
        if !runtime.is_file() {
            return Err(format!("{}: no such runtime", runtime.display()));
        }
        let fail = |e: io::Error| format!("cannot make a work directory: {e}");
        let work = tempfile::Builder::new()
            .prefix("oci-tests")
            .tempdir()
            .map_err(fail)?;
        // The root of a user namespace has to walk down to its root file system.
        fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755)).map_err(fail)?;
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .iter()
            .find(|p| Path::new(p).exists())
            .ok_or("busybox is not found: install busybox-static")?;
        fs::copy(busybox, work.path().join("busybox")).map_err(fail)?;
        fs::copy("/proc/self/exe", work.path().join("oci-tests")).map_err(fail)?;
        Ok(Self {
            runtime: runtime.to_owned(),
            globals: globals.to_owned(),
            work,
            next: Cell::new(0),
        })
    }

    /// A fresh name for containers, directories and cgroups.
    pub fn fresh(&self) -> String {
        self.next.set(self.next.get() + 1);
        format!("ocit{}-{}", std::process::id(), self.next.get())
    }

    /// The helper's path on the host, for hooks.
    pub fn helper(&self) -> String {
        self.work
            .path()
            .join("oci-tests")
            .to_string_lossy()
            .into_owned()
    }

    /// An empty directory that the lab removes at its end.
    pub fn dir(&self) -> Result<PathBuf, String> {
        let dir = self.work.path().join(self.fresh());
        fs::create_dir(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        Ok(dir)
    }

    /// A bundle with the base configuration and a root file system of busybox and the helper.
    pub fn bundle(&self) -> Result<Bundle, String> {
        let dir = self.dir()?;
        let root = dir.join("rootfs");
        let fail = |e: io::Error| format!("cannot make a root file system: {e}");
        for name in ["bin", "proc", "dev", "sys", "tmp", "etc", "mnt"] {
            fs::create_dir_all(root.join(name)).map_err(fail)?;
        }
        let work = self.work.path();
        fs::hard_link(work.join("busybox"), root.join("bin/busybox")).map_err(fail)?;
        fs::hard_link(work.join("oci-tests"), root.join("oci-tests")).map_err(fail)?;
        symlink("busybox", root.join("bin/sh")).map_err(fail)?;
        Ok(Bundle {
            dir,
            config: Config::base(),
        })
    }

    /// Runs `RUNTIME --root … args`, bounded in time, with files for its output.
    pub fn call(&self, args: &[&str]) -> Result<Call, String> {
        self.call_in(&self.work.path().join("call"), args)
    }

    /// [`Lab::call`], with the output in `PREFIX.out` and `PREFIX.err`: what a container inherits.
    fn call_in(&self, prefix: &Path, args: &[&str]) -> Result<Call, String> {
        let fail = |e: io::Error| format!("cannot run {}: {e}", self.runtime.display());
        let (out, err) = (prefix.with_extension("out"), prefix.with_extension("err"));
        let mut child = Command::new(&self.runtime)
            .args(&self.globals)
            .arg("--root")
            .arg(self.work.path().join("state"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(File::create(&out).map_err(fail)?)
            .stderr(File::create(&err).map_err(fail)?)
            .spawn()
            .map_err(fail)?;
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(fail)? {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().and_then(|()| child.wait()).map_err(fail)?;
                return Err(format!("{} hung for {LIMIT:?}", args.join(" ")));
            }
            thread::sleep(Duration::from_millis(2));
        };
        let read = |path| fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned());
        let (stdout, stderr) = (read(out).map_err(fail)?, read(err).map_err(fail)?);
        Ok(Call {
            status: status.code(),
            stdout,
            stderr,
        })
    }

    /// `create`, whatever comes of it. The container is removed when the value is dropped.
    pub fn try_create(&self, bundle: &Bundle) -> Result<(Container<'_>, Call), String> {
        self.try_create_with(bundle, &[])
    }

    /// [`Lab::try_create`] with more options before the id.
    pub fn try_create_with(
        &self,
        bundle: &Bundle,
        options: &[&str],
    ) -> Result<(Container<'_>, Call), String> {
        bundle.write()?;
        let id = self.fresh();
        let output = bundle.dir.join("output");
        let container = Container {
            lab: self,
            id,
            output: output.clone(),
        };
        let dir = bundle.dir.to_string_lossy();
        let mut args = vec!["create", "--bundle", &dir];
        args.extend(options);
        args.push(&container.id);
        let call = self.call_in(&output, &args)?;
        Ok((container, call))
    }

    /// `create` that must succeed.
    pub fn create(&self, bundle: &Bundle) -> Result<Container<'_>, Why> {
        let (container, call) = self.try_create(bundle)?;
        ensure!(call.ok(), "create failed: {}", call.cause());
        Ok(container)
    }

    /// `create` and `start` that must succeed.
    pub fn started(&self, bundle: &Bundle) -> Result<Container<'_>, Why> {
        let container = self.create(bundle)?;
        container.start()?;
        Ok(container)
    }

    /// Creates, starts, awaits the end of the process, deletes; gives what it printed.
    pub fn run(&self, bundle: &Bundle) -> Result<String, Why> {
        let container = self.started(bundle)?;
        container.wait_stopped()?;
        container.printed()
    }

    /// Runs the helper inside a container and returns its report.
    ///
    /// # Errors
    /// If a step of the lifecycle fails, or the helper gives no report.
    pub fn view(
        &self,
        tries: &[&str],
        edit: impl FnOnce(&mut Bundle) -> Result<(), String>,
    ) -> Result<View, Why> {
        let mut bundle = self.bundle()?;
        bundle.report(tries);
        edit(&mut bundle)?;
        View::parse(&self.run(&bundle)?)
    }

    /// [`Lab::view`] for edits of the configuration alone.
    pub fn see(&self, tries: &[&str], edit: impl FnOnce(&mut Config)) -> Result<View, Why> {
        self.view(tries, |bundle| {
            edit(&mut bundle.config);
            Ok(())
        })
    }

    /// Passes if `create` fails and leaves no container. `what` names the bad configuration.
    pub fn refuses(&self, what: &str, edit: impl FnOnce(&mut Config)) -> Verdict {
        let mut bundle = self.bundle()?;
        bundle.config.sleep();
        edit(&mut bundle.config);
        self.refuses_bundle(what, &bundle)
    }

    /// [`Lab::refuses`] for a bundle that is already made.
    pub fn refuses_bundle(&self, what: &str, bundle: &Bundle) -> Verdict {
        let (container, call) = self.try_create(bundle)?;
        ensure!(!call.ok(), "create accepts {what}");
        ensure!(call.status.is_some(), "create dies of a signal on {what}");
        ensure!(!container.exists()?, "the refused container exists");
        Ok(())
    }

    /// Passes if `create` fails, or `start` does: some values are known only to the kernel.
    pub fn refuses_by_start(&self, what: &str, edit: impl FnOnce(&mut Config)) -> Verdict {
        let mut bundle = self.bundle()?;
        bundle.config.sleep();
        edit(&mut bundle.config);
        let (container, call) = self.try_create(&bundle)?;
        if call.ok() {
            let start = self.call(&["start", &container.id])?;
            ensure!(!start.ok(), "create and start accept {what}");
        }
        Ok(())
    }

    /// The `features` document, or a skip for a runtime without that command.
    pub fn features(&self) -> Result<Value, Why> {
        let call = self.call(&["features"])?;
        if !call.ok() {
            return Err(Why::Skip(format!("no features command: {}", call.cause())));
        }
        serde_json::from_str(&call.stdout)
            .map_err(|e| Why::Fail(format!("features is not JSON: {e}")))
    }
}

impl Drop for Lab {
    /// Removes cgroups that nobody is asked to remove: parents of the paths in a configuration,
    /// and those a failing runtime has left.
    fn drop(&mut self) {
        let prefix = format!("ocit{}-", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let controllers = fs::read_dir(root)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path());
        for dir in controllers.chain([root.to_owned()]) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    remove_cgroup(&entry.path());
                }
            }
        }
    }
}

/// Removes an empty cgroup and those below; what is in use stays.
fn remove_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

/// A container that a test made; removed by force when dropped.
pub struct Container<'a> {
    lab: &'a Lab,
    pub id: String,
    /// Where its output is.
    output: PathBuf,
}

impl Container<'_> {
    pub fn call(&self, args: &[&str]) -> Result<Call, String> {
        self.lab.call(args)
    }

    /// `start` that must succeed.
    pub fn start(&self) -> Verdict {
        let call = self.call(&["start", &self.id])?;
        ensure!(call.ok(), "start failed: {}", call.cause());
        Ok(())
    }

    /// `state`, parsed.
    pub fn state(&self) -> Result<Value, Why> {
        let call = self.call(&["state", &self.id])?;
        ensure!(call.ok(), "state failed: {}", call.cause());
        serde_json::from_str(&call.stdout).map_err(|e| Why::Fail(format!("state is not JSON: {e}")))
    }

    pub fn status(&self) -> Result<String, Why> {
        Ok(self.state()?["status"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    /// The pid of the container process, from `state`.
    pub fn pid(&self) -> Result<i64, Why> {
        let state = self.state()?;
        state["pid"]
            .as_i64()
            .ok_or_else(|| Why::Fail(format!("no pid in {state}")))
    }

    pub fn exists(&self) -> Result<bool, String> {
        Ok(self.call(&["state", &self.id])?.ok())
    }

    /// `kill` that must succeed.
    pub fn kill(&self, signal: &str) -> Verdict {
        let call = self.call(&["kill", &self.id, signal])?;
        ensure!(call.ok(), "kill failed: {}", call.cause());
        Ok(())
    }

    /// `delete` that must succeed.
    pub fn delete(&self) -> Verdict {
        let call = self.call(&["delete", &self.id])?;
        ensure!(call.ok(), "delete failed: {}", call.cause());
        Ok(())
    }

    /// Waits until `state` says stopped.
    pub fn wait_stopped(&self) -> Verdict {
        let deadline = Instant::now() + LIMIT;
        while self.status()? != "stopped" {
            ensure!(
                Instant::now() < deadline,
                "it does not stop within {LIMIT:?}"
            );
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// SIGKILL, and wait.
    pub fn stop(&self) -> Verdict {
        self.kill("KILL")?;
        self.wait_stopped()
    }

    /// `exec` of a command, whatever comes of it.
    pub fn exec(&self, args: &[&str]) -> Result<Call, String> {
        let all: Vec<&str> = ["exec", &self.id].iter().chain(args).copied().collect();
        self.call(&all)
    }

    /// `exec` of the helper with the process of `edit`, a process.json.
    pub fn exec_view(&self, edit: impl FnOnce(&mut Config)) -> Result<View, Why> {
        let mut process = Config(json!({
            "user": {"uid": 0, "gid": 0}, "args": ["/oci-tests", "inside"],
            "env": ["PATH=/bin"], "cwd": "/"
        }));
        edit(&mut process);
        let path = self.output.with_file_name("process.json");
        fs::write(&path, process.0.to_string()).map_err(|e| format!("process.json: {e}"))?;
        let call = self.call(&["exec", "--process", &path.to_string_lossy(), &self.id])?;
        ensure!(call.ok(), "exec failed: {}", call.cause());
        View::parse(&call.stdout)
    }

    /// What the process has printed so far.
    pub fn printed(&self) -> Result<String, Why> {
        let text = fs::read_to_string(self.output.with_extension("out"))
            .map_err(|e| format!("cannot read its output: {e}"))?;
        Ok(text)
    }

    /// What the process and `create` have written to standard error.
    pub fn complained(&self) -> String {
        fs::read_to_string(self.output.with_extension("err")).unwrap_or_default()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // The verdict is in; a runtime without `delete --force` leaves its container behind.
        let _ = self.lab.call(&["delete", "--force", &self.id]);
    }
}
