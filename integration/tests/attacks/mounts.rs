//! B: paths, symbolic links and mounts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use integration::proc::parse_mountinfo;
use nix::mount::{MsFlags, mount};
use serde_json::json;

use super::{Case, Control, Outcome, Victim, ended, long_mode, racing, rounds, unless};

pub const CASES: &[Case] = &[
    Case {
        id: "B1",
        seen: "CVE-2017-1002101, CVE-2021-25741",
        what: "a directory of a volume is swapped for a link to the host after its caller has opened it",
        attack: swapped_source,
        control: Control::Undefended(swapped_source_by_path),
    },
    Case {
        id: "B2",
        seen: "CVE-2021-30465",
        what: "the parent of a mount point in a shared volume is swapped for a link to the host",
        attack: swapped_parent,
        control: Control::Naive,
    },
    Case {
        id: "B3",
        seen: "CVE-2019-19921, CVE-2023-27561",
        what: "/proc is a link in the image, a volume, or covered in part",
        attack: replaced_procfs,
        control: Control::Naive,
    },
    Case {
        id: "B4",
        seen: "CVE-2024-45310",
        what: "a missing mount point is made through a link, fixed or swapped in",
        attack: made_outside,
        control: Control::Naive,
    },
    Case {
        id: "B5",
        seen: "CVE-2025-31133",
        what: "the image's /dev/null is a link, so that a mask shows what it points to",
        attack: mask_of_the_image,
        control: Control::Runc,
    },
    Case {
        id: "B7",
        seen: "CVE-2026-41579, CVE-2026-47766",
        what: "the image's /dev is a link to a directory of the host",
        attack: dev_is_a_link,
        control: Control::Runc,
    },
    Case {
        id: "B8",
        seen: "GHSA-3q8j-pf29-vwv8",
        what: "a read-only path is swapped between its mount and the step that makes it read-only",
        attack: second_steps,
        control: Control::Runc,
    },
    Case {
        id: "B9",
        seen: "CVE-2024-5154, CVE-2026-55686",
        what: "the working directory and files that are bound lie below a link to the host",
        attack: linked_directories,
        control: Control::Naive,
    },
    Case {
        id: "B10",
        seen: "CVE-2015-3630, CVE-2017-16539",
        what: "every file of procfs and sysfs is opened for writing, secret ones for reading",
        attack: kernel_files,
        control: Control::Undefended(kernel_files_without_lists),
    },
    Case {
        id: "B11",
        seen: "runc's fix of host mount leaks",
        what: "containers are made where mounts are shared with the host",
        attack: mount_leaks,
        control: Control::Naive,
    },
];

fn swapped_source(victim: &Victim) -> Outcome {
    bind_swapped(victim, Some("/proc/self/fd/3"))
}

fn swapped_source_by_path(victim: &Victim) -> Outcome {
    bind_swapped(victim, None)
}

/// Binds a directory that is swapped for a link: by `source`, or by its path, which no runtime can tell
/// from a link that is meant.
fn bind_swapped(victim: &Victim, source: Option<&str>) -> Outcome {
    let arena = victim.arena();
    let sub = arena.runtime.dir().join("volume/sub");
    fs::create_dir_all(&sub).expect("the scratch directory is writable");
    let opened = fs::File::open(&sub).expect("it was made just now");
    fs::rename(&sub, sub.with_extension("old")).expect("the scratch directory is writable");
    symlink(&arena.canary, &sub).expect("the scratch directory is writable");
    let source = source.map_or(sub.as_path(), Path::new);
    let mut bundle = arena.bundle();
    bundle
        .bind(source, "/mnt", "rbind")
        .sh("cat /mnt/secret; touch /mnt/new");
    let run = arena.runtime.call_run(&bundle).fd(opened).run();
    arena.secret_is_kept(&run)
}

/// A volume with a directory and a link to the host's canary that can be exchanged.
fn swapped_parent(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let volume = arena.runtime.dir().join("volume");
    fs::create_dir_all(volume.join("b/c")).expect("the scratch directory is writable");
    fs::create_dir(arena.canary.join("c")).expect("the scratch directory is writable");
    symlink(&arena.canary, volume.join("decoy")).expect("the scratch directory is writable");
    let mut bundle = arena.bundle();
    bundle
        .bind(&volume, "/a", "rbind")
        .mount("tmpfs", "trap", "/a/b/c", "")
        .sh("cat /proc/self/mountinfo");
    racing(&volume.join("b"), &volume.join("decoy"), || {
        let mut result = Outcome::Contained("nothing was tried".into());
        for _ in 0..rounds(victim) {
            let run = arena.run(&bundle);
            let lost = run.code == 0 && !run.stdout.contains(" trap ");
            result = unless(lost, "the mount landed outside the root", &run);
            if lost {
                break;
            }
        }
        result
    })
}

