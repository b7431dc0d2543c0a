//! Checks the import rule of `lib.rs`, and that `unsafe` stays in `sys`, by reading the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// `run` is `create`, `start` and `delete` in one go, `restore` a `create` from other files, and both
/// it and `checkpoint` end with a `delete`.
const ALLOWED_BETWEEN_VERBS: &[(&str, &str)] = &[
    ("run", "create"),
    ("run", "start"),
    ("run", "delete"),
    ("restore", "create"),
    ("restore", "checkpoint"),
    ("restore", "delete"),
    ("checkpoint", "delete"),
];

/// What the code between clone and execve may use: see `child`.
const CHILD_USES: &[&str] = &["plan", "sys"];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// Each source file's module, path and code: without comments and without its tests.
fn code() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let without_tests = |text: &str| {
        let lines = text
            .lines()
            .take_while(|line| !line.starts_with("#[cfg(test)]"));
        let code = lines.map(|line| line.split("//").next().unwrap_or_default());
        code.collect::<Vec<_>>().join("\n")
    };
    files
        .into_iter()
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name != "tests.rs" && name != "import_rule.rs")
        })
        .map(|path| {
            let inner = path.strip_prefix(&src).unwrap().to_path_buf();
            let first = Path::new(inner.components().next().unwrap().as_os_str());
            let module = first.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            (module, inner, without_tests(&text))
        })
        .collect()
}

/// The modules in their order, and those between "The verbs" and the next empty line.
fn listed() -> (Vec<String>, Vec<String>) {
    let text = include_str!("lib.rs");
    let names = |text: &str| {
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("pub mod "));
        lines
            .map(|line| line.split(';').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let verbs = text.split("// The verbs").nth(1).unwrap();
    (names(text), names(verbs.split("\n\n").next().unwrap()))
}

/// The modules named after `crate::`, in `use` lines with and without braces and in paths.
fn used(code: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect()
    };
    let mut all = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => all.push(name(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (at, c) in group.char_indices() {
                    if start && depth == 0 && !c.is_whitespace() {
                        all.push(name(&group[at..]));
                        start = false;
                    }
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' => start = depth == 0,
                        _ => {}
                    }
                }
            }
        }
    }
    all.retain(|name| !name.is_empty());
    all
}

#[test]
fn the_reader_of_imports_sees_all_their_forms() {
    let code = "use crate::{a, b::{c, d}, e};\nuse crate::f::G;\nlet x = crate::h::i();\n\
                use crate::{\n    j,\n    k::L,\n};";
    assert_eq!(used(code), ["a", "b", "e", "f", "h", "j", "k"]);
}

#[test]
fn a_module_uses_only_modules_listed_below_it() {
    let (order, verbs) = listed();
    let place = |name: &str| order.iter().position(|listed| listed == name);
    for (module, path, code) in code() {
        let Some(own) = place(&module) else { continue };
        for name in used(&code) {
            let shown = path.display();
            let Some(other) = place(&name) else { continue };
            let pair = (module.as_str(), name.as_str());
            let between_verbs = verbs.contains(&module) && verbs.contains(&name);
            if module == name || ALLOWED_BETWEEN_VERBS.contains(&pair) {
                continue;
            }
            assert!(
                !between_verbs,
                "{shown}: the verb {module} uses the verb {name}"
            );
            assert!(
                own < other,
                "{shown}: {module} uses {name}, which is listed above it"
            );
            let child = module == "child";
            assert!(
                !child || CHILD_USES.contains(&name.as_str()),
                "{shown} uses {name}"
            );
        }
    }
}

#[test]
fn every_module_is_in_the_list() {
    let (order, _) = listed();
    for (module, path, _) in code() {
        let known = order.contains(&module) || ["main", "lib"].contains(&module.as_str());
        assert!(known, "{} belongs to no listed module", path.display());
    }
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    for (module, path, code) in code() {
        let words = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        let found = code.split(words).any(|word| word == "unsafe");
        let allowed = code.contains("allow(unsafe_code)");
        assert!(module == "sys" || !(found || allowed), "{}", path.display());
    }
}

/// The number in front of `what` in the README.
fn promised(what: &str) -> usize {
    let readme = include_str!("../README.md");
    let end = readme.find(what).expect(what);
    let word = readme[..end].split_whitespace().last().expect(what);
    word.parse().expect(what)
}

/// A promise must hold, and be near the truth.
fn holds(what: &str, is: usize) {
    let most = promised(what);
    assert!(
        is <= most && is * 5 > most * 4,
        "README: at most {most} {what}; it is {is}"
    );
}

#[test]
fn the_readme_counts_unsafe_code() {
    let pieces = |code: &str| {
        let words = ["unsafe {", "unsafe impl", "unsafe extern", "unsafe fn"];
        words
            .iter()
            .map(|word| code.matches(word).count())
            .sum::<usize>()
    };
    let counts = code().into_iter().map(|(_, _, code)| pieces(&code));
    holds("pieces of unsafe code", counts.sum());
}

#[test]
fn the_readme_counts_crates() {
    let tree = std::process::Command::new(env!("CARGO"))
        .args([
            "tree", "-p", "keel", "--edges", "normal", "--prefix", "none",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = String::from_utf8(tree.stdout).unwrap();
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let names: std::collections::BTreeSet<String> = text.lines().map(name).collect();
    holds("crates", names.len());
}

/// `make sbom`.
#[test]
fn the_bill_of_materials_is_as_long_as_the_readme_says() {
    let script = std::process::Command::new("integration/setup/sbom")
        .arg("keel")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let bill: serde_json::Value = serde_json::from_slice(&script.stdout).unwrap();
    let parts = bill["components"].as_array().unwrap();
    assert!(parts.iter().all(|part| part["licenses"].is_array()));
    holds("crates", parts.len() + 1);
}

/// Where a release was built beside these tests.
#[test]
fn the_readme_knows_how_large_the_binary_is() {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap();
    if let Ok(stat) = fs::metadata(target.join("release/keel")) {
        holds("kB of binary", usize::try_from(stat.len()).unwrap() / 1000);
    }
}
