use crate::host::TestHost;

#[test]
fn commit_keeps_the_change_and_diff_names_it() {
    let host = TestHost::new();
    host.busybox(
        &["--name", "box"],
        &["sh", "-c", "echo new > /new; rm /etc/group"],
    )
    .ok();
    assert_eq!(
        host.run(&["diff", "box"]).ok(),
        "C /etc\nD /etc/group\nA /new"
    );
    let id = host
        .run(&[
            "commit",
            "-m",
            "note",
            "-c",
            "CMD [\"cat\",\"/new\"]",
            "box",
            "mine:1",
        ])
        .ok();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(
        host.run(&["run", "--rm", "--network", "none", "mine:1"])
            .ok(),
        "new"
    );
}

#[test]
fn export_and_import_flatten_a_container() {
    let host = TestHost::new();
    host.busybox(&["--name", "box"], &["sh", "-c", "echo flat > /flat"])
        .ok();
    let file = host.path().join("flat.tar").display().to_string();
    host.run(&["export", "-o", &file, "box"]).ok();
    host.run(&["import", "-c", "ENV PATH=/bin", &file, "flat"])
        .ok();
    let out = host
        .run(&["run", "--rm", "--network", "none", "flat", "cat", "/flat"])
        .ok();
    assert_eq!(out, "flat");
}
