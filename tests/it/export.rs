//! Export to the Hugging Face format and import from it: the same weights, the same ids, and an
//! error for everything unusable.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use burn::tensor::{Device, Tensor, TensorData};
use patchtui::advice::{Advice, Audience, USAGE};
use patchtui::config::{LlamaConfig, LoadRequest, PatchSize, load, to_toml};
use patchtui::data::Tokenizer;
use patchtui::engine::compute::Compute;
use patchtui::engine::export::{ExportError, ExportReport, ExportRequest, export};
use patchtui::engine::hugging_face::weight_dims;
use patchtui::engine::named_tensor::{NamedTensor, matrix_dims};
use patchtui::engine::tensor_file::write_tensors;
use patchtui::engine::tensor_header::NumberFormat;
use patchtui::engine::{LoadedModel, ModelFiles};
use patchtui::record::{Outcome, RunCommand, RunEvent};
use serde_json::{Value, json};

use crate::formats::Fixture;
use crate::resume::{TINY, tiny_config, train};

/// An exported model of plain bytes.
struct Exported {
    fixture: Fixture,
    path: PathBuf,
}

fn request(to: &Path) -> ExportRequest<'_> {
    ExportRequest {
        to,
        format: NumberFormat::F32,
        max_shard_bytes: u64::MAX,
        allow_patch_stage: false,
    }
}

impl Exported {
    fn new() -> Self {
        Self::with(|request| request)
    }

