//! features.md and features-linux.md.

use serde_json::{Value, json};

use crate::lab::Lab;
use crate::requirement::Level::{Must, MustNot, Should};
use crate::requirement::{Requirement, Verdict, Why, ensure};

const VERSION: &str = "features.md#specification-version";
const SECCOMP: &str = "features-linux.md#seccomp";

#[rustfmt::skip]
pub const TABLE: &[Requirement] = &[
    Requirement::must("features.version-1", VERSION,
        "ociVersionMin is accepted as ociVersion of a configuration", minimum),
    Requirement::must("features.version-2", VERSION,
        "ociVersionMax is accepted as ociVersion of a configuration", maximum),
    Requirement::must_not("features.version-3", VERSION,
        "ociVersionMax is not less than ociVersionMin", min_and_max),
    Requirement::must_not("features.version-4", VERSION,
        "no member is there that the version does not define", known_members),
    Requirement::should("features.static-1", "features.md#features-structure",
        "the document is the same wherever the program runs", same_twice),
    Requirement::untestable("features.null-1", MustNot, "features.md#features-structure",
        "null is not taken for an empty value", "asks the reader of the document"),
    Requirement::must("features.hooks-1", "features.md#hooks",
        "every listed kind of hook is supported", hooks),
    Requirement::must("features.mountOptions-1", "features.md#mount-options",
        "every listed mount option is recognized", mount_options),
    Requirement::untestable("features.mountOptions-2", Should, "features.md#mount-options",
        "options of file systems are not listed",
        "which words a file system takes is known to the kernel only"),
    Requirement::must("features.annotations-1", "features.md#annotations",
        "annotations are a map of strings", annotations),
    Requirement::must("features-linux.namespaces-1", "features-linux.md#namespaces",
        "every listed namespace is recognized", namespaces),
    Requirement::must("features-linux.capabilities-1", "features-linux.md#capabilities",
        "every listed capability is recognized", capabilities),
    Requirement::with("features-linux.seccomp-1", Must, SECCOMP,
        "every listed action is recognized", "actions", seccomp),
    Requirement::with("features-linux.seccomp-2", Must, SECCOMP,
        "every listed operator is recognized", "operators", seccomp),
    Requirement::with("features-linux.seccomp-3", Must, SECCOMP,
        "every listed architecture is recognized", "archs", seccomp),
    Requirement::with("features-linux.seccomp-4", Must, SECCOMP,
        "every known flag is recognized", "knownFlags", seccomp),
    Requirement::with("features-linux.seccomp-5", Must, SECCOMP,
        "every supported flag is recognized and works", "supportedFlags", seccomp),
    Requirement::with("features-linux.memoryPolicy-1", Must, "features-linux.md#memorypolicy",
        "every listed mode is recognized", "modes", memory_policy),
    Requirement::with("features-linux.memoryPolicy-2", Must, "features-linux.md#memorypolicy",
        "every listed flag is recognized", "flags", memory_policy),
    Requirement::must("features-linux.mountExtensions-1", "features-linux.md#mountextensions",
        "idmap.enabled is true if mappings of mounts are read at all", idmap),
];

/// The strings of an array of the document; a skip if it is absent.
fn strings(lab: &Lab, pointer: &str) -> Result<Vec<String>, Why> {
    let features = lab.features()?;
    let Some(list) = features.pointer(pointer).and_then(Value::as_array) else {
        return Err(Why::Skip(format!("features has no {pointer}")));
    };
    Ok(list
        .iter()
        .filter_map(|v| Some(v.as_str()?.to_owned()))
        .collect())
}

fn version(lab: &Lab, key: &str) -> Result<String, Why> {
    let features = lab.features()?;
    let version = features[key].as_str().map(str::to_owned);
    version.ok_or_else(|| Why::Fail(format!("{key} is {}", features[key])))
}

fn accepts_version(lab: &Lab, key: &str) -> Verdict {
    let version = version(lab, key)?;
    lab.see(&[], |c| {
        c.set("/ociVersion", json!(version));
    })
    .map(drop)
}

fn minimum(lab: &Lab) -> Verdict {
    accepts_version(lab, "ociVersionMin")
}

