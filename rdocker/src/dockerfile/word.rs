//! Words of a Dockerfile: quotes, escapes and `$variables`.
//!
//! `$v ${v} ${v:-w} ${v-w} ${v:+w} ${v+w} ${v:?e} ${v?e} ${v#p} ${v##p} ${v%p} ${v%%p} ${v/p/w}
//! ${v//p/w}`, where `p` has `*` and `?`. An unset variable is empty. Single quotes keep
//! everything as it is; double quotes expand.
//!
//! Source: docs.docker.com, "Dockerfile reference", section "Environment replacement".

/// How deep `${a:-${b:-…}}` may nest.
const DEPTH_MAX: usize = 64;

/// What is known while a word is expanded.
#[derive(Clone, Copy)]
pub struct Expand<'a> {
    /// The Dockerfile's escape character.
    pub escape: char,
    /// The value of a variable; `None` if it is not set.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
}

/// What becomes of quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// They group, and go.
    Remove,
    /// They are letters like others: the text of a here-document.
    Keep,
}

impl Expand<'_> {
    /// One word: quotes removed, variables expanded.
    ///
    /// # Errors
    /// What is wrong, without the line: an open quote or brace, an unknown modifier, the message
    /// of `${v:?message}`.
    pub fn word(&self, text: &str) -> Result<String, String> {
        Ok(self.lexer(text, Quotes::Remove)?.out)
    }

    /// The same, split at blanks outside quotes, those of expanded values included.
    pub fn words(&self, text: &str) -> Result<Vec<String>, String> {
        let mut lexer = self.lexer(text, Quotes::Remove)?;
        lexer.words.extend(lexer.word.take());
        Ok(lexer.words)
    }

    /// The text of a here-document: variables expanded, quotes kept.
    pub fn text(&self, text: &str) -> Result<String, String> {
        Ok(self.lexer(text, Quotes::Keep)?.out)
    }

    /// The variables that a word uses and that are neither set nor have a default.
    pub fn unset(&self, text: &str) -> Vec<String> {
        let mut lexer = self.begin(text, Quotes::Remove);
        // What is wrong besides is told when the word is needed.
        let _ = lexer.run(None);
        lexer.unset
    }

    /// The same of the text of a here-document.
    pub fn unset_in_text(&self, text: &str) -> Vec<String> {
        let mut lexer = self.begin(text, Quotes::Keep);
        let _ = lexer.run(None);
        lexer.unset
    }

    fn lexer(&self, text: &str, quotes: Quotes) -> Result<Lexer<'_>, String> {
        let mut lexer = self.begin(text, quotes);
        lexer
            .run(None)
            .map_err(|why| format!("failed to process {text:?}: {why}"))?;
        Ok(lexer)
    }

    fn begin(&self, text: &str, quotes: Quotes) -> Lexer<'_> {
        Lexer {
            chars: text.chars().collect(),
            at: 0,
            expand: *self,
            quotes,
            depth: 0,
            out: String::new(),
            word: None,
            words: Vec::new(),
            unset: Vec::new(),
        }
    }
}

