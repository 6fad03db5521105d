//! A wall clock that was wrong while a run wrote its files: lists and views stay sane, and nothing
//! of the training depends on it.

use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Bench, completed_step, metrics, output, signal, until};
use crate::resume::final_bytes;

const FILES: [&str; 5] =
    ["events.jsonl", "metrics.jsonl", "evals.jsonl", "samples.jsonl", "activations.jsonl"];
/// What the clock said, line after line: some years on, then before computers, then far in the
/// future, and the truth.
const JUMPS: [&[&str]; 4] = [
    &["2031-01-01T00:00:00.000Z", "2001-01-01T00:00:00.000Z"],
    &["1950-06-01T12:00:00.000Z"],
    &["2105-06-01T12:00:00.000Z", "1970-01-01T00:00:00.000Z", "2026-11-25T00:00:00.000Z"],
    &["-000100-01-01T00:00:00.000Z", "9999-12-31T00:00:00.000Z"],
];

/// Gives the lines of a run these times, over and over, and its files times to match.
fn set_times(run: &Path, times: &[&str]) {
    for name in FILES {
        let path = run.join(name);
        let original = fs::read_to_string(&path).unwrap();
        let retimed = original.lines().zip(times.iter().cycle()).map(|(line, time)| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            assert!(line["at"].is_string(), "{line}");
            line["at"] = (*time).into();
            format!("{line}\n")
        });
        let text: String = retimed.collect();
        fs::write(&path, text).unwrap();
        let odd = if times[0] > "2026" {
            SystemTime::now() + Duration::from_hours(24 * 3650)
        } else {
            SystemTime::UNIX_EPOCH
        };
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_times(FileTimes::new().set_modified(odd))
            .unwrap();
    }
}

/// A number below zero, or what is no number, where a person reads.
fn nonsense(text: &str) -> Option<&str> {
    text.split_whitespace().find(|word| {
        let number = word.trim_start_matches(['(', '[']).strip_prefix('-');
        number.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            || word.contains("NaN")
            || ["inf", "-inf"].contains(word)
    })
}

/// What the program shows of the run `demo`.
fn looks(bench: &Bench, time_zone: Option<&str>) -> Vec<String> {
    let commands: [&[&str]; 5] = [
        &["runs"],
        &["view", "demo"],
        &["ctl", "demo", "status"],
        &["checkpoint", "ls", "demo"],
        &["runs", "--json"],
    ];
    let look = |arguments: &&[&str]| {
        let mut command: Command = bench.patchtui(arguments);
        time_zone.map(|zone| command.env("TZ", zone));
        let (code, stdout, stderr) = output(command);
        assert_eq!((code, stderr.contains("panicked")), (0, false), "{arguments:?}: {stderr}");
        assert!(stdout.contains("demo") || stdout.starts_with("STEP"), "{arguments:?}: {stdout}");
        stdout
    };
    commands.iter().map(look).collect()
}

#[test]
fn whatever_the_clock_said_a_run_is_shown_and_resumed_as_if_it_had_been_right() {
    let bench = Bench::new();
    assert_eq!(output(bench.tiny(&["--name", "whole"])).0, 0);
    let (bytes, expected) =
        (final_bytes(&bench.run_dir("whole")), metrics(&bench.run_dir("whole")));
    for times in JUMPS {
        let run = bench.run_dir("demo");
        let _ = fs::remove_dir_all(&run);
        until(
            bench.tiny(&["--name", "demo"]),
            |record| completed_step(record, 5),
            |child| signal(child, Signal::KILL),
        );
        set_times(&run, times);
        let shown = looks(&bench, None);
        assert!(shown[0].contains("crashed"), "{}", shown[0]);
        let (code, _, errors) = output(bench.tiny(&["--name", "demo", "--resume"]));
        assert_eq!(code, 0, "{times:?}: {errors}");
        assert!(final_bytes(&run) == bytes, "{times:?}: other bytes");
        assert_eq!(metrics(&run), expected, "{times:?}");
        let after = looks(&bench, None);
        for text in shown.iter().chain(&after) {
            assert_eq!(nonsense(text), None, "{times:?}: {text}");
        }
        // Times of steps are of a clock that nobody sets.
        let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let active: Vec<f64> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["active_seconds"].as_f64().unwrap()
            })
            .collect();
        assert!(active.iter().all(|seconds| seconds.is_finite() && *seconds >= 0.0), "{active:?}");
    }
}

#[test]
fn a_time_zone_changes_no_step_and_breaks_no_list() {
    let bench = Bench::new();
    assert_eq!(output(bench.tiny(&["--name", "whole"])).0, 0);
    let bytes = final_bytes(&bench.run_dir("whole"));
    for zone in [
        "America/New_York",
        "Asia/Kathmandu",
        "Pacific/Kiritimati",
        ":no/such/zone",
        "",
        "UTC+25:99",
    ] {
        let run = bench.run_dir("demo");
        let _ = fs::remove_dir_all(&run);
        let mut command = bench.tiny(&["--name", "demo"]);
        command.env("TZ", zone);
        let (code, said, errors) = output(command);
        assert_eq!(code, 0, "{zone}: {errors}");
        assert!(final_bytes(&run) == bytes, "{zone}: other bytes");
        let utc = |line: &str| {
            serde_json::from_str::<Value>(line).unwrap()["at"].as_str().unwrap().ends_with('Z')
        };
        assert!(said.lines().all(utc), "{zone}: times of lines are of UTC");
        for text in looks(&bench, Some(zone)) {
            assert_eq!(nonsense(&text), None, "{zone}: {text}");
        }
    }
}
