use crate::host::TestHost;

#[test]
fn inspect_shows_containers_images_and_volumes_and_tells_what_is_missing() {
    let host = TestHost::new();
    host.run(&[
        "create",
        "--name",
        "box",
        "--network",
        "none",
        "-v",
        "vol:/v",
        "busybox",
    ])
    .ok();
    let list: serde_json::Value =
        serde_json::from_str(&host.run(&["inspect", "box", "busybox", "vol"]).ok()).unwrap();
    assert_eq!(list[0]["Name"], "/box");
    assert_eq!(list[0]["HostConfig"]["NetworkMode"], "none");
    assert_eq!(list[0]["Mounts"][0]["Name"], "vol");
    assert_eq!(list[1]["RepoTags"][0], "busybox:latest");
    assert_eq!(list[2]["Name"], "vol");
    let done = host.run(&["inspect", "absent"]);
    assert_eq!((done.out.as_str(), done.code), ("[]\n", 1));
    assert_eq!(done.err, "Error: No such object: absent\n");
}
