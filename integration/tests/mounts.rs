//! Mounts: every option by its effect, propagation, recursion, id maps, traps.
//!
//! Source: runtime-spec config.md "Mounts" and config-linux.md; mount(8), mount_setattr(2).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use integration::proc::{Mount, mount_at, parse_mountinfo};
use integration::{Bundle, Runtime};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

/// The container's own mountinfo.
fn mounts(runtime: &Runtime, bundle: &mut Bundle) -> Vec<Mount> {
    parse_mountinfo(&runtime.sh(bundle, "cat /proc/self/mountinfo"))
}

/// The mount that `options` make of a tmpfs on /mnt.
fn tmpfs_with(runtime: &Runtime, options: &str) -> Mount {
    let mut bundle = runtime.bundle();
    bundle.mount("tmpfs", "tmpfs", "/mnt", options);
    let all = mounts(runtime, &mut bundle);
    mount_at(&all, "/mnt")
        .unwrap_or_else(|| panic!("{options}: nothing at /mnt"))
        .clone()
}

/// A host mount of this test's own (its thread has a mount namespace), gone when dropped.
struct HostMount(PathBuf);

impl HostMount {
    fn tmpfs(at: &Path) -> Self {
        fs::create_dir_all(at).expect("the scratch directory is writable");
        let (kind, none): (_, Option<&str>) = (Some("tmpfs"), None);
        mount(kind, at, kind, MsFlags::empty(), none).expect("root may mount");
        Self(at.to_owned())
    }

    fn change(&self, how: MsFlags) {
        let none: Option<&str> = None;
        mount(none, &self.0, none, how, none).expect("root may");
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn each_flag_is_set_or_cleared() {
    let runtime = Runtime::new();
    // options, flags the mount must have, flags it must not have
    let table: &[(&str, &[&str], &[&str])] = &[
        (
            "",
            &["rw", "relatime"],
            &["ro", "nosuid", "nodev", "noexec"],
        ),
        ("ro", &["ro"], &["rw"]),
        ("rw", &["rw"], &["ro"]),
        ("ro,rw", &["rw"], &["ro"]),
        ("rw,ro", &["ro"], &["rw"]),
        ("nosuid", &["nosuid"], &["nodev"]),
        ("nosuid,suid", &["rw"], &["nosuid"]),
        ("nodev", &["nodev"], &["nosuid"]),
        ("nodev,dev", &["rw"], &["nodev"]),
        ("noexec", &["noexec"], &["nosuid"]),
        ("noexec,exec", &["rw"], &["noexec"]),
        ("noatime", &["noatime"], &["relatime"]),
        ("relatime", &["relatime"], &["noatime"]),
        ("strictatime", &["rw"], &["relatime", "noatime"]),
        ("nodiratime", &["nodiratime"], &["noatime"]),
        ("nodiratime,diratime", &["rw"], &["nodiratime"]),
        (
            "nosuid,nodev,noexec,ro",
            &["nosuid", "nodev", "noexec", "ro"],
            &["rw"],
        ),
    ];
    let defaults: (&str, &[&str], &[&str]) = ("defaults", &["rw"], &["ro", "nosuid"]);
    let since_1_2: &[_] = if runtime.differs("1.1.5 has no defaults") {
        &[]
    } else {
        &[defaults]
    };
    for (options, with, without) in table.iter().chain(since_1_2) {
        let mount = tmpfs_with(&runtime, options);
        for flag in *with {
            assert!(
                mount.has(flag),
                "{options:?} gives {:?}, not {flag}",
                mount.options
            );
        }
        for flag in *without {
            assert!(
                !mount.has(flag),
                "{options:?} gives {:?}, with {flag}",
                mount.options
            );
        }
    }
}

#[test]
fn flags_of_the_file_system_are_set() {
    let runtime = Runtime::new();
    // `mand`, `iversion` and `silent` leave no trace on tmpfs; they must be taken without an error.
    let table: &[(&str, &[&str])] = &[
        ("sync", &["sync"]),
        ("sync,async", &[]),
        ("dirsync", &["dirsync"]),
        ("lazytime", &["lazytime"]),
        ("lazytime,nolazytime", &[]),
    ];
    for (options, want) in table {
        let mount = tmpfs_with(&runtime, options);
        for flag in ["sync", "dirsync", "lazytime"] {
            let has = mount.data.iter().any(|it| it == flag) || mount.has(flag);
            assert_eq!(
                has,
                want.contains(&flag),
                "{options}: {flag} in {:?}",
                mount.data
            );
        }
    }
}

#[test]
fn options_without_a_trace_are_taken() {
    let runtime = Runtime::new();
    let names = "silent loud norelatime nostrictatime atime mand nomand iversion noiversion";
    for options in names.split(' ') {
        let mut bundle = runtime.bundle();
        bundle.mount("tmpfs", "tmpfs", "/mnt", options);
        let run = runtime.run(&bundle);
        assert_eq!(run.code, 0, "{options}: {}", run.stderr);
    }
}

#[test]
fn nosymfollow_is_set_and_cleared() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 has no nosymfollow") {
        return;
    }
    assert!(tmpfs_with(&runtime, "nosymfollow").has("nosymfollow"));
    assert!(!tmpfs_with(&runtime, "nosymfollow,symfollow").has("nosymfollow"));
}

