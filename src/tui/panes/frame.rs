//! The title line of a pane, and helpers shared by several panes.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::tui::chart::{Domain, Mark};
use crate::tui::theme::{Role, Theme};
use crate::tui::{Pane, RunScreen};

/// A title line: the title of the pane on the left, its newest number on the right.
pub(crate) struct Title<'a> {
    /// Title of the pane.
    pub(crate) text: String,
    /// Its newest number; omitted if it does not fit.
    pub(crate) info: Line<'a>,
}

/// Draws the title of `pane` and returns the space below it.
pub(crate) fn framed(
    run: &RunScreen,
    pane: Pane,
    title: Title<'_>,
    area: Rect,
    buf: &mut Buffer,
) -> Rect {
    let number = Pane::ALL.iter().position(|other| *other == pane).map_or(0, |idx| idx + 1);
    let role = if run.focus == pane { Role::Accent } else { Role::Strong };
    let name = vec![
        Span::styled(format!("{number} "), run.theme.style(Role::Dim)),
        Span::styled(title.text, run.theme.style(role)),
    ];
    titled(run.theme, name, title.info, area, buf)
}

/// Draws a title line and returns the space below it.
pub(crate) fn titled(
    theme: Theme,
    name: Vec<Span<'_>>,
    info: Line<'_>,
    area: Rect,
    buf: &mut Buffer,
) -> Rect {
    if area.is_empty() {
        return area;
    }
    let rule = theme.style(Role::Previous);
    for x in area.left()..area.right() {
        buf.set_string(x, area.y, theme.glyph("\u{2500}", "-"), rule);
    }
    let name = padded(Line::from(name));
    let end =
        buf.set_line((area.x + 1).min(area.right()), area.y, &name, area.width.saturating_sub(2)).0;
    let info = padded(info);
    let wide = info.width() as u16;
    // Two spaces alone are an empty info.
    if wide > 2 && end + wide < area.right() {
        buf.set_line(area.right() - wide - 1, area.y, &info, wide);
    }
    Rect { y: area.y + 1, height: area.height - 1, ..area }
}

/// Draws `text` in the middle of `area`.
pub(crate) fn centered(text: &str, style: Style, area: Rect, buf: &mut Buffer) {
    let wide = Span::raw(text).width() as u16;
    if area.height == 0 {
        return;
    }
    let x = area.x + area.width.saturating_sub(wide) / 2;
    buf.set_stringn(x, area.y + (area.height - 1) / 2, text, usize::from(area.width), style);
}

/// All tokens of the run's plan; the x axis of every pane.
pub(crate) fn token_domain(run: &RunScreen) -> Domain {
    let tokens = run.history.header.as_ref().map_or(0, |header| header.plan.cost.tokens);
    Domain { lo: 0.0, hi: tokens.max(1) as f64 }
}

/// Where the stages of the plan begin, except the first.
pub(crate) fn switches(run: &RunScreen) -> Vec<Mark> {
    let Some(header) = &run.history.header else { return Vec::new() };
    let pairs = header.plan.stages.windows(2);
    let last = header.plan.stages.len();
    // Between many stages there is no space for two labels.
    let before = |k: &str| if last == 2 { format!("K = {k}") } else { String::new() };
    pairs
        .map(|pair| Mark {
            x: pair[1].first_token as f64,
            before: before(&pair[0].patch_size.to_string()),
            after: format!("K = {}", pair[1].patch_size),
        })
        .collect()
}

/// A label with its text; further lines are indented to the text.
pub(crate) fn fact(theme: Theme, label: &str, text: &str, width: usize) -> Vec<Line<'static>> {
    const LABEL: usize = 11;
    let pieces = wrapped(text, width.saturating_sub(LABEL + 1).max(8));
    let line = |(idx, piece)| {
        let label = if idx == 0 { label } else { "" };
        Line::from(vec![
            Span::styled(format!("{label:<LABEL$} "), theme.style(Role::Dim)),
            Span::raw(piece),
        ])
    };
    pieces.into_iter().enumerate().map(line).collect()
}

/// `text` in lines of at most `width` columns, wrapped between words, or inside a word that is
/// longer than a line.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut free = width;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let is_first = free == width;
        if !is_first && word.width() < free {
            lines.last_mut().into_iter().for_each(|line| line.push(' '));
            free -= 1;
        } else if !is_first {
            lines.push(String::new());
            free = width;
        }
        for char in word.chars() {
            let wide = char.width().unwrap_or(0);
            if wide > free {
                lines.push(String::new());
                free = width;
            }
            lines.last_mut().into_iter().for_each(|line| line.push(char));
            free = free.saturating_sub(wide);
        }
    }
    lines
}

fn padded(line: Line<'_>) -> Line<'_> {
    let mut spans = vec![Span::raw(" ")];
    spans.extend(line.spans);
    spans.push(Span::raw(" "));
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_whole_where_they_fit() {
        assert_eq!(wrapped("a mean of four words", 8), ["a mean", "of four", "words"]);
        assert_eq!(wrapped("abcdefghij kl", 4), ["abcd", "efgh", "ij", "kl"]);
        assert_eq!(wrapped("", 4), [""]);
        assert!(wrapped("\u{65e5}\u{672c}\u{8a9e}", 5).iter().all(|line| line.width() <= 5));
    }
}
