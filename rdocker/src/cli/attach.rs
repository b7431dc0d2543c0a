//! `rdocker attach`

use crate::container::Containers;
use crate::container::record::Status;
use crate::container::session::Session;
use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::monitor::wire::Request;
use crate::ui::Ui;
use crate::ui::terminal::DetachKeys;

use super::exec::EXIT_DETACHED;
use super::pump::{Options, Outcome, Pump, exit};

/// Attach local standard input, output, and error streams to a running container
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker attach [OPTIONS] CONTAINER")]
pub struct Attach {
    /// Override the key sequence for detaching a container
    #[arg(
        long,
        value_name = "KEYS",
        default_value = "",
        hide_default_value = true
    )]
    detach_keys: String,
    /// Do not attach STDIN
    #[arg(long)]
    no_stdin: bool,
    /// Proxy all received signals to the process
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    #[arg(hide = true)]
    container: String,
}

impl Attach {
    /// Stays until the container ends or the user leaves.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let container = Containers::new(host).find(&self.container)?;
        match container.state.status {
            Status::Running => {}
            Status::Paused => {
                return Err(Error::Conflict(
                    "You cannot attach to a paused container, unpause it first".to_owned(),
                ));
            }
            Status::Restarting => {
                return Err(Error::Conflict(
                    "You cannot attach to a restarting container, wait until it is running"
                        .to_owned(),
                ));
            }
            _ => {
                return Err(Error::Conflict(
                    "You cannot attach to a stopped container, start it first".to_owned(),
                ));
            }
        }
        let tty = container.record.config.tty;
        let stdin = !self.no_stdin && container.record.config.open_stdin;
        let pump = Pump::new(Options {
            stdin,
            tty,
            sig_proxy: self.sig_proxy && !tty,
            detach_keys: DetachKeys::parse(&self.detach_keys)?,
        })?;
        let mut session = Session::connect(&container)?;
        session.send(&Request::Attach {
            stdin,
            stdout: true,
            stderr: true,
        })?;
        events::container(host, &container.record, "attach", &[])?;
        match pump.run(&mut session, ui)? {
            Outcome::Detached => {
                ui.error_line("read escape sequence")?;
                events::container(host, &container.record, "detach", &[])?;
                exit(EXIT_DETACHED)
            }
            Outcome::Exited(code) => exit(code),
        }
    }
}
