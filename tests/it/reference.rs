//! Comparison with other programs: what they compute with a model trained here, and vice versa.
//!
//! Needs Python interpreters with the packages of `tests/reference/README.md`, named in
//! `PATCHTUI_REFERENCE_PYTHON`, separated by colons.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use patchtui::config::{OptimizerConfig, PatchSize};
use patchtui::engine::LoadedModel;
use patchtui::engine::batch::Batch;
use patchtui::engine::compute::Compute;
use patchtui::engine::generate::{GenerationRules, Generator, Sampling, Verdict};
use patchtui::engine::optimizer::{AdamW, Update};
use serde_json::{Value, json};

use crate::golden::{assert_close, logits, step, values};
use crate::program::Bench;

/// Texts on which tokenizers tend to differ.
const TEXTS: [&str; 8] = [
    "Once upon a time",
    " two  spaces",
    "",
    "\n = Title = \n\n",
    "é漢😀 naïve",
    "</s> <s> <|endoftext|>",
    "tab\tand\r\nbreaks",
    "1234567890 ½",
];

fn pythons() -> Vec<PathBuf> {
    let pythons = std::env::var_os("PATCHTUI_REFERENCE_PYTHON");
    if pythons.is_none() {
        println!("skipped: PATCHTUI_REFERENCE_PYTHON names no Python with transformers");
    }
    pythons.iter().flat_map(std::env::split_paths).collect()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
}

