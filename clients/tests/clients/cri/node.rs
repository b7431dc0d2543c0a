//! A node as Kubernetes likes it best: systemd's cgroups on v2, and AppArmor. In the test guest.

use clients::Machine;
use k8s_cri::v1::security_profile::ProfileType;

use super::{Kubelet, container, machine_of, profile, security};

/// A pod with it cannot read its own /etc/group.
const PROFILE: &str = "profile kt-pod flags=(attach_disconnected) {
    file, capability, network, signal, ptrace, unix,
    deny /etc/group r,
}
";

/// What confines a process, and whether it may read a file that one of the profiles denies. On one
/// stream, as nothing orders two.
const LOOK: &str = "cat /proc/self/attr/current; cat /etc/group 2>&1";

/// profile, its name, what it looks like from inside, whether the file can be read
const PROFILES: &[(ProfileType, &str, &str, bool)] = &[
    (
        ProfileType::RuntimeDefault,
        "",
        "cri-containerd.apparmor.d (enforce)",
        true,
    ),
    (ProfileType::Unconfined, "", "unconfined", true),
    (ProfileType::Localhost, "kt-pod", "kt-pod (enforce)", false),
];

fn property(machine: &Machine, unit: &str, name: &str) -> String {
    let script = format!("systemctl show --value --property {name} {unit}");
    machine.sh(&script).succeeds()
}

#[test]
fn a_pod_lives_on_a_node_with_systemd_and_apparmor() {
    if crate::outside_the_guest() {
        return;
    }
    let machine = machine_of(Machine::with_the_hosts_systemd(), |config| {
        config.replace("SystemdCgroup = false", "SystemdCgroup = true")
    });
    machine.write("/run/profile", PROFILE);
    let _ = machine
        .sh("apparmor_parser --replace /run/profile")
        .succeeds();
    let mut kubelet = Kubelet::connect(&machine);
    let mut config = kubelet.pod("node");
    let slice = format!("{}.slice", machine.token());
    config.linux.as_mut().expect("`pod` sets it").cgroup_parent = slice.clone();
    let pod = kubelet.run_pod(&config, "keel");

    for (index, (kind, name, label, readable)) in PROFILES.iter().enumerate() {
        let mut asked = container(&format!("p{index}"), LOOK);
        // Its /etc/group is not to be masked.
        security(&mut asked).masked_paths.clear();
        security(&mut asked).apparmor = profile(*kind, name);
        let (_, text) = kubelet.run((&pod, &config), asked);
        assert!(text.starts_with(label), "{kind:?}: {text}");
        assert_eq!(text.contains("root:x:0"), *readable, "{kind:?}: {text}");
    }
    let mut asked = container("main", "exec sleep 1000");
    security(&mut asked).apparmor = profile(ProfileType::Localhost, "kt-pod");
    let id = kubelet.create((&pod, &config), asked);
    kubelet.start(&id);
    let (_, text) = kubelet.exec(&id, LOOK);
    assert!(text.starts_with("kt-pod (enforce)"), "{text}");
    assert!(text.contains("Permission denied"), "{text}");

    let scope = format!("cri-containerd-{id}.scope");
    assert_eq!(property(&machine, &scope, "ActiveState"), "active");
    assert_eq!(property(&machine, &scope, "Slice"), slice);
    assert_eq!(property(&machine, &scope, "MemoryMax"), "67108864");
    kubelet.limit_memory(&id, 32 << 20);
    assert_eq!(property(&machine, &scope, "MemoryMax"), "33554432");
    let (_, limit) = kubelet.exec(&id, "cat /sys/fs/cgroup/memory.max");
    assert_eq!(limit, "33554432\n");
    assert!(kubelet.working_set(&id) > 0);

    kubelet.stop(&id);
    kubelet.remove(&id);
    kubelet.remove_pod(&pod);
    let units = format!("systemctl list-units --all --plain --no-legend '*{pod}*' '*{id}*'");
    assert_eq!(machine.sh(&units).succeeds(), "");
    let _ = machine.sh(&format!("systemctl stop {slice}")).succeeds();
}
