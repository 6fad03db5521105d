//! The stage's own training objective, step by step. Losses of different patch sizes are not
//! comparable: each stage has its own axis, and no line connects two stages.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use crate::record::Series;
use crate::text::format;
use crate::tui::chart::{
    Chart, Curve, Domain, Mark, PIECES, Points, Viewport, nice_domain, robust_range,
};
use crate::tui::panes::frame::{Title, centered, framed, switches, token_domain};
use crate::tui::theme::Role;
use crate::tui::{Pane, RunScreen};

/// The stage's own objective.
pub(crate) struct ObjectivePane<'a>(pub(crate) &'a RunScreen);

impl Widget for ObjectivePane<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let run = self.0;
        let mut pieces = run.history.steps.stages().collect::<Vec<_>>();
        let current = pieces.pop().unwrap_or_default();
        let title = Title { text: name(run), info: newest(run, &current) };
        let inner = framed(run, Pane::Objective, title, area, buf);
        match chart(run, pieces, current) {
            Some(chart) => chart.render(inner, buf),
            None => centered("no step yet", run.theme.style(Role::Dim), inner, buf),
        }
    }
}

/// The curves of the stages before, whose points are `earlier`, and of the current one, once it has
/// a point.
fn chart(run: &RunScreen, earlier: Vec<Range<usize>>, current: Range<usize>) -> Option<Chart<'_>> {
    let steps = &run.history.steps;
    let (y, _) = range(steps, &current)?;
    let is_second = earlier.last().is_some_and(|piece| steps[piece.start].stage == 0);
    let curve = |piece, y, role| Curve {
        points: Points::Series(steps, piece),
        y,
        style: run.theme.style(role),
    };
    let mut curves = Vec::new();
    for piece in earlier {
        if let Some((own, _)) = range(steps, &piece) {
            curves.push(curve(piece, Some(own), Role::Previous));
        }
    }
    curves.push(curve(current, None, Role::Objective));
    // The gray curve is labeled where it ends; the title names the current one.
    let marks = switches(run).into_iter().map(|switch| Mark {
        before: if is_second && !switch.before.is_empty() {
            format!("{} (own axis)", switch.before)
        } else {
            String::new()
        },
        after: String::new(),
        ..switch
    });
    Some(Chart {
        viewport: Viewport { x: token_domain(run), y },
        x_unit: "tokens",
        curves,
        marks: marks.collect(),
        floor: None,
        theme: run.theme,
    })
}

/// The range of the stage whose points are `piece`, and its maximum if it is cut off.
fn range(steps: &Series, piece: &Range<usize>) -> Option<(Domain, Option<f64>)> {
    let (lo, hi, clipped) = robust_range(steps.spread(piece.start)?);
    Some((nice_domain(lo, hi, PIECES), clipped))
}

fn name(run: &RunScreen) -> String {
    let stage = run.history.steps.last().map_or(0, |point| point.stage);
    match run.history.header.as_ref().and_then(|header| header.plan.stages.get(stage)) {
        Some(plan) if plan.patch_size.get() > 1 => {
            format!("next-patch loss (K = {})", plan.patch_size)
        }
        Some(_) => "train loss (K = 1)".into(),
        None => "objective".into(),
    }
}

/// The newest value, and the maximum if it is cut off.
fn newest(run: &RunScreen, current: &Range<usize>) -> Line<'static> {
    let Some(last) = run.history.steps.last() else { return Line::default() };
    let dim = run.theme.style(Role::Dim);
    let mut spans = Vec::new();
    if let Some((_, Some(highest))) = range(&run.history.steps, current) {
        spans.push(Span::styled(
            format!("{} {}  ", run.theme.glyph("\u{2191}", "max"), format::loss(highest)),
            dim,
        ));
    }
    spans.push(Span::styled(
        format::loss(last.loss),
        run.theme.style(if last.loss.is_finite() { Role::Objective } else { Role::Bad }),
    ));
    Line::from(spans)
}
