//! Hostile archives against the unpacker. Each attack has a canary outside the directory, and a
//! control shows that the canary would notice.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{self, Cursor};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rdocker::image::layer::graft::{Below, graft, open_root};
use rdocker::image::layer::{Form, Unpacked, unpack};
use rdocker::image::tar::{Entry, Kind, Reader, Writer};

const OVERLAY: Form = Form::Overlay { userxattr: false };

/// A directory to unpack into, inside one with a canary that must never change.
struct Cage {
    dir: tempfile::TempDir,
}

impl Cage {
    fn new() -> Cage {
        let dir = tempfile::tempdir().unwrap();
        for name in ["root", "root2", "canary"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("canary/file"), "canary").unwrap();
        Cage { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn canary(&self) -> String {
        self.dir.path().join("canary").to_str().unwrap().to_owned()
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Unpacked, String> {
        let root = open_root(&self.root()).unwrap();
        unpack(Cursor::new(bytes), root.as_fd(), OVERLAY).map_err(|error| error.to_string())
    }

    fn assert_unharmed(&self, name: &str) {
        let canary = self.dir.path().join("canary");
        let meta = fs::metadata(&canary).unwrap();
        assert_eq!(
            fs::read_to_string(canary.join("file")).unwrap(),
            "canary",
            "{name}"
        );
        assert_eq!(fs::read_dir(&canary).unwrap().count(), 1, "{name}");
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o755, 0), "{name}");
        assert_ne!(meta.mtime(), 77, "{name}");
        let file = fs::metadata(canary.join("file")).unwrap();
        assert_eq!((file.nlink(), file.mode() & 0o7777), (1, 0o644), "{name}");
        assert_eq!(
            fs::read_dir(self.dir.path().join("root2")).unwrap().count(),
            0,
            "{name}"
        );
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 3, "{name}");
    }
}

fn file(path: &str) -> Entry {
    let mut entry = Entry::new(path, Kind::File);
    entry.size = 4;
    entry.mtime = (77, 0);
    entry
}

fn dir(path: &str) -> Entry {
    let mut entry = Entry::new(path, Kind::Directory);
    (entry.mode, entry.uid, entry.mtime) = (0o777, 1000, (77, 0));
    entry
}

fn link(kind: Kind, path: &str, target: &str) -> Entry {
    let mut entry = Entry::new(path, kind);
    entry.link = target.as_bytes().to_vec();
    entry
}

fn sym(path: &str, target: &str) -> Entry {
    link(Kind::Symlink, path, target)
}

