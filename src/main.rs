//! keel, an OCI container runtime: parse, dispatch, print one error, exit.

#![no_main]

use std::ffi::OsString;
use std::io::Write;

use keel::cli::{self, Exit, Invocation};
use keel::context::{self, Context, Global};
use keel::error::Error;
use keel::seal;
use keel::sys::heap;

#[cfg(debug_assertions)]
#[global_allocator]
static GUARD: keel::sys::guard::Guard = keel::sys::guard::Guard;

#[cfg(not(debug_assertions))]
#[global_allocator]
static HEAP: keel::sys::heap::Heap = keel::sys::heap::Heap;

keel::entry!(run);

fn run(args: Vec<OsString>) -> u8 {
    let sealed = match seal::is_needed(args.iter().cloned()) {
        true => {
            heap::map_ahead();
            seal::seal(args.iter().cloned())
        }
        false => Ok(None),
    };
    let Invocation { global, verb } = cli::parse(args);
    let verb = match verb {
        Ok(verb) => verb,
        Err(Exit::Asked(text)) => return print(&text),
        Err(Exit::Wrong { usage, error, code }) => {
            print(&usage);
            return fail(&global, &error.line(), &error, code);
        }
    };
    let (prefix, code) = (verb.failure_prefix(), verb.failure_code());
    let mut context = match Context::new(global.clone()) {
        Ok(context) => context,
        Err(error) => return fail(&global, &error.line(), &error, code),
    };
    context.seal = match sealed {
        Ok(mount) => mount,
        Err(error) => return fail(&global, &error.line(), &error, code),
    };
    match keel::verbs::run(verb, &mut context) {
        Ok(code) => {
            context.log.finish();
            code
        }
        Err(error) => {
            context
                .log
                .fail(&format!("{prefix}{}", error.line()), &error);
            code
        }
    }
}

/// Writes the one line of a failure before there is a context; a log that cannot be opened is
/// replaced by stderr.
fn fail(global: &Global, message: &str, error: &Error, code: u8) -> u8 {
    let log = context::open_log(global).or_else(|_| context::open_log(&Global::default()));
    if let Ok(mut log) = log {
        log.fail(message, error);
    }
    code
}

fn print(text: &str) -> u8 {
    std::io::stdout().write_all(text.as_bytes()).is_err().into()
}
