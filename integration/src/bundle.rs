//! Bundles: a root file system made of busybox, and a config.json to be changed at will.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::call::PATH;
use crate::host::{awaited_child, forget_child};

/// A bundle directory. `config.json` is written whenever the bundle is given to the runtime.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    id: String,
    /// What `config.json` will hold.
    pub spec: Value,
}

static BUNDLES: AtomicUsize = AtomicUsize::new(0);

impl Bundle {
    /// A bundle in a new directory under `dir`, with an id that begins with `token`.
    ///
    /// # Panics
    /// If the directory cannot be filled.
    pub(crate) fn new(dir: &Path, token: &str) -> Self {
        let number = BUNDLES.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("bundle{number}"));
        let this = Self {
            id: format!("{token}-c{number}"),
            path,
            spec: default_spec(),
        };
        fill(&this.rootfs());
        this
    }

    /// Makes `user` the owner of the bundle's directories. Files stay: busybox is a hard link.
    pub(crate) fn give_to(&self, user: u32) {
        fn give(dir: &Path, user: u32) {
            chown(dir, Some(user), Some(user)).expect("tests run as root");
            for entry in fs::read_dir(dir).expect("it is a directory").flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    give(&entry.path(), user);
                }
            }
        }
        give(&self.path, user);
    }

    /// The bundle's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The root file system's directory.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// The id that the container will have.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes `config.json`; returns the bundle's directory.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn save(&self) -> &Path {
        let text = serde_json::to_vec_pretty(&self.spec).expect("a Value is JSON");
        fs::write(self.path.join("config.json"), text).expect("the bundle is writable");
        &self.path
    }

    /// Sets the value at a JSON pointer such as `/process/cwd`, making objects on the way.
    ///
    /// # Panics
    /// If the way leads through something that is no object.
    pub fn set(&mut self, pointer: &str, value: impl Into<Value>) -> &mut Self {
        let mut place = &mut self.spec;
        for key in pointer.split('/').skip(1) {
            if place.is_null() {
                *place = json!({});
            }
            place = match place {
                Value::Array(items) => &mut items[key.parse::<usize>().expect("an index")],
                other => &mut other[key],
            };
        }
        *place = value.into();
        self
    }

    /// Removes the value at a JSON pointer, if there is one.
    pub fn unset(&mut self, pointer: &str) -> &mut Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap_or(("", pointer));
        if let Some(Value::Object(parent)) = self.spec.pointer_mut(parent) {
            parent.remove(key);
        }
        self
    }

    /// Appends to the array at a JSON pointer, which is made if there is none.
    ///
    /// # Panics
    /// If there is something else.
    pub fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        if self.spec.pointer(pointer).is_none() {
            self.set(pointer, json!([]));
        }
        match self.spec.pointer_mut(pointer) {
            Some(Value::Array(items)) => items.push(value),
            _ => panic!("{pointer} is not an array"),
        }
        self
    }

    /// `process.args`.
    pub fn args(&mut self, args: &[&str]) -> &mut Self {
        self.set("/process/args", json!(args))
    }

    /// `process.args` of a shell script.
    pub fn sh(&mut self, script: &str) -> &mut Self {
        self.args(&["/bin/sh", "-c", script])
    }

    /// A process that sleeps until it is killed.
    pub fn sleeper(&mut self) -> &mut Self {
        self.args(&["/bin/sleep", "1000000"])
    }

    /// Adds a variable to `process.env`.
    pub fn env(&mut self, assignment: &str) -> &mut Self {
        self.push("/process/env", json!(assignment))
    }

    /// Appends a mount; `options` as in fstab, separated by commas.
    pub fn mount(&mut self, fstype: &str, source: &str, target: &str, options: &str) -> &mut Self {
        let options: Vec<&str> = options
            .split(',')
            .filter(|option| !option.is_empty())
            .collect();
        let entry = json!({
            "destination": target, "type": fstype, "source": source, "options": options,
        });
        self.push("/mounts", entry)
    }

    /// Appends a bind mount.
    pub fn bind(&mut self, source: &Path, target: &str, options: &str) -> &mut Self {
        self.mount("bind", &source.to_string_lossy(), target, options)
    }

    /// Removes a namespace type from the list: the runtime's own is used.
    pub fn share(&mut self, namespace: &str) -> &mut Self {
        if let Some(Value::Array(list)) = self.spec.pointer_mut("/linux/namespaces") {
            list.retain(|entry| entry["type"] != namespace);
        }
        self
    }

    /// Adds a new namespace to the list.
    pub fn new_namespace(&mut self, namespace: &str) -> &mut Self {
        self.share(namespace);
        self.push("/linux/namespaces", json!({ "type": namespace }))
    }

    /// The namespace to be joined is at `path`.
    pub fn join(&mut self, namespace: &str, path: &str) -> &mut Self {
        self.share(namespace);
        self.push(
            "/linux/namespaces",
            json!({ "type": namespace, "path": path }),
        )
    }

    /// A new user namespace: container ids from 0 on are host ids from `host` on.
    pub fn user_namespace(&mut self, host: u32, size: u32) -> &mut Self {
        let map = json!([{ "containerID": 0, "hostID": host, "size": size }]);
        self.new_namespace("user");
        self.set("/linux/uidMappings", map.clone());
        self.set("/linux/gidMappings", map)
    }

    /// The same capabilities in all five sets.
    pub fn capabilities(&mut self, names: &[&str]) -> &mut Self {
        for set in [
            "bounding",
            "effective",
            "inheritable",
            "permitted",
            "ambient",
        ] {
            self.set(&format!("/process/capabilities/{set}"), json!(names));
        }
        self
    }

    /// Puts the static program `/bin/probe` into the root file system.
    ///
    /// # Panics
    /// If it was not built.
    pub fn probe(&mut self) -> &mut Self {
        let program = crate::runtime::beside_the_tests("probe");
        let place = self.rootfs().join("bin/probe");
        fs::copy(&program, place).expect("cargo builds probe with the tests");
        self
    }

    /// Puts a file with these contents and permissions into the root file system.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn file(&mut self, path: &str, contents: &str, mode: u32) -> &mut Self {
        use std::os::unix::fs::PermissionsExt;
        let path = self.rootfs().join(path.trim_start_matches('/'));
        let parent = path.parent().expect("a file is in a directory");
        fs::create_dir_all(parent).expect("the bundle is writable");
        fs::write(&path, contents).expect("the bundle is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("we own it");
        self
    }
}

