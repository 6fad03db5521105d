//! How keys and records change the client's state.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use patchtui::control::Feed;
use patchtui::record::{CommandNote, ControlState, RunCommand, RunEvent};
use patchtui::tui::{
    Access, Background, Effect, Markers, Msg, Overlay, RUN_KEYS, RunAction, RunId, Theme,
    action_of, run_keys, view,
};
use proptest::prelude::*;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::tui_fixture::{Client, Story, app, heard, note};

fn key(code: KeyCode) -> Msg {
    Msg::Key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn press(app: &mut Client, code: char) -> Vec<Effect> {
    app.update(key(KeyCode::Char(code)))
}

/// The effect of the `number`th command of the client in tests.
fn sent(number: u64, command: RunCommand) -> Effect {
    Effect::Send { run: RunId::FIRST, id: format!("12-key-{number}"), command }
}

fn answer(number: u64, command: RunCommand, message: &str) -> CommandNote {
    CommandNote { id: format!("12-key-{number}"), ..note(command, message) }
}

fn tell(app: &mut Client, story: &mut Story, event: RunEvent) {
    story.tell(event);
    app.update(heard(Feed::Record(Box::new(story.records.last().unwrap().clone()))));
}

fn text(app: &Client, width: u16, height: u16) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    view(&app.0, area, &mut buf);
    buf.content
        .chunks(usize::from(width))
        .map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>() + "\n")
        .collect()
}

fn last_line(app: &Client) -> String {
    text(app, 80, 24).lines().last().unwrap().trim().to_owned()
}

#[test]
fn a_stop_needs_enter() {
    for (answer, is_sent) in [
        (KeyCode::Enter, true),
        (KeyCode::Char('y'), false),
        (KeyCode::Char('n'), false),
        (KeyCode::Esc, false),
    ] {
        let mut app = app(&Story::after(66));
        assert_eq!(press(&mut app, 'S'), []);
        assert_eq!(app.overlay, Overlay::ConfirmStop);
        assert_eq!(
            app.update(key(answer)),
            if is_sent { vec![sent(1, RunCommand::Stop)] } else { vec![] }
        );
        assert_eq!(app.overlay, Overlay::None);
    }
}

#[test]
fn space_pauses_and_resumes_also_before_the_answer() {
    let mut app = app(&Story::after(66));
    assert_eq!(press(&mut app, ' '), [sent(1, RunCommand::Pause)]);
    assert_eq!(press(&mut app, ' '), [sent(2, RunCommand::Resume)]);
    let mut story = Story::after(66);
    story.control(ControlState::Paused, 66);
    let mut app = crate::tui_fixture::app(&story);
    assert_eq!(press(&mut app, ' '), [sent(1, RunCommand::Resume)]);
}

#[test]
fn a_command_is_followed_from_asked_to_done() {
    let mut story = Story::after(66);
    let mut app = app(&story);
    assert_eq!(press(&mut app, 'c'), [sent(1, RunCommand::Checkpoint)]);
    assert!(last_line(&app).starts_with("checkpoint sent"), "{}", last_line(&app));
    let events = [
        (
            RunEvent::CommandAccepted(answer(1, RunCommand::Checkpoint, "")),
            "checkpoint sent \u{2192} accepted at step 66",
        ),
        (
            RunEvent::CommandDone(answer(1, RunCommand::Checkpoint, "saved")),
            "checkpoint sent \u{2192} accepted \u{2192} done: saved",
        ),
    ];
    for (event, shown) in events {
        story.tell(event);
        let record = story.records.last().unwrap().clone();
        app.update(heard(Feed::Record(Box::new(record))));
        assert!(last_line(&app).starts_with(shown), "{}", last_line(&app));
    }
    app.update(Msg::Clock(Duration::from_mins(1)));
    assert!(last_line(&app).starts_with("q detach"), "{}", last_line(&app));
}

#[test]
fn a_command_of_somebody_else_is_a_line_of_the_log_and_hides_no_key() {
    let mut story = Story::after(66);
    let mut app = app(&story);
    tell(&mut app, &mut story, RunEvent::CommandAccepted(note(RunCommand::Checkpoint, "")));
    tell(
        &mut app,
        &mut story,
        RunEvent::CommandFailed(note(RunCommand::Checkpoint, "the disk is full")),
    );
    assert!(last_line(&app).starts_with("q detach"), "{}", last_line(&app));
    let screen = text(&app, 120, 40);
    assert!(
        screen.contains("checkpoint requested by keyboard of alice (pid 12)")
            && screen.contains("checkpoint failed: the disk is full"),
        "{screen}"
    );
}

