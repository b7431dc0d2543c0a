//! From the verb to the function that does it.

use std::io;

use crate::cli::Verb;
use crate::context::Context;
use crate::error::Result;
use crate::{
    checkpoint, create, delete, events, exec, features, kill, list, mounts, pause, plan_cmd, ps,
    restore, run, start, update,
};

/// Does what the caller wants; returns the exit code.
///
/// # Errors
/// Those of the verb.
pub fn run(verb: Verb, context: &mut Context) -> Result<u8> {
    let out = &mut io::stdout();
    match verb {
        Verb::Checkpoint(args) => checkpoint::run(&args, context)?,
        Verb::Create(args) => create::run(&args, context)?,
        Verb::Delete(args) => delete::run(&args, context)?,
        Verb::Exec(args) => return exec::run(&args, context),
        Verb::Features => features::run(&context.host, out)?,
        Verb::Kill(args) => kill::run(&args, context)?,
        Verb::List(args) => list::run(&args, context, out)?,
        Verb::Plan(args) => plan_cmd::run(&args, context, out)?,
        Verb::Restore(args) => return restore::run(&args, context),
        Verb::Run(args) => return run::run(&args, context),
        Verb::Spec(args) => args.run(&context.host)?,
        Verb::Start(args) => start::run(&args, context)?,
        Verb::State(args) => list::state(&args, context, out)?,
        Verb::Pause(args) => pause::run(&args, context)?,
        Verb::Ps(args) => ps::run(&args, context, out)?,
        Verb::Resume(args) => pause::resume(&args, context)?,
        Verb::Events(args) => events::run(&args, context, out)?,
        Verb::Update(args) => update::run(&args, context)?,
        Verb::Mounts(args) => mounts::run(&args, context)?,
    }
    Ok(0)
}