#[test]
fn data_reaches_the_file_system() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.mount(
        "tmpfs",
        "named",
        "/new",
        "size=64k,mode=1710,uid=12,gid=34,nr_inodes=99",
    );
    let out = runtime.sh(
        &mut bundle,
        "stat -c '%a %u %g' /new; grep ' /new ' /proc/self/mountinfo",
    );
    let (stat, line) = out.split_once('\n').expect("two lines");
    assert_eq!(stat, "1710 12 34");
    let mount = &parse_mountinfo(line)[0];
    assert_eq!(mount.source, "named");
    for want in ["size=64k", "nr_inodes=99"] {
        assert!(
            mount.data.iter().any(|it| it == want),
            "{want} not in {:?}",
            mount.data
        );
    }
}

#[test]
fn unknown_data_is_refused_by_the_file_system_and_named() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.mount("tmpfs", "tmpfs", "/mnt", "nosuchoption=1");
    let run = runtime.run(&bundle).exits(1);
    assert!(run.stderr.contains("/mnt"), "{}", run.stderr);
}

#[test]
fn a_bind_mount_shows_the_source_and_makes_its_target() {
    let runtime = Runtime::new();
    let source = runtime.dir().join("source");
    fs::create_dir(&source).expect("writable");
    fs::write(source.join("file"), "content\n").expect("writable");
    let mut bundle = runtime.bundle();
    bundle.bind(&source, "/new/deep/target", "bind");
    bundle.bind(&source.join("file"), "/new/file", "bind,ro");
    let script = "cat /new/deep/target/file /new/file; echo x > /new/deep/target/made; echo y 2>/dev/null > /new/file || echo ro";
    assert_eq!(runtime.sh(&mut bundle, script), "content\ncontent\nro\n");
    assert_eq!(
        fs::read_to_string(source.join("made")).expect("made inside"),
        "x\n"
    );
}

/// Who has checked a directory can hand over that very one.
#[test]
fn the_source_may_be_a_descriptor_of_the_caller() {
    let runtime = Runtime::new();
    if runtime.differs("runc and crun look for it in a process that does not have it") {
        return;
    }
    let source = runtime.dir().join("source");
    fs::create_dir(&source).expect("writable");
    fs::write(source.join("which"), "opened").expect("writable");
    let opened = fs::File::open(&source).expect("it was made just now");
    fs::rename(&source, source.with_extension("old")).expect("writable");
    for path in ["/proc/self/fd/3", "/dev/fd/3"] {
        let mut bundle = runtime.bundle();
        bundle
            .bind(Path::new(path), "/mnt", "bind")
            .sh("cat /mnt/which");
        let opened = opened.try_clone().expect("there are descriptors");
        let run = runtime.call_run(&bundle).fd(opened).run();
        assert_eq!((run.code, run.stdout.as_str()), (0, "opened"), "{run:?}");
    }
}

#[test]
fn a_file_cannot_cover_a_directory_nor_a_directory_a_file() {
    let runtime = Runtime::new();
    for (source, target) in [("/etc/hostname", "/etc"), ("/etc", "/bin/busybox")] {
        let mut bundle = runtime.bundle();
        bundle.sh("true").bind(Path::new(source), target, "bind");
        // Docker looks for these words.
        let _ = runtime.run(&bundle).fails_with("not a directory");
    }
}

