//! One stage: from its base through its instructions to its last state.

use super::cache::{self, Outcome};
use super::key::Key;
use super::remote::without_secrets;
use super::report::{At, Event};
use super::scope::Scope;
use super::source::Root;
use super::{Build, cancelled, pull_options, stage_of};
use crate::container::identity::Accounts;
use crate::container::merge::DEFAULT_PATH;
use crate::dockerfile::{Instruction, Stage, Step, instruction};
use crate::error::{Error, Result};
use crate::image::config::{History, ImageConfig, chain_id};
use crate::image::instruction::{change, command_line, env_value, set_env, workdir};
use crate::image::layer::files::open_in_root;
use crate::image::platform::Platform;
use crate::image::{Image, Reference};
use crate::store::digest::Digest;

/// A stage after some of its steps.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// What the image would be now.
    pub config: ImageConfig,
    /// The layers' chain ids, lowest first.
    pub chains: Vec<Digest>,
    /// The local image at the bottom.
    pub base: Option<Digest>,
    /// The configuration after each step of this stage.
    pub configs: Vec<ImageConfig>,
    /// Arguments that a stage on top of this one has too.
    pub arguments: Vec<(String, String)>,
}

impl State {
    fn new(image: &Image) -> Self {
        Self {
            config: image.config.clone(),
            chains: image
                .layers
                .iter()
                .map(|layer| layer.chain.clone())
                .collect(),
            base: Some(image.id.clone()),
            ..Self::default()
        }
    }

    /// The id that an image of this state has.
    pub fn id(&self) -> Digest {
        Digest::of(&serde_json::to_vec(&self.config).unwrap_or_default())
    }
}

/// A stage at work.
pub(super) struct Work<'b, 'a> {
    pub build: &'b Build<'a>,
    pub index: usize,
    pub state: State,
    pub scope: Scope<'b>,
    /// `CMD` was set in this stage, so `ENTRYPOINT` leaves it alone.
    has_command: bool,
    use_cache: bool,
}

/// What a step with files has to say before it runs.
pub(super) struct Plan<'p> {
    /// Its key.
    pub key: Digest,
    /// What history shows.
    pub created_by: &'p str,
}

