//! Images that were made to reach the host: what their files and values may not do, and for each a
//! control that shows the attack at work where nothing is in its way.
//!
//! The names are those of `docs/security.md`; H1, H3, H4, H6, H7 and H8 are
//! about archives, in `unpack_attacks.rs`. `KEEL_SOAK=full` runs the race 10,000 times.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rdocker::image::platform::Platform;
use rdocker::store::digest::Digest;

use crate::host::{TestHost, busybox_tar, eventually};

/// A directory of the host's that must stay as it is.
fn canary(host: &TestHost) -> PathBuf {
    let dir = host.path().join("canary");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("secret"), "of the host").unwrap();
    dir
}

fn is_unharmed(canary: &Path) -> bool {
    let names = fs::read_dir(canary).unwrap().count();
    names == 1 && fs::read_to_string(canary.join("secret")).unwrap() == "of the host"
}

/// Imports busybox with what `change` does to its root, and with instructions.
fn image(host: &TestHost, name: &str, change: impl FnOnce(&Path), instructions: &[&str]) {
    let dir = host.path().join(name);
    fs::create_dir(&dir).unwrap();
    busybox_tar(&dir);
    change(&dir.join("rootfs"));
    let tar = dir.join("changed.tar");
    let made = Command::new("tar")
        .arg("-C")
        .arg(dir.join("rootfs"))
        .arg("-cf")
        .arg(&tar)
        .arg(".")
        .status();
    assert!(made.unwrap().success());
    let mut args = vec!["import"];
    for instruction in instructions {
        args.extend(["-c", instruction]);
    }
    args.extend([tar.to_str().unwrap(), name]);
    host.run(&args).ok();
}

#[test]
fn h5_a_device_of_an_image_opens_nothing() {
    let host = TestHost::new();
    let node = |root: &Path| {
        // /dev/kmsg, which a container has not.
        let device = makedev(1, 11);
        mknod(
            &root.join("kmsg"),
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o666),
            device,
        )
        .unwrap();
    };
    image(&host, "devices", node, &[]);
    let read = ["run", "--rm", "--network", "none"];
    let command = ["devices", "sh", "-c", "exec 3</kmsg && echo open"];
    let denied = host.run(&[&read[..], &command].concat());
    assert_ne!(denied.code, 0);
    assert!(
        denied.err.contains("Operation not permitted"),
        "{}",
        denied.err
    );
    let allowed = host.run(&[&read[..], &["--privileged"], &command].concat());
    assert_eq!(allowed.ok(), "open", "control");
}

#[test]
fn h2_and_h6_other_users_reach_nothing_of_the_store() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "web"], &["sleep", "100"])
        .ok();
    fs::set_permissions(host.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let seen = |dir: &Path| {
        let find = Command::new("setpriv")
            .args([
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                "find",
            ])
            .arg(dir)
            .args(["-type", "f", "-readable"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&find.stdout).lines().count()
    };
    assert_eq!(seen(&host.path().join("data")), 0);
    assert_eq!(seen(&host.path().join("run")), 0);
    assert!(seen(&host.path().join("rootfs")) > 0, "control");
}

#[test]
fn h9_copies_do_not_follow_what_the_container_swaps_meanwhile() {
    let host = TestHost::new();
    let canary = canary(&host);
    let script = format!(
        "while :; do rm -rf /x; mkdir /x; rm -rf /x; ln -s {} /x; done",
        canary.display()
    );
    host.busybox(&["-d", "--name", "racer"], &["sh", "-c", &script])
        .ok();
    let source = host.path().join("copied");
    fs::write(&source, "into the container").unwrap();
    let source = source.to_str().unwrap();
    let full = std::env::var("KEEL_SOAK").is_ok_and(|size| size == "full");
    let into = host.path().join("out");
    for _ in 0..if full { 10_000 } else { 30 } {
        // Either may fail: the target changes under it.
        let _ = host.run(&["cp", source, "racer:/x/planted"]);
        let _ = host.run(&["cp", "racer:/x/secret", into.to_str().unwrap()]);
        assert!(is_unharmed(&canary));
        assert!(!into.exists(), "a secret of the host came out");
    }
    let pid = host.inspect("racer", "{{.State.Pid}}");
    let naive = PathBuf::from(format!("/proc/{pid}/root/x/planted"));
    let planted = || {
        let _ = fs::write(&naive, "by path");
        !is_unharmed(&canary)
    };
    eventually("the control", planted);
}

#[test]
fn h10_files_of_an_image_that_never_end_do_not_hang_a_start() {
    let host = TestHost::new();
    let fifo = |root: &Path| {
        for name in ["passwd", "group"] {
            let path = root.join("etc").join(name);
            fs::remove_file(&path).unwrap();
            nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o644)).unwrap();
        }
    };
    image(&host, "fifos", fifo, &["USER web"]);
    let begun = Instant::now();
    let run = host.run(&["run", "--rm", "--network", "none", "fifos", "true"]);
    assert_eq!(run.code, 125, "{}", run.err);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let fifo = host.path().join("fifos/rootfs/etc/passwd");
    let naive = Command::new("timeout")
        .arg("1")
        .arg("cat")
        .arg(fifo)
        .status();
    assert_eq!(naive.unwrap().code(), Some(124), "control");
}

