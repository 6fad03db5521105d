//! Overlays: the keys, the facts of the run, the confirmation before a stop.

use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::symbols::border;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Widget, Wrap};

use crate::text::sanitize;
use crate::tui::keys::{Binding, run_keys};
use crate::tui::message::Access;
use crate::tui::panes::boot::facts;
use crate::tui::panes::status::shortened;
use crate::tui::run_screen::{Overlay, RunScreen};
use crate::tui::theme::{Markers, Role, Theme};

/// Border lines of a terminal that has only ASCII.
const ASCII_BORDER: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// Longer lines are hard to read.
const WIDEST: u16 = 100;

/// The open overlay, if any.
pub(crate) struct OverlayView<'a>(pub(crate) &'a RunScreen);

impl Widget for OverlayView<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let run = self.0;
        let width = usize::from(area.width.min(WIDEST).saturating_sub(4));
        let (title, closes, lines, scroll) = match run.overlay {
            Overlay::None => return,
            // A run that has ended hears no commands.
            Overlay::Help(scroll) => (
                "keys",
                "Esc closes",
                help_lines(
                    run.theme,
                    run_keys(if run.is_over() { Access::Read } else { run.access }),
                ),
                scroll,
            ),
            Overlay::About => ("about this run", "Esc closes", about_lines(run, width), 0),
            Overlay::ConfirmStop => ("stop the run?", "", confirm_lines(run), 0),
        };
        let role = if run.overlay == Overlay::ConfirmStop { Role::Warn } else { Role::Accent };
        TextBox { title, closes, lines, scroll, role, theme: run.theme }.render(area, buf);
    }
}

/// Text in a frame over the middle of the screen.
pub(crate) struct TextBox {
    /// Title.
    pub(crate) title: &'static str,
    /// How to close it; empty if the text says it.
    pub(crate) closes: &'static str,
    /// The text.
    pub(crate) lines: Vec<Line<'static>>,
    /// Lines that it is scrolled down by.
    pub(crate) scroll: usize,
    /// Role of the frame, for its color.
    pub(crate) role: Role,
    /// Colors and glyphs.
    pub(crate) theme: Theme,
}

impl Widget for TextBox {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let Self { title, closes, lines, scroll, role, theme } = self;
        let widest = lines.iter().map(Line::width).max().unwrap_or(0) + 4;
        let width = (widest as u16).min(WIDEST).min(area.width);
        let paragraph = Paragraph::new(lines).wrap(Wrap { trim: false });
        let text_height = wrapped_height(&paragraph, width.saturating_sub(4).max(1));
        let height = text_height.saturating_add(2).min(area.height);
        let place = Rect {
            x: area.x + (area.width - width) / 2,
            y: area.y + (area.height - height) / 2,
            width,
            height,
        };
        let set = if theme.markers == Markers::Ascii { ASCII_BORDER } else { border::ROUNDED };
        let block = Block::bordered()
            .border_set(set)
            .border_style(theme.style(role))
            .title(Line::raw(format!(" {title} ")));
        let block = if closes.is_empty() {
            block
        } else {
            block.title_bottom(Line::raw(format!(" {closes} ")).right_aligned())
        };
        let inner = block.inner(place);
        Clear.render(place, buf);
        block.render(place, buf);
        // The end of the text can be scrolled to the bottom line, not beyond.
        let scroll = (scroll as u16).min(text_height.saturating_sub(inner.height));
        let space = Rect {
            x: inner.x + u16::from(inner.width > 1),
            width: inner.width.saturating_sub(2),
            ..inner
        };
        paragraph.scroll((scroll, 0)).render(space, buf);
    }
}

/// Lines that `paragraph` fills when wrapped at `width`, found by drawing it.
fn wrapped_height(paragraph: &Paragraph<'_>, width: u16) -> u16 {
    const TALLEST: u16 = 300;
    let mut scratch = Buffer::empty(Rect::new(0, 0, width, TALLEST));
    paragraph.render(scratch.area, &mut scratch);
    let is_blank = |row: &[Cell]| row.iter().all(|cell| cell.symbol() == " ");
    let last = scratch.content.chunks(usize::from(width)).rposition(|row| !is_blank(row));
    last.map_or(0, |idx| idx as u16 + 1)
}

/// What each of `bindings` does.
pub(crate) fn help_lines<A: 'static>(
    theme: Theme,
    bindings: impl Iterator<Item = &'static Binding<A>>,
) -> Vec<Line<'static>> {
    let row = |binding: &Binding<A>| {
        Line::from(vec![
            Span::styled(format!("{:<15}", binding.label), theme.style(Role::Key)),
            Span::raw(binding.help),
        ])
    };
    bindings.filter(|binding| !binding.label.is_empty()).map(row).collect()
}

fn about_lines(run: &RunScreen, width: usize) -> Vec<Line<'static>> {
    match &run.history.header {
        Some(header) => facts(run.theme, header, width),
        None => vec![Line::raw("The engine has not reported its plan yet.")],
    }
}

fn confirm_lines(run: &RunScreen) -> Vec<Line<'static>> {
    let key = run.theme.style(Role::Key);
    // Shown once it works: text pasted together with the key that opened the dialog must not
    // confirm it.
    let (enter, stop) =
        if run.can_confirm() { ("Enter", "  stop      ") } else { ("     ", "            ") };
    vec![
        Line::raw(format!(
            "{} saves a checkpoint and stops.",
            shortened(&sanitize::line(run.run_name()), 30)
        )),
        Line::raw("You can resume it later. To keep it running, detach with q."),
        Line::default(),
        Line::from(vec![
            Span::styled(enter, key),
            Span::raw(stop),
            Span::styled("any other key", key),
            Span::raw("  cancel"),
        ]),
    ]
}
