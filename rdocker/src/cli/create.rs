//! `rdocker create`

use std::io::Write;

use crate::container::args::RunArgs;
use crate::container::create::{Then, create};
use crate::container::request::{Caller, Request};
use crate::container::spec::{self, Facts};
use crate::container::{Container, cgroup};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::image::{self, Image, Images, Progress, Quiet};
use crate::store::Store;
use crate::ui::Ui;
use crate::ui::progress::{Lines, Stream};

/// Create a new container
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker create [OPTIONS] IMAGE [COMMAND] [ARG...]")]
pub struct Create {
    #[command(flatten)]
    args: RunArgs,
}

impl Create {
    /// Creates and prints the id.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let env = |name: &str| std::env::var(name).ok();
        let mut request = Request::from_args(&self.args, &Caller { env: &env })?;
        request.config.attach_stdin = self.args.process.interactive;
        request.config.stdin_once = self.args.process.interactive;
        warn_of_ports(&request, ui)?;
        require_new_cidfile(&self.args)?;
        let store = Store::open(&host.data_root)?;
        let images = Images::new(&store);
        let image = find_image(host, &images, &self.args, ui)?;
        let container = create(host, &images, &image, request, Then::Stop)?;
        warn_of_limits(host, &container, ui)?;
        write_cidfile(&self.args, &container)?;
        ui.line(&container.record.id)
    }
}

/// Tells of flags that have no effect.
///
/// # Errors
/// Writing to the terminal failed.
pub fn warn_of_ports(request: &Request, ui: &mut Ui) -> Result<()> {
    let host_config = &request.host_config;
    if host_config.network_mode == "host" && !host_config.port_bindings.is_empty() {
        ui.error_line("WARNING: Published ports are discarded when using host network mode")?;
    }
    Ok(())
}

/// Refuses a file of `--cidfile` that is there, before anything is made.
///
/// # Errors
/// Docker's sentence.
pub fn require_new_cidfile(args: &RunArgs) -> Result<()> {
    match &args.life.cidfile {
        Some(path) if path.exists() => Err(Error::Conflict(format!(
            "container ID file found, make sure the other container isn't running or delete {}",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// The image of `run` and `create`, by the pull policy.
///
/// # Errors
/// `No such image`, after an attempt to pull it if the policy allows one.
pub fn find_image(host: &Host, images: &Images<'_>, args: &RunArgs, ui: &mut Ui) -> Result<Image> {
    let name = args
        .image_and_command
        .first()
        .map(String::as_str)
        .unwrap_or_default();
    let policy = args.life.pull.as_deref().unwrap_or("missing");
    let platform = args.life.platform.as_deref();
    let wanted = super::transfer::platform(platform)?;
    if policy != "always" {
        let found = images.resolve(name).and_then(|image| {
            if let Some(wanted) = &wanted {
                image.require_platform(name, wanted)?;
            }
            Ok(image)
        });
        match found {
            Err(image::Error::OtherPlatform { name, .. } | image::Error::NoSuchImage { name })
                if policy == "missing" =>
            {
                let name = super::transfer::reference(&name)?.or_latest().familiar();
                ui.error_line(format_args!("Unable to find image '{name}' locally"))?;
            }
            other => return Ok(other?),
        }
    }
    let reference = super::transfer::reference(name)?;
    let shown: Box<dyn Progress> = if args.life.quiet {
        Box::new(Quiet)
    } else {
        Box::new(Lines::on(Stream::Stderr))
    };
    super::transfer::pull(host, images, &reference, platform, shown.as_ref())?;
    Ok(images.resolve(name)?)
}

/// Says that limits are not kept where this user may make no cgroups, as Docker does.
pub fn warn_of_limits(host: &Host, container: &Container, ui: &mut Ui) -> Result<()> {
    let resources = &container.record.host_config.resources;
    let wanted = spec::limits(resources, &Facts::default());
    let has_some = wanted.as_object().is_some_and(|limits| !limits.is_empty());
    if has_some && cgroup::place(host, resources, &container.record.id).is_none() {
        ui.warn("This user may make no cgroups: limits on resources are discarded")?;
    }
    Ok(())
}

/// Writes the id to the file of `--cidfile`, which must not exist.
pub fn write_cidfile(args: &RunArgs, container: &Container) -> Result<()> {
    let Some(path) = &args.life.cidfile else {
        return Ok(());
    };
    let file = std::fs::File::create_new(path);
    file.and_then(|mut file| file.write_all(container.record.id.as_bytes()))
        .map_err(|errno| Error::local("write the container ID to", path, errno))
}
