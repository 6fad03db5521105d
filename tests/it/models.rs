//! Models from elsewhere: numbers that no network can compute with, names wrapped by PyTorch, EOS
//! tokens, how names and paths are resolved, and context lengths.

use std::fs;
use std::path::Path;

use patchtui::config::{LoadRequest, LoadedConfig, load, load_with_runs};
use patchtui::data::Tokenizer;
use patchtui::engine::compute::Compute;
use patchtui::engine::export::{ExportRequest, export};
use patchtui::engine::tensor_header::NumberFormat;
use patchtui::engine::{LoadedModel, ModelFiles, PatchStage};
use patchtui::record::{Outcome, RunDirectory};
use serde_json::{Value, json};

use crate::formats::Fixture;
use crate::program::{Bench, output};
use crate::resume::{TINY, tiny_config, train};

/// A folder with the run `books` and its export `hf`, a model of plain bytes.
fn exported() -> Bench {
    let (bench, fixture) = (Bench::new(), Fixture::copy("format-2"));
    let model = ModelFiles::find(fixture.run().path()).unwrap();
    export(
        &model,
        &ExportRequest {
            to: &bench.path().join("hf"),
            format: NumberFormat::F32,
            max_shard_bytes: u64::MAX,
            allow_patch_stage: false,
        },
    )
    .unwrap();
    fs::write(bench.path().join("text.txt"), "Once upon a time there was a fox. ".repeat(400))
        .unwrap();
    bench
}

/// Reads a safetensors file: header and numbers.
fn parts(path: &Path) -> (Value, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), bytes[8 + length..].to_vec())
}

fn write_parts(path: &Path, header: &Value, data: &[u8]) {
    let header = header.to_string();
    fs::write(path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat())
        .unwrap();
}

/// Sets the first number of `tensor` in the file at `path`, or all of them.
pub(crate) fn poison(path: &Path, tensor: &str, value: f32, all: bool) {
    let (header, mut data) = parts(path);
    let offset = |idx: usize| header[tensor]["data_offsets"][idx].as_u64().unwrap() as usize;
    let count = if all { (offset(1) - offset(0)) / 4 } else { 1 };
    for number in data[offset(0)..].chunks_exact_mut(4).take(count) {
        number.copy_from_slice(&value.to_le_bytes());
    }
    write_parts(path, &header, &data);
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value =
        fs::read(path).map_or_else(|_| json!({}), |bytes| serde_json::from_slice(&bytes).unwrap());
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

const START: [&str; 10] = [
    "run",
    "demo",
    "--json",
    "--set",
    "model.init_from=hf",
    "--set",
    "data.files=text.txt",
    "--set",
    "model.preset=default",
    "--set",
];

/// The options that start training from `hf`.
fn start() -> Vec<&'static str> {
    let sets = [
        "data.tokenizer=default",
        "training.context_length=16",
        "training.tokens_per_step=512",
        "training.tokens=2048",
        "evaluation.max_tokens=64",
    ];
    START
        .into_iter()
        .chain(sets.into_iter().flat_map(|set| [set, "--set"]))
        .chain(["threads=1"])
        .collect()
}

/// Every command that opens a model.
fn uses() -> Vec<Vec<&'static str>> {
    vec![
        vec!["import", "hf"],
        vec!["generate", "hf", "--prompt", "Once", "--max-new-tokens", "4"],
        vec!["eval", "hf", "--tasks", "text:text.txt"],
        vec!["activations", "hf", "--text", "text.txt", "--max-tokens", "1k"],
        vec!["export", "hf", "--to", "again"],
        start(),
    ]
}

