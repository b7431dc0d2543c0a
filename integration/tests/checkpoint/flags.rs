//! What the flags of `checkpoint` and `restore` do, each by its effect.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use integration::{Adopted, Bundle, ConsoleSocket, Container, Runtime, is_v2, proc, wait_for};
use serde_json::json;

use super::{checkpoint, counter, images, runtime, start, wait_for_progress};

/// A container that `restore` has made.
struct Restored<'r> {
    runtime: &'r Runtime,
    id: String,
    process: Adopted,
}

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        let call = self.runtime.call(&["delete", "--force", &self.id]);
        let _ = call.run();
    }
}

/// `restore --detach` of `id`, which must succeed.
fn restore<'r>(
    runtime: &'r Runtime,
    bundle: &Bundle,
    id: &str,
    images: &str,
    flags: &[&str],
) -> Restored<'r> {
    let file = bundle.path().join("restored-pid");
    let (bundle, pid_file) = (bundle.path().to_string_lossy(), file.to_string_lossy());
    let line = [
        "restore",
        "--detach",
        "--image-path",
        images,
        "--bundle",
        &bundle,
    ];
    let line = [&line[..], &["--pid-file", &pid_file], flags, &[id]].concat();
    let _ = runtime.call(&line).run().succeeds();
    Restored {
        runtime,
        id: id.to_owned(),
        process: Adopted::of(&file),
    }
}

/// `checkpoint`, which must succeed, and the end of the container's process.
fn save(runtime: &Runtime, container: &Container<'_>, images: &str, flags: &[&str]) {
    let flags = [&["--image-path", images], flags].concat();
    let _ = checkpoint(runtime, container, &flags).succeeds();
    container.wait();
}

/// A program of CRIU's beside keel, killed at the end if it still runs.
struct Server(Child);