/// The capabilities of the default container: as root, but not of the whole machine.
const CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

fn default_spec() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/true"],
            "env": [format!("PATH={PATH}"), "HOME=/root"],
            "cwd": "/",
            "capabilities": {
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES,
            },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "hostname": "bundle",
        "mounts": default_mounts(),
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "mount" },
            ],
        },
    })
}

fn default_mounts() -> Value {
    let devpts = [
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": devpts },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
          "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
        { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
          "options": ["nosuid", "noexec", "nodev"] },
        { "destination": "/sys", "type": "sysfs", "source": "sysfs",
          "options": ["nosuid", "noexec", "nodev", "ro"] },
    ])
}

/// Makes a root file system of busybox and a name for each of its applets.
fn fill(rootfs: &Path) {
    let dirs = [
        "bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "sys", "tmp", "var/tmp",
    ];
    for dir in dirs {
        fs::create_dir_all(rootfs.join(dir)).expect("the scratch directory is writable");
    }
    let (busybox, applets) = busybox();
    let bin = rootfs.join("bin");
    let place = bin.join("busybox");
    // A hard link is enough: nothing writes to it. Across file systems it must be a copy.
    fs::hard_link(busybox, &place)
        .or_else(|_| fs::copy(busybox, &place).map(drop))
        .expect("busybox can be copied");
    for applet in applets.iter().filter(|applet| *applet != "busybox") {
        symlink("busybox", bin.join(applet)).expect("the bundle is writable");
    }
    let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/sh\n";
    fs::write(rootfs.join("etc/passwd"), users).expect("the bundle is writable");
    let groups = "root:x:0:\nnogroup:x:65534:\n";
    fs::write(rootfs.join("etc/group"), groups).expect("the bundle is writable");
}

/// A private copy of the machine's static busybox, made once per test binary, and its applets.
///
/// The copy stays in the temporary directory, named by size, so that the next run finds it.
fn busybox() -> &'static (PathBuf, Vec<String>) {
    static BUSYBOX: OnceLock<(PathBuf, Vec<String>)> = OnceLock::new();
    BUSYBOX.get_or_init(|| {
        let installed = Path::new("/usr/bin/busybox");
        let size = fs::metadata(installed)
            .expect("apt-get install busybox-static")
            .len();
        let copy = std::env::temp_dir().join(format!("keel-tests-busybox-{size}"));
        if !copy.exists() {
            let partial = copy.with_extension(std::process::id().to_string());
            fs::copy(installed, &partial).expect("the temporary directory is writable");
            fs::rename(&partial, &copy).expect("the temporary directory is writable");
        }
        let mut command = Command::new(installed);
        command.arg("--list").stdout(Stdio::piped());
        let child = awaited_child(|| command.spawn()).expect("busybox runs");
        let pid = i32::try_from(child.id()).expect("a pid fits an int");
        let list = child.wait_with_output().expect("nobody else reaps it");
        forget_child(pid);
        let list = String::from_utf8(list.stdout).expect("applet names are ASCII");
        (copy, list.lines().map(String::from).collect())
    })
}
