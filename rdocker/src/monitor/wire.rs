//! What travels between a monitor and its clients over a stream socket.
//!
//! Frames of one kind byte, a big-endian u32 length and that many bytes. Both sides send requests
//! and answers as JSON in [`Kind::Message`] frames, and streams as they are.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest frame that is accepted, in bytes. Streams are cut into pieces of at most 64 KiB.
pub const FRAME_MAX: usize = 1 << 20;
/// Bytes before a frame's body.
pub const HEADER: usize = 5;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes for the container's stdin; empty is its end.
    Stdin = 0,
    /// Bytes of the container's stdout, or of its terminal.
    Stdout = 1,
    /// Bytes of the container's stderr.
    Stderr = 2,
    /// A [`Request`] or a [`Reply`].
    Message = 3,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Stdin, Self::Stdout, Self::Stderr, Self::Message]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Start the container; answered by [`Reply::Done`] or [`Reply::Failed`].
    Start,
    /// Send me its output from now on, and take my stdin. Answered by output, then
    /// [`Reply::Exited`].
    Attach {
        /// Take stdin from this client.
        stdin: bool,
        /// Send stdout.
        stdout: bool,
        /// Send stderr.
        stderr: bool,
    },
    /// Set the size of the terminal: the container's, or of the exec that this client asked for.
    /// Not answered.
    Resize {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// Tell me when it has ended, or when it has been removed.
    Wait {
        /// Wait for the removal.
        removed: bool,
    },
    /// Stop it: signal, then SIGKILL after so many seconds (never, if negative).
    Stop {
        /// The first signal.
        signal: i32,
        /// Seconds until SIGKILL.
        timeout: i64,
    },
    /// Send a signal to its first process, or to the exec that this client asked for.
    Kill {
        /// The signal.
        signal: i32,
    },
    /// Freeze it.
    Pause,
    /// Thaw it.
    Unpause,
    /// Its record on disk has changed: read the restart policy again.
    Reload,
    /// Start a process in it, from the files that `exec::Files` names. Answered by [`Reply::Done`]
    /// or [`Reply::Failed`]; then, if it has streams, by its output and [`Reply::Exited`].
    Exec {
        /// The exec's id.
        id: String,
        /// What its stdin, stdout and stderr are.
        streams: ExecStreams,
    },
}

/// The stdio of an exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecStreams {
    /// `/dev/null`: nobody waits for it.
    Detached,
    /// Pipes to this client, but stdin is `/dev/null`.
    Output,
    /// Pipes to this client.
    Pipes,
    /// A terminal whose keys come from this client.
    Terminal,
}

/// What a monitor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The request was carried out.
    Done,
    /// The request failed.
    Failed {
        /// Why.
        message: String,
        /// What to do about it, if anything is known.
        hint: String,
        /// The OCI runtime said so, and its words may mean 126 or 127.
        runtime: bool,
    },
    /// The container, or the exec that this client asked for, ended.
    Exited {
        /// Its exit code.
        code: i32,
    },
}

/// One whole frame as bytes.
pub fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("frames are cut far below 4 GiB");
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.push(kind as u8);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// A message as a frame.
pub fn message(message: &impl Serialize) -> Vec<u8> {
    let body = serde_json::to_vec(message).expect("messages have string keys only");
    frame(Kind::Message, &body)
}

/// Takes the first whole frame off the front of `buffer`.
///
/// # Errors
/// `InvalidData` if the bytes are no frame.
pub fn take_frame(buffer: &mut Vec<u8>) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let Some(header) = buffer.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let [kind, a, b, c, d] = *header;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let kind = Kind::from_byte(kind).ok_or_else(|| invalid("unknown frame"))?;
    if length > FRAME_MAX {
        return Err(invalid("frame too long"));
    }
    if buffer.len() < HEADER + length {
        return Ok(None);
    }
    let body = buffer[HEADER..HEADER + length].to_vec();
    buffer.drain(..HEADER + length);
    Ok(Some((kind, body)))
}

/// Parses the body of a message frame.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    serde_json::from_slice(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads one frame, waiting for it; `None` at the end of the stream.
pub fn read_frame(stream: &mut impl Read) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut header = [0; HEADER];
    match stream.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    let mut buffer = header.to_vec();
    if length <= FRAME_MAX {
        buffer.resize(HEADER + length, 0);
        stream.read_exact(&mut buffer[HEADER..])?;
    }
    take_frame(&mut buffer)
}

/// Writes one message, waiting until it is gone.
pub fn send(stream: &mut impl Write, request: &impl Serialize) -> io::Result<()> {
    stream.write_all(&message(request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let mut bytes = frame(Kind::Stdout, b"hello");
        bytes.extend(message(&Request::Stop {
            signal: 15,
            timeout: -1,
        }));
        for cut in 0..bytes.len() {
            let mut buffer = bytes[..cut].to_vec();
            let mut frames = Vec::new();
            while let Some(frame) = take_frame(&mut buffer).unwrap() {
                frames.push(frame);
            }
            buffer.extend_from_slice(&bytes[cut..]);
            while let Some(frame) = take_frame(&mut buffer).unwrap() {
                frames.push(frame);
            }
            assert_eq!(frames.len(), 2, "cut at {cut}");
            assert_eq!(frames[0], (Kind::Stdout, b"hello".to_vec()));
            let stop: Request = parse(&frames[1].1).unwrap();
            assert_eq!(
                stop,
                Request::Stop {
                    signal: 15,
                    timeout: -1
                }
            );
        }
    }

    #[test]
    fn garbage_is_an_error_and_not_an_allocation() {
        assert!(take_frame(&mut vec![9, 0, 0, 0, 0]).is_err());
        assert!(take_frame(&mut vec![1, 255, 255, 255, 255]).is_err());
        let mut stream: &[u8] = &[1, 255, 255, 255, 255, 0];
        assert!(read_frame(&mut stream).is_err());
    }
}
