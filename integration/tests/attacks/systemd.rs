//! F3: what a container has systemd do.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{Outcome, Victim, ended};

/// Properties by which systemd executes, owns, reaches or reveals something, and a value of each.
const PROPERTIES: [(&str, &str); 8] = [
    ("ExecStopPost", "['/bin/true']"),
    ("Slice", "'kt.slice'"),
    ("User", "'root'"),
    ("PIDs", "[uint32 1]"),
    ("RootDirectory", "'/'"),
    ("DeviceAllow", "[('/dev/mem', 'rwm')]"),
    ("OnFailure", "['reboot.target']"),
    ("Wants", "['poweroff.target']"),
];

const SOCKET: &str = "/run/systemd/private";

pub fn properties(victim: &Victim) -> Outcome {
    let allowed = told_systemd(victim, &[("Description", "'of a container'")]);
    let speaks = matches!(allowed, Outcome::Bitten(_));
    assert!(speaks, "it says nothing to what stands for systemd");
    told_systemd(victim, &PROPERTIES)
}

/// Something stands for systemd: it agrees to whatever is asked first, then only listens.
fn told_systemd(victim: &Victim, properties: &[(&str, &str)]) -> Outcome {
    let arena = victim.arena();
    let none: Option<&str> = None;
    mount(none, "/run", Some("tmpfs"), MsFlags::empty(), none).expect("root may mount");
    fs::create_dir_all("/run/systemd/system").expect("an empty tmpfs is writable");
    let listener = UnixListener::bind(SOCKET).expect("nobody else is there");
    let over = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        let listening = scope.spawn(|| heard(&listener, &over));
        let mut last = None;
        for (name, value) in properties {
            let mut bundle = arena.bundle();
            let path = format!("kt.slice:kt:{}", arena.runtime.token());
            bundle.set("/linux/cgroupsPath", path).set(
                "/annotations",
                serde_json::json!({ format!("org.systemd.property.{name}"): *value }),
            );
            let call = arena
                .runtime
                .call_run(&bundle)
                .global(&["--systemd-cgroup"])
                .through(&["timeout", "--signal=KILL", "5"]);
            last = Some(ended(&call.run()));
        }
        over.store(true, Ordering::Relaxed);
        drop(UnixStream::connect(SOCKET));
        let said = listening.join().expect("it only reads");
        let asked = |name: &str| said.windows(name.len()).any(|part| part == name.as_bytes());
        match properties.iter().find(|(name, _)| asked(name)) {
            Some((name, _)) => Outcome::Bitten(format!("systemd is asked for {name}")),
            None => last.expect("there are properties"),
        }
    });
    umount2("/run", MntFlags::MNT_DETACH).expect("it was mounted");
    outcome
}

/// All that is said on the socket until it is over.
fn heard(listener: &UnixListener, over: &AtomicBool) -> Vec<u8> {
    let mut all = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let (mut stream, _) = listener.accept().expect("it is a listening socket");
        stream
            .set_read_timeout(Some(Duration::from_millis(300)))
            .expect("it is not zero");
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            all.extend(&bytes[..count]);
            for line in String::from_utf8_lossy(&bytes[..count]).lines() {
                let answer = match line.trim_start_matches('\0') {
                    "AUTH" => "REJECTED EXTERNAL\r\n",
                    // Two forms of the same: systemd's own library sends its name later.
                    "AUTH EXTERNAL" => "DATA\r\n",
                    "DATA" => "OK 0123456789abcdef0123456789abcdef\r\n",
                    "NEGOTIATE_UNIX_FD" => "AGREE_UNIX_FD\r\n",
                    line if line.starts_with("AUTH ") => "OK 0123456789abcdef0123456789abcdef\r\n",
                    _ => continue,
                };
                // Who has gone away hears nothing.
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    }
    all
}
