//! The list of runs: its contents at every size, and its keys.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use patchtui::config::PatchSize;
use patchtui::control::Feed;
use patchtui::record::{CurrentStage, RunDirectory, RunState, RunSummary};
use patchtui::tui::{
    Access, App, Effect, HomeScreen, Markers, Msg, Prompt, Refusal, RunId, RunList, Screen, Theme,
    view,
};
use proptest::prelude::*;
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::Color;

use crate::tui_fixture::{CLIENT, PAUSE, Story, heard};

const SIZES: [(u16, u16); 3] = [(120, 40), (80, 24), (40, 12)];

fn summary(
    name: &str,
    state: RunState,
    step: u64,
    steps: Option<u64>,
    minutes_ago: i64,
) -> RunSummary {
    let is_second = step * 2 > steps.unwrap_or(1);
    let patch_size = PatchSize::new(if is_second { 1 } else { 4 }).unwrap();
    let current =
        steps.map(|_| CurrentStage { number: 1 + usize::from(is_second), of: 2, patch_size });
    let at = jiff::Timestamp::from_second(1_772_366_400 - 60 * minutes_ago).unwrap();
    RunSummary {
        name: name.into(),
        directory: RunDirectory::new(format!("/data/runs/{name}")),
        state,
        step,
        steps,
        stage: current,
        token_loss: (step > 0).then(|| 6.0 - 4.0 * step as f64 / steps.unwrap_or(1) as f64),
        standard_error: None,
        bits_per_byte: None,
        on_whole_validation_text: false,
        bytes: 3_600_000,
        changed_at: Some(at.to_string()),
    }
}

/// A run in every state, and malformed names.
fn runs() -> Vec<RunSummary> {
    vec![
        summary("demo-2", RunState::Alive, 1240, Some(2000), 0),
        summary("shakespeare", RunState::Paused, 66, Some(180), 4),
        summary("books", RunState::Completed, 20_000, Some(20_000), 95),
        summary(
            "a-very-long-name-of-a-run-that-somebody-typed-late-at-night",
            RunState::Stopped,
            500,
            Some(180_000),
            600,
        ),
        summary(
            "\x1b[31mred\x1b]0;title\x07-\u{202e}evil",
            RunState::Interrupted,
            3,
            Some(180),
            3000,
        ),
        summary(
            "\u{65e5}\u{672c}\u{8a9e}\u{306e}\u{30c6}\u{30ad}\u{30b9}\u{30c8}",
            RunState::Failed,
            140,
            Some(180),
            3000,
        ),
        summary("night", RunState::Crashed, 179, Some(180), 9000),
        summary("empty", RunState::New, 0, None, 20_000),
    ]
}

fn list(runs: Vec<RunSummary>) -> Msg {
    Msg::Runs(RunList { runs, at: jiff::Timestamp::from_second(1_772_366_403).unwrap() })
}

fn home_of(runs: Vec<RunSummary>) -> App {
    let mut app = App::of_home(HomeScreen::new(Theme::plain(Markers::Braille)), CLIENT);
    assert_eq!(app.update(Msg::Clock(Duration::ZERO)), [Effect::List]);
    app.update(list(runs));
    app
}

fn home(app: &mut App) -> &mut HomeScreen {
    let Screen::Home(home) = &mut app.screen else { panic!("the list is not shown") };
    home
}

