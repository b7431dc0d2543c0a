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

/// Names that `images` shows with these arguments.
fn names(host: &TestHost, args: &[&str]) -> String {
    let mut all = vec!["images", "--format", "{{.Repository}}:{{.Tag}}"];
    all.extend(args);
    host.run(&all).ok()
}

#[test]
fn images_are_chosen_by_pattern_and_filter() {
    let host = TestHost::new();
    host.run(&["tag", "busybox", "reg.test/team/app:1"]).ok();
    let cases: &[(&[&str], &str)] = &[
        (&["busy*"], "busybox:latest"),
        (&["busybox:lat*"], "busybox:latest"),
        (&["*"], "busybox:latest"),
        (&["reg.test/*/app"], "reg.test/team/app:1"),
        (&["-f", "reference=*/*/app:[0-9]"], "reg.test/team/app:1"),
        (&["-f", "reference=nothing"], ""),
        (&["-f", "before=busybox"], ""),
        (&["-f", "since=busybox"], ""),
        (&["-f", "until=1h"], ""),
        (&["-f", "dangling=true"], ""),
    ];
    for (args, want) in cases {
        assert_eq!(names(&host, args), *want, "{args:?}");
    }
    let ids = host.run(&["images", "-q"]).ok();
    assert_eq!(ids.lines().count(), 2, "one line for each name: {ids}");
    let why = host.run(&["images", "["]).fails(1);
    assert!(why.contains("syntax error in pattern"), "{why}");
}

#[test]
fn prune_keeps_what_is_younger_than_until() {
    let host = TestHost::new();
    let prune = |until: &str| host.run(&["image", "prune", "-af", "--filter", until]);
    prune("until=1h").ok();
    assert_eq!(names(&host, &[]), "busybox:latest");
    let why = prune("until=nonsense").fails(1);
    assert!(why.contains("nonsense"), "{why}");
    prune("until=0s").ok();
    assert_eq!(names(&host, &[]), "");
}
