//! The sizes of a network, wherever they come from: a configuration, a `config.json`, a checkpoint.

use serde::Serialize;

use crate::config::ModelConfig;

/// The sizes of a LLaMA-style network, by the names of Hugging Face's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelShape {
    /// Vocabulary size.
    pub vocab_size: usize,
    /// Hidden size.
    pub hidden_size: usize,
    /// Intermediate size of the FFN.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads per layer.
    pub num_attention_heads: usize,
    /// Key and value heads per layer.
    pub num_key_value_heads: usize,
    /// Maximum sequence length, in positions.
    pub max_position_embeddings: usize,
    /// Base of the rotary position embedding.
    pub rope_theta: f64,
    /// Epsilon of `RMSNorm`.
    pub rms_norm_eps: f64,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    /// Whether the head shares the embedding table.
    pub tie_word_embeddings: bool,
}

impl ModelShape {
    /// The network of `model` with `vocab_size`.
    #[must_use]
    pub fn new(model: &ModelConfig, vocab_size: usize) -> Self {
        Self {
            vocab_size,
            hidden_size: model.hidden_size,
            intermediate_size: model.intermediate_size,
            num_hidden_layers: model.num_hidden_layers,
            num_attention_heads: model.num_attention_heads,
            num_key_value_heads: model.num_key_value_heads,
            max_position_embeddings: model.max_position_embeddings,
            rope_theta: model.rope_theta,
            rms_norm_eps: model.rms_norm_eps,
            initializer_range: model.initializer_range,
            tie_word_embeddings: model.tie_word_embeddings,
        }
    }
}
