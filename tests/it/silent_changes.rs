//! Changes to a run's inputs are noticed, or have no effect; they never change the numbers
//! silently.

use std::fs::{self, File, FileTimes};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use patchtui::config::{RunConfig, to_toml};
use patchtui::record::{Outcome, RunCommand, RunDirectory, RunEnd, RunEvent};
use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Bench, output};
use crate::resume::{TINY, final_bytes, tiny_config, train};

/// A run on its own text, stopped after some steps.
struct Stopped {
    folder: tempfile::TempDir,
}

/// With the BOS token a hundred of these fill complete blocks.
const TEXT: &str = "The cat saw a dog, and the dog saw the cat; nobody said a word. ";
const TEXT_SETS: [&str; 4] = [
    "data.tokenizer=bytes",
    "data.validation_share=0.1",
    "model.vocab_size=256",
    "checkpoint.keep=20",
];

impl Stopped {
    fn new() -> Self {
        let stopped = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(stopped.text(), TEXT.repeat(100).trim_end()).unwrap();
        let stop = |event: &RunEvent| {
            matches!(event, RunEvent::StepCompleted(step) if step.step == 4)
                .then_some(RunCommand::Stop)
        };
        let (end, _) = train(stopped.config(&[]), &stopped.run(), stop);
        assert_eq!(end.outcome, Outcome::Stopped, "{:?}", end.error);
        stopped
    }

    fn text(&self) -> PathBuf {
        self.folder.path().join("text.txt")
    }

    fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn config(&self, sets: &[&str]) -> RunConfig {
        let files = format!("data.files=[{:?}]", self.text().to_str().unwrap());
        let sets: Vec<&str> =
            [files.as_str()].into_iter().chain(TEXT_SETS).chain(sets.iter().copied()).collect();
        tiny_config(&sets)
    }

    /// The file with all its ids.
    fn tokens(&self) -> PathBuf {
        let folder =
            fs::read_dir(self.folder.path().join("tokens")).unwrap().next().unwrap().unwrap();
        folder.path().join("text.tokens")
    }

    fn resume(&self, sets: &[&str]) -> (RunEnd, Vec<String>) {
        let (end, events) = train(self.config(sets), &self.run(), |_| None);
        (end, warnings(&events))
    }

    /// Fails with an error, and leaves the newest checkpoint unchanged.
    #[track_caller]
    fn is_refused(&self, wanted: &[&str]) {
        let before = final_bytes(&self.run());
        let (end, _) = self.resume(&[]);
        assert_eq!(end.outcome, Outcome::Failed);
        let error = end.error.unwrap();
        let text = format!("{} {}", error.message, error.hint.unwrap_or_default());
        assert!(wanted.iter().all(|wanted| text.contains(wanted)), "{text}");
        assert!(final_bytes(&self.run()) == before);
    }
}

fn warnings(events: &[RunEvent]) -> Vec<String> {
    let message = |event: &RunEvent| {
        if let RunEvent::Warning(warning) = event { Some(warning.message.clone()) } else { None }
    };
    events.iter().filter_map(message).collect()
}

fn change(path: &Path, at: u64, change: impl FnOnce(&mut [u8; 2])) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut bytes = [0; 2];
    file.read_exact_at(&mut bytes, at).unwrap();
    change(&mut bytes);
    file.write_all_at(&bytes, at).unwrap();
}

/// Bug reports 23 and 25, and ids of the validation text and beyond the vocabulary.
#[test]
fn regression_20_changed_tokens_are_refused_with_file_and_block() {
    let stopped = Stopped::new();
    let (tokens, length) = (stopped.tokens(), fs::metadata(stopped.tokens()).unwrap().len());
    for (at, bit) in [(length / 2, 1), (length - 200, 1), (length / 2, 0x8000)] {
        let at = at & !1;
        let flip = |bytes: &mut [u8; 2]| *bytes = (u16::from_le_bytes(*bytes) ^ bit).to_le_bytes();
        change(&tokens, at, flip);
        stopped.is_refused(&[
            &tokens.display().to_string(),
            "block 0",
            "does not match its hash",
            "rm -r",
        ]);
        change(&tokens, at, flip);
    }
    let whole = fs::read(&tokens).unwrap();
    fs::write(&tokens, [&whole[..4096], &[0; 4096], &whole[8192..]].concat()).unwrap();
    stopped.is_refused(&["block 0"]);
    fs::write(&tokens, whole).unwrap();
    let (end, warnings) = stopped.resume(&[]);
    assert_eq!((end.outcome, warnings), (Outcome::Completed, Vec::new()));
}

