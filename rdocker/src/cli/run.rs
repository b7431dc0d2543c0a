//! `rdocker run`

use crate::container::args::RunArgs;
use crate::container::create::{Then, create};
use crate::container::request::{Caller, Request};
use crate::container::session::Session;
use crate::container::start::{self, Root};
use crate::container::{Container, remove};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::image::Images;
use crate::monitor::wire;
use crate::store::Store;
use crate::ui::Ui;
use crate::ui::terminal::{self, DetachKeys};

use super::create::{
    find_image, require_new_cidfile, warn_of_limits, warn_of_ports, write_cidfile,
};
use super::pump::{Options, Outcome, Pump, exit};

/// Create and run a new container from an image
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker run [OPTIONS] IMAGE [COMMAND] [ARG...]")]
pub struct Run {
    /// Run container in background and print container ID
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
    /// Proxy received signals to the process
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    #[command(flatten)]
    args: RunArgs,
}

impl Run {
    /// Creates, attaches, starts, waits.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let streams = Streams::of(&self)?;
        let keys = DetachKeys::parse(&self.detach_keys)?;
        let env = |name: &str| std::env::var(name).ok();
        let mut request = Request::from_args(&self.args, &Caller { env: &env })?;
        warn_of_ports(&request, ui)?;
        require_new_cidfile(&self.args)?;
        request.config.attach_stdin = streams.stdin;
        request.config.attach_stdout = streams.stdout;
        request.config.attach_stderr = streams.stderr;
        request.config.stdin_once = streams.stdin;
        if let Some((rows, columns)) = terminal::size().filter(|_| self.args.process.tty) {
            request.host_config.console_size = [rows, columns];
        }
        let tty = self.args.process.tty;
        let attaches = streams.stdin || streams.stdout || streams.stderr;
        let pump = if attaches {
            Some(Pump::new(Options {
                stdin: streams.stdin,
                tty,
                sig_proxy: self.sig_proxy && !tty,
                detach_keys: keys,
            })?)
        } else {
            None
        };
        let container = {
            let store = Store::open(&host.data_root)?;
            let images = Images::new(&store);
            let image = find_image(host, &images, &self.args, ui)?;
            create(host, &images, &image, request, Then::Start)?
        };
        warn_of_limits(host, &container, ui)?;
        write_cidfile(&self.args, &container)?;
        match begin(host, &container, &streams) {
            Ok(session) => finish(&container, session, pump, ui),
            Err(error) => {
                if container.record.host_config.auto_remove {
                    remove_failed(host, &container);
                }
                Err(error)
            }
        }
    }
}

/// Which of our streams are connected.
struct Streams {
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

impl Streams {
    fn of(run: &Run) -> Result<Self> {
        let process = &run.args.process;
        if run.detach {
            if !process.attach.is_empty() {
                return Err(Error::Invalid(
                    "conflicting options: cannot specify both --attach and --detach".to_owned(),
                ));
            }
            return Ok(Self {
                stdin: false,
                stdout: false,
                stderr: false,
            });
        }
        if process.attach.is_empty() {
            return Ok(Self {
                stdin: process.interactive,
                stdout: true,
                stderr: true,
            });
        }
        let mut streams = Self {
            stdin: false,
            stdout: false,
            stderr: false,
        };
        for name in &process.attach {
            match name.to_lowercase().as_str() {
                "stdin" => streams.stdin = true,
                "stdout" => streams.stdout = true,
                "stderr" => streams.stderr = true,
                _ => {
                    return Err(Error::Invalid(format!(
                        "invalid argument {name:?} for \"-a, --attach\" flag: valid streams are \
                         STDIN, STDOUT and STDERR"
                    )));
                }
            }
        }
        Ok(streams)
    }
}

/// Attaches first and starts then: no output is lost in between.
fn begin(host: &Host, container: &Container, streams: &Streams) -> Result<Session> {
    let _lock = container.lock()?;
    let mut session = start::launch(host, container, Root::Mounted)?;
    let Streams {
        stdin,
        stdout,
        stderr,
    } = *streams;
    if stdin || stdout || stderr {
        session.send(&wire::Request::Attach {
            stdin,
            stdout,
            stderr,
        })?;
        if container.record.host_config.auto_remove {
            session.send(&wire::Request::Wait { removed: true })?;
        }
    }
    session.request(&wire::Request::Start)?;
    Ok(session)
}

fn finish(
    container: &Container,
    mut session: Session,
    pump: Option<Pump>,
    ui: &mut Ui,
) -> Result<()> {
    let Some(pump) = pump else {
        return ui.line(&container.record.id);
    };
    match pump.run(&mut session, ui)? {
        Outcome::Detached => Ok(()),
        Outcome::Exited(code) => {
            if container.record.host_config.auto_remove {
                // The monitor ends after the removal; hearing that is as good as its answer.
                let _ = session.reply();
            }
            exit(code)
        }
    }
}

/// The monitor removes a `--rm` container whose start failed; without a monitor we do.
fn remove_failed(host: &Host, container: &Container) {
    if container.places.dir.exists()
        && let Ok(_free) = crate::store::lock::FileLock::exclusive(&container.places.monitor_lock())
    {
        // The start's own error is the one to tell.
        let _ = remove::purge(host, container, remove::Anonymous::Remove);
    }
}