/// Output of `transformers_run.py`.
fn ask(python: &Path, what: &str, model: &Path, request: &Value) -> Value {
    let mut command = Command::new(python);
    command
        .arg(script("transformers_run.py"))
        .arg(what)
        .arg(model)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{} failed", python.display());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    println!("{} with transformers {} and torch {}", what, found["transformers"], found["torch"]);
    found
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// A run in `bench` that was trained briefly on a text with each of its tokenizers, and its export.
fn trained_and_exported(bench: &Bench, tokenizer: &str, sets: &[&str]) -> (PathBuf, PathBuf) {
    let name = Path::new(tokenizer).file_stem().unwrap().to_str().unwrap().to_owned()
        + &sets.len().to_string();
    let mut command = bench.patchtui(&["run", "demo", "--no-tui", "--name", &name]);
    let tokenizer = format!("data.tokenizer={tokenizer:?}");
    let common = [
        tokenizer.as_str(),
        "model.hidden_size=64",
        "model.intermediate_size=96",
        "model.num_hidden_layers=2",
        "training.tokens=64k",
    ];
    for set in common.iter().chain(sets) {
        command.args(["--set", set]);
    }
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    let export = bench.path().join(format!("{name}-hf"));
    assert!(
        bench
            .patchtui(&["export", &name, "--to", export.to_str().unwrap()])
            .status()
            .unwrap()
            .success()
    );
    (bench.run_dir(&name), export)
}

#[test]
fn transformers_computes_what_was_trained() {
    for python in pythons() {
        let bench = Bench::new();
        let mut tokenizers = vec!["demo".to_owned(), "bytes".to_owned()];
        if let Some(data) = std::env::var_os("PATCHTUI_TEST_DATA") {
            tokenizers.push(
                Path::new(&data)
                    .join("llama2_tokenizer/tokenizer.json")
                    .to_string_lossy()
                    .into_owned(),
            );
        }
        for tokenizer in tokenizers {
            for sets in [
                &["model.num_attention_heads=4", "model.num_key_value_heads=2"][..],
                &["model.tie_word_embeddings=true"],
            ] {
                let (run, export) = trained_and_exported(&bench, &tokenizer, sets);
                compare_forward(&python, &run, &export);
            }
        }
    }
}

fn compare_forward(python: &Path, run: &Path, export: &Path) {
    let compute = Compute::cpu();
    let [trained, exported] = [run, export].map(|path| LoadedModel::open(path, &compute).unwrap());
    let prompt: Vec<u32> = trained
        .files
        .tokenizer
        .bos()
        .into_iter()
        .chain(trained.files.tokenizer.encode("Once upon a time there was").unwrap())
        .collect();
    let found = ask(
        python,
        "logits",
        export,
        &json!({ "ids": prompt, "max_new_tokens": 30, "text": TEXTS }),
    );
    let ours = values(logits(&trained.model, &Batch::new(&prompt, 1, PatchSize::ONE)));
    let worst = ours
        .iter()
        .zip(floats(&found["logits"]))
        .fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
    assert!(worst <= 1e-4, "{}: a logit differs by {worst:e}", export.display());

    let ends = trained.files.tokenizer.ends_of_text();
    let rules = GenerationRules { max_new_tokens: 30, ends: &ends, sampling: Sampling::GREEDY };
    let generator = Generator {
        model: trained.model,
        context_length: trained.files.shape.max_position_embeddings,
    };
    let ours =
        generator.generate(&[prompt], &rules, &mut |_, _| Verdict::GoOn).unwrap().remove(0).ids;
    let mut theirs = ids(&found["generated"]);
    // transformers keeps the EOS token.
    theirs.pop_if(|id| ends.contains(id));
    assert_eq!(ours, theirs, "{}", export.display());

    let bos: Vec<u32> =
        exported.files.tokenizer.bos().into_iter().filter(|_| exported.files.add_bos).collect();
    for (idx, text) in TEXTS.iter().enumerate() {
        let ours = trained.files.tokenizer.encode(text).unwrap();
        assert_eq!(ours, exported.files.tokenizer.encode(text).unwrap(), "{text:?}");
        assert_eq!(ours, ids(&found["text_ids"][idx]), "{text:?}");
        assert_eq!(
            [bos.as_slice(), &ours].concat(),
            ids(&found["text_ids_special"][idx]),
            "{text:?}"
        );
    }
}

#[test]
fn an_imported_model_takes_the_step_that_torch_takes() {
    for python in pythons() {
        let bench = Bench::new();
        let (_, export) = trained_and_exported(
            &bench,
            "demo",
            &["model.num_attention_heads=4", "model.num_key_value_heads=2"],
        );
        let compute = Compute::cpu();
        for k in [1, 4] {
            let mut model = LoadedModel::open(&export, &compute).unwrap().model;
            let sequences: Vec<Vec<u32>> = (0..2)
                .map(|row| (0..32).map(|idx| (idx * idx * 31 + row * 77 + 5) % 1024).collect())
                .collect();
            let found =
                ask(&python, "step", &export, &json!({ "ids": sequences, "patch_size": k }));

            let batch = Batch::new(&sequences.concat(), 2, PatchSize::new(k).unwrap());
            let (loss, gradients) = step(&model, &batch, 1.0 / batch.num_targets as f64, false);
            let norm = gradients.norm().unwrap();
            assert_close("loss", &values(loss), &[found["loss"].as_f64().unwrap() as f32], 1e-5);
            assert_close(
                "norm",
                &values(norm.clone()),
                &[found["norm"].as_f64().unwrap() as f32],
                1e-4,
            );
            let config = OptimizerConfig {
                learning_rate: 1e-3,
                betas: [0.9, 0.95],
                epsilon: 1e-8,
                weight_decay: 0.1,
                gradient_clip: 1.0,
            };
            model = AdamW::new(config).step(
                model,
                gradients,
                &Update { learning_rate: 1e-3, norm, skip: None },
            );
            for weight in model.weights() {
                assert_close(
                    &weight.name,
                    &values(weight.values.clone()),
                    &floats(&found["weights"][&weight.name]),
                    1e-4,
                );
            }
        }
    }
}

/// The script that compares every task with lm-eval, on the first documents of each.
#[test]
fn lm_eval_says_the_same() {
    let (Some(python), Some(data)) =
        (pythons().into_iter().next(), std::env::var_os("PATCHTUI_TEST_DATA"))
    else {
        println!("skipped: PATCHTUI_TEST_DATA names no folder of task files");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(&python);
    command
        .arg(script("compare_lm_eval.py"))
        .arg(env!("CARGO_BIN_EXE_patchtui"))
        .arg(&data)
        .arg(folder.path())
        .args(["--limit", "12", "--small"]);
    let output = command.output().unwrap();
    let (report, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{report}\n{errors}");
    println!("{report}");
    assert!(fs::read_to_string(folder.path().join("report.md")).unwrap().contains("hellaswag"));
}

/// The losses of patchtui and torch on the same weights and tokens, both stages, and one round of
/// times.
#[test]
fn bench_takes_the_steps_that_torch_takes() {
    for python in pythons() {
        let bench = Bench::new();
        let sets = [
            "model.hidden_size=32",
            "model.intermediate_size=48",
            "model.num_hidden_layers=2",
            "training.tokens_per_step=1024",
            "optimizer.learning_rate=1e-3",
            "threads=1",
        ];
        for more in [
            &["model.num_key_value_heads=1"][..],
            &["model.tie_word_embeddings=true", "training.recompute=true"],
        ] {
            let ask = |arguments: &[&str]| {
                let mut command = bench.patchtui(&[
                    "bench",
                    "demo",
                    "--json",
                    "--against",
                    "pytorch",
                    "--python",
                    python.to_str().unwrap(),
                ]);
                command
                    .args(sets.iter().chain(more).flat_map(|set| ["--set", set]))
                    .args(arguments);
                let (code, out, errors) = crate::program::output(command);
                assert_eq!(code, 0, "{errors}\n{out}");
                serde_json::from_str::<Value>(&out).unwrap()
            };
            let found = ask(&["--check"]);
            assert_eq!(
                (&found["is_within"], found["stages"].as_array().unwrap().len()),
                (&true.into(), 2),
                "{found}"
            );
            println!(
                "largest difference {} with torch {}",
                found["largest_difference"], found["pytorch"]["torch"]
            );
            let found = ask(&["--rounds", "1", "--steps", "2", "--warmup", "1", "--stage", "1"]);
            let round = &found["stages"][0]["rounds"][0];
            let [ours, theirs] = ["patchtui", "pytorch"]
                .map(|name| round[name]["tokens_per_second"].as_f64().unwrap());
            assert!((round["ratio"].as_f64().unwrap() - ours / theirs).abs() < 1e-9, "{round}");
        }
    }
}
