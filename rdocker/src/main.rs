//! Parse, dispatch, print one error, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    rdocker::cli::main(std::env::args_os())
}
