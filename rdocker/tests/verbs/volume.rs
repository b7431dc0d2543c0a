use std::fs;

use crate::host::{TestHost, eventually};

impl TestHost {
    /// Whether something is mounted on a volume's directory.
    fn mounts_volume(&self, name: &str) -> bool {
        let dir = self.path().join("data/volumes").join(name).join("_data");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        points.any(|point| point == dir.to_str().unwrap())
    }
}

#[test]
fn a_volumes_file_system_is_there_from_its_first_user_to_its_last() {
    let host = TestHost::new();
    let tmpfs = ["-o", "type=tmpfs", "-o", "device=tmpfs"];
    let more = ["-o", "o=size=1m,uid=33,noexec", "cache"];
    host.run(&[&["volume", "create"], &tmpfs[..], &more].concat())
        .ok();
    assert_eq!(
        host.inspect("cache", "{{.Options.o}}"),
        "size=1m,uid=33,noexec"
    );
    assert!(!host.mounts_volume("cache"));
    let flags = |name| ["-d", "--name", name, "-v", "cache:/c"];
    host.busybox(&flags("one"), &["sleep", "100"]).ok();
    host.busybox(&flags("two"), &["sleep", "100"]).ok();
    host.run(&["exec", "one", "touch", "/c/shared"]).ok();
    let seen = host
        .run(&["exec", "two", "stat", "-c", "%n %s", "/c/shared"])
        .ok();
    assert_eq!(seen, "/c/shared 0");
    assert_eq!(
        host.run(&["exec", "two", "stat", "-c", "%u", "/c"]).ok(),
        "33"
    );
    let big = [
        "exec",
        "one",
        "sh",
        "-c",
        "head -c 2000000 /dev/zero > /c/big",
    ];
    assert_ne!(host.run(&big).fails(1), "", "the size is the volume's");
    host.run(&["rm", "-f", "one"]).ok();
    assert!(host.mounts_volume("cache"));
    // A monitor that is killed leaves the rest to whoever looks next.
    let monitor = host.monitor("two");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(monitor),
        nix::sys::signal::SIGKILL,
    )
    .unwrap();
    eventually("the notice", || {
        host.inspect("two", "{{.State.Status}}") == "exited"
    });
    assert!(!host.mounts_volume("cache"));
    assert!(
        host.run(&["volume", "rm", "cache"])
            .fails(1)
            .contains("in use")
    );
    host.run(&["start", "two"]).ok();
    assert!(host.mounts_volume("cache"));
    host.run(&["rm", "-f", "two"]).ok();
    assert!(!host.mounts_volume("cache"));
    host.run(&["volume", "rm", "cache"]).ok();
}

#[test]
fn a_bound_volume_is_removed_without_the_files_it_shows() {
    let host = TestHost::new();
    let source = host.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("kept"), "kept\n").unwrap();
    let mount = format!(
        "type=volume,src=bound,dst=/var/data,volume-driver=local,volume-opt=type=none,\
         volume-opt=device={},\"volume-opt=o=bind,ro\"",
        source.display()
    );
    let run = host.busybox(
        &["--name", "user", "--mount", &mount],
        &["cat", "/var/data/kept"],
    );
    assert_eq!(run.ok(), "kept");
    let again = host.busybox(&["--rm", "-v", "bound:/b"], &["touch", "/b/x"]);
    assert!(again.fails(1).contains("Read-only file system"));
    // As after a crash: nobody uses it, and it is mounted.
    let data = host.path().join("data/volumes/bound/_data");
    rustix::mount::mount_bind(&source, &data).unwrap();
    host.run(&["rm", "user"]).ok();
    let out = host.run(&["volume", "prune", "-af"]).ok();
    assert!(
        out.contains("bound") && out.ends_with("Total reclaimed space: 0B"),
        "{out}"
    );
    assert!(!data.exists() && !host.mounts_volume("bound"));
    assert_eq!(fs::read_to_string(source.join("kept")).unwrap(), "kept\n");
}