impl Server {
    fn start(words: &[&str]) -> Self {
        let mut command = Command::new("criu");
        command.args(words).stdout(Stdio::null());
        Self(command.spawn().expect("CRIU is installed"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a command of the host, in the test's network namespace, prints.
fn host(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output();
    let output = output.expect("sh is there");
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn listens(port: &str) -> bool {
    host("ss -tln").contains(&format!(":{port} "))
}

#[test]
fn a_page_server_gets_the_memory_and_the_directory_the_rest() {
    let Some(runtime) = runtime() else { return };
    host("ip link set lo up");
    let bundle = counter(&runtime);
    let container = start(&runtime, &bundle);
    wait_for_progress(&runtime);
    let (path, pages) = (images(&runtime, "images"), images(&runtime, "pages"));
    fs::create_dir(&pages).expect("the scratch directory is writable");
    let server = ["page-server", "--images-dir", &pages, "--port", "4711"];
    let server = Server::start(&server);
    wait_for("the page server", || listens("4711"));
    save(
        &runtime,
        &container,
        &path,
        &["--page-server", "127.0.0.1:4711"],
    );
    drop(server);
    let memory = |dir: &str| {
        let names = fs::read_dir(dir).expect("it is there").flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter(|name| name.starts_with("pages-"))
            .collect::<Vec<_>>()
    };
    assert!(memory(&path).is_empty(), "{:?}", memory(&path));
    assert!(!memory(&pages).is_empty());
    host(&format!("cp {pages}/page* {path}"));
    let restored = restore(&runtime, &bundle, container.id(), &path, &[]);
    wait_for_progress(&runtime);
    drop(restored);
}

#[test]
fn lazy_pages_are_fetched_when_the_container_runs_again() {
    let Some(runtime) = runtime() else { return };
    host("ip link set lo up");
    let bundle = counter(&runtime);
    let container = start(&runtime, &bundle);
    wait_for_progress(&runtime);
    let (path, work) = (images(&runtime, "images"), images(&runtime, "work"));
    fs::create_dir(&work).expect("the scratch directory is writable");
    let (mut ready, status) = std::io::pipe().expect("descriptors are plenty");
    let line = [
        "checkpoint",
        "--lazy-pages",
        "--page-server",
        "127.0.0.1:4712",
    ];
    let line = [
        &line[..],
        &["--status-fd", "3", "--manage-cgroups-mode", "ignore"],
    ]
    .concat();
    let line = [&line[..], &["--image-path", &path, container.id()]].concat();
    let saving = runtime.call(&line).fd(status).spawn();
    // By this byte CRIU says that the pages can be fetched; the container stands still.
    let mut byte = [1];
    ready.read_exact(&mut byte).expect("CRIU gets ready");
    assert_eq!(byte, [0]);
    let daemon = [
        "lazy-pages",
        "--page-server",
        "--address",
        "127.0.0.1",
        "--port",
        "4712",
    ];
    let daemon = [&daemon[..], &["--images-dir", &path, "--work-dir", &work]].concat();
    let daemon = Server::start(&daemon);
    let socket = Path::new(&work).join("lazy-pages.socket");
    wait_for("the lazy pages' socket", || socket.exists());
    let id = runtime.id("lazy");
    let flags = [
        "--lazy-pages",
        "--manage-cgroups-mode",
        "ignore",
        "--work-path",
        &work,
    ];
    let restored = restore(&runtime, &bundle, &id, &path, &flags);
    wait_for_progress(&runtime);
    let _ = saving.wait().succeeds();
    container.wait();
    drop(daemon);
    let log = fs::read_to_string(Path::new(&work).join("restore.log"));
    assert!(
        log.expect("CRIU writes it").contains("uffd"),
        "pages were not lazy"
    );
    wait_for_progress(&runtime);
    drop(restored);
}

/// A container in which one process sends to another over TCP what that one writes to `data/n`.
fn talker(runtime: &Runtime) -> Bundle {
    let mut bundle = counter(runtime);
    bundle.sh(
        "sleep 1000000 | nc -l -p 4000 | while read n; do echo $n >/mnt/data/n; done &
        sleep 1; i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done | nc 127.0.0.1 4000",
    );
    bundle
}

#[test]
fn an_open_connection_is_kept_if_that_is_asked_for() {
    let Some(runtime) = runtime() else { return };
    let bundle = talker(&runtime);
    let container = start(&runtime, &bundle);
    wait_for_progress(&runtime);
    let path = images(&runtime, "images");
    let flags = ["--image-path", &path, "--leave-running"];
    let run = checkpoint(&runtime, &container, &flags).fails_with("criu failed");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    let before = wait_for_progress(&runtime);
    save(&runtime, &container, &path, &["--tcp-established"]);
    let restored = restore(
        &runtime,
        &bundle,
        container.id(),
        &path,
        &["--tcp-established"],
    );
    let after = wait_for_progress(&runtime);
    assert!(after > before, "{after} after {before}");
    drop(restored);
}

#[test]
fn a_terminal_is_brought_back_through_a_new_console_socket() {
    let Some(runtime) = runtime() else { return };
    let mut bundle = runtime.bundle();
    bundle.set("/process/terminal", true);
    bundle.sh("echo ready; while read line; do echo \"got $line\"; done");
    let socket = ConsoleSocket::listen(&runtime.dir().join("console"));
    let flag = format!("--console-socket={}", socket.path().display());
    let container = Container::create_with(&runtime, &bundle, |call| call.flag(&flag));
    let (_, mut terminal) = socket.receive();
    container.start();
    terminal.expect("ready");
    terminal.type_in("one\n");
    terminal.expect("got one");
    let path = images(&runtime, "images");
    save(&runtime, &container, &path, &[]);
    drop(terminal);
    let again = ConsoleSocket::listen(&runtime.dir().join("again"));
    let flag = format!("--console-socket={}", again.path().display());
    let restored = restore(&runtime, &bundle, container.id(), &path, &[&flag]);
    let (_, mut terminal) = again.receive();
    terminal.type_in("two\n");
    terminal.expect("got two");
    drop(restored);
}

#[test]
fn a_container_is_brought_back_under_another_apparmor_profile() {
    let Some(runtime) = runtime() else { return };
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let lacks = enabled.map_or(true, |text| text.trim() != "Y");
    if runtime.host_lacks("AppArmor", lacks) {
        return;
    }
    let names = ["one", "two"].map(|name| runtime.id(name));
    let load = |flag: &str| {
        for name in &names {
            let allow =
                "file, capability, network, mount, umount, pivot_root, ptrace, signal, unix,";
            let text = format!("profile {name} flags=(attach_disconnected) {{ {allow} }}\n");
            let mut parser = Command::new("apparmor_parser");
            let mut child = parser
                .arg(flag)
                .stdin(Stdio::piped())
                .spawn()
                .expect("it is there");
            let input = child.stdin.take();
            let _ = input.expect("a pipe").write_all(text.as_bytes());
            assert!(child.wait().expect("ours").success(), "{text}");
        }
    };
    load("--replace");
    let mut bundle = counter(&runtime);
    bundle.set("/process/apparmorProfile", names[0].as_str());
    let container = start(&runtime, &bundle);
    wait_for_progress(&runtime);
    let label = |pid: i32| proc::read(pid, "attr/current").trim().to_owned();
    assert_eq!(label(container.pid()), format!("{} (enforce)", names[0]));
    let path = images(&runtime, "images");
    save(&runtime, &container, &path, &[]);
    let profile = format!("apparmor:{}", names[1]);
    let flags = ["--lsm-profile", &profile];
    let restored = restore(&runtime, &bundle, container.id(), &path, &flags);
    wait_for_progress(&runtime);
    assert_eq!(
        label(restored.process.pid()),
        format!("{} (enforce)", names[1])
    );
    drop(restored);
    load("--remove");
}

/// The container's own limit on processes, as its cgroup has it.
fn pids_limit(pid: i32) -> String {
    let cgroup = proc::read(pid, "cgroup");
    let path = cgroup.trim().trim_start_matches("0::/");
    let file = Path::new("/sys/fs/cgroup").join(path).join("pids.max");
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The container comes back in a cgroup of its own with config.json's limits. In the strict mode CRIU
/// accepts no cgroup that is there before it, and keel's is, as runc's would be.
#[test]
fn the_cgroup_is_managed_as_the_mode_says() {
    let Some(runtime) = runtime() else { return };
    if !is_v2() {
        return;
    }
    for mode in ["soft", "full", "ignore", "strict"] {
        let mut bundle = counter(&runtime);
        bundle.set("/linux/resources", json!({ "pids": { "limit": 50 } }));
        let container = start(&runtime, &bundle);
        wait_for_progress(&runtime);
        let path = images(&runtime, mode);
        let flags = ["--manage-cgroups-mode", mode];
        save(&runtime, &container, &path, &flags);
        if mode == "strict" {
            let place = bundle.path().to_string_lossy();
            let line = [
                "restore",
                "--detach",
                "--image-path",
                &path,
                "--bundle",
                &place,
            ];
            let line = [&line[..], &flags, &[container.id()]].concat();
            let _ = runtime
                .call(&line)
                .run()
                .fails_with("restore of existing cgroups");
            continue;
        }
        let restored = restore(&runtime, &bundle, container.id(), &path, &flags);
        wait_for_progress(&runtime);
        assert_eq!(pids_limit(restored.process.pid()), "50\n", "{mode}");
        drop(restored);
    }
}

/// What else is in the directory of a checkpoint, which may have come from anybody, gives no orders:
/// neither a config.json with hooks and annotations nor a state.json. The control is the same config.json in
/// the bundle.
#[test]
fn the_files_of_a_checkpoint_are_no_orders() {
    let Some(runtime) = runtime() else { return };
    let mut bundle = counter(&runtime);
    let container = start(&runtime, &bundle);
    wait_for_progress(&runtime);
    let path = images(&runtime, "images");
    save(&runtime, &container, &path, &[]);
    let owned = runtime.dir().join("owned");
    let honest = fs::read(bundle.path().join("config.json")).expect("it was saved");
    let hook = json!({ "path": "/bin/touch", "args": ["touch", owned] });
    bundle
        .set("/annotations", json!({ "who": "somebody" }))
        .push("/hooks/createRuntime", hook);
    bundle.save();
    let config = bundle.path().join("config.json");
    for name in ["config.json", "state.json"] {
        fs::copy(&config, Path::new(&path).join(name)).expect("the scratch directory is writable");
    }
    for (from, text) in [
        ("checkpoint", &honest),
        ("bundle", &fs::read(&config).expect("it is there")),
    ] {
        fs::write(&config, text).expect("the bundle is writable");
        let restored = restore(&runtime, &bundle, container.id(), &path, &[]);
        let state = runtime.call(&["state", container.id()]).run().succeeds();
        drop(restored);
        let obeyed = from == "bundle";
        assert_eq!(owned.exists(), obeyed, "the hook of the {from}");
        assert_eq!(
            state.stdout.contains("somebody"),
            obeyed,
            "{}",
            state.stdout
        );
    }
}

/// This needs no CRIU that works.
#[test]
fn a_list_of_streams_that_never_ends_is_not_waited_for() {
    let runtime = Runtime::new();
    if runtime.differs("it waits") {
        return;
    }
    let bundle = runtime.bundle();
    let path = images(&runtime, "images");
    fs::create_dir(&path).expect("the scratch directory is writable");
    let mode = nix::sys::stat::Mode::S_IRWXU;
    let streams = Path::new(&path).join("descriptors.json");
    nix::unistd::mkfifo(&streams, mode).expect("the scratch directory is writable");
    let id = bundle.id().to_owned();
    let bundle = bundle.save().to_string_lossy();
    let line = [
        "restore",
        "--detach",
        "--image-path",
        &path,
        "--bundle",
        &bundle,
        &id,
    ];
    let _ = runtime
        .call(&line)
        .run()
        .fails_with("a regular file is needed");
}