/// Bug report 13.
#[test]
fn weights_that_nothing_can_be_computed_with_are_refused_by_every_command() {
    for (tensor, value, words) in [
        ("model.norm.weight", f32::NAN, "model.norm.weight holds NaN"),
        ("model.embed_tokens.weight", f32::INFINITY, "model.embed_tokens.weight holds inf"),
        (
            "model.layers.0.mlp.up_proj.weight",
            3e38,
            "model.layers.0.mlp.up_proj.weight holds 3e38, which is too large to compute with",
        ),
    ] {
        let bench = exported();
        poison(&bench.path().join("hf/model.safetensors"), tensor, value, false);
        for arguments in uses() {
            let (code, stdout, stderr) = output(bench.patchtui(&arguments));
            let said = format!("{stdout}{stderr}");
            assert_eq!(code, 1, "{arguments:?}: {said}");
            assert!(
                said.contains(words) && !said.contains("learning_rate"),
                "{arguments:?}: {said}"
            );
        }
        assert!(!bench.path().join("again").exists());
    }
}

#[test]
fn weights_that_overflow_on_the_way_give_an_error_and_no_text_or_score() {
    let bench = exported();
    let file = bench.path().join("hf/model.safetensors");
    for part in ["gate_proj", "up_proj", "down_proj"] {
        poison(&file, &format!("model.layers.0.mlp.{part}.weight"), 1e9, true);
    }
    for arguments in [&uses()[1], &start()] {
        let (code, stdout, stderr) = output(bench.patchtui(arguments));
        let said = format!("{stdout}{stderr}");
        assert_eq!(code, 1, "{arguments:?}: {said}");
        assert!(said.contains("not finite") || said.contains("NaN"), "{arguments:?}: {said}");
        assert!(!said.contains("lower optimizer.learning_rate"), "{arguments:?}: {said}");
        assert!(
            arguments[0] != "run" || said.contains("the initial weights are the cause"),
            "{arguments:?}: {said}"
        );
    }
}

/// Bug report 12.
#[test]
fn the_context_of_a_model_is_that_of_its_last_token_stage() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDirectory::new(folder.path().join("run"));
    let stages = "stages=[{patch_size=4,share=0.5},{patch_size=1,context_length=128}]";
    let config = tiny_config(&[
        stages,
        "training.tokens=4096",
        "model.max_position_embeddings=256",
        "checkpoint.keep=20",
    ]);
    fs::create_dir_all(run.path()).unwrap();
    fs::write(run.config(), patchtui::config::to_toml(&config)).unwrap();
    let (end, _) = train(config, run.path(), |_| None);
    assert_eq!(end.outcome, Outcome::Completed, "{:?}", end.error);
    let model = ModelFiles::find(run.path()).unwrap();
    assert_eq!((model.context_length, model.patch_stage()), (128, None));
    let out = folder.path().join("out");
    export(
        &model,
        &ExportRequest {
            to: &out,
            format: NumberFormat::F32,
            max_shard_bytes: u64::MAX,
            allow_patch_stage: false,
        },
    )
    .unwrap();
    assert!(
        fs::read_to_string(out.join("config.json"))
            .unwrap()
            .contains("\"max_position_embeddings\": 128")
    );
    assert_eq!(ModelFiles::find(&out).unwrap().context_length, 128);
    let begin = ModelFiles::find(&run.checkpoints().join("step-00000000")).unwrap();
    assert_eq!(begin.context_length, 128, "patches of another length say nothing about tokens");
    let Some(PatchStage::Patches(patch_size)) = begin.patch_stage() else {
        panic!("{:?}", begin.patch_stage())
    };
    assert_eq!(
        (patch_size.get(), begin.patch_stage().unwrap().to_string().as_str()),
        (4, "training stopped in the patch stage (K = 4)")
    );
}

