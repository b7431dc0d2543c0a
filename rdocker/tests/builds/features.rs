//! What a build shows, takes and gives beside the image's content.

use std::fs;

use crate::project::Project;

#[test]
fn plain_progress_is_dockers_classic_lines() {
    let project = Project::new();
    let out = project
        .build(
            "shown:1",
            "FROM busybox\nRUN echo hello; echo bye >&2\nENV A=b",
            &[],
        )
        .ok();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "Step 1/3 : FROM busybox");
    assert!(lines[1].starts_with(" ---> "), "{out}");
    assert_eq!(lines[2], "Step 2/3 : RUN echo hello; echo bye >&2");
    assert!(lines[3].starts_with(" ---> Running in "), "{out}");
    assert_eq!((lines[4], lines[5]), ("hello", "bye"));
    assert!(
        lines[6].starts_with(" ---> Removed intermediate container "),
        "{out}"
    );
    let id = out
        .lines()
        .find_map(|line| line.strip_prefix("Successfully built "))
        .unwrap();
    assert!(project.host.inspect("shown:1", "{{.Id}}").contains(id));
    assert_eq!(lines.last(), Some(&"Successfully tagged shown:1"));
    let again = project
        .build(
            "shown:1",
            "FROM busybox\nRUN echo hello; echo bye >&2\nENV A=b",
            &[],
        )
        .ok();
    assert_eq!(again.matches(" ---> Using cache").count(), 2, "{again}");
    assert!(
        again.contains(id) && !again.contains("Running in"),
        "{again}"
    );
}

#[test]
fn quiet_prints_the_id_alone_and_iidfile_keeps_it() {
    let project = Project::new();
    let file = project.host.path().join("id");
    let flags = ["-q", "--iidfile", file.to_str().unwrap(), "-t", "second:2"];
    let id = project
        .build("first", "FROM busybox\nRUN echo noise", &flags)
        .ok();
    assert!(id.starts_with("sha256:") && id.lines().count() == 1, "{id}");
    assert_eq!(fs::read_to_string(file).unwrap(), id);
    assert_eq!(project.host.inspect("second:2", "{{.Id}}"), id);
    let done = project.build("first", "FROM busybox\nRUN echo why; exit 9", &["-q"]);
    assert!(
        done.fails(9).contains("why"),
        "a failure shows what the step printed"
    );
}

#[test]
fn stages_run_at_once_and_speak_one_after_the_other() {
    let project = Project::new();
    // Each waits for the other through a cache that both have: one after the other never ends. Both
    // find it new, so several times: one of them fills it, and the other does not.
    for id in ["c1", "c2", "c3", "c4", "c5"] {
        let file = format!(
            "FROM busybox AS a\nRUN --mount=type=cache,id={id},target=/c touch /c/a; until test -e /c/b; do sleep 0.05; done; echo A1; echo A2\n\
             FROM busybox AS b\nRUN --mount=type=cache,id={id},target=/c touch /c/b; until test -e /c/a; do sleep 0.05; done; echo B1; echo B2\n\
             FROM busybox AS unneeded\nRUN echo never; false\n\
             FROM busybox\nCOPY --from=a /bin/sh /a\nCOPY --from=b /bin/sh /b\n"
        );
        let out = project.build("both", &file, &[]).ok();
        let own: Vec<&str> = out
            .lines()
            .filter(|l| matches!(*l, "A1" | "A2" | "B1" | "B2"))
            .collect();
        assert_eq!(own, ["A1", "A2", "B1", "B2"]);
        assert!(
            !out.contains("never") && out.contains("Step 7/7 : COPY --from=b"),
            "{out}"
        );
    }
}

