//! The `restore` verb: a container from the files of a checkpoint, by CRIU.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{Mode, SFlag};

use crate::bundle::read_json_file;
use crate::cgroups::Driver;
use crate::checkpoint::{STREAMS, external_key};
use crate::confine;
use crate::context::Context;
use crate::create::{self, Mode as Way, rollback::Rollback};
use crate::criu::wire::Message;
use crate::criu::{self, Criu, Directories, Notification, Request, option};
use crate::delete;
use crate::error::{Error, Result};
use crate::foreground::{self, Relay};
use crate::handover;
use crate::hooks;
use crate::plan::Plan;
use crate::plan::mounts::{Mount, What};
use crate::plan::namespaces::{self, CGROUP, MOUNT, NET, PID};
use crate::state::{Container, Init};
use crate::sys::clone::{self, Side};
use crate::sys::mount::{self, Reach};
use crate::sys::path::{self, Make};
use crate::sys::{Errno, fd, net};

/// Bring back a container from a checkpoint
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Send the terminal's master over this unix socket
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Directory of CRIU's image files
    #[arg(long, value_name = "DIR", default_value = "./checkpoint")]
    pub image_path: PathBuf,
    /// Directory for CRIU's work files and logs
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// Restore open TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// Restore TCP connections closed
    #[arg(long)]
    pub tcp_close: bool,
    /// Allow unix sockets to the outside
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Allow a terminal that belongs to the outside
    #[arg(long)]
    pub shell_job: bool,
    /// Restore file locks
    #[arg(long)]
    pub file_locks: bool,
    /// soft, full, strict or ignore
    #[arg(long, value_name = "MODE")]
    pub manage_cgroups_mode: Option<String>,
    /// The bundle's directory
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Return as soon as the container runs
    #[arg(long, short)]
    pub detach: bool,
    /// Write the first process's pid to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Do not become the subreaper of the container's processes
    #[arg(long)]
    pub no_subreaper: bool,
    /// Move the root instead of pivot_root: for a host that runs from a ramdisk
    #[arg(long)]
    pub no_pivot: bool,
    /// Make the namespace without its content (repeatable): network
    #[arg(long, value_name = "NAMESPACE")]
    pub empty_ns: Vec<String>,
    /// Free pages of the images as they are restored
    #[arg(long)]
    pub auto_dedup: bool,
    /// Fetch memory pages when they are first used
    #[arg(long)]
    pub lazy_pages: bool,
    /// Restore under another LSM profile
    #[arg(long, value_name = "TYPE:NAME")]
    pub lsm_profile: Option<String>,
    /// Restore mounts with another SELinux context
    #[arg(long, value_name = "CONTEXT")]
    pub lsm_mount_context: Option<String>,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Runs the verb. Returns the program's exit code: 0 if detached, 128 and the signal if killed.
///
/// # Errors
/// As `create`; CRIU's reason. Nothing half-made is left.
pub fn run(args: &Args, context: &mut Context) -> Result<u8> {
    let signals = match args.detach {
        true => None,
        false => Some(foreground::prepare(!args.no_subreaper)?),
    };
    let (container, terminal) = restore(args, context)?;
    let init = container.record.init.ok_or(Error::NotRunning)?;
    let pidfd = init.open()?;
    if let Some(file) = &args.pid_file {
        handover::write_pid_file(file, init.pid)?;
    }
    let Some(signals) = signals else {
        return Ok(0);
    };
    let relay = terminal.as_ref().map(Relay::new).transpose();
    confine::to_removing(&container.record, container.path());
    drop(container);
    let ended = foreground::attend(pidfd.as_fd(), &signals, relay, None);
    match context.store.load_locked(&args.id) {
        Err(Error::NotFound) => {}
        container => delete::remove(container?, context)?,
    }
    u8::try_from(ended?).map_err(|_| Error::Failed("an exit code is at most 255".into()))
}

