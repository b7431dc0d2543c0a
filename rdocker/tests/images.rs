//! Images as files: import, tag, save, load, history, remove, mount, diff, commit; and the same
//! archives through skopeo.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{self, Cursor, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rdocker::image::create::{CommitOptions, ImportOptions};
use rdocker::image::layer::changes::changes;
use rdocker::image::overlay::{remount_rootfs, unmount_rootfs};
use rdocker::image::remove::{ImageUser, RemoveOptions, Removed};
use rdocker::image::tar::{Entry, Kind, Writer};
use rdocker::image::{Image, Images, Quiet, Reference};
use rdocker::store::Store;
use rdocker::store::digest::Digest;

struct Host {
    dir: tempfile::TempDir,
    store: Store,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::Builder::new()
            .prefix("rimages-")
            .tempdir()
            .unwrap();
        let store = Store::open(&dir.path().join("data")).unwrap();
        Host { dir, store }
    }

    fn images(&self) -> Images<'_> {
        Images::new(&self.store)
    }

    fn import(&self, name: &str, files: &[(&str, &str)]) -> Image {
        let options = ImportOptions {
            name: Some(Reference::parse(name).unwrap().or_latest()),
            source: "-".into(),
            ..ImportOptions::default()
        };
        let id = self
            .images()
            .import(Cursor::new(root_tar(files)), &options)
            .unwrap();
        self.images().get(&id).unwrap()
    }

    fn container(&self, name: &str, image: &Image) -> Container {
        let dir = self.store.containers().join(name);
        fs::create_dir(&dir).unwrap();
        self.images().hold(name, image).unwrap();
        self.images().mount_rootfs(image, &dir).unwrap();
        Container { dir }
    }

    fn save(&self, names: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.images().save(names, &mut bytes).unwrap();
        bytes
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn count(&self, dir: &str) -> usize {
        fs::read_dir(self.store.root().join(dir)).unwrap().count()
    }
}

/// A mounted root, which leaves with the test.
struct Container {
    dir: PathBuf,
}

impl Container {
    fn path(&self, path: &str) -> PathBuf {
        self.dir.join("merged").join(path)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = unmount_rootfs(&self.dir);
    }
}

