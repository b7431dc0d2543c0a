//! `rdocker exec`

use std::path::PathBuf;

use crate::container::exec::{ExecRequest, Files, process, process_of};
use crate::container::identity::Accounts;
use crate::container::parse::value;
use crate::container::record::Status;
use crate::container::session::Session;
use crate::container::{Container, Containers, id};
use crate::error::{EXIT_NOT_EXECUTABLE, Error, Result, program_exit_code};
use crate::events;
use crate::host::Host;
use crate::monitor::wire::{ExecStreams, Request};
use crate::ui::Ui;
use crate::ui::terminal::{self, DetachKeys};

use super::pump::{Options, Outcome, Pump, exit};

/// Exit code of a client that left its program running, as Docker's.
pub const EXIT_DETACHED: i32 = 1;

/// Execute a command in a running container
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
pub struct Exec {
    /// Detached mode: run command in the background
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(
        long,
        value_name = "KEYS",
        default_value = "",
        hide_default_value = true
    )]
    detach_keys: String,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    interactive: bool,
    /// Give extended privileges to the command
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long)]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Container, then the command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true,
          value_names = ["CONTAINER", "COMMAND"])]
    container_and_command: Vec<String>,
}

impl Exec {
    /// Lets the container's monitor start the command, and passes our stdio to and fro; its exit
    /// code is ours. It goes on if we leave.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let (name, command) = self
            .container_and_command
            .split_first()
            .ok_or_else(|| Error::Invalid("a container is required".to_owned()))?;
        let container = Containers::new(host).find(name)?;
        check_runs(&container)?;
        let pump = self.pump()?;
        let request = self.request(command)?;
        let places = &container.places;
        let base = process_of(places, request.args.clone())?;
        // The container's own files name its users; the mounted root shows them.
        let object = process(
            base,
            &request,
            || Accounts::read(&places.rootfs()),
            terminal::size(),
        );
        let object = match object {
            Ok(object) => object,
            // As if the runtime had refused it: Docker does not look users up before it starts.
            Err(error) => {
                ui.error_line(error.chain())?;
                return exit(EXIT_NOT_EXECUTABLE.into());
            }
        };
        let exec_id = id::random();
        let files = Files::of(places, &exec_id);
        let hold = files.write(&object)?;
        let words = request.args.join(" ");
        let more = [("execID", exec_id.clone())];
        let event = |action: String, more: &[(&str, String)]| {
            events::container(host, &container.record, &action, more)
        };
        event(format!("exec_create: {words}"), &more)?;
        event(format!("exec_start: {words}"), &more)?;
        let mut session = match self.start(&container, exec_id) {
            Ok(session) => session,
            Err(Error::Runtime { message }) => {
                ui.error_line(&message)?;
                return exit(refusal_code(&message));
            }
            Err(error) => {
                files.remove();
                return Err(error);
            }
        };
        // From here on the monitor holds it, and tells its end.
        drop(hold);
        let Some(pump) = pump else { return Ok(()) };
        match pump.run(&mut session, ui)? {
            Outcome::Exited(code) => exit(code),
            Outcome::Detached => {
                ui.error_line("read escape sequence")?;
                event("exec_detach".to_owned(), &more)?;
                exit(EXIT_DETACHED)
            }
        }
    }

    /// Our side of the streams, if it has one.
    fn pump(&self) -> Result<Option<Pump>> {
        let detach_keys = DetachKeys::parse(&self.detach_keys)?;
        let options = Options {
            stdin: self.interactive,
            tty: self.tty,
            sig_proxy: !self.tty,
            detach_keys,
        };
        (!self.detach).then(|| Pump::new(options)).transpose()
    }

    fn start(&self, container: &Container, id: String) -> Result<Session> {
        let streams = match (self.detach, self.tty, self.interactive) {
            (true, ..) => ExecStreams::Detached,
            (false, true, _) => ExecStreams::Terminal,
            (false, false, true) => ExecStreams::Pipes,
            (false, false, false) => ExecStreams::Output,
        };
        let mut session = Session::connect(container)?;
        session.request(&Request::Exec { id, streams })?;
        Ok(session)
    }

    fn request(&self, command: &[String]) -> Result<ExecRequest> {
        let lookup = |name: &str| std::env::var(name).ok();
        let mut env = Vec::new();
        for file in &self.env_file {
            env.extend(value::env_file(file, &lookup)?);
        }
        for text in &self.env {
            env.extend(value::env(text, &lookup)?);
        }
        Ok(ExecRequest {
            args: command.to_vec(),
            env,
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            tty: self.tty && !self.detach,
            privileged: self.privileged,
        })
    }
}

/// The exit code of an exec whose program never ran.
fn refusal_code(message: &str) -> i32 {
    program_exit_code(message)
        .unwrap_or(EXIT_NOT_EXECUTABLE)
        .into()
}

fn check_runs(container: &Container) -> Result<()> {
    match container.state.status {
        Status::Running => Ok(()),
        Status::Paused => Err(Error::Conflict(format!(
            "Container {} is paused, unpause the container before exec",
            container.record.name
        ))),
        Status::Restarting => Err(Error::Conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.record.id
        ))),
        _ => Err(Error::Conflict(format!(
            "container {} is not running",
            container.record.id
        ))),
    }
}
