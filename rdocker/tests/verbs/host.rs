//! A host for one test: own data root, own exec root, an image made from busybox.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: &[&str] = &[
    "sh", "ls", "cat", "echo", "true", "false", "sleep", "id", "env", "touch", "rm", "mkdir",
    "hostname", "head", "seq", "stty", "kill", "test", "pwd", "grep", "yes", "wc", "stat", "trap",
    "httpd", "mkfifo", "ip", "nc", "nslookup", "ping", "printf", "tail",
];

/// Removes its containers and directories when it is dropped.
pub struct TestHost {
    dir: TempDir,
}

/// What one command did.
#[must_use]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    /// Requires success; gives stdout without the last newline.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.out, self.err);
        self.out.trim_end_matches('\n').to_owned()
    }

    /// Requires this exit code; gives stderr.
    pub fn fails(self, code: i32) -> String {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.out, self.err
        );
        self.err
    }
}

impl TestHost {
    /// A host with the image `busybox`, in a network namespace of its own.
    ///
    /// The calling thread goes there, and so does every command that it runs.
    pub fn new() -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let mut netlink = rdocker::network::netlink::Socket::route().unwrap();
        netlink.set_up(1).unwrap();
        let host = Self {
            dir: tempfile::Builder::new()
                .prefix("rdocker-test")
                .tempdir()
                .unwrap(),
        };
        let tar = busybox_tar(host.dir.path());
        let tar = tar.to_str().unwrap().to_owned();
        host.run(&[
            "import",
            "-c",
            "CMD [\"sh\"]",
            "-c",
            "ENV PATH=/bin",
            &tar,
            "busybox",
        ])
        .ok();
        host
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A command that is not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rdocker"));
        command
            .args(args)
            .env("RDOCKER_DATA_ROOT", self.dir.path().join("data"))
            .env("RDOCKER_EXEC_ROOT", self.dir.path().join("run"))
            .env_remove("DOCKER_HOST")
            .stdin(Stdio::null());
        command
    }

    /// Runs `rdocker ARGS…`.
    pub fn run(&self, args: &[&str]) -> Done {
        done(self.command(args).output().unwrap())
    }

    /// Runs it with these bytes on stdin.
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Done {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        done(child.wait_with_output().unwrap())
    }

    /// `rdocker run FLAGS… busybox COMMAND…` without a network.
    pub fn busybox(&self, flags: &[&str], command: &[&str]) -> Done {
        let mut args = vec!["run", "--network", "none"];
        args.extend(flags);
        args.push("busybox");
        args.extend(command);
        self.run(&args)
    }

    /// `inspect --format`.
    pub fn inspect(&self, name: &str, template: &str) -> String {
        self.run(&["inspect", "-f", template, name]).ok()
    }

    /// The monitor's process id: the parent of the container's first process.
    pub fn monitor(&self, name: &str) -> i32 {
        let pid = self.inspect(name, "{{.State.Pid}}");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }
}

/// A root file system with busybox, some users and a volume's content, as an archive in `dir`.
pub fn busybox_tar(dir: &Path) -> PathBuf {
    let root = dir.join("rootfs");
    for name in ["bin", "etc", "tmp", "var/data", "root"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n",
    )
    .unwrap();
    fs::write(
        root.join("etc/group"),
        "root:x:0:\nweb:x:34:\nextra:x:50:web\n",
    )
    .unwrap();
    fs::write(root.join("var/data/from-image"), "image\n").unwrap();
    let tar = dir.join("busybox.tar");
    let made = Command::new("tar")
        .arg("-C")
        .arg(&root)
        .arg("-cf")
        .arg(&tar)
        .arg(".")
        .status();
    assert!(made.unwrap().success());
    tar
}

/// Waits until `check` is true, ten seconds at most.
pub fn eventually(what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a finished command did.
pub fn done(output: Output) -> Done {
    Done {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        let ids = self.run(&["ps", "-aq", "--no-trunc"]).out;
        let mut args = vec!["rm", "-f", "-v"];
        args.extend(ids.lines());
        if args.len() > 3 {
            let _ = self.run(&args);
        }
    }
}