fn root_tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for dir in ["bin/", "etc/", "tmp/"] {
        let mut entry = Entry::new(dir, Kind::Directory);
        entry.mode = if dir == "tmp/" { 0o1777 } else { 0o755 };
        writer.add(&entry, io::empty()).unwrap();
    }
    for (path, text) in files {
        writer.add_bytes(path, text.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

fn skopeo(args: &[&str]) {
    let out = Command::new("skopeo")
        .args(["--insecure-policy"])
        .args(args)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = rdocker::image::layer::compress::gzip(Vec::new(), 1);
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

#[test]
fn an_imported_image_is_found_by_every_name_and_id() {
    let host = Host::new();
    let image = host.import("base:1", &[("bin/sh", "#!")]);
    host.images().tag("base:1", "localhost:5000/a/b").unwrap();
    let id = image.id.to_string();
    let names = [
        "base:1",
        "docker.io/library/base:1",
        "localhost:5000/a/b:latest",
        &id,
        &id[7..],
        &id[7..15],
    ];
    for name in names {
        assert_eq!(host.images().resolve(name).unwrap().id, image.id, "{name}");
    }
    let found = host.images().resolve("base:1").unwrap();
    assert_eq!(found.tags, ["base:1", "localhost:5000/a/b:latest"]);
    assert_eq!(found.size(), 2);
    for (name, want) in [
        ("base", "base:latest"),
        ("nosuch:x", "nosuch:x"),
        ("A", "A"),
    ] {
        let error = host.images().resolve(name).unwrap_err().to_string();
        assert_eq!(error, format!("No such image: {want}"));
    }
}

#[test]
fn a_saved_image_loads_with_the_same_id_and_names() {
    let host = Host::new();
    let image = host.import("base:1", &[("bin/sh", "#!"), ("etc/passwd", "root")]);
    host.images().tag("base:1", "other").unwrap();
    let plain = host.save(&["base:1", "other"]);
    for (name, bytes) in [
        ("plain", plain.clone()),
        ("gzip", gzip(&plain)),
        ("zstd", zstd::encode_all(&plain[..], 1).unwrap()),
    ] {
        let second = Host::new();
        let loaded = second
            .images()
            .load(Cursor::new(&bytes), None, &Quiet)
            .unwrap();
        assert_eq!(loaded.len(), 1, "{name}");
        assert_eq!(loaded[0].names, ["base:1", "other:latest"], "{name}");
        let back = second.images().resolve("base:1").unwrap();
        assert_eq!((&back.id, &back.raw), (&image.id, &image.raw), "{name}");
        assert!(back.layers[0].path.join("etc/passwd").exists(), "{name}");
        assert_eq!(second.count("tmp"), 0, "{name}: no scratch stays");
        assert_eq!(
            second.save(&["base:1", "other"]),
            plain,
            "{name}: byte for byte"
        );
    }
    // By id there is no name to keep.
    let second = Host::new();
    let bytes = host.save(&[&image.id.hex()[..12]]);
    let loaded = second
        .images()
        .load(Cursor::new(bytes), None, &Quiet)
        .unwrap();
    assert_eq!(loaded[0].names, [""; 0]);
}

#[test]
fn archives_travel_through_skopeo_and_keep_their_ids() {
    let host = Host::new();
    let image = host.import("base:1", &[("bin/sh", "#!")]);
    let ours = host.file("ours.tar");
    fs::write(&ours, host.save(&["base:1"])).unwrap();
    let path = |name: &str| host.file(name).to_str().unwrap().to_owned();
    let (ours, oci, old) = (path("ours.tar"), path("oci.tar"), path("old.tar"));
    skopeo(&[
        "copy",
        &format!("docker-archive:{ours}"),
        &format!("oci-archive:{oci}:x/y:1"),
    ]);
    skopeo(&[
        "copy",
        &format!("oci-archive:{ours}"),
        &format!("docker-archive:{old}:z:2"),
    ]);
    for (file, name) in [(&oci, "x/y:1"), (&old, "z:2")] {
        let second = Host::new();
        let loaded = second
            .images()
            .load(fs::File::open(file).unwrap(), None, &Quiet)
            .unwrap();
        assert_eq!(loaded[0].names, [name]);
        let back = second.images().get(&loaded[0].id).unwrap();
        assert_eq!(back.layers[0].diff_id, image.layers[0].diff_id, "{name}");
    }
    // What skopeo wrote as an OCI archive goes out again with the manifest it came with.
    let second = Host::new();
    second
        .images()
        .load(fs::File::open(&oci).unwrap(), None, &Quiet)
        .unwrap();
    let manifest = second.images().resolve("x/y:1").unwrap().manifest.unwrap();
    let third = Host::new();
    third
        .images()
        .load(Cursor::new(second.save(&["x/y:1"])), None, &Quiet)
        .unwrap();
    assert_eq!(
        third.images().resolve("x/y:1").unwrap().manifest,
        Some(manifest)
    );
}

#[test]
fn archives_travel_through_podman_and_keep_their_ids() {
    let host = Host::new();
    let image = host.import(
        "docker.io/library/base:1",
        &[("bin/sh", "#!"), ("etc/x", "x")],
    );
    let (ours, theirs) = (host.file("ours.tar"), host.file("theirs.tar"));
    fs::write(&ours, host.save(&["base:1"])).unwrap();
    let podman = |args: &[&str]| {
        let out = Command::new("podman")
            .arg("--root")
            .arg(host.file("podman-root"))
            .arg("--runroot")
            .arg(host.file("podman-run"))
            .args(["--storage-driver", "vfs"])
            .args(args)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    };
    podman(&["load", "-i", ours.to_str().unwrap()]);
    let id = podman(&["inspect", "--format", "{{.Id}}", "docker.io/library/base:1"]);
    assert_eq!(id.trim(), image.id.hex());
    for format in ["docker-archive", "oci-archive"] {
        let _ = fs::remove_file(&theirs);
        let to = theirs.to_str().unwrap();
        podman(&[
            "save",
            "--format",
            format,
            "-o",
            to,
            "docker.io/library/base:1",
        ]);
        let second = Host::new();
        let loaded = second
            .images()
            .load(fs::File::open(&theirs).unwrap(), None, &Quiet)
            .unwrap();
        assert_eq!(loaded[0].names, ["base:1"], "{format}");
        let back = second.images().get(&loaded[0].id).unwrap();
        assert_eq!(back.layers[0].diff_id, image.layers[0].diff_id, "{format}");
        assert!(format != "docker-archive" || back.id == image.id);
    }
}

/// Not a test of its own: the rootless test runs it in a user namespace. Alone it does nothing.
#[test]
fn rootless_worker() {
    let Ok(dir) = std::env::var("RDOCKER_TEST_ROOTLESS") else {
        return;
    };
    let dir = Path::new(&dir);
    let store = Store::open(&dir.join("data")).unwrap();
    let images = Images::new(&store);
    images
        .load(fs::File::open(dir.join("image.tar")).unwrap(), None, &Quiet)
        .unwrap();
    let image = images.resolve("new:1").unwrap();
    let container = store.containers().join("c");
    fs::create_dir(&container).unwrap();
    let root = images.mount_rootfs(&image, &container).unwrap();
    assert!(!root.join("etc/x").exists(), "the whiteout works");
    assert_eq!(
        fs::read_dir(root.join("bin")).unwrap().count(),
        1,
        "the opaque mark works"
    );
    fs::remove_file(root.join("bin/new")).unwrap();
    let shown: Vec<_> = changes(&container).unwrap();
    assert_eq!(shown.len(), 2, "{shown:?}");
    let id = images
        .commit(Some(&image), &container, &CommitOptions::default())
        .unwrap();
    assert_eq!(images.get(&id).unwrap().layers.len(), 3);
    unmount_rootfs(&container).unwrap();
}

#[test]
fn a_user_namespace_has_images_and_roots_of_its_own() {
    let host = Host::new();
    let image = host.import("base:1", &[("bin/sh", "#!"), ("etc/x", "x")]);
    let container = host.container("c", &image);
    fs::remove_file(container.path("etc/x")).unwrap();
    fs::remove_dir_all(container.path("bin")).unwrap();
    fs::create_dir(container.path("bin")).unwrap();
    fs::write(container.path("bin/new"), "new").unwrap();
    let options = CommitOptions {
        name: Some(Reference::parse("new:1").unwrap()),
        ..CommitOptions::default()
    };
    host.images()
        .commit(Some(&image), &container.dir, &options)
        .unwrap();
    let dir = host.file("rootless");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("image.tar"), host.save(&["new:1"])).unwrap();
    let out = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "rootless_worker", "--nocapture"])
        .env("RDOCKER_TEST_ROOTLESS", &dir)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    // Its marks are attributes that a plain user may set.
    let mut value = [0; 4];
    let layers = fs::read_dir(dir.join("data/layers")).unwrap();
    let marked = layers.flatten().any(|layer| {
        let bin = layer.path().join("diff/bin");
        rustix::fs::getxattr(&bin, "user.overlay.opaque", &mut value).is_ok()
    });
    assert!(marked);
}

