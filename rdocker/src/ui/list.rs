//! Rows shown by `--format`: as a table with a header, as JSON lines, or by the user's template.

use serde_json::Value;

use super::template::{Template, TemplateError};
use super::{Ui, table};
use crate::error::{Error, Result};

/// How the rows of one command look when the user asks for nothing special.
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    /// The default `table` template, without the word `table`.
    pub template: &'static str,
    /// Field and header of every column; a field that is not listed is its own header in capitals.
    pub headers: &'static [(&'static str, &'static str)],
}

/// What is wrong with a template, as the lists tell it.
fn bad(error: &TemplateError) -> Error {
    let text = error.to_string();
    Error::Usage(match text.strip_prefix("template parsing error: ") {
        Some(why) => format!("failed to parse template: {why}"),
        None => format!("failed to execute template: {text}"),
    })
}

impl From<TemplateError> for Error {
    fn from(error: TemplateError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl Columns {
    /// Writes `rows` in the manner `format` asks for; `None`, empty and `table` are the default.
    ///
    /// # Errors
    /// A template that does not parse or names a missing field.
    pub fn show(&self, ui: &mut Ui, format: Option<&str>, rows: &[Value]) -> Result<()> {
        let format = format.unwrap_or("").trim();
        let as_table = match format {
            "" | "table" => Some(self.template),
            _ => format.strip_prefix("table ").map(str::trim),
        };
        if let Some(template) = as_table {
            let template = Template::parse(template).map_err(|error| bad(&error))?;
            let mut lines = vec![template.header(&|field| self.header(field))];
            for row in rows {
                lines.push(template.render(row).map_err(|error| bad(&error))?);
            }
            return ui.bytes(table::layout_lines(&lines).as_bytes());
        }
        let template = Template::parse(if format == "json" {
            "{{json .}}"
        } else {
            format
        })
        .map_err(|error| bad(&error))?;
        for row in rows {
            ui.line(template.render(row).map_err(|error| bad(&error))?)?;
        }
        Ok(())
    }

    fn header(&self, field: &str) -> String {
        let known = self.headers.iter().find(|(name, _)| *name == field);
        known.map_or_else(|| field.to_uppercase(), |(_, header)| (*header).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::{self, Write};
    use std::rc::Rc;

    use serde_json::json;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Rc<RefCell<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const COLUMNS: Columns = Columns {
        template: "{{.ID}}\t{{.Names}}",
        headers: &[("ID", "CONTAINER ID"), ("Names", "NAMES")],
    };

    #[test]
    fn every_way_to_ask_for_rows_gives_docker_shape() {
        let cases: &[(Option<&str>, &str)] = &[
            (None, "CONTAINER ID   NAMES\nabc            web\n"),
            (Some("table"), "CONTAINER ID   NAMES\nabc            web\n"),
            (
                Some("table {{.Names}}\\t{{.ID}}"),
                "NAMES     CONTAINER ID\nweb       abc\n",
            ),
            (Some("json"), "{\"ID\":\"abc\",\"Names\":\"web\"}\n"),
            (Some("{{.Names}}"), "web\n"),
        ];
        for (format, want) in cases {
            let out = Captured::default();
            let mut ui = Ui::to(out.clone(), io::sink());
            COLUMNS
                .show(&mut ui, *format, &[json!({"ID": "abc", "Names": "web"})])
                .unwrap();
            assert_eq!(
                String::from_utf8(out.0.take()).unwrap(),
                *want,
                "{format:?}"
            );
        }
    }
}
