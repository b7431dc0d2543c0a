//! buildah: it waits for the container's process itself.

use clients::{Machine, Row};

use crate::{import, podman};

const WORDS: &str = r#"
export BUILDAH_ISOLATION=oci BUILDAH_RUNTIME=/usr/local/bin/keel
R="buildah run --network none"
B="buildah build --no-cache --network none --cgroup-parent /$TOKEN/build"
mkdir -p /run/b
"#;

const ROWS: &[Row] = &[
    Row::new(
        "from",
        "buildah from --cgroup-parent /$TOKEN/run --name w localhost/busybox",
        &["w"],
    ),
    Row::new("run", "$R w -- echo hi", &["hi"]),
    Row::ends("the exit code", "$R w -- sh -c 'exit 7'", 7, &[]),
    Row::ends(
        "no program",
        "$R w -- nosuch",
        1,
        &["executable file", "not found"],
    ),
    Row::new("--user", "$R --user app w -- id", &["uid=1000(app)"]),
    Row::new(
        "--tty",
        "script -qec \"$R -t w -- tty\" /dev/null",
        &["/dev/"],
    ),
    Row::new("standard input", "echo text | $R w -- cat", &["text"]),
    Row::new(
        "a bind",
        "$R -v /run/image/etc:/mnt:ro w -- ls /mnt",
        &["passwd"],
    ),
    Row::new(
        "a bind with words for buildah itself",
        "mkdir /run/b/z; $R -v /run/b/z:/mnt:z,U --user app w -- touch /mnt/x; \
         $R --mount type=cache,target=/c,Z w -- touch /c/x; stat -c %u /run/b/z/x",
        &["1000"],
    ),
    Row::new(
        "the host's network",
        "buildah run --network host w -- ip link",
        &["lo"],
    ),
    Row::new(
        "the host's namespaces",
        "$R --pid host --ipc host --uts host w -- ps",
        &["sleep infinity"],
    ),
    Row::new(
        "--cap-drop",
        "$R --cap-drop all w -- grep CapEff /proc/self/status",
        &["0000000000000000"],
    ),
    Row::new(
        "commit",
        "$R w -- touch /new; buildah commit -q w localhost/zz; buildah rm w",
        &[],
    ),
    Row::new(
        "build",
        "printf 'FROM localhost/busybox\nRUN echo built >/f\nRUN --mount=type=cache,target=/c touch /c/x && cat /f\nUSER app\nRUN id\n' >/run/b/A; $B -f /run/b/A /run/b",
        &["built", "uid=1000(app)"],
    ),
    Row::new(
        "a build shows no warning of the runtime's",
        "! $B -f /run/b/A /run/b 2>&1 | grep level=",
        &[],
    ),
    Row::new(
        "build with limits",
        "$B --memory 64m --cpu-shares 100 --ulimit nofile=99:99 --ulimit nproc=99:99 --shm-size 1m -f /run/b/A /run/b",
        &["built"],
    ),
    Row::new(
        "build with a secret",
        "echo sss >/run/b/s; printf 'FROM localhost/busybox\nRUN --mount=type=secret,id=x cat /run/secrets/x\n' >/run/b/C; $B --secret id=x,src=/run/b/s -f /run/b/C /run/b",
        &["sss"],
    ),
    Row::new(
        "build in a user namespace",
        "printf 'FROM localhost/busybox\nRUN cat /proc/self/uid_map\n' >/run/b/D; $B --userns-uid-map 0:100000:65536 --userns-gid-map 0:100000:65536 -f /run/b/D /run/b",
        &["100000"],
    ),
    Row::ends(
        "build that fails",
        "printf 'FROM localhost/busybox\nRUN exit 3\n' >/run/b/E; $B -f /run/b/E /run/b",
        3,
        &["exit status 3"],
    ),
];

#[test]
fn buildah_works_with_it() {
    let machine = podman();
    import(&machine);
    machine.try_all("buildah", ROWS, |machine: &Machine, script| {
        machine.sh(&format!("{WORDS}{script}"))
    });
    machine.run_scripts_of("buildah");
}
