//! Kernels without newer system calls: a fallback that works, or a refusal that says why.
//!
//! The runtime is started under `fake-enosys`, so its calls fail with ENOSYS as on an older kernel.

use integration::{Kind, Runtime};
use serde_json::json;

/// What a kernel may lack, alone and as the kernels of those times did.
const KERNELS: &[&str] = &[
    "mount_setattr",                                                   // before 5.12
    "close_range",                                                     // before 5.9
    "faccessat2",                                                      // before 5.8
    "pidfd_getfd",                                                     // before 5.6
    "openat2",                                                         // before 5.6
    "clone3",                               // seccomp profiles of old engines
    "memfd_create",                         // never missing, but may be filtered
    "mount_setattr,close_range,faccessat2", // 5.6
    "mount_setattr,close_range,faccessat2,openat2,pidfd_getfd", // 5.4
    "mount_setattr,close_range,faccessat2,openat2,pidfd_getfd,clone3", // 5.4 under a profile
];

/// Lacks that no version from 5.4 on has: refusing is allowed, a wrong container is not.
const TOO_OLD: &[&str] = &[
    "open_tree",
    "move_mount",
    "fsopen,fsmount,fspick",
    "pidfd_open,pidfd_send_signal",
];

fn config(runtime: &Runtime) -> integration::Bundle {
    let source = runtime.dir().join("source");
    std::fs::create_dir_all(&source).expect("writable");
    std::fs::write(source.join("file"), "bound\n").expect("writable");
    let mut bundle = runtime.bundle();
    bundle.bind(&source, "/mnt", "rbind,ro,nosuid").mount(
        "tmpfs",
        "tmpfs",
        "/srv",
        "size=64k,noexec",
    );
    bundle.set("/root/readonly", true);
    bundle.set("/linux/maskedPaths", json!(["/proc/kcore"]));
    bundle.set("/linux/readonlyPaths", json!(["/proc/sys"]));
    bundle.new_namespace("cgroup");
    bundle
}

const SCRIPT: &str = "cat /mnt/file; touch /mnt/x 2>/dev/null || echo bind-ro; touch /x 2>/dev/null || echo root-ro; \
     cat /proc/kcore | wc -c; touch /srv/x && echo srv; (echo 1 > /proc/sys/kernel/shmmni) 2>/dev/null || echo sys-ro; \
     ls /proc/self/fd | wc -l; hostname";

#[test]
fn a_whole_life_works_on_each_supported_kernel() {
    for missing in KERNELS {
        let runtime = Runtime::without(missing);
        let mut bundle = config(&runtime);
        bundle.sh(SCRIPT);
        let run = runtime.run(&bundle);
        let want = "bound\nbind-ro\nroot-ro\n0\nsrv\nsys-ro\n4\nbundle\n";
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (0, want),
            "without {missing}: {}",
            run.stderr
        );
        bundle.sleeper();
        let container = runtime.start(&bundle);
        assert_eq!(container.status(), "running", "without {missing}");
        container.finish();
    }
}

#[test]
fn a_user_namespace_works_on_each_supported_kernel() {
    for missing in KERNELS {
        let runtime = Runtime::without(missing);
        let mut bundle = runtime.bundle();
        bundle.user_namespace(800_000, 65_536);
        std::os::unix::fs::chown(bundle.rootfs(), Some(800_000), Some(800_000)).expect("root may");
        bundle.sh("id -u; cat /proc/self/uid_map | wc -l; echo x > /dev/null && echo null");
        let run = runtime.run(&bundle);
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (0, "0\n1\nnull\n"),
            "without {missing}: {}",
            run.stderr
        );
    }
}

#[test]
fn symlinks_in_the_rootfs_lead_nowhere_on_each_supported_kernel() {
    for missing in KERNELS {
        let runtime = Runtime::without(missing);
        let outside = runtime.dir().join("outside");
        std::fs::create_dir(&outside).expect("writable");
        let mut bundle = runtime.bundle();
        std::os::unix::fs::symlink(&outside, bundle.rootfs().join("trap")).expect("writable");
        bundle.mount("tmpfs", "tmpfs", "/trap/new", "");
        let run = runtime.run(&bundle);
        let made = std::fs::read_dir(&outside).expect("readable").count();
        assert_eq!(made, 0, "without {missing}: {run:?}");
    }
}

#[test]
fn recursive_attributes_without_mount_setattr_are_refused() {
    let runtime = Runtime::without("mount_setattr");
    let mut bundle = runtime.bundle();
    bundle.mount("bind", "/tmp", "/mnt", "rbind,rro");
    let run = runtime.run(&bundle).exits(1);
    assert!(run.stderr.contains("/mnt"), "{}", run.stderr);
    let keel = runtime.kind() == Kind::Keel;
    assert!(
        !keel || run.stderr.contains("function not implemented"),
        "{}",
        run.stderr
    );
}

#[test]
fn id_mapped_mounts_without_mount_setattr_are_refused() {
    let runtime = Runtime::without("mount_setattr");
    if runtime.differs("1.1.5 has no id-mapped mounts") {
        return;
    }
    let mut bundle = runtime.bundle();
    let map = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
    bundle.push(
        "/mounts",
        json!({
            "destination": "/mnt", "type": "bind", "source": "/tmp", "options": ["bind"],
            "uidMappings": map, "gidMappings": map,
        }),
    );
    let run = runtime.run(&bundle).exits(1);
    assert!(run.stderr.contains(".mounts"), "{}", run.stderr);
    assert!(
        run.stderr.contains("function not implemented"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_kernel_that_is_too_old_is_refused_or_the_container_is_right() {
    for missing in TOO_OLD {
        let runtime = Runtime::without(missing);
        let mut bundle = config(&runtime);
        bundle.sh("touch /mnt/x 2>/dev/null || echo bind-ro; touch /x 2>/dev/null || echo root-ro");
        let run = runtime.run(&bundle);
        if run.code == 0 {
            assert_eq!(run.stdout, "bind-ro\nroot-ro\n", "without {missing}");
        } else {
            assert_eq!(
                run.stderr.lines().count(),
                1,
                "without {missing}: {}",
                run.stderr
            );
        }
        runtime.assert_clean(missing);
    }
}