#[test]
fn a_relative_bind_source_is_below_the_bundle() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    fs::create_dir(bundle.path().join("data")).expect("writable");
    fs::write(bundle.path().join("data/file"), "relative\n").expect("writable");
    bundle.bind(Path::new("data"), "/mnt", "bind");
    assert_eq!(runtime.sh(&mut bundle, "cat /mnt/file"), "relative\n");
}

#[test]
fn the_type_none_with_a_bind_option_is_a_bind_mount() {
    let runtime = Runtime::new();
    let source = runtime.dir().join("source");
    fs::create_dir(&source).expect("writable");
    fs::write(source.join("file"), "x\n").expect("writable");
    for kind in ["none", "", "ext4", "bind"] {
        let mut bundle = runtime.bundle();
        bundle.mount(kind, &source.to_string_lossy(), "/mnt", "rbind");
        assert_eq!(
            runtime.sh(&mut bundle, "cat /mnt/file"),
            "x\n",
            "type {kind:?}"
        );
    }
    let mut bundle = runtime.bundle();
    bundle.push(
        "/mounts",
        json!({ "destination": "/mnt", "source": source, "options": ["bind"] }),
    );
    assert_eq!(runtime.sh(&mut bundle, "cat /mnt/file"), "x\n", "no type");
}

/// `source` with another tmpfs on `source/sub`.
fn nested(runtime: &Runtime) -> (PathBuf, Vec<HostMount>) {
    let source = runtime.dir().join("nested");
    let outer = HostMount::tmpfs(&source);
    let inner = HostMount::tmpfs(&source.join("sub"));
    // Dropped from first to last: the inner one first.
    (source, vec![inner, outer])
}

#[test]
fn rbind_takes_submounts_along_and_bind_does_not() {
    let runtime = Runtime::new();
    let (source, _mounts) = nested(&runtime);
    for (option, want) in [
        ("bind", false),
        ("rbind", true),
        ("rbind,rprivate,ro,bind", true),
    ] {
        let mut bundle = runtime.bundle();
        bundle.bind(&source, "/mnt", option);
        let all = mounts(&runtime, &mut bundle);
        assert_eq!(mount_at(&all, "/mnt/sub").is_some(), want, "{option}");
    }
}

#[test]
fn recursive_flags_reach_submounts_and_plain_ones_do_not() {
    let runtime = Runtime::new();
    let (source, _mounts) = nested(&runtime);
    // options, the flag, whether the top and the submount have it
    let mut table = vec![
        ("rbind,ro", "ro", true, false),
        ("rbind,rro", "ro", true, true),
        ("rbind,nosuid", "nosuid", true, false),
        ("rbind,rnosuid", "nosuid", true, true),
        ("rbind,rnodev", "nodev", true, true),
        ("rbind,rnoexec", "noexec", true, true),
        ("rbind,rnoatime", "noatime", true, true),
        ("rbind,rnodiratime", "nodiratime", true, true),
        ("rbind,rrelatime", "relatime", true, true),
        ("rbind,rstrictatime", "relatime", false, false),
        ("rbind,rrw", "ro", false, false),
        ("rbind,rsuid", "nosuid", false, false),
        ("rbind,rdev", "nodev", false, false),
        ("rbind,rexec", "noexec", false, false),
        ("rbind,rdiratime", "nodiratime", false, false),
    ];
    if !runtime.differs("1.1.5 has no nosymfollow and gives ratime a wrong mask") {
        table.push(("rbind,ratime", "noatime", false, false));
        table.push(("rbind,rnosymfollow", "nosymfollow", true, true));
        table.push(("rbind,rsymfollow", "nosymfollow", false, false));
    }
    for (options, flag, top, below) in table {
        let mut bundle = runtime.bundle();
        bundle.bind(&source, "/mnt", options);
        let all = mounts(&runtime, &mut bundle);
        let has = |target: &str| mount_at(&all, target).expect(target).has(flag);
        assert_eq!(
            (has("/mnt"), has("/mnt/sub")),
            (top, below),
            "{options}: {flag}"
        );
    }
}

