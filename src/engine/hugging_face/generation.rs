//! Reads the EOS tokens from `generation_config.json`, else from `config.json`, like
//! `transformers`.

use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use crate::config::{LlamaConfig, token_ids};
use crate::data::bytes_without_mark;
use crate::engine::hugging_face::{GENERATION_FILE, HuggingFaceError};
use crate::record::files::read_small;

/// The EOS tokens of the directory at `path`; `config` is its `config.json`.
///
/// Ids outside the vocabulary are never generated, and are dropped.
///
/// # Errors
/// When `generation_config.json` exists but cannot be read, or contains something that is no token
/// id.
pub fn end_tokens(path: &Path, config: &LlamaConfig) -> Result<Vec<u32>, HuggingFaceError> {
    let path = path.join(GENERATION_FILE);
    let problem = |problem: String| HuggingFaceError::Generation { path: path.clone(), problem };
    let named = match read_small(&path) {
        Ok(bytes) => {
            let fields: Map<String, Value> = serde_json::from_slice(bytes_without_mark(&bytes))
                .map_err(|error| problem(format!("it is not a JSON object: {error}")))?;
            token_ids("eos_token_id", fields.get("eos_token_id")).map_err(problem)?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(problem(error.to_string())),
    };
    let ends = if named.is_empty() { config.eos_token_ids.clone() } else { named };
    Ok(ends.into_iter().filter(|id| (*id as usize) < config.shape.vocab_size).collect())
}
