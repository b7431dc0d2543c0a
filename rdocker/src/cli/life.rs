//! Verbs that move containers through their life: `start stop restart kill pause unpause wait rm`.

use std::time::Duration;

use crate::container::record::Status;
use crate::container::session::Session;
use crate::container::start::{self, Root};
use crate::container::{Container, Containers, network, remove, signal};
use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::monitor::wire::Request;
use crate::store::lock::FileLock;
use crate::ui::Ui;
use crate::ui::terminal::DetachKeys;

use super::each::{each, each_quietly};
use super::pump::{Options, Outcome, Pump, exit};

/// Start one or more stopped containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker start [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Start {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short, long)]
    attach: bool,
    /// Attach container's STDIN
    #[arg(short, long)]
    interactive: bool,
    /// Override the key sequence for detaching a container
    #[arg(
        long,
        value_name = "KEYS",
        default_value = "",
        hide_default_value = true
    )]
    detach_keys: String,
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    names: Vec<String>,
}

impl Start {
    /// Starts each; with `-a` or `-i` one, and stays.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        if self.attach || self.interactive {
            let [name] = self.names.as_slice() else {
                return Err(Error::Invalid(
                    "you cannot start and attach multiple containers at once".to_owned(),
                ));
            };
            return self.attached(host, name, ui);
        }
        let mut failed = Vec::new();
        let started = each(&self.names, ui, |name, _| {
            let one = Containers::new(host)
                .find(name)
                .and_then(|container| start_one(host, &container));
            if one.is_err() {
                failed.push(name.to_owned());
            }
            one
        });
        if !failed.is_empty() {
            let names = failed.join(", ");
            ui.error_line(format_args!("Error: failed to start containers: {names}"))?;
        }
        started
    }

    fn attached(&self, host: &Host, name: &str, ui: &mut Ui) -> Result<()> {
        let container = Containers::new(host).find(name)?;
        let tty = container.record.config.tty;
        let stdin = self.interactive && container.record.config.open_stdin;
        let detach_keys = DetachKeys::parse(&self.detach_keys)?;
        let pump = Pump::new(Options {
            stdin,
            tty,
            sig_proxy: !tty,
            detach_keys,
        })?;
        let mut session = {
            let _lock = container.lock()?;
            let mut session = start::launch(host, &container, Root::Unmounted)?;
            session.send(&Request::Attach {
                stdin,
                stdout: true,
                stderr: true,
            })?;
            session.request(&Request::Start)?;
            session
        };
        match pump.run(&mut session, ui)? {
            Outcome::Detached => Ok(()),
            Outcome::Exited(code) => exit(code),
        }
    }
}

/// Starts a container that does not run; one that runs is fine.
fn start_one(host: &Host, container: &Container) -> Result<()> {
    let _lock = container.lock()?;
    let container = Containers::new(host).load(&container.record.id)?;
    match container.state.status {
        Status::Running | Status::Restarting => return Ok(()),
        Status::Paused => {
            return Err(Error::Conflict(
                "cannot start a paused container, try unpause instead".to_owned(),
            ));
        }
        _ => {}
    }
    start::launch(host, &container, Root::Unmounted)?.request(&Request::Start)
}

/// How long a container may take to end.
#[derive(Debug, clap::Args)]
struct Patience {
    /// Seconds to wait before killing the container
    #[arg(short, long, value_name = "SECONDS", allow_hyphen_values = true)]
    timeout: Option<i64>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    time: Option<i64>,
}

impl Patience {
    fn seconds(&self, ui: &mut Ui) -> Result<Option<i64>> {
        if self.time.is_some() {
            ui.error_line("Flag --time has been deprecated, use --timeout instead")?;
        }
        Ok(self.timeout.or(self.time))
    }
}

/// Stop one or more running containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker stop [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Stop {
    /// Signal to send to the container
    #[arg(short, long)]
    signal: Option<String>,
    #[command(flatten)]
    patience: Patience,
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    names: Vec<String>,
}

impl Stop {
    /// Stops each.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let signal = self.signal.as_deref().map(signal::parse).transpose()?;
        let timeout = self.patience.seconds(ui)?;
        each(&self.names, ui, |name, _| {
            stop_one(&Containers::new(host).find(name)?, signal, timeout)
        })
    }
}

