//! What a real trainer answers to commands, and when.

use std::fs;
use std::path::Path;
use std::sync::mpsc;

use patchtui::config::{LoadRequest, load};
use patchtui::disk::Disk;
use patchtui::engine::self_check::Cache;
use patchtui::engine::{Job, execute};
use patchtui::record::{
    CommandNote, ControlState, EventSender, Outcome, RunCommand, RunEnd, RunEvent,
};
use patchtui::steer::{CommandEnvelope, CommandSender, command_channel};

use crate::resume::TINY;

/// A step after which all commands of a test are sent; the tiny run has nine.
const COMMAND_AT: u64 = 2;

/// Trains the tiny run in `directory`. `steer` gets every event, with the sender of commands until
/// it drops it.
fn train(
    directory: &Path,
    sets: &[&str],
    mut steer: impl FnMut(&RunEvent, &mut Option<CommandSender>),
) -> (RunEnd, Vec<RunEvent>) {
    let has_other_budget = sets.iter().any(|set| set.starts_with("training.steps"));
    let tiny = TINY.iter().filter(|set| !(has_other_budget && set.starts_with("training.tokens=")));
    let sets: Vec<String> = tiny.chain(sets).map(ToString::to_string).collect();
    let config = load(&LoadRequest { source: "demo", sets: &sets, current_dir: Path::new("/") })
        .unwrap()
        .config;
    let job = Job {
        config,
        directory: directory.join("run"),
        cache: directory.join("tokens"),
        checks: Cache::none(),
        device_reason: None,
        disk: Disk::default(),
    };
    fs::create_dir_all(job.directory.join("checkpoints")).unwrap();
    let (commands, inbox) = command_channel();
    let (sender, receiver) = mpsc::channel();
    let trainer = std::thread::spawn(move || execute(job, inbox, &EventSender::new(sender)));
    let (mut commands, mut events) = (Some(commands), Vec::new());
    for event in receiver {
        steer(&event, &mut commands);
        events.push(event);
    }
    (trainer.join().unwrap(), events)
}

fn send(commands: &mut Option<CommandSender>, command: RunCommand) {
    commands.as_ref().unwrap().send(CommandEnvelope {
        id: command.to_string(),
        command,
        from: "test".into(),
    });
}

/// Sends `command` when enough steps are completed.
fn send_at_the_step(command: RunCommand) -> impl FnMut(&RunEvent, &mut Option<CommandSender>) {
    move |event, commands| {
        if matches!(event, RunEvent::StepCompleted(step) if step.step == COMMAND_AT) {
            send(commands, command);
        }
    }
}

fn place(events: &[RunEvent], wanted: impl Fn(&RunEvent) -> bool) -> usize {
    events.iter().rposition(wanted).unwrap_or_else(|| panic!("not said: {events:#?}"))
}

fn is_done(command: RunCommand) -> impl Fn(&RunEvent) -> bool {
    move |event| matches!(event, RunEvent::CommandDone(note) if note.command == command)
}

#[test]
fn a_stop_is_done_when_its_checkpoint_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    let (end, events) =
        train(folder.path(), &["checkpoint.every_steps=1000"], send_at_the_step(RunCommand::Stop));
    assert_eq!(end.outcome, Outcome::Stopped);
    let accepted = place(&events, |event| matches!(event, RunEvent::CommandAccepted(_)));
    let saved = place(
        &events,
        |event| matches!(event, RunEvent::CheckpointSaved(info) if info.step == end.step),
    );
    let done = place(&events, is_done(RunCommand::Stop));
    assert!(accepted < saved && saved < done, "accepted {accepted}, saved {saved}, done {done}");
    let RunEvent::CommandDone(CommandNote { message, seconds, bytes, .. }) = &events[done] else {
        unreachable!()
    };
    assert!(
        seconds.is_some()
            && bytes.is_some_and(|bytes| bytes > 1000)
            && message.starts_with("saved step ")
            && message.contains(" in checkpoints/step-"),
        "{message}"
    );
}

