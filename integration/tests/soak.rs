//! Many lives, and many deaths in the middle of one: nothing may add up on the host.
//!
//! `KEEL_SOAK=full` runs 1,000 cycles and 300 kills; the default is small and bounded in time.

use std::time::{Duration, Instant};

use integration::{Bundle, Runtime};
use nix::sys::signal::Signal;
use serde_json::json;

/// How many times, and how long at most (only the small size stops early).
fn size(small: u32, full: u32) -> (u32, Option<Instant>) {
    if std::env::var("KEEL_SOAK").is_ok_and(|size| size == "full") {
        return (full, None);
    }
    (small, Some(Instant::now() + Duration::from_secs(30)))
}

fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() > deadline)
}

/// A bundle with a little of everything that has to be undone.
fn busy_bundle(runtime: &Runtime) -> Bundle {
    let mut bundle = runtime.bundle();
    let shared = runtime.dir().join("shared");
    std::fs::create_dir_all(&shared).expect("the scratch directory is writable");
    bundle
        .sleeper()
        .bind(&shared, "/mnt", "rbind")
        .mount("tmpfs", "tmpfs", "/srv", "size=64k");
    bundle
        .new_namespace("cgroup")
        .set("/linux/maskedPaths", json!(["/proc/kcore", "/etc"]));
    bundle.set("/linux/readonlyPaths", json!(["/proc/sys"]));
    bundle.push("/hooks/createRuntime", json!({ "path": "/bin/true" }));
    bundle.push("/hooks/poststop", json!({ "path": "/bin/true" }));
    bundle
}

#[test]
fn complete_lives_leave_nothing_behind() {
    let runtime = Runtime::new();
    let bundle = busy_bundle(&runtime);
    let (cycles, deadline) = size(60, 1000);
    let mut done = 0;
    for cycle in 0..cycles {
        if is_over(deadline) {
            break;
        }
        let container = runtime.create(&bundle);
        if cycle % 3 != 0 {
            container.start();
        }
        container.finish();
        done += 1;
    }
    assert!(done > 5, "only {done} cycles in the time allowed");
    runtime.assert_clean(&format!("{done} cycles"));
}

#[test]
fn killed_runtimes_leave_nothing_that_forced_delete_does_not_remove() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 saves its state late: a create killed before cannot be deleted") {
        return;
    }
    let bundle = busy_bundle(&runtime);
    let (kills, deadline) = size(40, 300);
    let whole = duration_of_create(&runtime, &bundle);
    let mut random = Random(0x2545_f491_4f6c_dd1d ^ u64::from(std::process::id()));
    let mut done = 0;
    for round in 0..kills {
        if is_over(deadline) {
            break;
        }
        let wait = random.below(whole * 5 / 4);
        kill_in_the_middle(&runtime, &bundle, wait, &mut random);
        let run = runtime.call(&["delete", "--force", bundle.id()]).run();
        assert_eq!(
            run.code, 0,
            "round {round}, killed after {wait:?}: {}",
            run.stderr
        );
        let changes = runtime.changes();
        assert!(
            changes.is_empty(),
            "round {round}, killed after {wait:?}:\n{}",
            changes.join("\n")
        );
        done += 1;
    }
    assert!(done > 5, "only {done} kills in the time allowed");
}

fn duration_of_create(runtime: &Runtime, bundle: &Bundle) -> Duration {
    let start = Instant::now();
    let container = runtime.create(bundle);
    let elapsed = start.elapsed();
    let _ = container.delete().succeeds();
    elapsed
}

/// Kills `create`, or else `start` or `delete`, after `wait`.
fn kill_in_the_middle(runtime: &Runtime, bundle: &Bundle, wait: Duration, random: &mut Random) {
    let path = bundle.save().to_str().expect("UTF-8");
    let create = runtime.call(&["create", "--bundle", path, bundle.id()]);
    let victim = match random.next() % 4 {
        0 => {
            let _ = create.run().succeeds();
            runtime.call(&["start", bundle.id()])
        }
        1 => {
            let _ = create.run().succeeds();
            runtime.call(&["delete", "--force", bundle.id()])
        }
        _ => create,
    };
    let running = victim.spawn();
    std::thread::sleep(wait);
    running.signal(Signal::SIGKILL);
    let _ = running.wait();
}

/// xorshift64: good enough to pick moments.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros())
            .expect("a short time")
            .max(1);
        Duration::from_micros(self.next() % micros)
    }
}
