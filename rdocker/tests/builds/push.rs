//! Builds that go to a registry: Debian's docker-registry, on loopback.

use std::fs;

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
    let last = |status: &str| format!("Status: {status} for {third}\n{third}");
    let told = project.host.run(&["pull", &third]).ok();
    assert!(told.contains("\nDigest: sha256:"), "{told}");
    assert!(told.ends_with(&last("Downloaded newer image")), "{told}");
    assert!(
        !told.contains(&project.host.inspect(&third, "{{.Id}}")[7..19]),
        "{told}"
    );
    let told = project.host.run(&["pull", &third]).ok();
    assert!(told.ends_with(&last("Image is up to date")), "{told}");
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

#[test]
fn an_image_in_a_registry_is_a_cache_of_which_only_what_is_needed_comes() {
    let project = Project::new();
    let registry = Registry::start(&Protection::default());
    let name = format!("{}/cache:1", registry.host);
    let file = "FROM busybox\nENV A=1\nCOPY sub /s\nRUN echo one > /one\n";
    project.build(&name, file, &["--push"]).ok();
    let id = project.host.inspect(&name, "{{.Id}}");
    let forget = |names: &[&str]| {
        project.host.run(&[&["rmi", "-f"], names].concat()).ok();
        project.host.run(&["builder", "prune", "-af"]).ok();
    };
    let ran = |out: &str| out.matches("---> Running in").count();
    forget(&[&name]);
    let nobody = ["--cache-from", "127.0.0.1:1/nobody"];
    let source = ["--cache-from", name.as_str()];
    for flags in [&source[..], &[nobody, source].concat()] {
        let built = project.build("new", file, flags);
        assert_eq!(ran(&built.out), 0, "{}{}", built.out, built.err);
        let warned = format!("{}{}", built.out, built.err).contains("--cache-from 127.0.0.1:1");
        assert_eq!(warned, flags.len() > 2, "{}{}", built.out, built.err);
        assert_eq!(project.host.inspect("new", "{{.Id}}"), id);
        assert_eq!(project.sh("new", "cat /one /s/c.txt"), "one\nc");
        // What was cached can be given on.
        let tar = project.host.path().join("saved.tar").display().to_string();
        project.host.run(&["save", "-o", &tar, "new"]).ok();
        // It gives steps, and no image of its name.
        project
            .host
            .run(&["inspect", "--type", "image", &name])
            .fails(1);
        forget(&["new"]);
    }
    // Control: it is the flag that does it.
    assert_eq!(ran(&project.build("new", file, &[]).ok()), 1);
    forget(&["new"]);
    // Where no step fits no layer is fetched.
    let layers = || {
        fs::read_dir(project.host.path().join("data/layers"))
            .unwrap()
            .count()
    };
    let before = layers();
    project
        .build("new", "FROM busybox\nENV B=1\n", &source)
        .ok();
    assert_eq!(layers(), before);
}
