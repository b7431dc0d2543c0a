use crate::host::TestHost;

#[test]
fn a_running_container_is_removed_by_force_only() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    let why = host.run(&["rm", "web"]).fails(1);
    assert!(
        why.contains("cannot remove container \"/web\": container is running"),
        "{why}"
    );
    assert_eq!(host.run(&["rm", "-f", "web"]).ok(), "web");
    assert!(
        host.run(&["rm", "web"])
            .fails(1)
            .contains("No such container: web")
    );
}

#[test]
fn rm_leaves_no_mount_no_cgroup_and_no_directory() {
    let host = TestHost::new();
    let id = host
        .busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    host.run(&["rm", "-f", "web"]).ok();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&id), "{mounts}");
    for dir in ["data/containers", "run"] {
        let names = std::fs::read_dir(host.path().join(dir)).unwrap();
        let left: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert!(
            !left.iter().any(|name| name.to_string_lossy().contains(&id)),
            "{dir}: {left:?}"
        );
    }
    assert!(
        !std::path::Path::new("/sys/fs/cgroup/memory/rdocker")
            .join(&id)
            .exists()
    );
}

#[test]
fn prune_removes_stopped_containers_alone() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "up"], &["sleep", "100"])
        .ok();
    let down = host.run(&["create", "--network", "none", "busybox"]).ok();
    let out = host.run(&["container", "prune", "-f"]).ok();
    assert!(
        out.starts_with(&format!(
            "Deleted Containers:\n{down}\n\nTotal reclaimed space: "
        )),
        "{out}"
    );
    assert_eq!(host.run(&["ps", "-a", "--format", "{{.Names}}"]).ok(), "up");
}