    fn with(change: impl Fn(ExportRequest<'_>) -> ExportRequest<'_>) -> Self {
        let fixture = Fixture::copy("format-2");
        let path = fixture.run().path().join("../out");
        let model = ModelFiles::find(fixture.run().path()).unwrap();
        export(&model, &change(request(&path))).unwrap();
        let path = fs::canonicalize(path).unwrap();
        Self { fixture, path }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value: Value =
            serde_json::from_str(&fs::read_to_string(self.file(name)).unwrap()).unwrap();
        change(&mut value);
        fs::write(self.file(name), value.to_string()).unwrap();
    }

    /// Message and hint of opening it, with `DIR` for its path.
    fn complaint(&self) -> (String, String) {
        let error = LoadedModel::open(&self.path, &Compute::cpu()).unwrap_err();
        let relative = |text: String| text.replace(self.path.to_str().unwrap(), "DIR");
        (relative(error.to_string()), relative(error.hint(Audience::Command)))
    }
}

fn weights(model: &LoadedModel) -> BTreeMap<String, Vec<u32>> {
    let bits = |values: &Tensor<2>| values.to_data().iter::<f32>().map(f32::to_bits).collect();
    model.model.weights().map(|weight| (weight.name.clone(), bits(&weight.values))).collect()
}

fn open(path: &Path) -> LoadedModel {
    LoadedModel::open(path, &Compute::cpu()).unwrap()
}

/// Writes weights of `shape` as one file; `value` returns the numbers of each tensor by name.
fn write_weights(path: &Path, dims: Vec<(String, Vec<usize>)>, value: impl Fn(&str, usize) -> f32) {
    let tensor = |(name, dims): (String, Vec<usize>)| {
        let numbers: Vec<f32> = (0..dims.iter().product()).map(|idx| value(&name, idx)).collect();
        NamedTensor {
            values: Tensor::from_data(
                TensorData::new(numbers, matrix_dims(&dims)),
                &Device::flex(),
            ),
            name,
            dims,
        }
    };
    write_tensors(path, dims.into_iter().map(tensor).collect()).unwrap();
}

#[test]
fn what_is_exported_opens_with_the_same_weights_bit_for_bit() {
    for max_shard_bytes in [u64::MAX, 2048, 1] {
        let exported = Exported::with(|request| ExportRequest { max_shard_bytes, ..request });
        let (run, copy) = (open(exported.fixture.run().path()), open(&exported.path));
        assert_eq!(weights(&copy), weights(&run), "{max_shard_bytes}");
        assert_eq!(
            (copy.files.context_length, copy.files.add_bos, copy.files.patch_size),
            (run.files.context_length, run.files.add_bos, PatchSize::ONE)
        );
        assert_eq!(
            (copy.files.origin.name().as_str(), copy.files.origin.rejected().len()),
            ("out", 0)
        );
        let num_files = fs::read_dir(&exported.path)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().extension().unwrap() == "safetensors")
            .count();
        let is_sharded = exported.file("model.safetensors.index.json").exists();
        assert_eq!(
            (num_files == 1, is_sharded),
            (max_shard_bytes == u64::MAX, max_shard_bytes < u64::MAX),
            "{num_files} files"
        );
        if is_sharded {
            let index: Value = serde_json::from_slice(
                &fs::read(exported.file("model.safetensors.index.json")).unwrap(),
            )
            .unwrap();
            assert_eq!(index["metadata"]["total_size"], 4 * run.files.shape.num_parameters());
            assert_eq!(
                index["weight_map"].as_object().unwrap().len(),
                weight_dims(&run.files.shape).len()
            );
        }
        // Nothing else remains next to it.
        let beside: Vec<_> = fs::read_dir(exported.path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(beside.iter().all(|name| !name.to_string_lossy().contains("tmp")), "{beside:?}");
    }
}

#[test]
fn halves_are_read_as_what_they_were_rounded_to_and_survive_another_export() {
    for (format, bits) in [(NumberFormat::Bf16, 8), (NumberFormat::F16, 11)] {
        let exported = Exported::with(|request| ExportRequest { format, ..request });
        let (run, copy) = (open(exported.fixture.run().path()), open(&exported.path));
        for (name, exact) in weights(&run) {
            for (exact, half) in exact.iter().zip(&weights(&copy)[&name]) {
                let (exact, half) = (f32::from_bits(*exact), f32::from_bits(*half));
                // Below 2^-14 an f16 has a fixed spacing of 2^-24.
                let allowed = (exact.abs() * 2_f32.powi(-bits)).max(2_f32.powi(-25));
                assert!((exact - half).abs() <= allowed, "{name}: {exact} became {half}");
            }
        }
        let again = exported.path.with_file_name("again");
        export(
            &ModelFiles::find(&exported.path).unwrap(),
            &ExportRequest { format, ..request(&again) },
        )
        .unwrap();
        for name in ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
        {
            assert_eq!(
                fs::read(again.join(name)).unwrap(),
                fs::read(exported.file(name)).unwrap(),
                "{name}"
            );
        }
    }
}

#[test]
fn grouped_queries_and_a_tied_head_with_or_without_its_own_copy_are_read() {
    let exported = Exported::new();
    exported.edit("config.json", |config| {
        config["num_attention_heads"] = 2.into();
        config["num_key_value_heads"] = 1.into();
        config["head_dim"] = 4.into();
        config["tie_word_embeddings"] = true.into();
    });
    let shape = ModelFiles::find(&exported.path).unwrap().shape;
    assert_eq!((shape.num_key_value_heads, shape.head_dim()), (1, 4));
    let value =
        |name: &str, idx: usize| if name == "model.norm.weight" { 1.0 } else { (idx % 7) as f32 };
    write_weights(&exported.file("model.safetensors"), weight_dims(&shape), value);
    let without = weights(&open(&exported.path));
    let with_more = |more: [(&str, Vec<usize>); 2]| {
        weight_dims(&shape)
            .into_iter()
            .chain(more.map(|(name, dims)| (name.to_owned(), dims)))
            .collect()
    };
    let more = || {
        [
            ("lm_head.weight", vec![256, 8]),
            ("model.layers.0.self_attn.rotary_emb.inv_freq", vec![2]),
        ]
    };
    write_weights(&exported.file("model.safetensors"), with_more(more()), value);
    assert_eq!(weights(&open(&exported.path)), without);
    write_weights(&exported.file("model.safetensors"), with_more(more()), |name, idx| {
        if name == "lm_head.weight" { 0.5 } else { value(name, idx) }
    });
    assert_eq!(
        exported.complaint().0,
        "DIR: tie_word_embeddings is true, but lm_head.weight differs from \
         model.embed_tokens.weight"
    );
}

#[test]
fn config_files_of_old_and_new_versions_say_the_same() {
    let old = json!({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 8, "rope_theta": 5e5, "rope_scaling": null, "torch_dtype": "bfloat16"});
    let new = json!({"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_attention_heads": 8, "dtype": "bfloat16",
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "head_dim": 8, "num_key_value_heads": null});
    let read = |value: &Value| LlamaConfig::parse(&value.to_string()).unwrap();
    assert_eq!(read(&old), read(&new));
    let defaults = read(&json!({"model_type": "llama"}));
    let expected = (32_000, 4096, 11_008, 32, 32, 32, 2048);
    let found = (
        defaults.shape.vocab_size,
        defaults.shape.hidden_size,
        defaults.shape.intermediate_size,
        defaults.shape.num_hidden_layers,
        defaults.shape.num_attention_heads,
        defaults.shape.num_key_value_heads,
        defaults.shape.max_position_embeddings,
    );
    assert_eq!(found, expected);
    let numbers =
        [defaults.shape.rope_theta, defaults.shape.rms_norm_eps, defaults.shape.initializer_range]
            .map(f64::to_bits);
    assert_eq!(numbers, [10_000.0, 1e-6, 0.02].map(f64::to_bits));
    assert!(!defaults.shape.tie_word_embeddings && defaults.patch_size == PatchSize::ONE);
}

#[test]
fn what_this_program_does_not_compute_is_refused_by_name() {
    let problem = |key: &str, value: Value| {
        let mut config =
            json!({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 8});
        config[key] = value;
        LlamaConfig::parse(&config.to_string()).unwrap_err()
    };
    let table = [
        (
            "model_type",
            json!("mistral"),
            "model_type = \"mistral\" is not supported, only \"llama\"",
        ),
        (
            "architectures",
            json!(["GPT2LMHeadModel"]),
            "architectures = [\"GPT2LMHeadModel\"] is not supported, only [\"LlamaForCausalLM\"]",
        ),
        (
            "attention_bias",
            json!(true),
            "attention_bias = true is not supported: patchtui has no biases",
        ),
        ("mlp_bias", json!(true), "mlp_bias = true is not supported: patchtui has no biases"),
        ("hidden_act", json!("gelu"), "hidden_act = \"gelu\" is not supported, only \"silu\""),
        (
            "head_dim",
            json!(16),
            "head_dim = 16 is not supported: it must be hidden_size / num_attention_heads = 8",
        ),
        (
            "partial_rotary_factor",
            json!(0.5),
            "partial_rotary_factor = 0.5 is not supported, only 1.0",
        ),
        (
            "rope_parameters",
            json!({"partial_rotary_factor": 0.25}),
            "partial_rotary_factor = 0.25 is not supported, only 1.0",
        ),
        (
            "quantization_config",
            json!({"bits": 4}),
            "quantization_config is set, but quantized weights are not supported",
        ),
        (
            "rope_scaling",
            json!({"type": "linear", "factor": 2.0}),
            "rope_scaling = {\"type\":\"linear\",\"factor\":2.0} is not supported, only rotary \
             embeddings of type \"default\"",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "llama3"}),
            "rope_parameters = {\"rope_type\":\"llama3\"} is not supported, only rotary \
             embeddings of type \"default\"",
        ),
        ("hidden_size", json!(-64), "hidden_size = -64, expected an integer from 1 to 1048576"),
        (
            "num_hidden_layers",
            json!(u64::MAX),
            "num_hidden_layers = 18446744073709551615, expected an integer from 1 to 4096",
        ),
        (
            "num_attention_heads",
            json!(7),
            "hidden_size = 64 cannot be divided into num_attention_heads = 7 heads of even \
             dimension",
        ),
        (
            "num_key_value_heads",
            json!(3),
            "num_key_value_heads = 3 does not divide num_attention_heads = 8",
        ),
        ("rope_theta", json!(0), "rope_theta = 0, expected a number greater than 0"),
        (
            "tie_word_embeddings",
            json!("yes"),
            "tie_word_embeddings = \"yes\", expected true or false",
        ),
        ("patch_size", json!(0), "patch_size = 0, expected a patch size from 1 to 1024"),
    ];
    for (key, value, message) in table {
        assert_eq!(problem(key, value), message);
    }
    let parse = |text: &str| LlamaConfig::parse(text).unwrap_err();
    assert_eq!(
        parse("{}"),
        "it names no architecture: it has neither model_type nor architectures"
    );
    assert_eq!(parse("[]"), "it is not a JSON object");
    assert!(parse("{").starts_with("it is not JSON: "));
}

