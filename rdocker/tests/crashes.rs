//! `kill -9` at random points of load, pull, rmi, import and commit: the store stays consistent,
//! and the next collection leaves nothing over.
//!
//! The work runs in a process of its own: this test binary again, at the test `worker`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/moments.rs"]
mod moments;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::{Host, Protection, Registry, name_of, noise, root_tar};
use moments::Moments;
use rdocker::image::create::{CommitOptions, ImportOptions};
use rdocker::image::pull::PullOptions;
use rdocker::image::registry::RegistryOptions;
use rdocker::image::remove::RemoveOptions;
use rdocker::image::{Images, Quiet};
use rdocker::store::Store;
use rdocker::store::gc::Parts;

const WORK: &str = "RDOCKER_TEST_WORK";

/// Not a test of its own: what the others start and kill. Alone it does nothing.
#[test]
fn worker() {
    let Ok(work) = std::env::var(WORK) else {
        return;
    };
    let [root, verb, argument] = work.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("{work}")
    };
    let store = Store::open(Path::new(root)).unwrap();
    let images = Images::new(&store);
    match verb {
        "load" => drop(
            images
                .load(fs::File::open(argument).unwrap(), None, &Quiet)
                .unwrap(),
        ),
        "pull" => drop(
            images
                .pull(&name_of(argument), &PullOptions::default(), &Quiet)
                .unwrap(),
        ),
        "rmi" => drop(images.remove(argument, &RemoveOptions::default())),
        "import" => {
            let options = ImportOptions {
                name: Some(name_of("i:1")),
                ..ImportOptions::default()
            };
            images
                .import(fs::File::open(argument).unwrap(), &options)
                .unwrap();
        }
        "commit" => {
            let base = images.resolve("base:1").unwrap();
            let options = CommitOptions {
                name: Some(name_of("c:1")),
                ..CommitOptions::default()
            };
            images
                .commit(Some(&base), Path::new(argument), &options)
                .unwrap();
        }
        other => panic!("{other}"),
    }
}

