use serde_json::Value;

use super::*;
use crate::container::api::{Resources, Ulimit};

fn config() -> Config {
    Config {
        cmd: Some(vec!["sh".to_owned()]),
        hostname: "box".to_owned(),
        ..Config::default()
    }
}

fn host() -> HostConfig {
    HostConfig {
        shm_size: 64 << 20,
        network_mode: "none".to_owned(),
        ..HostConfig::default()
    }
}

fn facts() -> Facts {
    Facts {
        id: "abc".to_owned(),
        rootfs: "/r".into(),
        cgroup: Some("/rdocker/abc".to_owned()),
        host_ipc: vec!["/dev/mqueue", "/dev/shm"],
        ..Facts::default()
    }
}

fn spec(change: fn(&mut Config, &mut HostConfig, &mut Facts)) -> Value {
    let (mut config, mut host, mut facts) = (config(), host(), facts());
    change(&mut config, &mut host, &mut facts);
    build(&config, &host, &facts).expect("a valid request")
}

fn namespace_names(spec: &Value) -> Vec<&str> {
    let list = spec["linux"]["namespaces"].as_array().unwrap();
    list.iter()
        .map(|namespace| namespace["type"].as_str().unwrap())
        .collect()
}

fn mount<'a>(spec: &'a Value, target: &str) -> Option<&'a Value> {
    spec["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|mount| mount["destination"] == target)
}

fn has_option(mount: Option<&Value>, option: &str) -> bool {
    mount.is_some_and(|m| m["options"].as_array().unwrap().iter().any(|o| o == option))
}

#[test]
fn a_plain_container_has_docker_defaults() {
    let spec = spec(|_, _, _| {});
    let parsed: oci_spec::runtime::Spec = serde_json::from_value(spec.clone()).unwrap();
    assert_eq!(
        parsed.process().as_ref().unwrap().args().as_ref().unwrap(),
        &["sh"]
    );
    let bounding = spec["process"]["capabilities"]["bounding"]
        .as_array()
        .unwrap();
    assert_eq!(bounding.len(), 14);
    assert!(spec["process"]["capabilities"].get("inheritable").is_none());
    assert_eq!(
        namespace_names(&spec),
        ["mount", "network", "uts", "pid", "ipc", "cgroup"]
    );
    assert!(has_option(mount(&spec, "/sys"), "ro"));
    assert!(has_option(mount(&spec, "/dev/shm"), "size=67108864"));
    assert_eq!(spec["linux"]["cgroupsPath"], "/rdocker/abc");
    assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], false);
    assert!(
        spec["linux"]["maskedPaths"]
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p == "/proc/kcore")
    );
    assert_eq!(spec["process"]["cwd"], "/");
}

type Change = fn(&mut Config, &mut HostConfig, &mut Facts);
type Check = fn(&Value) -> bool;

