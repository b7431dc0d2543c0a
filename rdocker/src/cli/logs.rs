//! `rdocker logs`

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use crate::container::{Container, Containers};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::ui::Ui;

use super::when;

/// How long a follower sleeps when there is nothing new.
const PAUSE: Duration = Duration::from_millis(50);

/// Fetch the logs of a container
#[derive(Debug, clap::Args)]
#[command(override_usage = "rdocker logs [OPTIONS] CONTAINER")]
pub struct Logs {
    /// Show extra details provided to logs
    #[arg(long)]
    details: bool,
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    #[arg(hide = true)]
    container: String,
}

#[derive(Deserialize)]
struct Entry {
    log: String,
    stream: String,
    time: String,
}

impl Logs {
    /// Prints what there is, and with `-f` what comes.
    pub fn run(self, host: &Host, ui: &mut Ui) -> Result<()> {
        let containers = Containers::new(host);
        let container = containers.find(&self.container)?;
        if container.record.host_config.log_config.kind == "none" {
            return Err(Error::Invalid(
                "configured logging driver does not support reading".to_owned(),
            ));
        }
        let now = Timestamp::now();
        let bound = |flag: &str, text: &Option<String>| {
            let time = text.as_deref().map(|text| when::parse(text, now));
            time.transpose()
                .map_err(|why| Error::Usage(format!("invalid value for {flag:?}: {why}")))
        };
        let since = bound("since", &self.since)?;
        let until = bound("until", &self.until)?;
        let tail = self.tail.parse::<usize>().ok();
        let mut reader = Reader::open(&container)?;
        let mut last: VecDeque<Entry> = VecDeque::new();
        for entry in reader.old_entries()? {
            let time: Option<Timestamp> = entry.time.parse().ok();
            let inside = time.is_none_or(|time| {
                since.is_none_or(|since| time >= since) && until.is_none_or(|until| time < until)
            });
            if inside {
                last.push_back(entry);
                if tail.is_some_and(|tail| last.len() > tail) {
                    last.pop_front();
                }
            }
        }
        for entry in &last {
            self.print(entry, ui)?;
        }
        if self.follow {
            self.follow(&containers, &container, reader, until, ui)
        } else {
            Ok(())
        }
    }

    /// Goes on until the container has ended and everything it wrote is shown.
    fn follow(
        &self,
        containers: &Containers<'_>,
        container: &Container,
        mut reader: Reader,
        until: Option<Timestamp>,
        ui: &mut Ui,
    ) -> Result<()> {
        loop {
            // Asked before reading: what the container wrote before its end is there then.
            let alive = containers
                .load(&container.record.id)
                .is_ok_and(|container| container.state.status.is_alive());
            let entries = reader.new_entries()?;
            for entry in &entries {
                self.print(entry, ui)?;
            }
            let late = until.is_some_and(|until| Timestamp::now() >= until);
            if entries.is_empty() {
                if !alive || late {
                    return Ok(());
                }
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn print(&self, entry: &Entry, ui: &mut Ui) -> Result<()> {
        let mut text = String::new();
        if self.timestamps {
            text.push_str(&entry.time);
            text.push(' ');
        }
        if self.details {
            text.push(' ');
        }
        text.push_str(&entry.log);
        if entry.stream == "stderr" {
            ui.error_bytes(text.as_bytes())
        } else {
            ui.bytes(text.as_bytes())
        }
    }
}

/// Reads a log and its rotated files, and notices rotation while it follows.
struct Reader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    partial: String,
}

impl Reader {
    fn open(container: &Container) -> Result<Self> {
        let path = container.places.log(&container.record.id);
        Ok(Self {
            path,
            file: None,
            partial: String::new(),
        })
    }

    /// Everything that is there, oldest file first.
    fn old_entries(&mut self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut rotated = Vec::new();
        for n in 1.. {
            let path = numbered(&self.path, n);
            if !path.exists() {
                break;
            }
            rotated.push(path);
        }
        for path in rotated.iter().rev() {
            let text = fs::read_to_string(path).unwrap_or_default();
            entries.extend(text.lines().filter_map(parse));
        }
        entries.extend(self.new_entries()?);
        Ok(entries)
    }

    /// What was written since the last call.
    fn new_entries(&mut self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.read_open_file(&mut entries)?;
        if self.was_rotated() {
            // The old file is read to its end above; the rest is in the new one.
            self.file = None;
        }
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => {
                    self.file = Some(BufReader::new(file));
                    self.read_open_file(&mut entries)?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::host("open", &self.path, error)),
            }
        }
        Ok(entries)
    }

    fn read_open_file(&mut self, entries: &mut Vec<Entry>) -> Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        loop {
            let read = file.read_line(&mut self.partial);
            let length = read.map_err(|errno| Error::host("read", &self.path, errno))?;
            if length == 0 || !self.partial.ends_with('\n') {
                return Ok(());
            }
            entries.extend(parse(&self.partial));
            self.partial.clear();
        }
    }

    fn was_rotated(&mut self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let Some(file) = &mut self.file else {
            return false;
        };
        let (Ok(open), Ok(named)) = (file.get_ref().metadata(), fs::metadata(&self.path)) else {
            return false;
        };
        if open.ino() != named.ino() {
            return true;
        }
        // `max-file=1` truncates in place.
        let position = file.stream_position().unwrap_or(0);
        if named.len() < position {
            let _ = file.seek(SeekFrom::Start(0));
        }
        false
    }
}

fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    PathBuf::from(name)
}

fn parse(line: &str) -> Option<Entry> {
    serde_json::from_str(line).ok()
}
