//! `create`: from a bundle to a process that waits to execute its program.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::SystemTime;

use oci_spec::runtime::{LinuxIntelRdt, LinuxResources, Spec};

use crate::bundle::Bundle;
use crate::cgroups::resctrl::{self, Group};
use crate::cgroups::{self, Driver, Placement};
use crate::context::Context;
use crate::error::code::Code;
use crate::error::{Error, Result};
use crate::handover;
use crate::hooks;
use crate::netdevices::Moved;
use crate::notify;
use crate::plan::fds::Fds;
use crate::plan::{Facts, Plan, Step, cgroup_mount, namespaces};
use crate::spawn::{self, Role, Spawned};
use crate::state::{Container, Init, Record, Status, gate};
use crate::sys::fd;
use crate::units::{Precision, rfc3339};
use crate::validate::{Asked, validate};

pub mod rollback;

use rollback::Rollback;

/// `create`, and what `run` shares with it.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "create")]
pub struct Args {
    /// The bundle's directory
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Read this file instead of the bundle's config.json
    #[arg(long, short = 'f', value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Send the terminal's master over this unix socket
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Send a pidfd of the container's first process over this unix socket
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Write the first process's pid to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Move the root instead of pivot_root: for a host that runs from a ramdisk
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Pass this many descriptors after stdio and $LISTEN_FDS to the container
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// A name for the container, unique under the root directory
    #[arg(value_name = "ID")]
    pub id: String,
}

/// How the container gets its terminal and when it starts.
#[derive(Debug)]
pub enum Mode {
    /// `create`: the process waits at the gate, the terminal goes to the console socket.
    Gated,
    /// `run --detach`: it starts at once, the terminal goes to the console socket.
    Detached,
    /// `run`: it starts at once, the terminal stays with keel.
    Foreground,
}

/// A container whose process is ready.
#[derive(Debug)]
pub struct Created {
    /// The container, locked.
    pub container: Container,
    /// Its process, which has reported [`Step::Created`].
    pub process: Spawned,
    /// The plan it was made from.
    pub plan: Plan,
    /// The terminal's master, in the foreground.
    pub terminal: Option<OwnedFd>,
    /// Whether it has gone on already, as [`Spawned::go`] would let it.
    pub released: bool,
}

/// Runs the verb.
///
/// # Errors
/// Everything that can be wrong with a bundle or a host; nothing half-made is left.
pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let created = create(args, context, &Mode::Gated)?;
    let Created {
        mut process, plan, ..
    } = created;
    process.go(&plan)?;
    process.settle();
    Ok(())
}