fn start(host: &Host, verb: &str, argument: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker", "--test-threads=1"])
        .env(
            WORK,
            format!("{} {verb} {argument}", host.store.root().display()),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills the work at `rounds` random points of its life, and checks the store after each.
fn torture(host: &Host, verb: &str, argument: &str, rounds: u32, mut before: impl FnMut()) {
    before();
    let begin = Instant::now();
    assert!(
        start(host, verb, argument).wait().unwrap().success(),
        "{verb}: the control run"
    );
    let mut moments = Moments::new(0x1234_5678_9abc_def1, begin.elapsed());
    let mut killed = 0;
    for round in 0..rounds {
        before();
        let mut child = start(host, verb, argument);
        std::thread::sleep(moments.next());
        // It may be finished by now; then the round only checks the result.
        let _ = child.kill();
        let in_time = !child.wait().unwrap().success();
        moments.learn(in_time);
        killed += u32::from(in_time);
        assert_consistent(host, &format!("{verb} {round}"));
    }
    assert!(
        killed * 2 > rounds,
        "{verb}: only {killed} of {rounds} were killed at work"
    );
    assert!(
        start(host, verb, argument).wait().unwrap().success(),
        "{verb}: afterwards"
    );
    assert_consistent(host, verb);
}

/// Every image is whole, and after a collection every file belongs to one.
fn assert_consistent(host: &Host, what: &str) {
    let images = host.images();
    for image in images.list().unwrap() {
        assert!(!image.layers.is_empty(), "{what}");
        for layer in &image.layers {
            assert!(layer.path.is_dir(), "{what}: {}", layer.path.display());
            let files = fs::read_dir(&layer.path).unwrap().count();
            assert!(files > 0, "{what}: an empty layer");
        }
        let mut archive = Vec::new();
        images.save(&[image.id.to_string()], &mut archive).unwrap();
    }
    host.store.collect(Parts::Old).unwrap();
    let (mut layers, mut blobs) = (BTreeSet::new(), 0u64);
    for image in images.list().unwrap() {
        layers.extend(
            image
                .layers
                .iter()
                .map(|layer| layer.chain.hex().to_owned()),
        );
    }
    let names = |dir: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(host.store.root().join(dir)).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert_eq!(names("layers"), layers, "{what}");
    for blob in names("blobs/sha256") {
        blobs += fs::metadata(host.store.root().join("blobs/sha256").join(blob))
            .unwrap()
            .len();
    }
    assert_eq!(
        images.usage().unwrap().blobs,
        blobs,
        "{what}: df tells the truth"
    );
    for dir in ["tmp", "trash"] {
        assert_eq!(names(dir), BTreeSet::new(), "{what}: {dir}");
    }
}

fn files() -> Vec<(String, Vec<u8>)> {
    (0..60u64)
        .map(|n| (format!("bin/f{n}"), noise(20_000, n + 1)))
        .collect()
}

fn archive(host: &Host, name: &str) -> String {
    let source = Host::new();
    let files = files();
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(path, bytes)| (&**path, &**bytes))
        .collect();
    source.import(name, &files);
    let mut bytes = Vec::new();
    source.images().save(&[name], &mut bytes).unwrap();
    let path = host.dir.path().join("image.tar");
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

fn forget(host: &Host, name: &str) {
    // In some rounds there is nothing to forget.
    let _ = host.images().remove(name, &RemoveOptions::default());
}

#[test]
fn a_killed_load_leaves_nothing_half_made() {
    let host = Host::new();
    let archive = archive(&host, "base:1");
    torture(&host, "load", &archive, 130, || forget(&host, "base:1"));
}

#[test]
fn a_killed_pull_leaves_only_what_it_can_resume() {
    let registry = Registry::start(&Protection::default());
    let host = Host::new();
    let source = Host::new();
    let name = format!("{}/x:1", registry.host);
    let archive = archive(&source, &name);
    source
        .images()
        .load(fs::File::open(archive).unwrap(), None, &Quiet)
        .unwrap();
    source
        .images()
        .push(&name_of(&name), &RegistryOptions::default(), &Quiet)
        .unwrap();
    torture(&host, "pull", &name, 130, || forget(&host, &name));
    assert_eq!(host.count("ingest"), 0);
}

#[test]
fn a_killed_rmi_is_finished_by_the_next_command() {
    let host = Host::new();
    let archive = archive(&host, "base:1");
    torture(&host, "rmi", "base:1", 100, || {
        host.images()
            .load(fs::File::open(&archive).unwrap(), None, &Quiet)
            .unwrap();
    });
}

#[test]
fn a_killed_import_leaves_nothing_half_made() {
    let host = Host::new();
    let path = host.dir.path().join("root.tar");
    let files = files();
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(path, bytes)| (&**path, &**bytes))
        .collect();
    fs::write(&path, root_tar(&files)).unwrap();
    torture(&host, "import", path.to_str().unwrap(), 80, || {
        forget(&host, "i:1")
    });
}

#[test]
fn a_killed_commit_leaves_nothing_half_made() {
    let host = Host::new();
    host.import("base:1", &[("bin/sh", b"#!")]);
    let container = host.dir.path().join("container");
    fs::create_dir_all(container.join("diff/bin")).unwrap();
    for (path, bytes) in files() {
        fs::write(container.join("diff").join(path), bytes).unwrap();
    }
    torture(&host, "commit", container.to_str().unwrap(), 80, || {
        forget(&host, "c:1")
    });
}

#[test]
fn two_processes_pull_one_image_at_once() {
    let registry = Registry::start(&Protection::default());
    let (host, source) = (Host::new(), Host::new());
    let name = format!("{}/x:1", registry.host);
    let archive = archive(&source, &name);
    source
        .images()
        .load(fs::File::open(archive).unwrap(), None, &Quiet)
        .unwrap();
    source
        .images()
        .push(&name_of(&name), &RegistryOptions::default(), &Quiet)
        .unwrap();
    for _ in 0..5 {
        let pulls: Vec<Child> = (0..4).map(|_| start(&host, "pull", &name)).collect();
        // Meanwhile collections must not take anything away from them.
        for _ in 0..20 {
            host.store.collect(Parts::All).unwrap();
        }
        for mut pull in pulls {
            assert!(pull.wait().unwrap().success());
        }
        assert_consistent(&host, "four pulls");
        forget(&host, &name);
    }
}
