//! Broken bundles and command lines: each is refused with one line that names the cause (and the
//! JSON path), the right exit code, and nothing left on the host.
//!
//! Under runc only the refusal and the clean host are checked; rows that 1.1.5 accepts are counted.

#[path = "bad_config/mod.rs"]
mod bad_config;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use bad_config::{Row, isolation, limits, linux, process, types};
use integration::{Bundle, Kind, Run, Runtime};
use nix::sys::stat::Mode;

/// What is wrong with how a run ended, if anything.
fn complaint(runtime: &Runtime, run: &Run, code: i32, says: &[&str]) -> Option<String> {
    if run.code == 0 {
        return Some("it is accepted".into());
    }
    if runtime.kind() == Kind::Runc {
        return None;
    }
    let said = run.stderr.replace("\\\"", "\"");
    if run.code != code {
        return Some(format!("exit code {}, not {code}: {said}", run.code));
    }
    if said.lines().count() != 1 {
        return Some(format!("{} lines on stderr: {said}", said.lines().count()));
    }
    if said.len() > 4096 {
        return Some(format!(
            "a line of {} bytes: {}...",
            said.len(),
            &said[..200]
        ));
    }
    let silent: Vec<_> = says
        .iter()
        .filter(|words| !said.contains(**words))
        .collect();
    (!silent.is_empty()).then(|| format!("does not say {silent:?} but: {said}"))
}

/// Runs all of `cases`; the name of each failed one, and why, is printed in the end.
#[derive(Default)]
struct Report {
    failures: Vec<String>,
    rows: usize,
}

impl Report {
    fn note(&mut self, name: &str, complaint: Option<String>) {
        self.rows += 1;
        if let Some(complaint) = complaint {
            self.failures
                .push(format!("{name}: {}", complaint.trim_end()));
        }
    }

    fn end(self, at_least: usize) {
        assert!(self.rows >= at_least, "{} rows, not {at_least}", self.rows);
        let Self { failures, rows } = self;
        assert!(
            failures.is_empty(),
            "{} of {rows} rows:\n{}",
            failures.len(),
            failures.join("\n")
        );
    }
}

fn check_rows(rows: &[Row], at_least: usize) {
    let runtime = Runtime::new();
    let mut report = Report::default();
    let mut accepted_by_runc = 0;
    for row in rows {
        if row.runc_accepts && runtime.kind() == Kind::Runc {
            accepted_by_runc += 1;
            report.rows += 1;
            continue;
        }
        let mut bundle = runtime.bundle();
        (row.make)(&mut bundle);
        let path = bundle.save().to_str().expect("UTF-8");
        let run = runtime
            .call(&["create", "--bundle", path, bundle.id()])
            .run();
        let mut complaint = complaint(&runtime, &run, 1, row.says);
        if run.code == 0 {
            let _ = runtime.call(&["delete", "--force", bundle.id()]).run();
        }
        let changes = runtime.changes();
        if complaint.is_none() && !changes.is_empty() {
            complaint = Some(format!("leaves {changes:?}"));
        }
        if !changes.is_empty() {
            let _ = runtime.call(&["delete", "--force", bundle.id()]).run();
        }
        report.note(row.name, complaint);
        let _ = fs::remove_dir_all(bundle.path());
    }
    if accepted_by_runc > 0 {
        runtime.differs(&format!(
            "1.1.5 accepts {accepted_by_runc} of these rows, or fails at start"
        ));
    }
    report.end(at_least);
}

#[test]
fn a_value_of_the_wrong_json_type_is_refused_with_its_path() {
    check_rows(&types::rows(), 40);
}

#[test]
fn a_process_or_root_that_breaks_a_rule_is_refused() {
    check_rows(&process::rows(), 45);
}

#[test]
fn namespaces_id_maps_mounts_and_hooks_that_break_a_rule_are_refused() {
    check_rows(&isolation::rows(), 55);
}

#[test]
fn other_settings_that_break_a_rule_are_refused() {
    check_rows(&linux::rows(), 40);
}

#[test]
fn limits_that_no_kernel_takes_are_refused() {
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    check_rows(&limits::rows(v2), 35);
}

