//! Cgroups that are not where a container's record says: out of sight, or somebody else's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use integration::{Container, Runtime, by_version, is_v2};

/// A command that executes the rest of its command line where `mount` has been done, for itself alone.
fn after(mount: &str) -> [String; 6] {
    let script = format!("set -e; {mount}; exec \"$@\"");
    ["unshare", "--mount", "sh", "-c", &script, "sh"].map(String::from)
}

/// The directory of every hierarchy that is mounted.
fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    if is_v2() {
        return vec![root];
    }
    let entries = fs::read_dir(root).expect("cgroups are mounted");
    let dirs = entries.map(|entry| entry.expect("it is listed").path());
    let is_mounted = |dir: &PathBuf| dir.join("cgroup.procs").exists();
    dirs.filter(|dir| !dir.is_symlink() && is_mounted(dir))
        .collect()
}

/// A cgroup of this name in every hierarchy, with a process in it.
struct Stranger {
    name: String,
    process: Child,
}

impl Stranger {
    fn at(name: &str) -> Self {
        let process = Command::new("sleep").arg("1000").spawn().expect("sleep");
        for hierarchy in hierarchies() {
            let dir = hierarchy.join(name);
            fs::create_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
            let cpuset = |file| fs::read_to_string(hierarchy.join(file));
            for file in ["cpuset.cpus", "cpuset.mems"] {
                // On v1 nobody can enter an empty set of processors.
                let _ = cpuset(file).map(|text| fs::write(dir.join(file), text));
            }
            fs::write(dir.join("cgroup.procs"), process.id().to_string()).expect("root may");
        }
        let name = name.to_owned();
        Self { name, process }
    }

    fn is_well(&mut self) -> bool {
        let is_there = |dir: PathBuf| dir.join(&self.name).exists();
        let lives = self.process.try_wait().expect("ours").is_none();
        lives && hierarchies().into_iter().all(is_there)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for hierarchy in hierarchies() {
            let _ = fs::remove_dir(hierarchy.join(&self.name));
        }
    }
}

/// What a command says of cgroups that it leaves.
const LEFT: &str = "another's now, or no longer mounted: ";

#[test]
fn a_container_made_in_another_is_not_taken_for_a_stranger_of_the_same_path() {
    let runtime = Runtime::new();
    if runtime.differs("it takes the stranger's") {
        return;
    }
    // As in a container without a cgroup namespace: a part of each hierarchy is mounted as the whole.
    let outer = format!("{}-outer", runtime.token());
    let all = by_version("/sys/fs/cgroup/*/", "/sys/fs/cgroup/");
    let inside = after(&format!(
        "for dir in {all}; do test -w $dir/cgroup.procs -a ! -L ${{dir%/}} || continue; mkdir -p $dir/{outer}; \
         for set in cpus mems; do test ! -e $dir/cpuset.$set || \
         cat $dir/cpuset.$set >$dir/{outer}/cpuset.$set; done; \
         mount --bind $dir/{outer} $dir; done"
    ));
    for own_pids in [true, false] {
        let mut bundle = runtime.bundle();
        let name = format!("{}-inner", runtime.token());
        bundle
            .set("/linux/cgroupsPath", format!("/{name}"))
            .sleeper();
        if !own_pids {
            bundle.share("pid");
        }
        let container = Container::create_with(&runtime, &bundle, |call| call.through(&inside));
        container.start();
        let mut stranger = Stranger::at(&name);
        assert_eq!(container.status(), "running");
        let run = container.call(&["delete", "--force"]).run().succeeds();
        assert!(stranger.is_well(), "own pid namespace: {own_pids}");
        assert!(run.stderr.contains(LEFT), "{}", run.stderr);
        assert_eq!(container.wait(), 128 + 9);
        drop(stranger);
        for dir in hierarchies() {
            for left in [format!("{outer}/{name}"), outer.clone()] {
                fs::remove_dir(dir.join(left)).expect("it is empty");
            }
        }
        runtime.assert_clean("delete");
    }
}

#[test]
fn a_cgroup_that_somebody_made_anew_is_not_the_containers() {
    let runtime = Runtime::new();
    if runtime.differs("it takes the stranger's") {
        return;
    }
    let mut bundle = runtime.bundle();
    let name = format!("{}-anew", runtime.token());
    bundle
        .set("/linux/cgroupsPath", format!("/{name}"))
        .sleeper();
    bundle.share("pid");
    let container = runtime.start(&bundle);
    let _ = container.kill("KILL").succeeds();
    assert_eq!(container.wait(), 128 + 9);
    for dir in hierarchies() {
        fs::remove_dir(dir.join(&name)).expect("it is empty");
    }
    let mut stranger = Stranger::at(&name);
    let run = container.call(&["delete"]).run().succeeds();
    assert!(run.stderr.contains(LEFT), "{}", run.stderr);
    assert!(stranger.is_well());
}

#[test]
fn a_container_whose_freezer_is_out_of_sight_is_named_in_bounded_time() {
    let runtime = Runtime::new();
    // On v2 the killed do not stay frozen.
    if is_v2() || runtime.differs("it does not say why") {
        return;
    }
    let freezer = Path::new("/sys/fs/cgroup/freezer");
    let without = after(&format!("mount -t tmpfs none {}", freezer.display()));
    let mut bundle = runtime.bundle();
    let container = runtime.start(bundle.sleeper().share("pid"));
    let _ = container.call(&["pause"]).run().succeeds();
    let start = Instant::now();
    let run = container
        .call(&["delete", "--force"])
        .through(&without)
        .run();
    let took = start.elapsed();
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    let (pid, freezer) = (container.pid(), freezer.display());
    let _ = run.fails_with(&format!(
        "process {pid} does not die; is it frozen? {freezer}"
    ));
    assert!(took < Duration::from_secs(20), "{took:?}");
    let _ = container.call(&["delete", "--force"]).run().succeeds();
    assert_eq!(container.wait(), 128 + 9);
}
