//! Many containers: alive at once, and started many at a time.
//!
//! `KEEL_SOAK=full` takes 500 and 2,000; the default is a taste of each. Either way Debian's runc does
//! the same in turn, and crun without cgroups, since a device program takes it CAP_SYS_RESOURCE; the
//! figures are printed.

use std::time::Instant;

use clients::{Machine, report};

use crate::containerd;

/// How many live at once, and how many are started.
fn sizes() -> (u32, u32) {
    if std::env::var("KEEL_SOAK").is_ok_and(|size| size == "full") {
        return (500, 2000);
    }
    (20, 64)
}

/// The runtime under test and its peers: name, path on the machine.
const RUNTIMES: [(&str, &str); 3] = [
    ("keel", "/usr/local/bin/keel"),
    ("runc", "/usr/sbin/runc"),
    ("crun", "/usr/bin/crun --cgroup-manager disabled"),
];

/// A bundle, `$B`, in whose config.json each container's cgroup is its own; `$K` is the runtime.
const BUNDLE: &str = r#"
set -e
B=/run/bundle/$1
mkdir -p "$B"
jq --arg id "$1" --arg seconds "$2" '.process.terminal = false | .process.rlimits = []
  | .process.args = ["sleep", $seconds] | .linux.cgroupsPath = "/\(env.TOKEN)/\($id)"' \
  /run/config.json >"$B/config.json"
"#;

fn prepare(machine: &Machine) {
    machine.write("/run/make-bundle", BUNDLE);
    // crun knows no hybrid of v1 and v2.
    let script = "mount -t cgroup2 none /sys/fs/cgroup && cd /run && runc spec && jq '.root.path = \"/run/image\" | .mounts |= map(select(.type != \"cgroup\"))' config.json >c && mv c config.json";
    let _ = machine.sh(script).succeeds();
}

/// Runs a script and prints its time; an error is the runtime's.
fn timed(machine: &Machine, what: &str, script: &str) -> bool {
    let start = Instant::now();
    let output = machine.sh(script);
    let millis = start.elapsed().as_millis();
    let ok = output.code == 0;
    report(&format!(
        "{what}: {}\n",
        if ok {
            format!("{millis} ms")
        } else {
            output.to_string()
        }
    ));
    ok
}

#[test]
fn many_live_at_once_below_containerd() {
    let machine = Machine::start();
    containerd::daemon(&machine);
    let token = machine.token();
    containerd::import(&machine, token);
    let (alive, _) = sizes();
    for (name, path) in &RUNTIMES[..2] {
        let script = format!(
            r#"set -e
            start() {{ ctr -n $TOKEN run -d --null-io --runtime io.containerd.runc.v2 --runc-binary {path} \
                docker.io/library/busybox:latest {name}-$1 sleep 10000; }}
            stop() {{ ctr -n $TOKEN task rm -f {name}-$1 >/dev/null; ctr -n $TOKEN c rm {name}-$1; }}
            export -f start stop
            seq {alive} | xargs -P 8 -I% bash -c 'start %' >/run/out 2>&1 || {{ tail -2 /run/out; exit 1; }}
            [ $(ctr -n $TOKEN task ls | grep -c "^{name}-.*RUNNING") = {alive} ]
            seq {alive} | xargs -P 8 -I% bash -c 'stop %'
            [ $(ls /run/containerd/runc/$TOKEN | wc -l) = 0 ]
            [ -z "$(pgrep -xf 'sleep 10000')" ]"#
        );
        let ok = timed(
            &machine,
            &format!("containerd, {name}, {alive} alive"),
            &script,
        );
        assert!(ok, "{name}: see above");
        let _ = machine.sh("ctr -n $TOKEN c ls -q | xargs -r ctr -n $TOKEN c rm");
    }
}

#[test]
fn many_live_at_once_and_many_are_started_without_a_daemon() {
    let machine = Machine::start();
    prepare(&machine);
    let (alive, starts) = sizes();
    for (name, path) in RUNTIMES {
        let live = format!(
            r#"set -e
            start() {{ bash /run/make-bundle $1 10000; cd /run/bundle/$1
                {path} --root /run/{name} run -d $1 </dev/null >/run/out.$1 2>&1 || {{ cat /run/out.$1; exit 255; }}; }}
            export -f start
            seq -f {name}-%g {alive} | xargs -P 8 -I% bash -c 'start %'
            [ $({path} --root /run/{name} list | grep -c running) = {alive} ]
            seq -f {name}-%g {alive} | xargs -P 8 -n 1 {path} --root /run/{name} delete --force
            [ $(ls /run/{name} | wc -l) = 0 ]
            [ $(find /sys/fs/cgroup -type d -path "*/$TOKEN/{name}-*" | wc -l) = 0 ]"#
        );
        let live = timed(&machine, &format!("{name}, {alive} alive"), &live);
        let each = format!(
            r#"set -e
            for n in 1 2 3 4 5 6 7 8; do bash /run/make-bundle {name}-w$n 0; done
            work() {{ for i in $(seq $(({starts} / 8))); do
                {path} --root /run/{name} run -b /run/bundle/$1 $1 </dev/null || exit 255; done; }}
            export -f work
            seq -f {name}-w%g 8 | xargs -P 8 -I% bash -c 'work %'
            [ $(ls /run/{name} | wc -l) = 0 ]
            [ $(find /sys/fs/cgroup -type d -path "*/$TOKEN/{name}-*" | wc -l) = 0 ]"#
        );
        let each = timed(
            &machine,
            &format!("{name}, {starts} starts, 8 at a time"),
            &each,
        );
        assert!(live && each, "{name}: see above");
    }
}