/// The straight line, as of `create`: reserve, note, make the cgroups, let CRIU make the processes.
fn restore(args: &Args, context: &mut Context) -> Result<(Container, Option<OwnedFd>)> {
    context.store.check_free(&args.id)?;
    let wanted = as_for_create(args);
    let way = if args.detach {
        Way::Detached
    } else {
        Way::Foreground
    };
    let (bundle, cgroup, group, plan) = create::decide(&wanted, context, &way)?;
    let mut options = options(args, &plan)?;
    add_streams(&mut options, &args.image_path)?;
    if let Some(file) = criu::config_file(&bundle.spec) {
        options.text(option::CONFIG_FILE, &file);
    }

    let mut rollback = Rollback::default();
    let directory = context.store.reserve(&args.id)?;
    let place = context.root.path.join(&args.id);
    rollback.push(move || drop(fs::remove_dir_all(&place)));
    let record = create::first_record(&args.id, &bundle, &plan, (&cgroup, group.as_ref()));
    let mut container = directory.fill(record, &bundle.raw)?;
    let (driver, _) = create::confine(&bundle.spec, cgroup, group.as_ref(), &mut rollback)?;
    container.record.cgroup = driver.saved();
    container.save()?;

    // Dropped before the rollback, which must find an empty directory and not a root file system.
    let mounts = PrivateMounts::enter(container.path().join("criu-root"))?;
    prepare_root(&plan, &mounts)?;
    options.text(option::ROOT, &mounts.root.to_string_lossy());
    // CRIU works in this directory: it has to be one of the mount namespace that it is born in.
    let images = Directories::open(&args.image_path, args.work_path.as_deref(), "restore.log")?;
    images.add_to(&mut options);
    // CRIU inherits these, with the numbers that the options name.
    let joined = open_joined(&plan, &mut options)?;
    let criu = Criu::start()?;
    let root = mounts.leave()?;
    enter_cgroups(driver.as_ref(), criu.pid(), &mut options)?;
    container.record.cgroup = driver.saved();
    let mut terminal = None;
    let restored = criu.ask(
        Request::Restore,
        Some(&options),
        &mut |note| match note.script.as_str() {
            "setup-namespaces" => {
                container.record.init = Some(Init::of(note.pid)?);
                prepare_namespaces(note.pid, &plan)?;
                hooks::before_pivot(&bundle.spec, &container.record, &hooks::environment())
            }
            "post-restore" => {
                container.record.init = Some(Init::of(note.pid)?);
                container.record.complete = true;
                container.save()
            }
            "orphan-pts-master" => take_terminal(args, note, &mut terminal),
            _ => Ok(()),
        },
    );
    drop(joined);
    let _ = fs::remove_dir(&root);
    if let Err(error) = restored {
        // CRIU takes its processes with it, unless it fails at the very end.
        let _ = container.signal_all(libc::SIGKILL);
        return Err(images.explain(error));
    }
    rollback.commit();
    Ok((container, terminal))
}

/// The command line of the `create` that this is besides.
fn as_for_create(args: &Args) -> create::Args {
    create::Args {
        bundle: args.bundle.clone(),
        config: None,
        console_socket: args.console_socket.clone(),
        pidfd_socket: None,
        pid_file: None,
        no_pivot: args.no_pivot,
        no_new_keyring: true,
        preserve_fds: 0,
        id: args.id.clone(),
    }
}

/// What the command line and the plan say, in CRIU's terms.
fn options(args: &Args, plan: &Plan) -> Result<Message> {
    let mut options = Message::default();
    let cgroups = criu::cgroups_mode(args.manage_cgroups_mode.as_deref())?;
    options
        .flag(option::EVASIVE_DEVICES, true)
        .flag(option::RST_SIBLING, true)
        .flag(option::NOTIFY_SCRIPTS, true)
        .flag(option::ORPHAN_PTS_MASTER, true)
        .flag(option::MANAGE_CGROUPS, true)
        .number(option::MANAGE_CGROUPS_MODE, cgroups)
        .number(option::EMPTY_NS, criu::empty_namespaces(&args.empty_ns)?)
        .flag(option::TCP_ESTABLISHED, args.tcp_established)
        .flag(option::TCP_CLOSE, args.tcp_close)
        .flag(option::EXT_UNIX_SK, args.ext_unix_sk)
        .flag(option::SHELL_JOB, args.shell_job)
        .flag(option::FILE_LOCKS, args.file_locks)
        .flag(option::AUTO_DEDUP, args.auto_dedup)
        .flag(option::LAZY_PAGES, args.lazy_pages);
    if let Some(profile) = &args.lsm_profile {
        criu::need_version((3, 16), "--lsm-profile")?;
        options.text(option::LSM_PROFILE, profile);
    }
    if let Some(context) = &args.lsm_mount_context {
        criu::need_version((3, 16), "--lsm-mount-context")?;
        options.text(option::LSM_MOUNT_CONTEXT, context);
    }
    for mount in &plan.mounts {
        if let What::Bind { source, .. } = &mount.what {
            let (key, source) = (mount.target.to_string_lossy(), source.to_string_lossy());
            criu::add_pair(&mut options, option::EXT_MNT, &key, &source);
        }
    }
    for device in &plan.devices {
        let path = device.path.to_string_lossy();
        criu::add_pair(&mut options, option::EXT_MNT, &path, &path);
    }
    criu::add_pair(&mut options, option::EXT_MNT, "/dev/null", "/dev/null");
    Ok(options)
}