/// The straight line of `create`, and the first half of `run`.
///
/// The caller lets the process go on with [`Spawned::go`], unless it has been released already.
///
/// # Errors
/// As [`run`].
pub fn create(args: &Args, context: &mut Context, mode: &Mode) -> Result<Created> {
    context.store.check_free(&args.id)?;
    let (bundle, cgroup, group, mut plan) = decide(args, context, mode)?;
    let from = bundle.path.display();
    let mounts = plan.mounts.len();
    let planned = || format!("creating {} from {from} with {mounts} mounts", args.id);
    context.log.debug(planned);

    let mut rollback = Rollback::default();
    let directory = context.store.reserve(&args.id)?;
    let path = context.root.path.join(&args.id);
    rollback.push(move || drop(fs::remove_dir_all(&path)));
    let record = first_record(&args.id, &bundle, &plan, (&cgroup, group.as_ref()));
    let mut container = directory.fill(record, &bundle.raw)?;

    if notify::wanted().is_some() {
        notify::make_directory(container.path())?;
    }
    let (driver, placement) = confine(&bundle.spec, cgroup, group.as_ref(), &mut rollback)?;
    cgroup_mount::show_where_it_stays(&mut plan.mounts, &container.record.cgroup, &driver.saved())?;

    // After the cgroups: a container without a cgroup namespace gets its own ones as bind mounts.
    let mut fds = plan.open()?;
    fds.seal = context.seal.take();
    if matches!(mode, Mode::Gated) {
        fds.gate = Some(gate::build(container.dir())?);
    }
    let terminal = open_channels(&plan, args, &mut fds)?;

    let mut process = spawn::start(&mut plan, &mut fds, &placement, Role::Init)?;
    container.record.init = Some(Init::of(process.pid)?);
    process.place(driver.as_ref(), group.as_ref())?;
    // Not before: systemd makes a scope's cgroup when it gets the process.
    container.record.cgroup = driver.saved();
    let placed = || format!("process {} is cloned and placed", process.pid);
    context.log.debug(placed);
    let verify = context.verify();
    let released = goes_ahead(args, mode, &placement) && terminal.is_none() && !verify.0;
    let may_set_ids = context.host.may_set_ids()?;
    let given = take_net_devices(&process, &plan, &fds, &mut rollback)
        .and_then(|()| release(&mut process, &plan, &fds, may_set_ids));
    drop(fds.seal.take());
    let up = given
        // While the process makes its mounts, and before hooks, which may change a device rule.
        .and_then(|()| driver.verify(resources(&bundle.spec)))
        .and_then(|()| run_hooks(&mut process, &plan, &bundle, &container))
        .and_then(|()| {
            handover::seccomp_listener(&plan, &mut process, &container.record, Status::Creating)
        })
        .and_then(|()| {
            if released {
                if !process.is_born_in_place() {
                    driver.verify_placed(process.pid)?;
                }
                return let_go_ahead(&mut process, &plan, &mut container);
            }
            process.wait_for(&plan, Step::Created)?;
            driver.verify_placed(process.pid)?;
            verify.waiting(&plan, process.pid)
        })
        .map_err(|error| with_output(error, &fds));
    if let Err(error) = up {
        // The container was there, if only for its hooks: its end is theirs to know.
        drop(process);
        for failed in hooks::after_stop(&bundle.spec, &container.record, &hooks::environment()) {
            context.log.warn(&failed.line());
        }
        return Err(error);
    }
    let terminal = terminal
        .map(|socket| handover::receive_terminal(&socket))
        .transpose()?;

    if !released {
        container.record.complete = true;
        container.save()?;
    }
    announce(args, &process)?;
    rollback.commit();
    context
        .log
        .debug(|| format!("created container {} with process {}", args.id, process.pid));
    Ok(Created {
        container,
        process,
        plan,
        terminal,
        released,
    })
}

/// `linux.resources`.
fn resources(spec: &Spec) -> Option<&LinuxResources> {
    spec.linux().as_ref()?.resources().as_ref()
}

/// `linux.intelRdt`.
fn intel_rdt(spec: &Spec) -> Option<&LinuxIntelRdt> {
    spec.linux().as_ref()?.intel_rdt().as_ref()
}

/// Makes the cgroups and the resctrl group, with their limits; `rollback` removes them.
///
/// # Errors
/// If one of them is in use, or a limit is not taken.
pub fn confine(
    spec: &Spec,
    cgroup: cgroups::Saved,
    group: Option<&Group>,
    rollback: &mut Rollback,
) -> Result<(Rc<dyn Driver>, Placement)> {
    let mut driver = cgroups::open(&cgroup);
    // A failed `prepare` cleans up itself, and what it refuses may be somebody else's.
    let placement = driver.prepare(resources(spec))?;
    // Whoever made them knows which of their parents are new, too.
    let driver: Rc<dyn Driver> = driver.into();
    let made = Rc::clone(&driver);
    rollback.push(move || drop(made.remove()));
    driver.confine(resources(spec))?;
    if let Some((group, rdt)) = group.cloned().zip(intel_rdt(spec)) {
        let made = group.make(rdt);
        rollback.push(move || drop(group.remove()));
        made?;
    }
    Ok((driver, placement))
}

