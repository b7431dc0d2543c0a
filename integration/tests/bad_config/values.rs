//! Values of the right type that break a rule.

use std::fs;
use std::os::unix::fs::symlink;

use super::Row;
use integration::Bundle;
use serde_json::{Value, json};

pub fn rows() -> Vec<Row> {
    let groups = [
        program(),
        process(),
        root(),
        namespaces(),
        id_maps(),
        mounts(),
        hooks(),
        linux(),
        newer(),
        huge(),
    ];
    groups.into_iter().flatten().collect()
}

fn program() -> Vec<Row> {
    vec![
        Row::unset("args missing", "/process/args", &[".process.args"]),
        Row::set("args empty", "/process/args", json!([]), &[".process.args"]),
        Row::set(
            "args[0] empty",
            "/process/args",
            json!([""]),
            &["exec: \"\""],
        ),
        Row::set(
            "program missing",
            "/process/args",
            json!(["/missing"]),
            &["exec: \"/missing\": stat /missing: no such file or directory"],
        ),
        Row::set(
            "program not on PATH",
            "/process/args",
            json!(["missing"]),
            &["exec: \"missing\": executable file not found in $PATH"],
        ),
        Row::set(
            "program a directory",
            "/process/args",
            json!(["/etc"]),
            &["exec: \"/etc\"", "is a directory"],
        ),
        Row::set(
            "program not executable",
            "/process/args",
            json!(["/etc/passwd"]),
            &["exec: \"/etc/passwd\": permission denied"],
        ),
        Row::set(
            "program below a file",
            "/process/args",
            json!(["/etc/passwd/x"]),
            &["exec: \"/etc/passwd/x\"", "not a directory"],
        ),
        Row::with(
            "program a link to itself",
            |bundle| {
                symlink("loop", bundle.rootfs().join("bin/loop")).expect("writable");
                bundle.args(&["/bin/loop"]);
            },
            &["exec: \"/bin/loop\""],
        ),
        Row::with(
            "no PATH",
            |bundle| {
                bundle.args(&["true"]).set("/process/env", json!(["A=1"]));
            },
            &["exec: \"true\": executable file not found in $PATH"],
        ),
        Row::with(
            "program only on the host",
            |bundle| {
                bundle.args(&["/usr/bin/dpkg"]);
            },
            &["exec: \"/usr/bin/dpkg\""],
        ),
    ]
}

fn process() -> Vec<Row> {
    let rlimit =
        |kind: &str, soft: u64, hard: u64| json!({ "type": kind, "soft": soft, "hard": hard });
    vec![
        Row::unset("cwd missing", "/process/cwd", &[".process.cwd"]),
        Row::set("cwd empty", "/process/cwd", json!(""), &[".process.cwd"]),
        Row::set(
            "cwd relative",
            "/process/cwd",
            json!("tmp"),
            &[".process.cwd"],
        ),
        Row::set(
            "cwd a file",
            "/process/cwd",
            json!("/etc/passwd"),
            &["/etc/passwd", "chdir to cwd"],
        ),
        Row::set(
            "cwd a device",
            "/process/cwd",
            json!("/dev/null"),
            &["/dev/null"],
        ),
        Row::set(
            "rlimit unknown",
            "/process/rlimits",
            json!([rlimit("RLIMIT_NONE", 1, 1)]),
            &[".process.rlimits[0].type", "RLIMIT_NONE"],
        ),
        Row::set(
            "rlimit twice",
            "/process/rlimits",
            json!([rlimit("RLIMIT_CORE", 0, 0), rlimit("RLIMIT_CORE", 1, 1)]),
            &[".process.rlimits[1]", "RLIMIT_CORE"],
        ),
        Row::set(
            "rlimit soft above hard",
            "/process/rlimits",
            json!([rlimit("RLIMIT_CORE", 2, 1)]),
            &["RLIMIT_CORE"],
        ),
        Row::set(
            "oom score too high",
            "/process/oomScoreAdj",
            json!(1001),
            &[".process.oomScoreAdj"],
        ),
        Row::set(
            "oom score too low",
            "/process/oomScoreAdj",
            json!(-1001),
            &[".process.oomScoreAdj"],
        ),
        Row::set(
            "terminal without a console",
            "/process/terminal",
            json!(true),
            &["cannot allocate tty if runc will detach without setting console socket"],
        ),
        Row::set(
            "AppArmor on a host without",
            "/process/apparmorProfile",
            json!("profile"),
            &["apparmor"],
        ),
        Row::set(
            "SELinux on a host without",
            "/process/selinuxLabel",
            json!("system_u:system_r:container_t:s0"),
            &["selinux"],
        ),
        Row::set(
            "NUL in an argument",
            "/process/args",
            json!(["/bin/true", "a\u{0}b"]),
            &[".process.args[1]"],
        )
        .runc_accepts(),
        Row::set(
            "NUL in the environment",
            "/process/env",
            json!(["A=\u{0}"]),
            &[".process.env[0]"],
        )
        .runc_accepts(),
        Row::set(
            "NUL in cwd",
            "/process/cwd",
            json!("/tmp\u{0}x"),
            &[".process.cwd"],
        ),
    ]
}

