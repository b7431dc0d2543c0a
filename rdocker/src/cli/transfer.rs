//! Images in and out: `pull push save load import`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::build::remote;
use crate::error::{Error, Result};
use crate::events;
use crate::host::Host;
use crate::image::catalog::tag_name;
use crate::image::config::RunConfig;
use crate::image::create::ImportOptions;
use crate::image::pull::PullOptions;
use crate::image::registry::tags::tags;
use crate::image::registry::{Credentials, RegistryOptions};
use crate::image::{self, Event, Images, Platform, Progress, Quiet, Reference, instruction};
use crate::store::Store;
use crate::ui::progress::{Lines, Stream};
use crate::ui::{Ui, stdin_is_terminal, stdout_is_terminal};

/// What daemon.json and the client's files say about registries.
pub fn registry_options(host: &Host) -> RegistryOptions {
    RegistryOptions {
        mirrors: host.settings.registry_mirrors.clone(),
        insecure: host.settings.insecure_registries.clone(),
        certs_dirs: vec!["/etc/rdocker/certs.d".into(), "/etc/docker/certs.d".into()],
        credentials: match Credentials::default_file() {
            Some(path) => Credentials::File(path),
            None => Credentials::Anonymous,
        },
    }
}

/// Parses a name that a user typed.
///
/// # Errors
/// `invalid reference format`.
pub fn reference(text: &str) -> Result<Reference> {
    Reference::parse(text).map_err(|error| crate::image::Error::from(error).into())
}

/// Parses the value of `--platform`.
///
/// # Errors
/// Docker's words for what is no platform.
pub fn platform(text: Option<&str>) -> Result<Option<Platform>> {
    let platform = text.map(str::parse).transpose();
    platform.map_err(|error: image::Error| error.into())
}

fn progress(quiet: bool) -> Box<dyn Progress> {
    if quiet {
        Box::new(Quiet)
    } else {
        Box::new(Lines::on(Stream::Stdout))
    }
}

/// Download an image from a registry
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker pull [OPTIONS] NAME[:TAG|@DIGEST]")]
pub struct Pull {
    /// Download all tagged images in the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Set platform if the image has several (os[/arch[/variant]])
    #[arg(long)]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Skip image verification
    #[arg(long, hide = true)]
    disable_content_trust: bool,
    #[arg(hide = true)]
    name: String,
}

impl Pull {
    /// Pulls and prints the full name last, as docker does.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let store = Store::open(&host.data_root)?;
        let images = Images::new(&store);
        let name = reference(&self.name)?;
        let is_bare = name.tag().is_none() && name.digest().is_none();
        let platform = self.platform.as_deref();
        let shown = progress(self.quiet);
        if self.all_tags {
            if !is_bare {
                return Err(Error::Usage(
                    "tag can't be used with --all-tags/-a".to_owned(),
                ));
            }
            for tag in tags(&name, &registry_options(host)).map_err(image::Error::from)? {
                let one = reference(&format!("{}:{tag}", name.name()))?;
                pull(host, &images, &one, platform, shown.as_ref())?;
            }
            return ui.line(name.name());
        }
        if is_bare && !self.quiet {
            ui.line("Using default tag: latest")?;
        }
        pull(host, &images, &name, platform, shown.as_ref())?;
        ui.line(name.or_latest())
    }
}

/// Pulls `name` and logs the event.
pub fn pull(
    host: &Host,
    images: &Images<'_>,
    name: &Reference,
    platform: Option<&str>,
    progress: &dyn Progress,
) -> Result<()> {
    let options = PullOptions {
        platform: self::platform(platform)?,
        registry: registry_options(host),
    };
    let pulled = images.pull(name, &options, progress)?;
    let familiar = name.clone().or_latest().familiar();
    let status = match pulled.updated {
        true => "Downloaded newer image for",
        false => "Image is up to date for",
    };
    progress.event(Event::Message(&format!("Digest: {}", pulled.digest)));
    progress.event(Event::Message(&format!("Status: {status} {familiar}")));
    events::other(
        host,
        "image",
        "pull",
        &familiar,
        &[("name", name.familiar_name())],
    )
}

