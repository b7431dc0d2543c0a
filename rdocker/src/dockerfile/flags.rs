//! `--flag` words before an instruction's arguments.

use super::lines::raw_words;
use super::suggest::nearest;
use super::word::Expand;

/// The flags of one instruction, in the order they were written.
#[derive(Debug, Default)]
pub struct Flags {
    given: Vec<(String, Option<String>)>,
}

/// Which flags an instruction takes.
pub struct Known {
    /// Given once, with a value.
    pub single: &'static [&'static str],
    /// Given any number of times, with a value.
    pub many: &'static [&'static str],
    /// `--flag` or `--flag=true|false`.
    pub switches: &'static [&'static str],
}

impl Flags {
    /// Takes the flags off the beginning of `rest`; gives them and what is left.
    ///
    /// # Errors
    /// An unknown flag, a value that is missing, a flag given twice.
    pub fn take<'t>(rest: &'t str, escape: char, known: &Known) -> Result<(Self, &'t str), String> {
        let mut flags = Self::default();
        let mut rest = rest.trim_start();
        while rest.starts_with("--") {
            let end = word_end(rest, escape);
            let (word, after) = rest.split_at(end);
            rest = after.trim_start();
            if word == "--" {
                break;
            }
            flags.push(word, escape, known)?;
        }
        Ok((flags, rest))
    }

    fn push(&mut self, word: &str, escape: char, known: &Known) -> Result<(), String> {
        let body = &word[2..];
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(unquote(value, escape)?)),
            None => (body, None),
        };
        let is = |list: &[&str]| list.contains(&name);
        if !is(known.single) && !is(known.many) && !is(known.switches) {
            let all: Vec<&str> = [known.single, known.many, known.switches].concat();
            let hint = nearest(name, &all);
            let hint = hint.map(|hint| format!(" (did you mean {hint}?)"));
            return Err(format!(
                "unknown flag: --{name}{}",
                hint.unwrap_or_default()
            ));
        }
        if !is(known.many) && self.given.iter().any(|(given, _)| given == name) {
            return Err(format!("duplicate flag specified: {name}"));
        }
        if value.is_none() && !is(known.switches) {
            return Err(format!("missing a value on flag: {name}"));
        }
        self.given.push((name.to_owned(), value));
        Ok(())
    }

    /// The value of a flag given once.
    pub fn single(&self, name: &str) -> Option<String> {
        self.many(name).into_iter().next()
    }

    /// All values of a flag.
    pub fn many(&self, name: &str) -> Vec<String> {
        let given = self.given.iter().filter(|(given, _)| given == name);
        given.filter_map(|(_, value)| value.clone()).collect()
    }

    /// A switch, if it was given.
    ///
    /// # Errors
    /// A value that is neither `true` nor `false`.
    pub fn switch(&self, name: &str) -> Result<Option<bool>, String> {
        let Some((_, value)) = self.given.iter().find(|(given, _)| given == name) else {
            return Ok(None);
        };
        match value.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(format!(
                "expecting boolean value for flag {name}, not: {other}"
            )),
        }
    }
}

/// Where the first word ends, quotes and escapes observed.
fn word_end(text: &str, escape: char) -> usize {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match (c, quote) {
            _ if escaped => escaped = false,
            (c, _) if c == escape => escaped = true,
            (c, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) => quote = Some(c),
            (c, None) if c.is_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

/// Takes quotes off, and leaves variables for later.
fn unquote(value: &str, escape: char) -> Result<String, String> {
    if !value.contains(['"', '\'']) {
        return Ok(value.to_owned());
    }
    let keep = |name: &str| Some(format!("${{{name}}}"));
    Expand {
        escape,
        lookup: &keep,
    }
    .word(value)
}

/// `NAME=value …` words, or the old `NAME value` where `old` allows it.
///
/// # Errors
/// BuildKit's words.
pub fn pairs(instruction: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = raw_words(rest, escape);
    let Some(first) = words.first() else {
        return Err(format!("{instruction} requires at least one argument"));
    };
    if !first.contains('=') {
        let (name, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("{instruction} must have two arguments"))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &String| match whole_quoted(word).unwrap_or(word).split_once('=') {
        Some((name, value)) if whole_quoted(word).is_some() && !name.is_empty() => {
            let quote = &word[..1];
            Ok((
                format!("{quote}{name}{quote}"),
                format!("{quote}{value}{quote}"),
            ))
        }
        Some(("", _)) => Err(format!("{instruction} names can not be blank")),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(format!(
            "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
        )),
    };
    words.iter().map(pair).collect()
}

/// What is between quotes that hold a whole `NAME=value` together.
fn whole_quoted(word: &str) -> Option<&str> {
    let quote = word.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inner = word[1..].strip_suffix(quote)?;
    (!inner.contains(quote)).then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known = Known {
        single: &["chown"],
        many: &["exclude"],
        switches: &["link"],
    };

    #[test]
    fn flags_end_at_the_first_other_word() {
        let line = r#"--chown="a b:c" --exclude=x --exclude='y z' --link src --chown=late"#;
        let (flags, rest) = Flags::take(line, '\\', &KNOWN).unwrap();
        assert_eq!(flags.single("chown").as_deref(), Some("a b:c"));
        assert_eq!(flags.many("exclude"), ["x", "y z"]);
        assert_eq!(flags.switch("link"), Ok(Some(true)));
        assert_eq!(rest, "src --chown=late");
        let (flags, rest) = Flags::take("--link=false -- --x", '\\', &KNOWN).unwrap();
        assert_eq!((flags.switch("link"), rest), (Ok(Some(false)), "--x"));
    }

    #[test]
    fn wrong_flags_are_named() {
        for (line, want) in [
            ("--chwon=a x", "unknown flag: --chwon (did you mean chown?)"),
            ("--chown x", "missing a value on flag: chown"),
            ("--chown=a --chown=b", "duplicate flag specified: chown"),
        ] {
            assert_eq!(Flags::take(line, '\\', &KNOWN).unwrap_err(), want);
        }
        let (flags, _) = Flags::take("--link=maybe", '\\', &KNOWN).unwrap();
        assert!(flags.switch("link").is_err());
    }
}
