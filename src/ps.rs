//! The `ps` verb: the processes of a container.

use std::ffi::OsString;

use crate::units::{Format, format};

/// List the processes of a container
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// table (the host's ps, filtered) or json (the pids)
    #[arg(long, short, value_name = "FORMAT", default_value = "table", value_parser = format)]
    pub format: Format,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
    /// Options for ps instead of -ef
    #[arg(value_name = "PS-OPTION")]
    pub ps: Vec<OsString>,
}
