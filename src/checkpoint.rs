//! The `checkpoint` and `restore` verbs: a container's processes to files and back, by CRIU.

use std::path::PathBuf;

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

/// Bring back a container from a checkpoint
#[derive(clap::Args, Clone, Debug)]
pub struct RestoreArgs {
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