#[test]
fn a_directory_that_lacks_something_says_what() {
    let again = "download or save the directory again";
    let check = |change: &dyn Fn(&Exported), message: &str, hint: &str| {
        let exported = Exported::new();
        change(&exported);
        let (found, found_hint) = exported.complaint();
        assert_eq!(found, message);
        assert!(found_hint.starts_with(hint), "{found_hint}");
    };
    let remove = |name: &'static str| {
        move |exported: &Exported| fs::remove_file(exported.file(name)).unwrap()
    };
    check(
        &remove("tokenizer.json"),
        "DIR/tokenizer.json is missing",
        "save a fast tokenizer there: ",
    );
    check(
        &remove("config.json"),
        "DIR is not a run, a checkpoint or a Hugging Face directory",
        "name a run, a checkpoint or a Hugging Face directory; list all runs with: patchtui runs",
    );
    let no_weights =
        "DIR has no weights: neither model.safetensors nor model.safetensors.index.json exists";
    check(&remove("model.safetensors"), no_weights, "name a directory written by save_pretrained");
    let pickled = |exported: &Exported| {
        fs::rename(exported.file("model.safetensors"), exported.file("pytorch_model.bin")).unwrap();
    };
    check(
        &pickled,
        "DIR has weights only as pytorch_model.bin, but only safetensors files are supported",
        "convert it: ",
    );
    let dims = |exported: &Exported| weight_dims(&ModelFiles::find(&exported.path).unwrap().shape);
    let rewrite = |exported: &Exported, dims: Vec<(String, Vec<usize>)>| {
        write_weights(&exported.file("model.safetensors"), dims, |_, _| 1.0);
    };
    let without_norm = |exported: &Exported| {
        rewrite(
            exported,
            dims(exported).into_iter().filter(|(name, _)| name != "model.norm.weight").collect(),
        );
    };
    check(&without_norm, "DIR: tensor model.norm.weight is missing", again);
    let with_bias = |exported: &Exported| {
        rewrite(
            exported,
            dims(exported).into_iter().chain([("lm_head.bias".into(), vec![256])]).collect(),
        );
    };
    check(
        &with_bias,
        "DIR: unexpected tensor lm_head.bias: the network of config.json does not have it",
        again,
    );
    let wider = |exported: &Exported| {
        exported.edit("config.json", |config| config["intermediate_size"] = 24.into());
    };
    check(
        &wider,
        "DIR/model.safetensors: model.layers.0.mlp.gate_proj.weight has shape [16, 8] instead of \
         [24, 8]",
        again,
    );
    let fewer_rows = |exported: &Exported| {
        exported.edit("config.json", |config| config["vocab_size"] = 255.into());
    };
    check(
        &fewer_rows,
        "DIR/tokenizer.json: it has ids up to 255, but vocab_size is 255",
        "use the tokenizer of the model",
    );
    let other = |exported: &Exported| {
        exported.edit("config.json", |config| config["model_type"] = "gpt2".into());
    };
    check(
        &other,
        "DIR/config.json: model_type = \"gpt2\" is not supported, only \"llama\"",
        "only LLaMA models are supported",
    );
    let no_json =
        |exported: &Exported| fs::write(exported.file("tokenizer_config.json"), "[").unwrap();
    let message = "tokenizer \"DIR/tokenizer.json\" cannot be used: tokenizer_config.json beside \
                   it is not a JSON object: invalid type: sequence, expected a map at line 1 \
                   column 0";
    check(&no_json, message, "");
}

