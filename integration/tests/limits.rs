//! What the release binary may cost: size, memory, time, threads.
//!
//! These are promises of keel; a development build is too large and too slow to be measured.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};

use integration::{Kind, Runtime, proc, sys};

/// The measurements disturb each other.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The release build beside the tested one, or nothing (said and counted) if there is none.
fn release(runtime: &Runtime) -> Option<PathBuf> {
    if runtime.differs("these are promises of keel") {
        return None;
    }
    let tested = runtime.binary();
    let profiles = tested
        .parent()
        .and_then(|dir| dir.parent())
        .expect("target/…/debug/keel");
    let release = profiles.join("release/keel");
    let found = if tested.ends_with("release/keel") {
        tested.to_owned()
    } else {
        release
    };
    (!runtime.host_lacks("a release build (cargo build --release)", !found.exists()))
        .then_some(found)
}

#[test]
fn the_binary_is_static_and_at_most_4_mib() {
    let runtime = Runtime::new();
    let Some(binary) = release(&runtime) else {
        return;
    };
    let bytes = fs::read(&binary).expect("it is there");
    assert!(bytes.len() <= 4 << 20, "{} bytes", bytes.len());
    assert_eq!(
        program_headers(&bytes, 3),
        0,
        "PT_INTERP: it needs a dynamic loader"
    );
}

/// How many program headers of this type an ELF file has. Man page: elf(5).
fn program_headers(elf: &[u8], wanted: u32) -> usize {
    let u64_at = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().expect("eight bytes"));
    let u16_at = |at: usize| u16::from_le_bytes(elf[at..at + 2].try_into().expect("two bytes"));
    assert_eq!(&elf[..5], b"\x7fELF\x02", "a 64-bit ELF file");
    let table = usize::try_from(u64_at(32)).expect("an offset");
    let (size, count) = (usize::from(u16_at(54)), usize::from(u16_at(56)));
    let kind = |index: usize| {
        let at = table + index * size;
        u32::from_le_bytes(elf[at..at + 4].try_into().expect("four bytes"))
    };
    (0..count).filter(|index| kind(*index) == wanted).count()
}

#[test]
fn run_needs_at_most_4_mib_of_memory() {
    let runtime = Runtime::new();
    let Some(binary) = release(&runtime) else {
        return;
    };
    let _alone = alone();
    let mut bundle = runtime.bundle();
    bundle.sh("echo up; read line");
    let path = bundle.save().to_owned();
    let (input, output) = (Stdio::piped(), Stdio::piped());
    let mut command = Command::new(binary);
    command.arg("--root").arg(runtime.root());
    command
        .arg("run")
        .arg("--bundle")
        .arg(path)
        .arg(bundle.id());
    let mut child = command
        .stdin(input)
        .stdout(output)
        .spawn()
        .expect("it runs");
    let mut line = [0; 3];
    let stdout = child.stdout.as_mut().expect("piped");
    stdout
        .read_exact(&mut line)
        .expect("the container says that it is up");
    // Not getrusage: that counts the memory of this test too, from before execve.
    let status = proc::status(i32::try_from(child.id()).expect("a pid"));
    let peak: u64 = status["VmHWM"]
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    drop(child.stdin.take());
    let _ = child.wait().expect("ours");
    assert!(peak <= 4096, "{peak} KiB");
}

/// The start of a static program is not keel's own: glibc asks the processor about itself, which takes
/// microseconds for each question in a virtual machine, 0.2 to 0.7 ms in all.
#[test]
fn version_and_state_need_half_a_millisecond_more_than_a_static_program() {
    let runtime = Runtime::new();
    let Some(binary) = release(&runtime) else {
        return;
    };
    let _alone = alone();
    let mut bundle = runtime.bundle();
    bundle.sleeper();
    let container = runtime.start(&bundle);
    let root = runtime.root();
    let root = root.to_str().expect("UTF-8");
    for args in [
        &["--version"][..],
        &["--root", root, "state", container.id()],
    ] {
        let usage = |command: &mut Command| {
            let usage = sys::usage_of(command).expect("it runs");
            assert_eq!(usage.code, 0, "{args:?}");
            usage.cpu_usec
        };
        // The least of many, in turn: other work on the machine only ever adds.
        let (mut least, mut least_of_true) = (i64::MAX, i64::MAX);
        for _ in 0..100 {
            least = least.min(usage(Command::new(&binary).args(args)));
            least_of_true = least_of_true.min(usage(Command::new("/usr/bin/busybox").arg("true")));
        }
        let bound = least_of_true + 500;
        assert!(least <= bound, "{args:?}: {least} µs, at most {bound}");
    }
}

#[test]
fn no_thread_is_ever_created() {
    let runtime = Runtime::new();
    if runtime.differs("Go programs have threads") {
        return;
    }
    let mut bundle = runtime.bundle();
    bundle.sh("exit 0");
    let trace = runtime.dir().join("trace");
    let trace = trace.to_str().expect("UTF-8");
    let calls = "trace=clone,clone3,fork,vfork,execve";
    let strace = ["strace", "-f", "-qq", "-o", trace, "-e", calls];
    let _ = runtime.call_run(&bundle).through(&strace).run().succeeds();
    let text = fs::read_to_string(trace).expect("strace writes it");
    assert!(
        text.contains("clone"),
        "the child is not in the trace: {text}"
    );
    let threads: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("CLONE_THREAD"))
        .collect();
    assert!(threads.is_empty(), "{threads:?}");
}

#[test]
fn fifty_containers_in_a_row_do_not_slow_down() {
    let runtime = Runtime::new();
    if runtime.kind() == Kind::Runc {
        return;
    }
    let _alone = alone();
    let bundle = runtime.bundle();
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = std::time::Instant::now();
        let _ = runtime.run(&bundle).succeeds();
        times.push(start.elapsed());
    }
    let least = |slice: &[std::time::Duration]| slice.iter().min().copied().expect("not empty");
    let (first, last) = (least(&times[..10]), least(&times[40..]));
    assert!(last < first * 3, "at first {first:?}, at last {last:?}");
}
