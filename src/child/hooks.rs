//! Hooks that run inside the container's namespaces, as children of its first process.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::identity::{self, Home};
use super::report::{At, Fault};
use crate::plan::fds::Fds;
use crate::plan::hooks::{Hook, StateText};
use crate::plan::{HOOK_EXITED, HOOK_TIMEOUT, Plan, Step};
use crate::sys::clone::Side;
use crate::sys::fd::Ended;
use crate::sys::{Errno, clone, fd, path, proc, tty};

/// createContainer hooks: found on the host, run before its root is left.
pub fn create_container(plan: &mut Plan, fds: &Fds, root: BorrowedFd<'_>) -> Result<(), Fault> {
    if plan.create_container.is_empty() {
        return Ok(());
    }
    let step = Step::CreateContainerHook;
    nix::unistd::fchdir(root).at(step, 0)?;
    let output = fds.hook_output.as_ref().map(AsFd::as_fd);
    let state = &plan.creating_state;
    let start =
        |hook: &mut Hook, stdin: BorrowedFd<'_>| become_hook(hook, stdin, output, None, || Ok(()));
    run(&mut plan.create_container, state, step, start)
}

/// startContainer hooks: found and run inside the container, after start, and as confined as its
/// program will be: they are files of the container, too.
pub fn start_container(plan: &mut Plan) -> Result<(), Fault> {
    if plan.start_container.is_empty() {
        return Ok(());
    }
    let mut home = Home::new();
    let home = home.entry(&plan.process)?;
    let mut hooks = std::mem::take(&mut plan.start_container);
    let start = |hook: &mut Hook, stdin: BorrowedFd<'_>| {
        become_hook(hook, stdin, None, home, || identity::confine(plan))
    };
    let state = &plan.created_state;
    let done = run(&mut hooks, state, Step::StartContainerHook, start);
    plan.start_container = hooks;
    done
}

fn run(
    hooks: &mut [Hook],
    state: &StateText,
    step: Step,
    start: impl Fn(&mut Hook, BorrowedFd<'_>),
) -> Result<(), Fault> {
    for (index, hook) in hooks.iter_mut().enumerate() {
        path::may_execute(&hook.path).at(step, index)?;
        let stdin = state_file(state).at(step, index)?;
        match clone::clone3(0, None).at(step, index)? {
            Side::Child => {
                start(hook, stdin.as_fd());
                clone::exit_now(127)
            }
            Side::Parent { pidfd, .. } => {
                let in_time = fd::poll_in(pidfd.as_fd(), hook.timeout_ms).at(step, index)?;
                if !in_time {
                    fd::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).at(step, index)?;
                }
                let ended = fd::wait(pidfd.as_fd()).at(step, index)?;
                let errno = match ended {
                    _ if !in_time => HOOK_TIMEOUT,
                    Ended::Code(0) => continue,
                    ended => HOOK_EXITED + ended.exit_code(),
                };
                return Err(Fault {
                    step,
                    item: index as u16,
                    errno,
                });
            }
        }
    }
    Ok(())
}

/// A file with the container's state, which no reader can block on.
fn state_file(state: &StateText) -> Result<OwnedFd, Errno> {
    let file = fd::memfd(c"state")?;
    let mut digits = [0; 20];
    let pid = path::decimal(
        &mut digits,
        nix::unistd::getpid().as_raw().unsigned_abs().into(),
    );
    for part in [&state.before_pid, pid, &state.after_pid] {
        let mut rest: &[u8] = part;
        while !rest.is_empty() {
            let count = nix::unistd::write(&file, rest)?;
            rest = &rest[count..];
        }
    }
    nix::unistd::lseek(&file, 0, nix::unistd::Whence::SeekSet)?;
    Ok(file)
}

/// Executes the hook, or returns; the exit code is then the shell's for "cannot execute".
fn become_hook(
    hook: &mut Hook,
    stdin: BorrowedFd<'_>,
    output: Option<BorrowedFd<'_>>,
    home: Option<&CStr>,
    confine: impl FnOnce() -> Result<(), Fault>,
) {
    let ready = tty::make_stdio(stdin, 0).and_then(|()| match output {
        Some(output) => tty::make_stdio(output, 1).and_then(|()| tty::make_stdio(output, 2)),
        None => Ok(()),
    });
    if ready.is_ok() {
        let _ = fd::close_from(3, fd::Close::OnExec);
        let home = home.filter(|_| hook.inherits_env);
        if confine().is_ok() {
            proc::execve(&hook.path, &hook.args, &mut hook.env, home);
        }
    }
}
