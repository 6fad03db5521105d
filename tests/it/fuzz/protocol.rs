//! What a client and an engine hear on the socket: after one byte that chooses how, frames as they
//! are, or lines to be framed.
//!
//! The same messages come out however the bytes arrive, each reads back as it was written, and
//! nothing that a message holds reaches a terminal unsanitised.

use std::fmt::Debug;
use std::pin::Pin;
use std::task::{Context, Poll};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use patchtui::control::{ClientMessage, Feed, FrameError, FrameReader, ServerMessage, frame};
use patchtui::tui::{Access, App, Markers, Msg, RunId, RunScreen, Theme, view};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, ReadBuf};

use super::assert_harmless;
use super::run_files::check_reports;

/// Sizes with a layout of their own each.
const SIZES: [(u16, u16); 4] = [(100, 34), (124, 31), (44, 12), (15, 3)];
/// Keys that show something else.
const KEYS: &[u8] = b" zi?SmpTP\tjkGq";

pub(super) fn read(bytes: &[u8]) {
    let [how, content @ ..] = bytes else { return };
    let stream = if how & 0x80 == 0 {
        content.split(|byte| *byte == b'\n').flat_map(framed).collect()
    } else {
        content.to_vec()
    };
    let piece = 1 + usize::from(how % 31);
    from_client(&stream, piece);
    let messages = messages_of::<ServerMessage>(&stream, piece);
    show(messages, usize::from(*how));
}

fn framed(line: &[u8]) -> Vec<u8> {
    [&u32::try_from(line.len()).unwrap().to_le_bytes(), line].concat()
}

fn from_client(stream: &[u8], piece: usize) {
    for message in messages_of::<ClientMessage>(stream, piece) {
        if let ClientMessage::Hello(hello) = message {
            let _ = hello.check();
        }
    }
}

/// The messages in `stream` up to the first that is broken.
fn messages_of<M: DeserializeOwned + Serialize + Debug>(stream: &[u8], piece: usize) -> Vec<M> {
    let (at_once, end) = received::<M>(stream, usize::MAX);
    let (in_pieces, other_end) = received::<M>(stream, piece);
    assert_eq!((format!("{at_once:?}"), end), (format!("{in_pieces:?}"), other_end));
    for message in &at_once {
        let (again, _) = received::<M>(&frame(message).unwrap(), usize::MAX);
        assert_eq!(format!("{again:?}"), format!("[{message:?}]"));
    }
    at_once
}

fn received<M: DeserializeOwned>(stream: &[u8], piece: usize) -> (Vec<M>, Option<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut reader = FrameReader::new(Pieces { rest: stream, piece });
        let mut messages = Vec::new();
        loop {
            match reader.next().await {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return (messages, None),
                Err(error) => return (messages, Some(FrameError::to_string(&error))),
            }
        }
    })
}

/// Bytes that arrive `piece` by piece.
struct Pieces<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let (now, later) = self.rest.split_at(self.rest.len().min(self.piece).min(buf.remaining()));
        buf.put_slice(now);
        self.rest = later;
        Poll::Ready(Ok(()))
    }
}

/// Draws what `messages` say, and prints their records.
fn show(messages: Vec<ServerMessage>, how: usize) {
    let mut app = App::of_run(
        RunScreen::new(RunId::FIRST, "books".into(), Access::Steer, Theme::plain(Markers::Braille)),
        7,
    );
    let mut records = Vec::new();
    for message in messages {
        let feed = match message {
            ServerMessage::Snapshot(history) => Feed::Snapshot(history),
            ServerMessage::Record(record) => {
                records.push((*record).clone());
                Feed::Record(record)
            }
            ServerMessage::Refused { message } => {
                Feed::Lost { reason: message, retry_seconds: 0.5 }
            }
            ServerMessage::Ping => Feed::Heartbeat,
            ServerMessage::Hello(_) | ServerMessage::Unknown => continue,
        };
        app.update(Msg::Feed(RunId::FIRST, feed));
    }
    let (width, height) = SIZES[how % SIZES.len()];
    draw(&app, width, height);
    let key = char::from(KEYS[how % KEYS.len()]);
    app.update(Msg::Key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE)));
    draw(&app, width, height);
    check_reports(&records);
}

fn draw(app: &App, width: u16, height: u16) {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    view(app, area, &mut buf);
    for cell in &buf.content {
        assert!(!cell.symbol().contains('\n'));
        assert_harmless(cell.symbol());
    }
}