#[test]
fn arguments_reach_where_they_should() {
    let project = Project::new();
    let file = "ARG TAG=latest\nFROM busybox:$TAG\nARG A\nARG TARGETARCH\nRUN echo $A $TARGETARCH $HTTP_PROXY > /got\n";
    let flags = [
        "--build-arg",
        "A=x",
        "--build-arg",
        "HTTP_PROXY=http://p",
        "--build-arg",
        "ODD=1",
    ];
    let out = project.build("args", file, &flags).ok();
    assert!(out.contains("build-args [ODD] were not consumed"), "{out}");
    let got = project.sh("args", "cat /got");
    assert!(got.starts_with("x ") && got.ends_with(" http://p"), "{got}");
    let history = project.host.run(&["history", "--no-trunc", "args"]).ok();
    assert!(
        history.contains("RUN |2 A=x TARGETARCH=") && !history.contains("http://p"),
        "{history}"
    );
    let missing = project.build("args", file, &["--build-arg", "TAG=nosuch"]);
    assert!(missing.fails(1).contains("FROM busybox:$TAG"));
}

#[test]
fn mounts_show_their_files_and_leave_none() {
    let project = Project::new();
    let file = "FROM busybox AS s\nRUN mkdir /d && echo staged > /d/f\nFROM busybox\n\
        RUN --mount=type=bind,from=s,source=/d,target=/m cat /m/f; ! touch /m/x 2>&1\n\
        RUN --mount=type=bind,target=/ctx,rw touch /ctx/new && ls /ctx && ! test -e /ctx/ignored.txt\n\
        RUN --mount=type=bind,source=a.txt,target=/new/file cat /new/file\n\
        RUN --mount=type=cache,id=k,target=/c,mode=0711,uid=33 stat -c %a:%u /c; echo kept > /c/k\n\
        RUN --mount=type=cache,id=k,target=/other cat /other/k\n\
        RUN --mount=type=tmpfs,target=/tm,size=1m stat -f -c %T /tm; ! head -c 2000000 /dev/zero > /tm/x\n\
        RUN --network=none cat /proc/net/dev | wc -l\n";
    let out = project.build("mounts", file, &[]).ok();
    for wanted in ["staged", "kept", "711:33", "tmpfs", "a"] {
        assert!(out.lines().any(|line| line == wanted), "{wanted}: {out}");
    }
    let left = project.sh(
        "mounts",
        "ls -d /m /ctx /new /c /other /tm 2>/dev/null; true",
    );
    assert_eq!(left, "");
    assert!(!project.path("new").exists());
    // The cache outlives the build, and its content never counts for a step's key.
    let again = project.build("mounts", file, &[]).ok();
    assert!(!again.contains("Running in"), "{again}");
    let again = project.build("mounts", file, &["--no-cache"]).ok();
    assert!(again.lines().any(|line| line == "kept"), "{again}");
}

#[test]
fn outputs_go_where_they_are_told() {
    let project = Project::new();
    let at = |name: &str| project.host.path().join(name);
    let file = "FROM scratch\nCOPY sub /sub\n";
    let dir = at("out").display().to_string();
    project.build("x", file, &["-o", &dir]).ok();
    assert_eq!(fs::read_to_string(at("out/sub/deep/e.txt")).unwrap(), "e\n");
    project.host.run(&["inspect", "x"]).fails(1);
    let archive = at("oci.tar").display().to_string();
    let output = format!("type=oci,dest={archive}");
    project.build("exported:1", file, &["-o", &output]).ok();
    project.host.run(&["rmi", "exported:1"]).ok();
    project.host.run(&["load", "-i", &archive]).ok();
    project.host.run(&["inspect", "exported:1"]).ok();
    let copied = std::process::Command::new("skopeo")
        .args(["inspect", "--raw", &format!("oci-archive:{archive}")])
        .output()
        .unwrap();
    assert!(
        copied.status.success(),
        "{}",
        String::from_utf8_lossy(&copied.stderr)
    );
}

