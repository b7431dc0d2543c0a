//! A created container, seen as its caller sees it.

use std::ffi::OsStr;
use std::fs::{self, File};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::call::{contents, ends_in_time};
use crate::host::{forget_child, reap_orphans, remember_child};
use crate::{Bundle, Call, Run, Runtime, proc, wait_for};

/// A container made by `create`, whose first process is a child of the test (as of a shim).
///
/// When it is dropped it is deleted by force and the process is reaped.
#[derive(Debug)]
pub struct Container<'r> {
    runtime: &'r Runtime,
    id: String,
    pid: i32,
    stdout: Option<File>,
    stderr: Option<File>,
    reaped: std::cell::Cell<bool>,
}

impl<'r> Container<'r> {
    pub(crate) fn create(runtime: &'r Runtime, bundle: &Bundle) -> Self {
        Self::create_with(runtime, bundle, |call| call)
    }

    /// `create --bundle B --pid-file P ID`, with amendments; it must succeed in silence.
    ///
    /// # Panics
    /// If it fails, or prints anything.
    pub fn create_with(
        runtime: &'r Runtime,
        bundle: &Bundle,
        amend: impl FnOnce(Call<'r>) -> Call<'r>,
    ) -> Self {
        let path = bundle.save();
        let pid_file = path.join("pid");
        let args = [
            OsStr::new("create"),
            OsStr::new("--bundle"),
            path.as_os_str(),
            OsStr::new("--pid-file"),
            pid_file.as_os_str(),
            OsStr::new(bundle.id()),
        ];
        let (run, stdout, stderr) = amend(runtime.call(&args)).spawn().finish();
        let run = run.succeeds();
        assert_eq!(run.stderr, "", "create says something though it succeeds");
        let pid = fs::read_to_string(&pid_file).expect("create writes the pid file");
        let pid = pid
            .parse()
            .unwrap_or_else(|_| panic!("the pid file holds {pid:?}"));
        remember_child(pid);
        Self {
            runtime,
            id: bundle.id().to_string(),
            pid,
            stdout,
            stderr,
            reaped: false.into(),
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its first process on the host, from the pid file.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A command about this container: `VERB [FLAG…] ID`.
    pub fn call(&self, verb: &[&str]) -> Call<'r> {
        let mut words = verb.to_vec();
        words.push(&self.id);
        self.runtime.call(&words)
    }

    /// `start`, which must succeed.
    pub fn start(&self) {
        let _ = self.call(&["start"]).run().succeeds();
    }

    /// `state`, parsed.
    pub fn state(&self) -> Value {
        self.call(&["state"]).run().succeeds().json()
    }

    /// The word in `state`: created, running, paused or stopped.
    ///
    /// # Panics
    /// If there is none.
    pub fn status(&self) -> String {
        self.state()["status"]
            .as_str()
            .expect("state has a status")
            .to_string()
    }

    /// Waits until `state` says `status`.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait_for_status(&self, status: &str) {
        wait_for(&format!("status {status}"), || self.status() == status);
    }

    /// `kill ID SIGNAL`.
    pub fn kill(&self, signal: &str) -> Run {
        self.runtime.call(&["kill", &self.id, signal]).run()
    }

    /// `delete ID`.
    pub fn delete(&self) -> Run {
        self.call(&["delete"]).run()
    }

    /// Kills it, waits for the end of its first process, and deletes it; all must succeed.
    ///
    /// # Panics
    /// If anything fails.
    pub fn finish(self) {
        let _ = self.kill("KILL").succeeds();
        assert_eq!(self.wait(), 128 + 9, "exit code after SIGKILL");
        let _ = self.delete().succeeds();
    }

    /// Waits for the first process as a shim does; its exit code, or 128 + signal.
    ///
    /// # Panics
    /// If it is no child of the test, or takes too long.
    pub fn wait(&self) -> i32 {
        assert!(
            ends_in_time(self.pid),
            "the container {} does not end",
            self.id
        );
        self.reaped.set(true);
        forget_child(self.pid);
        match waitpid(Pid::from_raw(self.pid), None) {
            Ok(WaitStatus::Exited(_, code)) => code,
            Ok(WaitStatus::Signaled(_, signal, _)) => 128 + signal as i32,
            other => panic!("the container's first process is not our child: {other:?}"),
        }
    }

    /// What the container has printed so far.
    pub fn stdout(&self) -> String {
        contents(self.stdout.as_ref())
    }

    /// What the container has printed to its standard error so far.
    pub fn stderr(&self) -> String {
        contents(self.stderr.as_ref())
    }

    /// Waits until `text` is on the container's standard output.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait_for_stdout(&self, text: &str) {
        wait_for(&format!("{text:?} from {}", self.id), || {
            self.stdout().contains(text)
        });
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let run = self.call(&["delete", "--force"]).run();
        if !self.reaped.get() && (run.code == 0 || !proc::is_alive(self.pid)) {
            // After a failed test the process may be anybody's child; then there is nothing to do.
            // Its pid namespace ends when all in it are reaped: what another runtime's exec has left, too.
            let end = Pid::from_raw(self.pid);
            while waitpid(end, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive) {
                reap_orphans();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            forget_child(self.pid);
        }
        if !std::thread::panicking() {
            let _ = run.succeeds();
        }
    }
}
