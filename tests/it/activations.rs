//! The activation study: numbers, table, figure, and errors for bad input.

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use patchtui::config::{
    ActivationTensor, ActivationThreshold, ActivationsConfig, Cadence, PatchSize,
};
use patchtui::engine::activations::{LayerActivity, StudyInput, study};
use patchtui::engine::batch::Batch;
use patchtui::engine::compute::Compute;
use patchtui::engine::model::LlamaForCausalLM;
use patchtui::engine::probe::layer_activations;
use patchtui::engine::workers::Workers;
use patchtui::plan::ModelShape;
use patchtui::report::figure::{Axis, AxisRange, AxisTicks, Line, LineChart};
use patchtui::report::{ActivationReport, LayerNumbers, ModelNumbers};
use patchtui::steer::StopFlag;
use resvg::tiny_skia::Pixmap;
use serde_json::Value;

use crate::formats::Fixture;
use crate::golden::{Golden, assert_close};

fn measure(model: &LlamaForCausalLM, input: &StudyInput<'_>) -> Vec<LayerActivity> {
    let workers = Workers::start(Compute::cpu(), StopFlag::default()).unwrap();
    study(&workers, model, input).unwrap().unwrap()
}

#[test]
fn the_study_gives_the_numbers_of_pytorch_and_of_the_probe_over_any_number_of_batches() {
    let golden = Golden::read("activations.safetensors");
    let model = golden.model();
    let ids = golden.ids("input_ids");
    for k in [1_u64, 4] {
        for (tensor, name) in [
            (ActivationTensor::FfnOutput, "ffn_output"),
            (ActivationTensor::Intermediate, "intermediate"),
        ] {
            let patch_size = PatchSize::new(k).unwrap();
            let probe = ActivationsConfig { every_steps: Cadence::Auto, threshold: 0.5, tensor };
            let probed =
                layer_activations(&model, &Batch::new(&ids, 2, patch_size), &probe).unwrap();
            // The same text repeated has the same rates; 150 repetitions are several batches, and
            // the rest is not a full sequence.
            for times in [1, 150] {
                let tokens = [ids.repeat(times), ids[..5].to_vec()].concat();
                let context_length = 32 / patch_size.get();
                let layers = measure(
                    &model,
                    &StudyInput {
                        tokens: &tokens,
                        patch_size,
                        context_length,
                        tensor,
                        threshold: ActivationThreshold::Absolute(0.5),
                    },
                );
                let what = format!("K = {k} {name}, {times} times");
                let rates: Vec<f32> = layers.iter().map(|layer| layer.rate as f32).collect();
                let sizes: Vec<f32> = layers.iter().map(|layer| layer.mean_abs as f32).collect();
                assert_close(
                    &format!("{what}: rate"),
                    &rates,
                    golden.values(&format!("k{k}.{name}.rate")),
                    1e-5,
                );
                assert_close(
                    &format!("{what}: mean"),
                    &sizes,
                    golden.values(&format!("k{k}.{name}.mean_abs")),
                    1e-5,
                );
                let probed: Vec<f32> = probed.iter().map(|layer| layer.rate as f32).collect();
                assert_close(&format!("{what}: probe"), &rates, &probed, 1e-6);
            }
        }
    }
}

/// One layer without attention: token 0 sets neuron 0 of the product to silu(2) * 2 = 3.523, token
/// 1 does so with neuron 1, and the output has neuron 0 unchanged and a tenth of neuron 1.
fn two_neurons() -> LlamaForCausalLM {
    let shape = ModelShape {
        vocab_size: 2,
        hidden_size: 4,
        intermediate_size: 4,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        max_position_embeddings: 8,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-9,
        initializer_range: 0.02,
        tie_word_embeddings: true,
    };
    let diagonal = |rows: usize, values: [f32; 4]| {
        (0..rows * 4).map(|idx| if idx / 4 == idx % 4 { values[idx % 4] } else { 0.0 }).collect()
    };
    let mut source = |name: &str, dims: &[usize]| {
        let values: Vec<f32> = match name {
            "model.embed_tokens.weight" => diagonal(2, [1.0; 4]),
            "model.layers.0.mlp.gate_proj.weight" | "model.layers.0.mlp.up_proj.weight" => {
                diagonal(4, [1.0; 4])
            }
            "model.layers.0.mlp.down_proj.weight" => diagonal(4, [1.0, 0.1, 0.0, 0.0]),
            name if name.contains("self_attn") => vec![0.0; dims.iter().product()],
            _ => vec![1.0; dims.iter().product()],
        };
        Ok::<_, Infallible>(values)
    };
    LlamaForCausalLM::new(&shape, &mut source, &Compute::cpu()).unwrap()
}

