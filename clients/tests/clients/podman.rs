//! podman as root: conmon is the runtime's parent.
//!
//! Debian's runc 1.1.5 fails four rows: it ignores the personality, has no `--cgroup-manager`, cannot
//! start with 8 MiB, and for that leaves a cgroup behind.

use clients::{Machine, Row};

use crate::{import, podman};

/// `$I` is the image, `$P` what all containers are made with, `$T` a terminal of 33 rows.
const WORDS: &str = r#"
I=localhost/busybox
P="--rm --net none --cgroup-parent /$TOKEN"
T() { script -qec "stty rows 33 cols 77; $*" /dev/null; }
"#;

const RUN: &[Row] = &[
    Row::new("run", "podman run $P $I echo hello", &["hello\n"]),
    Row::ends("the exit code", "podman run $P $I sh -c 'exit 7'", 7, &[]),
    Row::ends(
        "no program",
        "podman run $P $I nosuch",
        127,
        &["executable file", "not found"],
    ),
    Row::ends(
        "no file",
        "podman run $P $I /no/such",
        127,
        &["no such file or directory"],
    ),
    Row::ends("a directory", "podman run $P $I /etc", 126, &[]),
    Row::ends(
        "not executable",
        "podman run $P $I /etc/passwd",
        126,
        &["permission denied"],
    ),
    Row::new("--tty", "podman run -t $P $I tty", &["/dev/"]),
    Row::new(
        "the terminal's size",
        "T podman run -it $P $I timeout 5 sh -c \"'until stty size | grep 33; do sleep 0.1; done'\"",
        &["33 77"],
    ),
    Row::new(
        "standard input",
        "echo text | podman run -i $P $I cat",
        &["text"],
    ),
    Row::new(
        "descriptors",
        "podman run --preserve-fds 1 $P $I cat /proc/self/fd/3 3< <(echo fd)",
        &["fd"],
    ),
    Row::new(
        "--user",
        "podman run -u app --group-add 5 $P $I id",
        &["uid=1000(app) gid=1000(app)", "5"],
    ),
    Row::new("--workdir", "podman run -w /tmp $P $I pwd", &["/tmp"]),
    Row::new("--hostname", "podman run -h hh $P $I hostname", &["hh"]),
    Row::new(
        "--umask",
        "podman run --umask 0077 $P $I sh -c umask",
        &["0077"],
    ),
    Row::new(
        "--personality",
        "podman run --personality LINUX32 $P $I uname -m",
        &["i686"],
    ),
    Row::new(
        "--init",
        "podman run --init --init-path /usr/bin/docker-init $P $I ps",
        &["1 root", "init"],
    ),
    Row::new(
        "--rootfs",
        "podman run $P --rootfs /run/image /bin/echo hi",
        &["hi"],
    ),
    Row::new(
        "--rootfs with an overlay",
        "podman run $P --rootfs /run/image:O /bin/echo hi",
        &["hi"],
    ),
    Row::new(
        "--systemd",
        "podman run --systemd always $P $I mount",
        &[" on /run type tmpfs"],
    ),
];

