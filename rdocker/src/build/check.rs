//! Build checks: what a Dockerfile says that works, and that its author may not mean.
//!
//! Nothing is built for them. Which base images are here tells what their variables are; of others
//! nothing is said. Source: docs.docker.com, "Build checks", and the `# check=` directive of
//! "Dockerfile reference".

use std::collections::{BTreeMap, BTreeSet};

use super::ignore::Ignore;
use super::scope::{Globals, Scope};
use crate::container::merge::DEFAULT_PATH;
use crate::dockerfile::lines::{Line, raw_words, split};
use crate::dockerfile::suggest::nearest;
use crate::dockerfile::{Command, Dockerfile, Error, Instruction, Stage, Transfer};
use crate::image::Reference;
use crate::image::config::ImageConfig;
use crate::image::instruction::{env_value, set_env, workdir};
use crate::image::platform::Platform;

mod rule;
#[cfg(test)]
mod tests;

use rule::Config;
pub use rule::Rule;

/// The build argument that configures checks, as the directive does.
pub const CHECK: &str = "BUILDKIT_DOCKERFILE_CHECK";
/// Words in the name of a variable that is a secret, unless one of the others is there too.
const SECRET: &[&str] = &[
    "APIKEY",
    "AUTH",
    "CREDENTIAL",
    "CREDENTIALS",
    "KEY",
    "PASSWORD",
    "PWORD",
    "PASSWD",
    "SECRET",
    "TOKEN",
];
const NO_SECRET: &[&str] = &["PUBLIC", "FILE", "VERSION"];

/// One thing that is worth a second look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Its kind.
    pub rule: Rule,
    /// What is meant, in BuildKit's words.
    pub message: String,
    /// The lines of the instruction, from 1; both ends count.
    pub lines: (usize, usize),
}

/// What checks look at.
pub struct Subject<'a> {
    /// The Dockerfile's bytes.
    pub source: &'a [u8],
    /// The same, read.
    pub file: &'a Dockerfile,
    /// `--build-arg`.
    pub arguments: &'a BTreeMap<String, String>,
    /// What is built for.
    pub platform: &'a Platform,
    /// Which stages are built: of the others only their form is looked at.
    pub needed: &'a [bool],
    /// What the context leaves out.
    pub ignore: &'a Ignore,
    /// The configuration of an image that is here.
    pub image: &'a dyn Fn(&str) -> Option<ImageConfig>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Findings {
    /// In the order of their lines.
    pub warnings: Vec<Warning>,
    /// Whether the author wants a warning to be an error.
    pub are_errors: bool,
}

impl Findings {
    /// The error that stops a build whose author wants that.
    pub fn error(&self) -> Option<String> {
        if !self.are_errors || self.warnings.is_empty() {
            return None;
        }
        let rules: BTreeSet<String> = self.warnings.iter().map(|one| one.rule.name()).collect();
        let rules: Vec<String> = rules.into_iter().collect();
        Some(format!(
            "lint violation found for rules: {}",
            rules.join(", ")
        ))
    }
}

/// Looks at a whole Dockerfile.
///
/// # Errors
/// The `check` directive is wrong.
pub fn check(subject: &Subject<'_>) -> Result<Findings, Error> {
    let (directives, lines) = split(subject.source)?;
    let wrong = Error::at(1);
    let mut config =
        Config::parse(directives.check.as_deref().unwrap_or_default()).map_err(&wrong)?;
    if let Some(given) = subject.arguments.get(CHECK) {
        config = Config::parse(given).map_err(&wrong)?;
    }
    let globals = |given: BTreeMap<String, String>| {
        let arguments = &subject.file.arguments;
        Globals::new(given, subject.platform, "", arguments, subject.file.escape)
    };
    let (globals, defaults) = (
        globals(subject.arguments.clone())?,
        globals(BTreeMap::new()).ok(),
    );
    let mut checker = Checker {
        subject,
        globals: &globals,
        defaults: defaults.as_ref(),
        config: &config,
        warnings: Vec::new(),
        seen: Vec::new(),
        names: BTreeSet::new(),
    };
    checker.casing(&lines);
    let (mut at, mut step) = (None, 0);
    for line in &lines {
        if let Some(gap) = line.gap {
            let why = "Empty continuation line".to_owned();
            checker.warn_at(line, (gap, gap), Rule::NoEmptyContinuation, why);
        }
        if name_of(line).eq_ignore_ascii_case("FROM") {
            at = Some(at.map_or(0, |at| at + 1));
            step = 0;
            checker.stage(line, at.unwrap_or_default());
            continue;
        }
        let steps = at.map_or(&subject.file.arguments, |at| &subject.file.stages[at].steps);
        let instruction = &steps[step].instruction;
        step += 1;
        match at {
            Some(at) => checker.step(line, at, instruction),
            None => checker.argument(line, instruction),
        }
    }
    let mut warnings = checker.warnings;
    warnings.sort_by_key(|warning| warning.lines);
    Ok(Findings {
        warnings,
        are_errors: config.error,
    })
}

