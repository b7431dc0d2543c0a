//! From bytes to logical lines: directives, comments, continuations, here-documents.

use super::Error;

/// The largest Dockerfile, in bytes: more is a mistaken file.
const DOCKERFILE_MAX: usize = 16 << 20;

/// One instruction with everything that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Number of its first line, from 1.
    pub number: usize,
    /// Number of its last line, here-documents included.
    pub last: usize,
    /// The text, continuation lines joined, comments in between left out.
    pub text: String,
    /// The here-documents that follow it.
    pub heredocs: Vec<Heredoc>,
    /// The comments right above it, without `#`.
    pub comments: Vec<String>,
    /// An empty line between its parts.
    pub gap: Option<usize>,
}

/// The text between `<<NAME` and the line `NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word after `<<`, without its quotes.
    pub name: String,
    /// Which descriptor of the command it is for, as written: `` or `3`.
    pub descriptor: String,
    /// Whether variables are expanded: the name has no quotes.
    pub expand: bool,
    /// `<<-`: tabs at the beginning of lines do not count.
    pub chomp: bool,
    /// The lines, each with its newline, as they were written.
    pub content: String,
}

impl Heredoc {
    /// The lines as the reader gets them: `<<-` without their leading tabs.
    pub fn body(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        let lines = self.content.split_inclusive('\n');
        lines.map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// What `# name=value` comments at the top say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directives {
    /// Which frontend the author wants. There is one here, and it takes today's language.
    pub syntax: Option<String>,
    /// The escape character, if it is given.
    pub escape: Option<char>,
    /// Options of the linter.
    pub check: Option<String>,
}

/// Splits a Dockerfile.
///
/// # Errors
/// A text that is not UTF-8 or too large; a directive that is repeated or has a wrong value; a
/// here-document that does not end.
pub fn split(bytes: &[u8]) -> Result<(Directives, Vec<Line>), Error> {
    let first = Error::at(1);
    if bytes.len() > DOCKERFILE_MAX {
        return Err(first("the file is larger than 16 MiB".to_owned()));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
            + 1;
        Error::at(line)("the line is not UTF-8 text".to_owned())
    })?;
    let mut lines: Vec<&str> = text.split('\n').collect();
    for line in &mut lines {
        *line = line.strip_suffix('\r').unwrap_or(line);
    }
    let (directives, begin) = directives(&lines)?;
    let mut splitter = Splitter {
        escape: directives.escape.unwrap_or('\\'),
        lines,
        at: begin,
    };
    let mut logical = Vec::new();
    while let Some(line) = splitter.line()? {
        logical.push(line);
    }
    Ok((directives, logical))
}

/// Reads the comments before anything else; gives the number of lines they take.
fn directives(lines: &[&str]) -> Result<(Directives, usize), Error> {
    let mut found = Directives::default();
    for (at, line) in lines.iter().enumerate() {
        let Some((name, value)) = directive(line) else {
            return Ok((found, at));
        };
        let wrong = |why: String| Err(Error::at(at + 1)(why));
        let is_repeated = match name.as_str() {
            "syntax" => found.syntax.replace(value.to_owned()).is_some(),
            "check" => found.check.replace(value.to_owned()).is_some(),
            _ => {
                let escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    _ => {
                        return wrong(format!(
                            "invalid escape token '{value}' does not match ` or \\"
                        ));
                    }
                };
                found.escape.replace(escape).is_some()
            }
        };
        if is_repeated {
            return wrong(format!("only one {name} parser directive can be used"));
        }
    }
    Ok((found, lines.len()))
}

/// `# name=value`, if `name` is one of the three.
fn directive(line: &str) -> Option<(String, &str)> {
    let rest = line.trim_start().strip_prefix('#')?;
    let (name, value) = rest.split_once('=')?;
    let name = name.trim().to_ascii_lowercase();
    matches!(name.as_str(), "syntax" | "escape" | "check").then(|| (name, value.trim()))
}