fn replaced_procfs(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut outcome = None;
    for way in ["link", "volume", "part"] {
        let mut bundle = arena.bundle();
        let decoy = arena.runtime.dir().join(format!("decoy-{way}"));
        fs::create_dir_all(decoy.join("self/attr")).expect("the scratch directory is writable");
        match way {
            "link" => {
                fs::remove_dir(bundle.rootfs().join("proc")).expect("it is empty");
                fs::create_dir(bundle.rootfs().join("decoy")).expect("the bundle is writable");
                symlink("decoy", bundle.rootfs().join("proc")).expect("the bundle is writable");
            }
            "volume" => {
                bundle.bind(&decoy, "/proc", "rbind");
            }
            _ => {
                bundle.mount("tmpfs", "tmpfs", "/proc/self/attr", "");
            }
        }
        let run = arena.run(&bundle);
        if run.code == 0 {
            return Outcome::Bitten(format!("it runs with a {way} in the place of procfs"));
        }
        outcome = Some(ended(&run));
    }
    outcome.expect("there are ways")
}

fn made_outside(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    symlink(&arena.canary, bundle.rootfs().join("fixed")).expect("the bundle is writable");
    bundle.mount("tmpfs", "tmpfs", "/fixed/new/leaf", "");
    let run = arena.run(&bundle);
    let fixed = arena.canary_lives(&run);
    if matches!(fixed, Outcome::Bitten(_)) {
        return fixed;
    }
    let volume = arena.runtime.dir().join("volume");
    fs::create_dir_all(volume.join("b")).expect("the scratch directory is writable");
    symlink(&arena.canary, volume.join("decoy")).expect("the scratch directory is writable");
    racing(&volume.join("b"), &volume.join("decoy"), || {
        let mut bundle = arena.bundle();
        let place = bundle.spec["mounts"].as_array().map_or(0, Vec::len) + 1;
        bundle
            .bind(&volume, "/a", "rbind")
            .mount("tmpfs", "tmpfs", "/a", "");
        for round in 0..rounds(victim) {
            let leaf = format!("/a/b/new{round}/leaf");
            bundle.set(&format!("/mounts/{place}/destination"), leaf);
            let run = arena.run(&bundle);
            if matches!(arena.canary_lives(&run), Outcome::Bitten(_)) {
                break;
            }
        }
    });
    arena.canary_lives(&run)
}

fn mask_of_the_image(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    let dev = arena.runtime.dir().join("dev");
    fs::create_dir(&dev).expect("the scratch directory is writable");
    for dir in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(dir)).expect("the scratch directory is writable");
    }
    symlink("/proc/version", dev.join("null")).expect("the scratch directory is writable");
    if let Some(mounts) = bundle.spec["mounts"].as_array_mut() {
        mounts.retain(|entry| {
            entry["destination"]
                .as_str()
                .is_some_and(|it| !it.starts_with("/dev"))
        });
    }
    bundle
        .bind(&dev, "/dev", "rbind,rw")
        .set("/linux/maskedPaths", json!(["/proc/keys"]))
        .sh("cat /proc/keys");
    let run = arena.run(&bundle);
    let shows = run.stdout.contains("Linux version");
    unless(shows, "the mask shows another file of procfs", &run)
}

fn dev_is_a_link(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let bundle = arena.bundle();
    fs::remove_dir(bundle.rootfs().join("dev")).expect("it is empty");
    symlink(&arena.canary, bundle.rootfs().join("dev")).expect("the bundle is writable");
    let run = arena.run(&bundle);
    arena.canary_lives(&run)
}

/// The kernel takes a mount away from a directory that is renamed elsewhere, so that who has lost this race
/// cannot be told afterwards. Looked for is what makes it one: a mount that is there already, named again
/// by a path to get its flags.
fn second_steps(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    bundle
        .set("/linux/readonlyPaths", json!(["/srv/fixed"]))
        .set("/linux/maskedPaths", json!([]))
        .args(&["/bin/true"]);
    fs::create_dir_all(bundle.rootfs().join("srv/fixed")).expect("the bundle is writable");
    let trace = arena.runtime.dir().join("trace");
    let output = trace.to_string_lossy();
    let calls = "--trace=mount,mount_setattr,move_mount";
    let tracer = ["strace", "--follow-forks", "-o", &output, calls];
    let run = arena.runtime.call_run(&bundle).through(&tracer).run();
    let trace = fs::read_to_string(&trace).expect("strace is installed");
    let named = trace
        .lines()
        .any(|line| line.contains("/srv/fixed") && line.contains("MS_REMOUNT"));
    let is_made = named || trace.contains("MOUNT_ATTR_RDONLY");
    assert!(is_made, "nothing is made read-only:\n{trace}");
    unless(named, "the path is named again to make it read-only", &run)
}