#[test]
fn a_build_leaves_no_image_a_layout_or_its_metadata_as_told() {
    let project = Project::new();
    let at = |name: &str| project.host.path().join(name);
    let file = "FROM busybox\nRUN echo said\n";
    project.build("x", file, &["-o", "type=cacheonly"]).ok();
    project.host.run(&["inspect", "x"]).fails(1);
    let output = format!("type=oci,tar=false,dest={}", at("layout").display());
    project.build("x", file, &["-o", &output]).ok();
    let index = fs::read_to_string(at("layout/index.json")).unwrap();
    assert!(index.contains("sha256:"), "{index}");
    let metadata = at("metadata.json").display().to_string();
    project
        .build("x", file, &["--metadata-file", &metadata])
        .ok();
    let value: serde_json::Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    assert_eq!(value["image.name"], "docker.io/library/x:latest");
    assert_eq!(
        value["containerimage.config.digest"],
        project.host.inspect("x", "{{.Id}}").as_str()
    );
    let context = project.context().display().to_string();
    fs::write(project.path("Dockerfile"), "FROM busybox\nRUN echo said\n").unwrap();
    let raw = [
        "build",
        "--progress",
        "rawjson",
        "--no-cache",
        "--network",
        "none",
        &context,
    ];
    let raw = project.host.run(&raw);
    let mut logs = String::new();
    for line in raw.err.lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        logs.extend(message["logs"][0]["data"].as_str());
    }
    assert!(logs.contains("c2FpZAo="), "{}", raw.err);
    raw.ok();
    let warned = project.build("x", file, &["--cache-to", "type=local,dest=d", "--squash"]);
    assert_eq!(
        warned.err.matches("WARNING: --").count(),
        2,
        "{}",
        warned.err
    );
    let usage = project.host.run(&["buildx", "du"]).ok();
    assert!(
        usage.contains("RECLAIMABLE") && usage.contains("\nTotal:"),
        "{usage}"
    );
    let listed = project.host.run(&["buildx", "ls"]).ok();
    assert!(listed.contains("default*"), "{listed}");
}

#[test]
fn triggers_run_in_the_image_that_begins_with_theirs() {
    let project = Project::new();
    let parent =
        "FROM busybox\nONBUILD COPY a.txt /from-child\nONBUILD RUN <<EOF\necho trigger > /t\nEOF\n";
    project.build("parent", parent, &[]).ok();
    let out = project
        .build("child", "FROM parent\nRUN cat /t /from-child", &[])
        .ok();
    assert!(out.contains("# Executing 2 build triggers"), "{out}");
    assert!(out.contains("trigger\na\n"), "{out}");
    let triggers = "{{json .Config.OnBuild}}";
    assert_eq!(project.host.inspect("child", triggers), "null");
    assert_ne!(project.host.inspect("parent", triggers), "null", "control");
    fs::remove_file(project.path("a.txt")).unwrap();
    let error = project.build("child", "FROM parent", &[]).fails(1);
    assert!(error.contains("ONBUILD COPY a.txt /from-child"), "{error}");
}

#[test]
fn a_source_date_makes_two_builds_the_same() {
    let project = Project::new();
    let file = "FROM busybox\nRUN mkdir -p /d/e && date > /dev/null; echo x > /d/f; rm /etc/group\n\
                WORKDIR /w\nCOPY . /c\nCMD x";
    let flags = [
        "--no-cache",
        "-q",
        "--build-arg",
        "SOURCE_DATE_EPOCH=1000000000",
    ];
    let first = project.build("r", file, &flags).ok();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    fs::File::open(project.path("a.txt"))
        .unwrap()
        .set_modified(std::time::SystemTime::now())
        .unwrap();
    let second = project.build("r", file, &flags).ok();
    assert_eq!(first, second);
    assert_eq!(
        project.host.inspect("r", "{{.Created}}"),
        "2001-09-09T01:46:40Z"
    );
    let control = project.build("r", file, &["--no-cache", "-q"]).ok();
    assert_ne!(first, control, "without the date the time shows");
}

