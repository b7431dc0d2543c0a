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
                    Format::Table => rows.push(row(&container.record, status, owner)),
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
        Format::Table => table(&rows),
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

/// Between two cells of a row: no path contains it. One string for a row keeps a long list small.
const NEXT: char = '\0';

/// The row of one container.
fn row(record: &Record, status: Status, owner: &str) -> String {
    let init = record.init.filter(|_| status != Status::Stopped);
    let pid = init.map_or(0, |init| init.pid);
    let (id, bundle, created) = (&record.id, &record.bundle, &record.created);
    format!("{id}{NEXT}{pid}{NEXT}{status}{NEXT}{bundle}{NEXT}{created}{NEXT}{owner}")
}

/// runc's columns, each as wide as its widest cell and three blanks.
fn table(rows: &[String]) -> String {
    const HEADER: &str = "ID\0PID\0STATUS\0BUNDLE\0CREATED\0OWNER";
    let rows = || std::iter::once(HEADER).chain(rows.iter().map(String::as_str));
    let mut widths = [9; 5];
    for row in rows() {
        for (width, cell) in widths.iter_mut().zip(row.split(NEXT)) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows() {
        for (column, cell) in row.split(NEXT).enumerate() {
            let width = widths.get(column).map_or(0, |width| width + 3);
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push('\n');
    }
    text
}

fn print(out: &mut dyn Write, text: &str) -> Result<()> {
    out.write_all(text.as_bytes())
        .map_err(|error| Error::host("write to", "stdout", error))
}
