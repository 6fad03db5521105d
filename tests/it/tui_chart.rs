//! A chart shows exactly the dots that a line through every point would produce.

use patchtui::record::{Series, StepPoint};
use patchtui::tui::{Domain, Dots, Viewport, decimate, decimate_series, nice_domain, nice_ticks};
use proptest::prelude::*;

const WIDTH: usize = 20;
const HEIGHT: usize = 7;

/// A line from every point to the next, without decimation.
fn brute_force(points: &[(f64, f64)], Viewport { x, y }: Viewport) -> Dots {
    let mut dots = Dots::empty(WIDTH, HEIGHT);
    let mut previous = None;
    for (x_value, y_value) in points {
        let dot = x.dot(*x_value, WIDTH * 2).zip(y.dot(*y_value, HEIGHT * 4));
        if let Some(dot) = dot {
            dots.line(previous.unwrap_or(dot), dot);
        }
        previous = dot;
    }
    dots
}

/// Series with noise, spikes, gaps and uneven steps.
fn series() -> impl Strategy<Value = Vec<(f64, f64)>> {
    let value = prop_oneof![8 => 0.0..10.0f64, 1 => -50.0..80.0f64, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)];
    prop::collection::vec((0.0..9.0f64, value), 0..600).prop_map(|steps| {
        let mut x = 0.0;
        steps
            .into_iter()
            .map(|(step, y)| {
                x += step;
                (x, y)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn thinned_and_full_lines_have_the_same_dots(points in series(), x_lo in -100.0..500.0f64, span in 1.0..4000.0f64) {
        let viewport = Viewport { x: Domain { lo: x_lo, hi: x_lo + span }, y: Domain { lo: 0.0, hi: 10.0 } };
        let thinned = decimate(points.iter().copied(), viewport, (WIDTH * 2, HEIGHT * 4));
        prop_assert_eq!(Dots::new(&thinned, WIDTH, HEIGHT), brute_force(&points, viewport));
    }

    #[test]
    fn a_series_and_all_its_points_have_the_same_columns(points in series(), x_lo in -100.0..500.0f64, span in 1.0..4000.0f64, cut in 0..600usize, columns in 1..90usize) {
        let series = points.iter().map(|(x, y)| StepPoint { stage: 0, step: *x as u64, tokens: *x as u64, loss: *y }).collect::<Series>();
        let range = cut.min(series.len())..series.len();
        let viewport = Viewport { x: Domain { lo: x_lo, hi: x_lo + span }, y: Domain { lo: 0.0, hi: 10.0 } };
        let all = series[range.clone()].iter().map(|point| (point.tokens as f64, point.loss));
        prop_assert_eq!(decimate_series(&series, range.clone(), viewport, (columns, HEIGHT * 4)), decimate(all, viewport, (columns, HEIGHT * 4)));
    }

    #[test]
    fn round_domains_hold_the_values_and_have_few_ticks(lo in -1e6..1e6f64, span in 0.0..1e6f64, max_ticks in 1..10usize) {
        let domain = nice_domain(lo, lo + span, max_ticks);
        prop_assert!(domain.lo <= lo && lo + span <= domain.hi && domain.lo < domain.hi);
        prop_assert!(nice_ticks(domain, max_ticks).len() <= max_ticks + 3);
    }
}

#[test]
fn many_points_become_few() {
    let points = (0..100_000).map(|idx| (f64::from(idx), f64::from(idx % 7)));
    let viewport = Viewport { x: Domain { lo: 0.0, hi: 1e5 }, y: Domain { lo: 0.0, hi: 7.0 } };
    assert_eq!(decimate(points, viewport, (40, 28)).len(), 40);
}

#[test]
fn a_gap_is_not_bridged() {
    let viewport = Viewport { x: Domain { lo: 0.0, hi: 39.0 }, y: Domain { lo: 0.0, hi: 1.0 } };
    let points = [(0.0, 0.5), (10.0, 0.5), (20.0, f64::NAN), (30.0, 0.5), (39.0, 0.5)];
    let dots =
        Dots::new(&decimate(points.into_iter(), viewport, (WIDTH * 2, HEIGHT * 4)), WIDTH, HEIGHT);
    let has_dots = |column: usize| {
        (0..HEIGHT).any(|row| dots.glyph(column, row, patchtui::tui::Markers::Braille).is_some())
    };
    assert!(
        has_dots(0) && has_dots(5) && !has_dots(7) && !has_dots(13) && has_dots(15) && has_dots(19)
    );
}

/// The cost of a key press late in a long run; the numbers are informative.
#[test]
fn a_frame_of_a_million_points() {
    const FRAMES: u32 = 20;
    let mut history = crate::tui_fixture::Story::after(160).history();
    let start = std::time::Instant::now();
    history.steps = (1..=1_000_000_u64)
        .map(|step| StepPoint {
            stage: usize::from(step > 700_000),
            step,
            tokens: step * 2949 / 1000,
            loss: 3.0 + (step as f64).sin(),
        })
        .collect();
    let mut app = crate::tui_fixture::app(&crate::tui_fixture::Story::new());
    app.history = history.clone();
    println!("a million points, one by one: {:?}", start.elapsed());
    let start = std::time::Instant::now();
    for _ in 0..FRAMES {
        assert!(frame(&app).contains("train loss"));
    }
    println!("a frame of a million points at 120x40: {:?}", start.elapsed() / FRAMES);
    let start = std::time::Instant::now();
    let thinned = history.thinned(4096);
    println!("a snapshot for the wire with {} points: {:?}", thinned.steps.len(), start.elapsed());
    assert!(thinned.steps.len() < 6000);
}

fn frame(client: &crate::tui_fixture::Client) -> String {
    let area = ratatui::layout::Rect::new(0, 0, 120, 40);
    let mut buf = ratatui::buffer::Buffer::empty(area);
    patchtui::tui::view(&client.0, area, &mut buf);
    buf.content.iter().map(ratatui::buffer::Cell::symbol).collect()
}
