//! Hooks that the runtime itself runs, in its own namespaces: prestart, createRuntime, poststart,
//! poststop. Those inside the container are run by `child`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

use oci_spec::runtime::{Hook, Spec};

use crate::error::code::Code;
use crate::error::{Error, Result};
use crate::state::{Record, Status};
use crate::sys::fd;

/// How much of a hook's output an error message quotes, in bytes.
pub const MAX_OUTPUT: u64 = 4096;

/// keel's own environment, for hooks that name none. Entries that are not UTF-8 are left out.
pub fn environment() -> Vec<String> {
    let entry = |(name, value): (OsString, OsString)| {
        Some(format!("{}={}", name.to_str()?, value.to_str()?))
    };
    std::env::vars_os().filter_map(entry).collect()
}

/// prestart and then createRuntime hooks: the container's namespaces and mounts are made, its root
/// is not entered yet.
///
/// # Errors
/// The first hook that fails ends the creation; runtime-spec, runtime.md "Lifecycle" 6.
pub fn before_pivot(spec: &Spec, record: &Record, environment: &[String]) -> Result<()> {
    let hooks = spec.hooks().as_ref();
    let state = record.for_hooks(Status::Creating);
    let prestart = hooks.and_then(|hooks| hooks.prestart().as_deref());
    run_all("prestart", prestart, &state, environment)?;
    let create_runtime = hooks.and_then(|hooks| hooks.create_runtime().as_deref());
    run_all("createRuntime", create_runtime, &state, environment)
}

/// poststart hooks: the program runs.
///
/// # Errors
/// The first hook that fails; the caller then stops the container.
pub fn after_start(spec: &Spec, record: &Record, environment: &[String]) -> Result<()> {
    let hooks = spec
        .hooks()
        .as_ref()
        .and_then(|hooks| hooks.poststart().as_deref());
    run_all(
        "poststart",
        hooks,
        &record.for_hooks(Status::Running),
        environment,
    )
}

/// poststop hooks: the container is deleted. All are run, whatever the others do.
///
/// Returns the errors, which are only warned about: runtime-spec, runtime.md "Lifecycle" 13.
pub fn after_stop(spec: &Spec, record: &Record, environment: &[String]) -> Vec<Error> {
    let hooks = spec
        .hooks()
        .as_ref()
        .and_then(|hooks| hooks.poststop().as_deref());
    let state = record.for_hooks(Status::Stopped);
    let one = |(index, hook)| run("poststop", index, hook, &state, environment).err();
    hooks
        .unwrap_or_default()
        .iter()
        .enumerate()
        .filter_map(one)
        .collect()
}

fn run_all(kind: &str, hooks: Option<&[Hook]>, state: &str, environment: &[String]) -> Result<()> {
    for (index, hook) in hooks.unwrap_or_default().iter().enumerate() {
        run(kind, index, hook, state, environment)?;
    }
    Ok(())
}

/// Runs one hook to its end, or to the end of its time.
fn run(kind: &str, index: usize, hook: &Hook, state: &str, environment: &[String]) -> Result<()> {
    let at = format!("error running {kind} hook #{index}");
    let failed = |what: &str| {
        let step = format!("{at}: {what}");
        let place = u16::try_from(index).unwrap_or(u16::MAX);
        let at = (format!("{kind}-hook"), place);
        move |errno| Error::Setup { step, at, errno }
    };
    let stdin = memory_file(state.as_bytes()).map_err(failed("prepare stdin"))?;
    let mut output = memory_file(b"").map_err(failed("prepare stdout"))?;
    let stdio = |file: &File| file.try_clone().map(Stdio::from);
    let outputs = stdio(&output).and_then(|out| Ok((out, stdio(&output)?)));
    let (stdout, stderr) = outputs.map_err(failed("prepare stdout"))?;

    let args = hook.args().as_deref().unwrap_or_default();
    let env = hook
        .env()
        .as_deref()
        .filter(|env| !env.is_empty())
        .unwrap_or(environment);
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = args.split_first() {
        command.arg0(name).args(rest);
    }
    command
        .env_clear()
        .envs(env.iter().filter_map(|entry| entry.split_once('=')))
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr);
    let spawned = command.spawn();
    let mut child = spawned.map_err(failed(&format!("fork/exec {}", hook.path().display())))?;
    let timeout = hook.timeout().filter(|secs| *secs > 0);
    let in_time = ends_in_time(&child, timeout);
    if !matches!(in_time, Ok(true)) {
        let _ = child.kill();
    }
    let status = child.wait();
    let in_time = in_time.map_err(failed("wait for it"))?;
    let status = status.map_err(failed("wait for it"))?;
    if !in_time {
        let secs = timeout.unwrap_or_default();
        let why = format!("{at}: hook ran past specified timeout of {secs}.0s");
        return Err(Error::Known(Code::HOOK_FAILED, why));
    }
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    let read = output
        .rewind()
        .and_then(|()| output.take(MAX_OUTPUT).read_to_string(&mut text));
    let text = read.map(|_| text.trim().to_owned()).unwrap_or_default();
    let why = format!("{at}: {}, output: {text}", words(status));
    Err(Error::Known(Code::HOOK_FAILED, why))
}

/// Waits for the end of a hook, at most for `timeout` seconds.
fn ends_in_time(child: &Child, timeout: Option<i64>) -> std::io::Result<bool> {
    let millis = timeout.map_or(-1, |secs| {
        i32::try_from(secs.saturating_mul(1000)).unwrap_or(i32::MAX)
    });
    let pidfd = fd::pidfd_open(child.id().cast_signed())?;
    Ok(fd::poll_in(pidfd.as_fd(), millis)?)
}

/// A status in Go's words, which callers' logs show.
fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => "unknown status".into(),
    }
}

/// A file in memory with `content`, at its start: no reader or writer of it ever blocks.
fn memory_file(content: &[u8]) -> std::io::Result<File> {
    let memory: OwnedFd = fd::memfd(c"hook")?;
    let mut file = File::from(memory);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}
