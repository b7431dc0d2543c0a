//! Namespaces, id maps, mounts and hooks that break a rule.
#![allow(
    clippy::too_many_lines,
    reason = "flat tables: one row after the other"
)]

use std::fs;
use std::os::unix::fs::symlink;

use super::Row;
use integration::Bundle;
use serde_json::{Value, json};

pub fn rows() -> Vec<Row> {
    [namespaces(), id_maps(), mounts(), hooks()]
        .into_iter()
        .flatten()
        .collect()
}

fn namespaces() -> Vec<Row> {
    let push = |entry: Value| {
        move |bundle: &mut Bundle| {
            bundle.push("/linux/namespaces", entry.clone());
        }
    };
    vec![
        Row::with(
            "namespace unknown",
            push(json!({ "type": "galaxy" })),
            &[".linux.namespaces[5].type", "galaxy"],
        ),
        Row::with(
            "namespace type missing",
            push(json!({ "path": "" })),
            &[".linux.namespaces[5]"],
        ),
        Row::with(
            "namespace twice",
            push(json!({ "type": "pid" })),
            &[".linux.namespaces[5]", "pid"],
        ),
        Row::with(
            "namespace path not there",
            |bundle| {
                bundle.join("network", "/nowhere/net");
            },
            &["/nowhere/net"],
        ),
        Row::with(
            "namespace path relative",
            |bundle| {
                bundle.join("network", "proc/self/ns/net");
            },
            &[".linux.namespaces[4].path"],
        ),
        Row::with(
            "namespace path a file",
            |bundle| {
                bundle.join("network", "/etc/passwd");
            },
            &["/etc/passwd"],
        ),
        Row::with(
            "namespace path of another type",
            |bundle| {
                bundle.join("network", "/proc/self/ns/uts");
            },
            &["/proc/self/ns/uts"],
        ),
        Row::with(
            "hostname without a uts namespace",
            |bundle| {
                bundle.share("uts");
            },
            &[".hostname"],
        ),
        Row::with(
            "masked path without a mount namespace",
            |bundle| {
                bundle
                    .share("mount")
                    .unset("/mounts")
                    .set("/linux/maskedPaths", json!(["/tmp"]));
            },
            &[".linux.maskedPaths"],
        ),
        Row::with(
            "read-only path without a mount namespace",
            |bundle| {
                bundle
                    .share("mount")
                    .unset("/mounts")
                    .set("/linux/readonlyPaths", json!(["/tmp"]));
            },
            &[".linux.readonlyPaths"],
        ),
        Row::with(
            "sysctl of a shared network",
            |bundle| {
                bundle
                    .share("network")
                    .set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
            },
            &["net.ipv4.ip_forward"],
        ),
        Row::with(
            "sysctl of a shared ipc",
            |bundle| {
                bundle
                    .share("ipc")
                    .set("/linux/sysctl", json!({ "kernel.shmmni": "1" }));
            },
            &["kernel.shmmni"],
        ),
        Row::set(
            "sysctl of the host",
            "/linux/sysctl",
            json!({ "kernel.panic": "1" }),
            &["kernel.panic"],
        ),
        Row::set(
            "sysctl that does not exist",
            "/linux/sysctl",
            json!({ "net.no_such": "1" }),
            &["no_such"],
        ),
        Row::set(
            "sysctl value refused",
            "/linux/sysctl",
            json!({ "net.ipv4.ip_forward": "x" }),
            &["ip_forward"],
        ),
        Row::set(
            "sysctl that climbs",
            "/linux/sysctl",
            json!({ "net.../../kernel/panic": "1" }),
            &[".linux.sysctl"],
        ),
    ]
}