/// Sends `typed` to the client in one piece, like pasted or mistyped text.
fn paste(app: &mut Client, typed: &str) -> Vec<Effect> {
    let code = |char| if char == '\n' { KeyCode::Enter } else { KeyCode::Char(char) };
    typed.chars().flat_map(|char| app.0.update(key(code(char)))).collect()
}

#[test]
fn text_in_one_piece_never_acts_as_a_run_of_keys() {
    for typed in ["Sy\n", "S\n", "SSS\n\n", "Stop it\nyes\n", "xS\n", "xc ge"] {
        let mut app = app(&Story::after(66));
        assert_eq!(paste(&mut app, typed), [], "{typed:?}");
        // Nor does more text that follows immediately.
        assert_eq!(paste(&mut app, "\n\n"), [], "{typed:?}");
    }
    let mut app = app(&Story::after(66));
    press(&mut app, 'S');
    assert!(!text(&app, 80, 24).contains("Enter  stop"));
    let ready = app.0.next_wake().unwrap();
    assert_eq!(app.0.update(key(KeyCode::Enter)), []);
    app.update(Msg::Clock(2 * ready));
    assert!(text(&app, 80, 24).contains("Enter  stop"));
    // A burst that begins after the dialog opened: only Enter itself confirms.
    assert_eq!((paste(&mut app, "y\n"), app.overlay), (vec![], Overlay::None));
    press(&mut app, 'S');
    app.update(Msg::Clock(4 * ready));
    assert_eq!(paste(&mut app, "\n"), [sent(1, RunCommand::Stop)]);
}

#[test]
fn a_command_that_was_accepted_is_forgotten_with_its_engine() {
    let mut story = Story::after(66);
    let mut app = app(&story);
    press(&mut app, 'c');
    tell(&mut app, &mut story, RunEvent::CommandAccepted(answer(1, RunCommand::Checkpoint, "")));
    app.update(heard(Feed::Ended { history: Box::new(story.history()) }));
    assert!(last_line(&app).starts_with("q quit"), "{}", last_line(&app));
    assert!(text(&app, 80, 24).contains("crashed"));
    app.update(heard(Feed::Snapshot(Box::new(story.history()))));
    assert!(
        text(&app, 80, 24).contains("running") && last_line(&app).starts_with("q detach"),
        "{}",
        last_line(&app)
    );
}

#[test]
fn a_command_that_nothing_will_answer_is_forgotten() {
    let story = Story::after(66);
    let history = || Box::new(story.history());
    for feed in [Feed::Ended { history: history() }, Feed::Snapshot(history())] {
        let mut app = app(&story);
        press(&mut app, 'c');
        assert!(last_line(&app).starts_with("checkpoint sent"), "{}", last_line(&app));
        app.update(heard(feed));
        assert!(!last_line(&app).contains("sent"), "{}", last_line(&app));
    }
}

/// A stop right after a measurement makes the resumed run measure again, and both results are in
/// the files.
#[test]
fn a_measurement_made_twice_around_a_stop_is_shown_once() {
    let mut story = Story::after(72);
    let once = story.history();
    let sampled = story
        .records
        .iter()
        .filter(|record| matches!(&record.event, RunEvent::Sampled(sample) if sample.step == 72))
        .cloned()
        .collect::<Vec<_>>();
    assert_eq!(sampled.len(), 2);
    for record in sampled {
        story.tell(record.event);
    }
    assert_eq!(story.history().samples, once.samples);
}

#[test]
fn colors_follow_the_terminal_and_the_key() {
    let mut app = app(&Story::after(66));
    app.update(Msg::Background(Background::Light));
    assert_eq!(app.theme.background, Background::Light);
    press(&mut app, 't');
    assert_eq!(app.theme.background, Background::Dark);
}

