//! One bar over the tokens of the run: its stages, its progress, and the switch.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::Widget;

use crate::plan::CostedStage;
use crate::text::format;
use crate::tui::RunScreen;
use crate::tui::theme::Role;

/// The line below the status.
pub(crate) struct StageBar<'a>(pub(crate) &'a RunScreen);

impl Widget for StageBar<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let Some(header) = &self.0.history.header else { return };
        let (plan, theme) = (&header.plan, self.0.theme);
        let total = plan.cost.tokens.max(1);
        let done = plan.cost_after(self.0.history.step()).tokens;
        let numbers = format!(
            "{}/{} tokens {:>3.0} %",
            format::count(done),
            format::short_count(total as f64),
            100.0 * done as f64 / total as f64
        );
        let width = usize::from(area.width).saturating_sub(numbers.len() + 3);
        if area.height == 0 || width < 10 {
            return;
        }
        let column = |tokens: u64| (tokens as f64 / total as f64 * width as f64).round() as usize;
        let filled = column(done);
        for idx in 0..width {
            let (glyph, role) = if idx < filled {
                (theme.glyph("\u{2501}", "="), Role::Accent)
            } else {
                (theme.glyph("\u{2500}", "-"), Role::Previous)
            };
            buf.set_string(area.x + 1 + idx as u16, area.y, glyph, theme.style(role));
        }
        for (idx, stage) in plan.stages.iter().enumerate() {
            let (start, end) = (
                column(stage.first_token),
                column(stage.first_token.saturating_add(stage.cost(stage.steps).tokens)),
            );
            let x = area.x + 1 + start as u16;
            if idx > 0 && start < width {
                buf.set_string(x, area.y, theme.glyph("\u{2503}", "|"), theme.style(Role::Switch));
            }
            let label = format!(" K = {} ", stage.patch_size);
            if end.saturating_sub(start) > label.len() + 3 {
                let is_current = plan.stage_idx_after(self.0.history.step()) == idx;
                buf.set_string(
                    x + 2,
                    area.y,
                    &label,
                    theme.style(if is_current { Role::Strong } else { Role::Dim }),
                );
            }
        }
        buf.set_string(
            area.right() - 1 - numbers.len() as u16,
            area.y,
            numbers,
            theme.style(Role::Plain),
        );
    }
}
