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
        ["huge-pages", bytes] => {
            let bytes = bytes.parse().map_err(std::io::Error::other);
            bytes.and_then(integration::sys::use_huge_pages)
        }
        ["verbs", device] => use_verbs(device),
        ["real-time"] => integration::sys::become_real_time(),
        ["keyring"] => integration::sys::session_keyring().and_then(|it| print(&it)),
        ["keyring-label"] => integration::sys::label_of_session_keyring().and_then(|it| print(&it)),
        ["spy", canary] => spy(canary),
        ["overwrite"] => overwrite(),
        ["type", text] => integration::sys::type_into_terminal(text.as_bytes()),
        ["call", number] => print(&format!(
            "errno {}",
            integration::sys::errno_of(number.parse().unwrap_or(-1))
        )),
        ["mkdir", abi, path] => integration::sys::mkdir_by(abi, path),
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

/// Opens the RDMA device three times, and makes three objects: says how many it gets of both.
fn use_verbs(device: &str) -> std::io::Result<()> {
    use integration::sys::{VerbsObject, make_verbs_object};
    let mut open = std::fs::OpenOptions::new();
    let devices: Vec<_> = (0..3)
        .map(|_| open.read(true).write(true).open(device))
        .collect();
    let devices = devices.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut counts = [0; 2];
    let mut refusals = Vec::new();
    let mut count = |at: usize, made: std::io::Result<u32>| match made {
        Ok(_) => counts[at] += 1,
        Err(error) => refusals.push(error.kind()),
    };
    for device in &devices {
        count(0, make_verbs_object(device, VerbsObject::Context));
    }
    for _ in 0..3 {
        count(1, make_verbs_object(&devices[0], VerbsObject::Domain));
    }
    print(&format!("{counts:?} {refusals:?}"))
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

/// Looks at every process that appears beside it, and prints what such a process gives away: the
/// file `canary` below its root, another mount namespace, capabilities and descriptors.
fn spy(canary: &str) -> std::io::Result<()> {
    let own = std::fs::read_link("/proc/self/ns/mnt")?;
    let mut first = std::process::id() + 1;
    let mut seen = std::collections::BTreeSet::new();
    print("watching")?;
    loop {
        let mut next = first;
        for pid in first..first + 40 {
            let dir = format!("/proc/{pid}");
            for line in gives_away(&dir, canary, &own) {
                if seen.insert(line.clone()) {
                    print(&line)?;
                }
                // Once it is gone, its number makes room for the next.
                if std::fs::metadata(&dir).is_err() {
                    next = pid + 1;
                }
            }
        }
        first = next;
    }
}

fn gives_away(dir: &str, canary: &str, own: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    if std::fs::read(format!("{dir}/root{canary}")).is_ok() {
        found.push("root of the host".to_owned());
    }
    let Ok(status) = std::fs::read_to_string(format!("{dir}/status")) else {
        return found;
    };
    let permitted = status.lines().find(|line| line.starts_with("CapPrm:"));
    found.extend(permitted.map(str::to_owned));
    if std::fs::read_link(format!("{dir}/ns/mnt")).is_ok_and(|it| it != own) {
        found.push("another mount namespace".to_owned());
    }
    let program = std::fs::File::options()
        .write(true)
        .open(format!("{dir}/exe"));
    if let Ok(program) = program
        && !is_own(&program)
    {
        use std::os::fd::AsRawFd;
        let path = std::fs::read_link(format!("/proc/self/fd/{}", program.as_raw_fd()));
        found.push(format!("a program that can be written: {path:?}"));
    }
    for fd in std::fs::read_dir(format!("{dir}/fd"))
        .into_iter()
        .flatten()
        .flatten()
    {
        if let Ok(target) = std::fs::read_link(fd.path()) {
            found.push(format!("descriptor {}", target.display()));
        }
    }
    found
}

/// Whether a program is the container's own. It can be written as soon as nobody executes it, so also
/// through `/proc/PID/exe` of a process that ends just then.
fn is_own(program: &std::fs::File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let number = |stat: std::fs::Metadata| (stat.dev(), stat.ino());
    let program = program.metadata().ok().map(number);
    ["/bin/probe", "/bin/busybox"]
        .iter()
        .any(|path| std::fs::metadata(path).ok().map(number) == program)
}

/// Waits for a process whose program is none of this container's, and writes over that program.
fn overwrite() -> std::io::Result<()> {
    let own = std::process::id();
    print("watching")?;
    let start = std::time::Instant::now();
    let mut found: Option<std::fs::File> = None;
    while start.elapsed() < std::time::Duration::from_secs(5) {
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let is_other = entry
                .file_name()
                .to_string_lossy()
                .parse()
                .is_ok_and(|pid: u32| pid != own);
            let Ok(program) = std::fs::File::open(entry.path().join("exe")) else {
                continue;
            };
            if is_other && !is_own(&program) {
                found = Some(program);
            }
        }
        if let Some(program) = &found {
            use std::os::fd::AsRawFd;
            let path = format!("/proc/self/fd/{}", program.as_raw_fd());
            if std::fs::write(path, "overwritten").is_ok() {
                return print("overwritten");
            }
        }
    }
    print("gives up")?;
    loop {
        std::thread::park();
    }
}
