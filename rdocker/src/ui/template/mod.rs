//! The part of Go's `text/template` that `--format` needs.
//!
//! Actions: fields, variables, pipelines, `if`/`else if`/`else`, `with`, `range` (one or two
//! variables), `break`, `continue`, comments and trim markers. Functions: Go's own comparisons,
//! `and or not index slice len print printf println` and Docker's `json join split lower upper
//! title pad truncate`. Data is JSON, so a Go struct and a Go map look the same here; a missing
//! field that starts with a capital is an error, as in a struct, any other prints `<no value>`.
//!
//! Source: pkg.go.dev/text/template; docs.docker.com "Format command and log output".

mod eval;
mod functions;
mod parse;

use serde_json::Value;

/// A parsed template, ready for any number of rows.
#[derive(Debug)]
pub struct Template {
    body: Vec<parse::Node>,
}

/// Why a template does not parse or does not fit the data. Docker prefixes parse errors with
/// `template parsing error: `; so does [`Template::parse`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct TemplateError(pub(super) String);

impl Template {
    /// Parses `text`. The escapes `\t` and `\n` outside actions stand for tab and newline, as in
    /// docker's `--format`.
    ///
    /// # Errors
    /// The first syntax error.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let body = parse::parse(&text)
            .map_err(|why| TemplateError(format!("template parsing error: template: :1: {why}")))?;
        Ok(Self { body })
    }

    /// Evaluates the template with `.` set to `data`.
    ///
    /// # Errors
    /// A missing field, a wrong argument, an unknown function.
    pub fn render(&self, data: &Value) -> Result<String, TemplateError> {
        let mut out = String::new();
        eval::Run::new(data)
            .body(&self.body, data, &mut out)
            .map_err(|error| {
                let eval::Stop::Failed(why) = error else {
                    return TemplateError(String::new());
                };
                TemplateError(format!("template: :1: executing \"\" {why}"))
            })?;
        Ok(out)
    }

    /// The top-level fields a table template names, in order: their headers make its first line.
    pub fn header(&self, title: &dyn Fn(&str) -> String) -> String {
        let mut line = String::new();
        for node in &self.body {
            match node {
                parse::Node::Text(text) => line.push_str(text),
                parse::Node::Print(pipe) => {
                    line.push_str(&pipe.first_field().map(title).unwrap_or_default());
                }
                _ => {}
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn data() -> Value {
        json!({
            "Name": "/web", "Id": "0123456789abcdef", "Size": 3, "Ratio": 1.5, "None": null,
            "Names": ["a", "b"], "Empty": [],
            "State": {"Status": "running", "Running": true, "Pid": 42},
            "Config": {"Labels": {"com.x": "y", "k": "v"}, "Cmd": ["sh", "-c", "a b"]},
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "9/udp": null},
            "Mounts": [{"Source": "/s", "Destination": "/d"}, {"Source": "/t", "Destination": "/e"}],
        })
    }

    #[test]
    fn templates_render_as_go_renders_them() {
        let cases: &[(&str, &str)] = &[
            ("plain", "plain"),
            ("{{.Name}}", "/web"),
            ("a{{ .State.Pid }}b", "a42b"),
            ("{{.State.Running}} {{.None}} {{.Ratio}}", "true <nil> 1.5"),
            ("{{.Names}} {{.Empty}}", "[a b] []"),
            ("{{.Config.Labels}}", "map[com.x:y k:v]"),
            ("{{json .Names}}", r#"["a","b"]"#),
            ("{{.State.Status | upper | printf \"%s!\"}}", "RUNNING!"),
            ("{{join .Config.Cmd \" \"}}", "sh -c a b"),
            (
                "{{index .Config.Labels \"com.x\"}}{{index .Config.Labels \"no\"}}",
                "y",
            ),
            ("{{.Config.Labels.k}}{{.Config.Labels.no}}", "v<no value>"),
            ("{{index .Names 1}}", "b"),
            ("{{(index (index .Ports \"80/tcp\") 0).HostPort}}", "8080"),
            (
                "{{if eq .State.Status \"running\"}}up{{else}}down{{end}}",
                "up",
            ),
            ("{{if .None}}x{{else if .Empty}}y{{else}}z{{end}}", "z"),
            (
                "{{range .Mounts}}{{.Source}}:{{.Destination}} {{end}}",
                "/s:/d /t:/e ",
            ),
            (
                "{{range $i, $m := .Names}}{{$i}}={{$m}};{{end}}",
                "0=a;1=b;",
            ),
            ("{{range $p, $c := .Ports}}{{$p}} {{end}}", "80/tcp 9/udp "),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            (
                "{{range .Names}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}",
                "a",
            ),
            (
                "{{with .State}}{{.Pid}}{{end}}{{with .None}}x{{else}}-{{end}}",
                "42-",
            ),
            ("{{$x := .Name}}{{$x}} {{$.Name}}", "/web /web"),
            ("a {{- .Size -}} b", "a3b"),
            ("{{/* note */}}x", "x"),
            ("{{len .Names}} {{len .Name}}", "2 4"),
            (
                "{{printf \"%5d|%-5s|%q|%v|%.2f\" .Size \"a\" \"b\" .Names .Ratio}}",
                "    3|a    |\"b\"|[a b]|1.50",
            ),
            (
                "{{and .Size .None}} {{or .None .Name}} {{not .None}}",
                "<nil> /web true",
            ),
            (
                "{{gt .Size 2}} {{le .Size 2}} {{ne .Size 3}}",
                "true false false",
            ),
            (
                "{{truncate .Id 4}}|{{pad .Name 1 2}}|{{title \"ab\"}}",
                "0123| /web  |Ab",
            ),
            ("{{slice .Id 0 3}}", "012"),
            ("{{split \"a,b\" \",\"}}", "[a b]"),
            ("{{join (split \"ab\" \"\") \"-\"}}", "a-b"),
            (
                "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}",
                "none",
            ),
            ("{{.State.STATUS}}", "running"),
            ("{{println .Size}}", "3\n"),
            ("{{print .Size .Size \"x\"}}", "3 3x"),
            ("{{\"a\\tb\"}}\\t{{`raw`}}", "a\tb\traw"),
            ("{{eq .Size 1 2 3}}", "true"),
        ];
        for (text, want) in cases {
            let got = Template::parse(text).and_then(|template| template.render(&data()));
            assert_eq!(got.as_deref(), Ok(*want), "{text}");
        }
    }

    #[test]
    fn mistakes_are_told_in_docker_words() {
        let cases: &[(&str, &str)] = &[
            ("{{.Nope}}", "map has no entry for key \"Nope\""),
            ("{{.Name", "unclosed action"),
            ("{{nope .Name}}", "function \"nope\" not defined"),
            ("{{if .Name}}", "unexpected EOF"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{index .Names 9}}", "index out of range: 9"),
            ("{{$x}}", "undefined variable \"$x\""),
        ];
        for (text, want) in cases {
            let got = Template::parse(text).and_then(|template| template.render(&data()));
            let why = got.expect_err(text).to_string();
            assert!(why.contains(want), "{text}: {why}");
        }
    }

    #[test]
    fn a_table_header_is_made_from_the_fields_in_their_order() {
        let template = Template::parse("{{.ID}}\\t{{.Names | upper}}\\t{{.Label \"a\"}}").unwrap();
        assert_eq!(
            template.header(&|field| field.to_lowercase()),
            "id\tnames\tlabel"
        );
    }
}
