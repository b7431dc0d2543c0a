//! What each verb takes: one struct per verb, its doc comments are the help texts.
//!
//! Names and defaults are runc's, so that every caller of runc is understood. A flag whose value is
//! empty counts as not given, as in runc.

use std::path::PathBuf;

use clap::Args;

use crate::units::{Format, format};

/// `create`, and what `run` shares with it.
#[derive(Args, Clone, Debug)]
pub struct CreateArgs {
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

/// `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// What `create` takes.
    #[command(flatten)]
    pub create: CreateArgs,
    /// Return as soon as the container runs
    #[arg(long, short)]
    pub detach: bool,
    /// Do not delete the container when it ends
    #[arg(long)]
    pub keep: bool,
    /// Do not become the subreaper of the container's processes
    #[arg(long)]
    pub no_subreaper: bool,
}

/// `start`, `state`, `pause`, `resume`: only the container.
#[derive(Args, Clone, Debug)]
pub struct IdArgs {
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `kill`.
#[derive(Args, Clone, Debug)]
pub struct KillArgs {
    /// Succeed also if the container has stopped
    #[arg(long, short)]
    pub all: bool,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
    /// Name or number, SIG optional: TERM, SIGTERM and 15 are the same
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM")]
    pub signal: String,
}

/// `delete`.
#[derive(Args, Clone, Debug)]
pub struct DeleteArgs {
    /// Kill the container first; succeed also if it does not exist
    #[arg(long, short)]
    pub force: bool,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// `list`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// table or json
    #[arg(long, short, value_name = "FORMAT", default_value = "table", value_parser = format)]
    pub format: Format,
    /// Print the names alone
    #[arg(long, short)]
    pub quiet: bool,
}

/// `plan`.
#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    /// table (for people) or json
    #[arg(long, short, value_name = "FORMAT", default_value = "table", value_parser = format)]
    pub format: Format,
    /// Plan for `--no-pivot`
    #[arg(long)]
    pub no_pivot: bool,
    /// The bundle's directory
    #[arg(value_name = "BUNDLE", default_value = ".")]
    pub bundle: PathBuf,
}