/// Bug report 26: a mapped file that shrinks would end the process by SIGBUS; an id beyond the
/// vocabulary would cause a panic.
#[test]
fn regression_20_tokens_that_change_while_the_run_reads_them_end_it_with_an_error() {
    type Damage = fn(&Path);
    let damages: [(Damage, &str); 2] = [
        (
            |tokens| File::options().write(true).open(tokens).unwrap().set_len(64).unwrap(),
            "shorter than when it was written",
        ),
        (
            |tokens| {
                File::options()
                    .write(true)
                    .open(tokens)
                    .unwrap()
                    .write_all_at(&[0xFF; 12_000], 0)
                    .unwrap();
            },
            "but the vocabulary has 256 tokens",
        ),
    ];
    for (damage, wanted) in damages {
        let stopped = Stopped::new();
        let tokens = stopped.tokens();
        let (end, _) = train(stopped.config(&[]), &stopped.run(), |event| {
            if matches!(event, RunEvent::StepCompleted(step) if step.step == 6) {
                damage(&tokens);
            }
            None
        });
        let error = end.error.unwrap().message;
        assert!(end.outcome == Outcome::Failed && error.contains(wanted), "{error}");
        // The earlier checkpoint is intact, and with its tokens the run ends like an undisturbed
        // one.
        fs::remove_dir_all(tokens.parent().unwrap()).unwrap();
        assert_eq!(stopped.resume(&[]).0.outcome, Outcome::Completed);
    }
}

#[test]
fn regression_20_a_text_that_changed_without_a_trace_is_prepared_anew_but_not_for_a_run_that_has_begun()
 {
    let stopped = Stopped::new();
    let expected = {
        let whole = stopped.folder.path().join("whole");
        train(stopped.config(&[]), &whole, |_| None);
        final_bytes(&whole)
    };
    let modified = fs::metadata(stopped.text()).unwrap().modified().unwrap();
    change(&stopped.text(), 100, |bytes| bytes[0] ^= 1);
    File::options()
        .write(true)
        .open(stopped.text())
        .unwrap()
        .set_times(FileTimes::new().set_modified(modified))
        .unwrap();
    let (end, warnings) = stopped.resume(&[]);
    assert_eq!(end.outcome, Outcome::Completed);
    assert_eq!(
        warnings,
        ["the text has changed since this run began: the run continues with the original tokens"]
    );
    assert!(final_bytes(&stopped.run()) == expected, "the resumed run read another text");
    let other = stopped.folder.path().join("other");
    train(stopped.config(&[]), &other, |_| None);
    assert!(final_bytes(&other) != expected, "a new run read the old text");
    // Without its tokens the run cannot resume, and says so.
    fs::remove_dir_all(stopped.folder.path().join("tokens")).unwrap();
    stopped.is_refused(&["the text or its tokenizer has changed since the checkpoint"]);
}

/// Bug report 24, inside the engine; through the program in the next test.
#[test]
fn regression_20_a_changed_configuration_is_refused_with_its_key() {
    let stopped = Stopped::new();
    for (set, key) in [
        ("optimizer.learning_rate=1e-3", "optimizer.learning_rate"),
        ("optimizer.gradient_clip=0.01", "optimizer.gradient_clip"),
    ] {
        let (end, _) = stopped.resume(&[set]);
        let error = end.error.unwrap().message;
        assert!(end.outcome == Outcome::Failed && error.contains(key), "{error}");
    }
}

