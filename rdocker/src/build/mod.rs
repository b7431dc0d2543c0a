//! `build`: a Dockerfile and a context become an image.
//!
//! Every stage that is needed runs in a thread of its own and waits only where it uses another
//! one's result. A step that needs files works on an overlay of the layers so far; its upper
//! directory *is* the next layer. Steps without files start nothing.
//!
//! - [`project`]: a Dockerfile and its context.
//! - [`context`], [`git`], [`remote`]: where files come from.
//! - [`ignore`], [`glob`]: which of them are seen.
//! - [`tree`]: files listed by content, and copied as listed.
//! - [`scope`], [`mount`], [`chmod`]: what instructions mean.
//! - [`key`], [`cache`]: what was built before.
//! - [`stage`], [`transfer`], [`run`], [`source`]: the steps themselves.
//! - [`check`]: what its author may not mean.
//! - [`output`]: where the result goes.

pub mod cache;
pub mod check;
pub mod chmod;
pub mod context;
pub mod git;
pub mod glob;
pub mod ignore;
pub mod key;
pub mod mount;
mod mounts;
pub mod output;
mod points;
pub mod project;
mod prune;
pub mod remote;
pub mod report;
mod run;
mod sandbox;
pub mod scope;
mod source;
mod stage;
mod transfer;
pub mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use crate::container::api::Resources;
use crate::dockerfile::{Dockerfile, Instruction};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::image::config::ImageConfig;
use crate::image::platform::Platform;
use crate::image::pull::PullOptions;
use crate::image::registry::RegistryOptions;
use crate::image::{Images, Reference};
use crate::runtime::Runtime;
use crate::store::digest::Digest;
use crate::store::lease::Lease;
use context::{Context, Place};
use ignore::Ignore;
use project::Project;
pub use prune::{Caches, prune, usage};
use report::{At, Event, Report};
pub use sandbox::Sandbox;
use scope::Globals;
pub use stage::State;

