//! The receiving end of `--console-socket`.

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::json;

use crate::config::Config;
use crate::lab::Lab;
use crate::requirement::{Why, ensure};
use crate::sys;

/// Runs a shell command on a terminal and returns what the terminal shows.
pub fn output(lab: &Lab, script: &str, edit: impl FnOnce(&mut Config)) -> Result<String, Why> {
    let mut bundle = lab.bundle()?;
    bundle
        .config
        .set("/process/terminal", json!(true))
        .args(&["/bin/sh", "-c", script]);
    edit(&mut bundle.config);
    let path = bundle.dir.join("console");
    let listener = UnixListener::bind(&path).map_err(|e| format!("cannot listen: {e}"))?;
    let (container, call) =
        lab.try_create_with(&bundle, &["--console-socket", &path.to_string_lossy()])?;
    ensure!(call.ok(), "create failed: {}", call.cause());
    let stream = accept(&listener)?;
    let (_, mut fds) = receive(&stream)?;
    let Some(terminal) = fds.pop() else {
        return Err(Why::Fail(
            "no descriptor came over the console socket".into(),
        ));
    };
    container.start()?;
    container.wait_stopped()?;
    let mut text = Vec::new();
    // A terminal whose other end is closed ends with EIO, after what was written.
    let _ = File::from(terminal).read_to_end(&mut text);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Accepts one connection that should be there by now.
pub fn accept(listener: &UnixListener) -> Result<UnixStream, Why> {
    let fail = |e: std::io::Error| Why::Fail(format!("nobody connects to the socket: {e}"));
    listener.set_nonblocking(true).map_err(fail)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).map_err(fail)?;
                stream
                    .set_read_timeout(Some(Duration::from_secs(5)))
                    .map_err(fail)?;
                return Ok(stream);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(fail(e)),
        }
    }
}

/// Receives one message: its bytes and its descriptors.
pub fn receive(stream: &UnixStream) -> Result<(Vec<u8>, Vec<OwnedFd>), Why> {
    let mut bytes = vec![0; 65536];
    let mut space = nix::cmsg_space!([i32; 8]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags)
        .map_err(|e| Why::Fail(format!("no message comes over the socket: {e}")))?;
    let length = message.bytes;
    let mut fds = Vec::new();
    for part in message
        .cmsgs()
        .map_err(|e| format!("a broken control message: {e}"))?
    {
        if let ControlMessageOwned::ScmRights(list) = part {
            fds.extend(list.into_iter().map(sys::own));
        }
    }
    bytes.truncate(length);
    Ok((bytes, fds))
}