#[test]
fn the_answer_to_the_same_command_of_another_client_is_not_taken_for_ones_own() {
    let mut story = Story::after(66);
    let mut app = app(&story);
    press(&mut app, 'c');
    tell(&mut app, &mut story, RunEvent::CommandDone(note(RunCommand::Checkpoint, "theirs")));
    assert!(last_line(&app).starts_with("checkpoint sent  "), "{}", last_line(&app));
    tell(&mut app, &mut story, RunEvent::CommandDone(answer(1, RunCommand::Checkpoint, "mine")));
    assert!(
        last_line(&app).starts_with("checkpoint sent \u{2192} accepted \u{2192} done: mine"),
        "{}",
        last_line(&app)
    );
}

#[test]
fn a_late_answer_to_an_earlier_command_is_still_ones_own() {
    let mut story = Story::after(66);
    let mut app = app(&story);
    press(&mut app, 'c');
    press(&mut app, 'e');
    tell(&mut app, &mut story, RunEvent::CommandAccepted(answer(2, RunCommand::Evaluate, "")));
    tell(&mut app, &mut story, RunEvent::CommandDone(answer(1, RunCommand::Checkpoint, "saved")));
    assert!(last_line(&app).starts_with("checkpoint sent"), "{}", last_line(&app));
}

/// A client whose engine has not sent anything yet.
fn waiting() -> Client {
    Client::new(Access::Steer, Theme::plain(Markers::Braille))
}

#[test]
fn commands_before_the_first_word_wait_for_it_and_are_then_sent_in_order() {
    let mut app = waiting();
    assert_eq!(press(&mut app, 'c'), []);
    assert_eq!(press(&mut app, ' '), []);
    assert!(last_line(&app).starts_with("pause sent"), "{}", last_line(&app));
    let first = app.update(heard(Feed::Snapshot(Box::new(Story::after(66).history()))));
    assert_eq!(first, [sent(1, RunCommand::Checkpoint), sent(2, RunCommand::Pause)]);
    assert_eq!(app.update(heard(Feed::Heartbeat)), []);
}

#[test]
fn commands_that_waited_are_refused_when_there_is_no_engine() {
    let ends = [
        Feed::Lost { reason: "connection refused".into(), retry_seconds: 2.0 },
        Feed::Ended { history: Box::new(Story::done().history()) },
        Feed::Snapshot(Box::new(Story::done().history())),
    ];
    for end in ends {
        let mut app = waiting();
        press(&mut app, 'c');
        assert_eq!(app.update(heard(end)), []);
        assert!(last_line(&app).starts_with("checkpoint not sent"), "{}", last_line(&app));
        assert_eq!(
            app.update(heard(Feed::Snapshot(Box::new(Story::after(66).history())))),
            [],
            "a refused command is not sent later"
        );
    }
}

#[test]
fn a_run_that_is_only_read_sends_nothing() {
    let mut app = Client::new(Access::Read, Theme::plain(Markers::Braille));
    app.update(heard(Feed::Ended { history: Box::new(Story::after(66).history()) }));
    for code in [' ', 'c', 'S', 'e', 'g'] {
        assert_eq!(press(&mut app, code), []);
    }
    assert_eq!(
        (app.overlay, last_line(&app).starts_with("read from files   q quit   ? help")),
        (Overlay::None, true),
        "{}",
        last_line(&app)
    );
    assert!(!text(&app, 80, 24).contains("not sent"));
    assert_eq!(press(&mut app, 'q'), [Effect::Leave]);
}

#[test]
fn nothing_is_sent_where_nobody_hears() {
    let mut app = app(&Story::after(66));
    app.update(heard(Feed::Lost { reason: "connection refused".into(), retry_seconds: 2.0 }));
    assert_eq!(press(&mut app, 'c'), []);
    assert!(last_line(&app).starts_with("checkpoint not sent"), "{}", last_line(&app));
}

#[test]
fn a_record_that_was_heard_before_changes_nothing() {
    let story = Story::after(66);
    let mut app = app(&story);
    let before = app.history.clone();
    app.update(heard(Feed::Record(Box::new(story.records[40].clone()))));
    assert_eq!(app.history, before);
}

#[test]
fn a_silent_engine_is_called_so() {
    let mut app = app(&Story::after(66));
    assert_eq!(app.0.next_wake(), Some(Duration::from_secs(10)));
    app.update(Msg::Clock(Duration::from_secs(12)));
    assert!(text(&app, 80, 24).contains("silent for 12s"));
    assert_eq!(app.0.next_wake(), Some(Duration::from_secs(13)));
}