/// Rewrites the header of the weights; the numbers are unchanged.
fn with_header(exported: &Exported, change: impl FnOnce(String) -> String) {
    let path = exported.file("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = change(String::from_utf8(bytes[8..8 + length].to_vec()).unwrap());
    fs::write(
        &path,
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes[8 + length..]].concat(),
    )
    .unwrap();
}

#[test]
fn hostile_headers_are_refused_before_anything_is_believed() {
    let check = |change: &dyn Fn(String) -> String, message: &str| {
        let exported = Exported::new();
        with_header(&exported, change);
        let found = exported.complaint().0;
        let found =
            found.strip_prefix("DIR/model.safetensors: ").unwrap_or_else(|| panic!("{found}"));
        assert!(found.starts_with(message), "{found}");
    };
    let replace = |from: &'static str, to: &'static str| {
        move |header: String| {
            assert!(header.contains(from), "{header}");
            header.replacen(from, to, 1)
        }
    };
    let table = "\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[256,8],\"\
                 data_offsets\":[0,8192]}";
    check(
        &replace(
            table,
            "\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[256,8],\"data_offsets\":\
             [0,8200]}",
        ),
        "model.embed_tokens.weight is F32 [256, 8], which does not fill its 8200 bytes",
    );
    check(
        &replace("[0,8192]", "[-8,8192]"),
        "its header cannot be used: invalid value: integer `-8`, expected u64",
    );
    check(
        &replace("[0,8192]", "[8192,0]"),
        "model.embed_tokens.weight claims the bytes from 8192 to 0, but the next free byte is 0",
    );
    check(
        &replace("[8192,8224]", "[8184,8216]"),
        "model.layers.0.input_layernorm.weight claims the bytes from 8184 to 8216, but the next \
         free byte is 8192",
    );
    check(
        &replace("[256,8]", "[4294967296,4294967296,8]"),
        "model.embed_tokens.weight is F32 [4294967296, 4294967296, 8], which does not fill its \
         8192 bytes",
    );
    check(
        &replace("\"F32\"", "\"I8\""),
        "model.embed_tokens.weight is I8, but only F32, BF16 and F16 are supported",
    );
    check(
        &replace("\"F32\"", "\"F8_E4M3\""),
        "model.embed_tokens.weight is F8_E4M3, but only F32, BF16 and F16 are supported",
    );
    check(
        &replace(
            table,
            "\"model.norm.weight\":{\"dtype\":\"F32\",\"shape\":[256,8],\"data_offsets\":[0,8192]}",
        ),
        "its header cannot be used: two tensors are named model.norm.weight",
    );
    check(&|_| "{".into(), "its header is not JSON: ");
    check(&|_| "{}".into(), "it has ");
    let exported = Exported::new();
    let path = exported.file("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for (bytes, message) in [
        (
            &whole[..whole.len() - 4],
            format!(
                "it has {} bytes of data instead of {}",
                data_bytes(&whole) - 4,
                data_bytes(&whole)
            ),
        ),
        (&whole[..100], format!("its header claims {} bytes", header_bytes(&whole))),
        (&[0xFF; 16][..], format!("its header claims {} bytes", u64::MAX)),
    ] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(exported.complaint().0, format!("DIR/model.safetensors: {message}"));
    }
}

