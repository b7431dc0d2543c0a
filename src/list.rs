//! `list` and `state`: what containers there are, and how they are.

use std::io::Write;

use crate::context::Context;
use crate::context::root::From;
use crate::error::{Error, Result};
use crate::state::{Container, Status, View};
use crate::units::{Format, format};

/// `list`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// table or json
    #[arg(long, short, value_name = "FORMAT", default_value = "table", value_parser = format)]
    pub format: Format,
    /// Print the names alone
    #[arg(long, short)]
    pub quiet: bool,
}

/// Runs the verb `list`.
///
/// # Errors
/// If `--root` names a directory that cannot be read.
pub fn run(args: &Args, context: &mut Context, out: &mut dyn Write) -> Result<()> {
    let ids = match context.store.ids() {
        // Nobody has made a container yet.
        Err(_) if context.root.from != From::Flag && !context.root.path.exists() => Vec::new(),
        other => other?,
    };
    if args.quiet {
        return print(
            out,
            &ids.iter().map(|id| format!("{id}\n")).collect::<String>(),
        );
    }
    let mut found: Vec<(Container, Status, String)> = Vec::new();
    for id in ids {
        match context
            .store
            .load(&id)
            .and_then(|container| Ok((container.status()?, container)))
        {
            Ok((status, container)) => {
                let owner = container.owner();
                found.push((container, status, owner));
            }
            // Deleted since, or not made completely.
            Err(Error::NotFound) => {}
            Err(error) => context
                .log
                .warn(&format!("container {id}: {}", error.line())),
        }
    }
    let views: Vec<View<'_>> = found
        .iter()
        .map(|(container, status, owner)| container.record.view(*status, owner))
        .collect();
    let text = match args.format {
        Format::Json if views.is_empty() => "null\n".to_owned(),
        Format::Json => json(&views, false)? + "\n",
        Format::Table => table(&found),
    };
    print(out, &text)
}

/// `state`.
#[derive(clap::Args, Clone, Debug)]
pub struct StateArgs {
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
}

/// Runs the verb `state`.
///
/// # Errors
/// [`Error::NotFound`].
pub fn state(args: &StateArgs, context: &mut Context, out: &mut dyn Write) -> Result<()> {
    let container = context.store.load(&args.id)?;
    let status = container.status()?;
    print(out, &json(&container.record.view(status, ""), true)?)
}

fn json(value: &impl serde::Serialize, pretty: bool) -> Result<String> {
    let text = if pretty {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    text.map_err(|error| Error::Failed(format!("print JSON: {error}")))
}

/// runc's columns, each as wide as its widest cell and three blanks.
fn table(found: &[(Container, Status, String)]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from);
    let mut rows = vec![header];
    for (container, status, owner) in found {
        let record = &container.record;
        let pid = record
            .init
            .filter(|_| *status != Status::Stopped)
            .map_or(0, |init| init.pid);
        rows.push([
            record.id.clone(),
            pid.to_string(),
            status.to_string(),
            record.bundle.clone(),
            record.created.clone(),
            owner.clone(),
        ]);
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].len())
            .max()
            .unwrap_or(0)
            .max(9)
            + 3
    };
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

fn print(out: &mut dyn Write, text: &str) -> Result<()> {
    out.write_all(text.as_bytes())
        .map_err(|error| Error::host("write to", "stdout", error))
}