#[test]
fn a_bind_mount_keeps_the_sources_flags_that_nobody_mentions() {
    let runtime = Runtime::new();
    let source = runtime.dir().join("flagged");
    fs::create_dir(&source).expect("writable");
    let kind = Some("tmpfs");
    let none: Option<&str> = None;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(kind, &source, kind, flags, none).expect("root may");
    let _guard = HostMount(source.clone());
    let mut bundle = runtime.bundle();
    bundle.bind(&source, "/mnt", "bind");
    let all = mounts(&runtime, &mut bundle);
    let mount = mount_at(&all, "/mnt").expect("mounted");
    assert!(
        mount.has("nosuid") && mount.has("nodev") && mount.has("noexec"),
        "{:?}",
        mount.options
    );
}

/// runc refuses them since 1.2, crun and youki do not: the source is what it was.
#[test]
fn the_options_of_a_tmpfs_change_nothing_on_a_bind_mount() {
    let runtime = Runtime::new();
    let source = runtime.dir().join("source");
    fs::create_dir(&source).expect("writable");
    fs::write(source.join("file"), [b'x'; 4096]).expect("writable");
    let before = fs::metadata(&source).expect("it is there").mode();
    let mut bundle = runtime.bundle();
    bundle.bind(&source, "/mnt", "bind,nosuid,mode=700,size=1k,uid=7");
    let all = mounts(&runtime, &mut bundle);
    let mount = mount_at(&all, "/mnt").expect("mounted");
    assert!(mount.has("nosuid"), "{:?}", mount.options);
    let after = fs::metadata(&source).expect("it is there");
    assert_eq!((after.mode(), after.uid()), (before, 0));
}

#[test]
fn propagation_of_a_mount_is_as_asked() {
    let runtime = Runtime::new();
    let host = HostMount::tmpfs(&runtime.dir().join("peer"));
    host.change(MsFlags::MS_SHARED);
    let table = [
        ("rbind,shared", Some("shared:")),
        ("rbind,rshared", Some("shared:")),
        ("rbind,slave", Some("master:")),
        ("rbind,rslave", Some("master:")),
        ("rbind,private", None),
        ("rbind,rprivate", None),
        ("rbind,unbindable", Some("unbindable")),
        ("rbind,runbindable", Some("unbindable")),
    ];
    for (options, want) in table {
        let mut bundle = runtime.bundle();
        bundle.bind(&host.0, "/mnt", options);
        let all = mounts(&runtime, &mut bundle);
        let fields = &mount_at(&all, "/mnt").expect("mounted").optional;
        match want {
            None => assert!(fields.is_empty(), "{options}: {fields:?}"),
            Some(want) => assert!(
                fields.iter().any(|it| it.starts_with(want)),
                "{options}: {fields:?}"
            ),
        }
    }
}

#[test]
fn mounts_of_the_host_propagate_into_a_slave_and_not_into_a_private_mount() {
    let runtime = Runtime::new();
    let host = HostMount::tmpfs(&runtime.dir().join("peer"));
    host.change(MsFlags::MS_SHARED);
    fs::create_dir(host.0.join("late")).expect("writable");
    for (options, want) in [("rbind,rslave", true), ("rbind,rprivate", false)] {
        let mut bundle = runtime.bundle();
        bundle.sleeper().bind(&host.0, "/mnt", options);
        bundle.set("/linux/rootfsPropagation", "rslave");
        let container = runtime.start(&bundle);
        let late = HostMount::tmpfs(&host.0.join("late"));
        let all = integration::proc::mounts(container.pid());
        assert_eq!(mount_at(&all, "/mnt/late").is_some(), want, "{options}");
        drop(late);
        container.finish();
    }
}