#[test]
fn a_refused_limit_leaves_none_of_the_cgroups_above_that_were_made() {
    let runtime = Runtime::new();
    if runtime.differs("1.1.5 leaves them") {
        return;
    }
    let mut bundle = runtime.bundle();
    let path = format!("/{0}-deep/er/{0}", runtime.token());
    bundle
        .set("/linux/cgroupsPath", path)
        .set("/linux/resources/cpu/mems", "900");
    let run = runtime.call_run(&bundle).run();
    let _ = run.fails_with(".linux.resources.cpu.mems");
    runtime.assert_clean("a refused limit");
}

#[test]
fn a_cgroup_that_is_in_use_is_refused_and_stays() {
    let runtime = Runtime::new();
    let mut first = runtime.bundle();
    let path = format!("/{}-shared", runtime.token());
    first.set("/linux/cgroupsPath", path.as_str()).sleeper();
    let container = runtime.start(&first);
    let mut second = runtime.bundle();
    second.set("/linux/cgroupsPath", path.as_str());
    let run = runtime.call_run(&second).run();
    if runtime.kind() == Kind::Runc {
        // 1.1.5 only warns.
        return;
    }
    let _ = run.fails_with("container's cgroup is not empty: 1 process(es) found");
    assert_eq!(container.status(), "running");
    container.finish();
}

/// name, what makes the file, words, whether 1.1.5 accepts it
type FileCase = (&'static str, fn(&Path), &'static [&'static str]);

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("the bundle is writable");
}

/// A valid config.json with `more` as one more member.
fn with_member(path: &Path, more: &[u8]) {
    let text = fs::read(path).expect("the default config.json");
    let end = text
        .iter()
        .rposition(|byte| *byte == b'}')
        .expect("an object");
    write(path, &[&text[..end], b", ", more, b"}"].concat());
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn a_config_json_that_is_no_spec_is_refused() {
    let cases: &[FileCase] = &[
        (
            "missing",
            |path| fs::remove_file(path).expect("there"),
            &["JSON specification file config.json not found"],
        ),
        (
            "a directory",
            |path| {
                fs::remove_file(path).expect("there");
                fs::create_dir(path).expect("writable");
            },
            &["config.json", "directory"],
        ),
        (
            "a fifo",
            |path| {
                fs::remove_file(path).expect("there");
                nix::unistd::mkfifo(path, Mode::S_IRWXU).expect("writable");
                // runc waits for a writer: give it one that says nothing.
                let path = path.to_owned();
                std::thread::spawn(move || fs::write(path, ""));
            },
            &["config.json"],
        ),
        (
            "a link to itself",
            |path| {
                fs::remove_file(path).expect("there");
                symlink("config.json", path).expect("writable");
            },
            &["config.json"],
        ),
        (
            "a dangling link",
            |path| {
                fs::remove_file(path).expect("there");
                symlink("/nonexistent", path).expect("writable");
            },
            &["config.json"],
        ),
        ("empty", |path| write(path, b""), &["config.json", "EOF"]),
        ("blank", |path| write(path, b"  \n"), &["config.json"]),
        ("a word", |path| write(path, b"hello"), &["config.json"]),
        ("an array", |path| write(path, b"[]"), &["config.json"]),
        (
            "a string",
            |path| write(path, b"\"spec\""),
            &["config.json"],
        ),
        ("null", |path| write(path, b"null"), &["config.json"]),
        (
            "cut off",
            |path| {
                let text = fs::read(path).expect("there");
                write(path, &text[..text.len() / 2]);
            },
            &["config.json"],
        ),
        (
            "text behind the end",
            |path| {
                let text = fs::read(path).expect("there");
                write(path, &[&text, b"garbage".as_slice()].concat());
            },
            &["config.json"],
        ),
        (
            "not UTF-8",
            |path| with_member(path, b"\"hostname\": \"\xff\xfe\""),
            &["config.json"],
        ),
        (
            "a comment",
            |path| with_member(path, b"// comment\n\"x\": 1"),
            &["config.json"],
        ),
        (
            "nested 100,000 deep",
            |path| {
                with_member(
                    path,
                    &[
                        b"\"hostname\": ".as_slice(),
                        &b"[".repeat(100_000),
                        &b"]".repeat(100_000),
                    ]
                    .concat(),
                );
            },
            &["config.json"],
        ),
        (
            "nested 100,000 deep in objects",
            |path| {
                with_member(
                    path,
                    &[
                        b"\"hostname\": ".as_slice(),
                        &b"{\"a\":".repeat(100_000),
                        b"1",
                        &b"}".repeat(100_000),
                    ]
                    .concat(),
                );
            },
            &["config.json"],
        ),
        (
            "20 MB",
            |path| {
                with_member(
                    path,
                    &[b"\"x\": \"".as_slice(), &b"a".repeat(20_000_000), b"\""].concat(),
                );
            },
            &["config.json", "16"],
        ),
        (
            "a string with NUL in hostname",
            |path| with_member(path, b"\"hostname\": \"a\\u0000b\""),
            &["hostname"],
        ),
        (
            "UTF-16",
            |path| {
                let text = fs::read_to_string(path).expect("there");
                write(
                    path,
                    &text
                        .encode_utf16()
                        .flat_map(u16::to_le_bytes)
                        .collect::<Vec<_>>(),
                );
            },
            &["config.json"],
        ),
    ];
    // Go's decoder takes these, replaces what is not UTF-8, and has no limit; 1.1.5 cuts at NUL.
    let lenient = [
        "a string with NUL in hostname",
        "not UTF-8",
        "text behind the end",
        "20 MB",
        "a dangling link",
    ];
    let runtime = Runtime::new();
    let mut report = Report::default();
    for (name, make, says) in cases {
        if lenient.contains(name) && runtime.differs("Go's JSON decoder is lenient") {
            report.rows += 1;
            continue;
        }
        let bundle = runtime.bundle();
        make(&bundle.save().join("config.json"));
        let path = bundle.path().to_str().expect("UTF-8");
        let run = runtime
            .call(&["create", "--bundle", path, bundle.id()])
            .run();
        report.note(name, complaint(&runtime, &run, 1, says));
        if run.code == 0 {
            let _ = runtime.call(&["delete", "--force", bundle.id()]).run();
        }
        runtime.assert_clean(name);
    }
    report.end(20);
}

/// name, exit code, arguments (@BUNDLE, @DIR and @ID are replaced), words
type LineCase = (
    &'static str,
    i32,
    &'static [&'static str],
    &'static [&'static str],
);

