//! A stopped run ends byte-identical to an uninterrupted one, wherever it was stopped.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc;

use patchtui::config::{LoadRequest, RunConfig, load};
use patchtui::disk::Disk;
use patchtui::engine::self_check::Cache;
use patchtui::engine::{Job, execute};
use patchtui::record::{
    Evaluation, EventSender, History, Outcome, Record, RunCommand, RunDirectory, RunEnd, RunEvent,
    Store,
};
use patchtui::steer::{CommandEnvelope, command_channel};

use crate::program::{Bench, output};

/// Nine steps of a tiny network: six with K = 4, three with K = 1.
pub(crate) const TINY: [&str; 13] = [
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "model.num_hidden_layers=2",
    "model.num_attention_heads=2",
    "training.tokens_per_step=512",
    "training.tokens=4608",
    "training.context_length=16",
    "training.micro_batch_size=4",
    "evaluation.every_steps=3",
    "evaluation.max_tokens=256",
    "activations.every_steps=3",
    "samples.every_steps=6",
    "checkpoint.every_steps=2",
];

/// [`TINY`] with some keys set differently.
pub(crate) fn tiny_config(sets: &[&str]) -> RunConfig {
    let sets: Vec<String> = TINY.iter().chain(sets).map(ToString::to_string).collect();
    load(&LoadRequest { source: "demo", sets: &sets, current_dir: Path::new("/") }).unwrap().config
}

/// A run in `directory`, with prepared text beside it.
pub(crate) fn job(config: RunConfig, directory: &Path) -> Job {
    let cache = directory.parent().unwrap().join("tokens");
    Job {
        config,
        directory: directory.to_owned(),
        cache,
        checks: Cache::none(),
        device_reason: None,
        disk: Disk::default(),
    }
}

/// Trains until the end, or until the answer to an event is a command.
pub(crate) fn train(
    config: RunConfig,
    directory: &Path,
    answer: impl Fn(&RunEvent) -> Option<RunCommand>,
) -> (RunEnd, Vec<RunEvent>) {
    let (commands, inbox) = command_channel();
    let (sender, receiver) = mpsc::channel();
    let job = job(config, directory);
    fs::create_dir_all(directory).unwrap();
    let trainer = std::thread::spawn(move || execute(job, inbox, &EventSender::new(sender)));
    let mut events = Vec::new();
    for event in receiver {
        if let Some(command) = answer(&event) {
            commands.send(CommandEnvelope { id: "1".into(), command, from: "test".into() });
        }
        events.push(event);
    }
    (trainer.join().unwrap(), events)
}

/// The events of several attempts, as a reader of the log combines them.
fn history(attempts: [Vec<RunEvent>; 3]) -> History {
    let mut history = History::default();
    let numbered = attempts
        .into_iter()
        .zip(1..)
        .flat_map(|(events, attempt)| events.into_iter().map(move |event| (attempt, event)));
    for ((attempt, event), seq) in numbered.zip(1..) {
        history.apply(&Record { seq, at: "2026-11-25T00:00:00Z".into(), attempt, event });
    }
    history
}

/// Names of the checkpoints of a run.
fn checkpoints(directory: &Path) -> Vec<String> {
    let Ok(listing) = fs::read_dir(directory.join("checkpoints")) else { return Vec::new() };
    let mut names: Vec<String> =
        listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every file of the newest checkpoint except the manifest, which contains times.
pub(crate) fn final_bytes(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let newest = fs::read_dir(directory.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max()
        .unwrap();
    let files = fs::read_dir(newest).unwrap().map(|entry| entry.unwrap().path());
    let named = files.map(|path| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
    });
    named.filter(|(name, _)| name != "manifest.json").collect()
}

/// Losses by step, from the last attempt that took each.
fn losses(events: &[RunEvent]) -> BTreeMap<u64, (u64, u64)> {
    let steps = events.iter().filter_map(|event| match event {
        RunEvent::StepCompleted(step) => {
            Some((step.step, (step.loss.to_bits(), step.grad_norm.to_bits())))
        }
        _ => None,
    });
    steps.collect()
}

#[test]
fn stopping_at_any_step_and_going_on_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (end, expected_events) = train(tiny_config(&[]), &folder.path().join("whole"), |_| None);
    assert_eq!(end.outcome, Outcome::Completed, "{:?}", end.error);
    assert_eq!(end.step, 9);
    let expected = final_bytes(&folder.path().join("whole"));
    assert_eq!(
        expected.keys().collect::<Vec<_>>(),
        ["model.safetensors", "optimizer.safetensors", "trainer.json"]
    );
    // Inside the first stage, at the switch itself (6), right after it, inside the second.
    for stop_after in [1, 3, 5, 6, 7, 8] {
        let directory = folder.path().join(format!("stopped-{stop_after}"));
        let stop = |event: &RunEvent| {
            matches!(event, RunEvent::StepCompleted(step) if step.step == stop_after)
                .then_some(RunCommand::Stop)
        };
        let (end, mut events) = train(tiny_config(&[]), &directory, stop);
        assert_eq!(end.outcome, Outcome::Stopped, "stopped after {stop_after}: {:?}", end.error);
        let (end, more) = train(tiny_config(&[]), &directory, |_| None);
        assert_eq!(end.outcome, Outcome::Completed, "resumed after {stop_after}: {:?}", end.error);
        events.extend(more);
        assert_eq!(losses(&events), losses(&expected_events), "stopped after {stop_after}");
        assert!(
            final_bytes(&directory) == expected,
            "stopped after {stop_after}: the final checkpoint differs"
        );
    }
}

