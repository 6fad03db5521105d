//! Two lines that answer "is it healthy, and when is it done?".

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use crate::record::{ControlState, Outcome, control_word};
use crate::text::{format, sanitize};
use crate::tui::RunScreen;
use crate::tui::message::Access;
use crate::tui::run_screen::LinkState;
use crate::tui::theme::Role;

/// Columns between two items: normally, and where space is short.
const GAPS: [usize; 2] = [3, 2];

/// The two lines at the top.
pub(crate) struct StatusLines<'a>(pub(crate) &'a RunScreen);

/// A label with its value; if not all items fit, the highest rank is dropped first.
pub(crate) struct Item<'a> {
    rank: u8,
    spans: Vec<Span<'a>>,
}

impl Widget for StatusLines<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        for (row, items) in [progress_items(self.0), number_items(self.0)]
            .into_iter()
            .enumerate()
            .take(usize::from(area.height))
        {
            let line = fitted(items, usize::from(area.width.saturating_sub(1)));
            buf.set_line(area.x + 1, area.y + row as u16, &line, area.width.saturating_sub(1));
        }
    }
}

/// Name, state, stage, step, time left.
pub(crate) fn progress_items(run: &RunScreen) -> Vec<Item<'static>> {
    let theme = run.theme;
    let name = shortened(&sanitize::line(run.run_name()), 24);
    let mut items = vec![
        Item { rank: 1, spans: vec![Span::styled(name, theme.style(Role::Strong))] },
        Item { rank: 0, spans: vec![state(run)] },
    ];
    let Some(header) = &run.history.header else { return items };
    let (plan, step) = (&header.plan, run.history.step());
    let idx = plan.stage_idx_after(step);
    if let Some(stage) = plan.stages.get(idx) {
        let spans = labelled(
            run,
            "stage",
            format!("{}/{} K={}", idx + 1, plan.stages.len(), stage.patch_size),
        );
        items.push(Item { rank: 3, spans });
    }
    items.push(Item {
        rank: 2,
        spans: labelled(
            run,
            "step",
            format!("{}/{}", format::grouped(step), format::grouped(plan.steps)),
        ),
    });
    if let Some((stage, whole)) =
        run.history.eta().filter(|_| run.history.end.is_none() && run.link != LinkState::Ended)
    {
        let text = if idx + 1 < plan.stages.len() {
            format!("stage {}, run {}", format::duration(stage), format::duration(whole))
        } else {
            format::duration(whole)
        };
        items.push(Item { rank: 4, spans: labelled(run, "ETA", text) });
    }
    items
}

/// Losses, speed, learning rate, gradient norm.
pub(crate) fn number_items(run: &RunScreen) -> Vec<Item<'static>> {
    let mut items = Vec::new();
    if let Some(evaluation) = run.history.evaluations.last() {
        let mut spans = labelled(run, "K=1 loss", format::loss(evaluation.token_loss));
        spans.push(Span::styled(
            format!(" ppl {}", format::perplexity(evaluation.perplexity)),
            run.theme.style(Role::Dim),
        ));
        spans[1] = spans[1].clone().style(run.theme.style(Role::TokenLoss));
        items.push(Item { rank: 0, spans });
    }
    let Some(step) = &run.history.last_step else { return items };
    let is_patch_stage = step.patch_size.get() > 1;
    let name = if is_patch_stage {
        format!("next-patch K={}", step.patch_size)
    } else {
        "train".to_owned()
    };
    let role = if step.loss.is_finite() { Role::Objective } else { Role::Bad };
    let mut spans = labelled(run, &name, format::loss(step.loss));
    spans[1] = spans[1].clone().style(run.theme.style(role));
    items.push(Item { rank: 1, spans });
    if let Some(speed) = run.history.tokens_per_second() {
        items.push(Item {
            rank: 2,
            spans: vec![Span::raw(format!("{} tok/s", format::rate(speed)))],
        });
    }
    items.push(Item {
        rank: 4,
        spans: labelled(run, "lr", format::learning_rate(step.learning_rate)),
    });
    let mut spans = labelled(run, "grad", format::norm(step.grad_norm));
    if !step.grad_norm.is_finite() {
        spans[1] = spans[1].clone().style(run.theme.style(Role::Bad));
    }
    items.push(Item { rank: 3, spans });
    items
}

