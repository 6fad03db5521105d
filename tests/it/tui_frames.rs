//! Frames as bytes: one block each, balanced, none if nothing changed, and few.

use std::io;

use patchtui::control::Feed;
use patchtui::tui::{Access, FRAME_BEGIN, FRAME_END, Markers, ScreenBackend, Theme, view};
use ratatui::Terminal;
use ratatui::backend::Backend;
use ratatui::layout::{Position, Size};

use crate::tui_fixture::{Client, STEPS, Story, app, heard};

const SIZE: Size = Size { width: 120, height: 40 };

type Screen = Terminal<ScreenBackend<fn() -> io::Result<Size>>>;

fn terminal() -> Screen {
    Terminal::new(ScreenBackend::new((|| Ok(SIZE)) as fn() -> io::Result<Size>)).unwrap()
}

fn frame(terminal: &mut Screen, app: &Client) -> Option<Vec<u8>> {
    terminal.draw(|frame| view(&app.0, frame.area(), frame.buffer_mut())).unwrap();
    terminal.backend_mut().take_frame()
}

fn count(bytes: &[u8], piece: &[u8]) -> usize {
    bytes.windows(piece.len()).filter(|window| *window == piece).count()
}

#[test]
fn a_frame_is_one_synchronised_update() {
    let mut terminal = terminal();
    let bytes = frame(&mut terminal, &app(&Story::after(66))).unwrap();
    assert!(bytes.starts_with(FRAME_BEGIN) && bytes.ends_with(FRAME_END));
    assert_eq!((count(&bytes, FRAME_BEGIN), count(&bytes, FRAME_END)), (1, 1));
}

#[test]
fn an_unchanged_screen_writes_nothing() {
    let mut terminal = terminal();
    let app = app(&Story::after(66));
    assert!(frame(&mut terminal, &app).is_some());
    assert_eq!(frame(&mut terminal, &app), None);
}

#[test]
fn clearing_asks_the_terminal_nothing() {
    let mut terminal = terminal();
    let app = app(&Story::after(66));
    let first = frame(&mut terminal, &app).unwrap();
    terminal.clear().unwrap();
    let second = frame(&mut terminal, &app).unwrap();
    assert_eq!(count(&second, b"\x1b[6n"), 0);
    assert!(second.len() >= first.len(), "everything is drawn again");
    assert_eq!(terminal.backend_mut().get_cursor_position().unwrap(), Position::ORIGIN);
}

#[test]
fn the_bytes_show_the_screen_and_stay_few() {
    let theme = Theme { is_coloured: true, ..Theme::plain(Markers::Braille) };
    let records = Story::done().records;
    let mut app = Client::new(Access::Steer, theme);
    let (mut terminal, mut parser) = (
        terminal(),
        vt100::Parser::new(SIZE.height.try_into().unwrap(), SIZE.width.try_into().unwrap(), 0),
    );
    let mut sizes = Vec::new();
    for record in records {
        app.update(heard(Feed::Record(Box::new(record))));
        if let Some(bytes) = frame(&mut terminal, &app) {
            parser.process(&bytes);
            sizes.push(bytes.len());
        }
        let area = ratatui::layout::Rect::new(0, 0, SIZE.width, SIZE.height);
        let mut buf = ratatui::buffer::Buffer::empty(area);
        view(&app.0, area, &mut buf);
        let rows = parser.screen().rows(0, SIZE.width).collect::<Vec<_>>();
        for (row, cells) in rows.iter().zip(buf.content.chunks(usize::from(SIZE.width))) {
            assert_eq!(
                row.trim_end(),
                cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end()
            );
        }
    }
    assert!(sizes.len() as u64 > STEPS);
    sizes.sort_unstable();
    let (median, largest) = (sizes[sizes.len() / 2], sizes[sizes.len() - 1]);
    assert!(median <= 600, "median frame of {median} bytes");
    assert!(largest <= 30_000, "largest frame of {largest} bytes");
}
