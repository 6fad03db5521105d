//! A stopped run goes on to the same bytes, wherever it was stopped.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc;

use patchtui::config::{LoadRequest, RunConfig, load};
use patchtui::engine::{Job, execute};
use patchtui::run::{CommandEnvelope, EventSender, Outcome, RunCommand, RunEnd, RunEvent, command_channel};

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

fn tiny_config() -> RunConfig {
    let sets: Vec<String> = TINY.iter().map(ToString::to_string).collect();
    load(&LoadRequest { source: "demo", sets: &sets, current_dir: Path::new("/") }).unwrap().config
}

/// Trains until the end, or until `stop_after` steps were said to be complete.
fn train(directory: &Path, cache: &Path, stop_after: Option<u64>) -> (RunEnd, Vec<RunEvent>) {
    let (commands, inbox) = command_channel();
    let (sender, receiver) = mpsc::channel();
    let job = Job { config: tiny_config(), directory: directory.to_owned(), cache: cache.to_owned() };
    fs::create_dir_all(directory).unwrap();
    let trainer = std::thread::spawn(move || execute(job, inbox, &EventSender::new(sender)));
    let mut events = Vec::new();
    for event in receiver {
        if let (RunEvent::StepCompleted(step), Some(stop_after)) = (&event, stop_after)
            && step.step == stop_after
        {
            commands.send(CommandEnvelope { id: "1".into(), command: RunCommand::Stop, from: "test".into() });
        }
        events.push(event);
    }
    (trainer.join().unwrap(), events)
}

/// Every file of the newest checkpoint but the manifest, which holds times.
fn final_bytes(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let newest = fs::read_dir(directory.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let files = fs::read_dir(newest).unwrap().map(|entry| entry.unwrap().path());
    let named = files.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()));
    named.filter(|(name, _)| name != "manifest.json").collect()
}

/// Losses by step, with what the last attempt said of each.
fn losses(events: &[RunEvent]) -> BTreeMap<u64, (u64, u64)> {
    let steps = events.iter().filter_map(|event| match event {
        RunEvent::StepCompleted(step) => Some((step.step, (step.loss.to_bits(), step.grad_norm.to_bits()))),
        _ => None,
    });
    steps.collect()
}

#[test]
fn stopping_at_any_step_and_going_on_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("tokens");
    let (end, expected_events) = train(&folder.path().join("whole"), &cache, None);
    assert_eq!(end.outcome, Outcome::Completed, "{:?}", end.error);
    assert_eq!(end.step, 9);
    let expected = final_bytes(&folder.path().join("whole"));
    assert_eq!(expected.keys().collect::<Vec<_>>(), ["model.safetensors", "optimizer.safetensors", "trainer.json"]);
    // Inside the first stage, at the switch itself (6), right after it, inside the second.
    for stop_after in [1, 3, 5, 6, 7, 8] {
        let directory = folder.path().join(format!("stopped-{stop_after}"));
        let (end, mut events) = train(&directory, &cache, Some(stop_after));
        assert_eq!(end.outcome, Outcome::Stopped, "stopped after {stop_after}: {:?}", end.error);
        let (end, more) = train(&directory, &cache, None);
        assert_eq!(end.outcome, Outcome::Completed, "resumed after {stop_after}: {:?}", end.error);
        events.extend(more);
        assert_eq!(losses(&events), losses(&expected_events), "stopped after {stop_after}");
        assert!(final_bytes(&directory) == expected, "stopped after {stop_after}: the final checkpoint differs");
    }
}
