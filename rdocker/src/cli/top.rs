//! `rdocker top`

use std::process::Command;

use crate::container::Containers;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::runtime::Runtime;
use crate::ui::Ui;
use crate::ui::format::printable;
use crate::ui::table;

/// Display the running processes of a container
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker top CONTAINER [ps OPTIONS]")]
pub struct Top {
    /// Container, then options of the host's ps
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true,
          value_names = ["CONTAINER", "OPTIONS"])]
    container_and_options: Vec<String>,
}

impl Top {
    /// Runs the host's ps and keeps the lines of the container's processes.
    ///
    /// The program is the host's own and its lines are matched by pid: nothing of the image is
    /// executed (CVE-2022-1227).
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let (name, options) = self
            .container_and_options
            .split_first()
            .ok_or_else(|| Error::Invalid("a container is required".to_owned()))?;
        let container = Containers::new(host).find(name)?;
        container.require_running()?;
        let runtime = Runtime::find(host, &container.record.host_config.runtime)?;
        let pids = runtime.pids(&container.places.run, &container.record.id)?;
        let options: Vec<&str> = match options {
            [] => vec!["-ef"],
            options => options.iter().map(String::as_str).collect(),
        };
        let output = Command::new("ps")
            .args(&options)
            .output()
            .map_err(|errno| Error::host("execute", "ps".as_ref(), errno))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Invalid(format!("ps: {why}")));
        }
        let rows = filter(&String::from_utf8_lossy(&output.stdout), &pids)?;
        ui.bytes(printable(&table::layout_from(20, &rows)).as_bytes())
    }
}

/// The header and the lines of `pids`, in as many columns as the header has.
fn filter(text: &str, pids: &[i32]) -> Result<Vec<Vec<String>>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let at = header
        .iter()
        .position(|title| *title == "PID")
        .ok_or_else(|| Error::Invalid("Couldn't find PID field in ps output".to_owned()))?;
    let mut rows = vec![
        header
            .iter()
            .map(|title| (*title).to_owned())
            .collect::<Vec<_>>(),
    ];
    for line in lines {
        let row = columns(line, header.len());
        let pid = row.get(at).and_then(|pid| pid.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            rows.push(row);
        }
    }
    Ok(rows)
}

/// Splits at white space; the last column, the command, keeps its own.
fn columns(line: &str, count: usize) -> Vec<String> {
    let mut row = Vec::with_capacity(count);
    let mut rest = line.trim();
    while row.len() + 1 < count {
        let Some((word, after)) = rest.split_once(char::is_whitespace) else {
            break;
        };
        row.push(word.to_owned());
        rest = after.trim_start();
    }
    row.push(rest.to_owned());
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_processes_are_shown() {
        let text = "UID   PID  CMD\nroot    1  init\nroot   42  sh -c  x y\n";
        let rows = filter(text, &[42]).unwrap();
        assert_eq!(rows, [["UID", "PID", "CMD"], ["root", "42", "sh -c  x y"]]);
        let why = filter("USER CMD\n", &[1]).unwrap_err().to_string();
        assert_eq!(why, "Couldn't find PID field in ps output");
    }
}
