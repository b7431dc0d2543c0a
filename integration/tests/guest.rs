//! What only the test guest has to play with: systemd, delegation, swap, huge pages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration::{Bundle, Call, Container, Runtime, USER, by_version, is_v2, proc, wait_for};
use nix::unistd::{Gid, Uid, chown};
use serde_json::{Value, json};

/// True, said and counted, outside the guest: these tests change users and units of the machine.
fn outside_the_guest(runtime: &Runtime) -> bool {
    let is_there =
        std::env::var_os("KEEL_MUST_RUN").is_some() && Path::new("/run/systemd/private").exists();
    runtime.host_lacks(
        "systemd and cgroup v2 to play with (the test guest)",
        !is_there,
    )
}

/// Runs a command of the host; its output.
fn host(words: &[&str]) -> String {
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .expect("it is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {error}");
    text
}

/// A bundle for a scope `kt-ID.scope` in `system.slice`.
fn scoped(runtime: &Runtime, resources: Value) -> Bundle {
    let mut bundle = runtime.bundle();
    let path = format!("system.slice:kt:{}", bundle.id());
    bundle
        .set("/linux/cgroupsPath", path)
        .set("/linux/resources", resources)
        .sleeper();
    bundle
}

fn start<'r>(runtime: &'r Runtime, bundle: &Bundle) -> Container<'r> {
    let container =
        Container::create_with(runtime, bundle, |call| call.global(&["--systemd-cgroup"]));
    container.start();
    container
}

fn scope(container: &Container<'_>) -> String {
    format!("kt-{}.scope", container.id())
}

fn read(container: &Container<'_>, file: &str) -> String {
    let controller = file.split('.').next().expect("CONTROLLER.FILE");
    let path = Path::new("/sys/fs/cgroup")
        .join(by_version(controller, ""))
        .join("system.slice")
        .join(scope(container))
        .join(file);
    let text = fs::read_to_string(&path);
    text.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .trim()
        .to_owned()
}

fn shown(container: &Container<'_>, property: &str) -> String {
    host(&["systemctl", "show", "-P", property, &scope(container)])
        .trim()
        .to_owned()
}

#[test]
fn a_scope_has_the_limits_and_an_update_reaches_systemd_and_the_kernel() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    let container = start(
        &runtime,
        &scoped(
            &runtime,
            json!({
                "memory": { "limit": 64 << 20 }, "pids": { "limit": 9 },
                "cpu": { "shares": 512, "quota": 50_500, "period": 100_000 },
            }),
        ),
    );
    let check = |rows: &[(&str, &str, &str, &str)]| {
        for (property, value, file, text) in rows {
            assert_eq!(shown(&container, property), *value, "{property}");
            assert_eq!(read(&container, file), *text, "{file}");
        }
    };
    // systemd counts a quota in steps of 10 ms a second.
    check(&by_version(
        [
            (
                "MemoryLimit",
                "67108864",
                "memory.limit_in_bytes",
                "67108864",
            ),
            ("TasksMax", "9", "pids.max", "9"),
            ("CPUQuotaPerSecUSec", "510ms", "cpu.cfs_quota_us", "51000"),
        ],
        [
            ("MemoryMax", "67108864", "memory.max", "67108864"),
            ("TasksMax", "9", "pids.max", "9"),
            ("CPUQuotaPerSecUSec", "510ms", "cpu.max", "51000 100000"),
        ],
    ));
    assert_eq!(shown(&container, "Delegate"), "yes");
    let flags = [
        "update",
        "--memory",
        "80M",
        "--pids-limit",
        "8",
        "--cpu-quota",
        "20000",
    ];
    let _ = container.call(&flags).run().succeeds();
    let after = by_version(
        [
            (
                "MemoryLimit",
                "83886080",
                "memory.limit_in_bytes",
                "83886080",
            ),
            ("TasksMax", "8", "pids.max", "8"),
            ("CPUQuotaPerSecUSec", "200ms", "cpu.cfs_quota_us", "20000"),
        ],
        [
            ("MemoryMax", "83886080", "memory.max", "83886080"),
            ("TasksMax", "8", "pids.max", "8"),
            ("CPUQuotaPerSecUSec", "200ms", "cpu.max", "20000 100000"),
        ],
    );
    check(&after);
    host(&["systemctl", "daemon-reload"]);
    check(&after);
    let _ = container.call(&["pause"]).run().succeeds();
    assert_eq!(container.status(), "paused");
    let _ = container.call(&["delete", "--force"]).run().succeeds();
    wait_for("the end of the unit", || {
        shown(&container, "ActiveState") == "inactive"
    });
}

