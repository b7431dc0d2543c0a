//! The user's own terminal: raw mode, size, detach keys.

use std::io::{self, IsTerminal, Read};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::{Error, Result};

/// Raw mode of stdin, until it is dropped.
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Switches stdin to raw mode; `None` if it is no terminal.
    pub fn enter() -> Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let fail = |errno: rustix::io::Errno| Error::Terminal(errno.into());
        let before = tcgetattr(&stdin).map_err(fail)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(fail)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Reads a line that is typed in [`RawMode`], where nothing is shown; `None` if the user gives up.
///
/// With the terminal's own editing and no echo, Ctrl-C would leave a shell behind that shows nothing.
///
/// # Errors
/// The terminal cannot be read.
pub fn read_keys() -> Result<Option<String>> {
    let mut line = HiddenLine::default();
    let mut stdin = io::stdin().lock();
    loop {
        let mut key = [0];
        if stdin.read(&mut key).map_err(Error::Terminal)? == 0 {
            return Ok(line.end());
        }
        match line.feed(key[0]) {
            Keyed::More => {}
            Keyed::Done => return Ok(line.end()),
            Keyed::GivenUp => return Ok(None),
        }
    }
}

/// What a line is after one more key.
#[derive(Debug, PartialEq, Eq)]
enum Keyed {
    More,
    Done,
    GivenUp,
}

/// A line as termios(3) edits it: backspace takes one character, Ctrl-U all.
#[derive(Debug, Default)]
struct HiddenLine {
    bytes: Vec<u8>,
}

impl HiddenLine {
    fn feed(&mut self, key: u8) -> Keyed {
        match key {
            b'\r' | b'\n' => return Keyed::Done,
            // Ctrl-C; Ctrl-D ends a line that has something in it.
            3 => return Keyed::GivenUp,
            4 if self.bytes.is_empty() => return Keyed::GivenUp,
            4 => return Keyed::Done,
            // Ctrl-U.
            21 => self.bytes.clear(),
            8 | 127 => {
                let is_inside = |byte: &u8| byte & 0xc0 == 0x80;
                while self.bytes.pop().as_ref().is_some_and(is_inside) {}
            }
            key => self.bytes.push(key),
        }
        Keyed::More
    }

    fn end(self) -> Option<String> {
        Some(String::from_utf8_lossy(&self.bytes).into_owned())
    }
}

/// Rows and columns of the terminal that stdout is.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// A sequence of keys that ends the session and leaves the container running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

/// What became of typed bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// Pass these on.
    Forward(Vec<u8>),
    /// The sequence is complete; these came before it.
    Detach(Vec<u8>),
}

impl DetachKeys {
    /// Parses `ctrl-p,ctrl-q` and the like: single characters or `ctrl-` with a letter or one of
    /// `@ ^ [ , _`. Empty is the default.
    ///
    /// # Errors
    /// Docker's `Invalid detach keys`.
    pub fn parse(text: &str) -> Result<Self> {
        let text = if text.is_empty() {
            "ctrl-p,ctrl-q"
        } else {
            text
        };
        let key = |word: &str| -> Option<u8> {
            if let [byte] = word.as_bytes() {
                return Some(*byte);
            }
            let [letter] = word.strip_prefix("ctrl-")?.as_bytes() else {
                return None;
            };
            match letter.to_ascii_lowercase() {
                c @ b'a'..=b'z' => Some(c - b'a' + 1),
                b'@' => Some(0),
                b'[' => Some(27),
                b'\\' => Some(28),
                b']' => Some(29),
                b'^' => Some(30),
                b'_' => Some(31),
                _ => None,
            }
        };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        let keys =
            keys.ok_or_else(|| Error::Invalid(format!("Invalid detach keys ({text}) provided")))?;
        Ok(Self { keys, matched: 0 })
    }

    /// Takes typed bytes; what may be the beginning of the sequence is held back.
    pub fn feed(&mut self, bytes: &[u8]) -> Typed {
        let mut forward = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return Typed::Detach(forward);
                }
                continue;
            }
            forward.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if *byte == self.keys[0] {
                self.matched = 1;
            } else {
                forward.push(*byte);
            }
        }
        Typed::Forward(forward)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_detaches_and_its_beginning_alone_is_passed_on() {
        let mut keys = DetachKeys::parse("").unwrap();
        assert_eq!(keys.feed(b"ab\x10"), Typed::Forward(b"ab".to_vec()));
        assert_eq!(keys.feed(b"x"), Typed::Forward(b"\x10x".to_vec()));
        assert_eq!(keys.feed(b"c\x10\x11d"), Typed::Detach(b"c".to_vec()));
        assert_eq!(keys.feed(b"\x10\x10\x11"), Typed::Detach(b"\x10".to_vec()));
    }

    #[test]
    fn a_hidden_line_is_edited_as_a_terminal_does_it() {
        let cases: &[(&[u8], Keyed, &str)] = &[
            (b"secret\r", Keyed::Done, "secret"),
            (b"a\xc3\xa4\x7f\x7fb\n", Keyed::Done, "b"),
            (b"wrong\x15right\x04", Keyed::Done, "right"),
            (b"half\x03", Keyed::GivenUp, "half"),
            (b"\x04", Keyed::GivenUp, ""),
        ];
        for (typed, want, text) in cases {
            let mut line = HiddenLine::default();
            let mut last = Keyed::More;
            for key in *typed {
                assert_eq!(last, Keyed::More, "{typed:?}");
                last = line.feed(*key);
            }
            assert_eq!(&last, want, "{typed:?}");
            assert_eq!(line.end().as_deref(), Some(*text), "{typed:?}");
        }
    }

    #[test]
    fn keys_are_spelled_as_docker_spells_them() {
        assert_eq!(DetachKeys::parse("ctrl-a,d").unwrap().keys, [1, b'd']);
        assert!(DetachKeys::parse("ctrl-,").is_err());
        assert!(DetachKeys::parse("esc").is_err());
    }
}
