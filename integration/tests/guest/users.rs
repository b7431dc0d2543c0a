//! Limits that a plain user sets: in a cgroup that he was given, and by a systemd of his own.

use std::fs;
use std::path::{Path, PathBuf};

use integration::{Call, Container, Runtime, USER, is_v2, proc, wait_for};
use nix::unistd::{Gid, Uid, chown};

use serde_json::json;

use super::{host, outside_the_guest, start};

/// A cgroup for the user to make others in, and one below it from which he does that.
fn give(runtime: &Runtime) -> PathBuf {
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
    given
}

#[test]
fn a_user_may_set_limits_in_a_cgroup_that_was_given_to_him() {
    let runtime = Runtime::rootless();
    // v1 has no delegation that is safe.
    if outside_the_guest(&runtime) || !is_v2() {
        return;
    }
    let given = give(&runtime);
    let own = given.join("own");
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

/// CVE-2023-25809, in the catalogue F2: without a cgroup namespace, a plain user's container makes
/// cgroups wherever it finds a directory. The control is a container that is shown the host's tree.
#[test]
fn a_users_container_does_not_reach_the_users_other_cgroups() {
    let runtime = Runtime::rootless();
    if outside_the_guest(&runtime) || !is_v2() {
        return;
    }
    let given = give(&runtime);
    let own = given.join("own");
    let enter = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", own.display());
    for (fs, is_shown) in [("cgroup", false), ("bind", true)] {
        let mut bundle = runtime.bundle();
        let path = format!("/{}-given/container", runtime.token());
        bundle
            .user_namespace(USER, 1)
            .share("cgroup")
            .set("/linux/cgroupsPath", path)
            .sh(
                "for dir in $(find /sys/fs/cgroup -type d); do mkdir $dir/kt-new; done 2>/dev/null
                 ls -d /sys/fs/cgroup/cgroup.procs",
            );
        match is_shown {
            true => bundle.bind(Path::new("/sys/fs/cgroup"), "/sys/fs/cgroup", "rbind"),
            false => bundle.mount(fs, fs, "/sys/fs/cgroup", ""),
        };
        let call = runtime.call_run(&bundle);
        let run = call.through(&["sh", "-c", &enter, "sh"]).run().succeeds();
        assert_eq!(run.stdout, "/sys/fs/cgroup/cgroup.procs\n", "{fs}");
        assert_eq!(given.join("kt-new").exists(), is_shown, "{fs}");
    }
    for dir in [own, given.join("kt-new"), given] {
        fs::remove_dir(&dir).expect("it is empty");
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
        .set(
            "/annotations",
            json!({ "org.systemd.property.TimeoutStopSec": "7" }),
        )
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
    let user = USER.to_string();
    let show = |property: &str| {
        let become_him = [
            "setpriv",
            "--reuid",
            user.as_str(),
            "--clear-groups",
            "env",
            dir.as_str(),
        ];
        let show = [
            "systemctl",
            "--user",
            "show",
            "-P",
            property,
            scope.as_str(),
        ];
        host(&[&become_him[..], &show].concat())
    };
    assert_eq!(
        (show("TimeoutStopUSec"), show("TasksMax")),
        ("7s\n".into(), "9\n".into())
    );
    said(container.call(&["update", "--pids-limit", "8"]));
    assert_eq!(show("TasksMax"), "8\n");
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
