//! Which variables an instruction sees.
//!
//! `ENV` wins over `ARG`. An `ARG` before the first `FROM` is for `FROM` lines, and gives its
//! value to an `ARG` of the same name in a stage. The proxy variables need no `ARG`, and leave no
//! trace in history or cache.
//!
//! Source: docs.docker.com, "Dockerfile reference", section "ARG".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::dockerfile::word::Expand;
use crate::dockerfile::{Instruction, Step};
use crate::image::instruction::env_value;
use crate::image::platform::Platform;

/// Arguments that every build takes without `ARG`.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];
/// An argument with a meaning to the builder itself.
pub const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Arguments with a meaning to BuildKit begin so.
const BUILDKIT: &str = "BUILDKIT_";

/// What was given with `--build-arg`, and what the first `ARG`s say.
#[derive(Debug, Default)]
pub struct Globals {
    given: BTreeMap<String, String>,
    predefined: BTreeMap<String, String>,
    declared: BTreeMap<String, String>,
    escape: char,
    asked: Mutex<BTreeSet<String>>,
}

impl Globals {
    /// Evaluates the `ARG`s before the first `FROM`.
    ///
    /// # Errors
    /// The line, and what is wrong with it.
    pub fn new(
        given: BTreeMap<String, String>,
        platform: &Platform,
        target: &str,
        arguments: &[Step],
        escape: char,
    ) -> Result<Self, crate::dockerfile::Error> {
        let mut predefined = BTreeMap::new();
        for (prefix, platform) in [("BUILD", &Platform::host()), ("TARGET", platform)] {
            let variant = platform.variant.clone().unwrap_or_default();
            let mut whole = format!("{}/{}", platform.os, platform.architecture);
            if !variant.is_empty() {
                whole.push_str(&format!("/{variant}"));
            }
            for (name, value) in [
                ("PLATFORM", whole),
                ("OS", platform.os.clone()),
                ("ARCH", platform.architecture.clone()),
                ("VARIANT", variant),
            ] {
                predefined.insert(format!("{prefix}{name}"), value);
            }
        }
        let target = if target.is_empty() { "default" } else { target };
        predefined.insert("TARGETSTAGE".to_owned(), target.to_owned());
        let mut globals = Self {
            given,
            predefined,
            escape,
            ..Self::default()
        };
        for step in arguments {
            let Instruction::Arg(list) = &step.instruction else {
                continue;
            };
            for (name, default) in list {
                let value = match globals.given(name) {
                    Some(value) => Some(value),
                    None => {
                        let expanded = default.as_deref().map(|text| globals.expand(text));
                        expanded
                            .transpose()
                            .map_err(crate::dockerfile::Error::at(step.line))?
                    }
                };
                if let Some(value) = value.or_else(|| globals.predefined.get(name).cloned()) {
                    globals.declared.insert(name.clone(), value);
                }
            }
        }
        Ok(globals)
    }

    fn given(&self, name: &str) -> Option<String> {
        self.asked
            .lock()
            .expect("no holder panics")
            .insert(name.to_owned());
        self.given.get(name).cloned()
    }

    /// Expands a word of a `FROM` line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn expand(&self, text: &str) -> Result<String, String> {
        self.with(|expand| expand.word(text))
    }

    /// The variables of such a word that have neither a value nor a default.
    pub fn unset(&self, text: &str) -> Vec<String> {
        self.with(|expand| expand.unset(text))
    }

    fn with<T>(&self, f: impl FnOnce(&Expand<'_>) -> T) -> T {
        let lookup = |name: &str| {
            self.declared
                .get(name)
                .or_else(|| self.predefined.get(name))
                .cloned()
        };
        f(&Expand {
            escape: self.escape,
            lookup: &lookup,
        })
    }

    /// What a `FROM` line may name.
    pub fn names(&self) -> BTreeSet<String> {
        let known = self.declared.keys().chain(self.predefined.keys());
        let asked = self.asked.lock().expect("no holder panics");
        known.cloned().chain(asked.iter().cloned()).collect()
    }

    /// Seconds since 1970 that nothing in the image is later than, if the build was told so.
    pub fn epoch(&self) -> Option<i64> {
        self.given(EPOCH)?.parse().ok()
    }

    /// Names given with `--build-arg` that no `ARG` asked for.
    pub fn unused(&self) -> Vec<String> {
        let asked = self.asked.lock().expect("no holder panics");
        let known = |name: &str| {
            asked.contains(name) || PROXIES.contains(&name) || self.predefined.contains_key(name)
        };
        self.given
            .keys()
            .filter(|name| !known(name) && *name != EPOCH && !name.starts_with(BUILDKIT))
            .cloned()
            .collect()
    }
}

