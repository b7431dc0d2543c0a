//! How a build shows its progress: Docker's classic lines, live lines on a terminal, or nothing.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::termios::tcgetwinsize;
use serde_json::{Value, json};

use super::format::printable;
use super::progress::{Lines, Stream};
use crate::build::report::{At, Event, Report};
use crate::image::{Event as ImageEvent, Progress};
use crate::store::digest::Digest;

/// How often live lines are drawn anew.
const TICK: Duration = Duration::from_millis(100);
/// How much of a step's output is kept to be shown if it fails, in bytes.
const KEPT: usize = 64 << 10;

/// `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Style {
    /// Live on a terminal, else plain.
    #[default]
    Auto,
    /// Docker's classic lines.
    Plain,
    /// Live lines.
    Tty,
    /// Nothing but errors.
    #[value(alias = "none")]
    Quiet,
    /// One JSON document a line, on stderr, in BuildKit's form.
    Rawjson,
}

/// What hears a build, in the style that fits.
pub fn report(style: Style) -> Box<dyn Report> {
    match style {
        Style::Quiet => Box::new(Quiet::default()),
        Style::Tty => Box::new(Live::new()),
        Style::Auto if io::stderr().is_terminal() => Box::new(Live::new()),
        Style::Rawjson => Box::new(Json::default()),
        Style::Auto | Style::Plain => Box::new(Classic::default()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what a step prints, and shows it only if the build fails.
#[derive(Default)]
struct Quiet {
    kept: Mutex<BTreeMap<usize, Vec<u8>>>,
}

impl Progress for Quiet {
    fn event(&self, _: ImageEvent<'_>) {}
}

impl Report for Quiet {
    fn step(&self, event: Event<'_>) {
        match event {
            Event::Output(at, bytes) => keep(lock(&self.kept).entry(at.step).or_default(), bytes),
            Event::Done(at, _) => drop(lock(&self.kept).remove(&at.step)),
            Event::Failed(at) => {
                let kept = lock(&self.kept).remove(&at.step).unwrap_or_default();
                // A terminal that went away cannot be told anything.
                let _ = io::stderr().write_all(&kept);
            }
            _ => {}
        }
    }
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    kept.extend_from_slice(bytes);
    let over = kept.len().saturating_sub(KEPT);
    kept.drain(..over);
}

/// Docker's classic lines, those of one stage after the other.
///
/// Stages run at once; the lines of all but the first that is not done wait for their turn.
#[derive(Default)]
struct Classic {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Stages that are not done, in their order.
    open: Vec<usize>,
    ended: Vec<usize>,
    lines: BTreeMap<usize, Vec<u8>>,
}

impl Waiting {
    fn say(&mut self, stage: usize, bytes: &[u8]) {
        if self.open.first() == Some(&stage) || self.open.is_empty() {
            write_out(bytes);
        } else {
            self.lines
                .entry(stage)
                .or_default()
                .extend_from_slice(bytes);
        }
    }

    /// Lets the next stage speak when the first one is done.
    fn end(&mut self, stage: usize) {
        self.ended.push(stage);
        while let Some(first) = self.open.first().copied() {
            if !self.ended.contains(&first) {
                return;
            }
            self.open.remove(0);
            let next = self.open.first().and_then(|next| self.lines.remove(next));
            write_out(&next.unwrap_or_default());
        }
    }
}

fn write_out(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    // The command's last line tells if stdout is gone.
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

impl Progress for Classic {
    fn event(&self, event: ImageEvent<'_>) {
        Lines::on(Stream::Stdout).event(event);
    }
}

impl Report for Classic {
    fn step(&self, event: Event<'_>) {
        let mut waiting = lock(&self.waiting);
        let mut say = |at: At, text: String| waiting.say(at.stage, text.as_bytes());
        match event {
            Event::Plan(stages) => waiting.open = stages.to_vec(),
            Event::StageEnd(stage) => waiting.end(stage),
            Event::Step(at, text) => {
                let text = printable(text);
                say(at, format!("Step {}/{} : {text}\n", at.step, at.steps));
            }
            Event::Note(at, text) => say(at, format!("{text}\n")),
            Event::Cached(at) => say(at, " ---> Using cache\n".to_owned()),
            Event::Running(at, id) => say(at, format!(" ---> Running in {id}\n")),
            Event::Output(at, bytes) => waiting.say(at.stage, bytes),
            Event::Removed(at, id) => {
                say(at, format!(" ---> Removed intermediate container {id}\n"))
            }
            Event::Done(at, id) => say(at, format!(" ---> {id}\n")),
            Event::Failed(_) => {}
            Event::Warning(text) => write_out(format!("{text}\n").as_bytes()),
        }
    }
}

/// BuildKit's own messages, as `buildx` prints them: each step is a vertex, by the digest of its
/// number and text.
#[derive(Default)]
struct Json {
    /// Steps at work: their vertex as it was told last.
    open: Mutex<BTreeMap<usize, Value>>,
}

impl Json {
    fn tell(message: &Value) {
        let mut err = io::stderr().lock();
        // A terminal that went away cannot be told anything.
        let _ = writeln!(err, "{message}");
    }

    /// Tells a step's vertex again, changed.
    fn again(&self, at: At, change: impl FnOnce(&mut Value)) {
        if let Some(vertex) = lock(&self.open).get_mut(&at.step) {
            change(vertex);
            Self::tell(&json!({ "vertexes": [vertex] }));
        }
    }

    fn digest(&self, at: At) -> Value {
        let open = lock(&self.open);
        open.get(&at.step)
            .map_or(Value::Null, |vertex| vertex["digest"].clone())
    }
}

impl Progress for Json {
    fn event(&self, _: ImageEvent<'_>) {}
}

impl Report for Json {
    fn step(&self, event: Event<'_>) {
        let now = || jiff::Timestamp::now().to_string();
        match event {
            Event::Step(at, text) => {
                let name = format!("[{}/{}] {text}", at.step, at.steps);
                let digest = Digest::of(name.as_bytes()).to_string();
                let vertex = json!({"digest": digest, "name": name, "started": now()});
                Self::tell(&json!({ "vertexes": [&vertex] }));
                lock(&self.open).insert(at.step, vertex);
            }
            Event::Cached(at) => self.again(at, |vertex| vertex["cached"] = true.into()),
            Event::Output(at, bytes) => Self::tell(&json!({"logs": [{
                "vertex": self.digest(at), "stream": 1, "data": STANDARD.encode(bytes),
                "timestamp": now(),
            }]})),
            Event::Done(at, _) => {
                self.again(at, |vertex| vertex["completed"] = now().into());
                lock(&self.open).remove(&at.step);
            }
            Event::Failed(at) => self.again(at, |vertex| {
                vertex["completed"] = now().into();
                vertex["error"] = "the step failed".into();
            }),
            Event::Warning(text) => Self::tell(&json!({"warnings": [{
                "level": 1, "short": STANDARD.encode(text),
            }]})),
            Event::Note(..)
            | Event::Plan(_)
            | Event::StageEnd(_)
            | Event::Running(..)
            | Event::Removed(..) => {}
        }
    }
}

/// A line for each step at work, drawn anew in its place; finished ones scroll away.
struct Live {
    screen: Arc<Mutex<Screen>>,
}

struct Screen {
    begun: Instant,
    active: BTreeMap<usize, Active>,
    finished: usize,
    steps: usize,
    /// Lines that the next drawing replaces.
    drawn: usize,
    ended: bool,
}

struct Active {
    at: At,
    text: String,
    begun: Instant,
    cached: bool,
    last: String,
    kept: Vec<u8>,
}

impl Live {
    fn new() -> Self {
        let screen = Arc::new(Mutex::new(Screen {
            begun: Instant::now(),
            active: BTreeMap::new(),
            finished: 0,
            steps: 0,
            drawn: 0,
            ended: false,
        }));
        let ticking = Arc::clone(&screen);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(TICK);
                let mut screen = lock(&ticking);
                if screen.ended {
                    return;
                }
                screen.draw(&[]);
            }
        });
        Self { screen }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut screen = lock(&self.screen);
        screen.active.clear();
        screen.ended = true;
        screen.draw(&[]);
    }
}

impl Screen {
    /// Puts finished lines above, and the lines of what goes on below them.
    fn draw(&mut self, finished: &[String]) {
        let width = width();
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A\r", self.drawn));
        }
        for line in finished {
            text.push_str(&format!("\x1b[2K{}\n", cut(line, width)));
        }
        let mut lines = Vec::new();
        if !self.active.is_empty() {
            let seconds = self.begun.elapsed().as_secs_f32();
            lines.push(format!(
                "[+] Building {seconds:.1}s ({}/{})",
                self.finished, self.steps
            ));
        }
        for active in self.active.values() {
            lines.push(active.line(width));
            if !active.last.is_empty() {
                lines.push(format!(" => => # {}", active.last));
            }
        }
        for line in &lines {
            text.push_str(&format!("\x1b[2K{}\n", cut(line, width)));
        }
        text.push_str("\x1b[J");
        self.drawn = lines.len();
        let mut out = io::stderr().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

impl Active {
    fn line(&self, width: usize) -> String {
        let time = format!("{:.1}s", self.begun.elapsed().as_secs_f32());
        let cached = if self.cached { "CACHED " } else { "" };
        let text = format!(
            " => {cached}[{}/{}] {}",
            self.at.step, self.at.steps, self.text
        );
        let room = width.saturating_sub(time.len() + 1);
        format!("{:room$} {time}", cut(&text, room))
    }
}

/// The columns of the terminal.
fn width() -> usize {
    let width = tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    // A terminal that does not know its width says 0.
    if width < 20 { 80 } else { width }
}

/// The first `width` characters.
fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

impl Progress for Live {
    fn event(&self, event: ImageEvent<'_>) {
        // Pulls have lines of their own kind; only what is said of the whole is shown.
        if let ImageEvent::Message(text) | ImageEvent::Of { text, .. } = event {
            lock(&self.screen).draw(&[format!(" => {}", printable(text))]);
        }
    }
}

impl Report for Live {
    fn step(&self, event: Event<'_>) {
        let mut screen = lock(&self.screen);
        match event {
            Event::Step(at, text) => {
                screen.steps = at.steps;
                let active = Active {
                    at,
                    text: printable(text),
                    begun: Instant::now(),
                    cached: false,
                    last: String::new(),
                    kept: Vec::new(),
                };
                screen.active.insert(at.step, active);
                screen.draw(&[]);
            }
            Event::Cached(at) => {
                if let Some(active) = screen.active.get_mut(&at.step) {
                    active.cached = true;
                }
            }
            Event::Output(at, bytes) => {
                if let Some(active) = screen.active.get_mut(&at.step) {
                    keep(&mut active.kept, bytes);
                    let text = String::from_utf8_lossy(bytes);
                    if let Some(line) = text.lines().rfind(|line| !line.trim().is_empty()) {
                        active.last = printable(line);
                    }
                }
            }
            Event::Done(at, _) => {
                screen.finished += 1;
                if let Some(mut active) = screen.active.remove(&at.step) {
                    active.last.clear();
                    let line = active.line(width());
                    screen.draw(&[line]);
                }
            }
            Event::Failed(at) => {
                if let Some(active) = screen.active.remove(&at.step) {
                    let mut lines = vec![" => ERROR".to_owned() + &active.line(width() - 6)[3..]];
                    lines.push("------".to_owned());
                    let kept = String::from_utf8_lossy(&active.kept);
                    lines.extend(kept.lines().map(printable));
                    lines.push("------".to_owned());
                    screen.draw(&lines);
                }
            }
            Event::Note(_, text) | Event::Warning(text) => screen.draw(&[printable(text)]),
            Event::Plan(_) | Event::StageEnd(_) | Event::Running(..) | Event::Removed(..) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_stage_waits_for_its_turn_and_loses_nothing() {
        let mut waiting = Waiting {
            open: vec![0, 2, 3],
            ..Waiting::default()
        };
        waiting.say(2, b"two\n");
        waiting.say(3, b"three\n");
        assert_eq!(waiting.lines.len(), 2);
        waiting.end(2);
        assert_eq!(waiting.open, [0, 2, 3], "the first one still speaks");
        waiting.end(0);
        assert_eq!(waiting.open, [3]);
        assert!(!waiting.lines.contains_key(&3));
        waiting.end(3);
        assert!(waiting.open.is_empty());
    }

    #[test]
    fn kept_output_is_its_end() {
        let mut kept = Vec::new();
        keep(&mut kept, &vec![b'a'; KEPT]);
        keep(&mut kept, b"end");
        assert_eq!((kept.len(), &kept[KEPT - 4..]), (KEPT, &b"aend"[..]));
    }
}
