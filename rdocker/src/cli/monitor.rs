//! `rdocker __monitor`: the process beside a container; never typed by a user.

use crate::error::Result;
use crate::host::Host;

/// Look after one container
#[derive(Debug, clap::Args)]
pub struct Monitor {
    id: String,
}

impl Monitor {
    /// Runs until the container and its restarts are over.
    pub fn run(self, host: &Host) -> Result<()> {
        crate::monitor::main(host, &self.id)
    }
}