const SECURITY: &[Row] = &[
    Row::new(
        "the default profile",
        "podman run $P $I grep Seccomp: /proc/self/status",
        &["2"],
    ),
    Row::new(
        "no profile",
        "podman run --security-opt seccomp=unconfined $P $I grep Seccomp: /proc/self/status",
        &["0"],
    ),
    Row::ends(
        "a profile of one's own",
        r#"echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}' >/run/p.json
           podman run --security-opt seccomp=/run/p.json $P $I mkdir /x"#,
        1,
        &["Operation not permitted"],
    ),
    Row::new(
        "no-new-privileges",
        "podman run --security-opt no-new-privileges $P $I grep NoNewPrivs /proc/self/status",
        &["1"],
    ),
    Row::new(
        "masks",
        "podman run --security-opt mask=/etc/passwd $P $I wc -c /etc/passwd",
        &["0 /etc/passwd"],
    ),
    Row::new(
        "capabilities",
        "podman run --cap-drop all --cap-add NET_ADMIN $P $I grep CapEff /proc/self/status",
        &["0000000000001000"],
    ),
    Row::new(
        "no capabilities",
        "podman run --cap-drop all $P $I grep CapPrm /proc/self/status",
        &["0000000000000000"],
    ),
    Row::new(
        "--privileged",
        "podman run --privileged $P $I sh -c 'ls /dev; mount -t tmpfs t /mnt || mkdir /mnt && mount -t tmpfs t /mnt'",
        &["fuse"],
    ),
    Row::ends(
        "--read-only",
        "podman run --read-only $P $I touch /x",
        1,
        &["Read-only file system"],
    ),
    Row::new(
        "--device",
        "podman run --device /dev/zero:/dev/mine:r $P $I head -c 3 /dev/mine",
        &[],
    ),
    Row::ends(
        "a device that was not given",
        "podman run $P $I sh -c 'mknod /tmp/k c 1 11 && cat /tmp/k'",
        1,
        &["not permitted"],
    ),
    Row::new(
        "--ulimit",
        "podman run --ulimit nofile=77:77 --ulimit nproc=99:99 $P $I sh -c 'ulimit -n'",
        &["77"],
    ),
    Row::new(
        "--oom-score-adj",
        "podman run --oom-score-adj 500 $P $I cat /proc/self/oom_score_adj",
        &["500"],
    ),
    Row::new(
        "--sysctl",
        "podman run --sysctl net.core.somaxconn=42 $P $I cat /proc/sys/net/core/somaxconn",
        &["42"],
    ),
];

const MOUNTS: &[Row] = &[
    Row::new(
        "--tmpfs",
        "podman run --tmpfs /x:size=1m,mode=1777 $P $I df /x",
        &["1024"],
    ),
    Row::ends(
        "a read-only bind",
        "podman run --mount type=bind,src=/run/image/etc,dst=/mnt,ro $P $I touch /mnt/q",
        1,
        &["Read-only"],
    ),
    Row::ends(
        "a bind without programs",
        "podman run -v /run/image/bin:/mnt:noexec $P $I /mnt/busybox true",
        126,
        &["ermission denied"],
    ),
    Row::new(
        "a volume",
        "podman run -v one:/data $P $I touch /data/a; podman run -v one:/data $P $I ls /data",
        &["a"],
    ),
    Row::new(
        "an overlay volume",
        "podman run -v /run/image/etc:/mnt:O $P $I touch /mnt/x; ls /run/image/etc/x || echo gone",
        &["gone"],
    ),
    Row::new(
        "a file at a new place",
        "podman run -v /etc/hostname:/a/b/c:ro $P $I cat /a/b/c",
        &[],
    ),
    Row::ends(
        "a file over a directory",
        "podman run -v /etc/hostname:/tmp $P $I true",
        126,
        &["not a directory"],
    ),
    Row::new(
        "--shm-size",
        "podman run --shm-size 1m $P $I df /dev/shm",
        &["1024"],
    ),
    Row::new(
        "a secret",
        "echo s3 | podman secret create sec - && podman run --secret sec $P $I cat /run/secrets/sec",
        &["s3"],
    ),
];

const NAMESPACES: &[Row] = &[
    Row::new(
        "the host's processes",
        "podman run --pid host $P $I ps",
        &["sleep infinity"],
    ),
    Row::new(
        "the host's network",
        "podman run --rm --net host --cgroup-parent /$TOKEN $I ip link",
        &["lo"],
    ),
    Row::new(
        "the host's ipc and uts",
        "podman run --ipc host --uts host $P $I true",
        &[],
    ),
    Row::new(
        "a bridge",
        "podman run --rm --cgroup-parent /$TOKEN $I ip addr show eth0",
        &["inet 10.88."],
    ),
    Row::new(
        "another container's",
        "podman run -d --name j1 $P $I sleep 100
         podman run --pid container:j1 --ipc container:j1 --net container:j1 --uts container:j1 \
           --rm --cgroup-parent /$TOKEN $I ps; podman rm -f -t0 j1",
        &["sleep 100"],
    ),
    Row::new(
        "a user namespace",
        "podman run --uidmap 0:100000:65536 --gidmap 0:100000:65536 -u app $P $I sh -c 'id; cat /proc/self/uid_map'",
        &["uid=1000(app)", "100000"],
    ),
    Row::new(
        "a privileged user namespace",
        "podman run --privileged --uidmap 0:100000:65536 --gidmap 0:100000:65536 $P $I readlink /dev/ptmx",
        &["pts/ptmx"],
    ),
    Row::new(
        "a user namespace with the host's processes",
        "podman run --pid host --uidmap 0:100000:65536 --gidmap 0:100000:65536 $P $I true",
        &[],
    ),
    Row::new(
        "an id-mapped volume",
        "podman run --uidmap 0:100000:65536 --gidmap 0:100000:65536 -v /run/image/etc:/mnt:idmap $P $I ls -ln /mnt",
        &["0"],
    ),
    Row::new(
        "the host's cgroups",
        "podman run --cgroupns host $P $I cat /proc/self/cgroup",
        &["libpod"],
    ),
    Row::new(
        "cgroups of its own",
        "podman run --cgroupns private $P $I cat /proc/self/cgroup",
        &[":/\n"],
    ),
];

