//! The `events` verb: statistics and out-of-memory notices of a container.

use std::time::Duration;

use crate::units::duration;

/// Print what a container uses, as JSON, one object per line
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Time between two statistics
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub interval: Duration,
    /// Print the statistics once and end
    #[arg(long)]
    pub stats: bool,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}
