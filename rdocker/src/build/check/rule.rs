//! Which rules there are, and which of them an author wants.

use std::collections::BTreeSet;

/// One kind of warning; its name is what `skip=` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are those of Docker's documentation")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JSONArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

impl Rule {
    /// Its name.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// The page that explains it.
    pub fn url(self) -> Option<String> {
        if self == Self::InvalidBaseImagePlatform {
            return None;
        }
        let name = self.name().replace("JSON", "Json");
        let mut page = String::new();
        for c in name.chars() {
            if c.is_ascii_uppercase() && !page.is_empty() {
                page.push('-');
            }
            page.push(c.to_ascii_lowercase());
        }
        Some(format!(
            "https://docs.docker.com/go/dockerfile/rule/{page}/"
        ))
    }
}

/// `skip=…;error=…;experimental=…`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Config {
    skip: BTreeSet<String>,
    experimental: BTreeSet<String>,
    /// Whether a warning is an error.
    pub(super) error: bool,
}

impl Config {
    /// # Errors
    /// An option that is none, or an answer that is neither yes nor no.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut config = Self::default();
        for part in text.split(';').filter(|part| !part.trim().is_empty()) {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("invalid check option {part:?}"))?;
            let rules = || {
                value
                    .split(',')
                    .map(|rule| rule.trim().to_owned())
                    .collect()
            };
            match key.trim() {
                "skip" => config.skip = rules(),
                "experimental" => config.experimental = rules(),
                "error" => {
                    config.error = match value.trim() {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        _ => return Err(format!("failed to parse check option {part:?}")),
                    }
                }
                other => return Err(format!("invalid check option {other:?}")),
            }
        }
        Ok(config)
    }

    /// With what the comment above an instruction says.
    pub(super) fn with(&self, comments: &[String]) -> Self {
        let mut config = self.clone();
        for comment in comments {
            let Some((name, value)) = comment.split_once('=') else {
                continue;
            };
            let value = value.split_whitespace().next().unwrap_or_default();
            if name.trim() == "check"
                && let Ok(more) = Self::parse(value)
            {
                config.skip.extend(more.skip);
                config.experimental.extend(more.experimental);
            }
        }
        config
    }

    /// Whether the author hears of `rule`.
    pub(super) fn wants(&self, rule: Rule) -> bool {
        let names = |set: &BTreeSet<String>| set.contains("all") || set.contains(&rule.name());
        match rule {
            Rule::InvalidDefinitionDescription => names(&self.experimental),
            _ => !names(&self.skip),
        }
    }
}
