//! `list` and `state`: what containers there are, and how they are.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use crate::context::Context;
use crate::context::root::From;
use crate::error::{Error, Result};
use crate::state::{Record, Status};
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
    // Of a container only its line stays in memory, and nothing stays open.
    let (mut rows, mut objects) = (Vec::new(), Vec::new());
    let mut owners = BTreeMap::new();
    for id in ids {
        let found = context.store.load(&id);
        match found.and_then(|container| Ok((container.status()?, container))) {
            Ok((status, container)) => {
                let uid = container.owner();
                let owner = owners.entry(uid).or_insert_with(|| user_name(uid));
                match args.format {
                    Format::Json => {
                        objects.push(json(&container.record.view(status, owner), false)?)
                    }
                    Format::Table => rows.push(cells(&container.record, status, owner)),
                }
            }
            // Deleted since, or not made completely.
            Err(Error::NotFound) => {}
            Err(error) => context
                .log
                .warn(&format!("container {id}: {}", error.line())),
        }
    }
    let text = match args.format {
        Format::Json if objects.is_empty() => "null\n".to_owned(),
        Format::Json => format!("[{}]\n", objects.join(",")),
        Format::Table => table(rows),
    };
    print(out, &text)
}

/// The name of user `uid`, or `#uid`. Man page: passwd(5). Not through NSS, which needs shared
/// libraries.
fn user_name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
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

/// The line of one container.
fn cells(record: &Record, status: Status, owner: &str) -> [String; 6] {
    let init = record.init.filter(|_| status != Status::Stopped);
    [
        record.id.clone(),
        init.map_or(0, |init| init.pid).to_string(),
        status.to_string(),
        record.bundle.clone(),
        record.created.clone(),
        owner.to_owned(),
    ]
}

/// runc's columns, each as wide as its widest cell and three blanks.
fn table(mut rows: Vec<[String; 6]>) -> String {
    rows.insert(
        0,
        ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from),
    );
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
