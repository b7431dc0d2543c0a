//! `--chmod`: octal, or symbolic as in chmod(1).

use rustix::fs::FileType;

/// What `--chmod` does to permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// They become this.
    Set(u32),
    /// Clauses, one after the other.
    Change(Vec<Clause>),
}

/// `u+rwX`: for whom, how, which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    who: u32,
    op: char,
    bits: u32,
    /// `X`: execute for directories, and files that someone may execute.
    conditional: bool,
}

impl Chmod {
    /// Reads the flag's value.
    ///
    /// # Errors
    /// A value that is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777, or symbolic"
            )
        };
        if text.bytes().all(|b| b.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777);
            return mode.map(Self::Set).ok_or_else(wrong);
        }
        let clauses = text
            .split(',')
            .map(|part| Clause::parse(part).ok_or_else(wrong));
        Ok(Self::Change(
            clauses
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .flatten()
                .collect(),
        ))
    }

    /// The permissions of a copy.
    pub fn apply(&self, mode: u32, kind: FileType) -> u32 {
        match self {
            Self::Set(mode) => *mode,
            Self::Change(clauses) => clauses.iter().fold(mode, |mode, clause| {
                let anyone = mode & 0o111 != 0 || kind == FileType::Directory;
                let extra = if clause.conditional && anyone {
                    0o111 & clause.who
                } else {
                    0
                };
                let bits = clause.bits | extra;
                match clause.op {
                    '+' => mode | bits,
                    '-' => mode & !bits,
                    _ => mode & !clause.who | bits,
                }
            }),
        }
    }
}

impl Clause {
    fn parse(text: &str) -> Option<Vec<Self>> {
        let end = text.find(['+', '-', '='])?;
        let mut who = 0;
        for c in text[..end].chars() {
            who |= match c {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o0007,
                'a' => 0o6777,
                _ => return None,
            };
        }
        if who == 0 {
            who = 0o6777;
        }
        let mut clauses: Vec<Self> = Vec::new();
        for c in text[end..].chars() {
            if matches!(c, '+' | '-' | '=') {
                clauses.push(Self {
                    who,
                    op: c,
                    bits: 0,
                    conditional: false,
                });
                continue;
            }
            let clause = clauses.last_mut()?;
            clause.bits |= match c {
                'r' => 0o444 & who,
                'w' => 0o222 & who,
                'x' => 0o111 & who,
                's' => 0o6000 & who,
                't' => 0o1000,
                'X' => {
                    clause.conditional = true;
                    0
                }
                _ => return None,
            };
        }
        Some(clauses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_symbolic_modes_do_as_in_chmod() {
        let file = FileType::RegularFile;
        let cases: &[(&str, u32, FileType, u32)] = &[
            ("755", 0o600, file, 0o755),
            ("4755", 0o600, file, 0o4755),
            ("u+x", 0o644, file, 0o744),
            ("a-w", 0o666, file, 0o444),
            ("+x", 0o644, file, 0o755),
            ("u=rwX,go=rX", 0o600, file, 0o644),
            ("u=rwX,go=rX", 0o700, file, 0o755),
            ("u=rwX,go=rX", 0o600, FileType::Directory, 0o755),
            ("g=", 0o777, file, 0o707),
            ("u+s", 0o755, file, 0o4755),
        ];
        for (text, mode, kind, want) in cases {
            assert_eq!(
                Chmod::parse(text).unwrap().apply(*mode, *kind),
                *want,
                "{text} {mode:o}"
            );
        }
        for wrong in ["", "8", "77777", "z+x", "u", "u+q"] {
            assert!(Chmod::parse(wrong).is_err(), "{wrong}");
        }
    }
}