fn maximum(lab: &Lab) -> Verdict {
    accepts_version(lab, "ociVersionMax")
}

fn min_and_max(lab: &Lab) -> Verdict {
    let parse = |text: String| -> Vec<u32> {
        let release = text.split(['-', '+']).next().unwrap_or_default().to_owned();
        release.split('.').map(|n| n.parse().unwrap_or(0)).collect()
    };
    let (min, max) = (
        version(lab, "ociVersionMin")?,
        version(lab, "ociVersionMax")?,
    );
    ensure!(
        parse(max.clone()) >= parse(min.clone()),
        "from {min} to {max}"
    );
    Ok(())
}

const MEMBERS: &[&str] = &[
    "ociVersionMin",
    "ociVersionMax",
    "hooks",
    "mountOptions",
    "annotations",
    "potentiallyUnsafeConfigAnnotations",
    "linux",
];
const LINUX_MEMBERS: &[&str] = &[
    "namespaces",
    "capabilities",
    "cgroup",
    "seccomp",
    "apparmor",
    "selinux",
    "intelRdt",
    "memoryPolicy",
    "mountExtensions",
    "netDevices",
];

fn known_members(lab: &Lab) -> Verdict {
    let features = lab.features()?;
    for (object, known) in [(&features, MEMBERS), (&features["linux"], LINUX_MEMBERS)] {
        for key in object.as_object().into_iter().flat_map(|map| map.keys()) {
            ensure!(known.contains(&key.as_str()), "there is {key:?}");
        }
    }
    Ok(())
}

fn same_twice(lab: &Lab) -> Verdict {
    let first = lab.features()?;
    ensure!(
        first == lab.features()?,
        "it changes from one call to the next"
    );
    Ok(())
}

fn hooks(lab: &Lab) -> Verdict {
    let kinds = strings(lab, "/hooks")?;
    for kind in &kinds {
        let mut bundle = lab.bundle()?;
        let inside = kind == "startContainer";
        let (path, log) = if inside {
            ("/oci-tests".to_owned(), "/hooks.log".to_owned())
        } else {
            (lab.helper(), bundle.host("hooks.log"))
        };
        let hook = json!({"path": path, "args": ["x", "hook", kind, log]});
        bundle.config.push(&format!("/hooks/{kind}"), hook);
        let container = lab.started(&bundle)?;
        container.wait_stopped()?;
        container.delete()?;
        ensure!(
            bundle.rootfs().join("hooks.log").exists(),
            "{kind} did not run"
        );
    }
    Ok(())
}

/// A mount with the option; of those that need a partner or a bind, with it.
fn mount_options(lab: &Lab) -> Verdict {
    for option in strings(lab, "/mountOptions")? {
        let mut bundle = lab.bundle()?;
        bundle.mkdir("data")?;
        let data = bundle.host("data");
        let ids = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
        match option.as_str() {
            "remount" => {
                bundle.config.mount("/mnt", "tmpfs", "x", &[]);
                bundle.config.mount("/mnt", "tmpfs", "x", &["remount"]);
            }
            "idmap" | "ridmap" => {
                bundle.config.push(
                    "/mounts",
                    json!({"destination": "/mnt", "type": "none",
                    "source": data, "options": ["rbind", option],
                    "uidMappings": ids, "gidMappings": ids}),
                );
            }
            "bind" | "rbind" => {
                bundle.config.mount("/mnt", "none", &data, &[&option]);
            }
            "tmpcopyup" => {
                bundle.config.mount("/mnt", "tmpfs", "x", &[&option]);
            }
            name if name.contains("nofollow") || name.contains("symlink") => {
                bundle.config.mount("/mnt", "none", &data, &["bind", name]);
            }
            name => {
                bundle.config.mount("/mnt", "tmpfs", "x", &[name]);
            }
        }
        let (_container, call) = lab.try_create(&bundle)?;
        ensure!(call.ok(), "{option}: {}", call.cause());
    }
    Ok(())
}

fn annotations(lab: &Lab) -> Verdict {
    let features = lab.features()?;
    let map = &features["annotations"];
    let fine = map
        .as_object()
        .is_none_or(|m| m.iter().all(|(k, v)| !k.is_empty() && v.is_string()));
    ensure!(
        map.is_null() || map.is_object() && fine,
        "annotations are {map}"
    );
    Ok(())
}

