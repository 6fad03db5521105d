//! How the run ended, and what each stage took.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget, Wrap};

use crate::run::{Outcome, RunEnd, sanitize};
use crate::tui::App;
use crate::tui::format;
use crate::tui::panes::frame::{fact, titled};
use crate::tui::theme::Role;

/// Takes the place of samples and log once the run has ended.
pub(crate) struct SummaryPane<'a>(pub(crate) &'a App);

impl Widget for SummaryPane<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let app = self.0;
        let name = vec![Span::styled("summary", app.look.style(Role::Strong))];
        let inner = titled(app.look, name, Line::styled("q leaves", app.look.style(Role::Dim)), area, buf);
        let space = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
        let mut lines = match &app.history.end {
            Some(end) => headline(app, end),
            None => {
                vec![Line::styled("The engine is gone and did not say why. Its checkpoints remain; the log has its last words.", app.look.style(Role::Bad))]
            }
        };
        lines.extend(rows(app).iter().flat_map(|(label, text)| fact(app.look, label, text, usize::from(space.width))));
        Paragraph::new(lines).wrap(Wrap { trim: false }).render(space, buf);
    }
}

/// How it ended, and what to do if it should not have.
fn headline(app: &App, end: &RunEnd) -> Vec<Line<'static>> {
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
    lines
}

/// Loss, stages, newest checkpoint.
fn rows(app: &App) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    if let Some(loss) = app.history.end.as_ref().and_then(|end| end.token_loss) {
        let floor = app.history.header.as_ref().and_then(|header| header.plan.entropy_rate);
        let above = floor.map_or_else(String::new, |floor| format!(", {:.3} nats above the entropy floor", loss - floor));
        rows.push(("K = 1 loss".to_owned(), format!("{}, perplexity {}{above}", format::loss(loss), format::perplexity(loss.exp()))));
    }
    for ledger in &app.history.ledgers {
        let (tokens, time) = (format::count(ledger.tokens as f64), format::duration(ledger.active_seconds));
        let speed = format::count(ledger.tokens_per_second);
        let text = format!("K = {}: {tokens} tokens in {time}, {speed} tok/s, {:.2e} FLOPs", ledger.patch_size, ledger.flops);
        rows.push((format!("stage {}", ledger.stage + 1), text));
    }
    if let Some(checkpoint) = app.history.checkpoints.last() {
        rows.push(("saved".to_owned(), format!("{}, {}", sanitize::line(&checkpoint.path.to_string_lossy()), format::bytes(checkpoint.bytes))));
    }
    rows
}