/// Upload an image to a registry
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker push [OPTIONS] NAME[:TAG]")]
pub struct Push {
    /// Push all tags of an image to the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Push only if the image is for this platform (os[/arch[/variant]])
    #[arg(long)]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Skip image signing
    #[arg(long, hide = true)]
    disable_content_trust: bool,
    #[arg(hide = true)]
    name: String,
}

impl Push {
    /// Pushes one tag, or all that the repository has here.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let store = Store::open(&host.data_root)?;
        let images = Images::new(&store);
        let name = reference(&self.name)?;
        if !self.all_tags {
            if name.tag().is_none() && !self.quiet {
                ui.line("Using default tag: latest")?;
            }
            return self.push(host, &images, &name, ui);
        }
        if name.tag().is_some() || name.digest().is_some() {
            return Err(Error::Usage(
                "tag can't be used with --all-tags/-a".to_owned(),
            ));
        }
        let list = images.list()?;
        let here = list.iter().flat_map(|image| &image.tags);
        let own = format!("{}:", name.familiar_name());
        let names: Vec<&String> = here.filter(|tag| tag.starts_with(&own)).collect();
        if names.is_empty() {
            return Err(Error::Usage(format!(
                "An image does not exist locally with the tag: {}",
                name.familiar_name()
            )));
        }
        names
            .into_iter()
            .try_for_each(|tag| self.push(host, &images, &reference(tag)?, ui))
    }

    fn push(&self, host: &Host, images: &Images<'_>, name: &Reference, ui: &mut Ui) -> Result<()> {
        let options = registry_options(host);
        if let Some(platform) = platform(self.platform.as_deref())? {
            let familiar = name.clone().or_latest().familiar();
            images
                .resolve(&familiar)?
                .require_platform(&familiar, &platform)?;
        }
        images.push(name, &options, progress(self.quiet).as_ref())?;
        if self.quiet {
            ui.line(name.clone().or_latest())?;
        }
        let familiar = name.clone().or_latest().familiar();
        events::other(
            host,
            "image",
            "push",
            &familiar,
            &[("name", name.familiar_name())],
        )
    }
}

/// Save one or more images to a tar archive (streamed to STDOUT by default)
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker save [OPTIONS] IMAGE [IMAGE...]")]
pub struct Save {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Save only what is for this platform (os[/arch[/variant]])
    #[arg(long)]
    platform: Vec<String>,
    #[arg(required = true, hide = true)]
    names: Vec<String>,
}

impl Save {
    /// Writes the archive.
    pub fn run(self, host: &Host, _ui: &mut Ui) -> Result<()> {
        let store = Store::open(&host.data_root)?;
        let images = Images::new(&store);
        require_platforms(&images, &self.names, &self.platform)?;
        to_file_or_stdout(self.output.as_deref(), |to| {
            Ok(images.save(&self.names, to)?)
        })
    }
}

/// Whether every image that is named serves one of the platforms; none is any.
///
/// # Errors
/// An image does not exist, or is for another platform.
pub fn require_platforms(
    images: &Images<'_>,
    names: &[String],
    platforms: &[String],
) -> Result<()> {
    let mut wanted = Vec::new();
    for text in platforms {
        wanted.extend(platform(Some(text))?);
    }
    let Some(first) = wanted.first() else {
        return Ok(());
    };
    for name in names {
        let image = images.resolve(name)?;
        let serves = |want| image.require_platform(name, want).is_ok();
        if !wanted.iter().any(serves) {
            image.require_platform(name, first)?;
        }
    }
    Ok(())
}