#[test]
fn mounts_of_the_container_propagate_to_the_host_only_when_shared() {
    let runtime = Runtime::new();
    let host = HostMount::tmpfs(&runtime.dir().join("peer"));
    host.change(MsFlags::MS_SHARED);
    for (options, want) in [
        ("rbind,rshared", true),
        ("rbind,rslave", false),
        ("rbind,rprivate", false),
    ] {
        let mut bundle = runtime.bundle();
        bundle
            .bind(&host.0, "/mnt", options)
            .set("/linux/rootfsPropagation", "shared");
        bundle.capabilities(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
        bundle.sh("mkdir -p /mnt/inner && mount -t tmpfs inner /mnt/inner && sleep 1000000");
        let container = runtime.start(&bundle);
        integration::wait_for("the container's mount", || {
            mount_at(&integration::proc::mounts(container.pid()), "/mnt/inner").is_some()
        });
        let text = fs::read_to_string("/proc/thread-self/mountinfo").expect("proc is mounted");
        let inner = host.0.join("inner");
        let seen = mount_at(&parse_mountinfo(&text), &inner.to_string_lossy()).is_some();
        assert_eq!(seen, want, "{options}");
        container.finish();
        let _ = umount2(&inner, MntFlags::MNT_DETACH);
    }
}

#[test]
fn the_roots_propagation_is_as_asked() {
    let runtime = Runtime::new();
    let all = [
        ("private", None),
        ("rprivate", None),
        ("shared", Some("shared:")),
        ("unbindable", Some("unbindable")),
        ("runbindable", Some("unbindable")),
    ];
    let early = runtime.differs("1.1.5 applies shared and unbindable before pivot_root only");
    for (value, want) in all.into_iter().take(if early { 2 } else { 5 }) {
        let mut bundle = runtime.bundle();
        // To hide a file keel binds a node of /dev, which may not be unbindable yet.
        bundle.set("/linux/maskedPaths", json!(["/proc/keys", "/proc/uptime"]));
        bundle.set("/linux/rootfsPropagation", value);
        let all = mounts(&runtime, &mut bundle);
        let fields = &mount_at(&all, "/").expect("the root").optional;
        match want {
            None => assert!(fields.is_empty(), "{value}: {fields:?}"),
            Some(want) => assert!(
                fields.iter().any(|it| it.starts_with(want)),
                "{value}: {fields:?}"
            ),
        }
    }
}

#[test]
fn without_the_roots_propagation_what_is_mounted_below_it_follows_the_host_one_way() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let host = HostMount::tmpfs(&bundle.rootfs().join("srv"));
    host.change(MsFlags::MS_SHARED);
    let all = mounts(&runtime, &mut bundle);
    let fields = |at| &mount_at(&all, at).expect("mounted").optional;
    assert!(
        fields("/srv").iter().all(|it| it.starts_with("master:")),
        "{:?}",
        fields("/srv")
    );
    assert!(!fields("/srv").is_empty());
    assert!(!fields("/").iter().any(|it| it.starts_with("shared:")));
}

#[test]
fn tmpcopyup_keeps_what_was_there() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.file("srv/dir/file", "old\n", 0o640);
    symlink("dir/file", bundle.rootfs().join("srv/link")).expect("writable");
    chown(bundle.rootfs().join("srv/dir/file"), Some(7), Some(8)).expect("root may");
    bundle.mount("tmpfs", "tmpfs", "/srv", "tmpcopyup");
    let script = "cat /srv/link; stat -c '%a %u %g' /srv/dir/file; readlink /srv/link; \
                  echo new > /srv/dir/file; grep -c ' /srv ' /proc/self/mountinfo";
    assert_eq!(
        runtime.sh(&mut bundle, script),
        "old\n640 7 8\ndir/file\n1\n"
    );
    let outside = fs::read_to_string(bundle.rootfs().join("srv/dir/file")).expect("still there");
    assert_eq!(outside, "old\n");
}

#[test]
fn a_tmpfs_inherits_the_mode_of_an_existing_directory() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let dir = bundle.rootfs().join("mnt");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o1751)).expect("ours");
    bundle.mount("tmpfs", "tmpfs", "/mnt", "");
    assert_eq!(runtime.sh(&mut bundle, "stat -c %a /mnt"), "1751\n");
}

#[test]
fn mounts_are_made_in_order_so_later_ones_cover() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    for name in ["a", "b"] {
        let dir = runtime.dir().join(name);
        fs::create_dir(&dir).expect("writable");
        fs::write(dir.join("which"), name).expect("writable");
        bundle.bind(&dir, "/mnt", "bind");
    }
    bundle.mount("tmpfs", "tmpfs", "/mnt/inside", "");
    fs::create_dir(runtime.dir().join("b/inside")).expect("writable");
    let out = runtime.sh(
        &mut bundle,
        "cat /mnt/which; grep -c ' /mnt/inside ' /proc/self/mountinfo",
    );
    assert_eq!(out, "b1\n");
}