/// Presses a key after a pause, like a person.
fn press(app: &mut App, code: KeyCode) -> Vec<Effect> {
    let now = match &app.screen {
        Screen::Home(home) => home.now,
        Screen::Run(run) => run.now,
    };
    app.update(Msg::Clock(now + PAUSE));
    app.update(Msg::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn type_text(app: &mut App, text: &str) {
    for char in text.chars() {
        assert_eq!(press(app, KeyCode::Char(char)), []);
    }
}

fn directory(name: &str) -> RunDirectory {
    RunDirectory::new(format!("/data/runs/{name}"))
}

fn draw(app: &App, width: u16, height: u16) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    view(app, area, &mut buf);
    buf
}

fn screen(app: &App, width: u16, height: u16) -> String {
    let row = |cells: &[Cell]| {
        cells.iter().map(Cell::symbol).collect::<String>().trim_end().to_owned() + "\n"
    };
    draw(app, width, height).content.chunks(usize::from(width)).map(row).collect()
}

fn check(name: &str, app: &App) {
    for (width, height) in SIZES {
        insta::assert_snapshot!(format!("{name}_{width}x{height}"), screen(app, width, height));
    }
}

fn refusal() -> Refusal {
    let message =
        "/data/configs/absent\x1b[2J.toml: No such file or directory (os error 2)\nand more";
    Refusal {
        message: message.into(),
        hint: Some("name a TOML file, or one of the built-in configurations: demo".into()),
    }
}

#[test]
fn list_of_runs() {
    let mut app = home_of(runs());
    press(&mut app, KeyCode::Down);
    check("runs", &app);
}

#[test]
fn list_without_runs() {
    check("no_runs", &home_of(Vec::new()));
}

#[test]
fn list_before_it_was_read() {
    let app = App::of_home(HomeScreen::new(Theme::plain(Markers::Braille)), CLIENT);
    insta::assert_snapshot!("reading_80x24", screen(&app, 80, 24));
}

#[test]
fn list_with_an_error() {
    let mut app = home_of(runs());
    app.update(Msg::Opened(Err(refusal())));
    check("refused", &app);
    press(&mut app, KeyCode::Esc);
    assert_eq!(home(&mut app).prompt, Prompt::None);
}

#[test]
fn list_with_an_open_prompt() {
    let mut app = home_of(runs());
    press(&mut app, KeyCode::Char('n'));
    type_text(&mut app, "configs/book");
    check("prompt", &app);
}

#[test]
fn list_with_its_keys() {
    let mut app = home_of(runs());
    press(&mut app, KeyCode::Char('?'));
    check("keys", &app);
    press(&mut app, KeyCode::Esc);
    assert_eq!(home(&mut app).help, None);
}

#[test]
fn list_in_ascii_and_without_colour() {
    let mut app = home_of(
        runs()
            .into_iter()
            .filter(|run| run.name.is_ascii() && !run.name.contains('\x1b'))
            .collect(),
    );
    press(&mut app, KeyCode::Char('M'));
    for (width, height) in SIZES {
        assert!(screen(&app, width, height).is_ascii(), "{}", screen(&app, width, height));
    }
    insta::assert_snapshot!("runs_ascii_80x24", screen(&app, 80, 24));
    assert!(
        draw(&app, 80, 24)
            .content
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
    home(&mut app).theme.is_coloured = true;
    assert!(draw(&app, 80, 24).content.iter().any(|cell| cell.fg != Color::Reset));
}

#[test]
fn a_window_too_small_for_a_table_has_one_line() {
    let text = screen(&home_of(runs()), 23, 5);
    assert_eq!(text.trim_end(), "8 runs, 2 running");
}

#[test]
fn no_escape_sequence_of_a_name_or_an_error_reaches_a_cell() {
    let mut app = home_of(runs());
    app.update(Msg::Opened(Err(refusal())));
    for line in 0..runs().len() {
        home(&mut app).selected = line;
        for (width, height) in SIZES {
            assert!(draw(&app, width, height).content.iter().all(|cell| {
                !cell.symbol().chars().any(|char| char.is_control() || char == '\u{202e}')
            }));
        }
    }
}

#[test]
fn the_selected_run_stays_selected_when_the_lines_move() {
    let mut app = home_of(runs());
    for _ in 0..3 {
        press(&mut app, KeyCode::Char('j'));
    }
    let mut moved = runs();
    moved.rotate_left(2);
    app.update(list(moved.clone()));
    assert_eq!(
        (home(&mut app).selected, home(&mut app).selected_run().unwrap().state),
        (1, RunState::Stopped)
    );
    moved.remove(1);
    app.update(list(moved));
    assert_eq!(home(&mut app).selected, 1);
    app.update(list(Vec::new()));
    assert_eq!((home(&mut app).selected, press(&mut app, KeyCode::Enter)), (0, vec![]));
}

#[test]
fn keys_move_the_selection_within_the_list() {
    let mut app = home_of(runs());
    let cases = [
        (KeyCode::Up, 0),
        (KeyCode::Down, 1),
        (KeyCode::Char('j'), 2),
        (KeyCode::Char('k'), 1),
        (KeyCode::End, 7),
        (KeyCode::PageDown, 7),
        (KeyCode::Home, 0),
        (KeyCode::PageDown, 7),
        (KeyCode::PageUp, 0),
    ];
    for (code, selected) in cases {
        assert_eq!(press(&mut app, code), []);
        assert_eq!(home(&mut app).selected, selected, "{code:?}");
    }
}

#[test]
fn enter_attaches_to_what_is_alive_and_views_the_rest_and_q_leads_back() {
    let mut app = home_of(runs());
    assert_eq!(
        press(&mut app, KeyCode::Enter),
        [Effect::Listen(RunId::FIRST, directory("demo-2"), Access::Steer)]
    );
    app.update(heard(Feed::Snapshot(Box::new(Story::after(66).history()))));
    assert!(
        screen(&app, 80, 24).contains("token loss (K = 1)")
            && screen(&app, 80, 24).contains("q detach")
    );
    press(&mut app, KeyCode::Char('M'));
    assert_eq!(press(&mut app, KeyCode::Char('q')), [Effect::Unlisten(RunId::FIRST)]);
    assert_eq!(home(&mut app).theme.markers, Markers::Ascii);
    press(&mut app, KeyCode::End);
    let second = RunId::FIRST.next();
    assert_eq!(
        press(&mut app, KeyCode::Enter),
        [Effect::Listen(second, directory("empty"), Access::Read)]
    );
    // Esc first closes the open overlay.
    press(&mut app, KeyCode::Char('i'));
    assert_eq!(press(&mut app, KeyCode::Esc), []);
    assert_eq!(press(&mut app, KeyCode::Esc), [Effect::Unlisten(second)]);
    assert_eq!(press(&mut app, KeyCode::Char('q')), [Effect::Leave]);
}

#[test]
fn r_resumes_the_selected_run_and_shows_it_once_it_is_there() {
    let mut app = home_of(runs());
    press(&mut app, KeyCode::End);
    press(&mut app, KeyCode::Up);
    assert_eq!(press(&mut app, KeyCode::Char('r')), [Effect::Resume(directory("night"))]);
    assert!(screen(&app, 80, 24).contains("resuming night ..."));
    // One thing at a time.
    assert_eq!(press(&mut app, KeyCode::Char('r')), []);
    assert_eq!(press(&mut app, KeyCode::Char('n')), []);
    assert_eq!(
        app.update(Msg::Opened(Ok(directory("night")))),
        [Effect::Listen(RunId::FIRST, directory("night"), Access::Steer)]
    );
    assert!(matches!(app.screen, Screen::Run(..)));
}

#[test]
fn a_run_that_is_there_late_does_not_take_the_screen_away() {
    let mut app = home_of(runs());
    press(&mut app, KeyCode::Char('n'));
    assert_eq!(press(&mut app, KeyCode::Enter), [Effect::Start("demo".into())]);
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.update(Msg::Opened(Ok(directory("demo-3")))), []);
    press(&mut app, KeyCode::Char('q'));
    assert_eq!(home(&mut app).prompt, Prompt::None);
}

#[test]
fn what_to_start_is_typed_and_corrected() {
    let mut app = home_of(runs());
    press(&mut app, KeyCode::Char('n'));
    type_text(&mut app, "quick?");
    press(&mut app, KeyCode::Backspace);
    assert_eq!(home(&mut app).prompt, Prompt::Start("quick".into()));
    app.update(Msg::Key(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL)));
    type_text(&mut app, "Q.toml ");
    assert_eq!(press(&mut app, KeyCode::Enter), [Effect::Start("Q.toml".into())]);
    assert_eq!(home(&mut app).prompt, Prompt::Busy("starting Q.toml".into()));
    app.update(Msg::Opened(Err(refusal())));
    press(&mut app, KeyCode::Char('n'));
    press(&mut app, KeyCode::Esc);
    assert_eq!(home(&mut app).prompt, Prompt::None);
}