const LIMITS: &[Row] = &[
    Row::new(
        "--memory",
        "podman run -m 64m --memory-reservation 32m $P $I cat /sys/fs/cgroup/memory/memory.limit_in_bytes",
        &["67108864"],
    ),
    Row::ends(
        "too much memory",
        "podman run -m 8m $P $I sh -c 'x=a; while :; do x=$x$x; done'",
        137,
        &[],
    ),
    Row::new(
        "--cpus",
        "podman run --cpus 0.5 --cpu-shares 100 --cpuset-cpus 0 $P $I cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us",
        &["50000"],
    ),
    Row::new(
        "--pids-limit",
        "podman run --pids-limit 33 $P $I cat /sys/fs/cgroup/pids/pids.max",
        &["33"],
    ),
    Row::new(
        "--cgroups=disabled",
        "podman run --rm --net none --cgroups disabled $I true",
        &[],
    ),
];

const LIFE: &[Row] = &[
    Row::new(
        "run --detach",
        "podman run -d --name d1 --net none --cgroup-parent /$TOKEN $I sleep 1000",
        &[],
    ),
    Row::new("exec", "podman exec d1 echo yes", &["yes"]),
    Row::ends("exec's exit code", "podman exec d1 sh -c 'exit 9'", 9, &[]),
    Row::ends("exec without a program", "podman exec d1 nosuch", 127, &[]),
    Row::new("exec --tty", "T podman exec -it d1 tty", &["/dev/pts/"]),
    Row::new(
        "exec's terminal size",
        "T podman exec -it d1 timeout 5 sh -c \"'until stty size | grep 33; do sleep 0.1; done'\"",
        &["33 77"],
    ),
    Row::new(
        "exec --user",
        "podman exec -u app -w /tmp -e X=5 d1 sh -c 'id; pwd; env'",
        &["uid=1000(app)", "/tmp", "X=5"],
    ),
    Row::new(
        "exec --detach",
        "podman exec -d d1 sh -c 'echo z >/tmp/z'; sleep 0.5; podman exec d1 cat /tmp/z",
        &["z"],
    ),
    Row::new(
        "exec's standard input",
        "echo text | podman exec -i d1 cat",
        &["text"],
    ),
    Row::new("exec --privileged", "podman exec --privileged d1 true", &[]),
    Row::new(
        "cp",
        "echo q >/tmp/q; podman cp /tmp/q d1:/tmp/q; podman exec d1 cat /tmp/q; podman cp d1:/etc/passwd - | tar xO",
        &["q", "app"],
    ),
    Row::new("top", "podman top d1 hpid pid args", &["sleep 1000"]),
    Row::new("stats", "podman stats --no-stream d1", &["d1"]),
    Row::new(
        "pause",
        "podman pause d1; podman inspect -f '{{.State.Status}}' d1",
        &["paused"],
    ),
    Row::new(
        "unpause",
        "podman unpause d1; podman inspect -f '{{.State.Status}}' d1",
        &["running"],
    ),
    Row::new(
        "update",
        "podman update --cpus 0.5 --memory 64m d1; podman exec d1 cat /sys/fs/cgroup/memory/memory.limit_in_bytes",
        &["67108864"],
    ),
    Row::new(
        "kill with another signal",
        "podman kill -s CONT d1; podman exec d1 true",
        &[],
    ),
    Row::new(
        "restart",
        "podman restart -t 0 d1; podman exec d1 true",
        &[],
    ),
    Row::new(
        "stop and start",
        "podman stop -t 0 d1; podman start d1; podman exec d1 true",
        &[],
    ),
    Row::new(
        "diff and commit",
        "podman exec d1 touch /newfile; podman diff d1; podman commit -q d1 localhost/new",
        &["/newfile"],
    ),
    Row::new(
        "kill and wait",
        "podman kill d1; podman wait d1; podman rm d1",
        &["137"],
    ),
    Row::new(
        "logs",
        "podman run -d --name l1 --net none --cgroup-parent /$TOKEN $I sh -c 'echo out; echo err >&2'; podman wait l1; podman logs l1; podman rm l1",
        &["out", "err"],
    ),
    Row::new(
        "attach",
        "podman create -i --name at --net none --cgroup-parent /$TOKEN $I cat; echo hey | podman start -ai at; podman rm at",
        &["hey"],
    ),
    Row::new(
        "a healthcheck",
        "podman run -d --name h1 --health-cmd true --health-interval disable $P $I sleep 100; podman healthcheck run h1; podman inspect -f '{{.State.Health.Status}}' h1; podman rm -f -t0 h1",
        &["healthy"],
    ),
    Row::ends(
        "a failing healthcheck",
        "podman run -d --name h2 --health-cmd false --health-interval disable $P $I sleep 100; podman healthcheck run h2; c=$?; podman rm -f -t0 h2; exit $c",
        1,
        &["unhealthy"],
    ),
    Row::new(
        "a restart policy",
        "podman run --name rp --restart on-failure:2 --net none --cgroup-parent /$TOKEN $I false; sleep 2; podman inspect -f '{{.RestartCount}}' rp; podman rm -f rp",
        &["2"],
    ),
    Row::new(
        "a pod",
        "podman pod create --name p1 --cgroup-parent /$TOKEN --network none --infra-image $I --infra-command 'sleep 1000' --share net,ipc,uts,pid && podman run -d --pod p1 --name pa $I sleep 1000 && podman run --rm --pod p1 $I ps",
        &["sleep 1000"],
    ),
    Row::new(
        "a pod's life",
        "podman pod pause p1; podman pod unpause p1; podman pod stop -t 0 p1; podman pod rm -f p1; podman pod ps -q | wc -l",
        &["0"],
    ),
    Row::new(
        "build",
        "mkdir -p /run/b; printf 'FROM localhost/busybox\nRUN echo built >/f\nRUN --mount=type=cache,target=/c cat /f\nUSER app\nRUN id\n' >/run/b/Containerfile; podman build -q --network none --cgroup-parent /$TOKEN/build -t localhost/b /run/b; podman run $P localhost/b cat /f",
        &["built"],
    ),
    Row::new(
        "sdnotify",
        "socat -u UNIX-RECV:/run/ns.sock CREATE:/run/ns.out & sleep 0.5; NOTIFY_SOCKET=/run/ns.sock timeout 5 podman run --sdnotify container $P $I sh -c 'ls $NOTIFY_SOCKET'; kill $!; cat /run/ns.out",
        &["notify.sock", "MAINPID"],
    ),
    Row::new(
        "nothing is left",
        "podman ps -aq | wc -l; find /sys/fs/cgroup -path \"*$TOKEN*\" -name 'libpod-*' | grep -v conmon | wc -l; ls /run/keel | wc -l",
        &["0\n0\n0\n"],
    ),
];

#[test]
fn podman_works_with_it() {
    let machine = podman();
    import(&machine);
    let rows: Vec<Row> = [RUN, SECURITY, MOUNTS, NAMESPACES, LIMITS, LIFE].concat();
    machine.try_all("podman", &rows, |machine: &Machine, script| {
        machine.sh(&format!("{WORDS}{script}"))
    });
    machine.run_scripts_of("podman");
}
