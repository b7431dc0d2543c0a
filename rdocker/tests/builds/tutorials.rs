//! The projects of the beginners' tutorials, with bases that are made here.

use std::fs;
use std::process::Command;

use crate::project::Project;

/// Tutorial 0 in small: a base tagged `ubuntu:14.04`, an author with an unbalanced bracket, and
/// two steps. The real one, with packages, is below.
#[test]
fn the_editor_and_compiler_image_in_small() {
    let project = Project::new();
    project.host.run(&["tag", "busybox", "ubuntu:14.04"]).ok();
    let file = "# This is a comment\nFROM ubuntu:14.04\nMAINTAINER Barry Song<x@y\n\
                RUN echo update && echo vim > /usr-bin-vim\nRUN echo gcc > /usr-bin-gcc\n";
    let out = project.build("ubuntu/ubuntuwithvimandgcc", file, &[]).ok();
    assert!(
        out.contains("Successfully tagged ubuntu/ubuntuwithvimandgcc:latest"),
        "{out}"
    );
    assert_eq!(
        project
            .host
            .inspect("ubuntu/ubuntuwithvimandgcc", "{{.Author}}"),
        "Barry Song<x@y"
    );
    assert_eq!(
        project.sh("ubuntu/ubuntuwithvimandgcc", "cat /usr-bin-*"),
        "gcc\nvim"
    );
}

/// Debian's own packages, over the network: minutes, so only when asked (`KEEL_SOAK=full`).
#[test]
fn the_editor_and_compiler_image_from_real_packages() {
    if std::env::var("KEEL_SOAK").as_deref() != Ok("full") {
        return;
    }
    let outside = fs::File::open("/proc/thread-self/ns/net").unwrap();
    let project = Project::new();
    // The mirror is on the machine's own network, which nothing here changes.
    nix::sched::setns(outside, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let tar = project.host.path().join("debian.tar");
    let made = Command::new("mmdebstrap")
        .args(["--variant=apt", "bookworm"])
        .arg(&tar)
        .status();
    assert!(made.unwrap().success());
    project
        .host
        .run(&["import", tar.to_str().unwrap(), "ubuntu:14.04"])
        .ok();
    let file = "FROM ubuntu:14.04\nMAINTAINER Barry Song<x@y\n\
                RUN apt-get update && apt-get install -y vim-tiny\nRUN apt-get install -y gcc libc6-dev\n";
    project
        .build("ubuntu/ubuntuwithvimandgcc", file, &["--network", "host"])
        .ok();
    let out = project.sh(
        "ubuntu/ubuntuwithvimandgcc",
        "vim.tiny --version | head -1; echo 'int main(){return 7;}' > /t.c; gcc /t.c -o /t; /t; echo $?",
    );
    assert!(out.contains("VIM") && out.ends_with('7'), "{out}");
}

/// Tutorial 0, the blog: WORKDIR, EXPOSE and CMD, and the stray line that vi left.
#[test]
fn the_blog_image_serves_its_pages() {
    let project = Project::new();
    project.host.run(&["tag", "busybox", "node:latest"]).ok();
    let file = "FROM node\nRUN echo npm install > /dev/null\nRUN mkdir -p /hexofile && echo '<h1>blog</h1>' > /hexofile/index.html\n\
                WORKDIR /hexofile\nEXPOSE 4000\nCMD [\"cat\",\"index.html\"]\n";
    project.build("hexo/node", file, &[]).ok();
    let config = project.host.inspect(
        "hexo/node",
        "{{json .Config.ExposedPorts}} {{.Config.WorkingDir}}",
    );
    assert_eq!(config, "{\"4000/tcp\":{}} /hexofile");
    let out = project
        .host
        .run(&["run", "--rm", "--network", "none", "hexo/node:latest"])
        .ok();
    assert_eq!(out, "<h1>blog</h1>");
    let error = project
        .build("hexo/node", &format!("{file}~\n"), &[])
        .fails(1);
    assert_eq!(
        error.trim(),
        "Error: dockerfile parse error on line 7: unknown instruction: ~"
    );
}

/// Tutorial 4: something is installed in a container, and the container becomes an image.
#[test]
fn an_installation_in_a_container_becomes_the_base_of_a_build() {
    let project = Project::new();
    project
        .host
        .busybox(&["--name", "box"], &["sh", "-c", "echo tool > /bin/tool"])
        .ok();
    project
        .host
        .run(&["commit", "-m", "tool", "-a", "me", "box", "mine:1"])
        .ok();
    project
        .build("mine:2", "FROM mine:1\nRUN cat /bin/tool > /copied\n", &[])
        .ok();
    assert_eq!(project.sh("mine:2", "cat /copied"), "tool");
    let history = project.host.run(&["history", "mine:2"]).ok();
    assert!(
        history.contains("RUN /bin/sh -c cat /bin/tool"),
        "{history}"
    );
    fs::metadata(project.host.path()).unwrap();
}