const LINES: &[LineCase] = &[
    (
        "unknown command",
        3,
        &["frobnicate"],
        &["No help topic for 'frobnicate'"],
    ),
    ("empty command", 3, &[""], &["No help topic"]),
    (
        "create without id",
        1,
        &["create", "--bundle", "@BUNDLE"],
        &["\"create\" requires exactly 1 argument"],
    ),
    (
        "create with two ids",
        1,
        &["create", "--bundle", "@BUNDLE", "@ID", "other"],
        &["\"create\" requires exactly 1 argument"],
    ),
    (
        "run without id",
        1,
        &["run"],
        &["\"run\" requires exactly 1 argument"],
    ),
    (
        "start without id",
        1,
        &["start"],
        &["\"start\" requires exactly 1 argument"],
    ),
    (
        "start with two ids",
        1,
        &["start", "a", "b"],
        &["\"start\" requires exactly 1 argument"],
    ),
    (
        "state without id",
        1,
        &["state"],
        &["\"state\" requires exactly 1 argument"],
    ),
    (
        "kill without id",
        1,
        &["kill"],
        &["\"kill\" requires a minimum of 1 argument"],
    ),
    (
        "kill with three words",
        1,
        &["kill", "@ID", "TERM", "x"],
        &["\"kill\" requires a maximum of 2 argument"],
    ),
    (
        "delete without id",
        1,
        &["delete"],
        &["\"delete\" requires exactly 1 argument"],
    ),
    (
        "delete with two ids",
        1,
        &["delete", "a", "b"],
        &["\"delete\" requires exactly 1 argument"],
    ),
    (
        "list with an id",
        1,
        &["list", "@ID"],
        &["\"list\" requires exactly 0 argument"],
    ),
    (
        "spec with an argument",
        1,
        &["spec", "x"],
        &["\"spec\" requires exactly 0 argument"],
    ),
    (
        "unknown flag of create",
        1,
        &["create", "--nonsense", "@ID"],
        &["nonsense"],
    ),
    ("unknown short flag", 1, &["create", "-Z", "@ID"], &["Z"]),
    (
        "unknown global flag",
        1,
        &["--nonsense", "list"],
        &["nonsense"],
    ),
    (
        "flag without its value",
        1,
        &["create", "@ID", "--bundle"],
        &["bundle"],
    ),
    (
        "flag with a value too many",
        1,
        &["create", "--no-pivot=maybe", "@ID"],
        &["no-pivot"],
    ),
    (
        "preserve-fds of letters",
        1,
        &[
            "create",
            "--bundle",
            "@BUNDLE",
            "--preserve-fds",
            "abc",
            "@ID",
        ],
        &["preserve-fds"],
    ),
    (
        "preserve-fds below zero",
        1,
        &["create", "--bundle", "@BUNDLE", "--preserve-fds=-1", "@ID"],
        &["preserve-fds"],
    ),
    (
        "bundle that is missing",
        1,
        &["create", "--bundle", "@DIR/missing", "@ID"],
        &["@DIR/missing"],
    ),
    (
        "bundle that is a file",
        1,
        &["create", "--bundle", "@BUNDLE/config.json", "@ID"],
        &["@BUNDLE/config.json"],
    ),
    (
        "bundle without a config.json",
        1,
        &["create", "--bundle", "@BUNDLE/rootfs", "@ID"],
        &["JSON specification file config.json not found"],
    ),
    (
        "id empty",
        1,
        &["create", "--bundle", "@BUNDLE", ""],
        &["container id cannot be empty"],
    ),
    (
        "id with a slash",
        1,
        &["create", "--bundle", "@BUNDLE", "a/b"],
        &["invalid container ID format"],
    ),
    (
        "id dot",
        1,
        &["create", "--bundle", "@BUNDLE", "."],
        &["invalid container ID format"],
    ),
    (
        "id two dots",
        1,
        &["create", "--bundle", "@BUNDLE", ".."],
        &["invalid container ID format"],
    ),
    (
        "id with a blank",
        1,
        &["create", "--bundle", "@BUNDLE", "a b"],
        &["invalid container ID format"],
    ),
    (
        "id with a newline",
        1,
        &["create", "--bundle", "@BUNDLE", "a\nb"],
        &["invalid container ID format"],
    ),
    (
        "id not ASCII",
        1,
        &["create", "--bundle", "@BUNDLE", "ü"],
        &["invalid container ID format"],
    ),
    (
        "state of a bad id",
        1,
        &["state", "../../etc"],
        &["invalid container ID format"],
    ),
    (
        "delete of a bad id",
        1,
        &["delete", "../../etc"],
        &["invalid container ID format"],
    ),
    (
        "kill of a bad id",
        1,
        &["kill", "a/b"],
        &["invalid container ID format"],
    ),
    (
        "state of nobody",
        1,
        &["state", "@ID"],
        &["container does not exist"],
    ),
    (
        "start of nobody",
        1,
        &["start", "@ID"],
        &["container does not exist"],
    ),
    (
        "kill of nobody",
        1,
        &["kill", "@ID"],
        &["container does not exist"],
    ),
    (
        "delete of nobody",
        1,
        &["delete", "@ID"],
        &["container does not exist"],
    ),
    (
        "exec in nobody",
        255,
        &["exec", "@ID", "true"],
        &["container does not exist"],
    ),
    (
        "pause of nobody",
        1,
        &["pause", "@ID"],
        &["container does not exist"],
    ),
    (
        "resume of nobody",
        1,
        &["resume", "@ID"],
        &["container does not exist"],
    ),
    (
        "ps of nobody",
        1,
        &["ps", "@ID"],
        &["container does not exist"],
    ),
    (
        "events of nobody",
        1,
        &["events", "--stats", "@ID"],
        &["container does not exist"],
    ),
    (
        "update of nobody",
        1,
        &["update", "--memory", "1G", "@ID"],
        &["container does not exist"],
    ),
    (
        "pid file in a missing directory",
        1,
        &[
            "create",
            "--bundle",
            "@BUNDLE",
            "--pid-file",
            "@DIR/no/pid",
            "@ID",
        ],
        &["@DIR/no/"],
    ),
    (
        "log in a missing directory",
        1,
        &["--log", "@DIR/no/log", "list"],
        &["@DIR/no/log"],
    ),
    (
        "log that is a directory",
        1,
        &["--log", "@DIR", "list"],
        &["@DIR"],
    ),
    (
        "log format unknown",
        1,
        &["--log-format", "xml", "list"],
        &["xml"],
    ),
    (
        "list format unknown",
        1,
        &["list", "--format", "xml"],
        &["xml"],
    ),
    (
        "console socket without a terminal",
        1,
        &[
            "create",
            "--bundle",
            "@BUNDLE",
            "--console-socket",
            "@DIR/s",
            "@ID",
        ],
        &["cannot use console socket if runc will not detach or allocate tty"],
    ),
    (
        "pidfd socket that is missing",
        1,
        &[
            "create",
            "--bundle",
            "@BUNDLE",
            "--pidfd-socket",
            "@DIR/s",
            "@ID",
        ],
        &["@DIR/s"],
    ),
    (
        "root that is a file",
        1,
        &[
            "--root",
            "@BUNDLE/config.json",
            "create",
            "--bundle",
            "@BUNDLE",
            "@ID",
        ],
        &["@BUNDLE/config.json"],
    ),
    (
        "spec into a missing directory",
        1,
        &["spec", "--bundle", "@DIR/missing"],
        &["@DIR/missing"],
    ),
    (
        "spec over a config.json",
        1,
        &["spec", "--bundle", "@BUNDLE"],
        &["File config.json exists. Remove it first"],
    ),
];