impl Build<'_> {
    /// Runs a stage to its end.
    pub(super) fn stage(&self, index: usize) -> Result<State> {
        let stage = &self.file.stages[index];
        let at = self.at(index, 0);
        self.report.step(Event::Step(at, &stage.text));
        let state = self
            .begin(index, stage)
            .map_err(|error| self.locate(stage.line, &stage.text, error))?;
        self.report.step(Event::Done(at, state.id().short()));
        let filtered = stage
            .name
            .as_ref()
            .is_some_and(|name| self.options.no_cache_stages.contains(name));
        let mut work = Work {
            build: self,
            index,
            scope: Scope::new(self.globals, &state.arguments),
            state,
            has_command: false,
            use_cache: !self.options.no_cache && !filtered,
        };
        work.triggers(stage, at)?;
        for (number, step) in stage.steps.iter().enumerate() {
            let at = self.at(index, number + 1);
            self.report.step(Event::Step(at, &step.text));
            work.step(at, step).map_err(|error| {
                self.report.step(Event::Failed(at));
                self.locate(step.line, &step.text, error)
            })?;
            self.report.step(Event::Done(at, work.state.id().short()));
        }
        work.state.arguments = work.scope.arguments().to_vec();
        Ok(work.state)
    }

    fn locate(&self, line: usize, text: &str, source: Error) -> Error {
        Error::Step {
            file: self.file_name.to_owned(),
            line,
            instruction: without_secrets(text),
            source: Box::new(source),
        }
    }

    fn begin(&self, index: usize, stage: &Stage) -> Result<State> {
        let base = self.globals.expand(&stage.base).map_err(Error::Invalid)?;
        if base.is_empty() {
            return Err(Error::Invalid(format!(
                "base name ({}) should not be blank",
                stage.base
            )));
        }
        let platform = match &stage.platform {
            Some(text) => self.globals.expand(text).map_err(Error::Invalid)?.parse()?,
            None => self.platform.clone(),
        };
        let earlier = stage_of(self.file, index, &base).filter(|_| base.parse::<usize>().is_err());
        let mut state = match earlier {
            // Its steps are steps on the way to this stage's image too.
            Some(at) => self.result_of(at)?,
            None => self.base_state(&base, &platform)?,
        };
        // Docker's images always name a PATH, also those from scratch.
        let env = &mut state.config.config.env;
        if env_value(env, "PATH").is_none() {
            set_env(env, "PATH", DEFAULT_PATH);
        }
        if let Some(epoch) = self.epoch
            && state.chains.is_empty()
        {
            state.config.created = Some(rfc3339(epoch));
        }
        Ok(state)
    }

    /// The state that an image begins with: found here, or pulled.
    pub(super) fn base_state(&self, name: &str, platform: &Platform) -> Result<State> {
        if name == "scratch" {
            let config = ImageConfig {
                architecture: platform.architecture.clone(),
                variant: platform.variant.clone(),
                os: platform.os.clone(),
                ..ImageConfig::default()
            };
            return Ok(State {
                config,
                ..State::default()
            });
        }
        let image = self.find_or_pull(name, platform)?;
        for layer in &image.layers {
            let kept = self.images.store().keep_layer(self.lease, &layer.chain)?;
            kept.ok_or_else(|| {
                Error::Image(crate::image::Error::NoSuchImage {
                    name: name.to_owned(),
                })
            })?;
        }
        Ok(State::new(&image))
    }

    fn find_or_pull(&self, name: &str, platform: &Platform) -> Result<Image> {
        let place = self.options.contexts.get(&name.to_ascii_lowercase());
        let name = place
            .and_then(|place| place.strip_prefix("docker-image://"))
            .unwrap_or(name);
        let fits = |image: &Image| {
            let has = Platform {
                os: image.config.os.clone(),
                architecture: image.config.architecture.clone(),
                variant: image.config.variant.clone(),
                os_version: None,
            };
            platform.rank(&has).is_some()
        };
        let local = self.images.resolve(name);
        if let Ok(image) = local
            && !self.options.pull
            && (fits(&image) || self.options.platform.is_none())
        {
            return Ok(image);
        }
        let reference = Reference::parse(name)
            .map_err(crate::image::Error::from)?
            .or_latest();
        let options = pull_options(self.options, platform);
        self.images.pull(&reference, &options, self.report)?;
        Ok(self.images.resolve(name)?)
    }
}

/// Seconds since 1970 as history writes them.
fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .unwrap_or_default()
        .to_string()
}

impl Work<'_, '_> {
    /// What the base image wants done in every image that begins with it.
    fn triggers(&mut self, stage: &Stage, at: At) -> Result<()> {
        let triggers = std::mem::take(&mut self.state.config.config.on_build);
        if triggers.is_empty() {
            return Ok(());
        }
        let count = triggers.len();
        let plural = if count == 1 { "" } else { "s" };
        self.build.report.step(Event::Note(
            at,
            &format!("# Executing {count} build trigger{plural}"),
        ));
        for text in triggers {
            let wrong = |why| {
                self.build
                    .locate(stage.line, &format!("ONBUILD {text}"), Error::Invalid(why))
            };
            let instruction = instruction(&text, self.build.file.escape).map_err(wrong)?;
            let step = Step {
                line: stage.line,
                text: text.clone(),
                instruction,
            };
            self.step(at, &step).map_err(|error| {
                self.build
                    .locate(stage.line, &format!("ONBUILD {text}"), error)
            })?;
        }
        Ok(())
    }

    /// The image's environment now.
    pub(super) fn env(&self) -> &[String] {
        &self.state.config.config.env
    }

    /// Expands variables in a word.
    pub(super) fn word(&self, text: &str) -> Result<String> {
        self.scope.word(self.env(), text).map_err(Error::Invalid)
    }

