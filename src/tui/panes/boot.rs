//! The screen before the first step: progress, plan and decisions.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget, Wrap};

use crate::plan::CostedStage;
use crate::record::{MomentsOutline, Progress, RunHeader, StageOutline};
use crate::text::{format, sanitize};
use crate::tui::RunScreen;
use crate::tui::panes::frame::{fact, titled};
use crate::tui::run_screen::LinkState;
use crate::tui::theme::{Role, Theme};

/// The area of all panes before the first step.
pub(crate) struct BootPane<'a>(pub(crate) &'a RunScreen);

impl Widget for BootPane<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let run = self.0;
        let name = vec![Span::styled("preparing", run.theme.style(Role::Strong))];
        let inner = titled(run.theme, name, Line::default(), area, buf);
        let space = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
        let mut lines = vec![Line::default()];
        match &run.history.progress {
            Some(progress) => {
                lines.extend(progress_lines(run.theme, progress, usize::from(space.width)));
            }
            None => lines.push(Line::styled(waiting(run), run.theme.style(Role::Dim))),
        }
        if let Some(header) = &run.history.header {
            lines.push(Line::default());
            lines.extend(facts(run.theme, header, usize::from(space.width)));
        }
        Paragraph::new(lines).wrap(Wrap { trim: false }).render(space, buf);
    }
}

/// Model, device, stages, cost and decisions of the run, at most `width` columns wide.
pub(crate) fn facts(theme: Theme, header: &RunHeader, width: usize) -> Vec<Line<'static>> {
    let (plan, model) = (&header.plan, &header.plan.model);
    let (parameters, vocabulary) =
        (format::count(plan.num_parameters), format::grouped(model.vocab_size as u64));
    let (layers, hidden) =
        (format::counted(model.num_hidden_layers as u64, "layer"), model.hidden_size);
    let threads = if header.threads > 0 {
        format!(", {}", format::counted(header.threads as u64, "thread"))
    } else {
        String::new()
    };
    let mut rows = vec![
        (
            "model".to_owned(),
            format!("{layers}, hidden {hidden}, {parameters} parameters, vocabulary {vocabulary}"),
        ),
        ("device".to_owned(), format!("{}{threads}", sanitize::line(&header.device))),
        ("directory".to_owned(), sanitize::line(&header.directory.to_string_lossy())),
    ];
    rows.extend(
        plan.stages
            .iter()
            .enumerate()
            .map(|(idx, stage)| (format!("stage {}", idx + 1), stage_text(idx, stage))),
    );
    rows.push((
        "cost".to_owned(),
        format!(
            "{}, {:.2} of token-level compute",
            format::flops(plan.cost.flops),
            plan.relative_cost()
        ),
    ));
    rows.extend(
        plan.warnings.iter().map(|warning| ("warning".to_owned(), sanitize::line(warning))),
    );
    rows.extend(plan.notes.iter().map(|note| ("note".to_owned(), sanitize::line(note))));
    rows.extend(
        header
            .decisions
            .iter()
            .map(|decision| (sanitize::line(&decision.label), sanitize::line(&decision.text))),
    );
    rows.iter().flat_map(|(label, text)| fact(theme, label, text, width)).collect()
}

/// A bar with its activity.
fn progress_lines(theme: Theme, progress: &Progress, width: usize) -> Vec<Line<'static>> {
    let activity = Span::styled(sanitize::line(&progress.activity), theme.style(Role::Strong));
    let Some(total) = progress.total.filter(|total| *total > 0) else {
        let done = if progress.done > 0 {
            format!("  {}", format::count(progress.done))
        } else {
            String::new()
        };
        return vec![Line::from(vec![activity, Span::raw(done)])];
    };
    let share = (progress.done as f64 / total as f64).clamp(0.0, 1.0);
    let wide = width.min(72);
    let filled = (share * wide as f64).round() as usize;
    let numbers = format!(
        "  {:.0} %  {}/{}",
        100.0 * share,
        format::count(progress.done),
        format::short_count(total as f64)
    );
    vec![
        Line::from(vec![activity, Span::styled(numbers, theme.style(Role::Dim))]),
        Line::from(vec![
            Span::styled(theme.glyph("\u{2501}", "=").repeat(filled), theme.style(Role::Accent)),
            Span::styled(
                theme.glyph("\u{2500}", "-").repeat(wide - filled),
                theme.style(Role::Previous),
            ),
        ]),
    ]
}

fn waiting(run: &RunScreen) -> String {
    match &run.link {
        LinkState::Waiting => "waiting for the engine".into(),
        LinkState::Live => "the engine is starting".into(),
        LinkState::Lost { reason, .. } => sanitize::line(reason),
        LinkState::Ended => "the engine has ended".into(),
    }
}

fn stage_text(idx: usize, stage: &StageOutline) -> String {
    let cost = stage.cost(stage.steps);
    let (steps, tokens) = (grouped_steps(stage.steps), format::count(cost.tokens));
    let moments = match stage.optimizer_state {
        MomentsOutline::Reset if idx > 0 => ", optimizer state reset",
        MomentsOutline::Keep if idx > 0 => ", optimizer state kept",
        MomentsOutline::Reset | MomentsOutline::Keep | MomentsOutline::Unknown => "",
    };
    let peak = format::learning_rate(stage.schedule.peak);
    format!(
        "K = {}, {steps}, {tokens} tokens, peak learning rate {peak}{moments}",
        stage.patch_size
    )
}

/// `1 step`, `12 345 steps`.
fn grouped_steps(steps: u64) -> String {
    if steps == 1 { "1 step".to_owned() } else { format!("{} steps", format::grouped(steps)) }
}
