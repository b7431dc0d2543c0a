//! Devices, host names, sysctls, masked and read-only paths, annotations.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use integration::{Bundle, Runtime, proc};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;

/// type (as stat says), major:minor in hexadecimal, mode
const DEFAULT_DEVICES: &[(&str, &str)] = &[
    ("/dev/null", "character special file 1:3 666"),
    ("/dev/zero", "character special file 1:5 666"),
    ("/dev/full", "character special file 1:7 666"),
    ("/dev/random", "character special file 1:8 666"),
    ("/dev/urandom", "character special file 1:9 666"),
    ("/dev/tty", "character special file 5:0 666"),
];

fn stat(runtime: &Runtime, bundle: &mut Bundle, path: &str) -> String {
    runtime
        .sh(bundle, &format!("stat -c '%F %t:%T %a' {path}"))
        .trim_end()
        .to_string()
}

#[test]
fn the_default_devices_are_there() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let script: String = DEFAULT_DEVICES
        .iter()
        .map(|(path, _)| format!("stat -c '%n %F %t:%T %a' {path}; "))
        .collect();
    let want: String = DEFAULT_DEVICES
        .iter()
        .map(|(path, stat)| format!("{path} {stat}\n"))
        .collect();
    assert_eq!(runtime.sh(&mut bundle, &script), want);
}

#[test]
fn the_default_links_are_there() {
    let runtime = Runtime::new();
    let script = "for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done";
    let want = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";
    assert_eq!(runtime.sh(&mut runtime.bundle(), script), want);
}

#[test]
fn the_default_devices_work() {
    let runtime = Runtime::new();
    let script = "echo x > /dev/null; head -c 4 /dev/zero | od -An -tx1; head -c 4 /dev/urandom | wc -c; \
                  echo x > /dev/full || echo full";
    let mut bundle = runtime.bundle();
    bundle.sh(&format!("({script}) 2>/dev/null"));
    assert_eq!(
        runtime.run(&bundle).succeeds().stdout,
        " 00 00 00 00\n4\nfull\n"
    );
}

#[test]
fn a_device_of_config_json_is_made_with_its_numbers_mode_and_owner() {
    let runtime = Runtime::new();
    let table = [
        (
            json!({ "path": "/dev/mem0", "type": "c", "major": 1, "minor": 7, "fileMode": 0o640, "uid": 3, "gid": 4 }),
            "character special file 1:7 640 3 4",
        ),
        (
            json!({ "path": "/dev/mem0", "type": "u", "major": 1, "minor": 7 }),
            "character special file 1:7 666 0 0",
        ),
        (
            json!({ "path": "/dev/sub/blk", "type": "b", "major": 7, "minor": 255, "fileMode": 0o600 }),
            "block special file 7:ff 600 0 0",
        ),
        (
            json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o622 }),
            "fifo 0:0 622 0 0",
        ),
        (
            json!({ "path": "/dev/odd", "type": "c", "major": 1, "minor": 3, "fileMode": 0o20_644 }),
            "character special file 1:3 644 0 0",
        ),
    ];
    for (device, want) in table {
        let mut bundle = runtime.bundle();
        let path = device["path"].as_str().expect("a path").to_string();
        bundle.push("/linux/devices", device.clone());
        let out = runtime.sh(&mut bundle, &format!("stat -c '%F %t:%T %a %u %g' {path}"));
        assert_eq!(out.trim_end(), want, "{device}");
    }
}

#[test]
fn a_device_of_config_json_replaces_the_default_of_that_path() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.push("/linux/devices", json!({
        "path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 0, "gid": 0,
    }));
    assert_eq!(
        stat(&runtime, &mut bundle, "/dev/zero"),
        "character special file 1:5 600"
    );
}

