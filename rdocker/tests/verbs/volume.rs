use crate::host::TestHost;

#[test]
fn a_named_volume_outlives_its_container_and_read_only_is_kept() {
    let host = TestHost::new();
    host.busybox(&["--rm", "-v", "data:/d"], &["sh", "-c", "echo x > /d/f"])
        .ok();
    let done = host.busybox(
        &["--rm", "-v", "data:/d:ro"],
        &["sh", "-c", "cat /d/f; touch /d/g"],
    );
    assert_eq!(done.out, "x\n");
    assert!(done.fails(1).contains("Read-only file system"));
    assert_eq!(
        host.run(&["volume", "ls"]).ok(),
        "DRIVER    VOLUME NAME\nlocal     data"
    );
}

#[test]
fn an_empty_volume_gets_the_images_files_unless_nocopy() {
    let host = TestHost::new();
    assert_eq!(
        host.busybox(&["--rm", "-v", "/var/data"], &["ls", "/var/data"])
            .ok(),
        "from-image"
    );
    assert_eq!(
        host.busybox(&["--rm", "-v", "nn:/var/data:nocopy"], &["ls", "/var/data"])
            .ok(),
        ""
    );
}

#[test]
fn anonymous_volumes_go_with_the_container_and_named_ones_stay() {
    let host = TestHost::new();
    host.busybox(&["--rm", "-v", "/anon", "-v", "named:/n"], &["true"])
        .ok();
    assert_eq!(host.run(&["volume", "ls", "-q"]).ok(), "named");
}

#[test]
fn a_volume_in_use_is_not_removed() {
    let host = TestHost::new();
    let id = host
        .run(&["create", "--network", "none", "-v", "used:/u", "busybox"])
        .ok();
    let why = host.run(&["volume", "rm", "used"]).fails(1);
    assert!(why.contains(&format!("volume is in use - [{id}]")), "{why}");
    host.run(&["rm", &id]).ok();
    assert_eq!(host.run(&["volume", "rm", "used"]).ok(), "used");
    assert!(
        host.run(&["volume", "rm", "used"])
            .fails(1)
            .contains("get used: no such volume")
    );
}

#[test]
fn binds_mounts_and_volumes_from_show_the_same_files() {
    let host = TestHost::new();
    let dir = host.path().join("src");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("f"), "bind\n").unwrap();
    let bind = format!("{}:/b", dir.display());
    let mount = format!("type=bind,src={},dst=/m,readonly", dir.display());
    let out = host
        .busybox(
            &["--rm", "-v", &bind, "--mount", &mount],
            &["cat", "/b/f", "/m/f"],
        )
        .ok();
    assert_eq!(out, "bind\nbind");
    host.run(&[
        "create",
        "--name",
        "from",
        "--network",
        "none",
        "-v",
        &bind,
        "busybox",
    ])
    .ok();
    assert_eq!(
        host.busybox(&["--rm", "--volumes-from", "from"], &["cat", "/b/f"])
            .ok(),
        "bind"
    );
    let why = host
        .busybox(&["--mount", "type=bind,src=/absent,dst=/x"], &["true"])
        .fails(125);
    assert!(why.contains("bind source path does not exist"), "{why}");
}