#[test]
fn devices_survive_a_daemon_reload_also_those_that_were_allowed_later() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    let one = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" });
    let mut bundle = scoped(&runtime, json!({ "devices": [{ "allow": false }, one] }));
    bundle.capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    let container = start(&runtime, &bundle);
    // kmsg, then zram-control's number, which only has to get past the rules: ENXIO is enough.
    let opens = |minor: &str, major: &str| {
        let script =
            format!("mknod /tmp/d{minor} c {major} {minor} 2>/dev/null; exec 3</tmp/d{minor}");
        let run = runtime
            .call(&["exec", container.id(), "sh", "-c", &script])
            .run();
        !run.stderr.contains("not permitted")
    };
    let (first, later) = (|| opens("11", "1"), || opens("237", "10"));
    assert!(first() && !later());
    host(&["systemctl", "daemon-reload"]);
    assert!(first() && !later(), "after a reload");
    let update = |flag: &str| {
        let _ = container
            .call(&["update", flag, "c 10:237 r"])
            .run()
            .succeeds();
    };
    update("--device-allow");
    assert!(first() && later());
    host(&["systemctl", "daemon-reload"]);
    host(&[
        "systemctl",
        "set-property",
        "--runtime",
        &scope(&container),
        "TasksMax=50",
    ]);
    assert!(first() && later(), "after a reload and a change by systemd");
    update("--device-deny");
    assert!(first() && !later());
    container.finish();
}

#[test]
fn a_unit_name_of_odd_characters_works_or_is_refused_in_one_line() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    let token = runtime.token().to_owned();
    for (path, refused) in [
        (format!("system.slice:kt:{token}.a_b-c"), None),
        (format!("kt-a.slice:kt:{token}"), None),
        (format!(":kt:{token}"), None),
        (
            format!("system.slice:kt:{token}/x"),
            Some(".linux.cgroupsPath"),
        ),
        (
            format!("system.slice:kt:{token}@x"),
            Some(".linux.cgroupsPath"),
        ),
        (
            format!("system.slice:kt:{token} x"),
            Some(".linux.cgroupsPath"),
        ),
        (format!("nosuffix:kt:{token}"), Some(".linux.cgroupsPath")),
        (format!("a--b.slice:kt:{token}"), Some(".linux.cgroupsPath")),
        (
            format!("system.slice:kt:{}", "n".repeat(300)),
            Some(".linux.cgroupsPath"),
        ),
        (format!("/absolute/{token}"), Some(".linux.cgroupsPath")),
    ] {
        let mut bundle = runtime.bundle();
        bundle.set("/linux/cgroupsPath", path.as_str());
        let run = runtime
            .call_run(&bundle)
            .global(&["--systemd-cgroup"])
            .run();
        match refused {
            None => drop(run.succeeds()),
            Some(words) => {
                assert_eq!(run.stderr.lines().count(), 1, "{path}: {}", run.stderr);
                let _ = run.fails_with(words);
            }
        }
    }
}

