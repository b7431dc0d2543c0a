//! Text to syntax tree.

use serde_json::Value;

/// One piece of a template.
#[derive(Debug)]
pub enum Node {
    /// Literal text.
    Text(String),
    /// A pipeline whose result is printed.
    Print(Pipe),
    /// `$name := pipeline` or `$name = pipeline`.
    Assign(String, Pipe),
    /// `if`, and `else if` as a nested one.
    If(Pipe, Vec<Node>, Vec<Node>),
    /// `with`: like `if`, and sets the dot.
    With(Pipe, Vec<Node>, Vec<Node>),
    /// `range $index, $element := pipeline`.
    Range(Vec<String>, Pipe, Vec<Node>, Vec<Node>),
    /// `break`.
    Break,
    /// `continue`.
    Continue,
}

/// Commands joined by `|`; each gets its forerunner's result as last argument.
#[derive(Debug)]
pub struct Pipe(pub Vec<Command>);

/// An operand or function followed by its arguments.
#[derive(Debug)]
pub struct Command(pub Vec<Term>);

/// A value in a command.
#[derive(Debug)]
pub enum Term {
    /// A string, number, bool or nil written out.
    Literal(Value),
    /// `.A.B` relative to the dot; empty is the dot itself.
    Field(Vec<String>),
    /// `$x.A.B`; the name includes the dollar sign.
    Variable(String, Vec<String>),
    /// A function's name.
    Function(String),
    /// `(pipeline).A.B`.
    Group(Pipe, Vec<String>),
}

impl Pipe {
    /// The first field the pipeline mentions.
    pub fn first_field(&self) -> Option<&str> {
        self.0
            .iter()
            .flat_map(|command| &command.0)
            .find_map(|term| match term {
                Term::Field(path) => path.first().map(String::as_str),
                Term::Group(pipe, _) => pipe.first_field(),
                _ => None,
            })
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Literal(Value),
    Field(String),
    Dot,
    Variable(String),
    Word(String),
    Pipe,
    Open,
    Close,
    Comma,
    Assign,
    Space,
}

/// What ends a body.
enum End {
    Eof,
    Block,
    Else(Vec<Token>),
}

/// Parses a whole template.
pub fn parse(text: &str) -> Result<Vec<Node>, String> {
    let pieces = split(text)?;
    let mut pieces = pieces.into_iter();
    let (body, end) = body(&mut pieces)?;
    match end {
        End::Eof => Ok(body),
        End::Block => Err("unexpected {{end}}".to_owned()),
        End::Else(_) => Err("unexpected {{else}}".to_owned()),
    }
}

enum Piece {
    Text(String),
    Action(String),
}

/// Cuts at `{{` and `}}` and applies the trim markers `{{- ` and ` -}}`.
fn split(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_left = false;
    loop {
        let (before, after) = match rest.find("{{") {
            Some(at) => (&rest[..at], Some(&rest[at + 2..])),
            None => (rest, None),
        };
        let trim_right = after.is_some_and(|after| after.starts_with("- "));
        let mut literal = before;
        if trim_left {
            literal = literal.trim_start();
        }
        if trim_right {
            literal = literal.trim_end();
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.to_owned()));
        }
        let Some(after) = after else {
            return Ok(pieces);
        };
        let end = action_end(after).ok_or("unclosed action")?;
        let mut action = &after[..end];
        if trim_right {
            action = &action[1..];
        }
        trim_left = action.ends_with(" -");
        if trim_left {
            action = &action[..action.len() - 1];
        }
        let action = action.trim();
        if !action.starts_with("/*") {
            pieces.push(Piece::Action(action.to_owned()));
        }
        rest = &after[end + 2..];
    }
}

/// Where the `}}` is that is not inside a string.
fn action_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some('"'), '\\') => drop(chars.next()),
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '`') => quote = Some(c),
            (None, '}') if text[at + 1..].starts_with('}') => return Some(at),
            _ => {}
        }
    }
    None
}

