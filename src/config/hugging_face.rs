//! Reads the sizes of a `LLaMA` network from the `config.json` of a Hugging Face directory; refuses
//! what patchtui does not support.
//!
//! Accepts the spellings of transformers 4 and 5 and fills in the defaults of `LlamaConfig`. Does
//! not read weights. Start at [`LlamaConfig::read`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use thiserror::Error;

use crate::config::keys::{Found, find};
use crate::config::{ModelShape, PatchSize};

/// Name of the file.
pub const CONFIG_FILE: &str = "config.json";

/// A larger file is refused before it is read.
const MAX_BYTES: u64 = 4 << 20;

/// Sizes of a `LLaMA` network, and the training state of its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Sizes.
    pub shape: ModelShape,
    /// Patch size (K) of the stage that the weights come from; 1 if the file has none.
    pub patch_size: PatchSize,
    /// EOS token ids; empty if the file has none.
    pub eos_token_ids: Vec<u32>,
}

/// Why a `config.json` cannot be used.
#[derive(Debug, Error)]
pub enum LlamaConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Operating system error.
        source: io::Error,
    },
    /// It describes a network that patchtui does not support, or is invalid.
    #[error("{}: {problem}", path.display())]
    Unfit {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl LlamaConfig {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// When the file cannot be read, or does not describe a supported `LLaMA`.
    pub fn read(path: &Path) -> Result<Self, LlamaConfigError> {
        let text = read_limited(path)
            .map_err(|source| LlamaConfigError::Io { path: path.to_owned(), source })?;
        Self::parse(&text)
            .map_err(|problem| LlamaConfigError::Unfit { path: path.to_owned(), problem })
    }

    /// Reads the sizes from the plan of a run, which uses the same names.
    ///
    /// # Errors
    /// When the plan cannot be read, or has no sizes.
    pub(crate) fn of_plan(path: &Path) -> Result<Self, LlamaConfigError> {
        let text = read_limited(path)
            .map_err(|source| LlamaConfigError::Io { path: path.to_owned(), source })?;
        let unfit = |problem: String| LlamaConfigError::Unfit { path: path.to_owned(), problem };
        let mut file: Value = serde_json::from_str(&text)
            .map_err(|error| unfit(format!("it is not JSON: {error}")))?;
        let Value::Object(mut model) = file["model"].take() else {
            return Err(unfit("it has no \"model\"".into()));
        };
        model.insert("model_type".into(), "llama".into());
        Self::parse(&Value::Object(model).to_string()).map_err(unfit)
    }

    /// Parses the text of the file.
    ///
    /// # Errors
    /// What is wrong, as text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields = match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Fields(fields),
            Ok(_) => return Err("it is not a JSON object".into()),
            Err(error) => return Err(format!("it is not JSON: {error}")),
        };
        fields.check_architecture()?;
        fields.check_unsupported()?;
        let num_attention_heads = fields.size("num_attention_heads", 32)?;
        let shape = ModelShape {
            vocab_size: fields.size("vocab_size", 32_000)?,
            hidden_size: fields.size("hidden_size", 4096)?,
            intermediate_size: fields.size("intermediate_size", 11_008)?,
            num_hidden_layers: fields.size("num_hidden_layers", 32)?,
            num_attention_heads,
            num_key_value_heads: fields.size("num_key_value_heads", num_attention_heads)?,
            max_position_embeddings: fields.size("max_position_embeddings", 2048)?,
            rope_theta: fields.rope_theta()?,
            rms_norm_eps: fields.positive("rms_norm_eps", 1e-6)?,
            initializer_range: fields.positive("initializer_range", 0.02)?,
            tie_word_embeddings: fields.flag("tie_word_embeddings")?,
        };
        check_heads(&shape, fields.optional("head_dim"))?;
        Ok(Self {
            shape,
            patch_size: fields.patch_size()?,
            eos_token_ids: token_ids("eos_token_id", fields.optional("eos_token_id"))?,
        })
    }
}

/// The keys of the object.
struct Fields(Map<String, Value>);