fn header_bytes(file: &[u8]) -> u64 {
    u64::from_le_bytes(file[..8].try_into().unwrap())
}

fn data_bytes(file: &[u8]) -> u64 {
    file.len() as u64 - 8 - header_bytes(file)
}

#[test]
fn an_index_leads_to_files_of_its_directory_only() {
    let check = |change: &dyn Fn(&mut Value), message: &str| {
        let exported = Exported::with(|request| ExportRequest { max_shard_bytes: 9000, ..request });
        exported.edit("model.safetensors.index.json", change);
        let found = exported.complaint().0;
        assert!(found.starts_with(message), "{found}");
    };
    for name in ["../out/model.safetensors", "/etc/passwd", "..", "", "a/b.safetensors", "a\\b"] {
        let message = format!(
            "DIR/model.safetensors.index.json: it names the file {name:?}, which is not a plain \
             name in this directory"
        );
        check(&|index| index["weight_map"]["model.norm.weight"] = name.into(), &message);
    }
    check(
        &|index| drop(index.as_object_mut().unwrap().remove("weight_map")),
        "DIR/model.safetensors.index.json: it has no usable weight_map: missing field",
    );
    check(
        &|index| index["weight_map"]["model.norm.weight"] = "missing.safetensors".into(),
        "DIR/missing.safetensors: ",
    );
    let first = |index: &Value| index["weight_map"]["model.embed_tokens.weight"].clone();
    check(
        &|index| index["weight_map"]["model.norm.weight"] = first(index),
        "DIR/model.safetensors.index.json: model.norm.weight is not in model-00001-of-",
    );
    let exported = Exported::with(|request| ExportRequest { max_shard_bytes: 9000, ..request });
    fs::copy(
        exported.file("model-00001-of-00002.safetensors"),
        exported.file("model-00002-of-00002.safetensors"),
    )
    .unwrap();
    assert_eq!(
        exported.complaint().0,
        "DIR: two of its files have a tensor model.embed_tokens.weight"
    );
}

/// Strings on which tokenizers differ.
const NASTY: [&str; 14] = [
    "",
    " ",
    "  two",
    "Hello world",
    " = Robert Boulter = \n",
    "a\u{301}\u{e9}\u{fb01}\u{2126}",
    "\u{4e2d}\u{6587} \u{1f980}\u{200d}\u{1f468}",
    "\t\r\n\u{0}\u{7f}\u{feff}",
    "<s>hi</s> <unk>",
    "\u{fe}\u{ff}\u{e0}\u{120}",
    "<|endoftext|> [CLS]",
    "don't 1234567890 we'll",
    "\u{10ffff}\u{e000}",
    "Once upon a time, there was a little fox. ",
];

/// Exports a model with the tokenizer `choice` and returns how its files encode.
fn export_with(choice: &str, add_bos: bool, folder: &Path) -> (Tokenizer, Tokenizer) {
    let fixture = Fixture::copy("format-2");
    let tokenizer = Tokenizer::load(choice).unwrap();
    let model = ModelFiles {
        tokenizer: tokenizer.clone(),
        add_bos,
        ..ModelFiles::find(fixture.run().path()).unwrap()
    };
    export(&model, &request(folder)).unwrap();
    (tokenizer, Tokenizer::load(folder.join("tokenizer.json").to_str().unwrap()).unwrap())
}

