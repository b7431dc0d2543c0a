//! The beginners' tutorials 1, 3 and 4, as they are typed, with `rdocker` for `docker`: images and
//! containers. Their builds are in `builds/tutorials.rs`, their registries in `registry.rs`.

use std::process::{Command, Stdio};

use crate::host::{TestHost, done};

/// What is typed, the exit code, and words that come of it, in this order.
type Typed = (&'static str, i32, &'static [&'static str]);

const TYPED: &[Typed] = &[
    // 1: the first container.
    ("rdocker version", 0, &["Client:", "Server:"]),
    (
        "rdocker images",
        0,
        &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"],
    ),
    (
        "rdocker info",
        0,
        &["Containers:", "Images:", "Docker Root Dir:"],
    ),
    ("rdocker run ubuntu echo 'Hello World'", 0, &["Hello World"]),
    (
        "uname -a; rdocker run --rm ubuntu cat /etc/hostname",
        0,
        &["Linux"],
    ),
    // 3: images.
    (
        "rdocker run --name touched ubuntu touch happiness.txt",
        0,
        &[],
    ),
    (
        "find $RDOCKER_DATA_ROOT -name happiness.txt",
        0,
        &["/diff/happiness.txt"],
    ),
    (
        "rdocker inspect -f '{{.GraphDriver.Data.UpperDir}}' touched",
        0,
        &["/diff"],
    ),
    ("rdocker images -a", 0, &["ubuntu"]),
    ("rdocker images -q --no-trunc", 0, &["sha256:"]),
    (
        "rdocker images --tree",
        0,
        &["IMAGE", "DISK USAGE", "└─ linux/"],
    ),
    ("rdocker history -q --no-trunc ubuntu", 0, &["sha256:"]),
    (
        "rdocker tag ubuntu:latest ubuntu:14.04; rdocker images ubuntu",
        0,
        &["14.04", "latest"],
    ),
    (
        "rdocker save ubuntu > u.tar; rdocker save alpine -o a.tar; ls",
        0,
        &["a.tar", "u.tar"],
    ),
    (
        "rdocker load -i u.tar",
        0,
        &["Loaded image: ubuntu:14.04", "Loaded image: ubuntu:latest"],
    ),
    ("rdocker load < a.tar", 0, &["Loaded image: alpine:latest"]),
    ("rdocker rmi ubuntu:14.04", 0, &["Untagged: ubuntu:14.04"]),
    // 3: containers.
    ("rdocker create alpine | wc -c", 0, &["65"]),
    (
        "rdocker run -d --name=docker_alpine alpine /bin/sh -c 'while true; do echo hello world; sleep 1; done'",
        0,
        &[],
    ),
    (
        "rdocker ps",
        0,
        &[
            "CONTAINER ID",
            "IMAGE",
            "COMMAND",
            "CREATED",
            "STATUS",
            "PORTS",
            "NAMES",
            "docker_alpine",
        ],
    ),
    ("rdocker ps -a", 0, &["Exited (0)"]),
    ("rdocker ps -l", 0, &["docker_alpine"]),
    ("rdocker ps -a -q | wc -l", 0, &["4"]),
    ("rdocker ps –a", 1, &["'rdocker ps' accepts no arguments"]),
    (
        "rdocker run --name=docker_alpine alpine true",
        125,
        &["The container name \"/docker_alpine\" is already in use"],
    ),
    (
        "rdocker run --rm alpine /bin/sh 'while true; do echo hello; done'",
        2,
        &["sh:"],
    ),
    ("rdocker logs docker_alpine", 0, &["hello world"]),
    (
        "rdocker logs -t docker_alpine | head -1",
        0,
        &["Z hello world"],
    ),
    (
        "timeout 1 rdocker logs -f docker_alpine",
        124,
        &["hello world"],
    ),
    (
        "rdocker top docker_alpine",
        0,
        &["PID", "CMD", "sh -c while true"],
    ),
    ("rdocker exec docker_alpine echo inside", 0, &["inside"]),
    ("rdocker pause docker_alpine; rdocker ps", 0, &["(Paused)"]),
    ("rdocker unpause docker_alpine; rdocker ps", 0, &["Up "]),
    (
        "rdocker exec docker_alpine touch /tmp/new; rdocker diff docker_alpine",
        0,
        &["C /tmp", "A /tmp/new"],
    ),
    ("rdocker cp docker_alpine:/tmp/new .; ls", 0, &["new"]),
    (
        "rdocker inspect docker_alpine",
        0,
        &["\"Id\":", "\"NetworkSettings\":"],
    ),
    (
        "rdocker commit -a Me -m 'a file' docker_alpine other/img:2; rdocker images",
        0,
        &["sha256:", "other/img"],
    ),
    (
        "rdocker export docker_alpine > e.tar; cat e.tar | rdocker import - flat:1",
        0,
        &["sha256:"],
    ),
    ("rdocker history flat:1", 0, &["IMAGE", "Imported from -"]),
    (
        "rdocker stop -t 0 docker_alpine; rdocker start docker_alpine",
        0,
        &["docker_alpine", "docker_alpine"],
    ),
    ("rdocker restart -t 0 docker_alpine", 0, &["docker_alpine"]),
    ("rdocker rm docker_alpine", 1, &["container is running"]),
    (
        "rdocker kill docker_alpine; rdocker ps -q",
        0,
        &["docker_alpine"],
    ),
    (
        "rdocker attach docker_alpine",
        1,
        &["You cannot attach to a stopped container, start it first"],
    ),
    ("rdocker start -a touched", 0, &[]),
    (
        "rdocker rm 'docker ps -a -q'",
        1,
        &["No such container: docker ps -a -q"],
    ),
    ("rdocker rm $(rdocker ps -a -q) | wc -l", 0, &["4"]),
    (
        "rdocker run -d --name db alpine sleep 99; rdocker rm -f `rdocker ps -q`; rdocker ps -a -q",
        0,
        &[],
    ),
    // 3 and 4: registries that are not there, and flags that are gone.
    ("rdocker login -u a -p b -e c@d 127.0.0.1:1", 1, &[]),
    (
        "rdocker -H unix:///nowhere.sock version",
        1,
        &["Cannot connect to the Docker daemon at unix:///nowhere.sock"],
    ),
    ("rdocker pull 127.0.0.1:1/x", 1, &["connection refused"]),
    (
        "rdocker rmi other/img:2 flat:1",
        0,
        &["Untagged: other/img:2", "Untagged: flat:1", "Deleted:"],
    ),
];

#[test]
fn the_tutorials_work_as_they_are_typed() {
    let host = TestHost::new();
    let work = host.path().join("work");
    std::fs::create_dir(&work).unwrap();
    host.run(&["tag", "busybox", "ubuntu"]).ok();
    // As another image, so that taking a name away is not all that is done.
    host.busybox(&["--name", "base"], &["touch", "/alpine"])
        .ok();
    host.run(&["commit", "base", "alpine"]).ok();
    host.run(&["rm", "base"]).ok();
    let mut failures = String::new();
    for (script, code, words) in TYPED {
        let mut command = Command::new("bash");
        command
            .args([
                "-c",
                &format!(
                    "exec 2>&1\nrdocker() {{ \"$RDOCKER\" \"$@\"; }}\nexport -f rdocker\n{}",
                    script.replace("timeout 1 rdocker", "timeout 1 \"$RDOCKER\"")
                ),
            ])
            .current_dir(&work)
            .env("RDOCKER", env!("CARGO_BIN_EXE_rdocker"))
            .env("RDOCKER_DATA_ROOT", host.path().join("data"))
            .env("RDOCKER_EXEC_ROOT", host.path().join("run"))
            .env("DOCKER_CONFIG", host.path().join("config"))
            .stdin(Stdio::null());
        let got = done(command.output().unwrap());
        let mut rest = got.out.as_str();
        let says = words.iter().all(|word| match rest.split_once(word) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        });
        if got.code != *code || !says {
            failures += &format!(
                "$ {script}\n{}exit code {}, wanted {code} and {words:?}\n\n",
                got.out, got.code
            );
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}
