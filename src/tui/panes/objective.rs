//! What the stage itself minimises, step by step. Losses of different patch sizes are not comparable: each stage has its own
//! range, and no line leads from one stage to the next.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use crate::run::{StepPoint, format};
use crate::tui::chart::{Chart, Domain, Layer, PIECES, Switch, nice_domain, robust_range};
use crate::tui::panes::frame::{Title, centered, framed, switches, token_domain};
use crate::tui::theme::Role;
use crate::tui::{Pane, RunScreen};

/// The stage's own objective.
pub(crate) struct ObjectivePane<'a>(pub(crate) &'a RunScreen);

impl Widget for ObjectivePane<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let run = self.0;
        let steps = &run.history.steps;
        let stage = steps.last().map_or(0, |point| point.stage);
        let start = steps.iter().rposition(|point| point.stage != stage).map_or(0, |idx| idx + 1);
        let (before, current) = steps.split_at(start);
        let inner = framed(run, Pane::Objective, Title { text: name(run, stage), info: newest(run, current) }, area, buf);
        let Some((y, _)) = range(current) else {
            centered("no step yet", run.theme.style(Role::Dim), inner, buf);
            return;
        };
        let mut layers = Vec::new();
        for piece in before.chunk_by(|a, b| a.stage == b.stage) {
            if let Some((own, _)) = range(piece) {
                layers.push(Layer { points: points(piece), y: Some(own), style: run.theme.style(Role::Previous) });
            }
        }
        layers.push(Layer { points: points(current), y: None, style: run.theme.style(Role::Objective) });
        // The grey curve is named where it ends; the title names the current one.
        let is_second = before.last().is_some_and(|point| point.stage == 0);
        let switches = switches(run).into_iter().map(|switch| Switch {
            before: if is_second && !switch.before.is_empty() { format!("{}, own range", switch.before) } else { String::new() },
            after: String::new(),
            ..switch
        });
        Chart { x: token_domain(run), y, layers, switches: switches.collect(), floor: None, theme: run.theme }.render(inner, buf);
    }
}

fn points(piece: &[StepPoint]) -> Box<dyn Iterator<Item = (f64, f64)> + '_> {
    Box::new(piece.iter().map(|point| (point.tokens as f64, point.loss)))
}

fn range(piece: &[StepPoint]) -> Option<(Domain, Option<f64>)> {
    let (lo, hi, clipped) = robust_range(piece.iter().map(|point| point.loss))?;
    Some((nice_domain(lo, hi, PIECES), clipped))
}

fn name(run: &RunScreen, stage: usize) -> String {
    match run.history.header.as_ref().and_then(|header| header.plan.stages.get(stage)) {
        Some(plan) if plan.patch_size.get() > 1 => format!("next-bag loss (K = {})", plan.patch_size),
        Some(_) => "train loss (K = 1)".into(),
        None => "objective".into(),
    }
}

/// The newest value, and how high the highest is if it is cut off.
fn newest(run: &RunScreen, current: &[StepPoint]) -> Line<'static> {
    let Some(last) = current.last() else { return Line::default() };
    let dim = run.theme.style(Role::Dim);
    let mut spans = Vec::new();
    if let Some((_, Some(highest))) = range(current) {
        spans.push(Span::styled(format!("{} {}  ", run.theme.glyph("\u{2191}", "max"), format::loss(highest)), dim));
    }
    spans.push(Span::styled(format::loss(last.loss), run.theme.style(if last.loss.is_finite() { Role::Objective } else { Role::Bad })));
    Line::from(spans)
}