fn root() -> Vec<Row> {
    vec![
        Row::unset("root missing", "/root", &[".root"]),
        Row::set("root.path empty", "/root/path", json!(""), &[".root.path"]).runc_accepts(),
        Row::set(
            "root.path not there",
            "/root/path",
            json!("nowhere"),
            &["nowhere"],
        ),
        Row::set(
            "root.path a file",
            "/root/path",
            json!("config.json"),
            &["config.json"],
        ),
        Row::with(
            "root.path a symlink",
            |bundle| {
                symlink("rootfs", bundle.path().join("link")).expect("writable");
                bundle.set("/root/path", "link");
            },
            &["invalid rootfs: not an absolute path, or a symlink"],
        ),
        Row::set(
            "NUL in root.path",
            "/root/path",
            json!("root\u{0}fs"),
            &[".root.path"],
        ),
        Row::unset("ociVersion missing", "/ociVersion", &[".ociVersion"]).runc_accepts(),
        Row::set(
            "ociVersion empty",
            "/ociVersion",
            json!(""),
            &[".ociVersion"],
        )
        .runc_accepts(),
        Row::set(
            "ociVersion 2",
            "/ociVersion",
            json!("2.0.0"),
            &[".ociVersion", "2.0.0"],
        )
        .runc_accepts(),
        Row::set(
            "ociVersion no version",
            "/ociVersion",
            json!("latest"),
            &[".ociVersion", "latest"],
        )
        .runc_accepts(),
        Row::set(
            "annotation without a key",
            "/annotations",
            json!({ "": "x" }),
            &[".annotations"],
        )
        .runc_accepts(),
    ]
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
                    .set("/linux/maskedPaths", json!(["/tmp"]));
            },
            &[".linux.maskedPaths"],
        ),
        Row::with(
            "read-only path without a mount namespace",
            |bundle| {
                bundle
                    .share("mount")
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
            &["net.no_such"],
        ),
        Row::set(
            "sysctl value refused",
            "/linux/sysctl",
            json!({ "net.ipv4.ip_forward": "x" }),
            &["net.ipv4.ip_forward"],
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
            &[".linux.uidMappings[0]"],
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
            "bind without a source",
            mount("bind", "", "/mnt", "bind"),
            &["/mnt"],
        )
        .runc_accepts(),
        Row::with(
            "bind with data",
            mount("bind", "/tmp", "/mnt", "bind,size=5"),
            &["size=5"],
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
            &[".hooks.createRuntime[0].path"],
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

fn linux() -> Vec<Row> {
    let device = |extra: Value| {
        let mut device = json!({ "path": "/dev/x", "type": "c", "major": 1, "minor": 3 });
        for (key, value) in extra.as_object().into_iter().flatten() {
            device[key] = value.clone();
        }
        json!([device])
    };
    vec![
        Row::set(
            "device without a path",
            "/linux/devices",
            json!([{ "type": "c", "major": 1, "minor": 3 }]),
            &[".linux.devices[0]"],
        )
        .runc_accepts(),
        Row::set(
            "device path relative",
            "/linux/devices",
            device(json!({ "path": "x" })),
            &[".linux.devices[0].path"],
        )
        .runc_accepts(),
        Row::set(
            "device type unknown",
            "/linux/devices",
            device(json!({ "type": "q" })),
            &[".linux.devices[0].type"],
        ),
        Row::set(
            "device type empty",
            "/linux/devices",
            device(json!({ "type": "" })),
            &[".linux.devices[0].type"],
        ),
        Row::set(
            "cgroups path climbs",
            "/linux/cgroupsPath",
            json!("/../../x"),
            &[".linux.cgroupsPath"],
        )
        .runc_accepts(),
        Row::set(
            "seccomp action unknown",
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_NONE" }),
            &["SCMP_ACT_NONE"],
        ),
        Row::set(
            "seccomp architecture unknown",
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_VAX"] }),
            &["SCMP_ARCH_VAX"],
        ),
        Row::set(
            "seccomp operator unknown",
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_LIKE" }] }],
            }),
            &["SCMP_CMP_LIKE"],
        ),
        Row::set(
            "seccomp flag unknown",
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAT"],
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }],
            }),
            &["SECCOMP_FILTER_FLAG_WAT"],
        ),
        Row::set(
            "resctrl on a host without",
            "/linux/intelRdt",
            json!({ "closID": "a/b", "l3CacheSchema": "L3:0=f" }),
            &[".linux.intelRdt"],
        ),
        Row::set(
            "unified on cgroup v1",
            "/linux/resources",
            json!({ "unified": { "memory.high": "1" } }),
            &["unified"],
        ),
        Row::set(
            "swap below memory",
            "/linux/resources",
            json!({ "memory": { "limit": 10_000_000, "swap": 5_000_000 } }),
            &["memory+swap limit should be >= memory limit"],
        ),
        Row::set(
            "cpuset of nowhere",
            "/linux/resources",
            json!({ "cpu": { "cpus": "900-901" } }),
            &["cpu"],
        ),
        Row::set(
            "cpuset of letters",
            "/linux/resources",
            json!({ "cpu": { "cpus": "abc" } }),
            &["cpus"],
        ),
        Row::set(
            "device rule of an unknown type",
            "/linux/resources",
            json!({ "devices": [{ "allow": true, "type": "z" }] }),
            &[".linux.resources.devices[0].type"],
        ),
        Row::set(
            "device rule of an unknown access",
            "/linux/resources",
            json!({ "devices": [{ "allow": true, "access": "xyz" }] }),
            &[".linux.resources.devices[0].access"],
        )
        .runc_accepts(),
    ]
}

