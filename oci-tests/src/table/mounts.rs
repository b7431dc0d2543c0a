//! config.md: version, root, mounts, extensibility; bundle.md; glossary.md.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use crate::lab::Lab;
use crate::requirement::Level::{Must, MustNot, Should, ShouldNot};
use crate::requirement::{Requirement, Verdict, Why, ensure};

pub const TABLE: &[Requirement] = &[
    Requirement::must(
        "bundle.config-1",
        "bundle.md#container-format",
        "config.json lies in the root of the bundle",
        config_is_in_the_bundle,
    ),
    Requirement::untestable(
        "bundle.config-2",
        Must,
        "bundle.md#container-format",
        "a bundle's parts lie in one directory of the local file system",
        "asks the maker of the bundle, not the runtime",
    ),
    Requirement::must(
        "glossary.json-1",
        "glossary.md#json",
        "JSON is UTF-8",
        utf8_is_kept,
    ),
    Requirement::untestable(
        "glossary.json-2",
        MustNot,
        "glossary.md#json",
        "an object does not name a member twice",
        "asks the author of config.json; RFC 8259 leaves the reader free",
    ),
    Requirement::must(
        "config.ociVersion-1",
        "config.md#specification-version",
        "ociVersion is a SemVer 2.0.0 version",
        bad_version_is_refused,
    ),
    Requirement::must(
        "config.root-1",
        "config.md#root",
        "root is required",
        root_is_required,
    ),
    Requirement::must(
        "config.root-2",
        "config.md#root",
        "a relative path is taken from the bundle, an absolute one as it is",
        root_path,
    ),
    Requirement::must(
        "config.root-3",
        "config.md#root",
        "a directory exists at root.path",
        root_must_exist,
    ),
    Requirement::must(
        "config.root-4",
        "config.md#root",
        "with readonly the root file system cannot be written",
        readonly_root,
    ),
    Requirement::must(
        "config.root-5",
        "config.md#root",
        "without readonly the root file system can be written",
        writable_root,
    ),
    Requirement::untestable(
        "config.root-6",
        Should,
        "config.md#root",
        "the path is the conventional `rootfs`",
        "asks the author of config.json",
    ),
    Requirement::must(
        "config.mounts.order-1",
        "config.md#mounts",
        "mounts happen in the listed order",
        mounts_in_order,
    ),
    Requirement::should(
        "config.mounts.destination-1",
        "config.md#mounts",
        "a destination is an absolute path in the container",
        absolute_destination,
    ),
    Requirement::must(
        "config.mounts.destination-2",
        "config.md#mounts",
        "a relative destination is taken from `/`",
        relative_destination,
    ),
    Requirement::must(
        "config.mounts.source-1",
        "config.md#mounts",
        "a relative bind source is taken from the bundle",
        relative_source,
    ),
    Requirement::must(
        "config.mounts.bind-1",
        "config.md#mounts",
        "bind or rbind makes a bind mount whatever the type says",
        bind_by_option,
    ),
    Requirement::should(
        "config.mounts.options-1",
        "config.md#linux-mount-options",
        "an option that is not known goes to the file system as data",
        unknown_options_are_data,
    ),
    Requirement::untestable(
        "config.mounts.options-2",
        Should,
        "config.md#linux-mount-options",
        "a custom option that mount(8) knows does what mount(8) does",
        "which custom options there are is the runtime's own affair",
    ),
    Requirement::must(
        "config.mounts.type-1",
        "config.md#posix-platform-mounts",
        "the type is a file system of the kernel",
        kernel_types,
    ),
    Requirement::must(
        "config.mounts.type-2",
        "config.md#posix-platform-mounts",
        "a type that the kernel does not have is an error",
        unknown_type_is_refused,
    ),
    Requirement::must(
        "config.mounts.idmap-1",
        "config.md#posix-platform-mounts",
        "uidMappings come with gidMappings",
        uid_mappings_alone_are_refused,
    ),
    Requirement::must(
        "config.mounts.idmap-2",
        "config.md#posix-platform-mounts",
        "gidMappings come with uidMappings",
        gid_mappings_alone_are_refused,
    ),
    Requirement::should(
        "config.mounts.idmap-3",
        "config.md#posix-platform-mounts",
        "mappings of a mount are realized with mount_setattr(2)",
        idmap_by_mappings,
    ),
    Requirement::should(
        "config.mounts.idmap-4",
        "config.md#linux-mount-options",
        "idmap applies the mount's own mappings",
        idmap_by_mappings,
    ),
    Requirement::should(
        "config.mounts.idmap-5",
        "config.md#linux-mount-options",
        "ridmap applies them to the mounts below too",
        ridmap_below,
    ),
    Requirement::must(
        "config.mounts.idmap-6",
        "config.md#linux-mount-options",
        "idmap without mappings and without a user namespace is an error",
        idmap_of_nothing,
    ),
    Requirement::must(
        "config.mounts.idmap-7",
        "config.md#linux-mount-options",
        "ridmap without mappings and without a user namespace is an error",
        ridmap_of_nothing,
    ),
    Requirement::untestable(
        "config.mounts.idmap-8",
        ShouldNot,
        "config.md#linux-mount-options",
        "idmap is not handed to mount(2)",
        "mount(2) ignores data of a bind mount, so nothing would differ",
    ),
    Requirement::untestable(
        "config.mounts.idmap-9",
        Should,
        "config.md#posix-platform-mounts",
        "a mount with mappings has the option idmap or ridmap",
        "asks the author of config.json",
    ),
    Requirement::must(
        "config.extensibility-1",
        "config.md#extensibility",
        "unknown properties are ignored",
        unknown_properties_are_ignored,
    ),
    Requirement::must(
        "config.valid-values-1",
        "config.md#valid-values",
        "an invalid value of a known property is an error",
        wrong_types_are_refused,
    ),
    Requirement::must(
        "config.annotations-1",
        "config.md#annotations",
        "annotations are a map",
        annotations_that_are_no_map,
    ),
    Requirement::must(
        "config.annotations-2",
        "config.md#annotations",
        "values of annotations are strings",
        annotation_value_that_is_no_string,
    ),
    Requirement::must_not(
        "config.annotations-3",
        "config.md#annotations",
        "a key is not empty",
        empty_annotation_key,
    ),
    Requirement::must(
        "config.annotations-4",
        "config.md#annotations",
        "unknown keys are ignored",
        unknown_annotations_are_ignored,
    ),
    Requirement::untestable(
        "config.annotations-5",
        Must,
        "config.md#annotations",
        "keys are strings",
        "JSON has no other keys",
    ),
    Requirement::untestable(
        "config.annotations-6",
        Should,
        "config.md#annotations",
        "keys are reverse domain names",
        "asks the author of config.json",
    ),
    Requirement::untestable(
        "config.annotations-7",
        Must,
        "config.md#annotations",
        "keys of org.opencontainers mean what the specification says",
        "they describe an image, for whoever reads them; a runtime does nothing with them",
    ),
    Requirement::untestable(
        "config.annotations-8",
        Should,
        "config.md#annotations",
        "org.opencontainers.image.* are used as the image specification's conversion says",
        "asks the converter of the image",
    ),
    Requirement::untestable(
        "config.annotations-9",
        Should,
        "config.md#annotations",
        "image.stopSignal is the signal a container is killed with",
        "kill is given its signal by the caller",
    ),
    Requirement::untestable(
        "config.annotations-10",
        MustNot,
        "config.md#annotations",
        "other keys of org.opencontainers are not used by later specifications",
        "asks those who write specifications",
    ),
];