#[test]
fn regression_20_a_configuration_edited_by_hand_is_refused_and_can_be_forked() {
    let bench = Bench::new();
    assert_eq!(output(tiny(&bench, &["--name", "whole"])).0, 0);
    // As after a crash before the last steps.
    for step in [8, 9] {
        fs::remove_dir_all(bench.run_dir("whole").join(format!("checkpoints/step-{step:08}")))
            .unwrap();
    }
    let config = RunDirectory::new(bench.run_dir("whole")).config();
    let events = bench.run_dir("whole").join("events.jsonl");
    let lines: Vec<String> = fs::read_to_string(&events)
        .unwrap()
        .lines()
        .filter(|line| !line.contains("run_finished"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(&events, lines.concat()).unwrap();
    let original = fs::read_to_string(&config).unwrap();
    for (old, new) in [
        ("learning_rate = ", "learning_rate = 0.7 # "),
        ("weight_decay = ", "weight_decay = 0.7 # "),
        ("tokens = 4608", "tokens = 9216"),
    ] {
        assert!(original.contains(old), "{old} in\n{original}");
        fs::write(&config, original.replacen(old, new, 1)).unwrap();
        let (code, _, errors) = output(bench.patchtui(&["resume", "whole", "--no-tui"]));
        let key = old.split(' ').next().unwrap();
        assert!(
            code == 2 && errors.contains(key) && errors.contains("patchtui run --from whole"),
            "{code}: {errors}"
        );
        let (_, status, _) = output(bench.patchtui(&["view", "whole"]));
        assert!(
            status.contains("altered")
                && status.contains("config.toml was changed: ")
                && status.contains(key),
            "{status}"
        );
    }
    fs::write(&config, &original).unwrap();
    let (_, status, _) = output(bench.patchtui(&["view", "whole"]));
    assert!(!status.contains("altered"), "{status}");
    let metrics = bench.run_dir("whole").join("metrics.jsonl");
    let measured = fs::read_to_string(&metrics).unwrap();
    fs::write(&metrics, measured.replacen("\"loss\":", "\"loss\":1", 1)).unwrap();
    let (_, status, _) = output(bench.patchtui(&["view", "whole"]));
    assert!(
        status.contains("metrics.jsonl was changed after the checkpoint at step 6"),
        "{status}"
    );
    fs::write(&metrics, measured).unwrap();
    // The checkpoint records its configuration: the original value is accepted, and is written
    // back.
    fs::write(&config, original.replacen("weight_decay = ", "weight_decay = 0.7 # ", 1)).unwrap();
    let (code, _, errors) = output(tiny(&bench, &["--name", "whole", "--resume"]));
    assert_eq!(code, 0, "{errors}");
    assert_eq!(fs::read_to_string(&config).unwrap(), original);
    let (code, _, errors) = output(bench.patchtui(&[
        "run",
        "--from",
        "whole",
        "--no-tui",
        "--set",
        "training.tokens=9216",
    ]));
    assert_eq!(code, 0, "{errors}");
    assert!(bench.run_dir("whole-2").join("checkpoints/step-00000018").is_dir());
}

#[test]
fn regression_20_edited_metrics_are_reported_once() {
    let bench = Bench::new();
    let mut first = tiny(&bench, &["--name", "run", "--json", "--set", "training.tokens=46080"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(first.stdout.take().unwrap()).lines();
    for line in lines {
        if line.unwrap().contains("\"step\":20,") {
            kill_process(Pid::from_child(&first), Signal::KILL).unwrap();
        }
    }
    first.wait().unwrap();
    let metrics = bench.run_dir("run").join("metrics.jsonl");
    change(
        &metrics,
        fs::read_to_string(&metrics).unwrap().find("\"loss\":").unwrap() as u64 + 7,
        |bytes| bytes[0] ^= 1,
    );
    let (code, said, errors) = output(bench.patchtui(&["resume", "run", "--no-tui", "--json"]));
    assert_eq!(code, 0, "{errors}");
    let complaints = said.lines().filter(|line| line.contains("metrics.jsonl was changed")).count();
    assert_eq!(complaints, 1, "{said}");
}

/// The end of a run decides on what it does not read again: these may change, or vanish, and the
/// bytes are the same.
#[test]
fn files_that_a_run_does_not_read_again_may_change_while_it_trains_and_between_attempts() {
    type Change = fn(&Stopped);
    let expected = {
        let stopped = Stopped::new();
        assert_eq!(stopped.resume(&[]).0.outcome, Outcome::Completed);
        final_bytes(&stopped.run())
    };
    let changes: [(&str, Change); 5] = [
        ("tokens removed", |stopped| {
            fs::remove_dir_all(stopped.tokens().parent().unwrap()).unwrap();
        }),
        ("plan.json emptied", |stopped| fs::write(stopped.run().join("plan.json"), "").unwrap()),
        ("plan.json changed", |stopped| {
            let plan = fs::read_to_string(stopped.run().join("plan.json")).unwrap();
            let other =
                plan.replace("\"steps\": 6", "\"steps\": 1").replace("\"peak\": ", "\"peak\": 9");
            assert_ne!(plan, other);
            fs::write(stopped.run().join("plan.json"), other).unwrap();
        }),
        ("config.toml emptied", |stopped| {
            fs::write(stopped.run().join("config.toml"), "").unwrap();
        }),
        ("an old checkpoint changed", |stopped| {
            change(
                &stopped.run().join("checkpoints/step-00000002/model.safetensors"),
                3000,
                |bytes| bytes[0] ^= 1,
            );
        }),
    ];
    for (what, change) in changes {
        let between = Stopped::new();
        change(&between);
        let (end, warnings) = between.resume(&[]);
        assert_eq!((end.outcome, warnings), (Outcome::Completed, Vec::new()), "{what}");
        assert!(final_bytes(&between.run()) == expected, "{what} between two attempts");
        let during = Stopped::new();
        let (end, _) = train(during.config(&[]), &during.run(), |event| {
            if matches!(event, RunEvent::StepCompleted(step) if step.step == 5) {
                change(&during);
            }
            None
        });
        assert_eq!(end.outcome, Outcome::Completed, "{what}: {:?}", end.error);
        assert!(final_bytes(&during.run()) == expected, "{what} while it trained");
    }
}

/// A file beside the tokenizer names its BOS and EOS tokens.
#[test]
fn special_tokens_of_the_run_that_were_changed_are_refused() {
    let bench = Bench::new();
    fs::write(
        bench.path().join("text.txt"),
        "to be or not to be, that is the question. ".repeat(200),
    )
    .unwrap();
    let (code, _, errors) =
        output(bench.patchtui(&["tokenizer", "train", "text.txt", "--vocab-size", "300"]));
    assert_eq!(code, 0, "{errors}");
    let (code, _, errors) = output(tiny(
        &bench,
        &[
            "--name",
            "own",
            "--set",
            "data.files=text.txt",
            "--set",
            "data.tokenizer=tokenizer.json",
        ],
    ));
    assert_eq!(code, 0, "{errors}");
    let generate = || {
        output(bench.patchtui(&["generate", "own", "--prompt", "to be", "--max-new-tokens", "2"]))
    };
    assert_eq!(generate().0, 0);
    let run = bench.run_dir("own");
    let tokenizer: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("tokenizer.json")).unwrap()).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
    let other = vocabulary.keys().find(|token| token.len() == 1).unwrap();
    fs::write(
        run.join("tokenizer_config.json"),
        serde_json::json!({ "eos_token": other }).to_string(),
    )
    .unwrap();
    let (code, _, errors) = generate();
    assert!(
        code != 0
            && errors.contains("its BOS or EOS token has changed")
            && errors.contains("tokenizer_config.json"),
        "{code}: {errors}"
    );
}

#[test]
fn a_tokenizer_of_the_run_that_was_swapped_is_refused() {
    let bench = Bench::new();
    fs::write(bench.path().join("text.txt"), TEXT.repeat(300)).unwrap();
    for (name, size) in [("own.json", "280"), ("other.json", "280")] {
        // The same size, from another text.
        let text =
            if name == "own.json" { TEXT.repeat(20) } else { TEXT.to_uppercase().repeat(20) };
        fs::write(bench.path().join("sample.txt"), text).unwrap();
        assert_eq!(
            output(bench.patchtui(&[
                "tokenizer",
                "train",
                "sample.txt",
                "--vocab-size",
                size,
                "--output",
                name
            ]))
            .0,
            0
        );
    }
    let sets = [
        "--json",
        "--set",
        "data.files=text.txt",
        "--set",
        "data.tokenizer=own.json",
        "--set",
        "model.vocab_size=320",
    ];
    let mut child = tiny(&bench, &sets).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains("\"step\":4,")).unwrap();
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    let own = bench.run_dir("demo").join("tokenizer.json");
    let original = fs::read(&own).unwrap();
    fs::copy(bench.path().join("other.json"), &own).unwrap();
    let (code, said, errors) = output(bench.patchtui(&["resume", "demo", "--no-tui"]));
    let text = said + &errors;
    assert!(
        code == 1 && text.contains("the text or its tokenizer has changed since the checkpoint"),
        "{code}: {text}"
    );
    // The original may go, the copy of the run decides.
    fs::write(&own, original).unwrap();
    fs::copy(bench.path().join("other.json"), bench.path().join("own.json")).unwrap();
    let (code, _, errors) = output(bench.patchtui(&["resume", "demo", "--no-tui"]));
    assert_eq!(code, 0, "{errors}");
}

/// A headless tiny run.
fn tiny(bench: &Bench, arguments: &[&str]) -> Command {
    let mut command = bench.patchtui(&["run", "demo", "--no-tui"]);
    for set in TINY {
        command.args(["--set", set]);
    }
    command.args(arguments);
    command
}

/// Trains in `directory`, which every part of the program then accepts as a run.
fn train_run(sets: &[&str], directory: &Path) {
    train(tiny_config(sets), directory, |_| None);
    fs::write(directory.join("config.toml"), to_toml(&tiny_config(sets))).unwrap();
}

/// The key that forks the run in `directory` at `step`.
fn fork_from(directory: &Path, step: u64) -> String {
    format!(
        "training.fork_from={:?}",
        directory.join(format!("checkpoints/step-{step:08}")).to_str().unwrap()
    )
}

/// The tensors of the newest checkpoint, without what identifies its run.
fn tensors(run: &Path) -> Vec<Vec<u8>> {
    let bytes = final_bytes(run);
    ["model.safetensors", "optimizer.safetensors"].map(|name| bytes[name].clone()).into()
}

#[test]
fn a_fork_with_nothing_changed_ends_where_the_original_does_even_if_it_is_killed_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let sets = ["checkpoint.every_steps=1", "checkpoint.keep=20"];
    train_run(&sets, &whole);
    // Inside the first stage, at the switch, and inside the second stage.
    for step in [4, 6, 7] {
        let directory = folder.path().join(format!("fork-{step}"));
        let from = fork_from(&whole, step);
        let sets = [sets[0], sets[1], &from];
        let kill = |event: &RunEvent| {
            matches!(event, RunEvent::StepCompleted(completed) if completed.step == 8)
                .then_some(RunCommand::Kill)
        };
        let (end, events) = train(tiny_config(&sets), &directory, kill);
        assert_eq!(end.outcome, Outcome::Interrupted, "forked at {step}: {:?}", end.error);
        let first = events.iter().find_map(|event| {
            if let RunEvent::StepCompleted(completed) = event { Some(completed.step) } else { None }
        });
        assert_eq!(first, Some(step + 1));
        let (end, _) = train(tiny_config(&sets), &directory, |_| None);
        assert_eq!(
            (end.outcome, end.step),
            (Outcome::Completed, 9),
            "forked at {step}: {:?}",
            end.error
        );
        assert!(tensors(&directory) == tensors(&whole), "forked at {step}");
    }
}

