//! podman of a user without rights.

use clients::{Machine, Row};

use crate::podman;

const WORDS: &str = r#"
I=localhost/busybox
P="--rm --net none"
export CONTAINERS_STORAGE_CONF=$HOME/storage.conf
"#;

const ROWS: &[Row] = &[
    Row::new("run", "podman run $P $I id", &["uid=0(root) gid=0(root)"]),
    Row::ends("the exit code", "podman run $P $I sh -c 'exit 7'", 7, &[]),
    Row::ends("no program", "podman run $P $I nosuch", 127, &[]),
    Row::new("--user", "podman run -u app $P $I id", &["uid=1000(app)"]),
    Row::new(
        "--userns keep-id",
        "podman run --userns keep-id $P $I id",
        &["uid=4000"],
    ),
    Row::new(
        "--userns nomap",
        "podman run --userns nomap $P $I id",
        &["uid=0"],
    ),
    Row::new("--tty", "podman run -t $P $I tty", &["/dev/"]),
    Row::new(
        "--privileged",
        "podman run --privileged $P $I mount",
        &["proc on /proc"],
    ),
    Row::ends(
        "--read-only",
        "podman run --read-only $P $I touch /x",
        1,
        &["Read-only"],
    ),
    Row::new(
        "a bind",
        "podman run -v /run/image/etc:/mnt:ro $P $I ls /mnt",
        &["passwd"],
    ),
    Row::new(
        "a device",
        "podman run --device /dev/fuse $P $I ls -l /dev/fuse",
        &["10, 229"],
    ),
    Row::new("--tmpfs", "podman run --tmpfs /x $P $I touch /x/a", &[]),
    Row::new(
        "the host's network",
        "podman run --rm --net host $I ip link",
        &["lo"],
    ),
    Row::new(
        "the host's processes",
        "podman run --pid host $P $I ps",
        &["sleep infinity"],
    ),
    Row::new(
        "the host's cgroups",
        "podman run --cgroupns host $P $I ls /sys/fs/cgroup",
        &["cpu"],
    ),
    Row::new(
        "cgroups of its own",
        "podman run --cgroupns private $P $I cat /proc/self/cgroup",
        &[":/\n"],
    ),
    Row::new(
        "--sysctl",
        "podman run --sysctl net.core.somaxconn=7 $P $I cat /proc/sys/net/core/somaxconn",
        &["7"],
    ),
    Row::new(
        "--init",
        "podman run --init --init-path /usr/bin/docker-init $P $I ps",
        &["init"],
    ),
    Row::new(
        "run --detach",
        "podman run -d --name d1 --net none $I sleep 1000",
        &[],
    ),
    Row::new("exec", "podman exec -u app d1 id", &["uid=1000(app)"]),
    Row::ends("exec's exit code", "podman exec d1 sh -c 'exit 9'", 9, &[]),
    Row::new("exec --tty", "podman exec -t d1 tty", &["/dev/pts/"]),
    Row::new("top", "podman top d1 args", &["sleep 1000"]),
    Row::new(
        "stop, start, kill",
        "podman stop -t0 d1; podman start d1; podman kill d1; podman rm -f d1",
        &[],
    ),
    Row::new(
        "logs",
        "podman run -d --name l1 --net none $I echo hi; podman wait l1; podman logs l1; podman rm l1",
        &["hi"],
    ),
    Row::new(
        "a pod",
        "podman pod create --network none --name p1 --infra-image $I --infra-command 'sleep 1000' && podman run --rm --pod p1 $I hostname && podman pod rm -f -t0 p1",
        &["p1"],
    ),
    Row::new(
        "a healthcheck",
        "podman run -d --name h1 --health-cmd true --health-interval disable $P $I sleep 100; podman healthcheck run h1; podman inspect -f '{{.State.Health.Status}}' h1; podman rm -f -t0 h1",
        &["healthy"],
    ),
    Row::new(
        "build",
        "mkdir -p b; printf 'FROM localhost/busybox\nRUN id\nRUN touch /a\n' >b/Containerfile; podman build --network none -t localhost/q b",
        &["uid=0(root)"],
    ),
];

#[test]
fn podman_without_rights_works_with_it() {
    let machine = podman();
    let storage = "[storage]\ndriver = \"vfs\"\n";
    machine.write("/home/tester/storage.conf", storage);
    let run = |machine: &Machine, script: &str| machine.sh_as_user(&format!("{WORDS}{script}"));
    let import = "podman import -c 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin' -c 'CMD [\"sh\"]' \
                  /run/image.tar localhost/busybox";
    let _ = run(&machine, import).succeeds();
    machine.try_all("rootless podman", ROWS, run);
    let _ = run(&machine, "podman rm -fa -t 0").succeeds();
}