#[test]
fn an_exported_tokenizer_gives_the_same_ids_and_the_same_text() {
    let mut choices = vec!["bytes".to_owned(), "demo".to_owned()];
    match std::env::var("PATCHTUI_TEST_DATA") {
        Ok(data) => choices.push(format!("{data}/llama2_tokenizer/tokenizer.json")),
        Err(_) => println!("without the LLaMA-2 tokenizer: PATCHTUI_TEST_DATA is not set"),
    }
    for choice in choices {
        for add_bos in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let (original, exported) = export_with(&choice, add_bos, &folder.path().join("out"));
            assert_eq!(
                (exported.bos(), exported.eos()),
                (original.bos(), original.eos()),
                "{choice}"
            );
            assert_eq!(
                (exported.adds_bos(), exported.template_adds_bos()),
                (add_bos, add_bos),
                "{choice}"
            );
            for text in NASTY {
                let ids = original.encode(text).unwrap();
                assert_eq!(exported.encode(text).unwrap(), ids, "{choice}: {text:?}");
                let around: Vec<u32> =
                    original.bos().into_iter().chain(ids).chain(original.eos()).collect();
                assert_eq!(
                    exported.decode(&around),
                    original.decode(&around),
                    "{choice}: {text:?}"
                );
            }
        }
    }
}

#[test]
fn the_files_beside_a_tokenizer_name_its_special_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let (original, _) = export_with("demo", true, &path);
    let load = || Tokenizer::load(path.join("tokenizer.json").to_str().unwrap()).unwrap();
    let of_token = |text: &str| original.encode(text).unwrap()[0];
    fs::write(
        path.join("tokenizer_config.json"),
        json!({"bos_token": {"content": "</s>"}, "eos_token": "a"}).to_string(),
    )
    .unwrap();
    assert_eq!(
        (load().bos(), load().eos(), load().adds_bos()),
        (original.eos(), Some(of_token("a")), false)
    );
    fs::write(
        path.join("tokenizer_config.json"),
        json!({"bos_token": null, "add_bos_token": true}).to_string(),
    )
    .unwrap();
    assert_eq!((load().bos(), load().eos(), load().adds_bos()), (None, original.eos(), false));
    fs::write(path.join("tokenizer_config.json"), json!({"add_bos_token": false}).to_string())
        .unwrap();
    assert_eq!((load().bos(), load().adds_bos()), (original.bos(), false));
}

#[test]
fn an_export_that_is_refused_leaves_nothing() {
    let fixture = Fixture::copy("format-2");
    let run = fixture.run();
    let folder = run.path().join("../outs");
    fs::create_dir(&folder).unwrap();
    let folder = fs::canonicalize(folder).unwrap();
    let attempt = |change: &dyn Fn(&mut ModelFiles),
                   request: &ExportRequest<'_>|
     -> Result<ExportReport, ExportError> {
        let mut model = ModelFiles::find(run.path()).unwrap();
        change(&mut model);
        export(&model, request)
    };
    let keep = |_: &mut ModelFiles| ();
    let names = || {
        fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>()
    };
    let out = folder.join("out");
    let patches = |model: &mut ModelFiles| model.patch_size = PatchSize::new(4).unwrap();
    let error = attempt(&patches, &request(&out)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "books/step-00000007: training stopped in the patch stage (K = 4)"
    );
    assert!(
        error.hint(Audience::Command).contains("--allow-patch-stage") && error.exit_code() == USAGE
    );
    fs::create_dir(folder.join("full")).unwrap();
    fs::write(folder.join("full/a"), "").unwrap();
    let error = attempt(&keep, &request(&folder.join("full"))).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{} exists and is not an empty directory", folder.join("full").display())
    );
    assert!(matches!(
        attempt(&keep, &request(&folder.join("full/a"))),
        Err(ExportError::Exists { .. })
    ));
    let wider = |model: &mut ModelFiles| model.shape.intermediate_size += 1;
    assert!(matches!(attempt(&wider, &request(&out)), Err(ExportError::Open(_))));
    assert_eq!(names(), ["full"]);
    // An empty directory is accepted; a model in its patch stage is reported.
    fs::create_dir(&out).unwrap();
    attempt(&patches, &ExportRequest { allow_patch_stage: true, ..request(&out) }).unwrap();
    assert_eq!(open(&out).files.patch_size, PatchSize::new(4).unwrap());
    let finished = folder.join("finished");
    attempt(&keep, &request(&finished)).unwrap();
    assert!(!fs::read_to_string(finished.join("config.json")).unwrap().contains("patch_size"));
    // Out of range of the format.
    let shape = ModelFiles::find(&finished).unwrap().shape;
    write_weights(&finished.join("model.safetensors"), weight_dims(&shape), |name, idx| {
        if name == "model.norm.weight" && idx == 3 { 7e4 } else { 1.0 }
    });
    let half = folder.join("half");
    let error = export(
        &ModelFiles::find(&finished).unwrap(),
        &ExportRequest { format: NumberFormat::F16, ..request(&half) },
    )
    .unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.hint(Audience::Command).as_str()),
        (
            "model.norm.weight contains 70000.0, which is out of range for F16",
            "use --dtype bf16 or --dtype f32"
        )
    );
    assert!(!half.exists());
}