/// Measured at the start, between, at the end of a stage and of the run; samples of this many
/// tokens take minutes.
const ENDLESS_SAMPLES: [&str; 2] = ["samples.every_steps=3", "samples.max_new_tokens=1048576"];
const SHORT_SAMPLES: [&str; 4] = [
    "samples.every_steps=3",
    "samples.max_new_tokens=4",
    "checkpoint.every_steps=1",
    "checkpoint.keep=100",
];
const MEASURED_STEPS: [u64; 4] = [0, 3, 6, 9];

/// Resumes in `directory` from the checkpoint that `whole` has of the step before `step`, and sends
/// `command` when the samples of `step` are about to begin.
fn train_until_samples(
    whole: &Path,
    directory: &Path,
    step: u64,
    command: RunCommand,
) -> (RunEnd, Vec<RunEvent>) {
    if let Some(before) = step.checked_sub(1) {
        let name = format!("checkpoints/step-{before:08}");
        fs::create_dir_all(directory.join(&name)).unwrap();
        for file in fs::read_dir(whole.join(&name)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), directory.join(&name).join(file.file_name())).unwrap();
        }
    }
    train(tiny_config(&ENDLESS_SAMPLES), directory, |event| {
        matches!(event, RunEvent::ActivationsMeasured(measured) if measured.step == step)
            .then_some(command)
    })
}

#[test]
fn a_stop_does_not_wait_for_measurements_and_they_are_made_up_for() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let (_, whole_events) = train(tiny_config(&SHORT_SAMPLES), &whole, |_| None);
    let expected = final_bytes(&whole);
    for step in MEASURED_STEPS {
        let directory = folder.path().join(format!("stop-{step}"));
        let (end, first_events) = train_until_samples(&whole, &directory, step, RunCommand::Stop);
        assert_eq!((end.outcome, end.step), (Outcome::Stopped, step), "{:?}", end.error);
        assert_eq!(checkpoints(&directory).last().unwrap(), &format!("step-{step:08}"));
        let (end, more) = train(tiny_config(&SHORT_SAMPLES), &directory, |_| None);
        assert_eq!(end.outcome, Outcome::Completed, "stopped at {step}: {:?}", end.error);
        let first = more
            .iter()
            .position(|event| matches!(event, RunEvent::Sampled(sample) if sample.step == step));
        let next_step = more.iter().position(|event| matches!(event, RunEvent::StepCompleted(_)));
        assert!(
            first.is_some() && next_step.is_none_or(|next| first < Some(next)),
            "the samples of step {step} come before the next step"
        );
        let events = [first_events.as_slice(), more.as_slice()].concat();
        for idx in [0, 1] {
            let said = |events: &[RunEvent]| {
                events.iter().filter(|event| matches!(event, RunEvent::StageCompleted(ledger) if ledger.stage == idx)).count()
            };
            let was_completed_before = step > 6 && idx == 0;
            assert_eq!(
                said(&events),
                usize::from(!was_completed_before),
                "stopped at {step}: stage {idx} is completed once"
            );
            assert_eq!(said(&whole_events), 1);
        }
        assert!(
            final_bytes(&directory) == expected,
            "stopped at {step}: the final checkpoint differs"
        );
        // The checkpoint records the repeated measurements, so that they are not made again.
        let (_, again) = train(tiny_config(&SHORT_SAMPLES), &directory, |_| None);
        assert!(
            !again
                .iter()
                .any(|event| matches!(event, RunEvent::Sampled(_) | RunEvent::StageCompleted(_))),
            "stopped at {step}"
        );
        // In the log, each step is measured once.
        let history = history([first_events, more, again]);
        let evaluated: Vec<u64> =
            history.evaluations.iter().map(|evaluation| evaluation.step).collect();
        assert_eq!(
            evaluated,
            MEASURED_STEPS.into_iter().filter(|measured| *measured >= step).collect::<Vec<_>>(),
            "stopped at {step}"
        );
    }
}