#[test]
fn an_engine_in_a_long_step_is_not_silent_while_it_pings() {
    let mut app = app(&Story::after(66));
    app.update(Msg::Clock(Duration::from_secs(9)));
    app.update(heard(Feed::Heartbeat));
    app.update(Msg::Clock(Duration::from_secs(18)));
    assert!(!text(&app, 80, 24).contains("no news"));
    app.update(Msg::Clock(Duration::from_secs(20)));
    assert!(text(&app, 80, 24).contains("silent for 11s"));
}

#[test]
fn the_help_names_every_key_of_the_table() {
    let mut app = app(&Story::after(66));
    press(&mut app, '?');
    let screen = text(&app, 100, 40);
    for binding in run_keys(Access::Steer) {
        assert!(
            screen.contains(binding.label) && screen.contains(binding.help),
            "{} is missing",
            binding.label
        );
    }
}

#[test]
fn the_help_of_a_run_that_has_ended_has_no_commands() {
    let mut app = app(&Story::done());
    press(&mut app, '?');
    let screen = text(&app, 100, 40);
    assert!(
        screen.contains("quit")
            && !screen.contains("pause or resume")
            && !screen.contains("detach"),
        "{screen}"
    );
}

/// Any key of the table, and some others.
fn keys() -> impl Strategy<Value = KeyEvent> {
    let bound = RUN_KEYS
        .iter()
        .flat_map(|binding| binding.keys)
        .map(|(code, modifiers)| KeyEvent::new(*code, *modifiers))
        .collect::<Vec<_>>();
    prop_oneof![
        6 => prop::sample::select(bound),
        1 => any::<char>().prop_map(|char| KeyEvent::new(KeyCode::Char(char), KeyModifiers::NONE)),
        1 => prop::sample::select(vec![KeyCode::Char('y'), KeyCode::Char('n'), KeyCode::Left, KeyCode::Delete]).prop_map(|code| KeyEvent::new(code, KeyModifiers::NONE)),
    ]
}

fn messages() -> impl Strategy<Value = Msg> {
    let records = Story::done().records;
    let count = records.len();
    prop_oneof![
        10 => keys().prop_map(Msg::Key),
        4 => (0..count).prop_map(move |idx| heard(Feed::Record(Box::new(records[idx].clone())))),
        1 => (0..180u64).prop_map(|steps| heard(Feed::Snapshot(Box::new(Story::after(steps).history())))),
        1 => any::<f64>().prop_map(|retry_seconds| heard(Feed::Lost { reason: "gone".into(), retry_seconds })),
        1 => Just(heard(Feed::Ended { history: Box::default() })),
        1 => (0..100_000u64).prop_map(|millis| Msg::Clock(Duration::from_millis(millis))),
        1 => Just(heard(Feed::Heartbeat)),
        1 => Just(Msg::Resized),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn no_sequence_of_messages_breaks_the_rules(messages in prop::collection::vec(messages(), 1..120)) {
        let mut app = app(&Story::after(20));
        for msg in messages {
            let was_asked = app.overlay == Overlay::ConfirmStop;
            let action = if let Msg::Key(event) = &msg { action_of(run_keys(Access::Steer), *event) } else { None };
            let is_yes = matches!(&msg, Msg::Key(event) if event.code == KeyCode::Enter);
            let effects = app.update(msg);
            if effects.iter().any(|effect| matches!(effect, Effect::Send { command: RunCommand::Stop, .. })) {
                prop_assert!(was_asked && is_yes, "a stop without Enter");
            }
            let is_killed = effects.iter().any(|effect| matches!(effect, Effect::Send { command: RunCommand::Kill, .. }));
            prop_assert!(!is_killed);
            if action == Some(RunAction::Detach) {
                prop_assert_eq!(&effects, &[Effect::Leave]);
            }
            let mut copy = app.clone();
            if matches!(copy.overlay, Overlay::Help(_)) {
                press(&mut copy, '?');
            }
            press(&mut copy, '?');
            prop_assert!(matches!(copy.overlay, Overlay::Help(_)), "? does not open the help");
            copy.update(key(KeyCode::Esc));
            copy.update(key(KeyCode::Esc));
            prop_assert!(copy.overlay == Overlay::None && !copy.is_zoomed, "Esc does not lead back");
        }
        text(&app, 80, 24);
        text(&app, 120, 40);
    }
}
