//! The command line: global options, the verbs, and how their failures are told.

mod args;
mod attach;
mod build;
mod check;
mod commit;
mod context;
mod cp;
mod create;
mod df;
mod each;
mod events;
mod exec;
mod filter;
mod images;
mod info;
mod inspect;
mod life;
mod logs;
mod manifest;
mod monitor;
mod network;
mod plugin;
mod port;
mod prune;
mod ps;
mod pump;
mod registry;
mod rename;
mod run;
mod size;
mod stats;
mod top;
mod transfer;
mod update;
mod version;
mod volume;
mod when;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory, Parser, Subcommand};

use crate::error::{EXIT_ENGINE, Error, Result};
use crate::host::Host;
use crate::rootless;
use crate::ui::Ui;

/// Images and containers, without a daemon
#[derive(Debug, Parser)]
#[command(
    name = "rdocker",
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
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
    /// Name of the context to use: there is only "default"
    #[arg(short, long, value_name = "NAME", hide = true)]
    context: Option<String>,
    /// Enable debug mode
    #[arg(short = 'D', long)]
    debug: bool,
    /// Daemon socket to connect to
    #[arg(short = 'H', long, value_name = "LIST", env = "DOCKER_HOST")]
    host: Option<String>,
    /// Print version information and quit
    #[arg(short, long, action = clap::ArgAction::Version)]
    version: (),
    /// Set the logging level ("debug", "info", "warn", "error", "fatal")
    #[arg(short = 'l', long, value_name = "LEVEL", hide = true)]
    log_level: Option<LogLevel>,
    #[command(flatten)]
    tls: Tls,
    /// Where images, containers and volumes are kept
    #[arg(long, value_name = "DIR", env = "RDOCKER_DATA_ROOT")]
    data_root: Option<PathBuf>,
    /// Where sockets and mounts of running containers are kept
    #[arg(long, value_name = "DIR", env = "RDOCKER_EXEC_ROOT")]
    exec_root: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

/// How a client would talk to a daemon: taken, and without meaning here.
#[derive(Debug, clap::Args)]
struct Tls {
    #[arg(long, hide = true)]
    tls: bool,
    #[arg(long, hide = true)]
    tlsverify: bool,
    #[arg(long, value_name = "FILE", hide = true)]
    tlscacert: Option<PathBuf>,
    #[arg(long, value_name = "FILE", hide = true)]
    tlscert: Option<PathBuf>,
    #[arg(long, value_name = "FILE", hide = true)]
    tlskey: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(flatten)]
    Container(ContainerVerb),
    #[command(flatten)]
    Image(ImageVerb),
    /// List images
    #[command(name = "images")]
    ListImages(images::ListImages),
    /// Remove one or more images
    Rmi(images::Rmi),
    /// Manage builds
    #[command(subcommand, disable_help_subcommand = true, visible_alias = "buildx")]
    Builder(BuilderVerb),
    /// Authenticate to a registry
    Login(registry::Login),
    /// Log out from a registry
    Logout(registry::Logout),
    /// Search Docker Hub for images
    Search(registry::Search),
    /// Return low-level information on Docker objects
    Inspect(inspect::Inspect),
    /// Show the Docker version information
    Version(version::Version),
    /// Display system-wide information
    Info(info::Info),
    /// Get real time events from the server
    Events(events::Events),
    /// Manage containers
    #[command(subcommand, disable_help_subcommand = true, name = "container")]
    Containers(ContainerForm),
    /// Manage images
    #[command(subcommand, disable_help_subcommand = true, name = "image")]
    Images(ImageForm),
    /// Manage networks
    #[command(subcommand, disable_help_subcommand = true)]
    Network(network::NetworkVerb),
    /// Manage volumes
    #[command(subcommand, disable_help_subcommand = true)]
    Volume(volume::VolumeVerb),
    /// Manage contexts
    #[command(subcommand, disable_help_subcommand = true)]
    Context(context::ContextVerb),
    /// Manage plugins
    #[command(subcommand, disable_help_subcommand = true)]
    Plugin(plugin::PluginVerb),
    /// Manage Docker image manifests and manifest lists
    #[command(subcommand, disable_help_subcommand = true)]
    Manifest(manifest::ManifestVerb),
    /// Manage the engine
    #[command(subcommand, disable_help_subcommand = true)]
    System(SystemVerb),
    #[command(name = "__monitor", hide = true)]
    Monitor(monitor::Monitor),
    #[command(name = crate::rootless::VERB, hide = true)]
    Namespaces,
}

