//! Parameters and floating-point operations of a LLaMA-style network.
//!
//! Operations are counted as 6 per matrix weight and position plus 12 * layers * hidden * positions
//! of the sequence for attention (the convention of nanochat and torchtitan; the causal half is not
//! taken off). The embedding table is looked up, not multiplied.

use crate::config::{LlamaConfig, ModelConfig};

/// A network with a known vocabulary size.
#[derive(Debug, Clone, PartialEq)]
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

/// Cost of a part of the training.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Tokens read.
    pub tokens: u64,
    /// Positions computed: tokens divided by the patch size.
    pub positions: u64,
    /// Floating-point operations, forward and backward.
    pub flops: f64,
}

impl From<&LlamaConfig> for ModelShape {
    fn from(config: &LlamaConfig) -> Self {
        Self {
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            max_position_embeddings: config.max_position_embeddings,
            rope_theta: config.rope_theta,
            rms_norm_eps: config.rms_norm_eps,
            initializer_range: config.initializer_range,
            tie_word_embeddings: config.tie_word_embeddings,
        }
    }
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

    /// Width of one attention head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads.max(1)
    }

    /// Number of parameters; tied embeddings are counted once; saturates at the largest number.
    #[must_use]
    pub fn num_parameters(&self) -> u64 {
        let norms = product(&[2, self.num_hidden_layers, self.hidden_size])
            .saturating_add(self.hidden_size as u64);
        let tables = product(&[
            if self.tie_word_embeddings { 1 } else { 2 },
            self.vocab_size,
            self.hidden_size,
        ]);
        self.layers_matmul_parameters().saturating_add(norms).saturating_add(tables)
    }

    /// Weights that every position is multiplied by: all matrices including the head, without the
    /// embedding table.
    #[must_use]
    pub fn num_matmul_parameters(&self) -> u64 {
        self.layers_matmul_parameters()
            .saturating_add(product(&[self.vocab_size, self.hidden_size]))
    }

    /// Operations of one position, forward and backward, in a sequence of `context_length`
    /// positions.
    #[must_use]
    pub fn flops_per_position(&self, context_length: usize) -> f64 {
        let attention = 12.0
            * product(&[self.num_hidden_layers, self.hidden_size]) as f64
            * context_length as f64;
        6.0 * self.num_matmul_parameters() as f64 + attention
    }

    fn layers_matmul_parameters(&self) -> u64 {
        let queries_and_output = product(&[2, self.hidden_size, self.hidden_size]);
        let keys_and_values =
            product(&[2, self.hidden_size, self.num_key_value_heads, self.head_dim()]);
        let feed_forward = product(&[3, self.hidden_size, self.intermediate_size]);
        let layer = queries_and_output.saturating_add(keys_and_values).saturating_add(feed_forward);
        layer.saturating_mul(self.num_hidden_layers as u64)
    }
}

/// Product of `sizes`, saturating.
fn product(sizes: &[usize]) -> u64 {
    sizes.iter().fold(1, |product: u64, size| product.saturating_mul(*size as u64))
}
