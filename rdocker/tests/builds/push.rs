//! Builds that go to a registry: Debian's docker-registry, on loopback.

use crate::common::{Protection, Registry};
use crate::project::Project;

#[test]
fn a_build_is_pushed_under_each_of_its_names() {
    let project = Project::new();
    let registry = Registry::start(&Protection::default());
    let names = ["b:1", "other/b:2"].map(|name| format!("{}/{name}", registry.host));
    let file = "FROM busybox\nRUN echo pushed > /f\n";
    project
        .build(&names[0], file, &["--push", "-t", &names[1]])
        .ok();
    let id = project.host.inspect(&names[0], "{{.Id}}");
    project.host.run(&["rmi", "-f", &id]).ok();
    project.host.run(&["builder", "prune", "-af"]).ok();
    for name in &names {
        let told = project
            .host
            .run(&["run", "--rm", "--network", "none", name, "cat", "/f"]);
        assert!(told.err.contains("Unable to find image"), "{}", told.err);
        assert_eq!(told.ok(), "pushed", "{name}");
        assert_eq!(project.host.inspect(name, "{{.Id}}"), id);
    }
    // With another output beside it, too.
    let third = format!("{}/b:3", registry.host);
    let dir = project.host.path().join("out").display().to_string();
    project.build(&third, file, &["--push", "-o", &dir]).ok();
    project.host.run(&["rmi", "-f", &third]).ok();
    project.host.run(&["pull", &third]).ok();
    assert!(project.host.path().join("out/f").exists());
}

#[test]
fn a_push_that_cannot_be_is_a_failure() {
    let project = Project::new();
    let nobody = format!("127.0.0.1:{}/b", crate::common::free_port());
    let file = "FROM busybox\n";
    let why = project.build(&nobody, file, &["--push"]).fails(1);
    assert!(why.contains("connection refused"), "{why}");
    let args = ["build", "--push", "-"];
    let why = project.host.run_with(&args, file.as_bytes()).fails(1);
    assert!(why.contains("tag is needed when pushing"), "{why}");
}
