//! The user's own terminal: raw mode, size, detach keys.

use std::io::{self, IsTerminal};

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
    fn keys_are_spelled_as_docker_spells_them() {
        assert_eq!(DetachKeys::parse("ctrl-a,d").unwrap().keys, [1, b'd']);
        assert!(DetachKeys::parse("ctrl-,").is_err());
        assert!(DetachKeys::parse("esc").is_err());
    }
}
