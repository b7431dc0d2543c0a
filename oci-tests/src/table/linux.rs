//! config-linux.md: sysctl, masked and read-only paths, propagation, personality, memory policy.

use std::fs;

use nix::mount::{MsFlags, mount};
use serde_json::json;

use super::mounts::HostMount;
use crate::lab::Lab;
use crate::requirement::Level::Must;
use crate::requirement::{Requirement, Verdict, ensure, skip};

const PROPAGATION: &str = "config-linux.md#rootfs-mount-propagation";
const MASKED: &str = "config-linux.md#masked-paths";
const READONLY: &str = "config-linux.md#readonly-paths";
const POLICY: &str = "config-linux.md#memory-policy";

#[rustfmt::skip]
pub const TABLE: &[Requirement] = &[
    Requirement::must("linux.sysctl-1", "config-linux.md#sysctl",
        "sysctls have their values inside", sysctl),
    Requirement::must("linux.sysctl-2", "config-linux.md#sysctl",
        "a sysctl of no namespace is an error", host_sysctl),
    Requirement::must("linux.rootfsPropagation-1", PROPAGATION,
        "shared: the root is in a peer group of its own", shared_root),
    Requirement::must("linux.rootfsPropagation-2", PROPAGATION,
        "slave: mounts of the host appear inside, not the other way round", slave_root),
    Requirement::must("linux.rootfsPropagation-3", PROPAGATION,
        "private: the root neither receives nor sends", private_root),
    Requirement::must("linux.rootfsPropagation-4", PROPAGATION,
        "unbindable: the root cannot be bound", unbindable_root),
    Requirement::must("linux.maskedPaths-1", MASKED, "masked paths are absolute", relative_masked),
    Requirement::must("linux.maskedPaths-2", MASKED,
        "a masked file and a masked directory cannot be read", masked),
    Requirement::must("linux.maskedPaths-3", MASKED,
        "a masked path that does not exist is no error", masked_nothing),
    Requirement::must("linux.readonlyPaths-1", READONLY,
        "read-only paths are absolute", relative_readonly),
    Requirement::must("linux.readonlyPaths-2", READONLY,
        "a read-only file and directory cannot be written", readonly),
    Requirement::must("linux.readonlyPaths-3", READONLY,
        "a read-only path that does not exist is no error", readonly_nothing),
    Requirement::untestable("linux.mountLabel-1", Must, "config-linux.md#mount-label",
        "mountLabel is the SELinux context of the mounts",
        "needs a machine with SELinux, which Debian's kernels do not switch on"),
    Requirement::with("linux.personality-1", Must, "config-linux.md#personality",
        "LINUX is the usual domain", "LINUX", personality),
    Requirement::with("linux.personality-2", Must, "config-linux.md#personality",
        "LINUX32 makes uname name a 32-bit processor", "LINUX32", personality),
    Requirement::must("linux.personality-3", "config-linux.md#personality",
        "an unknown domain is an error", unknown_personality),
    Requirement::must("linux.memoryPolicy-1", POLICY, "mode and nodes are the policy", policy),
    Requirement::must("linux.memoryPolicy-2", POLICY, "an unknown mode is an error", unknown_policy),
    Requirement::must("linux.memoryPolicy-3", POLICY, "an unknown flag is an error", unknown_flag),
    Requirement::must("linux.memoryPolicy-4", POLICY,
        "nodes that the mode does not take, or lacks, are an error", wrong_nodes),
];

fn sysctl(lab: &Lab) -> Verdict {
    let tries = [
        "read:/proc/sys/net/ipv4/ip_forward",
        "read:/proc/sys/kernel/shm_rmid_forced",
    ];
    let view = lab.see(&tries, |c| {
        c.set(
            "/linux/sysctl",
            json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"}),
        );
    })?;
    for (n, tried) in view.tries.iter().enumerate() {
        ensure!(
            tried.found.trim() == "1",
            "{} is {:?}",
            tries[n],
            tried.found
        );
    }
    Ok(())
}