    fn step(&mut self, at: At, step: &Step) -> Result<()> {
        if self.build.sandbox.is_cancelled() {
            return Err(cancelled());
        }
        match &step.instruction {
            Instruction::Run(run) => self.run(at, run),
            Instruction::Copy(transfer) => self.transfer(at, step, transfer),
            Instruction::Add(transfer) => self.transfer(at, step, transfer),
            Instruction::Workdir(path) => self.workdir(at, path),
            Instruction::Arg(list) => {
                let mut shown = Vec::new();
                for (name, default) in list {
                    let env = self.state.config.config.env.clone();
                    let one = self.scope.declare(&env, name, default.as_deref());
                    shown.push(one.map_err(Error::Invalid)?);
                }
                self.metadata(at, &format!("ARG {}", shown.join(" ")))
            }
            other => self.configure(at, step, other),
        }
    }

    /// An instruction that changes the configuration alone.
    fn configure(&mut self, at: At, step: &Step, instruction: &Instruction) -> Result<()> {
        let env = self.state.config.config.env.clone();
        let config = &mut self.state.config;
        let kept = config.config.cmd.clone();
        let changed = self.scope.with(&env, |expand| {
            change(&mut config.config, instruction, expand)
        });
        changed.map_err(Error::Invalid)?;
        let shown = match instruction {
            Instruction::Cmd(command) => {
                self.has_command = true;
                format!(
                    "CMD {}",
                    json(&command_line(command, &self.state.config.config))
                )
            }
            Instruction::Entrypoint(command) => {
                if self.has_command {
                    self.state.config.config.cmd = kept;
                }
                format!(
                    "ENTRYPOINT {}",
                    json(&command_line(command, &self.state.config.config))
                )
            }
            Instruction::Maintainer(author) => {
                self.state.config.author = Some(author.clone());
                format!("MAINTAINER {author}")
            }
            Instruction::Env(pairs) | Instruction::Label(pairs) => {
                let mut shown = vec![instruction.name().to_owned()];
                for (key, value) in pairs {
                    let word = |text: &str| self.scope.word(&env, text).map_err(Error::Invalid);
                    shown.push(format!("{}={}", word(key)?, word(value)?));
                }
                shown.join(" ")
            }
            _ => {
                let (_, rest) = step
                    .text
                    .split_once(char::is_whitespace)
                    .unwrap_or(("", ""));
                format!("{} {}", instruction.name(), rest.trim())
            }
        };
        self.metadata(at, &shown)
    }

    /// Ends a step without files. Its key is what it led to.
    fn metadata(&mut self, at: At, created_by: &str) -> Result<()> {
        let mut key = self.key("metadata");
        key.text(&serde_json::to_string(&self.state.config.config).unwrap_or_default());
        key.text(self.state.config.author.as_deref().unwrap_or_default());
        key.text(created_by);
        let plan = Plan {
            key: key.finish(),
            created_by,
        };
        if self.cached(at, &plan)? {
            return Ok(());
        }
        self.finish(&plan, None)
    }

    /// A key that begins with everything below.
    pub(super) fn key(&self, kind: &str) -> Key {
        let mut key = Key::new(kind);
        key.text(
            &self
                .state
                .chains
                .last()
                .map(Digest::to_string)
                .unwrap_or_default(),
        );
        let config = &self.state.config;
        for text in [
            &config.os,
            &config.architecture,
            config.variant.as_ref().unwrap_or(&String::new()),
        ] {
            key.text(text);
        }
        key.number(self.build.epoch.unwrap_or(-1).cast_unsigned());
        key
    }

    /// Takes the step's result from the cache, if it is there.
    pub(super) fn cached(&mut self, at: At, plan: &Plan<'_>) -> Result<bool> {
        if !self.use_cache {
            return Ok(false);
        }
        let build = self.build;
        let Some(outcome) = cache::find(build.lease, &plan.key)? else {
            return self.known(at, plan);
        };
        if let Some(diff_id) = &outcome.diff_id {
            let paths = build.paths(&self.state.chains);
            let below = self.state.chains.last();
            let chain = build.images.stack(build.lease, diff_id, below, &paths)?;
            self.state.chains.push(chain);
        }
        build.report.step(Event::Cached(at));
        self.record(plan, &outcome);
        Ok(true)
    }