#[test]
fn a_user_may_set_limits_in_a_cgroup_that_was_given_to_him() {
    let runtime = Runtime::rootless();
    // v1 has no delegation that is safe.
    if outside_the_guest(&runtime) || !is_v2() {
        return;
    }
    let given = PathBuf::from("/sys/fs/cgroup").join(format!("{}-given", runtime.token()));
    let own = given.join("own");
    fs::create_dir_all(&own).expect("root may");
    let owner = (Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER)));
    for file in [
        "",
        "cgroup.procs",
        "cgroup.subtree_control",
        "cgroup.threads",
        "own/cgroup.procs",
    ] {
        chown(&given.join(file), owner.0, owner.1).expect("root may");
    }
    let mut bundle = runtime.bundle();
    let path = format!("/{}-given/container", runtime.token());
    bundle
        .user_namespace(USER, 1)
        .set("/linux/cgroupsPath", path);
    bundle.set("/linux/resources/pids/limit", 9).sleeper();
    let enter = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", own.display());
    let launcher = ["sh", "-c", &enter, "sh"];
    let container = Container::create_with(&runtime, &bundle, |call| call.through(&launcher));
    container.start();
    let limit = || fs::read_to_string(given.join("container/pids.max")).expect("a cgroup");
    assert_eq!(limit(), "9\n");
    let update = container.call(&["update", "--pids-limit", "8"]);
    let _ = update.through(&launcher).run().succeeds();
    assert_eq!(limit(), "8\n");
    let _ = container.call(&["delete", "--force"]).run().succeeds();
    assert!(!given.join("container").exists());
    for dir in [&own, &given] {
        fs::remove_dir(dir).expect("it is empty");
    }
}

/// A user with a systemd instance of his own, as after a login.
struct Login;

impl Login {
    const DIR: &str = "/run/user/61000";

    /// To be called before the test has mounts of its own, in which it would not see [`Self::DIR`].
    fn new() -> Self {
        assert_eq!(Self::DIR, format!("/run/user/{USER}"));
        let user = USER.to_string();
        host(&["useradd", "--uid", &user, "--no-create-home", "kt-login"]);
        host(&["loginctl", "enable-linger", "kt-login"]);
        let socket = Path::new(Self::DIR).join("bus");
        wait_for("the user's systemd", || socket.exists());
        Self
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        host(&["loginctl", "disable-linger", "kt-login"]);
        wait_for("the end of the user's systemd", || {
            !Path::new(Self::DIR).exists()
        });
        // Where the test has not put its own file over /etc/passwd.
        host(&["nsenter", "--target", "1", "--mount", "userdel", "kt-login"]);
    }
}

#[test]
fn a_users_own_systemd_makes_limits_changes_and_ends_a_scope() {
    // Nobody else's machine gets a user.
    let is_guest = std::env::var_os("KEEL_MUST_RUN").is_some() && is_v2();
    let login = is_guest.then(Login::new);
    let mut runtime = Runtime::rootless();
    if outside_the_guest(&runtime) || login.is_none() {
        return;
    }
    // As the user's shell would start it, in a scope of his own.
    let dir = format!("XDG_RUNTIME_DIR={}", Login::DIR);
    let scope = ["systemd-run", "--user", "--scope", "--quiet", "--collect"];
    runtime.start_by(&[&["env", &dir], &scope[..]].concat());
    let mut bundle = runtime.bundle();
    let path = format!("user.slice:kt:{}", bundle.id());
    bundle
        .user_namespace(USER, 1)
        .set("/linux/cgroupsPath", path)
        .set("/linux/resources/pids/limit", 9)
        .set("/linux/resources/memory/limit", 64 << 20)
        .sleeper();
    let container = start(&runtime, &bundle);
    let said = |call: Call<'_>| call.run().succeeds().stdout;
    let cgroup = proc::read(container.pid(), "cgroup");
    let cgroup = PathBuf::from("/sys/fs/cgroup").join(cgroup.trim().trim_start_matches("0::/"));
    let scope = format!("kt-{}.scope", container.id());
    let users = format!("user@{USER}.service");
    let is_below = |name: &str| cgroup.iter().any(|part| part == name);
    assert!(
        is_below(&users) && cgroup.ends_with(&scope),
        "{}",
        cgroup.display()
    );
    let holds = |file: &str| fs::read_to_string(cgroup.join(file)).expect("a cgroup");
    assert_eq!(
        (holds("pids.max"), holds("memory.max")),
        ("9\n".into(), "67108864\n".into())
    );
    said(container.call(&["update", "--pids-limit", "8"]));
    assert_eq!(holds("pids.max"), "8\n");
    let exec = ["exec", container.id(), "cat", "/proc/self/cgroup"];
    let inside = said(runtime.call(&exec));
    assert!(inside.contains(&scope), "{inside}");
    said(container.call(&["pause"]));
    assert_eq!(container.status(), "paused");
    said(container.call(&["resume"]));
    said(container.call(&["delete", "--force"]));
    wait_for("the end of the scope", || !cgroup.exists());
    drop(container);
}