#[test]
fn a_stop_whose_save_fails_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("run/checkpoints");
    fs::create_dir_all(&checkpoints).unwrap();
    for step in 1..=9 {
        // A file in place of the scratch folder.
        fs::write(checkpoints.join(format!("step-{step:08}.tmp")), "in the way").unwrap();
    }
    let (end, events) =
        train(folder.path(), &["checkpoint.every_steps=1000"], send_at_the_step(RunCommand::Stop));
    assert_eq!(end.outcome, Outcome::Failed);
    let failed = place(
        &events,
        |event| matches!(event, RunEvent::CommandFailed(note) if note.command == RunCommand::Stop),
    );
    assert!(!events.iter().any(is_done(RunCommand::Stop)), "{:?}", events[failed]);
}

#[test]
fn a_kill_is_done_when_training_has_ended_and_a_pending_stop_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let (end, events) = train(folder.path(), &[], |event, commands| {
        if matches!(event, RunEvent::StepCompleted(step) if step.step == COMMAND_AT) {
            send(commands, RunCommand::Kill);
            send(commands, RunCommand::Stop);
        }
    });
    assert_eq!(end.outcome, Outcome::Interrupted);
    assert!(
        place(&events, is_done(RunCommand::Kill))
            > place(&events, |event| matches!(event, RunEvent::StepCompleted(_)))
    );
    place(
        &events,
        |event| matches!(event, RunEvent::CommandFailed(note) if note.command == RunCommand::Stop && note.message.contains("killed")),
    );
}

#[test]
fn a_pause_is_done_when_the_run_is_paused_and_equal_commands_are_answered_together() {
    let folder = tempfile::tempdir().unwrap();
    let (end, events) = train(folder.path(), &[], |event, commands| match event {
        RunEvent::StepCompleted(step) if step.step == COMMAND_AT => {
            send(commands, RunCommand::Pause);
        }
        RunEvent::CommandDone(note) if note.command == RunCommand::Pause => {
            let commands = commands.as_ref().unwrap();
            for id in ["a", "b", "c"] {
                commands.send(CommandEnvelope {
                    id: id.into(),
                    command: RunCommand::Evaluate,
                    from: format!("client {id}"),
                });
            }
            commands.send(CommandEnvelope {
                id: "go".into(),
                command: RunCommand::Resume,
                from: "test".into(),
            });
        }
        _ => {}
    });
    assert_eq!(end.outcome, Outcome::Completed);
    let paused = place(
        &events,
        |event| matches!(event, RunEvent::ControlChanged(change) if change.state == ControlState::Paused),
    );
    assert!(paused < place(&events, is_done(RunCommand::Pause)));
    let notes = events.iter().filter_map(|event| match event {
        RunEvent::CommandDone(note) if note.command == RunCommand::Evaluate => Some(note),
        _ => None,
    });
    let mut answered: Vec<&str> = notes
        .flat_map(|note| {
            std::iter::once(note.id.as_str()).chain(note.also.iter().map(String::as_str))
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, ["a", "b", "c"]);
}

#[test]
fn a_pause_that_nobody_can_end_is_ended_with_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (end, events) = train(folder.path(), &[], |event, commands| match event {
        RunEvent::StepCompleted(step) if step.step == COMMAND_AT => {
            send(commands, RunCommand::Pause);
        }
        RunEvent::CommandDone(_) => *commands = None,
        _ => {}
    });
    assert_eq!(end.outcome, Outcome::Stopped);
    place(
        &events,
        |event| matches!(event, RunEvent::Warning(warning) if warning.message.contains("nothing can resume the run")),
    );
}

#[test]
fn a_run_stops_with_a_checkpoint_before_its_wall_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.txt");
    fs::write(&text, "to be or not to be ".repeat(500)).unwrap();
    let files = format!("data.files=[{text:?}]");
    let sets = [
        files.as_str(),
        "training.steps=1M",
        "training.max_walltime=6s",
        "checkpoint.every_steps=1000000",
    ];
    let (end, events) = train(folder.path(), &sets, |_, _| {});
    assert_eq!(end.outcome, Outcome::Stopped);
    let warned = place(
        &events,
        |event| matches!(event, RunEvent::Warning(warning) if warning.message.contains("max_walltime is almost reached")),
    );
    assert!(
        warned
            < place(
                &events,
                |event| matches!(event, RunEvent::CheckpointSaved(info) if info.step == end.step)
            )
    );
}
