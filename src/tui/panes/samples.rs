//! The newest greedily generated samples.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget, Wrap};

use crate::record::Sample;
use crate::text::{format, sanitize};
use crate::tui::panes::frame::{Title, centered, framed};
use crate::tui::theme::Role;
use crate::tui::{Pane, RunScreen};

/// The sample pane.
pub(crate) struct SamplesPane<'a>(pub(crate) &'a RunScreen);

impl Widget for SamplesPane<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let run = self.0;
        let newest = run.history.samples.back();
        let info = newest.map_or_else(Line::default, |sample| {
            Line::styled(
                format!("greedy, step {}", format::grouped(sample.step)),
                run.theme.style(Role::Dim),
            )
        });
        let inner = framed(run, Pane::Samples, Title { text: "samples".into(), info }, area, buf);
        let Some(newest) = newest else {
            centered("none yet", run.theme.style(Role::Dim), inner, buf);
            return;
        };
        let same_step = run
            .history
            .samples
            .iter()
            .rev()
            .take_while(|sample| sample.step == newest.step)
            .collect::<Vec<_>>();
        let is_alone = run.is_zoomed && run.focus == Pane::Samples;
        if is_alone || usize::from(inner.height) > 3 * same_step.len() {
            draw_all(run, inner, buf);
            return;
        }
        // All prompts of one step, each with its share of the lines.
        let shown = same_step.len().min(usize::from(inner.height)).max(1);
        let lines_each = inner.height / shown as u16;
        for (idx, sample) in same_step.iter().rev().take(shown).enumerate() {
            let top = inner.y + idx as u16 * lines_each;
            let is_last = idx + 1 == shown;
            let height = if is_last { inner.bottom() - top } else { lines_each };
            let space =
                Rect { x: inner.x + 1, y: top, width: inner.width.saturating_sub(2), height };
            Paragraph::new(one_line(run, sample)).wrap(Wrap { trim: false }).render(space, buf);
        }
    }
}

/// All stored samples, newest first, with their line breaks.
fn draw_all(run: &RunScreen, area: Rect, buf: &mut Buffer) {
    let mut lines = Vec::new();
    let mut step = run.history.samples.back().map(|sample| sample.step);
    for sample in newest_first(run).take(usize::from(area.height)) {
        // The title names the newest step.
        if step != Some(sample.step) {
            step = Some(sample.step);
            lines.extend([
                Line::default(),
                Line::styled(
                    format!("step {}", format::grouped(sample.step)),
                    run.theme.style(Role::Dim),
                ),
            ]);
        }
        let both =
            format!("{}\u{0}{}", sanitize::text(&sample.prompt), sanitize::text(&sample.text));
        let mut is_prompt = true;
        for line in both.split('\n') {
            // The sanitizer leaves no NUL, so the one in between marks the end of the prompt.
            let (prompt, text) =
                if is_prompt { line.split_once('\0').unwrap_or((line, "")) } else { ("", line) };
            is_prompt = is_prompt && !line.contains('\0');
            lines.push(Line::from(vec![
                Span::styled(prompt.to_owned(), run.theme.style(Role::Dim)),
                Span::raw(text.to_owned()),
            ]));
        }
    }
    let area = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    Paragraph::new(lines).wrap(Wrap { trim: false }).render(area, buf);
}

/// Newest step first; prompts of one step in their own order.
fn newest_first(run: &RunScreen) -> impl Iterator<Item = &Sample> {
    let samples = run.history.samples.iter().collect::<Vec<_>>();
    let steps = samples.chunk_by(|a, b| a.step == b.step).map(<[_]>::to_vec).collect::<Vec<_>>();
    steps.into_iter().rev().flatten()
}

fn one_line(run: &RunScreen, sample: &Sample) -> Line<'static> {
    Line::from(vec![
        Span::styled(sanitize::line(&sample.prompt), run.theme.style(Role::Dim)),
        Span::styled(sanitize::line(&sample.text), run.theme.style(Role::Strong)),
    ])
}