fn hard(path: &str, target: &str) -> Entry {
    link(Kind::Hardlink, path, target)
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.add(entry, &b"evil"[..]).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn no_path_or_link_leads_out_of_the_directory() {
    // The canary's path differs for each cage; CANARY stands for it.
    let attacks: Vec<(&str, Vec<Entry>)> = vec![
        ("dotdot", vec![file("../canary/file")]),
        ("dotdot inside", vec![dir("a"), file("a/../../canary/file")]),
        ("absolute", vec![file("CANARY/file")]),
        ("absolute directory", vec![dir("CANARY")]),
        ("link then write", vec![sym("l", "CANARY"), file("l/file")]),
        (
            "relative link then write",
            vec![sym("l", "../canary"), file("l/file")],
        ),
        (
            "link to link",
            vec![sym("a", "CANARY"), sym("b", "a"), file("b/file")],
        ),
        (
            "link to dot",
            vec![sym("a", "."), sym("a/b", ".."), file("a/b/canary/file")],
        ),
        (
            "link in the middle",
            vec![dir("d"), sym("d/l", "../../canary"), file("d/l/file")],
        ),
        (
            "write through a leaf link",
            vec![sym("f", "CANARY/file"), file("f")],
        ),
        ("directory over a link", vec![sym("d", "CANARY"), dir("d")]),
        (
            "hard link outside",
            vec![hard("h", "../canary/file"), file("h")],
        ),
        (
            "absolute hard link",
            vec![hard("h", "CANARY/file"), file("h")],
        ),
        (
            "hard link through a link",
            vec![sym("l", "CANARY"), hard("h", "l/file"), file("h")],
        ),
        (
            "hard link to a link",
            vec![sym("l", "CANARY/file"), hard("h", "l"), file("h")],
        ),
        ("sibling with the same prefix", vec![file("../root2/x")]),
        (
            "directory replaced by a link",
            vec![dir("d"), sym("d", "CANARY"), file("d/file")],
        ),
        (
            "node through a link",
            vec![sym("l", "CANARY"), Entry::new("l/fifo", Kind::Fifo)],
        ),
        (
            "whiteout through a link",
            vec![sym("l", "CANARY"), file("l/.wh.file")],
        ),
        (
            "opaque through a link",
            vec![sym("l", "CANARY"), file("l/.wh..wh..opq")],
        ),
        ("whiteout of dotdot", vec![dir("d"), file("d/.wh...")]),
        ("whiteout of dot", vec![dir("d"), file("d/.wh..")]),
        (
            "magic link",
            vec![sym("p", "/proc/self/root"), file("p/canary/file")],
        ),
    ];
    for (name, mut entries) in attacks {
        let cage = Cage::new();
        for entry in &mut entries {
            let real = |text: &[u8]| {
                String::from_utf8_lossy(text)
                    .replace("CANARY", &cage.canary())
                    .into_bytes()
            };
            (entry.path, entry.link) = (real(&entry.path), real(&entry.link));
        }
        // Refused or contained: both are fine, as long as nothing outside changes.
        let _ = cage.unpack(&archive(&entries));
        cage.assert_unharmed(name);
    }
}

#[test]
fn the_canary_notices_when_an_attack_works() {
    let cage = Cage::new();
    symlink(cage.canary(), cage.root().join("l")).unwrap();
    fs::write(cage.root().join("l/file"), "evil").unwrap();
    let caught = std::panic::catch_unwind(|| cage.assert_unharmed("control"));
    assert!(caught.is_err());
}

#[test]
fn absolute_links_mean_the_containers_own_root() {
    let cage = Cage::new();
    let entries = [
        dir("run"),
        dir("var"),
        sym("var/run", "/run"),
        file("var/run/pid"),
    ];
    cage.unpack(&archive(&entries)).unwrap();
    assert_eq!(
        fs::read_to_string(cage.root().join("run/pid")).unwrap(),
        "evil"
    );
    assert_eq!(
        fs::read_link(cage.root().join("var/run")).unwrap(),
        Path::new("/run")
    );
}

#[test]
fn members_without_an_honest_name_are_refused() {
    for (name, entry) in [
        ("dotdot", file("a/../b")),
        ("the root as a file", file(".")),
        ("a name of nothing", file("")),
        ("hard link to dotdot", hard("h", "../x")),
        ("hard link to the root", hard("h", "/")),
        ("deletes dotdot", file(".wh...")),
        ("deletes nothing", file(".wh.")),
        ("smuggled whiteout", Entry::new("w", Kind::Char)),
    ] {
        assert!(Cage::new().unpack(&archive(&[entry])).is_err(), "{name}");
    }
}

#[test]
fn metadata_survives_in_the_right_order() {
    let cage = Cage::new();
    let mut tool = file("bin/tool");
    (tool.mode, tool.uid, tool.gid) = (0o6755, 12, 34);
    let cap = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    tool.xattrs = vec![(b"security.capability".to_vec(), cap.clone())];
    let mut sticky = dir("tmp");
    (sticky.mode, sticky.uid) = (0o1777, 0);
    cage.unpack(&archive(&[dir("bin"), tool, sticky, file("tmp/x")]))
        .unwrap();
    let path = cage.root().join("bin/tool");
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(
        (meta.mode() & 0o7777, meta.uid(), meta.gid()),
        (0o6755, 12, 34)
    );
    assert_eq!(meta.mtime(), 77);
    let mut value = [0; 64];
    let n = rustix::fs::getxattr(&path, "security.capability", &mut value).unwrap();
    assert_eq!(&value[..n], cap);
    let tmp = fs::metadata(cage.root().join("tmp")).unwrap();
    assert_eq!(
        (tmp.mode() & 0o7777, tmp.mtime()),
        (0o1777, 77),
        "the file in it came later"
    );
}

#[test]
fn attributes_that_steer_overlay_are_dropped() {
    let cage = Cage::new();
    let mut evil = dir("d");
    for name in [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "user.overlay.opaque",
    ] {
        evil.xattrs.push((name.into(), b"y".to_vec()));
    }
    evil.xattrs.push((b"user.kept".to_vec(), b"1".to_vec()));
    cage.unpack(&archive(&[evil])).unwrap();
    let mut names = vec![0u8; 4096];
    let n = rustix::fs::listxattr(cage.root().join("d"), &mut names[..]).unwrap();
    assert_eq!(&names[..n], b"user.kept\0");
}

#[test]
fn deletions_become_overlays_marks_and_spare_this_layers_files() {
    let cage = Cage::new();
    let entries = [
        dir("a"),
        file("a/.wh.gone"),
        dir("b"),
        file("b/.wh..wh..opq"),
        file("kept"),
        file(".wh.kept"),
        dir("both"),
        file(".wh.both"),
        file(".wh.again"),
        dir("again"),
        file(".wh.newfile"),
        file("newfile"),
        file(".wh.deep"),
        file("deep/er/file"),
        file(".wh..wh.plnk"),
    ];
    let unpacked = cage.unpack(&archive(&entries)).unwrap();
    let is_mark = |path: &str| {
        let meta = fs::symlink_metadata(cage.root().join(path)).unwrap();
        meta.file_type().is_char_device() && meta.rdev() == 0
    };
    let is_opaque = |path: &str| {
        let mut value = [0; 4];
        rustix::fs::getxattr(cage.root().join(path), "trusted.overlay.opaque", &mut value).is_ok()
    };
    assert!(is_mark("a/gone"));
    assert!(is_opaque("b"));
    assert!(cage.root().join("kept").is_file());
    assert!(is_opaque("both") && is_opaque("again") && is_opaque("deep"));
    assert!(!is_opaque("a"), "control");
    assert!(cage.root().join("newfile").is_file());
    assert!(!cage.root().join(".wh..wh.plnk").exists() && !cage.root().join(".wh.plnk").exists());
    assert_eq!(unpacked.implied, [b"deep".to_vec(), b"deep/er".to_vec()]);
}

#[test]
fn a_layer_is_completed_from_the_layers_below() {
    let below = Cage::new();
    let mut tmp = dir("tmp");
    tmp.mode = 0o1777;
    below
        .unpack(&archive(&[
            tmp,
            dir("usr"),
            file("usr/tool"),
            file("usr/hidden"),
        ]))
        .unwrap();
    let middle = Cage::new();
    middle
        .unpack(&archive(&[dir("usr"), file("usr/.wh.hidden")]))
        .unwrap();
    let top = Cage::new();
    let entries = [file("tmp/x"), hard("tool2", "usr/tool")];
    let unpacked = top.unpack(&archive(&entries)).unwrap();
    assert_eq!(
        unpacked.links_below,
        [(b"tool2".to_vec(), b"usr/tool".to_vec())]
    );
    let layers = Below::open(&[below.root(), middle.root()], false).unwrap();
    let root = open_root(&top.root()).unwrap();
    assert_eq!(graft(root.as_fd(), &unpacked, &layers).unwrap(), 4);
    let meta = fs::metadata(top.root().join("tmp")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o1777, 1000));
    assert_eq!(
        fs::read_to_string(top.root().join("tool2")).unwrap(),
        "evil"
    );
    let hidden = top.unpack(&archive(&[hard("h", "usr/hidden")])).unwrap();
    assert!(
        graft(root.as_fd(), &hidden, &layers).is_err(),
        "it was deleted in between"
    );
}