fn namespaces(lab: &Lab) -> Verdict {
    for kind in strings(lab, "/linux/namespaces")? {
        lab.see(&[], |c| {
            if kind == "user" {
                c.user_namespace(300_000);
            } else {
                c.namespace(&kind, Some(json!({"type": kind})));
            }
        })
        .map_err(|why| match why {
            Why::Fail(text) | Why::Skip(text) => Why::Fail(format!("{kind}: {text}")),
        })?;
    }
    Ok(())
}

/// All at once: none may give a warning about an unknown name.
fn capabilities(lab: &Lab) -> Verdict {
    let names = strings(lab, "/linux/capabilities")?;
    let mut bundle = lab.bundle()?;
    bundle
        .config
        .set("/process/capabilities", json!({"bounding": names}));
    let container = lab.started(&bundle)?;
    container.wait_stopped()?;
    let complaint = container.complained();
    ensure!(!complaint.contains("unknown"), "it says {complaint:?}");
    Ok(())
}

/// `create` with each word; rules are for a call that no process makes.
fn seccomp(lab: &Lab, list: &str) -> Verdict {
    for word in strings(lab, &format!("/linux/seccomp/{list}"))? {
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["swapoff"], "action": "SCMP_ACT_ERRNO"}]});
        match list {
            // Without a listener this one cannot be used; linux.seccomp.listener-1 does.
            "actions" if word == "SCMP_ACT_NOTIFY" => continue,
            "actions" => profile["syscalls"][0]["action"] = json!(word),
            "operators" => {
                profile["syscalls"][0]["args"] = json!([{"index": 0, "value": 1, "op": word}]);
            }
            "archs" => profile["architectures"] = json!([word]),
            _ => profile["flags"] = json!([word]),
        }
        let mut bundle = lab.bundle()?;
        // In a filter for another architecture alone this one's calls are killed: look at create.
        bundle.config.sleep().set("/linux/seccomp", profile);
        let (_container, call) = lab.try_create(&bundle)?;
        // An architecture of the other byte order is known, and cannot be had in this filter.
        let known = ["not supported", "out of domain"]
            .iter()
            .any(|w| call.stderr.contains(w));
        ensure!(call.ok() || known, "{word}: {}", call.cause());
        ensure!(
            list != "supportedFlags" || call.ok(),
            "{word}: {}",
            call.cause()
        );
    }
    Ok(())
}

/// Recognized is enough: the kernel may still refuse it, which its errno tells.
fn memory_policy(lab: &Lab, list: &str) -> Verdict {
    for word in strings(lab, &format!("/linux/memoryPolicy/{list}"))? {
        let mut policy = json!({"mode": "MPOL_BIND", "nodes": "0"});
        if list == "flags" {
            policy["flags"] = json!([word]);
        } else if ["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&word.as_str()) {
            policy = json!({"mode": word});
        } else {
            policy["mode"] = json!(word);
        }
        let mut bundle = lab.bundle()?;
        bundle.config.sleep().set("/linux/memoryPolicy", policy);
        let (_container, call) = lab.try_create(&bundle)?;
        let kernel = call.stderr.contains("nvalid argument");
        ensure!(call.ok() || kernel, "{word}: {}", call.cause());
    }
    Ok(())
}

fn idmap(lab: &Lab) -> Verdict {
    let features = lab.features()?;
    let claimed = features.pointer("/linux/mountExtensions/idmap/enabled") == Some(&json!(true));
    let mut bundle = lab.bundle()?;
    bundle.mkdir("data")?;
    let ids = json!([{"containerID": 0, "hostID": 5000, "size": 10}]);
    let data = bundle.host("data");
    bundle.report(&["stat:/mnt"]);
    bundle.config.push(
        "/mounts",
        json!({"destination": "/mnt", "type": "none", "source": data,
        "options": ["bind", "idmap"], "uidMappings": ids, "gidMappings": ids}),
    );
    let mapped = lab
        .run(&bundle)
        .is_ok_and(|text| text.contains(" 5000 5000 "));
    ensure!(claimed == mapped, "it claims {claimed}, and does {mapped}");
    Ok(())
}
