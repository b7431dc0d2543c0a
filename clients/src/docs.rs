//! The documentation, taken at its word.
//!
//! In `docs/integrations/NAME.md` a fenced block after the comment `<!-- file: PATH -->` is a file of
//! that path, and one after `<!-- run -->` a script that must succeed.

use std::fs;
use std::path::Path;

/// A tested block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// A file and its text.
    File(String, String),
    /// A script.
    Run(String),
}

/// The tested blocks of `docs/integrations/NAME.md`, in order.
///
/// # Panics
/// If there is no such page, or nothing in it to be tested.
pub fn blocks(name: &str) -> Vec<Block> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = root.join(format!("docs/integrations/{name}.md"));
    let text = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
    let blocks = parse(&text);
    assert!(!blocks.is_empty(), "{name}.md has nothing to be tested");
    blocks
}

fn parse(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(mark) = line
            .strip_prefix("<!-- ")
            .and_then(|line| line.strip_suffix(" -->"))
        else {
            continue;
        };
        let mut body = String::new();
        for line in lines
            .by_ref()
            .skip_while(|line| !line.starts_with("```"))
            .skip(1)
        {
            if line.starts_with("```") {
                break;
            }
            body += line;
            body.push('\n');
        }
        match mark.strip_prefix("file: ") {
            Some(path) => blocks.push(Block::File(path.to_owned(), body)),
            None => blocks.push(Block::Run(body)),
        }
    }
    blocks
}

impl crate::Machine {
    /// Writes the files of a page.
    pub fn write_files_of(&self, name: &str) {
        for block in blocks(name) {
            if let Block::File(path, text) = block {
                self.write(&path, &text);
            }
        }
    }

    /// Runs the scripts of a page.
    ///
    /// # Panics
    /// If one fails.
    pub fn run_scripts_of(&self, name: &str) {
        for block in blocks(name) {
            if let Block::Run(script) = block {
                let output = self.sh(&format!("set -e\n{script}"));
                assert_eq!(output.code, 0, "{name}.md:\n{script}\n{output}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_blocks_are_tested() {
        let text = "# A\n```sh\nno\n```\n<!-- file: /etc/a -->\n```toml\nx = 1\n```\ntext\n\
                    <!-- run -->\n\n```sh\ntrue\nfalse\n```\n";
        let wanted = [
            Block::File("/etc/a".into(), "x = 1\n".into()),
            Block::Run("true\nfalse\n".into()),
        ];
        assert_eq!(parse(text), wanted);
    }
}
