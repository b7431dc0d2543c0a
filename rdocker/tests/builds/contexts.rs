//! Where contexts and sources come from: archives, stdin, repositories, servers, names.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::project::Project;

fn tar(project: &Project, flags: &str) -> Vec<u8> {
    let out = Command::new("tar")
        .arg("-C")
        .arg(project.context())
        .args([flags, "-", "."])
        .output()
        .unwrap();
    assert!(out.status.success());
    out.stdout
}

#[test]
fn archives_and_dockerfiles_are_contexts() {
    let project = Project::new();
    project.write("Dockerfile", "FROM busybox\nCOPY . /all\n");
    let host = &project.host;
    for flags in ["-cf", "-czf", "-cjf", "-cJf"] {
        let archive = tar(&project, flags);
        host.run_with(
            &["build", "--network", "none", "-q", "-t", "piped", "-"],
            &archive,
        )
        .ok();
        let files = project.sh("piped", "ls /all/a.txt /all/ignored.txt 2>/dev/null; true");
        assert_eq!(files, "/all/a.txt", "{flags}: .dockerignore counts");
    }
    let file = host.path().join("context.tar.gz");
    fs::write(&file, tar(&project, "-czf")).unwrap();
    host.run(&[
        "build",
        "--network",
        "none",
        "-q",
        "-t",
        "filed",
        file.to_str().unwrap(),
    ])
    .ok();
    let alone = b"FROM busybox\nRUN echo alone > /f\n";
    host.run_with(
        &["build", "--network", "none", "-q", "-t", "alone", "-"],
        alone,
    )
    .ok();
    assert_eq!(project.sh("alone", "cat /f"), "alone");
    let error = host
        .run_with(
            &["build", "--network", "none", "-"],
            b"FROM busybox\nCOPY a.txt /\n",
        )
        .fails(1);
    assert!(error.contains("file not found in build context"), "{error}");
    let context = project.context().display().to_string();
    let dockerfile = b"FROM busybox\nCOPY a.txt /from-stdin\n";
    host.run_with(
        &[
            "build",
            "--network",
            "none",
            "-q",
            "-t",
            "both",
            "-f",
            "-",
            &context,
        ],
        dockerfile,
    )
    .ok();
    assert_eq!(project.sh("both", "cat /from-stdin"), "a");
    let error = host
        .run(&["build", "--network", "none", "/no/such/context"])
        .fails(1);
    assert!(
        error.contains("path \"/no/such/context\" not found"),
        "{error}"
    );
}

#[test]
fn the_dockerfiles_own_ignore_file_comes_first() {
    let project = Project::new();
    let file = "FROM busybox\nCOPY . /all\nRUN ls /all\n";
    let own = project.host.path().join("Dockerfile.test.dockerignore");
    fs::write(&own, "*\n!sub/deep\n").unwrap();
    project.build("own", file, &[]).ok();
    assert_eq!(
        project.sh("own", "cd /all; echo * */* */*/*"),
        "sub sub/deep sub/deep/e.txt"
    );
}