/// setting, what changes, what is true of the spec then
const SETTINGS: &[(&str, Change, Check)] = &[
    (
        "memory",
        |_, h, _| h.resources.memory = 1 << 26,
        |s| s["linux"]["resources"]["memory"]["limit"] == 1 << 26,
    ),
    (
        "cpus",
        |_, h, _| h.resources.nano_cpus = 1_500_000_000,
        |s| {
            let cpu = &s["linux"]["resources"]["cpu"];
            cpu["quota"] == 150_000 && cpu["period"] == 100_000
        },
    ),
    (
        "pids",
        |_, h, _| h.resources.pids_limit = Some(9),
        |s| s["linux"]["resources"]["pids"]["limit"] == 9,
    ),
    (
        "ulimit",
        |_, h, _| {
            h.resources = Resources {
                ulimits: vec![Ulimit {
                    name: "nofile".into(),
                    soft: 5,
                    hard: -1,
                }],
                ..Resources::default()
            };
        },
        |s| {
            let limit = &s["process"]["rlimits"][0];
            limit["type"] == "RLIMIT_NOFILE" && limit["soft"] == 5 && limit["hard"] == u64::MAX
        },
    ),
    (
        "cap add and drop",
        |_, h, _| {
            h.cap_drop = Some(vec!["all".into()]);
            h.cap_add = Some(vec!["net_admin".into()]);
        },
        |s| s["process"]["capabilities"]["bounding"] == serde_json::json!(["CAP_NET_ADMIN"]),
    ),
    (
        "plain user",
        |_, _, f| {
            f.identity = Identity {
                uid: 5,
                gid: 6,
                groups: vec![7],
            }
        },
        |s| {
            s["process"]["user"]["additionalGids"] == serde_json::json!([6, 7])
                && s["process"]["capabilities"]["effective"] == serde_json::json!([])
        },
    ),
    (
        "privileged",
        |_, h, _| h.privileged = true,
        |s| {
            s["linux"].get("maskedPaths").is_none()
                && has_option(mount(s, "/sys"), "rw")
                && s["linux"]["resources"]["devices"][0]["allow"] == true
        },
    ),
    (
        "no new privileges",
        |_, h, _| h.security_opt = Some(vec!["no-new-privileges".into()]),
        |s| s["process"]["noNewPrivileges"] == true,
    ),
    (
        "system paths",
        |_, h, _| h.security_opt = Some(vec!["systempaths=unconfined".into()]),
        |s| s["linux"].get("readonlyPaths").is_none(),
    ),
    (
        "host network",
        |_, h, _| h.network_mode = "host".into(),
        |s| !namespace_names(s).contains(&"network"),
    ),
    (
        "host pid",
        |_, h, _| h.pid_mode = "host".into(),
        |s| !namespace_names(s).contains(&"pid"),
    ),
    (
        "host uts",
        |_, h, _| h.uts_mode = "host".into(),
        |s| s["hostname"].is_null(),
    ),
    (
        "host ipc",
        |_, h, _| h.ipc_mode = "host".into(),
        |s| mount(s, "/dev/shm").unwrap()["type"] == "bind",
    ),
    (
        "host cgroupns",
        |_, h, _| h.cgroupns_mode = "host".into(),
        |s| !namespace_names(s).contains(&"cgroup"),
    ),
    (
        "joined pid",
        |_, _, f| drop(f.join.insert("pid", "/proc/9/ns/pid".into())),
        |s| s["linux"]["namespaces"][3]["path"] == "/proc/9/ns/pid",
    ),
    (
        "read-only root",
        |_, h, _| h.readonly_rootfs = true,
        |s| s["root"]["readonly"] == true,
    ),
    (
        "init",
        |_, _, f| f.init = Some("/usr/bin/tini".into()),
        |s| {
            s["process"]["args"] == serde_json::json!(["/sbin/docker-init", "--", "sh"])
                && mount(s, "/sbin/docker-init").is_some()
        },
    ),
    (
        "tmpfs",
        |_, h, _| drop(h.tmpfs.insert("/t".into(), "size=1m,exec".into())),
        |s| has_option(mount(s, "/t"), "exec"),
    ),
    (
        "read-only bind",
        |_, _, f| {
            f.mounts.push(MountPoint {
                kind: "bind".into(),
                source: "/src".into(),
                destination: "/d".into(),
                ..MountPoint::default()
            })
        },
        |s| has_option(mount(s, "/d"), "ro") && has_option(mount(s, "/d"), "rprivate"),
    ),
    (
        "generated file",
        |_, _, f| f.files.push(("/etc/hosts", "/gen/hosts".into())),
        |s| mount(s, "/etc/hosts").unwrap()["source"] == "/gen/hosts",
    ),
    (
        "tty",
        |c, h, _| {
            c.tty = true;
            h.console_size = [24, 80];
        },
        |s| s["process"]["terminal"] == true && s["process"]["consoleSize"]["width"] == 80,
    ),
    (
        "device rule",
        |_, h, _| {
            h.resources.device_cgroup_rules = Some(vec!["c 42:* rmw".into()]);
        },
        |s| {
            let rules = s["linux"]["resources"]["devices"].as_array().unwrap();
            rules.last().unwrap()["major"] == 42 && rules.last().unwrap().get("minor").is_none()
        },
    ),
    (
        "sysctl",
        |_, h, _| drop(h.sysctls.insert("net.x".into(), "1".into())),
        |s| s["linux"]["sysctl"]["net.x"] == "1",
    ),
    (
        "working directory",
        |c, _, _| c.working_dir = "/w".into(),
        |s| s["process"]["cwd"] == "/w",
    ),
];

#[test]
fn each_setting_reaches_its_place_in_the_spec() {
    for (name, change, check) in SETTINGS {
        let spec = spec(*change);
        assert!(check(&spec), "{name}: {spec:#}");
        let parsed = serde_json::from_value::<oci_spec::runtime::Spec>(spec);
        assert!(parsed.is_ok(), "{name}: {}", parsed.unwrap_err());
    }
}

#[test]
fn a_user_mount_replaces_the_default_one_and_parents_come_first() {
    let spec = spec(|_, _, facts| {
        for target in ["/a/b/c", "/dev/shm", "/a"] {
            facts.mounts.push(MountPoint {
                kind: "bind".to_owned(),
                source: "/src".to_owned(),
                destination: target.to_owned(),
                rw: true,
                ..MountPoint::default()
            });
        }
    });
    let targets: Vec<&str> = spec["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["destination"].as_str().unwrap())
        .collect();
    let at = |target: &str| targets.iter().position(|t| *t == target).unwrap();
    assert!(at("/a") < at("/a/b/c"), "{targets:?}");
    assert_eq!(
        targets
            .iter()
            .filter(|target| **target == "/dev/shm")
            .count(),
        1,
        "{targets:?}"
    );
}

#[test]
fn unknown_names_are_refused() {
    let mut host = host();
    host.cap_add = Some(vec!["nope".to_owned()]);
    let why = build(&config(), &host, &facts()).unwrap_err().to_string();
    assert_eq!(why, "invalid CapAdd: unknown capability: \"CAP_NOPE\"");
    host.cap_add = None;
    host.security_opt = Some(vec!["what=ever".to_owned()]);
    let why = build(&config(), &host, &facts()).unwrap_err().to_string();
    assert!(why.contains("invalid --security-opt"), "{why}");
}