/// As [`train`], with the files of the run.
fn train_with_files(
    config: RunConfig,
    directory: &Path,
    answer: impl Fn(&RunEvent) -> Option<RunCommand> + Send + 'static,
) -> RunEnd {
    train_on(Disk::default(), config, directory, answer)
}

/// As [`train_with_files`], where everything is written to `disk`.
pub(crate) fn train_on(
    disk: Disk,
    config: RunConfig,
    directory: &Path,
    answer: impl Fn(&RunEvent) -> Option<RunCommand> + Send + 'static,
) -> RunEnd {
    let mut store =
        Store::open_on(&RunDirectory::create(directory).unwrap(), disk.clone()).unwrap();
    let (commands, inbox) = command_channel();
    store.report_to(Box::new(move |record| {
        if let Some(command) = answer(&record.event) {
            commands.send(CommandEnvelope { id: "1".into(), command, from: "test".into() });
        }
    }));
    let (events, handle) = store.start().unwrap();
    let job = Job { disk, ..job(config, directory) };
    let end =
        std::thread::scope(|scope| scope.spawn(|| execute(job, inbox, &events)).join().unwrap());
    events.send(RunEvent::RunFinished(end.clone()));
    handle.join().unwrap();
    end
}

/// The steps of all lines of a file, and the samples as text.
fn measured_lines(directory: &Path) -> [Vec<String>; 3] {
    ["evals.jsonl", "activations.jsonl", "samples.jsonl"].map(|name| {
        let text = fs::read_to_string(directory.join(name)).unwrap();
        let lines =
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines
            .map(|line| format!("{} {}{}", line["step"], line["token_loss"], line["text"]))
            .collect()
    })
}

#[test]
fn what_was_measured_before_a_stop_is_not_measured_again() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let end = train_with_files(tiny_config(&SHORT_SAMPLES), &whole, |_| None);
    let (expected, lines) = (final_bytes(&whole), measured_lines(&whole));
    for step in MEASURED_STEPS {
        let directory = folder.path().join(format!("stop-{step}"));
        // First with samples that never end, so that the stop comes after evaluation and
        // activations, and before the samples.
        let config = move |reached: bool| {
            tiny_config(if reached { &ENDLESS_SAMPLES } else { &SHORT_SAMPLES })
        };
        if let Some(before) = step.checked_sub(1) {
            train_with_files(config(false), &directory, move |event| {
                matches!(event, RunEvent::StepCompleted(done) if done.step == before)
                    .then_some(RunCommand::Stop)
            });
        }
        let stopped = train_with_files(config(true), &directory, move |event| {
            matches!(event, RunEvent::ActivationsMeasured(measured) if measured.step == step)
                .then_some(RunCommand::Stop)
        });
        assert_eq!(
            (stopped.outcome, stopped.step),
            (Outcome::Stopped, step),
            "{:?}",
            stopped.error
        );
        let resumed = train_with_files(config(false), &directory, |_| None);
        assert_eq!(
            (resumed.outcome, resumed.token_loss, resumed.whole),
            (Outcome::Completed, end.token_loss, end.whole),
            "stopped at {step}"
        );
        assert!(
            final_bytes(&directory) == expected,
            "stopped at {step}: the final checkpoint differs"
        );
        assert_eq!(measured_lines(&directory), lines, "stopped at {step}");
    }
}

/// The newest evaluation among `events`.
fn last_evaluation(events: &[RunEvent]) -> Evaluation {
    let evaluation = |event: &RunEvent| {
        if let RunEvent::Evaluated(evaluation) = event { Some(evaluation.clone()) } else { None }
    };
    events.iter().rev().find_map(evaluation).unwrap()
}

