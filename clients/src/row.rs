//! Tables of command lines.

use std::io::Write;

use crate::{Machine, Output, is_runc};

/// One behaviour: a script and what must come of it.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// What is shown, for the report.
    pub name: &'static str,
    /// The script, in bash.
    pub script: &'static str,
    /// The exit code.
    pub code: i32,
    /// Words that standard output or standard error must have, in this order.
    pub says: &'static [&'static str],
}

impl Row {
    /// A script that ends with 0 and says `says`.
    pub const fn new(
        name: &'static str,
        script: &'static str,
        says: &'static [&'static str],
    ) -> Self {
        Self::ends(name, script, 0, says)
    }

    /// A script that ends with `code`.
    pub const fn ends(
        name: &'static str,
        script: &'static str,
        code: i32,
        says: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            script,
            code,
            says,
        }
    }

    fn is_met(&self, output: &Output) -> bool {
        let mut rest = output.text.as_str();
        output.code == self.code
            && self.says.iter().all(|words| {
                rest.split_once(words)
                    .map(|(_, after)| rest = after)
                    .is_some()
            })
    }
}

impl Machine {
    /// Runs the rows in order and prints `CLIENT: N passed / N run`.
    ///
    /// # Panics
    /// If one is not met; all are tried first.
    pub fn try_all(&self, client: &str, rows: &[Row], run: impl Fn(&Self, &str) -> Output) {
        let mut failures = String::new();
        let mut passed = 0;
        for row in rows {
            let output = run(self, row.script);
            if row.is_met(&output) {
                passed += 1;
            } else {
                let Row {
                    name,
                    script,
                    code,
                    says,
                } = row;
                failures += &format!(
                    "{client}: {name}\n    $ {script}\n{output}; wanted {code} and {says:?}\n"
                );
            }
        }
        let runtime = if is_runc() { "runc" } else { "keel" };
        report(&format!(
            "{client} with {runtime}: {passed} passed / {} run\n",
            rows.len()
        ));
        assert!(failures.is_empty(), "\n{failures}");
    }
}

/// Written directly, not by print!, so that the test framework does not swallow it.
pub fn report(line: &str) {
    let _ = std::io::stderr().write_all(line.as_bytes());
}
