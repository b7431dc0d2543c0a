//! What a command costs must not creep up: its system calls, and the instructions of keel itself.
//!
//! Not time, which says more about the machine than about keel. The limits are what was measured
//! when they were set (see `docs/performance.md`); whoever makes keel cheaper lowers them. keel sees
//! cgroup v2 alone, in a mount namespace of its own, so that every host counts alike.

use std::fs;

use integration::{Bundle, Call, Kind, Runtime};

/// How far above its limit a count may be, in percent, for kernels and hosts that differ.
const TOLERANCE: u64 = 10;

/// System calls of all processes of a command, busybox's `true` among them (15).
const RUN: u64 = 398;
/// See [`RUN`].
const EXEC: u64 = 196;
/// See [`RUN`].
const STATE: u64 = 38;

/// Thousands of instructions of a debug build. A quarter of them are musl's and dlmalloc's, which take more
/// instructions than glibc's vectors, and less time.
const KILO_PLAN: u64 = 3210;
/// See [`KILO_PLAN`].
const KILO_STATE: u64 = 1430;

/// Executes the rest of its command line where cgroup v2 is mounted alone.
const ON_V2: &[&str] = &[
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"",
    "on-v2",
];

/// A call of the runtime behind `ON_V2` and `launcher`.
fn on_v2<'r>(call: Call<'r>, launcher: &[&str]) -> Call<'r> {
    call.through(ON_V2).through(launcher)
}

/// The system calls of `call`, of its children and of their programs, counted by strace(1).
fn system_calls(runtime: &Runtime, call: Call<'_>) -> u64 {
    let table = runtime.dir().join("calls");
    let name = table.to_str().expect("UTF-8");
    let _ = on_v2(call, &["strace", "-f", "-c", "-o", name])
        .run()
        .succeeds();
    let text = fs::read_to_string(&table).expect("strace writes it");
    let total = text.lines().find(|line| line.ends_with(" total"));
    // The table's fourth column: `% time  seconds  usecs/call  calls  errors  syscall`.
    let calls = total.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    calls.expect("strace gives a total")
}

/// The thousands of instructions of `call`, counted by valgrind(1).
fn kilo_instructions(runtime: &Runtime, call: Call<'_>) -> u64 {
    let file = runtime.dir().join("instructions");
    let out = format!("--callgrind-out-file={}", file.display());
    let _ = on_v2(call, &["valgrind", "-q", "--tool=callgrind", &out])
        .run()
        .succeeds();
    let text = fs::read_to_string(&file).expect("valgrind writes it");
    let sum = text.lines().find_map(|line| line.strip_prefix("summary:"));
    let sum: Option<u64> = sum.and_then(|count| count.trim().parse().ok());
    sum.expect("callgrind gives a sum") / 1000
}

/// A running container that was made on cgroup v2; its bundle.
fn started(runtime: &Runtime) -> Bundle {
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let call = runtime.call_run(&bundle).flag("--detach");
    let null = fs::File::open("/dev/null").expect("/dev/null is there");
    let _ = on_v2(call.stdin(null), &[]).run().succeeds();
    bundle
}

/// Deletes the container of `bundle` again.
fn delete(runtime: &Runtime, bundle: &Bundle) {
    let call = runtime.call(&["delete", "--force", bundle.id()]);
    let _ = on_v2(call, &[]).run().succeeds();
}

/// What was measured for a verb, and the limit.
type Row = (&'static str, u64, u64);

fn hold(rows: &[Row], unit: &str) {
    for (verb, count, limit) in rows {
        let most = limit + limit * TOLERANCE / 100;
        let why = format!("{verb} takes {count} {unit}, and {limit} were enough: {rows:?}");
        assert!(*count <= most, "{why}");
    }
}

#[test]
fn the_system_calls_of_run_exec_and_state_stay_few() {
    let runtime = Runtime::new();
    if runtime.kind() != Kind::Keel {
        return;
    }
    let mut bundle = runtime.bundle();
    bundle.args(&["/bin/true"]);
    let run = system_calls(&runtime, runtime.call_run(&bundle));
    let running = started(&runtime);
    let count = |verb: &[&str]| system_calls(&runtime, runtime.call(verb));
    let exec = count(&["exec", running.id(), "/bin/true"]);
    let state = count(&["state", running.id()]);
    delete(&runtime, &running);
    let rows = [
        ("run", run, RUN),
        ("exec", exec, EXEC),
        ("state", state, STATE),
    ];
    hold(&rows, "system calls");
}

/// `plan` stands for all that `run` decides: valgrind knows neither open_tree(2) nor pidfd_open(2),
/// without which there is no container. The limits are those of a debug build.
#[test]
fn the_instructions_of_plan_and_state_stay_few() {
    let runtime = Runtime::new();
    if runtime.kind() != Kind::Keel {
        return;
    }
    let running = started(&runtime);
    let count = |verb: &[&str]| kilo_instructions(&runtime, runtime.call(verb));
    let bundle = running.path().to_str().expect("UTF-8");
    let plan = count(&["plan", bundle]);
    let state = count(&["state", running.id()]);
    delete(&runtime, &running);
    let rows = [("plan", plan, KILO_PLAN), ("state", state, KILO_STATE)];
    hold(&rows, "thousand instructions");
}