#[test]
fn too_deep_and_too_long_paths_are_refused() {
    let deep = |n: usize| archive(&[file(&("d/".repeat(n) + "f"))]);
    assert!(Cage::new().unpack(&deep(256)).is_ok(), "control");
    assert!(Cage::new().unpack(&deep(257)).is_err());
    let long = "x/".repeat(2048) + "f";
    assert!(Cage::new().unpack(&archive(&[file(&long)])).is_err());
}

#[test]
fn an_endless_member_does_not_fill_the_disk() {
    let mut huge = file("huge");
    huge.size = 1 << 62;
    let mut bytes = Vec::new();
    assert!(
        Writer::new(&mut bytes).add(&huge, io::empty()).is_err(),
        "the writer notices too"
    );
    let cage = Cage::new();
    let error = cage.unpack(&bytes).unwrap_err();
    assert!(error.contains("archive stream"), "{error}");
    let blocks = fs::metadata(cage.root().join("huge")).map_or(0, |meta| meta.blocks());
    assert_eq!(blocks, 0);
}

/// Differential: whatever GNU tar writes, in each of its formats, unpacks to the same tree.
#[test]
fn gnu_tars_archives_unpack_to_the_same_tree() {
    let source = tempfile::tempdir().unwrap();
    let long = "n".repeat(200);
    fs::create_dir_all(source.path().join(&long).join("sub")).unwrap();
    fs::write(source.path().join(&long).join("sub/file"), vec![9; 70_000]).unwrap();
    fs::write(source.path().join("a"), "a").unwrap();
    fs::hard_link(source.path().join("a"), source.path().join("b")).unwrap();
    symlink("t".repeat(150), source.path().join("l")).unwrap();
    std::os::unix::fs::lchown(source.path().join("a"), Some(70_000), Some(3_000_000)).unwrap();
    for format in ["gnu", "pax", "posix", "oldgnu"] {
        let out = std::process::Command::new("tar")
            .args(["--format", format, "--numeric-owner", "-C"])
            .arg(source.path())
            .args(["-c", "."])
            .output()
            .unwrap();
        assert!(out.status.success());
        let cage = Cage::new();
        cage.unpack(&out.stdout)
            .unwrap_or_else(|error| panic!("{format}: {error}"));
        let read = cage.root().join(&long).join("sub/file");
        assert_eq!(fs::read(read).unwrap(), vec![9; 70_000], "{format}");
        let (a, b) = (cage.root().join("a"), cage.root().join("b"));
        let (a, b) = (fs::metadata(a).unwrap(), fs::metadata(b).unwrap());
        assert_eq!(
            (a.ino(), a.uid(), a.gid()),
            (b.ino(), 70_000, 3_000_000),
            "{format}"
        );
        assert_eq!(
            fs::read_link(cage.root().join("l"))
                .unwrap()
                .as_os_str()
                .len(),
            150
        );
    }
}

/// Every mutation of a header's bytes is read or refused, never panics, and stays inside.
#[test]
fn mutated_headers_are_refused_or_contained() {
    let base = archive(&[dir("d"), sym("l", "d"), file("d/f"), hard("h", "d/f")]);
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let cage = Cage::new();
    for _ in 0..3000 {
        let mut bytes = base.clone();
        for _ in 0..=random() % 4 {
            let at = (random() % bytes.len() as u64) as usize;
            bytes[at] = random() as u8;
        }
        // Repair the checksums, so that the mutation reaches the fields behind them.
        for block in bytes
            .chunks_exact_mut(512)
            .filter(|block| &block[257..262] == b"ustar")
        {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let mut reader = Reader::new(&bytes[..]);
        while let Ok(Some(_)) = reader.next_entry() {}
        let _ = cage.unpack(&bytes);
    }
    cage.assert_unharmed("mutations");
}