/// Tells those who asked which process it is.
fn announce(args: &Args, process: &Spawned) -> Result<()> {
    if let Some(socket) = &args.pidfd_socket {
        handover::send_pidfd(socket, b"standard", process.pidfd.as_fd())?;
    }
    match &args.pid_file {
        Some(file) => handover::write_pid_file(file, process.pid),
        None => Ok(()),
    }
}

/// Whether the process may go from its creation straight to its program: with `run`, if nothing of
/// it is promised to somebody before, and its cgroups can be verified from its birth on.
fn goes_ahead(args: &Args, mode: &Mode, placement: &Placement) -> bool {
    let told = args.pid_file.is_some() || args.pidfd_socket.is_some() || notify::wanted().is_some();
    !matches!(mode, Mode::Gated) && !told && matches!(placement, Placement::AtBirth(_))
}

/// Completes the record while the process is still at work, answers its report in advance, and waits
/// until it has executed its program or failed: one change of processes instead of three.
fn let_go_ahead(process: &mut Spawned, plan: &Plan, container: &mut Container) -> Result<()> {
    container.record.complete = true;
    container.save()?;
    process.go(plan)?;
    process.wait_for_hangup()?;
    process.wait_for(plan, Step::Created).map(drop)
}

/// Everything that can be decided before anything is made.
///
/// # Errors
/// As [`run`]; for a container that CRIU restores, too.
pub fn decide(
    args: &Args,
    context: &mut Context,
    mode: &Mode,
) -> Result<(Bundle, cgroups::Saved, Option<Group>, Plan)> {
    let bundle = Bundle::open(&args.bundle, args.config.as_deref())?;
    for warning in &bundle.warnings {
        context.log.warn(warning);
    }
    bundle.rootfs()?;
    for warning in validate(&bundle.spec, &context.host, asked(args, mode))? {
        context.log.warn(&warning.to_string());
    }
    let environment = match bundle.spec.hooks() {
        Some(_) => hooks::environment(),
        None => Vec::new(),
    };
    let handed = handover::descriptors(args.preserve_fds)?;
    let cgroup = context.plan_cgroup(&args.id, &bundle.spec)?;
    let group = intel_rdt(&bundle.spec)
        .map(|rdt| Group::plan(&args.id, rdt, resctrl::mount().as_deref()))
        .transpose()?;
    let directory = context.root.path.join(&args.id).join(notify::DIRECTORY);
    let facts = Facts {
        id: &args.id,
        bundle: &bundle.path,
        no_pivot: args.no_pivot,
        no_new_keyring: args.no_new_keyring,
        setgroups_may_be_denied: !context.host.is_root(),
        listen_fds: handed.listen,
        preserve_fds: handed.preserve,
        cgroup: Some(&cgroup),
        notify: notify::wanted().map(|_| (directory.as_path(), notify::INSIDE)),
        environment: &environment,
    };
    let mut plan = Plan::for_create(&bundle.spec, &facts)?;
    if let Some(join) = plan.namespaces.join(namespaces::USER)
        && context.host.is_own_namespace("user", &join.path)?
    {
        plan.namespaces.stay_in_the_user_namespace();
    }
    // In a user namespace of its own a process has them all.
    if !plan.namespaces.has(namespaces::USER) {
        plan.process
            .limit_capabilities(context.host.capabilities()?);
    }
    if let Some(filter) = &plan.seccomp {
        let flags = filter.flags;
        context
            .log
            .debug(|| format!("seccomp filter flags: {flags}"));
    }
    context.log.debug(|| {
        let (mounts, devices) = (plan.mounts.len(), plan.devices.len());
        format!(
            "planned container {}: {mounts} mounts, {devices} devices",
            args.id
        )
    });
    Ok((bundle, cgroup, group, plan))
}

/// Moves network interfaces into the container; they come back if it is not created.
fn take_net_devices(
    process: &Spawned,
    plan: &Plan,
    fds: &Fds,
    rollback: &mut Rollback,
) -> Result<()> {
    if plan.namespaces.net_devices.is_empty() {
        return Ok(());
    }
    let mut moved = Moved::between(plan, fds, process.pid)?;
    let devices = plan.namespaces.net_devices.iter();
    let taken = devices
        .into_iter()
        .try_for_each(|device| moved.take(device));
    rollback.push(move || moved.give_back());
    taken
}