/// Loads busybox under this name with a configuration that `import` would refuse.
fn archived(host: &TestHost, name: &str, config: serde_json::Value) -> crate::host::Done {
    let dir = host.path().join(name);
    fs::create_dir(&dir).unwrap();
    fs::rename(busybox_tar(&dir), dir.join("layer.tar")).unwrap();
    let layer = Digest::of(&fs::read(dir.join("layer.tar")).unwrap());
    let config = serde_json::json!({
        "architecture": Platform::host().architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    });
    let manifest =
        format!(r#"[{{"Config":"config.json","RepoTags":["{name}:1"],"Layers":["layer.tar"]}}]"#);
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    fs::write(dir.join("manifest.json"), manifest).unwrap();
    let tar = dir.join("odd.tar").display().to_string();
    let made = Command::new("tar")
        .current_dir(&dir)
        .args(["-cf", &tar, "manifest.json", "config.json", "layer.tar"])
        .status();
    assert!(made.unwrap().success());
    host.run(&["load", "-i", &tar])
}

/// A stop signal that `import` refuses may still come in an archive.
#[test]
fn an_image_with_a_stop_signal_that_nobody_knows_is_stopped_by_sigterm() {
    let host = TestHost::new();
    let config = serde_json::json!({"Env": ["PATH=/bin"], "StopSignal": "NONSENSE"});
    archived(&host, "odd", config).ok();
    let polite = "trap 'exit 4' TERM; touch /ready; while true; do sleep 0.1; done";
    let flags = ["run", "-d", "--network", "none", "--name", "web", "odd:1"];
    host.run(&[&flags[..], &["sh", "-c", polite]].concat()).ok();
    eventually("the trap", || {
        host.run(&["exec", "web", "test", "-e", "/ready"]).code == 0
    });
    host.run(&["stop", "-t", "5", "web"]).ok();
    assert_eq!(host.inspect("web", "{{.State.ExitCode}}"), "4");
}

#[test]
fn k8_what_a_container_writes_forges_no_line_of_its_log_and_no_key_of_a_terminal() {
    let host = TestHost::new();
    let forged = r#"{"log":"forged\n","stream":"stderr"}"#;
    let script = r#"printf '\r\n%s\n\377\033[2J\n' "$1""#;
    let name = "a=\u{1b}[2J";
    let flags = ["--name", "web", "--label", name];
    host.busybox(&flags, &["sh", "-c", script, "sh", forged])
        .ok();
    let log = fs::read_to_string(host.inspect("web", "{{.LogPath}}")).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3, "{log}");
    assert!(lines.iter().all(|line| line["stream"] == "stdout"), "{log}");
    assert_eq!(lines[1]["log"], format!("{forged}\n"));
    let labels = ["ps", "-a", "--format", "{{.Labels}}"];
    let shown = host.run(&labels).ok();
    assert!(
        shown.contains("[2J") && !shown.contains('\u{1b}'),
        "{shown:?}"
    );
    // A log that kept lines as they are would have that line, and the label has the key.
    assert!(
        serde_json::from_str::<serde_json::Value>(forged).is_ok(),
        "control"
    );
    let kept = host.inspect("web", "{{json .Config.Labels}}");
    assert!(kept.contains("u001b"), "control: {kept}");
}