/// A mount namespace that this process visits and leaves to CRIU, so that nothing is mounted on the
/// host, whatever happens.
struct PrivateMounts {
    host: OwnedFd,
    working_directory: OwnedFd,
    /// The directory at which the root file system is mounted.
    root: PathBuf,
    has_left: bool,
}

impl PrivateMounts {
    fn enter(root: PathBuf) -> Result<Self> {
        let failed = |errno: Errno| Error::host("prepare the root for criu", root.display(), errno);
        let open = |path: &str| nix::fcntl::open(path, OFlag::O_CLOEXEC, Mode::empty());
        let host = open("/proc/self/ns/mnt").map_err(failed)?;
        let working_directory = open(".").map_err(failed)?;
        fs::create_dir(&root).map_err(|error| Error::host("mkdir", root.display(), error))?;
        clone::unshare(MOUNT).map_err(failed)?;
        mount::set_propagation(c"/", libc::MS_SLAVE | libc::MS_REC).map_err(failed)?;
        Ok(Self {
            host,
            working_directory,
            root,
            has_left: false,
        })
    }

    /// Goes back to the host's mounts, and leaves the others to CRIU. Returns the directory.
    fn leave(mut self) -> Result<PathBuf> {
        clone::setns(self.host.as_fd(), MOUNT)
            .and_then(|()| nix::unistd::fchdir(&self.working_directory))
            .map_err(|errno| Error::host("return to", "the runtime's mount namespace", errno))?;
        self.has_left = true;
        Ok(std::mem::take(&mut self.root))
    }
}

impl Drop for PrivateMounts {
    fn drop(&mut self) {
        if !self.has_left {
            // Both, since whoever removes the directory next must not find anything in it.
            if let Ok(path) = CString::new(self.root.as_os_str().as_bytes()) {
                while mount::detach(&path).is_ok() {}
            }
            let _ = clone::setns(self.host.as_fd(), MOUNT);
            let _ = nix::unistd::fchdir(&self.working_directory);
        }
    }
}

/// Makes what CRIU wants of a root: a mount of its own, whose parent is covered by nothing, and in it
/// every mount point.
fn prepare_root(plan: &Plan, mounts: &PrivateMounts) -> Result<()> {
    let root = &mounts.root;
    let failed = |errno: Errno| Error::host("prepare the root for criu", root.display(), errno);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let attach = || -> Result<OwnedFd, Errno> {
        let place = nix::fcntl::open(root, flags, Mode::empty())?;
        let tree = mount::clone_tree(AT_FDCWD, &plan.rootfs, Reach::Tree)?;
        mount::move_mount(tree.as_fd(), place.as_fd())?;
        Ok(tree)
    };
    let tree = attach().map_err(failed)?;
    for entry in plan
        .mounts
        .iter()
        .filter(|entry| !is_on_new(entry, &plan.mounts))
    {
        make_mount_point(entry, &tree).map_err(|errno| {
            let target = entry.target.to_string_lossy();
            Error::host("make the mount point", target, errno)
        })?;
    }
    // The binds were there for the mount points in them; CRIU makes its own.
    let path = CString::new(root.as_os_str().as_bytes()).map_err(|_| failed(Errno::EINVAL))?;
    mount::detach(&path).map_err(failed)?;
    attach().map(drop).map_err(failed)
}

/// Whether the entry's place is inside a file system that CRIU brings back with its files.
fn is_on_new(entry: &Mount, mounts: &[Mount]) -> bool {
    let place = |mount: &Mount| PathBuf::from(OsStr::from_bytes(mount.target.as_bytes()));
    let target = place(entry);
    mounts.iter().any(|other| {
        let is_new = matches!(other.what, What::New { .. });
        is_new && target != place(other) && target.starts_with(place(other))
    })
}

