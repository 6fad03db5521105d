//! How the run ended, and what each stage took.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget, Wrap};

use crate::run::{Outcome, RunEnd, StageLedger, sanitize};
use crate::tui::App;
use crate::tui::format;
use crate::tui::panes::frame::titled;
use crate::tui::theme::Role;

/// Takes the place of samples and log once the run has ended.
pub(crate) struct SummaryPane<'a>(pub(crate) &'a App);

impl Widget for SummaryPane<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let app = self.0;
        let name = vec![Span::styled("summary", app.look.style(Role::Strong))];
        let inner = titled(app.look, name, Line::styled("q leaves", app.look.style(Role::Dim)), area, buf);
        let mut lines = match &app.history.end {
            Some(end) => end_lines(app, end),
            None => vec![Line::styled("The engine is gone and did not say why. Its checkpoints remain; the log shows its last words.", app.look.style(Role::Bad))],
        };
        lines.extend(app.history.ledgers.iter().map(|ledger| stage_line(app, ledger)));
        if let Some(checkpoint) = app.history.checkpoints.last() {
            let path = sanitize::line(&checkpoint.path.to_string_lossy());
            lines.push(labelled(app, "saved", format!("{path}, {}", format::bytes(checkpoint.bytes))));
        }
        let space = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
        Paragraph::new(lines).wrap(Wrap { trim: false }).render(space, buf);
    }
}

fn end_lines(app: &App, end: &RunEnd) -> Vec<Line<'static>> {
    let (role, word) = match end.outcome {
        Outcome::Completed => (Role::Good, "complete"),
        Outcome::Stopped => (Role::Warn, "stopped with a checkpoint"),
        Outcome::Interrupted => (Role::Warn, "interrupted without a checkpoint"),
        Outcome::Failed => (Role::Bad, "failed"),
    };
    let (step, tokens, time) = (format::grouped(end.step), format::count(end.tokens as f64), format::duration(end.active_seconds));
    let took = Span::raw(format!(" after {step} steps, {tokens} tokens, {time}"));
    let mut lines = vec![Line::from(vec![Span::styled(word, app.look.style(role)), took])];
    if let Some(trouble) = &end.error {
        lines.push(Line::styled(sanitize::line(&trouble.message), app.look.style(Role::Bad)));
        lines.extend(trouble.hint.iter().map(|hint| Line::raw(sanitize::line(hint))));
    }
    if let Some(loss) = end.token_loss {
        let floor = app.history.header.as_ref().and_then(|header| header.plan.entropy_rate);
        let above = floor.map_or_else(String::new, |floor| format!(", {:.3} nats above the entropy floor", loss - floor));
        lines.push(labelled(app, "K = 1 loss", format!("{}, perplexity {}{above}", format::loss(loss), format::perplexity(loss.exp()))));
    }
    lines
}

fn stage_line(app: &App, ledger: &StageLedger) -> Line<'static> {
    let (tokens, time, speed) = (format::count(ledger.tokens as f64), format::duration(ledger.active_seconds), format::count(ledger.tokens_per_second));
    labelled(app, &format!("stage {}", ledger.stage + 1), format!("K = {}: {tokens} tokens in {time}, {speed} tok/s, {:.2e} FLOPs", ledger.patch_size, ledger.flops))
}

fn labelled(app: &App, label: &str, text: String) -> Line<'static> {
    Line::from(vec![Span::styled(format!("{label:<10} "), app.look.style(Role::Dim)), Span::raw(text)])
}
