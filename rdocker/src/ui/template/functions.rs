//! The functions a template may call, and how values print.

use std::cmp::Ordering;

use serde_json::Value;

/// Whether `if` takes the branch: false are zero, null, false and everything empty.
pub fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// The value as Go's `%v` prints it.
pub fn display(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(display).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}:{}", display(value)))
                .collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

/// Calls the function `name`.
pub fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let string = |at: usize| -> Result<String, String> {
        arguments
            .get(at)
            .map(display)
            .ok_or_else(|| wrong_count(name, arguments))
    };
    match name {
        "json" => {
            let value = arguments
                .first()
                .ok_or_else(|| wrong_count(name, arguments))?;
            serde_json::to_string(value)
                .map(Value::String)
                .map_err(|error| error.to_string())
        }
        "lower" => Ok(string(0)?.to_lowercase().into()),
        "upper" => Ok(string(0)?.to_uppercase().into()),
        "title" => Ok(title(&string(0)?).into()),
        "split" => Ok(split(&string(0)?, &string(1)?)),
        "join" => {
            let items = arguments
                .first()
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            let items: Vec<String> = items.iter().map(display).collect();
            Ok(items.join(&string(1)?).into())
        }
        "pad" => {
            let (before, after) = (integer(name, arguments, 1)?, integer(name, arguments, 2)?);
            Ok(format!("{}{}{}", " ".repeat(before), string(0)?, " ".repeat(after)).into())
        }
        "truncate" => {
            let length = integer(name, arguments, 1)?;
            Ok(string(0)?.chars().take(length).collect::<String>().into())
        }
        "index" => index(arguments),
        "slice" => slice(arguments),
        "len" => length(arguments),
        "print" => Ok(print(arguments).into()),
        "println" => {
            let items: Vec<String> = arguments.iter().map(display).collect();
            Ok(format!("{}\n", items.join(" ")).into())
        }
        "printf" => printf(&string(0)?, &arguments[1..]).map(Value::String),
        "not" => Ok(Value::Bool(!arguments.first().is_some_and(truth))),
        "and" => choose(arguments, false),
        "or" => choose(arguments, true),
        "eq" | "ne" | "lt" | "le" | "gt" | "ge" => compare(name, arguments),
        _ => Err(format!("function {name:?} not defined")),
    }
}

fn wrong_count(name: &str, arguments: &[Value]) -> String {
    format!(
        "at <{name}>: wrong number of args for {name}: got {}",
        arguments.len()
    )
}

fn integer(name: &str, arguments: &[Value], at: usize) -> Result<usize, String> {
    let value = arguments.get(at).and_then(Value::as_u64);
    value
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| wrong_count(name, arguments))
}

fn title(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

/// `and` gives the first false argument, `or` the first true one; else the last.
fn choose(arguments: &[Value], wanted: bool) -> Result<Value, String> {
    let found = arguments
        .iter()
        .find(|value| truth(value) == wanted)
        .or(arguments.last());
    found
        .cloned()
        .ok_or_else(|| "wrong number of args for and/or: want at least 1".to_owned())
}

fn index(arguments: &[Value]) -> Result<Value, String> {
    let (first, keys) = arguments
        .split_first()
        .ok_or_else(|| wrong_count("index", arguments))?;
    let mut value = first.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Array(items), Value::Number(at)) => {
                let at = at.as_u64().and_then(|at| usize::try_from(at).ok());
                at.and_then(|at| items.get(at)).cloned().ok_or_else(|| {
                    format!("at <index>: error calling index: index out of range: {key}")
                })?
            }
            // Nor has a map that was left out.
            (Value::Null, Value::String(_)) => "".into(),
            // A missing key gives the element type's zero value; labels and environments, the
            // maps people index, hold strings.
            (Value::Object(map), Value::String(key)) => map
                .get(key)
                .cloned()
                .unwrap_or_else(|| Value::String(String::new())),
            (Value::Null, _) => {
                return Err("at <index>: error calling index: index of untyped nil".to_owned());
            }
            _ => {
                let kind = display(&value);
                return Err(format!(
                    "at <index>: error calling index: can't index item of type {kind}"
                ));
            }
        };
    }
    Ok(value)
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let value = arguments
        .first()
        .ok_or_else(|| wrong_count("slice", arguments))?;
    let range = |length: usize| -> Result<std::ops::Range<usize>, String> {
        let bound = |at: usize, default: usize| match arguments.get(at) {
            Some(_) => integer("slice", arguments, at),
            None => Ok(default),
        };
        let (from, to) = (bound(1, 0)?, bound(2, length)?);
        if from > to || to > length {
            return Err(format!(
                "at <slice>: error calling slice: index out of range: {to}"
            ));
        }
        Ok(from..to)
    };
    match value {
        Value::Array(items) => Ok(items[range(items.len())?].to_vec().into()),
        other => {
            let chars: Vec<char> = display(other).chars().collect();
            Ok(chars[range(chars.len())?].iter().collect::<String>().into())
        }
    }
}