fn id_maps() -> Vec<Row> {
    let maps = |uid: Value, gid: Value| {
        move |bundle: &mut Bundle| {
            bundle.new_namespace("user");
            bundle
                .set("/linux/uidMappings", uid.clone())
                .set("/linux/gidMappings", gid.clone());
        }
    };
    let map = |container: u64, host: u64, size: u64| json!({ "containerID": container, "hostID": host, "size": size });
    let good = || json!([map(0, 100_000, 1000)]);
    let overlap_inside = json!([map(0, 100_000, 1000), map(500, 200_000, 1000)]);
    let overlap_outside = json!([map(0, 100_000, 1000), map(1000, 100_500, 1000)]);
    let many = |count: u64| Value::Array((0..count).map(|id| map(id, 100_000 + id, 1)).collect());
    vec![
        Row::with(
            "user namespace without mappings",
            |bundle| {
                bundle.new_namespace("user");
            },
            &[".linux.uidMappings"],
        ),
        Row::with(
            "mappings without a user namespace",
            |bundle| {
                bundle.set(
                    "/linux/uidMappings",
                    json!([{ "containerID": 0, "hostID": 0, "size": 1 }]),
                );
            },
            &[".linux.uidMappings"],
        )
        .runc_accepts(),
        Row::with(
            "mappings of users only",
            maps(good(), json!([])),
            &[".linux.gidMappings"],
        ),
        Row::with(
            "mappings overlap inside",
            maps(overlap_inside, good()),
            &[".linux.uidMappings[1]"],
        ),
        Row::with(
            "mappings overlap outside",
            maps(good(), overlap_outside),
            &[".linux.gidMappings[1]"],
        ),
        Row::with(
            "mapping of size 0",
            maps(json!([map(0, 1, 0)]), good()),
            &[".linux.uidMappings"],
        ),
        Row::with(
            "mapping beyond the last id",
            maps(json!([map(0, 4_294_967_000, 1000)]), good()),
            &[".linux.uidMappings[0]"],
        ),
        Row::with(
            "341 mappings",
            maps(many(341), good()),
            &[".linux.uidMappings"],
        ),
        Row::with(
            "70,000 mappings",
            maps(many(70_000), good()),
            &[".linux.uidMappings"],
        ),
        Row::with(
            "root is not mapped",
            maps(json!([map(1, 100_000, 1000)]), good()),
            &[".linux.uidMappings"],
        ),
        Row::with(
            "user is not mapped",
            move |bundle| {
                bundle
                    .user_namespace(100_000, 1000)
                    .set("/process/user/uid", 5000);
            },
            &[".process.user.uid"],
        ),
        Row::with(
            "group is not mapped",
            move |bundle| {
                bundle
                    .user_namespace(100_000, 1000)
                    .set("/process/user/gid", 5000);
            },
            &[".process.user.gid"],
        ),
    ]
}

