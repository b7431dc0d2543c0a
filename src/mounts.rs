//! The `mounts` verb: add a mount to a container that runs, or remove one.

use std::path::PathBuf;

/// Change the mounts of a running container
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// add or remove
    #[arg(value_name = "ACTION", value_parser = action)]
    pub action: Action,
    /// The container's name
    #[arg(value_name = "ID")]
    pub id: String,
    /// JSON file with an array of mounts, as in config.json
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// What `mounts` does with the mounts of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Mount them, in order.
    Add,
    /// Unmount their destinations, in order.
    Remove,
}

fn action(text: &str) -> Result<Action, &'static str> {
    match text {
        "add" => Ok(Action::Add),
        "remove" => Ok(Action::Remove),
        _ => Err("add and remove exist"),
    }
}