fn linked_directories(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let mut result = None;
    for way in ["cwd", "etc", "run", "device"] {
        let mut bundle = arena.bundle();
        let rootfs = bundle.rootfs();
        match way {
            "cwd" => {
                symlink(&arena.canary, rootfs.join("w")).expect("the bundle is writable");
                bundle.set("/process/cwd", "/w/made/here");
            }
            "device" => {
                symlink(&arena.canary, rootfs.join("x")).expect("the bundle is writable");
                let device = json!({ "path": "/x/node", "type": "c", "major": 1, "minor": 3 });
                bundle.push("/linux/devices", device);
            }
            name => {
                let hosts = arena.runtime.dir().join("hosts");
                fs::write(&hosts, "127.0.0.1 localhost\n")
                    .expect("the scratch directory is writable");
                fs::remove_dir_all(rootfs.join(name)).expect("it is there");
                symlink(&arena.canary, rootfs.join(name)).expect("the bundle is writable");
                bundle.bind(&hosts, &format!("/{name}/new-hosts"), "rbind");
            }
        }
        let run = arena.run(&bundle);
        match arena.canary_lives(&run) {
            bitten @ Outcome::Bitten(_) => return bitten,
            contained => result = Some(contained),
        }
    }
    result.expect("there are ways")
}

/// Moby's lists, which rdocker and every caller of note give.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Opens, but never writes: this is the machine's own kernel. What is written to `/proc/pressure` is
/// a process's own, and wakes nobody else.
const OPEN_ALL: &str = "
for file in $(find /proc /sys -xdev -type f -perm -200 ! -path '/proc/[0-9]*' ! -path '/proc/self/*' \
        ! -path '/proc/thread-self/*' ! -path '/proc/pressure/*' 2>/dev/null); do
    (: >>$file) 2>/dev/null && echo writable $file
done
for file in /proc/kcore /proc/keys /proc/timer_list; do
    [ -s $file ] || head -c1 $file 2>/dev/null | grep -q . && echo readable $file
done
true";

fn kernel_files(victim: &Victim) -> Outcome {
    kernel_files_with(victim, MASKED, READONLY)
}

fn kernel_files_without_lists(victim: &Victim) -> Outcome {
    kernel_files_with(victim, &[], &[])
}

fn kernel_files_with(victim: &Victim, masked: &[&str], readonly: &[&str]) -> Outcome {
    let arena = victim.arena();
    let mut bundle = arena.bundle();
    bundle
        .set("/linux/maskedPaths", json!(masked))
        .set("/linux/readonlyPaths", json!(readonly))
        .sh(OPEN_ALL);
    let run = arena.run(&bundle);
    match run.stdout.lines().next() {
        Some(first) => Outcome::Bitten(first.to_owned()),
        None => ended(&run),
    }
}

fn mount_leaks(victim: &Victim) -> Outcome {
    let arena = victim.arena();
    let none: Option<&str> = None;
    let shared = MsFlags::MS_REC | MsFlags::MS_SHARED;
    let tree = arena.runtime.dir();
    mount(Some(tree), tree, none, MsFlags::MS_BIND, none).expect("root may mount");
    mount(none, tree, none, shared, none).expect("root may mount");
    let mounted = || {
        let text = fs::read_to_string("/proc/thread-self/mountinfo").expect("procfs is there");
        parse_mountinfo(&text)
            .into_iter()
            .map(|mount| mount.target)
            .collect::<Vec<_>>()
    };
    let before = mounted();
    let bundle = arena.bundle();
    let mut last = None;
    // What has leaked once is copied by each round that follows, twice as much every time.
    let mut leaked = None;
    for _ in 0..if long_mode() { 1000 } else { 5 } {
        let run = arena.run(&bundle);
        leaked = mounted()
            .into_iter()
            .find(|target| !before.contains(target));
        last = Some(run);
        if leaked.is_some() {
            break;
        }
    }
    nix::mount::umount2(tree, nix::mount::MntFlags::MNT_DETACH).expect("it was mounted");
    match leaked {
        Some(_) => Outcome::Bitten("a mount of the container is on the host".into()),
        None => ended(&last.expect("there are rounds")),
    }
}