#[test]
fn damaged_archives_leave_nothing_behind() {
    let host = Host::new();
    host.import("base:1", &[("bin/sh", "#!")]);
    let whole = host.save(&["base:1"]);
    let text = |bytes: &[u8], from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut bytes = bytes.to_vec();
        let at = bytes
            .windows(from.len())
            .position(|w| w == from.as_bytes())
            .unwrap();
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    let cases = [
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("no tar", b"hello".repeat(200)),
        ("empty", Vec::new()),
        (
            "another layer's bytes",
            text(&whole, "bin/sh\0\0", "bin/sg\0\0"),
        ),
        (
            "changed configuration",
            text(&whole, "\"architecture\"", "\"architecturf\""),
        ),
    ];
    for (name, bytes) in cases {
        let second = Host::new();
        assert!(
            second
                .images()
                .load(Cursor::new(bytes), None, &Quiet)
                .is_err(),
            "{name}"
        );
        assert_eq!(second.images().list().unwrap().len(), 0, "{name}");
        second
            .store
            .collect(rdocker::store::gc::Parts::All)
            .unwrap();
        for dir in ["tmp", "layers", "blobs/sha256", "trash"] {
            assert_eq!(second.count(dir), 0, "{name}: {dir}");
        }
    }
}

#[test]
fn platforms_whose_blobs_are_absent_are_skipped() {
    let host = Host::new();
    let image = host.import("base:1", &[("bin/sh", "#!")]);
    // Put an index over the saved manifest that also names an absent platform.
    let saved = host.file("saved");
    fs::create_dir(&saved).unwrap();
    let tar = |args: &[&str], input: &[u8]| {
        let file = host.file("a.tar");
        fs::write(&file, input).unwrap();
        let out = Command::new("tar")
            .arg("-C")
            .arg(&saved)
            .args(args)
            .arg(&file)
            .arg(".")
            .output();
        assert!(out.unwrap().status.success());
        fs::read(&file).unwrap()
    };
    let file = host.file("b.tar");
    fs::write(&file, host.save(&["base:1"])).unwrap();
    assert!(
        Command::new("tar")
            .arg("-C")
            .arg(&saved)
            .arg("-xf")
            .arg(&file)
            .status()
            .unwrap()
            .success()
    );
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(saved.join("index.json")).unwrap()).unwrap();
    let entry = &index["manifests"][0];
    let nested = serde_json::json!({"schemaVersion": 2, "manifests": [
        {"mediaType": entry["mediaType"], "size": 5, "digest": Digest::of(b"absent"),
         "platform": {"os": "linux", "architecture": "s390x"}},
        {"mediaType": entry["mediaType"], "size": entry["size"], "digest": entry["digest"],
         "platform": {"os": "linux", "architecture": "amd64"}}]});
    let nested = serde_json::to_vec(&nested).unwrap();
    let digest = Digest::of(&nested);
    fs::write(saved.join("blobs/sha256").join(digest.hex()), &nested).unwrap();
    let top = serde_json::json!({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.index.v1+json", "size": nested.len(),
         "digest": digest, "annotations": {"io.containerd.image.name": "docker.io/library/m:1"}}]});
    fs::write(saved.join("index.json"), serde_json::to_vec(&top).unwrap()).unwrap();
    for name in ["manifest.json", "repositories"] {
        fs::remove_file(saved.join(name)).unwrap();
    }
    let bytes = tar(&["-cf"], b"");
    let second = Host::new();
    let loaded = second
        .images()
        .load(Cursor::new(bytes), None, &Quiet)
        .unwrap();
    assert_eq!(
        (loaded[0].names.as_slice(), &loaded[0].id),
        (&["m:1".to_owned()][..], &image.id)
    );
}