/// A mount on the host, in the tests' own mount namespace; it goes when dropped.
pub struct HostMount(String);

impl HostMount {
    /// Mounts a tmpfs with these flags at a directory, made if it is absent.
    pub fn tmpfs(path: &str, flags: MsFlags) -> Result<Self, String> {
        let fail = |e: &dyn std::fmt::Display| format!("cannot mount a tmpfs at {path}: {e}");
        fs::create_dir_all(path).map_err(|e| fail(&e))?;
        let data = Some("mode=755");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), data).map_err(|e| fail(&e))?;
        let mounted = Self(path.to_owned());
        mounted.change(flags)?;
        Ok(mounted)
    }

    /// Sets propagation, or flags by a remount.
    pub fn change(&self, flags: MsFlags) -> Result<(), String> {
        let none = None::<&str>;
        let kinds = MsFlags::MS_SHARED | MsFlags::MS_SLAVE | MsFlags::MS_PRIVATE;
        let flags = match flags {
            f if f.is_empty() => return Ok(()),
            f if f.intersects(kinds) => f,
            f => f | MsFlags::MS_BIND | MsFlags::MS_REMOUNT,
        };
        mount(none, self.0.as_str(), none, flags, none)
            .map_err(|e| format!("cannot change the mount {}: {e}", self.0))
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        // It is in a mount namespace that ends with the tests.
        let _ = umount2(self.0.as_str(), MntFlags::MNT_DETACH);
    }
}