fn mounts() -> Vec<Row> {
    let mount =
        |kind: &'static str, source: &'static str, target: &'static str, options: &'static str| {
            move |bundle: &mut Bundle| {
                bundle.mount(kind, source, target, options);
            }
        };
    vec![
        Row::with(
            "mount without a destination",
            |bundle| {
                bundle.push("/mounts", json!({ "type": "tmpfs", "source": "tmpfs" }));
            },
            &[".mounts[6]"],
        ),
        Row::with(
            "mount on nothing",
            mount("tmpfs", "tmpfs", "", ""),
            &[".mounts[6].destination"],
        ),
        Row::with(
            "mount on the root",
            mount("tmpfs", "tmpfs", "/", ""),
            &[".mounts[6].destination"],
        )
        .runc_accepts(),
        Row::with(
            "mount of an unknown type",
            mount("nosuchfs", "x", "/mnt", ""),
            &["nosuchfs", "/mnt"],
        ),
        Row::with(
            "mount below a file",
            mount("tmpfs", "tmpfs", "/etc/passwd/x", ""),
            &["/etc/passwd/x"],
        ),
        Row::with(
            "mount on a file",
            mount("tmpfs", "tmpfs", "/etc/passwd", ""),
            &["/etc/passwd"],
        ),
        Row::with(
            "mount with unknown data",
            mount("tmpfs", "tmpfs", "/mnt", "nosuch=1"),
            &["/mnt"],
        ),
        Row::with(
            "bind of nothing",
            mount("bind", "/nowhere", "/mnt", "bind"),
            &["/nowhere"],
        ),
        Row::with(
            "bind with data",
            mount("bind", "/tmp", "/mnt", "bind,huge=always"),
            &["huge"],
        )
        .runc_accepts(),
        Row::with(
            "bind of a directory on a file",
            mount("bind", "/tmp", "/etc/passwd", "bind"),
            &["/etc/passwd"],
        ),
        Row::with(
            "bind of a file on a directory",
            mount("bind", "/etc/passwd", "/mnt", "bind"),
            &["/mnt"],
        ),
        Row::with(
            "NUL in a destination",
            mount("tmpfs", "tmpfs", "/m\u{0}nt", ""),
            &[".mounts[6].destination"],
        ),
        Row::with(
            "tmpfs on proc",
            mount("tmpfs", "tmpfs", "/proc", ""),
            &["/proc"],
        ),
        Row::with(
            "mount inside proc",
            mount("tmpfs", "tmpfs", "/proc/sys", ""),
            &["/proc/sys"],
        )
        .runc_accepts(),
        Row::with(
            "mount climbs into proc",
            mount("tmpfs", "tmpfs", "/tmp/../proc/sys", ""),
            &["/proc/sys"],
        )
        .runc_accepts(),
        Row::with(
            "proc on a symlink",
            |bundle| {
                fs::remove_dir(bundle.rootfs().join("proc")).expect("empty");
                symlink("/tmp", bundle.rootfs().join("proc")).expect("writable");
            },
            &["/proc"],
        ),
        Row::with(
            "proc on a relative symlink",
            |bundle| {
                fs::remove_dir(bundle.rootfs().join("proc")).expect("empty");
                symlink("../../../../proc", bundle.rootfs().join("proc")).expect("writable");
            },
            &["/proc"],
        ),
        Row::with(
            "sysfs on a symlink",
            |bundle| {
                fs::remove_dir(bundle.rootfs().join("sys")).expect("empty");
                symlink("tmp", bundle.rootfs().join("sys")).expect("writable");
            },
            &["/sys"],
        ),
        Row::with(
            "target a link to itself",
            |bundle| {
                symlink("loop", bundle.rootfs().join("loop")).expect("writable");
                bundle.mount("tmpfs", "tmpfs", "/loop/x", "");
            },
            &["/loop/x"],
        ),
        Row::set(
            "propagation unknown",
            "/linux/rootfsPropagation",
            json!("sideways"),
            &[".linux.rootfsPropagation", "sideways"],
        ),
    ]
}

fn hooks() -> Vec<Row> {
    let hook = |hook: Value| json!([hook]);
    vec![
        Row::set(
            "hook without a path",
            "/hooks/createRuntime",
            hook(json!({})),
            &[".hooks.createRuntime[0]", "path"],
        ),
        Row::set(
            "hook path empty",
            "/hooks/createRuntime",
            hook(json!({ "path": "" })),
            &[".hooks.createRuntime[0].path"],
        ),
        Row::set(
            "hook path relative",
            "/hooks/prestart",
            hook(json!({ "path": "bin/true" })),
            &[".hooks.prestart[0].path"],
        ),
        Row::set(
            "hook not there",
            "/hooks/createRuntime",
            hook(json!({ "path": "/nowhere" })),
            &["createRuntime hook #0", "/nowhere"],
        ),
        Row::set(
            "hook a directory",
            "/hooks/createRuntime",
            hook(json!({ "path": "/etc" })),
            &["createRuntime hook #0"],
        ),
        Row::set(
            "hook in the container not there",
            "/hooks/createContainer",
            hook(json!({ "path": "/nowhere" })),
            &["createContainer hook #0"],
        ),
        Row::set(
            "hook timeout 0",
            "/hooks/createRuntime",
            hook(json!({ "path": "/bin/true", "timeout": 0 })),
            &[".hooks.createRuntime[0].timeout"],
        )
        .runc_accepts(),
        Row::set(
            "hook timeout negative",
            "/hooks/poststop",
            hook(json!({ "path": "/bin/true", "timeout": -1 })),
            &[".hooks.poststop[0].timeout"],
        )
        .runc_accepts(),
        Row::set(
            "hook fails",
            "/hooks/createRuntime",
            hook(json!({ "path": "/bin/false" })),
            &["createRuntime hook #0", "exit status 1"],
        ),
        Row::set(
            "hook in the container fails",
            "/hooks/createContainer",
            hook(json!({ "path": "/bin/false" })),
            &["createContainer hook #0", "exit status 1"],
        ),
    ]
}