#[test]
fn the_hosts_ptmx_among_the_devices_is_left_out() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.user_namespace(100_000, 65_536);
    let ptmx = json!({ "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 });
    // podman lists it for a privileged container.
    bundle.push("/linux/devices", ptmx);
    let link = runtime.sh(&mut bundle, "readlink /dev/ptmx");
    assert_eq!(link, "pts/ptmx\n");
}

#[test]
fn devices_in_a_user_namespace_are_the_hosts() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.user_namespace(600_000, 65_536);
    chown(bundle.rootfs(), Some(600_000), Some(600_000)).expect("root may");
    assert_eq!(
        stat(&runtime, &mut bundle, "/dev/null"),
        "character special file 1:3 666"
    );
    let out = runtime.sh(&mut bundle, "head -c 3 /dev/zero | wc -c");
    assert_eq!(out, "3\n");
}

#[test]
fn a_device_in_a_user_namespace_is_made_where_the_hosts_does_not_serve() {
    let runtime = Runtime::new();
    if runtime.differs("runc 1.1.5 binds what the host has at that path, whatever it is") {
        return;
    }
    let table = [
        // The host has none at that path, one of another number, and one of other rights.
        (("/dev/kt/none", 1, 5, 0o640), (3, 4), "1:5 640 3:4"),
        (("/dev/full", 1, 5, 0o666), (0, 0), "1:5 666 0:0"),
        (("/dev/urandom", 1, 9, 0o600), (0, 0), "1:9 600 0:0"),
        // Who is nobody there gets the host's.
        (
            ("/dev/random", 1, 8, 0o660),
            (7, 70_000),
            "1:8 666 65534:65534",
        ),
    ];
    for ((path, major, minor, mode), (uid, gid), want) in table {
        let mut bundle = runtime.bundle();
        bundle.user_namespace(600_000, 65_536);
        chown(bundle.rootfs(), Some(600_000), Some(600_000)).expect("root may");
        let device = json!({ "path": path, "type": "c", "major": major, "minor": minor,
            "fileMode": mode, "uid": uid, "gid": gid });
        bundle.push("/linux/devices", device);
        let look = format!("stat -c '%t:%T %a %u:%g' {path}; head -c 3 {path} | wc -c");
        let out = runtime.sh(&mut bundle, &look);
        assert_eq!(out, format!("{want}\n3\n"), "{path}");
    }
    let mut bundle = runtime.bundle();
    bundle.user_namespace(600_000, 65_536);
    let device = json!({ "path": "/dev/kt", "type": "c", "major": 1, "minor": 5, "uid": 70_000 });
    bundle.push("/linux/devices", device);
    let refused = runtime.run(&bundle);
    let _ =
        refused.fails_with("the user 70000 of /dev/kt is not in the container's user namespace");
}

#[test]
fn a_bind_mounted_dev_is_left_as_it_is() {
    let runtime = Runtime::new();
    let dev = runtime.dir().join("dev");
    fs::create_dir(&dev).expect("writable");
    // runc looks for it when it gives away stdio.
    let (kind, numbers) = (SFlag::S_IFCHR, makedev(1, 3));
    mknod(
        &dev.join("null"),
        kind,
        Mode::from_bits_truncate(0o666),
        numbers,
    )
    .expect("root may");
    let mut bundle = runtime.bundle();
    if let Some(mounts) = bundle.spec["mounts"].as_array_mut() {
        mounts.retain(|mount| {
            !mount["destination"]
                .as_str()
                .is_some_and(|it| it.starts_with("/dev"))
        });
    }
    bundle.bind(&dev, "/dev", "rbind");
    assert_eq!(runtime.sh(&mut bundle, "ls /dev"), "null\n");
    assert_eq!(fs::read_dir(dev).expect("readable").count(), 1);
}

