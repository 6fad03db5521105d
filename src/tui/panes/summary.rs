//! How the run ended, and the duration of each stage.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget, Wrap};

use crate::record::{Outcome, RunEnd, loss_text, task_scores_text, whole_tokens};
use crate::text::{format, sanitize};
use crate::tui::RunScreen;
use crate::tui::panes::frame::{fact, titled};
use crate::tui::theme::Role;

/// Replaces samples and log once the run has ended.
pub(crate) struct SummaryPane<'a>(pub(crate) &'a RunScreen);

impl Widget for SummaryPane<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let run = self.0;
        let name = vec![Span::styled("summary", run.theme.style(Role::Strong))];
        let inner =
            titled(run.theme, name, Line::styled("q quits", run.theme.style(Role::Dim)), area, buf);
        let space = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
        let mut lines = match &run.history.end {
            Some(end) => headline(run, end),
            None => {
                vec![
                    Line::styled(
                        "The engine ended without reporting why: it was killed or ran out of \
                         memory. Its checkpoints remain.",
                        run.theme.style(Role::Bad),
                    ),
                    Line::raw(resume_hint(run)),
                ]
            }
        };
        lines.extend(
            rows(run)
                .iter()
                .flat_map(|(label, text)| fact(run.theme, label, text, usize::from(space.width))),
        );
        Paragraph::new(lines).wrap(Wrap { trim: false }).render(space, buf);
    }
}

/// How it ended, with the error or a hint to resume.
fn headline(run: &RunScreen, end: &RunEnd) -> Vec<Line<'static>> {
    let (role, word) = match end.outcome {
        Outcome::Completed => (Role::Good, "completed"),
        Outcome::Stopped => (Role::Warn, "stopped with a checkpoint"),
        Outcome::Interrupted => (Role::Warn, "interrupted without a checkpoint"),
        Outcome::Failed => (Role::Bad, "failed"),
    };
    let (step, tokens, time) = (
        format::grouped(end.step),
        format::count(end.tokens),
        format::duration(end.active_seconds),
    );
    let steps = if end.step == 1 { "1 step".to_owned() } else { format!("{step} steps") };
    let took = Span::raw(format!(" after {steps}, {tokens} tokens, {time}"));
    let mut lines = vec![Line::from(vec![Span::styled(word, run.theme.style(role)), took])];
    if let Some(trouble) = &end.error {
        lines.push(Line::styled(sanitize::line(&trouble.message), run.theme.style(Role::Bad)));
        lines.extend(trouble.hint.iter().map(|hint| Line::raw(sanitize::line(hint))));
    }
    // The run's own hint takes precedence: resuming may be wrong.
    let has_hint = end.error.as_ref().is_some_and(|trouble| trouble.hint.is_some());
    if end.outcome != Outcome::Completed && !has_hint {
        lines.push(Line::raw(resume_hint(run)));
    }
    lines
}

fn resume_hint(run: &RunScreen) -> String {
    sanitize::line(&format!("resume with: patchtui resume {}", format::shell_word(run.run_name())))
}

/// Loss, stages, newest checkpoint.
fn rows(run: &RunScreen) -> Vec<(String, String)> {
    let mut rows: Vec<_> = run
        .history
        .altered
        .iter()
        .map(|sentence| ("altered".to_owned(), sanitize::line(sentence)))
        .collect();
    rows.extend(loss_row(run));
    for ledger in &run.history.ledgers {
        let (tokens, time) =
            (format::count(ledger.tokens), format::duration(ledger.active_seconds));
        let speed = format::rate(ledger.tokens_per_second);
        let text = format!(
            "K = {}: {tokens} tokens in {time}, {speed} tok/s, {}",
            ledger.patch_size,
            format::flops(ledger.flops)
        );
        rows.push((format!("stage {}", format::ordinal(ledger.stage)), text));
    }
    if let Some(scores) = run.history.task_scores.last() {
        rows.push((
            "tasks".to_owned(),
            sanitize::line(&format!("at step {}: {}", scores.step, task_scores_text(scores))),
        ));
    }
    if let Some(checkpoint) = run.history.checkpoints.last() {
        rows.push((
            "saved".to_owned(),
            format!(
                "{}, {}",
                sanitize::line(&checkpoint.path.to_string_lossy()),
                format::bytes(checkpoint.bytes)
            ),
        ));
    }
    if run.history.end.as_ref().is_some_and(|end| end.outcome == Outcome::Completed) {
        let name = format::shell_word(run.run_name());
        rows.extend(
            format::next_commands(&name)
                .map(|(label, command)| (label.to_owned(), sanitize::line(&command))),
        );
    }
    rows
}

/// The loss on the whole validation text, or else the last measured one.
fn loss_row(run: &RunScreen) -> Option<(String, String)> {
    let floor = run.history.header.as_ref().and_then(|header| header.plan.entropy_rate);
    let above = |nats: f64| {
        floor.map_or_else(String::new, |floor| {
            format!(", {} nats above the entropy floor", format::loss(nats - floor))
        })
    };
    if let Some(whole) = run.history.whole_loss() {
        let (loss, above, on) = (loss_text(&whole), above(whole.token_loss), whole_tokens(&whole));
        let text = format!("{loss}{above} ({on})");
        let text = text.replace('\u{b1}', run.theme.glyph("\u{b1}", "+-"));
        return Some(("final loss".to_owned(), text));
    }
    let nats = run.history.end.as_ref()?.token_loss?;
    let (loss, perplexity) = (format::loss(nats), format::perplexity(nats.exp()));
    Some(("token loss".to_owned(), format!("{loss}, perplexity {perplexity}{}", above(nats))))
}
