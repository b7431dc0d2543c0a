//! Dockerfiles and contexts that reach for more than they may have: J1 to J9 of `docs/security.md`.
//! J5, hostile repositories, is in `contexts`.
//!
//! Each attack has a control: the same step without the malice works, or the same malice against
//! a path inside does.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::CWD;

use crate::contexts::serve;
use crate::project::Project;

/// A file outside of everything that a build may see.
fn canary(project: &Project) -> std::path::PathBuf {
    let path = project.host.path().join("canary");
    fs::write(&path, "the canary\n").unwrap();
    path
}

/// Whether any file below a directory has the text in it.
fn anywhere(dir: &Path, text: &[u8]) -> Option<std::path::PathBuf> {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            if let Some(found) = anywhere(&path, text) {
                return Some(found);
            }
        } else if meta.is_file() {
            let bytes = fs::read(&path).unwrap();
            if bytes.windows(text.len()).any(|window| window == text) {
                return Some(path);
            }
        }
    }
    None
}

/// J1 (CVE-2024-1753, CVE-2024-9407): sources are found inside the context.
#[test]
fn j1_links_of_a_context_do_not_lead_out_of_it() {
    let project = Project::new();
    let canary = canary(&project);
    symlink(&canary, project.path("abs")).unwrap();
    symlink("../canary", project.path("rel")).unwrap();
    symlink("..", project.path("up")).unwrap();
    symlink("/", project.path("root")).unwrap();
    for source in [
        "abs",
        "rel",
        "up/canary",
        "../canary",
        "root/etc/hostname",
        "r*/etc/passwd",
    ] {
        let error = project
            .build("x", &format!("FROM busybox\nCOPY {source} /got\n"), &[])
            .fails(1);
        assert!(error.contains("COPY failed"), "{source}: {error}");
    }
    // The links themselves are copied as what they are.
    project.build("x", "FROM busybox\nCOPY . /all\n", &[]).ok();
    assert_eq!(
        project.sh("x", "cat /all/rel /all/abs 2>&1 | grep -c canary.$; true"),
        "0"
    );
    for source in ["..", "../../..", "up", "root", "/up/../../"] {
        let file =
            format!("FROM busybox\nRUN --mount=type=bind,source={source},target=/m ls -R /m\n");
        let out = project.build("x", &file, &["--no-cache"]).ok();
        assert!(
            !out.contains("canary") && out.contains("a.txt"),
            "{source}: {out}"
        );
    }
}

/// J1: sources are found inside the stage.
#[test]
fn j1_links_of_a_stage_do_not_lead_out_of_it() {
    let project = Project::new();
    let canary = canary(&project);
    let canary = canary.display();
    let evil = format!(
        "FROM busybox AS e\nRUN ln -s {canary} /l && ln -s / /r && ln -s ../../../../../.. /u && mkdir /ok && echo inside > /ok/f && ln -s /ok/f /in\n"
    );
    for source in [
        "/l".to_owned(),
        format!("/r{canary}"),
        format!("/u{canary}"),
    ] {
        let error = project
            .build(
                "x",
                &format!("{evil}FROM busybox\nCOPY --from=e {source} /got\n"),
                &[],
            )
            .fails(1);
        assert!(error.contains("COPY failed"), "{source}: {error}");
        let mount = format!(
            "{evil}FROM busybox\nRUN --mount=type=bind,from=e,source={source},target=/m cat /m\n"
        );
        project.build("x", &mount, &[]).fails(1);
    }
    let control = format!(
        "{evil}FROM busybox\nCOPY --from=e /in /got\nRUN --mount=type=bind,from=e,source=/u/ok,target=/m cat /got /m/f\n"
    );
    let out = project.build("x", &control, &[]).ok();
    assert!(out.contains("inside\ninside\n"), "{out}");
}