#[test]
fn options_that_no_volume_can_have_are_refused_and_leave_nothing() {
    let host = TestHost::new();
    let cases: &[(&[&str], &str)] = &[
        (&["-o", "foo=1"], "create nn: invalid option: \"foo\""),
        (
            &["-o", "type=nfs"],
            "create nn: missing required option: \"device\"",
        ),
        (&["-d", "nope"], "plugin"),
    ];
    for (flags, want) in cases {
        let why = host
            .run(&[&["volume", "create"], *flags, &["nn"]].concat())
            .fails(1);
        assert!(why.contains(want), "{flags:?}: {why}");
    }
    assert_eq!(host.run(&["volume", "ls", "-q"]).ok(), "");
    let bind = ["-o", "type=none", "-o", "o=bind", "-o", "device=/no/such"];
    host.run(&[&["volume", "create"], &bind[..], &["nn"]].concat())
        .ok();
    let why = host
        .busybox(&["--name", "cc", "-v", "nn:/n"], &["true"])
        .fails(127);
    assert!(
        why.contains("failed to mount local volume: mount /no/such:")
            && why.contains("flags: 0x1000"),
        "{why}"
    );
    assert!(!host.path().join("run/volumes/nn").exists());
    let why = host
        .busybox(&["--volume-driver", "nope", "-v", "oo:/n"], &["true"])
        .fails(125);
    assert!(why.contains("plugin \"nope\" not found"), "{why}");
}

#[test]
fn a_named_volume_outlives_its_container_and_read_only_is_kept() {
    let host = TestHost::new();
    host.busybox(&["--rm", "-v", "data:/d"], &["sh", "-c", "echo x > /d/f"])
        .ok();
    let done = host.busybox(
        &["--rm", "-v", "data:/d:ro"],
        &["sh", "-c", "cat /d/f; touch /d/g"],
    );
    assert_eq!(done.out, "x\n");
    assert!(done.fails(1).contains("Read-only file system"));
    assert_eq!(
        host.run(&["volume", "ls"]).ok(),
        "DRIVER    VOLUME NAME\nlocal     data"
    );
}

#[test]
fn an_empty_volume_gets_the_images_files_unless_nocopy() {
    let host = TestHost::new();
    assert_eq!(
        host.busybox(&["--rm", "-v", "/var/data"], &["ls", "/var/data"])
            .ok(),
        "from-image"
    );
    assert_eq!(
        host.busybox(&["--rm", "-v", "nn:/var/data:nocopy"], &["ls", "/var/data"])
            .ok(),
        ""
    );
}

#[test]
fn anonymous_volumes_go_with_the_container_and_named_ones_stay() {
    let host = TestHost::new();
    host.busybox(&["--rm", "-v", "/anon", "-v", "named:/n"], &["true"])
        .ok();
    assert_eq!(host.run(&["volume", "ls", "-q"]).ok(), "named");
}

#[test]
fn a_volume_in_use_is_not_removed() {
    let host = TestHost::new();
    let id = host
        .run(&["create", "--network", "none", "-v", "used:/u", "busybox"])
        .ok();
    let why = host.run(&["volume", "rm", "used"]).fails(1);
    assert!(why.contains(&format!("volume is in use - [{id}]")), "{why}");
    host.run(&["rm", &id]).ok();
    assert_eq!(host.run(&["volume", "rm", "used"]).ok(), "used");
    assert!(
        host.run(&["volume", "rm", "used"])
            .fails(1)
            .contains("get used: no such volume")
    );
}

#[test]
fn binds_mounts_and_volumes_from_show_the_same_files() {
    let host = TestHost::new();
    let dir = host.path().join("src");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("f"), "bind\n").unwrap();
    let bind = format!("{}:/b", dir.display());
    let mount = format!("type=bind,src={},dst=/m,readonly", dir.display());
    let out = host
        .busybox(
            &["--rm", "-v", &bind, "--mount", &mount],
            &["cat", "/b/f", "/m/f"],
        )
        .ok();
    assert_eq!(out, "bind\nbind");
    host.run(&[
        "create",
        "--name",
        "from",
        "--network",
        "none",
        "-v",
        &bind,
        "busybox",
    ])
    .ok();
    assert_eq!(
        host.busybox(&["--rm", "--volumes-from", "from"], &["cat", "/b/f"])
            .ok(),
        "bind"
    );
    let why = host
        .busybox(&["--mount", "type=bind,src=/absent,dst=/x"], &["true"])
        .fails(125);
    assert!(why.contains("bind source path does not exist"), "{why}");
}
