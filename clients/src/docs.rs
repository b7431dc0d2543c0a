//! The documentation, taken at its word.
//!
//! In `docs/integrations/NAME.md` and `docs/packaging.md` a fenced block after the comment
//! `<!-- file: PATH -->` is a file of that path, and one after `<!-- run -->` a script that must succeed.

/// The pages with tested blocks; part of the program, as it also runs where there are no sources.
const PAGES: &[(&str, &str)] = &[
    (
        "buildah",
        include_str!("../../docs/integrations/buildah.md"),
    ),
    (
        "containerd",
        include_str!("../../docs/integrations/containerd.md"),
    ),
    ("cri", include_str!("../../docs/integrations/cri.md")),
    ("docker", include_str!("../../docs/integrations/docker.md")),
    (
        "kubernetes",
        include_str!("../../docs/integrations/kubernetes.md"),
    ),
    ("packaging", include_str!("../../docs/packaging.md")),
    ("podman", include_str!("../../docs/integrations/podman.md")),
];

/// A tested block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// A file and its text.
    File(String, String),
    /// A script.
    Run(String),
}

/// The tested blocks of the page `NAME.md`, in order.
///
/// # Panics
/// If there is no such page, or nothing in it to be tested.
pub fn blocks(name: &str) -> Vec<Block> {
    let page = PAGES.iter().find(|(page, _)| *page == name);
    let (_, text) = page.unwrap_or_else(|| panic!("there is no page {name}"));
    let blocks = parse(text);
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