/// Runs git in a directory.
fn git(dir: &Path, args: &[&str]) -> String {
    let who = ["-c", "user.name=t", "-c", "user.email=t@t"];
    let out = Command::new("git")
        .current_dir(dir)
        .args(who)
        .args(["-c", "init.defaultBranch=main"])
        .args(args)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{args:?} {error}");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// A `build` of a repository over ssh, which is a shell on this machine; its stderr if it fails.
fn build_from(project: &Project, name: &str, place: &str) -> Result<(), String> {
    let out = project
        .host
        .command(&["build", "--network", "none", "-q", "-t", name, place])
        .env("GIT_SSH", ssh(project))
        .env("GIT_SSH_VARIANT", "simple")
        .output()
        .unwrap();
    match out.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

/// A program that git takes for ssh.
fn ssh(project: &Project) -> PathBuf {
    let ssh = project.host.path().join("ssh");
    fs::write(
        &ssh,
        "#!/bin/sh\nfor last; do :; done\nexec sh -c \"$last\"\n",
    )
    .unwrap();
    fs::set_permissions(&ssh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    ssh
}

/// A repository with two commits.
fn repository(project: &Project) -> String {
    let dir = project.host.path().join("repo");
    fs::create_dir(&dir).unwrap();
    let git = |args: &[&str]| git(&dir, args);
    git(&["init", "-q", "."]);
    fs::create_dir(dir.join("sub")).unwrap();
    fs::write(dir.join("Dockerfile"), "FROM busybox\nCOPY file /got\n").unwrap();
    fs::write(dir.join("file"), "main\n").unwrap();
    fs::write(
        dir.join("sub/Dockerfile"),
        "FROM busybox\nRUN echo sub > /got\n",
    )
    .unwrap();
    std::os::unix::fs::symlink("/etc", dir.join("out")).unwrap();
    git(&["add", "."]);
    git(&["commit", "-qm", "one"]);
    git(&["tag", "v1"]);
    fs::write(dir.join("file"), "later\n").unwrap();
    git(&["commit", "-qam", "two"]);
    dir.display().to_string()
}

/// J5 (CVE-2019-13139) too: what a fragment names is never a flag of git, nor outside.
#[test]
fn j5_repositories_are_contexts_and_sources() {
    let project = Project::new();
    let path = repository(&project);
    let url = format!("ssh://git@nowhere{path}");
    for (fragment, want) in [
        ("", "later"),
        ("#v1", "main"),
        ("#:sub", "sub"),
        ("#main:sub", "sub"),
    ] {
        let built = build_from(&project, "git", &format!("{url}{fragment}"));
        assert_eq!(built, Ok(()), "{fragment}");
        assert_eq!(project.sh("git", "cat /got"), want, "{fragment}");
    }
    let proof = project.host.path().join("proof");
    let touch = format!("touch {}", proof.display());
    for fragment in [
        "#:out".to_owned(),
        "#:../..".to_owned(),
        "#nosuch".to_owned(),
        format!("#--upload-pack={touch}"),
        format!("#-c core.sshCommand={touch}"),
    ] {
        let error = build_from(&project, "git", &format!("{url}{fragment}")).unwrap_err();
        assert!(error.starts_with("Error: "), "{error}");
        assert!(!proof.exists(), "{fragment}");
    }
    for place in [
        format!("ssh://-oProxyCommand={touch}/x.git"),
        format!("ext::sh -c {touch}"),
        format!("https://-u{touch}/x.git"),
    ] {
        build_from(&project, "git", &place).unwrap_err();
        assert!(!proof.exists(), "{place}");
    }
    let out = project
        .host
        .command(&["build", "--network", "none", "-q", "-t", "added", "-"])
        .env("GIT_SSH", ssh(&project))
        .env("GIT_SSH_VARIANT", "simple")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .map(|mut child| {
            let text = format!("FROM busybox\nADD {url}#v1 /src\n");
            child
                .stdin
                .take()
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
            child.wait().unwrap()
        });
    assert!(out.unwrap().success());
    assert_eq!(
        project.sh("added", "cat /src/file; ls -a /src | grep -c .git; true"),
        "main\n0"
    );
}

/// Makes `dir` a repository in which `lib` is a submodule: the repository `of`, found at `url`.
fn with_submodule(dir: &Path, of: &Path, url: &str) {
    let commit = git(of, &["rev-parse", "HEAD"]);
    let modules = format!("[submodule \"lib\"]\n\tpath = lib\n\turl = {url}\n");
    fs::write(dir.join(".gitmodules"), modules).unwrap();
    git(dir, &["init", "-q", "."]);
    git(dir, &["add", "."]);
    let entry = format!("160000,{commit},lib");
    git(dir, &["update-index", "--add", "--cacheinfo", &entry]);
    git(dir, &["commit", "-qm", "with a submodule"]);
}

/// J5: submodules come by https and ssh only, as Docker's, which BuildKit fetches by default.
#[test]
fn j5_submodules_come_with_a_repository_by_the_same_transports_only() {
    let project = Project::new();
    let dir = |name: &str| {
        let dir = project.host.path().join(name);
        fs::create_dir(&dir).unwrap();
        dir
    };
    let (inner, middle, outer) = (dir("inner"), dir("middle"), dir("outer"));
    fs::write(inner.join("file"), "inner\n").unwrap();
    git(&inner, &["init", "-q", "."]);
    git(&inner, &["add", "."]);
    git(&inner, &["commit", "-qm", "one"]);
    with_submodule(&middle, &inner, "../inner");
    let url = |dir: &Path| format!("ssh://git@nowhere{}", dir.display());
    let dockerfile = "FROM busybox\nCOPY lib/lib/file /got\n";
    fs::write(outer.join("Dockerfile"), dockerfile).unwrap();
    with_submodule(&outer, &middle, &url(&middle));
    assert_eq!(build_from(&project, "git", &url(&outer)), Ok(()));
    assert_eq!(project.sh("git", "cat /got"), "inner");
    let proof = project.host.path().join("proof");
    let attacks = [
        middle.display().to_string(),
        format!("file://{}", middle.display()),
        format!("ext::sh -c touch% {}", proof.display()),
        format!("-u./$(touch {})", proof.display()),
    ];
    for (number, attack) in attacks.iter().enumerate() {
        let dir = dir(&format!("attack{number}"));
        fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
        with_submodule(&dir, &middle, attack);
        let error = build_from(&project, "git", &url(&dir)).unwrap_err();
        assert!(error.starts_with("Error: "), "{error}");
        assert!(!proof.exists(), "{attack}");
    }
}

/// A server of one file that answers as often as it is asked.
pub fn serve(body: &'static [u8], headers: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
                body.len()
            );
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(body));
        }
    });
    format!("http://{address}")
}

