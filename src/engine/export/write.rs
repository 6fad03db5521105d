//! Writes a model as a directory that `transformers` loads: first completely under another name,
//! then published by a single rename.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use crate::config::CONFIG_FILE;
use crate::engine::export::ExportError;
use crate::engine::export::shards::{write_text, write_weights};
use crate::engine::export::tokenizer_files::TokenizerFiles;
use crate::engine::hugging_face::{GENERATION_FILE, TOKENIZER_FILE, weight_dims};
use crate::engine::open::ModelFiles;
use crate::engine::tensor_header::NumberFormat;
use crate::record::files::{create_directory, sync_directory};

/// The format introduced by this version of `transformers`, which all later versions read.
const TRANSFORMERS_VERSION: &str = "4.34.0";

/// What to write, and where.
#[derive(Debug, Clone, Copy)]
pub struct ExportRequest<'a> {
    /// The output directory, new or empty.
    pub to: &'a Path,
    /// Number format of the weights.
    pub format: NumberFormat,
    /// Maximum size of a weight file in bytes, unless one tensor is larger.
    pub max_shard_bytes: u64,
    /// Whether a model in its patch stage may be exported.
    pub allow_patch_stage: bool,
}

/// Summary of the export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportReport {
    /// Number of weight files.
    pub num_files: usize,
    /// Bytes of all weights.
    pub weight_bytes: u64,
}

/// Writes `model` as a directory.
///
/// # Errors
/// The error; a failed attempt leaves nothing behind.
pub fn export(
    model: &ModelFiles,
    request: &ExportRequest<'_>,
) -> Result<ExportReport, ExportError> {
    let patch_stage = model.patch_stage();
    if let Some(stage) = patch_stage.filter(|_| !request.allow_patch_stage) {
        return Err(ExportError::PatchStage { model: model.origin.name(), stage });
    }
    let to = request.to;
    let is_free = match fs::read_dir(to) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(to).is_err(),
    };
    if !is_free {
        return Err(ExportError::Exists { path: to.to_owned() });
    }
    let Some(name) = to.file_name() else {
        return Err(ExportError::NoName { path: to.to_owned() });
    };
    let parent =
        to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_directory(parent).map_err(ExportError::at(parent))?;
    let mut scratch = OsString::from(name);
    scratch.push(format!(".{}.tmp", std::process::id()));
    let scratch = parent.join(scratch);
    fs::create_dir(&scratch).map_err(ExportError::at(&scratch))?;
    let written = write_into(&scratch, model, request, patch_stage.is_some()).and_then(|report| {
        let publish = || {
            sync_directory(&scratch)
                .and_then(|()| fs::rename(&scratch, to))
                .and_then(|()| sync_directory(parent))
        };
        publish().map_err(ExportError::at(to)).map(|()| report)
    });
    written.inspect_err(|_| {
        // Removes only the new partial directory; if that fails too, the caller's error is the
        // same.
        let _ = fs::remove_dir_all(&scratch);
    })
}

fn write_into(
    folder: &Path,
    model: &ModelFiles,
    request: &ExportRequest<'_>,
    is_patch_stage: bool,
) -> Result<ExportReport, ExportError> {
    let tokenizer = TokenizerFiles::of(&model.tokenizer, model.add_bos, model.context_length)?;
    let mut weights = model.weights()?;
    let (files, weight_bytes) = write_weights(
        &weight_dims(&model.shape),
        &mut weights,
        request.format,
        request.max_shard_bytes,
        folder,
    )?;
    write_text(&folder.join(TOKENIZER_FILE), &tokenizer.tokenizer)?;
    let documents = [
        (CONFIG_FILE, config_json(model, request.format, is_patch_stage)),
        (GENERATION_FILE, generation_json(model)),
        ("tokenizer_config.json", tokenizer.config),
        ("special_tokens_map.json", tokenizer.special_tokens),
    ];
    for (name, document) in documents {
        write_text(&folder.join(name), &format!("{document:#}\n"))?;
    }
    Ok(ExportReport { num_files: files.len(), weight_bytes })
}

/// With the names of transformers 4, which 5 reads as well, but not vice versa.
fn config_json(model: &ModelFiles, format: NumberFormat, is_patch_stage: bool) -> Value {
    let shape = &model.shape;
    let dtype = match format {
        NumberFormat::F32 => "float32",
        NumberFormat::Bf16 => "bfloat16",
        NumberFormat::F16 => "float16",
    };
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim(),
        "hidden_act": "silu",
        // The trained context length, not the size of the tables: longer texts would be evaluated as nonsense.
        "max_position_embeddings": model.context_length,
        "initializer_range": shape.initializer_range,
        "rms_norm_eps": shape.rms_norm_eps,
        "use_cache": true,
        "bos_token_id": model.tokenizer.bos(),
        "eos_token_id": model.tokenizer.eos(),
        "pad_token_id": null,
        "pretraining_tp": 1,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "rope_theta": shape.rope_theta,
        "rope_scaling": null,
        "attention_bias": false,
        "attention_dropout": 0.0,
        "mlp_bias": false,
        "torch_dtype": dtype,
        "transformers_version": TRANSFORMERS_VERSION,
    });
    if is_patch_stage {
        config["patch_size"] = model.patch_size.get().into();
    }
    config
}

fn generation_json(model: &ModelFiles) -> Value {
    json!({
        "bos_token_id": model.tokenizer.bos(),
        "eos_token_id": if model.ends.is_empty() { Value::Null } else { model.ends.clone().into() },
        "transformers_version": TRANSFORMERS_VERSION,
    })
}
