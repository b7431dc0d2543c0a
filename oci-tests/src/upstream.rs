//! Runs suites of other projects, built outside this repository, and compares with what is known.
//!
//! Two suites: the validation programs of opencontainers/runtime-tools, one verdict for each
//! program, and the bats files of opencontainers/runc, one verdict for each test. Nothing of them
//! is stored here; `upstream/README.md` says what has to be built.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::report::{Expected, Outcome, name_of};

/// Run upstream suites against OCI runtimes
#[derive(Parser)]
#[command(name = "oci-tests upstream")]
pub struct Args {
    /// Runtimes to test
    #[arg(required = true)]
    runtimes: Vec<PathBuf>,
    /// A tree of opencontainers/runtime-tools with its validation programs built
    #[arg(long, value_name = "DIR")]
    runtime_tools: Option<PathBuf>,
    /// A tree of opencontainers/runc with its test binaries built and its images in place
    #[arg(long, value_name = "DIR")]
    bats: Option<PathBuf>,
    /// Only programs and bats files whose name contains this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// Known failures, with reasons; the file built in if not given
    #[arg(long, value_name = "FILE")]
    expected: Option<PathBuf>,
    /// Keep what each program printed in this directory
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
    /// Mount cgroup v2 over /sys/fs/cgroup, in a mount namespace of the suites' own
    #[arg(long)]
    cgroup2: bool,
}

/// A program, or a file of bats tests, that takes longer has hung.
const LIMIT: Duration = Duration::from_secs(1800);

/// Verdicts by the name of the test.
type Verdicts = BTreeMap<String, Outcome>;