#[test]
fn sockets_bear_the_network_class_and_packets_the_priority() {
    let runtime = Runtime::new();
    // v2 has neither: bad_input.rs shows the refusal.
    if outside_the_guest(&runtime) || is_v2() {
        return;
    }
    let network =
        json!({ "classID": 0x0010_0002, "priorities": [{ "name": "lo", "priority": 1 }] });
    let mut bundle = runtime.bundle();
    bundle
        .set("/linux/resources/network", network)
        .join("network", "/proc/1/ns/net")
        .sh("nc -l -p 4001 & while :; do nc 127.0.0.1 9; sleep 0.1; done");
    // The kernel knows priorities for the interfaces of the first network namespace only.
    let of_the_machine = |words: &[&str]| {
        let enter = ["nsenter", "--target", "1", "--net"];
        host(&[&enter[..], words].concat())
    };
    of_the_machine(&["ip", "link", "set", "lo", "up"]);
    of_the_machine(&[
        "tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "prio",
    ]);
    let container = runtime.start(&bundle);
    // ss shows the class of a socket beside its type of service.
    wait_for("the class", || {
        of_the_machine(&["ss", "-tln", "--tos"]).contains("class_id:0x100002")
    });
    // Priority 1 goes to the third band: tc-prio(8).
    wait_for("a packet", || {
        let third = ["tc", "-s", "class", "show", "dev", "lo", "classid", "1:3"];
        !of_the_machine(&third).contains("Sent 0 ")
    });
    of_the_machine(&["tc", "qdisc", "del", "dev", "lo", "root"]);
    container.finish();
}

#[test]
fn swap_is_counted_together_with_memory() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    let file = runtime.dir().join("swap");
    let file = file.to_str().expect("UTF-8");
    host(&[
        "dd",
        "if=/dev/zero",
        &format!("of={file}"),
        "bs=1M",
        "count=128",
    ]);
    host(&["mkswap", file]);
    host(&["swapon", file]);
    let mut codes = Vec::new();
    for swap in [32, 128] {
        let mut bundle = runtime.bundle();
        let memory = json!({ "limit": 32 << 20, "swap": i64::from(swap) << 20 });
        bundle.set("/linux/resources/memory", memory);
        bundle.sh("dd if=/dev/zero of=/dev/null bs=60M count=1");
        codes.push(runtime.run(&bundle).code);
    }
    host(&["swapoff", file]);
    assert_eq!(
        codes,
        [128 + 9, 0],
        "60 MiB with 32 of memory, and 0 or 96 of swap"
    );
}