#[test]
fn a_dev_that_is_a_symlink_does_not_lead_outside() {
    let runtime = Runtime::new();
    if runtime.differs("CVE-2026-41579: 1.1.5 follows it and replaces files of the host") {
        return;
    }
    let outside = runtime.dir().join("outside");
    fs::create_dir(&outside).expect("writable");
    fs::write(outside.join("ptmx"), "canary").expect("writable");
    let mut bundle = runtime.bundle();
    fs::remove_dir(bundle.rootfs().join("dev")).expect("an empty directory");
    std::os::unix::fs::symlink(&outside, bundle.rootfs().join("dev")).expect("writable");
    if let Some(mounts) = bundle.spec["mounts"].as_array_mut() {
        mounts.retain(|mount| {
            !mount["destination"]
                .as_str()
                .is_some_and(|it| it.starts_with("/dev"))
        });
    }
    let _ = runtime.run(&bundle);
    assert_eq!(
        fs::read_to_string(outside.join("ptmx")).expect("still there"),
        "canary"
    );
    assert_eq!(fs::read_dir(outside).expect("readable").count(), 1);
}

#[test]
fn hostname_and_domainname_are_the_containers_own() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.set("/hostname", "somebody");
    assert_eq!(runtime.sh(&mut bundle, "hostname"), "somebody\n");
    if runtime.differs("1.1.5 has no domainname") {
        return;
    }
    bundle.set("/domainname", "example.org");
    assert_eq!(
        runtime.sh(&mut bundle, "cat /proc/sys/kernel/domainname"),
        "example.org\n"
    );
}

#[test]
fn sysctls_of_the_containers_namespaces_are_set() {
    let runtime = Runtime::new();
    let table = [
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward", "1"),
        (
            "net.ipv4.ip_unprivileged_port_start",
            "/proc/sys/net/ipv4/ip_unprivileged_port_start",
            "77",
        ),
        ("kernel.shmmni", "/proc/sys/kernel/shmmni", "123"),
        ("kernel.msgmax", "/proc/sys/kernel/msgmax", "4321"),
        ("fs.mqueue.msg_max", "/proc/sys/fs/mqueue/msg_max", "9"),
    ];
    let mut bundle = runtime.bundle();
    let mut script = String::new();
    let mut want = String::new();
    for (name, file, value) in table {
        bundle.spec["linux"]["sysctl"][name] = json!(value);
        script.push_str(&format!("cat {file}; "));
        want.push_str(&format!("{value}\n"));
    }
    assert_eq!(runtime.sh(&mut bundle, &script), want);
}

#[test]
fn a_sysctl_may_be_written_with_slashes() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    if runtime.differs("1.1.5 takes net.ipv4/conf/lo.x only since 1.1.6") {
        return;
    }
    bundle.spec["linux"]["sysctl"]["net/ipv4/conf/lo/arp_ignore"] = json!("2");
    assert_eq!(
        runtime.sh(&mut bundle, "cat /proc/sys/net/ipv4/conf/lo/arp_ignore"),
        "2\n"
    );
}

#[test]
fn sysctls_of_the_host_are_refused() {
    let runtime = Runtime::new();
    // key, a namespace that must be absent for the refusal
    let table = [
        ("kernel.core_pattern", ""),
        ("kernel.panic", ""),
        ("vm.swappiness", ""),
        ("fs.file-max", ""),
        ("kernel.hostname", ""),
        ("net.ipv4.ip_forward", "network"),
        ("kernel.shmmni", "ipc"),
        ("fs.mqueue.msg_max", "ipc"),
    ];
    for (key, shared) in table {
        let mut bundle = runtime.bundle();
        bundle.share(shared);
        bundle.spec["linux"]["sysctl"][key] = json!("1");
        let run = runtime.run(&bundle);
        assert_eq!(run.code, 1, "{key}: {run:?}");
        assert!(run.stderr.contains(key), "{key}: {}", run.stderr);
    }
}