fn host_sysctl(lab: &Lab) -> Verdict {
    lab.refuses("a sysctl of the whole machine", |c| {
        c.set("/linux/sysctl", json!({"kernel.panic": "0"}));
    })
}

fn root_propagation(lab: &Lab, value: &str) -> Result<Vec<String>, crate::requirement::Why> {
    let mut bundle = lab.bundle()?;
    bundle.report(&["sh:busybox mkdir -p /mnt/x && busybox mount --bind / /mnt/x"]);
    // So that there is something to be a slave of.
    let root = bundle.host("");
    let path = root.trim_end_matches('/').to_owned();
    let none = None::<&str>;
    let fail = |e| format!("cannot prepare the root file system: {e}");
    mount(
        Some(path.as_str()),
        path.as_str(),
        none,
        MsFlags::MS_BIND,
        none,
    )
    .map_err(fail)?;
    mount(none, path.as_str(), none, MsFlags::MS_SHARED, none).map_err(fail)?;
    bundle.config.set("/linux/rootfsPropagation", json!(value));
    let output = lab.run(&bundle);
    let _ = nix::mount::umount2(path.as_str(), nix::mount::MntFlags::MNT_DETACH);
    let view = crate::inside::View::parse(&output?)?;
    Ok(view
        .mount("/")
        .map(|m| m.propagation.clone())
        .unwrap_or_default())
}

fn shared_root(lab: &Lab) -> Verdict {
    let found = root_propagation(lab, "shared")?;
    ensure!(
        found.iter().any(|p| p.starts_with("shared:")),
        "the root is {found:?}"
    );
    Ok(())
}

fn private_root(lab: &Lab) -> Verdict {
    let found = root_propagation(lab, "private")?;
    ensure!(found.is_empty(), "the root is {found:?}");
    Ok(())
}

fn unbindable_root(lab: &Lab) -> Verdict {
    let found = root_propagation(lab, "unbindable")?;
    ensure!(
        found.iter().any(|p| p == "unbindable"),
        "the root is {found:?}"
    );
    Ok(())
}

/// The mount that holds a directory, shared while the value lives.
struct Shared(String);

impl Shared {
    fn holder_of(path: &str) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
        let point = mounts
            .lines()
            .filter_map(crate::inside::mount)
            .map(|m| m.point)
            .filter(|point| std::path::Path::new(path).starts_with(point))
            .max_by_key(String::len)
            .ok_or_else(|| format!("no mount holds {path}"))?;
        Self::change(&point, MsFlags::MS_SHARED)?;
        Ok(Self(point))
    }

    fn change(point: &str, kind: MsFlags) -> Result<(), String> {
        let none = None::<&str>;
        mount(none, point, none, kind, none)
            .map_err(|e| format!("cannot change the propagation of {point}: {e}"))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Should it fail, later tests meet a shared mount, as they would on most machines.
        let _ = Self::change(&self.0, MsFlags::MS_PRIVATE);
    }
}

/// A mount made on the host while the container runs shows inside.
fn slave_root(lab: &Lab) -> Verdict {
    let mut bundle = lab.bundle()?;
    bundle
        .config
        .sleep()
        .set("/linux/rootfsPropagation", json!("slave"));
    let _shared = Shared::holder_of(&bundle.host(""))?;
    let container = lab.started(&bundle)?;
    let _inner = HostMount::tmpfs(&bundle.host("mnt"), MsFlags::empty())?;
    bundle.file("mnt/from-outside", "x")?;
    let seen = container.exec(&["/bin/busybox", "ls", "/mnt"])?;
    container.stop()?;
    ensure!(
        seen.stdout.contains("from-outside"),
        "inside, /mnt has {:?}",
        seen.stdout
    );
    Ok(())
}

fn relative_masked(lab: &Lab) -> Verdict {
    lab.refuses("a relative masked path", |c| {
        c.set("/linux/maskedPaths", json!(["proc/kcore"]));
    })
}

