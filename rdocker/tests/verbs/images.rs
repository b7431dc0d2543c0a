use crate::host::TestHost;

#[test]
fn images_tag_save_rmi_and_load_go_round() {
    let host = TestHost::new();
    host.run(&["tag", "busybox", "other:1"]).ok();
    let names = host
        .run(&["images", "--format", "{{.Repository}}:{{.Tag}}"])
        .ok();
    assert_eq!(names, "busybox:latest\nother:1");
    let file = host.path().join("saved.tar").display().to_string();
    host.run(&["save", "-o", &file, "other:1"]).ok();
    assert!(
        host.run(&["rmi", "other:1"])
            .ok()
            .starts_with("Untagged: other:1")
    );
    assert_eq!(
        host.run(&["load", "-i", &file]).ok(),
        "Loaded image: other:1"
    );
    let history = host
        .run(&["history", "--format", "{{.Size}}", "busybox"])
        .ok();
    assert!(history.ends_with("MB"), "{history}");
}

#[test]
fn an_image_in_use_is_not_removed() {
    let host = TestHost::new();
    host.run(&["create", "--network", "none", "busybox"]).ok();
    let why = host.run(&["rmi", "busybox"]).fails(1);
    assert!(why.contains("conflict"), "{why}");
}

#[test]
fn prune_takes_an_image_after_the_one_made_from_it() {
    let host = TestHost::new();
    host.busybox(&["--name", "box"], &["touch", "/mine"]).ok();
    host.run(&["commit", "box", "child"]).ok();
    host.run(&["rm", "box"]).ok();
    host.run(&["image", "prune", "-af"]).ok();
    assert_eq!(host.run(&["images", "-q"]).ok(), "");
}
