//! `fault-injector list FILE PROGRAM [ARG…]`: writes one line for each system call that the program
//! and its children make: which process, counted from 0 as they are born; the call's name; which of its
//! calls by that name, counted from 0. `fault-injector PROCESS.NAME.CALL=FAULT PROGRAM [ARG…]`:
//! `EINTR`, `EAGAIN`, `ENOMEM` or `EIO` instead of that call, or the process is killed before it, with
//! `KILL`; with `LIE` a write(2) is not made, and said to have written all.
//!
//! A process is followed until it executes another program. It ends with the program, and as that does;
//! it says so if the program has left a child that has ended and was not waited for, or has failed and left
//! one that lives. A program that was killed is not asked, nor one whose waiting was the call.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code, unused_imports))]

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use syscalls::Sysno;

use integration::sys;

/// What is done at the chosen call.
#[derive(Clone, Copy)]
enum Fault {
    Errno(Errno),
    Kill,
    Lie,
}

/// A call of a process.
#[derive(PartialEq, Eq)]
struct Point {
    process: usize,
    name: String,
    call: usize,
}

enum Task {
    List { text: String, file: OsString },
    Inject { at: Point, fault: Fault },
}

/// One process that is followed.
struct Process {
    number: usize,
    /// How many there have been by each name.
    calls: HashMap<String, usize>,
}

