//! The command line: global options, the verbs, and how their failures are told.

mod args;
pub mod version;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{EXIT_ENGINE, Error, Result};
use crate::host::Host;
use crate::ui::Ui;

/// Images and containers, without a daemon
#[derive(Debug, Parser)]
#[command(
    name = "rdocker",
    disable_version_flag = true,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Run 'rdocker COMMAND --help' for more information on a command."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options before the verb.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global Options")]
pub struct Global {
    /// Location of client config files (registry credentials)
    #[arg(long, value_name = "DIR", env = "DOCKER_CONFIG")]
    config: Option<PathBuf>,
    /// Enable debug mode
    #[arg(short = 'D', long)]
    debug: bool,
    /// Daemon socket to connect to
    #[arg(short = 'H', long, value_name = "LIST", env = "DOCKER_HOST")]
    host: Option<String>,
    /// Set the logging level ("debug", "info", "warn", "error", "fatal")
    #[arg(short = 'l', long, value_name = "LEVEL", hide = true)]
    log_level: Option<String>,
    /// Where images, containers and volumes are kept
    #[arg(long, value_name = "DIR", env = "RDOCKER_DATA_ROOT")]
    data_root: Option<PathBuf>,
    /// Where sockets and mounts of running containers are kept
    #[arg(long, value_name = "DIR", env = "RDOCKER_EXEC_ROOT")]
    exec_root: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the Docker version information
    Version(version::Version),
}

impl Verb {
    fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        match self {
            Self::Version(verb) => verb.run(host, ui),
        }
    }

    /// Failures of verbs that start a program keep 125, 126 and 127 apart from its exit codes.
    fn starts_program(&self) -> bool {
        false
    }
}

/// Runs one command line to its end.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let program = program_name(arguments.first());
    let mut ui = Ui::terminal(program);
    let cli = match args::parse::<Cli>(&arguments) {
        Ok(cli) => cli,
        Err(error) => return args::explain(&error, &mut ui),
    };
    let starts_program = cli.verb.starts_program();
    let result = run(cli, &mut ui).and_then(|()| ui.flush());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(tell(&error, starts_program, &mut ui)),
    }
}

fn run(cli: Cli, ui: &mut Ui) -> Result<()> {
    if let Some(host) = &cli.global.host {
        return Err(Error::Hinted {
            message: format!("Cannot connect to the Docker daemon at {host}"),
            hint: "rdocker works without a daemon: unset DOCKER_HOST and leave out -H".to_owned(),
        });
    }
    let host = Host::new(cli.global.data_root, cli.global.exec_root)?;
    cli.verb.run(&host, ui)
}

/// Prints the one line of `error` and its hint; gives the exit code.
///
/// A terminal that went away cannot be told anything, so failures to write are not looked at.
fn tell(error: &Error, starts_program: bool, ui: &mut Ui) -> u8 {
    let code = match error {
        Error::Exit(code) => return *code,
        Error::Reported => return 1,
        error if error.is_broken_pipe() => return 1,
        error if starts_program => error.run_exit_code(),
        _ => 1,
    };
    let prefix = if starts_program {
        ui.program.clone()
    } else {
        "Error".to_owned()
    };
    let line = crate::ui::format::printable(&error.chain());
    let _ = ui.error_line(format_args!("{prefix}: {line}"));
    if let Some(hint) = error.hint() {
        let _ = ui.error_line(format_args!("hint: {hint}"));
    }
    code
}

/// `docker` if that is what the user typed, else `rdocker`.
fn program_name(argv0: Option<&OsString>) -> String {
    let name = argv0.map(Path::new).and_then(Path::file_name);
    let name = name.map(|name| name.to_string_lossy().into_owned());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "rdocker".to_owned())
}