#[test]
fn a_neuron_that_is_active_anywhere_is_not_never_active() {
    let model = two_neurons();
    let tokens = [0, 0, 0, 1];
    let layer = |tensor, threshold| {
        measure(
            &model,
            &StudyInput {
                tokens: &tokens,
                patch_size: PatchSize::ONE,
                context_length: 2,
                tensor,
                threshold,
            },
        )[0]
    };
    let close = |found: f64, expected: f64| {
        assert!((found - expected).abs() < 1e-3, "{found} instead of {expected}");
    };
    let active = 2.0 * 2.0 / (1.0 + (-2.0_f64).exp());
    let mean = (3.0 * active + 0.1 * active) / 16.0;
    // Threshold, share of the 16 values in percent, share of the 4 neurons in percent.
    let output = [
        (ActivationThreshold::Absolute(0.5), 18.75, 75.0),
        (ActivationThreshold::Absolute(0.1), 25.0, 50.0),
        (ActivationThreshold::Absolute(4.0), 0.0, 100.0),
        (ActivationThreshold::TimesMean(1.0), 18.75, 75.0),
        (ActivationThreshold::TimesMean(0.5), 25.0, 50.0),
    ];
    for (threshold, rate, never) in output {
        let found = layer(ActivationTensor::FfnOutput, threshold);
        close(found.rate, rate);
        close(found.never, never);
        close(found.mean_abs, mean);
        close(
            found.threshold,
            match threshold {
                ActivationThreshold::Absolute(number) => number,
                ActivationThreshold::TimesMean(factor) => factor * mean,
            },
        );
    }
    let found = layer(ActivationTensor::Intermediate, ActivationThreshold::Absolute(0.5));
    close(found.rate, 25.0);
    close(found.never, 50.0);
    close(found.mean_abs, active / 4.0);
}

/// A folder with the fixture run `books`, and a text.
struct Bench(Fixture, tempfile::TempDir);

impl Bench {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("text.txt"), text).unwrap();
        Self(Fixture::copy("format-2"), folder)
    }

    fn folder(&self) -> &Path {
        self.1.path()
    }

    /// `patchtui activations RUN ARGUMENTS` in that folder: exit code, standard output, standard
    /// error.
    fn activations(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchtui"));
        command
            .arg("activations")
            .arg(self.0.run().path())
            .args(arguments)
            .current_dir(self.folder());
        command.env("XDG_STATE_HOME", self.folder().join("state")).env_remove("PATCHTUI_RUNS_DIR");
        let Output { status, stdout, stderr } = command.output().unwrap();
        (
            status.code().unwrap_or(-1),
            String::from_utf8(stdout).unwrap(),
            String::from_utf8(stderr).unwrap(),
        )
    }
}

#[test]
fn a_run_is_studied_at_its_own_patch_size_or_at_others() {
    let bench = Bench::new(&"It was the best of times, it was the worst of times. ".repeat(20));
    let (code, json, talk) = bench.activations(&["--text", "text.txt", "--json"]);
    assert_eq!(code, 0, "{talk}");
    let report: Value = serde_json::from_str(&json).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&report), ["tensor", "threshold", "text", "models"]);
    assert_eq!(
        (&report["tensor"], &report["threshold"]["absolute"], &report["text"]),
        (&"ffn_output".into(), &0.5.into(), &"text.txt".into())
    );
    let model = &report["models"][0];
    assert_eq!(
        keys(model),
        [
            "run",
            "checkpoint",
            "step",
            "trained_patch_size",
            "patch_size",
            "tokens",
            "positions",
            "layers"
        ]
    );
    assert_eq!((&model["run"], &model["step"]), (&"books".into(), &7.into()));
    assert_eq!(model["patch_size"], model["trained_patch_size"]);
    assert_eq!(
        keys(&model["layers"][0]),
        ["layer", "threshold", "activated_percent", "never_activated_percent", "mean_abs"]
    );
    assert!(
        talk.contains(&format!(
            "books, step 7: reading 1,056 tokens of text.txt at K = {}",
            model["patch_size"]
        )),
        "{talk}"
    );

    // 53 * 20 bytes and a BOS token are 66 sequences of 16 tokens, 22 of 48 and 4 of 256.
    let (code, json, _) = bench.activations(&[
        "--text",
        "text.txt",
        "--json",
        "--patch-size",
        "1,3,16",
        "--tensor",
        "intermediate",
        "--threshold",
        "2x",
    ]);
    assert_eq!(code, 0);
    let report: Value = serde_json::from_str(&json).unwrap();
    let numbers = |key: &str| {
        report["models"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model[key].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (numbers("patch_size"), numbers("tokens"), numbers("positions")),
        (vec![1, 3, 16], vec![1056, 1056, 1024], vec![1056, 352, 64])
    );
    assert_eq!(
        (&report["tensor"], &report["threshold"]["times_mean"]),
        (&"intermediate".into(), &2.0.into())
    );

    let (code, _, talk) =
        bench.activations(&["--text", "text.txt", "--patch-size", "2", "--max-tokens", "100"]);
    assert!(code == 0 && talk.contains("reading 96 tokens"), "{talk}");
}

