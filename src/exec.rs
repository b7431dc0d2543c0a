//! The `exec` verb: one more process in a container that runs.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capabilities, Capability, Process, Spec};

use crate::bundle::{parse_process, read_json_stream};
use crate::cgroups::{self, Driver, Placement};
use crate::confine;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::foreground::{self, Relay};
use crate::handover;
use crate::log::Log;
use crate::plan::fds::Fds;
use crate::plan::settings::bit_mask;
use crate::plan::{self, Facts, Plan, Step, namespaces};
use crate::spawn::{self, Role, Spawned};
use crate::state::{Container, Status};
use crate::sys::clone::Successor;
use crate::sys::proc::{self, SchedAttr};
use crate::users;
use crate::validate::validate_process;
use crate::verify::Verify;

/// Run a command in a running container
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Send the terminal's master over this unix socket
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Send a pidfd of the process over this unix socket
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// The working directory, inside the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Set an environment variable (repeatable)
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Give the process a terminal
    #[arg(long, short)]
    pub tty: bool,
    /// Run as this user, by name or number
    #[arg(long, short, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Add a supplementary group (repeatable)
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// Read the whole process object from this JSON file
    #[arg(long, short, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Return as soon as the process runs
    #[arg(long, short)]
    pub detach: bool,
    /// Write the process's pid to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// The process's SELinux label
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// The process's AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Set or, with =false, clear no_new_privs
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_new_privs: Option<bool>,
    /// Add a capability (repeatable)
    #[arg(long, short, value_name = "CAP")]
    pub cap: Vec<String>,
    /// Pass this many descriptors after stdio and $LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Place the process in this cgroup below the container's (repeatable)
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    pub cgroup: Vec<String>,
    /// Allow it in a paused container: it runs once the container is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
    /// The command and its arguments
    #[arg(value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Runs the verb. Returns the program's exit code: 0 if detached, 128 and the signal if killed.
///
/// # Errors
/// In runc's words; no pid file is left if the program could not be executed.
pub fn run(args: &Args, context: &mut Context) -> Result<u8> {
    let container = context.store.load(&args.id)?;
    let cgroup = &container.record.cgroup;
    let mut driver = cgroups::open(cgroup);
    let init = running(&container, driver.as_ref(), args.ignore_paused)?;
    let spec = container.spec()?;
    let process = process(args, &spec, init.as_fd(), context)?;
    let handed = handover::descriptors(args.preserve_fds)?;
    check_terminal(&process, args)?;

    let below = below(&args.cgroup)?;
    let pid = container.record.init.ok_or(Error::NotRunning)?.pid;
    let placement = driver.join(pid, &below)?;
    let facts = Facts {
        id: &args.id,
        setgroups_may_be_denied: !context.host.is_root(),
        listen_fds: handed.listen,
        preserve_fds: handed.preserve,
        cgroup: matches!(placement, Placement::ByParent).then_some(cgroup),
        ..Facts::of(Path::new(&container.record.bundle))
    };
    let mut plan = Plan::for_exec(&args.id, &process, &spec, &facts)?;
    let made = spec.linux().as_ref().map_or(0, namespaces::made);
    let kinds = spawn::namespaces_to_enter(pid, made)?;
    if kinds & namespaces::USER == 0 {
        limit_rights(&mut plan, &spec, kinds, context)?;
    }
    let successor = (kinds & namespaces::PID != 0).then(Successor::new);
    let successor = successor
        .transpose()
        .map_err(|errno| Error::host("map", "a page of memory", errno))?;
    let mut fds = Fds {
        seal: context.seal.take(),
        init: Some((init, kinds)),
        successor,
        ..Fds::default()
    };
    let terminal = open_terminal(args, &plan, &mut fds)?;
    let signals = if args.detach {
        None
    } else {
        Some(foreground::prepare(true)?)
    };

    let (first, last) = affinity(&process)?;
    // The process is born with the first one, and takes it into the container's cgroup.
    start_on(first.as_deref(), context)?;
    plan.process.affinity = last;
    let scheduler = plan.process.scheduler.take();
    let mut process = spawn::start(&mut plan, &mut fds, &placement, Role::Exec)?;
    context
        .log
        .debug(|| format!("process {} is cloned for {}", process.pid, args.id));
    process.place(driver.as_ref(), container.record.intel_rdt.as_ref())?;
    process.set_oom_score(&plan)?;
    process.raise_rlimits(&plan)?;
    if plan.waits_at_birth {
        process.go(&plan)?;
    }
    let verify = context.verify();
    let pidfd_socket = args.pidfd_socket.as_deref();
    let promised = Promised {
        scheduler,
        terminal,
        pidfd_socket,
        verify,
    };
    let terminal = bring_in(&mut process, &plan, fds, kinds, &container, promised)?;
    process
        .wait_for_exec(&plan)
        .and_then(|()| verify.running(&plan, process.pid))
        .or_else(|error| context.log.unless_started(error))?;
    if let Some(file) = &args.pid_file {
        handover::write_pid_file(file, process.pid)?;
    }
    process.settle();
    let Some(signals) = signals else {
        return Ok(0);
    };
    let relay = terminal.as_ref().map(Relay::new).transpose();
    confine::to_waiting();
    let code = foreground::attend(process.pidfd.as_fd(), &signals, relay, None)?;
    u8::try_from(code).map_err(|_| Error::Failed("an exit code is at most 255".into()))
}

