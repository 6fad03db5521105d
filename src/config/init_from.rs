//! What follows from `model.init_from`: the sizes of the network that a run starts from, and its tokenizer.
//!
//! Reads the small files of a Hugging Face directory, of a run or of a checkpoint; never weights. Start at [`layer_of`].

use std::path::{Path, PathBuf};

use toml::Value;

use crate::config::error::{ConfigError, Origin};
use crate::config::hugging_face::{CONFIG_FILE, LlamaConfig};
use crate::config::layers::{Layer, Leaf};
use crate::config::load::load_resolved;

/// A run's plan, which has the sizes of its network, and its own copy of its tokenizer, unless that is built in.
const PLAN_FILE: &str = "plan.json";
const TOKENIZER_FILE: &str = "tokenizer.json";

/// Keys that may differ from those of the weights: neither changes what the weights compute.
const FREE: [&str; 2] = ["model.max_position_embeddings", "model.initializer_range"];

/// The key itself.
pub(crate) const KEY: &str = "model.init_from";

/// What follows from the directory that `explicit` names, if it names one.
///
/// # Errors
/// When the directory says no sizes, and when `explicit` says others.
pub(crate) fn layer_of(explicit: &Layer) -> Result<Option<Layer>, ConfigError> {
    let Some(Leaf { value: Value::String(path), origin }) = explicit.leaves.get(KEY) else { return Ok(None) };
    let path = PathBuf::from(path);
    let (sizes, tokenizer) = read(&path).map_err(|problem| ConfigError::InitFrom { origin: origin.clone(), path: path.clone(), problem })?;
    let mut layer = Layer::default();
    let own = Origin::InitFrom { path: path.clone() };
    let values = sizes_of(&sizes).into_iter().chain(tokenizer.map(|tokenizer| ("data.tokenizer", Value::String(tokenizer))));
    for (key, value) in values {
        if let Some(other) = explicit.leaves.get(key).filter(|leaf| leaf.value != value && key.starts_with("model.") && !FREE.contains(&key)) {
            let (origin, found, expected) = (other.origin.clone(), other.value.to_string(), value.to_string());
            return Err(ConfigError::OtherSize { origin, key, found, expected, path });
        }
        layer.leaves.insert(key.to_owned(), Leaf { value, origin: own.clone() });
    }
    Ok(Some(layer))
}

/// Sizes and tokenizer of the network in the directory `path`.
fn read(path: &Path) -> Result<(LlamaConfig, Option<String>), String> {
    let is_run = |folder: &Path| folder.join("config.toml").is_file();
    if path.join(CONFIG_FILE).exists() && !is_run(path) {
        let tokenizer = path.join(TOKENIZER_FILE);
        let sizes = LlamaConfig::read(&path.join(CONFIG_FILE)).map_err(|error| error.to_string())?;
        return Ok((sizes, tokenizer.exists().then(|| tokenizer.to_string_lossy().into_owned())));
    }
    // A checkpoint lies in a folder of its run.
    let run = [Some(path), path.parent().and_then(Path::parent)].into_iter().flatten().find(|folder| is_run(folder));
    let Some(run) = run else {
        let what = if path.is_dir() { "is neither a Hugging Face directory nor a run nor a checkpoint of one" } else { "is not a directory" };
        return Err(format!("{} {what}", path.display()));
    };
    let sizes = LlamaConfig::of_plan(&run.join(PLAN_FILE)).map_err(|error| error.to_string())?;
    let copy = run.join(TOKENIZER_FILE);
    let tokenizer = if copy.is_file() {
        copy.to_string_lossy().into_owned()
    } else {
        load_resolved(&run.join("config.toml")).map_err(|error| error.to_string())?.data.tokenizer
    };
    Ok((sizes, Some(tokenizer)))
}

fn sizes_of(sizes: &LlamaConfig) -> [(&'static str, Value); 11] {
    let whole = |size: usize| Value::Integer(size as i64);
    [
        ("model.vocab_size", whole(sizes.vocab_size)),
        ("model.hidden_size", whole(sizes.hidden_size)),
        ("model.intermediate_size", whole(sizes.intermediate_size)),
        ("model.num_hidden_layers", whole(sizes.num_hidden_layers)),
        ("model.num_attention_heads", whole(sizes.num_attention_heads)),
        ("model.num_key_value_heads", whole(sizes.num_key_value_heads)),
        ("model.max_position_embeddings", whole(sizes.max_position_embeddings)),
        ("model.rope_theta", Value::Float(sizes.rope_theta)),
        ("model.rms_norm_eps", Value::Float(sizes.rms_norm_eps)),
        ("model.initializer_range", Value::Float(sizes.initializer_range)),
        ("model.tie_word_embeddings", Value::Boolean(sizes.tie_word_embeddings)),
    ]
}
