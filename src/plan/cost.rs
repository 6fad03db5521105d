//! Parameters and floating-point operations of a LLaMA-style network.
//!
//! Operations are counted as 6 per matrix weight and position plus 12 * layers * hidden * positions
//! of the sequence for attention (the convention of nanochat and torchtitan; the causal half is not
//! taken off). The embedding table is looked up, not multiplied.

use std::iter::Sum;

use crate::config::ModelShape;

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

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |sum, part| Self {
            tokens: sum.tokens.saturating_add(part.tokens),
            positions: sum.positions.saturating_add(part.positions),
            flops: sum.flops + part.flops,
        })
    }
}

impl ModelShape {
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