#[test]
fn a_container_changes_its_own_layer_and_commit_keeps_it() {
    let host = Host::new();
    let image = host.import(
        "base:1",
        &[("bin/sh", "#!"), ("etc/passwd", "root"), ("etc/x", "x")],
    );
    let container = host.container("c1", &image);
    assert_eq!(
        fs::metadata(container.path("tmp")).unwrap().mode() & 0o7777,
        0o1777
    );
    assert!(container.path(".dockerenv").exists() && container.path("etc/hosts").exists());
    fs::write(container.path("happiness.txt"), "happy").unwrap();
    fs::write(container.path("etc/passwd"), "root2").unwrap();
    fs::remove_file(container.path("etc/x")).unwrap();
    fs::remove_dir_all(container.path("bin")).unwrap();
    fs::create_dir(container.path("bin")).unwrap();
    fs::write(container.path("bin/new"), "new").unwrap();
    assert!(
        container.dir.join("diff/happiness.txt").exists(),
        "it is where Docker users look"
    );
    let shown: Vec<String> = changes(&container.dir)
        .unwrap()
        .iter()
        .map(|change| format!("{} {}", change.kind.letter(), change.path))
        .collect();
    assert_eq!(
        shown,
        [
            "C /bin",
            "A /bin/new",
            "D /bin/sh",
            "C /etc",
            "C /etc/passwd",
            "D /etc/x",
            "A /happiness.txt"
        ]
    );
    let options = CommitOptions {
        name: Some(Reference::parse("new:1").unwrap()),
        author: Some("Barry Song<x@y".into()),
        created_by: "sh -c touch happiness.txt".into(),
        ..CommitOptions::default()
    };
    let id = host
        .images()
        .commit(Some(&image), &container.dir, &options)
        .unwrap();
    let new = host.images().resolve("new:1").unwrap();
    assert_eq!(
        (new.id.clone(), new.parent.clone()),
        (id, Some(image.id.clone()))
    );
    assert_eq!(new.config.author.as_deref(), Some("Barry Song<x@y"));
    let second = host.container("c2", &new);
    assert_eq!(
        fs::read_to_string(second.path("etc/passwd")).unwrap(),
        "root2"
    );
    assert!(!second.path("etc/x").exists() && !second.path("bin/sh").exists());
    assert_eq!(fs::read_to_string(second.path("bin/new")).unwrap(), "new");
    assert!(changes(&second.dir).unwrap().is_empty());
    let rows = host.images().history(&new).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[0].id.as_ref(), rows[0].size), (Some(&new.id), 13));
    assert_eq!(
        (rows[1].id.as_ref(), &rows[1].tags[..]),
        (Some(&image.id), &["base:1".into()][..])
    );
    // The committed image survives a save and a load, marks and all.
    let third = Host::new();
    third
        .images()
        .load(Cursor::new(host.save(&["new:1"])), None, &Quiet)
        .unwrap();
    let copy = third.images().resolve("new:1").unwrap();
    assert_eq!(copy.id, new.id);
    let gone = fs::symlink_metadata(copy.layers[1].path.join("etc/x")).unwrap();
    assert!(gone.file_type().is_char_device());
}