fn losses(events: &[RunEvent]) -> Vec<(u64, u64, u64)> {
    let steps = events.iter().filter_map(|event| match event {
        RunEvent::StepCompleted(step) => {
            Some((step.step, step.loss.to_bits(), step.grad_norm.to_bits()))
        }
        _ => None,
    });
    steps.collect()
}

#[test]
fn a_run_from_exported_weights_is_the_run_from_the_same_weights_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = tiny_config(&["checkpoint.keep=20"]);
    fs::create_dir_all(at("first")).unwrap();
    fs::write(at("first/config.toml"), to_toml(&config)).unwrap();
    let (end, expected) = train(config, &at("first"), |_| None);
    assert_eq!(end.outcome, Outcome::Completed, "{:?}", end.error);
    let begin = at("first/checkpoints/step-00000000");
    let error = export(&ModelFiles::find(&begin).unwrap(), &request(&at("weights"))).unwrap_err();
    assert!(matches!(error, ExportError::PatchStage { .. }), "{error}");
    export(
        &ModelFiles::find(&begin).unwrap(),
        &ExportRequest { allow_patch_stage: true, ..request(&at("weights")) },
    )
    .unwrap();
    // Another seed of the weights would be another run: only the data order depends on it here.
    for (name, from) in [("second", &begin), ("third", &at("weights"))] {
        let set = format!("model.init_from={}", from.display());
        let config = tiny_config(&[&set]);
        assert_eq!((config.model.vocab_size, config.model.hidden_size), (Some(1024), 32));
        let stop = |event: &RunEvent| {
            matches!(event, RunEvent::StepCompleted(step) if step.step == 4 && name == "third")
                .then_some(RunCommand::Stop)
        };
        let (end, mut events) = train(config.clone(), &at(name), stop);
        assert!(end.error.is_none(), "{:?}", end.error);
        let RunEvent::RunStarted(header) =
            events.iter().find(|event| matches!(event, RunEvent::RunStarted(_))).unwrap()
        else {
            unreachable!()
        };
        let decision = &header.decisions.last().unwrap();
        assert!(
            decision.label == "start"
                && decision
                    .text
                    .starts_with(&format!("the trained weights of {} (blake3 ", from.display())),
            "{decision:?}"
        );
        if name == "third" {
            // The weights are in the first checkpoint: a resumed run does not need the directory
            // any more.
            fs::remove_dir_all(at("weights")).unwrap();
            let (end, more) = train(config, &at(name), |_| None);
            assert_eq!(end.outcome, Outcome::Completed, "{:?}", end.error);
            events.extend(more);
        }
        assert_eq!(losses(&events), losses(&expected), "{name}");
    }
    let state = |name: &str| {
        fs::read_to_string(at(name).join("checkpoints/step-00000009/trainer.json")).unwrap()
    };
    let hash = |text: &str| serde_json::from_str::<Value>(text).unwrap()["initial_weights"].clone();
    assert!(hash(&state("first")).is_null() && hash(&state("second")).is_string());
    assert_eq!(
        hash(&state("second")),
        hash(&state("third")),
        "the hash is of the numbers, not of the files"
    );
}

#[test]
fn sizes_come_from_the_weights_and_others_are_refused() {
    let exported = Exported::new();
    let load = |sets: &[String]| {
        let sets: Vec<String> = [format!("model.init_from={}", exported.path.display())]
            .iter()
            .chain(sets)
            .cloned()
            .collect();
        load(&LoadRequest { source: "continue", sets: &sets, current_dir: Path::new("/") })
    };
    let loaded = load(&[]).unwrap();
    let (model, tokenizer) = (&loaded.config.model, &loaded.config.data.tokenizer);
    assert_eq!(
        (model.vocab_size, model.hidden_size, model.max_position_embeddings),
        (Some(256), 8, 16)
    );
    assert_eq!(tokenizer, exported.file("tokenizer.json").to_str().unwrap());
    assert_eq!(
        loaded.origins["model.hidden_size"].to_string(),
        format!("init_from {}", exported.path.display())
    );
    assert_eq!(
        load(&["model.hidden_size=8".into(), "model.max_position_embeddings=64".into()])
            .unwrap()
            .config
            .model
            .max_position_embeddings,
        64
    );
    let error = load(&["model.hidden_size=16".into()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "--set: model.hidden_size = 16, but the weights in {} have 8",
            exported.path.display()
        )
    );
    assert_eq!(
        error.hint(Audience::Command),
        "remove model.hidden_size, or remove model.init_from to start from random weights"
    );
    fs::remove_file(exported.file("config.json")).unwrap();
    let error = load(&[]).unwrap_err().to_string();
    assert!(
        error.ends_with("out is not a run, a checkpoint or a Hugging Face directory"),
        "{error}"
    );
}