/// J1 (CVE-2024-11218): targets are found inside the image.
#[test]
fn j1_links_of_an_image_do_not_lead_a_copy_out() {
    let project = Project::new();
    let outside = project.host.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.display();
    let evil = format!(
        "FROM busybox\nRUN ln -s {target} /l && ln -s ../../../../../../..{target} /u && ln -s {target}/made /w\n"
    );
    for copy in [
        "COPY a.txt /l/x",
        "COPY a.txt /u/x",
        "COPY sub /l",
        "ADD archive.tgz /l/",
        "COPY a.txt /w",
        "WORKDIR /l/deep",
        "RUN --mount=type=bind,target=/l/point true",
        "RUN --mount=type=cache,target=/u/point touch /u/point/x",
        "COPY --parents sub/deep/e.txt /l/",
    ] {
        // It may fail or stay inside; it never writes outside.
        let done = project.build("x", &format!("{evil}{copy}\n"), &[]);
        assert_eq!(
            fs::read_dir(&outside).unwrap().count(),
            0,
            "{copy}: {}{}",
            done.out,
            done.err
        );
    }
    let control = "FROM busybox\nRUN ln -s /var/data /l\nCOPY a.txt /l/x\nRUN cat /var/data/x\n";
    project.build("x", control, &[]).ok();
}