struct Splitter<'a> {
    lines: Vec<&'a str>,
    at: usize,
    escape: char,
}

impl<'a> Splitter<'a> {
    fn take(&mut self) -> Option<&'a str> {
        let line = self.lines.get(self.at)?;
        self.at += 1;
        Some(line)
    }

    /// The next instruction.
    fn line(&mut self) -> Result<Option<Line>, Error> {
        let mut comments = Vec::new();
        let (mut line, number) = loop {
            let Some(line) = self.take() else {
                return Ok(None);
            };
            match line.trim().strip_prefix('#') {
                Some(comment) => comments.push(comment.trim().to_owned()),
                None if line.trim().is_empty() => comments.clear(),
                None => break (line.trim_start(), self.at),
            }
        };
        let (mut text, mut gap) = (String::new(), None);
        loop {
            let (part, goes_on) = self.continuation(line);
            text.push_str(part);
            if !goes_on {
                break;
            }
            // Comments and empty lines between the parts belong to neither.
            let next = loop {
                match self.take() {
                    Some(next) if next.trim().is_empty() => gap = gap.or(Some(self.at)),
                    Some(next) if is_comment(next) => {}
                    next => break next,
                }
            };
            match next {
                Some(next) => line = next,
                None => {
                    gap = None;
                    break;
                }
            }
        }
        let mut heredocs = Vec::new();
        if takes_heredocs(&text) {
            for mut heredoc in heredocs_of(&text, self.escape) {
                heredoc.content = self.heredoc(&heredoc, number)?;
                heredocs.push(heredoc);
            }
        }
        Ok(Some(Line {
            number,
            last: self.at,
            text: text.trim_end().to_owned(),
            heredocs,
            comments,
            gap,
        }))
    }

    /// The line without its continuation mark, and whether it has one. A doubled mark is none.
    fn continuation(&self, line: &'a str) -> (&'a str, bool) {
        let trimmed = line.trim_end_matches([' ', '\t']);
        match trimmed.strip_suffix(self.escape) {
            Some(part) if !part.ends_with(self.escape) => (part, true),
            _ => (line, false),
        }
    }

    fn heredoc(&mut self, heredoc: &Heredoc, number: usize) -> Result<String, Error> {
        let mut content = String::new();
        while let Some(line) = self.take() {
            let candidate = if heredoc.chomp {
                line.trim_start_matches('\t')
            } else {
                line
            };
            if candidate == heredoc.name {
                return Ok(content);
            }
            content.push_str(line);
            content.push('\n');
        }
        Err(Error::at(number)("unterminated heredoc".to_owned()))
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// `RUN`, `COPY` and `ADD`, also as triggers.
fn takes_heredocs(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let mut name = words.next().unwrap_or_default();
    while name.eq_ignore_ascii_case("ONBUILD") {
        name = words.next().unwrap_or_default();
    }
    ["RUN", "COPY", "ADD"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// The `<<NAME` words of a line, outside quotes; their content is still to be read.
pub fn heredocs_of(text: &str, escape: char) -> Vec<Heredoc> {
    raw_words(text, escape)
        .iter()
        .filter_map(|word| heredoc_word(word))
        .collect()
}

/// `[digits]<<[-]NAME`; quotes around the name are taken off.
pub fn heredoc_word(word: &str) -> Option<Heredoc> {
    let (descriptor, rest) = word.split_once("<<")?;
    if !descriptor.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let name: String = rest.chars().filter(|c| !matches!(c, '"' | '\'')).collect();
    let is_plain = |c: char| !c.is_whitespace() && !"<>|&;()$`".contains(c);
    if name.is_empty() || !name.chars().all(is_plain) {
        return None;
    }
    Some(Heredoc {
        expand: name.len() == rest.len(),
        name,
        descriptor: descriptor.to_owned(),
        chomp,
        content: String::new(),
    })
}

/// Words separated by blanks outside quotes, with quotes and escapes as they were written.
pub fn raw_words(text: &str, escape: char) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (c, None) if matches!(c, '"' | '\'') => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, None | Some('"')) if c == escape => {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<(usize, String)> {
        let (_, lines) = split(source.as_bytes()).unwrap();
        lines
            .into_iter()
            .map(|line| (line.number, line.text))
            .collect()
    }

    #[test]
    fn lines_are_joined_and_comments_between_left_out() {
        let cases: &[(&str, &[(usize, &str)])] = &[
            ("RUN a\nRUN b\n", &[(1, "RUN a"), (2, "RUN b")]),
            ("\n# c\n  RUN a  \n", &[(3, "RUN a")]),
            ("RUN a \\\n  b\n", &[(1, "RUN a   b")]),
            ("RUN a \\  \t\n# c\n\n  # d\nb", &[(1, "RUN a b")]),
            ("RUN a \\\\\nRUN b", &[(1, "RUN a \\\\"), (2, "RUN b")]),
            ("RUN a # no comment\n", &[(1, "RUN a # no comment")]),
            ("RUN a \\\n", &[(1, "RUN a")]),
            ("RUN a\r\nRUN b\r\n", &[(1, "RUN a"), (2, "RUN b")]),
            ("# escape=`\nRUN a `\nb\\\n", &[(2, "RUN a b\\")]),
            ("\u{feff}FROM x", &[(1, "FROM x")]),
        ];
        for (source, want) in cases {
            let want: Vec<_> = want.iter().map(|(n, t)| (*n, (*t).to_owned())).collect();
            assert_eq!(texts(source), want, "{source:?}");
        }
    }

    #[test]
    fn directives_count_only_before_everything_else() {
        let (found, _) = split(b"#syntax = a/b:1\n# ESCAPE=`\n# check=skip=all\n").unwrap();
        assert_eq!(found.syntax.as_deref(), Some("a/b:1"));
        assert_eq!(
            (found.escape, found.check.as_deref()),
            (Some('`'), Some("skip=all"))
        );
        for late in [
            "# just words\n# escape=`\n",
            "\n# escape=`\n",
            "FROM a\n# escape=`\n",
        ] {
            assert_eq!(split(late.as_bytes()).unwrap().0.escape, None, "{late:?}");
        }
        for (source, want) in [
            ("# escape=`\n# escape=`\n", "line 2: only one escape"),
            ("# escape=x\n", "line 1: invalid escape token 'x'"),
        ] {
            let error = split(source.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn here_documents_end_at_their_word() {
        let source =
            "RUN <<A cat 3<<-'B'\n$x\nA\n\tb\n\tB\nCOPY <<\"f\" <<g /\n1\nf\n2\ng\nENV a=<<X\n";
        let (_, lines) = split(source.as_bytes()).unwrap();
        let [a, b] = &lines[0].heredocs[..] else {
            panic!()
        };
        assert_eq!(
            (a.name.as_str(), a.expand, a.content.as_str()),
            ("A", true, "$x\n")
        );
        assert_eq!(
            (b.name.as_str(), b.expand, b.descriptor.as_str()),
            ("B", false, "3")
        );
        assert_eq!((b.content.as_str(), b.body().as_str()), ("\tb\n", "b\n"));
        let names: Vec<_> = lines[1]
            .heredocs
            .iter()
            .map(|h| (&*h.name, &*h.content))
            .collect();
        assert_eq!(names, [("f", "1\n"), ("g", "2\n")]);
        assert_eq!((lines[2].number, lines[2].heredocs.len()), (11, 0));
        let error = split(b"FROM a\nRUN <<EOF\nx\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "dockerfile parse error on line 2: unterminated heredoc"
        );
        for word in ["<<<x", "a<<b", "<<", "'<<EOF'", "x", "$((1<<2))"] {
            assert_eq!(heredoc_word(word), None, "{word}");
        }
    }
}