/// Verbs on containers, alone or after `container`.
#[derive(Debug, Subcommand)]
enum ContainerVerb {
    /// Attach local standard input, output, and error streams to a running container
    Attach(attach::Attach),
    /// Create a new image from a container's changes
    Commit(commit::Commit),
    /// Copy files/folders between a container and the local filesystem
    Cp(cp::Cp),
    /// Create a new container
    Create(Box<create::Create>),
    /// Inspect changes to files or directories on a container's filesystem
    Diff(commit::Diff),
    /// Execute a command in a running container
    Exec(exec::Exec),
    /// Export a container's filesystem as a tar archive
    Export(commit::Export),
    /// Kill one or more running containers
    Kill(life::Kill),
    /// Fetch the logs of a container
    Logs(logs::Logs),
    /// Pause all processes within one or more containers
    Pause(life::Pause),
    /// List port mappings or a specific mapping for the container
    Port(port::Port),
    /// List containers
    Ps(ps::Ps),
    /// Rename a container
    Rename(rename::Rename),
    /// Restart one or more containers
    Restart(life::Restart),
    /// Remove one or more containers
    Rm(life::Rm),
    /// Create and run a new container from an image
    Run(Box<run::Run>),
    /// Start one or more stopped containers
    Start(life::Start),
    /// Display a live stream of container(s) resource usage statistics
    Stats(stats::Stats),
    /// Stop one or more running containers
    Stop(life::Stop),
    /// Display the running processes of a container
    Top(top::Top),
    /// Unpause all processes within one or more containers
    Unpause(life::Unpause),
    /// Update configuration of one or more containers
    Update(update::Update),
    /// Block until one or more containers stop, then print their exit codes
    Wait(life::Wait),
}

/// `rdocker container …`
#[derive(Debug, Subcommand)]
enum ContainerForm {
    #[command(flatten)]
    Verb(ContainerVerb),
    /// List containers
    #[command(name = "ls", visible_alias = "list")]
    Ls(ps::Ps),
    /// Display detailed information on one or more containers
    Inspect(inspect::Inspect),
    /// Remove all stopped containers
    Prune(prune::Prune),
    /// Remove one or more containers
    #[command(name = "remove", hide = true)]
    Remove(life::Rm),
}

/// Verbs on images that have the same name at the top level and after `image`.
#[derive(Debug, Subcommand)]
enum ImageVerb {
    /// Build an image from a Dockerfile
    Build(Box<build::Build>),
    /// Show the history of an image
    History(commit::History),
    /// Import the contents from a tarball to create a filesystem image
    Import(transfer::Import),
    /// Load an image from a tar archive or STDIN
    Load(transfer::Load),
    /// Download an image from a registry
    Pull(transfer::Pull),
    /// Upload an image to a registry
    Push(transfer::Push),
    /// Save one or more images to a tar archive (streamed to STDOUT by default)
    Save(transfer::Save),
    /// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
    Tag(images::Tag),
}

/// `rdocker image …`
#[derive(Debug, Subcommand)]
enum ImageForm {
    #[command(flatten)]
    Verb(ImageVerb),
    /// List images
    #[command(visible_alias = "list")]
    Ls(images::ListImages),
    /// Display detailed information on one or more images
    Inspect(inspect::Inspect),
    /// Remove unused images
    Prune(prune::Prune),
    /// Remove one or more images
    #[command(visible_alias = "remove")]
    Rm(images::Rmi),
}

