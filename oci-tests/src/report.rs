//! Runs the requirements and presents the verdicts: TAP, a table, a summary.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde::Deserialize;

use crate::lab::Lab;
use crate::requirement::{Check, Requirement, Why};

/// What came of one requirement for one runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    Fail(String),
    /// This machine cannot tell.
    Skip(String),
    NotTestable(&'static str),
}

impl Outcome {
    /// Judges one requirement.
    pub fn of(requirement: &Requirement, lab: &Lab) -> Self {
        match (requirement.judge(lab), requirement.check) {
            (_, Check::NotTestable(reason)) => Self::NotTestable(reason),
            (Some(Ok(())) | None, _) => Self::Pass,
            (Some(Err(Why::Fail(reason))), _) => Self::Fail(one_line(&reason)),
            (Some(Err(Why::Skip(reason))), _) => Self::Skip(one_line(&reason)),
        }
    }

    /// The outcome in a table.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "ok",
            Self::Fail(_) => "FAIL",
            Self::Skip(_) => "skip",
            Self::NotTestable(_) => "-",
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Failures that are known: the file `expected.toml`.
#[derive(Debug, Default, Deserialize)]
pub struct Expected {
    /// Reason by requirement, by runtime.
    #[serde(flatten)]
    runtimes: BTreeMap<String, BTreeMap<String, String>>,
}

impl Expected {
    /// # Errors
    /// If the text is no TOML of tables of strings.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|e| format!("expected.toml: {e}"))
    }

    /// Why this runtime is known to fail this requirement.
    pub fn reason(&self, runtime: &str, id: &str) -> Option<&str> {
        self.runtimes.get(runtime)?.get(id).map(String::as_str)
    }

    /// Every requirement named for any runtime.
    #[cfg(test)]
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.runtimes
            .values()
            .flat_map(BTreeMap::keys)
            .map(String::as_str)
    }
}

/// The name a runtime has in `expected.toml`: that of its file.
pub fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The outcomes of one runtime, with what was expected of them.
#[derive(Debug)]
pub struct Column {
    pub runtime: String,
    pub outcomes: Vec<Outcome>,
}

impl Column {
    /// Failures without a known reason, and known failures that did not happen.
    pub fn surprises<'a>(
        &'a self,
        requirements: &'a [&Requirement],
        expected: &'a Expected,
    ) -> impl Iterator<Item = String> + 'a {
        requirements
            .iter()
            .zip(&self.outcomes)
            .filter_map(|(r, outcome)| {
                let reason = expected.reason(&self.runtime, r.id);
                match (outcome, reason) {
                    (Outcome::Fail(why), None) => Some(format!("{}: {why}", r.id)),
                    (Outcome::Pass, Some(_)) => Some(format!("{}: passes, though listed", r.id)),
                    _ => None,
                }
            })
    }
}

/// Writes one line of TAP (testanything.org, version 13).
pub fn write_tap(
    out: &mut dyn Write,
    number: usize,
    requirement: &Requirement,
    outcome: &Outcome,
    known: Option<&str>,
) -> io::Result<()> {
    let head = format!(
        "{number} - {} {}",
        requirement.id,
        requirement.level.as_str()
    );
    match (outcome, known) {
        (Outcome::Pass, _) => writeln!(out, "ok {head}: {}", requirement.text),
        (Outcome::Fail(why), None) => {
            writeln!(out, "not ok {head}: {}", requirement.text)?;
            writeln!(
                out,
                "  ---\n  why: {why:?}\n  section: {}\n  ...",
                requirement.section
            )
        }
        (Outcome::Fail(why), Some(reason)) => {
            writeln!(out, "not ok {head}: {} # TODO {reason}", requirement.text)?;
            writeln!(out, "  ---\n  why: {why:?}\n  ...")
        }
        (Outcome::Skip(why), _) => writeln!(out, "ok {head} # SKIP {why}"),
        (Outcome::NotTestable(why), _) => writeln!(out, "ok {head} # SKIP not testable: {why}"),
    }
}

/// Writes the table: a row for each requirement, a column for each runtime, reasons below.
pub fn write_table(
    out: &mut dyn Write,
    requirements: &[&Requirement],
    columns: &[Column],
) -> io::Result<()> {
    let width = requirements.iter().map(|r| r.id.len()).max().unwrap_or(0);
    write!(out, "{:width$} {:10}", "requirement", "level")?;
    for column in columns {
        write!(out, " {:>6}", column.runtime)?;
    }
    writeln!(out, "  text")?;
    for (n, r) in requirements.iter().enumerate() {
        write!(out, "{:width$} {:10}", r.id, r.level.as_str())?;
        for column in columns {
            write!(out, " {:>6}", column.outcomes[n].word())?;
        }
        writeln!(out, "  {}", r.text)?;
    }
    writeln!(out)?;
    for column in columns {
        let count = |word| column.outcomes.iter().filter(|o| o.word() == word).count();
        writeln!(
            out,
            "{}: {} pass, {} fail, {} skipped here, {} not testable, of {}",
            column.runtime,
            count("ok"),
            count("FAIL"),
            count("skip"),
            count("-"),
            column.outcomes.len()
        )?;
    }
    for column in columns {
        for (r, outcome) in requirements.iter().zip(&column.outcomes) {
            if let Outcome::Fail(why) = outcome {
                writeln!(out, "{} {}: {why}", column.runtime, r.id)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    #[test]
    fn a_known_failure_that_passes_is_a_surprise_and_so_is_an_unknown_one() {
        let requirements: Vec<_> = table::all().take(3).collect();
        let text = format!(
            "[rt]\n\"{}\" = \"known\"\n\"{}\" = \"known\"",
            requirements[0].id, requirements[1].id
        );
        let expected = Expected::parse(&text).unwrap();
        let fail = || Outcome::Fail("why".into());
        let outcomes = vec![fail(), Outcome::Pass, fail()];
        let column = Column {
            runtime: "rt".into(),
            outcomes,
        };
        let surprises: Vec<_> = column.surprises(&requirements, &expected).collect();
        assert_eq!(
            surprises,
            [
                format!("{}: passes, though listed", requirements[1].id),
                format!("{}: why", requirements[2].id),
            ]
        );
    }

    #[test]
    fn tap_lines_say_what_was_known() {
        let requirement = table::all().next().unwrap();
        let line = |outcome: &Outcome, known| {
            let mut out = Vec::new();
            write_tap(&mut out, 1, requirement, outcome, known).unwrap();
            String::from_utf8(out)
                .unwrap()
                .lines()
                .next()
                .unwrap()
                .to_owned()
        };
        assert!(line(&Outcome::Pass, None).starts_with("ok 1 - "));
        assert!(line(&Outcome::Fail("x".into()), None).starts_with("not ok 1 - "));
        assert!(line(&Outcome::Fail("x".into()), Some("old")).ends_with("# TODO old"));
        assert!(line(&Outcome::Skip("none here".into()), None).ends_with("# SKIP none here"));
    }

    #[test]
    fn every_expected_failure_names_a_requirement() {
        let expected = Expected::parse(include_str!("../expected.toml")).unwrap();
        let ids: Vec<_> = table::all().map(|r| r.id).collect();
        for id in expected.ids() {
            assert!(ids.contains(&id), "{id} is no requirement");
        }
    }
}
