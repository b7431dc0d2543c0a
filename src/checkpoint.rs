//! The `checkpoint` verb: a container's processes to files, by CRIU.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use serde_json::json;

use crate::context::Context;
use crate::criu::wire::Message;
use crate::criu::{self, Criu, Directories, Request, option};
use crate::delete;
use crate::error::{Error, Result};
use crate::plan::mounts::What;
use crate::plan::namespaces::{self, NET, PID};
use crate::plan::{Facts, Plan};
use crate::state::{Container, Status};
use crate::sys::{fd, path};

/// Save a running container's processes to files
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Directory for CRIU's image files
    #[arg(long, value_name = "DIR", default_value = "./checkpoint")]
    pub image_path: PathBuf,
    /// Directory for CRIU's work files and logs
    #[arg(long, value_name = "DIR")]
    pub work_path: Option<PathBuf>,
    /// Images of the pre-dump before, relative to --image-path
    #[arg(long, value_name = "DIR")]
    pub parent_path: Option<PathBuf>,
    /// Let the container run on
    #[arg(long)]
    pub leave_running: bool,
    /// Save open TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// Leave out TCP connections that are not yet established
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// Link unlinked files back where possible
    #[arg(long)]
    pub link_remap: bool,
    /// Allow unix sockets to the outside
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Allow a terminal that belongs to the outside
    #[arg(long)]
    pub shell_job: bool,
    /// Leave memory pages for a server to fetch later
    #[arg(long)]
    pub lazy_pages: bool,
    /// CRIU writes a byte to this descriptor when lazy pages are ready
    #[arg(long, value_name = "FD", default_value_t = -1)]
    pub status_fd: i32,
    /// Send memory pages to this server
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub page_server: Option<String>,
    /// Save file locks
    #[arg(long)]
    pub file_locks: bool,
    /// Save memory only and let the container run on
    #[arg(long)]
    pub pre_dump: bool,
    /// soft, full, strict or ignore
    #[arg(long, value_name = "MODE")]
    pub manage_cgroups_mode: Option<String>,
    /// Save the namespace without its content (repeatable): network
    #[arg(long, value_name = "NAMESPACE")]
    pub empty_ns: Vec<String>,
    /// Free pages of the parent images that these replace
    #[arg(long)]
    pub auto_dedup: bool,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Runs the verb: saves the processes, and deletes the container unless it is to run on.
///
/// # Errors
/// In runc's words if the container's status does not allow it; CRIU's reason.
pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let container = context.store.load_locked(&args.id)?;
    let status = container.status()?;
    if !matches!(status, Status::Running | Status::Paused) {
        let why = format!("Container cannot be checkpointed in {status} state");
        return Err(Error::WrongStatus(why));
    }
    make_images(args)?;
    let directories = Directories::open(&args.image_path, args.work_path.as_deref(), "dump.log")?;
    let mut options = options(args, &container, &directories)?;
    let request = if args.pre_dump {
        criu::need_feature(criu::MEM_TRACK, "--pre-dump")?;
        Request::PreDump
    } else {
        describe_the_container(&mut options, &container)?;
        save_streams(&args.image_path, &container)?;
        Request::Dump
    };
    let mut ready = ready_descriptor(args)?;
    Criu::start()?
        .ask(request, Some(&options), &mut |note| {
            if note.script == "status-ready"
                && let Some(mut ready) = ready.take()
            {
                let told = ready.write_all(&[0]);
                told.map_err(|error| Error::host("write to", "--status-fd", error))?;
            }
            Ok(())
        })
        .map_err(|error| directories.explain(error))?;
    if args.leave_running || args.pre_dump {
        return Ok(());
    }
    delete::remove(container, context)
}

fn make_images(args: &Args) -> Result<()> {
    let images = &args.image_path;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(images)
        .map_err(|error| Error::host("mkdir", images.display(), error))?;
    let Some(parent) = &args.parent_path else {
        return Ok(());
    };
    if parent.is_absolute() {
        return Err(Error::Usage(
            "--parent-path must be relative to --image-path".into(),
        ));
    }
    let whole = images.join(parent);
    match fs::metadata(&whole) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Error::Usage(format!(
            "invalid --parent-path: {} is no directory",
            whole.display()
        ))),
        Err(error) => Err(Error::host(
            "invalid --parent-path: stat",
            whole.display(),
            error,
        )),
    }
}

/// What the command line says, in CRIU's terms.
fn options(args: &Args, container: &Container, directories: &Directories) -> Result<Message> {
    let pid = container.record.init.ok_or(Error::NotRunning)?.pid;
    let mut options = Message::default();
    directories.add_to(&mut options);
    options
        .text(option::ROOT, &container.record.rootfs)
        .number(option::PID, pid.into())
        .flag(option::NOTIFY_SCRIPTS, true)
        .flag(option::ORPHAN_PTS_MASTER, true)
        .flag(option::MANAGE_CGROUPS, true)
        .number(
            option::MANAGE_CGROUPS_MODE,
            criu::cgroups_mode(args.manage_cgroups_mode.as_deref())?,
        )
        .number(option::EMPTY_NS, criu::empty_namespaces(&args.empty_ns)?)
        .flag(option::LEAVE_RUNNING, args.leave_running)
        .flag(option::TCP_ESTABLISHED, args.tcp_established)
        .flag(option::TCP_SKIP_IN_FLIGHT, args.tcp_skip_in_flight)
        .flag(option::LINK_REMAP, args.link_remap)
        .flag(option::EXT_UNIX_SK, args.ext_unix_sk)
        .flag(option::SHELL_JOB, args.shell_job)
        .flag(option::FILE_LOCKS, args.file_locks)
        .flag(option::AUTO_DEDUP, args.auto_dedup);
    if let Some(parent) = &args.parent_path {
        options.text(option::PARENT_IMG, &parent.to_string_lossy());
        options.flag(option::TRACK_MEM, true);
    }
    if args.lazy_pages {
        criu::need_feature(criu::LAZY_PAGES, "--lazy-pages")?;
        options.flag(option::LAZY_PAGES, true);
    }
    if let Some(server) = &args.page_server {
        options.message(option::PAGE_SERVER, &page_server(server)?);
    }
    let hierarchies = &container.record.cgroup;
    let freezer = hierarchies.hierarchy("freezer");
    if let Some(freezer) = freezer.or_else(|| hierarchies.hierarchy("")) {
        options.text(option::FREEZE_CGROUP, &freezer.full_path());
    }
    Ok(options)
}