#[test]
fn the_last_evaluation_is_of_the_whole_validation_text_too() {
    let folder = tempfile::tempdir().unwrap();
    let run = |max_tokens: &str| {
        let sets = ["data.validation_share=0.5", &format!("evaluation.max_tokens={max_tokens}")];
        train(tiny_config(&sets), &folder.path().join(max_tokens), |_| None)
    };
    let (end, events) = run("64");
    let (all_end, all_events) = run("100000");
    let (last, all) = (last_evaluation(&events), last_evaluation(&all_events));
    let whole = last.whole.unwrap();
    assert!(last.targets < whole.targets && last.all_targets == Some(whole.targets), "{last:?}");
    assert_eq!(
        (end.whole, all_end.whole, all.whole, end.token_loss),
        (last.whole, all.whole, Some(all.measured()), Some(last.token_loss))
    );
    // The same text in other batches.
    let close = |found: f64, expected: f64| {
        assert!((found - expected).abs() < 1e-6, "{found} and {expected}");
    };
    close(whole.token_loss, all.token_loss);
    close(whole.standard_error.unwrap(), all.standard_error.unwrap());
    close(whole.bits_per_byte.unwrap(), all.bits_per_byte.unwrap());
    assert!(whole.standard_error.unwrap() > 0.0);
    // A token of the demo's text stands for several bytes.
    let bytes_per_token = whole.token_loss / std::f64::consts::LN_2 / whole.bits_per_byte.unwrap();
    assert!((2.0..6.0).contains(&bytes_per_token), "{bytes_per_token}");
    // Others before it read what they may, and say how much that is of the whole.
    let earlier = events
        .iter()
        .filter(
            |event| matches!(event, RunEvent::Evaluated(evaluation) if evaluation.whole.is_some()),
        )
        .count();
    assert_eq!(earlier, 1);
}

#[test]
fn the_best_checkpoint_is_kept_and_is_the_same_after_stops() {
    // Such a large learning rate that the loss soon rises: the best checkpoint is not among the
    // newest.
    let sets = [
        "optimizer.learning_rate=1.0",
        "schedule.kind=constant",
        "evaluation.every_steps=1",
        "checkpoint.every_steps=1",
        "checkpoint.keep=2",
        "stages=[{patch_size=1}]",
    ];
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    train_with_files(tiny_config(&sets), &whole, |_| None);
    let losses: Vec<f64> = measured_lines(&whole)[0]
        .iter()
        .map(|line| line.split(' ').nth(1).unwrap().trim_end_matches("null").parse().unwrap())
        .collect();
    let best = (0..losses.len()).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap();
    assert!(best < 7, "{losses:?}");
    let expected = checkpoints(&whole);
    assert!(expected.contains(&format!("step-{best:08}")), "{expected:?}, {losses:?}");
    for stop in [1, 4, 8] {
        let directory = folder.path().join(format!("stopped-{stop}"));
        train_with_files(tiny_config(&sets), &directory, move |event| {
            matches!(event, RunEvent::StepCompleted(done) if done.step == stop)
                .then_some(RunCommand::Stop)
        });
        train_with_files(tiny_config(&sets), &directory, |_| None);
        assert_eq!(checkpoints(&directory), expected, "stopped at {stop}");
        assert!(final_bytes(&directory) == final_bytes(&whole), "stopped at {stop}");
    }
    let without = folder.path().join("without");
    train_with_files(
        tiny_config(&[&sets[..], &["checkpoint.keep_best=false"]].concat()),
        &without,
        |_| None,
    );
    assert!(
        !checkpoints(&without).contains(&format!("step-{best:08}")),
        "{:?}",
        checkpoints(&without)
    );
}

#[test]
fn a_kill_while_measuring_ends_without_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    train(tiny_config(&SHORT_SAMPLES), &whole, |_| None);
    for step in MEASURED_STEPS {
        let directory = folder.path().join(format!("kill-{step}"));
        let (end, events) = train_until_samples(&whole, &directory, step, RunCommand::Kill);
        assert_eq!((end.outcome, end.step), (Outcome::Interrupted, step), "{:?}", end.error);
        let name = format!("step-{step:08}");
        assert!(!checkpoints(&directory).contains(&name), "{name} was written");
        let saved = |event: &RunEvent| matches!(event, RunEvent::CheckpointSaved(info) if info.step == step);
        assert!(!events.iter().any(saved), "{name} was announced");
        assert!(events.iter().any(|event| matches!(event, RunEvent::CommandDone(note) if note.command == RunCommand::Kill)), "the command is answered");
    }
}

#[test]
fn a_stop_before_the_first_step_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("run");
    let stop =
        |event: &RunEvent| matches!(event, RunEvent::Progress(_)).then_some(RunCommand::Stop);
    let (end, events) = train(tiny_config(&["training.tokens=100M"]), &directory, stop);
    assert_eq!((end.outcome, end.step), (Outcome::Interrupted, 0), "{:?}", end.error);
    assert!(!events.iter().any(|event| matches!(event, RunEvent::RunStarted(_))));
    assert_eq!(checkpoints(&directory), Vec::<String>::new());
    assert_eq!(
        fs::read_dir(folder.path().join("tokens")).unwrap().count(),
        0,
        "half-prepared text stays behind"
    );
}

