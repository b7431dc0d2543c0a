//! Limits of memory whose effect takes swap, a second memory node, or a machine short of memory.

use std::fs;
use std::path::{Path, PathBuf};

use integration::{Container, Runtime, is_v2, proc};
use serde_json::{Value, json};

use super::{host, outside_the_guest};

/// Space to swap to, as long as it lives.
struct Swap(PathBuf);

impl Swap {
    fn new(runtime: &Runtime, mib: u32) -> Self {
        let swap = Self(runtime.dir().join("swap"));
        let (of, count) = (format!("of={}", swap.name()), format!("count={mib}"));
        host(&["dd", "if=/dev/zero", &of, "bs=1M", &count]);
        host(&["mkswap", swap.name()]);
        host(&["swapon", swap.name()]);
        swap
    }

    fn name(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        host(&["swapoff", self.name()]);
    }
}

/// How a container ends that needs 60 MiB of memory.
fn end_of_a_hog(runtime: &Runtime, memory: Value) -> i32 {
    let mut bundle = runtime.bundle();
    bundle.set("/linux/resources/memory", memory);
    bundle.sh("dd if=/dev/zero of=/dev/null bs=60M count=1");
    runtime.run(&bundle).code
}

#[test]
fn swap_is_counted_together_with_memory() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    let _swap = Swap::new(&runtime, 128);
    let codes = [32, 128].map(|sum: i64| {
        let memory = json!({ "limit": 32 << 20, "swap": sum << 20 });
        end_of_a_hog(&runtime, memory)
    });
    let of = "60 MiB with 32 of memory, and 0 or 96 of swap";
    assert_eq!(codes, [128 + 9, 0], "{of}");
}

#[test]
fn without_swappiness_nothing_is_swapped_even_if_memory_runs_out() {
    let runtime = Runtime::new();
    // v2 has no such limit; the specification lets it be passed over.
    if outside_the_guest(&runtime) || is_v2() {
        return;
    }
    let _swap = Swap::new(&runtime, 128);
    let codes = [0, 60].map(|swappiness| {
        let memory = json!({ "limit": 32 << 20, "swap": 128 << 20, "swappiness": swappiness });
        end_of_a_hog(&runtime, memory)
    });
    assert_eq!(codes, [128 + 9, 0]);
}

/// A running container that has read a file of 200 MiB, which takes no space on disk.
fn reader(runtime: &Runtime, reservation: i64) -> Container<'_> {
    let mut bundle = runtime.bundle();
    let path = format!("/{}", bundle.id());
    bundle
        .set("/linux/cgroupsPath", path)
        .set("/linux/resources/memory/reservation", reservation)
        .sh("cat /large >/dev/null; echo read; sleep 1000");
    let file = fs::File::create(bundle.rootfs().join("large"));
    let file = file.expect("the scratch directory is writable");
    file.set_len(200 << 20).expect("a sparse file");
    let container = runtime.start(&bundle);
    container.wait_for_stdout("read");
    container
}

/// How much of files a v1 container has in memory.
fn cached_mib(container: &Container<'_>) -> u64 {
    let dir = PathBuf::from("/sys/fs/cgroup/memory").join(container.id());
    number(&dir.join("memory.stat"), "cache ") >> 20
}

/// The number that comes after `name` in a file of the kernel.
fn number(file: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(file).expect("it is there");
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let value = value.expect("it is counted").split_whitespace().next();
    value.expect("a word").parse().expect("a number")
}

#[test]
fn who_is_above_its_reservation_gives_first_when_the_machine_is_short() {
    let runtime = Runtime::new();
    // On v2 a neighbour suffices: resources/effects.rs.
    if outside_the_guest(&runtime) || is_v2() {
        return;
    }
    let memory = runtime.dir().join("memory");
    let name = memory.to_str().expect("UTF-8");
    fs::create_dir(&memory).expect("it is writable");
    host(&["mount", "-t", "tmpfs", "-o", "size=100%", "none", name]);
    // Twice, so that it is not the order that decides.
    for protected in [0, 1] {
        let start = |at| reader(&runtime, if at == protected { 400 << 20 } else { 8 << 20 });
        let containers = [0, 1].map(start);
        let before = containers.each_ref().map(cached_mib);
        assert!(before.iter().all(|mib| *mib >= 190), "{before:?}");
        // All that is free, and some more.
        let free = number(Path::new("/proc/meminfo"), "MemFree:") >> 10;
        let hog = memory.join("hog");
        let size = format!("{}M", free + 250);
        host(&["fallocate", "-l", &size, hog.to_str().expect("UTF-8")]);
        let kept = containers.each_ref().map(cached_mib);
        fs::remove_file(hog).expect("it is there");
        let (with, without) = (kept[protected], kept[1 - protected]);
        assert!(
            with > without + 40,
            "{with} MiB are kept with a reservation, {without} without"
        );
        containers.into_iter().for_each(Container::finish);
    }
    host(&["umount", name]);
}

#[test]
fn memory_comes_from_the_nodes_that_are_given() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    for node in ["0", "1"] {
        let mut bundle = runtime.bundle();
        let cpu = json!({ "mems": node });
        bundle.set("/linux/resources/cpu", cpu);
        bundle.sh("exec awk 'BEGIN { s = sprintf(\"%20971520s\", \"x\"); system(\"echo up; sleep 1000\"); print s }'");
        let container = runtime.start(&bundle);
        container.wait_for_stdout("up");
        let maps = proc::read(container.pid(), "numa_maps");
        let pages = |name: &str| -> u64 {
            let heap = maps.lines().filter(|line| line.contains("anon="));
            let words = heap.flat_map(str::split_whitespace);
            let counts = words.filter_map(|word| word.strip_prefix(name)?.parse::<u64>().ok());
            counts.sum()
        };
        let (own, other) = (
            format!("N{node}="),
            format!("N{}=", 1 - node.parse::<u8>().expect("0 or 1")),
        );
        assert!(pages(&own) >= 5000 && pages(&other) < 100, "{maps}");
        container.finish();
    }
}

#[test]
fn huge_pages_are_limited() {
    let runtime = Runtime::new();
    if outside_the_guest(&runtime) {
        return;
    }
    let count = "/proc/sys/vm/nr_hugepages";
    fs::write(count, "4").expect("root may");
    let mut bundle = runtime.bundle();
    bundle.probe();
    let limits = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    bundle.set("/linux/resources/hugepageLimits", limits);
    let mut ends = Vec::new();
    for pages in [2, 3] {
        let bytes = (pages * (2 << 20)).to_string();
        bundle.args(&["/bin/probe", "huge-pages", &bytes]);
        let run = runtime.run(&bundle);
        ends.push((run.code, run.stderr.contains("Cannot allocate memory")));
    }
    fs::write(count, "0").expect("root may");
    // Refused at once, which is the limit of reservations: at the other one the third page kills.
    assert_eq!(ends, [(0, false), (1, true)]);
}