#[test]
fn pasted_text_starts_nothing() {
    let mut app = home_of(runs());
    let paste = |app: &mut App, text: &str| {
        text.chars()
            .flat_map(|char| {
                let code = if char == '\n' { KeyCode::Enter } else { KeyCode::Char(char) };
                app.update(Msg::Key(KeyEvent::new(code, KeyModifiers::NONE)))
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(paste(&mut app, "new\n"), []);
    assert_eq!(
        home(&mut app).prompt,
        Prompt::Start("ew".into()),
        "the text opened the line and did not start what it says"
    );
    assert!(!screen(&app, 80, 24).contains("Enter start"));
    app.update(Msg::Clock(PAUSE));
    assert!(screen(&app, 80, 24).contains("Enter start"));
    press(&mut app, KeyCode::Esc);
    // Text pasted into the open line may end with Enter.
    press(&mut app, KeyCode::Char('n'));
    app.update(Msg::Clock(Duration::from_millis(500)));
    assert_eq!(paste(&mut app, "books.toml\n"), [Effect::Start("books.toml".into())]);
    app.update(Msg::Opened(Err(refusal())));
    press(&mut app, KeyCode::End);
    assert_eq!(paste(&mut app, "r"), [], "part of the burst of the key before");
}

#[test]
fn the_list_is_read_once_a_second_and_never_twice_at_a_time() {
    let mut app = home_of(runs());
    assert_eq!(app.update(Msg::Clock(Duration::from_millis(900))), []);
    assert_eq!(app.next_wake(), Some(Duration::from_secs(1)));
    assert_eq!(app.update(Msg::Clock(Duration::from_secs(1))), [Effect::List]);
    assert_eq!(app.update(Msg::Clock(Duration::from_secs(7))), []);
    assert!(screen(&app, 80, 24).contains("the list is 6s old: a folder is slow to respond"));
    assert_eq!(press(&mut app, KeyCode::Down), []);
    app.update(list(runs()));
    assert!(!screen(&app, 80, 24).contains("slow"));
    assert_eq!(app.update(Msg::Clock(Duration::from_secs(9))), [Effect::List]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn no_size_panics(width in 0..200u16, height in 0..60u16, selected in 0..8usize, count in 0..8usize, prompt in 0..4usize, has_help in any::<bool>()) {
        let mut app = home_of(runs().into_iter().take(count).collect());
        let screen = home(&mut app);
        screen.selected = selected.min(count.saturating_sub(1));
        screen.prompt = [Prompt::None, Prompt::Start("x".repeat(300)), Prompt::Busy("starting".into()), Prompt::Refused(refusal())][prompt].clone();
        screen.help = has_help.then_some(3);
        draw(&app, width, height);
    }
}
