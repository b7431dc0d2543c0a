//! The build cache: what it knows, what it must not be fooled by, how it is emptied.

use std::fs;

use crate::project::Project;

/// How many steps of a build ran.
fn ran(out: &str) -> usize {
    out.matches("Running in").count()
}

#[test]
fn a_step_is_known_by_what_it_depends_on_and_by_nothing_else() {
    let project = Project::new();
    let file = "FROM busybox\nCOPY sub /s\nRUN echo one\n";
    assert_eq!(ran(&project.build("c", file, &[]).ok()), 1);
    // Times and files that are not copied do not count.
    let old = std::time::SystemTime::UNIX_EPOCH;
    fs::File::open(project.path("sub/c.txt"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    project.write("unrelated", "x");
    assert_eq!(ran(&project.build("c", file, &[]).ok()), 0, "same content");
    project.write("sub/d.md", "ignored by .dockerignore");
    assert_eq!(
        ran(&project.build("c", file, &[]).ok()),
        1,
        "*.md is only ignored at the top"
    );
    for (what, change) in [
        ("content", "C"),
        ("mode", "M"),
        ("a new file", "N"),
        ("a name", "R"),
    ] {
        let path = project.path("sub/c.txt");
        match change {
            "C" => fs::write(&path, "changed\n").unwrap(),
            "M" => {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                fs::set_permissions(&path, mode).unwrap();
            }
            "N" => project.write("sub/new", ""),
            _ => fs::rename(project.path("sub/new"), project.path("sub/newer")).unwrap(),
        }
        assert_eq!(ran(&project.build("c", file, &[]).ok()), 1, "{what}");
    }
}

#[test]
fn arguments_environment_and_flags_are_part_of_a_key() {
    let project = Project::new();
    let run = |file: &str, flags: &[&str]| ran(&project.build("c", file, flags).ok());
    let file = "FROM busybox\nARG A\nRUN echo $A\n";
    assert_eq!(run(file, &["--build-arg", "A=1"]), 1);
    assert_eq!(run(file, &["--build-arg", "A=1"]), 0);
    assert_eq!(run(file, &["--build-arg", "A=2"]), 1);
    assert_eq!(
        run("FROM busybox\nENV A=1\nRUN echo $A\n", &[]),
        1,
        "not the argument's"
    );
    assert_eq!(
        run("FROM busybox\nENV A=1\nUSER web\nRUN echo $A\n", &[]),
        1
    );
    assert_eq!(
        run("FROM busybox\nENV A=1\nLABEL x=y\nRUN echo $A\n", &[]),
        0,
        "labels change no files"
    );
    assert_eq!(run(file, &["--build-arg", "A=1", "--no-cache"]), 1);
    let proxied = ["--build-arg", "A=1", "--build-arg", "HTTP_PROXY=x"];
    assert_eq!(run(file, &proxied), 0, "a proxy is no part of a key");
}

#[test]
fn a_stage_that_gives_the_same_files_again_does_not_disturb_those_after_it() {
    let project = Project::new();
    let file = |comment: &str| {
        format!(
            "FROM busybox AS a\nRUN echo same > /f # {comment}\nFROM busybox\nCOPY --from=a /f /f\nRUN echo after\n"
        )
    };
    assert_eq!(ran(&project.build("c", &file("one"), &[]).ok()), 2);
    assert_eq!(
        ran(&project.build("c", &file("two"), &[]).ok()),
        1,
        "only the changed step"
    );
}

#[test]
fn a_linked_copy_is_known_on_any_base() {
    let project = Project::new();
    let file = |base: &str| format!("FROM busybox\nRUN echo {base} > /base\nCOPY --link sub /s\n");
    project.build("c1", &file("one"), &[]).ok();
    let out = project.build("c2", &file("two"), &[]).ok();
    assert_eq!(
        (ran(&out), out.matches("Using cache").count()),
        (1, 1),
        "{out}"
    );
    assert_eq!(project.sh("c2", "cat /base /s/c.txt"), "two\nc");
}

#[test]
fn no_cache_filter_builds_one_stage_anew() {
    let project = Project::new();
    let file = "FROM busybox AS a\nRUN echo a\nFROM busybox AS b\nRUN echo b\nFROM busybox\nCOPY --from=a /bin/sh /1\nCOPY --from=b /bin/sh /2";
    assert_eq!(ran(&project.build("c", file, &[]).ok()), 2);
    assert_eq!(
        ran(&project.build("c", file, &["--no-cache-filter", "b"]).ok()),
        1
    );
}

#[test]
fn steps_before_a_failure_are_remembered() {
    let project = Project::new();
    let error = project.build("c", "FROM busybox\nRUN echo first > /1\nRUN exit 5", &[]);
    error.fails(5);
    let out = project
        .build("c", "FROM busybox\nRUN echo first > /1\nRUN cat /1", &[])
        .ok();
    assert_eq!(ran(&out), 1, "{out}");
}

#[test]
fn pruning_frees_what_no_image_has_and_df_says_so_before() {
    let project = Project::new();
    let host = &project.host;
    let file = "FROM busybox AS a\nRUN head -c 3000000 /dev/zero > /big\nFROM busybox\nRUN --mount=type=cache,target=/c head -c 1000000 /dev/zero > /c/x; echo y > /y\nCOPY --from=a /bin/sh /sh\n";
    project.build("keep", file, &[]).ok();
    let size = |kind: &str| {
        let out = host
            .run(&["system", "df", "--format", "{{.Type}} {{.Size}}"])
            .ok();
        let row = out
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{kind} ")));
        row.unwrap().to_owned()
    };
    assert!(
        size("Build Cache").starts_with("7."),
        "{}",
        size("Build Cache")
    );
    let history = host.run(&["history", "-q", "keep"]).ok();
    assert!(!history.contains("missing"), "{history}");
    let all = host.run(&["images", "-aq"]).ok().lines().count();
    let some = host.run(&["images", "-q"]).ok().lines().count();
    assert!(all > some, "-a shows the steps on the way");
    let out = host.run(&["builder", "prune", "-f"]).ok();
    assert!(
        out.contains("Deleted build cache objects:") && out.contains("Total:\t7."),
        "{out}"
    );
    assert_eq!(project.sh("keep", "cat /y"), "y");
    let layers = fs::read_dir(host.path().join("data/layers"))
        .unwrap()
        .count();
    assert_eq!(layers, 3, "busybox and two of the image's own");
    host.run(&["rmi", "keep"]).ok();
    host.run(&["builder", "prune", "-af"]).ok();
    assert_eq!(size("Build Cache"), "0B");
    let layers = fs::read_dir(host.path().join("data/layers"))
        .unwrap()
        .count();
    assert_eq!(layers, 1);
    assert_eq!(ran(&project.build("keep", file, &[]).ok()), 2);
}

#[test]
fn rmi_keeps_the_cache_and_image_prune_keeps_the_steps_of_a_named_image() {
    let project = Project::new();
    let file = "FROM busybox\nRUN echo x > /x\nENV A=b\nCMD y";
    project.build("named", file, &[]).ok();
    project.host.run(&["image", "prune", "-f"]).ok();
    assert_eq!(
        project
            .host
            .run(&["history", "-q", "named"])
            .ok()
            .lines()
            .count(),
        4
    );
    project.host.run(&["rmi", "named"]).ok();
    assert_eq!(ran(&project.build("named", file, &[]).ok()), 0);
    assert_eq!(project.sh("named", "cat /x"), "x");
}

#[test]
fn kill_9_at_any_moment_leaves_a_store_that_the_next_command_repairs() {
    let project = Project::new();
    let rounds = if std::env::var("KEEL_SOAK").as_deref() == Ok("full") {
        200
    } else {
        12
    };
    let context = project.context().display().to_string();
    fs::write(
        project.path("Dockerfile"),
        "FROM busybox AS a\nRUN head -c 500000 /dev/zero > /z; sleep 0.1\nFROM busybox\nCOPY . /c\nRUN --mount=type=cache,target=/k echo x >> /k/f\nCOPY --from=a /z /z\nWORKDIR /w\n",
    )
    .unwrap();
    let args = [
        "build",
        "--network",
        "none",
        "--no-cache",
        "--progress",
        "plain",
        "-t",
        "torn",
        &context,
    ];
    let begin = std::time::Instant::now();
    project.host.run(&args).ok();
    let whole = begin.elapsed();
    for round in 0..rounds {
        let mut child = project
            .host
            .command(&args)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(whole.mul_f64(f64::from(round) / f64::from(rounds)));
        let _ = child.kill();
        child.wait().unwrap();
        project.host.run(&["images", "-a"]).ok();
    }
    // One whole build reaps the containers and leases of the dead ones.
    project.host.run(&args).ok();
    project.host.run(&["builder", "prune", "-af"]).ok();
    project.host.run(&["image", "prune", "-f"]).ok();
    assert_eq!(project.sh("torn", "ls /z /c/a.txt"), "/c/a.txt\n/z");
    for dir in ["data/tmp", "data/trash", "run/build", "run/runtime"] {
        let left = fs::read_dir(project.host.path().join(dir))
            .map(Iterator::count)
            .unwrap_or(0);
        assert_eq!(left, 0, "{dir}");
    }
    project
        .host
        .run(&[
            "save",
            "-o",
            project.host.path().join("s.tar").to_str().unwrap(),
            "torn",
        ])
        .ok();
}

#[test]
fn an_image_given_by_cache_from_is_a_cache_wherever_it_came_from() {
    let project = Project::new();
    let file = "FROM busybox\nENV A=1\nCOPY sub /s\nRUN echo one > /one\nWORKDIR /w\n";
    project.build("c", file, &[]).ok();
    let id = project.host.inspect("c", "{{.Id}}");
    let tar = project.path("ignored.txt").display().to_string();
    project.host.run(&["save", "-o", &tar, "c"]).ok();
    let forget = || {
        project.host.run(&["builder", "prune", "-af"]).ok();
    };
    let came_back = || {
        project.host.run(&["rmi", "-f", "c"]).ok();
        forget();
        project.host.run(&["load", "-i", &tar]).ok();
    };
    came_back();
    let out = project.build("new", file, &["--cache-from", "nosuch,c"]);
    assert_eq!(ran(&out.out), 0, "{}", out.out);
    assert_eq!(project.host.inspect("new", "{{.Id}}"), id);
    // Control: it is the flag that does it.
    came_back();
    project.host.run(&["rmi", "-f", "new"]).ok();
    assert_eq!(ran(&project.build("new", file, &[]).ok()), 1);
    forget();
    let reference = ["--cache-from", "type=registry,ref=c"];
    assert_eq!(ran(&project.build("new", file, &reference).ok()), 0);
    assert_eq!(
        ran(&project
            .build("new", file, &[&reference[..], &["--no-cache"]].concat())
            .ok()),
        1
    );
    forget();
    project.write("sub/c.txt", "other content");
    assert_eq!(ran(&project.build("new", file, &reference).ok()), 1);
}