#[test]
fn a_commit_without_changes_adds_no_layer() {
    let host = Host::new();
    let image = host.import("base:1", &[("bin/sh", "#!")]);
    let container = host.container("c", &image);
    let options = CommitOptions::default();
    let id = host
        .images()
        .commit(Some(&image), &container.dir, &options)
        .unwrap();
    let same = host.images().get(&id).unwrap();
    assert_eq!(same.layers, image.layers);
    assert!(same.config.history.last().unwrap().empty_layer);
}

#[test]
fn a_root_is_mounted_again_with_what_was_changed() {
    let host = Host::new();
    let image = host.import("base:1", &[("bin/sh", "#!")]);
    let container = host.container("c", &image);
    fs::write(container.path("f"), "1").unwrap();
    unmount_rootfs(&container.dir).unwrap();
    assert!(!container.path("f").exists());
    unmount_rootfs(&container.dir).unwrap();
    remount_rootfs(&container.dir).unwrap();
    assert_eq!(fs::read_to_string(container.path("f")).unwrap(), "1");
}

#[test]
fn hundreds_of_layers_are_mounted() {
    let host = Host::new();
    let mut image = host.import("base:1", &[("bin/sh", "#!")]);
    // Commit needs only the directory, so the upper directories are made by hand.
    for n in 0..200 {
        let dir = host.store.containers().join(format!("c{n}"));
        fs::create_dir_all(dir.join("diff")).unwrap();
        fs::set_permissions(dir.join("diff"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.join("diff").join(format!("f{n}")), "x").unwrap();
        let options = CommitOptions::default();
        let id = host.images().commit(Some(&image), &dir, &options).unwrap();
        image = host.images().get(&id).unwrap();
    }
    assert_eq!(image.layers.len(), 201);
    let container = host.container("deep", &image);
    assert!(container.path("f0").exists() && container.path("f199").exists());
}

fn remove(host: &Host, name: &str, options: &RemoveOptions) -> Result<Vec<String>, String> {
    let removed = host
        .images()
        .remove(name, options)
        .map_err(|error| error.to_string())?;
    let show = |one: &Removed| match one {
        Removed::Untagged(name) => format!("Untagged: {name}"),
        Removed::Deleted(id) => format!("Deleted: {}", id.short()),
    };
    Ok(removed.iter().map(show).collect())
}

#[test]
fn rmi_takes_names_first_and_the_image_with_the_last() {
    let host = Host::new();
    let image = host.import("base:1", &[("bin/sh", "#!")]);
    host.images().tag("base:1", "base:2").unwrap();
    let options = RemoveOptions::default();
    let short = image.id.short();
    assert_eq!(
        remove(&host, short, &options).unwrap_err(),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    assert_eq!(
        remove(&host, "base:2", &options).unwrap(),
        ["Untagged: base:2"]
    );
    let layer = image.layers[0].chain.short();
    assert_eq!(
        remove(&host, "base:1", &options).unwrap(),
        [
            "Untagged: base:1".into(),
            format!("Deleted: {short}"),
            format!("Deleted: {layer}")
        ]
    );
    assert_eq!(
        remove(&host, "base:1", &options).unwrap_err(),
        "No such image: base:1"
    );
    assert_eq!((host.count("layers"), host.count("blobs/sha256")), (0, 0));
}

#[test]
fn images_of_containers_are_kept_as_docker_keeps_them() {
    let host = Host::new();
    let image = host.import("base:1", &[("bin/sh", "#!")]);
    let short = image.id.short().to_owned();
    let user = |running| ImageUser {
        container: "c0ffee".repeat(4),
        image: image.id.clone(),
        running,
    };
    let with = |running, force| RemoveOptions {
        force,
        users: vec![user(running)],
        ..RemoveOptions::default()
    };
    let cases = [
        (
            "base:1",
            true,
            false,
            format!(
                "unable to remove repository reference \"base:1\" (must force) - container c0ffeec0ffee is using its referenced image {short}"
            ),
        ),
        (
            "base:1",
            false,
            false,
            format!(
                "unable to remove repository reference \"base:1\" (must force) - container c0ffeec0ffee is using its referenced image {short}"
            ),
        ),
        (
            &*short,
            true,
            true,
            format!(
                "unable to delete {short} (cannot be forced) - image is being used by running container c0ffeec0ffee"
            ),
        ),
        (
            &*short,
            false,
            false,
            format!(
                "unable to delete {short} (must be forced) - image is being used by stopped container c0ffeec0ffee"
            ),
        ),
    ];
    for (name, running, force, want) in cases {
        let error = remove(&host, name, &with(running, force)).unwrap_err();
        assert_eq!(error, format!("conflict: {want}"));
    }
    // Forced: the image goes, and the stopped container's layers stay until it is released.
    host.images().hold("c", &image).unwrap();
    remove(&host, "base:1", &with(false, true)).unwrap();
    assert!(host.images().resolve("base:1").is_err());
    assert!(image.layers[0].path.exists());
    host.images().release("c").unwrap();
    host.images().prune(&[], |_| false).unwrap();
    assert!(!image.layers[0].path.exists());
}

#[test]
fn prune_spares_named_used_and_parent_images() {
    let host = Host::new();
    let base = host.import("base:1", &[("bin/sh", "#!")]);
    let dangling = host.import("moved:1", &[("bin/sh", "old")]);
    host.import("moved:1", &[("bin/sh", "new")]);
    let used = host.import("used:1", &[("bin/sh", "used")]);
    host.import("used:1", &[("bin/sh", "used2")]);
    let users = [ImageUser {
        container: "c".into(),
        image: used.id.clone(),
        running: false,
    }];
    let pruned = host
        .images()
        .prune(&users, |image| image.tags.is_empty())
        .unwrap();
    assert!(
        pruned
            .removed
            .contains(&Removed::Deleted(dangling.id.clone()))
    );
    assert!(pruned.bytes > 0);
    let left = |id: &Digest| host.images().get(id).is_ok();
    assert!(left(&base.id) && left(&used.id) && !left(&dangling.id));
}

#[test]
fn no_one_else_can_walk_into_the_store() {
    let host = Host::new();
    host.import("base:1", &[("bin/sh", "#!")]);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o077;
    assert_eq!(mode(host.store.root()), 0);
    assert_eq!(mode(&host.store.root().join("layers")), 0);
}
