//! A Dockerfile and its context, read and not built yet.

use super::check::{self, Findings, Subject};
use super::context::{Context, Place};
use super::ignore::Ignore;
use super::scope::Globals;
use super::{Options, needed, target};
use crate::dockerfile::{Dockerfile, parse};
use crate::error::{Error, Result};
use crate::image::Images;
use crate::image::platform::Platform;
use crate::store::lease::Lease;

/// What a build begins with.
pub struct Project {
    /// The main context.
    pub context: Context,
    /// The Dockerfile's name, as it was found.
    pub file_name: String,
    /// Its bytes.
    pub text: Vec<u8>,
    /// The same, read.
    pub file: Dockerfile,
    /// What of the context is not seen.
    pub ignore: Ignore,
    /// What is built for.
    pub platform: Platform,
    /// The arguments before the first stage.
    pub globals: Globals,
    /// The stage that is wanted.
    pub target: usize,
}

impl Project {
    /// Reads what the user named.
    ///
    /// # Errors
    /// A context that is none; a Dockerfile that is wrong; a target that it has not.
    pub fn open(lease: &Lease<'_>, place: &Place, options: &Options) -> Result<Self> {
        let context = Context::open(lease, place)?;
        let (file_name, text) = context.dockerfile(options.dockerfile.as_deref())?;
        let ignore = context.ignore(&file_name)?;
        let file = parse(&text)?;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let globals = Globals::new(
            options.arguments.clone(),
            &platform,
            options.target.as_deref().unwrap_or_default(),
            &file.arguments,
            file.escape,
        )?;
        Ok(Self {
            target: target(&file, options.target.as_deref())?,
            context,
            file_name,
            text,
            file,
            ignore,
            platform,
            globals,
        })
    }

    /// Which stages the target needs.
    ///
    /// # Errors
    /// The name of a base is wrong.
    pub fn needed(&self) -> Result<Vec<bool>> {
        needed(&self.file, &self.globals, self.target)
    }

    /// Runs the build checks on these stages.
    ///
    /// # Errors
    /// The `check` directive is wrong.
    pub fn check(
        &self,
        images: Images<'_>,
        options: &Options,
        stages: &[bool],
    ) -> Result<Findings> {
        let subject = Subject {
            source: &self.text,
            file: &self.file,
            arguments: &options.arguments,
            platform: &self.platform,
            needed: stages,
            ignore: &self.ignore,
            image: &|name| {
                let place = options.contexts.get(&name.to_ascii_lowercase());
                let name = match place {
                    Some(place) => place.strip_prefix("docker-image://")?,
                    None => name,
                };
                images.resolve(name).ok().map(|image| image.config)
            },
        };
        check::check(&subject).map_err(Error::from)
    }
}