/// Gives the process what only its parent can.
fn release(process: &mut Spawned, plan: &Plan, fds: &Fds, may_set_ids: bool) -> Result<()> {
    process.map_ids(plan, may_set_ids)?;
    process.set_oom_score(plan)?;
    process.raise_rlimits(plan)?;
    if plan.waits_at_birth {
        process.go(plan)?;
    }
    let mut mounts = plan.mounts.iter();
    mounts.try_for_each(|mount| process.map_owners(plan, fds, mount))
}

/// Runs the hooks that the process waits for.
fn run_hooks(
    process: &mut Spawned,
    plan: &Plan,
    bundle: &Bundle,
    container: &Container,
) -> Result<()> {
    if !plan.parent_hooks {
        return Ok(());
    }
    process.wait_for(plan, Step::Mounted)?;
    hooks::before_pivot(&bundle.spec, &container.record, &hooks::environment())?;
    process.go(plan)
}

fn asked(args: &Args, mode: &Mode) -> Asked {
    Asked {
        no_pivot: args.no_pivot,
        detach: !matches!(mode, Mode::Foreground),
        console_socket: args.console_socket.is_some(),
    }
}

/// The record before anything exists: all that `delete` needs after a `kill -9`.
pub fn first_record(
    id: &str,
    bundle: &Bundle,
    plan: &Plan,
    (cgroup, group): (&cgroups::Saved, Option<&Group>),
) -> Record {
    let hooks = bundle.spec.hooks().as_ref();
    let some = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let later = hooks.is_some_and(|hooks| some(hooks.poststart()) || some(hooks.poststop()));
    let annotations = bundle.spec.annotations().iter().flatten();
    Record {
        oci_version: bundle.spec.version().clone(),
        id: id.to_owned(),
        bundle: bundle.path.display().to_string(),
        rootfs: plan.rootfs.to_string_lossy().into_owned(),
        created: rfc3339(SystemTime::now(), Precision::Nanos),
        annotations: annotations
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<BTreeMap<_, _>>(),
        init: None,
        complete: false,
        cgroup: cgroup.clone(),
        intel_rdt: group.cloned(),
        own_pid_namespace: plan.namespaces.new_ones() & namespaces::PID != 0,
        has_later_hooks: later,
    }
}

/// Opens where the process sends its terminal's master and its hooks' output; nobody need listen
/// yet.
///
/// In the foreground keel itself receives the terminal: the end for that is returned.
fn open_channels(plan: &Plan, args: &Args, fds: &mut Fds) -> Result<Option<OwnedFd>> {
    if !plan.create_container.is_empty() {
        let output = fd::memfd(c"hook output");
        fds.hook_output = Some(output.map_err(|errno| Error::host("make", "a memfd", errno))?);
    }
    if plan.process.terminal.is_none() {
        return Ok(None);
    }
    let (ours, theirs) = handover::console(args.console_socket.as_deref())?;
    fds.console = Some(theirs);
    fds.relayed = ours.is_some();
    Ok(ours)
}

/// Adds what createContainer hooks have printed to the error of the one that failed.
fn with_output(error: Error, fds: &Fds) -> Error {
    use std::io::{Read, Seek};
    let Some(output) = fds.hook_output.as_ref().and_then(|fd| fd.try_clone().ok()) else {
        return error;
    };
    let (mut file, mut text) = (File::from(output), String::new());
    let read = file
        .rewind()
        .and_then(|()| file.take(hooks::MAX_OUTPUT).read_to_string(&mut text));
    match (read, error) {
        (Ok(_), Error::Known(code @ Code::HOOK_FAILED, line)) => {
            Error::Known(code, format!("{line}, output: {}", text.trim()))
        }
        (_, error) => error,
    }
}