fn page_server(text: &str) -> Result<Message> {
    let parts = text
        .rsplit_once(':')
        .filter(|(address, _)| !address.is_empty());
    let parts = parts.and_then(|(address, port)| Some((address, port.parse::<u16>().ok()?)));
    let Some((address, port)) = parts else {
        return Err(Error::Usage(
            "Use --page-server ADDRESS:PORT to specify page server".into(),
        ));
    };
    let mut server = Message::default();
    let address = address.trim_start_matches('[').trim_end_matches(']');
    server.text(1, address).number(2, port.into());
    Ok(server)
}

/// What comes from outside: mounts, namespaces, and the file of options that an annotation names.
fn describe_the_container(options: &mut Message, container: &Container) -> Result<()> {
    let record = &container.record;
    let pid = record.init.ok_or(Error::NotRunning)?.pid;
    let spec = container.spec()?;
    let facts = Facts {
        id: &record.id,
        cgroup: Some(&record.cgroup),
        ..Facts::of(Path::new(&record.bundle))
    };
    let plan = Plan::for_create(&spec, &facts)?;
    let root = format!("/proc/{pid}/root");
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(root.as_str(), flags, Mode::empty())
        .map_err(|errno| Error::host("open", &root, errno))?;
    // Where a path leads in the container, links followed; and whether it is a directory.
    let find = |target: &std::ffi::CStr| -> Option<(String, bool)> {
        let found = path::open_in_root(root.as_fd(), target, OFlag::O_PATH).ok()?;
        let is_dir = path::kind_of(found.as_fd()) == Ok(nix::sys::stat::SFlag::S_IFDIR);
        let name = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()?;
        Some((name.to_str()?.to_owned(), is_dir))
    };
    let binds = plan
        .mounts
        .iter()
        .filter(|mount| matches!(mount.what, What::Bind { .. }));
    let devices = plan.devices.iter().map(|device| device.path.as_c_str());
    for target in binds.map(|mount| mount.target.as_c_str()).chain(devices) {
        let name = find(target).map_or_else(|| target.to_string_lossy().into_owned(), |it| it.0);
        let key = target.to_string_lossy();
        criu::add_pair(options, option::EXT_MNT, &name, &key);
    }
    for target in &plan.masked_paths {
        if let Some((name, false)) = find(target) {
            criu::add_pair(options, option::EXT_MNT, &name, "/dev/null");
        }
    }
    for join in plan
        .namespaces
        .joins
        .iter()
        .filter(|join| matches!(join.kind, NET | PID))
    {
        let inode = fs::metadata(&join.path)
            .map_err(|error| Error::host("stat", join.path.display(), error))?
            .ino();
        let name = namespaces::proc_name(join.kind);
        let external = format!("{name}[{inode}]:{}", external_key(join.kind));
        options.text(option::EXTERNAL, &external);
    }
    if let Some(file) = criu::config_file(&spec) {
        options.text(option::CONFIG_FILE, &file);
    }
    Ok(())
}

/// By this name a restore finds the namespace that takes the place of the one that was joined.
pub const fn external_key(kind: namespaces::Flags) -> &'static str {
    match kind {
        NET => "extRootNetNS",
        _ => "extRootPidNS",
    }
}

/// The file in which the standard streams of the first process are noted.
pub const STREAMS: &str = "descriptors.json";

fn save_streams(images: &Path, container: &Container) -> Result<()> {
    let pid = container.record.init.ok_or(Error::NotRunning)?.pid;
    let name = |number: u32| {
        let link = fs::read_link(format!("/proc/{pid}/fd/{number}"));
        link.map_or_else(
            |_| String::new(),
            |name| name.to_string_lossy().into_owned(),
        )
    };
    let file = images.join(STREAMS);
    fs::write(&file, json!([name(0), name(1), name(2)]).to_string())
        .map_err(|error| Error::host("write", file.display(), error))
}

/// `--status-fd`, on which whoever starts the page server is told that CRIU is ready.
fn ready_descriptor(args: &Args) -> Result<Option<fs::File>> {
    if args.status_fd < 0 || !args.lazy_pages {
        return Ok(None);
    }
    let number = args.status_fd;
    let flags = fcntl(fd::borrow(number), FcntlArg::F_GETFL)
        .map_err(|errno| Error::host("invalid --status-fd argument", number, errno))?;
    if OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE == OFlag::O_RDONLY {
        let why = format!("invalid --status-fd argument {number}: not writable");
        return Err(Error::Usage(why));
    }
    Ok(Some(fd::take(number).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        let mut wanted = Message::default();
        wanted.text(1, "::1").number(2, 99);
        assert_eq!(page_server("[::1]:99").unwrap(), wanted);
        for text in ["", "host", ":1", "host:", "host:x", "host:65536"] {
            assert!(page_server(text).is_err(), "{text}");
        }
    }
}