#[test]
fn checks_are_told_after_a_build_and_instead_of_one() {
    let project = Project::new();
    let file = "# V is the version\nARG V=1\nFROM busybox AS Base\nCMD echo $V\nENV A=$PAHT\n";
    let built = project.build("checked", file, &[]);
    let wanted = [
        " 3 warnings found (use rdocker build --check to expand):",
        " - StageNameCasing: Stage name 'Base' should be lowercase (line 3)",
        " - JSONArgsRecommended: ",
        " - UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?) (line 5)",
    ];
    for line in wanted {
        assert!(built.err.contains(line), "{line}: {}", built.err);
    }
    built.ok();
    let quiet = project.build("checked", file, &["-q"]);
    assert_eq!(quiet.err, "");
    let looked = project.build("looked", file, &["--check"]);
    assert!(
        looked
            .out
            .starts_with("Check complete, 3 warnings have been found!\n\nWARNING: Stage"),
        "{}",
        looked.out
    );
    assert!(looked.out.contains("   3 | >>> FROM busybox AS Base\n"));
    looked.fails(1);
    project.host.run(&["inspect", "looked"]).fails(1);
    let clean = project.build("x", "FROM busybox\n", &["--check"]).ok();
    assert_eq!(clean, "Check complete, no warnings found.");
    let strict = format!("# check=error=true;skip=UndefinedVar\n{file}");
    let why = project.build("strict", &strict, &[]).fails(1);
    let rules = "lint violation found for rules: JSONArgsRecommended, StageNameCasing";
    assert!(why.contains(rules), "{why}");
    project.host.run(&["inspect", "strict"]).fails(1);
    let targets = project.build("x", file, &["--call", "targets"]).ok();
    assert_eq!(
        targets.lines().nth(1).map(str::trim),
        Some("base (default)")
    );
    let outline = project.build("x", file, &["--call=outline"]).ok();
    assert!(
        outline.ends_with("V           1       is the version"),
        "{outline}"
    );
}

#[test]
fn limits_and_hosts_reach_the_step() {
    let project = Project::new();
    let flags = [
        "--add-host",
        "db:1.2.3.4",
        "--ulimit",
        "nofile=77:77",
        "--shm-size",
        "1m",
        "--network",
        "none",
    ];
    let file = "FROM busybox\nRUN grep db /etc/hosts; grep 'open files' /proc/self/limits; stat -f -c '%b %S' /dev/shm\n";
    let out = project.build("limits", file, &flags).ok();
    assert!(out.contains("1.2.3.4\tdb"), "{out}");
    assert!(
        out.lines()
            .any(|line| line.starts_with("Max open files") && line.contains(" 77 ")),
        "{out}"
    );
    assert!(out.contains("256 4096"), "{out}");
    assert_eq!(project.sh("limits", "grep db /etc/hosts; true"), "");
}

#[test]
fn a_program_that_cannot_be_executed_is_told_once() {
    let project = Project::new();
    let built = project.build("x", "FROM busybox\nRUN [\"nosuch\"]\n", &[]);
    let told = format!("{}{}", built.out, built.err);
    assert_eq!(built.code, 1, "{told}");
    assert_eq!(
        told.matches("executable file not found").count(),
        1,
        "{told}"
    );
    // What the step's own program says of another stays.
    let built = project.build("x", "FROM busybox\nRUN echo before; nosuch\n", &[]);
    assert!(
        built.out.contains("before\n/bin/sh: nosuch: not found\n"),
        "{}",
        built.out
    );
    assert_eq!(built.code, 127);
}

#[test]
fn interrupting_a_build_ends_its_container_and_leaves_nothing() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let project = Project::new();
    let context = project.context().display().to_string();
    fs::write(
        project.path("Dockerfile"),
        "FROM busybox\nRUN echo begun; sleep 1000",
    )
    .unwrap();
    let mut child = project
        .host
        .command(&[
            "build",
            "--network",
            "none",
            "--progress",
            "plain",
            "-t",
            "no",
            &context,
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("begun") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut out, &mut line).unwrap(), 0);
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    assert!(!child.wait().unwrap().success());
    for dir in ["run/build", "run/runtime", "data/tmp"] {
        let left = fs::read_dir(project.host.path().join(dir))
            .map(Iterator::count)
            .unwrap_or(0);
        assert_eq!(left, 0, "{dir}");
    }
}