#[test]
fn every_document_begins_as_in_training() {
    let bench = Bench::new("");
    let record = serde_json::json!({"text": "y".repeat(15)}).to_string();
    fs::write(bench.folder().join("text.jsonl"), format!("{record}\n").repeat(3)).unwrap();
    let (code, json, talk) =
        bench.activations(&["--text", "text.jsonl", "--json", "--patch-size", "1"]);
    assert_eq!(code, 0, "{talk}");
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["models"][0]["tokens"], 48, "each has one token more than bytes");
}

#[test]
fn the_figure_is_drawn_as_often_as_wanted() {
    let bench = Bench::new(&"words ".repeat(100));
    let (code, table, talk) =
        bench.activations(&["--text", "text.txt", "--figure", "a.svg", "--figure", "b.PNG"]);
    assert_eq!(code, 0, "{talk}");
    assert!(
        table.starts_with("Active neurons per layer: |FFN output| > 0.5\n\nbooks, step 7, K = "),
        "{table}"
    );
    let svg = fs::read_to_string(bench.folder().join("a.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("|FFN output| &gt; 0.5"), "{svg}");
    assert_eq!(&fs::read(bench.folder().join("b.PNG")).unwrap()[..4], b"\x89PNG");
    assert!(talk.contains("Wrote a.svg\nWrote b.PNG\n"), "{talk}");
}

#[test]
fn bad_input_is_refused_before_anything_is_written() {
    let bench = Bench::new("short");
    fs::write(bench.folder().join("empty.txt"), "").unwrap();
    fs::write(bench.folder().join("records.jsonl"), "{\"body\": 1}\n").unwrap();
    let words = "words ".repeat(100);
    fs::write(bench.folder().join("long.txt"), words).unwrap();
    let table: [(&[&str], &str, &str); 11] = [
        (&["--text", "missing.txt"], "missing.txt", ""),
        (&["--text", "empty.txt"], "empty", ""),
        (&["--text", "records.jsonl"], "there is no field \"text\"", ""),
        (
            &["--text", "text.txt", "--patch-size", "1"],
            "text.txt has only 6 tokens: one sequence of books at K = 1 has 16 positions = 16 \
             tokens",
            "longer --text",
        ),
        (
            &["--text", "long.txt", "--patch-size", "1,64"],
            "long.txt has only 601 tokens",
            "lower --patch-size",
        ),
        (
            &["--text", "long.txt", "--patch-size", "1", "--max-tokens", "15"],
            "--max-tokens 15 is too small",
            "raise --max-tokens",
        ),
        (
            &["--text", "long.txt", "--max-tokens", "many"],
            "\"many\" is not a count",
            "--max-tokens 64k",
        ),
        (&["--text", "long.txt", "--patch-size", "0"], "0 is not a patch size", "--patch-size 1,4"),
        (
            &["--text", "long.txt", "--threshold", "-1x"],
            "\"-1x\" is not a threshold",
            "--threshold 0.5",
        ),
        (
            &["--text", "long.txt", "--figure", "a.svg", "--figure", "a.jpg"],
            "a.jpg ends in neither .svg nor .png",
            ".svg or .png",
        ),
        (
            &["--text", "long.txt", "--figure", "no/such/a.svg"],
            "no/such is not a folder",
            "another folder",
        ),
    ];
    let before = fs::read_dir(bench.folder()).unwrap().count();
    for (arguments, message, hint) in table {
        let joined: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        // A value that begins with a dash needs an equals sign.
        let joined = joined.join(" ").replace("--threshold -", "--threshold=-");
        let (code, out, talk) = bench.activations(&joined.split(' ').collect::<Vec<_>>());
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {talk}");
        assert!(talk.contains(message) && talk.contains(hint), "{arguments:?}: {talk}");
    }
    let written: Vec<_> = fs::read_dir(bench.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "state")
        .collect();
    assert_eq!(written.len(), before, "{written:?}");
}

fn layer(layer: usize, activated_percent: f64) -> LayerNumbers {
    LayerNumbers {
        layer,
        threshold: 0.5,
        activated_percent,
        never_activated_percent: 2.0 * activated_percent / 3.0,
        mean_abs: activated_percent / 40.0,
    }
}

fn model(run: &str, step: u64, k: u64, rates: &[f64]) -> ModelNumbers {
    let patch_size = PatchSize::new(k).unwrap();
    let layers = rates.iter().enumerate().map(|(idx, rate)| layer(idx + 1, *rate)).collect();
    let (run, checkpoint) = (run.to_owned(), format!("runs/{run}/checkpoints/step-{step:08}"));
    ModelNumbers {
        run,
        checkpoint,
        step: Some(step),
        trained_patch_size: PatchSize::new(4).unwrap(),
        patch_size,
        tokens: 65_536,
        positions: 65_536 / k,
        layers,
    }
}

fn report(models: Vec<ModelNumbers>) -> ActivationReport {
    ActivationReport {
        tensor: ActivationTensor::FfnOutput,
        threshold: ActivationThreshold::Absolute(0.5),
        text: "a<b> & c.txt".into(),
        models,
    }
}

#[test]
fn the_table_says_what_was_read_and_what_was_found() {
    insta::assert_snapshot!(
        report(vec![
            model("demo", 439, 4, &[60.2, 50.9]),
            model("demo\u{1b}[31m", 1659, 1, &[0.012, f64::NAN])
        ])
        .table()
    );
}

#[test]
fn a_number_that_is_none_is_a_string_in_json() {
    let json = report(vec![model("demo", 1, 4, &[f64::NAN])]).to_json().unwrap();
    assert!(json.contains("\"activated_percent\": \"NaN\""), "{json}");
}

#[test]
fn the_figure_has_a_line_for_each_model_and_a_gap_where_there_is_no_number() {
    let chart = report(vec![
        model("demo", 439, 4, &[60.2, 50.9, f64::NAN, 54.0, 12.0]),
        model("a\u{1b}<\"b\"&", 659, 1, &[1.0, 2.0, 3.0, 4.0, 81.8]),
    ])
    .figure();
    insta::assert_snapshot!(chart.to_svg());
}

#[test]
fn lines_of_one_run_are_told_apart_by_their_step() {
    let names = |models: Vec<ModelNumbers>| {
        report(models).figure().lines.into_iter().map(|line| line.name).collect::<Vec<_>>()
    };
    assert_eq!(
        names(vec![model("a", 1, 4, &[1.0]), model("b", 2, 4, &[1.0])]),
        ["a, K = 4", "b, K = 4"]
    );
    assert_eq!(
        names(vec![model("a", 1, 4, &[1.0]), model("a", 2000, 1, &[1.0])]),
        ["a, step 1, K = 4", "a, step 2,000, K = 1"]
    );
}

#[test]
fn a_png_is_the_svg_at_twice_its_size() {
    let axis = |title: &str, ticks| Axis { title: title.into(), ticks, range: AxisRange::FromZero };
    let line = |idx: usize| Line {
        name: format!("line {idx}"),
        points: (1..=24).map(|x| [f64::from(x), idx as f64 + f64::from(x)]).collect(),
    };
    for num_lines in [0, 1, 7] {
        let lines = (0..num_lines).map(line).collect();
        let chart = LineChart {
            title: "t".into(),
            subtitle: "s".into(),
            x: axis("x", AxisTicks::Whole),
            y: axis("y", AxisTicks::Any),
            lines,
        };
        let svg = chart.to_svg();
        let size = |name: &str| {
            svg.split_once(&format!("{name}=\""))
                .unwrap()
                .1
                .split_once('"')
                .unwrap()
                .0
                .parse::<u32>()
                .unwrap()
        };
        let picture = Pixmap::decode_png(&chart.to_png().unwrap()).unwrap();
        assert_eq!((picture.width(), picture.height()), (2 * size("width"), 2 * size("height")));
        let dark = picture
            .pixels()
            .iter()
            .filter(|pixel| pixel.red() < 100 && pixel.green() < 100)
            .count();
        assert!(dark > 300, "the texts are painted: {dark} dark pixels");
        assert!(picture.pixels().iter().all(|pixel| pixel.alpha() == 255), "on white");
    }
}