/// Succeeds if every failure was expected, and every expected failure happened.
///
/// # Errors
/// If a tree has nothing to run, or a file cannot be read or written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, String> {
    let text = match &args.expected {
        None => include_str!("../upstream/expected.toml").to_owned(),
        Some(path) => {
            fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?
        }
    };
    let expected = Expected::parse(&text)?;
    let own_logs = tempfile::tempdir().map_err(|e| format!("cannot make a directory: {e}"))?;
    let logs = args
        .logs
        .clone()
        .unwrap_or_else(|| own_logs.path().to_owned());
    fs::create_dir_all(&logs).map_err(|e| format!("cannot make {}: {e}", logs.display()))?;
    // Some suites leave mounts behind, and then remove the directories that these are in.
    crate::private_mounts(args.cgroup2)?;
    let mut columns = Vec::new();
    for runtime in &args.runtimes {
        let runtime = fs::canonicalize(runtime)
            .map_err(|e| format!("cannot find {}: {e}", runtime.display()))?;
        let mut verdicts = Verdicts::new();
        if let Some(tree) = &args.runtime_tools {
            verdicts.extend(runtime_tools(args, tree, &runtime, &logs)?);
        }
        if let Some(tree) = &args.bats {
            verdicts.extend(bats(args, tree, &runtime, &logs)?);
        }
        columns.push((name_of(&runtime), verdicts));
    }
    let surprised = write(out, &columns, &expected)
        .map_err(|e| format!("cannot write to standard output: {e}"))?;
    Ok(if surprised {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

impl Args {
    fn wants(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|text| name.contains(text))
    }
}

/// Files below `dir` with this ending, in order of their names.
fn files(dir: &Path, ending: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let entries = fs::read_dir(dir).map_err(|e| format!("cannot read {}: {e}", dir.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, ending)?);
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn runtime_tools(
    args: &Args,
    tree: &Path,
    runtime: &Path,
    logs: &Path,
) -> Result<Verdicts, String> {
    let programs = files(&tree.join("validation"), ".t")?;
    if programs.is_empty() {
        return Err(format!(
            "{} has no validation programs: build them",
            tree.display()
        ));
    }
    let mut verdicts = Verdicts::new();
    for program in programs {
        let name = program
            .file_stem()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        if !args.wants(&name) {
            continue;
        }
        let mut command = Command::new(&program);
        command.current_dir(tree).env("RUNTIME", runtime);
        let log = logs.join(format!("{}-{name}.tap", name_of(runtime)));
        let ended = bounded(&mut command, &log)?;
        let text = read(&log);
        verdicts.insert(format!("runtime-tools: {name}"), whole(&text, ended));
    }
    Ok(verdicts)
}

fn bats(args: &Args, tree: &Path, runtime: &Path, logs: &Path) -> Result<Verdicts, String> {
    let dir = tree.join("tests/integration");
    let mut verdicts = Verdicts::new();
    for file in files(&dir, ".bats")? {
        let name = file
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        if !args.wants(&name) {
            continue;
        }
        // On a terminal, which some tests want; script(1) makes one.
        let mut command = Command::new("script");
        command
            .args(["--quiet", "--return", "--command"])
            .arg(format!("bats --tap '{}'", file.display()))
            .arg("/dev/null")
            .current_dir(tree)
            .env("RUNC", runtime);
        let log = logs.join(format!("{}-{name}.tap", name_of(runtime)));
        let ended = bounded(&mut command, &log)?;
        let tests = each(&read(&log));
        if tests.is_empty() || ended == Ended::Hung {
            let why = if ended == Ended::Hung {
                "it hung"
            } else {
                "it ran no test"
            };
            verdicts.insert(format!("{name}:"), Outcome::Fail(why.to_owned()));
        }
        for (test, outcome) in tests {
            verdicts.insert(format!("{name}: {test}"), outcome);
        }
    }
    Ok(verdicts)
}

fn read(log: &Path) -> String {
    fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Well,
    Badly,
    Hung,
}

/// Runs a program with its output in `log`; after [`LIMIT`] its process group is killed.
fn bounded(command: &mut Command, log: &Path) -> Result<Ended, String> {
    let fail = |e: io::Error| format!("cannot run {}: {e}", command_name(log));
    let file = File::create(log).map_err(fail)?;
    let mut child = command
        // A pipe that stays open: at the end of its input script(1) writes to the terminal.
        .stdin(Stdio::piped())
        .stderr(file.try_clone().map_err(fail)?)
        .stdout(file)
        .process_group(0)
        .spawn()
        .map_err(fail)?;
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().map_err(fail)? {
            return Ok(if status.success() {
                Ended::Well
            } else {
                Ended::Badly
            });
        }
        if Instant::now() > deadline {
            let group = i32::try_from(child.id()).map_or_else(|_| Pid::this(), Pid::from_raw);
            killpg(group, Signal::SIGKILL).map_err(|e| format!("cannot kill a program: {e}"))?;
            child.wait().map_err(fail)?;
            return Ok(Ended::Hung);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn command_name(log: &Path) -> String {
    log.file_stem()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// One line of TAP: good, its description without the directive, and the directive.
fn tap_line(line: &str) -> Option<(bool, &str, &str)> {
    let line = line.trim_end();
    let (good, rest) = match line.strip_prefix("not ok") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok")?),
    };
    let rest = rest.strip_prefix(' ')?;
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let (text, directive) = rest.split_once(" # ").unwrap_or((rest, ""));
    let text = text.trim_start().trim_start_matches("- ");
    Some((good, text.trim_end(), directive))
}

/// The verdict on a program by all its lines.
fn whole(text: &str, ended: Ended) -> Outcome {
    let lines: Vec<_> = text.lines().filter_map(tap_line).collect();
    let is = |directive: &str, word: &str| directive.to_lowercase().starts_with(word);
    let bad = lines
        .iter()
        .find(|(good, _, d)| !good && !is(d, "todo") && !is(d, "skip"));
    match (ended, bad) {
        (Ended::Hung, _) => Outcome::Fail("it hung".to_owned()),
        (_, Some((_, text, _))) => Outcome::Fail((*text).to_owned()),
        (Ended::Badly, None) => {
            let last = text
                .lines()
                .rev()
                .find(|l| !l.trim().is_empty())
                .unwrap_or("no output");
            Outcome::Fail(last.to_owned())
        }
        // Some programs speak only when something is wrong, in a block without a verdict.
        (Ended::Well, None) if lines.is_empty() => {
            let error = text
                .lines()
                .find_map(|line| line.trim().strip_prefix("\"error\": \""));
            error.map_or(Outcome::Pass, |why| {
                Outcome::Fail(why.trim_end_matches("\",").to_owned())
            })
        }
        (Ended::Well, None) if lines.iter().all(|(_, _, d)| is(d, "skip")) => {
            Outcome::Skip(lines[0].2.to_owned())
        }
        (Ended::Well, None) => Outcome::Pass,
    }
}

/// The verdict on each line of bats' output; the reason is the first comment that follows.
fn each(text: &str) -> Vec<(String, Outcome)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut verdicts = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let Some((good, name, directive)) = tap_line(line) else {
            continue;
        };
        let outcome = match (good, directive.to_lowercase().strip_prefix("skip")) {
            (true, Some(reason)) => Outcome::Skip(reason.trim().to_owned()),
            (true, None) => Outcome::Pass,
            (false, _) => {
                let comments = lines[n + 1..].iter().take_while(|l| l.starts_with('#'));
                let reason = comments
                    .clone()
                    .find(|l| l.contains("failed"))
                    .or(comments.clone().next());
                Outcome::Fail(
                    reason
                        .map_or("", |l| l.trim_start_matches("# ").trim())
                        .to_owned(),
                )
            }
        };
        verdicts.push((name.to_owned(), outcome));
    }
    verdicts
}

/// Whether a known failure may also pass: a test that races against what it tests.
fn is_racy(reason: &str) -> bool {
    reason.starts_with("racy: ")
}

/// Writes the table and what was not expected; true if there was such a thing.
fn write(
    out: &mut dyn Write,
    columns: &[(String, Verdicts)],
    expected: &Expected,
) -> io::Result<bool> {
    let mut names: Vec<&String> = columns.iter().flat_map(|(_, v)| v.keys()).collect();
    names.sort();
    names.dedup();
    let word = |outcome: Option<&Outcome>| outcome.map_or("absent", Outcome::word);
    for name in &names {
        for (_, verdicts) in columns {
            write!(out, "{:>6} ", word(verdicts.get(*name)))?;
        }
        writeln!(out, " {name}")?;
    }
    let mut surprised = false;
    for (runtime, verdicts) in columns {
        let count = |kind| verdicts.values().filter(|o| o.word() == kind).count();
        let known = verdicts
            .iter()
            .filter(|(name, o)| o.word() == "FAIL" && expected.reason(runtime, name).is_some())
            .count();
        writeln!(
            out,
            "{runtime}: {} pass, {} fail ({known} expected), {} skipped, of {}",
            count("ok"),
            count("FAIL"),
            count("skip"),
            verdicts.len()
        )?;
    }
    for (runtime, verdicts) in columns {
        for (name, outcome) in verdicts {
            match (outcome, expected.reason(runtime, name)) {
                (Outcome::Fail(why), None) => {
                    writeln!(out, "# unexpected: {runtime} {name}: {why}")?
                }
                (Outcome::Pass, Some(reason)) if !is_racy(reason) => {
                    writeln!(out, "# unexpected: {runtime} {name}: passes, though listed")?;
                }
                _ => continue,
            }
            surprised = true;
        }
    }
    Ok(surprised)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_tap_is_taken_apart() {
        let cases = [
            ("ok 1 - it works", Some((true, "it works", ""))),
            (
                "not ok 12 a name # TODO later",
                Some((false, "a name", "TODO later")),
            ),
            (
                "ok 3 a name # skip test requires x\r",
                Some((true, "a name", "skip test requires x")),
            ),
            ("ok 4 # SKIP nothing", Some((true, "", "SKIP nothing"))),
            ("1..4", None),
            ("okay", None),
            ("# not ok", None),
        ];
        for (line, want) in cases {
            assert_eq!(tap_line(line), want, "{line:?}");
        }
    }

    #[test]
    fn a_program_passes_only_if_it_ends_well_and_says_no_not_ok() {
        let fail = |why: &str| Outcome::Fail(why.to_owned());
        let cases = [
            ("ok 1 - a\nok 2 - b\n", Ended::Well, Outcome::Pass),
            ("ok 1 - a\nnot ok 2 - b\n", Ended::Well, fail("b")),
            (
                "ok 1 - a\nnot ok 2 - b # TODO c\n",
                Ended::Well,
                Outcome::Pass,
            ),
            (
                "ok 1 - a # SKIP no\n",
                Ended::Well,
                Outcome::Skip("SKIP no".into()),
            ),
            ("ok 1 - a\npanic: x\n", Ended::Badly, fail("panic: x")),
            ("1..0\n", Ended::Well, Outcome::Pass),
            (
                "  {\n    \"error\": \"a hook\",\n  }\n1..0\n",
                Ended::Well,
                fail("a hook"),
            ),
            ("ok 1 - a\n", Ended::Hung, fail("it hung")),
        ];
        for (text, ended, want) in cases {
            assert_eq!(whole(text, ended), want, "{text:?}");
        }
    }

    #[test]
    fn a_failed_bats_test_gives_the_line_that_failed() {
        let text = "1..3\nok 1 one\nnot ok 2 two\n# (in test file x)\n#   `[ 1 = 2 ]' failed\n\
                    ok 3 three # skip no\n";
        let want = [
            ("one".to_owned(), Outcome::Pass),
            ("two".to_owned(), Outcome::Fail("`[ 1 = 2 ]' failed".into())),
            ("three".to_owned(), Outcome::Skip("no".into())),
        ];
        assert_eq!(each(text), want);
    }

    #[test]
    fn only_a_racy_known_failure_may_pass() {
        let expected = Expected::parse("[rt]\n\"a\" = \"racy: x\"\n\"b\" = \"x\"").unwrap();
        let surprised = |name: &str, outcome: Outcome| {
            let column = (
                "rt".to_owned(),
                Verdicts::from([(name.to_owned(), outcome)]),
            );
            write(&mut Vec::new(), &[column], &expected).unwrap()
        };
        let cases = [
            ("a", false, false),
            ("a", true, false),
            ("b", false, false),
            ("b", true, true),
            ("c", false, true),
            ("c", true, false),
        ];
        for (name, passes, want) in cases {
            let outcome = match passes {
                true => Outcome::Pass,
                false => Outcome::Fail("why".into()),
            };
            assert_eq!(surprised(name, outcome), want, "{name} {passes}");
        }
    }

    #[test]
    fn the_list_of_known_failures_can_be_read() {
        assert!(Expected::parse(include_str!("../upstream/expected.toml")).is_ok());
    }
}