/// Rows of [`LINES`] that 1.1.5 does not know or does not mind.
const RUNC_ACCEPTS: &[&str] = &[
    "empty command",
    "list format unknown",
    "list with an id",
    "spec with an argument",
    "log that is a directory",
    "preserve-fds below zero",
];

#[test]
fn a_broken_command_line_is_refused() {
    let runtime = Runtime::new();
    let mut report = Report::default();
    for (name, code, words, says) in LINES {
        if RUNC_ACCEPTS.contains(name) && runtime.differs(&format!("1.1.5 does not mind: {name}")) {
            report.rows += 1;
            continue;
        }
        let bundle: Bundle = runtime.bundle();
        let path = bundle.save().to_str().expect("UTF-8");
        let dir = runtime.dir().to_str().expect("UTF-8");
        let fill = |word: &&str| {
            word.replace("@BUNDLE", path)
                .replace("@DIR", dir)
                .replace("@ID", bundle.id())
        };
        let line: Vec<String> = words.iter().map(fill).collect();
        let says: Vec<String> = says.iter().map(fill).collect();
        let says: Vec<&str> = says.iter().map(String::as_str).collect();
        let run = runtime.call(&line).run();
        let complaint = complaint(&runtime, &run, *code, &says);
        report.note(name, complaint);
        runtime.assert_clean(name);
    }
    report.end(50);
}

#[test]
fn an_id_or_argument_of_100_kilobytes_is_refused() {
    let runtime = Runtime::new();
    let mut report = Report::default();
    let long = "a".repeat(100_000);
    let bundle = runtime.bundle();
    let path = bundle.save().to_str().expect("UTF-8");
    let lines: &[(&str, &[&str])] = &[
        ("id", &["create", "--bundle", path, &long]),
        ("bundle", &["create", "--bundle", &long, bundle.id()]),
        ("command", &[&long]),
        ("state", &["state", &long]),
        ("signal", &["kill", bundle.id(), &long]),
    ];
    for (name, line) in lines {
        let run = runtime.call(line).run();
        let code = if *name == "command" { 3 } else { 1 };
        report.note(name, complaint(&runtime, &run, code, &[]));
    }
    report.end(5);
}

#[test]
fn an_id_that_is_not_utf8_is_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let runtime = Runtime::new();
    let run = runtime
        .call(&[OsStr::new("state"), OsStr::from_bytes(b"\xff\xfe")])
        .run();
    assert_eq!(complaint(&runtime, &run, 1, &[]), None);
}