#[test]
fn add_fetches_and_checks_files_of_servers() {
    let project = Project::new();
    let url = serve(
        b"served\n",
        "Last-Modified: Sun, 09 Sep 2001 01:46:40 GMT\r\n",
    );
    let file = format!("FROM busybox\nADD {url}/dir/name.txt?x=y /d/\nADD {url}/other /renamed\n");
    project.build("added", &file, &[]).ok();
    assert_eq!(
        project.sh("added", "cat /d/name.txt /renamed"),
        "served\nserved"
    );
    let stat = project.sh("added", "stat -c '%a %u %Y' /d/name.txt");
    assert_eq!(stat, "600 0 1000000000");
    let digest = rdocker::store::digest::Digest::of(b"served\n").to_string();
    project
        .build(
            "added",
            &format!("FROM busybox\nADD --checksum={digest} {url}/f /f\n"),
            &[],
        )
        .ok();
    let wrong = rdocker::store::digest::Digest::of(b"other").to_string();
    let error = project
        .build(
            "added",
            &format!("FROM busybox\nADD --checksum={wrong} {url}/f /f\n"),
            &[],
        )
        .fails(1);
    assert!(error.contains("digest mismatch"), "{error}");
    let error = project
        .build("added", &format!("FROM busybox\nADD {url}/ /f\n"), &[])
        .fails(1);
    assert!(error.contains("cannot determine filename"), "{error}");
}

#[test]
fn add_unpacks_local_archives_unless_told_otherwise() {
    let project = Project::new();
    let file = "FROM busybox\nADD archive.tgz /x/\nADD --unpack=false archive.tgz /y/\nADD --chown=5:6 arch*.tgz /z\n";
    project.build("unpacked", file, &[]).ok();
    assert_eq!(
        project.sh("unpacked", "stat -c %u:%g /x/sub/c.txt /z/sub/c.txt; ls /y"),
        "7:8\n5:6\narchive.tgz"
    );
}

#[test]
fn named_contexts_stand_for_stages_and_images() {
    let project = Project::new();
    let other = project.host.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("f"), "named\n").unwrap();
    let named = format!("extra={}", other.display());
    let file =
        "FROM base\nCOPY --from=extra f /f\nRUN --mount=type=bind,from=extra,target=/m cat /m/f\n";
    let flags = [
        "--build-context",
        &named,
        "--build-context",
        "base=docker-image://busybox",
    ];
    let out = project.build("named", file, &flags).ok();
    assert!(out.lines().any(|line| line == "named"), "{out}");
}