impl Fields {
    /// The value of `key`, unless it is absent or null.
    fn optional(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn check_architecture(&self) -> Result<(), String> {
        let (model_type, architectures) =
            (self.optional("model_type"), self.optional("architectures"));
        if model_type.is_none() && architectures.is_none() {
            return Err(
                "it names no architecture: it has neither model_type nor architectures".into()
            );
        }
        if let Some(other) = model_type.filter(|name| *name != "llama") {
            return Err(format!("model_type = {other} is not supported, only \"llama\""));
        }
        let is_llama = |list: &Value| {
            list.as_array().is_some_and(|names| names.iter().any(|name| name == "LlamaForCausalLM"))
        };
        match architectures.filter(|list| !is_llama(list)) {
            Some(other) => Err(format!(
                "architectures = {other} is not supported, only [\"LlamaForCausalLM\"]"
            )),
            None => Ok(()),
        }
    }

    /// Refuses settings that change the computation in a way that patchtui does not support.
    fn check_unsupported(&self) -> Result<(), String> {
        for key in ["attention_bias", "mlp_bias"] {
            if self.flag(key)? {
                return Err(format!("{key} = true is not supported: patchtui has no biases"));
            }
        }
        if let Some(other) = self.optional("hidden_act").filter(|name| *name != "silu") {
            return Err(format!("hidden_act = {other} is not supported, only \"silu\""));
        }
        if self.optional("quantization_config").is_some() {
            return Err(
                "quantization_config is set, but quantized weights are not supported".into()
            );
        }
        let rope = self.optional("rope_parameters");
        for parent in [Some(&Value::Object(self.0.clone())), rope].into_iter().flatten() {
            if let Some(other) = parent
                .get("partial_rotary_factor")
                .filter(|factor| !factor.is_null() && factor.as_f64() != Some(1.0))
            {
                return Err(format!("partial_rotary_factor = {other} is not supported, only 1.0"));
            }
        }
        for key in ["rope_parameters", "rope_scaling"] {
            let Some(rope) = self.optional(key) else { continue };
            let Some(fields) = rope.as_object() else {
                return Err(format!("{key} = {rope} is not an object"));
            };
            let kind = ["rope_type", "type"]
                .into_iter()
                .find_map(|name| fields.get(name).filter(|kind| !kind.is_null()));
            // An object under the old key without a type would be scaling of an unknown kind.
            let is_default = kind.map_or(key == "rope_parameters", |kind| kind == "default");
            if !is_default {
                return Err(format!(
                    "{key} = {rope} is not supported, only rotary embeddings of type \"default\""
                ));
            }
        }
        Ok(())
    }

    /// A size in the range of the configuration key of the same name; `default` if it is absent.
    fn size(&self, key: &str, default: usize) -> Result<usize, String> {
        let Some(value) = self.optional(key) else { return Ok(default) };
        let Found::Key(known) = find(&format!("model.{key}")) else {
            unreachable!("model.{key} is a key of the configuration")
        };
        let whole = value
            .as_i64()
            .map(toml::Value::Integer)
            .and_then(|whole| known.kind.read(&whole, Path::new("/")));
        let whole = whole
            .and_then(|whole| whole.as_integer())
            .and_then(|whole| usize::try_from(whole).ok());
        whole.ok_or_else(|| format!("{key} = {value}, expected {}", known.kind.expected()))
    }

    fn positive(&self, key: &str, default: f64) -> Result<f64, String> {
        self.optional(key).map_or(Ok(default), |value| positive(key, value))
    }

    fn flag(&self, key: &str) -> Result<bool, String> {
        self.optional(key).map_or(Ok(false), |value| {
            value.as_bool().ok_or_else(|| format!("{key} = {value}, expected true or false"))
        })
    }

    fn rope_theta(&self) -> Result<f64, String> {
        let newer = self
            .optional("rope_parameters")
            .and_then(|rope| rope.get("rope_theta"))
            .filter(|value| !value.is_null());
        newer
            .or_else(|| self.optional("rope_theta"))
            .map_or(Ok(10_000.0), |value| positive("rope_theta", value))
    }

    fn patch_size(&self) -> Result<PatchSize, String> {
        let Some(value) = self.optional("patch_size") else { return Ok(PatchSize::ONE) };
        let size = value.as_u64().and_then(|size| PatchSize::new(size).ok());
        size.ok_or_else(|| {
            format!("patch_size = {value}, expected a patch size from 1 to {}", PatchSize::MAX)
        })
    }
}

fn check_heads(shape: &ModelShape, head_dim: Option<&Value>) -> Result<(), String> {
    let (hidden, heads, key_value) =
        (shape.hidden_size, shape.num_attention_heads, shape.num_key_value_heads);
    if !hidden.is_multiple_of(2 * heads) {
        return Err(format!(
            "hidden_size = {hidden} cannot be divided into num_attention_heads = {heads} \
             heads of even dimension"
        ));
    }
    if !heads.is_multiple_of(key_value) {
        return Err(format!(
            "num_key_value_heads = {key_value} does not divide num_attention_heads = {heads}"
        ));
    }
    match head_dim {
        Some(width) if width.as_u64() != Some((hidden / heads) as u64) => Err(format!(
            "head_dim = {width} is not supported: it must be hidden_size / \
             num_attention_heads = {}",
            hidden / heads
        )),
        _ => Ok(()),
    }
}

/// The token ids in `value` of `key`: one, several or none. Some files write -1 for none.
///
/// # Errors
/// What is wrong, as text.
pub fn token_ids(key: &str, value: Option<&Value>) -> Result<Vec<u32>, String> {
    let items = match value {
        None | Some(Value::Null) => &[],
        Some(Value::Array(items)) => items.as_slice(),
        Some(single) => std::slice::from_ref(single),
    };
    let wrong = |item: &Value| format!("{key} contains {item}, expected token ids");
    let ids = items
        .iter()
        .map(|item| item.as_i64().ok_or_else(|| wrong(item)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect())
}

fn positive(key: &str, value: &Value) -> Result<f64, String> {
    value
        .as_f64()
        .filter(|number| *number > 0.0 && number.is_finite())
        .ok_or_else(|| format!("{key} = {value}, expected a number greater than 0"))
}

fn read_limited(path: &Path) -> io::Result<String> {
    // A pipe or a device may never end.
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is too large for a config.json",
        ));
    }
    // Some editors write a byte order mark at the start.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