struct Lexer<'a> {
    chars: Vec<char>,
    at: usize,
    expand: Expand<'a>,
    quotes: Quotes,
    depth: usize,
    out: String,
    word: Option<String>,
    words: Vec<String>,
    /// Variables that gave nothing.
    unset: Vec<String>,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Adds text that no blank in it splits.
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
        self.word.get_or_insert_default().push_str(text);
    }

    /// Adds text whose blanks end words.
    fn push_split(&mut self, text: &str) {
        self.out.push_str(text);
        for c in text.chars() {
            if c.is_whitespace() {
                self.words.extend(self.word.take());
            } else {
                self.word.get_or_insert_default().push(c);
            }
        }
    }

    /// Up to the end, or up to and with `stop` outside quotes.
    fn run(&mut self, stop: Option<char>) -> Result<(), String> {
        while let Some(c) = self.next() {
            if Some(c) == stop {
                return Ok(());
            }
            match c {
                '\'' if self.quotes == Quotes::Remove => self.single()?,
                '"' if self.quotes == Quotes::Remove => self.double()?,
                '$' => {
                    let value = self.dollar()?;
                    self.push_split(&value);
                }
                c if c == self.expand.escape => self.escaped(),
                c => self.push_split(c.encode_utf8(&mut [0; 4])),
            }
        }
        match stop {
            None => Ok(()),
            Some(stop) => Err(format!(
                "unexpected end of statement while looking for matching {stop}"
            )),
        }
    }

    fn escaped(&mut self) {
        let escape = self.expand.escape;
        match self.next() {
            // A lone one at the end stays.
            None => self.push(escape.encode_utf8(&mut [0; 4])),
            Some(c) => {
                if self.quotes == Quotes::Keep && c != '$' && c != escape {
                    self.push(escape.encode_utf8(&mut [0; 4]));
                }
                self.push(c.encode_utf8(&mut [0; 4]));
            }
        }
    }

    fn single(&mut self) -> Result<(), String> {
        self.push("");
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some(c) => self.push(c.encode_utf8(&mut [0; 4])),
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching single-quote"
                            .to_owned(),
                    );
                }
            }
        }
    }

    fn double(&mut self) -> Result<(), String> {
        self.push("");
        loop {
            match self.next() {
                Some('"') => return Ok(()),
                Some('$') => {
                    let value = self.dollar()?;
                    self.push(&value);
                }
                Some(c) if c == self.expand.escape => match self.peek() {
                    Some(next) if next == '"' || next == '$' || next == c => {
                        self.at += 1;
                        self.push(next.encode_utf8(&mut [0; 4]));
                    }
                    _ => self.push(c.encode_utf8(&mut [0; 4])),
                },
                Some(c) => self.push(c.encode_utf8(&mut [0; 4])),
                None => {
                    return Err(
                        "unexpected end of statement while looking for matching double-quote"
                            .to_owned(),
                    );
                }
            }
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            let fits =
                c == '_' || c.is_ascii_alphabetic() || !name.is_empty() && c.is_ascii_digit();
            if !fits {
                break;
            }
            name.push(c);
            self.at += 1;
        }
        if name.is_empty()
            && let Some(c) = self.peek().filter(|c| "@*#?-$!0123456789".contains(*c))
        {
            self.at += 1;
            name.push(c);
        }
        name
    }

    fn dollar(&mut self) -> Result<String, String> {
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            let value = (self.expand.lookup)(&name);
            return Ok(self.or_unset(&name, value));
        }
        self.at += 1;
        let name = self.name();
        if name.is_empty() {
            return Err("bad substitution".to_owned());
        }
        let value = (self.expand.lookup)(&name);
        match self.next() {
            Some('}') => Ok(self.or_unset(&name, value)),
            Some(':') => match self.next() {
                Some(op @ ('-' | '+' | '?')) => {
                    let set = value.filter(|value| !value.is_empty());
                    self.default(&name, op, set)
                }
                Some(c) => Err(format!("unsupported modifier (:{c}) in substitution")),
                None => Err("missing ':' in substitution".to_owned()),
            },
            Some(op @ ('-' | '+' | '?')) => self.default(&name, op, value),
            Some(op @ ('#' | '%')) => self.trim(op, &value.unwrap_or_default()),
            Some('/') => self.replace(&value.unwrap_or_default()),
            Some(c) => Err(format!("unsupported modifier ({c}) in substitution")),
            None => Err("unexpected end of statement while looking for matching }".to_owned()),
        }
    }

    /// The value, or nothing, of which a note is taken.
    fn or_unset(&mut self, name: &str, value: Option<String>) -> String {
        value.unwrap_or_else(|| {
            self.unset.push(name.to_owned());
            String::new()
        })
    }

    /// The rest of a substitution up to `stop`, expanded.
    fn inner(&mut self, stop: char) -> Result<String, String> {
        if self.depth >= DEPTH_MAX {
            return Err(format!("substitutions nest deeper than {DEPTH_MAX}"));
        }
        // The word inside is a text of its own: it does not split, and its quotes go.
        let (out, word) = (std::mem::take(&mut self.out), self.word.take());
        let words = self.words.len();
        self.depth += 1;
        let result = self.run(Some(stop));
        self.depth -= 1;
        self.words.truncate(words);
        self.word = word;
        result.map(|()| std::mem::replace(&mut self.out, out))
    }

    fn default(&mut self, name: &str, op: char, set: Option<String>) -> Result<String, String> {
        let word = self.inner('}')?;
        Ok(match (op, set) {
            ('-', set) => set.unwrap_or(word),
            ('+', set) => set.map(|_| word).unwrap_or_default(),
            (_, Some(value)) => value,
            (_, None) if word.is_empty() => return Err(format!("{name}: not allowed to be unset")),
            (_, None) => return Err(format!("{name}: {word}")),
        })
    }

    fn trim(&mut self, op: char, value: &str) -> Result<String, String> {
        let longest = self.peek() == Some(op);
        self.at += usize::from(longest);
        let pattern = self.pattern('}')?;
        let value: Vec<char> = value.chars().collect();
        let mut lengths: Vec<usize> = (0..=value.len()).collect();
        if longest {
            lengths.reverse();
        }
        for length in lengths {
            let (cut, rest) = match op {
                '#' => value.split_at(length),
                _ => {
                    let (rest, cut) = value.split_at(value.len() - length);
                    (cut, rest)
                }
            };
            if matches(&pattern, cut) {
                return Ok(rest.iter().collect());
            }
        }
        Ok(value.into_iter().collect())
    }

    fn replace(&mut self, value: &str) -> Result<String, String> {
        let all = self.peek() == Some('/');
        self.at += usize::from(all);
        let pattern = self.pattern('/')?;
        let with = self.inner('}')?;
        let value: Vec<char> = value.chars().collect();
        let (mut out, mut at, mut done) = (String::new(), 0, false);
        while at < value.len() {
            let longest = (at + 1..=value.len())
                .rev()
                .find(|end| (all || !done) && matches(&pattern, &value[at..*end]));
            match longest {
                Some(end) => {
                    out.push_str(&with);
                    (at, done) = (end, true);
                }
                None => {
                    out.push(value[at]);
                    at += 1;
                }
            }
        }
        Ok(out)
    }

    /// A pattern up to `stop`: an escape makes the next character plain.
    fn pattern(&mut self, stop: char) -> Result<Vec<Pattern>, String> {
        let mut pattern = Vec::new();
        loop {
            pattern.push(match self.next() {
                Some(c) if c == stop => return Ok(pattern),
                Some('*') => Pattern::Any,
                Some('?') => Pattern::One,
                Some(c) if c == self.expand.escape => match self.next() {
                    Some(c) => Pattern::Char(c),
                    None => return Err("invalid escape in a pattern".to_owned()),
                },
                Some('$') => {
                    let value = self.dollar()?;
                    pattern.extend(value.chars().map(Pattern::Char));
                    continue;
                }
                Some(c) => Pattern::Char(c),
                None => {
                    return Err(format!(
                        "unexpected end of statement while looking for matching {stop}"
                    ));
                }
            });
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    Any,
    One,
    Char(char),
}

/// Whether the whole text fits; in time proportional to both lengths.
fn matches(pattern: &[Pattern], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Pattern::One) => (p, t) = (p + 1, t + 1),
            Some(Pattern::Char(c)) if *c == text[t] => (p, t) = (p + 1, t + 1),
            Some(Pattern::Any) => {
                star = Some((p, t));
                p += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, t) = (at + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|part| *part == Pattern::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        let value = match name {
            "V" => "value",
            "EMPTY" => "",
            "PATHS" => "/a/b:/c/d",
            "TWO" => "one two",
            "FILE" => "archive.tar.gz",
            _ => return None,
        };
        Some(value.to_owned())
    }

    const EXPAND: Expand<'static> = Expand {
        escape: '\\',
        lookup: &lookup,
    };

    #[test]
    fn every_form_of_substitution_gives_what_the_reference_says() {
        let cases: &[(&str, &str)] = &[
            ("$V", "value"),
            ("${V}s", "values"),
            ("$Vs", ""),
            ("a$UNSET.b", "a.b"),
            (r"\$V", "$V"),
            (r"'$V'", "$V"),
            (r#""$V x""#, "value x"),
            (r#""\$V \" \n""#, r#"$V " \n"#),
            ("${UNSET:-w}", "w"),
            ("${EMPTY:-w}", "w"),
            ("${EMPTY-w}", ""),
            ("${UNSET-w}", "w"),
            ("${V:+w}", "w"),
            ("${EMPTY:+w}", ""),
            ("${EMPTY+w}", "w"),
            ("${UNSET+w}", ""),
            ("${UNSET:-${V}}", "value"),
            ("${UNSET:-'a } b'}", "a } b"),
            ("${V:?no}", "value"),
            ("${FILE#*.}", "tar.gz"),
            ("${FILE##*.}", "gz"),
            ("${FILE%.*}", "archive.tar"),
            ("${FILE%%.*}", "archive"),
            ("${FILE#x}", "archive.tar.gz"),
            ("${PATHS/\\//_}", "_a/b:/c/d"),
            ("${PATHS//\\//_}", "_a_b:_c_d"),
            ("${FILE/a?/X}", "Xchive.tar.gz"),
            ("${V/*/X}", "X"),
            ("$", "$"),
            ("a$ b", "a$ b"),
            ("$$", ""),
            (r"C:\dir", "C:dir"),
            ("end\\", "end\\"),
        ];
        for (text, want) in cases {
            assert_eq!(EXPAND.word(text).as_deref(), Ok(*want), "{text}");
        }
    }

    #[test]
    fn only_blanks_outside_quotes_split_words() {
        let cases: &[(&str, &[&str])] = &[
            ("80 $TWO", &["80", "one", "two"]),
            (r#""$TWO" x"#, &["one two", "x"]),
            (r"a\ b c", &["a b", "c"]),
            ("''", &[""]),
            ("  ", &[]),
            ("x$UNSET", &["x"]),
            ("$UNSET", &[]),
        ];
        for (text, want) in cases {
            assert_eq!(EXPAND.words(text).unwrap(), *want, "{text}");
        }
    }

    #[test]
    fn a_here_document_keeps_its_quotes() {
        let text = "\"$V\" '$V' \\$V \\n\n";
        assert_eq!(EXPAND.text(text).unwrap(), "\"value\" 'value' $V \\n\n");
    }

    #[test]
    fn what_does_not_close_is_named() {
        for (text, want) in [
            ("'a", "single-quote"),
            ("\"a", "double-quote"),
            ("${V", "matching }"),
            ("${V:-x", "matching }"),
            ("${V:x}", "unsupported modifier (:x)"),
            ("${V^}", "unsupported modifier (^)"),
            ("${}", "bad substitution"),
            ("${UNSET:?is needed}", "UNSET: is needed"),
            ("${UNSET?}", "not allowed to be unset"),
        ] {
            let error = EXPAND.word(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
        let deep = "${U:-".repeat(2000);
        assert!(EXPAND.word(&deep).is_err());
    }
}
