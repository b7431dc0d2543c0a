//! The Docker engine: dockerd starts a containerd of its own.

use clients::{Machine, Row};

const WORDS: &str = r#"
I=busybox
R="docker run --cgroup-parent /$TOKEN --network none"
D="$R -d --name"
T() { script -qec "stty rows 33 cols 77; $*" /dev/null; }
"#;

const RUN: &[Row] = &[
    Row::new("run", "$R --rm $I echo hello", &["hello"]),
    Row::ends("the exit code", "$R --rm $I sh -c 'exit 7'", 7, &[]),
    Row::ends(
        "no program",
        "$R --rm $I nosuch",
        127,
        &["executable file not found"],
    ),
    Row::ends(
        "no file",
        "$R --rm $I /no/such",
        127,
        &["no such file or directory"],
    ),
    Row::ends("a directory", "$R --rm $I /etc", 126, &[]),
    Row::ends(
        "not executable",
        "$R --rm $I /etc/passwd",
        126,
        &["permission denied"],
    ),
    Row::ends(
        "a file over a directory",
        "$R --rm -v /etc/hostname:/tmp $I true",
        125,
        &[
            "not a directory",
            "Are you trying to mount a directory onto a file",
        ],
    ),
    Row::new("--tty", "$R --rm -t $I tty", &["/dev/"]),
    Row::new(
        "the terminal's size",
        "T $R --rm -it $I timeout 5 sh -c \"'until stty size | grep 33; do sleep 0.1; done'\"",
        &["33 77"],
    ),
    Row::new(
        "--user",
        "$R --rm -u app --group-add 5 $I id",
        &["uid=1000(app)", "5"],
    ),
    Row::new("--init", "$R --rm --init $I ps", &["docker-init"]),
    Row::new(
        "--memory",
        "$R --rm -m 64m $I cat /sys/fs/cgroup/memory/memory.limit_in_bytes",
        &["67108864"],
    ),
    Row::new(
        "--cpus",
        "$R --rm --cpus 0.5 $I cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us",
        &["50000"],
    ),
    Row::new(
        "--pids-limit",
        "$R --rm --pids-limit 33 $I cat /sys/fs/cgroup/pids/pids.max",
        &["33"],
    ),
    Row::new(
        "too much memory",
        "$R --name oo -m 8m $I sh -c 'x=a; while :; do x=$x$x; done'; docker inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' oo; docker rm oo",
        &["true 137"],
    ),
    Row::ends(
        "--read-only",
        "$R --rm --read-only $I touch /x",
        1,
        &["Read-only"],
    ),
    Row::new(
        "--tmpfs",
        "$R --rm --tmpfs /x:size=1m,mode=1777 $I df /x",
        &["1024"],
    ),
    Row::ends(
        "a read-only bind",
        "$R --rm -v /run/image/etc:/mnt:ro $I touch /mnt/q",
        1,
        &["Read-only"],
    ),
    Row::new(
        "a volume",
        "$R --rm -v one:/etc $I touch /etc/a; $R --rm -v one:/data $I ls /data",
        &["a\n", "passwd"],
    ),
    Row::new(
        "--device",
        "$R --rm --device /dev/fuse --device-cgroup-rule 'c 1:5 r' $I ls -l /dev/fuse",
        &["10, 229"],
    ),
    Row::new(
        "capabilities",
        "$R --rm --cap-drop ALL --cap-add NET_ADMIN $I grep CapEff /proc/self/status",
        &["0000000000001000"],
    ),
    Row::new(
        "the default profile",
        "$R --rm $I grep Seccomp: /proc/self/status",
        &["2"],
    ),
    Row::new(
        "no profile",
        "$R --rm --security-opt seccomp=unconfined $I grep Seccomp: /proc/self/status",
        &["0"],
    ),
    Row::new(
        "no-new-privileges",
        "$R --rm --security-opt no-new-privileges $I grep NoNewPrivs /proc/self/status",
        &["1"],
    ),
    Row::new(
        "--sysctl",
        "$R --rm --sysctl net.core.somaxconn=42 $I cat /proc/sys/net/core/somaxconn",
        &["42"],
    ),
    Row::new(
        "--ulimit",
        "$R --rm --ulimit nofile=77:77 $I sh -c 'ulimit -n'",
        &["77"],
    ),
    Row::new(
        "the host's processes",
        "$R --rm --pid host $I ps",
        &["dockerd"],
    ),
    Row::new(
        "the host's ipc and uts",
        "$R --rm --ipc host --uts host $I true",
        &[],
    ),
    Row::new(
        "cgroups of its own",
        "$R --rm --cgroupns private $I cat /proc/self/cgroup",
        &[":/\n"],
    ),
    Row::new(
        "--oom-score-adj",
        "$R --rm --oom-score-adj 500 $I cat /proc/self/oom_score_adj",
        &["500"],
    ),
    Row::new(
        "--shm-size",
        "$R --rm --shm-size 1m $I df /dev/shm",
        &["1024"],
    ),
    Row::new(
        "a bridge",
        "docker run --rm --cgroup-parent /$TOKEN $I ip addr show eth0",
        &["inet 172."],
    ),
    Row::new(
        "a published port",
        "docker run -d --name web --cgroup-parent /$TOKEN -p 127.0.0.1:8099:80 $I httpd -f -p 80 -h /etc; sleep 0.5; curl -s http://127.0.0.1:8099/passwd; docker rm -f web",
        &["app"],
    ),
];