/// Asks the monitor to stop its container and waits for the end; one that does not run is fine.
fn stop_one(container: &Container, signal: Option<i32>, timeout: Option<i64>) -> Result<()> {
    if !container.state.status.is_alive() {
        return Ok(());
    }
    let config = &container.record.config;
    let signal = signal.unwrap_or_else(|| crate::monitor::stop_signal(config));
    let timeout = timeout
        .or(config.stop_timeout)
        .unwrap_or(crate::monitor::STOP_SECONDS);
    match Session::connect(container) {
        Ok(mut session) => match session.request(&Request::Stop { signal, timeout }) {
            Err(Error::MonitorGone { .. }) => {
                // It was on its way out; what it left is settled by whoever looks next.
                drop(FileLock::exclusive(&container.places.monitor_lock())?);
                Ok(())
            }
            other => other,
        },
        // It ended by itself between our reading and our call.
        Err(Error::Conflict(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Restart one or more containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker restart [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Restart {
    /// Signal to send to the container
    #[arg(short, long)]
    signal: Option<String>,
    #[command(flatten)]
    patience: Patience,
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    names: Vec<String>,
}

impl Restart {
    /// Stops and starts each.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let signal = self.signal.as_deref().map(signal::parse).transpose()?;
        let timeout = self.patience.seconds(ui)?;
        each(&self.names, ui, |name, _| {
            let container = Containers::new(host).find(name)?;
            stop_one(&container, signal, timeout)?;
            start_one(host, &container)?;
            events::container(host, &container.record, "restart", &[])
        })
    }
}

/// Kill one or more running containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker kill [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Kill {
    /// Signal to send to the container
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    names: Vec<String>,
}

impl Kill {
    /// Signals each.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let signal = signal::parse(&self.signal)?;
        each(&self.names, ui, |name, _| {
            let refuse = |error: Error| match error {
                Error::Conflict(_) | Error::NotFound { .. } => {
                    Error::Conflict(format!("cannot kill container: {name}: {error}"))
                }
                other => other,
            };
            let container = Containers::new(host).find(name).map_err(refuse)?;
            container.require_running().map_err(refuse)?;
            let mut session = Session::connect(&container).map_err(refuse)?;
            session.request(&Request::Kill { signal })?;
            if signal == libc::SIGKILL {
                // Whoever comes next finds it stopped. A monitor that is gone has seen its end.
                let _ = session.wait(false);
            }
            Ok(())
        })
    }
}

/// Pause all processes within one or more containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker pause CONTAINER [CONTAINER...]")]
pub struct Pause {
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    names: Vec<String>,
}

impl Pause {
    /// Freezes each.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        each(&self.names, ui, |name, _| {
            let container = Containers::new(host).find(name)?;
            container.require_running()?;
            Session::connect(&container)?.request(&Request::Pause)
        })
    }
}

/// Unpause all processes within one or more containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker unpause CONTAINER [CONTAINER...]")]
pub struct Unpause {
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    names: Vec<String>,
}

impl Unpause {
    /// Thaws each.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        each(&self.names, ui, |name, _| {
            let container = Containers::new(host).find(name)?;
            if container.state.status != Status::Paused {
                let id = &container.record.id;
                return Err(Error::Conflict(format!("Container {id} is not paused")));
            }
            Session::connect(&container)?.request(&Request::Unpause)
        })
    }
}

/// Block until one or more containers stop, then print their exit codes
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker wait CONTAINER [CONTAINER...]")]
pub struct Wait {
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    names: Vec<String>,
}

impl Wait {
    /// Waits for each in turn.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        each_quietly(&self.names, ui, |name, ui| {
            let containers = Containers::new(host);
            let container = containers.find(name)?;
            let waited = Session::connect(&container).and_then(|mut session| session.wait(false));
            let code = match waited {
                Ok(code) => code,
                // No monitor, or one that was leaving when we came: then the record has the code.
                Err(error) => {
                    let state = containers.load(&container.record.id)?.state;
                    if state.status.is_alive() {
                        return Err(error);
                    }
                    state.exit_code
                }
            };
            ui.line(code)
        })
    }
}

/// Remove one or more containers
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker rm [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Rm {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short, long)]
    force: bool,
    /// Remove the specified link
    #[arg(short, long)]
    link: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short, long)]
    volumes: bool,
    #[arg(required = true, value_name = "CONTAINER", hide = true)]
    names: Vec<String>,
}

impl Rm {
    /// Removes each.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        if self.link {
            return each_quietly(&self.names, ui, |name, ui| {
                network::unlink(host, name)?;
                ui.line(name)
            });
        }
        let anonymous = if self.volumes {
            remove::Anonymous::Remove
        } else {
            remove::Anonymous::Keep
        };
        remove::finish_removals(host)?;
        each_quietly(&self.names, ui, |name, ui| {
            match remove_one(host, name, self.force, anonymous) {
                // `rm -f` of what is not there is what was wanted.
                Err(error @ Error::NotFound { .. }) if self.force => ui.tell(&error),
                other => other.and_then(|()| ui.line(name)),
            }
        })
    }
}

/// Removes a container, killing it first with `force`.
pub fn remove_one(
    host: &Host,
    name: &str,
    force: bool,
    anonymous: remove::Anonymous,
) -> Result<()> {
    let container = Containers::new(host).find(name)?;
    if !force {
        remove::require_removable(&container)?;
    } else if container.state.status.is_alive() {
        stop_one(&container, Some(libc::SIGKILL), Some(-1))?;
    }
    if container.record.host_config.auto_remove && container.state.status.is_alive() {
        // Its monitor removes it; the lock is free when that is done.
        drop(FileLock::exclusive(&container.places.monitor_lock()));
        return Ok(());
    }
    let _lock = container.lock()?;
    let idle = || FileLock::try_exclusive(&container.places.monitor_lock());
    while idle()?.is_none() {
        // A monitor may be taking the last run down, or begin one for a client that has died.
        let container = match Containers::new(host).load(&container.record.id) {
            // It was to go at its end.
            Err(Error::NotFound { .. }) => return Ok(()),
            container => container?,
        };
        match force {
            true => stop_one(&container, Some(libc::SIGKILL), Some(-1))?,
            false => remove::require_removable(&container)?,
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let container = Containers::new(host).load(&container.record.id)?;
    remove::require_removable(&container)?;
    remove::purge(host, &container, anonymous)
}
