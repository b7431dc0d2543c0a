//! rdocker beside Docker: the same command lines, the same answers.
//!
//! What is typed is in `compare.commands`. What cannot be equal is made so first: ids, times, and
//! who is speaking ("Error response from daemon: ").

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use clients::{Machine, Output, report};

const COMMANDS: &str = include_str!("compare.commands");

/// Written to both machines; a script's output goes through it.
const NORMAL: &str = r#"
/^hint: /d
/^(See|Run|Learn more) /d
/^(Usage:|Options:|Examples:|Aliases:)/,$d
/^ *$/d
s/rdocker/docker/g
s/^time="[^"]*" //
s/^((Error response from daemon|docker|Error|error during connect): )+//
s/[0-9a-f]{64}/ID64/g
s/\b[0-9a-f]{12}\b/ID12/g
s/(Less than a second|About an? [a-z]+|[0-9]+ [a-z]+s?) ago/AGO/g
s/Up (Less than a second|About an? [a-z]+|[0-9]+ [a-z]+s?)/Up TIME/g
s/   +/   /g
s/(OCI runtime (create|exec) failed|failed to create (shim task|task for container)): //g
s/keel (create|run) failed: //
s/^no such image: [^:]*: //
s/[. ]+$//
s/: unknown$//
/error waiting for container/d
s/requires exactly/requires/
s/^"(docker[^"]*)" (requires|accepts)/'\1' \2/
s/repository name \([^)]*\) must/repository name must/
s/^(No such image: [^:]*):latest$/\1/
s/^(.)/\l\1/
s/: ([A-Z][a-z]+ ID64)/: \l\1/
"#;

struct Line {
    script: &'static str,
    /// Why the answers differ.
    reason: Option<&'static str>,
}

/// Whether docker is older than the client that rdocker follows.
fn is_old() -> bool {
    let version = Machine::start().sh("docker --version").succeeds();
    let major = version.split([' ', '.']).find_map(|word| word.parse().ok());
    major.is_none_or(|major: u32| major < 28)
}

fn lines(is_old: bool) -> Vec<Line> {
    let (mut lines, mut comment) = (Vec::new(), "");
    for text in COMMANDS.lines().filter(|text| !text.is_empty()) {
        if let Some(text) = text.strip_prefix("# ") {
            comment = text;
        } else if let Some(script) = text.strip_prefix("! ") {
            let reason = Some(comment);
            lines.push(Line { script, reason });
        } else if let Some(script) = text.strip_prefix("? ") {
            let reason = is_old.then_some("an older client");
            lines.push(Line { script, reason });
        } else if !text.starts_with('#') {
            let (script, reason) = (text, None);
            lines.push(Line { script, reason });
        }
    }
    lines
}

/// Types every line, and gives what came of each.
fn type_all(machine: &Machine, lines: &[Line]) -> Vec<Output> {
    machine.write("/run/normal.sed", NORMAL);
    let import = "docker import -c 'ENV PATH=/bin' -c 'CMD [\"sh\"]' /run/image.tar busybox";
    let _ = machine.sh(import).succeeds();
    let answer = |line: &Line| {
        let script = line.script.replace('\'', "'\\''");
        machine.sh(&format!(
            "export C=\"--cgroup-parent /$TOKEN\" R=\"--cgroup-parent /$TOKEN --network none\"\n\
             timeout 20 bash -c '{script}' 2>&1 | sed -E -f /run/normal.sed\n\
             exit ${{PIPESTATUS[0]}}"
        ))
    };
    let answers = lines.iter().map(answer).collect();
    let _ = machine.sh("docker ps -aq | xargs -r docker rm -f");
    answers
}

fn dockers(lines: &[Line]) -> Vec<Output> {
    let machine = Machine::start();
    machine.write_files_of("docker");
    machine.daemon(
        "dockerd",
        "dockerd --default-cgroupns-mode host",
        "docker info",
    );
    type_all(&machine, lines)
}

fn rdockers(lines: &[Line]) -> Vec<Output> {
    let machine = Machine::start();
    let own = machine.path("/usr/local/bin/docker");
    // It may be a link to a program that everybody uses.
    let _ = fs::remove_file(&own);
    fs::copy(clients::beside("rdocker"), &own).expect("cargo build --workspace");
    // No overlay can be the upper layer of another.
    let mount = "mkdir -p /var/lib/rdocker && mount -t tmpfs -o mode=700 tmpfs /var/lib/rdocker";
    let _ = machine.sh(mount).succeeds();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).expect("it was just made");
    type_all(&machine, lines)
}

#[test]
fn rdocker_answers_as_docker_does() {
    if clients::is_runc() {
        return;
    }
    let lines = lines(is_old());
    let (theirs, ours) = thread::scope(|scope| {
        let theirs = scope.spawn(|| dockers(&lines));
        let ours = rdockers(&lines);
        (theirs.join().expect("dockerd works"), ours)
    });
    let (mut failures, mut differ) = (String::new(), 0);
    for ((line, theirs), ours) in lines.iter().zip(&theirs).zip(&ours) {
        if (theirs.code, &theirs.text) == (ours.code, &ours.text) {
            continue;
        }
        match line.reason {
            Some(_) => differ += 1,
            None => {
                failures += &format!("$ {}\nDocker:\n{theirs}\nrdocker:\n{ours}\n\n", line.script);
            }
        }
    }
    report(&format!(
        "rdocker as docker: {} command lines, {} answered alike, {differ} not, with a reason\n",
        lines.len(),
        lines.len() - differ - failures.matches("\nDocker:\n").count(),
    ));
    assert!(failures.is_empty(), "\n{failures}");
}