/// What the process, or somebody else, is to get before its program runs.
struct Promised<'a> {
    scheduler: Option<SchedAttr>,
    terminal: Option<OwnedFd>,
    pidfd_socket: Option<&'a Path>,
    verify: Verify,
}

impl Promised<'_> {
    fn is_nothing(&self, plan: &Plan) -> bool {
        let has_listener = plan
            .seccomp
            .as_ref()
            .is_some_and(|it| it.listener.is_some());
        self.scheduler.is_none()
            && self.terminal.is_none()
            && self.pidfd_socket.is_none()
            && !self.verify.0
            && !has_listener
    }
}

/// Follows the process into the container, and brings it to its program; returns the terminal's master,
/// if keel keeps it.
fn bring_in(
    process: &mut Spawned,
    plan: &Plan,
    fds: Fds,
    kinds: u64,
    container: &Container,
    promised: Promised<'_>,
) -> Result<Option<OwnedFd>> {
    let is_free = process.is_born_in_place() && promised.is_nothing(plan);
    if is_free {
        // Its report is answered in advance: the program starts without a change of processes.
        process.go(plan)?;
    }
    drop(fds);
    if kinds & namespaces::PID != 0 {
        process.follow(plan)?;
    }
    if !is_free {
        return let_go(process, plan, container, promised);
    }
    process.wait_for_hangup()?;
    process.wait_for(plan, Step::Created).map(|_| None)
}

/// Gives the process what it is promised, and lets it go; returns the terminal's master, if keel keeps it.
fn let_go(
    process: &mut Spawned,
    plan: &Plan,
    container: &Container,
    promised: Promised<'_>,
) -> Result<Option<OwnedFd>> {
    handover::seccomp_listener(plan, process, &container.record, Status::Running)?;
    process.wait_for(plan, Step::Created)?;
    promised
        .scheduler
        .map_or(Ok(()), |attr| set_scheduler(process.pid, &attr))?;
    promised.verify.waiting(plan, process.pid)?;
    let terminal = promised
        .terminal
        .map(|socket| handover::receive_terminal(&socket))
        .transpose()?;
    if let Some(socket) = promised.pidfd_socket {
        handover::send_pidfd(socket, b"setns", process.pidfd.as_fd())?;
    }
    process.go(plan)?;
    Ok(terminal)
}

/// Goes to the processors that the process is born with.
fn start_on(first: Option<&[u64]>, context: &mut Context) -> Result<()> {
    let Some(first) = first else {
        return Ok(());
    };
    proc::set_cpu_affinity(0, first)
        .map_err(|errno| Error::host("set", "the CPU affinity .process.execCPUAffinity", errno))?;
    if let [low, ..] = first {
        context.log.debug(|| format!("affinity: {low:#x}"));
    }
    Ok(())
}

/// Nothing more than the runtime has itself; and not for a moment, where others may look at it.
fn limit_rights(plan: &mut Plan, spec: &Spec, kinds: u64, context: &Context) -> Result<()> {
    plan.process
        .limit_capabilities(context.host.capabilities()?);
    let visible = kinds & namespaces::PID != 0 && plan::peers_may_trace(spec);
    if let Some(filter) = &mut plan.seccomp {
        filter.first = visible && !plan.process.no_new_privs;
    }
    Ok(())
}