/// The arguments of one stage.
#[derive(Clone)]
pub struct Scope<'a> {
    globals: &'a Globals,
    arguments: Vec<(String, String)>,
}

impl<'a> Scope<'a> {
    /// A stage without arguments yet; a stage that begins from another has that one's.
    pub fn new(globals: &'a Globals, inherited: &[(String, String)]) -> Self {
        Self {
            globals,
            arguments: inherited.to_vec(),
        }
    }

    /// The arguments so far.
    pub fn arguments(&self) -> &[(String, String)] {
        &self.arguments
    }

    /// An `ARG` of the stage; gives what history shows of it.
    ///
    /// # Errors
    /// What is wrong with its default.
    pub fn declare(
        &mut self,
        env: &[String],
        name: &str,
        default: Option<&str>,
    ) -> Result<String, String> {
        let name = self.word(env, name)?;
        let default = default.map(|text| self.word(env, text)).transpose()?;
        let globals = self.globals;
        let value = globals
            .given(&name)
            .or(default)
            .or_else(|| globals.declared.get(&name).cloned())
            .or_else(|| globals.predefined.get(&name).cloned());
        let shown = match &value {
            Some(value) => format!("{name}={value}"),
            None => name.clone(),
        };
        if let Some(value) = value {
            self.arguments.retain(|(known, _)| *known != name);
            self.arguments.push((name, value));
        }
        Ok(shown)
    }

    fn lookup(&self, env: &[String], name: &str) -> Option<String> {
        let argument = || {
            let found = self.arguments.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        };
        env_value(env, name).map(str::to_owned).or_else(argument)
    }

    /// Expands a word of the stage.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn word(&self, env: &[String], text: &str) -> Result<String, String> {
        self.with(env, |expand| expand.word(text))
    }

    /// Calls `f` with what expands words of the stage.
    pub fn with<T>(&self, env: &[String], f: impl FnOnce(&Expand<'_>) -> T) -> T {
        let lookup = |name: &str| self.lookup(env, name);
        f(&Expand {
            escape: self.globals.escape,
            lookup: &lookup,
        })
    }

    /// The environment of a `RUN` without the image's own: arguments that no `ENV` covers.
    pub fn run_arguments(&self, env: &[String]) -> Vec<String> {
        let mine = self
            .arguments
            .iter()
            .filter(|(name, _)| env_value(env, name).is_none());
        let mut list: Vec<String> = mine
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        list.sort();
        list
    }

    /// Proxy variables that were given, for the environment alone.
    pub fn proxies(&self) -> Vec<String> {
        let given = PROXIES
            .iter()
            .filter(|name| !self.arguments.iter().any(|(known, _)| known == *name));
        given
            .filter_map(|name| Some(format!("{name}={}", self.globals.given.get(*name)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;

    fn globals(file: &str, given: &[(&str, &str)]) -> Globals {
        let file = parse(file.as_bytes()).unwrap();
        let given = given
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let arm = "linux/arm64/v8".parse().unwrap();
        Globals::new(given, &arm, "", &file.arguments, '\\').unwrap()
    }

    #[test]
    fn the_first_arguments_are_for_from_lines() {
        let globals = globals("ARG V=1\nARG W=$V-x\nARG N\nFROM a", &[("V", "2")]);
        assert_eq!(
            globals.expand("a:$V:$W:$N:$TARGETARCH").unwrap(),
            "a:2:2-x::arm64"
        );
        let mut scope = Scope::new(&globals, &[]);
        assert_eq!(
            scope.word(&[], "[$V$TARGETARCH]").unwrap(),
            "[]",
            "until the stage asks"
        );
        assert_eq!(scope.declare(&[], "V", None).unwrap(), "V=2");
        scope.declare(&[], "TARGETARCH", None).unwrap();
        assert_eq!(scope.word(&[], "[$V$TARGETARCH]").unwrap(), "[2arm64]");
    }

    #[test]
    fn env_wins_over_arg_and_the_command_line_over_a_default() {
        let globals = globals(
            "FROM a",
            &[("A", "given"), ("HTTP_PROXY", "p"), ("LOST", "1")],
        );
        let mut scope = Scope::new(&globals, &[]);
        scope.declare(&[], "A", Some("default")).unwrap();
        scope.declare(&[], "B", Some("${A}2")).unwrap();
        let env = ["A=env".to_owned()];
        assert_eq!(scope.word(&env, "$A $B").unwrap(), "env given2");
        assert_eq!(scope.run_arguments(&env), ["B=given2"]);
        assert_eq!(scope.run_arguments(&[]), ["A=given", "B=given2"]);
        assert_eq!(scope.proxies(), ["HTTP_PROXY=p"]);
        assert_eq!(globals.unused(), ["LOST"]);
    }
}