fn masked(lab: &Lab) -> Verdict {
    let view = lab.view(&["read:/etc/secret", "list:/tmp/dir"], |bundle| {
        bundle.file("etc/secret", "secret")?;
        bundle.mkdir("tmp/dir/inner")?;
        bundle
            .config
            .set("/linux/maskedPaths", json!(["/etc/secret", "/tmp/dir"]));
        Ok(())
    })?;
    for tried in &view.tries {
        ensure!(tried.found.is_empty(), "it can be read: {:?}", tried.found);
    }
    Ok(())
}

fn masked_nothing(lab: &Lab) -> Verdict {
    lab.see(&[], |c| {
        c.set("/linux/maskedPaths", json!(["/nowhere/at/all"]));
    })
    .map(drop)
}

fn relative_readonly(lab: &Lab) -> Verdict {
    lab.refuses("a relative read-only path", |c| {
        c.set("/linux/readonlyPaths", json!(["proc/sys"]));
    })
}

fn readonly(lab: &Lab) -> Verdict {
    let view = lab.view(
        &["write:/etc/file", "make:/tmp/dir/x", "make:/tmp/free"],
        |bundle| {
            bundle.file("etc/file", "x")?;
            bundle.mkdir("tmp/dir")?;
            bundle
                .config
                .set("/linux/readonlyPaths", json!(["/etc/file", "/tmp/dir"]));
            Ok(())
        },
    )?;
    let found: Vec<i32> = view.tries.iter().map(|t| t.errno).collect();
    ensure!(
        found == [libc::EROFS, libc::EROFS, 0],
        "writing gives {found:?}"
    );
    Ok(())
}

fn readonly_nothing(lab: &Lab) -> Verdict {
    lab.see(&[], |c| {
        c.set("/linux/readonlyPaths", json!(["/nowhere/at/all"]));
    })
    .map(drop)
}

/// PER_LINUX32 is 8: personality(2).
fn personality(lab: &Lab, domain: &str) -> Verdict {
    let view = lab.see(&["sh:busybox uname -m"], |c| {
        c.set("/linux/personality", json!({"domain": domain}));
    })?;
    let want = if domain == "LINUX32" {
        "00000008"
    } else {
        "00000000"
    };
    // The file is for those who may trace the process, which it itself may.
    ensure!(
        view.personality == want,
        "the personality is {:?}",
        view.personality
    );
    let machine = &view.tried(0)?.found;
    let narrow = machine == "i686" || machine == "armv8l" || machine.ends_with("86");
    ensure!(narrow == (domain == "LINUX32"), "uname says {machine:?}");
    Ok(())
}

fn unknown_personality(lab: &Lab) -> Verdict {
    lab.refuses("an unknown personality", |c| {
        c.set("/linux/personality", json!({"domain": "NONSENSE"}));
    })
}

fn policy(lab: &Lab) -> Verdict {
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        skip!("the kernel has no NUMA policies");
    }
    let view = lab.see(&[], |c| {
        c.set(
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"}),
        );
    })?;
    ensure!(
        view.numa.iter().any(|p| p.starts_with("interleave")),
        "the policies are {:?}",
        view.numa.first()
    );
    Ok(())
}

fn unknown_policy(lab: &Lab) -> Verdict {
    lab.refuses("an unknown memory policy", |c| {
        c.set("/linux/memoryPolicy", json!({"mode": "MPOL_NONSENSE"}));
    })
}

fn unknown_flag(lab: &Lab) -> Verdict {
    lab.refuses("an unknown flag of a memory policy", |c| {
        c.set(
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NONSENSE"]}),
        );
    })
}

fn wrong_nodes(lab: &Lab) -> Verdict {
    lab.refuses("MPOL_DEFAULT with nodes", |c| {
        c.set(
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_DEFAULT", "nodes": "0"}),
        );
    })?;
    lab.refuses("MPOL_BIND without nodes", |c| {
        c.set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND"}));
    })
}