fn config_is_in_the_bundle(lab: &Lab) -> Verdict {
    let dir = lab.dir()?;
    let id = lab.fresh();
    let call = lab.call(&["create", "--bundle", &dir.to_string_lossy(), &id])?;
    ensure!(!call.ok(), "create accepts a bundle without config.json");
    lab.see(&[], |_| ()).map(drop)
}

fn utf8_is_kept(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.push("/process/env", json!("WORD=zażółć ☃"));
    })?;
    ensure!(
        view.env.contains(&"WORD=zażółć ☃".to_owned()),
        "env is {:?}",
        view.env
    );
    Ok(())
}

fn bad_version_is_refused(lab: &Lab) -> Verdict {
    for version in ["one", "1.0", ""] {
        lab.refuses(&format!("ociVersion {version:?}"), |c| {
            c.set("/ociVersion", json!(version));
        })?;
    }
    Ok(())
}

fn root_is_required(lab: &Lab) -> Verdict {
    lab.refuses("a configuration without root", |c| {
        c.remove("", "root");
    })
}

fn root_path(lab: &Lab) -> Verdict {
    lab.see(&[], |_| ())?;
    lab.view(&[], |bundle| {
        let path = bundle.rootfs();
        bundle.config.set("/root/path", json!(path));
        Ok(())
    })
    .map(drop)
}

fn root_must_exist(lab: &Lab) -> Verdict {
    lab.refuses("a root that does not exist", |c| {
        c.set("/root/path", json!("nowhere"));
    })
}

fn readonly_root(lab: &Lab) -> Verdict {
    let view = lab.see(&["make:/x"], |c| {
        c.set("/root/readonly", json!(true));
    })?;
    ensure!(
        view.tried(0)?.errno == libc::EROFS,
        "making /x gives {:?}",
        view.tried(0)?
    );
    Ok(())
}

fn writable_root(lab: &Lab) -> Verdict {
    let view = lab.see(&["make:/x"], |_| ())?;
    ensure!(
        view.tried(0)?.errno == 0,
        "making /x gives {:?}",
        view.tried(0)?
    );
    Ok(())
}

fn mounts_in_order(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.mount("/mnt", "tmpfs", "first", &[]);
        c.mount("/mnt/a", "tmpfs", "second", &[]);
        c.mount("/tmp", "tmpfs", "third", &[]);
        c.mount("/tmp", "tmpfs", "fourth", &[]);
    })?;
    let order: Vec<&str> = view
        .mounts
        .iter()
        .map(|m| m.source.as_str())
        .filter(|s| ["first", "second", "third", "fourth"].contains(s))
        .collect();
    ensure!(
        order == ["first", "second", "third", "fourth"],
        "the order is {order:?}"
    );
    ensure!(
        view.mount("/tmp").is_some_and(|m| m.source == "fourth"),
        "/tmp shows the earlier one"
    );
    Ok(())
}

fn absolute_destination(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.mount("/mnt", "tmpfs", "x", &[]);
    })?;
    ensure!(
        view.mount("/mnt").is_some_and(|m| m.kind == "tmpfs"),
        "nothing is mounted at /mnt"
    );
    Ok(())
}