/// As many items as fit into `width` columns, in their order.
pub(crate) fn fitted(mut items: Vec<Item<'_>>, width: usize) -> Line<'_> {
    let wide = |items: &[Item<'_>], gap: usize| {
        items
            .iter()
            .map(|item| item.spans.iter().map(Span::width).sum::<usize>() + gap)
            .sum::<usize>()
            .saturating_sub(gap)
    };
    while items.len() > 1 && GAPS.into_iter().all(|gap| wide(&items, gap) > width) {
        let last =
            items.iter().enumerate().max_by_key(|(_, item)| item.rank).map_or(0, |(idx, _)| idx);
        items.remove(last);
    }
    let gap = GAPS.into_iter().find(|gap| wide(&items, *gap) <= width).unwrap_or(0);
    let mut spans = Vec::new();
    for item in items {
        if !spans.is_empty() {
            spans.push(Span::raw(" ".repeat(gap)));
        }
        spans.extend(item.spans);
    }
    Line::from(spans)
}

/// The state in a word with a glyph, colored.
pub(crate) fn state(run: &RunScreen) -> Span<'static> {
    let (fancy, plain, text, role) = match &run.link {
        LinkState::Waiting if run.access == Access::Read => {
            ("\u{25cb}", "o", "reading".to_owned(), Role::Dim)
        }
        LinkState::Waiting => ("\u{25cb}", "o", "connecting".to_owned(), Role::Dim),
        LinkState::Lost { retry_at, .. } => {
            match retry_at.saturating_sub(run.now).as_secs_f64().ceil() {
                0.0 => ("\u{25b2}", "!", "stale, reconnecting".to_owned(), Role::Warn),
                seconds => {
                    ("\u{25b2}", "!", format!("stale, reconnecting in {seconds:.0} s"), Role::Warn)
                }
            }
        }
        LinkState::Ended if run.history.end.is_none() && run.history.last_seq == 0 => {
            ("\u{25cb}", "o", "not started".to_owned(), Role::Dim)
        }
        LinkState::Ended if run.history.end.is_none() => {
            ("\u{2716}", "x", "crashed".to_owned(), Role::Bad)
        }
        LinkState::Live | LinkState::Ended => control_state(run),
    };
    Span::styled(format!("{} {text}", run.theme.glyph(fancy, plain)), run.theme.style(role))
}

fn control_state(run: &RunScreen) -> (&'static str, &'static str, String, Role) {
    if let Some(end) = &run.history.end {
        return match end.outcome {
            Outcome::Completed => ("\u{2714}", "*", "completed".to_owned(), Role::Good),
            Outcome::Stopped => ("\u{25a0}", "#", "stopped".to_owned(), Role::Warn),
            Outcome::Interrupted => ("\u{25a0}", "#", "interrupted".to_owned(), Role::Warn),
            Outcome::Failed => ("\u{2716}", "x", "failed".to_owned(), Role::Bad),
        };
    }
    if let Some(silence) = run.silent_for() {
        let text = format!(
            "{}, silent for {}",
            control_word(run.history.control),
            format::duration(silence.as_secs() as f64)
        );
        return ("\u{25b2}", "!", text, Role::Warn);
    }
    let word = control_word(run.history.control).to_owned();
    match run.history.control {
        ControlState::Starting => ("\u{25cb}", "o", word, Role::Accent),
        ControlState::Running => ("\u{25cf}", "*", measuring(run).unwrap_or(word), Role::Good),
        ControlState::Pausing | ControlState::Stopping => ("\u{25cb}", "o", word, Role::Warn),
        ControlState::Paused => ("\u{2016}", "=", word, Role::Warn),
        ControlState::Finished => ("\u{2714}", "*", word, Role::Good),
    }
}

/// The measurement in progress between steps, if it takes so long that the engine reports it.
fn measuring(run: &RunScreen) -> Option<String> {
    let progress = run.history.progress.as_ref().filter(|_| !run.history.steps.is_empty())?;
    let share = progress
        .total
        .map_or_else(String::new, |total| format!(" {} %", format::percent(progress.done, total)));
    Some(sanitize::line(&(progress.activity.clone() + &share)))
}

fn labelled(run: &RunScreen, label: &str, value: String) -> Vec<Span<'static>> {
    vec![Span::styled(format!("{label} "), run.theme.style(Role::Dim)), Span::raw(value)]
}

/// At most `limit` characters of `text`.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        text.to_owned()
    } else {
        text.chars().take(limit.saturating_sub(2)).chain("..".chars()).collect()
    }
}
