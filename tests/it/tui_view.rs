//! Snapshots of the screens.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use patchtui::control::Feed;
use patchtui::record::{ControlState, LogLevel, LogLine, RunEvent, Sample};
use patchtui::tui::{Markers, Msg, Overlay, Pane, Theme, view, view_text};
use proptest::prelude::*;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;

use crate::tui_fixture::{Client, PAUSE, Story, app, heard};

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (40, 12)];

fn draw(app: &Client, width: u16, height: u16) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    view(&app.0, area, &mut buf);
    buf
}

fn screen(app: &Client, width: u16, height: u16) -> String {
    let row = |cells: &[ratatui::buffer::Cell]| {
        cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned()
            + "\n"
    };
    draw(app, width, height).content.chunks(usize::from(width)).map(row).collect()
}

fn check(name: &str, app: &Client) {
    for (width, height) in SIZES {
        insta::assert_snapshot!(format!("{name}_{width}x{height}"), screen(app, width, height));
    }
}

fn press(app: &mut Client, code: KeyCode) {
    app.update(Msg::Key(KeyEvent::new(code, KeyModifiers::NONE)));
}

#[test]
fn screen_while_text_is_prepared() {
    check("boot", &app(&Story::preparing()));
}

#[test]
fn screen_before_the_first_step() {
    check("loading", &app(&Story::loading()));
}

#[test]
fn screen_in_the_patch_stage() {
    check("patch", &app(&Story::after(66)));
}

#[test]
fn screen_right_after_the_switch() {
    check("switch", &app(&Story::after(123)));
}

#[test]
fn screen_in_the_token_stage() {
    check("token", &app(&Story::after(160)));
}

#[test]
fn screen_while_paused() {
    let mut story = Story::after(66);
    story.control(ControlState::Paused, 66);
    check("paused", &app(&story));
}

#[test]
fn screen_at_the_end() {
    check("done", &app(&Story::done()));
}

#[test]
fn screen_after_a_failure() {
    check("failed", &app(&Story::failed()));
}

#[test]
fn screen_without_a_connection() {
    let mut app = app(&Story::after(66));
    app.update(heard(Feed::Lost {
        reason: "the engine does not answer".into(),
        retry_seconds: 3.0,
    }));
    check("lost", &app);
}

#[test]
fn overlays_lie_over_the_screen() {
    let mut app = app(&Story::after(66));
    for (name, code) in [("help", '?'), ("about", 'i'), ("confirm", 'S')] {
        app.overlay = Overlay::None;
        press(&mut app, KeyCode::Char(code));
        app.update(Msg::Clock(app.now + PAUSE));
        check(name, &app);
    }
}

#[test]
fn every_pane_can_be_zoomed() {
    let mut app = app(&Story::after(160));
    press(&mut app, KeyCode::Char('z'));
    for (name, pane) in
        ["token_loss", "objective", "activations", "samples", "log"].into_iter().zip(Pane::ALL)
    {
        app.focus = pane;
        insta::assert_snapshot!(format!("zoom_{name}_80x24"), screen(&app, 80, 24));
    }
}

#[test]
fn ascii_screens_are_ascii() {
    for story in [Story::loading(), Story::after(160), Story::done()] {
        let mut app = app(&story);
        app.theme.markers = Markers::Ascii;
        for overlay in [Overlay::None, Overlay::Help(0), Overlay::ConfirmStop, Overlay::About] {
            app.overlay = overlay;
            let text = screen(&app, 80, 24);
            assert!(text.is_ascii(), "{text}");
        }
    }
    let mut app = app(&Story::after(160));
    app.theme.markers = Markers::Ascii;
    insta::assert_snapshot!("ascii_80x24", screen(&app, 80, 24));
}

#[test]
fn no_color_means_no_color() {
    let mut app = app(&Story::after(160));
    assert!(
        draw(&app, 120, 40)
            .content
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
    app.theme = Theme { is_coloured: true, ..Theme::plain(Markers::Braille) };
    assert!(draw(&app, 120, 40).content.iter().any(|cell| cell.fg != Color::Reset));
}

#[test]
fn a_loss_that_is_not_a_number_leaves_a_gap_and_a_mark() {
    let mut story = Story::after(66);
    for record in &mut story.records {
        if let RunEvent::StepCompleted(metrics) = &mut record.event
            && (30..36).contains(&metrics.step)
        {
            metrics.loss = f64::NAN;
        }
    }
    let mut app = app(&story);
    app.focus = Pane::Objective;
    app.is_zoomed = true;
    insta::assert_snapshot!("not_a_number_80x24", screen(&app, 80, 24));
}

#[test]
fn a_screen_as_text_is_the_screen() {
    let story = Story::after(160);
    assert_eq!(view_text(&story.history(), 80, 24), screen(&app(&story), 80, 24));
}

#[test]
fn escape_sequences_from_outside_never_reach_a_cell() {
    let bomb = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\u{9b}31m\u{202e}evil\x7f\r\n\u{301}\u{301}";
    let mut story = Story::after(66);
    story.tell(RunEvent::Sampled(Sample {
        step: 67,
        stage: 0,
        tokens: 1,
        prompt: bomb.into(),
        text: bomb.into(),
    }));
    let mut app = app(&story);
    app.history.log.push_back(LogLine {
        at: bomb.into(),
        level: LogLevel::Error,
        text: bomb.into(),
    });
    let header = app.history.header.as_mut().unwrap();
    header.name = bomb.into();
    header.device = bomb.into();
    header.decisions[0].text = bomb.into();
    for (overlay, zoomed) in [
        (Overlay::None, false),
        (Overlay::About, false),
        (Overlay::ConfirmStop, false),
        (Overlay::None, true),
    ] {
        app.overlay = overlay;
        app.is_zoomed = zoomed;
        for pane in Pane::ALL {
            app.focus = pane;
            let buf = draw(&app, 100, 30);
            assert!(buf.content.iter().all(|cell| {
                !cell.symbol().chars().any(|char| char.is_control() || char == '\u{202e}')
            }));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn no_size_panics(width in prop_oneof![0..130u16, 0..500u16], height in prop_oneof![0..45u16, 0..200u16], kind in 0..6usize, overlay in 0..4usize, zoom in any::<bool>(), focus in 0..5usize) {
        let story = match kind {
            0 => Story::new(),
            1 => Story::preparing(),
            2 => Story::loading(),
            3 => Story::after(66),
            4 => Story::after(160),
            _ => Story::done(),
        };
        let mut app = app(&story);
        app.overlay = [Overlay::None, Overlay::Help(3), Overlay::About, Overlay::ConfirmStop][overlay];
        (app.is_zoomed, app.focus) = (zoom, Pane::ALL[focus]);
        draw(&app, width, height);
        app.update(heard(Feed::Ended { history: Box::new(story.history()) }));
        draw(&app, width, height);
    }
}