/// Those who unmount, or look for what covers what, go by it.
#[test]
fn mountinfo_has_the_order_of_config_json() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let source = runtime.dir().join("source");
    fs::create_dir(&source).expect("writable");
    let places = ["/mnt/a", "/mnt/b", "/mnt/c", "/mnt/d"];
    for (place, kind) in places.iter().zip(["tmpfs", "bind", "tmpfs", "rbind"]) {
        match kind {
            "tmpfs" => bundle.mount(kind, kind, place, ""),
            _ => bundle.bind(&source, place, kind),
        };
    }
    let all = mounts(&runtime, &mut bundle);
    let found: Vec<&str> = all
        .iter()
        .map(|mount| mount.target.as_str())
        .filter(|target| target.starts_with("/mnt/"))
        .collect();
    assert_eq!(found, places);
}

#[test]
fn a_symlink_in_the_rootfs_cannot_lead_a_mount_out() {
    let runtime = Runtime::new();
    let outside = runtime.dir().join("outside");
    fs::create_dir(&outside).expect("writable");
    fs::write(outside.join("canary"), "untouched").expect("writable");
    let up = format!("../../../../../../../../..{}", outside.display());
    let traps = [outside.to_string_lossy().into_owned(), up];
    for trap in &traps {
        let mut bundle = runtime.bundle();
        symlink(trap, bundle.rootfs().join("trap")).expect("writable");
        bundle.mount("tmpfs", "tmpfs", "/trap/new", "");
        bundle.file("outer", "", 0o644);
        let run = runtime.run(&bundle);
        let names: Vec<_> = fs::read_dir(&outside)
            .expect("readable")
            .flatten()
            .collect();
        assert_eq!(
            names.len(),
            1,
            "{trap}: something was made outside: {run:?}"
        );
    }
}

#[test]
fn a_symlink_inside_the_rootfs_is_followed_inside_it() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    fs::create_dir(bundle.rootfs().join("real")).expect("writable");
    symlink("/real", bundle.rootfs().join("absolute")).expect("writable");
    symlink("real", bundle.rootfs().join("relative")).expect("writable");
    bundle
        .mount("tmpfs", "one", "/absolute", "")
        .mount("tmpfs", "two", "/relative", "");
    let all = mounts(&runtime, &mut bundle);
    let at = |source: &str| {
        all.iter()
            .find(|it| it.source == source)
            .map(|it| it.target.clone())
    };
    assert_eq!(at("one").as_deref(), Some("/real"));
    assert_eq!(at("two").as_deref(), Some("/real"));
}

#[test]
fn a_mount_on_a_symlinked_proc_is_refused() {
    let runtime = Runtime::new();
    for (name, kind) in [("proc", "proc"), ("sys", "sysfs")] {
        let bundle = runtime.bundle();
        fs::remove_dir(bundle.rootfs().join(name)).expect("an empty directory");
        symlink("/tmp", bundle.rootfs().join(name)).expect("writable");
        let run = runtime.run(&bundle).exits(1);
        assert!(
            run.stderr.contains(&format!("/{name}")),
            "{kind}: {}",
            run.stderr
        );
    }
}

#[test]
fn only_harmless_files_under_proc_may_be_covered() {
    let runtime = Runtime::new();
    let file = runtime.dir().join("file");
    fs::write(&file, "fake\n").expect("writable");
    for name in [
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
    ] {
        let mut bundle = runtime.bundle();
        bundle.bind(&file, &format!("/proc/{name}"), "bind");
        assert_eq!(
            runtime.sh(&mut bundle, &format!("cat /proc/{name}")),
            "fake\n",
            "{name}"
        );
    }
    for name in [
        "sysrq-trigger",
        "version",
        "self/attr/exec",
        "sys/kernel/core_pattern",
        "kcore",
    ] {
        let mut bundle = runtime.bundle();
        bundle.bind(&file, &format!("/proc/{name}"), "bind");
        let run = runtime.run(&bundle);
        assert_eq!(run.code, 1, "{name} may be covered: {run:?}");
    }
}