/// A folder with a file of multiple-choice questions, and the keys that score a run on them and on
/// a text.
fn task_sets(folder: &Path) -> Vec<String> {
    fs::create_dir_all(folder).unwrap();
    let question = |number: usize| {
        format!(
            "{{\"goal\": \"Say {number}\", \"sol1\": \"one\", \"sol2\": \"two\", \"label\": {}}}\n",
            number % 2
        )
    };
    fs::write(folder.join("piqa.jsonl"), (0..6).map(question).collect::<String>()).unwrap();
    let text = folder.join("text.txt");
    fs::write(&text, "Once upon a time there was a cat. ".repeat(9)).unwrap();
    let names = format!("tasks.names=[\"piqa\", \"text:{}\"]", text.display());
    vec![
        names,
        format!("tasks.data={:?}", folder),
        "tasks.every_steps=2".into(),
        "tasks.limit=5".into(),
    ]
}

/// Evaluation tasks are scored when due, change no byte, and are scored later if a stop has skipped
/// them.
#[test]
fn tasks_are_scored_on_their_cadence_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let sets = task_sets(&folder.path().join("tasks"));
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let path = |name: &str| folder.path().join(name);
    let (plain, with_tasks, stopped) = (path("plain"), path("tasks-run"), path("stopped"));
    train(tiny_config(&[]), &plain, |_| None);
    let (end, events) = train(tiny_config(&sets), &with_tasks, |_| None);
    assert_eq!(end.outcome, Outcome::Completed);
    let steps = |events: &[RunEvent]| -> Vec<u64> {
        let step = |event: &RunEvent| {
            if let RunEvent::TasksScored(scores) = event { Some(scores.step) } else { None }
        };
        events.iter().filter_map(step).collect()
    };
    // At the start, every second step, and at the end of both stages (6 and 9).
    assert_eq!(steps(&events), [0, 2, 4, 6, 8, 9]);
    let Some(RunEvent::TasksScored(scores)) =
        events.iter().find(|event| matches!(event, RunEvent::TasksScored(_)))
    else {
        panic!("no scores")
    };
    let named: Vec<(&str, &str, u64)> = scores
        .scores
        .iter()
        .map(|score| (&score.task[..4], score.metric.as_str(), score.num_documents))
        .collect();
    assert_eq!(
        named[..3],
        [("piqa", "acc", 5), ("piqa", "acc_norm", 5), ("text", "token_loss", 1)]
    );
    assert!(scores.scores.iter().all(|score| score.value.is_finite()), "{scores:?}");
    assert!(final_bytes(&plain) == final_bytes(&with_tasks), "tasks change the run");

    // A stop during an evaluation skips the scores due at that step; the next attempt makes them.
    let stop_at = |event: &RunEvent| {
        matches!(event, RunEvent::Evaluated(evaluation) if evaluation.step == 6)
            .then_some(RunCommand::Stop)
    };
    let (end, first) = train(tiny_config(&sets), &stopped, stop_at);
    assert_eq!(end.outcome, Outcome::Stopped);
    let (_, second) = train(tiny_config(&sets), &stopped, |_| None);
    let mut all = [steps(&first), steps(&second)].concat();
    all.dedup();
    assert_eq!(all, [0, 2, 4, 6, 8, 9]);
    assert!(final_bytes(&plain) == final_bytes(&stopped), "a stop changes the run");
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    // Wide enough that rows, columns and matrix products are split among the threads, with a long
    // and a short last block.
    let sets = [
        "model.hidden_size=96",
        "model.intermediate_size=260",
        "training.context_length=80",
        "training.tokens_per_step=3200",
        "training.tokens=16000",
    ];
    let bytes = |threads: &str| {
        let bench = Bench::new();
        let mut command =
            bench.patchtui(&["run", "demo", "--no-tui", "--name", "wide", "--set", threads]);
        for set in TINY.iter().chain(&sets) {
            command.args(["--set", set]);
        }
        let (code, _, errors) = output(command);
        assert_eq!(code, 0, "{errors}");
        final_bytes(&bench.run_dir("wide"))
    };
    let one = bytes("threads=1");
    for threads in ["threads=2", "threads=3"] {
        assert!(bytes(threads) == one, "{threads}");
    }
}