fn length(arguments: &[Value]) -> Result<Value, String> {
    match arguments.first() {
        Some(Value::Array(items)) => Ok(items.len().into()),
        Some(Value::Object(map)) => Ok(map.len().into()),
        Some(Value::String(text)) => Ok(text.len().into()),
        Some(Value::Null) => Ok(0.into()),
        Some(other) => Err(format!("at <len>: len of type {}", display(other))),
        None => Err(wrong_count("len", arguments)),
    }
}

/// As Go's Sprint: a space only between two operands of which neither is a string.
fn print(arguments: &[Value]) -> String {
    let mut text = String::new();
    for (at, value) in arguments.iter().enumerate() {
        if at > 0 && !value.is_string() && !arguments[at - 1].is_string() {
            text.push(' ');
        }
        text.push_str(&display(value));
    }
    text
}

fn compare(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let [left, rights @ ..] = arguments else {
        return Err(wrong_count(name, arguments));
    };
    let right = rights.first().ok_or_else(|| wrong_count(name, arguments))?;
    let order = |left: &Value, right: &Value| match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (left, right) => (left == right).then_some(Ordering::Equal),
    };
    let found = order(left, right);
    let truth = match name {
        "eq" => rights
            .iter()
            .any(|right| order(left, right) == Some(Ordering::Equal)),
        "ne" => found != Some(Ordering::Equal),
        "lt" => found == Some(Ordering::Less),
        "le" => matches!(found, Some(Ordering::Less | Ordering::Equal)),
        "gt" => found == Some(Ordering::Greater),
        _ => matches!(found, Some(Ordering::Greater | Ordering::Equal)),
    };
    Ok(Value::Bool(truth))
}

/// The verbs `%v %s %d %q %t %x %X %f %g %%` with width, `-`, `0` and precision.
fn printf(format: &str, arguments: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '0' | '+' | '#' | ' ')) {
            flags.push(flag);
        }
        let mut number = || {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse::<usize>().ok()
        };
        let width = number().unwrap_or(0);
        let precision = if chars.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            Some(digits.parse::<usize>().unwrap_or(0))
        } else {
            None
        };
        let verb = chars.next().ok_or("%!(NOVERB)")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let text = match arguments.next() {
            Some(value) => verb_text(verb, value, precision),
            None => format!("%!{verb}(MISSING)"),
        };
        let fill = width.saturating_sub(text.chars().count());
        if flags.contains('-') {
            out.push_str(&text);
            out.extend(std::iter::repeat_n(' ', fill));
        } else {
            let pad = if flags.contains('0') { '0' } else { ' ' };
            out.extend(std::iter::repeat_n(pad, fill));
            out.push_str(&text);
        }
    }
    Ok(out)
}

fn verb_text(verb: char, value: &Value, precision: Option<usize>) -> String {
    match (verb, value) {
        ('q', _) => Value::String(display(value)).to_string(),
        ('f', Value::Number(number)) => {
            format!(
                "{:.*}",
                precision.unwrap_or(6),
                number.as_f64().unwrap_or(0.0)
            )
        }
        ('x', Value::Number(number)) => format!("{:x}", number.as_u64().unwrap_or(0)),
        ('X', Value::Number(number)) => format!("{:X}", number.as_u64().unwrap_or(0)),
        ('s', Value::String(text)) => match precision {
            Some(length) => text.chars().take(length).collect(),
            None => text.clone(),
        },
        ('d', Value::String(text)) => format!("%!d(string={text})"),
        _ => display(value),
    }
}

/// The parts between separators; no separator gives the single characters, as Go's strings.Split.
fn split(text: &str, separator: &str) -> Value {
    if separator.is_empty() {
        return text.chars().map(|c| Value::from(c.to_string())).collect();
    }
    text.split(separator).map(Value::from).collect()
}
