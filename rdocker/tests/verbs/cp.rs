use std::fs;
use std::os::unix::fs::symlink;

use crate::host::TestHost;

#[test]
fn files_and_directories_go_in_and_out() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "up"], &["sleep", "100"])
        .ok();
    host.run(&["create", "--name", "down", "--network", "none", "busybox"])
        .ok();
    let dir = host.path().join("src");
    fs::create_dir_all(dir.join("sub")).unwrap();
    fs::write(dir.join("sub/f"), "text\n").unwrap();
    let path = |name: &str| host.path().join(name).display().to_string();
    for name in ["up", "down"] {
        let inside = |target: &str| format!("{name}:{target}");
        host.run(&["cp", &path("src"), &inside("/tmp")]).ok();
        host.run(&["cp", &path("src/sub/f"), &inside("/named")])
            .ok();
        host.run(&["cp", &path("src/."), &inside("/root")]).ok();
        for (from, to) in [
            ("/tmp/src/sub/f", "a"),
            ("/named", "b"),
            ("/root/sub/f", "c"),
        ] {
            let to = path(&format!("{name}-{to}"));
            host.run(&["cp", &inside(from), &to]).ok();
            assert_eq!(fs::read_to_string(&to).unwrap(), "text\n", "{name}:{from}");
        }
        let why = host.run(&["cp", &inside("/absent"), &path("x")]).fails(1);
        assert!(why.contains("Could not find the file /absent"), "{why}");
    }
}

#[test]
fn a_link_in_the_container_never_leads_to_the_host() {
    let host = TestHost::new();
    let secret = host.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "host\n").unwrap();
    let script = format!("mkdir /evil; cd /evil; ln -s {} out", secret.display());
    host.busybox(
        &["--name", "box"],
        &[
            "/bin/busybox",
            "sh",
            "-c",
            &script.replace("ln", "/bin/busybox ln"),
        ],
    )
    .ok();
    let target = host.path().join("got").display().to_string();
    let why = host.run(&["cp", "box:/evil/out/key", &target]).fails(1);
    assert!(why.contains("Could not find the file"), "{why}");
    fs::write(host.path().join("new"), "new\n").unwrap();
    let new = host.path().join("new").display().to_string();
    let _ = host.run(&["cp", &new, "box:/evil/out/planted"]).fails(1);
    assert_eq!(fs::read_dir(&secret).unwrap().count(), 1);
    // The control: on the host itself the same link is followed.
    symlink(&secret, host.path().join("out")).unwrap();
    assert!(host.path().join("out/key").exists());
}

#[test]
fn a_tar_stream_goes_both_ways() {
    let host = TestHost::new();
    host.busybox(&["-d", "--name", "box"], &["sleep", "100"])
        .ok();
    let archive = host
        .command(&["cp", "box:/etc/passwd", "-"])
        .output()
        .unwrap()
        .stdout;
    let _ = host.run_with(&["cp", "-", "box:/tmp"], &archive).ok();
    assert!(
        host.run(&["exec", "box", "cat", "/tmp/passwd"])
            .ok()
            .starts_with("root:")
    );
}