impl ImageVerb {
    fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        match self {
            Self::Build(verb) => verb.run(host, ui),
            Self::History(verb) => verb.run(host, ui),
            Self::Import(verb) => verb.run(host, ui),
            Self::Load(verb) => verb.run(host, ui),
            Self::Pull(verb) => verb.run(host, ui),
            Self::Push(verb) => verb.run(host, ui),
            Self::Save(verb) => verb.run(host, ui),
            Self::Tag(verb) => verb.run(host, ui),
        }
    }
}

/// `rdocker builder …`
#[derive(Debug, Subcommand)]
enum BuilderVerb {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<build::Build>),
    /// Disk usage
    Du(df::BuilderDu),
    /// List builder instances: there is one
    Ls(version::BuilderLs),
    /// Remove build cache
    Prune(build::BuilderPrune),
    /// Show the builder's version
    Version(version::BuilderVersion),
}

/// `rdocker system …`
#[derive(Debug, Subcommand)]
enum SystemVerb {
    /// Get real time events from the server
    Events(events::Events),
    /// Display system-wide information
    Info(info::Info),
    /// Show docker disk usage
    Df(df::Df),
    /// Remove unused data
    Prune(prune::Prune),
}

impl Verb {
    fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        match self {
            Self::Container(verb) | Self::Containers(ContainerForm::Verb(verb)) => {
                verb.run(host, ui)
            }
            Self::Image(verb) | Self::Images(ImageForm::Verb(verb)) => verb.run(host, ui),
            Self::ListImages(verb) | Self::Images(ImageForm::Ls(verb)) => verb.run(host, ui),
            Self::Rmi(verb) | Self::Images(ImageForm::Rm(verb)) => verb.run(host, ui),
            Self::Images(ImageForm::Inspect(verb)) => verb.of_kind("image").run(host, ui),
            Self::Images(ImageForm::Prune(verb)) => verb.images(host, ui),
            Self::Builder(BuilderVerb::Build(verb)) => verb.run(host, ui),
            Self::Builder(BuilderVerb::Du(verb)) => verb.run(host, ui),
            Self::Builder(BuilderVerb::Ls(verb)) => verb.run(ui),
            Self::Builder(BuilderVerb::Prune(verb)) => verb.run(host, ui),
            Self::Builder(BuilderVerb::Version(verb)) => verb.run(ui),
            Self::Login(verb) => verb.run(host, ui),
            Self::Logout(verb) => verb.run(host, ui),
            Self::Search(verb) => verb.run(host, ui),
            Self::System(SystemVerb::Df(verb)) => verb.run(host, ui),
            Self::System(SystemVerb::Prune(verb)) => verb.system(host, ui),
            Self::Containers(ContainerForm::Prune(verb)) => verb.containers(host, ui),
            Self::Inspect(verb) => verb.run(host, ui),
            Self::Version(verb) => verb.run(host, ui),
            Self::Info(verb) | Self::System(SystemVerb::Info(verb)) => verb.run(host, ui),
            Self::Events(verb) | Self::System(SystemVerb::Events(verb)) => verb.run(host, ui),
            Self::Containers(ContainerForm::Ls(verb)) => verb.run(host, ui),
            Self::Containers(ContainerForm::Inspect(verb)) => {
                verb.of_kind("container").run(host, ui)
            }
            Self::Containers(ContainerForm::Remove(verb)) => verb.run(host, ui),
            Self::Network(verb) => verb.run(host, ui),
            Self::Volume(verb) => verb.run(host, ui),
            Self::Context(verb) => verb.run(ui),
            Self::Plugin(verb) => verb.run(ui),
            Self::Manifest(verb) => verb.run(host, ui),
            Self::Monitor(verb) => verb.run(host),
            Self::Namespaces => rootless::hold(host),
        }
    }

    /// Verbs that touch neither images nor containers run as whoever typed them.
    const fn needs_namespaces(&self) -> bool {
        !matches!(
            self,
            Self::Login(_)
                | Self::Logout(_)
                | Self::Search(_)
                | Self::Version(_)
                | Self::Context(_)
                | Self::Plugin(_)
                | Self::Namespaces
        )
    }

    /// Failures of verbs that start a program keep 125, 126 and 127 apart from its exit codes.
    fn starts_program(&self) -> bool {
        let (Self::Container(verb) | Self::Containers(ContainerForm::Verb(verb))) = self else {
            return false;
        };
        matches!(verb, ContainerVerb::Run(_))
    }
}

