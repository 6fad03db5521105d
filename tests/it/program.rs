//! The program as used by people and scripts: real processes, real files, real signals.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use patchtui::advice::{Advice, Audience};
use patchtui::engine::EngineError;
use portable_pty::CommandBuilder;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::resume::{TINY, final_bytes};
use crate::tui_pty::Session;

/// A folder to work in, with its own state folder.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn run_dir(&self, name: &str) -> PathBuf {
        self.path().join("runs").join(name)
    }

    pub(crate) fn patchtui(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchtui"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        command
            .env("XDG_STATE_HOME", self.path().join("state"))
            .env("PATCHTUI_SOCKET_DIR", self.path().join("sockets"));
        command.env_remove("PATCHTUI_RUNS_DIR");
        command
    }

    pub(crate) fn tiny(&self, arguments: &[&str]) -> Command {
        let mut command = self.patchtui(&["run", "demo", "--json"]);
        for set in TINY {
            command.args(["--set", set]);
        }
        command.args(arguments);
        command
    }

    /// Everything below the folder, except what the program may write before any check.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(self.path(), &mut found);
        found
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, found) } else { found.push(path) }
    }
}

pub(crate) fn output(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (
        status.code().unwrap_or(-1),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

/// Runs the program until it has printed `wanted`, then passes it to `then`.
pub(crate) fn until(
    mut command: Command,
    wanted: impl Fn(&Value) -> bool,
    then: impl FnOnce(&Child),
) -> i32 {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let found = lines
        .by_ref()
        .any(|line| serde_json::from_str(&line.unwrap()).is_ok_and(|record| wanted(&record)));
    assert!(found, "the program ended before it said what was waited for");
    then(&child);
    // Keep reading, so that a full pipe does not block the program.
    lines.for_each(drop);
    child.wait().unwrap().code().unwrap_or(-1)
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

pub(crate) fn completed_step(record: &Value, step: u64) -> bool {
    record["event"]["type"] == "step_completed" && record["event"]["step"] == step
}

/// The last line of each step, without the fields that may differ.
pub(crate) fn metrics(run: &Path) -> BTreeMap<u64, Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut steps = BTreeMap::new();
    for line in text.lines() {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let fields = line.as_object_mut().unwrap();
        for key in [
            "seq",
            "at",
            "attempt",
            "step_seconds",
            "active_seconds",
            "tokens_per_second",
            "data_wait_seconds",
        ] {
            assert!(fields.remove(key).is_some(), "{key} is missing");
        }
        steps.insert(line["step"].as_u64().unwrap(), line);
    }
    steps
}

#[test]
fn killed_in_any_stage_a_run_goes_on_to_the_same_bytes() {
    let bench = Bench::new();
    let (code, _, errors) = output(bench.tiny(&["--name", "whole"]));
    assert_eq!(code, 0, "{errors}");
    let (bytes, expected) =
        (final_bytes(&bench.run_dir("whole")), metrics(&bench.run_dir("whole")));
    assert_eq!(expected.len(), 9);
    for step in [1, 4, 6, 8] {
        let name = format!("killed-{step}");
        until(
            bench.tiny(&["--name", &name]),
            |record| completed_step(record, step),
            |child| signal(child, Signal::KILL),
        );
        let (code, _, errors) = output(bench.tiny(&["--name", &name, "--resume"]));
        assert_eq!(code, 0, "killed after step {step}: {errors}");
        assert!(
            final_bytes(&bench.run_dir(&name)) == bytes,
            "killed after step {step}: the final checkpoint differs"
        );
        assert_eq!(metrics(&bench.run_dir(&name)), expected, "killed after step {step}");
    }
}

#[test]
fn sigterm_saves_and_exits_75_and_resume_completes() {
    let bench = Bench::new();
    let code = until(
        bench.tiny(&[]),
        |record| completed_step(record, 3),
        |child| signal(child, Signal::TERM),
    );
    assert_eq!(code, 75);
    assert!(bench.run_dir("demo/checkpoints").read_dir().unwrap().count() >= 2);
    let (code, _, errors) = output(bench.tiny(&[]));
    assert_eq!(code, 2);
    assert!(errors.contains("--resume"), "{errors}");
    assert_eq!(output(bench.tiny(&["--resume"])).0, 0);
    let (code, _, errors) = output(bench.tiny(&["--resume"]));
    assert_eq!((code, errors.as_str()), (0, "demo has completed: there is nothing to resume\n"));
}

#[test]
fn a_second_start_of_a_finished_run_gets_the_next_name() {
    let bench = Bench::new();
    assert_eq!(output(bench.tiny(&[])).0, 0);
    assert_eq!(output(bench.tiny(&[])).0, 0);
    assert!(bench.run_dir("demo-2").join("metrics.jsonl").is_file());
    let (code, _, errors) = output(bench.tiny(&["--name", "demo"]));
    assert_eq!(code, 2, "{errors}");
}

#[test]
fn resume_refuses_what_would_make_it_another_run() {
    let bench = Bench::new();
    let code = until(
        bench.tiny(&[]),
        |record| completed_step(record, 2),
        |child| signal(child, Signal::TERM),
    );
    assert_eq!(code, 75);
    let (code, _, errors) =
        output(bench.tiny(&["--resume", "--set", "optimizer.learning_rate=1e-4"]));
    assert_eq!(code, 2);
    assert!(errors.contains("optimizer.learning_rate"), "{errors}");
    assert_eq!(output(bench.tiny(&["--resume", "--set", "evaluation.every_steps=2"])).0, 0);
}

#[test]
fn json_says_every_event_and_ends_with_the_end() {
    let bench = Bench::new();
    let (code, lines, errors) = output(bench.tiny(&[]));
    assert_eq!((code, errors.as_str()), (0, ""));
    let records: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> =
        records.iter().map(|record| record["event"]["type"].as_str().unwrap()).collect();
    for kind in [
        "run_started",
        "warmed",
        "stage_started",
        "step_completed",
        "evaluated",
        "activations_measured",
        "sampled",
        "checkpoint_saved",
        "stage_completed",
    ] {
        assert!(kinds.contains(&kind), "no {kind}");
    }
    assert_eq!(kinds.last(), Some(&"run_finished"));
    let evaluation =
        records.iter().rev().find(|record| record["event"]["type"] == "evaluated").unwrap();
    assert!(
        evaluation["event"]["token_loss"].as_f64().unwrap() < 6.93,
        "the model learned nothing"
    );
}

#[test]
fn wrong_input_gets_one_clear_answer_and_writes_nothing() {
    let bench = Bench::new();
    let text = |name: &str, content: &[u8]| fs::write(bench.path().join(name), content).unwrap();
    text("empty.txt", b"");
    text("binary.txt", b"abc\0def");
    text("text.txt", "to be or not to be ".repeat(2000).as_bytes());
    text("typo.toml", b"[training]\ntokns = \"3M\"\n");
    text("share.toml", b"[data]\nfiles = [\"text.txt\"]\n[training]\ntokens = \"1M\"\n[[stages]]\npatch_size = 4\nshare = 1.5\n[[stages]]\npatch_size = 1\n");
    let before = bench.files();
    let cases: [(&[&str], u8, &[&str]); 11] = [
        (&["typo.toml"], 2, &["typo.toml:2", "tokns", "training.tokens"]),
        (&["absent.toml"], 2, &["absent.toml", "demo"]),
        (&["share.toml"], 2, &["share.toml:7", "1.5"]),
        (&["demo", "--set", "data.files=[\"absent.txt\"]"], 2, &["absent.txt"]),
        (&["demo", "--set", "data.files=[\"empty.txt\"]"], 2, &["empty.txt", "empty"]),
        (&["demo", "--set", "data.files=[\"binary.txt\"]"], 2, &["binary.txt", "text"]),
        (&["demo", "--set", "model.num_attention_heads=3"], 2, &["num_attention_heads", "128"]),
        (&["demo", "--set", "model.vocab_size=500"], 2, &["vocab_size", "500", "1024"]),
        (
            &["demo", "--set", "training.tokens_per_step=1000"],
            2,
            &["tokens_per_step", "1000", "1024"],
        ),
        (&["demo", "--device", "quantum"], 2, &["quantum", "cpu"]),
        (&["demo", "--runs-dir", "text.txt/runs"], 1, &["text.txt"]),
    ];
    for (arguments, expected, words) in cases {
        let mut command = bench.patchtui(&["run", "--no-tui"]);
        command.args(arguments);
        let (code, out, errors) = output(command);
        assert_eq!(code, i32::from(expected), "{arguments:?}: {errors}");
        assert_eq!(out, "", "{arguments:?}");
        assert!(
            errors.starts_with("error: ") && errors.contains("\n hint: "),
            "{arguments:?}: {errors}"
        );
        assert!(!errors.contains("panicked"), "{arguments:?}: {errors}");
        for word in words {
            assert!(errors.contains(word), "{arguments:?} does not say {word:?}: {errors}");
        }
        assert_eq!(bench.files(), before, "{arguments:?} left files behind");
    }
}

#[test]
fn every_engine_error_that_can_be_built_has_a_hint() {
    let error = EngineError::NonFinite { what: "loss", step: 3, value: f64::NAN };
    assert!(error.hint(Audience::Command).contains("learning_rate"));
    assert_eq!(error.to_string(), "the loss of step 3 is NaN; its update was skipped");
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_before_the_weights_change() {
    let bench = Bench::new();
    let (code, lines, _) = output(bench.tiny(&[
        "--set",
        "optimizer.learning_rate=1e30",
        "--set",
        "schedule.warmup_steps=1",
        "--set",
        "optimizer.gradient_clip=1e30",
    ]));
    assert_eq!(code, 1);
    let end: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(end["event"]["outcome"], "failed");
    assert!(
        end["event"]["error"]["message"].as_str().unwrap().contains("its update was skipped"),
        "{end}"
    );
}

#[test]
fn the_plan_and_the_configuration_are_shown_without_writing_anything() {
    let bench = Bench::new();
    let (code, text, errors) = output(bench.patchtui(&["plan", "demo"]));
    assert_eq!((code, errors.as_str()), (0, ""));
    assert!(
        text.contains("entropy rate") && text.contains("K = 4") && text.contains("tok/s"),
        "{text}"
    );
    let (code, text, _) = output(bench.patchtui(&["plan", "demo", "--json"]));
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, document["plan"]["stages"][0]["patch_size"].as_u64()), (0, Some(4)));
    let (code, text, _) = output(bench.patchtui(&["config", "show", "demo", "--set", "seed=7"]));
    assert!(code == 0 && text.contains("seed = 7"), "{text}");
    assert_eq!(output(bench.patchtui(&["runs"])).0, 0);
    assert_eq!(bench.files(), Vec::<PathBuf>::new());
}

#[test]
fn a_run_whose_last_checkpoint_cannot_be_written_has_failed_and_can_be_resumed() {
    let bench = Bench::new();
    let blocked = bench.run_dir("demo").join("checkpoints/step-00000009.tmp");
    // A file in place of the scratch folder; the run may start only once it is there.
    fs::create_dir_all(blocked.parent().unwrap()).unwrap();
    fs::write(&blocked, "in the way").unwrap();
    let (code, lines, _) = output(bench.tiny(&[]));
    assert_eq!(code, 1, "{lines}");
    fs::remove_file(&blocked).unwrap();
    assert_eq!(output(bench.tiny(&["--resume"])).0, 0);
    assert!(bench.run_dir("demo").join("checkpoints/step-00000009/manifest.json").is_file());
}

#[test]
fn damaged_newer_checkpoints_do_not_push_out_a_fresh_one() {
    let bench = Bench::new();
    assert_eq!(
        until(
            bench.tiny(&[]),
            |record| completed_step(record, 7),
            |child| signal(child, Signal::TERM)
        ),
        75
    );
    let checkpoints = bench.run_dir("demo/checkpoints");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(&checkpoints).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in &paths[1..] {
        fs::write(path.join("model.safetensors"), "damaged").unwrap();
    }
    let oldest: u64 =
        paths[0].file_name().unwrap().to_str().unwrap()["step-".len()..].parse().unwrap();
    assert_eq!(
        until(
            bench.tiny(&["--resume"]),
            |record| completed_step(record, oldest + 1),
            |child| signal(child, Signal::TERM)
        ),
        75
    );
    let (code, lines, _) = output(bench.tiny(&["--resume"]));
    assert_eq!(code, 0);
    let header: Value = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .find(|record: &Value| record["event"]["type"] == "run_started")
        .unwrap();
    assert!(header["event"]["resumed_from"].as_u64() > Some(oldest), "{header}");
    let whole = bench.tiny(&["--name", "whole"]);
    assert_eq!(output(whole).0, 0);
    assert!(final_bytes(&bench.run_dir("demo")) == final_bytes(&bench.run_dir("whole")));
    let evaluations = fs::read_to_string(bench.run_dir("demo/evals.jsonl")).unwrap();
    assert!(evaluations.lines().last().unwrap().contains("\"step\":9"), "{evaluations}");
}

#[test]
fn a_run_without_one_usable_checkpoint_does_not_start_over() {
    let bench = Bench::new();
    assert_eq!(
        until(
            bench.tiny(&[]),
            |record| completed_step(record, 3),
            |child| signal(child, Signal::TERM)
        ),
        75
    );
    for entry in fs::read_dir(bench.run_dir("demo/checkpoints")).unwrap() {
        fs::write(entry.unwrap().path().join("model.safetensors"), "damaged").unwrap();
    }
    let before = fs::read(bench.run_dir("demo/metrics.jsonl")).unwrap();
    let (code, lines, _) = output(bench.tiny(&["--resume"]));
    let end: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    let error = &end["event"]["error"];
    assert_eq!(code, 1, "{lines}");
    assert!(error["message"].as_str().unwrap().contains("checkpoints can be used"), "{end}");
    assert!(error["hint"].as_str().unwrap().contains("--name"), "{end}");
    assert_eq!(fs::read(bench.run_dir("demo/metrics.jsonl")).unwrap(), before);
}

#[test]
fn a_stop_that_cannot_save_is_no_success() {
    let bench = Bench::new();
    fs::write(bench.path().join("text.txt"), "to be or not to be ".repeat(500)).unwrap();
    let mut command = bench.patchtui(&endless());
    command.args(["--no-tui", "--json"]);
    let ctl = |verb: &str| output(bench.patchtui(&["ctl", "demo", verb, "--json"]));
    let code = until(
        command,
        |record| completed_step(record, 3),
        |_| {
            let (code, text, errors) = ctl("pause");
            assert_eq!(code, 0, "{errors}");
            let step = serde_json::from_str::<Value>(&text).unwrap()["step"].as_u64().unwrap();
            // A file in place of the scratch folder.
            fs::write(
                bench.run_dir("demo").join(format!("checkpoints/step-{step:08}.tmp")),
                "in the way",
            )
            .unwrap();
            let (code, _, errors) = ctl("stop");
            assert!(code == 1 && errors.contains("stop failed: "), "{code} {errors}");
        },
    );
    assert_eq!(code, 1);
}

/// The program on its own terminal; it finds runs and sockets in `bench`.
fn on_a_terminal(bench: &Bench, arguments: &[&str]) -> Session {
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_patchtui"));
    command.args(arguments);
    command.cwd(bench.path());
    command.env("XDG_STATE_HOME", bench.path().join("state"));
    command.env("PATCHTUI_SOCKET_DIR", bench.path().join("sockets"));
    command.env_remove("PATCHTUI_RUNS_DIR");
    Session::of(command)
}

/// The tiny network on a short text, with more steps than any test waits for.
pub(crate) fn endless() -> Vec<&'static str> {
    let sets = TINY
        .into_iter()
        .filter(|set| !set.starts_with("training.tokens=") && !set.starts_with("checkpoint"));
    let mut arguments = vec!["run", "demo"];
    arguments.extend(
        sets.chain(["data.files=text.txt", "training.steps=1M", "checkpoint.every_steps=1000"])
            .flat_map(|set| ["--set", set]),
    );
    arguments
}