#[test]
fn idmapped_mounts_shift_owners_without_changing_the_disk() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 has no id-mapped mounts") {
        return;
    }
    let source = runtime.dir().join("owned");
    fs::create_dir(&source).expect("writable");
    fs::write(source.join("file"), "").expect("writable");
    chown(source.join("file"), Some(1000), Some(2000)).expect("root may");
    let uids = json!([{ "containerID": 1000, "hostID": 5000, "size": 1 }]);
    let gids = json!([{ "containerID": 2000, "hostID": 6000, "size": 1 }]);
    let mut bundle = runtime.bundle();
    bundle.push(
        "/mounts",
        json!({
            "destination": "/mnt", "type": "bind", "source": source, "options": ["bind"],
            "uidMappings": uids, "gidMappings": gids,
        }),
    );
    assert_eq!(
        runtime.sh(&mut bundle, "stat -c '%u %g' /mnt/file"),
        "5000 6000\n"
    );
    // And with the container's own mapping.
    for option in ["idmap", "ridmap"] {
        let mut bundle = runtime.bundle();
        bundle.user_namespace(700_000, 65_536);
        chown(bundle.rootfs(), Some(700_000), Some(700_000)).expect("root may");
        bundle.bind(&source, "/mnt", &format!("rbind,{option}"));
        assert_eq!(
            runtime.sh(&mut bundle, "stat -c '%u %g' /mnt/file"),
            "1000 2000\n",
            "{option}"
        );
    }
}

#[test]
fn a_file_system_can_be_mounted_over_a_bind_mounts_content() {
    let runtime = Runtime::new();
    let source = runtime.dir().join("data");
    fs::create_dir_all(source.join("cache")).expect("writable");
    let mut bundle = runtime.bundle();
    bundle
        .bind(&source, "/mnt", "rbind")
        .mount("tmpfs", "tmpfs", "/mnt/cache", "size=4k");
    let _ = runtime.sh(&mut bundle, "echo x > /mnt/cache/file");
    assert!(!source.join("cache/file").exists());
}

#[test]
fn overlay_is_mounted_with_its_data() {
    let runtime = Runtime::new();
    let dir = runtime.dir();
    for name in ["lower", "upper", "work"] {
        fs::create_dir(dir.join(name)).expect("writable");
    }
    fs::write(dir.join("lower/file"), "lower\n").expect("writable");
    let mut bundle = runtime.bundle();
    let data = format!(
        "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work",
        dir.display()
    );
    bundle.mount("overlay", "overlay", "/mnt", &data);
    assert_eq!(
        runtime.sh(&mut bundle, "cat /mnt/file; echo upper > /mnt/file"),
        "lower\n"
    );
    assert_eq!(
        fs::read_to_string(dir.join("upper/file")).expect("copied up"),
        "upper\n"
    );
}

#[test]
fn the_cgroup_mount_shows_the_containers_own_cgroup_read_only() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.new_namespace("cgroup");
    bundle.mount(
        "cgroup",
        "cgroup",
        "/sys/fs/cgroup",
        "nosuid,noexec,nodev,relatime,ro",
    );
    let script = "d=/sys/fs/cgroup/pids; [ -d $d ] || d=/sys/fs/cgroup; grep -qx 1 $d/cgroup.procs && echo own; \
                  mkdir $d/new 2>/dev/null || echo ro";
    assert_eq!(runtime.sh(&mut bundle, script), "own\nro\n");
}

#[test]
fn a_read_only_root_refuses_writes_but_mounts_on_it_do_not() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle
        .set("/root/readonly", true)
        .mount("tmpfs", "tmpfs", "/mnt", "");
    let script =
        "touch /x 2>/dev/null || echo ro; touch /mnt/x && echo rw; touch /dev/x && echo dev";
    assert_eq!(runtime.sh(&mut bundle, script), "ro\nrw\ndev\n");
    assert!(!bundle.rootfs().join("x").exists());
}

#[test]
fn no_pivot_works_without_a_mount_point_for_the_root() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.sh("ls /; cat /etc/passwd | head -1");
    let run = runtime
        .call_run(&bundle)
        .flag("--no-pivot")
        .run()
        .succeeds();
    assert!(run.stdout.contains("root:x:0:0"), "{}", run.stdout);
    assert!(
        !run.stdout.contains("boot"),
        "the host's root is visible: {}",
        run.stdout
    );
}