impl ContainerVerb {
    fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        match self {
            Self::Attach(verb) => verb.run(host, ui),
            Self::Commit(verb) => verb.run(host, ui),
            Self::Cp(verb) => verb.run(host, ui),
            Self::Create(verb) => verb.run(host, ui),
            Self::Diff(verb) => verb.run(host, ui),
            Self::Exec(verb) => verb.run(host, ui),
            Self::Export(verb) => verb.run(host, ui),
            Self::Kill(verb) => verb.run(host, ui),
            Self::Logs(verb) => verb.run(host, ui),
            Self::Pause(verb) => verb.run(host, ui),
            Self::Port(verb) => verb.run(host, ui),
            Self::Ps(verb) => verb.run(host, ui),
            Self::Rename(verb) => verb.run(host, ui),
            Self::Restart(verb) => verb.run(host, ui),
            Self::Rm(verb) => verb.run(host, ui),
            Self::Run(verb) => verb.run(host, ui),
            Self::Start(verb) => verb.run(host, ui),
            Self::Stats(verb) => verb.run(host, ui),
            Self::Stop(verb) => verb.run(host, ui),
            Self::Top(verb) => verb.run(host, ui),
            Self::Unpause(verb) => verb.run(host, ui),
            Self::Update(verb) => verb.run(host, ui),
            Self::Wait(verb) => verb.run(host, ui),
        }
    }
}

/// The whole command line as clap sees it, for shell completions and manual pages.
#[must_use]
pub fn command() -> Command {
    Cli::command()
}

/// Runs one command line to its end.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = asking_for_help(arguments.collect());
    let program = program_name(arguments.first());
    let mut ui = Ui::terminal(program);
    let cli = match args::parse::<Cli>(&arguments) {
        Ok(cli) => cli,
        Err(error) => return args::explain::<Cli>(&error, &arguments, &mut ui),
    };
    let starts_program = cli.verb.starts_program();
    let result = run(cli, &mut ui).and_then(|()| ui.flush());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(tell(&error, starts_program, &mut ui)),
    }
}

/// `help run` is `run --help`.
fn asking_for_help(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_some_and(|word| word == "help") {
        arguments.remove(1);
        arguments.push("--help".into());
    }
    arguments
}

fn run(cli: Cli, ui: &mut Ui) -> Result<()> {
    if let Some(host) = cli.global.host.filter(|host| !host.is_empty()) {
        return Err(Error::NoDaemon { host });
    }
    if let Some(name) = cli.global.context.filter(|name| name != context::DEFAULT) {
        return Err(Error::Usage(format!(
            "Failed to initialize: unable to resolve docker endpoint: context {name:?}: context \
             not found"
        )));
    }
    let host = Host::new(cli.global.data_root, cli.global.exec_root)?;
    if rootless::is_needed() && cli.verb.needs_namespaces() {
        rootless::enter(&host)?;
    }
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
        error => error.build_exit_code().unwrap_or(1),
    };
    let prefix = match error.prefix(&ui.program) {
        _ if matches!(error, Error::NoTerminal) => String::new(),
        "Error: " if starts_program => format!("{}: ", ui.program),
        prefix if starts_program => format!("{}: {prefix}", ui.program),
        prefix => prefix.to_owned(),
    };
    let _ = ui.tell_after(&prefix, error);
    code
}

/// `docker` if that is what the user typed, else `rdocker`.
fn program_name(argv0: Option<&OsString>) -> String {
    let name = argv0.map(Path::new).and_then(Path::file_name);
    let name = name.map(|name| name.to_string_lossy().into_owned());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "rdocker".to_owned())
}