/// What `build` was told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `-f`.
    pub dockerfile: Option<String>,
    /// `--build-context NAME=PLACE`.
    pub contexts: BTreeMap<String, String>,
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`, values taken from the environment already.
    pub arguments: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: stages that are built anew.
    pub no_cache_stages: BTreeSet<String>,
    /// `--cache-from`: images here or in registries.
    pub cache_from: Vec<String>,
    /// `--pull`.
    pub pull: bool,
    /// `--platform`.
    pub platform: Option<Platform>,
    /// `--network`.
    pub network: String,
    /// `--secret`.
    pub secrets: BTreeMap<String, Given>,
    /// `--ssh`: an agent's socket, or key files.
    pub ssh: BTreeMap<String, Vec<PathBuf>>,
    /// `--allow security.insecure`.
    pub insecure: bool,
    /// `--add-host`.
    pub hosts: Vec<String>,
    /// `--shm-size`, in bytes; 0 is the default.
    pub shm_size: i64,
    /// Limits of every `RUN`.
    pub resources: Resources,
    /// `--security-opt`.
    pub security: Vec<String>,
    /// How registries are spoken to.
    pub registry: RegistryOptions,
    /// `--tag`.
    pub tags: Vec<Reference>,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// In a file.
    File(PathBuf),
    /// In a variable of our own environment.
    Env(String),
}

/// What a build gave.
pub struct Built {
    /// The configuration after each step of the target, the last one the result.
    pub configs: Vec<ImageConfig>,
    /// The layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// The local image that the target began with.
    pub base: Option<Digest>,
    /// What its author may not have meant.
    pub findings: check::Findings,
    /// The configuration of the result, also if no step made it.
    last: ImageConfig,
}

impl Built {
    /// Adds the labels of `--label`, which are of the command and not of any step.
    pub fn label(&mut self, labels: &BTreeMap<String, String>) {
        if labels.is_empty() {
            return;
        }
        if self.configs.is_empty() {
            self.configs.push(self.last.clone());
        }
        if let Some(last) = self.configs.last_mut() {
            last.config.labels.extend(labels.clone());
        }
    }

    /// The id of the image that this is, or would be.
    pub fn id(&self) -> Option<Digest> {
        match self.configs.last() {
            Some(config) => serde_json::to_vec(config).ok().map(|raw| Digest::of(&raw)),
            None => self.base.clone(),
        }
    }
}

/// One build: what all its stages share.
pub(crate) struct Build<'a> {
    host: &'a Host,
    images: Images<'a>,
    lease: &'a Lease<'a>,
    options: &'a Options,
    file: &'a Dockerfile,
    file_name: &'a str,
    globals: &'a Globals,
    context: &'a Context,
    ignore: &'a Ignore,
    named: BTreeMap<String, Context>,
    runtime: Runtime,
    report: &'a dyn Report,
    sandbox: Arc<Sandbox>,
    platform: Platform,
    needed: Vec<bool>,
    steps: usize,
    epoch: Option<i64>,
    /// How images are pulled.
    pull: &'a PullOptions,
    /// What the images of `--cache-from` tell of their steps.
    known: cache::Known,
    board: Board,
    snapshots: source::Snapshots,
}

/// The results of stages, for those who wait.
struct Board {
    slots: Mutex<Vec<Option<State>>>,
    changed: Condvar,
}

/// Builds up to the target; what was made is kept by the lease until it is entered.
///
/// The caller has entered a mount namespace of its own ([`Sandbox::enter`]).
///
/// # Errors
/// The Dockerfile is wrong; a step fails; the user ends it.
pub fn build(
    host: &Host,
    images: Images<'_>,
    lease: &Lease<'_>,
    place: &Place,
    options: &Options,
    report: &dyn Report,
    sandbox: &Arc<Sandbox>,
) -> Result<Built> {
    let project = Project::open(lease, place, options)?;
    let needed = project.needed()?;
    let file = &project.file;
    let platform = project.platform.clone();
    if let Some(why) = project.check(images, options, &needed)?.error() {
        return Err(Error::Invalid(why));
    }
    let count = |(stage, _): (&crate::dockerfile::Stage, &bool)| stage.steps.len() + 1;
    let steps = file
        .stages
        .iter()
        .zip(&needed)
        .filter(|(_, needed)| **needed)
        .map(count)
        .sum();
    let pull = pull_options(options, &platform);
    let known = cache::Known::of(
        &options.cache_from,
        cache::Search {
            images,
            lease,
            options: &pull,
            report,
        },
    )?;
    let build = Build {
        host,
        images,
        lease,
        options,
        file,
        file_name: &project.file_name,
        globals: &project.globals,
        context: &project.context,
        ignore: &project.ignore,
        named: named(lease, options)?,
        runtime: Runtime::find(host, "")?,
        report,
        sandbox: Arc::clone(sandbox),
        platform,
        steps,
        epoch: project.globals.epoch(),
        known,
        pull: &pull,
        board: Board {
            slots: Mutex::new(file.stages.iter().map(|_| None).collect()),
            changed: Condvar::new(),
        },
        needed,
        snapshots: source::Snapshots::default(),
    };
    let state = build.run(project.target)?;
    let unused = project.globals.unused();
    if !unused.is_empty() {
        let list = unused.join(" ");
        report.step(Event::Warning(&format!(
            "[Warning] One or more build-args [{list}] were not consumed"
        )));
    }
    Ok(Built {
        // By now every base image is here.
        findings: project.check(images, options, &build.needed)?,
        layers: build.paths(&state.chains),
        last: state.config,
        configs: state.configs,
        base: state.base,
    })
}

/// The contexts of `--build-context`; images are looked for when a stage wants them.
fn named(lease: &Lease<'_>, options: &Options) -> Result<BTreeMap<String, Context>> {
    let files = options.contexts.iter();
    let files = files.filter(|(_, place)| !place.starts_with("docker-image://"));
    files
        .map(|(name, place)| {
            let context = Context::open(lease, &Place::find(place)?)?;
            Ok((name.to_ascii_lowercase(), context))
        })
        .collect()
}

/// How images for a platform are pulled.
fn pull_options(options: &Options, platform: &Platform) -> PullOptions {
    PullOptions {
        platform: Some(platform.clone()),
        registry: options.registry.clone(),
    }
}

/// The number of the stage to build: by name, by number, else the last.
fn target(file: &Dockerfile, name: Option<&str>) -> Result<usize> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(file.stages.len() - 1);
    };
    stage_of(file, file.stages.len(), name)
        .ok_or_else(|| Error::Invalid(format!("target stage {name:?} could not be found")))
}

/// The stage before `before` that a name or number means; of several with one name the last.
fn stage_of(file: &Dockerfile, before: usize, name: &str) -> Option<usize> {
    let lower = name.to_ascii_lowercase();
    let stages = &file.stages[..before];
    let by_name = stages
        .iter()
        .rposition(|stage| stage.name.as_deref() == Some(&lower));
    by_name.or_else(|| name.parse().ok().filter(|number| *number < before))
}

/// Which stages the target needs.
fn needed(file: &Dockerfile, globals: &Globals, target: usize) -> Result<Vec<bool>> {
    let mut needed = vec![false; file.stages.len()];
    let mut open = vec![target];
    while let Some(at) = open.pop() {
        if std::mem::replace(&mut needed[at], true) {
            continue;
        }
        let stage = &file.stages[at];
        let base = globals
            .expand(&stage.base)
            .map_err(crate::dockerfile::Error::at(stage.line))?;
        // A stage is named by its name alone; a number would be an image's name.
        open.extend(stage_of(file, at, &base).filter(|_| base.parse::<usize>().is_err()));
        for step in &stage.steps {
            let from = |text: &String| {
                // Variables in a source are known only when the stage runs: every stage that
                // they could mean is needed.
                match text.contains('$') {
                    true => (0..at).collect(),
                    false => stage_of(file, at, text).into_iter().collect::<Vec<_>>(),
                }
            };
            match &step.instruction {
                Instruction::Copy(copy) => open.extend(copy.from.iter().flat_map(from)),
                Instruction::Run(run) => {
                    let fields = run.mounts.iter().flat_map(|mount| mount.split(','));
                    let sources = fields.filter_map(|field| field.strip_prefix("from="));
                    open.extend(sources.flat_map(|text| from(&text.to_owned())));
                }
                _ => {}
            }
        }
    }
    Ok(needed)
}

impl Build<'_> {
    /// Runs every needed stage; gives the target's state, or the first error.
    fn run(&self, target: usize) -> Result<State> {
        let stages: Vec<usize> = (0..self.needed.len())
            .filter(|at| self.needed[*at])
            .collect();
        self.report.step(Event::Plan(&stages));
        let first: Mutex<Option<Error>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for at in stages {
                let first = &first;
                scope.spawn(move || {
                    match self.stage(at) {
                        Ok(state) => {
                            self.board.slots.lock().expect("no holder panics")[at] = Some(state)
                        }
                        Err(error) => {
                            let mut first = first.lock().expect("no holder panics");
                            first.get_or_insert(error);
                            drop(first);
                            self.sandbox.cancel();
                        }
                    }
                    // Under the lock, so that nobody misses it between a look and a wait.
                    let _slots = self.board.slots.lock().expect("no holder panics");
                    self.board.changed.notify_all();
                    self.report.step(Event::StageEnd(at));
                });
            }
        });
        if let Some(error) = first.into_inner().expect("no holder panics") {
            return Err(error);
        }
        let mut slots = self.board.slots.lock().expect("no holder panics");
        slots[target].take().ok_or_else(cancelled)
    }

    /// Waits for the result of a stage.
    fn result_of(&self, at: usize) -> Result<State> {
        if !self.needed[at] {
            let why = format!("stage {at} is only named by a trigger, and was not built");
            return Err(Error::Invalid(why));
        }
        let mut slots = self.board.slots.lock().expect("no holder panics");
        loop {
            if let Some(state) = &slots[at] {
                return Ok(state.clone());
            }
            if self.sandbox.is_cancelled() {
                return Err(cancelled());
            }
            slots = self.board.changed.wait(slots).expect("no holder panics");
        }
    }

    /// The `number`th step of a stage, its `FROM` being number 0.
    fn at(&self, stage: usize, number: usize) -> At {
        let before = self.file.stages.iter().zip(&self.needed).take(stage);
        let before = before.filter(|(_, needed)| **needed);
        let before: usize = before.map(|(stage, _)| stage.steps.len() + 1).sum();
        At {
            stage,
            step: before + number + 1,
            steps: self.steps,
        }
    }

    fn paths(&self, chains: &[Digest]) -> Vec<PathBuf> {
        chains
            .iter()
            .map(|chain| self.images.store().layer_path(chain))
            .collect()
    }
}

/// The user, or a stage that failed, ended the build.
fn cancelled() -> Error {
    Error::Invalid("build canceled".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str, target: Option<&str>) -> Result<Vec<bool>> {
        let file = crate::dockerfile::parse(text.as_bytes()).unwrap();
        let globals = Globals::new(
            BTreeMap::new(),
            &Platform::host(),
            "",
            &file.arguments,
            '\\',
        )
        .unwrap();
        needed(&file, &globals, super::target(&file, target)?)
    }

    #[test]
    fn only_the_stages_that_the_target_needs_are_built() {
        let text = "ARG B=one\nFROM x AS one\nFROM x AS two\nRUN y\nFROM x AS three\n\
                    COPY --from=one a b\nRUN --mount=type=bind,from=two,target=/t z\n\
                    FROM $B AS four\nFROM x\nCOPY --from=3 a b";
        let cases: &[(Option<&str>, &[usize])] = &[
            (None, &[0, 3, 4]),
            (Some("three"), &[0, 1, 2]),
            (Some("TWO"), &[1]),
            (Some("0"), &[0]),
        ];
        for (target, want) in cases {
            let got = plan(text, *target).unwrap();
            let got: Vec<usize> = (0..got.len()).filter(|at| got[*at]).collect();
            assert_eq!(got, *want, "{target:?}");
        }
        assert!(plan(text, Some("nosuch")).is_err());
    }
}
