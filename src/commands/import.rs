//! `patchtui import`: checks a directory in Hugging Face's format, and writes a configuration that continues its training.

use std::io;
use std::path::Path;

use crate::commands::{CommandError, Runs};
use crate::engine::hugging_face::weight_dims;
use crate::engine::{ModelFiles, OpenError, Origin};
use crate::report::{format, print, tell, warn};
use crate::run::{ResultFile, RunDirectory};

/// Longest sequence of the configuration, in positions: what fits into the memory of an ordinary machine.
const MOST_POSITIONS: usize = 2048;
/// Patch size of the first stage, as in the paper.
const PATCH_SIZE: usize = 4;
/// Sequences of a step, in the first stage.
const SEQUENCES: usize = 16;

/// Imports the directory `source`; the configuration goes to the file `to`, or else to the standard output. Returns the exit code.
///
/// # Errors
/// When something in the directory cannot be used, or the file exists or cannot be written.
pub fn run(source: &Path, to: Option<&Path>, runs: &Runs) -> Result<u8, CommandError> {
    let run = source.to_str().map_or(Ok(None), |text| runs.named(text))?;
    let model = ModelFiles::find(run.as_ref().map_or(source, RunDirectory::path))?;
    if !matches!(model.origin, Origin::HuggingFace { .. }) {
        let hint = "nothing has to be imported: set model.init_from to its name or path in a configuration";
        return Err(CommandError::usage(format!("{} is a run or a checkpoint of one", source.display()), hint));
    }
    let file = to.map(|path| ResultFile::open_new(path).map(|file| (path, file)).map_err(|error| cannot_write(path, &error))).transpose()?;
    describe(&model)?;
    let text = configuration(&model)?;
    match file {
        None => print(&text)?,
        Some((path, mut file)) => {
            file.append(text.as_bytes()).map_err(|error| cannot_write(path, &error))?;
            tell(&format!(
                "{} continues its training: set data.files there, then patchtui run {}",
                path.display(),
                format::shell_word(&path.to_string_lossy())
            ));
        }
    }
    Ok(0)
}

/// Reads every tensor, and says what is there.
fn describe(model: &ModelFiles) -> Result<(), CommandError> {
    let mut weights = model.weights()?;
    for (name, dims) in weight_dims(&model.shape) {
        weights.read(&name, &dims).map_err(OpenError::from)?;
    }
    let shape = &model.shape;
    let head = if shape.tie_word_embeddings { ", tied" } else { "" };
    let formats = weights.formats().into_iter().collect::<Vec<_>>().join(" and ");
    let files = if weights.num_files() == 1 { "one file".to_owned() } else { format!("{} files", weights.num_files()) };
    let groups =
        if shape.num_key_value_heads == shape.num_attention_heads { String::new() } else { format!(" ({} for keys and values)", shape.num_key_value_heads) };
    tell(&format!("LLaMA of {} parameters{head}, {formats} in {files}", format::short_count(shape.num_parameters() as f64)));
    tell(&format!(
        "{} layers, width {} ({} inside), {} heads{groups}, {} positions, {} rows of embeddings",
        shape.num_hidden_layers, shape.hidden_size, shape.intermediate_size, shape.num_attention_heads, shape.max_position_embeddings, shape.vocab_size
    ));
    let begins = if model.add_bos { "texts begin with a begin-of-text token" } else { "no begin-of-text token" };
    tell(&format!("tokenizer of {} tokens, {begins}", model.tokenizer.vocab_size()));
    if let Some(stage) = model.patch_stage() {
        warn(&stage.to_string());
    }
    Ok(())
}

/// A configuration that continues training, for the user to complete.
fn configuration(model: &ModelFiles) -> Result<String, CommandError> {
    let path = model.origin.path();
    let quoted = |path: &Path| {
        let text = path.to_str().ok_or_else(|| CommandError::usage(format!("{} is not UTF-8", path.display()), "rename the directory"))?;
        Ok::<_, CommandError>(toml::Value::from(text).to_string())
    };
    let (directory, tokenizer) = (quoted(path)?, quoted(&path.join("tokenizer.json"))?);
    let context_length = model.context_length.min(MOST_POSITIONS);
    let tokens_per_step = PATCH_SIZE * context_length * SEQUENCES;
    let add_bos = model.add_bos;
    Ok(format!(
        "\
# Continues the training of a model, first in patches of {PATCH_SIZE} tokens, then token by token.
# Set data.files and training.tokens; see what it costs with: patchtui plan FILE

[model]
init_from = {directory}    # the weights to start from; their sizes are read from there

[data]
# files = [\"my-texts/*.jsonl\"]    # text files, folders and patterns, relative to this file
tokenizer = {tokenizer}
add_bos = {add_bos}

[training]
tokens = \"100M\"                     # total of all stages
tokens_per_step = {tokens_per_step}
context_length = {context_length}              # positions: patches in stage 1, tokens in stage 2
micro_batch_size = 1                # more is faster and needs more memory

# A patch stage costs a quarter of the operations per token; the last stage turns it back into a token-level LM.
[[stages]]
patch_size = {PATCH_SIZE}
share = \"1/2\"

[[stages]]
patch_size = 1
optimizer_state = \"reset\"

[optimizer]
learning_rate = 1e-4                # lower than for new weights, so that what was learned is not washed out

[schedule]
warmup_share = 0.05                 # the optimizer state is reset
"
    ))
}

fn cannot_write(path: &Path, error: &io::Error) -> CommandError {
    match error.kind() {
        io::ErrorKind::AlreadyExists => CommandError::usage(format!("{} exists", path.display()), "give --to a file that does not exist yet"),
        _ => CommandError::io(path, error),
    }
}