#[test]
fn every_end_that_the_model_names_ends_a_text() {
    let bench = exported();
    let generation = bench.path().join("hf/generation_config.json");
    let ends = || ModelFiles::find(&bench.path().join("hf")).map(|model| model.ends);
    let generated = || {
        let (code, stdout, stderr) = output(bench.patchtui(&[
            "generate",
            "hf",
            "--prompt",
            "Once",
            "--max-new-tokens",
            "12",
            "--json",
        ]));
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str::<Value>(&stdout).unwrap()
    };
    let first = generated()["ids"][0].clone();
    edit(&generation, |config| config["eos_token_id"] = json!([7, first, 100_000]));
    let found = generated();
    assert_eq!((&found["end"], &found["num_new_tokens"]), (&json!("end_of_text"), &json!(0)));
    // Without that file, config.json is used.
    fs::remove_file(&generation).unwrap();
    edit(&bench.path().join("hf/config.json"), |config| config["eos_token_id"] = json!([9, 11]));
    assert_eq!(ends().unwrap(), [9, 11, 254, 255]);
    edit(&bench.path().join("hf/config.json"), |config| config["eos_token_id"] = json!(-1));
    assert_eq!(ends().unwrap(), [254, 255]);
    edit(&generation, |config| config["eos_token_id"] = json!("x"));
    let error = ends().unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("generation_config.json: eos_token_id contains \"x\", expected token ids"),
        "{error}"
    );
}

#[test]
fn names_of_a_compiled_or_distributed_module_are_read() {
    let bench = exported();
    let file = bench.path().join("hf/model.safetensors");
    let expected =
        output(bench.patchtui(&["generate", "hf", "--prompt", "Once", "--max-new-tokens", "8"]));
    let (header, data) = parts(&file);
    let renamed = |rename: &dyn Fn(&str) -> String| -> Value {
        Value::Object(
            header
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, entry)| {
                    (
                        if name == "__metadata__" { name.clone() } else { rename(name) },
                        entry.clone(),
                    )
                })
                .collect(),
        )
    };
    let wrappings: [&dyn Fn(&str) -> String; 3] = [
        &|name| format!("_orig_mod.{name}"),
        &|name| format!("module._orig_mod.{name}"),
        &|name| name.replace("layers.0.", "layers.0._orig_mod."),
    ];
    for rename in wrappings {
        write_parts(&file, &renamed(rename), &data);
        assert_eq!(
            output(bench.patchtui(&[
                "generate",
                "hf",
                "--prompt",
                "Once",
                "--max-new-tokens",
                "8"
            ])),
            expected
        );
        assert_eq!(output(bench.patchtui(&["import", "hf"])).0, 0);
    }
    let mut twice = renamed(&|name| format!("_orig_mod.{name}"));
    let (entry, end) = (header["model.norm.weight"].clone(), data.len());
    twice["model.norm.weight"] = json!({ "dtype": entry["dtype"], "shape": entry["shape"], "data_offsets": [end, end + 32] });
    write_parts(&file, &twice, &[data.as_slice(), &[0; 32]].concat());
    let (code, _, stderr) = output(bench.patchtui(&["import", "hf"]));
    assert!(code == 2 && stderr.contains("are the same tensor"), "{stderr}");
}

/// Bug report 1, in the files of a model and of a task.
#[test]
fn byte_order_marks_in_front_of_files_change_nothing() {
    let bench = exported();
    let model = ModelFiles::find(&bench.path().join("hf")).unwrap();
    let shards = bench.path().join("shards");
    export(
        &model,
        &ExportRequest {
            to: &shards,
            format: NumberFormat::F32,
            max_shard_bytes: 4096,
            allow_patch_stage: false,
        },
    )
    .unwrap();
    let ends = ModelFiles::find(&shards).unwrap().ends;
    let answers = || {
        let (code, text, errors) = output(bench.patchtui(&[
            "generate",
            "shards",
            "--prompt",
            "Once",
            "--max-new-tokens",
            "8",
            "--json",
        ]));
        assert_eq!(code, 0, "{errors}");
        let (code, scores, errors) =
            output(bench.patchtui(&["eval", "shards", "--tasks", "text:text.txt", "--json"]));
        assert_eq!(code, 0, "{errors}");
        (text, serde_json::from_str::<Value>(&scores).unwrap()["results"].clone())
    };
    let expected = answers();
    for name in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "../text.txt",
    ] {
        let path = shards.join(name);
        let whole = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        fs::write(&path, [b"\xEF\xBB\xBF", whole.as_slice()].concat()).unwrap();
        assert_eq!(answers(), expected, "{name}");
    }
    assert_eq!(ModelFiles::find(&shards).unwrap().ends, ends);
}

