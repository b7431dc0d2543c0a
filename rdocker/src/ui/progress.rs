//! Progress of pulls, pushes and loads: live lines on a terminal, plain ones elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use super::format::size;
use crate::image::{Event, Progress, Status};

/// Width of the bar between its brackets.
const BAR: usize = 50;

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The progress is what the command prints.
    Stdout,
    /// Stdout belongs to something else, such as a container's output.
    Stderr,
}

/// Shows events as they come; work tells them from several threads.
pub struct Lines {
    stream: Stream,
    live: bool,
    shown: Mutex<Vec<(String, Option<Status>)>>,
}

impl Lines {
    /// Live if the stream is a terminal.
    pub fn on(stream: Stream) -> Self {
        let live = match stream {
            Stream::Stdout => io::stdout().is_terminal(),
            Stream::Stderr => io::stderr().is_terminal(),
        };
        Self {
            stream,
            live,
            shown: Mutex::new(Vec::new()),
        }
    }

    fn out(&self) -> Box<dyn Write> {
        match self.stream {
            Stream::Stdout => Box::new(io::stdout()),
            Stream::Stderr => Box::new(io::stderr()),
        }
    }

    fn layer(&self, id: &str, status: Status, current: u64, total: u64) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let known = shown.iter().position(|(known, _)| known == id);
        let is_new_status = known.is_none_or(|at| shown[at].1 != Some(status));
        if !self.live && !is_new_status {
            return;
        }
        let at = known.unwrap_or_else(|| {
            shown.push((id.to_owned(), None));
            shown.len() - 1
        });
        shown[at].1 = Some(status);
        let text = format!("{id}: {}{}", status.text(), bar(current, total));
        let mut out = self.out();
        // A terminal that went away is noticed by the next ordinary line.
        let _ = if self.live && known.is_some() {
            let up = shown.len() - at;
            write!(out, "\x1b[{up}A\x1b[2K\r{text}\x1b[{up}B\r")
        } else {
            let plain = format!("{id}: {}", status.text());
            writeln!(out, "{}", if self.live { &text } else { &plain })
        };
        let _ = out.flush();
    }

    fn line(&self, text: &str) {
        // Lines below live ones would be overwritten: begin anew.
        self.shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        let _ = writeln!(self.out(), "{text}");
    }
}

impl Progress for Lines {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Message(text) => self.line(text),
            Event::Of { id, text } => self.line(&format!("{id}: {text}")),
            Event::Layer {
                id,
                status,
                current,
                total,
            } => self.layer(id, status, current, total),
        }
    }
}

/// ` [=====>     ]  1.2MB/3.4MB`, or nothing while nothing is known.
fn bar(current: u64, total: u64) -> String {
    if total == 0 || current == 0 || current >= total {
        return String::new();
    }
    let done = usize::try_from(current.saturating_mul(BAR as u64) / total)
        .unwrap_or(BAR)
        .min(BAR);
    let arrow = format!("{}>", "=".repeat(done));
    format!(
        " [{arrow:<width$}]  {}/{}",
        size(current, 4),
        size(total, 4),
        width = BAR + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_grows_with_the_bytes() {
        assert_eq!(bar(0, 10), "");
        assert_eq!(bar(10, 10), "");
        let half = bar(500, 1000);
        assert!(half.contains(&format!("{}>", "=".repeat(25))), "{half}");
        assert!(half.ends_with("500B/1kB"), "{half}");
    }
}
