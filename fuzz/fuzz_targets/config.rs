//! config.json, from its text to the plan of a container.

#![no_main]

use std::path::Path;

use keel::bundle::parse_spec;
use keel::cgroups::{self, Host as Cgroups, Manager, Mount, Request, Version};
use keel::host::Host;
use keel::plan::{Facts, Plan};
use keel::validate::{Asked, validate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = parse_spec(bytes, "config.json") else {
        return;
    };
    let _ = validate(&spec, &Host::new(), Asked::default());
    let linux = spec.linux().as_ref();
    let path = linux.and_then(|linux| linux.cgroups_path().as_ref());
    for (manager, version) in [
        (Manager::Cgroupfs, Version::V1),
        (Manager::Cgroupfs, Version::V2),
        (Manager::Systemd, Version::V2),
    ] {
        let request = Request {
            id: "fuzzed",
            cgroups_path: path.and_then(|path| path.to_str()),
            manager,
            rootless: false,
            annotations: spec.annotations().as_ref(),
            resources: linux.and_then(|linux| linux.resources().as_ref()),
            owner: cgroups::owner(&spec),
        };
        let host = Cgroups {
            version,
            mounts: vec![Mount {
                point: "/sys/fs/cgroup".into(),
                root: "/".into(),
                controllers: match version {
                    Version::V1 => vec!["devices".into()],
                    Version::V2 => Vec::new(),
                },
            }],
            own: "0::/own\n".into(),
            uid: 0,
        };
        let Ok(saved) = cgroups::plan_on(&request, &host) else {
            continue;
        };
        for hierarchy in &saved.hierarchies {
            let mut steps = Path::new(&hierarchy.path).components();
            let inside = steps.all(|step| matches!(step, std::path::Component::Normal(_)));
            assert!(inside, "{:?} leaves the hierarchy", hierarchy.path);
        }
        let facts = Facts {
            id: "fuzzed",
            cgroup: Some(&saved),
            ..Facts::of(Path::new("/bundle"))
        };
        let _ = Plan::for_create(&spec, &facts);
    }
});
