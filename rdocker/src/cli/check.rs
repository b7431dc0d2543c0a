//! `build --call`: what can be said of a Dockerfile without building it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::build::Options;
use crate::build::check::{Findings, Warning};
use crate::build::mount::{Kind, Mount};
use crate::build::project::Project;
use crate::build::scope::Scope;
use crate::dockerfile::lines::{Line, split};
use crate::dockerfile::{Instruction, Step};
use crate::error::{Error, Result};
use crate::image::Images;
use crate::ui::Ui;
use crate::ui::format::printable;
use crate::ui::table::layout_from;

/// Lines around an instruction that is shown: fewer if it has several itself.
const AROUND: usize = 2;

/// What `build` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// It builds.
    Build,
    /// It looks for mistakes.
    Check,
    /// It lists the arguments and secrets of a target.
    Outline,
    /// It lists the targets.
    Targets,
}

/// `--call METHOD[,format=json]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// What is done.
    pub method: Method,
    as_json: bool,
}

impl Call {
    /// `--check`.
    pub const CHECK: Self = Self {
        method: Method::Check,
        as_json: false,
    };

    /// Reads the option's value.
    ///
    /// # Errors
    /// A method that nobody knows.
    pub fn parse(text: &str) -> Result<Self> {
        let (method, format) = text.split_once(',').unwrap_or((text, ""));
        let method = match method.trim_start_matches("method=") {
            "build" | "" => Method::Build,
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            other => {
                return Err(Error::Invalid(format!(
                    "unknown method {other:?}: want build, check, outline or targets"
                )));
            }
        };
        let as_json = match format {
            "" | "format=text" => false,
            "format=json" => true,
            other => return Err(Error::Invalid(format!("unknown option {other:?}"))),
        };
        Ok(Self { method, as_json })
    }

    /// Says it.
    ///
    /// # Errors
    /// [`Error::Reported`] if the check found something.
    pub fn run(
        self,
        project: &Project,
        images: Images<'_>,
        options: &Options,
        ui: &mut Ui,
    ) -> Result<()> {
        match self.method {
            Method::Outline => outline(project, self.as_json, ui),
            Method::Targets => targets(project, self.as_json, ui),
            Method::Check | Method::Build => {
                let stages = match options.target {
                    Some(_) => project.needed()?,
                    None => vec![true; project.file.stages.len()],
                };
                let findings = project.check(images, options, &stages)?;
                if self.as_json {
                    ui.line(pretty(&findings_json(project, &findings)))?;
                } else {
                    tell(project, &findings, ui)?;
                }
                match findings.warnings.is_empty() {
                    true => Ok(()),
                    false => Err(Error::Reported),
                }
            }
        }
    }
}

/// What a build says at its end of what its author may not have meant.
pub fn summary(findings: &Findings, ui: &mut Ui) -> Result<()> {
    let count = findings.warnings.len();
    if count == 0 {
        return Ok(());
    }
    let plural = if count == 1 { "" } else { "s" };
    ui.error_line(format_args!(
        "\n {count} warning{plural} found (use {} build --check to expand):",
        ui.program.clone()
    ))?;
    for warning in &findings.warnings {
        ui.error_line(format_args!(
            " - {}: {} (line {})",
            warning.rule.name(),
            printable(&warning.message),
            warning.lines.0
        ))?;
    }
    Ok(())
}

fn tell(project: &Project, findings: &Findings, ui: &mut Ui) -> Result<()> {
    match findings.warnings.len() {
        0 => return ui.line("Check complete, no warnings found."),
        1 => ui.line("Check complete, 1 warning has been found!")?,
        count => ui.line(format_args!(
            "Check complete, {count} warnings have been found!"
        ))?,
    }
    let text = String::from_utf8_lossy(&project.text);
    let lines: Vec<&str> = text.lines().collect();
    for warning in &findings.warnings {
        let page = warning.rule.url().map(|url| format!(" - {url}"));
        ui.line(format_args!(
            "\nWARNING: {}{}",
            warning.rule.name(),
            page.unwrap_or_default()
        ))?;
        ui.line(printable(&warning.message))?;
        ui.line(format_args!("{}:{}", project.file_name, warning.lines.0))?;
        excerpt(&lines, warning, ui)?;
    }
    Ok(())
}