#[test]
fn huge_pages_are_limited() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    let count = "/proc/sys/vm/nr_hugepages";
    fs::write(count, "4").expect("root may");
    let mut bundle = runtime.bundle();
    bundle.probe();
    let limits = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    bundle.set("/linux/resources/hugepageLimits", limits);
    let mut ends = Vec::new();
    for pages in [2, 3] {
        let bytes = (pages * (2 << 20)).to_string();
        bundle.args(&["/bin/probe", "huge-pages", &bytes]);
        let run = runtime.run(&bundle);
        ends.push((run.code, run.stderr.contains("Cannot allocate memory")));
    }
    fs::write(count, "0").expect("root may");
    assert_eq!(ends, [(0, false), (1, true)]);
}
/// Limits whose values change on their way to v2, and the files where they arrive. The formula of
/// shares is newer than Debian's runc and crun.
const CONVERTED: &[(&str, &str)] = &[
    ("cpu.max", r#"{"cpu":{"quota":50000,"period":100000}}"#),
    ("cpu.max", r#"{"cpu":{"quota":-1,"period":50000}}"#),
    ("cpu.max", r#"{"cpu":{"quota":20000}}"#),
    ("cpuset.cpus", r#"{"cpu":{"cpus":"0"}}"#),
    ("cpuset.mems", r#"{"cpu":{"mems":"0"}}"#),
    ("memory.max", r#"{"memory":{"limit":-1}}"#),
    ("memory.max", r#"{"memory":{"limit":33554432}}"#),
    (
        "memory.low",
        r#"{"memory":{"limit":33554432,"reservation":16777216}}"#,
    ),
    (
        "memory.swap.max",
        r#"{"memory":{"limit":33554432,"swap":50331648}}"#,
    ),
    (
        "memory.swap.max",
        r#"{"memory":{"limit":33554432,"swap":33554432}}"#,
    ),
    (
        "memory.swap.max",
        r#"{"memory":{"limit":33554432,"swap":-1}}"#,
    ),
    ("pids.max", r#"{"pids":{"limit":7}}"#),
    ("pids.max", r#"{"pids":{"limit":-1}}"#),
    ("io.weight", r#"{"blockIO":{"weight":10}}"#),
    ("io.weight", r#"{"blockIO":{"weight":500}}"#),
    ("io.weight", r#"{"blockIO":{"weight":1000}}"#),
    (
        "hugetlb.2MB.max",
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#,
    ),
    ("memory.high", r#"{"unified":{"memory.high":"8388608"}}"#),
];

/// What is in `file` of the container's cgroup after `program create`.
fn arrived(program: &Path, runtime: &Runtime, bundle: &Bundle, file: &str) -> String {
    let root = runtime.dir().join(program.file_name().expect("a program"));
    let call = |words: &[&str]| {
        let mut command = Command::new(program);
        command
            .arg("--root")
            .arg(&root)
            .args(words)
            .arg(bundle.id());
        // Not a pipe: the container would keep it open.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status().expect("it is installed");
        assert!(status.success(), "{} {words:?}", program.display());
    };
    let path = bundle.save().to_str().expect("UTF-8");
    call(&["create", "--bundle", path]);
    let cgroup = bundle.spec["linux"]["cgroupsPath"]
        .as_str()
        .expect("a path");
    let text = fs::read_to_string(format!("/sys/fs/cgroup{cgroup}/{file}"));
    call(&["delete", "--force"]);
    let _ = fs::remove_dir_all(root);
    text.unwrap_or_else(|error| error.to_string())
}

#[test]
fn limits_arrive_as_those_of_debians_runc_and_crun() {
    let runtime = Runtime::new();
    // On v1 nothing is converted, and Debian's crun cannot set a quota there.
    if outside_the_guest(&runtime) || !is_v2() {
        return;
    }
    let mut differ = Vec::new();
    for (file, resources) in CONVERTED {
        let mut bundle = runtime.bundle();
        let resources: Value = serde_json::from_str(resources).expect("JSON");
        let path = format!("/{}", bundle.id());
        bundle
            .set("/linux/cgroupsPath", path)
            .set("/linux/resources", resources.clone());
        let programs = [
            runtime.binary(),
            Path::new("/usr/sbin/runc"),
            Path::new("/usr/bin/crun"),
        ];
        let [keel, runc, crun] = programs.map(|it| arrived(it, &runtime, &bundle, file));
        if keel != runc || keel != crun {
            differ.push(format!("{resources}: {file} {keel:?} {runc:?} {crun:?}"));
        }
    }
    assert!(
        differ.is_empty(),
        "keel, runc, crun:\n{}",
        differ.join("\n")
    );
}
