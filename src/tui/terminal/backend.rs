//! ratatui's way to the terminal, turned into one block of bytes per frame.
//!
//! The default backend writes a frame in pieces, moves the cursor on every draw, and asks the
//! terminal for the cursor position. This one collects bytes, writes nothing when nothing changed,
//! and answers such queries itself.

use std::io;

use ratatui::backend::{Backend, ClearType, CrosstermBackend, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};

/// Begins a synchronized update: the terminal shows nothing until [`FRAME_END`].
pub const FRAME_BEGIN: &[u8] = b"\x1b[?2026h";
/// Ends a synchronized update.
pub const FRAME_END: &[u8] = b"\x1b[?2026l";

/// A backend that collects the bytes of a frame.
#[derive(Debug)]
pub struct ScreenBackend<S> {
    bytes: Vec<u8>,
    size: S,
}

impl<S: Fn() -> io::Result<Size>> ScreenBackend<S> {
    /// A backend for a terminal whose size is given by `size`.
    pub fn new(size: S) -> Self {
        Self { bytes: Vec::new(), size }
    }

    /// The bytes since the last call as one synchronized update; `None` if there are none.
    pub fn take_frame(&mut self) -> Option<Vec<u8>> {
        let content = std::mem::take(&mut self.bytes);
        (!content.is_empty()).then(|| [FRAME_BEGIN, &content, FRAME_END].concat())
    }

    /// The backend that encodes escape sequences; it keeps no state between calls.
    fn encoder(&mut self) -> CrosstermBackend<&mut Vec<u8>> {
        CrosstermBackend::new(&mut self.bytes)
    }
}

impl<S: Fn() -> io::Result<Size>> Backend for ScreenBackend<S> {
    type Error = io::Error;

    fn draw<'a, I: Iterator<Item = (u16, u16, &'a Cell)>>(&mut self, content: I) -> io::Result<()> {
        let mut content = content.peekable();
        // Without cells the encoder would still write its resets.
        if content.peek().is_some() { self.encoder().draw(content) } else { Ok(()) }
    }

    /// The cursor is hidden as long as the screen is shown.
    fn hide_cursor(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        Ok(Position::ORIGIN)
    }

    /// Every run of cells carries its position, so the cursor may be anywhere.
    fn set_cursor_position<P: Into<Position>>(&mut self, _position: P) -> io::Result<()> {
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.encoder().clear()
    }

    fn clear_region(&mut self, clear_type: ClearType) -> io::Result<()> {
        self.encoder().clear_region(clear_type)
    }

    fn size(&self) -> io::Result<Size> {
        (self.size)()
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size()?, pixels: Size::ZERO })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
