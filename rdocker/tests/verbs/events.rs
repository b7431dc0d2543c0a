use crate::host::TestHost;

#[test]
fn a_life_is_told_in_docker_order() {
    let host = TestHost::new();
    host.busybox(&["--rm", "--name", "web"], &["sh", "-c", "exit 2"])
        .fails(2);
    let args = [
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "-f",
        "container=web",
        "--format",
    ];
    let mut actions = args.to_vec();
    actions.push("{{.Action}}");
    assert_eq!(host.run(&actions).ok(), "create\nstart\ndie\ndestroy");
    let mut code = args.to_vec();
    code.push("{{.Actor.Attributes.exitCode}}");
    assert!(host.run(&code).ok().contains('2'));
}
