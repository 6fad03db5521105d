//! The socket protocol: length-prefixed JSON frames, a greeting from both sides, then a handful of
//! messages.
//!
//! A frame is its length as a little-endian `u32` and that many bytes of JSON. Both sides greet
//! before anything else. Versions may differ: all of them understand the messages below, and ignore
//! fields, messages and records that they do not know. Start at [`ClientMessage`].

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::record::{History, Record, RunCommand};

/// Incremented when an older program cannot work without a new message; new fields and kinds of
/// events need no new number.
pub const PROTOCOL: u32 = 1;
/// The oldest protocol that this program understands.
const OLDEST: u32 = 1;
/// Maximum size of a frame in bytes: a snapshot of a long run.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;

/// Maximum size of a client's frame in bytes; its messages are short.
pub(crate) const MAX_CLIENT_FRAME: usize = 64 * 1024;
/// Maximum length of a command id in bytes.
pub(crate) const MAX_ID: usize = 128;

const MAGIC: &str = "patchtui";
const LENGTH_BYTES: usize = size_of::<u32>();

/// The first message of both sides; its fields are the same in all versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Always `"patchtui"`.
    pub magic: String,
    /// Version of everything that follows.
    pub protocol: u32,
    /// Version of patchtui.
    pub version: String,
    /// Process id of the sender.
    pub pid: u32,
    /// Name of the sender, e.g. `"keyboard of alice"`.
    pub sender: String,
    /// The oldest protocol that the sender understands; 1 if absent.
    #[serde(default = "first_protocol")]
    pub oldest: u32,
}

fn first_protocol() -> u32 {
    1
}

/// A message from a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// Greeting, always the first message.
    Hello(Hello),
    /// Send everything so far, then every record.
    Attach,
    /// Send everything so far, once.
    Status,
    /// Send the run a command; the records `CommandAccepted`, `CommandDone`, `CommandFailed` with
    /// this id answer.
    Command {
        /// Chosen by the client, at most 128 bytes. A command with the id of an earlier one is a
        /// retry.
        id: String,
        /// Requested command.
        command: RunCommand,
    },
    /// Heartbeat.
    Ping,
    /// A message of a newer client, ignored.
    #[serde(other)]
    Unknown,
}

/// A message from an engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// Greeting, always the first message.
    Hello(Hello),
    /// Everything so far; replaces what the client knew.
    Snapshot(Box<History>),
    /// One more record.
    Record(Box<Record>),
    /// The engine closes the connection.
    Refused {
        /// Reason, for the user.
        message: String,
    },
    /// Heartbeat.
    Ping,
    /// A message of a newer engine, ignored.
    #[serde(other)]
    Unknown,
}

/// Why a greeting is rejected.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HelloError {
    /// The other side is not patchtui.
    #[error("the other side is not patchtui")]
    NotPatchtui,
    /// The protocols are incompatible.
    #[error(
        "the other side speaks protocol {theirs} (patchtui {version}), but this program speaks \
         protocol {PROTOCOL}"
    )]
    Protocol {
        /// Protocol of the other side.
        theirs: u32,
        /// Program version of the other side.
        version: String,
    },
}

/// Why a frame cannot be read or written.
#[derive(Debug, Error)]
pub enum FrameError {
    /// It is larger than the limit.
    #[error("a message of {length} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Length in bytes.
        length: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The connection ended inside it.
    #[error("the connection ended inside a message")]
    Torn,
    /// It is not a valid message.
    #[error("not a valid message: {0}")]
    NotAMessage(#[from] serde_json::Error),
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other side does not read its messages.
    #[error("the other side has stopped reading")]
    Stuck,
}

/// Reads frames; [`FrameReader::next`] is cancel-safe.
#[derive(Debug)]
pub struct FrameReader<R> {
    source: R,
    buffer: Vec<u8>,
    limit: usize,
}

impl Hello {
    /// The greeting of this process.
    #[must_use]
    pub fn from_here(sender: impl Into<String>) -> Self {
        Self {
            magic: MAGIC.into(),
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            sender: sender.into(),
            oldest: OLDEST,
        }
    }