fn relative_destination(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.set("/process/cwd", json!("/tmp"));
        c.mount("mnt", "tmpfs", "x", &[]);
    })?;
    ensure!(
        view.mount("/mnt").is_some_and(|m| m.kind == "tmpfs"),
        "nothing is mounted at /mnt"
    );
    Ok(())
}

fn relative_source(lab: &Lab) -> Verdict {
    let view = lab.view(&["read:/mnt/file"], |bundle| {
        fs::create_dir(bundle.dir.join("data")).map_err(|e| e.to_string())?;
        fs::write(bundle.dir.join("data/file"), "here").map_err(|e| e.to_string())?;
        bundle.config.mount("/mnt", "none", "data", &["bind"]);
        Ok(())
    })?;
    ensure!(
        view.tried(0)?.found == "here",
        "reading gives {:?}",
        view.tried(0)?
    );
    Ok(())
}

fn bind_by_option(lab: &Lab) -> Verdict {
    for (kind, option) in [("tmpfs", "bind"), ("none", "rbind"), ("", "bind")] {
        let view = lab.view(&["list:/mnt"], |bundle| {
            bundle.mkdir("data/inner")?;
            let from = bundle.host("data");
            bundle.config.mount("/mnt", kind, &from, &[option]);
            Ok(())
        })?;
        let found = &view.tried(0)?.found;
        ensure!(
            found == "inner",
            "type {kind:?} with {option} shows {found:?}"
        );
    }
    Ok(())
}

fn unknown_options_are_data(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.mount("/mnt", "tmpfs", "x", &["size=8192k", "nodev", "mode=711"]);
    })?;
    let Some(mount) = view.mount("/mnt") else {
        return Err(Why::Fail("nothing is mounted at /mnt".into()));
    };
    for want in ["size=8192k", "mode=711"] {
        let options = &mount.super_options;
        ensure!(
            options.iter().any(|o| o == want),
            "{want} is not in {options:?}"
        );
    }
    Ok(())
}

fn kernel_types(lab: &Lab) -> Verdict {
    let view = lab.see(&[], |c| {
        c.mount("/mnt", "ramfs", "x", &[]);
        c.mount("/tmp", "proc", "proc", &[]);
    })?;
    for (point, kind) in [("/mnt", "ramfs"), ("/tmp", "proc")] {
        let found = view.mount(point).map(|m| m.kind.as_str());
        ensure!(found == Some(kind), "{point} is {found:?}, not {kind}");
    }
    Ok(())
}

fn unknown_type_is_refused(lab: &Lab) -> Verdict {
    lab.refuses("a mount of an unknown type", |c| {
        c.mount("/mnt", "nosuchfs", "x", &[]);
    })
}

fn mapped_mount(from: &str, options: &[&str], uid: bool, gid: bool) -> serde_json::Value {
    let map = json!([{"containerID": 0, "hostID": 5000, "size": 1000}]);
    let mut mount =
        json!({"destination": "/mnt", "type": "none", "source": from, "options": options});
    if uid {
        mount["uidMappings"] = map.clone();
    }
    if gid {
        mount["gidMappings"] = map;
    }
    mount
}

fn refuses_mapped(lab: &Lab, what: &str, options: &[&str], uid: bool, gid: bool) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.mkdir("data")?;
    let mount = mapped_mount(&bundle.host("data"), options, uid, gid);
    bundle.config.sleep().push("/mounts", mount);
    lab.refuses_bundle(what, &bundle)
}

fn uid_mappings_alone_are_refused(lab: &Lab) -> Verdict {
    refuses_mapped(
        lab,
        "uidMappings without gidMappings",
        &["bind", "idmap"],
        true,
        false,
    )
}

fn gid_mappings_alone_are_refused(lab: &Lab) -> Verdict {
    refuses_mapped(
        lab,
        "gidMappings without uidMappings",
        &["bind", "idmap"],
        false,
        true,
    )
}

