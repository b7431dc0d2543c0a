//! The weights of block I/O, on a disk whose scheduler knows them.

use std::fs;

use integration::{Bundle, Container, Runtime, proc};
use serde_json::{Value, json};

use super::{host, outside_the_guest, weights};

/// A disk that takes 2 ms for whatever is asked of it, one thing at a time, and whose scheduler lets
/// the weights of cgroups alone decide who is next.
struct Disk {
    major: u64,
    minor: u64,
}

impl Disk {
    fn new() -> Self {
        let slow = "queue_mode=2 irqmode=2 completion_nsec=2000000 hw_queue_depth=1";
        let words = "modprobe null_blk nr_devices=1 gb=100".split(' ');
        host(&words.chain(slow.split(' ')).collect::<Vec<_>>());
        host(&["modprobe", "bfq"]);
        for (file, value) in [
            ("scheduler", "bfq"),
            ("iosched/low_latency", "0"),
            ("iosched/strict_guarantees", "1"),
            // The time that a slow machine may take from one request to the next, in ms.
            ("iosched/slice_idle", "500"),
        ] {
            let file = format!("/sys/block/nullb0/queue/{file}");
            fs::write(&file, value).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
        let numbers = fs::read_to_string("/sys/block/nullb0/dev").expect("a disk");
        let (major, minor) = numbers.trim().split_once(':').expect("MAJOR:MINOR");
        let [major, minor] = [major, minor].map(|number| number.parse().expect("a number"));
        Self { major, minor }
    }

    /// A container that reads from the disk, or writes to it, all the time.
    fn user(&self, runtime: &Runtime, script: &str, block_io: &Value) -> Bundle {
        let (major, minor) = (self.major, self.minor);
        let mut bundle = runtime.bundle();
        // Without groups in groups, between which BFQ is fair over longer times only.
        let path = format!("/{}", bundle.id());
        bundle.set("/linux/cgroupsPath", path);
        let rule = json!({ "allow": true, "type": "b", "major": major, "minor": minor });
        let node = json!({ "path": "/dev/disk", "type": "b", "major": major, "minor": minor });
        bundle
            .set(
                "/linux/resources",
                json!({ "devices": [rule], "blockIO": block_io }),
            )
            .push("/linux/devices", node)
            .sh(&format!("exec {script}"));
        bundle
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::write("/sys/block/nullb0/queue/scheduler", "none");
        host(&["modprobe", "-r", "bfq", "null_blk"]);
    }
}

/// Bytes that a container's first process has read from disks and written to them.
fn moved(container: &Container<'_>) -> u64 {
    let text = proc::read(container.pid(), "io");
    let bytes = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value
            .expect("it is counted")
            .trim()
            .parse::<u64>()
            .expect("a number")
    };
    bytes("read_bytes:") + bytes("write_bytes:")
}

/// How much more one container moves than another, in each of some spans of time.
fn ratios(one: &Container<'_>, other: &Container<'_>) -> Vec<f64> {
    let ratio = |_| {
        let before = [moved(one), moved(other)];
        std::thread::sleep(std::time::Duration::from_secs(2));
        let [first, second] = [moved(one) - before[0], moved(other) - before[1]];
        first as f64 / second.max(1) as f64
    };
    (0..4).map(ratio).collect()
}

#[test]
fn weights_divide_a_disk() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    let _alone = weights();
    let disk = Disk::new();
    let (read, write) = (
        "dd if=/dev/disk of=/dev/null bs=4k iflag=direct",
        "dd if=/dev/zero of=/dev/disk bs=4k oflag=direct",
    );
    let of_all = |weight: u64| json!({ "weight": weight });
    let of_the_disk = |weight: u64| {
        let (major, minor) = (disk.major, disk.minor);
        json!({ "weightDevice": [{ "major": major, "minor": minor, "weight": weight }] })
    };
    let start =
        |script: &str, block_io: Value| runtime.start(&disk.user(&runtime, script, &block_io));
    let is_heavier = |heavy: &Container<'_>, light: &Container<'_>, what: &str| {
        let ratios = ratios(heavy, light);
        assert!(
            ratios.iter().any(|ratio| *ratio > 2.5),
            "{what}: {ratios:?}"
        );
    };
    let (one, other) = (start(read, of_all(1000)), start(read, of_all(100)));
    is_heavier(&one, &other, "readers");
    let weigh = |container: &Container<'_>, weight: &str| {
        let _ = container
            .call(&["update", "--blkio-weight", weight])
            .run()
            .succeeds();
    };
    weigh(&one, "300");
    weigh(&other, "300");
    let equal = ratios(&one, &other);
    let are_equal = equal.iter().any(|ratio| (0.5..2.0).contains(ratio));
    assert!(are_equal, "equal weights: {equal:?}");
    weigh(&one, "100");
    weigh(&other, "1000");
    is_heavier(&other, &one, "the other way round");
    one.finish();
    other.finish();
    let (heavy, light) = (
        start(write, of_the_disk(1000)),
        start(write, of_the_disk(100)),
    );
    is_heavier(&heavy, &light, "writers, by weights for this disk");
    heavy.finish();
    light.finish();
}
