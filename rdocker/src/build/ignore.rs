//! `.dockerignore`: which files of a context a build does not see.
//!
//! The last pattern that fits a path, or a directory above it, decides; `!` takes back. Source:
//! docs.docker.com, "Build context", section ".dockerignore files".

use super::glob::Glob;
use crate::image::instruction::workdir;

/// The patterns of one file, or of `--exclude` flags.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    glob: Glob,
    takes_back: bool,
}

impl Ignore {
    /// Reads the file's text.
    ///
    /// # Errors
    /// A pattern that is none, with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut ignore = Self::default();
        for (at, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            ignore
                .push(line.trim())
                .map_err(|why| format!(".dockerignore line {}: {why}", at + 1))?;
        }
        Ok(ignore)
    }

    /// The patterns of `--exclude`.
    ///
    /// # Errors
    /// A pattern that is none.
    pub fn from_patterns(patterns: &[String]) -> Result<Self, String> {
        let mut ignore = Self::default();
        for pattern in patterns {
            ignore.push(pattern)?;
        }
        Ok(ignore)
    }

    fn push(&mut self, text: &str) -> Result<(), String> {
        let (takes_back, text) = match text.strip_prefix('!') {
            Some("") => return Err("illegal exclusion pattern: \"!\"".to_owned()),
            Some(text) => (true, text.trim()),
            None => (false, text),
        };
        // Cleaned like a path: no slash at the ends, no `.`, and no `..` that leads out.
        let clean = workdir("/", text);
        let glob = Glob::new(clean.trim_start_matches('/'))?;
        self.patterns.push(Pattern { glob, takes_back });
        Ok(())
    }

    /// Whether nothing is ignored.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether something below an ignored directory may be taken back.
    pub fn takes_back(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.takes_back)
    }

    /// Whether the path, relative and without a slash at its ends, is ignored.
    pub fn matches(&self, path: &str) -> bool {
        if path.is_empty() {
            return false;
        }
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        let candidates: Vec<&str> = above.chain([path]).collect();
        let mut ignored = false;
        for pattern in &self.patterns {
            if pattern.takes_back == ignored
                && candidates.iter().any(|path| pattern.glob.matches(path))
            {
                ignored = !pattern.takes_back;
            }
        }
        ignored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pattern_that_fits_decides() {
        let cases: &[(&str, &str, bool)] = &[
            ("a", "a", true),
            ("a", "a/b/c", true),
            ("a", "b/a", false),
            ("/a/", "a/b", true),
            ("./a", "a", true),
            ("**/a", "b/a", true),
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README.md", "x.md", true),
            (
                "*.md\n!README*.md\nREADME-secret.md",
                "README-secret.md",
                true,
            ),
            (
                "*.md\nREADME-secret.md\n!README*.md",
                "README-secret.md",
                false,
            ),
            ("dir\n!dir/keep", "dir/keep", false),
            ("dir\n!dir/keep", "dir/other", true),
            ("*\n!a", "a/b", false),
            ("*\n!a", "c", true),
            ("# a\n#b\n\n  c  \n", "c", true),
            ("# a", "a", false),
            ("../a", "a", true),
            ("a/../b", "b", true),
            ("*/temp*", "x/temporary", true),
            ("*/*/temp*", "x/y/temp", true),
            ("temp?", "tempa", true),
            ("!a", "a", false),
            ("", "a", false),
        ];
        for (text, path, want) in cases {
            assert_eq!(
                Ignore::parse(text).unwrap().matches(path),
                *want,
                "{text:?} {path}"
            );
        }
        assert!(
            Ignore::parse("a\n!")
                .unwrap_err()
                .contains("line 2: illegal exclusion pattern")
        );
        assert!(Ignore::parse("[").is_err());
    }
}
