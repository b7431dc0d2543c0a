//! Prepares the machine: a private mount namespace with pure cgroup v2, a work directory with the
//! compiled helpers, and the job of reaping what a detached start leaves behind.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::fcntl::AT_FDCWD;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mknod};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Every container, cgroup and directory of a measurement has a name that begins with this.
pub const PREFIX: &str = "keelbench";

/// Where the measurement happens.
pub struct Host {
    work: TempDir,
    /// See [`Host::hold_device_filter`]; it ends with its standard input.
    holder: Option<Child>,
}

impl Host {
    /// Enters a mount namespace of its own with cgroup v2 at /sys/fs/cgroup, and compiles the
    /// helpers with `cc`.
    ///
    /// The cgroup tree is the machine's own; on a machine that runs v1 beside it, it has no
    /// controllers, which costs every runtime alike.
    ///
    /// # Errors
    /// Without root, or without a C compiler that can link statically.
    pub fn prepare() -> Result<Self, String> {
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|e| format!("cannot unshare the mount namespace (root is needed): {e}"))?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .map_err(|e| format!("cannot make the mounts private: {e}"))?;
        if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            mount(
                Some("cgroup2"),
                "/sys/fs/cgroup",
                Some("cgroup2"),
                MsFlags::empty(),
                none,
            )
            .map_err(|e| format!("cannot mount cgroup2 at /sys/fs/cgroup: {e}"))?;
        }
        // What a detached `create` leaves behind becomes our child, so that its end can be awaited.
        nix::sys::prctl::set_child_subreaper(true)
            .map_err(|e| format!("cannot become a child subreaper: {e}"))?;
        let mut host = Self::plain()?;
        // Where a runtime keeps its state: /run is a tmpfs on nearly every host.
        let run = host.path("run");
        fs::create_dir(&run).map_err(|e| format!("cannot make {}: {e}", run.display()))?;
        mount(Some("run"), &run, Some("tmpfs"), MsFlags::empty(), none)
            .map_err(|e| format!("cannot mount a tmpfs at {}: {e}", run.display()))?;
        host.hide_null()?;
        host.compile("floor", include_str!("../floor.c"))?;
        host.compile("rusage", include_str!("../rusage.c"))?;
        host.hold_device_filter()?;
        Ok(host)
    }

    /// A work directory, and the machine as it is.
    ///
    /// # Errors
    /// If /tmp cannot be written.
    pub fn plain() -> Result<Self, String> {
        let work = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in("/tmp")
            .map_err(|e| format!("cannot make a work directory in /tmp: {e}"))?;
        Ok(Self { work, holder: None })
    }

    /// The file or directory `name` of the work directory; it need not exist.
    pub fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// Keeps a cgroup with a device filter while the measurement runs.
    ///
    /// The first such filter of a machine switches the kernel's hook on, which stops every CPU, and
    /// the last one off: a cost of the machine, borne by whoever happens to be first. A host with
    /// systemd or with one container has paid it.
    fn hold_device_filter(&mut self) -> Result<(), String> {
        let mut holder = Command::new(self.path("floor"))
            .arg("hold")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot run floor: {e}"))?;
        let mut ready = [0];
        let stdout = holder.stdout.as_mut().ok_or("floor has no output")?;
        stdout
            .read_exact(&mut ready)
            .map_err(|e| format!("floor cannot attach a device filter: {e}"))?;
        self.holder = Some(holder);
        Ok(())
    }

    /// Puts a `/dev/null` of its own over the machine's, which runc 1.1 would give to the root of a user
    /// namespace.
    fn hide_null(&self) -> Result<(), String> {
        let null = self.path("run").join("null");
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&null, SFlag::S_IFCHR, mode, makedev(1, 3))
            .and_then(|()| fchmodat(AT_FDCWD, &null, mode, FchmodatFlags::FollowSymlink))
            .and_then(|()| {
                let none = None::<&str>;
                mount(Some(&null), "/dev/null", none, MsFlags::MS_BIND, none)
            })
            .map_err(|e| format!("cannot put {} over /dev/null: {e}", null.display()))
    }

    fn compile(&self, name: &str, source: &str) -> Result<(), String> {
        let file = self.path(&format!("{name}.c"));
        fs::write(&file, source).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
        let status = Command::new("cc")
            .args(["-O2", "-static", "-o"])
            .arg(self.path(name))
            .arg(&file)
            .status()
            .map_err(|e| format!("cannot run cc, needed to build {name}.c: {e}"))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("cc cannot build {name}.c"))
        }
    }
}

impl Drop for Host {
    /// Removes the cgroups that a failed measurement left; those in use are left alone.
    fn drop(&mut self) {
        if let Some(mut holder) = self.holder.take() {
            drop(holder.stdin.take());
            let _ = holder.wait();
        }
        let _ = umount2(&self.path("run"), MntFlags::MNT_DETACH);
        let Ok(entries) = fs::read_dir("/sys/fs/cgroup") else {
            return;
        };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                // It may still hold a process; nothing else can be done about it here.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// Waits for the process `pid`, which must have become our child, to end.
pub fn reap(pid: i32) {
    while let Ok(WaitStatus::Stopped(..) | WaitStatus::Continued(_)) =
        waitpid(Pid::from_raw(pid), None)
    {}
}