#[test]
fn no_pivot_leaves_no_procfs_of_the_host_behind() {
    let runtime = Runtime::new();
    let copy = runtime.dir().join("copy");
    fs::create_dir(&copy).expect("writable");
    let none: Option<&str> = None;
    mount(Some("proc"), &copy, Some("proc"), MsFlags::empty(), none).expect("root may");
    let _copy = HostMount(copy);
    let mut bundle = runtime.bundle();
    bundle
        .set("/linux/maskedPaths", json!(["/proc/kcore"]))
        .set("/linux/readonlyPaths", json!(["/proc/sys"]))
        .capabilities(&["CAP_SYS_ADMIN", "CAP_SETFCAP"])
        .unset("/linux/seccomp")
        .sh("unshare -Urmpf sh -c 'mount -t proc proc /mnt && echo mounted'; echo tried");
    let run = runtime.call_run(&bundle).flag("--no-pivot").run();
    let run = run.succeeds();
    assert_eq!(run.stdout, "tried\n");
    assert!(
        run.stderr.contains("mount:"),
        "it was tried: {}",
        run.stderr
    );
}

#[test]
fn the_hosts_mounts_are_not_visible() {
    let runtime = Runtime::new();
    let all = mounts(&runtime, &mut runtime.bundle());
    let targets: Vec<&str> = all.iter().map(|it| it.target.as_str()).collect();
    assert_eq!(
        targets,
        [
            "/",
            "/proc",
            "/dev",
            "/dev/pts",
            "/dev/shm",
            "/dev/mqueue",
            "/sys"
        ]
    );
}

#[test]
fn a_mapped_root_keeps_what_the_host_made_read_only_or_covered() {
    let runtime = Runtime::new();
    let source = runtime.dir().join("source");
    let host = HostMount::tmpfs(&source);
    fs::create_dir(source.join("sub")).expect("writable");
    fs::write(source.join("sub/secret"), "x").expect("writable");
    let _covering = HostMount::tmpfs(&source.join("sub"));
    host.change(MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY);
    let mut bundle = runtime.bundle();
    bundle
        .user_namespace(750_000, 65_536)
        .capabilities(&["CAP_SYS_ADMIN"])
        .unset("/linux/seccomp")
        .bind(&source, "/mnt", "rbind")
        .sh("mount -o remount,bind,rw /mnt && echo writable; umount /mnt/sub && ls /mnt/sub; true");
    chown(bundle.rootfs(), Some(750_000), Some(750_000)).expect("root may");
    let run = runtime.run(&bundle).succeeds();
    assert_eq!(run.stdout, "");
    assert_eq!(
        run.stderr.lines().count(),
        2,
        "both were tried: {}",
        run.stderr
    );
}

#[test]
fn a_dangling_link_leads_to_a_mount_point_inside_the_root() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let file = runtime.dir().join("data");
    fs::write(&file, "from the host\n").expect("writable");
    symlink("/run/no/such", bundle.rootfs().join("jump")).expect("writable");
    symlink("../../jump/hosts", bundle.rootfs().join("etc/hosts")).expect("writable");
    bundle.bind(&file, "/etc/hosts", "bind");
    if runtime.differs("Debian's runc refuses a dangling link") {
        return;
    }
    let shown = runtime.sh(&mut bundle, "cat /run/no/such/hosts");
    assert_eq!(shown, "from the host\n");
}

#[test]
fn a_source_in_the_root_file_system_shows_the_mounts_made_before_it() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let data = runtime.dir().join("data");
    fs::create_dir(&data).expect("writable");
    fs::write(data.join("file"), "mounted\n").expect("writable");
    fs::create_dir(bundle.rootfs().join("a")).expect("writable");
    let inside = bundle.rootfs().join("a");
    bundle.bind(&data, "/a", "bind").bind(&inside, "/b", "bind");
    assert_eq!(runtime.sh(&mut bundle, "cat /b/file"), "mounted\n");
}

#[test]
fn one_attribute_of_a_bind_mount_replaces_those_of_its_source() {
    let runtime = Runtime::new();
    let source = runtime.dir().join("source");
    let host = HostMount::tmpfs(&source);
    let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    host.change(MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags);
    let script = "grep ' /mnt ' /proc/self/mountinfo | cut -d ' ' -f 6";
    for (options, want) in [
        ("bind", "rw,noexec,noatime\n"),
        ("bind,nodev", "rw,nodev,noatime\n"),
    ] {
        let mut bundle = runtime.bundle();
        bundle.bind(&source, "/mnt", options);
        assert_eq!(runtime.sh(&mut bundle, script), want, "{options}");
    }
}