/// J1 (CVE-2024-23651): the source of a mount is swapped for a link while it is mounted. With
/// `KEEL_SOAK=full` a thousand times.
#[test]
fn j1_a_source_that_is_swapped_for_a_link_leads_nowhere_else() {
    let project = Project::new();
    let outside = project.host.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("c.txt"), "the canary\n").unwrap();
    symlink(&outside, project.path("swap")).unwrap();
    let soak = std::env::var("KEEL_SOAK").is_ok_and(|mode| mode == "full");
    let rounds = if soak { 1000 } else { 6 };
    let done = AtomicBool::new(false);
    let (sub, swap) = (project.path("sub"), project.path("swap"));
    let (mut inside, mut refused, mut leaked) = (0, 0, None);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, &sub, CWD, &swap, exchange).unwrap();
            }
        });
        for _ in 0..rounds {
            let file = "FROM busybox\nRUN --mount=type=bind,source=sub,target=/m cat /m/c.txt\n\
                        COPY sub/c.txt /got\nRUN cat /got\n";
            let built = project.build("x", file, &["--no-cache"]);
            let told = format!("{}{}", built.out, built.err);
            if told.contains("the canary") {
                leaked = Some(told);
                break;
            }
            match built.code {
                0 => inside += 1,
                _ => refused += 1,
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(leaked, None);
    eprintln!("{rounds} rounds: {inside} built, {refused} refused");
    // Control: whoever follows the name finds the canary, half of the time.
    let found = [&sub, &swap].map(|path| fs::read_to_string(path.join("c.txt")).unwrap());
    assert!(found.contains(&"the canary\n".to_owned()));
}

/// J2 (CVE-2024-23652): mount points that were made for a step are taken away, not what replaced them.
#[test]
fn j2_what_a_step_puts_in_place_of_a_mount_point_is_not_followed() {
    let project = Project::new();
    let canary = canary(&project);
    let file = format!(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/m/p rm -rf /m/x; ln -s {} /m/x; mv /m /n 2>/dev/null; ln -s / /m 2>/dev/null; true\n",
        canary.display()
    );
    project.build("x", &file, &[]).ok();
    assert_eq!(fs::read_to_string(&canary).unwrap(), "the canary\n");
    let done = project.build(
        "x",
        "FROM busybox\nRUN --mount=type=bind,target=/m,bind-propagation=shared true\n",
        &[],
    );
    assert!(done.fails(1).contains("unexpected key 'bind-propagation'"));
}

/// J1 (CVE-2024-9675).
#[test]
fn j1_the_name_of_a_cache_is_never_a_path() {
    let project = Project::new();
    let outside = project.host.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for id in [
        "../../../outside".to_owned(),
        outside.display().to_string(),
        "..".to_owned(),
        "a/../../b".to_owned(),
    ] {
        let file = format!(
            "FROM busybox\nRUN --mount=type=cache,id={id},target=/c touch /c/{}\n",
            "x"
        );
        project.build("x", &file, &["--no-cache"]).ok();
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    let caches = fs::read_dir(project.host.path().join("data/build/caches")).unwrap();
    let hashed = |name: String| name.len() == 66 && name.ends_with("-0");
    let names: Vec<String> = caches
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 4);
    assert!(names.into_iter().all(hashed));
}

/// J4: names that a Dockerfile or a flag gives are never paths of the host.
#[test]
fn j4_names_are_never_paths() {
    let project = Project::new();
    let secret = project.host.path().join("secret-file");
    fs::write(&secret, "s").unwrap();
    let outside = project.host.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let up = format!("../../../../../../../..{}/made", outside.display());
    let given = |id: &str| format!("id={id},src={}", secret.display());
    let mount = |id: &str| {
        format!(
            "FROM busybox\nRUN --mount=type=secret,id={id} find /run -type f; find / -name made\n"
        )
    };
    // It may be refused or be a path inside; outside there is nothing.
    let _ = project.build("x", &mount(&up), &["--secret", &given(&up)]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    for name in ["../x", "/etc", "a/b", "."] {
        project
            .build("x", &format!("FROM busybox AS {name}\n"), &[])
            .fails(1);
    }
    let contexts = format!("{up}={}", outside.display());
    let _ = project.build("x", "FROM busybox\n", &["--build-context", &contexts]);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    let control = project.build("x", &mount("made"), &["--secret", &given("made")]);
    assert!(control.ok().contains("/run/secrets/made"));
}

/// J3 (CVE-2024-23653).
#[test]
fn j3_privilege_is_only_given_with_the_users_word() {
    let project = Project::new();
    let file = "FROM busybox\nRUN --security=insecure grep CapEff /proc/self/status; grep Seccomp: /proc/self/status\n";
    let error = project.build("x", file, &[]).fails(1);
    assert!(
        error.contains("security.insecure is not allowed"),
        "{error}"
    );
    for word in ["2", "-1", "Insecure", ""] {
        let file = format!("FROM busybox\nRUN --security={word} true\n");
        project
            .build("x", &file, &["--allow", "security.insecure"])
            .fails(1);
    }
    project
        .build("x", "FROM busybox\nRUN true", &["--allow", "everything"])
        .fails(1);
    let confined = project
        .build(
            "x",
            "FROM busybox\nRUN grep Seccomp: /proc/self/status\n",
            &[],
        )
        .ok();
    assert!(confined.contains("Seccomp:\t2"), "{confined}");
    let control = project
        .build("x", file, &["--allow", "security.insecure"])
        .ok();
    assert!(control.contains("Seccomp:\t0"), "{control}");
    // A frontend that the file names is not fetched, and changes nothing.
    project
        .build(
            "x",
            "# syntax=evil.example/frontend:1\nFROM busybox\nRUN true",
            &[],
        )
        .ok();
}

/// J8.
#[test]
fn j8_secrets_are_in_no_layer_history_cache_or_message() {
    const SEED: &str = "correct-horse-battery-staple-93";
    let project = Project::new();
    let file = project.host.path().join("secret-file");
    fs::write(&file, SEED).unwrap();
    let given = format!("id=s,src={}", file.display());
    let dockerfile = "FROM busybox\n\
        RUN --mount=type=secret,id=s wc -c < /run/secrets/s; stat -c %a /run/secrets/s\n\
        RUN --mount=type=secret,id=s,target=/root/.netrc,mode=0440,uid=33 stat -c %a:%u /root/.netrc\n\
        RUN --mount=type=secret,id=s,env=TOKEN test -n \"$TOKEN\" && echo ${#TOKEN}\n\
        RUN test ! -e /run/secrets/s && test -z \"$TOKEN\" && echo gone\n";
    let out = project.build("x", dockerfile, &["--secret", &given]).ok();
    for want in ["31", "400", "440:33", "gone"] {
        assert!(out.lines().any(|line| line == want), "{want}: {out}");
    }
    fs::remove_file(&file).unwrap();
    for dir in ["data", "run"] {
        assert_eq!(
            anywhere(&project.host.path().join(dir), SEED.as_bytes()),
            None
        );
    }
    assert!(!out.contains(SEED));
    // The control: what a step writes down itself is found.
    let leak = format!("FROM busybox\nRUN echo {SEED} > /leak\n");
    project.build("x", &leak, &[]).ok();
    assert!(anywhere(&project.host.path().join("data"), SEED.as_bytes()).is_some());
    let error = project
        .build(
            "x",
            "FROM busybox\nRUN --mount=type=secret,id=none,required cat /run/secrets/none",
            &[],
        )
        .fails(1);
    assert!(error.contains("secret none: not found"), "{error}");
}

/// J7 (CVE-2023-26054).
#[test]
fn j7_passwords_in_urls_are_kept_nowhere() {
    let project = Project::new();
    let url = serve(b"x", "");
    let with = url.replace("http://", "http://joe:hunter2pass@");
    let file = format!("FROM busybox\nADD {with}/f /f\n");
    project.build("x", &file, &[]).ok();
    let history = project.host.run(&["history", "--no-trunc", "x"]).ok();
    assert!(
        history.contains("/f /f") && !history.contains("hunter2pass"),
        "{history}"
    );
    let dead = "FROM busybox\nADD http://joe:hunter2pass@127.0.0.1:1/f /f\n";
    let error = project.build("x", dead, &[]).fails(1);
    assert!(!error.contains("hunter2pass"), "{error}");
    assert_eq!(
        anywhere(&project.host.path().join("data"), b"hunter2pass"),
        None
    );
}

/// J9; that a checksum is kept to is tested beside the other sources of an `ADD`.
#[test]
fn j9_a_server_does_not_name_the_file() {
    let project = Project::new();
    let url = serve(
        b"x",
        "Content-Disposition: attachment; filename=\"../../etc/passwd\"\r\n",
    );
    project
        .build("x", &format!("FROM busybox\nADD {url}/plain /d/\n"), &[])
        .ok();
    assert_eq!(project.sh("x", "ls /d"), "plain");
}

/// J6: what comes as a context is unpacked as a layer is.
#[test]
fn j6_archives_of_an_add_stay_in_their_directory() {
    let project = Project::new();
    let outside = project.host.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let mut writer = rdocker::image::tar::Writer::new(Vec::new());
    let mut link = rdocker::image::tar::Entry::new("l", rdocker::image::tar::Kind::Symlink);
    link.link = outside.display().to_string().into_bytes();
    writer.add(&link, std::io::empty()).unwrap();
    writer.add_bytes("l/escaped", b"x").unwrap();
    fs::write(project.path("evil.tar"), writer.finish().unwrap()).unwrap();
    let _ = project.build("x", "FROM busybox\nADD evil.tar /d\n", &[]);
    let context = fs::read(project.path("evil.tar")).unwrap();
    let _ = project
        .host
        .run_with(&["build", "--network", "none", "-"], &context);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    let control = project.build(
        "x",
        "FROM busybox\nADD archive.tgz /d\nRUN cat /d/sub/c.txt",
        &[],
    );
    control.ok();
}

#[test]
fn an_ignored_secret_is_reached_by_no_other_way() {
    let project = Project::new();
    symlink("ignored.txt", project.path("alias")).unwrap();
    for copy in [
        "COPY ignored.txt /",
        "COPY alias /x",
        "COPY ./ignored.txt /",
        "COPY sub/../ignored.txt /",
        "COPY ignored* /d/",
        "ADD ignored.txt /",
    ] {
        let error = project
            .build("x", &format!("FROM busybox\n{copy}\n"), &[])
            .fails(1);
        assert!(error.contains("failed"), "{copy}: {error}");
    }
    let file = "FROM busybox\nCOPY . /all\nRUN --mount=type=bind,target=/m ls /m /all\n";
    let out = project.build("x", file, &[]).ok();
    assert!(
        !out.contains("ignored.txt") && out.contains("kept.md"),
        "{out}"
    );
}