fn body(pieces: &mut impl Iterator<Item = Piece>) -> Result<(Vec<Node>, End), String> {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(action) => action,
        };
        let tokens = lex(&action)?;
        let keyword = match tokens.first() {
            Some(Token::Word(word)) => word.as_str(),
            _ => "",
        };
        let rest = || tokens[1..].to_vec();
        match keyword {
            "end" => return Ok((nodes, End::Block)),
            "else" => return Ok((nodes, End::Else(rest()))),
            "break" => nodes.push(Node::Break),
            "continue" => nodes.push(Node::Continue),
            "if" | "with" | "range" => nodes.push(block(keyword, &rest(), pieces)?),
            _ => nodes.push(statement(&tokens)?),
        }
    }
    Ok((nodes, End::Eof))
}

fn block(
    keyword: &str,
    head: &[Token],
    pieces: &mut impl Iterator<Item = Piece>,
) -> Result<Node, String> {
    // The recursion is through a trait object: a generic one would instantiate itself for ever.
    let pieces: &mut dyn Iterator<Item = Piece> = pieces;
    let (variables, condition) = declaration(head);
    let condition = pipe(condition)?;
    let mut pieces = pieces;
    let (then, end) = body(&mut pieces)?;
    let otherwise = match end {
        End::Eof => return Err("unexpected EOF".to_owned()),
        End::Block => Vec::new(),
        End::Else(tokens) => {
            let tokens: &[Token] = match tokens.split_first() {
                Some((Token::Space, rest)) => rest,
                _ => &tokens,
            };
            if let Some((Token::Word(word), head)) = tokens.split_first() {
                vec![block(word, head, &mut pieces)?]
            } else {
                let (nodes, end) = body(&mut pieces)?;
                if !matches!(end, End::Block) {
                    return Err("unexpected EOF".to_owned());
                }
                nodes
            }
        }
    };
    match keyword {
        "if" => Ok(Node::If(condition, then, otherwise)),
        "with" => Ok(Node::With(condition, then, otherwise)),
        "range" => Ok(Node::Range(variables, condition, then, otherwise)),
        other => Err(format!("unexpected <{other}> in {{{{else}}}}")),
    }
}

/// Splits `$a, $b := rest` into the names and the rest.
fn declaration(tokens: &[Token]) -> (Vec<String>, &[Token]) {
    let Some(at) = tokens.iter().position(|token| *token == Token::Assign) else {
        return (Vec::new(), tokens);
    };
    let names = tokens[..at].iter().filter_map(|token| match token {
        Token::Variable(name) => Some(name.clone()),
        _ => None,
    });
    (names.collect(), &tokens[at + 1..])
}

fn statement(tokens: &[Token]) -> Result<Node, String> {
    let (mut names, rest) = declaration(tokens);
    let pipe = pipe(rest)?;
    Ok(match names.pop() {
        Some(name) => Node::Assign(name, pipe),
        None => Node::Print(pipe),
    })
}

fn pipe(tokens: &[Token]) -> Result<Pipe, String> {
    let mut commands = Vec::new();
    let mut depth = 0usize;
    let mut start = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            Token::Pipe if depth == 0 => {
                commands.push(command(&tokens[start..at])?);
                start = at + 1;
            }
            _ => {}
        }
    }
    commands.push(command(&tokens[start..])?);
    Ok(Pipe(commands))
}

fn command(tokens: &[Token]) -> Result<Command, String> {
    let mut terms: Vec<Term> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (term, used) = term(&tokens[at..])?;
        terms.extend(term);
        at += used;
    }
    if terms.is_empty() {
        return Err("missing value for command".to_owned());
    }
    Ok(Command(terms))
}

