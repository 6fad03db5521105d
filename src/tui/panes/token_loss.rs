//! The main curve: token loss (K = 1) on the validation text over the whole run.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use crate::record::Spread;
use crate::text::format;
use crate::tui::chart::{Chart, Curve, PIECES, Points, Viewport, nice_domain, robust_range};
use crate::tui::panes::frame::{Title, centered, framed, switches, token_domain};
use crate::tui::theme::Role;
use crate::tui::{Pane, RunScreen};

/// The main curve.
pub(crate) struct TokenLossPane<'a>(pub(crate) &'a RunScreen);

impl Widget for TokenLossPane<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let run = self.0;
        let title = Title { text: format!("token loss (K = 1), {}", text(run)), info: newest(run) };
        let inner = framed(run, Pane::TokenLoss, title, area, buf);
        match chart(run) {
            Some(chart) => chart.render(inner, buf),
            None => centered(&when(run), run.theme.style(Role::Dim), inner, buf),
        }
    }
}

/// The curve with its floor, once something was measured.
fn chart(run: &RunScreen) -> Option<Chart<'_>> {
    let evaluations = &run.history.evaluations;
    let (lo, hi, _) = robust_range(Spread::of(evaluations.iter().map(|one| one.token_loss))?);
    let entropy_rate = run.history.header.as_ref().and_then(|header| header.plan.entropy_rate);
    let points = evaluations.iter().map(|one| (one.tokens as f64, one.token_loss)).collect();
    Some(Chart {
        viewport: Viewport {
            x: token_domain(run),
            y: nice_domain(entropy_rate.unwrap_or(lo).min(lo), hi, PIECES),
        },
        x_unit: "tokens",
        curves: vec![Curve {
            points: Points::Few(points),
            y: None,
            style: run.theme.style(Role::TokenLoss),
        }],
        marks: switches(run),
        floor: entropy_rate.map(|rate| (rate, format!("entropy floor {}", format::loss(rate)))),
        theme: run.theme,
    })
}

/// What it is measured on.
fn text(run: &RunScreen) -> String {
    let part = run
        .history
        .evaluations
        .last()
        .and_then(|evaluation| Some((evaluation.targets, evaluation.all_targets?)));
    match part.filter(|(targets, all)| targets < all) {
        Some((targets, all)) => format!(
            "{} of {} validation tokens",
            format::short_count(targets as f64),
            format::short_count(all as f64)
        ),
        None => "validation text".to_owned(),
    }
}

fn newest(run: &RunScreen) -> Line<'static> {
    let Some(evaluation) = run.history.evaluations.last() else { return Line::default() };
    let (dim, bright) = (run.theme.style(Role::Dim), run.theme.style(Role::TokenLoss));
    Line::from(vec![
        Span::styled(format::loss(evaluation.token_loss), bright),
        Span::styled(format!(" nats at step {}", format::grouped(evaluation.step)), dim),
    ])
}

/// When the first measurement is due.
fn when(run: &RunScreen) -> String {
    match run.history.header.as_ref().map(|header| header.plan.cadences.evaluation) {
        Some(Some(every)) => format!("first measured at step {}", format::grouped(every)),
        Some(None) => "measured only on request: press e".into(),
        None => String::new(),
    }
}
