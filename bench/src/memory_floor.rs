//! The smallest memory limit a container can be started with.
//!
//! A runtime's own processes in the container's cgroup are charged to it: what they need is lost to
//! the container. The command is /bin/true of a static busybox, so what remains is the runtime's.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::bundle::{self, Variant};
use crate::host::Host;
use crate::runtime::Runtime;
use crate::scenario::fresh_id;

/// KiB, from a limit that every runtime starts with down to one page.
const LIMITS: &[u64] = &[
    65536, 32768, 16384, 12288, 8192, 6144, 4096, 3072, 2048, 1536, 1024, 768, 512, 384, 256, 192,
    128, 96, 64, 48, 32, 16, 8, 4,
];

/// A limit works if so many starts in a row do: the first fault in a cold cache costs more.
const STARTS: usize = 3;

/// Prints one line for each runtime.
///
/// # Errors
/// If a bundle cannot be written, or standard output.
pub fn print(
    out: &mut dyn Write,
    keel: Option<&Path>,
    peers: &[(String, PathBuf)],
) -> Result<(), String> {
    let host = Host::plain()?;
    for runtime in Runtime::find_oci(&host, keel, peers)? {
        let line = match smallest(&host, &runtime)? {
            Ok(kib) => format!("{:8} {kib:>6} KiB", runtime.name),
            Err(why) => format!("{:8} skipped: {why}", runtime.name),
        };
        writeln!(out, "{line}").map_err(|e| format!("cannot write to standard output: {e}"))?;
    }
    Ok(())
}

/// The last limit that works on the way down, or why not even the first does.
fn smallest(host: &Host, runtime: &Runtime) -> Result<Result<u64, String>, String> {
    let mut found = Err("no limit tried".to_owned());
    for &kib in LIMITS {
        let bundle = bundle::write(host, Variant::Memory(kib), &["/bin/true"])?;
        let works = (0..STARTS).try_for_each(|_| {
            let id = fresh_id();
            let ran = runtime.call(&["run", "--bundle", &bundle, &id]).map(drop);
            if ran.is_err() {
                // What a failed start leaves; the next one has another id.
                let _ = runtime.call(&["delete", "--force", &id]);
            }
            ran
        });
        match (works, &found) {
            (Ok(()), _) => found = Ok(kib),
            (Err(_), Ok(_)) => break,
            (Err(why), Err(_)) => return Ok(Err(why)),
        }
    }
    Ok(found)
}
