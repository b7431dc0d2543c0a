//! A static program for containers, for what busybox cannot do; see [`integration::Bundle::probe`].

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["notify", message] => notify(message),
        ["memory-policy"] => {
            integration::sys::memory_policy().and_then(|it| print(&format!("{it:?}")))
        }
        ["fork-bomb", depth] => fork_bomb(depth.parse().unwrap_or(0)),
        ["keyring"] => integration::sys::session_keyring().and_then(|it| print(&it)),
        _ => Err(std::io::Error::other("unknown question")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody left to tell if stderr is gone.
            let _ = writeln!(std::io::stderr(), "probe: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What sd_notify(3) does.
fn notify(message: &str) -> std::io::Result<()> {
    let path = std::env::var_os("NOTIFY_SOCKET").ok_or(std::io::ErrorKind::NotFound)?;
    UnixDatagram::unbound()?
        .send_to(message.as_bytes(), path)
        .map(drop)
}

/// Tries to become 3^depth processes, and never stops to fork; a host without a limit survives it.
fn fork_bomb(depth: u32) -> std::io::Result<()> {
    let program = std::env::current_exe()?;
    let smaller = depth.saturating_sub(1).to_string();
    let mut wanted = if depth > 0 { 3 } else { 0 };
    loop {
        let mut command = std::process::Command::new(&program);
        let child = match wanted {
            0 => command.arg("-").stderr(std::process::Stdio::null()).spawn(),
            _ => command.args(["fork-bomb", &smaller]).spawn(),
        };
        match child {
            Ok(mut child) if wanted == 0 => drop(child.wait()),
            Ok(_) => wanted -= 1,
            // The limit is reached.
            Err(_) => {}
        }
    }
}

fn print(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