/// Writes to a file that appears whole or not at all, or to a stdout that is no terminal.
///
/// # Errors
/// Stdout is a terminal; whatever `write` fails with.
pub fn to_file_or_stdout(
    output: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let Some(path) = output else {
        if stdout_is_terminal() {
            return Err(Error::Invalid(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect".to_owned(),
            ));
        }
        let mut out = io::BufWriter::with_capacity(1 << 20, io::stdout().lock());
        write(&mut out)?;
        return out.flush().map_err(Error::Terminal);
    };
    if path.exists() && !path.is_file() {
        // A pipe or device cannot be replaced by renaming.
        let mut file = File::options().write(true).open(path);
        let file = file
            .as_mut()
            .map_err(|errno| Error::local("open", path, io::Error::from(errno.kind())))?;
        return write(file);
    }
    let dir = path.parent().filter(|dir| *dir != Path::new(""));
    if let Some(dir) = dir.filter(|dir| !dir.exists()) {
        return Err(Error::Usage(format!(
            "invalid output path: stat {}: no such file or directory",
            dir.display()
        )));
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(name);
    // What an image or container holds is not for every user of the machine.
    let result = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .map_err(|errno| Error::local("create", &part, errno))
        .and_then(|file| {
            let mut out = io::BufWriter::with_capacity(1 << 20, file);
            write(&mut out)?;
            out.flush()
                .map_err(|errno| Error::local("write", &part, errno))
        })
        .and_then(|()| {
            std::fs::rename(&part, path).map_err(|errno| Error::local("rename", &part, errno))
        });
    if result.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    result
}

/// Load an image from a tar archive or STDIN
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker load [OPTIONS]")]
pub struct Load {
    /// Read from tar archive file, instead of STDIN
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Load the image of this platform, of archives that have several (os[/arch[/variant]])
    #[arg(long)]
    platform: Option<String>,
    /// Suppress the load output
    #[arg(short, long)]
    quiet: bool,
}

impl Load {
    /// Loads every image of the archive.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        if self.input.is_none() && stdin_is_terminal() {
            return Err(Error::Invalid(
                "requested load from stdin, but stdin is empty".to_owned(),
            ));
        }
        let stream = open_input(self.input.as_deref())?;
        let store = Store::open(&host.data_root)?;
        let shown = progress(self.quiet || !stdout_is_terminal());
        let platform = platform(self.platform.as_deref())?;
        let images = Images::new(&store);
        for loaded in images.load(stream, platform.as_ref(), shown.as_ref())? {
            if loaded.names.is_empty() {
                ui.line(format_args!("Loaded image ID: {}", loaded.id))?;
            }
            for name in &loaded.names {
                ui.line(format_args!("Loaded image: {name}"))?;
            }
            let id = loaded.id.to_string();
            events::other(
                host,
                "image",
                "load",
                &id,
                &[("name", loaded.names.join(","))],
            )?;
        }
        Ok(())
    }
}

fn open_input(path: Option<&Path>) -> Result<Box<dyn Read + Send>> {
    match path {
        None => Ok(Box::new(io::stdin())),
        Some(path) if path == Path::new("-") => Ok(Box::new(io::stdin())),
        Some(path) => {
            let file = File::open(path).map_err(|errno| Error::local("open", path, errno))?;
            Ok(Box::new(file))
        }
    }
}

/// Import the contents from a tarball to create a filesystem image
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker import [OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]")]
pub struct Import {
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Set commit message for imported image
    #[arg(short, long)]
    message: Option<String>,
    /// Set platform of the image (os[/arch[/variant]])
    #[arg(long)]
    platform: Option<String>,
    #[arg(hide = true)]
    source: String,
    #[arg(hide = true)]
    repository: Option<String>,
}

impl Import {
    /// Makes an image of one layer and prints its id.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let mut config = RunConfig::default();
        for text in &self.change {
            instruction::apply(&mut config, text)?;
        }
        // Docker's client sends files as it sends its stdin.
        let source = match remote::is_http(&self.source) {
            true => remote::without_secrets(&self.source),
            false => "-".to_owned(),
        };
        let options = ImportOptions {
            name: self.repository.as_deref().map(tag_name).transpose()?,
            message: self.message.clone(),
            config,
            platform: platform(self.platform.as_deref())?,
            source: source.clone(),
        };
        let stream = if remote::is_http(&self.source) {
            ui.line(format_args!("Downloading from {}", source))?;
            Box::new(remote::open(&self.source)?.body)
        } else {
            open_input(Some(Path::new(&self.source)))?
        };
        let store = Store::open(&host.data_root)?;
        let id = Images::new(&store).import(stream, &options)?;
        events::other(host, "image", "import", &id.to_string(), &[])?;
        ui.line(id)
    }
}
