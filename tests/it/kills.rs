//! Real runs that are killed at drawn moments, and signals to a run that trains: the same bytes at
//! the end, and no signal without its effect.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Bench, endless, metrics, output, signal};
use crate::resume::final_bytes;

/// Numbers that follow from a seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        // The constants of Knuth's MMIX; the upper bits are the random ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// The lines of all files of a run.
fn lines(run: &Path) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for name in
        ["events.jsonl", "metrics.jsonl", "evals.jsonl", "samples.jsonl", "activations.jsonl"]
    {
        for line in fs::read_to_string(run.join(name)).unwrap().lines() {
            found.push((
                name.to_owned(),
                serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("{name}: {error}: {line}")),
            ));
        }
    }
    found
}

/// What was measured, without when and how long.
fn measurements(run: &Path) -> BTreeSet<String> {
    let of_measurements = lines(run)
        .into_iter()
        .filter(|(name, _)| !["events.jsonl", "metrics.jsonl"].contains(&name.as_str()));
    let plain = of_measurements.map(|(name, mut line)| {
        let fields = line.as_object_mut().unwrap();
        fields.retain(|key, _| {
            !["seq", "at", "attempt"].contains(&key.as_str())
                && !key.ends_with("seconds")
                && !key.ends_with("per_second")
        });
        format!("{name} {line}")
    });
    plain.collect()
}

#[test]
fn a_run_that_is_killed_at_drawn_moments_ends_with_the_same_bytes_and_lines() {
    const KILLS: usize = 5;
    let bench = Bench::new();
    let (code, said, errors) = output(bench.tiny(&["--name", "whole"]));
    assert_eq!(code, 0, "{errors}");
    let num_lines = said.lines().count();
    let whole = bench.run_dir("whole");
    let (bytes, steps, measured) = (final_bytes(&whole), metrics(&whole), measurements(&whole));
    let mut num_kills = 0;
    for seed in 1..=4 {
        let mut draw = Draw(seed);
        let name = format!("killed-{seed}");
        let mut kills = 0;
        loop {
            let mut command = bench.tiny(&["--name", &name, "--set", "checkpoint.every_steps=1"]);
            if kills > 0 {
                command.arg("--resume");
            }
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            // After so many of its lines, wherever in the next thing it is then.
            let after = if kills < KILLS { 1 + draw.below(num_lines) } else { usize::MAX };
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            if lines.by_ref().take(after).count() < after {
                assert_eq!(
                    child.wait().unwrap().code(),
                    Some(0),
                    "seed {seed}, after {kills} kills"
                );
                break;
            }
            signal(&child, Signal::KILL);
            // It may have come to its end before the signal.
            if child.wait().unwrap().code() == Some(0) {
                break;
            }
            kills += 1;
            num_kills += 1;
        }
        let run = bench.run_dir(&name);
        assert!(final_bytes(&run) == bytes, "seed {seed}: other bytes after {kills} kills");
        assert_eq!(
            (metrics(&run), measurements(&run)),
            (steps.clone(), measured.clone()),
            "seed {seed}"
        );
        let numbers: Vec<u64> =
            lines(&run).iter().map(|(_, line)| line["seq"].as_u64().unwrap()).collect();
        assert_eq!(
            numbers.iter().collect::<BTreeSet<_>>().len(),
            numbers.len(),
            "seed {seed}: a number was given twice"
        );
        let left = |folder: &Path| {
            fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .filter(|name| name.to_string_lossy().contains("tmp"))
                .count()
        };
        assert_eq!(
            (left(&run), left(&run.join("checkpoints"))),
            (0, 0),
            "seed {seed}: half a file or checkpoint is left"
        );
    }
    assert!(num_kills > 0, "every run came to its end before it could be killed");
}

/// A run that trains until it is told to stop, and its output.
fn training(bench: &Bench, name: &str) -> (Child, impl Iterator<Item = String>) {
    fs::write(bench.path().join("text.txt"), "to be or not to be ".repeat(500)).unwrap();
    let mut command = bench.patchtui(&endless());
    command
        .args(["--no-tui", "--json", "--name", name])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(
        lines.any(|line| line.contains("\"step_completed\"")),
        "{name} ended before its first step"
    );
    (child, lines)
}

#[test]
fn every_signal_has_its_effect_on_a_run_that_trains() {
    let bench = Bench::new();
    let (mut child, mut lines) = training(&bench, "one");
    for (number, said) in [
        (Signal::HUP, "SIGHUP was ignored"),
        (Signal::TSTP, "SIGTSTP (Ctrl-Z) was ignored"),
        (Signal::USR1, "\"type\":\"command_done\""),
    ] {
        signal(&child, number);
        assert!(lines.any(|line| line.contains(said)), "after {number:?} nothing said {said}");
        assert!(
            lines.any(|line| line.contains("\"step_completed\"")),
            "{number:?} ended the training"
        );
    }
    let socket =
        fs::read_dir(bench.path().join("sockets")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(&socket).unwrap();
    signal(&child, Signal::USR2);
    assert!(lines.any(|line| line.contains("socket was reopened")) && socket.exists());
    signal(&child, Signal::TERM);
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let last = *metrics(&bench.run_dir("one")).last_key_value().unwrap().0;
    assert!(
        bench.run_dir("one").join(format!("checkpoints/step-{last:08}/manifest.json")).is_file(),
        "step {last} is not saved"
    );

    // The second signal ends a run at once, unless the first has done so.
    let (mut child, lines) = training(&bench, "two");
    signal(&child, Signal::INT);
    signal(&child, Signal::INT);
    lines.for_each(drop);
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(75 | 130)), "{code:?}");

    let (mut child, lines) = training(&bench, "three");
    signal(&child, Signal::KILL);
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), None);
    let (_, runs, _) = output(bench.patchtui(&["runs"]));
    let state =
        |name: &str| runs.lines().find(|line| line.contains(name)).unwrap_or_default().to_owned();
    assert!(state("one").contains("stopped") && state("three").contains("crashed"), "{runs}");
}