#[test]
fn k9_names_and_sizes_in_an_image_take_nothing_from_the_host() {
    let host = TestHost::new();
    // SECRET is in our own environment, PATH in everybody's.
    let env = ["A=1", "SECRET", "PATH", "=x", "*", "NUL=a\0b", "B=", "C==c"];
    archived(&host, "odd", serde_json::json!({ "Env": env })).ok();
    let run = |args: &[&str]| {
        let mut command = host.command(&["run", "--rm", "--network", "none"]);
        let output = command.env("SECRET", "of the host").args(args).output();
        let output = output.unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect();
        lines.retain(|line| !line.starts_with("HOSTNAME=") && !line.starts_with("HOME="));
        lines.sort();
        lines
    };
    let path = format!("PATH={}", rdocker::container::merge::DEFAULT_PATH);
    let clean = ["A=1", "B=", "C==c", &path];
    assert_eq!(run(&["odd:1", "env"]), clean);
    let given = run(&["-e", "SECRET", "odd:1", "env"]);
    assert!(given.contains(&"SECRET=of the host".to_owned()), "control");
    let file = "FROM odd:1\nRUN env | grep -v -e HOSTNAME= -e HOME= > /env\n";
    let build = ["build", "--network", "none", "-q", "-t", "built", "-"];
    host.run_with(&build, file.as_bytes()).ok();
    let built = run(&["built", "cat", "/env"]);
    assert!(!built.iter().any(|line| line.starts_with("SECRET")));
    assert!(built.contains(&"A=1".to_owned()), "control: {built:?}");
    // A megabyte of values is an image's whole right.
    let labels = |size: usize| serde_json::json!({"Labels": {"l": "x".repeat(size)}});
    let why = archived(&host, "large", labels(1 << 20)).fails(1);
    assert!(why.contains("labels are larger than 1 MiB"), "{why}");
    archived(&host, "fits", labels((1 << 20) - 1)).ok();
}

#[test]
fn k12_what_a_check_says_is_bounded() {
    let host = TestHost::new();
    let check = "echo begin; yes | head -c 100000";
    let flags = ["-d", "--name", "web", "--health-interval", "100ms"];
    let health = ["--health-cmd", check];
    host.busybox(&[&flags[..], &health].concat(), &["sleep", "100"])
        .ok();
    eventually("a check", || {
        host.inspect("web", "{{.State.Health.Status}}") == "healthy"
    });
    let said = "{{len (index .State.Health.Log 0).Output}}";
    assert_eq!(host.inspect("web", said), "4096");
    let begin = "{{slice (index .State.Health.Log 0).Output 0 5}}";
    assert_eq!(host.inspect("web", begin), "begin");
    assert_eq!(
        host.run(&["exec", "web", "sh", "-c", check]).out.len(),
        100_006,
        "control"
    );
}

#[test]
fn values_of_an_image_decide_nothing_on_the_host() {
    let host = TestHost::new();
    let canary = canary(&host);
    let to_the_host = |root: &Path| {
        for name in ["srv", "data"] {
            symlink(&canary, root.join(name)).unwrap();
        }
    };
    let instructions = [
        "WORKDIR /srv/made",
        "VOLUME /data",
        "ENV PATH=/bin LD_PRELOAD=/evil.so",
        "LABEL rdocker.network=host",
        "HEALTHCHECK --interval=100ms CMD touch /checked",
    ];
    image(&host, "values", to_the_host, &instructions);
    // In the container the link leads nowhere.
    host.run(&["run", "--rm", "--network", "none", "values", "true"])
        .fails(125);
    assert!(is_unharmed(&canary));
    let flags = ["run", "-d", "--network", "none", "-w", "/", "--name", "web"];
    let run = host.run(&[&flags[..], &["values", "sleep", "100"]].concat());
    run.ok();
    assert_eq!(host.run(&["exec", "web", "ls", "/data"]).ok(), "");
    eventually("a check in the container", || {
        host.run(&["exec", "web", "test", "-e", "/checked"]).code == 0
    });
    assert!(!Path::new("/checked").exists());
    assert!(is_unharmed(&canary));
    let mode = host.inspect("web", "{{.HostConfig.NetworkMode}}");
    assert_eq!(mode, "none");
    host.run(&["stop", "-t", "1", "web"]).ok();
    // By path, the same link leads to the host.
    fs::create_dir(host.path().join("values/rootfs/srv/made")).unwrap();
    assert!(!is_unharmed(&canary), "control");
}