#[test]
fn a_fork_that_does_not_fit_says_what_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    train_run(&[], &whole);
    let from = fork_from(&whole, 6);
    let cases = [
        ("model.hidden_size=64", "model of the checkpoint differs from this configuration"),
        ("training.tokens=2048", "the checkpoint is at step 6, but the plan ends at step 4"),
        (
            "training.tokens_per_step=256",
            "the checkpoint has read 3072 tokens by step 6, but this plan reads 1536",
        ),
    ];
    for (number, (set, wanted)) in cases.into_iter().enumerate() {
        let (end, _) = train(
            tiny_config(&[from.as_str(), set]),
            &folder.path().join(format!("fork-{number}")),
            |_| None,
        );
        let error = end.error.unwrap();
        assert!(
            end.outcome == Outcome::Failed
                && error.message.contains(wanted)
                && error.hint.is_some(),
            "{set}: {error:?}"
        );
    }
}

#[test]
fn an_audit_changes_no_byte_and_finds_nothing_on_sound_hardware() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, audited) = (folder.path().join("plain"), folder.path().join("audited"));
    train(tiny_config(&[]), &plain, |_| None);
    let (end, events) = train(tiny_config(&["training.audit_every=1"]), &audited, |_| None);
    assert_eq!((end.outcome, warnings(&events)), (Outcome::Completed, Vec::new()));
    assert!(final_bytes(&plain) == final_bytes(&audited));
}
