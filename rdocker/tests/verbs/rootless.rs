//! A plain user's engine. The user exists in the tests' own mount namespaces alone: their passwd,
//! subuid and subgid files are bound over the machine's, so that the machine keeps its own.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::host::{Done, busybox_tar, done, eventually};
use crate::terminal::{SIZE, Terminal};

/// Its passwd entry; the number is nobody's on a Debian machine.
const UID: u32 = 54321;
const FIRST_SUBORDINATE: u32 = 700_000;

/// Enters a mount namespace with the user's tables, then becomes the user.
const AS_USER: &str = r#"
set -e
for table in passwd subuid subgid; do mount --bind "$TABLES/$table" "/etc/$table"; done
mount --bind "$TABLES/tun" /dev/net/tun
exec setpriv --reuid 54321 --regid 54321 --clear-groups "$@"
"#;

/// Which rows the user has in subuid and subgid.
#[derive(Clone, Copy, PartialEq)]
enum Subordinate {
    Ids,
    Nothing,
}

struct User {
    dir: TempDir,
    /// Where programs are found.
    path: OsString,
}

impl User {
    /// A user with the image `busybox`.
    fn new(subordinate: Subordinate) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("rdocker-user")
            .tempdir()
            .unwrap();
        let user = Self {
            dir,
            path: std::env::var_os("PATH").unwrap_or_default(),
        };
        let path = user.dir.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(path.join("bin")).unwrap();
        let rdocker = Path::new(env!("CARGO_BIN_EXE_rdocker"));
        for name in ["rdocker", "keel"] {
            let built = rdocker.with_file_name(name);
            let own = path.join("bin").join(name);
            // A link costs nothing; across file systems there is none.
            fs::hard_link(&built, &own)
                .or_else(|_| fs::copy(&built, &own).map(drop))
                .expect("the workspace is built: cargo build --workspace");
        }
        fs::create_dir(path.join("tables")).unwrap();
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let row = format!("{passwd}plain:x:{UID}:{UID}::/:/bin/sh\n");
        fs::write(path.join("tables/passwd"), row).unwrap();
        let ids = match subordinate {
            Subordinate::Ids => format!("plain:{FIRST_SUBORDINATE}:65536\n"),
            Subordinate::Nothing => String::new(),
        };
        for table in ["subuid", "subgid"] {
            fs::write(path.join("tables").join(table), &ids).unwrap();
        }
        let tun = path.join("tables/tun");
        let kind = nix::sys::stat::SFlag::S_IFCHR;
        let mode = nix::sys::stat::Mode::empty();
        nix::sys::stat::mknod(&tun, kind, mode, nix::sys::stat::makedev(10, 200)).unwrap();
        user.allow_tun(0o666);
        for name in ["data", "run"] {
            fs::create_dir(path.join(name)).unwrap();
            chown(path.join(name), Some(UID), Some(UID)).unwrap();
        }
        let tar = busybox_tar(path);
        user.run(&["import", tar.to_str().unwrap(), "busybox"]).ok();
        user
    }

    /// Sets who may open /dev/net/tun.
    fn allow_tun(&self, mode: u32) {
        let tun = self.dir.path().join("tables/tun");
        fs::set_permissions(tun, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Lets the user find these programs and no others.
    fn only(&mut self, programs: &[&str]) {
        let dir = self.dir.path().join("few");
        fs::create_dir(&dir).unwrap();
        for program in programs {
            symlink(Path::new("/usr/bin").join(program), dir.join(program)).unwrap();
        }
        self.path = dir.into();
    }

    fn command(&self, args: &[&str]) -> Command {
        let path = self.dir.path();
        let mut command = Command::new("/usr/bin/unshare");
        command
            .args(["--mount", "sh", "-c", AS_USER, "sh"])
            .arg(path.join("bin/rdocker"))
            .args(args)
            .env_clear()
            .env("PATH", &self.path)
            .env("TABLES", path.join("tables"))
            .env("HOME", path.join("data"))
            .env("XDG_RUNTIME_DIR", path.join("run"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        done(self.command(args).output().unwrap())
    }

    fn holder(&self) -> PathBuf {
        self.dir.path().join("run/rdocker/namespaces.json")
    }

    fn holder_pid(&self) -> i32 {
        let text = fs::read_to_string(self.holder()).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        i32::try_from(record["pid"].as_i64().unwrap()).unwrap()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let ids = self.run(&["ps", "-aq", "--no-trunc"]).out;
        for id in ids.lines() {
            let _ = self.run(&["rm", "-f", "-v", id]);
        }
    }
}

#[test]
fn a_plain_user_runs_looks_into_and_removes_containers() {
    let user = User::new(Subordinate::Ids);
    let id = user.run(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "box",
        "-u",
        "web",
        "busybox",
        "sh",
        "-c",
        "echo started; exec sleep 100",
    ]);
    let id = id.ok();
    assert!(user.run(&["ps", "-q", "--no-trunc"]).ok().contains(&id));
    assert_eq!(user.run(&["logs", "box"]).ok(), "started");
    assert_eq!(
        user.run(&["exec", "-u", "0", "box", "sh", "-c", "id -u; exit 3"])
            .out,
        "0\n"
    );
    assert!(user.run(&["top", "box"]).ok().contains("sleep 100"));
    // The container's user 33 is the 33rd subordinate id: uid 0 is the user.
    let pid = user.run(&["inspect", "-f", "{{.State.Pid}}", "box"]).ok();
    let owner = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    assert_eq!(owner, FIRST_SUBORDINATE + 32);

    assert_eq!(user.run(&["stop", "-t", "0", "box"]).ok(), "box");
    assert_eq!(user.run(&["rm", "box"]).ok(), "box");
    assert_eq!(user.run(&["ps", "-aq"]).ok(), "");
    eventually("the end of the holder", || !user.holder().exists());
}

#[test]
fn a_plain_users_exec_has_a_terminal_and_a_volume_of_memory() {
    let user = User::new(Subordinate::Ids);
    user.run(&[
        "volume",
        "create",
        "-o",
        "type=tmpfs",
        "-o",
        "device=tmpfs",
        "mem",
    ])
    .ok();
    let run = [
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "box",
        "-v",
        "mem:/m",
        "busybox",
    ];
    user.run(&[&run[..], &["sleep", "100"]].concat()).ok();
    let script = "stty size; read x; echo got $x; grep -c ' /m tmpfs ' /proc/mounts; exit 9";
    let mut client = Terminal::of(user.command(&["exec", "-it", "box", "sh", "-c", script]));
    client.shows(&format!("{} {}", SIZE.0, SIZE.1));
    client.types("keys\r");
    client.shows("got keys\r\n1\r\n");
    assert_eq!(client.code(), Some(9));
    user.run(&["rm", "-f", "box"]).ok();
    user.run(&["volume", "rm", "mem"]).ok();
}

#[test]
fn the_files_of_a_plain_users_image_belong_to_subordinate_ids() {
    let user = User::new(Subordinate::Ids);
    let script = "touch /tmp/mine; chown 33:34 /tmp/mine; stat -c %u:%g /tmp/mine";
    let run = user.run(&[
        "run",
        "--rm",
        "--network",
        "host",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(run.ok(), "33:34");
}

#[test]
fn without_subordinate_ids_a_container_has_one_user() {
    let user = User::new(Subordinate::Nothing);
    let run = user.run(&[
        "run",
        "--rm",
        "--network",
        "none",
        "busybox",
        "cat",
        "/proc/self/uid_map",
    ]);
    let map: Vec<String> = run.ok().split_whitespace().map(str::to_owned).collect();
    assert_eq!(map, ["0", &UID.to_string(), "1"]);
}

#[test]
fn commands_that_start_at_once_share_the_namespaces() {
    let user = User::new(Subordinate::Ids);
    eventually("the end of the holder", || !user.holder().exists());
    let names = ["box-0", "box-1", "box-2", "box-3"];
    let children: Vec<_> = names
        .iter()
        .map(|name| {
            let args = [
                "run",
                "-d",
                "--network",
                "none",
                "--name",
                name,
                "busybox",
                "sleep",
                "100",
            ];
            user.command(&args).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    for name in names {
        assert_eq!(user.run(&["exec", name, "echo", name]).ok(), name);
    }
}

#[test]
fn limits_without_cgroups_are_discarded_and_told() {
    let user = User::new(Subordinate::Ids);
    let run = user.run(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-m",
        "64m",
        "busybox",
        "true",
    ]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(
        run.err,
        "WARNING: This user may make no cgroups: limits on resources are discarded\n"
    );
}

#[test]
fn a_container_can_be_removed_after_its_holder_was_killed() {
    let user = User::new(Subordinate::Ids);
    user.run(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "box",
        "busybox",
        "sleep",
        "100",
    ])
    .ok();
    kill(Pid::from_raw(user.holder_pid()), Signal::SIGKILL).unwrap();
    user.run(&["run", "--rm", "--network", "none", "busybox", "true"])
        .ok();
    assert_eq!(user.run(&["rm", "-f", "box"]).ok(), "box");
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let user = User::new(Subordinate::Ids);
    let dir = user.dir.path().join("run/rdocker");
    eventually("the end of the holder", || !user.holder().exists());
    chown(&dir, Some(0), Some(0)).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let error = user.run(&["ps"]).fails(1);
    chown(&dir, Some(UID), Some(UID)).unwrap();
    assert!(error.contains("belongs to somebody else"), "{error}");
}

#[test]
fn a_users_own_network_is_refused_with_the_way_out() {
    let user = User::new(Subordinate::Ids);
    let run = ["run", "--rm", "--network", "front", "busybox", "true"];
    let error = user.run(&run).fails(125);
    assert!(error.contains("network front needs root"), "{error}");
    assert!(error.contains("leave out --network"), "{error}");
}

/// A container `web` with a page on port 80; where it is published.
fn publish_a_page(user: &User) -> u16 {
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:80");
    let script = "echo page >/tmp/index.html; exec httpd -f -h /tmp";
    let run = [
        "run", "-d", "--name", "web", "-p", &publish, "busybox", "sh", "-c", script,
    ];
    user.run(&run).ok();
    port
}

#[test]
fn pasta_publishes_ports_and_ends_with_the_container() {
    let user = User::new(Subordinate::Ids);
    let port = publish_a_page(&user);
    assert_eq!(
        user.run(&["port", "web"]).ok(),
        format!("80/tcp -> 127.0.0.1:{port}")
    );
    eventually("the page", || get(port).ends_with("page\n"));
    // The host's loopback is not the container's.
    let back = TcpListener::bind("127.0.0.1:0").unwrap();
    let back = back.local_addr().unwrap().port().to_string();
    let reach = user.run(&["exec", "web", "nc", "-w", "1", "127.0.0.1", &back]);
    assert_ne!(reach.code, 0);
    user.run(&["rm", "-f", "web"]).ok();
    assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
    eventually("the end of the holder", || !user.holder().exists());
}

#[test]
fn pasta_ends_when_its_monitor_was_killed() {
    let user = User::new(Subordinate::Ids);
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:80");
    let run = [
        "run", "-d", "--name", "web", "-p", &publish, "busybox", "sleep", "100",
    ];
    user.run(&run).ok();
    assert!(TcpListener::bind(("127.0.0.1", port)).is_err(), "control");
    let pid = user.run(&["inspect", "-f", "{{.State.Pid}}", "web"]).ok();
    kill(Pid::from_raw(parent(&pid)), Signal::SIGKILL).unwrap();
    user.run(&["rm", "-f", "web"]).ok();
    eventually("the end of pasta", || {
        TcpListener::bind(("127.0.0.1", port)).is_ok()
    });
}

/// Kills the pasta of the user's one container.
fn kill_pasta(user: &User, name: &str) {
    let id = user.run(&["inspect", "-f", "{{.Id}}", name]).ok();
    let file = user
        .dir
        .path()
        .join("run/rdocker")
        .join(id)
        .join("pasta.pid");
    let pid = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[test]
fn another_pasta_takes_the_place_of_one_that_ended_or_its_loss_is_told() {
    let user = User::new(Subordinate::Ids);
    let port = publish_a_page(&user);
    eventually("the page", || get(port).ends_with("page\n"));
    // One that ends at once is not begun again.
    std::thread::sleep(std::time::Duration::from_secs(1));
    kill_pasta(&user, "web");
    eventually("the page again", || get(port).ends_with("page\n"));
    let error = ["inspect", "-f", "{{.State.Error}}", "web"];
    assert_eq!(user.run(&error).ok(), "");

    std::thread::sleep(std::time::Duration::from_secs(1));
    user.allow_tun(0o600);
    kill_pasta(&user, "web");
    eventually("the loss", || {
        user.run(&error)
            .ok()
            .contains("the network was lost: pasta cannot open /dev/net/tun")
    });
    let state = [
        "inspect",
        "-f",
        "{{.State.Status}} {{json .NetworkSettings.Ports}}",
        "web",
    ];
    assert_eq!(user.run(&state).ok(), "running {\"80/tcp\":null}");
    let events = [
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "-f",
        "type=network",
        "--format",
        "{{.Action}}",
    ];
    let told = user.run(&events).ok();
    assert_eq!(told, "connect\ndisconnect\nconnect\ndisconnect");
}

#[test]
fn a_plain_user_builds_an_image() {
    let user = User::new(Subordinate::Ids);
    let context = user.dir.path().join("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("file"), "copied\n").unwrap();
    let text = "FROM busybox\nCOPY --chown=33:34 file /f\n\
                RUN stat -c %u:%g /f; cat /proc/self/uid_map; touch /mine && chown 12:13 /mine\n\
                RUN --network=none ! ifconfig eth0\nWORKDIR /w\nCMD [\"stat\", \"-c\", \"%u:%g\", \"/mine\"]\n";
    fs::write(context.join("Dockerfile"), text).unwrap();
    let dir = context.display().to_string();
    let built = user.run(&["build", "--progress", "plain", "-t", "made", &dir]);
    let out = built.ok();
    assert!(
        out.contains("33:34") && out.contains("Successfully tagged made:latest"),
        "{out}"
    );
    // Root of the step is the user, not the machine's root.
    assert!(out.contains(&format!("0      {UID}")), "{out}");
    assert_eq!(
        user.run(&["run", "--rm", "--network", "none", "made"]).ok(),
        "12:13"
    );
    let again = user
        .run(&["build", "--progress", "plain", "-t", "made", &dir])
        .ok();
    assert!(!again.contains("Running in"), "{again}");
    let error = "FROM busybox\nRUN exit 3\n";
    fs::write(context.join("Dockerfile"), error).unwrap();
    user.run(&["build", &dir]).fails(3);
}

#[test]
fn what_pasta_needs_is_told() {
    let mut user = User::new(Subordinate::Ids);
    user.allow_tun(0o600);
    let error = user.run(&["run", "--rm", "busybox", "true"]).fails(125);
    assert!(error.contains("pasta cannot open /dev/net/tun"), "{error}");
    assert!(error.contains("--network host"), "{error}");
    user.only(&["sh", "mount", "setpriv", "newuidmap", "newgidmap"]);
    let error = user.run(&["run", "--rm", "busybox", "true"]).fails(125);
    assert!(error.contains("install the package passt"), "{error}");
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn get(port: u16) -> String {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        let _ = stream.read_to_string(&mut text);
    }
    text
}

fn parent(pid: &str) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(1).unwrap().parse().unwrap()
}
