//! `patchtui import`: checks a Hugging Face directory and writes a configuration that continues its
//! training.

use std::io;
use std::path::Path;

use crate::advice::Failure;
use crate::commands::Runs;
use crate::engine::hugging_face::weight_dims;
use crate::engine::{ModelFiles, ModelOrigin, OpenError};
use crate::record::{ResultFile, RunDirectory};
use crate::report::{print, tell, warn};
use crate::text::format;

/// Maximum context length of the configuration, in positions: fits into the memory of an ordinary
/// machine.
const MOST_POSITIONS: usize = 2048;
/// Patch size of the first stage, as in the paper.
const PATCH_SIZE: usize = 4;
/// Sequences per step in the first stage.
const SEQUENCES: usize = 16;

/// Imports the directory `source`; writes the configuration to the file `to`, or to standard
/// output. Returns the exit code.
///
/// # Errors
/// When the directory cannot be used, or the file exists or cannot be written.
pub fn run(source: &Path, to: Option<&Path>, runs: &Runs) -> Result<u8, Failure> {
    let run = source.to_str().map_or(Ok(None), |text| runs.named(text))?;
    let is_own = run.is_some()
        || RunDirectory::new(source).is_run()
        || source.join("manifest.json").is_file();
    if !is_own && !source.join("config.json").is_file() {
        let problem = if source.is_dir() { "no config.json in it" } else { "no such directory" };
        return Err(Failure::usage(
            format!("{}: {problem}", source.display()),
            "name a directory in Hugging Face format, with config.json",
        ));
    }
    let model = ModelFiles::find(run.as_ref().map_or(source, RunDirectory::path))?;
    if !matches!(model.origin, ModelOrigin::HuggingFace { .. }) {
        let hint =
            "no import is needed: set model.init_from to its name or path in a configuration";
        return Err(Failure::usage(format!("{} is a run or a checkpoint", source.display()), hint));
    }
    let file = to
        .map(|path| {
            ResultFile::open_new(path)
                .map(|file| (path, file))
                .map_err(|error| cannot_write(path, &error))
        })
        .transpose()?;
    describe(&model)?;
    let text = configuration(&model)?;
    match file {
        None => print(&text)?,
        Some((path, mut file)) => {
            file.append(text.as_bytes()).map_err(|error| cannot_write(path, &error))?;
            tell(&format!(
                "Wrote {}: set data.files there, then continue its training: patchtui run {}",
                path.display(),
                format::shell_word(&path.to_string_lossy())
            ));
        }
    }
    Ok(0)
}

/// Reads every tensor and prints a summary.
fn describe(model: &ModelFiles) -> Result<(), Failure> {
    let mut weights = model.weights()?;
    for (name, dims) in weight_dims(&model.shape) {
        weights.read(&name, &dims).map_err(OpenError::from)?;
    }
    let shape = &model.shape;
    let head = if shape.tie_word_embeddings { ", tied" } else { "" };
    let formats = weights.formats().into_iter().collect::<Vec<_>>().join(" and ");
    let files = if weights.num_files() == 1 {
        "one file".to_owned()
    } else {
        format!("{} files", weights.num_files())
    };
    let groups = if shape.num_key_value_heads == shape.num_attention_heads {
        String::new()
    } else {
        format!(" ({} KV)", shape.num_key_value_heads)
    };
    tell(&format!(
        "LLaMA, {} parameters{head}, {formats} in {files}",
        format::short_count(shape.num_parameters() as f64)
    ));
    tell(&format!(
        "{}, hidden {}, FFN {}, {}{groups}, context {}, vocabulary {}",
        format::counted(shape.num_hidden_layers, "layer"),
        shape.hidden_size,
        shape.intermediate_size,
        format::counted(shape.num_attention_heads, "head"),
        shape.max_position_embeddings,
        shape.vocab_size
    ));
    let begins = if model.add_bos { "with BOS" } else { "without BOS" };
    tell(&format!("tokenizer: {} tokens, {begins}", model.tokenizer.vocab_size()));
    if let Some(stage) = model.patch_stage() {
        warn(&stage.to_string());
    }
    Ok(())
}

/// A configuration that continues training, for the user to complete.
fn configuration(model: &ModelFiles) -> Result<String, Failure> {
    let path = model.origin.path();
    let quoted = |path: &Path| {
        let text = path.to_str().ok_or_else(|| {
            Failure::usage(format!("{} is not UTF-8", path.display()), "rename the directory")
        })?;
        Ok::<_, Failure>(toml::Value::from(text).to_string())
    };
    let (directory, tokenizer) = (quoted(path)?, quoted(&path.join("tokenizer.json"))?);
    let context_length = model.context_length.min(MOST_POSITIONS);
    let tokens_per_step = PATCH_SIZE * context_length * SEQUENCES;
    let add_bos = model.add_bos;
    Ok(format!(
        "\
# Continue training a model, first in patches of {PATCH_SIZE} tokens, then token by token.
# Set data.files and training.tokens; for the cost: patchtui plan FILE

[model]
init_from = {directory}    # initial weights; the model's sizes are read from there

[data]
# files = [\"my-texts/*.jsonl\"]    # text files, folders and patterns, relative to this file
tokenizer = {tokenizer}
add_bos = {add_bos}

[training]
tokens = \"100M\"                     # total of all stages
tokens_per_step = {tokens_per_step}
context_length = {context_length}              # positions: patches in stage 1, tokens in stage 2
micro_batch_size = 1                # larger is faster and needs more memory

# A patch stage costs a quarter of the compute per token; the last stage turns the model back into \
         a token-level LM.
[[stages]]
patch_size = {PATCH_SIZE}
share = \"1/2\"

[[stages]]
patch_size = 1
optimizer_state = \"reset\"

[optimizer]
learning_rate = 1e-4                # lower than for training from scratch, to preserve the \
         pretrained weights

[schedule]
warmup_share = 0.05                 # the optimizer state is reset
"
    ))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::usage(format!("{} exists", path.display()), "use a new file name for --to")
        }
        _ => Failure::io(path, error),
    }
}
