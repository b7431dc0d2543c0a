//! Where in a document a decoder stopped.

use super::json_key;

/// The JSON path of the value that is on `line` (from 1) of a document with one value on each line.
pub fn place_of_line(pretty: &str, line: usize) -> String {
    enum Step {
        Key(String),
        /// The index of the next item.
        Items(usize),
        Members,
    }
    let mut path: Vec<Step> = Vec::new();
    for (index, text) in pretty.lines().enumerate() {
        let text = text.trim_start();
        let last = index + 1 == line;
        let closes = text.starts_with(['}', ']']);
        if closes {
            // An error at the end of a value is about the value.
            path.pop();
        } else {
            match path.last_mut() {
                Some(Step::Members) => path.push(Step::Key(first_string(text))),
                Some(Step::Items(next)) => {
                    *next += 1;
                }
                _ => {}
            }
        }
        if last {
            break;
        }
        if !closes && text.ends_with('{') {
            path.push(Step::Members);
        } else if !closes && text.ends_with('[') {
            path.push(Step::Items(0));
        } else if matches!(path.last(), Some(Step::Key(_))) {
            path.pop();
        }
    }
    let mut shown = String::new();
    for step in &path {
        match step {
            Step::Key(key) => shown.push_str(&json_key(key)),
            Step::Items(next) => shown.push_str(&format!("[{}]", next.saturating_sub(1))),
            Step::Members => {}
        }
    }
    if shown.is_empty() { ".".into() } else { shown }
}

/// The JSON string that `text` begins with.
fn first_string(text: &str) -> String {
    let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
    strings.next().and_then(Result::ok).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_document_has_a_place() {
        let tree = serde_json::json!({
            "a": 1, "b": {"c.d": [true, {"e": null}, [], [[2]]], "f": {}}, "g{": "x["
        });
        let text = format!("{tree:#}");
        let places = [
            ".",
            ".a",
            ".b",
            r#".b["c.d"]"#,
            r#".b["c.d"][0]"#,
            r#".b["c.d"][1]"#,
            r#".b["c.d"][1].e"#,
            r#".b["c.d"][1]"#,
            r#".b["c.d"][2]"#,
            r#".b["c.d"][3]"#,
            r#".b["c.d"][3][0]"#,
            r#".b["c.d"][3][0][0]"#,
            r#".b["c.d"][3][0]"#,
            r#".b["c.d"][3]"#,
            r#".b["c.d"]"#,
            ".b.f",
            ".b",
            r#"["g{"]"#,
            ".",
        ];
        assert_eq!(text.lines().count(), places.len(), "{text}");
        for (index, want) in places.iter().enumerate() {
            assert_eq!(place_of_line(&text, index + 1), *want, "line {}", index + 1);
        }
    }
}