#[test]
fn a_masked_file_reads_as_empty_and_a_masked_directory_is_empty_and_read_only() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle
        .file("secret/key", "k", 0o644)
        .file("file", "content", 0o644);
    bundle.set(
        "/linux/maskedPaths",
        json!([
            "/secret",
            "/file",
            "/proc/kcore",
            "/proc/acpi",
            "/missing",
            "/file"
        ]),
    );
    let script = "cat /file | wc -c; ls /secret | wc -l; touch /secret/x 2>/dev/null || echo ro; \
                  cat /proc/kcore | wc -c; test -e /missing || echo missing";
    assert_eq!(runtime.sh(&mut bundle, script), "0\n0\nro\n0\nmissing\n");
}

#[test]
fn a_read_only_path_cannot_be_written_and_keeps_its_flags() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle
        .file("frozen/file", "", 0o644)
        .mount("tmpfs", "tmpfs", "/mnt", "nosuid,nodev,noexec");
    bundle.set(
        "/linux/readonlyPaths",
        json!(["/frozen", "/mnt", "/proc/sys", "/missing"]),
    );
    let script = "(echo x > /frozen/file) 2>/dev/null || echo ro; touch /mnt/x 2>/dev/null || echo ro; \
                  (echo 1 > /proc/sys/kernel/shmmni) 2>/dev/null || echo ro; cat /proc/self/mountinfo";
    let out = runtime.sh(&mut bundle, script);
    let text = out
        .strip_prefix("ro\nro\nro\n")
        .unwrap_or_else(|| panic!("{out}"));
    let all = proc::parse_mountinfo(text);
    let mount = proc::mount_at(&all, "/mnt").expect("mounted");
    for flag in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(mount.has(flag), "{flag} not in {:?}", mount.options);
    }
}

#[test]
fn annotations_are_kept_in_the_state() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    let annotations = json!({ "a": "1", "org.example/key": "ä \"quoted\" \n line", "empty": "" });
    bundle.sleeper().set("/annotations", annotations.clone());
    let container = runtime.create(&bundle);
    assert_eq!(container.state()["annotations"], annotations);
}

#[test]
fn unknown_properties_are_ignored() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle
        .set("/unknown", json!({ "deep": [1, 2] }))
        .set("/process/future", 1)
        .set("/linux/new", true);
    let _ = runtime.run(&bundle).succeeds();
}

#[test]
fn any_version_1_is_accepted() {
    let runtime = Runtime::new();
    for version in ["1.0.0", "1.0.0-rc1", "1.0.2-dev", "1.1.0", "1.2.1", "1.3.0"] {
        let mut bundle = runtime.bundle();
        bundle.set("/ociVersion", version);
        let run = runtime.run(&bundle);
        assert_eq!(run.code, 0, "{version}: {}", run.stderr);
    }
}

#[test]
fn stdio_is_given_to_the_containers_user() {
    let runtime = Runtime::new();
    let mut bundle = runtime.bundle();
    bundle.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    // Opening it again through /proc needs ownership of the pipe.
    bundle.sh("echo again > /proc/self/fd/1");
    let (mut reader, writer) = std::io::pipe().expect("descriptors");
    let container =
        integration::Container::create_with(&runtime, &bundle, |call| call.stdout(writer));
    container.start();
    assert_eq!(container.wait(), 0);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reader, &mut text).expect("a pipe");
    assert_eq!(text, "again\n");
}

#[test]
fn the_hosts_dev_null_is_not_given_away() {
    let runtime = Runtime::new();
    if runtime
        .differs("1.1.5 makes the machine's /dev/null the property of a user namespace's root")
    {
        return;
    }
    let mut bundle = runtime.bundle();
    bundle.user_namespace(600_000, 65_536).sleeper();
    chown(bundle.rootfs(), Some(600_000), Some(600_000)).expect("root may");
    let null = fs::File::open("/dev/null").expect("it is there");
    let _container =
        integration::Container::create_with(&runtime, &bundle, |call| call.stdin(null));
    assert_eq!(fs::metadata("/dev/null").expect("it is there").uid(), 0);
}