/// Opens where the process sends its terminal's master; returns keel's own end, if it is that.
fn open_terminal(args: &Args, plan: &Plan, fds: &mut Fds) -> Result<Option<OwnedFd>> {
    if plan.process.terminal.is_none() {
        return Ok(None);
    }
    let (ours, theirs) = handover::console(args.console_socket.as_deref())?;
    fds.console = Some(theirs);
    fds.relayed = ours.is_some();
    Ok(ours)
}

/// The container's first process, if the container may be entered.
fn running(container: &Container, cgroup: &dyn Driver, ignore_paused: bool) -> Result<OwnedFd> {
    let wrong = |why: &str| Err(Error::WrongStatus(why.into()));
    // From here on the pid is not given to another process.
    let init = container.record.init.and_then(|init| init.open().ok());
    let status = match init {
        Some(_) => container.status_of_living(cgroup)?,
        None => container.status()?,
    };
    match (status, init) {
        (Status::Creating, _) => wrong("cannot exec in a container that is being created"),
        (Status::Paused, _) if !ignore_paused => {
            wrong("cannot exec in a paused container (use --ignore-paused to override)")
        }
        // runc, too, lets a process into a container that is created but not started.
        (Status::Created | Status::Running | Status::Paused, Some(init)) => Ok(init),
        _ => wrong("cannot exec in a stopped container"),
    }
}

/// The process object: the file's, or the container's own with what the flags change.
fn process(
    args: &Args,
    spec: &Spec,
    init: BorrowedFd<'_>,
    context: &mut Context,
) -> Result<Process> {
    let own = spec.process().as_ref();
    let mut process = match &args.process {
        Some(file) => {
            let name = file.display().to_string();
            let bytes = read_json_stream(file, &name)?;
            let (process, warnings) = parse_process(&bytes, &name)?;
            warnings
                .iter()
                .for_each(|warning| context.log.warn(warning));
            validate_process(&process, &name, "", &context.host)?;
            process
        }
        None => {
            let mut process = own.cloned().unwrap_or_default();
            if args.command.is_empty() {
                return Err(Error::Usage("exec args cannot be empty".into()));
            }
            apply_flags(args, &mut process, init, &mut context.log)?;
            validate_process(&process, "config.json", ".process", &context.host)?;
            process
        }
    };
    if let Some(own) = own {
        inherit(&mut process, own);
    }
    Ok(process)
}

/// What the command line says on top of the container's own process.
fn apply_flags(
    args: &Args,
    process: &mut Process,
    init: BorrowedFd<'_>,
    log: &mut Log,
) -> Result<()> {
    let command: Result<Vec<String>> = args.command.iter().map(utf8).collect();
    process.set_args(Some(command?));
    process.set_terminal(Some(args.tty));
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.into());
    }
    if !args.env.is_empty() {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(args.env.iter().cloned());
        process.set_env(Some(env));
    }
    if let Some(profile) = &args.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &args.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if let Some(wanted) = args.no_new_privs {
        process.set_no_new_privileges(Some(wanted));
    }
    if !args.cap.is_empty() {
        let unknown = add_capabilities(process, &args.cap);
        if !unknown.is_empty() {
            let names = unknown.join(" ");
            log.warn(&format!(
                "--cap: ignoring unknown or unavailable capabilities: [{names}]"
            ));
        }
    }
    if let Some(user) = &args.user {
        set_user(process, user, init)?;
    }
    if !args.additional_gids.is_empty() {
        let mut user = process.user().clone();
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        gids.extend(&args.additional_gids);
        user.set_additional_gids(Some(gids));
        process.set_user(user);
    }
    Ok(())
}

fn utf8(text: &OsString) -> Result<String> {
    text.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::Usage(format!("the argument {text:?} is not UTF-8")))
}

