//! `patchtui bench`: its numbers add up, and missing inputs are named. Times themselves are not
//! checked.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value};

use crate::program::{Bench, output};

/// A network of two layers, two stages of two micro-batches each.
const TINY: [&str; 11] = [
    "threads=1",
    "model.hidden_size=16",
    "model.intermediate_size=24",
    "model.num_hidden_layers=2",
    "model.num_attention_heads=4",
    "model.num_key_value_heads=2",
    "training.context_length=8",
    "training.tokens_per_step=128",
    "training.micro_batch_size=2",
    "evaluation.max_tokens=256",
    "stages=[{patch_size=4,share=0.5},{patch_size=1}]",
];

fn tiny(bench: &Bench, arguments: &[&str]) -> Command {
    let mut command = bench.patchtui(&["bench"]);
    // The last value of a key counts: those of the arguments come after these.
    let sets = TINY.iter().flat_map(|set| ["--set", set]);
    let first =
        arguments.iter().position(|argument| argument.starts_with("--")).unwrap_or(arguments.len());
    command.args(&arguments[..first]).args(sets).args(&arguments[first..]);
    command
}

/// Output of a command that succeeds without output on standard error.
fn json(command: Command) -> Value {
    let (code, out, errors) = output(command);
    assert_eq!((code, errors.as_str()), (0, ""));
    serde_json::from_str(&out).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn assert_near(what: &str, found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{what}: {found}, not {expected}");
}

/// The shape of a document: its keys in order, with the kinds of their values; of a list the shape
/// of its first element.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(entries) => Value::Object(
            entries.iter().map(|(key, value)| (key.clone(), shape(value))).collect::<Map<_, _>>(),
        ),
        Value::Array(elements) => Value::Array(elements.first().map(shape).into_iter().collect()),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        Value::Bool(_) => "truth".into(),
        Value::Null => "null".into(),
    }
}

fn is_empty(bench: &Bench) -> bool {
    std::fs::read_dir(bench.path()).unwrap().next().is_none()
}

