//! Writes the manual pages and shell completions of keel and rdocker from the definitions of their
//! command lines.
//!
//! An example and not a verb, so that the generators stay out of the binaries:
//! `cargo run --example docs -- DIRECTORY` fills `man/` and `completions/` there.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::{Shell, generate_to};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("name a directory")?);
    write(&dir)
}

fn write(dir: &Path) -> Result<(), Box<dyn Error>> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    // A page of a verb that is no more would be installed with the others.
    if man.exists() {
        fs::remove_dir_all(&man)?;
    }
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    // keel is for administrators and their programs, rdocker for everybody.
    for (name, section, program) in [
        ("keel", "8", keel::cli::command()),
        ("rdocker", "1", rdocker::cli::command()),
    ] {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            generate_to(shell, &mut shown(name, &program), name, &completions)?;
        }
        write_pages(program, name, section, &man)?;
    }
    fs::write(dir.join("errors.md"), keel::error::code::table())?;
    Ok(())
}

/// `program` without the verbs that it keeps for itself: zsh would offer them.
fn shown(name: &'static str, program: &Command) -> Command {
    let verbs = program.get_subcommands().filter(|verb| !verb.is_hide_set());
    Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args(program.get_arguments())
        .subcommands(verbs)
}

/// `keel.8`, and a page for each verb as git does it: `keel-create.8`, `rdocker-network-create.1`.
fn write_pages(
    command: Command,
    name: &str,
    section: &str,
    man: &Path,
) -> Result<(), Box<dyn Error>> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = format!("{name}-{}", verb.get_name());
        write_pages(verb.clone(), &name, section, man)?;
    }
    let page: &'static str = name.to_owned().leak();
    let command = command.name(page).display_name(page);
    let mut text = Vec::new();
    clap_mangen::Man::new(command)
        .section(section)
        .render(&mut text)?;
    fs::write(man.join(format!("{name}.{section}")), text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use super::*;

    /// Runs `line` in the repository; what it wrote, if it succeeded.
    fn shell(line: &str) -> String {
        let root = env!("CARGO_MANIFEST_DIR");
        let mut shell = Process::new("bash");
        let output = shell.args(["-ec", line]).current_dir(root).output();
        let output = output.expect("bash runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Every name below `dir`, relative to it.
    fn files(dir: &Path) -> Vec<String> {
        let listed = shell(&format!(
            "cd {} && find . -type f -o -type l",
            dir.display()
        ));
        listed.lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_verb_has_a_page_and_only_what_people_type_has() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let pages = files(&dir.path().join("man"));
        for page in ["keel.8", "keel-create.8", "rdocker.1", "rdocker-run.1"] {
            assert!(pages.contains(&format!("./{page}")), "{page}: {pages:?}");
        }
        assert!(pages.contains(&"./rdocker-network-create.1".to_owned()));
        let hidden: Vec<_> = pages.iter().filter(|page| page.contains("__")).collect();
        assert!(hidden.is_empty(), "{hidden:?}");
        let zsh = fs::read_to_string(dir.path().join("completions/_rdocker")).unwrap();
        assert!(zsh.contains("network") && !zsh.contains("__monitor"));
    }

    #[test]
    fn bash_completes_verbs_and_flags_of_both_programs() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        for (program, words, want) in [
            ("keel", "cre", "create"),
            ("rdocker", "netw", "network"),
            ("rdocker", "run --net", "--network --network-alias"),
            ("rdocker", "network cr", "create"),
        ] {
            let script = dir.path().join(format!("completions/{program}.bash"));
            let got = shell(&format!(
                "source {}; COMP_WORDS=({program} {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
                 _{program} {program} ${{COMP_WORDS[-1]}} ${{COMP_WORDS[-2]}} || true
                 echo ${{COMPREPLY[@]}}",
                script.display()
            ));
            assert!(got.trim().starts_with(want), "{program} {words}: {got}");
        }
    }

    /// The binaries themselves are not looked at, so any file will do for them.
    #[test]
    fn install_and_the_debian_package_carry_what_is_generated() {
        let dir = tempfile::tempdir().unwrap();
        // Where Cargo.toml has cargo-deb take it from.
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/deb");
        let _ = fs::remove_dir_all(&tree);
        let docs = dir.path().join("docs");
        write(&docs).unwrap();
        fs::write(dir.path().join("keel"), "").unwrap();
        fs::write(dir.path().join("rdocker"), "").unwrap();
        shell(&format!(
            "make -s -o release -o docs install RELEASE={} DOCS={} PREFIX=/usr DESTDIR={}",
            dir.path().display(),
            docs.display(),
            tree.display()
        ));
        let installed = files(&tree);
        for page in files(&docs.join("man")) {
            let name = page.trim_start_matches("./");
            let section = name.rsplit('.').next().unwrap_or_default();
            let path = format!("./usr/share/man/man{section}/{name}");
            assert!(installed.contains(&path), "{path}: {installed:?}");
        }
        let out = dir.path().display();
        shell(&format!(
            "cargo deb --quiet --no-build --no-strip -p keel --output {out}"
        ));
        let contents = shell(&format!("dpkg-deb --contents {out}/*.deb"));
        for file in [
            "bin/rdocker",
            "share/man/man8/keel-create.8.gz",
            "share/man/man1/rdocker-run.1.gz",
            "share/bash-completion/completions/keel",
            "share/bash-completion/completions/rdocker",
            "share/zsh/vendor-completions/_rdocker",
            "share/fish/vendor_completions.d/rdocker.fish",
        ] {
            let line = format!(" ./usr/{file}\n");
            assert!(contents.contains(&line), "{file}: {contents}");
        }
    }
}
