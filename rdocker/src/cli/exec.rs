//! `rdocker exec`

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use crate::container::exec::{ExecRequest, Files, process, process_of};
use crate::container::identity::Accounts;
use crate::container::parse::value;
use crate::container::record::Status;
use crate::container::session::Session;
use crate::container::{Container, Containers, id};
use crate::error::{EXIT_NOT_EXECUTABLE, Error, Result, program_exit_code};
use crate::events;
use crate::host::Host;
use crate::monitor::wire::Request;
use crate::runtime::{Runtime, last_error};
use crate::ui::terminal;
use crate::ui::{Ui, stdin_is_terminal};

use super::pump::exit;

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
    /// Runs the command by the OCI runtime, which has our stdio; its exit code is ours. A detached one is the
    /// monitor's to run.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let (name, command) = self
            .container_and_command
            .split_first()
            .ok_or_else(|| Error::Invalid("a container is required".to_owned()))?;
        let container = Containers::new(host).find(name)?;
        check_runs(&container)?;
        if self.tty && self.interactive && !self.detach && !stdin_is_terminal() {
            return Err(Error::NoTerminal);
        }
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
        if self.detach {
            return leave_to_monitor(&container, exec_id, &files, ui);
        }
        let runtime = Runtime::find(host, &container.record.host_config.runtime)?;
        hold.inherit()?;
        let status = self.execute(&runtime, &container, &files);
        let message = last_error(&files.log);
        files.remove();
        let code = match (status?, message) {
            // The runtime's own failure, of which it has told on stderr; the program never ran.
            (status, Some(message)) if !status.success() => refusal_code(&message),
            (status, _) => status
                .code()
                .or(status.signal().map(|n| 128 + n))
                .unwrap_or(255),
        };
        let ended = [more[0].clone(), ("exitCode", code.to_string())];
        event("exec_die".to_owned(), &ended)?;
        exit(code)
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

    fn execute(
        &self,
        runtime: &Runtime,
        container: &Container,
        files: &Files,
    ) -> Result<ExitStatus> {
        let id = &container.record.id;
        let mut command = runtime.exec(id, &files.process, &files.log, None);
        if !self.interactive {
            command.stdin(Stdio::null());
        }
        command
            .status()
            .map_err(|errno| Error::host("execute", runtime.program(), errno))
    }
}

/// Lets the container's monitor start the process and see to its end.
fn leave_to_monitor(container: &Container, id: String, files: &Files, ui: &mut Ui) -> Result<()> {
    let asked =
        Session::connect(container).and_then(|mut session| session.request(&Request::Exec { id }));
    match asked {
        Err(Error::Runtime { message }) => {
            ui.error_line(&message)?;
            exit(refusal_code(&message))
        }
        Err(error) => {
            files.remove();
            Err(error)
        }
        Ok(()) => Ok(()),
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