#[test]
fn a_run_outlives_its_terminal_and_is_found_from_another_folder() {
    let bench = Bench::new();
    fs::write(bench.path().join("text.txt"), "to be or not to be ".repeat(500)).unwrap();
    let mut screen = on_a_terminal(&bench, &endless());
    screen.wait_for_text("running");
    screen.hang_up();
    assert_eq!(screen.ended().exit_code(), 0);
    let ctl = |verb: &str| {
        let mut command = bench.patchtui(&["ctl", "demo", verb]);
        command.current_dir("/");
        output(command)
    };
    let (code, text, errors) = ctl("checkpoint");
    assert!(code == 0 && text.starts_with("saved step "), "{text}{errors}");
    let mut screen = on_a_terminal(&bench, &["attach"]);
    screen.wait_for_text("running");
    screen.press(b" ");
    screen.wait_for_text("paused");
    screen.press(b"q");
    screen.wait_for_text("continues in the background");
    assert_eq!(screen.ended().exit_code(), 0);
    assert!(ctl("status").1.contains("paused"));
    let (code, text, _) = output(bench.patchtui(&["ctl", "demo", "checkpoint", "--json"]));
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert!(
        code == 0 && answer["seconds"].is_f64() && answer["bytes"].as_u64() > Some(1000),
        "{text}"
    );
    let (code, text, _) = output(bench.patchtui(&["ctl", "demo", "evaluate", "--no-wait"]));
    assert_eq!((code, text.as_str()), (0, "evaluate accepted\n"));
    assert_eq!(ctl("stop").0, 0);
    let mut screen = on_a_terminal(&bench, &["attach", "demo"]);
    screen.wait_for_text("stopped");
    screen.press(b"q");
    assert_eq!(screen.ended().exit_code(), 75);
}
