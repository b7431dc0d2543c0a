//! What a build does to the machine while it runs, and how that ends with it.
//!
//! Mounts are made in a mount namespace of the build's own, so the kernel takes them off however
//! it ends. Containers cannot end that way: each has a directory with a lock below the exec root,
//! and the next build deletes those whose lock nobody holds.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use rustix::mount::{MountPropagationFlags, mount_change};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::runtime::Runtime;
use crate::store::gc::remove_tree;
use crate::store::lock::FileLock;

/// Whether the build goes on, and where its containers are noted.
pub struct Sandbox {
    cancelled: AtomicBool,
    runtime: Runtime,
    dir: PathBuf,
}

/// The directory of one container; removed when it is dropped.
pub struct Cell {
    /// Where it is.
    pub dir: PathBuf,
    _lock: FileLock,
}

impl Drop for Cell {
    fn drop(&mut self) {
        // What stays is taken by the next build.
        let _ = remove_tree(&self.dir);
    }
}

impl Sandbox {
    /// Enters a mount namespace of its own, reaps what dead builds left, and from now on takes
    /// the signals that end a process as the end of the build.
    ///
    /// The process has one thread when this is called.
    ///
    /// # Errors
    /// No privilege for a mount namespace.
    pub fn enter(host: &Host) -> Result<Arc<Self>> {
        let denied = |errno: nix::errno::Errno| Error::Hinted {
            message: format!("cannot enter a mount namespace: {}", errno.desc()),
            hint: "build as root".to_owned(),
        };
        unshare(CloneFlags::CLONE_NEWNS).map_err(denied)?;
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", slave)
            .map_err(|errno| Error::host("make the mounts private below", Path::new("/"), errno))?;
        let sandbox = Arc::new(Self {
            cancelled: AtomicBool::new(false),
            runtime: Runtime::find(host, "")?,
            dir: host.exec_root.join("build"),
        });
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&sandbox.dir)
            .map_err(|errno| Error::host("create directory", &sandbox.dir, errno))?;
        sandbox.reap();
        sandbox.watch_signals()?;
        Ok(sandbox)
    }

    /// Deletes the containers of builds that died.
    fn reap(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let dir = entry.path();
            let Ok(Some(_dead)) = FileLock::try_exclusive(&dir.join("lock")) else {
                continue;
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            // A container that is gone already is as good; the directory goes in any case.
            let _ = self.runtime.delete(&dir, &name);
            let _ = remove_tree(&dir);
        }
    }

    fn watch_signals(self: &Arc<Self>) -> Result<()> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .collect();
        signals
            .thread_block()
            .map_err(|errno| Error::host("watch", Path::new("signals"), errno))?;
        let sandbox = Arc::clone(self);
        // It ends with the process.
        std::thread::spawn(move || {
            while signals.wait().is_ok() {
                sandbox.cancel();
            }
        });
        Ok(())
    }

    /// Ends the build: its containers are killed, and its stages stop at the next step.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    /// Whether the build is to end.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// A directory for the container `id`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn cell(&self, id: &str) -> Result<Cell> {
        let dir = self.dir.join(id);
        loop {
            match fs::DirBuilder::new().mode(0o700).create(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(Error::host("create directory", &dir, error));
                }
                _ => {}
            }
            let lock = FileLock::exclusive(&dir.join("lock"))?;
            // Another build may have taken the new directory for a dead one's before it was locked.
            if dir.join("lock").exists() {
                return Ok(Cell { dir, _lock: lock });
            }
        }
    }
}