/// The lines of a warning and those around them.
fn excerpt(lines: &[&str], warning: &Warning, ui: &mut Ui) -> Result<()> {
    const EDGE: &str = "--------------------";
    let (first, last) = warning.lines;
    let around = if first == last { AROUND } else { 1 };
    let from = first.saturating_sub(around).max(1);
    let to = (last + around).min(lines.len());
    ui.line(EDGE)?;
    for number in from..=to {
        let mark = if (first..=last).contains(&number) {
            ">>>"
        } else {
            "   "
        };
        let line = printable(lines[number - 1]);
        ui.line(format_args!(" {number:3} | {mark} {line}"))?;
    }
    ui.line(EDGE)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn location(first: usize, last: usize) -> Value {
    json!({"ranges": [{"start": {"line": first}, "end": {"line": last}}]})
}

fn findings_json(project: &Project, findings: &Findings) -> Value {
    let warnings: Vec<Value> = findings
        .warnings
        .iter()
        .map(|warning| {
            json!({
                "ruleName": warning.rule.name(), "url": warning.rule.url(),
                "detail": warning.message,
                "location": location(warning.lines.0, warning.lines.1),
            })
        })
        .collect();
    let source = json!({
        "filename": project.file_name, "language": "Dockerfile",
        "data": STANDARD.encode(&project.text),
    });
    json!({"warnings": warnings, "sources": [source]})
}

/// What a comment above an instruction says of a name.
fn description(lines: &[Line], number: usize, name: &str) -> String {
    let line = lines.iter().find(|line| line.number == number);
    let comments = line.into_iter().flat_map(|line| &line.comments);
    let mut about = comments.filter_map(|text| text.strip_prefix(name)?.strip_prefix(' '));
    about.next().unwrap_or_default().to_owned()
}

fn targets(project: &Project, as_json: bool, ui: &mut Ui) -> Result<()> {
    let (_, lines) = split(&project.text)?;
    let stages = &project.file.stages;
    let (mut rows, mut values) = (
        vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]],
        Vec::new(),
    );
    for (at, stage) in stages.iter().enumerate() {
        let is_default = at + 1 == stages.len();
        let name = stage.name.clone().unwrap_or_default();
        // A stage without a name is a target by its number alone.
        if name.is_empty() && !is_default {
            continue;
        }
        let about = description(&lines, stage.line, &name);
        let mut value = json!({
            "name": name, "default": is_default, "description": about, "base": stage.base,
            "location": location(stage.line, stage.line),
        });
        if let Some(platform) = &stage.platform {
            value["platform"] = platform.clone().into();
        }
        values.push(value);
        let mark = if is_default { "(default)" } else { "" };
        let shown = format!("{name} {mark}").trim().to_owned();
        rows.push(vec![shown, printable(&about)]);
    }
    match as_json {
        true => ui.line(pretty(&json!({ "targets": values }))),
        false => ui.bytes(layout_from(0, &rows).as_bytes()),
    }
}

/// Arguments, secrets and agents of the stages that the target needs.
fn outline(project: &Project, as_json: bool, ui: &mut Ui) -> Result<()> {
    let (_, lines) = split(&project.text)?;
    let stage = &project.file.stages[project.target];
    let needed = project.needed()?;
    let stages = project.file.stages.iter().zip(&needed);
    let stages = stages.filter_map(|(stage, needed)| needed.then_some(stage));
    let steps = || {
        let global = project.file.arguments.iter();
        global.chain(stages.clone().flat_map(|stage| &stage.steps))
    };
    let mut arguments: BTreeMap<String, (String, String)> = BTreeMap::new();
    for step in steps() {
        let Instruction::Arg(list) = &step.instruction else {
            continue;
        };
        for (name, default) in list {
            let mut scope = Scope::new(&project.globals, &[]);
            scope
                .declare(&[], name, default.as_deref())
                .map_err(Error::Invalid)?;
            let value = scope.arguments().first().map(|(_, value)| value.clone());
            let one = arguments.entry(name.clone()).or_default();
            one.0 = value.unwrap_or_default();
            if one.1.is_empty() {
                one.1 = description(&lines, step.line, name);
            }
        }
    }
    let (secrets, agents) = given(steps())?;
    let name = stage.name.clone().unwrap_or_default();
    let about = description(&lines, stage.line, &name);
    if as_json {
        let args: Vec<Value> = arguments
            .iter()
            .map(|(name, (value, about))| {
                json!({"name": name, "value": value, "description": about})
            })
            .collect();
        let list = |list: &BTreeMap<String, bool>| -> Vec<Value> {
            let one = |(name, required)| json!({"name": name, "required": required});
            list.iter().map(one).collect()
        };
        return ui.line(pretty(&json!({
            "name": name, "description": about, "args": args, "secrets": list(&secrets),
            "ssh": list(&agents),
        })));
    }
    if !name.is_empty() {
        ui.line(format_args!("TARGET: {name}"))?;
        if !about.is_empty() {
            ui.line(format_args!("DESCRIPTION: {}", printable(&about)))?;
        }
        ui.line("")?;
    }
    let cells = |cells: &[&str]| cells.iter().map(|cell| printable(cell)).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = arguments
        .iter()
        .map(|(name, (value, about))| cells(&[name, value, about]))
        .collect();
    table(ui, &["BUILD ARG", "VALUE", "DESCRIPTION"], rows)?;
    for (title, list) in [("SECRET", secrets), ("SSH", agents)] {
        let rows = list
            .iter()
            .map(|(name, required)| cells(&[name, if *required { "true" } else { "" }]));
        table(ui, &[title, "REQUIRED"], rows.collect())?;
    }
    Ok(())
}

/// Secrets and agents that `RUN` mounts, and whether it fails without.
fn given<'s>(
    steps: impl Iterator<Item = &'s Step>,
) -> Result<(BTreeMap<String, bool>, BTreeMap<String, bool>)> {
    let (mut secrets, mut agents) = (BTreeMap::new(), BTreeMap::new());
    for step in steps {
        let Instruction::Run(run) = &step.instruction else {
            continue;
        };
        for text in &run.mounts {
            let (list, secret) = match Mount::parse(text).map_err(Error::Invalid)?.kind {
                Kind::Secret(secret) => (&mut secrets, secret),
                Kind::Ssh(secret) => (&mut agents, secret),
                _ => continue,
            };
            *list.entry(secret.id).or_insert(false) |= secret.required;
        }
    }
    Ok((secrets, agents))
}

/// A table with an empty line after it, if it has rows.
fn table(ui: &mut Ui, header: &[&str], rows: Vec<Vec<String>>) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let header = header.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    ui.bytes(layout_from(0, &rows).as_bytes())?;
    ui.line("")
}