fn patchtui(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_patchtui"));
    command
        .args(arguments)
        .current_dir(folder)
        .env("XDG_STATE_HOME", folder.join("state"))
        .env_remove("PATCHTUI_RUNS_DIR");
    command.output().unwrap()
}

#[test]
fn the_commands_export_and_import_a_model_that_goes_on_training() {
    let fixture = Fixture::copy("format-2");
    let folder = fs::canonicalize(fixture.run().path().parent().unwrap()).unwrap();
    let run = |arguments: &[&str]| {
        let Output { status, stdout, stderr } = patchtui(&folder, arguments);
        (
            status.code().unwrap(),
            String::from_utf8(stdout).unwrap(),
            String::from_utf8(stderr).unwrap(),
        )
    };
    let (code, out, talk) =
        run(&["export", "books", "--to", "a/model", "--dtype", "bf16", "--max-shard-size", "4500"]);
    assert_eq!((code, out.as_str()), (0, ""), "{talk}");
    assert!(
        talk.starts_with("Wrote a/model: books/step-00000007, ")
            && talk.contains(" as BF16 (")
            && talk.ends_with(" in 2 files)\n"),
        "{talk}"
    );
    let (code, _, talk) = run(&["export", "books", "--to", "a/model"]);
    assert!(code == 2 && talk.contains("a/model exists and is not an empty directory"), "{talk}");
    let (code, out, talk) = run(&["import", "a/model"]);
    assert_eq!(code, 0, "{talk}");
    assert!(
        talk.contains("BF16 in 2 files") && talk.contains("tokenizer: 256 tokens, with BOS"),
        "{talk}"
    );
    let (code, nothing, _) = run(&["import", "a/model", "--to", "own.toml"]);
    assert_eq!(
        (code, nothing.as_str(), fs::read_to_string(folder.join("own.toml")).unwrap()),
        (0, "", out)
    );
    let (code, _, talk) = run(&["import", "a/model", "--to", "own.toml"]);
    assert!(code == 2 && talk.contains("own.toml exists"), "{talk}");
    let sets = ["--set", "data.files=text.txt", "--set", "training.tokens=2048"];
    let (code, _, talk) = run(&[&["run", "own.toml", "--no-tui"], &sets[..]].concat());
    assert_eq!(code, 0, "{talk}");
    let trained = open(&folder.join("runs/own"));
    assert_eq!((trained.files.shape.hidden_size, trained.files.patch_size), (8, PatchSize::ONE));
    assert!(
        fs::read_to_string(folder.join("runs/own/tokenizer_config.json")).unwrap().contains("<s>"),
        "the copy of the tokenizer is whole"
    );
    let (code, _, talk) = run(&["import", "runs/own"]);
    assert!(code == 2 && talk.contains("runs/own is a run or a checkpoint"), "{talk}");
    fs::write(folder.join("a/model/config.json"), "{\"model_type\": \"bert\"}").unwrap();
    let (code, out, talk) = run(&["import", "a/model"]);
    assert!(
        code == 2 && out.is_empty() && talk.contains("model_type = \"bert\" is not supported"),
        "{talk}"
    );
}

#[test]
fn a_run_can_be_named_as_initial_weights() {
    let fixture = Fixture::copy("format-2");
    let set = format!("model.init_from={}", fixture.run().path().display());
    let sets: Vec<String> = TINY
        .iter()
        .filter(|set| !set.starts_with("model."))
        .map(ToString::to_string)
        .chain([set])
        .collect();
    let config = load(&LoadRequest { source: "demo", sets: &sets, current_dir: Path::new("/") });
    // The demo names its own tokenizer, whose vocabulary is larger than that of the weights; the
    // plan refuses that.
    let config = config.unwrap().config;
    assert_eq!(
        (config.model.vocab_size, config.model.hidden_size, config.data.tokenizer.as_str()),
        (Some(256), 8, "demo")
    );
    let folder = tempfile::tempdir().unwrap();
    let (end, _) = train(config.clone(), &folder.path().join("a"), |_| None);
    assert_eq!(
        end.error.unwrap().message,
        "model.vocab_size = 256 is too small: the tokenizer has 1024 tokens"
    );
    let mut config = config;
    config.data.tokenizer = "bytes".into();
    let (end, _) = train(config, &folder.path().join("b"), |_| None);
    assert_eq!(end.outcome, Outcome::Completed, "{:?}", end.error);
    let state = fs::read_to_string(
        folder.path().join(format!("b/checkpoints/step-{:08}/trainer.json", end.step)),
    )
    .unwrap();
    assert!(state.contains("\"initial_weights\""), "{state}");
}