/// Fields that 1.1.5 does not know, and so does not check.
fn newer() -> Vec<Row> {
    let offsets = json!({ "boottime": { "secs": 5 } });
    let scheduler = |value: Value, name: &'static str, says: &'static [&'static str]| {
        Row::set(name, "/process/scheduler", value, says)
    };
    let policy = |value: Value, name: &'static str, says: &'static [&'static str]| {
        Row::set(name, "/linux/memoryPolicy", value, says)
    };
    let rows = vec![
        Row::set(
            "time offsets without a time namespace",
            "/linux/timeOffsets",
            offsets.clone(),
            &[".linux.timeOffsets"],
        ),
        Row::with(
            "time offsets for a joined namespace",
            move |bundle| {
                bundle
                    .join("time", "/proc/self/ns/time")
                    .set("/linux/timeOffsets", offsets.clone());
            },
            &[".linux.timeOffsets"],
        ),
        Row::with(
            "domainname without a uts namespace",
            |bundle| {
                bundle
                    .share("uts")
                    .unset("/hostname")
                    .set("/domainname", "example.org");
            },
            &[".domainname"],
        ),
        scheduler(
            json!({ "nice": 1 }),
            "scheduler without a policy",
            &[".process.scheduler"],
        ),
        scheduler(
            json!({ "policy": "SCHED_NONE" }),
            "scheduler unknown",
            &[".process.scheduler.policy"],
        ),
        scheduler(
            json!({ "policy": "SCHED_OTHER", "nice": 20 }),
            "nice too high",
            &[".process.scheduler.nice"],
        ),
        scheduler(
            json!({ "policy": "SCHED_OTHER", "nice": -21 }),
            "nice too low",
            &[".process.scheduler.nice"],
        ),
        scheduler(
            json!({ "policy": "SCHED_OTHER", "priority": 5 }),
            "priority without real time",
            &[".process.scheduler.priority"],
        ),
        scheduler(
            json!({ "policy": "SCHED_FIFO", "priority": 1, "runtime": 5 }),
            "runtime without deadline",
            &[".process.scheduler.runtime"],
        ),
        scheduler(
            json!({ "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NONE"] }),
            "scheduler flag unknown",
            &[".process.scheduler.flags"],
        ),
        Row::set(
            "io class unknown",
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_X", "priority": 1 }),
            &[".process.ioPriority.class"],
        ),
        Row::set(
            "io priority too high",
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
            &[".process.ioPriority.priority"],
        ),
        Row::set(
            "personality unknown",
            "/linux/personality",
            json!({ "domain": "SOLARIS" }),
            &[".linux.personality.domain"],
        ),
        policy(
            json!({ "mode": "MPOL_NONE" }),
            "memory policy unknown",
            &[".linux.memoryPolicy.mode"],
        ),
        policy(
            json!({ "mode": "MPOL_BIND" }),
            "memory policy without nodes",
            &[".linux.memoryPolicy.nodes"],
        ),
        policy(
            json!({ "mode": "MPOL_LOCAL", "nodes": "0" }),
            "memory policy with nodes too many",
            &[".linux.memoryPolicy.nodes"],
        ),
        policy(
            json!({ "mode": "MPOL_BIND", "nodes": "0-x" }),
            "memory policy of letters",
            &[".linux.memoryPolicy.nodes"],
        ),
        policy(
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_X"] }),
            "memory policy flag unknown",
            &[".linux.memoryPolicy.flags"],
        ),
        Row::with(
            "net device without a network namespace",
            |bundle| {
                bundle
                    .share("network")
                    .set("/linux/netDevices", json!({ "lo": {} }));
            },
            &[".linux.netDevices"],
        ),
        Row::set(
            "net device not there",
            "/linux/netDevices",
            json!({ "nosuch0": {} }),
            &["nosuch0"],
        ),
        Row::set(
            "net device name too long",
            "/linux/netDevices",
            json!({ "nosuch0": { "name": "a2345678901234567" } }),
            &[".linux.netDevices"],
        ),
        Row::with(
            "id map on a mount that is no bind",
            |bundle| {
                let map = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
                bundle.push("/mounts", json!({
                "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "uidMappings": map, "gidMappings": map,
            }));
            },
            &[".mounts[6]"],
        ),
        Row::with(
            "id map of users only",
            |bundle| {
                let map = json!([{ "containerID": 0, "hostID": 1, "size": 1 }]);
                bundle.push("/mounts", json!({
                "destination": "/mnt", "type": "bind", "source": "/tmp", "options": ["bind"], "uidMappings": map,
            }));
            },
            &[".mounts[6]"],
        ),
        Row::with(
            "id map option without a user namespace",
            |bundle| {
                bundle.mount("bind", "/tmp", "/mnt", "bind,idmap");
            },
            &[".mounts[6]"],
        ),
        Row::set(
            "umask too large",
            "/process/user/umask",
            json!(0o10_000),
            &[".process.user.umask"],
        ),
    ];
    rows.into_iter().map(Row::runc_accepts).collect()
}