const LIFE: &[Row] = &[
    Row::new("run --detach", "$D d1 $I sleep 1000", &[]),
    Row::new("exec", "docker exec d1 echo yes", &["yes"]),
    Row::ends("exec's exit code", "docker exec d1 sh -c 'exit 6'", 6, &[]),
    // The engine says 126 for both: its errors.go looks at the start's error only.
    Row::ends(
        "exec without a program",
        "docker exec d1 nosuch",
        126,
        &["executable file not found"],
    ),
    Row::ends(
        "exec of no program",
        "docker exec d1 /etc/passwd",
        126,
        &["permission denied"],
    ),
    Row::new("exec --tty", "T docker exec -it d1 tty", &["/dev/pts/"]),
    Row::new(
        "exec --user",
        "docker exec -u app -w /tmp -e A=b d1 sh -c 'id; pwd; env'",
        &["uid=1000(app)", "/tmp", "A=b"],
    ),
    Row::new(
        "exec --detach",
        "docker exec -d d1 sh -c 'echo z >/tmp/z'; sleep 0.5; docker exec d1 cat /tmp/z",
        &["z"],
    ),
    Row::new(
        "exec's standard input",
        "echo text | docker exec -i d1 cat",
        &["text"],
    ),
    Row::new("top", "docker top d1", &["sleep 1000"]),
    Row::new("stats", "docker stats --no-stream d1", &["d1"]),
    Row::new(
        "pause",
        "docker pause d1; docker inspect -f '{{.State.Status}}' d1",
        &["paused"],
    ),
    Row::new(
        "unpause",
        "docker unpause d1; docker inspect -f '{{.State.Status}}' d1",
        &["running"],
    ),
    Row::new(
        "update",
        "docker update --cpus 0.5 --memory 64m --memory-swap 128m --pids-limit 50 --cpuset-cpus 0 --cpu-shares 99 d1; docker exec d1 sh -c 'cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us cpuset/cpuset.cpus cpu/cpu.shares'",
        &["67108864", "50", "50000", "0", "99"],
    ),
    Row::new(
        "cp and diff",
        "echo q >/tmp/q; docker cp /tmp/q d1:/tmp/q; docker exec d1 cat /tmp/q; docker diff d1",
        &["q", "A /tmp/q"],
    ),
    Row::new(
        "restart",
        "docker restart -t 0 d1; docker exec d1 true",
        &[],
    ),
    Row::new(
        "stop and start",
        "docker stop -t 0 d1; docker start d1; docker exec d1 true",
        &[],
    ),
    Row::new(
        "kill",
        "docker kill -s HUP d1; docker kill d1; docker wait d1; docker rm -f d1",
        &[],
    ),
    Row::new(
        "stop with a handler",
        "$D st $I sh -c 'trap \"exit 3\" TERM; while :; do sleep 0.1; done'; sleep 0.5; docker stop -t 9 st; docker inspect -f '{{.State.ExitCode}}' st; docker rm st",
        &["3\n"],
    ),
    Row::new(
        "logs",
        "$D l1 $I sh -c 'echo out; echo err >&2'; docker wait l1; docker logs l1; docker rm l1",
        &["out"],
    ),
    Row::new(
        "attach",
        "docker create -i --name at --network none $I cat; echo hey | docker start -ai at; docker rm at",
        &["hey"],
    ),
    Row::new(
        "restart on failure",
        "$D rs --restart on-failure:2 $I false; sleep 3; docker inspect -f '{{.RestartCount}}' rs; docker rm -f rs",
        &["2"],
    ),
    Row::new(
        "restart always",
        "$D ra --restart always $I sleep 0.3; sleep 2; docker inspect -f 'again {{gt .RestartCount 0}}' ra; docker rm -f ra",
        &["again true"],
    ),
    Row::new(
        "a healthcheck",
        "$D h1 --health-cmd true --health-interval 300ms $I sleep 100; sleep 2; docker inspect -f '{{.State.Health.Status}}' h1; docker rm -f h1",
        &["healthy"],
    ),
    Row::new(
        "a failing healthcheck",
        "$D h2 --health-cmd false --health-interval 300ms --health-retries 1 $I sleep 100; sleep 2; docker inspect -f '{{.State.Health.Status}}' h2; docker rm -f h2",
        &["unhealthy"],
    ),
    Row::new(
        "another container's namespaces",
        "$D j1 --ipc shareable $I sleep 100; docker run --rm --net container:j1 --pid container:j1 --ipc container:j1 $I ps; docker rm -f j1",
        &["sleep 100"],
    ),
    Row::new(
        "build",
        "mkdir -p /run/b; printf 'FROM busybox\nRUN echo built >/f\nRUN cat /f\nUSER app\nRUN id\n' >/run/b/Dockerfile; DOCKER_BUILDKIT=0 docker build --network none -t b1 /run/b; docker run --rm --network none b1 cat /f",
        &["uid=1000(app)", "built"],
    ),
    Row::new(
        "nothing is left",
        "docker ps -aq | wc -l; ls /run/docker/runtime-runc/moby | wc -l; find /sys/fs/cgroup -type d -path \"*/$TOKEN/*\" | wc -l",
        &["0\n0\n0\n"],
    ),
];

#[test]
fn docker_works_with_it() {
    let machine = Machine::start();
    machine.write_files_of("docker");
    machine.daemon(
        "dockerd",
        "dockerd --default-cgroupns-mode host",
        "docker info",
    );
    let import = "docker import -c 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin' -c 'CMD [\"sh\"]' \
                  /run/image.tar busybox";
    let _ = machine.sh(import).succeeds();
    let rows = [RUN, LIFE].concat();
    machine.try_all("docker", &rows, |machine: &Machine, script| {
        machine.sh(&format!("{WORDS}{script}"))
    });
    machine.run_scripts_of("docker");
    let _ = machine
        .sh("docker ps -aq | xargs -r docker rm -f")
        .succeeds();
}