/// A padding token that was added after training has no row; no text needs one.
#[test]
fn a_padding_token_just_beyond_the_table_is_no_hindrance() {
    let bench = exported();
    let hf = bench.path().join("hf");
    let expected =
        output(bench.patchtui(&["generate", "hf", "--prompt", "Once", "--max-new-tokens", "8"]));
    let token = |id: u32, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    edit(&hf.join("tokenizer.json"), |tokenizer| {
        tokenizer["added_tokens"] = json!([token(256, "<filler>")]);
    });
    let (code, _, stderr) = output(bench.patchtui(&["import", "hf"]));
    assert!(
        code == 2 && stderr.contains("it has ids up to 256, but vocab_size is 256"),
        "{stderr}"
    );
    edit(&hf.join("tokenizer_config.json"), |config| {
        config["pad_token"] = json!("<filler>");
        config["split_special_tokens"] = json!(false);
    });
    assert_eq!(
        output(bench.patchtui(&["generate", "hf", "--prompt", "Once", "--max-new-tokens", "8"])),
        expected
    );
    let (code, stdout, stderr) = output(bench.patchtui(&start()));
    assert_eq!(code, 0, "{stdout}{stderr}");
    let (code, _, stderr) = output(bench.patchtui(&[
        "generate",
        "hf",
        "--prompt",
        "a <filler> b",
        "--max-new-tokens",
        "8",
    ]));
    assert!(code != 0 && stderr.contains("padding token"), "{stderr}");
    let tokenizer = Tokenizer::load(hf.join("tokenizer.json").to_str().unwrap()).unwrap();
    assert_eq!(
        (tokenizer.rows_for(Some(256)), tokenizer.rows_for(Some(255)), tokenizer.rows_for(None)),
        (256, 257, 257)
    );
}