fn idmap_of_nothing(lab: &Lab) -> Verdict {
    refuses_mapped(lab, "idmap of nothing", &["bind", "idmap"], false, false)
}

fn ridmap_of_nothing(lab: &Lab) -> Verdict {
    refuses_mapped(lab, "ridmap of nothing", &["rbind", "ridmap"], false, false)
}

/// A file of root shows as 5000: ids of the source are mapped from 0 to 5000.
fn idmap_by_mappings(lab: &Lab) -> Verdict {
    let view = lab.view(&["stat:/mnt/file"], |bundle| {
        bundle.mkdir("data")?;
        bundle.file("data/file", "x")?;
        let mount = mapped_mount(&bundle.host("data"), &["bind", "idmap"], true, true);
        bundle.config.push("/mounts", mount);
        Ok(())
    })?;
    let found = &view.tried(0)?.found;
    ensure!(
        found.contains(" 5000 5000 "),
        "the file is {found:?}, not of 5000 5000"
    );
    Ok(())
}

fn ridmap_below(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle.report(&["stat:/mnt/below/file"]);
    bundle.mkdir("data")?;
    let below = bundle.host("data/below");
    let mounted = HostMount::tmpfs(&below, MsFlags::empty())?;
    fs::write(format!("{below}/file"), "x").map_err(|e| format!("cannot write: {e}"))?;
    let mount = mapped_mount(&bundle.host("data"), &["rbind", "ridmap"], true, true);
    bundle.config.push("/mounts", mount);
    let view = crate::inside::View::parse(&lab.run(&bundle)?)?;
    drop(mounted);
    let found = &view.tried(0)?.found;
    ensure!(
        found.contains(" 5000 5000 "),
        "the file below is {found:?}, not of 5000 5000"
    );
    Ok(())
}

fn unknown_properties_are_ignored(lab: &Lab) -> Verdict {
    lab.see(&[], |c| {
        c.set("/unknown", json!({"a": [1, 2]}));
        c.set("/process/unknown", json!("x"));
        c.set("/linux/unknown", json!(7));
        c.set("/linux/resources/unknown", json!({}));
        c.set("/mounts/0/unknown", json!(null));
    })
    .map(drop)
}

fn wrong_types_are_refused(lab: &Lab) -> Verdict {
    let cases = [
        ("/process/args", json!("a string")),
        ("/process/user/uid", json!("root")),
        ("/process/user/uid", json!(-1)),
        ("/linux/namespaces/0/type", json!("nonsense")),
        ("/linux/rootfsPropagation", json!("nonsense")),
        ("/hostname", json!(7)),
        ("/root/readonly", json!("yes")),
        ("/linux/resources/memory", json!({"limit": "much"})),
    ];
    for (pointer, value) in cases {
        lab.refuses(&format!("{pointer} {value}"), |c| {
            c.set(pointer, value.clone());
        })?;
    }
    Ok(())
}

fn annotations_that_are_no_map(lab: &Lab) -> Verdict {
    lab.refuses("annotations that are a list", |c| {
        c.set("/annotations", json!(["a"]));
    })
}

fn annotation_value_that_is_no_string(lab: &Lab) -> Verdict {
    lab.refuses("an annotation with a number", |c| {
        c.set("/annotations", json!({"com.example.key": 5}));
    })
}

fn empty_annotation_key(lab: &Lab) -> Verdict {
    lab.refuses("an annotation without a name", |c| {
        c.set("/annotations", json!({"": "x"}));
    })
}

fn unknown_annotations_are_ignored(lab: &Lab) -> Verdict {
    lab.see(&[], |c| {
        c.set(
            "/annotations",
            json!({"com.example.unknown": "x", "org.opencontainers.y": ""}),
        );
    })
    .map(drop)
}

/// The owner of a host file, for tests that a mapping leaves it alone.
pub fn owner(path: &str) -> Result<(u32, u32), String> {
    let meta = fs::metadata(path).map_err(|e| format!("cannot stat {path}: {e}"))?;
    Ok((meta.uid(), meta.gid()))
}