    /// Takes the step's result from an image of `--cache-from`, if one has it.
    fn known(&mut self, at: At, plan: &Plan<'_>) -> Result<bool> {
        let build = self.build;
        let Some((outcome, origin)) = build.known.find(&plan.key) else {
            return Ok(false);
        };
        if let Some(diff_id) = &outcome.diff_id {
            // The key says what is below, so the layer is there if the image is.
            let chain = chain_id(self.state.chains.last(), diff_id);
            let store = build.images.store();
            let mut kept = store.keep_layer(build.lease, &chain)?;
            if let (None, Some(origin)) = (kept, origin) {
                let search = cache::Search {
                    images: build.images,
                    lease: build.lease,
                    options: build.pull,
                    report: build.report,
                };
                build.known.fetch(*origin, search)?;
                kept = store.keep_layer(build.lease, &chain)?;
            }
            if kept.is_none() {
                return Ok(false);
            }
            self.state.chains.push(chain);
        }
        build.report.step(Event::Cached(at));
        self.record(plan, outcome);
        Ok(true)
    }

    /// Makes a layer of what the step changed, and remembers it.
    pub(super) fn finish(
        &mut self,
        plan: &Plan<'_>,
        upper: Option<&std::path::Path>,
    ) -> Result<()> {
        let build = self.build;
        let mut outcome = Outcome {
            diff_id: None,
            created: self.created(),
        };
        if let Some(upper) = upper {
            if let Some(epoch) = build.epoch {
                let dir = super::context::open_directory(upper)?;
                super::tree::clamp_times(&dir, epoch)
                    .map_err(|errno| Error::host("set times below", upper, errno))?;
            }
            let below = self.state.chains.last();
            if let Some(sealed) = build.images.seal(build.lease, upper, below)? {
                outcome.diff_id = Some(sealed.diff_id);
                self.state.chains.push(sealed.chain);
            }
        }
        let chain = outcome.diff_id.as_ref().and(self.state.chains.last());
        let text = without_secrets(plan.created_by);
        cache::remember(build.images.store(), &plan.key, &outcome, chain, &text)?;
        self.record(plan, &outcome);
        Ok(())
    }

    fn created(&self) -> String {
        self.build
            .epoch
            .map_or_else(crate::image::create::now, rfc3339)
    }

    fn record(&mut self, plan: &Plan<'_>, outcome: &Outcome) {
        let config = &mut self.state.config;
        config.rootfs.diff_ids.extend(outcome.diff_id.clone());
        config.created = Some(outcome.created.clone());
        config.history.push(History {
            created: Some(outcome.created.clone()),
            created_by: Some(without_secrets(plan.created_by)),
            comment: Some(cache::comment(&plan.key)),
            empty_layer: outcome.diff_id.is_none(),
            ..History::default()
        });
        // Of the base's, and wrong from the first step on.
        config.container = None;
        config.comment = None;
        config.docker_version = None;
        let snapshot = self.state.config.clone();
        self.state.configs.push(snapshot);
    }

    /// `WORKDIR` makes the directory, owned by the image's user.
    fn workdir(&mut self, at: At, path: &str) -> Result<()> {
        let path = self.word(path)?;
        let whole = workdir(&self.state.config.config.working_dir, &path);
        self.state.config.config.working_dir.clone_from(&whole);
        let user = self.state.config.config.user.clone();
        let created_by = format!("WORKDIR {whole}");
        let mut key = self.key("workdir");
        key.list(&[&whole, &user]);
        let plan = Plan {
            key: key.finish(),
            created_by: &created_by,
        };
        if self.cached(at, &plan)? {
            return Ok(());
        }
        let root = Root::mount(self.build, &self.build.paths(&self.state.chains))?;
        let inside = whole.trim_start_matches('/').as_bytes();
        if open_in_root(
            std::os::fd::AsFd::as_fd(&root.fd),
            inside,
            rustix::fs::OFlags::PATH,
        )
        .is_err()
        {
            let id = Accounts::read(&root.path())?.resolve(&user, &[])?;
            super::tree::make_dirs(std::os::fd::AsFd::as_fd(&root.fd), inside, (id.uid, id.gid))?;
        }
        let upper = root.finish()?;
        self.finish(&plan, Some(&upper))
    }
}

/// A list as history shows it.
fn json(list: &[String]) -> String {
    serde_json::to_string(list).unwrap_or_default()
}
