//! Writes keel's manual pages and shell completions from the definitions of its command line.
//!
//! An example and not a verb, so that the generators stay out of the binary:
//! `cargo run --example docs -- DIRECTORY` fills `man/` and `completions/` there.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap::Command;
use clap_complete::{Shell, generate_to};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("name a directory")?);
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let mut command = keel::cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, "keel", &completions)?;
    }
    fs::write(dir.join("errors.md"), keel::error::code::table())?;
    write_pages(command, &man)
}

/// `keel.8`, and a page for each verb as git does it: `keel-create.8`.
fn write_pages(keel: Command, man: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let page = |command: Command| -> Result<(), Box<dyn Error>> {
        let name = command.get_name().to_owned();
        let mut text = Vec::new();
        clap_mangen::Man::new(command)
            .section("8")
            .render(&mut text)?;
        fs::write(man.join(format!("{name}.8")), text)?;
        Ok(())
    };
    for verb in keel.get_subcommands() {
        let name: &'static str = format!("keel-{}", verb.get_name()).leak();
        page(verb.clone().name(name).display_name(name))?;
    }
    page(keel)
}
