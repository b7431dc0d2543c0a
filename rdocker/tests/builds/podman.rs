//! Dockerfiles whose image podman's builder makes too: the same configuration, the same files.
//!
//! What podman 4.3 (buildah 1.28) does not know is written a second time without it, and podman
//! builds that. Differences that stay:
//!
//! - podman leaves what its own containers had mounted: `/dev`, `/proc`, `/run`, `/sys`,
//!   `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`. They are not compared.
//! - History and times: one entry is written for one instruction here, as Docker writes them.
//! - `WORKDIR` below a `USER` belongs to that user here, as in BuildKit, and to root in podman.
//! - podman adds `io.buildah.version` to the labels.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rdocker::image::tar::Reader;
use serde_json::{Value, json};

use crate::project::Project;

/// A Dockerfile, the flags of `build`, and what podman builds instead (empty: the same).
struct Case {
    name: &'static str,
    file: &'static str,
    flags: &'static [&'static str],
    instead: &'static str,
}

const fn case(name: &'static str, file: &'static str) -> Case {
    Case {
        name,
        file,
        flags: &[],
        instead: "",
    }
}

const fn with(name: &'static str, flags: &'static [&'static str], file: &'static str) -> Case {
    Case {
        name,
        file,
        flags,
        instead: "",
    }
}

const fn newer(name: &'static str, file: &'static str, instead: &'static str) -> Case {
    Case {
        name,
        file,
        flags: &[],
        instead,
    }
}

const CASES: &[Case] = &[
    case("empty", "FROM busybox\n"),
    case("cmd exec", "FROM busybox\nCMD [\"cat\", \"/x\"]"),
    case("cmd shell", "FROM busybox\nCMD echo $HOME \"a b\""),
    case("cmd not json", "FROM busybox\nCMD ['a', 'b']"),
    case(
        "entrypoint drops the old cmd",
        "FROM busybox\nENTRYPOINT [\"/bin/echo\"]",
    ),
    case(
        "cmd before entrypoint",
        "FROM busybox\nCMD [\"x\"]\nENTRYPOINT [\"/bin/echo\", \"y\"]",
    ),
    case(
        "env forms",
        "FROM busybox\nENV A=1 B=\"two words\" C=three\\ words\nENV OLD some old value\nENV A=${B}-$C",
    ),
    case(
        "env sees the line before",
        "FROM busybox\nENV X=old\nENV X=new Y=$X",
    ),
    case(
        "env modifiers",
        "FROM busybox\nENV S= D=${U:-dd} E=${D:+ee} F=${S:-ff} G=\\$D H='$D'",
    ),
    case(
        "label",
        "FROM busybox\nLABEL a=1 \"b.c\"=\"x y\"\nLABEL a=2 multi=\"x\\\ny\"",
    ),
    case("expose", "FROM busybox\nARG P=90\nEXPOSE 80 $P/udp 443/tcp"),
    case("volume", "FROM busybox\nVOLUME /v1 /v2\nVOLUME [\"/v 3\"]"),
    case("user", "FROM busybox\nUSER web:web"),
    case("user of a variable", "FROM busybox\nENV U=33\nUSER $U"),
    case(
        "workdir",
        "FROM busybox\nWORKDIR /a\nWORKDIR b\nWORKDIR ../c/./d\nRUN pwd > /pwd",
    ),
    case("stopsignal", "FROM busybox\nSTOPSIGNAL SIGINT"),
    case(
        "shell",
        "FROM busybox\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN echo x > /x\nCMD echo y",
    ),
    case(
        "healthcheck",
        "FROM busybox\nHEALTHCHECK --interval=5m --timeout=3s --retries=2 --start-period=1s CMD cat /x || exit 1",
    ),
    case("healthcheck none", "FROM busybox\nHEALTHCHECK NONE"),
    case("maintainer", "FROM busybox\nMAINTAINER Barry Song<x@y"),
    case(
        "onbuild",
        "FROM busybox AS p\nONBUILD RUN echo x > /x\nONBUILD ENV A=b\n",
    ),
    case(
        "run forms",
        "FROM busybox\nRUN echo a > /a && \\\n  # between\n\n  echo b > /b\nRUN [\"/bin/sh\", \"-c\", \"echo $0 > /c\", \"arg\"]",
    ),
    case(
        "run as a user",
        "FROM busybox\nRUN mkdir /mine && chown web /mine\nUSER web\nRUN id > /mine/id",
    ),
    case(
        "run changes and deletes",
        "FROM busybox\nRUN rm /etc/group && chmod 700 /root && rm -r /var/data && mkdir /var/data && echo x > /var/data/new",
    ),
    case(
        "run links and nodes",
        "FROM busybox\nRUN ln -s /etc l && ln /etc/passwd hard && mkfifo p && chmod 4755 /bin/busybox",
    ),
    case(
        "arg default",
        "FROM busybox\nARG A=1\nARG B=${A}2\nRUN echo $A $B > /args",
    ),
    with(
        "arg given",
        &["--build-arg", "A=given"],
        "FROM busybox\nARG A=1\nRUN echo $A > /a",
    ),
    case(
        "env over arg",
        "FROM busybox\nARG A=arg\nENV A=env\nRUN echo $A > /a",
    ),
    case(
        "arg before from",
        "ARG B=busybox\nARG L=x\nFROM $B\nARG L\nLABEL l=$L",
    ),
    case(
        "copy a file",
        "FROM busybox\nCOPY a.txt /a\nCOPY b.txt /dir/\nCOPY a.txt b.txt /two/",
    ),
    case(
        "copy into a directory that is there",
        "FROM busybox\nCOPY a.txt /etc",
    ),
    case(
        "copy a directory",
        "FROM busybox\nCOPY sub /sub\nCOPY sub /in/deep/er/\nCOPY empty /empty",
    ),
    case("copy everything", "FROM busybox\nCOPY . /all"),
    case(
        "copy patterns",
        "FROM busybox\nCOPY *.txt /t/\nCOPY s?b/c* /c/\nCOPY [ab].txt /ab/",
    ),
    case(
        "copy json",
        "FROM busybox\nCOPY [\"with space.txt\", \"/sp ace\"]",
    ),
    case(
        "copy follows the link that it names",
        "FROM busybox\nCOPY link /l\nCOPY dirlink /d",
    ),
    case(
        "copy modes and hard links",
        "FROM busybox\nCOPY run.sh /bin/run\nCOPY sub/hard-a sub/hard-b /h/",
    ),
    case(
        "copy to a workdir",
        "FROM busybox\nWORKDIR /w\nCOPY a.txt .\nCOPY b.txt ./x/\nENV D=dest\nCOPY a.txt $D/",
    ),
    case(
        "copy chown",
        "FROM busybox\nCOPY --chown=web:web a.txt /a\nCOPY --chown=5:6 sub /sub",
    ),
    case(
        "copy through a link of the image",
        "FROM busybox\nRUN ln -s /var/data /ln\nCOPY a.txt /ln/a",
    ),
    case(
        "copy over a file",
        "FROM busybox\nRUN echo old > /f && chmod 600 /f\nCOPY a.txt /f",
    ),
    case(
        "add an archive",
        "FROM busybox\nADD archive.tgz /x\nADD a.txt /a",
    ),
    case(
        "stages",
        "FROM busybox AS one\nRUN mkdir /o && echo 1 > /o/1 && chown 9:9 /o/1\nFROM busybox\nCOPY --from=one /o /o\nCOPY --from=0 /o/1 /1",
    ),
    case(
        "a stage from a stage",
        "FROM busybox AS one\nENV A=1\nRUN echo 1 > /1\nFROM one\nRUN echo $A > /2",
    ),
    case(
        "copy from an image",
        "FROM scratch\nCOPY --from=busybox /etc/passwd /p",
    ),
    case(
        "scratch",
        "FROM scratch\nCOPY a.txt /\nENV A=b\nCMD [\"/a.txt\"]",
    ),
    with(
        "target",
        &["--target", "one"],
        "FROM busybox AS one\nRUN echo 1 > /1\nFROM one AS two\nRUN false",
    ),
    newer(
        "copy chmod",
        "FROM busybox\nCOPY --chmod=751 a.txt /a",
        "FROM busybox\nCOPY a.txt /a\nRUN chmod 751 /a",
    ),
    newer(
        "heredoc",
        "FROM busybox\nRUN <<EOF\necho a > /a\necho b > /b\nEOF\n",
        "FROM busybox\nRUN echo a > /a; echo b > /b",
    ),
    newer(
        "heredoc file",
        "FROM busybox\nENV V=x\nCOPY <<one <<'two' /d/\n$V\none\n$V\ntwo\n",
        "FROM busybox\nENV V=x\nRUN mkdir /d; echo x > /d/one; echo '$V' > /d/two",
    ),
    newer(
        "heredoc script",
        "FROM busybox\nRUN <<EOF\n#!/bin/cat\nx\nEOF\nRUN cat <<A > /a && cat <<B > /b\n1\nA\n2\nB\n",
        "FROM busybox\nRUN echo 1 > /a; echo 2 > /b",
    ),
    newer(
        "link",
        "FROM busybox\nCOPY --link sub /s",
        "FROM busybox\nCOPY sub /s",
    ),
    newer(
        "parents",
        "FROM busybox\nCOPY --parents sub/deep/e.txt a.txt /p/",
        "FROM busybox\nCOPY sub/deep/e.txt /p/sub/deep/\nCOPY a.txt /p/",
    ),
    newer(
        "exclude",
        "FROM busybox\nCOPY --exclude=*.txt --exclude=deep --exclude=hard* sub /s",
        "FROM busybox\nRUN mkdir /s\nCOPY sub/up /x\nRUN rm /x && ln -s ../a.txt /s/up",
    ),
    newer(
        "mounts leave nothing",
        "FROM busybox\nRUN --mount=type=cache,target=/c/d --mount=type=tmpfs,target=/t --mount=type=bind,target=/b cp /b/a.txt /a && echo x > /c/d/x",
        "FROM busybox\nCOPY a.txt /a",
    ),
    newer(
        "patterns of variables",
        "FROM busybox\nENV F=a.tar.gz\nENV A=${F%.gz} B=${F##*.} C=${F/tar/zip}",
        "FROM busybox\nENV F=a.tar.gz\nENV A=a.tar B=gz C=a.zip.gz",
    ),
];

/// Where podman keeps its images for this test alone.
struct Podman {
    dir: PathBuf,
}

impl Podman {
    fn new(dir: &Path, base: &Path) -> Self {
        let podman = Self {
            dir: dir.to_owned(),
        };
        let base = base.display().to_string();
        podman.run(&[
            "import",
            "-c",
            "CMD [\"sh\"]",
            "-c",
            "ENV PATH=/bin",
            &base,
            "busybox",
        ]);
        podman
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(self.dir.join("root"))
            .arg("--runroot")
            .arg(self.dir.join("run"))
            .args(["--storage-driver", "vfs", "--log-level", "error"])
            .args(args);
        command
    }

    fn run(&self, args: &[&str]) -> String {
        let once = || self.command(args).output().unwrap();
        let stderr = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
        let mut output = once();
        // Podman executes a sealed copy of itself, which now and then it cannot seal: no word on the image.
        if stderr(&output).contains("sealing memfd copy") {
            output = once();
        }
        let text = stderr(&output);
        assert!(output.status.success(), "{args:?}: {text}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// One file as it is compared: kind, mode, owner, link, bytes.
type File = (String, u32, (u32, u32), String, Vec<u8>);

fn files(mut archive: impl Read) -> BTreeMap<String, File> {
    let mut reader = Reader::new(&mut archive);
    let mut files: BTreeMap<String, File> = BTreeMap::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let path = String::from_utf8(entry.path.clone()).unwrap();
        let path = path
            .trim_start_matches("./")
            .trim_end_matches('/')
            .to_owned();
        let ours = [
            "dev",
            "proc",
            "run",
            "sys",
            "etc/hosts",
            "etc/hostname",
            "etc/resolv.conf",
        ];
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        let is_mounted = ours
            .iter()
            .any(|name| path == *name || path.starts_with(&format!("{name}/")));
        if path.is_empty() || path == "." || is_mounted {
            continue;
        }
        let link = String::from_utf8(entry.link.clone()).unwrap();
        let link = link.trim_start_matches("./").to_owned();
        let mut file = (
            format!("{:?}", entry.kind),
            entry.mode,
            (entry.uid, entry.gid),
            link,
            bytes,
        );
        if file.0 == "Hardlink" {
            // Which of the names comes first is the archive's matter: compare what is behind.
            file = files[&file.3].clone();
        }
        if file.0 == "Symlink" {
            file.1 = 0o777;
        }
        files.insert(path, file);
    }
    files
}

/// What of a configuration both have, in one form.
fn config(value: &Value) -> Value {
    let config = &value["Config"];
    let or_empty = |key: &str, empty: Value| match &config[key] {
        Value::Null => empty,
        other => other.clone(),
    };
    let mut labels = or_empty("Labels", json!({}));
    if let Some(labels) = labels.as_object_mut() {
        labels.remove("io.buildah.version");
    }
    let health = match &config["Healthcheck"] {
        Value::Null => value["HealthCheck"].clone(),
        check => check.clone(),
    };
    json!({
        "Env": or_empty("Env", json!([])),
        "Cmd": or_empty("Cmd", json!([])),
        "Entrypoint": or_empty("Entrypoint", json!([])),
        "ExposedPorts": or_empty("ExposedPorts", json!({})),
        "Volumes": or_empty("Volumes", json!({})),
        "User": or_empty("User", json!("")),
        "WorkingDir": or_empty("WorkingDir", json!("")),
        "StopSignal": or_empty("StopSignal", json!("")),
        "OnBuild": or_empty("OnBuild", json!([])),
        "Labels": labels,
        "Healthcheck": health["Test"],
        "Interval": health["Interval"],
        "Author": value["Author"].as_str().unwrap_or_default(),
        "Architecture": value["Architecture"],
    })
}

struct Built {
    config: Value,
    files: BTreeMap<String, File>,
}

fn by_rdocker(project: &Project, case: &Case) -> Built {
    project.build("it", case.file, case.flags).ok();
    let json = project.host.run(&["inspect", "it"]).ok();
    let value: Value = serde_json::from_str(&json).unwrap();
    let tar = project.host.path().join("it.tar");
    let output = format!("type=tar,dest={}", tar.display());
    let mut flags = vec!["--output", output.as_str()];
    flags.extend(case.flags);
    project.build("it", case.file, &flags).ok();
    Built {
        config: config(&value[0]),
        files: files(fs::File::open(tar).unwrap()),
    }
}

fn by_podman(podman: &Podman, project: &Project, case: &Case, number: usize) -> Built {
    let text = if case.instead.is_empty() {
        case.file
    } else {
        case.instead
    };
    let file = podman.dir.join(format!("Dockerfile.{number}"));
    fs::write(&file, text).unwrap();
    let name = format!("it{number}");
    let file = file.display().to_string();
    let context = project.context().display().to_string();
    let mut args = vec![
        "build",
        "--layers=false",
        "--isolation",
        "chroot",
        "--network",
        "host",
        "--format",
        "docker",
        "--pull=never",
        "-q",
        "-t",
        &name,
        "-f",
        &file,
    ];
    args.extend(case.flags);
    args.push(&context);
    podman.run(&args);
    let value: Value = serde_json::from_str(&podman.run(&["image", "inspect", &name])).unwrap();
    let mounted = podman.run(&["image", "mount", &name]);
    let tar = Command::new("tar")
        .args(["-C", &mounted, "-cf", "-", "."])
        .output()
        .unwrap();
    podman.run(&["image", "unmount", &name]);
    Built {
        config: config(&value[0]),
        files: files(&tar.stdout[..]),
    }
}

#[test]
fn dockerfiles_give_the_image_that_podman_gives() {
    let project = Project::new();
    let podman = Podman::new(
        &project.host.path().join("podman"),
        &project.host.path().join("busybox.tar"),
    );
    assert!(CASES.len() >= 50);
    let mut different = Vec::new();
    std::thread::scope(|scope| {
        let theirs = scope.spawn(|| {
            let built = |(number, case)| by_podman(&podman, &project, case, number);
            CASES.iter().enumerate().map(built).collect::<Vec<_>>()
        });
        let ours: Vec<Built> = CASES
            .iter()
            .map(|case| by_rdocker(&project, case))
            .collect();
        for ((case, ours), theirs) in CASES.iter().zip(ours).zip(theirs.join().unwrap()) {
            different.extend(differences(case.name, &ours, &theirs));
        }
    });
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Case, key or path, and why podman has something else.
const KNOWN: &[(&str, &str, &str)] = &[
    (
        "volume",
        "v 3",
        "podman makes the directory of a volume in the image",
    ),
    (
        "shell",
        "Cmd",
        "podman 4.3 gives CMD to the default shell, not to that of SHELL",
    ),
    (
        "healthcheck",
        "Healthcheck",
        "podman's inspect does not show it here",
    ),
    (
        "healthcheck",
        "Interval",
        "podman's inspect does not show it here",
    ),
    (
        "healthcheck none",
        "Healthcheck",
        "podman's inspect does not show it here",
    ),
    (
        "onbuild",
        "OnBuild",
        "podman's inspect does not show it here",
    ),
    ("exclude", "s/d.md", "the text for podman does not copy it"),
];

fn differences(name: &str, ours: &Built, theirs: &Built) -> Vec<String> {
    let mut list = Vec::new();
    for (key, mine) in ours.config.as_object().unwrap() {
        if *mine != theirs.config[key] {
            list.push(format!(
                "{name}: {key}: {mine} here, {} in podman",
                theirs.config[key]
            ));
        }
    }
    for (path, mine) in &ours.files {
        match theirs.files.get(path) {
            None => list.push(format!("{name}: {path} is only here")),
            Some(other) if other != mine => {
                let short = |file: &File| {
                    format!(
                        "{} {:o} {:?} {:?} {} bytes",
                        file.0,
                        file.1,
                        file.2,
                        file.3,
                        file.4.len()
                    )
                };
                list.push(format!(
                    "{name}: {path}: {} here, {} in podman",
                    short(mine),
                    short(other)
                ));
            }
            Some(_) => {}
        }
    }
    let missing = theirs
        .files
        .keys()
        .filter(|path| !ours.files.contains_key(*path));
    list.extend(missing.map(|path| format!("{name}: {path} is only in podman")));
    list.retain(|line| {
        let known = |(case, what, _): &(&str, &str, &str)| {
            line.starts_with(&format!("{case}: {what}:"))
                || line.starts_with(&format!("{case}: {what} is"))
        };
        !KNOWN.iter().any(known)
    });
    list
}

/// A Dockerfile that both refuse, and what is said here.
const BAD: &[(&str, &str)] = &[
    ("", "file with no instructions"),
    ("RUN x", "no build stage in current context"),
    ("FROM busybox\n~\n", "line 2: unknown instruction: ~"),
    (
        "FORM busybox",
        "unknown instruction: FORM (did you mean FROM?)",
    ),
    (
        "FROM busybox\nCOPY nosuch /",
        "Dockerfile.test:2: COPY nosuch /: COPY failed: file not found",
    ),
    (
        "FROM busybox\nCOPY ignored.txt /",
        "excluded by .dockerignore",
    ),
    (
        "FROM busybox\nCOPY no*such /",
        "no source files were specified",
    ),
    (
        "FROM busybox\nCOPY a.txt",
        "requires at least two arguments",
    ),
    (
        "FROM busybox\nCOPY --from=7 a b",
        "invalid from flag value 7",
    ),
    (
        "FROM busybox\nCOPY --chown=nobody-here a.txt /a",
        "unable to find user nobody-here",
    ),
    (
        "FROM busybox\nUSER nobody-here\nRUN true",
        "unable to find user nobody-here",
    ),
    (
        "FROM busybox\nRUN exit 3",
        "The command '/bin/sh -c exit 3' returned a non-zero code: 3",
    ),
    (
        "FROM busybox\nRUN [\"/nosuch\"]",
        "Dockerfile.test:2: RUN [\"/nosuch\"]",
    ),
    ("FROM busybox\nEXPOSE seventy", "invalid port \"seventy\""),
    ("FROM busybox\nENV A", "ENV must have two arguments"),
    (
        "FROM busybox\nADD http://127.0.0.1:1/x /x",
        "fetch http://127.0.0.1:1/x",
    ),
    (
        "FROM busybox\nRUN --mount=type=bind,source=nosuch,target=/x true",
        "file not found",
    ),
    (
        "FROM localhost:1/nosuch",
        "Dockerfile.test:1: FROM localhost:1/nosuch",
    ),
    ("FROM busybox\nCOPY a.txt /etc/passwd/x", "not a directory"),
    (
        "FROM busybox\nSHELL sh",
        "SHELL requires the arguments to be in JSON form",
    ),
];

#[test]
fn bad_dockerfiles_are_refused_with_their_line_and_leave_nothing() {
    let project = Project::new();
    for (file, want) in BAD {
        let done = project.build("bad", file, &[]);
        assert_ne!(done.code, 0, "{file}");
        assert!(
            done.err.to_lowercase().contains(&want.to_lowercase()),
            "{file}: {}",
            done.err
        );
        let errors = done
            .err
            .lines()
            .filter(|line| line.starts_with("Error: "))
            .count();
        assert_eq!(errors, 1, "{file}: {}", done.err);
        project.host.run(&["inspect", "bad"]).fails(1);
    }
    let left = |dir: &str| fs::read_dir(project.host.path().join(dir)).unwrap().count();
    assert_eq!((left("data/tmp"), left("run/build")), (0, 0));
}
