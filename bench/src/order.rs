//! The functions that keel executes on its usual ways, in the order of their first call.
//!
//! The linker puts them side by side (`--symbol-ordering-file`): the kernel maps a program by 64 KiB
//! around each fault, and so maps less of it, for fewer faults. They are found by stepping through the
//! commands, their children up to execve included, instruction by instruction. Man page: ptrace(2).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::bundle::{self, Variant};
use crate::host::Host;
use crate::runtime::Runtime;
use crate::scenario::fresh_id;

/// One function of the binary.
struct Function {
    start: u64,
    end: u64,
    name: String,
}

/// What has been executed so far, and by whom it is found out.
struct Tracer {
    /// In the order of their addresses.
    functions: Vec<Function>,
    seen: HashSet<usize>,
    order: Vec<usize>,
    /// Where the binary is loaded in each process that is stepped through.
    bases: HashMap<Pid, u64>,
}

/// Writes the names of the functions into `file`, one on a line. The binary must have its symbols.
///
/// # Errors
/// If keel or nm(1) is missing, a command fails, or the file cannot be written.
pub fn write(keel: Option<&Path>, file: &Path) -> Result<(), String> {
    let host = Host::prepare()?;
    let runtimes = Runtime::find_oci(&host, keel, &[])?;
    let keel = runtimes.first().ok_or("keel is not built")?;
    let mut tracer = Tracer::new(functions(&keel.path)?);
    let short = bundle::write(&host, Variant::Plain, &["/bin/true"])?;
    let long = bundle::write(&host, Variant::Plain, &["/bin/sleep", "9999"])?;
    let id = fresh_id();
    let commands: &[&[&str]] = &[
        &["run", "--bundle", &short, &fresh_id()],
        &["create", "--bundle", &long, &id],
        &["start", &id],
        &["exec", &id, "/bin/true"],
        &["state", &id],
        &["list"],
        &["kill", &id, "KILL"],
        &["delete", "--force", &id],
    ];
    for command in commands {
        tracer.follow(&keel.argv(command))?;
    }
    let names = tracer.order.iter().map(|at| &tracer.functions[*at].name);
    let text: String = names.map(|name| format!("{name}\n")).collect();
    fs::write(file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))
}

/// The functions of the binary at `path`, in the order of their addresses.
fn functions(path: &Path) -> Result<Vec<Function>, String> {
    let output = Command::new("nm")
        .args(["--defined-only", "--numeric-sort", "--print-size"])
        .arg(path)
        .output()
        .map_err(|e| format!("cannot run nm: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let read = |line: &str| {
        let mut words = line.split_whitespace();
        let number = |word: &str| u64::from_str_radix(word, 16).ok();
        let (start, size) = (number(words.next()?)?, number(words.next()?)?);
        let is_code = matches!(words.next()?, "t" | "T" | "w" | "W");
        let name = words.next()?.to_owned();
        is_code.then_some(Function {
            start,
            end: start + size,
            name,
        })
    };
    let found: Vec<Function> = text.lines().filter_map(read).collect();
    match found.is_empty() {
        true => Err(format!("{} has no symbols", path.display())),
        false => Ok(found),
    }
}

impl Tracer {
    fn new(functions: Vec<Function>) -> Self {
        Self {
            functions,
            seen: HashSet::new(),
            order: Vec::new(),
            bases: HashMap::new(),
        }
    }

    /// Runs a command to its end, in steps; a container's process that it leaves waiting is stepped
    /// through while later commands are.
    fn follow(&mut self, argv: &[String]) -> Result<(), String> {
        let failed = |errno: Errno| format!("cannot trace {}: {errno}", argv.join(" "));
        let child = Command::new("sh")
            .args(["-c", "kill -STOP $$; exec \"$@\"", "sh"])
            .args(argv)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot run sh: {e}"))?;
        let first = Pid::from_raw(child.id().cast_signed());
        waitpid(first, Some(WaitPidFlag::WUNTRACED)).map_err(failed)?;
        let options = Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(first, options).map_err(failed)?;
        kill(first, Signal::SIGCONT).map_err(failed)?;
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)).map_err(failed)? {
                WaitStatus::Exited(pid, 0) if pid == first => return Ok(()),
                WaitStatus::Exited(pid, code) if pid == first => {
                    return Err(format!("{} exits with {code}", argv.join(" ")));
                }
                status => self.advance(status).map_err(failed)?,
            }
        }
    }

    /// Lets a process that has stopped go on: by one step, if it is keel.
    fn advance(&mut self, status: WaitStatus) -> Result<(), Errno> {
        let (pid, signal) = match status {
            WaitStatus::PtraceEvent(pid, _, event) if event == Event::PTRACE_EVENT_EXEC as i32 => {
                // The second program of a process is the container's.
                if self.bases.remove(&pid).is_some() {
                    return ptrace::detach(pid, None);
                }
                self.bases.insert(pid, base(pid)?);
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                if event != Event::PTRACE_EVENT_STOP as i32
                    && let Some(base) = self.bases.get(&pid).copied()
                {
                    let born = Pid::from_raw(ptrace::getevent(pid)? as i32);
                    self.bases.insert(born, base);
                }
                (pid, None)
            }
            WaitStatus::Stopped(pid, Signal::SIGTRAP) => {
                self.record(pid)?;
                (pid, None)
            }
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            _ => return Ok(()),
        };
        let going_on = match self.bases.contains_key(&pid) {
            true => ptrace::step(pid, signal),
            false => ptrace::cont(pid, signal),
        };
        match going_on {
            // It was killed meanwhile.
            Err(Errno::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Notes the function that the process is in.
    fn record(&mut self, pid: Pid) -> Result<(), Errno> {
        let Some(base) = self.bases.get(&pid) else {
            return Ok(());
        };
        let at = ptrace::getregs(pid)?.rip.wrapping_sub(*base);
        let next = self.functions.partition_point(|f| f.start <= at);
        let Some(index) = next.checked_sub(1).filter(|i| at < self.functions[*i].end) else {
            return Ok(());
        };
        if self.seen.insert(index) {
            self.order.push(index);
        }
        Ok(())
    }
}

/// Where the program of `pid` is loaded: its first mapping.
fn base(pid: Pid) -> Result<u64, Errno> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).map_err(|_| Errno::ESRCH)?;
    let start = maps.split('-').next().unwrap_or_default();
    u64::from_str_radix(start, 16).map_err(|_| Errno::EINVAL)
}