/// Adds to bounding, effective and permitted, and to ambient what the container's process inherits
/// anyway; never to inheritable (CVE-2022-29162). Returns the names that are unknown: like those of
/// config.json, they are no reason to fail.
fn add_capabilities<'n>(process: &mut Process, names: &'n [String]) -> Vec<&'n str> {
    let mut unknown = Vec::new();
    let mut more = Capabilities::new();
    for name in names {
        let upper = name.to_ascii_uppercase();
        let full = if upper.starts_with("CAP_") {
            upper
        } else {
            format!("CAP_{upper}")
        };
        match serde_json::from_value::<Capability>(serde_json::Value::String(full)) {
            Ok(known) => drop(more.insert(known)),
            Err(_) => unknown.push(name.as_str()),
        }
    }
    let mut lists = process.capabilities().clone().unwrap_or_default();
    let joined = |list: &Option<Capabilities>| {
        Some(
            list.iter()
                .flatten()
                .chain(&more)
                .copied()
                .collect::<Capabilities>(),
        )
    };
    lists.set_bounding(joined(lists.bounding()));
    lists.set_effective(joined(lists.effective()));
    lists.set_permitted(joined(lists.permitted()));
    let inheritable = lists.inheritable().iter().flatten();
    let inherited: Capabilities = inheritable
        .filter(|one| more.contains(one))
        .copied()
        .collect();
    let ambient = lists.ambient().iter().flatten().chain(&inherited).copied();
    lists.set_ambient(Some(ambient.collect()));
    process.set_capabilities(Some(lists));
    unknown
}

/// `UID[:GID]`, by number, or by the names in the container's own `/etc/passwd` and `/etc/group`.
fn set_user(process: &mut Process, text: &str, init: BorrowedFd<'_>) -> Result<()> {
    let (uid, gid) = users::resolve(text, init)?;
    let mut user = process.user().clone();
    user.set_uid(uid);
    user.set_gid(gid.unwrap_or(if uid == process.user().uid() {
        user.gid()
    } else {
        0
    }));
    process.set_user(user);
    Ok(())
}

/// What a process.json does not say comes from the container; environment and user never do.
fn inherit(process: &mut Process, own: &Process) {
    if process.capabilities().is_none() {
        process.set_capabilities(own.capabilities().clone());
    }
    if process.rlimits().is_none() {
        process.set_rlimits(own.rlimits().clone());
    }
    if process.apparmor_profile().is_none() {
        process.set_apparmor_profile(own.apparmor_profile().clone());
    }
    if process.selinux_label().is_none() {
        process.set_selinux_label(own.selinux_label().clone());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(own.scheduler().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*own.io_priority());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(own.exec_cpu_affinity().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(own.oom_score_adj());
    }
}

/// Processors, one bit each.
type CpuMask = Vec<u64>;

/// `execCPUAffinity`: the processors before and after the process is in the container's cgroup.
fn affinity(process: &Process) -> Result<(Option<CpuMask>, Option<CpuMask>)> {
    let Some(affinity) = process.exec_cpu_affinity() else {
        return Ok((None, None));
    };
    let at = ".process.execCPUAffinity";
    let read = |list: &Option<String>, name: &str| {
        let list = list.as_deref().filter(|list| !list.is_empty());
        list.map(|list| bit_mask(list, &format!("{at}.{name}")))
            .transpose()
    };
    let first = read(affinity.initial(), "initial")?;
    Ok((first, read(affinity.cpu_affinity_final(), "final")?))
}

/// Not by the process itself: a deadline keeps it from cloning the one that appears in the container,
/// and that one may have it reset (`SCHED_FLAG_RESET_ON_FORK`). See sched(7).
fn set_scheduler(pid: i32, attr: &SchedAttr) -> Result<()> {
    proc::set_scheduler(pid, attr)
        .map_err(|errno| Error::host("set", "the scheduler .process.scheduler", errno))
}

fn check_terminal(process: &Process, args: &Args) -> Result<()> {
    let (terminal, socket) = (
        process.terminal().unwrap_or(false),
        args.console_socket.is_some(),
    );
    let why = match (terminal, args.detach, socket) {
        (true, true, false) => {
            "cannot allocate tty if runc will detach without setting console socket: \
             give --console-socket"
        }
        (false, _, true) | (_, false, true) => {
            "cannot use console socket if runc will not detach or allocate tty: \
             leave out --console-socket"
        }
        _ => return Ok(()),
    };
    Err(Error::Usage(why.into()))
}

/// `--cgroup [CONTROLLER[,CONTROLLER]:]PATH`, repeatable.
fn below(list: &[String]) -> Result<cgroups::Below> {
    let mut below = cgroups::Below::new();
    for entry in list {
        let (controllers, path) = entry.split_once(':').unwrap_or(("", entry));
        for controller in controllers.split(',') {
            if below
                .insert(controller.to_owned(), path.to_owned())
                .is_some()
            {
                let why = format!("--cgroup names the controller {controller:?} twice");
                return Err(Error::Usage(why));
            }
        }
    }
    Ok(below)
}