fn name_of(line: &Line) -> &str {
    line.text.split_whitespace().next().unwrap_or_default()
}

/// A stage as far as it was looked at.
#[derive(Clone, Default)]
struct Seen {
    /// The variables; `None` if the base image is not here.
    env: Option<Vec<String>>,
    arguments: Vec<(String, String)>,
    /// Arguments without a value, too.
    declared: BTreeSet<String>,
    has_shell: bool,
    has_workdir: bool,
    /// Where `CMD`, `ENTRYPOINT` and `HEALTHCHECK` were last.
    last: BTreeMap<&'static str, (usize, usize)>,
}

struct Checker<'a> {
    subject: &'a Subject<'a>,
    globals: &'a Globals,
    /// As if no `--build-arg` were given.
    defaults: Option<&'a Globals>,
    config: &'a Config,
    warnings: Vec<Warning>,
    seen: Vec<Seen>,
    /// Names of stages.
    names: BTreeSet<String>,
}

impl Checker<'_> {
    fn warn(&mut self, line: &Line, rule: Rule, message: String) {
        self.warn_at(line, (line.number, line.last), rule, message);
    }

    fn warn_at(&mut self, line: &Line, lines: (usize, usize), rule: Rule, message: String) {
        if self.config.with(&line.comments).wants(rule) {
            self.warnings.push(Warning {
                rule,
                message,
                lines,
            });
        }
    }

    /// Whether most instructions are in capitals, and which are not as most.
    fn casing(&mut self, lines: &[Line]) {
        let is_from = |line: &&Line| name_of(line).eq_ignore_ascii_case("FROM");
        let begin = lines.iter().position(|line| is_from(&line));
        let lines = &lines[begin.unwrap_or_default()..];
        let lower = |name: &str| !name.contains(|c: char| c.is_ascii_uppercase());
        let upper = |name: &str| !name.contains(|c: char| c.is_ascii_lowercase());
        let names = || lines.iter().map(name_of);
        let mostly_lower =
            names().filter(|name| lower(name)).count() > names().filter(|name| upper(name)).count();
        for line in lines {
            let name = name_of(line);
            let (fits, case) = match mostly_lower {
                true => (lower(name), "lowercase"),
                false => (upper(name), "uppercase"),
            };
            if !fits {
                let why = format!(
                    "Command '{name}' should match the case of the command majority ({case})"
                );
                self.warn(line, Rule::ConsistentInstructionCasing, why);
            }
        }
    }

    /// A comment right above that does not begin with the name of what it is about.
    fn description(&mut self, line: &Line, instruction: &str, names: &[&str]) {
        let Some(comment) = line.comments.last() else {
            return;
        };
        let first = comment.split(' ').next().unwrap_or_default();
        if names.is_empty() || names.contains(&first) {
            return;
        }
        let name = if names.len() > 1 {
            "<arg_key>"
        } else {
            names[0]
        };
        let why =
            format!("Comment for {instruction} should follow the format: `# {name} <description>`");
        self.warn(line, Rule::InvalidDefinitionDescription, why);
    }

    fn stage(&mut self, line: &Line, at: usize) {
        let subject = self.subject;
        let stage = &subject.file.stages[at];
        let words: Vec<&str> = line
            .text
            .split_whitespace()
            .filter(|word| !word.starts_with("--"))
            .collect();
        if let [from, _, word, name] = words[..] {
            self.stage_name(line, from, word, name);
        }
        let is_valid = |globals: &Globals| {
            let base = globals.expand(&stage.base).unwrap_or_default();
            Reference::parse(&base).is_ok()
        };
        if self.defaults.is_some_and(|defaults| !is_valid(defaults)) {
            let why = format!(
                "Default value for ARG {} results in empty or invalid base image name",
                stage.base
            );
            self.warn(line, Rule::InvalidDefaultArgInFrom, why);
        }
        let base = self.globals.expand(&stage.base).unwrap_or_default();
        let seen = self.begin(line, stage, at, &base);
        self.seen.push(seen);
        if !subject.needed[at] {
            return;
        }
        self.undeclared(line, &stage.base);
        if let Some(platform) = &stage.platform {
            self.undeclared(line, platform);
            self.platform(line, stage, platform);
        }
    }

    fn stage_name(&mut self, line: &Line, from: &str, word: &str, name: &str) {
        let lower = name.to_ascii_lowercase();
        if name != lower {
            let why = format!("Stage name '{name}' should be lowercase");
            self.warn(line, Rule::StageNameCasing, why);
        }
        let wanted = match from {
            _ if from == from.to_ascii_lowercase() => word.to_ascii_lowercase(),
            _ if from == from.to_ascii_uppercase() => word.to_ascii_uppercase(),
            _ => word.to_owned(),
        };
        if word != wanted {
            let why = format!("'{word}' and '{from}' keywords' casing do not match");
            self.warn(line, Rule::FromAsCasing, why);
        }
        if matches!(&*lower, "context" | "scratch") {
            let why =
                format!("Stage name should not use the same name as reserved stage {lower:?}");
            self.warn(line, Rule::ReservedStageName, why);
        }
        if !self.names.insert(lower.clone()) {
            let why = format!("Duplicate stage name {lower:?}, stage names should be unique");
            self.warn(line, Rule::DuplicateStageName, why);
        }
        self.description(line, "FROM", &[&lower]);
    }

    /// What a stage begins with.
    fn begin(&mut self, line: &Line, stage: &Stage, at: usize, base: &str) -> Seen {
        let path = || vec![format!("PATH={DEFAULT_PATH}")];
        if base == "scratch" {
            return Seen {
                env: Some(path()),
                ..Seen::default()
            };
        }
        if let Some(earlier) = super::stage_of(self.subject.file, at, base)
            && base.parse::<usize>().is_err()
        {
            return Seen {
                last: BTreeMap::new(),
                ..self.seen[earlier].clone()
            };
        }
        let Some(image) = (self.subject.image)(base) else {
            return Seen::default();
        };
        let platform = match &stage.platform {
            Some(text) => self.globals.expand(text).ok().and_then(|t| t.parse().ok()),
            None => Some(self.subject.platform.clone()),
        };
        let other =
            |want: &Platform| want.os != image.os || want.architecture != image.architecture;
        if let Some(want) = platform.filter(other) {
            let why = format!(
                "Base image {base} was pulled with platform \"{}/{}\", expected \"{}/{}\" for \
                 current build",
                image.os, image.architecture, want.os, want.architecture
            );
            self.warn(line, Rule::InvalidBaseImagePlatform, why);
        }
        let mut env = image.config.env;
        if env_value(&env, "PATH").is_none() {
            env.extend(path());
        }
        Seen {
            env: Some(env),
            has_shell: image.config.shell.is_some_and(|shell| !shell.is_empty()),
            ..Seen::default()
        }
    }

    /// Variables of a `FROM` line that no `ARG` above declares.
    fn undeclared(&mut self, line: &Line, text: &str) {
        let names = self.globals.names();
        let unset = self.globals.unset(text);
        for name in unset {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            if names.contains(&name.as_str()) {
                continue;
            }
            let hint = did_you_mean("", nearest(&name, &names));
            let why = format!("FROM argument '{name}' is not declared{hint}");
            self.warn(line, Rule::UndefinedArgInFrom, why);
        }
    }

    fn platform(&mut self, line: &Line, stage: &Stage, text: &str) {
        if matches!(text, "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
            let why = format!(
                "Setting platform to predefined {text} in FROM is redundant as this is the \
                 default behavior"
            );
            self.warn(line, Rule::RedundantTargetPlatform, why);
        }
        let Ok(platform) = text.parse::<Platform>() else {
            return;
        };
        let name = stage.name.as_deref().unwrap_or_default();
        let is_named = [&platform.os, &platform.architecture]
            .iter()
            .any(|part| name.contains(part.as_str()));
        if !text.contains('$') && !is_named {
            let why = format!("FROM --platform flag should not use constant value {text:?}");
            self.warn(line, Rule::FromPlatformFlagConstDisallowed, why);
        }
    }

    /// An `ARG` before the first stage.
    fn argument(&mut self, line: &Line, instruction: &Instruction) {
        if let Instruction::Arg(list) = instruction {
            let names: Vec<&str> = list.iter().map(|(name, _)| name.as_str()).collect();
            self.description(line, "ARG", &names);
        }
    }

    fn step(&mut self, line: &Line, at: usize, instruction: &Instruction) {
        if let Instruction::Arg(list) = instruction {
            let names: Vec<&str> = list.iter().map(|(name, _)| name.as_str()).collect();
            self.description(line, "ARG", &names);
        }
        if let Instruction::Maintainer(_) = instruction {
            let why = "Maintainer instruction is deprecated in favor of using label".to_owned();
            self.warn(line, Rule::MaintainerDeprecated, why);
        }
        if !self.subject.needed[at] {
            return;
        }
        self.undefined(line, at, instruction);
        match instruction {
            Instruction::Cmd(command) | Instruction::Entrypoint(command) => {
                self.once(line, at, instruction.name());
                if matches!(command, Command::Shell(_)) && !self.seen[at].has_shell {
                    let why = format!(
                        "JSON arguments recommended for {} to prevent unintended behavior related \
                         to OS signals",
                        instruction.name()
                    );
                    self.warn(line, Rule::JSONArgsRecommended, why);
                }
            }
            Instruction::Healthcheck(_) => self.once(line, at, instruction.name()),
            Instruction::Shell(_) => self.seen[at].has_shell = true,
            Instruction::Env(_) | Instruction::Label(_) => self.legacy(line, instruction.name()),
            Instruction::Workdir(path) => self.workdir(line, at, path),
            Instruction::Expose(ports) => self.expose(line, at, ports),
            Instruction::Copy(transfer) => self.ignored(line, at, transfer, "Copy"),
            Instruction::Add(transfer) => self.ignored(line, at, transfer, "Add"),
            _ => {}
        }
        self.learn(line, at, instruction);
    }

    fn once(&mut self, line: &Line, at: usize, name: &'static str) {
        let here = (line.number, line.last);
        if let Some(before) = self.seen[at].last.insert(name, here) {
            let why = format!(
                "Multiple {name} instructions should not be used in the same stage because only \
                 the last one will be used"
            );
            self.warn_at(line, before, Rule::MultipleInstructionsDisallowed, why);
        }
    }

    fn legacy(&mut self, line: &Line, name: &str) {
        let words = raw_words(&line.text, self.subject.file.escape);
        if words.get(1).is_some_and(|word| !word.contains('=')) {
            let why = format!(
                "\"{name} key=value\" should be used instead of legacy \"{name} key value\" format"
            );
            self.warn(line, Rule::LegacyKeyValueFormat, why);
        }
    }

    fn workdir(&mut self, line: &Line, at: usize, path: &str) {
        // What the variables of an unknown image are is anybody's guess.
        let known = self.seen[at].env.is_some() || !path.contains('$');
        let whole = self.expand(at, path);
        if known && !self.seen[at].has_workdir && !whole.starts_with('/') {
            let why = format!(
                "Relative workdir {whole:?} can have unexpected results if the base image changes"
            );
            self.warn(line, Rule::WorkdirRelativePath, why);
        }
        self.seen[at].has_workdir = true;
    }

    fn expose(&mut self, line: &Line, at: usize, ports: &[String]) {
        for text in ports {
            let text = self.expand(at, text);
            let (port, protocol) = text.split_once('/').unwrap_or((&text, ""));
            if protocol != protocol.to_ascii_lowercase() {
                let why =
                    format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
                self.warn(line, Rule::ExposeProtoCasing, why);
            }
            if port.contains(':') {
                let why = format!(
                    "EXPOSE instruction should not define an IP address or host-port mapping, \
                     found '{text}'"
                );
                self.warn(line, Rule::ExposeInvalidFormat, why);
            }
        }
    }

    /// Sources that `.dockerignore` leaves out. With `!` in it that cannot be told beforehand.
    fn ignored(&mut self, line: &Line, at: usize, transfer: &Transfer, verb: &str) {
        let ignore = self.subject.ignore;
        if transfer.from.is_some() || ignore.is_empty() || ignore.takes_back() {
            return;
        }
        for source in &transfer.sources {
            let path = workdir("/", &self.expand(at, source));
            let path = path.trim_matches('/');
            let is_remote = source.contains("://") || source.starts_with("git@");
            if !path.is_empty() && !is_remote && ignore.matches(path) {
                let why =
                    format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
                self.warn(line, Rule::CopyIgnoredFile, why);
            }
        }
    }

    /// Variables that nothing above defines.
    fn undefined(&mut self, line: &Line, at: usize, instruction: &Instruction) {
        let seen = &self.seen[at];
        let Some(env) = &seen.env else { return };
        let scope = Scope::new(self.globals, &seen.arguments);
        let mut unset: BTreeSet<String> = BTreeSet::new();
        scope.with(env, |expand| {
            unset.extend(
                words(instruction)
                    .iter()
                    .flat_map(|word| expand.unset(word)),
            );
            if let Instruction::Copy(transfer) | Instruction::Add(transfer) = instruction {
                let texts = transfer.heredocs.iter().filter(|text| text.expand);
                unset.extend(texts.flat_map(|text| expand.unset_in_text(&text.content)));
            }
        });
        unset.retain(|name| !seen.declared.contains(name));
        let known = env.iter().filter_map(|line| line.split('=').next());
        let known = known.chain(seen.declared.iter().map(String::as_str));
        let known: Vec<String> = known.map(str::to_owned).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        for name in unset {
            // `$1` and `$?` are the shell's, not ours.
            if !name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic()) {
                continue;
            }
            let hint = did_you_mean("$", nearest(&name, &known));
            let why = format!("Usage of undefined variable '${name}'{hint}");
            self.warn(line, Rule::UndefinedVar, why);
        }
    }

    fn secret(&mut self, line: &Line, instruction: &str, name: &str) {
        let upper = name.to_ascii_uppercase();
        let has = |list: &[&str]| upper.split('_').any(|word| list.contains(&word));
        if has(SECRET) && !has(NO_SECRET) {
            let why = format!(
                "Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})"
            );
            self.warn(line, Rule::SecretsUsedInArgOrEnv, why);
        }
    }

    /// What the instruction defines for those below it.
    fn learn(&mut self, line: &Line, at: usize, instruction: &Instruction) {
        match instruction {
            Instruction::Arg(list) => {
                for (name, default) in list {
                    self.secret(line, "ARG", name);
                    let seen = &mut self.seen[at];
                    let env = seen.env.clone().unwrap_or_default();
                    let mut scope = Scope::new(self.globals, &seen.arguments);
                    // A default that is wrong is the build's to tell.
                    let _ = scope.declare(&env, name, default.as_deref());
                    seen.arguments = scope.arguments().to_vec();
                    seen.declared.insert(name.clone());
                }
            }
            Instruction::Env(pairs) => {
                let values: Vec<(String, String)> = pairs
                    .iter()
                    .map(|(name, value)| (self.expand(at, name), self.expand(at, value)))
                    .collect();
                for (name, value) in values {
                    self.secret(line, "ENV", &name);
                    if let Some(env) = &mut self.seen[at].env {
                        set_env(env, &name, &value);
                    }
                }
            }
            _ => {}
        }
    }

    fn expand(&self, at: usize, text: &str) -> String {
        let seen = &self.seen[at];
        let scope = Scope::new(self.globals, &seen.arguments);
        let env = seen.env.as_deref().unwrap_or_default();
        scope.word(env, text).unwrap_or_else(|_| text.to_owned())
    }
}