fn huge() -> Vec<Row> {
    let long = || json!(format!("/{}", "a".repeat(1_000_000)));
    let deep = || json!("/a".repeat(500_000));
    vec![
        Row::set(
            "root.path of 1 MB",
            "/root/path",
            long(),
            &["name too long"],
        ),
        Row::set("cwd of 1 MB", "/process/cwd", long(), &["name too long"]),
        Row::set(
            "cwd of 500,000 parts",
            "/process/cwd",
            deep(),
            &["name too long"],
        )
        .runc_accepts(),
        Row::set(
            "program of 1 MB",
            "/process/args",
            json!([long()]),
            &["name too long"],
        ),
        Row::set(
            "argument of 1 MB",
            "/process/args",
            json!(["/bin/true", long()]),
            &["rgument list too long"],
        )
        .runc_accepts(),
        Row::set(
            "mount on 1 MB",
            "/mounts/5/destination",
            long(),
            &["name too long"],
        ),
        Row::set(
            "mount on 500,000 parts",
            "/mounts/5/destination",
            deep(),
            &["name too long"],
        ),
        Row::set(
            "hook of 1 MB",
            "/hooks/createRuntime",
            json!([{ "path": long() }]),
            &["name too long"],
        ),
        Row::set(
            "namespace path of 1 MB",
            "/linux/namespaces/1/path",
            long(),
            &["name too long"],
        ),
        Row::set("hostname of 1 MB", "/hostname", long(), &[".hostname"]),
        Row::set(
            "cgroups path of 1 MB",
            "/linux/cgroupsPath",
            long(),
            &["name too long"],
        ),
        Row::set(
            "device path of 1 MB",
            "/linux/devices",
            json!([{ "path": long(), "type": "c", "major": 1, "minor": 3 }]),
            &["name too long"],
        ),
        Row::set(
            "masked path of 1 MB",
            "/linux/maskedPaths",
            json!([long()]),
            &["name too long"],
        ),
    ]
}
