//! Patches: how K tokens become one input position, and which tokens each position must predict (arXiv 2407.12665, section 2).
//!
//! This and the loss are the only places that know the patch size. With K = 1 both functions hand their input through, so that
//! the computation is the plain language model's, bit for bit.
//! Axes: `B` sequences, `S = K * T` tokens, `T` patches, `D` hidden.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::config::PatchSize;

/// Averages each run of `patch_size` token embeddings into one patch embedding.
///
/// `embeddings`: `[B * S, D]`, S a multiple of K. Returns `[B * T, D]`.
/// Source: arXiv 2407.12665, figure 3 (mean over the K tokens of a patch).
pub fn pool_patches(embeddings: Tensor<2>, patch_size: PatchSize) -> Tensor<2> {
    if patch_size == PatchSize::ONE {
        return embeddings;
    }
    let [num_tokens, hidden_size] = embeddings.dims();
    let num_patches = num_tokens / patch_size.get();
    embeddings
        .reshape([num_patches, patch_size.get(), hidden_size]) // [B * T, K, D]
        .mean_dim(1) // [B * T, 1, D]
        .squeeze_dim(1) // [B * T, D]
}

/// A batch of sequences on the device.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[B * S]`, sequence after sequence.
    pub ids: Tensor<1, Int>,
    /// `[B * (T - 1), K]`: for each position but the last of its sequence, the tokens of the next patch.
    pub targets: Tensor<2, Int>,
    /// Sequences (B).
    pub num_sequences: usize,
    /// Positions per sequence (T).
    pub num_positions: usize,
    /// Tokens per position (K).
    pub patch_size: PatchSize,
}

impl Batch {
    /// Uploads `num_sequences` sequences of equal length, concatenated in `tokens`.
    pub fn new(tokens: &[u32], num_sequences: usize, patch_size: PatchSize, device: &Device) -> Self {
        let k = patch_size.get();
        let sequence = tokens.len() / num_sequences;
        let num_positions = sequence / k;
        // The first patch of a sequence has no loss, so the targets are the sequence without its first K tokens.
        let targets: Vec<i32> = tokens.chunks(sequence).flat_map(|tokens| tokens[k..].iter().map(|id| *id as i32)).collect();
        let ids: Vec<i32> = tokens.iter().map(|id| *id as i32).collect();
        Self {
            ids: Tensor::from_data(TensorData::new(ids, [tokens.len()]), device),
            targets: Tensor::from_data(TensorData::new(targets, [num_sequences * (num_positions - 1), k]), device),
            num_sequences,
            num_positions,
            patch_size,
        }
    }

    /// Tokens that are scored.
    pub fn num_targets(&self) -> usize {
        self.num_sequences * (self.num_positions - 1) * self.patch_size.get()
    }
}