fn did_you_mean(mark: &str, word: Option<&str>) -> String {
    word.map(|word| format!(" (did you mean {mark}{word}?)"))
        .unwrap_or_default()
}

/// The words of an instruction in which variables are replaced.
fn words(instruction: &Instruction) -> Vec<&str> {
    let mut words: Vec<&str> = Vec::new();
    match instruction {
        Instruction::Add(transfer) | Instruction::Copy(transfer) => {
            words.extend(transfer.sources.iter().map(String::as_str));
            words.push(&transfer.target);
            let flags = [&transfer.chown, &transfer.chmod, &transfer.from];
            words.extend(flags.into_iter().flatten().map(String::as_str));
            words.extend(transfer.checksum.as_deref());
            words.extend(transfer.exclude.iter().map(String::as_str));
        }
        Instruction::Arg(list) => {
            words.extend(list.iter().filter_map(|(_, value)| value.as_deref()))
        }
        Instruction::Env(pairs) | Instruction::Label(pairs) => {
            for (key, value) in pairs {
                words.extend([key.as_str(), value.as_str()]);
            }
        }
        Instruction::Expose(list) | Instruction::Volume(list) => {
            words.extend(list.iter().map(String::as_str));
        }
        Instruction::Run(run) => words.extend(run.mounts.iter().map(String::as_str)),
        Instruction::Stopsignal(text) | Instruction::User(text) | Instruction::Workdir(text) => {
            words.push(text);
        }
        Instruction::Cmd(_)
        | Instruction::Entrypoint(_)
        | Instruction::Healthcheck(_)
        | Instruction::Maintainer(_)
        | Instruction::Onbuild(_)
        | Instruction::Shell(_) => {}
    }
    words
}