/// Bug report 22.
#[test]
fn a_name_means_the_run_also_beside_a_folder_or_a_file_of_it() {
    let bench = Bench::new();
    let mut command = bench.patchtui(&["run", "demo", "--name", "tiny", "--no-tui"]);
    command.args(TINY.iter().flat_map(|set| ["--set", set]));
    assert_eq!(output(command).0, 0);
    fs::write(bench.path().join("text.txt"), "Once upon a time there was a fox. ".repeat(400))
        .unwrap();
    let tries: [&[&str]; 5] = [
        &["generate", "tiny", "--prompt", "Once", "--max-new-tokens", "4"],
        &["eval", "tiny", "--tasks", "text:text.txt"],
        &["activations", "tiny", "--text", "text.txt", "--max-tokens", "1k"],
        &["export", "tiny", "--to", "out"],
        &["config", "show", "continue", "--set", "model.init_from=tiny"],
    ];
    for obstacle in ["folder", "file"] {
        let path = bench.path().join("tiny");
        if obstacle == "folder" {
            fs::create_dir(&path).unwrap();
        } else {
            fs::write(&path, "").unwrap();
        }
        for arguments in tries {
            let (code, stdout, stderr) = output(bench.patchtui(arguments));
            assert_eq!(code, 0, "{obstacle} {arguments:?}: {stderr}");
            assert!(arguments[0] != "config" || stdout.contains("runs/tiny"), "{stdout}");
            let _ = fs::remove_dir_all(bench.path().join("out"));
        }
        // With a slash it is the folder or the file, which is not a model.
        assert_eq!(output(bench.patchtui(&["generate", "./tiny", "--prompt", "Once"])).0, 2);
        let (code, _, stderr) = output(bench.patchtui(&["import", "tiny"]));
        assert!(code == 2 && stderr.contains("is a run or a checkpoint"), "{stderr}");
        if obstacle == "folder" {
            fs::remove_dir(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn the_built_in_continuation_follows_the_context_of_its_model() {
    let bench = exported();
    let loaded = |source: &str, sets: &[&str]| -> LoadedConfig {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        load(&LoadRequest { source, sets: &sets, current_dir: bench.path() }).unwrap()
    };
    let found = loaded("continue", &["model.init_from=hf"]);
    assert_eq!(
        (found.config.training.context_length, found.config.training.tokens_per_step.0),
        (16, 65_536)
    );
    assert!(found.origins["training.context_length"].to_string().starts_with("init_from "));
    // Explicit settings are not changed, and neither are those that fit.
    assert_eq!(
        loaded("continue", &["model.init_from=hf", "training.context_length=8"])
            .config
            .training
            .context_length,
        8
    );
    edit(&bench.path().join("hf/config.json"), |config| {
        config["max_position_embeddings"] = json!(1000);
    });
    let found = loaded("continue", &["model.init_from=hf"]).config.training;
    assert_eq!(
        (found.context_length, found.tokens_per_step.0),
        (1000, 64_000),
        "steps are whole sequences"
    );
    edit(&bench.path().join("hf/config.json"), |config| {
        config["max_position_embeddings"] = json!(4096);
    });
    assert_eq!(loaded("continue", &["model.init_from=hf"]).config.training.context_length, 1024);
    let (code, stdout, stderr) = output(bench.patchtui(&[
        "run",
        "continue",
        "--no-tui",
        "--set",
        "model.init_from=hf",
        "--set",
        "data.files=text.txt",
        "--set",
        "training.tokens=192k",
        "--set",
        "training.tokens_per_step=8192",
    ]));
    assert_eq!(code, 0, "{stdout}{stderr}");
}

#[test]
fn a_run_of_the_configuration_s_own_name_does_not_hide_the_model_it_named() {
    let bench = exported();
    fs::write(
        bench.path().join("hf.toml"),
        "extends = \"continue\"\n[model]\ninit_from = \"hf\"\n[data]\nfiles = [\"text.txt\"]\n",
    )
    .unwrap();
    let other = Fixture::copy("format-2");
    let find = |_: &str| Ok(Some(other.run().path().to_owned()));
    let init_from = |source: &str, sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        load_with_runs(&LoadRequest { source, sets: &sets, current_dir: bench.path() }, &find)
            .unwrap()
            .config
            .model
            .init_from
            .unwrap()
    };
    assert_eq!(init_from("hf.toml", &[]), bench.path().join("hf"));
    assert_eq!(init_from("continue", &["model.init_from=hf"]), other.run().path());
    assert_eq!(init_from("continue", &["model.init_from=./hf"]), bench.path().join("hf"));
}

#[test]
fn a_configuration_beside_a_folder_of_its_name_is_found_and_its_run_does_not_go_into_the_folder() {
    let bench = Bench::new();
    fs::create_dir(bench.path().join("books")).unwrap();
    fs::write(bench.path().join("books/a.txt"), "Once upon a time there was a fox. ".repeat(400))
        .unwrap();
    let settings = TINY
        .map(|set| set.split_once('=').unwrap())
        .map(|(key, value)| format!("{key} = {value}\n"))
        .concat();
    fs::write(
        bench.path().join("books.toml"),
        format!("{settings}data.files = [\"books\"]\ndata.tokenizer = \"bytes\"\n"),
    )
    .unwrap();
    for runs in ["runs", "."] {
        let (code, stdout, stderr) =
            output(bench.patchtui(&["run", "books", "--no-tui", "--runs-dir", runs]));
        assert_eq!(code, 0, "{stdout}{stderr}");
    }
    assert_eq!(fs::read_dir(bench.path().join("books")).unwrap().count(), 1);
    assert!(
        RunDirectory::new(bench.run_dir("books")).is_run()
            && RunDirectory::new(bench.path().join("books-2")).is_run()
    );
    let (code, _, stderr) = output(bench.patchtui(&[
        "run",
        "books.toml",
        "--no-tui",
        "--runs-dir",
        ".",
        "--name",
        "books",
    ]));
    assert!(code == 2 && stderr.contains("is not empty and not a run directory"), "{stderr}");
    assert_eq!(
        output(bench.patchtui(&["generate", "books", "--prompt", "Once", "--max-new-tokens", "3"]))
            .0,
        0
    );
    LoadedModel::open(&bench.run_dir("books"), &Compute::cpu()).unwrap();
}