struct Tracer {
    task: Task,
    processes: HashMap<Pid, Process>,
    born: usize,
    /// They are to stop for the first time: left alone, they would stay so.
    newborn: HashSet<Pid>,
    /// What is to be put in place of the result when the call returns.
    pending: Option<i64>,
    /// Who met with the fault.
    struck: Option<Pid>,
    done: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(why) => {
            // There is nobody left to tell if stderr is gone.
            let _ = writeln!(std::io::stderr(), "fault-injector: {why}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<ExitCode, String> {
    let mut args = std::env::args_os().skip(1);
    let word = args.next().ok_or("what to do?")?;
    let task = match word.to_str() {
        Some("list") => Task::List {
            text: String::new(),
            file: args.next().ok_or("which file?")?,
        },
        Some(word) => {
            injection(word).ok_or_else(|| format!("not PROCESS.NAME.CALL=FAULT: {word}"))?
        }
        None => return Err("not text".into()),
    };
    let mut command = Command::new(args.next().ok_or("which program?")?);
    command.args(args);
    nix::sys::prctl::set_child_subreaper(true).map_err(|errno| errno.to_string())?;
    let child = sys::spawn_traced(&mut command).map_err(|error| error.to_string())?;
    let main = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits an int"));
    let mut tracer = Tracer {
        task,
        processes: HashMap::new(),
        born: 0,
        newborn: HashSet::new(),
        pending: None,
        struck: None,
        done: false,
    };
    let end = tracer.follow(main).map_err(|errno| errno.to_string())?;
    if let Task::List { text, file } = &tracer.task {
        std::fs::write(file, text).map_err(|error| error.to_string())?;
    }
    match end {
        WaitStatus::Signaled(_, signal, _) => {
            let _ = raise(signal);
            Err(format!("survived {signal}"))
        }
        WaitStatus::Exited(_, code) => {
            if !matches!(&tracer.task, Task::Inject { at, .. } if at.name.starts_with("wait")) {
                say_what_is_left(code, tracer.struck);
            }
            Ok(ExitCode::from(code.to_le_bytes()[0]))
        }
        other => Err(format!("{other:?}")),
    }
}

/// The children of a program that has ended with `code` are this process's now. A container that `create`
/// has left waiting may meet with the fault there, with nobody else to wait for it.
fn say_what_is_left(code: i32, struck: Option<Pid>) {
    let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
    loop {
        let what = match waitpid(None, Some(flags)) {
            Ok(WaitStatus::StillAlive) if code != 0 => "lives",
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
                if code == 0 && struck == Some(pid) {
                    continue;
                }
                "was not waited for"
            }
            // It was still followed, and has stopped for that.
            Ok(_) => continue,
        };
        let _ = writeln!(std::io::stderr(), "fault-injector: a child {what}");
        if what == "lives" {
            return;
        }
    }
}

fn injection(word: &str) -> Option<Task> {
    let (at, fault) = word.split_once('=')?;
    let mut parts = at.split('.');
    let at = Point {
        process: parts.next()?.parse().ok()?,
        name: parts.next()?.to_owned(),
        call: parts.next()?.parse().ok()?,
    };
    let fault = match fault {
        "KILL" => Fault::Kill,
        "LIE" if at.name == "write" => Fault::Lie,
        "EINTR" => Fault::Errno(Errno::EINTR),
        "EAGAIN" => Fault::Errno(Errno::EAGAIN),
        "ENOMEM" => Fault::Errno(Errno::ENOMEM),
        "EIO" => Fault::Errno(Errno::EIO),
        _ => return None,
    };
    Some(Task::Inject { at, fault })
}

impl Tracer {
    /// Follows the program until it ends, and says how.
    fn follow(&mut self, main: Pid) -> nix::Result<WaitStatus> {
        waitpid(main, None)?;
        ptrace::setoptions(
            main,
            Options::PTRACE_O_TRACESYSGOOD
                | Options::PTRACE_O_TRACECLONE
                | Options::PTRACE_O_TRACEFORK
                | Options::PTRACE_O_TRACEVFORK
                | Options::PTRACE_O_TRACEEXEC,
        )?;
        self.meet(main);
        self.go_on(main, None);
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL))? {
                end @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => {
                    if pid == main {
                        self.let_go();
                        return Ok(end);
                    }
                    self.processes.remove(&pid);
                }
                WaitStatus::PtraceSyscall(pid) => self.at_call(pid),
                WaitStatus::PtraceEvent(pid, _, event) => self.at_event(pid, event),
                // The first stop of a child is no signal of anybody's.
                WaitStatus::Stopped(pid, _) if !self.processes.contains_key(&pid) => {
                    self.meet(pid);
                    self.go_on(pid, None);
                }
                WaitStatus::Stopped(pid, signal) => self.go_on(pid, Some(signal)),
                _ => {}
            }
        }
    }

    /// It has executed a program, or has a child.
    fn at_event(&mut self, pid: Pid, event: i32) {
        if event == Event::PTRACE_EVENT_EXEC as i32 {
            let _ = ptrace::detach(pid, None);
            return;
        }
        let child = ptrace::getevent(pid)
            .ok()
            .and_then(|it| i32::try_from(it).ok());
        let child = child.map(Pid::from_raw);
        self.newborn
            .extend(child.filter(|it| !self.processes.contains_key(it)));
        self.go_on(pid, None);
    }

    fn let_go(&mut self) {
        for pid in self.newborn.drain() {
            if waitpid(pid, Some(WaitPidFlag::__WALL)).is_ok() {
                let _ = ptrace::detach(pid, None);
            }
        }
    }

    fn meet(&mut self, pid: Pid) {
        self.newborn.remove(&pid);
        let number = self.born;
        self.processes.insert(
            pid,
            Process {
                number,
                calls: HashMap::new(),
            },
        );
        self.born += 1;
    }

    /// Lets a stopped process run: to its next system call if that may be the one.
    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        let number = self.processes.get(&pid).map(|it| it.number);
        let watched = match &self.task {
            Task::List { .. } => true,
            Task::Inject { at, .. } => number == Some(at.process),
        };
        // It may have been killed while it was stopped.
        let _ = match (self.done, watched) {
            (true, _) => ptrace::detach(pid, signal),
            (false, true) => ptrace::syscall(pid, signal),
            (false, false) => ptrace::cont(pid, signal),
        };
    }

    /// It is about to make a system call, or back from it.
    fn at_call(&mut self, pid: Pid) {
        if let (Some(process), Ok(info)) = (self.processes.get_mut(&pid), ptrace::syscall_info(pid))
        {
            if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
                let number = ptrace::getregs(pid).map_or(0, |it| it.orig_rax);
                let name = usize::try_from(number).ok().and_then(Sysno::new);
                let name = name.map_or("?", |it| it.name()).to_owned();
                let count = process.calls.entry(name.clone()).or_default();
                let at = Point {
                    process: process.number,
                    name,
                    call: *count,
                };
                *count += 1;
                self.before_call(pid, &at);
            } else if let Some(result) = self.pending.take() {
                set_registers(pid, |it| it.rax = result.cast_unsigned());
                self.done = true;
            }
        }
        self.go_on(pid, None);
    }

    fn before_call(&mut self, pid: Pid, at: &Point) {
        match &mut self.task {
            Task::List { text, .. } => {
                let _ = writeln!(text, "{} {} {}", at.process, at.name, at.call);
            }
            Task::Inject { at: wanted, .. } if wanted != at => {}
            Task::Inject { fault, .. } => {
                self.struck = Some(pid);
                // close(2) gives the descriptor back whatever it says.
                if at.name != "close" {
                    // A number that no call has: the kernel does nothing.
                    set_registers(pid, |it| it.orig_rax = u64::MAX);
                }
                match *fault {
                    Fault::Errno(errno) => self.pending = Some(-i64::from(errno as i32)),
                    // The third argument is the length.
                    Fault::Lie => {
                        let length = ptrace::getregs(pid).map_or(0, |it| it.rdx);
                        self.pending = Some(length.cast_signed());
                    }
                    Fault::Kill => {
                        let _ = kill(pid, Signal::SIGKILL);
                        self.done = true;
                    }
                }
            }
        }
    }
}

fn set_registers(pid: Pid, change: impl FnOnce(&mut libc::user_regs_struct)) {
    if let Ok(mut registers) = ptrace::getregs(pid) {
        change(&mut registers);
        let _ = ptrace::setregs(pid, registers);
    }
}