fn make_mount_point(entry: &Mount, root: &OwnedFd) -> Result<(), Errno> {
    match &entry.what {
        What::New { .. } => path::make_in_root(root.as_fd(), &entry.target, Make::Dir).map(drop),
        What::Bind { source, reach, .. } => {
            let copy = mount::clone_tree(AT_FDCWD, source, *reach)?;
            let make = match path::kind_of(copy.as_fd())? {
                SFlag::S_IFDIR => Make::Dir,
                _ => Make::File,
            };
            let target = path::make_in_root(root.as_fd(), &entry.target, make)?;
            mount::move_mount(copy.as_fd(), target.as_fd())
        }
    }
}

/// Gives the pipes among this process's standard streams to what had them in the same place.
fn add_streams(options: &mut Message, images: &Path) -> Result<()> {
    let file = images.join(STREAMS);
    let text = read_json_file(&file, &file.display().to_string())?;
    let streams: Vec<String> = serde_json::from_slice(&text)
        .map_err(|error| Error::Failed(format!("{} is damaged: {error}", file.display())))?;
    for (number, name) in (0..).zip(streams).take(3) {
        if name.starts_with("pipe:") {
            criu::inherit(options, &name, number);
        }
    }
    Ok(())
}

/// Opens the namespaces that the container joins, and tells CRIU of them.
fn open_joined(plan: &Plan, options: &mut Message) -> Result<Vec<fs::File>> {
    let mut files = Vec::new();
    for join in &plan.namespaces.joins {
        let path = &join.path;
        match join.kind {
            NET | PID => {
                let file = fs::File::open(path)
                    .map_err(|error| Error::host("open namespace", path.display(), error))?;
                fd::keep_on_exec(file.as_raw_fd())
                    .map_err(|errno| Error::host("keep", path.display(), errno))?;
                criu::inherit(options, external_key(join.kind), file.as_raw_fd());
                files.push(file);
            }
            CGROUP => {
                let why = "criu cannot restore into an existing cgroup namespace";
                return Err(Error::spec(join.at.clone(), why));
            }
            kind => {
                let name = namespaces::proc_name(kind);
                criu::add_pair(options, option::JOIN_NS, name, &path.to_string_lossy());
            }
        }
    }
    Ok(files)
}

/// CRIU is put into the container's cgroups, so that all that it makes is born there, and told that
/// these take the place of those in the images.
fn enter_cgroups(driver: &dyn Driver, criu: i32, options: &mut Message) -> Result<()> {
    driver.place(criu)?;
    let file = format!("/proc/{criu}/cgroup");
    let text = fs::read_to_string(&file).map_err(|error| Error::host("read", &file, error))?;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(names), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        for name in names.split(',') {
            criu::add_pair(options, option::CG_ROOT, name, path);
        }
    }
    Ok(())
}

/// The new network namespace is empty, but for a loopback interface that has to be brought up before
/// sockets are bound to its addresses.
fn prepare_namespaces(pid: i32, plan: &Plan) -> Result<()> {
    if plan.namespaces.new_ones() & NET == 0 {
        return Ok(());
    }
    let path = format!("/proc/{pid}/ns/net");
    let file = fs::File::open(&path).map_err(|error| Error::host("open", &path, error))?;
    let failed = |errno| Error::host("bring up", "the loopback interface", errno);
    match clone::clone3(0, None).map_err(failed)? {
        Side::Child => {
            let up = clone::setns(file.as_fd(), NET).and_then(|()| net::bring_up_loopback());
            clone::exit_now(up.map_or_else(|errno| errno as i32, |()| 0))
        }
        Side::Parent { pidfd, .. } => match fd::wait(pidfd.as_fd()).map_err(failed)? {
            fd::Ended::Code(0) => Ok(()),
            fd::Ended::Code(errno) => Err(failed(Errno::from_raw(errno))),
            fd::Ended::Signal(_) => Err(failed(Errno::EINTR)),
        },
    }
}

/// Passes the terminal's master on, or keeps it to relay it.
fn take_terminal(args: &Args, note: Notification, kept: &mut Option<OwnedFd>) -> Result<()> {
    let Some(master) = note.fd else {
        return Err(Error::Failed("criu sent no terminal".into()));
    };
    if args.console_socket.is_none() {
        *kept = Some(master);
        return Ok(());
    }
    let (_, socket) = handover::console(args.console_socket.as_deref())?;
    let failed = |errno| Error::host("send the terminal to", "the console socket", errno);
    fd::send_fd(socket.as_fd(), b"terminal", master.as_fd()).map_err(failed)
}
