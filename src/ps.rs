//! The `ps` verb: the processes of a container.

use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::units::{Format, format};

/// List the processes of a container
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// table (the host's ps, filtered) or json (the pids)
    #[arg(long, short, value_name = "FORMAT", default_value = "table", value_parser = format)]
    pub format: Format,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
    /// Options for ps instead of -ef
    #[arg(value_name = "PS-OPTION")]
    pub ps: Vec<OsString>,
}

/// Runs the verb.
///
/// # Errors
/// [`Error::Failed`] if the host's ps fails or prints no column of pids.
pub fn run(args: &Args, context: &mut Context, out: &mut dyn Write) -> Result<()> {
    let container = context.store.load(&args.id)?;
    let pids = container.processes()?;
    let text = match args.format {
        Format::Json if pids.is_empty() => "null\n".to_owned(),
        Format::Json => {
            let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
            format!("[{}]\n", pids.join(","))
        }
        Format::Table => filtered(&host_ps(&args.ps)?, &pids)?,
    };
    out.write_all(text.as_bytes())
        .map_err(|error| Error::host("write to", "stdout", error))
}

/// What the host's ps prints of all processes.
fn host_ps(options: &[OsString]) -> Result<String> {
    let mut command = Command::new("ps");
    match options {
        [] => command.arg("-ef"),
        options => command.args(options),
    };
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::host("run", "ps (of the host)", error))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Failed(format!(
            "ps: {}",
            why.lines().next().unwrap_or_default()
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The heading, and the lines whose pid is one of `pids`.
fn filtered(table: &str, pids: &[i32]) -> Result<String> {
    let mut lines = table.lines();
    let heading = lines.next().unwrap_or_default();
    let Some(column) = heading.split_whitespace().position(|name| name == "PID") else {
        return Err(Error::Failed(
            "couldn't find PID field in ps output: add the pid column".into(),
        ));
    };
    let belongs = |line: &&str| {
        let pid = line
            .split_whitespace()
            .nth(column)
            .and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    let kept = std::iter::once(heading).chain(lines.filter(belongs));
    Ok(kept.map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines_are_kept() {
        let table = "UID   PID  PPID CMD\nroot    1     0 init\nroot   12     1 sleep 1\n";
        let kept = filtered(table, &[12]).unwrap();
        assert_eq!(kept, "UID   PID  PPID CMD\nroot   12     1 sleep 1\n");
        assert!(filtered("CMD\ninit\n", &[1]).is_err());
    }
}