#[test]
fn the_parts_of_a_step_add_up_and_rates_are_quotients() {
    let bench = Bench::new();
    let document =
        json(tiny(&bench, &["demo", "--json", "--device", "cpu", "--steps", "3", "--warmup", "1"]));
    assert!(is_empty(&bench), "a measurement leaves no file");
    assert_eq!((&document["measured_steps"], &document["threads"]), (&3.into(), &1.into()));
    let peak = number(&document["matmul_peak"]["flops_per_second"]);
    let stages = document["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 2);
    for (stage, (k, positions)) in stages.iter().zip([(4.0, 32.0), (1.0, 128.0)]) {
        let step = number(&stage["step_seconds"]);
        let parts = stage["parts"].as_object().unwrap();
        assert!(parts.values().all(|part| number(part) >= 0.0), "{parts:?}");
        assert_near("parts", parts.values().map(number).sum(), step);
        assert_near("patch size", number(&stage["patch_size"]), k);
        assert_near("tokens", number(&stage["tokens_per_second"]), 128.0 / step);
        assert_near("positions", number(&stage["positions_per_second"]), positions / step);
        assert_near(
            "operations",
            number(&stage["flops_per_second"]),
            number(&stage["flops_per_step"]) / step,
        );
        assert_near(
            "share",
            number(&stage["share_of_matmul_peak"]),
            number(&stage["flops_per_second"]) / peak,
        );
        let speeds = number(&stage["tokens_per_second"]) / number(&stages[1]["tokens_per_second"]);
        assert_near("ratio", number(&stage["speed_to_token_stage"]), speeds);
        let mut all: Vec<f64> =
            stage["all_step_seconds"].as_array().unwrap().iter().map(number).collect();
        all.sort_by(f64::total_cmp);
        assert_near("median", step, all[1]);
        // The loss of random weights is about ln(1024) nats.
        let losses: Vec<f64> = stage["losses"].as_array().unwrap().iter().map(number).collect();
        assert!(
            losses.len() == 4 && losses.iter().all(|loss| (loss - 6.93).abs() < 0.5),
            "{losses:?}"
        );
    }
}

#[test]
fn stages_in_turn_are_compared_round_by_round() {
    let bench = Bench::new();
    let document = json(tiny(
        &bench,
        &["demo", "--json", "--device", "cpu", "--steps", "1", "--warmup", "1", "--rounds", "3"],
    ));
    assert_eq!(document["rounds"], 3);
    let stages = document["stages"].as_array().unwrap();
    let numbers = |stage: &Value, key: &str| {
        stage[key].as_array().unwrap().iter().map(number).collect::<Vec<_>>()
    };
    for stage in stages {
        assert_eq!(numbers(stage, "losses").len(), 6, "each round warms up");
        let speeds = numbers(stage, "round_tokens_per_second");
        assert_eq!(speeds.len(), 3);
        for (speed, seconds) in speeds.iter().zip(numbers(stage, "all_step_seconds")) {
            assert_near("a round's speed", *speed, 128.0 / seconds);
        }
        let mut ratios: Vec<f64> = speeds
            .iter()
            .zip(numbers(&stages[1], "round_tokens_per_second"))
            .map(|(ours, single)| ours / single)
            .collect();
        ratios.sort_by(f64::total_cmp);
        assert_near("ratio", number(&stage["speed_to_token_stage"]), ratios[1]);
    }
}

#[test]
fn the_documents_keep_their_shapes() {
    let bench = Bench::new();
    let train = json(tiny(
        &bench,
        &["train", "demo", "--json", "--device", "cpu", "--steps", "1", "--warmup", "0"],
    ));
    insta::assert_snapshot!("bench_train", format!("{:#}", shape(&train)));
    let prepare = json(bench.patchtui(&["bench", "prepare", "--bytes", "10k", "--json"]));
    insta::assert_snapshot!("bench_prepare", format!("{:#}", shape(&prepare)));
    let eval = json(tiny(&bench, &["eval", "demo", "--json", "--device", "cpu", "--rounds", "1"]));
    insta::assert_snapshot!("bench_eval", format!("{:#}", shape(&eval)));
    assert!(is_empty(&bench), "a measurement leaves no file");
}

#[test]
fn the_same_seed_takes_the_same_steps() {
    let bench = Bench::new();
    let losses = |sets: &[&str]| {
        let document = json(tiny(
            &bench,
            &[&["demo", "--json", "--device", "cpu", "--steps", "2", "--warmup", "0"], sets]
                .concat(),
        ));
        document["stages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stage| stage["losses"].clone())
            .collect::<Vec<_>>()
    };
    let first = losses(&[]);
    assert_eq!(first, losses(&["--set", "threads=2"]));
    assert_ne!(first, losses(&["--set", "seed=7"]));
    // A single stage begins with the initial weights.
    let second = losses(&["--stage", "2"]);
    assert!(second.len() == 1 && second[0] != first[1], "{second:?}");
}

#[test]
fn tables_fit_a_terminal() {
    let bench = Bench::new();
    let many = "stages=[{patch_size=8,share=0.2},{patch_size=4,share=0.2},{patch_size=2,share=0.\
                2},{patch_size=4,share=0.2,context_length=4},{patch_size=1}]";
    for arguments in [
        &["demo", "--device", "cpu", "--steps", "1", "--warmup", "0"][..],
        &[
            "demo",
            "--device",
            "cpu",
            "--steps",
            "1",
            "--warmup",
            "0",
            "--set",
            many,
            "--set",
            "training.tokens_per_step=1024",
        ],
        &["eval", "demo", "--device", "cpu", "--rounds", "1"],
    ] {
        let (code, out, errors) = output(tiny(&bench, arguments));
        assert_eq!(code, 0, "{errors}");
        assert!(out.starts_with("bench    demo"), "{out}");
        for line in out.lines() {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        }
    }
}

#[test]
fn what_is_not_there_is_named() {
    let bench = Bench::new();
    let none = bench.path().join("no-python");
    let none = none.to_str().unwrap();
    let table: [(&[&str], &str, &str); 6] = [
        (&["bench", "nothing.toml"], "nothing.toml", "hint:"),
        (&["bench"], "there is nothing to measure", "patchtui bench demo"),
        (
            &["bench", "demo", "--stage", "3"],
            "there is no stage 3: demo has 2 stages",
            "use --stage 2 or less",
        ),
        (
            &["bench", "demo", "--against", "pytorch", "--python", none],
            "there is no Python",
            "--python PATH",
        ),
        (&["bench", "prepare", "--text", "nothing.txt"], "nothing.txt", "hint:"),
        (&["bench", "demo", "--set", "model.hidden_size=1048576"], "of memory", "hint:"),
    ];
    for (arguments, message, hint) in table {
        let (code, out, errors) = output(bench.patchtui(arguments));
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {errors}");
        assert!(errors.contains(message) && errors.contains(hint), "{arguments:?}: {errors}");
    }
    assert!(is_empty(&bench));
}

/// A program that replaces Python and exits with `code`.
fn fake_python(bench: &Bench, code: i32) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = bench.path().join(format!("python-{code}"));
    std::fs::write(&path, format!("#!/bin/sh\necho \"No module named torch\" >&2\nexit {code}\n"))
        .unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_python_without_torch_is_told_what_to_install() {
    let bench = Bench::new();
    for (code, exit_code, message, hint) in [
        (
            3,
            2,
            "has no torch: No module named torch",
            "-m pip install torch; or name a Python that has it with --python PATH",
        ),
        (1, 1, "the step in PyTorch failed: No module named torch", "--python PATH"),
        (0, 1, "returned invalid JSON", "--python PATH"),
    ] {
        let python = fake_python(&bench, code);
        let (found, out, errors) = output(bench.patchtui(&[
            "bench",
            "demo",
            "--against",
            "pytorch",
            "--python",
            python.to_str().unwrap(),
        ]));
        assert_eq!((found, out.as_str()), (exit_code, ""), "{errors}");
        assert!(errors.contains(message) && errors.contains(hint), "{errors}");
    }
}
