//! Path patterns: Go's `filepath.Match` with `**`, as in `.dockerignore`, `COPY` and `--exclude`.
//!
//! `*` and `?` stop at a slash, `**` does not; `[a-z]` and `[^a-z]` are classes; a backslash makes
//! the next character plain. A pattern is run as a small automaton, so that no pattern takes more
//! time than its length times the path's.

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    /// Any characters of one component.
    Star,
    /// Any characters, slashes too: `**` at the end or inside a component.
    Deep,
    /// `**/`: nothing, or whole components.
    Dirs,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Whether a path has anything that makes it a pattern.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

impl Glob {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// `syntax error in pattern`, as Go says, for a class that does not close and a lone backslash.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let wrong = || format!("syntax error in pattern: {pattern:?}");
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' if chars.next_if_eq(&'*').is_some() => {
                    while chars.next_if_eq(&'*').is_some() {}
                    match chars.next_if_eq(&'/') {
                        Some(_) => Token::Dirs,
                        None => Token::Deep,
                    }
                }
                '*' => Token::Star,
                '?' => Token::One,
                '[' => class(&mut chars).ok_or_else(wrong)?,
                '\\' => Token::Char(chars.next().ok_or_else(wrong)?),
                c => Token::Char(c),
            });
        }
        Ok(Self { tokens })
    }

    /// Whether the whole path fits.
    pub fn matches(&self, path: &str) -> bool {
        // Two states for each token: before it, and (for `**/`) inside it.
        let end = self.tokens.len();
        let mut now = vec![[false; 2]; end + 1];
        self.enter(&mut now, 0);
        for c in path.chars() {
            let mut next = vec![[false; 2]; end + 1];
            for at in 0..end {
                if now[at][0] {
                    self.step(&mut next, at, c);
                }
                if now[at][1] {
                    next[at][1] = true;
                    if c == '/' {
                        self.enter(&mut next, at + 1);
                    }
                }
            }
            now = next;
        }
        now[end][0]
    }

    /// Marks a state, and those that follow it without a character.
    fn enter(&self, states: &mut [[bool; 2]], mut at: usize) {
        loop {
            states[at][0] = true;
            match self.tokens.get(at) {
                Some(Token::Star | Token::Deep | Token::Dirs) => at += 1,
                _ => return,
            }
        }
    }

    fn step(&self, next: &mut [[bool; 2]], at: usize, c: char) {
        match &self.tokens[at] {
            Token::Char(wanted) if *wanted == c => self.enter(next, at + 1),
            Token::One if c != '/' => self.enter(next, at + 1),
            Token::Star if c != '/' => self.enter(next, at),
            Token::Deep => self.enter(next, at),
            Token::Dirs => {
                next[at][1] = true;
                if c == '/' {
                    self.enter(next, at + 1);
                }
            }
            Token::Class { negated, ranges } if c != '/' => {
                let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                if inside != *negated {
                    self.enter(next, at + 1);
                }
            }
            _ => {}
        }
    }
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let low = match chars.next()? {
            ']' if !ranges.is_empty() => return Some(Token::Class { negated, ranges }),
            '\\' => chars.next()?,
            ']' | '-' => return None,
            c => c,
        };
        let high = match chars.next_if_eq(&'-') {
            None => low,
            Some(_) => match chars.next()? {
                '\\' => chars.next()?,
                ']' => return None,
                c => c,
            },
        };
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go_and_docker() {
        let cases: &[(&str, &str, bool)] = &[
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*", "a/b", false),
            ("*/b", "a/b", true),
            ("a*", "a/b", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a]", "/", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("**", "a/b/c", true),
            ("**/c", "c", true),
            ("**/c", "a/b/c", true),
            ("**/c", "a/bc", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/d", "a/d", true),
            ("a/**/d", "a/b/c/d", true),
            ("**/*.go", "x/y.go", true),
            ("a**z", "ab/cz", true),
            ("dir/**/.x", "dir/.x", true),
            ("", "", true),
        ];
        for (pattern, path, want) in cases {
            assert_eq!(
                Glob::new(pattern).unwrap().matches(path),
                *want,
                "{pattern} {path}"
            );
        }
        for wrong in ["[", "[]", "[a", "[-]", "[a-]", "a\\"] {
            assert!(Glob::new(wrong).is_err(), "{wrong}");
        }
        let slow = Glob::new(&"*a".repeat(200)).unwrap();
        assert!(!slow.matches(&"a".repeat(199)));
    }
}