    /// Checks that this program understands the sender of this greeting.
    pub fn check(&self) -> Result<(), HelloError> {
        if self.magic != MAGIC {
            Err(HelloError::NotPatchtui)
        } else if self.protocol < OLDEST || self.oldest > PROTOCOL {
            Err(HelloError::Protocol { theirs: self.protocol, version: self.version.clone() })
        } else {
            Ok(())
        }
    }
}

/// `message` as a frame.
///
/// # Errors
/// When it is larger than [`MAX_FRAME`] or contains a path that is not UTF-8.
pub fn frame<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; LENGTH_BYTES];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - LENGTH_BYTES;
    if length > MAX_FRAME {
        return Err(FrameError::TooLarge { length, limit: MAX_FRAME });
    }
    bytes[..LENGTH_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `source`.
    pub fn new(source: R) -> Self {
        Self::with_limit(source, MAX_FRAME)
    }

    /// The same for frames of at most `limit` bytes.
    pub(crate) fn with_limit(source: R, limit: usize) -> Self {
        Self { source, buffer: Vec::new(), limit }
    }

    /// The next message, or `None` if the connection ended between two messages.
    pub async fn next<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        loop {
            if let Some(end) = self.frame_end()? {
                let bytes = &self.buffer[LENGTH_BYTES..end];
                let message = serde_json::from_slice(bytes);
                // A record that this program cannot read is from a newer engine; later records may
                // still be readable.
                let is_passed_over = message.is_err() && is_record(bytes);
                self.buffer.drain(..end);
                if is_passed_over {
                    continue;
                }
                return Ok(Some(message?));
            }
            // The buffer grows with the received data, not with the announced length.
            self.buffer.reserve(64 * 1024);
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Torn) };
            }
        }
    }

    /// End of the first frame in the buffer, if it is complete.
    fn frame_end(&self) -> Result<Option<usize>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > self.limit {
            return Err(FrameError::TooLarge { length, limit: self.limit });
        }
        let end = LENGTH_BYTES + length;
        Ok((self.buffer.len() >= end).then_some(end))
    }
}

/// Whether a message is a record, whatever its other fields.
fn is_record(message: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    serde_json::from_slice::<Typed>(message).is_ok_and(|message| message.r#type == "record")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all<M: DeserializeOwned>(bytes: &[u8]) -> Result<Vec<M>, FrameError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut reader = FrameReader::new(bytes);
            let mut messages = Vec::new();
            while let Some(message) = reader.next().await? {
                messages.push(message);
            }
            Ok(messages)
        })
    }

    #[test]
    fn messages_come_back_in_order() {
        let command = ClientMessage::Command { id: "a-1".into(), command: RunCommand::Evaluate };
        let messages = [
            ClientMessage::Hello(Hello::from_here("test")),
            ClientMessage::Attach,
            command,
            ClientMessage::Ping,
        ];
        let bytes: Vec<u8> = messages.iter().flat_map(|message| frame(message).unwrap()).collect();
        assert_eq!(read_all::<ClientMessage>(&bytes).unwrap(), messages);
        assert!(matches!(
            read_all::<ClientMessage>(&bytes[..bytes.len() - 1]),
            Err(FrameError::Torn)
        ));
    }

    #[test]
    fn a_promise_of_too_much_is_refused_before_anything_is_read() {
        assert!(matches!(
            read_all::<ClientMessage>(&u32::MAX.to_le_bytes()),
            Err(FrameError::TooLarge { length: 4_294_967_295, .. })
        ));
        assert!(matches!(
            read_all::<ClientMessage>(b"GET / HTTP/1.1"),
            Err(FrameError::TooLarge { .. })
        ));
    }

    #[test]
    fn versions_that_understand_each_other_may_differ() {
        let ours = Hello::from_here("test");
        Hello { protocol: 9, version: "9.9.9".into(), ..ours.clone() }.check().unwrap();
        // A program from before the field was there.
        let older = r#"{"type":"hello","magic":"patchtui","protocol":1,"version":"0.1.0","pid":1,"sender":"keyboard"}"#;
        let ClientMessage::Hello(older) = serde_json::from_str(older).unwrap() else {
            panic!("not a greeting")
        };
        older.check().unwrap();
        let newer = Hello { protocol: 9, oldest: 2, version: "9.9.9".into(), ..ours.clone() };
        let error = newer.check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the other side speaks protocol 9 (patchtui 9.9.9), but this program speaks protocol 1"
        );
        let other = Hello { magic: "other".into(), ..ours };
        assert_eq!(other.check(), Err(HelloError::NotPatchtui));
    }

    #[test]
    fn what_a_newer_program_says_is_passed_over() {
        let framed = |text: &str| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
        let unknown = framed(r#"{"type":"annotate","text":"a new kind of message"}"#);
        let record = framed(r#"{"type":"record","seq":"a new kind of number","event":{}}"#);
        let ping = frame(&ClientMessage::Ping).unwrap();
        let said = [unknown, record, ping].concat();
        assert_eq!(
            read_all::<ServerMessage>(&said).unwrap(),
            [ServerMessage::Unknown, ServerMessage::Ping]
        );
        assert_eq!(
            read_all::<ClientMessage>(&said).unwrap(),
            [ClientMessage::Unknown, ClientMessage::Unknown, ClientMessage::Ping]
        );
        let broken = framed(r#"{"type":"command","id":7}"#);
        assert!(matches!(read_all::<ClientMessage>(&broken), Err(FrameError::NotAMessage(_))));
    }
}