/// One term with the fields that follow it without a space, and how many tokens it took.
fn term(tokens: &[Token]) -> Result<(Option<Term>, usize), String> {
    let fields = |from: usize| -> Vec<String> {
        let follow = tokens[from..].iter().map_while(|token| match token {
            Token::Field(name) => Some(name.clone()),
            _ => None,
        });
        follow.collect()
    };
    Ok(match &tokens[0] {
        Token::Space | Token::Comma => (None, 1),
        Token::Literal(value) => (Some(Term::Literal(value.clone())), 1),
        Token::Dot => (Some(Term::Field(Vec::new())), 1),
        Token::Field(_) => {
            let path = fields(0);
            let used = path.len();
            (Some(Term::Field(path)), used)
        }
        Token::Variable(name) => {
            let path = fields(1);
            let used = path.len() + 1;
            (Some(Term::Variable(name.clone(), path)), used)
        }
        Token::Word(name) => (Some(Term::Function(name.clone())), 1),
        Token::Open => {
            let close = matching(tokens).ok_or("unclosed left paren")?;
            let path = fields(close + 1);
            let used = close + 1 + path.len();
            (Some(Term::Group(pipe(&tokens[1..close])?, path)), used)
        }
        Token::Close => return Err("unexpected right paren".to_owned()),
        Token::Assign | Token::Pipe => return Err("missing value for command".to_owned()),
    })
}

fn matching(tokens: &[Token]) -> Option<usize> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Open => depth += 1,
            Token::Close => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn lex(action: &str) -> Result<Vec<Token>, String> {
    let chars: Vec<char> = action.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    let word_end = |from: usize| {
        let length = chars[from..]
            .iter()
            .take_while(|c| c.is_alphanumeric() || **c == '_')
            .count();
        from + length
    };
    while at < chars.len() {
        let c = chars[at];
        let token = match c {
            c if c.is_whitespace() => {
                at += 1;
                if tokens.last() == Some(&Token::Space) {
                    continue;
                }
                Token::Space
            }
            '.' if chars
                .get(at + 1)
                .is_some_and(|c| c.is_alphabetic() || *c == '_') =>
            {
                let end = word_end(at + 1);
                let name = chars[at + 1..end].iter().collect();
                at = end;
                Token::Field(name)
            }
            '$' => {
                let end = word_end(at + 1);
                let name = chars[at..end].iter().collect();
                at = end;
                Token::Variable(name)
            }
            '"' | '`' => {
                let (text, end) = string(&chars, at)?;
                at = end;
                Token::Literal(Value::String(text))
            }
            c if c.is_ascii_digit() || c == '-' => {
                let (number, end) = number(&chars, at)?;
                at = end;
                Token::Literal(number)
            }
            c if c.is_alphabetic() || c == '_' => {
                let end = word_end(at);
                let word: String = chars[at..end].iter().collect();
                at = end;
                match word.as_str() {
                    "true" => Token::Literal(Value::Bool(true)),
                    "false" => Token::Literal(Value::Bool(false)),
                    "nil" => Token::Literal(Value::Null),
                    _ => Token::Word(word),
                }
            }
            _ => {
                let (token, length) = punctuation(&chars[at..])?;
                at += length;
                token
            }
        };
        tokens.push(token);
    }
    Ok(tokens)
}

fn punctuation(chars: &[char]) -> Result<(Token, usize), String> {
    Ok(match chars {
        ['.', ..] => (Token::Dot, 1),
        ['|', ..] => (Token::Pipe, 1),
        ['(', ..] => (Token::Open, 1),
        [')', ..] => (Token::Close, 1),
        [',', ..] => (Token::Comma, 1),
        [':', '=', ..] => (Token::Assign, 2),
        ['=', ..] => (Token::Assign, 1),
        [other, ..] => return Err(format!("unexpected {other:?} in command")),
        [] => return Err("unexpected EOF".to_owned()),
    })
}

fn string(chars: &[char], start: usize) -> Result<(String, usize), String> {
    let quote = chars[start];
    let mut text = String::new();
    let mut at = start + 1;
    while let Some(&c) = chars.get(at) {
        at += 1;
        match c {
            c if c == quote => return Ok((text, at)),
            '\\' if quote == '"' => {
                text.push(match chars.get(at) {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some('r') => '\r',
                    Some(other) => *other,
                    None => break,
                });
                at += 1;
            }
            _ => text.push(c),
        }
    }
    Err("unterminated quoted string".to_owned())
}

fn number(chars: &[char], start: usize) -> Result<(Value, usize), String> {
    let length = chars[start..]
        .iter()
        .take_while(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | 'e'))
        .count();
    let text: String = chars[start..start + length].iter().collect();
    serde_json::from_str(&text)
        .map(|value| (value, start + length))
        .map_err(|_| format!("bad number syntax: {text:?}"))
}
