//! Walks the syntax tree over JSON data.

use serde_json::Value;

use super::functions;
use super::parse::{Command, Node, Pipe, Term};

/// Why evaluation of a body ended early.
pub enum Stop {
    /// The template does not fit the data.
    Failed(String),
    /// `break`.
    Break,
    /// `continue`.
    Continue,
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// One rendering: the root data and the variables in scope, innermost last.
pub struct Run {
    variables: Vec<(String, Value)>,
}

/// Fields that Docker's types have and its JSON leaves out when they are empty.
const OPTIONAL: &[&str] = &[
    "Annotations",
    "Health",
    "Healthcheck",
    "Init",
    "Mounts",
    "Shell",
    "SizeRootFs",
    "SizeRw",
    "StopTimeout",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
];

/// Texts of which the same is true; an event that is not of a container has neither of its two.
const OPTIONAL_TEXTS: &[&str] = &["StopSignal", "Variant"];
const EVENT_TEXTS: &[&str] = &["From", "Status"];

/// What a missing map key evaluates to; printed as Go prints it.
const NO_VALUE: &str = "<no value>";

impl Run {
    /// `$` is the data the template was called with.
    pub fn new(data: &Value) -> Self {
        Self {
            variables: vec![("$".to_owned(), data.clone())],
        }
    }

    /// Renders `nodes` with `dot` into `out`.
    pub fn body(&mut self, nodes: &[Node], dot: &Value, out: &mut String) -> Result<(), Stop> {
        let scope = self.variables.len();
        for node in nodes {
            self.node(node, dot, out)?;
        }
        self.variables.truncate(scope);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value, out: &mut String) -> Result<(), Stop> {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipe) => out.push_str(&functions::display(&self.pipe(pipe, dot)?)),
            Node::Assign(name, pipe) => {
                let value = self.pipe(pipe, dot)?;
                match self
                    .variables
                    .iter_mut()
                    .rev()
                    .find(|(known, _)| known == name)
                {
                    Some((_, old)) => *old = value,
                    None => self.variables.push((name.clone(), value)),
                }
            }
            Node::If(condition, then, otherwise) => {
                let truth = functions::truth(&self.pipe(condition, dot)?);
                self.body(if truth { then } else { otherwise }, dot, out)?;
            }
            Node::With(condition, then, otherwise) => {
                let value = self.pipe(condition, dot)?;
                if functions::truth(&value) {
                    self.body(then, &value, out)?;
                } else {
                    self.body(otherwise, dot, out)?;
                }
            }
            Node::Range(names, over, then, otherwise) => {
                let over = self.pipe(over, dot)?;
                let items = elements(&over)?;
                if items.is_empty() {
                    return self.body(otherwise, dot, out);
                }
                self.range(names, items, then, out)?;
            }
            Node::Break => return Err(Stop::Break),
            Node::Continue => return Err(Stop::Continue),
        }
        Ok(())
    }

    fn range(
        &mut self,
        names: &[String],
        items: Vec<(Value, Value)>,
        then: &[Node],
        out: &mut String,
    ) -> Result<(), Stop> {
        let scope = self.variables.len();
        for (key, item) in items {
            match names {
                [element] => self.variables.push((element.clone(), item.clone())),
                [index, element, ..] => {
                    self.variables.push((index.clone(), key));
                    self.variables.push((element.clone(), item.clone()));
                }
                [] => {}
            }
            let step = self.body(then, &item, out);
            self.variables.truncate(scope);
            match step {
                Err(Stop::Break) => break,
                Ok(()) | Err(Stop::Continue) => {}
                Err(failed) => return Err(failed),
            }
        }
        Ok(())
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, String> {
        let mut result = None;
        for command in &pipe.0 {
            result = Some(self.command(command, dot, result)?);
        }
        result.ok_or_else(|| "missing value for command".to_owned())
    }

    fn command(
        &mut self,
        command: &Command,
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value, String> {
        let (head, arguments) = command.0.split_first().ok_or("empty command")?;
        if let Term::Function(name) = head {
            let mut values = Vec::with_capacity(arguments.len() + 1);
            for argument in arguments {
                values.push(self.term(argument, dot)?);
            }
            values.extend(piped);
            return functions::call(name, &values);
        }
        let value = self.term(head, dot)?;
        let mut values = Vec::new();
        for argument in arguments {
            values.push(self.term(argument, dot)?);
        }
        values.extend(piped);
        match values.as_slice() {
            [] => Ok(value),
            // A method with one argument, such as `.Label "name"`.
            [key] if value.is_object() => functions::call("index", &[value, key.clone()]),
            _ => Err("can't give argument to non-function".to_owned()),
        }
    }

    fn term(&mut self, term: &Term, dot: &Value) -> Result<Value, String> {
        match term {
            Term::Literal(value) => Ok(value.clone()),
            Term::Field(path) => walk(dot, path),
            Term::Variable(name, path) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = found.ok_or_else(|| format!("undefined variable {name:?}"))?;
                walk(value, path)
            }
            Term::Function(name) => functions::call(name, &[]),
            Term::Group(pipe, path) => walk(&self.pipe(pipe, dot)?, path),
        }
    }
}

fn walk(value: &Value, path: &[String]) -> Result<Value, String> {
    let empty = Value::from("");
    let mut value = value;
    for name in path {
        let Some(fields) = value.as_object() else {
            return Err(match value {
                Value::Null => format!("at <.{name}>: nil pointer evaluating .{name}"),
                _ => format!("at <.{name}>: can't evaluate field {name}"),
            });
        };
        value = match field(fields, name) {
            Some(value) => value,
            None if OPTIONAL_TEXTS.contains(&name.as_str()) => &empty,
            None if EVENT_TEXTS.contains(&name.as_str()) && is_event(fields) => &empty,
            None if OPTIONAL.contains(&name.as_str()) => &Value::Null,
            None if name.starts_with(|c: char| c.is_uppercase()) => {
                return Err(format!("at <.{name}>: map has no entry for key {name:?}"));
            }
            None => return Ok(Value::String(NO_VALUE.to_owned())),
        };
    }
    Ok(value.clone())
}

/// A field by the name it has in JSON, or by the name of Docker's Go type, which differs in case:
/// `APIVersion` is written `ApiVersion`, an event's `Status` is `status`.
fn field<'v>(fields: &'v serde_json::Map<String, Value>, name: &str) -> Option<&'v Value> {
    let same = |(key, _): &(&String, &Value)| key.eq_ignore_ascii_case(name);
    let is_go = name.starts_with(|c: char| c.is_uppercase());
    let other = || is_go.then(|| fields.iter().find(same)).flatten();
    fields.get(name).or_else(|| other().map(|(_, value)| value))
}

fn is_event(fields: &serde_json::Map<String, Value>) -> bool {
    fields.contains_key("Action") && fields.contains_key("Actor")
}

/// Keys and elements of a list or map; maps in key order, as Go ranges over them.
fn elements(value: &Value) -> Result<Vec<(Value, Value)>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => Ok(items
            .iter()
            .enumerate()
            .map(|(i, item)| (Value::from(i), item.clone()))
            .collect()),
        Value::Object(map) => Ok(map
            .iter()
            .map(|(key, item)| (Value::from(key.clone()), item.clone()))
            .collect()),
        other => Err(format!(
            "range can't iterate over {}",
            functions::display(other)
        )),
    }
}
